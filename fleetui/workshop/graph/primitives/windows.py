"""Pooling and its inverse. Sums, maxima and sums of powers are taken one dimension after the other."""

# ruff: noqa: ARG001 - a rule is called with all that any rule may need

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
    dtype_in,
    dtype_name,
    given,
    like,
    lowest,
    must,
    no_flops,
    say,
    size,
    spec,
    wide,
)

POOLS = ("max", "avg", "l2", "lp")


def _infer_pool(inputs: Inputs, attrs: Attrs) -> Types:
    (x,) = given(inputs, 1, "pool")
    rank, kind = x.rank - 2, attrs["kind"]
    must(rank in {1, 2, 3}, f"pool of {say(x.shape)}")
    must(kind in POOLS, f"pool by {kind}")
    dtype_in(f"pool by {kind}", x, NUMBERS if kind == "max" else FLOATS)
    for key in ("kernel", "strides", "pads", "dilations", "out"):
        must(len(attrs[key]) == rank, f"pool of {say(x.shape)} with {key} {attrs[key]}")
    for i in range(rank):
        before, after = attrs["pads"][i]
        stride, out = attrs["strides"][i], attrs["out"][i]
        must(before >= 0 and after >= 0 and stride >= 1 and attrs["kernel"][i] >= 1, f"pool with {attrs}")
        must(
            attrs["dilations"][i] >= 1 and out >= 1 and x.shape[1 + i] >= 1, f"pool of {say(x.shape)} with {attrs}"
        )
        room = x.shape[1 + i] + before + after
        must((out - 1) * stride < room, f"the last of {out} windows lies outside of a padded dimension of {room}")
    return [((x.shape[0], *attrs["out"], x.shape[-1]), x.dtype)]


def _infer_pool_indices(inputs: Inputs, attrs: Attrs) -> Types:
    must(attrs["kind"] == "max", "only a maximum has a place")
    (values,) = _infer_pool(inputs, attrs)
    return [values, (values[0], "int64")]


def _along(x: Array, attrs: Attrs, fill: Any, join: Callable[[Array, Array], Array], pads: bool = True) -> Array:
    """Join the windows' elements along every spatial dimension in turn; outside there is ``fill``."""
    for i, out in enumerate(attrs["out"]):
        kernel, stride, dilation = attrs["kernel"][i], attrs["strides"][i], attrs["dilations"][i]
        before = attrs["pads"][i][0] if pads else 0
        reach = (out - 1) * stride + (kernel - 1) * dilation + 1
        after = max(0, reach - before - x.shape[1 + i])
        widths = [(0, 0)] * x.ndim
        widths[1 + i] = (before, after)
        padded = np.pad(x, widths, constant_values=fill) if before or after else x
        where: list[Any] = [slice(None)] * x.ndim
        total: Array | None = None
        for tap in range(kernel):
            where[1 + i] = slice(tap * dilation, tap * dilation + (out - 1) * stride + 1, stride)
            part = padded[tuple(where)]
            total = part if total is None else join(total, part)
        assert total is not None
        x = total
    return x


def _counts(shape: Shape, attrs: Attrs, dtype: Any) -> Array:
    """How many elements of each window count for a mean: real ones, and padded ones if they are to count."""
    ones = np.ones((1, *shape, 1), dtype)
    if attrs["count_include_pad"]:
        ones = np.pad(ones, [(0, 0), *attrs["pads"], (0, 0)], constant_values=1)
        return np.maximum(_along(ones, attrs, 0, np.add, pads=False), 1)
    return np.maximum(_along(ones, attrs, 0, np.add), 1)


