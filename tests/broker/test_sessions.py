"""What a session does: QoS, windows, order, resuming, taking over, expiry, wills, options of MQTT 5."""

from __future__ import annotations

import pytest

from fleetui.broker import handshake, packets
from fleetui.broker.packets import V3, V5, Kind, Publish, Request
from fleetui.broker.wire import Property, Reason
from tests.broker.world import World

UP = "fleet/test/up/dev1/win"
DOWN = "fleet/test/down/dev1/ask"


@pytest.fixture
def world():
    return World()


def ids(client) -> list[int]:
    return [message.packet_id for message in client.messages(ack=False)]


# ---------------------------------------------------------------- delivering


@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("versions", [(V3, V3), (V5, V5), (V5, V3), (V3, V5)])
def test_the_lower_qos_counts(world, published, granted, versions):
    device = world.client("dev1", version=versions[0])
    station = world.client("station", version=versions[1])
    assert station.subscribe(Request("fleet/test/up/#", granted)) == [granted]
    assert device.publish(UP, b"x", qos=published) in {None, 0}
    (message,) = station.messages()
    assert (message.topic, message.payload, message.qos) == (UP, b"x", min(published, granted))
    assert not message.retain
    assert not world.core.sessions["station"].inflight
    assert world.core.memory.held == 0


def test_qos2_is_handed_on_once_however_often_it_is_sent(world):
    station = world.station()
    station.subscribe("#", qos=2)
    device = world.client("dev1")
    packet = Publish(UP, b"once", 2, packet_id=9)
    device.send(packet.encode(V5))
    packet.duplicate = True
    device.send(packet.encode(V5), packet.encode(V5))
    assert [kind for kind, _ in device.received()] == [Kind.PUBREC] * 3
    assert station.payloads() == [b"once"]
    device.send(packets.encode_ack(Kind.PUBREL, 9))
    assert device.received() == [(Kind.PUBCOMP, b"\0\x09")]
    device.send(packet.encode(V5))
    assert station.payloads() == [b"once"], "after its release the packet id means another message"


def test_unknown_releases_are_answered_with_a_reason(world):
    device = world.client("dev1")
    device.send(packets.encode_ack(Kind.PUBREL, 77))
    assert device.received() == [(Kind.PUBCOMP, b"\0\x4d" + bytes((Reason.PACKET_ID_NOT_FOUND,)))]
    device.send(packets.encode_ack(Kind.PUBREC, 78))
    assert device.received() == [(Kind.PUBREL, b"\0\x4e" + bytes((Reason.PACKET_ID_NOT_FOUND,)))]
    device.send(packets.encode_ack(Kind.PUBACK, 79), packets.encode_ack(Kind.PUBCOMP, 80))
    assert not device.ended


@pytest.mark.parametrize(("qos", "kind"), [(1, Kind.PUBREC), (1, Kind.PUBCOMP), (2, Kind.PUBACK)])
def test_the_wrong_acknowledgement_ends_the_connection(world, qos, kind):
    device = world.client("dev1")
    device.subscribe(Request("fleet/test/down/dev1/+", qos))
    world.station().publish(DOWN, b"x", qos=2)
    (packet_id,) = ids(device)
    device.send(packets.encode_ack(kind, packet_id))
    assert device.goodbye == Reason.PROTOCOL_ERROR


def test_a_refused_qos2_delivery_is_over(world):
    device = world.client("dev1")
    device.subscribe(Request("fleet/test/down/dev1/+", 2))
    world.station().publish(DOWN, b"x", qos=2)
    (packet_id,) = ids(device)
    device.send(packets.encode_ack(Kind.PUBREC, packet_id, Reason.UNSPECIFIED, v5=True))
    assert not device.received()
    assert not world.core.sessions["dev1"].inflight


def test_publisher_is_told_that_nobody_listens(world):
    device = world.client("dev1")
    assert device.publish(UP, b"", qos=1) == Reason.NO_MATCHING_SUBSCRIBERS
    assert device.publish(UP, b"", qos=2) == Reason.NO_MATCHING_SUBSCRIBERS
    world.station().subscribe("fleet/test/up/+/+")
    assert device.publish(UP, b"", qos=1) == Reason.SUCCESS


