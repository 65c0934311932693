"""Backups: one file, the same from SQLite and from PostgreSQL, so that one restores into the other.

Taken while everything runs: it is one snapshot. The file is a line of magic, then frames of zlib-compressed
MessagePack (a header, rows by table, an end), then the SHA-256 of all that. Nothing is restored before that has
been checked. A restore is one transaction: it is there whole, or not at all.

Where it replaces a store that desks are watching, every row gets a change number beyond those they have seen, and
what is gone gets a tombstone, so they show the restored state without being told.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from sqlalchemy import URL, Connection, Engine, MetaData, Table, func, inspect, select, text
from sqlalchemy.exc import DBAPIError

from fleetui import __version__
from fleetui.common.domain.clock import Clock
from fleetui.common.domain.errors import StoreError
from fleetui.store import engine as engines
from fleetui.store import faults, schema
from fleetui.store.compiled import insert
from fleetui.store.store import Store
from fleetui.store.tables import METADATA, lease

MAGIC = b"FLEETUI-BACKUP 1\n"
_LENGTH = struct.Struct(">I")
_DIGEST = hashlib.sha256().digest_size
_ROWS = 5_000
_MOST = 256 * 1024 * 1024  # bytes of one frame, unpacked: more is not ours
# Columns that hold change numbers, by which readers follow.
_SEQS = frozenset({"seq", "arrived"})

Progress = Callable[[str, int, int], None]  # table, rows done, rows in all


def _quiet(table: str, done: int, total: int) -> None:
    """Say nothing."""


class BackupInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The header of a backup."""

    schema: str
    program: str
    dialect: str
    at: float
    counts: dict[str, int]

    @property
    def rows(self) -> int:
        return sum(self.counts.values())


class _Rows(msgspec.Struct, frozen=True):
    table: str
    columns: tuple[str, ...]
    rows: list[list[Any]]


# ------------------------------------------------------------------------------------------------ writing


def backup(store: Store, path: Path, *, progress: Progress = _quiet) -> BackupInfo:
    """Write a backup to ``path``; what was there is replaced once the new one is whole."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        try:
            with partial.open("wb") as file:
                info = _write(store, file, progress)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"The backup {path} could not be written: {error.strerror or error}", "Choose another place"
        ) from None
    return info


class _Sum:
    """Writes frames, and adds up what is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sum = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._sum.update(data)
        self._file.write(data)

    def frame(self, content: Any) -> None:
        packed = zlib.compress(msgspec.msgpack.encode(content), 1)
        self.write(_LENGTH.pack(len(packed)) + packed)

    def end(self) -> None:
        self.write(_LENGTH.pack(0))
        self._file.write(self._sum.digest())


def _write(store: Store, file: BinaryIO, progress: Progress) -> BackupInfo:
    out = _Sum(file)
    out.write(MAGIC)
    with store.read() as connection:
        counts = {
            str(table.name): connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in METADATA.sorted_tables
        }
        info = BackupInfo(
            schema=schema.HEAD, program=__version__, dialect=store.dialect, at=store.clock.now(), counts=counts
        )
        out.frame(info)
        done = 0
        for table in METADATA.sorted_tables:
            progress(table.name, done, info.rows)
            columns = tuple(str(column.name) for column in table.columns)
            found = connection.execution_options(yield_per=_ROWS).execute(select(*table.columns))
            for part in found.partitions(_ROWS):
                out.frame(_Rows(str(table.name), columns, [list(row) for row in part]))
                done += len(part)
                progress(table.name, done, info.rows)
    out.end()
    return info


# ------------------------------------------------------------------------------------------------ reading


def verify(path: Path) -> BackupInfo:
    """The header, once the whole file is found to be as it was written."""
    damaged = StoreError(f"The backup {path} is damaged or not complete", "Use another one")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise StoreError(
                    f"{path} is not a backup of FleetUI", "Name a file that 'fleetui store backup' wrote"
                )
            file.seek(0)
            left = size - _DIGEST
            total = hashlib.sha256()
            while left > 0 and (data := file.read(min(left, 1 << 20))):
                total.update(data)
                left -= len(data)
            if left or file.read() != total.digest():
                raise damaged
    except OSError as error:
        raise StoreError(f"The backup {path} cannot be read: {error.strerror or error}", "Check the path") from None
    try:
        return msgspec.convert(next(_frames(path)), BackupInfo)
    except (StopIteration, msgspec.MsgspecError, zlib.error):
        raise damaged from None


