"""The devices page: filter, chips, table, drawer, and what can be done with what is selected.

It puts the parts together and holds no figures: cells come from the device table, order from a view of it. What is
done with devices stands in ``acting.py``, how the table looks in ``looking.py``. Rows are put where they now belong
at a calm pace (a setting) and never while somebody drags or scrolls. Main thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import Qt, QTimer, Slot
from PySide6.QtGui import QGuiApplication, QKeyEvent
from PySide6.QtWidgets import QFrame, QSplitter, QStackedWidget, QVBoxLayout

from fleetui.common.domain.filters import Filter, FilterError, device_rule, parse
from fleetui.desk.app.columns import Applied
from fleetui.desk.app.commands import Command
from fleetui.desk.app.notices import Level
from fleetui.desk.app.order import passing
from fleetui.desk.app.settings_list import DENSITY, RESORT_S
from fleetui.desk.app.text import plural
from fleetui.desk.app.views import Views
from fleetui.desk.ui import preload
from fleetui.desk.ui.context import DeskContext, Page
from fleetui.desk.ui.models.devices_model import DevicesModel
from fleetui.desk.ui.pages.devices import acts
from fleetui.desk.ui.pages.devices.acting import Acting
from fleetui.desk.ui.pages.devices.chips import ChipRow
from fleetui.desk.ui.pages.devices.filterfield import FilterField
from fleetui.desk.ui.pages.devices.looking import Looking
from fleetui.desk.ui.pages.devices.table import DevicesTable
from fleetui.desk.ui.pages.devices.viewmenu import ViewMenu
from fleetui.desk.ui.palette import keys, translate
from fleetui.desk.ui.widgets.basic import Button, label, row
from fleetui.desk.ui.widgets.card import TONES
from fleetui.desk.ui.widgets.empty import EmptyState
from fleetui.store.records import Changes

if TYPE_CHECKING:
    from fleetui.desk.ui.pages.devices.drawer import DeviceDrawer

PRESETS = ("online", "late", "offline", "errors", "hot", "low-memory", "no-model", "pending")
CALM_MS = 250  # how often it is looked whether rows may move
LOADING_S = 0.25  # between two orders while the store is being read
PRELOAD_MS = 1200  # after the page is shown, charts are loaded in the background
STILL_MS = 1500  # after a key or a turn of the wheel nothing moves for so long
DRAWER_WIDTH = 460


class DevicesPage(Page):
    """``enter(filter=…, device=…, view=…)`` shows a list, opens a device, applies a saved view."""

    page_id = "devices"
    icon_name = "devices"

    def __init__(self, context: DeskContext) -> None:
        super().__init__(context)
        theme = context.theme
        self._entered = False
        self._touched_at = -1e9
        self._sorted_at = -1e9
        self._loading = False
        self._counts_due = True
        self.views = Views(self.page_id, lambda: context.wishes.operator)
        self.views.take(Changes(seq=0, views=tuple(context.views.values())))
        looks = Looking.recalled(context.settings)
        self.model = DevicesModel(context.table, context.clock, lambda s: theme.look(s).word, looks.columns, self)
        self.model.set_sort(looks.sort, descending=looks.descending)
        self.filter = FilterField(theme, self._words)
        self.chips = ChipRow(theme)
        self.chips.offer(
            [(name, translate(device_rule(name).title), TONES[device_rule(name).role][0]) for name in PRESETS]
        )
        self.table = DevicesTable(self.model, theme)
        self.table.set_widths(context.settings.recall("devices.widths", {}) or {})
        self.table.set_density(context.settings.get(DENSITY))
        self._drawer: DeviceDrawer | None = None
        self.acting = Acting(self)
        self.looking = Looking(self)
        self.view_menu = ViewMenu(self, theme)
        self.columns_button = Button(theme, self.tr("Columns"), icon="columns")
        self.export_button = Button(theme, self.tr("Export"), icon="download")
        self._count = label("", "small", "muted")
        self._wrong = label("", "small", "bad", wrap=True)
        self._wrong.hide()
        self._sort_now = Button(
            theme,
            self.tr("Rows have moved – sort now"),
            "link",
            tip=self.tr("Rows keep their place until you ask ({0})").format(keys("F5")),
        )
        self._sort_now.hide()
        self._build()
        self._connect()
        self._bind()
        self._calm = QTimer(self)
        self._calm.setInterval(CALM_MS)
        self._calm.timeout.connect(self._settle)
        self._preload = QTimer(self)
        self._preload.setSingleShot(True)
        self._preload.setInterval(PRELOAD_MS)
        self._preload.timeout.connect(preload.charts)
        self._filtered(self.filter.filter)
        self._draw_state()

    @property
    def title(self) -> str:
        return self.tr("Devices")

    def commands(self) -> Iterable[Command]:
        return acts.COMMANDS

    # ------------------------------------------------------------ building

    def _build(self) -> None:
        theme = self.context.theme
        self._nothing = EmptyState(
            theme,
            "devices",
            self.tr("No devices yet"),
            self.tr(
                "A device appears here when it is first heard of. Start “fleet-agent --config FILE” on one, or "
                "look around in the demo with “fleetui --demo”."
            ),
        )
        self._reading = EmptyState(theme, "busy", self.tr("Reading the store"))
        clear = Button(theme, self.tr("Clear the filter"), "primary")
        clear.clicked.connect(self.filter.clear_filter)
        self._no_match = EmptyState(theme, "filter", self.tr("No device passes the filter"), "", (clear,))
        self._stack = QStackedWidget()
        for part in (self.table, self._no_match, self._nothing, self._reading):
            self._stack.addWidget(part)
        self._splitter = QSplitter(Qt.Orientation.Horizontal)
        sheet = QFrame()
        sheet.setProperty("card", "flat")
        sheet.setLayout(row(self._stack, margins=(16, 0, 0, 0)))
        self._splitter.addWidget(sheet)
        self._splitter.setStretchFactor(0, 1)
        self._splitter.setChildrenCollapsible(False)
        tools = row(self.filter, self.view_menu, self.columns_button, self.export_button, space=8)
        tools.setStretch(0, 1)
        below = row(self.chips, self._sort_now, self._count, space=12)
        below.setStretch(0, 1)
        for at in (1, 2):
            below.setAlignment(below.itemAt(at).widget(), Qt.AlignmentFlag.AlignTop)
        self._count.setMinimumHeight(26)
        bar = QVBoxLayout()
        bar.setContentsMargins(24, 16, 24, 10)
        bar.setSpacing(8)
        bar.addLayout(tools)
        bar.addWidget(self._wrong)
        bar.addLayout(below)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(bar)
        layout.addWidget(self._splitter, 1)

    def _connect(self) -> None:
        context = self.context
        self.filter.changed.connect(self._filtered)
        self.filter.wrong.connect(self._show_wrong)
        self.filter.left.connect(self._to_table)
        self.chips.removed.connect(self._drop_chip)
        self.chips.edited.connect(self._edit_chip)
        self.chips.preset.connect(self._preset)
        self.table.opened.connect(self.open_device)
        self.table.chosen.connect(self._selection_changed)
        self.table.looks_changed.connect(self.looking.keep)
        self.table.typed.connect(self._type_on)
        self.table.customContextMenuRequested.connect(self.acting.context_menu)
        self.table.verticalScrollBar().valueChanged.connect(self._touched)
        self.columns_button.clicked.connect(self.looking.open_columns)
        self.export_button.clicked.connect(self.acting.open_export)
        self._sort_now.clicked.connect(self.sort_now)
        self._splitter.splitterMoved.connect(self._drawer_resized)
        self.model.modelReset.connect(self._draw_state)
        self.model.rowsInserted.connect(self._draw_state)
        self.model.rowsRemoved.connect(self._draw_state)
        context.changed.connect(self._changed)
        context.ticked.connect(self._ticked)
        stop = context.table.observe(self._applied)
        self.destroyed.connect(lambda: stop())
        context.theme.changed.connect(self._theme_changed)
        forget = context.settings.observe(self._setting_changed, DENSITY.key)
        self.destroyed.connect(lambda: forget())
        self.views.on_changed(self.view_menu.refresh)

    @property
    def drawer(self) -> DeviceDrawer:
        """Made when it is first opened: its charts are the heaviest thing on the page."""
        if self._drawer is None:
            from fleetui.desk.ui.pages.devices.drawer import DeviceDrawer

            made = self._drawer = DeviceDrawer(self.context, self.acting.row_menu)
            made.hide()
            made.closed.connect(self.close_drawer)
            made.acted.connect(self.acting.run)
            made.filtered.connect(self._list_others)
            self._splitter.addWidget(made)
            self._splitter.setStretchFactor(1, 0)
        return self._drawer

    @property
    def drawer_open(self) -> bool:
        return self._drawer is not None and self._drawer.isVisible()

    def _bind(self) -> None:
        table: dict[str, Callable[..., object]] = {
            "devices.filter": self._to_filter,
            "devices.clear_filter": self.filter.clear_filter,
            "devices.open": lambda: self.open_device(self.selection()[0]),
            "devices.close": self.close_drawer,
            "devices.sort_now": self.sort_now,
            "devices.save_view": self.looking.save_view,
            "devices.columns": self.looking.open_columns,
        }
        for name, function in table.items():
            self.context.commands.bind(name, function)
        self.acting.bind()

    # ------------------------------------------------------------ coming and going

    def enter(self, **where: Any) -> None:
        self._entered = True
        self._counts_due = True
        self.model.refresh()
        if "view" in where:
            view = self.views.get(str(where["view"]))
            if view is not None:
                self.looking.apply_view(view)
        if "filter" in where:
            self.show_filter(str(where["filter"]))
        if where.get("device"):
            self.open_device(str(where["device"]))
        self._calm.start()
        self._preload.start()
        self._draw_state()
        self._ticked()
        self.table.setFocus()

    def leave(self) -> None:
        self._entered = False
        self._calm.stop()
        self._preload.stop()

    # ------------------------------------------------------------ the filter

    def show_filter(self, text: str) -> None:
        """A filter from elsewhere: a card, a link, a saved view. One that does not parse is shown, and why."""
        try:
            self.filter.set_filter(parse(text))
        except FilterError as error:
            self.filter.setText(text)
            self._show_wrong(str(error))

    @Slot(object)
    def _filtered(self, wanted: Filter) -> None:
        self.model.set_filter(wanted)
        self.chips.show_chips(wanted.chips())
        self.context.commands.set_facts(devices__filtered=bool(wanted))
        self._counts_due = True
        self._draw_state()
        self._draw_counts()
        self.view_menu.refresh()

    @Slot(str)
    def _show_wrong(self, sentence: str) -> None:
        self._wrong.setText(sentence)
        self._wrong.setVisible(bool(sentence))

    @Slot(int)
    def _drop_chip(self, index: int) -> None:
        self.filter.set_filter(self.filter.filter.without(index))

    @Slot(int)
    def _edit_chip(self, index: int) -> None:
        """Back to its words: the filter line, with that part selected."""
        wanted = self.filter.filter
        text = wanted.chips()[index].text
        if text not in self.filter.text():
            self.filter.setText(wanted.canonical)
        at = self.filter.text().find(text)
        self.filter.setFocus()
        if at >= 0:
            self.filter.setSelection(at, len(text))

    @Slot(str)
    def _preset(self, name: str) -> None:
        self.show_filter(device_rule(name).text)

    @Slot(str)
    def _list_others(self, text: str) -> None:
        self.show_filter(text)

    def _words(self, field: str) -> Iterable[str]:
        """What occurs in a field, the most frequent first: offered while typing."""
        table = self.context.table
        if field == "tag.":
            return table.tag_keys()
        found = parse("").catalogue.find(field)
        if found is None:
            return ()
        column = found.name if found.key else found.column
        try:
            return (word for word, _ in table.words(column)[:200])
        except KeyError:
            return ()

    @Slot()
    def _to_filter(self) -> None:
        self.filter.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.filter.selectAll()

    @Slot(str)
    def _type_on(self, text: str) -> None:
        """Somebody types over the table: they want to search."""
        self.filter.setFocus(Qt.FocusReason.OtherFocusReason)
        if self.filter.text() and not self.filter.text().endswith(" "):
            self.filter.setText(self.filter.text() + " ")
        self.filter.end(False)
        QGuiApplication.postEvent(
            self.filter, QKeyEvent(QKeyEvent.Type.KeyPress, 0, Qt.KeyboardModifier.NoModifier, text)
        )

    @Slot()
    def _to_table(self) -> None:
        if self.model.rowCount():
            self.table.setFocus()

    # ------------------------------------------------------------ following

    def _applied(self, applied: Applied) -> None:
        self.model.take(applied, self.table.watched() if self._entered else (0, -1))
        self._counts_due = True

    @Slot(object)
    def _changed(self, changes: Changes) -> None:
        self.views.take(changes)
        if self.drawer_open:
            self.drawer.take(changes)
        if self._entered and (changes.more or self._loading or (changes.devices and not self.model.rowCount())):
            # While the store is being read there is nothing to keep still, but sorting at each slice would slow it.
            now = self.context.clock.monotonic()
            if not changes.more or now - self._sorted_at >= LOADING_S:
                self._sorted_at = now
                self.model.refresh()
        self._loading = changes.more
        if self._entered and not changes.more:
            self._draw_state()

    @Slot()
    def _ticked(self) -> None:
        if not self._entered:
            return
        self.model.tick(self.table.watched())
        if self.drawer_open:
            self.drawer.tick()
        if self._counts_due:
            self._draw_counts()

    @Slot()
    def _theme_changed(self) -> None:
        self.model.words_changed()

    def _setting_changed(self, _key: str, value: object) -> None:
        self.table.set_density(str(value))

    # ------------------------------------------------------------ keeping still

    @Slot()
    def _touched(self) -> None:
        self._touched_at = self.context.clock.monotonic()

    @Slot()
    def _settle(self) -> None:
        """Rows go where they now belong, if it is time and nobody is at it."""
        view = self.model.view
        pace = self.context.settings.get(RESORT_S)
        stale = bool(view.stale)
        self._sort_now.setVisible(stale and pace <= 0)
        if pace <= 0 or not (stale or (view.filter is not None and view.filter.ages)):
            return
        now = self.context.clock.monotonic()
        if now - self._sorted_at < pace or now - self._touched_at < STILL_MS / 1000:
            return
        if QGuiApplication.mouseButtons() != Qt.MouseButton.NoButton:
            return
        self._sorted_at = now
        self.model.refresh()
        self._draw_state()

    @Slot()
    def sort_now(self) -> None:
        self._sorted_at = self.context.clock.monotonic()
        self.model.refresh()
        self._sort_now.hide()
        self._draw_state()

    # ------------------------------------------------------------ state and counts

    @Slot()
    def _draw_state(self) -> None:
        total, shown = len(self.context.table), self.model.rowCount()
        if not total:
            self._stack.setCurrentWidget(self._nothing if self.context.caught_up else self._reading)
        elif not shown:
            self._no_match.say(
                self.tr("No device passes the filter"),
                self.tr("{0} are known. Take a part of the filter away, or clear it.").format(
                    plural(total, self.tr("device"), self.tr("devices"))
                ),
            )
            self._stack.setCurrentWidget(self._no_match)
        else:
            self._stack.setCurrentWidget(self.table)
        self._draw_count(total, shown)
        self.context.commands.set_facts(devices__rows=shown > 0)
        self.export_button.setEnabled(shown > 0)

    def _draw_count(self, total: int, shown: int) -> None:
        chosen = len(self.table.selected_positions())
        if self.filter.filter:
            words = self.tr("{0} of {1} devices").format(f"{shown:,}", f"{total:,}")
        else:
            words = plural(total, self.tr("device"), self.tr("devices"))
        if chosen > 1:
            words += self.tr(", {0} selected").format(f"{chosen:,}")
        if self._count.text() != words:
            self._count.setText(words)

    def _draw_counts(self) -> None:
        """Numbers of the ready-made filters."""
        self._counts_due = False
        table, now = self.context.table, self.context.clock.now()
        if self.filter.filter:
            self.chips.count({})
            return
        counts = {name: int(passing(table, device_rule(name).filter, now).sum()) for name in PRESETS}
        self.chips.count(counts)

    # ------------------------------------------------------------ selection and drawer

    def selection(self) -> list[str]:
        """What acts are about: what is selected, else the device that is open."""
        chosen = self.table.selected_devices()
        if chosen:
            return chosen
        return [self.drawer.device] if self.drawer_open and self.drawer.device else []

    @Slot()
    def _selection_changed(self) -> None:
        self._facts()
        self._draw_count(len(self.context.table), self.model.rowCount())
        positions = self.table.selected_positions()
        if self.drawer_open and len(positions) == 1:
            device = self.model.device_at(positions[0])
            if device != self.drawer.device:
                self.drawer.show_device(device)

    def _facts(self) -> None:
        chosen = self.selection()
        self.context.commands.set_facts(
            selection=bool(chosen), selection__one=len(chosen) == 1, devices__drawer=self.drawer_open
        )

    @Slot(str)
    def open_device(self, device: str) -> None:
        if device not in self.context.table:
            self.context.notices.say(
                Level.WARNING, f"The device {device} is not known (any more)", key=f"devices:unknown:{device}"
            )
            return
        if self.model.position_of(device) < 0:
            self.filter.clear_filter()
        self.table.select_devices([device], device)
        self.drawer.show_device(device)
        if not self.drawer_open:
            self.drawer.show()
            wanted = int(self.context.settings.recall("devices.drawer", DRAWER_WIDTH))
            wide = self._splitter.width()
            wanted = max(self.drawer.minimumWidth(), min(wanted, wide // 2))
            self._splitter.setSizes([wide - wanted, wanted])
            self.table.scrollTo(self.table.currentIndex())
        self._facts()

    @Slot()
    def close_drawer(self) -> None:
        if not self.drawer_open:
            return
        self.drawer.hide()
        self.drawer.forget()
        self._facts()
        self.table.setFocus()

    @Slot()
    def _drawer_resized(self) -> None:
        if self.drawer_open:
            self.context.settings.remember("devices.drawer", self.drawer.width())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape and self.drawer_open:
            self.close_drawer()
            return
        super().keyPressEvent(event)
