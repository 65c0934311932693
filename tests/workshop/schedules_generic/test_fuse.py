"""What is fused with what, and that every partition of a random graph can be executed in its order."""

from __future__ import annotations

import numpy as np
import pytest

from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Graph, Value
from fleetui.workshop.kernel import Group
from fleetui.workshop.schedules import fuse
from fleetui.workshop.schedules.epilogue import Epilogue
from fleetui.workshop.target import Target

TARGET = Target("any", "Any", "x86_64-linux-gnu", "x86-64")


def names(graph: Graph) -> list[str]:
    return ["+".join(node.op for node in group.nodes) for group in fuse.partition(graph, TARGET)]


def convolution(b: Builder, x: Value, out: int, size: int = 3) -> Value:
    w = b.constant(np.ones((size, size, x.shape[-1], out), np.float32))
    half = size // 2
    return b.op("conv", x, w, None, strides=(1, 1), pads=((half, half),) * 2, dilations=(1, 1), groups=1)


def test_bias_activation_and_the_later_convolution_gets_the_residual() -> None:
    b = Builder("residual")
    x = b.input("x", (1, 8, 8, 4), "float32")
    bias = b.constant(np.arange(4, dtype=np.float32))
    first = b.op("relu", b.op("add", convolution(b, x, 4), bias))
    shortcut = convolution(b, x, 4, 1)
    second = convolution(b, first, 4)
    b.output(b.op("relu", b.op("add", shortcut, second)), "y")
    graph = b.finish()
    assert names(graph)[:3] == ["conv+add+relu", "conv", "conv+add+relu"]
    last = fuse.partition(graph, TARGET)[2]
    assert Epilogue(last).extra == [shortcut]


def test_a_chain_that_branches_and_meets_again_is_one() -> None:
    b = Builder("silu")
    x = b.input("x", (1, 8, 8, 4), "float32")
    y = convolution(b, x, 4)
    b.output(b.op("mul", y, b.op("sigmoid", y)), "y")
    assert names(b.finish())[0] == "conv+sigmoid+mul"


def test_what_somebody_else_needs_is_not_swallowed() -> None:
    b = Builder("shared")
    x = b.input("x", (1, 8, 8, 4), "float32")
    y = b.op("relu", convolution(b, x, 4))
    b.output(convolution(b, y, 4), "a")
    b.output(b.op("exp", y), "b")
    b.output(b.op("relu", given := b.op("exp", convolution(b, x, 8))), "c")
    b.output(given, "d")
    made = names(b.finish())
    assert "conv+relu" in made
    assert "conv+exp" in made
    assert "exp" in made


def test_chains_before_reductions_and_between_elementwise() -> None:
    b = Builder("before")
    x, y = b.input("x", (9, 20), "float32"), b.input("y", (1, 20), "float32")
    moved = b.op("sub", x, y)
    b.output(b.op("sqrt", b.op("reduce", b.op("mul", moved, moved), kind="mean", axes=(1,), keepdims=False)), "rms")
    b.output(b.op("softmax", b.op("mul", x, b.scalar(0.5, x)), axis=1), "soft")
    turned = b.op("transpose", b.input("z", (20, 9), "float32"), perm=(1, 0))
    b.output(b.op("add", b.op("exp", x), b.op("relu", turned)), "sum")
    made = set(names(b.finish()))
    assert {"sub+mul+reduce+sqrt", "mul+softmax", "transpose+exp+relu+add"} <= made


def test_small_weights_are_expanded_in_the_kernel_that_uses_them() -> None:
    b = Builder("small")
    x = b.input("x", (2, 8), "float32")
    codes = Value("codes", (8, 4), "int8", np.ones((8, 4), np.int8))
    scale = b.constant(np.full(4, 0.5, np.float32))
    graph = b.graph
    weight = Value("w", (8, 4), "float32")
    from fleetui.workshop.graph.ir import Node

    graph.nodes.append(Node("dequantize", [codes, scale, None], [weight], {"axis": 1, "dtype": "float32"}))
    b.output(b.op("relu", b.op("dense", x, weight, None)), "y")
    group = fuse.partition(b.finish(), TARGET)[0]
    assert [node.op for node in group.nodes] == ["dequantize", "dense", "relu"]
    epilogue = Epilogue(group)
    assert [node.op for node in epilogue.before] == ["dequantize"]
    assert [node.op for node in epilogue.nodes] == ["relu"]
    assert epilogue.extra == []


