"""A whole station on a broker in memory, in virtual time."""

import random

import pytest

from fleetui.common.link.loopback import Faults
from fleetui.store.records import WishState
from tests.helpers.station import NOW, World


@pytest.fixture
def world(tmp_path, store_url):
    made = World(tmp_path, store_url)
    yield made
    made.close()


def beat_all(world: World):
    for device in world.devices.values():
        device.say(device.speaker.beat(world.clock.now()), qos=0)


def test_reports_reach_the_store(world):
    world.station()
    device = world.device()
    device.say(device.speaker.birth())
    device.say(device.speaker.window())
    device.say(device.speaker.event(level=3, text="oh"))
    device.say(device.speaker.beat(), qos=0)
    world.run(1)
    row = world.rows()["d1"]
    assert (row.status, row.site, row.last_seq, row.last_error) == ("online", "berlin", 3, "oh")
    assert world.windows() == {("d1", "boot-a", 1)}
    assert [e.kind for e in world.events()] == ["station.leads", "model.loaded", "device.joined"]
    assert world.broker.queued("station") == 0, "everything is acknowledged"


def test_a_silent_device_goes_offline_and_comes_back(world):
    world.station()
    quiet, steady = world.device("quiet"), world.device("steady")
    quiet.say(quiet.speaker.birth())
    steady.say(steady.speaker.birth())
    world.run(70, lambda: steady.say(steady.speaker.beat(world.clock.now()), qos=0))
    assert {name: row.status for name, row in world.rows().items()} == {"quiet": "offline", "steady": "online"}
    assert [e.device for e in world.events("device.offline")] == ["quiet"]
    quiet.say(quiet.speaker.birth(world.clock.now()))
    world.run(1)
    assert world.rows()["quiet"].status == "online"


def test_a_broken_connection_is_told_by_the_will(world):
    world.station()
    device = world.device()
    device.say(device.speaker.birth())
    world.run(1)
    device.link.stop(say_goodbye=False)
    world.run(12)
    assert world.rows()["d1"].status == "offline"


def test_an_outage_of_the_broker_turns_nobody_offline(world):
    world.station()
    for i in range(30):
        device = world.device(f"d{i}")
        device.say(device.speaker.birth())
    world.run(5, lambda: beat_all(world))
    world.broker.down()
    world.run(120)
    world.broker.up()
    world.run(40, lambda: beat_all(world))
    assert {row.status for row in world.rows().values()} == {"online"}
    assert world.events("device.offline") == []
    assert [e.kind for e in world.events("link")] == ["link.down", "link.up"]
    assert "silence counts from now on" in world.events("link.up")[0].text


def test_a_station_that_was_away_turns_nobody_offline_but_the_dead_are_found(world):
    station = world.station()
    alive, dead = world.device("alive"), world.device("dead")
    for device in (alive, dead):
        device.say(device.speaker.birth())
    world.run(2, lambda: beat_all(world))
    world.stations.remove(station)
    station.close()
    world.run(3600, lambda: alive.say(alive.speaker.beat(world.clock.now()), qos=0))
    world.station()
    world.run(20, lambda: alive.say(alive.speaker.beat(world.clock.now()), qos=0))
    assert world.events("device.offline") == []
    world.run(50, lambda: alive.say(alive.speaker.beat(world.clock.now()), qos=0))
    assert [e.device for e in world.events("device.offline")] == ["dead"]


def test_a_machine_that_slept_holds_no_silence_against_anybody(world):
    world.station()
    device = world.device()
    device.say(device.speaker.birth())
    world.run(2, lambda: beat_all(world))
    world.clock.jump(3600.0)  # suspended: the wall clock went on, the monotonic one did not
    world.run(5, lambda: beat_all(world))
    assert world.rows()["d1"].status == "online"
    assert len(world.events("station.stalled")) == 1


