"""``fleetui``: from the arguments to the end of the desk.

The window comes first: folders and settings are small files, the store is opened by the feed's thread, children
are started when the first frame has been painted, and pages import what they need when they are first shown.
Ctrl+C and SIGTERM close it in order; a second one ends it at once.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QSocketNotifier, Slot
from PySide6.QtWidgets import QApplication

from fleetui import __version__
from fleetui.common import logs
from fleetui.desk.app.demo import DemoOptions
from fleetui.desk.app.instance import Instance
from fleetui.desk.ui.application import DeskApplication
from fleetui.desk.ui.crash import CrashGuard

if TYPE_CHECKING:
    from types import FrameType

log = logging.getLogger("fleetui.desk")


class Signals(QObject):
    """SIGINT and SIGTERM as an event of Qt's loop, which Python's handlers alone would not interrupt."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._read, self._write = socket.socketpair()
        for end in (self._read, self._write):
            end.setblocking(False)
        self._before_fd = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._again) for number in (signal.SIGINT, signal.SIGTERM)}
        self._notifier = QSocketNotifier(self._read.fileno(), QSocketNotifier.Type.Read, self)
        self._notifier.activated.connect(self._arrived)
        self._count = 0
        self.desk: DeskApplication | None = None

    def _again(self, number: int, _frame: FrameType | None) -> None:
        # The wake-up descriptor does the work; here only impatience is noticed.
        self._count += 1
        if self._count > 1:
            signal.signal(number, signal.SIG_DFL)

    @Slot()
    def _arrived(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._read.recv(64)
        if self.desk is not None:
            self.desk.close()

    def close(self) -> None:
        self._notifier.setEnabled(False)
        signal.set_wakeup_fd(self._before_fd)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._read.close()
        self._write.close()


def overrides(args: argparse.Namespace) -> dict[str, object]:
    """Settings that the command line sets for this run."""
    found: dict[str, object] = {}
    if args.theme:
        found["appearance.theme"] = args.theme
    if args.language:
        found["appearance.language"] = args.language
    if args.store:
        found["store.url"] = args.store
    if args.broker:
        found["broker.kind"] = "url"
        found["broker.url"] = args.broker
    return found


def demo_options(args: argparse.Namespace) -> DemoOptions | None:
    if not args.demo:
        return None
    given = {name: getattr(args, name) for name in ("devices", "rate", "seed") if getattr(args, name) is not None}
    return DemoOptions(**given)


def make_application() -> QApplication:
    app = QApplication(["fleetui"])
    app.setApplicationName("FleetUI")
    app.setApplicationVersion(__version__)
    app.setDesktopFileName("fleetui")
    app.setQuitOnLastWindowClosed(False)
    return app


def run(args: argparse.Namespace) -> int:
    """Opens the desk and returns when it is closed."""
    instance = Instance.open(args.base_dir, demo_options(args), overrides(args))
    try:
        logs.set_up("desk", instance.base.log, level="INFO", stderr=False)
        logging.getLogger().addHandler(_stderr())
        logging.getLogger("alembic").setLevel(logging.WARNING)  # it announces each of its parts
        app = make_application()
        guard = CrashGuard()
        guard.install()
    except BaseException:
        instance.close()
        raise
    desk: DeskApplication | None = None
    signals: Signals | None = None
    try:
        desk = DeskApplication(app, instance, guard)
        guard.owner = desk
        signals = Signals(app)
        signals.desk = desk
        desk.ended.connect(app.quit)
        code = 0
        if args.screenshot:
            from fleetui.desk.ui.screenshot import Photographer

            photographer = Photographer(desk, Path(args.screenshot))
            photographer.done.connect(desk.close)
            photographer.start()
            app.exec()
            code = photographer.code
        else:
            desk.show()
            app.exec()
        return code
    finally:
        if signals is not None:
            signals.close()
        if desk is None or not desk.closing:
            instance.close()
        if desk is not None:
            desk.dispose()
        guard.uninstall()


def _stderr() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter(logs.FORMAT))
    return handler
