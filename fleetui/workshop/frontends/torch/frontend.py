"""PyTorch programs as ``torch.export.save`` writes them. Reading one needs no PyTorch, and unpickles nothing.

Where the graph writes into tensors that share memory, or uses operators that only PyTorch can take apart, PyTorch
itself (the extra ``torch``) makes it functional first, in a limited process; so does a program saved before 2.8.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleetui.workshop.errors import MissingExtra, ModelError, UnsupportedError
from fleetui.workshop.frontends.base import Peer, Report
from fleetui.workshop.frontends.summary import guarded, symbols, work_out
from fleetui.workshop.frontends.torch.archive import is_program, read
from fleetui.workshop.frontends.torch.program import Importer, NeedsDecomposition, Target
from fleetui.workshop.graph.ir import Graph
from fleetui.workshop.inspect import archive, sandbox
from fleetui.workshop.inspect.limits import Limits
from fleetui.workshop.options import InputSpec


class TorchFrontend:
    kind = "torch"
    title = "PyTorch exported program"
    extra = ""

    def sniff(self, head: bytes, path: Path) -> bool:
        return head[:4] == b"PK\x03\x04" and is_program(archive.members(path))

    def inspect(self, path: Path, inputs: Sequence[InputSpec]) -> Report:
        with guarded(path.name):
            program = read(path)
            importer = Importer(program, inputs)
            report = Report(self.kind, self.title, importer.input_ports(), importer.output_ports())
            report.parameters = sum(int(t.size) for t in program.tensors.values())
            targets = [Target.parse(str(node["target"])) for node in program.graph["nodes"]]
            report.operators = dict(Counter(f"{t.namespace}.{t.plain}" for t in targets if t.namespace != "python"))
            report.symbolic = symbols(report.inputs)
            report.details = {"torch_version": program.version, "dialect": program.dialect}
            if program.dialect == "ATEN" and program.version:
                report.details["form"] = "decomposed"
            if importer.mutations():
                report.warnings.append(
                    f"the model changes {len(importer.mutations())} of its own buffers, which is not carried over "
                    "from one run to the next"
                )
            report.problems = importer.problems()
        if report.problems:
            functional = self._functional(path, inputs)
            if functional is not None:
                report.problems = functional.problems
                report.flops = functional.flops
                report.details["form"] = "made functional by PyTorch"
            return report
        work_out(report, lambda: self.load(path, inputs))
        return report

    def _functional(self, path: Path, inputs: Sequence[InputSpec]) -> Report | None:
        """The report on the decomposed program, where PyTorch is at hand and able to make it."""
        try:
            with decomposed(path) as other, guarded(path.name):
                program = read(other)
                importer = Importer(program, inputs)
                report = Report(self.kind, self.title, problems=importer.problems())
                work_out(report, importer.run)
                return report
        except (MissingExtra, ModelError):
            return None

    def load(self, path: Path, inputs: Sequence[InputSpec]) -> Graph:
        with guarded(path.name):
            importer = Importer(read(path), inputs)
            try:
                if not importer.problems():
                    return _finished(importer, path)
            except NeedsDecomposition:
                pass
            try:
                with decomposed(path) as other:
                    return _finished(Importer(read(other), inputs), path)
            except NeedsDecomposition as error:
                raise UnsupportedError(
                    f"The model writes into shared tensors at {error}, which is not supported", "Rewrite it without"
                ) from error
            except (MissingExtra, ModelError):
                problems = importer.problems()
                if not problems:
                    raise
                first = problems[0]
                raise UnsupportedError(
                    f"The operator {first.operator} at {first.node} is not supported",
                    "Replace it, or install PyTorch so that it can be taken apart: pip install 'fleetui[torch]'",
                    operator=first.operator,
                    node=first.node,
                ) from None

    def peer(self, path: Path, inputs: Sequence[InputSpec], threads: int) -> Peer | None:
        from fleetui.workshop.frontends.torch.peer import TorchPeer

        try:
            with guarded(path.name):
                return TorchPeer(path, Importer(read(path), inputs), threads)
        except MissingExtra:
            return None


def _finished(importer: Importer, path: Path) -> Graph:
    graph = importer.run()
    graph.name = path.stem
    return graph


@contextmanager
def decomposed(path: Path) -> Iterator[Path]:
    """The program in PyTorch's functional core operators, in a folder that is gone afterwards."""
    size = path.stat().st_size
    with tempfile.TemporaryDirectory(prefix="fleetui-") as folder:
        made = Path(folder, "functional.pt2")
        limits = replace(Limits(), written=2 * size + (64 << 20))
        arguments: dict[str, Any] = {"source": str(path.absolute()), "target": str(made)}
        sandbox.call(
            "fleetui.workshop.frontends.torch.functional:run", arguments, limits, size=size, subject=path.name
        )
        yield made
