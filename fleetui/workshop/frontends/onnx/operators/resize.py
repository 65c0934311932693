"""Resize and Upsample: every mode is one small table for each axis, made here with numpy.

A table says for each output element which input elements it is made of and in what shares; nearest needs the index
alone. Images go through channel last, like everything that slides over space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np

from fleetui.workshop.frontends.onnx.call import Call, Result, operator
from fleetui.workshop.frontends.onnx.operators.shapes import made_up
from fleetui.workshop.frontends.onnx.operators.windows import to_first, to_last
from fleetui.workshop.graph.ir import Array, Value


@dataclass(frozen=True, slots=True)
class Axis:
    size: int
    out: int
    scale: float
    start: float = 0.0
    end: float = 1.0


@dataclass(frozen=True, slots=True)
class Rule:
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude: bool = False
    antialias: bool = False
    outside: float | None = None


@operator("Resize")
def resize(c: Call) -> Result:
    x = c.value(0)
    if c.version < 11:
        rule = Rule(c.text("mode", "nearest"), "asymmetric", "simple")
        scales = [float(s) for s in c.const(1, "scales").reshape(-1)]
        axes = [Axis(d, floor(d * s), s) for d, s in zip(x.shape, _fitting(c, scales, x.rank), strict=True)]
        return resized(c, x, axes, rule)
    coordinates = c.text("coordinate_transformation_mode", "half_pixel")
    crop = coordinates == "tf_crop_and_resize"
    rule = Rule(
        c.text("mode", "nearest"),
        coordinates,
        c.text("nearest_mode", "round_prefer_floor"),
        c.real("cubic_coeff_a", -0.75),
        c.flag("exclude_outside"),
        c.flag("antialias"),
        c.real("extrapolation_value", 0.0) if crop else None,
    )
    named = [c.axis(a, x.rank) for a in c.integers("axes", list(range(x.rank)))]
    roi = [float(n) for n in c.const(1, "region").reshape(-1)] if crop and c.opt(1) is not None else []
    if roi and len(roi) != 2 * len(named):
        c.misfit(f"has a region of {len(roi)} numbers for {len(named)} axes")
    axes = [Axis(d, d, 1.0) for d in x.shape]
    sizes = c.opt(3)
    if sizes is not None and sizes.size:
        want = _fitting(c, c.ints_of(3, "sizes"), len(named))
        want, chosen = _policy(c, want, [x.shape[a] for a in named])
    else:
        chosen = [float(s) for s in _fitting(c, c.const(2, "scales").reshape(-1).tolist(), len(named))]
        want = [floor(x.shape[a] * s) for a, s in zip(named, chosen, strict=True)]
    for index, axis in enumerate(named):
        low, high = (roi[index], roi[index + len(named)]) if roi else (0.0, 1.0)
        axes[axis] = Axis(x.shape[axis], int(want[index]), chosen[index], low, high)
    return resized(c, x, axes, rule)


@operator("Upsample")
def upsample(c: Call) -> Result:
    x = c.value(0)
    if c.version < 7:
        scales = [1.0, 1.0, c.real("height_scale"), c.real("width_scale")]
    elif c.version < 9:
        scales = [float(s) for s in c.reals("scales")]
    else:
        scales = [float(s) for s in c.const(1, "scales").reshape(-1)]
    mode = {"bilinear": "linear"}.get(c.text("mode", "nearest"), c.text("mode", "nearest"))
    axes = [Axis(d, floor(d * s), s) for d, s in zip(x.shape, _fitting(c, scales, x.rank), strict=True)]
    return resized(c, x, axes, Rule(mode, "asymmetric", "floor"))


def _fitting(c: Call, numbers: Sequence[float], count: int) -> list[float]:
    if len(numbers) != count:
        c.misfit(f"has {len(numbers)} scales or sizes for {count} axes")
    if any(n <= 0 for n in numbers):
        c.misfit("resizes to nothing")
    return list(numbers)


def _policy(c: Call, want: list[float], have: list[int]) -> tuple[list[float], list[float]]:
    policy = c.text("keep_aspect_ratio_policy", "stretch")
    scales = [w / h for w, h in zip(want, have, strict=True)]
    if policy == "stretch":
        return want, scales
    one = min(scales) if policy == "not_larger" else max(scales)
    return [floor(one * h + 0.5) for h in have], [one] * len(have)


# ---------------------------------------------------------------- tables


def resized(c: Call, x: Value, axes: list[Axis], rule: Rule) -> Value:
    if rule.mode not in {"nearest", "linear", "cubic"}:
        c.broken(f"resizes in the mode '{rule.mode}'")
    work = [i for i, a in enumerate(axes) if a.out != a.size or a.scale != 1.0 or rule.outside is not None]
    for i in work:
        made_up(c, axes[i].out)
    image = 3 <= x.rank <= 5 and not {0, 1} & set(work)
    dtype = x.dtype
    whole = rule.mode != "nearest" and not dtype.startswith(("float", "bfloat"))
    y = c.cast(x, "float32") if whole else x
    y = to_last(c, y) if image else y
    inside: dict[int, Array] = {}
    for i in work:
        at = positions(axes[i], rule.coordinates)
        if rule.outside is not None:
            inside[i] = (at >= 0) & (at <= axes[i].size - 1)
        place = i - 1 if image else i
        if rule.mode == "nearest":
            y = c.op("gather", y, c.constant(nearest(at, axes[i], rule.rounding)), axis=place)
        else:
            index, weight = table(at, axes[i], rule)
            y = c.op("interp", y, c.constant(index), c.constant(weight), axis=place)
    y = to_first(c, y) if image else y
    if any(not mask.all() for mask in inside.values()):
        whole_mask: Value | None = None
        for i, mask in inside.items():
            part = c.constant(mask.reshape([-1 if j == i else 1 for j in range(x.rank)]))
            whole_mask = part if whole_mask is None else c.op("logical_and", whole_mask, part)
        y = c.op("where", whole_mask, y, c.scalar(rule.outside or 0.0, y))
    return c.cast(y, dtype)


def positions(axis: Axis, coordinates: str) -> Array:
    """Where in the input each output element lies."""
    at = np.arange(axis.out, dtype=np.float64)
    size, scale = axis.size, axis.scale
    stretched = scale * size
    if coordinates == "half_pixel":
        return (at + 0.5) / scale - 0.5
    if coordinates == "half_pixel_symmetric":
        offset = size / 2 * (1 - axis.out / stretched)
        return offset + (at + 0.5) / scale - 0.5
    if coordinates == "pytorch_half_pixel":
        return (at + 0.5) / scale - 0.5 if axis.out > 1 else at * 0
    if coordinates == "align_corners":
        return at * (size - 1) / (stretched - 1) if stretched != 1 else at * 0
    if coordinates == "tf_half_pixel_for_nn":
        return (at + 0.5) / scale
    if coordinates == "tf_crop_and_resize":
        if axis.out > 1:
            return axis.start * (size - 1) + at * (axis.end - axis.start) * (size - 1) / (axis.out - 1)
        return at * 0 + 0.5 * (axis.start + axis.end) * (size - 1)
    return at / scale


def nearest(at: Array, axis: Axis, rounding: str) -> Array:
    if rounding == "simple":  # before version 11: shrinking takes the next element, growing the one before
        rounding = "ceil" if axis.scale < 1 else "floor"
    found = {
        "round_prefer_floor": lambda: np.ceil(at - 0.5),
        "round_prefer_ceil": lambda: np.floor(at + 0.5),
        "floor": lambda: np.floor(at),
        "ceil": lambda: np.ceil(at),
    }[rounding]()
    return np.clip(found, 0, axis.size - 1).astype(np.int32)


def table(at: Array, axis: Axis, rule: Rule) -> tuple[Array, Array]:
    """Index and weight of each tap: a kernel laid over the input, wider than one element where it smooths."""
    shrink = min(1.0, axis.scale) if rule.antialias else 1.0
    reach = (2 if rule.mode == "cubic" else 1) / shrink
    taps = 2 * ceil(reach)
    index = np.floor(at)[:, None] + np.arange(1 - ceil(reach), ceil(reach) + 1)[None, :taps]
    away = np.abs(index - at[:, None]) * shrink
    weight = _cubic(away, rule.cubic) if rule.mode == "cubic" else np.maximum(0.0, 1 - away)
    if rule.exclude:
        weight = np.where((index < 0) | (index > axis.size - 1), 0.0, weight)
    total = weight.sum(axis=1, keepdims=True)
    weight = weight / np.where(total == 0, 1, total)
    return np.clip(index, 0, axis.size - 1).astype(np.int32), weight.astype(np.float32)


def _cubic(away: Array, a: float) -> Array:
    """Keys' kernel."""
    near = ((a + 2) * away - (a + 3)) * away * away + 1
    far = ((a * away - 5 * a) * away + 8 * a) * away - 4 * a
    return np.where(away <= 1, near, np.where(away < 2, far, 0.0))
