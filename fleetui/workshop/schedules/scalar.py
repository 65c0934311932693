"""What one element of every elementwise primitive is, as a TIR expression that vectorises.

float16 and bfloat16 are computed in float32 and rounded once; an element of bfloat16 is a float32 that bfloat16 can
say, also where it comes from or goes to. float32 goes through ``mathlib``; float64, which no
model of ours spends its time on, calls the C library. Whatever is used more than once is bound to a name, so an
expression stays as small as the chain it came from. Indexing is nobody's business here: see ``epilogue.py``.
"""

# ruff: noqa: ARG001, ARG005 - every entry of a table is called with operands and attributes, needed or not

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isnan, pi, sqrt
from typing import Any

import numpy as np

from fleetui.common.domain.errors import BugError
from fleetui.workshop.schedules import mathlib as m
from fleetui.workshop.schedules.mathlib import Expr, both, cast, const, either, let, select

NARROW = frozenset({"float16", "bfloat16"})
Attrs = dict[str, Any]


def is_float(dtype: str) -> bool:
    return "float" in dtype


def compute_dtype(dtype: str) -> str:
    """The dtype in which a primitive calculates on operands of this one."""
    return "float32" if dtype in NARROW else dtype


def limits(dtype: str) -> tuple[int, int]:
    if dtype == "bool":
        return 0, 1
    if dtype in {"int4", "uint4"}:
        return (-8, 7) if dtype == "int4" else (0, 15)
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def scalar(op: str, args: Sequence[Expr], attrs: Attrs, dtypes: Sequence[str], out_dtype: str) -> Expr:
    """One element of ``op``: ``args`` are its operands' elements in the graph's dtypes ``dtypes``.

    The result has dtype ``out_dtype``. ``quantize`` and ``dequantize`` take the scale and zero point that belong
    to the element.
    """
    if op == "cast":
        return convert(args[0], out_dtype, bool(attrs.get("saturate", False)))
    if op == "identity":
        return args[0]
    if op == "where":
        return select(args[0], args[1], args[2])
    if op in _QUANTISED:
        return _QUANTISED[op](args, attrs, out_dtype)
    operands = [cast(a, compute_dtype(d)) for a, d in zip(args, dtypes, strict=True)]
    if op in _UNARY:
        value = let(operands[0], lambda x: _UNARY[op](x, attrs))
    elif op in _BINARY:
        value = let(operands[0], lambda a: let(operands[1], lambda b: _BINARY[op](a, b)))
    else:
        raise BugError(f"{op} is not an elementwise operator")
    return cast(value, out_dtype)


# -------------------------------------------------------------------- conversions


def convert(x: Expr, to: str, saturate: bool = False) -> Expr:
    """Floats to integers truncate toward zero; ``saturate`` clamps first, and makes 0 of what is not a number."""
    dtype = m.dtype_of(x)
    if dtype == to:
        return x
    if dtype in NARROW:
        return convert(cast(x, "float32"), to, saturate)
    if to == "bool":
        return let(x, lambda v: m.unequal(v, const(0, dtype)))
    if dtype == "bool":
        return select(x, const(1, to), const(0, to)) if to not in NARROW else cast(convert(x, "float32"), to)
    if not is_float(to) and saturate:
        return _saturated(x, dtype, to)
    if is_float(dtype) and not is_float(to):
        # processors convert to 32 and 64 bits; anything narrower is that, cut off
        through = "int64" if to in {"int64", "uint64", "uint32"} else "int32"
        return cast(cast(x, through), to)
    return cast(x, to)


def _saturated(x: Expr, dtype: str, to: str) -> Expr:
    low, high = limits(to)
    if not is_float(dtype):
        least, most = limits(dtype)
        low, high = max(low, least), min(high, most)
        return cast(m.clamp_ints(x, low, high), to)

    def inside(v: Expr) -> Expr:
        wide = "int64" if to in {"int64", "uint64", "uint32"} else "int32"
        over, under = v >= const(float(high), dtype), v <= const(float(low), dtype)
        safe = select(either(over, under, m.is_nan(v)), const(0.0, dtype), v)
        return select(over, const(high, to), select(under, const(low, to), cast(_whole(safe, wide, to), to)))

    return let(x, inside)


