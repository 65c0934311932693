"""LightGBM models, ``.txt``, read without LightGBM; LightGBM itself only as the peer.

Outputs: ``raw``, the sums in float64, and ``prediction``, what ``Booster.predict`` gives. The input is float64, as
LightGBM compares; ``--input data=ROWSxFEATURES:float32`` takes float32 features, whose decisions are the same ones
LightGBM makes on these numbers, and half as much data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.workshop.errors import ModelError
from fleetui.workshop.frontends.base import Peer, Port, Report
from fleetui.workshop.frontends.lightgbm.document import EXPORT, Model, load
from fleetui.workshop.frontends.summary import guarded
from fleetui.workshop.graph.ir import Array, Graph
from fleetui.workshop.options import InputSpec
from fleetui.workshop.trees.model import ROWS, Answers, graph_of, read_bytes, report_of

INPUT, RAW, PREDICTION = "data", "raw", "prediction"


def read(path: Path) -> Model:
    data = read_bytes(path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ModelError("The LightGBM model is not text", EXPORT) from None
    with guarded("The LightGBM model"):
        return load(text)


class LightGBMFrontend:
    kind = "lightgbm"
    title = "LightGBM"
    extra = ""

    def sniff(self, head: bytes, path: Path) -> bool:
        lines = head[:2048].split(b"\n")
        return lines[0].strip() == b"tree" and any(line.startswith(b"num_class=") for line in lines[1:8])

    def inspect(self, path: Path, inputs: Sequence[InputSpec]) -> Report:
        model = read(path)
        graph = _graph(model, path.stem, inputs)
        return report_of(self.kind, path.stem, path, _port(model), graph, model.details, model.warnings)

    def load(self, path: Path, inputs: Sequence[InputSpec]) -> Graph:
        return _graph(read(path), path.stem, inputs)

    def peer(self, path: Path, inputs: Sequence[InputSpec], threads: int) -> Peer | None:
        try:
            import lightgbm
        except (ImportError, OSError):
            return None
        try:
            return LightGBMPeer(lightgbm, path, threads)
        except lightgbm.basic.LightGBMError:
            return None


def _port(model: Model) -> Port:
    return Port(INPUT, (ROWS, model.ensemble.features), "float64")


def _graph(model: Model, name: str, inputs: Sequence[InputSpec]) -> Graph:
    return graph_of(name, model.ensemble, _port(model), inputs, [RAW, PREDICTION])


class LightGBMPeer:
    """``Booster.predict``; the raw sums are asked for only if somebody looks at them."""

    name = "lightgbm"

    def __init__(self, lightgbm: Any, path: Path, threads: int) -> None:
        self.version = str(lightgbm.__version__)
        self.booster = lightgbm.Booster(model_file=str(path))
        self.threads = max(1, threads)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        ask = partial(self._ask, feeds[INPUT])
        return Answers({PREDICTION: ask(False)}, {RAW: partial(ask, True)})

    def _ask(self, x: Array, raw: bool) -> Array:
        return np.asarray(self.booster.predict(x, raw_score=raw, num_threads=self.threads))


FRONTEND = LightGBMFrontend()
