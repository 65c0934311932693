"""Questions about constants that many rules ask."""

from __future__ import annotations

import numpy as np

from fleetui.workshop.graph.ir import Array, Value

FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


def uniform(value: Value | None) -> float | None:
    """The number all elements of a constant are equal to; ``None`` where they differ, or it is not constant."""
    if value is None or value.data is None or value.size == 0:
        return None
    flat = value.data.reshape(-1)
    first = flat[0]
    if value.size > 1 and not bool((flat == first).all()):
        return None
    number = float(first)
    return None if number != number else number  # noqa: PLR0124 - not a number is not equal to itself


def as_float64(value: Value) -> Array:
    assert value.data is not None
    return value.data.astype(np.float64)


def other(inputs: list[Value | None], uniform_only: bool = False) -> tuple[Value, Value] | None:
    """Of two inputs the one that varies and the one that is constant, in that order."""
    a, b = inputs[0], inputs[1]
    if a is None or b is None or (a.data is None) == (b.data is None):
        return None
    x, c = (a, b) if b.data is not None else (b, a)
    return None if uniform_only and uniform(c) is None else (x, c)


def keeps_shape(x: Value, c: Value) -> bool:
    """Broadcasting ``c`` against ``x`` gives the shape of ``x``."""
    try:
        return np.broadcast_shapes(x.shape, c.shape) == x.shape
    except ValueError:
        return False


def along_last(value: Value, length: int, rank: int) -> Array | None:
    """A constant that varies at most along the last of ``rank`` dimensions, as ``length`` numbers in float64."""
    if value.data is None or value.rank > rank:
        return None
    if any(d != 1 for d in value.shape[:-1]) or (value.rank and value.shape[-1] not in {1, length}):
        return None
    return np.broadcast_to(as_float64(value).reshape(-1), (length,))
