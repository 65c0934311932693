"""The slot and the change feed, on a real store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.domain.clock import SystemClock
from fleetui.desk.app import feed as feeds
from fleetui.desk.app.columns import DeviceTable
from fleetui.desk.app.feed import ChangeFeed, FeedStatus
from fleetui.desk.app.lazystore import LazyStore
from fleetui.desk.app.slot import EVENTS, Slot
from fleetui.store import devices, ingest, views, wishes
from fleetui.store.records import Batch, Changes, DeviceRow, EventRow, SavedView, StationStatus, Wish
from fleetui.store.store import Store
from tests.helpers.desk import MainThread, device_rows
from tests.helpers.store import sqlite_store

__all__ = ["sqlite_store"]

# ---------------------------------------------------------------- the slot

deliveries = st.lists(
    st.tuples(
        st.lists(device_rows, max_size=6), st.lists(st.sampled_from([f"edge-{n}" for n in range(14)]), max_size=2)
    ),
    max_size=6,
)


@given(deliveries=deliveries, slice_=st.integers(1, 5), taken=st.lists(st.booleans(), max_size=6))
def test_however_it_is_taken_the_table_ends_the_same(
    deliveries: list[tuple[list[DeviceRow], list[str]]], slice_: int, taken: list[bool]
) -> None:
    """Merging in the slot and taking slices changes nothing but the way."""
    direct, merged, slot = DeviceTable(), DeviceTable(), Slot()

    def drain() -> None:
        while (changes := slot.take(slice_)) is not None:
            assert len(changes.devices) <= slice_
            merged.apply(changes)

    for n, (rows, removed) in enumerate(deliveries):
        changes = Changes(n, tuple({r.device: r for r in rows}.values()), tuple(removed))
        direct.apply(changes)
        slot.put(changes)
        if n < len(taken) and taken[n]:
            drain()
    drain()
    assert not slot.filled
    names = {direct.device(row) for row in range(direct.size) if direct.alive[row]}
    assert names == {merged.device(row) for row in range(merged.size) if merged.alive[row]}
    for name in names:
        one, other = direct.get(name), merged.get(name)
        assert repr(one) == repr(other)


def test_newest_wins_and_nothing_else_is_lost() -> None:
    slot = Slot()
    assert slot.put(Changes(1, (DeviceRow("a", cpu=0.1),), events=(event(1),), more=True))
    assert not slot.put(
        Changes(
            5,
            (DeviceRow("a", cpu=0.9),),
            events=(event(2),),
            wishes=(wish("w", "taken"),),
            views=(view("v", "old"), view("v", "new")),
            views_removed=("x",),
            stations=(StationStatus("s", 1.0, True, "online", "", "", {}),),
        )
    )
    changes = slot.take(10)
    assert changes is not None
    assert (changes.seq, changes.more) == (5, False)
    assert [row.cpu for row in changes.devices] == [0.9]
    assert [e.report_seq for e in changes.events] == [1, 2]
    assert [w.state for w in changes.wishes] == ["taken"]
    assert [v.name for v in changes.views] == ["new"]
    assert changes.views_removed == ("x",)
    assert len(changes.stations) == 1
    assert slot.take(10) is None


def test_slices_keep_events_for_the_last_and_say_that_more_comes() -> None:
    slot = Slot()
    slot.put(Changes(3, tuple(DeviceRow(f"d{n}") for n in range(5)), ("gone",), events=(event(1),)))
    first, second, third = slot.take(2), slot.take(2), slot.take(2)
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.removed, second.removed) == (("gone",), ())
    assert [c.more for c in (first, second, third)] == [True, True, False]
    assert [len(c.events) for c in (first, second, third)] == [0, 0, 1]
    assert len({row.device for c in (first, second, third) for row in c.devices}) == 5


def test_events_beyond_the_bound_are_counted() -> None:
    slot = Slot()
    slot.put(Changes(1, events=tuple(event(n) for n in range(EVENTS + 7))))
    assert slot.waiting.events == EVENTS
    assert slot.waiting.events_skipped == 7
    changes = slot.take(1)
    assert changes is not None
    assert changes.events[0].report_seq == 7


def event(number: int, device: str = "") -> EventRow:
    return EventRow(1000.0 + number, "k", 1, "t", device, boot="b", report_seq=number)


def wish(identity: str, state: str = "asked") -> Wish:
    from fleetui.store.records import WishState

    return Wish(identity, "device.rename", {"device": "a", "name": "b"}, "ann", 1.0, b"s", WishState(state))


def view(identity: str, name: str) -> SavedView:
    return SavedView(identity, name, "devices", "", ("id",))


# ---------------------------------------------------------------- the feed


class Desk:
    """A table that follows a store, as the window does."""

    def __init__(self, store: object, hz: float = 100.0) -> None:
        self.main = MainThread()
        self.table = DeviceTable()
        self.deliveries: list[Changes] = []
        self.statuses: list[FeedStatus] = []
        self.feed = ChangeFeed(
            store,
            SystemClock(),
            self.main.post,
            self._deliver,
            self.statuses.append,
            hz,  # type: ignore[arg-type]
        )

    def _deliver(self, changes: Changes) -> None:
        self.deliveries.append(changes)
        self.table.apply(changes)

    def until(self, condition: object, what: str) -> None:
        self.main.until(condition, what)  # type: ignore[arg-type]

    def caught_up(self) -> bool:
        return bool(self.statuses) and self.statuses[-1].caught_up


@pytest.fixture
def desk(sqlite_store: Store) -> Iterator[Desk]:
    made = Desk(sqlite_store)
    yield made
    made.feed.stop()


def put(store: Store, *rows: DeviceRow, events: tuple[EventRow, ...] = ()) -> None:
    store.write(lambda c: ingest.write(c, Batch(devices={r.device: r for r in rows}, events=list(events))))


def test_everything_that_is_there_comes_first_in_slices(sqlite_store: Store, desk: Desk) -> None:
    rows = [DeviceRow(f"d{n:05d}", name=f"n{n}") for n in range(2500)]
    put(sqlite_store, *rows, events=tuple(event(n, "d00000") for n in range(10)))
    sqlite_store.write(lambda c: views.save(c, view("v", "All")))
    sqlite_store.write(lambda c: wishes.ask(c, wish("w")))
    desk.feed.start()
    desk.until(desk.caught_up, "the end of reading")
    desk.until(lambda: desk.feed.counters.events_drawn, "the last slice")
    assert len(desk.table) == 2500
    assert max(len(c.devices) for c in desk.deliveries) <= feeds.SLICE
    assert all(c.more for c in desk.deliveries[:-1])
    last = desk.deliveries[-1]
    assert [e.report_seq for e in last.events] == list(range(10))
    assert [v.name for v in last.views] == ["All"]
    assert [w.id for w in last.wishes] == ["w"]
    assert desk.feed.counters.rows_drawn == 2500


def test_changes_follow_and_removals_too(sqlite_store: Store, desk: Desk) -> None:
    put(sqlite_store, DeviceRow("a"), DeviceRow("b"))
    desk.feed.start()
    desk.until(lambda: len(desk.table) == 2, "both devices")
    put(sqlite_store, DeviceRow("a", status="online"), DeviceRow("c"))
    desk.until(lambda: len(desk.table) == 3, "the third device")
    assert desk.table.text("status", desk.table.row_of("a")) == "online"
    sqlite_store.write(lambda c: devices.remove(c, "b"))
    desk.until(lambda: "b" not in desk.table, "the removal")
    assert len(desk.table) == 2


def test_a_look_that_is_asked_for_comes_at_once(sqlite_store: Store) -> None:
    desk = Desk(sqlite_store, hz=0.05)
    desk.feed.start()
    try:
        desk.until(desk.caught_up, "the end of reading")
        put(sqlite_store, DeviceRow("a"))
        desk.feed.look()
        desk.until(lambda: "a" in desk.table, "the device, long before the next turn")
    finally:
        desk.feed.stop()


class Broken:
    """A store that fails as often as it is told to, then is the real one."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.failing = False

    def read(self) -> object:
        if self.failing:
            from fleetui.common.domain.errors import StoreError

            raise StoreError("The database cannot be reached", "Check that the server runs")
        return self.store.read()


