"""Operations as objects: what takes time is done on a worker thread, and its result comes back to the main thread.

    Operation("Rename device", work).on_done(show).on_error(tell).start(operations)

Two executors: one of width 1 for whatever writes to the store, so that writes keep their order, and a wider one
for reads and the rest. Results travel through ``post_to_main``, which the window supplies. Nothing is swallowed:
an error that an operation does not handle goes to ``on_unhandled``, also one raised by a result's own handler.
Start operations from the main thread.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from fleetui.common.domain.clock import Clock
from fleetui.common.domain.errors import OperatorError

log = logging.getLogger("fleetui.desk.operations")

R = TypeVar("R")
PostToMain = Callable[[Callable[[], None]], None]


class Cancelled(Exception):  # noqa: N818 - it is not an error: somebody pressed stop
    """Raised inside an operation that was told to stop; it ends without a word."""


class Lane(StrEnum):
    STORE = "store"  # one at a time, in order
    OTHER = "other"


class Progress:
    """What an operation may say while it works, and how it learns that it should stop. Any thread."""

    def __init__(self, told: Callable[[float, str], None]) -> None:
        self._told = told
        self._stop = threading.Event()

    def say(self, share: float, text: str = "") -> None:
        """``share`` of one done (negative: unknown); raises :class:`Cancelled` when it should stop."""
        self.check()
        self._told(share, text)

    def check(self) -> None:
        if self._stop.is_set():
            raise Cancelled

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        self._stop.set()


@dataclass(slots=True, eq=False)
class Operation(Generic[R]):
    """One piece of work. ``work`` runs on a worker thread and takes nothing, or a :class:`Progress`."""

    title: str
    work: Callable[[], R] | Callable[[Progress], R]
    lane: Lane = Lane.OTHER
    takes_progress: bool = False
    quiet: bool = False  # not shown in the list of what is running
    initiator: object = None
    share: float = -1.0
    text: str = ""
    started: float = 0.0
    number: int = 0
    _done: Callable[[R], object] | None = None
    _error: Callable[[Exception], object] | None = None
    _progress: Progress | None = None
    _cancelled: bool = False

    def on_done(self, handler: Callable[[R], object]) -> Operation[R]:
        self._done = handler
        return self

    def on_error(self, handler: Callable[[Exception], object]) -> Operation[R]:
        self._error = handler
        return self

    def in_store(self) -> Operation[R]:
        """One at a time with everything else that writes to the store."""
        self.lane = Lane.STORE
        return self

    def start(self, operations: Operations) -> Operation[R]:
        operations.start(self)
        return self

    def cancel(self) -> None:
        """Its handlers will not be called; the work itself ends at its next ``Progress.check``."""
        self._cancelled = True
        if self._progress is not None:
            self._progress.stop()


@dataclass(slots=True)
class _Running:
    operation: Operation[Any]
    future: Future[Any] | None = None


@dataclass(slots=True)
class Operations:
    """The two executors. ``on_unhandled`` gets every error that nobody else took, on the main thread."""

    post_to_main: PostToMain
    clock: Clock
    on_unhandled: Callable[[Operation[Any], Exception], None]
    width: int = 4
    on_changed: Callable[[], None] | None = None
    _lanes: dict[Lane, ThreadPoolExecutor] = field(default_factory=dict)
    _running: dict[int, _Running] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _closed: bool = False

    def __post_init__(self) -> None:
        self._lanes = {
            Lane.STORE: ThreadPoolExecutor(1, "desk-store"),
            Lane.OTHER: ThreadPoolExecutor(self.width, "desk-work"),
        }

    @property
    def running(self) -> list[Operation[Any]]:
        """What is under way or waiting, oldest first, without the quiet ones."""
        return [entry.operation for entry in self._running.values() if not entry.operation.quiet]

    @property
    def idle(self) -> bool:
        return not self._running

    def start(self, operation: Operation[Any]) -> None:
        if self._closed:
            return
        operation.number = next(self._numbers)
        operation.started = self.clock.monotonic()
        operation._progress = Progress(lambda share, text: self._told(operation, share, text))  # noqa: SLF001 - the two are one
        entry = _Running(operation)
        self._running[operation.number] = entry
        entry.future = self._lanes[operation.lane].submit(self._work, operation)
        self._changed()

    def _work(self, operation: Operation[Any]) -> None:
        """On a worker thread."""
        progress = operation._progress  # noqa: SLF001 - the two are one
        assert progress is not None
        try:
            progress.check()
            work: Callable[..., Any] = operation.work
            result = work(progress) if operation.takes_progress else work()
        except Cancelled:
            self.post_to_main(lambda: self._forget(operation))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is handed to the main thread
            failure = error
            self.post_to_main(lambda: self._failed(operation, failure))
        else:
            self.post_to_main(lambda: self._finished(operation, result))

    def _told(self, operation: Operation[Any], share: float, text: str) -> None:
        """On a worker thread: newest wins, so plain attributes will do."""
        operation.share, operation.text = share, text
        self.post_to_main(self._changed)

    def _finished(self, operation: Operation[Any], result: Any) -> None:
        self._forget(operation)
        if operation._cancelled or operation._done is None:  # noqa: SLF001 - the two are one
            return
        try:
            operation._done(result)  # noqa: SLF001 - the two are one
        except Exception as error:  # noqa: BLE001 - a handler's bug is reported like any other
            self.on_unhandled(operation, error)

    def _failed(self, operation: Operation[Any], error: Exception) -> None:
        self._forget(operation)
        if operation._cancelled:  # noqa: SLF001 - the two are one
            log.info("%s failed after it was stopped: %s", operation.title, error)
            return
        if not isinstance(error, OperatorError):
            log.error("%s failed", operation.title, exc_info=error)
        if operation._error is None:  # noqa: SLF001 - the two are one
            self.on_unhandled(operation, error)
            return
        try:
            operation._error(error)  # noqa: SLF001 - the two are one
        except Exception as second:  # noqa: BLE001 - a handler's bug is reported like any other
            self.on_unhandled(operation, second)

    def _forget(self, operation: Operation[Any]) -> None:
        self._running.pop(operation.number, None)
        self._changed()

    def _changed(self) -> None:
        if self.on_changed is not None:
            self.on_changed()

    def close(self) -> None:
        """Stops what can be stopped, lets what writes to the store finish, and waits for the threads."""
        if self._closed:
            return
        self._closed = True
        for entry in list(self._running.values()):
            if entry.operation.lane is Lane.OTHER:
                entry.operation.cancel()
        self._lanes[Lane.OTHER].shutdown(wait=False, cancel_futures=True)
        self._lanes[Lane.STORE].shutdown(wait=True)
        self._lanes[Lane.OTHER].shutdown(wait=True)
