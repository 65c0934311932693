"""The change feed: a reader that follows it misses nothing and ends with what is there."""

from __future__ import annotations

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetui.store import devices, events, feed, ingest, status, views, wishes
from fleetui.store.records import (
    Batch,
    Changes,
    DeviceRow,
    EventRow,
    SavedView,
    StationStatus,
    Wish,
    WishState,
)
from fleetui.store.store import Store
from tests.helpers.store import emptied
from tests.helpers.wait import wait_until
from tests.store.processes import Started

T0 = 1_800_000_000.0


class Reader:
    """What a desk keeps: the newest of everything, by following the feed."""

    def __init__(self) -> None:
        self.seq = 0
        self.devices: dict[str, DeviceRow] = {}
        self.events: dict[int, EventRow] = {}
        self.wishes: dict[str, Wish] = {}
        self.views: dict[str, SavedView] = {}
        self.stations: dict[str, StationStatus] = {}

    def follow(self, store: Store, *, limit: int = 20_000) -> Changes:
        with store.read() as connection:
            changes = feed.read(connection, self.seq, limit=limit)
        assert changes.seq >= self.seq
        for row in (*changes.devices, *changes.events, *changes.wishes, *changes.views, *changes.stations):
            assert self.seq < row.seq <= changes.seq
        assert not {row.device for row in changes.devices} & set(changes.removed)
        self.devices.update({row.device: row for row in changes.devices})
        for name in changes.removed:
            self.devices.pop(name, None)
        assert not self.events.keys() & {row.id for row in changes.events}, "an event comes once"
        self.events.update({row.id: row for row in changes.events})
        self.wishes.update({row.id: row for row in changes.wishes})
        self.views.update({row.id: row for row in changes.views})
        for name in changes.views_removed:
            self.views.pop(name, None)
        self.stations.update({row.station: row for row in changes.stations})
        self.seq = changes.seq
        return changes

    def check(self, store: Store) -> None:
        with store.read() as connection:
            assert self.seq == feed.head(connection)
            assert {n: r.seq for n, r in self.devices.items()} == {r.device: r.seq for r in devices.all(connection)}
            assert sorted(self.events) == sorted(e.id for e in events.read(connection, limit=100_000))
            assert self.wishes == {w.id: w for w in wishes.recent(connection, limit=100_000)}
            assert self.views == {v.id: v for v in views.list(connection)}
            assert self.stations == {s.station: s for s in status.list(connection)}


def a_wish(identity: str) -> Wish:
    return Wish(identity, "rename", {"device": "d", "name": "n"}, "op", T0, b"sig")


def a_view(identity: str) -> SavedView:
    return SavedView(
        identity, f"view {identity}", "devices", "status:offline", ("name", "site"), "name", owner="me"
    )


def test_nothing_new_is_nothing(store: Store) -> None:
    with store.read() as connection:
        assert feed.read(connection, 0) == Changes(seq=0)
        assert feed.head(connection) == 0


def test_all_kinds_come_through(store: Store) -> None:
    reader = Reader()
    store.write(lambda c: ingest.write(c, Batch(devices={"d": DeviceRow("d")})))
    store.write(lambda c: events.add(c, EventRow(T0, "start", 1, "the station starts", source="station")))
    store.write(lambda c: wishes.ask(c, a_wish("w")))
    store.write(lambda c: views.save(c, a_view("v")))
    said = StationStatus("s1", T0, leader=True, link="up", link_reason="", broker="b:1", counters={"received": 1.5})
    store.write(lambda c: status.write(c, said))
    changes = reader.follow(store)
    assert [len(x) for x in (changes.devices, changes.events, changes.wishes, changes.views, changes.stations)] == [
        1, 1, 1, 1, 1,
    ]  # fmt: skip
    assert not changes.more
    reader.check(store)
    assert reader.stations["s1"].counters == {"received": 1.5}
    assert reader.follow(store) == Changes(seq=reader.seq)


def test_what_is_removed_is_said_and_what_returns_is_not_gone(store: Store) -> None:
    reader = Reader()
    for name in ("a", "b"):
        store.write(lambda c, name=name: ingest.write(c, Batch(devices={name: DeviceRow(name)})))
    store.write(lambda c: views.save(c, a_view("v")))
    reader.follow(store)
    assert store.write(lambda c: devices.remove(c, "a"))
    assert not store.write(lambda c: devices.remove(c, "a"))
    assert store.write(lambda c: views.delete(c, "v"))
    assert not store.write(lambda c: views.delete(c, "v"))
    changes = reader.follow(store)
    assert changes.removed == ("a",)
    assert changes.views_removed == ("v",)
    reader.check(store)
    store.write(lambda c: devices.remove(c, "b"))
    store.write(lambda c: ingest.write(c, Batch(devices={"b": DeviceRow("b", last_seq=9)})))
    changes = reader.follow(store)
    assert changes.removed == ()
    assert [row.last_seq for row in changes.devices] == [9]
    reader.check(store)


