"""Fused operators that ONNX Runtime's optimiser writes into models (domain ``com.microsoft``)."""

from __future__ import annotations

from math import sqrt

from fleetui.workshop.frontends.onnx.call import Call, Result, operator
from fleetui.workshop.frontends.onnx.operators.attention import heads_of, joined
from fleetui.workshop.frontends.onnx.operators.contraction import conv_of, gemm_of, matmul_of
from fleetui.workshop.frontends.onnx.operators.normalise import normed
from fleetui.workshop.graph.ir import Value


def _activated(c: Call, x: Value) -> Value:
    """The activation fused behind a convolution or product, with its parameters."""
    name = c.text("activation", "")
    numbers = c.reals("activation_params", [])
    if not name:
        return x
    if name in {"Relu", "Tanh", "Sigmoid"}:
        return c.op(name.lower(), x)
    if name == "LeakyRelu":
        return c.op("leaky_relu", x, alpha=numbers[0] if numbers else c.real("leaky_relu_alpha", 0.01))
    if name == "Clip" and len(numbers) == 2:
        return c.op("clip", x, low=numbers[0], high=numbers[1])
    if name == "HardSigmoid" and len(numbers) == 2:
        return c.op("hard_sigmoid", x, alpha=numbers[0], beta=numbers[1])
    return c.refuse(f"carries the activation '{name}', which we do not know there")


@operator("FusedConv", contrib=True)
def fused_conv(c: Call) -> Result:
    out = conv_of(c, c.value(0), c.value(1), c.opt(2))
    extra = c.opt(3)
    return _activated(c, out if extra is None else c.op("add", out, extra))


@operator("FusedGemm", contrib=True)
def fused_gemm(c: Call) -> Result:
    return _activated(c, gemm_of(c, c.value(0), c.value(1), c.opt(2)))


@operator("FusedMatMul", contrib=True)
def fused_matmul(c: Call) -> Result:
    a, b = c.value(0), c.value(1)
    if c.flag("transBatchA") or c.flag("transBatchB"):
        c.refuse("reorders its batch, which we do not do")
    if c.flag("transA") and a.rank > 1:
        a = c.transpose(a, [*range(a.rank - 2), a.rank - 1, a.rank - 2])
    if c.flag("transB") and b.rank > 1:
        b = c.transpose(b, [*range(b.rank - 2), b.rank - 1, b.rank - 2])
    alpha = c.real("alpha", 1.0)
    out = matmul_of(c, a, b)
    return out if alpha == 1 else c.op("mul", out, c.scalar(alpha, out))


@operator("Gelu", contrib=True)
def gelu(c: Call) -> Result:
    return c.op("gelu", c.value(0), approximate=False)


@operator("BiasGelu", contrib=True)
def bias_gelu(c: Call) -> Result:
    return c.op("gelu", c.op("add", c.value(0), c.value(1)), approximate=False)


@operator("FastGelu", contrib=True)
def fast_gelu(c: Call) -> Result:
    x, bias = c.value(0), c.opt(1)
    return c.op("gelu", x if bias is None else c.op("add", x, bias), approximate=True)


@operator("QuickGelu", contrib=True)
def quick_gelu(c: Call) -> Result:
    x = c.value(0)
    return c.op("mul", x, c.op("sigmoid", c.op("mul", x, c.scalar(c.real("alpha", 1.702), x))))


@operator("SkipLayerNormalization", contrib=True)
def skip_layer_normalization(c: Call) -> Result:
    return _skipped(c, "layer_norm", bias=4, scale=2, shift=3)


@operator("SkipSimplifiedLayerNormalization", contrib=True)
def skip_simplified(c: Call) -> Result:
    return _skipped(c, "rms_norm", bias=3, scale=2, shift=-1)


def _skipped(c: Call, op: str, *, bias: int, scale: int, shift: int) -> Result:
    total = c.op("add", c.value(0), c.value(1))
    extra = c.opt(bias)
    total = total if extra is None else c.op("add", total, extra)
    moved = c.opt(shift) if shift >= 0 else None
    out = normed(c, op, total, c.opt(scale), moved, total.rank - 1, c.real("epsilon", 1e-12))
    return [out, None, None, total]


@operator("SimplifiedLayerNormalization", contrib=True)
def simplified(c: Call) -> Result:
    x = c.value(0)
    return normed(c, "rms_norm", x, c.opt(1), None, c.axis(c.integer("axis", -1), x.rank), c.real("epsilon", 1e-5))


@operator("Attention", contrib=True)
def packed_attention(c: Call) -> Result:
    """Query, key and value from one product; no past, no mask of lengths."""
    x, w, bias = c.value(0), c.value(1), c.opt(2)
    if c.opt(3) is not None or c.opt(4) is not None:
        c.refuse("has a mask or a past, which we do not do in this fused form", "Export without graph optimisation")
    heads = c.integer("num_heads")
    if w.data is not None:
        packed = c.op("dense", x, w, bias)
    else:
        packed = matmul_of(c, x, w)
        packed = packed if bias is None else c.op("add", packed, bias)
    sizes = c.integers("qkv_hidden_sizes", [w.shape[1] // 3] * 3)
    parts: list[Value] = []
    at = 0
    for size in sizes:
        parts.append(heads_of(c, c.cut(packed, 2, at, at + size), heads))
        at += size
    q, k, v = parts
    extra = c.opt(5)
    scale = c.real("scale", 0.0) or 1 / sqrt(q.shape[3])
    out = c.op("attention", q, k, v, extra, scale=scale, causal=c.flag("unidirectional"), softcap=0.0)
    return joined(c, out)


@operator("MultiHeadAttention", contrib=True)
def multi_head_attention(c: Call) -> Result:
    if any(c.opt(i) is not None for i in (4, 6, 7)):
        c.refuse("has a mask or a past, which we do not do in this fused form", "Export without graph optimisation")
    q, k, v = c.value(0), c.value(1), c.value(2)
    if not q.rank == k.rank == v.rank == 3:
        c.refuse("packs its inputs together, which we do not do in this fused form")
    bias, heads = c.opt(3), c.integer("num_heads")
    if bias is not None:
        at = 0
        biased: list[Value] = []
        for part in (q, k, v):
            biased.append(c.op("add", part, c.cut(bias, 0, at, at + part.shape[2])))
            at += part.shape[2]
        q, k, v = biased
    q, k, v = (heads_of(c, part, heads) for part in (q, k, v))
    scale = c.real("scale", 0.0) or 1 / sqrt(q.shape[3])
    out = c.op("attention", q, k, v, c.opt(5), scale=scale, causal=c.flag("unidirectional"), softcap=0.0)
    return joined(c, out)
