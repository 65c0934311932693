"""Picking and placing by index: gather, scatter, one-hot, compress, reverse, cache updates, unpacking columns."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np

from fleetui.workshop.frontends.onnx.call import Call, Result, operator
from fleetui.workshop.frontends.onnx.operators.shapes import made_up


@operator("Gather")
def gather(c: Call) -> Result:
    x = c.value(0)
    return c.op("gather", x, c.value(1), axis=c.axis(c.integer("axis", 0), x.rank))


@operator("GatherElements")
def gather_elements(c: Call) -> Result:
    x, index = c.value(0), c.value(1)
    axis = c.axis(c.integer("axis", 0), x.rank)
    if index.rank != x.rank:
        c.misfit(f"takes indices of rank {index.rank} into a tensor of rank {x.rank}")
    for other in range(x.rank):
        if other != axis and index.shape[other] < x.shape[other]:
            x = c.cut(x, other, 0, index.shape[other])
    return c.op("gather_elements", x, index, axis=axis)


@operator("GatherND")
def gather_nd(c: Call) -> Result:
    return c.op("gather_nd", c.value(0), c.value(1), batch_dims=c.integer("batch_dims", 0))


@operator("ScatterElements", "Scatter")
def scatter_elements(c: Call) -> Result:
    x = c.value(0)
    return c.op(
        "scatter_elements",
        x,
        c.value(1),
        c.value(2),
        axis=c.axis(c.integer("axis", 0), x.rank),
        reduction=c.text("reduction", "none"),
    )


@operator("ScatterND")
def scatter_nd(c: Call) -> Result:
    return c.op("scatter_nd", c.value(0), c.value(1), c.value(2), reduction=c.text("reduction", "none"))


@operator("TensorScatter")
def tensor_scatter(c: Call) -> Result:
    """Rows written into a cache, from a place of its own in each sample of the batch."""
    past, update, places = c.value(0), c.value(1), c.opt(2)
    axis = c.axis(c.integer("axis", -2), past.rank)
    if axis == 0:
        c.broken("writes along the batch")
    room, count = past.shape[axis], update.shape[axis]
    batch = past.shape[0]
    steps = c.constant(np.arange(count, dtype=np.int64).reshape(1, count))
    index = steps if places is None else c.op("add", steps, c.reshape(c.cast(places, "int64"), [batch, 1]))
    if c.text("mode", "linear") == "circular":
        index = c.op("mod", index, c.constant(np.int64(room)))
    shape = [1] * past.rank
    shape[0], shape[axis] = index.shape[0], count
    index = c.broadcast(c.reshape(index, shape), update.shape)
    return c.op("scatter_elements", past, index, update, axis=axis, reduction="none")


@operator("OneHot")
def one_hot(c: Call) -> Result:
    indices, values = c.value(0), c.value(2)
    depth = int(np.asarray(c.const(1, "depth")).reshape(-1)[0])
    if depth < 1 or values.size != 2:
        c.misfit(f"spreads indices over {depth} places with {values.size} values")
    axis = c.axis(c.integer("axis", -1), indices.rank + 1)
    whole = c.cast(indices, "int64")
    if values.data is not None:
        off, on = (v.item() for v in values.data.reshape(-1))
        return c.op("one_hot", whole, depth=depth, axis=axis, on=on, off=off, dtype=values.dtype)
    # Negative numbers count from the end once; what is still outside hits no place.
    whole = c.op(
        "where", c.op("less", whole, c.scalar(0, whole)), c.op("add", whole, c.scalar(depth, whole)), whole
    )
    places = c.reshape(c.constant(np.arange(depth)), [depth if i == axis else 1 for i in range(indices.rank + 1)])
    hit = c.op("equal", c.unsqueeze(whole, [axis]), places)
    off_on = c.reshape(values, [2])
    off_value, on_value = (c.reshape(c.cut(off_on, 0, i, i + 1), []) for i in range(2))
    return c.op("where", hit, on_value, off_value)


@operator("Compress")
def compress(c: Call) -> Result:
    x = c.value(0)
    keep = np.flatnonzero(c.const(1, "condition"))
    if "axis" not in c.attrs:
        x, axis = c.reshape(x, [x.size]), 0
    else:
        axis = c.axis(c.integer("axis"), x.rank)
    if keep.size and keep[-1] >= x.shape[axis]:
        c.misfit(f"keeps element {keep[-1]} of {x.shape[axis]}")
    return c.op("gather", x, c.constant(keep.astype(np.int64)), axis=axis)


@operator("NonZero")
def non_zero(c: Call) -> Result:
    x = c.value(0)
    if x.data is None:
        c.refuse("has a result whose size depends on numbers known only when the model runs")
    data = np.asarray(x.data)
    found = np.nonzero(data.reshape(1) if x.rank == 0 else data)
    return c.constant(np.stack(found).astype(np.int64)[: max(x.rank, 0) or None])


@operator("Unique")
def unique(c: Call) -> Result:
    x = c.value(0)
    if x.data is None:
        c.refuse("has a result whose size depends on numbers known only when the model runs")
    axis = c.axis(c.integer("axis"), x.rank) if "axis" in c.attrs else None
    data = np.asarray(x.data)
    found, first, inverse, counts = np.unique(
        data if axis is not None else data.reshape(-1),
        True,
        True,
        True,
        axis=axis,
    )
    inverse = inverse.reshape(-1)
    if not c.flag("sorted", default=True):
        order = np.argsort(first, kind="stable")
        rank = np.argsort(order, kind="stable")
        found, first, counts = np.take(found, order, axis=axis or 0), first[order], counts[order]
        inverse = rank[inverse]
    return [
        c.constant(found, x.dtype),
        *(c.constant(np.asarray(part).astype(np.int64)) for part in (first, inverse, counts)),
    ]


@operator("ReverseSequence")
def reverse_sequence(c: Call) -> Result:
    x, lengths = c.value(0), c.cast(c.value(1), "int64")
    time, batch = c.axis(c.integer("time_axis", 0), x.rank), c.axis(c.integer("batch_axis", 1), x.rank)
    if time == batch or lengths.shape != (x.shape[batch],):
        c.misfit(f"reverses {list(x.shape)} by {list(lengths.shape)} lengths")
    at = c.constant(
        np.arange(x.shape[time], dtype=np.int64).reshape([-1 if i == time else 1 for i in range(x.rank)])
    )
    count = c.reshape(lengths, [x.shape[batch] if i == batch else 1 for i in range(x.rank)])
    mirrored = c.op("sub", c.op("sub", count, c.scalar(1, count)), at)
    index = c.op("where", c.op("less", at, count), mirrored, at)
    return c.op("gather_elements", x, c.broadcast(index, x.shape), axis=time)


@operator("Col2Im")
def col2im(c: Call) -> Result:
    """Columns added back to where they were taken from; which element goes where is known beforehand."""
    x = c.value(0)
    image, block = c.ints_of(1, "image shape"), c.ints_of(2, "block shape")
    rank = len(image)
    strides, dilations = c.integers("strides", [1] * rank), c.integers("dilations", [1] * rank)
    pads = c.integers("pads", [0] * 2 * rank)
    if x.rank != 3 or not len(block) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        c.misfit("has an image, a block and columns that do not fit")
    padded = [image[i] + pads[i] + pads[i + rank] for i in range(rank)]
    steps = [(padded[i] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1 for i in range(rank)]
    taps, places = prod(block), prod(steps)
    if any(s < 1 for s in steps) or x.shape[1] % taps or x.shape[2] != places:
        c.misfit(f"puts columns of the shape {list(x.shape)} into an image of {image}")
    made_up(c, taps * places)
    grids = np.indices(steps).reshape(rank, -1)
    target = np.empty((taps, places), np.int64)
    for tap, offset in enumerate(product(*(range(n) for n in block))):
        at = [grids[i] * strides[i] + offset[i] * dilations[i] for i in range(rank)]
        target[tap] = np.ravel_multi_index(at, padded)
    n, channels = x.shape[0], x.shape[1] // taps
    columns = c.reshape(x, [n, channels, taps * places])
    index = c.broadcast(c.constant(target.reshape(1, 1, -1)), columns.shape)
    blank = c.full([n, channels, prod(padded)], 0, x.dtype)
    whole = c.op("scatter_elements", blank, index, columns, axis=2, reduction="add")
    out = c.reshape(whole, [n, channels, *padded])
    for i in range(rank):
        out = c.cut(out, i + 2, pads[i], pads[i] + image[i])
    return out
