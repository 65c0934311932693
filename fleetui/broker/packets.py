"""The packets of MQTT 3.1.1 and 5: parsed from bytes and built, for both sides.

How a connection begins and ends (CONNECT, CONNACK, DISCONNECT) is in ``handshake``. No I/O and no state.
Parsing raises :class:`PacketError` for whatever the protocol forbids: reserved bits, empty
lists, trailing bytes, properties that do not belong. Both directions are here, so that the health check and
the tests speak through the same code that the broker is tested by, round trip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from fleetui.broker import wire
from fleetui.broker.wire import PacketError, Properties, Property, Reason, malformed

V3: Final = 4
V5: Final = 5


class Kind(IntEnum):
    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


# The lower four bits of the first byte, where they are fixed.
FLAGS: Final[dict[int, int]] = {
    kind: 2 if kind in {6, 8, 10} else 0 for kind in range(1, 16) if kind != Kind.PUBLISH
}

PINGREQ: Final = b"\xc0\x00"
PINGRESP: Final = b"\xd0\x00"


def frame(kind: int, body: bytes, flags: int | None = None) -> bytes:
    first = kind << 4 | (FLAGS[kind] if flags is None else flags)
    return bytes((first,)) + wire.encode_varint(len(body)) + body


def split(data: bytes, at: int, limit: int) -> tuple[int, int, int] | None:
    """First byte, where its body begins and ends; None if the packet is not whole yet."""
    end = len(data)
    if end - at < 2:
        return None
    length = shift = 0
    stop = at + 1
    while True:
        if stop >= end:
            return None
        byte = data[stop]
        stop += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 21:
            raise malformed("a length of more than four bytes")
    if stop - at + length > limit:
        raise PacketError(Reason.PACKET_TOO_LARGE, f"{length} bytes")
    if stop + length > end:
        return None
    return data[at], stop, stop + length


# ---------------------------------------------------------------- PUBLISH


def decode_publish(
    data: bytes,
    at: int,
    end: int,
    flags: int,
    v5: bool,  # noqa: FBT001 - the hot path passes by position
) -> tuple[bytes, int, bytes, int | None, int, bytes]:
    """(topic with its two bytes of length, packet id, properties to forward, expiry, topic alias, payload).

    This is the hot path: the topic is not decoded here (its bytes are looked up), properties are forwarded as
    they came, and nothing is an object that does not have to be one.
    """
    qos = flags >> 1 & 3
    if qos == 3 or (not qos and flags & 8):
        raise malformed("PUBLISH flags")
    stop = at + 2
    if stop > end:
        raise malformed("PUBLISH ends early")
    stop += data[at] << 8 | data[at + 1]
    packet_id = 0
    coded = data[at:stop]
    if qos:
        stop += 2
        if stop > end:
            raise malformed("PUBLISH ends early")
        packet_id = data[stop - 2] << 8 | data[stop - 1]
        if not packet_id:
            raise malformed("packet id 0")
    elif stop > end:
        raise malformed("PUBLISH ends early")
    if not v5:
        return coded, packet_id, b"", None, 0, data[stop:end]
    if stop >= end:
        raise malformed("PUBLISH without properties")
    if not data[stop]:
        return coded, packet_id, b"", None, 0, data[stop + 1 : end]
    forward, expiry, alias, stop = _publish_properties(data, stop, end)
    return coded, packet_id, forward, expiry, alias, data[stop:end]


def _publish_properties(data: bytes, at: int, end: int) -> tuple[bytes, int | None, int, int]:
    length, at = wire.decode_varint(data, at, end)
    stop = at + length
    if stop > end:
        raise malformed("properties run past the end")
    forward: list[bytes] = []
    expiry: int | None = None
    alias = 0
    seen: set[int] = set()
    while at < stop:
        kind = data[at]
        if kind not in wire.IN_PUBLISH:
            raise malformed(f"property {kind} in PUBLISH")
        if kind == Property.SUBSCRIPTION_ID:
            raise PacketError(Reason.PROTOCOL_ERROR, "a client may not send a subscription identifier")
        if kind in seen and kind != Property.USER_PROPERTY:
            raise PacketError(Reason.PROTOCOL_ERROR, f"property {kind} twice")
        seen.add(kind)
        value, after = wire.decode_value(kind, data, at + 1, stop)
        if kind == Property.MESSAGE_EXPIRY:
            expiry = value
        elif kind == Property.TOPIC_ALIAS:
            if not value:
                raise PacketError(Reason.BAD_TOPIC_ALIAS, "topic alias 0")
            alias = value
        else:
            if kind == Property.RESPONSE_TOPIC and (not value or "+" in value or "#" in value):
                raise PacketError(Reason.PROTOCOL_ERROR, "a response topic with a wildcard")
            forward.append(data[at:after])
        at = after
    return b"".join(forward), expiry, alias, stop


@dataclass(slots=True)
class Publish:
    """Used by clients of ours and tests; the broker's own way out is ``message.Message``."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    duplicate: bool = False
    packet_id: int = 0
    properties: Properties = field(default_factory=dict)

    def encode(self, version: int) -> bytes:
        parts = [wire.encode_text(self.topic)]
        if self.qos:
            parts.append(self.packet_id.to_bytes(2, "big"))
        if version == V5:
            parts.append(wire.encode_properties(self.properties))
        parts.append(self.payload)
        return frame(Kind.PUBLISH, b"".join(parts), self.duplicate << 3 | self.qos << 1 | self.retain)


