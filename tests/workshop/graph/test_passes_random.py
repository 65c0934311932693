"""Random graphs through every pass: they hold together and compute what they did."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings

from fleetui.workshop.graph.ir import Graph
from fleetui.workshop.graph.passes import PLAIN, lay_out, simplify
from fleetui.workshop.graph.passes.absorb import absorb
from fleetui.workshop.graph.passes.activations import recognise_activations
from fleetui.workshop.graph.passes.fold import common_subexpressions, fold_constants
from fleetui.workshop.graph.passes.layout import move_transposes, moved_bytes
from fleetui.workshop.graph.passes.rewrite import run
from fleetui.workshop.graph.passes.simplify import simplify_algebra
from tests.helpers.graphs import graphs, same_results

random_graphs = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.mark.parametrize(
    "one",
    [fold_constants, common_subexpressions, simplify_algebra, absorb, recognise_activations, simplify, lay_out],
)
def test_a_pass_keeps_what_is_computed(one: Callable[[Graph], int]) -> None:
    @random_graphs
    @given(graphs())
    def check(graph: Graph) -> None:
        before = graph.copy()
        one(graph)
        same_results(before, graph)

    check()


@settings(random_graphs, max_examples=120)
@given(graphs())
def test_the_whole_pipeline_keeps_what_is_computed_and_comes_to_rest(graph: Graph) -> None:
    before = graph.copy()
    simplify(graph)
    lay_out(graph)
    same_results(before, graph)
    assert lay_out(graph) == 0


@settings(random_graphs, max_examples=120)
@given(graphs())
def test_bytes_moved_by_transposes_never_rise(graph: Graph) -> None:
    run(graph, PLAIN)
    before = moved_bytes(graph)
    move_transposes(graph, PLAIN)
    graph.verify()
    assert moved_bytes(graph) <= before