def _whole(x: Expr, wide: str, to: str) -> Expr:
    if to != "uint64":
        return cast(x, wide)
    half = const(2.0**63, m.dtype_of(x))
    upper = cast(cast(x - half, "int64"), "uint64") + const(2**63, "uint64")
    return select(x >= half, upper, cast(cast(x, "int64"), "uint64"))


def _quantize(args: Sequence[Expr], attrs: Attrs, out_dtype: str) -> Expr:
    dtype = compute_dtype(m.dtype_of(args[0]))
    low, high = limits(out_dtype)
    zero = cast(args[2], dtype) if len(args) > 2 else const(0.0, dtype)
    codes = rounded(cast(args[0], dtype) / cast(args[1], dtype))

    def shifted(v: Expr) -> Expr:
        return m.clamp(select(m.is_nan(v), const(0.0, dtype), v) + zero, float(low), float(high))

    return cast(cast(let(codes, shifted), "int32"), out_dtype)


def _dequantize(args: Sequence[Expr], attrs: Attrs, out_dtype: str) -> Expr:
    whole = cast(args[0], "int32")
    if len(args) > 2:
        whole = whole - cast(args[2], "int32")
    dtype = compute_dtype(m.dtype_of(args[1]))
    return cast(cast(whole, dtype) * cast(args[1], dtype), out_dtype)


_QUANTISED = {"quantize": _quantize, "dequantize": _dequantize}

# -------------------------------------------------------------------- one operand


def _libm(name: str, *args: Expr) -> Expr:
    from tvm import tirx

    return tirx.call_pure_extern("float64", name, *args)


def _function(name: str, single: Callable[[Expr], Expr]) -> Callable[[Expr, Attrs], Expr]:
    def of(x: Expr, attrs: Attrs) -> Expr:
        return single(x) if m.dtype_of(x) == "float32" else _libm(name, x)

    return of


def _wide(function: Callable[[Expr], Expr]) -> Callable[[Expr], Expr]:
    return lambda x: m.by64(function, x)


def _intrinsic(name: str) -> Callable[[Expr, Attrs], Expr]:
    def of(x: Expr, attrs: Attrs) -> Expr:
        from tvm import tirx

        return getattr(tirx, name)(x)

    return of


def rounded(x: Expr) -> Expr:
    """To the nearest integer, half to even, without an instruction for it."""
    dtype = m.dtype_of(x)
    magic = const(2.0**52 if dtype == "float64" else 2.0**23, dtype)

    def whole(v: Expr) -> Expr:
        return let(
            m.magnitude(v), lambda a: let(a + magic, lambda t: select(a < magic, m.with_sign(t - magic, v), v))
        )

    return let(x, whole)


def _zero(x: Expr) -> Expr:
    return const(0, m.dtype_of(x))


def relu(x: Expr) -> Expr:
    return select(x < _zero(x), _zero(x), x)


def absolute(x: Expr) -> Expr:
    dtype = m.dtype_of(x)
    if is_float(dtype):
        return m.magnitude(x)
    return x if dtype.startswith("u") else select(x < _zero(x), _zero(x) - x, x)


def negative(x: Expr) -> Expr:
    from tvm import tirx

    dtype = m.dtype_of(x)
    if is_float(dtype):
        return const(-1.0, dtype) * x
    if dtype.startswith("u"):  # 0 - x would be folded to 0
        return tirx.bitwise_not(x) + const(1, dtype)
    return _zero(x) - x


def _sign(x: Expr) -> Expr:
    dtype = m.dtype_of(x)
    below = x if dtype.startswith("u") else select(x < _zero(x), const(-1, dtype), x)
    return select(x > _zero(x), const(1, dtype), below)


def _expm1(x: Expr) -> Expr:
    return m.expm1(x) if m.dtype_of(x) == "float32" else _libm("expm1", x)


def _exp_negative(x: Expr) -> Expr:
    return m.exp_negative(x) if m.dtype_of(x) == "float32" else _libm("exp", x)


