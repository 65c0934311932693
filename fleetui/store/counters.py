"""Counters that only rise: received, decoded, dropped and their like, added up over all stations and restarts."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, select

from fleetui.store.compiled import add_up
from fleetui.store.tables import counter

_ADD = add_up(counter, "name", "value")


def add(connection: Connection, amounts: Mapping[str, int]) -> None:
    _ADD.many(connection, [(name, amounts[name]) for name in sorted(amounts) if amounts[name]])


def all(connection: Connection) -> dict[str, int]:  # noqa: A001 - reads as counters.all
    return dict(connection.execute(select(counter.c.name, counter.c.value)).all())
