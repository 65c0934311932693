"""Weights in 16, 8 or 4 bits, expanded in registers where they are used; arithmetic stays in float32.

8 bits: symmetric, one scale for each output channel. 4 bits: symmetric, one scale for every 32 weights of a
channel, and only in dense layers, where the bytes are; convolutions get 8. Scales are chosen for the least squared
error, not for the largest weight.
"""

from __future__ import annotations

import numpy as np

from fleetui.workshop.graph.ir import Array, Node, Value
from fleetui.workshop.optimise import Altered
from fleetui.workshop.optimise.weights import Weight, weights
from fleetui.workshop.options import Weights
from fleetui.workshop.progress import Progress

BLOCK = 32
LEAST = 1e-30
_SHRINK = np.linspace(1.0, 0.7, 7)


def apply(altered: Altered, form: Weights, progress: Progress) -> None:
    graph = altered.graph
    taken = list(weights(graph))
    made: dict[tuple[Value, str], Value] = {}
    expanders: dict[int, list[Node]] = {}
    for number, weight in enumerate(taken):
        progress.step(number, len(taken), weight.node.source or weight.node.op)
        kind = _form_of(weight, form)
        key = (weight.value, kind.value)
        if key not in made:
            node = _expander(weight, kind)
            made[key] = node.output
            expanders.setdefault(id(weight.node), []).append(node)
        weight.node.inputs[weight.index] = made[key]
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes += [*expanders.get(id(node), ()), node]
    graph.nodes = nodes
    kept = sum(w.value.size for w in taken)
    altered.details["compact"] = {"form": form.value, "weights": len(taken), "parameters": kept}
    if form is Weights.W4:
        spared = sum(1 for w in taken if _form_of(w, form) is not Weights.W4)
        if spared:
            altered.warnings.append(f"{spared} weights outside dense layers have 8 bits, not 4")


def _form_of(weight: Weight, form: Weights) -> Weights:
    if form is Weights.W4 and (weight.node.op != "dense" or weight.value.shape[0] < BLOCK):
        return Weights.W8
    return form


def _expander(weight: Weight, form: Weights) -> Node:
    value = weight.value
    assert value.data is not None
    out = Value(f"{value.name}.wide", value.shape, "float32")
    if form is Weights.FP16:
        half = Value(f"{value.name}.f16", value.shape, "float16", value.data.astype(np.float16))
        return Node("cast", [half], [out], {"to": "float32", "saturate": False}, weight.node.source)
    if form is Weights.W8:
        codes, scale = symmetric(value.data, weight.channels, 127)
        small = Value(f"{value.name}.i8", value.shape, "int8", codes)
        factor = Value(f"{value.name}.scale", scale.shape, "float32", scale)
        attrs = {"axis": weight.channels, "dtype": "float32", "block": 0}
        return Node("dequantize", [small, factor, None], [out], attrs, weight.node.source)
    codes, scale = blocked(value.data, weight.summed)
    import ml_dtypes

    small = Value(f"{value.name}.i4", value.shape, "int4", codes.astype(ml_dtypes.int4))
    factor = Value(f"{value.name}.scale", scale.shape, "float32", scale)
    attrs = {"axis": weight.summed, "dtype": "float32", "block": BLOCK}
    return Node("dequantize", [small, factor, None], [out], attrs, weight.node.source)


def symmetric(data: Array, axis: int, top: int) -> tuple[Array, Array]:
    """int8 codes, and the scale of each channel along ``axis`` that loses least."""
    rows = np.moveaxis(data, axis, 0).reshape(data.shape[axis], -1).astype(np.float32)
    scale = _best(rows, top)
    codes = np.clip(np.rint(rows / scale[:, None]), -top, top).astype(np.int8)
    moved = [data.shape[axis], *(d for i, d in enumerate(data.shape) if i != axis)]
    return np.ascontiguousarray(np.moveaxis(codes.reshape(moved), 0, axis)), scale


def blocked(data: Array, axis: int) -> tuple[Array, Array]:
    """4-bit codes (−7…7, as int8), and a scale for each run of ``BLOCK`` along ``axis``."""
    length = data.shape[axis]
    count = -(-length // BLOCK)
    rows = np.moveaxis(data, axis, -1).astype(np.float32)
    padded = np.zeros((*rows.shape[:-1], count * BLOCK), np.float32)
    padded[..., :length] = rows
    runs = padded.reshape(-1, BLOCK)
    scale = _best(runs, 7)
    codes = np.clip(np.rint(runs / scale[:, None]), -7, 7).astype(np.int8).reshape(padded.shape)[..., :length]
    factors = scale.reshape(*rows.shape[:-1], count)
    return np.ascontiguousarray(np.moveaxis(codes, -1, axis)), np.ascontiguousarray(np.moveaxis(factors, -1, axis))


def _best(rows: Array, top: int) -> Array:
    """Of a few scales from the largest weight downwards, the one with the least squared error, row by row."""
    peak = np.abs(rows).max(axis=1)
    # weights that are nothing but the last digits of a float are nothing
    peak = np.where((peak > LEAST) & np.isfinite(peak), peak, 1.0).astype(np.float32)
    best, least = peak / top, np.full(len(rows), np.inf)
    for shrink in _SHRINK:
        scale = (peak * shrink / top).astype(np.float32)
        codes = np.clip(np.rint(rows / scale[:, None]), -top, top)
        loss = np.square(codes * scale[:, None] - rows).sum(axis=1)
        better = loss < least
        best, least = np.where(better, scale, best), np.where(better, loss, least)
    return best.astype(np.float32)