def _evaluate_pool(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x, kind = array(arrays, 0), attrs["kind"]
    source = wide(x)
    if kind == "max":
        return [like(_along(source, attrs, lowest(dtype_name(source)), np.maximum), x)]
    if kind == "avg":
        total = _along(source, attrs, 0, np.add)
        return [like(total / _counts(x.shape[1:-1], attrs, source.dtype), x)]
    if kind == "l2":
        return [like(np.sqrt(_along(np.square(source), attrs, 0, np.add)), x)]
    power = source.dtype.type(attrs.get("p", 2))
    total = _along(np.power(np.abs(source), power), attrs, 0, np.add)
    return [like(np.power(total, 1 / power), x)]


def _evaluate_pool_indices(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x = array(arrays, 0)
    source, rank = wide(x), x.ndim - 2
    spatial = x.shape[1:-1]
    axes = range(rank) if attrs["storage_order"] else reversed(range(rank))
    steps, step = [0] * rank, 1
    for i in axes:
        steps[i], step = step, step * spatial[i]
    flat = sum(
        np.arange(d).reshape([-1 if j == i else 1 for j in range(rank)]) * steps[i] for i, d in enumerate(spatial)
    )
    channel = np.arange(x.shape[0])[:, None] * x.shape[-1] + np.arange(x.shape[-1])
    places = np.asarray(flat)[None, ..., None] + (channel * step).reshape(x.shape[0], *[1] * rank, x.shape[-1])

    reach = [(o - 1) * attrs["strides"][i] + (attrs["kernel"][i] - 1) * attrs["dilations"][i] + 1
             for i, o in enumerate(attrs["out"])]  # fmt: skip
    widths = [(0, 0)] + [
        (b, max(0, reach[i] - b - spatial[i])) for i, (b, _) in enumerate(attrs["pads"])
    ] + [(0, 0)]  # fmt: skip
    values = np.pad(source, widths, constant_values=lowest(dtype_name(source)))
    real = np.pad(np.ones((1, *spatial, 1), bool), widths)
    places = np.pad(np.broadcast_to(places, x.shape), widths)
    best: Array | None = None
    found, seen = places, real
    for at in np.ndindex(*attrs["kernel"]):
        starts = [at[i] * attrs["dilations"][i] for i in range(rank)]
        spans = [(attrs["out"][i] - 1) * attrs["strides"][i] + 1 for i in range(rank)]
        where = (
            slice(None),
            *(slice(b, b + n, s) for b, n, s in zip(starts, spans, attrs["strides"], strict=True)),
        )
        if best is None:
            best, found = values[where], places[where]
            seen = np.broadcast_to(real[where], best.shape)
            continue
        better = real[where] & (~seen | (values[where] > best) | (np.isnan(values[where]) & ~np.isnan(best)))
        best = np.where(better, values[where], best)
        found = np.where(better, places[where], found)
        seen = seen | real[where]
    assert best is not None
    return [like(best, x), found.astype(np.int64)]


def _flops_pool(inputs: Inputs, types: Types, attrs: Attrs) -> int:
    each = 1 if attrs["kind"] in {"max", "avg"} else 2
    return each * size(types[0][0]) * size(tuple(attrs["kernel"]))


def _infer_unpool(inputs: Inputs, attrs: Attrs) -> Types:
    x, indices = given(inputs, 2, "unpool")
    must(x.rank >= 3 and indices.shape == x.shape, f"unpool of {say(x.shape)} by {say(indices.shape)}")
    must(len(attrs["out"]) == x.rank - 2, f"unpool of {say(x.shape)} to {attrs['out']}")
    must(indices.dtype == "int64", f"unpool by {indices.dtype}")
    return [((x.shape[0], *attrs["out"], x.shape[-1]), x.dtype)]


def _evaluate_unpool(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x, indices = array(arrays, 0), array(arrays, 1)
    shape = (x.shape[0], x.shape[-1], *attrs["out"])
    flat = np.zeros(size(shape), x.dtype)
    inside = (indices >= 0) & (indices < flat.size)
    flat[indices[inside]] = x[inside]
    return [np.moveaxis(flat.reshape(shape), 1, -1)]


POOL = ("kind", "kernel", "strides", "pads", "dilations", "count_include_pad", "out")
SPECS: list[OpSpec] = [
    spec("pool", Kind.WINDOW, _infer_pool, _evaluate_pool, _flops_pool, POOL, ("p",)),
    spec(
        "pool_indices",
        Kind.WINDOW,
        _infer_pool_indices,
        _evaluate_pool_indices,
        no_flops,
        (*POOL, "storage_order"),
        ("p",),
    ),
    spec("unpool", Kind.WINDOW, _infer_unpool, _evaluate_unpool, no_flops, ("out",)),
]
