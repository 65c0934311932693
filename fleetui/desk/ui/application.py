"""The desk put together: one instance, one context, one window, and how they begin and end.

``main.py`` makes the ``QApplication`` and this; the tests and the screenshots make it too. Everything here runs on
the main thread except :meth:`DeskApplication._stop`, which waits for children on a thread of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QCoreApplication, QEvent, QObject, Qt, Signal, Slot
from PySide6.QtWidgets import QApplication

from fleetui.common.domain.errors import OperatorError
from fleetui.common.domain.states import ChildState
from fleetui.desk.app.columns import DeviceTable
from fleetui.desk.app.commands import Command, CommandRegistry, Need
from fleetui.desk.app.notices import Level, NoticeAction, NoticeCentre
from fleetui.desk.app.operations import Operation, Operations
from fleetui.desk.app.settings_list import REFRESH_HZ, THEME
from fleetui.desk.app.text import QT_TRANSLATE_NOOP
from fleetui.desk.ui.bridge import Bridge
from fleetui.desk.ui.context import DeskContext
from fleetui.desk.ui.crash import Crash, CrashDialog, CrashGuard, fault_crash
from fleetui.desk.ui.links import Links
from fleetui.desk.ui.shell import APP
from fleetui.desk.ui.stopping import Stopping
from fleetui.desk.ui.theme import Theme
from fleetui.desk.ui.window import MainWindow
from fleetui.store.records import Changes

if TYPE_CHECKING:
    from fleetui.desk.app.feed import ChangeFeed, FeedStatus
    from fleetui.desk.app.instance import Instance
    from fleetui.desk.app.supervise import Note
    from fleetui.desk.app.wishes import WishDesk

log = logging.getLogger("fleetui.desk")

DEMO = QT_TRANSLATE_NOOP("Commands", "Demo")
NEEDS_RUNNING = Need("demo.running", QT_TRANSLATE_NOOP("Commands", "The demo stands still"))
NEEDS_PAUSED = Need("demo.paused", QT_TRANSLATE_NOOP("Commands", "The demo is running"))
SPEEDS = (1, 10, 30, 60, 120, 300, 600)

RESTART = Command(
    "app.restart_child", QT_TRANSLATE_NOOP("Commands", "Start again"), group=APP, icon="refresh", in_palette=False
)
LAST_CRASH = Command(
    "app.last_crash", QT_TRANSLATE_NOOP("Commands", "Show the last crash"), group=APP, icon="bug", in_palette=False
)
DEMO_COMMANDS = (
    Command(
        "app.demo.pause", QT_TRANSLATE_NOOP("Commands", "Pause the demo"), group=DEMO, icon="pause",
        needs=(NEEDS_RUNNING,), keywords=("time", "stop"),
    ),
    Command(
        "app.demo.play", QT_TRANSLATE_NOOP("Commands", "Let the demo go on"), group=DEMO, icon="play",
        needs=(NEEDS_PAUSED,), keywords=("time", "run"),
    ),
    Command(
        "app.demo.faster", QT_TRANSLATE_NOOP("Commands", "Run fleet time faster"), group=DEMO, icon="speed",
        needs=(NEEDS_RUNNING,), keywords=("speed",),
    ),
    Command(
        "app.demo.slower", QT_TRANSLATE_NOOP("Commands", "Run fleet time slower"), group=DEMO, icon="speed",
        needs=(NEEDS_RUNNING,), keywords=("speed",),
    ),
)  # fmt: skip


class DeskApplication(QObject):
    """``ended`` when everything has been stopped and the window is gone."""

    ended = Signal()
    _stopped = Signal()

    def __init__(self, app: QApplication, instance: Instance, guard: CrashGuard | None = None) -> None:
        super().__init__()
        self._app, self.instance, self.guard = app, instance, guard
        settings = instance.settings
        self.bridge = Bridge(self)
        theme = Theme(app, settings.get(THEME), self)
        notices = NoticeCentre(instance.clock, settings)
        operations = Operations(
            self.bridge.post, instance.clock, lambda operation, error: self._unhandled(operation, error)
        )
        self.context = DeskContext(
            settings=settings,
            commands=CommandRegistry(),
            operations=operations,
            table=DeviceTable(),
            store=instance.store,
            clock=instance.clock,
            notices=notices,
            wishes=lambda: self._make_wishes(operations),
            instance=instance,
            theme=theme,
            parent=self,
        )
        self.feed: ChangeFeed | None = None
        self.window = MainWindow(self.context)
        self.links = Links(self.context, instance.children, self)
        self._stop_thread: threading.Thread | None = None
        self._crash_dialog: CrashDialog | None = None
        self._fault = ""
        self._begun = False
        self._connect()

    def _connect(self) -> None:
        settings, context, window = self.context.settings, self.context, self.window
        settings.observe(lambda _key, value: context.theme.set_mode(value), THEME.key)
        settings.observe(lambda _key, value: self.feed.set_rate(value) if self.feed else None, REFRESH_HZ.key)
        self.links.changed.connect(window.show_link)
        window.closing.connect(self.close)
        context.ticked.connect(self._ticked)
        registry = context.commands
        registry.register(RESTART, LAST_CRASH)
        registry.bind(RESTART.id, lambda name: self.instance.restart(name))
        registry.bind(LAST_CRASH.id, self._show_fault)
        if self.instance.demo is not None:
            registry.register(*DEMO_COMMANDS)
            registry.bind("app.demo.pause", self._pause)
            registry.bind("app.demo.play", self._play)
            registry.bind("app.demo.faster", lambda: self._change_speed(1))
            registry.bind("app.demo.slower", lambda: self._change_speed(-1))
            registry.set_facts(demo__running=True, demo__paused=False)
        self._stopped.connect(self._finish, Qt.ConnectionType.QueuedConnection)
        self._app.commitDataRequest.connect(self.save_state)
        self.stopping = Stopping(window, context.theme)
        self.stopping.hurry.clicked.connect(window.hide)
        for problem in settings.problems:
            context.notices.say(Level.WARNING, problem.rstrip("."), key=f"settings:{problem}")
        self.links.refresh()

    # ------------------------------------------------------------ beginning

    def show(self, page: str = "") -> None:
        """The window with its page; what takes longer begins when that has been painted."""
        wanted = page or self.window.last_page
        if self.window.is_quick(wanted):
            self.context.navigate(wanted)
        else:
            self.window.expect(wanted)
            self.window.first_frame.connect(lambda: self.context.navigate(wanted))
        self.window.first_frame.connect(self._begin)
        self.window.show()

    @Slot()
    def _begin(self) -> None:
        if self._begun or self._stop_thread is not None:
            return
        self._begun = True
        threading.Thread(target=self._load, name="desk-load", daemon=True).start()
        self.instance.start(lambda note: self.bridge.post(lambda: self._note(note)))
        if self.guard is not None:
            self._fault = self.guard.open_fault_file(self.instance.base.log / "fault.txt")
            if self._fault:
                self.context.notices.say(
                    Level.WARNING,
                    self.tr("The last run ended with a crash"),
                    self.tr("Nothing needs to be done; the details are kept for a report"),
                    key="crash:last",
                    actions=(NoticeAction("Show details", command=LAST_CRASH.id),),
                )

    def _load(self) -> None:
        """On a thread of its own: the database library takes half a second to load, and no frame waits for it."""
        import fleetui.desk.app.feed
        import fleetui.desk.app.wishes
        import fleetui.store.store  # noqa: F401 - all three only to have them loaded

        self.bridge.post(self._follow)

    def _follow(self) -> None:
        """Begins to follow the store."""
        from fleetui.desk.app.feed import ChangeFeed

        if self.closing:
            return
        instance, bridge = self.instance, self.bridge
        hz = self.context.settings.get(REFRESH_HZ)
        self.feed = ChangeFeed(
            instance.store, instance.clock, bridge.post, self._deliver, self._feed_status, hz, bridge.next_turn
        )
        self.feed.start()

    def _make_wishes(self, operations: Operations) -> WishDesk:
        from fleetui.desk.app.wishes import WishDesk

        instance, failed = self.instance, self.context.notices.wish_failed
        return WishDesk(instance.base, instance.store, instance.clock, operations, failed, self._written)

    def _written(self) -> None:
        if self.feed is not None:
            self.feed.look()

    # ------------------------------------------------------------ what arrives

    def _deliver(self, changes: Changes) -> None:
        self.context.wishes.take(changes)
        self.context.take(changes)
        if changes.events:
            self.context.notices.events(changes.events, self._named)
        if changes.stations and (station := self.context.station) is not None:
            self.window.footer.show_counters(station.counters)

    def _named(self, device: str) -> str:
        table = self.context.table
        return (table.text("name", table.row_of(device)) if device in table else "") or device

    def _feed_status(self, status: FeedStatus) -> None:
        first = status.caught_up and not self.context.caught_up
        self.context.caught_up = status.caught_up or self.context.caught_up
        self.links.feed(status)
        notices = self.context.notices
        if not status.ok:
            notices.say(Level.ERROR, status.sentence, status.fix, key="store")
        else:
            notices.resolve("store", self.tr("The store can be read again"))
        if first:
            # Pages that said "reading" so far now know that there is nothing.
            self.context.changed.emit(Changes(seq=0))

    def _note(self, note: Note) -> None:
        self.links.note(note)
        if self._stop_thread is None:
            self.context.notices.child(note)
        elif note.state is ChildState.STOPPING and note.sentence:
            self._say_stopping(note.name)

    def _unhandled(self, operation: Operation[Any], error: Exception) -> None:
        if isinstance(error, OperatorError) or self.guard is None:
            self.context.notices.error(error, operation.title)
        else:
            self.guard.take(error, f"operation “{operation.title}”")

    @Slot()
    def _ticked(self) -> None:
        demo = self.instance.demo
        if demo is not None:
            self.window.footer.show_progress(demo.status.sentence)

    # ------------------------------------------------------------ the demo's time

    def _pause(self) -> None:
        assert self.instance.demo is not None
        self.instance.demo.pause(self.instance.supervisor)
        self.context.commands.set_facts(demo__running=False, demo__paused=True)

    def _play(self) -> None:
        assert self.instance.demo is not None
        self.instance.demo.play(self.instance.supervisor)
        self.context.commands.set_facts(demo__running=True, demo__paused=False)

    def _change_speed(self, way: int) -> None:
        now = self.context.clock.rate
        slower = [s for s in SPEEDS if s < now - 0.01]
        faster = [s for s in SPEEDS if s > now + 0.01]
        wanted = (faster[:1] if way > 0 else slower[-1:]) or [round(now)]
        self.instance.set_speed(float(wanted[0]))
        self.window.footer.tick()

    # ------------------------------------------------------------ crashes

    def post(self, task: Callable[[], object]) -> None:
        self.bridge.post(task)

    def operator_error(self, error: OperatorError) -> None:
        self.context.notices.error(error)

    @Slot()
    def save_state(self) -> None:
        self.window.remember()

    def interrupt(self) -> None:
        self.close()

    def show_crash(self, crash: Crash) -> None:
        """Main thread. One dialog at a time; what follows while it is open is counted there."""
        if self._crash_dialog is not None:
            self._crash_dialog.add(self.guard.count - 1 if self.guard else 1)
            return
        dialog = CrashDialog(self.context.theme, crash, self.window)
        self._crash_dialog = dialog
        dialog.finished.connect(self._crash_answered)
        dialog.open()

    @Slot(int)
    def _crash_answered(self, _result: int) -> None:
        dialog, self._crash_dialog = self._crash_dialog, None
        if dialog is not None:
            dialog.deleteLater()
            if dialog.quit_wanted:
                self.window.close()

    def _show_fault(self) -> None:
        dialog = CrashDialog(self.context.theme, fault_crash(self._fault), self.window, past=True)
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()

    # ------------------------------------------------------------ ending

    @property
    def closing(self) -> bool:
        return self._stop_thread is not None

    @Slot()
    def close(self) -> None:
        """Stops everything in order, saying what; ``ended`` follows. A second call changes nothing."""
        if self._stop_thread is not None:
            return
        self.window.remember()
        if self.window.overlay is not None:
            self.window.overlay.dismiss()
        self.window.notifications.toasts.clear()
        self.stopping.open()
        self._stop_thread = threading.Thread(target=self._stop, name="desk-stop", daemon=True)
        self._stop_thread.start()

    def _stop(self) -> None:
        """On its own thread: each of these may wait, and each has an end of its own."""
        feed = self.feed
        for what in (*((feed.stop,) if feed else ()), self.context.operations.close, self.instance.close):
            try:
                what()
            except Exception:
                log.exception("while closing")
        self._stopped.emit()

    def _say_stopping(self, name: str) -> None:
        words = {
            "simulator": self.tr("Stopping the simulated fleet…"),
            "station": self.tr("Stopping the station…"),
            "broker": self.tr("Stopping the broker…"),
        }
        self.stopping.say(words.get(name, self.tr("Closing…")))

    @Slot()
    def _finish(self) -> None:
        if self._stop_thread is not None:
            self._stop_thread.join()
        self.bridge.close()
        self.window.allow_close()
        self.window.close()
        self.ended.emit()

    def dispose(self) -> None:
        """After ``ended``: no widget is left behind."""
        self.window.deleteLater()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
