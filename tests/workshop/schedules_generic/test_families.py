"""Every family of generic schedules on random shapes and attributes, against numpy.

Many cases share one graph and so one compilation. Which module made a kernel is told by how its key begins: a case
that fell back to plain loops would prove nothing here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Graph, Value
from fleetui.workshop.schedules import generic
from fleetui.workshop.target import Target
from tests.helpers import kernels

GENERIC = kernels.using(*generic.RULES)
Case = Callable[[Builder, np.random.Generator, str], Value]
NARROW = Target("narrow", "A narrow one", "x86_64-linux-gnu", "x86-64", vector=16, registers=16)
"""Vectors of four floats: other pieces, other tails."""


def picture(b: Builder, dice: np.random.Generator, name: str, dtype: str = "float32") -> Value:
    n, h, w = (int(dice.integers(1, top)) for top in (3, 12, 14))
    channels = int(dice.choice([4, 5, 7, 16, 20, 37, 64, 130]))
    return b.input(name, (n, h + 3, w + 3, channels), dtype)


def pool(b: Builder, dice: np.random.Generator, name: str) -> Value:
    kind = str(dice.choice(["max", "avg", "l2"]))
    x = picture(b, dice, name, "int8" if kind == "max" and dice.integers(4) == 0 else "float32")
    kernel = tuple(int(k) for k in dice.integers(1, 4, 2))
    strides = tuple(int(k) for k in dice.integers(1, 3, 2))
    dilations = tuple(int(k) for k in dice.integers(1, 3, 2))
    pads, out = [], []
    for i in range(2):
        reach = (kernel[i] - 1) * dilations[i] + 1
        before, after = (int(dice.integers(0, kernel[i])) for _ in range(2))
        pads.append((before, after))
        room = x.shape[1 + i] + before + after
        exact = (room - reach) // strides[i] + 1
        over = int(dice.integers(2))  # a window may hang over the edge
        out.append(exact + (1 if over and exact * strides[i] < room - after else 0))
    return b.op(
        "pool", x, kind=kind, kernel=kernel, strides=strides, pads=tuple(pads), dilations=dilations,
        count_include_pad=bool(dice.integers(2)), out=tuple(out),
    )  # fmt: skip


def reduce(b: Builder, dice: np.random.Generator, name: str) -> Value:
    rank = int(dice.integers(2, 5))
    shape = (*(int(d) for d in dice.choice([2, 3, 5, 8], rank - 1)), int(dice.choice([9, 16, 50, 300])))
    x = b.input(name, shape, str(dice.choice(["float32", "float32", "float16", "float64"])))
    count = int(dice.integers(1, rank))
    axes = tuple(sorted(int(a) for a in dice.permutation(rank)[:count]))
    kind = str(dice.choice(["sum", "mean", "max", "min"]))
    return b.op("reduce", x, kind=kind, axes=axes, keepdims=bool(dice.integers(2)))


def norm(b: Builder, dice: np.random.Generator, name: str) -> Value:
    op = str(dice.choice(["softmax", "log_softmax", "layer_norm", "rms_norm", "lrn"]))
    shape = (int(dice.integers(1, 5)), int(dice.integers(1, 9)), int(dice.choice([5, 16, 33, 100, 770])))
    x = b.input(name, shape, str(dice.choice(["float32", "float16"])))
    if op == "lrn":
        size, beta = int(dice.integers(1, 7)), float(dice.choice([0.75, 0.5, 1.0, 0.6]))
        return b.op("lrn", x, size=size, alpha=0.3, beta=beta, bias=1.5)
    if op.endswith("softmax"):
        return b.op(op, x, axis=int(dice.integers(0, 3)) if shape[2] <= 100 else 2)
    scale = b.constant(dice.standard_normal(shape[2]).astype(x.dtype))
    if op == "rms_norm":
        return b.op("rms_norm", x, scale, axis=2, eps=1e-5)
    return b.op("layer_norm", x, scale, scale if dice.integers(2) else None, axis=2, eps=1e-5)


def runs(b: Builder, dice: np.random.Generator, name: str) -> Value:
    x = picture(b, dice, name, str(dice.choice(["float32", "int8", "float16"])))
    op, axis = str(dice.choice(["gather", "pad", "tile", "interp"])), int(dice.integers(0, 3))
    size = x.shape[axis]
    if op == "gather":
        return b.op("gather", x, b.constant(dice.integers(-size, size, (2, 3))), axis=axis)
    if op == "pad":
        before, after = ([int(dice.integers(0, 3)) for _ in range(3)] + [0] for _ in range(2))
        mode = str(dice.choice(["constant", "reflect", "edge", "wrap"]))
        return b.op("pad", x, before=tuple(before), after=tuple(after), mode=mode, value=3)
    if op == "tile":
        repeats = [int(dice.integers(1, 3)) for _ in range(3)] + [1]
        repeats[axis] = 2
        return b.op("tile", x, repeats=tuple(repeats))
    if x.dtype == "int8":
        x = b.op("cast", x, to="float32")
    taps = int(dice.integers(1, 4))
    index = b.constant(dice.integers(0, size, (size + 2, taps)).astype(np.int32))
    weight = b.constant(dice.random((size + 2, taps)).astype(np.float32))
    return b.op("interp", x, index, weight, axis=axis)


def moved(b: Builder, dice: np.random.Generator, name: str) -> Value:
    rank = int(dice.integers(2, 5))
    shape = tuple(int(dice.choice([1, 2, 3, 17, 35, 64])) for _ in range(rank))
    x = b.input(name, shape, str(dice.choice(["float32", "int8", "int64", "float16", "bool"])))
    op = str(dice.choice(["transpose", "transpose", "slice", "concat", "broadcast_to", "reshape"]))
    if op == "transpose":
        return b.op("transpose", x, perm=tuple(int(p) for p in dice.permutation(rank)))
    if op == "slice":
        backward = bool(dice.integers(2))
        starts = tuple(d - 1 if backward else 0 for d in shape)
        stops = tuple(-1 if backward else max(1, d - 1) for d in shape)
        steps = tuple(-1 if backward else int(dice.integers(1, 3)) for _ in shape)
        return b.op("slice", x, starts=starts, stops=stops, steps=steps)
    if op == "concat":
        return b.op("concat", x, b.op("identity", x), x, axis=int(dice.integers(0, rank)))
    if op == "reshape":
        return b.op("reshape", x, shape=(int(np.prod(shape)), 1))
    return b.op("broadcast_to", x, shape=(3, *shape))


def ordered(b: Builder, dice: np.random.Generator, name: str) -> Value:
    shape = (int(dice.integers(1, 4)), int(dice.choice([1, 9, 70, 150])), int(dice.integers(1, 4)))
    x = b.input(name, shape, str(dice.choice(["float32", "int32", "float64", "int8"])))
    if "float" in x.dtype:  # few different numbers: ties are what matters
        x = b.op("round", x)
    axis = int(dice.integers(0, 3))
    descending = bool(dice.integers(2))
    if dice.integers(2):
        values, places = b.ops("sort", x, axis=axis, descending=descending)
    else:
        k = int(dice.integers(1, shape[axis] + 1))
        values, places = b.ops("topk", x, k=k, axis=axis, largest=descending, sorted=True)
    b.output(places, f"{name}.places")
    return values


FAMILIES: dict[str, tuple[Case, str]] = {
    "pool": (pool, "pool "), "reduce": (reduce, "reduce "), "norm": (norm, ""), "runs": (runs, "runs "),
    "ordered": (ordered, "order "),
    "moved": (moved, ""),
}  # fmt: skip


def random_graph(family: Case, seed: int, count: int) -> Graph:
    b = Builder("cases")
    for number in range(count):
        y = family(b, np.random.default_rng(1000 * seed + number), f"x{number}")
        if "float" in y.dtype and number % 3 == 0:  # a chain behind some of them
            y = b.op("relu", b.op("add", y, b.scalar(0.1, y)))
        b.output(y, f"y{number}")
    return b.finish()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", [1, 2])
def test_random_cases_agree_with_numpy(family: str, seed: int) -> None:
    make, prefix = FAMILIES[family]
    graph = random_graph(make, seed, 12)
    target = NARROW if seed == 2 else None
    compiled = kernels.check(graph, kernels.random_feeds(graph, seed), lower=GENERIC, target=target, tolerance=3e-3)
    made = [kernel.key for kernel in compiled.kernels]
    assert len({key for key in made if key.startswith(prefix)}) >= 10
    assert not any(key.startswith("plain") for key in made), made


def test_float32_is_as_good_as_float32_goes() -> None:
    b = Builder("exact")
    x = b.input("x", (6, 40, 48), "float32")
    b.output(b.op("softmax", x, axis=2), "soft")
    b.output(b.op("layer_norm", x, None, None, axis=2, eps=1e-5), "layer")
    b.output(b.op("reduce", x, kind="mean", axes=(1,), keepdims=False), "mean")
    b.output(b.op("gelu", x, approximate=True), "gelu")
    graph = b.finish()
    kernels.check(graph, kernels.random_feeds(graph), lower=GENERIC, tolerance=2e-6)


def test_rows_too_long_to_be_kept() -> None:
    b = Builder("long")
    x = b.input("x", (2, 5003), "float32")
    scaled = b.op("mul", x, b.scalar(0.5, x))
    b.output(b.op("softmax", x, axis=1), "soft")
    b.output(b.op("log_softmax", scaled, axis=1), "log")
    b.output(b.op("layer_norm", x, None, None, axis=1, eps=1e-5), "layer")
    graph = b.finish()
    kernels.check(graph, kernels.random_feeds(graph, scale=3.0), lower=GENERIC)


def test_not_a_number_is_sorted_above_everything() -> None:
    b = Builder("order")
    x = b.input("x", (3, 90), "float32")
    for number, descending in enumerate((False, True)):
        for op, attrs in (
            ("sort", {"descending": descending}),
            ("topk", {"k": 5, "largest": descending, "sorted": True}),
        ):
            for place, value in enumerate(b.ops(op, x, axis=1, **attrs)):
                b.output(value, f"{op}{number}{place}")
    graph = b.finish()
    feeds = kernels.random_feeds(graph)
    feeds["x"][0, ::11] = feeds["x"][1, 5:] = np.nan
    kernels.check(graph, feeds, lower=GENERIC)


def test_not_a_number_goes_through_and_the_masked_get_nothing() -> None:
    b = Builder("special")
    x = b.input("x", (4, 30), "float32")
    soft = b.op("softmax", x, axis=1)
    b.output(soft, "soft")
    b.output(b.op("reduce", x, kind="max", axes=(1,), keepdims=False), "max")
    p = b.input("p", (1, 6, 6, 20), "float32")
    b.output(
        b.op("pool", p, kind="max", kernel=(3, 3), strides=(1, 1), pads=((1, 1), (1, 1)), dilations=(1, 1),
             count_include_pad=False, out=(6, 6)),
        "pool",
    )  # fmt: skip
    graph = b.finish()
    feeds = kernels.random_feeds(graph)
    feeds["x"][1, 3] = np.nan
    feeds["x"][2, 5:] = -np.inf
    feeds["p"][0, 2, 2, 3] = feeds["p"][0, 0, 0, 19] = np.nan
    compiled = kernels.check(graph, feeds, lower=GENERIC)
    assert (compiled.memory.view(soft)[2, 5:] == 0).all()


def test_values_inside_of_a_concatenation_are_read_and_written_in_place() -> None:
    """Placement gives strides to what goes in and comes out; nothing beside it is touched."""
    from fleetui.workshop.codegen.place import place
    from fleetui.workshop.schedules import fuse

    b = Builder("places")
    x = b.input("x", (1, 9, 9, 24), "float32")
    window = {"strides": (1, 1), "pads": ((1, 1), (1, 1)), "dilations": (1, 1), "count_include_pad": False}
    parts = [
        b.op("pool", x, kind="max", kernel=(3, 3), out=(9, 9), **window),
        b.op("sigmoid", x),
        b.op("softmax", b.op("mul", x, x), axis=3),
        b.op("lrn", x, size=3, alpha=0.1, beta=0.75, bias=1.0),
    ]
    whole = b.op("concat", *parts, axis=3)
    b.output(b.op("reduce", b.op("relu", whole), kind="mean", axes=(1, 2), keepdims=False), "mean")
    b.output(b.op("add", whole, b.scalar(1.0, whole)), "sum")
    again = b.op("transpose", b.op("exp", parts[1]), perm=(0, 3, 1, 2))
    b.output(again, "turned")
    graph = b.finish()
    groups = fuse.partition(graph, NARROW)
    layout = place(graph, groups)
    assert len(layout.views) >= 4
    left = [group for index, group in enumerate(groups) if index not in layout.skipped]
    assert all(group.anchor.op != "concat" for group in left)
    kernels.check(graph, kernels.random_feeds(graph), lower=GENERIC, placements=layout.views, groups=left)


@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "extra", "groups"),
    [(2, 2, 0, 0, 1), (4, 2, 1, 0, 1), (3, 2, 1, 1, 1), (3, 1, 1, 0, 1), (5, 3, 2, 1, 2), (2, 2, 3, 0, 1)],
)
def test_transposed_convolution_by_phases(kernel: int, stride: int, pad: int, extra: int, groups: int) -> None:
    dice = np.random.default_rng(kernel)
    b = Builder("up")
    x = b.input("x", (2, 7, 6, 8), "float32")
    w = b.constant(dice.standard_normal((kernel, kernel, 8, 12 // groups)).astype(np.float32))
    bias = b.constant(dice.standard_normal(12).astype(np.float32))
    up = b.op(
        "conv_transpose", x, w, bias, strides=(stride, stride), pads=((pad, pad), (pad, pad)), dilations=(1, 1),
        output_padding=(extra, extra), groups=groups,
    )  # fmt: skip
    skip = b.input("skip", up.shape, "float32")
    b.output(b.op("relu", b.op("add", up, skip)), "y")
    graph = b.finish()
    compiled = kernels.check(graph, kernels.random_feeds(graph))
    assert sum(kernel.key.startswith("conv") for kernel in compiled.kernels) == stride**2


def test_work_is_shared_out_where_there_is_enough() -> None:
    b = Builder("grains")
    small = b.input("small", (1, 30), "float32")
    big = b.input("big", (512, 512), "float32")
    b.output(b.op("relu", small), "a")
    b.output(b.op("relu", big), "b")
    b.output(b.op("softmax", big, axis=1), "c")
    compiled = kernels.check(graph := b.finish(), kernels.random_feeds(graph), lower=GENERIC)
    by_name = {kernel.args[0].buffer: kernel for kernel in compiled.kernels}
    assert by_name[graph.inputs[0]].extent == 1
    assert all(kernel.extent >= 32 for kernel in compiled.kernels if graph.inputs[1] is kernel.args[0].buffer)
    assert all(1 <= kernel.grain <= kernel.extent for kernel in compiled.kernels)


def test_equal_keys_mean_equal_code() -> None:
    b = Builder("twins")
    outs: list[Any] = []
    for number, (scale, shape) in enumerate([(2.0, (4, 9)), (2.0, (4, 9)), (3.0, (4, 9)), (2.0, (9, 4))]):
        x = b.input(f"x{number}", shape, "float32")
        outs.append(b.op("mul", x, b.scalar(scale, x)))
        b.output(outs[-1], f"y{number}")
    graph = b.finish()
    compiled = kernels.check(graph, kernels.random_feeds(graph), lower=GENERIC)
    keys = [kernel.key for kernel in compiled.kernels if kernel.key.startswith("map") and "mul" in kernel.key]
    assert len(keys) == 4
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
