"""Scatter: updates written, added, … into a copy of the data. What falls outside of the data is left out."""

# ruff: noqa: ARG001 - a rule is called with all that any rule may need

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fleetui.workshop.graph.ir import Array
from fleetui.workshop.graph.ops import Kind, OpSpec, Types
from fleetui.workshop.graph.primitives.common import (
    INTS,
    Arrays,
    Attrs,
    Inputs,
    array,
    axis_in,
    dtype_in,
    given,
    like,
    must,
    same_dtype,
    say,
    size,
    spec,
    wide,
)

JOIN: dict[str, Callable[..., Any]] = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _check(op: str, inputs: Inputs, attrs: Attrs) -> None:
    data, indices, updates = given(inputs, 3, op)
    dtype_in(f"{op} by", indices, INTS)
    same_dtype(op, data, updates)
    must(attrs["reduction"] in {"none", *JOIN}, f"{op} by {attrs['reduction']}")
    must(
        attrs["reduction"] == "none" or data.dtype != "bool", f"{op} by {attrs['reduction']} does not work on bool"
    )


def _infer_elements(inputs: Inputs, attrs: Attrs) -> Types:
    data, indices, updates = given(inputs, 3, "scatter_elements")
    _check("scatter_elements", inputs, attrs)
    axis = attrs["axis"]
    axis_in("scatter_elements", axis, data.rank)
    fits = (
        indices.shape == updates.shape
        and indices.rank == data.rank
        and all(i <= d for at, (i, d) in enumerate(zip(indices.shape, data.shape, strict=True)) if at != axis)
    )
    must(fits, f"scatter_elements into {say(data.shape)} by {say(indices.shape)} of {say(updates.shape)}")
    return [(data.shape, data.dtype)]


def _infer_nd(inputs: Inputs, attrs: Attrs) -> Types:
    data, indices, updates = given(inputs, 3, "scatter_nd")
    _check("scatter_nd", inputs, attrs)
    must(
        indices.rank >= 1 and indices.shape[-1] <= data.rank,
        f"scatter_nd into {say(data.shape)} by {say(indices.shape)}",
    )
    want = (*indices.shape[:-1], *data.shape[indices.shape[-1] :])
    must(updates.shape == want, f"scatter_nd takes updates of shape {say(want)} and got {say(updates.shape)}")
    return [(data.shape, data.dtype)]


def _write(data: Array, where: tuple[Array, ...], updates: Array, reduction: str) -> Array:
    """``where``: flat index arrays of the leading dimensions; updates: one row for each."""
    inside = np.ones(updates.shape[:1], bool)
    settled = []
    for axis, at in enumerate(where):
        at64 = at.astype(np.int64)
        at64 = np.where(at64 < 0, at64 + data.shape[axis], at64)
        inside &= (at64 >= 0) & (at64 < data.shape[axis])
        settled.append(at64)
    out = wide(data).copy()
    target, rows = tuple(at[inside] for at in settled), wide(updates)[inside]
    if not where:  # every row covers the whole tensor
        for row in rows:
            out = row if reduction == "none" else JOIN[reduction](out, row)
    elif reduction == "none":
        out[target] = rows
    else:
        JOIN[reduction].at(out, target, rows)  # type: ignore[attr-defined]  # numpy's ufuncs have it
    return like(out, data)


def _evaluate_elements(arrays: Arrays, attrs: Attrs) -> list[Array]:
    data, indices, updates = (array(arrays, i) for i in range(3))
    places: Any = np.indices(indices.shape, sparse=True)
    grids = [np.broadcast_to(place, indices.shape).ravel() for place in places]
    grids[attrs["axis"]] = indices.ravel()
    return [_write(data, tuple(grids), updates.ravel(), attrs["reduction"])]


def _evaluate_nd(arrays: Arrays, attrs: Attrs) -> list[Array]:
    data, indices, updates = (array(arrays, i) for i in range(3))
    depth, count = indices.shape[-1], size(indices.shape[:-1])
    flat = indices.reshape(count, depth)
    rows = updates.reshape(count, *data.shape[depth:])
    return [_write(data, tuple(flat[:, i] for i in range(depth)), rows, attrs["reduction"])]


def _flops(inputs: Inputs, types: Types, attrs: Attrs) -> int:
    return 0 if attrs["reduction"] == "none" else given(inputs, 3, "scatter")[2].size


SPECS: list[OpSpec] = [
    spec("scatter_elements", Kind.OPAQUE, _infer_elements, _evaluate_elements, _flops, ("axis", "reduction")),
    spec("scatter_nd", Kind.OPAQUE, _infer_nd, _evaluate_nd, _flops, ("reduction",)),
]
