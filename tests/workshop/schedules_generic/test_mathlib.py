"""Elementary functions in float32 against float64, over the whole range."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Array
from tests.helpers import kernels

SMALLEST = 1.2e-38
"""The least normal number: below it zero will do."""

FUNCTIONS: dict[str, tuple[Callable[[Array], Array], float]] = {
    "exp": (np.exp, 1.5), "log": (np.log, 1.5), "tanh": (np.tanh, 3),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), 3),
    "erf": (np.vectorize(math.erf), 2), "expm1": (np.expm1, 2), "log1p": (np.log1p, 3), "sin": (np.sin, 2),
    "cos": (np.cos, 2), "tan": (np.tan, 4), "asin": (np.arcsin, 3), "acos": (np.arccos, 2),
    "atan": (np.arctan, 3), "sinh": (np.sinh, 1), "cosh": (np.cosh, 1), "asinh": (np.arcsinh, 1),
    "acosh": (np.arccosh, 1), "atanh": (np.arctanh, 1), "softplus": (lambda x: np.logaddexp(0, x), 3),
}  # fmt: skip
"""The function, and by how many units in the last place the result may be off."""


def points() -> Array:
    dice = np.random.default_rng(11)
    spread = [dice.standard_normal(8000) * scale for scale in (1e-3, 0.1, 1, 3, 30)]
    wide = np.exp(dice.uniform(-85, 85, 8000)) * dice.choice([-1, 1], 8000)
    edges = [0, -0.0, np.inf, -np.inf, np.nan, 88.72, 88.73, -87.3, -87.4, -103, 1, -1, 0.5, 0.92, 1e-40]
    return np.concatenate([*spread, wide, edges]).astype(np.float32)


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, Array]]:
    b = Builder("functions")
    x = b.input("x", points().shape, "float32")
    for name in FUNCTIONS:
        b.output(b.op(name, x), name)
    power = b.input("power", points().shape, "float32")
    b.output(b.op("pow", b.op("abs", x), power), "pow")
    with kernels.Compiled(b.finish()) as compiled:
        compiled.feed({"x": points(), "power": exponents()})
        yield compiled.run(seed=2)


def exponents() -> Array:
    return np.random.default_rng(12).uniform(-3, 3, points().size).astype(np.float32)


def units_off(got: Array, want: Array) -> Array:
    return np.asarray(np.abs(got.astype(np.float64) - want) / np.spacing(np.abs(want.astype(np.float32))))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_within_units_in_the_last_place(name: str, results: dict[str, Array]) -> None:
    function, limit = FUNCTIONS[name]
    x, got = points(), results[name]
    with np.errstate(all="ignore"):
        want = function(x.astype(np.float64))
        rounded = want.astype(np.float32)
    normal = np.isfinite(rounded) & (np.abs(want) > SMALLEST)
    if name in {"sin", "cos", "tan"}:
        normal &= np.abs(x) < 1e7
    assert units_off(got[normal], want[normal]).max() <= limit
    tiny = np.isfinite(rounded) & (np.abs(want) <= SMALLEST)
    assert (np.abs(got[tiny]) <= SMALLEST).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_infinities_and_nan_are_those_of_numpy(name: str, results: dict[str, Array]) -> None:
    x = points()
    with np.errstate(all="ignore"):
        want = FUNCTIONS[name][0](x.astype(np.float64)).astype(np.float32)
    special = ~np.isfinite(want) | ~np.isfinite(x)
    np.testing.assert_array_equal(results[name][special], want[special])


def test_power_of_any_base(results: dict[str, Array]) -> None:
    base, exponent = np.abs(points().astype(np.float64)), exponents().astype(np.float64)
    with np.errstate(all="ignore"):
        want = base**exponent
        rounded = want.astype(np.float32)
    normal = np.isfinite(rounded) & (want > SMALLEST)
    assert units_off(results["pow"][normal], want[normal]).max() <= 1
    rest = ~np.isfinite(rounded)
    np.testing.assert_array_equal(results["pow"][rest], rounded[rest])
