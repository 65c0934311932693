"""One compilation from file to folder: what a job process runs. No processes here, no store.

``compile_model`` reads a model, makes every wished variant (target × optimisation), proves each, and writes::

    DIR/compile.json                    source, options, variants
    DIR/<target>/<optimise>/            kernels, weights, model.json, fleet_model.h, proof.json, golden.npz

Everything is made in a hidden folder beside DIR and renamed at the end, so a stop, an error or a full disk leaves
nothing behind. DIR may exist if it is empty or an earlier result of ours; that one is replaced, also at the end.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fleetui import __version__
from fleetui.workshop import recommend
from fleetui.workshop.errors import LimitError, ModelError, WorkshopError
from fleetui.workshop.graph.ir import Graph
from fleetui.workshop.options import InputSpec, Optimise, Options, Weights
from fleetui.workshop.progress import Progress, Stage
from fleetui.workshop.target import Target

RECORD = "compile.json"
PARTIAL = ".partial-"


@dataclass(frozen=True, slots=True)
class Request:
    """What a job is asked to do; travels as JSON to the job process and into the store."""

    source: str
    out: str
    options: Options = field(default_factory=Options)
    schedules: str = ""
    """The file in which measured schedules are kept; empty: none is."""

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "out": self.out,
            "options": asdict(self.options),
            "schedules": self.schedules,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Request:
        raw = dict(data["options"])
        raw["targets"] = tuple(raw["targets"])
        raw["inputs"] = tuple(InputSpec(i["name"], tuple(i["shape"]), i["dtype"]) for i in raw["inputs"])
        raw["optimise"] = tuple(Optimise(Weights(o["weights"]), o["prune"], o["block"]) for o in raw["optimise"])
        return cls(str(data["source"]), str(data["out"]), Options(**raw), str(data.get("schedules", "")))


def compile_model(request: Request, progress: Progress) -> dict[str, Any]:
    """The record that is written to ``compile.json`` and printed by ``fleetui compile --json``."""
    from fleetui.workshop import inspect, pipeline, prove, targets
    from fleetui.workshop.optimise import Altered
    from fleetui.workshop.optimise import apply as optimise
    from fleetui.workshop.schedules.database import Database

    source, options = Path(request.source).expanduser().absolute(), request.options
    goals = [targets.find(name) for name in options.targets]  # names and reasons before any work
    wanted = goals_of(options)
    for goal in goals:
        if goal.why_not:
            raise pipeline.refuse_target(goal)
    with progress.stage(Stage.INSPECT, source.name):
        frontend = inspect.sniff(source)
        digest = digest_of(source, progress)
    with progress.stage(Stage.IMPORT, frontend.title):
        graph = frontend.load(source, options.inputs)
    with _folder(Path(request.out)) as folder, ExitStack() as cleanup:
        database = Database.load(Path(request.schedules) if request.schedules else None)
        prover = prove.Prover(source, frontend, graph, options, progress)
        cleanup.callback(prover.close)
        variants: list[dict[str, Any]] = []
        seconds: dict[str, float] = {}
        advice: recommend.Advice | None = None
        for goal in goals:
            for wish in options.optimise:
                progress.variant = f"{goal.name}/{wish.label}"
                place = folder / goal.name / wish.label
                made: list[Altered] = []

                def alter(
                    plain: Graph, wish: Optimise = wish, goal: Target = goal, made: list[Altered] = made
                ) -> Graph:
                    made.append(optimise(plain, wish, goal, options, prover, progress))
                    return made[0].graph

                built = pipeline.build_variant(
                    graph, goal, place, options, progress, database=database, optimise=alter
                )
                with progress.stage(Stage.PROVE, progress.variant):
                    proof = prover.prove(place, goal, wish)
                variants.append(
                    {
                        "target": goal.name,
                        "optimise": wish.label,
                        "dir": f"{goal.name}/{wish.label}",
                        "kernels_bytes": built.kernels_bytes,
                        "weights_bytes": built.weights_bytes,
                        "workspace_bytes": built.workspace_bytes,
                        "packed_bytes": packed_size(place, progress),
                        "latency_us": proof.latency_us or built.estimate,
                        "latency_from": "measured" if proof.latency_us else "estimate",
                        "max_error": proof.max_error,
                        "agreement": proof.agreement,
                        "accuracy": proof.accuracy,
                        "seconds": round(sum(built.seconds.values()), 3),
                        "warnings": [*_untuned(options, goal), *made[0].warnings, *proof.warnings],
                        "proof": proof.to_json(),
                    }
                )
        progress.variant = ""
        if wanted.any:
            advice = recommend.recommend(variants, wanted, {g.name: g.gflops * g.cores for g in goals})
        seconds.update({stage.value: round(took, 3) for stage, took in progress.seconds.items()})
        record = {
            "model": options.name or source.stem,
            "source": {"path": str(source), "sha256": digest, "bytes": size_of(source), "kind": frontend.kind},
            "fleetui": __version__,
            "options": asdict(options),
            "seconds": seconds,
            "variants": variants,
            "advice": asdict(advice) if advice is not None else None,
        }
        text = json.dumps(record, indent=1, sort_keys=True, default=str)
        (folder / RECORD).write_text(text, encoding="utf-8")
        return record


def _untuned(options: Options, target: Target) -> list[str]:
    if options.tune <= 0 or target.name == "host":
        return []
    return [f"not tuned: schedules are measured on this machine, which is no {target.title}"]


def goals_of(options: Options) -> recommend.Goals:
    return recommend.parse(options.goal)


def packed_size(folder: Path, progress: Progress) -> int:
    """Bytes of the blobs when compressed, which is how they travel."""
    total = 0
    for name in ("kernels", "weights", "model.json"):
        file = folder / name
        if not file.is_file():
            continue
        squeeze = zlib.compressobj(6)
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                progress.check()
                total += len(squeeze.compress(block))
        total += len(squeeze.flush())
    return total


def read_record(folder: Path) -> dict[str, Any]:
    """The ``compile.json`` of a finished folder."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder} holds no compiled model", "Give the folder that 'fleetui compile -o' wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / RECORD} cannot be read: {error}", "Compile the model again") from None
    return record


