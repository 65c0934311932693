"""StableHLO's arithmetic, comparisons, conversions and products."""

from __future__ import annotations

from math import prod
from typing import Any

from fleetui.workshop.frontends.emit import FLOATS
from fleetui.workshop.frontends.stablehlo.importer import Handler, Importer, integer, on, word
from fleetui.workshop.frontends.stablehlo.reader import constant
from fleetui.workshop.graph.ir import Value


@on("constant")
def _constant(c: Importer, op: Any) -> Value:
    data, dtype = constant(op.attributes["value"])
    return c.b.constant(data, "c", dtype)


def _unary(name: str, **attrs: Any) -> Handler:
    return lambda c, op: c.b.op(name, c.arg(op, 0), **attrs)


for _theirs, _ours in (
    ("abs", "abs"), ("negate", "neg"), ("exponential", "exp"), ("log", "log"), ("exponential_minus_one", "expm1"),
    ("log_plus_one", "log1p"), ("logistic", "sigmoid"), ("tanh", "tanh"), ("sine", "sin"), ("cosine", "cos"),
    ("tan", "tan"), ("sqrt", "sqrt"), ("rsqrt", "rsqrt"), ("floor", "floor"), ("ceil", "ceil"), ("sign", "sign"),
    ("round_nearest_even", "round"), ("chlo.erf", "erf"), ("chlo.sinh", "sinh"), ("chlo.cosh", "cosh"),
    ("chlo.asin", "asin"), ("chlo.acos", "acos"), ("chlo.atan", "atan"), ("chlo.asinh", "asinh"),
    ("chlo.acosh", "acosh"), ("chlo.atanh", "atanh"), ("chlo.tan", "tan"),
):  # fmt: skip
    on(_theirs)(_unary(_ours))
on("chlo.square")(lambda c, op: c.b.op("mul", c.arg(op, 0), c.arg(op, 0)))


@on("optimization_barrier")
def _barrier(c: Importer, op: Any) -> list[Value]:
    return c.args(op)


@on("reduce_precision")
def _reduce_precision(c: Importer, op: Any) -> Value:
    bits = integer(op, "exponent_bits"), integer(op, "mantissa_bits")
    narrow = {(5, 10): "float16", (8, 7): "bfloat16", (8, 23): "float32"}.get(bits)
    if narrow is None:
        raise c.unsupported(op, f"to {bits} bits is not supported")
    x = c.arg(op, 0)
    return c.e.cast(c.e.cast(x, narrow), x.dtype)


@on("round_nearest_afz")
def _round_away(c: Importer, op: Any) -> Value:
    x = c.arg(op, 0)
    return c.b.op("mul", c.b.op("sign", x), c.b.op("floor", c.e.by("add", c.b.op("abs", x), 0.5)))


@on("cbrt")
def _cbrt(c: Importer, op: Any) -> Value:
    x = c.arg(op, 0)
    return c.b.op("mul", c.b.op("sign", x), c.e.by("pow", c.b.op("abs", x), 1 / 3))


@on("is_finite")
def _is_finite(c: Importer, op: Any) -> Value:
    x = c.arg(op, 0)
    bad = c.b.op("logical_or", c.b.op("isnan", x), c.b.op("isinf", x, positive=True, negative=True))
    return c.b.op("logical_not", bad)


@on("not")
def _not(c: Importer, op: Any) -> Value:
    x = c.arg(op, 0)
    return c.b.op("logical_not" if x.dtype == "bool" else "bitwise_not", x)


# ---------------------------------------------------------------- two operands


def binary(c: Importer, name: str, x: Value, y: Value) -> Value:
    """StableHLO's names for two operands of one dtype; logic on bools, bits on integers."""
    if name in {"and", "or", "xor"}:
        return c.b.op(f"logical_{name}" if x.dtype == "bool" else f"bitwise_{name}", x, y)
    if x.dtype == "bool" and name in {"add", "maximum"}:
        return c.b.op("logical_or", x, y)
    if x.dtype == "bool" and name in {"multiply", "minimum"}:
        return c.b.op("logical_and", x, y)
    return c.b.op(BINARY[name], x, y)


BINARY = {
    "add": "add", "subtract": "sub", "multiply": "mul", "divide": "div", "maximum": "maximum", "minimum": "minimum",
    "power": "pow", "remainder": "fmod", "atan2": "atan2", "shift_left": "shift_left",
    "and": "", "or": "", "xor": "",
}  # fmt: skip
for _name in BINARY:

    def _two(c: Importer, op: Any, name: str = _name) -> Value:
        return binary(c, name, c.arg(op, 0), c.arg(op, 1))

    on(_name)(_two)


