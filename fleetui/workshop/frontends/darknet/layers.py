"""Darknet's layers, channel-last."""

from __future__ import annotations

import numpy as np

from fleetui.workshop.errors import ModelError, UnsupportedError
from fleetui.workshop.frontends.darknet.importer import Importer, on
from fleetui.workshop.frontends.darknet.reading import Section
from fleetui.workshop.graph.ir import Array, Value

EPSILON = 1e-5
"""What is added to a variance. (The first Darknet added 1e-6 to the root instead.)"""


def picture(c: Importer) -> Value:
    if c.x.rank != 4:
        raise ModelError(f"{c.b.source} needs a picture, but gets {list(c.x.shape)}", "Mend the .cfg")
    return c.x


def positive(c: Importer, s: Section, name: str, default: int) -> int:
    number = s.whole(name, default)
    if not 1 <= number <= 1 << 20:
        raise ModelError(f"{c.b.source}: {name} = {number} is out of range", "Mend the .cfg")
    return number


def _norm(c: Importer, count: int) -> tuple[Array, Array, Array, Array]:
    """Biases, scales, means and variances, in the order of the file."""
    bias, scale, mean, variance = (c.weights.take([count]) for _ in range(4))
    return bias, scale, mean, variance


@on("convolutional", "conv")
def _convolutional(c: Importer, s: Section, _at: int) -> Value:
    x = picture(c)
    filters, size = positive(c, s, "filters", 1), positive(c, s, "size", 1)
    stride_x = positive(c, s, "stride_x", s.whole("stride", 1))
    stride_y = positive(c, s, "stride_y", s.whole("stride", 1))
    groups, dilation = positive(c, s, "groups", 1), positive(c, s, "dilation", 1)
    padding = size // 2 * dilation if s.whole("pad", 0) else s.whole("padding", 0)
    channels = x.shape[3]
    if channels % groups or filters % groups or not 0 <= padding <= 1 << 12:
        raise ModelError(f"{c.b.source} cannot have {groups} groups or padding {padding}", "Mend the .cfg")
    normalised = bool(s.whole("batch_normalize", 0))
    bias, scale, mean, variance = (
        _norm(c, filters) if normalised else (c.weights.take([filters]), *[np.ones(1)] * 3)
    )
    w = c.weights.take([filters, channels // groups, size, size])
    kernel = c.b.constant(w.transpose(2, 3, 1, 0), "weights")
    plain = None if normalised else c.b.constant(bias, "bias")
    y = c.b.op(
        "conv", x, kernel, plain, strides=(stride_y, stride_x), pads=((padding, padding),) * 2,
        dilations=(dilation, dilation), groups=groups,
    )  # fmt: skip
    if normalised:
        factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + EPSILON)
        y = c.e.affine(y, 3, factor, bias - mean * factor)
    return c.activated(y, s.text("activation", "logistic"))


@on("connected")
def _connected(c: Importer, s: Section, _at: int) -> Value:
    x = c.x
    if x.rank == 4:
        x = c.e.first(x)
    x = c.e.reshape(x, [x.shape[0], -1])
    outputs = positive(c, s, "output", 1)
    bias = c.weights.take([outputs])
    w = c.weights.take([outputs, x.shape[1]])
    normalised = bool(s.whole("batch_normalize", 0))
    y = c.b.op("dense", x, c.b.constant(w.T, "weights"), None if normalised else c.b.constant(bias, "bias"))
    if normalised:
        scale, mean, variance = (c.weights.take([outputs]) for _ in range(3))
        factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + EPSILON)
        y = c.e.affine(y, 1, factor, bias - mean * factor)
    return c.activated(y, s.text("activation", "logistic"))


