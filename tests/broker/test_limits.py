"""Nobody gets more of the broker than they should: sizes, rates, queues, memory; and every drop is counted."""

from __future__ import annotations

import pytest

from fleetui.broker import handshake, packets
from fleetui.broker.limits import Bucket, Limits
from fleetui.broker.packets import V3, V5, Publish, Request
from fleetui.broker.wire import Property, Reason
from fleetui.common.domain.errors import ConfigError
from tests.broker.world import World

UP = "fleet/test/up/dev1/win"
DOWN = "fleet/test/down/dev1/ask"
MIB = 1 << 20


# ---------------------------------------------------------------- sizes and numbers


def test_packets_larger_than_allowed_end_the_connection_before_they_are_read():
    world = World(max_packet=4096)
    client = world.client("dev1")
    client.feed(Publish(UP, b"x" * 5000).encode(V5)[:10])
    world.turn()
    assert client.goodbye == Reason.PACKET_TOO_LARGE
    assert world.core.partial == 0


def test_strangers_get_less():
    world = World(max_connect_packet=1000)
    stranger = world.socket()
    stranger.send(handshake.Connect("dev1", will=handshake.Will("a", b"x" * 2000)).encode()[:20])
    assert stranger.ended
    assert not stranger.received()


def test_trickling_packets_of_all_clients_together_are_bounded():
    world = World(partial_bytes=100_000)
    clients = [world.client(f"dev{i}") for i in range(4)]
    head = packets.frame(3, b"\0" * 60_000, 0)[:40_000]
    for client in clients:
        client.send(head)
    for client in clients:
        client.send(b"\0" * 100)
    assert sum(client.ended for client in clients) == 2
    assert world.core.partial <= 100_000
    for client in clients:
        client.vanish()
    assert world.core.partial == 0


def test_subscriptions_of_a_session():
    world = World(subscriptions=3)
    client = world.client("dev1")
    names = [f"fleet/test/down/dev1/{i}" for i in range(4)]
    assert client.subscribe(*names) == [1, 1, 1, Reason.QUOTA]
    assert client.subscribe(names[0]) == [1], "renewing one is always possible"
    old = world.client("dev2", version=V3)
    assert old.subscribe(*(f"fleet/test/down/dev2/{i}" for i in range(4))) == [1, 1, 1, 0x80]


def test_length_and_depth_of_topics():
    world = World(topic_length=60, topic_levels=6)
    client = world.client("dev1")
    assert (
        client.subscribe("fleet/test/down/dev1/" + "x" * 60, "fleet/test/down/dev1/a/b/c")
        == [Reason.BAD_TOPIC_FILTER] * 2
    )
    client.publish("fleet/test/up/dev1/" + "x" * 60)
    assert client.goodbye == Reason.BAD_TOPIC


def test_sessions():
    world = World(sessions=2)
    world.client("dev1", expiry=100).disconnect()
    world.client("dev2")
    assert world.client("dev3").connack.reason == Reason.QUOTA
    assert world.client("dev1", clean=False, expiry=100).connack.session_present, "who has one keeps it"


def test_retained_messages():
    world = World(retained=2, retained_bytes=1000)
    station = world.station()
    assert station.publish("a", b"x", qos=1, retain=True) == Reason.NO_MATCHING_SUBSCRIBERS
    station.publish("b", b"x" * 900, qos=1, retain=True)
    assert station.publish("c", b"x", qos=1, retain=True) == Reason.QUOTA
    assert station.publish("b", b"x" * 1100, qos=1, retain=True) == Reason.QUOTA
    assert station.publish("b", b"y" * 800, qos=1, retain=True) == Reason.NO_MATCHING_SUBSCRIBERS
    assert world.core.counters.denied_retained == 2
    assert world.core.retained.bytes == 801