def _erf(x: Expr) -> Expr:
    return m.erf(x) if m.dtype_of(x) == "float32" else _libm("erf", x)


def _tanh(x: Expr) -> Expr:
    return m.tanh(x) if m.dtype_of(x) == "float32" else _libm("tanh", x)


def _sigmoid(x: Expr) -> Expr:
    return m.sigmoid(x)


def _softplus(x: Expr) -> Expr:
    return m.softplus(x) if m.dtype_of(x) == "float32" else _softplus64(x)


def _softplus64(x: Expr) -> Expr:
    return relu(x) + _libm("log1p", _libm("exp", const(-1.0, "float64") * m.magnitude(x)))


def _gelu(x: Expr, attrs: Attrs) -> Expr:
    dtype = m.dtype_of(x)
    half, one = const(0.5, dtype), const(1.0, dtype)
    if attrs.get("approximate"):
        inner = const(sqrt(2 / pi), dtype) * (x + const(0.044715, dtype) * x * x * x)
        return half * x * (one + _tanh(inner))
    erf = m.erf_fast if dtype == "float32" else _erf
    return half * x * (one + erf(x * const(sqrt(0.5), dtype)))


def _below(x: Expr) -> Expr:
    """min(x, 0), so that the branch not taken cannot overflow."""
    return select(x > _zero(x), _zero(x), x)


def _elu(x: Expr, alpha: float, gamma: float = 1.0) -> Expr:
    dtype = m.dtype_of(x)
    value = select(x > _zero(x), x, const(alpha, dtype) * _expm1(_below(x)))
    return value if gamma == 1.0 else const(gamma, dtype) * value


def _celu(x: Expr, alpha: float) -> Expr:
    # written as the definition is: a negative alpha makes both terms count
    dtype = m.dtype_of(x)
    bent = const(alpha, dtype) * _expm1(x / const(alpha, dtype))
    return relu(x) + let(bent, lambda v: select(v > _zero(v), _zero(v), v))


def clip(x: Expr, low: float | None, high: float | None) -> Expr:
    """The upper bound wins where they cross; NaN stays."""
    dtype = m.dtype_of(x)
    if not is_float(dtype):
        least, most = limits(dtype)
        lowest = least if low is None else min(max(int(low), least), most)
        highest = most if high is None else min(max(int(high), least), most)
        return m.clamp_ints(x, lowest, highest)

    def upper(v: Expr) -> Expr:
        return v if high is None else select(v > const(high, dtype), const(high, dtype), v)

    return let(x if low is None else select(x < const(low, dtype), const(low, dtype), x), upper)


def _hard_swish(x: Expr) -> Expr:
    dtype = m.dtype_of(x)
    return x * m.clamp(x * const(1 / 6, dtype) + const(0.5, dtype), 0.0, 1.0)


def _shrink(x: Expr, bias: float, lambd: float) -> Expr:
    dtype = m.dtype_of(x)
    if is_float(dtype):
        shift = const(bias, dtype)
        inner = select(x > const(lambd, dtype), x - shift, _zero(x))
        return select(x < const(-lambd, dtype), x + shift, inner)
    least, most = limits(dtype)
    edge, shift = int(lambd), const(int(bias), dtype)
    value = select(x > const(max(edge, least), dtype), x - shift, _zero(x)) if edge < most else _zero(x)
    return select(x < const(min(-edge, most), dtype), x + shift, value) if -edge > least else value


def _is_inf(x: Expr, positive: bool, neg: bool) -> Expr:
    dtype = m.dtype_of(x)
    inf = m.infinity(dtype)
    if positive and neg:
        return m.equal(m.magnitude(x), inf)
    if not positive and not neg:
        return both(x < inf, x > inf)
    return m.equal(x, inf if positive else const(-1.0, dtype) * inf)


def _not(x: Expr) -> Expr:
    from tvm import tirx

    return tirx.Not(x) if m.dtype_of(x) == "bool" else x ^ const(-1, m.dtype_of(x))


def _invert(x: Expr, attrs: Attrs) -> Expr:
    from tvm import tirx

    return tirx.Not(x) if m.dtype_of(x) == "bool" else tirx.bitwise_not(x)


