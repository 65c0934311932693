"""What calling a compiled model costs from Python: loading, a bound call, arrays in and out, waking the pool.

The small networks run beside ONNX Runtime in the same process, in turns, medians over rounds. "bound" calls on
buffers filled beforehand, "fed" copies the input in first (what an application does), "run" takes and gives arrays.
Exit 0: all bars hold; 1: one falls short; 2: could not run.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

import fleetui
from fleetui.common.runtime import Model, Pool
from fleetui.common.runtime.binding import Host
from fleetui.workshop import targets
from tests.bench import zoo
from tests.helpers.compiled import build, mlp

LOAD_MS = 5.0
CALL_NS = 150.0
WAKE_US = 10.0
SMALL = {"7k": ((20, 64, 32, 4), 10.0), "34k": ((64, 128, 64, 10), 10.0), "400k": ((128, 512, 256, 10), 1.0)}


def figure(name: str, value: float, unit: str, bar: str, holds: bool) -> dict[str, Any]:
    return {"name": name, "value": round(value, 4), "unit": unit, "bar": bar, "holds": holds}


def timed(call: Callable[[], object], block_s: float = 2e-3) -> Callable[[], float]:
    """Seconds a call, over a block of about so many seconds."""
    call()
    begin = time.perf_counter()
    call()
    count = max(1, round(block_s / max(time.perf_counter() - begin, 1e-7)))

    def once() -> float:
        start = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - start) / count

    return once


def in_turns(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    blocks = {name: timed(call) for name, call in calls.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name in sorted(blocks, reverse=bool(turn % 2)):
            took = blocks[name]()
            if turn:
                found[name].append(took)
    return found


def loading(folder: Path, rounds: int) -> list[dict[str, Any]]:
    figures = []
    for name, sizes in {"tiny": (4, 8, 2), "64 MiB of weights": (4096, 4096, 4)}.items():
        place = build(mlp(sizes), folder / name.split()[0]).dir
        took = []
        for _ in range(rounds):
            begin = time.perf_counter()
            model = Model.load(place)
            took.append(time.perf_counter() - begin)
            del model
        value = statistics.median(took) * 1e3
        figures.append(figure(f"load, {name}", value, "ms", f"≤ {LOAD_MS}", value <= LOAD_MS))
    return figures


def calling(folder: Path, rounds: int) -> list[dict[str, Any]]:
    model = Model.load(build(mlp((1, 1)), folder / "least").dir)
    x = {"x": np.ones((1, 1), np.float32)}
    found = in_turns({"call": model.call, "model()": model, "run": lambda: model.run(x)}, rounds)
    bars = {"call": CALL_NS, "model()": CALL_NS * 1.5}
    figures = []
    for name, took in found.items():
        value = statistics.median(took) * 1e9
        bar = bars.get(name)
        figures.append(
            figure(f"least model, {name}", value, "ns", f"≤ {bar}" if bar else "", bar is None or value <= bar)
        )
    return figures


def beside_onnxruntime(folder: Path, rounds: int) -> list[dict[str, Any]]:
    import onnxruntime

    from fleetui.workshop import inspect

    figures = []
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    for name, (sizes, least) in SMALL.items():
        path = folder / f"{name}.onnx"
        path.write_bytes(zoo.mlp(sizes))
        peer = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        model = Model.load(build(inspect.sniff(path).load(path, ()), folder / name).dir)
        feeds = {p.name: np.random.default_rng(0).standard_normal(p.shape).astype(p.dtype) for p in model.ports}
        want, have = peer.run(None, feeds)[0], next(iter(model.run(feeds).values()))
        assert np.allclose(want, have, rtol=1e-4, atol=1e-6), f"{name} disagrees with ONNX Runtime"
        (given,) = feeds.values()
        place = model.inputs[model.ports[0].name]

        def fed(place: Any = place, given: Any = given, call: Callable[[], None] = model.call) -> None:
            place[...] = given
            call()

        found = in_turns(
            {
                "bound": model.call,
                "fed": fed,
                "run": lambda model=model, feeds=feeds: model.run(feeds),
                "peer": lambda peer=peer, feeds=feeds: peer.run(None, feeds),
            },
            rounds,
        )
        middle = {key: statistics.median(took) for key, took in found.items()}
        for key in ("bound", "fed", "run"):
            ratio = middle["peer"] / middle[key]
            bar = least if key == "fed" else 0.0
            figures.append(
                figure(
                    f"{name} FLOPs, {key}, ONNX Runtime ÷ ours ({middle[key] * 1e6:.2f} µs)", ratio, "×",
                    f"≥ {bar}" if bar else "", ratio >= bar,
                )
            )  # fmt: skip
    return figures


def pooling(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Fork and join of nothing, and one wide layer on all processors against one."""
    threads = max(2, min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2))
    place = build(mlp((12_000, 1024, 9_000), name="wide"), folder / "wide", threads=threads).dir
    alone = Model.load(place)
    with Pool(threads) as pool:
        model = Model.load(place, pool=pool)
        host = Host.from_address(pool.host(model.library))
        split = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32
        )(host.parallel_for)  # fmt: skip
        nothing = model.library.address("abi")
        found = in_turns(
            {
                "serial": lambda: split(host.ctx, nothing, None, 1),
                "forked": lambda: split(host.ctx, nothing, None, threads),
                "alone": alone,
                "together": model,
            },
            rounds,
        )
    least = {key: min(took) for key, took in found.items()}
    wake = (least["forked"] - least["serial"]) * 1e6
    gain = least["alone"] / least["together"]
    return [
        figure(f"fork and join of {threads} threads", wake, "µs", f"≤ {WAKE_US}", wake <= WAKE_US),
        figure(f"wide layers, one thread ÷ {threads} threads", gain, "×", "", True),
    ]


def run(quick: bool) -> list[dict[str, Any]]:
    rounds = 15 if quick else 60
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        figures = calling(folder, rounds)
        figures += loading(folder, rounds)
        figures += beside_onnxruntime(folder, rounds)
        return figures + pooling(folder, rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description="What calling a compiled model costs")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    try:
        import onnxruntime

        figures = run(options.quick)
    except (AssertionError, ImportError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    versions = {
        "fleetui": fleetui.__version__, "numpy": np.__version__, "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__, "target": targets.find("host").cpu,
    }  # fmt: skip
    if options.json:
        sys.stdout.write(json.dumps({"bench": "runtime", "versions": versions, "figures": figures}) + "\n")
    else:
        for one in figures:
            mark = "ok   " if one["holds"] else "SHORT"
            sys.stdout.write(f"{mark} {one['value']:10.3f} {one['unit']:3} {one['bar']:9} {one['name']}\n")
    return 0 if all(one["holds"] for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
