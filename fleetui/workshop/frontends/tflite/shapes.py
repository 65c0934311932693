"""TFLite's operators that move data, look it up, or make it from nothing."""

from __future__ import annotations

import numpy as np

from fleetui.workshop.errors import ShapeError, UnsupportedError
from fleetui.workshop.frontends.emit import axis_of
from fleetui.workshop.frontends.tflite.importer import Handler, Importer, on
from fleetui.workshop.graph.ir import Value

LARGEST = 1 << 26


@on("RESHAPE")
def _reshape(c: Importer) -> Value:
    x = c.moved(0)
    if c.has(1):
        shape = c.ints(1)
    elif c.op.options is not None and not c.op.options.NewShapeIsNone():
        shape = [int(d) for d in c.op.options.NewShapeAsNumpy()]
    else:
        shape = list(c.out_shape())
    if -1 not in shape and int(np.prod(shape)) != x.size and shape and shape[0] == 1:
        shape[0] = -1  # a batch that was fixed at 1 when the model was converted
    return c.stored(c.e.reshape(x, shape))


@on("SQUEEZE")
def _squeeze(c: Importer) -> Value:
    dims = c.op.opt("SqueezeDimsAsNumpy", 0)
    axes = None if isinstance(dims, int) or len(dims) == 0 else [int(d) for d in dims]
    return c.stored(c.e.squeeze(c.moved(0), axes))


@on("EXPAND_DIMS")
def _expand_dims(c: Importer) -> Value:
    return c.stored(c.e.unsqueeze(c.moved(0), c.ints(1)[0]))


@on("TRANSPOSE")
def _transpose(c: Importer) -> Value:
    x = c.moved(0)
    return c.stored(c.e.transpose(x, [axis_of(d, x.rank) for d in c.ints(1)]))


@on("CONCATENATION")
def _concatenation(c: Importer) -> Value:
    out = c.out_scheme()
    schemes = [c.scheme(i) for i in range(len(c.op.inputs))]
    same = out is None or all(out.same(s) for s in schemes)
    parts = [c.raw(i) if same else c.real(i) for i in range(len(c.op.inputs))]
    joined = c.e.concat(parts, int(c.op.opt("Axis")))
    return c.stored(c.activated(joined, int(c.op.opt("FusedActivationFunction"))))


@on("PACK")
def _pack(c: Importer) -> Value:
    parts = [c.moved(i) for i in range(len(c.op.inputs))]
    axis = axis_of(int(c.op.opt("Axis")), parts[0].rank + 1)
    return c.stored(c.e.concat([c.e.unsqueeze(p, axis) for p in parts], axis))


@on("UNPACK")
def _unpack(c: Importer) -> list[Value]:
    x = c.raw(0)
    axis = axis_of(int(c.op.opt("Axis")), x.rank)
    return [c.e.select(x, axis, i) for i in range(x.shape[axis])]


def _parts(c: Importer, x: Value, axis: int, sizes: list[int]) -> list[Value]:
    at, out = 0, []
    for size in sizes:
        out.append(c.e.slice(x, axis, at, at + size))
        at += size
    return out