def test_killed_stations_lose_nothing_of_what_was_acknowledged(tmp_path, store_url):
    """Delay, duplicates, breaking connections; the station is killed again and again. At the end every window that
    a broker acknowledged to its device is stored, once."""
    world = World(
        tmp_path,
        store_url,
        faults=Faults(delay_s=(0.0, 0.05), duplicate=0.1, break_every_s=20.0, reorder=0.05, reorder_s=0.5),
    )
    rng = random.Random(11)
    station = world.station()
    world.run(1)
    for i in range(5):
        device = world.device(f"d{i}")
        device.say(device.speaker.birth(world.clock.now()))

    for _ in range(12):

        def speak():
            for device in world.devices.values():
                for _ in range(rng.randrange(4)):
                    at = world.clock.now()
                    device.say(device.speaker.window(at, start=at + rng.random()))

        for _ in range(rng.randrange(1, 6)):
            speak()
            world.broker.run_for(rng.random())
            if rng.random() < 0.7:
                station.step()
                world.settle()
        world.kill(station)
        speak()
        world.run(rng.choice([0.0, 8.0]))
        station = world.station()
    world.broker.faults = Faults()
    world.run(30)
    sent = {(m.device, m.boot, m.seq) for d in world.devices.values() for m in d.acked if hasattr(m, "length_s")}
    assert len(sent) > 100
    assert sent <= world.windows()
    assert world.broker.queued("station") == 0
    assert all(row.lost == 0 for row in world.rows().values()), "and nothing is said to be lost"
    world.close()


def test_one_leads_and_the_other_takes_over(world):
    first = world.station()
    second = world.station()
    assert first.leading is not None
    assert second.leading is None
    device = world.device()
    device.say(device.speaker.birth())
    world.run(2)
    world.kill(first)
    device.say(device.speaker.window())
    world.run(8)
    assert second.leading is not None
    assert world.windows() == {("d1", "boot-a", 1)}
    assert [e.kind for e in world.events("station")] == ["station.leads", "station.leads"]


def test_a_station_that_ends_in_order_hands_over_at_once(world):
    first = world.station()
    second = world.station()
    world.stations.remove(first)
    first.close()
    world.run(3)
    assert second.leading is not None
    assert world.said[-1]["kind"] == "state"
    assert {"kind": "stopped", "station": "station", "reason": "asked to"} in world.said


@pytest.mark.logs_warnings("another station leads now")
def test_a_frozen_leader_that_wakes_up_cannot_write(world):
    frozen = world.station()
    device = world.device()
    device.say(device.speaker.birth())
    world.run(1)
    world.stations.remove(frozen)  # it does not get a turn any more
    other = world.station()
    world.run(10, lambda: beat_all(world))
    assert other.leading is not None
    row = world.rows()["d1"]
    # The frozen one's ingest thread comes to life first and folds something of its own.
    stale = frozen.leading
    topic, payload = device.speaker.wire(device.speaker.beat(world.clock.now(), cpu=0.99))
    stale.intake.post(lambda: stale.ledger.receive(topic, payload, world.clock.now(), 0.0))
    assert stale.batcher.fenced.wait(5.0)
    assert world.rows()["d1"].cpu == row.cpu
    frozen.step()
    assert frozen.leading is None
    world.stations.append(frozen)
    world.run(10, lambda: beat_all(world))
    assert frozen.leading is None
    assert other.leading is not None


def test_a_wish_is_carried_out(world):
    world.station()
    device = world.device()
    device.say(device.speaker.birth(name="reported", tags={"line": "3"}))
    world.run(1)
    rename = world.ask("device.rename", device="d1", name="Press 4")
    tag = world.ask("device.tag", devices=["d1"], tags={"hall": "B", "line": "7"})
    note = world.ask("device.note", device="d1", notes="watch this one\nclosely")
    world.run(1)
    assert {world.wish(w).state for w in (rename, tag, note)} == {WishState.DONE}
    assert world.wish(rename).outcome == "d1 is called 'Press 4'"
    device.say(device.speaker.birth(world.clock.now(), name="reported", tags={"line": "3", "x": "y"}))
    world.run(1)
    row = world.rows()["d1"]
    assert (row.name, row.tags) == ("Press 4", {"line": "7", "x": "y", "hall": "B"})
    back = world.ask("device.tag", devices=["d1"], tags={"line": ""})
    unname = world.ask("device.rename", device="d1", name="")
    world.run(1)
    assert (world.wish(back).state, world.wish(unname).state) == (WishState.DONE, WishState.DONE)
    row = world.rows()["d1"]
    assert (row.name, row.tags["line"]) == ("reported", "3")
    assert [e.device for e in world.events("wish.done")] == ["d1"] * 5


