"""Matrix products, convolutions, attention.

A convolution is a sum over the kernel's taps of one matrix product each, or, where there are few channels, one
product with the taps unrolled. Products of 8-bit integers are made in float64, which is exact for any size that
fits into memory, and much faster than numpy's integer products.
"""

# ruff: noqa: ARG001 - a rule is called with all that any rule may need

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from fleetui.workshop.graph.ir import Array, Shape, Value
from fleetui.workshop.graph.ops import Kind, OpSpec, Types
from fleetui.workshop.graph.primitives.common import (
    BYTES,
    FLOATS,
    NUMBERS,
    Arrays,
    Attrs,
    Inputs,
    array,
    array_or_none,
    broadcast,
    dtype_in,
    dtype_name,
    given,
    like,
    maybe,
    must,
    same_dtype,
    say,
    size,
    spec,
    wide,
)
from fleetui.workshop.graph.primitives.reductions import softmax

UNROLL_BELOW = 16

# ---------------------------------------------------------------- shared


def _product_dtype(op: str, a: Value, b: Value, allowed: frozenset[str]) -> str:
    if a.dtype in BYTES and b.dtype in BYTES:
        return "int32"
    dtype_in(op, a, allowed)
    same_dtype(op, a, b)
    return a.dtype


def _operands(a: Array, b: Array) -> tuple[Array, Array, Any]:
    """Both in the type to multiply in, and the dtype the result is due in."""
    if dtype_name(a) in BYTES and dtype_name(b) in BYTES:
        return a.astype(np.float64), b.astype(np.float64), np.dtype(np.int32)
    return wide(a), wide(b), a.dtype


def _finish(total: Array, bias: Array | None, dtype: Any) -> Array:
    """Add the bias before the one rounding. Sums beyond int32 wrap."""
    if dtype == np.int32 and total.dtype == np.float64:
        total = total.astype(np.int64).astype(np.int32)
    if bias is not None:
        total = total + wide(bias)
    return np.asarray(total) if total.dtype == dtype else np.asarray(total).astype(dtype)


def _check_bias(op: str, inputs: Inputs, outputs: int, dtype: str) -> None:
    bias = maybe(inputs, 2)
    if bias is not None:
        must(bias.shape == (outputs,), f"{op} with {outputs} outputs and a bias of shape {say(bias.shape)}")
        must(bias.dtype == dtype, f"{op} gives {dtype} and its bias is {bias.dtype}")


# ---------------------------------------------------------------- matmul, dense


def _turned(shape: Shape, turn: bool) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2]) if turn else shape


def _infer_matmul(inputs: Inputs, attrs: Attrs) -> Types:
    a, b = given(inputs, 2, "matmul")
    must(a.rank >= 2 and b.rank >= 2, f"matmul of {say(a.shape)} and {say(b.shape)}")
    left = _turned(a.shape, attrs.get("transpose_a", False))
    right = _turned(b.shape, attrs.get("transpose_b", False))
    must(left[-1] == right[-2], f"matmul of {say(left)} and {say(right)}")
    dtype = _product_dtype("matmul", a, b, NUMBERS)
    return [((*broadcast("matmul", left[:-2], right[:-2]), left[-2], right[-1]), dtype)]


def _evaluate_matmul(arrays: Arrays, attrs: Attrs) -> list[Array]:
    a, b, dtype = _operands(array(arrays, 0), array(arrays, 1))
    if attrs.get("transpose_a", False):
        a = a.swapaxes(-1, -2)
    if attrs.get("transpose_b", False):
        b = b.swapaxes(-1, -2)
    return [_finish(np.matmul(a, b), None, dtype)]


def _flops_matmul(inputs: Inputs, types: Types, attrs: Attrs) -> int:
    a = given(inputs, 1, "matmul")[0]
    return 2 * size(types[0][0]) * a.shape[-2 if attrs.get("transpose_a", False) else -1]


