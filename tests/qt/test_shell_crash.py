"""Bugs are shown once, with a report; operators' errors are notices; what killed the last run is known."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from fleetui.common.domain.errors import OperatorError, StoreError
from fleetui.desk.ui.context import DeskContext
from fleetui.desk.ui.crash import Crash, CrashDialog, CrashGuard, LogTail, fault_crash

# The offscreen platform says so of every dialog.
OFFSCREEN = "This plugin does not support propagateSizeHints"


class Owner:
    """A desk that only remembers what it was told."""

    def __init__(self) -> None:
        self.crashes: list[Crash] = []
        self.errors: list[OperatorError] = []
        self.saved = 0
        self.interrupted = 0
        self.order: list[str] = []

    def post(self, task: Callable[[], object]) -> None:
        task()

    def operator_error(self, error: OperatorError) -> None:
        self.errors.append(error)

    def save_state(self) -> None:
        self.saved += 1
        self.order.append("saved")

    def show_crash(self, crash: Crash) -> None:
        self.crashes.append(crash)
        self.order.append("shown")

    def interrupt(self) -> None:
        self.interrupted += 1


@pytest.fixture
def guard() -> Iterator[tuple[CrashGuard, Owner]]:
    made, owner = CrashGuard(), Owner()
    made.owner = owner
    made.install()
    yield made, owner
    made.uninstall()


def raise_in(where: Callable[[BaseException], object], error: BaseException) -> None:
    try:
        raise error  # noqa: TRY301 - as far from the hook as a real one
    except BaseException as caught:  # noqa: BLE001 - this is what an excepthook gets
        where(caught)


def through_hook(error: BaseException) -> None:
    raise_in(lambda e: sys.excepthook(type(e), e, e.__traceback__), error)


@pytest.mark.logs_warnings("a bug in the")
def test_a_bug_is_shown_once_after_the_state_was_saved(guard: tuple[CrashGuard, Owner]) -> None:
    _, owner = guard
    logging.getLogger("fleetui.test").info("the last thing that went well")
    for _ in range(3):
        through_hook(KeyError("nobody"))
    assert len(owner.crashes) == 1
    assert owner.order == ["saved", "shown"]
    crash = owner.crashes[0]
    assert crash.sentence == "KeyError: 'nobody'"
    assert "raise error" in crash.trace
    through_hook(ValueError("another one"))
    assert len(owner.crashes) == 2


@pytest.mark.logs_warnings("a bug in the")
def test_a_bug_on_another_thread_is_shown_too(guard: tuple[CrashGuard, Owner]) -> None:
    _, owner = guard

    def work() -> None:
        raise ZeroDivisionError("by a thread")

    thread = threading.Thread(target=work, name="busy")
    thread.start()
    thread.join()
    assert [crash.where for crash in owner.crashes] == ["thread busy"]


@pytest.mark.logs_warnings("cannot be reached")
def test_an_operators_error_is_no_crash(guard: tuple[CrashGuard, Owner]) -> None:
    _, owner = guard
    through_hook(StoreError("The store cannot be reached", "Start it"))
    assert not owner.crashes
    assert [str(error) for error in owner.errors] == ["The store cannot be reached. Start it."]


def test_interrupt_closes(guard: tuple[CrashGuard, Owner]) -> None:
    _, owner = guard
    through_hook(KeyboardInterrupt())
    assert owner.interrupted == 1
    assert not owner.crashes


@pytest.mark.logs_warnings("a bug in the|could not be saved")
def test_a_state_that_cannot_be_saved_does_not_hide_the_bug(guard: tuple[CrashGuard, Owner]) -> None:
    _, owner = guard

    def fail() -> None:
        raise OSError("disk full")

    owner.save_state = fail  # type: ignore[method-assign]
    through_hook(RuntimeError("x"))
    assert len(owner.crashes) == 1


def test_hooks_are_given_back() -> None:
    before = (sys.excepthook, threading.excepthook, sys.unraisablehook)
    guard = CrashGuard()
    guard.install()
    assert sys.excepthook != before[0]
    guard.uninstall()
    assert (sys.excepthook, threading.excepthook, sys.unraisablehook) == before


def test_the_tail_is_bounded() -> None:
    tail = LogTail(10)
    for n in range(50):
        tail.emit(logging.LogRecord("fleetui.x", logging.INFO, "", 0, "line %d", (n,), None))
    lines = tail.text().splitlines()
    assert len(lines) == 10
    assert lines[-1].endswith("line 49")
    assert tail.text(2).splitlines() == lines[-2:]


@pytest.mark.logs_warnings("no fault file")
def test_what_killed_the_last_run_is_known_at_the_next_start(tmp_path: Path) -> None:
    """A real process, ended by a real segmentation fault."""
    file = tmp_path / "fault.txt"
    code = (
        "import sys; from pathlib import Path; from fleetui.desk.ui.crash import CrashGuard;"
        "g = CrashGuard(); assert g.open_fault_file(Path(sys.argv[1])) == '';"
        "import faulthandler; faulthandler._sigsegv()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, check=False, timeout=60)
    assert done.returncode < 0
    guard = CrashGuard()
    try:
        stacks = guard.open_fault_file(file)
    finally:
        guard.close_fault_file()
    assert "Segmentation fault" in stacks
    assert "Segmentation fault" in fault_crash(stacks).sentence
    assert "Segmentation fault" in file.with_suffix(".last.txt").read_text(), "kept for a report"
    assert not file.exists(), "a run that ended well leaves none"
    assert CrashGuard().open_fault_file(tmp_path / "no" / "folder.txt") == ""


def test_report_names_versions_and_hides_the_home_folder() -> None:
    crash = Crash("KeyError: 'x'", f"File {Path.home()}/secret/place.py", "a line of the log", "thread t")
    report = crash.report()
    for part in ("FleetUI", "Python", "Qt", "In the thread t: KeyError", "a line of the log"):
        assert part in report
    assert str(Path.home()) not in report


@pytest.mark.qt_log_ignore(OFFSCREEN)
def test_dialog_by_keyboard(context: DeskContext, qtbot: object, qapp: QApplication) -> None:
    dialog = CrashDialog(context.theme, Crash("KeyError: 'x'", "Traceback\n  here", "log line"))
    qtbot.addWidget(dialog)  # type: ignore[attr-defined]
    with qtbot.wait_active(dialog):  # type: ignore[attr-defined]
        dialog.show()
        dialog.activateWindow()
    assert QApplication.focusWidget() is dialog.go_on
    QTest.mouseClick(dialog.copy, Qt.MouseButton.LeftButton)
    assert "KeyError: 'x'" in qapp.clipboard().text()
    dialog.add(2)
    assert "2" in dialog._more.text()
    QTest.keyClick(dialog.go_on, Qt.Key.Key_Return)
    assert not dialog.isVisible()
    assert not dialog.quit_wanted


@pytest.mark.qt_log_ignore(OFFSCREEN)
def test_dialog_can_quit(context: DeskContext, qtbot: object) -> None:
    dialog = CrashDialog(context.theme, Crash("KeyError", "t", "l"))
    qtbot.addWidget(dialog)  # type: ignore[attr-defined]
    dialog.show()
    QTest.mouseClick(dialog.quit, Qt.MouseButton.LeftButton)
    assert dialog.quit_wanted
