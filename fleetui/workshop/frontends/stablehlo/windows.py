"""StableHLO's convolutions, reductions and windows. Their bodies are looked at: one known operation, or refused."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from fleetui.workshop.frontends.stablehlo.arithmetic import binary
from fleetui.workshop.frontends.stablehlo.importer import Importer, integer, ints, on, pairs, word
from fleetui.workshop.frontends.stablehlo.moving import spaced
from fleetui.workshop.graph.ir import Value

# ---------------------------------------------------------------- convolutions


@on("convolution")
def _convolution(c: Importer, op: Any) -> Value:
    from jaxlib.mlir.dialects import stablehlo

    x, w = c.args(op)
    if integer(op, "batch_group_count", 1) != 1:
        raise c.unsupported(op, "with batch groups is not supported")
    numbers = stablehlo.ConvDimensionNumbers(op.attributes["dimension_numbers"])
    space = list(numbers.input_spatial_dimensions)
    x = c.e.transpose(x, [numbers.input_batch_dimension, *space, numbers.input_feature_dimension])
    kernel = list(numbers.kernel_spatial_dimensions)
    w = c.e.transpose(w, [*kernel, numbers.kernel_input_feature_dimension, numbers.kernel_output_feature_dimension])
    count = len(space)
    if "window_reversal" in op.attributes:
        turned = [i for i, flag in enumerate(op.attributes["window_reversal"]) if flag]
        w = c.e.flip(w, turned) if turned else w
    strides, dilations = ints(op, "window_strides", [1] * count), ints(op, "rhs_dilation", [1] * count)
    pads, gaps = pairs(op, "padding", count), ints(op, "lhs_dilation", [1] * count)
    y = _convolved(c, op, x, w, strides, pads, dilations, gaps)
    back = [0] * (count + 2)
    back[numbers.output_batch_dimension], back[numbers.output_feature_dimension] = 0, count + 1
    for at, place in enumerate(numbers.output_spatial_dimensions):
        back[place] = at + 1
    return c.e.cast(c.e.transpose(y, back), c.dtype(op))


def _convolved(
    c: Importer, op: Any, x: Value, w: Value, strides: list[int], pads: list[tuple[int, int]], dilations: list[int],
    gaps: list[int],
) -> Value:  # fmt: skip
    """On channel-last operands. A convolution of a spaced-out input is a transposed one with a turned kernel."""
    count, groups = len(strides), integer(op, "feature_group_count", 1)
    if count == 0:
        return c.e.matmul(x, w)
    reach = [d * (k - 1) for d, k in zip(dilations, w.shape, strict=False)]
    turned = [(r - a, r - b) for r, (a, b) in zip(reach, pads, strict=True)]
    if any(g > 1 for g in gaps) and groups == 1 and strides == [1] * count and all(a >= 0 for a, _ in turned):
        kernel = c.e.flip(w, list(range(count)))
        return c.b.op(
            "conv_transpose", x, kernel, None, strides=tuple(gaps), dilations=tuple(dilations), groups=1,
            pads=tuple((a, max(0, b)) for a, b in turned), output_padding=tuple(max(0, -b) for _, b in turned),
        )  # fmt: skip
    for axis, gap in enumerate(gaps):
        if gap > 1 and x.shape[1 + axis] > 1:
            x = spaced(c, x, 1 + axis, gap - 1, 0)
    if any(p < 0 for pair in pads for p in pair):
        x = c.e.pad(x, [(0, 0), *pads, (0, 0)])
        pads = [(0, 0)] * count
    return c.b.op(
        "conv", x, w, None, strides=tuple(strides), pads=tuple(pads), dilations=tuple(dilations), groups=groups
    )


# ---------------------------------------------------------------- reductions

KINDS = {"add": "sum", "maximum": "max", "minimum": "min", "multiply": "prod", "or": "max", "and": "min"}
NEUTRAL = {"sum": 0.0, "prod": 1.0, "max": -np.inf, "min": np.inf}


def body(op: Any) -> str:
    """The name of the one operation in a reduction's body, empty if it is something else."""
    block = op.regions[0].blocks[0]
    found = list(block.operations)
    if len(found) != 2 or len(block.arguments) != 2:
        return ""
    name: str = found[0].operation.name
    operands = set(found[0].operation.operands)
    return name.removeprefix("stablehlo.") if operands == set(block.arguments) else ""


def _neutral(value: Value, kind: str) -> bool:
    if value.data is None:
        return False
    number = value.data.reshape(()).item()
    if kind in {"sum", "prod"}:
        return bool(number == NEUTRAL[kind])
    if value.dtype == "bool":
        return bool(number == (kind == "min"))
    if value.dtype.startswith(("int", "uint")):
        edge = np.iinfo(value.dtype)
        return bool(number == (edge.min if kind == "max" else edge.max))
    return bool(number == NEUTRAL[kind])


