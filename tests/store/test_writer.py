"""The writing thread: order, transactions shared and apart, retries, broken connections, closing."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import Future
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.event import listen

from fleetui.common.domain.clock import ManualClock
from fleetui.common.domain.errors import BugError, StoreError
from fleetui.store import counters, engine, faults, sequence, writer
from fleetui.store.store import Store
from tests.helpers.store import PostgresServer
from tests.helpers.wait import wait_until


def add(name: str, amount: int = 1):
    return lambda connection: counters.add(connection, {name: amount})


def all_counters(store: Store) -> dict[str, int]:
    with store.read() as connection:
        return counters.all(connection)


class Gate:
    """A work that keeps the writer until it is let through, so that what follows waits together."""

    def __init__(self, store: Store) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        self.future: Future[None] = store.submit(self.work)
        assert self.entered.wait(10)

    def work(self, _: Connection) -> None:
        self.entered.set()
        assert self.open.wait(10)


def test_write_gives_back_what_the_work_returns(store: Store) -> None:
    assert store.write(lambda c: c.execute(text("SELECT 41 + 1")).scalar_one()) == 42


def test_works_run_in_the_order_they_came(store: Store) -> None:
    seen: list[int] = []
    futures = [store.submit(lambda _, i=i: seen.append(i)) for i in range(300)]
    for future in futures:
        future.result(10)
    assert seen == list(range(300))


def test_works_that_wait_together_share_a_commit(store: Store) -> None:
    commits: list[object] = []
    listen(store._writing, "commit", commits.append)
    gate = Gate(store)
    drawn = [store.submit(sequence.next_seq) for _ in range(20)]
    gate.open.set()
    assert [future.result(10) for future in drawn] == list(range(1, 21))
    assert len(commits) == 1


def test_one_that_fails_takes_nothing_else_with_it(store: Store) -> None:
    def bad(connection: Connection) -> None:
        counters.add(connection, {"bad": 1})
        connection.execute(text("SELECT * FROM no_such_table"))

    def worse(connection: Connection) -> None:
        counters.add(connection, {"bad": 1})
        raise LookupError("ours")

    gate = Gate(store)
    good = [store.submit(add("good"))]
    failing = [store.submit(bad)]
    good.append(store.submit(add("good")))
    failing.append(store.submit(worse))
    good.append(store.submit(add("good")))
    gate.open.set()
    for future in good:
        future.result(10)
    assert "no_such_table" in str(failing[0].exception(10))
    assert isinstance(failing[1].exception(10), LookupError)
    assert all_counters(store) == {"good": 3}


def test_a_failing_first_work_leaves_nothing(store: Store) -> None:
    def bad(connection: Connection) -> None:
        counters.add(connection, {"bad": 1})
        raise LookupError("ours")

    with pytest.raises(LookupError):
        store.write(bad)
    store.write(add("good"))
    assert all_counters(store) == {"good": 1}


def test_a_work_that_nobody_waits_for_any_more_is_not_run(store: Store) -> None:
    gate = Gate(store)
    given_up = store.submit(add("given up"))
    kept = store.submit(add("kept"))
    assert given_up.cancel()
    gate.open.set()
    kept.result(10)
    assert all_counters(store) == {"kept": 1}


def test_a_future_is_done_only_when_others_can_see_it(store: Store, store_url: str) -> None:
    with Store.open(store_url, clock=ManualClock()) as other:
        for i in range(1, 30):
            store.write(add("n"))
            assert all_counters(other) == {"n": i}


def test_readers_do_not_wait_and_keep_their_snapshot(store: Store) -> None:
    store.write(add("n"))
    with store.read() as connection:
        gate = Gate(store)
        assert counters.all(connection) == {"n": 1}
        gate.open.set()
        store.write(add("n"))
        assert counters.all(connection) == {"n": 1}
    assert all_counters(store) == {"n": 2}


def test_a_snapshot_begins_with_read_not_with_its_first_question(store: Store) -> None:
    with store.read() as connection:
        store.write(add("n"))
        assert counters.all(connection) == {}


def test_reading_connections_cannot_write(store: Store) -> None:
    with store.read() as connection, pytest.raises(Exception, match=r"(?i)read-?only") as caught:
        counters.add(connection, {"n": 1})
    assert type(caught.value).__module__.startswith("sqlalchemy")


def test_writing_from_within_a_work_is_a_bug_not_a_deadlock(store: Store) -> None:
    with pytest.raises(BugError):
        store.write(lambda _: store.write(add("n")))


def test_many_threads(store: Store) -> None:
    def work() -> None:
        for _ in range(25):
            store.write(add("n"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all_counters(store) == {"n": 200}


def test_closing_writes_what_waits(store_url: str) -> None:
    store = Store.open(store_url, clock=ManualClock())
    futures = [store.submit(add("n")) for _ in range(100)]
    store.close()
    store.close()
    assert all(future.done() for future in futures)
    with pytest.raises(StoreError, match="closed"):
        store.submit(add("n"))
    with pytest.raises(StoreError, match="closed"), store.read():
        pass
    with Store.open(store_url, clock=ManualClock()) as again:
        assert all_counters(again) == {"n": 100}


def test_the_queue_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "QUEUE", 5)
    monkeypatch.setattr(writer, "_SUBMIT_S", 0.05)
    gate = Gate(store)
    waiting = [store.submit(add("n")) for _ in range(5)]
    with pytest.raises(StoreError, match="cannot keep up"):
        store.submit(add("n"))
    gate.open.set()
    for future in waiting:
        future.result(10)
    assert all_counters(store) == {"n": 5}


def test_a_writer_waits_for_another_process_and_then_writes(store: Store, store_url: str) -> None:
    """Another program holds the write lock for a while: nothing fails, nothing is written twice."""
    holder = _hold(store, store_url)
    future = store.submit(add("n"))
    assert not wait_quietly(future)
    holder()
    future.result(20)
    assert all_counters(store) == {"n": 1}


def wait_quietly(future: Future[None]) -> bool:
    """Whether it is done after a moment."""
    threading.Event().wait(0.2)
    return future.done()


def _hold(store: Store, url: str):
    if store.dialect == "sqlite":
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
    else:
        connection = psycopg.connect(url)
        connection.execute("SELECT * FROM change_head FOR UPDATE")

    def let_go() -> None:
        connection.rollback()
        connection.close()

    return let_go


def test_a_lock_that_stays_becomes_a_sentence(
    store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_PAUSES_S", (0.01,))
    if store.dialect == "sqlite":
        store.write(lambda c: c.exec_driver_sql("PRAGMA busy_timeout=20"))
    else:
        store.write(lambda c: c.execute(text("SET SESSION lock_timeout = '20ms'")))
    holder = _hold(store, store_url)
    try:
        with pytest.raises(StoreError, match="locked by another program"):
            store.write(add("n"))
    finally:
        holder()
    store.write(add("n"))
    assert all_counters(store) == {"n": 1}


def test_the_change_sequence_is_locked_to_the_end_of_a_transaction(store: Store, store_url: str) -> None:
    """Nobody can draw a later number, let alone commit it, while an earlier one is not committed."""
    with Store.open(store_url, clock=ManualClock()) as other:
        gate_open = threading.Event()
        drawn = threading.Event()

        def slow(connection: Connection) -> int:
            number = sequence.next_seq(connection)
            drawn.set()
            assert gate_open.wait(10)
            return number

        first = store.submit(slow)
        assert drawn.wait(10)
        second = other.submit(sequence.next_seq)
        assert not wait_quietly(second)
        with other.read() as connection:
            assert sequence.head(connection) == 0
        gate_open.set()
        assert (first.result(10), second.result(20)) == (1, 2)


def test_numbers_of_a_rolled_back_transaction_are_given_again(store: Store) -> None:
    def draw_and_fail(connection: Connection) -> None:
        sequence.draw(connection, 10, devices=3, words=4)
        raise LookupError("on purpose")

    with pytest.raises(LookupError):
        store.write(draw_and_fail)
    assert store.write(lambda c: sequence.draw(c, 2, devices=1, words=1)) == sequence.Drawn(1, 1, 1)
    assert store.write(lambda c: sequence.draw(c, 1, devices=2, words=3)) == sequence.Drawn(3, 2, 2)


# -------------------------------------------------------------------------------------------- broken connections


@pytest.fixture
def on_postgres(postgres: PostgresServer, request: pytest.FixtureRequest, tmp_path: Path):
    from tests.helpers.store import dropped, fresh_url

    url = fresh_url(request.config, "postgresql", tmp_path)
    with dropped(request.config, url), Store.open(url, clock=ManualClock()) as store:
        yield store, url


@pytest.mark.postgres
def test_a_restarting_server_is_not_noticed(on_postgres: tuple[Store, str], postgres: PostgresServer) -> None:
    store, url = on_postgres
    for i in range(1, 6):
        store.write(add("n"))
        postgres.break_connections(url)
        with store.read() as connection:
            assert counters.all(connection) == {"n": i}


@pytest.mark.postgres
def test_a_connection_that_breaks_within_a_work(on_postgres: tuple[Store, str], postgres: PostgresServer) -> None:
    store, url = on_postgres
    tries = []

    def work(connection: Connection) -> None:
        counters.add(connection, {"n": 1})
        tries.append(1)
        if len(tries) == 1:
            postgres.break_connections(url)
        counters.add(connection, {"m": 1})

    store.write(work)
    assert len(tries) == 2
    assert all_counters(store) == {"n": 1, "m": 1}


@pytest.mark.postgres
@pytest.mark.parametrize("committed", [True, False])
def test_a_connection_that_breaks_during_the_commit(
    on_postgres: tuple[Store, str], postgres: PostgresServer, committed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the server had committed or not: the work is written exactly once, and said to be."""
    store, url = on_postgres
    dialect = store._writing.dialect
    real = dialect.do_commit
    broken = []

    def commit(connection: psycopg.Connection) -> None:
        if not broken:
            broken.append(1)
            if committed:
                real(connection)
            postgres.break_connections(url)
            wait_until(lambda: _is_broken(connection), what="the broken connection")
            raise psycopg.OperationalError("consuming input failed: the connection was closed")
        real(connection)

    monkeypatch.setattr(dialect, "do_commit", commit)
    runs = []

    def work(connection: Connection) -> int:
        runs.append(1)
        counters.add(connection, {"n": 1})
        return 7

    assert store.write(work) == 7
    assert len(runs) == (1 if committed else 2)
    assert all_counters(store) == {"n": 1}


def _is_broken(connection: psycopg.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


# -------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "not the address of a store"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("mysql://x/y", "not a database"),
    ],
)
def test_addresses_that_cannot_be(url: str, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        Store.open(url, clock=ManualClock())


def test_passwords_are_not_shown() -> None:
    assert "secret" not in engine.shown(engine.parse("postgresql://me:secret@host/db"))
    error = faults.translate(_refused(), engine.parse("postgresql://me:secret@host/db"))
    assert "secret" not in str(error)
    assert "cannot be reached" in str(error)


def _refused() -> Exception:
    from sqlalchemy.exc import OperationalError

    return OperationalError(None, None, psycopg.OperationalError("connection refused\nmore"))