# ---------------------------------------------------------------- window and order


def test_no_more_on_the_way_than_the_client_allows(world):
    device = world.client("dev1", properties={Property.RECEIVE_MAXIMUM: 2})
    device.subscribe(Request("fleet/test/down/dev1/+", 1))
    station = world.station()
    for i in range(5):
        station.publish(DOWN, b"%d" % i, qos=1)
    first = device.messages(ack=False)
    assert [m.payload for m in first] == [b"0", b"1"]
    assert not device.messages()
    device.send(packets.encode_ack(Kind.PUBACK, first[0].packet_id))
    (third,) = device.messages(ack=False)
    assert third.payload == b"2"
    device.send(*(packets.encode_ack(Kind.PUBACK, m.packet_id) for m in (first[1], third)))
    assert device.payloads() == [b"3", b"4"]


def test_qos0_does_not_wait_for_the_window(world):
    device = world.client("dev1", properties={Property.RECEIVE_MAXIMUM: 1})
    device.subscribe(Request("fleet/test/down/dev1/+", 1))
    station = world.station()
    station.publish(DOWN, b"one", qos=1)
    station.publish(DOWN, b"two", qos=1)
    station.publish(DOWN, b"now", qos=0)
    assert device.payloads(ack=False) == [b"one", b"now"]


def test_offline_messages_come_in_order_and_once(world):
    device = world.client("dev1", expiry=100)
    device.subscribe(Request("fleet/test/down/dev1/+", 2))
    device.disconnect()
    station = world.station()
    for i in range(20):
        assert station.publish(DOWN, b"%d" % i, qos=1 + i % 2) == 0
    station.publish(DOWN, b"not kept", qos=0)
    back = world.client("dev1", clean=False, expiry=100)
    assert back.connack.session_present
    assert back.payloads() == [b"%d" % i for i in range(20)]
    back.vanish()
    again = world.client("dev1", clean=False, expiry=100)
    assert again.payloads() == []


def test_unacknowledged_are_sent_again_with_dup_and_the_same_id(world):
    device = world.client("dev1", expiry=100)
    device.subscribe(Request("fleet/test/down/dev1/+", 2))
    station = world.station()
    station.publish(DOWN, b"one", qos=1)
    station.publish(DOWN, b"two", qos=2)
    station.publish(DOWN, b"received", qos=2)
    before = device.messages(ack=False)
    assert [m.duplicate for m in before] == [False] * 3
    device.send(packets.encode_ack(Kind.PUBREC, before[2].packet_id))
    device.vanish()
    station.publish(DOWN, b"later", qos=1)
    back = world.client("dev1", clean=False, expiry=100)
    got = [*back._early, *back.received()]
    again = [p for p in got if isinstance(p, Publish)]
    assert [(m.payload, m.duplicate) for m in again] == [(b"one", True), (b"two", True), (b"later", False)]
    assert [m.packet_id for m in again[:2]] == [m.packet_id for m in before[:2]]
    assert (Kind.PUBREL, before[2].packet_id.to_bytes(2, "big")) in got, "what was received is only completed"


def test_coming_back_with_a_smaller_window(world):
    device = world.client("dev1", expiry=100)
    device.subscribe(Request("fleet/test/down/dev1/+", 1))
    station = world.station()
    for i in range(6):
        station.publish(DOWN, b"%d" % i, qos=1)
    device.vanish()
    station.publish(DOWN, b"6", qos=1)
    back = world.client("dev1", clean=False, expiry=100, properties={Property.RECEIVE_MAXIMUM: 2})
    seen = []
    while batch := back.messages():
        assert len(batch) <= 2
        seen += [m.payload for m in batch]
    assert seen == [b"%d" % i for i in range(7)]


