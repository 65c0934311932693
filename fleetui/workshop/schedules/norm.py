"""Softmax, layer and RMS norm, local response norm: a row at a time, in vectors.

A row of moderate length is kept in a local array between its passes, in float32 whatever it is stored in; the
chain before the anchor is computed once, on the way in, the chain behind it on the way out. Softmax along another
axis than the innermost runs vectors beside each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

from fleetui.workshop.kernel import Group, Kernel
from fleetui.workshop.schedules import emit, mathlib
from fleetui.workshop.schedules.frame import Work, cut, lanes_of, signature, span
from fleetui.workshop.schedules.injective import unflat
from fleetui.workshop.schedules.plain import Plain, bound, join, number
from fleetui.workshop.schedules.reduction import TASK, Row
from fleetui.workshop.schedules.rules import Context
from fleetui.workshop.schedules.scalar import compute_dtype, scalar

Expr = Any
Stmt = Any

Source = Callable[[Expr], Expr]

LONGEST = 4096
"""Elements of a row that is kept in a local array; longer ones are read, and computed, once for every pass."""
NORMS = frozenset({"softmax", "log_softmax", "layer_norm", "rms_norm", "lrn"})


def takes(group: Group, context: Context) -> bool:
    node = group.anchor
    if node.op not in NORMS or node.output.size == 0:
        return False
    x, out = node.input(0), group.outputs[0]
    if compute_dtype(x.dtype) != "float32" or any(context.strides(v)[-1] != 1 for v in (x, out) if v.rank):
        return False
    if node.op in {"softmax", "log_softmax"} and node.attrs["axis"] != x.rank - 1:
        inner = prod(x.shape[node.attrs["axis"] + 1 :])
        return x.shape[-1] >= 4 and x.shape[node.attrs["axis"]] * 16 <= LONGEST and inner >= 4
    return _length(group) >= 4 and (node.op != "lrn" or _length(group) <= LONGEST)


def _length(group: Group) -> int:
    node = group.anchor
    shape = node.input(0).shape
    if node.op in {"layer_norm", "rms_norm"}:
        return prod(shape[node.attrs["axis"] :])
    return shape[-1]


def lower(group: Group, context: Context) -> list[Kernel]:
    made = _Norm(group, context)
    body, extent = made.body()
    return [
        made.p.frame.kernel(
            f"{group.anchor.op} {signature(group)}", body, Work(extent, group.anchor.output.size * 20)
        )
    ]


class _Norm:
    def __init__(self, group: Group, context: Context) -> None:
        self.p = Plain(group, context)
        self.node = group.anchor
        self.attrs = group.anchor.attrs
        self.x = group.anchor.input(0)
        self.lanes = lanes_of(context, "float32", self.x.dtype)
        self.length = _length(group)
        first = self.attrs["axis"] if self.node.op in {"layer_norm", "rms_norm"} else self.x.rank - 1
        self.outer, self.inner = self.x.shape[:first], self.x.shape[first:]

    def body(self) -> tuple[Stmt, int]:
        if self.node.op in {"softmax", "log_softmax"} and self.attrs["axis"] != self.x.rank - 1:
            return self._beside()
        row = {
            "softmax": self._softmax, "log_softmax": self._softmax, "layer_norm": self._layer,
            "rms_norm": self._layer, "lrn": self._lrn,
        }[self.node.op]  # fmt: skip
        rows = prod(self.outer)
        each = max(1, min(rows, TASK // self.length))
        extent = -(-rows // each)

        def task(at: Expr) -> list[Stmt]:
            if each == 1:
                return row(unflat(at, self.outer))
            count = emit.least(emit.integer(each), rows - at * each)
            return [emit.serial("row", count, lambda r: row(unflat(at * each + r, self.outer)))]

        return emit.parallel(extent, task), extent

    # ------------------------------------------------------------ the row between its passes

    def _padded(self) -> int:
        return -(-self.length // self.lanes) * self.lanes

    def _read(self, lead: Sequence[Expr], at: Expr) -> Expr:
        return self.p.read(0, [*lead, *unflat(at, self.inner)])

    def _keep(self, lead: Sequence[Expr]) -> tuple[Source, list[Stmt]]:
        """How to read the row: from a local array that it is copied to, or if it is long from where it lies."""
        if self.length > LONGEST:
            return partial(self._read, lead), []
        kept, allocated = emit.local("kept", self.length, "float32")

        def copy(at: Expr) -> Stmt:
            return emit.store(kept, [at], self._read(lead, at))

        return partial(emit.load, kept), [allocated, *span(self.length, self._width(), copy)]

    def _fill(self, kept: Any, start: int, fill: Expr, lane: Expr) -> Stmt:
        return emit.store(kept, [lane + start], fill)

    def _width(self) -> int:
        """Vectors must not cross an axis where several make the row."""
        return (
            self.lanes if len([d for d in self.inner if d != 1]) <= 1 else _power_of_two(self.inner[-1], self.lanes)
        )

    def _write(self, lead: Sequence[Expr], value: Callable[[Expr], Expr]) -> list[Stmt]:
        def one(at: Expr) -> Stmt:
            result = mathlib.cast(value(at), self.x.dtype)
            return self.p.put([*lead, *unflat(at, self.inner)], result)

        return span(self.length, self._width(), one)

    # ------------------------------------------------------------ softmax

    def _softmax(self, lead: Sequence[Expr]) -> list[Stmt]:
        """Not-a-number need not be seen in the first pass: it spoils the sum of the second."""
        size = self._padded()
        ways = min(4, max(1, size // self.lanes))
        ways = 1 << (ways.bit_length() - 1)
        low = bound("float32", low=True)
        top = Row(self.lanes, "float32", "peak", low, ways)
        total = Row(self.lanes, "float32", "add", number(0, "float32"), ways)
        kept, allocated = emit.local("kept", min(size, LONGEST), "float32")
        short = self.length <= LONGEST
        # a chain in front is computed once; a plain row is read again, for it is in the cache
        chained = short and bool(self.p.made.get(self.x))
        read = partial(self._read, lead)
        source: Source = partial(emit.load, kept) if chained else read

        def keep(at: Expr) -> tuple[list[Stmt], Expr]:
            return [emit.store(kept, [at], read(at))], emit.load(kept, at)

        def raised(at: Expr) -> Expr:
            return mathlib.exp_negative(source(at) - top.result())

        def raise_(at: Expr) -> tuple[list[Stmt], Expr]:
            return [emit.store(kept, [at], raised(at))], emit.load(kept, at)

        made = [allocated] if short else []
        made += [*top.start(), *(top.walk_with(self.length, keep) if chained else top.walk(self.length, read))]
        made += [*top.end(), *total.start()]
        if self.node.op == "softmax":
            made += total.walk_with(self.length, raise_) if short else total.walk(self.length, raised)
            factor, more = self._number(number(1, "float32") / total.result())
            final: Source = partial(emit.load, kept) if short else raised
            return [*made, *total.end(), *more, *self._write(lead, lambda at: final(at) * factor)]
        made += [*total.walk(self.length, raised), *total.end()]
        shift, more = self._number(top.result() + mathlib.log(total.result()))
        return [*made, *more, *self._write(lead, lambda at: source(at) - shift)]

    def _number(self, value: Expr) -> tuple[Expr, list[Stmt]]:
        place, made = self.p.cell("float32", value)
        return emit.load(place, emit.integer(0)), made

    def _beside(self) -> tuple[Stmt, int]:
        """Along another axis: a vector of neighbours goes through it together."""
        axis, shape = self.attrs["axis"], self.x.shape
        outer = shape[:axis] + shape[axis + 1 : -1]
        extent = prod(outer)
        length = shape[axis]

        def task(at: Expr) -> list[Stmt]:
            lead = unflat(at, outer)

            def index(t: Expr, last: Expr) -> list[Expr]:
                return [*lead[:axis], t, *lead[axis:], last]

            made: list[Stmt] = []
            for piece in cut(shape[-1], self.lanes, 1):
                for offset, width in piece.vectors:
                    made.append(
                        emit.serial(
                            "q",
                            piece.times,
                            partial(self._column, length, index, piece.start + offset, piece.step, width),
                        )
                    )
            return made

        return emit.parallel(extent, task), extent

    def _column(
        self, length: int, index: Callable[[Expr, Expr], list[Expr]], start: int, step: int, width: int, q: Expr
    ) -> list[Stmt]:
        kept, allocated = emit.local("kept", length * width, "float32")
        top, second = emit.local("top", width, "float32")
        total, third = emit.local("total", width, "float32")
        low, zero = bound("float32", low=True), number(0, "float32")

        def last(lane: Expr) -> Expr:
            return lane + (q * step + start)

        def each(body: Callable[[Expr, Expr], Stmt | list[Stmt]]) -> Stmt:
            return emit.serial("t", length, lambda t: emit.vector(width, lambda lane: body(t, lane)))

        def peak(t: Expr, lane: Expr) -> list[Stmt]:
            here = self.p.read(0, index(t, last(lane)))
            keep = emit.store(kept, [t * width + lane], here)
            more = join("maximum", emit.load(top, lane), emit.load(kept, t * width + lane), "float32")
            return [keep, emit.store(top, [lane], more)]

        def raise_(t: Expr, lane: Expr) -> list[Stmt]:
            place = t * width + lane
            value = mathlib.exp_negative(emit.load(kept, place) - emit.load(top, lane))
            if self.node.op == "log_softmax":
                return [emit.store(total, [lane], emit.load(total, lane) + value)]
            grow = emit.store(total, [lane], emit.load(total, lane) + emit.load(kept, place))
            return [emit.store(kept, [place], value), grow]

        def write(t: Expr, lane: Expr) -> Stmt:
            here, by = emit.load(kept, t * width + lane), emit.load(total, lane)
            value = here * by if self.node.op == "softmax" else here - by
            return self.p.put(index(t, last(lane)), mathlib.cast(value, self.x.dtype))

        def settle(lane: Expr) -> Stmt:
            by = emit.load(total, lane)
            value = (
                number(1, "float32") / by if self.node.op == "softmax" else emit.load(top, lane) + mathlib.log(by)
            )
            return emit.store(total, [lane], value)

        return [
            allocated, second, third,
            emit.vector(width, lambda lane: [emit.store(top, [lane], low), emit.store(total, [lane], zero)]),
            each(peak), each(raise_), emit.vector(width, settle), each(write),
        ]  # fmt: skip

    # ------------------------------------------------------------ layer and RMS norm

    def _layer(self, lead: Sequence[Expr]) -> list[Stmt]:
        """Mean, then spread about it, then the result: three passes over what lies in the first cache."""
        layer = self.node.op == "layer_norm"
        size, zero = number(1 / self.length, "float32"), number(0, "float32")
        source, made = self._keep(lead)
        mean: Expr = zero
        if layer:
            sums = Row(self.lanes, "float32", "add", zero)
            made += [*sums.start(), *sums.walk(self.length, source), *sums.end()]
            mean, more = self._number(sums.result() * size)
            made += more

        def moved(at: Expr) -> Expr:
            return source(at) - mean if layer else source(at)

        squares = Row(self.lanes, "float32", "add", zero)
        made += squares.start()
        made += squares.walk(self.length, lambda at: mathlib.let(moved(at), lambda v: v * v))
        made += squares.end()
        spread = squares.result() * size + number(self.attrs["eps"], "float32")
        factor, more = self._number(scalar("rsqrt", [spread], {}, ["float32"], "float32"))

        def value(at: Expr) -> Expr:
            result = moved(at) * factor
            index = unflat(at, self.inner)
            if self.node.optional(1) is not None:
                result = result * self.p.read(1, index)
            if self.node.optional(2) is not None:
                result = result + self.p.read(2, index)
            return result

        return [*made, *more, *self._write(lead, value)]

    # ------------------------------------------------------------ local response norm

    def _lrn(self, lead: Sequence[Expr]) -> list[Stmt]:
        """Squares with zeros on both sides, summed by loads that are one off each other."""
        window = self.attrs["size"]
        before = (window - 1) // 2
        zero = number(0, "float32")
        squares, allocated = emit.local("squares", before + self._padded() + window, "float32")

        def square(at: Expr) -> Stmt:
            here = self.p.read(0, [*lead, at])
            return emit.store(squares, [at + before], mathlib.let(here, lambda v: v * v))

        made = [allocated]
        for start, size in ((0, before), (before + self.length, self._padded() - self.length + window)):
            for offset, width in emit.pieces(size, self.lanes):
                made.append(emit.vector(width, partial(self._fill, squares, start + offset, zero)))
        made += span(self.length, self.lanes, square)

        def value(at: Expr) -> Expr:
            total = emit.load(squares, at)
            for tap in range(1, window):
                total = total + emit.load(squares, at + tap)
            base = number(self.attrs["bias"], "float32") + number(self.attrs["alpha"] / window, "float32") * total
            return mathlib.let(base, lambda b: self.p.read(0, [*lead, at]) * _power_below(b, self.attrs["beta"]))

        return [*made, *self._write(lead, value)]


def _power_below(base: Expr, beta: float) -> Expr:
    """base^-beta; the exponents that are in use through square roots."""
    from tvm import tirx

    one = number(1, "float32")
    if beta == 0.75:
        return mathlib.let(tirx.sqrt(base), lambda root: one / (root * tirx.sqrt(root)))
    if beta == 0.5:
        return one / tirx.sqrt(base)
    if beta == 1.0:
        return one / base
    return scalar("pow", [base, number(-beta, "float32")], {}, ["float32", "float32"], "float32")


def _power_of_two(size: int, most: int) -> int:
    """The greatest power of two that divides ``size``, at most ``most``."""
    return min(most, size & -size)
