"""Models that TensorFlow writes, once for all tests."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tensorflow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("the extra 'tensorflow' is not installed")
    folder = tmp_path_factory.mktemp("tensorflow")
    made = subprocess.run(
        [sys.executable, "-m", "tests.helpers.tensorflow_models", str(folder)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-4000:]
    return folder


@pytest.fixture(scope="session")
def tflite_files(tensorflow_folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in tensorflow_folder.glob("*.tflite")}


@pytest.fixture(scope="session")
def keras_files(tensorflow_folder: Path) -> dict[str, Path]:
    names = {
        "keras": "model.keras", "h5": "model.h5", "lambda": "lambda.keras", "savedmodel": "saved", "reads": "reads",
        "expected": "expected.npz",
    }  # fmt: skip
    return {key: tensorflow_folder / name for key, name in names.items()}
