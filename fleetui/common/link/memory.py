"""What a broker does, in memory: sessions, routing, retained messages, wills, shared subscriptions, expiry.

The broker half of the loopback; the network between it and its clients, with all that goes wrong there, stands in
``loopback.py``. QoS 2 and the wire format are not here. Everything runs on the thread that steps the wheel.
"""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleetui.common.domain.clock import Clock
from fleetui.common.link.topics import topic_matches
from fleetui.common.link.transport import LinkConfig, Will
from fleetui.common.link.wheel import Planned, Wheel

NOBODY = "nobody is subscribed"
OVERHEAD = 64  # about what a packet has beside topic and payload


@dataclass(slots=True)
class BrokerCounters:
    received: int = 0
    sent: int = 0
    dropped: int = 0  # a session's queue was full, or its client takes no message as large
    expired: int = 0
    refused: int = 0  # by the access rules
    lost: int = 0  # by the faults
    breaks: int = 0


@dataclass(slots=True)
class Stored:
    """A message in the broker. ``expires_at`` counts ``clock.monotonic()``."""

    topic: str
    payload: bytes
    qos: int
    retain: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Parcel:
    """A PUBLISH packet. ``packet_id`` is 0 at QoS 0."""

    stored: Stored
    packet_id: int
    expiry_s: int | None
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Welcome:
    """A CONNACK packet."""

    session_present: bool
    window: int


class Peer(Protocol):
    """The client's side of a connection, where packets arrive."""

    config: LinkConfig

    def welcome_came(self, connection: Connection, welcome: Welcome) -> None: ...

    def publish_came(self, connection: Connection, parcel: Parcel) -> None: ...

    def puback_came(self, connection: Connection, packet_id: int, problem: str) -> None: ...

    def suback_came(self, connection: Connection, answers: Sequence[tuple[str, str]]) -> None: ...

    def unsuback_came(self, connection: Connection, patterns: Sequence[str]) -> None: ...


@dataclass(slots=True, eq=False)
class Connection:
    """One connection, as the broker has it. The last fields are the network's."""

    peer: Peer
    attempt: int
    session: Session
    will: Will | None
    receive_maximum: int
    open: bool = True
    arrivals: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})
    held: list[tuple[Callable[..., None], tuple[Any, ...], bool]] | None = None  # while partitioned
    silence: list[Planned] = field(default_factory=list)  # who notices that, and when
    breaks: Planned | None = None
    stalled: set[bool] = field(default_factory=set)  # directions in which nothing gets through any more


@dataclass(slots=True, eq=False)
class Session:
    client_id: str
    expiry_s: int
    patterns: dict[str, int] = field(default_factory=dict)
    queue: deque[Stored] = field(default_factory=deque)
    inflight: dict[int, Stored] = field(default_factory=dict)
    last_id: int = 0
    connection: Connection | None = None
    ends: Planned | None = None
    will: Will | None = None  # waits for its delay
    will_due: Planned | None = None

    def next_id(self) -> int:
        while True:
            self.last_id = self.last_id % 65_535 + 1
            if self.last_id not in self.inflight:
                return self.last_id


def _everything(_client: str, _act: str, _topic: str) -> bool:
    return True


