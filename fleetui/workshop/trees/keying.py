"""Features as keys, in TIR: what ``layout`` says of columns and edges, computed for one number of a row."""

from __future__ import annotations

from typing import Any

import numpy as np

from fleetui.workshop.schedules.emit import number
from fleetui.workshop.trees.ensemble import ZERO, Category, Ensemble, Missing
from fleetui.workshop.trees.layout import CATEGORY, Layout

Expr = Any


def key(e: Ensemble, layout: Layout, value: Expr, mode: int) -> Expr:
    """A feature as a whole number that orders as it does; ``mode`` is its column's (see ``layout.Block``)."""
    from tvm import tirx

    kind = layout.key
    float_ = "float64" if kind == "int64" else "float32"
    if mode == CATEGORY:
        return _category(e, layout, value)
    if str(value.ty.dtype) != float_:
        value = tirx.Cast(float_, value)
    info = np.iinfo(kind)
    missing, right = Missing(mode // 2), mode % 2
    bits = tirx.reinterpret(kind, value)
    most = tirx.const(int(info.max), kind)
    found = bits ^ (tirx.shift_right(bits, tirx.const(info.bits - 1, kind)) & most)
    size = bits & most
    infinite = 0x7FF << 52 if kind == "int64" else 0xFF << 23
    nan = size > tirx.const(infinite, kind)
    lost = tirx.const(int(info.max - 1 if right else info.min), kind)
    if missing is Missing.NONE:
        return tirx.Select(nan, tirx.const(0, kind), found)
    if missing is Missing.ZERO:
        edge = np.array(ZERO, float_)
        if float(edge) > ZERO:
            edge = np.nextafter(edge, np.array(0, float_))
        small = size <= tirx.const(int(edge.view(kind)), kind)
        return tirx.Select(nan | small, lost, found)
    return tirx.Select(nan, lost, found)


def _category(e: Ensemble, layout: Layout, value: Expr) -> Expr:
    """Where in a set's bits this value is looked up: 0 for NaN, 1 for what no set knows."""
    from tvm import tirx

    dtype, key = str(value.ty.dtype), layout.key
    limit = 32.0 * layout.words - 2
    nan = tirx.isnan(value)
    trunc = e.category is Category.TRUNC
    above = value > number(-1.0, dtype) if trunc else value >= number(0.0, dtype)
    known = above & (value < number(limit, dtype))
    if e.category is Category.EXACT:
        known = known & (tirx.floor(value) == value)
    safe = tirx.Select(known, value, number(0.0, dtype))
    place = tirx.Select(known, tirx.Cast(key, safe) + tirx.const(2, key), tirx.const(1, key))
    return tirx.Select(nan, tirx.const(0, key), place)
