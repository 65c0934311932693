"""scikit-learn: estimators exported to safe JSON by our own helper, and a sentence for those that are pickled.

In the training code: ``from fleetui.workshop.frontends.sklearn import export; export(estimator, "model.json")``.
A pickle is a program and is never opened. There is no peer: the file holds numbers, no estimator.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fleetui.workshop.errors import HostileModel
from fleetui.workshop.frontends.base import Peer, Report
from fleetui.workshop.frontends.sklearn.document import Model, to_graph
from fleetui.workshop.frontends.sklearn.document import read as read_document
from fleetui.workshop.frontends.sklearn.export import FORMAT, export, export_forest
from fleetui.workshop.frontends.summary import guarded
from fleetui.workshop.graph.ir import Graph
from fleetui.workshop.options import InputSpec
from fleetui.workshop.trees.model import read_bytes, report_of

PICKLES = frozenset({".pkl", ".pickle", ".joblib", ".sav"})
COMPRESSED = (b"x\x9c", b"x\x01", b"x\xda", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x04\x22\x4d\x18", b"ZF")


def _is_pickle(head: bytes, path: Path) -> bool:
    if path.suffix.lower() not in PICKLES:
        return False
    return (head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}) or head.startswith(
        COMPRESSED
    )


def read(path: Path) -> Model:
    with path.open("rb") as stream:
        if _is_pickle(stream.read(16), path):
            raise HostileModel(
                f"{path.name} is a pickle, which is a program: opening it could do anything, so we do not",
                "Where you trained it: from fleetui.workshop.frontends.sklearn import export; "
                "export(estimator, 'model.json'), or convert it with skl2onnx",
            )
    with guarded("The model file"):
        return read_document(read_bytes(path))


class SklearnFrontend:
    kind = "sklearn"
    title = "scikit-learn"
    extra = ""

    def sniff(self, head: bytes, path: Path) -> bool:
        if _is_pickle(head, path):
            return True
        return head[:1] == b"{" and f'"format": "{FORMAT}"'.encode() in head[:200]

    def inspect(self, path: Path, inputs: Sequence[InputSpec]) -> Report:
        model = read(path)
        graph = to_graph(model, model.name or path.stem, inputs)
        title = model.name or path.stem
        return report_of(self.kind, title, path, model.port(), graph, model.details, model.warnings)

    def load(self, path: Path, inputs: Sequence[InputSpec]) -> Graph:
        model = read(path)
        return to_graph(model, path.stem, inputs)

    def peer(self, path: Path, inputs: Sequence[InputSpec], threads: int) -> Peer | None:
        return None


FRONTEND = SklearnFrontend()

__all__ = ["FRONTEND", "SklearnFrontend", "export", "export_forest"]
