"""Retention: what is older than it should be kept is deleted, slice by slice, each a short transaction.

Series are deleted in whole hours behind a floor. The floor moves first, and ingest takes nothing older from then
on; then every device is swept up to it, and where that stands is kept, so that a call that reaches its bound (or
is killed) is followed by one that goes on. A floor moves a few hours at a time, so that a store that was left
alone for a month, or whose retention was shortened, is caught up with in small steps too.

What removed devices left in the large tables is swept here as well. SQLite's file is shrunk by and by once much of
it is free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, Double, Integer, Table, bindparam, delete, func, select

from fleetui.store import progress
from fleetui.store.compiled import Compiled
from fleetui.store.progress import DONE
from fleetui.store.store import Store
from fleetui.store.tables import (
    device,
    event,
    fleet_hour,
    fleet_minute,
    fleet_sample,
    inference_window,
    late_hour,
    removed_device,
    sample,
    sample_hour,
    sample_minute,
)

HOUR = 3600.0
DAY = 86_400.0
_ROWS = 5_000  # rows one transaction deletes
_DEVICES = 50  # devices that one transaction sweeps
_FREE = 0.25  # share of SQLite's file that may lie free
_PAGES = 2_000  # pages given back at once


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things are kept, in days of fleet time."""

    raw: float = 2
    minute: float = 30
    hour: float = 730
    windows: float = 90
    events: float = 180


@dataclass(frozen=True, slots=True)
class _Level:
    """One resolution of the series: its tables, its marks, and how far its floor moves at once."""

    name: str
    of_devices: Table
    of_fleet: Table
    step_s: float

    @property
    def floor(self) -> str:
        return f"{self.name}_floor"

    @property
    def cursor(self) -> str:
        return f"{self.name}_cursor"


_LEVELS = (
    _Level("raw", sample, fleet_sample, 6 * HOUR),
    _Level("minute", sample_minute, fleet_minute, 2 * DAY),
    _Level("hour", sample_hour, fleet_hour, 60 * DAY),
)


def _sweep_of(table: Table) -> Compiled:
    return Compiled(
        ("of", "floor"),
        lambda _: delete(table).where(
            table.c.device == bindparam("of", type_=Integer), table.c.at < bindparam("floor", type_=Double)
        ),
    )


_SWEEP = {level.name: _sweep_of(level.of_devices) for level in _LEVELS}


def run(store: Store, now: float, keep: Retention, *, most: int = 48) -> tuple[dict[str, int], bool]:
    """Delete what is too old; rows deleted by table, and whether there is more to do than ``most`` steps did."""
    deleted: dict[str, int] = {}
    unfinished = False

    def add(table: str, rows: int) -> None:
        if rows > 0:
            deleted[table] = deleted.get(table, 0) + rows

    for level, days in zip(_LEVELS, (keep.raw, keep.minute, keep.hour), strict=True):
        wanted = math.floor((now - days * DAY) / HOUR) * HOUR
        step = partial(_sweep, level=level, wanted=wanted)
        for _ in range(most):
            rows, again = store.write(step)
            add(level.of_devices.name, rows)
            if not again:
                break
        else:
            unfinished = True
    for table, column, days in ((inference_window, "start", keep.windows), (event, "at", keep.events)):
        slice_ = partial(_older, table=table, column=column, to=now - days * DAY)
        for _ in range(most):
            rows = store.write(slice_)
            add(table.name, rows)
            if rows < _ROWS:
                break
        else:
            unfinished = True
    for _ in range(most):
        gone = store.write(_sweep_removed)
        if gone is None:
            break
        add("removed devices", gone)
    else:
        unfinished = True
    if store.dialect == "sqlite":
        store.write(_shrink)
    return deleted, unfinished


def _sweep(connection: Connection, level: _Level, wanted: float) -> tuple[int, bool]:
    """One step for one resolution: move the floor if the last sweep is done, then sweep a few devices."""
    marks = progress.read(connection)
    floor: float = getattr(marks, level.floor)
    cursor: float = getattr(marks, level.cursor)
    if cursor == DONE:
        floor = _next_floor(connection, level, floor, wanted)
        if floor <= getattr(marks, level.floor):
            return 0, False
        cursor = 0.0
        progress.advance(connection, **{level.floor: floor})
    chosen = select(device.c.number).where(device.c.number > cursor).order_by(device.c.number).limit(_DEVICES)
    numbers = connection.execute(chosen).scalars().all()
    rows = _SWEEP[level.name].many(connection, [(number, floor) for number in numbers])
    if len(numbers) < _DEVICES:
        rows += connection.execute(delete(level.of_fleet).where(level.of_fleet.c.at < floor)).rowcount
        progress.write(connection, **{level.cursor: DONE})
    else:
        progress.write(connection, **{level.cursor: float(numbers[-1])})
    return rows, True


def _next_floor(connection: Connection, level: _Level, floor: float, wanted: float) -> float:
    """How far the floor may move now: not past what is not rolled up, and not far at once."""
    marks = progress.read(connection)
    wanted = min(wanted, math.floor(marks.rolled / HOUR) * HOUR)
    # The finer goes first: whatever may still be made again has all that it is made from.
    if level.name == "raw":
        late = connection.execute(select(func.min(late_hour.c.hour))).scalar_one()
        wanted = wanted if late is None else min(wanted, late)
    elif level.name == "minute":
        wanted = min(wanted, marks.raw_floor)
    else:
        wanted = min(wanted, marks.minute_floor)
    if wanted <= floor:
        return floor
    oldest = _oldest(connection, level)
    if oldest is None or oldest >= wanted:
        return wanted
    return min(wanted, math.floor(max(oldest, floor) / HOUR) * HOUR + level.step_s)


def _oldest(connection: Connection, level: _Level) -> float | None:
    table = level.of_devices
    of_one = select(func.min(table.c.at)).where(table.c.device == device.c.number)
    each = select(of_one.correlate(device).scalar_subquery().label("at")).select_from(device).subquery()
    found = (
        connection.execute(select(func.min(each.c.at))).scalar_one(),
        connection.execute(select(func.min(level.of_fleet.c.at))).scalar_one(),
    )
    return min((at for at in found if at is not None), default=None)


def _older(connection: Connection, table: Table, column: str, to: float) -> int:
    """Delete a slice of what is older; the number of rows."""
    at = table.c[column]
    cut = connection.execute(select(at).where(at < to).order_by(at).limit(1).offset(_ROWS - 1)).scalar_one_or_none()
    # Up to and with the cut: any number of rows may share one time.
    return connection.execute(delete(table).where(at < to if cut is None else at <= cut)).rowcount


def _sweep_removed(connection: Connection) -> int | None:
    """Delete what one removed device left; None where none waits."""
    chosen = select(removed_device.c.number).order_by(removed_device.c.number).limit(1)
    number = connection.execute(chosen).scalar_one_or_none()
    if number is None:
        return None
    rows = 0
    for table in (sample, sample_minute, sample_hour, late_hour, inference_window, event):
        rows += connection.execute(delete(table).where(table.c.device == number)).rowcount
    connection.execute(delete(removed_device).where(removed_device.c.number == number))
    return rows


def _shrink(connection: Connection) -> None:
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    if free > _PAGES and free > pages * _FREE:
        # Asked for many at once, Python's driver stops after the first page.
        cursor = connection.connection.cursor()
        for _ in range(_PAGES):
            cursor.execute("PRAGMA incremental_vacuum(1)")
        cursor.close()
