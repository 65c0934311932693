"""Every operator in plain loops: an element at a time, in the words of its definition.

This is what a group gets that no faster module takes: rare operators, rare dtypes, odd shapes. One kernel a group,
the elements of the output (or the rows that are put in order) spread over the parallel loop; the chain behind the
anchor and the one before it are computed where they are needed. Nothing here is made to be fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from fleetui.workshop.graph.ir import Node, Shape, Value
from fleetui.workshop.kernel import Arg, Group, Kernel
from fleetui.workshop.schedules import emit, mathlib
from fleetui.workshop.schedules.epilogue import Epilogue, broadcast_index, immediate, parameter_index
from fleetui.workshop.schedules.frame import Frame, Work, place, signature
from fleetui.workshop.schedules.injective import unflat
from fleetui.workshop.schedules.rules import Context
from fleetui.workshop.schedules.scalar import compute_dtype, scalar

Expr = Any
Stmt = Any
Index = list[Any]


def lower(group: Group, context: Context) -> list[Kernel]:
    if group.anchor.op == "extern":
        return [_extern(group, context)]
    if all(out.size == 0 for out in group.outputs):
        return []
    plain = Plain(group, context)
    body, extent = OPERATORS[group.anchor.op](plain)
    work = Work(extent, _operations(group))
    return [plain.frame.kernel("plain " + signature(group), body, work)]


def takes(group: Group) -> bool:
    return group.anchor.op in OPERATORS or group.anchor.op == "extern"


def _operations(group: Group) -> int:
    from fleetui.workshop.graph.ops import flops

    node = group.anchor
    return flops(node.op, node.inputs, [(v.shape, v.dtype) for v in node.outputs], node.attrs)


def _extern(group: Group, context: Context) -> Kernel:
    node = group.anchor
    func = node.attrs["build"](context.target)
    args = [Arg(v) for v in node.inputs if v is not None] + [Arg(v) for v in node.outputs]
    first = len(args) - len(node.outputs)
    strides = {i: context.strides(arg.buffer) for i, arg in enumerate(args) if isinstance(arg.buffer, Value)}
    key = f"extern {node.source or node.output.name} {id(node)}"
    return Kernel(key, func, args, list(range(first, len(args))), flops=int(node.attrs["flops"]), strides=strides)


class Plain:
    """What the operators below have in common: reading, writing, loops."""

    def __init__(self, group: Group, context: Context) -> None:
        self.node: Node = group.anchor
        self.attrs = group.anchor.attrs
        self.frame = Frame(context)
        self.single = len(group.anchor.outputs) == 1
        self.epilogue = Epilogue(group) if self.single else None
        self.made = {out: node for node in group.nodes for out in node.outputs if node is not group.anchor}
        self.shape = group.anchor.outputs[0].shape
        self.count = 0

    # ------------------------------------------------------------ elements

    def read(self, position: int, index: Sequence[Expr | int]) -> Expr:
        """An element of an input, in the dtype it is computed in."""
        value = self.node.input(position)
        return mathlib.cast(self.value(value, index), compute_dtype(value.dtype))

    def raw(self, position: int, index: Sequence[Expr | int]) -> Expr:
        """The same, in its own dtype."""
        return self.value(self.node.input(position), index)

    def value(self, value: Value, index: Sequence[Expr | int]) -> Expr:
        """Through the nodes that were fused before the anchor."""
        node = self.made.get(value)
        if node is None:
            return self.frame.load(value, index)
        if node.op == "transpose":
            source: Index = [None] * len(index)
            for at, axis in zip(index, node.attrs["perm"], strict=True):
                source[axis] = at
            return self.value(node.input(0), source)
        if node.op == "slice":
            starts, steps = node.attrs["starts"], node.attrs["steps"]
            return self.value(
                node.input(0), [at * step + start for at, start, step in zip(index, starts, steps, strict=True)]
            )
        if node.op == "interp":
            return self._mixed(node, index)
        args = []
        present = [(position, v) for position, v in enumerate(node.inputs) if v is not None]
        for position, operand in present:
            number = immediate(operand)
            if number is not None:
                args.append(number)
                continue
            place = parameter_index(node, position, index)
            args.append(self.value(operand, broadcast_index(operand.shape, index) if place is None else place))
        return scalar(node.op, args, node.attrs, [v.dtype for _, v in present], node.output.dtype)

    def _mixed(self, node: Node, index: Sequence[Expr | int]) -> Expr:
        """An element of an axis resized before the anchor: its taps, one by one."""
        axis, x = node.attrs["axis"], node.input(0)
        dtype = compute_dtype(x.dtype)
        total: Expr | None = None
        for tap in range(node.input(1).shape[1]):
            entry = [index[axis], emit.integer(tap)]
            at = self.frame.load(node.input(1), entry)
            part = mathlib.cast(self.value(x, [*index[:axis], at, *index[axis + 1 :]]), dtype)
            part = part * mathlib.cast(self.frame.load(node.input(2), entry), dtype)
            total = part if total is None else total + part
        return mathlib.cast(total if total is not None else number(0, dtype), x.dtype)

    def put(self, index: Sequence[Expr | int], value: Expr, output: int = 0) -> Stmt:
        """Write an element of the anchor's output, by way of the chain behind it."""
        if self.epilogue is None:
            out = self.node.outputs[output]
            return self.frame.store(out, index, mathlib.cast(value, out.dtype))
        final = self.epilogue.apply(value, list(index), self.frame.extra)
        return self.frame.store(self.epilogue.out, index, final)

    # ------------------------------------------------------------ loops

    def each(self, shape: Shape, body: Callable[[Index], Stmt | list[Stmt]]) -> tuple[Stmt, int]:
        """Every index of a shape: the leading axes in parallel, the last one in a loop."""
        if not shape:
            return emit.parallel(1, lambda _at: body([])), 1
        *outer, inner = shape
        extent = max(1, prod(outer))

        def task(at: Expr) -> Stmt:
            lead = unflat(at, tuple(outer)) if outer else []
            return emit.serial(self.name("i"), inner, lambda i: body([*lead, i]))

        return emit.parallel(extent, task), extent

    def rows(self, axis: int, body: Callable[[Callable[[Expr], Index]], list[Stmt]]) -> tuple[Stmt, int]:
        """Every row along an axis, in parallel; ``body`` gets what makes an index from a place in the row."""
        shape = self.node.input(0).shape
        outer = tuple(d for i, d in enumerate(shape) if i != axis)
        extent = max(1, prod(outer))

        def task(at: Expr) -> list[Stmt]:
            lead = unflat(at, outer)
            return body(lambda t: [*lead[:axis], t, *lead[axis:]])

        return emit.parallel(extent, task), extent

    def nest(self, extents: Sequence[int], body: Callable[[Index], Stmt | list[Stmt]]) -> Stmt:
        """Loops one in the other."""

        def level(index: Index) -> Stmt:
            if len(index) == len(extents):
                made = body(index)
                return emit.sequence(made) if isinstance(made, list) else made
            return emit.serial(self.name("k"), extents[len(index)], lambda i: level([*index, i]))

        return level([])

    def cell(self, dtype: str, start: Expr) -> tuple[Any, list[Stmt]]:
        """A variable in memory, and what makes and sets it."""
        made, allocated = emit.local(self.name("a"), 1, dtype)
        return made, [allocated, emit.store(made, [emit.integer(0)], start)]

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"


