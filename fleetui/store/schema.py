"""The schema's version: made, brought up to date, or politely refused. Runs alembic inside this process.

A store that is current costs one small query; alembic is only loaded when there is something to do. Upgrading
takes the database's write lock first, so of several programs that start at once one upgrades and the others find
it done. SQLite is copied beside itself before an upgrade; there is no way down.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, inspect, text

from fleetui.common.domain.errors import StoreError
from fleetui.store.engine import file_of, shown

log = logging.getLogger("fleetui.store")

HEAD = "0002"  # the newest revision in migrations/versions; a test holds the two together
SCRIPTS = Path(__file__).parent / "migrations"
_MINIMUM_POSTGRES = (13,)  # transactions whose fate can be asked for
_ADVISORY = 7_304_116_051  # an arbitrary number: the lock that upgrading programs take on PostgreSQL


@dataclass(frozen=True, slots=True)
class Migrations:
    """Where the revisions lie and which one is the newest."""

    scripts: Path = SCRIPTS
    head: str = HEAD


def current(connection: Connection) -> str | None:
    """The revision of this database; None where it holds no store of ours."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return found


def glance(engine: Engine, url: URL) -> str | None:
    """The revision, without waiting for anybody. StoreError where the tables are somebody else's."""
    with engine.connect() as connection, connection.begin():
        found = current(connection)
        if found is None:
            _refuse_strangers(connection, url)
        return found


def prepare(
    engine: Engine, url: URL, *, create: bool, to: Migrations | None = None, said: Callable[[str], None] = log.info
) -> str | None:
    """Bring the schema to the newest revision; the one it had before."""
    migrations = to or Migrations()
    with engine.connect() as connection, connection.begin():
        before = current(connection)
        if before == migrations.head:
            return before
        if engine.dialect.name == "postgresql":
            check_server(connection, url)
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY})
            before = current(connection)  # another program may have been faster
            if before == migrations.head:
                return before
        if before is None and not create:
            raise StoreError(
                f"There is no store in {shown(url)}", "Check the address, or start fleetui once to make it"
            )
        if before is None:
            _refuse_strangers(connection, url)
        elif not _knows(migrations, before):
            raise StoreError(
                f"The store {shown(url)} was written by a newer FleetUI (schema {before}; "
                f"this one knows up to {migrations.head})",
                "Install that version or a newer one; a store is never downgraded",
            )
        else:
            _copy_aside(url, before, said)
        _upgrade(connection, migrations)
        if before is not None:
            said(f"The store {shown(url)} was upgraded from schema {before} to {migrations.head}")
        return before


def upgrade_to(connection: Connection, revision: str, migrations: Migrations | None = None) -> None:
    """Run the revisions up to this one inside the transaction that is open."""
    _upgrade(connection, migrations or Migrations(), revision)


def is_known(revision: str) -> bool:
    return _knows(Migrations(), revision)


def _config(migrations: Migrations) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations.scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(connection: Connection, migrations: Migrations, revision: str = "head") -> None:
    from alembic import command

    config = _config(migrations)
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _knows(migrations: Migrations, revision: str) -> bool:
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    try:
        return ScriptDirectory.from_config(_config(migrations)).get_revision(revision) is not None
    except CommandError:
        return False


def _refuse_strangers(connection: Connection, url: URL) -> None:
    """Somebody else's tables are not a place to make ours."""
    tables = inspect(connection).get_table_names()
    if tables:
        raise StoreError(
            f"{shown(url)} holds {len(tables)} tables of something else ({', '.join(sorted(tables)[:3])} …)",
            "Give FleetUI a database of its own",
        )


def check_server(connection: Connection, url: URL) -> None:
    """Of PostgreSQL: whether it is one that we can use."""
    version = connection.dialect.server_version_info or (0,)
    if version < _MINIMUM_POSTGRES:
        raise StoreError(f"The server of {shown(url)} is PostgreSQL {version[0]}", "Use version 13 or newer")
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        raise StoreError(
            f"The database {shown(url)} has the encoding {encoding}", "Create it with: createdb -E UTF8 NAME"
        )


def _copy_aside(url: URL, before: str, said: Callable[[str], None]) -> None:
    """Copy the SQLite file as it is before the upgrade: this transaction holds the write lock already."""
    file = file_of(url)
    if file is None:
        return
    import sqlite3

    copy = file.with_name(f"{file.name}.schema-{before}")
    partial = copy.with_name(f"{copy.name}.partial")
    partial.unlink(missing_ok=True)
    source = sqlite3.connect(f"file:{_quoted(file)}?mode=ro", uri=True)
    try:
        target = sqlite3.connect(partial)
        try:
            source.backup(target)
        finally:
            target.close()
    except (sqlite3.Error, OSError) as error:
        partial.unlink(missing_ok=True)
        raise StoreError(
            f"The store {file} could not be copied before its upgrade ({error})", "Free some space beside it"
        ) from None
    finally:
        source.close()
    partial.replace(copy)
    said(f"The store as it was before the upgrade lies in {copy}")


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path))
