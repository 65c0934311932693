"""TFLite's arithmetic, activations, comparisons and reductions."""

from __future__ import annotations

from typing import Any

import numpy as np

from fleetui.workshop.frontends.emit import FLOATS, axes_of, axis_of
from fleetui.workshop.frontends.tflite.importer import Handler, Importer, on
from fleetui.workshop.graph.ir import Value


def _unary(op: str, **attrs: Any) -> Handler:
    return lambda c: c.stored(c.b.op(op, c.real(0), **attrs))


for _name, _op in (
    ("ABS", "abs"), ("CEIL", "ceil"), ("COS", "cos"), ("EXP", "exp"), ("FLOOR", "floor"), ("LOG", "log"),
    ("LOGISTIC", "sigmoid"), ("NEG", "neg"), ("RELU", "relu"), ("ROUND", "round"), ("RSQRT", "rsqrt"),
    ("SIGN", "sign"), ("SIN", "sin"), ("SQRT", "sqrt"), ("TANH", "tanh"), ("HARD_SWISH", "hard_swish"),
):  # fmt: skip
    on(_name)(_unary(_op))
on("RELU6")(_unary("clip", low=0.0, high=6.0))
on("RELU_N1_TO_1")(_unary("clip", low=-1.0, high=1.0))
on("RELU_0_TO_1")(_unary("clip", low=0.0, high=1.0))
on("ELU")(_unary("elu", alpha=1.0))
on("LOGICAL_NOT")(lambda c: c.b.op("logical_not", c.raw(0)))


@on("SQUARE")
def _square(c: Importer) -> Value:
    x = c.real(0)
    return c.stored(c.b.op("mul", x, x))


@on("GELU")
def _gelu(c: Importer) -> Value:
    return c.stored(c.b.op("gelu", c.real(0), approximate=bool(c.op.opt("Approximate", default=False))))


@on("LEAKY_RELU")
def _leaky(c: Importer) -> Value:
    return c.stored(c.b.op("leaky_relu", c.real(0), alpha=float(c.op.opt("Alpha", 0.0))))


@on("PRELU")
def _prelu(c: Importer) -> Value:
    x, alpha = c.real(0), c.real(1)
    return c.stored(c.b.op("where", c.e.by("greater", x, 0), x, c.b.op("mul", x, alpha)))


# ---------------------------------------------------------------- two operands


def _binary(op: str, *, activation: bool = False) -> Handler:
    def handler(c: Importer) -> Value:
        out = c.b.op(op, c.real(0), c.real(1))
        if activation:
            out = c.activated(out, int(c.op.opt("FusedActivationFunction")))
        return c.stored(out)

    return handler


for _name, _op in (("ADD", "add"), ("SUB", "sub"), ("MUL", "mul"), ("DIV", "div")):
    on(_name)(_binary(_op, activation=True))
for _name, _op in (
    ("MAXIMUM", "maximum"), ("MINIMUM", "minimum"), ("POW", "pow"), ("FLOOR_MOD", "mod"), ("ATAN2", "atan2"),
    ("LOGICAL_AND", "logical_and"), ("LOGICAL_OR", "logical_or"), ("RIGHT_SHIFT", "shift_right"),
    ("EQUAL", "equal"), ("NOT_EQUAL", "not_equal"), ("LESS", "less"), ("LESS_EQUAL", "less_equal"),
    ("GREATER", "greater"), ("GREATER_EQUAL", "greater_equal"),
):  # fmt: skip
    on(_name)(_binary(_op))


@on("BITWISE_XOR")
def _xor(c: Importer) -> Value:
    x = c.raw(0)
    return c.b.op("logical_xor" if x.dtype == "bool" else "bitwise_xor", x, c.raw(1))


@on("FLOOR_DIV")
def _floor_div(c: Importer) -> Value:
    x, y = c.real(0), c.real(1)
    if x.dtype in FLOATS:
        return c.stored(c.b.op("floor", c.b.op("div", x, y)))
    return c.b.op("div", c.b.op("sub", x, c.b.op("mod", x, y)), y)


@on("SQUARED_DIFFERENCE")
def _squared_difference(c: Importer) -> Value:
    d = c.b.op("sub", c.real(0), c.real(1))
    return c.stored(c.b.op("mul", d, d))


@on("ADD_N")
def _add_n(c: Importer) -> Value:
    total = c.real(0)
    for at in range(1, len(c.op.inputs)):
        total = c.b.op("add", total, c.real(at))
    return c.stored(total)


@on("SELECT", "SELECT_V2")
def _select(c: Importer) -> Value:
    condition, x, y = c.raw(0), c.real(1), c.real(2)
    if c.op.name == "SELECT" and condition.rank == 1 and x.rank > 1:
        condition = c.e.reshape(condition, [-1, *[1] * (x.rank - 1)])
    return c.stored(c.b.op("where", condition, x, y))


