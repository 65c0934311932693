"""Cases of the ``onnx`` package through the passes: what passed before still does."""

from __future__ import annotations

from fleetui.workshop.graph import ir
from fleetui.workshop.graph.ir import Graph
from fleetui.workshop.graph.passes import lay_out, simplify
from tests.helpers.onnx_backend import Feeds, run_case, sample

SAMPLE = 120


def _laid_out(graph: Graph, feeds: Feeds) -> Feeds:
    graph = graph.copy()
    simplify(graph)
    lay_out(graph)
    graph.verify()
    return ir.run(graph, feeds)


def test_simplified_and_laid_out_cases_still_pass() -> None:
    outcomes = [run_case(case, _laid_out) for case in sample(SAMPLE)]
    faults = [f"{o.verdict} {o.name}: {o.sentence}" for o in outcomes if o.verdict in {"wrong", "crashed"}]
    assert not faults, "\n".join(faults)
    assert sum(o.verdict in {"passed", "noisy"} for o in outcomes) >= 0.85 * SAMPLE
