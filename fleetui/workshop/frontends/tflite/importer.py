"""Walks a TFLite graph and has each operator's handler make nodes of ours.

Quantised tensors stay in their integers wherever data only moves. Convolutions and products of 8-bit operands are
made in integers (``layers``); everything else is computed on real numbers between ``dequantize`` and ``quantize``,
which differs from TFLite's fixed-point tables by at most one step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fleetui.workshop.errors import ModelError, UnsupportedError
from fleetui.workshop.frontends.base import Port, Problem
from fleetui.workshop.frontends.emit import FLOATS, Emit
from fleetui.workshop.frontends.summary import settle_all
from fleetui.workshop.frontends.tflite.reader import Model, Operator, Quantisation
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Array, Graph, Value
from fleetui.workshop.options import InputSpec

Handler = Callable[["Importer"], Any]
TABLE: dict[str, Handler] = {}
NODES = 200_000
DEPTH = 8
INTEGERS = {"int8", "uint8", "int16", "int32"}


def on(*names: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        for name in names:
            TABLE[name] = handler
        return handler

    return register


def _load_handlers() -> None:
    from fleetui.workshop.frontends.tflite import arithmetic, control, layers, shapes

    assert all((arithmetic, control, layers, shapes))


@dataclass(slots=True)
class Importer:
    """While a handler runs, ``op`` is its operator; it asks for inputs by position and returns its outputs."""

    model: Model
    inputs: Sequence[InputSpec] = ()
    b: Builder = field(default_factory=lambda: Builder("model"))
    e: Emit = field(init=False)
    op: Operator = field(init=False)
    values: dict[int, Value] = field(default_factory=dict)
    depth: int = 0

    def __post_init__(self) -> None:
        _load_handlers()
        self.e = Emit(self.b)

    # ------------------------------------------------------------ ports

    def input_ports(self) -> list[Port]:
        return [self._port(i) for i in self.model.inputs]

    def output_ports(self) -> list[Port]:
        taken: set[str] = set()
        ports = []
        for index in self.model.outputs:
            port = self._port(index)
            name = port.name
            while name in taken:
                name += "_again"
            taken.add(name)
            ports.append(Port(name, port.shape, port.dtype))
        return ports

    def _port(self, index: int) -> Port:
        tensor = self.model.tensors[index]
        shape = tuple(
            d if d >= 0 else "batch" if at == 0 else f"{self.model.name(index)}_{at}"
            for at, d in enumerate(tensor.signature)
        )
        return Port(self.model.name(index), shape, tensor.dtype)

    def problems(self) -> list[Problem]:
        """In all of the file's graphs: those that only initialise variables are of no help without these either."""
        return [
            Problem(op.name, _where(graph, op), "This operator is not supported")
            for graph in self.model.graphs
            for op in graph.operators
            if op.name not in TABLE
        ]

    # ------------------------------------------------------------ the walk

    def run(self) -> Graph:
        model = self.model
        ports = self.input_ports()
        for index, port, (shape, dtype) in zip(model.inputs, ports, settle_all(ports, self.inputs), strict=True):
            self.values[index] = self.b.input(port.name, shape, dtype)
        self.walk()
        for index, port in zip(model.outputs, self.output_ports(), strict=True):
            self.b.source = port.name
            self.b.output(self._value(index), port.name)
        return self.b.finish()

    def walk(self) -> None:
        for op in self.model.operators:
            self.op = op
            self.b.source = _where(self.model, op)
            handler = TABLE.get(op.name)
            if handler is None:
                raise UnsupportedError(
                    f"The operator {op.name} at {self.b.source} is not supported", "Replace it in the model",
                    operator=op.name, node=self.b.source,
                )  # fmt: skip
            made = handler(self)
            outs = list(made) if isinstance(made, list | tuple) else [made]
            for index, value in zip(op.outputs, outs, strict=False):
                if index >= 0:
                    self.values[index] = value
                if len(self.b.graph.nodes) > NODES:
                    raise UnsupportedError(f"The model unrolls to more than {NODES} nodes", "Use shorter loops")

    def call(self, place: int, arguments: Sequence[Value]) -> list[Value]:
        """Another graph of the file, in line: a loop's body or condition, a branch."""
        if not 0 < place < len(self.model.graphs) or self.depth > DEPTH:
            raise ModelError(f"{self.b.source} calls a graph that does not exist", "Export the model again")
        inner = Importer(self.model.graphs[place], b=self.b, depth=self.depth + 1)
        inner.values.update(zip(inner.model.inputs, arguments, strict=True))
        inner.walk()
        return [inner._value(index) for index in inner.model.outputs]

    def _value(self, index: int) -> Value:
        if index in self.values:
            return self.values[index]
        tensor = self.model.tensors[index]
        if tensor.data is None:
            raise ModelError(
                f"{self.b.source} uses the tensor {tensor.name!r:.80}, which nothing makes",
                "The model keeps a state between runs, or the file is damaged",
            )
        dtype = "int8" if tensor.dtype == "int4" else tensor.dtype
        self.values[index] = self.b.constant(tensor.data, tensor.name, dtype)
        return self.values[index]

    # ------------------------------------------------------------ what handlers ask

    def has(self, at: int) -> bool:
        return at < len(self.op.inputs) and self.op.inputs[at] >= 0

    def raw(self, at: int) -> Value:
        """The input as it is stored, integers as integers."""
        if not self.has(at):
            raise ModelError(f"{self.op.name} at {self.b.source} lacks its input {at}", "Export the model again")
        return self._value(self.op.inputs[at])

    def real(self, at: int) -> Value:
        """The input as real numbers: dequantised if it is quantised."""
        value = self.raw(at)
        scheme = self.scheme(at)
        if scheme is None or value.dtype not in INTEGERS:
            return value
        return self.dequantised(value, scheme)

    def maybe(self, at: int) -> Value | None:
        return self.real(at) if self.has(at) else None

    def scheme(self, at: int) -> Quantisation | None:
        return self.model.tensors[self.op.inputs[at]].quantisation if self.has(at) else None

    def out_scheme(self, at: int = 0) -> Quantisation | None:
        tensor = self.model.tensors[self.op.outputs[at]]
        return tensor.quantisation if tensor.dtype in INTEGERS else None

    def out_dtype(self, at: int = 0) -> str:
        return self.model.tensors[self.op.outputs[at]].dtype

    def out_shape(self, at: int = 0) -> tuple[int, ...]:
        return self.model.tensors[self.op.outputs[at]].shape

    def array(self, at: int) -> Array:
        """An input that must be known now: a shape, axes, paddings."""
        value = self.raw(at)
        if value.data is None:
            raise UnsupportedError(
                f"{self.op.name} at {self.b.source} needs an input to be constant that is not",
                "Use constant shapes", operator=self.op.name, node=self.b.source,
            )  # fmt: skip
        return value.data

    def ints(self, at: int) -> list[int]:
        return [int(v) for v in np.atleast_1d(self.array(at)).reshape(-1)]

    # ------------------------------------------------------------ quantisation

    def dequantised(self, value: Value, scheme: Quantisation) -> Value:
        scale, zero = self._constants(scheme, value.dtype)
        return self.b.op("dequantize", value, scale, zero, axis=scheme.axis, dtype="float32")

    def _constants(self, scheme: Quantisation, dtype: str) -> tuple[Value, Value | None]:
        scalar = scheme.per_tensor
        scale = scheme.scale.reshape(()) if scalar else scheme.scale
        if not scheme.zero.any():
            return self.b.constant(scale, "scale"), None
        zero = scheme.zero.astype(dtype)
        return self.b.constant(scale, "scale"), self.b.constant(zero.reshape(()) if scalar else zero, "zero", dtype)

    def stored(self, value: Value, at: int = 0) -> Value:
        """Real numbers brought into the form of output ``at``."""
        scheme, dtype = self.out_scheme(at), self.out_dtype(at)
        if scheme is None or value.dtype not in FLOATS:
            return value
        if dtype == "int32":
            codes = self.b.op("round", self.e.by("div", value, float(scheme.scale.reshape(-1)[0])))
            return self.e.cast(codes, "int32")
        scale, zero = self._constants(scheme, dtype)
        return self.b.op("quantize", value, scale, zero, axis=scheme.axis, dtype=dtype)

    def moved(self, at: int = 0) -> Value:
        """An input that an operator only moves: integers if its output has the same scheme, else real numbers."""
        scheme, out = self.scheme(at), self.out_scheme()
        value = self.raw(at)
        if value.dtype in FLOATS or (scheme is None and out is None) or (scheme is not None and scheme.same(out)):
            return value
        return self.real(at)

    def activated(self, value: Value, kind: int) -> Value:
        if kind == 0:
            return value
        ranges: dict[int, tuple[float, float]] = {2: (-1.0, 1.0), 3: (0.0, 6.0)}
        if kind == 1:
            return self.b.op("relu", value)
        if kind in ranges:
            low, high = ranges[kind]
            if value.dtype not in FLOATS:
                return self.b.op("clip", value, low=int(low), high=int(high))
            return self.b.op("clip", value, low=low, high=high)
        if kind == 4:
            return self.b.op("tanh", value)
        raise UnsupportedError(
            f"{self.b.source} has the fused activation {kind}, which is not supported", "Replace it"
        )


def _where(model: Model, op: Operator) -> str:
    index = next((i for i in op.outputs if i >= 0), -1)
    return model.tensors[index].name if index >= 0 else f"{op.name} number {op.place}"
