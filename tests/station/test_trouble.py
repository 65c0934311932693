"""A store that is full, rows that it refuses, an ingest thread that dies: nothing acknowledged is lost."""

import threading

import pytest

from fleetui.common.domain.errors import StoreError
from fleetui.common.link.transport import Message
from fleetui.store import devices, wishes
from fleetui.store.records import Sample, WindowRow, WishState
from tests.helpers.station import NOW, World
from tests.helpers.wait import wait_until


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


def pages(store, limit: int) -> None:
    """How large the file may become."""
    store.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={limit}"))


def grow(world: World, device, count: int, first: int = 0) -> None:
    for n in range(first, first + count):
        device.say(device.speaker.window(world.clock.now(), start=NOW + n, counts=b"x" * 8000))


@pytest.mark.logs_warnings("the store")
def test_a_full_disk_keeps_messages_with_the_broker_until_there_is_room(world):
    station = world.station()
    device = world.device()
    device.say(device.speaker.birth())
    world.run(1)
    pages(station._store, 1)  # no larger than it is
    grow(world, device, 50)
    world.broker.run_for(1.0)
    batcher = station.leading.batcher
    wait_until(lambda: batcher.trouble, what="trouble with the store")
    assert "full" in batcher.trouble
    station.step()
    assert world.said[-1]["store"] == batcher.trouble
    grow(world, device, 10, first=50)
    world.broker.run_for(1.0)
    assert world.broker.queued("station") >= 60, "nothing is acknowledged that is not stored"
    assert len(device.acked) == 61
    pages(station._store, 1_000_000)
    wait_until(lambda: not batcher.trouble, what="the store to work again")
    world.run(2)
    assert len(world.windows()) == 60
    assert world.broker.queued("station") == 0
    [event] = world.events("store.trouble")
    assert "nothing was lost" in event.text
    assert world.said[-1]["store"] == ""


@pytest.mark.logs_warnings("the store|the last")
def test_a_station_that_ends_while_the_store_is_full_leaves_everything_with_the_broker(world, monkeypatch):
    monkeypatch.setattr("fleetui.station.leading.DRAIN_S", 0.3)
    station = world.station()
    device = world.device()
    device.say(device.speaker.birth())
    world.run(1)
    pages(station._store, 1)
    grow(world, device, 50)
    world.broker.run_for(1.0)
    wait_until(lambda: station.leading.batcher.trouble, what="trouble with the store")
    world.stations.remove(station)
    station.close()
    assert world.broker.queued("station") == 50
    world.station()
    world.run(3)
    assert len(world.windows()) == 50
    assert world.broker.queued("station") == 0


@pytest.mark.logs_warnings("left out")
def test_a_row_that_the_store_refuses_costs_itself_alone(world):
    station = world.station()
    device = world.device()
    device.say(device.speaker.birth())
    world.run(1)
    ledger = station.leading.ledger
    unstorable = WindowRow("d1", "main", "v", "", "1", NOW, 60.0, rows=2**80, errors=0)

    def poison():
        ledger._batch.windows.append(unstorable)
        ledger._batch.samples.append(Sample("d1", NOW + 5, (2**80,) * 9))

    station.leading.intake.post(poison)
    grow(world, device, 20)
    world.run(2)
    assert len(world.windows()) == 20
    assert station.counters.unstorable == 2
    assert world.broker.queued("station") == 0
    assert world.rows()["d1"].last_seq == 20


@pytest.mark.logs_warnings("the ingest thread")
def test_a_dead_ingest_thread_is_replaced_from_the_store(world):
    station = world.station()
    device = world.device()
    device.say(device.speaker.birth())
    world.run(1)
    first = station.leading

    def die():
        raise RuntimeError("a bug")

    first.intake.post(die)
    device.say(device.speaker.window())
    wait_until(lambda: not first.alive, what="the end of the ingest thread")
    world.run(5)
    assert station.leading is not first
    assert len(world.windows()) == 1
    assert world.rows()["d1"].boots == 1


