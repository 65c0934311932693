"""Rows joined into one dimension ahead of a matrix, as exporters like it, stay apart.

``dense`` takes any leading dimensions. A reshape that joins several of them moves behind the matrix, past
elementwise operators to the next matrix, and so on until it meets the one that takes them apart again. What is left
in between keeps its dimensions, and transposes of them can be seen.
"""

from __future__ import annotations

from math import prod

from fleetui.workshop.graph.ir import Node, Shape, Value
from fleetui.workshop.graph.ops import Kind, kind
from fleetui.workshop.graph.passes.constants import along_last
from fleetui.workshop.graph.passes.moves import groups
from fleetui.workshop.graph.passes.rewrite import Editor, Rules


def _joined(editor: Editor, value: Value) -> tuple[Value, Shape] | None:
    """What this value was made from, and the shape that leaves its leading dimensions apart."""
    before = editor.maker(value, "reshape")
    if before is None or not value.rank or not editor.private(value):
        return None
    x = before.input(0)
    runs = groups(x.shape, value.shape)
    if runs is None:
        return None
    ahead = x.rank
    for left, right in reversed(runs):
        ahead = min([ahead, *left])
        if value.rank - 1 in right:
            if len([axis for axis in right if value.shape[axis] != 1]) > 1 and value.shape[-1] != x.shape[-1]:
                return None
            break
    shape = (*x.shape[:ahead], value.shape[-1])
    if prod(shape) != value.size:
        return None
    apart, together = sum(d != 1 for d in shape[:-1]), sum(d != 1 for d in value.shape[:-1])
    return (x, shape) if apart > together else None


def _apart(editor: Editor, joined: tuple[Value, Shape], source: str) -> Value:
    x, shape = joined
    return x if x.shape == shape else editor.op("reshape", x, source=source, shape=shape)


def _behind_dense(editor: Editor, node: Node) -> bool:
    joined = _joined(editor, node.input(0))
    if joined is None:
        return False
    x = _apart(editor, joined, node.source)
    made = editor.op("dense", x, node.input(1), node.optional(2), source=node.source)
    editor.replace(node.output, editor.op("reshape", made, source=node.source, shape=node.output.shape))
    return True


def _behind_elementwise(editor: Editor, node: Node) -> bool:
    """Only on the way to another matrix, or to where the rows are taken apart again."""
    if kind(node.op) is not Kind.ELEMENTWISE or len(node.outputs) != 1 or node.op in {"quantize", "dequantize"}:
        return False
    varying = [v for v in node.inputs if v is not None and v.data is None]
    if len(varying) != 1 or varying[0].shape != node.output.shape:
        return False
    user = editor.only_user(node.output)
    if user is None or not (user.op == "reshape" or (user.op == "dense" and user.input(0) is node.output)):
        return False
    width = node.output.shape[-1] if node.output.rank else 1
    for value in node.inputs:
        if value is not None and value.data is not None and along_last(value, width, node.output.rank) is None:
            return False
    joined = _joined(editor, varying[0])
    if joined is None:
        return False
    x = _apart(editor, joined, node.source)
    inputs: list[Value | None] = []
    for value in node.inputs:
        if value is varying[0]:
            inputs.append(x)
        elif value is not None and value.rank > 1:
            inputs.append(editor.op("reshape", value, shape=value.shape[-1:]))
        else:
            inputs.append(value)
    made = editor.op(node.op, *inputs, source=node.source, **node.attrs)
    editor.replace(node.output, editor.op("reshape", made, source=node.source, shape=node.output.shape))
    return True


LEADING: Rules = {"dense": [_behind_dense], "*": [_behind_elementwise]}
