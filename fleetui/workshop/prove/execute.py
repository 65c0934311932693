"""Runs a variant for the prover: natively where this processor can, else under qemu-user, else not at all.

Under qemu the very shared object that ships is loaded, by a small program (``harness.c``) that zig builds for the
target, against the C library of Debian's cross packages. One process answers all sets of inputs.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

import numpy as np

from fleetui.workshop.errors import TargetError, WorkshopError
from fleetui.workshop.graph.ir import Array
from fleetui.workshop.target import Target

TIMED_S = 0.1
HARNESS = Path(__file__).with_name("harness.c")

# Architecture → qemu's name, the folder with its C library, and the Debian package that brings that.
QEMU: dict[str, tuple[str, str, str]] = {
    "aarch64": ("qemu-aarch64-static", "/usr/aarch64-linux-gnu", "libc6-arm64-cross"),
    "arm": ("qemu-arm-static", "/usr/arm-linux-gnueabihf", "libc6-armhf-cross"),
    "riscv64": ("qemu-riscv64-static", "/usr/riscv64-linux-gnu", "libc6-riscv64-cross"),
}
MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64", "armv7l": "arm"}
# What a level of x86-64 adds that /proc/cpuinfo shows.
X86 = {"x86-64-v2": "sse4_2", "x86-64-v3": "avx2", "x86-64-v4": "avx512vl", "skylake-avx512": "avx512vl"}


class Runner(Protocol):
    how: str

    def run(self, feeds: dict[str, Array]) -> dict[str, Array]: ...

    def latency_us(self) -> float | None:
        """Of a call with the inputs of the last run; ``None`` where time means nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def runner_for(folder: Path, target: Target) -> Runner | None:
    """``None`` where nothing here can run it; ``why_not`` has the words."""
    if why_not(target):
        return None
    return Native(folder) if not _foreign(target) else Emulated(folder, target)


def why_not(target: Target) -> str:
    """Empty where it can be run."""
    if target.os != "linux" or target.static:
        return f"{target.title} does not run Linux programs"
    if not _foreign(target):
        return ""
    arch = family(target)
    if arch == family_of_machine():
        return f"this processor lacks {X86.get(target.cpu, target.cpu)}"
    if arch not in QEMU:
        return f"there is no emulator for {arch or target.triple}"
    emulator, root, package = QEMU[arch]
    if shutil.which(emulator) is None:
        return f"{emulator} is not installed (Debian: apt-get install qemu-user-static)"
    if not Path(root).is_dir():
        return f"the C library for {arch} is not installed (Debian: apt-get install {package})"
    return ""


def family(target: Target) -> str:
    head = target.triple.split("-", 1)[0]
    return "arm" if head.startswith(("arm", "thumb")) else {"amd64": "x86_64", "arm64": "aarch64"}.get(head, head)


def family_of_machine() -> str:
    machine = platform.machine().lower()
    return MACHINES.get(machine, machine)


def _foreign(target: Target) -> bool:
    """Whether this processor cannot run the target's code itself."""
    if target.name == "host":
        return False
    if sys.platform != "linux" or family(target) != family_of_machine():
        return True
    needs = X86.get(target.cpu)
    return (needs is not None and needs not in _flags()) or (family(target) == "aarch64")


def _flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return frozenset(line.partition(":")[2].split())


class Native:
    """By the same runtime that devices use."""

    how = "on this machine"

    def __init__(self, folder: Path) -> None:
        from fleetui.common.runtime import Model

        self._model = Model.load(folder)

    def run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        return self._model.run(feeds)

    def latency_us(self) -> float | None:
        best, until = float("inf"), time.perf_counter() + TIMED_S
        while time.perf_counter() < until:
            begin = time.perf_counter()
            self._model()
            best = min(best, time.perf_counter() - begin)
        return best * 1e6

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._model


class Emulated:
    def __init__(self, folder: Path, target: Target) -> None:
        emulator, root, _ = QEMU[family(target)]
        self.how = f"under {emulator.removesuffix('-static')}"
        self._ports = ports(folder)
        self._folder = tempfile.TemporaryDirectory(prefix="fleetui-prove-")
        self._process: subprocess.Popen[bytes] | None = None
        try:
            program = build_harness(Path(self._folder.name), target)
            weights = folder / "weights"
            sizes = [
                [str(len(side)), *(str(_bytes(shape, dtype)) for _, shape, dtype in side)] for side in self._ports
            ]
            self._process = subprocess.Popen(
                [
                    *(emulator, "-L", root, str(program), str((folder / "kernels").absolute())),
                    *(
                        str(weights.absolute()) if weights.exists() else "-",
                        str(_rows(folder)),
                        *sizes[0],
                        *sizes[1],
                    ),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except BaseException:
            self.close()
            raise

    def run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for name, shape, dtype in self._ports[0]:
                array = np.ascontiguousarray(feeds[name], dtype=dtype)
                if array.shape != shape:
                    raise WorkshopError(f"{name} has shape {array.shape}, not {shape}", "Give inputs that fit")
                process.stdin.write(array.tobytes())
            process.stdin.flush()
            found = {}
            for name, shape, dtype in self._ports[1]:
                found[name] = np.frombuffer(_exactly(process.stdout, _bytes(shape, dtype)), dtype).reshape(shape)
        except BrokenPipeError:
            code = process.wait(timeout=10)
            assert process.stderr is not None
            said = process.stderr.read().decode(errors="replace").strip()
            raise TargetError(
                f"The compiled model failed {self.how} (code {code}{': ' + said[:200] if said else ''})",
                "This is a fault of ours: report it with the model's structure and the target",
            ) from None
        return found

    def latency_us(self) -> float | None:
        return None

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        continue
            process.kill()
            process.wait()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise BrokenPipeError
    return data


def build_harness(folder: Path, target: Target) -> Path:
    """The program that loads a variant on the target; a second or so of zig."""
    program = folder / "harness"
    command = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        target.link,
        "-O1",
        "-o",
        str(program),
        str(HARNESS),
    ]
    done = subprocess.run([*command, "-ldl"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise TargetError(
            f"The test program for {target.name} could not be built: {done.stderr.strip()[:300]}",
            "Install the compiler again: pip install 'fleetui[compile]'",
        )
    return program


Ports = list[tuple[str, tuple[int, ...], str]]


def ports(folder: Path) -> tuple[Ports, Ports]:
    """Names, shapes and dtypes of a variant's inputs and outputs."""
    model = _description(folder)
    return tuple(  # type: ignore[return-value]  # two of them
        [(str(p["name"]), tuple(int(d) for d in p["shape"]), str(p["dtype"])) for p in model[side]]
        for side in ("inputs", "outputs")
    )


def _rows(folder: Path) -> int:
    inputs = ports(folder)[0]
    return inputs[0][1][0] if inputs and inputs[0][1] else 1


def _description(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return found


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
