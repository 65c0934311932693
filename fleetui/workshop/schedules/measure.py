"""Measures candidates on this machine: compiled together, run in a child process, timed in turns.

``Measurer`` is the interface that tuning speaks; measuring on a device elsewhere is another implementation of it.
A candidate that crashes or hangs costs itself and is left out when the rest is tried again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fleetui.workshop.graph.ir import BITS, Array, Value
from fleetui.workshop.kernel import Kernel, Packed, Temporary
from fleetui.workshop.target import Target

COLD_BYTES = 96 << 20
"""Constants of so many bytes in all are cycled through where they are to come from memory."""
MOST_COPIES = 24


@dataclass(frozen=True, slots=True)
class Trial:
    """One way to compute a group: its kernels in order. ``cold``: constants come from memory."""

    kernels: Sequence[Kernel]
    cold: bool = False


class Measurer(Protocol):
    def measure(self, trials: Sequence[Trial], seconds: float) -> list[float | None]:
        """The least time of each trial, timed in turns; None for one that does not run."""
        ...


@dataclass(slots=True)
class LocalMeasurer:
    """Measures here. ``timeout`` ends a child that says nothing for so long beyond its allowance."""

    target: Target
    timeout: float = 20.0
    least: int = 5
    most: int = 400
    failed: int = field(default=0)

    def measure(self, trials: Sequence[Trial], seconds: float) -> list[float | None]:
        with tempfile.TemporaryDirectory(prefix="fleetui-tune-") as name:
            folder = Path(name)
            names = self._build(trials, folder)
            if names is None:
                return [None] * len(trials)
            request = {
                "library": str(folder / "trials.so"),
                "seconds": seconds,
                "least": self.least,
                "most": self.most,
                "trials": [_describe(trial, names) for trial in trials],
            }
            alive = list(range(len(trials)))
            while alive:
                chosen = {**request, "trials": [request["trials"][i] for i in alive]}  # type: ignore[index]  # a list
                said, culprit = self._run(chosen, seconds + self.timeout)
                if said is not None:
                    found: list[float | None] = [None] * len(trials)
                    for index, best in zip(alive, said, strict=True):
                        found[index] = best
                    return found
                self.failed += 1
                del alive[culprit]
            return [None] * len(trials)

    def _build(self, trials: Sequence[Trial], folder: Path) -> dict[str, str] | None:
        from fleetui.workshop.codegen import link, raw

        unique = list({kernel.key: kernel for trial in trials for kernel in trial.kernels}.values())
        names = {kernel.key: f"k{index}" for index, kernel in enumerate(unique)}
        module = raw.lower(unique, [names[kernel.key] for kernel in unique], self.target)
        raw.object_file(module, self.target, str(folder / "trials.o"))
        tool = link.linker(self.target)
        done = subprocess.run(
            [*tool.compiler, "-shared", str(folder / "trials.o"), "-o", str(folder / "trials.so"), "-lm"],
            capture_output=True,
            cwd=folder,
            env=link.environment(folder),
            check=False,
        )
        return names if done.returncode == 0 else None

    def _run(self, request: dict[str, Any], limit: float) -> tuple[list[float] | None, int]:
        """The times; or None, and which trial was last begun."""
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "fleetui.workshop.schedules.measure_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        timer = threading.Timer(limit, child.kill)
        timer.start()
        last = 0
        try:
            said, _ = child.communicate(json.dumps(request) + "\n")
        finally:
            timer.cancel()
            child.kill()
            child.wait()
            timer.join()
        for line in said.splitlines():
            try:
                word = json.loads(line)
            except ValueError:
                continue
            if "best" in word:
                return [float(v) for v in word["best"]], last
            last = int(word.get("start", last))
        return None, last


def _describe(trial: Trial, names: dict[str, str]) -> dict[str, Any]:
    numbers: dict[int, int] = {}
    constants: dict[int, int] = {}
    calls = []
    for kernel in trial.kernels:
        buffers = []
        for index, arg in enumerate(kernel.args):
            number = numbers.setdefault(id(arg.buffer), len(numbers))
            nbytes, dtype, constant = _extent(arg.buffer, kernel, index)
            nbytes += arg.offset * BITS[dtype] // 8
            if constant:
                constants[number] = nbytes
            buffers.append([number, nbytes, "uint8" if dtype in {"bool", "bfloat16"} else dtype, constant])
        calls.append({"name": names[kernel.key], "buffers": buffers, "extent": kernel.extent})
    total = sum(constants.values())
    copies = max(2, min(MOST_COPIES, COLD_BYTES // max(1, total))) if trial.cold and total > 1 << 14 else 1
    return {"calls": calls, "copies": copies}


def _extent(buffer: Value | Temporary | Packed, kernel: Kernel, index: int) -> tuple[int, str, bool]:
    """Bytes a kernel may touch of a buffer, gaps between its elements included."""
    if isinstance(buffer, Packed):
        return int(buffer.data.nbytes), buffer.dtype or str(buffer.data.dtype), True
    data: Array | None = buffer.data if isinstance(buffer, Value) else None
    size = int(np.prod(buffer.shape, dtype=np.int64))
    if index in kernel.strides:
        # the parameter's own shape may be another view of the same elements
        shape = [int(d) for d in kernel.func.params[index].ty.shape]
        size = 1 + sum((d - 1) * s for d, s in zip(shape, kernel.strides[index], strict=True))
    return (size * BITS[buffer.dtype] + 7) // 8, buffer.dtype, data is not None
