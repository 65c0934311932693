"""The bounded queue between the link's thread and the ingest thread.

The link's thread only appends; the ingest thread takes everything there is. Messages are kept in their order of
arrival. Jobs of the control thread (judge presence, rename a device) travel in the same queue, so that a job sees
every message that arrived before it.

Unconfirmed (QoS 0) messages beyond ``limit``, or beyond ``BYTES``, are dropped and counted. Of confirmed ones a
broker should keep at most ``receive_maximum`` on their way; mosquitto 2.0.11 was seen to send many times as many
when it has a backlog, so they may take more room. Beyond ``MOST`` and ``MOST_BYTES`` they are left unacknowledged
and counted (``held``); they come again with the next connection, which the control thread then brings about.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from fleetui.common.domain.clock import Clock
from fleetui.common.link.transport import Message
from fleetui.station.counters import Counters

BYTES = 64 * 1024 * 1024
MOST = 250_000
MOST_BYTES = 256 * 1024 * 1024


class Arrival(NamedTuple):
    """A message with its time of receipt: fleet time, and real time for measuring."""

    message: Message
    now: float
    monotonic: float


Job = Callable[[], None]


class Intake:
    """See the module's text. ``offer``: link thread; ``post``, ``close``: any; the rest: ingest thread."""

    def __init__(self, clock: Clock, counters: Counters, limit: int) -> None:
        self._clock = clock
        self._counters = counters
        self._limit = limit
        self._items: deque[Arrival | Job] = deque()
        self._waiting = False
        self._wake = threading.Event()
        self._closed = False
        self._bytes_in = 0  # link thread
        self._bytes_out = 0  # ingest thread

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        return self._closed

    def offer(self, message: Message) -> None:
        """From the link: never blocks."""
        self._counters.received += 1
        count, size = len(self._items), self._bytes_in - self._bytes_out
        if message.qos == 0:
            if count >= self._limit or size > BYTES or self._closed:
                self._counters.dropped += 1
                return
        elif count >= MOST or size > MOST_BYTES or self._closed:
            self._counters.held += 1
            return
        self._bytes_in += len(message.payload)
        self._items.append(Arrival(message, self._clock.now(), self._clock.monotonic()))
        if self._waiting:
            self._wake.set()

    def post(self, job: Job) -> None:
        """A job for the ingest thread, after all that has arrived so far. Jobs are few and always taken."""
        self._items.append(job)
        if self._waiting:
            self._wake.set()

    def close(self) -> None:
        """No more messages are let in; what is inside can still be taken."""
        self._closed = True
        self._wake.set()

    def wait(self, timeout: float) -> bool:
        """Until there is something, the queue is closed, or ``timeout`` has passed."""
        if self._items:
            return True
        # The flag first, then the look: a producer appends, then looks at the flag. One of both sees the other.
        self._wake.clear()
        self._waiting = True
        if not self._items and not self._closed:
            self._wake.wait(timeout)
        self._waiting = False
        return bool(self._items)

    def take(self, most: int) -> list[Arrival | Job]:
        items = self._items
        taken = [items.popleft() for _ in range(min(len(items), most))]
        self._bytes_out += sum(len(item.message.payload) for item in taken if isinstance(item, Arrival))
        return taken
