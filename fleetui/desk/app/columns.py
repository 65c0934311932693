"""The device table: up to 50,000 devices in numpy columns, brought up to date from changes.

Each device has a *row*, a number that stays its own until the device is removed; a row that became free is used
again only from the next ``apply`` on, so that whoever follows has seen it leave. Texts are coded
(``coded.py``), figures are float64 with NaN for unknown, so that sorting, filtering and counting never loop over
devices in Python. It holds no order: that is a view's (``order.py``). Main thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetui.common.domain.filters.devices import DEVICES
from fleetui.common.domain.filters.evaluate import Column
from fleetui.common.domain.filters.fields import TAG_PREFIX, Kind
from fleetui.common.domain.states import Lifecycle
from fleetui.desk.app.coded import TextColumn, natural_key, version_order
from fleetui.desk.app.rowsets import Rows, union
from fleetui.store.records import Changes, DeviceRow

Floats = npt.NDArray[np.float64]

# Worst first: ascending order begins with what wants a look.
STATUS_ORDER = ("offline", "late", "unknown", "online")
LIFECYCLE_ORDER = tuple(Lifecycle)

VERSIONS = frozenset(f.column for f in DEVICES.fields if f.kind is Kind.VERSION)
MOMENTS = frozenset(f.column for f in DEVICES.fields if f.kind is Kind.AGE)
ZERO_IS_UNKNOWN = frozenset(f.column for f in DEVICES.fields if f.zero_is_missing) | MOMENTS
TAG = TAG_PREFIX

_EMPTY: Rows = np.zeros(0, dtype=np.int64)


def _kinds() -> dict[str, type]:
    """Field by field what a device row holds, from its defaults: str, int, float, or anything else."""
    blank = DeviceRow("")
    return {f.name: type(getattr(blank, f.name)) for f in fields(DeviceRow)}


KINDS = _kinds()
TEXTS = tuple(name for name, kind in KINDS.items() if kind is str)
FIGURES = tuple(name for name, kind in KINDS.items() if kind in {int, float})
OTHERS = tuple(name for name, kind in KINDS.items() if kind not in {str, int, float})


@dataclass(frozen=True, slots=True)
class Applied:
    """What one ``apply`` did. ``columns`` holds, for each column that changed anywhere, the rows where it did."""

    added: Rows = field(default_factory=lambda: _EMPTY)
    removed: Rows = field(default_factory=lambda: _EMPTY)
    columns: Mapping[str, Rows] = field(default_factory=dict)

    @property
    def rows(self) -> Rows:
        """Every row with a changed cell, in rising order, without those added."""
        if not self.columns:
            return _EMPTY
        return union(self.columns.values())

    def __bool__(self) -> bool:
        return bool(self.added.size or self.removed.size or self.columns)


class _Columns(Mapping[str, Column]):
    """The table as filters see it; a column for a tag is made when one asks for it."""

    def __init__(self, table: DeviceTable) -> None:
        self._table = table

    def __getitem__(self, name: str) -> Column:
        return self._table.column(name)

    def __iter__(self) -> Iterator[str]:
        return iter(KINDS)

    def __len__(self) -> int:
        return len(KINDS)


class DeviceTable:
    """All devices. ``size`` bounds the row numbers in use; ``alive`` says which of them are devices."""

    def __init__(self) -> None:
        self.alive: npt.NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)
        self.size = 0
        self.generation = 0  # rises with each apply that changed anything
        self._row_of: dict[str, int] = {}
        self._free: list[int] = []
        self._texts = {name: self._text_column(name) for name in TEXTS}
        self._figures: dict[str, Floats] = {name: np.full(0, np.nan) for name in FIGURES}
        self._others: dict[str, npt.NDArray[np.object_]] = {name: np.full(0, None, dtype=object) for name in OTHERS}
        self._tags: dict[str, TextColumn] = {}
        self._tag_keys: dict[str, None] = {}
        self._watchers: list[Callable[[Applied], None]] = []
        self.columns: Mapping[str, Column] = _Columns(self)

    @staticmethod
    def _text_column(name: str) -> TextColumn:
        if name in VERSIONS:
            return TextColumn(version_order)
        orders = {"status": STATUS_ORDER, "lifecycle": LIFECYCLE_ORDER}
        return TextColumn(natural_key, orders.get(name, ()))

    # ------------------------------------------------------------ reading

    def __len__(self) -> int:
        """How many devices there are."""
        return len(self._row_of)

    def row_of(self, device: str) -> int:
        """The device's row, or -1."""
        return self._row_of.get(device, -1)

    def __contains__(self, device: str) -> bool:
        return device in self._row_of

    def device(self, row: int) -> str:
        return self._texts["device"].text(row)

    def devices(self, rows: Sequence[int] | Rows) -> list[str]:
        column = self._texts["device"]
        return [column.text(row) for row in rows]

    def text(self, name: str, row: int) -> str:
        return self.text_column(name).text(row)

    def figure(self, name: str, row: int) -> float:
        return float(self._figures[name][row])

    def value(self, name: str, row: int) -> Any:
        """A cell as it is: text, number (NaN: unknown), or a tuple or mapping."""
        if name in self._figures:
            return float(self._figures[name][row])
        if name in self._others:
            return self._others[name][row]
        return self.text_column(name).text(row)

    def row(self, row: int) -> DeviceRow:
        """The whole row as a record, made anew."""
        values: dict[str, Any] = {name: column.text(row) for name, column in self._texts.items()}
        for name, figures in self._figures.items():
            values[name] = int(figures[row]) if KINDS[name] is int else float(figures[row])
        for name, others in self._others.items():
            values[name] = others[row]
        return DeviceRow(**values)

    def get(self, device: str) -> DeviceRow | None:
        row = self._row_of.get(device)
        return None if row is None else self.row(row)

    def text_column(self, name: str) -> TextColumn:
        found = self._texts.get(name)
        return found if found is not None else self._tag_column(name)

    def figures(self, name: str) -> Floats:
        """Of all rows in use."""
        return self._figures[name][: self.size]

    def column(self, name: str) -> Column:
        """For filters: figures as they are, texts coded, tags as mappings or one tag's texts. KeyError else."""
        if name in self._figures:
            return self._figures[name][: self.size]
        if name in self._others:
            return self._others[name][: self.size]
        if name in self._texts or name.startswith(TAG):
            return self.text_column(name).coded()
        raise KeyError(name)

    def sort_key(self, name: str) -> Floats:
        """A number per row in use that sorts as the column does; NaN where it says nothing."""
        if name in self._figures:
            key = self._figures[name][: self.size]
            if name in ZERO_IS_UNKNOWN:
                key = np.where(key == 0, np.nan, key)
            # Moments are shown as ages, so the latest is the least.
            return -key if name in MOMENTS else key
        if name in self._others:
            counts = [float(len(value)) if value else np.nan for value in self._others[name][: self.size]]
            return np.asarray(counts, dtype=np.float64)
        return self.text_column(name).rank()[: self.size]

    def tag_keys(self) -> list[str]:
        """Every tag that some device has had."""
        return sorted(self._tag_keys)

    def words(self, name: str) -> list[tuple[str, int]]:
        """The different texts of a column and how many devices have each, the most frequent first."""
        column = self.text_column(name)
        codes = column.codes[: self.size][self.alive[: self.size]]
        counts = np.bincount(codes[codes >= 0], minlength=len(column.texts))
        order = np.argsort(-counts, kind="stable")
        return [(column.texts[code], int(counts[code])) for code in order.tolist() if counts[code]]

    # ------------------------------------------------------------ bringing up to date

    def apply(self, changes: Changes) -> Applied:
        """Enters changed devices and drops removed ones."""
        if not changes.devices and not changes.removed:
            return Applied()
        removed = self._remove(changes.removed)
        newest = {row.device: row for row in changes.devices}
        added = [device for device in newest if device not in self._row_of]
        self._make_room(len(added))
        added_rows = [self._seat(device) for device in added]
        # Only now may the rows that were given up in this very call be used again: from the next one on.
        self._free.extend(removed)
        rows = list(newest.values())
        where = np.fromiter((self._row_of[row.device] for row in rows), dtype=np.int64, count=len(rows))
        columns = self._write(rows, where) if rows else {}
        result = Applied(np.asarray(added_rows, dtype=np.int64), np.asarray(removed, dtype=np.int64), columns)
        if result:
            self.generation += 1
            for watcher in list(self._watchers):
                watcher(result)
        return result

    def observe(self, watcher: Callable[[Applied], None]) -> Callable[[], None]:
        """Calls ``watcher`` at the end of each ``apply`` that changed anything; returns how to stop it."""
        self._watchers.append(watcher)

        def stop() -> None:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

        return stop

    def _remove(self, devices: Sequence[str]) -> list[int]:
        rows = [row for device in devices if (row := self._row_of.pop(device, -1)) >= 0]
        for row in rows:
            self.alive[row] = False
            for column in (*self._texts.values(), *self._tags.values()):
                column.codes[row] = -1
            for figures in self._figures.values():
                figures[row] = np.nan
            for others in self._others.values():
                others[row] = None
        return rows

    def _seat(self, device: str) -> int:
        if self._free:
            row = self._free.pop()
        else:
            row = self.size
            self.size += 1
        self._row_of[device] = row
        self.alive[row] = True
        return row

    def _make_room(self, count: int) -> None:
        needed = self.size + max(0, count - len(self._free))
        if needed <= len(self.alive):
            return
        capacity = max(256, 2 * len(self.alive), needed)
        self.alive = np.concatenate([self.alive, np.zeros(capacity - len(self.alive), dtype=np.bool_)])
        for column in (*self._texts.values(), *self._tags.values()):
            column.grow(capacity)
        for name, figures in self._figures.items():
            grown = np.full(capacity, np.nan)
            grown[: len(figures)] = figures
            self._figures[name] = grown
        for name, others in self._others.items():
            filled = np.full(capacity, None, dtype=object)
            filled[: len(others)] = others
            self._others[name] = filled

    def _write(self, rows: list[DeviceRow], where: Rows) -> dict[str, Rows]:
        changed: dict[str, Rows] = {}
        for name, column in self._texts.items():
            codes = column.encode(map(attrgetter(name), rows))
            different = column.codes[where] != codes
            if different.any():
                column.codes[where] = codes
                changed[name] = where[different]
                column.sweep(self.size)
        for name, figures in self._figures.items():
            new = np.fromiter(map(attrgetter(name), rows), dtype=np.float64, count=len(rows))
            old = figures[where]
            different = (old != new) & ~(np.isnan(old) & np.isnan(new))
            if different.any():
                figures[where] = new
                changed[name] = where[different]
        for name, others in self._others.items():
            cells = [getattr(row, name) for row in rows]
            found = [
                i for i, (cell, at) in enumerate(zip(cells, where.tolist(), strict=True)) if cell != others[at]
            ]
            if found:
                for i in found:
                    others[where[i]] = cells[i]
                changed[name] = where[found]
                if name == "tags":
                    self._retag(where[found])
        return changed

    def _retag(self, where: Rows) -> None:
        tags = self._others["tags"]
        for row in where.tolist():
            self._tag_keys.update(dict.fromkeys(tags[row] or ()))
        for name, column in self._tags.items():
            key = name[len(TAG) :]
            column.codes[where] = column.encode((tags[row] or {}).get(key, "") for row in where.tolist())

    def _tag_column(self, name: str) -> TextColumn:
        if not name.startswith(TAG):
            raise KeyError(name)
        found = self._tags.get(name)
        if found is None:
            found = TextColumn(version_order)
            found.grow(len(self.alive))
            key, tags = name[len(TAG) :], self._others["tags"][: self.size]
            found.codes[: self.size] = found.encode((cell or {}).get(key, "") for cell in tags)
            self._tags[name] = found
        return found
