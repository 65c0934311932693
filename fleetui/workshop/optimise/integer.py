"""Arithmetic in 8 bits: weights by output channel, activations by measured range, sums in 32 bits.

Only convolutions and dense layers change, between a ``quantize`` before and a scaling after; everything else stays
float32, and a chain of layers keeps its activations in 8 bits where nothing but the rescaling lies between. What a
layer's own quantisation costs is measured on the calibration data (signal to noise, in decibels); layers under
``FLOOR`` stay float32, and then the worst ones are given back until the whole graph agrees with the original.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fleetui.workshop.errors import WorkshopError
from fleetui.workshop.graph.ir import Array, Graph, Node, Value
from fleetui.workshop.graph.ops import evaluate
from fleetui.workshop.optimise import Altered
from fleetui.workshop.optimise.compact import symmetric
from fleetui.workshop.optimise.weights import Weight, weights
from fleetui.workshop.options import Options
from fleetui.workshop.progress import Progress
from fleetui.workshop.prove import data
from fleetui.workshop.target import Target

BATCHES = 64
"""Calibration batches that are looked at, at most."""
CLIP = 1e-4
"""Share of activations that may lie outside the range: a few wild ones must not cost everybody else's precision."""
FLOOR = 12.0
AGREE = 0.99


@dataclass(slots=True)
class _Layer:
    weight: Weight
    low: float
    high: float
    noise: float = 0.0

    @property
    def node(self) -> Node:
        return self.weight.node


