"""Roll-ups: raw → 1 min → 1 h. The leading station calls :func:`run` about once a minute.

Every step is one short transaction and may be run again: killed anywhere, the next call goes on from the marks in
``progress`` (see progress.py). A pass works on minutes that are over. It first says how far it will go
(``rolling``), so that ingest marks what it writes into those minutes from then on as late; hours with late samples
are rolled up again, before anything else, by the next call.

Minutes are made from raw samples, an hour from its minutes. Retention deletes raw samples only in whole hours that
are rolled up and have nothing late in them, and ingest takes no samples older than that: an hour is never made
again from half of its samples.

Times are fleet time. Runs on the caller's thread and writes through the store's writer thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    Connection,
    Double,
    Executable,
    Integer,
    Select,
    Table,
    bindparam,
    cast,
    delete,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.elements import ColumnElement

from fleetui.store import progress, retention
from fleetui.store.compiled import Compiled
from fleetui.store.records import FLEET_METRICS, METRICS
from fleetui.store.retention import Retention
from fleetui.store.store import Store
from fleetui.store.tables import (
    device,
    fleet_hour,
    fleet_minute,
    fleet_sample,
    late_hour,
    sample,
    sample_hour,
    sample_minute,
)

MINUTE = 60.0
HOUR = 3600.0
SETTLE_S = 5.0  # a minute is worked on so long after its end: most stragglers are in by then
_DEVICE_MINUTES = 12_000  # how much one transaction rolls up: devices x minutes
_LATE_HOURS = 100  # late hours made again in one transaction


@dataclass(slots=True)
class RollupReport:
    """What one call did. ``more``: it stopped at its bound and there is more to do; call again soon."""

    until: float = 0.0  # every minute before it is rolled up
    minutes: int = 0  # minute roll-ups written
    hours: int = 0
    late: int = 0  # late hours made again
    deleted: dict[str, int] = field(default_factory=dict)  # rows, by table
    more: bool = False


def run(store: Store, now: float, *, keep: Retention | None = None, most: int = 48) -> RollupReport:
    """Roll up what is over; with ``keep``, delete what is older than it says.

    At most about ``most`` transactions of each kind.
    """
    report = RollupReport()
    _redo_late(store, report, most)
    _roll(store, now, report, most)
    if keep is not None:
        report.deleted, unfinished = retention.run(store, now, keep, most=most)
        report.more |= unfinished
    return report


# ------------------------------------------------------------------------------------------------ statements


# Written out, not bound: a parameter would make the grouped expression another one than the selected.
_SIXTY: ColumnElement[float] = literal_column("60.0", Double)
_ZERO: ColumnElement[float] = literal_column("0.0", Double)


def _bucket(dialect: str, at: ColumnElement[float]) -> ColumnElement[float]:
    # Not every SQLite has floor(); samples before 1970 are not taken, so cutting off is the same.
    minute: ColumnElement[Any] = cast(at / _SIXTY, Integer) if dialect == "sqlite" else func.floor(at / _SIXTY)
    return cast(minute * _SIXTY, Double)


def _of_raw(values: Table, metrics: tuple[str, ...]) -> list[ColumnElement[Any]]:
    found: list[ColumnElement[Any]] = []
    for metric in metrics:
        column = values.c[metric]
        found += [func.avg(column), func.min(column), func.max(column), func.count(column)]
    return found


def _of_minutes(values: Table, metrics: tuple[str, ...]) -> list[ColumnElement[Any]]:
    found: list[ColumnElement[Any]] = []
    for metric in metrics:
        mean, low, high, count = (values.c[f"{metric}_{part}"] for part in ("mean", "low", "high", "count"))
        found += [
            func.sum(mean * count) / func.nullif(cast(func.sum(count), Double), _ZERO),
            func.min(low),
            func.max(high),
            func.sum(count),
        ]
    return found


def _insert(dialect: str, target: Table, chosen: Select[Any]) -> Executable:
    module: Any = sqlite if dialect == "sqlite" else postgresql
    names = [column.name for column in target.columns]
    keys = [column.name for column in target.primary_key.columns]
    statement = module.insert(target).from_select(names, chosen)
    built: Executable = statement.on_conflict_do_update(
        index_elements=keys, set_={name: statement.excluded[name] for name in names if name not in keys}
    )
    return built


def _span(at: ColumnElement[float]) -> list[ColumnElement[bool]]:
    return [at >= bindparam("first", type_=Double), at < bindparam("end", type_=Double)]


# Device by device, so that the key finds each one's few samples: there is no index by time alone, and a range of
# devices would read all that is kept of them.
_CHUNK = select(device.c.number).where(
    device.c.number > bindparam("above", type_=Integer), device.c.number <= bindparam("to", type_=Integer)
)


def _minutes_of_many(dialect: str) -> Executable:
    at = _bucket(dialect, sample.c.at)
    chosen = (
        select(sample.c.device, at, *_of_raw(sample, METRICS))
        .where(sample.c.device.in_(_CHUNK), *_span(sample.c.at))
        .group_by(sample.c.device, at)
    )
    return _insert(dialect, sample_minute, chosen)


def _hours_of_many(dialect: str) -> Executable:
    values = sample_minute
    chosen = (
        select(values.c.device, bindparam("first", type_=Double), *_of_minutes(values, METRICS))
        .where(values.c.device.in_(_CHUNK), *_span(values.c.at))
        .group_by(values.c.device)
    )
    return _insert(dialect, sample_hour, chosen)


def _minutes_of_one(dialect: str) -> Executable:
    at = _bucket(dialect, sample.c.at)
    chosen = (
        select(sample.c.device, at, *_of_raw(sample, METRICS))
        .where(sample.c.device == bindparam("of", type_=Integer), *_span(sample.c.at))
        .group_by(sample.c.device, at)
    )
    return _insert(dialect, sample_minute, chosen)


def _hour_of_one(dialect: str) -> Executable:
    values = sample_minute
    chosen = (
        select(values.c.device, bindparam("first", type_=Double), *_of_minutes(values, METRICS))
        .where(values.c.device == bindparam("of", type_=Integer), *_span(values.c.at))
        .group_by(values.c.device)
    )
    return _insert(dialect, sample_hour, chosen)


def _minutes_of_fleet(dialect: str) -> Executable:
    at = _bucket(dialect, fleet_sample.c.at)
    chosen = select(at, *_of_raw(fleet_sample, FLEET_METRICS)).where(*_span(fleet_sample.c.at)).group_by(at)
    return _insert(dialect, fleet_minute, chosen)


def _hour_of_fleet(dialect: str) -> Executable:
    at = bindparam("first", type_=Double)
    chosen = select(at, *_of_minutes(fleet_minute, FLEET_METRICS)).where(*_span(fleet_minute.c.at))
    # Without a group there is a row even where there are no minutes.
    return _insert(dialect, fleet_hour, chosen.having(func.count() > _ZERO))


_MANY = ("first", "end", "above", "to")
_ONE = ("first", "end", "of")
_MINUTES_OF_MANY = Compiled(_MANY, _minutes_of_many)
_HOURS_OF_MANY = Compiled(_MANY, _hours_of_many)
_MINUTES_OF_ONE = Compiled(_ONE, _minutes_of_one)
_HOUR_OF_ONE = Compiled(_ONE, _hour_of_one)
_MINUTES_OF_FLEET = Compiled(("first", "end"), _minutes_of_fleet)
_HOUR_OF_FLEET = Compiled(("first", "end"), _hour_of_fleet)


# ------------------------------------------------------------------------------------------------ late samples


def _redo_late(store: Store, report: RollupReport, most: int) -> None:
    def redo(connection: Connection) -> int:
        marks = progress.read(connection)
        chosen = select(late_hour.c.device, late_hour.c.hour).order_by(late_hour.c.hour, late_hour.c.device)
        late = [(number, hour) for number, hour in connection.execute(chosen.limit(_LATE_HOURS))]
        _DELETE_LATE.many(connection, late)
        # Up to where a pass may be under way in another process: it would not look at these again.
        spans = [(hour, min(hour + HOUR, marks.rolling), number) for number, hour in late]
        whole = [(first, end, number) for first, end, number in spans if end - first == HOUR]
        _MINUTES_OF_ONE.many(connection, [span for span in spans if span[2]])
        _HOUR_OF_ONE.many(connection, [span for span in whole if span[2]])
        _MINUTES_OF_FLEET.many(connection, [span[:2] for span in spans if not span[2]])
        _HOUR_OF_FLEET.many(connection, [span[:2] for span in whole if not span[2]])
        return len(late)

    for _ in range(most):
        done = store.write(redo)
        report.late += done
        if done < _LATE_HOURS:
            return
    report.more = True


_DELETE_LATE = Compiled(
    ("of", "of_hour"),
    lambda _: delete(late_hour).where(
        late_hour.c.device == bindparam("of", type_=Integer), late_hour.c.hour == bindparam("of_hour", type_=Double)
    ),
)


# ------------------------------------------------------------------------------------------------ passes


def _roll(store: Store, now: float, report: RollupReport, most: int) -> None:
    target = math.floor((now - SETTLE_S) / MINUTE) * MINUTE
    done = 0
    while True:
        first, end = store.write(lambda connection: _plan(connection, target))
        report.until = first
        if end <= first:
            return
        if done >= most:
            report.more = True
            return
        done += _pass(store, first, end, report)
        report.until = end


def _plan(connection: Connection, target: float) -> tuple[float, float]:
    """The next span to roll up, inside one hour; announced to ingest when this commits."""
    marks = progress.read(connection)
    first = marks.rolled
    if marks.rolling > first:
        return first, marks.rolling  # a pass that was not finished
    if first % HOUR == 0 and target - first > HOUR:
        # Nothing is open: go on where there is something to roll up.
        found = _next_sample(connection, first)
        jump = target if found is None else min(found, target)
        first = max(first, math.floor(jump / HOUR) * HOUR)
    end = max(first, min(target, (math.floor(first / HOUR) + 1) * HOUR))
    if (first, end) != (marks.rolled, marks.rolling):
        progress.advance(connection, rolled=first, rolling=end)
    return first, end


def _next_sample(connection: Connection, at: float) -> float | None:
    of_one = (
        select(func.min(sample.c.at))
        .where(sample.c.device == device.c.number, sample.c.at >= at)
        .correlate(device)
        .scalar_subquery()
    )
    each = select(of_one.label("at")).select_from(device).subquery()
    of_devices = connection.execute(select(func.min(each.c.at))).scalar_one()
    of_fleet = connection.execute(select(func.min(fleet_sample.c.at)).where(fleet_sample.c.at >= at)).scalar_one()
    return min((found for found in (of_devices, of_fleet) if found is not None), default=None)


def _pass(store: Store, first: float, end: float, report: RollupReport) -> int:
    with store.read() as connection:
        numbers = connection.execute(select(device.c.number).order_by(device.c.number)).scalars().all()
    step = max(20, int(_DEVICE_MINUTES / ((end - first) / MINUTE)))
    hour = end - HOUR if end % HOUR == 0 else None
    above = 0
    chunks = [numbers[i : i + step][-1] for i in range(0, len(numbers), step)]
    for to in chunks:
        _note(report, store.write(_chunk(first, end, hour, above, to)))
        above = to
    _note(report, store.write(_finish(first, end, hour)))
    return len(chunks) + 1


def _note(report: RollupReport, written: tuple[int, int]) -> None:
    report.minutes += written[0]
    report.hours += written[1]


def _chunk(
    first: float, end: float, hour: float | None, above: int, to: int
) -> Callable[[Connection], tuple[int, int]]:
    def work(connection: Connection) -> tuple[int, int]:
        minutes = _MINUTES_OF_MANY.many(connection, [(first, end, above, to)])
        hours = 0 if hour is None else _HOURS_OF_MANY.many(connection, [(hour, end, above, to)])
        return minutes, hours

    return work


def _finish(first: float, end: float, hour: float | None) -> Callable[[Connection], tuple[int, int]]:
    def work(connection: Connection) -> tuple[int, int]:
        minutes = _MINUTES_OF_FLEET.many(connection, [(first, end)])
        hours = 0 if hour is None else _HOUR_OF_FLEET.many(connection, [(hour, end)])
        progress.advance(connection, rolled=end)
        return minutes, hours

    return work
