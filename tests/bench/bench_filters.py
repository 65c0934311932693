"""Filters over 50,000 rows: time to a mask, to a tree, to a completion.

Each filter is timed over a table whose texts are coded (as the desk keeps it) and over one of plain object arrays,
interleaved with a naive row-by-row reading of the same filter on a part of the rows (the tests' second reading),
whose result must be the same. Exit 0: all bars hold; 1: one falls short; 2: could not run.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

import fleetui
from fleetui.common.domain.filters import DEVICE_RULES, DEVICES, Coded, Column, Kind, complete, parse
from tests.helpers.domain import NOW, truth

ROWS = 50_000
CHECKED = 500  # rows that the naive reading goes through
BAR_MASK_MS = {"coded": 10.0, "plain": 20.0}  # plain texts are not what a table that is kept up to date has
BAR_RULES_MS = 60.0
BAR_PARSE_MS = 2.0
BAR_COMPLETE_MS = 10.0

TYPICAL = (
    "site:berlin and status:offline and model.version<3",
    "memory>80% or latency.p99>20ms",
    "seen<5m not (site:(berlin,paris) or has:error.text)",
    "edge-1",
    "edge-1*4 status:online",
    'name~"press 12" firmware>=2.4',
    "tag.line:3 temp>60",
    "tag.line>=3 or missing:site",
    "model.version:2.* errors>0 rate>10",
    "error.text~memory",
)


def table(rows: int, seed: int = 7) -> tuple[dict[str, Column], dict[str, Column], list[dict[str, Any]]]:
    """The same devices coded, plain, and as rows."""
    rng = np.random.default_rng(seed)
    pools = {
        "device": [f"edge-{i:05d}" for i in range(rows)],
        "name": [f"Press {i} in hall {i % 9}" for i in range(rows)],
        "site": ["Berlin", "Paris", "Rome", "Wien", "Lyon", ""],
        "firmware": ["2.1", "2.4", "2.4.1", "3.0-rc1", ""],
        "version": ["1.9", "1.10", "2.0", "2.1", "3.0"],
        "status": ["online", "online", "online", "late", "offline", "unknown"],
        "lifecycle": ["accepted", "accepted", "accepted", "pending", "rejected"],
        "last_error": ["", "", "", "out of memory", "sensor 3 does not answer"],
    }
    plain: dict[str, Column] = {}
    coded: dict[str, Column] = {}
    for field in DEVICES.fields:
        name = field.column
        if field.textual:
            pool = pools.get(name, ["x", "y", ""])
            picks = np.arange(rows) if len(pool) == rows else rng.integers(0, len(pool), rows)
            column = np.array(pool, dtype=object)[picks]
            categories = [text for text in dict.fromkeys(pool) if text]
            place = {text: i for i, text in enumerate(categories)} | {"": -1}
            coded[name] = Coded(np.array([place[t] for t in column], dtype=np.int32), categories)
            plain[name] = column
        else:
            moments = NOW - rng.exponential(600, rows) * (rng.random(rows) > 0.05)
            values = moments if field.kind is Kind.AGE else rng.random(rows) * 100
            plain[name] = coded[name] = np.where(rng.random(rows) < 0.1, np.nan, values)
    tags = np.empty(rows, dtype=object)
    tags[:] = [{"line": str(i % 7), "hall": str(i % 9)} if i % 11 else {} for i in range(rows)]
    lines = [t.get("line", "") for t in tags]
    known = sorted(set(lines) - {""})
    plain["tags"] = coded["tags"] = tags
    coded["tag.line"] = Coded(np.array([known.index(t) if t else -1 for t in lines], dtype=np.int32), known)
    cells = {name: column[:CHECKED].tolist() for name, column in plain.items()}  # type: ignore[union-attr]
    return coded, plain, [{name: cells[name][i] for name in cells} for i in range(min(rows, CHECKED))]


def timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begin)


def figure(name: str, times: list[float], bar: float) -> dict[str, Any]:
    middle = statistics.median(times)
    spread = {"minimum": round(min(times), 3), "maximum": round(max(times), 3), "rounds": len(times)}
    return {
        "name": name,
        "value": round(middle, 3),
        "unit": "ms",
        "bar": f"<= {bar:g}",
        "holds": middle <= bar,
    } | spread


def run(rounds: int) -> list[dict[str, Any]]:
    coded, plain, rows = table(ROWS)
    masks = {(text, kind): [] for text in TYPICAL for kind in ("coded", "plain")}
    parses: list[float] = []
    rules: list[float] = []
    found = {text: parse(text) for text in TYPICAL}
    for text, one in found.items():
        naive = [truth(one.node, row) for row in rows]
        for columns in (coded, plain):
            if one.mask(columns, ROWS, NOW)[: len(rows)].tolist() != naive:
                raise AssertionError(f"the mask of {text!r} is not what the naive reading says")
    for _ in range(rounds):
        for text, one in found.items():
            masks[text, "coded"].append(timed(lambda one=one: one.mask(coded, ROWS, NOW)))
            masks[text, "plain"].append(timed(lambda one=one: one.mask(plain, ROWS, NOW)))
            parses.append(timed(lambda text=text: parse(text)))
        rules.append(timed(lambda: [rule.filter.mask(coded, ROWS, NOW) for rule in DEVICE_RULES]))
    names_column = coded["name"]
    assert isinstance(names_column, Coded)
    unseen = {**coded, "name": Coded(names_column.codes, list(names_column.categories))}
    first = timed(lambda: parse("press 1").mask(unseen, ROWS, NOW))
    sites = sorted({str(t) for t in plain["site"]} - {""})  # type: ignore[union-attr]
    names = [str(t) for t in plain["name"]]  # type: ignore[union-attr]
    offers: list[float] = []
    known = {"site": sites, "name": names}
    for text in ("s", "site:b", "site:berlin a", "name:press", 'name:"press 4', "memory>8", "name:zzz"):
        offers += [
            timed(lambda text=text: complete(text, len(text), DEVICES, lambda field: known.get(field, ())))
            for _ in range(rounds)
        ]
    return [
        *(figure(f"mask, {kind}: {text}", times, BAR_MASK_MS[kind]) for (text, kind), times in masks.items()),
        figure("mask, coded, a word for the first time", [first], BAR_MASK_MS["plain"]),
        figure(f"masks of the {len(DEVICE_RULES)} named rules", rules, BAR_RULES_MS),
        figure("parse", parses, BAR_PARSE_MS),
        figure("completion, 50,000 known names", offers, BAR_COMPLETE_MS),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Filters over 50,000 rows")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    try:
        figures = run(5 if options.quick else 40)
    except AssertionError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    versions = {"fleetui": fleetui.__version__, "numpy": np.__version__, "python": platform.python_version()}
    if options.json:
        sys.stdout.write(json.dumps({"bench": "filters", "versions": versions, "figures": figures}) + "\n")
    else:
        for one in figures:
            mark = "ok   " if one["holds"] else "SHORT"
            span = f"{one['minimum']:.2f} … {one['maximum']:.2f}"
            sys.stdout.write(f"{mark} {one['value']:8.2f} ms  ({span})  {one['bar']:8}  {one['name']}\n")
    return 0 if all(one["holds"] for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
