"""What stands in the journal: one record per step, and what a reader makes of a row of them.

Records set things and may be read twice; one that refers to something unknown is left out. :class:`Reading`
collects them into plain values; ``state`` turns those into sessions.

======  =============================================================
``M``   a message's body: number, QoS, expiry, topic, properties, payload
``R r`` retained: that message; nothing any more
``S s`` a session: who, how long it lasts, since when its client is away; over
``L``   its client left
``U u`` subscribed; unsubscribed
``Q``   a message is to go to a session, under a number of the session's own
``P``   it went out with QoS 2 under this packet id
``C``   it was received, only the end of QoS 2 is awaited
``F``   it is done with
``I i`` a QoS 2 publication came in under this packet id; was released
======  =============================================================
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from fleetui.broker.message import Message

MESSAGE: Final = struct.Struct(">cQBdHII")  # number, qos, expires (-1: never), lengths: topic, properties, payload
RETAINED: Final = struct.Struct(">cQ")
UNRETAINED: Final = struct.Struct(">cH")
SESSION: Final = struct.Struct(">cIIdQHH")  # id, expiry, gone at (0: connected), number, lengths: client id, proven
CLOSED: Final = struct.Struct(">cI")
LEFT: Final = struct.Struct(">cId")
SUBSCRIBED: Final = struct.Struct(">cIBIH")  # id, options, identifier, length of the filter
UNSUBSCRIBED: Final = struct.Struct(">cIH")
ENQUEUED: Final = struct.Struct(">cIQQBH")  # id, number, message, qos | retain << 2, how many identifiers
IDENTIFIER: Final = struct.Struct(">I")
SENT: Final = struct.Struct(">cIQH")  # id, number, packet id; also RECEIVED
FINISHED: Final = struct.Struct(">cIQ")
INBOUND: Final = struct.Struct(">cIH")


@dataclass(slots=True)
class KeptItem:
    """One message on its way to a session."""

    message: int
    qos: int
    retain: int
    identifiers: tuple[int, ...]
    packet_id: int = 0
    received: bool = False


@dataclass(slots=True)
class KeptSession:
    """A session as records tell it."""

    id: int
    client_id: str
    proven: str
    expiry: int
    gone_at: float
    number: int
    subscriptions: dict[str, tuple[int, int]] = field(default_factory=dict)  # filter -> options, identifier
    items: dict[int, KeptItem] = field(default_factory=dict)
    inbound: set[int] = field(default_factory=set)


class Reading:
    """Everything that frames said so far."""

    def __init__(self) -> None:
        self.messages: dict[int, Message] = {}
        self.retained: dict[bytes, Message] = {}
        self.sessions: dict[int, KeptSession] = {}
        self.last_message = 0
        self.last_session = 0

    def take(self, records: bytes) -> None:
        """One frame's records. Raises ``ValueError`` if they make no sense (their CRC was right: a bug)."""
        at = 0
        end = len(records)
        try:
            while at < end:
                at = self._one(records, at)
        except (struct.error, UnicodeDecodeError) as error:
            raise ValueError(str(error)) from None
        if at != end:
            raise ValueError("a record runs past its frame")

    def _one(self, data: bytes, at: int) -> int:
        kind = data[at : at + 1]
        if kind == b"M":
            return self._message(data, at)
        if kind == b"Q":
            return self._enqueued(data, at)
        if kind == b"F":
            _, sid, number = FINISHED.unpack_from(data, at)
            session = self.sessions.get(sid)
            if session is not None:
                session.items.pop(number, None)
            return at + FINISHED.size
        if kind in {b"P", b"C"}:
            return self._on_its_way(data, at)
        if kind == b"R":
            _, number = RETAINED.unpack_from(data, at)
            message = self.messages.get(number)
            if message is not None:
                self.retained[message.coded[2:]] = message
            return at + RETAINED.size
        if kind == b"r":
            _, length = UNRETAINED.unpack_from(data, at)
            at += UNRETAINED.size
            self.retained.pop(data[at : at + length], None)
            return int(at + length)
        if kind in {b"I", b"i"}:
            _, sid, packet_id = INBOUND.unpack_from(data, at)
            session = self.sessions.get(sid)
            if session is not None:
                (session.inbound.add if kind == b"I" else session.inbound.discard)(packet_id)
            return at + INBOUND.size
        return self._about_session(kind, data, at)

    def _about_session(self, kind: bytes, data: bytes, at: int) -> int:
        if kind == b"S":
            return self._session(data, at)
        if kind == b"s":
            _, sid = CLOSED.unpack_from(data, at)
            self.sessions.pop(sid, None)
            return at + CLOSED.size
        if kind == b"L":
            _, sid, gone_at = LEFT.unpack_from(data, at)
            session = self.sessions.get(sid)
            if session is not None:
                session.gone_at = gone_at
            return at + LEFT.size
        if kind == b"U":
            _, sid, options, identifier, length = SUBSCRIBED.unpack_from(data, at)
            at += SUBSCRIBED.size
            session = self.sessions.get(sid)
            if session is not None:
                session.subscriptions[data[at : at + length].decode()] = (options, identifier)
            return int(at + length)
        if kind == b"u":
            _, sid, length = UNSUBSCRIBED.unpack_from(data, at)
            at += UNSUBSCRIBED.size
            session = self.sessions.get(sid)
            if session is not None:
                session.subscriptions.pop(data[at : at + length].decode(), None)
            return int(at + length)
        raise ValueError(f"no record begins with {kind!r}")

    def _message(self, data: bytes, at: int) -> int:
        _, number, qos, expires, coded_length, forward_length, length = MESSAGE.unpack_from(data, at)
        at += MESSAGE.size
        forward_at = at + coded_length
        payload_at = forward_at + forward_length
        stop = payload_at + length
        if number not in self.messages:
            self.messages[number] = Message(
                data[at:forward_at],
                data[payload_at:stop],
                qos,
                data[forward_at:payload_at],
                None if expires < 0 else expires,
                number,
            )
        self.last_message = max(self.last_message, number)
        return int(stop)

    def _enqueued(self, data: bytes, at: int) -> int:
        _, sid, number, message, flags, count = ENQUEUED.unpack_from(data, at)
        at += ENQUEUED.size
        identifiers = []
        for _ in range(count):
            identifiers.append(IDENTIFIER.unpack_from(data, at)[0])
            at += IDENTIFIER.size
        session = self.sessions.get(sid)
        if session is not None:
            session.number = max(session.number, number)
            if number not in session.items and message in self.messages:
                session.items[number] = KeptItem(message, flags & 3, flags >> 2 & 1, tuple(identifiers))
        return at

    def _on_its_way(self, data: bytes, at: int) -> int:
        kind, sid, number, packet_id = SENT.unpack_from(data, at)
        session = self.sessions.get(sid)
        if session is not None:
            session.number = max(session.number, number)
            item = session.items.get(number)
            if kind == b"C":
                session.items[number] = KeptItem(0, 2, 0, (), packet_id, received=True)
            elif item is not None:
                item.packet_id = packet_id
        return at + SENT.size

    def _session(self, data: bytes, at: int) -> int:
        _, sid, expiry, gone_at, number, id_length, proven_length = SESSION.unpack_from(data, at)
        at += SESSION.size
        proven_at = at + id_length
        stop = proven_at + proven_length
        session = self.sessions.get(sid)
        if session is None:
            session = self.sessions[sid] = KeptSession(
                sid, data[at:proven_at].decode(), data[proven_at:stop].decode(), expiry, gone_at, number
            )
        session.expiry = expiry
        session.gone_at = gone_at
        session.number = max(session.number, number)
        self.last_session = max(self.last_session, sid)
        return int(stop)
