"""A broker's core without sockets and without waiting: time moves when it is told to.

``World`` has a core, an event loop that is a list of calls, and clients whose transports are lists of bytes.
Everything between ``buffer_updated`` and ``transport.write`` is the real thing.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetui.broker import handshake, packets, wire
from fleetui.broker.access import Directory
from fleetui.broker.connection import Connection
from fleetui.broker.core import Core
from fleetui.broker.journal import Journal
from fleetui.broker.limits import Limits
from fleetui.broker.packets import V3, V5, Kind
from fleetui.broker.state import State
from fleetui.broker.wire import Reason
from fleetui.common.domain.clock import ManualClock
from fleetui.common.trust.local import local_password

SECRET = b"s" * 32


class _Handle:
    def __init__(self, act: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.act, self.arguments, self.dead = act, arguments, False

    def cancel(self) -> None:
        self.dead = True

    def run(self) -> None:
        if not self.dead:
            self.act(*self.arguments)


class ManualLoop:
    """As much of an event loop as the core uses."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self._soon: deque[_Handle] = deque()
        self._later: list[tuple[float, int, _Handle]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.clock.monotonic()

    def call_soon(self, act: Callable[..., None], *arguments: Any) -> _Handle:
        handle = _Handle(act, arguments)
        self._soon.append(handle)
        return handle

    def call_later(self, delay: float, act: Callable[..., None], *arguments: Any) -> _Handle:
        handle = _Handle(act, arguments)
        heapq.heappush(self._later, (self.time() + delay, next(self._order), handle))
        return handle

    def turn(self) -> None:
        """What call_soon asked for, and what that asks for, until there is nothing left."""
        while self._soon:
            self._soon.popleft().run()

    def advance(self, seconds: float) -> None:
        """Timers fire in order, each at its time."""
        end = self.time() + seconds
        self.turn()
        while self._later and self._later[0][0] <= end:
            at, _, handle = heapq.heappop(self._later)
            if at > self.time():
                self.clock.advance(at - self.time())
            handle.run()
            self.turn()
        if end > self.time():
            self.clock.advance(end - self.time())

    @property
    def timers(self) -> int:
        return sum(not handle.dead for _, _, handle in self._later)


class FakeTransport(asyncio.Transport):
    """Takes what is written; ``room`` bytes of it, where a client does not read."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: Connection = None  # type: ignore[assignment]  # set when it is connected
        self.data = bytearray()
        self.room: int | None = None
        self.stuck = bytearray()  # written, but there was no room: what the process would hold
        self.closing = False
        self.eof = False
        self.reading = True

    def write(self, data: Any) -> None:
        assert not self.eof, "written after the end"
        assert not self.closing, "written after close"
        if self.room is None:
            self.data += data
            return
        fits = data[: self.room]
        self.data += fits
        self.room -= len(fits)
        self.stuck += data[len(fits) :]
        if self.stuck:
            self.protocol.pause_writing()

    def drain(self) -> None:
        """The client reads everything."""
        self.room = None
        self.data += self.stuck
        self.stuck.clear()
        self.protocol.resume_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self.protocol.core.loop.call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


@dataclass
class FakeListener:
    """What a connection wants of its listener."""

    policy: str = "local"
    revoked: frozenset[str] = frozenset()
    subject: str | None = None
    serial: str = "0A1B"

    def certificate(self, connection: Connection) -> dict[str, Any]:
        if self.subject is None:
            return {}
        return {"subject": ((("commonName", self.subject),),), "serialNumber": self.serial}

    def left(self, connection: Connection) -> None: ...


class World:
    """One core and its clients."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        clock: ManualClock | None = None,
        floor: int | None = None,
        stations: tuple[str, ...] = ("station",),
        **limits: Any,
    ) -> None:
        self.clock = clock or ManualClock()
        self.loop = ManualLoop(self.clock)
        self.folder = folder
        self.limits = Limits(**limits)
        self.journal = Journal(folder) if folder is not None else None
        options = {} if floor is None else {"floor": floor}
        self.state = State(self.journal, **options)
        directory = Directory("test", frozenset(stations), SECRET)
        self.core = Core(directory, self.limits, self.clock, self.loop, self.state)  # type: ignore[arg-type]
        self.clients: list[Client] = []

    def turn(self) -> None:
        self.loop.turn()

    def advance(self, seconds: float, step: float = 0.5) -> None:
        """Time passes; the core sweeps as it would."""
        left = seconds
        while left > 0:
            self.loop.advance(min(step, left))
            self.core.sweep()
            self.turn()
            left -= step

    def socket(self, policy: str = "local", version: int = V5, subject: str | None = None) -> Client:
        """A connection on which nothing has been said yet."""
        client = Client(self, FakeListener(policy, subject=subject), version)
        self.clients.append(client)
        return client

    def client(self, client_id: str, *, version: int = V5, policy: str = "local", **connect: Any) -> Client:
        """A connected client; ``client.connack`` is what the broker answered."""
        client = self.socket(policy, version)
        if policy == "local":
            connect.setdefault("password", local_password(SECRET, client_id).encode())
            if version == V3:
                connect.setdefault("username", client_id)
        if "expiry" in connect:
            connect.setdefault("properties", {})[wire.Property.SESSION_EXPIRY] = connect.pop("expiry")
        client.connect(handshake.Connect(client_id, version=version, **connect))
        return client

    def station(self, **connect: Any) -> Client:
        return self.client("station", **connect)

    def crash(self, **options: Any) -> World:
        """As ``kill -9`` would: nothing of this one is said or written any more; another one on its files."""
        assert self.folder is not None
        assert self.journal is not None
        self.journal.close()
        return World(self.folder, clock=self.clock, **options)


