"""The primitive ``trees``: what comes out of an ensemble for a row of features, in numpy, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fleetui.common.domain.errors import BugError
from fleetui.workshop.errors import ShapeError
from fleetui.workshop.graph.ir import Array, Value
from fleetui.workshop.graph.ops import Kind, OpSpec, Types
from fleetui.workshop.trees.ensemble import Ensemble
from fleetui.workshop.trees.reference import evaluate

INPUTS = frozenset({"float32", "float64"})


def ensemble_of(attrs: dict[str, Any]) -> Ensemble:
    found = attrs.get("ensemble")
    if not isinstance(found, Ensemble):
        raise BugError("trees lacks its ensemble")
    return found


def _infer(inputs: Sequence[Value | None], attrs: dict[str, Any]) -> Types:
    e = ensemble_of(attrs)
    x = inputs[0] if inputs else None
    if x is None:
        raise BugError("trees lacks its input")
    if x.rank != 2 or x.shape[1] != e.features:
        raise ShapeError(
            f"The trees want rows of {e.features} features, not {list(x.shape)}", "Give a table of such rows"
        )
    if x.dtype not in INPUTS:
        raise ShapeError(f"The trees want float32 or float64 features, not {x.dtype}", "Convert them first")
    rows = x.shape[0]
    scores = (rows,) if e.flat and e.outputs == 1 else (rows, e.outputs)
    return [(scores, e.dtype), *(((rows, *post.width(e.outputs)), post.dtype) for post in e.posts)]


def _evaluate(arrays: Sequence[Array | None], attrs: dict[str, Any]) -> list[Array]:
    x = arrays[0]
    if x is None:
        raise BugError("trees lacks its input")
    return evaluate(ensemble_of(attrs), x)


def _flops(inputs: Sequence[Value | None], _types: Types, attrs: dict[str, Any]) -> int:
    """One for each comparison on the way to a leaf of average depth, one for each number added."""
    e = ensemble_of(attrs)
    x = inputs[0]
    leaves = e.feature < 0
    reached = leaves & (e.depths >= 0)
    mean = float(e.depths[reached].mean()) if reached.any() else 0.0
    return int((x.shape[0] if x is not None else 1) * e.trees * (mean + e.width))


SPECS = [OpSpec("trees", Kind.OPAQUE, _infer, _evaluate, _flops)]
