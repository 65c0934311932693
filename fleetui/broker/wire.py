"""MQTT's primitives: variable-length integers, texts, binary strings, properties and reason codes.

Pure functions on bytes. Anything malformed raises :class:`PacketError` with the reason code to answer with;
reading past the end of the data does too. Nothing is allocated beyond the length of what was given.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

MAX_VARINT: Final = 268_435_455


class Reason(IntEnum):
    """MQTT 5's reason codes, as far as a broker meets them."""

    SUCCESS = 0x00
    GRANTED_1 = 0x01
    GRANTED_2 = 0x02
    DISCONNECT_WITH_WILL = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED = 0x80
    MALFORMED = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION = 0x83
    UNSUPPORTED_VERSION = 0x84
    BAD_CLIENT_ID = 0x85
    BAD_CREDENTIALS = 0x86
    NOT_AUTHORISED = 0x87
    UNAVAILABLE = 0x88
    BUSY = 0x89
    BANNED = 0x8A
    SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    TAKEN_OVER = 0x8E
    BAD_TOPIC_FILTER = 0x8F
    BAD_TOPIC = 0x90
    PACKET_ID_IN_USE = 0x91
    PACKET_ID_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM = 0x93
    BAD_TOPIC_ALIAS = 0x94
    PACKET_TOO_LARGE = 0x95
    RATE_TOO_HIGH = 0x96
    QUOTA = 0x97
    ADMINISTRATIVE = 0x98
    BAD_PAYLOAD_FORMAT = 0x99
    RETAIN_UNSUPPORTED = 0x9A
    QOS_UNSUPPORTED = 0x9B
    CONNECTION_RATE = 0x9F


