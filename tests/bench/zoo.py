"""Networks for the compiler's benchmark and tests: built here with ``onnx.helper`` from seeds, no download.

Weights are drawn so that activations keep their size through the net (He's rule, batch norms near one), because
networks of regular or exploding numbers prove nothing about parity. The light models that ship inside the
``onnx`` package are real graphs with generated weights; ``light`` gives them seeded ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np


class Net:
    """Grows an ONNX graph node by node; every method gives the name of its result."""

    def __init__(self, name: str, seed: int = 1) -> None:
        self.name = name
        self.rng = np.random.default_rng(seed)
        self.nodes: list = []
        self.weights: list = []
        self.inputs: list = []
        self.outputs: list = []
        self.channels: dict[str, int] = {}
        self.count = 0

    def input(self, name: str, shape: Sequence[int]) -> str:
        from onnx import TensorProto, helper

        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        if len(shape) > 1:
            self.channels[name] = shape[1]
        return name

    def output(self, name: str) -> None:
        from onnx import TensorProto, helper

        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))

    def weight(self, array: np.ndarray, name: str = "w") -> str:
        from onnx import numpy_helper

        self.count += 1
        full = f"{name}{self.count}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), full))
        return full

    def node(self, op: str, *inputs: str, outputs: int = 1, **attrs: object) -> str:
        from onnx import helper

        self.count += 1
        names = [f"{op.lower()}{self.count}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"{op}_{self.count}", **attrs))
        return names[0]

    # ------------------------------------------------------------ layers

    def conv(
        self,
        x: str,
        out: int,
        k: int | tuple[int, int] = 3,
        s: int = 1,
        *,
        pad: int | None = None,
        groups: int = 1,
        bias: bool = True,
        act: str = "",
        bn: bool = False,
    ) -> str:
        kh, kw = (k, k) if isinstance(k, int) else k
        c = self.channels[x]
        w = self.rng.standard_normal((out, c // groups, kh, kw)) * np.sqrt(2.0 / (c // groups * kh * kw))
        inputs = [x, self.weight(w.astype(np.float32))]
        if bias and not bn:
            inputs.append(self.weight((self.rng.standard_normal(out) * 0.1).astype(np.float32), "b"))
        pads = [kh // 2, kw // 2] if pad is None else [pad, pad]
        y = self.node("Conv", *inputs, kernel_shape=[kh, kw], strides=[s, s], pads=[*pads, *pads], group=groups)
        self.channels[y] = out
        if bn:
            y = self.norm(y)
        return self.act(y, act)

    def norm(self, x: str) -> str:
        c = self.channels[x]
        r = self.rng
        parts = [1 + 0.1 * r.standard_normal(c), 0.1 * r.standard_normal(c), 0.1 * r.standard_normal(c)]
        parts.append(1 + 0.1 * r.random(c))
        weights = [self.weight(p.astype(np.float32), "n") for p in parts]
        y = self.node("BatchNormalization", x, *weights, epsilon=1e-5)
        self.channels[y] = c
        return y

    def act(self, x: str, kind: str) -> str:
        if not kind:
            return x
        c = self.channels.get(x, 0)
        if kind == "relu":
            y = self.node("Relu", x)
        elif kind == "relu6":
            low, high = self.weight(np.float32(0), "lo"), self.weight(np.float32(6), "hi")
            y = self.node("Clip", x, low, high)
        elif kind == "hswish":
            y = self.node("HardSwish", x)
        elif kind == "leaky":
            y = self.node("LeakyRelu", x, alpha=0.1)
        elif kind == "silu":
            y = self.node("Mul", x, self.node("Sigmoid", x))
        elif kind == "hsigmoid":
            y = self.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)
        else:
            y = self.node(kind, x)
        self.channels[y] = c
        return y

    def dense(self, x: str, k: int, m: int, act: str = "") -> str:
        w = (self.rng.standard_normal((k, m)) * np.sqrt(2.0 / k)).astype(np.float32)
        b = (self.rng.standard_normal(m) * 0.1).astype(np.float32)
        y = self.node("Gemm", x, self.weight(w), self.weight(b, "b"))
        self.channels[y] = m
        return self.act(y, act)

    def same(self, y: str, x: str) -> str:
        self.channels[y] = self.channels[x]
        return y

    def pool(self, x: str, k: int = 2, s: int = 2, *, pad: int = 0, op: str = "MaxPool") -> str:
        return self.same(self.node(op, x, kernel_shape=[k, k], strides=[s, s], pads=[pad] * 4), x)

    def head(self, x: str, classes: int) -> str:
        c = self.channels[x]
        x = self.node("Flatten", self.node("GlobalAveragePool", x), axis=1)
        return self.dense(x, c, classes)

    def finish(self, opset: int = 17) -> bytes:
        import onnx
        from onnx import helper

        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(model)
        return model.SerializeToString()


# ------------------------------------------------------------ convolutional networks


def mobilenet_v1(size: int = 224, classes: int = 1000) -> bytes:
    n = Net("mobilenet_v1")
    x = n.conv(n.input("x", (1, 3, size, size)), 32, 3, 2, bn=True, act="relu6")
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for out, stride in plan:
        c = n.channels[x]
        x = n.conv(x, c, 3, stride, groups=c, bn=True, act="relu6")
        x = n.conv(x, out, 1, bn=True, act="relu6")
    n.output(n.head(x, classes))
    return n.finish()


def mobilenet_v2(size: int = 224, classes: int = 1000) -> bytes:
    n = Net("mobilenet_v2")
    x = n.conv(n.input("x", (1, 3, size, size)), 32, 3, 2, bn=True, act="relu6")
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2)]
    plan.append((6, 320, 1, 1))
    for grow, out, count, stride in plan:
        for i in range(count):
            s, y, c = (stride if i == 0 else 1), x, n.channels[x]
            if grow != 1:
                y = n.conv(y, c * grow, 1, bn=True, act="relu6")
            y = n.conv(y, c * grow, 3, s, groups=c * grow, bn=True, act="relu6")
            y = n.conv(y, out, 1, bn=True)
            x = n.same(n.node("Add", x, y), y) if s == 1 and c == out else y
    x = n.conv(x, 1280, 1, bn=True, act="relu6")
    n.output(n.head(x, classes))
    return n.finish()


def mobilenet_v3(size: int = 224, classes: int = 1000) -> bytes:
    """The large one: squeeze-and-excite, hard swish, kernels of 3 and 5."""
    n = Net("mobilenet_v3")
    x = n.conv(n.input("x", (1, 3, size, size)), 16, 3, 2, bn=True, act="hswish")
    plan = [
        (3, 16, 16, 0, "relu", 1), (3, 64, 24, 0, "relu", 2), (3, 72, 24, 0, "relu", 1), (5, 72, 40, 1, "relu", 2),
        (5, 120, 40, 1, "relu", 1), (5, 120, 40, 1, "relu", 1), (3, 240, 80, 0, "hswish", 2),
        (3, 200, 80, 0, "hswish", 1), (3, 184, 80, 0, "hswish", 1), (3, 184, 80, 0, "hswish", 1),
        (3, 480, 112, 1, "hswish", 1), (3, 672, 112, 1, "hswish", 1), (5, 672, 160, 1, "hswish", 2),
        (5, 960, 160, 1, "hswish", 1), (5, 960, 160, 1, "hswish", 1),
    ]  # fmt: skip
    for k, grow, out, se, act, s in plan:
        y, c = x, n.channels[x]
        if grow != c:
            y = n.conv(y, grow, 1, bn=True, act=act)
        y = n.conv(y, grow, k, s, groups=grow, bn=True, act=act)
        if se:
            g = n.node("GlobalAveragePool", y)
            n.channels[g] = grow
            g = n.conv(n.conv(g, max(8, grow // 4 // 8 * 8), 1, act="relu"), grow, 1, act="hsigmoid")
            y = n.same(n.node("Mul", y, g), y)
        y = n.conv(y, out, 1, bn=True)
        x = n.same(n.node("Add", x, y), y) if s == 1 and c == out else y
    x = n.conv(x, 960, 1, bn=True, act="hswish")
    x = n.node("Flatten", n.node("GlobalAveragePool", x), axis=1)
    x = n.act(n.dense(x, 960, 1280), "hswish")
    n.output(n.dense(x, 1280, classes))
    return n.finish()


def unet(size: int = 128, width: int = 32) -> bytes:
    n = Net("unet")
    x = n.input("x", (1, 3, size, size))
    skips = []
    for level in range(4):
        x = n.conv(n.conv(x, width << level, act="relu"), width << level, act="relu")
        skips.append(x)
        x = n.pool(x)
    x = n.conv(n.conv(x, width << 4, act="relu"), width << 4, act="relu")
    for level in reversed(range(4)):
        c, out = n.channels[x], width << level
        w = (n.rng.standard_normal((c, out, 2, 2)) * np.sqrt(1.0 / c)).astype(np.float32)
        up = n.node("ConvTranspose", x, n.weight(w), kernel_shape=[2, 2], strides=[2, 2])
        x = n.node("Concat", skips[level], up, axis=1)
        n.channels[x] = out * 2
        x = n.conv(n.conv(x, out, act="relu"), out, act="relu")
    n.output(n.node("Sigmoid", n.conv(x, 2, 1)))
    return n.finish()


def yolo(size: int = 320, classes: int = 20) -> bytes:
    """In the manner of YOLOv3-tiny: leaky convolutions, one upsampled branch, two detection grids decoded."""
    n = Net("yolo")
    x = n.input("x", (1, 3, size, size))
    keep = x
    for i, out in enumerate((16, 32, 64, 128, 256, 512)):
        x = n.conv(x, out, 3, bn=True, act="leaky")
        if i == 4:
            keep = x
        if i < 5:
            x = n.pool(x)
    x = n.conv(x, 1024, 3, bn=True, act="leaky")
    mid = n.conv(x, 256, 1, bn=True, act="leaky")
    heads = [n.conv(n.conv(mid, 512, 3, bn=True, act="leaky"), 3 * (5 + classes), 1)]
    up = n.conv(mid, 128, 1, bn=True, act="leaky")
    scales = n.weight(np.array([1, 1, 2, 2], np.float32), "scales")
    up = n.same(n.node("Resize", up, "", scales, mode="nearest", nearest_mode="floor",
                       coordinate_transformation_mode="asymmetric"), up)  # fmt: skip
    both = n.node("Concat", up, keep, axis=1)
    n.channels[both] = 128 + 256
    heads.append(n.conv(n.conv(both, 256, 3, bn=True, act="leaky"), 3 * (5 + classes), 1))
    flat = []
    for head, cells in zip(heads, (size // 32, size // 16), strict=True):
        shape = n.weight(np.array([1, 3, 5 + classes, cells * cells], np.int64), "shape")
        y = n.node("Transpose", n.node("Reshape", head, shape), perm=[0, 1, 3, 2])
        y = n.node("Sigmoid", y)
        flat.append(n.node("Reshape", y, n.weight(np.array([1, -1, 5 + classes], np.int64), "shape")))
    n.output(n.node("Concat", *flat, axis=1))
    return n.finish()


# ------------------------------------------------------------ small and sequential models


def mlp(sizes: Sequence[int] = (20, 64, 32, 4), seed: int = 1) -> bytes:
    n = Net("mlp", seed)
    x = n.input("x", (1, sizes[0]))
    for i, (k, m) in enumerate(itertools.pairwise(sizes)):
        x = n.dense(x, k, m, "relu" if i < len(sizes) - 2 else "")
    n.output(n.node("Softmax", x, axis=1))
    return n.finish()


def autoencoder(sizes: Sequence[int] = (64, 128, 32, 8, 32, 128, 64)) -> bytes:
    n = Net("autoencoder")
    x = n.input("x", (1, sizes[0]))
    for i, (k, m) in enumerate(itertools.pairwise(sizes)):
        x = n.dense(x, k, m, "Tanh" if i < len(sizes) - 2 else "")
    n.output(x)
    return n.finish()


def cnn1d(length: int = 128, channels: int = 3, classes: int = 6, width: int = 16) -> bytes:
    n = Net("cnn1d")
    x = n.input("x", (1, channels, length))
    for out, k, s in ((width, 7, 2), (width * 2, 5, 2), (width * 4, 3, 2)):
        c = n.channels[x]
        w = (n.rng.standard_normal((out, c, k)) * np.sqrt(2.0 / (c * k))).astype(np.float32)
        b = n.weight((n.rng.standard_normal(out) * 0.1).astype(np.float32), "b")
        x = n.node("Conv", x, n.weight(w), b, kernel_shape=[k], strides=[s], pads=[k // 2, k // 2])
        n.channels[x] = out
        x = n.act(x, "relu")
    n.output(n.head(x, classes))
    return n.finish()


def recurrent(kind: str = "GRU", steps: int = 32, features: int = 8, hidden: int = 32, classes: int = 4) -> bytes:
    n = Net(kind.lower())
    gates = {"GRU": 3, "LSTM": 4, "RNN": 1}[kind]
    x = n.node("Transpose", n.input("x", (1, steps, features)), perm=[1, 0, 2])
    r = n.rng
    w = n.weight((r.standard_normal((1, gates * hidden, features)) / np.sqrt(features)).astype(np.float32))
    u = n.weight((r.standard_normal((1, gates * hidden, hidden)) / np.sqrt(hidden)).astype(np.float32))
    b = n.weight((r.standard_normal((1, 2 * gates * hidden)) * 0.1).astype(np.float32), "b")
    extra = {"linear_before_reset": 1} if kind == "GRU" else {}
    n.node(kind, x, w, u, b, outputs=2, hidden_size=hidden, **extra)
    last = n.nodes[-1].output[1]
    y = n.node("Squeeze", last, n.weight(np.array([0], np.int64), "axes"))
    n.output(n.node("Softmax", n.dense(y, hidden, classes), axis=1))
    return n.finish()


def transformer(steps: int = 64, width: int = 128, heads: int = 4, layers: int = 2, inner: int = 512) -> bytes:
    """An encoder as PyTorch exports it: separate projections, erf GELU, LayerNormalization."""
    n = Net("transformer")
    x = n.input("x", (1, steps, width))
    d = width // heads

    def linear(x: str, k: int, m: int) -> str:
        w = (n.rng.standard_normal((k, m)) * np.sqrt(1.0 / k)).astype(np.float32)
        b = (n.rng.standard_normal(m) * 0.1).astype(np.float32)
        return n.node("Add", n.node("MatMul", x, n.weight(w)), n.weight(b, "b"))

    def norm(x: str) -> str:
        scale = n.weight((1 + 0.1 * n.rng.standard_normal(width)).astype(np.float32), "g")
        shift = n.weight((0.1 * n.rng.standard_normal(width)).astype(np.float32), "b")
        return n.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-5)

    split = n.weight(np.array([1, steps, heads, d], np.int64), "shape")
    join = n.weight(np.array([1, steps, width], np.int64), "shape")
    for _ in range(layers):
        q, k, v = (n.node("Reshape", linear(x, width, width), split) for _ in range(3))
        q, v = (n.node("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
        k = n.node("Transpose", k, perm=[0, 2, 3, 1])
        score = n.node("Mul", n.node("MatMul", q, k), n.weight(np.float32(1 / np.sqrt(d)), "s"))
        a = n.node("MatMul", n.node("Softmax", score, axis=-1), v)
        a = n.node("Reshape", n.node("Transpose", a, perm=[0, 2, 1, 3]), join)
        x = norm(n.node("Add", x, linear(a, width, width)))
        h = linear(x, width, inner)
        e = n.node("Add", n.node("Erf", n.node("Div", h, n.weight(np.float32(np.sqrt(2)), "s"))),
                   n.weight(np.float32(1), "s"))  # fmt: skip
        h = n.node("Mul", n.node("Mul", h, e), n.weight(np.float32(0.5), "s"))
        x = norm(n.node("Add", x, linear(h, inner, width)))
    n.output(x)
    return n.finish()


# ------------------------------------------------------------ the light models of the onnx package

LIGHT = (
    "bvlc_alexnet",
    "squeezenet",
    "shufflenet",
    "resnet50",
    "inception_v1",
    "densenet121",
    "vgg19",
)


# Nets grow their numbers differently; these bring what enters the last softmax to a telling size.
HEADS = {"resnet50": 0.001, "shufflenet": 0.0001, "inception_v1": 30.0}


def light(name: str, seed: int = 1) -> bytes:
    """A light model with seeded weights in place of its generated ones, scaled as trained weights are."""
    import onnx
    from onnx import numpy_helper

    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = onnx.load(str(folder / f"light_{name}.onnx"))
    rng = np.random.default_rng(seed)
    role = {}
    for node in model.graph.node:
        for place, used in enumerate(node.input):
            role.setdefault(used, (node.op_type, place))
    made = {n.output[0]: n for n in model.graph.node if n.op_type in {"ConstantOfShape", "Constant"}}
    fixed = {t.name: t for t in model.graph.initializer}
    drop = []
    for used, (op, place) in role.items():
        shape = _constant_shape(used, made, fixed)
        if shape is None or op == "Reshape":
            continue
        array = _draw(rng, op, place, shape)
        if array is None:
            continue
        if op == "Gemm":
            array = array * HEADS.get(name, 1.0)
        if used in fixed:
            model.graph.initializer.remove(fixed[used])
        else:
            drop.append(made[used])
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), used))
        if model.ir_version < 4 and used not in {i.name for i in model.graph.input}:
            model.graph.input.append(onnx.helper.make_tensor_value_info(used, 1, list(shape)))
    for node in drop:
        model.graph.node.remove(node)
    return model.SerializeToString()


def _constant_shape(name: str, made: dict, fixed: dict) -> tuple[int, ...] | None:
    from onnx import numpy_helper

    if name in fixed:
        tensor = fixed[name]
        return tuple(tensor.dims) if tensor.data_type == 1 else None
    node = made.get(name)
    if node is None:
        return None
    if node.op_type == "Constant":
        array = numpy_helper.to_array(node.attribute[0].t)
        return tuple(array.shape) if array.dtype == np.float32 else None
    source = fixed.get(node.input[0])
    if source is None:
        return None
    return tuple(int(d) for d in numpy_helper.to_array(source))


def _draw(rng: np.random.Generator, op: str, place: int, shape: tuple[int, ...]) -> np.ndarray | None:
    if op in {"Conv", "Gemm", "MatMul", "FC"} and place == 1:
        fan = int(np.prod(shape[1:])) if op == "Conv" else max(shape)
        return rng.standard_normal(shape) * np.sqrt(2.0 / max(1, fan))
    if op in {"Conv", "Gemm"} and place == 2:
        return rng.standard_normal(shape) * 0.1
    if op == "BatchNormalization":
        return (1 + 0.1 * rng.random(shape)) if place in {1, 4} else 0.1 * rng.standard_normal(shape)
    if op in {"Mul", "Add", "Sum"} and shape:
        return 1 + 0.1 * rng.standard_normal(shape) if op == "Mul" else 0.1 * rng.standard_normal(shape)
    return None


CNNS: dict[str, Callable[[], bytes]] = {
    **{name: (lambda name=name: light(name)) for name in LIGHT},
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "unet": unet,
    "yolo": yolo,
}
SMALL: dict[str, Callable[[], bytes]] = {
    "mlp_7k": mlp,
    "mlp_34k": lambda: mlp((64, 128, 64, 10)),
    "autoencoder_41k": autoencoder,
    "mlp_200k": lambda: mlp((128, 384, 128, 10)),
    "mlp_1m": lambda: mlp((784, 512, 256, 10)),
    "cnn1d": cnn1d,
    "gru": lambda: recurrent("GRU"),
    "lstm": lambda: recurrent("LSTM"),
}
OTHERS: dict[str, Callable[[], bytes]] = {"transformer": transformer}
ZOO: dict[str, Callable[[], bytes]] = {**CNNS, **SMALL, **OTHERS}
