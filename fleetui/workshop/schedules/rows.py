"""Operators that take whole runs of neighbours from one place to another: gather, pad, tile, resized axes.

All of them decide for a run what it is (by an index, a table, an offset), and then move or mix it in vectors. Two
axes resized one after the other are one mixture of more rows, where ``fuse`` brought them together. What has no run
of some length, because the axis in question is the innermost, is left to plain loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

from fleetui.workshop.graph.ir import Shape
from fleetui.workshop.kernel import Group, Kernel
from fleetui.workshop.schedules import emit, mathlib
from fleetui.workshop.schedules.frame import Work, lanes_of, signature, span
from fleetui.workshop.schedules.injective import unflat
from fleetui.workshop.schedules.plain import Plain, fill, padded, settled
from fleetui.workshop.schedules.rules import Context
from fleetui.workshop.schedules.scalar import compute_dtype

Expr = Any
Stmt = Any

SHORTEST = 4
TASK = 2048
MOST_TAPS = 8
LONG = 8192
"""A run that long is cut, so that it can be shared out."""


def takes(group: Group, context: Context) -> bool:
    node = group.anchor
    if node.op not in {"gather", "pad", "tile", "interp"} or node.output.size == 0 or node.input(0).size == 0:
        return False
    out = group.outputs[0]
    if context.strides(node.input(0))[-1:] != (1,) or context.strides(out)[-1:] != (1,):
        return False
    if node.op == "interp" and node.input(1).shape[1] > MOST_TAPS:
        return False
    return run_axis(group) < node.output.rank and prod(node.output.shape[run_axis(group) :]) >= SHORTEST


def run_axis(group: Group) -> int:
    """The first axis of the output from which on the input is read straight."""
    node = group.anchor
    shape = node.input(0).shape
    if node.op == "gather":
        return int(node.attrs["axis"]) + node.input(1).rank
    if node.op == "interp":
        return 1 + max(int(one.attrs["axis"]) for one in group.nodes if one.op == "interp")
    if node.op == "tile":
        changed = [i for i, n in enumerate(node.attrs["repeats"]) if n != 1]
    else:
        changed = [i for i in range(len(shape)) if node.attrs["before"][i] or node.attrs["after"][i]]
    return changed[-1] + 1 if changed else 0


def lower(group: Group, context: Context) -> list[Kernel]:
    made = _Runs(group, context)
    body, extent = made.body()
    return [made.p.frame.kernel("runs " + signature(group), body, Work(extent, 2 * group.anchor.output.size))]


class _Runs:
    def __init__(self, group: Group, context: Context) -> None:
        self.p = Plain(group, context)
        self.node = group.anchor
        self.attrs = group.anchor.attrs
        self.x = group.anchor.input(0)
        self.out = group.anchor.output
        self.first = run_axis(group)
        self.outer: Shape = self.out.shape[: self.first]
        self.inner: Shape = self.out.shape[self.first :]
        self.dtype = compute_dtype(self.x.dtype)
        self.lanes = lanes_of(context, self.dtype, self.x.dtype, group.outputs[0].dtype)
        # where neither side has gaps and the chain needs no place, a run is one axis
        dense = all(_dense(context.strides(v)[-len(self.inner) :], self.inner) for v in (self.x, group.outputs[0]))
        whole = len(group.nodes) == 1 and dense
        self.merged = whole or len(self.inner) == 1
        self.length = prod(self.inner) if self.merged else self.inner[-1]
        self.between: Shape = () if self.merged else self.inner[:-1]

    def _index(self, lead: Sequence[Expr], between: Sequence[Expr], at: Expr) -> list[Expr]:
        """``at`` may run over all merged axes: then it stands in the innermost, the others being 0."""
        zeros = [emit.integer(0)] * (len(self.inner) - 1 - len(between))
        return [*lead, *between, *zeros, at]

    def body(self) -> tuple[Stmt, int]:
        rows = (*self.outer, *self.between)
        count = prod(rows)
        cuts = -(-self.length // LONG)
        if cuts > 1:
            return self._cut(rows, count, cuts)
        split = len(rows)
        while split and prod(rows[split:]) * self.length < TASK:
            split -= 1
        split = max(split, min(1, len(rows)))

        def loops(lead: list[Expr]) -> list[Stmt]:
            if len(lead) == len(rows):
                return self._run(lead, self.length, 0)
            return [emit.serial("r", rows[len(lead)], lambda r: loops([*lead, r]))]

        extent = prod(rows[:split])
        return emit.parallel(extent, lambda at: loops(unflat(at, rows[:split]))), extent

    def _cut(self, rows: Shape, count: int, cuts: int) -> tuple[Stmt, int]:
        """Pieces of a long run; the last one reaches back into the one before."""
        from tvm import tirx

        size = -(-self.length // cuts // self.lanes) * self.lanes

        def task(at: Expr) -> list[Stmt]:
            lead = unflat(tirx.floordiv(at, cuts), rows) if count > 1 else [emit.integer(0)] * len(rows)
            start = emit.least(tirx.floormod(at, cuts) * size, emit.integer(self.length - size))
            return self._run(lead, size, start)

        return emit.parallel(count * cuts, task), count * cuts

    def _run(self, at: Sequence[Expr], size: int, start: Expr | int) -> list[Stmt]:
        lead, between = list(at[: len(self.outer)]), list(at[len(self.outer) :])
        move = {"gather": self._gather, "pad": self._pad, "tile": self._tile, "interp": self._interp}[self.node.op]
        return move(lead, between, size, start)

    def _copy(
        self, lead: list[Expr], between: list[Expr], size: int, start: Expr | int, value: Callable[[Expr], Expr]
    ) -> list[Stmt]:
        def one(at: Expr) -> Stmt:
            place = at if isinstance(start, int) and start == 0 else at + start
            return self.p.put(self._index(lead, between, place), value(place))

        return span(size, self.lanes, one)

    def _straight(self, source: list[Expr], between: list[Expr], at: Expr) -> Expr:
        return self.p.raw(0, self._index(source, between, at))

    def _fixed(self, value: Expr) -> tuple[Expr, list[Stmt]]:
        place, made = self.p.cell("int32", value)
        return emit.load(place, emit.integer(0)), made

    # ------------------------------------------------------------ one run each

    def _gather(self, lead: list[Expr], between: list[Expr], size: int, start: Expr | int) -> list[Stmt]:
        axis, rank = self.attrs["axis"], self.node.input(1).rank
        found = settled(self.p.raw(1, lead[axis : axis + rank]), self.x.shape[axis])
        at, made = self._fixed(found)
        source = [*lead[:axis], at, *lead[axis + rank :]]
        return [*made, *self._copy(lead, between, size, start, partial(self._straight, source, between))]

    def _tile(self, lead: list[Expr], between: list[Expr], size: int, start: Expr | int) -> list[Stmt]:
        from tvm import tirx

        source = [
            tirx.floormod(i, d) if n != 1 else i
            for i, d, n in zip(lead, self.x.shape, self.attrs["repeats"], strict=False)
        ]
        return self._copy(lead, between, size, start, partial(self._straight, source, between))

    def _pad(self, lead: list[Expr], between: list[Expr], size: int, start: Expr | int) -> list[Stmt]:
        source, real = padded(self.node, lead)
        copied = self._copy(lead, between, size, start, partial(self._straight, source, between))
        if not real:
            return copied
        value = mathlib.cast(fill(self.node), self.x.dtype)
        filled = self._copy(lead, between, size, start, lambda _at: value)
        return [emit.choose(mathlib.both(*real), emit.sequence(copied), emit.sequence(filled))]

    def _interp(self, lead: list[Expr], between: list[Expr], size: int, start: Expr | int) -> list[Stmt]:
        """Rows picked from a table and mixed; a weight of a single tap that is always 1 is no weight."""
        index, weight = self.node.input(1), self.node.input(2)
        axis = self.attrs["axis"]
        made: list[Stmt] = []
        rows, factors = [], []
        plain = weight.data is not None and bool((weight.data == 1).all()) and index.shape[1] == 1
        for tap in range(index.shape[1]):
            row, more = self._fixed(self.p.raw(1, [lead[axis], emit.integer(tap)]))
            made += more
            rows.append(row)
            if not plain:
                factor = mathlib.cast(self.p.raw(2, [lead[axis], emit.integer(tap)]), self.dtype)
                cell, more = self.p.cell(self.dtype, factor)
                made += more
                factors.append(emit.load(cell, emit.integer(0)))

        def value(at: Expr) -> Expr:
            parts = [mathlib.cast(self._straight([*lead[:axis], row], between, at), self.dtype) for row in rows]
            if plain:
                return mathlib.cast(parts[0], self.x.dtype)
            total = parts[0] * factors[0]
            for part, factor in zip(parts[1:], factors[1:], strict=True):
                total = total + part * factor
            return mathlib.cast(total, self.x.dtype)

        return [*made, *self._copy(lead, between, size, start, value)]


def _dense(strides: Sequence[int], shape: Sequence[int]) -> bool:
    step = 1
    for dim, stride in zip(reversed(shape), reversed(strides), strict=True):
        if dim != 1 and stride != step:
            return False
        step *= dim
    return True
