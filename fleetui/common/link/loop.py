"""One thread that drives many connections: a selectors loop with timers, wake-ups and paced connects.

Threads do not scale to a simulated fleet (and paho's own thread calls ``select``, which breaks at descriptor
1,024); asyncio costs twice the processor time. So each connection here is an object with a descriptor, called
when that is readable or writable; 5,000 of them fit into one process.

What runs where: everything runs on the thread that calls :meth:`LinkLoop.run`, except ``call_soon_threadsafe``,
``mark`` and ``stop``, which may be called from any thread. Nothing here knows MQTT. Wall-clock time is not used;
timers count ``clock.monotonic()``.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import random
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from fleetui.common.domain.clock import Clock, SystemClock
from fleetui.common.domain.errors import BugError
from fleetui.common.link.client import LinkClient
from fleetui.common.link.resolve import Resolver

log = logging.getLogger("fleetui.link")

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE
KEEPALIVE_EVERY_S = 2.0  # each connection looks at its keepalive this often, a slice of them at a time
KEEPALIVE_SLICES = 20
IDLE_POLL_S = 30.0
AT_ONCE = 500  # calls, and transports to flush, in one turn: then it is the sockets' turn again


class Readiness(Protocol):
    """Something with a descriptor."""

    def on_ready(self, events: int) -> None: ...


class Driven(Protocol):
    """A transport as the loop sees it."""

    def keepalive(self) -> None: ...

    def halt(self, goodbye: bool) -> None: ...  # noqa: FBT001 - posted with positional arguments


@dataclass(slots=True)
class LoopCounters:
    """How the loop fares. ``longest_s`` is the longest that one turn kept all others waiting."""

    turns: int = 0
    busy_s: float = 0.0
    longest_s: float = 0.0
    latest_s: float = 0.0  # by how much a timer was late at most
    errors: int = 0  # exceptions out of handlers: bugs


class Timer:
    """A call at a time. ``cancel`` from the loop's thread."""

    __slots__ = ("_order", "arguments", "function", "when")

    def __init__(
        self, when: float, order: int, function: Callable[..., object], arguments: tuple[Any, ...]
    ) -> None:
        self.when = when
        self._order = order
        self.function: Callable[..., object] | None = function
        self.arguments = arguments

    def cancel(self) -> None:
        self.function = None
        self.arguments = ()

    def __lt__(self, other: Timer) -> bool:
        return (self.when, self._order) < (other.when, other._order)


