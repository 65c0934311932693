"""StableHLO's operators that move data, cut it and put it together."""

from __future__ import annotations

from typing import Any

import numpy as np

from fleetui.workshop.errors import ShapeError
from fleetui.workshop.frontends.stablehlo.importer import Importer, ints, on
from fleetui.workshop.frontends.stablehlo.reader import type_of
from fleetui.workshop.graph.ir import Value


def _spread(c: Importer, x: Value, shape: list[int], dims: list[int]) -> Value:
    lined = [1] * len(shape)
    for size, at in zip(x.shape, dims, strict=True):
        lined[at] = size
    if sorted(dims) != dims:
        x = c.e.transpose(x, [dims.index(d) for d in sorted(dims)])
    return c.e.expand(c.e.reshape(x, lined), shape)


@on("broadcast_in_dim")
def _broadcast(c: Importer, op: Any) -> Value:
    return _spread(c, c.arg(op, 0), list(type_of(op.results[0].type)[0]), ints(op, "broadcast_dimensions"))


@on("dynamic_broadcast_in_dim")
def _dynamic_broadcast(c: Importer, op: Any) -> Value:
    return _spread(c, c.arg(op, 0), [int(d) for d in c.array(op, 1)], ints(op, "broadcast_dimensions"))


@on("reshape")
def _reshape(c: Importer, op: Any) -> Value:
    return c.e.reshape(c.arg(op, 0), type_of(op.results[0].type)[0])


@on("dynamic_reshape")
def _dynamic_reshape(c: Importer, op: Any) -> Value:
    return c.e.reshape(c.arg(op, 0), [int(d) for d in c.array(op, 1)])


@on("get_dimension_size")
def _dimension(c: Importer, op: Any) -> Value:
    return c.b.constant(np.array(c.arg(op, 0).shape[int(op.attributes["dimension"].value)], np.int32), "size")


@on("transpose")
def _transpose(c: Importer, op: Any) -> Value:
    return c.e.transpose(c.arg(op, 0), ints(op, "permutation"))


@on("concatenate")
def _concatenate(c: Importer, op: Any) -> Value:
    return c.e.concat(c.args(op), int(op.attributes["dimension"].value))


@on("reverse")
def _reverse(c: Importer, op: Any) -> Value:
    return c.e.flip(c.arg(op, 0), ints(op, "dimensions"))


@on("iota")
def _iota(c: Importer, op: Any) -> Value:
    return _counted(c, list(type_of(op.results[0].type)[0]), op)


@on("dynamic_iota")
def _dynamic_iota(c: Importer, op: Any) -> Value:
    return _counted(c, [int(d) for d in c.array(op, 0)], op)


def _counted(c: Importer, shape: list[int], op: Any) -> Value:
    axis = int(op.attributes["iota_dimension"].value)
    lined = [1] * len(shape)
    lined[axis] = shape[axis]
    row = c.b.constant(np.arange(shape[axis]).astype(c.dtype(op)).reshape(lined), "iota")
    return c.e.expand(row, shape)


@on("slice")
def _slice(c: Importer, op: Any) -> Value:
    return _cut(c, c.arg(op, 0), ints(op, "start_indices"), ints(op, "limit_indices"), ints(op, "strides"))


@on("real_dynamic_slice")
def _real_dynamic_slice(c: Importer, op: Any) -> Value:
    starts, stops, steps = ([int(v) for v in c.array(op, i)] for i in (1, 2, 3))
    return _cut(c, c.arg(op, 0), starts, stops, steps)


