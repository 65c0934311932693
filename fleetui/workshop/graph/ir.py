"""Values, nodes, graphs.

Shapes are static and dtypes are numpy names (``float32``, ``int64``, ``bool``, … and ``bfloat16``, ``int4`` for
weights). A ``Value`` with ``data`` is a constant. A node's missing optional input is ``None``. Nodes are kept in
an order in which every value is made before it is used. Graphs are changed in place by passes on one thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetui.common.domain.errors import BugError

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

BITS: dict[str, int] = {
    "bool": 8, "int4": 4, "uint4": 4, "int8": 8, "uint8": 8, "int16": 16, "uint16": 16, "int32": 32, "uint32": 32,
    "int64": 64, "uint64": 64, "float16": 16, "bfloat16": 16, "float32": 32, "float64": 64,
}  # fmt: skip


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of ours; ``bfloat16`` and the four-bit integers are those of ``ml_dtypes``."""
    if name in {"bfloat16", "int4", "uint4"}:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))
    return np.dtype(name)


@dataclass(slots=True, eq=False)
class Value:
    """A tensor. ``name`` is unique within its graph; ``data`` makes it a constant (never written to)."""

    name: str
    shape: Shape
    dtype: str
    data: Array | None = None

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return (self.size * BITS[self.dtype] + 7) // 8

    @property
    def is_constant(self) -> bool:
        return self.data is not None

    def __repr__(self) -> str:
        kind = "const " if self.data is not None else ""
        return f"<{kind}{self.name} {self.dtype}{list(self.shape)}>"


@dataclass(slots=True, eq=False)
class Node:
    """``op`` is a key of ``ops.OPS``. ``source`` is what the model's author called it, for messages."""

    op: str
    inputs: list[Value | None]
    outputs: list[Value]
    attrs: dict[str, Any] = field(default_factory=dict)
    source: str = ""

    @property
    def output(self) -> Value:
        if len(self.outputs) != 1:
            raise BugError(f"{self.op} has {len(self.outputs)} outputs")
        return self.outputs[0]

    def input(self, index: int) -> Value:
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise BugError(f"{self.op} ({self.source}) lacks input {index}")
        return value

    def optional(self, index: int) -> Value | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def __repr__(self) -> str:
        attrs = ", ".join(f"{key}={value!r:.60}" for key, value in self.attrs.items())
        return f"{self.outputs} = {self.op}({self.inputs}; {attrs})"


