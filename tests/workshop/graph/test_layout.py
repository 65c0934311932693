"""How many transposes are left of a channel-first model, and that everything else followed."""

from __future__ import annotations

import numpy as np
import pytest

from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Graph, Value
from fleetui.workshop.graph.passes import lay_out, simplify
from fleetui.workshop.graph.passes.layout import moved_bytes
from fleetui.workshop.graph.passes.moves import groups, moves_nothing
from tests.helpers.graphs import checked, conv, count, dense, norm, ops, pool


def start(channels: int = 3, size: int = 16, batch: int = 1) -> tuple[Builder, Value]:
    b = Builder("net")
    return b, b.input("x", (batch, channels, size, size), "float32")


def moving(graph: Graph) -> list[tuple[int, ...]]:
    return [
        tuple(node.attrs["perm"])
        for node in graph.nodes
        if node.op == "transpose" and not moves_nothing(tuple(node.attrs["perm"]), node.input(0).shape)
    ]


def finished(b: Builder, y: Value) -> Graph:
    b.output(y, "y")
    graph = b.finish()
    before = moved_bytes(graph)
    checked(graph, simplify, lay_out, tolerance=1e-4)
    assert moved_bytes(graph) <= before
    return graph


def only_the_input(graph: Graph) -> bool:
    """One transpose: of the graph's input, straight into the first convolution."""
    turned = [node for node in graph.nodes if node.op == "transpose"]
    users = graph.consumers()
    return (
        len(turned) == 1
        and turned[0].input(0) is graph.inputs[0]
        and [user.op for user in users[turned[0].output]] == ["conv"]
    )


def test_residual_network() -> None:
    b, x = start()
    x = b.op("relu", norm(b, conv(b, x, 8, stride=2)))
    x = pool(b, x, "max", 3, 2, 1)
    for outputs in (8, 16):
        short = norm(b, conv(b, x, outputs, 1)) if x.shape[1] != outputs else x
        y = b.op("relu", norm(b, conv(b, x, outputs)))
        x = b.op("relu", b.op("add", norm(b, conv(b, y, outputs)), short))
    mean = b.op("reduce", x, kind="mean", axes=(2, 3), keepdims=True)
    graph = finished(b, dense(b, b.op("reshape", mean, shape=(1, 16)), 5))
    assert only_the_input(graph)
    assert count(graph, "mul") == 0  # the norms went into the weights
    assert count(graph, "add") == 2
    assert count(graph, "dense") == 1


def test_dense_network() -> None:
    """Concatenations, with norms that cannot go into a convolution."""
    b, x = start()
    x = conv(b, x, 8)
    for _ in range(3):
        y = conv(b, b.op("relu", norm(b, x)), 8, 1)
        y = conv(b, b.op("relu", norm(b, y)), 4)
        x = b.op("concat", x, y, axis=1)
    x = pool(b, conv(b, b.op("relu", norm(b, x)), 6, 1), "avg")
    x = b.op("reduce", b.op("relu", norm(b, x)), kind="mean", axes=(2, 3), keepdims=False)
    graph = finished(b, dense(b, x, 5))
    assert only_the_input(graph)
    assert [node.attrs["axis"] for node in graph.nodes if node.op == "concat"] == [3, 3, 3]


def test_inception_network() -> None:
    b, x = start()
    x = b.op("relu", conv(b, x, 8))
    for _ in range(2):
        parts = [
            b.op("relu", conv(b, x, 4, 1)),
            b.op("relu", conv(b, b.op("relu", conv(b, x, 3, 1)), 4)),
            conv(b, pool(b, x, "max", 3, 1, 1), 4, 1),
        ]
        x = b.op("concat", *parts, axis=1)
    x = pool(b, b.op("clip", x, low=0.0, high=6.0), "avg", 16, 1)
    graph = finished(b, b.op("softmax", dense(b, b.op("reshape", x, shape=(1, 12)), 5), axis=1))
    assert only_the_input(graph)