def _cut(c: Importer, x: Value, starts: list[int], stops: list[int], steps: list[int]) -> Value:
    if starts == [0] * x.rank and tuple(stops) == x.shape and steps == [1] * x.rank:
        return x
    return c.b.op("slice", x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


@on("pad")
def _pad(c: Importer, op: Any) -> Value:
    return _padded(c, op, ints(op, "edge_padding_low"), ints(op, "edge_padding_high"), ints(op, "interior_padding"))


@on("dynamic_pad")
def _dynamic_pad(c: Importer, op: Any) -> Value:
    low, high, inner = ([int(v) for v in c.array(op, i)] for i in (2, 3, 4))
    return _padded(c, op, low, high, inner)


def _padded(c: Importer, op: Any, low: list[int], high: list[int], inner: list[int]) -> Value:
    x, value = c.arg(op, 0), c.array(op, 1).reshape(())
    for axis, gap in enumerate(inner):
        if gap and x.shape[axis] > 1:
            x = spaced(c, x, axis, gap, float(value))
    plain: Any = bool(value) if x.dtype == "bool" else value.item() if hasattr(value, "item") else value
    return c.e.pad(x, list(zip(low, high, strict=True)), "constant", plain)


def spaced(c: Importer, x: Value, axis: int, gap: int, value: float) -> Value:
    """``gap`` elements between neighbours along an axis."""
    size = x.shape[axis]
    wide = c.e.unsqueeze(x, axis + 1)
    pads = [(0, 0)] * wide.rank
    pads[axis + 1] = (0, gap)
    wide = c.e.pad(wide, pads, "constant", value)
    shape = [*x.shape[:axis], size * (gap + 1), *x.shape[axis + 1 :]]
    return c.e.slice(c.e.reshape(wide, shape), axis, 0, size * (gap + 1) - gap)


# ---------------------------------------------------------------- at a computed place


def clamped(c: Importer, start: Value, limit: int) -> Value:
    """A start index brought into range, as int32."""
    return c.b.op("clip", c.e.cast(start, "int32"), low=0, high=max(0, limit))


@on("dynamic_slice")
def _dynamic_slice(c: Importer, op: Any) -> Value:
    x, sizes = c.arg(op, 0), ints(op, "slice_sizes")
    for axis, size in enumerate(sizes):
        if size == x.shape[axis]:
            continue
        if size > x.shape[axis]:
            raise ShapeError(f"at {c.b.source}: a slice of {size} from an axis of {x.shape[axis]}")
        start = clamped(c, c.arg(op, 1 + axis), x.shape[axis] - size)
        if start.data is not None:
            first = int(start.data.reshape(()))
            x = c.e.slice(x, axis, first, first + size)
        else:
            steps = c.b.constant(np.arange(size, dtype=np.int32), "steps")
            x = c.b.op("gather", x, c.b.op("add", steps, start), axis=axis)
    return x


@on("dynamic_update_slice")
def _dynamic_update_slice(c: Importer, op: Any) -> Value:
    x, part = c.arg(op, 0), c.arg(op, 1)
    starts = [clamped(c, c.arg(op, 2 + i), x.shape[i] - part.shape[i]) for i in range(x.rank)]
    if all(s.data is not None for s in starts):
        return _placed(c, x, part, [int(s.data.reshape(())) for s in starts if s.data is not None])
    inside: Value | None = None
    for axis, start in enumerate(starts):
        size = x.shape[axis]
        if part.shape[axis] == size:
            continue
        place = c.b.op("sub", c.b.constant(np.arange(size, dtype=np.int32), "steps"), start)
        hit = c.b.op("logical_and", c.e.by("greater_equal", place, 0), c.e.by("less", place, part.shape[axis]))
        index = c.b.op("clip", place, low=0, high=part.shape[axis] - 1)
        part = c.b.op("gather", part, index, axis=axis)
        hit = c.e.reshape(hit, [size if i == axis else 1 for i in range(x.rank)])
        inside = hit if inside is None else c.b.op("logical_and", inside, hit)
    return part if inside is None else c.b.op("where", inside, part, x)


def _placed(c: Importer, x: Value, part: Value, starts: list[int]) -> Value:
    """Built up from the last axis: at each, what is before, the part, what is after."""
    sizes = part.shape
    for axis in reversed(range(x.rank)):
        row = x
        for outer in range(axis):
            row = c.e.slice(row, outer, starts[outer], starts[outer] + sizes[outer])
        end = starts[axis] + sizes[axis]
        pieces = [c.e.slice(row, axis, 0, starts[axis]), part, c.e.slice(row, axis, end, x.shape[axis])]
        part = c.e.concat([p for p in pieces if p.shape[axis]], axis)
    return part