def digest_of(path: Path, progress: Progress) -> str:
    """SHA-256 of a file, or of a folder's files with their relative names."""
    total = hashlib.sha256()
    for file in _files(path):
        if path.is_dir():
            total.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                progress.check()
                total.update(block)
    return total.hexdigest()


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path))


def _files(path: Path) -> list[Path]:
    return sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]


# ------------------------------------------------------------ the result's folder


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A folder to work in that becomes ``out`` when the block ends well, and vanishes when it does not."""
    out = out.expanduser().absolute()
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise WorkshopError(f"{out} is in the way", "Choose another folder with -o")
    if out.is_dir() and any(out.iterdir()) and not (out / RECORD).is_file():
        raise WorkshopError(
            f"{out} holds something else than a compiled model", "Choose an empty folder with -o, or a new one"
        )
    work = out.with_name(f".{out.name}{PARTIAL}{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sweep(out)
        work.mkdir()
    except OSError as error:
        raise WorkshopError(
            f"{out} cannot be made: {error.strerror or error}", "Choose a folder you can write to"
        ) from None
    try:
        yield work
        _swap(work, out)
    except OSError as error:
        if error.errno in {28, 122}:  # no space, quota
            raise LimitError(
                f"The disk of {out.parent} is full", "Free some space, or choose another folder with -o"
            ) from None
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _swap(work: Path, out: Path) -> None:
    if not out.exists():
        work.rename(out)
        return
    aside = out.with_name(f".{out.name}.old-{os.getpid()}")
    out.rename(aside)
    work.rename(out)
    shutil.rmtree(aside, ignore_errors=True)


def sweep(out: Path) -> int:
    """Remove what killed jobs left beside ``out``: working folders whose process is gone. How many there were."""
    count = 0
    for mark in (PARTIAL, ".old-"):
        for left in out.parent.glob(f".{out.name}{mark}*"):
            owner = left.name.rpartition("-")[2]
            if owner.isdigit() and not _alive(int(owner)):
                shutil.rmtree(left, ignore_errors=True)
                count += 1
    return count


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
