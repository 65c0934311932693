"""What a frontend offers, and the table of them.

A frontend reads one kind of file. ``sniff`` decides by content; ``load`` makes the graph; ``peer`` runs the same
file in the framework it came from, for proofs and benchmarks. Heavy imports happen inside the methods. Others can
add frontends with the entry-point group ``fleetui.frontends``, whose entries name ``Frontend`` objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fleetui.workshop.graph.ir import Array, Graph
from fleetui.workshop.options import InputSpec


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output as the file declares it: an ``int`` is a size, a ``str`` a symbolic dimension."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Problem:
    """An operator we cannot compile, before any work starts."""

    operator: str
    node: str
    sentence: str


@dataclass(slots=True)
class Report:
    """What ``fleetui inspect`` prints and the wizard shows first."""

    kind: str
    title: str
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    parameters: int = 0
    operators: dict[str, int] = field(default_factory=dict)
    flops: int = 0
    """At the shapes given, symbolic dimensions taken as 1; 0 where it could not be worked out."""
    bytes: int = 0
    symbolic: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


class Peer(Protocol):
    """The source framework with the model loaded and warmed: ``run`` takes and gives arrays by public name."""

    name: str
    version: str

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]: ...


class Frontend(Protocol):
    kind: str
    """``onnx``, ``torch``, …: stable, goes into JSON."""
    title: str
    extra: str
    """The extra of ours it needs, empty if ``compile`` is enough."""

    def sniff(self, head: bytes, path: Path) -> bool:
        """Is this our kind of file or folder? ``head``: its first 64 KiB. Never raises, imports nothing heavy."""
        ...

    def inspect(self, path: Path, inputs: Sequence[InputSpec]) -> Report: ...

    def load(self, path: Path, inputs: Sequence[InputSpec]) -> Graph:
        """Inputs and outputs carry the file's names. Symbolic dimensions not settled by ``inputs`` become 1."""
        ...

    def peer(self, path: Path, inputs: Sequence[InputSpec], threads: int) -> Peer | None:
        """``None`` where the framework is not installed or cannot run this file."""
        ...
