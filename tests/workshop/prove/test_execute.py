"""What can be run where, and real foreign binaries under qemu-user."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fleetui.workshop import pipeline, targets
from fleetui.workshop.errors import TargetError, ToleranceError, WorkshopError
from fleetui.workshop.frontends.onnx import FRONTEND
from fleetui.workshop.graph import ir
from fleetui.workshop.options import Optimise, Options
from fleetui.workshop.progress import Progress
from fleetui.workshop.prove import Prover, data, execute
from fleetui.workshop.target import Target
from tests.bench import zoo

FOREIGN = ("rpi4-64", "beaglebone-black", "visionfive2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "cnn.onnx"
    path.write_bytes(zoo.cnn1d(48, 3, 6, 4))
    return path


def need(target: Target) -> None:
    why = execute.why_not(target)
    if why and os.environ.get("CI") != "true":
        pytest.skip(why)
    assert why == ""


@pytest.mark.parametrize("name", FOREIGN)
def test_the_object_that_ships_runs_on_its_own_processor(name: str, model: Path, tmp_path: Path) -> None:
    target = targets.find(name)
    need(target)
    graph = FRONTEND.load(model, ())
    pipeline.build_variant(graph, target, tmp_path / name, Options())
    runner = execute.runner_for(tmp_path / name, target)
    assert runner is not None
    with runner:
        assert runner.how.startswith("under qemu-")
        assert runner.latency_us() is None
        for feeds in data.generated(graph, 3):  # one process answers all
            found, wanted = runner.run(feeds), ir.run(graph, feeds)
            for key, array in wanted.items():
                assert data.errors(found[key], array)[0] < 1e-5


def test_kernels_that_cannot_be_loaded_are_said(model: Path, tmp_path: Path) -> None:
    target = targets.find("rpi4-64")
    need(target)
    graph = FRONTEND.load(model, ())
    pipeline.build_variant(graph, target, tmp_path / "v", Options())
    whole = (tmp_path / "v" / "kernels").read_bytes()
    (tmp_path / "v" / "kernels").write_bytes(whole[: len(whole) // 2])
    runner = execute.runner_for(tmp_path / "v", target)
    assert runner is not None
    with runner, pytest.raises(TargetError, match="qemu-aarch64"):
        runner.run(data.generated(graph, 1)[0])


@pytest.mark.parametrize(
    ("name", "words"),
    [("windows-x64", "Linux"), ("cortex-m4", "Linux"), ("apple-silicon", "Linux"), ("wasm32", "Linux")],
)
def test_what_cannot_run_here_says_why(name: str, words: str, tmp_path: Path) -> None:
    target = targets.find(name)
    assert words in execute.why_not(target)
    assert execute.runner_for(tmp_path, target) is None


def test_a_processor_that_lacks_something_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    target = replace(targets.find("x86-64-v4"), triple=f"{execute.family_of_machine()}-linux-gnu")
    monkeypatch.setattr(execute, "_flags", lambda: frozenset({"sse2"}))
    assert "lacks avx512vl" in execute.why_not(target)
    monkeypatch.setattr(execute, "_flags", lambda: frozenset({"avx512vl"}))
    assert execute.why_not(target) == ""


def test_an_input_of_another_shape_is_refused(model: Path, tmp_path: Path) -> None:
    target = targets.find("rpi4-64")
    need(target)
    graph = FRONTEND.load(model, ())
    pipeline.build_variant(graph, target, tmp_path / "v", Options())
    runner = execute.runner_for(tmp_path / "v", target)
    assert runner is not None
    with runner, pytest.raises(WorkshopError, match="shape"):
        runner.run({"x": np.zeros((1, 3, 5), np.float32)})


def test_another_model_does_not_pass_for_this_one(model: Path, tmp_path: Path) -> None:
    """The kernels of one model, the graph and source of another of the same shape."""
    other = tmp_path / "other.onnx"
    net = zoo.cnn1d(48, 3, 6, 4)
    other.write_bytes(net)
    graph = FRONTEND.load(model, ())
    for value in graph.constants():
        assert value.data is not None
        value.data = value.data * 1.1 if value.data.dtype.kind == "f" else value.data
    pipeline.build_variant(graph, targets.find("host"), tmp_path / "v", Options())
    original = FRONTEND.load(other, ())
    prover = Prover(other, FRONTEND, original, Options(), Progress())
    with pytest.raises(ToleranceError, match="was not produced"):
        prover.prove(tmp_path / "v", targets.find("host"), Optimise())
