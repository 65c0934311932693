"""The plain form: what holds together, what is refused in one sentence, and the archive."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from fleetui.workshop.errors import LimitError, ModelError, ShapeError, WorkshopError
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import run
from fleetui.workshop.graph.ops import flops, infer
from fleetui.workshop.trees import archive, cutforest
from fleetui.workshop.trees.ensemble import Aggregate, Ensemble, Post, Transform, make
from fleetui.workshop.trees.reference import evaluate
from tests.helpers.trees import graph_of, grown, rows_for


def parts(e: Ensemble) -> dict[str, Any]:
    found = {f.name: getattr(e, f.name) for f in fields(e) if f.name != "depths"}
    return {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in found.items()}


SMALL = parts(grown(1, trees=2, depth=2, stop=0.0))


def broken(**changes: Any) -> Ensemble:
    return make(**{**SMALL, **changes})


def changed(name: str, index: int, value: Any) -> Any:
    array = SMALL[name].copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"left": changed("left", 0, 0)}, "two ways"),
        ({"right": changed("right", 0, int(SMALL["left"][0]))}, "two ways"),
        ({"roots": np.array([0, 0])}, "two ways"),
        ({"left": changed("left", 0, 10**6)}, "child"),
        ({"left": changed("left", 0, -5)}, "child"),
        ({"roots": np.array([0, 99])}, "root"),
        ({"feature": changed("feature", 0, 6)}, "feature"),
        ({"leaf": changed("leaf", int(np.argmax(SMALL["leaf"] >= 0)), 99)}, "no value"),
        ({"leaf": SMALL["leaf"][:-1]}, "entries"),
        ({"column": np.array([0, 5])}, "output"),
        ({"missing": changed("missing", 0, 7)}, "missing"),
        ({"values": np.full_like(SMALL["values"], np.nan)}, "finite"),
        ({"base": np.array([np.inf])}, "finite"),
        ({"divisor": 0.0}, "finite"),
        ({"outputs": 0}, "outputs"),
        ({"feature": SMALL["feature"].astype(float)}, "whole numbers"),
        ({"aggregate": Aggregate.MAX, "outputs": 2, "base": np.zeros(2)}, "several outputs"),
        ({"posts": (Post(Transform.ARGMAX, labels=(1.0,)),)}, "classes"),
        ({"outputs": 2, "base": np.zeros(2), "posts": (Post(Transform.PAIR),)}, "pair"),
    ],
)
def test_what_does_not_hold_together_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        broken(**changes)


def test_counts_beyond_all_measure_are_refused_before_anything_is_made() -> None:
    with pytest.raises(LimitError, match="features"):
        broken(features=10**9)
    with pytest.raises(LimitError, match="outputs"):
        broken(outputs=10**9)


def test_a_tree_deeper_than_the_ceiling_is_refused() -> None:
    count = 5000
    inner = np.arange(count)
    with pytest.raises(LimitError, match="deeper"):
        make(
            features=1, outputs=1, roots=np.array([0]), column=np.array([0]), base=np.zeros(1),
            feature=np.concatenate([np.zeros(count, int), np.full(count + 1, -1)]),
            threshold=np.zeros(2 * count + 1), strict=np.zeros(2 * count + 1, bool),
            left=np.concatenate([inner + 1, np.zeros(count + 1, int)]),
            right=np.concatenate([inner + count + 1, np.zeros(count + 1, int)]),
            missing=np.zeros(2 * count + 1, int), default_left=np.zeros(2 * count + 1, bool),
            leaf=np.concatenate([np.full(count, -1), np.zeros(count + 1, int)]), values=np.zeros((1, 1)),
        )  # fmt: skip


def test_reference_by_hand() -> None:
    """One tree: x0 < 1 ? (x1 <= 2 or missing ? 10 : 20) : 30."""
    e = make(
        features=2, outputs=1, roots=np.array([0]), feature=np.array([0, 1, -1, -1, -1]),
        threshold=np.array([1.0, 2.0, 0, 0, 0]), strict=np.array([True, False, False, False, False]),
        left=np.array([1, 2, 0, 0, 0]), right=np.array([4, 3, 0, 0, 0]), missing=np.zeros(5, int),
        default_left=np.array([False, True, False, False, False]), leaf=np.array([-1, -1, 0, 1, 2]),
        values=np.array([[10.0], [20.0], [30.0]], np.float32), column=np.array([0]), base=np.array([0.5]),
        flat=True, posts=(Post(Transform.ABOVE, "int64", a=15.0, labels=(4, 5)),),
    )  # fmt: skip
    nan = np.nan
    x = np.array([[0, 2], [0, 2.1], [1, 0], [nan, 0], [0, nan], [np.inf, 0], [-np.inf, np.inf]], np.float32)
    scores, labels = evaluate(e, x)
    assert scores.tolist() == [10.5, 20.5, 30.5, 30.5, 10.5, 30.5, 20.5]
    assert labels.tolist() == [4, 5, 5, 5, 4, 5, 5]


def test_primitive_says_what_comes_out() -> None:
    e = grown(3, outputs=3, posts=(Post(Transform.ARGMAX, "int64", labels=(0, 1, 2)),))
    graph = graph_of(e, 5)
    node = graph.nodes[0]
    assert infer("trees", node.inputs, node.attrs) == [((5, 3), "float32"), ((5,), "int64")]
    assert flops("trees", node.inputs, [], node.attrs) > 5 * e.trees
    b = Builder("wrong")
    with pytest.raises(ShapeError, match="6 features"):
        b.op("trees", b.input("x", (5, 4), "float32"), ensemble=e)
    with pytest.raises(ShapeError, match="int64"):
        b.op("trees", b.input("z", (5, 6), "int64"), ensemble=e)


# ---------------------------------------------------------------- the archive


def test_archive_gives_back_the_same_ensemble() -> None:
    e = grown(4, categories=40, outputs=2, missing=(0, 1, 2), posts=(Post(Transform.SOFTMAX, divisor=2.0),))
    again = archive.load(json.loads(json.dumps(archive.dump(e))))
    x = rows_for(e, 50)
    for have, want in zip(evaluate(again, x), evaluate(e, x), strict=True):
        np.testing.assert_array_equal(have, want)


def test_damaged_archives_end_in_a_sentence() -> None:
    text = json.dumps(archive.dump(grown(5, categories=20, posts=(Post(Transform.SIGMOID),))))
    rng = np.random.default_rng(0)
    whole = json.loads(text)
    refused = 0
    for _ in range(300):
        entry = json.loads(text)
        key = str(rng.choice(list(whole)))
        wrong: list[Any] = [None, -1, 10**12, "x", [], {}, {"dtype": "<f8", "shape": [10**9], "data": ""}, 1e400]
        entry[key] = wrong[int(rng.integers(len(wrong)))]
        try:
            archive.load(entry)
        except WorkshopError:
            refused += 1
    assert refused > 200


# ---------------------------------------------------------------- random-cut forests


def test_cut_forest_finds_what_is_apart() -> None:
    rng = np.random.default_rng(2)
    data = np.concatenate([rng.normal(size=(400, 3)), [[8.0, 8.0, 8.0]]]).astype(np.float32)
    e = cutforest.build(data, trees=40, sample=128, seed=1)
    graph = graph_of(e, 3)
    scores = run(graph, {"x": np.array([[0, 0, 0], [2.5, -2.5, 2], [8, 8, 8]], np.float32)})["y0"]
    assert scores[0] < scores[1] < scores[2]
    assert scores[0] < 8
    assert scores[2] > 20
    same = cutforest.build(data, trees=40, sample=128, seed=1)
    np.testing.assert_array_equal(same.threshold, e.threshold)


def test_cut_forest_score_by_hand() -> None:
    """Four rows, three of them equal: one cut, and the lone row displaces three."""
    data = np.array([[0.0], [0.0], [0.0], [1.0]])
    e = cutforest.build(data, trees=1, sample=4, seed=0)
    lone, others = evaluate(e, np.array([[1.0], [0.0]], np.float32))[0]
    assert (lone, others) == (3.0, pytest.approx(1 / 3))


def test_cut_forest_refuses_what_it_cannot_use() -> None:
    for data in (np.zeros((1, 2)), np.array([[1.0, np.nan], [1.0, 2.0]]), np.zeros(4)):
        with pytest.raises(ShapeError, match="random-cut forest"):
            cutforest.build(data)
