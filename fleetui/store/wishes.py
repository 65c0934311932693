"""Wishes: rows in which a person asks for something, carried out by the leading station, never deleted.

The store keeps them; it neither signs nor checks signatures. A wish that another holder took and did not finish
belonged to a station that is gone (only the leader takes wishes), so the next one takes it over: carrying out a
wish must therefore be idempotent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, or_, select, update

from fleetui.store import coding, sequence
from fleetui.store.compiled import Compiled, upsert
from fleetui.store.records import Wish, WishState
from fleetui.store.tables import wish

_NAMES = ("id", "kind", "arguments", "operator", "at", "signature", "state", "outcome", "taken", "ended", "seq")
_ASK: Compiled = upsert(wish, (*_NAMES, "holder", "arrived"), ("id",), replace=())
_SELECT = select(*(wish.c[name] for name in _NAMES))
OPEN = (WishState.ASKED, WishState.TAKEN)


def _row(found: Sequence[Any]) -> Wish:
    identity, kind, arguments, operator, at, signature, state, outcome, taken, ended, seq = found
    return Wish(
        id=identity,
        kind=kind,
        arguments=coding.json_object(arguments),
        operator=operator,
        at=at,
        signature=bytes(signature),
        state=WishState(state),
        outcome=outcome,
        taken=taken,
        ended=ended,
        seq=seq,
    )


def ask(connection: Connection, asked: Wish) -> bool:
    """Enter a wish as asked for; False where one of its id is there already, which then stays as it is."""
    if get(connection, asked.id) is not None:
        return False
    seq = sequence.next_seq(connection)
    _ASK.many(
        connection,
        [
            (
                asked.id,
                asked.kind,
                coding.json_text(dict(asked.arguments)),
                coding.clean(asked.operator),
                asked.at,
                asked.signature,
                WishState.ASKED.value,
                "",
                0.0,
                0.0,
                seq,
                "",
                seq,
            )
        ],
    )
    return True


def take(connection: Connection, holder: str, now: float) -> Wish | None:
    """The oldest wish that waits, now taken by ``holder``; None where none does.

    ``holder`` names one run of one station. Wishes that another holder left taken come first.
    """
    waiting = or_(
        wish.c.state == WishState.ASKED.value,
        and_(wish.c.state == WishState.TAKEN.value, wish.c.holder != holder),
    )
    oldest = (
        select(wish.c.id)
        .where(wish.c.state.in_([state.value for state in OPEN]), waiting)
        .order_by(wish.c.arrived)
        .limit(1)
        .with_for_update(skip_locked=True)  # SQLite has no row locks and needs none
    )
    identity = connection.execute(oldest).scalar_one_or_none()
    if identity is None:
        return None
    connection.execute(
        update(wish)
        .where(wish.c.id == identity)
        .values(state=WishState.TAKEN.value, holder=holder, taken=now, seq=sequence.next_seq(connection))
    )
    return get(connection, identity)


def finish(
    connection: Connection, identity: str, state: WishState, outcome: str, *, now: float, holder: str | None = None
) -> bool:
    """End a taken wish as done, failed or refused, with a sentence.

    False where it is not taken, or (with ``holder``) is not that holder's any more: then somebody else ends it.
    """
    if state not in {WishState.DONE, WishState.FAILED, WishState.REFUSED}:
        raise ValueError(f"{state} does not end a wish")
    mine = [wish.c.id == identity, wish.c.state == WishState.TAKEN.value]
    if holder is not None:
        mine.append(wish.c.holder == holder)
    return _end(connection, mine, state, outcome, now)


def withdraw(connection: Connection, identity: str, *, now: float) -> bool:
    """Take back a wish that nobody has taken yet; False where it is too late."""
    mine = [wish.c.id == identity, wish.c.state == WishState.ASKED.value]
    return _end(connection, mine, WishState.WITHDRAWN, "", now)


def _end(connection: Connection, mine: list[Any], state: WishState, outcome: str, now: float) -> bool:
    statement = update(wish).where(*mine)
    values = {"state": state.value, "outcome": coding.clean(outcome), "ended": now}
    return connection.execute(statement.values(seq=sequence.next_seq(connection), **values)).rowcount > 0


def get(connection: Connection, identity: str) -> Wish | None:
    found = connection.execute(_SELECT.where(wish.c.id == identity)).one_or_none()
    return None if found is None else _row(found)


def recent(connection: Connection, *, limit: int = 100, only_open: bool = False) -> list[Wish]:
    """The newest first; with ``only_open`` those that are not ended."""
    statement = _SELECT.order_by(wish.c.arrived.desc()).limit(limit)
    if only_open:
        statement = statement.where(wish.c.state.in_([state.value for state in OPEN]))
    return [_row(found) for found in connection.execute(statement)]


def changed(connection: Connection, since: int, limit: int) -> list[Wish]:
    statement = _SELECT.where(wish.c.seq > since).order_by(wish.c.seq).limit(limit)
    return [_row(found) for found in connection.execute(statement)]
