"""Normalisation: by batch statistics, by layer, by group, by instance, by norms."""

from __future__ import annotations

from math import prod

import numpy as np

from fleetui.workshop.frontends.onnx.call import Call, Result, operator
from fleetui.workshop.graph.ir import Value


def channel(c: Call, x: Value, like: Value) -> Value:
    """A vector of one number a channel, shaped to meet a channel-first tensor."""
    if x.size != like.shape[1]:
        c.misfit(f"has {like.shape[1]} channels and {x.size} numbers for them")
    return c.reshape(x, [x.size, *[1] * (like.rank - 2)])


@operator("BatchNormalization")
def batch_normalization(c: Call) -> Result:
    x = c.value(0)
    scale, bias, mean, variance = (c.value(i) for i in range(1, 5))
    eps = c.real("epsilon", 1e-5)
    if x.rank < 2:
        x = c.reshape(x, [x.size, 1])
    if c.version >= 14 and c.flag("training_mode"):
        return _trained(c, x, scale, bias, mean, variance)
    if c.version < 9 and not c.flag("spatial", default=True):
        return _scaled(c, x, scale, bias, mean, variance, eps)
    scale, bias, mean, variance = (channel(c, v, x) for v in (scale, bias, mean, variance))
    return c.reshape(_scaled(c, x, scale, bias, mean, variance, eps), c.value(0).shape)


def _scaled(c: Call, x: Value, scale: Value, bias: Value, mean: Value, variance: Value, eps: float) -> Value:
    """``x·s + t``: with constants, two vectors known now."""
    dtype = x.dtype
    kind = "float32" if dtype in {"float16", "bfloat16"} else dtype
    scale, bias, mean, variance = (c.cast(v, kind) for v in (scale, bias, mean, variance))
    factor = c.op("div", scale, c.op("sqrt", c.op("add", variance, c.scalar(eps, variance))))
    shift = c.op("sub", bias, c.op("mul", mean, factor))
    return c.cast(c.op("add", c.op("mul", c.cast(x, kind), factor), shift), dtype)


def _trained(c: Call, x: Value, scale: Value, bias: Value, mean: Value, variance: Value) -> Result:
    """By the batch's own statistics; the running ones move towards them."""
    axes = [0, *range(2, x.rank)]
    own = c.reduce(x, "mean", axes)
    centred = c.op("sub", x, own)
    spread = c.reduce(c.op("mul", centred, centred), "mean", axes)
    eps, momentum = c.real("epsilon", 1e-5), c.real("momentum", 0.9)
    out = c.op("div", centred, c.op("sqrt", c.op("add", spread, c.scalar(eps, spread))))
    out = c.op("add", c.op("mul", out, c.cast(channel(c, scale, x), x.dtype)), c.cast(channel(c, bias, x), x.dtype))

    def moved(old: Value, new: Value) -> Value:
        new = c.cast(c.reshape(new, [new.size]), old.dtype)
        kept = c.op("mul", old, c.scalar(momentum, old))
        return c.op("add", kept, c.op("mul", new, c.scalar(1 - momentum, new)))

    return [c.reshape(out, c.value(0).shape), moved(mean, own), moved(variance, spread)]


@operator("LayerNormalization")
def layer_normalization(c: Call) -> Result:
    x, scale, bias = c.value(0), c.opt(1), c.opt(2)
    axis = c.axis(c.integer("axis", -1), x.rank)
    eps = c.real("epsilon", 1e-5)
    outs: list[Value | None] = [normed(c, "layer_norm", x, scale, bias, axis, eps)]
    if c.wants(1) or c.wants(2):
        wide = c.cast(x, "float32") if x.dtype in {"float16", "bfloat16"} else x
        axes = list(range(axis, x.rank))
        mean = c.reduce(wide, "mean", axes)
        centred = c.op("sub", wide, mean)
        spread = c.reduce(c.op("mul", centred, centred), "mean", axes)
        outs += [mean, c.op("rsqrt", c.op("add", spread, c.scalar(eps, spread)))]
    return outs


