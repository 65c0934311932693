"""Into 8 and 4 bits, and back."""

from __future__ import annotations

import numpy as np

from fleetui.workshop.graph.ir import Array, Value, numpy_dtype
from fleetui.workshop.graph.ops import Kind, OpSpec, Types
from fleetui.workshop.graph.primitives.common import (
    FLOATS,
    Arrays,
    Attrs,
    Inputs,
    array,
    array_or_none,
    axis_in,
    dtype_in,
    given,
    limits,
    maybe,
    must,
    per_output,
    say,
    spec,
    wide,
)

CODES = frozenset({"int4", "uint4", "int8", "uint8", "int16", "uint16"})
STORED = CODES | {"int32"}


def _check(op: str, x: Value, inputs: Inputs, attrs: Attrs) -> None:
    scale, zero = given(inputs, 2, op)[1], maybe(inputs, 2)
    axis, block = attrs["axis"], attrs.get("block", 0)
    dtype_in(f"{op} with a scale that", scale, FLOATS)
    sentence = f"{op} of {say(x.shape)} with scales {say(scale.shape)} along dimension {axis}"
    if block:
        axis_in(op, axis, x.rank)
        must(block > 0, sentence)
        want = tuple(-(-d // block) if i == axis else d for i, d in enumerate(x.shape))
        must(scale.shape == want, sentence)
    elif scale.rank:
        axis_in(op, axis, x.rank)
        must(scale.rank == 1 and scale.shape[0] == x.shape[axis], sentence)
    must(zero is None or zero.shape == scale.shape, f"{op} with scales and zero points of different shapes")


def spread(parameter: Array, x: Array, attrs: Attrs) -> Array:
    """Scales or zero points in a shape that broadcasts against the tensor."""
    axis, block = attrs["axis"], attrs.get("block", 0)
    if block:
        return np.repeat(parameter, block, axis)[tuple(slice(d) for d in x.shape)]
    if parameter.ndim == 0:
        return parameter
    return parameter.reshape([-1 if i == axis else 1 for i in range(x.ndim)])


def _infer_quantize(inputs: Inputs, attrs: Attrs) -> Types:
    x = given(inputs, 2, "quantize")[0]
    zero, dtype = maybe(inputs, 2), attrs["dtype"]
    dtype_in("quantize", x, FLOATS)
    must(dtype in CODES, f"quantize to {dtype}")
    must(zero is None or zero.dtype == dtype, f"quantize to {dtype} with another type of zero point")
    _check("quantize", x, inputs, attrs)
    return [(x.shape, dtype)]


def _evaluate_quantize(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x, zero, dtype = array(arrays, 0), array_or_none(arrays, 2), attrs["dtype"]
    codes = np.rint(wide(x) / spread(wide(array(arrays, 1)), x, attrs))
    codes = np.where(np.isnan(codes), 0, codes)
    low, high = limits(dtype)
    if zero is not None:
        offset = spread(zero.astype(np.float64 if dtype in {"int16", "uint16"} else np.float32), x, attrs)
        codes = codes + offset
    return [np.clip(codes, low, high).astype(np.int32).astype(numpy_dtype(dtype))]


def _infer_dequantize(inputs: Inputs, attrs: Attrs) -> Types:
    x = given(inputs, 2, "dequantize")[0]
    zero, dtype = maybe(inputs, 2), attrs["dtype"]
    dtype_in("dequantize", x, STORED)
    must(dtype in FLOATS, f"dequantize to {dtype}")
    must(zero is None or zero.dtype == x.dtype, "dequantize with another type of zero point")
    _check("dequantize", x, inputs, attrs)
    return [(x.shape, dtype)]


def _evaluate_dequantize(arrays: Arrays, attrs: Attrs) -> list[Array]:
    x, zero = array(arrays, 0), array_or_none(arrays, 2)
    whole = x.astype(np.int32)
    if zero is not None:
        whole = whole - spread(zero.astype(np.int32), x, attrs)
    scale = spread(wide(array(arrays, 1)), x, attrs)
    return [(whole.astype(scale.dtype) * scale).astype(numpy_dtype(attrs["dtype"]))]


SPECS: list[OpSpec] = [
    spec(
        "quantize",
        Kind.ELEMENTWISE,
        _infer_quantize,
        _evaluate_quantize,
        per_output(3),
        ("axis", "dtype"),
        ("block",),
    ),
    spec(
        "dequantize",
        Kind.ELEMENTWISE,
        _infer_dequantize,
        _evaluate_dequantize,
        per_output(2),
        ("axis", "dtype"),
        ("block",),
    ),
]
