"""XGBoost models: ``.json`` and ``.ubj``, read without XGBoost; XGBoost itself only as the peer.

Outputs: ``margin``, the raw sums, bit for bit those of XGBoost, and ``prediction``, what ``Booster.predict`` gives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.workshop.errors import ModelError, UnsupportedError
from fleetui.workshop.frontends.base import Peer, Port, Report
from fleetui.workshop.frontends.summary import guarded
from fleetui.workshop.frontends.xgboost import ubj
from fleetui.workshop.frontends.xgboost.document import EXPORT, Booster, Linear, load
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Array, Graph, Value
from fleetui.workshop.options import InputSpec
from fleetui.workshop.trees.ensemble import Ensemble, Post, Transform
from fleetui.workshop.trees.model import ROWS, Answers, finish, graph_of, read_bytes, report_of, settle

INPUT, MARGIN, PREDICTION = "data", "margin", "prediction"
OLD = (b"binf", b"bs64")


def read(path: Path) -> Booster:
    data = read_bytes(path)
    if data[:4] in OLD:
        raise UnsupportedError(
            "This is XGBoost's old binary format, which newer versions of it do not read either",
            "Load it in XGBoost and save it with Booster.save_model('model.ubj')",
        )
    with guarded("The XGBoost model"):
        if _is_ubj(data):
            return load(ubj.parse(data))
        try:
            return load(json.loads(data))
        except json.JSONDecodeError as error:
            raise ModelError(
                f"The XGBoost model is not sound JSON ({error.msg} at byte {error.pos})", EXPORT
            ) from None


def _is_ubj(head: bytes) -> bool:
    return len(head) > 1 and head[:1] == b"{" and head[1:2] in {b"L", b"i", b"U", b"I", b"l", b"N", b"$", b"#"}


class XGBoostFrontend:
    kind = "xgboost"
    title = "XGBoost"
    extra = ""

    def sniff(self, head: bytes, path: Path) -> bool:
        if head[:4] in OLD:
            return True
        start = head[:4096].lstrip()
        if not start.startswith(b"{"):
            return False
        if _is_ubj(start):
            return b"learner" in start[:64] or (b"version" in start[:64] and b"learner" in start)
        return start[1:].lstrip().startswith((b'"learner"', b'"version"')) and b'"learner"' in head

    def inspect(self, path: Path, inputs: Sequence[InputSpec]) -> Report:
        booster = read(path)
        graph = to_graph(booster, path.stem, inputs)
        return report_of(self.kind, path.stem, path, _port(booster), graph, booster.details, booster.warnings)

    def load(self, path: Path, inputs: Sequence[InputSpec]) -> Graph:
        return to_graph(read(path), path.stem, inputs)

    def peer(self, path: Path, inputs: Sequence[InputSpec], threads: int) -> Peer | None:
        try:
            import xgboost
        except ImportError:
            return None
        try:
            return XGBoostPeer(xgboost, path, threads)
        except xgboost.core.XGBoostError:
            return None


def _port(booster: Booster) -> Port:
    return Port(INPUT, (ROWS, booster.features), "float32")


def to_graph(booster: Booster, name: str, inputs: Sequence[InputSpec]) -> Graph:
    if isinstance(booster.model, Ensemble):
        return graph_of(name, booster.model, _port(booster), inputs, [MARGIN, PREDICTION])
    return _linear_graph(booster, booster.model, name, inputs)


def _linear_graph(booster: Booster, model: Linear, name: str, inputs: Sequence[InputSpec]) -> Graph:
    rows, dtype = settle(_port(booster), inputs)
    b = Builder(name)
    b.source = "gblinear"
    x = b.input(INPUT, (rows, booster.features), dtype)
    if dtype != "float32":
        x = b.op("cast", x, to="float32")
    x = b.op("where", b.op("isnan", x), b.scalar(0.0, x), x)
    margin = b.op("dense", x, b.constant(model.weights, "weights"), b.constant(model.bias, "bias"))
    made = _linear_post(b, margin, model.posts[0])
    if booster.outputs == 1:
        margin = b.op("reshape", margin, shape=(rows,))
        made = b.op("reshape", made, shape=(rows,)) if made.rank == 2 else made
    return finish(b, [margin, made], [MARGIN, PREDICTION])


def _linear_post(b: Builder, margin: Value, post: Post) -> Value:
    match post.transform:
        case Transform.SIGMOID:
            return b.op("sigmoid", margin)
        case Transform.EXP:
            return b.op("exp", margin)
        case Transform.SOFTMAX:
            return b.op("softmax", margin, axis=1)
        case Transform.ARGMAX:
            best = b.op("argmax", margin, axis=1, keepdims=False, last=False)
            return b.op("cast", best, to="float32")
        case Transform.ABOVE:
            return b.op("cast", b.op("greater", margin, b.scalar(post.a, margin)), to="float32")
    return b.op("identity", margin)


class XGBoostPeer:
    """``inplace_predict``; the margins are asked for only if somebody looks at them."""

    name = "xgboost"

    def __init__(self, xgboost: Any, path: Path, threads: int) -> None:
        self.version = str(xgboost.__version__)
        self.booster = xgboost.Booster(model_file=str(path))
        self.booster.set_param({"nthread": max(1, threads)})
        self._matrix = xgboost.DMatrix
        self._linear = json.loads(self.booster.save_config())["learner"]["gradient_booster"]["name"] == "gblinear"

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        x = feeds[INPUT]
        ask = partial(self._ask, x)
        return Answers({PREDICTION: ask(False)}, {MARGIN: partial(ask, True)})

    def _ask(self, x: Array, margin: bool) -> Array:
        if self._linear or (x.dtype == np.float64 and margin):
            return np.asarray(self.booster.predict(self._matrix(x), output_margin=margin))
        kind = "margin" if margin else "value"
        return np.asarray(self.booster.inplace_predict(x, predict_type=kind, validate_features=False))


FRONTEND = XGBoostFrontend()
