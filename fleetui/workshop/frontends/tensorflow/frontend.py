"""Keras files and SavedModels: TensorFlow writes them as TFLite in a limited process, and that is what is read."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleetui.common.domain.errors import BugError
from fleetui.workshop.errors import MissingExtra
from fleetui.workshop.frontends.base import Peer, Port, Report
from fleetui.workshop.frontends.summary import guarded, symbols, work_out
from fleetui.workshop.frontends.tflite.importer import Importer
from fleetui.workshop.frontends.tflite.reader import read
from fleetui.workshop.graph.ir import Graph
from fleetui.workshop.inspect import archive, sandbox
from fleetui.workshop.inspect.limits import Limits, size_of
from fleetui.workshop.options import InputSpec


class _Converted:
    kind = ""
    title = ""
    extra = "tensorflow"

    def inspect(self, path: Path, inputs: Sequence[InputSpec]) -> Report:
        with self._tflite(path, inputs) as (made, said), guarded(path.name):
            report = Report(
                self.kind, self.title, [_port(p) for p in said["inputs"]], [_port(p) for p in said["outputs"]],
                parameters=int(said["parameters"]), operators=said["operators"], details=said["details"],
            )  # fmt: skip
            report.symbolic = symbols(report.inputs)
            importer = _importer(made, said)
            report.problems = importer.problems()
            work_out(report, importer.run)
            return report

    def load(self, path: Path, inputs: Sequence[InputSpec]) -> Graph:
        with self._tflite(path, inputs) as (made, said), guarded(path.name):
            graph = _importer(made, said).run()
            graph.name = path.stem
            _detach(graph)
            return graph

    def peer(self, path: Path, inputs: Sequence[InputSpec], threads: int) -> Peer | None:
        from fleetui.workshop.frontends.tensorflow.peer import TensorFlowPeer

        try:
            with guarded(path.name):
                return TensorFlowPeer(self.kind, path, inputs, threads)
        except MissingExtra:
            return None

    @contextmanager
    def _tflite(self, path: Path, inputs: Sequence[InputSpec]) -> Iterator[tuple[Path, dict[str, Any]]]:
        if importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("tflite") is None:
            raise MissingExtra(f"A {self.title}", "tensorflow")
        size = size_of(path, Limits())
        with tempfile.TemporaryDirectory(prefix="fleetui-") as folder:
            made = Path(folder, "model.tflite")
            arguments = {
                "kind": self.kind,
                "path": str(path.absolute()),
                "inputs": [[spec.name, list(spec.shape), spec.dtype] for spec in inputs],
                "target": str(made),
            }
            limits = replace(Limits(), written=2 * size + (256 << 20))
            said = sandbox.call(
                "fleetui.workshop.frontends.tensorflow.convert:run", arguments, limits, size=size, subject=path.name
            )
            yield made, said


class KerasFrontend(_Converted):
    kind = "keras"
    title = "Keras model"

    def sniff(self, head: bytes, path: Path) -> bool:
        if head[:8] == b"\x89HDF\r\n\x1a\n":
            return True
        return head[:4] == b"PK\x03\x04" and {"config.json", "model.weights.h5"} <= archive.members(path)


class SavedModelFrontend(_Converted):
    kind = "savedmodel"
    title = "TensorFlow SavedModel"

    def sniff(self, head: bytes, path: Path) -> bool:
        return path.is_dir() and (path / "saved_model.pb").is_file()


def _importer(made: Path, said: dict[str, Any]) -> Importer:
    """The converted file under the source's names and in its order; the converter has an order of its own.

    It calls inputs as the function that was converted does, and outputs ``output_0``, ``output_1``, ….
    """
    model = read(made)
    by_name = {name: index for index, name in model.names.items()}
    try:
        model.inputs = [by_name[port[0]] for port in said["inputs"]]
        model.outputs = [by_name[f"output_{at}"] for at in range(len(said["outputs"]))]
    except KeyError as error:
        raise BugError(f"the converted model has no {error}, it has {sorted(by_name)}") from error
    model.names = dict(zip(model.inputs, (p[0] for p in said["inputs"]), strict=True))
    model.names |= dict(zip(model.outputs, (p[0] for p in said["outputs"]), strict=True))
    return Importer(model)


def _port(said: list[Any]) -> Port:
    return Port(said[0], tuple(said[1]), said[2])


def _detach(graph: Graph) -> None:
    """The converted file goes; its weights are mapped, so they are copied out of it."""
    for value in graph.constants():
        if value.data is not None:
            value.data = value.data.copy()
