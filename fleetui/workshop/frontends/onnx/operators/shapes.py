"""Shapes and where elements lie: reshape, transpose, slice, pad, concat, split, expand, constants, ranges."""

from __future__ import annotations

from math import ceil, prod
from typing import Any

import numpy as np

from fleetui.workshop.errors import LimitError
from fleetui.workshop.frontends.onnx.call import Call, Result, TensorList, operator
from fleetui.workshop.graph.ir import Value

FEW = 1 << 24
"""Elements of a constant that an operator may make up."""


@operator("Constant")
def constant(c: Call) -> Result:
    if "value" in c.attrs:
        return c.importer.weight(c.attrs["value"], c.label)
    for name, dtype in (("value_float", "float32"), ("value_int", "int64")):
        if name in c.attrs:
            return c.constant(c.attrs[name], dtype)
    for name, dtype in (("value_floats", "float32"), ("value_ints", "int64")):
        if name in c.attrs:
            return c.constant(np.asarray(c.attrs[name]).reshape(-1), dtype)
    if "value_string" in c.attrs or "value_strings" in c.attrs:
        c.refuse("holds text, which we do not compute with")
    if "sparse_value" in c.attrs:
        c.refuse("holds a sparse tensor, which we do not read", "Export it dense")
    return c.broken("holds nothing")


@operator("ConstantOfShape")
def constant_of_shape(c: Call) -> Result:
    shape = c.ints_of(0, "shape")
    if any(d < 0 for d in shape):
        c.misfit(f"makes a tensor of the shape {shape}")
    tensor: Any = c.attrs.get("value")
    if tensor is None:
        return c.full(shape, 0, "float32")
    value = c.importer.weight(tensor, c.label)
    if value.size != 1 or value.data is None:
        c.broken("fills with something that is not one number")
    return c.importer.builder.constant(np.broadcast_to(value.data.reshape(()), tuple(shape)), dtype=value.dtype)


@operator("Shape")
def shape_of(c: Call) -> Result:
    item = c.item(0)
    if isinstance(item, TensorList):
        c.broken("takes the shape of a sequence")
    sizes = c.value(0).shape
    rank = len(sizes)
    start, end = c.integer("start", 0), c.integer("end", rank)
    start, end = (max(0, min(rank, n + rank if n < 0 else n)) for n in (start, end))
    return c.constant(np.asarray(sizes[start:end], np.int64))


@operator("Size")
def size_of(c: Call) -> Result:
    return c.constant(np.asarray(c.value(0).size, np.int64))


@operator("Reshape")
def reshape(c: Call) -> Result:
    x = c.value(0)
    want = c.integers("shape") if c.version < 5 else c.ints_of(1, "shape")
    return c.reshape(x, resolved(c, x, want, keep_zero=c.flag("allowzero")))


def resolved(c: Call, x: Value, want: list[int], *, keep_zero: bool) -> list[int]:
    shape = list(want)
    if not keep_zero:
        for index, size in enumerate(shape):
            if size == 0:
                if index >= x.rank:
                    c.misfit(f"copies dimension {index} of a tensor of rank {x.rank}")
                shape[index] = x.shape[index]
    if shape.count(-1) > 1 or any(d < -1 for d in shape):
        c.broken(f"reshapes to {want}")
    if -1 in shape:
        rest = prod(d for d in shape if d != -1)
        if rest == 0 or x.size % rest:
            c.misfit(f"cannot reshape {list(x.shape)} to {want}")
        shape[shape.index(-1)] = x.size // rest
    if prod(shape) != x.size:
        c.misfit(f"cannot reshape {list(x.shape)} to {want}")
    return shape


@operator("Flatten")
def flatten(c: Call) -> Result:
    x = c.value(0)
    axis = c.integer("axis", 1)
    axis = axis if axis == x.rank else c.axis(axis, x.rank)
    return c.reshape(x, [prod(x.shape[:axis]), prod(x.shape[axis:])])


@operator("Squeeze")
def squeeze(c: Call) -> Result:
    x = c.value(0)
    axes = c.axes_of(1, x.rank)
    if axes is None:
        axes = [i for i, d in enumerate(x.shape) if d == 1]
    if any(x.shape[a] != 1 for a in axes):
        c.misfit(f"squeezes the axes {axes} of {list(x.shape)}")
    return c.squeeze(x, axes)


