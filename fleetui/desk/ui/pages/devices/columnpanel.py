"""Choosing columns: tick what is shown, drag (or Ctrl with the arrows) to order, search among the rest.

Takes effect at once; the table behind it is the preview. Main thread only.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import (
    QAbstractItemModel,
    QCoreApplication,
    QEvent,
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    QRect,
    QRectF,
    QSize,
    Qt,
    Signal,
    Slot,
)
from PySide6.QtGui import QKeyEvent, QMouseEvent, QPainter
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QListWidget,
    QListWidgetItem,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QWidget,
)

from fleetui.desk.app.shown import ShownColumn
from fleetui.desk.ui.theme import Theme
from fleetui.desk.ui.widgets.basic import Button, SearchField, column, label, named, row

_NAME = Qt.ItemDataRole.UserRole


class _List(QListWidget):
    """Ctrl+Up and Ctrl+Down move a column as dragging does."""

    moved = Signal()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        step = {Qt.Key.Key_Up: -1, Qt.Key.Key_Down: 1}.get(Qt.Key(event.key()), 0)
        if step and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            at = self.currentRow()
            if 0 <= at + step < self.count():
                item = self.takeItem(at)
                self.insertItem(at + step, item)
                self.setCurrentRow(at + step)
                self.moved.emit()
            return
        super().keyPressEvent(event)


class _TickDelegate(QStyledItemDelegate):
    """A box with a tick, and the column's name."""

    ROW, BOX = 28, 16

    def __init__(self, theme: Theme, parent: QWidget) -> None:
        super().__init__(parent)
        self._theme = theme

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> QSize:
        return QSize(200, self.ROW)

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        theme = self._theme
        rect: QRect = option.rect
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if option.state & (QStyle.StateFlag.State_Selected | QStyle.StateFlag.State_MouseOver):
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.soft("accent", 0.12))
            painter.drawRoundedRect(rect, 4, 4)
        ticked = Qt.CheckState(index.data(Qt.ItemDataRole.CheckStateRole)) == Qt.CheckState.Checked
        box = QRectF(rect.x() + 6, rect.y() + (rect.height() - self.BOX) / 2, self.BOX, self.BOX)
        painter.setPen(theme.color("accent" if ticked else "control"))
        painter.setBrush(theme.color("accent" if ticked else "surface"))
        painter.drawRoundedRect(box.adjusted(0.5, 0.5, -0.5, -0.5), 4, 4)
        if ticked:
            ratio = painter.device().devicePixelRatioF()
            painter.drawPixmap(box.topLeft().toPoint(), theme.pixmap("check", "on_accent", self.BOX, ratio))
        painter.setPen(theme.color("text"))
        painter.setFont(theme.font("body"))
        inside = rect.adjusted(6 + self.BOX + 8, 0, -6, 0)
        painter.drawText(inside, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, str(index.data()))
        painter.restore()

    def editorEvent(
        self,
        event: QEvent,
        model: QAbstractItemModel,
        option: QStyleOptionViewItem,
        index: QModelIndex | QPersistentModelIndex,
    ) -> bool:
        """A click anywhere on the row ticks it; so does Space."""
        pressed = (
            event.type() == QEvent.Type.MouseButtonRelease
            and isinstance(event, QMouseEvent)
            and event.button() == Qt.MouseButton.LeftButton
        )
        spaced = (
            event.type() == QEvent.Type.KeyPress
            and isinstance(event, QKeyEvent)
            and event.key() == Qt.Key.Key_Space
        )
        if not (pressed or spaced):
            return False
        ticked = Qt.CheckState(index.data(Qt.ItemDataRole.CheckStateRole)) == Qt.CheckState.Checked
        new = Qt.CheckState.Unchecked if ticked else Qt.CheckState.Checked
        return bool(model.setData(index, new, Qt.ItemDataRole.CheckStateRole))


class ColumnPanel(QFrame):
    """A popup. ``changed(names)`` with the columns now ticked, in their order."""

    changed = Signal(tuple)

    def __init__(self, parent: QWidget, theme: Theme, usual: Sequence[str]) -> None:
        super().__init__(parent, Qt.WindowType.Popup)
        self.setObjectName("palette")
        self.setProperty("card", True)
        self._usual = tuple(usual)
        self._busy = False
        self._search = SearchField(theme, self.tr("Find a column"))
        self._search.textChanged.connect(self._narrow)
        self.list = _List()
        named(
            self.list, self.tr("Columns"), self.tr("Space shows or hides a column, Ctrl with an arrow key moves it")
        )
        self.list.setProperty("bare", True)
        self.list.setItemDelegate(_TickDelegate(theme, self.list))
        self.list.setMouseTracking(True)
        self.list.setDragDropMode(QAbstractItemView.DragDropMode.InternalMove)
        self.list.setMinimumHeight(320)
        self.list.itemChanged.connect(self._ticked)
        self.list.moved.connect(self._ticked)
        self.list.model().rowsMoved.connect(self._ticked)
        self._reset = Button(theme, self.tr("Usual columns"), "link")
        self._reset.clicked.connect(self._to_usual)
        self.setLayout(
            column(
                row(label(self.tr("Columns"), "strong"), 1, self._reset),
                self._search,
                self.list,
                space=8,
                margins=(12, 10, 12, 12),
            )
        )
        self.setFixedWidth(280)
        self._offered: tuple[ShownColumn, ...] = ()

    def show_columns(self, offered: Sequence[ShownColumn], shown: Sequence[str]) -> None:
        """``shown`` first and ticked, in their order; the others after them."""
        self._offered = tuple(offered)
        by_name = {column_.name: column_ for column_ in offered}
        order = [n for n in shown if n in by_name] + [n for n in by_name if n not in shown]
        self._busy = True
        self.list.clear()
        for name in order:
            shown_ = by_name[name]
            title = shown_.title if name.startswith("tag.") else QCoreApplication.translate("Columns", shown_.title)
            item = QListWidgetItem(f"{title}  ({name})" if name.startswith("tag.") else title)
            item.setData(_NAME, name)
            item.setToolTip(shown_.help)
            flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsDragEnabled
            item.setFlags(flags | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Checked if name in shown else Qt.CheckState.Unchecked)
            self.list.addItem(item)
        self._busy = False

    def ticked(self) -> tuple[str, ...]:
        items = (self.list.item(i) for i in range(self.list.count()))
        return tuple(str(i.data(_NAME)) for i in items if i.checkState() == Qt.CheckState.Checked)

    @Slot()
    def _ticked(self) -> None:
        if not self._busy and self.ticked():
            self.changed.emit(self.ticked())

    @Slot(str)
    def _narrow(self, text: str) -> None:
        wanted = text.casefold().strip()
        for i in range(self.list.count()):
            item = self.list.item(i)
            item.setHidden(bool(wanted) and wanted not in f"{item.text()} {item.data(_NAME)}".casefold())

    @Slot()
    def _to_usual(self) -> None:
        self.show_columns(self._offered, self._usual)
        self.changed.emit(self._usual)

    def open_at(self, below: QWidget) -> None:
        self._search.clear()
        self.adjustSize()
        corner = below.mapToGlobal(QPoint(below.width() - self.width(), below.height() + 4))
        self.move(corner)
        self.show()
        self._search.setFocus(Qt.FocusReason.PopupFocusReason)