class PacketError(Exception):
    """A packet that breaks the protocol. ``reason`` is what a v5 client is told before it is cut off."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.name}: {detail}" if detail else reason.name)
        self.reason = reason
        self.detail = detail


def malformed(detail: str) -> PacketError:
    return PacketError(Reason.MALFORMED, detail)


# ---------------------------------------------------------------- integers, texts, binary


def encode_varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    if value > MAX_VARINT:
        raise ValueError(f"{value} does not fit")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The value and where it ends. Over-long forms are malformed."""
    value = shift = 0
    while True:
        if at >= end:
            raise malformed("a length runs past the end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                raise malformed("a length is longer than it needs to be")
            return value, at
        shift += 7
        if shift > 21:
            raise malformed("a length of more than four bytes")


def encode_binary(value: bytes) -> bytes:
    if len(value) > 0xFFFF:
        raise ValueError("longer than 65535 bytes")
    return len(value).to_bytes(2, "big") + value


def encode_text(value: str) -> bytes:
    return encode_binary(value.encode())


def decode_binary(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    stop = at + 2
    if stop > end:
        raise malformed("a string runs past the end")
    stop += (data[at] << 8) | data[at + 1]
    if stop > end:
        raise malformed("a string runs past the end")
    return data[at + 2 : stop], stop


def check_text(raw: bytes) -> str:
    """UTF-8 without U+0000, as the protocol wants it."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise malformed("not UTF-8") from None
    if "\0" in text:
        raise malformed("U+0000 in a text")
    return text


def decode_text(data: bytes, at: int, end: int) -> tuple[str, int]:
    raw, at = decode_binary(data, at, end)
    return check_text(raw), at


# ---------------------------------------------------------------- properties


class Property(IntEnum):
    PAYLOAD_FORMAT = 1
    MESSAGE_EXPIRY = 2
    CONTENT_TYPE = 3
    RESPONSE_TOPIC = 8
    CORRELATION = 9
    SUBSCRIPTION_ID = 11
    SESSION_EXPIRY = 17
    ASSIGNED_CLIENT_ID = 18
    SERVER_KEEP_ALIVE = 19
    AUTHENTICATION_METHOD = 21
    AUTHENTICATION_DATA = 22
    REQUEST_PROBLEM_INFORMATION = 23
    WILL_DELAY = 24
    REQUEST_RESPONSE_INFORMATION = 25
    RESPONSE_INFORMATION = 26
    SERVER_REFERENCE = 28
    REASON_STRING = 31
    RECEIVE_MAXIMUM = 33
    TOPIC_ALIAS_MAXIMUM = 34
    TOPIC_ALIAS = 35
    MAXIMUM_QOS = 36
    RETAIN_AVAILABLE = 37
    USER_PROPERTY = 38
    MAXIMUM_PACKET_SIZE = 39
    WILDCARD_AVAILABLE = 40
    SUBSCRIPTION_ID_AVAILABLE = 41
    SHARED_AVAILABLE = 42


# Property -> how it is written: (b)yte, two-byte (h), four-byte (i), (v)arint, (t)ext, bi(n)ary, (p)air of texts.
KINDS: Final[dict[int, str]] = {
    1: "b", 2: "i", 3: "t", 8: "t", 9: "n", 11: "v", 17: "i", 18: "t", 19: "h", 21: "t", 22: "n", 23: "b",
    24: "i", 25: "b", 26: "t", 28: "t", 31: "t", 33: "h", 34: "h", 35: "h", 36: "b", 37: "b", 38: "p",
    39: "i", 40: "b", 41: "b", 42: "b",
}  # fmt: skip

# What may stand in which packet.
IN_CONNECT: Final = frozenset({17, 21, 22, 23, 25, 33, 34, 38, 39})
IN_WILL: Final = frozenset({1, 2, 3, 8, 9, 24, 38})
IN_CONNACK: Final = frozenset({17, 18, 19, 21, 22, 26, 28, 31, 33, 34, 36, 37, 38, 39, 40, 41, 42})
IN_PUBLISH: Final = frozenset({1, 2, 3, 8, 9, 11, 35, 38})
IN_ACK: Final = frozenset({31, 38})
IN_SUBSCRIBE: Final = frozenset({11, 38})
IN_UNSUBSCRIBE: Final = frozenset({38})
IN_DISCONNECT: Final = frozenset({17, 28, 31, 38})
IN_AUTH: Final = frozenset({21, 22, 31, 38})
# What a subscriber gets as the publisher wrote it.
FORWARDED: Final = frozenset({1, 3, 8, 9, 38})

Properties = dict[int, Any]
"""Property -> value; user properties and subscription identifiers are lists, for they may come more than once."""

_FLAGS: Final = frozenset({1, 23, 25, 36, 37, 40, 41, 42})  # bytes that are 0 or 1
_NOT_ZERO: Final = frozenset({11, 33, 39})


def decode_value(kind: int, data: bytes, at: int, end: int) -> tuple[Any, int]:
    """One property's value, checked, and where it ends."""
    form = KINDS.get(kind)
    value: Any
    if form == "b":
        stop = at + 1
        if stop > end:
            raise malformed("a property runs past the end")
        value = data[at]
    elif form in {"h", "i"}:
        stop = at + (2 if form == "h" else 4)
        if stop > end:
            raise malformed("a property runs past the end")
        value = int.from_bytes(data[at:stop], "big")
    elif form == "t":
        value, stop = decode_text(data, at, end)
    elif form == "n":
        value, stop = decode_binary(data, at, end)
    elif form == "v":
        value, stop = decode_varint(data, at, end)
    elif form == "p":
        name, stop = decode_text(data, at, end)
        text, stop = decode_text(data, stop, end)
        value = (name, text)
    else:
        raise malformed(f"unknown property {kind}")
    if (kind in _FLAGS and value > 1) or (kind in _NOT_ZERO and value == 0):
        raise PacketError(Reason.PROTOCOL_ERROR, f"property {kind} is {value}")
    return value, stop


def decode_properties(data: bytes, at: int, end: int, allowed: frozenset[int]) -> tuple[Properties, int]:
    """The properties that begin at ``at`` with their length, and where they end."""
    length, at = decode_varint(data, at, end)
    stop = at + length
    if stop > end:
        raise malformed("properties run past the end")
    found: Properties = {}
    while at < stop:
        kind = data[at]
        if kind not in allowed:
            raise malformed(f"property {kind} does not belong here")
        value, at = decode_value(kind, data, at + 1, stop)
        if kind in {Property.USER_PROPERTY, Property.SUBSCRIPTION_ID}:
            found.setdefault(kind, []).append(value)
        elif kind in found:
            raise PacketError(Reason.PROTOCOL_ERROR, f"property {kind} twice")
        else:
            found[kind] = value
    return found, at


def encode_value(kind: int, value: Any) -> bytes:
    """One property with its identifier."""
    form = KINDS[kind]
    head = bytes((kind,))
    if form == "b":
        return head + bytes((value,))
    if form == "h":
        return head + int(value).to_bytes(2, "big")
    if form == "i":
        return head + int(value).to_bytes(4, "big")
    if form == "v":
        return head + encode_varint(value)
    if form == "t":
        return head + encode_text(value)
    if form == "n":
        return head + encode_binary(value)
    name, text = value
    return head + encode_text(name) + encode_text(text)


def encode_properties(properties: Properties) -> bytes:
    """With their length in front."""
    parts: list[bytes] = []
    for kind, value in properties.items():
        if kind in {Property.USER_PROPERTY, Property.SUBSCRIPTION_ID}:
            parts.extend(encode_value(kind, one) for one in value)
        else:
            parts.append(encode_value(kind, value))
    body = b"".join(parts)
    return encode_varint(len(body)) + body
