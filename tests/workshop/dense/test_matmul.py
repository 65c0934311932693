"""Products of two tensors: transposed, batched, broadcast, packed first or read as they lie."""

import numpy as np
import pytest

from fleetui.workshop.graph.build import Builder
from fleetui.workshop.schedules import dense
from tests.helpers.kernels import check, random_feeds, using
from tests.helpers.products import targets
from tests.workshop.dense.test_dense import coded

RULES = using(*dense.RULES)


def products(cases, dtype="float32"):
    b = Builder("products")
    for number, (left, right, *turned) in enumerate(cases):
        ta, tb = turned or (False, False)
        a, c = b.input(f"a{number}", left, dtype), b.input(f"b{number}", right, dtype)
        b.output(b.op("matmul", a, c, name=f"y{number}", transpose_a=ta, transpose_b=tb), f"y{number}")
    return b.finish()


CASES = [
    ((5, 7), (7, 9)),
    ((5, 7), (9, 7), False, True),
    ((7, 5), (7, 9), True, False),
    ((7, 5), (9, 7), True, True),
    ((2, 3, 17, 8), (2, 3, 8, 33)),
    ((2, 3, 17, 8), (2, 3, 33, 8), False, True),
    ((2, 1, 4, 8), (3, 8, 20)),
    ((4, 6, 8), (8, 70)),
    ((1, 40), (40, 1)),
    ((3, 1, 12, 16), (2, 16, 5)),
    ((90, 20), (20, 600)),
    ((2, 64, 10), (70, 10), False, True),
    ((6, 0), (0, 4)),
]


@pytest.mark.parametrize("target", ["host", "sse"])
def test_every_way_of_lying(target):
    graph = products(CASES)
    check(graph, random_feeds(graph, 1), lower=RULES, target=targets().get(target))


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "int32", "uint64"])
def test_other_dtypes(dtype):
    graph = products([CASES[1], CASES[4], CASES[7]], dtype)
    check(graph, random_feeds(graph, 1), lower=RULES)


def test_constant_operands_and_a_chain():
    dice = np.random.default_rng(3)
    b = Builder("constant")
    x = b.input("x", (2, 9, 12), "float32")
    left = b.constant(dice.standard_normal((5, 9)).astype(np.float32))
    y = b.op("matmul", left, x)
    y = b.op("matmul", y, b.constant(dice.standard_normal((2, 12, 20)).astype(np.float32)))
    y = b.op("tanh", b.op("mul", y, b.constant(np.float32(0.5))), name="y")
    b.output(y, "y")
    graph = b.finish()
    compiled = check(graph, random_feeds(graph, 1), lower=RULES)
    assert len(compiled.kernels) == 2


def test_small_constants_of_a_product_are_expanded_first():
    b = Builder("expanded")
    x = b.input("x", (4, 40), "float32")
    wide, node = coded(40, 24, "int8")
    b.graph.nodes.append(node)
    b.output(b.op("matmul", x, wide, name="y", transpose_a=False, transpose_b=False), "y")
    graph = b.finish()
    check(graph, random_feeds(graph, 1), lower=RULES)