@pytest.mark.logs_warnings("cannot read the store")
def test_a_store_that_is_gone_is_a_sentence_and_comes_back(sqlite_store: Store) -> None:
    broken = Broken(sqlite_store)
    desk = Desk(broken)
    put(sqlite_store, DeviceRow("a"))
    desk.feed.start()
    try:
        desk.until(lambda: "a" in desk.table, "the device")
        broken.failing = True
        desk.until(lambda: desk.statuses and not desk.statuses[-1].ok, "the bad news")
        assert desk.statuses[-1].sentence == "The database cannot be reached"
        assert desk.statuses[-1].fix
        put(sqlite_store, DeviceRow("b"))
        broken.failing = False
        desk.until(lambda: desk.statuses[-1].ok and "b" in desk.table, "the recovery")
        assert [s.ok for s in desk.statuses].count(False) == 1
    finally:
        desk.feed.stop()


@pytest.mark.logs_warnings("cannot read the store")
def test_a_bug_in_reading_does_not_end_the_feed(sqlite_store: Store) -> None:
    class Buggy(Broken):
        def read(self) -> object:
            if self.failing:
                raise RuntimeError("surprise")
            return self.store.read()

    buggy = Buggy(sqlite_store)
    desk = Desk(buggy)
    buggy.failing = True
    desk.feed.start()
    try:
        desk.until(lambda: desk.statuses and not desk.statuses[-1].ok, "the bad news")
        assert "surprise" in desk.statuses[-1].sentence
        buggy.failing = False
        desk.until(desk.caught_up, "the recovery")
    finally:
        desk.feed.stop()


