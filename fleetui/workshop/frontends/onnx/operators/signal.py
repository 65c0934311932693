"""Spectra and windows as products with constant matrices; determinants."""

from __future__ import annotations

import numpy as np

from fleetui.workshop.frontends.onnx.call import Call, Handler, Result, operator
from fleetui.workshop.frontends.onnx.operators.shapes import made_up
from fleetui.workshop.graph.ir import Array, Value

UNROLLED = 64
"""The largest matrix whose determinant is computed, step by step."""


def _window(terms: tuple[float, ...]) -> Handler:
    """A sum of cosines: ``a₀ − a₁·cos(2πn/N) + a₂·cos(4πn/N)``."""

    def handler(c: Call) -> Result:
        size = c.int_of(0, "size")
        made_up(c, size)
        span = size if c.flag("periodic", default=True) else size - 1
        turn = 2 * np.pi * np.arange(size) / max(span, 1)
        wave = sum((-1) ** i * a * np.cos(i * turn) for i, a in enumerate(terms))
        return c.constant(np.asarray(wave), c.dtype_attr("output_datatype", "float32"))

    return handler


operator("HannWindow")(_window((0.5, 0.5)))
operator("HammingWindow")(_window((25 / 46, 21 / 46)))
operator("BlackmanWindow")(_window((0.42, 0.5, 0.08)))