def get(cell: Any) -> Expr:
    return emit.load(cell, emit.integer(0))


def put(cell: Any, value: Expr) -> Stmt:
    return emit.store(cell, [emit.integer(0)], value)


def number(value: float, dtype: str) -> Expr:
    """A constant of any dtype, infinities and the ends of 64 bits included."""
    if "float" in dtype:
        if np.isinf(value):
            top = mathlib.infinity(dtype)
            return top if value > 0 else mathlib.const(-1.0, dtype) * top
        return mathlib.const(float(value), dtype)
    if dtype == "uint64" and value >= 2**63:
        return mathlib.cast(mathlib.const(int(value) - 2**64, "int64"), "uint64")
    return mathlib.const(bool(value) if dtype == "bool" else int(value), dtype)


def bound(dtype: str, *, low: bool) -> Expr:
    from fleetui.workshop.graph.primitives.common import highest, lowest

    return number(lowest(dtype) if low else highest(dtype), dtype)


def join(op: str, a: Expr, b: Expr, dtype: str, attrs: dict[str, Any] | None = None) -> Expr:
    return scalar(op, [a, b], attrs or {}, [dtype, dtype], dtype)


def settled(at: Expr, length: int) -> Expr:
    """An index as int32: negative ones count from the end, what is outside goes to the nearest end."""
    wide = mathlib.cast(at, "int64")
    moved = mathlib.select(wide < number(0, "int64"), wide + number(length, "int64"), wide)
    low = emit.most(moved, number(0, "int64"))
    return mathlib.cast(emit.least(low, number(max(0, length - 1), "int64")), "int32")


def inside(at: Expr, length: int) -> Expr:
    return mathlib.both(at >= 0, at < length)


# ------------------------------------------------------------ reductions


def _reduce(p: Plain) -> tuple[Stmt, int]:
    x, kind = p.node.input(0), p.attrs["kind"]
    axes, keep = tuple(p.attrs["axes"]), p.attrs["keepdims"]
    dtype = compute_dtype(x.dtype)
    count = prod(x.shape[a] for a in axes)
    if dtype == "bool":
        dtype = "int8"
    total = dtype
    if kind == "mean" and "float" not in dtype:
        total = "uint64" if dtype.startswith("uint") else "int64"
    begin = {
        "sum": number(0, total), "mean": number(0, total), "prod": number(1, total),
        "max": bound(dtype, low=True), "min": bound(dtype, low=False),
    }[kind]  # fmt: skip
    op = {"sum": "add", "mean": "add", "prod": "mul", "max": "maximum", "min": "minimum"}[kind]

    def element(index: Index) -> list[Stmt]:
        acc, made = p.cell(total, begin)

        def step(inner: Index) -> Stmt:
            at, left, gone = [], list(index), list(inner)
            for axis in range(x.rank):
                if axis in axes:
                    at.append(gone.pop(0))
                    if keep:
                        left.pop(0)
                else:
                    at.append(left.pop(0))
            return put(acc, join(op, get(acc), mathlib.cast(p.read(0, at), total), total))

        made.append(p.nest([x.shape[a] for a in axes], step))
        result = get(acc)
        if kind == "mean":
            if "float" in total:
                result = result / number(count, total)
            else:
                result = join("div", result, number(count, total), total) if count else number(0, total)
        return [*made, p.put(index, mathlib.cast(result, x.dtype))]

    return p.each(p.shape, element)


