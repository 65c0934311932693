"""ATen's layers: products, convolutions, pools, norms, attention, resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fleetui.workshop.errors import UnsupportedError
from fleetui.workshop.frontends.torch.program import Args, Importer, on
from fleetui.workshop.graph.ir import Array, Value


def _self(a: Args) -> Value:
    return a.tensor("self") if a.has("self") else a.tensor("input")


def _each(values: Sequence[int], count: int) -> list[int]:
    return list(values) * count if len(values) == 1 else list(values)


# ---------------------------------------------------------------- products


@on("linear")
def _linear(c: Importer, a: Args) -> Value:
    return c.b.op("dense", a.tensor("input"), c.e.swap(a.tensor("weight"), 0, 1), a.maybe("bias"))


@on("matmul", "mm", "bmm")
def _matmul(c: Importer, a: Args) -> Value:
    return c.e.matmul(_self(a), a.tensor("mat2") if a.has("mat2") else a.tensor("other"))


@on("mv", "dot", "vdot")
def _mv(c: Importer, a: Args) -> Value:
    return c.e.matmul(_self(a), a.tensor("vec") if a.has("vec") else a.tensor("tensor"))


@on("addmm", "baddbmm", "addbmm", "addmv")
def _addmm(c: Importer, a: Args) -> Value:
    bias = _self(a)
    left = a.tensor("mat1") if a.has("mat1") else a.tensor("batch1") if a.has("batch1") else a.tensor("mat")
    right = a.tensor("mat2") if a.has("mat2") else a.tensor("batch2") if a.has("batch2") else a.tensor("vec")
    alpha, beta = a.get("alpha", 1), a.get("beta", 1)
    if left.rank == right.rank == 2 and bias.shape == (right.shape[1],) and alpha == beta == 1:
        return c.b.op("dense", left, right, bias)
    out = c.e.matmul(left, right)
    if alpha != 1:
        out = c.e.by("mul", out, alpha)
    if beta == 0:
        return out
    return c.b.op("add", out, bias if beta == 1 else c.e.by("mul", bias, beta))


@on("outer")
def _outer(c: Importer, a: Args) -> Value:
    return c.b.op("mul", c.e.unsqueeze(_self(a), 1), c.e.unsqueeze(a.tensor("vec2"), 0))


# ---------------------------------------------------------------- convolutions


def _pads(a: Args, w: Value, dilation: Sequence[int], count: int) -> list[tuple[int, int]]:
    padding = a.get("padding", [0])
    if isinstance(padding, str):
        if padding == "valid":
            return [(0, 0)] * count
        whole = [d * (k - 1) for d, k in zip(dilation, w.shape[2:], strict=True)]
        return [(p // 2, p - p // 2) for p in whole]
    return [(p, p) for p in _each([int(p) for p in padding], count)]


@on("conv1d", "conv2d", "conv3d", "convolution", "_convolution")
def _conv(c: Importer, a: Args) -> Value:
    x, w, bias = a.tensor("input"), a.tensor("weight"), a.maybe("bias")
    if a.get("transposed", False):
        return _conv_transpose(c, a)
    count = w.rank - 2
    flat = x.rank == count + 1
    if flat:
        x = c.e.unsqueeze(x, 0)
    dilation = _each(a.ints("dilation", [1]), count)
    out = c.e.conv_first(
        x, w, bias, _each(a.ints("stride", [1]), count), _pads(a, w, dilation, count), dilation,
        int(a.get("groups", 1)),
    )  # fmt: skip
    return c.e.squeeze(out, [0]) if flat else out


@on("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(c: Importer, a: Args) -> Value:
    x, w, bias = a.tensor("input"), a.tensor("weight"), a.maybe("bias")
    count = w.rank - 2
    flat = x.rank == count + 1
    if flat:
        x = c.e.unsqueeze(x, 0)
    dilation = _each(a.ints("dilation", [1]), count)
    pads = [(p, p) for p in _each(a.ints("padding", [0]), count)]
    out = c.e.conv_transpose_first(
        x, w, bias, _each(a.ints("stride", [1]), count), pads, dilation, int(a.get("groups", 1)),
        _each(a.ints("output_padding", [0]), count),
    )  # fmt: skip
    return c.e.squeeze(out, [0]) if flat else out


# ---------------------------------------------------------------- norms


def _array(c: Importer, value: Value | None) -> Array | None:
    if value is None:
        return None
    if value.data is None:
        raise UnsupportedError(f"at {c.b.source}: a norm with computed weights is not supported", "Store them")
    return value.data.astype(np.float64)


@on("batch_norm")
def _batch_norm(c: Importer, a: Args) -> Value:
    if a.get("training", False):
        raise UnsupportedError(
            f"at {c.b.source}: the model is in training mode", "Call model.eval() before exporting"
        )
    return _normalised(c, a, a.tensor("input"))


def _normalised(c: Importer, a: Args, x: Value) -> Value:
    mean, variance = _array(c, a.maybe("running_mean")), _array(c, a.maybe("running_var"))
    if mean is None or variance is None:
        raise UnsupportedError(
            f"at {c.b.source}: the norm keeps no statistics, so it depends on the batch",
            "Use track_running_stats=True",
        )
    weight, bias = _array(c, a.maybe("weight")), _array(c, a.maybe("bias"))
    scale = (1.0 if weight is None else weight) / np.sqrt(variance + float(a.get("eps", 1e-5)))
    shift = (0.0 if bias is None else bias) - mean * scale
    return c.e.affine(x, 1, scale, shift)


@on("_native_batch_norm_legit_no_training", "native_batch_norm", "cudnn_batch_norm")
def _native_batch_norm(c: Importer, a: Args) -> list[Any]:
    if a.get("training", False):
        raise UnsupportedError(
            f"at {c.b.source}: the model is in training mode", "Call model.eval() before exporting"
        )
    return [_normalised(c, a, a.tensor("input")), None, None]


@on("layer_norm")
def _layer_norm(c: Importer, a: Args) -> Value:
    x, shape = a.tensor("input"), a.ints("normalized_shape")
    return c.b.op(
        "layer_norm", x, a.maybe("weight"), a.maybe("bias"), axis=x.rank - len(shape), eps=float(a.get("eps", 1e-5))
    )


@on("native_layer_norm")
def _native_layer_norm(c: Importer, a: Args) -> list[Any]:
    return [_layer_norm(c, a), None, None]


@on("rms_norm", "_fused_rms_norm")
def _rms_norm(c: Importer, a: Args) -> Any:
    x, shape = a.tensor("input"), a.ints("normalized_shape")
    eps = float(a.get("eps", float(np.finfo(x.dtype).eps) if x.dtype != "bfloat16" else 0.0078125))
    return c.b.op("rms_norm", x, a.maybe("weight"), axis=x.rank - len(shape), eps=eps)


@on("group_norm")
def _group_norm(c: Importer, a: Args) -> Value:
    return c.e.group_norm_first(
        a.tensor("input"), int(a.need("num_groups")), a.maybe("weight"), a.maybe("bias"), float(a.get("eps", 1e-5))
    )


@on("native_group_norm")
def _native_group_norm(c: Importer, a: Args) -> list[Any]:
    x = a.tensor("input")
    return [
        c.e.group_norm_first(
            x, int(a.need("group")), a.maybe("weight"), a.maybe("bias"), float(a.get("eps", 1e-5))
        ),
        None,
        None,
    ]


@on("instance_norm")
def _instance_norm(c: Importer, a: Args) -> Value:
    x = a.tensor("input")
    if not a.get("use_input_stats", True):
        return _normalised(c, a, x)
    return c.e.group_norm_first(x, x.shape[1], a.maybe("weight"), a.maybe("bias"), float(a.get("eps", 1e-5)))


# ---------------------------------------------------------------- attention


@on("scaled_dot_product_attention")
def _attention(c: Importer, a: Args) -> Value:
    q, k, v = a.tensor("query"), a.tensor("key"), a.tensor("value")
    if float(a.get("dropout_p", 0.0)):
        raise UnsupportedError(
            f"at {c.b.source}: the model is in training mode", "Call model.eval() before exporting"
        )
    mask = a.maybe("attn_mask")
    scale = a.get("scale", 1 / math.sqrt(q.shape[-1]))
    lead = q.shape[:-2]
    grouped = bool(a.get("enable_gqa", False)) and len(lead) == 2
    if not grouped and any(t.shape[:-2] != lead for t in (k, v)):
        lead = np.broadcast_shapes(lead, k.shape[:-2], v.shape[:-2])
        q, k, v = (c.e.expand(t, [*lead, *t.shape[-2:]]) for t in (q, k, v))

    def four(t: Value) -> Value:
        heads = t.shape[:-2]
        batch = math.prod(heads[:-1])
        return c.e.reshape(t, [batch, heads[-1] if heads else 1, *t.shape[-2:]])

    if mask is not None and mask.rank > 4:
        mask = four(c.e.expand(mask, [*lead, *mask.shape[-2:]]))
    elif mask is not None and len(lead) == 1 and mask.rank == 3:
        mask = c.e.unsqueeze(mask, 0)
    if mask is not None and mask.dtype != "bool":
        mask = c.e.cast(mask, q.dtype)
    out = c.b.op(
        "attention", four(q), four(k), four(v), mask, scale=float(scale), causal=bool(a.get("is_causal", False)),
        softcap=0.0,
    )  # fmt: skip
    return c.e.reshape(out, [*lead, q.shape[-2], v.shape[-1]])


@on("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention")  # fmt: skip
def _flash(c: Importer, a: Args) -> list[Any]:
    return [_attention(c, a), *[None] * 8]
