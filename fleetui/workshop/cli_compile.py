"""``fleetui compile MODEL``: the options, progress on stderr, the record on stdout."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

from fleetui.workshop.errors import Stopped, WorkshopError
from fleetui.workshop.job import Request
from fleetui.workshop.options import Optimise, Options, Weights
from fleetui.workshop.progress import Step
from fleetui.workshop.runner import Ceilings, Outcome


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the model's file (or folder, for a SavedModel)")
    parser.add_argument("-o", "--out", required=True, metavar="DIR", help="where the result goes")
    parser.add_argument(
        "--target", action="append", default=[], metavar="T", help="may be repeated; 'fleetui targets' lists them"
    )
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME=SHAPE[:DTYPE]", help="settles symbolic dimensions"
    )
    parser.add_argument("--name", default="", help="the model's name (default: the file's)")
    parser.add_argument(
        "--batch", choices=["fixed", "any"], default="fixed", help="any: rows are told at each call"
    )
    smaller = parser.add_argument_group("smaller and faster (each may be combined with --prune)")
    smaller.add_argument("--fp16", action="store_true", help="also a variant with weights in 16 bits")
    smaller.add_argument("--int8", action="store_true", help="also a variant that computes in 8 bits")
    smaller.add_argument("--w8", action="store_true", help="also a variant with weights in 8 bits")
    smaller.add_argument("--w4", action="store_true", help="also a variant with weights in 4 bits")
    smaller.add_argument(
        "--prune", type=_share, default=0.0, metavar="P", help="also with this share of weights zero"
    )
    smaller.add_argument("--only", action="store_true", help="leave out the plain fp32 variant")
    smaller.add_argument("--calibration", default="", metavar="DATA", help="npz of inputs, for --int8")
    parser.add_argument(
        "--check", default="", metavar="DATA", help="npz of inputs and labels: accuracy is measured"
    )
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest relative error (%(default)g)")
    parser.add_argument(
        "--goal", default="", metavar="GOALS", help="recommend within limits: latency=20ms,size=2MB,accuracy=95%%"
    )
    parser.add_argument(
        "--tune", type=float, default=0.0, metavar="SECONDS", help="measure schedules on this machine"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads to schedule for (%(default)s)")
    parser.add_argument("--memory", type=float, default=0.0, metavar="GIB", help="ceiling of the job")
    parser.add_argument(
        "--timeout", type=float, default=3600.0, metavar="S", help="ceiling of the job (%(default)g)"
    )
    parser.add_argument("--base-dir", metavar="DIR", help="where measured schedules are kept")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from fleetui.common.basedir import BaseDir
    from fleetui.common.child import on_signals
    from fleetui.workshop import runner

    schedules = BaseDir.at(args.base_dir).root / "schedules.jsonl"
    request = Request(args.model, args.out, options_of(args), str(schedules))
    stop = threading.Event()
    on_signals(stop.set)
    ceilings = Ceilings(int(args.memory * (1 << 30)), args.timeout + args.tune)
    screen = _Screen(sys.stderr)
    try:
        outcome = runner.run(request, screen.step, stop, ceilings)
    except Stopped:
        screen.clear()
        print("fleetui: stopped; nothing was written.", file=sys.stderr)
        return 1
    except WorkshopError:
        screen.clear()
        raise
    screen.clear()
    if args.json:
        print(json.dumps({**outcome.record, "peak_bytes": outcome.peak_bytes}, sort_keys=True))
    else:
        print(table(outcome, Path(args.out)))
    return 0


def options_of(args: argparse.Namespace) -> Options:
    from fleetui.workshop.inspect.specs import parse_inputs

    wishes = [] if args.only else [Optimise(Weights.FP32)]
    kinds = {Weights.FP16: args.fp16, Weights.INT8: args.int8, Weights.W8: args.w8, Weights.W4: args.w4}
    wishes += [Optimise(kind) for kind, wanted in kinds.items() if wanted]
    if args.prune:
        wishes += [Optimise(w.weights, args.prune) for w in list(wishes)] or [Optimise(Weights.FP32, args.prune)]
    if not wishes:
        raise WorkshopError("--only leaves nothing to make", "Name a form: --fp16, --int8, --w8, --w4 or --prune")
    return Options(
        targets=tuple(dict.fromkeys(args.target or ["host"])),
        inputs=parse_inputs(args.input),
        optimise=tuple(wishes),
        calibration=args.calibration,
        check=args.check,
        tune=args.tune,
        any_batch=args.batch == "any",
        threads=args.threads,
        tolerance=args.tolerance,
        name=args.name,
        goal=args.goal,
    )


def table(outcome: Outcome, out: Path) -> str:
    """The variants, one a line, for people."""
    record = outcome.record
    rows = [("target", "form", "size", "packed", "workspace", "latency", "max error", "agreement", "accuracy")]
    rows += [
        (
            v["target"],
            v["optimise"],
            size(v["kernels_bytes"] + v["weights_bytes"]),
            size(v["packed_bytes"]),
            size(v["workspace_bytes"]),
            ("" if v["latency_from"] == "measured" else "~") + duration(v["latency_us"]),
            number(v["max_error"], ".1e"),
            number(v["agreement"], ".1%"),
            number(v["accuracy"], ".1%"),
        )
        for v in record["variants"]
    ]
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            str(c).ljust(w) if i < 2 else str(c).rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))
        )
        for r in rows
    ]
    lines += [f"note: {v['target']}/{v['optimise']}: {w}" for v in record["variants"] for w in v["warnings"]]
    if any(v["latency_from"] != "measured" for v in record["variants"]):
        lines.append("~ an estimate from data sheets, until a device has measured it")
    if record["advice"]:
        lines.append(record["advice"]["sentence"])
    lines.append(f"{record['model']}: {out} in {outcome.seconds:.1f} s. Next: fleetui bench {out}")
    return "\n".join(lines)


def size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def duration(us: float) -> str:
    return f"{us:.1f} µs" if us < 1000 else f"{us / 1000:.1f} ms"


def number(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)


def _share(text: str) -> float:
    value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError("a share between 0 and 1, or 10% to 95%")
    return value


class _Screen:
    """One line that is written over, on a terminal; a line for each finished stage elsewhere."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.terminal, self.width = out, out.isatty(), 0

    def step(self, step: Step) -> None:
        where = f"{step.variant}: " if step.variant else ""
        if not self.terminal:
            if step.finished:
                self.out.write(f"{where}{step.stage.value}: {step.seconds:.1f} s\n")
            return
        share = f" {step.done}/{step.total}" if step.total > 1 else ""
        text = f"{where}{step.stage.value}{share} {step.detail}"[:100]
        self.out.write("\r" + text.ljust(self.width))
        self.out.flush()
        self.width = len(text)

    def clear(self) -> None:
        if self.terminal:
            self.out.write("\r" + " " * self.width + "\r")
            self.out.flush()
