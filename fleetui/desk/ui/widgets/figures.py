"""A small table for an overview: a name, figures at the right, a bar; each line leads somewhere.

For a few dozen lines at most; the devices table is another thing. Up, down, Enter work; a click leads on too.
Main thread only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PySide6.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    QPoint,
    QRectF,
    QSize,
    Qt,
    Signal,
    Slot,
)
from PySide6.QtGui import QFontMetrics, QKeyEvent, QPainter
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QSizePolicy,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
)

from fleetui.desk.ui.theme import Theme
from fleetui.desk.ui.widgets.basic import named

Index = QModelIndex | QPersistentModelIndex
ROW = 34
HEADER = 30
NOTHING = QModelIndex()


@dataclass(frozen=True, slots=True)
class Cell:
    """``text`` always says it; ``icon`` and ``tone`` help; ``parts`` are (share, colour role) of a bar."""

    text: str
    tone: str = ""
    icon: str = ""
    note: str = ""  # after the text, quieter
    parts: tuple[tuple[float, str], ...] = ()
    tip: str = ""
    icon_tone: str = "muted"


@dataclass(frozen=True, slots=True)
class Figures:
    """One column's heading: ``width`` 0 takes what is left, ``right`` aligns figures."""

    title: str
    width: int = 0
    right: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """``target`` is handed out when the line is pressed."""

    cells: tuple[Cell, ...]
    target: object = None


