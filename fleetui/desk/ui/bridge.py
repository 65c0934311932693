"""The only place where other threads hand things to Qt.

``Bridge.post`` is what executors, the feed and the supervisor are given: it may be called from any thread and
runs a function on the main one, in the order of the calls. What changes are shown, how often and how much at a
time is decided in ``app/feed.py`` and ``app/slot.py`` (newest wins, at most four times a second, slower where
drawing takes long); here they only cross. Receivers are slots of a QObject and connections are
queued, because a signal of a foreign thread into a bare function may crash the process.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable

from PySide6.QtCore import QObject, Qt, QTimer, Signal, Slot

Task = Callable[[], object]


class Bridge(QObject):
    """Runs functions of other threads on the main thread. Made, and closed, on the main thread."""

    _wake = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._lock = threading.Lock()
        self._tasks: deque[Task] = deque()
        self._awake = False
        self._closed = False
        self._turns: deque[Task] = deque()
        # A timer object, not QTimer.singleShot(0, …): that is a posted event, and goes before painting.
        self._turn = QTimer(self)
        self._turn.setSingleShot(True)
        self._turn.setInterval(0)
        self._turn.timeout.connect(self._next)
        self._wake.connect(self._drain, Qt.ConnectionType.QueuedConnection)

    def post(self, task: Task) -> None:
        """From any thread. After :meth:`close` tasks are dropped: nobody is left to look at their results."""
        with self._lock:
            if self._closed:
                return
            self._tasks.append(task)
            if self._awake:
                return
            self._awake = True
        self._wake.emit()

    @Slot()
    def _drain(self) -> None:
        with self._lock:
            tasks, self._tasks = self._tasks, deque()
            self._awake = False
        self._run(tasks)

    def next_turn(self, task: Task) -> None:
        """On the main thread: runs ``task`` after everything that waits has had its turn, painting included."""
        if not self._closed:
            self._turns.append(task)
            self._turn.start()

    @Slot()
    def _next(self) -> None:
        turns, self._turns = self._turns, deque()
        self._run(turns)

    @staticmethod
    def _run(tasks: Iterable[Task]) -> None:
        for task in tasks:
            try:
                task()
            except Exception:  # noqa: BLE001 - one task's bug must not cost the others; it goes where all bugs go
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._tasks.clear()
        self._turns.clear()
        self._turn.stop()
