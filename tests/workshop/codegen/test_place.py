from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetui.workshop.codegen.place import normal, place, reshaped
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import run
from fleetui.workshop.graph.ops import evaluate
from fleetui.workshop.kernel import Group, dense_strides

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def alone(graph):
    """A group for every node."""
    return [
        Group([n], n, [v for v in n.inputs if v is not None and v.data is None], list(n.outputs))
        for n in graph.nodes
    ]


def view_of(buffers, layout, value):
    """The value as numpy sees it where the layout has put it."""
    spot = layout.of(value)
    flat = buffers.setdefault(spot.base, np.full(spot.base.size, np.nan, np.float32))
    steps = [4 * stride for stride in spot.strides]
    last = spot.offset + sum((d - 1) * s for d, s in zip(value.shape, spot.strides, strict=True))
    assert spot.offset >= 0
    assert last < flat.size
    return np.lib.stride_tricks.as_strided(flat[spot.offset :], value.shape, steps)


def played(graph, groups, layout, feeds):
    """Runs the graph over planned memory: skipped groups do nothing, partly placed ones copy the rest."""
    buffers = {}
    for value in graph.inputs:
        view_of(buffers, layout, value)[...] = feeds[value.name]

    def get(value):
        return value.data if value.data is not None else view_of(buffers, layout, value).copy()

    for index, group in enumerate(groups):
        if index in layout.skipped:
            continue
        if index in layout.parts:
            for value, spot in layout.parts[index]:
                whole = buffers.setdefault(spot.base, np.full(spot.base.size, np.nan, np.float32))
                into = np.lib.stride_tricks.as_strided(
                    whole[spot.offset :], value.shape, [4 * s for s in spot.strides]
                )
                into[...] = get(value)
            continue
        node = group.anchor
        made = evaluate(node.op, [None if v is None else get(v) for v in node.inputs], node.attrs)
        for value, array in zip(node.outputs, made, strict=True):
            view_of(buffers, layout, value)[...] = array
    return {value.name: get(value) for value in graph.outputs}


def checked(graph):
    groups = alone(graph)
    layout = place(graph, groups)
    rng = np.random.default_rng(3)
    feeds = {v.name: rng.standard_normal(v.shape).astype(np.float32) for v in graph.inputs}
    want, have = run(graph, feeds), played(graph, groups, layout, feeds)
    for name, array in want.items():
        np.testing.assert_array_equal(have[name], array)
    for value in graph.outputs:
        assert value not in layout.views, "the caller's buffer is dense and its own"
    return groups, layout


