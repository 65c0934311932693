"""LSTM, GRU and RNN against the reference: directions, activations, clips, lengths, states, peepholes."""

import numpy as np
import pytest

from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.primitives.recurrent import FUNCTIONS, GATES
from fleetui.workshop.schedules import recurrent
from tests.helpers.kernels import check, random_feeds, using
from tests.helpers.products import targets

RULES = using(*recurrent.RULES)
USUAL = {"lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh"), "rnn": ("tanh",)}


class Networks:
    """A graph with many recurrent nodes, each with inputs and outputs of its own."""

    def __init__(self, seed=0):
        self.dice, self.b, self.number = np.random.default_rng(seed), Builder("networks"), 0

    def add(
        self, op, steps=5, batch=2, width=7, hidden=11, *, direction="forward", dtype="float32", names=None,
        clip=None, runtime=False, bias=True, lengths=None, states=False, peephole=False, alphas=None, betas=None,
        **attrs,
    ):  # fmt: skip
        self.number += 1
        b, count, gates = self.b, 2 if direction == "bidirectional" else 1, GATES[op]
        tag = f"{op}{self.number}"

        def given(name, shape):
            data = (self.dice.standard_normal(shape) * 0.4).astype(dtype)
            return b.input(f"{tag}.{name}", shape, dtype) if runtime else b.constant(data, f"{tag}.{name}")

        inputs = [
            b.input(f"{tag}.x", (steps, batch, width), dtype),
            given("w", (count, gates * hidden, width)),
            given("r", (count, gates * hidden, hidden)),
            given("b", (count, 2 * gates * hidden)) if bias else None,
            b.constant(np.asarray(lengths, np.int32)) if lengths is not None else None,
            given("h0", (count, batch, hidden)) if states else None,
        ]
        if op == "lstm":
            inputs.append(given("c0", (count, batch, hidden)) if states else None)
            inputs.append(given("p", (count, 3 * hidden)) if peephole else None)
        names = tuple(names or USUAL[op]) * (1 if names and len(names) > FUNCTIONS[op] else count)
        attrs |= {
            "direction": direction, "activations": names, "clip": clip,
            "alphas": tuple(alphas or (0.3,) * len(names)), "betas": tuple(betas or (0.6,) * len(names)),
        }  # fmt: skip
        if op == "lstm":
            attrs.setdefault("input_forget", False)
        if op == "gru":
            attrs.setdefault("linear_before_reset", False)
        outs = b.ops(op, *inputs, name=f"{tag}.out", **attrs)
        for out in outs:
            b.output(out, out.name)

    def check(self, **more):
        graph = self.b.finish()
        return check(graph, random_feeds(graph, 1, 0.7), lower=RULES, **more)


@pytest.mark.parametrize("target", ["host", "sse"])
def test_directions_sizes_and_states(target):
    networks = Networks()
    networks.add("lstm", 6, 1, 16, 32)
    networks.add("lstm", 3, 2, 5, 20, direction="reverse", states=True)
    networks.add("gru", 4, 1, 9, 24, direction="bidirectional", states=True)
    networks.add("gru", 4, 3, 9, 17, linear_before_reset=True)
    networks.add("rnn", 5, 2, 3, 33, direction="bidirectional")
    networks.add("lstm", 2, 19, 4, 6)
    networks.check(target=targets().get(target))


def test_everything_else_onnx_knows():
    networks = Networks(2)
    networks.add("lstm", peephole=True, states=True, clip=0.4, lengths=[3, 5])
    networks.add("lstm", input_forget=True, direction="bidirectional", lengths=[0, 4], bias=False)
    networks.add("gru", clip=0.5, direction="reverse", lengths=[2, 5], states=True)
    networks.add("gru", linear_before_reset=True, direction="bidirectional", lengths=[5, 1], clip=0.9)
    networks.add("rnn", lengths=[4, 2], bias=False, clip=0.7)
    networks.add("gru", bias=False, linear_before_reset=True)
    networks.check()


def test_every_activation():
    networks = Networks(3)
    some = ["relu", "affine", "leaky_relu", "thresholded_relu", "scaled_tanh", "hard_sigmoid", "elu", "softsign"]
    for name in [*some, "softplus"]:
        networks.add("rnn", 3, 1, 4, 5, names=(name,))
    networks.add("lstm", 3, 1, 4, 5, names=("hard_sigmoid", "softsign", "tanh"))
    networks.add("gru", 3, 1, 4, 5, direction="bidirectional", names=("sigmoid", "tanh", "hard_sigmoid", "relu"))
    networks.check()


def test_weights_that_come_at_run_time():
    networks = Networks(4)
    networks.add("lstm", runtime=True, states=True, peephole=True)
    networks.add("gru", runtime=True, direction="bidirectional")
    networks.check()


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_other_dtypes(dtype):
    networks = Networks(5)
    networks.add("lstm", 3, 2, 4, 9, dtype=dtype, states=True)
    networks.add("gru", 3, 1, 4, 9, dtype=dtype)
    networks.check()


def test_no_steps_leave_the_state_as_it_was():
    networks = Networks(6)
    networks.add("lstm", 0, 2, 4, 9, states=True)
    networks.add("rnn", 0, 2, 4, 9)
    networks.check()


def test_time_is_one_kernel():
    networks = Networks(7)
    networks.add("gru", 12, 1, 4, 16, linear_before_reset=True)
    assert len(networks.check().kernels) == 2
