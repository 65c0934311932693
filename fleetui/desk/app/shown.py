"""The columns of the devices table, as data: what each is called, how wide it is, how a cell reads.

A shown column has the name that the filter language knows it by, so that a saved view, a header and a filter
speak of the same thing. Every tag is a column too (``tag.line``). No Qt; a cell's text is made here and cached
by the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from fleetui.common.domain import ages
from fleetui.common.domain.ages import UNKNOWN, Unit
from fleetui.common.domain.filters.devices import DEVICES
from fleetui.common.domain.filters.fields import TAG_PREFIX, Field, Kind
from fleetui.desk.app.columns import ZERO_IS_UNKNOWN, DeviceTable
from fleetui.desk.app.text import QT_TRANSLATE_NOOP


class Draw(StrEnum):
    """How a cell is drawn."""

    TEXT = "text"
    STATUS = "status"  # icon, word, colour
    AGE = "age"  # changes with time alone
    FIGURE = "figure"  # right-aligned
    SHARE = "share"  # a bar and a percentage


@dataclass(frozen=True, slots=True)
class ShownColumn:
    name: str  # in the filter language
    title: str
    column: str  # in the device table
    draw: Draw
    width: int  # in device-independent pixels, to begin with
    help: str = ""
    unit: Unit = Unit.NONE
    first: bool = False  # shown before anybody chose
    warn: float = float("inf")  # a share from which on the bar is marked

    @property
    def right(self) -> bool:
        return self.draw in {Draw.FIGURE, Draw.SHARE}


# Name: (short title, drawing, width, shown at first). Words and units come from the filter language's catalogue.
_SHOWN: dict[str, tuple[str, Draw, int, bool]] = {
    "status": (QT_TRANSLATE_NOOP("Columns", "Status"), Draw.STATUS, 100, True),
    "id": (QT_TRANSLATE_NOOP("Columns", "Device"), Draw.TEXT, 112, True),
    "name": (QT_TRANSLATE_NOOP("Columns", "Name"), Draw.TEXT, 168, True),
    "site": (QT_TRANSLATE_NOOP("Columns", "Site"), Draw.TEXT, 92, True),
    "target": (QT_TRANSLATE_NOOP("Columns", "Target"), Draw.TEXT, 108, True),
    "model": (QT_TRANSLATE_NOOP("Columns", "Model"), Draw.TEXT, 124, True),
    "model.version": (QT_TRANSLATE_NOOP("Columns", "Version"), Draw.TEXT, 76, True),
    "seen": (QT_TRANSLATE_NOOP("Columns", "Last seen"), Draw.AGE, 84, True),
    "latency.p99": (QT_TRANSLATE_NOOP("Columns", "Latency p99"), Draw.FIGURE, 96, True),
    "rate": (QT_TRANSLATE_NOOP("Columns", "Inferences"), Draw.FIGURE, 92, True),
    "errors": (QT_TRANSLATE_NOOP("Columns", "Errors"), Draw.FIGURE, 70, True),
    "cpu": (QT_TRANSLATE_NOOP("Columns", "CPU"), Draw.SHARE, 104, True),
    "memory": (QT_TRANSLATE_NOOP("Columns", "Memory"), Draw.SHARE, 104, True),
    "temp": (QT_TRANSLATE_NOOP("Columns", "Temp."), Draw.FIGURE, 70, True),
    "health": (QT_TRANSLATE_NOOP("Columns", "Health"), Draw.SHARE, 110, False),
    "since": (QT_TRANSLATE_NOOP("Columns", "In status for"), Draw.AGE, 110, False),
    "lifecycle": (QT_TRANSLATE_NOOP("Columns", "Lifecycle"), Draw.STATUS, 126, False),
    "firmware": (QT_TRANSLATE_NOOP("Columns", "Firmware"), Draw.TEXT, 92, False),
    "agent": (QT_TRANSLATE_NOOP("Columns", "Agent"), Draw.TEXT, 84, False),
    "handle": (QT_TRANSLATE_NOOP("Columns", "Handle"), Draw.TEXT, 120, False),
    "variant": (QT_TRANSLATE_NOOP("Columns", "Variant"), Draw.TEXT, 120, False),
    "digest": (QT_TRANSLATE_NOOP("Columns", "Digest"), Draw.TEXT, 120, False),
    "latency.p50": (QT_TRANSLATE_NOOP("Columns", "Latency p50"), Draw.FIGURE, 104, False),
    "disk": (QT_TRANSLATE_NOOP("Columns", "Disk"), Draw.SHARE, 110, False),
    "clock": (QT_TRANSLATE_NOOP("Columns", "Clock error"), Draw.FIGURE, 100, False),
    "uptime": (QT_TRANSLATE_NOOP("Columns", "Uptime"), Draw.AGE, 92, False),
    "known": (QT_TRANSLATE_NOOP("Columns", "Known for"), Draw.AGE, 92, False),
    "boots": (QT_TRANSLATE_NOOP("Columns", "Starts"), Draw.FIGURE, 76, False),
    "error.text": (QT_TRANSLATE_NOOP("Columns", "Last error"), Draw.TEXT, 240, False),
    "lost": (QT_TRANSLATE_NOOP("Columns", "Lost"), Draw.FIGURE, 76, False),
    "duplicates": (QT_TRANSLATE_NOOP("Columns", "Duplicates"), Draw.FIGURE, 96, False),
    "dropped": (QT_TRANSLATE_NOOP("Columns", "Dropped"), Draw.FIGURE, 86, False),
    "queued": (QT_TRANSLATE_NOOP("Columns", "Waiting"), Draw.FIGURE, 86, False),
    "refused": (QT_TRANSLATE_NOOP("Columns", "Refused"), Draw.FIGURE, 86, False),
    "cores": (QT_TRANSLATE_NOOP("Columns", "Cores"), Draw.FIGURE, 72, False),
    "ram": (QT_TRANSLATE_NOOP("Columns", "RAM"), Draw.FIGURE, 86, False),
    "storage": (QT_TRANSLATE_NOOP("Columns", "Storage"), Draw.FIGURE, 90, False),
}
_WARN = {"cpu": 0.9, "memory": 0.9, "disk": 0.9}


def _shown(field: Field) -> ShownColumn:
    title, draw, width, first = _SHOWN[field.name]
    return ShownColumn(
        field.name,
        title,
        field.column,
        draw,
        width,
        field.help,
        field.unit,
        first,
        _WARN.get(field.name, float("inf")),
    )


_FIELDS = {field.name: field for field in DEVICES.fields}
COLUMNS: tuple[ShownColumn, ...] = tuple(_shown(_FIELDS[name]) for name in _SHOWN)
FIRST: tuple[str, ...] = tuple(column.name for column in COLUMNS if column.first)
_BY_NAME = {column.name: column for column in COLUMNS}


def shown_column(name: str) -> ShownColumn | None:
    """The column of that name; ``tag.<key>`` is one for every key. None for any other."""
    found = _BY_NAME.get(name)
    if found is None and name.startswith(TAG_PREFIX) and len(name) > len(TAG_PREFIX):
        return ShownColumn(name, name[len(TAG_PREFIX) :], name, Draw.TEXT, 110, "A tag of the device.")
    return found


def shown_columns(names: Iterable[str]) -> tuple[ShownColumn, ...]:
    """Those of ``names`` that exist, each once; the usual ones where none does."""
    found = [column for name in dict.fromkeys(names) if (column := shown_column(name)) is not None]
    return tuple(found) or shown_columns(FIRST)


def offered(table: DeviceTable) -> tuple[ShownColumn, ...]:
    """Every column that can be shown now: those that are always there, then one for each tag in use."""
    tags = (shown_column(f"{TAG_PREFIX}{key}") for key in table.tag_keys())
    return (*COLUMNS, *(column for column in tags if column is not None))


def cell_value(table: DeviceTable, column: ShownColumn, row: int) -> Any:
    """As it is: text, number, or None where it is not known."""
    value = table.value(column.column, row)
    if isinstance(value, float):
        if np.isnan(value) or (value == 0 and column.column in ZERO_IS_UNKNOWN):
            return None
        return value
    return value or None


def cell_text(table: DeviceTable, column: ShownColumn, row: int, now: float) -> str:
    """As people read it."""
    value = cell_value(table, column, row)
    if value is None:
        return ages.NEVER if column.draw is Draw.AGE and column.name == "seen" else _nothing(column)
    if column.draw is Draw.AGE:
        return ages.age_of(value, now)
    if isinstance(value, float):
        if column.name == "clock":
            return ages.offset(value)
        if column.unit is Unit.NONE:
            return f"{value:,.0f}"
        return ages.show(value, column.unit)
    return str(value)


def _nothing(column: ShownColumn) -> str:
    field = _FIELDS.get(column.name)
    return UNKNOWN if field is not None and field.kind in {Kind.NUMBER, Kind.AGE} else ""