@operator("RMSNormalization")
def rms_normalization(c: Call) -> Result:
    x = c.value(0)
    return normed(c, "rms_norm", x, c.opt(1), None, c.axis(c.integer("axis", -1), x.rank), c.real("epsilon", 1e-5))


def normed(c: Call, op: str, x: Value, scale: Value | None, bias: Value | None, axis: int, eps: float) -> Value:
    """Scale and bias go into the primitive where they have its shape, and follow it where they broadcast."""
    shape = x.shape[axis:]
    fits = [v is None or (v.rank <= len(shape) or prod(v.shape[: v.rank - len(shape)]) == 1) for v in (scale, bias)]
    if all(fits):
        ready = [_shaped(c, v, shape) if v is not None else None for v in (scale, bias)]
        more = ready if op == "layer_norm" else ready[:1]
        return c.op(op, x, *[None if v is None else c.cast(v, x.dtype) for v in more], axis=axis, eps=eps)
    out = c.op(op, x, *([None, None] if op == "layer_norm" else [None]), axis=axis, eps=eps)
    out = out if scale is None else c.op("mul", out, c.cast(scale, x.dtype))
    return out if bias is None else c.op("add", out, c.cast(bias, x.dtype))


def _shaped(c: Call, value: Value, shape: tuple[int, ...]) -> Value:
    inner = c.reshape(value, value.shape[value.rank - len(shape) :]) if value.rank > len(shape) else value
    return c.broadcast(inner, shape)


@operator("GroupNormalization")
def group_normalization(c: Call) -> Result:
    x, scale, bias = c.value(0), c.value(1), c.value(2)
    groups = c.integer("num_groups")
    if x.rank < 2 or groups < 1 or x.shape[1] % groups:
        c.misfit(f"takes {groups} groups of {list(x.shape)}")
    if c.version < 21:  # one number a group
        each = x.shape[1] // groups
        spread = [c.broadcast(c.reshape(v, [groups, 1]), [groups, each]) for v in (scale, bias)]
        scale, bias = (c.reshape(v, [groups * each]) for v in spread)
    return grouped(c, x, scale, bias, groups)


@operator("InstanceNormalization")
def instance_normalization(c: Call) -> Result:
    x = c.value(0)
    return grouped(c, x, c.value(1), c.value(2), x.shape[1])


def grouped(c: Call, x: Value, scale: Value, bias: Value, groups: int) -> Value:
    flat = c.reshape(x, [x.shape[0], groups, x.size // max(1, x.shape[0] * groups)])
    out = c.op("layer_norm", flat, None, None, axis=2, eps=c.real("epsilon", 1e-5))
    out = c.reshape(out, x.shape)
    out = c.op("mul", out, c.cast(channel(c, scale, x), x.dtype))
    return c.op("add", out, c.cast(channel(c, bias, x), x.dtype))


@operator("LpNormalization")
def lp_normalization(c: Call) -> Result:
    x = c.value(0)
    axis, p = c.axis(c.integer("axis", -1), x.rank), c.integer("p", 2)
    if p == 1:
        norm = c.reduce(c.op("abs", x), "sum", [axis])
    elif p == 2:
        norm = c.op("sqrt", c.reduce(c.op("mul", x, x), "sum", [axis]))
    else:
        c.broken(f"takes the norm {p}")
    none = c.op("equal", norm, c.scalar(0, norm))
    return c.op("div", x, c.op("where", none, c.scalar(1, norm), norm))


@operator("MeanVarianceNormalization")
def mean_variance_normalization(c: Call) -> Result:
    x = c.value(0)
    axes = sorted({c.axis(a, x.rank) for a in c.integers("axes", [0, 2, 3])})
    mean = c.reduce(x, "mean", axes)
    centred = c.op("sub", x, mean)
    spread = c.op("sqrt", c.reduce(c.op("mul", centred, centred), "mean", axes))
    return c.op("div", centred, c.op("add", spread, c.constant(np.float64(1e-9), x.dtype)))
