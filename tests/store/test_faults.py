"""What can go wrong with a database, and what is said about it. Nothing that was committed is lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, func, inspect, select, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from fleetui.common.domain.clock import ManualClock
from fleetui.common.domain.errors import StoreError
from fleetui.store import counters, devices, engine, events, faults, feed, ingest, integrity, schema, series, tables
from fleetui.store.records import METRICS, Batch, DeviceRow, EventRow, Sample
from fleetui.store.store import Store
from tests.helpers.store import PostgresServer, dropped, fresh_url
from tests.helpers.wait import wait_until
from tests.store.history import fill
from tests.store.processes import Started

CLOCK = ManualClock()


# -------------------------------------------------------------------------------------------- killed


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(2))
def test_a_killed_writer_leaves_what_it_committed_and_nothing_half(store: Store, store_url: str, seed: int) -> None:
    """Killed at a random moment, three times in a row; each batch is a device, an event, a sample and a count."""
    generator = random.Random(seed)
    for life in range(3):
        name = f"life{life}"
        process = Started(store_url, "write_batches", name, 100_000)
        lines = [process.line() for _ in range(generator.randint(1, 60))]
        os.kill(process.process.pid, signal.SIGKILL)
        said = int((lines + process.rest())[-1])
        assert process.process.exitcode == -signal.SIGKILL
        with Store.open(store_url, clock=CLOCK) as opened, opened.read() as connection:
            assert integrity.check(connection) == []
            written = devices.get(connection, name).last_seq
            assert written >= said, "what was said to be committed is there"
            found = events.read(connection, device=name, limit=1_000_000)
            assert sorted(e.report_seq for e in found) == list(range(written + 1))
            assert series.read(connection, name, "cpu", -1, 1e9).count.sum() == written + 1
            assert counters.all(connection)[name] == written + 1
    # And this process, which had it open all the while, sees the same and can write.
    store.write(lambda c: ingest.write(c, Batch(devices={"after": DeviceRow("after")})))
    with store.read() as connection:
        assert len(feed.read(connection, 0, limit=1_000_000).events) >= 3


@pytest.mark.postgres
def test_a_writer_that_hangs_loses_its_lock(
    postgres: PostgresServer, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The server ends its session, others write, and when it wakes up its work is run again."""
    url = fresh_url(request.config, "postgresql", tmp_path)
    entered, wake = threading.Event(), threading.Event()
    runs: list[int] = []

    def hang(connection: Connection) -> None:
        runs.append(1)
        entered.set()
        assert wake.wait(20)
        counters.add(connection, {"hung": 1})

    with (
        dropped(request.config, url),
        Store.open(url, clock=CLOCK) as store,
        Store.open(url, clock=CLOCK) as hanging,
    ):
        hanging.write(lambda c: c.execute(text("SET SESSION idle_in_transaction_session_timeout = '200ms'")))
        future = hanging.submit(hang)
        assert entered.wait(10)
        store.write(lambda c: counters.add(c, {"other": 1}))
        wake.set()
        future.result(20)
        with store.read() as connection:
            assert counters.all(connection) == {"hung": 1, "other": 1}
    assert len(runs) == 2


# -------------------------------------------------------------------------------------------- full


def test_a_full_disk_is_said_and_nothing_is_lost(sqlite_store: Store) -> None:
    """SQLite's own limit of pages stands in for the disk's: it fails at the same places with the same code."""
    sqlite_store.write(lambda c: ingest.write(c, Batch(devices={"d": DeviceRow("d", last_seq=1)})))

    def pages(connection: object) -> int:
        return connection.exec_driver_sql("PRAGMA page_count").scalar_one()

    limit = sqlite_store.write(pages) + 10
    sqlite_store.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={limit}"))
    samples = [Sample("d", float(i), (0.5,) * len(METRICS)) for i in range(5_000)]
    with pytest.raises(StoreError, match="full") as caught:
        sqlite_store.write(lambda c: ingest.write(c, Batch(samples=samples)))
    assert "Free some space" in caught.value.fix
    # A small change still fits, together with one that does not.
    futures = [
        sqlite_store.submit(lambda c: counters.add(c, {"n": 1})),
        sqlite_store.submit(lambda c: ingest.write(c, Batch(samples=samples))),
        sqlite_store.submit(lambda c: counters.add(c, {"n": 1})),
    ]
    assert futures[0].exception(10) is None
    assert isinstance(futures[1].exception(10), StoreError)
    assert futures[2].exception(10) is None
    sqlite_store.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count=1000000"))
    sqlite_store.write(lambda c: ingest.write(c, Batch(samples=samples)))
    with sqlite_store.read() as connection:
        assert integrity.check(connection) == []
        assert counters.all(connection) == {"n": 2}
        assert connection.execute(select(func.count()).select_from(tables.sample)).scalar_one() == 5_000


