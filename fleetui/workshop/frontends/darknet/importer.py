"""Walks the sections and has each kind's handler make nodes of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleetui.workshop.errors import ModelError, UnsupportedError
from fleetui.workshop.frontends.base import Port, Problem
from fleetui.workshop.frontends.darknet.reading import Section, Weights
from fleetui.workshop.frontends.emit import Emit
from fleetui.workshop.frontends.summary import settle_all
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Graph, Value
from fleetui.workshop.options import InputSpec

Handler = Callable[["Importer", Section, int], Value]
TABLE: dict[str, Handler] = {}


def on(*names: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        for name in names:
            TABLE[name] = handler
        return handler

    return register


def _load_handlers() -> None:
    from fleetui.workshop.frontends.darknet import detection, layers

    assert all((detection, layers))


@dataclass(slots=True)
class Importer:
    """Everything is channel-last inside; the input is channel-first, as Darknet has it."""

    sections: list[Section]
    weights: Weights
    inputs: Sequence[InputSpec] = ()
    b: Builder = field(default_factory=lambda: Builder("darknet"))
    e: Emit = field(init=False)
    outs: list[Value] = field(default_factory=list)
    heads: list[tuple[Value, str]] = field(default_factory=list)
    x: Value = field(init=False)

    def __post_init__(self) -> None:
        _load_handlers()
        self.e = Emit(self.b)

    def input_port(self) -> Port:
        net = self.sections[0]
        if net.whole("inputs", 0) and not net.whole("height", 0):
            return Port("data", ("batch", net.whole("inputs", 1)), "float32")
        sizes = [net.whole("channels", 3), net.whole("height", 0), net.whole("width", 0)]
        if min(sizes) < 1 or max(sizes) > 1 << 15:
            raise ModelError(f"The [net] section asks for pictures of {sizes}", "Give width, height and channels")
        return Port("data", ("batch", *sizes), "float32")

    def problems(self) -> list[Problem]:
        return [
            Problem(f"[{s.kind}]", f"line {s.line}", "This layer is not supported")
            for s in self.sections[1:]
            if s.kind not in TABLE
        ]

    def run(self) -> Graph:
        port = self.input_port()
        ((shape, dtype),) = settle_all([port], self.inputs)
        self.x = self.b.input(port.name, shape, dtype)
        if self.x.rank == 4:
            self.x = self.e.last(self.x)
        for at, section in enumerate(self.sections[1:]):
            self.b.source = f"layer {at} [{section.kind}], line {section.line}"
            handler = TABLE.get(section.kind)
            if handler is None:
                raise UnsupportedError(
                    f"The layer [{section.kind}] in line {section.line} is not supported", "Replace it",
                    operator=f"[{section.kind}]", node=f"line {section.line}",
                )  # fmt: skip
            self.x = handler(self, section, at)
            self.outs.append(self.x)
        if not self.heads:
            out = self.e.first(self.x) if self.x.rank > 2 else self.x
            self.heads.append((out, "output"))
        for value, name in self.heads:
            self.b.output(value, name)
        return self.b.finish()

    def layer(self, number: int, at: int) -> Value:
        """By Darknet's count: negative numbers go back from this layer."""
        index = at + number if number < 0 else number
        if not 0 <= index < at:
            raise ModelError(
                f"{self.b.source} takes layer {number}, which does not come before it", "Mend the .cfg"
            )
        return self.outs[index]

    def activated(self, x: Value, name: str) -> Value:
        if name in {"linear", "none", ""}:
            return x
        if name in _ACTIVATIONS:
            op, attrs = _ACTIVATIONS[name]
            return self.b.op(op, x, **attrs)
        raise UnsupportedError(
            f"{self.b.source} has the activation {name!r:.40}, which is not supported", "Use another",
            operator=name[:40], node=self.b.source,
        )  # fmt: skip


_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "leaky": ("leaky_relu", {"alpha": 0.1}), "relu": ("relu", {}), "relu6": ("clip", {"low": 0.0, "high": 6.0}),
    "mish": ("mish", {}), "swish": ("silu", {}), "logistic": ("sigmoid", {}), "tanh": ("tanh", {}),
    "elu": ("elu", {"alpha": 1.0}), "selu": ("selu", {"alpha": 1.6732, "gamma": 1.0507}),
    "gelu": ("gelu", {"approximate": True}), "hardtan": ("clip", {"low": -1.0, "high": 1.0}),
}  # fmt: skip
