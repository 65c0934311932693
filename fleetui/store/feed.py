"""The change feed: what is new since a reader last looked.

A reader begins with ``head`` and the lists it shows (``devices.all``, ``events.read``, ``views.list`` …), all in
one ``Store.read()``, which is one snapshot, and then follows ``read(since)``. It misses nothing (see sequence.py),
and sees of each row the newest state only. Reading from 0 gives everything that is kept.

To be called inside ``Store.read()``: head and rows must be of the same snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from sqlalchemy import Connection, select

from fleetui.store import devices, events, jobs, sequence, status, views, wishes
from fleetui.store.records import Changes
from fleetui.store.tables import tombstone


class _Numbered(Protocol):
    @property
    def seq(self) -> int: ...


T = TypeVar("T", bound=_Numbered)


def head(connection: Connection) -> int:
    """The number up to which this snapshot reaches."""
    return sequence.head(connection)


def read(connection: Connection, since: int, *, limit: int = 20_000) -> Changes:
    """What was written after ``since``: at most ``limit`` rows of each kind.

    Where that is not all, ``more`` is set and ``seq`` is how far it reaches; nothing after it is given.
    """
    last = sequence.head(connection)
    if last <= since:
        return Changes(seq=since)
    found_devices = devices.changed(connection, since, limit)
    found_events = events.changed(connection, since, limit)
    found_wishes = wishes.changed(connection, since, limit)
    found_views = views.changed(connection, since, limit)
    found_stations = status.changed(connection, since, limit)
    found_jobs = jobs.changed(connection, since, limit)
    gone = connection.execute(
        select(tombstone.c.seq, tombstone.c.kind, tombstone.c.name)
        .where(tombstone.c.seq > since)
        .order_by(tombstone.c.seq)
        .limit(limit)
    ).all()
    kinds: tuple[Sequence[_Numbered], ...] = (
        found_devices, found_events, found_wishes, found_views, found_stations, found_jobs,
    )  # fmt: skip
    ends = [kind[-1].seq for kind in kinds if len(kind) >= limit]
    if len(gone) >= limit:
        ends.append(gone[-1].seq)
    more = bool(ends)
    to = min(ends) if more else last
    return Changes(
        seq=to,
        devices=_up_to(found_devices, to),
        removed=tuple(each.name for each in gone if each.kind == "device" and each.seq <= to),
        events=_up_to(found_events, to),
        wishes=_up_to(found_wishes, to),
        views=_up_to(found_views, to),
        views_removed=tuple(each.name for each in gone if each.kind == "view" and each.seq <= to),
        stations=_up_to(found_stations, to),
        jobs=_up_to(found_jobs, to),
        more=more,
    )


def _up_to(rows: Sequence[T], seq: int) -> tuple[T, ...]:
    return tuple(rows) if not rows or rows[-1].seq <= seq else tuple(row for row in rows if row.seq <= seq)
