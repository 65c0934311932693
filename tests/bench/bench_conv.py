"""Convolutions of known networks, compiled for this machine, against ONNX Runtime: one thread, no network around.

Every figure is the time ONNX Runtime takes for a graph of that one convolution (with bias), on bound arrays,
divided by ours, the kernel called through ctypes: the least over rounds that take turns in one process. Ours are
channel-last, theirs channel-first, each as networks use them; ONNX Runtime reorders its layout inside such a graph
on every call, which a whole network spares it, so a ratio here is an upper bound of what a network gains. Results
are compared first. ``--tune SECONDS --write FILE`` measures schedules for all shapes and writes them down.
Exit 0: all bars hold; 1: one falls short; 2: could not run.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from fleetui.workshop.graph.ir import Graph
from fleetui.workshop.schedules import conv, fuse
from fleetui.workshop.schedules.database import Database
from fleetui.workshop.schedules.rules import Context
from fleetui.workshop.targets.host import host
from tests.helpers.conv import Case, graph_of
from tests.helpers.kernels import Compiled

TOLERANCE = 1e-4
BATCH = 12
"""Shapes that are compiled together."""


@dataclass(frozen=True)
class Layer:
    """A square convolution, padded so that size shrinks by the stride alone."""

    network: str
    c: int
    m: int
    size: int
    kernel: int
    stride: int = 1
    groups: int = 1
    quick: bool = False

    @property
    def name(self) -> str:
        groups = f"g{self.groups}" if self.groups > 1 else ""
        return f"{self.network} {self.c}-{self.m}{groups} {self.size} k{self.kernel}s{self.stride}"

    @property
    def case(self) -> Case:
        pad = self.kernel // 2
        return Case(
            h=self.size, w=self.size, c=self.c, m=self.m, groups=self.groups, kernel=(self.kernel,) * 2,
            strides=(self.stride,) * 2, pads=((pad, pad),) * 2, first=self.c == 3,
        )  # fmt: skip

    @property
    def flops(self) -> float:
        out = -(-self.size // self.stride)
        return 2.0 * out * out * self.kernel**2 * self.c // self.groups * self.m


def _nine() -> Iterator[Layer]:
    for c, m, size, kernel, stride, groups in (
        (64, 64, 56, 3, 1, 1), (256, 64, 56, 1, 1, 1), (64, 256, 56, 1, 1, 1), (512, 512, 7, 3, 1, 1),
        (256, 256, 14, 3, 1, 1), (1024, 256, 14, 1, 1, 1), (128, 128, 56, 3, 2, 1), (512, 512, 14, 3, 1, 512),
        (64, 64, 112, 3, 1, 64),
    ):  # fmt: skip
        yield Layer("nine", c, m, size, kernel, stride, groups, quick=True)


def _layers() -> list[Layer]:
    found = list(_nine())
    found.append(Layer("resnet", 3, 64, 224, 7, 2, quick=True))
    for c, size in ((64, 56), (128, 28), (256, 14), (512, 7)):
        found.append(Layer("resnet", c, c, size, 3))
        found.append(Layer("resnet", c, 4 * c, size, 1, quick=size == 7))
        found.append(Layer("resnet", 4 * c, c, size, 1))
        if size > 7:
            found.append(Layer("resnet", 4 * c, 2 * c, size, 1))
            found.append(Layer("resnet", 4 * c, 8 * c, size, 1, 2, quick=size == 28))
            found.append(Layer("resnet", 2 * c, 2 * c, size, 3, 2))
    found.append(Layer("mobilenet", 3, 32, 224, 3, 2, quick=True))
    for c, size, stride in ((32, 112, 1), (96, 112, 2), (144, 56, 1), (192, 28, 1), (384, 14, 1), (960, 7, 1)):
        found.append(Layer("mobilenet", c, c, size, 3, stride, c, quick=size == 56))
    for c, m, size in ((32, 16, 112), (16, 96, 112), (24, 144, 56), (192, 32, 28), (64, 384, 14), (160, 960, 7)):
        found.append(Layer("mobilenet", c, m, size, 1, quick=size in {28, 56}))
    found.append(Layer("mobilenet", 240, 240, 28, 5, 1, 240))
    for c, m, size in (
        (64, 64, 224),
        (128, 128, 112),
        (256, 256, 56),
        (256, 512, 28),
        (512, 512, 28),
        (512, 512, 14),
    ):
        found.append(Layer("vgg", c, m, size, 3, quick=size in {14, 112}))
    for c, m, size, groups in ((24, 68, 28, 4), (272, 68, 28, 4), (68, 272, 28, 4), (544, 136, 14, 4)):
        found.append(Layer("shufflenet", c, m, size, 1, 1, groups, quick=size == 28))
    found.append(Layer("shufflenet", 68, 68, 28, 3, 1, 68))
    return list(dict.fromkeys(found))


def peer(graph: Graph, layer: Layer, x: np.ndarray[Any, Any]) -> tuple[Callable[[], None], np.ndarray[Any, Any]]:
    """ONNX Runtime on one thread with bound arrays, and what it computes (channel-first)."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    node = next(node for node in graph.nodes if node.op == "conv")
    w, b = node.input(1).data, node.input(2).data
    assert w is not None
    assert b is not None
    pad = layer.kernel // 2
    made = helper.make_node(
        "Conv", ["x", "w", "b"], ["y"], strides=[layer.stride] * 2, pads=[pad] * 4, group=layer.groups
    )
    model = helper.make_model(
        helper.make_graph(
            [made],
            "conv",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [
                numpy_helper.from_array(np.ascontiguousarray(w.transpose(3, 2, 0, 1)), "w"),
                numpy_helper.from_array(b, "b"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    want = session.run(None, {"x": x})[0]
    binding = session.io_binding()
    held = ort.OrtValue.ortvalue_from_numpy(x)
    out = ort.OrtValue.ortvalue_from_numpy(np.empty_like(want))
    binding.bind_ortvalue_input("x", held)
    binding.bind_ortvalue_output("y", out)
    return (lambda: session.run_with_iobinding(binding)), want


def measure(layers: list[Layer], rounds: int, database: Database | None) -> list[tuple[Layer, float, float, str]]:
    """(layer, our seconds, their seconds, our plan)"""
    found = []
    for first in range(0, len(layers), BATCH):
        for layer in layers[first : first + BATCH]:
            found.append(_one(layer, rounds, database))
            print(_line(*found[-1]), file=sys.stderr, flush=True)
    return found


def _line(layer: Layer, ours: float, theirs: float, plan: str) -> str:
    return (
        f"{layer.name:36s} {theirs / ours:5.2f}  ours {layer.flops / ours / 1e9:5.0f} GFLOP/s, "
        f"theirs {layer.flops / theirs / 1e9:5.0f}  {plan}"
    )


def _one(layer: Layer, rounds: int, database: Database | None) -> tuple[Layer, float, float, str]:
    graph = graph_of([layer.case])
    context = Context(host(), graph, database=database)

    def lower(group, _context):
        return conv.CONVOLUTION.lower(group, context)

    with Compiled(graph, lower=lower) as compiled:
        first_dims = graph.inputs[0].shape
        x = np.random.default_rng(1).standard_normal(first_dims).astype(np.float32)
        compiled.feed({graph.inputs[0].name: x})
        ours = compiled.run()[graph.outputs[0].name]
        theirs, want = peer(graph, layer, x if layer.case.first else np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        error = np.abs(ours.transpose(0, 3, 1, 2) - want).max() / np.abs(want).max()
        if not error <= TOLERANCE:
            raise SystemExit(f"{layer.name}: differs by {error:.1e}")
        kernel = compiled.kernels[0]
        function, pointers = compiled.library.function(kernel), compiled.pointers(kernel)
        times = [float("inf"), float("inf")]
        for _ in range(rounds):
            for which, call in enumerate((lambda: function(*pointers, 0, kernel.extent), theirs)):
                for _repeat in range(3):
                    begin = time.perf_counter()
                    call()
                    times[which] = min(times[which], time.perf_counter() - begin)
        return layer, times[0], times[1], str(kernel.detail["plan"])


def tune_all(layers: list[Layer], seconds: float, path: Path) -> None:
    """Measure schedules for every shape, warm and cold, and write what is found."""
    from fleetui.workshop.schedules.tune import tune

    database = Database.load(path, with_shipped=False)
    for cold in (False, True):
        for first in range(0, len(layers), BATCH):
            part = layers[first : first + BATCH]
            graph = graph_of([layer.case for layer in part])
            groups = [group for group in fuse.partition(graph, host()) if group.anchor.op == "conv"]
            context = Context(host(), graph, database=database)
            if cold != conv.wish_of(context).cold:
                continue
            print(tune(groups, context, seconds * len(part) / len(layers)), file=sys.stderr, flush=True)
            database.save()


def figures(found: list[tuple[Layer, float, float, str]]) -> list[dict[str, Any]]:
    ratios = {layer.name: theirs / ours for layer, ours, theirs, _ in found}
    least = min(ratios, key=ratios.__getitem__)
    mean = exp(sum(log(ratio) for ratio in ratios.values()) / len(ratios))
    made = [
        {"name": name, "value": round(ratio, 3), "unit": "x", "bar": 0.9, "holds": ratio >= 0.9}
        for name, ratio in ratios.items()
    ]
    made.append({"name": f"least ({least})", "value": round(ratios[least], 3), "unit": "x", "bar": 0.9,
                 "holds": ratios[least] >= 0.9})  # fmt: skip
    made.append({"name": "geometric mean", "value": round(mean, 3), "unit": "x", "bar": 1.2, "holds": mean >= 1.2})
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="the nine shapes of the study and a few of each network"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plain", action="store_true", help="without the schedule database")
    parser.add_argument("--tune", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--write", type=Path, metavar="FILE", help="where --tune writes its database")
    args = parser.parse_args()
    try:
        import onnxruntime
        import tvm
    except ImportError as error:
        print(f"could not run: {error}", file=sys.stderr)
        return 2
    layers = [layer for layer in _layers() if layer.quick or not args.quick]
    if args.tune:
        if args.write is None:
            parser.error("--tune needs --write")
        tune_all(layers, args.tune, args.write)
    database = None if args.plain else Database.load(args.write)
    made = figures(measure(layers, 8 if args.quick else 15, database))
    versions = {
        "python": platform.python_version(), "onnxruntime": onnxruntime.__version__, "tvm": tvm.__version__,
        "numpy": np.__version__, "cpu": host().title,
    }  # fmt: skip
    if args.json:
        print(json.dumps({"bench": "conv", "versions": versions, "figures": made}))
    else:
        for figure in made[-2:]:
            print(f"{figure['name']}: {figure['value']} (bar {figure['bar']})")
    return 0 if all(figure["holds"] for figure in made) else 1


if __name__ == "__main__":
    raise SystemExit(main())
