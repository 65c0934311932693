"""Algebra: what computes nothing goes, what can be said in one operator is said in one.

Results may differ in the last bits: sums and products with constants are reassociated, a division by a constant
becomes a product, small powers become products and roots. A sum is not taken out of a product where that could
cancel digits: (x − 10⁶)·1 stays as it is, unless a matrix product ahead can take both.
"""

from __future__ import annotations

import numpy as np

from fleetui.workshop.graph.ir import Graph, Node, Value
from fleetui.workshop.graph.ops import Kind, infer, kind
from fleetui.workshop.graph.passes.constants import FLOATS, keeps_shape, other, uniform
from fleetui.workshop.graph.passes.fold import FOLD
from fleetui.workshop.graph.passes.moves import MOVES, moves_nothing
from fleetui.workshop.graph.passes.rewrite import Editor, Rules, run
from fleetui.workshop.graph.passes.single import SINGLE

# ---------------------------------------------------------------- two inputs


def _neutral(editor: Editor, node: Node) -> bool:
    """What adds 0, multiplies with 1, …, and the like for booleans."""
    a, b = node.input(0), node.input(1)
    symmetric = node.op in {"add", "mul", "logical_and", "logical_or", "logical_xor", "bitwise_or", "bitwise_xor"}
    for x, c in ((a, b), (b, a)) if symmetric else ((a, b),):
        if uniform(c) == NEUTRAL[node.op] and (x.shape, x.dtype) == (node.output.shape, node.output.dtype):
            editor.replace(node.output, x)
            return True
        if uniform(c) == NEUTRAL[node.op] and x.dtype == node.output.dtype:
            editor.replace(node.output, editor.op("broadcast_to", x, source=node.source, shape=node.output.shape))
            return True
    return False


NEUTRAL = {
    "add": 0.0, "sub": 0.0, "mul": 1.0, "div": 1.0, "pow": 1.0, "logical_and": 1.0, "logical_or": 0.0,
    "logical_xor": 0.0, "bitwise_or": 0.0, "bitwise_xor": 0.0, "shift_left": 0.0, "shift_right": 0.0,
}  # fmt: skip


def _power(editor: Editor, node: Node) -> bool:
    x, exponent = node.input(0), uniform(node.input(1))
    if exponent is None or not keeps_shape(x, node.input(1)):
        return False
    made: Value
    if exponent == 2:
        made = editor.op("mul", x, x, source=node.source)
    elif x.dtype not in FLOATS:
        return False
    elif exponent in {0.5, -0.5, -1.0}:
        op = {0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}[exponent]
        made = editor.op(op, x, source=node.source)
    elif exponent == 3:
        made = editor.op("mul", editor.op("mul", x, x, source=node.source), x, source=node.source)
    else:
        return False
    editor.replace(node.output, made)
    return True


def _divide(editor: Editor, node: Node) -> bool:
    """Division by a constant is a product; one divided by something is its reciprocal."""
    a, b = node.input(0), node.input(1)
    if a.dtype not in FLOATS:
        return False
    if b.data is not None:
        with np.errstate(all="ignore"):
            inverse = (1 / b.data.astype(np.float64)).astype(b.data.dtype)
            size = np.abs(inverse.astype(np.float64))
        tiny = 6.2e-5 if a.dtype == "float16" else 1.2e-38
        if bool((np.isfinite(size) & (size >= tiny)).all()):
            made = editor.op("mul", a, editor.constant(inverse, b.name, b.dtype), source=node.source)
            editor.replace(node.output, made)
            return True
    if uniform(a) == 1.0 and node.output.shape == b.shape:
        editor.replace(node.output, editor.op("reciprocal", b, source=node.source))
        return True
    root = editor.maker(b, "sqrt")
    if root is not None and editor.private(b):
        turned = editor.op("rsqrt", root.input(0), source=root.source)
        editor.replace(node.output, editor.op("mul", a, turned, source=node.source))
        return True
    return False


