"""Packets: what is built is read back alike; what is cut or bent is refused, and never anything but refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.broker import handshake, packets, wire
from fleetui.broker.packets import V3, V5, Kind, Publish, Request, Subscribe
from fleetui.broker.wire import PacketError, Property, Reason
from tests.broker.strategies import (
    any_packet,
    connects,
    packet_ids,
    properties_for,
    publishes,
    subscribes,
    versions,
)


def body_of(data: bytes) -> tuple[int, int, int]:
    found = packets.split(data, 0, 1 << 28)
    assert found is not None
    assert found[2] == len(data)
    return found


@given(connects())
def test_connect_round_trip(packet):
    data = packet.encode()
    _, start, stop = body_of(data)
    assert handshake.decode_connect(data, start, stop) == packet


@given(versions.flatmap(lambda v: st.tuples(st.just(v), publishes(v))))
def test_publish_round_trip(case):
    version, packet = case
    data = packet.encode(version)
    first, start, stop = body_of(data)
    assert packets.decode_publish_fully(data, start, stop, first & 15, version) == packet


@given(versions.flatmap(lambda v: st.tuples(st.just(v), publishes(v))))
def test_hot_path_reads_the_same_as_the_careful_one(case):
    version, packet = case
    data = packet.encode(version)
    first, start, stop = body_of(data)
    coded, packet_id, forward, expiry, alias, payload = packets.decode_publish(
        data, start, stop, first & 15, version == V5
    )
    assert coded == wire.encode_text(packet.topic)
    assert (packet_id, payload) == (packet.packet_id, packet.payload)
    assert expiry == packet.properties.get(Property.MESSAGE_EXPIRY)
    assert alias == packet.properties.get(Property.TOPIC_ALIAS, 0)
    block = wire.encode_varint(len(forward)) + forward
    kept, _ = wire.decode_properties(block, 0, len(block), wire.FORWARDED)
    assert kept == {k: v for k, v in packet.properties.items() if k in wire.FORWARDED}


@given(versions.flatmap(lambda v: st.tuples(st.just(v), subscribes(v))))
def test_subscribe_round_trip(case):
    version, packet = case
    data = packet.encode(version)
    _, start, stop = body_of(data)
    assert packets.decode_subscribe(data, start, stop, version) == packet


@given(versions, st.integers(0, 255), st.booleans(), properties_for(wire.IN_CONNACK))
def test_connack_round_trip(version, reason, present, properties):
    if version == V3:
        properties = {}
    data = handshake.Connack(reason, present, properties).encode(version)
    _, start, stop = body_of(data)
    read = handshake.decode_connack(data, start, stop, version)
    assert read.session_present == present
    if version == V5:
        assert (read.reason, read.properties) == (reason, properties)
    else:
        assert read.reason <= 5
        assert (read.reason == 0) == (reason == 0)


@given(versions, packet_ids, st.integers(0, 255), st.sampled_from([4, 5, 6, 7]))
def test_ack_round_trip(version, packet_id, reason, kind):
    data = packets.encode_ack(kind, packet_id, reason, v5=version == V5)
    first, start, stop = body_of(data)
    assert first == kind << 4 | packets.FLAGS[kind]
    assert packets.decode_ack(data, start, stop, version) == (packet_id, reason if version == V5 else 0)


def read(data: bytes, version: int) -> None:
    """What the broker does with a packet, whichever it is."""
    found = packets.split(data, 0, 1 << 20)
    if found is None:
        return
    first, start, stop = found
    kind = first >> 4
    if kind == Kind.CONNECT:
        handshake.decode_connect(data, start, stop)
    elif kind == Kind.PUBLISH:
        packets.decode_publish(data, start, stop, first & 15, version == V5)
    elif kind == Kind.SUBSCRIBE:
        packets.decode_subscribe(data, start, stop, version)
    elif kind == Kind.UNSUBSCRIBE:
        packets.decode_unsubscribe(data, start, stop, version)
    elif kind in {Kind.PUBACK, Kind.PUBREC, Kind.PUBREL, Kind.PUBCOMP}:
        packets.decode_ack(data, start, stop, version)
    elif kind == Kind.DISCONNECT:
        handshake.decode_disconnect(data, start, stop, version)


@given(any_packet(), st.data())
def test_bent_packets_are_refused_or_read_but_nothing_else(case, data):
    packet, version = case
    bent = bytearray(packet)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(bent) - 1))
        bent[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PacketError):
        read(bytes(bent), version)


@given(any_packet(), st.data())
def test_a_packet_that_says_it_is_shorter_is_refused_or_complete(case, data):
    """Cut inside its body, with the length made to fit: no reading past the end, no other exception."""
    packet, version = case
    _, start, stop = body_of(packet)
    cut = data.draw(st.integers(start, stop))
    shorter = packet[:1] + wire.encode_varint(cut - start) + packet[start:cut]
    try:
        read(shorter, version)
    except PacketError:
        return


@given(any_packet(), st.data())
def test_unfinished_packets_wait(case, data):
    packet, _ = case
    cut = data.draw(st.integers(0, len(packet) - 1))
    assert packets.split(packet[:cut], 0, 1 << 28) is None


def test_split_finds_each_of_several_and_minds_the_limit():
    data = packets.PINGREQ + Publish("a", b"x" * 200).encode(V5) + packets.PINGRESP
    first, _, stop = packets.split(data, 0, 1000)
    assert (first, stop) == (0xC0, 2)
    first, start, stop = packets.split(data, stop, 1000)
    assert first == 0x30
    assert data[start:stop].endswith(b"x" * 200)
    with pytest.raises(PacketError) as caught:
        packets.split(data, 2, 150)
    assert caught.value.reason == Reason.PACKET_TOO_LARGE
    with pytest.raises(PacketError):
        packets.split(b"\x30\xff\xff\xff\xff\x01", 0, 1 << 28)


CONNECT = handshake.Connect("c", version=V3).encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (CONNECT.replace(b"MQTT", b"MQIs"), Reason.UNSUPPORTED_VERSION),
        (CONNECT.replace(b"MQTT\x04", b"MQTT\x03"), Reason.UNSUPPORTED_VERSION),
        (CONNECT.replace(b"MQTT\x04", b"MQTT\x06"), Reason.UNSUPPORTED_VERSION),
        (CONNECT.replace(b"\x04\x02\x00", b"\x04\x03\x00"), Reason.MALFORMED),  # reserved bit
        (CONNECT.replace(b"\x04\x02\x00", b"\x04\x22\x00"), Reason.MALFORMED),  # will retain without will
        (CONNECT.replace(b"\x04\x02\x00", b"\x04\x1e\x00"), Reason.MALFORMED),  # will QoS 3
        (CONNECT.replace(b"\x04\x02\x00", b"\x04\x42\x00"), Reason.MALFORMED),  # password without user name
        (packets.frame(Kind.CONNECT, CONNECT[2:] + b"!"), Reason.MALFORMED),  # more behind the end
        (packets.frame(Kind.CONNECT, b"\0\4MQTT"), Reason.MALFORMED),
        (packets.frame(Kind.CONNECT, b""), Reason.MALFORMED),
    ],
)
def test_connect_that_must_not_be(data, reason):
    _, start, stop = body_of(data)
    with pytest.raises(PacketError) as caught:
        handshake.decode_connect(data, start, stop)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("body", "flags", "reason"),
    [
        (b"\0\1a\0\1\0", 6, Reason.MALFORMED),  # QoS 3
        (b"\0\1a\0", 8, Reason.MALFORMED),  # DUP at QoS 0
        (b"\0\1a\0\0\0", 2, Reason.MALFORMED),  # packet id 0
        (b"\0\5a", 0, Reason.MALFORMED),
        (b"\0\1a", 2, Reason.MALFORMED),
        (b"\0\1a", 0, Reason.MALFORMED),  # v5 without properties
        (b"\0\1a\x02\x0b\x05", 0, Reason.PROTOCOL_ERROR),  # a subscription identifier from a client
        (b"\0\1a\x03\x23\0\0", 0, Reason.BAD_TOPIC_ALIAS),  # alias 0
        (b"\0\1a\x06\x23\0\1\x23\0\1", 0, Reason.PROTOCOL_ERROR),  # alias twice
        (b"\0\1a\x04\x08\0\1#", 0, Reason.PROTOCOL_ERROR),  # a response topic with a wildcard
    ],
)
def test_publish_that_must_not_be(body, flags, reason):
    with pytest.raises(PacketError) as caught:
        packets.decode_publish(body, 0, len(body), flags, True)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("packet", "version"),
    [
        (b"\0\1", V3),  # nothing asked for
        (b"\0\1\0", V5),
        (b"\0\0\0\1a\0", V3),  # packet id 0
        (b"\0\1\0\1a\3", V3),  # QoS 3
        (b"\0\1\0\1a\4", V3),  # options of MQTT 5
        (b"\0\1\0\0\1a\x30", V5),  # retain handling 3
        (b"\0\1\0\0\1a\x40", V5),  # reserved
        (b"\0\1\0\1a", V3),  # no options
    ],
)
def test_subscribe_that_must_not_be(packet, version):
    with pytest.raises(PacketError):
        packets.decode_subscribe(packet, 0, len(packet), version)


def test_v3_suback_says_0x80_for_every_failure():
    data = packets.encode_suback(Kind.SUBACK, 5, [0, 1, 2, 0x87, 0x8F], V3)
    assert packets.decode_suback(data, 2, len(data), V3) == (5, [0, 1, 2, 0x80, 0x80])


def test_options_round_trip():
    for options in range(64):
        if options & 3 != 3 and options & 0x30 != 0x30:
            assert Request.from_options("a", options).options == options
    assert Subscribe(1, [Request("a")]).encode(V3)[-1] == 0