def test_packet_ids_wrap_and_skip_those_on_their_way(world):
    device = world.client("dev1")
    device.subscribe(Request("fleet/test/down/dev1/+", 1))
    station = world.station()
    station.publish(DOWN, b"stays", qos=1)
    (first,) = ids(device)
    world.core.sessions["dev1"].packet_id = 65_534
    station.publish(DOWN, b"a", qos=1)
    station.publish(DOWN, b"b", qos=1)
    assert first == 1
    assert ids(device) == [65_535, 2]


def test_a_clean_start_forgets(world):
    device = world.client("dev1", expiry=100)
    device.subscribe(Request("fleet/test/down/dev1/+", 1))
    device.disconnect()
    world.station().publish(DOWN, b"x", qos=1)
    back = world.client("dev1", clean=True, expiry=100)
    assert not back.connack.session_present
    assert not back.messages()
    assert not world.core.sessions["dev1"].subscriptions
    assert world.core.index.count == 0
    assert world.core.memory.held == 0


# ---------------------------------------------------------------- connections


def test_a_second_connection_takes_the_session_over(world):
    first = world.client("dev1", expiry=100)
    first.subscribe(Request("fleet/test/down/dev1/+", 1))
    second = world.client("dev1", clean=False, expiry=100)
    assert first.goodbye == Reason.TAKEN_OVER
    assert second.connack.session_present
    world.station().publish(DOWN, b"x", qos=1)
    assert second.payloads() == [b"x"]


def test_sessions_last_as_long_as_asked(world):
    def leave_and_return(expiry: int, away: float) -> bool:
        client = world.client("dev1", expiry=expiry)
        client.disconnect()
        world.advance(away)
        back = world.client("dev1", clean=False, expiry=expiry)
        present = back.connack.session_present
        back.disconnect(session_expiry=0)
        return present

    assert not leave_and_return(0, 0.1)
    assert leave_and_return(5, 4)
    assert not leave_and_return(5, 7)


def test_session_expiry_may_change_with_disconnect_but_not_begin(world):
    client = world.client("dev1", expiry=1)
    client.disconnect(session_expiry=50)
    world.advance(20)
    assert world.client("dev1", clean=False, expiry=50).connack.session_present
    other = world.client("dev2")
    other.disconnect(session_expiry=50)
    assert other.goodbye == Reason.PROTOCOL_ERROR


def test_v3_clean_session_flag_decides(world):
    client = world.client("dev1", version=V3, clean=False)
    client.subscribe(Request("fleet/test/down/dev1/+", 1))
    client.disconnect()
    world.station().publish(DOWN, b"kept", qos=1)
    back = world.client("dev1", version=V3, clean=False)
    assert back.connack.session_present
    assert back.payloads() == [b"kept"]
    assert not world.client("dev1", version=V3, clean=True).connack.session_present


def test_a_silent_client_is_ended_after_its_keepalive(world):
    client = world.client("dev1", keepalive=10)
    for _ in range(4):
        world.advance(9)
        client.send(packets.PINGREQ)
    assert not client.ended
    assert client.received().count((Kind.PINGRESP, b"")) == 4
    world.advance(14)
    assert not client.ended
    world.advance(4)
    assert client.goodbye == Reason.KEEP_ALIVE_TIMEOUT
    assert world.core.counters.timed_out == 1


def test_no_keepalive_means_no_end(world):
    client = world.client("dev1", keepalive=0)
    world.advance(100_000, step=10_000)
    assert not client.ended


def test_a_longest_keepalive_is_told(world):
    world = World(max_keepalive_s=60)
    assert world.client("dev1", keepalive=600).connack.properties[Property.SERVER_KEEP_ALIVE] == 60
    assert world.client("dev2", keepalive=0).connack.properties[Property.SERVER_KEEP_ALIVE] == 60
    assert Property.SERVER_KEEP_ALIVE not in world.client("dev3", keepalive=30).connack.properties


def test_who_does_not_introduce_itself_is_ended(world):
    stranger = world.socket()
    world.advance(9)
    assert not stranger.ended
    world.advance(2)
    assert stranger.ended


