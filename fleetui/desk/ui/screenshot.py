"""``--screenshot DIR``: walks every page and state, and writes a PNG of each, in both sizes and both themes.

It does what a person would (navigate, filter, open a drawer, type into the palette), waits for what must be there
before a picture means anything, never for a time, and fails with a sentence where it does not come. Works without
a screen (``QT_QPA_PLATFORM=offscreen``) and with the demo as without. Main thread only.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, QTimer, Signal, Slot
from PySide6.QtWidgets import QWidget

from fleetui.common.domain.errors import ConfigError
from fleetui.common.domain.states import ChildState
from fleetui.desk.app.columns import DeviceTable
from fleetui.desk.app.commands import CommandRegistry
from fleetui.desk.app.demo import History
from fleetui.desk.app.notices import Level, NoticeAction, NoticeCentre
from fleetui.desk.ui.context import DeskContext
from fleetui.desk.ui.crash import Crash, CrashDialog
from fleetui.desk.ui.window import MainWindow

if TYPE_CHECKING:
    from fleetui.desk.ui.application import DeskApplication

log = logging.getLogger("fleetui.desk.screenshot")

SIZES = ((1280, 800), (1920, 1080))
THEMES = ("light", "dark")
PATIENCE_S = 90.0
HISTORY_S = 240.0
LOOK_MS = 30
TURNS = 3  # turns of the event loop with nothing under way before a picture is taken


@dataclass(frozen=True, slots=True)
class Step:
    """One picture: what to do first, and what must be true before it is taken."""

    name: str
    do: Callable[[], object]
    ready: Callable[[], bool] = lambda: True
    what: Callable[[], QWidget] | None = None  # the window, where not another


class Photographer(QObject):
    """``done`` when all pictures are written, or one could not be; ``code`` is the exit code then."""

    done = Signal()

    def __init__(self, desk: DeskApplication, folder: Path) -> None:
        super().__init__(desk)
        self.desk = desk
        self.code = 1
        self.written: list[Path] = []
        self._folder = folder
        self._context = desk.context
        self._window = desk.window
        self._steps: Iterator[tuple[str, Step]] = iter(())
        self._step: tuple[str, Step] | None = None
        self._since = 0.0
        self._calm = 0
        self._empty: MainWindow | None = None
        self._dialog: CrashDialog | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_MS)
        self._timer.timeout.connect(self._look)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"The folder {folder} cannot be made: {error.strerror or error}", "Choose another"
            ) from None

    def start(self) -> None:
        self._context.theme.reduced_motion = True
        self.desk.show("overview")
        self._steps = self._walk()
        self._next()
        self._timer.start()

    # ------------------------------------------------------------ the walk

    def _walk(self) -> Iterator[tuple[str, Step]]:
        yield "", Step("", lambda: None, self._fleet_is_there)
        if self.desk.instance.demo is not None:
            yield "", Step("", lambda: None, self._history_is_there)
        for theme in THEMES:
            for width, height in SIZES:
                yield "", Step("", self._setter(theme, width, height))
                for step in self._states():
                    yield f"{step.name}-{theme}-{width}x{height}.png", step

    def _setter(self, theme: str, width: int, height: int) -> Callable[[], None]:
        def set_up() -> None:
            self._context.theme.set_mode(theme)
            self._window.resize(width, height)
            if self._empty is not None:
                self._empty.resize(width, height)

        return set_up

    def _states(self) -> Iterator[Step]:
        window, context = self._window, self._context
        go = context.navigate
        yield Step(
            "overview", lambda: (window.notifications.toasts.clear(), go("overview")), self._charts_are_there
        )
        if len(context.table):
            device = self._device()
            site = context.table.text("site", context.table.row_of(device))
            yield Step("devices", self._devices)
            yield Step("devices-filtered", lambda: go("devices", filter=f"site:{site} and status:online"))
            yield Step("device", lambda: go("devices", filter="", device=device))
        yield Step("settings", lambda: go("settings"))
        yield Step(
            "palette", lambda: (go("overview"), window.palette_.open(), window.palette_.field.setText("the"))
        )
        yield Step("shortcuts", lambda: (window.palette_.dismiss(), window.sheet.open()))
        yield Step("connections", lambda: (window.sheet.dismiss(), window.connections.open()))
        yield Step("toasts", lambda: (window.connections.dismiss(), self._say()))
        yield Step("notifications", window.notifications.drawer.open)
        yield Step("crash", self._crash, what=lambda: self._dialog)  # type: ignore[arg-type,return-value]
        yield Step("overview-empty", lambda: self._nothing("overview"), what=lambda: self._empty)  # type: ignore[arg-type,return-value]
        yield Step("devices-empty", lambda: self._nothing("devices"), what=lambda: self._empty)  # type: ignore[arg-type,return-value]
        yield Step("notifications-empty", self._no_notices, what=lambda: self._empty)  # type: ignore[arg-type,return-value]

    # ------------------------------------------------------------ what pictures need

    def _fleet_is_there(self) -> bool:
        context = self._context
        demo = self.desk.instance.demo
        if demo is None:
            return context.caught_up
        online = context.table.words("status") if len(context.table) else []
        count = dict(online).get("online", 0)
        return len(context.table) >= demo.devices and count >= 0.7 * demo.devices and self._station_runs()

    def _station_runs(self) -> bool:
        """And is connected: while the history is read, the demo's station makes room for a while."""
        links = self.desk.links
        return links["station"].status == "running" and links["broker"].status == "connected"

    def _history_is_there(self) -> bool:
        assert self.desk.instance.demo is not None
        over = self.desk.instance.demo.status.history in {History.DONE, History.FAILED, History.UNWANTED}
        return over and self._station_runs()

    def _charts_are_there(self) -> bool:
        page = self._window.page
        return not len(self._context.table) or any(layer.at.size for layer in page.health.layers)

    def _overview(self) -> None:
        self._window.notifications.toasts.clear()
        self._context.navigate("overview")

    def _devices(self) -> None:
        self._context.navigate("devices", filter="")
        self._context.commands.run("devices.close")

    def _palette(self) -> None:
        self._context.navigate("overview")
        self._window.palette_.open()
        self._window.palette_.field.setText("the")

    def _device(self) -> str:
        """One that is online and has a model: its drawer has something to show."""
        table = self._context.table
        for row in range(table.size):
            if table.alive[row] and table.text("status", row) == "online" and table.text("model", row):
                return table.device(row)
        return table.device(0)

    def _say(self) -> None:
        """Notices of each kind, as the desk itself would make them; real ones stay in the list beside them."""
        notices = self._context.notices
        notices.dismiss("shot:1", "shot:2")
        devices = (NoticeAction("Show devices", page="devices"),)
        self._window.notifications.toasts.clear()
        first = notices.say(
            Level.WARNING,
            "12 devices are overheating; last: the processor is at 84\u00a0°C",
            key="shot:1",
            actions=devices,
            quiet=True,
            times=12,
        )
        second = notices.say(
            Level.ERROR,
            "The store cannot be written to: the disk is full",
            "Free some space, or choose another folder with --base-dir",
            key="shot:2",
            quiet=True,
        )
        for notice in (first, second):
            self._window.notifications.toasts.show_notice(notice)

    def _crash(self) -> None:
        self._window.notifications.drawer.dismiss()
        self._window.notifications.toasts.clear()
        error = LookupError("an example, for the picture")
        trace = "".join(traceback.format_exception(error))
        if self._dialog is not None:
            self._dialog.deleteLater()
        tail = self.desk.guard.tail.text(20) if self.desk.guard is not None else ""
        self._dialog = CrashDialog(
            self._context.theme, Crash("LookupError: an example, for the picture", trace, tail)
        )
        self._dialog.show()

    def _nothing(self, page: str) -> None:
        """A second window over an empty table."""
        if self._dialog is not None:
            self._dialog.hide()
        if self._empty is None:
            old = self._context
            context = DeskContext(
                settings=old.settings, commands=CommandRegistry(), operations=old.operations, table=DeviceTable(),
                store=old.store, clock=old.clock, notices=NoticeCentre(old.clock, old.settings),
                wishes=old.wishes, instance=old.instance, theme=old.theme, parent=self,
            )  # fmt: skip
            context.caught_up = True
            self._empty = MainWindow(context)
            for key, link in (("broker", "connected"), ("station", "running"), ("store", "connected")):
                self._empty.show_link(key, link, "")
            self._empty.resize(self._window.size())
        self._empty.context.navigate(page)
        self._empty.show()

    def _no_notices(self) -> None:
        assert self._empty is not None
        self._empty.notifications.drawer.open()

    # ------------------------------------------------------------ taking them

    def _next(self) -> None:
        self._step = next(self._steps, None)
        self._since = self._context.clock.monotonic()
        self._calm = 0
        if self._step is None:
            self._end(f"{len(self.written)} pictures in {self._folder}\n", 0)
            return
        self._step[1].do()

    @Slot()
    def _look(self) -> None:
        if self._step is None:
            return
        name, step = self._step
        if self._hopeless():
            return
        if not step.ready() or not self._context.operations.idle:
            self._calm = 0
            waited = self._context.clock.monotonic() - self._since
            if waited > (HISTORY_S if step.ready == self._history_is_there else PATIENCE_S):
                self._end(f"The picture {name or 'of the fleet'} was not ready within {waited:.0f} s\n", 1)
            return
        self._calm += 1
        if self._calm < TURNS:
            return
        if name:
            widget = step.what() if step.what is not None else self._window
            path = self._folder / name
            if not widget.grab().save(str(path)):
                self._end(f"{path} could not be written\n", 1)
                return
            self.written.append(path)
            if widget is self._empty:
                widget.notifications.drawer.dismiss()
                widget.hide()
        self._next()

    def _hopeless(self) -> bool:
        """A child that does not stay up: waiting for its devices would be in vain."""
        for part in self.desk.instance.parts():
            if part.state == ChildState.FAILED:
                self._end(f"{part.sentence}\n", 1)
                return True
        return False

    def _end(self, words: str, code: int) -> None:
        self._timer.stop()
        self._step = None
        self.code = code
        (sys.stderr if code else sys.stdout).write(words)
        for widget in (self._dialog, self._empty):
            if isinstance(widget, MainWindow):
                widget.allow_close()
            if widget is not None:
                widget.close()
                widget.deleteLater()
        self._dialog, self._empty = None, None
        self.done.emit()
