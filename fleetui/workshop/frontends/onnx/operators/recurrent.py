"""LSTM, GRU and the plain recurrent network: ONNX's weights as they are, only the batch-first layout is turned."""

from __future__ import annotations

from fleetui.workshop.frontends.onnx.call import Call, Result, operator
from fleetui.workshop.graph.ir import Value

ACTIVATIONS: dict[str, tuple[str, float | None, float | None]] = {
    "relu": ("relu", None, None),
    "tanh": ("tanh", None, None),
    "sigmoid": ("sigmoid", None, None),
    "affine": ("affine", 1.0, 0.0),
    "leakyrelu": ("leaky_relu", 0.01, None),
    "thresholdedrelu": ("thresholded_relu", 1.0, None),
    "scaledtanh": ("scaled_tanh", 1.0, 1.0),
    "hardsigmoid": ("hard_sigmoid", 0.2, 0.5),
    "elu": ("elu", 1.0, None),
    "softsign": ("softsign", None, None),
    "softplus": ("softplus", None, None),
}
"""ONNX's name, without regard to case → ours, and the defaults of the parameters it takes."""


def _activations(c: Call, default: list[str], directions: int) -> dict[str, tuple[object, ...]]:
    """Alphas and betas are handed out in order to those functions that take one."""
    named = c.texts("activations", default * directions)
    if len(named) != len(default) * directions:
        c.broken(f"names {len(named)} activations where {len(default) * directions} are needed")
    alphas, betas = iter(c.reals("activation_alpha", [])), iter(c.reals("activation_beta", []))
    names: list[str] = []
    first: list[float] = []
    second: list[float] = []
    for name in named:
        if name.lower() not in ACTIVATIONS:
            c.refuse(f"uses the activation '{name}', which we do not know")
        known, alpha, beta = ACTIVATIONS[name.lower()]
        names.append(known)
        first.append(0.0 if alpha is None else next(alphas, alpha))
        second.append(0.0 if beta is None else next(betas, beta))
    return {"activations": tuple(names), "alphas": tuple(first), "betas": tuple(second)}


def _recurrent(c: Call, op: str, default: list[str], more: dict[str, object]) -> Result:
    direction = c.text("direction", "forward")
    if direction not in {"forward", "reverse", "bidirectional"}:
        c.broken(f"runs in the direction '{direction}'")
    directions = 2 if direction == "bidirectional" else 1
    batch_first = c.flag("layout")
    x, w, r = c.value(0), c.value(1), c.value(2)
    states = [c.opt(5), c.opt(6) if op == "lstm" else None]
    if x.rank != 3:
        c.misfit(f"takes a sequence of the shape {list(x.shape)}")
    if batch_first:
        x = c.transpose(x, [1, 0, 2])
        states = [None if s is None else c.transpose(s, [1, 0, 2]) for s in states]
    lengths = c.opt(4)
    if lengths is not None and lengths.data is not None and bool((lengths.data == x.shape[0]).all()):
        lengths = None  # everybody is as long as the sequence
    inputs: list[Value | None] = [x, w, r, c.opt(3), lengths, states[0]]
    if op == "lstm":
        inputs += [states[1], c.opt(7)]
    clip = c.attrs.get("clip")
    outs = c.ops(
        op,
        *inputs,
        direction=direction,
        clip=None if not clip else float(clip),
        **_activations(c, default, directions),
        **more,
    )
    if not batch_first:
        return outs
    return [c.transpose(outs[0], [2, 0, 1, 3]), *(c.transpose(s, [1, 0, 2]) for s in outs[1:])]


@operator("LSTM")
def lstm(c: Call) -> Result:
    return _recurrent(c, "lstm", ["sigmoid", "tanh", "tanh"], {"input_forget": c.flag("input_forget")})


@operator("GRU")
def gru(c: Call) -> Result:
    return _recurrent(c, "gru", ["sigmoid", "tanh"], {"linear_before_reset": c.flag("linear_before_reset")})


@operator("RNN")
def rnn(c: Call) -> Result:
    return _recurrent(c, "rnn", ["tanh"], {})
