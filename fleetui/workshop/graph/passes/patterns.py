"""Softmax, the norms and attention, recognised by the form in which exporters write them out.

The forms are those that are left after ``simplify``: sums with constants last, squares as products, a division by
a root as a product. Group and instance norms stay as the reductions they are.
"""

from __future__ import annotations

import numpy as np

from fleetui.workshop.graph.ir import Graph, Node, Value
from fleetui.workshop.graph.passes.constants import FLOATS, other, uniform
from fleetui.workshop.graph.passes.rewrite import Editor, Rules, run

# ---------------------------------------------------------------- softmax


def _reduced(editor: Editor, value: Value | None, how: str, x: Value) -> int | None:
    """The one dimension over which ``value`` is the kept reduction of ``x``."""
    node = editor.maker(value, "reduce")
    if node is None or node.attrs["kind"] != how or not node.attrs["keepdims"] or node.input(0) is not x:
        return None
    axes = node.attrs["axes"]
    return int(axes[0]) if len(axes) == 1 else None


def _unshifted(editor: Editor, x: Value, axis: int) -> Value:
    """``x`` without its maximum taken away, if that was done."""
    node = editor.maker(x, "sub")
    if node is not None and _reduced(editor, node.input(1), "max", node.input(0)) == axis:
        return node.input(0)
    return x


def _softmax(editor: Editor, node: Node) -> bool:
    """e^x / Σe^x, as a division or as a product with the reciprocal."""
    a, b = node.input(0), node.input(1)
    if node.op == "mul":
        turned = editor.maker(b, "reciprocal") or editor.maker(a, "reciprocal")
        if turned is None:
            return False
        a, b = (a, turned.input(0)) if turned.output is b else (b, turned.input(0))
    raised = editor.maker(a, "exp")
    axis = _reduced(editor, b, "sum", a)
    if raised is None or axis is None or node.output.shape != a.shape:
        return False
    x = _unshifted(editor, raised.input(0), axis)
    editor.replace(node.output, editor.op("softmax", x, source=node.source, axis=axis))
    return True


def _log_softmax(editor: Editor, node: Node) -> bool:
    """The logarithm of a softmax, or x − log Σe^x."""
    if node.op == "log":
        before = editor.maker(node.input(0), "softmax")
        if before is None or not editor.private(node.input(0)):
            return False
        made = editor.op("log_softmax", before.input(0), source=node.source, axis=before.attrs["axis"])
        editor.replace(node.output, made)
        return True
    x, logarithm = node.input(0), editor.maker(node.input(1), "log")
    total = editor.maker(logarithm.input(0), "reduce") if logarithm is not None else None
    raised = editor.maker(total.input(0), "exp") if total is not None else None
    if total is None or raised is None or raised.input(0) is not x:
        return False
    axis = _reduced(editor, total.output, "sum", raised.output)
    if axis is None:
        return False
    made = editor.op("log_softmax", _unshifted(editor, x, axis), source=node.source, axis=axis)
    editor.replace(node.output, made)
    return True


# ---------------------------------------------------------------- norms


def _trailing(node: Node) -> int | None:
    """The first of the dimensions a kept mean goes over, if they are the last ones."""
    axes, rank = node.attrs["axes"], node.input(0).rank
    if node.attrs["kind"] != "mean" or not node.attrs["keepdims"] or not axes:
        return None
    return int(axes[0]) if tuple(axes) == tuple(range(axes[0], rank)) else None


def _square_of(editor: Editor, value: Value) -> Value | None:
    node = editor.maker(value, "mul")
    return node.input(0) if node is not None and node.input(0) is node.input(1) else None


def _norm(editor: Editor, node: Node) -> bool:
    """Products d · 1/√(mean(d²) + ε), where d is x itself or x less its mean."""
    for d, factor in ((node.input(0), node.input(1)), (node.input(1), node.input(0))):
        root = editor.maker(factor, "rsqrt")
        if root is None or d.shape != node.output.shape or d.dtype not in FLOATS:
            continue
        inside, eps = root.input(0), 0.0
        plus = editor.maker(inside, "add")
        if plus is not None:
            pair = other(plus.inputs, uniform_only=True)
            if pair is None:
                continue
            inside, eps = pair[0], float(uniform(pair[1]) or 0.0)
        mean = editor.maker(inside, "reduce")
        if mean is None or eps < 0 or _square_of(editor, mean.input(0)) is not d:
            continue
        axis = _trailing(mean)
        if axis is None:
            continue
        made = _centred(editor, node, d, axis, eps)
        editor.replace(node.output, made)
        return True
    return False