# -------------------------------------------------------------------------------------------- damaged


def a_file(tmp_path: Path, rows: int = 20_000) -> Path:
    path = tmp_path / "store.db"
    with Store.open(f"sqlite:///{path}", clock=CLOCK) as store:
        fill(store)
        said = [EventRow(float(i), "k", 1, "x" * 50, source="station") for i in range(rows)]
        numbers = {"": 0}
        store.write(lambda c: events.write(c, said, numbers, feed.head(c) + 1))
        store.write(lambda c: c.execute(text("UPDATE change_head SET seq = seq + :n"), {"n": rows}))
    return path


def test_a_damaged_file_is_said_at_the_start_with_what_to_do(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 4096 * 3] = os.urandom(4096 * 3)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged") as caught:
        Store.open(f"sqlite:///{path}", clock=CLOCK)
    assert "fleetui store restore" in caught.value.fix


def test_in_a_large_file_only_the_precious_tables_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_file(tmp_path)
    monkeypatch.setattr(integrity, "SMALL_BYTES", 10_000)
    Store.open(f"sqlite:///{path}", clock=CLOCK).close()
    with sqlite3.connect(path) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'device'").fetchone()
    connection.close()
    data = bytearray(path.read_bytes())
    data[(root - 1) * 4096 : root * 4096] = os.urandom(4096)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        Store.open(f"sqlite:///{path}", clock=CLOCK)


def test_what_is_no_database_is_said(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_text("a text that somebody put here " * 50)
    with pytest.raises(StoreError, match="damaged"):
        Store.open(f"sqlite:///{path}", clock=CLOCK)
    assert path.read_text().startswith("a text"), "and it is left alone"


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}", clock=CLOCK) as store, store.read() as connection:
        assert integrity.check(connection) == []


def test_the_full_check_finds_what_does_not_fit_together(own_url: str) -> None:
    with Store.open(own_url, clock=CLOCK) as store:
        _check_all(store)


def _check_all(store: Store) -> None:
    fill(store)
    with store.read() as connection:
        assert integrity.check(connection) == []
    store.write(lambda c: c.execute(text("UPDATE device SET seq = 1000000 WHERE device = 'dev-0'")))
    store.write(lambda c: c.execute(text("DELETE FROM word WHERE word = 'counter'")))
    store.write(lambda c: c.execute(text("UPDATE change_head SET devices = 2")))
    steps: list[str] = []
    with store.read() as connection:
        problems = integrity.check(connection, steps.append)
    assert [problem.split(":")[0] for problem in problems] == [
        "no device was written after the last change",
        "no device number beyond the last given",
        "every window's words are known",
    ]
    assert len(steps) >= 9
    store.write(lambda c: c.execute(text("DROP TABLE counter")))
    with store.read() as connection:
        assert "the table counter is missing" in integrity.check(connection)


# -------------------------------------------------------------------------------------------- places


def test_a_store_that_is_not_there_is_not_made_unless_asked(empty_url: str) -> None:
    with pytest.raises(StoreError, match="There is no store"):
        Store.open(empty_url, clock=CLOCK, create=False)
    Store.open(empty_url, clock=CLOCK).close()
    Store.open(empty_url, clock=CLOCK, create=False).close()


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        Store.open(f"sqlite:///{tmp_path / 'nowhere' / 'x.db'}", clock=CLOCK)


def test_somebody_elses_tables_are_left_alone(empty_url: str) -> None:
    made = engine.make(engine.parse(empty_url), writes=True)
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE recipes (name TEXT)"))
    with pytest.raises(StoreError, match="something else"):
        Store.open(empty_url, clock=CLOCK)
    with made.begin() as connection:
        assert inspect(connection).get_table_names() == ["recipes"]
    made.dispose()


