"""What happens when the program itself is at fault, and what is known of it afterwards.

``CrashGuard`` takes the three hooks of Python (main thread, other threads, destructors), Qt's messages, and a
``faulthandler`` file for what kills the process outright; that file is read at the next start. An operator's
error is a notice, never a crash. A bug is logged, the state is saved, and the person is told once, with
everything that belongs into a report. Hooks may be called on any thread; windows are made on the main one.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import platform
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

from PySide6.QtCore import QCoreApplication, QMessageLogContext, QtMsgType, qInstallMessageHandler, qVersion
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QDialog, QPlainTextEdit, QWidget

from fleetui import __version__
from fleetui.common.domain.errors import OperatorError
from fleetui.common.logs import FORMAT
from fleetui.desk.ui.theme import Theme
from fleetui.desk.ui.widgets.basic import Button, IconLabel, column, label, named, row

log = logging.getLogger("fleetui.desk.crash")
qt_log = logging.getLogger("fleetui.qt")

TAIL = 200


class LogTail(logging.Handler):
    """The last lines of the log, in memory."""

    def __init__(self, lines: int = TAIL) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=lines)
        self.setFormatter(logging.Formatter(FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))

    def text(self, lines: int = TAIL) -> str:
        return "\n".join(list(self._lines)[-lines:])


@dataclass(frozen=True, slots=True)
class Crash:
    """One bug as it is shown and reported."""

    sentence: str
    trace: str
    log: str
    where: str = "main thread"

    @property
    def signature(self) -> str:
        """The same for the same bug: its last two lines say where and what."""
        return "\n".join(self.trace.strip().splitlines()[-3:])

    def report(self) -> str:
        """All of it as text, with the versions that matter; the home folder's name is left out."""
        versions = f"FleetUI {__version__}, Python {platform.python_version()}, Qt {qVersion()}"
        text = "\n".join(
            (
                f"{versions}, {platform.platform()}",
                f"In the {self.where}: {self.sentence}",
                "",
                self.trace.strip(),
                "",
                "Log:",
                self.log,
            )
        )
        return text.replace(str(Path.home()), "~")


class CrashDialog(QDialog):
    """Says what went wrong, shows what a report needs, and asks whether to go on. ``quit_wanted`` is the answer."""

    def __init__(self, theme: Theme, crash: Crash, parent: QWidget | None = None, *, past: bool = False) -> None:
        super().__init__(parent)
        self.crash = crash
        self.quit_wanted = False
        self.setObjectName("crash-dialog")
        title = (
            self.tr("The last run ended with a crash") if past else self.tr("Something went wrong that should not")
        )
        self.setWindowTitle(title)
        self.setAccessibleName(title)
        self.resize(720, 480)
        self._more = label("", "small", "warn")
        self._more.hide()
        if past:
            what = self.tr("Nothing needs to be done. If it happens again, please report it with the text below.")
        else:
            what = self.tr(
                "This is a fault of the program. Settings and window were saved; broker, station and devices are "
                "not affected. You can go on: what you did last may not have happened."
            )
        self.details = QPlainTextEdit(crash.report())
        self.details.setReadOnly(True)
        self.details.setProperty("kind", "log")
        self.details.setFont(theme.font("mono"))
        self.details.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.details.setTabChangesFocus(True)
        named(self.details, self.tr("Details for a report"))
        self.copy = Button(theme, self.tr("Copy report"), icon="copy")
        self.copy.clicked.connect(self._copy)
        self.quit = Button(theme, self.tr("Quit"), "danger")
        self.quit.clicked.connect(self._quit)
        self.go_on = Button(theme, self.tr("Close") if past else self.tr("Continue"), "primary")
        self.go_on.clicked.connect(self.accept)
        if past:
            self.quit.hide()
        head = row(
            column(IconLabel(theme, "bug", "bad", 28), 1),
            column(label(title, "heading"), label(crash.sentence, "body", wrap=True), space=4),
            space=16,
        )
        head.setStretch(1, 1)
        whole = column(
            head,
            label(what, "body", "muted", wrap=True),
            self.details,
            self._more,
            row(self.copy, 1, self.quit, self.go_on, space=8),
            space=14,
            margins=(24, 20, 24, 20),
        )
        whole.setStretch(2, 1)
        self.setLayout(whole)
        self.go_on.setFocus()

    def add(self, number: int) -> None:
        """More went wrong while this is open."""
        self._more.setText(self.tr("%n more error(s) since", "", number))
        self._more.show()

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self.crash.report())
        self.copy.setText(self.tr("Copied"))

    def _quit(self) -> None:
        self.quit_wanted = True
        self.reject()


class Owner(Protocol):
    """Who has a window to show things in: the desk application."""

    def post(self, task: Callable[[], object]) -> None:
        """Runs it on the main thread; called on any."""

    def operator_error(self, error: OperatorError) -> None: ...

    def save_state(self) -> None: ...

    def show_crash(self, crash: Crash) -> None: ...

    def interrupt(self) -> None:
        """Ctrl+C."""