def _arg(p: Plain) -> tuple[Stmt, int]:
    x, axis = p.node.input(0), p.attrs["axis"]
    dtype = compute_dtype(x.dtype)
    above = p.node.op == "argmax"

    def row(at: Callable[[Expr], Index]) -> list[Stmt]:
        first = emit.integer(0)
        best, made = p.cell("int8" if dtype == "bool" else dtype, _ordered(p.read(0, at(first))))
        place, more = p.cell("int32", first)

        def step(t: Expr) -> Stmt:
            here, held = _ordered(p.read(0, at(t))), get(best)
            better = mathlib.either(_before(here, held, above), _after_last(p, here, held))
            return emit.choose(better, emit.sequence([put(best, here), put(place, t)]))

        loop = emit.serial(p.name("t"), x.shape[axis], step)
        index = at(emit.integer(0))
        if not p.attrs["keepdims"]:
            index = index[:axis] + index[axis + 1 :]
        return [*made, *more, loop, p.put(index, mathlib.cast(get(place), "int64"))]

    return p.rows(axis, row)


def _after_last(p: Plain, here: Expr, held: Expr) -> Expr:
    """With ``last``, an equal one further on is better."""
    return _same(here, held) if p.attrs["last"] else mathlib.const(0, "bool")


def _ordered(value: Expr) -> Expr:
    """Something that can be compared: booleans are numbers."""
    return mathlib.cast(value, "int8") if mathlib.dtype_of(value) == "bool" else value


def _is_nan(value: Expr) -> Expr:
    dtype = mathlib.dtype_of(value)
    return scalar("isnan", [value], {}, [dtype], "bool") if "float" in dtype else mathlib.const(0, "bool")


def _equal(a: Expr, b: Expr) -> Expr:
    from tvm import tirx

    return tirx.EQ(a, b)


def _before(a: Expr, b: Expr, descending: bool) -> Expr:
    """Whether ``a`` is the better one of two. Not-a-number wins, whether the greatest or the least is wanted."""
    compare = a > b if descending else a < b
    return mathlib.either(compare, mathlib.both(_is_nan(a), _not(_is_nan(b))))


def _not(condition: Expr) -> Expr:
    from tvm import tirx

    return tirx.Not(condition)


def _same(a: Expr, b: Expr) -> Expr:
    return mathlib.either(_equal(a, b), mathlib.both(_is_nan(a), _is_nan(b)))


def is_sorted_before(a: Expr, b: Expr, descending: bool) -> Expr:
    """In a sorted row: not-a-number is above everything, so first when descending and last when ascending."""
    if descending:
        return _before(a, b, descending=True)
    return mathlib.either(a < b, mathlib.both(_not(_is_nan(a)), _is_nan(b)))


def _ranked(p: Plain) -> tuple[Stmt, int]:
    """Top-k and sort: the first, then the best of what comes after it, and so on."""
    x, axis = p.node.input(0), p.attrs["axis"]
    descending = p.attrs["largest"] if p.node.op == "topk" else p.attrs["descending"]
    count = p.attrs["k"] if p.node.op == "topk" else x.shape[axis]
    dtype = compute_dtype(x.dtype)
    dtype = "int8" if dtype == "bool" else dtype

    def row(at: Callable[[Expr], Index]) -> list[Stmt]:
        zero = number(0, dtype)
        last, made = p.cell(dtype, zero)
        last_at, more = p.cell("int32", emit.integer(-1))
        best, third = p.cell(dtype, zero)
        best_at, fourth = p.cell("int32", emit.integer(-1))

        def turn(j: Expr) -> list[Stmt]:
            def step(t: Expr) -> Stmt:
                here = _ordered(p.read(0, at(t)))
                later = mathlib.either(
                    is_sorted_before(get(last), here, descending),
                    mathlib.both(_same(get(last), here), t > get(last_at)),
                )
                free = mathlib.either(get(last_at) < 0, later)
                wins = mathlib.either(get(best_at) < 0, is_sorted_before(here, get(best), descending))
                return emit.choose(mathlib.both(free, wins), emit.sequence([put(best, here), put(best_at, t)]))

            return [
                put(best_at, emit.integer(-1)),
                emit.serial(p.name("t"), x.shape[axis], step),
                put(last, get(best)),
                put(last_at, get(best_at)),
                p.put(at(j), get(best)),
                p.put(at(j), get(best_at), 1),
            ]

        return [*made, *more, *third, *fourth, emit.serial(p.name("j"), count, turn)]

    return p.rows(axis, row)


