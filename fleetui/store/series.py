"""Time series for charts: one metric of one device (or of the fleet, device "") over a span.

Three resolutions are kept: raw samples, minutes and hours. A read takes the finest that still reaches back to the
start of the span and does not make more points than were asked for; what the roll-ups do not cover yet (the
last minute or two) is added up here from raw samples, so a chart's right edge is never behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Table, select

from fleetui.store import devices, progress
from fleetui.store.records import FLEET_METRICS, METRICS, Series
from fleetui.store.tables import (
    fleet_hour,
    fleet_minute,
    fleet_sample,
    sample,
    sample_hour,
    sample_minute,
)

MINUTE = 60.0
HOUR = 3600.0
_FINER = 8  # up to so many stored points are read and added up for one that is asked for

# at, mean, low, high, count: one point a row
_Points = npt.NDArray[np.float64]
_NOTHING: _Points = np.empty((0, 5), dtype=np.float64)


def read(
    connection: Connection, device: str, metric: str, start: float, end: float, *, max_points: int = 2000
) -> Series:
    """Points in ``[start, end)``, oldest first, at most ``max_points``; none where the device is not known.

    ``at`` is the time of a raw sample, or the beginning of a bucket. Where the metric is not known there is no
    point: a gap in ``at`` longer than ``resolution_s`` is a gap in what was measured.
    """
    known = FLEET_METRICS if device == "" else METRICS
    if metric not in known:
        raise ValueError(f"{metric!r} is not one of {', '.join(known)}")
    number = None
    if device:
        number = devices.number_of(connection, device)
        if number is None:
            return _series(_NOTHING, 0.0)
    raw_of, minute_of, hour_of = (
        (fleet_sample, fleet_minute, fleet_hour) if number is None else (sample, sample_minute, sample_hour)
    )
    max_points = max(max_points, 2)
    marks = progress.read(connection)
    span = max(end - start, 0.0)

    if start >= marks.raw_floor and span <= MINUTE * max_points:
        points = _raw(connection, raw_of, number, metric, start, end, limit=_FINER * max_points + 1)
        if len(points) <= max_points:
            return _series(points, 0.0)
        if len(points) <= _FINER * max_points and span < MINUTE * max_points / 2:
            width = _nice(span / (max_points - 1))
            return _series(_bucket(points, width), width)

    if start >= marks.minute_floor and span <= MINUTE * max_points * _FINER:
        width = MINUTE * max(1, math.ceil(span / MINUTE / (max_points - 1)))
        first = math.floor(start / MINUTE) * MINUTE
        parts = [
            _rolled(connection, minute_of, number, metric, first, min(end, marks.rolled)),
            _raw(connection, raw_of, number, metric, max(first, marks.rolled), end),
        ]
        return _series(_bucket(np.concatenate(parts), width), width)

    width = HOUR * max(1, math.ceil(span / HOUR / (max_points - 1)))
    whole_hours = math.floor(marks.rolled / HOUR) * HOUR
    first = math.floor(start / HOUR) * HOUR
    parts = [
        _rolled(connection, hour_of, number, metric, first, min(end, whole_hours)),
        _rolled(connection, minute_of, number, metric, max(first, whole_hours), min(end, marks.rolled)),
        _raw(connection, raw_of, number, metric, max(first, marks.rolled), end),
    ]
    return _series(_bucket(np.concatenate(parts), width), width)


def latest(connection: Connection, device: str = "") -> tuple[float, dict[str, float]] | None:
    """The newest sample: its time, and the figures that are known in it. None where there is none."""
    if device:
        number = devices.number_of(connection, device)
        statement = select(sample.c.at, *(sample.c[name] for name in METRICS)).where(sample.c.device == number)
        found = connection.execute(statement.order_by(sample.c.at.desc()).limit(1)).one_or_none()
        names = METRICS
    else:
        statement = select(fleet_sample.c.at, *(fleet_sample.c[name] for name in FLEET_METRICS))
        found = connection.execute(statement.order_by(fleet_sample.c.at.desc()).limit(1)).one_or_none()
        names = FLEET_METRICS
    if found is None:
        return None
    at, *values = found
    return at, {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _raw(
    connection: Connection,
    table: Table,
    number: int | None,
    metric: str,
    start: float,
    end: float,
    *,
    limit: int | None = None,
) -> _Points:
    if start >= end:
        return _NOTHING
    value = table.c[metric]
    statement = select(table.c.at, value).where(table.c.at >= start, table.c.at < end, value.is_not(None))
    if number is not None:
        statement = statement.where(table.c.device == number)
    rows = connection.execute(statement.order_by(table.c.at).limit(limit)).all()
    pairs = _matrix(rows, 2)
    points = np.ones((len(pairs), 5), dtype=np.float64)
    points[:, 0] = pairs[:, 0]
    points[:, 1:4] = pairs[:, 1:2]
    return points


def _rolled(
    connection: Connection, table: Table, number: int | None, metric: str, start: float, end: float
) -> _Points:
    if start >= end:
        return _NOTHING
    columns = [table.c[f"{metric}_{part}"] for part in ("mean", "low", "high", "count")]
    statement = select(table.c.at, *columns).where(table.c.at >= start, table.c.at < end, columns[0].is_not(None))
    if number is not None:
        statement = statement.where(table.c.device == number)
    rows = connection.execute(statement.order_by(table.c.at)).all()
    return _matrix(rows, 5)


def _matrix(rows: Sequence[Sequence[float]], width: int) -> _Points:
    # Much faster than np.array(rows), which looks into every row for its shape.
    return np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * width).reshape(len(rows), width)


def _bucket(points: _Points, width: float) -> _Points:
    """The same points added up into buckets of ``width`` seconds; they come in order of time."""
    if len(points) == 0:
        return points
    buckets = np.floor(points[:, 0] / width)
    firsts = np.flatnonzero(np.r_[True, np.diff(buckets) > 0])
    if len(firsts) == len(points) and np.array_equal(points[:, 0], buckets * width):
        return points
    count = np.add.reduceat(points[:, 4], firsts)
    merged = np.empty((len(firsts), 5), dtype=np.float64)
    merged[:, 0] = buckets[firsts] * width
    merged[:, 1] = np.add.reduceat(points[:, 1] * points[:, 4], firsts) / count
    merged[:, 2] = np.minimum.reduceat(points[:, 2], firsts)
    merged[:, 3] = np.maximum.reduceat(points[:, 3], firsts)
    merged[:, 4] = count
    return merged


def _nice(seconds: float) -> float:
    """The next round width up to a minute."""
    return next((width for width in (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0) if width >= seconds), MINUTE)


def _series(points: _Points, resolution_s: float) -> Series:
    at, mean, low, high, count = np.ascontiguousarray(points.T)
    return Series(at=at, mean=mean, low=low, high=high, count=count.astype(np.int64), resolution_s=resolution_s)
