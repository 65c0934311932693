"""Compiled trees beside XGBoost, LightGBM and scikit-learn: one row and ten thousand, one thread and two.

    python -m tests.bench.bench_trees [--quick] [--json]

Each model is trained on random data, saved, read from its file, compiled for this machine and timed in turns with
the framework's own prediction, in one process. Ratio = the framework's time ÷ ours, minima over interleaved blocks.

"session" is the shortest way through our Python runtime: a row copied into the bound input, the call, the result
read; "run" makes fresh arrays, as the frameworks do. XGBoost's ``predict`` is timed with a fresh ``DMatrix`` (of
one it has seen, it keeps the predictions). Ours computes raw sums and predictions, the others predictions alone.
Exit status: 0 every bar holds, 1 some fall short, 2 it could not run.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.common.runtime.model import Model
from fleetui.common.runtime.pool import Pool
from fleetui.workshop import pipeline, targets
from fleetui.workshop.frontends.base import Frontend
from fleetui.workshop.frontends.table import frontend
from fleetui.workshop.graph.ir import Array
from fleetui.workshop.options import InputSpec

ROWS, FEATURES, TREES = 10_000, 28, 100
ONE_BAR, BATCH_BAR = 50.0, 1.5
PEERS = ("treelite", "lleaves")


Way = Callable[[Array, int], Callable[[], object]]


@dataclass(slots=True)
class Subject:
    """A trained model in its file, and how its framework predicts: a call for each way, given threads."""

    name: str
    kind: str
    path: Path
    x: Array
    raw: str
    tolerance: float
    """Of raw sums, relative to the largest; 0: bit for bit."""
    wanted: Array
    ways: Mapping[str, Way] = field(default_factory=dict)
    spec: tuple[InputSpec, ...] = ()


class Figures:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, value: float, unit: str, bar: str = "") -> None:
        limit = float(bar.split()[1]) if bar else 0.0
        holds = not bar or (value <= limit if bar.startswith("≤") else value >= limit)
        self.rows.append({"name": name, "value": round(value, 9), "unit": unit, "bar": bar, "holds": holds})
        print(f"{'  ' if holds else '! '}{name:<64} {value:>12.4g} {unit:<4} {bar}", file=sys.stderr, flush=True)


def data() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] + x[:, 2] > 0.1 * rng.normal(size=ROWS)).astype(int)


# ---------------------------------------------------------------- subjects


def xgboost_subject(folder: Path) -> Subject:
    xgb = importlib.import_module("xgboost")
    x, y = data()
    params = {"max_depth": 6, "objective": "binary:logistic", "nthread": 2}
    path = folder / "model.ubj"
    xgb.train(params, xgb.DMatrix(x, y), TREES).save_model(path)
    booster = xgb.Booster(model_file=path)

    def inplace(rows: Array, threads: int) -> Callable[[], object]:
        booster.set_param({"nthread": threads})
        return lambda: booster.inplace_predict(rows)

    def fresh(rows: Array, threads: int) -> Callable[[], object]:
        booster.set_param({"nthread": threads})
        return lambda: booster.predict(xgb.DMatrix(rows, nthread=threads))

    margin = booster.predict(xgb.DMatrix(x), output_margin=True)
    ways = {"inplace_predict": inplace, "predict": fresh}
    return Subject("xgboost 100x6", "xgboost", path, x, "margin", 0.0, margin, ways)


def lightgbm_subject(folder: Path) -> Subject:
    lgb = importlib.import_module("lightgbm")
    x, y = data()
    params = {"num_leaves": 63, "objective": "binary", "num_threads": 2, "verbose": -1}
    path = folder / "model.txt"
    lgb.train(params, lgb.Dataset(x, y), TREES).save_model(path)
    booster = lgb.Booster(model_file=path)

    def predict(rows: Array, threads: int) -> Callable[[], object]:
        return lambda: booster.predict(rows, num_threads=threads)

    raw = booster.predict(x, raw_score=True)
    spec = (InputSpec("data", (1, FEATURES), "float32"),)
    return Subject("lightgbm 100x63", "lightgbm", path, x, "raw", 1e-6, raw, {"predict": predict}, spec)


def forest_subject(folder: Path) -> Subject:
    from fleetui.workshop.frontends.sklearn import export

    ensemble = importlib.import_module("sklearn.ensemble")
    x, y = data()
    forest = ensemble.RandomForestClassifier(TREES, random_state=0, n_jobs=2).fit(x, y)
    path = folder / "forest.json"
    export(forest, path)

    def way(method: str) -> Way:
        def call(rows: Array, threads: int) -> Callable[[], object]:
            forest.n_jobs = threads
            return lambda: getattr(forest, method)(rows)

        return call

    forest.n_jobs = 1
    ways = {"predict_proba": way("predict_proba"), "predict": way("predict")}
    return Subject("random forest 100", "sklearn", path, x, "probabilities", 1e-6, forest.predict_proba(x), ways)


# ---------------------------------------------------------------- timing


def pair(ours: Callable[[], object], peer: Callable[[], object], rounds: int, block: float) -> tuple[float, float]:
    """Seconds a call, the least of blocks taken in turns."""
    least = [float("inf"), float("inf")]
    counts = []
    for call in (ours, peer):
        call()
        begin = time.perf_counter()
        call()
        counts.append(max(1, round(block / max(time.perf_counter() - begin, 1e-7))))
    for _ in range(rounds):
        for which, call in enumerate((ours, peer)):
            begin = time.perf_counter()
            for _ in range(counts[which]):
                call()
            least[which] = min(least[which], (time.perf_counter() - begin) / counts[which])
    return least[0], least[1]


def own(model: Model, way: str, rows: Array, threads: int, pools: Mapping[int, Pool]) -> Callable[[], object]:
    """Our side of a comparison, for rows of the model's only input."""
    session = model.session(len(rows), pools.get(threads))
    name = next(iter(session.inputs))
    if way == "run":
        feeds = {name: rows}
        return lambda: session.run(feeds)
    place, result = session.inputs[name], next(iter(session.outputs.values()))

    def call() -> object:
        place[...] = rows
        session()
        return result[0]

    return call