def test_shuffle_network() -> None:
    """Grouped convolutions and a shuffle: the shuffle itself is all that moves, with its channels last."""
    b, x = start()
    x = b.op("relu", conv(b, x, 12))
    y = b.op("relu", conv(b, x, 12, 1, groups=3))
    y = b.op("reshape", y, shape=(1, 3, 4, 16, 16))
    y = b.op("reshape", b.op("transpose", y, perm=(0, 2, 1, 3, 4)), shape=(1, 12, 16, 16))
    y = conv(b, conv(b, y, 12, 3, groups=12), 12, 1, groups=3)
    graph = finished(b, b.op("reduce", b.op("relu", b.op("add", x, y)), kind="max", axes=(2, 3), keepdims=False))
    assert moving(graph) == [(0, 2, 3, 1), (0, 1, 2, 4, 3)]


def test_squeeze_and_excite_with_hard_activations() -> None:
    b, x = start()
    x = b.op("hard_swish", norm(b, conv(b, x, 8)))
    x = norm(b, conv(b, x, 8, groups=8))
    mean = b.op("reduce", x, kind="mean", axes=(2, 3), keepdims=True)
    gate = b.op("hard_sigmoid", conv(b, b.op("relu", conv(b, mean, 4, 1)), 8, 1), alpha=0.2, beta=0.5)
    x = conv(b, b.op("mul", x, gate), 6, 1)
    graph = finished(b, b.op("reduce", x, kind="mean", axes=(2, 3), keepdims=False))
    assert only_the_input(graph)
    assert count(graph, "reshape") == 0


def test_u_net() -> None:
    """In and out channel-first: two transposes, nothing between."""
    b, x = start(2, 16, 2)
    first = b.op("relu", conv(b, x, 4))
    deep = b.op("relu", conv(b, pool(b, first), 8))
    index = np.repeat(np.arange(8, dtype=np.int32), 2)[:, None]
    up = deep
    for axis in (2, 3):
        up = b.op("interp", up, b.constant(index), b.constant(np.ones((16, 1), np.float32)), axis=axis)
    padded = b.op("pad", first, before=(0, 0, 0, 0), after=(0, 0, 0, 0), mode="constant", value=0.0)
    y = b.op("concat", padded, up, axis=1)
    y = b.op("sigmoid", conv(b, b.op("relu", conv(b, y, 4)), 2, 1))
    graph = finished(b, y)
    assert moving(graph) == [(0, 2, 3, 1), (0, 3, 1, 2)]


def test_flattened_ahead_of_a_matrix() -> None:
    b, x = start(3, 8)
    x = pool(b, b.op("relu", conv(b, x, 6)))
    graph = finished(b, dense(b, b.op("reshape", x, shape=(1, 96)), 5))
    assert only_the_input(graph)


def test_flattened_ahead_of_two_narrow_matrices() -> None:
    """Weights in 8 bits stay in 8 bits: their codes are permuted, not what they expand to."""
    b, x = start(3, 8)
    x = b.op("reshape", b.op("relu", conv(b, x, 6)), shape=(1, 384))
    codes = np.random.default_rng(0).integers(-127, 127, (384, 4)).astype(np.int8)
    scales = np.linspace(0.01, 0.02, 4).astype(np.float32)
    parts = []
    for _ in range(2):
        w = b.op("dequantize", b.constant(codes), b.constant(scales), None, axis=1, dtype="float32")
        parts.append(b.op("dense", x, w, None))
    graph = finished(b, b.op("concat", *parts, axis=1))
    assert only_the_input(graph)
    assert all(node.input(0).data is not None for node in graph.nodes if node.op == "dequantize")