def _subtract(editor: Editor, node: Node) -> bool:
    """A constant taken away is one added; so constants meet."""
    a, b = node.input(0), node.input(1)
    if a.data is not None or a.dtype not in FLOATS:
        return False
    if b.data is not None:
        editor.replace(
            node.output, editor.op("add", a, editor.constant(-b.data, b.name, b.dtype), source=node.source)
        )
        return True
    return False


def _negated(editor: Editor, node: Node) -> bool:
    """To add −y is to take y away, and the other way round."""
    if node.output.dtype not in FLOATS:
        return False
    for index in (1, 0) if node.op == "add" else (1,):
        before = editor.maker(node.inputs[index], "neg")
        if before is not None and editor.private(node.input(index)):
            op = "sub" if node.op == "add" else "add"
            made = editor.op(op, node.input(1 - index), before.input(0), source=node.source)
            editor.replace(node.output, made)
            return True
    return False


def _associate(editor: Editor, node: Node) -> bool:
    """(x + a) + b is x + (a + b), (x · a) · b is x · (a · b), (x + a) · b is x · b + a · b."""
    pair = other(node.inputs)
    if pair is None or node.output.dtype not in FLOATS:
        return False
    x, c = pair
    before = editor.maker(x, "add", "mul")
    if before is None or not editor.private(x) or (before.op == "mul" and node.op == "add"):
        return False
    inner = other(before.inputs)
    if inner is None:
        return False
    y, d = inner
    joined = np.broadcast_shapes(c.shape, d.shape)
    limit = max(c.size, d.size)
    if int(np.prod(joined)) > limit and int(np.prod(joined)) > 4096:
        return False
    both = editor.op(node.op, d, c)
    if both.data is None or not _finite(both):
        return False
    if (
        before.op != node.op
        and np.abs(both.data.astype(np.float64)).max() > CANCELS
        and not _from_product(editor, y)
    ):
        return False
    if before.op == node.op:
        made = editor.op(node.op, y, both, source=node.source)
    else:
        made = editor.op("add", editor.op("mul", y, c, source=before.source), both, source=node.source)
    if made.shape != node.output.shape:
        made = editor.op("broadcast_to", made, shape=node.output.shape)
    editor.replace(node.output, made)
    return True


CANCELS = 16.0


def _from_product(editor: Editor, value: Value) -> bool:
    """The value is a contraction's, perhaps moved about, and nobody else wants it."""
    maker = editor.maker(value)
    while maker is not None and maker.op in {"transpose", "reshape"} and editor.private(value):
        value = maker.input(0)
        maker = editor.maker(value)
    return maker is not None and kind(maker.op) is Kind.CONTRACTION and editor.private(value)


def _finite(value: Value) -> bool:
    return value.data is not None and bool(np.isfinite(value.data.astype(np.float64)).all())


def _extreme(editor: Editor, node: Node) -> bool:
    """The maximum with a number is a clip."""
    pair = other(node.inputs, uniform_only=True)
    if pair is None or pair[0].dtype == "bool" or not keeps_shape(*pair):
        return False
    x, c = pair
    bound = uniform(c)
    assert bound is not None
    assert c.data is not None
    number = bound if x.dtype in FLOATS else int(c.data.reshape(-1)[0])
    low, high = (number, None) if node.op == "maximum" else (None, number)
    editor.replace(node.output, editor.op("clip", x, source=node.source, low=low, high=high))
    return True


def _where(editor: Editor, node: Node) -> bool:
    condition, a, b = node.input(0), node.input(1), node.input(2)
    chosen: Value | None = None
    truth = uniform(condition)
    if truth is not None:
        chosen = a if truth else b
    elif a is b:
        chosen = a
    if chosen is None:
        turned = editor.maker(condition, "logical_not")
        if turned is None:
            return False
        made = editor.op("where", turned.input(0), b, a, source=node.source)
        editor.replace(node.output, made)
        return True
    if chosen.shape != node.output.shape:
        chosen = editor.op("broadcast_to", chosen, source=node.source, shape=node.output.shape)
    editor.replace(node.output, chosen)
    return True


# ---------------------------------------------------------------- broadcasts


