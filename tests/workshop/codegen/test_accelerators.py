"""A pretend accelerator, written in C, takes the chains it knows and leaves the rest to our kernels."""

from __future__ import annotations

import numpy as np
import pytest

from fleetui.common.domain.errors import BugError
from fleetui.common.runtime import Model, RunError
from fleetui.workshop import pipeline, targets
from fleetui.workshop.codegen.accelerators import GROUP, Foreign, Offer, installed
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.kernel import Arg, Kernel
from tests.helpers.compiled import feeds_of, symbols, wanted

SOURCE = """
#include <stdint.h>
/* relu(a + b), counted in steps of the "device"; gives up on numbers it cannot represent. */
int pretend_add_relu(const float *a, const float *b, float *out, int32_t lo, int32_t hi) {
    for (int32_t i = lo; i < hi; i++) {
        float sum = a[i] + b[i];
        if (sum != sum) return 1;
        out[i] = sum > 0 ? sum : 0;
    }
    return 0;
}
"""


class Pretend:
    """Takes add followed by relu where nobody else wants the sum."""

    name = "pretend"

    def take(self, graph, groups, target):
        users = graph.consumers()
        offers = []
        for node in graph.nodes:
            if node.op != "add" or node.input(0).shape != node.input(1).shape or node.output in graph.outputs:
                continue
            behind = users.get(node.output, [])
            if len(behind) == 1 and behind[0].op == "relu":
                offers.append(Offer([node, behind[0]], self.lower))
        return offers

    def lower(self, group):
        add, relu = group.nodes
        size = relu.output.size
        args = [Arg(add.input(0)), Arg(add.input(1)), Arg(relu.output)]
        foreign = Foreign("pretend_add_relu", SOURCE, fallible=True)
        return [Kernel(f"pretend {size}", foreign, args, [2], extent=size, grain=1024, flops=2 * size)]


def graph_of(size=256):
    b = Builder("mixed")
    x, y = b.input("x", (1, size), "float32"), b.input("y", (1, size), "float32")
    first = b.op("relu", b.op("add", b.op("tanh", x), y))
    second = b.op("relu", b.op("add", b.op("sigmoid", first), first))
    b.output(b.op("mul", second, y), "z")
    return b.finish()


@pytest.fixture(scope="module")
def host():
    return targets.find("host")


def test_it_computes_what_it_takes_and_the_cpu_the_rest(tmp_path, host):
    graph = graph_of()
    with_it = pipeline.build_variant(graph, host, tmp_path / "a", plugins=[Pretend()])
    alone = pipeline.build_variant(graph, host, tmp_path / "b", plugins=[])
    assert with_it.record["accelerators"] == {"pretend": 2}
    assert alone.record["accelerators"] == {}
    assert [step["op"] for step in with_it.steps].count("add+relu") == 2
    assert len(with_it.steps) > 2
    assert symbols(tmp_path / "a" / "kernels").exported == symbols(tmp_path / "b" / "kernels").exported
    feeds = feeds_of(graph)
    want = wanted(graph, feeds)["z"]
    for variant in (with_it, alone):
        np.testing.assert_allclose(Model.load(variant.dir).run(feeds)["z"], want, rtol=1e-5, atol=1e-6)


def test_when_it_gives_up_the_call_says_so(tmp_path, host):
    graph = graph_of(16)
    model = Model.load(pipeline.build_variant(graph, host, tmp_path / "v", plugins=[Pretend()]).dir)
    feeds = feeds_of(graph)
    feeds["y"][0, 3] = np.nan
    with pytest.raises(RunError, match="A kernel of the model gave up") as caught:
        model.run(feeds)
    assert caught.value.code == 5


def test_a_plugin_is_found_by_its_entry_point(monkeypatch):
    import importlib.metadata

    point = importlib.metadata.EntryPoint("pretend", f"{__name__}:Pretend", GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if group == GROUP else [])
    assert [plugin.name for plugin in installed()] == ["pretend"]


def test_two_that_want_the_same_nodes(tmp_path, host):
    """The first one has them."""

    class Late(Pretend):
        name = "late"

    variant = pipeline.build_variant(graph_of(16), host, tmp_path / "v", plugins=[Pretend(), Late()])
    assert variant.record["accelerators"] == {"pretend": 2}


def test_nodes_that_wait_for_one_another_are_a_fault_of_the_plugin(tmp_path, host):
    class Greedy(Pretend):
        def take(self, graph, groups, target):
            chosen = [n for n in graph.nodes if n.op in {"tanh", "mul"}]
            return [Offer(chosen, self.lower)]

    with pytest.raises(BugError, match="wait for one another"):
        pipeline.build_variant(graph_of(16), host, tmp_path / "v", plugins=[Greedy()])
