"""An editor for graphs: who makes and who uses what is always known, so that no pass scans the graph for it.

Passes are written as rules. A rule is asked about one node and either leaves everything alone (``False``) or
changes the graph through the editor. Nodes whose surroundings changed are asked again until nothing moves. Nodes
without users disappear at once, so "has one user" can be relied on. ``finish`` brings the nodes into order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fleetui.common.domain.errors import BugError
from fleetui.workshop.graph.ir import Array, Graph, Node, Value, numpy_dtype
from fleetui.workshop.graph.ops import evaluate, infer

KEPT = frozenset({"dequantize", "extern", "identity"})
"""Not folded though all inputs are constant: an identity gives out a constant, if it is not needless anyway."""
NARROW = frozenset({"float16", "bfloat16", "int4", "uint4", "int8", "uint8"})
FOLD_LIMIT = 1 << 28
GROWTH_LIMIT = 1 << 20
"""A constant beyond this many bytes that would be bigger than what it is made from is not folded."""

PATIENCE = 100
"""Rules that fire more often than this for each node undo one another."""

Rule = Callable[["Editor", Node], bool]
Rules = Mapping[str, Sequence[Rule]]


class Editor:
    def __init__(self, graph: Graph, widen: bool = True) -> None:
        """``widen``: narrow constants may be folded into wide ones."""
        self.graph = graph
        self.widen = widen
        self.changes = 0
        self.made: dict[Value, Node] = {}
        self.uses: dict[Value, dict[Node, int]] = {}
        self.outputs: set[Value] = set(graph.outputs)
        self._inputs: set[Value] = set(graph.inputs)
        self._nodes: dict[Node, None] = {}
        self._names: set[str] = set()
        self._counts: dict[str, int] = {}
        self._queue: deque[Node] = deque()
        self._queued: set[Node] = set()
        self._held: list[Node] | None = None
        graph.remove_dead()
        for value in [*graph.inputs, *graph.outputs, *graph.constants()]:
            self._names.add(value.name)
        for node in graph.nodes:
            self._names.update(value.name for value in node.outputs)
            self._attach(node)

    # ------------------------------------------------------------ questions

    def maker(self, value: Value | None, *ops: str) -> Node | None:
        """The node that makes a value, if it is one of these operators."""
        node = self.made.get(value) if value is not None else None
        return node if node is not None and (not ops or node.op in ops) else None

    def users(self, value: Value) -> list[Node]:
        return list(self.uses.get(value, ()))

    def only_user(self, value: Value) -> Node | None:
        """The one node that takes this value (once), and nobody else sees it."""
        users = self.uses.get(value, {})
        if value in self.outputs or len(users) != 1:
            return None
        ((node, count),) = users.items()
        return node if count == 1 else None

    def private(self, value: Value) -> bool:
        """Only one node takes this value, though perhaps twice, and it is not given out."""
        return value not in self.outputs and len(self.uses.get(value, {})) == 1

    @property
    def nodes(self) -> list[Node]:
        return list(self._nodes)

    def alive(self, node: Node) -> bool:
        return node in self._nodes

    # ------------------------------------------------------------ making

    def fresh(self, name: str) -> str:
        name = name or "v"
        if name not in self._names:
            self._names.add(name)
            return name
        count = self._counts.get(name, 0) + 1
        while f"{name}.{count}" in self._names:
            count += 1
        self._counts[name] = count
        self._names.add(f"{name}.{count}")
        return f"{name}.{count}"

    def constant(self, data: Array, name: str = "c", dtype: str = "") -> Value:
        return Value(self.fresh(name), tuple(data.shape), dtype or str(data.dtype), data)

    def scalar(self, number: float, like: Value) -> Value:
        return self.constant(np.asarray(number).astype(numpy_dtype(like.dtype)))

    def op(self, op: str, *inputs: Value | None, source: str = "", name: str = "", **attrs: Any) -> Value:
        return self.ops(op, *inputs, source=source, name=name, **attrs)[0]

    def ops(self, op: str, *inputs: Value | None, source: str = "", name: str = "", **attrs: Any) -> list[Value]:
        """As ``Builder.ops``: what is constant is computed at once, unless it had better stay as it is."""
        types = infer(op, list(inputs), attrs)
        node = Node(op, list(inputs), [], attrs, source)
        if self.foldable(node, [Value("", shape, dtype) for shape, dtype in types]):
            arrays = evaluate(op, [None if v is None else v.data for v in inputs], attrs)
            return [
                self.constant(np.ascontiguousarray(array).reshape(shape), name or op, dtype)
                for (shape, dtype), array in zip(types, arrays, strict=True)
            ]
        node.outputs = [Value(self.fresh(name or op), shape, dtype) for shape, dtype in types]
        self._attach(node)
        self._ask(node)
        return node.outputs

    def foldable(self, node: Node, outputs: Sequence[Value]) -> bool:
        """All inputs are constant, and the result is not better kept as an expression."""
        if not node.inputs or node.op in KEPT or any(v is not None and v.data is None for v in node.inputs):
            return False
        if not self.widen and node.op == "cast" and node.input(0).dtype in NARROW:
            return False
        if node.op in {"reshape", "transpose"}:
            return True
        total = sum(out.nbytes for out in outputs)
        if total > FOLD_LIMIT:
            return False
        return (
            total <= GROWTH_LIMIT
            or node.op == "cast"
            or total <= sum(v.nbytes for v in node.inputs if v is not None)
        )

    def add_node(self, node: Node) -> None:
        """A node whose outputs exist already."""
        self._attach(node)
        self._ask(node)

    # ------------------------------------------------------------ changing

    def replace(self, old: Value, new: Value) -> None:
        """Whoever took ``old`` takes ``new``. A graph output keeps its public name, by a copy if need be."""
        if old is new:
            raise BugError(f"{old} replaced by itself")
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise BugError(f"{old} replaced by {new}")
        self.changes += 1
        given_out = old in self.outputs
        for node in self.users(old):
            for index, value in enumerate(node.inputs):
                if value is old:
                    self._set(node, index, new)
            self._ask(node)
        maker = self.made.get(old)
        if given_out and new not in self._inputs and new not in self.outputs and new.data is None:
            old.name, new.name = new.name, old.name
            self.graph.outputs[:] = [new if value is old else value for value in self.graph.outputs]
            self.outputs.discard(old)
            self.outputs.add(new)
        elif given_out and not (maker is not None and maker.op == "identity" and maker.inputs[0] is new):
            self._detach_output(old)
            self.add_node(Node("identity", [new], [old], {}, maker.source if maker else ""))
        before = self.made.get(new)
        if before is not None:
            self._ask(before)
        for node in self.users(new):
            self._ask(node)
        self._release(maker)

    def set_input(self, node: Node, index: int, value: Value | None) -> None:
        while len(node.inputs) <= index:
            node.inputs.append(None)
        self._set(node, index, value)
        self.touch(node)

    def set_inputs(self, node: Node, values: Iterable[Value | None]) -> None:
        before, node.inputs = node.inputs, list(values)
        for value in node.inputs:
            if value is not None:
                users = self.uses.setdefault(value, {})
                users[node] = users.get(node, 0) + 1
        for value in before:
            if value is not None:
                self._drop_use(value, node)
        self.touch(node)

    def touch(self, node: Node) -> None:
        """Something about this node changed: it and its neighbours are asked again."""
        self.changes += 1
        self._ask(node)
        for out in node.outputs:
            for user in self.uses.get(out, ()):
                self._ask(user)

    def rename_output(self, node: Node, index: int, value: Value) -> None:
        """Make a node's output another value; the former one belongs to nobody until somebody makes it."""
        self.made.pop(node.outputs[index], None)
        node.outputs[index] = value
        self.made[value] = node

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Nothing disappears while a bigger change is under way."""
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            for node in held:
                self._release(node)

    # ------------------------------------------------------------ running

    def apply(self, rules: Rules, check: Callable[[], None] | None = None) -> int:
        """Ask rules about every node until none of them changes anything. Returns the number of changes."""
        start = self.changes
        for node in self._nodes:
            self._ask(node)
        steps, limit = 0, PATIENCE * (len(self._nodes) + 100)
        while self._queue:
            node = self._queue.popleft()
            self._queued.discard(node)
            if node not in self._nodes:
                continue
            if not any(out in self.outputs or self.uses.get(out) for out in node.outputs):
                before = self.changes
                self._release(node)  # made by a rule that then thought better of it
                self.changes = before
                continue
            steps += 1
            if check is not None and steps % 64 == 0:
                check()
            for rule in (*rules.get(node.op, ()), *rules.get("*", ())):
                if rule(self, node):
                    if steps > limit:
                        raise BugError(f"rules go round in circles: {rule.__name__} at {node}")
                    if node in self._nodes:
                        self._ask(node)
                    break
        return self.changes - start

    def finish(self) -> int:
        self.graph.nodes = list(self._nodes)
        self.graph.sort()
        self.graph.remove_dead()
        return self.changes

    # ------------------------------------------------------------ within

    def _ask(self, node: Node) -> None:
        if node not in self._queued:
            self._queued.add(node)
            self._queue.append(node)

    def _attach(self, node: Node) -> None:
        self._nodes[node] = None
        for out in node.outputs:
            self.made[out] = node
        for value in node.inputs:
            if value is not None:
                users = self.uses.setdefault(value, {})
                users[node] = users.get(node, 0) + 1

    def _set(self, node: Node, index: int, value: Value | None) -> None:
        old = node.inputs[index]
        if old is value:
            return
        node.inputs[index] = value
        if value is not None:
            users = self.uses.setdefault(value, {})
            users[node] = users.get(node, 0) + 1
        if old is not None:
            self._drop_use(old, node)

    def _drop_use(self, value: Value, node: Node) -> None:
        users = self.uses[value]
        users[node] -= 1
        if not users[node]:
            del users[node]
        maker = self.made.get(value)
        if maker is not None:
            self._ask(maker)
            for user in users:
                self._ask(user)  # it may have become the only one
            if not users:
                self._release(maker)

    def _detach_output(self, value: Value) -> None:
        maker = self.made.pop(value, None)
        if maker is not None:
            at = maker.outputs.index(value)
            spare = Value(self.fresh(value.name), value.shape, value.dtype)
            maker.outputs[at] = spare
            self.made[spare] = maker

    def _release(self, node: Node | None) -> None:
        """Remove a node that nobody needs any more, and then those that only it needed."""
        if self._held is not None:
            self._held.extend([node] if node is not None else [])
            return
        waiting = [node] if node is not None else []
        while waiting:
            gone = waiting.pop()
            if gone not in self._nodes or any(out in self.outputs or self.uses.get(out) for out in gone.outputs):
                continue
            del self._nodes[gone]
            self.changes += 1
            for out in gone.outputs:
                self.made.pop(out, None)
            for value in gone.inputs:
                if value is None:
                    continue
                users = self.uses[value]
                users[gone] -= 1
                if users[gone]:
                    continue
                del users[gone]
                maker = self.made.get(value)
                if maker is not None:
                    self._ask(maker)
                    for user in users:
                        self._ask(user)
                    if not users:
                        waiting.append(maker)


def merge(*tables: Rules) -> dict[str, list[Rule]]:
    """One table of several; earlier ones are asked first."""
    merged: dict[str, list[Rule]] = {}
    for table in tables:
        for op, rules in table.items():
            merged.setdefault(op, []).extend(rules)
    return merged


def run(graph: Graph, *tables: Rules, check: Callable[[], None] | None = None, widen: bool = True) -> int:
    editor = Editor(graph, widen)
    editor.apply(merge(*tables), check)
    return editor.finish()
