"""Dense layers, products, attention and recurrent networks, compiled for this machine, against ONNX Runtime.

Every figure is the time of ONNX Runtime on a graph of that one operator divided by ours, both called from Python on
bound or given arrays, one thread, the least over rounds that take turns in one process. Results are compared first.
Bars follow the size: 10 below 5e4 operations, 3 to 3e5, 1 above. Exit 0: all bars hold; 1: one falls short; 2:
could not run.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    name: str
    model: Callable[[np.random.Generator], Any]
    flops: int
    quick: bool = True

    @property
    def bar(self) -> float:
        return 10.0 if self.flops < 5e4 else 3.0 if self.flops < 3e5 else 1.0


def _model(
    nodes: list[Any], inputs: dict[str, tuple[int, ...]], outputs: list[str], weights: dict[str, Any]
) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        nodes,
        "case",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _weights(rng: np.random.Generator, *shape: int) -> Any:
    return (rng.standard_normal(shape) / np.sqrt(shape[-2] if len(shape) > 1 else 4)).astype(np.float32)


def dense(rows: int, depth: int, columns: int, quick: bool = True) -> Case:
    def make(rng: np.random.Generator) -> Any:
        from onnx import helper

        weights = {"w": _weights(rng, depth, columns), "b": _weights(rng, columns)}
        return _model([helper.make_node("Gemm", ["x", "w", "b"], ["y"])], {"x": (rows, depth)}, ["y"], weights)

    return Case(f"dense {rows}x{depth}x{columns}", make, 2 * rows * depth * columns, quick)


def perceptron(*sizes: int) -> Case:
    def make(rng: np.random.Generator) -> Any:
        from onnx import helper

        nodes, weights, at = [], {}, "x"
        for i, (a, b) in enumerate(pairwise(sizes)):
            weights |= {f"w{i}": _weights(rng, a, b), f"b{i}": _weights(rng, b)}
            nodes.append(helper.make_node("Gemm", [at, f"w{i}", f"b{i}"], [f"g{i}"]))
            nodes.append(helper.make_node("Relu", [f"g{i}"], [f"r{i}"]))
            at = f"r{i}"
        return _model(nodes, {"x": (1, sizes[0])}, [at], weights)

    flops = sum(2 * a * b for a, b in pairwise(sizes))
    return Case("perceptron " + "-".join(map(str, sizes)), make, flops)


def product(*shape: int, transposed: bool = False) -> Case:
    *batch, rows, depth, columns = shape

    def make(_rng: np.random.Generator) -> Any:
        from onnx import helper

        right = (*batch, columns, depth) if transposed else (*batch, depth, columns)
        axes = [*range(len(batch)), len(batch) + 1, len(batch)]
        nodes = [helper.make_node("Transpose", ["b"], ["t"], perm=axes)] if transposed else []
        nodes.append(helper.make_node("MatMul", ["a", "t" if transposed else "b"], ["y"]))
        return _model(nodes, {"a": (*batch, rows, depth), "b": right}, ["y"], {})

    name = "matmul " + "x".join(map(str, shape)) + (" transposed" if transposed else "")
    return Case(name, make, 2 * int(np.prod(shape)))


def attention(heads: int, length: int, depth: int) -> Case:
    def make(_rng: np.random.Generator) -> Any:
        from onnx import helper

        nodes = [
            helper.make_node("Transpose", ["k"], ["t"], perm=[0, 1, 3, 2]),
            helper.make_node("MatMul", ["q", "t"], ["s"]),
            helper.make_node("Mul", ["s", "scale"], ["scaled"]),
            helper.make_node("Softmax", ["scaled"], ["p"], axis=-1),
            helper.make_node("MatMul", ["p", "v"], ["y"]),
        ]
        shape = (1, heads, length, depth)
        weights = {"scale": np.asarray(depth**-0.5, np.float32)}
        return _model(nodes, dict.fromkeys("qkv", shape), ["y"], weights)

    return Case(f"attention {heads}x{length}x{depth}", make, 4 * heads * length * length * depth)


def recurrent(op: str, steps: int, width: int, hidden: int) -> Case:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]

    def make(rng: np.random.Generator) -> Any:
        from onnx import helper

        weights = {
            "w": _weights(rng, 1, gates * hidden, width),
            "r": _weights(rng, 1, gates * hidden, hidden),
            "b": _weights(rng, 1, 2 * gates * hidden),
        }
        node = helper.make_node(op, ["x", "w", "r", "b"], ["y"], hidden_size=hidden)
        return _model([node], {"x": (steps, 1, width)}, ["y"], weights)

    return Case(f"{op} T={steps} I={width} H={hidden}", make, 2 * steps * gates * hidden * (width + hidden))


CASES = [
    dense(1, 20, 64),
    dense(1, 64, 128),
    dense(1, 256, 256),
    dense(1, 784, 512),
    dense(1, 512, 10),
    dense(1, 512, 1),
    dense(8, 784, 512),
    dense(1, 4096, 4096, quick=False),
    dense(1, 25088, 4096, quick=False),
    perceptron(20, 64, 32, 4),
    perceptron(64, 128, 64, 10),
    perceptron(128, 256, 128, 10),
    perceptron(128, 512, 256, 10),
    perceptron(784, 512, 256, 10),
    dense(128, 768, 768),
    dense(128, 768, 3072),
    dense(128, 3072, 768),
    product(128, 768, 768),
    product(12, 128, 64, 128, transposed=True),
    product(12, 128, 128, 64),
    attention(12, 128, 64),
    attention(4, 32, 16),
    recurrent("LSTM", 50, 16, 32),
    recurrent("LSTM", 50, 16, 128),
    recurrent("GRU", 50, 16, 32),
    recurrent("GRU", 50, 16, 128),
]


def measure(case: Case, seconds: float, rounds: int) -> tuple[float, float]:
    """Seconds a call takes: theirs, ours."""
    import onnxruntime

    from fleetui.common.runtime import Model
    from fleetui.workshop import inspect, pipeline, targets
    from fleetui.workshop.options import Options

    rng = np.random.default_rng(3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.onnx"
        path.write_bytes(case.model(rng).SerializeToString())
        graph = inspect.sniff(path).load(path, ())
        pipeline.build_variant(graph, targets.host(), Path(folder) / "out", Options())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        peer = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feeds = {v.name: rng.standard_normal(v.shape).astype(np.float32) for v in peer.get_inputs()}
        session = Model.load(Path(folder) / "out").session()
        for name, array in feeds.items():
            session.inputs[name][...] = array
        session.call()
        want = peer.run(None, feeds)[0]
        got = next(iter(session.outputs.values()))
        error = float(np.abs(got - want).max() / np.abs(want).max())
        if not error <= TOLERANCE:
            raise RuntimeError(f"{case.name}: off by {error:.1e}")

        def spend(call: Callable[[], object], count: int) -> float:
            begin = time.perf_counter()
            for _ in range(count):
                call()
            return (time.perf_counter() - begin) / count

        def theirs() -> object:
            return peer.run(None, feeds)

        counts = [max(1, int(seconds / rounds / spend(call, 3))) for call in (theirs, session.call)]
        best = [float("inf")] * 2
        for _ in range(rounds):
            for index, call in enumerate((theirs, session.call)):
                best[index] = min(best[index], spend(call, min(counts[index], 2000)))
        return best[0], best[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer shapes, fewer rounds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default="", help="cases whose names contain this")
    args = parser.parse_args()
    import onnxruntime
    import tvm

    figures: list[dict[str, Any]] = []
    for case in CASES:
        if (args.quick and not case.quick) or args.only not in case.name:
            continue
        theirs, ours = measure(case, 0.2 if args.quick else 1.0, 7 if args.quick else 15)
        ratio = theirs / ours
        figures.append(
            {
                "name": case.name, "value": round(ratio, 3), "unit": "x", "bar": case.bar,
                "holds": ratio >= case.bar,
                "ours_us": round(ours * 1e6, 3), "onnxruntime_us": round(theirs * 1e6, 3),
                "gflops": round(case.flops / ours / 1e9, 1),
            }
        )  # fmt: skip
        if not args.json:
            last = figures[-1]
            print(
                f"{case.name:32} {ratio:7.2f}x (bar {case.bar:g})  ours {last['ours_us']:10.2f} µs,"
                f" ONNX Runtime {last['onnxruntime_us']:10.2f} µs, {last['gflops']:6.1f} GFLOP/s"
                f"{'' if last['holds'] else '   SHORT'}",
                flush=True,
            )
    if args.json:
        versions = {
            "python": platform.python_version(), "onnxruntime": onnxruntime.__version__, "tvm": tvm.__version__,
            "machine": platform.processor() or platform.machine(),
        }  # fmt: skip
        print(json.dumps({"bench": "dense", "versions": versions, "figures": figures}, indent=1))
    return 0 if all(figure["holds"] for figure in figures) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ImportError, OSError, RuntimeError) as error:
        print(f"could not run: {error}", file=sys.stderr)
        sys.exit(2)