@operator("Unsqueeze")
def unsqueeze(c: Call) -> Result:
    x = c.value(0)
    axes = c.integers("axes") if "axes" in c.attrs else c.ints_of(1, "axes")
    return c.unsqueeze(x, axes)


@operator("Transpose")
def transpose(c: Call) -> Result:
    x = c.value(0)
    perm = c.integers("perm", list(range(x.rank))[::-1])
    if sorted(perm) != list(range(x.rank)):
        c.misfit(f"reorders {x.rank} axes by {perm}")
    return c.transpose(x, perm)


@operator("Expand")
def expand(c: Call) -> Result:
    x = c.value(0)
    return c.broadcast(x, c.broadcast_shape(x.shape, tuple(c.ints_of(1, "shape"))))


@operator("Tile")
def tile(c: Call) -> Result:
    x = c.value(0)
    if c.version < 6:
        repeats = [1] * x.rank
        repeats[c.axis(c.int_of(2, "axis"), x.rank)] = c.int_of(1, "repeats")
    else:
        repeats = c.ints_of(1, "repeats")
    if len(repeats) != x.rank or any(n < 0 for n in repeats):
        c.misfit(f"repeats {list(x.shape)} by {repeats}")
    return x if all(n == 1 for n in repeats) else c.op("tile", x, repeats=tuple(repeats))


@operator("Concat")
def concat(c: Call) -> Result:
    values = c.values()
    axis = c.axis(c.integer("axis", 1 if c.version < 4 else ...), values[0].rank)
    filled = [v for v in values if v.size] or values[:1]
    if len(filled) == len(values):
        return c.concat(values, axis)
    # Parts without elements add nothing, unless all are empty and only their sizes add up.
    shape = list(values[0].shape)
    shape[axis] = sum(v.shape[axis] for v in values)
    return c.concat(filled, axis) if filled[0].size else c.full(shape, 0, values[0].dtype)


@operator("Split")
def split(c: Call) -> Result:
    x = c.value(0)
    axis = c.axis(c.integer("axis", 0), x.rank)
    size = x.shape[axis]
    if "split" in c.attrs:
        sizes = c.integers("split")
    elif c.opt(1) is not None:
        sizes = c.ints_of(1, "split")
    else:
        parts = c.integer("num_outputs", len(c.outputs))
        if parts < 1:
            c.broken(f"splits into {parts} parts")
        if c.version < 18 and size % parts:
            c.misfit(f"splits {size} elements into {parts} equal parts")
        each = ceil(size / parts)
        sizes = [max(0, min(each, size - each * i)) for i in range(parts)]
    return pieces(c, x, axis, sizes)


def pieces(c: Call, x: Value, axis: int, sizes: list[int]) -> list[Value]:
    if sum(sizes) != x.shape[axis] or any(n < 0 for n in sizes):
        c.misfit(f"splits {x.shape[axis]} elements into {sizes}")
    ends = np.cumsum(sizes).tolist()
    return [c.cut(x, axis, end - n, end) for n, end in zip(sizes, ends, strict=True)]


@operator("Slice")
def slice_(c: Call) -> Result:
    x = c.value(0)
    if c.version < 10:
        starts, ends = c.integers("starts"), c.integers("ends")
        axes = c.integers("axes", list(range(len(starts))))
        steps = [1] * len(starts)
    else:
        starts, ends = c.ints_of(1, "start"), c.ints_of(2, "end")
        axes = c.ints_of(3, "axes") if c.opt(3) is not None else list(range(len(starts)))
        steps = c.ints_of(4, "steps") if c.opt(4) is not None else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        c.broken("has starts, ends, axes and steps of different lengths")
    begin, stop, step = [0] * x.rank, list(x.shape), [1] * x.rank
    for axis, low, high, by in zip(axes, starts, ends, steps, strict=True):
        if by == 0:
            c.broken("has a step of zero")
        at = c.axis(axis, x.rank)
        begin[at], stop[at], step[at] = _bounds(low, high, by, x.shape[at])
    if begin == [0] * x.rank and stop == list(x.shape) and step == [1] * x.rank:
        return x
    return c.op("slice", x, starts=tuple(begin), stops=tuple(stop), steps=tuple(step))