@operator("MelWeightMatrix")
def mel_weight_matrix(c: Call) -> Result:
    """Triangles over the bins of a spectrum, evenly spaced on the mel scale."""
    bands, length, rate = (c.int_of(i, what) for i, what in enumerate(("bands", "length", "rate")))
    low, high = (float(c.const(i, "edges").reshape(-1)[0]) for i in (3, 4))
    bins = length // 2 + 1
    made_up(c, bins * max(bands, 1))

    def mel(hertz: float) -> float:
        return 2595 * float(np.log10(1 + hertz / 700))

    marks = mel(low) + np.arange(bands + 2) * (mel(high) - mel(low)) / (bands + 2)
    places = ((length + 1) * (700 * (10 ** (marks / 2595) - 1)) // rate).astype(np.int64)
    out = np.zeros((bins, bands))
    for band in range(bands):
        left, centre, right = places[band : band + 3]
        if left < 0 or right > bins:
            c.misfit("has bands beyond the spectrum")
        if left == centre:
            out[centre, band] = 1
        else:
            out[left : centre + 1, band] = np.arange(centre - left + 1) / (centre - left)
        if right > centre:
            out[centre:right, band] = np.arange(right - centre, 0, -1) / (right - centre)
    return c.constant(out, c.dtype_attr("output_datatype", "float32"))


# ---------------------------------------------------------------- Fourier


def _waves(rows: int, columns: int, length: int) -> tuple[Array, Array]:
    """Cosine and sine of 2π·row·column/length, exact in the product."""
    turn = 2 * np.pi * ((np.arange(rows)[:, None] * np.arange(columns)[None, :]) % length) / length
    return np.cos(turn), np.sin(turn)


def transformed(c: Call, real: Value, imaginary: Value | None, length: int, bins: int, *, inverse: bool) -> Value:
    """Along the last axis; real and imaginary parts become a new last axis."""
    made_up(c, length * bins)
    cos, sin = (c.constant(part, real.dtype) for part in _waves(length, bins, length))

    def times(x: Value, matrix: Value) -> Value:
        return c.op("dense", x, matrix, None)

    minus = c.op("neg", sin) if not inverse else sin
    out_real, out_imaginary = times(real, cos), times(real, minus)
    if imaginary is not None:
        out_real = c.op("sub", out_real, times(imaginary, minus))
        out_imaginary = c.op("add", out_imaginary, times(imaginary, cos))
    last = out_real.rank
    out = c.concat([c.unsqueeze(out_real, [last]), c.unsqueeze(out_imaginary, [last])], last)
    return c.op("mul", out, c.scalar(1 / length, out)) if inverse else out


def _fitted(c: Call, x: Value, length: int) -> Value:
    """The last axis cut or filled with zeros."""
    have = x.shape[-1]
    if have >= length:
        return c.cut(x, x.rank - 1, 0, length)
    after = (*[0] * (x.rank - 1), length - have)
    return c.op("pad", x, before=(0,) * x.rank, after=after, mode="constant", value=0)


@operator("DFT")
def dft(c: Call) -> Result:
    x = c.value(0)
    if x.rank < 2 or x.shape[-1] not in {1, 2}:
        c.misfit(f"transforms {list(x.shape)}, whose last axis should hold one or two parts")
    if c.version < 20:
        axis = c.axis(c.integer("axis", 1), x.rank)
    else:
        axis = c.axis(c.int_of(2, "axis") if c.opt(2) is not None else -2, x.rank)
    if axis == x.rank - 1:
        c.misfit("transforms along the axis of its real and imaginary parts")
    inverse, onesided = c.flag("inverse"), c.flag("onesided")
    real, imaginary = (_part(c, x, axis, i) if i < x.shape[-1] else None for i in range(2))
    if real is None:
        c.broken("has no real part")
    back = inverse and onesided
    length = 2 * (x.shape[axis] - 1) if back else x.shape[axis]
    if c.opt(1) is not None:
        length = c.int_of(1, "length")
    if length < 1:
        c.misfit(f"transforms {length} elements")
    if back:
        return _real_inverse(c, x, axis, real, imaginary, length)
    real = _fitted(c, real, length)
    imaginary = None if imaginary is None else _fitted(c, imaginary, length)
    bins = length // 2 + 1 if onesided else length
    out = transformed(c, real, imaginary, length, bins, inverse=inverse)
    return _placed(c, out, axis)


def _part(c: Call, x: Value, axis: int, part: int) -> Value:
    """The real or the imaginary part, with the axis to transform moved last."""
    one = c.squeeze(c.cut(x, x.rank - 1, part, part + 1), [x.rank - 1])
    return c.transpose(one, [*(i for i in range(one.rank) if i != axis), axis])


def _placed(c: Call, out: Value, axis: int) -> Value:
    """The transformed axis, last but one, back where it was."""
    rank = out.rank - 1
    order = list(range(rank - 1))
    order.insert(axis, rank - 1)
    return c.transpose(out, [*order, rank])


def _real_inverse(c: Call, x: Value, axis: int, real: Value, imaginary: Value | None, length: int) -> Value:
    """Half a spectrum back to a real signal: the other half is its mirror."""
    bins = length // 2 + 1
    made_up(c, length * bins)
    cos, sin = _waves(bins, length, length)
    twice = np.full(bins, 2.0)
    twice[0] = 1
    if length % 2 == 0:
        twice[-1] = 1
    out = c.op("dense", _fitted(c, real, bins), c.constant(cos * twice[:, None] / length, x.dtype), None)
    if imaginary is not None:
        wave = c.constant(sin * twice[:, None] / length, x.dtype)
        out = c.op("sub", out, c.op("dense", _fitted(c, imaginary, bins), wave, None))
    return _placed(c, c.unsqueeze(out, [out.rank]), axis)


@operator("STFT")
def stft(c: Call) -> Result:
    x, window = c.value(0), c.opt(2)
    if x.rank == 2:
        x = c.unsqueeze(x, [2])
    if x.rank != 3:
        c.misfit(f"transforms a signal of the shape {list(x.shape)}")
    step = c.int_of(1, "step")
    if c.opt(3) is not None:
        length = c.int_of(3, "frame length")
    else:
        length = window.size if window is not None else x.shape[1]
    if step < 1 or not 1 <= length <= x.shape[1] or (window is not None and window.size != length):
        c.misfit(f"takes frames of {length} every {step} of {x.shape[1]} elements")
    frames = (x.shape[1] - length) // step + 1
    made_up(c, frames * length)
    at = c.constant((np.arange(frames)[:, None] * step + np.arange(length)[None, :]).astype(np.int64))
    parts: list[Value] = []
    for part in range(x.shape[2]):
        one = c.squeeze(c.cut(x, 2, part, part + 1), [2])
        framed = c.op("gather", one, at, axis=1)
        parts.append(
            framed if window is None else c.op("mul", framed, c.cast(c.reshape(window, [length]), x.dtype))
        )
    onesided = c.flag("onesided", default=True) and len(parts) == 1
    bins = length // 2 + 1 if onesided else length
    return transformed(c, parts[0], parts[1] if len(parts) > 1 else None, length, bins, inverse=False)


# ---------------------------------------------------------------- determinants


@operator("Det")
def det(c: Call) -> Result:
    x = c.value(0)
    if x.rank < 2 or x.shape[-1] != x.shape[-2]:
        c.misfit(f"takes the determinant of {list(x.shape)}")
    size = x.shape[-1]
    if size > UNROLLED:
        c.refuse(f"takes the determinant of a matrix of {size} rows; the most we do is {UNROLLED}")
    batch = x.shape[:-2]
    matrix = c.reshape(x, [x.size // max(1, size * size), size, size]) if x.size else x
    if not x.size:
        return c.full(batch, 1, x.dtype)
    result: Value | None = None
    for left in range(size, 0, -1):
        pivot, sign, matrix = _eliminated(c, matrix, left)
        step = c.op("mul", pivot, sign)
        result = step if result is None else c.op("mul", result, step)
    if result is None:
        c.broken("has no rows")
    return c.reshape(result, batch)


def _eliminated(c: Call, matrix: Value, size: int) -> tuple[Value, Value, Value]:
    """One step of Gaussian elimination with the largest pivot: pivot, sign of the swap, and what is left."""
    count = matrix.shape[0]
    first = c.reshape(c.cut(matrix, 2, 0, 1), [count, size])
    best = c.op("argmax", c.op("abs", first), axis=1, keepdims=True, last=False)
    rows = c.constant(np.arange(size, dtype=np.int64).reshape(1, size))
    zero = c.scalar(0, best)
    # Row 0 and the best row change places.
    order = c.op("where", c.op("equal", rows, best), zero, rows)
    order = c.op("where", c.op("equal", rows, zero), best, order)
    index = c.broadcast(c.unsqueeze(order, [2]), matrix.shape)
    swapped = c.op("gather_elements", matrix, index, axis=1)
    one = c.scalar(1, matrix)
    sign = c.reshape(c.op("where", c.op("equal", best, zero), one, c.op("neg", one)), [count])
    pivot = c.cut(c.cut(swapped, 1, 0, 1), 2, 0, 1)
    safe = c.op("where", c.op("equal", pivot, c.scalar(0, pivot)), one, pivot)
    factor = c.op("div", c.cut(c.cut(swapped, 1, 1, size), 2, 0, 1), safe) if size > 1 else pivot
    if size > 1:
        rest = c.cut(c.cut(swapped, 1, 1, size), 2, 1, size)
        top = c.cut(c.cut(swapped, 1, 0, 1), 2, 1, size)
        left = c.op("sub", rest, c.op("mul", factor, top))
    else:
        left = matrix
    return c.reshape(pivot, [count]), sign, left
