"""Events in order of time, stepped by hand: what drives the loopback in virtual time, or on a thread in real time.

Given a :class:`~fleetui.common.domain.clock.ManualClock`, nothing waits: ``run_for(3600)`` moves the clock from
one event to the next. The same events in the same order follow from the same seed.

Threads: events may be put in from any thread; they run on whoever calls ``step``, or on the wheel's own thread.
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Callable
from typing import Any

from fleetui.common.domain.clock import Clock, ManualClock
from fleetui.common.domain.errors import BugError
from fleetui.common.link.client import LinkClient

log = logging.getLogger("fleetui.link")


class Planned:
    """One event. ``cancel`` from the thread that steps."""

    __slots__ = ("arguments", "function", "order", "when")

    def __init__(
        self, when: float, order: int, function: Callable[..., object], arguments: tuple[Any, ...]
    ) -> None:
        self.when = when
        self.order = order
        self.function: Callable[..., object] | None = function
        self.arguments = arguments

    def cancel(self) -> None:
        self.function = None
        self.arguments = ()

    def __lt__(self, other: Planned) -> bool:
        return (self.when, self.order) < (other.when, other.order)


class Wheel:
    """A driver for :class:`~fleetui.common.link.client.LinkClient`."""

    def __init__(self, clock: Clock) -> None:
        self.clock: Clock = clock
        self.errors = 0  # exceptions out of events: bugs
        self._events: list[Planned] = []
        self._order = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False

    # ------------------------------------------------------------ from any thread

    def call_soon_threadsafe(self, function: Callable[..., object], *args: Any) -> None:
        self.call_later(0.0, function, *args)

    def call_later(self, delay_s: float, function: Callable[..., object], *args: Any) -> Planned:
        return self.call_at(self.clock.monotonic() + delay_s, function, *args)

    def call_at(self, when: float, function: Callable[..., object], *args: Any) -> Planned:
        with self._changed:
            self._order += 1
            event = Planned(when, self._order, function, args)
            heapq.heappush(self._events, event)
            if self._thread is not None:
                self._changed.notify()
        return event

    def mark(self, client: LinkClient) -> None:
        if not client.dirty:
            client.dirty = True
            self.call_later(0.0, self._flush, client)

    # ------------------------------------------------------------ stepping

    @property
    def next_at(self) -> float | None:
        """When the next event is due (``clock.monotonic()``), if there is one."""
        with self._changed:
            while self._events and self._events[0].function is None:
                heapq.heappop(self._events)
            return self._events[0].when if self._events else None

    def step(self) -> bool:
        """Carry out the next event that is due. False if none is."""
        with self._changed:
            now = self.clock.monotonic()
            while self._events and self._events[0].function is None:
                heapq.heappop(self._events)
            if not self._events or self._events[0].when > now:
                return False
            event = heapq.heappop(self._events)
        function = event.function
        if function is not None:
            try:
                function(*event.arguments)
            except Exception:  # one event's bug must not stop the rest
                self.errors += 1
                log.exception("an event of the loopback failed")
        return True

    def run_until_idle(self, limit: int = 1_000_000) -> int:
        """Carry out all that is due now, and what follows from it now. Returns how many events that were."""
        for done in range(limit):
            if not self.step():
                return done
        raise BugError(f"{limit} events without time passing: something goes round in a circle")

    def run_for(self, seconds: float) -> None:
        """Let virtual time pass, event by event. Needs a clock that can be moved."""
        clock = self.clock
        if not isinstance(clock, ManualClock):
            raise BugError("only a ManualClock can be run")
        end = clock.monotonic() + seconds
        while True:
            self.run_until_idle()
            due = self.next_at
            if due is None or due > end:
                break
            clock.advance(due - clock.monotonic())
        clock.advance(max(0.0, end - clock.monotonic()))
        self.run_until_idle()

    # ------------------------------------------------------------ on a thread

    def start_thread(self) -> None:
        if self._thread is not None:
            raise BugError("the wheel turns already")
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="loopback")
        self._thread.start()

    def stop_thread(self) -> None:
        """Carry out what is due, then end."""
        thread = self._thread
        if thread is None:
            return
        with self._changed:
            self._stopping = True
            self._changed.notify()
        thread.join()
        self._thread = None

    def _run(self) -> None:
        while True:
            self.run_until_idle()
            with self._changed:
                now = self.clock.monotonic()
                due = self._events[0].when if self._events else None
                if due is not None and due <= now:
                    continue
                if self._stopping:
                    return
                self._changed.wait(None if due is None else due - now)

    @staticmethod
    def _flush(client: LinkClient) -> None:
        client.dirty = False
        client.flush()