def test_what_the_server_says_of_itself(world):
    properties = world.client("dev1", expiry=10**9).connack.properties
    assert properties[Property.RECEIVE_MAXIMUM] == world.limits.receive_maximum
    assert properties[Property.MAXIMUM_PACKET_SIZE] == world.limits.max_packet
    assert properties[Property.TOPIC_ALIAS_MAXIMUM] == world.limits.topic_aliases
    assert properties[Property.SESSION_EXPIRY] == world.limits.session_expiry_s


@pytest.mark.parametrize("version", [V3, V5])
def test_a_client_id_is_given_where_none_came(world, version):
    client = world.client("", version=version, policy="open", clean=True)
    assert client.connack.reason == Reason.SUCCESS
    if version == V5:
        assert client.connack.properties[Property.ASSIGNED_CLIENT_ID] in world.core.sessions
    refused = world.client("", version=version, policy="open", clean=False)
    assert (refused.connack.reason == 0) == (version == V5)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (packets.PINGREQ, None),
        (Publish("a").encode(V5), None),
        (handshake.Connect("x", version=V5).encode().replace(b"MQTT\x05", b"MQTT\x07"), 1),
    ],
)
def test_connections_that_begin_wrongly(world, data, reason):
    stranger = world.socket(version=V3)
    stranger.send(data)
    assert stranger.ended
    answers = stranger.received()
    assert [a.reason for a in answers] == ([] if reason is None else [reason])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (handshake.Connect("dev1").encode(), Reason.PROTOCOL_ERROR),  # CONNECT twice
        (b"\xf0\x00", Reason.PROTOCOL_ERROR),  # AUTH that nobody asked for
        (b"\x00\x00", Reason.MALFORMED),
        (b"\xc1\x00", Reason.MALFORMED),  # PINGREQ with flags
        (b"\xc0\x01\x00", Reason.MALFORMED),  # PINGREQ with a body
        (b"\x80\x00", Reason.MALFORMED),  # SUBSCRIBE with wrong flags
        (b"\x20\x02\x00\x00", Reason.PROTOCOL_ERROR),  # CONNACK from a client
        (Publish("fleet/test/up/dev1/#", b"").encode(V5), Reason.BAD_TOPIC),
        (Publish("", b"").encode(V5), Reason.BAD_TOPIC),
        (b"\x30\xff\xff\xff\x7f", Reason.PACKET_TOO_LARGE),
        (b"\x30\xff\xff\xff\xff\x7f", Reason.MALFORMED),
    ],
)
def test_packets_that_end_a_connection(world, data, reason):
    client = world.client("dev1")
    client.send(data)
    assert client.goodbye == reason
    assert client.ended
    assert world.core.counters.malformed == 1
    client.send(packets.PINGREQ)
    assert not client.received(), "nothing is answered any more"


# ---------------------------------------------------------------- wills

WILL = handshake.Will("fleet/test/up/dev1/gone", b"gone", 1, False)


def delayed(seconds: int) -> handshake.Will:
    return handshake.Will("fleet/test/up/dev1/gone", b"gone", 1, False, {Property.WILL_DELAY: seconds})


def watcher(world: World):
    station = world.station()
    station.subscribe("fleet/test/up/+/gone")
    return station


def test_will_is_published_when_the_connection_breaks(world):
    station = watcher(world)
    world.client("dev1", will=WILL).vanish()
    assert station.payloads() == [b"gone"]


def test_will_is_not_published_after_a_goodbye_unless_wished(world):
    station = watcher(world)
    world.client("dev1", will=WILL).disconnect()
    assert not station.messages()
    world.client("dev1", will=WILL).disconnect(Reason.DISCONNECT_WITH_WILL)
    assert station.payloads() == [b"gone"]


def test_will_after_keepalive_and_after_a_broken_packet(world):
    station = watcher(world)
    world.client("dev1", will=WILL, keepalive=5)
    world.advance(10)
    assert station.payloads() == [b"gone"]
    world.client("dev1", will=WILL).send(b"\x00\x00")
    assert station.payloads() == [b"gone"]


