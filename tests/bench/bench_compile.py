"""The compiler against the frameworks its models come from: speed, parity, sizes, compile time.

    python -m tests.bench.bench_compile [--quick] [--json] [--part NAME]... [--model NAME]...

Parts: ``speed`` (each network compiled and timed beside ONNX Runtime on 1 and 2 threads, paired and interleaved in
one process), ``parity`` (networks run under qemu-user for other processors), ``cost`` (compile time and memory of
ResNet-50), ``size`` (kernels, load time, symbols of SqueezeNet), ``int8`` (size and accuracy on scikit-learn's
digits), ``tune`` (a tuned build beside the plain one; ``--tune SECONDS``). Everything goes through the command
line, in processes of their own, as a stranger would call it.

The bars hold for medians. Ratio = ONNX Runtime's time ÷ ours. Exit status: 0 every bar holds, 1 some fall short,
2 it could not run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench import zoo

QUICK = ("squeezenet", "resnet50", "mobilenet_v2", "mlp_7k", "mlp_200k", "gru", "transformer")
FOREIGN = {"aarch64": "rpi4-64", "armv7": "beaglebone-black", "riscv64": "visionfive2"}
FOREIGN_MODELS = ("mlp_7k", "autoencoder_41k", "cnn1d", "gru", "lstm", "transformer_small", "mobilenet_small")
LIBRARIES = {"libc.so.6", "libm.so.6"}


class Figures:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, value: float, unit: str, bar: str = "") -> None:
        holds = True
        if bar:
            limit = float(bar.split()[1])
            holds = value <= limit if bar.startswith("≤") else value >= limit
        self.rows.append({"name": name, "value": round(value, 6), "unit": unit, "bar": bar, "holds": holds})
        print(f"{'  ' if holds else '! '}{name:<56} {value:>12.4g} {unit:<8} {bar}", file=sys.stderr, flush=True)


class Failed(Exception):  # noqa: N818 - what became of a call
    """The command line refused; the bench says so and goes on with the next."""


def fleetui(*args: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "fleetui.cli", *args, "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failed(f"fleetui {args[0]}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else '?'}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def flops_of(path: Path) -> int:
    return int(fleetui("inspect", str(path))["flops"])


def write(folder: Path, name: str) -> Path:
    path = folder / f"{name}.onnx"
    if not path.exists():
        path.write_bytes(EXTRA[name]() if name in EXTRA else zoo.ZOO[name]())
    return path


EXTRA = {
    "transformer_small": lambda: zoo.transformer(16, 32, 4, 1, 64),
    "mobilenet_small": lambda: zoo.mobilenet_v2(64, 10),
}


def bar_of(name: str, flops: int) -> str:
    if name in zoo.CNNS:
        return "≥ 0.9"
    if name in zoo.SMALL and flops < 5e4:
        return "≥ 10"
    if name in zoo.SMALL and flops <= 3e5:
        return "≥ 3"
    return "≥ 1.0"


# ------------------------------------------------------------ the parts


def speed(figures: Figures, folder: Path, args: argparse.Namespace) -> None:
    names = args.model or (QUICK if args.quick else tuple(zoo.ZOO))
    rounds = "9" if args.quick else "25"
    ratios: dict[int, list[float]] = {1: [], 2: []}
    for name in names:
        out = folder / f"{name}.out"
        try:
            path = write(folder, name)
            record = fleetui(
                "compile", str(path), "-o", str(out), *(["--target", args.target] if args.target else [])
            )
            flops = flops_of(path)
            worst = 0.0
            for threads in (1, 2):
                found = fleetui("bench", str(out), "--threads", str(threads), "--rounds", rounds)
                worst = max(worst, found["max_error"])
                figures.add(f"{name}: {threads} thread(s), ratio", found["ratio"], "×", bar_of(name, flops))
                figures.add(f"{name}: {threads} thread(s), ours", found["ours_us"], "µs")
                figures.add(f"{name}: {threads} thread(s), {found['peer']}", found["peer_us"], "µs")
                figures.add(f"{name}: {threads} thread(s), fresh arrays", found["fresh_us"], "µs")
                if name in zoo.CNNS:
                    ratios[threads].append(found["ratio"])
            figures.add(f"{name}: largest relative difference", worst, "", "≤ 1e-4")
            figures.add(f"{name}: compile", record["variants"][0]["seconds"], "s")
            figures.add(f"{name}: FLOPs", flops, "")
        except Failed as error:
            figures.add(f"{name}: {error}", 0, "", "≥ 1")
    for threads, found in ratios.items():
        if found:
            mean = math.exp(sum(math.log(r) for r in found) / len(found))
            figures.add(f"CNNs ({len(found)}): {threads} thread(s), geometric mean", mean, "×", "≥ 1.2")


def parity(figures: Figures, folder: Path, args: argparse.Namespace) -> None:
    names = FOREIGN_MODELS[:5] if args.quick else FOREIGN_MODELS
    for name in names:
        path = write(folder, name)
        targets = [part for target in FOREIGN.values() for part in ("--target", target)]
        try:
            record = fleetui("compile", str(path), "-o", str(folder / f"{name}.foreign"), *targets)
        except Failed as error:
            figures.add(f"{name}: {error}", 0, "", "≥ 1")
            continue
        for variant in record["variants"]:
            how, error = variant["proof"]["executed"], variant["max_error"]
            figures.add(f"{name}: {variant['target']} {how}", math.inf if error is None else error, "", "≤ 1e-4")


def cost(figures: Figures, folder: Path, args: argparse.Namespace) -> None:
    del args
    path = write(folder, "resnet50")
    begin = time.perf_counter()
    record = fleetui("compile", str(path), "-o", str(folder / "resnet50.cost"))
    figures.add("ResNet-50: command, start to end", time.perf_counter() - begin, "s")
    figures.add("ResNet-50: compile, untuned", record["variants"][0]["seconds"], "s", "≤ 60")
    figures.add("ResNet-50: peak memory of the job", record["peak_bytes"] / 2**20, "MiB")
    for stage, took in record["seconds"].items():
        figures.add(f"ResNet-50: stage {stage}", took, "s")


def size(figures: Figures, folder: Path, args: argparse.Namespace) -> None:
    from fleetui.common.runtime import Model

    del args
    out = folder / "squeezenet.size"
    record = fleetui("compile", str(write(folder, "squeezenet")), "-o", str(out))
    variant = record["variants"][0]
    figures.add("SqueezeNet: kernels", variant["kernels_bytes"] / 2**20, "MiB", "≤ 1")
    figures.add("SqueezeNet: weights", variant["weights_bytes"] / 2**20, "MiB")
    figures.add("SqueezeNet: workspace", variant["workspace_bytes"] / 2**20, "MiB")
    taken = []
    for _ in range(7):
        begin = time.perf_counter()
        model = Model.load(out / variant["dir"])
        taken.append(time.perf_counter() - begin)
        del model
    figures.add("SqueezeNet: load", sorted(taken)[3] * 1e3, "ms", "≤ 5")
    kernels = str(out / variant["dir"] / "kernels")
    said = subprocess.run(["readelf", "-d", kernels], capture_output=True, text=True, check=True).stdout
    needed = {line.split("[")[1].split("]")[0] for line in said.splitlines() if "(NEEDED)" in line}
    figures.add(f"SqueezeNet: libraries beside libc and libm ({', '.join(sorted(needed))})",
                len(needed - LIBRARIES), "", "≤ 0")  # fmt: skip


def int8(figures: Figures, folder: Path, args: argparse.Namespace) -> None:
    """A convolutional and a dense classifier of scikit-learn's digits, trained here."""
    import numpy as np

    from tests.bench import trained

    del args
    x, y = trained.held_back()
    for name, (model, train) in {"digits MLP": trained.mlp(), "digits CNN": trained.cnn()}.items():
        stem = name.replace(" ", "_").lower()
        path = folder / f"{stem}.onnx"
        path.write_bytes(model)
        np.savez(folder / f"{stem}.check.npz", x=x.reshape(len(x), *train.shape[1:]), labels=y)
        np.savez(folder / f"{stem}.calibration.npz", x=train[:256])
        record = fleetui(
            "compile", str(path), "-o", str(folder / f"{stem}.out"), "--int8", "--fp16", "--w8",
            "--calibration", str(folder / f"{stem}.calibration.npz"), "--check", str(folder / f"{stem}.check.npz"),
        )  # fmt: skip
        forms = {v["optimise"]: v for v in record["variants"]}
        plain = forms["fp32"]
        for form, variant in forms.items():
            share = _bytes(variant, folder / f"{stem}.out") / _bytes(plain, folder / f"{stem}.out")
            figures.add(f"{name}: {form}: weights, of fp32's", share, "", "≤ 0.3" if form == "int8" else "")
            lost = (plain["accuracy"] - variant["accuracy"]) * 100
            figures.add(f"{name}: {form}: accuracy", variant["accuracy"] * 100, "%")
            figures.add(f"{name}: {form}: accuracy lost", lost, "points", "≤ 1" if form == "int8" else "")


