"""Finds, reports on and reads Darknet networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fleetui.workshop.frontends.base import Peer, Port, Report
from fleetui.workshop.frontends.darknet.importer import Importer
from fleetui.workshop.frontends.darknet.reading import Weights, parse, weights_beside
from fleetui.workshop.frontends.summary import guarded, work_out
from fleetui.workshop.graph.ir import Graph
from fleetui.workshop.options import InputSpec


class DarknetFrontend:
    kind = "darknet"
    title = "Darknet network"
    extra = ""

    def sniff(self, head: bytes, path: Path) -> bool:
        if b"\0" in head:
            return False
        lines = (line.split(b"#")[0].split(b";")[0].strip().lower() for line in head.splitlines())
        first = next((line for line in lines if line), b"")
        return first in {b"[net]", b"[network]"}

    def inspect(self, path: Path, inputs: Sequence[InputSpec]) -> Report:
        with guarded(path.name):
            beside = weights_beside(path)
            importer = Importer(parse(path), Weights(beside), inputs)
            port = importer.input_port()
            report = Report(self.kind, self.title, [port], symbolic=["batch"])
            report.operators = dict(Counter(f"[{s.kind}]" for s in importer.sections[1:]))
            report.bytes = path.stat().st_size + beside.stat().st_size
            report.details = {"weights": beside.name}
            report.problems = importer.problems()
            made: list[Graph] = []

            def kept() -> Graph:
                made.append(importer.run())
                return made[0]

            work_out(report, kept)
            if made:
                report.parameters = importer.weights.used
                report.outputs = [Port(v.name, ("batch", *v.shape[1:]), v.dtype) for v in made[0].outputs]
                if importer.weights.left:
                    report.warnings.append(
                        f"{importer.weights.left} numbers at the end of the weights are not used"
                    )
        return report

    def load(self, path: Path, inputs: Sequence[InputSpec]) -> Graph:
        with guarded(path.name):
            graph = Importer(parse(path), Weights(weights_beside(path)), inputs).run()
            graph.name = path.stem
            return graph

    def peer(self, path: Path, inputs: Sequence[InputSpec], threads: int) -> Peer | None:
        return None