class ConnectGate:
    """Paces connects: so many a second, and so many at once, first come first served.

    A TLS handshake takes about 4 ms of this process's time (a plain connect 0.5 ms) and about as much of the
    broker's; thousands at once would run into each other's time-outs.
    """

    def __init__(self, loop: LinkLoop, plain_per_s: float, tls_per_s: float, at_once: int) -> None:
        self._loop = loop
        self._cost = {False: 1.0 / plain_per_s, True: 1.0 / tls_per_s}
        self._at_once = at_once
        self._busy = 0
        self._waiting: deque[tuple[Callable[[], bool], float]] = deque()
        self._free_at = 0.0
        self._timer: Timer | None = None

    def enter(self, begin: Callable[[], bool], *, tls: bool) -> None:
        """Have ``begin`` called when it is its turn. True: it has begun, ``leave()`` follows. False: it gave up."""
        self._waiting.append((begin, self._cost[tls]))
        self._admit()

    def leave(self) -> None:
        self._busy -= 1
        if self._waiting and self._timer is None:
            self._timer = self._loop.call_later(0.0, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._admit()

    def _admit(self) -> None:
        if self._timer is not None:
            return
        while self._waiting and self._busy < self._at_once:
            now = self._loop.clock.monotonic()
            if self._free_at > now:
                self._timer = self._loop.call_later(self._free_at - now, self._on_timer)
                return
            begin, cost = self._waiting.popleft()
            self._busy += 1
            if begin():
                # A turn of the loop may have taken long: what was not used meanwhile is not made up for.
                self._free_at = max(self._free_at, now - 0.02) + cost
            else:
                self._busy -= 1


class LinkLoop:
    """See the module's docstring. Use it as a thread (``start_thread``/``stop``), or call ``run`` on one's own."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        name: str = "link",
        connects_per_s: float = 1000.0,
        handshakes_per_s: float = 150.0,
        connects_at_once: int = 64,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.name = name
        self.counters = LoopCounters()
        self.gate = ConnectGate(self, connects_per_s, handshakes_per_s, connects_at_once)
        self.rng = random.Random()  # for transports that bring none: each takes 2.5 KiB
        self.scratch = memoryview(bytearray(65_536))  # what was read, until it is taken in the same call
        self.resolver = Resolver(self.clock, self.call_soon_threadsafe)
        self._selector = selectors.DefaultSelector()
        self._driven: dict[Driven, None] = {}
        self._round: list[Driven] = []  # whose keepalive is still to be looked at in this round
        self._next_keepalive = 0.0
        self._timers: list[Timer] = []
        self._order = 0
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._marked: deque[LinkClient] = deque()
        self._again: list[Readiness] = []
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)
        self._selector.register(self._near, READ, None)
        self._waking = False
        self._stopping = False
        self._closed = False
        self._ident: int | None = None
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------ from any thread

    def call_soon_threadsafe(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function`` on the loop's thread. After the loop has ended it is never called."""
        self._calls.append((function, args))
        self._wake()

    def mark(self, client: LinkClient) -> None:
        if not client.dirty:
            client.dirty = True
            self._marked.append(client)
            self._wake()

    def start_thread(self) -> None:
        if self._thread is not None or self._closed:
            raise BugError("a loop is started once")
        self._thread = threading.Thread(target=self.run, name=self.name)
        self._thread.start()

    def stop(self) -> None:
        """Take the transports down in order (goodbyes are said) and end. Waits for a thread that was started."""
        if self._closed:
            return
        self._stopping = True
        if self._ident is None and self._thread is None:
            self.run()  # never ran: what was posted is carried out, and everything closed
            return
        self._waking = False
        self._wake()
        if self._thread is not None and threading.get_ident() != self._ident:
            self._thread.join()

    # ------------------------------------------------------------ on the loop's thread (or before it runs)

    def add(self, transport: Driven) -> None:
        """Look after a transport's keepalive, and take it down with the loop."""
        self._driven[transport] = None

    def remove(self, transport: Driven) -> None:
        self._driven.pop(transport, None)

    def call_later(self, delay_s: float, function: Callable[..., object], *args: Any) -> Timer:
        self._order += 1
        timer = Timer(self.clock.monotonic() + delay_s, self._order, function, args)
        heapq.heappush(self._timers, timer)
        return timer

    def register(self, fd: int, handler: Readiness, events: int = READ) -> None:
        self._selector.register(fd, events, handler)

    def modify(self, fd: int, handler: Readiness, events: int) -> None:
        self._selector.modify(fd, events, handler)

    def unregister(self, fd: int) -> None:
        """Before the descriptor is closed."""
        self._selector.unregister(fd)

    def again(self, handler: Readiness) -> None:
        """Call ``handler.on_ready(READ)`` in the next turn in any case: it holds unread data itself."""
        self._again.append(handler)

    def run(self) -> None:
        """Turn until ``stop``. Then everything is closed."""
        if self._closed or self._ident is not None:
            raise BugError("a loop runs once")
        self._ident = threading.get_ident()
        try:
            while not self._stopping:
                self._turn()
            self._wind_down()
        finally:
            self._closed = True
            self._ident = None
            self._selector.close()
            self._near.close()
            self._far.close()

    # ------------------------------------------------------------ inside

    def _wake(self) -> None:
        if self._waking or threading.get_ident() == self._ident:
            return
        self._waking = True
        with contextlib.suppress(OSError):  # full: it will wake; closed: it has ended
            self._far.send(b"\0")

    def _turn(self) -> None:
        events = self._selector.select(self._timeout())
        began = self.clock.monotonic()
        self._waking = False
        again, self._again = self._again, []
        for key, mask in events:
            handler = key.data
            if handler is None:
                self._drain_wakeups()
            elif handler not in again:
                self._guard(handler.on_ready, mask)
        for handler in again:
            self._guard(handler.on_ready, READ)
        self._run_calls()
        self._run_timers(began)
        if began >= self._next_keepalive:
            self._run_keepalives(began)
        self._run_marked()
        counters = self.counters
        took = self.clock.monotonic() - began
        counters.turns += 1
        counters.busy_s += took
        counters.longest_s = max(counters.longest_s, took)

    def _timeout(self) -> float:
        if self._calls or self._marked or self._again or self._stopping:
            return 0.0
        now = self.clock.monotonic()
        until = now + IDLE_POLL_S
        if self._timers and self._timers[0].when < until:
            until = self._timers[0].when
        if self._driven and self._next_keepalive < until:
            until = self._next_keepalive
        return max(0.0, until - now)

    def _guard(self, function: Callable[..., object], *args: Any) -> None:
        try:
            function(*args)
        except Exception:  # one connection's bug must not stop 5,000 others
            self.counters.errors += 1
            log.exception("a handler of the loop %s failed", self.name)

    def _drain_wakeups(self) -> None:
        try:
            while self._near.recv(4096):
                pass
        except BlockingIOError:
            pass

    def _run_calls(self) -> None:
        for _ in range(min(len(self._calls), AT_ONCE)):  # what they post themselves waits for the next turn
            function, args = self._calls.popleft()
            self._guard(function, *args)

    def _run_timers(self, now: float) -> None:
        timers = self._timers
        while timers and timers[0].when <= now:
            timer = heapq.heappop(timers)
            function = timer.function
            if function is None:
                continue
            self.counters.latest_s = max(self.counters.latest_s, now - timer.when)
            self._guard(function, *timer.arguments)

    def _run_keepalives(self, now: float) -> None:
        count = len(self._driven)
        slices = min(KEEPALIVE_SLICES, max(1, count))
        self._next_keepalive = now + KEEPALIVE_EVERY_S / slices
        if not self._round:
            self._round = list(self._driven)
        for _ in range(min(len(self._round), -(-count // slices))):
            transport = self._round.pop()
            if transport in self._driven:
                self._guard(transport.keepalive)

    def _run_marked(self) -> None:
        for _ in range(min(len(self._marked), AT_ONCE)):
            client = self._marked.popleft()
            client.dirty = False
            self._guard(client.flush)

    def _wind_down(self) -> None:
        while self._calls:
            self._run_calls()
        for transport in list(self._driven):
            self._guard(transport.halt, True)
        while self._calls:
            self._run_calls()
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                log.error("the loop %s ends with an open connection", self.name)
