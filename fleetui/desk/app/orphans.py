"""Who runs where: a file per child process, so that a desk which was killed finds what it left behind.

A process number alone proves nothing, it may be somebody else's by now; so the file also keeps when the process
began, in the kernel's own count, and the machine's boot. Only a process that matches all three is ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

from fleetui.common.domain.clock import Clock


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def start_mark(pid: int) -> str:
    """When process ``pid`` began, in a form that is only good for comparing; empty where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return ""
    fields = stat[stat.rindex(")") + 2 :].split()
    return "" if fields[0] == "Z" else fields[19]


@dataclass(frozen=True, slots=True)
class Pidfile:
    path: Path

    def write(self, pid: int) -> None:
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        fresh.write_text(json.dumps({"pid": pid, "began": start_mark(pid), "boot": boot_id()}), "ascii")
        fresh.replace(self.path)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def living(self) -> int:
        """The process that the file names, if that very process still lives; else 0."""
        try:
            data = json.loads(self.path.read_text("ascii"))
            pid, began, boot = int(data["pid"]), str(data["began"]), str(data["boot"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        if pid <= 1 or not began or boot != boot_id():
            return 0
        return pid if start_mark(pid) == began else 0


def sweep(folder: Path, clock: Clock, patience_s: float = 5.0) -> list[str]:
    """Ends what an earlier desk left running and says which. Call while holding the folder's lock.

    An orphan has seen the end of its stdin and is shutting down by itself: it gets ``patience_s`` for that, then
    is asked by signal, then ended with all that it started.
    """
    left = {path.stem: Pidfile(path) for path in sorted(folder.glob("*.pid"))}
    found = [name for name, file in left.items() if file.living()]
    for number, patience in ((0, patience_s), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
        alive = [file for file in left.values() if file.living()]
        if number:
            for file in alive:
                _end(file.living(), number)
        _wait_gone(alive, clock, patience)
    for file in left.values():
        if not file.living():
            file.remove()
    return found


def _end(pid: int, number: int) -> None:
    if pid <= 1:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        # Children lead their own group; anything else in our files would be a bug, and is spared.
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def _wait_gone(files: list[Pidfile], clock: Clock, seconds: float) -> None:
    deadline = clock.monotonic() + seconds
    pause = threading.Event()
    while any(file.living() for file in files) and clock.monotonic() < deadline:
        pause.wait(0.05)
