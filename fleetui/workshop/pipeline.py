"""From a graph to a variant's folder: the stages one after another, each reported, any of them stoppable.

``build_variant`` makes one folder (kernels, weights, model.json, fleet_model.h) under a temporary name and renames
it at the end. ``build_many`` puts many small graphs into one shared object, for those who test hundreds. Reading
models, optimising and proving happen elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetui import __version__
from fleetui.workshop.codegen import accelerators, entry, link, objects, place, program
from fleetui.workshop.codegen.accelerators import Accelerator, Foreign
from fleetui.workshop.codegen.entry import Rows
from fleetui.workshop.codegen.program import Program
from fleetui.workshop.errors import LimitError, TargetError, UnsupportedError, WorkshopError
from fleetui.workshop.graph.ir import Graph, Value
from fleetui.workshop.kernel import Group, Kernel
from fleetui.workshop.options import Options
from fleetui.workshop.progress import Progress, Stage
from fleetui.workshop.schedules.rules import Context
from fleetui.workshop.target import Target

ABI = 1
EMBED = 4 << 10
"""Weights up to so many bytes live inside the kernels, and there is no weights blob."""
EMBED_STATIC = 64 << 10
"""The same for microcontrollers, where a second file is more of a nuisance."""

SPLIT = 4
"""Schedules leave room for so many threads, where the target has the cores; a kernel runs on any number."""

KERNELS, WEIGHTS, RECORD, HEADER = "kernels", "weights", "model.json", "fleet_model.h"

# Of the peak figures in the catalogue, what good kernels reach.
REACHED_FLOPS, REACHED_BYTES, STEP_NS = 0.6, 0.7, 100.0


@dataclass(slots=True)
class Variant:
    """What was made. ``estimate`` is microseconds a call on one core, from data-sheet figures."""

    dir: Path
    target: str
    kernels_bytes: int
    weights_bytes: int
    workspace_bytes: int
    seconds: dict[str, float]
    steps: list[dict[str, Any]]
    estimate: float
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Prepared:
    """A model as a program over planned memory, before any code is generated."""

    program: Program
    target: Target
    rows: Rows
    inputs: list[str]
    outputs: list[str]
    taken: dict[str, int] = field(default_factory=dict)
    """How many steps each accelerator computes."""

    def record(self) -> dict[str, Any]:
        """As much of model.json as the runtime needs."""
        graph = self.program.graph
        return {
            "abi": ABI,
            "model": graph.name,
            "inputs": _ports(graph.inputs, self.inputs),
            "outputs": _ports(graph.outputs, self.outputs),
            "rows": {"fixed": self.rows.fixed, "any": self.rows.any},
            "workspace_bytes": self.workspace,
        }

    @property
    def workspace(self) -> int:
        """Bytes for one call of the batch the kernels are made for."""
        return entry.share_of(self.program, self.rows, self.target)


def refuse_target(target: Target) -> TargetError:
    return TargetError(f"{target.title} cannot be built for on this machine: {target.why_not}")


# ------------------------------------------------------------ graph to program


def prepare(
    graph: Graph,
    target: Target,
    options: Options | None = None,
    progress: Progress | None = None,
    *,
    database: Any = None,
    plugins: Sequence[Accelerator] | None = None,
    optimise: Callable[[Graph], Graph] | None = None,
) -> Prepared:
    """Everything that needs no LLVM. The graph given is left as it is."""
    from fleetui.workshop.graph import passes
    from fleetui.workshop.schedules import fuse, rules

    options, progress = options or Options(), progress or Progress()
    names = [v.name for v in graph.inputs], [v.name for v in graph.outputs]
    graph = graph.copy()
    with progress.stage(Stage.SIMPLIFY):
        passes.simplify(graph, progress)
    if optimise is not None:
        with progress.stage(Stage.OPTIMISE):
            graph = optimise(graph)
    with progress.stage(Stage.LAYOUT):
        passes.lay_out(graph, progress)
    with progress.stage(Stage.FUSE):
        offered = accelerators.installed() if plugins is None else plugins
        split = accelerators.share_out(graph, target, offered, fuse.partition)
        layout = place.place(graph, split.groups)
    threads = options.threads if options.threads > 1 else min(SPLIT, target.cores)
    context = rules.Context(target, graph, layout.views, threads, database, progress, limits=dict(options.limits))
    if options.tune > 0 and target.name == "host":
        _tune([g for i, g in enumerate(split.groups) if i not in layout.skipped], context, options, progress)
    lowered: list[tuple[Group, list[Kernel]]] = []
    taken: dict[str, int] = {}
    with progress.stage(Stage.SCHEDULE):
        for index, group in enumerate(split.groups):
            progress.step(index, len(split.groups), group.anchor.op)
            if index in layout.skipped:
                continue
            if index in layout.parts:
                lowered.append((group, program.part_copies(layout, layout.parts[index])))
            elif (offer := split.taken.get(index)) is not None:
                lowered.append((group, offer.lower(group)))
                taken[offer.accelerator] = taken.get(offer.accelerator, 0) + 1
            else:
                lowered.append((group, rules.lower(group, context)))
    with progress.stage(Stage.PLAN):
        made = program.assemble(graph, lowered, layout)
        return Prepared(made, target, _rows(made, options), *names, taken)


def _tune(groups: Sequence[Group], context: Context, options: Options, progress: Progress) -> None:
    """Measure schedules on this machine; what is found is kept, also if the job is stopped."""
    from fleetui.workshop.schedules.tune import tune

    try:
        tune(groups, context, options.tune, progress)
    finally:
        if context.database is not None:
            context.database.save()


def _rows(made: Program, options: Options) -> Rows:
    """Whether a call may bring any number of rows, and how many the kernels are made for."""
    ports = [*made.graph.inputs, *made.graph.outputs]
    leading = {value.shape[0] if value.rank else 0 for value in ports}
    batched = len(leading) == 1 and 0 not in leading and bool(made.graph.inputs)
    fixed = leading.pop() if batched else 1
    if batched and made.launches and not made.work_bytes:
        whole = all(
            ref.offset == 0 for launch in made.launches for ref in launch.refs if ref.space in {"input", "output"}
        )
        if whole and all(launch.kernel.detail.get("rows") for launch in made.launches):
            return Rows(fixed, any=True, direct=True)
    if not options.any_batch:
        return Rows(fixed)
    if not batched:
        raise UnsupportedError(
            "Any number of rows was asked for, but not every input and output begins with the batch",
            "Compile for a fixed batch, or export the model so that all of them do",
        )
    if fixed != 1:
        raise UnsupportedError(
            f"Any number of rows was asked for, but the model was read for {fixed} at once",
            "Give its inputs a leading 1 with --input NAME=1,…",
        )
    return Rows(1, any=True)


# ------------------------------------------------------------ program to folder


def build_variant(
    graph: Graph,
    target: Target,
    folder: Path,
    options: Options | None = None,
    progress: Progress | None = None,
    *,
    database: Any = None,
    plugins: Sequence[Accelerator] | None = None,
    optimise: Callable[[Graph], Graph] | None = None,
    source: Mapping[str, Any] | None = None,
) -> Variant:
    """Make ``folder``. ``source`` is recorded in model.json as it is; a stop or an error leaves nothing."""
    if target.why_not:
        raise refuse_target(target)
    options, progress = options or Options(), progress or Progress()
    before = dict(progress.seconds)
    ready = prepare(graph, target, options, progress, database=database, plugins=plugins, optimise=optimise)
    with _arising(folder.absolute()) as (made, work):
        made_bytes = _blobs(ready, target, made, work, progress, identifier(options.name or graph.name))
        record = _record(ready, target, made, options.name or graph.name, source or {})
        (made / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", "utf-8")
        (made / HEADER).write_text(entry.header(), "utf-8")
    seconds = {stage.value: took - before.get(stage, 0.0) for stage, took in progress.seconds.items()}
    return Variant(
        dir=folder,
        target=target.name,
        kernels_bytes=made_bytes,
        weights_bytes=record["weights"]["bytes"] if record["weights"] else 0,
        workspace_bytes=ready.workspace,
        seconds={stage: took for stage, took in seconds.items() if took > 0},
        steps=record["steps"],
        estimate=record["estimate_us"],
        record=record,
    )


def identifier(name: str) -> str:
    """A model's name as C allows it."""
    word = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_").lower()[:40] or "model"
    return f"m_{word}" if word[0].isdigit() else word


