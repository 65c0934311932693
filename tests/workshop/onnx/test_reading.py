"""Files that are damaged, hostile or make no sense: one sentence each, nothing opened that should not be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleetui.workshop.errors import HostileModel, LimitError, ModelError, UnsupportedError, WorkshopError
from fleetui.workshop.frontends.onnx import FRONTEND, reading, tensors
from tests.helpers.onnx_models import imported, model, node, port, saved, subgraph, tensor


def plain() -> Any:
    return model([node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["y"])], {"x": (2, 3)}, ["y"],
                 {"w": np.ones((3, 4), np.float32)})  # fmt: skip


def refused(path: Path) -> str:
    """The sentence, the same from ``load`` and from ``inspect``."""
    with pytest.raises(ModelError) as by_load:
        FRONTEND.load(path, [])
    with pytest.raises(ModelError) as by_inspect:
        FRONTEND.inspect(path, [])
    assert by_load.value.sentence == by_inspect.value.sentence
    assert "\n" not in by_load.value.sentence
    assert by_load.value.fix
    return by_load.value.sentence


# ---------------------------------------------------------------- the file


@pytest.mark.parametrize("keep", [1, 7, 20, 60, -1, -5])
def test_a_cut_off_file(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(plain().SerializeToString()[:keep])
    assert "m.onnx" in refused(path)


@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"not a model at all", b"\xff" * 4096])
def test_a_file_of_something_else(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    assert "m.onnx" in refused(path)


def test_no_file(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path / "nowhere.onnx")
    assert "cannot be read" in refused(tmp_path)


def test_a_file_beyond_the_ceiling_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(20 << 30)  # sparse: takes no room
    with pytest.raises(LimitError, match=r"20\.0 GiB"):
        FRONTEND.load(path, [])


def test_flipped_bits_never_surprise(tmp_path: Path) -> None:
    """Whatever the damage: a graph, or an error of ours."""
    inner = subgraph([node("Add", ["h", "h"], ["t"])], [], ["t"])
    made = model(
        [node("Conv", ["x", "w"], ["h"], pads=[1, 1, 1, 1], strides=[2, 2]), node("Shape", ["h"], ["s"]),
         node("Reshape", ["h", "s"], ["r"]), node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)],
        {"x": (1, 2, 5, 5)}, ["y", "r"], {"w": np.ones((3, 2, 3, 3), np.float32), "c": np.array(True)},
    )  # fmt: skip
    whole = bytearray(made.SerializeToString())
    rng = np.random.default_rng(11)
    path = tmp_path / "m.onnx"
    sound = longest = 0
    for _ in range(250):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] ^= 1 << rng.integers(0, 8)
        path.write_bytes(data)
        try:
            FRONTEND.load(path, [])
            sound += 1
        except WorkshopError as error:
            longest = max(longest, len(error.sentence))
    assert 0 < sound < 250
    assert 0 < longest < 600


# ---------------------------------------------------------------- the graph


def test_a_newer_format(tmp_path: Path) -> None:
    made = plain()
    made.ir_version = reading.IR_NEWEST + 1
    assert f"format {reading.IR_NEWEST + 1}" in refused(saved(made, tmp_path))


def test_no_operator_set(tmp_path: Path) -> None:
    made = plain()
    del made.opset_import[:]
    assert "operator set" in refused(saved(made, tmp_path))


def test_a_name_nobody_makes(tmp_path: Path) -> None:
    made = plain()
    made.graph.node[1].input[0] = "ghost"
    assert "'the_Relu' (Relu) uses 'ghost'" in refused(saved(made, tmp_path))


def test_a_name_nobody_makes_inside_a_branch(tmp_path: Path) -> None:
    inner = subgraph([node("Relu", ["ghost"], ["t"])], [], ["t"])
    made = model([node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)], {}, ["y"], {"c": np.array(True)})
    assert "'ghost'" in refused(saved(made, tmp_path))


def test_a_circle(tmp_path: Path) -> None:
    made = model(
        [node("Add", ["x", "b"], ["a"], "first"), node("Relu", ["a"], ["b"], "second")], {"x": (2,)}, ["b"]
    )
    assert "circle" in refused(saved(made, tmp_path))


def test_nodes_out_of_order_are_put_in_order() -> None:
    made = plain()
    nodes = list(made.graph.node)[::-1]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    assert [n.op for n in imported(made).nodes] == ["dense", "relu"]


def test_a_name_made_twice(tmp_path: Path) -> None:
    made = plain()
    made.graph.node[1].output[0] = "h"
    assert "'h' is made twice" in refused(saved(made, tmp_path))


def test_a_name_that_is_an_input_already(tmp_path: Path) -> None:
    made = plain()
    made.graph.node[0].output[0] = "x"
    made.graph.node[1].input[0] = "x"
    assert "an input or weight already" in refused(saved(made, tmp_path))


@pytest.mark.parametrize("field", ["input", "initializer"])
def test_two_of_one_name(tmp_path: Path, field: str) -> None:
    made = plain()
    getattr(made.graph, field).add().CopyFrom(getattr(made.graph, field)[0])
    assert "same name" in refused(saved(made, tmp_path)) or "are called 'w'" in refused(saved(made, tmp_path))


def test_an_output_nobody_makes(tmp_path: Path) -> None:
    made = plain()
    made.graph.output[0].name = "ghost"
    assert "'ghost'" in refused(saved(made, tmp_path))


def test_graphs_nested_without_end(tmp_path: Path) -> None:
    def field(number: int, data: bytes) -> bytes:
        """One length-delimited protobuf field."""
        length, size = b"", len(data)
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + data

    graph = b""
    for _ in range(3000):
        graph = field(1, field(5, field(6, graph)))  # graph.node.attribute.g
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x08" + field(7, graph))
    assert "m.onnx" in refused(path)


def test_a_function_that_calls_itself() -> None:
    from onnx import helper

    body = [node("Again", ["a"], ["b"], domain="own")]
    function = helper.make_function("own", "Again", ["a"], ["b"], body, [helper.make_opsetid("own", 1)])
    made = model(
        [node("Again", ["x"], ["y"], domain="own")], {"x": (2,)}, ["y"], functions=[function], domains={"own": 1}
    )
    with pytest.raises(ModelError, match="calls itself"):
        imported(made)


# ---------------------------------------------------------------- weights


def test_weights_of_the_wrong_size(tmp_path: Path) -> None:
    made = plain()
    made.graph.initializer[0].raw_data = b"\0" * 8
    assert "'w' has the shape [3, 4] and needs 48 bytes, but holds 8" in refused(saved(made, tmp_path))


def test_weights_of_the_wrong_number(tmp_path: Path) -> None:
    made = plain()
    made.graph.initializer[0].ClearField("raw_data")
    made.graph.initializer[0].float_data.extend([1.0, 2.0])
    path = saved(made, tmp_path)
    with pytest.raises(ModelError, match="needs 12 numbers, but holds 2"):
        FRONTEND.load(path, [])


def test_a_weight_that_claims_the_world(tmp_path: Path) -> None:
    made = plain()
    del made.graph.initializer[0].dims[:]
    made.graph.initializer[0].dims.extend([1 << 40, 1 << 20])
    assert "but holds 48" in refused(saved(made, tmp_path))


def test_weights_that_are_not_numbers_are_told_of_not_refused(tmp_path: Path) -> None:
    weights = np.ones((3, 4), np.float32)
    weights[1, 2] = np.nan
    made = model([node("MatMul", ["x", "w"], ["y"])], {"x": (2, 3)}, ["y"], {"w": weights})
    path = saved(made, tmp_path)
    report = FRONTEND.inspect(path, [])
    assert any("'w'" in warning and "not numbers" in warning for warning in report.warnings)
    assert not report.problems
    assert FRONTEND.load(path, []).nodes


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32",
                                   "uint32", "int64", "uint64", "bool", "bfloat16", "int4", "uint4"])  # fmt: skip
@pytest.mark.parametrize("raw", [True, False])
def test_every_element_type_is_read(dtype: str, raw: bool) -> None:
    from onnx import helper

    numbers = np.array([[0, 1, 2], [3, 5, 7], [1, 0, 1]]).astype(tensors.numpy_dtype(dtype))
    if raw:
        made = tensor(numbers, "w")
    else:
        made = helper.make_tensor(
            "w", tensors.dtype_code(dtype), numbers.shape, numbers.reshape(-1).astype(np.float64)
        )
    read = tensors.to_array(made, None)
    assert read.dtype == numbers.dtype
    np.testing.assert_array_equal(read.astype(np.float64), numbers.astype(np.float64))


def test_int4_keeps_its_sign() -> None:
    numbers = np.arange(-8, 8).astype(tensors.numpy_dtype("int4"))
    np.testing.assert_array_equal(tensors.to_array(tensor(numbers, "w"), None).astype(int), np.arange(-8, 8))


# ---------------------------------------------------------------- external data


def external(folder: Path, location: str, **more: int) -> Path:
    made = plain()
    weight = made.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = 1
    for key, value in {"location": location, **more}.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, str(value)
    return saved(made, folder)


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    numbers = np.arange(12, dtype=np.float32)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(b"skip" + numbers.tobytes())
    graph = FRONTEND.load(external(tmp_path, "sub/w.bin", offset=4, length=48), [])
    np.testing.assert_array_equal(graph.constants()[0].data, numbers.reshape(3, 4))
    assert FRONTEND.inspect(tmp_path / "model.onnx", []).bytes > 52


@pytest.mark.parametrize(
    "location",
    ["/etc/passwd", "../w.bin", "sub/../../w.bin", "C:\\w.bin", "\\\\server\\w.bin", "..\\w.bin", "", "a\0b"],
)
def test_external_data_elsewhere(tmp_path: Path, location: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "w.bin").write_bytes(b"\0" * 48)
    with pytest.raises(HostileModel):
        FRONTEND.load(external(home, location), [])


def test_external_data_through_a_link(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "w.bin").write_bytes(b"\0" * 48)
    (home / "w.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(HostileModel, match="link"):
        FRONTEND.load(external(home, "w.bin"), [])


def test_external_data_that_is_missing_or_short(tmp_path: Path) -> None:
    assert "not there" in refused(external(tmp_path, "w.bin"))
    (tmp_path / "w.bin").write_bytes(b"\0" * 40)
    path = external(tmp_path, "w.bin")
    with pytest.raises(ModelError, match="ends at byte 48"):
        FRONTEND.load(path, [])
    path = external(tmp_path, "w.bin", length=40)
    with pytest.raises(ModelError, match="claims 40"):
        FRONTEND.load(path, [])


def test_a_constant_inside_the_graph_may_not_point_at_files(tmp_path: Path) -> None:
    weight = tensor(np.ones(3, np.float32), "v")
    weight.ClearField("raw_data")
    weight.data_location = 1
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    made = model([node("Constant", [], ["k"], value=weight), node("Add", ["x", "k"], ["y"])], {"x": (3,)}, ["y"])
    with pytest.raises(HostileModel):
        FRONTEND.load(saved(made, tmp_path), [])


# ---------------------------------------------------------------- what we cannot compile


def test_all_problems_are_told_not_only_the_first(tmp_path: Path) -> None:
    made = model(
        [node("NonZero", ["x"], ["a"], "where"), node("Bogus", ["x"], ["b"], "what", domain="com.somebody"),
         node("RandomNormalLike", ["x"], ["c"], "dice"), node("Relu", ["x"], ["d"]),
         node("Cast", ["a"], ["e"], to=1)],
        {"x": (2, 3)}, ["a", "b", "c", "d", "e"], domains={"com.somebody": 1},
    )  # fmt: skip
    path = saved(made, tmp_path)
    report = FRONTEND.inspect(path, [])
    assert {(p.operator, p.node) for p in report.problems} == {
        ("NonZero", "where"),
        ("Bogus", "what"),
        ("RandomNormalLike", "dice"),
    }
    assert all(p.node in p.sentence and p.operator in p.sentence for p in report.problems)
    with pytest.raises(UnsupportedError, match="2 more problems") as caught:
        FRONTEND.load(path, [])
    assert caught.value.operator
    assert caught.value.node


def test_problems_inside_branches_and_functions_are_found(tmp_path: Path) -> None:
    inner = subgraph([node("Unheard", ["x"], ["t"], "deep")], [], ["t"])
    made = model([node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)], {"x": (2,)}, ["y"],
                 {"c": np.array(True)})  # fmt: skip
    assert {p.operator for p in FRONTEND.inspect(saved(made, tmp_path), []).problems} == {"Unheard"}


@pytest.mark.parametrize("kind", [8, 14, 17, 22, 25])
def test_inputs_that_are_not_numbers_we_know(tmp_path: Path, kind: int) -> None:
    made = plain()
    made.graph.input[0].CopyFrom(port("x", (2, 3), kind))
    path = saved(made, tmp_path)
    with pytest.raises(UnsupportedError, match=r"'x' holds"):
        FRONTEND.load(path, [])
    assert FRONTEND.inspect(path, []).problems