@pytest.mark.parametrize(
    ("wished", "arguments", "state", "words"),
    [
        ("device.rename", {"device": "nobody", "name": "x"}, WishState.FAILED, "There is no device nobody"),
        ("device.rename", {"device": "d1"}, WishState.REFUSED, "It needs a text as 'name'"),
        ("device.rename", {"device": "d1", "name": "x" * 65}, WishState.REFUSED, "longer than 64"),
        ("device.rename", {"device": "d1", "name": "a\nb"}, WishState.REFUSED, "cannot be shown"),
        ("device.rename", {"devices": ["d1", "d2"], "name": "x"}, WishState.REFUSED, "one device at a time"),
        ("device.rename", {"device": "../x", "name": "x"}, WishState.REFUSED, "not a device id"),
        ("device.rename", {"device": "d1", "name": "x", "sudo": True}, WishState.REFUSED, "'sudo'"),
        ("device.tag", {"devices": ["d1"], "tags": {}}, WishState.REFUSED, "1 to 20 tags"),
        ("device.tag", {"devices": [], "tags": {"a": "b"}}, WishState.REFUSED, "which devices"),
        ("device.ask", {"devices": ["d1"], "ask": "reboot"}, WishState.REFUSED, "can be asked of a device"),
        ("device.ask", {"devices": ["nobody"], "ask": "ping"}, WishState.FAILED, "There is no device nobody"),
        ("world.peace", {}, WishState.REFUSED, "does not know how to carry out 'world.peace'"),
    ],
)
def test_what_cannot_be_done_ends_with_a_sentence(world, wished, arguments, state, words):
    world.station()
    device = world.device()
    device.say(device.speaker.birth())
    world.run(1)
    asked = world.ask(wished, **arguments)
    world.run(1)
    wish = world.wish(asked)
    assert wish.state is state
    assert words in wish.outcome
    assert world.rows()["d1"].name == ""


@pytest.mark.logs_warnings("a wish is refused")
def test_a_row_that_nobody_signed_is_refused_and_reported(world):
    world.station()
    device = world.device()
    device.say(device.speaker.birth())
    world.run(1)
    forged = world.ask("device.remove", device="d1", sign=False)
    world.run(1)
    assert world.wish(forged).state is WishState.REFUSED
    assert "signature" in world.wish(forged).outcome
    assert "d1" in world.rows()
    [event] = world.events("wish.refused")
    assert (event.level, event.source, event.subject) == (3, "station", forged)


def test_an_old_wish_put_back_is_not_carried_out_again(world):
    world.station()
    device = world.device()
    device.say(device.speaker.birth())
    world.run(1)
    old = world.ask("device.remove", device="d1", at=NOW - 8 * 86_400)
    world.run(1)
    assert (world.wish(old).state, "d1" in world.rows()) == (WishState.REFUSED, True)


def test_the_way_of_a_device_in_and_out_of_the_fleet(tmp_path):
    world = World(tmp_path, admit="pending")
    world.station()
    device = world.device()
    device.say(device.speaker.birth())
    device.say(device.speaker.window())
    world.run(1)
    assert (world.rows()["d1"].lifecycle, world.windows()) == ("pending", set())
    accept = world.ask("device.accept", devices=["d1"])
    world.run(1)
    assert world.wish(accept).outcome == "1 device accepted"
    device.say(device.speaker.window(world.clock.now()))
    world.run(1)
    assert (world.rows()["d1"].lifecycle, world.rows()["d1"].status, len(world.windows())) == (
        "accepted",
        "online",
        1,
    )
    again = world.ask("device.accept", devices=["d1"])
    retire = world.ask("device.decommission", devices=["d1"])
    world.run(1)
    assert (world.wish(again).state, world.wish(retire).state) == (WishState.DONE, WishState.DONE)
    reject = world.ask("device.reject", devices=["d1"])
    device.say(device.speaker.window(world.clock.now() + 60))
    world.run(1)
    assert world.wish(reject).outcome == "d1 is decommissioned, and cannot be rejected"
    assert len(world.windows()) == 1
    assert world.rows()["d1"].lifecycle == "decommissioned"
    world.close()


