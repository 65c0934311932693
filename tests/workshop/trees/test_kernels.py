"""The kernel of ``trees`` against the reference in numpy: every layout, comparison, aggregate and transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fleetui.workshop.graph.ir import run
from fleetui.workshop.trees import layout
from fleetui.workshop.trees.ensemble import Aggregate, Category, Ensemble, Post, Transform
from tests.helpers.trees import computed, graph_of, grown, rows_for

T = Transform
LABELS = (3, -1, 7)

CASES: dict[str, tuple[Ensemble, str]] = {
    "complete, base first": (
        grown(1, depth=3, stop=0.0, base_first=True, flat=True, posts=(Post(T.SIGMOID, a=2.0, flat=True),)),
        "float32",
    ),
    "linked, both comparisons": (
        grown(2, depth=14, stop=0.3, trees=21, strict=(True, False), posts=(Post(T.EXP), Post(T.AFFINE, a=2, b=1))),
        "float32",
    ),
    "float64 against float32 features": (
        grown(3, depth=5, dtype="float64", compare="float64", strict=(False,), posts=(Post(T.PAIR, "float64"),)),
        "float32",
    ),
    "float64 features": (
        grown(4, depth=9, dtype="float64", compare="float64", missing=(0, 1, 2), strict=(False, True)),
        "float64",
    ),
    "float64 features rounded": (grown(5, depth=3, missing=(0, 1, 2)), "float64"),
    "categories": (
        grown(6, depth=5, categories=60, missing=(0, 1), outputs=3, trees=15, posts=(Post(T.SOFTMAX),)),
        "float32",
    ),
    "categories, cut off, wide keys": (
        grown(7, depth=7, categories=40, dtype="float64", compare="float64", category=Category.TRUNC, outputs=2,
              posts=(Post(T.ARGMAX, "int64", labels=LABELS), Post(T.DIVIDE, "float64"))),
        "float64",
    ),
    "categories, exact": (grown(8, depth=4, categories=33, category=Category.EXACT), "float32"),
    "vectors, complete": (
        grown(9, depth=3, stop=0.0, outputs=3, vectors=True, divisor=11.0,
              posts=(Post(T.ARGMAX, "float32", labels=LABELS),)),
        "float32",
    ),
    "vectors, linked, many outputs": (
        grown(10, depth=12, stop=0.4, outputs=70, vectors=True, dtype="float64",
              posts=(Post(T.SOFTMAX, "float64"), Post(T.SIGNED_SQUARE, "float64", divisor=3.0))),
        "float32",
    ),
    "least": (
        grown(11, aggregate=Aggregate.MIN, posts=(Post(T.ABOVE, "int64", a=-2.0, labels=(4, 9)),)),
        "float32",
    ),
    "greatest": (grown(12, aggregate=Aggregate.MAX, flat=True, posts=(Post(T.LOG1P_EXP, flat=True),)), "float32"),
    "single leaves": (grown(13, depth=0, posts=(Post(T.HALF_POWER, a=3.0, b=-0.5),)), "float32"),
    "one tree": (grown(14, trees=1, depth=2, stop=0.0, posts=(Post(T.COMPLEMENT),)), "float32"),
    "a long thin tree": (grown(15, trees=3, depth=200, stop=0.45), "float32"),
    "more columns than the stack holds": (grown(16, features=3000, trees=300, depth=4, stop=0.0), "float32"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_kernel_gives_what_the_reference_gives(name: str) -> None:
    e, dtype = CASES[name]
    rows = 301  # more than a block, eights and a rest
    graph = graph_of(e, rows, dtype)
    feeds = {"x": rows_for(e, rows, dtype=dtype)}
    want = run(graph, feeds)
    results, detail = computed(graph, feeds, (None, 5))
    for found in results:
        np.testing.assert_array_equal(found["y0"], want["y0"], err_msg=f"{detail}")
        for key, array in want.items():
            assert found[key].dtype == array.dtype
            np.testing.assert_allclose(
                found[key], array, rtol=1e-6 if array.dtype == np.float32 else 1e-13, atol=1e-30
            )


def test_layouts_are_what_they_say() -> None:
    def of(name: str) -> Any:
        e, dtype = CASES[name]
        return layout.lay_out(e, dtype)

    assert of("complete, base first").steps == 3
    assert of("linked, both comparisons").steps == 0
    assert of("float64 features").key == "int64"
    assert of("float64 features rounded").key == "int32"
    assert of("float64 against float32 features").key == "int32"
    assert of("more columns than the stack holds").columns > 1024


def test_one_code_serves_models_of_one_shape() -> None:
    """Thresholds, features and leaves are arguments: retrained, the kernel is the same."""
    from fleetui.workshop.kernel import Group
    from fleetui.workshop.schedules.rules import Context
    from fleetui.workshop.targets.host import host
    from fleetui.workshop.trees.rule import RULES

    keys = set()
    for seed in (1, 2):
        graph = graph_of(grown(seed, depth=3, stop=0.0), 4)
        node = graph.nodes[0]
        group = Group([node], node, graph.inputs, node.outputs)
        keys |= {k.key for k in RULES[0].lower(group, Context(host(), graph))}
    assert len(keys) == 1


def test_keys_order_as_floats_do() -> None:
    values = np.array([-np.inf, -3e38, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 3e38, np.inf], np.float32)
    assert (np.diff(layout.keys_of(values).astype(np.int64)) > 0).all()
    wide = values.astype(np.float64)
    assert (np.diff(layout.keys_of(wide).astype(object)) > 0).all()


def test_calls_of_libm_pass_numbers_as_the_target_does() -> None:
    """A sigmoid on 32-bit Arm with hard floats would otherwise read its argument from the wrong registers."""
    from fleetui.workshop import targets

    assert str(targets.find("beaglebone-black").tvm().attrs["mfloat-abi"]) == "hard"
