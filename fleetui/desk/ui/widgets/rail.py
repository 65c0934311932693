"""The navigation rail: an icon and a word for each page, icons alone when it is narrow. Main thread only."""

from __future__ import annotations

from PySide6.QtCore import QRect, QSize, Qt, Signal, Slot
from PySide6.QtGui import QFontMetrics, QKeyEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QAbstractButton, QSizePolicy, QVBoxLayout, QWidget

from fleetui.desk.ui.theme import Theme
from fleetui.desk.ui.widgets.basic import IconButton, named

HEIGHT = 38
ICON = 18


class RailButton(QAbstractButton):
    """One page. Its icon stays where it is when the rail narrows."""

    def __init__(self, theme: Theme, page_id: str, icon: str, title: str, shortcut: str) -> None:
        super().__init__()
        self._theme, self._icon = theme, icon
        self.page_id = page_id
        self._badge = 0
        self._narrow = False
        self._shortcut = shortcut
        self.setText(title)
        self.setCheckable(True)
        self.setAutoExclusive(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        named(self, title)
        theme.changed.connect(self._redraw)
        self._tip()

    def set_narrow(self, narrow: bool) -> None:
        self._narrow = narrow
        self._tip()
        self.update()

    def set_badge(self, count: int) -> None:
        if count != self._badge:
            self._badge = count
            self.setAccessibleName(f"{self.text()}, {count}" if count else self.text())
            self.update()

    def _tip(self) -> None:
        self.setToolTip(f"{self.text()} ({self._shortcut})" if self._narrow else self._shortcut)

    @Slot()
    def _redraw(self) -> None:
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(40, HEIGHT)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter}:
            self.click()
            return
        super().keyPressEvent(event)

    def paintEvent(self, _event: QPaintEvent) -> None:
        theme, painter = self._theme, QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = self.rect().adjusted(0, 1, -1, -1)
        on, over = self.isChecked(), self.underMouse()
        painter.setPen(Qt.PenStyle.NoPen)
        if on or over:
            painter.setBrush(theme.color("surface") if on else theme.color("surface", 0.55))
            painter.drawRoundedRect(box, theme.radius(), theme.radius())
        if on:
            painter.setBrush(theme.color("accent"))
            painter.drawRoundedRect(QRect(box.left() + 3, box.center().y() - 7, 3, 15), 1.5, 1.5)
        if self.hasFocus():
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(theme.color("accent"))
            painter.drawRoundedRect(box, theme.radius(), theme.radius())
        role = "accent" if on else ("text" if over else "muted")
        pixmap = theme.pixmap(self._icon, role, ICON, self.devicePixelRatioF())
        painter.drawPixmap(box.left() + 13, box.center().y() - ICON // 2 + 1, pixmap)
        if not self._narrow:
            font = theme.font("strong" if on else "body")
            painter.setFont(font)
            painter.setPen(theme.color("text" if on or over else "muted"))
            room = box.adjusted(43, 0, -12 - (34 if self._badge else 0), 0)
            text = QFontMetrics(font).elidedText(self.text(), Qt.TextElideMode.ElideRight, room.width())
            painter.drawText(room, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, text)
        if self._badge:
            self._draw_badge(painter, box)
        painter.end()

    def _draw_badge(self, painter: QPainter, box: QRect) -> None:
        theme = self._theme
        font = theme.font("caption")
        text = f"{self._badge}" if self._badge < 1000 else "999+"
        width = max(QFontMetrics(font).horizontalAdvance(text) + 10, 18)
        if self._narrow:
            spot = QRect(box.right() - 12, box.top() + 5, 8, 8)
            text = ""
        else:
            spot = QRect(box.right() - 10 - width, box.center().y() - 8, width, 17)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(theme.color("bad"))
        painter.drawRoundedRect(spot, spot.height() / 2, spot.height() / 2)
        painter.setFont(font)
        painter.setPen(theme.color("on_accent"))
        painter.drawText(spot, Qt.AlignmentFlag.AlignCenter, text)


class Rail(QWidget):
    """All pages, the last ones (settings) at the foot, and the button that narrows it."""

    chosen = Signal(str)
    narrowed = Signal(bool)

    def __init__(self, theme: Theme, title: str) -> None:
        super().__init__()
        self.setObjectName("rail")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.setAccessibleName(self.tr("Pages"))
        self._theme = theme
        self._buttons: dict[str, RailButton] = {}
        self._narrow = False
        self._top, self._bottom = QVBoxLayout(), QVBoxLayout()
        for part in (self._top, self._bottom):
            part.setSpacing(2)
        self._mark = _Mark(theme, title)
        self._fold = IconButton(theme, "sidebar", self.tr("Make the navigation narrow"), size=18)
        self._fold.setToolTip(self.tr("Narrow or wide navigation") + " (Ctrl+B)")
        self._fold.clicked.connect(self._toggle)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 0, 8, 8)
        layout.setSpacing(0)
        layout.addWidget(self._mark)
        layout.addLayout(self._top)
        layout.addStretch(1)
        layout.addLayout(self._bottom)
        layout.addSpacing(6)
        layout.addWidget(self._fold)
        self.set_narrow(False)

    def add(self, page_id: str, icon: str, title: str, shortcut: str, *, foot: bool = False) -> None:
        button = RailButton(self._theme, page_id, icon, title, shortcut)
        button.clicked.connect(lambda _=False: self.chosen.emit(page_id))
        self._buttons[page_id] = button
        (self._bottom if foot else self._top).addWidget(button)

    def button(self, page_id: str) -> RailButton:
        return self._buttons[page_id]

    def show_page(self, page_id: str) -> None:
        if page_id in self._buttons:
            self._buttons[page_id].setChecked(True)

    @property
    def is_narrow(self) -> bool:
        return self._narrow

    def set_narrow(self, narrow: bool) -> None:
        self._narrow = narrow
        self.setFixedWidth(self._theme.size("rail_narrow" if narrow else "rail"))
        self._mark.set_narrow(narrow)
        self._fold.setAccessibleName(
            self.tr("Make the navigation wide") if narrow else self.tr("Make the navigation narrow")
        )
        for button in self._buttons.values():
            button.set_narrow(narrow)

    @Slot()
    def _toggle(self) -> None:
        self.set_narrow(not self._narrow)
        self.narrowed.emit(self._narrow)


class _Mark(QWidget):
    """The program's sign and name."""

    def __init__(self, theme: Theme, title: str) -> None:
        super().__init__()
        self._theme, self._title, self._narrow = theme, title, False
        self.setFixedHeight(theme.size("header"))
        theme.changed.connect(self._redraw)

    def set_narrow(self, narrow: bool) -> None:
        self._narrow = narrow
        self.update()

    @Slot()
    def _redraw(self) -> None:
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:
        theme, painter = self._theme, QPainter(self)
        middle = self.height() // 2
        painter.drawPixmap(10, middle - 12, theme.pixmap("logo", "accent", 24, self.devicePixelRatioF()))
        if not self._narrow:
            painter.setFont(theme.font("heading"))
            painter.setPen(theme.color("text"))
            painter.drawText(43, 0, self.width() - 43, self.height(), Qt.AlignmentFlag.AlignVCenter, self._title)
        painter.end()