def test_small_input_is_read_as_it_is() -> None:
    """Work on the channel-first input stays on it; the transpose stays next to the convolution."""
    b, x = start()
    scaled = b.op("sub", x, b.constant(np.array([[[[30.0]], [[40.0]], [[50.0]]]], np.float32)))
    graph = finished(b, b.op("reduce", conv(b, scaled, 4), kind="mean", axes=(2, 3), keepdims=False))
    turned = next(node for node in graph.nodes if node.op == "transpose")
    assert graph.consumers()[turned.output][0].op == "conv"
    assert count(graph, "transpose") == 1


def test_a_cut_is_made_where_it_is_cheapest() -> None:
    """Half of the region must stay channel-first: the transpose goes to its smallest tensor."""
    b, x = start(4, 16)
    x = b.op("relu", conv(b, x, 16))
    small = b.op("slice", x, starts=(0, 0, 0, 0), stops=(1, 2, 16, 16), steps=(1, 1, 1, 1))
    small = b.op("tanh", small)
    at, ones = b.constant(np.zeros((1, 1), np.int64)), b.constant(np.ones((1, 2, 16, 16), np.float32))
    b.output(b.op("scatter_nd", small, at, ones, reduction="add"), "s")
    graph = finished(b, b.op("reduce", conv(b, b.op("sigmoid", x), 4), kind="mean", axes=(2, 3), keepdims=False))
    assert count(graph, "transpose") == 2
    back = [node for node in graph.nodes if node.op == "transpose" and node.attrs["perm"] == (0, 3, 1, 2)]
    assert [node.input(0).size for node in back] == [2 * 16 * 16]


def test_attention_over_pixels() -> None:
    """Convolution, flattened to a sequence, matrices, and back to an image."""
    b, x = start(3, 8)
    x = conv(b, x, 8)
    sequence = b.op("transpose", b.op("reshape", x, shape=(1, 8, 64)), perm=(0, 2, 1))
    y = b.op("layer_norm", dense(b, sequence, 8), None, None, axis=2, eps=1e-5)
    image = b.op("reshape", b.op("transpose", y, perm=(0, 2, 1)), shape=(1, 8, 8, 8))
    graph = finished(b, b.op("reduce", conv(b, image, 4), kind="mean", axes=(2, 3), keepdims=False))
    assert only_the_input(graph)


def test_axes_follow() -> None:
    b, x = start(4, 8)
    x = conv(b, x, 6)
    top, where = b.ops("topk", x, k=2, axis=1, largest=True, sorted=True)
    parts = [
        b.op("cumsum", x, axis=1, exclusive=False, reverse=True),
        b.op("log_softmax", x, axis=1),
        b.op("tile", b.op("softmax", top, axis=2), repeats=(1, 3, 1, 1)),
        b.op("gather", x, b.constant(np.array([5, 0, 0])), axis=1),
        b.op("cast", b.op("argmax", x, axis=1, keepdims=True, last=False), to="float32"),
        b.op("cast", where, to="float32"),
        b.op("quantize", x, b.constant(np.full(6, 0.1, np.float32)), None, axis=1, dtype="int8"),
    ]
    parts[-1] = b.op(
        "dequantize", parts[-1], b.constant(np.full(6, 0.1, np.float32)), None, axis=1, dtype="float32"
    )
    y = conv(b, b.op("concat", *parts, axis=1), 4)
    graph = finished(b, b.op("reduce", y, kind="sum", axes=(1, 2), keepdims=False))
    assert len(moving(graph)) == 1


def test_sequence_models_keep_their_head_transposes() -> None:
    b = Builder("heads")
    x = b.input("x", (2, 6, 16), "float32")
    q = b.op("transpose", b.op("reshape", dense(b, x, 16), shape=(2, 6, 4, 4)), perm=(0, 2, 1, 3))
    y = b.op("attention", q, q, q, None, scale=0.5, causal=False, softcap=0.0)
    y = b.op("reshape", b.op("transpose", y, perm=(0, 2, 1, 3)), shape=(2, 6, 16))
    assert len(moving(finished(b, b.op("add", x, dense(b, y, 16))))) == 2


