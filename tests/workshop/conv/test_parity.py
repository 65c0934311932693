"""Every way to compute a convolution against numpy: shapes, borders, tails, groups, chains, widths of vectors."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from fleetui.workshop.graph.build import Builder
from fleetui.workshop.kernel import Placement
from fleetui.workshop.schedules import conv, fuse
from fleetui.workshop.schedules.conv_depthwise import Depthwise
from fleetui.workshop.schedules.conv_direct import Direct
from fleetui.workshop.schedules.rules import Context
from fleetui.workshop.schedules.winograd import Winograd
from fleetui.workshop.target import Target
from fleetui.workshop.targets.host import host
from tests.helpers.conv import Case, by, graph_of
from tests.helpers.kernels import check, random_feeds, using

RULE = using(*conv.RULES)

DIRECT = [
    Case(c=5, m=37),
    Case(n=2, strides=(2, 2), m=20, chain=("residual", "relu")),
    Case(h=12, w=31, kernel=(5, 3), pads=((2, 2), (1, 1)), dilations=(1, 2)),
    Case(h=17, w=18, kernel=(3, 3), pads=((4, 4), (4, 4)), dilations=(4, 4), m=7),
    Case(kernel=(7, 7), strides=(2, 2), pads=((3, 3), (3, 3)), h=23, w=40, c=3, m=24, first=True),
    Case(n=2, kernel=(1, 1), pads=((0, 0), (0, 0)), m=36, chain=("scale", "residual", "silu")),
    Case(kernel=(1, 1), strides=(2, 2), pads=((0, 0), (0, 0)), h=14, w=15),
    Case(kernel=(2, 2), strides=(3, 3), pads=((0, 1), (0, 2)), bias=False),
    Case(groups=4, c=20, m=68, kernel=(1, 1), pads=((0, 0), (0, 0))),
    Case(groups=3, c=12, m=27, n=2, chain=("relu",)),
    Case(kernel=(5,), strides=(2,), pads=((2, 2),), dilations=(1,), w=61, n=2),
    Case(kernel=(9,), strides=(1,), pads=((8, 0),), dilations=(1,), w=100, c=3, m=5),
    Case(kernel=(3, 3), pads=((3, 0), (0, 5)), h=5, w=6),
    Case(kernel=(3, 3), h=1, w=1, c=40, m=40),
]

DEPTHWISE = [
    Case(c=20, m=20, groups=20),
    Case(c=37, m=37, groups=37, n=2, strides=(2, 2), h=15, w=16, chain=("hard_swish",)),
    Case(c=8, m=16, groups=8, chain=("residual",)),
    Case(c=16, m=16, groups=16, kernel=(5, 5), pads=((2, 2), (2, 2)), h=6, w=30, bias=False),
    Case(c=33, m=33, groups=33, kernel=(7, 7), pads=((3, 3), (3, 3))),
    Case(c=9, m=9, groups=9, kernel=(3, 3), dilations=(2, 2), pads=((2, 2), (2, 2)), n=2),
    Case(c=24, m=24, groups=24, kernel=(9,), strides=(1,), pads=((4, 4),), dilations=(1,), w=50),
]

WINOGRAD = [
    Case(h=12, w=12),
    Case(n=2, h=13, w=11, c=19, m=37, chain=("residual", "relu")),
    Case(h=14, w=9, pads=((0, 0), (2, 0)), c=3, m=50, bias=False),
    Case(h=5, w=30, c=33, m=16, chain=("scale", "silu")),
]


def without_vectors(target: Target) -> Target:
    return replace(target, name="scalar", cpu="x86-64", features=(), vector=0, registers=16, gflops=4.0)


def narrow(vector: int) -> Target:
    cpu = {16: "x86-64-v2", 32: "x86-64-v3"}[vector]
    return replace(host(), name="narrow", cpu=cpu, features=(), vector=vector, registers=16)


native = pytest.mark.skipif(host().arch != "x86_64", reason="other widths of vectors run on x86-64 only")


def test_the_rule_takes_every_shape() -> None:
    cases = [*DIRECT, *DEPTHWISE, *WINOGRAD]
    graph = graph_of(cases)
    compiled = check(graph, random_feeds(graph), lower=RULE)
    assert len(compiled.kernels) == len(cases)


@pytest.mark.parametrize("plan", [Direct(4, 2, 1, 2, ahead=True), Direct(7, 1, 4, 3, panels_outer=True)])
def test_direct(plan: Direct) -> None:
    graph = graph_of(DIRECT, seed=plan.pixels)
    check(graph, random_feeds(graph), lower=by(lambda _shape, _group: plan))


@pytest.mark.parametrize(
    ("plan", "cases"), [(Depthwise(3, 1, 2), DEPTHWISE[::2]), (Depthwise(5, 2, 4, split=2), DEPTHWISE[1:4])]
)
def test_depthwise(plan: Depthwise, cases: list[Case]) -> None:
    graph = graph_of(cases, seed=plan.pixels)
    check(graph, random_feeds(graph), lower=by(lambda _shape, _group: plan))


@pytest.mark.parametrize(
    ("plan", "cases"),
    [
        (Winograd(2, 5, 2, 10), WINOGRAD[1:]),
        (Winograd(4, 3, 1, 3, parts=2, ahead=True), WINOGRAD[1:]),
        (Winograd(4, 4, 2, 40), WINOGRAD[:2]),
    ],
)
def test_winograd(plan: Winograd, cases: list[Case]) -> None:
    graph = graph_of(cases, seed=plan.block)
    check(graph, random_feeds(graph), lower=by(lambda _shape, _group: plan))


@native
@pytest.mark.parametrize("target", [narrow(16), narrow(32), without_vectors(host())], ids=lambda t: str(t.vector))
def test_any_width_of_vectors(target: Target) -> None:
    cases = [DIRECT[0], DIRECT[1], DIRECT[8], DEPTHWISE[0], DEPTHWISE[2], WINOGRAD[0]]
    graph = graph_of(cases)
    check(graph, random_feeds(graph), lower=RULE, target=target)


@pytest.mark.parametrize("seed", range(4))
def test_random_shapes(seed: int) -> None:
    """Anything that fits together, by whatever plans come out of the list of candidates."""
    dice = random.Random(seed)

    def case() -> Case:
        groups = dice.choice([1, 1, 1, 2, 3, 8])
        kernel = dice.randint(1, 4), dice.randint(1, 4)
        dilations = dice.randint(1, 2), dice.randint(1, 2)
        reach = tuple((k - 1) * d for k, d in zip(kernel, dilations, strict=True))
        return Case(
            n=dice.randint(1, 2),
            h=reach[0] + dice.randint(1, 12),
            w=reach[1] + dice.randint(1, 40),
            c=groups * dice.randint(1, 6),
            m=groups * dice.randint(1, 40),
            kernel=kernel,
            strides=(dice.randint(1, 3), dice.randint(1, 3)),
            pads=tuple((dice.randint(0, r), dice.randint(0, r)) for r in reach),
            dilations=dilations,
            groups=groups,
            bias=dice.random() < 0.7,
            chain=tuple(dice.sample(["relu", "residual", "scale"], dice.randint(0, 2))),
        )

    graph = graph_of([case() for _ in range(8)], seed)

    def lower(group, context):
        return conv.lower(group, context, dice.choice(conv.options(group, context)[:40]))

    check(graph, random_feeds(graph, seed), lower=lower, seed=seed + 1)


def test_reads_and_writes_parts_of_a_concatenation() -> None:
    """An output with gaps between its pixels, and an input with gaps; pointwise and not."""
    dice = np.random.default_rng(1)
    b = Builder("parts")
    x = b.input("x", (1, 6, 7, 12), "float32")
    y = b.op("conv", x, b.constant(dice.standard_normal((1, 1, 12, 20)).astype("float32"), "w"), None,
             strides=(1, 1), pads=((0, 0), (0, 0)), dilations=(1, 1), groups=1)  # fmt: skip
    z = b.op("conv", y, b.constant(dice.standard_normal((3, 3, 20, 8)).astype("float32"), "u"), None,
             strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1), groups=1)  # fmt: skip
    for value, name in ((y, "y"), (z, "z")):
        value.name = name
        b.output(value, name)
    graph = b.finish()
    base = Builder("base").input("whole", (1, 6, 7, 40), "float32")
    strides = (6 * 7 * 40, 7 * 40, 40, 1)
    placements = {y: Placement(base, 4, strides), z: Placement(base, 28, strides)}
    check(graph, random_feeds(graph), lower=RULE, placements=placements)


def test_the_transpose_in_front_of_a_first_layer_is_fused() -> None:
    graph = graph_of([Case(c=3, first=True), Case(c=16, first=True)])
    groups = fuse.partition(graph, host())
    assert sorted(len(group.nodes) for group in groups) == [1, 1, 2], "three channels fuse, sixteen do not"
    first = next(group for group in groups if len(group.nodes) == 2)
    assert all(isinstance(plan, Direct) for plan in conv.options(first, Context(host(), graph)))
