"""LSTM, GRU and the plain recurrent network, as ONNX defines them; one step after the other."""

# ruff: noqa: ARG001 - a rule is called with all that any rule may need

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fleetui.workshop.graph.ir import Array, Shape
from fleetui.workshop.graph.ops import Kind, OpSpec, Types
from fleetui.workshop.graph.primitives.common import (
    FLOATS,
    Arrays,
    Attrs,
    Inputs,
    array,
    array_or_none,
    dtype_in,
    given,
    like,
    maybe,
    must,
    same_dtype,
    say,
    spec,
    wide,
)
from fleetui.workshop.graph.primitives.elementwise import sigmoid, softplus

DIRECTIONS = ("forward", "reverse", "bidirectional")
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
FUNCTIONS = {"lstm": 3, "gru": 2, "rnn": 1}
Activation = Callable[[Array], Array]

_ACTIVATIONS: dict[str, Callable[[Array, float, float], Array]] = {
    "relu": lambda x, _a, _b: np.maximum(x, 0),
    "tanh": lambda x, _a, _b: np.tanh(x),
    "sigmoid": lambda x, _a, _b: sigmoid(x),
    "affine": lambda x, a, b: a * x + b,
    "leaky_relu": lambda x, a, _b: np.where(x >= 0, x, a * x),
    "thresholded_relu": lambda x, a, _b: np.where(x >= a, x, 0),
    "scaled_tanh": lambda x, a, b: a * np.tanh(b * x),
    "hard_sigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "elu": lambda x, a, _b: np.where(x >= 0, x, a * np.expm1(x)),
    "softsign": lambda x, _a, _b: x / (1 + np.abs(x)),
    "softplus": lambda x, _a, _b: softplus(x),
}

# ---------------------------------------------------------------- shapes


def _infer(op: str) -> Callable[[Inputs, Attrs], Types]:
    gates, states = GATES[op], 2 if op == "lstm" else 1

    def infer(inputs: Inputs, attrs: Attrs) -> Types:
        x, w, r = given(inputs, 3, op)
        direction = attrs["direction"]
        must(direction in DIRECTIONS, f"{op} in the direction {direction}")
        count = 2 if direction == "bidirectional" else 1
        fits = x.rank == 3 and w.rank == 3 and r.rank == 3
        must(fits, f"{op} of {say(x.shape)} with {say(w.shape)} and {say(r.shape)}")
        steps, batch, width = x.shape
        hidden = r.shape[2]
        _expect(op, w.shape, (count, gates * hidden, width))
        _expect(op, r.shape, (count, gates * hidden, hidden))
        dtype_in(op, x, FLOATS)
        wanted: dict[int, Shape] = {3: (count, 2 * gates * hidden), 4: (batch,), 5: (count, batch, hidden)}
        if op == "lstm":
            wanted |= {6: (count, batch, hidden), 7: (count, 3 * hidden)}
        same_dtype(op, x, w, r)
        for index, shape in wanted.items():
            value = maybe(inputs, index)
            if value is None:
                continue
            _expect(op, value.shape, shape)
            if index == 4:
                must(value.dtype in {"int32", "int64"}, f"{op} with lengths of {value.dtype}")
            else:
                same_dtype(op, x, value)
        names = attrs["activations"]
        must(len(names) == count * FUNCTIONS[op], f"{op} with {len(names)} activations")
        for name in names:
            must(name in _ACTIVATIONS, f"{op} with the activation {name}")
        for key in ("alphas", "betas"):
            must(len(attrs[key]) == len(names), f"{op} with {len(names)} activations and {len(attrs[key])} {key}")
        state = ((count, batch, hidden), x.dtype)
        return [((steps, count, batch, hidden), x.dtype), *[state] * states]

    return infer


def _expect(op: str, have: Shape, want: Shape) -> None:
    must(have == want, f"{op} takes a tensor of shape {say(want)} and got {say(have)}")


# ---------------------------------------------------------------- numbers


def _functions(op: str, attrs: Attrs, direction: int) -> list[Activation]:
    first = direction * FUNCTIONS[op]
    made: list[Activation] = []
    for index in range(first, first + FUNCTIONS[op]):
        function, a, b = _ACTIVATIONS[attrs["activations"][index]], attrs["alphas"][index], attrs["betas"][index]
        made.append(lambda x, function=function, a=a, b=b: function(x, a, b))  # type: ignore[misc]  # bound early
    return made


