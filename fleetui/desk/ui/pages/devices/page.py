"""The devices page: filter, chips, table, drawer, and what can be done with what is selected.

It puts the parts together and holds no figures: cells come from the device table, order from a view of it, what is
saved from ``app/views.py``. Rows are put where they now belong at a calm pace (a setting) and never while somebody
drags, scrolls or has a menu open. Main thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QPoint, Qt, QTimer, Slot
from PySide6.QtGui import QGuiApplication, QKeyEvent
from PySide6.QtWidgets import QFileDialog, QFrame, QMenu, QSplitter, QStackedWidget, QVBoxLayout, QWidget

from fleetui.common.domain.filters import Filter, FilterError, device_rule, parse
from fleetui.desk.app import export
from fleetui.desk.app.columns import Applied
from fleetui.desk.app.commands import Command
from fleetui.desk.app.export import Form
from fleetui.desk.app.notices import Level
from fleetui.desk.app.operations import Operation
from fleetui.desk.app.order import passing
from fleetui.desk.app.settings_list import CONFIRM, DENSITY, RESORT_S
from fleetui.desk.app.shown import FIRST, offered
from fleetui.desk.app.text import plural
from fleetui.desk.app.views import Looks, Views
from fleetui.desk.ui import preload
from fleetui.desk.ui.context import DeskContext, Page
from fleetui.desk.ui.models.devices_model import DevicesModel
from fleetui.desk.ui.pages.devices import acts
from fleetui.desk.ui.pages.devices.chips import ChipRow
from fleetui.desk.ui.pages.devices.columnpanel import ColumnPanel
from fleetui.desk.ui.pages.devices.dialogs import Ask, Confirm
from fleetui.desk.ui.pages.devices.filterfield import FilterField
from fleetui.desk.ui.pages.devices.table import DevicesTable
from fleetui.desk.ui.pages.devices.viewmenu import ViewMenu
from fleetui.desk.ui.palette import keys, translate
from fleetui.desk.ui.widgets.basic import Button, label, row
from fleetui.desk.ui.widgets.card import TONES
from fleetui.desk.ui.widgets.empty import EmptyState
from fleetui.store.records import Changes, SavedView, Wish, WishState

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
        self._view: SavedView | None = None
        self.views = Views(self.page_id, lambda: context.wishes.operator)
        self.views.take(Changes(seq=0, views=tuple(context.views.values())))
        looks = self._recalled()
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
        self.view_menu = ViewMenu(self, theme)
        self.columns_button = Button(theme, self.tr("Columns"), icon="columns")
        self.export_button = Button(theme, self.tr("Export"), icon="download")
        self._columns = ColumnPanel(self, theme, FIRST)
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
        self.table.looks_changed.connect(self._looks_changed)
        self.table.typed.connect(self._type_on)
        self.table.customContextMenuRequested.connect(self._context_menu)
        self.table.verticalScrollBar().valueChanged.connect(self._touched)
        self.columns_button.clicked.connect(self._open_columns)
        self.export_button.clicked.connect(self._open_export)
        self._columns.changed.connect(self._set_columns)
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
        self.views.on_changed(self._views_changed)

    @property
    def drawer(self) -> DeviceDrawer:
        """Made when it is first opened: its charts are the heaviest thing on the page."""
        if self._drawer is None:
            from fleetui.desk.ui.pages.devices.drawer import DeviceDrawer

            made = self._drawer = DeviceDrawer(self.context, self.row_menu)
            made.hide()
            made.closed.connect(self.close_drawer)
            made.acted.connect(self._act)
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
            "devices.ask_report": self.ask_report,
            "devices.rename": self.rename,
            "devices.copy_id": self.copy_ids,
            "devices.copy": self.copy_rows,
            "devices.remove": self.remove,
            "devices.save_view": self.save_view,
            "devices.columns": self._open_columns,
            "devices.sort_now": self.sort_now,
            "devices.export_csv": lambda: self._export_asked(Form.CSV),
            "devices.export_json": lambda: self._export_asked(Form.JSON),
        }
        for name, function in table.items():
            self.context.commands.bind(name, function)

    # ------------------------------------------------------------ coming and going

    def enter(self, **where: Any) -> None:
        self._entered = True
        self._counts_due = True
        self.model.refresh()
        if "view" in where:
            view = self.views.get(str(where["view"]))
            if view is not None:
                self.apply_view(view)
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

    # ------------------------------------------------------------ acts

    @Slot(str)
    def _act(self, command: str) -> None:
        self.context.commands.run(command)

    def row_menu(self, parent: QWidget) -> QMenu:
        """What can be done with the selection; what cannot says why."""
        commands, menu = self.context.commands, QMenu(parent)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.setToolTipsVisible(True)
        for name in acts.MENU:
            if not name:
                menu.addSeparator()
                continue
            command = next(each for each in acts.COMMANDS if each.id == name)
            icon = self.context.theme.icon(command.icon, "bad" if command.destructive else "muted")
            action = menu.addAction(icon, translate(command.title))
            if command.shortcut:
                action.setText(f"{translate(command.title)}\t{keys(command.shortcut)}")
            why = commands.why_not(name) if name in commands else ""
            action.setEnabled(not why)
            action.setToolTip(translate(why))
            action.triggered.connect(lambda _=False, name=name: self._act(name))
        return menu

    @Slot(QPoint)
    def _context_menu(self, point: QPoint) -> None:
        if not self.table.selected_positions():
            return
        inside = self.table.viewport().rect().contains(point) and self.table.indexAt(point).isValid()
        where = self.table.viewport().mapToGlobal(point) if inside else self.table.menu_point()
        self.row_menu(self.table).popup(where)

    @Slot()
    def ask_report(self) -> None:
        devices = self.selection()
        if devices:
            words = self.tr("Ask {0} to report").format(acts.touched(self.context.table, devices))
            self._wish("device.ask", {"devices": devices, "ask": "report"}, words)

    @Slot()
    def rename(self) -> None:
        device = self.selection()[0]
        found = self.context.table.get(device)
        if found is None:
            return
        Ask(
            self,
            self.context.theme,
            self.tr("Rename {0}").format(device),
            self.tr("Name"),
            self.tr("Rename"),
            acts.device_name,
            lambda name, _: self._wish(
                "device.rename",
                {"device": device, "name": name},
                self.tr("Rename {0} to “{1}”").format(device, name),
            ),
            text=found.name,
            hint=self.tr("Empty: the name that the device reports"),
        ).open()

    @Slot()
    def remove(self) -> None:
        devices = self.selection()
        if not devices:
            return
        table = self.context.table
        what = acts.touched(table, devices)
        words = self.tr("Remove {0}").format(what)

        def act() -> None:
            self._wish("device.remove", {"devices": devices}, words)

        if not self.context.settings.get(CONFIRM):
            act()
            return
        text = self.tr(
            "What is known of {0} is forgotten, with its history. A device that reports again later appears as new."
        ).format(what)
        living = acts.alive(table, devices)
        if living:
            one = self.tr("It is online") if len(devices) == 1 else self.tr("1 of them is online")
            who = one if living == 1 else self.tr("{0} of them are online").format(f"{living:,}")
            text += " " + self.tr("{0} and will be back with the next report.").format(who)
        verb = self.tr("Remove {0}").format(plural(len(devices), self.tr("device"), self.tr("devices")))
        Confirm(self, self.context.theme, self.tr("Remove {0}?").format(what), text, verb, act).open()

    def _wish(self, kind: str, arguments: dict[str, Any], words: str) -> None:
        """Asks the station, and says how it went."""
        self.context.hint(self.tr("{0} …").format(words))
        self.context.wishes.ask(kind, arguments, words, on_end=lambda wish: self._wish_ended(wish, words))

    def _wish_ended(self, wish: Wish, words: str) -> None:
        if wish.state is WishState.DONE:
            self.context.hint(self.tr("{0}: done").format(words))

    @Slot()
    def copy_ids(self) -> None:
        devices = self.selection()
        QGuiApplication.clipboard().setText("\n".join(devices))
        count = plural(len(devices), self.tr("device id"), self.tr("device ids"))
        self.context.hint(self.tr("Copied {0}").format(count))

    @Slot()
    def copy_rows(self) -> None:
        table = self.context.table
        rows = [table.row_of(device) for device in self.selection()]
        text = export.as_text(table, self.model.columns, rows, self.context.clock.now())
        QGuiApplication.clipboard().setText(text)
        self.context.hint(self.tr("Copied {0}").format(plural(len(rows), self.tr("row"), self.tr("rows"))))

    # ------------------------------------------------------------ export

    @Slot()
    def _open_export(self) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for name in ("devices.export_csv", "devices.export_json"):
            command = next(each for each in acts.COMMANDS if each.id == name)
            text = translate(command.title) + (f"\t{keys(command.shortcut)}" if command.shortcut else "")
            menu.addAction(self.context.theme.icon(command.icon, "muted"), text).triggered.connect(
                lambda _=False, name=name: self._act(name)
            )
        below = self.export_button
        menu.popup(below.mapToGlobal(below.rect().bottomLeft() + QPoint(0, 4)))

    def _export_asked(self, form: Form) -> None:
        kinds = {Form.CSV: self.tr("Table (*.csv)"), Form.JSON: self.tr("JSON (*.json)")}
        name, _ = QFileDialog.getSaveFileName(self, self.tr("Export devices"), f"devices.{form}", kinds[form])
        if name:
            self.export_to(Path(name), form)

    def export_to(self, path: Path, form: Form) -> None:
        """What is shown: the rows of the filter, all of them, in their order and columns."""
        taken = export.extract(self.context.table, self._columns_in_order(), self.model.view.order)
        work = Operation(self.tr("Export devices"), lambda: export.write(taken, path, form))
        work.on_done(
            lambda count: self.context.hint(
                self.tr("{0} written to {1}").format(
                    plural(count, self.tr("device"), self.tr("devices")), path.name
                )
            )
        ).start(self.context.operations)

    def _columns_in_order(self) -> list[Any]:
        by_name = {column.name: column for column in self.model.columns}
        return [by_name[name] for name in self.table.shown_order()]

    # ------------------------------------------------------------ columns and views

    @Slot()
    def _open_columns(self) -> None:
        self._columns.show_columns(offered(self.context.table), self.table.shown_order())
        self._columns.open_at(self.columns_button)

    @Slot(tuple)
    def _set_columns(self, names: tuple[str, ...]) -> None:
        self._lay_out(names)
        self._looks_changed()

    def _lay_out(self, names: tuple[str, ...]) -> None:
        self.model.set_columns(names)
        header = self.table.horizontalHeader()
        # Dragging moved sections; the new columns come in their own order.
        for i in range(header.count()):
            header.moveSection(header.visualIndex(i), i)
        self.table.fit_columns()
        self.table.show_sort()

    def looks(self) -> Looks:
        """How the table looks now, as a view would keep it."""
        model = self.model
        return Looks(self.filter.filter.canonical, self.table.shown_order(), model.sort_name, model.view.descending)

    def _recalled(self) -> Looks:
        """As it was when the window was last closed."""
        kept = self.context.settings.recall("devices.looks", {})
        try:
            return Looks.of(
                SavedView(
                    "", "", "devices", "", tuple(kept["columns"]), str(kept["sort"]), bool(kept["descending"])
                )
            )
        except (KeyError, TypeError):
            return Looks()

    @Slot()
    def _looks_changed(self) -> None:
        now = self.looks()
        self.context.settings.remember(
            "devices.looks", {"columns": list(now.columns), "sort": now.sort, "descending": now.descending}
        )
        self.context.settings.remember("devices.widths", self.table.widths)
        self.view_menu.refresh()

    @property
    def current_view(self) -> SavedView | None:
        """The saved view that was applied last, in its stored form; None after it was deleted."""
        return self.views.get(self._view.id) if self._view is not None else None

    def apply_view(self, view: SavedView) -> None:
        looks = Looks.of(view)
        self._view = view
        self._lay_out(looks.columns)
        self.model.set_sort(looks.sort, descending=looks.descending)
        self.table.show_sort()
        self.show_filter(view.filter)
        self._looks_changed()

    def leave_view(self) -> None:
        """The usual table again."""
        self._view = None
        self._lay_out(FIRST)
        self.model.set_sort("id", descending=False)
        self.table.show_sort()
        self.filter.clear_filter()
        self._looks_changed()

    @Slot()
    def save_view(self) -> None:
        def act(name: str, shared: bool) -> None:
            view = self.views.new(name, self.looks(), shared=shared)
            self._view = view
            self.views.save(view, self.context.store).start(self.context.operations)
            self.context.hint(self.tr("Saved as “{0}”").format(name))

        Ask(
            self,
            self.context.theme,
            self.tr("Save as view"),
            self.tr("Name"),
            self.tr("Save"),
            self.views.check_name,
            act,
            hint=self.tr("Offline in Berlin"),
            tick=self.tr("For everybody who uses this store"),
        ).open()

    def update_view(self, view: SavedView) -> None:
        self.views.save(self.views.updated(view, self.looks()), self.context.store).start(self.context.operations)
        self.context.hint(self.tr("“{0}” is up to date").format(view.name))

    def rename_view(self, view: SavedView) -> None:
        Ask(
            self,
            self.context.theme,
            self.tr("Rename view"),
            self.tr("Name"),
            self.tr("Rename"),
            lambda text: self.views.check_name(text, besides=view.id),
            lambda name, _: self.views.save(self.views.renamed(view, name), self.context.store).start(
                self.context.operations
            ),
            text=view.name,
        ).open()

    def delete_view(self, view: SavedView) -> None:
        def act() -> None:
            self.views.delete(view, self.context.store).start(self.context.operations)

        if not self.context.settings.get(CONFIRM):
            act()
            return
        text = self.tr("The filter, columns and order under this name are forgotten. Devices are not touched.")
        if view.shared:
            text += " " + self.tr("It goes for everybody who uses this store.")
        title = self.tr("Delete the view “{0}”?").format(view.name)
        Confirm(self, self.context.theme, title, text, self.tr("Delete view"), act).open()

    def _views_changed(self) -> None:
        self.view_menu.refresh()