@pytest.mark.logs_warnings("cannot lead yet")
def test_a_store_that_cannot_be_read_delays_leading(world, monkeypatch):
    def broken(_connection):
        raise StoreError("The store is locked by another program")

    with monkeypatch.context() as patch:
        patch.setattr("fleetui.store.devices.reported", broken)
        station = world.station()
        assert station.leading is None
    world.run(4)
    assert station.leading is not None


def failing_once(monkeypatch, module, name: str) -> list[int]:
    """The function works from its second call on."""
    real, calls = getattr(module, name), []

    def instead(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise StoreError("The store is locked by another program")
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, instead)
    return calls


@pytest.mark.parametrize(("module", "name"), [(devices, "set_name"), (wishes, "finish"), (wishes, "take")])
def test_a_wish_waits_for_the_store(world, monkeypatch, module, name):
    world.station()
    device = world.device()
    device.say(device.speaker.birth())
    world.run(1)
    calls = failing_once(monkeypatch, module, name)
    asked = world.ask("device.rename", device="d1", name="x")
    world.run(4)
    assert len(calls) >= 2
    assert world.wish(asked).state is WishState.DONE
    assert world.rows()["d1"].name == "x"
    assert len(world.events("wish.done")) == 1


def test_a_refusal_waits_for_the_store_too(world, monkeypatch):
    world.station()
    world.run(1)
    failing_once(monkeypatch, wishes, "finish")
    asked = world.ask("world.peace")
    world.run(4)
    assert world.wish(asked).state is WishState.REFUSED
    assert len(world.events("wish.refused")) == 1


@pytest.mark.logs_warnings("a wish of the kind")
def test_a_bug_in_a_wish_costs_the_wish(world, monkeypatch):
    world.station()
    device = world.device()
    device.say(device.speaker.birth())
    world.run(1)
    monkeypatch.setattr(devices, "set_notes", lambda *_: 1 / 0)
    asked = world.ask("device.note", device="d1", notes="x")
    after = world.ask("device.rename", device="d1", name="x")
    world.run(2)
    assert (world.wish(asked).state, world.wish(after).state) == (WishState.FAILED, WishState.DONE)
    assert "ZeroDivisionError" in world.wish(asked).outcome


def test_reports_that_had_to_be_dropped_are_told_and_give_a_fresh_grace(world):
    station = world.station()
    quiet = world.device()
    quiet.say(quiet.speaker.birth())
    world.run(20)
    station.counters.dropped += 5  # as the intake counts them
    world.run(20)
    assert world.rows()["d1"].status == "online"
    station.counters.dropped += 5
    world.run(2)
    [event] = world.events("station.dropped")
    assert event.text.startswith("5 unconfirmed reports were dropped")
    world.run(60)
    assert world.rows()["d1"].status == "offline"


def test_a_broker_that_forgets_the_session_is_told(world):
    world.station()
    world.run(1)
    world.broker.down(forget=True)
    world.run(2)
    world.broker.up()
    world.run(10)
    assert [e.kind for e in world.events("link")] == ["link.down", "link.up", "link.forgotten"]


def test_what_the_broker_drops_is_told_and_shown(world):
    station = world.station()
    world.run(1)
    for dropped in (b"3", b"10"):
        station.leading._on_message(Message("$SYS/broker/publish/messages/dropped", dropped))
        world.run(2)
    [event] = world.events("broker.dropped")
    assert event.text == "The broker had no room for 7 messages and dropped them"
    assert station.leading.figures()["broker.dropped"] == 10
    assert station.counters.received == 0


def test_what_there_was_no_room_for_comes_again(world, monkeypatch):
    """A broker that sends far more than it was told to: what is held back is fetched with a new connection."""
    monkeypatch.setattr("fleetui.station.ingest.intake.MOST", 5)
    station = world.station()
    device = world.device()
    device.say(device.speaker.birth())
    world.run(1)
    hold, go = threading.Event(), threading.Event()
    station.leading.intake.post(lambda: (hold.set(), go.wait(30.0)))
    assert hold.wait(10.0)
    grow(world, device, 50)
    world.broker.run_for(1.0)
    assert station.counters.held > 40
    go.set()
    for _ in range(30):  # five at a time
        world.run(1)
    assert len(world.windows()) == 50
    assert world.broker.queued("station") == 0