def test_an_error_while_drawing_does_not_stop_the_deliveries(sqlite_store: Store) -> None:
    desk = Desk(sqlite_store)
    failures = [True]
    real = desk._deliver

    def deliver(changes: Changes) -> None:
        if failures:
            failures.pop()
            raise RuntimeError("while drawing")
        real(changes)

    desk.feed._deliver = deliver
    put(sqlite_store, DeviceRow("a"))
    desk.feed.start()
    try:
        with pytest.raises(RuntimeError, match="while drawing"):
            desk.until(lambda: len(desk.table), "the failure")
        put(sqlite_store, DeviceRow("b"))
        desk.until(lambda: "b" in desk.table, "the next delivery")
    finally:
        desk.feed.stop()


def test_while_the_window_is_busy_only_the_last_state_waits(sqlite_store: Store, desk: Desk) -> None:
    put(sqlite_store, DeviceRow("a"))
    desk.feed.start()
    desk.until(desk.caught_up, "the end of reading")
    desk.main.run()
    before = desk.feed.counters
    for n in range(20):
        put(sqlite_store, DeviceRow("a", rows=n))
        desk.feed.look()
    from tests.helpers.wait import wait_until

    wait_until(lambda: desk.feed.counters.rows_read > before.rows_read, what="another look")
    drawn = desk.feed.counters.rows_drawn
    desk.until(lambda: desk.table.figure("rows", desk.table.row_of("a")) == 19, "the last state")
    assert desk.feed.counters.rows_drawn - drawn <= 20


def test_slow_drawing_slows_the_looking() -> None:
    desk = Desk(None, hz=4.0)
    assert desk.feed.counters.interval_s == pytest.approx(0.25)
    desk.feed._apply_s = 0.1
    assert desk.feed.counters.interval_s == pytest.approx(0.5)
    desk.feed._apply_s = 5.0
    assert desk.feed.counters.interval_s == feeds.SLOWEST_S
    desk.feed._apply_s = 0.0
    desk.feed.set_rate(1.0)
    assert desk.feed.counters.interval_s == pytest.approx(1.0)


def test_an_older_store_in_its_place_is_read_anew(tmp_path: Path) -> None:
    """A backup is restored while the desk is open: what is not in it leaves the table."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with Store.open(url, clock=SystemClock()) as store:
        put(store, DeviceRow("kept", name="old"))
        with sqlite3.connect(tmp_path / "a.db") as source, sqlite3.connect(tmp_path / "backup.db") as target:
            source.backup(target)
        target.close()
        source.close()
        put(store, DeviceRow("kept", name="new"), *(DeviceRow(f"later{n}") for n in range(20)))
        desk = Desk(store)
        desk.feed.start()
        try:
            desk.until(lambda: len(desk.table) == 21, "all devices")
            with sqlite3.connect(tmp_path / "backup.db") as source, sqlite3.connect(tmp_path / "a.db") as target:
                source.backup(target)
            source.close()
            target.close()
            desk.until(lambda: len(desk.table) == 1, "the restored state")
            assert desk.table.text("name", desk.table.row_of("kept")) == "old"
        finally:
            desk.feed.stop()


# ---------------------------------------------------------------- opened when needed


def test_a_store_is_opened_by_the_first_who_reads(tmp_path: Path) -> None:
    lazy = LazyStore(f"sqlite:///{tmp_path / 'x.db'}", SystemClock())
    assert not lazy.is_open
    assert not (tmp_path / "x.db").exists()
    desk = Desk(lazy)
    desk.feed.start()
    try:
        desk.until(desk.caught_up, "the end of reading")
        assert lazy.is_open
        lazy.write(lambda c: ingest.write(c, Batch(devices={"a": DeviceRow("a")})))
        desk.until(lambda: "a" in desk.table, "the device")
    finally:
        desk.feed.stop()
        lazy.close()


@pytest.mark.logs_warnings("cannot read the store")
def test_a_store_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    lazy = LazyStore(f"sqlite:///{folder / 'x.db'}", SystemClock())
    desk = Desk(lazy)
    desk.feed.start()
    try:
        desk.until(lambda: desk.statuses and not desk.statuses[-1].ok, "the bad news")
        assert desk.statuses[-1].fix
        folder.mkdir()
        desk.until(desk.caught_up, "the recovery")
    finally:
        desk.feed.stop()
        lazy.close()


def test_a_closed_one_says_so(tmp_path: Path) -> None:
    from fleetui.common.domain.errors import StoreError

    lazy = LazyStore(f"sqlite:///{tmp_path / 'x.db'}", SystemClock())
    lazy.close()
    with pytest.raises(StoreError, match="closed"), lazy.read():
        pass