def test_a_retained_will_stays(world):
    world.client("dev1", will=handshake.Will("fleet/test/up/dev1/gone", b"gone", 0, True)).vanish()
    assert [m.retain for m in watcher(world).messages()] == [True]


def test_will_waits_for_its_delay_and_a_return_revokes_it(world):
    station = watcher(world)
    world.client("dev1", will=delayed(5), expiry=60).vanish()
    world.advance(4)
    assert not station.messages()
    world.client("dev1", clean=False, expiry=60, will=delayed(5)).vanish()
    world.advance(4)
    assert not station.messages()
    world.advance(2)
    assert station.payloads() == [b"gone"]
    assert world.loop.timers == 0


@pytest.mark.parametrize("how", ["session ends first", "clean start"])
def test_will_comes_at_the_end_of_the_session_at_the_latest(world, how):
    station = watcher(world)
    world.client("dev1", will=delayed(50), expiry=3 if how == "session ends first" else 60).vanish()
    if how == "clean start":
        world.client("dev1", clean=True)
    else:
        world.advance(4)
    assert station.payloads() == [b"gone"]
    world.advance(60)
    assert not station.messages()


def test_will_keeps_its_properties_and_expiry(world):
    station = watcher(world)
    will = handshake.Will("fleet/test/up/dev1/gone", b"gone", 1, False)
    will.properties = {
        Property.MESSAGE_EXPIRY: 30,
        Property.USER_PROPERTY: [("a", "1"), ("b", "2")],
        Property.CONTENT_TYPE: "x",
        Property.WILL_DELAY: 0,
    }
    world.client("dev1", will=will).vanish()
    (message,) = station.messages()
    assert message.properties == {
        Property.CONTENT_TYPE: "x",
        Property.USER_PROPERTY: [("a", "1"), ("b", "2")],
        Property.MESSAGE_EXPIRY: 30,
    }


# ---------------------------------------------------------------- retained


def test_retained_handling(world):
    station = world.station()
    station.publish(DOWN, b"kept", qos=1, retain=True)
    device = world.client("dev1")
    pattern = "fleet/test/down/dev1/+"
    assert device.subscribe(Request(pattern, 1, retain_handling=1)) == [1]
    assert [(m.payload, m.retain) for m in device.messages()] == [(b"kept", True)]
    device.subscribe(Request(pattern, 1, retain_handling=1))
    assert not device.messages(), "1: only for a new subscription"
    device.subscribe(Request(pattern, 1, retain_handling=0))
    assert device.payloads() == [b"kept"]
    device.unsubscribe(pattern)
    device.subscribe(Request(pattern, 1, retain_handling=2))
    assert not device.messages()


def test_retained_flag_as_published_only_where_asked_for(world):
    device = world.client("dev1")
    device.subscribe(Request("fleet/test/down/dev1/a", 1, retain_as_published=True))
    device.subscribe(Request("fleet/test/down/dev1/b", 1))
    station = world.station()
    for name in "ab":
        station.publish(f"fleet/test/down/dev1/{name}", b"x", qos=1, retain=True)
        station.publish(f"fleet/test/down/dev1/{name}", b"x", qos=1)
    assert [(m.topic[-1], m.retain) for m in device.messages()] == [
        ("a", True),
        ("a", False),
        ("b", False),
        ("b", False),
    ]


def test_an_empty_payload_clears(world):
    station = world.station()
    station.publish(DOWN, b"kept", retain=True)
    assert len(world.core.retained) == 1
    station.publish(DOWN, b"", retain=True)
    assert len(world.core.retained) == 0
    assert world.core.memory.held == 0
    device = world.client("dev1")
    device.subscribe("fleet/test/down/dev1/+")
    assert not device.messages()


# ---------------------------------------------------------------- MQTT 5


