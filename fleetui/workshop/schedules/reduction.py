"""Reductions in vectors: over leading axes beside each other, over the innermost with several accumulators.

Axes are merged first, so there are two forms. Where the innermost axis is kept, a vector runs along it and the
reduced axes are walked with a few accumulators in registers. Where it is reduced, a row is walked with ``WAYS``
vectors, which are joined at the end, lane by lane. Arg reductions along a row are done in two passes: the extreme
value in vectors, then its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

from fleetui.workshop.graph.ir import Value
from fleetui.workshop.kernel import Group, Kernel
from fleetui.workshop.schedules import emit, mathlib
from fleetui.workshop.schedules.frame import Piece, Work, chunks, cut, lanes_of, signature
from fleetui.workshop.schedules.injective import unflat
from fleetui.workshop.schedules.plain import Plain, bound, join, number
from fleetui.workshop.schedules.rules import Context
from fleetui.workshop.schedules.scalar import compute_dtype

Expr = Any
Stmt = Any

Step = Callable[[Expr], tuple[list[Stmt], Expr]]

WAYS = 4
"""Vectors a row is walked with, so that additions need not wait for one another."""
SHORT = 8
"""Rows shorter than this are left to plain loops."""
TASK = 4096
"""Elements one iteration of the parallel loop should read, at least."""
JOIN = {"sum": "add", "mean": "add", "prod": "mul", "max": "maximum", "min": "minimum"}


def takes(group: Group, context: Context) -> bool:
    node = group.anchor
    if node.op != "reduce" or node.output.size == 0 or node.input(0).size == 0:
        return False
    x = node.input(0)
    if x.dtype == "bool" or (node.attrs["kind"] == "mean" and "float" not in x.dtype):
        return False
    axes = [a for a in node.attrs["axes"] if x.shape[a] != 1]
    if not axes or any(context.strides(v)[-1] != 1 for v in _lying(group) if v.rank and v.shape[-1] != 1):
        return False
    inner = _inner(x, axes)
    return inner >= SHORT if axes[-1] == _last(x) else inner >= 4


def _lying(group: Group) -> list[Value]:
    """What is read in the shape of the anchor's input."""
    shape = group.anchor.input(0).shape
    return [v for v in group.inputs if v.shape == shape]


def _last(x: Value) -> int:
    """The innermost axis of more than one element."""
    return max((i for i, d in enumerate(x.shape) if d != 1), default=0)


def _inner(x: Value, axes: Sequence[int]) -> int:
    """The length of the innermost run of axes that are all reduced or all kept."""
    last = _last(x)
    size = 1
    for axis in range(last, -1, -1):
        if x.shape[axis] != 1 and (axis in axes) != (last in axes):
            break
        size *= x.shape[axis]
    return size


def lower(group: Group, context: Context) -> list[Kernel]:
    made = _Reduce(group, context)
    body, extent = made.body()
    return [made.p.frame.kernel("reduce " + signature(group), body, Work(extent, group.anchor.input(0).size))]