def _unbroadcast(editor: Editor, node: Node) -> bool:
    """Elementwise operators broadcast by themselves."""
    if len(node.inputs) < 2 or kind(node.op) is not Kind.ELEMENTWISE or node.op in {"quantize", "dequantize"}:
        return False
    for index, value in enumerate(node.inputs):
        before = editor.maker(value, "broadcast_to")
        if before is None:
            continue
        inputs = list(node.inputs)
        inputs[index] = before.input(0)
        if infer(node.op, inputs, node.attrs) == [(node.output.shape, node.output.dtype)]:
            editor.set_input(node, index, before.input(0))
            return True
    return False


# ---------------------------------------------------------------- reductions


def _reduce(editor: Editor, node: Node) -> bool:
    x, axes, how = node.input(0), node.attrs["axes"], node.attrs["kind"]
    if all(x.shape[axis] == 1 for axis in axes):
        editor.replace(node.output, editor.op("reshape", x, source=node.source, shape=node.output.shape))
        return True
    before = editor.maker(x, "reduce")
    if before is None or before.attrs["kind"] != how or not editor.private(x):
        return False
    if how in {"sum", "prod"} and x.dtype in {"float16", "bfloat16"}:
        return False
    if how == "mean" and x.dtype not in FLOATS:
        return False
    inner, first = before.attrs["axes"], before.input(0)
    left = [i for i in range(first.rank) if before.attrs["keepdims"] or i not in inner]
    joined = tuple(sorted({*inner, *(left[axis] for axis in axes)}))
    made = editor.op("reduce", first, source=node.source, kind=how, axes=joined, keepdims=False)
    if made.shape != node.output.shape:
        made = editor.op("reshape", made, source=node.source, shape=node.output.shape)
    editor.replace(node.output, made)
    return True


def _argument_of_one(editor: Editor, node: Node) -> bool:
    """An argument over one element is 0."""
    x = node.input(0)
    if x.shape[node.attrs["axis"]] != 1:
        return False
    editor.replace(node.output, editor.constant(np.zeros(node.output.shape, np.int64)))
    return True


SIMPLIFY: Rules = {
    **SINGLE,
    "*": [_unbroadcast],
    "add": [_neutral, _negated, _associate],
    "mul": [_neutral, _associate],
    "sub": [_neutral, _subtract, _negated],
    "div": [_neutral, _divide],
    "pow": [_neutral, _power],
    **{op: [_neutral] for op in NEUTRAL if op.startswith(("logical", "bitwise", "shift"))},
    "maximum": [_extreme],
    "minimum": [_extreme],
    "where": [_where],
    "reduce": [_reduce],
    "argmax": [_argument_of_one],
    "argmin": [_argument_of_one],
}


# ---------------------------------------------------------------- last


def _bare_operand(editor: Editor, node: Node) -> bool:
    """Leading dimensions of one element are put there by broadcasting."""
    if len(node.inputs) < 2 or kind(node.op) is not Kind.ELEMENTWISE or node.op in {"quantize", "dequantize"}:
        return False
    for index, value in enumerate(node.inputs):
        before = editor.maker(value, "reshape")
        if before is None or value is None:
            continue
        first = before.input(0)
        if first.rank < value.rank and value.shape == (1,) * (value.rank - first.rank) + first.shape:
            inputs = [first if i == index else v for i, v in enumerate(node.inputs)]
            if infer(node.op, inputs, node.attrs) == [(node.output.shape, node.output.dtype)]:
                editor.set_input(node, index, first)
                return True
    return False


def _still(editor: Editor, node: Node) -> bool:
    """A transpose that moves nothing is a reshape."""
    x = node.input(0)
    if not moves_nothing(tuple(node.attrs["perm"]), x.shape):
        return False
    editor.replace(node.output, editor.op("reshape", x, source=node.source, shape=node.output.shape))
    return True


LAST: Rules = {"transpose": [_still], "*": [_bare_operand]}
"""Only when transposes need not be found any more."""


def simplify_algebra(graph: Graph) -> int:
    return run(graph, FOLD, SIMPLIFY, MOVES)