def measure(subject: Subject, figures: Figures, folder: Path, *, quick: bool) -> None:
    source: Frontend = frontend(subject.kind)
    graph = source.load(subject.path, list(subject.spec))
    variant = pipeline.build_variant(graph, targets.find("host"), folder / subject.kind)
    model = Model.load(variant.dir)
    figures.add(f"{subject.name}: compile", sum(variant.seconds.values()), "s", "")
    figures.add(f"{subject.name}: kernels", variant.kernels_bytes / 1024, "KiB")
    figures.add(f"{subject.name}: weights", variant.weights_bytes / 1024, "KiB")
    have = model.run({model.ports[0].name: subject.x})[subject.raw].astype(np.float64)
    error = float(np.abs(have - subject.wanted).max() / np.abs(subject.wanted).max())
    figures.add(f"{subject.name}: largest difference of raw sums", error, "", f"≤ {subject.tolerance:g}")
    rounds, block = (5, 0.05) if quick else (15, 0.2)
    with Pool(2) as pool:
        pools = {2: pool}
        for count, way, bar in ((1, "session", ONE_BAR), (1, "run", ONE_BAR), (ROWS, "run", BATCH_BAR)):
            rows = np.ascontiguousarray(subject.x[:count])
            for peer, prepare in subject.ways.items():
                for threads in (1, 2):
                    if count == 1 and threads == 2:
                        continue  # one row is one thread's work
                    mine = own(model, way, rows, threads, pools)
                    ours, theirs = pair(mine, prepare(rows, threads), rounds, block)
                    title = f"{subject.name}: {count} rows, {way} vs {peer}, {threads} thread{'s' * (threads > 1)}"
                    figures.add(f"{title}, ours", ours * 1e6, "µs")
                    figures.add(f"{title}, theirs", theirs * 1e6, "µs")
                    figures.add(f"{title}, ratio", theirs / ours, "×", f"≥ {bar:g}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = Figures()
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    ran = 0
    with tempfile.TemporaryDirectory() as name:
        for kind, make in (
            ("xgboost", xgboost_subject), ("lightgbm", lightgbm_subject), ("sklearn", forest_subject),
        ):  # fmt: skip
            try:
                versions[kind] = str(importlib.import_module(kind).__version__)
            except (ImportError, OSError):
                versions[kind] = "not installed: skipped"
                continue
            measure(make(Path(name)), figures, Path(name), quick=options.quick)
            ran += 1
    for peer in PEERS:
        versions[peer] = "not compared" if importlib.util.find_spec(peer) else "not installed: skipped"
    if options.json:
        print(json.dumps({"bench": "trees", "versions": versions, "figures": figures.rows}, ensure_ascii=False))
    if not ran:
        return 2
    return 0 if all(row["holds"] for row in figures.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
