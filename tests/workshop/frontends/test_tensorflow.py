"""Keras files and SavedModels against TensorFlow, and what they may not do."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fleetui.workshop.errors import HostileModel, MissingExtra, ModelError, UnsupportedError
from fleetui.workshop.frontends.tensorflow import KERAS, SAVED_MODEL, check
from fleetui.workshop.options import InputSpec
from tests.helpers.frontends import agree
from tests.helpers.inspecting import mutations


def test_a_keras_model_gives_what_tensorflow_gives(keras_files: dict[str, Path]) -> None:
    graph = agree(KERAS, keras_files["keras"], [InputSpec("words", (2, 4, 3)), InputSpec("picture", (2, 8, 8, 3))])
    assert [(v.name, v.shape) for v in graph.inputs] == [("words", (2, 4, 3)), ("picture", (2, 8, 8, 3))]
    assert [v.name for v in graph.outputs] == ["kind", "sure"]
    assert [v.shape for v in graph.outputs] == [(2, 2), (2, 1)]


def test_a_savedmodel_gives_what_tensorflow_gives(keras_files: dict[str, Path]) -> None:
    with np.load(keras_files["expected"]) as expected:
        given, made = expected["given"], expected["made"]
    path = keras_files["savedmodel"]
    (name,) = (v.name for v in SAVED_MODEL.load(path, ()).inputs)
    agree(SAVED_MODEL, path, feeds={name: given}, want={"output_0": made}, peer=False)


def test_both_forms_of_keras_files_are_known(keras_files: dict[str, Path]) -> None:
    for form in ("keras", "h5"):
        path = keras_files[form]
        assert KERAS.sniff(path.read_bytes()[:65536], path)
        assert check.keras_config(path)["class_name"] == "Functional"


def test_python_in_a_layer_is_refused(keras_files: dict[str, Path]) -> None:
    with pytest.raises(HostileModel, match="Lambda"):
        check.keras_config(keras_files["lambda"])


@pytest.mark.parametrize(
    ("part", "error"),
    [
        ({"class_name": "system", "module": "os", "config": {}}, UnsupportedError),
        ({"class_name": "Mine", "module": None, "registered_name": "Package>Mine", "config": {}}, UnsupportedError),
        ({"class_name": "__lambda__", "config": {"value": "AAAA"}}, HostileModel),
        ("no description", ModelError),
    ],
)
def test_classes_from_elsewhere_are_refused(part: object, error: type[Exception], tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    config = part if isinstance(part, str) else {"class_name": "Sequential", "config": {"layers": [part]}}
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("config.json", json.dumps(config))
        zipped.writestr("model.weights.h5", b"")
    with pytest.raises(error):
        check.keras_config(path)


def test_hdf5_links_to_other_files_are_refused(tmp_path: Path, keras_files: dict[str, Path]) -> None:
    import h5py

    for name in ("link", "storage"):
        path = tmp_path / f"{name}.h5"
        path.write_bytes(keras_files["h5"].read_bytes())
        with h5py.File(path, "a") as file:
            if name == "link":
                file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")
            else:
                file.create_dataset("elsewhere", (4,), np.uint8, external=[("/etc/passwd", 0, 4)])
        with pytest.raises(HostileModel, match="another file"):
            check.keras_config(path)


def test_weights_without_a_network_are_named(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["dense"] = np.ones(3)
    with pytest.raises(ModelError, match="without a network"):
        check.keras_config(tmp_path / "weights.h5")


def test_a_graph_that_reads_files_is_refused(keras_files: dict[str, Path]) -> None:
    with pytest.raises(HostileModel, match="ReadFile"):
        check.check_graph(keras_files["reads"])
    assert check.check_graph(keras_files["savedmodel"])["MatMul"] >= 2


def test_damaged_graphs_end_in_a_sentence(keras_files: dict[str, Path], tmp_path: Path) -> None:
    content = (keras_files["savedmodel"] / "saved_model.pb").read_bytes()
    for bad in mutations(content, 100, 5):
        (tmp_path / "saved_model.pb").write_bytes(bad)
        try:
            assert check.check_graph(tmp_path)
        except ModelError:
            continue


def test_without_tensorflow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match="Keras") as caught:
        KERAS.load(tmp_path, ())
    assert caught.value.extra == "tensorflow"
    assert "fleetui[tensorflow]" in caught.value.fix
