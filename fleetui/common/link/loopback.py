"""A broker in memory and the transport to it: MQTT's semantics without sockets, with faults to order.

Simulations and tests run on it in virtual time (see ``wheel.py``): retained messages, QoS 1, wills, sessions with
queues, shared subscriptions, message expiry, manual acknowledgement within a receive maximum, and takeover behave
as on a real broker; the conformance suite runs on all of them.

Real MQTT runs over TCP, which neither loses nor reorders within a connection. So the faults are of two kinds: those
that a real network has (delay, broken connections, partitions, a broker that is down, and the duplicates that
follow), and those that only try the receiver (loss and reordering of messages).
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fleetui.common.domain.clock import Clock
from fleetui.common.link.client import LinkClient, Publication
from fleetui.common.link.memory import NOBODY, OVERHEAD, Connection, MemoryBroker, Parcel, Stored, Welcome
from fleetui.common.link.transport import LinkConfig, LinkState, Message

CONNECT_TIMEOUT_S = 10.0
STALL_NOTICED_S = 1.0
_REFUSED = "No connection to the broker: connection refused"


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, and how often. Chances are 0..1, of each message on each hop."""

    delay_s: tuple[float, float] = (0.0, 0.0)  # how long a packet travels: evenly between the two
    loss: float = 0.0  # at QoS 0 it is gone, at QoS 1 the connection stalls before it, and breaks
    duplicate: float = 0.0  # at QoS 1 it arrives a second time, flagged
    reorder: float = 0.0  # it is held back, so that later ones overtake it
    reorder_s: float = 1.0  # for how long at most
    break_every_s: float = 0.0  # mean time until a connection breaks; 0: never
    refuse: float = 0.0  # of connects: no answer


def _everybody(_config: LinkConfig) -> str | None:
    return None


