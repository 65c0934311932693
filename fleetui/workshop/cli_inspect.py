"""``fleetui inspect FILE``: what a model is and costs, and what stands in the way of compiling it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fleetui.workshop.inspect import Limits, inspect_file, parse_inputs, report


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a model's file, or a SavedModel's folder")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=SHAPE[:DTYPE]",
        help="settle an input's shape, e.g. data=1x3x224x224:float32 (once for each input)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    path = Path(args.file)
    found = inspect_file(path, parse_inputs(args.input), Limits())
    if args.json:
        print(json.dumps({"file": str(path), **report.to_json(found), "next": report.advice(found, path.name)}))
    else:
        print("\n".join(report.lines(found, path.name)))
    return 0
