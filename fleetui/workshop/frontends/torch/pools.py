"""ATen's pools and everything that resizes pictures or shuffles their channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fleetui.workshop.errors import ShapeError, UnsupportedError
from fleetui.workshop.frontends.torch.program import Args, Handler, Importer, on
from fleetui.workshop.graph.ir import Value


def _self(a: Args) -> Value:
    return a.tensor("self") if a.has("self") else a.tensor("input")


def _each(values: Sequence[int], count: int) -> list[int]:
    return list(values) * count if len(values) == 1 else list(values)


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
