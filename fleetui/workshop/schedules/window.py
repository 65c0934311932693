"""Pooling, channel-last: vectors run over channels, a window's accumulators stay in registers.

A task is a row of output pixels (or some channels of one, where there are too few rows). Rows and columns whose
windows lie inside the image walk them without a question asked; at the borders the range of taps is cut to what is
real. Windows of other kinds, and pictures whose channels do not lie side by side, are left to ``plain``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

from fleetui.workshop.kernel import Group, Kernel
from fleetui.workshop.schedules import emit, mathlib
from fleetui.workshop.schedules.frame import Piece, Work, chunks, cut, lanes_of, signature
from fleetui.workshop.schedules.injective import unflat
from fleetui.workshop.schedules.plain import Plain, bound, join, number
from fleetui.workshop.schedules.rules import Context
from fleetui.workshop.schedules.scalar import compute_dtype

Expr = Any
Stmt = Any

FEW = 8
"""Columns at a border that are written out one by one."""
ROWS = 16
"""Output rows below which channels are shared out as well."""


def takes(group: Group, context: Context) -> bool:
    node = group.anchor
    if node.op != "pool" or node.attrs["kind"] == "lp" or node.output.size == 0:
        return False
    return (
        all(context.strides(v)[-1] == 1 for v in (node.input(0), group.outputs[0])) and node.output.shape[-1] >= 4
    )


def lower(group: Group, context: Context) -> list[Kernel]:
    pool = _Pool(group, context)
    body, extent = pool.body()
    taps = prod(group.anchor.attrs["kernel"])
    return [pool.p.frame.kernel("pool " + signature(group), body, Work(extent, group.anchor.output.size * taps))]


class _Pool:
    def __init__(self, group: Group, context: Context) -> None:
        self.p = Plain(group, context)
        node = group.anchor
        self.attrs = node.attrs
        self.x = node.input(0)
        self.kind = node.attrs["kind"]
        self.dtype = compute_dtype(self.x.dtype)
        self.rank = self.x.rank - 2
        self.out = node.attrs["out"]
        self.channels = self.x.shape[-1]
        self._padded = bool(node.attrs["count_include_pad"])
        self.lanes = lanes_of(context, self.dtype, self.x.dtype)
        self.most = 8 if context.target.registers >= 32 else 4

    def body(self) -> tuple[Stmt, int]:
        rows = (self.x.shape[0], *self.out[:-1])
        count = prod(rows)
        parts = cut(self.channels, self.lanes, self.most)
        if count >= ROWS or len(parts) + parts[0].times == 2:
            return emit.parallel(count, lambda at: self._row(unflat(at, rows), None)), count
        times = [part.times for part in parts]
        steps = sum(times)

        def task(at: Expr) -> list[Stmt]:
            from tvm import tirx

            lead = unflat(tirx.floordiv(at, steps), rows) if count > 1 else unflat(emit.integer(0), rows)
            which = tirx.floormod(at, steps) if count > 1 else at
            first = self._row(lead, (parts[0], which))
            if len(parts) == 1:
                return first
            last = emit.sequence(self._row(lead, (parts[1], emit.integer(0))))
            return [emit.choose(which < parts[0].times, emit.sequence(first), last)]

        return emit.parallel(count * steps, task), count * steps

    # ------------------------------------------------------------ which taps are real

    def _start(self, axis: int, o: Expr) -> Expr:
        return o * self.attrs["strides"][axis] - self.attrs["pads"][axis][0]

    def _real(self, axis: int, start: Expr, tap: Expr) -> Expr:
        at = start + tap * self.attrs["dilations"][axis]
        return mathlib.both(at >= 0, at < self.x.shape[1 + axis])

    def _counted(self, axis: int, start: Expr) -> Expr:
        """Taps that count for a mean: the real ones, and the padded ones if padding does.

        Added up one by one: the compiler's simplifier gets divisions of ranges wrong.
        """
        total: Expr = emit.integer(0)
        for tap in range(self.attrs["kernel"][axis]):
            at = start + tap * self.attrs["dilations"][axis]
            inside = at < self.x.shape[1 + axis] + (self.attrs["pads"][axis][1] if self._padded else 0)
            real = inside if self._padded else mathlib.both(at >= 0, inside)
            total = total + mathlib.select(real, emit.integer(1), emit.integer(0))
        return total

    def _interior(self, axis: int) -> tuple[int, int]:
        """Outputs whose whole window is real."""
        stride, (before, _) = self.attrs["strides"][axis], self.attrs["pads"][axis]
        reach = (self.attrs["kernel"][axis] - 1) * self.attrs["dilations"][axis]
        first = -(-before // stride)
        last = (self.x.shape[1 + axis] - 1 - reach + before) // stride + 1
        first = min(first, self.out[axis])
        return first, max(first, min(last, self.out[axis]))

    # ------------------------------------------------------------ loops

    def _row(self, lead: list[Expr], part: tuple[Piece, Expr] | None) -> list[Stmt]:
        width = self.out[-1]
        first, last = self._interior(self.rank - 1)
        outer = [(self._interior(axis), o) for axis, o in enumerate(lead[1:])]
        fixed = all(f == 0 and e == self.out[axis] for axis, ((f, e), _) in enumerate(outer))

        def columns(full: bool) -> list[Stmt]:
            made = []
            for low, high, inside in ((0, first, False), (first, last, True), (last, width, False)):
                if high > low:
                    made.append(self._columns(lead, low, high, full and inside, part))
            return made

        if fixed:
            return columns(True)
        whole = mathlib.both(*(mathlib.both(o >= f, o < e) for (f, e), o in outer))
        if any(e <= f for (f, e), _ in outer) or last <= first:
            return [self._columns(lead, 0, width, False, part)]
        border = self._columns(lead, 0, width, False, part)
        return [emit.choose(whole, emit.sequence(columns(True)), border)]

    def _columns(self, lead: list[Expr], low: int, high: int, full: bool, part: tuple[Piece, Expr] | None) -> Stmt:
        def pixel(ox: Expr) -> list[Stmt]:
            index = [*lead, ox]
            if part is not None:
                return self._pixel(index, full, *part)
            return chunks(
                self.channels, self.lanes, self.most, lambda start, piece: self._vectors(index, full, start, piece)
            )

        if not full and high - low <= FEW:
            made: list[Stmt] = []
            for ox in range(low, high):
                made += pixel(emit.integer(ox))
            return emit.sequence(made)
        return emit.serial("ox", high - low, pixel, low)

    def _pixel(self, index: list[Expr], full: bool, piece: Piece, which: Expr) -> list[Stmt]:
        return self._vectors(index, full, which * piece.step + piece.start, piece)

    def _vectors(self, index: list[Expr], full: bool, start: Expr, piece: Piece) -> list[Stmt]:
        """One window for some vectors of channels, from its first tap to the stores."""
        n, *place = index
        total = sum(width for _, width in piece.vectors)
        acc, allocated = emit.local("acc", total, self.dtype)
        slots, at = [], 0
        for offset, width in piece.vectors:
            slots.append((at, offset, width))
            at += width
        begin = bound(self.dtype, low=True) if self.kind == "max" else number(0, self.dtype)
        starts = [self._start(axis, o) for axis, o in enumerate(place)]
        kernel = self.attrs["kernel"]

        def tap(taps: Sequence[Expr]) -> list[Stmt]:
            where = [
                s + t * d if d != 1 else s + t
                for s, t, d in zip(starts, taps, self.attrs["dilations"], strict=True)
            ]
            return [
                emit.vector(width, partial(self._grow, acc, slot, [n, *where, start + offset]))
                for slot, offset, width in slots
            ]

        def level(taps: list[Expr]) -> list[Stmt]:
            axis = len(taps)
            if axis == self.rank:
                return tap(taps)
            if full and prod(kernel) <= 16:
                made: list[Stmt] = []
                for t in range(kernel[axis]):
                    made += level([*taps, emit.integer(t)])
                return made
            if full:
                return [emit.serial(f"k{axis}", kernel[axis], lambda t: level([*taps, t]))]

            def some(t: Expr) -> Stmt:
                return emit.choose(self._real(axis, starts[axis], t), emit.sequence(level([*taps, t])))

            return [emit.serial(f"k{axis}", kernel[axis], some)]

        def clear(slot: int, lane: Expr) -> Stmt:
            return emit.store(acc, [lane + slot], begin)

        def write(slot: int, offset: int, lane: Expr) -> Stmt:
            value = self._finish(emit.load(acc, lane + slot), starts, full)
            return self.p.put([*index, start + offset + lane], value)

        first = [emit.vector(width, partial(clear, slot)) for slot, _, width in slots]
        last = [emit.vector(width, partial(write, slot, offset)) for slot, offset, width in slots]
        return [allocated, *first, *level([]), *last]

    def _grow(self, acc: Any, slot: int, index: list[Expr], lane: Expr) -> Stmt:
        here = self.p.read(0, [*index[:-1], index[-1] + lane])
        old = emit.load(acc, lane + slot)
        if self.kind == "max":
            return emit.store(acc, [lane + slot], join("maximum", old, here, self.dtype))
        if self.kind == "l2":
            return emit.store(acc, [lane + slot], mathlib.let(here, lambda v: old + v * v))
        return emit.store(acc, [lane + slot], old + here)

    def _finish(self, total: Expr, starts: Sequence[Expr], full: bool) -> Expr:
        if self.kind == "l2":
            from tvm import tirx

            total = tirx.sqrt(total)
        elif self.kind == "avg" and full:
            total = total * number(1 / prod(self.attrs["kernel"]), self.dtype)
        elif self.kind == "avg":
            taps: Expr = emit.integer(1)
            for axis, start in enumerate(starts):
                taps = taps * self._counted(axis, start)
            total = total / mathlib.cast(emit.most(taps, emit.integer(1)), self.dtype)
        return mathlib.cast(total, self.x.dtype)