def _one(x: Expr) -> Expr:
    return const(1.0, m.dtype_of(x))


def _root(x: Expr) -> Expr:
    from tvm import tirx

    return tirx.sqrt(x)


_UNARY: dict[str, Callable[[Expr, Attrs], Expr]] = {
    "neg": lambda x, a: negative(x),
    "abs": lambda x, a: absolute(x),
    "sign": lambda x, a: _sign(x),
    "relu": lambda x, a: relu(x),
    "exp": _function("exp", m.exp),
    "log": _function("log", m.log),
    "log1p": _function("log1p", m.log1p),
    "expm1": _function("expm1", m.expm1),
    "sin": _function("sin", m.sin),
    "cos": _function("cos", m.cos),
    "tan": _function("tan", m.tan),
    "asin": _function("asin", m.asin),
    "acos": _function("acos", m.acos),
    "atan": _function("atan", m.atan),
    "sinh": _function("sinh", _wide(m.sinh64)),
    "cosh": _function("cosh", _wide(m.cosh64)),
    "asinh": _function("asinh", _wide(m.asinh64)),
    "acosh": _function("acosh", _wide(m.acosh64)),
    "atanh": _function("atanh", _wide(m.atanh64)),
    "erf": lambda x, a: _erf(x),
    "tanh": lambda x, a: _tanh(x),
    "sigmoid": lambda x, a: _sigmoid(x),
    "softplus": lambda x, a: _softplus(x),
    "sqrt": lambda x, a: _root(x),
    "rsqrt": lambda x, a: _one(x) / _root(x),
    "reciprocal": lambda x, a: _one(x) / x,
    "floor": _intrinsic("floor"),
    "ceil": _intrinsic("ceil"),
    "trunc": _intrinsic("trunc"),
    "round": lambda x, a: rounded(x),
    "softsign": lambda x, a: x / (_one(x) + m.magnitude(x)),
    "mish": lambda x, a: x * _tanh(_softplus(x)),
    "silu": lambda x, a: x * _sigmoid(x),
    "gelu": _gelu,
    "leaky_relu": lambda x, a: select(x >= _zero(x), x, const(a["alpha"], m.dtype_of(x)) * x),
    "elu": lambda x, a: _elu(x, a["alpha"]),
    "selu": lambda x, a: _elu(x, a["alpha"], a["gamma"]),
    "celu": lambda x, a: _celu(x, a["alpha"]),
    "hard_sigmoid": lambda x, a: m.clamp(
        const(a["alpha"], m.dtype_of(x)) * x + const(a["beta"], m.dtype_of(x)), 0.0, 1.0
    ),
    "hard_swish": lambda x, a: _hard_swish(x),
    "thresholded_relu": lambda x, a: select(x > const(a["alpha"], m.dtype_of(x)), x, _zero(x)),
    "shrink": lambda x, a: _shrink(x, a["bias"], a["lambd"]),
    "clip": lambda x, a: clip(x, a["low"], a["high"]),
    "logical_not": _invert,
    "bitwise_not": _invert,
    "isnan": lambda x, a: m.is_nan(x),
    "isinf": lambda x, a: _is_inf(x, bool(a["positive"]), bool(a["negative"])),
}

# -------------------------------------------------------------------- two operands


def _constant(x: Expr) -> float | None:
    from tvm import tirx

    return x.value if isinstance(x, (tirx.FloatImm, tirx.IntImm)) else None


def _divisor(b: Expr) -> Expr:
    """A divisor that cannot trap: 0 and -1 are dealt with outside."""
    dtype = m.dtype_of(b)
    bad = b == _zero(b) if dtype.startswith("u") else either(b == _zero(b), b == const(-1, dtype))
    return select(bad, const(1, dtype), b)


def _quotient(a: Expr, b: Expr) -> Expr:
    from tvm import tirx

    return let(_divisor(b), lambda d: tirx.truncdiv(a, d))


def _divide(a: Expr, b: Expr) -> Expr:
    dtype = m.dtype_of(a)
    if is_float(dtype):
        return a / b

    def whole(q: Expr) -> Expr:
        signed = q if dtype.startswith("u") else select(b == const(-1, dtype), _zero(a) - a, q)
        return select(b == _zero(b), _zero(a), signed)

    return let(_quotient(a, b), whole)