def test_only_the_newest_state_of_a_row_comes(store: Store) -> None:
    for i in range(5):
        store.write(lambda c, i=i: ingest.write(c, Batch(devices={"d": DeviceRow("d", last_seq=i)})))
    changes = Reader().follow(store)
    assert [row.last_seq for row in changes.devices] == [4]


@pytest.mark.parametrize("limit", [1, 3, 7, 50])
def test_a_reader_in_small_steps_gets_everything(store: Store, limit: int) -> None:
    for step in range(6):
        batch = Batch(
            devices={f"d{i}": DeviceRow(f"d{i}", last_seq=step) for i in range(step, step + 5)},
            events=[EventRow(T0, "k", 1, "t", device="d5", boot="b", report_seq=step * 3 + i) for i in range(3)],
        )
        batch.devices.setdefault("d5", DeviceRow("d5"))
        store.write(lambda c, batch=batch: ingest.write(c, batch))
        store.write(lambda c, step=step: views.save(c, a_view(f"v{step % 2}")))
        store.write(lambda c, step=step: devices.remove(c, f"d{step}"))
    reader = Reader()
    steps = 0
    while reader.follow(store, limit=limit).more:
        steps += 1
        assert steps < 200
    reader.check(store)


CHANGE = st.one_of(
    st.tuples(st.just("ingest"), st.lists(st.integers(0, 6), max_size=5)),
    st.tuples(st.just("remove"), st.integers(0, 6)),
    st.tuples(st.just("name"), st.integers(0, 6)),
    st.tuples(st.just("view"), st.integers(0, 2)),
    st.tuples(st.just("drop view"), st.integers(0, 2)),
    st.tuples(st.just("wish"), st.integers(0, 3)),
    st.tuples(st.just("take"), st.just(0)),
    st.tuples(st.just("fail"), st.just(0)),
    st.tuples(st.just("read"), st.integers(1, 5)),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(CHANGE, max_size=25))
def test_any_history_read_in_any_steps_ends_as_it_is(store: Store, changes: list[tuple[str, object]]) -> None:
    emptied(store)
    reader = Reader()
    for word, value in changes:
        if word == "read":
            reader.follow(store, limit=value)
            continue
        _apply(store, word, value)
    while reader.follow(store, limit=3).more:
        pass
    reader.check(store)


def _apply(store: Store, word: str, value: object) -> None:
    def fail(connection: object) -> None:
        views.save(connection, a_view("never"))
        raise LookupError("on purpose")

    match word:
        case "ingest":
            rows = {f"d{i}": DeviceRow(f"d{i}") for i in value}
            store.write(lambda c: ingest.write(c, Batch(devices=rows)))
        case "remove":
            store.write(lambda c: devices.remove(c, f"d{value}"))
        case "name":
            store.write(lambda c: devices.set_name(c, f"d{value}", "given"))
        case "view":
            store.write(lambda c: views.save(c, a_view(str(value))))
        case "drop view":
            store.write(lambda c: views.delete(c, str(value)))
        case "wish":
            store.write(lambda c: wishes.ask(c, a_wish(str(value))))
        case "take":
            taken = store.write(lambda c: wishes.take(c, "me", T0))
            if taken is not None:
                store.write(lambda c: wishes.finish(c, taken.id, WishState.DONE, "done", now=T0, holder="me"))
        case "fail":
            with pytest.raises(LookupError):
                store.write(fail)


def test_a_follower_of_many_writers_misses_nothing(store: Store, store_url: str) -> None:
    """Writers in three other processes and one here; readers follow meanwhile, in steps of different size."""
    count = 60
    started = [Started(store_url, "write_batches", f"w{i}", count) for i in range(2)]
    started.append(Started(store_url, "remove_and_return", "comes-and-goes", count))
    readers = [Reader(), Reader(), Reader()]
    finished = threading.Event()
    problems: list[BaseException] = []

    def follow(reader: Reader, limit: int) -> None:
        try:
            while True:
                last = finished.is_set()
                more = reader.follow(store, limit=limit).more
                if last and not more:
                    return
        except BaseException as error:  # noqa: BLE001 - shown by the test
            problems.append(error)

    threads = [
        threading.Thread(target=follow, args=(reader, limit))
        for reader, limit in zip(readers, (2, 10, 20_000), strict=True)
    ]
    for thread in threads:
        thread.start()
    for i in range(count):
        row = EventRow(T0 + i, "here", 1, f"here {i}", boot="here", report_seq=i, source="desk")
        store.write(lambda c, row=row: events.add(c, row))
    for process in started:
        assert process.finish() == [str(i) for i in range(count)]
    finished.set()
    for thread in threads:
        thread.join()
    assert not problems, problems[0]
    for reader in readers:
        reader.check(store)
        assert sum(1 for event in reader.events.values() if event.text.startswith("here")) == count
        assert len(reader.events) == 3 * count
        assert reader.devices["w0"].last_seq == count - 1
        assert "comes-and-goes" not in reader.devices


def test_a_change_is_seen_by_another_process_promptly(store: Store, store_url: str) -> None:
    reader = Reader()
    process = Started(store_url, "add_events", "other", 1)
    wait_until(lambda: reader.follow(store).events, what="the other process's event")
    process.finish()
