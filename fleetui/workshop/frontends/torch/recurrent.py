"""PyTorch's whole recurrent layers, as the primitives know them: other gate orders, one node for each layer."""

from __future__ import annotations

from typing import Any

from fleetui.workshop.errors import UnsupportedError
from fleetui.workshop.frontends.torch.program import Args, Importer, on
from fleetui.workshop.graph.ir import Value

ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}
"""Our gate order in terms of PyTorch's: lstm i o f c of i f g o, gru z r h of r z n."""
ACTIVATIONS = {"lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh")}


def _gates(c: Importer, kind: str, w: Value) -> Value:
    order = ORDER[kind]
    size = w.shape[0] // len(order)
    return c.e.concat([c.e.slice(w, 0, g * size, (g + 1) * size) for g in order], 0)


def _layers(
    c: Importer, a: Args, kind: str, activations: tuple[str, ...]
) -> tuple[Value, list[Value], list[Value]]:
    if a.get("train", False) and float(a.get("dropout", 0.0)):
        raise UnsupportedError(
            f"at {c.b.source}: the model is in training mode", "Call model.eval() before exporting"
        )
    x = a.tensor("input") if a.has("input") else a.need("data")
    start = a.need("hx")
    h0, c0 = (start, None) if isinstance(start, Value) else (start[0], start[1] if len(start) > 1 else None)
    params: list[Value] = a.need("params")
    biases, layers, both = (
        bool(a.get("has_biases", True)),
        int(a.need("num_layers")),
        bool(a.get("bidirectional", False)),
    )
    ways = 2 if both else 1
    each = 4 if biases else 2
    if a.has("batch_sizes"):
        raise UnsupportedError(f"at {c.b.source}: packed sequences are not supported", "Give padded sequences")
    if len(params) != each * layers * ways:
        raise UnsupportedError(
            f"at {c.b.source}: recurrent layers with projections are not supported", "Leave them out"
        )
    flat = x.rank == 2
    if flat:
        x = c.e.unsqueeze(x, 1)
        h0 = c.e.unsqueeze(h0, 1)
        c0 = None if c0 is None else c.e.unsqueeze(c0, 1)
    first = bool(a.get("batch_first", False)) and not flat
    if first:
        x = c.e.transpose(x, [1, 0, 2])
    hidden: list[Value] = []
    cells: list[Value] = []
    for layer in range(layers):
        mine = params[layer * ways * each : (layer + 1) * ways * each]
        sides = [mine[w * each : (w + 1) * each] for w in range(ways)]
        w = c.e.concat([c.e.unsqueeze(_gates(c, kind, side[0]), 0) for side in sides], 0)
        r = c.e.concat([c.e.unsqueeze(_gates(c, kind, side[1]), 0) for side in sides], 0)
        bias = None
        if biases:
            rows = [c.e.concat([_gates(c, kind, side[2]), _gates(c, kind, side[3])], 0) for side in sides]
            bias = c.e.concat([c.e.unsqueeze(row, 0) for row in rows], 0)
        state = c.e.slice(h0, 0, layer * ways, (layer + 1) * ways)
        inputs: list[Value | None] = [x, w, r, bias, None, state]
        attrs: dict[str, Any] = {
            "direction": "bidirectional" if both else "forward", "activations": activations * ways,
            "alphas": (0.0,) * len(activations) * ways, "betas": (0.0,) * len(activations) * ways, "clip": None,
        }  # fmt: skip
        if kind == "lstm":
            assert c0 is not None
            inputs += [c.e.slice(c0, 0, layer * ways, (layer + 1) * ways), None]
            attrs["input_forget"] = False
        elif kind == "gru":
            attrs["linear_before_reset"] = True
        made = c.b.ops(kind, *inputs, **attrs)
        y = c.e.transpose(made[0], [0, 2, 1, 3])
        x = c.e.reshape(y, [*y.shape[:2], y.shape[2] * y.shape[3]])
        hidden.append(made[1])
        if kind == "lstm":
            cells.append(made[2])
    if first:
        x = c.e.transpose(x, [1, 0, 2])
    if flat:
        return c.e.squeeze(x, [1]), [c.e.squeeze(h, [1]) for h in hidden], [c.e.squeeze(s, [1]) for s in cells]
    return x, hidden, cells


@on("gru.input")
def _gru(c: Importer, a: Args) -> list[Value]:
    y, hidden, _ = _layers(c, a, "gru", ACTIVATIONS["gru"])
    return [y, c.e.concat(hidden, 0)]


@on("lstm.input")
def _lstm(c: Importer, a: Args) -> list[Value]:
    y, hidden, cells = _layers(c, a, "lstm", ACTIVATIONS["lstm"])
    return [y, c.e.concat(hidden, 0), c.e.concat(cells, 0)]


@on("rnn_tanh.input")
def _rnn_tanh(c: Importer, a: Args) -> list[Value]:
    y, hidden, _ = _layers(c, a, "rnn", ("tanh",))
    return [y, c.e.concat(hidden, 0)]


@on("rnn_relu.input")
def _rnn_relu(c: Importer, a: Args) -> list[Value]:
    y, hidden, _ = _layers(c, a, "rnn", ("relu",))
    return [y, c.e.concat(hidden, 0)]


def _cell_input(c: Importer, a: Args, x: Value, h: Value) -> tuple[Value, Value]:
    def product(v: Value, w: Value, bias: Value | None) -> Value:
        return c.b.op("dense", v, c.e.swap(w, 0, 1), bias)

    return product(x, a.tensor("w_ih"), a.maybe("b_ih")), product(h, a.tensor("w_hh"), a.maybe("b_hh"))


@on("gru_cell")
def _gru_cell(c: Importer, a: Args) -> Value:
    x, h = a.tensor("input"), a.tensor("hx")
    left, right = _cell_input(c, a, x, h)
    size = h.shape[-1]
    parts = [
        (c.e.slice(left, -1, i * size, (i + 1) * size), c.e.slice(right, -1, i * size, (i + 1) * size))
        for i in range(3)
    ]
    reset, update = (c.b.op("sigmoid", c.b.op("add", *parts[i])) for i in (0, 1))
    new = c.b.op("tanh", c.b.op("add", parts[2][0], c.b.op("mul", reset, parts[2][1])))
    return c.b.op("add", new, c.b.op("mul", update, c.b.op("sub", h, new)))


@on("lstm_cell")
def _lstm_cell(c: Importer, a: Args) -> list[Value]:
    x, (h, cell) = a.tensor("input"), a.need("hx")
    gates = c.b.op("add", *_cell_input(c, a, x, h))
    size = h.shape[-1]
    i, f, g, o = (c.e.slice(gates, -1, k * size, (k + 1) * size) for k in range(4))
    i, f, o = (c.b.op("sigmoid", v) for v in (i, f, o))
    cell = c.b.op("add", c.b.op("mul", f, cell), c.b.op("mul", i, c.b.op("tanh", g)))
    return [c.b.op("mul", o, c.b.op("tanh", cell)), cell]
