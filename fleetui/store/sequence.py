"""The change sequence: one row, from which every number in the store is drawn.

Drawing is an ``UPDATE … RETURNING`` inside the writing transaction, and there is one writing transaction at a
time (see engine.py), so numbers become visible in the order in which they were drawn: a reader whose snapshot
shows number n sees everything that was written under numbers up to n. A transaction that is rolled back gives
its numbers back; one that wrote less than it drew leaves a gap, which harms nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select

from fleetui.store.tables import change_head

_DRAW = (
    change_head.update()
    .where(change_head.c.id == 1)
    .values(
        seq=change_head.c.seq + bindparam("n"),
        devices=change_head.c.devices + bindparam("n_devices"),
        words=change_head.c.words + bindparam("n_words"),
    )
    .returning(change_head.c.seq, change_head.c.devices, change_head.c.words)
)
_HEAD = select(change_head.c.seq).where(change_head.c.id == 1)


@dataclass(frozen=True, slots=True)
class Drawn:
    """The first number of each span that was asked for."""

    seq: int
    device: int
    word: int


def draw(connection: Connection, count: int = 1, *, devices: int = 0, words: int = 0) -> Drawn:
    """So many fresh numbers in a row."""
    seq, device, word = connection.execute(_DRAW, {"n": count, "n_devices": devices, "n_words": words}).one()
    return Drawn(seq - count + 1, device - devices + 1, word - words + 1)


def next_seq(connection: Connection) -> int:
    return draw(connection).seq


def head(connection: Connection) -> int:
    """The last change number given, as this snapshot sees it."""
    last: int = connection.execute(_HEAD).scalar_one()
    return last
