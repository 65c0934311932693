"""What stations say of themselves: one row a station, written over a few times a minute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from fleetui.store import coding, sequence
from fleetui.store.compiled import Compiled, upsert
from fleetui.store.records import StationStatus
from fleetui.store.tables import station_status

_NAMES = ("station", "at", "leader", "link", "link_reason", "broker", "counters", "version", "pid", "seq")
_WRITE: Compiled = upsert(station_status, _NAMES, ("station",))
_SELECT = select(*(station_status.c[name] for name in _NAMES))


def _row(found: Sequence[Any]) -> StationStatus:
    station, at, leader, link, reason, broker, counters, version, pid, seq = found
    return StationStatus(
        station, at, bool(leader), link, reason, broker, coding.figures(counters), version, pid, seq
    )


def write(connection: Connection, said: StationStatus) -> int:
    """Put it in place of what that station said before; its change number."""
    seq = sequence.next_seq(connection)
    # NaN has no place in JSON; a figure that is not known is left out.
    counters = {name: value for name, value in said.counters.items() if value == value}  # noqa: PLR0124 - NaN
    _WRITE.many(
        connection,
        [
            (
                coding.clean(said.station),
                said.at,
                said.leader,
                said.link,
                coding.clean(said.link_reason),
                coding.clean(said.broker),
                coding.json_text(counters),
                said.version,
                said.pid,
                seq,
            )
        ],
    )
    return seq


def list(connection: Connection) -> tuple[StationStatus, ...]:  # noqa: A001 - reads as status.list
    """All that ever spoke, the last to speak first."""
    return tuple(_row(found) for found in connection.execute(_SELECT.order_by(station_status.c.at.desc())))


def changed(connection: Connection, since: int, limit: int) -> tuple[StationStatus, ...]:
    statement = _SELECT.where(station_status.c.seq > since).order_by(station_status.c.seq).limit(limit)
    return tuple(_row(found) for found in connection.execute(statement))
