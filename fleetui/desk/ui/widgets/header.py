"""What stands at the right of the header: the way into the palette, and the bell. Main thread only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QFontMetrics, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QPushButton

from fleetui.desk.ui.palette import keys
from fleetui.desk.ui.widgets.basic import IconButton, IconLabel, key_label, label, named

if TYPE_CHECKING:
    from fleetui.desk.ui.context import DeskContext


class BellButton(IconButton):
    """The bell, with how many notices are unread in the colour of the worst of them."""

    def __init__(self, context: DeskContext) -> None:
        super().__init__(context.theme, "bell", self.tr("Notifications"), shortcut=keys("Ctrl+Shift+N"), size=18)
        self._notices = context.notices
        self.setFixedSize(36, 32)
        context.notices.on_changed(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        unread = self._notices.unread
        named(self, self.tr("Notifications, {0} unread").format(unread) if unread else self.tr("Notifications"))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        unread = self._notices.unread
        if not unread:
            return
        worst = self._notices.worst
        role = "accent" if worst is None or worst < 2 else ("warn" if worst == 2 else "bad")
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = self._theme.font("caption")
        font.setPointSizeF(font.pointSizeF() * 0.9)
        text = str(unread) if unread < 100 else "99+"
        width = max(QFontMetrics(font).horizontalAdvance(text) + 8, 16)
        x = self.width() - width - 1
        painter.setPen(self._theme.color("window"))
        painter.setBrush(self._theme.color(role))
        painter.drawRoundedRect(x, 1, width, 16, 8, 8)
        painter.setFont(font)
        painter.setPen(self._theme.color("on_accent"))
        painter.drawText(x, 1, width, 16, Qt.AlignmentFlag.AlignCenter, text)
        painter.end()


class SearchBox(QPushButton):
    """Looks like a field and opens the palette."""

    def __init__(self, context: DeskContext) -> None:
        super().__init__()
        self.setProperty("searchbox", True)
        named(self, self.tr("Search everything"))
        layout = QHBoxLayout(self)
        layout.setContentsMargins(10, 0, 6, 0)
        layout.setSpacing(8)
        layout.addWidget(IconLabel(context.theme, "search", "faint", 14))
        layout.addWidget(label(self.tr("Search or run a command"), "body", "faint"), 1)
        layout.addWidget(key_label(keys("Ctrl+K")))
        self.setFixedSize(QSize(300, 32))
