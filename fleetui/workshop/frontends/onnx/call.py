"""What an operator's importer sees of one node, and the table of such importers.

A handler takes a ``Call`` and gives the node's outputs: one item, or a list of them (a missing optional output may
be left out or ``None``). An item is a tensor (``Value``), a ``TensorList`` (an ONNX sequence) or a ``Maybe`` (an
ONNX optional). Handlers speak to the graph through ``Call.op``; they never touch protobuf fields themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from fleetui.common.domain.errors import BugError
from fleetui.workshop.errors import ModelError, ShapeError, UnsupportedError
from fleetui.workshop.graph.ir import Array, Shape, Value, numpy_dtype

if TYPE_CHECKING:
    from fleetui.workshop.frontends.onnx.importer import Frame, Importer


@dataclass(slots=True)
class TensorList:
    """An ONNX sequence whose length is known while importing."""

    items: list[Value]
    dtype: str = ""


@dataclass(slots=True)
class Maybe:
    """An ONNX optional of which is known whether it holds something."""

    item: Value | TensorList | None


Item = Value | TensorList | Maybe
Result = Item | Sequence[Item | None]
Handler = Callable[["Call"], Result]

OPERATORS: dict[str, Handler] = {}
"""The default domain, ``ai.onnx``."""
CONTRIB: dict[str, Handler] = {}
"""``com.microsoft``: what ONNX Runtime's optimiser writes."""
REFUSED: dict[str, str] = {}
"""Operators of ``ai.onnx`` that no static program can hold, each with the reason."""


def operator(*names: str, contrib: bool = False) -> Callable[[Handler], Handler]:
    table = CONTRIB if contrib else OPERATORS

    def register(handler: Handler) -> Handler:
        for name in names:
            if name in table:
                raise BugError(f"two importers for {name}")
            table[name] = handler
        return handler

    return register


class NeedsConstant(UnsupportedError):  # noqa: N818 - reads as what it is
    """A shape or setting is computed from ``roots``, inputs of the model, and would have to be known now."""

    def __init__(self, sentence: str, fix: str, *, operator: str, node: str, roots: tuple[str, ...]) -> None:
        super().__init__(sentence, fix, operator=operator, node=node)
        self.roots = roots


