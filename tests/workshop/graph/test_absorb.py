"""What convolutions and matrix products take in, and what they must leave."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Array, Graph, Value
from fleetui.workshop.graph.passes import simplify
from tests.helpers.graphs import NCHW, NHWC, checked, count, norm, ops

RNG = np.random.default_rng(5)


def weights(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def start(*shape: int) -> tuple[Builder, Value]:
    b = Builder("net")
    return b, b.input("x", shape, "float32")


def finished(b: Builder, y: Value) -> Graph:
    b.output(y, "y")
    return checked(b.finish(), simplify)


def conv(b: Builder, x: Value, w: Array | Value, bias: bool = True, op: str = "conv", **attrs: Any) -> Value:
    w = w if isinstance(w, Value) else b.constant(w)
    plain: dict[str, Any] = {"strides": (1, 1), "pads": ((1, 1), (1, 1)), "dilations": (1, 1), "groups": 1}
    if op == "conv_transpose":
        plain["output_padding"] = (0, 0)
    plain |= attrs
    outputs = w.shape[-1] * (plain["groups"] if op == "conv_transpose" else 1)
    return b.op(op, x, w, b.constant(weights(outputs)) if bias else None, **plain)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("moved", ["not", "transposed", "flattened"])
@pytest.mark.parametrize(("op", "groups"), [("conv", 1), ("conv", 2), ("conv_transpose", 1), ("conv_transpose", 2)])
def test_a_norm_behind_goes_into_the_weights(bias: bool, moved: str, op: str, groups: int) -> None:
    b, x = start(2, 5, 5, 4)
    w = weights(3, 3, 4 // groups, 6) if op == "conv" else weights(3, 3, 4, 6 // groups)
    y = conv(b, x, w, bias, op, groups=groups)
    if moved == "transposed":
        y = norm(b, b.op("transpose", y, perm=NCHW))
    elif moved == "flattened":
        y = b.op("reshape", y, shape=(2, 25, 6))
        y = b.op("mul", y, b.constant(weights(6)))
        y = b.op("sub", y, b.constant(weights(1, 6)))
    else:
        y = b.op("div", y, b.constant(np.abs(weights(6)) + 1))
        y = b.op("add", b.op("mul", b.scalar(0.5, y), y), b.constant(weights(6)))
    graph = finished(b, b.op("relu", y))
    assert not {"mul", "add", "div", "sub"} & set(ops(graph))


def test_a_norm_behind_a_value_that_others_see_stays() -> None:
    b, x = start(1, 5, 5, 4)
    y = conv(b, x, weights(3, 3, 4, 6))
    b.output(y, "seen")
    graph = finished(b, b.op("mul", y, b.constant(weights(6))))
    assert count(graph, "mul") == 1


def test_a_factor_that_is_not_along_the_channels_stays() -> None:
    b, x = start(1, 5, 5, 4)
    graph = finished(b, b.op("mul", conv(b, x, weights(3, 3, 4, 6)), b.constant(weights(5, 1))))
    assert count(graph, "mul") == 1


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_norm_ahead(padded: bool, groups: int) -> None:
    """The factor always goes in; the shift only where no padded zero would have to be shifted, too."""
    b, x = start(2, 4, 6, 6)
    pads = ((1, 1), (1, 1)) if padded else ((0, 0), (0, 0))
    y = b.op("transpose", norm(b, x), perm=NHWC)
    graph = finished(b, conv(b, y, weights(3, 3, 4 // groups, 6), pads=pads, groups=groups))
    assert count(graph, "mul") == (1 if padded else 0)
    assert count(graph, "add") == (1 if padded else 0)
    b, x = start(2, 6, 6, 4)
    scaled = b.op("mul", x, b.constant(weights(4)))
    graph = finished(b, conv(b, scaled, weights(3, 3, 4 // groups, 6), pads=pads, groups=groups))
    assert ops(graph) == ["conv"]


def test_a_norm_ahead_of_a_matrix_and_of_a_transposed_convolution() -> None:
    b, x = start(3, 4)
    y = b.op("add", b.op("mul", x, b.constant(weights(4))), b.constant(weights(4)))
    assert ops(finished(b, b.op("matmul", y, b.constant(weights(4, 5))))) == ["dense"]
    b, x = start(1, 4, 4, 4)
    y = b.op("mul", x, b.constant(weights(4)))
    assert ops(finished(b, conv(b, y, weights(3, 3, 4, 3), op="conv_transpose", groups=2))) == ["conv_transpose"]


def test_narrow_weights_take_factors_into_their_scales() -> None:
    codes = RNG.integers(-127, 128, (3, 3, 4, 6)).astype(np.int8)
    for scale in (np.float32(0.02), np.abs(weights(6)) / 50):
        b, x = start(1, 5, 5, 4)
        w = b.op("dequantize", b.constant(codes), b.constant(np.asarray(scale)), None, axis=3, dtype="float32")
        y = norm(b, b.op("transpose", conv(b, x, w), perm=NCHW))
        graph = finished(b, y)
        assert not {"mul", "add"} & set(ops(graph))
        kept = next(node for node in graph.nodes if node.op == "dequantize")
        assert kept.input(0).dtype == "int8"
        assert kept.input(1).shape == (6,)


def test_narrow_weights_are_transposed_before_they_are_expanded() -> None:
    b, x = start(3, 4)
    codes = b.constant(RNG.integers(-127, 128, (5, 4)).astype(np.int8))
    w = b.op(
        "dequantize", codes, b.constant(np.linspace(0.1, 0.5, 5).astype(np.float32)), None, axis=0, dtype="float32"
    )
    graph = finished(b, b.op("matmul", x, b.op("transpose", w, perm=(1, 0))))
    assert ops(graph) == ["dequantize", "dense"]
    assert graph.nodes[0].attrs["axis"] == 1


@pytest.mark.parametrize("turned", [True, False])
def test_padding_goes_into_the_window(turned: bool) -> None:
    b, x = start(1, 4, 6, 6) if turned else start(1, 6, 6, 4)
    before, after = ((0, 0, 1, 2), (0, 0, 0, 1)) if turned else ((0, 1, 2, 0), (0, 0, 1, 0))
    y = b.op("pad", b.op("relu", x), before=before, after=after, mode="constant", value=0.0)
    y = b.op("transpose", y, perm=NHWC) if turned else y
    attrs: dict[str, Any] = {"kernel": (2, 2), "strides": (1, 1), "pads": ((0, 0), (0, 0)), "dilations": (1, 1)}
    attrs |= {"count_include_pad": False, "out": (6, 8)}
    for kind in ("avg", "l2"):
        b.output(b.op("pool", y, kind=kind, **attrs), kind)
    graph = finished(b, conv(b, y, weights(3, 3, 4, 2), pads=((0, 1), (0, 0))))
    assert count(graph, "pad") == 0
    node = next(node for node in graph.nodes if node.op == "conv")
    assert node.attrs["pads"] == ((1, 1), (2, 1))


def test_padding_ahead_of_a_maximum_needs_numbers_above_it() -> None:
    attrs: dict[str, Any] = {"kind": "max", "kernel": (3, 3), "strides": (2, 2), "pads": ((0, 0), (0, 0))}
    attrs |= {"dilations": (1, 1), "count_include_pad": False, "out": (3, 3)}
    for first, value, left in (("relu", 0.0, 0), ("tanh", 0.0, 1), ("tanh", -np.inf, 0), ("relu", 1.0, 1)):
        b, x = start(1, 6, 6, 2)
        y = b.op("pad", b.op(first, x), before=(0, 1, 1, 0), after=(0, 0, 0, 0), mode="constant", value=value)
        assert count(finished(b, b.op("pool", y, **attrs)), "pad") == left, (first, value)


def test_forms_of_a_matrix_product() -> None:
    for attrs, shape in (({}, (4, 5)), ({"transpose_b": True}, (5, 4)), ({}, (1, 1, 4, 5))):
        b, x = start(2, 3, 4)
        y = b.op("add", b.op("matmul", x, b.constant(weights(*shape)), **attrs), b.constant(weights(5)))
        graph = finished(b, b.op("mul", y, b.scalar(0.3, y)))
        assert ops(graph)[0] == "dense"
        assert not {"matmul", "add", "mul"} & set(ops(graph))
    b, x = start(4, 3)
    graph = finished(b, b.op("matmul", x, b.constant(weights(4, 5)), transpose_a=True))
    assert ops(graph) == ["transpose", "dense"]
    b, x = start(3, 4)
    y = b.input("z", (5, 4), "float32")
    graph = finished(b, b.op("matmul", x, b.op("transpose", y, perm=(1, 0))))
    assert ops(graph) == ["matmul"]
    assert graph.nodes[0].attrs["transpose_b"]


def test_integer_products_keep_their_sums() -> None:
    b = Builder("bytes")
    x = b.input("x", (3, 4), "int8")
    y = b.op("matmul", x, b.constant(RNG.integers(-9, 9, (4, 5)).astype(np.int8)))
    graph = finished(b, b.op("mul", y, b.constant(np.full(5, 3, np.int32))))
    assert ops(graph) == ["dense", "mul"]


def test_shared_weights_are_not_doubled() -> None:
    b, x = start(3, 4)
    w = b.constant(weights(4, 4))
    first = b.op("mul", b.op("dense", x, w, None), b.constant(weights(4)))
    graph = finished(b, b.op("dense", b.op("tanh", first), w, None))
    assert len({id(node.input(1).data) for node in graph.nodes if node.op == "dense"}) == 1