def test_a_device_cannot_fill_the_retained_store():
    world = World(device_retained=3, device_retained_bytes=100)
    device = world.client("dev1")
    answers = [device.publish(f"fleet/test/up/dev1/{i}", b"x", qos=1, retain=True) for i in range(5)]
    assert answers == [Reason.NO_MATCHING_SUBSCRIBERS] * 3 + [Reason.QUOTA] * 2
    assert device.publish("fleet/test/up/dev1/0", b"x" * 101, qos=1, retain=True) == Reason.QUOTA
    device.publish("fleet/test/up/dev1/0", b"", retain=True)
    assert device.publish("fleet/test/up/dev1/9", b"x", qos=1, retain=True) == Reason.NO_MATCHING_SUBSCRIBERS
    other = world.client("dev11")
    assert other.publish("fleet/test/up/dev11/0", b"x", qos=1, retain=True) == Reason.NO_MATCHING_SUBSCRIBERS


@pytest.mark.parametrize(
    "wrong", [{"max_packet": 10}, {"receive_maximum": 0}, {"window": 70_000}, {"connections": 0}]
)
def test_limits_that_make_no_sense(wrong):
    with pytest.raises(ConfigError):
        Limits(**wrong)


# ---------------------------------------------------------------- queues


def test_a_full_queue_says_so_to_the_publisher():
    """QoS 1 to a queue that has no room is not acknowledged as done: the publisher knows and can try again."""
    world = World(queue_messages=3)
    world.client("dev1", expiry=100).subscribe(Request("fleet/test/down/dev1/+", 1))
    world.clients[0].vanish()
    station = world.station()
    answers = [station.publish(DOWN, b"%d" % i, qos=1 + i % 2) for i in range(5)]
    assert answers == [0, 0, 0, Reason.QUOTA, Reason.QUOTA]
    assert world.core.counters.dropped == 2
    assert world.core.sessions["dev1"].dropped == 2
    assert world.client("dev1", clean=False, expiry=100).payloads() == [b"0", b"1", b"2"]


def test_queues_are_bounded_in_bytes_too_and_stations_get_more():
    world = World(queue_bytes=1000, station_queue_bytes=5000)
    for name, text in (("dev1", "fleet/test/down/dev1/+"), ("station", "fleet/test/down/dev1/+")):
        client = world.client(name, expiry=100)
        client.subscribe(text)
        client.vanish()
    publisher = world.client("other", policy="open")
    for _ in range(20):
        publisher.publish(DOWN, b"x" * 400, qos=1)
    assert world.core.sessions["dev1"].waiting == 2
    assert world.core.sessions["station"].waiting == 12
    assert world.core.sessions["dev1"].bytes == 800


def test_what_is_on_its_way_counts_like_what_waits():
    world = World(queue_bytes=1000)
    device = world.client("dev1")
    device.subscribe(Request("fleet/test/down/dev1/+", 2))
    station = world.station()
    answers = [station.publish(DOWN, b"x" * 300, qos=2) for _ in range(4)]
    assert answers == [0, 0, 0, Reason.QUOTA]
    device.messages()
    assert world.core.sessions["dev1"].bytes == 0
    assert station.publish(DOWN, b"x" * 300, qos=1) == 0


def test_many_overlapping_subscriptions_with_identifiers_do_no_harm(tmp_path):
    """Each message carries all of the identifiers: a number that has to fit wherever it is written."""
    world = World(tmp_path, subscriptions=400)
    device = world.client("dev1", expiry=100)
    for i in range(300):
        pattern = "/".join("+" if i >> bit & 1 else "x" for bit in range(9))
        device.subscribe(Request(f"fleet/test/trust/{pattern}", 1), identifier=i + 1)
    station = world.station()
    assert station.publish("fleet/test/trust/" + "/".join("x" * 9), b"p", qos=1) == 0
    (message,) = device.messages(ack=False)
    assert len(message.properties[Property.SUBSCRIPTION_ID]) == 300
    world = world.crash()
    (again,) = world.client("dev1", clean=False, expiry=100).messages()
    assert sorted(again.properties[Property.SUBSCRIPTION_ID]) == list(range(1, 301))
    assert world.core.counters.bugs == 0
    world.state.close()


