"""Words that stand in large tables by number: handles, variants, baselines, versions.

Words are never deleted, so a number once seen stays true, and connections remember those: until a rollback, which
takes the words with it that were entered in that transaction, or until a backup is put in place of everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Engine, event, select

from fleetui.store import coding, sequence
from fleetui.store.compiled import insert
from fleetui.store.tables import change_head, word

_INSERT = insert(word, ("number", "word"))
_RESTORED = select(change_head.c.restored)
_KEY = "fleetui.words"
_MOST = 50_000  # then start again; a fleet has hundreds


def forget_on_rollback(engine: Engine) -> None:
    """To be called once for every engine that writes."""

    def forget(connection: Connection, *_: Any) -> None:
        if not connection.invalidated:
            connection.info.pop(_KEY, None)

    event.listen(engine, "rollback", forget)
    event.listen(engine, "rollback_savepoint", forget)


def numbers(connection: Connection, words: Iterable[str]) -> dict[str, int]:
    """The number of each of them; new ones are entered."""
    restored: int = connection.execute(_RESTORED).scalar_one()
    if connection.info.get(_KEY, (None,))[0] != restored:
        connection.info[_KEY] = (restored, {})
    known: dict[str, int] = connection.info[_KEY][1]
    wanted = set(words)
    missing = wanted - known.keys()
    if missing:
        if len(known) > _MOST:
            known.clear()
            missing = wanted
        known.update(_stored(connection, missing))
        fresh = sorted(missing - known.keys())
        if fresh:
            first = sequence.draw(connection, 0, words=len(fresh)).word
            _INSERT.many(connection, [(first + i, each) for i, each in enumerate(fresh)])
            known.update({each: first + i for i, each in enumerate(fresh)})
    return known


def number_of(connection: Connection, text: str) -> int | None:
    return connection.execute(select(word.c.number).where(word.c.word == text)).scalar_one_or_none()


def _stored(connection: Connection, words: set[str]) -> dict[str, int]:
    asked = sorted(words)
    if connection.dialect.name == "sqlite":
        text = "SELECT word, number FROM word WHERE word IN (SELECT value FROM json_each(?))"
        parameters: tuple[Any, ...] = (coding.json_text(asked),)
    else:
        text = "SELECT word, number FROM word WHERE word = ANY(%s)"
        parameters = (asked,)
    return dict(connection.exec_driver_sql(text, parameters).all())
