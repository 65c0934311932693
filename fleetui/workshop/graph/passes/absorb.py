"""Matrix products and convolutions take in what stands around them.

A product by constants along the channels goes into the weights, a sum into the bias: behind the operator always,
ahead of it where padding allows (a padded zero is not shifted). Transposes and reshapes that leave the channels in
one piece do not hinder. Zero padding ahead goes into the window. A matrix product by a constant is a ``dense``.
Weights that are expanded from a narrow constant (``dequantize``) take a factor into their scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from fleetui.workshop.graph.ir import Array, Graph, Node, Value, numpy_dtype
from fleetui.workshop.graph.passes.constants import FLOATS, keeps_shape, other
from fleetui.workshop.graph.passes.rewrite import Editor, Rules, run

CONTRACTIONS = frozenset({"conv", "conv_transpose", "dense"})


@dataclass(slots=True)
class Along:
    """Numbers along one dimension of a tensor (``axis``), or one number for all of it (no axis)."""

    numbers: Array
    axis: int | None


def _along(x: Value, c: Value) -> Along | None:
    """A constant operand as numbers along one dimension of the other one."""
    if c.data is None or not keeps_shape(x, c):
        return None
    offset = x.rank - c.rank
    wide = [axis for axis, d in enumerate(c.shape) if d != 1]
    numbers = c.data.astype(np.float64).reshape(-1)
    if not wide:
        return Along(numbers, None)
    return Along(numbers, wide[0] + offset) if len(wide) == 1 else None


def _through(node: Node, axis: int) -> int | None:
    """Which dimension of a moving node's input is this dimension of its output."""
    before, after = node.input(0).shape, node.output.shape
    if node.op == "transpose":
        return int(node.attrs["perm"][axis])
    ahead = prod(after[:axis])
    for at, length in enumerate(before):
        if length == after[axis] and prod(before[:at]) == ahead:
            return at
    return None


def _behind(editor: Editor, value: Value, along: Along) -> tuple[Node, Array] | None:
    """The contraction that makes a value nobody else sees, and the numbers along its channels."""
    axis = along.axis
    while editor.private(value):
        maker = editor.maker(value)
        if maker is None:
            return None
        if maker.op in CONTRACTIONS:
            if axis is not None and axis != value.rank - 1:
                return None
            return maker, np.broadcast_to(along.numbers, (value.shape[-1],))
        if maker.op not in {"transpose", "reshape"}:
            return None
        if axis is not None:
            axis = _through(maker, axis)
            if axis is None:
                return None
        value = maker.input(0)
    return None


# ---------------------------------------------------------------- weights


def _times(weights: Array, factors: Array) -> Array:
    """Rounded once to the weights' own dtype."""
    kind = np.float64 if weights.dtype == np.float64 else np.float32
    return (weights.astype(kind) * factors.astype(kind)).astype(weights.dtype)