@dataclass(slots=True)
class Graph:
    """``rows`` is true if the leading dimension of every input and output is the batch and rows are independent."""

    name: str
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    # ------------------------------------------------------------ questions

    def producers(self) -> dict[Value, Node]:
        return {out: node for node in self.nodes for out in node.outputs}

    def consumers(self) -> dict[Value, list[Node]]:
        """Every use counts: a node that takes a value twice is listed twice. Graph outputs are not listed."""
        uses: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                if value is not None:
                    uses.setdefault(value, []).append(node)
        return uses

    def constants(self) -> list[Value]:
        seen: dict[Value, None] = {}
        for node in self.nodes:
            for value in node.inputs:
                if value is not None and value.data is not None:
                    seen.setdefault(value)
        for value in self.outputs:
            if value.data is not None:
                seen.setdefault(value)
        return list(seen)

    # ------------------------------------------------------------ changes

    def replace_uses(self, old: Value, new: Value) -> None:
        """Everybody who took ``old`` takes ``new``, graph outputs included (an output keeps its public name)."""
        for node in self.nodes:
            for index, value in enumerate(node.inputs):
                if value is old:
                    node.inputs[index] = new
        for index, value in enumerate(self.outputs):
            if value is old:
                self.outputs[index] = new

    def remove_dead(self) -> int:
        """Drop nodes none of whose outputs is used. Returns how many went."""
        used = set(self.outputs)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if any(out in used for out in node.outputs):
                kept.append(node)
                used.update(value for value in node.inputs if value is not None)
        gone = len(self.nodes) - len(kept)
        self.nodes = kept[::-1]
        return gone

    def sort(self) -> None:
        """Bring the nodes into a valid order, stable where the order does not matter."""
        made = self.producers()
        order: list[Node] = []
        state: dict[int, int] = {}
        for root in self.nodes:
            stack: list[tuple[Node, int]] = [(root, 0)]
            while stack:
                node, at = stack.pop()
                if at == 0:
                    if state.get(id(node)) == 2:
                        continue
                    if state.get(id(node)) == 1:
                        raise BugError(f"{self.name}: a cycle through {node.op}")
                    state[id(node)] = 1
                if at < len(node.inputs):
                    stack.append((node, at + 1))
                    value = node.inputs[at]
                    before = made.get(value) if value is not None else None
                    if before is not None and state.get(id(before)) != 2:
                        stack.append((before, 0))
                    continue
                state[id(node)] = 2
                order.append(node)
        self.nodes = order

    def verify(self) -> None:
        """Raise ``BugError`` if the graph does not hold together. Cheap enough after every pass in tests."""
        from fleetui.workshop.graph.ops import infer

        known: set[Value] = set(self.inputs)
        names: dict[str, Value] = {}
        for node in self.nodes:
            for value in node.inputs:
                if value is not None and value.data is None and value not in known:
                    raise BugError(f"{node.op} ({node.source}) uses {value} before it is made")
            want = infer(node.op, node.inputs, node.attrs)
            have = [(out.shape, out.dtype) for out in node.outputs]
            if want != have:
                raise BugError(f"{node.op} ({node.source}): outputs are {have}, the rule says {want}")
            known.update(node.outputs)
        for value in [*self.inputs, *(out for node in self.nodes for out in node.outputs), *self.constants()]:
            if names.setdefault(value.name, value) is not value:
                raise BugError(f"two values are called {value.name}")
            if value.data is not None and tuple(value.data.shape) != value.shape:
                raise BugError(f"{value}: its data has shape {value.data.shape}")
        for value in self.outputs:
            if value.data is None and value not in known:
                raise BugError(f"the output {value} is never made")

    def describe(self) -> str:
        lines = [f"{self.name}({', '.join(map(repr, self.inputs))})"]
        lines += [f"  {node!r}" for node in self.nodes]
        lines.append(f"  -> {self.outputs}")
        return "\n".join(lines)

    def copy(self) -> Graph:
        """New nodes and values; constants' arrays are shared."""
        fresh: dict[Value, Value] = {}

        def of(value: Value) -> Value:
            if value not in fresh:
                fresh[value] = Value(value.name, value.shape, value.dtype, value.data)
            return fresh[value]

        twin = Graph(self.name, [of(v) for v in self.inputs], [], [], dict(self.notes))
        for node in self.nodes:
            twin.nodes.append(
                Node(
                    node.op,
                    [None if v is None else of(v) for v in node.inputs],
                    [of(v) for v in node.outputs],
                    dict(node.attrs),
                    node.source,
                )
            )
        twin.outputs = [of(v) for v in self.outputs]
        return twin


def run(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Evaluate with numpy: slow, and the reference against which everything compiled is tested."""
    from fleetui.workshop.graph.ops import evaluate

    known: dict[Value, Array] = {value: np.asarray(feeds[value.name]) for value in graph.inputs}
    for node in graph.nodes:
        arrays = [None if v is None else (v.data if v.data is not None else known[v]) for v in node.inputs]
        known.update(zip(node.outputs, evaluate(node.op, arrays, node.attrs), strict=True))
    return {v.name: known[v] if v.data is None else v.data for v in graph.outputs}


def unique_names(values: Iterable[Value]) -> None:
    """Rename later values that clash with an earlier one."""
    taken: set[str] = set()
    for value in values:
        name, count = value.name, 1
        while value.name in taken:
            value.name, count = f"{name}_{count}", count + 1
        taken.add(value.name)