class _Reduce:
    def __init__(self, group: Group, context: Context) -> None:
        self.p = Plain(group, context)
        node = group.anchor
        self.x = node.input(0)
        self.attrs = node.attrs
        self.kind = node.attrs["kind"]
        self.op = JOIN[self.kind]
        self.dtype = compute_dtype(self.x.dtype)
        self.lanes = lanes_of(context, self.dtype, self.x.dtype)
        self.most = 8 if context.target.registers >= 32 else 4
        self.axes = [a for a in node.attrs["axes"] if self.x.shape[a] != 1]
        self.kept = [a for a in range(self.x.rank) if a not in self.axes and self.x.shape[a] != 1]
        self.count = prod(self.x.shape[a] for a in self.axes)

    def begin(self) -> Expr:
        if self.kind in {"max", "min"}:
            return bound(self.dtype, low=self.kind == "max")
        return number(1 if self.kind == "prod" else 0, self.dtype)

    def join(self, a: Expr, b: Expr) -> Expr:
        return join(self.op, a, b, self.dtype)

    def body(self) -> tuple[Stmt, int]:
        return self._rows() if _last(self.x) in self.axes else self._beside()

    def _index(self, kept: Sequence[Expr], reduced: Sequence[Expr]) -> list[Expr]:
        index: list[Expr] = [emit.integer(0)] * self.x.rank
        for axis, at in zip(self.kept, kept, strict=True):
            index[axis] = at
        for axis, at in zip(self.axes, reduced, strict=True):
            index[axis] = at
        return index

    def _out(self, kept: Sequence[Expr]) -> list[Expr]:
        places = dict(zip(self.kept, kept, strict=True))
        gone = () if self.attrs["keepdims"] else self.attrs["axes"]
        return [places.get(a, emit.integer(0)) for a in range(self.x.rank) if a not in gone]

    def _final(self, total: Expr) -> Expr:
        if self.kind == "mean":
            total = total * number(1 / self.count, self.dtype)
        return mathlib.cast(total, self.x.dtype)

    # ------------------------------------------------------------ the innermost axis is kept

    def _beside(self) -> tuple[Stmt, int]:
        """Merged inner kept axes must be one axis to run a vector along: the last one does."""
        *outer, last = self.kept
        size = self.x.shape[last]
        shape = tuple(self.x.shape[a] for a in outer)
        rows = prod(shape)
        pieces = cut(size, self.lanes, self.most)
        steps = sum(piece.times for piece in pieces)
        share = rows * steps > 1 and size * self.count >= TASK
        if not share:

            def task(at: Expr) -> list[Stmt]:
                return chunks(size, self.lanes, self.most, partial(self._columns, unflat(at, shape)))

            return emit.parallel(rows, task), rows

        def part(at: Expr) -> list[Stmt]:
            from tvm import tirx

            lead = unflat(tirx.floordiv(at, steps), shape)
            which = tirx.floormod(at, steps) if rows > 1 else at
            if len(pieces) == 1:
                return self._columns(lead, which * pieces[0].step + pieces[0].start, pieces[0])
            first = self._columns(lead, which * pieces[0].step, pieces[0])
            second = self._columns(lead, emit.integer(pieces[1].start), pieces[1])
            return [emit.choose(which < pieces[0].times, emit.sequence(first), emit.sequence(second))]

        return emit.parallel(rows * steps, part), rows * steps

    def _columns(self, lead: Sequence[Expr], start: Expr, piece: Piece) -> list[Stmt]:
        total = sum(width for _, width in piece.vectors)
        acc, allocated = emit.local("acc", total, self.dtype)
        slots, at = [], 0
        for offset, width in piece.vectors:
            slots.append((at, offset, width))
            at += width
        begin = self.begin()

        def clear(slot: int, lane: Expr) -> Stmt:
            return emit.store(acc, [lane + slot], begin)

        def grow(slot: int, offset: int, reduced: Sequence[Expr], lane: Expr) -> Stmt:
            here = self.p.read(0, self._index([*lead, start + offset + lane], reduced))
            return emit.store(acc, [lane + slot], self.join(emit.load(acc, lane + slot), here))

        def write(slot: int, offset: int, lane: Expr) -> Stmt:
            return self.p.put(self._out([*lead, start + offset + lane]), self._final(emit.load(acc, lane + slot)))

        def walk(reduced: list[Expr]) -> Stmt:
            return emit.sequence([emit.vector(w, partial(grow, s, o, reduced)) for s, o, w in slots])

        return [
            allocated,
            *(emit.vector(w, partial(clear, s)) for s, _, w in slots),
            self.p.nest([self.x.shape[a] for a in self.axes], walk),
            *(emit.vector(w, partial(write, s, o)) for s, o, w in slots),
        ]

    # ------------------------------------------------------------ the innermost axis is reduced

    def _rows(self) -> tuple[Stmt, int]:
        shape = tuple(self.x.shape[a] for a in self.kept)
        rows = prod(shape)
        each = max(1, min(rows, TASK // max(1, self.count)))
        extent = -(-rows // each)

        def task(at: Expr) -> list[Stmt]:
            if each == 1:
                return self._row(unflat(at, shape))
            count = emit.least(emit.integer(each), rows - at * each)
            return [emit.serial("row", count, lambda r: self._row(unflat(at * each + r, shape)))]

        return emit.parallel(extent, task), extent

    def _row(self, lead: Sequence[Expr]) -> list[Stmt]:
        *outer, last = self.axes
        size = self.x.shape[last]
        row = Row(self.lanes, self.dtype, self.op, self.begin())

        def read(reduced: Sequence[Expr], i: Expr) -> Expr:
            return self.p.read(0, self._index(lead, [*reduced, i]))

        def run(reduced: list[Expr]) -> Stmt:
            return emit.sequence(row.walk(size, partial(read, reduced)))

        walked = self.p.nest([self.x.shape[a] for a in outer], run)
        return [*row.start(), walked, *row.end(), self.p.put(self._out(lead), self._final(row.result()))]


class Row:
    """Accumulators for one row: ``start``, then ``walk`` as often as there are runs, ``end``, ``result``.

    ``op`` is an elementwise operator of two operands, or ``peak``: a maximum that may overlook NaN.
    """

    def __init__(self, lanes: int, dtype: str, op: str, begin: Expr, ways: int = WAYS) -> None:
        self.lanes = lanes
        self.dtype = dtype
        self.op = op
        self.begin = begin
        self.ways = ways
        self.acc, self.allocated = emit.local("acc", lanes * ways, dtype)
        self.total, self.also = emit.local("total", 1, dtype)

    def start(self) -> list[Stmt]:
        def clear(way: int, lane: Expr) -> Stmt:
            return emit.store(self.acc, [lane + way * self.lanes], self.begin)

        return [
            self.allocated,
            self.also,
            *(emit.vector(self.lanes, partial(clear, way)) for way in range(self.ways)),
            emit.store(self.total, [emit.integer(0)], self.begin),
        ]

    def _grow(self, step: Step, at: Expr, slot: int, lane: Expr) -> Stmt:
        made, here = step(at + lane)
        old = emit.load(self.acc, lane + slot)
        return emit.sequence([*made, emit.store(self.acc, [lane + slot], self._join(old, here))])

    def _join(self, a: Expr, b: Expr) -> Expr:
        if self.op == "peak":
            return mathlib.let(b, lambda v: mathlib.select(a > v, a, v))
        return join(self.op, a, b, self.dtype)

    def walk(self, size: int, read: Callable[[Expr], Expr]) -> list[Stmt]:
        return self.walk_with(size, lambda at: ([], read(at)))

    def walk_with(self, size: int, step: Step) -> list[Stmt]:
        """``step(place)`` gives what is to be done there first, and the element."""
        lanes = self.lanes
        made: list[Stmt] = []
        block = lanes * self.ways
        whole, at = size // block, size // block * block

        def turn(v: Expr) -> list[Stmt]:
            starts = [way * lanes for way in range(self.ways)]
            return [emit.vector(lanes, partial(self._grow, step, v * block + slot, slot)) for slot in starts]

        if whole:
            made.append(emit.serial("v", whole, turn))
        for way, (start, width) in enumerate(emit.pieces(size - at, lanes)):
            slot = way % self.ways * lanes
            made.append(emit.vector(width, partial(self._grow, step, emit.integer(at + start), slot)))
        return made

    def end(self) -> list[Stmt]:
        """All accumulators into one number, halving the width each time."""

        def fold(half: int, lane: Expr) -> Stmt:
            both = self._join(emit.load(self.acc, lane), emit.load(self.acc, lane + half))
            return emit.store(self.acc, [lane], both)

        made, width = [], self.lanes * self.ways
        while width > 1:
            width //= 2
            if width >= self.lanes:
                steps = range(0, width, self.lanes)
                made += [emit.vector(self.lanes, partial(self._fold_at, step, width)) for step in steps]
            else:
                made.append(emit.vector(width, partial(fold, width)))
        made.append(emit.store(self.total, [emit.integer(0)], emit.load(self.acc, emit.integer(0))))
        return made

    def _fold_at(self, step: int, width: int, lane: Expr) -> Stmt:
        low, high = emit.load(self.acc, lane + step), emit.load(self.acc, lane + (step + width))
        return emit.store(self.acc, [lane + step], self._join(low, high))

    def result(self) -> Expr:
        return emit.load(self.total, emit.integer(0))