def _running(p: Plain) -> tuple[Stmt, int]:
    x, axis = p.node.input(0), p.attrs["axis"]
    dtype = compute_dtype(x.dtype)
    op, begin = ("add", 0) if p.node.op == "cumsum" else ("mul", 1)
    length = x.shape[axis]

    def row(at: Callable[[Expr], Index]) -> list[Stmt]:
        acc, made = p.cell(dtype, number(begin, dtype))

        def step(t: Expr) -> list[Stmt]:
            index = at(length - 1 - t if p.attrs["reverse"] else t)
            grow = put(acc, join(op, get(acc), p.read(0, index), dtype))
            write = p.put(index, mathlib.cast(get(acc), x.dtype))
            return [write, grow] if p.attrs["exclusive"] else [grow, write]

        return [*made, emit.serial(p.name("t"), length, step)]

    return p.rows(axis, row)


def _softmax(p: Plain) -> tuple[Stmt, int]:
    x, axis = p.node.input(0), p.attrs["axis"]
    dtype, length = compute_dtype(x.dtype), p.node.input(0).shape[p.attrs["axis"]]

    def row(at: Callable[[Expr], Index]) -> list[Stmt]:
        top, made = p.cell(dtype, bound(dtype, low=True))
        total, more = p.cell(dtype, number(0, dtype))

        def raised(t: Expr) -> Expr:
            return scalar("exp", [p.read(0, at(t)) - get(top)], {}, [dtype], dtype)

        loops = [
            emit.serial(
                p.name("t"), length, lambda t: put(top, join("maximum", get(top), p.read(0, at(t)), dtype))
            ),
            emit.serial(p.name("t"), length, lambda t: put(total, get(total) + raised(t))),
        ]
        if p.node.op == "softmax":
            last = emit.serial(
                p.name("t"), length, lambda t: p.put(at(t), mathlib.cast(raised(t) / get(total), x.dtype))
            )
            return [*made, *more, *loops, last]
        loops.append(put(total, scalar("log", [get(total)], {}, [dtype], dtype)))
        last = emit.serial(
            p.name("t"),
            length,
            lambda t: p.put(at(t), mathlib.cast(p.read(0, at(t)) - get(top) - get(total), x.dtype)),
        )
        return [*made, *more, *loops, last]

    return p.rows(axis, row)


def _hardmax(p: Plain) -> tuple[Stmt, int]:
    x, axis = p.node.input(0), p.attrs["axis"]
    dtype = compute_dtype(x.dtype)

    def row(at: Callable[[Expr], Index]) -> list[Stmt]:
        best, made = p.cell(dtype, p.read(0, at(emit.integer(0))))
        place, more = p.cell("int32", emit.integer(0))

        def step(t: Expr) -> Stmt:
            here = p.read(0, at(t))
            return emit.choose(
                _before(here, get(best), descending=True), emit.sequence([put(best, here), put(place, t)])
            )

        def write(t: Expr) -> Stmt:
            return p.put(at(t), number(0, dtype) + mathlib.cast(_equal(t, get(place)), dtype))

        length = x.shape[axis]
        return [*made, *more, emit.serial(p.name("t"), length, step), emit.serial(p.name("t"), length, write)]

    return p.rows(axis, row)


def _norm(p: Plain) -> tuple[Stmt, int]:
    x, axis = p.node.input(0), p.attrs["axis"]
    dtype = compute_dtype(x.dtype)
    outer, inner = x.shape[:axis], x.shape[axis:]
    count = number(prod(inner), dtype)
    layer = p.node.op == "layer_norm"

    def task(flat: Expr) -> list[Stmt]:
        lead = unflat(flat, outer)
        mean, made = p.cell(dtype, number(0, dtype))
        spread, more = p.cell(dtype, number(0, dtype))

        def moved(index: Index) -> Expr:
            here = p.read(0, [*lead, *index])
            return here - get(mean) if layer else here

        steps = [*made, *more]
        if layer:
            steps.append(p.nest(inner, lambda i: put(mean, get(mean) + p.read(0, [*lead, *i]))))
            steps.append(put(mean, get(mean) / count))
        steps.append(p.nest(inner, lambda i: put(spread, get(spread) + moved(i) * moved(i))))
        root = scalar("sqrt", [get(spread) / count + number(p.attrs["eps"], dtype)], {}, [dtype], dtype)
        steps.append(put(spread, root))

        def write(index: Index) -> Stmt:
            result = moved(index) / get(spread)
            if p.node.optional(1) is not None:
                result = result * p.read(1, index)
            if p.node.optional(2) is not None:
                result = result + p.read(2, index)
            return p.put([*lead, *index], mathlib.cast(result, x.dtype))

        return [*steps, p.nest(inner, write)]

    extent = max(1, prod(outer))
    return emit.parallel(extent, task), extent


