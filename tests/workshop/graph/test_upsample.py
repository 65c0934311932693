"""Transposed convolutions turned into ordinary ones give the same numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetui.workshop.graph import ir, passes
from fleetui.workshop.graph.build import Builder


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_phase_lands_where_it_belongs(draw: st.DataObject) -> None:
    rank = draw.draw(st.integers(1, 3))
    kernel, strides, pads, extra, size = [], [], [], [], []
    for _ in range(rank):
        k, s = draw.draw(st.integers(1, 5)), draw.draw(st.integers(1, 3))
        kernel.append(k)
        strides.append(s)
        extra.append(draw.draw(st.integers(0, s - 1)))
        size.append(draw.draw(st.integers(1, 4)))
        room = (size[-1] - 1) * s + k + extra[-1] - 1
        before = draw.draw(st.integers(0, min(2, room)))
        pads.append((before, draw.draw(st.integers(0, min(2, room - before)))))
    rng = np.random.default_rng(draw.draw(st.integers(0, 99)))
    x = rng.standard_normal((2, *size, 3)).astype(np.float32)
    b = Builder("up")
    bias = b.constant(rng.standard_normal(4).astype(np.float32)) if draw.draw(st.booleans()) else None
    y = b.op(
        "conv_transpose", b.input("x", x.shape, "float32"),
        b.constant(rng.standard_normal((*kernel, 3, 4)).astype(np.float32)), bias,
        strides=tuple(strides), pads=tuple(pads), dilations=(1,) * rank, output_padding=tuple(extra), groups=1,
    )  # fmt: skip
    b.output(y, "y")
    graph = b.finish()
    want = ir.run(graph, {"x": x})["y"]
    passes.simplify(graph)
    passes.lay_out(graph)
    graph.verify()
    assert all(node.op != "conv_transpose" for node in graph.nodes)
    np.testing.assert_allclose(ir.run(graph, {"x": x})["y"], want, rtol=1e-5, atol=1e-5)


def test_grouped_and_dilated_ones_are_left_alone() -> None:
    for groups, dilation in ((2, 1), (1, 2)):
        b = Builder("up")
        w = b.constant(np.ones((2, 2, 4, 4 // groups), np.float32))
        y = b.op(
            "conv_transpose", b.input("x", (1, 3, 3, 4), "float32"), w, None, strides=(2, 2),
            pads=((0, 0), (0, 0)), dilations=(dilation, dilation), output_padding=(0, 0), groups=groups,
        )  # fmt: skip
        b.output(y, "y")
        graph = b.finish()
        passes.lay_out(graph)
        assert [node.op for node in graph.nodes] == ["conv_transpose"]
