"""ATen's look-ups and writes by index, and the tensors it makes from nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from fleetui.workshop.errors import ShapeError, UnsupportedError
from fleetui.workshop.frontends.emit import axis_of
from fleetui.workshop.frontends.torch.program import Args, Handler, Importer, NeedsDecomposition, on
from fleetui.workshop.graph.ir import Value


def _self(a: Args) -> Value:
    return a.tensor("self") if a.has("self") else a.tensor("input")


# ---------------------------------------------------------------- from nothing


def _filled(number: float | None) -> Handler:
    def handler(c: Importer, a: Args) -> Value:
        value = number if number is not None else a.get("fill_value", a.get("value", 0))
        sizes = a.ints("size") if a.has("size") else list(_self(a).shape) if a.has("self") else []
        if isinstance(value, Value):
            return c.e.expand(c.e.cast(value, c.out_dtype), sizes)
        return c.e.full(sizes, value, c.out_dtype)

    return handler


on("zeros", "zeros_like", "new_zeros", "zero")(_filled(0))
on("ones", "ones_like", "new_ones")(_filled(1))
on("full", "full_like", "new_full", "fill")(_filled(None))
on("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted")(_filled(0))


@on("scalar_tensor")
def _scalar_tensor(c: Importer, a: Args) -> Value:
    return c.e.full((), a.get("s", 0), c.out_dtype)


@on("arange")
def _arange(c: Importer, a: Args) -> Value:
    start, end, step = a.get("start", 0), a.need("end"), a.get("step", 1)
    if step == 0 or abs((end - start) / step) > 1 << 26:
        raise ShapeError(f"at {c.b.source}: a range from {start} to {end} in steps of {step}")
    return c.b.constant(np.arange(start, end, step).astype(c.out_dtype), "arange")


@on("linspace")
def _linspace(c: Importer, a: Args) -> Value:
    steps = int(a.need("steps"))
    if steps > 1 << 26:
        raise ShapeError(f"at {c.b.source}: {steps} steps")
    return c.b.constant(np.linspace(a.need("start"), a.need("end"), steps).astype(c.out_dtype), "linspace")


@on("eye")
def _eye(c: Importer, a: Args) -> Value:
    rows = int(a.need("n"))
    columns = int(a.get("m", rows))
    if rows * columns > 1 << 26:
        raise ShapeError(f"at {c.b.source}: an identity of {rows} by {columns}")
    return c.b.constant(np.eye(rows, columns).astype(c.out_dtype), "eye")


def _triangle(*, lower: bool) -> Handler:
    def handler(c: Importer, a: Args) -> Value:
        x = _self(a)
        mask = np.tri(x.shape[-2], x.shape[-1], int(a.get("diagonal", 0)) - (0 if lower else 1), dtype=bool)
        keep = c.b.constant(mask if lower else ~mask, "triangle")
        return c.b.op("where", keep, x, c.e.like(0, x))

    return handler


on("tril")(_triangle(lower=True))
on("triu")(_triangle(lower=False))


@on("meshgrid")
def _meshgrid(c: Importer, a: Args) -> list[Value]:
    parts: list[Value] = a.need("tensors")
    sizes = [p.size for p in parts]
    order = list(range(len(parts)))
    if a.get("indexing", "ij") == "xy" and len(parts) > 1:
        order[0], order[1] = 1, 0
    out = []
    for at, part in enumerate(parts):
        shape = [1] * len(parts)
        shape[order.index(at)] = part.size
        out.append(c.e.expand(c.e.reshape(part, shape), [sizes[o] for o in order]))
    return out


# ---------------------------------------------------------------- look-ups


@on("embedding")
def _embedding(c: Importer, a: Args) -> Value:
    return c.b.op("gather", a.tensor("weight"), a.tensor("indices"), axis=0)


@on("index_select")
def _index_select(c: Importer, a: Args) -> Value:
    x = _self(a)
    return c.b.op("gather", x, a.tensor("index"), axis=axis_of(int(a.need("dim")), x.rank))


@on("gather")
def _gather(c: Importer, a: Args) -> Value:
    x, index = _self(a), a.tensor("index")
    axis = axis_of(int(a.need("dim")), x.rank)
    for other in range(x.rank):
        if other != axis:
            x = c.e.slice(x, other, 0, index.shape[other])
    return c.b.op("gather_elements", x, index, axis=axis)


@on("take_along_dim")
def _take_along(c: Importer, a: Args) -> Value:
    x, index = _self(a), a.tensor("indices")
    if not a.has("dim"):
        x, index, axis = c.e.reshape(x, [-1]), c.e.reshape(index, [-1]), 0
    else:
        axis = axis_of(int(a.need("dim")), x.rank)
        shape = np.broadcast_shapes(
            *(tuple(1 if i == axis else d for i, d in enumerate(v.shape)) for v in (x, index))
        )
        x = c.e.expand(x, [x.shape[axis] if i == axis else d for i, d in enumerate(shape)])
        index = c.e.expand(index, [index.shape[axis] if i == axis else d for i, d in enumerate(shape)])
    return c.b.op("gather_elements", x, index, axis=axis)


@on("index", "_unsafe_index")
def _index(c: Importer, a: Args) -> Value:
    """Advanced indexing: index tensors in one run of axes (others are ``:``)."""
    x = _self(a)
    indices: list[Value | None] = list(a.need("indices"))
    indices += [None] * (x.rank - len(indices))
    used = [i for i, index in enumerate(indices) if index is not None]
    given = [index for index in indices if index is not None]
    if not used or any(index.dtype == "bool" for index in given):
        raise UnsupportedError(
            f"at {c.b.source}: choosing by a mask gives a result of unknown size, which is not supported",
            "Use torch.where", operator="index", node=c.b.source,
        )  # fmt: skip
    if len(used) == 1:
        return c.b.op("gather", x, given[0], axis=used[0])
    shape = np.broadcast_shapes(*(index.shape for index in given))
    columns = [
        c.e.unsqueeze(c.e.expand(_wrapped(c, index, x.shape[axis]), shape), len(shape))
        for index, axis in zip(given, used, strict=True)
    ]
    rest = [i for i in range(x.rank) if i not in used]
    front = c.e.transpose(x, [*used, *rest])
    out = c.b.op("gather_nd", front, c.e.concat(columns, len(shape)), batch_dims=0)
    if used == list(range(used[0], used[-1] + 1)):
        lead = len(shape)  # the run's place, as PyTorch and numpy have it
        order = [lead + i for i in range(used[0])] + list(range(lead))
        order += [lead + i for i in range(used[0], len(rest))]
        out = c.e.transpose(out, order)
    return out


def _wrapped(c: Importer, index: Value, size: int) -> Value:
    index = c.e.cast(index, "int64")
    return c.b.op("where", c.e.by("less", index, 0), c.e.by("add", index, size), index)


@on("index_put", "_unsafe_index_put")
def _index_put(c: Importer, a: Args) -> Value:
    x, updates = _self(a), a.tensor("values")
    indices: list[Value | None] = list(a.need("indices"))
    used = [i for i, index in enumerate(indices) if index is not None]
    given = [index for index in indices if index is not None]
    if len(given) == 1 and given[0].dtype == "bool" and updates.size == 1:
        mask = c.e.reshape(given[0], [*given[0].shape, *[1] * (x.rank - given[0].rank)])
        value = c.e.reshape(updates, [])
        if a.get("accumulate", False):
            return c.b.op("where", mask, c.b.op("add", x, value), x)
        return c.b.op("where", mask, value, x)
    if used != list(range(len(used))) or any(index.dtype == "bool" for index in given):
        raise UnsupportedError(f"at {c.b.source}: this way of writing into a tensor is not supported", "Rewrite it")
    shape = np.broadcast_shapes(*(index.shape for index in given))
    columns = [
        c.e.unsqueeze(c.e.expand(_wrapped(c, index, x.shape[axis]), shape), len(shape))
        for index, axis in zip(given, used, strict=True)
    ]
    updates = c.e.expand(c.e.cast(updates, x.dtype), [*shape, *x.shape[len(used) :]])
    return c.b.op(
        "scatter_nd",
        x,
        c.e.concat(columns, len(shape)),
        updates,
        reduction="add" if a.get("accumulate", False) else "none",
    )


@on("scatter")
def _scatter(c: Importer, a: Args) -> Value:
    x, index = _self(a), a.tensor("index")
    source = a.maybe("src")
    source = c.e.full(index.shape, a.need("value"), x.dtype) if source is None else source
    for axis, size in enumerate(index.shape):
        source = c.e.slice(source, axis, 0, size)
    reduction = {"add": "add", "multiply": "mul"}.get(str(a.get("reduce", "")), "none")
    return c.b.op(
        "scatter_elements", x, index, source, axis=axis_of(int(a.need("dim")), x.rank), reduction=reduction
    )


@on("scatter_add")
def _scatter_add(c: Importer, a: Args) -> Value:
    x, index, source = _self(a), a.tensor("index"), a.tensor("src")
    for axis, size in enumerate(index.shape):
        source = c.e.slice(source, axis, 0, size)
    return c.b.op("scatter_elements", x, index, source, axis=axis_of(int(a.need("dim")), x.rank), reduction="add")


@on("one_hot")
def _one_hot(c: Importer, a: Args) -> Value:
    x, classes = _self(a), int(a.get("num_classes", -1))
    if classes < 1:
        raise UnsupportedError(
            f"at {c.b.source}: one_hot needs to be told the number of classes", "Give num_classes"
        )
    return c.b.op("one_hot", x, depth=classes, axis=x.rank, on=1, off=0, dtype="int64")


@on("unfold")
def _unfold(c: Importer, a: Args) -> Value:
    """Sliding windows along one axis, as a new last axis."""
    x = _self(a)
    axis = axis_of(int(a.get("dimension", 0)), x.rank)
    size, step = int(a.need("size")), int(a.need("step"))
    count = (x.shape[axis] - size) // step + 1
    index = (np.arange(count) * step)[:, None] + np.arange(size)
    out = c.b.op("gather", x, c.b.constant(index.astype(np.int32), "windows"), axis=axis)
    return c.e.transpose(out, [i for i in range(out.rank) if i != axis + 1] + [axis + 1])


@on("diagonal", "diagonal_copy")
def _diagonal(c: Importer, a: Args) -> Value:
    x = _self(a)
    first, second = axis_of(int(a.get("dim1", 0)), x.rank), axis_of(int(a.get("dim2", 1)), x.rank)
    offset = int(a.get("offset", 0))
    rows, columns = x.shape[first], x.shape[second]
    count = max(0, min(rows - max(0, -offset), columns - max(0, offset)))
    rest = [i for i in range(x.rank) if i not in {first, second}]
    flat = c.e.reshape(c.e.transpose(x, [*rest, first, second]), [*(x.shape[i] for i in rest), rows * columns])
    index = (np.arange(count) + max(0, -offset)) * columns + np.arange(count) + max(0, offset)
    return c.b.op("gather", flat, c.b.constant(index.astype(np.int32), "diagonal"), axis=len(rest))


@on("item", "_local_scalar_dense")
def _item(c: Importer, a: Args) -> Any:
    x = _self(a)
    if x.data is None:
        raise UnsupportedError(
            f"at {c.b.source}: the shape of the computation depends on the data, which is not supported",
            "Take the number out of the model", operator="item", node=c.b.source,
        )  # fmt: skip
    return x.data.reshape(-1)[0].item()


@on("as_strided")
def _as_strided(c: Importer, a: Args) -> Value:
    raise NeedsDecomposition(f"{c.b.source} of {a.names()}")
