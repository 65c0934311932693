"""The main window: rail, header, pages, status bar, and what lies over them.

It makes pages when they are first asked for, answers ``DeskContext.navigate``, gives commands their shortcuts and
remembers its size. What a page shows is the page's; what closing the window means is ``main.py``'s. Main thread.
"""

from __future__ import annotations

import base64
import binascii
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from PySide6.QtCore import QByteArray, QEvent, Qt, QTimer, Signal, Slot
from PySide6.QtGui import QCloseEvent, QKeySequence, QPaintEvent, QShortcut
from PySide6.QtWidgets import QHBoxLayout, QLabel, QMainWindow, QStackedWidget, QVBoxLayout, QWidget

from fleetui.desk.app.commands import Command
from fleetui.desk.ui.context import DeskContext, Page
from fleetui.desk.ui.finder import Finder
from fleetui.desk.ui.notifications import Notifications
from fleetui.desk.ui.palette import CommandPalette, ShortcutSheet, keys, translate
from fleetui.desk.ui.shell import COMMANDS, GO, PAGES, PageSpec
from fleetui.desk.ui.widgets.footer import ConnectionPanel, Footer
from fleetui.desk.ui.widgets.header import BellButton, SearchBox
from fleetui.desk.ui.widgets.overlay import Overlay
from fleetui.desk.ui.widgets.rail import Rail


