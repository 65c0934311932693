"""A view of the device table: which rows, in which order.

Asking for another filter or sort takes effect at once. Changes that arrive do not move anything by themselves:
they mark the order as stale, and ``refresh`` (called at a calm pace, or when the user asks) puts rows where they
now belong. Only devices that are gone leave at once. Knows no Qt. Main thread only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetui.common.domain.clock import Clock
from fleetui.common.domain.filters.filter import Filter
from fleetui.desk.app.columns import TAG, Applied, DeviceTable
from fleetui.desk.app.rowsets import Rows, among, union

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Stale:
    """What a refresh would bring up to date."""

    order: bool = False  # a shown row's sort key changed
    members: bool = False  # a device may have come to pass the filter, or ceased to

    def __bool__(self) -> bool:
        return self.order or self.members


class DeviceView:
    """``order`` holds the rows shown, top to bottom. ``filter`` None shows all devices."""

    def __init__(self, table: DeviceTable, clock: Clock, sort: str = "device", *, descending: bool = False) -> None:
        self._table = table
        self._clock = clock
        self._filter: Filter | None = None
        self._sort = sort
        self._descending = descending
        self.order: Rows = np.zeros(0, dtype=np.int64)
        self._positions: Rows | None = None
        self._stale = Stale()
        self._by_id: Rows | None = None
        self.rebuild()

    @property
    def table(self) -> DeviceTable:
        return self._table

    @property
    def filter(self) -> Filter | None:
        return self._filter

    @property
    def sort(self) -> str:
        return self._sort

    @property
    def descending(self) -> bool:
        return self._descending

    @property
    def stale(self) -> Stale:
        return self._stale

    def __len__(self) -> int:
        return len(self.order)

    # ------------------------------------------------------------ asking

    def set_filter(self, wanted: Filter | None) -> None:
        self._filter = wanted or None
        self.rebuild()

    def set_sort(self, column: str, *, descending: bool = False) -> None:
        self._sort, self._descending = column, descending
        self.rebuild()

    def refresh(self) -> bool:
        """Puts rows where they now belong, if anything may have moved; says whether the order is another."""
        if not self._stale and not (self._filter is not None and self._filter.ages):
            return False
        before = self.order
        self.rebuild()
        return not np.array_equal(before, self.order)

    def rebuild(self) -> None:
        self._set(sort_rows(self._table, self._passing(), self._sort, descending=self._descending, ids=self._ids()))
        self._stale = Stale()

    def _passing(self) -> Mask:
        return passing(self._table, self._filter, self._clock.now())

    def _ids(self) -> Rows:
        """All rows by device id: what ties are broken by, and kept while no device comes or goes."""
        if self._by_id is None:
            self._by_id = np.argsort(self._table.sort_key("device"), kind="stable")
        return self._by_id

    def _set(self, order: Rows) -> None:
        self.order = order
        self._positions = None

    # ------------------------------------------------------------ following

    def take(self, applied: Applied) -> bool:
        """After the table's ``apply``: drops what is gone (says whether it did) and notes what is stale."""
        if applied.added.size or applied.removed.size:
            self._by_id = None
        gone = False
        if applied.removed.size:
            kept = ~among(self.order, applied.removed)
            gone = not kept.all()
            if gone:
                self._set(self.order[kept])
        self._stale = Stale(
            self._stale.order or self._moves(applied), self._stale.members or self._enters_or_leaves(applied)
        )
        return gone

    def _moves(self, applied: Applied) -> bool:
        rows = applied.columns.get("tags" if self._sort.startswith(TAG) else self._sort)
        return rows is not None and bool((self.positions()[rows] >= 0).any())

    def _enters_or_leaves(self, applied: Applied) -> bool:
        if applied.added.size:
            return True
        if self._filter is None:
            return False
        rows = [applied.columns[name] for name in self._filter.columns if name in applied.columns]
        if not rows:
            return False
        touched = union(rows)
        shown = self.positions()[touched] >= 0
        return bool((self._passing()[touched] != shown).any())

    # ------------------------------------------------------------ finding

    def positions(self) -> Rows:
        """For each row of the table its place in the order, or -1."""
        if self._positions is None or len(self._positions) < self._table.size:
            positions = np.full(max(self._table.size, 1), -1, dtype=np.int64)
            positions[self.order] = np.arange(len(self.order))
            self._positions = positions
        return self._positions

    def position_of(self, device: str) -> int:
        row = self._table.row_of(device)
        return int(self.positions()[row]) if row >= 0 else -1

    def row_at(self, position: int) -> int:
        return int(self.order[position])


def passing(table: DeviceTable, wanted: Filter | None, now: float) -> Mask:
    """Which rows are devices that pass the filter."""
    alive = table.alive[: table.size]
    if wanted is None or not wanted:
        return alive.copy()
    return wanted.mask(table.columns, table.size, now) & alive


def sort_rows(table: DeviceTable, mask: Mask, column: str, *, descending: bool, ids: Rows) -> Rows:
    """The rows of ``mask`` by ``column``, then by id; what is unknown comes last either way."""
    shown = ids[mask[ids]]
    if column == "device" and not descending:
        return shown
    key = table.sort_key(column)[shown]
    return shown[np.argsort(-key if descending else key, kind="stable")]
