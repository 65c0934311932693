"""ATen's arithmetic, comparisons, activations and choices, element by element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fleetui.workshop.errors import UnsupportedError
from fleetui.workshop.frontends.emit import FLOATS
from fleetui.workshop.frontends.torch.program import Args, Handler, Importer, on
from fleetui.workshop.graph.ir import Value


def either(a: Args, *names: str) -> Any:
    """The argument under whichever name it has: a tensor or a number."""
    return next((a.get(name) for name in names if a.has(name)), None)


def promoted(c: Importer, x: Any, y: Any) -> tuple[Value, Value]:
    """Two operands (numbers or tensors) in the dtype in which PyTorch compares them."""
    if isinstance(x, Value) and isinstance(y, Value):
        dtype = _promote(x, y)
    else:
        tensor, number = (x, y) if isinstance(x, Value) else (y, x)
        dtype = tensor.dtype
        if isinstance(number, float) and dtype not in FLOATS:
            dtype = "float32"
        elif isinstance(number, int) and not isinstance(number, bool) and dtype == "bool":
            dtype = "int64"
    return operand(c, x, dtype), operand(c, y, dtype)


def _promote(x: Value, y: Value) -> str:
    """Scalars (rank 0) promote only to a higher kind: bool, whole, float."""
    if x.dtype == y.dtype:
        return x.dtype
    kinds = [_rank(v.dtype) for v in (x, y)]
    if (x.rank == 0) != (y.rank == 0):
        tensor, scalar = (y, x) if x.rank == 0 else (x, y)
        if _rank(tensor.dtype) >= _rank(scalar.dtype):
            return tensor.dtype
        return scalar.dtype
    if kinds[0] != kinds[1]:
        return x.dtype if kinds[0] > kinds[1] else y.dtype
    if {x.dtype, y.dtype} == {"float16", "bfloat16"}:
        return "float32"
    if "bfloat16" in {x.dtype, y.dtype}:
        return y.dtype if x.dtype == "bfloat16" else x.dtype
    return str(np.promote_types(x.dtype, y.dtype))


def _rank(dtype: str) -> int:
    return 2 if dtype in FLOATS else 0 if dtype == "bool" else 1


def operand(c: Importer, x: Any, dtype: str) -> Value:
    if isinstance(x, Value):
        return c.e.cast(x, dtype)
    if x is None or isinstance(x, str | list):
        raise UnsupportedError(f"at {c.b.source}: an operand is neither a tensor nor a number", "Replace it")
    return c.e.full((), x, dtype)


def unary(op: str, *, as_float: bool = False, **attrs: Any) -> Handler:
    def handler(c: Importer, a: Args) -> Value:
        x = a.tensor("self") if a.has("self") else a.tensor("input")
        if as_float and x.dtype not in FLOATS:
            x = c.e.cast(x, c.out_dtype or "float32")
        return c.b.op(op, x, **attrs)

    return handler


for _op in ("neg", "abs", "sign", "bitwise_not", "relu"):
    on(_op)(unary(_op))
for _op in (
    "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "reciprocal", "erf", "sigmoid", "tanh", "sin", "cos", "tan",
    "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "mish", "silu", "softsign",
):  # fmt: skip
    on(_op)(unary(_op, as_float=True))
on("arcsin")(unary("asin", as_float=True))
on("arctan")(unary("atan", as_float=True))
on("hardswish")(unary("hard_swish"))
on("hardsigmoid")(unary("hard_sigmoid", alpha=1 / 6, beta=0.5))
on("relu6")(unary("clip", low=0.0, high=6.0))
on("isnan")(unary("isnan"))
on("isinf")(unary("isinf", positive=True, negative=True))
on("sgn")(unary("sign"))


for _op in ("floor", "ceil", "trunc"):

    def _one(c: Importer, a: Args, op: str = _op) -> Value:
        x = a.tensor("self")
        return c.b.op(op if x.dtype in FLOATS else "identity", x)

    on(_op)(_one)


@on("round")
def _round(c: Importer, a: Args) -> Value:
    x = a.tensor("self")
    decimals = int(a.get("decimals", 0))
    if decimals:
        return c.e.by("div", c.b.op("round", c.e.by("mul", x, 10.0**decimals)), 10.0**decimals)
    return c.b.op("round" if x.dtype in FLOATS else "identity", x)


@on("exp2")
def _exp2(c: Importer, a: Args) -> Value:
    return c.b.op("exp", c.e.by("mul", c.e.cast(a.tensor("self"), c.out_dtype), math.log(2)))


def _log(base: float) -> Handler:
    def handler(c: Importer, a: Args) -> Value:
        return c.e.by("mul", c.b.op("log", c.e.cast(a.tensor("self"), c.out_dtype)), 1 / math.log(base))

    return handler


on("log2")(_log(2))
on("log10")(_log(10))


@on("square")
def _square(c: Importer, a: Args) -> Value:
    return c.b.op("mul", a.tensor("self"), a.tensor("self"))


@on("frac")
def _frac(c: Importer, a: Args) -> Value:
    x = a.tensor("self")
    return c.b.op("sub", x, c.b.op("trunc", x))


@on("isfinite")
def _isfinite(c: Importer, a: Args) -> Value:
    x = a.tensor("self")
    bad = c.b.op("logical_or", c.b.op("isnan", x), c.b.op("isinf", x, positive=True, negative=True))
    return c.b.op("logical_not", bad)


@on("nan_to_num")
def _nan_to_num(c: Importer, a: Args) -> Value:
    x = a.tensor("self")
    large = float(np.finfo(x.dtype).max) if x.dtype != "bfloat16" else 3.3895313892515355e38
    nan = c.e.like(a.get("nan", 0.0), x)
    y = c.b.op("where", c.b.op("isnan", x), nan, x)
    for positive, limit in ((True, a.get("posinf", large)), (False, a.get("neginf", -large))):
        hit = c.b.op("isinf", y, positive=positive, negative=not positive)
        y = c.b.op("where", hit, c.e.like(limit, x), y)
    return y


# ---------------------------------------------------------------- two operands


def _arithmetic(op: str, *, swapped: bool = False) -> Handler:
    def handler(c: Importer, a: Args) -> Value:
        x, y = either(a, "self", "input"), either(a, "other")
        dtype = c.out_dtype
        alpha = a.get("alpha", 1)
        left, right = operand(c, x, dtype), operand(c, y, dtype)
        if swapped:
            left, right = right, left
        if alpha != 1:
            right = c.e.by("mul", right, alpha)
        return c.b.op(op, left, right)

    return handler


on("add")(_arithmetic("add"))
on("sub", "subtract")(_arithmetic("sub"))
on("rsub")(_arithmetic("sub", swapped=True))
on("mul", "multiply")(_arithmetic("mul"))
on("maximum")(_arithmetic("maximum"))
on("minimum")(_arithmetic("minimum"))
on("remainder")(_arithmetic("mod"))
on("fmod")(_arithmetic("fmod"))
on("atan2", "arctan2")(_arithmetic("atan2"))
on("max.other")(_arithmetic("maximum"))
on("min.other")(_arithmetic("minimum"))
on("fmax")(_arithmetic("maximum"))
on("fmin")(_arithmetic("minimum"))
for _op in ("and", "or", "xor"):

    def _bits(c: Importer, a: Args, op: str = _op) -> Value:
        dtype = c.out_dtype
        left, right = operand(c, a.need("self"), dtype), operand(c, a.need("other"), dtype)
        return c.b.op(f"logical_{op}" if dtype == "bool" else f"bitwise_{op}", left, right)

    def _logical(c: Importer, a: Args, op: str = _op) -> Value:
        left, right = operand(c, a.need("self"), "bool"), operand(c, a.need("other"), "bool")
        return c.b.op(f"logical_{op}", left, right)

    on(f"bitwise_{_op}", f"__{_op}__")(_bits)
    on(f"logical_{_op}")(_logical)
on("bitwise_left_shift", "__lshift__")(_arithmetic("shift_left"))
on("bitwise_right_shift", "__rshift__")(_arithmetic("shift_right"))


@on("logical_not")
def _not(c: Importer, a: Args) -> Value:
    return c.b.op("logical_not", c.e.cast(a.tensor("self"), "bool"))


@on("bitwise_not")
def _bitwise_not(c: Importer, a: Args) -> Value:
    x = a.tensor("self")
    return c.b.op("logical_not" if x.dtype == "bool" else "bitwise_not", x)


@on("div", "divide", "true_divide")
def _div(c: Importer, a: Args) -> Value:
    mode = a.get("rounding_mode")
    dtype = c.out_dtype
    x, y = operand(c, either(a, "self", "input"), dtype), operand(c, a.need("other"), dtype)
    if mode is None:
        return c.b.op("div", x, y)
    return _floor_div(c, x, y) if mode == "floor" else _trunc_div(c, x, y)


def _trunc_div(c: Importer, x: Value, y: Value) -> Value:
    out = c.b.op("div", x, y)
    return c.b.op("trunc", out) if x.dtype in FLOATS else out


def _floor_div(c: Importer, x: Value, y: Value) -> Value:
    if x.dtype in FLOATS:
        return c.b.op("floor", c.b.op("div", x, y))
    # (x - x mod y) / y is exact, and mod has the divisor's sign.
    return c.b.op("div", c.b.op("sub", x, c.b.op("mod", x, y)), y)


@on("floor_divide")
def _floor_divide(c: Importer, a: Args) -> Value:
    return _floor_div(c, operand(c, a.need("self"), c.out_dtype), operand(c, a.need("other"), c.out_dtype))


@on("pow")
def _pow(c: Importer, a: Args) -> Value:
    base, power = a.need("self"), a.need("exponent")
    x = operand(c, base, c.out_dtype)
    if not isinstance(power, Value):
        if power == 2:
            return c.b.op("mul", x, x)
        if x.dtype in FLOATS and power in {0.5, -0.5, -1}:
            return c.b.op({0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}[power], x)
        if power == 3:
            return c.b.op("mul", c.b.op("mul", x, x), x)
    return c.b.op("pow", x, operand(c, power, c.out_dtype))


def _comparison(op: str) -> Handler:
    def handler(c: Importer, a: Args) -> Value:
        x, y = promoted(c, a.need("self"), a.need("other"))
        return c.b.op(op, x, y)

    return handler


for _short, _op in (
    ("eq", "equal"), ("ne", "not_equal"), ("lt", "less"), ("le", "less_equal"), ("gt", "greater"),
    ("ge", "greater_equal"),
):  # fmt: skip
    on(_short, _op)(_comparison(_op))


@on("where")
def _where(c: Importer, a: Args) -> Value:
    x, y = a.need("self"), a.need("other")
    return c.b.op(
        "where", c.e.cast(a.tensor("condition"), "bool"), operand(c, x, c.out_dtype), operand(c, y, c.out_dtype)
    )


@on("masked_fill")
def _masked_fill(c: Importer, a: Args) -> Value:
    x = a.tensor("self")
    return c.b.op("where", c.e.cast(a.tensor("mask"), "bool"), operand(c, a.need("value"), x.dtype), x)


@on("addcmul")
def _addcmul(c: Importer, a: Args) -> Value:
    part = c.b.op("mul", operand(c, a.need("tensor1"), c.out_dtype), operand(c, a.need("tensor2"), c.out_dtype))
    value = a.get("value", 1)
    return c.b.op("add", a.tensor("self"), part if value == 1 else c.e.by("mul", part, value))


@on("addcdiv")
def _addcdiv(c: Importer, a: Args) -> Value:
    part = c.b.op("div", a.tensor("tensor1"), a.tensor("tensor2"))
    value = a.get("value", 1)
    return c.b.op("add", a.tensor("self"), part if value == 1 else c.e.by("mul", part, value))


@on("lerp")
def _lerp(c: Importer, a: Args) -> Value:
    x, end = a.tensor("self"), a.tensor("end")
    return c.b.op("add", x, c.b.op("mul", operand(c, a.need("weight"), x.dtype), c.b.op("sub", end, x)))


@on("clamp", "clip", "hardtanh")
def _clamp(c: Importer, a: Args) -> Value:
    low, high = either(a, "min", "min_val"), either(a, "max", "max_val")
    x = c.e.cast(a.tensor("self"), c.out_dtype)
    if not a.has("min") and not a.has("max") and not a.has("min_val") and not a.has("max_val"):
        low, high = -1.0, 1.0  # hardtanh's own
    if isinstance(low, Value) or isinstance(high, Value):
        if low is not None:
            x = c.b.op("maximum", x, operand(c, low, x.dtype))
        return x if high is None else c.b.op("minimum", x, operand(c, high, x.dtype))
    kind = float if x.dtype in FLOATS else int
    return c.b.op("clip", x, low=None if low is None else kind(low), high=None if high is None else kind(high))


@on("clamp_min")
def _clamp_min(c: Importer, a: Args) -> Value:
    x = c.e.cast(a.tensor("self"), c.out_dtype)
    return c.b.op("maximum", x, operand(c, a.need("min"), x.dtype))


@on("clamp_max")
def _clamp_max(c: Importer, a: Args) -> Value:
    x = c.e.cast(a.tensor("self"), c.out_dtype)
    return c.b.op("minimum", x, operand(c, a.need("max"), x.dtype))


# ---------------------------------------------------------------- activations


@on("gelu")
def _gelu(c: Importer, a: Args) -> Value:
    return c.b.op("gelu", a.tensor("self"), approximate=a.get("approximate", "none") == "tanh")


@on("leaky_relu")
def _leaky(c: Importer, a: Args) -> Value:
    return c.b.op("leaky_relu", a.tensor("self"), alpha=float(a.get("negative_slope", 0.01)))


@on("rrelu")
def _rrelu(c: Importer, a: Args) -> Value:
    if a.get("training", False):
        raise UnsupportedError(
            f"at {c.b.source}: the model is in training mode", "Call model.eval() before exporting"
        )
    slope = (float(a.get("lower", 0.125)) + float(a.get("upper", 1 / 3))) / 2
    return c.b.op("leaky_relu", a.tensor("self"), alpha=slope)


@on("elu")
def _elu(c: Importer, a: Args) -> Value:
    alpha, scale, inner = float(a.get("alpha", 1.0)), float(a.get("scale", 1.0)), float(a.get("input_scale", 1.0))
    x = a.tensor("self")
    if inner != 1.0:
        raise UnsupportedError(f"at {c.b.source}: elu with an input scale is not supported", "Replace it")
    if scale == 1.0:
        return c.b.op("elu", x, alpha=alpha)
    return c.b.op("selu", x, alpha=alpha, gamma=scale)


@on("selu")
def _selu(c: Importer, a: Args) -> Value:
    return c.b.op("selu", a.tensor("self"), alpha=1.6732632423543772, gamma=1.0507009873554805)


@on("celu")
def _celu(c: Importer, a: Args) -> Value:
    return c.b.op("celu", a.tensor("self"), alpha=float(a.get("alpha", 1.0)))


@on("softplus")
def _softplus(c: Importer, a: Args) -> Value:
    x = a.tensor("self")
    beta, threshold = float(a.get("beta", 1)), float(a.get("threshold", 20))
    scaled = x if beta == 1 else c.e.by("mul", x, beta)
    soft = c.b.op("softplus", scaled)
    if beta != 1:
        soft = c.e.by("div", soft, beta)
    return soft if threshold >= 20 else c.b.op("where", c.e.by("greater", scaled, threshold), x, soft)


@on("log_sigmoid")
def _log_sigmoid(c: Importer, a: Args) -> Value:
    return c.b.op("neg", c.b.op("softplus", c.b.op("neg", a.tensor("self"))))


@on("log_sigmoid_forward")
def _log_sigmoid_forward(c: Importer, a: Args) -> list[Any]:
    return [_log_sigmoid(c, a), None]


@on("prelu", "_prelu_kernel")
def _prelu(c: Importer, a: Args) -> Value:
    x, weight = a.tensor("self"), a.tensor("weight")
    if weight.size > 1 and weight.rank == 1 and x.rank > 1:
        weight = c.e.reshape(weight, [1, -1, *[1] * (x.rank - 2)])
    return c.b.op("where", c.e.by("greater", x, 0), x, c.b.op("mul", x, weight))


@on("threshold")
def _threshold(c: Importer, a: Args) -> Value:
    x = a.tensor("self")
    return c.b.op("where", c.e.by("greater", x, a.need("threshold")), x, c.e.like(a.need("value"), x))


@on("hardshrink")
def _hardshrink(c: Importer, a: Args) -> Value:
    return c.b.op("shrink", a.tensor("self"), bias=0.0, lambd=float(a.get("lambd", 0.5)))


@on("softshrink")
def _softshrink(c: Importer, a: Args) -> Value:
    lambd = float(a.get("lambd", 0.5))
    return c.b.op("shrink", a.tensor("self"), bias=lambd, lambd=lambd)


@on("tanhshrink")
def _tanhshrink(c: Importer, a: Args) -> Value:
    return c.b.op("sub", a.tensor("self"), c.b.op("tanh", a.tensor("self")))


@on("glu")
def _glu(c: Importer, a: Args) -> Value:
    x = a.tensor("self")
    axis = int(a.get("dim", -1)) % x.rank
    half = x.shape[axis] // 2
    left, right = c.e.slice(x, axis, 0, half), c.e.slice(x, axis, half, 2 * half)
    return c.b.op("mul", left, c.b.op("sigmoid", right))
