"""The station among hostile messages: each is counted under its reason, and honest ones between them are stored."""

from collections import Counter

import pytest

from fleetui.common.link.codec import encode
from fleetui.common.link.messages import Event
from fleetui.store import rejected
from tests.helpers.station import NOW, World
from tests.hostile.corpus_wire import CASES, DEVICE, GOOD, TOPICS


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


def event(seq: int) -> Event:
    return Event(device=DEVICE, boot="boot-1", seq=seq, at=NOW, kind="honest", text=f"number {seq}")


def test_the_whole_corpus_between_honest_messages(world):
    station = world.station()
    world.run(1)
    device = world.device(DEVICE, boot="boot-1")
    publish = device.link.publish
    publish(TOPICS.up(DEVICE, "birth"), encode(GOOD["birth"]), qos=1)
    honest = 100
    ours = [case for case in CASES if case.topic.startswith("fleet/test/up/")]
    ours = [case for case in ours if case.topic.count("/") == 4]
    for i, case in enumerate(ours):
        publish(case.topic, case.payload, qos=1)
        if i % 5 == 0:
            honest += 1
            publish(TOPICS.up(DEVICE, "event"), encode(event(honest)), qos=1)
        if i % 200 == 0:
            world.run(1)
    world.run(5)
    counters = station.counters
    assert len(ours) > 200
    assert Counter(counters.reasons) == Counter(str(case.reason) for case in ours)
    stored = {e.text for e in world.events("honest")}
    assert stored == {f"number {n}" for n in range(101, honest + 1)}
    assert counters.stored == len(stored) + 1
    assert counters.received == counters.stored + counters.rejected
    assert world.broker.queued("station") == 0, "what is refused is acknowledged too, or it came again for ever"
    with world.store.read() as connection:
        assert rejected.counts(connection) == {
            str(reason): n for reason, n in Counter(case.reason for case in ours).items()
        }
    assert world.rows()[DEVICE].rejected == sum(
        case.topic.split("/")[3] == DEVICE and case.reason != "topic" for case in ours
    ) + sum(case.topic in {TOPICS.up(DEVICE, "ota"), TOPICS.up(DEVICE, "capture")} for case in ours)


def test_other_topics_than_the_fleets_never_reach_the_books(world):
    """The subscription keeps them away; should a broker send them all the same, they are refused."""
    station = world.station()
    world.run(1)
    intake = station.leading.intake
    others = [case for case in CASES if case.topic and case.reason == "topic"]
    for case in others:
        intake.post(lambda case=case: station.leading.ledger.receive(case.topic, case.payload, NOW, 0.0))
    world.run(1)
    assert station.counters.reasons == {"topic": len(others)}
    assert world.rows() == {}