def _fmod(a: Expr, b: Expr) -> Expr:
    """Sign of the dividend."""
    dtype = m.dtype_of(a)
    if dtype == "float32":
        return cast(_libm("fmod", cast(a, "float64"), cast(b, "float64")), "float32")
    if is_float(dtype):
        return _libm("fmod", a, b)
    bad = b == _zero(b) if dtype.startswith("u") else either(b == _zero(b), b == const(-1, dtype))
    return let(_quotient(a, b), lambda q: select(bad, _zero(a), a - q * b))


def _mod(a: Expr, b: Expr) -> Expr:
    """Sign of the divisor."""
    dtype = m.dtype_of(a)

    def signed(r: Expr) -> Expr:
        if dtype.startswith("u"):
            return r
        differ = either(both(r < _zero(r), b > _zero(b)), both(r > _zero(r), b < _zero(b)))
        return select(differ, r + b, r)

    return let(_fmod(a, b), signed)


def maximum(a: Expr, b: Expr) -> Expr:
    """NaN wins. Of a constant and a variable the variable goes last, which spares a comparison."""
    return _extreme(a, b, greater=True)


def minimum(a: Expr, b: Expr) -> Expr:
    return _extreme(a, b, greater=False)


def _extreme(a: Expr, b: Expr, greater: bool) -> Expr:
    from tvm import tirx

    dtype = m.dtype_of(a)
    if dtype == "bool":
        return tirx.Or(a, b) if greater else tirx.And(a, b)
    if not is_float(dtype):
        return tirx.max(a, b) if greater else tirx.min(a, b)
    if _constant(b) is not None:
        a, b = b, a
    number = _constant(a)
    pick = select(a > b if greater else a < b, a, b)  # b where either is NaN
    if number is not None and not isnan(number):
        return pick
    return m.unless_nan(a, pick)


def _pow(a: Expr, b: Expr) -> Expr:
    dtype, exponent = m.dtype_of(a), m.dtype_of(b)
    if not is_float(dtype):
        if is_float(exponent):
            return cast(cast(_libm("pow", cast(a, "float64"), cast(b, "float64")), "int64"), dtype)
        return _integer_power(a, b)
    number = _constant(b)
    simple = None if number is None else _simple_power(a, float(number))
    if simple is not None:
        return simple
    if dtype == "float32":
        if exponent == "float64":
            b = cast(b, "float32")
        return m.by64(m.pow64, a, b)
    return _libm("pow", a, cast(b, "float64"))


def _simple_power(a: Expr, number: float) -> Expr | None:
    one = _one(a)
    if number == int(number) and 0 <= abs(number) <= 4:
        count = int(abs(number))
        whole: Expr = [one, a, a * a, a * a * a, (a * a) * (a * a)][count]
        return whole if number >= 0 else one / whole
    if abs(number) == 0.5:
        # sqrt(-inf) would be NaN, and sqrt(-0) is -0: neither is what pow gives
        root = m.magnitude(_root(a))
        root = select(a == const(-1.0, m.dtype_of(a)) * m.infinity(m.dtype_of(a)), m.infinity(m.dtype_of(a)), root)
        return root if number > 0 else one / root
    return None


def _integer_power(a: Expr, b: Expr) -> Expr:
    """By squaring, wrapping as integers do; a negative exponent leaves only 1 and -1 with an answer."""
    dtype, exponent = m.dtype_of(a), m.dtype_of(b)
    one, signed = const(1, dtype), not exponent.startswith("u")
    steps = int(exponent.removeprefix("u")[3:]) - (1 if signed else 0)
    number = _constant(b)
    if number is not None:
        steps = max(1, int(abs(number)).bit_length())

    def step(at: int, result: Expr, base: Expr, rest: Expr) -> Expr:
        if at == steps:
            return result
        taken = select((rest & const(1, exponent)) != _zero(rest), result * base, result)
        more = [base * base, rest >> const(1, exponent)]
        return let(taken, lambda r: let(more[0], lambda s: let(more[1], lambda t: step(at + 1, r, s, t))))

    if not signed:
        return step(0, one, a, b)
    minus = const(-1, dtype) if not dtype.startswith("u") else None
    inverse = select(a == one, one, _zero(a))
    if minus is not None:
        odd = (b & const(1, exponent)) != _zero(b)
        inverse = select(a == minus, select(odd, minus, one), inverse)
    return select(b < _zero(b), inverse, let(select(b < _zero(b), _zero(b), b), lambda e: step(0, one, a, e)))


