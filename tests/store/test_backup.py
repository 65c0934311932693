"""Backups: complete, checked before use, and the same from either database into either."""

from __future__ import annotations

import random
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from fleetui.common.domain.clock import ManualClock
from fleetui.common.domain.errors import StoreError
from fleetui.store import backup, devices, feed, ingest, lease, progress, rollup, series, tables, views, windows
from fleetui.store.records import METRICS, Batch, DeviceRow, Sample, SavedView, WindowRow
from fleetui.store.store import Store
from tests.helpers.store import BOTH, dropped, fresh_url
from tests.store.history import T0, fill

Content = dict[str, list[tuple[Any, ...]]]


def content(store: Store) -> Content:
    """Every row of every table, but for what a restore changes; a figure that is not known is None."""
    found: Content = {}
    with store.read() as connection:
        for table in tables.METADATA.sorted_tables:
            key = list(table.primary_key.columns)
            columns = [column for column in table.columns if column.name not in {"restored", "expires"}]
            found[table.name] = [
                tuple(None if value != value else value for value in row)
                for row in connection.execute(select(*columns).order_by(*key))
            ]
    return found


def test_the_history_has_something_in_every_table(store: Store) -> None:
    """Otherwise the tests here would prove less than they say."""
    fill(store)
    rollup.run(store, T0 + 3 * 3600 + 60)
    late = Batch(samples=[Sample("dev-1", T0 + 90, (0.5,) * len(METRICS))])
    store.write(lambda c: ingest.write(c, late))
    assert [name for name, rows in content(store).items() if not rows] == []


