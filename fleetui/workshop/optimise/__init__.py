"""Smaller and faster forms of a graph: compact weights, 8-bit arithmetic, pruning. The prover measures each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fleetui.workshop.graph.ir import Graph
from fleetui.workshop.options import Optimise, Options, Weights
from fleetui.workshop.progress import Progress
from fleetui.workshop.target import Target

if TYPE_CHECKING:
    from fleetui.workshop.prove import Prover


@dataclass(slots=True)
class Altered:
    """A graph in another form, and what a person should know about it."""

    graph: Graph
    warnings: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def apply(
    graph: Graph, wish: Optimise, target: Target, options: Options, prover: Prover, progress: Progress
) -> Altered:
    """A new graph in the wished form, of one that is simplified already; the given one stays as it is."""
    from fleetui.workshop.optimise import compact, integer, prune

    altered = Altered(graph.copy())
    if wish == Optimise():
        return altered
    if wish.prune:
        prune.apply(altered, wish, target, progress)
    if wish.weights in {Weights.FP16, Weights.W8, Weights.W4}:
        compact.apply(altered, wish.weights, progress)
    elif wish.weights is Weights.INT8:
        integer.apply(altered, target, options, prover, progress)
    return altered
