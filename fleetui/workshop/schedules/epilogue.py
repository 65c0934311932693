"""The elementwise chain that is fused behind an anchor, one output element at a time.

A rule that has just computed an element of its anchor (a convolution's finished sum, say) writes::

    epilogue = Epilogue(group)
    parameters += epilogue.extra                # further inputs: biases, residuals, …
    value = epilogue.apply(acc, index, load)    # acc: the anchor's element; index: its place in the output
    store(epilogue.out, index, value)           # same shape as the anchor's output, maybe another dtype
    key += epilogue.signature

``load(value, index)`` is the rule's: it reads one element of an extra, at an index that is already broadcast
(zeros along axes of length one, leading axes gone; rank 0 gives no index). ``reader`` makes one from te tensors or
TIR buffers. Constants of one element never become an extra: they stand in the code, and in the signature. All
nodes of the group that are neither the anchor nor lead to it belong to the chain, and every one of them is
elementwise and has the shape of the anchor's output: ``fuse.partition`` sees to that. A rule that computes a whole
vector puts ``apply`` into a vector loop, as any scalar expression.

Without a chain ``apply`` only converts to the output's dtype, ``extra`` is empty and ``out`` the anchor's output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fleetui.common.domain.errors import BugError
from fleetui.workshop.graph.ir import Node, Shape, Value
from fleetui.workshop.kernel import Group
from fleetui.workshop.schedules import mathlib
from fleetui.workshop.schedules.scalar import scalar

Expr = Any
Load = Callable[[Value, list[Expr]], Expr]


def broadcast_index(shape: Shape, index: Sequence[Expr]) -> list[Expr]:
    """Where a tensor of ``shape`` has the element that numpy's broadcasting puts at ``index``."""
    from tvm import tirx

    own = list(index)[len(index) - len(shape) :]
    return [tirx.const(0, "int32") if dim == 1 else at for dim, at in zip(shape, own, strict=True)]


def immediate(value: Value) -> Expr | None:
    """The element of a constant of one element, to stand in the code."""
    if value.data is None or value.size != 1:
        return None
    from tvm import tirx

    item = np.asarray(value.data).reshape(-1)[0]
    if value.dtype == "bfloat16":
        return _float(float(item), "float32")
    if value.dtype == "float16":
        return tirx.Cast("float16", _float(float(item), "float32"))
    if value.dtype in {"float32", "float64"}:
        return _float(float(item), value.dtype)
    if value.dtype == "uint64" and int(item) >= 2**63:
        return tirx.Cast("uint64", tirx.const(int(item) - 2**64, "int64"))
    return tirx.const(bool(item) if value.dtype == "bool" else int(item), value.dtype)


def _float(item: float, dtype: str) -> Expr:
    from tvm import tirx

    if np.isfinite(item):
        return tirx.const(item, dtype)
    if np.isnan(item):
        return mathlib.nan(dtype)
    positive = mathlib.infinity(dtype)
    return positive if item > 0 else tirx.const(-1.0, dtype) * positive


def reader(tensors: Mapping[Value, Any]) -> Load:
    """From te tensors or TIR buffers declared with the values' own shapes ((1,) for rank 0 is right too)."""

    def load(value: Value, index: list[Expr]) -> Expr:
        from tvm import te, tirx

        tensor = tensors[value]
        if not index and len(tensor.shape):
            index = [tirx.const(0, "int32")]
        return tensor(*index) if isinstance(tensor, te.Tensor) else tirx.BufferLoad(tensor, index)

    return load


def parameter_index(node: Node, position: int, index: Sequence[Expr]) -> list[Expr] | None:
    """Where ``quantize`` and ``dequantize`` find the scale or zero point of an element; None for other inputs."""
    from tvm import tirx

    if node.op not in {"quantize", "dequantize"} or position == 0:
        return None
    value, axis, block = node.input(position), node.attrs["axis"], node.attrs.get("block", 0)
    if value.rank == 0:
        return []
    if block:
        return [tirx.floordiv(at, block) if i == axis else at for i, at in enumerate(index)]
    return [index[axis]]


def compute(
    nodes: Sequence[Node], out: Value, known: Mapping[Value, Expr], index: Sequence[Expr] | None, load: Load
) -> Expr:
    """``out`` at ``index``, where ``nodes`` (elementwise, in order) lead from what is known or loaded to it.

    Without an index ``load`` has to know by itself where it is.
    """
    with mathlib.collecting() as names:
        total = _chain(nodes, out, known, index, load)
    return mathlib.wrapped(names, total)


