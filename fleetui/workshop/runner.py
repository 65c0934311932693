"""Runs a job in a process of its own and keeps it within its limits.

The process leads a group, so that it and what it started can be ended together. ``run`` blocks the calling
thread; a stop is asked for from any thread through the event. Memory is the whole group's resident set, looked at
a few times a second; time is wall time. A process that does not heed a stop within its grace is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetui.workshop.errors import LimitError, Stopped, WorkshopError
from fleetui.workshop.job import Request, sweep
from fleetui.workshop.progress import Stage, Step

LOOK_S = 0.2
TAIL = 20


@dataclass(frozen=True, slots=True)
class Ceilings:
    """``memory`` in bytes (0: three quarters of the machine's), wall ``seconds``, and ``grace`` after a stop."""

    memory: int = 0
    seconds: float = 3600.0
    grace: float = 5.0

    def bytes(self) -> int:
        return self.memory or int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 0.75)


class JobFailed(WorkshopError):  # noqa: N818 - what became of a job
    """What the job process said; ``code`` is the code of the error it met."""

    def __init__(
        self, sentence: str, fix: str = "", *, code: str = "workshop", operator: str = "", node: str = ""
    ) -> None:
        super().__init__(sentence, fix)
        self.code = code
        self.operator = operator
        self.node = node


@dataclass(slots=True)
class Outcome:
    record: dict[str, Any]
    peak_bytes: int
    seconds: float


def run(
    request: Request,
    on_step: Callable[[Step], None] = lambda _step: None,
    stop: threading.Event | None = None,
    ceilings: Ceilings | None = None,
) -> Outcome:
    """The job's record, or ``JobFailed``/``Stopped``/``LimitError``. Leaves no process and no partial output."""
    limits = ceilings or Ceilings()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "fleetui.workshop.jobprocess"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "TVM_NUM_THREADS": "2"},
    )
    try:
        return _Watch(process, request, on_step, stop or threading.Event(), limits).run()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        sweep(Path(request.out).expanduser().absolute())


class _Watch:
    def __init__(
        self,
        process: subprocess.Popen[bytes],
        request: Request,
        on_step: Callable[[Step], None],
        stop: threading.Event,
        limits: Ceilings,
    ) -> None:
        self.process, self.request, self.on_step, self.stop, self.limits = process, request, on_step, stop, limits
        self.result: dict[str, Any] | None = None
        self.tail: list[str] = []
        self.peak = 0
        self.begin = time.monotonic()

    def run(self) -> Outcome:
        assert self.process.stdin
        assert self.process.stdout
        assert self.process.stderr
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(self.request.to_json()).encode() + b"\n")
            self.process.stdin.flush()
        rest = {"out": b"", "err": b""}
        asked = 0.0
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ, "out")
            selector.register(self.process.stderr, selectors.EVENT_READ, "err")
            while selector.get_map():
                for key, _ in selector.select(LOOK_S):
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                        continue
                    *lines, rest[key.data] = (rest[key.data] + data).split(b"\n")
                    for line in lines:
                        self._heard(key.data, line)
                now = time.monotonic()
                if self.stop.is_set() and not asked:
                    asked = now
                    self._ask()
                if asked and now - asked > self.limits.grace:
                    break
                self._within_limits(now)
                if self.result is not None:
                    break
                if self.process.poll() is not None and not selector.select(0):
                    break
        return self._outcome()

    def _heard(self, stream: str, line: bytes) -> None:
        if stream == "err":
            self.tail = [*self.tail, line.decode(errors="replace")][-TAIL:]
            return
        try:
            said = json.loads(line)
        except ValueError:
            return
        kind = said.pop("kind", "")
        if kind == "step":
            said["stage"] = Stage(said["stage"])
            self.on_step(Step(**said))
        elif kind in {"done", "error"}:
            self.result = said

    def _ask(self) -> None:
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError, OSError):
            self.process.stdin.write(b'{"command":"stop"}\n')
            self.process.stdin.flush()

    def _within_limits(self, now: float) -> None:
        used = group_memory(self.process.pid)
        self.peak = max(self.peak, used)
        if used > self.limits.bytes():
            raise LimitError(
                f"The job took more than its {self.limits.bytes() >> 20} MiB of memory and was ended",
                "Allow it more with --memory, or compile fewer variants at once",
            )
        if now - self.begin > self.limits.seconds:
            raise LimitError(
                f"The job took longer than its {self.limits.seconds:.0f} s and was ended",
                "Allow it more with --timeout, or tune for a shorter time",
            )

    def _outcome(self) -> Outcome:
        said = self.result
        if said is None:
            if self.stop.is_set():
                raise Stopped
            code = self.process.wait(timeout=5)
            how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
            last = f" Its last words: {self.tail[-1]}" if self.tail else ""
            raise JobFailed(
                f"The job's process ended {how}.{last}", "Try again; if it repeats, report it", code="died"
            )
        if "record" in said:
            return Outcome(said["record"], self.peak, time.monotonic() - self.begin)
        if said.get("stopped"):
            raise Stopped
        raise JobFailed(
            said["sentence"],
            said.get("fix", ""),
            code=said.get("code", "workshop"),
            operator=said.get("operator", ""),
            node=said.get("node", ""),
        )


def group_memory(group: int) -> int:
    """Resident bytes of every process of a group (Linux; elsewhere of its leader and children)."""
    proc = Path("/proc")
    if not proc.is_dir():
        return _family_memory(group)
    total, page = 0, os.sysconf("SC_PAGE_SIZE")
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                total += int((entry / "statm").read_text().split()[1]) * page
        except (OSError, IndexError, ValueError):
            continue  # it ended while we looked
    return total


def _family_memory(pid: int) -> int:
    import psutil

    try:
        leader = psutil.Process(pid)
        return sum(p.memory_info().rss for p in [leader, *leader.children(recursive=True)])
    except psutil.Error:
        return 0
