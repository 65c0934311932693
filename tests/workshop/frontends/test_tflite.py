"""TFLite models against LiteRT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fleetui.workshop.errors import ModelError, UnsupportedError
from fleetui.workshop.frontends.tflite import FRONTEND
from fleetui.workshop.frontends.tflite.reader import read
from fleetui.workshop.graph import ir
from fleetui.workshop.options import InputSpec
from tests.helpers.frontends import agree, feeds_for

pytest.importorskip("tflite", reason="the extra 'tflite' is not installed")
pytest.importorskip("ai_edge_litert", reason="the extra 'tflite' is not installed")


@pytest.mark.parametrize("name", ["cnn", "cnn_float16", "picture", "attention", "recurrent"])
def test_a_float_model_gives_what_litert_gives(name: str, tflite_files: dict[str, Path]) -> None:
    agree(FRONTEND, tflite_files[name])


def test_an_int8_model_is_at_most_one_step_off(tflite_files: dict[str, Path]) -> None:
    path = tflite_files["cnn_int8"]
    graph = FRONTEND.load(path, ())
    graph.verify()
    beside = FRONTEND.peer(path, (), 1)
    assert beside is not None
    worst, spread = 0, 0
    for seed in range(5):
        feeds = feeds_for(graph, seed)
        want, have = beside.run(feeds), ir.run(graph, feeds)
        for name in want:
            assert have[name].dtype == want[name].dtype == np.int8
            worst = max(worst, int(np.abs(want[name].astype(int) - have[name].astype(int)).max()))
            spread = max(spread, int(np.ptp(want[name].astype(int))))
    assert worst <= 1
    assert spread > 10  # the outputs say something


def test_an_int8_model_convolves_in_integers(tflite_files: dict[str, Path]) -> None:
    graph = FRONTEND.load(tflite_files["cnn_int8"], ())
    contractions = [n for n in graph.nodes if n.op in {"conv", "dense"}]
    assert len(contractions) == 4
    assert {n.input(0).dtype for n in contractions} == {"int8"}
    assert {n.output.dtype for n in contractions} == {"int32"}


def test_quantised_weights_alone_stay_near_to_litert(tflite_files: dict[str, Path]) -> None:
    """LiteRT rounds the activations too, at run time; we do not."""
    agree(FRONTEND, tflite_files["mlp_weights"], tolerance=0.03)


def test_the_batch_can_be_chosen(tflite_files: dict[str, Path]) -> None:
    path = tflite_files["cnn"]
    report = FRONTEND.inspect(path, ())
    assert report.symbolic == ["batch"]
    assert report.problems == []
    assert report.operators["CONV_2D"] == 2
    graph = agree(FRONTEND, path, [InputSpec(report.inputs[0].name, (3, 16, 16, 3))])
    assert graph.outputs[0].shape[0] == 3


def test_unknown_operators_are_named_with_their_node(tflite_files: dict[str, Path], tmp_path: Path) -> None:
    import tflite

    path = tmp_path / "odd.tflite"
    content = bytearray(tflite_files["cnn"].read_bytes())
    root = tflite.Model.GetRootAs(content, 0)
    for i in range(root.OperatorCodesLength()):
        code = root.OperatorCodes(i)
        if code.BuiltinCode() == tflite.BuiltinOperator.SOFTMAX:
            for slot in (4, 10):  # the deprecated byte, and the number that replaced it
                at = code._tab.Offset(slot)
                if at:
                    content[code._tab.Pos + at] = tflite.BuiltinOperator.SVDF
    path.write_bytes(content)
    (problem,) = FRONTEND.inspect(path, ()).problems
    assert problem.operator == "SVDF"
    assert problem.node
    with pytest.raises(UnsupportedError, match="SVDF"):
        FRONTEND.load(path, ())


def test_a_cut_file_ends_in_a_sentence(tflite_files: dict[str, Path], tmp_path: Path) -> None:
    content = tflite_files["cnn"].read_bytes()
    path = tmp_path / "cut.tflite"
    for part in (0.2, 0.5, 0.9):
        path.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(ModelError):
            FRONTEND.load(path, ())


def test_weights_are_not_copied(tflite_files: dict[str, Path]) -> None:
    tensors = [t for t in read(tflite_files["cnn"]).tensors if t.data is not None and t.dtype == "float32"]
    assert tensors
    assert all(isinstance(t.data, np.memmap) or not t.data.flags.owndata for t in tensors if t.data is not None)
