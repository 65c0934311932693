"""One run of a child process: its pipes, its end, and the group it leads. Knows nothing of restarts.

Used by the supervisor's thread under the supervisor's lock. POSIX: the child gets a session of its own, so that
a signal meant for the desk does not reach it and one meant for it reaches all that it started.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from fleetui.common.domain.errors import ProcessError

LONGEST_LINE = 1 << 20
TAIL_LINES = 200
LOG_KEPT = 2_000_000  # bytes of its stderr in the file; the one before is kept beside


class ChildProcess:
    """A process that was started. ``streams`` are the descriptors to watch: stdout, stderr, and its end."""

    def __init__(self, popen: subprocess.Popen[bytes], log: IO[bytes] | None) -> None:
        self._popen = popen
        self._log = log
        self._pending = {"out": b"", "err": b""}
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.pid = popen.pid
        assert popen.stdout is not None
        assert popen.stderr is not None
        self.streams: dict[str, int] = {"out": popen.stdout.fileno(), "err": popen.stderr.fileno()}
        for descriptor in self.streams.values():
            os.set_blocking(descriptor, False)
        self._pidfd = -1
        with contextlib.suppress(AttributeError, OSError):
            self._pidfd = os.pidfd_open(popen.pid)
            self.streams["end"] = self._pidfd
        self.watched = self._pidfd >= 0

    @classmethod
    def start(cls, command: list[str], environment: Mapping[str, str], log: Path | None) -> ChildProcess:
        file: IO[bytes] | None = None
        if log is not None:
            if log.exists() and log.stat().st_size > LOG_KEPT:
                log.replace(log.with_suffix(".old"))
            file = log.open("ab")
        try:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                bufsize=0,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            )
        except OSError:
            if file is not None:
                file.close()
            raise
        assert popen.stdin is not None
        os.set_blocking(popen.stdin.fileno(), False)
        return cls(popen, file)

    @property
    def code(self) -> int | None:
        return self._popen.returncode

    def send(self, data: bytes) -> None:
        stdin = self._popen.stdin
        refusal = ProcessError("The process does not take commands now", "Wait a moment and try again")
        if stdin is None or stdin.closed:
            raise refusal
        try:
            written = stdin.write(data)
        except OSError:
            raise refusal from None
        if written != len(data):
            # Half a line would spoil the next; the child is stuck, and ending its input is all that is left.
            self.end_input()
            raise refusal

    def read(self, stream: str) -> tuple[list[dict[str, Any]], bool]:
        """The JSON lines that came on stdout, and whether the stream is at its end."""
        if stream == "end":
            return [], False
        try:
            data = os.read(self.streams[stream], 65536)
        except BlockingIOError:
            return [], False
        except OSError:
            data = b""
        return self._take(stream, data), not data

    def _take(self, stream: str, data: bytes) -> list[dict[str, Any]]:
        if stream == "err" and data and self._log is not None:
            with contextlib.suppress(OSError):  # a full disk must not end the supervision
                self._log.write(data)
                self._log.flush()
        *lines, rest = (self._pending[stream] + data).split(b"\n")
        if not data and rest:
            lines, rest = [*lines, rest], b""
        self._pending[stream] = rest if len(rest) <= LONGEST_LINE else b""
        if stream == "err":
            self.tail.extend(text for line in lines if (text := line.decode("utf-8", "replace").rstrip()))
            return []
        spoken: list[dict[str, Any]] = []
        for line in lines:
            with contextlib.suppress(ValueError):
                value = json.loads(line)
                if isinstance(value, dict):
                    spoken.append(value)
        return spoken

    def ended(self) -> bool:
        """Whether the process is gone, without collecting it: until then its group cannot be another's."""
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        except ChildProcessError:
            return True

    def finish(self) -> list[dict[str, Any]]:
        """After its end: ends what is left of its group, collects it, and reads what it still had to say."""
        self._signal_group(signal.SIGKILL)
        self._popen.wait()
        spoken: list[dict[str, Any]] = []
        for stream in [s for s in self.streams if s != "end"]:
            for _ in range(64):  # what is in the pipe, and no more: a stray heir of it may write for ever
                lines, ended = self.read(stream)
                spoken += lines
                if ended or not self._readable(stream):
                    break
            spoken += self._take(stream, b"")
        self.streams.clear()
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr, self._log):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        return spoken

    def _readable(self, stream: str) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self.streams[stream], selectors.EVENT_READ)
            return bool(selector.select(0))

    def end_input(self) -> None:
        if self._popen.stdin is not None:
            with contextlib.suppress(OSError):
                self._popen.stdin.close()

    def terminate(self) -> None:
        self._signal_group(signal.SIGTERM)

    def kill(self) -> None:
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
