"""Operators that move data and compute nothing: and ``interp``, the one resize that all resizes are made of."""

# ruff: noqa: ARG001 - a rule is called with all that any rule may need

from __future__ import annotations

from typing import Any

import numpy as np

from fleetui.workshop.graph.ir import Array, Shape, numpy_dtype
from fleetui.workshop.graph.ops import Kind, OpSpec, Types
from fleetui.workshop.graph.primitives.common import (
    FLOATS,
    INTS,
    Arrays,
    Attrs,
    Inputs,
    array,
    axis_in,
    broadcast,
    dtype_in,
    given,
    like,
    must,
    no_flops,
    same_dtype,
    say,
    size,
    spec,
    wide,
)

MODES = ("constant", "reflect", "edge", "wrap")

# ---------------------------------------------------------------- shape alone


def _infer_reshape(inputs: Inputs, attrs: Attrs) -> Types:
    (x,) = given(inputs, 1, "reshape")
    shape: Shape = tuple(attrs["shape"])
    must(all(d >= 0 for d in shape), f"reshape to {say(shape)}")
    must(size(shape) == x.size, f"a tensor of shape {say(x.shape)} cannot be reshaped to {say(shape)}")
    return [(shape, x.dtype)]


def _infer_transpose(inputs: Inputs, attrs: Attrs) -> Types:
    (x,) = given(inputs, 1, "transpose")
    perm = tuple(attrs["perm"])
    must(sorted(perm) == list(range(x.rank)), f"transpose of {say(x.shape)} by {say(perm)}")
    return [(tuple(x.shape[p] for p in perm), x.dtype)]


def _infer_broadcast_to(inputs: Inputs, attrs: Attrs) -> Types:
    (x,) = given(inputs, 1, "broadcast_to")
    shape: Shape = tuple(attrs["shape"])
    must(broadcast("broadcast", x.shape, shape) == shape, f"{say(x.shape)} does not broadcast to {say(shape)}")
    return [(shape, x.dtype)]


def _infer_concat(inputs: Inputs, attrs: Attrs) -> Types:
    parts = given(inputs, len(inputs), "concat")
    must(bool(parts), "concat of nothing")
    axis = attrs["axis"]
    same_dtype("concat", *parts)
    first = parts[0]
    axis_in("concat", axis, first.rank)
    for part in parts[1:]:
        fits = part.rank == first.rank and all(
            a == b for i, (a, b) in enumerate(zip(part.shape, first.shape, strict=True)) if i != axis
        )
        must(fits, f"concat of {say(first.shape)} and {say(part.shape)} along dimension {axis}")
    total = sum(part.shape[axis] for part in parts)
    return [((*first.shape[:axis], total, *first.shape[axis + 1 :]), first.dtype)]


def _infer_tile(inputs: Inputs, attrs: Attrs) -> Types:
    (x,) = given(inputs, 1, "tile")
    repeats = tuple(attrs["repeats"])
    must(len(repeats) == x.rank and all(r >= 0 for r in repeats), f"tile of {say(x.shape)} by {say(repeats)}")
    return [(tuple(d * r for d, r in zip(x.shape, repeats, strict=True)), x.dtype)]


# ---------------------------------------------------------------- slice and pad