def _bounds(low: int, high: int, step: int, size: int) -> tuple[int, int, int]:
    """Nearly Python's slice rule: a start beyond the beginning is the beginning even where steps go backwards."""
    if step < 0 and low < -size and size:
        low = 0
    start, stop, step = slice(low, high, step).indices(size)
    count = len(range(start, stop, step))
    if count == 0:
        return 0, 0, 1
    last = start + (count - 1) * step
    return start, last + 1 if step > 0 else last - 1, step


@operator("Pad")
def pad(c: Call) -> Result:
    x = c.value(0)
    mode = c.text("mode", "constant")
    if mode not in {"constant", "reflect", "edge", "wrap"}:
        c.broken(f"pads in the mode '{mode}'")
    axes = list(range(x.rank))
    fill: Value | None = None
    number: float = 0.0
    if c.version < 11:
        pads = c.integers("paddings" if "paddings" in c.attrs else "pads")
        number = c.real("value", 0.0)
    else:
        pads = c.ints_of(1, "padding")
        fill = c.opt(2)
        if c.opt(3) is not None:
            axes = [c.axis(a, x.rank) for a in c.ints_of(3, "axes")]
    if len(pads) != 2 * len(axes):
        c.misfit(f"pads {len(axes)} axes by {len(pads)} numbers")
    before, after = [0] * x.rank, [0] * x.rank
    for index, axis in enumerate(axes):
        before[axis], after[axis] = pads[index], pads[index + len(axes)]
    if fill is not None and fill.data is not None:
        number = np.asarray(fill.data).reshape(-1)[0].item() if fill.size else 0
        fill = None
    return padded(c, x, before, after, mode, number, fill)


def padded(
    c: Call,
    x: Value,
    before: list[int],
    after: list[int],
    mode: str = "constant",
    number: float = 0.0,
    fill: Value | None = None,
) -> Value:
    """Negative padding cuts. ``fill``: a number that is computed."""
    for axis in range(x.rank):
        low, high = max(0, -before[axis]), max(0, -after[axis])
        if low + high > x.shape[axis] + max(0, before[axis]) + max(0, after[axis]):
            c.misfit(f"cuts {low + high} off an axis of {x.shape[axis]}")
        if low or high:
            if low + high > x.shape[axis]:
                c.refuse("pads and cuts more of one axis than there is")
            x = c.cut(x, axis, low, x.shape[axis] - high)
    grow = tuple(max(0, n) for n in before), tuple(max(0, n) for n in after)
    if not any(grow[0]) and not any(grow[1]):
        return x
    if x.size == 0 and mode == "constant":
        return c.full([b + d + a for b, d, a in zip(grow[0], x.shape, grow[1], strict=True)], number, x.dtype)
    if mode == "reflect":
        return _reflected(c, x, *grow)
    if fill is None:
        return c.op("pad", x, before=grow[0], after=grow[1], mode=mode, value=number)
    inside = c.op("pad", c.full(x.shape, 1, "bool"), before=grow[0], after=grow[1], mode="constant", value=False)
    wide = c.op("pad", x, before=grow[0], after=grow[1], mode="constant", value=0)
    return c.op("where", inside, wide, c.reshape(fill, []))


def _reflected(c: Call, x: Value, before: tuple[int, ...], after: tuple[int, ...]) -> Value:
    """More reflection than there is to reflect goes back and forth: then by index."""
    if all(max(b, a) < max(d, 1) for b, a, d in zip(before, after, x.shape, strict=True)):
        return c.op("pad", x, before=before, after=after, mode="reflect", value=0)
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        if low or high:
            size = x.shape[axis]
            index = np.pad(np.arange(size, dtype=np.int64), (low, high), mode="reflect")
            x = c.op("gather", x, c.constant(index), axis=axis)
    return x