def _evaluate(op: str) -> Callable[[Arrays, Attrs], list[Array]]:
    step = {"lstm": _lstm_step, "gru": _gru_step, "rnn": _rnn_step}[op]
    gates = GATES[op]

    def evaluate(arrays: Arrays, attrs: Attrs) -> list[Array]:
        given_x = array(arrays, 0)
        x, w, r = (wide(array(arrays, i)) for i in range(3))
        steps, batch, _ = x.shape
        count, hidden = r.shape[0], r.shape[2]
        bias, lengths = array_or_none(arrays, 3), array_or_none(arrays, 4)
        length = np.full(batch, steps) if lengths is None else np.clip(lengths.astype(np.int64), 0, steps)
        y = np.zeros((steps, count, batch, hidden), x.dtype)
        last = [np.zeros((count, batch, hidden), x.dtype) for _ in range(2)]
        for direction in range(count):
            b = np.zeros(2 * gates * hidden, x.dtype) if bias is None else wide(bias)[direction]
            peephole = array_or_none(arrays, 7)
            p = np.zeros(3 * hidden, x.dtype) if peephole is None else wide(peephole)[direction]
            state = []
            for index in (5, 6):
                start = array_or_none(arrays, index)
                state.append(np.zeros((batch, hidden), x.dtype) if start is None else wide(start)[direction])
            functions = _functions(op, attrs, direction)
            backwards = attrs["direction"] == "reverse" or direction == 1
            for at in reversed(range(steps)) if backwards else range(steps):
                live = (at < length)[:, None]
                fed = x[at] @ w[direction].T + b[: gates * hidden]
                after = step(fed, state, r[direction], b[gates * hidden :], p, functions, attrs)
                state = [np.where(live, new, old) for new, old in zip(after, state, strict=True)]
                y[at, direction] = np.where(live, state[0], 0)
            for kept, final in zip(last, state, strict=True):
                kept[direction] = final
        outs = [y, *last[: 2 if op == "lstm" else 1]]
        return [like(out, given_x) for out in outs]

    return evaluate


def _clipped(x: Array, attrs: Attrs) -> Array:
    return x if attrs["clip"] is None else np.clip(x, -attrs["clip"], attrs["clip"])


def _lstm_step(
    fed: Array, state: list[Array], r: Array, b: Array, p: Array, functions: list[Activation], attrs: Attrs
) -> list[Array]:
    h, c = state
    hidden = h.shape[1]
    i, o, f, g = np.split(fed + h @ r.T + b, 4, axis=1)
    pi, po, pf = p[:hidden], p[hidden : 2 * hidden], p[2 * hidden :]
    gate, squash, give = functions
    i = gate(_clipped(i + pi * c, attrs))
    f = 1 - i if attrs["input_forget"] else gate(_clipped(f + pf * c, attrs))
    c = f * c + i * squash(_clipped(g, attrs))
    o = gate(_clipped(o + po * c, attrs))
    return [o * give(c), c]


def _gru_step(
    fed: Array, state: list[Array], r: Array, b: Array, p: Array, functions: list[Activation], attrs: Attrs
) -> list[Array]:
    h, hidden = state[0], state[0].shape[1]
    gate, squash = functions
    update, reset = np.split(fed[:, : 2 * hidden] + h @ r[: 2 * hidden].T + b[: 2 * hidden], 2, axis=1)
    update, reset = gate(_clipped(update, attrs)), gate(_clipped(reset, attrs))
    rh, bh = r[2 * hidden :].T, b[2 * hidden :]
    inner = reset * (h @ rh + bh) if attrs["linear_before_reset"] else (reset * h) @ rh + bh
    new = squash(_clipped(fed[:, 2 * hidden :] + inner, attrs))
    return [(1 - update) * new + update * h, state[1]]


def _rnn_step(
    fed: Array, state: list[Array], r: Array, b: Array, p: Array, functions: list[Activation], attrs: Attrs
) -> list[Array]:
    return [functions[0](_clipped(fed + state[0] @ r.T + b, attrs)), state[1]]


def _flops(op: str) -> Callable[[Inputs, Types, Attrs], int]:
    def flops(inputs: Inputs, types: Types, attrs: Attrs) -> int:
        steps, count, batch, hidden = types[0][0]
        width, gates = given(inputs, 1, op)[0].shape[2], GATES[op]
        return steps * count * batch * hidden * (gates * (2 * (width + hidden) + 5) + 4)

    return flops


ATTRS = ("direction", "activations", "alphas", "betas", "clip")
EXTRA = {"lstm": ("input_forget",), "gru": ("linear_before_reset",), "rnn": ()}
SPECS: list[OpSpec] = [
    spec(op, Kind.OPAQUE, _infer(op), _evaluate(op), _flops(op), (*ATTRS, *EXTRA[op])) for op in GATES
]
