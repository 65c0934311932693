"""Attention: softmax(q·kᵀ·scale + mask)·v, recognised with whatever transposes, scales and masks exporters use.

The scale may stand on either operand or on the scores, the mask may be added or chosen by ``where``; a mask that is
constant and triangular is causality. Tensors of rank 3 get a dimension of one head. A key or value that is repeated
for a group of query heads is taken as it was before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fleetui.workshop.graph.ir import Node, Value
from fleetui.workshop.graph.passes.constants import FLOATS, keeps_shape, other, uniform
from fleetui.workshop.graph.passes.rewrite import Editor, Rules

NEVER = -1e4
"""A number added to a score that is no better than −∞, if all others are as small or nought."""


@dataclass(slots=True)
class _Scores:
    q: Value
    k: Value
    k_turned: bool
    """``k`` is given as [.., U, D] rather than [.., D, U]."""
    scale: float
    mask: Value | None


def _unscaled(editor: Editor, value: Value) -> tuple[Value, float]:
    """A value without factors that are one number."""
    factor = 1.0
    while editor.private(value):
        node = editor.maker(value, "mul")
        pair = other(node.inputs, uniform_only=True) if node is not None else None
        if pair is None or pair[0].shape != value.shape:
            break
        value, factor = pair[0], factor * float(uniform(pair[1]) or 0.0)
    return value, factor


def _product(editor: Editor, value: Value) -> _Scores | None:
    """q·kᵀ with factors."""
    value, scale = _unscaled(editor, value)
    node = editor.maker(value, "matmul")
    if node is None or not editor.private(value) or node.attrs.get("transpose_a", False):
        return None
    q, a = _unscaled(editor, node.input(0))
    k, b = _unscaled(editor, node.input(1))
    return _Scores(q, k, bool(node.attrs.get("transpose_b", False)), scale * a * b, None)


def _scores(editor: Editor, value: Value) -> _Scores | None:
    if not editor.private(value):
        return None
    plus = editor.maker(value, "add")
    if plus is not None:
        for x, mask in ((plus.input(0), plus.input(1)), (plus.input(1), plus.input(0))):
            found = _product(editor, x) if x.shape == value.shape else None
            if found is not None:
                found.mask = mask
                return found
        return None
    choice = editor.maker(value, "where")
    if choice is None:
        return _product(editor, value)
    condition, a, b = choice.input(0), choice.input(1), choice.input(2)
    for x, fill, keep in ((a, uniform(b), True), (b, uniform(a), False)):
        if fill is None or fill > NEVER or x.shape != value.shape or not keeps_shape(x, condition):
            continue
        found = _product(editor, x)
        if found is None:
            continue
        if np.isinf(fill):
            found.mask = condition if keep else editor.op("logical_not", condition, source=choice.source)
        else:  # a row without any score left is a mean, not nought
            chosen = editor.scalar(0.0, x), editor.scalar(fill, x)
            found.mask = editor.op("where", condition, *(chosen if keep else chosen[::-1]), source=choice.source)
        return found
    return None


def _causal(mask: Value, rows: int, columns: int) -> bool:
    """A constant mask that keeps exactly the scores up to the diagonal."""
    if mask.data is None or mask.shape[-2:] != (rows, columns) or any(d != 1 for d in mask.shape[:-2]):
        return False
    table = mask.data.reshape(rows, columns)
    kept = np.tri(rows, columns) > 0
    if mask.dtype == "bool":
        return bool((table == kept).all())
    numbers = table.astype(np.float64)
    return bool((numbers[kept] == 0).all()) and bool((numbers[~kept] <= NEVER).all())


def _four(editor: Editor, value: Value) -> Value:
    if value.rank == 4:
        return value
    shape = (value.shape[0], 1, *value.shape[1:]) if value.rank == 3 else (1, 1, *value.shape)
    return editor.op("reshape", value, shape=shape)


def _four_mask(editor: Editor, mask: Value, rank: int) -> Value:
    if mask.rank == 4 or rank == 4:
        return mask
    if rank == 3 and mask.rank == 3:
        return editor.op("reshape", mask, shape=(mask.shape[0], 1, *mask.shape[1:]))
    return mask


def _unrepeated(editor: Editor, value: Value, heads: int) -> Value:
    """Keys before each was repeated for several heads: [B, K, 1, U, D] → [B, K, n, U, D] → [B, K·n, U, D]."""
    flat = editor.maker(value, "reshape")
    grown = editor.maker(flat.input(0), "broadcast_to") if flat is not None else None
    if flat is None or grown is None or value.rank != 4 or grown.output.rank != 5:
        return value
    before, after = grown.input(0).shape, grown.output.shape
    if len(before) != 5 or before[2] != 1 or (*before[:2], *before[3:]) != (*after[:2], *after[3:]):
        return value
    if value.shape != (after[0], after[1] * after[2], *after[3:]) or value.shape[1] != heads:
        return value
    return editor.op("reshape", grown.input(0), shape=(*before[:2], *before[3:]))


def _attention(editor: Editor, node: Node) -> bool:
    """Seen from the last product."""
    if node.attrs.get("transpose_a", False) or node.output.dtype not in FLOATS:
        return False
    weights, v = node.input(0), node.input(1)
    soft = editor.maker(weights, "softmax")
    if soft is None or soft.attrs["axis"] != weights.rank - 1 or not editor.private(weights):
        return False
    rank = weights.rank
    if rank not in {2, 3, 4} or v.rank != rank or v.shape[:-2] != weights.shape[:-2]:
        return False
    found = _scores(editor, soft.input(0))
    if found is None or found.q.rank != rank or found.k.rank != rank or found.scale == 0:
        return False
    if found.q.shape[:-2] != found.k.shape[:-2]:
        return False
    if found.mask is not None and (found.mask.rank > rank or found.mask.dtype not in {"bool", found.q.dtype}):
        return False
    mask, causal = found.mask, False
    if mask is not None and mask.rank >= 2 and _causal(mask, *weights.shape[-2:]):
        mask, causal = None, True
    swap = (*range(rank - 2), rank - 1, rank - 2)
    k = found.k if found.k_turned else editor.op("transpose", found.k, source=node.source, perm=swap)
    if node.attrs.get("transpose_b", False):
        v = editor.op("transpose", v, source=node.source, perm=swap)
    q4, k4, v4 = (_four(editor, value) for value in (found.q, k, v))
    k4, v4 = (_unrepeated(editor, value, q4.shape[1]) for value in (k4, v4))
    if k4.shape[1] != v4.shape[1]:
        k4, v4 = _four(editor, k), _four(editor, v)
    if mask is not None:
        mask = _four_mask(editor, mask, rank)
    made = editor.op(
        "attention", q4, k4, v4, mask, source=node.source, scale=found.scale, causal=causal, softcap=0.0
    )
    if made.shape != node.output.shape:
        made = editor.op("reshape", made, source=node.source, shape=node.output.shape)
    editor.replace(node.output, made)
    return True


ATTENTION: Rules = {"matmul": [_attention]}