def slice_length(start: int, stop: int, step: int) -> int:
    return max(0, -((start - stop) // step)) if step > 0 else max(0, -((stop - start) // -step))


def _infer_slice(inputs: Inputs, attrs: Attrs) -> Types:
    (x,) = given(inputs, 1, "slice")
    triples = list(zip(attrs["starts"], attrs["stops"], attrs["steps"], strict=True))
    must(len(triples) == x.rank, f"slice of {say(x.shape)} with {len(triples)} ranges")
    for d, (start, stop, step) in zip(x.shape, triples, strict=True):
        forward = step > 0 and 0 <= start <= d and 0 <= stop <= d
        backward = step < 0 and (0 <= start < d or (d == 0 and start == 0)) and -1 <= stop < max(d, 1)
        must(forward or backward, f"slice from {start} to {stop} by {step} of a dimension of {d}")
    return [(tuple(slice_length(*triple) for triple in triples), x.dtype)]


def slices(attrs: Attrs) -> tuple[slice, ...]:
    return tuple(
        slice(start, None if step < 0 and stop < 0 else stop, step)
        for start, stop, step in zip(attrs["starts"], attrs["stops"], attrs["steps"], strict=True)
    )


def _infer_pad(inputs: Inputs, attrs: Attrs) -> Types:
    (x,) = given(inputs, 1, "pad")
    before, after, mode = tuple(attrs["before"]), tuple(attrs["after"]), attrs["mode"]
    must(mode in MODES, f"pad in the mode {mode}")
    must(len(before) == x.rank == len(after), f"pad of {say(x.shape)} by {say(before)} and {say(after)}")
    must(all(n >= 0 for n in (*before, *after)), f"pad by {say(before)} and {say(after)}")
    if mode != "constant":
        grown = [d for d, b, a in zip(x.shape, before, after, strict=True) if b or a]
        must(all(grown), f"pad of an empty dimension in the mode {mode}")
    return [(tuple(d + b + a for d, b, a in zip(x.shape, before, after, strict=True)), x.dtype)]


def _evaluate_pad(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x, mode = array(arrays, 0), attrs["mode"]
    widths = list(zip(attrs["before"], attrs["after"], strict=True))
    if mode == "constant":
        out = np.full(
            [d + b + a for d, (b, a) in zip(x.shape, widths, strict=True)],
            np.array(attrs.get("value", 0)).astype(x.dtype),
        )
        out[tuple(slice(b, b + d) for d, (b, _) in zip(x.shape, widths, strict=True))] = x
        return [out]
    for axis, (b, a) in enumerate(widths):
        if b or a:
            x = np.take(x, pad_index(x.shape[axis], b, a, mode), axis)
    return [x]


def pad_index(length: int, before: int, after: int, mode: str) -> Array:
    """Which element stands at each place of a padded dimension."""
    at = np.arange(-before, length + after)
    if mode == "edge":
        return np.clip(at, 0, length - 1)
    if mode == "wrap":
        return at % length
    period = max(2 * (length - 1), 1)
    at %= period
    return np.minimum(at, period - at) if length > 1 else np.zeros_like(at)


# ---------------------------------------------------------------- by index


def settle(indices: Array, length: int) -> Array:
    """Negative ones count from the end; what is still outside is moved to the nearest end."""
    at = indices.astype(np.int64)
    return np.clip(np.where(at < 0, at + length, at), 0, max(length - 1, 0))


def _infer_gather(inputs: Inputs, attrs: Attrs) -> Types:
    data, indices = given(inputs, 2, "gather")
    axis = attrs["axis"]
    axis_in("gather", axis, data.rank)
    dtype_in("gather by", indices, INTS)
    must(data.shape[axis] > 0 or indices.size == 0, "gather from an empty dimension")
    return [((*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]), data.dtype)]


def _evaluate_gather(arrays: Arrays, attrs: Attrs) -> list[Array]:
    data, axis = array(arrays, 0), attrs["axis"]
    return [np.take(data, settle(array(arrays, 1), data.shape[axis]), axis)]


def _infer_gather_elements(inputs: Inputs, attrs: Attrs) -> Types:
    data, indices = given(inputs, 2, "gather_elements")
    axis = attrs["axis"]
    axis_in("gather_elements", axis, data.rank)
    dtype_in("gather_elements by", indices, INTS)
    fits = data.rank == indices.rank and all(
        i <= d for at, (i, d) in enumerate(zip(indices.shape, data.shape, strict=True)) if at != axis
    )
    must(fits, f"gather_elements from {say(data.shape)} by {say(indices.shape)}")
    must(data.shape[axis] > 0 or indices.size == 0, "gather_elements from an empty dimension")
    return [(indices.shape, data.dtype)]


def _evaluate_gather_elements(arrays: Arrays, attrs: Attrs) -> list[Array]:
    data, indices, axis = array(arrays, 0), array(arrays, 1), attrs["axis"]
    grids: list[Any] = list(np.indices(indices.shape, sparse=True))
    grids[axis] = settle(indices, data.shape[axis])
    return [data[tuple(grids)]]


def _infer_gather_nd(inputs: Inputs, attrs: Attrs) -> Types:
    data, indices = given(inputs, 2, "gather_nd")
    batch = attrs["batch_dims"]
    dtype_in("gather_nd by", indices, INTS)
    must(indices.rank > batch, f"gather_nd with {batch} batch dimensions and indices of shape {say(indices.shape)}")
    depth = indices.shape[-1]
    fits = batch + depth <= data.rank and data.shape[:batch] == indices.shape[:batch]
    must(fits, f"gather_nd from {say(data.shape)} by {say(indices.shape)} with {batch} batch dimensions")
    empty = 0 in data.shape[batch : batch + depth] and size(indices.shape[:-1]) > 0
    must(not empty, "gather_nd from an empty dimension")
    return [((*indices.shape[:-1], *data.shape[batch + depth :]), data.dtype)]


def _evaluate_gather_nd(arrays: Arrays, attrs: Attrs) -> list[Array]:
    data, indices, batch = array(arrays, 0), array(arrays, 1), attrs["batch_dims"]
    depth = indices.shape[-1]
    grids: list[Any] = []
    for axis in range(batch):
        shape = [1] * (indices.ndim - 1)
        shape[axis] = data.shape[axis]
        grids.append(np.arange(data.shape[axis]).reshape(shape))
    grids += [settle(indices[..., i], data.shape[batch + i]) for i in range(depth)]
    if not grids:
        return [np.broadcast_to(data, (*indices.shape[:-1], *data.shape)).copy()]
    return [np.broadcast_to(data[tuple(grids)], (*indices.shape[:-1], *data.shape[batch + depth :])).copy()]


def _infer_one_hot(inputs: Inputs, attrs: Attrs) -> Types:
    (indices,) = given(inputs, 1, "one_hot")
    dtype_in("one_hot of", indices, INTS)
    axis, depth = attrs["axis"], attrs["depth"]
    axis_in("one_hot", axis, indices.rank + 1)
    must(depth >= 0, f"one_hot of depth {depth}")
    return [((*indices.shape[:axis], depth, *indices.shape[axis:]), attrs["dtype"])]


def _evaluate_one_hot(arrays: Arrays, attrs: Attrs) -> list[Array]:
    indices, axis, depth = array(arrays, 0).astype(np.int64), attrs["axis"], attrs["depth"]
    wanted = np.where(indices < 0, indices + depth, indices)
    shape = [1] * (indices.ndim + 1)
    shape[axis] = depth
    hot = np.expand_dims(wanted, axis) == np.arange(depth).reshape(shape)
    dtype = numpy_dtype(attrs["dtype"])
    return [np.where(hot, np.array(attrs["on"]).astype(dtype), np.array(attrs["off"]).astype(dtype))]


# ---------------------------------------------------------------- interp


def _infer_interp(inputs: Inputs, attrs: Attrs) -> Types:
    x, index, weight = given(inputs, 3, "interp")
    axis = attrs["axis"]
    axis_in("interp", axis, x.rank)
    dtype_in("interp", x, FLOATS)
    must(index.data is not None and weight.data is not None, "interp needs constant indices and weights")
    must(index.dtype == "int32" and weight.dtype == "float32", "interp takes int32 indices and float32 weights")
    must(index.rank == 2 and index.shape == weight.shape, f"interp by {say(index.shape)} and {say(weight.shape)}")
    assert index.data is not None
    inside = index.data.size == 0 or (index.data.min() >= 0 and index.data.max() < x.shape[axis])
    must(inside, f"interp reads outside of a dimension of {x.shape[axis]}")
    return [((*x.shape[:axis], index.shape[0], *x.shape[axis + 1 :]), x.dtype)]


def _evaluate_interp(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x, index, weight, axis = array(arrays, 0), array(arrays, 1), array(arrays, 2), attrs["axis"]
    source = wide(x)
    shape = [1] * x.ndim
    shape[axis] = index.shape[0]
    total = np.zeros([*x.shape[:axis], index.shape[0], *x.shape[axis + 1 :]], source.dtype)
    for tap in range(index.shape[1]):
        total += np.take(source, index[:, tap], axis) * weight[:, tap].astype(source.dtype).reshape(shape)
    return [like(total, x)]


def _flops_interp(inputs: Inputs, types: Types, attrs: Attrs) -> int:
    index = inputs[1]
    return 2 * size(types[0][0]) * (index.shape[1] if index is not None else 0)


SPECS: list[OpSpec] = [
    spec(
        "reshape",
        Kind.INJECTIVE,
        _infer_reshape,
        lambda arrays, attrs: [array(arrays, 0).reshape(attrs["shape"])],
        no_flops,
        ("shape",),
    ),
    spec(
        "transpose",
        Kind.INJECTIVE,
        _infer_transpose,
        lambda arrays, attrs: [array(arrays, 0).transpose(attrs["perm"])],
        no_flops,
        ("perm",),
    ),
    spec(
        "broadcast_to",
        Kind.INJECTIVE,
        _infer_broadcast_to,
        lambda arrays, attrs: [np.broadcast_to(array(arrays, 0), attrs["shape"])],
        no_flops,
        ("shape",),
    ),
    spec(
        "concat",
        Kind.INJECTIVE,
        _infer_concat,
        lambda arrays, attrs: [np.concatenate([a for a in arrays if a is not None], attrs["axis"])],
        no_flops,
        ("axis",),
    ),
    spec(
        "slice",
        Kind.INJECTIVE,
        _infer_slice,
        lambda arrays, attrs: [array(arrays, 0)[slices(attrs)]],
        no_flops,
        ("starts", "stops", "steps"),
    ),
    spec("pad", Kind.INJECTIVE, _infer_pad, _evaluate_pad, no_flops, ("before", "after", "mode"), ("value",)),
    spec("gather", Kind.INJECTIVE, _infer_gather, _evaluate_gather, no_flops, ("axis",)),
    spec("gather_elements", Kind.INJECTIVE, _infer_gather_elements, _evaluate_gather_elements, no_flops, ("axis",)),
    spec("gather_nd", Kind.INJECTIVE, _infer_gather_nd, _evaluate_gather_nd, no_flops, ("batch_dims",)),
    spec(
        "tile",
        Kind.INJECTIVE,
        _infer_tile,
        lambda arrays, attrs: [np.tile(array(arrays, 0), attrs["repeats"])],
        no_flops,
        ("repeats",),
    ),
    spec(
        "one_hot",
        Kind.INJECTIVE,
        _infer_one_hot,
        _evaluate_one_hot,
        no_flops,
        ("depth", "axis", "on", "off", "dtype"),
    ),
    spec("interp", Kind.INJECTIVE, _infer_interp, _evaluate_interp, _flops_interp, ("axis",)),
]