def _lrn(p: Plain) -> tuple[Stmt, int]:
    x, window = p.node.input(0), p.attrs["size"]
    dtype, channels = compute_dtype(x.dtype), x.shape[-1]
    before = (window - 1) // 2

    def element(index: Index) -> list[Stmt]:
        acc, made = p.cell(dtype, number(0, dtype))
        *lead, c = index

        def step(t: Expr) -> Stmt:
            at = c + t - before
            here = p.read(0, [*lead, at])
            return emit.choose(inside(at, channels), put(acc, get(acc) + here * here))

        made.append(emit.serial(p.name("t"), window, step))
        base = number(p.attrs["bias"], dtype) + number(p.attrs["alpha"] / window, dtype) * get(acc)
        power = scalar("pow", [base, number(p.attrs["beta"], dtype)], {}, [dtype, dtype], dtype)
        return [*made, p.put(index, mathlib.cast(p.read(0, index) / power, x.dtype))]

    return p.each(p.shape, element)


# ------------------------------------------------------------ windows


def _taps(p: Plain, index: Index, body: Callable[[Index, Expr, Expr], Stmt]) -> Stmt:
    """Every tap of a window: ``body(place in x, whether it lies inside, whether inside the padded image)``."""
    x = p.node.input(0)
    n, *spatial, c = index

    def step(taps: Index) -> Stmt:
        at = [n]
        real: list[Expr] = []
        padded: list[Expr] = []
        for axis, (o, t) in enumerate(zip(spatial, taps, strict=True)):
            before, after = p.attrs["pads"][axis]
            place = o * p.attrs["strides"][axis] + t * p.attrs["dilations"][axis] - before
            at.append(place)
            real.append(inside(place, x.shape[1 + axis]))
            padded.append(place < x.shape[1 + axis] + after)
        return body([*at, c], mathlib.both(*real), mathlib.both(*padded))

    return p.nest(p.attrs["kernel"], step)


def _pool(p: Plain) -> tuple[Stmt, int]:
    x, kind = p.node.input(0), p.attrs["kind"]
    dtype = compute_dtype(x.dtype)

    def element(index: Index) -> list[Stmt]:
        acc, made = p.cell(dtype, bound(dtype, low=True) if kind == "max" else number(0, dtype))
        count, more = p.cell("int32", emit.integer(0))

        def tap(at: Index, real: Expr, padded: Expr) -> Stmt:
            here = p.read(0, at)
            if kind == "max":
                return emit.choose(real, put(acc, join("maximum", get(acc), here, dtype)))
            if kind == "l2":
                here = here * here
            elif kind == "lp":
                here = _power(scalar("abs", [here], {}, [dtype], dtype), p.attrs.get("p", 2), dtype)
            grow = emit.choose(real, put(acc, get(acc) + here))
            if kind != "avg":
                return grow
            counts = padded if p.attrs["count_include_pad"] else real
            return emit.sequence([grow, emit.choose(counts, put(count, get(count) + 1))])

        steps = [*made, *more, _taps(p, index, tap)]
        result = get(acc)
        if kind == "avg":
            result = result / mathlib.cast(emit.most(get(count), emit.integer(1)), dtype)
        elif kind == "l2":
            result = scalar("sqrt", [result], {}, [dtype], dtype)
        elif kind == "lp":
            result = _power(result, 1 / p.attrs.get("p", 2), dtype)
        return [*steps, p.put(index, mathlib.cast(result, x.dtype))]

    return p.each(p.shape, element)


def _power(base: Expr, exponent: float, dtype: str) -> Expr:
    return scalar("pow", [base, number(exponent, dtype)], {}, [dtype, dtype], dtype)


def _pool_indices(p: Plain) -> tuple[Stmt, int]:
    x = p.node.input(0)
    dtype, spatial = compute_dtype(x.dtype), x.shape[1:-1]
    steps, step = [0] * len(spatial), 1
    for axis in range(len(spatial)) if p.attrs["storage_order"] else reversed(range(len(spatial))):
        steps[axis], step = step, step * spatial[axis]

    def element(index: Index) -> list[Stmt]:
        best, made = p.cell(dtype, bound(dtype, low=True))
        place, more = p.cell("int32", emit.integer(-1))

        def tap(at: Index, real: Expr, _padded: Expr) -> Stmt:
            here = p.read(0, at)
            flat = (index[0] * x.shape[-1] + index[-1]) * step
            for a, s in zip(at[1:-1], steps, strict=True):
                flat = flat + a * s
            better = mathlib.either(get(place) < 0, _before(here, get(best), descending=True))
            return emit.choose(real, emit.choose(better, emit.sequence([put(best, here), put(place, flat)])))

        return [
            *made, *more, _taps(p, index, tap), p.put(index, mathlib.cast(get(best), x.dtype)),
            p.put(index, mathlib.cast(get(place), "int64"), 1),
        ]  # fmt: skip

    return p.each(p.shape, element)


def _unpool(p: Plain) -> tuple[Stmt, int]:
    x, out = p.node.input(0), p.node.output
    size = out.size
    channels_first = (out.shape[0], out.shape[-1], *out.shape[1:-1])

    def clear(index: Index) -> Stmt:
        return p.put(index, number(0, compute_dtype(x.dtype)))

    def write(index: Index) -> Stmt:
        at = p.raw(1, index)
        n, c, *rest = unflat(mathlib.cast(at, "int32"), channels_first)
        fits = mathlib.both(at >= number(0, "int64"), at < number(size, "int64"))
        return emit.choose(fits, p.put([n, *rest, c], p.raw(0, index)))

    return emit.parallel(1, lambda _t: [p.nest(out.shape, clear), p.nest(x.shape, write)]), 1


