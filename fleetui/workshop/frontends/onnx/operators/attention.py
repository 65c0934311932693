"""Attention, rotary embeddings and linear attention, as ONNX defines them from version 23 on."""

from __future__ import annotations

from math import sqrt

import numpy as np

from fleetui.workshop.frontends.onnx.call import Call, Result, operator
from fleetui.workshop.frontends.onnx.tensors import dtype_name
from fleetui.workshop.graph.ir import Value


def heads_of(c: Call, x: Value, heads: int) -> Value:
    """``[B, T, H·D]`` → ``[B, H, T, D]``."""
    batch, steps, width = x.shape
    if heads < 1 or width % heads:
        c.misfit(f"splits a width of {width} into {heads} heads")
    return c.transpose(c.reshape(x, [batch, steps, heads, width // heads]), [0, 2, 1, 3])


def joined(c: Call, x: Value) -> Value:
    """The way back."""
    batch, heads, steps, width = x.shape
    return c.reshape(c.transpose(x, [0, 2, 1, 3]), [batch, steps, heads * width])


@operator("Attention")
def attention(c: Call) -> Result:
    q, k, v = c.value(0), c.value(1), c.value(2)
    flat = q.rank == 3
    if flat:
        query_heads, key_heads = c.integer("q_num_heads"), c.integer("kv_num_heads")
        q, k, v = heads_of(c, q, query_heads), heads_of(c, k, key_heads), heads_of(c, v, key_heads)
    if not q.rank == k.rank == v.rank == 4:
        c.misfit(f"attends with {list(q.shape)} to {list(k.shape)} and {list(v.shape)}")
    past_key, past_value = c.opt(4), c.opt(5)
    past = 0
    if past_key is not None and past_value is not None:
        past = past_key.shape[2]
        k, v = (c.concat([a for a in pair if a.size], 2) for pair in ((past_key, k), (past_value, v)))
    scale = c.real("scale", 1 / sqrt(q.shape[3]))
    valid = c.opt(6)
    mask = _mask(c, q, k, past, valid)
    causal = c.flag("is_causal") and past == 0 and valid is None
    cap = c.real("softcap", 0.0)
    precise = dtype_name(c.integer("softmax_precision", 0))
    wide = q.dtype in {"float16", "bfloat16"} and precise in {"float32", "float64"}
    if not c.wants(3) and not wide and not (precise == "float64" and q.dtype != "float64"):
        out = c.op("attention", q, k, v, mask, scale=scale, causal=causal, softcap=cap)
        return [joined(c, out) if flat else out, k, v]
    if causal:
        mask = _both(c, mask, c.constant(np.tri(q.shape[2], k.shape[2], dtype=bool)))
    out, scores = _spelt_out(c, q, k, v, mask, scale, cap, precise)
    return [joined(c, out) if flat else out, k, v, scores]


def _mask(c: Call, q: Value, k: Value, past: int, valid: Value | None) -> Value | None:
    """All that hides keys but plain causality, as one mask: of bools where it can be, else added to the scores."""
    steps, keys = q.shape[2], k.shape[2]
    mask = c.opt(3)
    if mask is not None and mask.shape[-1] < keys:
        after = (*[0] * (mask.rank - 1), keys - mask.shape[-1])
        hidden = False if mask.dtype == "bool" else float("-inf")
        mask = c.op("pad", mask, before=(0,) * mask.rank, after=after, mode="constant", value=hidden)
    left, right = c.integer("left_window_size", -1), c.integer("right_window_size", -1)
    causal = c.flag("is_causal")
    plain = past == 0 and valid is None
    if valid is not None:
        count = c.reshape(c.cast(valid, "int64"), [valid.size, 1, 1, 1])
        place = c.constant(np.arange(keys, dtype=np.int64).reshape(1, 1, 1, keys))
        mask = _both(c, mask, c.op("less", place, count))
    if not ((causal and not plain) or left >= 0 or right >= 0):
        return mask
    # Distance of a key from its query; what comes before the first query counts.
    away = np.arange(keys)[None, :] - np.arange(steps)[:, None] - past
    distance = c.constant(away.astype(np.int64).reshape(1, 1, steps, keys))
    if valid is not None:
        offset = c.reshape(c.cast(valid, "int64"), [valid.size, 1, 1, 1])
        distance = c.op("sub", distance, c.op("sub", offset, c.scalar(steps, offset)))
    if causal and not plain:
        mask = _both(c, mask, c.op("less_equal", distance, c.scalar(0, distance)))
    if left >= 0:
        mask = _both(c, mask, c.op("greater_equal", distance, c.scalar(-left, distance)))
    if right >= 0:
        mask = _both(c, mask, c.op("less_equal", distance, c.scalar(right, distance)))
    return mask


def _both(c: Call, mask: Value | None, allowed: Value) -> Value:
    if mask is None:
        return allowed
    if mask.dtype == "bool":
        return c.op("logical_and", mask, allowed)
    return c.op("where", allowed, mask, c.scalar(float("-inf"), mask))


def _spelt_out(
    c: Call, q: Value, k: Value, v: Value, mask: Value | None, scale: float, cap: float, precise: str
) -> tuple[Value, Value]:
    """Step by step, where a result in the middle is asked for."""
    times = q.shape[1] // k.shape[1]
    if times > 1:
        k, v = (_repeated(c, x, times) for x in (k, v))
    root = c.scalar(sqrt(scale), q)
    q, k = c.op("mul", q, root), c.op("mul", k, root)
    raw = c.op("matmul", q, k, transpose_a=False, transpose_b=True)
    capped = raw
    if cap:
        capped = c.op("mul", c.op("tanh", c.op("div", raw, c.scalar(cap, raw))), c.scalar(cap, raw))
    biased = capped
    if mask is not None and mask.dtype == "bool":
        biased = c.op("where", mask, capped, c.scalar(float("-inf"), capped))
    elif mask is not None:
        biased = c.op("add", capped, c.cast(mask, capped.dtype))
    wide = c.cast(biased, precise or biased.dtype)
    top = c.reduce(wide, "max", [3])
    none = c.op("isinf", top, positive=False, negative=True)  # a query to which everything is hidden
    shares = c.op("softmax", c.op("where", none, c.scalar(0, wide), wide), axis=3)
    shares = c.cast(c.op("where", none, c.scalar(0, shares), shares), v.dtype)
    shown = {1: capped, 2: biased, 3: shares}.get(c.integer("qk_matmul_output_mode", 0), raw)
    return c.op("matmul", shares, v, transpose_a=False, transpose_b=False), shown


def _repeated(c: Call, x: Value, times: int) -> Value:
    """Each head as often as query heads share it."""
    batch, heads, steps, width = x.shape
    wide = c.broadcast(c.reshape(x, [batch, heads, 1, steps, width]), [batch, heads, times, steps, width])
    return c.reshape(wide, [batch, heads * times, steps, width])


# ---------------------------------------------------------------- rotary


@operator("RotaryEmbedding")
def rotary_embedding(c: Call) -> Result:
    x, cos, sin, places = c.value(0), c.value(1), c.value(2), c.opt(3)
    flat = x.rank == 3
    if flat:
        heads = c.integer("num_heads")
        y = c.reshape(x, [x.shape[0], x.shape[1], heads, x.shape[2] // heads])
    else:
        y = c.transpose(x, [0, 2, 1, 3])
    width = c.integer("rotary_embedding_dim", 0) or y.shape[3]
    out = rotated(c, y, cos, sin, places, width, interleaved=c.flag("interleaved"))
    return c.reshape(out, x.shape) if flat else c.transpose(out, [0, 2, 1, 3])


def rotated(
    c: Call, y: Value, cos: Value, sin: Value, places: Value | None, width: int, *, interleaved: bool
) -> Value:
    """``[B, T, H, D]``, the first ``width`` of D turned by the angle of each position."""
    batch, steps, heads, _ = y.shape
    if places is not None:
        cos, sin = (c.op("gather", table, places, axis=0) for table in (cos, sin))
    half = width // 2
    cos, sin = (c.unsqueeze(c.broadcast(t, [batch, steps, t.shape[-1]]), [2]) for t in (cos, sin))
    if cos.shape[-1] != half:
        c.misfit(f"turns {half} pairs by {cos.shape[-1]} angles")
    turning = c.cut(y, 3, 0, width)
    if interleaved:
        pairs = c.reshape(turning, [batch, steps, heads, half, 2])
        first, second = (c.squeeze(c.cut(pairs, 4, i, i + 1), [4]) for i in range(2))
    else:
        first, second = c.cut(turning, 3, 0, half), c.cut(turning, 3, half, width)
    one = c.op("sub", c.op("mul", cos, first), c.op("mul", sin, second))
    two = c.op("add", c.op("mul", sin, first), c.op("mul", cos, second))
    if interleaved:
        both = c.concat([c.unsqueeze(one, [4]), c.unsqueeze(two, [4])], 4)
        turned = c.reshape(both, [batch, steps, heads, width])
    else:
        turned = c.concat([one, two], 3)
    return turned if width == y.shape[3] else c.concat([turned, c.cut(y, 3, width, y.shape[3])], 3)


# ---------------------------------------------------------------- linear attention


@operator("LinearAttention")
def linear_attention(c: Call) -> Result:
    """A state of keys by values, updated token by token; unrolled."""
    q, k, v = c.value(0), c.value(1), c.value(2)
    past, decay, rate = c.opt(3), c.opt(4), c.opt(5)
    query_heads, key_heads = c.integer("q_num_heads"), c.integer("kv_num_heads")
    rule = c.text("update_rule", "gated_delta")
    if rule not in {"linear", "gated", "delta", "gated_delta"}:
        c.broken(f"updates its state by the rule '{rule}'")
    batch, steps, _ = q.shape
    if steps > 4096:
        c.refuse(f"runs over {steps:,} tokens; the most we unroll is 4,096")
    dtype, kind = q.dtype, "float64" if q.dtype == "float64" else "float32"

    def split(x: Value, heads: int) -> Value:
        return heads_of(c, c.cast(x, kind), heads)

    q4, k4, v4 = split(q, query_heads), split(k, key_heads), split(v, key_heads)
    wide, deep = k4.shape[3], v4.shape[3]
    scale = c.real("scale", 0.0) or 1 / sqrt(wide)
    q4 = c.op("mul", q4, c.scalar(scale, q4))
    gates = c.op("exp", split(decay, key_heads)) if decay is not None and "gated" in rule else None
    rates = None
    if rate is not None and "delta" in rule:
        rates = c.transpose(c.reshape(c.cast(rate, kind), [batch, steps, rate.shape[2], 1]), [0, 2, 1, 3])
    state = c.cast(past, kind) if past is not None else c.full([batch, key_heads, wide, deep], 0, kind)
    outs: list[Value] = []
    for at in range(steps):
        key, value, query = (c.cut(x, 2, at, at + 1) for x in (k4, v4, q4))
        column = c.transpose(key, [0, 1, 3, 2])
        if gates is not None:
            gate = c.cut(gates, 2, at, at + 1)
            state = c.op("mul", state, c.transpose(gate, [0, 1, 3, 2]))
        if rates is not None:
            known = c.op("matmul", key, state, transpose_a=False, transpose_b=False)
            value = c.op("mul", c.op("sub", value, known), c.cut(rates, 2, at, at + 1))
        state = c.op("add", state, c.op("mul", column, value))
        seen = _repeated(c, state, query_heads // key_heads) if query_heads != key_heads else state
        outs.append(c.op("matmul", query, seen, transpose_a=False, transpose_b=False))
    out = joined(c, c.concat(outs, 2))
    return [c.cast(out, dtype), c.cast(state, past.dtype if past is not None else dtype)]