def _frames(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        file.seek(len(MAGIC))
        while (length := _LENGTH.unpack(file.read(_LENGTH.size))[0]) > 0:
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(file.read(length), _MOST)
            if unpacker.unconsumed_tail:
                raise msgspec.ValidationError("a frame is larger than any that is written")
            yield msgspec.msgpack.decode(data)


# ------------------------------------------------------------------------------------------------ restoring


def restore(path: Path, url: str, *, clock: Clock, force: bool = False, progress: Progress = _quiet) -> BackupInfo:
    """Put a backup in place of the store at ``url``; without ``force`` only where there is nothing yet.

    Refused while a station leads there: it would write what it remembers of the old state over the restored one.
    """
    info = verify(path)
    if not schema.is_known(info.schema):
        raise StoreError(
            f"The backup {path} was written by a newer FleetUI (schema {info.schema}; this one knows up to "
            f"{schema.HEAD})",
            "Install that version or a newer one",
        )
    target = engines.parse(url)
    for last in (False, True):
        engine = engines.make(target, writes=True)
        try:
            _into(engine, target, path, info, clock=clock, force=force, progress=progress)
            break
        except DBAPIError as error:
            damaged = faults.sqlite_code(error.orig) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
            if not (damaged and force) or last:
                raise faults.translate(error, target) from None
        finally:
            engine.dispose()
        _set_aside(target)
    # Opening it brings an older schema up to date, and sets up what stands in an SQLite file.
    Store.open(url, clock=clock).close()
    return info


def _into(
    engine: Engine, target: URL, path: Path, info: BackupInfo, *, clock: Clock, force: bool, progress: Progress
) -> None:
    file = engines.file_of(target)
    if file is not None and not file.parent.is_dir():
        raise StoreError(f"The folder {file.parent} does not exist", "Create it, or choose another place")
    if file is not None:
        engines.set_up_file(engine)
    with engine.connect() as connection, connection.begin():
        if file is None:
            schema.check_server(connection, target)
        before = _before(connection, target, clock.now(), force=force)
        _drop(connection)
        schema.upgrade_to(connection, info.schema)
        tables = MetaData()
        tables.reflect(connection)
        for table in tables.sorted_tables:
            if table.name != "alembic_version":
                connection.execute(table.delete())  # the rows a new store begins with
        done = 0
        for frame in _frames(path):
            if "table" not in frame:
                continue  # the header
            part = msgspec.convert(frame, _Rows)
            _enter(connection, tables.tables[part.table], part, before.seq)
            done += len(part.rows)
            progress(part.table, done, info.rows)
        _bury(connection, before)


@dataclass(frozen=True, slots=True)
class _Before:
    """What readers of the replaced store have seen."""

    seq: int = 0
    restored: int = 0
    devices: frozenset[str] = frozenset()
    views: frozenset[str] = frozenset()
    terms: Mapping[str, int] = field(default_factory=dict)


def _before(connection: Connection, target: URL, now: float, *, force: bool) -> _Before:
    there = set(inspect(connection).get_table_names())
    strange = there - METADATA.tables.keys() - {"alembic_version"}
    if strange:
        raise StoreError(
            f"{engines.shown(target)} holds tables of something else ({', '.join(sorted(strange)[:3])} …)",
            "Give FleetUI a database of its own",
        )
    if "change_head" not in there:
        return _Before()
    seq = connection.execute(text("SELECT seq FROM change_head")).scalar_one()
    if seq and not force:
        devices = connection.execute(text("SELECT count(*) FROM device")).scalar_one()
        raise StoreError(
            f"The store {engines.shown(target)} is in use: it knows {devices} devices",
            "Restore somewhere else, or replace it with --force",
        )
    leading = connection.execute(
        text("SELECT name, holder FROM lease WHERE expires > :now ORDER BY name"), {"now": now}
    ).first()
    if leading is not None:
        raise StoreError(f"A station ({leading.holder}) is working on {engines.shown(target)}", "Stop it first")
    return _Before(
        seq,
        connection.execute(text("SELECT restored FROM change_head")).scalar_one() + 1,
        frozenset(connection.execute(text("SELECT device FROM device")).scalars()),
        frozenset(connection.execute(text("SELECT id FROM saved_view")).scalars()),
        dict(connection.execute(select(lease.c.name, lease.c.term)).all()),
    )


def _drop(connection: Connection) -> None:
    there = MetaData()
    there.reflect(connection)
    there.drop_all(connection)


def _enter(connection: Connection, table: Table, part: _Rows, seq: int) -> None:
    shifted = [i for i, name in enumerate(part.columns) if name in _SEQS]
    if seq and shifted:
        for row in part.rows:
            for i in shifted:
                row[i] += seq
    if connection.dialect.name == "postgresql":
        names = ", ".join(f'"{name}"' for name in part.columns)
        cursor: Any = connection.connection.cursor()  # psycopg's own: SQLAlchemy does not know COPY
        with cursor, cursor.copy(f'COPY "{table.name}" ({names}) FROM STDIN') as copy:
            for row in part.rows:
                copy.write_row(row)
    else:
        insert(table, part.columns).many(connection, [tuple(row) for row in part.rows])


def _bury(connection: Connection, before: _Before) -> None:
    """Tombstones for what readers know and the backup does not; and the head beyond all of it.

    Nobody leads in a restored store, and terms go on from the highest that either had.
    """
    connection.execute(text("UPDATE change_head SET restored = :n"), {"n": before.restored})
    connection.execute(text("UPDATE lease SET expires = 0"))
    for name, term in before.terms.items():
        connection.execute(
            text("UPDATE lease SET term = :term WHERE name = :name AND term < :term"), {"name": name, "term": term}
        )
    kinds = (
        ("device", before.devices, "SELECT device FROM device"),
        ("view", before.views, "SELECT id FROM saved_view"),
    )
    for kind, known, question in kinds:
        gone = sorted(known - set(connection.execute(text(question)).scalars()))
        if not gone:
            continue
        connection.execute(text("UPDATE change_head SET seq = seq + :n"), {"n": len(gone)})
        head = connection.execute(text("SELECT seq FROM change_head")).scalar_one()
        connection.execute(
            text("DELETE FROM tombstone WHERE kind = :kind AND name = :name"),
            [{"kind": kind, "name": name} for name in gone],
        )
        connection.execute(
            text("INSERT INTO tombstone (kind, name, seq) VALUES (:kind, :name, :seq)"),
            [{"kind": kind, "name": name, "seq": head - i} for i, name in enumerate(gone)],
        )


def _set_aside(target: URL) -> None:
    """Move a damaged SQLite file out of the way; somebody may yet want to look at it."""
    file = engines.file_of(target)
    assert file is not None
    aside = next(path for i in range(1, 1_000) if not (path := file.with_name(f"{file.name}.damaged-{i}")).exists())
    try:
        file.replace(aside)
        for ending in ("-wal", "-shm"):
            file.with_name(file.name + ending).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"The damaged store {file} cannot be moved: {error.strerror or error}", "Move it yourself"
        ) from None