def _infer_dense(inputs: Inputs, attrs: Attrs) -> Types:
    x, w = given(inputs, 2, "dense")
    must(x.rank >= 1 and w.rank == 2 and x.shape[-1] == w.shape[0], f"dense of {say(x.shape)} by {say(w.shape)}")
    dtype = _product_dtype("dense", x, w, NUMBERS)
    _check_bias("dense", inputs, w.shape[1], dtype)
    return [((*x.shape[:-1], w.shape[1]), dtype)]


def _evaluate_dense(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x, w, dtype = _operands(array(arrays, 0), array(arrays, 1))
    rows = x.reshape(size(x.shape[:-1]), x.shape[-1])
    out = np.matmul(rows, w).reshape(*x.shape[:-1], w.shape[1])
    return [_finish(out, array_or_none(arrays, 2), dtype)]


def _flops_dense(inputs: Inputs, types: Types, attrs: Attrs) -> int:
    w = given(inputs, 2, "dense")[1]
    return size(types[0][0]) * (2 * w.shape[0] + (maybe(inputs, 2) is not None))


# ---------------------------------------------------------------- conv


def _spatial(op: str, x: Value, w: Value, attrs: Attrs) -> int:
    rank = x.rank - 2
    must(rank in {1, 2, 3} and w.rank == rank + 2, f"{op} of {say(x.shape)} by {say(w.shape)}")
    for key in ("strides", "pads", "dilations"):
        must(len(attrs[key]) == rank, f"{op} of {say(x.shape)} with {key} {attrs[key]}")
    must(all(s >= 1 for s in (*attrs["strides"], *attrs["dilations"])), f"{op} with a step below 1")
    must(all(p >= 0 for pair in attrs["pads"] for p in pair), f"{op} with pads {attrs['pads']}")
    must(attrs["groups"] >= 1, f"{op} in {attrs['groups']} groups")
    return rank


def _infer_conv(inputs: Inputs, attrs: Attrs) -> Types:
    x, w = given(inputs, 2, "conv")
    rank = _spatial("conv", x, w, attrs)
    groups, channels, outputs = attrs["groups"], x.shape[-1], w.shape[-1]
    fits = channels == w.shape[-2] * groups and outputs % groups == 0
    must(fits, f"conv of {say(x.shape)} by {say(w.shape)} in {groups} groups")
    dtype = _product_dtype("conv", x, w, FLOATS | {"int32"})
    _check_bias("conv", inputs, outputs, dtype)
    out: list[int] = []
    for i in range(rank):
        before, after = attrs["pads"][i]
        reach = attrs["dilations"][i] * (w.shape[i] - 1) + 1
        room = x.shape[1 + i] + before + after
        must(room >= reach > 0, f"a window of {reach} does not fit into a padded dimension of {room}")
        out.append((room - reach) // attrs["strides"][i] + 1)
    return [((x.shape[0], *out, outputs), dtype)]


def _evaluate_conv(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x, w, dtype = _operands(array(arrays, 0), array(arrays, 1))
    rank, groups = x.ndim - 2, attrs["groups"]
    kernel, strides, dilations = w.shape[:rank], attrs["strides"], attrs["dilations"]
    if any(p for pair in attrs["pads"] for p in pair):
        x = np.pad(x, [(0, 0), *attrs["pads"], (0, 0)])
    out = [(x.shape[1 + i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in range(rank)]
    outputs, per = w.shape[-1], w.shape[-2]

    def tap(at: tuple[int, ...]) -> Array:
        where = tuple(
            slice(at[i] * dilations[i], at[i] * dilations[i] + (out[i] - 1) * strides[i] + 1, strides[i])
            for i in range(rank)
        )
        return x[(slice(None), *where)]

    taps = list(product(*map(range, kernel)))
    pixels, bias = x.shape[0] * size(tuple(out)), array_or_none(arrays, 2)
    shape = (x.shape[0], *out, outputs)
    total: Array
    if groups == 1 and per < UNROLL_BELOW:
        unrolled = np.concatenate([tap(at).reshape(pixels, per) for at in taps], axis=1)
        total = np.matmul(unrolled, w.reshape(-1, outputs))
    elif groups == 1:
        total = np.zeros((pixels, outputs), x.dtype)
        for at in taps:
            total += np.matmul(tap(at).reshape(pixels, per), w[at])
    elif per == 1:
        each = outputs // groups
        total = np.zeros((pixels, groups, each), x.dtype)
        for at in taps:
            total += tap(at).reshape(pixels, groups, 1) * w[at].reshape(groups, each)
    else:
        each = outputs // groups
        stacked = np.zeros((groups, pixels, each), x.dtype)
        for at in taps:
            rows = tap(at).reshape(pixels, groups, per).transpose(1, 0, 2)
            stacked += np.matmul(rows, w[at].reshape(per, groups, each).transpose(1, 0, 2))
        total = stacked.transpose(1, 0, 2)
    return [_finish(total.reshape(shape), bias, dtype)]


def _flops_conv(inputs: Inputs, types: Types, attrs: Attrs) -> int:
    w = given(inputs, 2, "conv")[1]
    return size(types[0][0]) * (2 * size(w.shape[:-1]) + (maybe(inputs, 2) is not None))


# ---------------------------------------------------------------- conv_transpose


def _infer_conv_transpose(inputs: Inputs, attrs: Attrs) -> Types:
    x, w = given(inputs, 2, "conv_transpose")
    rank = _spatial("conv_transpose", x, w, attrs)
    groups, channels = attrs["groups"], x.shape[-1]
    fits = channels == w.shape[-2] and channels % groups == 0
    must(fits, f"conv_transpose of {say(x.shape)} by {say(w.shape)} in {groups} groups")
    must(len(attrs["output_padding"]) == rank, f"conv_transpose with output padding {attrs['output_padding']}")
    dtype = _product_dtype("conv_transpose", x, w, FLOATS)
    outputs = w.shape[-1] * groups
    _check_bias("conv_transpose", inputs, outputs, dtype)
    out: list[int] = []
    for i in range(rank):
        must(x.shape[1 + i] > 0 and w.shape[i] > 0, f"conv_transpose of {say(x.shape)} by {say(w.shape)}")
        before, after = attrs["pads"][i]
        reach = attrs["dilations"][i] * (w.shape[i] - 1) + 1
        extra = attrs["output_padding"][i]
        length = (x.shape[1 + i] - 1) * attrs["strides"][i] - before - after + reach + extra
        must(length >= 0 and extra >= 0, f"conv_transpose crops {before + after} from less than that")
        out.append(length)
    return [((x.shape[0], *out, outputs), dtype)]


def _evaluate_conv_transpose(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x, w, dtype = _operands(array(arrays, 0), array(arrays, 1))
    rank, groups = x.ndim - 2, attrs["groups"]
    kernel, strides, dilations = w.shape[:rank], attrs["strides"], attrs["dilations"]
    each, per = w.shape[-1], x.shape[-1] // groups
    full = [
        (x.shape[1 + i] - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1 + attrs["output_padding"][i]
        for i in range(rank)
    ]
    total = np.zeros((x.shape[0], *full, groups * each), x.dtype)
    pixels = size(x.shape[:-1])
    rows = x.reshape(pixels, groups, per).transpose(1, 0, 2)
    for at in product(*map(range, kernel)):
        where = tuple(
            slice(at[i] * dilations[i], at[i] * dilations[i] + (x.shape[1 + i] - 1) * strides[i] + 1, strides[i])
            for i in range(rank)
        )
        part = np.matmul(rows, w[at].reshape(groups, per, each)).transpose(1, 0, 2)
        total[(slice(None), *where)] += part.reshape(*x.shape[:-1], groups * each)
    crop = tuple(slice(b, full[i] - a) for i, (b, a) in enumerate(attrs["pads"]))
    return [_finish(total[(slice(None), *crop)], array_or_none(arrays, 2), dtype)]


def _flops_conv_transpose(inputs: Inputs, types: Types, attrs: Attrs) -> int:
    x, w = given(inputs, 2, "conv_transpose")
    bias = size(types[0][0]) if maybe(inputs, 2) is not None else 0
    return 2 * x.size * size(w.shape[:-2]) * w.shape[-1] + bias


# ---------------------------------------------------------------- attention


def _infer_attention(inputs: Inputs, attrs: Attrs) -> Types:
    q, k, v = given(inputs, 3, "attention")
    dtype_in("attention", q, FLOATS)
    same_dtype("attention", q, k, v)
    sentence = f"attention of {say(q.shape)} over {say(k.shape)} and {say(v.shape)}"
    must(q.rank == k.rank == v.rank == 4, sentence)
    must(q.shape[0] == k.shape[0] == v.shape[0] and q.shape[3] == k.shape[3], sentence)
    must(k.shape[1:3] == v.shape[1:3] and k.shape[1] > 0 and q.shape[1] % k.shape[1] == 0, sentence)
    mask, scores = maybe(inputs, 3), (*q.shape[:3], k.shape[2])
    if mask is not None:
        must(mask.dtype in {"bool", q.dtype}, f"attention with a mask of {mask.dtype}")
        fits = broadcast("attention", mask.shape, scores) == scores
        must(fits, f"a mask of shape {say(mask.shape)} for scores of shape {say(scores)}")
    return [((*q.shape[:3], v.shape[3]), q.dtype)]


def _evaluate_attention(arrays: Arrays, attrs: Attrs) -> list[Array]:
    q, k, v = (wide(array(arrays, i)) for i in range(3))
    mask, times = array_or_none(arrays, 3), q.shape[1] // k.shape[1]
    if times > 1:
        k, v = np.repeat(k, times, 1), np.repeat(v, times, 1)
    scores = np.matmul(q, k.swapaxes(-1, -2)) * q.dtype.type(attrs["scale"])
    if attrs["softcap"]:
        scores = attrs["softcap"] * np.tanh(scores / q.dtype.type(attrs["softcap"]))
    if mask is not None and mask.dtype == np.bool_:
        scores = np.where(mask, scores, -np.inf)
    elif mask is not None:
        scores = scores + wide(mask)
    if attrs["causal"]:
        scores = np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf)
    scores = scores.astype(q.dtype)
    none = np.all(np.isneginf(scores), -1, keepdims=True)
    weights = np.where(none, np.zeros((), q.dtype), softmax(np.where(none, np.zeros((), q.dtype), scores), -1))
    return [like(np.matmul(weights, v), array(arrays, 0))]


def _flops_attention(inputs: Inputs, types: Types, attrs: Attrs) -> int:
    q, k, v = given(inputs, 3, "attention")
    scores = size(q.shape[:3]) * k.shape[2]
    return scores * (2 * q.shape[3] + 2 * v.shape[3] + 8)


CONV = ("strides", "pads", "dilations", "groups")
SPECS: list[OpSpec] = [
    spec(
        "matmul",
        Kind.CONTRACTION,
        _infer_matmul,
        _evaluate_matmul,
        _flops_matmul,
        (),
        ("transpose_a", "transpose_b"),
    ),
    spec("dense", Kind.CONTRACTION, _infer_dense, _evaluate_dense, _flops_dense),
    spec("conv", Kind.CONTRACTION, _infer_conv, _evaluate_conv, _flops_conv, CONV),
    spec(
        "conv_transpose",
        Kind.CONTRACTION,
        _infer_conv_transpose,
        _evaluate_conv_transpose,
        _flops_conv_transpose,
        (*CONV, "output_padding"),
    ),
    spec(
        "attention",
        Kind.CONTRACTION,
        _infer_attention,
        _evaluate_attention,
        _flops_attention,
        ("scale", "causal", "softcap"),
    ),
]