def test_a_group_norm_between_convolutions_follows() -> None:
    b, x = start(3, 8, 2)
    x = b.op("silu", conv(b, x, 8))
    y = b.op("layer_norm", b.op("reshape", x, shape=(2, 4, 128)), None, None, axis=2, eps=1e-5)
    y = norm(b, b.op("reshape", y, shape=(2, 8, 8, 8)))
    graph = finished(b, b.op("reduce", conv(b, y, 4), kind="mean", axes=(2, 3), keepdims=False))
    assert only_the_input(graph)


def test_sequence_first_attention_with_joined_rows() -> None:
    """As PyTorch spells it: [T, B, E] inside, heads joined with the batch, rows joined ahead of every matrix."""
    b = Builder("torch")
    x = b.input("x", (2, 10, 32), "float32")
    turned = b.op("transpose", x, perm=(1, 0, 2))
    parts = dense(b, b.op("reshape", turned, shape=(20, 32)), 96)
    parts = b.op("reshape", parts, shape=(10, 2, 3, 32))
    heads = []
    for i in range(3):
        part = b.op("slice", parts, starts=(0, 0, i, 0), stops=(10, 2, i + 1, 32), steps=(1, 1, 1, 1))
        part = b.op("transpose", b.op("reshape", part, shape=(10, 8, 8)), perm=(1, 0, 2))
        heads.append(b.op("reshape", part, shape=(2, 4, 10, 8)))
    y = b.op("attention", *heads, None, scale=0.35, causal=False, softcap=0.0)
    y = b.op("reshape", b.op("transpose", y, perm=(2, 0, 1, 3)), shape=(20, 32))
    y = b.op("reshape", b.op("gelu", dense(b, y, 32), approximate=False), shape=(10, 2, 32))
    graph = finished(b, b.op("add", x, b.op("transpose", y, perm=(1, 0, 2))))
    assert moving(graph) == [(0, 2, 1, 3)] * 4
    assert all(node.input(0).rank == 3 for node in graph.nodes if node.op == "dense")


@pytest.mark.parametrize(
    ("before", "after", "runs"),
    [
        ((1, 58, 4, 4), (1, 2, 29, 4, 4), [([0], [0]), ([1], [1, 2]), ([2], [3]), ([3], [4])]),
        ((2, 3, 4), (6, 4), [([0, 1], [0]), ([2], [1])]),
        ((2, 8, 1, 1), (2, 8), [([0], [0]), ([1], [1]), ([2], []), ([3], [])]),
        ((4, 6), (3, 8), [([0, 1], [0, 1])]),
    ],
)
def test_runs_of_a_reshape(
    before: tuple[int, ...], after: tuple[int, ...], runs: list[tuple[list[int], list[int]]]
) -> None:
    assert groups(before, after) == runs


# ---------------------------------------------------------------- models of the onnx package

LIGHT = {
    "squeezenet": 1,
    "bvlc_alexnet": 1,
    "inception_v1": 1,
    "inception_v2": 1,
    "resnet50": 1,
    "densenet121": 1,
    "shufflenet": 17,
}
"""Transposes that are left: the input's; ShuffleNet shuffles sixteen times."""


@pytest.mark.parametrize("name", LIGHT)
def test_light_models(name: str) -> None:
    from pathlib import Path

    import onnx.backend.test

    from fleetui.workshop.frontends.onnx.frontend import FRONTEND

    path = Path(onnx.backend.test.__file__).parent / "data" / "light" / f"light_{name}.onnx"
    graph = FRONTEND.load(path, ())
    before = moved_bytes(graph)
    simplify(graph)
    lay_out(graph)
    graph.verify()
    left = [node for node in graph.nodes if node.op == "transpose"]
    assert len(left) == LIGHT[name]
    assert sum(node.input(0) is graph.inputs[0] for node in left) == 1
    assert moved_bytes(graph) < before / 4
    assert not {"identity", "matmul"} & set(ops(graph))
