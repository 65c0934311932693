"""Constant folding, dead code, common subexpressions.

Common subexpressions include small constants. Big constants are told apart by identity, not by their numbers:
two layers of one model hold equal weights only when the author shares them, and then it is one constant already.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fleetui.workshop.graph.ir import Graph, Node, Value
from fleetui.workshop.graph.ops import evaluate
from fleetui.workshop.graph.passes.rewrite import Editor, Rules, run

SMALL = 4096


def _fold(editor: Editor, node: Node) -> bool:
    if not editor.foldable(node, node.outputs):
        return False
    arrays = evaluate(node.op, [None if v is None else v.data for v in node.inputs], node.attrs)
    for out, array in zip(list(node.outputs), arrays, strict=True):
        if editor.uses.get(out) or out in editor.outputs:
            made = editor.constant(np.ascontiguousarray(array).reshape(out.shape), out.name, out.dtype)
            editor.replace(out, made)
    return True


FOLD: Rules = {"*": [_fold]}


def fold_constants(graph: Graph) -> int:
    """Compute what depends on constants alone (but see ``rewrite.KEPT``)."""
    return run(graph, FOLD)


def remove_dead(graph: Graph) -> int:
    """Drop what no output depends on."""
    return graph.remove_dead()


def _frozen(attr: Any) -> Any:
    """A hashable stand-in that tells 1, 1.0 and True apart, or None if the attribute is of some other kind."""
    if isinstance(attr, tuple | list):
        parts = tuple(_frozen(part) for part in attr)
        return None if None in parts else parts
    if attr is None or isinstance(attr, bool | int | float | str):
        return (type(attr).__name__, repr(attr))
    return None


def _key(node: Node, known: dict[Any, Value]) -> Any:
    attrs = [(key, _frozen(attr)) for key, attr in sorted(node.attrs.items())]
    if any(frozen is None for _, frozen in attrs):
        return None
    inputs = []
    for value in node.inputs:
        if value is not None and value.data is not None and value.nbytes <= SMALL:
            content = (value.dtype, value.shape, np.ascontiguousarray(value.data).tobytes())
            value = known.setdefault(content, value)  # noqa: PLW2901 - equal small constants are one
        elif value is not None and value.data is not None:
            value = known.setdefault((id(value.data), value.dtype, value.shape), value)  # noqa: PLW2901 - likewise
        inputs.append(id(value))
    return (node.op, tuple(inputs), tuple(attrs))


def common_subexpressions(graph: Graph) -> int:
    """Compute nothing twice."""
    editor = Editor(graph)
    known: dict[Any, Value] = {}
    seen: dict[Any, Node] = {}
    for node in list(graph.nodes):
        if (
            not editor.alive(node)
            or node.op == "extern"
            or (node.op == "identity" and node.output in editor.outputs)
        ):
            continue
        key = _key(node, known)
        if key is None:
            continue
        first = seen.setdefault(key, node)
        if first is node or not editor.alive(first):
            seen[key] = node
            continue
        for old, new in zip(list(node.outputs), list(first.outputs), strict=True):
            if editor.uses.get(old) or old in editor.outputs:
                editor.replace(old, new)
    return editor.finish()
