"""How plans are chosen: what the cost model prefers, and that weights are packed as the kernels read them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from fleetui.workshop.schedules import conv, conv_direct, conv_plan, fuse, winograd, winograd_transforms
from fleetui.workshop.schedules.conv_depthwise import Depthwise
from fleetui.workshop.schedules.conv_direct import Direct
from fleetui.workshop.schedules.conv_plan import Wish
from fleetui.workshop.schedules.conv_shape import ConvShape, pack, panels
from fleetui.workshop.schedules.cost import machine
from fleetui.workshop.schedules.rules import Context
from fleetui.workshop.schedules.winograd import Winograd
from fleetui.workshop.target import Target
from tests.helpers.conv import Case, graph_of

SERVER = Target(
    "server", "", "", "", arch="x86_64", vector=64, registers=32, l1=48 << 10, l2=1 << 20, l3=32 << 20,
    gflops=166.0, bandwidth=2e10, mhz=2600, memory=16 << 30,
)  # fmt: skip
DESKTOP = replace(SERVER, vector=32, registers=16, gflops=83.0, l2=512 << 10)
BOARD = replace(SERVER, arch="aarch64", vector=16, l1=32 << 10, l3=0, gflops=12.0, bandwidth=4e9, mhz=1500)
MICRO = replace(
    BOARD, arch="thumbv7em", vector=0, registers=16, l1=16 << 10, l2=0, gflops=0.2, mhz=200, static=True
)
TARGETS = [SERVER, DESKTOP, BOARD, MICRO]

MIDDLE = ConvShape(1, 56, 56, 64, 64, 1, 3, 3, top=1, bottom=1, left=1, right=1)
POINT = ConvShape(1, 1, 3136, 64, 256, 1, 1, 1)
FIRST = ConvShape(1, 224, 224, 3, 64, 1, 7, 7, 2, 2, top=3, bottom=3, left=3, right=3)
DEEP = ConvShape(1, 28, 28, 1, 1, 144, 3, 3, top=1, bottom=1, left=1, right=1)
SHUFFLE = ConvShape(1, 28, 28, 17, 68, 4, 1, 1)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.arch + str(t.vector))
@pytest.mark.parametrize("shape", [MIDDLE, POINT, FIRST, DEEP, SHUFFLE], ids=lambda s: s.key)
def test_every_target_has_a_sound_plan(target: Target, shape: ConvShape) -> None:
    m = machine(target)
    for wish in (Wish(), Wish(threads=4), Wish(cold=True)):
        found = conv_plan.candidates(shape, m, wish)
        assert found
        costs = [conv_plan.cost(shape, plan, m, wish) for plan in found]
        assert costs == sorted(costs)
        assert costs[0] >= 0.9 * shape.flops / 2 / m.lanes / m.multiply / 4.1, "faster than any transform allows"
        best = found[0]
        block = best.block if isinstance(best, Winograd) else best.pixels
        assert block * best.vectors + best.vectors + 1 <= max(m.registers, 3)
        assert conv_plan.revive(conv_plan.record(best), shape, wish) == best


def test_the_way_suits_the_shape() -> None:
    m = machine(SERVER)
    assert isinstance(conv_plan.choose(MIDDLE, m, Wish()), Winograd)
    assert isinstance(conv_plan.choose(POINT, m, Wish()), Direct)
    assert isinstance(conv_plan.choose(FIRST, m, Wish()), Direct)
    assert isinstance(conv_plan.choose(DEEP, m, Wish()), Depthwise)


def test_weights_grow_only_as_far_as_allowed() -> None:
    m = machine(SERVER)
    plain = 3 * 3 * MIDDLE.c * MIDDLE.m
    for growth in (1.0, 2.0, 4.5):
        plan = conv_plan.choose(MIDDLE, m, Wish(growth=growth))
        size = winograd.packed_size(MIDDLE, plan, m.lanes) if isinstance(plan, Winograd) else plain
        assert size <= growth * plain
    graph = graph_of([Case(h=56, w=56, c=64, m=64)])
    group = fuse.partition(graph, SERVER)[0]
    assert isinstance(conv.pick(group, Context(SERVER, graph)), Winograd)
    assert isinstance(conv.pick(group, Context(SERVER, graph, limits={"winograd": 1.0})), Direct)
    assert isinstance(conv.pick(group, Context(MICRO, graph)), Direct)


def test_threads_get_enough_tasks() -> None:
    m = machine(SERVER)
    for shape in (MIDDLE, POINT, ConvShape(1, 14, 14, 512, 512, 1, 3, 3, top=1, bottom=1, left=1, right=1)):
        plan = conv_plan.choose(shape, m, Wish(threads=4))
        tasks = (
            winograd.extent(shape, plan) if isinstance(plan, Winograd) else conv_direct.extent(shape, plan, m.lanes)
        )
        assert tasks >= 4, (shape.key, plan)


def test_packed_weights_are_found_where_kernels_look() -> None:
    shape = ConvShape(1, 5, 5, 3, 21, 2, 2, 3)
    weights = np.arange(2 * 3 * 3 * 42, dtype=np.float32).reshape(2, 3, 3, 42)
    packed = pack(weights, shape, 2, 8)
    cut = panels(shape.m, 2, 8)
    assert cut == [(0, 2, 16), (16, 1, 5)]
    group_size = 2 * 3 * 3 * 24
    first = packed[group_size : group_size + 2 * 3 * 3 * 16].reshape(2, 3, 3, 16)
    np.testing.assert_array_equal(first, weights[..., 21:37])
    last = packed[2 * group_size - 2 * 3 * 3 * 8 :].reshape(2, 3, 3, 8)
    np.testing.assert_array_equal(last[..., :5], weights[..., 37:])
    assert not last[..., 5:].any()


@pytest.mark.parametrize("tile", sorted(winograd_transforms.POINTS))
def test_transforms_are_exact(tile: int) -> None:
    """In rational numbers, so that not a single rounding hides a wrong coefficient."""
    side = tile + 2
    data = [Fraction(n * n + 3 * n - 7, 5) for n in range(side)]
    taps = [Fraction(2), Fraction(-3, 7), Fraction(11, 13)]

    def times(matrix, vector):
        return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]

    spread = times(winograd_transforms.weight_matrix(tile), taps)
    moved = times(winograd_transforms.input_matrix(tile), data)
    out = times(winograd_transforms.output_matrix(tile), [a * b for a, b in zip(spread, moved, strict=True)])
    assert out == [sum(data[i + k] * taps[k] for k in range(3)) for i in range(tile)]


@pytest.mark.parametrize("pixels", [1, 3, 7, 16])
@pytest.mark.parametrize(
    "shape",
    [
        MIDDLE,
        ConvShape(1, 4, 9, 1, 1, 1, 3, 5, 1, 2, 1, 2, 0, 0, 4, 3),
        ConvShape(1, 1, 2, 1, 1, 1, 1, 5, left=4, right=4),
    ],
    ids=lambda s: s.key,
)
def test_blocks_cover_a_row_once_and_interior_ones_need_no_border(shape: ConvShape, pixels: int) -> None:
    row = conv_direct.blocks(shape, pixels)
    inner = [conv_direct.Block(i * pixels, pixels, interior=True) for i in range(row.first, row.last)]
    every = [*row.before, *inner, *row.after]
    seen = [x for block in every for x in range(block.start, block.start + block.count)]
    assert seen == list(range(shape.ow))
    for block in every:
        reach = [
            x * shape.sw + kx * shape.dw - shape.left
            for x in range(block.start, block.start + block.count)
            for kx in range(shape.kw)
        ]
        assert not block.interior or all(0 <= at < shape.w for at in reach)


def test_plans_from_elsewhere_are_looked_at_before_they_are_used() -> None:
    good = conv_plan.record(Direct(7, 2, 2, 8))
    assert conv_plan.revive(good, MIDDLE, Wish()) == Direct(7, 2, 2, 8)
    bad = [
        {**good, "kind": "fast"},
        {**good, "pixels": 0},
        {**good, "pixels": -3},
        {**good, "pixels": 1e9},
        {**good, "pixels": "7"},
        {**good, "vectors": 400},
        {**good, "colour": 1},
        {"kind": "direct"},
        {},
        conv_plan.record(Winograd(6, 7, 2, 14)),
        conv_plan.record(Winograd(4, 7, 2, 15)),
        conv_plan.record(Depthwise(7, 2)),
    ]
    for data in bad:
        assert conv_plan.revive(data, MIDDLE, Wish()) is None, data
    assert conv_plan.revive(conv_plan.record(Winograd(4, 7, 2, 14)), MIDDLE, Wish(growth=2.0)) is None
    assert conv_plan.revive(conv_plan.record(Winograd(4, 7, 2, 14)), FIRST, Wish()) is None
