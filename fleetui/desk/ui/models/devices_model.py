"""The devices table as Qt sees it: a thin face over ``DeviceTable`` (cells) and ``DeviceView`` (order).

Sorting and filtering happen in numpy below; this maps positions to rows, hands out cached texts, and tells views
as little as possible: the cells that changed, in merged ranges. A new order is a ``layoutChanged`` with persistent
indexes moved along, so selections and the current row stay with their devices. Few rows that come or go are
inserted and removed one by one; when many do, the model resets and the page restores the selection by id.

``flags`` is a constant, ``data`` looks up and never computes for longer than a text takes. Main thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import (
    QAbstractItemModel,
    QAbstractTableModel,
    QCoreApplication,
    QModelIndex,
    QObject,
    QPersistentModelIndex,
    Qt,
)

from fleetui.common.domain.clock import Clock
from fleetui.common.domain.filters.filter import Filter
from fleetui.desk.app.columns import Applied, DeviceTable
from fleetui.desk.app.order import DeviceView
from fleetui.desk.app.rowsets import Rows, among, union
from fleetui.desk.app.shown import FIRST, Draw, ShownColumn, cell_text, cell_value, shown_column, shown_columns
from fleetui.desk.app.text import moment

Index = QModelIndex | QPersistentModelIndex

ONE_BY_ONE = 48  # runs of rows that come or go singly; with more the model resets
RANGES = 24  # ranges told singly; more are told as one
CACHED = 20_000  # texts kept for one column

_ROLE = Qt.ItemDataRole
_FLAGS = Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemNeverHasChildren
_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
_LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
# Told that whole rows move, selections remember rows instead of every cell.
_HINTED = ("QList<QPersistentModelIndex>", "QAbstractItemModel::LayoutChangeHint")
_VERTICAL = QAbstractItemModel.LayoutChangeHint.VerticalSortHint
_HERE = QModelIndex()


class Role(IntEnum):
    """What a cell can be asked for beside what Qt knows."""

    SORT = _ROLE.UserRole + 1  # as it is: text, number or None
    ROW = _ROLE.UserRole + 2  # the whole DeviceRow
    DEVICE = _ROLE.UserRole + 3  # the device's id


_CELL_ROLES = [_ROLE.DisplayRole, _ROLE.AccessibleTextRole, _ROLE.ToolTipRole, Role.SORT, Role.ROW]


class DevicesModel(QAbstractTableModel):
    """``word`` turns a status into the word shown for it."""

    def __init__(
        self,
        table: DeviceTable,
        clock: Clock,
        word: Callable[[str], str] = str,
        columns: Sequence[str] = FIRST,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._table = table
        self._clock = clock
        self._word = word
        self._columns = shown_columns(columns)
        self.view = DeviceView(table, clock)
        self._order: list[int] = []
        self._texts: list[dict[int, str]] = []
        self._new_order()
        self._new_columns()

    # ------------------------------------------------------------ what Qt asks

    def rowCount(self, parent: Index = _HERE) -> int:
        return 0 if parent.isValid() else len(self._order)

    def columnCount(self, parent: Index = _HERE) -> int:
        return 0 if parent.isValid() else len(self._columns)

    def flags(self, index: Index) -> Qt.ItemFlag:
        return _FLAGS if index.isValid() else Qt.ItemFlag.NoItemFlags

    def data(self, index: Index, role: int = _ROLE.DisplayRole) -> Any:
        if not index.isValid() or index.row() >= len(self._order) or index.column() >= len(self._columns):
            return None
        if role == _ROLE.DisplayRole:
            return self.text(index.row(), index.column())
        column = self._columns[index.column()]
        if role == _ROLE.TextAlignmentRole:
            return _RIGHT if column.right else _LEFT
        if role == _ROLE.AccessibleTextRole:
            return f"{self._title(column)}: {self.text(index.row(), index.column()) or self.tr('nothing')}"
        row = self._order[index.row()]
        if role == _ROLE.ToolTipRole:
            return self._tip(row, column)
        if role == Role.SORT:
            return cell_value(self._table, column, row)
        if role == Role.ROW:
            return self._table.row(row)
        if role == Role.DEVICE:
            return self._table.device(row)
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = _ROLE.DisplayRole) -> Any:
        if orientation == Qt.Orientation.Vertical or not 0 <= section < len(self._columns):
            return None
        column = self._columns[section]
        if role in {_ROLE.DisplayRole, _ROLE.AccessibleTextRole}:
            return self._title(column)
        if role == _ROLE.ToolTipRole:
            return f"{column.help}\n{self.tr('In filters:')} {column.name}"
        if role == _ROLE.TextAlignmentRole:
            return _RIGHT if column.right else _LEFT
        return None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        if 0 <= column < len(self._columns):
            self.set_sort(self._columns[column].name, descending=order == Qt.SortOrder.DescendingOrder)

    # ------------------------------------------------------------ cells, cheaply

    def text(self, position: int, column: int) -> str:
        """A cell as it is drawn; cached, except ages."""
        row = self._order[position]
        cache = self._texts[column]
        text = cache.get(row)
        if text is None:
            shown = self._columns[column]
            text = cell_text(self._table, shown, row, self._clock.now())
            if shown.draw is Draw.STATUS:
                return self._word(text)
            if shown.draw is not Draw.AGE:
                if len(cache) >= CACHED:
                    cache.clear()
                cache[row] = text
        return text

    def status(self, position: int, column: int) -> str:
        """The state itself, for the delegate's icon and colour."""
        return self._table.text(self._columns[column].column, self._order[position])

    def figure(self, position: int, column: int) -> float:
        return self._table.figure(self._columns[column].column, self._order[position])

    def _title(self, column: ShownColumn) -> str:
        if column.name.startswith("tag."):
            return column.title
        return QCoreApplication.translate("Columns", column.title)

    def _tip(self, row: int, column: ShownColumn) -> str:
        value = cell_value(self._table, column, row)
        if value is None:
            return self.tr("Not known")
        if column.draw is Draw.AGE:
            return moment(value)
        if column.draw is Draw.STATUS and column.name == "status":
            since = self._table.figure("status_since", row)
            return self.tr("{0} since {1}").format(self._word(str(value)), moment(since))
        return cell_text(self._table, column, row, self._clock.now())

    # ------------------------------------------------------------ columns

    @property
    def columns(self) -> tuple[ShownColumn, ...]:
        return self._columns

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self._columns)

    def set_columns(self, names: Sequence[str]) -> None:
        """Shows these columns, in this order. The model resets; the page keeps selection and place."""
        wanted = shown_columns(names)
        if wanted == self._columns:
            return
        # Every view has to lay its header out anew anyway.
        self.beginResetModel()
        self._columns = wanted
        self._new_columns()
        self.endResetModel()

    def _new_columns(self) -> None:
        self._texts = [{} for _ in self._columns]

    # ------------------------------------------------------------ order

    @property
    def sort_name(self) -> str:
        """By which column it is sorted, as the filter language calls it."""
        return self._sort_name

    _sort_name = "id"

    def set_sort(self, name: str, *, descending: bool) -> None:
        column = shown_column(name) or shown_column("id")
        assert column is not None
        self._sort_name = column.name
        self._reorder(lambda: self.view.set_sort(column.column, descending=descending))

    def set_filter(self, wanted: Filter | None) -> None:
        self._reorder(lambda: self.view.set_filter(wanted))

    def refresh(self) -> bool:
        """Puts rows where they belong by now; says whether anything moved."""
        before = self.view.order
        if not self.view.refresh():
            return False
        self._moved(before, self.view.order)
        return True

    def _reorder(self, change: Callable[[], None]) -> None:
        before = self.view.order
        change()
        if not np.array_equal(before, self.view.order):
            self._moved(before, self.view.order)

    def _new_order(self) -> None:
        self._order = self.view.order.tolist()

    def _moved(self, before: Rows, after: Rows) -> None:
        """Tells views how ``before`` became ``after``."""
        stays = among(before, after)
        comes = after[~among(after, before)]
        gone = runs(np.flatnonzero(~stays))
        if len(gone) > ONE_BY_ONE or comes.size > max(ONE_BY_ONE, len(before) // 2) or not before.size:
            self.beginResetModel()
            self._new_order()
            self.endResetModel()
            return
        for first, last in reversed(gone):
            self.beginRemoveRows(_HERE, first, last)
            del self._order[first : last + 1]
            self.endRemoveRows()
        if comes.size:
            self.beginInsertRows(_HERE, len(self._order), len(self._order) + comes.size - 1)
            self._order.extend(comes.tolist())
            self.endInsertRows()
        if self._order == after.tolist():
            return
        self.layoutAboutToBeChanged[_HINTED].emit([], _VERTICAL)
        kept = self.persistentIndexList()
        old = self._order
        self._new_order()
        places = self.view.positions()
        moved = [
            self.createIndex(int(places[old[index.row()]]), index.column()) if index.isValid() else QModelIndex()
            for index in kept
        ]
        self.changePersistentIndexList(kept, moved)
        self.layoutChanged[_HINTED].emit([], _VERTICAL)

    # ------------------------------------------------------------ following the table

    def take(self, applied: Applied, watched: tuple[int, int] | None = None) -> None:
        """After the table's ``apply``. ``watched`` are the positions a view shows: they are told exactly."""
        if not applied:
            return
        self._forget(applied)
        before = self.view.order
        was_empty = not before.size
        if self.view.take(applied):
            self._moved(before, self.view.order)
        if was_empty and applied.added.size:
            self.refresh()  # the first devices should be there at once
            return
        self._tell(applied, watched)

    def _forget(self, applied: Applied) -> None:
        fresh = np.concatenate([applied.added, applied.removed])
        for cache, column in zip(self._texts, self._columns, strict=True):
            if not cache:
                continue
            name = "tags" if column.column.startswith("tag.") else column.column
            changed = applied.columns.get(name)
            for rows in (changed, fresh):
                if rows is None:
                    continue
                if rows.size > len(cache):
                    for row in cache.keys() & set(rows.tolist()):
                        del cache[row]
                else:
                    for row in rows.tolist():
                        cache.pop(row, None)

    def _tell(self, applied: Applied, watched: tuple[int, int] | None) -> None:
        places = self.view.positions()
        touched: list[npt.NDArray[np.int64]] = []
        first, last = len(self._columns), -1
        for i, column in enumerate(self._columns):
            name = "tags" if column.column.startswith("tag.") else column.column
            rows = applied.columns.get(name)
            if rows is None:
                continue
            touched.append(rows)
            first, last = min(first, i), max(last, i)
        if last < 0:
            return
        at = places[union(touched)]
        at = np.sort(at[at >= 0])
        if not at.size:
            return
        for top, bottom in merged(at, watched):
            self.dataChanged.emit(self.index(top, first), self.index(bottom, last), _CELL_ROLES)

    def tick(self, watched: tuple[int, int]) -> None:
        """A second went by: ages among the positions shown read differently."""
        top, bottom = max(watched[0], 0), min(watched[1], len(self._order) - 1)
        if bottom < top:
            return
        for i, column in enumerate(self._columns):
            if column.draw is Draw.AGE:
                self.dataChanged.emit(self.index(top, i), self.index(bottom, i), [_ROLE.DisplayRole])

    def words_changed(self) -> None:
        """Another theme or language: everything is drawn anew."""
        if self._order:
            corner = self.index(len(self._order) - 1, len(self._columns) - 1)
            self.dataChanged.emit(self.index(0, 0), corner, _CELL_ROLES)

    # ------------------------------------------------------------ rows and devices

    def device_at(self, position: int) -> str:
        return self._table.device(self._order[position])

    def row_at(self, position: int) -> int:
        return self._order[position]

    def position_of(self, device: str) -> int:
        """Where a device is shown, or -1."""
        return self.view.position_of(device)


def runs(places: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Rising numbers as (first, last) of each unbroken run."""
    if not places.size:
        return []
    breaks = np.flatnonzero(np.diff(places) > 1)
    firsts = places[np.concatenate(([0], breaks + 1))]
    lasts = places[np.concatenate((breaks, [places.size - 1]))]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def merged(places: npt.NDArray[np.int64], watched: tuple[int, int] | None) -> list[tuple[int, int]]:
    """Ranges to tell views: exact ones where somebody looks, one above and one below."""
    if watched is None:
        found = runs(places)
        return found if len(found) <= RANGES else [(int(places[0]), int(places[-1]))]
    top, bottom = np.searchsorted(places, (watched[0], watched[1] + 1))
    seen = runs(places[top:bottom])
    if len(seen) > RANGES:
        seen = [(seen[0][0], seen[-1][1])]
    above = [(int(places[0]), int(places[top - 1]))] if top else []
    below = [(int(places[bottom]), int(places[-1]))] if bottom < places.size else []
    return above + seen + below
