"""How far the roll-ups and retention have come: a handful of numbers that writers and readers agree on.

``rolled``     every sample before it is in the minute roll-ups (whole minutes)
``rolling``    the end of the pass that is under way (equal to ``rolled`` between passes): what is written
               before it from now on is late, and its hour is rolled up again
``raw_floor`` …     nothing older is kept raw, by the minute, by the hour (whole hours)
``raw_cursor`` …    where the deletion up to that floor stands: the number of the last device that is done;
                    :data:`DONE` when all are
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from fleetui.store.compiled import upsert
from fleetui.store.tables import progress

DONE = -1.0

_WRITE = upsert(progress, ("name", "value"), ("name",))


@dataclass(frozen=True, slots=True)
class Progress:
    rolled: float = 0.0
    rolling: float = 0.0
    raw_floor: float = 0.0
    minute_floor: float = 0.0
    hour_floor: float = 0.0
    raw_cursor: float = DONE
    minute_cursor: float = DONE
    hour_cursor: float = DONE


_NONE_YET = Progress()


def read(connection: Connection) -> Progress:
    found = dict(connection.execute(select(progress.c.name, progress.c.value)).all())
    return Progress(**{name: found.get(name, getattr(_NONE_YET, name)) for name in Progress.__slots__})


def write(connection: Connection, **values: float) -> None:
    _WRITE.many(connection, list(values.items()))


def advance(connection: Connection, **values: float) -> None:
    """Move marks forward; none ever moves back."""
    now = read(connection)
    write(connection, **{name: max(value, getattr(now, name)) for name, value in values.items()})
