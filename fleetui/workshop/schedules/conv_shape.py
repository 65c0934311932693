"""The numbers of one convolution, and how its weights are laid out for a schedule.

One- and two-dimensional convolutions are both seen as two-dimensional (a line is an image one pixel high); batch
rows simply follow each other. No TVM here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fleetui.workshop.graph.ir import Array, Node


@dataclass(frozen=True, slots=True)
class ConvShape:
    """``c`` and ``m`` are input and output channels of one group."""

    n: int
    h: int
    w: int
    c: int
    m: int
    groups: int
    kh: int
    kw: int
    sh: int = 1
    sw: int = 1
    dh: int = 1
    dw: int = 1
    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0
    dtype: str = "float32"

    @property
    def oh(self) -> int:
        return (self.h + self.top + self.bottom - (self.kh - 1) * self.dh - 1) // self.sh + 1

    @property
    def ow(self) -> int:
        return (self.w + self.left + self.right - (self.kw - 1) * self.dw - 1) // self.sw + 1

    @property
    def flops(self) -> int:
        return 2 * self.n * self.oh * self.ow * self.kh * self.kw * self.c * self.m * self.groups

    @property
    def padded(self) -> bool:
        return bool(self.top or self.bottom or self.left or self.right)

    @property
    def pointwise(self) -> bool:
        """Every output pixel depends on the one input pixel at the same place."""
        return self.kh == self.kw == self.sh == self.sw == 1 and not self.padded

    @property
    def depthwise(self) -> bool:
        return self.c == 1 and self.groups > 1

    def columns(self, kx: int) -> tuple[int, int]:
        """The output columns [from, to) for which tap ``kx`` reads inside the image."""
        offset = self.left - kx * self.dw
        first = max(0, -(-offset // self.sw))
        last = (self.w - 1 + offset) // self.sw + 1
        return min(first, self.ow), max(min(last, self.ow), min(first, self.ow))

    def flat(self) -> ConvShape:
        """A pointwise convolution as one long line of pixels."""
        return ConvShape(1, 1, self.n * self.h * self.w, self.c, self.m, self.groups, 1, 1, dtype=self.dtype)

    @property
    def key(self) -> str:
        """Short, exact and readable: goes into kernel keys and the database."""
        text = f"{self.n}x{self.h}x{self.w}x{self.c}-{self.m}"
        if self.groups > 1:
            text += f"g{self.groups}"
        text += f"-k{self.kh}x{self.kw}"
        if (self.sh, self.sw) != (1, 1):
            text += f"s{self.sh}x{self.sw}"
        if (self.dh, self.dw) != (1, 1):
            text += f"d{self.dh}x{self.dw}"
        if self.padded:
            text += f"p{self.top}.{self.bottom}.{self.left}.{self.right}"
        return text + ("" if self.dtype == "float32" else f"-{self.dtype}")


def conv_shape(node: Node) -> ConvShape | None:
    """None for what is not one- or two-dimensional."""
    x, w = node.input(0), node.input(1)
    rank = x.rank - 2
    if rank not in (1, 2):
        return None
    groups = int(node.attrs["groups"])
    strides, dilations = node.attrs["strides"], node.attrs["dilations"]
    pads = node.attrs["pads"]
    line = rank == 1
    return ConvShape(
        n=x.shape[0],
        h=1 if line else x.shape[1],
        w=x.shape[-2],
        c=x.shape[-1] // groups,
        m=w.shape[-1] // groups,
        groups=groups,
        kh=1 if line else w.shape[0],
        kw=w.shape[-3],
        sh=1 if line else strides[0],
        sw=strides[-1],
        dh=1 if line else dilations[0],
        dw=dilations[-1],
        top=0 if line else pads[0][0],
        bottom=0 if line else pads[0][1],
        left=pads[-1][0],
        right=pads[-1][1],
        dtype=x.dtype,
    )


def panels(channels: int, width: int, lanes: int) -> list[tuple[int, int, int]]:
    """Cut ``channels`` into panels of ``width`` vectors, the last maybe narrower: (first, vectors, channels)."""
    cut = []
    for first in range(0, channels, width * lanes):
        size = min(width * lanes, channels - first)
        cut.append((first, -(-size // lanes), size))
    return cut


def pack(weights: Array, shape: ConvShape, width: int, lanes: int) -> Array:
    """[kh, kw, c, groups·m] → for each group and panel [kh, kw, c, vectors·lanes], one after the other, flat."""
    w = np.ascontiguousarray(weights).reshape(shape.kh, shape.kw, shape.c, shape.groups, shape.m)
    parts = []
    for group in range(shape.groups):
        for first, vectors, size in panels(shape.m, width, lanes):
            block = w[:, :, :, group, first : first + size]
            if size < vectors * lanes:
                block = np.pad(block, ((0, 0), (0, 0), (0, 0), (0, vectors * lanes - size)))
            parts.append(np.ascontiguousarray(block).reshape(-1))
    return np.concatenate(parts)


def pack_bias(bias: Array | None, shape: ConvShape, lanes: int) -> Array:
    """[groups·m] → each group filled up to whole vectors."""
    room = -(-shape.m // lanes) * lanes
    out = np.zeros((shape.groups, room), dtype="int32" if shape.dtype != "float32" else "float32")
    if bias is not None:
        out[:, : shape.m] = np.asarray(bias).reshape(shape.groups, shape.m)
    return out.reshape(-1)