def test_no_local(world):
    station = world.station()
    station.subscribe(Request("a/#", 1, no_local=True))
    other = world.client("other", policy="open")
    other.subscribe("a/#")
    station.publish("a/b", b"x", qos=1)
    assert not station.messages()
    assert other.payloads() == [b"x"]
    station.send(packets.Subscribe(1, [Request("$share/g/a", 1, no_local=True)]).encode(V5))
    assert station.goodbye == Reason.PROTOCOL_ERROR


def test_subscription_identifiers(world):
    station = world.station()
    station.subscribe("a/+", identifier=7)
    station.subscribe("a/#", identifier=8)
    station.subscribe("a/b")
    station.publish("a/b", b"x", qos=1)
    (message,) = station.messages()
    assert sorted(message.properties[Property.SUBSCRIPTION_ID]) == [7, 8]


def test_properties_travel(world):
    station = world.station()
    station.subscribe("fleet/test/up/#")
    old = world.client("old", policy="open", version=V3)
    old.subscribe("fleet/test/up/#")
    device = world.client("dev1")
    device.publish(
        UP,
        b"x",
        qos=1,
        payload_format=1,
        content_type="text/plain",
        response_topic="fleet/test/up/dev1/reply",
        correlation=b"\1\2",
        user_property=[("a", "2"), ("a", "3")],
    )
    (message,) = station.messages()
    assert message.properties == {
        Property.PAYLOAD_FORMAT: 1,
        Property.CONTENT_TYPE: "text/plain",
        Property.RESPONSE_TOPIC: "fleet/test/up/dev1/reply",
        Property.CORRELATION: b"\1\2",
        Property.USER_PROPERTY: [("a", "2"), ("a", "3")],
    }
    (plain,) = old.messages()
    assert (plain.payload, plain.properties) == (b"x", {})


def test_topic_aliases(world):
    station = world.station()
    station.subscribe("fleet/test/up/#")
    device = world.client("dev1")
    device.publish(UP, b"1", topic_alias=3)
    device.publish("", b"2", topic_alias=3)
    device.publish("fleet/test/up/dev1/beat", b"3", topic_alias=3)
    device.publish("", b"4", topic_alias=3)
    got = station.messages()
    assert [m.topic.rsplit("/", 1)[1] for m in got] == ["win", "win", "beat", "beat"]
    assert all(Property.TOPIC_ALIAS not in m.properties for m in got)
    device.publish("", b"5", topic_alias=4)
    assert device.goodbye == Reason.BAD_TOPIC_ALIAS
    late = world.client("dev1")
    late.publish(UP, b"6", topic_alias=17)
    assert late.goodbye == Reason.BAD_TOPIC_ALIAS


@pytest.mark.logs_warnings("Denied")
def test_an_alias_is_no_way_around_access_control(world):
    station = world.station()
    station.subscribe("#")
    device = world.client("dev1")
    device.publish("fleet/test/up/dev2/win", b"denied", topic_alias=1)
    device.publish("", b"denied too", topic_alias=1)
    assert not station.messages()
    assert world.core.counters.denied_publish == 2


def test_messages_expire_while_they_wait(world):
    device = world.client("dev1", expiry=100)
    device.subscribe(Request("fleet/test/down/dev1/+", 1))
    device.disconnect()
    station = world.station()
    station.publish(DOWN, b"short", qos=1, message_expiry=3)
    station.publish(DOWN, b"long", qos=1, message_expiry=30)
    station.publish(DOWN, b"for ever", qos=1)
    world.advance(10)
    back = world.client("dev1", clean=False, expiry=100)
    got = back.messages()
    assert [m.payload for m in got] == [b"long", b"for ever"]
    assert got[0].properties == {Property.MESSAGE_EXPIRY: 20}
    assert world.core.counters.expired == 1
    assert world.core.memory.held == 0


