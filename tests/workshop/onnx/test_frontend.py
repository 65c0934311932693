"""What the frontend tells about a file, how shapes are settled, and the peer."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleetui.workshop.errors import ShapeError, UnsupportedError
from fleetui.workshop.frontends.base import Port
from fleetui.workshop.frontends.onnx import FRONTEND
from fleetui.workshop.frontends.onnx.sniff import is_onnx
from fleetui.workshop.options import InputSpec
from tests.bench import zoo
from tests.helpers.onnx_backend import cases, light_models
from tests.helpers.onnx_models import imported, model, node, saved

LIGHT = light_models()
HEAD = 1 << 16


# ---------------------------------------------------------------- sniffing


def test_models_are_known_for_what_they_are() -> None:
    missed = [
        case.name
        for case in cases()[::9]
        if case.kind != "real" and not is_onnx(case.load().SerializeToString()[:HEAD])
    ]
    assert not missed
    assert all(FRONTEND.sniff(path.read_bytes()[:HEAD], path) for path in LIGHT)


def test_the_name_of_the_file_does_not_matter(tmp_path: Path) -> None:
    path = saved(model([node("Relu", ["x"], ["y"])], {"x": (2,)}, ["y"]), tmp_path, "picture.png")
    assert FRONTEND.sniff(path.read_bytes(), path)


def saved_model() -> bytes:
    """How a TensorFlow SavedModel begins: a schema version, then a graph whose first field is a message."""
    return b"\x08\x01" + b"\x12\x90\x4e" + b"\x0a\x05\x12\x03abc" + b"\x00" * 200


def a_zip() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        file.writestr("data.pkl", b"\x80\x02")
    return held.getvalue()


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x08",
        b"\x00" * 64,
        saved_model(),
        b"\x1c\x00\x00\x00TFL3" + b"\x00" * 64,
        a_zip(),
        b"\x89HDF\r\n\x1a\n" + b"\x00" * 64,
        json.dumps({"learner": {}}).encode(),
        b"tree\nversion=v4\nnum_class=1\n",
        b"[net]\nbatch=1\n",
        b"\x80\x02}q\x00.",
        b"\x08\x07\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        bytes(range(256)) * 8,
    ],
)
def test_other_files_are_not_taken(head: bytes) -> None:
    assert not FRONTEND.sniff(head, Path("model.onnx"))


def test_noise_is_not_taken_and_never_raises() -> None:
    rng = np.random.default_rng(3)
    whole = LIGHT[0].read_bytes()[:HEAD]
    assert not any(is_onnx(rng.bytes(200)) for _ in range(500))
    for cut in range(0, 400, 7):
        is_onnx(whole[:cut])


# ---------------------------------------------------------------- inspecting


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_every_light_model_is_inspected_and_imported(path: Path) -> None:
    report = FRONTEND.inspect(path, [])
    assert report.kind == "onnx"
    assert not report.problems
    assert report.flops > 1e8
    assert [len(port.shape) for port in report.inputs] == [4]
    assert report.operators["Conv"] >= 5
    assert report.parameters > 1e6
    assert report.details["opsets"] == {"ai.onnx": 9}
    graph = FRONTEND.load(path, [])
    graph.verify()
    assert [v.name for v in graph.inputs] == [port.name for port in report.inputs]
    assert [v.name for v in graph.outputs] == [port.name for port in report.outputs]
    assert not {n.op for n in graph.nodes} & {"tile", "broadcast_to", "cast"}


def test_what_a_report_says(tmp_path: Path) -> None:
    made = model(
        [node("Conv", ["x", "w"], ["h"], pads=[1, 1, 1, 1]), node("Relu", ["h"], ["y"])],
        {"x": ("batch", 3, "height", 8)},
        ["y"],
        {"w": np.zeros((4, 3, 3, 3), np.float32)},
    )
    made.producer_name, made.producer_version = "somebody", "1.2"
    path = saved(made, tmp_path)
    report = FRONTEND.inspect(path, [])
    assert report.inputs == [Port("x", ("batch", 3, "height", 8), "float32")]
    assert report.symbolic == ["batch", "height"]
    assert report.parameters == 4 * 27
    assert report.operators == {"Conv": 1, "Relu": 1}
    assert report.bytes == path.stat().st_size
    assert report.details["producer"] == "somebody 1.2"
    assert any("batch, height" in warning for warning in report.warnings)
    one = report.flops
    assert one == 2 * 27 * 4 * 8 + 4 * 8
    assert FRONTEND.inspect(path, [InputSpec("x", (2, 3, 5, 8))]).flops == 10 * one


# ---------------------------------------------------------------- shapes


def two_inputs() -> Any:
    return model([node("Add", ["a", "b"], ["y"])], {"a": ("n", 3), "b": ("n", 3)}, ["y"])


def test_symbolic_sizes_become_one_unless_given() -> None:
    graph = imported(two_inputs())
    assert [v.shape for v in graph.inputs] == [(1, 3), (1, 3)]
    assert graph.notes["symbolic"] == {"n": 1}


def test_a_size_given_once_holds_everywhere() -> None:
    graph = imported(two_inputs(), [InputSpec("b", (5, 3))])
    assert [v.shape for v in graph.inputs] == [(5, 3), (5, 3)]


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ([InputSpec("a", (2, 3)), InputSpec("b", (4, 3))], "sizes 2 and 4"),
        ([InputSpec("a", (2, 4))], "has 3 at dimension 1"),
        ([InputSpec("a", (2,))], "2 dimensions, but 1"),
        ([InputSpec("c", (2, 3))], "no input called 'c'"),
        ([InputSpec("a", (2, 3), "float64")], "float64 was asked for"),
    ],
)
def test_sizes_that_do_not_fit(specs: list[InputSpec], words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        imported(two_inputs(), specs)


def test_an_input_without_any_shape() -> None:
    made = model([node("Relu", ["x"], ["y"])], {"x": (2,)}, ["y"])
    made.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ShapeError, match="does not say which shape"):
        imported(made)
    assert imported(made, [InputSpec("x", (4, 2))]).outputs[0].shape == (4, 2)


def test_shape_arithmetic_folds_away() -> None:
    """What PyTorch's exporter writes for ``x.view(x.size(0), -1)``, and a mask made to measure."""
    made = model(
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"], axis=0),
            node("Unsqueeze", ["n", "zeros"], ["n1"]),
            node("Concat", ["n1", "minus"], ["want"], axis=0),
            node("Reshape", ["x", "want"], ["flat"]),
            node("Shape", ["flat"], ["s2"]),
            node("ConstantOfShape", ["s2"], ["blank"]),
            node("NonZero", ["mask"], ["where"]),
            node("Range", ["zero", "n", "one"], ["steps"]),
            node("Cast", ["steps"], ["steps_f"], to=1),
            node("Unsqueeze", ["steps_f", "ones"], ["column"]),
            node("Expand", ["column", "s2"], ["spread"]),
            node("Add", ["flat", "spread"], ["sum"]),
            node("Add", ["sum", "blank"], ["y"]),
        ],
        {"x": ("n", 2, 3)},
        ["y", "where"],
        {"zero": np.int64(0), "one": np.int64(1), "zeros": np.array([0]), "ones": np.array([1]),
         "minus": np.array([-1]), "mask": np.array([0, 1, 1])},
    )  # fmt: skip
    graph = imported(made, [InputSpec("x", (4, 2, 3))])
    assert {n.op for n in graph.nodes} <= {"reshape", "add", "identity", "broadcast_to"}
    assert graph.outputs[0].shape == (4, 6)


