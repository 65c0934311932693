"""Convolutions whose weights are kept in 16 or 8 bits, and on 8-bit inputs, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Graph, Node, Value
from fleetui.workshop.optimise.compact import symmetric
from fleetui.workshop.schedules import fuse
from fleetui.workshop.schedules.conv import CONVOLUTION, kept
from fleetui.workshop.schedules.rules import Context
from fleetui.workshop.targets.host import host
from tests.helpers import kernels

RNG = np.random.default_rng(6)


def conv(groups: int = 1, stride: int = 1, k: int = 3) -> dict[str, object]:
    pad = k // 2
    return {"strides": (stride, stride), "pads": ((pad, pad),) * 2, "dilations": (1, 1), "groups": groups}


def graph_of(
    form: str, groups: int = 1, stride: int = 1, k: int = 3, bias: bool = True
) -> tuple[Graph, np.ndarray]:
    """Convolution, relu, and a residual sum; weights in ``form``."""
    b = Builder("small")
    c, m = 6 * groups, 20 * groups
    if form in {"int8", "uint8"}:
        x = RNG.integers(0 if form == "uint8" else -127, 127, (1, 9, 10, c)).astype(form)
        w = RNG.integers(-127, 127, (k, k, 6, m)).astype(np.int8)
        y = b.op("conv", b.input("x", x.shape, form), b.constant(w), None, **conv(groups, stride, k))
        y = b.op("relu", b.op("mul", b.op("cast", y, to="float32", saturate=False), b.constant(np.float32(0.01))))
        b.output(y, "y")
        return b.finish(), x
    x = RNG.standard_normal((1, 9, 10, c)).astype(np.float32)
    w = (RNG.standard_normal((k, k, 6, m)) * 0.2).astype(np.float32)
    added = b.constant(RNG.standard_normal(m).astype(np.float32)) if bias else None
    value = b.input("x", x.shape, "float32")
    wide = Value("wide", w.shape, "float32")
    if form == "float16":
        node = Node("cast", [b.constant(w.astype(np.float16))], [wide], {"to": "float32", "saturate": False})
    else:
        codes, scale = symmetric(w, 3, 127)
        node = Node(
            "dequantize",
            [b.constant(codes), b.constant(scale), None],
            [wide],
            {"axis": 3, "dtype": "float32", "block": 0},
        )
    b.graph.nodes.append(node)
    b.output(b.op("relu", b.op("conv", value, wide, added, **conv(groups, stride, k))), "y")
    return b.finish(), x


@pytest.mark.parametrize("form", ["float16", "w8", "int8", "uint8"])
@pytest.mark.parametrize(("groups", "stride", "k", "bias"), [(1, 1, 3, True), (2, 2, 3, True), (1, 1, 1, False)])
def test_narrow_weights_are_widened_inside_the_kernel(
    form: str, groups: int, stride: int, k: int, bias: bool
) -> None:
    graph, x = graph_of(form, groups, stride, k, bias)
    groups_made = [g for g in fuse.partition(graph, host()) if g.anchor.op == "conv"]
    (group,) = groups_made
    assert CONVOLUTION.matches(group, Context(host(), graph))
    held = kept(group)
    assert held is not None
    assert held.data.dtype == (np.float16 if form == "float16" else np.int8)
    kernels.check(graph, {"x": x})


def test_depthwise_convolutions_keep_their_few_weights_wide() -> None:
    from fleetui.workshop.optimise.weights import weights

    b = Builder("deep")
    x = b.input("x", (1, 8, 8, 64), "float32")
    w = b.constant(np.ones((3, 3, 1, 64), np.float32))
    b.output(b.op("conv", x, w, None, **conv(64)), "y")
    assert list(weights(b.finish())) == []