def _bytes(variant: dict[str, Any], folder: Path) -> int:
    description = json.loads((folder / variant["dir"] / "model.json").read_text())
    return int(description.get("constants_bytes") or variant["weights_bytes"])


def tune(figures: Figures, folder: Path, args: argparse.Namespace) -> None:
    seconds = args.tune or (30 if args.quick else 300)
    better = 0
    names = args.model or (("squeezenet",) if args.quick else ("squeezenet", "mobilenet_v2", "unet"))
    for name in names:
        path = write(folder, name)
        before, after = folder / f"{name}.before", folder / f"{name}.after"
        fleetui("compile", str(path), "-o", str(before))
        fleetui("compile", str(path), "-o", str(after), "--tune", str(seconds))
        gain = _gain(before, after, 15 if args.quick else 41)
        better += gain > 1.02
        figures.add(f"{name}: tuned {seconds:.0f} s, plain ÷ tuned", gain, "×", "≥ 0.98")
    figures.add(f"models of {len(names)} that tuning improved by more than 2 %", better, "", "≥ 1")


def _gain(before: Path, after: Path, rounds: int) -> float:
    """Median of the plain build over the tuned one's, interleaved."""
    import statistics

    from fleetui.common.runtime import Model
    from fleetui.workshop.bench import pair

    models = [
        Model.load(f / json.loads((f / "compile.json").read_text())["variants"][0]["dir"]) for f in (after, before)
    ]
    mine, theirs = pair(models[0], models[1], rounds=rounds)
    return statistics.median(theirs) / statistics.median(mine)