class MemoryBroker(Wheel, abc.ABC):
    """See the module's docstring."""

    def __init__(self, clock: Clock, *, queue_limit: int, receive_maximum: int) -> None:
        super().__init__(clock)
        self.counters = BrokerCounters()
        self.queue_limit = queue_limit
        self.receive_maximum = receive_maximum
        self.allow: Callable[[str, str, str], bool] = _everything
        """May this client "publish" on, "subscribe" to, or "receive" this topic or pattern?"""
        self.sessions: dict[str, Session] = {}
        self._retained: dict[str, Stored] = {}
        self._turns: dict[str, int] = {}  # whose turn it is in each shared subscription

    # ------------------------------------------------------------ by the network

    @abc.abstractmethod
    def send(self, connection: Connection, function: Callable[..., None], *args: Any) -> None:
        """Carry a packet to the client."""

    @abc.abstractmethod
    def send_message(self, connection: Connection, parcel: Parcel) -> None:
        """Carry a message to the client."""

    @property
    @abc.abstractmethod
    def is_down(self) -> bool: ...

    # ------------------------------------------------------------ sessions

    def welcome(self, peer: Peer, attempt: int) -> Connection:
        """A client that may: its session, old or new, and what waits in it. Nobody else holds the session now."""
        config = peer.config
        session = self.sessions.get(config.client_id)
        if session is not None and config.session_expiry_s == 0:
            self.end_session(session)
            session = None
        present = session is not None
        if session is None:
            session = Session(config.client_id, config.session_expiry_s)
            self.sessions[config.client_id] = session
        _cancel(session)
        session.will = None
        session.expiry_s = config.session_expiry_s
        connection = Connection(peer, attempt, session, config.will, config.receive_maximum)
        session.connection = connection
        self.send(connection, peer.welcome_came, Welcome(present, self.receive_maximum))
        for packet_id, stored in session.inflight.items():
            self._post(connection, packet_id, stored, duplicate=True)
        self._pump(session)
        return connection

    def connection_ended(self, connection: Connection) -> None:
        """Without a goodbye: the will is due, and the session begins to expire."""
        if not connection.open:
            return
        connection.open = False
        session = connection.session
        session.connection = None
        will = connection.will
        if session.expiry_s == 0:
            self.end_session(session)
        else:
            session.ends = self.call_later(session.expiry_s, self.end_session, session)
        if will is None:
            return
        if will.delay_s and session.expiry_s:
            session.will = will
            session.will_due = self.call_later(will.delay_s, self._will_is_due, session)
        else:
            self._publish_will(will)

    def end_session(self, session: Session) -> None:
        _cancel(session)
        if self.sessions.get(session.client_id) is session:
            del self.sessions[session.client_id]
        self._will_is_due(session)

    def forget_all(self) -> None:
        for session in list(self.sessions.values()):
            self.end_session(session)
        self._retained.clear()

    def _will_is_due(self, session: Session) -> None:
        will, session.will = session.will, None
        if will is not None:
            self._publish_will(will)

    def _publish_will(self, will: Will) -> None:
        if not self.is_down:
            self._route(Stored(will.topic, will.payload, will.qos, will.retain))

    # ------------------------------------------------------------ packets from clients

    def publish_came(self, connection: Connection, parcel: Parcel) -> None:
        self.counters.received += 1
        allowed = self.allow(connection.session.client_id, "publish", parcel.stored.topic)
        if allowed:
            problem = "" if self._route(parcel.stored) else NOBODY
        else:
            problem = "not authorized"
            self.counters.refused += 1
        if parcel.packet_id:
            self.send(connection, connection.peer.puback_came, parcel.packet_id, problem)

    def puback_came(self, connection: Connection, packet_id: int) -> None:
        if connection.session.inflight.pop(packet_id, None) is not None:
            self._pump(connection.session)

    def subscribe_came(self, connection: Connection, patterns: Sequence[tuple[str, int]]) -> None:
        session = connection.session
        answers = []
        for pattern, qos in patterns:
            if self.allow(session.client_id, "subscribe", bare(pattern)):
                session.patterns[pattern] = qos
                answers.append((pattern, ""))
            else:
                self.counters.refused += 1
                answers.append((pattern, "not authorized"))
        self.send(connection, connection.peer.suback_came, answers)
        retained = self.retained_now()
        for pattern, why in answers:
            if why or pattern.startswith("$share/"):
                continue
            for topic, stored in retained.items():
                if topic_matches(pattern, topic):
                    self._offer(session, stored, min(stored.qos, session.patterns[pattern]), retain=True)

    def unsubscribe_came(self, connection: Connection, patterns: Sequence[str]) -> None:
        for pattern in patterns:
            connection.session.patterns.pop(pattern, None)
        self.send(connection, connection.peer.unsuback_came, patterns)

    def disconnect_came(self, connection: Connection) -> None:
        connection.will = None
        self.connection_ended(connection)

    # ------------------------------------------------------------ routing

    def retained_now(self) -> dict[str, Stored]:
        now = self.clock.monotonic()
        for topic in [t for t, s in self._retained.items() if s.expires_at is not None and s.expires_at <= now]:
            del self._retained[topic]
        return dict(self._retained)

    def _route(self, stored: Stored) -> bool:
        """Whether any session is subscribed."""
        found = False
        if stored.retain:
            if stored.payload:
                self._retained[stored.topic] = stored
            else:
                self._retained.pop(stored.topic, None)
        shared: dict[str, list[tuple[Session, int]]] = {}
        for session in list(self.sessions.values()):
            best = -1
            for pattern, qos in session.patterns.items():
                if pattern.startswith("$share/"):
                    if topic_matches(bare(pattern), stored.topic):
                        shared.setdefault(pattern, []).append((session, qos))
                elif qos > best and topic_matches(pattern, stored.topic):
                    best = qos
            if best >= 0:
                found = True
                self._offer(session, stored, min(best, stored.qos), retain=False)
        for pattern, members in shared.items():
            present = [m for m in members if m[0].connection is not None] or members
            turn = self._turns.get(pattern, 0)
            self._turns[pattern] = turn + 1
            session, qos = present[turn % len(present)]
            self._offer(session, stored, min(qos, stored.qos), retain=False)
        return found or bool(shared)

    def _offer(self, session: Session, stored: Stored, qos: int, *, retain: bool) -> None:
        if not self.allow(session.client_id, "receive", stored.topic):
            return
        copy = Stored(
            stored.topic,
            stored.payload,
            qos,
            retain,
            stored.response_topic,
            stored.correlation,
            stored.expires_at,
        )
        if qos == 0:
            if session.connection is not None and self._fits(session.connection, copy):
                self._post(session.connection, 0, copy)
        elif len(session.queue) >= self.queue_limit:
            self.counters.dropped += 1
        else:
            session.queue.append(copy)
            self._pump(session)

    def _pump(self, session: Session) -> None:
        """Send what the receiver has room for."""
        connection = session.connection
        if connection is None:
            return
        while session.queue and len(session.inflight) < connection.receive_maximum:
            stored = session.queue.popleft()
            if stored.expires_at is not None and stored.expires_at <= self.clock.monotonic():
                self.counters.expired += 1
                continue
            if not self._fits(connection, stored):
                continue
            packet_id = session.next_id()
            session.inflight[packet_id] = stored
            self._post(connection, packet_id, stored)

    def _fits(self, connection: Connection, stored: Stored) -> bool:
        if len(stored.payload) + len(stored.topic) + OVERHEAD <= connection.peer.config.max_packet:
            return True
        self.counters.dropped += 1
        return False

    def _post(self, connection: Connection, packet_id: int, stored: Stored, *, duplicate: bool = False) -> None:
        expiry_s = None
        if stored.expires_at is not None:
            expiry_s = max(0, round(stored.expires_at - self.clock.monotonic()))
        self.counters.sent += 1
        self.send_message(connection, Parcel(stored, packet_id, expiry_s, duplicate))


def _cancel(session: Session) -> None:
    for planned in (session.ends, session.will_due):
        if planned is not None:
            planned.cancel()
    session.ends = session.will_due = None


def bare(pattern: str) -> str:
    """``$share/group/a/b`` subscribes to ``a/b``."""
    return pattern.split("/", 2)[2] if pattern.startswith("$share/") and pattern.count("/") >= 2 else pattern