def _interp(p: Plain) -> tuple[Stmt, int]:
    x, axis = p.node.input(0), p.attrs["axis"]
    dtype, taps = compute_dtype(x.dtype), p.node.input(1).shape[1]

    def element(index: Index) -> list[Stmt]:
        acc, made = p.cell(dtype, number(0, dtype))

        def step(t: Expr) -> Stmt:
            where = p.raw(1, [index[axis], t])
            weight = mathlib.cast(p.raw(2, [index[axis], t]), dtype)
            return put(acc, get(acc) + p.read(0, [*index[:axis], where, *index[axis + 1 :]]) * weight)

        return [*made, emit.serial(p.name("t"), taps, step), p.put(index, mathlib.cast(get(acc), x.dtype))]

    return p.each(p.shape, element)


# ------------------------------------------------------------ moved data


def _folded(at: Expr, length: int, mode: str) -> Expr:
    """A place that may lie outside, as the place inside that is read for it."""
    from tvm import tirx

    if mode == "edge":
        return emit.least(emit.most(at, emit.integer(0)), emit.integer(length - 1))
    if mode == "wrap":
        return tirx.floormod(at, length)
    if mode == "reflect":
        if length == 1:
            return emit.integer(0)
        period = 2 * (length - 1)
        turned = tirx.floormod(at, period)
        return emit.least(turned, period - turned)
    return at


def padded(node: Node, index: Sequence[Expr]) -> tuple[Index, list[Expr]]:
    """Where a padded tensor's element comes from, and (for constant padding) what makes it a real one.

    The index may stop before the last axis.
    """
    shape, mode = node.input(0).shape, node.attrs["mode"]
    source: Index = []
    real: list[Expr] = []
    for i, d, b, a in zip(index, shape, node.attrs["before"], node.attrs["after"], strict=False):
        at = i - b if b else i
        source.append(_folded(at, d, mode) if b or a else i)
        if (b or a) and mode == "constant":
            real.append(inside(at, d))
    return source, real


def fill(node: Node) -> Expr:
    """What a constant padding is made of, in the dtype it is computed in."""
    value, dtype = node.attrs.get("value", 0), compute_dtype(node.input(0).dtype)
    if "float" in dtype and value != value:  # noqa: PLR0124 - not a number
        return mathlib.nan(dtype)
    return number(value, dtype)


def _pad(p: Plain) -> tuple[Stmt, int]:
    def element(index: Index) -> Stmt:
        if p.node.input(0).size == 0:
            return p.put(index, fill(p.node))
        source, real = padded(p.node, index)
        straight = p.put(index, p.raw(0, source))
        return emit.choose(mathlib.both(*real), straight, p.put(index, fill(p.node))) if real else straight

    return p.each(p.shape, element)


def _gather(p: Plain) -> tuple[Stmt, int]:
    axis, rank = p.attrs["axis"], p.node.input(1).rank
    length = p.node.input(0).shape[axis]

    def element(index: Index) -> Stmt:
        at = settled(p.raw(1, index[axis : axis + rank]), length)
        return p.put(index, p.raw(0, [*index[:axis], at, *index[axis + rank :]]))

    return p.each(p.shape, element)


def _gather_elements(p: Plain) -> tuple[Stmt, int]:
    axis = p.attrs["axis"]
    length = p.node.input(0).shape[axis]

    def element(index: Index) -> Stmt:
        at = settled(p.raw(1, index), length)
        return p.put(index, p.raw(0, [*index[:axis], at, *index[axis + 1 :]]))

    return p.each(p.shape, element)


def _gather_nd(p: Plain) -> tuple[Stmt, int]:
    data, indices, batch = p.node.input(0), p.node.input(1), p.attrs["batch_dims"]
    depth, lead = indices.shape[-1], indices.rank - 1

    def element(index: Index) -> Stmt:
        at = [settled(p.raw(1, [*index[:lead], i]), data.shape[batch + i]) for i in range(depth)]
        return p.put(index, p.raw(0, [*index[:batch], *at, *index[lead:]]))

    return p.each(p.shape, element)


def _one_hot(p: Plain) -> tuple[Stmt, int]:
    axis, depth, dtype = p.attrs["axis"], p.attrs["depth"], compute_dtype(p.attrs["dtype"])

    def element(index: Index) -> Stmt:
        at = mathlib.cast(p.raw(0, [*index[:axis], *index[axis + 1 :]]), "int64")
        at = mathlib.select(at < number(0, "int64"), at + number(depth, "int64"), at)
        hot = _equal(at, mathlib.cast(index[axis], "int64"))
        return p.put(index, mathlib.select(hot, number(p.attrs["on"], dtype), number(p.attrs["off"], dtype)))

    return p.each(p.shape, element)