def test_a_clock_that_jumps_back_does_no_harm():
    world = World()
    device = world.client("dev1")
    device.subscribe(Request("fleet/test/down/dev1/+", 1))
    station = world.station()
    station.publish(DOWN, b"kept", retain=True, message_expiry=0xFFFF_FFFF)
    world.clock.jump(-10_000_000)
    world.advance(1)
    device.subscribe(Request("fleet/test/down/dev1/+", 1))
    assert device.messages()[-1].properties[Property.MESSAGE_EXPIRY] == 0xFFFF_FFFF


def test_who_reads_gets_on_although_the_memory_is_full():
    world = World(memory=10_000, queue_messages=100_000)
    away = world.client("dev2", expiry=100)
    away.subscribe("fleet/test/down/dev2/+")
    away.vanish()
    here = world.client("dev1")
    here.subscribe("fleet/test/down/dev1/+")
    station = world.station()
    while station.publish("fleet/test/down/dev2/ask", b"x" * 1000, qos=1) == 0:
        pass
    assert station.publish(DOWN, b"y", qos=1) == 0
    assert here.payloads() == [b"y"]


def test_one_ceiling_over_everything_held():
    world = World(memory=50_000, queue_messages=100_000, queue_bytes=MIB)
    for name in ("dev1", "dev2"):
        client = world.client(name, expiry=100)
        client.subscribe(f"fleet/test/down/{name}/+", "fleet/test/trust/#")
        client.vanish()
    station = world.station()
    while station.publish("fleet/test/trust/x", b"y" * 1000, qos=1) == 0:
        pass
    held = world.core.memory.held
    assert 50_000 < held < 52_000, "shared by both queues, counted once"
    assert station.publish("big", b"z" * 1000, qos=1, retain=True) == Reason.QUOTA
    for name in ("dev1", "dev2"):
        world.client(name, clean=False, expiry=100).messages()
    assert world.core.memory.held == 0
    assert world.core.memory.peak == held


# ---------------------------------------------------------------- clients that do not read


def stalled(world: World, room: int = 0):
    device = world.client("dev1")
    device.transport.room = room
    return device


def test_a_stalled_download_holds_one_frame():
    """20 MB of retained blobs to a client that reads nothing: bytes for it exist once, in the retained store."""
    world = World(window=1000)
    station = world.station()
    names = [f"fleet/test/blob/{i}" for i in range(80)]
    for name in names:
        station.publish(name, bytes(256 * 1024), qos=1, retain=True)
    held = world.core.memory.held
    device = stalled(world, room=10_000)
    for name in names:
        device.send(packets.Subscribe(1, [Request(name, 1)]).encode(V5))
    connection = device.connection
    assert len(device.transport.stuck) <= 256 * 1024 + 100
    assert sum(map(len, connection.out)) < 520 * 1024, "references to payloads that exist anyway"
    assert world.core.memory.held == held, "no copies"
    assert world.core.sessions["dev1"].bytes == 0
    device.transport.drain()
    world.turn()
    seen = 0
    while batch := device.messages():
        seen += len(batch)
    assert seen == 80
    assert world.core.memory.held == held


def test_a_stalled_client_of_a_broadcast_is_bounded_by_its_queue():
    world = World()
    device = world.client("dev1")
    device.subscribe("fleet/test/trust/#")
    device.transport.room = 1000
    station = world.station()
    for _ in range(80):
        station.publish("fleet/test/trust/x", bytes(256 * 1024), qos=1)
    cost = world.core.memory.held + len(device.transport.stuck)
    assert cost < 2 * MIB
    assert world.core.counters.dropped >= 70


def test_qos0_to_a_slow_client_waits_a_little_and_is_then_counted():
    world = World(unsent_messages=5)
    device = world.client("dev1")
    device.subscribe(Request("fleet/test/down/dev1/+", 0))
    device.transport.room = 0
    station = world.station()
    for i in range(10):
        station.publish(DOWN, b"%d" % i)
    assert world.core.counters.dropped_unsent == 4
    assert world.core.sessions["dev1"].dropped == 4
    device.transport.drain()
    world.turn()
    assert device.payloads() == [b"%d" % i for i in range(6)]
    assert world.core.memory.held == 0


