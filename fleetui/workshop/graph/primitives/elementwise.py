"""Elementwise operators: one input, two, and ``where``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import erf, pi, sqrt

import numpy as np

from fleetui.workshop.graph.ir import Array, numpy_dtype
from fleetui.workshop.graph.ops import Kind, OpSpec, Types
from fleetui.workshop.graph.primitives.common import (
    FLOATS,
    INTS,
    NUMBERS,
    Arrays,
    Attrs,
    Inputs,
    array,
    broadcast,
    dtype_in,
    dtype_name,
    given,
    is_float,
    is_narrow,
    like,
    limits,
    must,
    no_flops,
    per_output,
    same_dtype,
    spec,
    to_ints,
    wide,
)

ALL = NUMBERS | {"bool", "int4", "uint4"}
BOOL = frozenset({"bool"})
HALF_PI_ROOT = sqrt(2 / pi)

# ---------------------------------------------------------------- functions numpy lacks


@cache
def _erf_series() -> np.polynomial.Chebyshev:
    """erf(x)/x on [0, 6] is smooth and even about 0: sixty nodes give it to the last bit of a double."""

    def nodes(xs: Array) -> Array:
        return np.array([erf(x) / x for x in xs])

    return np.polynomial.Chebyshev.interpolate(nodes, 60, domain=[0.0, 6.0])


def erf_of(x: Array) -> Array:
    size = np.minimum(np.abs(x.astype(np.float64)), 6.0)
    found = np.where(size < 6.0, _erf_series()(size) * size, np.where(np.isnan(size), size, 1.0))
    return np.asarray(np.copysign(found, x)).astype(x.dtype)


def sigmoid(x: Array) -> Array:
    """Without overflow on either side."""
    fall = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1 / (1 + fall), fall / (1 + fall)).astype(x.dtype))


def softplus(x: Array) -> Array:
    return np.asarray(np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0))


def gelu(x: Array, approximate: bool) -> Array:
    if approximate:
        return np.asarray(0.5 * x * (1 + np.tanh(x.dtype.type(HALF_PI_ROOT) * (x + 0.044715 * x * x * x))))
    return np.asarray(0.5 * x * (1 + erf_of(x * x.dtype.type(sqrt(0.5)))))


def clip(x: Array, low: float | None, high: float | None) -> Array:
    """The upper bound wins where they cross; what is not a number stays so."""
    if x.dtype.kind in "iu":
        least, most = limits(dtype_name(x))
        low = None if low is None else min(max(int(low), least), most)
        high = None if high is None else min(max(int(high), least), most)
    if low is not None:
        x = np.maximum(x, np.asarray(low).astype(x.dtype))
    return x if high is None else np.minimum(x, np.asarray(high).astype(x.dtype))


def cast(x: Array, to: str, saturate: bool) -> Array:
    if dtype_name(x) == to:
        return x
    if to == "bool":
        return wide(x) != 0 if x.dtype.kind != "V" else x.astype(np.float32) != 0
    if to in FLOATS:
        return x.astype(numpy_dtype(to))
    if x.dtype.kind == "V":  # bfloat16 and the four-bit types: numpy itself knows them not
        x = x.astype(np.float32)
    if saturate:
        return to_ints(x, to)
    if to in {"int4", "uint4"}:
        return np.asarray(np.trunc(x)).astype(np.int64).astype(numpy_dtype(to))
    return x.astype(numpy_dtype(to))


# ---------------------------------------------------------------- one input


def _unary(
    name: str,
    function: Callable[[Array, Attrs], Array],
    allowed: frozenset[str] = FLOATS,
    cost: int = 1,
    attrs: str = "",
) -> OpSpec:
    def infer(inputs: Inputs, _attrs: Attrs) -> Types:
        (x,) = given(inputs, 1, name)
        dtype_in(name, x, allowed)
        return [(x.shape, x.dtype)]

    def evaluate(arrays: Arrays, attrs: Attrs) -> list[Array]:
        x = array(arrays, 0)
        return [like(function(wide(x), attrs), x)]

    return spec(name, Kind.ELEMENTWISE, infer, evaluate, per_output(cost), attrs.split())


def _question(name: str, function: Callable[[Array, Attrs], Array], attrs: str = "") -> OpSpec:
    def infer(inputs: Inputs, _attrs: Attrs) -> Types:
        (x,) = given(inputs, 1, name)
        dtype_in(name, x, FLOATS)
        return [(x.shape, "bool")]

    def evaluate(arrays: Arrays, attrs: Attrs) -> list[Array]:
        return [function(wide(array(arrays, 0)), attrs)]

    return spec(name, Kind.ELEMENTWISE, infer, evaluate, no_flops, attrs.split())


def _infer_cast(inputs: Inputs, attrs: Attrs) -> Types:
    (x,) = given(inputs, 1, "cast")
    dtype_in("cast", x, ALL)
    must(attrs["to"] in ALL, f"cast to {attrs['to']}")
    return [(x.shape, attrs["to"])]


def _evaluate_cast(arrays: Arrays, attrs: Attrs) -> list[Array]:
    return [cast(array(arrays, 0), attrs["to"], attrs.get("saturate", False))]


def _infer_identity(inputs: Inputs, _attrs: Attrs) -> Types:
    (x,) = given(inputs, 1, "identity")
    return [(x.shape, x.dtype)]


def _plain(function: Callable[[Array], Array]) -> Callable[[Array, Attrs], Array]:
    return lambda x, _attrs: function(x)


_TRANSCENDENTAL: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp, "log": np.log, "log1p": np.log1p, "expm1": np.expm1, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "asinh": np.arcsinh,
    "acosh": np.arccosh, "atanh": np.arctanh, "erf": erf_of, "tanh": np.tanh, "sigmoid": sigmoid,
    "softplus": softplus,
}  # fmt: skip
_SIMPLE: dict[str, Callable[[Array], Array]] = {
    "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "round": np.rint,
    "rsqrt": lambda x: 1 / np.sqrt(x), "reciprocal": lambda x: 1 / x, "softsign": lambda x: x / (1 + np.abs(x)),
}  # fmt: skip

UNARY: list[OpSpec] = [
    spec("identity", Kind.ELEMENTWISE, _infer_identity, lambda arrays, _attrs: [array(arrays, 0)], no_flops),
    spec("cast", Kind.ELEMENTWISE, _infer_cast, _evaluate_cast, no_flops, ("to",), ("saturate",)),
    _unary("neg", _plain(np.negative), NUMBERS),
    _unary("abs", _plain(np.abs), NUMBERS),
    _unary("sign", _plain(np.sign), NUMBERS),
    _unary("relu", _plain(lambda x: np.maximum(x, np.zeros((), x.dtype))), NUMBERS),
    *(_unary(name, _plain(function), cost=4) for name, function in _TRANSCENDENTAL.items()),
    *(_unary(name, _plain(function)) for name, function in _SIMPLE.items()),
    _unary("mish", _plain(lambda x: x * np.tanh(softplus(x))), cost=8),
    _unary("silu", _plain(lambda x: x * sigmoid(x)), cost=5),
    _unary("gelu", lambda x, a: gelu(x, a["approximate"]), cost=8, attrs="approximate"),
    _unary("leaky_relu", lambda x, a: np.where(x >= 0, x, a["alpha"] * x), attrs="alpha"),
    _unary("elu", lambda x, a: np.where(x > 0, x, a["alpha"] * np.expm1(x)), cost=4, attrs="alpha"),
    _unary(
        "selu",
        lambda x, a: a["gamma"] * np.where(x > 0, x, a["alpha"] * np.expm1(x)),
        cost=4,
        attrs="alpha gamma",
    ),
    _unary(
        "celu",
        lambda x, a: np.maximum(x, 0) + np.minimum(0, a["alpha"] * np.expm1(x / a["alpha"])),
        cost=4,
        attrs="alpha",
    ),
    _unary("hard_sigmoid", lambda x, a: clip(a["alpha"] * x + a["beta"], 0.0, 1.0), cost=4, attrs="alpha beta"),
    _unary("hard_swish", _plain(lambda x: x * clip(x * x.dtype.type(1 / 6) + x.dtype.type(0.5), 0.0, 1.0)), cost=5),
    _unary("thresholded_relu", lambda x, a: np.where(x > a["alpha"], x, np.zeros((), x.dtype)), attrs="alpha"),
    _unary(
        "shrink",
        lambda x, a: np.where(x < -a["lambd"], x + a["bias"], np.where(x > a["lambd"], x - a["bias"], 0)),
        NUMBERS,
        2,
        "bias lambd",
    ),
    _unary("clip", lambda x, a: clip(x, a["low"], a["high"]), NUMBERS, 2, "low high"),
    _unary("logical_not", _plain(np.logical_not), BOOL, 0),
    _unary("bitwise_not", _plain(np.invert), INTS | BOOL, 0),
    _question("isnan", lambda x, _attrs: np.isnan(x)),
    _question(
        "isinf",
        lambda x, a: (np.isposinf(x) & bool(a["positive"])) | (np.isneginf(x) & bool(a["negative"])),
        "positive negative",
    ),
]

# ---------------------------------------------------------------- two inputs


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    zero = b == 0
    safe = np.where(zero, np.ones((), b.dtype), b)
    down = np.floor_divide(a, safe)
    up = (a - down * safe != 0) & ((a < 0) != (safe < 0))  # floor went one too far from zero
    return np.where(zero, np.zeros((), a.dtype), down + up.astype(a.dtype))


def _remainder(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    def remainder(a: Array, b: Array) -> Array:
        if a.dtype.kind == "f":
            return function(a, b)
        zero = b == 0
        return np.where(zero, np.zeros((), a.dtype), function(a, np.where(zero, np.ones((), b.dtype), b)))

    return remainder


def power(a: Array, b: Array) -> Array:
    """In the dtype of ``a``. Integers to a negative integer: 1 and −1 have an answer, everything else gives 0."""
    if a.dtype.kind == "f":
        if a.dtype == np.float32 and b.dtype.kind == "f":
            b = b.astype(np.float32)
        return np.asarray(np.power(a, b)).astype(a.dtype)
    if b.dtype.kind == "f":
        return np.power(a.astype(np.float64), b).astype(a.dtype)
    negative = b < 0
    whole = np.power(a, np.where(negative, np.zeros((), b.dtype), b).astype(a.dtype))
    odd = (b & 1).astype(bool)
    inverse = np.where(a == 1, 1, np.where((a < 0) & (a + 1 == 0), np.where(odd, -1, 1), 0)).astype(a.dtype)
    return np.where(negative, inverse, whole)


def _shift(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda a, b: np.asarray(function(a, b)).astype(a.dtype)


def _binary(
    name: str,
    function: Callable[[Array, Array], Array],
    allowed: frozenset[str] = NUMBERS,
    out: str = "",
    cost: int = 1,
    mixed: bool = False,
) -> OpSpec:
    def infer(inputs: Inputs, _attrs: Attrs) -> Types:
        a, b = given(inputs, 2, name)
        dtype_in(name, a, allowed)
        dtype_in(name, b, allowed)
        if not mixed:
            same_dtype(name, a, b)
        return [(broadcast(name, a.shape, b.shape), out or a.dtype)]

    def evaluate(arrays: Arrays, _attrs: Attrs) -> list[Array]:
        a, b = array(arrays, 0), array(arrays, 1)
        result = np.asarray(function(wide(a), wide(b)))
        return [result if out else like(result, a)]

    return spec(name, Kind.ELEMENTWISE, infer, evaluate, per_output(cost))


COMPARABLE = NUMBERS | BOOL
BINARY: list[OpSpec] = [
    _binary("add", np.add),
    _binary("sub", np.subtract),
    _binary("mul", np.multiply),
    _binary("div", _divide),
    _binary("mod", _remainder(np.mod)),
    _binary("fmod", _remainder(np.fmod)),
    _binary("pow", power, cost=8, mixed=True),
    _binary("maximum", np.maximum, COMPARABLE),
    _binary("minimum", np.minimum, COMPARABLE),
    _binary("atan2", np.arctan2, FLOATS, cost=4),
    _binary("equal", np.equal, COMPARABLE, "bool", 0),
    _binary("not_equal", np.not_equal, COMPARABLE, "bool", 0),
    _binary("less", np.less, COMPARABLE, "bool", 0),
    _binary("less_equal", np.less_equal, COMPARABLE, "bool", 0),
    _binary("greater", np.greater, COMPARABLE, "bool", 0),
    _binary("greater_equal", np.greater_equal, COMPARABLE, "bool", 0),
    _binary("logical_and", np.logical_and, BOOL, "bool", 0),
    _binary("logical_or", np.logical_or, BOOL, "bool", 0),
    _binary("logical_xor", np.logical_xor, BOOL, "bool", 0),
    _binary("bitwise_and", np.bitwise_and, INTS | BOOL, cost=0),
    _binary("bitwise_or", np.bitwise_or, INTS | BOOL, cost=0),
    _binary("bitwise_xor", np.bitwise_xor, INTS | BOOL, cost=0),
    _binary("shift_left", _shift(np.left_shift), INTS, cost=0),
    _binary("shift_right", _shift(np.right_shift), INTS, cost=0),
]

# ---------------------------------------------------------------- where


def _infer_where(inputs: Inputs, _attrs: Attrs) -> Types:
    condition, a, b = given(inputs, 3, "where")
    dtype_in("where", condition, BOOL)
    same_dtype("where", a, b)
    return [(broadcast("where", condition.shape, a.shape, b.shape), a.dtype)]


def _evaluate_where(arrays: Arrays, _attrs: Attrs) -> list[Array]:
    return [np.where(array(arrays, 0), array(arrays, 1), array(arrays, 2))]


SPECS: list[OpSpec] = [
    *UNARY,
    *BINARY,
    spec("where", Kind.ELEMENTWISE, _infer_where, _evaluate_where, no_flops),
]

__all__ = ["SPECS", "clip", "erf_of", "is_float", "is_narrow", "power", "sigmoid", "softplus"]
