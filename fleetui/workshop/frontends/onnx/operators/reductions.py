"""Sums, means, extremes and norms over axes; arg-extremes; running sums; softmax and its kin; top-k."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from fleetui.workshop.frontends.onnx.call import Call, Handler, Result, operator
from fleetui.workshop.graph.ir import Value

Reducer = Callable[[Call, Value, list[int], bool], Value]


def _plain(kind: str) -> Reducer:
    def reducer(c: Call, x: Value, axes: list[int], keepdims: bool) -> Value:
        return c.reduce(x, kind, axes, keepdims=keepdims)

    return reducer


def _wide(c: Call, x: Value) -> Value:
    """Logarithms and roots of whole numbers are taken in double precision."""
    return x if x.dtype.startswith(("float", "bfloat")) else c.cast(x, "float64")


def _l1(c: Call, x: Value, axes: list[int], keepdims: bool) -> Value:
    return c.reduce(c.op("abs", x), "sum", axes, keepdims=keepdims)


def _square(c: Call, x: Value, axes: list[int], keepdims: bool) -> Value:
    return c.reduce(c.op("mul", x, x), "sum", axes, keepdims=keepdims)


def _l2(c: Call, x: Value, axes: list[int], keepdims: bool) -> Value:
    return c.cast(c.op("sqrt", _square(c, _wide(c, x), axes, keepdims)), x.dtype)


def _log_sum(c: Call, x: Value, axes: list[int], keepdims: bool) -> Value:
    return c.cast(c.op("log", c.reduce(_wide(c, x), "sum", axes, keepdims=keepdims)), x.dtype)


def _log_sum_exp(c: Call, x: Value, axes: list[int], keepdims: bool) -> Value:
    wide = _wide(c, x)
    top = c.reduce(wide, "max", axes)
    # An infinite maximum must not be subtracted from itself.
    finite = c.op("logical_not", c.op("isinf", top, positive=True, negative=True))
    top = c.op("where", finite, top, c.scalar(0, top))
    total = c.op("log", c.reduce(c.op("exp", c.op("sub", wide, top)), "sum", axes))
    result = c.op("add", total, top)
    return c.cast(result if keepdims else c.squeeze(result, axes), x.dtype)


def _edges(dtype: str) -> tuple[float, float]:
    """What the largest and the smallest of nothing are."""
    if dtype == "bool":
        return 0, 1
    if dtype.startswith(("float", "bfloat")):
        return -np.inf, np.inf
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def _nothing(c: Call, name: str, x: Value) -> float:
    """Each reduction of no elements at all."""
    if name in {"ReduceMax", "ReduceMin"}:
        return _edges(x.dtype)[name == "ReduceMin"]
    if name == "ReduceMean":
        return (
            float("nan") if x.dtype.startswith(("float", "bfloat")) else c.refuse("takes the mean of no elements")
        )
    return {"ReduceProd": 1, "ReduceLogSum": -np.inf, "ReduceLogSumExp": -np.inf}.get(name, 0)


def _reduction(name: str, reducer: Reducer) -> Handler:
    def handler(c: Call) -> Result:
        x = c.value(0)
        axes = c.axes_of(1, x.rank)
        if not axes and c.flag("noop_with_empty_axes"):
            return _untouched(c, name, x)
        axes = sorted(set(axes)) if axes else list(range(x.rank))
        keepdims = c.flag("keepdims", default=True)
        if x.size == 0 and prod(x.shape[a] for a in axes) == 0:
            kept = [1 if i in axes else d for i, d in enumerate(x.shape)]
            shape = kept if keepdims else [d for i, d in enumerate(x.shape) if i not in axes]
            return c.full(shape, _nothing(c, name, x), x.dtype)
        if not axes:  # a scalar, over none of its no axes
            return _untouched(c, name, x)
        return reducer(c, x, axes, keepdims)

    return handler


def _untouched(c: Call, name: str, x: Value) -> Value:
    """Reduced over no axes: each element is its own sum, norm, logarithm…"""
    if name in {"ReduceL1", "ReduceL2"}:
        return c.op("abs", x)
    if name == "ReduceSumSquare":
        return c.op("mul", x, x)
    if name == "ReduceLogSum":
        return c.cast(c.op("log", _wide(c, x)), x.dtype)
    return x


for _name, _reducer in {
    "ReduceSum": _plain("sum"),
    "ReduceMean": _plain("mean"),
    "ReduceMax": _plain("max"),
    "ReduceMin": _plain("min"),
    "ReduceProd": _plain("prod"),
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceSumSquare": _square,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
}.items():
    operator(_name)(_reduction(_name, _reducer))


def _arg(op: str) -> Handler:
    def handler(c: Call) -> Result:
        x = c.value(0)
        return c.op(
            op,
            x,
            axis=c.axis(c.integer("axis", 0), x.rank),
            keepdims=c.flag("keepdims", default=True),
            last=c.flag("select_last_index"),
        )

    return handler


operator("ArgMax")(_arg("argmax"))
operator("ArgMin")(_arg("argmin"))


def _running(op: str) -> Handler:
    def handler(c: Call) -> Result:
        x = c.value(0)
        axis = c.axis(c.int_of(1, "axis"), x.rank)
        return c.op(op, x, axis=axis, exclusive=c.flag("exclusive"), reverse=c.flag("reverse"))

    return handler


operator("CumSum")(_running("cumsum"))
operator("CumProd")(_running("cumprod"))


def softmax_like(c: Call, op: str, x: Value) -> Value:
    """Before version 13 everything from ``axis`` on counts as one axis."""
    if c.version >= 13:
        return c.op(op, x, axis=c.axis(c.integer("axis", -1), x.rank))
    axis = c.integer("axis", 1)
    axis = x.rank if axis == x.rank else c.axis(axis, x.rank)
    if x.rank and axis == x.rank - 1:
        return c.op(op, x, axis=axis)
    flat = c.reshape(x, [prod(x.shape[:axis]), prod(x.shape[axis:])])
    return c.reshape(c.op(op, flat, axis=1), x.shape)


def _softmax(op: str) -> Handler:
    def handler(c: Call) -> Result:
        return softmax_like(c, op, c.value(0))

    return handler


operator("Softmax")(_softmax("softmax"))
operator("LogSoftmax")(_softmax("log_softmax"))
operator("Hardmax")(_softmax("hardmax"))


@operator("TopK")
def topk(c: Call) -> Result:
    x = c.value(0)
    k = c.integer("k") if c.version < 10 else c.int_of(1, "number of elements")
    axis = c.axis(c.integer("axis", -1), x.rank)
    if not 0 <= k <= x.shape[axis]:
        c.misfit(f"wants the {k} largest of {x.shape[axis]} elements")
    return c.ops(
        "topk",
        x,
        k=k,
        axis=axis,
        largest=c.flag("largest", default=True),
        sorted=c.flag("sorted", default=True),
    )