def needed_libraries(kernels: Sequence[Kernel]) -> list[str]:
    """What a variant needs besides libc and libm: nothing, unless an accelerator says so."""
    return sorted({name for k in kernels if isinstance(k.func, Foreign) for name in k.func.libraries})


def _embeds(ready: Prepared, target: Target) -> bool:
    return 0 < ready.program.weights_bytes <= (EMBED_STATIC if target.static else EMBED)


def _blobs(ready: Prepared, target: Target, made: Path, work: Path, progress: Progress, name: str) -> int:
    """Kernels and weights. Returns the size of the kernels."""
    prefix = name if target.static else ""
    pool = not target.static and target.os != "wasm"
    kernels = ready.program.kernels()
    symbols = objects.names_of(kernels, prefix)
    embed = _embeds(ready, target)
    with progress.stage(Stage.GENERATE):
        text = entry.write(ready.program, symbols, target, ready.rows, prefix=prefix, embed=embed, pool=pool)
        compiled = objects.build(kernels, symbols, target, work, progress)
    with progress.stage(Stage.LINK):
        exported = [f"fm_{n}" for n in (*link.EXPORTS, *(link.POOL if pool else ()))]
        libraries = needed_libraries(ready.program.kernels())
        link.link(target, text, compiled, made / KERNELS, work, names=exported, libraries=libraries)
        progress.check()
        if ready.program.weights_bytes and not embed:
            with (made / WEIGHTS).open("wb") as stream:
                for piece in ready.program.weight_bytes():
                    progress.check()
                    stream.write(piece)
    return (made / KERNELS).stat().st_size


