"""Random small graphs, and the comparison of a graph before and after a pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from fleetui.workshop.graph import ir
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Array, Graph, Value

NCHW = (0, 3, 1, 2)
NHWC = (0, 2, 3, 1)


def feeds(graph: Graph, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    made = {}
    for value in graph.inputs:
        if value.dtype.startswith("float"):
            made[value.name] = rng.standard_normal(value.shape).astype(value.dtype)
        elif value.dtype == "bool":
            made[value.name] = rng.random(value.shape) < 0.5
        else:
            made[value.name] = rng.integers(0, 3, value.shape).astype(value.dtype)
    return made


def same_results(before: Graph, after: Graph, tolerance: float = 1e-5, seed: int = 0) -> None:
    """Both hold together, have the same inputs and outputs, and compute the same."""
    after.verify()
    assert [(v.name, v.shape, v.dtype) for v in before.inputs] == [(v.name, v.shape, v.dtype) for v in after.inputs]
    assert [(v.name, v.shape, v.dtype) for v in before.outputs] == [
        (v.name, v.shape, v.dtype) for v in after.outputs
    ]
    given = feeds(before, seed)
    want, have = ir.run(before, given), ir.run(after, given)
    for name, array in want.items():
        if array.dtype.kind in "biu":
            assert np.array_equal(have[name], array), name
            continue
        scale = max(1.0, float(np.abs(array[np.isfinite(array)]).max(initial=0)))
        np.testing.assert_allclose(have[name], array, rtol=tolerance, atol=tolerance * scale, err_msg=name)


def checked(graph: Graph, *passes: Callable[[Graph], int], tolerance: float = 1e-5) -> Graph:
    """Run passes on a graph one after the other, comparing after each with what went in."""
    graph.verify()
    first = graph.copy()
    for one in passes:
        one(graph)
        same_results(first, graph, tolerance)
    return graph


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def count(graph: Graph, op: str) -> int:
    return ops(graph).count(op)


# ---------------------------------------------------------------- channel-first, as importers emit it


def conv(
    b: Builder, x: Value, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, pad: int = -1
) -> Value:
    """A convolution of a channel-first tensor: transposed, convolved, transposed back."""
    channels = x.shape[1]
    rng = np.random.default_rng(len(b.graph.nodes) + 7)
    w = rng.standard_normal((kernel, kernel, channels // groups, outputs)) / (kernel * (channels // groups) ** 0.5)
    pad = kernel // 2 if pad < 0 else pad
    turned = b.op("transpose", x, perm=NHWC)
    y = b.op(
        "conv",
        turned,
        b.constant(w.astype(x.dtype)),
        b.constant(rng.standard_normal(outputs).astype(x.dtype)),
        strides=(stride, stride),
        pads=((pad, pad), (pad, pad)),
        dilations=(1, 1),
        groups=groups,
    )
    return b.op("transpose", y, perm=NCHW)


def pool(b: Builder, x: Value, kind: str = "max", kernel: int = 2, stride: int = 2, pad: int = 0) -> Value:
    turned = b.op("transpose", x, perm=NHWC)
    out = tuple((d + 2 * pad - kernel) // stride + 1 for d in x.shape[2:])
    y = b.op(
        "pool",
        turned,
        kind=kind,
        kernel=(kernel, kernel),
        strides=(stride, stride),
        pads=((pad, pad), (pad, pad)),
        dilations=(1, 1),
        count_include_pad=False,
        out=out,
    )
    return b.op("transpose", y, perm=NCHW)


def norm(b: Builder, x: Value) -> Value:
    """A batch norm as a product and a sum along dimension 1."""
    rng = np.random.default_rng(len(b.graph.nodes) + 3)
    shape = (1, x.shape[1], 1, 1)
    scaled = b.op("mul", x, b.constant((rng.random(shape) + 0.5).astype(x.dtype)))
    return b.op("add", scaled, b.constant(rng.standard_normal(shape).astype(x.dtype)))


def dense(b: Builder, x: Value, outputs: int) -> Value:
    rng = np.random.default_rng(len(b.graph.nodes) + 5)
    w = b.constant((rng.standard_normal((outputs, x.shape[-1])) / x.shape[-1] ** 0.5).astype(x.dtype))
    return b.op(
        "add", b.op("matmul", x, w, transpose_b=True), b.constant(rng.standard_normal(outputs).astype(x.dtype))
    )


# ---------------------------------------------------------------- random graphs

UNARY = ("relu", "neg", "abs", "sigmoid", "tanh", "hard_swish", "softplus", "identity", "silu", "erf", "sign")


def _numbers(draw: Any, shape: tuple[int, ...]) -> Array:
    kind = draw(st.sampled_from(["zeros", "ones", "same", "random"]))
    if kind == "zeros":
        return np.zeros(shape)
    if kind == "ones":
        return np.ones(shape)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return np.full(shape, rng.standard_normal()) if kind == "same" else rng.standard_normal(shape)


def _permutation(draw: Any, rank: int) -> tuple[int, ...]:
    usual = [p for p in (NCHW, NHWC, (0, 2, 1), (1, 0)) if len(p) == rank]
    return tuple(draw(st.one_of(st.permutations(range(rank)), *([st.sampled_from(usual)] if usual else []))))


def _constant_shape(draw: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    kept = [d if draw(st.booleans()) else 1 for d in shape]
    return tuple(kept[draw(st.integers(0, len(kept))) :])


def _step(draw: Any, b: Builder, pool_of: list[Value]) -> Value | None:
    x = draw(st.sampled_from(pool_of[-4:]))
    op = draw(
        st.sampled_from(
            ["unary", "clip", "constant", "pair", "transpose", "reshape", "concat", "slice", "pad", "reduce",
             "softmax", "conv", "pool", "matmul", "where", "gather", "broadcast", "cast", "norm", "flip", "argmax",
             "rows"]
        )
    )  # fmt: skip
    rank = x.rank
    axis = draw(st.integers(0, max(rank - 1, 0)))
    if op == "unary":
        return b.op(draw(st.sampled_from(UNARY)), x)
    if op == "clip":
        low, high = sorted(draw(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 6.0]), min_size=2, max_size=2)))
        bounds = draw(st.sampled_from([(low, high), (None, high), (low, None)]))
        return b.op("clip", x, low=bounds[0], high=bounds[1])
    if op == "constant":
        numbers = _numbers(draw, _constant_shape(draw, x.shape))
        how = draw(st.sampled_from(["add", "mul", "sub", "maximum", "minimum", "div"]))
        c = b.constant(np.abs(numbers) + 1 if how == "div" else numbers)
        inputs = (c, x) if how in {"sub", "add", "mul"} and draw(st.booleans()) else (x, c)
        return b.op(how, *inputs)
    if op == "pair":
        others = [v for v in pool_of if v.shape == x.shape] or [x]
        return b.op(draw(st.sampled_from(["add", "sub", "mul", "maximum"])), x, draw(st.sampled_from(others)))
    if op == "where":
        others = [v for v in pool_of if v.shape == x.shape] or [x]
        condition = b.op("greater", x, b.constant(_numbers(draw, ())))
        return b.op("where", condition, draw(st.sampled_from(others)), x)
    if op == "cast":
        return b.op("cast", b.op("cast", x, to="float32"), to="float64")
    if rank == 0 or x.size == 0:
        return None
    if op == "transpose":
        return b.op("transpose", x, perm=_permutation(draw, rank))
    if op == "norm" and rank == 4:
        return norm(b, x)
    if op == "conv" and rank == 4:
        return conv(b, x, draw(st.sampled_from([2, 4])), draw(st.sampled_from([1, 3])))
    if op == "pool" and rank == 4 and min(x.shape[2:]) >= 2:
        return pool(b, x, draw(st.sampled_from(["max", "avg"])))
    if op == "matmul":
        w = b.constant(np.random.default_rng(3).standard_normal((x.shape[-1], 3)))
        return b.op("matmul", x, w) if rank >= 2 else None
    if op == "rows" and rank > 2:
        rows = dense(b, b.op("reshape", x, shape=(-(-x.size // x.shape[-1]), x.shape[-1])), 4)
        return b.op("reshape", b.op("tanh", rows), shape=(*x.shape[:-1], 4))
    if op == "reshape":
        shape = list(x.shape)
        if draw(st.booleans()) and rank > 1:
            cut = draw(st.integers(0, rank - 2))
            shape[cut : cut + 2] = [shape[cut] * shape[cut + 1]]
        elif x.shape[axis] % 2 == 0:
            shape[axis : axis + 1] = draw(st.sampled_from([[2, x.shape[axis] // 2], [x.shape[axis] // 2, 2]]))
        else:
            shape.insert(axis, 1)
        return b.op("reshape", x, shape=tuple(shape)) if len(shape) <= 5 else None
    if op == "concat":
        parts = [v for v in pool_of if v.rank == rank and v.shape[:axis] == x.shape[:axis]
                 and v.shape[axis + 1 :] == x.shape[axis + 1 :]]  # fmt: skip
        chosen = draw(st.lists(st.sampled_from(parts), min_size=1, max_size=3))
        return b.op("concat", *chosen, axis=axis) if sum(v.size for v in chosen) < 4096 else None
    if op in {"slice", "flip"}:
        starts, stops, steps = [0] * rank, list(x.shape), [1] * rank
        if op == "flip":
            starts[axis], stops[axis], steps[axis] = x.shape[axis] - 1, -1, -1
        else:
            starts[axis] = draw(st.integers(0, x.shape[axis] - 1))
            stops[axis] = draw(st.integers(starts[axis] + 1, x.shape[axis]))
            steps[axis] = draw(st.sampled_from([1, 1, 2]))
        return b.op("slice", x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))
    if op == "pad" and x.size < 1024:
        before, after = [0] * rank, [0] * rank
        before[axis], after[axis] = draw(st.integers(0, 2)), draw(st.integers(0, 1))
        mode = draw(st.sampled_from(["constant", "constant", "edge", "reflect"]))
        return b.op(
            "pad", x, before=tuple(before), after=tuple(after), mode=mode, value=draw(st.sampled_from([0.0, 1.0]))
        )
    if op == "reduce":
        axes = tuple(sorted(draw(st.sets(st.integers(0, rank - 1), max_size=rank))))
        kind = draw(st.sampled_from(["sum", "mean", "max", "min"]))
        return b.op("reduce", x, kind=kind, axes=axes, keepdims=draw(st.booleans()))
    if op == "argmax":
        found = b.op("argmax", x, axis=axis, keepdims=draw(st.booleans()), last=False)
        return b.op("cast", found, to="float64")
    if op == "softmax":
        return b.op(draw(st.sampled_from(["softmax", "log_softmax"])), x, axis=axis)
    if op == "gather":
        at = draw(st.lists(st.integers(-x.shape[axis], x.shape[axis] - 1), min_size=1, max_size=3))
        return b.op("gather", x, b.constant(np.array(at)), axis=axis)
    if op == "broadcast" and x.size < 512:
        return b.op("broadcast_to", x, shape=tuple(3 if d == 1 and draw(st.booleans()) else d for d in x.shape))
    return None


@st.composite
def graphs(draw: Any) -> Graph:
    """In float64, so that a difference is a mistake and not a rounding."""
    b = Builder("random")
    shape = draw(st.sampled_from([(1, 4, 6, 4), (2, 4, 4, 6), (1, 2, 1, 1), (3, 4, 2), (4, 6), (5,)]))
    pool_of = [b.input("x", shape, "float64")]
    if draw(st.booleans()):
        pool_of.append(b.input("y", shape, "float64"))
    for _ in range(draw(st.integers(1, 14))):
        made = _step(draw, b, pool_of)
        if made is not None and made.data is None and made.size <= 4096:
            pool_of.append(made)
    for index in range(draw(st.integers(1, 2))):
        b.output(pool_of[-1 - index] if index < len(pool_of) else pool_of[-1], f"out{index}")
    return b.finish()