@pytest.mark.postgres
def test_what_is_said_where_postgresql_does_not_let_us_in(postgres: PostgresServer) -> None:
    with pytest.raises(StoreError, match="cannot be reached"):
        Store.open("postgresql://fleetui@/x?host=/nowhere", clock=CLOCK)
    with pytest.raises(StoreError, match="does not exist") as caught:
        Store.open(postgres.url("no_such_database"), clock=CLOCK)
    assert "createdb" in caught.value.fix
    with pytest.raises(StoreError, match="refused the login"):
        Store.open(postgres.url("postgres").replace("fleetui@", "nobody:secret@"), clock=CLOCK)


@pytest.mark.postgres
def test_a_database_of_another_encoding_is_refused(postgres: PostgresServer) -> None:
    with postgres.connect() as connection:
        connection.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1'")
    with pytest.raises(StoreError, match="encoding LATIN1"):
        Store.open(postgres.url("latin"), clock=CLOCK)
    postgres.drop(postgres.url("latin"))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_BUSY, "locked by another program"),
        (sqlite3.SQLITE_LOCKED, "locked by another program"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "locked by another program"),
        (sqlite3.SQLITE_FULL, "full"),
        (sqlite3.SQLITE_CORRUPT, "damaged"),
        (sqlite3.SQLITE_NOTADB, "damaged"),
        (sqlite3.SQLITE_READONLY, "cannot be written"),
        (sqlite3.SQLITE_CANTOPEN, "cannot be opened"),
        (sqlite3.SQLITE_IOERR_WRITE, "disk failed"),
        (sqlite3.SQLITE_NOMEM, "not enough memory"),
    ],
)
def test_each_trouble_of_sqlite_has_a_sentence(code: int, words: str) -> None:
    driver = sqlite3.OperationalError("in SQLite's words")
    driver.sqlite_errorcode = code
    found = faults.translate(OperationalError(None, None, driver), engine.parse("sqlite:////x.db"))
    assert isinstance(found, StoreError)
    assert words in found.sentence
    assert found.fix


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("28P01", "refused the login"),
        ("3D000", "does not exist"),
        ("42501", "does not allow this"),
        ("25006", "read-only"),
        ("53300", "no connection left"),
        ("53100", "out of disk or memory"),
        ("55P03", "locked by another program"),
        ("40P01", "locked by another program"),
        ("XX001", "damaged"),
        ("57P03", "cannot be reached"),
        ("08006", "cannot be reached"),
    ],
)
def test_each_trouble_of_postgresql_has_a_sentence(state: str, words: str) -> None:
    driver = psycopg.errors.lookup(state)("in PostgreSQL's words")
    found = faults.translate(OperationalError(None, None, driver), engine.parse("postgresql://me@host/db"))
    assert isinstance(found, StoreError)
    assert words in found.sentence
    assert found.fix


def test_mistakes_of_our_own_are_not_dressed_up() -> None:
    url = engine.parse("sqlite:////x.db")
    ours: list[Exception] = [
        LookupError("ours"),
        ProgrammingError(None, None, sqlite3.OperationalError("no such table: x")),
        ProgrammingError(None, None, psycopg.errors.UndefinedTable("x")),
    ]
    for error in ours:
        assert faults.translate(error, url) is error
        assert not faults.is_retryable(error)


# -------------------------------------------------------------------------------------------- schema

NEXT = """
from alembic import op
import sqlalchemy as sa

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("device", sa.Column("colour", sa.Text(), nullable=False, server_default=sa.text("'grey'")))
    {more}
"""


