"""Reductions, running sums, softmax and the norms, and whatever puts things in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fleetui.workshop.graph.ir import Array, Shape
from fleetui.workshop.graph.ops import Kind, OpSpec, Types
from fleetui.workshop.graph.primitives.common import (
    FLOATS,
    NUMBERS,
    Arrays,
    Attrs,
    Inputs,
    array,
    array_or_none,
    axis_in,
    dtype_in,
    dtype_name,
    given,
    highest,
    is_float,
    like,
    lowest,
    maybe,
    must,
    no_flops,
    per_input,
    same_dtype,
    say,
    spec,
    wide,
)

KINDS = ("sum", "mean", "max", "min", "prod")

# ---------------------------------------------------------------- reduce


def _infer_reduce(inputs: Inputs, attrs: Attrs) -> Types:
    (x,) = given(inputs, 1, "reduce")
    axes, kind = tuple(attrs["axes"]), attrs["kind"]
    must(kind in KINDS, f"reduce by {kind}")
    dtype_in(f"reduce by {kind}", x, NUMBERS | {"bool"} if kind in {"max", "min"} else NUMBERS)
    must(list(axes) == sorted(set(axes)), f"reduce over dimensions {say(axes)}")
    for axis in axes:
        axis_in("reduce", axis, x.rank)
    kept = attrs["keepdims"]
    return [(tuple(1 if i in axes else d for i, d in enumerate(x.shape) if kept or i not in axes), x.dtype)]


def _evaluate_reduce(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x, kind = array(arrays, 0), attrs["kind"]
    axes, keep = tuple(attrs["axes"]), bool(attrs["keepdims"])
    source = wide(x)
    if kind == "max":
        bound: Any = np.asarray(lowest(dtype_name(source))).astype(source.dtype)[()]
        return [like(np.max(source, axes, keepdims=keep, initial=bound), x)]
    if kind == "min":
        bound = np.asarray(highest(dtype_name(source))).astype(source.dtype)[()]
        return [like(np.min(source, axes, keepdims=keep, initial=bound), x)]
    if kind == "prod":
        return [like(np.prod(source, axes, dtype=source.dtype, keepdims=keep), x)]
    if kind == "sum":
        return [like(np.sum(source, axes, dtype=source.dtype, keepdims=keep), x)]
    count = int(np.prod([x.shape[axis] for axis in axes], dtype=np.int64))
    if is_float(source):
        return [like(np.sum(source, axes, dtype=source.dtype, keepdims=keep) / source.dtype.type(count), x)]
    total = np.sum(source, axes, dtype=np.uint64 if source.dtype.kind == "u" else np.int64, keepdims=keep)
    if not count:
        return [np.zeros_like(total).astype(x.dtype)]
    if source.dtype.kind == "u":
        return [(total // np.uint64(count)).astype(x.dtype)]
    return [(np.sign(total) * (np.abs(total) // count)).astype(x.dtype)]


# ---------------------------------------------------------------- order


def _infer_arg(name: str) -> Callable[[Inputs, Attrs], Types]:
    def infer(inputs: Inputs, attrs: Attrs) -> Types:
        (x,) = given(inputs, 1, name)
        axis = attrs["axis"]
        axis_in(name, axis, x.rank)
        dtype_in(name, x, NUMBERS | {"bool"})
        must(x.shape[axis] > 0, f"{name} over an empty dimension")
        middle = (1,) if attrs["keepdims"] else ()
        return [((*x.shape[:axis], *middle, *x.shape[axis + 1 :]), "int64")]

    return infer


def _evaluate_arg(function: Callable[..., Any]) -> Callable[[Arrays, Attrs], list[Array]]:
    def evaluate(arrays: Arrays, attrs: Attrs) -> list[Array]:
        x, axis = wide(array(arrays, 0)), attrs["axis"]
        if attrs["last"]:
            found = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis)
        else:
            found = function(x, axis=axis)
        found = np.asarray(found, np.int64)
        return [np.expand_dims(found, axis) if attrs["keepdims"] else found]

    return evaluate


def order(x: Array, axis: int, descending: bool) -> Array:
    """Stable, either way round: of equal ones the earlier stays the earlier. Not-a-number is above everything."""
    source = wide(x)
    if not descending:
        return np.argsort(source, axis=axis, kind="stable")
    backwards = np.argsort(np.flip(source, axis), axis=axis, kind="stable")
    return x.shape[axis] - 1 - np.flip(backwards, axis)


def _infer_topk(inputs: Inputs, attrs: Attrs) -> Types:
    (x,) = given(inputs, 1, "topk")
    axis, k = attrs["axis"], attrs["k"]
    axis_in("topk", axis, x.rank)
    dtype_in("topk", x, NUMBERS)
    must(0 <= k <= x.shape[axis], f"the {k} greatest of {x.shape[axis]}")
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    return [(shape, x.dtype), (shape, "int64")]


def _evaluate_topk(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x, axis = array(arrays, 0), attrs["axis"]
    at = np.take(order(x, axis, attrs["largest"]), np.arange(attrs["k"]), axis)
    return [np.take_along_axis(x, at, axis), at.astype(np.int64)]


def _infer_sort(inputs: Inputs, attrs: Attrs) -> Types:
    (x,) = given(inputs, 1, "sort")
    axis_in("sort", attrs["axis"], x.rank)
    dtype_in("sort", x, NUMBERS | {"bool"})
    return [(x.shape, x.dtype), (x.shape, "int64")]


def _evaluate_sort(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x, axis = array(arrays, 0), attrs["axis"]
    at = order(x, axis, attrs["descending"])
    return [np.take_along_axis(x, at, axis), at.astype(np.int64)]


# ---------------------------------------------------------------- along one dimension


def _along(name: str, allowed: frozenset[str]) -> Callable[[Inputs, Attrs], Types]:
    def infer(inputs: Inputs, attrs: Attrs) -> Types:
        (x,) = given(inputs, 1, name)
        axis_in(name, attrs["axis"], x.rank)
        dtype_in(name, x, allowed)
        return [(x.shape, x.dtype)]

    return infer


def _running(function: Callable[..., Any], neutral: int) -> Callable[[Arrays, Attrs], list[Array]]:
    def evaluate(arrays: Arrays, attrs: Attrs) -> list[Array]:
        x, axis = array(arrays, 0), attrs["axis"]
        source = np.flip(wide(x), axis) if attrs["reverse"] else wide(x)
        if attrs["exclusive"]:
            head = list(source.shape)
            head[axis] = min(1, head[axis])
            shifted = np.take(source, np.arange(max(source.shape[axis] - 1, 0)), axis)
            source = np.concatenate([np.full(head, neutral, source.dtype), shifted], axis)
        total = function(source, axis=axis, dtype=source.dtype)
        return [like(np.flip(total, axis) if attrs["reverse"] else total, x)]

    return evaluate


def softmax(x: Array, axis: int) -> Array:
    """Over nothing at all it is nothing; where every score is −∞ it is not a number, as the formula says."""
    if not x.size:
        return x
    raised = np.exp(x - x.max(axis, keepdims=True))
    return np.asarray(raised / raised.sum(axis, keepdims=True))


def _evaluate_softmax(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x = array(arrays, 0)
    return [like(softmax(wide(x), attrs["axis"]), x)]


def _evaluate_log_softmax(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x, axis = array(arrays, 0), attrs["axis"]
    if not x.size:
        return [x]
    source = wide(x)
    moved = source - source.max(axis, keepdims=True)
    return [like(moved - np.log(np.exp(moved).sum(axis, keepdims=True)), x)]


def _evaluate_hardmax(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x, axis = array(arrays, 0), attrs["axis"]
    if not x.size:
        return [x]
    shape = [1] * x.ndim
    shape[axis] = x.shape[axis]
    first = np.expand_dims(np.argmax(wide(x), axis), axis)
    return [(first == np.arange(x.shape[axis]).reshape(shape)).astype(x.dtype)]


# ---------------------------------------------------------------- norms


def _parameters(op: str, inputs: Inputs, count: int, shape: Shape) -> None:
    x = given(inputs, 1, op)[0]
    for index in range(1, 1 + count):
        value = maybe(inputs, index)
        if value is not None:
            same_dtype(op, x, value)
            must(value.shape == shape, f"{op} over {say(shape)} with parameters of shape {say(value.shape)}")


def _infer_norm(op: str, parameters: int) -> Callable[[Inputs, Attrs], Types]:
    def infer(inputs: Inputs, attrs: Attrs) -> Types:
        (x,) = given(inputs, 1, op)
        axis_in(op, attrs["axis"], x.rank)
        dtype_in(op, x, FLOATS)
        _parameters(op, inputs, parameters, x.shape[attrs["axis"] :])
        return [(x.shape, x.dtype)]

    return infer


def _scaled(normal: Array, arrays: Arrays) -> Array:
    scale, bias = array_or_none(arrays, 1), array_or_none(arrays, 2)
    if scale is not None:
        normal = normal * wide(scale)
    return normal if bias is None else normal + wide(bias)


def _evaluate_layer_norm(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x = array(arrays, 0)
    source, axes = wide(x), tuple(range(attrs["axis"], x.ndim))
    moved = source - source.mean(axes, keepdims=True)
    spread = np.square(moved).mean(axes, keepdims=True)
    return [like(_scaled(moved / np.sqrt(spread + source.dtype.type(attrs["eps"])), arrays), x)]


def _evaluate_rms_norm(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x = array(arrays, 0)
    source, axes = wide(x), tuple(range(attrs["axis"], x.ndim))
    spread = np.square(source).mean(axes, keepdims=True)
    return [like(_scaled(source / np.sqrt(spread + source.dtype.type(attrs["eps"])), arrays), x)]


def _infer_lrn(inputs: Inputs, attrs: Attrs) -> Types:
    (x,) = given(inputs, 1, "lrn")
    dtype_in("lrn", x, FLOATS)
    must(x.rank > 0 and attrs["size"] > 0, "lrn needs a dimension and a window")
    return [(x.shape, x.dtype)]


def _evaluate_lrn(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x, window = array(arrays, 0), attrs["size"]
    source = wide(x)
    before = (window - 1) // 2
    widths = [(0, 0)] * (x.ndim - 1) + [(before, window - 1 - before)]
    padded = np.pad(np.square(source), widths)
    total = np.zeros_like(source)
    for tap in range(window):
        total += padded[..., tap : tap + x.shape[-1]]
    kind = source.dtype.type
    base = kind(attrs["bias"]) + kind(attrs["alpha"] / window) * total
    return [like(source / np.power(base, kind(attrs["beta"])), x)]


SPECS: list[OpSpec] = [
    spec("reduce", Kind.REDUCTION, _infer_reduce, _evaluate_reduce, per_input(1), ("kind", "axes", "keepdims")),
    *(
        spec(
            name, Kind.REDUCTION, _infer_arg(name), _evaluate_arg(function), no_flops, ("axis", "keepdims", "last")
        )
        for name, function in (("argmax", np.argmax), ("argmin", np.argmin))
    ),
    *(
        spec(
            name,
            Kind.REDUCTION,
            _along(name, NUMBERS),
            _running(function, neutral),
            per_input(1),
            ("axis", "exclusive", "reverse"),
        )
        for name, function, neutral in (("cumsum", np.cumsum, 0), ("cumprod", np.cumprod, 1))
    ),
    spec("softmax", Kind.REDUCTION, _along("softmax", FLOATS), _evaluate_softmax, per_input(8), ("axis",)),
    spec(
        "log_softmax", Kind.REDUCTION, _along("log_softmax", FLOATS), _evaluate_log_softmax, per_input(8), ("axis",)
    ),
    spec("hardmax", Kind.REDUCTION, _along("hardmax", FLOATS), _evaluate_hardmax, no_flops, ("axis",)),
    spec(
        "layer_norm",
        Kind.REDUCTION,
        _infer_norm("layer_norm", 2),
        _evaluate_layer_norm,
        per_input(8),
        ("axis", "eps"),
    ),
    spec("rms_norm", Kind.REDUCTION, _infer_norm("rms_norm", 1), _evaluate_rms_norm, per_input(5), ("axis", "eps")),
    spec(
        "lrn",
        Kind.REDUCTION,
        _infer_lrn,
        _evaluate_lrn,
        lambda inputs, types, attrs: per_input(11 + attrs["size"])(inputs, types, attrs),
        ("size", "alpha", "beta", "bias"),
    ),
    spec(
        "topk",
        Kind.REDUCTION,
        _infer_topk,
        _evaluate_topk,
        no_flops,
        ("k", "axis", "largest", "sorted"),
    ),
    spec("sort", Kind.REDUCTION, _infer_sort, _evaluate_sort, no_flops, ("axis", "descending")),
]
