"""What a test leaves behind fails it: threads, child processes, Qt timers and windows, unexpected warnings.

A test that provokes a warning on purpose says so: ``@pytest.mark.logs_warnings("words of the message")``.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

OURS = ("fleetui", "fleet_sim")
GRACE_S = 5.0


def _frames_of(threads: list[threading.Thread]) -> str:
    import traceback

    frames = sys._current_frames()
    return "\n".join(
        f"--- {t.name}\n" + "".join(traceback.format_stack(frames[t.ident])[-4:])
        for t in threads
        if t.ident in frames
    )


@pytest.fixture(autouse=True)
def no_leaked_threads() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + GRACE_S
    while True:
        left = [t for t in threading.enumerate() if t not in before and t.is_alive() and not _known(t)]
        if not left:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"threads left running: {[t.name for t in left]}\n{_frames_of(left)}")
        left[0].join(0.05)


def _known(thread: threading.Thread) -> bool:
    # pytest-timeout's watchdog; a Python-side stand-in for a thread that Qt or a C library owns.
    return thread.name.startswith("pytest_timeout") or type(thread).__name__ == "_DummyThread"


_me = psutil.Process()


def _children() -> set[psutil.Process]:
    return {c for c in _me.children(recursive=True) if _alive(c)}


def _alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@pytest.fixture(autouse=True)
def no_leaked_processes() -> Iterator[None]:
    before = _children()
    yield
    deadline = time.monotonic() + GRACE_S
    pause = threading.Event()
    while True:
        left = [c for c in _children() - before if not getattr(c, "_ours", False) and c.pid not in SESSION_PIDS]
        if not left:
            return
        if time.monotonic() > deadline:
            described = []
            for child in left:
                try:
                    described.append(f"{child.pid} {' '.join(child.cmdline())[:120]}")
                    child.kill()
                except psutil.Error:
                    continue
            pytest.fail(f"processes left running: {described}")
        pause.wait(0.05)


class _SessionPids(set[int]):
    """Processes that live as long as the test session (a private PostgreSQL), their children included."""

    def __contains__(self, pid: object) -> bool:
        if super().__contains__(pid):
            return True
        try:
            return any(super(_SessionPids, self).__contains__(p.pid) for p in psutil.Process(pid).parents())  # type: ignore[arg-type]
        except psutil.Error:
            return True  # it is gone


SESSION_PIDS: set[int] = _SessionPids()


class _Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.split(".")[0] in OURS:
            self.records.append(record)


@pytest.fixture(autouse=True)
def no_unexpected_warnings_logged(request: pytest.FixtureRequest) -> Iterator[None]:
    keeper = _Keeper()
    root = logging.getLogger()
    root.addHandler(keeper)
    yield
    root.removeHandler(keeper)
    allowed = [m.args[0] if m.args else "." for m in request.node.iter_markers("logs_warnings")]
    unexpected = [
        f"{r.levelname} {r.name}: {r.getMessage()}"
        for r in keeper.records
        if not any(re.search(pattern, r.getMessage()) for pattern in allowed)
    ]
    if unexpected:
        pytest.fail("unexpected warnings in the log:\n" + "\n".join(unexpected[:20]))


@pytest.fixture(autouse=True)
def no_leaked_qt(request: pytest.FixtureRequest) -> Iterator[None]:
    """Only for tests that use Qt: no visible top-level window, no running timer that the test made."""
    if "qapp" not in request.fixturenames:
        yield
        return
    request.getfixturevalue("qapp")
    from PySide6.QtCore import QCoreApplication, QEvent, QTimer
    from PySide6.QtWidgets import QApplication

    app = QApplication.instance()
    yield
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    windows = [w for w in QApplication.topLevelWidgets() if w.isVisible()]
    names = [f"{type(w).__name__} {w.objectName()!r} {w.windowTitle()!r}" for w in windows]
    for window in windows:
        window.close()
        window.deleteLater()
    timers = [t for t in app.findChildren(QTimer) if t.isActive()]
    problems = names + [f"QTimer {t.objectName()!r} every {t.interval()} ms" for t in timers]
    if problems and os.environ.get("FLEETUI_TEST_KEEP") != "1":
        pytest.fail(f"Qt objects left behind: {problems}")