def _record(ready: Prepared, target: Target, made: Path, name: str, source: Mapping[str, Any]) -> dict[str, Any]:
    steps = [
        {
            "name": launch.name,
            "op": launch.op,
            "kernel": launch.kernel.key,
            "flops": launch.kernel.flops,
            "bytes": launch.kernel.moved,
            "parameters": launch.constants,
            "parallel": launch.kernel.extent,
            "detail": {k: v for k, v in launch.kernel.detail.items() if isinstance(v, (str, int, float, bool))},
        }
        for launch in ready.program.launches
    ]
    libraries = needed_libraries(ready.program.kernels())
    return {
        **ready.record(),
        "model": name,
        "identifier": identifier(name) if target.static else "",
        "fleetui": __version__,
        "target": {
            "name": target.name, "triple": target.triple, "cpu": target.cpu, "features": list(target.features),
            "os": target.os, "floor": target.floor,
        },
        "kernels": _blob(made / KERNELS),
        "weights": _blob(made / WEIGHTS),
        "flops": sum(launch.kernel.flops for launch in ready.program.launches),
        "estimate_us": round(_estimate(ready.program, target), 3),
        "accelerators": ready.taken,
        "needs": libraries,
        "steps": steps,
        "source": dict(source),
    }  # fmt: skip


def _ports(values: Sequence[Value], names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"name": name, "shape": list(value.shape), "dtype": value.dtype}
        for value, name in zip(values, names, strict=True)
    ]


def _blob(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            total.update(block)
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": total.hexdigest()}


def _estimate(made: Program, target: Target) -> float:
    """Microseconds on one core: arithmetic or weights, whichever takes longer, step by step."""
    total = 0.0
    for launch in made.launches:
        compute = launch.kernel.flops / (target.gflops * REACHED_FLOPS)
        cached = target.l3 or target.l2 or 1 << 14
        fetched = launch.kernel.moved if made.weights_bytes > cached else launch.kernel.moved / 4
        total += max(compute, fetched / (target.bandwidth * REACHED_BYTES) * 1e9) + STEP_NS
    return total / 1000


@contextmanager
def _arising(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A folder for the result and one for what comes between; the first becomes ``folder`` if all goes well."""
    made = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    work = folder.with_name(f".{folder.name}.work-{os.getpid()}")
    try:
        for path in (made, work):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        yield made, work
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)
    except OSError as error:
        if error.errno in {28, 122}:  # no space, quota
            raise LimitError(
                f"The disk of {folder.parent} is full", "Free some space, or choose another folder"
            ) from None
        raise WorkshopError(
            f"{folder} cannot be written: {error.strerror or error}", "Choose a folder you can write to"
        ) from None
    finally:
        for path in (made, work):
            shutil.rmtree(path, ignore_errors=True)


# ------------------------------------------------------------ many small graphs at once


def build_many(
    graphs: Sequence[Graph], target: Target, folder: Path, progress: Progress | None = None
) -> list[Prepared | Exception]:
    """All graphs in one shared object, functions prefixed ``m0``, ``m1``, …; errors are given back as they are.

    Weights are embedded, so this is for small models. ``runtime.Model(Library(folder / "kernels", "m0"),
    ready.record())`` is the first of them, ready to be called.
    """
    progress = progress or Progress()
    results: list[Prepared | Exception] = []
    for graph in graphs:
        try:
            results.append(prepare(graph, target, None, progress, plugins=()))
        except Exception as error:  # noqa: BLE001 - the caller counts what failed, and how
            results.append(error)
    good = [(f"m{index}", ready) for index, ready in enumerate(results) if isinstance(ready, Prepared)]
    shared = {kernel.key: kernel for _, ready in good for kernel in ready.program.kernels()}
    symbols = objects.names_of(list(shared.values()))
    with _arising(folder.absolute()) as (made, work):
        compiled = objects.build(list(shared.values()), symbols, target, work, progress)
        for name, ready in good:
            text = entry.write(ready.program, symbols, target, ready.rows, prefix=name, embed=True, pool=False)
            path = work / f"{name}.c"
            path.write_text(text, "utf-8")
            compiled.append(path)
        exported = [f"{name}_fm_{n}" for name, _ in good for n in link.EXPORTS]
        link.link(target, "", compiled, made / KERNELS, work, names=exported)
    return results
