"""The drawer's other parts: models, events, facts. Each is shown a device row and draws it. Main thread only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import Qt, Signal, Slot
from PySide6.QtWidgets import (
    QFrame,
    QGridLayout,
    QLabel,
    QScrollArea,
    QSizePolicy,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from fleetui.common.domain import ages
from fleetui.common.domain.filters.render import quote
from fleetui.desk.app import vitals
from fleetui.desk.app.operations import Operation
from fleetui.desk.app.text import moment
from fleetui.desk.ui.context import DeskContext
from fleetui.desk.ui.widgets.basic import label
from fleetui.desk.ui.widgets.empty import EmptyState
from fleetui.desk.ui.widgets.figures import Cell, Figures, FiguresTable, Line
from fleetui.store.records import DeviceRow, EventRow

LEVELS = {0: "debug", 1: "info", 2: "warning", 3: "error", 4: "critical"}


def scrolled(inside: QWidget, name: str) -> QScrollArea:
    """``inside`` in a frameless area that scrolls up and down only."""
    inside.setProperty("clear", True)
    area = QScrollArea()
    area.setWidget(inside)
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setAccessibleName(name)
    return area


def _list(table: FiguresTable) -> QWidget:
    inside = QWidget()
    layout = QVBoxLayout(inside)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(table)
    layout.addStretch(1)
    return inside


class ModelsPart(QStackedWidget):
    """What answers behind which handle. ``filtered(text)``: list the devices that run the same."""

    filtered = Signal(str)

    def __init__(self, context: DeskContext) -> None:
        super().__init__()
        theme = context.theme
        self._table = FiguresTable(
            theme,
            self.tr("Models on this device"),
            (Figures(self.tr("Handle"), 120), Figures(self.tr("Model")), Figures(self.tr("State"), 110)),
        )
        self._table.chosen.connect(self._chosen)
        self._empty = EmptyState(
            theme,
            "models",
            self.tr("No model runs here"),
            self.tr("A model appears here once the device reports one behind a handle."),
        )
        self.addWidget(scrolled(_list(self._table), self.tr("Models")))
        self.addWidget(self._empty)

    def show_row(self, found: DeviceRow) -> None:
        models = found.models or (((found.handle, found.model, found.version, "active"),) if found.model else ())
        lines = []
        for handle, model, version, state in models:
            wanted = f"model={quote((model,))} and model.version={quote((version,))}"
            tone, icon = ("ok", "check") if state == "active" else ("idle", "clock")
            lines.append(
                Line(
                    (
                        Cell(handle),
                        Cell(model, note=version, tip=self.tr("List the devices that run {0}").format(model)),
                        Cell(state, tone, icon, icon_tone=tone),
                    ),
                    wanted,
                )
            )
        self._table.show_lines(lines)
        self.setCurrentIndex(0 if lines else 1)

    @Slot(object)
    def _chosen(self, target: object) -> None:
        self.filtered.emit(str(target))


class EventsPart(QStackedWidget):
    """What happened to the device, the newest first."""

    def __init__(self, context: DeskContext) -> None:
        super().__init__()
        self._context = context
        self._device = ""
        self._events: tuple[EventRow, ...] = ()
        self._loading: Operation[Any] | None = None
        theme = context.theme
        self._table = FiguresTable(
            theme,
            self.tr("Events of this device"),
            (Figures(self.tr("What")), Figures(self.tr("Ago"), 72, right=True)),
            header=False,
        )
        self._table.setCursor(Qt.CursorShape.ArrowCursor)
        self._empty = EmptyState(
            theme,
            "event",
            self.tr("Nothing has happened"),
            self.tr("Starts, errors and changes of models are listed here as the device reports them."),
        )
        self.addWidget(scrolled(_list(self._table), self.tr("Events")))
        self.addWidget(self._empty)

    def show_device(self, device: str) -> None:
        if device != self._device:
            self._device, self._events = device, ()
            self._draw()
            self.load()

    def load(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
        store, device = self._context.store, self._device
        self._loading = Operation(
            self.tr("Read events of {0}").format(device), lambda: vitals.read_events(store, device), quiet=True
        )
        self._loading.on_done(self._show).start(self._context.operations)

    def add(self, events: Sequence[EventRow]) -> None:
        """What the feed brought of this device."""
        known = {event.id for event in self._events}
        fresh = {event.id: event for event in events if event.device == self._device and event.id not in known}
        if fresh:
            merged = sorted((*fresh.values(), *self._events), key=lambda event: (-event.at, -event.id))
            self._events = tuple(merged[: vitals.EVENTS])
            self._draw()

    def _show(self, found: tuple[EventRow, ...]) -> None:
        self._loading = None
        if not found or found[0].device == self._device:
            self._events = found
            self._draw()

    @Slot()
    def turn(self) -> None:
        """Ages read differently by now."""
        if self.isVisible():
            self._draw()

    def _draw(self) -> None:
        theme, now = self._context.theme, self._context.clock.now()
        lines = []
        for event in self._events:
            look = theme.look(LEVELS.get(event.level, "info"))
            words = event.text or event.kind.replace("_", " ")
            stack = " › ".join(event.codes)
            tip = "\n".join(part for part in (f"{look.word}, {moment(event.at)}", event.text, stack) if part)
            lines.append(
                Line(
                    (
                        Cell(words, icon=look.icon, icon_tone=look.role, note=stack, tip=tip),
                        Cell(ages.age_of(event.at, now), tone="faint", tip=moment(event.at)),
                    )
                )
            )
        self._table.show_lines(lines)
        self.setCurrentIndex(0 if lines else 1)


class FactsPart(QScrollArea):
    """Everything else that is known, in groups; values can be selected and copied."""

    def __init__(self, context: DeskContext) -> None:
        super().__init__()
        self._context = context
        inside = QWidget()
        inside.setProperty("clear", True)
        self._grid = QGridLayout(inside)
        self._grid.setContentsMargins(0, 4, 8, 8)
        self._grid.setHorizontalSpacing(16)
        self._grid.setVerticalSpacing(6)
        self._grid.setColumnStretch(1, 1)
        self._values: dict[str, QLabel] = {}
        self._names: dict[str, QLabel] = {}
        for group, facts in self._facts():
            self._heading(group)
            for key, title in facts:
                self._fact(key, title)
        self._grid.setRowStretch(self._grid.rowCount(), 1)
        self.setWidget(inside)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName(self.tr("Facts"))

    def _facts(self) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
        return (
            (
                self.tr("Identity"),
                (
                    ("device", self.tr("Id")),
                    ("name", self.tr("Name")),
                    ("site", self.tr("Site")),
                    ("lifecycle", self.tr("Lifecycle")),
                    ("tags", self.tr("Tags")),
                ),
            ),
            (
                self.tr("Hardware and software"),
                (
                    ("target", self.tr("Target")),
                    ("cores", self.tr("Cores")),
                    ("ram", self.tr("RAM")),
                    ("storage", self.tr("Storage")),
                    ("firmware", self.tr("Firmware")),
                    ("agent", self.tr("Agent")),
                    ("variant", self.tr("Variant")),
                    ("digest", self.tr("Digest")),
                ),
            ),
            (
                self.tr("Time"),
                (
                    ("seen", self.tr("Last seen")),
                    ("known", self.tr("First seen")),
                    ("uptime", self.tr("Up for")),
                    ("boots", self.tr("Starts seen")),
                    ("clock", self.tr("Clock error")),
                ),
            ),
            (
                self.tr("Work"),
                (
                    ("rows", self.tr("Inferences since start")),
                    ("errors", self.tr("Failed since start")),
                    ("last_error", self.tr("Last error")),
                ),
            ),
            (
                self.tr("Reports"),
                (
                    ("lost", self.tr("Lost on the way")),
                    ("dropped", self.tr("Dropped by the device")),
                    ("duplicates", self.tr("Came twice")),
                    ("queued", self.tr("Waiting on the device")),
                    ("rejected", self.tr("Refused by the station")),
                ),
            ),
        )

    def _heading(self, text: str) -> None:
        at = self._grid.rowCount()
        heading = label(text, "strong")
        heading.setContentsMargins(0, 12 if at > 1 else 0, 0, 2)
        self._grid.addWidget(heading, at, 0, 1, 2)

    def _fact(self, key: str, title: str) -> None:
        at = self._grid.rowCount()
        name = label(title, "body", "muted")
        name.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Preferred)
        value = label("", wrap=True)
        value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        value.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._grid.addWidget(name, at, 0, Qt.AlignmentFlag.AlignTop)
        self._grid.addWidget(value, at, 1)
        self._names[key], self._values[key] = name, value

    def show_row(self, found: DeviceRow) -> None:
        now = self._context.clock.now()

        def since(then: float) -> str:
            return f"{ages.age_of(then, now)}  ({moment(then)})" if then else ages.UNKNOWN

        up = ages.duration(now - found.booted) if found.booted and now > found.booted else ages.UNKNOWN
        values = {
            "device": found.device,
            "name": found.name,
            "site": found.site,
            "lifecycle": self._context.theme.look(found.lifecycle).word,
            "tags": ", ".join(f"{key}: {value}" for key, value in sorted(found.tags.items())),
            "target": found.target,
            "cores": str(found.cores or ""),
            "ram": ages.size(found.memory_bytes) if found.memory_bytes else "",
            "storage": ages.size(found.disk_bytes) if found.disk_bytes else "",
            "firmware": found.firmware,
            "agent": found.agent,
            "variant": found.variant,
            "digest": found.digest,
            "seen": since(found.last_seen),
            "known": since(found.first_seen),
            "uptime": up,
            "boots": f"{found.boots:,}",
            "clock": ages.offset(found.clock_offset),
            "rows": f"{found.rows:,}",
            "errors": f"{found.errors:,}",
            "last_error": found.last_error,
            "lost": f"{found.lost:,}",
            "dropped": f"{found.dropped:,}",
            "duplicates": f"{found.duplicates:,}",
            "queued": f"{found.queued:,}",
            "rejected": f"{found.rejected:,}",
        }
        for key, value in values.items():
            text = value or ages.UNKNOWN
            if self._values[key].text() != text:
                self._values[key].setText(text)
                self._values[key].setAccessibleName(f"{self._names[key].text()}: {text}")
