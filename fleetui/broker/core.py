"""The broker: routes publications to sessions, takes sessions over, ends them, sweeps.

One object on one thread. Per turn of the event loop, in this order: packets are handled, the journal is
written (if anything has to survive), then everything collected for the clients is sent. So whatever a client
was told is on its way to the disk's cache before it is told, and a killed process loses nothing it promised.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fleetui.broker import packets, wire
from fleetui.broker.access import Directory, Identity
from fleetui.broker.counters import Counters
from fleetui.broker.limits import Bucket, Limits
from fleetui.broker.message import Memory, Message
from fleetui.broker.outlet import Outlet
from fleetui.broker.packets import V3, V5, Kind, Subscribe, Unsubscribe
from fleetui.broker.retained import Retained
from fleetui.broker.session import FOREVER, Item, Session
from fleetui.broker.state import State
from fleetui.broker.topics import Index, Route, Subscription, check_filter
from fleetui.broker.wire import PacketError, Property, Reason
from fleetui.common.domain.clock import Clock

if TYPE_CHECKING:
    from fleetui.broker.admin import Admin
    from fleetui.broker.admission import PendingWill
    from fleetui.broker.connection import Connection

log = logging.getLogger("fleetui.broker")

LINGER_S: Final = 2.0  # how long a connection that we ended may take to read its last words


class Core:
    """Everything but sockets."""

    def __init__(
        self,
        directory: Directory,
        limits: Limits,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        state: State | None = None,
    ) -> None:
        self.directory = directory
        self.limits = limits
        self.clock = clock
        self.loop = loop
        self.memory = Memory()
        self.counters = Counters()
        self.index: Index[Session] = Index(max_length=limits.topic_length, max_levels=limits.topic_levels)
        self.retained = Retained(self.memory)
        self.sessions: dict[str, Session] = {}
        self.connections: set[Connection] = set()
        self._emptied: asyncio.Event | None = None
        self.state = state if state is not None else State(None)
        self.inbox = memoryview(bytearray(256 * 1024))
        self.now = loop.time()  # of this turn
        self.unix = clock.now()
        self.started = loop.time()
        self.stalled = False  # the journal cannot be written: nothing is acknowledged until it can
        self._blocked: set[Connection] = set()
        self._dirty: list[Outlet] = []
        self._scheduled = False
        self.partial = 0  # bytes of packets that have not come whole
        self.revocations_until: float | None = None  # Unix seconds
        self._denials: deque[str] = deque(maxlen=100)
        self._log_bucket = Bucket(1.0, 50.0, self.now)
        self.admin: Admin | None = None
        self.on_stalled: Callable[[], None] = lambda: None
        self.state.restore(self)

    # ------------------------------------------------------------ the turn

    def schedule(self, connection: Outlet) -> None:
        self._dirty.append(connection)
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._turn)

    def schedule_commit(self) -> None:
        """The journal has something although nobody is to be told."""
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self.now = self.loop.time()
        self.unix = self.clock.now()
        if not self.commit():
            self.loop.call_later(1.0, self._turn)
            return
        self._scheduled = False
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            try:
                connection.flush()
            except Exception as error:  # noqa: BLE001 - a bug of ours may end this connection, not the broker
                self.broken(connection, error)

    def commit(self) -> bool:
        """Write the journal. False while it cannot be written."""
        if not self.state.commit():
            if not self.stalled:
                self.stalled = True
                self.on_stalled()
                log.error("The journal cannot be written; clients wait until it can: %s", self.state.trouble)
                if not self._scheduled:
                    self._scheduled = True
                    self.loop.call_later(1.0, self._turn)
            self.counters.journal_errors += 1
            return False
        if self.stalled:
            self.stalled = False
            self.on_stalled()
            log.warning("The journal can be written again")
            blocked, self._blocked = self._blocked, set()
            for connection in blocked:
                self.loop.call_soon(connection.unblock)
        return True

    def broken(self, connection: Outlet, error: Exception) -> None:
        """An error of ours: it ends one connection and no other."""
        log.error("The broker's own code failed; one connection is closed", exc_info=error)
        self.counters.bugs += 1
        if connection.transport is not None:
            connection.transport.abort()

    def block(self, connection: Connection) -> None:
        """It waits until the journal can be written."""
        self._blocked.add(connection)
        connection.block()

    # ------------------------------------------------------------ publications

    def publish(self, route: Route[Session], message: Message, retain: int, source: Session | None) -> int:
        """Give it to everybody it is for. The reason code for the publisher."""
        reason = Reason.NO_MATCHING_SUBSCRIBERS
        held = bool(retain) and self._retain(message, source)
        if retain and not held:
            reason = Reason.QUOTA
        for session, qos, no_local, as_published, ids in route.targets:
            if no_local and session is source:
                continue
            # What a station retains is held anyway, so no device's queue is charged for it.
            stored = held and not session.station
            if session.deliver(message, qos, retain if as_published else 0, ids, stored=stored):
                if reason == Reason.NO_MATCHING_SUBSCRIBERS:
                    reason = Reason.SUCCESS
            else:
                reason = Reason.QUOTA
        for group in route.shared:
            chosen = group.pick()
            if chosen is None:
                continue
            session, asked = chosen
            ids = () if asked.identifier is None else (asked.identifier,)
            kept = retain if asked.retain_as_published else 0
            if session.deliver(message, asked.qos, kept, ids, (group.name, group.bare)):
                if reason == Reason.NO_MATCHING_SUBSCRIBERS:
                    reason = Reason.SUCCESS
            else:
                reason = Reason.QUOTA
        return reason

    def _retain(self, message: Message, source: Session | None) -> bool:
        topic = message.coded[2:]
        if not message.payload:
            if self.retained.remove(topic):
                self.state.unretained(topic)
                self.schedule_commit()
            return True
        limits = self.limits
        old = self.retained.get(topic)
        more = len(message.payload) - (len(old.payload) if old is not None else 0)
        if source is not None and not source.station:
            root = f"fleet/{self.directory.fleet}/up/{source.client_id}/".encode()
            if len(message.payload) > limits.device_retained_bytes or (
                old is None and self.retained.count_below(root) >= limits.device_retained
            ):
                self.counters.denied_retained += 1
                return False
        if (
            (old is None and len(self.retained) >= limits.retained)
            or self.retained.bytes + more > limits.retained_bytes
            or self.memory.held + more > limits.memory
        ):
            self.counters.denied_retained += 1
            return False
        self.retained.set(message)
        self.state.retained(message)
        self.schedule_commit()
        return True

    def announce(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """A publication of the broker's own; retained ones are not in the journal."""
        route = self.index.route(wire.encode_text(topic))
        message = Message(route.coded, payload, 0)
        if retain:
            self.retained.set(message)
        self.publish(route, message, 0, None)

    def control(self, connection: Connection, topic: str, payload: bytes, forward: bytes) -> int:
        """A command of a station; see ``admin``."""
        if self.admin is None:
            return Reason.BAD_TOPIC
        return self.admin(connection, topic, payload, forward)

    def denied(self, connection: Connection, act: str, topic: str) -> None:
        """Said once for each client and act, and not too often; counted always."""
        what = f"{connection.name} may not {act} {topic[:200]}"
        if what not in self._denials and self.may_log():
            self._denials.append(what)
            log.warning("Denied: %s", what)

    def may_log(self) -> bool:
        """Strangers can make us write lines: one a second in the long run."""
        return not self._log_bucket.take(self.now)

    # ------------------------------------------------------------ QoS 2 from clients

    def hold_release(self, session: Session, packet_id: int) -> None:
        if session.unreleased is None:
            session.unreleased = set()
        session.unreleased.add(packet_id)
        if session.journal_id:
            self.state.unreleased(session, packet_id)

    def release(self, session: Session, packet_id: int) -> bool:
        if session.unreleased is None or packet_id not in session.unreleased:
            return False
        session.unreleased.discard(packet_id)
        if session.journal_id:
            self.state.released(session, packet_id)
        return True

    # ------------------------------------------------------------ sessions

    def set_expiry(self, session: Session, expiry: int) -> None:
        """0: the session ends with the connection; else it is kept, and the journal knows of it."""
        session.expiry = min(expiry, self.limits.session_expiry_s)
        if session.expiry:
            self.state.opened(session)
        elif session.journal_id:
            self.state.closed(session)

    # ------------------------------------------------------------ the end of connections and sessions

    def disconnected(self, connection: Connection) -> None:
        """The connection is over, whoever ended it. Safe to call again."""
        self._blocked.discard(connection)
        connection.drop_unsent()
        session = connection.session
        if session is None:
            return
        connection.session = None
        if session.connection is not connection:
            return
        session.connection = None
        session.resend = None
        session.gone_at = self.clock.now()
        will, connection.will = connection.will, None
        if will is not None:
            if will.delay and session.expiry:
                delay = min(will.delay, session.expiry)
                session.late_will = (will, self.loop.call_later(delay, self._late_will, session))
            else:
                self.publish_will(will, session)
        if not session.expiry:
            self.end(session)
        elif session.journal_id:
            self.state.left(session)
            self.schedule_commit()

    def _late_will(self, session: Session) -> None:
        """A will is published when its delay is over or the session ends, whatever comes first."""
        if session.late_will is None:
            return
        will, timer = session.late_will
        session.late_will = None
        timer.cancel()
        self.publish_will(will, session)

    def publish_will(self, will: PendingWill, source: Session) -> None:
        route = self.index.route(will.coded)
        message = Message(route.coded, will.payload, will.qos, will.forward)
        if will.expiry is not None:
            message.expires = self.clock.now() + will.expiry
        self.publish(route, message, int(will.retain), source)
        self.schedule_commit()

    def end(self, session: Session) -> None:
        """The session is over: nothing of it is left, but what a shared group can still use."""
        if self.sessions.get(session.client_id) is session:
            del self.sessions[session.client_id]
        for subscription in session.subscriptions.values():
            self.index.remove(session, subscription)
        session.subscriptions = {}
        self._late_will(session)
        if session.journal_id:
            self.state.closed(session)
            self.schedule_commit()
        self.counters.sessions_ended += 1
        for item in session.empty():
            self._pass_on(item)

    def _pass_on(self, item: Item) -> None:
        """An unacknowledged QoS 1 message of a shared group goes to another member."""
        message, qos, retain, _, _, share, _ = item
        if message is None or qos != 1 or share is None:
            return
        group = self.index.group(*share)
        chosen = group.pick() if group is not None else None
        if chosen is not None:
            session, asked = chosen
            ids = () if asked.identifier is None else (asked.identifier,)
            session.deliver(message, asked.qos, retain, ids, share)

    def left(self, connection: Connection) -> None:
        """The socket is closed."""
        self.connections.discard(connection)
        self.disconnected(connection)
        if self._emptied is not None and not self.connections:
            self._emptied.set()

    async def emptied(self) -> None:
        """Wait until the last connection is gone."""
        if self.connections:
            self._emptied = asyncio.Event()
            await self._emptied.wait()

    def kick(self, connection: Connection) -> None:
        """End a connection because an administrator, or a revocation, says so."""
        self.counters.kicked += 1
        log.warning("Kicked %s", connection.name)
        connection.cut(Reason.ADMINISTRATIVE)

    # ------------------------------------------------------------ SUBSCRIBE, UNSUBSCRIBE

    def subscribe(self, connection: Connection, packet: Subscribe) -> None:
        session = connection.session
        identity = connection.identity
        assert session is not None
        assert identity is not None
        identifiers = packet.properties.get(Property.SUBSCRIPTION_ID)
        identifier = identifiers[0] if identifiers else None
        codes: list[int] = []
        fresh: list[Subscription] = []
        for request in packet.requests:
            try:
                subscription, send_retained = self._subscription(session, identity, request, identifier)
            except PacketError as error:
                if error.reason == Reason.PROTOCOL_ERROR:
                    raise
                if error.reason == Reason.NOT_AUTHORISED:
                    self.counters.denied_subscribe += 1
                    self.denied(connection, "subscribe to", request.filter[:200])
                codes.append(error.reason)
                continue
            session.subscriptions[subscription.text] = subscription
            self.index.add(session, subscription)
            if session.journal_id:
                self.state.subscribed(session, subscription)
            if send_retained:
                fresh.append(subscription)
            codes.append(subscription.qos)
        version = V5 if connection.v5 else V3
        connection.send(packets.encode_suback(Kind.SUBACK, packet.packet_id, codes, version))
        for subscription in fresh:
            self._send_retained(session, subscription)

    def _subscription(
        self, session: Session, identity: Identity, request: packets.Request, identifier: int | None
    ) -> tuple[Subscription, bool]:
        group, bare = check_filter(request.filter, self.limits.topic_length, self.limits.topic_levels)
        if group is not None and request.no_local:
            raise PacketError(Reason.PROTOCOL_ERROR, "no local on a shared subscription")
        if not identity.rights.may_subscribe(group, bare):
            raise PacketError(Reason.NOT_AUTHORISED, request.filter[:100])
        known = request.filter in session.subscriptions
        if not known and len(session.subscriptions) >= self.limits.subscriptions:
            raise PacketError(Reason.QUOTA, "too many subscriptions")
        subscription = Subscription(
            request.filter, bare, group, request.qos, request.no_local, request.retain_as_published, identifier
        )
        handling = request.retain_handling
        return subscription, group is None and (handling == 0 or (handling == 1 and not known))

    def _send_retained(self, session: Session, subscription: Subscription) -> None:
        ids = () if subscription.identifier is None else (subscription.identifier,)
        for message in self.retained.matching(subscription.bare):
            if message.expires is not None and message.expires <= self.unix:
                continue
            session.deliver(message, subscription.qos, 1, ids, stored=True)

    def unsubscribe(self, connection: Connection, packet: Unsubscribe) -> None:
        session = connection.session
        assert session is not None
        codes: list[int] = []
        for text in packet.filters:
            subscription = session.subscriptions.pop(text, None)
            if subscription is None:
                codes.append(Reason.NO_SUBSCRIPTION_EXISTED)
                continue
            self.index.remove(session, subscription)
            if session.journal_id:
                self.state.unsubscribed(session, text)
            codes.append(Reason.SUCCESS)
        version = V5 if connection.v5 else V3
        connection.send(packets.encode_suback(Kind.UNSUBACK, packet.packet_id, codes, version))

    # ------------------------------------------------------------ sweeping

    def sweep(self) -> None:
        """Twice a second: the silent, the expired, the lingering."""
        now = self.now = self.loop.time()
        unix = self.unix = self.clock.now()
        for connection in list(self.connections):
            if connection.closed_at:
                if now - connection.closed_at > LINGER_S and connection.transport is not None:
                    connection.transport.abort()
            elif now - connection.last > connection.patience and not connection.blocked:
                self.counters.timed_out += 1
                connection.cut(Reason.KEEP_ALIVE_TIMEOUT)
        for session in list(self.sessions.values()):
            if session.connection is None and session.expiry != FOREVER and unix - session.gone_at > session.expiry:
                self.end(session)

    def sweep_retained(self) -> None:
        """Now and then: retained messages whose time is over."""
        for topic in self.retained.topics():
            message = self.retained.get(topic)
            if message is not None and message.expires is not None and message.expires <= self.unix:
                self.retained.remove(topic)
                self.state.unretained(topic)
                self.counters.expired += 1
        self.schedule_commit()
