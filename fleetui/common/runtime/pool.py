"""Threads for compiled models: Python owns them, the code they run lies in the models themselves.

One pool serves every model and session of a process. A call that finds it busy runs on the calling thread alone.
"""

from __future__ import annotations

import ctypes
import threading
from types import TracebackType
from typing import Self

from fleetui.common.runtime.binding import Library, address, aligned
from fleetui.common.runtime.errors import LoadError, RunError

SPIN_US = 80
"""How long a thread waits awake: long enough for the next step of the same call, short enough to be idle after."""


class Pool:
    """``threads`` counts the calling thread too. Close it, or use it as a context."""

    def __init__(self, threads: int, spin_us: int = SPIN_US) -> None:
        if threads < 1:
            raise LoadError(f"A pool of {threads} threads cannot work", "Ask for one or more")
        self.threads = threads
        self.spin_us = spin_us
        self._lock = threading.Lock()
        self._workers: list[threading.Thread] = []
        self._memory = aligned(0)
        self._library: Library | None = None
        self._host = 0
        self._closed = False

    def host(self, library: Library) -> int:
        """Address of the ``fm_host``. The first model to ask lends its code to the threads."""
        with self._lock:
            if self._closed:
                raise LoadError("The pool is closed", "Make a new one")
            if self.threads == 1:
                return 0
            if self._library is None:
                self._open(library)
            return self._host

    def _open(self, library: Library) -> None:
        size: int = library.pool("size", ctypes.c_size_t)()
        self._memory = aligned(size)
        self._memory[:] = 0
        where = address(self._memory)
        pool_open = library.pool("open", ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)
        if code := pool_open(where, self.threads, self.spin_us):
            raise RunError(code)
        self._host = library.pool("host", ctypes.c_void_p, ctypes.c_void_p)(where)
        self._library = library
        work = library.pool("work", ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)
        for index in range(1, self.threads):
            worker = threading.Thread(target=work, args=(where, index), name=f"model-{index}", daemon=True)
            worker.start()
            self._workers.append(worker)

    def close(self) -> None:
        """End the threads. Models bound to the pool go on, each call on its own thread."""
        with self._lock:
            self._closed = True
            if self._library is None:
                return
            self._library.pool("close", None, ctypes.c_void_p)(address(self._memory))
            while self._workers:
                self._workers.pop().join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
