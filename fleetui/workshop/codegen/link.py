"""Objects and the entry in, one shared object (or static archive) out. Speaks to zig, or to the system's compiler.

zig comes as a package and links for every target from any machine, so it is preferred; its cache lies in the
user's cache folder. Without it the system's ``cc`` serves for the machine it runs on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fleetui.workshop.codegen import stubs
from fleetui.workshop.codegen.entry import resource
from fleetui.workshop.errors import LimitError, MissingExtra, TargetError, WorkshopError
from fleetui.workshop.target import Target

EXPORTS = ("abi", "workspace", "weights", "run", "call")
POOL = ("pool_size", "pool_open", "pool_work", "pool_host", "pool_close", "python_use", "python_call")
TIMEOUT_S = 300
ZIG = (sys.executable, "-m", "ziglang")


class LinkError(WorkshopError):
    code = "link"


@dataclass(frozen=True, slots=True)
class Linker:
    """A command that compiles C and links, and the one that makes archives."""

    compiler: tuple[str, ...]
    archiver: tuple[str, ...]
    zig: bool


def linker(target: Target) -> Linker:
    """What to link with; ``TargetError`` or ``MissingExtra`` where there is nothing."""
    if not target.link:
        raise TargetError(f"{target.title} cannot be linked here: {target.why_not or 'no linker knows it'}")
    if find_spec("ziglang") is not None:
        compiler = (*ZIG, "cc", "-target", target.link, *target.extra.get("cflags", ()))
        return Linker(compiler, (*ZIG, "ar"), zig=True)
    system = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if system and target.name == "host":
        return Linker((system,), (shutil.which("ar") or "ar",), zig=False)
    raise MissingExtra(f"Linking for {target.title}", "compile")


def link(
    target: Target,
    entry: str,
    objects: Sequence[Path],
    output: Path,
    work: Path,
    *,
    names: Sequence[str],
    libraries: Sequence[str] = (),
) -> None:
    """``names`` are the exported functions; ``work`` is a folder of this job for what comes between."""
    tool = linker(target)
    source = work / "entry.c"
    source.write_text(entry, "utf-8")
    for name in ("fleet_model.h", "pool.h", "python.h", "windows.h"):
        (work / name).write_text(resource(name), "utf-8")
    if target.static:
        _archive(tool, target, source, objects, output, work)
    else:
        _shared(tool, target, source, objects, output, work, names, libraries)


COMMON = ("-std=gnu11", "-O2", "-fno-strict-aliasing", "-fvisibility=hidden", "-g0", "-Wall")
FREESTANDING = ("-fno-sanitize=all", "-fno-stack-protector")
BARE = ("-ffreestanding", "-ffunction-sections", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables")
VISIBLE = '-DFM_API=__attribute__((visibility("default")))'


def _shared(
    tool: Linker,
    target: Target,
    source: Path,
    objects: Sequence[Path],
    output: Path,
    work: Path,
    names: Sequence[str],
    libraries: Sequence[str],
) -> None:
    def call(args: Sequence[str]) -> None:
        _call(args, work, target)

    args = [*tool.compiler, *COMMON, "-s"]
    if tool.zig:
        args += FREESTANDING
    ends = [f"-l{library}" for library in libraries]
    match target.os:
        case "windows":
            args += ["-shared", "-nostdlib", "-DFM_API=__declspec(dllexport)", "-Wl,-e,fm_dll"]
            ends += stubs.windows(ZIG, work, call)
        case "macos":
            args += ["-shared", "-fPIC", VISIBLE, "-Wl,-dead_strip", "-Wl,-install_name,@rpath/kernels"]
            ends.append("-lm")
        case "wasm":
            args += ["-mexec-model=reactor", "-Wl,--gc-sections", "-Wl,--export-memory"]
            args += [f"-Wl,--export={name}" for name in (*names, "malloc", "free")]
        case _:
            script = work / "exports.map"
            script.write_text("{ global: " + " ".join(f"{name};" for name in names) + " local: *; };\n", "utf-8")
            args += ["-shared", "-fPIC", VISIBLE, f"-Wl,--version-script={script.name}", "-Wl,--gc-sections"]
            args += ["-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,relro,-z,now"]
            if absent := target.extra.get("stubs"):
                args.append("-nostdlib")
                ends += ["-Wl,--no-as-needed", *stubs.shared(tool.compiler, absent, work, call)]
            else:
                ends.append("-lm")
    call([*args, source.name, *(str(path) for path in objects), "-o", str(output), *ends])


def _archive(tool: Linker, target: Target, source: Path, objects: Sequence[Path], output: Path, work: Path) -> None:
    plain = [path for path in objects if path.suffix != ".c"]
    for path in (source, *(path for path in objects if path.suffix == ".c")):
        made = work / f"{path.stem}.c.o"
        flags = [*COMMON, *(FREESTANDING if tool.zig else ()), *BARE]
        _call([*tool.compiler, *flags, "-c", str(path), "-o", str(made)], work, target)
        plain.insert(0, made)
    output.unlink(missing_ok=True)
    _call([*tool.archiver, "rcsD", str(output), *(str(path) for path in plain)], work, target)


def cache_folder() -> Path:
    """Where zig keeps what it has built of the C library for a target: once for each, tens of megabytes."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fleetui" / "zig"


def environment(work: Path) -> dict[str, str]:
    """For the linker: a cache shared by all jobs, and one that goes with this job's folder."""
    return {
        "ZIG_GLOBAL_CACHE_DIR": str(cache_folder()),
        **os.environ,
        "ZIG_LOCAL_CACHE_DIR": str(work / "zig"),
        "SOURCE_DATE_EPOCH": "0",
    }


def _call(args: Sequence[str], work: Path, target: Target) -> None:
    try:
        done = subprocess.run(
            args, cwd=work, env=environment(work), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except OSError as error:
        raise LinkError(f"The linker cannot be started: {error.strerror or error}") from None
    except subprocess.TimeoutExpired:
        raise LimitError(f"Linking for {target.title} took more than {TIMEOUT_S} s") from None
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()
        if "No space left" in done.stderr or "NoSpaceLeft" in done.stderr:
            raise LimitError("The disk is full", "Free some space and try again")
        raise LinkError(
            f"Linking for {target.title} failed: {words[0].strip()[:300] if words else 'no reason was given'}"
        )
