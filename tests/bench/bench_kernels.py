"""Single kernels of the generic schedules, compiled for this machine, against ONNX Runtime.

Every figure is the time ONNX Runtime takes for a graph of that one operator, on bound arrays, divided by ours, the
kernels called through ctypes: one thread, the least over rounds that take turns in one process. Pictures are
channel-last here and channel-first there, each as networks use them. Results are compared first. The bar is 1.
Exit 0: all bars hold; 1: one falls short; 2: could not run.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Value
from tests.helpers import kernels

TOLERANCE = 1e-5
BAR = 1.0


@dataclass(frozen=True)
class Case:
    """``ours`` builds the graph from its inputs; ``theirs`` is (operator, attributes, further constant inputs)."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    ours: Callable[..., Value]
    op: str
    attrs: dict[str, Any] = field(default_factory=dict)
    constants: tuple[Any, ...] = ()
    picture: bool = False
    """Channel-last with us, channel-first with them."""
    quick: bool = True


def simple(name: str, op: str, *shapes: tuple[int, ...], quick: bool = True, **attrs: Any) -> Case:
    """An operator that has the same name and attributes here and there, but for the case of its letters."""

    def ours(b: Builder, *values: Value) -> Value:
        extra = {"approximate": False} if op == "Gelu" else attrs
        return b.op(op.lower(), *values, **extra)

    return Case(name, shapes, ours, op, attrs, quick=quick)


