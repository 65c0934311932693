"""Statements compiled once per dialect and run with plain tuples.

SQLAlchemy's own executemany prepares a dictionary per row, which costs more than the database does. Here the
statement is still built from the typed tables, but its text is kept and rows go straight to the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Executable, Table, bindparam
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.sql.elements import ColumnElement

from fleetui.common.domain.errors import BugError


class Compiled:
    """One statement; ``names`` are its parameters in the order in which a row's tuple has them."""

    def __init__(self, names: Sequence[str], build: Callable[[str], Executable]) -> None:
        self.names = tuple(names)
        self._build = build
        self._ready: dict[str, tuple[str, tuple[int, ...] | None]] = {}

    def many(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
        """Once for each row; how many rows of the table that touched."""
        if not rows:
            return 0
        text, order = self._text(connection)
        if order is not None:
            rows = [tuple([row[i] for i in order]) for row in rows]
        return connection.exec_driver_sql(text, rows if isinstance(rows, list) else list(rows)).rowcount

    def _text(self, connection: Connection) -> tuple[str, tuple[int, ...] | None]:
        name = connection.dialect.name
        ready = self._ready.get(name)
        if ready is None:
            ready = self._ready[name] = self._compile(name, connection.dialect)
        return ready

    def _compile(self, name: str, used: Any) -> tuple[str, tuple[int, ...] | None]:
        # The same dialect, told to write parameters by position in the driver's own style.
        dialect: DefaultDialect = type(used)(paramstyle="qmark" if name == "sqlite" else "format")
        compiled: Any = self._build(name).compile(dialect=dialect)  # type: ignore[attr-defined]  # every statement has it
        found = tuple(compiled.positiontup)
        if set(found) != set(self.names):
            raise BugError(f"a statement takes {found}, not {self.names}")
        order = tuple(self.names.index(each) for each in found)
        return str(compiled), None if order == tuple(range(len(order))) else order


def upsert(
    table: Table, names: Sequence[str], key: Sequence[str], *, replace: Sequence[str] | None = None
) -> Compiled:
    """Insert rows; where ``key`` is there already, ``replace`` (all others by default) takes the new values."""
    changed = [name for name in names if name not in key] if replace is None else list(replace)

    def build(dialect: str) -> Executable:
        values = {name: bindparam(name, type_=table.c[name].type) for name in names}
        if dialect == "sqlite":
            lite = sqlite.insert(table).values(values)
            if not changed:
                return lite.on_conflict_do_nothing(index_elements=key)
            return lite.on_conflict_do_update(
                index_elements=key, set_={name: lite.excluded[name] for name in changed}
            )
        post = postgresql.insert(table).values(values)
        if not changed:
            return post.on_conflict_do_nothing(index_elements=key)
        return post.on_conflict_do_update(index_elements=key, set_={name: post.excluded[name] for name in changed})

    return Compiled(names, build)


def insert(table: Table, names: Sequence[str]) -> Compiled:
    return Compiled(
        names,
        lambda _: table.insert().values({name: bindparam(name, type_=table.c[name].type) for name in names}),
    )


def update(table: Table, names: Sequence[str], key: str) -> Compiled:
    """Set ``names`` of the row whose ``key`` is the last parameter."""

    def build(_: str) -> Executable:
        # The key's parameter may not carry a column's name in an UPDATE.
        return (
            table.update()
            .where(table.c[key] == bindparam("which", type_=table.c[key].type))
            .values({name: bindparam(name, type_=table.c[name].type) for name in names})
        )

    return Compiled([*names, "which"], build)


def add_up(table: Table, key: str, value: str, others: Sequence[str] = ()) -> Compiled:
    """Insert rows of (key, value, *others); where the key is there already, the value is added to it."""
    names = (key, value, *others)

    def build(dialect: str) -> Executable:
        module: Any = sqlite if dialect == "sqlite" else postgresql
        statement = module.insert(table).values({name: bindparam(name, type_=table.c[name].type) for name in names})
        total: ColumnElement[int] = table.c[value] + statement.excluded[value]
        changes = {value: total} | {name: statement.excluded[name] for name in others}
        built: Executable = statement.on_conflict_do_update(index_elements=[key], set_=changes)
        return built

    return Compiled(names, build)
