"""Makes nodes: every ``op`` call infers shapes, and folds at once what is constant and small.

A frontend does ``b = Builder("name")``, ``x = b.input("x", (1, 3, 224, 224), "float32")``,
``y = b.op("relu", x)``, ``b.output(y, "y")``, ``graph = b.finish()``. ``b.source`` names the node of the source
model that is being imported; it goes into every node made and into error messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fleetui.workshop.errors import ShapeError, UnsupportedError
from fleetui.workshop.graph.ir import Array, Graph, Node, Shape, Value, numpy_dtype, unique_names
from fleetui.workshop.graph.ops import evaluate, infer

FOLD_BYTES = 1 << 26
KEPT = frozenset({"dequantize", "extern"})
"""Not folded when constant: narrow weights are to stay narrow, and a plug-in's operator runs on its device."""


class Builder:
    def __init__(self, name: str) -> None:
        self.graph = Graph(name)
        self.source = ""
        self._names: dict[str, int] = {}

    # ------------------------------------------------------------ values

    def fresh(self, name: str) -> str:
        """A name nobody has yet, near to the one wished for."""
        name = name or "v"
        count = self._names.get(name)
        self._names[name] = (count or 0) + 1
        return name if count is None else self.fresh(f"{name}.{count}")

    def input(self, name: str, shape: Sequence[int], dtype: str) -> Value:
        value = Value(self.fresh(name), tuple(int(d) for d in shape), dtype)
        self.graph.inputs.append(value)
        return value

    def constant(self, data: Array | float | bool, name: str = "c", dtype: str = "") -> Value:
        """Arrays are taken as they are, without a copy; ``int4``/``bfloat16`` need ``dtype`` said."""
        array = np.asarray(data)
        return Value(self.fresh(name), tuple(array.shape), dtype or str(array.dtype), array)

    def scalar(self, number: float | bool, like: Value) -> Value:
        """A rank-0 constant of another value's dtype."""
        return self.constant(np.asarray(number).astype(numpy_dtype(like.dtype)))

    # ------------------------------------------------------------ nodes

    def op(self, op: str, *inputs: Value | None, **attrs: Any) -> Value:
        """A node with one output. ``name=`` wishes a name for it."""
        return self.ops(op, *inputs, **attrs)[0]

    def ops(self, op: str, *inputs: Value | None, name: str = "", **attrs: Any) -> list[Value]:
        """A node with several outputs."""
        try:
            types = infer(op, list(inputs), attrs)
        except (ShapeError, UnsupportedError) as error:
            if self.source and self.source not in error.sentence:
                where = f"at {self.source}: {error.sentence}"
                raise type(error)(where, error.fix) from error
            raise
        if inputs and op not in KEPT and all(v is None or v.data is not None for v in inputs):
            folded = self._fold(op, inputs, attrs, types, name)
            if folded is not None:
                return folded
        outs = [Value(self.fresh(name or op), shape, dtype) for shape, dtype in types]
        self.graph.nodes.append(Node(op, list(inputs), outs, attrs, self.source))
        return outs

    def _fold(
        self,
        op: str,
        inputs: tuple[Value | None, ...],
        attrs: dict[str, Any],
        types: list[tuple[Shape, str]],
        name: str,
    ) -> list[Value] | None:
        if sum(int(np.prod(shape)) * 8 for shape, _ in types) > FOLD_BYTES:
            return None
        arrays = evaluate(op, [None if v is None else v.data for v in inputs], attrs)
        return [
            Value(self.fresh(name or op), shape, dtype, array)
            for (shape, dtype), array in zip(types, arrays, strict=True)
        ]

    def output(self, value: Value, name: str) -> None:
        """Give a value out under a public name. Outputs are told apart even if they are the same tensor."""
        if value.name != name or value in self.graph.outputs or value in self.graph.inputs:
            out = Value(name, value.shape, value.dtype)
            self.graph.nodes.append(Node("identity", [value], [out], {}, self.source))
            value = out
        self.graph.outputs.append(value)

    def finish(self) -> Graph:
        graph = self.graph
        graph.remove_dead()
        made = [out for node in graph.nodes for out in node.outputs]
        unique_names(dict.fromkeys([*graph.inputs, *graph.outputs, *made, *graph.constants()]))
        return graph