def pool(name: str, kind: str, shape: tuple[int, ...], kernel: int, stride: int, pad: int) -> Case:
    out = tuple((d + 2 * pad - kernel) // stride + 1 for d in shape[1:3])

    def ours(b: Builder, x: Value) -> Value:
        return b.op(
            "pool", x, kind=kind, kernel=(kernel,) * 2, strides=(stride,) * 2, pads=((pad, pad),) * 2,
            dilations=(1, 1), count_include_pad=False, out=out,
        )  # fmt: skip

    attrs = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    return Case(name, (shape,), ours, "MaxPool" if kind == "max" else "AveragePool", attrs, picture=True)


def transpose(name: str, shape: tuple[int, ...], perm: tuple[int, ...]) -> Case:
    def ours(b: Builder, x: Value) -> Value:
        return b.op("transpose", x, perm=perm)

    return Case(name, (shape,), ours, "Transpose", {"perm": list(perm)})


def concat(name: str, axis: int, *shapes: tuple[int, ...]) -> Case:
    def ours(b: Builder, *values: Value) -> Value:
        return b.op("concat", *values, axis=axis)

    return Case(name, shapes, ours, "Concat", {"axis": axis})


def reduction(name: str, kind: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> Case:
    def ours(b: Builder, x: Value) -> Value:
        return b.op("reduce", x, kind=kind, axes=axes, keepdims=True)

    return Case(name, (shape,), ours, f"Reduce{kind.title()}", {"keepdims": 1}, (np.array(axes, np.int64),))


def global_mean(name: str, shape: tuple[int, ...]) -> Case:
    def ours(b: Builder, x: Value) -> Value:
        return b.op("reduce", x, kind="mean", axes=(1, 2), keepdims=True)

    return Case(name, (shape,), ours, "GlobalAveragePool", picture=True)


def layer_norm(rows: int, width: int) -> Case:
    def ours(b: Builder, *values: Value) -> Value:
        return b.op("layer_norm", *values, axis=1, eps=1e-5)

    attrs = {"axis": 1, "epsilon": 1e-5}
    return Case(
        f"layer norm {rows}x{width}", ((rows, width), (width,), (width,)), ours, "LayerNormalization", attrs
    )


def resize(name: str, mode: str, shape: tuple[int, ...]) -> Case:
    """Twice as big, half-pixel centres or nearest below."""

    def ours(b: Builder, x: Value) -> Value:
        for axis in (1, 2):
            size = x.shape[axis]
            if mode == "nearest":
                index = (np.arange(2 * size) // 2)[:, None]
                weight = np.ones((2 * size, 1))
            else:
                at = (np.arange(2 * size) + 0.5) / 2 - 0.5
                low = np.floor(at)
                index = np.stack([low, low + 1], 1).clip(0, size - 1)
                weight = np.stack([1 - (at - low), at - low], 1)
            x = b.op(
                "interp", x, b.constant(index.astype(np.int32)), b.constant(weight.astype(np.float32)), axis=axis
            )
        return x

    transform = "asymmetric" if mode == "nearest" else "half_pixel"
    attrs = {"mode": mode, "coordinate_transformation_mode": transform, "nearest_mode": "floor"}
    return Case(name, (shape,), ours, "Resize", attrs, (None, np.array([1, 1, 2, 2], np.float32)), picture=True)


def lrn(name: str, shape: tuple[int, ...]) -> Case:
    attrs = {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}

    def ours(b: Builder, x: Value) -> Value:
        return b.op("lrn", x, **attrs)

    return Case(name, (shape,), ours, "LRN", attrs, picture=True)


def transposed_convolution(name: str, shape: tuple[int, ...], out: int, kernel: int, pad: int) -> Case:
    w = np.random.default_rng(1).standard_normal((kernel, kernel, shape[-1], out)).astype(np.float32) / 16

    def ours(b: Builder, x: Value) -> Value:
        return b.op(
            "conv_transpose", x, b.constant(w), None, strides=(2, 2), pads=((pad, pad),) * 2, dilations=(1, 1),
            output_padding=(0, 0), groups=1,
        )  # fmt: skip

    weights = np.ascontiguousarray(np.moveaxis(w, (0, 1), (2, 3)))
    return Case(
        name, (shape,), ours, "ConvTranspose", {"strides": [2, 2], "pads": [pad] * 4}, (weights,), picture=True
    )


def gather(name: str, rows: int, width: int, count: int) -> Case:
    index = np.random.default_rng(2).integers(0, rows, count)

    def ours(b: Builder, x: Value) -> Value:
        return b.op("gather", x, b.constant(index), axis=0)

    return Case(name, ((rows, width),), ours, "Gather", {"axis": 0}, (index,))


MILLION = (1000, 1000)
CASES = [
    simple("relu 1e6", "Relu", MILLION),
    simple("add 1e6", "Add", MILLION, MILLION),
    simple("mul 1e6", "Mul", MILLION, MILLION),
    simple("add bias 56x56x64", "Add", (56, 56, 64), (64,)),
    simple("sigmoid 1e6", "Sigmoid", MILLION),
    simple("tanh 1e6", "Tanh", MILLION),
    simple("gelu 128x3072", "Gelu", (128, 3072)),
    simple("softmax 64x1000", "Softmax", (64, 1000), axis=1),
    simple("softmax 1536x128", "Softmax", (1536, 128), axis=1),
    layer_norm(128, 768),
    pool("max pool 3/2 112x112x64", "max", (1, 112, 112, 64), 3, 2, 1),
    pool("max pool 3/1 14x14x512", "max", (1, 14, 14, 512), 3, 1, 1),
    pool("mean pool 3/1 14x14x512", "avg", (1, 14, 14, 512), 3, 1, 1),
    global_mean("global mean 7x7x2048", (1, 7, 7, 2048)),
    reduction("sum of rows 128x768", "sum", (128, 768), (1,)),
    reduction("max of columns 128x768", "max", (128, 768), (0,)),
    transpose("transpose 512x512", (512, 512), (1, 0)),
    transpose("channels first 56x56x64", (1, 56, 56, 64), (0, 3, 1, 2)),
    transpose("channels last 3x224x224", (1, 3, 224, 224), (0, 2, 3, 1)),
    transpose("heads 128x12x64", (1, 128, 12, 64), (0, 2, 1, 3)),
    concat("concat 512x256, 512x128", 1, (512, 256), (512, 128)),
    resize("resize bilinear 56x56x64", "linear", (1, 56, 56, 64)),
    resize("resize nearest 20x20x256", "nearest", (1, 20, 20, 256)),
    lrn("local response norm 55x55x96", (1, 55, 55, 96)),
    transposed_convolution("transposed conv 2/2 28x28x256", (1, 28, 28, 256), 128, 2, 0),
    transposed_convolution("transposed conv 4/2 56x56x64", (1, 56, 56, 64), 32, 4, 1),
    gather("gather 128 of 3000x256", 3000, 256, 128),
]


def session(case: Case, out: tuple[int, ...]) -> Any:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    def first(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], shape[-1], *shape[1:-1]) if case.picture else shape

    names = [f"x{i}" for i in range(len(case.shapes))]
    extra = ["" if c is None else f"c{i}" for i, c in enumerate(case.constants)]
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(case.op, [*names, *extra], ["y"], **case.attrs)],
        "case",
        [helper.make_tensor_value_info(n, floats, first(s)) for n, s in zip(names, case.shapes, strict=True)],
        [helper.make_tensor_value_info("y", floats, first(out))],
        [numpy_helper.from_array(c, f"c{i}") for i, c in enumerate(case.constants) if c is not None],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def measure(case: Case, seconds: float, rounds: int) -> tuple[float, float]:
    """Seconds a call takes: theirs, ours."""
    import onnxruntime

    b = Builder("case")
    inputs = [b.input(f"x{i}", shape, "float32") for i, shape in enumerate(case.shapes)]
    out = case.ours(b, *inputs)
    b.graph.outputs.append(out)
    graph = b.finish()
    feeds = kernels.random_feeds(graph)
    peer = session(case, out.shape)
    binding = peer.io_binding()
    for name, array in feeds.items():
        theirs_array = np.ascontiguousarray(np.moveaxis(array, -1, 1)) if case.picture else array
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(theirs_array))
    binding.bind_output("y")
    with kernels.Compiled(graph) as compiled:
        compiled.feed(feeds)
        got = compiled.run()[out.name]
        peer.run_with_iobinding(binding)
        want = binding.copy_outputs_to_cpu()[0]
        want = np.moveaxis(want, 1, -1) if case.picture else want
        error = float(np.abs(got - want).max() / np.abs(want).max())
        if not error <= TOLERANCE:
            raise RuntimeError(f"{case.name}: off by {error:.1e}")
        calls = [(compiled.library.function(k), [*compiled.pointers(k), 0, k.extent]) for k in compiled.kernels]

        def ours() -> None:
            for function, arguments in calls:
                function(*arguments)

        def theirs() -> None:
            peer.run_with_iobinding(binding)

        def spend(call: Callable[[], None], count: int) -> float:
            begin = time.perf_counter()
            for _ in range(count):
                call()
            return (time.perf_counter() - begin) / count

        counts = [max(1, min(2000, int(seconds / rounds / spend(call, 3)))) for call in (theirs, ours)]
        best = [float("inf")] * 2
        for _ in range(rounds):
            for index, call in enumerate((theirs, ours)):
                best[index] = min(best[index], spend(call, counts[index]))
        return best[0], best[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default="", help="cases whose names contain this")
    args = parser.parse_args()
    import onnxruntime
    import tvm

    figures: list[dict[str, Any]] = []
    for case in CASES:
        if args.only not in case.name:
            continue
        theirs, ours = measure(case, 0.15 if args.quick else 1.0, 10 if args.quick else 30)
        ratio = theirs / ours
        figures.append(
            {
                "name": case.name, "value": round(ratio, 3), "unit": "x", "bar": BAR, "holds": ratio >= BAR,
                "ours_us": round(ours * 1e6, 3), "onnxruntime_us": round(theirs * 1e6, 3),
            }
        )  # fmt: skip
        if not args.json:
            last = figures[-1]
            print(
                f"{case.name:32} {ratio:7.2f}x  ours {last['ours_us']:9.2f} µs,"
                f" ONNX Runtime {last['onnxruntime_us']:9.2f} µs{'' if last['holds'] else '   SHORT'}",
                flush=True,
            )
    if args.json:
        versions = {
            "python": platform.python_version(), "onnxruntime": onnxruntime.__version__, "tvm": tvm.__version__,
            "machine": platform.processor() or platform.machine(),
        }  # fmt: skip
        print(json.dumps({"bench": "kernels", "versions": versions, "figures": figures}, indent=1))
    return 0 if all(figure["holds"] for figure in figures) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ImportError, OSError, RuntimeError) as error:
        print(f"could not run: {error}", file=sys.stderr)
        sys.exit(2)
