"""Inspecting files: how long it takes, and what damaged ones do to it.

Models of every kind are written, timed through the limited process, and damaged from seeds: each damaged file must
end in a report or a sentence, within the ceilings. Files are looked at in batches in one limited process; where a
batch dies (a parser crashed, or ran out of something) its files are looked at one by one, as ``fleetui inspect``
does. Exit 0: all bars hold; 1: one falls short; 2: could not run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

import fleetui
from fleetui.common.domain.errors import OperatorError
from fleetui.workshop.errors import LimitError
from fleetui.workshop.inspect import Limits, inspect_file, sandbox, sniff
from tests.helpers.frontends import darknet_weights, dense_tflite, exported, jax_exported, others_warnings
from tests.helpers.inspecting import inner_mutations, mutations, zipped

ROOT = Path(__file__).parents[2]
BATCH = 50
LIMITS = Limits(memory=6 << 30, cpu=300, wall=400)
BAR_SECONDS = {"keras": 40.0, "h5": 40.0, "stablehlo text": 6.0, "stablehlo bytecode": 6.0}
BAR_OTHERS = 3.0
BAR_LARGE_MS = 20.0
BAR_MEMORY_MIB = 3072.0
FEWER = {"keras": 100, "h5": 100, "stablehlo bytecode": 10}
"""Divisors: TensorFlow needs a process for each file; MLIR's bytecode reader crashes so often that it does, too."""

CFG = """[net]
width=32
height=32
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
pad=1
stride=2
activation=leaky
[convolutional]
filters=14
size=1
activation=linear
[yolo]
mask=0,1
anchors=10,14, 23,27
classes=2
num=2
"""


def models(folder: Path) -> dict[str, Path]:
    """One small model of every kind that can be written here; what is not installed is left out."""
    made: dict[str, Path] = {}
    (folder / "net.cfg").write_text(CFG)
    darknet_weights(folder / "net.weights", [np.full(8 * 4 + 8 * 27 + 14 + 14 * 8, 0.1)])
    made["darknet"] = folder / "net.cfg"
    writers: dict[str, Callable[[Path], Path]] = {
        "tflite": dense_tflite, "torch": _torch, "stablehlo text": _stablehlo("text"),
        "stablehlo bytecode": _stablehlo("bytecode"), "onnx": _onnx, "keras": _keras, "h5": _keras,
    }  # fmt: skip
    endings = {"keras": ".keras", "h5": ".h5"}
    for kind, write in writers.items():
        try:
            made[kind] = write(folder / (kind.replace(" ", "-") + endings.get(kind, ".bin")))
        except ImportError as error:
            sys.stderr.write(f"{kind} is left out: {error}\n")
    return made


def _torch(path: Path) -> Path:
    import torch
    from torch import nn

    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    return exported(module, (torch.zeros(1, 3, 8, 8),), path)


def _stablehlo(form: str) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        import jax

        def network(x: Any) -> Any:
            return jax.nn.softmax(jax.nn.relu(x @ np.ones((8, 16), np.float32)) @ np.ones((16, 4), np.float32))

        return jax_exported(network, [((2, 8), "float32")], path, form)

    return write


def _onnx(path: Path) -> Path:
    import onnx

    light = Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx"
    path.write_bytes(light.read_bytes())
    return path


def _keras(path: Path) -> Path:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with others_warnings():
        import keras

        layers = keras.layers
        keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)]).save(
            path
        )
    return path