@on("CAST")
def _cast(c: Importer) -> Value:
    return c.e.cast(c.raw(0), c.out_dtype())


@on("QUANTIZE")
def _quantize(c: Importer) -> Value:
    return c.stored(c.real(0))


@on("DEQUANTIZE")
def _dequantize(c: Importer) -> Value:
    return c.e.cast(c.real(0), c.out_dtype())


@on("FAKE_QUANT")
def _fake_quant(c: Importer) -> Value:
    low, high, bits = float(c.op.opt("Min")), float(c.op.opt("Max")), int(c.op.opt("NumBits", 8))
    bottom = 1 if c.op.opt("NarrowRange", default=False) else 0
    top = 2**bits - 1
    scale = (high - low) / (top - bottom)
    zero = int(np.clip(np.rint(bottom - low / scale), bottom, top))
    codes = c.b.op("round", c.e.by("div", c.real(0), scale))
    kept = c.b.op("clip", codes, low=float(bottom - zero), high=float(top - zero))
    return c.e.by("mul", kept, scale)


# ---------------------------------------------------------------- reductions


def _reduction(kind: str) -> Handler:
    def handler(c: Importer) -> Value:
        x = c.moved(0) if kind in {"max", "min"} else c.real(0)
        axes = axes_of(c.ints(1), x.rank) if c.array(1).size else ()
        if not axes:
            return c.stored(x)
        keep = bool(c.op.opt("KeepDims", default=False))
        return c.stored(c.e.reduce(kind, x, axes, keepdims=keep))

    return handler


for _name, _kind in (
    ("MEAN", "mean"), ("SUM", "sum"), ("REDUCE_MAX", "max"), ("REDUCE_MIN", "min"), ("REDUCE_PROD", "prod"),
):  # fmt: skip
    on(_name)(_reduction(_kind))


def _logical(kind: str) -> Handler:
    def handler(c: Importer) -> Value:
        x = c.e.cast(c.raw(0), "uint8")
        out = c.e.reduce(kind, x, axes_of(c.ints(1), x.rank), keepdims=bool(c.op.opt("KeepDims", default=False)))
        return c.e.cast(out, "bool")

    return handler


on("REDUCE_ANY")(_logical("max"))
on("REDUCE_ALL")(_logical("min"))


def _arg(kind: str) -> Handler:
    def handler(c: Importer) -> Value:
        x = c.raw(0)
        out = c.b.op(kind, x, axis=axis_of(c.ints(1)[0], x.rank), keepdims=False, last=False)
        return c.e.cast(out, c.out_dtype())

    return handler


on("ARG_MAX")(_arg("argmax"))
on("ARG_MIN")(_arg("argmin"))


@on("CUMSUM")
def _cumsum(c: Importer) -> Value:
    x = c.raw(0)
    return c.b.op(
        "cumsum", x, axis=axis_of(c.ints(1)[0], x.rank), exclusive=bool(c.op.opt("Exclusive", default=False)),
        reverse=bool(c.op.opt("Reverse", default=False)),
    )  # fmt: skip


@on("TOPK_V2")
def _topk(c: Importer) -> list[Value]:
    x = c.moved(0)
    values, places = c.b.ops("topk", x, k=c.ints(1)[0], axis=x.rank - 1, largest=True, sorted=True)
    return [c.stored(values), c.e.cast(places, c.out_dtype(1))]


@on("SOFTMAX")
def _softmax(c: Importer) -> Value:
    x, beta = c.real(0), float(c.op.opt("Beta", 1.0))
    if beta not in {0.0, 1.0}:
        x = c.e.by("mul", x, beta)
    return c.stored(c.b.op("softmax", x, axis=x.rank - 1))


@on("LOG_SOFTMAX")
def _log_softmax(c: Importer) -> Value:
    x = c.real(0)
    return c.stored(c.b.op("log_softmax", x, axis=x.rank - 1))


@on("L2_NORMALIZATION")
def _l2_normalization(c: Importer) -> Value:
    x = c.real(0)
    total = c.e.reduce("sum", c.b.op("mul", x, x), [x.rank - 1], keepdims=True)
    return c.stored(c.b.op("div", x, c.b.op("sqrt", c.e.by("maximum", total, 1e-12))))


@on("LOCAL_RESPONSE_NORMALIZATION")
def _lrn(c: Importer) -> Value:
    size = 2 * int(c.op.opt("Radius", 5)) + 1
    return c.b.op(
        "lrn", c.real(0), size=size, alpha=float(c.op.opt("Alpha", 1.0)) * size, beta=float(c.op.opt("Beta", 0.5)),
        bias=float(c.op.opt("Bias", 1.0)),
    )  # fmt: skip
