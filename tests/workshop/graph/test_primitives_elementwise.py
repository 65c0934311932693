"""Elementwise primitives against the standard library's functions of one number, in every dtype they take."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fleetui.common.domain.errors import BugError
from fleetui.workshop.errors import ShapeError, UnsupportedError
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Array, numpy_dtype
from fleetui.workshop.graph.ops import OPS, evaluate, flops, infer, spec_of
from fleetui.workshop.graph.primitives import load


def compute(op: str, *arrays: Array, **attrs: Any) -> Array:
    """Evaluate, and hold the numbers against the rule for shapes and dtypes."""
    b = Builder("one")
    values = [b.input(f"x{i}", array.shape, str(array.dtype)) for i, array in enumerate(arrays)]
    types = infer(op, values, attrs)
    (out,) = evaluate(op, list(arrays), attrs)
    assert [(out.shape, str(out.dtype))] == types
    assert flops(op, values, types, attrs) >= 0
    return out


POINTS = (-30.0, -7.5, -2.0, -1.0, -0.5, -1e-3, 0.0, 1e-3, 0.25, 1.0, 2.5, 7.0, 30.0)
INSIDE = (-1.0, -0.75, -0.1, 0.0, 0.2, 0.9, 1.0)
POSITIVE = (1e-3, 0.3, 1.0, 2.0, 50.0)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _softplus(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(x, 0)


CASES: list[tuple[str, dict[str, Any], tuple[float, ...], Callable[[float], float]]] = [
    ("exp", {}, POINTS, math.exp),
    ("log", {}, POSITIVE, math.log),
    ("log1p", {}, POSITIVE, math.log1p),
    ("expm1", {}, POINTS, math.expm1),
    ("sqrt", {}, POSITIVE, math.sqrt),
    ("rsqrt", {}, POSITIVE, lambda x: 1 / math.sqrt(x)),
    ("reciprocal", {}, POSITIVE, lambda x: 1 / x),
    ("erf", {}, POINTS, math.erf),
    ("sigmoid", {}, POINTS, _sigmoid),
    ("tanh", {}, POINTS, math.tanh),
    ("relu", {}, POINTS, lambda x: max(x, 0.0)),
    ("sin", {}, POINTS, math.sin),
    ("cos", {}, POINTS, math.cos),
    ("tan", {}, POINTS, math.tan),
    ("asin", {}, INSIDE, math.asin),
    ("acos", {}, INSIDE, math.acos),
    ("atan", {}, POINTS, math.atan),
    ("sinh", {}, INSIDE, math.sinh),
    ("cosh", {}, INSIDE, math.cosh),
    ("asinh", {}, POINTS, math.asinh),
    ("acosh", {}, (1.0, 1.5, 20.0), math.acosh),
    ("atanh", {}, (-0.9, 0.0, 0.5), math.atanh),
    ("floor", {}, POINTS, math.floor),
    ("ceil", {}, POINTS, math.ceil),
    ("trunc", {}, POINTS, math.trunc),
    ("round", {}, (-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.6), round),
    ("softplus", {}, POINTS, _softplus),
    ("softsign", {}, POINTS, lambda x: x / (1 + abs(x))),
    ("mish", {}, POINTS, lambda x: x * math.tanh(_softplus(x))),
    ("silu", {}, POINTS, lambda x: x * _sigmoid(x)),
    ("gelu", {"approximate": False}, POINTS, lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2)))),
    (
        "gelu",
        {"approximate": True},
        POINTS,
        lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    ("leaky_relu", {"alpha": 0.1}, POINTS, lambda x: x if x >= 0 else 0.1 * x),
    ("elu", {"alpha": 0.7}, POINTS, lambda x: x if x > 0 else 0.7 * math.expm1(x)),
    ("selu", {"alpha": 1.5, "gamma": 1.1}, POINTS, lambda x: 1.1 * (x if x > 0 else 1.5 * math.expm1(x))),
    ("celu", {"alpha": 0.7}, POINTS, lambda x: max(x, 0) + min(0, 0.7 * math.expm1(x / 0.7))),
    ("hard_sigmoid", {"alpha": 0.2, "beta": 0.4}, POINTS, lambda x: min(max(0.2 * x + 0.4, 0), 1)),
    ("hard_swish", {}, POINTS, lambda x: x * min(max(x / 6 + 0.5, 0), 1)),
    ("thresholded_relu", {"alpha": 0.25}, POINTS, lambda x: x if x > 0.25 else 0.0),
    (
        "shrink",
        {"bias": 0.2, "lambd": 0.4},
        POINTS,
        lambda x: x + 0.2 if x < -0.4 else (x - 0.2 if x > 0.4 else 0.0),
    ),
    ("clip", {"low": -1.0, "high": 2.0}, POINTS, lambda x: min(max(x, -1.0), 2.0)),
    ("clip", {"low": None, "high": 2.0}, POINTS, lambda x: min(x, 2.0)),
    ("clip", {"low": 3.0, "high": 2.0}, POINTS, lambda _x: 2.0),
    ("neg", {}, POINTS, lambda x: -x),
    ("abs", {}, POINTS, abs),
    ("sign", {}, POINTS, lambda x: (x > 0) - (x < 0)),
    ("identity", {}, POINTS, lambda x: x),
]
EXACTNESS = {"float64": 1e-12, "float32": 2e-6, "float16": 2e-3, "bfloat16": 1e-2}


@pytest.mark.parametrize("dtype", EXACTNESS)
@pytest.mark.parametrize(
    ("op", "attrs", "points", "function"), CASES, ids=[f"{c[0]}{i}" for i, c in enumerate(CASES)]
)
def test_functions_of_one_number(
    op: str, attrs: dict[str, Any], points: tuple[float, ...], function: Callable[[float], float], dtype: str
) -> None:
    x = np.array(points).astype(numpy_dtype(dtype))
    if op in {"tan", "exp", "expm1", "acos", "atanh"} and dtype in {"float16", "bfloat16"}:
        x = x[np.abs(x.astype(np.float64)) < 0.95]
    y = compute(op, x, **attrs).astype(np.float64)
    want = [function(float(v)) for v in x.astype(np.float64)]
    np.testing.assert_allclose(y, want, rtol=EXACTNESS[dtype], atol=EXACTNESS[dtype] * 1e-1)


def test_infinities_and_what_is_not_a_number_pass_without_a_word() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38], np.float32)
    for op, attrs, _, _ in CASES:
        y = compute(op, x, **attrs)
        if op not in {"sign", "thresholded_relu", "shrink"} and attrs.get("low") != 3.0:
            assert np.isnan(y[0]), op
    assert compute("isnan", x).tolist() == [True, False, False, False, False]
    assert compute("isinf", x, positive=True, negative=False).tolist() == [False, True, False, False, False]
    assert compute("isinf", x, positive=False, negative=True).tolist() == [False, False, True, False, False]
    assert np.isnan(compute("maximum", x[:1], np.ones(1, np.float32)))


INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_divide_like_c(dtype: str) -> None:
    signed = dtype.startswith("i")
    pairs = [(a, b) for a in (-7, -6, 0, 5, 7) for b in (-3, -2, 0, 2, 3) if signed or (a >= 0 and b >= 0)]
    a, b = np.array(pairs, dtype).T
    quotient = [0 if y == 0 else math.trunc(x / y) for x, y in pairs]
    assert compute("div", a, b).tolist() == quotient
    assert compute("mod", a, b).tolist() == [0 if y == 0 else x % y for x, y in pairs]
    assert compute("fmod", a, b).tolist() == [0 if y == 0 else int(math.fmod(x, y)) for x, y in pairs]
    least = np.array([np.iinfo(dtype).min], dtype)
    assert compute("abs", least).dtype == dtype
    assert compute("mul", least, least).dtype == dtype
    if signed:
        assert compute("div", least, np.array([-1], dtype)) == least


def test_powers() -> None:
    base = np.array([2, -1, 1, 3, -2, 0], np.int32)
    assert compute("pow", base, np.array([-1, -3, -2, 2, 3, 0], np.int64)).tolist() == [0, -1, 1, 9, -8, 1]
    assert compute("pow", np.array([2, 9], np.int32), np.array([0.5, 0.5], np.float32)).tolist() == [1, 3]
    assert compute("pow", np.array([2.0, 9.0], np.float32), np.array([3, 2], np.int64)).tolist() == [8, 81]
    assert compute("pow", np.array([2.0], np.float16), np.array([3.0], np.float32)).dtype == np.float16


def test_shifts_and_bits() -> None:
    x = np.array([1, -8, 127], np.int8)
    assert compute("shift_left", x, np.array([3, 1, 8], np.int8)).tolist() == [8, -16, 0]
    assert compute("shift_right", x, np.array([1, 1, 9], np.int8)).tolist() == [0, -4, 0]
    assert compute("bitwise_xor", x, x).tolist() == [0, 0, 0]
    assert compute("bitwise_not", np.array([True, False])).tolist() == [False, True]


def test_comparisons_and_choices_broadcast() -> None:
    a, b = np.arange(6, dtype=np.float16).reshape(2, 3), np.array([[1.0], [4.0]], np.float16)
    assert compute("less", a, b).tolist() == [[True, False, False], [True, False, False]]
    chosen = compute("where", np.array([True, False, True]), a, b)
    assert chosen.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert compute("logical_xor", a > 1, a > 3).tolist() == [[False, False, True], [True, False, False]]


@pytest.mark.parametrize("source", ["bool", "int4", "int8", "uint8", "int64", "float16", "bfloat16", "float32"])
@pytest.mark.parametrize("to", ["bool", "uint4", "int8", "int32", "uint64", "bfloat16", "float16", "float64"])
def test_casts(source: str, to: str) -> None:
    x = np.array([0, 1, 1, 0]).astype(numpy_dtype(source))
    for saturate in (False, True):
        assert compute("cast", x, to=to, saturate=saturate).astype(int).tolist() == [0, 1, 1, 0]


def test_casts_truncate_wrap_and_saturate() -> None:
    x = np.array([-3.9, 3.9, 300.7, np.nan, np.inf, -1e30])
    assert compute("cast", x[:2], to="int32").tolist() == [-3, 3]
    assert compute("cast", x, to="int8", saturate=True).tolist() == [-3, 3, 127, 0, 127, -128]
    assert compute("cast", x, to="uint64", saturate=True).tolist() == [0, 3, 300, 0, 2**64 - 1, 0]
    assert compute("cast", np.array([300, -1]), to="uint8").tolist() == [44, 255]
    assert compute("cast", np.array([300, -1]), to="uint8", saturate=True).tolist() == [255, 0]
    assert compute("cast", np.array([0.0, 0.4, np.nan]), to="bool").tolist() == [False, True, True]


def test_what_does_not_fit_is_said_in_a_sentence() -> None:
    b = Builder("wrong")
    x, y, i = b.input("x", (2, 3), "float32"), b.input("y", (4, 3), "float32"), b.input("i", (2, 3), "int32")
    for op, inputs in (("add", [x, y]), ("add", [x, i]), ("exp", [i]), ("logical_not", [x]), ("where", [x, x, x])):
        with pytest.raises(ShapeError) as raised:
            infer(op, inputs, {})
        assert raised.value.sentence
        assert raised.value.fix
    with pytest.raises(UnsupportedError, match="no primitive operator"):
        spec_of("nothing")
    with pytest.raises(BugError, match="lacks the attribute alpha"):
        infer("elu", [x], {})
    with pytest.raises(BugError, match="no attribute beta"):
        infer("elu", [x], {"alpha": 1.0, "beta": 1.0})
    assert infer("elu", [x], {"alpha": 1.0, "_note": 1}) == [((2, 3), "float32")]


def test_the_registry_is_complete_and_loading_twice_is_harmless() -> None:
    load()
    before = set(OPS)
    load()
    assert set(OPS) == before
    assert len(before) >= 115
    assert {"conv", "trees" if "trees" in before else "conv", "extern", "lstm", "attention", "interp"} <= before