@operator("CenterCropPad")
def center_crop_pad(c: Call) -> Result:
    x = c.value(0)
    want = c.ints_of(1, "shape")
    axes = [c.axis(a, x.rank) for a in c.integers("axes", list(range(x.rank)))]
    if len(want) != len(axes):
        c.misfit(f"crops {len(axes)} axes to {len(want)} sizes")
    before, after = [0] * x.rank, [0] * x.rank
    for axis, size in zip(axes, want, strict=True):
        extra = size - x.shape[axis]
        low = extra // 2 if extra > 0 else -(-extra // 2)
        before[axis], after[axis] = low, extra - low
    return padded(c, x, before, after)


@operator("DepthToSpace")
def depth_to_space(c: Call) -> Result:
    x, block = c.value(0), c.integer("blocksize")
    if x.rank != 4 or block < 1 or x.shape[1] % (block * block):
        c.misfit(f"moves depth of {list(x.shape)} into blocks of {block}")
    n, depth, h, w = x.shape
    depth //= block * block
    if c.text("mode", "DCR") == "DCR":
        split_up = c.reshape(x, [n, block, block, depth, h, w])
        moved = c.transpose(split_up, [0, 3, 4, 1, 5, 2])
    else:
        split_up = c.reshape(x, [n, depth, block, block, h, w])
        moved = c.transpose(split_up, [0, 1, 4, 2, 5, 3])
    return c.reshape(moved, [n, depth, h * block, w * block])


@operator("SpaceToDepth")
def space_to_depth(c: Call) -> Result:
    x, block = c.value(0), c.integer("blocksize")
    if x.rank != 4 or block < 1 or x.shape[2] % block or x.shape[3] % block:
        c.misfit(f"moves blocks of {block} of {list(x.shape)} into depth")
    n, depth, h, w = x.shape
    split_up = c.reshape(x, [n, depth, h // block, block, w // block, block])
    order = [0, 3, 5, 1, 2, 4] if c.text("mode", "DCR") == "DCR" else [0, 1, 3, 5, 2, 4]
    return c.reshape(c.transpose(split_up, order), [n, depth * block * block, h // block, w // block])


# ---------------------------------------------------------------- made up


def made_up(c: Call, count: int) -> None:
    if count > FEW:
        raise LimitError(f"{c.where} makes up a constant of {count:,} elements", "Give smaller sizes")


@operator("Range")
def range_(c: Call) -> Result:
    numbers = [c.const(index, what).reshape(-1)[0] for index, what in enumerate(("start", "limit", "step"))]
    dtype = c.value(0).dtype
    small = dtype in {"float16", "bfloat16"}
    start, limit, step = (n.astype(np.float32) if small else n for n in numbers)
    if step == 0:
        c.broken("counts in steps of zero")
    count = max(0, ceil((float(limit) - float(start)) / float(step)))
    made_up(c, count)
    return c.constant(start + np.arange(count).astype(start.dtype) * step, dtype)


@operator("EyeLike")
def eye_like(c: Call) -> Result:
    x = c.value(0)
    if x.rank != 2:
        c.misfit(f"makes a diagonal like a tensor of rank {x.rank}")
    made_up(c, x.size)
    dtype = c.dtype_attr("dtype", x.dtype)
    return c.constant(np.eye(x.shape[0], x.shape[1], k=c.integer("k", 0)), dtype)


@operator("Trilu")
def trilu(c: Call) -> Result:
    x = c.value(0)
    if x.rank < 2:
        c.misfit("takes a triangle of fewer than two axes")
    rows, columns = x.shape[-2:]
    made_up(c, rows * columns)
    away = np.arange(columns)[None, :] - np.arange(rows)[:, None]
    diagonal = c.opt(1)
    upper = c.flag("upper", default=True)
    if diagonal is None or diagonal.data is not None:
        k = 0 if diagonal is None else c.int_of(1, "diagonal")
        mask = c.constant(away >= k if upper else away <= k)
    else:
        distance = c.constant(away.astype(np.int64))
        k_value = c.reshape(c.cast(diagonal, "int64"), [])
        mask = c.op("greater_equal" if upper else "less_equal", distance, k_value)
    return c.op("where", mask, x, c.scalar(0, x))
