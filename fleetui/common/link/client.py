"""The half of a transport that is the same whatever the wire: queue, subscriptions, acknowledgements, reconnects.

``mqtt.py`` and ``loopback.py`` add the wire. What is promised in ``transport.py`` is kept here, so both keep it
in the same way.

Threads: ``publish``, ``subscribe``, ``unsubscribe``, ``ack``, ``start`` and ``stop`` may be called from any
thread; they only put down what is wished and wake the driver. Everything else, above all each callback, runs on
the driver's thread (a :class:`~fleetui.common.link.loop.LinkLoop`, or whoever steps a loopback broker), so no
callback ever runs inside a call.
"""

from __future__ import annotations

import abc
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fleetui.common.domain.clock import Clock
from fleetui.common.link.backoff import Backoff
from fleetui.common.link.transport import LinkConfig, LinkCounters, LinkState, LinkStatus, Message

log = logging.getLogger("fleetui.link")

STABLE_S = 5.0  # a connection that lasted this long was a success; a shorter one keeps backing off
WINDOW = 64  # QoS 1 publications on their way at once, if the broker takes as many


class Cancellable(Protocol):
    def cancel(self) -> None: ...


class Driver(Protocol):
    """What turns the wheel for a transport."""

    clock: Clock

    def call_soon_threadsafe(self, function: Callable[..., object], *args: Any) -> None: ...

    def call_later(self, delay_s: float, function: Callable[..., object], *args: Any) -> Cancellable: ...

    def mark(self, client: LinkClient) -> None:
        """Have ``client.flush()`` called soon, on the driver's thread. From any thread."""


