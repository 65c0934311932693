"""Backend cases in compiled form: many small graphs in one shared object, built and called in another process.

A batch goes to a worker as a pickle and comes back as JSON lines, one for each case as soon as it is judged, so
that a worker that dies or hangs costs only the case it was at: the rest of its batch is given to another.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from fleetui.workshop.errors import UnsupportedError
from fleetui.workshop.graph.ir import Array, Graph, numpy_dtype
from tests.helpers.onnx_backend import Feeds, Outcome, Ready, judged

EMBEDDED = 1 << 20
"""Bytes of weights from which on a model is built by itself."""
ROOT = Path(__file__).parents[2]


def build_and_judge(batch: Sequence[Ready], folder: Path, tell: Callable[[Outcome], None]) -> float:
    """All in one shared object; seconds it took to build."""
    from fleetui.common.runtime import Model
    from fleetui.common.runtime.binding import Library
    from fleetui.workshop import pipeline, targets

    graphs = [graph for made in batch for graph, _, _ in made.sets]
    place = {id(graph): index for index, graph in enumerate(graphs)}
    whole = len(graphs) == 1 and graphs[0].nodes and sum(v.nbytes for v in graphs[0].constants()) > EMBEDDED
    begin = time.perf_counter()
    built: list[object] = []
    if whole:  # weights of a whole network do not go into the code
        pipeline.build_variant(graphs[0], targets.host(), folder)
    else:
        built += pipeline.build_many(graphs, targets.host(), folder)
    took = time.perf_counter() - begin

    def execute(graph: Graph, feeds: Feeds) -> dict[str, Array]:
        if whole:
            return Model.load(folder).run(feeds)
        found = built[place[id(graph)]]
        if not isinstance(found, pipeline.Prepared):
            raise found if isinstance(found, Exception) else TypeError(type(found))
        library = Library(folder / "kernels", f"m{place[id(graph)]}")
        out = Model(library, found.record()).run({name: stood_in(array) for name, array in feeds.items()})
        return {value.name: as_meant(out[value.name], value.dtype) for value in graph.outputs}

    for made in batch:
        tell(_called(made, built, place, execute))
    return took


def stood_in(array: Array) -> Array:
    """What numpy itself lacks goes in as the runtime's stand-in: a bfloat16 as its bits."""
    return array.view(np.uint16) if str(array.dtype) == "bfloat16" else array


def as_meant(array: Array, dtype: str) -> Array:
    """The way back."""
    return array.view(numpy_dtype(dtype)) if dtype == "bfloat16" else array


def _called(made: Ready, built: Sequence[object], place: dict[int, int], execute: object) -> Outcome:
    """A sentence from the pipeline about what it cannot hold is a refusal like the importer's."""
    for graph, _, _ in made.sets if built else ():
        found = built[place[id(graph)]]
        if isinstance(found, UnsupportedError):
            case = made.case
            return Outcome(case.name, "refused", str(found), made.fixed, case.numbers, case.common)
    return judged(made, execute)  # type: ignore[arg-type]  # an executor


# ---------------------------------------------------------------- in workers


def run_batches(
    cases: Sequence[Ready], size: int, tell: Callable[[Outcome], None], limit: float = 900.0
) -> list[float]:
    """Every case, ``size`` at a time; seconds each batch took to build."""
    waiting = [list(cases[at : at + size]) for at in range(0, len(cases), size)]
    seconds: list[float] = []
    while waiting:
        batch = waiting.pop(0)
        outcomes, took, died = _worker(batch, limit)
        for outcome in outcomes:
            tell(outcome)
        seconds.append(took)
        left = sum(len(later) for later in waiting)
        print(f"{len(outcomes)} cases built in {took:.1f} s, {left} to go", file=sys.stderr, flush=True)
        rest = batch[len(outcomes) :]
        if not rest:
            continue
        if len(batch) == 1 or outcomes:
            # It died while it was at the first one that is missing.
            case = rest[0].case
            tell(Outcome(case.name, "crashed", died, rest[0].fixed, case.numbers, case.common))
            rest = rest[1:]
            if rest:
                waiting.insert(0, rest)
        else:  # it died while building: one of them does it
            half = (len(batch) + 1) // 2
            waiting[:0] = [batch[:half], batch[half:]]
    return seconds


def _worker(batch: Sequence[Ready], limit: float) -> tuple[list[Outcome], float, str]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        # What loads a case cannot travel, and is not needed any more.
        packed = [replace(made, case=replace(made.case, load=len, data=len)) for made in batch]
        (folder / "batch").write_bytes(pickle.dumps(packed))
        command = [sys.executable, "-m", "tests.helpers.onnx_compiled", str(folder)]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)
            output, died = done.stdout, f"the worker ended with {done.returncode}: {done.stderr.strip()[-300:]}"
        except subprocess.TimeoutExpired as error:
            output = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
            died = f"the worker took more than {limit:.0f} s"
    outcomes: list[Outcome] = []
    took = 0.0
    for line in output.splitlines():
        entry = json.loads(line)
        if "seconds" in entry:
            took = entry["seconds"]
        else:
            outcomes.append(Outcome(**{**entry, "fixed": tuple(entry["fixed"])}))
    return outcomes, took, died


def main() -> int:
    import warnings

    warnings.simplefilter("ignore")  # some cases overflow on purpose
    folder = Path(sys.argv[1])
    batch: list[Ready] = pickle.loads((folder / "batch").read_bytes())  # noqa: S301 - written by our own parent

    def tell(outcome: Outcome) -> None:
        print(json.dumps(asdict(outcome)), flush=True)

    took = build_and_judge(batch, folder / "out", tell)
    print(json.dumps({"seconds": took}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
