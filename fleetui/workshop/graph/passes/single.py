"""Algebra of operators with one input: copies, casts, what is done twice, clips of clips."""

from __future__ import annotations

from fleetui.workshop.graph.ir import Node
from fleetui.workshop.graph.passes.constants import FLOATS
from fleetui.workshop.graph.passes.rewrite import Editor, Rules


def _identity(editor: Editor, node: Node) -> bool:
    out, x = node.output, node.input(0)
    fixed = x.data is not None or x in editor.graph.inputs or x in editor.outputs
    if out in editor.outputs and fixed:
        return False
    editor.replace(out, x)
    return True


WIDER: dict[str, frozenset[str]] = {
    "bool": frozenset({"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"} | FLOATS),
    "int8": frozenset({"int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"}),
    "uint8": frozenset(
        {"int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "bfloat16", "float32", "float64"}
    ),
    "int16": frozenset({"int32", "int64", "float32", "float64"}),
    "uint16": frozenset({"int32", "uint32", "int64", "uint64", "float32", "float64"}),
    "int32": frozenset({"int64", "float64"}),
    "uint32": frozenset({"int64", "uint64", "float64"}),
    "float16": frozenset({"float32", "float64"}),
    "bfloat16": frozenset({"float32", "float64"}),
    "float32": frozenset({"float64"}),
}
"""Which conversions lose nothing."""


def _cast(editor: Editor, node: Node) -> bool:
    x, to = node.input(0), node.attrs["to"]
    if x.dtype == to:
        editor.replace(node.output, x)
        return True
    before = editor.maker(x, "cast")
    if before is not None and before.input(0).dtype != to:
        first = before.input(0)
        if x.dtype in WIDER.get(first.dtype, ()):
            saturate = bool(node.attrs.get("saturate", False))
            out = editor.op("cast", first, source=node.source, to=to, saturate=saturate)
            editor.replace(node.output, out)
            return True
    elif before is not None and x.dtype in WIDER.get(to, ()):
        editor.replace(node.output, before.input(0))
        return True
    return False


TWICE_NOTHING = frozenset({"neg", "logical_not", "bitwise_not"})
TWICE_ONCE = frozenset({"abs", "relu", "sign", "floor", "ceil", "trunc", "round"})


def _twice(editor: Editor, node: Node) -> bool:
    before = editor.maker(node.input(0))
    if before is None:
        return False
    if node.op in TWICE_NOTHING and before.op == node.op:
        editor.replace(node.output, before.input(0))
        return True
    if node.op in TWICE_ONCE and before.op == node.op:
        editor.replace(node.output, node.input(0))
        return True
    if node.op == "abs" and before.op == "neg":
        editor.set_input(node, 0, before.input(0))
        return True
    if node.op == "reciprocal" and before.op in {"sqrt", "reciprocal"} and editor.private(node.input(0)):
        x = before.input(0)
        editor.replace(node.output, editor.op("rsqrt", x, source=node.source) if before.op == "sqrt" else x)
        return True
    return False


def bounds(node: Node) -> tuple[float | None, float | None] | None:
    """What an operator that only clips clips to."""
    if node.op == "clip":
        return node.attrs["low"], node.attrs["high"]
    return (0.0, None) if node.op == "relu" else None


def _clip(editor: Editor, node: Node) -> bool:
    x, whole = node.input(0), node.output.dtype not in FLOATS
    mine = bounds(node)
    assert mine is not None
    low, high = mine
    if low is None and high is None:
        editor.replace(node.output, x)
        return True
    if node.op == "clip" and high is None and low == 0:
        editor.replace(node.output, editor.op("relu", x, source=node.source))
        return True
    if low is not None and high is not None and low > high:
        low = high
    before = editor.maker(x, "clip", "relu")
    if before is None:
        return False
    theirs = bounds(before)
    assert theirs is not None
    first, last = theirs
    if first is not None and last is not None and first > last:
        first = last

    def within(bound: float) -> float:
        bound = bound if low is None else max(bound, low)
        return bound if high is None else min(bound, high)

    first = low if first is None else within(first)
    last = high if last is None else within(last)
    if whole:
        first, last = None if first is None else int(first), None if last is None else int(last)
    if (first, last) == theirs:
        editor.replace(node.output, x)
        return True
    if not editor.private(x):
        return False
    editor.replace(node.output, editor.op("clip", before.input(0), source=node.source, low=first, high=last))
    return True


SINGLE: Rules = {
    "identity": [_identity],
    "cast": [_cast],
    "clip": [_clip],
    "relu": [_twice, _clip],
    **{op: [_twice] for op in [*TWICE_NOTHING, "abs", "sign", "floor", "ceil", "trunc", "round", "reciprocal"]},
}
