"""Transposed convolutions as ordinary ones.

With a stride s, output pixel s·q + p takes only every s-th tap of the kernel, from p on. So one convolution of
⌈K/s⌉ taps, whose output channels are those of all s phases side by side, computes everything; then the phases are
put between each other (a transpose that moves whole rows of channels). Where K is a multiple of s, as in U-Nets
and most decoders, no multiplication is wasted. Dilated and grouped ones, and those with computed weights, are left.
"""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np

from fleetui.workshop.graph.ir import Array, Node
from fleetui.workshop.graph.passes.rewrite import Editor, Rules


def _as_convolution(editor: Editor, node: Node) -> bool:
    x, w, attrs = node.input(0), node.input(1), node.attrs
    rank = x.rank - 2
    plain = attrs["groups"] == 1 and all(d == 1 for d in attrs["dilations"])
    if w.data is None or not plain or any(length < 1 for length in node.output.shape):
        return False
    bias = node.optional(2)
    if bias is not None and bias.data is None:
        return False
    strides, kernel = tuple(attrs["strides"]), w.shape[:rank]
    taps = [-(-k // s) for k, s in zip(kernel, strides, strict=True)]
    full = [
        (x.shape[1 + i] - 1) * strides[i] + kernel[i] + attrs["output_padding"][i] for i in range(rank)
    ]  # before cropping
    counts = [-(-length // s) for length, s in zip(full, strides, strict=True)]
    weights = editor.constant(phases(w.data, strides), w.name, w.dtype)
    wide = None
    if bias is not None:
        assert bias.data is not None
        wide = editor.constant(np.tile(bias.data, prod(strides)), bias.name, bias.dtype)
    made = editor.op(
        "conv",
        x,
        weights,
        wide,
        source=node.source,
        strides=(1,) * rank,
        pads=tuple((t - 1, count - d) for t, count, d in zip(taps, counts, x.shape[1:-1], strict=True)),
        dilations=(1,) * rank,
        groups=1,
    )
    channels = w.shape[-1]
    if prod(strides) > 1:
        made = editor.op("reshape", made, source=node.source, shape=(x.shape[0], *counts, *strides, channels))
        order = [0, *(axis for i in range(rank) for axis in (1 + i, 1 + rank + i)), 1 + 2 * rank]
        made = editor.op("transpose", made, source=node.source, perm=tuple(order))
        whole = [count * s for count, s in zip(counts, strides, strict=True)]
        made = editor.op("reshape", made, source=node.source, shape=(x.shape[0], *whole, channels))
    if made.shape != node.output.shape:
        starts = (0, *(before for before, _ in attrs["pads"]), 0)
        stops = tuple(a + d for a, d in zip(starts, node.output.shape, strict=True))
        steps = (1,) * made.rank
        made = editor.op("slice", made, source=node.source, starts=starts, stops=stops, steps=steps)
    editor.replace(node.output, made)
    return True


def phases(w: Array, strides: tuple[int, ...]) -> Array:
    """[*K, C, M] → [*⌈K/s⌉, C, s…·M], taps turned round, missing ones zero."""
    rank = len(strides)
    kernel, (c, m) = w.shape[:rank], w.shape[rank:]
    taps = [-(-k // s) for k, s in zip(kernel, strides, strict=True)]
    out = np.zeros((*taps, c, *strides, m), w.dtype)
    for at in product(*map(range, kernel)):
        phase = tuple(t % s for t, s in zip(at, strides, strict=True))
        place = tuple(n - 1 - t // s for n, t, s in zip(taps, at, strides, strict=True))
        out[(*place, slice(None), *phase, slice(None))] = w[at]
    return np.ascontiguousarray(out.reshape(*taps, c, prod(strides) * m))


UPSAMPLE: Rules = {"conv_transpose": [_as_convolution]}
