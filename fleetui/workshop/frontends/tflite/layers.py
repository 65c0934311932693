"""TFLite's convolutions, products, pools, resizes and LSTM.

An 8-bit convolution is made in integers: the input's zero point is what is padded with, its share in every sum is a
constant that goes into the bias, and the 32-bit sums are brought to the output's scale in one multiplication.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fleetui.workshop.errors import UnsupportedError
from fleetui.workshop.frontends.emit import FLOATS
from fleetui.workshop.frontends.tflite.importer import Importer, on
from fleetui.workshop.frontends.tflite.reader import Quantisation
from fleetui.workshop.graph.ir import Array, Value

BYTES = {"int8", "uint8"}
Pads = list[tuple[int, int]]


def padding(
    kind: int, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Pads:
    """TFLite's SAME (0) puts the odd one after; VALID (1) has none."""
    if kind == 1:
        return [(0, 0)] * len(sizes)
    pads = []
    for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        need = max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
        pads.append((need // 2, need - need // 2))
    return pads


# ---------------------------------------------------------------- convolutions


def _convolution(
    c: Importer, weights: Array, pads: Pads, strides: Sequence[int], dilations: Sequence[int], groups: int
) -> Value:
    """``weights`` as [*K, C/groups, M]."""
    attrs = {"strides": tuple(strides), "dilations": tuple(dilations), "groups": groups}
    activation = int(c.op.opt("FusedActivationFunction"))
    if _whole(c):
        out = _whole_convolution(c, weights, pads, attrs)
    else:
        w = c.real(1)
        kernel = c.b.constant(weights, c.model.name(c.op.inputs[1])) if w is c.raw(1) else _real_weights(c, weights)
        bias = c.maybe(2)
        x = c.real(0)
        out = c.b.op("conv", x, c.e.cast(kernel, x.dtype), bias, pads=tuple(pads), **attrs)
    return c.stored(c.activated(out, activation))


def _whole(c: Importer) -> bool:
    """Can it be computed in 8-bit integers?"""
    x, w, out = c.scheme(0), c.scheme(1), c.out_scheme()
    return (
        x is not None and w is not None and out is not None and c.raw(0).dtype in BYTES and c.raw(1).dtype == "int8"
        and c.raw(1).is_constant and not w.zero.any() and x.per_tensor and (not c.has(2) or c.raw(2).is_constant)
    )  # fmt: skip


def _scheme(scheme: Quantisation | None) -> Quantisation:
    assert scheme is not None
    return scheme


def _scale(scheme: Quantisation, outputs: int) -> Array:
    return np.broadcast_to(scheme.scale, (outputs,)) if scheme.per_tensor else scheme.scale


def _real_weights(c: Importer, weights: Array) -> Value:
    """Quantised weights under real activations: expanded once, here."""
    scheme = _scheme(c.scheme(1))
    zero = scheme.zero.astype(np.float32)
    real = (weights.astype(np.float32) - zero) * scheme.scale if scheme.per_tensor else (
        (weights.astype(np.float32) - zero.reshape(-1)) * scheme.scale.reshape(-1)
    )  # fmt: skip
    return c.b.constant(real, c.model.name(c.op.inputs[1]))


def _whole_convolution(c: Importer, weights: Array, pads: Pads, attrs: dict[str, object]) -> Value:
    scheme = _scheme(c.scheme(0))
    zero, outputs = int(scheme.zero[0]), weights.shape[-1]
    x = c.e.pad(c.raw(0), [(0, 0), *pads, (0, 0)], "constant", zero)
    sums = weights.astype(np.int64).sum(tuple(range(weights.ndim - 1)))
    bias = (c.array(2).astype(np.int64) if c.has(2) else 0) - zero * sums
    total = c.b.op(
        "conv", x, c.b.constant(weights, c.model.name(c.op.inputs[1])), c.b.constant(bias.astype(np.int32), "bias"),
        pads=((0, 0),) * len(pads), **attrs,
    )  # fmt: skip
    return _brought_back(c, total, outputs)


def _brought_back(c: Importer, total: Value, outputs: int) -> Value:
    """32-bit sums as real numbers."""
    factor = _scheme(c.scheme(0)).scale[0] * _scale(_scheme(c.scheme(1)), outputs)
    scale = c.b.constant(factor.astype(np.float32), "factor")
    return c.b.op("mul", c.e.cast(total, "float32"), scale)


def _constant_weights(c: Importer) -> Array:
    w = c.raw(1)
    if w.data is None:
        raise UnsupportedError(
            f"{c.op.name} at {c.b.source} has computed weights, which is not supported", "Use constant weights",
            operator=c.op.name, node=c.b.source,
        )  # fmt: skip
    return w.data


@on("CONV_2D")
def _conv_2d(c: Importer) -> Value:
    x, w = c.raw(0), _constant_weights(c)
    strides = [int(c.op.opt("StrideH", 1)), int(c.op.opt("StrideW", 1))]
    dilations = [int(c.op.opt("DilationHFactor", 1)), int(c.op.opt("DilationWFactor", 1))]
    pads = padding(int(c.op.opt("Padding")), x.shape[1:3], w.shape[1:3], strides, dilations)
    groups = max(1, x.shape[-1] // max(1, w.shape[3]))
    return _convolution(c, w.transpose(1, 2, 3, 0), pads, strides, dilations, groups)


@on("DEPTHWISE_CONV_2D")
def _depthwise(c: Importer) -> Value:
    x, w = c.raw(0), _constant_weights(c)
    strides = [int(c.op.opt("StrideH", 1)), int(c.op.opt("StrideW", 1))]
    dilations = [int(c.op.opt("DilationHFactor", 1)), int(c.op.opt("DilationWFactor", 1))]
    pads = padding(int(c.op.opt("Padding")), x.shape[1:3], w.shape[1:3], strides, dilations)
    return _convolution(c, w.transpose(1, 2, 0, 3), pads, strides, dilations, x.shape[-1])


@on("CONV_3D")
def _conv_3d(c: Importer) -> Value:
    x, w = c.raw(0), _constant_weights(c)
    strides = [int(c.op.opt(f"Stride{d}", 1)) for d in "DHW"]
    dilations = [int(c.op.opt(f"Dilation{d}Factor", 1)) for d in "DHW"]
    pads = padding(int(c.op.opt("Padding")), x.shape[1:4], w.shape[:3], strides, dilations)
    return _convolution(c, w, pads, strides, dilations, max(1, x.shape[-1] // max(1, w.shape[3])))


@on("TRANSPOSE_CONV")
def _transpose_conv(c: Importer) -> Value:
    out = c.ints(0)
    x = c.real(2)
    w = c.real(1)  # [M, *K, C]
    strides = [int(c.op.opt("StrideH", 1)), int(c.op.opt("StrideW", 1))]
    pads, extra = [], []
    for size, want, k, s in zip(x.shape[1:3], out[1:3], w.shape[1:3], strides, strict=True):
        total = (size - 1) * s + k - want if int(c.op.opt("Padding")) == 0 else 0
        before = max(0, total) // 2
        pads.append((before, max(0, total) - before))
        extra.append(want - ((size - 1) * s + k - max(0, total)))
    kernel = c.e.transpose(w, [1, 2, 3, 0])
    bias = c.maybe(3)
    y = c.b.op(
        "conv_transpose", x, kernel, bias, strides=tuple(strides), pads=tuple(pads), dilations=(1, 1),
        output_padding=tuple(extra), groups=1,
    )  # fmt: skip
    return c.stored(c.activated(y, int(c.op.opt("FusedActivationFunction"))))


@on("FULLY_CONNECTED")
def _fully_connected(c: Importer) -> Value:
    x, w = c.raw(0), c.raw(1)
    activation = int(c.op.opt("FusedActivationFunction"))
    keep = bool(c.op.opt("KeepNumDims", default=False))

    def rows(value: Value) -> Value:
        return value if keep else c.e.reshape(value, [-1, w.shape[1]])

    if _whole(c):
        scheme = _scheme(c.scheme(0))
        zero = int(scheme.zero[0])
        weights = _constant_weights(c).T
        bias = (c.array(2).astype(np.int64) if c.has(2) else 0) - zero * weights.astype(np.int64).sum(0)
        total = c.b.op(
            "dense", rows(x), c.b.constant(weights, c.model.name(c.op.inputs[1])),
            c.b.constant(np.asarray(bias).astype(np.int32), "bias"),
        )  # fmt: skip
        return c.stored(c.activated(_brought_back(c, total, weights.shape[1]), activation))
    x = rows(c.real(0))
    scheme1 = c.scheme(1)
    if scheme1 is not None and w.data is not None and w.dtype not in FLOATS:
        kernel = _real_weights(c, w.data.T)
    else:
        kernel = c.e.swap(c.real(1), 0, 1)
    out = c.b.op("dense", x, c.e.cast(kernel, x.dtype), c.maybe(2))
    return c.stored(c.activated(out, activation))


@on("BATCH_MATMUL")
def _batch_matmul(c: Importer) -> Value:
    x, y = c.real(0), c.real(1)
    turned = bool(c.op.opt("AdjX", default=False)), bool(c.op.opt("AdjY", default=False))
    if y.is_constant and y.rank == 2 and not turned[0]:
        return c.stored(c.e.matmul(x, c.e.swap(y, 0, 1) if turned[1] else y))
    return c.stored(c.b.op("matmul", x, y, transpose_a=turned[0], transpose_b=turned[1]))


# ---------------------------------------------------------------- pools and resizes


def _pool(c: Importer, kind: str) -> Value:
    x = c.moved(0) if kind == "max" else c.real(0)
    kernel = [int(c.op.opt("FilterHeight", 1)), int(c.op.opt("FilterWidth", 1))]
    strides = [int(c.op.opt("StrideH", 1)), int(c.op.opt("StrideW", 1))]
    pads = padding(int(c.op.opt("Padding")), x.shape[1:3], kernel, strides, [1, 1])
    if kind == "avg" and kernel == list(x.shape[1:3]) and not any(map(any, pads)):
        out = c.e.reduce("mean", x, [1, 2], keepdims=True)
    else:
        out = c.e.pool_last(x, kind, kernel, strides, pads)
    return c.stored(c.activated(out, int(c.op.opt("FusedActivationFunction"))))


on("MAX_POOL_2D")(lambda c: _pool(c, "max"))
on("AVERAGE_POOL_2D")(lambda c: _pool(c, "avg"))


@on("L2_POOL_2D")
def _l2_pool(c: Importer) -> Value:
    x = c.real(0)
    kernel = [int(c.op.opt("FilterHeight", 1)), int(c.op.opt("FilterWidth", 1))]
    strides = [int(c.op.opt("StrideH", 1)), int(c.op.opt("StrideW", 1))]
    pads = padding(int(c.op.opt("Padding")), x.shape[1:3], kernel, strides, [1, 1])
    mean = c.e.pool_last(c.b.op("mul", x, x), "avg", kernel, strides, pads)
    return c.stored(c.activated(c.b.op("sqrt", mean), int(c.op.opt("FusedActivationFunction"))))


@on("RESIZE_BILINEAR")
def _resize_bilinear(c: Importer) -> Value:
    x = c.real(0)
    align, half = bool(c.op.opt("AlignCorners", default=False)), bool(c.op.opt("HalfPixelCenters", default=False))
    for axis, size in enumerate(c.ints(1), 1):
        x = c.e.resize(x, axis, size, "linear", align=align, half=half)
    return c.stored(x)


@on("RESIZE_NEAREST_NEIGHBOR")
def _resize_nearest(c: Importer) -> Value:
    x = c.moved(0)
    align, half = bool(c.op.opt("AlignCorners", default=False)), bool(c.op.opt("HalfPixelCenters", default=False))
    for axis, size in enumerate(c.ints(1), 1):
        if half and not align:
            step = x.shape[axis] / size
            index = np.minimum(np.floor((np.arange(size) + 0.5) * step), x.shape[axis] - 1).astype(np.int32)
            x = c.b.op("gather", x, c.b.constant(index, "index"), axis=axis)
        else:
            x = c.e.resize(x, axis, size, "nearest", align=align, half=False, rounding="half" if align else "floor")
    return c.stored(x)


# ---------------------------------------------------------------- recurrent


@on("UNIDIRECTIONAL_SEQUENCE_LSTM")
def _lstm(c: Importer) -> Value:
    """Gates as ours want them: i o f c. TFLite's inputs are i f c o each."""
    if c.has(16) or any(c.has(i) for i in range(20, 24)):
        raise UnsupportedError(
            f"{c.b.source}: an LSTM with projections or inner norms is not supported", "Leave them"
        )
    if not c.has(1) or c.out_scheme() is not None:
        raise UnsupportedError(
            f"{c.b.source}: this kind of LSTM is not supported", "Convert it without quantisation"
        )
    x = c.real(0)
    if not c.op.opt("TimeMajor", default=False):
        x = c.e.transpose(x, [1, 0, 2])

    def joined(first: int) -> Value:
        return c.e.concat([c.e.cast(c.real(first + i), "float32") for i in (0, 3, 1, 2)], 0)

    w, r = c.e.unsqueeze(joined(1), 0), c.e.unsqueeze(joined(5), 0)
    bias = joined(12)
    hidden = r.shape[2]
    bias = c.e.unsqueeze(c.e.concat([bias, c.e.full((4 * hidden,), 0, "float32")], 0), 0)
    peephole = None
    if c.has(9):
        peephole = c.e.unsqueeze(c.e.concat([c.real(9), c.real(11), c.real(10)], 0), 0)
    clip = float(c.op.opt("CellClip", 0.0))
    if clip:
        raise UnsupportedError(
            f"{c.b.source}: an LSTM that clips its cell is not supported", "Leave the clipping out"
        )
    if int(c.op.opt("FusedActivationFunction", 4)) != 4:
        raise UnsupportedError(
            f"{c.b.source}: an LSTM with another activation than tanh is not supported", "Use tanh"
        )
    state = c.e.full((1, x.shape[1], hidden), 0, "float32")
    y = c.b.ops(
        "lstm", x, w, r, bias, None, state, state, peephole, direction="forward",
        activations=("sigmoid", "tanh", "tanh"), alphas=(0.0,) * 3, betas=(0.0,) * 3, clip=None, input_forget=False,
    )[0]  # fmt: skip
    y = c.e.squeeze(y, [1])
    return y if c.op.opt("TimeMajor", default=False) else c.e.transpose(y, [1, 0, 2])
