"""TFLite flatbuffers, float and quantised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fleetui.workshop.errors import MissingExtra
from fleetui.workshop.frontends.base import Peer, Report
from fleetui.workshop.frontends.summary import guarded, symbols, work_out
from fleetui.workshop.frontends.tflite.importer import Importer
from fleetui.workshop.frontends.tflite.reader import read
from fleetui.workshop.graph.ir import Graph
from fleetui.workshop.options import InputSpec


class TFLiteFrontend:
    kind = "tflite"
    title = "TFLite model"
    extra = "tflite"

    def sniff(self, head: bytes, path: Path) -> bool:
        return head[4:8] == b"TFL3"

    def inspect(self, path: Path, inputs: Sequence[InputSpec]) -> Report:
        with guarded(path.name):
            model = read(path)
            importer = Importer(model, inputs)
            report = Report(self.kind, self.title, importer.input_ports(), importer.output_ports())
            report.parameters = sum(int(t.data.size) for t in model.tensors if t.data is not None)
            report.operators = dict(Counter(op.name for op in model.operators))
            report.symbolic = symbols(report.inputs)
            stored = Counter(t.dtype for t in model.tensors if t.data is not None and t.data.size > 16)
            report.details = {"description": model.description, "weights": ", ".join(sorted(stored))}
            report.problems = importer.problems()
            work_out(report, importer.run)
        return report

    def load(self, path: Path, inputs: Sequence[InputSpec]) -> Graph:
        with guarded(path.name):
            graph = Importer(read(path), inputs).run()
            graph.name = path.stem
            return graph

    def peer(self, path: Path, inputs: Sequence[InputSpec], threads: int) -> Peer | None:
        from fleetui.workshop.frontends.tflite.peer import TFLitePeer

        try:
            with guarded(path.name):
                return TFLitePeer(path.read_bytes(), Importer(read(path), inputs), threads)
        except MissingExtra:
            return None
