"""From the JSON that ``export`` writes to a graph: a chain of steps, each read with care."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fleetui.workshop.errors import ModelError, ShapeError
from fleetui.workshop.frontends.base import Port
from fleetui.workshop.frontends.sklearn.export import FORMAT, VERSION
from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Array, Graph, Value
from fleetui.workshop.options import InputSpec
from fleetui.workshop.trees.archive import broken, load, unpack
from fleetui.workshop.trees.ensemble import FEATURES, Ensemble, ceiling
from fleetui.workshop.trees.model import ROWS, finish, settle

INPUT = "x"
STEPS = 100
LINKS = frozenset({"none", "flat", "decision", "logistic", "softmax"})


@dataclass(slots=True)
class Model:
    name: str
    features: int
    steps: list[Mapping[str, Any]]
    ensembles: dict[int, Ensemble] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def port(self) -> Port:
        first = self.steps[0]
        return Port(INPUT, (ROWS, self.features), "float64" if first.get("dtype") == "float64" else "float32")


def read(data: bytes) -> Model:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"The model file is not sound JSON ({error!s:.80})", "Export the model again") from None
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise broken("it is of another format")
    if document.get("version") != VERSION:
        raise ModelError(
            f"The model file is of version {document.get('version')!r}, this program reads {VERSION}",
            "Update FleetUI",
        )
    steps, features = document.get("steps"), document.get("features")
    if type(features) is not int or not isinstance(steps, list) or not 0 < len(steps) <= STEPS:
        raise broken("it has no steps")
    ceiling("features", features, FEATURES)
    if features < 1 or not all(isinstance(step, Mapping) for step in steps):
        raise broken("a step is not described")
    model = Model(str(document.get("name", ""))[:100], features, steps)
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        kind = step.get("kind")
        if kind not in {"affine", "impute", "normalize", "trees", "linear"}:
            raise broken(f"there is no step {kind!r}")
        if not last and kind in {"trees", "linear"}:
            raise broken("a model stands before the last step")
        if kind == "trees":
            model.ensembles[index] = load(step.get("ensemble"))
        names = step.get("classes")
        if isinstance(names, list) and names:
            model.warnings.append(f"Labels are places in the list of classes: {', '.join(map(str, names[:10]))}")
    model.details = {"steps": [str(step.get("kind")) for step in steps]}
    return model


def to_graph(model: Model, name: str, inputs: Sequence[InputSpec]) -> Graph:
    rows, dtype = settle(model.port(), inputs)
    b = Builder(name)
    x = b.input(INPUT, (rows, model.features), dtype)
    for index, step in enumerate(model.steps):
        b.source = str(step["kind"])
        if step["kind"] == "trees":
            outputs = b.ops("trees", x, ensemble=model.ensembles[index])
            names = step.get("outputs")
            if not isinstance(names, list) or len(names) != len(outputs) or len(set(map(str, names))) != len(names):
                raise broken("its outputs are not named")
            return finish(b, outputs, [str(n) for n in names])
        if step["kind"] == "linear":
            return _linear(b, x, step)
        x = _prepare(b, x, step)
    return finish(b, [b.op("identity", x)], ["features"])


def _row(entry: Any, width: int) -> Array:
    found = unpack(entry).astype(np.float64)
    if found.shape not in {(width,), (1,), ()}:
        raise ShapeError(f"A step has numbers for {found.size} features, not {width}", "Export the model again")
    return np.broadcast_to(found, (width,)).reshape(1, width).copy()


def _prepare(b: Builder, x: Value, step: Mapping[str, Any]) -> Value:
    """Arithmetic in float64 rounded to the features' dtype, as numpy does it in place."""
    width, dtype = x.shape[1], x.dtype
    if step["kind"] == "impute":
        fill = b.constant(_row(step.get("fill"), width).astype(dtype), "fill")
        return b.op("where", b.op("isnan", x), fill, x)
    if step["kind"] == "normalize":
        return _normalize(b, x, str(step.get("norm")))
    for key, op in (("subtract", "sub"), ("divide", "div"), ("multiply", "mul"), ("add", "add")):
        if key in step:
            wide = x if dtype == "float64" else b.op("cast", x, to="float64")
            wide = b.op(op, wide, b.constant(_row(step[key], width), key))
            x = wide if dtype == "float64" else b.op("cast", wide, to=dtype)
    return x


def _normalize(b: Builder, x: Value, norm: str) -> Value:
    if norm == "l2":
        size = b.op("sqrt", b.op("reduce", b.op("mul", x, x), kind="sum", axes=(1,), keepdims=True))
    elif norm in {"l1", "max"}:
        kind = "sum" if norm == "l1" else "max"
        size = b.op("reduce", b.op("abs", x), kind=kind, axes=(1,), keepdims=True)
    else:
        raise broken(f"there is no norm {norm!r}")
    one = b.scalar(1.0, x)
    return b.op("div", x, b.op("where", b.op("equal", size, b.scalar(0.0, x)), one, size))


def _linear(b: Builder, x: Value, step: Mapping[str, Any]) -> Graph:
    weights, bias = unpack(step.get("weights")).astype(x.dtype), unpack(step.get("bias")).astype(x.dtype)
    if weights.ndim != 2 or weights.shape[0] != x.shape[1] or bias.shape != (weights.shape[1],):
        raise broken("the weights do not fit the features")
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise broken("a weight is not a finite number")
    link = step.get("link")
    if link not in LINKS:
        raise broken(f"there is no link {link!r}")
    scores = b.op("dense", x, b.constant(weights, "weights"), b.constant(bias, "bias"))
    rows = x.shape[0]
    if link in {"none", "flat"}:
        flat = link == "flat" and scores.shape[1] == 1
        return finish(b, [b.op("reshape", scores, shape=(rows,)) if flat else scores], ["prediction"])
    return _classes(b, scores, step, str(link))


def _classes(b: Builder, scores: Value, step: Mapping[str, Any], link: str) -> Graph:
    rows, width = scores.shape
    labels = step.get("labels")
    if not isinstance(labels, list) or len(labels) != max(2, width):
        raise broken("the classes do not fit the weights")
    if not all(isinstance(v, (int, float)) and np.isfinite(v) for v in labels):
        raise broken("a class is not a number")
    dtype = "int64" if step.get("label_dtype") == "int64" else "float64"
    table = b.constant(np.array(labels).astype(dtype), "labels")
    if width == 1:
        flat = b.op("reshape", scores, shape=(rows,))
        place = b.op("cast", b.op("greater", flat, b.scalar(0.0, flat)), to="int64")
    else:
        flat = scores
        place = b.op("argmax", scores, axis=1, keepdims=False, last=False)
    made, names = [flat, b.op("gather", table, place, axis=0)], ["decision", "label"]
    if link == "softmax":
        made, names = [*made, b.op("softmax", scores, axis=1)], [*names, "probabilities"]
    elif link == "logistic":
        share = b.op("sigmoid", scores)
        rest = b.op("sub", b.scalar(1.0, share), share)
        made, names = [*made, b.op("concat", rest, share, axis=1)], [*names, "probabilities"]
    return finish(b, made, names)
