"""Walks a StableHLO function and has each operation's handler make nodes of ours.

Called functions and loops whose number of rounds is known are written out in line. Shapes come from the builder, so
that a module exported with open dimensions gets those that were asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleetui.workshop.errors import ModelError, UnsupportedError
from fleetui.workshop.frontends.base import Problem
from fleetui.workshop.frontends.emit import Emit
from fleetui.workshop.frontends.stablehlo.reader import Module, ports, type_of
from fleetui.workshop.frontends.summary import settle_all
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Array, Graph, Value
from fleetui.workshop.options import InputSpec

NODES = 200_000
DEPTH = 64
Handler = Callable[["Importer", Any], Any]
TABLE: dict[str, Handler] = {}
ENDS = {"func.return", "stablehlo.return"}


def on(*names: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        for name in names:
            TABLE[f"stablehlo.{name}" if "." not in name else name] = handler
        return handler

    return register


def _load_handlers() -> None:
    from fleetui.workshop.frontends.stablehlo import arithmetic, control, lookup, moving, windows

    assert all((arithmetic, control, lookup, moving, windows))


@dataclass(slots=True)
class Importer:
    module: Module
    inputs: Sequence[InputSpec] = ()
    b: Builder = field(default_factory=lambda: Builder("model"))
    e: Emit = field(init=False)
    known: list[dict[Any, Value]] = field(default_factory=lambda: [{}])
    """Innermost last: a region sees the values around it."""

    def __post_init__(self) -> None:
        _load_handlers()
        self.e = Emit(self.b)

    # ------------------------------------------------------------ before the walk

    def operators(self) -> dict[str, int]:
        return dict(Counter(op.name for f in self._reached() for op in _all(f)))

    def _reached(self) -> Iterator[Any]:
        """The functions that the main one calls, however far."""
        seen, stack = set(), [str(self.module.main.attributes["sym_name"].value)]
        while stack:
            name = stack.pop()
            if name in seen or name not in self.module.functions:
                continue
            seen.add(name)
            yield self.module.functions[name]
            for op in _all(self.module.functions[name]):
                if op.name == "func.call":
                    stack.append(str(op.attributes["callee"].value))
                elif op.name == "stablehlo.composite" and op.attributes["name"].value not in TABLE:
                    stack.append(str(op.attributes["decomposition"].value))

    def problems(self) -> list[Problem]:
        return [
            Problem(op.name, _place(op), "This operator is not supported")
            for function in self._reached()
            for op in _all(function)
            if op.name not in TABLE and op.name not in ENDS and op.name != "func.func"
        ]

    # ------------------------------------------------------------ the walk

    def run(self) -> Graph:
        main = self.module.main
        given, outputs = ports(main)
        values = [
            self.b.input(port.name, shape, dtype)
            for port, (shape, dtype) in zip(given, settle_all(given, self.inputs), strict=True)
        ]
        made = self.region(main.regions[0], values)
        for port, value in zip(outputs, made, strict=True):
            self.b.source = port.name
            self.b.output(value, port.name)
        return self.b.finish()

    def region(self, region: Any, arguments: Sequence[Value]) -> list[Value]:
        """Everything in a region with one block; what it returns."""
        if len(self.known) > DEPTH:
            raise ModelError("The model's functions call each other without end", "Export the model again")
        block = region.blocks[0]
        self.known.append(dict(zip(block.arguments, arguments, strict=True)))
        try:
            for op in block.operations:
                operation = op.operation
                if operation.name in ENDS:
                    return [self.value(v) for v in operation.operands]
                self._operation(operation)
            raise ModelError("A region of the model has no end", "Export the model again")
        finally:
            self.known.pop()

    def call(self, name: str, arguments: Sequence[Value]) -> list[Value]:
        function = self.module.functions.get(name)
        if function is None:
            raise ModelError(f"The model calls {name!r:.80}, which it does not hold", "Export the model again")
        return self.region(function.regions[0], arguments)

    def _operation(self, op: Any) -> None:
        handler = TABLE.get(op.name)
        self.b.source = _place(op)
        if handler is None:
            raise self.unsupported(op, "is not supported")
        made = handler(self, op)
        outs = list(made) if isinstance(made, list | tuple) else [] if made is None else [made]
        for result, value in zip(op.results, outs, strict=True):
            self.known[-1][result] = value
        if len(self.b.graph.nodes) > NODES:
            raise UnsupportedError(f"The model unrolls to more than {NODES} nodes", "Use shorter loops")

    # ------------------------------------------------------------ what handlers ask

    def value(self, found: Any) -> Value:
        for scope in reversed(self.known):
            if found in scope:
                return scope[found]
        raise ModelError(f"{self.b.source} uses a value that is never made", "Export the model again")

    def args(self, op: Any) -> list[Value]:
        return [self.value(v) for v in op.operands]

    def arg(self, op: Any, at: int) -> Value:
        return self.value(op.operands[at])

    def array(self, op: Any, at: int) -> Array:
        value = self.arg(op, at)
        if value.data is None:
            raise self.unsupported(op, "depends on the data in its shape, which is not supported")
        return value.data

    def dtype(self, op: Any, at: int = 0) -> str:
        return type_of(op.results[at].type)[1]

    def unsupported(self, op: Any, words: str) -> UnsupportedError:
        return UnsupportedError(
            f"The operator {op.name} at {self.b.source} {words}", "Replace it in the model", operator=op.name,
            node=self.b.source,
        )  # fmt: skip


def ints(op: Any, name: str, default: Sequence[int] | None = None) -> list[int]:
    """An attribute that is a list of whole numbers, flat."""
    if name not in op.attributes:
        if default is None:
            raise ModelError(f"{op.name} lacks its attribute {name}", "Export the model again")
        return list(default)
    return [int(v) for v in op.attributes[name]]


def integer(op: Any, name: str, default: int = 0) -> int:
    return int(op.attributes[name].value) if name in op.attributes else default


def pairs(op: Any, name: str, count: int) -> list[tuple[int, int]]:
    """An attribute of shape [count, 2]."""
    import numpy as np

    if name not in op.attributes:
        return [(0, 0)] * count
    attribute = op.attributes[name]
    flat = np.array(attribute).reshape(-1)
    if flat.size == 1:
        flat = np.repeat(flat, 2 * count)
    return [(int(a), int(b)) for a, b in flat.reshape(count, 2)]


def word(op: Any, name: str) -> str:
    """An enumeration's word: ``#stablehlo<comparison_direction GT>`` → ``GT``."""
    text = str(op.attributes[name]) if name in op.attributes else ""
    return text.rstrip(">").rpartition(" ")[2]


def _all(operation: Any) -> Iterator[Any]:
    """The operations inside, however deep, itself left out."""
    stack = [operation]
    while stack:
        for region in stack.pop().regions:
            for block in region.blocks:
                for op in block.operations:
                    yield op.operation
                    stack.append(op.operation)


def _place(op: Any) -> str:
    import re

    found = re.search(r'"([^"]{1,160})"', str(op.location))
    return found.group(1) if found else op.name