class Client:
    """The client's end: what it sends is handled at once, what it gets is decoded on demand."""

    def __init__(self, world: World, listener: FakeListener, version: int) -> None:
        self.world = world
        self.version = version
        self.transport = FakeTransport()
        self.connection = Connection(world.core, listener, "127.0.0.1")  # type: ignore[arg-type]
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)
        self.connack: handshake.Connack | None = None
        self._next_id = 0
        self._early: list[Any] = []  # came before it was looked for

    # ------------------------------------------------------------ raw

    def feed(self, data: bytes) -> None:
        """Bytes arrive; no turn yet."""
        inbox = self.world.core.inbox
        for at in range(0, len(data), len(inbox)):
            part = data[at : at + len(inbox)]
            inbox[: len(part)] = part
            self.connection.buffer_updated(len(part))

    def send(self, *data: bytes) -> None:
        for one in data:
            self.feed(one)
        self.world.turn()

    def vanish(self) -> None:
        """The connection is lost."""
        if not self.transport.closing:
            self.transport.closing = True
            self.connection.connection_lost(ConnectionResetError())
        self.world.turn()

    def received(self) -> list[Any]:
        """All whole packets that came, decoded: ``Publish``, ``Connack``, ``Disconnect``, else (kind, body)."""
        found: list[Any] = []
        data = bytes(self.transport.data)
        at = 0
        while (one := packets.split(data, at, 1 << 28)) is not None:
            first, start, at = one
            kind = Kind(first >> 4)
            if kind == Kind.PUBLISH:
                found.append(packets.decode_publish_fully(data, start, at, first & 15, self.version))
            elif kind == Kind.CONNACK:
                found.append(handshake.decode_connack(data, start, at, self.version))
            elif kind == Kind.DISCONNECT:
                found.append(handshake.decode_disconnect(data, start, at, self.version))
            else:
                found.append((kind, data[start:at]))
        del self.transport.data[:at]
        return found

    @property
    def ended(self) -> bool:
        return self.transport.closing or self.transport.eof

    # ------------------------------------------------------------ one packet each

    def connect(self, packet: handshake.Connect) -> None:
        self.send(packet.encode())
        got = self.received()
        if got and isinstance(got[0], handshake.Connack):
            self.connack = got.pop(0)
        self._early = got

    def packet_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def subscribe(self, *requests: packets.Request | str, qos: int = 1, identifier: int | None = None) -> list[int]:
        asked = [packets.Request(r, qos) if isinstance(r, str) else r for r in requests]
        properties = {} if identifier is None else {wire.Property.SUBSCRIPTION_ID: [identifier]}
        data = packets.Subscribe(self.packet_id(), asked, properties).encode(self.version)
        return self._codes(data, Kind.SUBACK)

    def unsubscribe(self, *filters: str) -> list[int]:
        data = packets.Unsubscribe(self.packet_id(), list(filters)).encode(self.version)
        return self._codes(data, Kind.UNSUBACK)

    def _codes(self, data: bytes, kind: Kind) -> list[int]:
        self.send(data)
        got = self.received()
        body = next(p[1] for p in got if isinstance(p, tuple) and p[0] == kind)
        self._early += [p for p in got if not (isinstance(p, tuple) and p[0] == kind)]
        return packets.decode_suback(body, 0, len(body), self.version)[1]

    def publish(
        self, topic: str, payload: bytes = b"", *, qos: int = 0, retain: bool = False, **properties: Any
    ) -> int | None:
        """The reason code of PUBACK or PUBREC (QoS 2 is then completed); None for QoS 0."""
        packet_id = self.packet_id() if qos else 0
        coded = {wire.Property[name.upper()]: value for name, value in properties.items()}
        self.send(packets.Publish(topic, payload, qos, retain, False, packet_id, coded).encode(self.version))
        if not qos:
            return None
        got = self.received()
        wanted = Kind.PUBACK if qos == 1 else Kind.PUBREC
        answers = [p for p in got if isinstance(p, tuple) and p[0] == wanted]
        self._early += [p for p in got if not (isinstance(p, tuple) and p[0] == wanted)]
        if not answers:
            return None
        _, reason = packets.decode_ack(answers[0][1], 0, len(answers[0][1]), self.version)
        if qos == 2 and reason < Reason.UNSPECIFIED:
            self.send(packets.encode_ack(Kind.PUBREL, packet_id))
            self._early += [p for p in self.received() if not (isinstance(p, tuple) and p[0] == Kind.PUBCOMP)]
        return reason

    def messages(self, *, ack: bool = True) -> list[packets.Publish]:
        """PUBLISH packets that came since the last look, acknowledged unless told not to."""
        got = [p for p in [*self._early, *self.received()] if isinstance(p, packets.Publish)]
        self._early = []
        if ack:
            for message in got:
                if message.qos == 1:
                    self.send(packets.encode_ack(Kind.PUBACK, message.packet_id))
                elif message.qos == 2:
                    self.send(packets.encode_ack(Kind.PUBREC, message.packet_id))
                    self.send(packets.encode_ack(Kind.PUBCOMP, message.packet_id))
        return got

    def payloads(self, *, ack: bool = True) -> list[bytes]:
        return [message.payload for message in self.messages(ack=ack)]

    def disconnect(self, reason: int = 0, **properties: Any) -> None:
        coded = {wire.Property[name.upper()]: value for name, value in properties.items()}
        self.send(handshake.Disconnect(reason, coded).encode(self.version))

    @property
    def goodbye(self) -> int | None:
        """The reason code with which the broker ended it."""
        for packet in [*self._early, *self.received()]:
            if isinstance(packet, handshake.Disconnect):
                return packet.reason
        return None