def test_retained_messages_expire(world):
    station = world.station()
    station.publish(DOWN, b"kept", retain=True, message_expiry=10)
    world.advance(4)
    device = world.client("dev1")
    device.subscribe("fleet/test/down/dev1/+")
    (message,) = device.messages()
    assert message.properties == {Property.MESSAGE_EXPIRY: 6}
    world.advance(7)
    device.subscribe("fleet/test/down/dev1/+")
    assert not device.messages()
    world.core.sweep_retained()
    assert len(world.core.retained) == 0


def test_what_is_larger_than_the_client_takes_is_not_sent(world):
    device = world.client("dev1", properties={Property.MAXIMUM_PACKET_SIZE: 100})
    device.subscribe(Request("fleet/test/down/dev1/+", 2))
    station = world.station()
    for qos in (0, 1, 2):
        station.publish(DOWN, b"x" * 100, qos=qos)
        station.publish(DOWN, b"x" * 20, qos=qos)
    assert device.payloads() == [b"x" * 20] * 3
    assert world.core.counters.too_large == 3
    assert not world.core.sessions["dev1"].inflight


def test_shared_subscriptions_hand_on_what_a_gone_member_left(world):
    first = world.client("a", policy="open", properties={Property.RECEIVE_MAXIMUM: 1})
    second = world.client("b", policy="open")
    first.subscribe("$share/g/fleet/test/up/#")
    station = world.client("dev1")
    for i in range(4):
        station.publish(UP, b"%d" % i, qos=1)
    assert first.payloads(ack=False) == [b"0"]
    second.subscribe("$share/g/fleet/test/up/#")
    first.vanish()
    assert second.payloads() == [b"0", b"1", b"2", b"3"]
    assert world.core.memory.held == 0


def test_shared_subscriptions_get_no_retained_and_one_copy(world):
    world.station().publish("a", b"kept", retain=True)
    members = [world.client(name, policy="open") for name in "abc"]
    for member in members:
        member.subscribe("$share/g/a")
        assert not member.messages()
    for i in range(9):
        members[0].publish("a", b"%d" % i, qos=1)
    counts = [len(member.messages()) for member in members]
    assert sum(counts) == 9
    assert min(counts) == 3


def test_more_qos2_under_way_than_allowed_ends_the_connection(world):
    world = World(receive_maximum=3)
    device = world.client("dev1")
    for i in range(1, 5):
        device.send(Publish(UP, b"", 2, packet_id=i).encode(V5))
    assert device.goodbye == Reason.RECEIVE_MAXIMUM


def test_unsubscribing(world):
    device = world.client("dev1")
    device.subscribe("fleet/test/down/dev1/a", "fleet/test/down/dev1/b")
    assert device.unsubscribe("fleet/test/down/dev1/a", "never") == [0, Reason.NO_SUBSCRIPTION_EXISTED]
    station = world.station()
    station.publish("fleet/test/down/dev1/a", b"a", qos=1)
    station.publish("fleet/test/down/dev1/b", b"b", qos=1)
    assert device.payloads() == [b"b"]


def test_extended_authentication_is_refused_with_its_reason(world):
    client = world.client("dev1", properties={Property.AUTHENTICATION_METHOD: "x"})
    assert client.connack.reason == Reason.BAD_AUTHENTICATION_METHOD


def test_dollar_topics_are_not_matched_by_leading_wildcards(world):
    station = world.station()
    station.subscribe("#", "+/broker/uptime")
    world.core.announce("$SYS/broker/uptime", b"5", retain=True)
    assert not station.messages()
    station.subscribe("$SYS/#")
    assert [(m.topic, m.retain) for m in station.messages()] == [("$SYS/broker/uptime", True)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_packets_may_come_in_pieces_of_any_size(world, size):
    station = world.station()
    station.subscribe("fleet/test/up/#")
    device = world.client("dev1")
    data = b"".join(Publish(UP, b"%d" % i * 50, 1, packet_id=i + 1).encode(V5) for i in range(5))
    for at in range(0, len(data), size):
        device.feed(data[at : at + size])
    world.turn()
    assert station.payloads() == [b"%d" % i * 50 for i in range(5)]
    assert len(device.received()) == 5
    assert world.core.partial == 0