class Publication:
    """One message on its way out."""

    __slots__ = (
        "correlation",
        "expiry_s",
        "on_done",
        "payload",
        "qos",
        "response_topic",
        "retain",
        "since",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,  # noqa: FBT001 - positional for speed: made for each message
        expiry_s: int | None,
        response_topic: str | None,
        correlation: bytes | None,
        on_done: Callable[[bool], None] | None,
        since: float,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.expiry_s = expiry_s
        self.response_topic = response_topic
        self.correlation = correlation
        self.on_done = on_done
        self.since = since


def _ignore(_: object) -> None:
    """What a transport calls until somebody listens."""


class LinkClient(abc.ABC):
    """See the module's docstring. Subclasses implement the methods from ``_dial`` to ``_push``."""

    __slots__ = (
        "_acks",
        "_asked",
        "_backoff",
        "_confirmed",
        "_driver",
        "_epoch",
        "_inflight",
        "_leaving",
        "_lock",
        "_online_since",
        "_queue",
        "_resubscribe",
        "_retry",
        "_running",
        "_status",
        "_unacked",
        "_unwanted",
        "_wanted",
        "_was_online",
        "_window",
        "config",
        "counters",
        "dirty",
        "on_message",
        "on_status",
    )

    def __init__(self, config: LinkConfig, driver: Driver, rng: random.Random) -> None:
        self.config = config
        self.counters = LinkCounters()
        self.on_message: Callable[[Message], None] = _ignore
        self.on_status: Callable[[LinkStatus], None] = _ignore
        self.dirty = False  # the driver's: flush() is due
        self._driver = driver
        self._backoff = Backoff(config.backoff_min_s, config.backoff_max_s, rng)
        self._status = LinkStatus(LinkState.IDLE)
        self._lock = threading.Lock()
        self._queue: deque[Publication] = deque()
        self._inflight: dict[int, Publication] = {}
        self._wanted: dict[str, int] = {}
        self._confirmed: set[str] = set()  # patterns that the broker's session holds
        self._asked: set[str] = set()  # patterns asked for over this connection
        self._unwanted: list[str] = []  # patterns to unsubscribe
        self._leaving: list[str] = []  # patterns unsubscribed over this connection, no answer yet
        self._resubscribe = False
        self._acks: list[tuple[int, int]] = []
        self._unacked: set[int] = set()
        self._retry: Cancellable | None = None
        self._running = False
        self._was_online = False
        self._online_since = 0.0
        self._epoch = 0  # counts connections, so that an acknowledgement for an earlier one is known
        self._window = WINDOW

    # ------------------------------------------------------------ from any thread

    @property
    def status(self) -> LinkStatus:
        return self._status

    def start(self) -> None:
        self._driver.call_soon_threadsafe(self._start)

    def stop(self, *, say_goodbye: bool = True) -> None:
        self._driver.call_soon_threadsafe(self.halt, say_goodbye)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        expiry_s: int | None = None,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        on_done: Callable[[bool], None] | None = None,
    ) -> bool:
        if not topic or "+" in topic or "#" in topic or "\0" in topic or len(topic) > 16_000 or qos not in {0, 1}:
            raise ValueError(f"not a topic to publish on, or not QoS 0 or 1: {topic[:100]!r}, {qos}")
        since = 0.0 if expiry_s is None else self._driver.clock.monotonic()
        item = Publication(topic, payload, qos, retain, expiry_s, response_topic, correlation, on_done, since)
        with self._lock:
            if (qos == 0 and self._status.state is not LinkState.ONLINE) or (
                len(self._queue) + len(self._inflight) >= self.config.queue_limit
            ):
                self.counters.dropped += 1
                return False
            self._queue.append(item)
        if not self.dirty:
            self._driver.mark(self)
        return True

    def subscribe(self, pattern: str, *, qos: int = 1) -> None:
        if not pattern or len(pattern) > 16_000 or "\0" in pattern or qos not in {0, 1}:
            raise ValueError(f"not a pattern to subscribe to, or not QoS 0 or 1: {pattern[:100]!r}, {qos}")
        with self._lock:
            self._wanted[pattern] = qos
            self._confirmed.discard(pattern)
            self._asked.discard(pattern)
            if pattern in self._unwanted:
                self._unwanted.remove(pattern)
            self._resubscribe = True
        self._driver.mark(self)

    def unsubscribe(self, pattern: str) -> None:
        with self._lock:
            if self._wanted.pop(pattern, None) is None:
                return
            self._confirmed.discard(pattern)
            self._asked.discard(pattern)
            self._unwanted.append(pattern)
            self._resubscribe = True
        self._driver.mark(self)

    def ack(self, message: Message) -> None:
        if message.token is None:
            return
        with self._lock:
            self._acks.append(message.token)
        if not self.dirty:
            self._driver.mark(self)

    # ------------------------------------------------------------ the wire, by subclasses

    @abc.abstractmethod
    def _dial(self) -> None:
        """Begin to connect. Ends in ``_came_up`` or ``_went_down``."""

    @abc.abstractmethod
    def _hang_up(self, *, goodbye: bool) -> None:
        """Give up the connection or the attempt at one, now."""

    @abc.abstractmethod
    def _clear(self) -> bool:
        """Whether the wire takes more without buffering it."""

    @abc.abstractmethod
    def _transmit(self, item: Publication, expiry_s: int | None) -> int:
        """Send; the packet id at QoS 1, 0 at QoS 0, -1 if it can never be sent (larger than the broker takes)."""

    @abc.abstractmethod
    def _transmit_ack(self, packet_id: int) -> None: ...

    @abc.abstractmethod
    def _transmit_subscribe(self, patterns: Sequence[tuple[str, int]]) -> None: ...

    @abc.abstractmethod
    def _transmit_unsubscribe(self, patterns: Sequence[str]) -> None: ...

    @abc.abstractmethod
    def _push(self) -> None:
        """Write out what was transmitted."""

    # ------------------------------------------------------------ on the driver's thread

    def flush(self) -> None:
        """Send what has been wished since. Called by the driver after ``mark``."""
        if self._status.state is not LinkState.ONLINE:
            return
        if self._acks:
            with self._lock:
                acks, self._acks = self._acks, []
            for epoch, packet_id in acks:
                if epoch == self._epoch and packet_id in self._unacked:
                    self._unacked.remove(packet_id)
                    self._transmit_ack(packet_id)
        if self._resubscribe:
            self._renew_subscriptions()
        queue, inflight = self._queue, self._inflight
        finished: list[tuple[Publication, bool]] | None = None
        while queue and self._clear():
            item = queue[0]
            expiry_s = item.expiry_s
            if item.qos and len(inflight) >= self._window:
                break
            if expiry_s is not None:
                expiry_s -= int(self._driver.clock.monotonic() - item.since)
                if expiry_s <= 0:
                    queue.popleft()
                    finished = finished or []
                    finished.append((item, False))
                    continue
            packet_id = self._transmit(item, expiry_s)
            if packet_id > 0:
                inflight[packet_id] = item  # before it leaves the queue: the bound counts both
            queue.popleft()
            if packet_id <= 0:
                if packet_id == 0:
                    self.counters.sent += 1
                if item.on_done is not None:
                    finished = finished or []
                    finished.append((item, packet_id == 0))
            else:
                self.counters.sent += 1
        self._push()
        if queue and self._clear() and (queue[0].qos == 0 or len(inflight) < self._window):
            self._driver.mark(self)  # writing has made room
        if finished:
            for item, ok in finished:
                self._finish(item, ok=ok)

    def _start(self) -> None:
        if self._running:
            return
        self._running = True
        self._was_online = False
        self._backoff.reset()
        self._begin()

    def _begin(self) -> None:
        self._retry = None
        self._set(LinkState.CONNECTING, attempt=self._backoff.attempt)
        if not self._stopped():
            self._dial()

    def _stopped(self) -> bool:
        return not self._running

    def halt(self, goodbye: bool) -> None:  # noqa: FBT001 - posted with positional arguments
        """What ``stop`` has the driver do. What was published before it is still written, then goodbye is said."""
        if not self._running:
            return
        if goodbye:
            self.flush()
            if self._stopped():  # a callback of the flush did it
                return
        self._running = False
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._hang_up(goodbye=goodbye)
        with self._lock:
            self._status = LinkStatus(LinkState.IDLE)  # from here on QoS 0 is refused
            lost = [*self._inflight.values(), *self._queue]
            self._inflight.clear()
            self._queue.clear()
            self._acks.clear()
        self._unacked.clear()
        for item in lost:
            self._finish(item, ok=False)
        self._set(LinkState.IDLE)

    def _came_up(self, *, session_present: bool, window: int) -> None:
        with self._lock:
            self._asked.clear()
            if session_present:
                self._unwanted += [p for p in self._leaving if p not in self._wanted and p not in self._unwanted]
            else:
                self._confirmed.clear()
                self._unwanted.clear()
            self._leaving.clear()
        self._window = min(WINDOW, window)
        self._online_since = self._driver.clock.monotonic()
        self._epoch += 1
        self._unacked.clear()
        if self._was_online:
            self.counters.reconnects += 1
        self._was_online = True
        self._resubscribe = True
        self._set(LinkState.ONLINE, session_present=session_present)
        self._driver.mark(self)

    def _went_down(self, reason: str, *, refused: bool = False) -> None:
        """The connection broke, or did not come about."""
        if not self._running:
            return
        backoff = self._backoff
        if self._status.state is LinkState.ONLINE:
            if self._driver.clock.monotonic() - self._online_since >= STABLE_S:
                backoff.reset()
            with self._lock:
                self._status = LinkStatus(LinkState.WAITING)  # from here on QoS 0 is refused
                lost = [item for item in self._queue if item.qos == 0]
                if lost:
                    kept = [item for item in self._queue if item.qos]
                    self._queue.clear()
                    self._queue.extend(kept)
            for item in lost:
                self._finish(item, ok=False)
        if self._stopped():  # a callback did it
            return
        delay = backoff.slow() if refused else backoff.next()
        self._retry = self._driver.call_later(delay, self._begin)
        state = LinkState.REFUSED if refused else LinkState.WAITING
        self._set(state, reason=reason, attempt=backoff.attempt, retry_in_s=delay)

    def _acknowledged(self, packet_id: int, *, ok: bool, nobody: bool = False) -> None:
        """``nobody``: the broker took it, but no session is subscribed, so that no one will ever get it."""
        item = self._inflight.pop(packet_id, None)
        if item is None:
            return
        ok = ok and (item.retain or not nobody)
        if ok:
            self.counters.delivered += 1
        if self._queue and not self.dirty:
            self._driver.mark(self)
        if item.on_done is not None:
            self._finish(item, ok=ok)

    def _received(self, message: Message) -> None:
        if not self._running:
            return
        self.counters.received += 1
        try:
            self.on_message(message)
        except Exception:  # a listener's bug must not take the connection down
            log.exception("%s: on_message failed", self.config.client_id)

    def _token(self, packet_id: int) -> tuple[int, int]:
        """What stands in a message that waits for ``ack``."""
        self._unacked.add(packet_id)
        return (self._epoch, packet_id)

    def _subscribed(self, answers: Sequence[tuple[str, str]]) -> None:
        """The broker's answer: per pattern, why it was refused, or an empty text."""
        refused = [f"{pattern} ({why})" for pattern, why in answers if why]
        with self._lock:
            self._confirmed.update(pattern for pattern, why in answers if not why and pattern in self._wanted)
        if refused:
            log.warning("%s: the broker refused the subscription to %s", self.config.client_id, ", ".join(refused))
            self._set(
                LinkState.ONLINE,
                reason=f"The broker refused the subscription to {', '.join(refused)}",
                session_present=self._status.session_present,
            )

    def _unsubscribed(self, patterns: Sequence[str]) -> None:
        with self._lock:
            self._leaving = [p for p in self._leaving if p not in patterns]

    def _renew_subscriptions(self) -> None:
        with self._lock:
            self._resubscribe = False
            done = self._confirmed | self._asked
            wanted = [(p, q) for p, q in self._wanted.items() if p not in done]
            self._asked.update(p for p, _ in wanted)
            unwanted, self._unwanted = self._unwanted, []
            self._leaving += unwanted
        if unwanted:
            self._transmit_unsubscribe(unwanted)
        if wanted:
            self._transmit_subscribe(wanted)

    def _finish(self, item: Publication, *, ok: bool) -> None:
        if item.on_done is None:
            return
        try:
            item.on_done(ok)
        except Exception:  # a listener's bug must not take the connection down
            log.exception("%s: on_done failed", self.config.client_id)

    def _set(
        self,
        state: LinkState,
        *,
        reason: str = "",
        attempt: int = 0,
        retry_in_s: float = 0.0,
        session_present: bool = False,
    ) -> None:
        self._status = status = LinkStatus(state, reason, attempt, retry_in_s, session_present)
        try:
            self.on_status(status)
        except Exception:  # a listener's bug must not take the connection down
            log.exception("%s: on_status failed", self.config.client_id)
