"""Saved views of the desk's tables: a filter, columns and an order under a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, or_, select
from sqlalchemy import delete as sql_delete
from sqlalchemy import true as sql_true

from fleetui.store import coding, sequence
from fleetui.store.compiled import Compiled, upsert
from fleetui.store.records import SavedView
from fleetui.store.tables import saved_view, tombstone

_NAMES = ("id", "name", "page", "filter", "columns", "sort", "descending", "owner", "shared", "seq")
_WRITE: Compiled = upsert(saved_view, _NAMES, ("id",))
_GONE: Compiled = upsert(tombstone, ("kind", "name", "seq"), ("kind", "name"))
_SELECT = select(*(saved_view.c[name] for name in _NAMES))


def _row(found: Sequence[Any]) -> SavedView:
    identity, name, page, filter_, columns, sort, descending, owner, shared, seq = found
    return SavedView(
        identity, name, page, filter_, coding.strings(columns), sort, bool(descending), owner, bool(shared), seq
    )


def save(connection: Connection, view: SavedView) -> int:
    """Enter a view, or replace the one of its id; its change number."""
    seq = sequence.next_seq(connection)
    _WRITE.many(
        connection,
        [
            (
                view.id,
                coding.clean(view.name),
                view.page,
                coding.clean(view.filter),
                coding.json_text(view.columns),
                view.sort,
                view.descending,
                coding.clean(view.owner),
                view.shared,
                seq,
            )
        ],
    )
    connection.execute(sql_delete(tombstone).where(tombstone.c.kind == "view", tombstone.c.name == view.id))
    return seq


def delete(connection: Connection, identity: str) -> bool:
    if connection.execute(sql_delete(saved_view).where(saved_view.c.id == identity)).rowcount == 0:
        return False
    _GONE.many(connection, [("view", identity, sequence.next_seq(connection))])
    return True


def list(  # noqa: A001 - reads as views.list
    connection: Connection, *, page: str | None = None, owner: str | None = None
) -> tuple[SavedView, ...]:
    """By name; with ``owner`` that person's and those that are shared."""
    wanted = sql_true() if page is None else saved_view.c.page == page
    theirs = sql_true() if owner is None else or_(saved_view.c.owner == owner, saved_view.c.shared)
    found = connection.execute(_SELECT.where(wanted, theirs).order_by(saved_view.c.name, saved_view.c.id))
    return tuple(_row(each) for each in found)


def changed(connection: Connection, since: int, limit: int) -> tuple[SavedView, ...]:
    statement = _SELECT.where(saved_view.c.seq > since).order_by(saved_view.c.seq).limit(limit)
    return tuple(_row(found) for found in connection.execute(statement))