@dataclass(slots=True)
class Call:
    importer: Importer
    frame: Frame
    op_type: str
    label: str
    version: int
    inputs: list[Item | None]
    attrs: dict[str, Any]
    outputs: list[str] = field(default_factory=list)

    # ------------------------------------------------------------ refusing

    @property
    def where(self) -> str:
        return f"{self.op_type} '{self.label}'"

    def refuse(self, sentence: str, fix: str = "") -> NoReturn:
        """The model is sound, but we cannot compile this node."""
        raise UnsupportedError(f"{self.where} {sentence}", fix, operator=self.op_type, node=self.label)

    def broken(self, sentence: str) -> NoReturn:
        """The model does not hold together at this node."""
        raise ModelError(f"{self.where} {sentence}", "Export the model again, or check it with onnx.checker")

    def misfit(self, sentence: str) -> NoReturn:
        raise ShapeError(f"{self.where} {sentence}", "Check the shapes the model was given")

    # ------------------------------------------------------------ inputs

    def item(self, index: int) -> Item | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def opt(self, index: int) -> Value | None:
        """An optional tensor."""
        item = self.item(index)
        if isinstance(item, Maybe):
            item = item.item
        if item is None or isinstance(item, Value):
            return item
        return self.broken(f"takes a tensor as input {index}, but is given a sequence")

    def value(self, index: int) -> Value:
        value = self.opt(index)
        if value is None:
            self.broken(f"lacks its input {index}")
        return value

    def values(self) -> list[Value]:
        """All inputs of a variadic operator."""
        return [self.value(index) for index in range(len(self.inputs))]

    def sequence(self, index: int) -> TensorList:
        item = self.item(index)
        if isinstance(item, Maybe):
            item = item.item
        if not isinstance(item, TensorList):
            self.broken(f"takes a sequence as input {index}, but is given something else")
        return item

    def const(self, index: int, what: str) -> Array:
        """An input whose numbers must be known now. ``what`` ends "its … must be known when compiling"."""
        value = self.value(index)
        if value.data is not None:
            return value.data
        roots = self.importer.roots(value)
        named = ", ".join(f"'{name}'" for name in roots)
        raise NeedsConstant(
            f"{self.where}: its {what} must be known when compiling, but depends on the input {named}",
            "Export the model with fixed shapes, or with that input as a constant",
            operator=self.op_type,
            node=self.label,
            roots=roots,
        )

    def const_or(self, index: int, what: str, default: Array | None) -> Array | None:
        return default if self.opt(index) is None else self.const(index, what)

    def ints_of(self, index: int, what: str) -> list[int]:
        return [int(n) for n in np.asarray(self.const(index, what)).reshape(-1)]

    def int_of(self, index: int, what: str) -> int:
        numbers = self.ints_of(index, what)
        if len(numbers) != 1:
            self.broken(f"takes one number as its {what}, but is given {len(numbers)}")
        return numbers[0]

    def axes_of(self, index: int, rank: int, name: str = "axes") -> list[int] | None:
        """Axes from an attribute or, in later versions, from an input; ``None`` where not given."""
        if name in self.attrs:
            axes = self.integers(name)
        elif self.opt(index) is not None:
            axes = self.ints_of(index, name)
        else:
            return None
        return [self.axis(a, rank) for a in axes]

    def axis(self, axis: int, rank: int) -> int:
        if not -rank <= axis < max(rank, 1):
            self.misfit(f"names axis {axis} of a tensor of rank {rank}")
        return axis + rank if axis < 0 else axis

    def wants(self, index: int) -> bool:
        return index < len(self.outputs) and bool(self.outputs[index])

    # ------------------------------------------------------------ attributes

    def has(self, name: str) -> bool:
        return name in self.attrs

    def _attr(self, name: str, kinds: tuple[type, ...], default: Any) -> Any:
        found = self.attrs.get(name, default)
        if found is default:
            if default is ...:
                self.broken(f"lacks its attribute '{name}'")
            return default
        if not isinstance(found, kinds):
            self.broken(f"has an attribute '{name}' of the wrong kind")
        return found

    def integer(self, name: str, default: Any = ...) -> int:
        return self._attr(name, (int,), default)

    def flag(self, name: str, *, default: bool = False) -> bool:
        return bool(self._attr(name, (int,), int(default)))

    def real(self, name: str, default: Any = ...) -> float:
        return self._attr(name, (float, int), default)

    def text(self, name: str, default: Any = ...) -> str:
        return self._attr(name, (str,), default)

    def integers(self, name: str, default: Any = ...) -> list[int]:
        found = self._attr(name, (list,), default)
        if found is not default and not all(isinstance(n, int) for n in found):
            self.broken(f"has an attribute '{name}' of the wrong kind")
        return found

    def reals(self, name: str, default: Any = ...) -> list[float]:
        return self._attr(name, (list,), default)

    def texts(self, name: str, default: Any = ...) -> list[str]:
        return self._attr(name, (list,), default)

    def dtype_attr(self, name: str, default: str = "") -> str:
        """An attribute that holds a number of ``TensorProto.DataType``."""
        from fleetui.workshop.frontends.onnx.tensors import dtype_name

        if name not in self.attrs and default:
            return default
        code = self.integer(name)
        known = dtype_name(code)
        if not known:
            from fleetui.workshop.frontends.onnx.tensors import dtype_title

            self.refuse(f"makes tensors of type {dtype_title(code)}, which we do not compute with")
        return known

    # ------------------------------------------------------------ making nodes

    def op(self, op: str, *inputs: Value | None, **attrs: Any) -> Value:
        return self.importer.emit(op, *inputs, **attrs)[0]

    def ops(self, op: str, *inputs: Value | None, **attrs: Any) -> list[Value]:
        return self.importer.emit(op, *inputs, **attrs)

    def constant(self, data: Any, dtype: str = "") -> Value:
        array = np.asarray(data)
        if dtype:
            array = array.astype(numpy_dtype(dtype))
        return self.importer.builder.constant(array, dtype=dtype)

    def full(self, shape: Sequence[int], number: float, dtype: str) -> Value:
        """A constant of one number, which takes no memory however large it is."""
        one = self.constant(number, dtype)
        if one.data is None:
            raise BugError("a constant without data")
        return self.importer.builder.constant(np.broadcast_to(one.data, tuple(shape)), dtype=dtype)

    def scalar(self, number: float, like: Value) -> Value:
        return self.constant(number, like.dtype)

    def cast(self, x: Value, dtype: str) -> Value:
        return x if x.dtype == dtype else self.op("cast", x, to=dtype, saturate=False)

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        want = tuple(int(d) for d in shape)
        if x.shape == want:
            return x
        if x.data is not None and x.size == int(np.prod(want, dtype=np.int64)):
            return self.view(x, x.data.reshape(want))
        return self.op("reshape", x, shape=want)

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        order = tuple(int(p) for p in perm)
        if order == tuple(range(x.rank)):
            return x
        if x.data is not None:
            return self.view(x, x.data.transpose(order))
        return self.op("transpose", x, perm=order)

    def view(self, x: Value, data: Array) -> Value:
        """The same constant seen differently: weights of any size are never copied."""
        return Value(x.name, tuple(data.shape), x.dtype, data)  # by its own name: doubles are renamed at the end

    def broadcast(self, x: Value, shape: Sequence[int]) -> Value:
        want = tuple(int(d) for d in shape)
        if x.shape == want:
            return x
        if x.data is not None:
            try:
                return self.view(x, np.broadcast_to(x.data, want))
            except ValueError:
                self.misfit(f"cannot stretch the shape {list(x.shape)} to {list(want)}")
        return self.op("broadcast_to", x, shape=want)

    def squeeze(self, x: Value, axes: Sequence[int]) -> Value:
        gone = set(axes)
        return self.reshape(x, [d for i, d in enumerate(x.shape) if i not in gone])

    def unsqueeze(self, x: Value, axes: Sequence[int]) -> Value:
        """``axes`` are positions in the result."""
        rank = x.rank + len(axes)
        at = {self.axis(a, rank) for a in axes}
        if len(at) != len(axes):
            self.broken("names an axis twice")
        sizes = iter(x.shape)
        return self.reshape(x, [1 if i in at else next(sizes) for i in range(rank)])

    def cut(self, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
        """``x[start:stop:step]`` along one axis; both are normalised already."""
        if start == 0 and stop == x.shape[axis] and step == 1:
            return x
        starts, stops, steps = [0] * x.rank, list(x.shape), [1] * x.rank
        starts[axis], stops[axis], steps[axis] = start, stop, step
        return self.op("slice", x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))

    def reduce(self, x: Value, kind: str, axes: Sequence[int], *, keepdims: bool = True) -> Value:
        return self.op("reduce", x, kind=kind, axes=tuple(sorted(axes)), keepdims=keepdims)

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        return values[0] if len(values) == 1 else self.op("concat", *values, axis=axis)

    def broadcast_shape(self, *shapes: Shape) -> Shape:
        try:
            return tuple(np.broadcast_shapes(*shapes))
        except ValueError:
            self.misfit(f"cannot bring the shapes {', '.join(str(list(s)) for s in shapes)} together")
