"""Whether the database is whole. PostgreSQL looks after itself; this is about SQLite's file.

At start the whole file is looked over where it is small, and only the tables that cannot be measured again
(wishes, devices, views …) where it is large; ``fleetui store check`` looks at all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from fleetui.common.domain.errors import StoreError
from fleetui.store.tables import METADATA

SMALL_BYTES = 32 * 1024 * 1024
PRECIOUS = (
    "change_head",
    "device",
    "wish",
    "job",
    "lease",
    "saved_view",
    "word",
    "progress",
    "tombstone",
    "counter",
)
_FIX = "Restore the last backup with: fleetui store restore FILE --force"


def at_start(engine: Engine, file: Path) -> None:
    """Raise StoreError where the file is damaged; bounded by the file's size."""
    if not file.exists() or file.stat().st_size == 0:
        return
    with engine.connect() as connection, connection.begin():
        if file.stat().st_size <= SMALL_BYTES:
            problems = _ask(connection, "PRAGMA quick_check(3)")
        else:
            there = set(inspect(connection).get_table_names())
            problems = []
            for table in PRECIOUS:
                if table in there:
                    problems += _ask(connection, f"PRAGMA quick_check({table})")
    if problems:
        raise StoreError(f"The store {file} is damaged ({problems[0]})", _FIX)


def check(connection: Connection, progress: Callable[[str], None] = lambda _: None) -> list[str]:
    """Everything that is wrong, in words; empty where all is well. May take minutes on a large store."""
    problems: list[str] = []
    if connection.dialect.name == "sqlite":
        progress("pages and indexes")
        problems += _ask(connection, "PRAGMA integrity_check(20)")
    missing = METADATA.tables.keys() - set(inspect(connection).get_table_names())
    problems += [f"the table {name} is missing" for name in sorted(missing)]
    if problems:
        return problems
    for name, question in _RULES.items():
        progress(name)
        found = connection.execute(text(question)).scalar_one()
        if found:
            problems.append(f"{name}: {found}")
    return problems


# What must hold between tables; each question counts what breaks it.
_RULES = {
    "the change sequence has one row": "SELECT abs(count(*) - 1) FROM change_head",
    "no device was written after the last change": (
        "SELECT count(*) FROM device WHERE seq > (SELECT seq FROM change_head WHERE id = 1)"
    ),
    "no event was written after the last change": (
        "SELECT count(*) FROM event WHERE seq > (SELECT seq FROM change_head WHERE id = 1)"
    ),
    "no wish was written after the last change": (
        "SELECT count(*) FROM wish WHERE seq > (SELECT seq FROM change_head WHERE id = 1)"
    ),
    "no device number beyond the last given": (
        "SELECT count(*) FROM device WHERE number > (SELECT devices FROM change_head WHERE id = 1)"
    ),
    "no word number beyond the last given": (
        "SELECT count(*) FROM word WHERE number > (SELECT words FROM change_head WHERE id = 1)"
    ),
    "no device is both here and gone": (
        "SELECT count(*) FROM device JOIN tombstone ON tombstone.name = device.device AND tombstone.kind = 'device'"
    ),
    "every window's words are known": (
        "SELECT count(*) FROM inference_window w WHERE NOT EXISTS (SELECT 1 FROM word WHERE number = w.handle)"
    ),
    "the roll-ups do not run ahead of their own mark": (
        "SELECT count(*) FROM progress r JOIN progress d ON r.name = 'rolling' AND d.name = 'rolled'"
        " WHERE d.value > r.value"
    ),
}


def _ask(connection: Connection, pragma: str) -> list[str]:
    return [row[0] for row in connection.exec_driver_sql(pragma) if row[0] != "ok"]
