"""Magnitude pruning in blocks: the weakest runs of weights become zero, whole vectors at a time.

A block is a run of output channels at one position of the kernel and one input channel: what one vector
instruction would multiply. The share is reached over the whole graph, not layer by layer, so layers that matter
keep more; but no layer loses more than ``CEILING`` of its blocks, and the first layer that sees the input is left
alone. Zero blocks pack to almost nothing in a package. Without training afterwards this costs accuracy: the
prover says how much.
"""

from __future__ import annotations

import numpy as np

from fleetui.workshop.graph.ir import Array, Value
from fleetui.workshop.optimise import Altered
from fleetui.workshop.optimise.weights import Weight, weights
from fleetui.workshop.options import Optimise
from fleetui.workshop.progress import Progress
from fleetui.workshop.target import Target

CEILING = 0.95


def apply(altered: Altered, wish: Optimise, target: Target, progress: Progress) -> None:
    graph = altered.graph
    block = wish.block or max(4, target.lanes())
    taken = list({id(w.value): w for w in weights(graph, ("conv", "dense"))}.values())
    if len(taken) > 2:
        taken = taken[1:]
    if not taken:
        altered.warnings.append("there are no weights large enough to prune")
        return
    strengths = []
    for number, weight in enumerate(taken):
        progress.step(number, len(taken), weight.node.source or weight.node.op)
        strengths.append(_strength(weight, block))
    bar = _bar(strengths, wish.prune)
    zeros = total = 0
    for weight, strength in zip(taken, strengths, strict=True):
        own = min(bar, float(np.quantile(strength, CEILING)))
        pruned, gone = _without(weight, strength <= own, block)
        fresh = Value(f"{weight.value.name}.pruned", weight.value.shape, "float32", pruned)
        for node in graph.nodes:
            node.inputs = [fresh if v is weight.value else v for v in node.inputs]
        zeros, total = zeros + gone, total + weight.value.size
    altered.details["pruned"] = {"block": block, "weights": total, "zero": zeros, "share": zeros / total}
    if zeros / total < wish.prune - 0.05:
        altered.warnings.append(f"{zeros / total:.0%} of the weights could be pruned, not {wish.prune:.0%}")


def _blocks(data: Array, axis: int, block: int) -> Array:
    """Rows of ``block`` neighbouring output channels, the last one of a row filled up with zeros."""
    rows = np.moveaxis(data, axis, -1)
    count = -(-rows.shape[-1] // block)
    padded = np.zeros((*rows.shape[:-1], count * block), np.float32)
    padded[..., : rows.shape[-1]] = rows
    return padded.reshape(*rows.shape[:-1], count, block)


def _strength(weight: Weight, block: int) -> Array:
    """Mean square of each block relative to its layer's, so that layers can be compared."""
    assert weight.value.data is not None
    power = np.square(_blocks(weight.value.data, weight.channels, block)).mean(axis=-1)
    return power / max(float(power.mean()), 1e-30)


def _bar(strengths: list[Array], share: float) -> float:
    return float(np.quantile(np.concatenate([s.ravel() for s in strengths]), share))


def _without(weight: Weight, weak: Array, block: int) -> tuple[Array, int]:
    data = weight.value.data
    assert data is not None
    blocks = _blocks(data, weight.channels, block)
    blocks[weak] = 0.0
    shape = np.moveaxis(data, weight.channels, -1).shape
    pruned = blocks.reshape(*shape[:-1], -1)[..., : shape[-1]]
    fresh = np.ascontiguousarray(np.moveaxis(pruned, -1, weight.channels)).astype(np.float32)
    return fresh, int((fresh == 0).sum())