def _shift(left: bool) -> Callable[[Expr, Expr], Expr]:
    """By the width or more: 0, or all sign bits for a signed right shift. By less than nothing: the same."""

    def of(a: Expr, b: Expr) -> Expr:
        dtype = m.dtype_of(a)
        width = limits(dtype)[1].bit_length() + (0 if dtype.startswith("u") else 1)
        outside = b >= const(width, dtype)
        if not dtype.startswith("u"):
            outside = either(outside, b < _zero(b))
        safe = select(outside, _zero(b), b)
        if left:
            return select(outside, _zero(a), a << safe)
        gone = _zero(a) if dtype.startswith("u") else select(a < _zero(a), const(-1, dtype), _zero(a))
        return select(outside, gone, a >> safe)

    return of


def _bitwise(name: str) -> Callable[[Expr, Expr], Expr]:
    def of(a: Expr, b: Expr) -> Expr:
        from tvm import tirx

        if m.dtype_of(a) != "bool":
            return getattr(tirx, f"bitwise_{name}")(a, b)
        if name == "xor":
            return either(both(a, tirx.Not(b)), both(b, tirx.Not(a)))
        return both(a, b) if name == "and" else either(a, b)

    return of


def _compare(test: Callable[[Expr, Expr], Expr]) -> Callable[[Expr, Expr], Expr]:
    def of(a: Expr, b: Expr) -> Expr:
        if m.dtype_of(a) == "bool":
            a, b = convert(a, "int8"), convert(b, "int8")
        return test(a, b)

    return of


def _atan2(a: Expr, b: Expr) -> Expr:
    return m.atan2(a, b) if m.dtype_of(a) == "float32" else _libm("atan2", a, b)


_BINARY: dict[str, Callable[[Expr, Expr], Expr]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": _divide,
    "mod": _mod,
    "fmod": _fmod,
    "pow": _pow,
    "maximum": maximum,
    "minimum": minimum,
    "atan2": _atan2,
    "equal": _compare(m.equal),
    "not_equal": _compare(m.unequal),
    "less": _compare(lambda a, b: a < b),
    "less_equal": _compare(lambda a, b: a <= b),
    "greater": _compare(lambda a, b: a > b),
    "greater_equal": _compare(lambda a, b: a >= b),
    "logical_and": _bitwise("and"),
    "logical_or": _bitwise("or"),
    "logical_xor": _bitwise("xor"),
    "bitwise_and": _bitwise("and"),
    "bitwise_or": _bitwise("or"),
    "bitwise_xor": _bitwise("xor"),
    "shift_left": _shift(left=True),
    "shift_right": _shift(left=False),
}

COST: dict[str, int] = {
    "exp": 12, "log": 20, "log1p": 25, "expm1": 14, "sin": 20, "cos": 20, "tan": 45, "asin": 20, "acos": 30,
    "atan": 20, "sinh": 40, "cosh": 40, "asinh": 50, "acosh": 50, "atanh": 50, "erf": 25, "tanh": 18, "sigmoid": 16,
    "softplus": 35, "mish": 55, "silu": 17, "gelu": 28, "elu": 16, "selu": 17, "celu": 18, "pow": 60, "atan2": 30,
    "div": 4, "reciprocal": 4, "sqrt": 5, "rsqrt": 8, "softsign": 5, "mod": 30, "fmod": 30, "quantize": 8,
}  # fmt: skip
"""Operations an element takes, about; 1 where it is not listed."""


def names() -> frozenset[str]:
    """Every operator ``scalar`` knows."""
    return frozenset({"identity", "cast", "where", *_QUANTISED, *_UNARY, *_BINARY})
