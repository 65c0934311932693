"""``fleetui bench DIR``: how fast a compiled model is beside the framework it came from."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from fleetui.workshop.errors import ModelError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="what 'fleetui compile -o' wrote")
    parser.add_argument("--variant", default="", metavar="TARGET/FORM", help="(default: the first that runs here)")
    parser.add_argument("--against", default="", metavar="FRAMEWORK", help="(default: the model's own)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=0, metavar="N", help="rows a call (default: the model's own)")
    parser.add_argument("--rounds", type=int, default=15, help="blocks on either side (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from fleetui.workshop.bench import measure
    from fleetui.workshop.job import read_record

    record = read_record(args.folder)
    names = [v["dir"] for v in record["variants"]]
    wanted = args.variant or names[0]
    found = next((v for v in record["variants"] if v["dir"] == wanted), None)
    if found is None:
        raise ModelError(f"There is no variant {wanted} in {args.folder}", f"It has: {', '.join(names)}")
    result = measure(
        args.folder,
        found,
        record,
        threads=args.threads,
        rounds=max(3, args.rounds),
        against=args.against,
        rows=max(0, args.rows),
    )
    if args.json:
        print(json.dumps({"variant": wanted, **asdict(result)}, sort_keys=True))
        return 0
    print(
        f"{record['model']} {wanted}, {args.threads} thread{'s' if args.threads > 1 else ''}: "
        f"{_time(result.ours_us)} against {_time(result.peer_us)} of {result.peer}: "
        f"{result.ratio:.2f} times as fast (medians of {result.rounds} interleaved blocks; largest relative "
        f"difference {result.max_error:.1e})"
    )
    return 0


def _time(us: float) -> str:
    return f"{us:.1f} µs" if us < 1000 else f"{us / 1000:.2f} ms"
