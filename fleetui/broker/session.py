"""One client's state at the broker: subscriptions, what waits for it, what is on its way, connected or not.

Messages are referred to, never copied; they are turned into bytes when the connection can take them and the
window (the client's receive maximum) has room. A session that outlives its connection is *kept*: each step is
told to the journal, which is written before anything that depends on it leaves the process.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from fleetui.broker.message import Message
from fleetui.broker.packets import Kind, encode_ack
from fleetui.broker.topics import Subscription
from fleetui.broker.wire import PacketError, Reason

if TYPE_CHECKING:
    import asyncio

    from fleetui.broker.admission import PendingWill
    from fleetui.broker.connection import Connection
    from fleetui.broker.core import Core

# One delivery on its way or waiting: message (None once a QoS 2 one is received and only its end is awaited),
# QoS, retain flag, subscription identifiers, number within the session, (group, filter) it came through, bytes
# counted against the session.
Item = tuple["Message | None", int, int, tuple[int, ...], int, "tuple[str, str] | None", int]

FOREVER = 0xFFFF_FFFF


class Session:
    """Made by ``Core``; ``connection`` is None while the client is away."""

    __slots__ = (
        "bytes",
        "client_id",
        "connection",
        "core",
        "dropped",
        "expiry",
        "gone_at",
        "inflight",
        "journal_id",
        "late_will",
        "max_packet",
        "number",
        "packet_id",
        "proven",
        "queue",
        "resend",
        "station",
        "subscriptions",
        "unreleased",
        "v5",
        "window",
    )

    def __init__(self, core: Core, client_id: str, proven: str, *, station: bool) -> None:
        self.core = core
        self.client_id = client_id
        self.proven = proven
        self.station = station
        self.connection: Connection | None = None
        self.v5 = True
        self.window = 1
        self.max_packet = 0xFFFF_FFFF
        self.subscriptions: dict[str, Subscription] = {}
        self.inflight: dict[int, Item] = {}
        self.queue: deque[Item] | None = None
        self.resend: deque[int] | None = None
        self.bytes = 0
        self.packet_id = 0
        self.number = 0
        self.unreleased: set[int] | None = None  # packet ids of QoS 2 publications not yet released by the client
        self.expiry = 0
        self.gone_at = 0.0  # Unix seconds of the disconnection
        self.dropped = 0
        self.journal_id = 0  # 0: not kept
        self.late_will: tuple[PendingWill, asyncio.TimerHandle] | None = None  # while its delay runs

    @property
    def online(self) -> bool:
        return self.connection is not None

    @property
    def waiting(self) -> int:
        return len(self.queue) if self.queue else 0

    # ------------------------------------------------------------ to the client

    def deliver(
        self,
        message: Message,
        qos: int,
        retain: int,
        ids: tuple[int, ...],
        share: tuple[str, str] | None = None,
        *,
        stored: bool = False,
    ) -> bool:
        """Send it, or keep it until it can be sent. False if there was no room.

        ``stored``: it comes out of the retained store, which holds it anyway; so the session is not charged.
        """
        qos = min(qos, message.qos)
        connection = self.connection
        core = self.core
        if not qos:
            if connection is None:
                return True
            if not connection.ready:
                return connection.hold_back(message, retain, ids, 0 if stored else len(message.payload))
            head = message.head(self.v5, retain, 0, core.unix, ids)
            if len(head) + len(message.payload) > self.max_packet:
                core.counters.too_large += 1
                return True
            core.counters.messages_out += 1
            connection.send(head, message.payload)
            return True
        weight = 0 if stored else len(message.payload)
        limits = core.limits
        if self.bytes + weight > (limits.station_queue_bytes if self.station else limits.queue_bytes):
            return self._drop()
        queue = self.queue
        direct = (
            connection is not None
            and connection.ready
            and not queue
            and not self.resend
            and len(self.inflight) < self.window
        )
        if not direct:
            most = limits.station_queue_messages if self.station else limits.queue_messages
            if (queue and len(queue) >= most) or core.memory.held > limits.memory:
                return self._drop()
        self.number += 1
        item = (message, qos, retain, ids, self.number, share, weight)
        message.hold(core.memory)
        self.bytes += weight
        if self.journal_id:
            core.state.enqueued(self, item)
        if direct:
            self._send(item)
        elif queue is None:
            self.queue = deque((item,))
        else:
            queue.append(item)
        return True

    def _drop(self) -> bool:
        self.dropped += 1
        self.core.counters.dropped += 1
        return False

    def _send(self, item: Item) -> None:
        message = item[0]
        connection = self.connection
        assert message is not None
        assert connection is not None
        core = self.core
        inflight = self.inflight
        packet_id = self.packet_id % 65_535 + 1
        while packet_id in inflight:
            packet_id = packet_id % 65_535 + 1
        self.packet_id = packet_id
        qos = item[1]
        head = message.head(self.v5, qos << 1 | item[2], packet_id, core.unix, item[3])
        if len(head) + len(message.payload) > self.max_packet:
            core.counters.too_large += 1
            self._finish(item)
            return
        inflight[packet_id] = item
        if qos == 2 and self.journal_id:
            core.state.sent(self, item[4], packet_id)
        core.counters.messages_out += 1
        connection.send(head, message.payload)

    def _finish(self, item: Item) -> None:
        """The item is done with: acknowledged, expired or undeliverable."""
        message = item[0]
        if message is not None:
            message.release(self.core.memory)
        self.bytes -= item[6]
        if self.journal_id:
            self.core.state.finished(self, item[4])

    def pump(self) -> None:
        """Send what waits, as far as connection and window allow."""
        connection = self.connection
        if connection is None:
            return
        while self.resend and connection.ready:
            self._send_again(self.resend.popleft())
        queue = self.queue
        if not queue or self.resend:
            return
        unix = self.core.unix
        inflight = self.inflight
        window = self.window
        while queue and connection.ready and len(inflight) < window:
            item = queue.popleft()
            message = item[0]
            if message is not None and message.expires is not None and message.expires <= unix:
                self.core.counters.expired += 1
                self._finish(item)
            else:
                self._send(item)
        if not queue:
            self.queue = None

    def _send_again(self, packet_id: int) -> None:
        item = self.inflight.get(packet_id)
        connection = self.connection
        if item is None or connection is None:
            return
        message = item[0]
        if message is None:
            connection.send(encode_ack(Kind.PUBREL, packet_id))
            return
        head = message.head(self.v5, 8 | item[1] << 1 | item[2], packet_id, self.core.unix, item[3])
        if len(head) + len(message.payload) > self.max_packet:
            del self.inflight[packet_id]
            self.core.counters.too_large += 1
            self._finish(item)
            return
        self.core.counters.messages_out += 1
        connection.send(head, message.payload)

    def resume(self) -> None:
        """The client is back: what was on its way goes again first, in order, then what waited."""
        self._narrow()
        if self.inflight:
            self.resend = deque(self.inflight)
        self.pump()

    def _narrow(self) -> None:
        """A client may come back with a smaller window: what is too much of QoS 1 waits again."""
        extra = len(self.inflight) - self.window
        if extra <= 0:
            return
        back: list[Item] = []
        for packet_id in reversed(list(self.inflight)):
            if len(back) == extra:
                break
            item = self.inflight[packet_id]
            if item[1] == 1:
                back.append(self.inflight.pop(packet_id))
        if self.queue is None:
            self.queue = deque()
        self.queue.extendleft(back)

    # ------------------------------------------------------------ from the client

    def acknowledged(self, packet_id: int) -> None:
        """PUBACK. One for a message that is not known is ignored: it may have been for an earlier life."""
        item = self.inflight.get(packet_id)
        if item is None:
            return
        if item[1] != 1:
            raise PacketError(Reason.PROTOCOL_ERROR, "PUBACK for QoS 2")
        del self.inflight[packet_id]
        self._finish(item)
        if self.queue:
            self.pump()

    def received(self, packet_id: int, reason: int) -> None:
        """PUBREC."""
        connection = self.connection
        assert connection is not None
        item = self.inflight.get(packet_id)
        if item is None:
            if reason < 0x80:
                connection.send(encode_ack(Kind.PUBREL, packet_id, Reason.PACKET_ID_NOT_FOUND, v5=self.v5))
            return
        if item[1] != 2:
            raise PacketError(Reason.PROTOCOL_ERROR, "PUBREC for QoS 1")
        if reason >= 0x80:
            del self.inflight[packet_id]
            self._finish(item)
            self.pump()
            return
        message = item[0]
        if message is not None:
            message.release(self.core.memory)
            self.bytes -= item[6]
            self.inflight[packet_id] = (None, 2, 0, (), item[4], None, 0)
            if self.journal_id:
                self.core.state.received(self, item[4], packet_id)
        connection.send(encode_ack(Kind.PUBREL, packet_id))

    def completed(self, packet_id: int) -> None:
        """PUBCOMP."""
        item = self.inflight.get(packet_id)
        if item is None:
            return
        if item[1] != 2:
            raise PacketError(Reason.PROTOCOL_ERROR, "PUBCOMP for QoS 1")
        del self.inflight[packet_id]
        self._finish(item)
        if self.queue:
            self.pump()

    # ------------------------------------------------------------ ends

    def empty(self) -> list[Item]:
        """Let go of everything that waits or is on its way; returns it, for shared subscriptions to pass on."""
        items = [*self.inflight.values(), *(self.queue or ())]
        for item in items:
            if item[0] is not None:
                item[0].release(self.core.memory)
        self.inflight.clear()
        self.queue = self.resend = None
        self.bytes = 0
        return items