@pytest.mark.parametrize("to", BOTH)
def test_what_is_restored_is_what_was_there(
    store: Store, to: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fill(store)
    rollup.run(store, T0 + 3 * 3600 + 60)
    steps: list[tuple[str, int, int]] = []
    info = backup.backup(store, tmp_path / "b", progress=lambda *step: steps.append(step))
    assert info.rows == sum(map(len, content(store).values()))
    assert steps[-1][1] == steps[-1][2] == info.rows
    url = fresh_url(request.config, to, tmp_path)
    with dropped(request.config, url):
        assert backup.restore(tmp_path / "b", url, clock=ManualClock(T0 + 1e6)) == info
        with Store.open(url, clock=ManualClock()) as restored:
            assert content(restored) == content(store)
            # And it goes on from there.
            before = feed_head(restored)
            new = Batch(
                devices={"new": DeviceRow("new")},
                windows=[WindowRow("new", "another", "v9", "", "2", T0, 60, 1, 0)],
            )
            assert restored.write(lambda c: ingest.write(c, new)) > before
            with restored.read() as connection:
                assert windows.read(connection, "new", "another", 0, 2e9) == new.windows
                assert len(windows.read(connection, "dev-0", "counter", 0, 2e9)) == 3
                assert series.read(connection, "dev-0", "cpu", T0, T0 + 1e5).count.sum() == 180


def feed_head(store: Store) -> int:
    with store.read() as connection:
        return feed.head(connection)


def test_into_a_place_where_there_is_nothing(sqlite_store: Store, empty_url: str, tmp_path: Path) -> None:
    fill(sqlite_store)
    backup.backup(sqlite_store, tmp_path / "b")
    backup.restore(tmp_path / "b", empty_url, clock=ManualClock())
    with Store.open(empty_url, clock=ManualClock(), create=False) as restored:
        assert content(restored) == content(sqlite_store)


def test_a_backup_is_one_moment_while_others_write(store: Store, tmp_path: Path) -> None:
    """Device and its event are written together; a backup in between has both or neither."""
    fill(store)

    def write_more(*_: object) -> None:
        store.write(lambda c: ingest.write(c, Batch(devices={"late": DeviceRow("late")}, counters={"late": 1})))

    before = content(store)
    backup.backup(store, tmp_path / "b", progress=write_more)
    backup.restore(tmp_path / "b", f"sqlite:///{tmp_path / 'r.db'}", clock=ManualClock())
    with Store.open(f"sqlite:///{tmp_path / 'r.db'}", clock=ManualClock()) as restored:
        assert content(restored) == before
    assert content(store) != before


def test_a_store_in_use_is_not_replaced_by_accident(store: Store, store_url: str, tmp_path: Path) -> None:
    fill(store)
    backup.backup(store, tmp_path / "b")
    before = content(store)
    with pytest.raises(StoreError, match="knows 4 devices"):
        backup.restore(tmp_path / "b", store_url, clock=ManualClock(T0 + 1e6))
    assert content(store) == before


def test_a_store_that_a_station_works_on_is_not_replaced(store: Store, store_url: str, tmp_path: Path) -> None:
    fill(store)
    backup.backup(store, tmp_path / "b")
    store.write(lambda c: lease.take(c, "lead", "s2", 15, T0 + 1e6))
    with pytest.raises(StoreError, match=r"station \(s2\) is working"):
        backup.restore(tmp_path / "b", store_url, clock=ManualClock(T0 + 1e6), force=True)
    store.write(lambda c: lease.release(c, "lead", "s2"))
    backup.restore(tmp_path / "b", store_url, clock=ManualClock(T0 + 1e6), force=True)
    # Nobody leads there now, and the next who does has a term that nobody had before.
    taken = store.write(lambda c: lease.take(c, "lead", "s3", 15, T0))
    assert taken is not None
    assert taken.term == 3


def test_a_desk_that_watches_sees_the_restored_state(store: Store, store_url: str, tmp_path: Path) -> None:
    """With the store open all the while, by this process: words and change numbers must not deceive it."""
    fill(store)
    backup.backup(store, tmp_path / "b")
    with store.read() as connection:
        expected = {row.device: row.name for row in devices.all(connection)}
    later = Batch(
        devices={"younger": DeviceRow("younger"), "dev-0": DeviceRow("dev-0", last_seq=99)},
        windows=[WindowRow("younger", "new word", "other", "", "3", T0, 60, 1, 0)],
    )
    store.write(lambda c: ingest.write(c, later))
    store.write(lambda c: views.save(c, SavedView("younger", "n", "devices", "", ())))
    with store.read() as connection:
        seen = {row.device: row.name for row in devices.all(connection)}
        seen_views = {view.id for view in views.list(connection)}
        since = feed.head(connection)
    backup.restore(tmp_path / "b", store_url, clock=ManualClock(T0 + 1e6), force=True)
    with store.read() as connection:
        changes = feed.read(connection, since)
        seen.update({row.device: row.name for row in changes.devices})
        for name in changes.removed:
            seen.pop(name, None)
        seen_views -= set(changes.views_removed)
        assert seen == expected
        assert seen_views == {"v1"}
        assert changes.seq == feed.head(connection)
    # The numbers that this process remembered for words are of the replaced store.
    store.write(lambda c: ingest.write(c, later))
    with store.read() as connection:
        assert windows.read(connection, "younger", "new word", 0, 2e9) == later.windows
        assert [w.handle for w in windows.read(connection, "dev-0", None, 0, 2e9)] == ["counter"] * 3


@pytest.mark.parametrize("seed", range(8))
def test_a_changed_byte_anywhere_is_found(sqlite_store: Store, tmp_path: Path, seed: int) -> None:
    fill(sqlite_store, devices_=3, hours=1)
    path = tmp_path / "b"
    backup.backup(sqlite_store, path)
    data = bytearray(path.read_bytes())
    generator = random.Random(seed)
    at = generator.randrange(len(data))
    data[at] ^= 1 << generator.randrange(8)
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"damaged|not a backup"):
        backup.restore(path, f"sqlite:///{tmp_path / 'r.db'}", clock=ManualClock())
    assert not (tmp_path / "r.db").exists()


@pytest.mark.parametrize("keep", [0, 10, 17, 40, 60, -1])
def test_an_incomplete_backup_is_found(sqlite_store: Store, tmp_path: Path, keep: int) -> None:
    fill(sqlite_store, devices_=3, hours=1)
    path = tmp_path / "b"
    backup.backup(sqlite_store, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StoreError, match=r"damaged or not complete|not a backup"):
        backup.verify(path)


