"""Plain loops against numpy: every operator they offer, in several attribute combinations and dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Graph
from fleetui.workshop.graph.ops import spec_of
from fleetui.workshop.kernel import Group, Kernel
from fleetui.workshop.schedules import injective, plain
from fleetui.workshop.schedules.rules import Context
from tests.helpers import kernels

RNG = np.random.default_rng(4)


def real(*shape: int, dtype: str = "float32") -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def ints(*shape: int, low: int = -9, high: int = 9, dtype: str = "int64") -> np.ndarray:
    return RNG.integers(low, high, shape).astype(dtype)


def lower(group: Group, context: Context) -> list[Kernel]:
    return plain.lower(group, context) if plain.takes(group) else injective.lower(group, context)


def conv(**attrs: Any) -> dict[str, Any]:
    return {"strides": (1, 1), "pads": ((1, 1), (1, 1)), "dilations": (1, 1), "groups": 1} | attrs


def pool(**attrs: Any) -> dict[str, Any]:
    base = {"kind": "max", "kernel": (3, 2), "strides": (2, 1), "pads": ((1, 1), (0, 1)), "dilations": (1, 1)}
    return base | {"count_include_pad": False, "out": (3, 6)} | attrs


NAN = real(4, 7)
NAN[1, 3] = NAN[2, 0] = np.nan
TIES = ints(5, 8, low=0, high=3).astype(np.float32)
INDEX = np.array([[0, 1], [2, 3], [4, 4]], np.int32)
WEIGHT = np.array([[0.5, 0.5], [0.25, 0.75], [1, 0]], np.float32)

CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    *[("reduce", [real(3, 4, 5)], {"kind": k, "axes": (0, 2), "keepdims": kd})
      for k in ("sum", "mean", "max", "min", "prod") for kd in (False, True)],
    ("reduce", [ints(3, 5, dtype="int32")], {"kind": "mean", "axes": (1,), "keepdims": False}),
    ("reduce", [ints(3, 5, low=0, dtype="uint8")], {"kind": "sum", "axes": (0, 1), "keepdims": False}),
    ("reduce", [real(4, 6, dtype="float16")], {"kind": "sum", "axes": (1,), "keepdims": True}),
    ("reduce", [real(4, 6) > 0], {"kind": "max", "axes": (1,), "keepdims": False}),
    *[(op, [x], {"axis": 1, "keepdims": kd, "last": last})
      for op in ("argmax", "argmin") for x in (TIES, NAN) for kd in (False, True) for last in (False, True)],
    *[("topk", [x], {"k": 4, "axis": 1, "largest": large, "sorted": True})
      for x in (TIES, NAN, ints(3, 9)) for large in (False, True)],
    *[("sort", [x], {"axis": axis, "descending": down})
      for x in (TIES, NAN) for axis in (0, 1) for down in (False, True)],
    *[(op, [real(3, 5, 2)], {"axis": 1, "exclusive": e, "reverse": r})
      for op in ("cumsum", "cumprod") for e in (False, True) for r in (False, True)],
    *[(op, [real(3, 5, 4)], {"axis": axis}) for op in ("softmax", "log_softmax", "hardmax") for axis in (1, 2)],
    ("softmax", [real(2, 6, dtype="float64")], {"axis": 1}),
    ("layer_norm", [real(3, 4, 5), real(4, 5), real(4, 5)], {"axis": 1, "eps": 1e-5}),
    ("layer_norm", [real(3, 8), None, None], {"axis": 1, "eps": 1e-5}),
    ("rms_norm", [real(3, 8), real(8)], {"axis": 1, "eps": 1e-5}),
    ("lrn", [real(1, 3, 3, 8)], {"size": 5, "alpha": 0.1, "beta": 0.75, "bias": 1.0}),
    *[("pool", [real(2, 5, 6, 3)], pool(kind=k, count_include_pad=c))
      for k in ("max", "avg", "l2", "lp") for c in (False, True)],
    ("pool", [real(1, 9, 2)], {"kind": "avg", "kernel": (2,), "strides": (2,), "pads": ((0, 0),),
                               "dilations": (1,),
                               "count_include_pad": False, "out": (5,)}),
    ("pool", [ints(1, 5, 6, 2, dtype="int8")], pool()),
    *[("pool_indices", [real(2, 5, 6, 3)], pool(storage_order=o)) for o in (0, 1)],
    ("unpool", [real(1, 2, 2, 2), np.array([[[[0, 17], [2, 19]], [[9, 26], [11, 99]]]])], {"out": (4, 4)}),
    *[("interp", [real(2, 5, 3), INDEX, WEIGHT], {"axis": 1})],
    *[("pad", [real(3, 4)], {"before": (2, 1), "after": (0, 3), "mode": m, "value": 2.5})
      for m in ("constant", "reflect", "edge", "wrap")],
    ("gather", [real(4, 5, 3), np.array([[0, -1], [9, 2]], np.int64)], {"axis": 1}),
    ("gather_elements", [real(4, 5), ints(4, 2, low=-5, high=5)], {"axis": 1}),
    ("gather_nd", [real(2, 3, 4), ints(2, 2, 1, low=-3, high=3)], {"batch_dims": 1}),
    ("gather_nd", [real(3, 4), ints(5, 2, low=-3, high=3)], {"batch_dims": 0}),
    ("one_hot", [ints(2, 3, low=-4, high=6)], {"depth": 4, "axis": 1, "on": 2.0, "off": -1.0, "dtype": "float32"}),
    ("tile", [real(2, 3)], {"repeats": (2, 3)}),
    *[("scatter_elements", [real(4, 5), ints(2, 5, low=-4, high=4), real(2, 5)], {"axis": 0, "reduction": r})
      for r in ("none", "add", "mul", "max", "min")],
    ("scatter_nd", [real(4, 5), np.array([[1], [-1], [1]], np.int64), real(3, 5)], {"reduction": "none"}),
    ("scatter_nd", [real(4, 5), np.array([[1, 2], [9, 0], [1, 2]], np.int64), real(3)], {"reduction": "add"}),
    ("matmul", [real(2, 1, 3, 4), real(5, 4, 2)], {}),
    ("matmul", [real(4, 3), real(2, 4)], {"transpose_a": True, "transpose_b": True}),
    ("matmul", [ints(3, 4, dtype="int8"), ints(4, 2, low=0, dtype="uint8")], {}),
    ("dense", [real(2, 3, 4), real(4, 5), real(5)], {}),
    ("dense", [real(2, 4, dtype="float64"), real(4, 5, dtype="float64"), None], {}),
    ("conv", [real(2, 5, 6, 4), real(3, 3, 2, 6), real(6)], conv(groups=2, strides=(2, 1), dilations=(1, 2))),
    ("conv", [ints(1, 4, 4, 3, low=0, dtype="uint8"), ints(3, 3, 3, 2, dtype="int8"), None], conv()),
    ("conv", [real(1, 3, 4, 3, 2), real(2, 2, 2, 2, 3), None],
     {"strides": (1, 2, 1), "pads": ((0, 1), (1, 0), (0, 0)), "dilations": (1, 1, 1), "groups": 1}),
    ("conv_transpose", [real(1, 3, 4, 4), real(3, 2, 4, 3), real(6)],
     conv(strides=(2, 3), groups=2, dilations=(1, 2), output_padding=(1, 0))),
    ("attention", [real(1, 4, 3, 5), real(1, 2, 6, 5), real(1, 2, 6, 4), None],
     {"scale": 0.4, "causal": False, "softcap": 0.0}),
    ("attention", [real(1, 2, 4, 5), real(1, 2, 4, 5), real(1, 2, 4, 3), real(4, 4) > 0.5],
     {"scale": 0.4, "causal": True, "softcap": 2.0}),
    ("attention", [real(1, 2, 4, 5), real(1, 2, 4, 5), real(1, 2, 4, 3), real(1, 1, 4, 4)],
     {"scale": 0.4, "causal": False, "softcap": 0.0}),
]  # fmt: skip


def graph_of(cases: list[tuple[str, list[Any], dict[str, Any]]]) -> tuple[Graph, dict[str, np.ndarray]]:
    """All cases side by side in one graph: one compilation for many."""
    b = Builder("cases")
    feeds: dict[str, np.ndarray] = {}
    for number, (op, arrays, attrs) in enumerate(cases):
        values = []
        for place, array in enumerate(arrays):
            if array is None:
                values.append(None)
            elif op == "interp" and place:
                values.append(b.constant(array))
            else:
                name = f"in{number}.{place}"
                values.append(b.input(name, array.shape, str(array.dtype)))
                feeds[name] = array
        for place, out in enumerate(b.ops(op, *values, **attrs)):
            b.output(out, f"out{number}.{op}.{place}")
    return b.finish(), feeds


@pytest.mark.parametrize("part", range(4))
def test_every_operator_agrees_with_numpy(part: int) -> None:
    graph, feeds = graph_of(CASES[part::4])
    kernels.check(graph, feeds, lower=lower)


def test_every_operator_offered_has_a_case() -> None:
    assert {op for op, _, _ in CASES} == set(plain.OPERATORS)
    for op in plain.OPERATORS:
        assert spec_of(op)


def test_chains_before_and_behind_an_anchor() -> None:
    b = Builder("chains")
    x = b.input("x", (3, 6), "float32")
    y = b.input("y", (3, 1), "float32")
    total = b.op("reduce", b.op("mul", x, x), kind="sum", axes=(1,), keepdims=True)
    b.output(b.op("sqrt", b.op("add", total, y)), "length")
    b.output(b.op("relu", b.op("softmax", b.op("add", x, y), axis=1)), "soft")
    picture = b.input("p", (1, 5, 5, 4), "float32")
    w = b.constant(real(3, 3, 4, 2))
    made = b.op("conv", picture, w, None, **conv())
    b.output(b.op("clip", b.op("mul", made, made), low=0.1, high=2.0), "conv")
    feeds = {"x": real(3, 6), "y": np.abs(real(3, 1)), "p": real(1, 5, 5, 4)}
    kernels.check(b.finish(), feeds, lower=lower)
