"""One publication: its payload exists once, however many subscribers, queues and retained slots hold it.

``Memory`` counts what is held, each payload once, so that a ceiling over all of it means something.
"""

from __future__ import annotations

from typing import Final

from fleetui.broker.wire import encode_varint

# What a held message costs beside its payload and texts, roughly: the object, its queue entry, its keys.
OVERHEAD: Final = 300


class Memory:
    """Bytes of messages that are held by queues, windows and the retained store."""

    __slots__ = ("held", "peak")

    def __init__(self) -> None:
        self.held = 0
        self.peak = 0


class Message:
    """Immutable but for its counters. ``coded`` is the topic with its two bytes of length."""

    __slots__ = ("coded", "expires", "forward", "generation", "holders", "number", "payload", "qos")

    def __init__(
        self,
        coded: bytes,
        payload: bytes,
        qos: int = 0,
        forward: bytes = b"",
        expires: float | None = None,
        number: int = 0,
    ) -> None:
        self.coded = coded
        self.payload = payload
        self.qos = qos
        self.forward = forward  # v5 properties as the publisher wrote them, without their length
        self.expires = expires  # Unix seconds
        self.number = number  # in the journal; 0 while it is not there
        self.generation = -1  # of the journal file that holds its body
        self.holders = 0

    @property
    def topic(self) -> str:
        return self.coded[2:].decode()

    @property
    def cost(self) -> int:
        return len(self.payload) + len(self.coded) + len(self.forward) + OVERHEAD

    def hold(self, memory: Memory) -> None:
        if not self.holders:
            memory.held += self.cost
            memory.peak = max(memory.peak, memory.held)
        self.holders += 1

    def release(self, memory: Memory) -> None:
        self.holders -= 1
        if not self.holders:
            memory.held -= self.cost

    def head(
        self,
        v5: bool,  # noqa: FBT001 - the hot path passes by position
        flags: int,
        packet_id: int,
        now: float,
        subscriptions: tuple[int, ...],
    ) -> bytes:
        """Everything of a PUBLISH before its payload. ``flags``: DUP, QoS and RETAIN as in the first byte."""
        if v5:
            if self.forward or subscriptions or self.expires is not None:
                body = self.forward
                if self.expires is not None:
                    left = min(max(1, int(self.expires - now)), 0xFFFF_FFFF)
                    body += b"\x02" + left.to_bytes(4, "big")
                for identifier in subscriptions:
                    body += b"\x0b" + encode_varint(identifier)
                tail = encode_varint(len(body)) + body
            else:
                tail = b"\0"
        else:
            tail = b""
        if flags & 6:
            tail = packet_id.to_bytes(2, "big") + tail
        length = len(self.coded) + len(tail) + len(self.payload)
        if length < 0x80:
            return bytes((0x30 | flags, length)) + self.coded + tail
        if length < 0x4000:
            return bytes((0x30 | flags, length & 0x7F | 0x80, length >> 7)) + self.coded + tail
        return bytes((0x30 | flags,)) + encode_varint(length) + self.coded + tail
