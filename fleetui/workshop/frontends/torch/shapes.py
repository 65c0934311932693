"""ATen's views, joins, splits, look-ups, and the tensors it makes from nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fleetui.workshop.errors import ShapeError, UnsupportedError
from fleetui.workshop.frontends.emit import axis_of
from fleetui.workshop.frontends.torch.program import Args, Handler, Importer, NeedsDecomposition, on
from fleetui.workshop.graph.ir import Value

FAR = 1 << 62


def _self(a: Args) -> Value:
    return a.tensor("self") if a.has("self") else a.tensor("input")


@on("view", "reshape", "_unsafe_view", "_reshape_copy", "view_copy")
def _view(c: Importer, a: Args) -> Value:
    if a.has("dtype"):
        raise UnsupportedError(f"at {c.b.source}: reading a tensor's bits as another type is not supported", "Cast")
    return c.e.reshape(_self(a), a.ints("size", a.get("shape")))


@on("flatten")
def _flatten(c: Importer, a: Args) -> Value:
    x = _self(a)
    if x.rank == 0:
        return c.e.reshape(x, [1])
    start, end = axis_of(int(a.get("start_dim", 0)), x.rank), axis_of(int(a.get("end_dim", -1)), x.rank)
    return c.e.reshape(x, [*x.shape[:start], int(np.prod(x.shape[start : end + 1])), *x.shape[end + 1 :]])


@on("unflatten")
def _unflatten(c: Importer, a: Args) -> Value:
    x = _self(a)
    at = axis_of(int(a.need("dim")), x.rank)
    sizes = a.ints("sizes")
    if -1 in sizes:
        rest = int(np.prod([d for d in sizes if d != -1]))
        sizes[sizes.index(-1)] = x.shape[at] // max(1, rest)
    return c.e.reshape(x, [*x.shape[:at], *sizes, *x.shape[at + 1 :]])


@on("view_as", "reshape_as")
def _view_as(c: Importer, a: Args) -> Value:
    return c.e.reshape(_self(a), a.tensor("other").shape)


@on("permute", "permute_copy")
def _permute(c: Importer, a: Args) -> Value:
    x = _self(a)
    return c.e.transpose(x, [axis_of(d, x.rank) for d in a.ints("dims")])


@on("transpose", "swapaxes", "swapdims", "transpose_copy")
def _transpose(c: Importer, a: Args) -> Value:
    x = _self(a)
    first, second = int(a.get("dim0", a.get("axis0", 0))), int(a.get("dim1", a.get("axis1", 0)))
    return x if x.rank == 0 else c.e.swap(x, first, second)


@on("t", "numpy_T", "mT", "adjoint", "t_copy")
def _t(c: Importer, a: Args) -> Value:
    x = _self(a)
    return x if x.rank < 2 else c.e.swap(x, -2, -1)


@on("movedim", "moveaxis")
def _movedim(c: Importer, a: Args) -> Value:
    x = _self(a)
    source = [axis_of(d, x.rank) for d in a.ints("source")]
    place = [axis_of(d, x.rank) for d in a.ints("destination")]
    order = [d for d in range(x.rank) if d not in source]
    for to, come in sorted(zip(place, source, strict=True)):
        order.insert(to, come)
    return c.e.transpose(x, order)


@on("squeeze", "squeeze_copy")
def _squeeze(c: Importer, a: Args) -> Value:
    return c.e.squeeze(_self(a), a.ints("dim") if a.has("dim") else None)


@on("unsqueeze", "unsqueeze_copy")
def _unsqueeze(c: Importer, a: Args) -> Value:
    return c.e.unsqueeze(_self(a), int(a.need("dim")))


@on("expand", "broadcast_to", "expand_copy")
def _expand(c: Importer, a: Args) -> Value:
    return c.e.expand(_self(a), a.ints("size"))


@on("expand_as")
def _expand_as(c: Importer, a: Args) -> Value:
    return c.e.expand(_self(a), a.tensor("other").shape)


@on("repeat", "tile")
def _repeat(c: Importer, a: Args) -> Value:
    x, times = _self(a), a.ints("repeats", a.get("dims"))
    times = [1] * (x.rank - len(times)) + times
    x = c.e.reshape(x, [1] * (len(times) - x.rank) + list(x.shape))
    return x if all(t == 1 for t in times) else c.b.op("tile", x, repeats=tuple(times))


@on("repeat_interleave.self_int")
def _interleave(c: Importer, a: Args) -> Value:
    x, times = _self(a), int(a.need("repeats"))
    if not a.has("dim"):
        x = c.e.reshape(x, [-1])
    at = axis_of(int(a.get("dim", 0)), x.rank)
    wide = c.e.expand(c.e.unsqueeze(x, at + 1), [*x.shape[: at + 1], times, *x.shape[at + 1 :]])
    return c.e.reshape(wide, [*x.shape[:at], x.shape[at] * times, *x.shape[at + 1 :]])


@on("cat", "concat", "concatenate")
def _cat(c: Importer, a: Args) -> Value:
    parts = [p for p in a.need("tensors") if p.shape != (0,)]
    return c.e.concat([c.e.cast(p, c.out_dtype) for p in parts], int(a.get("dim", 0)))


@on("stack")
def _stack(c: Importer, a: Args) -> Value:
    parts: list[Value] = a.need("tensors")
    at = axis_of(int(a.get("dim", 0)), parts[0].rank + 1)
    return c.e.concat([c.e.unsqueeze(c.e.cast(p, c.out_dtype), at) for p in parts], at)


@on("hstack", "vstack", "dstack")
def _hstack(c: Importer, a: Args) -> Value:
    parts: list[Value] = a.need("tensors")
    if "vstack" in c.b.source:
        return c.e.concat([c.e.unsqueeze(p, 0) if p.rank == 1 else p for p in parts], 0)
    if "dstack" in c.b.source:
        raise UnsupportedError(f"at {c.b.source}: dstack is not supported", "Use torch.cat")
    return c.e.concat(parts, 0 if parts[0].rank == 1 else 1)


def _parts(c: Importer, x: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
    at, out = 0, []
    for size in sizes:
        out.append(c.e.slice(x, axis, at, at + size))
        at += size
    return out


@on("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "split_copy", "split_with_sizes_copy")
def _split(c: Importer, a: Args) -> list[Value]:
    x = _self(a)
    axis = axis_of(int(a.get("dim", 0)), x.rank)
    sizes = a.get("split_sizes", a.get("split_size"))
    if not isinstance(sizes, list):
        step, size = max(1, int(sizes)), x.shape[axis]
        sizes = [min(step, size - i) for i in range(0, size, step)]
    return _parts(c, x, axis, [int(s) for s in sizes])


@on("chunk", "unsafe_chunk")
def _chunk(c: Importer, a: Args) -> list[Value]:
    x = _self(a)
    axis = axis_of(int(a.get("dim", 0)), x.rank)
    size = x.shape[axis]
    step = -(-size // int(a.need("chunks")))
    return _parts(c, x, axis, [min(step, size - i) for i in range(0, size, step)])


@on("tensor_split.sections")
def _tensor_split(c: Importer, a: Args) -> list[Value]:
    x = _self(a)
    axis = axis_of(int(a.get("dim", 0)), x.rank)
    count = int(a.need("sections"))
    each, more = divmod(x.shape[axis], count)
    return _parts(c, x, axis, [each + (i < more) for i in range(count)])


@on("unbind", "unbind_copy")
def _unbind(c: Importer, a: Args) -> list[Value]:
    x = _self(a)
    axis = axis_of(int(a.get("dim", 0)), x.rank)
    return [c.e.select(x, axis, i) for i in range(x.shape[axis])]


@on("slice", "slice_copy")
def _slice(c: Importer, a: Args) -> Value:
    return c.e.slice(
        _self(a), int(a.get("dim", 0)), int(a.get("start", 0)), int(a.get("end", FAR)), int(a.get("step", 1))
    )


@on("narrow", "narrow_copy")
def _narrow(c: Importer, a: Args) -> Value:
    x = _self(a)
    axis = axis_of(int(a.need("dim")), x.rank)
    start = a.need("start")
    if isinstance(start, Value):
        raise UnsupportedError(f"at {c.b.source}: narrowing at a computed place is not supported", "Use an index")
    start = int(start) % max(1, x.shape[axis])
    return c.e.slice(x, axis, start, start + int(a.need("length")))


@on("select", "select_copy")
def _select(c: Importer, a: Args) -> Value:
    return c.e.select(_self(a), int(a.get("dim", 0)), int(a.need("index")))


@on("slice_scatter")
def _slice_scatter(c: Importer, a: Args) -> Value:
    x, part = _self(a), a.tensor("src")
    axis = axis_of(int(a.get("dim", 0)), x.rank)
    start, stop, step = slice(int(a.get("start", 0)), int(a.get("end", FAR)), int(a.get("step", 1))).indices(
        x.shape[axis]
    )
    if step != 1:
        raise UnsupportedError(
            f"at {c.b.source}: writing into every {step}th element is not supported", "Rewrite it"
        )
    return _join(c, x, axis, start, max(start, stop), c.e.cast(part, x.dtype))


@on("select_scatter")
def _select_scatter(c: Importer, a: Args) -> Value:
    x, part = _self(a), a.tensor("src")
    axis = axis_of(int(a.need("dim")), x.rank)
    index = int(a.need("index")) % x.shape[axis]
    return _join(c, x, axis, index, index + 1, c.e.unsqueeze(c.e.cast(part, x.dtype), axis))


def _join(c: Importer, x: Value, axis: int, start: int, stop: int, part: Value) -> Value:
    before, after = c.e.slice(x, axis, 0, start), c.e.slice(x, axis, stop, x.shape[axis])
    return c.e.concat([v for v in (before, part, after) if v.shape[axis]], axis)


@on("flip")
def _flip(c: Importer, a: Args) -> Value:
    return c.e.flip(_self(a), a.ints("dims"))


@on("roll")
def _roll(c: Importer, a: Args) -> Value:
    x, shifts, dims = _self(a), a.ints("shifts"), a.ints("dims", [])
    shape = x.shape
    if not dims:
        x, dims = c.e.reshape(x, [-1]), [0]
    for shift, dim in zip(shifts, dims, strict=True):
        axis = axis_of(dim, x.rank)
        cut = -shift % max(1, x.shape[axis])
        if cut:
            x = c.e.concat([c.e.slice(x, axis, cut, x.shape[axis]), c.e.slice(x, axis, 0, cut)], axis)
    return c.e.reshape(x, shape)


@on("pad", "constant_pad_nd")
def _pad(c: Importer, a: Args) -> Value:
    mode = str(a.get("mode", "constant"))
    words = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    if mode not in words:
        raise UnsupportedError(f"at {c.b.source}: padding by {mode!r} is not supported", "Use another mode")
    return _padded(c, _self(a), a.ints("pad"), words[mode], a.get("value", 0))


def _padded(c: Importer, x: Value, pads: list[int], mode: str, value: float = 0) -> Value:
    count = len(pads) // 2
    if count > x.rank or len(pads) % 2:
        raise ShapeError(f"at {c.b.source}: {len(pads)} paddings for a tensor of {x.rank} dimensions")
    each = [(0, 0)] * (x.rank - count) + [(pads[2 * i], pads[2 * i + 1]) for i in reversed(range(count))]
    return c.e.pad(x, each, mode, value)


on("reflection_pad1d", "reflection_pad2d", "reflection_pad3d")(
    lambda c, a: _padded(c, _self(a), a.ints("padding"), "reflect")
)
on("replication_pad1d", "replication_pad2d", "replication_pad3d")(
    lambda c, a: _padded(c, _self(a), a.ints("padding"), "edge")
)


# ---------------------------------------------------------------- the same tensor under another name


@on(
    "contiguous", "clone", "detach", "alias", "lift_fresh", "lift_fresh_copy", "dropout", "feature_dropout",
    "alpha_dropout", "feature_alpha_dropout", "positive", "detach_copy", "alias_copy",
)  # fmt: skip
def _same(c: Importer, a: Args) -> Value:
    if a.get("train", False):
        raise UnsupportedError(
            f"at {c.b.source}: the model is in training mode", "Call model.eval() before exporting"
        )
    return _self(a)


@on("native_dropout")
def _native_dropout(c: Importer, a: Args) -> list[Value]:
    if a.get("train", False):
        raise UnsupportedError(
            f"at {c.b.source}: the model is in training mode", "Call model.eval() before exporting"
        )
    return [_self(a), c.e.full(_self(a).shape, value=True, dtype="bool")]


@on("to", "_to_copy", "type_as", "float", "double", "half", "int", "long", "bool")
def _to(c: Importer, a: Args) -> Value:
    return c.e.cast(_self(a), c.out_dtype)


@on("copy")
def _copy(c: Importer, a: Args) -> Value:
    x = _self(a)
    return c.e.expand(c.e.cast(a.tensor("src"), x.dtype), x.shape)


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