def _tile(p: Plain) -> tuple[Stmt, int]:
    from tvm import tirx

    x = p.node.input(0)
    missing = len(p.shape) - x.rank

    def element(index: Index) -> Stmt:
        return p.put(index, p.raw(0, [tirx.floormod(i, d) for i, d in zip(index[missing:], x.shape, strict=True)]))

    return p.each(p.shape, element)


def _scatter(p: Plain) -> tuple[Stmt, int]:
    """Copied, then written to one after the other: of two updates of one place the later holds."""
    data, indices, updates = (p.node.input(i) for i in range(3))
    reduction, out = p.attrs["reduction"], p.node.output
    dtype = compute_dtype(data.dtype)
    nd = p.node.op == "scatter_nd"
    depth = indices.shape[-1] if nd else 0

    def copy(index: Index) -> Stmt:
        return p.frame.store(out, index, p.raw(0, index))

    def update(index: Index) -> Stmt:
        lead = indices.rank - 1
        raw = [p.raw(1, [*index[:lead], i]) for i in range(depth)] if nd else [p.raw(1, index)]
        axes = list(range(depth)) if nd else [p.attrs["axis"]]
        at: Index = [None] * depth + index[lead:] if nd else list(index)
        fits = []
        for axis, found in zip(axes, raw, strict=True):
            wide, length = mathlib.cast(found, "int64"), number(data.shape[axis], "int64")
            moved = mathlib.select(wide < number(0, "int64"), wide + length, wide)
            fits.append(mathlib.both(moved >= number(0, "int64"), moved < length))
            at[axis] = mathlib.cast(moved, "int32")
        new = p.raw(2, index)
        if reduction != "none":
            op = {"add": "add", "mul": "mul", "max": "maximum", "min": "minimum"}[reduction]
            old = emit.load(p.frame.writes(out), place(at, p.frame.context.strides(out)))
            old = mathlib.cast(mathlib.doubled(old) if data.dtype == "bfloat16" else old, dtype)
            new = mathlib.cast(join(op, old, mathlib.cast(new, dtype), dtype), data.dtype)
        store = p.frame.store(out, at, new)
        return emit.choose(mathlib.both(*fits), store) if fits else store

    body = [p.nest(data.shape, copy), p.nest(updates.shape, update)]
    return emit.parallel(1, lambda _t: body), 1


# ------------------------------------------------------------ contractions


def _sum_of_products(
    p: Plain, extents: Sequence[int], product: Callable[[Index, str], Expr], bias: Callable[[], Expr] | None
) -> tuple[list[Stmt], Expr]:
    out = p.node.output
    dtype = compute_dtype(out.dtype)
    acc, made = p.cell(dtype, number(0, dtype))
    made.append(p.nest(extents, lambda k: put(acc, get(acc) + product(k, dtype))))
    total = get(acc)
    if bias is not None:
        total = total + mathlib.cast(bias(), dtype)
    return made, mathlib.cast(total, out.dtype)


def _matmul(p: Plain) -> tuple[Stmt, int]:
    a, b = p.node.input(0), p.node.input(1)
    turn_a, turn_b = bool(p.attrs.get("transpose_a")), bool(p.attrs.get("transpose_b"))
    length = a.shape[-2] if turn_a else a.shape[-1]

    def element(index: Index) -> list[Stmt]:
        *lead, n, m = index

        def product(k: Index, dtype: str) -> Expr:
            at_a = [*broadcast_index(a.shape[:-2], lead), *([k[0], n] if turn_a else [n, k[0]])]
            at_b = [*broadcast_index(b.shape[:-2], lead), *([m, k[0]] if turn_b else [k[0], m])]
            return mathlib.cast(p.read(0, at_a), dtype) * mathlib.cast(p.read(1, at_b), dtype)

        made, total = _sum_of_products(p, [length], product, None)
        return [*made, p.put(index, total)]

    return p.each(p.shape, element)


def _dense(p: Plain) -> tuple[Stmt, int]:
    def element(index: Index) -> list[Stmt]:
        def product(k: Index, dtype: str) -> Expr:
            x, w = p.read(0, [*index[:-1], k[0]]), p.read(1, [k[0], index[-1]])
            return mathlib.cast(x, dtype) * mathlib.cast(w, dtype)

        bias = (lambda: p.read(2, [index[-1]])) if p.node.optional(2) is not None else None
        made, total = _sum_of_products(p, [p.node.input(1).shape[0]], product, bias)
        return [*made, p.put(index, total)]

    return p.each(p.shape, element)


