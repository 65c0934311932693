"""What people write: names and tags, wishes, saved views; and who leads."""

from __future__ import annotations

import pytest

from fleetui.store import devices, events, ingest, lease, status, views, wishes
from fleetui.store.records import Batch, DeviceRow, EventRow, SavedView, StationStatus, Wish, WishState
from fleetui.store.store import Store
from tests.store.processes import Started

T0 = 1_800_000_000.0


def report(store: Store, row: DeviceRow) -> None:
    store.write(lambda c: ingest.write(c, Batch(devices={row.device: row})))


def device(store: Store, name: str = "d") -> DeviceRow:
    with store.read() as connection:
        found = devices.get(connection, name)
    assert found is not None
    return found


# -------------------------------------------------------------------------------------------- names and tags


def test_what_people_decide_outlives_what_devices_report(store: Store) -> None:
    report(store, DeviceRow("d", name="factory", tags={"rack": "1", "line": "a"}, lifecycle="pending"))
    assert device(store).lifecycle == "pending"
    store.write(lambda c: devices.set_name(c, "d", "Front door"))
    store.write(lambda c: devices.set_tags(c, "d", {"rack": "7", "mine": "yes"}))
    store.write(lambda c: devices.set_lifecycle(c, "d", "accepted"))
    store.write(lambda c: devices.set_notes(c, "d", "ask\0first"))
    report(store, DeviceRow("d", name="factory 2", tags={"rack": "1", "new": "b"}, lifecycle="pending", notes="no"))
    row = device(store)
    assert (row.name, row.lifecycle, row.notes) == ("Front door", "accepted", "ask\ufffdfirst")
    assert row.tags == {"rack": "7", "mine": "yes", "new": "b"}
    store.write(lambda c: devices.set_name(c, "d", ""))
    store.write(lambda c: devices.set_tags(c, "d", {}))
    assert (device(store).name, device(store).tags) == ("factory 2", {"rack": "1", "new": "b"})


def test_a_station_that_goes_on_from_reported_rows_keeps_the_two_apart(store: Store) -> None:
    report(store, DeviceRow("d", name="factory", tags={"rack": "1"}))
    store.write(lambda c: devices.set_name(c, "d", "Front door"))
    store.write(lambda c: devices.set_tags(c, "d", {"rack": "7"}))
    with store.read() as connection:
        (row,) = devices.reported(connection)
        assert devices.given_tags(connection, "d") == {"rack": "7"}
        assert devices.given_tags(connection, "nobody") == {}
    assert (row.name, row.tags) == ("factory", {"rack": "1"})
    report(store, row)
    store.write(lambda c: devices.set_name(c, "d", ""))
    store.write(lambda c: devices.set_tags(c, "d", {}))
    assert (device(store).name, device(store).tags) == ("factory", {"rack": "1"})


def test_a_device_that_is_not_there_cannot_be_named(store: Store) -> None:
    assert store.write(lambda c: devices.set_name(c, "nobody", "n")) is False
    assert store.write(lambda c: devices.set_tags(c, "nobody", {})) is False
    assert store.write(lambda c: devices.remove(c, "nobody")) is False


def test_rows_that_are_read_can_be_changed_without_harm(store: Store) -> None:
    report(store, DeviceRow("d", tags={"a": "1"}))
    device(store).tags["a"] = "2"
    assert device(store).tags == {"a": "1"}


# -------------------------------------------------------------------------------------------- events


