"""StableHLO: the form in which JAX (and others) hand over a computation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fleetui.workshop.errors import MissingExtra
from fleetui.workshop.frontends.base import Peer, Report
from fleetui.workshop.frontends.stablehlo.importer import Importer
from fleetui.workshop.frontends.stablehlo.reader import is_bytecode, is_text, ports, read, wrapped_at
from fleetui.workshop.frontends.summary import guarded, symbols, work_out
from fleetui.workshop.graph.ir import Graph
from fleetui.workshop.options import InputSpec


class StableHLOFrontend:
    kind = "stablehlo"
    title = "StableHLO module"
    extra = "stablehlo"

    def sniff(self, head: bytes, path: Path) -> bool:
        return is_bytecode(head) or is_text(head) or wrapped_at(head) > 0

    def inspect(self, path: Path, inputs: Sequence[InputSpec]) -> Report:
        with guarded(path.name):
            importer = Importer(read(path), inputs)
            report = Report(self.kind, self.title, *ports(importer.module.main))
            report.operators = importer.operators()
            report.symbolic = symbols(report.inputs)
            report.problems = importer.problems()
            made: list[Graph] = []

            def kept() -> Graph:
                made.append(importer.run())
                return made[0]

            work_out(report, kept)
            if made:
                report.parameters = sum(v.size for v in made[0].constants() if v.rank > 0)
        return report

    def load(self, path: Path, inputs: Sequence[InputSpec]) -> Graph:
        with guarded(path.name):
            graph = Importer(read(path), inputs).run()
            graph.name = path.stem
            return graph

    def peer(self, path: Path, inputs: Sequence[InputSpec], threads: int) -> Peer | None:
        from fleetui.workshop.frontends.stablehlo.peer import JaxPeer

        try:
            with guarded(path.name):
                return JaxPeer(path, inputs, threads)
        except MissingExtra:
            return None