def decode_publish_fully(data: bytes, at: int, end: int, flags: int, version: int) -> Publish:
    """What a subscriber makes of it."""
    qos = flags >> 1 & 3
    if qos == 3:
        raise malformed("QoS 3")
    topic, at = wire.decode_text(data, at, end)
    packet_id = 0
    if qos:
        packet_id, at = _packet_id(data, at, end)
    properties: Properties = {}
    if version == V5:
        properties, at = wire.decode_properties(data, at, end, wire.IN_PUBLISH)
    return Publish(topic, data[at:end], qos, bool(flags & 1), bool(flags & 8), packet_id, properties)


# ---------------------------------------------------------------- PUBACK, PUBREC, PUBREL, PUBCOMP


def encode_ack(kind: int, packet_id: int, reason: int = 0, *, v5: bool = False) -> bytes:
    first = kind << 4 | (2 if kind == Kind.PUBREL else 0)
    if reason and v5:
        return bytes((first, 3, packet_id >> 8, packet_id & 0xFF, reason))
    return bytes((first, 2, packet_id >> 8, packet_id & 0xFF))


def decode_ack(data: bytes, at: int, end: int, version: int) -> tuple[int, int]:
    """Packet id and reason code."""
    packet_id, at = _packet_id(data, at, end)
    if at == end:
        return packet_id, 0
    if version != V5:
        raise malformed("an acknowledgement of more than two bytes")
    reason = data[at]
    at += 1
    if at < end:
        _, at = wire.decode_properties(data, at, end, wire.IN_ACK)
        if at != end:
            raise malformed("an acknowledgement goes on behind its end")
    return packet_id, reason


def _packet_id(data: bytes, at: int, end: int) -> tuple[int, int]:
    if at + 2 > end:
        raise malformed("no packet id")
    packet_id = data[at] << 8 | data[at + 1]
    if not packet_id:
        raise malformed("packet id 0")
    return packet_id, at + 2


# ---------------------------------------------------------------- SUBSCRIBE, UNSUBSCRIBE


@dataclass(frozen=True, slots=True)
class Request:
    """One filter of a SUBSCRIBE."""

    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0

    @property
    def options(self) -> int:
        return self.qos | self.no_local << 2 | self.retain_as_published << 3 | self.retain_handling << 4

    @classmethod
    def from_options(cls, text: str, options: int) -> Request:
        return cls(text, options & 3, bool(options & 4), bool(options & 8), options >> 4 & 3)


@dataclass(slots=True)
class Subscribe:
    packet_id: int
    requests: list[Request]
    properties: Properties = field(default_factory=dict)

    def encode(self, version: int) -> bytes:
        parts = [self.packet_id.to_bytes(2, "big")]
        if version == V5:
            parts.append(wire.encode_properties(self.properties))
        for request in self.requests:
            parts += [wire.encode_text(request.filter), bytes((request.options,))]
        return frame(Kind.SUBSCRIBE, b"".join(parts))


def decode_subscribe(data: bytes, at: int, end: int, version: int) -> Subscribe:
    packet_id, at = _packet_id(data, at, end)
    properties: Properties = {}
    if version == V5:
        properties, at = wire.decode_properties(data, at, end, wire.IN_SUBSCRIBE)
        if len(properties.get(Property.SUBSCRIPTION_ID, ())) > 1:
            raise PacketError(Reason.PROTOCOL_ERROR, "two subscription identifiers")
    requests: list[Request] = []
    while at < end:
        text, at = wire.decode_text(data, at, end)
        if at >= end:
            raise malformed("a filter without options")
        options = data[at]
        at += 1
        if options & 3 == 3 or options & 0xC0 or options & 0x30 == 0x30 or (version != V5 and options & 0xFC):
            raise malformed("subscription options")
        requests.append(Request.from_options(text, options))
    if not requests:
        raise PacketError(Reason.PROTOCOL_ERROR, "SUBSCRIBE without a filter")
    return Subscribe(packet_id, requests, properties)


@dataclass(slots=True)
class Unsubscribe:
    packet_id: int
    filters: list[str]
    properties: Properties = field(default_factory=dict)

    def encode(self, version: int) -> bytes:
        parts = [self.packet_id.to_bytes(2, "big")]
        if version == V5:
            parts.append(wire.encode_properties(self.properties))
        parts += [wire.encode_text(text) for text in self.filters]
        return frame(Kind.UNSUBSCRIBE, b"".join(parts))


def decode_unsubscribe(data: bytes, at: int, end: int, version: int) -> Unsubscribe:
    packet_id, at = _packet_id(data, at, end)
    properties: Properties = {}
    if version == V5:
        properties, at = wire.decode_properties(data, at, end, wire.IN_UNSUBSCRIBE)
    filters: list[str] = []
    while at < end:
        text, at = wire.decode_text(data, at, end)
        filters.append(text)
    if not filters:
        raise PacketError(Reason.PROTOCOL_ERROR, "UNSUBSCRIBE without a filter")
    return Unsubscribe(packet_id, filters, properties)


def encode_suback(kind: int, packet_id: int, codes: Sequence[int], version: int) -> bytes:
    """SUBACK or UNSUBACK (which has codes in v5 only)."""
    body = packet_id.to_bytes(2, "big")
    if version == V5:
        body += b"\0" + bytes(codes)
    elif kind == Kind.SUBACK:
        body += bytes(0x80 if code > 2 else code for code in codes)
    return frame(kind, body)


def decode_suback(data: bytes, at: int, end: int, version: int) -> tuple[int, list[int]]:
    packet_id, at = _packet_id(data, at, end)
    if version == V5:
        _, at = wire.decode_properties(data, at, end, wire.IN_ACK)
    return packet_id, list(data[at:end])