@on("shift_right_arithmetic", "shift_right_logical")
def _shift_right(c: Importer, op: Any) -> Value:
    x, y = c.args(op)
    logical = op.name.endswith("logical")
    if logical and x.dtype.startswith("int"):
        wide = f"u{x.dtype}"
        return c.e.cast(c.b.op("shift_right", c.e.cast(x, wide), c.e.cast(y, wide)), x.dtype)
    return c.b.op("shift_right", x, y)


COMPARISONS = {
    "EQ": "equal", "NE": "not_equal", "LT": "less", "LE": "less_equal", "GT": "greater", "GE": "greater_equal",
}  # fmt: skip


@on("compare")
def _compare(c: Importer, op: Any) -> Value:
    x, y = c.args(op)
    direction = word(op, "comparison_direction")
    if x.dtype == "bool" and direction not in {"EQ", "NE"}:
        x, y = c.e.cast(x, "uint8"), c.e.cast(y, "uint8")
    return c.b.op(COMPARISONS[direction], x, y)


@on("select")
def _select(c: Importer, op: Any) -> Value:
    return c.b.op("where", *c.args(op))


@on("clamp")
def _clamp(c: Importer, op: Any) -> Value:
    low, x, high = c.args(op)
    if low.data is not None and high.data is not None and low.size == high.size == 1:
        kind = float if x.dtype in FLOATS else int
        return c.b.op("clip", x, low=kind(low.data.reshape(())), high=kind(high.data.reshape(())))
    return c.b.op("minimum", c.b.op("maximum", x, low), high)


@on("convert")
def _convert(c: Importer, op: Any) -> Value:
    return c.e.cast(c.arg(op, 0), c.dtype(op))


@on("batch_norm_inference")
def _batch_norm(c: Importer, op: Any) -> Value:
    x, scale, offset, mean, variance = c.args(op)
    axis = int(op.attributes["feature_index"].value)
    spread = c.b.op("rsqrt", c.e.by("add", variance, float(op.attributes["epsilon"].value)))
    factor = c.b.op("mul", scale, spread)
    shift = c.b.op("sub", offset, c.b.op("mul", mean, factor))
    shape = [1] * x.rank
    shape[axis] = x.shape[axis]
    return c.b.op("add", c.b.op("mul", x, c.e.reshape(factor, shape)), c.e.reshape(shift, shape))


# ---------------------------------------------------------------- products


@on("dot_general")
def _dot_general(c: Importer, op: Any) -> Value:
    from jaxlib.mlir.dialects import stablehlo

    x, y = c.args(op)
    numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
    batch = list(numbers.lhs_batching_dimensions), list(numbers.rhs_batching_dimensions)
    inner = list(numbers.lhs_contracting_dimensions), list(numbers.rhs_contracting_dimensions)
    return contracted(c, x, y, batch, inner, c.dtype(op))


@on("dot")
def _dot(c: Importer, op: Any) -> Value:
    x, y = c.args(op)
    return contracted(c, x, y, ([], []), ([x.rank - 1], [0]), c.dtype(op))


def contracted(
    c: Importer,
    x: Value,
    y: Value,
    batch: tuple[list[int], list[int]],
    inner: tuple[list[int], list[int]],
    dtype: str,
) -> Value:
    """Batch dimensions first, then what is left of each: one matrix product between transposes."""
    rows = [i for i in range(x.rank) if i not in {*batch[0], *inner[0]}]
    columns = [i for i in range(y.rank) if i not in {*batch[1], *inner[1]}]
    if x.dtype != y.dtype or (x.dtype not in FLOATS and dtype != x.dtype) or x.dtype == "bool":
        x, y = c.e.cast(x, dtype), c.e.cast(y, dtype)
    shape = [*(x.shape[i] for i in [*batch[0], *rows]), *(y.shape[i] for i in columns)]
    left = c.e.transpose(x, [*batch[0], *rows, *inner[0]])
    right = c.e.transpose(y, [*batch[1], *inner[1], *columns])
    depth = prod(x.shape[i] for i in inner[0])
    lead = [x.shape[i] for i in batch[0]]
    wide = prod(y.shape[i] for i in columns)
    if not lead and y.is_constant and len(inner[0]) == 1 and rows:
        out = c.e.matmul(left, c.e.reshape(right, [depth, wide]))
    else:
        high = prod(x.shape[i] for i in rows)
        out = c.e.matmul(c.e.reshape(left, [*lead, high, depth]), c.e.reshape(right, [*lead, depth, wide]))
    return c.e.cast(c.e.reshape(out, shape), dtype)
