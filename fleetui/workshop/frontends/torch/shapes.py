"""ATen's views, joins, splits, look-ups, and the tensors it makes from nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fleetui.workshop.errors import ShapeError, UnsupportedError
from fleetui.workshop.frontends.emit import axis_of
from fleetui.workshop.frontends.torch.program import Args, Importer, on
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
