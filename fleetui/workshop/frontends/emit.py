"""What several frontends say to the builder in more than one node: channel-first operators, resizes, norms, casts.

Frameworks that keep channels first are met by transposing to channel-last, the primitive, and transposing back;
passes cancel the transposes between neighbours. Nothing here knows any framework's names.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from fleetui.workshop.errors import ShapeError, UnsupportedError
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Array, Value

Pads = Sequence[tuple[int, int]]
FLOATS = {"float16", "bfloat16", "float32", "float64"}


def axis_of(axis: int, rank: int) -> int:
    """A non-negative axis; rank 0 is treated as rank 1, as PyTorch does."""
    wide = max(rank, 1)
    if not -wide <= axis < wide:
        raise ShapeError(f"There is no axis {axis} in a tensor of {rank} dimensions")
    return axis % wide


def axes_of(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Sorted and without repetition; none means all."""
    return tuple(sorted({axis_of(axis, rank) for axis in axes})) if len(axes) else tuple(range(rank))


class Emit:
    def __init__(self, builder: Builder) -> None:
        self.b = builder

    # ------------------------------------------------------------ shapes and types

    def cast(self, x: Value, dtype: str) -> Value:
        return x if x.dtype == dtype else self.b.op("cast", x, to=dtype)

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """One size may be -1."""
        sizes = [int(d) for d in shape]
        if sizes.count(-1) == 1:
            known = prod(d for d in sizes if d != -1)
            if known == 0 or x.size % known:
                raise ShapeError(f"{list(x.shape)} cannot be reshaped to {sizes}")
            sizes[sizes.index(-1)] = x.size // known
        return x if tuple(sizes) == x.shape else self.b.op("reshape", x, shape=tuple(sizes))

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        perm = tuple(int(p) for p in perm)
        if perm == tuple(range(x.rank)):
            return x
        if x.data is not None and sorted(perm) == list(range(x.rank)):
            return self.b.constant(x.data.transpose(perm), x.name, x.dtype)  # a view: weights are not copied
        return self.b.op("transpose", x, perm=perm)

    def swap(self, x: Value, a: int, b: int) -> Value:
        perm = list(range(x.rank))
        a, b = axis_of(a, x.rank), axis_of(b, x.rank)
        perm[a], perm[b] = perm[b], perm[a]
        return self.transpose(x, perm)

    def expand(self, x: Value, shape: Sequence[int]) -> Value:
        """Broadcast; -1 keeps a size."""
        sizes = [int(d) for d in shape]
        lead = len(sizes) - x.rank
        sizes = [x.shape[i - lead] if d == -1 and i >= lead else d for i, d in enumerate(sizes)]
        return x if tuple(sizes) == x.shape else self.b.op("broadcast_to", x, shape=tuple(sizes))

    def squeeze(self, x: Value, axes: Sequence[int] | None = None) -> Value:
        gone = set(range(x.rank)) if axes is None else {axis_of(a, x.rank) for a in axes}
        return self.reshape(x, [d for i, d in enumerate(x.shape) if not (i in gone and d == 1)])

    def unsqueeze(self, x: Value, axis: int) -> Value:
        at = axis_of(axis, x.rank + 1)
        return self.reshape(x, [*x.shape[:at], 1, *x.shape[at:]])

    def slice(self, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
        """Along one axis, with Python's own reading of out-of-range numbers; ``step`` is positive."""
        axis = axis_of(axis, x.rank)
        start, stop, step = slice(start, stop, step).indices(x.shape[axis])
        stop = max(start, stop)
        if (start, stop, step) == (0, x.shape[axis], 1):
            return x
        starts, stops, steps = [0] * x.rank, list(x.shape), [1] * x.rank
        starts[axis], stops[axis], steps[axis] = start, stop, step
        return self.b.op("slice", x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))

    def select(self, x: Value, axis: int, index: int) -> Value:
        axis = axis_of(axis, x.rank)
        size = x.shape[axis]
        if not -size <= index < size:
            raise ShapeError(f"There is no index {index} along an axis of size {size}")
        index %= size
        return self.reshape(self.slice(x, axis, index, index + 1), [*x.shape[:axis], *x.shape[axis + 1 :]])

    def flip(self, x: Value, axes: Sequence[int]) -> Value:
        gone = {axis_of(a, x.rank) for a in axes}
        starts = tuple(d - 1 if i in gone else 0 for i, d in enumerate(x.shape))
        stops = tuple(-1 if i in gone else d for i, d in enumerate(x.shape))
        steps = tuple(-1 if i in gone else 1 for i in range(x.rank))
        return self.b.op("slice", x, starts=starts, stops=stops, steps=steps)

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        if len(values) == 1:
            return values[0]
        return self.b.op("concat", *values, axis=axis_of(axis, values[0].rank))

    def pad(self, x: Value, pads: Pads, mode: str = "constant", value: float = 0) -> Value:
        """Negative padding crops."""
        for axis, (before, after) in enumerate(pads):
            if before < 0 or after < 0:
                x = self.slice(x, axis, max(0, -before), x.shape[axis] - max(0, -after))
        low, high = tuple(max(0, p[0]) for p in pads), tuple(max(0, p[1]) for p in pads)
        if not any(low) and not any(high):
            return x
        return self.b.op("pad", x, before=low, after=high, mode=mode, value=value)

    def full(self, shape: Sequence[int], value: float | bool, dtype: str) -> Value:
        one = self.b.constant(np.asarray(value).astype(_numpy(dtype)), "full", dtype)
        return self.expand(one, tuple(int(d) for d in shape))

    # ------------------------------------------------------------ arithmetic

    def like(self, number: float | bool, x: Value) -> Value:
        """A rank-0 constant of the dtype of ``x``."""
        return self.b.constant(np.asarray(number).astype(_numpy(x.dtype)), "s", x.dtype)

    def binary(self, op: str, a: Value, b: Value) -> Value:
        return self.b.op(op, a, b)

    def by(self, op: str, x: Value, number: float | bool) -> Value:
        """An operator with a constant on its right."""
        return self.b.op(op, x, self.like(number, x))

    def reduce(self, kind: str, x: Value, axes: Sequence[int], *, keepdims: bool = False) -> Value:
        if x.rank == 0:
            return x
        return self.b.op("reduce", x, kind=kind, axes=axes_of(axes, x.rank), keepdims=bool(keepdims))

    def matmul(self, a: Value, b: Value) -> Value:
        """Numpy's matmul with vectors too; a constant matrix on the right becomes a ``dense``."""
        if a.rank == 0 or b.rank == 0:
            raise ShapeError("A matrix product needs vectors or matrices")
        left, right = a.rank == 1, b.rank == 1
        if left:
            a = self.unsqueeze(a, 0)
        if right:
            b = self.unsqueeze(b, 1)
        if b.rank == 2 and b.is_constant and b.dtype in FLOATS:
            out = self.b.op("dense", a, b, None)
        else:
            out = self.b.op("matmul", a, b, transpose_a=False, transpose_b=False)
        if right:
            out = self.squeeze(out, [-1])
        return self.squeeze(out, [-1 if right else -2]) if left else out

    def affine(self, x: Value, axis: int, scale: Array | None, bias: Array | None) -> Value:
        """Per channel along ``axis``; constants are made in the dtype of ``x``."""
        shape = [1] * x.rank
        shape[axis_of(axis, x.rank)] = -1
        for op, data in (("mul", scale), ("add", bias)):
            if data is not None:
                x = self.b.op(op, x, self.b.constant(data.astype(_numpy(x.dtype)).reshape(shape), op, x.dtype))
        return x

    # ------------------------------------------------------------ channel-first operators

    def last(self, x: Value) -> Value:
        """[N, C, *S] → [N, *S, C]."""
        return self.transpose(x, [0, *range(2, x.rank), 1])

    def first(self, x: Value) -> Value:
        """[N, *S, C] → [N, C, *S]."""
        return self.transpose(x, [0, x.rank - 1, *range(1, x.rank - 1)])

    def conv_first(
        self, x: Value, w: Value, bias: Value | None, strides: Sequence[int], pads: Pads, dilations: Sequence[int],
        groups: int,
    ) -> Value:  # fmt: skip
        """``w`` is [M, C/groups, *K]."""
        kernel = self.transpose(w, [*range(2, w.rank), 1, 0])
        out = self.b.op(
            "conv", self.last(x), kernel, bias, strides=_ints(strides), pads=_pairs(pads),
            dilations=_ints(dilations), groups=int(groups),
        )  # fmt: skip
        return self.first(out)

    def conv_transpose_first(
        self, x: Value, w: Value, bias: Value | None, strides: Sequence[int], pads: Pads, dilations: Sequence[int],
        groups: int, output_padding: Sequence[int],
    ) -> Value:  # fmt: skip
        """``w`` is [C, M/groups, *K]."""
        kernel = self.transpose(w, [*range(2, w.rank), 0, 1])
        out = self.b.op(
            "conv_transpose", self.last(x), kernel, bias, strides=_ints(strides), pads=_pairs(pads),
            dilations=_ints(dilations), output_padding=_ints(output_padding), groups=int(groups),
        )  # fmt: skip
        return self.first(out)

    def pool_last(
        self, x: Value, kind: str, kernel: Sequence[int], strides: Sequence[int], pads: Pads,
        dilations: Sequence[int] | None = None, *, include_pad: bool = False, out: Sequence[int] | None = None,
    ) -> Value:  # fmt: skip
        dilations = _ints(dilations or [1] * len(kernel))
        sizes = out or [
            (size + before + after - d * (k - 1) - 1) // s + 1
            for size, k, s, (before, after), d in zip(x.shape[1:-1], kernel, strides, pads, dilations, strict=True)
        ]
        if min(sizes) < 1:
            raise ShapeError(f"A window of {list(kernel)} does not fit {list(x.shape[1:-1])}")
        return self.b.op(
            "pool", x, kind=kind, kernel=_ints(kernel), strides=_ints(strides), pads=_pairs(pads),
            dilations=dilations, count_include_pad=bool(include_pad), out=_ints(sizes), p=2,
        )  # fmt: skip

    def adaptive_first(self, x: Value, kind: str, out: Sequence[int]) -> Value:
        """PyTorch's adaptive pooling over the last ``len(out)`` axes of [N, C, *S]."""
        spatial = x.shape[2:]
        reduced = "mean" if kind == "avg" else "max"
        if all(o == 1 for o in out):
            return self.reduce(reduced, x, range(2, x.rank), keepdims=True)
        if all(s % o == 0 for s, o in zip(spatial, out, strict=True)):
            kernel = [s // o for s, o in zip(spatial, out, strict=True)]
            return self.first(self.pool_last(self.last(x), kind, kernel, kernel, [(0, 0)] * len(kernel)))
        for axis, (size, sizes) in enumerate(zip(spatial, out, strict=True), 2):
            windows = [(i * size // sizes, -((-(i + 1) * size) // sizes)) for i in range(sizes)]
            if kind == "avg":
                taps = max(end - begin for begin, end in windows)
                index = np.array([[min(b + t, size - 1) for t in range(taps)] for b, _ in windows], np.int32)
                weight = np.array(
                    [[(1 / (e - b)) * (b + t < e) for t in range(taps)] for b, e in windows], np.float32
                )
                x = self.interp(x, axis, index, weight)
            else:
                parts = [self.reduce("max", self.slice(x, axis, b, e), [axis], keepdims=True) for b, e in windows]
                x = self.concat(parts, axis)
        return x

    def group_norm_first(self, x: Value, groups: int, scale: Value | None, bias: Value | None, eps: float) -> Value:
        """Over each group of channels and all of space, on [N, C, *S]."""
        if groups < 1 or x.rank < 2 or x.shape[1] % groups:
            raise ShapeError(f"{list(x.shape)} cannot be normalised in {groups} groups")
        flat = self.reshape(x, [x.shape[0], groups, -1])
        out = self.reshape(self.b.op("layer_norm", flat, None, None, axis=2, eps=float(eps)), x.shape)
        shape = [1, x.shape[1], *[1] * (x.rank - 2)]
        if scale is not None:
            out = self.b.op("mul", out, self.reshape(scale, shape))
        return out if bias is None else self.b.op("add", out, self.reshape(bias, shape))

    # ------------------------------------------------------------ resizing

    def interp(self, x: Value, axis: int, index: Array, weight: Array) -> Value:
        if x.dtype not in FLOATS:
            raise UnsupportedError(f"Resizing {x.dtype} tensors is not supported", "Convert to float first")
        return self.b.op(
            "interp", x, self.b.constant(index.astype(np.int32), "index"),
            self.b.constant(weight.astype(np.float32), "weight"), axis=axis_of(axis, x.rank),
        )  # fmt: skip

    def resize(
        self, x: Value, axis: int, out: int, mode: str, *, align: bool = False, half: bool = True,
        scale: float | None = None, cubic: float = -0.75, rounding: str = "floor",
    ) -> Value:  # fmt: skip
        """One axis. ``scale``: input steps per output step, where the model says it rather than the sizes.

        ``rounding`` is for ``nearest``: ``floor``, or ``half`` for the nearest centre with ties upwards.
        """
        axis = axis_of(axis, x.rank)
        size = x.shape[axis]
        if out < 1:
            raise ShapeError(f"A tensor cannot be resized to {out}")
        step = scale if scale is not None else size / out
        where = np.arange(out, dtype=np.float64)
        if align:
            at = where * ((size - 1) / (out - 1) if out > 1 else 0.0)
        else:
            at = (where + 0.5) * step - 0.5 if half else where * step
        if mode == "nearest":
            whole = np.floor(at + 0.5) if rounding == "half" else np.floor(at)
            index = np.clip(whole, 0, size - 1).astype(np.int32)
            if out == size and (index == np.arange(size)).all():
                return x
            return self.b.op("gather", x, self.b.constant(index, "index"), axis=axis)
        if out == size and np.allclose(at, where):
            return x
        if mode == "linear":
            at = np.clip(at, 0, size - 1)
            low = np.floor(at).astype(np.int64)
            high = np.minimum(low + 1, size - 1)
            part = at - low
            return self.interp(x, axis, np.stack([low, high], 1), np.stack([1 - part, part], 1))
        low = np.floor(at).astype(np.int64)
        part = at - low
        taps = [_cubic(1 + part, cubic), _cubic(part, cubic), _cubic(1 - part, cubic), _cubic(2 - part, cubic)]
        index = np.clip(np.stack([low - 1, low, low + 1, low + 2], 1), 0, size - 1)
        return self.interp(x, axis, index, np.stack(taps, 1))


def _cubic(t: Array, a: float) -> Array:
    """Keys' kernel at distance ``t``."""
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((t - 5) * t + 8) * t * a - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def _ints(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def _pairs(pads: Pads) -> tuple[tuple[int, int], ...]:
    return tuple((int(a), int(b)) for a, b in pads)


def _numpy(dtype: str) -> Any:
    if dtype == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return np.dtype(dtype)
