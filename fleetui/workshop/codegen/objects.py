"""Kernels in, object files out: each different kernel is compiled once, several at a time.

Lowering is Python and holds the interpreter; LLVM does not, so while one batch is in LLVM the next is lowered.
Batches are cut by position alone: the same model gives the same bytes on any machine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fleetui.workshop.codegen import hide, raw
from fleetui.workshop.codegen.accelerators import Foreign
from fleetui.workshop.kernel import Kernel
from fleetui.workshop.progress import Progress
from fleetui.workshop.target import Target

BATCH = 4


def names_of(kernels: Sequence[Kernel], prefix: str = "") -> dict[str, str]:
    """A symbol for every key, in order: ``fm_k0``, ``fm_k1``, … A foreign function keeps its own."""
    start = f"{prefix}_fm_k" if prefix else "fm_k"
    return {
        kernel.key: kernel.func.symbol if isinstance(kernel.func, Foreign) else f"{start}{index}"
        for index, kernel in enumerate(kernels)
    }


def build(
    kernels: Sequence[Kernel], names: dict[str, str], target: Target, folder: Path, progress: Progress
) -> list[Path]:
    """Object files (and C sources of foreign functions), to be linked together."""
    own = [kernel for kernel in kernels if not isinstance(kernel.func, Foreign)]
    paths: list[Path] = []
    if own:
        paths += _compiled(own, names, target, folder, progress)
    sources: dict[str, Path] = {}
    for kernel in kernels:
        func = kernel.func
        if not isinstance(func, Foreign):
            continue
        if func.object is not None and func.object not in paths:
            paths.append(func.object)
        if func.source and func.source not in sources:
            path = folder / f"foreign{len(sources)}.c"
            path.write_text(func.source, "utf-8")
            sources[func.source] = path
    return [*paths, *sources.values()]


def _compiled(
    kernels: Sequence[Kernel], names: dict[str, str], target: Target, folder: Path, progress: Progress
) -> list[Path]:
    import tvm  # noqa: F401 - once, before threads would import it at the same time

    paths: list[Path] = []
    waiting: list[Future[None]] = []
    with ThreadPoolExecutor(max_workers=max(1, min(2, os.cpu_count() or 1))) as threads:
        try:
            for start in range(0, len(kernels), BATCH):
                batch = kernels[start : start + BATCH]
                progress.step(start, len(kernels), batch[0].key)
                module = raw.lower(batch, [names[kernel.key] for kernel in batch], target)
                path = folder / f"kernels{start // BATCH}.o"
                waiting.append(threads.submit(_write, module, target, path))
                paths.append(path)
            for index, future in enumerate(waiting):
                future.result()
                progress.step(min(len(kernels), (index + 1) * BATCH), len(kernels))
        finally:
            for future in waiting:
                future.cancel()
    return paths


def _write(module: Any, target: Target, path: Path) -> None:
    raw.object_file(module, target, str(path))
    if target.os == "windows":
        hide.windows(path)
    elif target.os == "macos":
        hide.macos(path)
