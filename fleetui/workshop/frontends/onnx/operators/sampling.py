"""Reading an image at computed places: grid samples, affine grids, regions of interest, deformable windows.

All of them turn the image into rows of channels and gather rows by a computed index, weighted by how near they lie.
"""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np

from fleetui.workshop.frontends.onnx.call import Call, Result, operator
from fleetui.workshop.frontends.onnx.operators.contraction import conv_window
from fleetui.workshop.frontends.onnx.operators.shapes import made_up
from fleetui.workshop.frontends.onnx.operators.windows import to_first, to_last
from fleetui.workshop.graph.ir import Value


def _times(c: Call, x: Value, number: float) -> Value:
    return c.op("mul", x, c.scalar(number, x))


def _plus(c: Call, x: Value, number: float) -> Value:
    return c.op("add", x, c.scalar(number, x))


def _flat_index(c: Call, at: list[Value], sizes: list[int], base: Value) -> Value:
    """Row number of a place given by whole-numbered float coordinates that lie inside."""
    row = base
    for value, stride in zip(at, [prod(sizes[i + 1 :]) for i in range(len(sizes))], strict=True):
        whole = c.cast(value, "int32")
        row = c.op("add", row, _times(c, whole, stride) if stride != 1 else whole)
    return row


def _batch_base(c: Call, batch: int, rows: int, rank: int) -> Value:
    return c.constant((np.arange(batch, dtype=np.int32) * rows).reshape(batch, *[1] * (rank - 1)))


# ---------------------------------------------------------------- grid sample


@operator("GridSample")
def grid_sample(c: Call) -> Result:
    x, grid = c.value(0), c.value(1)
    spatial = x.rank - 2
    if spatial not in {1, 2, 3} or grid.rank != x.rank or grid.shape[-1] != spatial or grid.shape[0] != x.shape[0]:
        c.misfit(f"samples {list(x.shape)} at places of the shape {list(grid.shape)}")
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(c.text("mode", "linear"), c.text("mode", "linear"))
    padding, corners = c.text("padding_mode", "zeros"), c.flag("align_corners")
    if mode not in {"linear", "nearest", "cubic"} or padding not in {"zeros", "border", "reflection"}:
        c.broken(f"samples in the mode '{mode}' with the padding '{padding}'")
    kind = x.dtype if x.dtype in {"float32", "float64"} else "float32"
    sizes = list(x.shape[2:])
    rows = c.reshape(c.cast(to_last(c, x), kind), [x.shape[0] * prod(sizes), x.shape[1]])
    grid = c.cast(grid, kind)
    at: list[Value] = []
    for i, size in enumerate(sizes):
        part = c.cut(grid, grid.rank - 1, spatial - 1 - i, spatial - i)
        part = c.squeeze(part, [grid.rank - 1])
        half = (size - 1) / 2 if corners else size / 2
        place = _plus(c, _times(c, part, half), half if corners else half - 0.5)
        if mode == "nearest":
            place = c.op("round", place)
        # Cubic taps reach beyond the edge, so that there it is each tap that is kept inside, not their centre.
        at.append(
            _kept_in(c, place, size, "zeros" if mode == "cubic" and padding == "border" else padding, corners)
        )
    base = _batch_base(c, x.shape[0], prod(sizes), x.rank - 1)
    out = c.cast(_sampled(c, rows, at, sizes, base, mode, padding, corners), x.dtype)
    return c.transpose(out, [0, out.rank - 1, *range(1, out.rank - 1)])


def _kept_in(c: Call, at: Value, size: int, padding: str, corners: bool) -> Value:
    if padding == "border":
        return c.op("clip", at, low=0.0, high=float(size - 1))
    if padding == "reflection":
        return _reflected(c, at, size, corners)
    # Far outside and not a number are as good as just outside: they must stay inside an index's range.
    return c.op("clip", c.op("where", c.op("isnan", at), c.scalar(-4, at), at), low=-4.0, high=size + 4.0)


def _reflected(c: Call, at: Value, size: int, corners: bool) -> Value:
    low = 0.0 if corners else -0.5
    span = float(size - 1 if corners else size)
    if span <= 0:
        return _times(c, at, 0.0)
    away = c.op("abs", _plus(c, at, -low))
    turned = c.op("mod", away, c.scalar(2 * span, away))
    folded = c.op("minimum", turned, c.op("sub", c.scalar(2 * span, turned), turned))
    return _plus(c, folded, low)