class CrashGuard:
    """Install it before the window is made, uninstall it last. Without an ``owner`` bugs go to stderr."""

    def __init__(self) -> None:
        self.owner: Owner | None = None
        self._seen: dict[str, int] = {}
        self._lock = threading.Lock()
        self._file: IO[str] | None = None
        self._path: Path | None = None
        self._was_enabled = False
        self._before: tuple[Any, ...] = ()
        self.tail = LogTail()
        self.count = 0

    # ------------------------------------------------------------ hooks

    def install(self) -> None:
        self._before = (sys.excepthook, threading.excepthook, sys.unraisablehook)
        logging.getLogger().addHandler(self.tail)
        sys.excepthook = self._main_hook
        threading.excepthook = self._thread_hook
        sys.unraisablehook = self._unraisable_hook
        qInstallMessageHandler(_qt_message)

    def uninstall(self) -> None:
        if self._before:
            sys.excepthook, threading.excepthook, sys.unraisablehook = self._before
            self._before = ()
        qInstallMessageHandler(None)
        logging.getLogger().removeHandler(self.tail)
        self.close_fault_file()

    def _main_hook(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if self.owner is None:
            sys.__excepthook__(kind, error, trace)
            return
        if issubclass(kind, KeyboardInterrupt):
            self.owner.interrupt()
            return
        here = threading.current_thread()
        where = "main thread" if here is threading.main_thread() else f"thread {here.name}"
        self.take(error, where, trace)

    def _thread_hook(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            self.take(args.exc_value, f"thread {args.thread.name if args.thread else '?'}", args.exc_traceback)

    def _unraisable_hook(self, args: sys.UnraisableHookArgs) -> None:
        # Raised where nobody can catch it (a destructor, a callback of C): a bug, but one that hurts nobody now.
        log.error("ignored in %r: %s", args.object, args.err_msg, exc_info=args.exc_value)

    def take(self, error: BaseException, where: str, trace: TracebackType | None = None) -> None:
        """An exception that nobody caught. Any thread."""
        owner = self.owner
        if owner is not None and isinstance(error, OperatorError):
            log.warning("%s", error)
            said = error
            owner.post(lambda: owner.operator_error(said))
            return
        lines = traceback.format_exception(type(error), error, trace or error.__traceback__)
        log.critical("a bug in the %s:\n%s", where, "".join(lines))
        crash = Crash(f"{type(error).__name__}: {error}".strip(": "), "".join(lines), self.tail.text(60), where)
        with self._lock:
            self.count += 1
            first = crash.signature not in self._seen
            self._seen[crash.signature] = self._seen.get(crash.signature, 0) + 1
        if first and owner is not None:
            owner.post(lambda: self._saved_and_shown(owner, crash))

    @staticmethod
    def _saved_and_shown(owner: Owner, crash: Crash) -> None:
        try:
            owner.save_state()
        except Exception:
            log.exception("the state could not be saved")
        owner.show_crash(crash)

    # ------------------------------------------------------------ what kills the process

    def open_fault_file(self, path: Path) -> str:
        """From now on a segmentation fault leaves its stacks in ``path``; answers with those of the last run."""
        last = ""
        with contextlib.suppress(OSError):
            last = path.read_text("utf-8", "replace").strip()
            if last:
                path.replace(path.with_suffix(".last.txt"))
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            log.warning("no fault file at %s: %s", path, error)
            return last
        self._path = path
        self._was_enabled = faulthandler.is_enabled()
        faulthandler.enable(self._file, all_threads=True)
        return last

    def close_fault_file(self) -> None:
        if self._file is None or self._path is None:
            return
        faulthandler.disable()
        if self._was_enabled and sys.__stderr__ is not None:
            faulthandler.enable(sys.__stderr__)
        self._file.close()
        self._file = None
        with contextlib.suppress(OSError):
            if not self._path.stat().st_size:
                self._path.unlink()


def fault_crash(stacks: str) -> Crash:
    """The stacks of a killed process as something to show."""
    first = stacks.splitlines()[0] if stacks else ""
    text = QCoreApplication.translate("Crash", "The program was ended by the system")
    return Crash(f"{text} ({first})" if first else text, stacks, "", "last run")


def _qt_message(kind: QtMsgType, context: QMessageLogContext, text: str) -> None:
    levels = {
        QtMsgType.QtDebugMsg: logging.DEBUG,
        QtMsgType.QtInfoMsg: logging.INFO,
        QtMsgType.QtWarningMsg: logging.WARNING,
        QtMsgType.QtCriticalMsg: logging.ERROR,
        QtMsgType.QtFatalMsg: logging.CRITICAL,
    }
    qt_log.log(levels.get(kind, logging.WARNING), "%s%s", f"{context.category}: " if context.category else "", text)
