"""Draws one cell of the devices table: a status as icon, word and colour, a share as bar and figure, texts elided.

Everything it needs is cached between theme changes (colours, pens, pixmaps, elided texts), because a screenful is
some five hundred calls. It draws and nothing else: no editing, no state of its own but the row under the pointer.
Main thread only.
"""

from __future__ import annotations

import math

from PySide6.QtCore import QModelIndex, QPersistentModelIndex, QRect, QRectF, QSize, Qt, Slot
from PySide6.QtGui import QColor, QFontMetrics, QPainter, QPixmap
from PySide6.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from fleetui.desk.app.shown import Draw
from fleetui.desk.ui.models.devices_model import DevicesModel
from fleetui.desk.ui.theme import Theme

Index = QModelIndex | QPersistentModelIndex

PAD = 8
ICON = 16
BAR = 4  # height
FIGURE_ROOM = 46  # beside a bar
ELIDED = 20_000

_LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextSingleLine
_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextSingleLine
_SELECTED = QStyle.StateFlag.State_Selected
_ELIDE = Qt.TextElideMode.ElideRight


class DeviceCellDelegate(QStyledItemDelegate):
    """For views of a :class:`DevicesModel`. ``hovered`` is the row pointed at, ``current`` that of the keys."""

    def __init__(self, theme: Theme, parent: QWidget) -> None:
        super().__init__(parent)
        self._theme = theme
        self.hovered = -1
        self.current = -1
        self._elided: dict[tuple[str, int], str] = {}
        self._looks: dict[str, tuple[QPixmap, QColor]] = {}
        self._ratio = 0.0
        theme.changed.connect(self._dress)
        self._dress()

    @Slot()
    def _dress(self) -> None:
        theme = self._theme
        self._font = theme.font("body")
        self._metrics = QFontMetrics(self._font)
        self._text, self._muted, self._faint = (theme.color(r) for r in ("text", "muted", "faint"))
        self._bad, self._warn = theme.color("bad"), theme.color("warn")
        self._line = theme.color("border", 0.6)
        self._accent = theme.color("accent")
        self._under = theme.soft("accent", 0.14)
        self._over = theme.color("hover")
        self._track, self._fill = theme.color("sunken"), theme.soft("accent", 0.62)
        self._elided.clear()
        self._looks.clear()

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        return QSize(80, self._theme.size("row"))

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        model = index.model()
        if not isinstance(model, DevicesModel) or index.row() >= model.rowCount():
            return
        row, column = index.row(), index.column()
        rect: QRect = option.rect
        if option.state & _SELECTED:
            painter.fillRect(rect, self._under)
        elif row == self.hovered:
            painter.fillRect(rect, self._over)
        painter.setPen(self._line)
        painter.drawLine(rect.bottomLeft(), rect.bottomRight())
        if row == self.current and column == 0:
            painter.fillRect(rect.x(), rect.y(), 2, rect.height(), self._accent)
        shown = model.columns[column]
        text = model.text(row, column)
        painter.setFont(self._font)
        if shown.draw is Draw.STATUS:
            self._draw_status(painter, rect, model.status(row, column), text)
            return
        inside = rect.adjusted(PAD, 0, -PAD, 0)
        if shown.draw is Draw.SHARE:
            value = model.figure(row, column)
            if math.isfinite(value):
                inside = self._draw_bar(painter, inside, value, value >= shown.warn)
        if not text:
            return
        painter.setPen(self._pen(shown.name, shown.draw, text, model, row, column))
        painter.drawText(inside, _RIGHT if shown.right else _LEFT, self._fitting(text, inside.width()))

    def _pen(self, name: str, draw: Draw, text: str, model: DevicesModel, row: int, column: int) -> QColor:
        if name in {"id", "name"}:
            return self._text
        if text == "–":
            return self._faint
        if name == "errors":
            return self._bad if model.figure(row, column) > 0 else self._faint
        return self._muted if draw in {Draw.TEXT, Draw.AGE} else self._text

    def _fitting(self, text: str, width: int) -> str:
        key = (text, width)
        found = self._elided.get(key)
        if found is None:
            if len(self._elided) > ELIDED:
                self._elided.clear()
            found = self._elided[key] = self._metrics.elidedText(text, _ELIDE, width)
        return found

    def _draw_status(self, painter: QPainter, rect: QRect, status: str, word: str) -> None:
        if not status:
            return
        ratio = painter.device().devicePixelRatioF()
        if ratio != self._ratio:
            self._ratio = ratio
            self._looks.clear()
        look = self._looks.get(status)
        if look is None:
            known = self._theme.look(status)
            pixmap = self._theme.pixmap(known.icon, known.role, ICON, ratio)
            # What is well says so quietly: the icon's colour is enough.
            color = self._muted if known.role == "ok" else self._theme.color(known.role)
            look = self._looks[status] = (pixmap, color)
        pixmap, color = look
        painter.drawPixmap(rect.x() + PAD, rect.y() + (rect.height() - ICON) // 2, pixmap)
        painter.setPen(color)
        left = PAD + ICON + 6
        inside = rect.adjusted(left, 0, -PAD, 0)
        painter.drawText(inside, _LEFT, self._fitting(word, inside.width()))

    def _draw_bar(self, painter: QPainter, inside: QRect, value: float, warn: bool) -> QRect:
        """The bar; what is left for the figure."""
        width = inside.width() - FIGURE_ROOM
        if width < 16:
            return inside
        bar = QRectF(inside.x(), inside.y() + (inside.height() - BAR) / 2, width, BAR)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self._track)
        painter.drawRoundedRect(bar, 2, 2)
        bar.setWidth(max(2.0, width * min(max(value, 0.0), 1.0)))
        painter.setBrush(self._warn if warn else self._fill)
        painter.drawRoundedRect(bar, 2, 2)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        return inside.adjusted(width, 0, 0, 0)
