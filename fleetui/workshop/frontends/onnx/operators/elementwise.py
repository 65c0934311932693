"""Element by element: arithmetic, comparisons, bits, activations, casts."""

from __future__ import annotations

import numpy as np

from fleetui.workshop.frontends.onnx.call import Call, Handler, Result, operator
from fleetui.workshop.frontends.onnx.tensors import dtype_title
from fleetui.workshop.graph.ir import BITS, Value, numpy_dtype

_SAME: dict[str, str] = {
    "Abs": "abs", "Neg": "neg", "Sign": "sign", "Exp": "exp", "Log": "log", "Sqrt": "sqrt",
    "Reciprocal": "reciprocal", "Erf": "erf", "Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu", "Sin": "sin",
    "Cos": "cos", "Tan": "tan", "Asin": "asin", "Acos": "acos", "Atan": "atan", "Sinh": "sinh", "Cosh": "cosh",
    "Asinh": "asinh", "Acosh": "acosh", "Atanh": "atanh", "Floor": "floor", "Ceil": "ceil", "Round": "round",
    "Softplus": "softplus", "Softsign": "softsign", "Mish": "mish", "Not": "logical_not",
    "BitwiseNot": "bitwise_not", "IsNaN": "isnan", "HardSwish": "hard_swish",
}  # fmt: skip
_PAIRS: dict[str, str] = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Equal": "equal", "Less": "less", "Greater": "greater",
    "LessOrEqual": "less_equal", "GreaterOrEqual": "greater_equal", "And": "logical_and", "Or": "logical_or",
    "Xor": "logical_xor", "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor",
    "Pow": "pow",
}  # fmt: skip


def _unary(op: str) -> Handler:
    def handler(c: Call) -> Result:
        return c.op(op, c.value(0))

    return handler


def _binary(op: str) -> Handler:
    def handler(c: Call) -> Result:
        a, b = c.value(0), _aligned(c, c.value(0), c.value(1))
        if op == "pow" and a.dtype != b.dtype and a.data is None and b.data is not None:
            # An exponent of another type is nearly always a whole number: the base's own type serves as well.
            exponent = np.asarray(b.data)
            if np.array_equal(exponent, exponent.astype(numpy_dtype(a.dtype)).astype(exponent.dtype)):
                b = c.constant(exponent, a.dtype)
        return c.op(op, a, b)

    return handler


def _aligned(c: Call, a: Value, b: Value) -> Value:
    """Before version 7 the second input was lined up by attributes instead of numpy's rule."""
    if c.version >= 7 or not c.flag("broadcast"):
        return b
    if "axis" not in c.attrs:
        return b
    axis = c.axis(c.integer("axis"), a.rank)
    return c.reshape(b, [*b.shape, *[1] * (a.rank - axis - b.rank)])


for _name, _op in _SAME.items():
    operator(_name)(_unary(_op))
for _name, _op in _PAIRS.items():
    operator(_name)(_binary(_op))


@operator("Identity")
def identity(c: Call) -> Result:
    item = c.item(0)
    return item if item is not None else c.value(0)


# ---------------------------------------------------------------- several inputs


def _chain(op: str) -> Handler:
    def handler(c: Call) -> Result:
        first, *rest = c.values() or [c.value(0)]
        for other in rest:
            first = c.op(op, first, other)
        return first

    return handler


operator("Sum")(_chain("add"))
operator("Max")(_chain("maximum"))
operator("Min")(_chain("minimum"))


@operator("Mean")
def mean(c: Call) -> Result:
    total = _chain("add")(c)
    if not isinstance(total, Value):
        c.broken("has no inputs")
    return total if len(c.inputs) == 1 else c.op("div", total, c.scalar(len(c.inputs), total))


@operator("Where")
def where(c: Call) -> Result:
    return c.op("where", c.value(0), c.value(1), c.value(2))


@operator("Mod")
def mod(c: Call) -> Result:
    return c.op("fmod" if c.flag("fmod") else "mod", c.value(0), c.value(1))


@operator("BitShift")
def bit_shift(c: Call) -> Result:
    direction = c.text("direction")
    if direction not in {"LEFT", "RIGHT"}:
        c.broken(f"shifts in the direction '{direction}'")
    x, by = c.value(0), c.value(1)
    if by.dtype.startswith("int") and not (by.data is not None and bool((by.data >= 0).all())):
        # A negative distance counts as one beyond the width, which the primitive knows.
        beyond = c.scalar(BITS[x.dtype], by)
        by = c.op("where", c.op("less", by, c.scalar(0, by)), beyond, by)
    return c.op("shift_left" if direction == "LEFT" else "shift_right", x, by)


# ---------------------------------------------------------------- activations


@operator("IsInf")
def isinf(c: Call) -> Result:
    return c.op(
        "isinf",
        c.value(0),
        positive=c.flag("detect_positive", default=True),
        negative=c.flag("detect_negative", default=True),
    )


@operator("Gelu")
def gelu(c: Call) -> Result:
    return c.op("gelu", c.value(0), approximate=c.text("approximate", "none") == "tanh")


@operator("LeakyRelu")
def leaky_relu(c: Call) -> Result:
    return c.op("leaky_relu", c.value(0), alpha=c.real("alpha", 0.01))


@operator("Elu")
def elu(c: Call) -> Result:
    return c.op("elu", c.value(0), alpha=c.real("alpha", 1.0))