def test_a_removed_device_is_gone_until_it_introduces_itself(world):
    world.station()
    device = world.device()
    device.say(device.speaker.birth(name="first"))
    device.say(device.speaker.window())
    world.run(1)
    removed = world.ask("device.remove", devices=["d1"])
    world.run(1)
    assert (world.wish(removed).state, world.rows()) == (WishState.DONE, {})
    device.say(device.speaker.beat(world.clock.now()), qos=0)
    world.run(1)
    assert world.rows() == {}
    device.say(device.speaker.birth(world.clock.now(), name="second"))
    world.run(1)
    assert world.rows()["d1"].name == "second"
    assert world.windows() == set()


def test_a_question_is_answered(world):
    world.station()
    device = world.device()
    device.say(device.speaker.birth())
    world.run(1)
    asked = world.ask("device.ask", devices=["d1"], ask="ping")
    world.run(1)
    assert world.wish(asked).state is WishState.TAKEN
    [ask] = device.asks
    assert (ask.id, ask.kind) == (asked, "ping")
    device.say(device.speaker.reply(ask.id, world.clock.now()))
    world.run(1)
    assert (world.wish(asked).state, world.wish(asked).outcome) == (WishState.DONE, "d1 answered: pong")


def test_a_question_that_nobody_answers_is_over_with_time(world):
    world.station()
    for name in ("d1", "d2"):
        device = world.device(name)
        device.say(device.speaker.birth())
    world.run(1)
    asked = world.ask("device.ask", devices=["d1", "d2"], ask="report")
    world.run(2)
    world.devices["d1"].say(world.devices["d1"].speaker.reply(asked, world.clock.now()))
    world.run(12)
    wish = world.wish(asked)
    assert (wish.state, wish.outcome) == (
        WishState.DONE,
        "1 of 2 devices answered, 1 did not answer in time (d2)",
    )


def test_a_wish_in_hand_survives_the_station(world):
    station = world.station()
    device = world.device()
    device.say(device.speaker.birth())
    world.run(1)
    asked = world.ask("device.ask", devices=["d1"], ask="ping")
    world.run(1)
    world.kill(station)
    world.run(1)
    assert world.wish(asked).state is WishState.TAKEN
    world.run(6)
    world.station()
    world.run(5)
    assert [a.id for a in device.asks] == [asked, asked]
    device.say(device.speaker.reply(asked, world.clock.now()))
    world.run(1)
    assert world.wish(asked).state is WishState.DONE


def test_a_device_that_the_store_has_forgotten_is_asked_to_introduce_itself(world):
    world.station()
    device = world.device()
    device.say(device.speaker.beat(), qos=0)
    world.run(1)
    assert [a.kind for a in device.asks] == ["report"]


def test_the_status_row_counts_everything(world):
    world.station()
    device = world.device()
    device.say(device.speaker.birth())
    device.link.publish("fleet/test/up/d1/beat", b"\xc1")
    world.run(5)
    from fleetui.store import status

    with world.store.read() as connection:
        [row] = status.list(connection)
    assert (row.leader, row.link, row.station) == (True, "online", "station")
    counters = row.counters
    assert (counters["received"], counters["stored"], counters["rejected"]) == (2, 1, 1)
    assert (counters["rejected.undecodable"], counters["online"], counters["acked"]) == (1, 1, 1)
    assert counters["queue"] <= 1
