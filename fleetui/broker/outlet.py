"""What goes out to one client: collected during a turn, written after the journal, never more than it takes.

A client that does not read holds no copies: frames are written one at a time, the next one only when the last
has left the process, so it costs one frame and references to the rest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from fleetui.broker.message import Message

if TYPE_CHECKING:
    from fleetui.broker.access import Identity
    from fleetui.broker.core import Core
    from fleetui.broker.session import Session

OUT_HIGH: Final = 128 * 1024  # bytes collected for one client in one turn; above, its messages wait as references
CHUNK: Final = 64 * 1024  # small frames are joined up to this, larger ones written alone


class Outlet:
    """The sending half of a connection."""

    __slots__ = (
        "core",
        "dirty",
        "finished",
        "identity",
        "out",
        "out_size",
        "paused",
        "ready",
        "session",
        "transport",
        "unsent",
        "unsent_bytes",
        "v5",
    )

    def __init__(self, core: Core) -> None:
        self.core = core
        self.transport: asyncio.Transport | None = None
        self.session: Session | None = None
        self.identity: Identity | None = None
        self.v5 = False
        self.out: list[bytes] = []
        self.out_size = 0
        self.finished = False  # nothing may be written any more
        self.dirty = False  # the core knows that there is something to write
        self.paused = False  # the transport has bytes it could not send
        self.ready = True  # messages may be turned into bytes now
        self.unsent: deque[tuple[Message, int, tuple[int, ...], int]] | None = None  # QoS 0, while it is not
        self.unsent_bytes = 0

    def send(self, head: bytes, payload: bytes = b"") -> None:
        """Collect bytes for this turn."""
        out = self.out
        out.append(head)
        size = self.out_size + len(head)
        if payload:
            out.append(payload)
            size += len(payload)
        self.out_size = size
        if size > OUT_HIGH:
            self.ready = False
        if not self.dirty:
            self.dirty = True
            self.core.schedule(self)

    def hold_back(self, message: Message, retain: int, ids: tuple[int, ...], weight: int) -> bool:
        """Keep a QoS 0 message until the client reads again; False if there is no room."""
        core = self.core
        limits = core.limits
        station = self.identity is not None and self.identity.station
        if self.unsent is None:
            self.unsent = deque()
        if (
            len(self.unsent) >= (limits.station_unsent_messages if station else limits.unsent_messages)
            or self.unsent_bytes + weight > (limits.station_unsent_bytes if station else limits.unsent_bytes)
            or core.memory.held > limits.memory
        ):
            core.counters.dropped_unsent += 1
            if self.session is not None:
                self.session.dropped += 1
            return False
        message.hold(core.memory)
        self.unsent_bytes += weight
        self.unsent.append((message, retain, ids, weight))
        return True

    def _is_ready(self) -> bool:
        return not self.paused and self.out_size <= OUT_HIGH

    def flush(self) -> None:
        """Write what is collected, then turn more waiting messages into bytes if the client takes them."""
        self.dirty = False
        transport = self.transport
        if transport is None or self.finished or transport.is_closing():
            self.out.clear()
            self.out_size = 0
            return
        if self.paused:
            return
        out = self.out
        if out:
            self.core.counters.bytes_out += self.out_size
            if self.out_size <= CHUNK:
                data = out[0] if len(out) == 1 else b"".join(out)
                out.clear()
                self.out_size = 0
                transport.write(data)
            else:
                self._flush_much(transport)
        self.ready = self._is_ready()
        if self.ready:
            if self.unsent:
                self._send_unsent()
            session = self.session
            if session is not None and (session.queue or session.resend):
                session.pump()

    def _flush_much(self, transport: asyncio.Transport) -> None:
        out = self.out
        done = 0
        count = len(out)
        while done < count and not self.paused:
            size = len(out[done])
            upto = done + 1
            while upto < count and size + len(out[upto]) <= CHUNK:
                size += len(out[upto])
                upto += 1
            transport.write(out[done] if upto == done + 1 else b"".join(out[done:upto]))
            done = upto
        del out[:done]
        left = sum(map(len, out))
        self.core.counters.bytes_out -= left
        self.out_size = left

    def _send_unsent(self) -> None:
        unsent = self.unsent
        session = self.session
        core = self.core
        while unsent and session is not None and self.ready:
            message, retain, ids, weight = unsent.popleft()
            message.release(core.memory)
            self.unsent_bytes -= weight
            if message.expires is not None and message.expires <= core.unix:
                core.counters.expired += 1
                continue
            head = message.head(self.v5, retain, 0, core.unix, ids)
            if len(head) + len(message.payload) > session.max_packet:
                core.counters.too_large += 1
                continue
            core.counters.messages_out += 1
            self.send(head, message.payload)
        if not unsent:
            self.unsent = None
            self.unsent_bytes = 0

    def drop_unsent(self) -> None:
        """The connection is over."""
        while self.unsent:
            self.unsent.popleft()[0].release(self.core.memory)
        self.unsent = None
        self.unsent_bytes = 0
