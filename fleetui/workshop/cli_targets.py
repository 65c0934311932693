"""``fleetui targets``: what can be compiled for, and where this machine cannot, why."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", default="", metavar="TARGET", help="all about one target")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from fleetui.workshop import targets

    found = [targets.find(args.name)] if args.name else list(targets.all_targets().values())
    if args.json:
        print(json.dumps({"targets": [asdict(t) for t in found]}, sort_keys=True, default=str))
        return 0
    if args.name:
        for key, value in asdict(found[0]).items():
            if value not in ("", (), {}, None):
                print(f"{key:<12} {', '.join(value) if isinstance(value, tuple) else value}")
        return 0
    width = max(len(t.name) for t in found)
    for target in found:
        vector = f"{target.vector * 8}-bit vectors" if target.vector else "no vectors"
        reason = f"  (not on this machine: {target.why_not})" if target.why_not else ""
        print(f"{target.name:<{width}}  {target.title}; {target.cores} cores, {vector}{reason}")
    return 0
