"""Operators against ONNX Runtime where the package's cases are thin: swept attributes, older versions, fused forms.

Branches, loops, functions and sequences are here too, as is the hook for operators of ``ai.onnx.ml``.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fleetui.workshop.errors import ShapeError, UnsupportedError
from fleetui.workshop.frontends.onnx import importer as importing
from fleetui.workshop.frontends.onnx.reading import check
from fleetui.workshop.graph.ir import Array, run
from tests.helpers.onnx_models import assert_as_peer, imported, model, node, port, subgraph

Rng = np.random.Generator
Maker = Callable[[Rng], tuple[Any, dict[str, Array]]]


def draw(rng: Rng, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def one(op: str, arrays: list[Array | None], fixed: dict[int, Any], opset: int, outs: int = 1, domain: str = "",
        **attrs: Any) -> tuple[Any, dict[str, Array]]:  # fmt: skip
    """A model of one node: ``arrays`` are its inputs, those in ``fixed`` its weights."""
    count = max([len(arrays), *(i + 1 for i in fixed)])
    names, feeds = [], {}
    for i in range(count):
        array = arrays[i] if i < len(arrays) else None
        names.append(f"i{i}" if array is not None or i in fixed else "")
        if array is not None:
            feeds[f"i{i}"] = np.asarray(array)
    weights = {f"i{i}": array for i, array in fixed.items()}
    made_names = [f"o{i}" for i in range(outs)]
    single = node(op, names, made_names, domain=domain, **attrs)
    made = model([single], feeds, made_names, weights, opset, domains={domain: 1} if domain else None)
    return made, feeds


# ---------------------------------------------------------------- swept attributes


def conv(rng: Rng) -> tuple[Any, dict[str, Array]]:
    rank, groups = int(rng.integers(1, 4)), int(rng.choice([1, 2, 3]))
    kernel = rng.integers(1, 4, rank).tolist()
    attrs: dict[str, Any] = {"strides": rng.integers(1, 4, rank).tolist(), "group": groups}
    auto = str(rng.choice(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto == "NOTSET":
        attrs |= {"pads": rng.integers(0, 3, 2 * rank).tolist(), "dilations": rng.integers(1, 3, rank).tolist()}
    else:
        attrs["auto_pad"] = auto
    x = draw(rng, 2, groups * 2, *rng.integers(6, 10, rank))
    return one("Conv", [x], {1: draw(rng, groups * 3, 2, *kernel), 2: draw(rng, groups * 3)}, 11, **attrs)


def conv_transpose(rng: Rng) -> tuple[Any, dict[str, Array]]:
    rank, groups = int(rng.integers(1, 4)), int(rng.choice([1, 2]))
    strides, kernel = rng.integers(1, 4, rank), rng.integers(1, 4, rank)
    attrs: dict[str, Any] = {"strides": strides.tolist(), "group": groups}
    auto = str(rng.choice(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto == "NOTSET":
        attrs |= {"pads": rng.integers(0, 2, 2 * rank).tolist(), "dilations": rng.integers(1, 3, rank).tolist(),
                  "output_padding": rng.integers(0, strides).tolist()}  # fmt: skip
    else:
        attrs["auto_pad"] = auto
    x = draw(rng, 1, groups * 2, *rng.integers(3, 6, rank))
    return one("ConvTranspose", [x], {1: draw(rng, groups * 2, 2, *kernel), 2: draw(rng, groups * 2)}, 11, **attrs)


def pool(rng: Rng) -> tuple[Any, dict[str, Array]]:
    rank, op = int(rng.integers(1, 4)), str(rng.choice(["MaxPool", "AveragePool", "LpPool"]))
    kernel = rng.integers(1, 4, rank)
    attrs: dict[str, Any] = {"kernel_shape": kernel.tolist(), "strides": rng.integers(1, 4, rank).tolist()}
    auto = str(rng.choice(["NOTSET", "NOTSET", "SAME_UPPER", "VALID"]))
    if auto == "NOTSET":
        attrs |= {"pads": rng.integers(0, np.tile(kernel, 2)).tolist(), "ceil_mode": int(rng.integers(2)),
                  "dilations": rng.integers(1, 3, rank).tolist()}  # fmt: skip
    else:
        attrs["auto_pad"] = auto
    if op == "AveragePool":
        attrs["count_include_pad"] = int(rng.integers(2))
    if op == "LpPool":
        attrs["p"] = int(rng.integers(1, 4))
    x = draw(rng, 2, 3, *rng.integers(6, 10, rank))
    opset = {"MaxPool": 12, "AveragePool": 19, "LpPool": 18}[op]
    return one(op, [x], {}, opset, 2 if op == "MaxPool" and rng.integers(2) else 1, **attrs)


def resize(rng: Rng) -> tuple[Any, dict[str, Array]]:
    mode = str(rng.choice(["nearest", "linear", "cubic"]))
    attrs: dict[str, Any] = {"mode": mode}
    attrs["coordinate_transformation_mode"] = str(rng.choice(["half_pixel", "pytorch_half_pixel", "asymmetric"]))
    if mode == "nearest":
        attrs["nearest_mode"] = str(rng.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]))
    else:
        attrs["antialias"] = int(rng.integers(2)) if attrs["coordinate_transformation_mode"] == "half_pixel" else 0
    if mode == "cubic":
        attrs |= {"cubic_coeff_a": -0.5, "exclude_outside": int(rng.integers(2))}
    x = draw(rng, 1, 2, 5, 7)
    if rng.integers(2):
        scales = np.array([1, 1, rng.choice([0.6, 2]), rng.choice([0.7, 3.3])], np.float32)
        return one("Resize", [x], {2: scales}, 18, **attrs)
    return one("Resize", [x], {3: np.array([1, 2, *rng.integers(2, 12, 2)])}, 18, **attrs)


def slices(rng: Rng) -> tuple[Any, dict[str, Array]]:
    axes = rng.permutation(3)[: rng.integers(1, 4)]
    bounds = [rng.integers(-9, 9, len(axes)) for _ in range(2)]
    steps = rng.choice([1, 2, 3, -1, -2], len(axes))
    return one("Slice", [draw(rng, 5, 6, 7)], {1: bounds[0], 2: bounds[1], 3: axes, 4: steps}, 13)


def recurrent(rng: Rng) -> tuple[Any, dict[str, Array]]:
    op, gates = [("LSTM", 4), ("GRU", 3), ("RNN", 1)][rng.integers(3)]
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    count, hidden = 2 if direction == "bidirectional" else 1, 5
    fixed: dict[int, Any] = {1: draw(rng, count, gates * hidden, 2), 2: draw(rng, count, gates * hidden, hidden)}
    if rng.integers(2):
        fixed[3] = draw(rng, count, 2 * gates * hidden)
    if rng.integers(2):
        fixed[4] = np.array([4, 2, 3], np.int32)
    if rng.integers(2):
        fixed[5] = draw(rng, count, 3, hidden)
    attrs: dict[str, Any] = {"direction": direction, "hidden_size": hidden}
    if op == "GRU":
        attrs["linear_before_reset"] = int(rng.integers(2))
    if op == "LSTM" and rng.integers(2):
        fixed[7] = draw(rng, count, 3 * hidden)
    if rng.integers(2):
        attrs["clip"] = 0.5
    return one(op, [draw(rng, 4, 3, 2)], fixed, 14, 3 if op == "LSTM" else 2, **attrs)


def einsum(rng: Rng) -> tuple[Any, dict[str, Array]]:
    equation = str(rng.choice(["ij,jk->ik", "bhid,bhjd->bhij", "ii->i", "i,j->ij", "ij,ij->", "...ij,...jk->...ik",
                               "bij,jk", "abc,cd,de->abe", "bchw,ck->bkhw", "iij->j"]))  # fmt: skip
    size = {letter: int(n) for letter, n in zip("abcdehijkwXY", rng.integers(2, 5, 12), strict=True)}
    terms = equation.split("->", maxsplit=1)[0].replace("...", "XY").split(",")
    return one("Einsum", [draw(rng, *(size[x] for x in term)) for term in terms], {}, 12, equation=equation)


def grid_sample(rng: Rng) -> tuple[Any, dict[str, Array]]:
    rank = int(rng.integers(2, 4))
    mode = str(rng.choice(["linear", "nearest", "cubic"] if rank == 2 else ["linear", "nearest"]))
    x, grid = draw(rng, 2, 3, *rng.integers(3, 6, rank)), draw(rng, 2, *[4] * rank, rank)
    return one("GridSample", [x, grid], {}, 20, mode=mode, align_corners=int(rng.integers(2)),
               padding_mode=str(rng.choice(["zeros", "border", "reflection"])))  # fmt: skip


def roi_align(rng: Rng) -> tuple[Any, dict[str, Array]]:
    rois = (rng.random((4, 4)) * 6).astype(np.float32)
    rois[:, 2:] += rois[:, :2]
    return one("RoiAlign", [draw(rng, 2, 3, 8, 9), rois, np.array([0, 1, 1, 0])], {}, 16, output_height=3,
               output_width=2, sampling_ratio=int(rng.integers(1, 4)), spatial_scale=0.5,
               mode=str(rng.choice(["avg", "max"])),
               coordinate_transformation_mode=str(rng.choice(["half_pixel", "output_half_pixel"])))  # fmt: skip


def quantised(rng: Rng) -> tuple[Any, dict[str, Array]]:
    x, w = (
        rng.integers(0, 255, (1, 4, 6, 6)).astype(np.uint8),
        rng.integers(-127, 127, (6, 4, 3, 3)).astype(np.int8),
    )
    scale = np.abs(draw(rng, 6)) * 0.01 + 0.001
    fixed = {1: np.float32(0.02), 2: np.uint8(128), 3: w, 4: scale, 5: np.zeros(6, np.int8), 6: np.float32(0.3),
             7: np.uint8(100), 8: rng.integers(-500, 500, 6).astype(np.int32)}  # fmt: skip
    return one("QLinearConv", [x], fixed, 10, pads=[1, 1, 1, 1])


@pytest.mark.parametrize(
    "maker", [conv, conv_transpose, pool, resize, slices, recurrent, einsum, grid_sample, roi_align, quantised]
)
def test_swept(maker: Maker) -> None:
    rng = np.random.default_rng(17)
    for _ in range(12):
        made, feeds = maker(rng)
        assert_as_peer(made, feeds)


# ---------------------------------------------------------------- older versions


def old(op: str, opset: int, arrays: list[Array], fixed: dict[int, Any] | None = None, **attrs: Any) -> Any:
    return pytest.param(op, opset, arrays, fixed or {}, attrs, id=f"{op}-{opset}")


RAMP = np.linspace(-2, 2, 24, dtype=np.float32).reshape(2, 3, 4)
IMAGE = np.linspace(-2, 2, 32, dtype=np.float32).reshape(1, 2, 4, 4)


@pytest.mark.parametrize(
    ("op", "opset", "arrays", "fixed", "attrs"),
    [
        old("Softmax", 11, [RAMP], axis=1),
        old("Softmax", 9, [RAMP], axis=0),
        old("LogSoftmax", 11, [RAMP], axis=2),
        old("Hardmax", 11, [RAMP], axis=1),
        old("Softmax", 13, [RAMP], axis=1),
        old("Upsample", 7, [IMAGE], mode="nearest", scales=[1.0, 1.0, 2.0, 3.0]),
        old("Upsample", 9, [IMAGE], {1: np.array([1, 1, 2, 2], np.float32)}, mode="linear"),
        old("Resize", 10, [IMAGE], {1: np.array([1, 1, 0.5, 2], np.float32)}, mode="nearest"),
        old("Pad", 9, [RAMP], pads=[0, 1, 0, 0, 0, 2], mode="constant", value=1.5),
        old("Slice", 9, [RAMP], starts=[1, -3], ends=[2, 100], axes=[0, 2]),
        old("Clip", 9, [RAMP], min=-1.0, max=0.5),
        old("Clip", 9, [RAMP]),
        old("TopK", 9, [RAMP], k=2, axis=1),
        old("Dropout", 9, [RAMP]),
        old("Squeeze", 11, [RAMP.reshape(2, 1, 3, 4)], axes=[1]),
        old("Unsqueeze", 11, [RAMP], axes=[0, 3]),
        old("Split", 11, [RAMP], axis=2, split=[4]),
        old("ReduceSum", 11, [RAMP], axes=[1], keepdims=0),
        old("ReduceMean", 18, [RAMP], {1: np.array([0, 2])}, keepdims=1),
        old("BatchNormalization", 8, [IMAGE], {i: np.array([1.0, 2.0], np.float32) for i in range(1, 5)}),
        old("Gemm", 8, [RAMP.reshape(6, 4)], {1: np.ones((4, 3), np.float32), 2: np.ones(3, np.float32)}, beta=2.0),
        old("AveragePool", 7, [IMAGE], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        old("MaxPool", 8, [IMAGE], kernel_shape=[2, 2]),
        old("Flatten", 9, [RAMP], axis=0),
        old("OneHot", 9, [np.array([0, -1, 7])], {1: np.int64(3), 2: np.array([1, 5], np.float32)}),
        old("Cast", 9, [RAMP * 40], to=3),
        old("PRelu", 9, [IMAGE], {1: np.array([[[0.1]], [[0.2]]], np.float32)}),
        old("LRN", 7, [IMAGE], size=3, alpha=0.1),
        old("Mod", 13, [np.array([-7, 7, 5], np.int32)], {1: np.array([3, -3, 2], np.int32)}),
        old("Mod", 13, [np.array([-7.5, 7, 5], np.float32)], {1: np.array([3, -3, 2], np.float32)}, fmod=1),
        old("Det", 11, [np.random.default_rng(2).standard_normal((2, 5, 5)).astype(np.float32)]),
    ],
)
def test_older_versions(
    op: str, opset: int, arrays: list[Array], fixed: dict[int, Any], attrs: dict[str, Any]
) -> None:
    made, feeds = one(op, list(arrays), fixed, opset, 2 if op == "TopK" else 1, **attrs)
    assert_as_peer(made, feeds)


# ---------------------------------------------------------------- fused forms


def test_fused_forms_of_onnxruntime() -> None:
    rng = np.random.default_rng(23)
    ms = "com.microsoft"
    x, w = draw(rng, 2, 4, 8), draw(rng, 8, 8)
    for made, feeds in (
        one("FusedMatMul", [x], {1: w}, 13, domain=ms, alpha=0.5, transB=1),
        one("FusedConv", [draw(rng, 1, 2, 6, 6)], {1: draw(rng, 3, 2, 3, 3), 2: draw(rng, 3)}, 13, domain=ms,
            activation="Relu", pads=[1, 1, 1, 1]),
        one("Gelu", [x], {}, 13, domain=ms),
        one("BiasGelu", [x], {1: draw(rng, 8)}, 13, domain=ms),
        one("FastGelu", [x], {1: draw(rng, 8)}, 13, domain=ms),
        one("QuickGelu", [x], {}, 13, domain=ms),
        one("SkipLayerNormalization", [x, x[::-1].copy()], {2: draw(rng, 8), 3: draw(rng, 8), 4: draw(rng, 8)}, 13,
            domain=ms, epsilon=1e-5),
        one("Attention", [x], {1: draw(rng, 8, 24), 2: draw(rng, 24)}, 13, domain=ms, num_heads=2),
        one("MultiHeadAttention", [x, x + 1, x - 1], {3: draw(rng, 24)}, 13, domain=ms, num_heads=4),
    ):  # fmt: skip
        assert_as_peer(made, feeds, rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------- control


def branches(condition: dict[str, Any], weights: dict[str, Any]) -> Any:
    yes = subgraph([node("Mul", ["x", "two"], ["a"])], [], ["a"])
    no = subgraph([node("Neg", ["x"], ["b"])], [], ["b"])
    return model([node("If", ["c"], ["y"], then_branch=yes, else_branch=no)], {"x": (3,), **condition}, ["y"],
                 {"two": np.float32(2), **weights})  # fmt: skip


def test_a_known_branch_is_inlined() -> None:
    graph = assert_as_peer(branches({}, {"c": np.array(False)}), {"x": np.arange(3, dtype=np.float32)})
    assert [n.op for n in graph.nodes] == ["neg"]


@pytest.mark.parametrize("which", [True, False])
def test_a_computed_condition_picks_between_both(which: bool) -> None:
    made = branches({"c": np.array(True)}, {})
    assert_as_peer(made, {"x": np.arange(3, dtype=np.float32), "c": np.array(which)})


def test_branches_of_different_shapes_are_refused() -> None:
    yes = subgraph([node("Concat", ["x", "x"], ["a"], axis=0)], [], ["a"])
    no = subgraph([node("Neg", ["x"], ["b"])], [], ["b"])
    made = model(
        [node("If", ["c"], ["y"], then_branch=yes, else_branch=no)], {"x": (3,), "c": np.array(True)}, ["y"]
    )
    with pytest.raises(UnsupportedError, match="different shapes"):
        imported(made)


def loop(rounds: int | None, condition: str, weights: dict[str, Any], opset: int = 13) -> Any:
    body = subgraph(
        [node("Add", ["s", "x"], ["t"]), node("ReduceSum", ["t"], ["total"], keepdims=0),
         node("Less", ["total", "limit"], ["go"]), node("Cast", ["i"], ["f"], to=1),
         node("Mul", ["t", "f"], ["o"])],
        [port("i", [], 7), port("c", [], 9), port("s", [3])], ["go" if condition else "c", "t", "o"],
    )  # fmt: skip
    if condition:
        del body.output[-1]
    outs = ["last"] if condition else ["last", "all"]
    bound = {} if rounds is None else {"n": np.int64(rounds)}
    made = node("Loop", ["n" if bound else "", condition, "x"], outs, body=body)
    return model([made], {"x": (3,)}, outs, {"limit": np.float32(20), **bound, **weights}, opset)


def test_a_loop_of_known_rounds_is_unrolled() -> None:
    assert_as_peer(loop(4, "", {}), {"x": np.arange(3, dtype=np.float32)})


def test_a_loop_that_may_end_early_keeps_its_state() -> None:
    made = loop(6, "start", {"start": np.array(True)})
    for scale in (0.5, 1.0, 3.0, 100.0):
        assert_as_peer(made, {"x": np.arange(3, dtype=np.float32) * scale})


def test_a_loop_without_a_bound_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="without a bound"):
        imported(loop(None, "start", {"start": np.array(True)}))


def test_an_endless_loop_is_refused_not_unrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetui.workshop.frontends.onnx.operators.control.ROUNDS", 50)
    with pytest.raises(UnsupportedError, match="more than 50 rounds"):
        imported(loop(1 << 40, "", {}))


def test_scan_runs_both_ways() -> None:
    nodes = [node("Add", ["s", "e"], ["t"]), node("Mul", ["t", "e"], ["o"])]
    body = subgraph(nodes, [port("s", [2]), port("e", [2])], ["t", "o"])
    for directions in ([0], [1]):
        made = model(
            [node("Scan", ["s0", "x"], ["last", "all"], body=body, num_scan_inputs=1, scan_input_axes=[1],
                  scan_input_directions=directions, scan_output_directions=directions)],
            {"s0": (2,), "x": (2, 5)}, ["last", "all"], {}, 13,
        )  # fmt: skip
        feeds = {"s0": np.ones(2, np.float32), "x": np.arange(10, dtype=np.float32).reshape(2, 5)}
        assert_as_peer(made, feeds)


def test_functions_are_inlined_with_their_attributes() -> None:
    from onnx import AttributeProto, helper

    leak = node("LeakyRelu", ["a"], ["l"])
    reference = AttributeProto(name="alpha", ref_attr_name="slope", type=AttributeProto.FLOAT)
    leak.attribute.append(reference)
    twice = helper.make_function("own", "Twice", ["a"], ["b"], [leak, node("Add", ["l", "l"], ["b"])],
                                 [helper.make_opsetid("", 13)], ["slope"])  # fmt: skip
    inside = [node("Twice", ["p"], ["q"], domain="own", slope=0.5)]
    outer = helper.make_function("own", "Outer", ["p"], ["q"], inside, [helper.make_opsetid("own", 1)])
    made = model([node("Outer", ["x"], ["h"], domain="own"), node("Twice", ["h"], ["y"], domain="own", slope=0.1)],
                 {"x": (4,)}, ["y"], functions=[twice, outer], domains={"own": 1})  # fmt: skip
    assert_as_peer(made, {"x": np.array([-2, -1, 1, 2], np.float32)})


def test_sequences_cost_nothing() -> None:
    made = model(
        [node("SplitToSequence", ["x"], ["s"], axis=0), node("SequenceAt", ["s", "one"], ["a"]),
         node("SequenceErase", ["s", "one"], ["r"]), node("SequenceInsert", ["r", "a"], ["t"]),
         node("SequenceLength", ["t"], ["n"]), node("ConcatFromSequence", ["t"], ["y"], axis=0)],
        {"x": (3, 2)}, ["y", "n"], {"one": np.int64(1)},
    )  # fmt: skip
    graph = assert_as_peer(made, {"x": np.arange(6, dtype=np.float32).reshape(3, 2)})
    assert {n.op for n in graph.nodes} <= {"slice", "concat", "identity"}


def test_an_if_may_choose_between_sequences_of_tensors() -> None:
    yes = subgraph([node("SequenceConstruct", ["x", "x"], ["a"])], [], ["a"])
    no = subgraph([node("Neg", ["x"], ["m"]), node("SequenceConstruct", ["m", "x"], ["b"])], [], ["b"])
    nodes = [node("If", ["c"], ["s"], then_branch=yes, else_branch=no), node("SequenceAt", ["s", "zero"], ["y"])]
    made = model(nodes, {"x": (2,), "c": np.array(True)}, ["y"], {"zero": np.int64(0)})
    assert_as_peer(made, {"x": np.ones(2, np.float32), "c": np.array(False)})


def test_training_is_refused() -> None:
    weights = {"ratio": np.float32(0.5), "yes": np.array(True)}
    made = model([node("Dropout", ["x", "ratio", "yes"], ["y"])], {"x": (3,)}, ["y"], weights)
    with pytest.raises(UnsupportedError, match="training mode"):
        imported(made)


def test_shapes_that_do_not_fit_name_their_node() -> None:
    made = model(
        [node("MatMul", ["x", "w"], ["y"], "heads")], {"x": (2, 3)}, ["y"], {"w": np.ones((4, 5), np.float32)}
    )
    with pytest.raises(ShapeError, match="heads"):
        imported(made)


# ---------------------------------------------------------------- operators of ai.onnx.ml


def test_operators_of_ml_come_from_their_own_module(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def scaler(importer: Any, made: Any, inputs: list[Any]) -> list[Any]:
        attrs = importer.attributes(made)
        seen.append(attrs)
        return [importer.builder.op("mul", inputs[0], importer.builder.scalar(attrs["scale"][0], inputs[0]))]

    table = types.SimpleNamespace(OPERATORS={"Scaler": scaler})
    monkeypatch.setattr(importing, "trees", lambda: table.OPERATORS)
    scaling = node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", scale=[2.0], offset=[0.0])
    made = model([scaling], {"x": (1, 2)}, ["y"], domains={"ai.onnx.ml": 1})
    graph = importing.Importer(check(made, None)).run()
    assert run(graph, {"x": np.array([[1, 2]], np.float32)})["y"].tolist() == [[2, 4]]
    assert seen == [{"scale": [2.0], "offset": [0.0]}]