def test_qos0_bytes_for_a_slow_client_are_bounded():
    world = World(unsent_bytes=10_000)
    device = world.client("dev1")
    device.subscribe(Request("fleet/test/down/dev1/+", 0))
    device.transport.room = 0
    station = world.station()
    for _ in range(100):
        station.publish(DOWN, b"x" * 1000)
    assert device.connection.unsent_bytes == 10_000
    device.vanish()
    assert world.core.memory.held == 0


def test_who_asks_and_does_not_read_the_answers_is_not_read_either():
    world = World(publishes_per_s=0)
    device = world.client("dev1")
    device.transport.room = 0
    for _ in range(5000):
        device.feed(packets.PINGREQ)
        if not device.transport.reading:
            break
        world.turn()
    assert not device.transport.reading
    assert len(device.connection.out) < 1100
    device.transport.drain()
    world.turn()
    assert device.transport.reading
    device.send(packets.PINGREQ)
    assert device.received()


@pytest.mark.logs_warnings("Kicked")
def test_a_stalled_client_can_be_ended():
    world = World()
    device = stalled(world)
    device.send(packets.PINGREQ)
    world.core.kick(device.connection)
    world.turn()
    assert device.transport.closing
    assert not world.core.connections


# ---------------------------------------------------------------- rates


def test_publishing_too_fast_is_read_more_slowly_and_nothing_is_dropped():
    world = World(publishes_per_s=10, publish_burst=20)
    station = world.station()
    station.subscribe("fleet/test/up/+/+")
    device = world.client("dev1")
    device.feed(b"".join(Publish(UP, b"%d" % i).encode(V5) for i in range(100)))
    world.turn()
    got = station.payloads()
    assert len(got) == 21
    assert not device.transport.reading
    world.advance(4)
    got += station.payloads()
    assert 55 <= len(got) <= 65, "ten a second"
    world.advance(10)
    got += station.payloads()
    assert got == [b"%d" % i for i in range(100)]
    assert device.transport.reading
    assert not device.ended
    assert world.core.counters.throttled > 0


def test_stations_are_not_slowed():
    world = World(publishes_per_s=10, publish_burst=20)
    station = world.station()
    station.feed(b"".join(Publish("x", b"").encode(V5) for _ in range(1000)))
    assert station.transport.reading
    assert world.core.counters.messages_in == 1000


def test_subscribing_in_a_loop_is_slowed_as_well():
    world = World(publishes_per_s=10, publish_burst=20)
    device = world.client("dev1")
    request = packets.Subscribe(1, [Request("fleet/test/trust/#")]).encode(V5)
    device.feed(request * 100)
    world.turn()
    assert len(device.received()) <= 22
    assert not device.transport.reading


def test_a_slowed_client_is_not_taken_for_silent():
    world = World(publishes_per_s=1, publish_burst=1)
    device = world.client("dev1", keepalive=5)
    device.feed(b"".join(Publish(UP, b"").encode(V5) for _ in range(30)))
    world.advance(20)
    assert not device.ended


def test_bucket():
    bucket = Bucket(10, 5, 0.0)
    assert [bucket.take(0.0) for _ in range(5)] == [0.0] * 5
    assert bucket.take(0.0) == pytest.approx(0.1)
    assert bucket.take(0.05) == pytest.approx(0.05)
    assert bucket.take(0.1) == 0.0
    assert [bucket.take(100.0) for _ in range(5)] == [0.0] * 5, "never more than the burst"
    assert bucket.take(100.0) > 0


def test_maximum_packet_size_of_the_client_is_minded_for_qos0_too():
    world = World()
    device = world.client("dev1", properties={Property.MAXIMUM_PACKET_SIZE: 60})
    device.subscribe(Request("fleet/test/down/dev1/+", 0))
    device.transport.room = 0
    station = world.station()
    station.publish(DOWN, b"first")
    station.publish(DOWN, b"x" * 100)
    station.publish(DOWN, b"last")
    device.transport.drain()
    world.turn()
    assert device.payloads() == [b"first", b"last"]
    assert world.core.counters.too_large == 1
