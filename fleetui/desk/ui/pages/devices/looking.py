"""How the table looks: columns, order and filter, as they are chosen, kept and saved as views. Main thread only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Slot

from fleetui.desk.app.settings import Settings
from fleetui.desk.app.settings_list import CONFIRM
from fleetui.desk.app.shown import FIRST, offered
from fleetui.desk.app.views import Looks
from fleetui.desk.ui.pages.devices.columnpanel import ColumnPanel
from fleetui.desk.ui.pages.devices.dialogs import Ask, Confirm
from fleetui.store.records import SavedView

if TYPE_CHECKING:
    from fleetui.desk.ui.pages.devices.page import DevicesPage


class Looking(QObject):
    """The looks of one page's table."""

    def __init__(self, page: DevicesPage) -> None:
        super().__init__(page)
        self._page = page
        self._view: SavedView | None = None
        self.panel = ColumnPanel(page, page.context.theme, FIRST)
        self.panel.changed.connect(self.set_columns)

    @Slot()
    def open_columns(self) -> None:
        self.panel.show_columns(offered(self._page.context.table), self._page.table.shown_order())
        self.panel.open_at(self._page.columns_button)

    @Slot(tuple)
    def set_columns(self, names: tuple[str, ...]) -> None:
        self.lay_out(names)
        self.keep()

    def lay_out(self, names: tuple[str, ...]) -> None:
        self._page.model.set_columns(names)
        header = self._page.table.horizontalHeader()
        # Dragging moved sections; the new columns come in their own order.
        for i in range(header.count()):
            header.moveSection(header.visualIndex(i), i)
        self._page.table.fit_columns()
        self._page.table.show_sort()

    def now(self) -> Looks:
        """How the table looks now, as a view would keep it."""
        model = self._page.model
        return Looks(
            self._page.filter.filter.canonical,
            self._page.table.shown_order(),
            model.sort_name,
            model.view.descending,
        )

    @staticmethod
    def recalled(settings: Settings) -> Looks:
        """As it was when the window was last closed."""
        kept = settings.recall("devices.looks", {})
        try:
            return Looks.of(
                SavedView(
                    "", "", "devices", "", tuple(kept["columns"]), str(kept["sort"]), bool(kept["descending"])
                )
            )
        except (KeyError, TypeError):
            return Looks()

    @Slot()
    def keep(self) -> None:
        now = self.now()
        self._page.context.settings.remember(
            "devices.looks", {"columns": list(now.columns), "sort": now.sort, "descending": now.descending}
        )
        self._page.context.settings.remember("devices.widths", self._page.table.widths)
        self._page.view_menu.refresh()

    @property
    def current_view(self) -> SavedView | None:
        """The saved view that was applied last, in its stored form; None after it was deleted."""
        return self._page.views.get(self._view.id) if self._view is not None else None

    def apply_view(self, view: SavedView) -> None:
        looks = Looks.of(view)
        self._view = view
        self.lay_out(looks.columns)
        self._page.model.set_sort(looks.sort, descending=looks.descending)
        self._page.table.show_sort()
        self._page.show_filter(view.filter)
        self.keep()

    def leave_view(self) -> None:
        """The usual table again."""
        self._view = None
        self.lay_out(FIRST)
        self._page.model.set_sort("id", descending=False)
        self._page.table.show_sort()
        self._page.filter.clear_filter()
        self.keep()

    @Slot()
    def save_view(self) -> None:
        def act(name: str, shared: bool) -> None:
            view = self._page.views.new(name, self.now(), shared=shared)
            self._view = view
            self._save(view)
            self._page.context.hint(self.tr("Saved as “{0}”").format(name))

        Ask(
            self._page,
            self._page.context.theme,
            self.tr("Save as view"),
            self.tr("Name"),
            self.tr("Save"),
            self._page.views.check_name,
            act,
            hint=self.tr("Offline in Berlin"),
            tick=self.tr("For everybody who uses this store"),
        ).open()

    def _save(self, view: SavedView) -> None:
        self._page.views.save(view, self._page.context.store).start(self._page.context.operations)

    def update_view(self, view: SavedView) -> None:
        self._page.views.save(self._page.views.updated(view, self.now()), self._page.context.store).start(
            self._page.context.operations
        )
        self._page.context.hint(self.tr("“{0}” is up to date").format(view.name))

    def rename_view(self, view: SavedView) -> None:
        Ask(
            self._page,
            self._page.context.theme,
            self.tr("Rename view"),
            self.tr("Name"),
            self.tr("Rename"),
            lambda text: self._page.views.check_name(text, besides=view.id),
            lambda name, _: self._page.views.save(
                self._page.views.renamed(view, name), self._page.context.store
            ).start(self._page.context.operations),
            text=view.name,
        ).open()

    def delete_view(self, view: SavedView) -> None:
        def act() -> None:
            self._page.views.delete(view, self._page.context.store).start(self._page.context.operations)

        if not self._page.context.settings.get(CONFIRM):
            act()
            return
        text = self.tr("The filter, columns and order under this name are forgotten. Devices are not touched.")
        if view.shared:
            text += " " + self.tr("It goes for everybody who uses this store.")
        title = self.tr("Delete the view “{0}”?").format(view.name)
        Confirm(self._page, self._page.context.theme, title, text, self.tr("Delete view"), act).open()
