"""Attention: tiles and blocks with every kind of rest, masks, causal order, shared heads, other dtypes."""

import numpy as np
import pytest

from fleetui.workshop.graph.build import Builder
from fleetui.workshop.schedules import attention
from tests.helpers.kernels import check, random_feeds, using
from tests.helpers.products import targets

RULES = using(*attention.RULES)


class Attentions:
    def __init__(self):
        self.b, self.feeds, self.dice = Builder("attentions"), {}, np.random.default_rng(1)

    def add(
        self, heads=2, queries=5, keys=7, depth=8, *, wide=0, batch=1, shared=1, mask=None, causal=False,
        softcap=0.0, dtype="float32",
    ):  # fmt: skip
        b, tag = self.b, f"a{len(self.b.graph.nodes)}"
        shapes = [
            (batch, heads, queries, depth), (batch, heads // shared, keys, depth),
            (batch, heads // shared, keys, wide or depth),
        ]  # fmt: skip
        inputs = [b.input(f"{tag}.{name}", shape, dtype) for name, shape in zip("qkv", shapes, strict=True)]
        if mask is not None:
            kind, shape = mask
            inputs.append(b.input(f"{tag}.mask", shape, kind))
            if kind == "bool":
                seen = self.dice.random(shape) < 0.7
                seen[..., 0, :] = False  # a query that sees nothing
                self.feeds[f"{tag}.mask"] = seen
        attrs = {"scale": depth**-0.5, "causal": causal, "softcap": softcap}
        b.output(b.op("attention", *inputs, name=f"{tag}.out", **attrs), f"{tag}.out")

    def check(self, **more):
        graph = self.b.finish()
        return check(graph, {**random_feeds(graph, 2), **self.feeds}, lower=RULES, **more)


@pytest.mark.parametrize("target", ["host", "sse"])
def test_tiles_and_rests(target):
    some = Attentions()
    some.add(2, 5, 7, 8)
    some.add(1, 1, 40, 16)
    some.add(3, 33, 20, 12, wide=21)
    some.add(1, 48, 17, 5, wide=3, batch=2)
    some.add(1, 64, 64, 32)
    some.check(target=targets().get(target))


def test_more_keys_than_a_block():
    some = Attentions()
    some.add(1, 20, 600, 8, wide=19)
    some.add(2, 9, 512, 16, mask=("float32", (9, 512)))
    some.add(1, 150, 150, 8, causal=True)
    some.add(1, 40, 200, 8, causal=True)
    some.add(1, 7, 300, 8, mask=("bool", (1, 1, 7, 300)))
    some.check()


def test_masks_shared_heads_and_soft_caps():
    some = Attentions()
    some.add(4, 9, 11, 8, shared=2, mask=("bool", (9, 11)))
    some.add(2, 9, 11, 8, batch=2, mask=("float32", (2, 1, 1, 11)))
    some.add(2, 20, 20, 8, causal=True, softcap=2.0)
    some.add(4, 6, 5, 8, shared=4, causal=True)
    some.check()


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_dtypes(dtype):
    some = Attentions()
    some.add(2, 9, 11, 8, dtype=dtype, mask=(dtype, (1, 2, 9, 11)))
    some.check()


def test_scratch_does_not_grow_with_the_sequence():
    some = Attentions()
    some.add(1, 2, 5000, 8)
    compiled = some.check()
    own = [a.buffer for a in compiled.kernels[0].args if getattr(a.buffer, "per_worker", False)]
    assert own
    assert sum(int(np.prod(buffer.shape)) * 4 for buffer in own) < 64 << 10