def _chain(
    nodes: Sequence[Node], out: Value, known: Mapping[Value, Expr], index: Sequence[Expr] | None, load: Load
) -> Expr:
    env: dict[Value, Expr] = {}

    def bound(value: Value, expr: Expr) -> Expr:
        env[value] = mathlib.let(expr, lambda name: name)
        return env[value]

    def operand(node: Node, position: int, value: Value) -> Expr:
        if value in env:
            return env[value]
        number = immediate(value)
        if number is not None:
            return number
        place = None if index is None else parameter_index(node, position, index)
        if place is not None:
            return load(value, place)
        return bound(value, load(value, [] if index is None else broadcast_index(value.shape, index)))

    for value, expr in known.items():
        bound(value, expr)
    for node in nodes:
        present = [(position, v) for position, v in enumerate(node.inputs) if v is not None]
        args = [operand(node, position, v) for position, v in present]
        result = node.output
        bound(result, scalar(node.op, args, node.attrs, [v.dtype for _, v in present], result.dtype))
    return env[out]


def node_key(node: Node, number: Mapping[Value, int]) -> str:
    """What a node computes, in words that are equal for equal code."""
    attrs = ",".join(f"{k}={v!r}" for k, v in sorted(node.attrs.items()))
    inputs = []
    for value in node.inputs:
        if value is None:
            inputs.append("-")
        elif value in number:
            inputs.append(str(number[value]))
        elif value.data is not None and value.size == 1:
            inputs.append(f"{np.asarray(value.data).reshape(-1)[0]!r}:{value.dtype}")
        else:
            raise BugError(f"{value} has no number in the key of {node.op}")
    made = ",".join(f"{number[v]}:{v.dtype}{list(v.shape)}" for v in node.outputs)
    return f"{made}={node.op}({','.join(inputs)};{attrs})"


def before(group: Group) -> list[Node]:
    """The nodes of a group that lead to its anchor, in order."""
    found: set[Node] = set()
    wanted = {value for value in group.anchor.inputs if value is not None}
    for node in reversed(group.nodes):
        if node is not group.anchor and any(out in wanted for out in node.outputs):
            found.add(node)
            wanted.update(value for value in node.inputs if value is not None)
    return [node for node in group.nodes if node in found]


class Epilogue:
    """See the module. ``anchor_out``: what the anchor makes; ``out``: what the group gives away.

    ``before`` has the nodes that lead to the anchor: a chain before a reduction, the expansion of small weights.
    """

    def __init__(self, group: Group) -> None:
        if len(group.anchor.outputs) != 1 or len(group.outputs) != 1:
            raise BugError(f"{group.anchor.op} has several outputs: nothing can be fused behind it")
        self.anchor_out = group.anchor.output
        self.out = group.outputs[0]
        self.before = before(group)
        self.nodes = [node for node in group.nodes if node is not group.anchor and node not in self.before]
        made = {out for node in group.nodes for out in node.outputs}
        extra: dict[Value, None] = {}
        for node in self.nodes:
            for value in node.inputs:
                if value is None or value in made or (value.data is not None and value.size == 1):
                    continue
                extra.setdefault(value)
        self.extra: list[Value] = list(extra)

    def __bool__(self) -> bool:
        return bool(self.nodes)

    def apply(self, acc: Expr, index: Sequence[Expr], load: Load | None = None) -> Expr:
        """The group's output element, from the anchor's. ``load`` may be left out where there are no extras."""

        def nothing(value: Value, _index: list[Expr]) -> Expr:
            raise BugError(f"nobody said how to read {value}")

        start = mathlib.cast(acc, self.anchor_out.dtype)
        return compute(self.nodes, self.out, {self.anchor_out: start}, index, load or nothing)

    @property
    def signature(self) -> str:
        """For the kernel's key: the chain, the extras' shapes and dtypes, constants that stand in the code."""
        number = {self.anchor_out: 0}
        for value in self.extra:
            number[value] = len(number)
        seen = " ".join(f"{number[v]}:{v.dtype}{list(v.shape)}" for v in self.extra)
        for node in self.nodes:
            for value in node.outputs:
                number[value] = len(number)
        return ";".join([seen, *(node_key(node, number) for node in self.nodes)]) if self.nodes else ""