@on("reduce")
def _reduce(c: Importer, op: Any) -> Any:
    values = c.args(op)
    half = len(values) // 2
    axes = ints(op, "dimensions")
    if half == 2:
        return _arg_extreme(c, op, values, axes)
    name = body(op)
    if half != 1 or name not in KINDS:
        raise c.unsupported(op, "with this body is not supported")
    x, start = values
    kind = KINDS[name]
    boolean = x.dtype == "bool"
    out = c.e.reduce(kind, c.e.cast(x, "uint8") if boolean else x, axes) if axes else x
    out = c.e.cast(out, "bool") if boolean else out
    return out if _neutral(start, kind) else binary(c, name, out, start)


def _arg_extreme(c: Importer, op: Any, values: list[Value], axes: list[int]) -> list[Value]:
    """The largest or smallest and its place: what argmax and argmin become."""
    x, places = values[0], values[1]
    directions = [
        word(inner.operation, "comparison_direction")
        for inner in op.regions[0].blocks[0].operations
        if inner.operation.name == "stablehlo.compare"
    ]
    largest, smallest = {"GT", "GE"} & set(directions), {"LT", "LE"} & set(directions)
    # Places are compared by LT too, to have the first of equals.
    kind = "max" if largest else "min" if smallest else ""
    if len(axes) != 1 or not kind or places.data is None or not _counts(places, axes[0]):
        raise c.unsupported(op, "of two tensors with this body is not supported")
    first = c.b.op(f"arg{kind}", x, axis=axes[0], keepdims=False, last=False)
    return [c.e.reduce(kind, x, axes), c.e.cast(first, places.dtype)]


def _counts(value: Value, axis: int) -> bool:
    shape = [1] * value.rank
    shape[axis] = -1
    want = np.arange(value.shape[axis]).reshape(shape)
    return value.data is not None and bool((value.data == want).all())


# ---------------------------------------------------------------- windows


@on("reduce_window")
def _reduce_window(c: Importer, op: Any) -> Value:
    values = c.args(op)
    name = body(op)
    if len(values) != 2 or name not in {"add", "maximum", "minimum"}:
        raise c.unsupported(op, "with this body is not supported")
    x, start = values
    rank = x.rank
    sizes = ints(op, "window_dimensions")
    strides, dilations = ints(op, "window_strides", [1] * rank), ints(op, "window_dilations", [1] * rank)
    pads = pairs(op, "padding", rank)
    kind = KINDS[name]
    if any(d != 1 for d in ints(op, "base_dilations", [1] * rank)) or not _neutral(start, kind):
        raise c.unsupported(op, "of this form is not supported")
    space = [i for i in range(rank) if sizes[i] != 1 or strides[i] != 1 or pads[i] != (0, 0)]
    if not space:
        return x
    if len(space) == 1 and name == "add" and strides[space[0]] == dilations[space[0]] == 1:
        axis, size = space[0], x.shape[space[0]]
        if sizes[axis] == size and pads[axis] in {(size - 1, 0), (0, size - 1)}:
            return c.b.op("cumsum", x, axis=axis, exclusive=False, reverse=pads[axis][1] > 0)
    if len(space) > 3:
        raise c.unsupported(op, "over more than three dimensions is not supported")
    rest = [i for i in range(rank) if i not in space]
    order = [*rest[:1], *space, *rest[1:]]
    y = c.e.transpose(x, order)
    lead = x.shape[rest[0]] if rest else 1
    tail = prod(x.shape[i] for i in rest[1:])
    y = c.e.reshape(y, [lead, *(x.shape[i] for i in space), tail])
    if any(p < 0 for i in space for p in pads[i]):
        raise c.unsupported(op, "with negative padding is not supported")
    y = _pooled(c, y, name, [sizes[i] for i in space], [strides[i] for i in space], [pads[i] for i in space],
                [dilations[i] for i in space])  # fmt: skip
    shape = [*(x.shape[i] for i in rest[:1]), *y.shape[1:-1], *(x.shape[i] for i in rest[1:])]
    return c.e.transpose(c.e.reshape(y, shape), [order.index(i) for i in range(rank)])


def _pooled(
    c: Importer, x: Value, name: str, kernel: list[int], strides: list[int], pads: list[tuple[int, int]],
    dilations: list[int],
) -> Value:  # fmt: skip
    if name == "add":
        mean = c.e.pool_last(x, "avg", kernel, strides, pads, dilations, include_pad=True)
        return c.e.by("mul", mean, float(prod(kernel)))
    if name == "minimum":
        return c.b.op("neg", c.e.pool_last(c.b.op("neg", x), "max", kernel, strides, pads, dilations))
    return c.e.pool_last(x, "max", kernel, strides, pads, dilations)
