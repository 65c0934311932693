"""Passes over the graph, and the two stages of the pipeline they make up.

``simplify`` brings a graph as a frontend leaves it into its plainest form: constants folded, algebra done, patterns
recognised. ``lay_out`` moves transposes to where they cancel. Between the two the pipeline may quantise or prune.
Neither changes what is computed, but for the last bits of floating-point numbers.
"""

from __future__ import annotations

from fleetui.workshop.graph.ir import Graph
from fleetui.workshop.graph.passes.absorb import ABSORB
from fleetui.workshop.graph.passes.activations import recognise_activations
from fleetui.workshop.graph.passes.attention import ATTENTION
from fleetui.workshop.graph.passes.fold import FOLD, common_subexpressions
from fleetui.workshop.graph.passes.layout import move_transposes
from fleetui.workshop.graph.passes.leading import LEADING
from fleetui.workshop.graph.passes.moves import MOVES
from fleetui.workshop.graph.passes.patterns import PATTERNS
from fleetui.workshop.graph.passes.report import GraphReport, graph_report
from fleetui.workshop.graph.passes.rewrite import merge, run
from fleetui.workshop.graph.passes.simplify import LAST, SIMPLIFY
from fleetui.workshop.graph.passes.upsample import UPSAMPLE
from fleetui.workshop.progress import Progress

ROUNDS = 12
"""More are never needed; a bound all the same."""

FIRST = merge(FOLD, SIMPLIFY, MOVES, PATTERNS)
"""Without what would tear a pattern apart: a factor of an activation belongs to it, not to the next layer."""
PLAIN = merge(FOLD, SIMPLIFY, MOVES, ABSORB, LEADING)
ALL = merge(FOLD, SIMPLIFY, MOVES, PATTERNS, ATTENTION, ABSORB, LEADING)
FINAL = merge(PLAIN, LAST, UPSAMPLE)


def simplify(graph: Graph, progress: Progress | None = None) -> int:
    """Fold, simplify and recognise until nothing changes. Returns the number of changes."""
    progress = progress or Progress()
    total = 0
    for turn in range(ROUNDS):
        progress.step(turn, ROUNDS, f"{len(graph.nodes)} operators")
        changes = run(graph, ALL if turn else FIRST, check=progress.check)
        changes += common_subexpressions(graph)
        changes += recognise_activations(graph)
        total += changes
        if turn and not changes:
            break
    return total


def lay_out(graph: Graph, progress: Progress | None = None) -> int:
    """Move transposes to where they cancel, and simplify what that has brought together."""
    progress = progress or Progress()
    progress.step(0, 2, f"{sum(node.op == 'transpose' for node in graph.nodes)} transposes")
    total = common_subexpressions(graph)
    total += move_transposes(graph, PLAIN, progress.check, widen=False)
    progress.step(1, 2, f"{sum(node.op == 'transpose' for node in graph.nodes)} transposes")
    for _ in range(ROUNDS):
        changes = run(graph, FINAL, check=progress.check, widen=False)
        changes += common_subexpressions(graph)
        changes += recognise_activations(graph)
        total += changes
        if not changes:
            break
    return total


__all__ = ["GraphReport", "graph_report", "lay_out", "simplify"]