@pytest.mark.parametrize(
    ("op", "attrs", "view"),
    [
        ("reshape", {"shape": (8, 3, 5)}, True),
        ("identity", {}, True),
        ("transpose", {"perm": (0, 2, 1)}, True),
        ("transpose", {"perm": (2, 1, 0)}, False),
        ("slice", {"starts": (2, 0, 0), "stops": (6, 1, 15), "steps": (1, 1, 1)}, True),
        ("slice", {"starts": (2, 0, 0), "stops": (6, 1, 15), "steps": (2, 1, 1)}, False),
        ("slice", {"starts": (0, 0, 2), "stops": (8, 1, 6), "steps": (1, 1, 1)}, False),
        ("slice", {"starts": (3, 0, 2), "stops": (4, 1, 6), "steps": (1, 1, 1)}, True),
        ("cast", {"to": "float32"}, True),
        ("broadcast_to", {"shape": (2, 8, 1, 15)}, False),
    ],
)
def test_what_is_only_a_view(op: str, attrs: dict[str, object], view: bool) -> None:
    b = Builder("views")
    x = b.input("x", (8, 1, 15), "float32")
    y = b.op(op, x, **attrs)
    b.output(b.op("exp", y), "y")
    group = next(g for g in fuse.partition(b.finish(), TARGET) if any(node.op == op for node in g.nodes))
    alone = Group([group.nodes[0]], group.nodes[0], [x], [group.nodes[0].output])
    assert (fuse.alias_of(alone) is x) is view
    if view:
        assert fuse.alias_of(group) is x, "views stand alone, so that they cost nothing"


def random_graph(seed: int) -> Graph:
    dice = np.random.default_rng(seed)
    b = Builder(f"random{seed}")
    values = [b.input("x", (1, 6, 6, 8), "float32"), b.input("y", (1, 6, 6, 8), "float32")]
    for _ in range(30):
        pick = [values[int(i)] for i in dice.integers(max(0, len(values) - 6), len(values), 2)]
        op = str(dice.choice(["add", "mul", "relu", "sigmoid", "conv", "softmax", "transpose", "pool", "maximum"]))
        if op in {"add", "mul", "maximum"}:
            values.append(b.op(op, *pick))
        elif op == "conv":
            values.append(convolution(b, pick[0], 8))
        elif op == "softmax":
            values.append(b.op("softmax", pick[0], axis=3))
        elif op == "transpose":
            values.append(b.op("transpose", pick[0], perm=(0, 2, 1, 3)))
        elif op == "pool":
            window = {"kernel": (3, 3), "strides": (1, 1), "pads": ((1, 1), (1, 1)), "dilations": (1, 1)}
            values.append(b.op("pool", pick[0], kind="max", count_include_pad=False, out=(6, 6), **window))
        else:
            values.append(b.op(op, pick[0]))
    for number, value in enumerate(values[-3:]):
        b.output(value, f"out{number}")
    return b.finish()


@pytest.mark.parametrize("seed", range(40))
def test_any_partition_covers_the_graph_and_can_be_executed(seed: int) -> None:
    graph = random_graph(seed)
    groups = fuse.partition(graph, TARGET)
    covered = [node for group in groups for node in group.nodes]
    assert len(covered) == len(graph.nodes)
    assert set(covered) == set(graph.nodes)
    ready = set(graph.inputs)
    needed = set(graph.outputs)
    for group in groups:
        inside = {out for node in group.nodes for out in node.outputs}
        assert set(group.inputs) == {
            v for node in group.nodes for v in node.inputs if v is not None and v not in inside
        }
        assert all(value.data is not None or value in ready for value in group.inputs)
        ready.update(group.outputs)
        needed.update(v for v in group.inputs if v.data is None)
        assert len(group.nodes) <= fuse.MOST_NODES
    assert needed <= ready