class MainWindow(QMainWindow):
    """One window over one :class:`DeskContext`. ``closing`` asks whoever owns the application to shut down.

    ``first_frame`` comes once, after the window was painted for the first time.
    """

    closing = Signal()
    page_shown = Signal(str)
    first_frame = Signal()

    def __init__(self, context: DeskContext, pages: tuple[PageSpec, ...] = PAGES) -> None:
        super().__init__()
        self.context = context
        self.setWindowTitle("FleetUI")
        self.setWindowIcon(context.theme.icon("logo", "accent", 32))
        self.resize(1280, 800)
        self.setMinimumSize(900, 560)
        self._specs = {spec.id: spec for spec in pages}
        self._pages: dict[str, Page] = {}
        self._shown = ""
        self._where: dict[str, Any] = {}
        self._past: list[tuple[str, dict[str, Any]]] = []
        self._ahead: list[tuple[str, dict[str, Any]]] = []
        self._may_close = False
        self._painted = False
        self._shortcuts: list[QShortcut] = []
        self._build(pages)
        self.palette_ = CommandPalette(self, context.theme, context.commands)
        self.sheet = ShortcutSheet(self, context.theme, context.commands)
        self.connections = ConnectionPanel(self, context.theme)
        self.notifications = Notifications(self, context, self.close)
        self._undo: list[Callable[[], None]] = []
        self._register(pages)
        context.navigated.connect(self._navigate)
        self._seconds = QTimer(self)
        self._seconds.setInterval(1000)
        self._seconds.timeout.connect(context.ticked)
        context.ticked.connect(self.footer.tick)
        context.hinted.connect(self.footer.hint)
        self._recall()

    # ------------------------------------------------------------ building

    def _build(self, pages: tuple[PageSpec, ...]) -> None:
        context = self.context
        self.rail = Rail(context.theme, "FleetUI")
        for place, spec in enumerate(pages, 1):
            shortcut = keys(self._page_shortcut(place, spec))
            self.rail.add(spec.id, spec.icon, translate(spec.title), shortcut, foot=spec.foot)
        self.rail.chosen.connect(context.navigate)
        self.rail.narrowed.connect(self._narrowed)
        self.stack = QStackedWidget()
        self.title = QLabel()
        self.title.setProperty("type", "title")
        self.search = SearchBox(context)
        self.search.clicked.connect(self._open_palette)
        self.bell = BellButton(context)
        self.bell.clicked.connect(self._open_drawer)
        header = QWidget()
        header.setObjectName("header")
        header.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        header.setFixedHeight(context.theme.size("header"))
        across = QHBoxLayout(header)
        across.setContentsMargins(24, 0, 16, 0)
        across.setSpacing(12)
        across.addWidget(self.title, 1)
        across.addWidget(self.search)
        across.addWidget(self.bell)
        right = QVBoxLayout()
        right.setSpacing(0)
        right.addWidget(header)
        right.addWidget(self.stack, 1)
        upper = QHBoxLayout()
        upper.setSpacing(0)
        upper.addWidget(self.rail)
        upper.addLayout(right, 1)
        self.footer = Footer(context.theme, context.clock)
        self.footer.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.footer.details.connect(self._open_connections)
        centre = QWidget()
        whole = QVBoxLayout(centre)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.setSpacing(0)
        whole.addLayout(upper, 1)
        whole.addWidget(self.footer)
        self.setCentralWidget(centre)

    @staticmethod
    def _page_shortcut(place: int, spec: PageSpec) -> str:
        return "Ctrl+," if spec.id == "settings" else f"Ctrl+{place}"

    def _register(self, pages: tuple[PageSpec, ...]) -> None:
        registry = self.context.commands
        if "app.palette" not in registry:
            registry.register(*COMMANDS)
            registry.register(
                *(
                    Command(
                        f"app.page.{spec.id}", spec.title, group=GO, icon=spec.icon,
                        shortcut=self._page_shortcut(place, spec), keywords=("page",),
                    )
                    for place, spec in enumerate(pages, 1)
                )
            )  # fmt: skip
        bind: dict[str, Callable[..., object]] = {
            "app.palette": self._open_palette,
            "app.notifications": self._open_drawer,
            "app.connections": self._open_connections,
            "app.shortcuts": self._open_sheet,
            "app.quit": self.close,
            "app.back": self.back,
            "app.forward": self.forward,
            "app.rail": lambda: self._set_narrow(not self.rail.is_narrow),
            **{f"app.theme.{mode}": self._theme_setter(mode) for mode in ("light", "dark", "system")},
            **{f"app.page.{spec.id}": self._page_goer(spec.id) for spec in pages},
        }
        self._undo = [registry.bind(name, function) for name, function in bind.items()]
        self._undo.append(registry.add_source(Finder(self.context)))
        for command in registry:
            if command.id.startswith("app.") and command.shortcut:
                self._shortcut(command, self, Qt.ShortcutContext.WindowShortcut)
        question = QShortcut(QKeySequence("?"), self)
        question.activated.connect(self._open_sheet)
        self._shortcuts.append(question)

    def _shortcut(self, command: Command, parent: QWidget, where: Qt.ShortcutContext) -> None:
        shortcut = QShortcut(QKeySequence(command.shortcut), parent)
        shortcut.setContext(where)
        shortcut.activated.connect(lambda: self._run(command))
        self._shortcuts.append(shortcut)

    def _run(self, command: Command) -> None:
        overlay = self.overlay
        if overlay is not None:
            if command.id == "app.quit" or not command.id.startswith("app."):
                return  # what is open over the page wants an answer first
            overlay.dismiss()
        why = self.context.commands.why_not(command.id)
        if why:
            self.footer.hint(f"{translate(command.title)}: {translate(why)}")
            return
        self.context.commands.run(command.id)

    def _theme_setter(self, mode: str) -> Callable[[], object]:
        return lambda: self.context.settings.set("appearance.theme", mode)

    def _page_goer(self, page_id: str) -> Callable[[], object]:
        return lambda: self.context.navigate(page_id)

    # ------------------------------------------------------------ pages

    def expect(self, page_id: str) -> None:
        """Shows rail and title as they will be, before the page is made."""
        self.rail.show_page(page_id)
        self.title.setText(translate(self._specs[page_id].title))

    def is_quick(self, page_id: str) -> bool:
        return self._specs[page_id].quick

    @property
    def page_id(self) -> str:
        return self._shown

    @property
    def page(self) -> Page:
        return self._pages[self._shown]

    @property
    def page_ids(self) -> tuple[str, ...]:
        return tuple(self._specs)

    @property
    def overlay(self) -> Overlay | None:
        """What is open over the page, if anything."""
        for overlay in (self.palette_, self.sheet, self.connections, self.notifications.drawer):
            if overlay.is_open:
                return overlay
        return None

    @Slot(str, object)
    def _navigate(self, page_id: str, where: Mapping[str, Any]) -> None:
        if page_id not in self._specs:
            page_id = next(iter(self._specs))
        if self._shown and (page_id != self._shown or where):
            self._past.append((self._shown, self._where))
            del self._past[:-50]
            self._ahead.clear()
        self._go(page_id, dict(where))

    def _go(self, page_id: str, where: dict[str, Any]) -> None:
        overlay = self.overlay
        if overlay is not None:
            overlay.dismiss()
        page = self._pages.get(page_id) or self._make(page_id)
        if self._shown and self._shown != page_id:
            self._pages[self._shown].leave()
        self._shown, self._where = page_id, where
        self.stack.setCurrentWidget(page)
        self.rail.show_page(page_id)
        self.title.setText(page.title)
        self.setWindowTitle(f"{page.title} – FleetUI")
        self.context.settings.remember("window.page", page_id)
        page.enter(**where)
        self.page_shown.emit(page_id)

    def _make(self, page_id: str) -> Page:
        spec = self._specs[page_id]
        page: Page = getattr(importlib.import_module(spec.module), spec.cls)(self.context)
        self._pages[page_id] = page
        self.stack.addWidget(page)
        own = [command for command in page.commands() if command.id not in self.context.commands]
        self.context.commands.register(*own)
        for command in page.commands():
            if command.shortcut:
                self._shortcut(command, page, Qt.ShortcutContext.WidgetWithChildrenShortcut)
        return page

    def back(self) -> None:
        if self._past:
            self._ahead.append((self._shown, self._where))
            self._go(*self._past.pop())

    def forward(self) -> None:
        if self._ahead:
            self._past.append((self._shown, self._where))
            self._go(*self._ahead.pop())

    # ------------------------------------------------------------ what lies over them

    @Slot()
    def _open_palette(self) -> None:
        self.palette_.open()

    @Slot()
    def _open_sheet(self) -> None:
        if self.overlay is None:
            self.sheet.open()

    @Slot()
    def _open_drawer(self) -> None:
        self.notifications.toasts.clear()
        self.notifications.drawer.open()

    @Slot()
    def _open_connections(self) -> None:
        self.connections.open()

    def show_link(self, key: str, status: str, detail: str) -> None:
        """State of broker, station or store, in the status bar and its panel."""
        self.footer.show_link(key, status, detail)
        self.connections.show_link(key, status, detail)

    # ------------------------------------------------------------ remembering

    @Slot(bool)
    def _narrowed(self, narrow: bool) -> None:
        self.context.settings.remember("window.narrow", narrow)

    def _set_narrow(self, narrow: bool) -> None:
        self.rail.set_narrow(narrow)
        self._narrowed(narrow)

    def _recall(self) -> None:
        settings = self.context.settings
        self.rail.set_narrow(bool(settings.recall("window.narrow", False)))
        try:
            geometry = base64.b64decode(settings.recall("window.geometry", ""), validate=True)
        except (binascii.Error, TypeError, ValueError):
            geometry = b""
        if geometry:
            self.restoreGeometry(QByteArray(geometry))

    def remember(self) -> None:
        """Keeps size, place and page for the next start."""
        settings = self.context.settings
        settings.remember("window.geometry", base64.b64encode(self.saveGeometry().data()).decode("ascii"))
        settings.save()

    @property
    def last_page(self) -> str:
        page = self.context.settings.recall("window.page", "")
        return page if page in self._specs else next(iter(self._specs))

    # ------------------------------------------------------------ Qt

    def showEvent(self, event: QEvent) -> None:
        super().showEvent(event)
        self._seconds.start()
        if self.focusWidget() is None:
            # Nothing is chosen yet; the first Tab goes to the first button.
            self.centralWidget().setFocus()

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if not self._painted:
            self._painted = True
            # Queued: children paint after their parent, and this frame is not out yet.
            QTimer.singleShot(0, self, self.first_frame.emit)

    def hideEvent(self, event: QEvent) -> None:
        self._seconds.stop()
        super().hideEvent(event)

    def allow_close(self) -> None:
        """The next ``close`` closes."""
        self._may_close = True

    def closeEvent(self, event: QCloseEvent) -> None:
        self.remember()
        if self._may_close:
            self.notifications.tray.hide()
            event.accept()
            return
        event.ignore()
        self.closing.emit()