@on("SPLIT")
def _split(c: Importer) -> list[Value]:
    x, count = c.raw(1), max(1, int(c.op.opt("NumSplits", 1)))
    axis = axis_of(c.ints(0)[0], x.rank)
    return _parts(c, x, axis, [x.shape[axis] // count] * count)


@on("SPLIT_V")
def _split_v(c: Importer) -> list[Value]:
    x, sizes = c.raw(0), c.ints(1)
    axis = axis_of(c.ints(2)[0], x.rank)
    if -1 in sizes:
        sizes[sizes.index(-1)] = x.shape[axis] - sum(s for s in sizes if s != -1)
    return _parts(c, x, axis, sizes)


@on("SLICE")
def _slice(c: Importer) -> Value:
    x = c.moved(0)
    for axis, (begin, size) in enumerate(zip(c.ints(1), c.ints(2), strict=True)):
        x = c.e.slice(x, axis, begin, x.shape[axis] if size == -1 else begin + size)
    return c.stored(x)


@on("STRIDED_SLICE")
def _strided_slice(c: Importer) -> Value:
    x = c.moved(0)
    begins, ends, steps = c.ints(1), c.ints(2), c.ints(3)
    masks = {n: int(c.op.opt(f"{n}Mask")) for n in ("Begin", "End", "Ellipsis", "NewAxis", "ShrinkAxis")}
    places = list(range(len(begins)))
    starts, stops, strides, shrink, shape_after = [], [], [], [], []
    axis = 0
    for at in places:
        bit = 1 << at
        if masks["Ellipsis"] & bit:
            later = sum(1 for p in places[at + 1 :] if not masks["NewAxis"] & (1 << p))
            for _ in range(x.rank - axis - later):
                starts.append(0)
                stops.append(x.shape[axis])
                strides.append(1)
                shape_after.append(axis)
                axis += 1
            continue
        if masks["NewAxis"] & bit:
            shape_after.append(-1)
            continue
        if axis >= x.rank:
            raise ShapeError(f"at {c.b.source}: a slice with more dimensions than its tensor")
        size, step = x.shape[axis], steps[at]
        if step == 0:
            raise ShapeError(f"at {c.b.source}: a slice in steps of 0")
        if masks["ShrinkAxis"] & bit:
            only = begins[at] % size if size else 0
            starts.append(only)
            stops.append(only + 1)
            strides.append(1)
            shrink.append(axis)
        else:
            begin = None if masks["Begin"] & bit else begins[at]
            end = None if masks["End"] & bit else ends[at]
            low, high, step = slice(begin, end, step).indices(size)
            starts.append(low)
            stops.append(max(low, high) if step > 0 else min(low, high))
            strides.append(step)
        shape_after.append(axis)
        axis += 1
    for rest in range(axis, x.rank):
        starts.append(0)
        stops.append(x.shape[rest])
        strides.append(1)
        shape_after.append(rest)
    y = c.b.op("slice", x, starts=tuple(starts), stops=tuple(stops), steps=tuple(strides))
    shape = [1 if a < 0 else y.shape[a] for a in shape_after if a not in shrink]
    return c.stored(c.e.reshape(y, shape))


@on("PAD", "PADV2")
def _pad(c: Importer) -> Value:
    x = c.moved(0)
    scheme = c.scheme(0)
    if c.has(2):
        value = c.array(2).reshape(-1)[0].item()
    else:
        value = int(scheme.zero[0]) if scheme is not None and x is c.raw(0) else 0
    pads = c.array(1).astype(np.int64).reshape(-1, 2)
    return c.stored(c.e.pad(x, [(int(a), int(b)) for a, b in pads], "constant", value))


@on("MIRROR_PAD")
def _mirror_pad(c: Importer) -> Value:
    x = c.moved(0)
    pads = [(int(a), int(b)) for a, b in c.array(1).astype(np.int64).reshape(-1, 2)]
    if int(c.op.opt("Mode")) == 0:
        return c.stored(c.e.pad(x, pads, "reflect"))
    for axis, (before, after) in enumerate(pads):  # symmetric: the edge is repeated
        index = np.pad(np.arange(x.shape[axis], dtype=np.int32), (before, after), "symmetric")
        if before or after:
            x = c.b.op("gather", x, c.b.constant(index, "mirror"), axis=axis)
    return c.stored(x)


@on("GATHER")
def _gather(c: Importer) -> Value:
    x, index = c.moved(0), c.raw(1)
    axis, batch = int(c.op.opt("Axis")), int(c.op.opt("BatchDims"))
    axis = axis_of(axis, x.rank)
    if batch == 0:
        return c.stored(c.b.op("gather", x, index, axis=axis))
    if axis != batch:
        raise UnsupportedError(
            f"at {c.b.source}: a gather within batches along a later axis is not supported", "Move it"
        )
    return c.stored(c.b.op("gather_nd", x, c.e.unsqueeze(index, index.rank), batch_dims=batch))


@on("GATHER_ND")
def _gather_nd(c: Importer) -> Value:
    return c.stored(c.b.op("gather_nd", c.moved(0), c.raw(1), batch_dims=0))


@on("EMBEDDING_LOOKUP")
def _embedding(c: Importer) -> Value:
    return c.stored(c.b.op("gather", c.real(1), c.raw(0), axis=0))


@on("SCATTER_ND")
def _scatter_nd(c: Importer) -> Value:
    updates = c.real(1)
    empty = c.e.full(c.ints(2), 0, updates.dtype)
    return c.stored(c.b.op("scatter_nd", empty, c.raw(0), updates, reduction="add"))


@on("DYNAMIC_UPDATE_SLICE")
def _update_slice(c: Importer) -> Value:
    x, part = c.raw(0), c.raw(1)
    for axis, begin in reversed(list(enumerate(c.ints(2)))):
        begin = min(max(0, begin), x.shape[axis] - part.shape[axis])  # noqa: PLW2901 - the same number, in range
        rest = x
        for other in range(axis):
            first = min(max(0, c.ints(2)[other]), x.shape[other] - part.shape[other])
            rest = c.e.slice(rest, other, first, first + c.raw(1).shape[other])
        after = begin + part.shape[axis]
        pieces = [c.e.slice(rest, axis, 0, begin), part, c.e.slice(rest, axis, after, x.shape[axis])]
        part = c.e.concat([p for p in pieces if p.shape[axis]], axis)
    return part


@on("TILE")
def _tile(c: Importer) -> Value:
    return c.stored(c.b.op("tile", c.moved(0), repeats=tuple(c.ints(1))))


@on("BROADCAST_TO")
def _broadcast_to(c: Importer) -> Value:
    return c.stored(c.e.expand(c.moved(0), c.ints(1)))


@on("BROADCAST_ARGS")
def _broadcast_args(c: Importer) -> Value:
    return c.b.constant(np.array(np.broadcast_shapes(c.ints(0), c.ints(1)), c.out_dtype()), "shape")


@on("REVERSE_V2")
def _reverse(c: Importer) -> Value:
    return c.stored(c.e.flip(c.moved(0), c.ints(1)))


@on("SHAPE")
def _shape(c: Importer) -> Value:
    return c.b.constant(np.array(c.raw(0).shape, c.out_dtype()), "shape")


@on("RANK")
def _rank(c: Importer) -> Value:
    return c.b.constant(np.array(c.raw(0).rank, "int32"), "rank")


@on("FILL")
def _fill(c: Importer) -> Value:
    return c.stored(c.e.expand(c.real(1), c.ints(0)))


@on("ZEROS_LIKE")
def _zeros_like(c: Importer) -> Value:
    x = c.raw(0)
    return c.e.full(x.shape, 0, x.dtype)


@on("RANGE")
def _range(c: Importer) -> Value:
    start, stop, step = (c.array(i).reshape(-1)[0] for i in range(3))
    if step == 0 or abs(float(stop - start) / float(step)) > LARGEST:
        raise ShapeError(f"at {c.b.source}: a range from {start} to {stop} in steps of {step}")
    return c.b.constant(np.arange(start, stop, step).astype(c.out_dtype()), "range")


@on("ONE_HOT")
def _one_hot(c: Importer) -> Value:
    index = c.raw(0)
    axis = int(c.op.opt("Axis", -1))
    on_value, off_value = (c.array(i).reshape(-1)[0].item() for i in (2, 3))
    return c.b.op(
        "one_hot", index, depth=c.ints(1)[0], axis=axis_of(axis, index.rank + 1), on=on_value, off=off_value,
        dtype=c.out_dtype(),
    )  # fmt: skip


# ---------------------------------------------------------------- space, depth and batch


def _blocks(*, to_space: bool) -> Handler:
    def handler(c: Importer) -> Value:
        x, size = c.moved(0), max(1, int(c.op.opt("BlockSize", 1)))
        n, h, w, d = x.shape
        if to_space:
            y = c.e.reshape(x, [n, h, w, size, size, d // (size * size)])
            out = c.e.reshape(c.e.transpose(y, [0, 1, 3, 2, 4, 5]), [n, h * size, w * size, d // (size * size)])
        else:
            y = c.e.reshape(x, [n, h // size, size, w // size, size, d])
            out = c.e.reshape(c.e.transpose(y, [0, 1, 3, 2, 4, 5]), [n, h // size, w // size, size * size * d])
        return c.stored(out)

    return handler


on("DEPTH_TO_SPACE")(_blocks(to_space=True))
on("SPACE_TO_DEPTH")(_blocks(to_space=False))


@on("SPACE_TO_BATCH_ND")
def _space_to_batch(c: Importer) -> Value:
    x, blocks = c.moved(0), c.ints(1)
    pads = [(int(a), int(b)) for a, b in c.array(2).reshape(-1, 2)]
    scheme = c.scheme(0)
    zero = int(scheme.zero[0]) if scheme is not None and x is c.raw(0) else 0
    count = len(blocks)
    x = c.e.pad(x, [(0, 0), *pads, *[(0, 0)] * (x.rank - 1 - count)], "constant", zero)
    rest = list(x.shape[1 + count :])
    split: list[int] = [x.shape[0]]
    for size, block in zip(x.shape[1:], blocks, strict=False):
        split += [size // block, block]
    y = c.e.reshape(x, [*split, *rest])
    inner = [2 * i + 2 for i in range(count)]
    outer = [2 * i + 1 for i in range(count)]
    tail = list(range(1 + 2 * count, y.rank))
    y = c.e.transpose(y, [*inner, 0, *outer, *tail])
    sizes = [s // b for s, b in zip(x.shape[1:], blocks, strict=False)]
    return c.stored(c.e.reshape(y, [x.shape[0] * int(np.prod(blocks)), *sizes, *rest]))


@on("BATCH_TO_SPACE_ND")
def _batch_to_space(c: Importer) -> Value:
    x, blocks = c.moved(0), c.ints(1)
    crops = [(int(a), int(b)) for a, b in c.array(2).reshape(-1, 2)]
    count = len(blocks)
    batch = x.shape[0] // int(np.prod(blocks))
    rest = list(x.shape[1 + count :])
    y = c.e.reshape(x, [*blocks, batch, *x.shape[1 : 1 + count], *rest])
    order = [count]
    for i in range(count):
        order += [count + 1 + i, i]
    y = c.e.transpose(y, [*order, *range(2 * count + 1, y.rank)])
    y = c.e.reshape(y, [batch, *(s * b for s, b in zip(x.shape[1:], blocks, strict=False)), *rest])
    for axis, (before, after) in enumerate(crops, 1):
        y = c.e.slice(y, axis, before, y.shape[axis] - after)
    return c.stored(y)