def test_a_backup_that_cannot_be_written_says_so(sqlite_store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="could not be written"):
        backup.backup(sqlite_store, tmp_path / "no such folder" / "b")
    with pytest.raises(StoreError, match="cannot be read"):
        backup.verify(tmp_path / "nothing")


def test_a_failed_backup_leaves_the_last_one(sqlite_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "b"
    backup.backup(sqlite_store, path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left"):
        backup.backup(sqlite_store, path, progress=fail)
    assert path.read_bytes() == before
    assert list(tmp_path.glob("*.partial")) == []


def test_a_restore_that_breaks_off_changes_nothing(store: Store, store_url: str, tmp_path: Path) -> None:
    fill(store)
    backup.backup(store, tmp_path / "b")
    store.write(lambda c: devices.remove(c, "dev-0"))
    before = content(store)

    def fail(_table: str, done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup.restore(tmp_path / "b", store_url, clock=ManualClock(T0 + 1e6), force=True, progress=fail)
    assert content(store) == before


def test_a_backup_from_a_newer_program_is_refused(sqlite_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "b"
    backup.backup(sqlite_store, path)
    frames = list(backup._frames(path))
    frames[0]["schema"] = "9999"
    with path.open("wb") as file:
        out = backup._Sum(file)
        out.write(backup.MAGIC)
        for frame in frames:
            out.frame(frame)
        out.end()
    with pytest.raises(StoreError, match="newer FleetUI"):
        backup.restore(path, f"sqlite:///{tmp_path / 'r.db'}", clock=ManualClock())


def test_a_frame_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "_MOST", 1_000)
    path = tmp_path / "b"
    with path.open("wb") as file:
        out = backup._Sum(file)
        out.write(backup.MAGIC)
        packed = zlib.compress(msgspec.msgpack.encode("0" * 100_000))
        out.write(backup._LENGTH.pack(len(packed)) + packed)
        out.end()
    with pytest.raises(StoreError, match="damaged"):
        backup.verify(path)


def test_a_damaged_file_is_set_aside_and_replaced(sqlite_store: Store, tmp_path: Path) -> None:
    fill(sqlite_store)
    backup.backup(sqlite_store, tmp_path / "b")
    target = tmp_path / "target.db"
    target.write_bytes(b"this is not a database, but it is quite long" * 100)
    url = f"sqlite:///{target}"
    with pytest.raises(StoreError, match="damaged") as caught:
        Store.open(url, clock=ManualClock())
    assert "fleetui store restore" in caught.value.fix
    with pytest.raises(StoreError, match="damaged"):
        backup.restore(tmp_path / "b", url, clock=ManualClock())
    backup.restore(tmp_path / "b", url, clock=ManualClock(), force=True)
    with Store.open(url, clock=ManualClock()) as restored:
        assert content(restored) == content(sqlite_store)
    assert (tmp_path / "target.db.damaged-1").read_bytes().startswith(b"this is not")


def test_somebody_elses_database_is_not_restored_into(sqlite_store: Store, tmp_path: Path) -> None:
    import sqlite3

    backup.backup(sqlite_store, tmp_path / "b")
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    with pytest.raises(StoreError, match="something else"):
        backup.restore(tmp_path / "b", f"sqlite:///{tmp_path / 'other.db'}", clock=ManualClock(), force=True)


def test_marks_of_the_roll_ups_come_with_it(sqlite_store: Store, tmp_path: Path) -> None:
    fill(sqlite_store)
    rollup.run(sqlite_store, T0 + 3 * 3600 + 60)
    backup.backup(sqlite_store, tmp_path / "b")
    url = f"sqlite:///{tmp_path / 'r.db'}"
    backup.restore(tmp_path / "b", url, clock=ManualClock())
    with Store.open(url, clock=ManualClock()) as restored:
        with sqlite_store.read() as one, restored.read() as two:
            assert progress.read(one) == progress.read(two)
        assert rollup.run(restored, T0 + 3 * 3600 + 60).minutes == 0