def apply(altered: Altered, target: Target, options: Options, prover: object, progress: Progress) -> None:
    del target, prover
    graph = altered.graph
    if not options.calibration:
        raise WorkshopError(
            "8-bit arithmetic needs calibration data",
            "Give some typical inputs with --calibration DATA.npz, or use --w8 (weights only)",
        )
    batches = data.load(Path(options.calibration), graph).batches(BATCHES)
    layers = [_Layer(w, 0.0, 0.0) for w in weights(graph, ("conv", "dense")) if w.node.input(0).dtype == "float32"]
    wanted = _observe(graph, layers, batches, progress)
    kept = [layer for layer in layers if layer.noise < FLOOR]
    used = [layer for layer in layers if layer.noise >= FLOOR]
    while used:
        trial = graph.copy()
        _rewrite(trial, used, graph)
        if _agreement(trial, batches, wanted, progress) >= AGREE:
            break
        used.sort(key=lambda layer: layer.noise)
        spared = max(1, len(used) // 8)
        kept += used[:spared]
        used = used[spared:]
    if not used:
        altered.warnings.append("no layer bears 8-bit arithmetic: this variant is float32")
        return
    _rewrite(graph, used, graph)
    altered.details["int8"] = {
        "layers": len(used),
        "float32": [layer.node.source or layer.node.output.name for layer in kept],
        "batches": len(batches),
    }
    if kept:
        altered.warnings.append(f"{len(kept)} of {len(layers)} layers stay float32: they lose too much in 8 bits")


def _observe(
    graph: Graph, layers: list[_Layer], batches: list[dict[str, Array]], progress: Progress
) -> list[dict[str, Array]]:
    """Run the original: ranges of what enters each layer, what 8 bits cost it, and the outputs."""
    samples: dict[int, list[Array]] = {id(layer.node): [] for layer in layers}
    by_node = {id(layer.node): layer for layer in layers}
    outputs = []
    for number, feeds in enumerate(batches):
        progress.step(number, len(batches), "looking at activations")
        known: dict[Value, Array] = {v: feeds[v.name] for v in graph.inputs}
        for node in graph.nodes:
            arrays = [None if v is None else (v.data if v.data is not None else known[v]) for v in node.inputs]
            if id(node) in by_node:
                given = arrays[0]
                assert given is not None
                samples[id(node)].append(given)
            known.update(zip(node.outputs, evaluate(node.op, arrays, node.attrs), strict=True))
        outputs.append({v.name: known[v] if v.data is None else v.data for v in graph.outputs})
    for layer in layers:
        seen = np.concatenate([s.ravel()[:: max(1, s.size // 65536)] for s in samples[id(layer.node)]])
        layer.low = float(min(0.0, np.quantile(seen, CLIP)))
        layer.high = float(max(0.0, np.quantile(seen, 1 - CLIP)))
        layer.noise = _noise(layer, samples[id(layer.node)][: max(1, len(batches) // 8)])
    return outputs


def _code(layer: _Layer) -> tuple[np.float32, str, int, int]:
    """Scale, dtype and bounds of the codes: unsigned where nothing is negative."""
    if layer.low >= 0:
        return np.float32(max(layer.high, 1e-12) / 255), "uint8", 0, 255
    return np.float32(max(layer.high, -layer.low, 1e-12) / 127), "int8", -127, 127


def _noise(layer: _Layer, samples: list[Array]) -> float:
    """Signal to noise, in decibels, of this layer alone in 8 bits."""
    node, (scale, _, bottom, top) = layer.node, _code(layer)
    wide = layer.weight.value.data
    assert wide is not None
    codes, factors = symmetric(wide, layer.weight.channels, 127)
    shape = [1] * wide.ndim
    shape[layer.weight.channels] = -1
    rough = (codes * factors.reshape(shape)).astype(np.float32)
    signal = noise = 0.0
    for given in samples:
        coarse = (np.clip(np.rint(given / scale), bottom, top) * scale).astype(np.float32)
        right = evaluate(node.op, [given, wide, None], node.attrs)[0].astype(np.float64)
        wrong = evaluate(node.op, [coarse, rough, None], node.attrs)[0].astype(np.float64)
        signal, noise = signal + float(np.square(right).sum()), noise + float(np.square(right - wrong).sum())
    return 10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30)))


def _agreement(
    graph: Graph, batches: list[dict[str, Array]], wanted: list[dict[str, Array]], progress: Progress
) -> float:
    """Share of rows with the same best class; without classes, one minus the relative error."""
    from fleetui.workshop.graph import ir

    scores = []
    for number, (feeds, want) in enumerate(zip(batches, wanted, strict=True)):
        progress.step(number, len(batches), "comparing")
        have = ir.run(graph, feeds)
        for name, array in want.items():
            if array.ndim == 2 and array.shape[1] >= 2:
                scores.append(float(np.mean(have[name].argmax(1) == array.argmax(1))))
            else:
                scores.append(1.0 - data.errors(have[name], array)[1])
    return float(np.mean(scores)) if scores else 1.0


def _rewrite(graph: Graph, layers: list[_Layer], origin: Graph) -> None:
    """Put the layers' nodes of ``graph`` (the original or a copy of it) into 8 bits."""
    places = {id(node): index for index, node in enumerate(origin.nodes)}
    chosen = {places[id(layer.node)]: layer for layer in layers}
    nodes: list[Node] = []
    coded: dict[tuple[Value, float, str], Value] = {}
    for index, node in enumerate(list(graph.nodes)):
        if index not in chosen:
            nodes.append(node)
            continue
        nodes += _integer(node, chosen[index], coded)
    graph.nodes = nodes


def _integer(node: Node, layer: _Layer, coded: dict[tuple[Value, float, str], Value]) -> list[Node]:
    scale, dtype, _, _ = _code(layer)
    given, out, wide = node.input(0), node.output, layer.weight.value
    assert wide.data is not None
    made: list[Node] = []
    key = (given, float(scale), dtype)
    if key not in coded:
        small = Value(f"{given.name}.{dtype}.{out.name}", given.shape, dtype)
        factor = Value(f"{small.name}.scale", (), "float32", np.asarray(scale))
        zero = Value(f"{small.name}.zero", (), dtype, np.zeros((), dtype))
        attrs = {"axis": 0, "dtype": dtype, "block": 0}
        made.append(Node("quantize", [given, factor, zero], [small], attrs, node.source))
        coded[key] = small
    codes, factors = symmetric(wide.data, layer.weight.channels, 127)
    weight = Value(f"{out.name}.i8", wide.shape, "int8", codes)
    total = Value(f"{out.name}.i32", out.shape, "int32")
    made.append(Node(node.op, [coded[key], weight, None], [total], dict(node.attrs), node.source))
    real = Value(f"{out.name}.f32", out.shape, "float32")
    made.append(Node("cast", [total], [real], {"to": "float32", "saturate": False}, node.source))
    rescale = Value(f"{out.name}.rescale", (len(factors),), "float32", (factors * scale).astype(np.float32))
    bias = node.optional(2)
    if bias is None:
        made.append(Node("mul", [real, rescale], [out], {}, node.source))
        return made
    scaled = Value(f"{out.name}.scaled", out.shape, "float32")
    made.append(Node("mul", [real, rescale], [scaled], {}, node.source))
    made.append(Node("add", [scaled, bias], [out], {}, node.source))
    return made