def _conv(p: Plain) -> tuple[Stmt, int]:
    from tvm import tirx

    x, w, groups = p.node.input(0), p.node.input(1), p.attrs["groups"]
    channels, each = x.shape[-1] // groups, w.shape[-1] // groups
    turned = p.node.op == "conv_transpose"
    if turned:
        each = w.shape[-1]

    def element(index: Index) -> list[Stmt]:
        n, *spatial, m = index
        group = tirx.floordiv(m, each) if groups > 1 else emit.integer(0)

        def product(k: Index, dtype: str) -> Expr:
            *taps, c = k
            at, fits = [], []
            for axis, (o, t) in enumerate(zip(spatial, taps, strict=True)):
                stride, dilation = p.attrs["strides"][axis], p.attrs["dilations"][axis]
                before, length = p.attrs["pads"][axis][0], x.shape[1 + axis]
                if turned:
                    reach = o + before - t * dilation
                    place = tirx.floordiv(reach, stride)
                    fits.append(_equal(tirx.floormod(reach, stride), emit.integer(0)))
                else:
                    place = o * stride + t * dilation - before
                fits.append(inside(place, length))
                at.append(emit.least(emit.most(place, emit.integer(0)), emit.integer(length - 1)))
            source = group * channels + c
            weight = [*taps, source, m - group * each] if turned else [*taps, c, m]
            here = mathlib.cast(p.read(0, [n, *at, source]), dtype) * mathlib.cast(p.read(1, weight), dtype)
            return mathlib.select(mathlib.both(*fits), here, number(0, dtype))

        bias = (lambda: p.read(2, [m])) if p.node.optional(2) is not None else None
        made, total = _sum_of_products(p, [*w.shape[:-2], channels], product, bias)
        return [*made, p.put(index, total)]

    return p.each(p.shape, element)


def _attention(p: Plain) -> tuple[Stmt, int]:
    q, k, v = (p.node.input(i) for i in range(3))
    mask, dtype = p.node.optional(3), compute_dtype(p.node.input(0).dtype)
    times, depth, length = q.shape[1] // k.shape[1], q.shape[3], k.shape[2]
    low = bound(dtype, low=True)

    def task(flat: Expr) -> list[Stmt]:
        from tvm import tirx

        b, h, t = unflat(flat, q.shape[:3])
        source = tirx.floordiv(h, times) if times > 1 else h
        dot, made = p.cell(dtype, number(0, dtype))
        top, second = p.cell(dtype, low)
        total, third = p.cell(dtype, number(0, dtype))
        acc, fourth = p.cell(dtype, number(0, dtype))

        def score(u: Expr) -> list[Stmt]:
            steps = [
                put(dot, number(0, dtype)),
                emit.serial(
                    p.name("d"),
                    depth,
                    lambda d: put(dot, get(dot) + p.read(0, [b, h, t, d]) * p.read(1, [b, source, u, d])),
                ),
            ]
            value = get(dot) * number(p.attrs["scale"], dtype)
            if p.attrs["softcap"]:
                cap = number(p.attrs["softcap"], dtype)
                value = cap * scalar("tanh", [value / cap], {}, [dtype], dtype)
            if mask is not None:
                found = p.raw(3, broadcast_index(mask.shape, [b, h, t, u]))
                if mask.dtype == "bool":
                    value = mathlib.select(found, value, low)
                else:
                    value = value + mathlib.cast(found, dtype)
            if p.attrs["causal"]:
                value = mathlib.select(u <= t, value, low)
            return [*steps, put(dot, value)]

        def weight() -> Expr:
            return scalar("exp", [get(dot) - get(top)], {}, [dtype], dtype)

        def peak(u: Expr) -> list[Stmt]:
            return [*score(u), put(top, join("maximum", get(top), get(dot), dtype))]

        def share(u: Expr) -> list[Stmt]:
            return [*score(u), put(total, get(total) + weight())]

        def column(e: Expr) -> list[Stmt]:
            def part(u: Expr) -> list[Stmt]:
                return [*score(u), put(acc, get(acc) + weight() * p.read(2, [b, source, u, e]))]

            something = get(top) > low
            result = mathlib.select(something, get(acc) / get(total), number(0, dtype))
            return [
                put(acc, number(0, dtype)),
                emit.choose(something, emit.serial(p.name("u"), length, part)),
                p.put([b, h, t, e], mathlib.cast(result, q.dtype)),
            ]

        return [
            *made, *second, *third, *fourth,
            emit.serial(p.name("u"), length, peak),
            emit.serial(p.name("u"), length, share),
            emit.serial(p.name("e"), v.shape[3], column),
        ]  # fmt: skip

    extent = max(1, prod(q.shape[:3]))
    return emit.parallel(extent, task), extent


OPERATORS: dict[str, Callable[[Plain], tuple[Stmt, int]]] = {
    "reduce": _reduce, "argmax": _arg, "argmin": _arg, "topk": _ranked, "sort": _ranked, "cumsum": _running,
    "cumprod": _running, "softmax": _softmax, "log_softmax": _softmax, "hardmax": _hardmax, "layer_norm": _norm,
    "rms_norm": _norm, "lrn": _lrn, "pool": _pool, "pool_indices": _pool_indices, "unpool": _unpool,
    "interp": _interp, "pad": _pad, "gather": _gather, "gather_elements": _gather_elements,
    "gather_nd": _gather_nd, "one_hot": _one_hot, "tile": _tile, "scatter_elements": _scatter,
    "scatter_nd": _scatter, "matmul": _matmul, "dense": _dense, "conv": _conv, "conv_transpose": _conv,
    "attention": _attention,
}  # fmt: skip