def _scaled_outputs(editor: Editor, node: Node, factors: Array) -> Value | None:
    """Weights that give outputs multiplied by ``factors``."""
    w = node.input(1)
    if not editor.private(w):
        return None
    if w.data is not None:
        if node.op == "conv_transpose":
            groups = node.attrs["groups"]
            split = (*w.shape[:-2], groups, w.shape[-2] // groups, w.shape[-1])
            scaled = _times(w.data.reshape(split), factors.reshape(groups, 1, w.shape[-1]))
            return editor.constant(scaled.reshape(w.shape), w.name, w.dtype)
        return editor.constant(_times(w.data, factors), w.name, w.dtype)
    expanded = editor.maker(w, "dequantize")
    if expanded is None or node.op == "conv_transpose":
        return None
    return _scaled_codes(editor, expanded, factors)


def _scaled_codes(editor: Editor, expanded: Node, factors: Array) -> Value | None:
    codes, scale, zero = expanded.input(0), expanded.input(1), expanded.optional(2)
    last, attrs = codes.rank - 1, dict(expanded.attrs)
    if codes.data is None or scale.data is None or (zero is not None and zero.data is None):
        return None
    if scale.rank == 0:
        length = codes.shape[-1]
        if zero is not None:
            assert zero.data is not None
            zero = editor.constant(np.full(length, zero.data), zero.name, zero.dtype)
        attrs["axis"] = last
    elif (attrs["axis"] == last) == bool(attrs.get("block", 0)):
        return None  # scales that do not run along the outputs, or change within one
    scales = editor.constant(_times(scale.data, factors), scale.name, scale.dtype)
    return editor.op("dequantize", codes, scales, zero, source=expanded.source, **attrs)


def _bias(editor: Editor, node: Node, times: Array | None, plus: Array | None) -> Value | None:
    old, out = node.optional(2), node.output
    numbers = np.zeros(out.shape[-1]) if old is None or old.data is None else old.data.astype(np.float64)
    numbers = numbers if times is None else numbers * times
    numbers = numbers if plus is None else numbers + plus
    name = old.name if old is not None else "bias"
    return editor.constant(numbers.astype(numpy_dtype(out.dtype)), name, out.dtype)


def _constant_bias(node: Node) -> bool:
    bias = node.optional(2)
    return bias is None or bias.data is not None


# ---------------------------------------------------------------- behind


def _scale_behind(editor: Editor, node: Node) -> bool:
    pair = other(node.inputs)
    if pair is None or node.output.dtype not in FLOATS or pair[0].shape != node.output.shape:
        return False
    x, c = pair
    along = _along(x, c)
    found = _behind(editor, x, along) if along is not None else None
    if found is None or not _constant_bias(found[0]):
        return False
    into, factors = found
    weights = _scaled_outputs(editor, into, factors)
    if weights is None:
        return False
    if into.optional(2) is not None:
        editor.set_input(into, 2, _bias(editor, into, factors, None))
    editor.set_input(into, 1, weights)
    editor.replace(node.output, x)
    return True


def _shift_behind(editor: Editor, node: Node) -> bool:
    pair = other(node.inputs)
    if pair is None or node.output.dtype not in FLOATS or pair[0].shape != node.output.shape:
        return False
    x, c = pair
    along = _along(x, c)
    found = _behind(editor, x, along) if along is not None else None
    if found is None or not _constant_bias(found[0]):
        return False
    into, numbers = found
    editor.set_input(into, 2, _bias(editor, into, None, numbers))
    editor.replace(node.output, x)
    return True


# ---------------------------------------------------------------- ahead


def _ahead(editor: Editor, node: Node) -> tuple[Node, Array, list[Node]] | None:
    """A private product or sum with constants ahead of a contraction, its numbers along the channels, and the
    moving nodes in between, nearest to the contraction first.
    """
    value, axis, between = node.input(0), node.input(0).rank - 1, list[Node]()
    while editor.private(value):
        maker = editor.maker(value)
        if maker is None or maker.outputs[0].dtype not in FLOATS:
            return None
        if maker.op in {"mul", "add"}:
            pair = other(maker.inputs)
            along = _along(*pair) if pair is not None and pair[0].shape == value.shape else None
            if along is None or along.axis not in {None, axis}:
                return None
            return maker, np.broadcast_to(along.numbers, (value.shape[axis],)), between
        if maker.op not in {"transpose", "reshape"}:
            return None
        before = _through(maker, axis)
        if before is None:
            return None
        between.append(maker)
        value, axis = maker.input(0), before
    return None


def _unwrap(editor: Editor, maker: Node, between: list[Node], node: Node) -> None:
    """Feed a contraction with what its scaled or shifted input was made from."""
    pair = other(maker.inputs)
    assert pair is not None
    if between:
        editor.set_input(between[-1], 0, pair[0])
    else:
        editor.set_input(node, 0, pair[0])


def _grouped_inputs(node: Node, numbers: Array) -> Array:
    """Numbers along the input channels in a shape that broadcasts against the weights."""
    w = node.input(1)
    if node.op != "conv" or node.attrs["groups"] == 1:
        return numbers.reshape(-1, 1)
    groups = node.attrs["groups"]
    each = w.shape[-1] // groups
    return np.repeat(numbers.reshape(groups, w.shape[-2]).T, each, axis=1)


def _absorb_ahead(editor: Editor, node: Node) -> bool:
    w = node.input(1)
    if w.data is None or node.output.dtype not in FLOATS or not _constant_bias(node) or not editor.private(w):
        return False
    found = _ahead(editor, node)
    if found is None:
        return False
    maker, numbers, between = found
    spread = _grouped_inputs(node, numbers)
    if maker.op == "mul":
        editor.set_input(node, 1, editor.constant(_times(w.data, spread), w.name, w.dtype))
    else:
        padded = node.op == "conv" and any(p for pair in node.attrs["pads"] for p in pair)
        if node.op == "conv_transpose" or (padded and bool(np.any(numbers))):
            return False
        total = (w.data.astype(np.float64) * spread).reshape(-1, w.shape[-1]).sum(0)
        editor.set_input(node, 2, _bias(editor, node, None, total))
    _unwrap(editor, maker, between, node)
    return True


# ---------------------------------------------------------------- padding


def _pad_ahead(editor: Editor, node: Node) -> tuple[Node, Node | None, tuple[int, ...], tuple[int, ...]] | None:
    """A padding ahead, perhaps on the other side of a transpose: both, and the widths as this node sees them."""
    value = node.input(0)
    turn = editor.maker(value, "transpose")
    pad = editor.maker(value if turn is None else turn.input(0), "pad")
    if pad is None or pad.attrs["mode"] != "constant":
        return None
    before, after = tuple(pad.attrs["before"]), tuple(pad.attrs["after"])
    x = pad.input(0)
    perm = tuple(turn.attrs["perm"]) if turn is not None else tuple(range(x.rank))
    before, after = tuple(before[p] for p in perm), tuple(after[p] for p in perm)
    if before[0] or after[0] or before[-1] or after[-1]:
        return None
    return pad, turn, before[1:-1], after[1:-1]


def _unpad(editor: Editor, node: Node, pad: Node, turn: Node | None) -> None:
    bare = pad.input(0)
    if turn is not None:
        bare = editor.op("transpose", bare, source=turn.source, perm=turn.attrs["perm"])
    editor.set_input(node, 0, bare)


def _merge_pad_conv(editor: Editor, node: Node) -> bool:
    found = _pad_ahead(editor, node)
    if found is None or found[0].attrs.get("value", 0) != 0:
        return False
    pad, turn, before, after = found
    node.attrs["pads"] = tuple(
        (b + p, a + q) for b, a, (p, q) in zip(before, after, node.attrs["pads"], strict=True)
    )
    _unpad(editor, node, pad, turn)
    return True


def _never_negative(editor: Editor, value: Value) -> bool:
    maker = editor.maker(value)
    while maker is not None and maker.op in {"transpose", "reshape"}:
        maker = editor.maker(maker.input(0))
    if maker is None:
        return False
    if maker.op == "clip":
        return maker.attrs["low"] is not None and maker.attrs["low"] >= 0
    return maker.op in {"relu", "sigmoid", "softplus", "abs", "exp", "softmax", "hard_sigmoid"}


def _merge_pad_pool(editor: Editor, node: Node) -> bool:
    found = _pad_ahead(editor, node)
    if found is None:
        return False
    pad, turn, before, after = found
    kind, value, pads = node.attrs["kind"], pad.attrs.get("value", 0), node.attrs["pads"]
    bare_pads = not any(p for pair in pads for p in pair)
    if kind == "max":
        nothing = value == -np.inf or (value == 0 and _never_negative(editor, pad.input(0)))
        # a window that sees nothing but padding would give the padding's value
        reach = [d * (k - 1) + 1 for k, d in zip(node.attrs["kernel"], node.attrs["dilations"], strict=True)]
        sees = all(b < r and a < r for b, a, r in zip(before, after, reach, strict=True))
        if not nothing or not (sees or value == -np.inf) or not bare_pads:
            return False
    elif value != 0 or not (bare_pads or (kind == "avg" and node.attrs["count_include_pad"]) or kind != "avg"):
        return False
    node.attrs["pads"] = tuple((b + p, a + q) for b, a, (p, q) in zip(before, after, pads, strict=True))
    if kind == "avg":
        node.attrs["count_include_pad"] = True
    _unpad(editor, node, pad, turn)
    return True


# ---------------------------------------------------------------- matrix products


def is_weight(editor: Editor, value: Value) -> bool:
    """A constant, or one that is expanded from a narrow constant."""
    if value.data is not None:
        return True
    maker = editor.maker(value)
    while maker is not None and maker.op in {"dequantize", "cast", "transpose", "reshape"}:
        first = maker.input(0)
        if first.data is not None:
            return True
        maker = editor.maker(first)
    return False


def _swap(rank: int) -> tuple[int, ...]:
    return (*range(rank - 2), rank - 1, rank - 2)


def _dense(editor: Editor, node: Node) -> bool:
    """By a constant matrix: ``dense``, with the weights the right way round."""
    a, b = node.input(0), node.input(1)
    if a.data is not None or not is_weight(editor, b) or any(d != 1 for d in b.shape[:-2]):
        return False
    if b.rank > 2:
        b = editor.op("reshape", b, source=node.source, shape=b.shape[-2:])
    if node.attrs.get("transpose_b", False):
        b = editor.op("transpose", b, source=node.source, perm=(1, 0))
    if node.attrs.get("transpose_a", False):
        a = editor.op("transpose", a, source=node.source, perm=_swap(a.rank))
    made = editor.op("dense", a, b, source=node.source)
    if made.shape != node.output.shape:
        made = editor.op("reshape", made, source=node.source, shape=node.output.shape)
    editor.replace(node.output, made)
    return True


def _turned_operand(editor: Editor, node: Node) -> bool:
    """A transposed operand is read transposed, not moved."""
    for index, key in enumerate(("transpose_a", "transpose_b")):
        turn = editor.maker(node.input(index), "transpose")
        if turn is not None and tuple(turn.attrs["perm"]) == _swap(turn.output.rank):
            node.attrs[key] = not node.attrs.get(key, False)
            editor.set_input(node, index, turn.input(0))
            return True
    return False


ABSORB: Rules = {
    "mul": [_scale_behind],
    "add": [_shift_behind],
    "conv": [_merge_pad_conv, _absorb_ahead],
    "conv_transpose": [_absorb_ahead],
    "dense": [_absorb_ahead],
    "pool": [_merge_pad_pool],
    "matmul": [_dense, _turned_operand],
}


def absorb(graph: Graph) -> int:
    """Only these rules; ``simplify`` runs them together with the others."""
    return run(graph, ABSORB)
