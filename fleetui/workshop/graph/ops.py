"""The primitives: everything a frontend may emit and a schedule must be able to compute.

The full list with exact semantics is the contract between frontends, passes and schedules. All arithmetic follows
numpy on the stated dtypes unless said otherwise; "→ T" is the output dtype. Attributes are plain ints, floats,
bools, strings and tuples. Axes are non-negative. Spatial tensors are channel-last: ``[N, *spatial, C]``.
Attributes with ``=`` may be absent and are read with ``get``; all others must be there, and unknown ones are
refused unless their name begins with ``_`` (a pass may leave notes so).

Elementwise (kind ELEMENTWISE), one input:
    identity neg abs sign exp log log1p expm1 sqrt rsqrt reciprocal erf sigmoid tanh relu
    sin cos tan asin acos atan sinh cosh asinh acosh atanh
    floor ceil trunc round (half to even) softplus softsign mish silu
    gelu(approximate: bool)  leaky_relu(alpha)  elu(alpha)  selu(alpha, gamma)  celu(alpha)
    hard_sigmoid(alpha, beta)  hard_swish  thresholded_relu(alpha)  shrink(bias, lambd)
    clip(low: float|None, high: float|None; ints on integer dtypes)
    logical_not (bool → bool)  bitwise_not  isnan → bool  isinf(positive, negative) → bool
    cast(to, saturate=False)   float → int truncates toward zero; → bool is ``!= 0``; integers wrap; with saturate
        they are clamped and NaN is 0, without it a float beyond the range gives some integer
    (clip: the upper bound wins where they cross; NaN passes. neg, abs, sign, relu, clip, shrink take integers too,
    bitwise_not bools; everything else floats only)
Elementwise, two inputs of one dtype, numpy broadcasting:
    add sub mul   div (floats: true; integers: truncating like C; by zero: 0)
    mod (result has the sign of the divisor)  fmod (sign of the dividend)  pow (exponent may have another dtype;
        integers to a negative power give 0, but for 1 and −1)
        mod and fmod of integers by zero: 0
    maximum minimum (NaN wins)  atan2
    equal not_equal less less_equal greater greater_equal → bool
    logical_and logical_or logical_xor   bitwise_and bitwise_or bitwise_xor   shift_left shift_right (by the width
        or more: 0, or −1 for what is negative and goes right)   bitwise ones take bools too
Elementwise, three: where(condition, a, b), broadcasting

Moving data (kind INJECTIVE):
    reshape(shape)  transpose(perm)  broadcast_to(shape)  concat(axis), any number of inputs
    slice(starts, stops, steps): one triple per axis, normalised, python semantics; steps may be negative (then the
        stop may be -1 meaning "before the first"); 0 <= start <= d, or start < d where the step is negative
    pad(before, after, mode: constant|reflect|edge|wrap, value=0)   negative padding is not allowed (use slice);
        reflect and wrap go back and forth, or around, as often as it takes
    gather(data, indices; axis)  numpy.take; indices any integer dtype, negative count from the end; what is still
        outside is moved to the nearest end (here and in the next two): no model can read beyond its tensors
    gather_elements(data, indices; axis)  numpy.take_along_axis
    gather_nd(data, indices; batch_dims)  as ONNX GatherND
    tile(repeats)  one_hot(indices; depth, axis, on, off, dtype): negative ones count from the end, others
        beyond ``depth`` give only ``off``
        (depth_to_space and space_to_depth are reshape and transpose)
    interp(x, index, weight; axis): out[…, o, …] = Σ_t x[…, index[o, t], …] · weight[o, t], constant int32
        index and float32 weight of shape [out, taps]: every resize (linear, cubic, …) is a few of these
Reductions (kind REDUCTION):
    reduce(x; kind: sum|mean|max|min|prod, axes, keepdims)   sums of integers stay in their dtype (a mean of
        integers sums in 64 bits and truncates); axes ascending, may be empty; max and min also of bools; the
        maximum of nothing is the dtype's least number, −∞ for floats, and the other way round
    argmax argmin (x; axis, keepdims, last: bool) → int64   the first, or the last, of equal ones
    cumsum cumprod (x; axis, exclusive, reverse)
    softmax log_softmax (x; axis)   hardmax(x; axis)
    layer_norm(x, scale|None, bias|None; axis, eps): over axes axis..rank-1; scale and bias have that shape
    rms_norm(x, scale|None; axis, eps)
    lrn(x; size, alpha, beta, bias): over the last axis, x / (bias + alpha/size · Σx²)^beta, the window beginning
        (size−1)//2 before
    topk(x; k, axis, largest, sorted) → values, int64 indices; ties go to the lower index; NaN is the greatest;
        unsorted ones may come in any order (and come sorted)
    sort(x; axis, descending) → values, int64 indices (stable)
Contractions (kind CONTRACTION):
    matmul(a, b; transpose_a=False, transpose_b=False): numpy.matmul with broadcasting batch dimensions; integers
        accumulate in int32 (→ int32) for int8/uint8 operands; both ranks at least 2
    dense(x[…, K], w[K, M], bias[M]|None) → […, M]
    conv(x[N,*S,C], w[*K, C/groups, M], bias[M]|None; strides, pads: ((before, after), …), dilations, groups)
        spatial rank 1, 2 or 3; padded with zeros; int8/uint8 operands → int32 (the bias, too, is int32); pads >= 0
    conv_transpose(x[N,*S,C], w[*K, C, M/groups], bias|None; strides, pads, dilations, output_padding, groups)
        out = (S-1)*stride - before - after + dilation*(K-1) + 1 + output_padding (zeros at the end, ahead of
        the cropping that pads are)
    attention(q[B,H,T,D], k[B,Hk,U,D], v[B,Hk,U,E], mask|None; scale, causal: bool, softcap: float)
        softmax(q·kᵀ·scale + mask)·v; a bool mask keeps where true; H is a multiple of Hk (query head h reads
        h // (H/Hk)); the mask broadcasts to [B,H,T,U]; softcap (0: none) is c·tanh(s/c) ahead of the mask; causal
        keeps u <= t; a row with nothing kept gives zeros
Windows (kind WINDOW):
    pool(x[N,*S,C]; kind: max|avg|l2|lp, kernel, strides, pads, dilations, count_include_pad, out, p=2)
        ``out``, the spatial shape, settles ceil mode: windows may hang over the padded edge, what hangs over
        counts as outside, also with count_include_pad (which counts pads). Outside is the dtype's least number
        for max and 0 for the others; l2 is √Σx², lp (Σ|x|^p)^(1/p); only max takes integers
    pool_indices(x; as pool) → values, int64 flat indices within the NC*S* order ONNX uses, attr storage_order
        (1: the first spatial dimension is the innermost); ties go to the first in the window
    unpool(x, indices; out): zeros with x at those indices of [N, C, *out], given channel-last
Scatter (kind OPAQUE):
    scatter_elements(data, indices, updates; axis, reduction: none|add|mul|max|min)
    scatter_nd(data, indices, updates; reduction)
    negative indices count from the end; updates that fall outside are left out; of several to one place the last
    wins (reduction none)
Recurrent (kind OPAQUE), ONNX semantics and gate orders, x[T, B, I], W[D, G*H, I], R[D, G*H, H], b[D, 2*G*H]|None,
    lengths[B]|None, h0[D, B, H]|None, (c0[D, B, H]|None, peephole[D, 3*H]|None for lstm)
    → Y[T, D, B, H], Y_h[D, B, H] (, Y_c[D, B, H])
    lstm(…; direction: forward|reverse|bidirectional, activations, alphas, betas, clip|None, input_forget)
    gru(…; direction, activations, alphas, betas, clip|None, linear_before_reset)
    rnn(…; direction, activations, …)
    activations: lower-case names (relu tanh sigmoid affine leaky_relu thresholded_relu scaled_tanh hard_sigmoid elu
    softsign softplus), 3, 2 or 1 for each direction; alphas and betas have one number for each of them. lengths are
    int32 or int64: Y is zero beyond, Y_h and Y_c are those of the last step within
Quantised (kinds as their float twins):
    quantize(x, scale, zero|None; axis, dtype, block=0)  round(x/scale) half to even, + zero, saturating; NaN is 0
    dequantize(x, scale, zero|None; axis, dtype, block=0)
        scale is rank 0 or 1 along ``axis``, or blocked (block > 0): x's shape with ceil(d/block) along the axis
        a dequantize of a constant is not folded (nor, once laid out, a widening cast): weights are to stay small
    Integer contractions are matmul/dense/conv on int8/uint8 after subtracting zero points where they are not zero.
Trees (kind OPAQUE):
    trees(x[N, F]; ensemble: fleetui.workshop.trees.ensemble.Ensemble) → scores [N, K], and leaf dtype as it says
Extension (kind OPAQUE):
    extern(inputs…; build: Callable[[Target], tvm PrimFunc], shapes, dtypes, evaluate: Callable|None, flops)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fleetui.workshop.errors import UnsupportedError
from fleetui.workshop.graph.ir import Array, Shape, Value

Types = list[tuple[Shape, str]]


class Kind(StrEnum):
    ELEMENTWISE = "elementwise"
    INJECTIVE = "injective"
    REDUCTION = "reduction"
    CONTRACTION = "contraction"
    WINDOW = "window"
    OPAQUE = "opaque"


@dataclass(frozen=True, slots=True)
class OpSpec:
    """``infer`` raises ``ShapeError`` with a sentence when the inputs do not fit the operator."""

    name: str
    kind: Kind
    infer: Callable[[Sequence[Value | None], dict[str, Any]], Types]
    evaluate: Callable[[Sequence[Array | None], dict[str, Any]], list[Array]]
    flops: Callable[[Sequence[Value | None], Types, dict[str, Any]], int]


OPS: dict[str, OpSpec] = {}


def register(spec: OpSpec) -> None:
    OPS[spec.name] = spec


def spec_of(op: str) -> OpSpec:
    found = OPS.get(op)
    if found is None:
        from fleetui.workshop.graph import primitives

        primitives.load()
        found = OPS.get(op)
    if found is None:
        raise UnsupportedError(f"there is no primitive operator {op!r}", operator=op)
    return found


def infer(op: str, inputs: Sequence[Value | None], attrs: dict[str, Any]) -> Types:
    return spec_of(op).infer(inputs, attrs)


def evaluate(op: str, arrays: Sequence[Array | None], attrs: dict[str, Any]) -> list[Array]:
    """In numpy; floats smaller than float32 are computed in float32 and rounded once."""
    return spec_of(op).evaluate(arrays, attrs)


def kind(op: str) -> Kind:
    return spec_of(op).kind


def flops(op: str, inputs: Sequence[Value | None], types: Types, attrs: dict[str, Any]) -> int:
    """Multiplications and additions (a fused pair counts two); moving data costs none."""
    return spec_of(op).flops(inputs, types, attrs)