def later(tmp_path: Path, more: str = "") -> schema.Migrations:
    """The migrations of a later version of this program."""
    scripts = tmp_path / "migrations"
    shutil.copytree(schema.SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions" / "v0003_colour.py").write_text(NEXT.format(more=more))
    return schema.Migrations(scripts, "0003")


def upgrade(url: str, to: schema.Migrations) -> list[str]:
    said: list[str] = []
    made = engine.make(engine.parse(url), writes=True)
    try:
        schema.prepare(made, engine.parse(url), create=False, to=to, said=said.append)
    finally:
        made.dispose()
    return said


def test_the_newest_revision_is_the_one_that_is_asked_for() -> None:
    from alembic.script import ScriptDirectory

    assert ScriptDirectory.from_config(schema._config(schema.Migrations())).get_heads() == [schema.HEAD]


def test_the_migrated_schema_is_the_model(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store.read() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, tables.METADATA) == []
        assert schema.current(connection) == schema.HEAD


def test_the_migrated_tables_have_their_key_as_their_order(sqlite_store: Store) -> None:
    """Alembic does not compare this: tables that are their own index on SQLite."""
    with sqlite_store.read() as connection:
        rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'table'")).all()
    found = {name for name, sql in rows if "WITHOUT ROWID" in sql}
    assert found == {
        name for name, t in tables.METADATA.tables.items() if not t.dialect_options["sqlite"]["with_rowid"]
    }


def test_an_upgrade_keeps_everything(own_url: str, tmp_path: Path) -> None:
    with Store.open(own_url, clock=CLOCK) as store:
        fill(store)
    said = upgrade(own_url, later(tmp_path))
    assert any("upgraded from schema 0002 to 0003" in line for line in said)
    made = engine.make(engine.parse(own_url), writes=True)
    with made.begin() as connection:
        assert connection.execute(text("SELECT DISTINCT colour FROM device")).scalars().all() == ["grey"]
        assert connection.execute(text("SELECT count(*) FROM device")).scalar_one() == 4
    made.dispose()
    if own_url.startswith("sqlite"):
        copy = Path(f"{own_url.removeprefix('sqlite:///')}.schema-0002")
        assert any(str(copy) in line for line in said)
        with Store.open(f"sqlite:///{copy}", clock=CLOCK) as before, before.read() as connection:
            assert len(devices.all(connection)) == 4
    assert upgrade(own_url, schema.Migrations(tmp_path / "migrations", "0003")) == []


def test_an_upgrade_that_fails_leaves_it_as_it_was(own_url: str, tmp_path: Path) -> None:
    with Store.open(own_url, clock=CLOCK) as store:
        fill(store)
    with pytest.raises(Exception, match="no_such_table"):
        upgrade(own_url, later(tmp_path, more='op.execute("INSERT INTO no_such_table VALUES (1)")'))
    with Store.open(own_url, clock=CLOCK) as store, store.read() as connection:
        assert schema.current(connection) == "0002"
        assert len(devices.all(connection)) == 4
        assert "colour" not in {column["name"] for column in inspect(connection).get_columns("device")}


def test_a_newer_store_is_refused_and_left_alone(own_url: str, tmp_path: Path) -> None:
    upgrade(own_url, later(tmp_path))
    for _ in range(2):
        with pytest.raises(
            StoreError, match="newer FleetUI \\(schema 0003; this one knows up to 0002\\)"
        ) as caught:
            Store.open(own_url, clock=CLOCK)
        assert "never downgraded" in caught.value.fix


def test_there_is_no_way_down() -> None:
    for path in (schema.SCRIPTS / "versions").glob("v*.py"):
        assert "def downgrade" not in path.read_text(), path


def test_several_programs_that_start_at_once_make_one_store(empty_url: str) -> None:
    started = [Started(empty_url, "say_schema") for _ in range(4)]
    for process in started:
        assert process.finish() == [schema.HEAD]
    with Store.open(empty_url, clock=CLOCK, create=False) as store, store.read() as connection:
        assert integrity.check(connection) == []


def test_one_makes_the_store_and_the_others_wait(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = schema._upgrade
    entered, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    def slow(*arguments: object) -> None:
        calls.append(1)
        entered.set()
        assert go_on.wait(10)
        real(*arguments)

    monkeypatch.setattr(schema, "_upgrade", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: Store.open(empty_url, clock=CLOCK).close())
        assert entered.wait(10)
        second = pool.submit(lambda: Store.open(empty_url, clock=CLOCK).close())
        assert not wait([second], 0.3).done
        go_on.set()
        first.result(20)
        second.result(20)
    assert calls == [1]


def test_a_store_that_is_current_needs_no_alembic(tmp_path: Path) -> None:
    import subprocess
    import sys

    url = f"sqlite:///{tmp_path / 'x.db'}"
    Store.open(url, clock=CLOCK).close()
    program = (
        "import sys; from fleetui.store.store import Store; from fleetui.common.domain.clock import SystemClock;"
        f"Store.open({url!r}, clock=SystemClock()).close(); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_waiting_for_a_lock_ends(sqlite_store: Store) -> None:
    """That a helper of these tests works: a condition that never comes true is reported."""
    with pytest.raises(AssertionError, match="did not come true"):
        wait_until(lambda: False, timeout=0.05)