@settings(max_examples=300, deadline=None)
@given(SHAPES, st.data())
def test_reshaped_strides_walk_the_same_elements(shape, data):
    """Against numpy, which copies exactly where there are no such strides."""
    big = tuple(d * data.draw(st.integers(1, 2)) for d in shape)
    order = data.draw(st.permutations(range(len(shape))))
    whole = np.arange(int(np.prod(big)), dtype=np.float32).reshape(big)
    part = whole[tuple(slice(0, d) for d in shape)].transpose(order)
    sizes, rest = [], part.size
    while rest > 1 and len(sizes) < 4:
        factor = data.draw(st.sampled_from([d for d in range(1, rest + 1) if rest % d == 0]))
        sizes.append(factor)
        rest //= factor
    new = (*sizes, rest)
    strides = reshaped(part.shape, normal(part.shape, [s // 4 for s in part.strides]), new)
    copied = not np.shares_memory(part.reshape(new), whole)
    assert (strides is None) == copied
    if strides is not None:
        seen = np.lib.stride_tricks.as_strided(whole.reshape(-1), new, [4 * s for s in strides])
        np.testing.assert_array_equal(seen, part.reshape(new))


def test_parts_of_an_innermost_concatenation_are_written_in_place():
    b = Builder("fire")
    x = b.input("x", (1, 5, 5, 8), "float32")
    left, right = b.op("relu", x), b.op("neg", x)
    b.output(b.op("exp", b.op("concat", left, right, axis=3)), "y")
    graph = b.finish()
    _groups, layout = checked(graph)
    whole = layout.of(left).base
    assert layout.of(left).strides == (400, 80, 16, 1)
    assert (layout.of(right).base, layout.of(right).offset) == (whole, 8)
    assert len(layout.skipped) == 1 + (graph.nodes[-1].op == "identity")
    assert not layout.parts


def test_a_chain_of_concatenations_ends_in_one_buffer():
    b = Builder("dense")
    x = b.op("relu", b.input("x", (1, 4, 4, 8), "float32"))
    for _ in range(5):
        x = b.op(
            "concat",
            x,
            b.op("tanh", b.op("slice", x, starts=(0, 0, 0, 0), stops=(1, 4, 4, 4), steps=(1,) * 4)),
            axis=3,
        )
    b.output(b.op("exp", x), "y")
    graph = b.finish()
    groups, layout = checked(graph)
    joined = [n.output for n in graph.nodes if n.op == "concat"]
    assert {layout.of(value).base for value in joined} == {joined[-1]}
    assert all(i in layout.skipped for i, g in enumerate(groups) if g.anchor.op in {"concat", "slice"})


def test_what_cannot_move_is_copied():
    """A graph input, a constant, a value twice in one concatenation, a value in two, an output of the model."""
    b = Builder("awkward")
    x = b.input("x", (2, 3), "float32")
    y = b.op("relu", x)
    z = b.op("neg", x)
    c = b.constant(np.ones((2, 3), np.float32))
    first = b.op("concat", y, x, y, c, z, axis=1)
    second = b.op("concat", z, y, axis=0)
    b.output(b.op("exp", first), "a")
    b.output(b.op("exp", second), "b")
    b.output(z, "z")
    graph = b.finish()
    _groups, layout = checked(graph)
    assert layout.parts


def test_outputs_are_written_where_the_caller_wants_them():
    b = Builder("tail")
    x = b.op("relu", b.input("x", (1, 2, 2, 3), "float32"))
    flat = b.op("reshape", x, shape=(1, 12))
    b.output(flat, "y")
    graph = b.finish()
    _groups, layout = checked(graph)
    assert layout.of(x).base is graph.outputs[0]
    assert len(layout.skipped) == len(graph.nodes) - 1


def test_heads_reshaped_and_joined_are_written_in_place():
    b = Builder("ssd")
    x = b.input("x", (1, 4, 4, 2), "float32")
    heads = [b.op("reshape", b.op(op, x), shape=(1, 16, 2)) for op in ("relu", "neg", "tanh")]
    b.output(b.op("concat", *heads, axis=1), "y")
    graph = b.finish()
    groups, layout = checked(graph)
    assert {g.anchor.op for i, g in enumerate(groups) if i not in layout.skipped} == {"relu", "neg", "tanh"}


@st.composite
def graphs(draw):
    """Random chains of concatenations, slices, reshapes and arithmetic over a few shapes."""
    b = Builder("random")
    shape = draw(st.sampled_from([(1, 2, 2, 4), (2, 4), (1, 3, 2), (2, 2, 2)]))
    pool = [b.input("x", shape, "float32"), b.constant(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))]
    pool.append(b.op("relu", pool[0]))
    for _ in range(draw(st.integers(3, 12))):
        value = draw(st.sampled_from(pool[-5:]))
        kind = draw(st.sampled_from(["unary", "concat", "slice", "reshape", "transpose"]))
        if kind == "unary":
            made = b.op(draw(st.sampled_from(["neg", "tanh", "identity"])), value)
        elif kind == "concat":
            axis = draw(st.integers(0, value.rank - 1))
            fits = [
                v
                for v in pool
                if v.rank == value.rank
                and all(p == q for k, (p, q) in enumerate(zip(v.shape, value.shape, strict=True)) if k != axis)
            ]
            made = b.op("concat", *draw(st.lists(st.sampled_from(fits), min_size=1, max_size=3)), value, axis=axis)
        elif kind == "slice":
            starts = tuple(draw(st.integers(0, d - 1)) for d in value.shape)
            stops = tuple(draw(st.integers(s + 1, d)) for s, d in zip(starts, value.shape, strict=True))
            steps = tuple(draw(st.integers(1, 2)) for _ in value.shape)
            made = b.op("slice", value, starts=starts, stops=stops, steps=steps)
        elif kind == "reshape":
            size, sizes = value.size, []
            while size > 1 and len(sizes) < 3:
                sizes.append(draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0])))
                size //= sizes[-1]
            made = b.op("reshape", value, shape=(*sizes, size))
        else:
            made = b.op("transpose", value, perm=tuple(draw(st.permutations(range(value.rank)))))
        if made.size <= 512:
            pool.append(made)
    for index, value in enumerate(draw(st.lists(st.sampled_from(pool[2:]), min_size=1, max_size=3))):
        b.output(value, f"y{index}")
    return b.finish()


@settings(max_examples=250, deadline=None)
@given(graphs())
def test_any_graph_computes_the_same_over_placed_memory(graph):
    checked(graph)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 2), (1,), ()])
def test_axes_of_one_element_take_the_strides_of_a_dense_tensor(shape):
    assert normal(shape, dense_strides(shape)) == dense_strides(shape)
