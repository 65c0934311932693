"""Putting things in order: the best k by insertion, whole rows by merging.

The k best so far stand sorted in the outputs themselves; an element that beats the last of them is moved up to its
place. Long rows are merged, runs of doubled length each time, between the outputs and scratch of the worker's own.
Both are stable: of equal ones the earlier stays the earlier. Not-a-number is above everything.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from fleetui.workshop.graph.ir import Value
from fleetui.workshop.kernel import Group, Kernel, Temporary
from fleetui.workshop.schedules import emit, mathlib
from fleetui.workshop.schedules.frame import Frame, Work, place, signature
from fleetui.workshop.schedules.injective import unflat
from fleetui.workshop.schedules.plain import get, is_sorted_before, put
from fleetui.workshop.schedules.rules import Context

Expr = Any
Stmt = Any
Reach = Callable[[Expr], Expr]

INSERTED = 64
"""So many are put in order by insertion alone."""


def takes(group: Group, context: Context) -> bool:  # noqa: ARG001 - as all families are asked
    node = group.anchor
    if node.op not in {"topk", "sort"} or node.outputs[0].size == 0:
        return False
    return node.input(0).dtype not in {"bool", "float16", "bfloat16"} and len(group.nodes) == 1


def lower(group: Group, context: Context) -> list[Kernel]:
    made = _Order(group, context)
    body = made.body()
    work = Work(made.extent, 8 * made.count * made.length * made.extent)
    return [made.frame.kernel("order " + signature(group), body, work, reads_outputs=True)]


class _Order:
    def __init__(self, group: Group, context: Context) -> None:
        node = group.anchor
        self.frame = Frame(context)
        self.context = context
        self.x = node.input(0)
        self.values, self.places = node.outputs
        self.axis = node.attrs["axis"]
        self.length = self.x.shape[self.axis]
        self.count = node.attrs["k"] if node.op == "topk" else self.length
        self.descending = node.attrs["largest" if node.op == "topk" else "descending"]
        self.outer = tuple(d for i, d in enumerate(self.x.shape) if i != self.axis)
        self.extent = max(1, prod(self.outer))

    def body(self) -> Stmt:
        few = self.count <= INSERTED or self.count * 4 < self.length
        row = self._inserted if few else self._merged

        def task(at: Expr) -> list[Stmt]:
            lead = unflat(at, self.outer)
            return row(self._reach(self.x, lead), self._reach(self.values, lead), self._reach(self.places, lead))

        return emit.parallel(self.extent, task)

    def _reach(self, value: Value, lead: list[Expr]) -> Reach:
        """Where the row's element t lies in the value's buffer."""
        strides = self.context.strides(value)

        def at(t: Expr) -> Expr:
            return place([*lead[: self.axis], t, *lead[self.axis :]], strides)

        return at

    def _cell(self, name: str, dtype: str, start: Expr) -> tuple[Any, list[Stmt]]:
        made, allocated = emit.local(name, 1, dtype)
        return made, [allocated, put(made, start)]

    def _before(self, a: Expr, b: Expr) -> Expr:
        return is_sorted_before(a, b, self.descending)

    # ------------------------------------------------------------ the best k

    def _inserted(self, x: Reach, values: Reach, places: Reach) -> list[Stmt]:
        from tvm import tirx

        source, out, found = (
            self.frame.reads(self.x),
            self.frame.writes(self.values),
            self.frame.writes(self.places),
        )
        here, made = self._cell("here", self.x.dtype, emit.load(source, x(emit.integer(0))))
        hole, more = self._cell("hole", "int32", emit.integer(0))

        def step(t: Expr) -> list[Stmt]:
            full = t >= self.count
            last = emit.load(out, values(emit.integer(self.count - 1)))
            wanted = mathlib.either(tirx.Not(full), self._before(get(here), last))

            def above() -> Expr:
                return emit.load(out, values(emit.most(get(hole) - 1, emit.integer(0))))

            shift = [
                emit.store(out, [values(get(hole))], above()),
                emit.store(found, [places(get(hole))], emit.load(found, places(get(hole) - 1))),
                put(hole, get(hole) - 1),
            ]
            moves = tirx.While(mathlib.both(get(hole) > 0, self._before(get(here), above())), emit.sequence(shift))
            insert = [
                put(hole, emit.least(t, emit.integer(self.count - 1))),
                moves,
                emit.store(out, [values(get(hole))], get(here)),
                emit.store(found, [places(get(hole))], mathlib.cast(t, "int64")),
            ]
            return [put(here, emit.load(source, x(t))), emit.choose(wanted, emit.sequence(insert))]

        return [*made, *more, emit.serial("t", self.length, step)]

    # ------------------------------------------------------------ whole rows

    def _merged(self, x: Reach, values: Reach, places: Reach) -> list[Stmt]:
        """Values and places go to and fro; the last round ends in the outputs if there are few enough to keep."""
        size = self.length
        sides = []
        for number in range(2):
            held = self.frame.scratch(Temporary(f"held{number}", (size,), self.x.dtype, per_worker=True), out=True)
            where = self.frame.scratch(Temporary(f"where{number}", (size,), "int32", per_worker=True), out=True)
            sides.append((held, where))
        source, out, found = (
            self.frame.reads(self.x),
            self.frame.writes(self.values),
            self.frame.writes(self.places),
        )

        def fetch(t: Expr) -> list[Stmt]:
            held, where = sides[0]
            return [emit.store(held, [t], emit.load(source, x(t))), emit.store(where, [t], t)]

        made = [emit.serial("t", size, fetch)]
        width, turn = 1, 0
        while width < size:
            made += self._round(sides[turn % 2], sides[1 - turn % 2], width)
            width, turn = 2 * width, turn + 1
        held, where = sides[turn % 2]

        def give(t: Expr) -> list[Stmt]:
            return [
                emit.store(out, [values(t)], emit.load(held, t)),
                emit.store(found, [places(t)], mathlib.cast(emit.load(where, t), "int64")),
            ]

        return [*made, emit.serial("t", self.count, give)]

    def _round(self, source: tuple[Any, Any], target: tuple[Any, Any], width: int) -> list[Stmt]:
        """Pairs of sorted runs of ``width`` become one each."""
        size = self.length
        left, made = self._cell("left", "int32", emit.integer(0))
        right, more = self._cell("right", "int32", emit.integer(0))

        def pair(p: Expr) -> list[Stmt]:
            low = p * (2 * width)
            middle = emit.least(low + width, emit.integer(size))
            high = emit.least(low + 2 * width, emit.integer(size))

            def step(t: Expr) -> Stmt:
                a = emit.load(source[0], emit.least(get(left), emit.integer(size - 1)))
                b = emit.load(source[0], emit.least(get(right), emit.integer(size - 1)))
                second = mathlib.both(get(right) < high, mathlib.either(get(left) >= middle, self._before(b, a)))

                def take(side: Any, value: Expr) -> Stmt:
                    return emit.sequence(
                        [
                            emit.store(target[0], [t], value),
                            emit.store(target[1], [t], emit.load(source[1], get(side))),
                            put(side, get(side) + 1),
                        ]
                    )

                return emit.choose(second, take(right, b), take(left, a))

            return [put(left, low), put(right, middle), emit.serial("t", high - low, step, low)]

        return [*made, *more, emit.serial("p", -(-size // (2 * width)), pair)]