def test_a_shape_that_depends_on_an_input_names_it() -> None:
    made = model([node("Reshape", ["x", "s"], ["y"])], {"x": (6,), "s": np.zeros(2, np.int64)}, ["y"])
    with pytest.raises(UnsupportedError, match=r"its shape must be known .* depends on the input 's'"):
        imported(made)


def test_weights_are_never_copied_on_the_way() -> None:
    weight = np.ones((8, 3, 3, 3), np.float32)
    made = model([node("Conv", ["x", "w"], ["y"])], {"x": (1, 3, 8, 8)}, ["y"], {"w": weight})
    kernel = next(n for n in imported(made).nodes if n.op == "conv").input(1)
    assert kernel.shape == (3, 3, 3, 8)
    assert kernel.data is not None
    assert kernel.data.base is not None
    assert kernel.name == "w"


# ---------------------------------------------------------------- the peer


def test_the_peer_computes_by_names(tmp_path: Path) -> None:
    made = model([node("Sub", ["a", "b"], ["y"]), node("Relu", ["y"], ["z"])], {"a": (2,), "b": (2,)}, ["z", "y"])
    peer = FRONTEND.peer(saved(made, tmp_path), [], 1)
    assert peer is not None
    assert (peer.name, peer.version) == ("onnxruntime", peer.version)
    out = peer.run({"b": np.array([1, 1], np.float32), "a": np.array([0, 3], np.float32), "other": np.zeros(3)})
    assert {name: array.tolist() for name, array in out.items()} == {"z": [0, 2], "y": [-1, 2]}


def test_no_peer_for_what_it_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"nothing")
    assert FRONTEND.peer(path, [], 1) is None


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_whole_networks_agree_with_onnxruntime(name: str) -> None:
    """With seeded weights, and before the softmax, which would hide differences."""
    import onnx

    from fleetui.workshop.graph.ir import run
    from tests.helpers.onnx_models import by_peer

    made = onnx.ModelProto.FromString(zoo.light(name))
    scores = next(n.input[0] for n in made.graph.node if n.op_type == "Softmax")
    made.graph.output.append(onnx.helper.make_empty_tensor_value_info(scores))
    graph = imported(made)
    value = graph.inputs[0]
    x = np.random.default_rng(5).standard_normal(value.shape).astype(np.float32)
    got, want = run(graph, {value.name: x}), by_peer(made, {value.name: x})
    for key, array in want.items():
        scale = float(np.abs(array).max())
        assert np.abs(got[key] - array).max() <= 1e-4 * scale, key
    assert float(np.std(want[scores])) > 0