def _taps(c: Call, at: Value, mode: str) -> list[tuple[Value, Value | None]]:
    """Whole-numbered places near one coordinate and their shares."""
    if mode == "nearest":
        return [(at, None)]
    first = c.op("floor", at)
    part = c.op("sub", at, first)
    if mode == "linear":
        return [(first, c.op("sub", c.scalar(1, part), part)), (_plus(c, first, 1), part)]
    taps: list[tuple[Value, Value | None]] = []
    for step in (-1, 0, 1, 2):
        away = c.op("abs", _plus(c, part, -step))
        taps.append((_plus(c, first, step) if step else first, _keys(c, away, far=step in {-1, 2})))
    return taps


def _keys(c: Call, away: Value, *, far: bool, a: float = -0.75) -> Value:
    """Keys' cubic kernel, its outer or its inner piece."""
    coefficients = (a, -5 * a, 8 * a, -4 * a) if far else (a + 2, -(a + 3), 0.0, 1.0)
    out = c.scalar(coefficients[0], away)
    for number in coefficients[1:]:
        out = c.op("mul", out, away)
        out = _plus(c, out, number) if number else out
    return out


def _sampled(
    c: Call, rows: Value, at: list[Value], sizes: list[int], base: Value, mode: str, padding: str, corners: bool
) -> Value:
    total: Value | None = None
    for taps in product(*(_taps(c, place, mode) for place in at)):
        weight: Value | None = None
        places: list[Value] = []
        for (place, share), size in zip(taps, sizes, strict=True):
            weight = share if weight is None else weight if share is None else c.op("mul", weight, share)
            if padding == "zeros":
                outside = c.op(
                    "logical_or",
                    c.op("less", place, c.scalar(0, place)),
                    c.op("greater", place, c.scalar(size - 1, place)),
                )
                one = c.scalar(1, place) if weight is None else weight
                weight = c.op("where", outside, c.scalar(0, place), one)
            elif padding == "reflection":
                place = c.op("round", _reflected(c, place, size, corners))  # noqa: PLW2901 - the same place, folded
            places.append(c.op("clip", place, low=0.0, high=float(size - 1)))
        picked = c.op("gather", rows, _flat_index(c, places, sizes, base), axis=0)
        if weight is not None:
            picked = c.op("mul", picked, c.unsqueeze(weight, [weight.rank]))
        total = picked if total is None else c.op("add", total, picked)
    if total is None:
        c.broken("samples nothing")
    return total


@operator("AffineGrid")
def affine_grid(c: Call) -> Result:
    theta = c.value(0)
    sizes = c.ints_of(1, "size")
    spatial = len(sizes) - 2
    if spatial not in {2, 3} or theta.shape != (sizes[0], spatial, spatial + 1):
        c.misfit(f"makes a grid of {sizes} from a transform of the shape {list(theta.shape)}")
    made_up(c, prod(sizes[2:]) * (spatial + 1))
    lines = [
        np.linspace(-1, 1, n) if c.flag("align_corners") else (2 * np.arange(n) + 1) / n - 1 for n in sizes[2:]
    ]
    mesh = np.stack([*np.meshgrid(*lines, indexing="ij")[::-1], np.ones(sizes[2:])], axis=-1)
    base = c.constant(mesh.reshape(1, -1, spatial + 1), theta.dtype)
    base = c.broadcast(base, [sizes[0], base.shape[1], spatial + 1])
    grid = c.op("matmul", base, c.transpose(theta, [0, 2, 1]), transpose_a=False, transpose_b=False)
    return c.reshape(grid, [sizes[0], *sizes[2:], spatial])


# ---------------------------------------------------------------- regions


