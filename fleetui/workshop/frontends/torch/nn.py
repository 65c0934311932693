"""ATen's layers: products, convolutions, pools, norms, attention, resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fleetui.workshop.errors import ShapeError, UnsupportedError
from fleetui.workshop.frontends.torch.program import Args, Handler, Importer, on
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


@on("einsum")
def _einsum(c: Importer, a: Args) -> Value:
    operands: list[Value] = a.need("tensors")
    terms, result = _einsum_terms(str(a.need("equation")), operands)
    left, name = operands[0], terms[0]
    left, name = _diagonal_free(c, left, name)
    for at in range(1, len(operands)):
        right, other = _diagonal_free(c, operands[at], terms[at])
        later = set(result) | {letter for term in terms[at + 1 :] for letter in term}
        left, name = _contract(c, left, name, right, other, later)
    gone = [i for i, letter in enumerate(name) if letter not in result]
    if gone:
        left = c.e.reduce("sum", left, gone)
        name = "".join(letter for letter in name if letter in result)
    return c.e.transpose(left, [name.index(letter) for letter in result])


def _einsum_terms(equation: str, operands: Sequence[Value]) -> tuple[list[str], str]:
    """Letters for every axis, ``...`` written out in letters of its own."""
    text = equation.replace(" ", "")
    left, arrow, result = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise ShapeError(f"{equation!r} has {len(terms)} terms for {len(operands)} tensors")
    spare = "0123456789"
    widest = 0
    for at, (term, value) in enumerate(zip(terms, operands, strict=True)):
        if "..." in term:
            count = value.rank - len(term.replace("...", ""))
            widest = max(widest, count)
            terms[at] = term.replace("...", spare[len(spare) - count :] if count else "")
    if not arrow:
        letters = sorted({c for t in terms for c in t if c not in spare and "".join(terms).count(c) == 1})
        result = spare[len(spare) - widest :] * bool(widest) + "".join(letters)
    else:
        result = result.replace("...", spare[len(spare) - widest :] if widest else "")
    for term, value in zip(terms, operands, strict=True):
        if len(term) != value.rank:
            raise ShapeError(f"{equation!r}: {term} for a tensor of {value.rank} dimensions")
    return terms, result


def _diagonal_free(c: Importer, x: Value, name: str) -> tuple[Value, str]:
    if len(set(name)) != len(name):
        raise UnsupportedError(
            f"at {c.b.source}: a letter twice in one term of einsum is not supported", "Rewrite it"
        )
    return x, name


def _contract(c: Importer, x: Value, name: str, y: Value, other: str, later: set[str]) -> tuple[Value, str]:
    """Two terms in one matrix product: shared letters that live on are the batch, those that do not are summed."""
    for value, mine, yours in ((x, name, other), (y, other, name)):
        lone = [i for i, letter in enumerate(mine) if letter not in yours and letter not in later]
        if lone:
            reduced = c.e.reduce("sum", value, lone)
            kept = "".join(letter for letter in mine if letter in yours or letter in later)
            if value is x:
                x, name = reduced, kept
            else:
                y, other = reduced, kept
    size = dict(zip(name, x.shape, strict=True))
    size |= {k: v for k, v in zip(other, y.shape, strict=True) if size.get(k, 1) == 1}
    batch = [k for k in name if k in other and k in later]
    inner = [k for k in name if k in other and k not in later]
    rows, columns = [k for k in name if k not in other], [k for k in other if k not in name]

    def matrix(value: Value, mine: str, groups: Sequence[Sequence[str]]) -> Value:
        order = [mine.index(k) for group in groups for k in group]
        value = c.e.transpose(value, order)
        value = c.e.expand(value, [size[k] for group in groups for k in group])
        return c.e.reshape(
            value, [*(size[k] for k in groups[0]), *(math.prod(size[k] for k in g) for g in groups[1:])]
        )

    out = c.e.matmul(matrix(x, name, [batch, rows, inner]), matrix(y, other, [batch, inner, columns]))
    made = [*batch, *rows, *columns]
    return c.e.reshape(out, [size[k] for k in made]), "".join(made)


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


# ---------------------------------------------------------------- pools


def _pool(kind: str, rank: int) -> Handler:
    def handler(c: Importer, a: Args) -> Value:
        x = _self(a)
        flat = x.rank == rank + 1
        if flat:
            x = c.e.unsqueeze(x, 0)
        kernel = _each(a.ints("kernel_size"), rank)
        strides = _each(a.ints("stride", []) or kernel, rank)
        padding, dilation = _each(a.ints("padding", [0]), rank), _each(a.ints("dilation", [1]), rank)
        out = []
        for size, k, s, p, d in zip(x.shape[2:], kernel, strides, padding, dilation, strict=True):
            room = size + 2 * p - d * (k - 1) - 1
            if a.get("ceil_mode", False):
                count = -(-room // s) + 1
                out.append(count - 1 if (count - 1) * s >= size + p else count)  # none begins in the padding
            else:
                out.append(room // s + 1)
        include = bool(a.get("count_include_pad", True))
        divisor = a.get("divisor_override")
        y = c.e.pool_last(
            c.e.last(x), kind, kernel, strides, [(p, p) for p in padding], dilation,
            include_pad=(include or divisor is not None) if kind == "avg" else False, out=out,
        )  # fmt: skip
        if divisor is not None:
            if a.get("ceil_mode", False):
                raise UnsupportedError(
                    f"at {c.b.source}: divisor_override with ceil_mode is not supported", "Drop one"
                )
            y = c.e.by("mul", y, math.prod(kernel) / int(divisor))
        y = c.e.first(y)
        return c.e.squeeze(y, [0]) if flat else y

    return handler


for _n in (1, 2, 3):
    on(f"max_pool{_n}d")(_pool("max", _n))
    on(f"avg_pool{_n}d")(_pool("avg", _n))


def _pool_with_indices(rank: int) -> Handler:
    values = _pool("max", rank)

    def handler(c: Importer, a: Args) -> list[Value]:
        x = _self(a)
        y = values(c, a)
        flat = x.rank == rank + 1
        if flat:
            x = c.e.unsqueeze(x, 0)
        kernel = _each(a.ints("kernel_size"), rank)
        out = y.shape[1 if flat else 2 :]
        _, indices = c.b.ops(
            "pool_indices", c.e.last(x), kind="max", kernel=tuple(kernel),
            strides=tuple(_each(a.ints("stride", []) or kernel, rank)),
            pads=tuple((p, p) for p in _each(a.ints("padding", [0]), rank)),
            dilations=tuple(_each(a.ints("dilation", [1]), rank)), count_include_pad=False, out=tuple(out),
            storage_order=0,
        )  # fmt: skip
        # ONNX counts through the whole tensor, PyTorch within each channel's plane.
        plane = c.e.by("mod", c.e.first(indices), math.prod(x.shape[2:]))
        return [y, c.e.squeeze(plane, [0]) if flat else plane]

    return handler


for _n in (1, 2, 3):
    on(f"max_pool{_n}d_with_indices")(_pool_with_indices(_n))


def _adaptive(kind: str, rank: int) -> Handler:
    def handler(c: Importer, a: Args) -> Value:
        x = _self(a)
        flat = x.rank == rank + 1
        if flat:
            x = c.e.unsqueeze(x, 0)
        y = c.e.adaptive_first(x, kind, _each(a.ints("output_size", [1]), rank))
        return c.e.squeeze(y, [0]) if flat else y

    return handler


for _n in (1, 2, 3):
    on(f"adaptive_avg_pool{_n}d", f"_adaptive_avg_pool{_n}d")(_adaptive("avg", _n))


def _adaptive_max(rank: int) -> Handler:
    values = _adaptive("max", rank)

    def handler(c: Importer, a: Args) -> list[Any]:
        return [values(c, a), None]  # whoever asks for the places is told that they are not made

    return handler


for _n in (1, 2, 3):
    on(f"adaptive_max_pool{_n}d")(_adaptive_max(_n))


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


# ---------------------------------------------------------------- resizing


def _resize(mode: str, rank: int) -> Handler:
    def handler(c: Importer, a: Args) -> Value:
        x = _self(a)
        size = a.get("output_size")
        factors = a.get("scale_factors") or [
            a.get(name) for name in (("scales",) if rank == 1 else ("scales_d", "scales_h", "scales_w")[3 - rank :])
        ]
        for at in range(rank):
            axis = x.rank - rank + at
            factor = factors[at] if at < len(factors) else None
            if size is not None:
                out = int(size[at])
            elif factor is not None:
                out = math.floor(x.shape[axis] * float(factor))
            else:
                raise ShapeError(f"at {c.b.source}: neither a size nor a factor to resize to")
            step = 1 / float(factor) if factor else None
            align = bool(a.get("align_corners", False))
            if mode == "nearest":
                x = c.e.resize(x, axis, out, "nearest", half=False, scale=step)
            elif mode == "nearest-exact":
                x = c.e.resize(x, axis, out, "nearest", half=True, scale=step, rounding="half")
            else:
                x = c.e.resize(x, axis, out, mode, align=align, scale=step)
        return x

    return handler


for _n in (1, 2, 3):
    on(f"upsample_nearest{_n}d")(_resize("nearest", _n))
    on(f"_upsample_nearest_exact{_n}d")(_resize("nearest-exact", _n))
on("upsample_linear1d")(_resize("linear", 1))
on("upsample_bilinear2d")(_resize("linear", 2))
on("upsample_trilinear3d")(_resize("linear", 3))
on("upsample_bicubic2d")(_resize("cubic", 2))


@on("pixel_shuffle")
def _pixel_shuffle(c: Importer, a: Args) -> Value:
    x, r = _self(a), int(a.need("upscale_factor"))
    *lead, channels, height, width = x.shape
    n = len(lead)
    split = c.e.reshape(x, [*lead, channels // (r * r), r, r, height, width])
    moved = c.e.transpose(split, [*range(n), n, n + 3, n + 1, n + 4, n + 2])
    return c.e.reshape(moved, [*lead, channels // (r * r), height * r, width * r])


@on("pixel_unshuffle")
def _pixel_unshuffle(c: Importer, a: Args) -> Value:
    x, r = _self(a), int(a.need("downscale_factor"))
    *lead, channels, height, width = x.shape
    n = len(lead)
    split = c.e.reshape(x, [*lead, channels, height // r, r, width // r, r])
    moved = c.e.transpose(split, [*range(n), n, n + 2, n + 4, n + 1, n + 3])
    return c.e.reshape(moved, [*lead, channels * r * r, height // r, width // r])


@on("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(c: Importer, a: Args) -> Value:
    x, groups = _self(a), int(a.need("groups"))
    split = c.e.reshape(x, [x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]])
    return c.e.reshape(c.e.swap(split, 1, 2), x.shape)
