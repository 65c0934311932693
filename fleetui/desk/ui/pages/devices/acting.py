"""What is done with devices that are selected: menus, wishes to the station, copying, export. Main thread only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, QPoint, Qt, Slot
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFileDialog, QMenu, QWidget

from fleetui.desk.app import export
from fleetui.desk.app.export import Form
from fleetui.desk.app.operations import Operation
from fleetui.desk.app.settings_list import CONFIRM
from fleetui.desk.app.text import plural
from fleetui.desk.ui.pages.devices import acts
from fleetui.desk.ui.pages.devices.dialogs import Ask, Confirm
from fleetui.desk.ui.palette import keys, translate
from fleetui.store.records import Wish, WishState

if TYPE_CHECKING:
    from fleetui.desk.ui.pages.devices.page import DevicesPage


class Acting(QObject):
    """The acts of one page; what they are about is the page's selection."""

    def __init__(self, page: DevicesPage) -> None:
        super().__init__(page)
        self._page = page

    def bind(self) -> None:
        """Answers for the commands that are acts."""
        table: dict[str, Callable[..., object]] = {
            "devices.ask_report": self.ask_report,
            "devices.rename": self.rename,
            "devices.copy_id": self.copy_ids,
            "devices.copy": self.copy_rows,
            "devices.remove": self.remove,
            "devices.export_csv": lambda: self.export_asked(Form.CSV),
            "devices.export_json": lambda: self.export_asked(Form.JSON),
        }
        for name, function in table.items():
            self._page.context.commands.bind(name, function)

    @Slot(str)
    def run(self, command: str) -> None:
        self._page.context.commands.run(command)

    def row_menu(self, parent: QWidget) -> QMenu:
        """What can be done with the selection; what cannot says why."""
        commands, menu = self._page.context.commands, QMenu(parent)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.setToolTipsVisible(True)
        for name in acts.MENU:
            if not name:
                menu.addSeparator()
                continue
            command = next(each for each in acts.COMMANDS if each.id == name)
            icon = self._page.context.theme.icon(command.icon, "bad" if command.destructive else "muted")
            action = menu.addAction(icon, translate(command.title))
            if command.shortcut:
                action.setText(f"{translate(command.title)}\t{keys(command.shortcut)}")
            why = commands.why_not(name) if name in commands else ""
            action.setEnabled(not why)
            action.setToolTip(translate(why))
            action.triggered.connect(lambda _=False, name=name: self.run(name))
        return menu

    @Slot(QPoint)
    def context_menu(self, point: QPoint) -> None:
        if not self._page.table.selected_positions():
            return
        inside = self._page.table.viewport().rect().contains(point) and self._page.table.indexAt(point).isValid()
        where = self._page.table.viewport().mapToGlobal(point) if inside else self._page.table.menu_point()
        self.row_menu(self._page.table).popup(where)

    @Slot()
    def ask_report(self) -> None:
        devices = self._page.selection()
        if devices:
            words = self.tr("Ask {0} to report").format(acts.touched(self._page.context.table, devices))
            self._wish("device.ask", {"devices": devices, "ask": "report"}, words)

    @Slot()
    def rename(self) -> None:
        device = self._page.selection()[0]
        found = self._page.context.table.get(device)
        if found is None:
            return
        Ask(
            self._page,
            self._page.context.theme,
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
        devices = self._page.selection()
        if not devices:
            return
        table = self._page.context.table
        what = acts.touched(table, devices)
        words = self.tr("Remove {0}").format(what)

        def act() -> None:
            self._wish("device.remove", {"devices": devices}, words)

        if not self._page.context.settings.get(CONFIRM):
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
        Confirm(self._page, self._page.context.theme, self.tr("Remove {0}?").format(what), text, verb, act).open()

    def _wish(self, kind: str, arguments: dict[str, Any], words: str) -> None:
        """Asks the station, and says how it went."""
        self._page.context.hint(self.tr("{0} …").format(words))
        self._page.context.wishes.ask(kind, arguments, words, on_end=lambda wish: self._wish_ended(wish, words))

    def _wish_ended(self, wish: Wish, words: str) -> None:
        if wish.state is WishState.DONE:
            self._page.context.hint(self.tr("{0}: done").format(words))

    @Slot()
    def copy_ids(self) -> None:
        devices = self._page.selection()
        QGuiApplication.clipboard().setText("\n".join(devices))
        count = plural(len(devices), self.tr("device id"), self.tr("device ids"))
        self._page.context.hint(self.tr("Copied {0}").format(count))

    @Slot()
    def copy_rows(self) -> None:
        table = self._page.context.table
        rows = [table.row_of(device) for device in self._page.selection()]
        text = export.as_text(table, self._page.model.columns, rows, self._page.context.clock.now())
        QGuiApplication.clipboard().setText(text)
        self._page.context.hint(self.tr("Copied {0}").format(plural(len(rows), self.tr("row"), self.tr("rows"))))

    @Slot()
    def open_export(self) -> None:
        menu = QMenu(self._page)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for name in ("devices.export_csv", "devices.export_json"):
            command = next(each for each in acts.COMMANDS if each.id == name)
            text = translate(command.title) + (f"\t{keys(command.shortcut)}" if command.shortcut else "")
            menu.addAction(self._page.context.theme.icon(command.icon, "muted"), text).triggered.connect(
                lambda _=False, name=name: self.run(name)
            )
        below = self._page.export_button
        menu.popup(below.mapToGlobal(below.rect().bottomLeft() + QPoint(0, 4)))

    def export_asked(self, form: Form) -> None:
        kinds = {Form.CSV: self.tr("Table (*.csv)"), Form.JSON: self.tr("JSON (*.json)")}
        name, _ = QFileDialog.getSaveFileName(self._page, self.tr("Export devices"), f"devices.{form}", kinds[form])
        if name:
            self.export_to(Path(name), form)

    def export_to(self, path: Path, form: Form) -> None:
        """What is shown: the rows of the filter, all of them, in their order and columns."""
        taken = export.extract(self._page.context.table, self._columns_in_order(), self._page.model.view.order)
        work = Operation(self.tr("Export devices"), lambda: export.write(taken, path, form))
        work.on_done(
            lambda count: self._page.context.hint(
                self.tr("{0} written to {1}").format(
                    plural(count, self.tr("device"), self.tr("devices")), path.name
                )
            )
        ).start(self._page.context.operations)

    def _columns_in_order(self) -> list[Any]:
        by_name = {column.name: column for column in self._page.model.columns}
        return [by_name[name] for name in self._page.table.shown_order()]
