"""How a connection begins and ends: CONNECT, CONNACK and DISCONNECT, parsed and built for both sides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from fleetui.broker import wire
from fleetui.broker.packets import V3, V5, Kind, frame
from fleetui.broker.wire import PacketError, Properties, Reason, malformed

# ---------------------------------------------------------------- CONNECT, CONNACK


@dataclass(slots=True)
class Will:
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Connect:
    client_id: str
    version: int = V5
    clean: bool = True
    keepalive: int = 0
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties = field(default_factory=dict)

    def encode(self) -> bytes:
        flags = self.clean << 1
        if self.will is not None:
            flags |= 4 | self.will.qos << 3 | self.will.retain << 5
        flags |= (self.username is not None) << 7 | (self.password is not None) << 6
        parts = [wire.encode_text("MQTT"), bytes((self.version, flags)), self.keepalive.to_bytes(2, "big")]
        if self.version == V5:
            parts.append(wire.encode_properties(self.properties))
        parts.append(wire.encode_text(self.client_id))
        if self.will is not None:
            if self.version == V5:
                parts.append(wire.encode_properties(self.will.properties))
            parts += [wire.encode_text(self.will.topic), wire.encode_binary(self.will.payload)]
        if self.username is not None:
            parts.append(wire.encode_text(self.username))
        if self.password is not None:
            parts.append(wire.encode_binary(self.password))
        return frame(Kind.CONNECT, b"".join(parts))


def decode_connect(data: bytes, at: int, end: int) -> Connect:
    name, at = wire.decode_binary(data, at, end)
    if at >= end:
        raise malformed("CONNECT ends early")
    version = data[at]
    if name != b"MQTT" or version not in {V3, V5}:
        raise PacketError(Reason.UNSUPPORTED_VERSION, f"{name[:10]!r} {version}")
    if at + 4 > end:
        raise malformed("CONNECT ends early")
    flags = data[at + 1]
    keepalive = data[at + 2] << 8 | data[at + 3]
    at += 4
    if flags & 1:
        raise malformed("a reserved bit of CONNECT is set")
    will_qos = flags >> 3 & 3
    if will_qos == 3 or (not flags & 4 and flags & 0x38):
        raise malformed("will flags contradict each other")
    if version == V3 and flags & 0x40 and not flags & 0x80:
        raise malformed("a password without a user name")
    properties: Properties = {}
    if version == V5:
        properties, at = wire.decode_properties(data, at, end, wire.IN_CONNECT)
    client_id, at = wire.decode_text(data, at, end)
    will = username = password = None
    if flags & 4:
        will_properties: Properties = {}
        if version == V5:
            will_properties, at = wire.decode_properties(data, at, end, wire.IN_WILL)
        topic, at = wire.decode_text(data, at, end)
        payload, at = wire.decode_binary(data, at, end)
        will = Will(topic, payload, will_qos, bool(flags & 0x20), will_properties)
    if flags & 0x80:
        username, at = wire.decode_text(data, at, end)
    if flags & 0x40:
        password, at = wire.decode_binary(data, at, end)
    if at != end:
        raise malformed("CONNECT goes on behind its end")
    return Connect(client_id, version, bool(flags & 2), keepalive, username, password, will, properties)


# 3.1.1 knows five refusals.
_V3_CODES: Final[dict[int, int]] = {
    Reason.SUCCESS: 0,
    Reason.UNSUPPORTED_VERSION: 1,
    Reason.BAD_CLIENT_ID: 2,
    Reason.UNAVAILABLE: 3,
    Reason.BUSY: 3,
    Reason.QUOTA: 3,
    Reason.SHUTTING_DOWN: 3,
    Reason.CONNECTION_RATE: 3,
    Reason.BAD_CREDENTIALS: 4,
}


@dataclass(slots=True)
class Connack:
    reason: int
    session_present: bool = False
    properties: Properties = field(default_factory=dict)

    def encode(self, version: int) -> bytes:
        if version == V5:
            body = bytes((self.session_present, self.reason)) + wire.encode_properties(self.properties)
        else:
            body = bytes((self.session_present, _V3_CODES.get(self.reason, 5)))
        return frame(Kind.CONNACK, body)


def decode_connack(data: bytes, at: int, end: int, version: int) -> Connack:
    if at + 2 > end or data[at] > 1:
        raise malformed("CONNACK")
    properties: Properties = {}
    stop = at + 2
    if version == V5:
        properties, stop = wire.decode_properties(data, stop, end, wire.IN_CONNACK)
    if stop != end:
        raise malformed("CONNACK goes on behind its end")
    return Connack(data[at + 1], bool(data[at]), properties)


# ---------------------------------------------------------------- DISCONNECT


@dataclass(slots=True)
class Disconnect:
    reason: int = 0
    properties: Properties = field(default_factory=dict)

    def encode(self, version: int) -> bytes:
        if version != V5 or not (self.reason or self.properties):
            return frame(Kind.DISCONNECT, b"")
        body = bytes((self.reason,))
        if self.properties:
            body += wire.encode_properties(self.properties)
        return frame(Kind.DISCONNECT, body)


def decode_disconnect(data: bytes, at: int, end: int, version: int) -> Disconnect:
    if at == end:
        return Disconnect()
    if version != V5:
        raise malformed("DISCONNECT with a body")
    reason = data[at]
    properties: Properties = {}
    if at + 1 < end:
        properties, at = wire.decode_properties(data, at + 1, end, wire.IN_DISCONNECT)
        if at != end:
            raise malformed("DISCONNECT goes on behind its end")
    return Disconnect(reason, properties)
