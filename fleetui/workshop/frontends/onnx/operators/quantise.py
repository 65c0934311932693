"""Into narrow integers and back, and the convolutions and products that compute with them."""

from __future__ import annotations

import numpy as np

from fleetui.workshop.frontends.onnx.call import Call, Result, operator
from fleetui.workshop.frontends.onnx.operators.contraction import conv_of
from fleetui.workshop.graph.ir import Value

CODES = frozenset({"int4", "uint4", "int8", "uint8", "int16", "uint16"})


def _parameters(c: Call, x: Value, scale: Value, zero: Value | None) -> tuple[Value, Value | None, dict[str, int]]:
    """Scale and zero point as the primitives take them: one number, one along an axis, or blocked."""
    block = c.integer("block_size", 0)
    if scale.size == 1 and not block:
        return c.reshape(scale, []), None if zero is None else c.reshape(zero, []), {"axis": 0}
    axis = c.axis(c.integer("axis", 1), x.rank)
    if zero is not None and zero.shape != scale.shape:
        zero = c.broadcast(zero, scale.shape)
    return scale, zero, {"axis": axis, "block": block} if block else {"axis": axis}


@operator("QuantizeLinear")
def quantize_linear(c: Call) -> Result:
    x, scale, zero = c.value(0), c.value(1), c.opt(2)
    dtype = (
        zero.dtype
        if zero is not None
        else c.dtype_attr("output_dtype", "uint8")
        if c.attrs.get("output_dtype")
        else "uint8"
    )
    if dtype not in CODES:
        c.refuse(f"quantises to {dtype}, which we do not do")
    if not x.dtype.startswith(("float", "bfloat")):
        x = c.cast(x, "float32")
    precision = c.dtype_attr("precision") if c.attrs.get("precision") else ""
    if precision:
        x, scale = c.cast(x, precision), c.cast(scale, precision)
    elif x.dtype != scale.dtype:
        x = c.cast(x, scale.dtype)
    scale, zero, more = _parameters(c, x, scale, zero)
    return c.op("quantize", x, scale, zero, dtype=dtype, **more)


@operator("DequantizeLinear")
def dequantize_linear(c: Call) -> Result:
    x, scale, zero = c.value(0), c.value(1), c.opt(2)
    dtype = c.dtype_attr("output_dtype", scale.dtype) if c.attrs.get("output_dtype") else scale.dtype
    if zero is not None and zero.data is not None and not np.asarray(zero.data).astype(np.int32).any():
        zero = None
    scale, zero, more = _parameters(c, x, scale, zero)
    return c.op("dequantize", x, scale, zero, dtype=dtype, **more)


@operator("DynamicQuantizeLinear")
def dynamic_quantize_linear(c: Call) -> Result:
    x = c.value(0)
    axes = list(range(x.rank))
    zero = c.scalar(0, x)
    low = c.op("minimum", c.reduce(x, "min", axes, keepdims=False), zero)
    high = c.op("maximum", c.reduce(x, "max", axes, keepdims=False), zero)
    scale = c.op("div", c.op("sub", high, low), c.scalar(255, x))
    offset = c.op("clip", c.op("round", c.op("div", c.op("neg", low), scale)), low=0.0, high=255.0)
    point = c.cast(offset, "uint8")
    return [c.op("quantize", x, scale, point, axis=0, dtype="uint8"), scale, point]


# ---------------------------------------------------------------- integer products


def _centred(c: Call, x: Value, zero: Value | None, *, axis: int) -> Value:
    """``x − zero``; left as narrow as it is where there is nothing to take away."""
    if zero is None or (zero.data is not None and not np.asarray(zero.data).any()):
        return x
    wide = c.cast(zero, "int32")
    if zero.size == 1:
        wide = c.reshape(wide, [])
    elif zero.rank == 1:
        wide = c.reshape(wide, [zero.size if i == axis else 1 for i in range(x.rank)])
    return c.op("sub", c.cast(x, "int32"), wide)


def _alike(c: Call, a: Value, b: Value) -> tuple[Value, Value]:
    if a.dtype == "int32" or b.dtype == "int32":
        return c.cast(a, "int32"), c.cast(b, "int32")
    return a, b


def _integer_matmul(c: Call, a: Value, b: Value, a_zero: Value | None, b_zero: Value | None) -> Value:
    a, b = _centred(c, a, a_zero, axis=a.rank - 2), _centred(c, b, b_zero, axis=b.rank - 1)
    a, b = _alike(c, a, b)
    rows, columns = a.rank == 1, b.rank == 1
    a = c.unsqueeze(a, [0]) if rows else a
    b = c.unsqueeze(b, [1]) if columns else b
    out = c.op("matmul", a, b, transpose_a=False, transpose_b=False)
    gone = ([out.rank - 2] if rows else []) + ([out.rank - 1] if columns else [])
    return c.squeeze(out, gone)


@operator("MatMulInteger")
def matmul_integer(c: Call) -> Result:
    return _integer_matmul(c, c.value(0), c.value(1), c.opt(2), c.opt(3))


@operator("QLinearMatMul")
def qlinear_matmul(c: Call) -> Result:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (c.value(i) for i in range(8))
    total = _integer_matmul(c, a, b, a_zero, b_zero)
    if a_scale.rank == 1 and a_scale.size > 1:
        a_scale = c.reshape(a_scale, [a_scale.size, 1])
    return _narrowed(c, total, c.op("mul", c.cast(a_scale, "float32"), c.cast(b_scale, "float32")), y_scale, y_zero)


@operator("ConvInteger")
def conv_integer(c: Call) -> Result:
    return conv_of(c, *_integer_operands(c, c.value(0), c.value(1), c.opt(2), c.opt(3)), None)


def _integer_operands(
    c: Call, x: Value, w: Value, x_zero: Value | None, w_zero: Value | None
) -> tuple[Value, Value]:
    return _alike(c, _centred(c, x, x_zero, axis=1), _centred(c, w, w_zero, axis=0))


@operator("QLinearConv")
def qlinear_conv(c: Call) -> Result:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = (c.value(i) for i in range(8))
    total = conv_of(c, *_integer_operands(c, x, w, x_zero, w_zero), None)
    bias = c.opt(8)
    if bias is not None:
        total = c.op("add", total, c.reshape(c.cast(bias, "int32"), [bias.size, *[1] * (total.rank - 2)]))
    if w_scale.size > 1:
        w_scale = c.reshape(w_scale, [w_scale.size, *[1] * (total.rank - 2)])
    return _narrowed(c, total, c.op("mul", x_scale, w_scale), y_scale, y_zero)


def _narrowed(c: Call, total: Value, scale: Value, y_scale: Value, y_zero: Value) -> Value:
    if scale.size == 1:
        scale = c.reshape(scale, [])
    if y_scale.size == 1:
        y_scale, y_zero = c.reshape(y_scale, []), c.reshape(y_zero, [])
    ones = c.full(y_zero.shape, 1, "float32")
    if y_scale.rank == 1:  # one for each row, as the first operand's
        y_scale = c.reshape(y_scale, [y_scale.size, 1])
    # One factor for all three scales: ties then round as they do in ONNX Runtime.
    factor = c.op("div", c.cast(scale, "float32"), c.cast(y_scale, "float32"))
    real = c.op("mul", c.cast(total, "float32"), factor)
    return c.op("quantize", real, ones, y_zero, axis=max(0, total.rank - 2), dtype=y_zero.dtype)