def damaged(kind: str, source: Path, folder: Path, count: int, seed: int) -> Iterator[Path]:
    """``count`` damaged copies, written one by one."""
    content = source.read_bytes()
    archived = content[:4] == b"PK\x03\x04"
    if archived:
        for number, members in enumerate(inner_mutations(source, count // 2, seed)):
            yield zipped(folder / f"inner{number}", members)
        count -= count // 2
    for number, bad in enumerate(mutations(content, count, seed + 1)):
        path = folder / f"bad{number}"
        path.write_bytes(bad)
        yield path


def batch(paths: list[str]) -> dict[str, Any]:
    """In the limited process: what becomes of each file, how long the slowest took, and the memory used."""
    from fleetui.workshop.frontends.summary import guarded

    outcomes: list[str] = []
    slowest = 0.0
    for path in map(Path, paths):
        begin = time.perf_counter()
        try:
            with guarded(path.name):  # as the process does for a single file
                sniff(path).inspect(path, ())
            outcomes.append("report")
        except OperatorError:
            outcomes.append("sentence")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
            outcomes.append(f"{type(error).__name__}: {error}"[:200])
        slowest = max(slowest, time.perf_counter() - begin)
    # Not getrusage: that counts what the parent had when it forked.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    return {"outcomes": outcomes, "slowest": slowest, "peak": peak}


def fuzz(kind: str, source: Path, count: int, seed: int) -> dict[str, Any]:
    found: Counter[str] = Counter()
    slowest, peak, alone = 0.0, 0.0, 0
    with tempfile.TemporaryDirectory(prefix="fleetui-fuzz-") as folder:
        if kind == "darknet":
            (Path(folder) / "net.weights").write_bytes(source.with_suffix(".weights").read_bytes())
        paths = list(damaged(kind, source, Path(folder), count, seed))
        waiting = [paths[at : at + BATCH] for at in range(0, len(paths), BATCH)]
        while waiting:
            part = waiting.pop()
            if len(part) > 1:
                try:
                    said = sandbox.call(
                        "tests.bench.bench_inspect:batch",
                        {"paths": [str(p) for p in part]},
                        LIMITS,
                        subject="a batch",
                    )
                except OperatorError:  # it died of one of them: of which?
                    waiting += [part[: len(part) // 2], part[len(part) // 2 :]]
                    continue
                found.update(said["outcomes"])
                slowest, peak = max(slowest, said["slowest"]), max(peak, said["peak"] / 1024)
                continue
            begin = time.perf_counter()
            alone += 1
            try:
                inspect_file(part[0], limits=LIMITS)
                found["report"] += 1
            except OperatorError:
                found["sentence"] += 1
            slowest = max(slowest, time.perf_counter() - begin)
    return {"found": found, "slowest": slowest, "peak": peak, "alone": alone}


def run(count: int, seed: int) -> list[dict[str, Any]]:
    figures: list[dict[str, Any]] = []

    def figure(name: str, value: float, unit: str, bar: float, *, least: bool = False) -> None:
        holds = value >= bar if least else value <= bar
        figures.append({"name": name, "value": round(value, 3), "unit": unit, "bar": bar, "holds": bool(holds)})

    with tempfile.TemporaryDirectory(prefix="fleetui-bench-") as text:
        folder = Path(text)
        large = folder / "large"
        with large.open("wb") as file:
            file.truncate(20 << 30)
        begin = time.perf_counter()
        try:
            inspect_file(large)
        except LimitError:
            figure("a file of 20 GB is refused", (time.perf_counter() - begin) * 1e3, "ms", BAR_LARGE_MS)
        for kind, path in models(folder).items():
            begin = time.perf_counter()
            found = inspect_file(path, limits=replace(LIMITS, wall=120))
            took = time.perf_counter() - begin
            figure(f"{kind}: a sound file, all of inspect", took, "s", BAR_SECONDS.get(kind, BAR_OTHERS))
            figure(f"{kind}: problems found in it", len(found.problems), "", 0)
            files = max(4, count // FEWER.get(kind, 1))
            said = fuzz(kind, path, files, seed)
            outcomes = said["found"]
            good = outcomes["report"] + outcomes["sentence"]
            figure(
                f"{kind}: damaged files that end in a report or a sentence", good, f"of {files}", files, least=True
            )
            figure(f"{kind}: of those, a sentence", outcomes["sentence"], "", 0, least=True)
            figure(f"{kind}: looked at alone, their batch having died", said["alone"], "", files)
            figure(f"{kind}: the slowest damaged file", said["slowest"], "s", LIMITS.wall)
            figure(f"{kind}: memory of the process", said["peak"], "MiB", BAR_MEMORY_MIB)
            for other in set(outcomes) - {"report", "sentence"}:
                sys.stderr.write(f"{kind}: {outcomes[other]} × {other}\n")
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description="Inspecting sound and damaged files")
    parser.add_argument("--quick", action="store_true", help="60 damaged files of each kind")
    parser.add_argument(
        "--fuzz", type=int, default=1000, metavar="N", help="damaged files of each kind (default: 1000)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)  # the limited process finds this file by it
    try:
        figures = run(60 if options.quick else options.fuzz, options.seed)
    except OperatorError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    versions = {"fleetui": fleetui.__version__, "numpy": np.__version__, "python": platform.python_version()}
    if options.json:
        sys.stdout.write(json.dumps({"bench": "inspect", "versions": versions, "figures": figures}) + "\n")
    else:
        for one in figures:
            mark = "ok   " if one["holds"] else "SHORT"
            sys.stdout.write(f"{mark} {one['value']:10.3f} {one['unit']:<8} {one['bar']:8}  {one['name']}\n")
    return 0 if all(one["holds"] for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