class LoopbackBroker(MemoryBroker):
    """See the module's docstring. ``faults``, ``allow`` and ``authenticate`` may be replaced at any time."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        faults: Faults | None = None,
        *,
        queue_limit: int = 1000,
        receive_maximum: int = 64,
        max_packet: int = 1 << 20,
    ) -> None:
        super().__init__(clock, queue_limit=queue_limit, receive_maximum=receive_maximum)
        self.rng = rng
        self.faults = faults or Faults()
        self.max_packet = max_packet
        self.authenticate: Callable[[LinkConfig], str | None] = _everybody
        """Why this client may not connect, or None."""
        self._cut: set[str] = set()
        self._down = False

    # ------------------------------------------------------------ for tests and simulations, from any thread

    @property
    def is_down(self) -> bool:
        return self._down

    @property
    def connected(self) -> list[str]:
        return [s.client_id for s in self.sessions.values() if s.connection is not None]

    @property
    def retained(self) -> dict[str, bytes]:
        return {topic: stored.payload for topic, stored in self.retained_now().items()}

    def queued(self, client_id: str) -> int:
        """Messages that wait in this client's session."""
        session = self.sessions.get(client_id)
        return 0 if session is None else len(session.queue) + len(session.inflight)

    def break_connection(self, client_id: str) -> None:
        """The connection breaks; both sides notice at once, and what was on its way is gone."""
        self.call_later(0.0, self._break_named, client_id)

    def partition(self, client_ids: Iterable[str]) -> None:
        """Nothing gets through to and from these clients, and nobody notices until keepalive says so."""
        self.call_later(0.0, self._partition, tuple(client_ids))

    def heal(self, client_ids: Iterable[str] | None = None) -> None:
        self.call_later(0.0, self._heal, None if client_ids is None else tuple(client_ids))

    def down(self, *, forget: bool = False) -> None:
        """The broker is killed: connections break, no wills are published; sessions survive unless ``forget``."""
        self.call_later(0.0, self._go_down, forget)

    def up(self) -> None:
        self.call_later(0.0, self._go_up)

    # ------------------------------------------------------------ connections

    def dial(self, link: LoopbackTransport) -> None:
        if self._down:
            self.call_later(self._travel(), link.unreachable, link.attempt, _REFUSED)
        elif link.config.client_id in self._cut or (self.faults.refuse and self.rng.random() < self.faults.refuse):
            reason = f"No answer from the broker within {CONNECT_TIMEOUT_S:g} s"
            self.call_later(CONNECT_TIMEOUT_S, link.unreachable, link.attempt, reason)
        else:
            self.call_later(self._travel(), self._accept, link, link.attempt)

    def _accept(self, link: LoopbackTransport, attempt: int) -> None:
        if not link.expects(attempt):
            return
        if self._down:
            link.unreachable(attempt, _REFUSED)
            return
        refusal = self.authenticate(link.config)
        if refusal is not None:
            link.refused(attempt, f"The broker refuses: {refusal}")
            return
        session = self.sessions.get(link.config.client_id)
        other = None if session is None else session.connection
        if other is not None:
            assert isinstance(other.peer, LoopbackTransport)
            other.peer.kicked(other, "The broker refuses: another client connected under the same name")
            self.connection_ended(other)
        connection = self.welcome(link, attempt)
        if self.faults.break_every_s:
            lasts = self.rng.expovariate(1.0 / self.faults.break_every_s)
            connection.breaks = self.call_later(lasts, self._break, connection)

    def connection_ended(self, connection: Connection) -> None:
        for planned in (*connection.silence, connection.breaks):
            if planned is not None:
                planned.cancel()
        super().connection_ended(connection)

    def _break_named(self, client_id: str) -> None:
        session = self.sessions.get(client_id)
        if session is not None and session.connection is not None:
            self._break(session.connection)

    def _break(self, connection: Connection) -> None:
        if connection.open:
            self.counters.breaks += 1
            self._lost(connection, "The connection to the broker broke")
            self.connection_ended(connection)

    @staticmethod
    def _lost(connection: Connection, reason: str) -> None:
        assert isinstance(connection.peer, LoopbackTransport)
        connection.peer.lost(connection, reason)

    def _go_up(self) -> None:
        self._down = False

    def _go_down(self, forget: bool) -> None:  # noqa: FBT001 - posted with positional arguments
        self._down = True
        for session in list(self.sessions.values()):
            if session.connection is not None:
                session.connection.will = None
                self._break(session.connection)
        if forget:
            self.forget_all()

    def _partition(self, client_ids: tuple[str, ...]) -> None:
        self._cut.update(client_ids)
        for client_id in client_ids:
            session = self.sessions.get(client_id)
            connection = None if session is None else session.connection
            if connection is not None and connection.held is None:
                connection.held = []
                keepalive = connection.peer.config.keepalive_s
                connection.silence = [
                    self.call_later(keepalive * 1.2, self._lost, connection, "Nothing was heard of the broker"),
                    self.call_later(keepalive * 1.5, self.connection_ended, connection),
                ]

    def _heal(self, client_ids: tuple[str, ...] | None) -> None:
        self._cut.difference_update(list(self._cut) if client_ids is None else client_ids)
        for session in list(self.sessions.values()):
            connection = session.connection
            if connection is None or connection.held is None or session.client_id in self._cut:
                continue
            held, connection.held = connection.held, None
            for planned in connection.silence:
                planned.cancel()
            connection.silence = []
            for function, args, up in held:
                self._carry(connection, function, args, up=up)
            assert isinstance(connection.peer, LoopbackTransport)
            if not connection.peer.holds(connection):
                self._carry(connection, self.connection_ended, (), up=True)  # it hung up meanwhile

    # ------------------------------------------------------------ packets on their way

    def send(self, connection: Connection, function: Callable[..., None], *args: Any) -> None:
        self._carry(connection, function, args, up=False)

    def send_up(self, connection: Connection, function: Callable[..., None], *args: Any) -> None:
        self._carry(connection, function, args, up=True)

    def send_message(self, connection: Connection, parcel: Parcel) -> None:
        self._carry_message(connection, connection.peer.publish_came, parcel, up=False)

    def send_message_up(self, connection: Connection, parcel: Parcel) -> None:
        self._carry_message(connection, self.publish_came, parcel, up=True)

    def _travel(self) -> float:
        low, high = self.faults.delay_s
        return self.rng.uniform(low, high) if high > 0 else 0.0

    def _carry_message(
        self, connection: Connection, function: Callable[..., None], parcel: Parcel, *, up: bool
    ) -> None:
        faults, rng = self.faults, self.rng
        if faults.loss and rng.random() < faults.loss:
            self.counters.lost += 1
            if parcel.packet_id and up not in connection.stalled:
                # As in TCP, nothing gets through after it; what was before it does, and is acknowledged.
                connection.stalled.add(up)
                self.call_later(self._travel() + STALL_NOTICED_S, self._break, connection)
            return
        if (
            faults.reorder
            and connection.held is None
            and up not in connection.stalled
            and rng.random() < faults.reorder
        ):
            # Later ones may overtake it, but it overtakes none.
            late = rng.uniform(0.0, faults.reorder_s)
            arrival = max(self.clock.monotonic() + self._travel(), connection.arrivals[up])
            self.call_at(arrival + late, self._arrive, connection, function, (parcel,))
        else:
            self._carry(connection, function, (parcel,), up=up)
        if parcel.packet_id and faults.duplicate and rng.random() < faults.duplicate:
            self._carry(connection, function, (dataclasses.replace(parcel, duplicate=True),), up=up)

    def _carry(
        self, connection: Connection, function: Callable[..., None], args: tuple[Any, ...], *, up: bool
    ) -> None:
        """In order within a direction, as TCP does."""
        if up in connection.stalled:
            return
        if connection.held is not None:
            connection.held.append((function, args, up))
            return
        arrival = max(self.clock.monotonic() + self._travel(), connection.arrivals[up])
        connection.arrivals[up] = arrival
        self.call_at(arrival, self._arrive, connection, function, args)

    @staticmethod
    def _arrive(connection: Connection, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        if connection.open:
            function(connection, *args)


class LoopbackTransport(LinkClient):
    """One connection to a :class:`LoopbackBroker`. See ``transport.py`` for what is promised."""

    __slots__ = ("_broker", "_connection", "_last_id", "attempt")

    def __init__(self, config: LinkConfig, broker: LoopbackBroker, rng: random.Random | None = None) -> None:
        """``rng`` decides the jitter of reconnects; the broker's, unless given."""
        super().__init__(config, broker, rng or broker.rng)
        self._broker = broker
        self._connection: Connection | None = None
        self._last_id = 0
        self.attempt = 0  # counts connects, so that what belongs to an earlier one is known

    # ------------------------------------------------------------ called by the broker

    def expects(self, attempt: int) -> bool:
        """Whether this attempt to connect is still wanted."""
        return self._running and attempt == self.attempt and self._status.state is LinkState.CONNECTING

    def holds(self, connection: Connection) -> bool:
        return connection is self._connection or (self._connection is None and self.expects(connection.attempt))

    def unreachable(self, attempt: int, reason: str) -> None:
        if self.expects(attempt):
            self._went_down(reason)

    def refused(self, attempt: int, reason: str) -> None:
        if self.expects(attempt):
            self._went_down(reason, refused=True)

    def lost(self, connection: Connection, reason: str) -> None:
        if self.holds(connection):
            self._connection = None
            self._went_down(reason)

    def kicked(self, connection: Connection, reason: str) -> None:
        if self.holds(connection):
            self._connection = None
            self._went_down(reason, refused=True)

    def welcome_came(self, connection: Connection, welcome: Welcome) -> None:
        if not self.expects(connection.attempt):
            self._broker.connection_ended(connection)
            return
        self._connection = connection
        again = list(self._inflight.items())
        self._came_up(session_present=welcome.session_present, window=welcome.window)
        for packet_id, item in again:
            self._post(packet_id, item, item.expiry_s, duplicate=True)

    def publish_came(self, connection: Connection, parcel: Parcel) -> None:
        if connection is not self._connection:
            return
        stored, packet_id = parcel.stored, parcel.packet_id
        self.counters.bytes_in += len(stored.payload)
        manual = self.config.manual_ack and packet_id > 0
        self._received(
            Message(
                stored.topic,
                stored.payload,
                stored.qos,
                stored.retain,
                parcel.duplicate,
                parcel.expiry_s,
                stored.response_topic,
                stored.correlation,
                self._token(packet_id) if manual else None,
            )
        )
        if packet_id and not manual:
            self._transmit_ack(packet_id)

    def puback_came(self, connection: Connection, packet_id: int, problem: str) -> None:
        if connection is self._connection:
            self._acknowledged(packet_id, ok=not problem or problem == NOBODY, nobody=problem == NOBODY)

    def suback_came(self, connection: Connection, answers: Sequence[tuple[str, str]]) -> None:
        if connection is self._connection:
            self._subscribed(answers)

    def unsuback_came(self, connection: Connection, patterns: Sequence[str]) -> None:
        if connection is self._connection:
            self._unsubscribed(patterns)

    # ------------------------------------------------------------ the wire

    def _dial(self) -> None:
        self.attempt += 1
        self._broker.dial(self)

    def _hang_up(self, *, goodbye: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._broker.send_up(
                connection, self._broker.disconnect_came if goodbye else self._broker.connection_ended
            )

    def _clear(self) -> bool:
        return True

    def _transmit(self, item: Publication, expiry_s: int | None) -> int:
        if len(item.payload) + len(item.topic) + OVERHEAD > self._broker.max_packet:
            return -1
        packet_id = 0
        if item.qos:
            packet_id = self._last_id % 65_535 + 1
            while packet_id in self._inflight:
                packet_id = packet_id % 65_535 + 1
            self._last_id = packet_id
        self._post(packet_id, item, expiry_s, duplicate=False)
        return packet_id

    def _post(self, packet_id: int, item: Publication, expiry_s: int | None, *, duplicate: bool) -> None:
        if self._connection is None:
            return
        self.counters.bytes_out += len(item.payload)
        expires_at = None if expiry_s is None else self._broker.clock.monotonic() + expiry_s
        stored = Stored(
            item.topic, item.payload, item.qos, item.retain, item.response_topic, item.correlation, expires_at
        )
        self._broker.send_message_up(self._connection, Parcel(stored, packet_id, expiry_s, duplicate))

    def _transmit_ack(self, packet_id: int) -> None:
        if self._connection is not None:
            self._broker.send_up(self._connection, self._broker.puback_came, packet_id)

    def _transmit_subscribe(self, patterns: Sequence[tuple[str, int]]) -> None:
        if self._connection is not None:
            self._broker.send_up(self._connection, self._broker.subscribe_came, patterns)

    def _transmit_unsubscribe(self, patterns: Sequence[str]) -> None:
        if self._connection is not None:
            self._broker.send_up(self._connection, self._broker.unsubscribe_came, patterns)

    def _push(self) -> None:
        """Nothing is held back here."""
