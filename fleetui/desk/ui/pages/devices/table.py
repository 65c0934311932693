"""The table of devices: fixed row height, sorting by the header, whole rows selected, everything by keyboard.

It keeps what Qt loses on a model reset (selection, current row, place) by the devices' ids. Column widths are
those of ``shown.py`` until somebody drags one; room that is left goes to the name. Main thread only.
"""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import (
    QEvent,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QPoint,
    Qt,
    QTimer,
    Signal,
    Slot,
)
from PySide6.QtGui import QFocusEvent, QKeyEvent, QMouseEvent, QResizeEvent
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

from fleetui.desk.app.shown import Draw
from fleetui.desk.ui.delegates.device_cell import DeviceCellDelegate
from fleetui.desk.ui.models.devices_model import DevicesModel
from fleetui.desk.ui.theme import Theme
from fleetui.desk.ui.widgets.basic import named

ROW_HEIGHT = {"comfortable": 34, "compact": 26}
STRETCHED = ("name", "error.text", "id")  # which column takes what room is left at last
WIDER = 1.35  # texts first grow to so much of their usual width
_SELECT = QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows


class DevicesTable(QTableView):
    """``opened(device)``: Enter or a double click. ``chosen()``: the selection is another."""

    opened = Signal(str)
    chosen = Signal()
    looks_changed = Signal()  # a width, the order of columns, or the sorting, by hand
    typed = Signal(str)  # letters were typed that are no key of the table: somebody wants to search

    def __init__(self, model: DevicesModel, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._devices_model = model
        self._widths: dict[str, int] = {}
        self._kept: tuple[list[str], str, str, int] = ([], "", "", 0)
        self._settling = False
        self._quiet = False
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(0)
        self._later.timeout.connect(self.chosen)
        named(self, self.tr("Devices"), self.tr("Enter opens a device, the menu key lists what can be done"))
        self.setProperty("bare", True)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setTabKeyNavigation(False)
        self.setCornerButtonEnabled(False)
        self.setCornerWidget(QWidget())  # Fusion paints the corner between two scroll bars with an edge
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setMouseTracking(True)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header = self.horizontalHeader()
        header.setSectionsMovable(True)
        header.setSectionsClickable(True)
        header.setHighlightSections(False)
        header.setMinimumSectionSize(48)
        header.setSortIndicatorShown(True)
        header.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.set_density("comfortable")
        self._delegate = DeviceCellDelegate(theme, self)
        self.setItemDelegate(self._delegate)
        model.modelAboutToBeReset.connect(self._remember)
        self.setModel(model)
        model.modelReset.connect(self._recall)
        model.layoutChanged.connect(self._follow)
        model.rowsRemoved.connect(self._follow)
        header.sectionClicked.connect(self._sort_by)
        header.sectionResized.connect(self._resized)
        header.sectionMoved.connect(self._moved)
        self.doubleClicked.connect(self._double)
        theme.changed.connect(self._redraw)
        self.fit_columns()
        self.show_sort()

    @Slot()
    def _redraw(self) -> None:
        self.viewport().update()

    def set_density(self, density: str) -> None:
        self.verticalHeader().setDefaultSectionSize(ROW_HEIGHT[density])

    # ------------------------------------------------------------ columns

    def set_widths(self, widths: Mapping[str, int]) -> None:
        self._widths = {str(name): int(width) for name, width in widths.items()}
        self.fit_columns()

    @property
    def widths(self) -> dict[str, int]:
        """Those that somebody chose."""
        return dict(self._widths)

    def fit_columns(self) -> None:
        """Every column as wide as it was made, or was meant; what is left over goes to the name."""
        columns = self._devices_model.columns
        header = self.horizontalHeader()
        self._settling = True
        try:
            widths = {column.name: self._widths.get(column.name, column.width) for column in columns}
            left = self.viewport().width() - sum(widths.values())
            free = [column for column in columns if column.name not in self._widths]
            for column in free:
                if left > 0 and column.draw in {Draw.TEXT, Draw.AGE, Draw.SHARE}:
                    more = min(left, round((WIDER - 1) * column.width))
                    widths[column.name] += more
                    left -= more
            taker = next((name for name in STRETCHED if any(column.name == name for column in free)), None)
            if left > 0 and taker is not None:
                widths[taker] += left
            for i, column in enumerate(columns):
                if header.sectionSize(i) != widths[column.name]:
                    header.resizeSection(i, widths[column.name])
        finally:
            self._settling = False

    def shown_order(self) -> tuple[str, ...]:
        """The columns from left to right, as they were dragged."""
        header, names = self.horizontalHeader(), self._devices_model.column_names
        return tuple(names[header.logicalIndex(i)] for i in range(header.count()))

    @Slot(int, int, int)
    def _resized(self, section: int, _old: int, new: int) -> None:
        if not self._settling and section < len(self._devices_model.columns):
            self._widths[self._devices_model.columns[section].name] = new
            self.looks_changed.emit()

    @Slot(int, int, int)
    def _moved(self, _section: int, _old: int, _new: int) -> None:
        self.looks_changed.emit()

    # ------------------------------------------------------------ sorting

    @Slot(int)
    def _sort_by(self, section: int) -> None:
        model = self._devices_model
        column = model.columns[section]
        if column.name == model.sort_name:
            descending = not model.view.descending
        else:
            # What is looked for in figures is the largest.
            descending = column.draw in {Draw.FIGURE, Draw.SHARE}
        model.set_sort(column.name, descending=descending)
        self.show_sort()
        self.looks_changed.emit()

    def show_sort(self) -> None:
        """Puts the header's arrow where the order is."""
        model = self._devices_model
        section = model.column_names.index(model.sort_name) if model.sort_name in model.column_names else -1
        order = Qt.SortOrder.DescendingOrder if model.view.descending else Qt.SortOrder.AscendingOrder
        self.horizontalHeader().setSortIndicator(section, order)

    # ------------------------------------------------------------ selection

    def selected_positions(self) -> list[int]:
        """In the order shown."""
        found: set[int] = set()
        for part in self.selectionModel().selection():
            found.update(range(part.top(), part.bottom() + 1))
        return sorted(found)

    def selected_devices(self) -> list[str]:
        return [self._devices_model.device_at(position) for position in self.selected_positions()]

    @property
    def current_device(self) -> str:
        index = self.currentIndex()
        return self._devices_model.device_at(index.row()) if index.isValid() else ""

    def select_devices(self, devices: list[str], current: str = "", *, scroll: bool = True) -> None:
        """Those of ``devices`` that are shown; says nothing of the others."""
        model, selection = self._devices_model, QItemSelection()
        positions = sorted(p for device in devices if (p := model.position_of(device)) >= 0)
        last = max(0, model.columnCount() - 1)
        i = 0
        while i < len(positions):
            j = i
            while j + 1 < len(positions) and positions[j + 1] == positions[j] + 1:
                j += 1
            selection.select(model.index(positions[i], 0), model.index(positions[j], last))
            i = j + 1
        at = model.position_of(current) if current else (positions[0] if positions else -1)
        self.selectionModel().select(selection, QItemSelectionModel.SelectionFlag.ClearAndSelect)
        if at >= 0:
            index = model.index(at, max(0, self.horizontalHeader().logicalIndex(0)))
            self.selectionModel().setCurrentIndex(index, QItemSelectionModel.SelectionFlag.NoUpdate)
            if scroll:
                self.scrollTo(index)

    def selectionChanged(self, selected: QItemSelection, deselected: QItemSelection) -> None:
        super().selectionChanged(selected, deselected)
        if not self._quiet:
            self._later.start()  # one word for the many changes that a drag or a reset makes

    def currentChanged(self, current: QModelIndex, previous: QModelIndex) -> None:
        super().currentChanged(current, previous)
        self._mark_current()

    def _mark_current(self) -> None:
        row = self.currentIndex().row() if self.hasFocus() else -1
        if row != self._delegate.current:
            for each in (self._delegate.current, row):
                self._update_row(each)
            self._delegate.current = row

    @Slot()
    def _remember(self) -> None:
        """Before a reset: who is selected, who is current, who stands at the top."""
        self._quiet = True
        model = self._devices_model
        top = self.rowAt(0)
        first = model.device_at(top) if 0 <= top < model.rowCount() else ""
        self._kept = (self.selected_devices(), self.current_device, first, self.horizontalScrollBar().value())

    @Slot()
    def _recall(self) -> None:
        devices, current, first, across = self._kept
        self._kept = ([], "", "", 0)
        if devices or current:
            self.select_devices(devices, current, scroll=False)
        self._quiet = False
        self.fit_columns()
        self.show_sort()
        self.horizontalScrollBar().setValue(across)
        place = self._devices_model.position_of(first) if first else -1
        if place >= 0:
            self.scrollTo(self._devices_model.index(place, 0), QAbstractItemView.ScrollHint.PositionAtTop)
        self._mark_current()
        self._later.start()

    @Slot()
    def _follow(self) -> None:
        self._mark_current()

    # ------------------------------------------------------------ what is seen

    def watched(self) -> tuple[int, int]:
        """First and last position on the screen."""
        height = self.viewport().height()
        first, last = self.rowAt(0), self.rowAt(height - 1)
        count = self._devices_model.rowCount()
        return (max(first, 0), last if last >= 0 else count - 1)

    def _update_row(self, row: int) -> None:
        if 0 <= row < self._devices_model.rowCount():
            y = self.rowViewportPosition(row)
            self.viewport().update(0, y, self.viewport().width(), self.rowHeight(row))

    def _point_at(self, row: int) -> None:
        if row != self._delegate.hovered:
            for each in (self._delegate.hovered, row):
                self._update_row(each)
            self._delegate.hovered = row

    # ------------------------------------------------------------ Qt

    @Slot(QModelIndex)
    def _double(self, index: QModelIndex) -> None:
        self.opened.emit(self._devices_model.device_at(index.row()))

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        super().mouseMoveEvent(event)
        self._point_at(self.rowAt(event.position().toPoint().y()))

    def viewportEvent(self, event: QEvent) -> bool:
        if event.type() in {QEvent.Type.Leave, QEvent.Type.Wheel}:
            self._point_at(-1)
        return super().viewportEvent(event)

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        if not self.currentIndex().isValid() and self._devices_model.rowCount():
            first = self._devices_model.index(max(0, self.rowAt(0)), self.horizontalHeader().logicalIndex(0))
            self.selectionModel().setCurrentIndex(first, QItemSelectionModel.SelectionFlag.NoUpdate)
        self._mark_current()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self._mark_current()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self.fit_columns()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter} and self.current_device:
            self.opened.emit(self.current_device)
            return
        if event.key() in {Qt.Key.Key_Home, Qt.Key.Key_End}:
            # Of the whole list: the first and last column are of no interest here.
            home = event.key() == Qt.Key.Key_Home
            row = 0 if home else self._devices_model.rowCount() - 1
            extend = event.modifiers() & Qt.KeyboardModifier.ShiftModifier
            if row >= 0 and not extend:
                self.selectRow(row)
                self.scrollTo(self._devices_model.index(row, 0))
                return
        plain = event.modifiers() in {Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier}
        if plain and event.text().isprintable() and event.text().strip():
            self.typed.emit(event.text())
            return
        super().keyPressEvent(event)

    def menu_point(self) -> QPoint:
        """Where a menu asked for by keyboard opens: at the current row."""
        rect = self.visualRect(self.currentIndex())
        point = rect.bottomLeft() if rect.isValid() else QPoint(16, 16)
        return self.viewport().mapToGlobal(point)
