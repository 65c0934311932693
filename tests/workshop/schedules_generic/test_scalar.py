"""Every elementwise primitive on every dtype it takes, at the ends of its range too, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fleetui.common.domain.errors import BugError
from fleetui.workshop.errors import WorkshopError
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Array, Graph, numpy_dtype, run
from fleetui.workshop.graph.ops import OPS, Kind, spec_of
from fleetui.workshop.schedules import scalar
from tests.helpers import kernels

ATTRS: dict[str, dict[str, Any]] = {
    "gelu": {"approximate": False}, "leaky_relu": {"alpha": 0.1}, "elu": {"alpha": 1.5},
    "selu": {"alpha": 1.6, "gamma": 1.05}, "celu": {"alpha": 2.0}, "hard_sigmoid": {"alpha": 0.2, "beta": 0.5},
    "thresholded_relu": {"alpha": 0.7}, "shrink": {"bias": 2, "lambd": 1}, "clip": {"low": -3, "high": 7},
    "isinf": {"positive": True, "negative": False},
}  # fmt: skip
APART = {"identity", "cast", "where", "quantize", "dequantize"}
"""Tested by themselves below."""
TOLERANCE = {"float32": 3e-6, "float64": 1e-12, "float16": 2e-3, "bfloat16": 1.6e-2}
DTYPES = (*TOLERANCE, "int8", "uint8", "uint16", "int32", "int64", "uint64", "bool")


def values(dtype: str, seed: int) -> Array:
    dice = np.random.default_rng(seed)
    if dtype == "bool":
        return dice.integers(0, 2, 100).astype(bool)
    if "float" in dtype:
        edges = [0, -0.0, np.inf, -np.inf, np.nan, 0.5, 1.5, -2.5, 1e4]
        mixed = np.concatenate([dice.standard_normal(300) * 5, edges, edges])
        return dice.permutation(mixed).astype(numpy_dtype(dtype))
    info = np.iinfo(dtype)
    ends = np.array([0, 1, 2, 3, info.min, info.max] * 20, dtype)
    near = dice.integers(max(info.min, -9), 9, 100).astype(dtype)
    wide = dice.integers(info.min, info.max, 100, dtype=dtype, endpoint=True)
    return dice.permutation(np.concatenate([wide, ends, near]))


def every_op(dtype: str) -> tuple[Graph, dict[str, Array]]:
    spec_of("add")
    x, y = values(dtype, 1), values(dtype, 2)
    b = Builder(dtype)
    a, c = b.input("x", x.shape, dtype), b.input("y", y.shape, dtype)
    for name, spec in OPS.items():
        if spec.kind is not Kind.ELEMENTWISE or name in APART:
            continue
        for operands in ((a,), (a, c)):
            try:
                b.output(b.op(name, *operands, **ATTRS.get(name, {})), name)
            except (WorkshopError, BugError):
                continue  # another number of operands, or not for this dtype
            break
    return b.finish(), {"x": x, "y": y}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_operator_agrees_with_numpy(dtype: str) -> None:
    graph, feeds = every_op(dtype)
    with np.errstate(all="ignore"):
        want = run(graph, feeds)
    with kernels.Compiled(graph) as compiled:
        compiled.feed(feeds)
        got = compiled.run()
    assert len(want) > 5
    for name, right in want.items():
        if str(right.dtype) not in TOLERANCE:
            np.testing.assert_array_equal(got[name], right, err_msg=name)
            continue
        have, expected, limit = got[name].astype(float), right.astype(float), TOLERANCE[dtype]
        if name == "gelu":  # -inf times nothing: numpy's own series makes something of it
            have, expected = have[np.isfinite(feeds["x"])], expected[np.isfinite(feeds["x"])]
        np.testing.assert_allclose(have, expected, rtol=limit, atol=limit, err_msg=name)


def test_nothing_elementwise_is_missing() -> None:
    spec_of("add")
    assert {name for name, spec in OPS.items() if spec.kind is Kind.ELEMENTWISE} == scalar.names()


@pytest.mark.parametrize("saturate", [False, True])
def test_every_conversion(saturate: bool) -> None:
    b = Builder("casts")
    feeds: dict[str, Array] = {}
    for source in DTYPES:
        x = values(source, 3)
        if "float" in source and not saturate:
            x = np.clip(np.nan_to_num(x.astype(np.float32), posinf=9, neginf=-9), -100, 100).astype(x.dtype)
        elif "float" in source:
            x = np.where(np.isinf(x.astype(np.float32)), np.array(300, x.dtype), x)
        feeds[source] = x
        value = b.input(source, x.shape, source)
        for target in DTYPES:
            if target == source or ("float" in source and not saturate and target.startswith("u")):
                continue  # a negative float as an unsigned integer is anything
            b.output(b.op("cast", value, to=target, saturate=saturate), f"{source} to {target}")
    graph = b.finish()
    with np.errstate(all="ignore"):
        want = run(graph, feeds)
    with kernels.Compiled(graph) as compiled:
        compiled.feed(feeds)
        got = compiled.run()
    for name, right in want.items():
        np.testing.assert_array_equal(got[name].astype(float), right.astype(float), err_msg=name)


def test_quantised_and_back_per_axis_and_in_blocks() -> None:
    dice = np.random.default_rng(4)
    b = Builder("codes")
    x = b.input("x", (6, 40), "float32")
    whole = b.constant(np.array(0.05, np.float32))
    channel = b.constant(dice.uniform(0.01, 0.1, 40).astype(np.float32))
    zero = b.constant(dice.integers(-9, 9, 40).astype(np.int8))
    block = b.constant(dice.uniform(0.01, 0.1, (6, 5)).astype(np.float32))
    codes = b.op("quantize", x, channel, zero, axis=1, dtype="int8")
    b.output(codes, "codes")
    b.output(b.op("dequantize", codes, channel, zero, axis=1, dtype="float32"), "back")
    b.output(b.op("quantize", x, whole, None, axis=0, dtype="uint8"), "one scale")
    b.output(b.op("quantize", x, block, None, axis=1, dtype="int8", block=8), "blocks")
    kernels.check(b.finish(), {"x": (dice.standard_normal((6, 40)) * 9).astype(np.float32)})


def test_where_and_broadcasting() -> None:
    b = Builder("where")
    x, y = b.input("x", (5, 1, 33), "float32"), b.input("y", (7, 1), "float32")
    b.output(b.op("where", b.op("less", x, y), x, b.op("mul", y, b.scalar(2.0, y))), "chosen")
    graph = b.finish()
    kernels.check(graph, kernels.random_feeds(graph))