class LinesModel(QAbstractTableModel):
    CELL = Qt.ItemDataRole.UserRole
    TARGET = Qt.ItemDataRole.UserRole + 1

    def __init__(self, columns: Sequence[Figures], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.columns = tuple(columns)
        self._lines: tuple[Line, ...] = ()

    def show(self, lines: Sequence[Line]) -> None:
        """Newest state; lines keep their place, so what is selected stays."""
        old, new = len(self._lines), len(lines)
        if new > old:
            self.beginInsertRows(NOTHING, old, new - 1)
        elif new < old:
            self.beginRemoveRows(NOTHING, new, old - 1)
        before, self._lines = self._lines, tuple(lines)
        if new > old:
            self.endInsertRows()
        elif new < old:
            self.endRemoveRows()
        for at in range(min(old, new)):
            if before[at] != self._lines[at]:
                self.dataChanged.emit(self.index(at, 0), self.index(at, len(self.columns) - 1))

    @property
    def lines(self) -> tuple[Line, ...]:
        return self._lines

    def rowCount(self, parent: Index = NOTHING) -> int:
        return 0 if parent.isValid() else len(self._lines)

    def columnCount(self, parent: Index = NOTHING) -> int:
        return 0 if parent.isValid() else len(self.columns)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        if not index.isValid() or index.row() >= len(self._lines):
            return None
        line = self._lines[index.row()]
        cell = line.cells[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return f"{cell.text} {cell.note}".strip()
        if role == self.CELL:
            return cell
        if role == self.TARGET:
            return line.target
        if role == Qt.ItemDataRole.ToolTipRole:
            return cell.tip or None
        if role == Qt.ItemDataRole.TextAlignmentRole and self.columns[index.column()].right:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return None

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> object:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(self.columns):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self.columns[section].title
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignRight if self.columns[section].right else Qt.AlignmentFlag.AlignLeft
            return int(side | Qt.AlignmentFlag.AlignVCenter)
        return None


class CellDelegate(QStyledItemDelegate):
    def __init__(self, theme: Theme, parent: QObject) -> None:
        super().__init__(parent)
        self._theme = theme

    def sizeHint(self, _option: QStyleOptionViewItem, _index: Index) -> QSize:
        return QSize(60, ROW)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        cell = index.data(LinesModel.CELL)
        if cell is None:
            return
        theme, model = self._theme, index.model()
        painter.save()
        chosen = option.state & QStyle.StateFlag.State_Selected and option.state & QStyle.StateFlag.State_HasFocus
        if chosen:
            painter.fillRect(option.rect, theme.soft("accent", 0.12))
        elif getattr(option.widget, "pointed", -1) == index.row():
            painter.fillRect(option.rect, theme.color("hover"))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = option.rect.adjusted(8, 0, -8, 0)
        if cell.icon:
            ratio = painter.device().devicePixelRatioF()
            pixmap = theme.pixmap(cell.icon, cell.icon_tone, 16, ratio)
            painter.drawPixmap(QPoint(box.left(), box.center().y() - 7), pixmap)
            box.setLeft(box.left() + 24)
        if cell.parts:
            self._bar(painter, QRectF(box), cell)
        else:
            self._text(painter, box, cell, right=model.columns[index.column()].right)
        painter.restore()

    def _text(self, painter: QPainter, box: object, cell: Cell, *, right: bool) -> None:
        theme = self._theme
        font = theme.font("body")
        painter.setFont(font)
        metrics = QFontMetrics(font)
        side = Qt.AlignmentFlag.AlignRight if right else Qt.AlignmentFlag.AlignLeft
        text = metrics.elidedText(cell.text, Qt.TextElideMode.ElideRight, box.width())
        painter.setPen(theme.color(cell.tone or "text"))
        painter.drawText(box, side | Qt.AlignmentFlag.AlignVCenter, text)
        if cell.note and not right:
            box.setLeft(box.left() + metrics.horizontalAdvance(text) + 8)
            if box.width() > 24:
                small = theme.font("small")
                painter.setFont(small)
                painter.setPen(theme.color("muted"))
                note = QFontMetrics(small).elidedText(cell.note, Qt.TextElideMode.ElideRight, box.width())
                painter.drawText(box, side | Qt.AlignmentFlag.AlignVCenter, note)

    def _bar(self, painter: QPainter, box: QRectF, cell: Cell) -> None:
        track = QRectF(box.left(), box.center().y() - 3, box.width(), 7)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self._theme.color("sunken"))
        painter.drawRoundedRect(track, 3, 3)
        x = track.left()
        for share, role in cell.parts:
            width = share * track.width()
            if width > 0:
                painter.setBrush(self._theme.color(role))
                painter.drawRoundedRect(QRectF(x, track.top(), max(width - 1, 2), track.height()), 3, 3)
                x += width


class FiguresTable(QTableView):
    """``chosen(target)`` when a line is pressed."""

    chosen = Signal(object)

    def __init__(self, theme: Theme, name: str, columns: Sequence[Figures], *, header: bool = True) -> None:
        super().__init__()
        self.lines = LinesModel(columns, self)
        self.pointed = -1
        self.setModel(self.lines)
        self.setItemDelegate(CellDelegate(theme, self))
        named(self, name)
        self.setProperty("bare", True)
        self.setShowGrid(False)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTabKeyNavigation(False)
        self.setMouseTracking(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(ROW)
        self.verticalHeader().setMinimumSectionSize(ROW)
        across = self.horizontalHeader()
        across.setVisible(header)
        across.setFixedHeight(HEADER)
        across.setSectionsClickable(False)
        across.setHighlightSections(False)
        across.setMinimumSectionSize(24)
        for at, column in enumerate(columns):
            if column.width:
                across.setSectionResizeMode(at, QHeaderView.ResizeMode.Fixed)
                self.setColumnWidth(at, column.width)
            else:
                across.setSectionResizeMode(at, QHeaderView.ResizeMode.Stretch)
        self.clicked.connect(self._pressed)
        theme.changed.connect(self._redraw)
        self._fit()

    def show_lines(self, lines: Sequence[Line]) -> None:
        self.lines.show(lines)
        self._fit()

    def _fit(self) -> None:
        header = HEADER if not self.horizontalHeader().isHidden() else 0
        self.setFixedHeight(header + ROW * self.lines.rowCount() + 2)

    @Slot()
    def _redraw(self) -> None:
        self.viewport().update()

    @Slot(QModelIndex)
    def _pressed(self, index: QModelIndex) -> None:
        self.chosen.emit(index.data(LinesModel.TARGET))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter} and self.currentIndex().isValid():
            self._pressed(self.currentIndex())
            return
        super().keyPressEvent(event)

    def focusInEvent(self, event: object) -> None:
        super().focusInEvent(event)
        if not self.currentIndex().isValid() and self.lines.rowCount():
            self.setCurrentIndex(self.lines.index(0, 0))

    def mouseMoveEvent(self, event: object) -> None:
        super().mouseMoveEvent(event)
        self._point(self.rowAt(event.position().toPoint().y()))

    def leaveEvent(self, event: object) -> None:
        super().leaveEvent(event)
        self._point(-1)

    def _point(self, line: int) -> None:
        if line != self.pointed:
            self.pointed = line
            self.viewport().update()

    def wheelEvent(self, event: object) -> None:
        event.ignore()  # it shows all its lines; the page scrolls
