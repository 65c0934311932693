"""How our processes talk to the process that started them: JSON lines on stdout, commands on stdin.

A child says ``{"kind": "ready", …}`` once it works, ``{"kind": "state", …}`` when something changes, and
``{"kind": "stopped", …}`` last. It takes JSON lines on stdin where it offers commands; the end of stdin means
that the parent is gone, however it went, and the child shuts down in order. Logs go to stderr and to files.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

_lock = threading.Lock()


def say(kind: str, **fields: Any) -> None:
    """One JSON line to the parent. A parent that is gone is not an error here; stdin tells that."""
    line = json.dumps({"kind": kind, **fields}, separators=(",", ":"), default=str) + "\n"
    with _lock, contextlib.suppress(BrokenPipeError, ValueError, OSError):
        sys.stdout.write(line)
        sys.stdout.flush()


class ParentWatch:
    """Reads stdin on a thread of its own: each JSON object goes to ``on_command``, its end to ``on_gone``.

    The thread is a daemon that blocks in ``read``: there is no portable way to wake it, and it holds nothing.
    """

    def __init__(
        self, on_gone: Callable[[], None], on_command: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self._on_gone = on_gone
        self._on_command = on_command
        self._thread = threading.Thread(target=self._run, name="parent-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        # The raw descriptor: a lock held by sys.stdin's buffer at exit would abort the interpreter.
        pending = b""
        while True:
            try:
                data = os.read(0, 65536)
            except OSError:
                data = b""
            if not data:
                self._on_gone()
                return
            pending += data
            *lines, pending = pending.split(b"\n")
            if len(pending) > 1 << 20:
                pending = b""
            for line in lines:
                self._take(line)

    def _take(self, line: bytes) -> None:
        if not line.strip() or self._on_command is None:
            return
        try:
            command = json.loads(line)
        except ValueError:
            say("error", text="not a JSON object", line=line[:200].decode("utf-8", "replace"))
            return
        if isinstance(command, dict):
            self._on_command(command)


def on_signals(stop: Callable[[], None]) -> None:
    """First SIGINT or SIGTERM: shut down in order. A second one: at once."""

    def first(signum: int, _frame: object) -> None:
        signal.signal(signum, signal.SIG_DFL)
        stop()

    signal.signal(signal.SIGINT, first)
    signal.signal(signal.SIGTERM, first)