PARTS = {"speed": speed, "parity": parity, "cost": cost, "size": size, "int8": int8, "tune": tune}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--part", action="append", choices=list(PARTS), default=[])
    parser.add_argument("--model", action="append", choices=[*zoo.ZOO, *EXTRA], default=[])
    parser.add_argument("--target", default="", help="compile for this instead of the machine itself")
    parser.add_argument("--tune", type=float, default=0.0)
    parser.add_argument("--keep", type=Path, help="a folder for models and results, to look at afterwards")
    args = parser.parse_args()
    try:
        import onnxruntime
        import tvm
    except ImportError as error:
        print(f"{error.name} is missing: pip install 'fleetui[compile,peers]'", file=sys.stderr)
        return 2
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="fleetui-bench-") as temporary:
        folder = args.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for part in args.part or [p for p in PARTS if not (args.quick and p == "tune")]:
            try:
                PARTS[part](figures, folder, args)
            except Failed as error:
                figures.add(f"{part}: {error}", 0, "", "≥ 1")
    if args.json:
        versions = {"onnxruntime": onnxruntime.__version__, "tvm": tvm.__version__, "cores": os.cpu_count()}
        print(json.dumps({"bench": "compile", "versions": versions, "figures": figures.rows}))
    return 0 if all(row["holds"] for row in figures.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
