"""Graphs of convolutions for tests: many independent ones in one graph, so that they are compiled together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Graph
from fleetui.workshop.kernel import Group, Kernel
from fleetui.workshop.schedules import conv
from fleetui.workshop.schedules.conv_plan import Plan
from fleetui.workshop.schedules.conv_shape import ConvShape
from fleetui.workshop.schedules.rules import Context


@dataclass(frozen=True)
class Case:
    """``chain`` names what follows: relu, silu, residual, scale (a factor per channel)."""

    n: int = 1
    h: int = 9
    w: int = 10
    c: int = 8
    m: int = 16
    kernel: tuple[int, ...] = (3, 3)
    strides: tuple[int, ...] = (1, 1)
    pads: tuple[tuple[int, int], ...] = ((1, 1), (1, 1))
    dilations: tuple[int, ...] = (1, 1)
    groups: int = 1
    bias: bool = True
    chain: tuple[str, ...] = ()
    first: bool = False
    """Behind a transpose of a channel-first picture."""


def graph_of(cases: Sequence[Case], seed: int = 0) -> Graph:
    dice = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray[Any, Any]:
        return dice.standard_normal(shape).astype(np.float32)

    b = Builder("convolutions")
    for number, case in enumerate(cases):
        if case.first:
            x = b.input(f"x{number}", (case.n, case.c, case.h, case.w), "float32")
            x = b.op("transpose", x, perm=(0, 2, 3, 1))
        elif len(case.kernel) == 1:
            x = b.input(f"x{number}", (case.n, case.w, case.c), "float32")
        else:
            x = b.input(f"x{number}", (case.n, case.h, case.w, case.c), "float32")
        weights = b.constant(normal(*case.kernel, case.c // case.groups, case.m), f"w{number}")
        bias = b.constant(normal(case.m), f"b{number}") if case.bias else None
        y = b.op(
            "conv", x, weights, bias,
            strides=case.strides, pads=case.pads, dilations=case.dilations, groups=case.groups,
        )  # fmt: skip
        for link in case.chain:
            if link == "residual":
                y = b.op("add", y, b.input(f"r{number}", y.shape, "float32"))
            elif link == "scale":
                y = b.op("mul", y, b.constant(normal(case.m), f"s{number}"))
            else:
                y = b.op(link, y)
        y.name = b.fresh(f"y{number}")
        b.output(y, y.name)
    return b.finish()


def by(choose: Callable[[ConvShape, Group], Plan]) -> Callable[[Group, Context], list[Kernel]]:
    """Lower every convolution with the plan that ``choose`` makes for its shape."""

    def lower(group: Group, context: Context) -> list[Kernel]:
        assert conv.supported(group)
        return conv.lower(group, context, choose(conv.working_shape(group, context), group))

    return lower
