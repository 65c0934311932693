"""What one commit of ingest writes: the whole batch, in a few statements.

Writing the same batch twice changes nothing but change numbers: samples, windows and events have natural keys,
and a device's row is simply written again. (Counts do count twice; a station adds to them what it received, and
messages that a broker sends again were received again.)

Runs inside a writing transaction, on whatever thread holds the connection; keeps no state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from sqlalchemy import Connection

from fleetui.store import counters, devices, events, progress, rejected, sequence, windows
from fleetui.store.compiled import upsert
from fleetui.store.records import FLEET_METRICS, METRICS, Batch, DeviceRow, FleetSample, Sample
from fleetui.store.tables import fleet_sample, late_hour, sample

HOUR = 3600.0
TOO_LATE = "too_late"  # counter: samples older than anything that is kept raw

_SAMPLE = upsert(sample, ("device", "at", *METRICS), ("device", "at"))
_FLEET = upsert(fleet_sample, ("at", *FLEET_METRICS), ("at",))
_LATE = upsert(late_hour, ("device", "hour"), ("device", "hour"))


def write(connection: Connection, batch: Batch) -> int:
    """Write all of it; the change number up to which it reaches.

    Devices that only appear in samples, windows or events are entered with what is known: their name. Operators'
    columns are never touched (see devices.py). Samples older than retention keeps are dropped and counted.
    """
    rows = batch.devices
    names = set(rows)
    names.update(row.device for row in batch.samples)
    names.update(row.device for row in batch.windows)
    names.update(row.device for row in batch.events)
    names.discard("")
    known = devices.numbers(connection, names)
    fresh = [rows.get(name) or DeviceRow(name) for name in sorted(names - known.keys())]
    old = [row for name, row in rows.items() if name in known]

    needed = len(old) + len(fresh) + len(batch.events) + len(batch.rejected)
    drawn = sequence.draw(connection, max(needed, 1), devices=len(fresh))
    seq = drawn.seq
    if old:
        devices.write_reported(connection, old, known, seq)
        seq += len(old)
    if fresh:
        devices.write_new(connection, fresh, drawn.device, seq)
        known.update({row.device: drawn.device + i for i, row in enumerate(fresh)})
        seq += len(fresh)
    if batch.events:
        events.write(connection, batch.events, known, seq)
        seq += len(batch.events)
    rejected.write(connection, batch.rejected, seq)
    windows.write(connection, batch.windows, known)
    if batch.samples or batch.fleet:
        _write_series(connection, batch.samples, batch.fleet, known)
    counters.add(connection, batch.counters)
    return drawn.seq + max(needed, 1) - 1


def _write_series(
    connection: Connection, samples: list[Sample], fleet: list[FleetSample], known: dict[str, int]
) -> None:
    marks = progress.read(connection)
    floor, rolling = marks.raw_floor, marks.rolling
    usable = [each for each in samples if each.at >= floor]
    usable_fleet = [each for each in fleet if each.at >= floor]
    if connection.dialect.name == "sqlite":  # it stores NaN as NULL
        _SAMPLE.many(connection, [(known[each.device], each.at, *each.values) for each in usable])
        _FLEET.many(connection, [(each.at, *each.values) for each in usable_fleet])
    else:
        _SAMPLE.many(connection, [(known[each.device], each.at, *_nullable(each.values)) for each in usable])
        _FLEET.many(connection, [(each.at, *_nullable(each.values)) for each in usable_fleet])
    late = {(known[each.device], hour_of(each.at)) for each in usable if each.at < rolling}
    late.update((0, hour_of(each.at)) for each in usable_fleet if each.at < rolling)
    _LATE.many(connection, sorted(late))
    dropped = len(samples) + len(fleet) - len(usable) - len(usable_fleet)
    if dropped:
        counters.add(connection, {TOO_LATE: dropped})


def hour_of(at: float) -> float:
    return math.floor(at / HOUR) * HOUR


def _nullable(values: Iterable[float]) -> list[float | None]:
    return [None if value != value else value for value in values]  # noqa: PLR0124 - NaN is not itself