@on("maxpool", "max", "local_avgpool")
def _maxpool(c: Importer, s: Section, _at: int) -> Value:
    """``padding`` counts both sides; what a window lacks after the picture is outside."""
    x = picture(c)
    stride = positive(c, s, "stride", 1)
    size = positive(c, s, "size", stride)
    padding = s.whole("padding", size - 1)
    if not 0 <= padding <= 1 << 12:
        raise ModelError(f"{c.b.source}: padding {padding} is out of range", "Mend the .cfg")
    before = padding // 2
    out = [(d + padding - size) // stride + 1 for d in x.shape[1:3]]
    kind = "avg" if s.kind == "local_avgpool" else "max"
    return c.e.pool_last(x, kind, [size] * 2, [stride] * 2, [(before, padding - before)] * 2, out=out)


@on("avgpool", "avg")
def _avgpool(c: Importer, _s: Section, _at: int) -> Value:
    return c.e.reduce("mean", picture(c), [1, 2])


@on("upsample")
def _upsample(c: Importer, s: Section, _at: int) -> Value:
    x, stride = picture(c), positive(c, s, "stride", 2)
    if stride > 64:
        raise ModelError(f"{c.b.source}: stride {stride} is out of range", "Mend the .cfg")
    for axis in (1, 2):
        x = c.e.resize(x, axis, x.shape[axis] * stride, "nearest", half=False)
    scale = s.real("scale", 1.0)
    return x if scale == 1.0 else c.e.by("mul", x, scale)


@on("route")
def _route(c: Importer, s: Section, at: int) -> Value:
    parts = [c.layer(int(n), at) for n in s.list("layers")]
    if not parts:
        raise ModelError(f"{c.b.source} names no layers", "Mend the .cfg")
    groups, group = positive(c, s, "groups", 1), s.whole("group_id", 0)
    if not 0 <= group < groups:
        raise ModelError(f"{c.b.source} has no group {group} of {groups}", "Mend the .cfg")
    if groups > 1:
        sizes = [p.shape[-1] // groups for p in parts]
        parts = [c.e.slice(p, -1, group * n, (group + 1) * n) for p, n in zip(parts, sizes, strict=True)]
    return c.e.concat(parts, -1)


@on("shortcut")
def _shortcut(c: Importer, s: Section, at: int) -> Value:
    """Layers of other sizes are cut or stepped through, as Darknet does it."""
    x = c.x
    if s.text("weights_type", "none") != "none":
        raise UnsupportedError(f"{c.b.source}: weighted shortcuts are not supported", "Leave weights_type out")
    for number in s.list("from"):
        other = c.layer(int(number), at)
        if x.rank == other.rank == 4 and other.shape != x.shape:
            other = _fitted(c, other, x.shape)
        x = c.b.op("add", x, other)
    return c.activated(x, s.text("activation", "linear"))


def _fitted(c: Importer, x: Value, shape: tuple[int, ...]) -> Value:
    for axis in (1, 2):
        have, want = x.shape[axis], shape[axis]
        if have > want and have % want == 0:
            x = c.e.slice(x, axis, 0, have, have // want)
        elif have != want:
            raise UnsupportedError(
                f"{c.b.source} adds pictures of {have} and {want}, which is not supported", "Mend it"
            )
    if x.shape[3] > shape[3]:
        return c.e.slice(x, 3, 0, shape[3])
    return c.e.pad(x, [(0, 0), (0, 0), (0, 0), (0, shape[3] - x.shape[3])])


@on("sam", "scale_channels")
def _scaled(c: Importer, s: Section, at: int) -> Value:
    """[sam]: pointwise; [scale_channels]: the previous layer's channels over another's picture."""
    other = c.layer(s.whole("from", -2), at)
    x = c.x
    if x.rank == 2:
        x = c.e.reshape(x, [x.shape[0], 1, 1, x.shape[1]])
    return c.activated(c.b.op("mul", other, x), s.text("activation", "linear"))


@on("dropout", "cost", "crop")
def _passed(c: Importer, _s: Section, _at: int) -> Value:
    return c.x


@on("softmax", "soft")
def _softmax(c: Importer, s: Section, _at: int) -> Value:
    x = c.x
    if x.rank == 4:
        x = c.e.reshape(c.e.first(x), [x.shape[0], -1])
    groups, temperature = positive(c, s, "groups", 1), s.real("temperature", 1.0)
    if temperature != 1.0:
        x = c.e.by("div", x, temperature)
    if groups == 1:
        return c.b.op("softmax", x, axis=1)
    split = c.b.op("softmax", c.e.reshape(x, [x.shape[0], groups, -1]), axis=2)
    return c.e.reshape(split, x.shape)


@on("reorg")
def _reorg(c: Importer, s: Section, _at: int) -> Value:
    """Darknet's own order: it reads the picture as if its channels had been folded already."""
    x, stride = c.e.first(picture(c)), positive(c, s, "stride", 1)
    n, depth, height, width = x.shape
    if s.whole("reverse", 0) or depth % (stride * stride):
        raise UnsupportedError(f"{c.b.source}: this form of reorg is not supported", "Leave reverse out")
    inner = depth // (stride * stride)
    y = c.e.reshape(x, [n, inner, height, stride, width, stride])
    y = c.e.reshape(
        c.e.transpose(y, [0, 3, 5, 1, 2, 4]), [n, depth * stride * stride, height // stride, width // stride]
    )
    return c.e.last(y)


@on("reorg3d")
def _space_to_depth(c: Importer, s: Section, _at: int) -> Value:
    x, stride = picture(c), positive(c, s, "stride", 1)
    n, height, width, depth = x.shape
    y = c.e.reshape(x, [n, height // stride, stride, width // stride, stride, depth])
    y = c.e.transpose(y, [0, 1, 3, 2, 4, 5])
    return c.e.reshape(y, [n, height // stride, width // stride, stride * stride * depth])
