"""Activations, softmax, norms and attention in the ways exporters write them out."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Graph, Value
from fleetui.workshop.graph.passes import lay_out, simplify
from tests.helpers.graphs import checked, count, ops

Step = Callable[[Builder, Value], Value]


def graph_of(step: Step, shape: tuple[int, ...] = (3, 7), dtype: str = "float32") -> Graph:
    b = Builder("one")
    x = b.input("x", shape, dtype)
    b.output(step(b, x), "y")
    return checked(b.finish(), simplify)


def c(b: Builder, number: float, x: Value) -> Value:
    return b.scalar(number, x)


# ---------------------------------------------------------------- activations


def _gelu(b: Builder, x: Value) -> Value:
    half = b.op("mul", x, c(b, 0.5, x))
    inner = b.op("add", b.op("erf", b.op("div", x, c(b, math.sqrt(2), x))), c(b, 1, x))
    return b.op("mul", half, inner)


def _gelu_last(b: Builder, x: Value) -> Value:
    inner = b.op("add", c(b, 1, x), b.op("erf", b.op("mul", x, c(b, 0.70710678, x))))
    return b.op("mul", b.op("mul", x, inner), c(b, 0.5, x))


def _gelu_tanh(b: Builder, x: Value) -> Value:
    cube = b.op("mul", b.op("pow", x, c(b, 3, x)), c(b, 0.044715, x))
    inner = b.op("tanh", b.op("mul", b.op("add", x, cube), c(b, math.sqrt(2 / math.pi), x)))
    return b.op("mul", b.op("mul", x, c(b, 0.5, x)), b.op("add", inner, c(b, 1, x)))


def _sigmoid(b: Builder, x: Value) -> Value:
    return b.op("div", c(b, 1, x), b.op("add", b.op("exp", b.op("neg", x)), c(b, 1, x)))


def _silu(b: Builder, x: Value) -> Value:
    return b.op("mul", _sigmoid(b, x), x)


def _silu_fraction(b: Builder, x: Value) -> Value:
    return b.op("div", x, b.op("add", c(b, 1, x), b.op("exp", b.op("neg", x))))


def _softplus(b: Builder, x: Value) -> Value:
    return b.op("log", b.op("add", b.op("exp", x), c(b, 1, x)))


def _mish(b: Builder, x: Value) -> Value:
    return b.op("mul", x, b.op("tanh", _softplus(b, x)))


def _hard_sigmoid(b: Builder, x: Value) -> Value:
    return b.op("div", b.op("clip", b.op("add", x, c(b, 3, x)), low=0.0, high=6.0), c(b, 6, x))


def _hard_swish(b: Builder, x: Value) -> Value:
    return b.op("mul", x, _hard_sigmoid(b, x))


def _leaky(b: Builder, x: Value) -> Value:
    return b.op("where", b.op("greater", x, c(b, 0, x)), x, b.op("mul", x, c(b, 0.1, x)))


def _leaky_max(b: Builder, x: Value) -> Value:
    return b.op("maximum", x, b.op("mul", x, c(b, 0.2, x)))


def _elu(b: Builder, x: Value) -> Value:
    below = b.op("mul", b.op("sub", b.op("exp", x), c(b, 1, x)), c(b, 0.7, x))
    return b.op("where", b.op("greater_equal", x, c(b, 0, x)), x, below)


def _softsign(b: Builder, x: Value) -> Value:
    return b.op("div", x, b.op("add", b.op("abs", x), c(b, 1, x)))


def _relu6(b: Builder, x: Value) -> Value:
    return b.op("minimum", b.op("relu", x), c(b, 6, x))


FORMS: list[tuple[Step, str, dict[str, float]]] = [
    (_gelu, "gelu", {"approximate": False}),
    (_gelu_last, "gelu", {"approximate": False}),
    (_gelu_tanh, "gelu", {"approximate": True}),
    (_sigmoid, "sigmoid", {}),
    (_silu, "silu", {}),
    (_silu_fraction, "silu", {}),
    (_softplus, "softplus", {}),
    (_mish, "mish", {}),
    (_hard_sigmoid, "hard_sigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    (_hard_swish, "hard_swish", {}),
    (_leaky, "leaky_relu", {"alpha": 0.1}),
    (_leaky_max, "leaky_relu", {"alpha": 0.2}),
    (_elu, "elu", {"alpha": 0.7}),
    (_softsign, "softsign", {}),
    (_relu6, "clip", {"low": 0.0, "high": 6.0}),
]


@pytest.mark.parametrize(("step", "op", "attrs"), FORMS, ids=[step.__name__.strip("_") for step, _, _ in FORMS])
def test_an_activation_is_one_operator(step: Step, op: str, attrs: dict[str, float]) -> None:
    graph = graph_of(step)
    assert ops(graph) == [op]
    assert graph.nodes[0].attrs == pytest.approx(attrs, rel=1e-5)


def test_an_activation_behind_another_keeps_both() -> None:
    graph = graph_of(lambda b, x: _gelu(b, b.op("tanh", x)))
    assert ops(graph) == ["tanh", "gelu"]


def test_an_activation_ahead_of_a_layer_keeps_its_factor() -> None:
    def step(b: Builder, x: Value) -> Value:
        w = b.constant(np.ones((7, 2), np.float32))
        return b.op("dense", _gelu_last(b, x), w, None)

    assert ops(graph_of(step)) == ["gelu", "dense"]


def test_what_is_seen_from_outside_is_not_swallowed() -> None:
    b = Builder("seen")
    x = b.input("x", (3, 7), "float32")
    gate = _sigmoid(b, x)
    b.output(gate, "gate")
    b.output(b.op("mul", gate, x), "y")
    graph = checked(b.finish(), simplify)
    assert sorted(ops(graph)) == ["mul", "sigmoid"]


def test_something_alike_is_not_an_activation() -> None:
    def quick(b: Builder, x: Value) -> Value:
        return b.op("mul", x, b.op("sigmoid", b.op("mul", x, c(b, 1.702, x))))

    assert sorted(ops(graph_of(quick))) == ["mul", "mul", "sigmoid"]

    def wide(b: Builder, x: Value) -> Value:  # bends far beyond where activations do
        return b.op("where", b.op("greater", x, c(b, 5e5, x)), b.op("mul", x, c(b, 2, x)), x)

    assert "where" in ops(graph_of(wide))

    def narrow(b: Builder, x: Value) -> Value:  # differs from nothing only very near to nought
        return b.op("where", b.op("greater", b.op("abs", x), c(b, 1e-3, x)), x, c(b, 0, x))

    assert "where" in ops(graph_of(narrow))


# ---------------------------------------------------------------- softmax and norms


def _reduce(b: Builder, x: Value, kind: str, *axes: int) -> Value:
    return b.op("reduce", x, kind=kind, axes=axes, keepdims=True)


def _written_softmax(b: Builder, x: Value, shift: bool = True) -> Value:
    raised = b.op("exp", b.op("sub", x, _reduce(b, x, "max", 1)) if shift else x)
    return b.op("div", raised, _reduce(b, raised, "sum", 1))


@pytest.mark.parametrize("shift", [True, False])
def test_softmax(shift: bool) -> None:
    graph = graph_of(lambda b, x: _written_softmax(b, x, shift), (2, 5, 3))
    assert ops(graph) == ["softmax"]
    assert graph.nodes[0].attrs["axis"] == 1


def test_log_softmax() -> None:
    assert ops(graph_of(lambda b, x: b.op("log", _written_softmax(b, x)), (2, 5))) == ["log_softmax"]

    def direct(b: Builder, x: Value) -> Value:
        moved = b.op("sub", x, _reduce(b, x, "max", 1))
        return b.op("sub", moved, b.op("log", _reduce(b, b.op("exp", moved), "sum", 1)))

    assert ops(graph_of(direct, (2, 5))) == ["log_softmax"]


def _parameters(b: Builder, *shape: int) -> tuple[Value, Value]:
    rng = np.random.default_rng(1)
    return b.constant(rng.standard_normal(shape).astype(np.float32)), b.constant(
        rng.standard_normal(shape).astype(np.float32)
    )


def _layer_norm_torch(b: Builder, x: Value) -> Value:
    scale, bias = _parameters(b, 8)
    centred = b.op("sub", x, _reduce(b, x, "mean", 2))
    spread = _reduce(b, b.op("pow", centred, c(b, 2, x)), "mean", 2)
    normal = b.op("div", centred, b.op("sqrt", b.op("add", spread, c(b, 1e-5, x))))
    return b.op("add", b.op("mul", normal, scale), bias)


def _layer_norm_keras(b: Builder, x: Value) -> Value:
    """The mean is taken away last, the scale comes first."""
    scale, bias = _parameters(b, 1, 1, 8)
    mean = _reduce(b, x, "mean", 2)
    off = b.op("sub", x, mean)
    spread = _reduce(b, b.op("mul", off, off), "mean", 2)
    factor = b.op("mul", b.op("rsqrt", b.op("add", spread, c(b, 1e-3, x))), scale)
    return b.op("add", b.op("mul", x, factor), b.op("sub", bias, b.op("mul", mean, factor)))


@pytest.mark.parametrize("step", [_layer_norm_torch, _layer_norm_keras])
def test_layer_norm(step: Step) -> None:
    graph = graph_of(step, (2, 5, 8))
    assert ops(graph) == ["layer_norm"]
    assert all(v is not None and v.shape == (8,) for v in graph.nodes[0].inputs[1:])


def test_layer_norm_over_two_dimensions() -> None:
    def step(b: Builder, x: Value) -> Value:
        centred = b.op("sub", x, _reduce(b, x, "mean", 1, 2))
        spread = _reduce(b, b.op("mul", centred, centred), "mean", 1, 2)
        return b.op("mul", centred, b.op("rsqrt", b.op("add", spread, c(b, 1e-5, x))))

    graph = graph_of(step, (2, 5, 8))
    assert ops(graph) == ["layer_norm"]
    assert graph.nodes[0].attrs["axis"] == 1


def test_rms_norm() -> None:
    def step(b: Builder, x: Value) -> Value:
        spread = _reduce(b, b.op("pow", x, c(b, 2, x)), "mean", 2)
        normal = b.op("mul", x, b.op("rsqrt", b.op("add", spread, c(b, 1e-6, x))))
        return b.op("mul", _parameters(b, 8)[0], normal)

    graph = graph_of(step, (2, 5, 8))
    assert ops(graph) == ["rms_norm"]
    assert graph.nodes[0].attrs["eps"] == pytest.approx(1e-6)


def test_a_norm_over_channels_in_the_middle_stays_reductions() -> None:
    def step(b: Builder, x: Value) -> Value:
        centred = b.op("sub", x, _reduce(b, x, "mean", 1))
        spread = _reduce(b, b.op("mul", centred, centred), "mean", 1)
        return b.op("div", centred, b.op("sqrt", b.op("add", spread, c(b, 1e-5, x))))

    assert count(graph_of(step, (2, 5, 8)), "reduce") == 2


# ---------------------------------------------------------------- attention


def _heads(b: Builder, x: Value, perm: tuple[int, ...]) -> Value:
    return b.op("transpose", b.op("reshape", x, shape=(2, 6, 4, 8)), perm=perm)


def _projected(b: Builder, x: Value, seed: int) -> Value:
    w = np.random.default_rng(seed).standard_normal((x.shape[-1], 32)) / 6
    return b.op("matmul", x, b.constant(w.astype(np.float32)))


def _multi_head(scale: str, mask: str, turned: bool) -> Step:
    def step(b: Builder, x: Value) -> Value:
        q = _heads(b, _projected(b, x, 1), (0, 2, 1, 3))
        v = _heads(b, _projected(b, x, 3), (0, 2, 1, 3))
        k = _projected(b, x, 2)
        k = (
            b.op("transpose", _heads(b, k, (0, 2, 1, 3)), perm=(0, 1, 3, 2))
            if turned
            else _heads(b, k, (0, 2, 3, 1))
        )
        factor = b.scalar(8**-0.5, x)
        if scale == "query":
            q = b.op("mul", q, factor)
        if scale == "both":
            root = b.scalar(8**-0.25, x)
            q, k = b.op("mul", q, root), b.op("mul", k, root)
        scores = b.op("matmul", q, k)
        if scale == "scores":
            scores = b.op("div", scores, b.scalar(8**0.5, x))
        rng = np.random.default_rng(4)
        if mask == "added":
            scores = b.op("add", scores, b.constant(rng.standard_normal((2, 1, 1, 6)).astype(np.float32)))
        if mask == "causal":
            triangle = np.where(np.tri(6) > 0, 0, -np.inf)[None, None].astype(np.float32)
            scores = b.op("add", b.constant(triangle), scores)
        if mask == "chosen":
            keep = rng.random((2, 1, 6, 6)) < 0.6
            keep[..., 0] = True
            scores = b.op("where", b.constant(keep), scores, b.scalar(-1e9, x))
        if mask == "lost":
            lost = np.tri(6, 6, -1).T > 0
            scores = b.op("where", b.constant(lost), b.scalar(-np.inf, x), scores)
        y = b.op("matmul", b.op("softmax", scores, axis=3), v)
        return b.op("reshape", b.op("transpose", y, perm=(0, 2, 1, 3)), shape=(2, 6, 32))

    return step


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("scale", ["scores", "query", "both", "none"])
@pytest.mark.parametrize("mask", ["none", "added", "causal", "chosen", "lost"])
def test_attention(scale: str, mask: str, turned: bool) -> None:
    graph = graph_of(_multi_head(scale, mask, turned), (2, 6, 16))
    assert count(graph, "attention") == 1
    assert not {"softmax", "matmul", "mul", "where"} & set(ops(graph))
    node = next(node for node in graph.nodes if node.op == "attention")
    assert node.attrs["causal"] == (mask in {"causal", "lost"})
    # factors on the query and the key have gone into the projections' weights
    assert node.attrs["scale"] == pytest.approx(8**-0.5 if scale == "scores" else 1.0, rel=1e-5)
    assert (node.optional(3) is not None) == (mask in {"added", "chosen"})


def test_attention_with_a_mask_that_is_computed() -> None:
    b = Builder("masked")
    q, k, v = (b.input(name, (2, 4, 6, 8), "float32") for name in "qkv")
    keep = b.input("keep", (2, 1, 1, 6), "bool")
    scores = b.op("matmul", q, b.op("transpose", k, perm=(0, 1, 3, 2)))
    scores = b.op("where", keep, scores, b.scalar(-1e9, q))
    b.output(b.op("matmul", b.op("softmax", scores, axis=3), v), "y")
    graph = checked(b.finish(), simplify, lay_out)
    assert count(graph, "attention") == 1


@pytest.mark.parametrize("shape", [(3, 6, 8), (6, 8)])
def test_attention_without_heads(shape: tuple[int, ...]) -> None:
    b = Builder("single")
    q, k, v = (b.input(name, shape, "float32") for name in "qkv")
    swap = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
    scores = b.op("mul", b.op("matmul", q, b.op("transpose", k, perm=swap)), b.scalar(0.3, q))
    b.output(b.op("matmul", b.op("softmax", scores, axis=len(shape) - 1), v), "y")
    graph = checked(b.finish(), simplify)
    assert count(graph, "attention") == 1


def test_keys_shared_by_several_heads_are_not_repeated() -> None:
    b = Builder("grouped")
    q = b.input("q", (2, 6, 5, 8), "float32")
    k, v = (b.input(name, (2, 2, 7, 8), "float32") for name in "kv")

    def repeated(x: Value) -> Value:
        apart = b.op("reshape", x, shape=(2, 2, 1, 7, 8))
        return b.op("reshape", b.op("broadcast_to", apart, shape=(2, 2, 3, 7, 8)), shape=(2, 6, 7, 8))

    scores = b.op("matmul", q, b.op("transpose", repeated(k), perm=(0, 1, 3, 2)))
    b.output(b.op("matmul", b.op("softmax", scores, axis=3), repeated(v)), "y")
    graph = checked(b.finish(), simplify)
    assert ops(graph) == ["attention"]


def test_a_softmax_over_something_else_is_not_attention() -> None:
    b = Builder("other")
    q, k, v = (b.input(name, (2, 4, 6, 6), "float32") for name in "qkv")
    b.output(b.op("matmul", b.op("softmax", b.op("matmul", q, k), axis=2), v), "y")
    assert count(checked(b.finish(), simplify), "attention") == 0
