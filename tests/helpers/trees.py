"""Random ensembles of every kind, and kernels of them compiled and called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Array, Graph
from fleetui.workshop.kernel import Group
from fleetui.workshop.trees.ensemble import Ensemble, make
from fleetui.workshop.trees.rule import RULES
from tests.helpers.kernels import Compiled, using


def grown(
    seed: int,
    *,
    trees: int = 11,
    depth: int = 4,
    features: int = 6,
    outputs: int = 1,
    vectors: bool = False,
    stop: float = 0.2,
    missing: Sequence[int] = (0,),
    categories: int = 0,
    dtype: str = "float32",
    strict: Sequence[bool] = (True,),
    **more: Any,
) -> Ensemble:
    """Random trees. ``stop``: how likely a node above ``depth`` is a leaf; a feature in three has categories."""
    rng = np.random.default_rng(seed)
    nodes: list[list[Any]] = []
    roots: list[int] = []
    sets: list[Array] = []
    leaves = 0
    for _ in range(trees):
        roots.append(len(nodes))
        nodes.append([])
        waiting = [(len(nodes) - 1, 0)]
        while waiting:
            at, level = waiting.pop()
            if level >= depth or rng.random() < stop:
                nodes[at] = [-1, 0.0, False, 0, 0, 0, False, leaves, -1, False]
                leaves += 1
                continue
            feature = int(rng.integers(features))
            threshold = float(rng.choice([rng.normal(), 0.0, round(rng.normal()), -0.0, np.inf]))
            members = -1
            if categories and feature % 3 == 0:
                members = len(sets)
                sets.append(rng.integers(0, 1 << 32, -(-categories // 32), dtype=np.uint64).astype(np.uint32))
            left, right = len(nodes), len(nodes) + 1
            nodes += [[], []]
            nodes[at] = [
                feature, threshold, bool(rng.choice(strict)), left, right, int(rng.choice(missing)),
                bool(rng.integers(2)), -1, members, bool(rng.integers(2)),
            ]  # fmt: skip
            waiting += [(left, level + 1), (right, level + 1)]
    names = ("feature", "threshold", "strict", "left", "right", "missing", "default_left", "leaf")
    columns = list(zip(*nodes, strict=True))
    width = outputs if vectors else 1
    return make(
        features=features, outputs=outputs, roots=np.array(roots),
        **{name: np.array(column) for name, column in zip(names, columns, strict=False)},
        members=np.array(columns[8]), inside_left=np.array(columns[9]), sets=tuple(sets),
        values=rng.normal(size=(leaves, width)).astype(dtype), column=np.arange(trees) % outputs if not vectors else
        np.zeros(trees, int), base=rng.normal(size=outputs), **more,
    )  # fmt: skip


def rows_for(e: Ensemble, count: int, seed: int = 0, dtype: str = "float32") -> Array:
    """Rows that meet thresholds, zeros of both signs, infinities, missing values and odd categories."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, e.features))
    pick = rng.random(x.shape)
    known = e.threshold[e.feature >= 0]
    if known.size:
        x = np.where(pick < 0.2, rng.choice(known, x.shape), x)
    x = np.where((pick > 0.2) & (pick < 0.35), rng.integers(-2, 70, x.shape), x)
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-36, -1e-20, -0.5, 3e9, 2.5])
    return np.where(pick > 0.7, rng.choice(odd, x.shape), x).astype(dtype)


def graph_of(e: Ensemble, rows: int, dtype: str = "float32") -> Graph:
    b = Builder("trees")
    x = b.input("x", (rows, e.features), dtype)
    for index, value in enumerate(b.ops("trees", x, ensemble=e)):
        b.output(value, f"y{index}")
    return b.finish()


def computed(
    graph: Graph, feeds: dict[str, Array], seeds: Sequence[int | None] = (None,)
) -> tuple[list[dict[str, Array]], dict[str, Any]]:
    """What the compiled kernel gives for each seed, and its detail. The graph is one node, and names of outputs."""
    nodes = [node for node in graph.nodes if node.op == "trees"]
    group = Group(nodes, nodes[0], list(graph.inputs), list(nodes[0].outputs))
    inner = Graph(graph.name, list(graph.inputs), list(nodes[0].outputs), nodes)
    with Compiled(inner, lower=using(*RULES), groups=[group]) as made:
        made.feed(feeds)
        results = [made.run(seed) for seed in seeds]
        detail = made.kernels[0].detail
    names = {inner.name: outer.name for inner, outer in zip(inner.outputs, graph.outputs, strict=True)}
    return [{names[name]: array for name, array in found.items()} for found in results], detail