def _factor_last(editor: Editor, node: Node) -> bool:
    """Products d · (1/√v · scale) is (d · 1/√v) · scale, and x·f + (b − mean·f) is (x − mean)·f + b."""
    if node.op == "add":
        return _mean_last(editor, node)
    for d, factor in ((node.input(0), node.input(1)), (node.input(1), node.input(0))):
        times = editor.maker(factor, "mul")
        pair = other(times.inputs) if times is not None else None
        if (
            pair is None
            or editor.maker(pair[0], "rsqrt") is None
            or d.data is not None
            or not editor.private(factor)
        ):
            continue
        normal = editor.op("mul", d, pair[0], source=node.source)
        made = editor.op("mul", normal, pair[1], source=node.source)
        if made.shape == node.output.shape and normal.shape == node.output.shape:
            editor.replace(node.output, made)
            return True
    return False


def _mean_last(editor: Editor, node: Node) -> bool:
    for a, b in ((node.input(0), node.input(1)), (node.input(1), node.input(0))):
        times, less = editor.maker(a, "mul"), editor.maker(b, "sub")
        shift = editor.maker(less.input(1), "mul") if less is not None else None
        if times is None or less is None or shift is None or not editor.private(a) or not editor.private(b):
            continue
        for x, factor in (times.inputs, times.inputs[::-1]):
            if x is None or factor is None or factor not in shift.inputs:
                continue
            mean = shift.input(1) if shift.input(0) is factor else shift.input(0)
            reduced = editor.maker(mean, "reduce")
            if reduced is None or reduced.input(0) is not x or reduced.attrs["kind"] != "mean":
                continue
            centred = editor.op("sub", x, mean, source=node.source)
            made = editor.op("mul", centred, factor, source=node.source)
            made = editor.op("add", made, less.input(0), source=node.source)
            if made.shape == node.output.shape:
                editor.replace(node.output, made)
                return True
    return False


def _centred(editor: Editor, node: Node, d: Value, axis: int, eps: float) -> Value:
    centre = editor.maker(d, "sub")
    if centre is not None:
        mean = editor.maker(centre.input(1), "reduce")
        x = centre.input(0)
        if mean is not None and mean.input(0) is x and _trailing(mean) == axis:
            return editor.op("layer_norm", x, None, None, source=node.source, axis=axis, eps=eps)
    return editor.op("rms_norm", d, None, source=node.source, axis=axis, eps=eps)


def _norm_parameter(editor: Editor, node: Node) -> bool:
    """A product or sum behind a norm that is its scale or bias."""
    for x, c in ((node.input(0), node.input(1)), (node.input(1), node.input(0))):
        norm = editor.maker(x, "layer_norm", "rms_norm")
        if norm is None or not editor.private(x) or x.shape != node.output.shape or c.dtype != x.dtype:
            continue
        if node.op == "add" and norm.op == "rms_norm":
            continue
        index = 1 if node.op == "mul" else 2
        if norm.optional(index) is not None or (index == 1 and norm.optional(2) is not None):
            continue
        if c.data is None:
            continue
        shape = x.shape[norm.attrs["axis"] :]
        if c.rank > len(shape) and any(d != 1 for d in c.shape[: c.rank - len(shape)]):
            continue
        full = np.ascontiguousarray(np.broadcast_to(c.data.reshape(c.shape[-len(shape) :]), shape))
        editor.set_input(norm, index, editor.constant(full, c.name, c.dtype))
        editor.replace(node.output, x)
        return True
    return False


PATTERNS: Rules = {
    "div": [_softmax],
    "mul": [_softmax, _factor_last, _norm, _norm_parameter],
    "add": [_factor_last, _norm_parameter],
    "log": [_log_softmax],
    "sub": [_log_softmax],
}


def recognise_norms(graph: Graph) -> int:
    return run(graph, PATTERNS)
