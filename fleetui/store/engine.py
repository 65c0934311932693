"""Database URLs and connections: what SQLite and PostgreSQL are told when one opens. No queries of ours.

Both databases are used alike: one writing transaction at a time, over all processes, and readers that see a
snapshot and never wait. SQLite is so by nature (WAL, ``BEGIN IMMEDIATE``); on PostgreSQL a writer locks the row
of ``change_head`` first (:data:`LOCK`), so there are no deadlocks and no serialization failures to think about.

Durability is full (a commit is on the disk): the station acknowledges reports to the broker after it, and a
power cut must not lose what was acknowledged. At a few commits a second that costs little.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from fleetui.common.domain.errors import StoreError

BUSY_MS = 4_000
_POSTGRES = "postgresql+psycopg"
_MINIMUM_SQLITE = (3, 35, 0)  # RETURNING

# Taken first by every writing transaction on PostgreSQL; also names the transaction, so that its fate can be
# asked for when the connection breaks during its commit.
LOCK = text("SELECT pg_current_xact_id()::text FROM change_head WHERE id = 1 FOR UPDATE")


def parse(url: str) -> URL:
    """The URL of a store, with the driver that is used for it."""
    fix = "Write sqlite:///PATH, or postgresql://USER@HOST/DATABASE"
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError(f"{url!r} is not the address of a store", fix) from None
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise StoreError("A store in memory cannot be shared between programs", "Name a file: sqlite:///PATH")
        return parsed.set(drivername="sqlite", database=str(Path(parsed.database).expanduser().absolute()))
    if kind == "postgresql":
        return parsed.set(drivername=_POSTGRES)
    raise StoreError(f"{kind!r} is not a database that FleetUI can use", fix)


def shown(url: URL) -> str:
    """For sentences: without the password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.set(drivername="postgresql").render_as_string(hide_password=True)


def file_of(url: URL) -> Path | None:
    """The database's file, where it is one."""
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def make(url: URL, *, writes: bool) -> Engine:
    """An engine for writing transactions or for read-only snapshots."""
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, writes=writes)
    return _postgres(url, writes=writes)


def _sqlite(url: URL, *, writes: bool) -> Engine:
    if sqlite3.sqlite_version_info < _MINIMUM_SQLITE:
        raise StoreError(
            f"This Python brings SQLite {sqlite3.sqlite_version}", "Use a Python with SQLite 3.35 or newer"
        )
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_MS / 1000, "check_same_thread": False, "cached_statements": 256},
        pool_size=1 if writes else 4,
        max_overflow=0 if writes else 12,
        pool_timeout=30,
    )

    def connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver's guess
        try:
            cursor = connection.cursor()
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("PRAGMA temp_store=MEMORY")
            cursor.execute(f"PRAGMA cache_size={-65_536 if writes else -16_384}")
            cursor.execute("PRAGMA journal_size_limit=67108864")
            if not writes:
                cursor.execute("PRAGMA query_only=ON")
            cursor.close()
        except sqlite3.Error:
            connection.close()
            raise

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
    return engine


def _postgres(url: URL, *, writes: bool) -> Engine:
    settings = {
        "lock_timeout": f"{BUSY_MS}ms",
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
    }
    if writes:
        # A writer that hangs, or whose machine is gone, must not keep the others from writing for ever.
        settings["idle_in_transaction_session_timeout"] = "60s"
    try:
        engine = create_engine(
            url,
            connect_args={
                "connect_timeout": 5,
                "application_name": "fleetui",
                "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
            },
            pool_size=1 if writes else 4,
            max_overflow=0 if writes else 12,
            pool_timeout=30,
            pool_pre_ping=not writes,
            isolation_level="READ COMMITTED" if writes else "REPEATABLE READ",
        )
    except ModuleNotFoundError:
        raise StoreError(
            "A store in PostgreSQL needs psycopg, which is not installed", "Install fleetui[postgres]"
        ) from None
    return engine if writes else engine.execution_options(postgresql_readonly=True)


def set_up_file(engine: Engine) -> None:
    """Of SQLite: write-ahead logging, and shrinking by and by. Both stand in the file and are set up once."""
    pause = threading.Event()
    for last in [False] * 40 + [True]:
        try:
            mode = _set_up_once(engine)
            break
        except sqlite3.Error as error:
            # Programs that start at once get in each other's way here, and SQLite does not wait by itself.
            if last or getattr(error, "sqlite_errorcode", 0) & 0xFF not in {
                sqlite3.SQLITE_BUSY,
                sqlite3.SQLITE_LOCKED,
            }:
                # Raised by the driver itself, so it has to be dressed for faults.translate().
                raise DBAPIError(None, None, error) from None
            pause.wait(0.05)
    if mode != "wal":
        raise StoreError("The store's folder does not allow SQLite's write-ahead log", "Put it on a local disk")


def _set_up_once(engine: Engine) -> str:
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        mode = cursor.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")  # only takes hold in an empty file
            mode = cursor.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        cursor.close()
    finally:
        raw.close()
    return str(mode)