@operator("Celu")
def celu(c: Call) -> Result:
    return c.op("celu", c.value(0), alpha=c.real("alpha", 1.0))


@operator("Selu")
def selu(c: Call) -> Result:
    old = c.version < 6
    return c.op(
        "selu",
        c.value(0),
        alpha=c.real("alpha", 1.6732 if old else 1.67326319217681884765625),
        gamma=c.real("gamma", 1.0507 if old else 1.05070102214813232421875),
    )


@operator("HardSigmoid")
def hard_sigmoid(c: Call) -> Result:
    return c.op("hard_sigmoid", c.value(0), alpha=c.real("alpha", 0.2), beta=c.real("beta", 0.5))


@operator("ThresholdedRelu")
def thresholded_relu(c: Call) -> Result:
    return c.op("thresholded_relu", c.value(0), alpha=c.real("alpha", 1.0))


@operator("Shrink")
def shrink(c: Call) -> Result:
    return c.op("shrink", c.value(0), bias=c.real("bias", 0.0), lambd=c.real("lambd", 0.5))


def swish_of(c: Call, x: Value, alpha: float) -> Value:
    if alpha == 1.0:
        return c.op("silu", x)
    return c.op("mul", x, c.op("sigmoid", c.op("mul", x, c.scalar(alpha, x))))


@operator("Swish")
def swish(c: Call) -> Result:
    return swish_of(c, c.value(0), c.real("alpha", 1.0))


@operator("SwiGLU")
def swiglu(c: Call) -> Result:
    return c.op("mul", swish_of(c, c.value(0), c.real("alpha", 1.0)), c.value(1))


@operator("PRelu")
def prelu(c: Call) -> Result:
    x, slope = c.value(0), c.value(1)
    if c.version < 7 and slope.rank == 1 and x.rank > 2:
        slope = c.reshape(slope, [slope.size, *[1] * (x.rank - 2)])
    if slope.data is not None and slope.size == 1 and x.dtype.startswith(("float", "bfloat")):
        return c.op("leaky_relu", x, alpha=float(np.asarray(slope.data).reshape(-1)[0]))
    slope = c.broadcast(slope, x.shape) if slope.rank > x.rank else slope
    return c.op("where", c.op("less", x, c.scalar(0, x)), c.op("mul", x, slope), x)


@operator("Clip")
def clip(c: Call) -> Result:
    x = c.value(0)
    if c.version < 11:
        return clip_of(c, x, c.attrs.get("min"), c.attrs.get("max"))
    low, high = c.opt(1), c.opt(2)
    if all(v is None or (v.data is not None and v.size == 1) for v in (low, high)):
        numbers = [None if v is None or v.data is None else v.data.reshape(-1)[0].item() for v in (low, high)]
        return clip_of(c, x, numbers[0], numbers[1])
    if low is not None:
        x = c.op("maximum", x, c.reshape(low, []))
    if high is not None:
        x = c.op("minimum", x, c.reshape(high, []))
    return x


def clip_of(c: Call, x: Value, low: float | None, high: float | None) -> Value:
    if low is None and high is None:
        return x
    if low == 0 and high is None and x.dtype.startswith(("float", "bfloat")):
        return c.op("relu", x)
    return c.op("clip", x, low=low, high=high)


# ---------------------------------------------------------------- types


@operator("Cast")
def cast(c: Call) -> Result:
    return c.cast(c.value(0), _to(c))


@operator("CastLike")
def cast_like(c: Call) -> Result:
    return c.cast(c.value(0), c.value(1).dtype)


def _to(c: Call) -> str:
    if isinstance(c.attrs.get("to"), str):  # before version 6
        from fleetui.workshop.frontends.onnx.reading import library

        code = int(library().TensorProto.DataType.Value(c.text("to").upper()))
        if not dtype_title(code):
            c.broken(f"casts to '{c.text('to')}'")
        c.attrs["to"] = code
    return c.dtype_attr("to")


@operator("BitCast")
def bit_cast(c: Call) -> Result:
    x, to = c.value(0), c.dtype_attr("to")
    if BITS[x.dtype] != BITS[to]:
        c.broken(f"reads {x.dtype} as {to}, which has another width")
    if x.dtype == to:
        return x
    if x.data is not None:
        return c.importer.builder.constant(np.ascontiguousarray(x.data).view(numpy_dtype(to)), dtype=to)
    if ("int" in x.dtype or x.dtype == "bool") and "int" in to:
        return c.cast(x, to)  # two's complement: the numeric cast wraps to the same bits
    return c.refuse("reads the bits of a computed tensor as another type")


@operator("Dropout")
def dropout(c: Call) -> Result:
    """Inference only: what comes in goes out."""
    x = c.value(0)
    training = False
    if c.version >= 12 and c.opt(2) is not None:
        training = bool(c.const(2, "training mode").reshape(-1)[0])
    elif c.version < 7:
        training = not c.flag("is_test")
    if training and c.version >= 12:
        ratio = float(c.const(1, "ratio").reshape(-1)[0]) if c.opt(1) is not None else 0.5
        if ratio > 0:
            c.refuse("is in training mode, where its result is random", "Export the model in evaluation mode")
    return [x, c.full(x.shape, 1, "bool" if c.version >= 10 else x.dtype)]
