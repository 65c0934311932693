"""A store that is full, rows that it refuses, an ingest thread that dies: nothing acknowledged is lost."""

import pytest

from fleetui.common.domain.errors import StoreError
from fleetui.store.records import Sample, WindowRow
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
