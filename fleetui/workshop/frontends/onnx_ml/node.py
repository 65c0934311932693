"""What the importers of ``ai.onnx.ml`` share: a node, its attributes and inputs, and a way to emit primitives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from fleetui.workshop.errors import ModelError, UnsupportedError
from fleetui.workshop.graph.ir import Array, Value

EXPORT = "Export the model again"
NUMBERS = "Convert the model with numbers as features and labels, for instance with integer labels and zipmap off"
POSTS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


@dataclass(slots=True)
class MlNode:
    """``importer`` is that of the ONNX frontend: it emits nodes and reads attributes and tensors."""

    importer: Any
    node: Any
    inputs: list[Any]
    attrs: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.node.op_type)

    @property
    def label(self) -> str:
        return str(self.node.name or (self.node.output[0] if self.node.output else ""))

    def refuse(self, what: str, fix: str = NUMBERS) -> NoReturn:
        raise self.refusal(what, fix)

    def refusal(self, what: str, fix: str = NUMBERS) -> UnsupportedError:
        return UnsupportedError(f"{self.kind} '{self.label}' {what}", fix, operator=self.kind, node=self.label)

    def damage(self, what: str) -> ModelError:
        return ModelError(f"{self.kind} '{self.label}' does not hold together: {what}", EXPORT)

    def broken(self, what: str) -> NoReturn:
        raise self.damage(what)

    # ------------------------------------------------------------ reading

    def input(self, index: int = 0) -> Value:
        value = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(value, Value):
            self.broken(f"its input {index} is not a tensor")
        return value

    def table(self, index: int = 0) -> Value:
        """Rows of features; a single row may come without its batch."""
        x = self.input(index)
        if x.rank == 1:
            return self.op("reshape", x, shape=(1, x.shape[0]))
        if x.rank != 2:
            self.broken(f"its input has {x.rank} dimensions")
        return x

    def floats(self, x: Value, dtype: str = "float32") -> Value:
        return x if x.dtype == dtype else self.op("cast", x, to=dtype)

    def ints(self, name: str) -> Array:
        return self._list(name, np.int64)

    def numbers(self, name: str, dtype: Any = np.float32) -> Array:
        """A list of floats, or the tensor that newer versions keep instead."""
        for key in (f"{name}_as_tensor", name):
            tensor = self.attrs.get(key)
            if tensor is not None and not isinstance(tensor, (list, str, int, float)):
                return self.tensor(key)
        return self._list(name, dtype)

    def tensor(self, name: str) -> Array:
        found = self.attrs.get(name)
        if found is None:
            return np.zeros(0)
        from fleetui.workshop.frontends.onnx.tensors import to_array

        return np.asarray(to_array(found, self.importer.source.folder, name)).reshape(-1)

    def _list(self, name: str, dtype: Any) -> Array:
        found = self.attrs.get(name, [])
        try:
            made: Array = np.array(found if isinstance(found, list) else [found]).astype(dtype)
        except (TypeError, ValueError, OverflowError):
            self.broken(f"{name} is not a list of numbers")
        return made

    def text(self, name: str, default: str) -> str:
        return str(self.attrs.get(name, default))

    def number(self, name: str, default: float) -> float:
        try:
            return float(self.attrs.get(name, default))
        except (TypeError, ValueError):
            self.broken(f"{name} is not a number")

    def no_strings(self, *names: str) -> None:
        for name in names:
            if self.attrs.get(name):
                self.refuse(f"uses text ({name}), and we compute with numbers only")

    # ------------------------------------------------------------ emitting

    def op(self, op: str, *inputs: Value | None, **attrs: Any) -> Value:
        made: Value = self.importer.emit(op, *inputs, **attrs)[0]
        return made

    def ops(self, op: str, *inputs: Value | None, **attrs: Any) -> list[Value]:
        made: list[Value] = self.importer.emit(op, *inputs, **attrs)
        return made

    def const(self, data: Any, dtype: str = "") -> Value:
        array = np.asarray(data)
        made: Value = self.importer.builder.constant(array.astype(dtype) if dtype else array, "c")
        return made

    def by(self, op: str, x: Value, number: float) -> Value:
        return self.op(op, x, self.const(number, x.dtype))

    def reduce(self, kind: str, x: Value) -> Value:
        return self.op("reduce", x, kind=kind, axes=(x.rank - 1,), keepdims=True)


# ---------------------------------------------------------------- after the scores


def transformed(n: MlNode, scores: Value, post: str) -> Value:
    """A post-transform of ONNX-ML on scores of several classes."""
    if post == "NONE":
        return scores
    if post == "LOGISTIC":
        return n.op("sigmoid", scores)
    if post == "SOFTMAX":
        return n.op("softmax", scores, axis=1)
    if post == "SOFTMAX_ZERO":
        # Scores of exactly zero (as the runtime sees it, below 1e-7) stay out of it.
        zero = n.by("less", n.op("abs", scores), 1e-7)
        top = n.reduce("max", scores)
        grown = n.op("exp", n.op("sub", scores, top))
        kept = n.op("where", zero, n.const(0.0, scores.dtype), grown)
        total = n.reduce("sum", kept)
        safe = n.op("where", n.by("equal", total, 0.0), n.const(1.0, scores.dtype), total)
        return n.op("where", zero, scores, n.op("div", kept, safe))
    if post == "PROBIT":
        return _probit(n, scores)
    raise n.refusal(f"has the post-transform {post!r}, which we do not know", EXPORT)


def _probit(n: MlNode, scores: Value) -> Value:
    """Winitzki's approximation of the inverse error function, the one ONNX Runtime has."""
    x = n.by("sub", n.by("mul", scores, 2.0), 1.0)
    logs = n.op("log", n.op("sub", n.const(1.0, x.dtype), n.op("mul", x, x)))
    v = n.by("add", n.by("mul", logs, 0.5), 2 / (3.14159 * 0.147))
    w = n.by("mul", logs, 1 / 0.147)
    inner = n.op("sub", n.op("sqrt", n.op("sub", n.op("mul", v, v), w)), v)
    return n.by("mul", n.op("mul", n.op("sign", x), n.op("sqrt", inner)), 1.41421356)


def labelled(n: MlNode, scores: Value, labels: Array) -> Value:
    """The label of the greatest score, the first of equals."""
    best = n.op("argmax", scores, axis=1, keepdims=False, last=False)
    return n.op("gather", n.const(labels, "int64"), best, axis=0)


def integer_labels(n: MlNode, *names: str) -> Array:
    for name in names:
        if name.endswith("strings") and n.attrs.get(name):
            n.refuse("has texts as labels, and we compute with numbers only")
    for name in names:
        found = n.ints(name) if not name.endswith("strings") else np.zeros(0, np.int64)
        if found.size:
            return found
    raise n.damage("it has no labels")


def pair(n: MlNode, score: Value, *, negative: bool) -> Value:
    """Two columns of one score: [-s, s], or [1 - s, s]."""
    other = n.op("neg", score) if negative else n.op("sub", n.const(1.0, score.dtype), score)
    return n.op("concat", other, score, axis=1)