@operator("RoiAlign")
def roi_align(c: Call) -> Result:
    x, rois, batch = c.value(0), c.value(1), c.value(2)
    if x.rank != 4 or rois.rank != 2 or rois.shape[1] != 4:
        c.misfit(f"aligns regions of the shape {list(rois.shape)} in {list(x.shape)}")
    count, height, width = rois.shape[0], c.integer("output_height", 1), c.integer("output_width", 1)
    half = c.version >= 16 and c.text("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    samples = c.integer("sampling_ratio", 0)
    if samples <= 0:
        c.refuse(
            "chooses its number of samples by the size of each region", "Set its sampling_ratio before exporting"
        )
    rois = _times(c, rois, c.real("spatial_scale", 1.0))
    if half:
        rois = _plus(c, rois, -0.5)
    x1, y1, x2, y2 = (c.reshape(c.cut(rois, 1, i, i + 1), [count, 1, 1, 1, 1]) for i in range(4))

    def places(start: Value, end: Value, bins: int, size: int, *, down: bool) -> tuple[Value, Value]:
        """Coordinates of all samples along one direction, and which of them lie in the image."""
        extent = c.op("sub", end, start)
        if not half:
            extent = c.op("maximum", extent, c.scalar(1, extent))
        share = (np.arange(bins)[:, None] + (np.arange(samples)[None, :] + 0.5) / samples) / bins
        steps = c.constant(
            share.reshape((1, bins, samples, 1, 1) if down else (1, 1, 1, bins, samples)), rois.dtype
        )
        at = c.op("add", start, c.op("mul", extent, steps))
        seen = c.op(
            "logical_and",
            c.op("greater_equal", at, c.scalar(-1, at)),
            c.op("less_equal", at, c.scalar(size, at)),
        )
        return c.op("clip", at, low=0.0, high=float(size - 1)), seen

    n, _, rows, columns = x.shape
    ys, seen_y = places(y1, y2, height, rows, down=True)
    xs, seen_x = places(x1, x2, width, columns, down=False)
    table = c.reshape(to_last(c, x), [n * rows * columns, x.shape[1]])
    base = _times(c, c.reshape(c.cast(batch, "int32"), [count, 1, 1, 1, 1]), rows * columns)
    seen = c.cast(c.op("logical_and", seen_y, seen_x), x.dtype)
    parts: list[Value] = []
    for (y, wy), (z, wz) in product(_taps(c, ys, "linear"), _taps(c, xs, "linear")):
        if wy is None or wz is None:
            c.broken("has no shares")
        inside = [
            c.op("clip", y, low=0.0, high=float(rows - 1)),
            c.op("clip", z, low=0.0, high=float(columns - 1)),
        ]
        picked = c.op("gather", table, _flat_index(c, inside, [rows, columns], base), axis=0)
        weight = c.op("mul", c.op("mul", wy, wz), seen)
        parts.append(c.op("mul", picked, c.unsqueeze(weight, [weight.rank])))
    join = "maximum" if c.text("mode", "avg") == "max" else "add"
    total = parts[0]
    for part in parts[1:]:
        total = c.op(join, total, part)
    pooled = c.reduce(total, "max" if join == "maximum" else "mean", [2, 4], keepdims=False)
    return to_first(c, pooled)


# ---------------------------------------------------------------- deformable


@operator("DeformConv")
def deform_conv(c: Call) -> Result:
    x, w, offset, bias, mask = c.value(0), c.value(1), c.value(2), c.opt(3), c.opt(4)
    if x.rank != 4:
        c.refuse(f"runs over {x.rank - 2} spatial dimensions; we do 2")
    at = conv_window(c, x, w)
    n, channels, rows, columns = x.shape
    groups, fields = c.integer("group", 1), c.integer("offset_group", 1)
    taps, (height, width) = prod(at.kernel), at.out
    if channels % fields or offset.shape != (n, fields * taps * 2, height, width):
        c.misfit(f"has offsets of the shape {list(offset.shape)}")
    moved = c.reshape(offset, [n, fields, taps, 2, height, width])
    steps = np.array(list(product(*(range(k) for k in at.kernel))))
    own: list[Value] = []
    for axis, size in enumerate((height, width)):
        line = np.arange(size) * at.strides[axis] - at.pads[axis][0]
        column = line.reshape(1, -1, 1) if axis == 0 else line.reshape(1, 1, -1)
        grid = column + (steps[:, axis] * at.dilations[axis])[:, None, None]
        shift = c.squeeze(c.cut(moved, 3, axis, axis + 1), [3])
        place = c.op("add", shift, c.constant(grid[None, None], x.dtype))
        own.append(_kept_in(c, place, (rows, columns)[axis], "zeros", corners=False))
    # One table for each field of offsets: its own share of the channels.
    share = channels // fields
    table = c.reshape(to_last(c, x), [n, rows * columns, fields, share])
    table = c.reshape(c.transpose(table, [0, 2, 1, 3]), [n * fields * rows * columns, share])
    base = c.constant((np.arange(n * fields, dtype=np.int32) * rows * columns).reshape(n, fields, 1, 1, 1))
    seen = _sampled(c, table, own, [rows, columns], base, "linear", "zeros", corners=False)
    if mask is not None:
        seen = c.op("mul", seen, c.reshape(mask, [n, fields, taps, height, width, 1]))
    # [n, field, tap, h, w, share] → [n, h, w, channel, tap] to meet the weights in their own order.
    columns_of = c.reshape(
        c.transpose(seen, [0, 3, 4, 1, 5, 2]), [n * height * width, groups, channels * taps // groups]
    )
    made = w.shape[0] // groups
    kernel = c.transpose(c.reshape(w, [groups, made, channels * taps // groups]), [0, 2, 1])
    out = c.op("matmul", c.transpose(columns_of, [1, 0, 2]), kernel, transpose_a=False, transpose_b=False)
    out = c.reshape(c.transpose(out, [1, 0, 2]), [n, height, width, w.shape[0]])
    out = out if bias is None else c.op("add", out, bias)
    return to_first(c, out)
