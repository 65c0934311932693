"""Leases: which of several programs does a thing that only one may do.

``now`` is this machine's real time in Unix seconds, not fleet time (which may run fast) and not the
database's: stations on different machines must have clocks that agree to well within ``ttl_s``. ``term`` rises by
one each time the holder changes, so that what a former leader writes late can be told from the new leader's.
``holder`` names one run of one program: a program that starts again is another holder.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from fleetui.store.records import Lease
from fleetui.store.tables import lease

_SELECT = select(lease.c.holder, lease.c.term, lease.c.expires, lease.c.taken)


def get(connection: Connection, name: str) -> Lease | None:
    """Who had it last, whether or not it has run out."""
    found = connection.execute(_SELECT.where(lease.c.name == name)).one_or_none()
    return None if found is None else Lease(found.holder, found.term, found.expires, found.taken)


def take(connection: Connection, name: str, holder: str, ttl_s: float, now: float) -> Lease | None:
    """The lease, if it is free, has run out, or is ``holder``'s already; else None."""
    found = connection.execute(_SELECT.where(lease.c.name == name).with_for_update()).one_or_none()
    if found is None:
        first = Lease(holder, 1, now + ttl_s, now)
        connection.execute(
            lease.insert().values(name=name, holder=holder, term=1, expires=first.expires, taken=now)
        )
        return first
    if found.holder == holder:
        mine = Lease(holder, found.term, max(now + ttl_s, found.expires), found.taken)
    elif found.expires <= now:
        mine = Lease(holder, found.term + 1, now + ttl_s, now)
    else:
        return None
    connection.execute(
        update(lease)
        .where(lease.c.name == name)
        .values(holder=mine.holder, term=mine.term, expires=mine.expires, taken=mine.taken)
    )
    return mine


def renew(connection: Connection, name: str, holder: str, ttl_s: float, now: float) -> Lease | None:
    """Hold it longer; None where it is another's or ran out: then ``holder`` must stop what it leads at once."""
    statement = (
        update(lease)
        .where(lease.c.name == name, lease.c.holder == holder, lease.c.expires > now)
        .values(expires=now + ttl_s)
        .returning(lease.c.term, lease.c.expires, lease.c.taken)
    )
    found = connection.execute(statement).one_or_none()
    return None if found is None else Lease(holder, found.term, found.expires, found.taken)


def release(connection: Connection, name: str, holder: str) -> bool:
    """Give it up, so that another need not wait for it to run out."""
    statement = update(lease).where(lease.c.name == name, lease.c.holder == holder, lease.c.expires > 0)
    return connection.execute(statement.values(expires=0.0)).rowcount > 0