def test_events_are_read_page_by_page(store: Store) -> None:
    for i in range(25):
        row = EventRow(T0 + i // 3, "k", i % 5, str(i), source="station")
        store.write(lambda c, row=row: events.add(c, row))
    seen: list[str] = []
    with store.read() as connection:
        page = events.read(connection, limit=4)
        while page:
            seen += [event.text for event in page]
            page = events.read(connection, limit=4, before=page[-1])
        assert seen == [str(i) for i in range(24, -1, -1)]
        grave = events.read(connection, level=3)
        assert [event.level for event in grave] == [4, 3] * 5
        assert [event.text for event in events.read(connection, device="", limit=2)] == ["24", "23"]
        assert events.read(connection, device="nobody") == []


def test_events_of_one_device(store: Store) -> None:
    for name in ("a", "b"):
        batch = Batch(
            events=[EventRow(T0 + i, "k", 1, f"{name}{i}", device=name, boot="b", report_seq=i) for i in (1, 2)]
        )
        store.write(lambda c, batch=batch: ingest.write(c, batch))
    with store.read() as connection:
        assert [event.text for event in events.read(connection, device="a")] == ["a2", "a1"]
        assert {event.device for event in events.read(connection)} == {"a", "b"}


def test_an_event_with_a_number_is_entered_once_others_each_time(store: Store) -> None:
    once = EventRow(T0, "k", 1, "t", boot="run-1", report_seq=4, source="station")
    each = EventRow(T0, "k", 1, "t", source="desk")
    for row in (once, once, each, each):
        store.write(lambda c, row=row: events.add(c, row))
    with store.read() as connection:
        assert sorted(event.source for event in events.read(connection)) == ["desk", "desk", "station"]


def test_an_event_of_a_device_that_is_not_known_is_our_mistake(store: Store) -> None:
    with pytest.raises(LookupError):
        store.write(lambda c: events.add(c, EventRow(T0, "k", 1, "t", device="nobody")))


# -------------------------------------------------------------------------------------------- wishes


def a_wish(identity: str = "w", **changes: object) -> Wish:
    values = {"kind": "rename", "arguments": {"name": "ä", "n": [1, {"x": None}]}, "operator": "op", "at": T0}
    return Wish(identity, **{**values, "signature": b"\0\xff", **changes})


def wish(store: Store, identity: str = "w") -> Wish:
    with store.read() as connection:
        found = wishes.get(connection, identity)
    assert found is not None
    return found


def test_a_wish_is_asked_taken_and_done(store: Store) -> None:
    assert store.write(lambda c: wishes.ask(c, a_wish())) is True
    asked = wish(store)
    assert asked == a_wish(seq=asked.seq)
    taken = store.write(lambda c: wishes.take(c, "s1", T0 + 1))
    assert taken == wish(store)
    assert (taken.state, taken.taken) == (WishState.TAKEN, T0 + 1)
    assert store.write(lambda c: wishes.take(c, "s1", T0 + 2)) is None
    assert store.write(lambda c: wishes.finish(c, "w", WishState.DONE, "renamed", now=T0 + 3, holder="s1"))
    done = wish(store)
    assert (done.state, done.outcome, done.ended) == (WishState.DONE, "renamed", T0 + 3)
    assert asked.seq < taken.seq < done.seq
    assert store.write(lambda c: wishes.take(c, "s1", T0 + 4)) is None
    assert not store.write(lambda c: wishes.finish(c, "w", WishState.FAILED, "again", now=T0 + 5))
    assert wish(store) == done


def test_asking_twice_is_asking_once(store: Store) -> None:
    store.write(lambda c: wishes.ask(c, a_wish()))
    assert store.write(lambda c: wishes.ask(c, a_wish(operator="somebody else"))) is False
    store.write(lambda c: wishes.take(c, "s1", T0))
    store.write(lambda c: wishes.finish(c, "w", WishState.DONE, "", now=T0))
    assert store.write(lambda c: wishes.ask(c, a_wish())) is False
    assert (wish(store).operator, wish(store).state) == ("op", WishState.DONE)


def test_a_wish_can_be_withdrawn_until_it_is_taken(store: Store) -> None:
    for identity in ("a", "b"):
        store.write(lambda c, identity=identity: wishes.ask(c, a_wish(identity)))
    assert store.write(lambda c: wishes.withdraw(c, "a", now=T0 + 1))
    assert not store.write(lambda c: wishes.withdraw(c, "a", now=T0 + 2))
    taken = store.write(lambda c: wishes.take(c, "s1", T0))
    assert taken is not None
    assert taken.id == "b"
    assert not store.write(lambda c: wishes.withdraw(c, "b", now=T0 + 3))
    assert (wish(store, "a").state, wish(store, "a").ended) == (WishState.WITHDRAWN, T0 + 1)


def test_wishes_are_taken_in_the_order_of_asking(store: Store) -> None:
    """By arrival: clocks of several desks need not agree."""
    for i, at in enumerate((T0 + 9, T0, T0 + 5)):
        store.write(lambda c, i=i, at=at: wishes.ask(c, a_wish(f"w{i}", at=at)))
    assert [store.write(lambda c: wishes.take(c, "s", T0)).id for _ in range(3)] == ["w0", "w1", "w2"]
    with store.read() as connection:
        assert [w.id for w in wishes.recent(connection, limit=2)] == ["w2", "w1"]


def test_a_wish_that_a_dead_station_took_is_taken_over(store: Store) -> None:
    for identity in ("a", "b"):
        store.write(lambda c, identity=identity: wishes.ask(c, a_wish(identity)))
    store.write(lambda c: wishes.take(c, "dead", T0))
    taken = store.write(lambda c: wishes.take(c, "alive", T0 + 1))
    assert taken is not None
    assert taken.id == "a"
    assert not store.write(lambda c: wishes.finish(c, "a", WishState.DONE, "late", now=T0 + 2, holder="dead"))
    assert store.write(lambda c: wishes.finish(c, "a", WishState.DONE, "in time", now=T0 + 2, holder="alive"))
    assert wish(store, "a").outcome == "in time"
    with store.read() as connection:
        assert [w.id for w in wishes.recent(connection, only_open=True)] == ["b"]


def test_a_wish_ends_only_in_an_end(store: Store) -> None:
    store.write(lambda c: wishes.ask(c, a_wish()))
    with pytest.raises(ValueError, match="does not end"):
        store.write(lambda c: wishes.finish(c, "w", WishState.ASKED, "", now=T0))


def test_two_processes_never_take_the_same_wish(store: Store, store_url: str) -> None:
    """With holders of one name, so that none is taken over: each wish is taken once."""
    count = 40
    for i in range(count):
        store.write(lambda c, i=i: wishes.ask(c, a_wish(f"w{i}")))
    started = [Started(store_url, "take_wishes", "station") for _ in range(2)]
    lines = [line for process in started for line in process.finish()]
    assert sorted(lines) == sorted(f"w{i} True" for i in range(count))


# -------------------------------------------------------------------------------------------- lease


def test_a_lease_is_taken_renewed_lost_and_taken_over(store: Store) -> None:
    def take(holder: str, now: float):
        return store.write(lambda c: lease.take(c, "lead", holder, 10, now))

    def renew(holder: str, now: float):
        return store.write(lambda c: lease.renew(c, "lead", holder, 10, now))

    with store.read() as connection:
        assert lease.get(connection, "lead") is None
    assert renew("a", T0) is None, "nothing to renew"
    assert take("a", T0) == lease.Lease("a", 1, T0 + 10, T0)
    assert take("b", T0 + 1) is None
    assert take("a", T0 + 2) == lease.Lease("a", 1, T0 + 12, T0), "its own again"
    assert renew("a", T0 + 8) == lease.Lease("a", 1, T0 + 18, T0)
    assert renew("b", T0 + 8) is None
    assert take("b", T0 + 17.9) is None
    assert renew("a", T0 + 18) is None, "it ran out: who held it must stop"
    assert take("b", T0 + 18) == lease.Lease("b", 2, T0 + 28, T0 + 18)
    assert renew("a", T0 + 19) is None
    assert take("a", T0 + 19) is None
    assert not store.write(lambda c: lease.release(c, "lead", "a"))
    assert store.write(lambda c: lease.release(c, "lead", "b"))
    assert not store.write(lambda c: lease.release(c, "lead", "b"))
    assert renew("b", T0 + 20) is None
    assert take("a", T0 + 20) == lease.Lease("a", 3, T0 + 30, T0 + 20), "the term goes on rising"
    assert store.write(lambda c: lease.take(c, "other", "b", 10, T0)) == lease.Lease("b", 1, T0 + 10, T0)
    with store.read() as connection:
        assert lease.get(connection, "lead") == lease.Lease("a", 3, T0 + 30, T0 + 20)


def test_processes_that_fight_for_a_lease_never_share_a_term(store: Store, store_url: str) -> None:
    started = [Started(store_url, "take_lease", f"p{i}", 60) for i in range(3)]
    holder_of: dict[int, str] = {}
    for process in started:
        for line in process.finish():
            term, holder = line.split()
            assert holder_of.setdefault(int(term), holder) == holder, "two leaders in one term"
    assert sorted(holder_of) == list(range(1, max(holder_of) + 1)), "terms rise by one"
    with store.read() as connection:
        assert lease.get(connection, "lead").term == max(holder_of)


# -------------------------------------------------------------------------------------------- views and stations


def test_views_are_saved_listed_and_deleted(store: Store) -> None:
    one = SavedView("1", "Berlin", "devices", "site:berlin", ("name", "site"), "cpu", True, "ann", False)
    two = SavedView("2", "All", "devices", "", (), owner="ben")
    other = SavedView("3", "Errors", "events", "level>2", ("text",), owner="ann")
    for view in (one, two, other):
        store.write(lambda c, view=view: views.save(c, view))
    with store.read() as connection:
        assert [v.name for v in views.list(connection)] == ["All", "Berlin", "Errors"]
        assert [v.name for v in views.list(connection, page="devices", owner="ben")] == ["All"]
        found = views.list(connection, page="devices", owner="ann")[1]
    assert found == SavedView(
        "1", "Berlin", "devices", "site:berlin", ("name", "site"), "cpu", True, "ann", False, found.seq
    )
    store.write(lambda c: views.save(c, SavedView("1", "Munich", "devices", "site:munich", ())))
    assert store.write(lambda c: views.delete(c, "2"))
    with store.read() as connection:
        assert [v.name for v in views.list(connection)] == ["Errors", "Munich"]


def test_what_stations_say_of_themselves(store: Store) -> None:
    for i in range(3):
        said = StationStatus(
            "s1", T0 + i, i == 2, "up", "", "b:1883", {"received": i, "odd": float("nan")}, "0.1", 77
        )
        store.write(lambda c, said=said: status.write(c, said))
    store.write(lambda c: status.write(c, StationStatus("s2", T0, False, "down", "refused", "b", {})))
    with store.read() as connection:
        one, two = status.list(connection)
    assert one == StationStatus("s1", T0 + 2, True, "up", "", "b:1883", {"received": 2.0}, "0.1", 77, one.seq)
    assert (two.station, two.link_reason) == ("s2", "refused")
