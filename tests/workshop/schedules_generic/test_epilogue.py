"""The fused chain as an author of a schedule uses it: a hand-written anchor, extras of every shape, equal keys."""

from __future__ import annotations

import numpy as np
import pytest

from fleetui.common.domain.errors import BugError
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Graph, Value, run
from fleetui.workshop.kernel import Arg, Group, Kernel
from fleetui.workshop.schedules import emit, fuse
from fleetui.workshop.schedules.epilogue import Epilogue, reader
from fleetui.workshop.target import Target
from fleetui.workshop.targets.host import host
from tests.helpers import kernels

ANY = Target("any", "Any", "x86_64-linux-gnu", "x86-64")
ROWS, COLUMNS = 6, 20


def graph_of(scale: float = 3.0) -> Graph:
    """A dense layer, and behind it everything an extra can be."""
    b = Builder("chain")
    x = b.input("x", (ROWS, 8), "float32")
    w = b.constant(np.random.default_rng(1).standard_normal((8, COLUMNS)).astype(np.float32))
    channel = b.constant(np.linspace(-1, 1, COLUMNS, dtype=np.float32))
    column = b.input("column", (ROWS, 1), "float32")
    whole = b.input("whole", (ROWS, COLUMNS), "float32")
    number = b.input("number", (), "float32")
    y = b.op("add", b.op("dense", x, w, None), channel)
    y = b.op("mul", y, b.op("sigmoid", y))
    y = b.op("add", b.op("mul", y, column), whole)
    y = b.op("where", b.op("less", y, number), b.op("mul", y, b.scalar(scale, y)), y)
    b.graph.outputs.append(b.op("cast", b.op("clip", y, low=-100.0, high=100.0), to="int8", name="y"))
    return b.finish()


def lower(group: Group, _context: object) -> list[Kernel]:
    """A dense layer in the plainest loops, with the chain applied in vectors."""
    epilogue = Epilogue(group)
    x, w = group.anchor.input(0), group.anchor.input(1)
    values: list[Value] = [x, w, *epilogue.extra]
    made = {v: emit.buffer(f"b{i}", v.shape or (1,), v.dtype) for i, v in enumerate(values)}
    out = emit.buffer("out", epilogue.out.shape, epilogue.out.dtype)
    acc, allocated = emit.local("acc", COLUMNS, "float32")

    def row(i: emit.Expr) -> list[emit.Stmt]:
        def clear(j: emit.Expr) -> emit.Stmt:
            return emit.store(acc, [j], emit.number(0.0, "float32"))

        def grow(k: emit.Expr, j: emit.Expr) -> emit.Stmt:
            return emit.store(acc, [j], emit.load(acc, j) + emit.load(made[x], i, k) * emit.load(made[w], k, j))

        def finish(j: emit.Expr) -> emit.Stmt:
            return emit.store(out, [i, j], epilogue.apply(emit.load(acc, j), [i, j], reader(made)))

        def vector(start: int) -> emit.Stmt:
            return emit.vector(4, lambda lane: finish(lane + start))

        return [
            allocated,
            emit.serial("j", COLUMNS, clear),
            emit.serial("k", 8, lambda k: emit.serial("j", COLUMNS, lambda j: grow(k, j))),
            *(vector(start) for start in range(0, COLUMNS, 4)),
        ]

    func = emit.function([*made.values(), out], emit.parallel(ROWS, row))
    args = [*(Arg(v) for v in values), Arg(epilogue.out)]
    return [Kernel(f"dense {epilogue.signature}", func, args, [len(values)], extent=ROWS)]


def test_the_chain_sees_every_extra_at_its_place() -> None:
    graph = graph_of()
    groups = fuse.partition(graph, host())
    assert len(groups) == 1
    epilogue = Epilogue(groups[0])
    assert {value.shape for value in epilogue.extra} == {(COLUMNS,), (ROWS, 1), (ROWS, COLUMNS), ()}
    assert epilogue.out is graph.outputs[0]
    feeds = kernels.random_feeds(graph, 3, scale=4.0)
    with kernels.Compiled(graph, lower=lower) as compiled:
        compiled.feed(feeds)
        got, want = compiled.run(seed=1)["y"], run(graph, feeds)["y"]
    assert np.abs(got.astype(int) - want.astype(int)).max() <= 1  # truncation next to a whole number
    assert (got != want).mean() < 0.02
    assert len(np.unique(want)) > 20


def test_what_stands_in_the_code_stands_in_the_signature() -> None:
    def signature(graph: Graph) -> str:
        return Epilogue(fuse.partition(graph, ANY)[0]).signature

    assert signature(graph_of(3.0)) == signature(graph_of(3.0))
    assert signature(graph_of(3.0)) != signature(graph_of(4.0))


def test_no_chain_only_converts() -> None:
    b = Builder("bare")
    x = b.input("x", (2, 3), "float32")
    y = b.op("dense", x, b.constant(np.ones((3, 4), np.float32)), None)
    b.graph.outputs.append(y)
    epilogue = Epilogue(fuse.partition(b.finish(), ANY)[0])
    assert not epilogue
    assert epilogue.extra == []
    assert epilogue.signature == ""
    assert epilogue.out is y
    assert str(epilogue.apply(emit.number(1.0, "float64"), []).ty.dtype) == "float32"


def test_an_anchor_of_several_outputs_has_no_chain() -> None:
    b = Builder("several")
    values, places = b.ops("topk", b.input("x", (2, 9), "float32"), k=3, axis=1, largest=True, sorted=True)
    b.output(b.op("relu", values), "values")
    b.output(places, "places")
    groups = fuse.partition(b.finish(), ANY)
    assert [node.op for node in groups[0].nodes] == ["topk"]
    with pytest.raises(BugError, match="several outputs"):
        Epilogue(groups[0])
