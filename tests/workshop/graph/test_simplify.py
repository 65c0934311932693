"""Algebra, folding, common subexpressions, dead branches, the editor's care for public names, and the report."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fleetui.common.domain.errors import BugError
from fleetui.workshop.errors import Stopped
from fleetui.workshop.graph import ir
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Graph, Node, Value
from fleetui.workshop.graph.passes import graph_report, lay_out, simplify
from fleetui.workshop.graph.passes.fold import common_subexpressions, remove_dead
from fleetui.workshop.graph.passes.mincut import Network
from fleetui.workshop.graph.passes.rewrite import Editor, run
from fleetui.workshop.progress import Progress
from tests.helpers.graphs import checked, count, ops

Step = Callable[[Builder, Value], Value]


def c(b: Builder, *numbers: float, dtype: str = "float32") -> Value:
    return b.constant(np.array(numbers[0] if len(numbers) == 1 else numbers, dtype))


def s(
    b: Builder, x: Value, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...] = (1, 1)
) -> Value:
    return b.op("slice", x, starts=starts, stops=stops, steps=steps)


def p(b: Builder, x: Value, before: tuple[int, ...], after: tuple[int, ...] = (0, 0), value: float = 0) -> Value:
    return b.op("pad", x, before=before, after=after, mode="constant", value=value)


def r(b: Builder, x: Value, kind: str, *axes: int, keep: bool = False) -> Value:
    return b.op("reduce", x, kind=kind, axes=axes, keepdims=keep)


NOTHING: dict[str, Step] = {
    "identity": lambda b, x: b.op("identity", x),
    "plus 0": lambda b, x: b.op("add", c(b, 0), x),
    "times 1": lambda b, x: b.op("mul", x, b.constant(np.ones((1, 6), np.float32))),
    "divided by 1": lambda b, x: b.op("div", x, c(b, 1)),
    "to the power of 1": lambda b, x: b.op("pow", x, c(b, 1)),
    "cast to the same": lambda b, x: b.op("cast", x, to="float32"),
    "cast to and fro": lambda b, x: b.op("cast", b.op("cast", x, to="float64"), to="float32"),
    "negated twice": lambda b, x: b.op("neg", b.op("neg", x)),
    "transposed twice": lambda b, x: b.op("transpose", b.op("transpose", x, perm=(1, 0)), perm=(1, 0)),
    "reshaped and back": lambda b, x: b.op("reshape", b.op("reshape", x, shape=(24,)), shape=(4, 6)),
    "all of it": lambda b, x: s(b, x, (0, 0), (4, 6)),
    "concat of one": lambda b, x: b.op("concat", x, axis=0),
    "concat with nothing": lambda b, x: b.op("concat", x, s(b, x, (2, 0), (2, 6)), axis=0),
    "split and joined": lambda b, x: b.op("concat", s(b, x, (0, 0), (4, 2)), s(b, x, (0, 2), (4, 6)), axis=1),
    "joined and split": lambda b, x: s(b, b.op("concat", b.op("exp", x), x, axis=0), (4, 0), (8, 6)),
    "padded by nothing": lambda b, x: p(b, x, (0, 0)),
    "chosen by a constant": lambda b, x: b.op("where", b.constant(np.array(False)), b.op("exp", x), x),
    "chosen from itself": lambda b, x: b.op("where", b.op("greater", x, c(b, 0)), x, x),
    "tiled once": lambda b, x: b.op("tile", x, repeats=(1, 1)),
    "broadcast to itself": lambda b, x: b.op("broadcast_to", x, shape=(4, 6)),
    "reduced over nothing": lambda b, x: r(b, x, "sum"),
    "gathered as it is": lambda b, x: b.op("gather", x, c(b, 0, 1, -2, -1, dtype="int64"), axis=0),
    "not clipped": lambda b, x: b.op("clip", x, low=None, high=None),
    "halved and doubled": lambda b, x: b.op("mul", b.op("div", x, c(b, 2)), c(b, 2)),
    "taken and given": lambda b, x: b.op("sub", b.op("add", x, c(b, 3)), c(b, 3)),
}


@pytest.mark.parametrize("what", NOTHING)
def test_what_does_nothing_is_gone(what: str) -> None:
    b = Builder("nothing")
    x = b.input("x", (4, 6), "float32")
    b.output(b.op("tanh", NOTHING[what](b, x)), "y")
    assert ops(checked(b.finish(), simplify)) == ["tanh"]


SHORTER: dict[str, tuple[Step, list[str]]] = {
    "clips": (lambda b, x: b.op("clip", b.op("clip", x, low=-1.0, high=4.0), low=0.0, high=6.0), ["clip"]),
    "relu of a clip": (lambda b, x: b.op("relu", b.op("clip", x, low=0.0, high=6.0)), ["clip"]),
    "clip at 0": (lambda b, x: b.op("clip", x, low=0.0, high=None), ["relu"]),
    "maximum": (lambda b, x: b.op("maximum", c(b, 0), x), ["relu"]),
    "square": (lambda b, x: b.op("pow", x, c(b, 2)), ["mul"]),
    "root": (lambda b, x: b.op("pow", b.op("abs", x), c(b, -0.5)), ["abs", "rsqrt"]),
    "over a root": (lambda b, x: b.op("div", c(b, 1), b.op("sqrt", b.op("exp", x))), ["exp", "rsqrt"]),
    "plus a negative": (lambda b, x: b.op("add", x, b.op("neg", b.op("exp", x))), ["exp", "sub"]),
    "sums": (lambda b, x: b.op("add", b.op("add", x, c(b, 1)), b.constant(np.ones((6,), np.float32))), ["add"]),
    "slices": (lambda b, x: s(b, s(b, x, (1, 0), (4, 6), (1, 2)), (1, 1), (3, 3)), ["slice"]),
    "gather": (lambda b, x: b.op("gather", x, c(b, 1, 3, 5, dtype="int64"), axis=1), ["slice"]),
    "one row": (lambda b, x: b.op("gather", x, b.constant(np.array(-1)), axis=0), ["slice", "reshape"]),
    "pads": (lambda b, x: p(b, p(b, x, (1, 0)), (1, 2)), ["pad"]),
    "concats": (lambda b, x: b.op("concat", b.op("concat", x, x, axis=1), x, axis=1), ["concat"]),
    "reductions": (lambda b, x: r(b, r(b, x, "mean", 1, keep=True), "mean", 0, 1), ["reduce"]),
    "casts": (lambda b, x: b.op("cast", b.op("cast", x, to="float64"), to="int32"), ["cast"]),
    "broadcast operand": (
        lambda b, x: b.op("mul", x, b.op("broadcast_to", s(b, x, (0, 0), (1, 6)), shape=(4, 6))),
        ["slice", "mul"],
    ),
    "not not": (
        lambda b, x: b.op("where", b.op("logical_not", b.op("greater", x, c(b, 0))), b.op("exp", x), x),
        ["exp", "greater", "where"],
    ),
}


@pytest.mark.parametrize("what", SHORTER)
def test_what_can_be_said_shorter_is(what: str) -> None:
    b = Builder("shorter")
    x = b.input("x", (4, 6), "float32")
    step, want = SHORTER[what]
    b.output(step(b, x), "y")
    assert sorted(ops(checked(b.finish(), simplify))) == sorted(want)


def test_pools_that_are_something_else() -> None:
    b = Builder("pools")
    x = b.input("x", (1, 4, 4, 2), "float32")
    plain = {"strides": (1, 1), "pads": ((0, 0), (0, 0)), "dilations": (1, 1), "count_include_pad": False}
    whole = b.op("pool", x, kind="avg", kernel=(4, 4), out=(1, 1), **plain)
    single = b.op("pool", x, kind="max", kernel=(1, 1), out=(4, 4), **plain)
    b.output(b.op("add", whole, single), "y")
    assert ops(checked(b.finish(), simplify)) == ["reduce", "add"]


def test_a_difference_of_big_numbers_is_taken_first() -> None:
    """(x − 10⁶)·2 must not become 2x − 2·10⁶: in float32 that would lose the digits."""
    b = Builder("digits")
    x = b.input("x", (4,), "float32")
    b.output(b.op("mul", b.op("sub", x, c(b, 1e6)), c(b, 2)), "y")
    graph = b.finish()
    simplify(graph)
    x_near = np.array([1e6, 1e6 + 0.25, 1e6 - 3, 1e6 + 7], np.float32)
    assert ir.run(graph, {"x": x_near})["y"].tolist() == [0, 0.5, -6, 14]
    assert ops(graph) == ["add", "mul"]


def test_constants_are_folded_but_narrow_ones_stay_narrow() -> None:
    b = Builder("fold")
    x = b.input("x", (3, 8), "float32")
    codes = b.constant(np.arange(64, dtype=np.int8).reshape(8, 8))
    w = b.op("dequantize", codes, c(b, 0.1), None, axis=0, dtype="float32")
    b.output(b.op("matmul", x, w), "y")
    graph = checked(b.finish(), simplify, lay_out)
    assert ops(graph) == ["dequantize", "dense"]
    assert graph.constants()[0].dtype == "int8"


def test_laying_out_does_not_widen_what_was_made_narrow() -> None:
    b = Builder("half")
    x = b.input("x", (3, 8), "float32")
    graph = b.graph
    narrow = b.constant(np.ones((8, 8), np.float16))
    wide = Value("wide", (8, 8), "float32")
    graph.nodes.append(Node("cast", [narrow], [wide], {"to": "float32"}))
    b.output(b.op("dense", x, b.op("transpose", wide, perm=(1, 0)), None), "y")
    graph = b.finish()
    lay_out(graph)
    assert ops(graph) == ["cast", "dense"]
    simplify(graph)
    assert ops(graph) == ["dense"]


def test_dead_branches_go() -> None:
    b = Builder("dead")
    x = b.input("x", (2, 2), "float32")
    never = b.op("logical_and", b.constant(np.array(True)), b.constant(np.array(False)))
    heavy = b.op("matmul", b.op("exp", x), x)
    b.op("sin", x)
    b.output(b.op("where", never, heavy, x), "y")
    graph = b.graph
    assert remove_dead(graph) == 1
    assert ops(checked(b.finish(), simplify)) == ["identity"]


def test_nothing_is_computed_twice() -> None:
    b = Builder("twice")
    x = b.input("x", (2, 2), "float32")
    parts = [b.op("mul", b.op("exp", x), c(b, 2)) for _ in range(3)]
    different = b.op("reduce", x, kind="sum", axes=(1,), keepdims=True)
    alike = b.op("reduce", x, kind="sum", axes=(1,), keepdims=True)
    b.output(b.op("concat", *parts, different, alike, axis=1), "y")
    b.output(b.op("mul", b.op("exp", x), c(b, 2)), "z")
    graph = checked(b.finish(), common_subexpressions)
    assert sorted(ops(graph)) == ["concat", "exp", "identity", "identity", "mul", "reduce"]


def test_attributes_of_another_type_are_different() -> None:
    b = Builder("types")
    x = b.input("x", (2, 2), "float32")
    b.output(b.op("clip", x, low=0, high=1), "y")
    b.output(b.op("clip", x, low=False, high=True), "z")
    graph = b.finish()
    common_subexpressions(graph)
    assert count(graph, "clip") == 2


# ---------------------------------------------------------------- public names


def test_outputs_keep_their_names_and_their_order() -> None:
    b = Builder("names")
    x = b.input("x", (2, 2), "float32")
    y = b.op("neg", b.op("neg", x))
    t = b.op("tanh", x)
    b.output(y, "same as input")
    b.output(t, "first")
    b.output(b.op("add", t, c(b, 0)), "second")
    b.output(c(b, 1, 2), "constant")
    b.output(x, "also input")
    graph = checked(b.finish(), simplify, lay_out)
    assert [v.name for v in graph.outputs] == ["same as input", "first", "second", "constant", "also input"]
    assert count(graph, "tanh") == 1
    made = graph.producers()
    assert all(made[value].op in {"identity", "tanh"} for value in graph.outputs)


def test_a_replaced_value_must_fit() -> None:
    b = Builder("fit")
    x = b.input("x", (2, 2), "float32")
    y = b.op("exp", x)
    b.output(y, "y")
    editor = Editor(b.finish())
    with pytest.raises(BugError, match="replaced by"):
        editor.replace(y, editor.op("reshape", x, shape=(4,)))


def test_rules_that_undo_one_another_are_noticed() -> None:
    def turn(editor: Editor, node: Node) -> bool:
        op = {"exp": "log", "log": "exp"}[node.op]
        editor.replace(node.output, editor.op(op, node.input(0)))
        return True

    b = Builder("circle")
    b.output(b.op("neg", b.op("exp", b.input("x", (2,), "float32"))), "y")
    with pytest.raises(BugError, match="circles"):
        run(b.finish(), {"exp": [turn], "log": [turn]})


def test_a_stop_is_honoured() -> None:
    b = Builder("long")
    x = b.input("x", (2,), "float32")
    for _ in range(200):
        x = b.op("tanh", x)
    b.output(x, "y")
    progress = Progress()
    progress.stop()
    with pytest.raises(Stopped):
        simplify(b.finish(), progress)


# ---------------------------------------------------------------- report and cut


def network() -> Graph:
    b = Builder("net")
    x = b.input("x", (1, 8, 8, 3), "float32")
    w = b.constant(np.ones((3, 3, 3, 4), np.float32))
    y = b.op("conv", x, w, None, strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1), groups=1, name="wide")
    y = b.op("relu", y)
    picked = b.op("gather", y, b.constant(np.array([0, 2], np.int64)), axis=3)
    b.output(picked, "y")
    return b.finish()


def test_the_report_counts() -> None:
    report = graph_report(network())
    assert report.operators == {"conv": 1, "relu": 1, "gather": 1, "identity": 1}
    assert report.flops_by_operator == {"conv": 2 * 64 * 4 * 27, "relu": 256}
    assert report.flops == sum(report.flops_by_operator.values())
    assert report.parameters == 108
    assert report.weights_bytes == 108 * 4 + 16
    assert [(t.name, t.bytes) for t in report.activations[:3]] == [("wide", 1024), ("relu", 1024), ("x", 768)]
    assert report.peak_bytes == 2048


def test_the_cheapest_cut() -> None:
    net = Network()
    a, b, d = net.node(), net.node(), net.node()
    for edge in ((0, a, 10), (0, b, 4), (a, b, 3), (a, d, 5), (b, d, 9), (d, 1, 11), (b, 1, 1)):
        net.edge(*edge)
    total, side = net.cut()
    assert total == 12
    assert side[0]
    assert not side[1]
    crossing = {(0, b): 4, (a, b): 3, (a, d): 5, (0, a): 10, (b, d): 9, (d, 1): 11, (b, 1): 1}
    assert sum(cost for (x, y), cost in crossing.items() if side[x] and not side[y]) == total
