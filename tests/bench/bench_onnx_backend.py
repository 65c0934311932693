"""The test cases of the ``onnx`` package, all of them: how many are run, passed, refused, wrong.

    python -m tests.bench.bench_onnx_backend [--executor numpy|compiled] [--quick] [--json] [--from N] [--to N]
                                             [--only TEXT] [--batch N] [--show]

``numpy`` runs each imported graph with the reference evaluator (whole networks in double precision), ``compiled``
builds and calls real code, many cases to a shared object, in worker processes. Cases whose shapes come in as inputs
have those inputs made constant; they are counted. ``--quick`` takes every tenth case. ``--show`` names what was
refused, and why.

Bars: none wrong, none crashed, at least 85 % of those on floats, integers and booleans passed. Exit status: 0 every
bar holds, 1 some fall short, 2 it could not run.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

BARS = {"wrong": "≤ 0", "crashed": "≤ 0", "share on numbers": "≥ 0.85"}


def figures_of(outcomes: Sequence[Any], seconds: Sequence[float], total: float) -> list[dict[str, Any]]:
    from tests.helpers.onnx_backend import summary

    rows: list[dict[str, Any]] = []
    for name, value in summary(outcomes).items():
        bar = BARS.get(name, "")
        limit = float(bar.split()[1]) if bar else 0.0
        holds = not bar or (value <= limit if bar.startswith("≤") else value >= limit)
        unit = "" if "share" in name else "cases"
        rows.append({"name": name, "value": round(value, 4), "unit": unit, "bar": bar, "holds": holds})
    if seconds:
        rows.append({"name": "building", "value": round(sum(seconds), 1), "unit": "s", "bar": "", "holds": True})
    rows.append({"name": "all of it", "value": round(total, 1), "unit": "s", "bar": "", "holds": True})
    return rows


def run(args: argparse.Namespace) -> tuple[list[Any], list[float]]:
    from tests.helpers.onnx_backend import Outcome, Ready, cases, judged, ready, with_doubles, with_numpy
    from tests.helpers.onnx_compiled import run_batches

    chosen = [case for case in cases() if args.only in case.name][args.first : args.last]
    if args.quick:
        chosen = chosen[::10]
    outcomes: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if outcome.verdict in {"wrong", "crashed"} or (args.show and outcome.verdict in {"refused", "noisy"}):
            print(f"{outcome.verdict:8} {outcome.name}: {outcome.sentence}", file=sys.stderr, flush=True)

    able: list[Ready] = []
    for case in chosen:
        made = ready(case)
        if isinstance(made, Outcome):
            tell(made)
        elif args.executor == "numpy":
            tell(judged(made, with_doubles if case.kind == "real" else with_numpy))
        else:
            able.append(made)
    if not able:
        return outcomes, []
    # Whole networks would hold up a batch: each goes by itself.
    large = [made for made in able if made.case.kind == "real"]
    seconds = run_batches([made for made in able if made.case.kind != "real"], args.batch, tell)
    return outcomes, seconds + run_batches(large, 1, tell)


def versions() -> dict[str, str]:
    import numpy as np
    import onnx

    return {"python": platform.python_version(), "onnx": str(onnx.__version__), "numpy": np.__version__}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench_onnx_backend", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--executor", choices=("numpy", "compiled"), default="numpy")
    parser.add_argument("--quick", action="store_true", help="every tenth case")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="N", help="start at the Nth case")
    parser.add_argument("--to", dest="last", type=int, default=None, metavar="N", help="stop before the Nth")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this in their name")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="cases in one shared object")
    parser.add_argument("--show", action="store_true", help="name what is refused, and why")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # some cases overflow on purpose
    try:
        begin = time.perf_counter()
        outcomes, seconds = run(args)
        figures = figures_of(outcomes, seconds, time.perf_counter() - begin)
    except ImportError as error:
        print(f"cannot run: {error}", file=sys.stderr)
        return 2
    for row in figures:
        mark = "  " if row["holds"] else "! "
        print(f"{mark}{row['name']:<44} {row['value']:>10g} {row['unit']:<6} {row['bar']}", file=sys.stderr)
    if args.json:
        bench = f"onnx-backend-{args.executor}"
        print(json.dumps({"bench": bench, "versions": versions(), "figures": figures}))
    return 0 if all(row["holds"] for row in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
