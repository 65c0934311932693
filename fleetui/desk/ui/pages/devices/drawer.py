"""The drawer: one device in full, beside the table. Its state in words, then charts, models, events, facts.

It follows the device while it is open, closes with Esc, and says so when the device is removed meanwhile. Acts are
the page's commands. Main thread only.
"""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt, Signal, Slot
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QFrame, QMenu, QStackedWidget, QVBoxLayout, QWidget

from fleetui.common.domain import ages
from fleetui.desk.app.text import moment
from fleetui.desk.ui.context import DeskContext
from fleetui.desk.ui.pages.devices.live import LivePart
from fleetui.desk.ui.pages.devices.parts import EventsPart, FactsPart, ModelsPart
from fleetui.desk.ui.widgets.basic import (
    Button,
    ElidedLabel,
    IconButton,
    IconLabel,
    Segmented,
    column,
    label,
    row,
    set_tone,
)
from fleetui.store.records import Changes, DeviceRow

REASONS = 4


class DeviceDrawer(QFrame):
    """``closed`` by Esc or the cross; ``acted(command)`` for a button; ``filtered(text)`` lists others like it."""

    closed = Signal()
    acted = Signal(str)
    filtered = Signal(str)

    def __init__(self, context: DeskContext, menu: Callable[[QWidget], QMenu]) -> None:
        super().__init__()
        self._context = context
        self._menu = menu
        self._device = ""
        self.setObjectName("drawer")
        self.setAccessibleName(self.tr("Device"))
        self.setMinimumWidth(380)
        theme = context.theme
        self._icon = IconLabel(theme, "unknown", "idle", 20)
        self._title = ElidedLabel(type_="title")
        self._close = IconButton(theme, "close", self.tr("Close"), shortcut="Esc", size=16)
        self._close.clicked.connect(self.closed)
        self._id = label("", "small", "muted")
        self._id.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._copy = IconButton(theme, "copy", self.tr("Copy device id"), size=14)
        self._copy.clicked.connect(lambda: self.acted.emit("devices.copy_id"))
        self._state = label("", "strong")
        self._seen = label("", "body", "muted")
        self._where = ElidedLabel(type_="small", tone="muted")
        self._reasons = QVBoxLayout()
        self._reasons.setSpacing(4)
        self._report = Button(theme, self.tr("Report now"), icon="refresh", tip=self.tr("Ask the device to report"))
        self._report.clicked.connect(lambda: self.acted.emit("devices.ask_report"))
        self._rename = Button(theme, self.tr("Rename…"), icon="tag")
        self._rename.clicked.connect(lambda: self.acted.emit("devices.rename"))
        self._more = IconButton(theme, "more", self.tr("More"), size=16)
        self._more.clicked.connect(self._open_menu)
        self.live = LivePart(context)
        self.models = ModelsPart(context)
        self.models.filtered.connect(self.filtered)
        self.events = EventsPart(context)
        self.facts = FactsPart(context)
        self._parts = QStackedWidget()
        for part in (self.live, self.models, self.events, self.facts):
            self._parts.addWidget(part)
        self._tabs = Segmented(
            self.tr("Part"),
            (
                ("live", self.tr("Charts")),
                ("models", self.tr("Models")),
                ("events", self.tr("Events")),
                ("facts", self.tr("Facts")),
            ),
        )
        self._tabs.chosen.connect(self.show_part)
        head = column(
            row(self._icon, self._title, self._close, space=8),
            row(self._id, self._copy, 1, space=2),
            row(self._state, self._seen, 1, space=8),
            self._where,
            self._reasons,
            space=6,
        )
        head.addSpacing(6)
        head.addLayout(row(self._report, self._rename, self._more, 1, space=8))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(20, 14, 12, 0)
        layout.setSpacing(14)
        layout.addLayout(head)
        layout.addLayout(row(self._tabs, 1))
        layout.addWidget(self._parts, 1)
        theme.changed.connect(self._redraw)

    @property
    def device(self) -> str:
        """Which one is shown; empty while it is closed."""
        return self._device

    @Slot(str)
    def show_part(self, name: str) -> None:
        parts: dict[str, QWidget] = {
            "live": self.live, "models": self.models, "events": self.events, "facts": self.facts,
        }  # fmt: skip
        if name in parts:
            self._tabs.choose(name)
            self._parts.setCurrentWidget(parts[name])
            self.live.turn()
            self.events.turn()

    def show_device(self, device: str) -> None:
        """Opens on a device that the table knows."""
        self._device = device
        self._draw()
        self.live.show_device(device)
        self.events.show_device(device)

    def forget(self) -> None:
        """Closed: nothing is followed any more."""
        self._device = ""

    def take(self, changes: Changes) -> None:
        """After the table was brought up to date."""
        if not self._device:
            return
        if any(found.device == self._device for found in changes.devices):
            self._draw()
            self.live.touched()
        elif self._device in changes.removed:
            self._draw()
        if changes.events:
            self.events.add(changes.events)

    @Slot()
    def tick(self) -> None:
        """A second went by."""
        if self._device:
            self._draw()
            self.live.turn()
            self.events.turn()

    @Slot()
    def _redraw(self) -> None:
        if self._device:
            self._draw()

    @Slot()
    def _open_menu(self) -> None:
        menu = self._menu(self)
        menu.popup(self._more.mapToGlobal(self._more.rect().bottomLeft()))

    # ------------------------------------------------------------ drawing

    def _draw(self) -> None:
        found = self._context.table.get(self._device)
        gone = found is None
        for widget in (self._report, self._rename, self._more):
            widget.setEnabled(not gone)
        if found is None:
            self._icon.show_icon("trash", "idle")
            self._state.setText(self.tr("This device was removed"))
            set_tone(self._state, "idle")
            self._seen.setText("")
            return
        now = self._context.clock.now()
        look = self._context.theme.look(found.status)
        name = found.name or found.device
        self.setAccessibleName(self.tr("Device {0}").format(name))
        self._icon.show_icon(look.icon, look.role)
        self._title.setText(name)
        self._id.setText(found.device)
        self._state.setText(look.word[:1].upper() + look.word[1:])
        set_tone(self._state, look.role)
        self._seen.setText(self._age(found, now))
        self._seen.setToolTip(moment(found.last_seen))
        place = " · ".join(part for part in (found.site, found.target, found.model and _model(found)) if part)
        self._where.setText(place)
        self._show_reasons(found)
        self.models.show_row(found)
        self.facts.show_row(found)

    def _age(self, found: DeviceRow, now: float) -> str:
        seen = ages.age_of(found.last_seen, now)
        if found.status == "online":
            return self.tr("heard of {0} ago").format(seen) if seen != "now" else self.tr("heard of just now")
        if not found.last_seen:
            return self.tr("never heard of")
        for_ = ages.duration(max(0.0, now - found.status_since)) if found.status_since else ages.UNKNOWN
        return self.tr("for {0}, last heard of {1} ago").format(for_, seen)

    def _show_reasons(self, found: DeviceRow) -> None:
        reasons = list(found.reasons[:REASONS])
        if len(found.reasons) > REASONS:
            reasons.append(self.tr("and {0} more").format(len(found.reasons) - REASONS))
        shown = [self._reasons.itemAt(i).widget() for i in range(self._reasons.count())]
        if [widget.property("reason") for widget in shown] == reasons:
            return
        for widget in shown:
            self._reasons.removeWidget(widget)
            widget.deleteLater()
        for reason in reasons:
            line = QWidget()
            line.setProperty("reason", reason)
            words = label(reason, "small", "warn", wrap=True)
            line.setLayout(row(IconLabel(self._context.theme, "warning", "warn", 14), words, space=6))
            line.layout().setStretch(1, 1)
            self._reasons.addWidget(line)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape:
            self.closed.emit()
            return
        super().keyPressEvent(event)


def _model(found: DeviceRow) -> str:
    return f"{found.model} {found.version}".strip()
