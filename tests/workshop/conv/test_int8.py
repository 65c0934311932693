"""Convolutions on bytes: exact integers, whether four products are added by one instruction or not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Graph, Value
from fleetui.workshop.schedules import conv, fuse
from fleetui.workshop.schedules.conv_direct import Direct
from fleetui.workshop.schedules.rules import Context
from fleetui.workshop.targets.host import host
from tests.helpers.kernels import check, using

RULE = using(*conv.RULES)


@dataclass(frozen=True)
class Bytes:
    c: int
    m: int = 20
    n: int = 1
    k: int = 3
    stride: int = 1
    pad: int = 1
    groups: int = 1
    dtype: str = "int8"
    bias: bool = True


CASES = [
    Bytes(8),
    Bytes(12, 37, n=2, stride=2, dtype="uint8"),
    Bytes(16, 40, groups=2, pad=2),
    Bytes(8, k=1, pad=0, n=2),
    Bytes(8, k=1, pad=0, dtype="uint8", bias=False),
    Bytes(6),
    Bytes(3, dtype="uint8"),
]


def graph_of(cases: list[Bytes]) -> tuple[Graph, dict[str, np.ndarray]]:
    dice = np.random.default_rng(3)
    b = Builder("bytes")
    feeds = {}
    for number, case in enumerate(cases):
        name = f"x{number}"
        shape = (case.n, 9, 11, case.c)
        low, high = (0, 256) if case.dtype == "uint8" else (-128, 128)
        feeds[name] = dice.integers(low, high, shape).astype(case.dtype)
        w = dice.integers(-128, 128, (case.k, case.k, case.c // case.groups, case.m)).astype(np.int8)
        bias: Value | None = None
        if case.bias:
            bias = b.constant(dice.integers(-5000, 5000, case.m).astype(np.int32), f"b{number}")
        y = b.op(
            "conv", b.input(name, shape, case.dtype), b.constant(w, f"w{number}"), bias, strides=(case.stride,) * 2,
            pads=((case.pad,) * 2,) * 2, dilations=(1, 1), groups=case.groups,
        )  # fmt: skip
        y.name = f"y{number}"
        b.output(y, y.name)
    return b.finish(), feeds


def by_words(graph: Graph, target) -> list[bool]:
    context = Context(target, graph)
    return [conv.by_words(group, context) for group in fuse.partition(graph, target)]


@pytest.mark.parametrize("dot", [host().int8_dot, ""])
def test_integers_are_exact(dot: str) -> None:
    graph, feeds = graph_of(CASES)
    target = replace(host(), int8_dot=dot)
    assert by_words(graph, target) == [bool(dot) and case.c // case.groups % 4 == 0 for case in CASES]
    check(graph, feeds, lower=RULE, target=target)


@pytest.mark.skipif(host().int8_dot != "vnni", reason="this processor adds no four products at a time")
@pytest.mark.parametrize("vector", [16, 32])
def test_narrower_vectors(vector: int) -> None:
    graph, feeds = graph_of(CASES[:4])
    target = replace(host(), vector=vector)
    check(graph, feeds, lower=lambda group, context: conv.lower(group, context, Direct(5, 2, 2, 3)), target=target)
