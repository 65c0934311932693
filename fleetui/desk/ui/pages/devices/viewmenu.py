"""The button that says which view is shown, and its menu: ready-made filters, saved views. Main thread only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QPoint, Qt, Slot
from PySide6.QtWidgets import QMenu

from fleetui.common.domain.filters import DEVICE_RULES
from fleetui.desk.app.views import Looks
from fleetui.desk.ui.palette import keys, translate
from fleetui.desk.ui.theme import Theme
from fleetui.desk.ui.widgets.basic import Button, named

if TYPE_CHECKING:
    from fleetui.desk.ui.pages.devices.page import DevicesPage


class ViewMenu(Button):
    """Its text is the current view's name; a dot says that the table was changed since."""

    def __init__(self, page: DevicesPage, theme: Theme) -> None:
        super().__init__(theme, "", icon="star", name="Views")
        self._page = page
        self.setMinimumWidth(96)
        self.clicked.connect(self.open)
        self.setText(self.tr("Views"))
        named(self, self.tr("Views"), self.tr("Saved filters, columns and orders"))

    @property
    def changed(self) -> bool:
        """Whether the table differs from the view that was applied."""
        view = self._page.looking.current_view
        return view is not None and Looks.of(view) != self._page.looking.now()

    @Slot()
    def refresh(self) -> None:
        view = self._page.looking.current_view
        if view is None:
            text = name = self.tr("Views")
        else:
            short = view.name if len(view.name) <= 24 else view.name[:23] + "…"
            text = f"{short} •" if self.changed else short
            name = self.tr("View {0}").format(view.name) + (self.tr(", changed") if self.changed else "")
        if self.text() != text:
            self.setText(text)
            named(self, name, self.tr("Saved filters, columns and orders"))

    def build(self) -> QMenu:
        """A menu of what there is now."""
        page, theme = self._page, self._theme
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.setToolTipsVisible(True)
        current = page.looking.current_view
        views = page.views.all()
        for view in views:
            mark = "check" if current is not None and view.id == current.id else "star"
            action = menu.addAction(theme.icon(mark, "muted"), view.name.replace("&", "&&"))
            action.setToolTip(view.filter or self.tr("All devices"))
            action.triggered.connect(lambda _=False, view=view: page.looking.apply_view(view))
        if not views:
            menu.addAction(self.tr("No saved views yet")).setEnabled(False)
        menu.addSeparator()
        ready = menu.addMenu(theme.icon("filter", "muted"), self.tr("Ready-made filters"))
        ready.setToolTipsVisible(True)
        for rule in DEVICE_RULES:
            action = ready.addAction(translate(rule.title))
            action.setToolTip(translate(rule.description))
            action.triggered.connect(lambda _=False, text=rule.text: page.show_filter(text))
        usual = menu.addAction(theme.icon("undo", "muted"), self.tr("Usual table"))
        usual.triggered.connect(lambda _=False: page.looking.leave_view())
        menu.addSeparator()
        save = menu.addAction(theme.icon("save", "muted"), self.tr("Save as view…") + f"\t{keys('Ctrl+S')}")
        save.triggered.connect(lambda _=False: page.looking.save_view())
        if current is not None:
            mine = page.views.mine(current)
            name = current.name.replace("&", "&&")
            for text, icon, function, enabled in (
                (self.tr("Update “{0}”"), "check", page.looking.update_view, mine and self.changed),
                (self.tr("Rename “{0}”…"), "tag", page.looking.rename_view, mine),
                (self.tr("Delete “{0}”…"), "trash", page.looking.delete_view, mine),
            ):
                action = menu.addAction(theme.icon(icon, "muted"), text.format(name))
                action.setEnabled(enabled)
                if not mine:
                    action.setToolTip(self.tr("It belongs to {0}").format(current.owner))
                action.triggered.connect(lambda _=False, function=function: function(current))
        return menu

    @Slot()
    def open(self) -> None:
        self.build().popup(self.mapToGlobal(self.rect().bottomLeft() + QPoint(0, 4)))
