"""The frontend itself: what ``base.Frontend`` asks for, put together from reading, scanning and importing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fleetui.workshop.errors import UnsupportedError
from fleetui.workshop.frontends.base import Peer, Report
from fleetui.workshop.frontends.onnx.importer import Importer
from fleetui.workshop.frontends.onnx.peer import open_peer
from fleetui.workshop.frontends.onnx.reading import Source, read
from fleetui.workshop.frontends.onnx.scan import problems_of, report, unknown_operators
from fleetui.workshop.frontends.onnx.scan import title as title_of
from fleetui.workshop.frontends.onnx.sniff import is_onnx
from fleetui.workshop.graph.ir import Array, Graph
from fleetui.workshop.options import InputSpec


class OnnxFrontend:
    kind = "onnx"
    title = "ONNX"
    extra = ""

    def sniff(self, head: bytes, path: Path) -> bool:
        return is_onnx(head)

    def inspect(self, path: Path, inputs: Sequence[InputSpec]) -> Report:
        source = read(path)
        return report(source, inputs, title_of(source, path))

    def load(self, path: Path, inputs: Sequence[InputSpec]) -> Graph:
        return import_source(read(path), inputs)

    def peer(self, path: Path, inputs: Sequence[InputSpec], threads: int) -> Peer | None:
        return open_peer(path, threads)


def import_source(
    source: Source, inputs: Sequence[InputSpec] = (), fixed: Mapping[str, Array] | None = None
) -> Graph:
    """The graph of a checked model. If anything is refused, the error tells of everything that is."""
    try:
        for refusal in unknown_operators(source):
            raise refusal
        return Importer(source, inputs, fixed).run()
    except UnsupportedError as error:
        problems, _, _ = problems_of(source, inputs)
        others = len(problems) - 1
        if others > 0:
            error.sentence = f"{error.sentence} (and {others} more problem{'s' if others > 1 else ''})"
        raise


FRONTEND = OnnxFrontend()
