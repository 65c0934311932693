"""The station's life: open the store, lead or stand by, say how it goes, end in order.

The control thread is the caller's (the main thread of ``fleetui station``). It looks at the lease, gives the
leading part its slices, and writes a status row once a second. Nothing it does waits long, except for the store.

A station that stands by holds no connection to the broker: it would only take the leader's messages. When the lease
falls to it, it connects under the same client id, takes over the session, and is sent what was not acknowledged.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import Any

from fleetui import __version__
from fleetui.common.domain.clock import Clock, SystemClock, clock_from_spec
from fleetui.common.domain.errors import OperatorError, StoreError
from fleetui.common.link.transport import LinkState
from fleetui.station.config import StationConfig, broker_of
from fleetui.station.counters import Counters, Rates
from fleetui.station.leader import Leadership
from fleetui.station.leading import Leading
from fleetui.station.link import MakeLink, MqttLink
from fleetui.station.turnable import TurnableClock
from fleetui.station.wishes.office import Check
from fleetui.store import status
from fleetui.store.records import StationStatus
from fleetui.store.store import Store

log = logging.getLogger("fleetui.station")

TICK_S = 0.2
SWITCH_S = 0.0005
RESTART_S = 2.0
SEARCH_S = 1.0
CLOSE_S = 1.0

Say = Callable[..., None]


class Station:
    """One station. ``run`` blocks until ``stop``; without it, ``open`` and then ``step`` again and again."""

    def __init__(
        self,
        config: StationConfig,
        check: Check,
        *,
        make_link: MakeLink = MqttLink,
        say: Say = lambda _kind, **_fields: None,
        clock: Clock | None = None,
        real: Clock | None = None,
    ) -> None:
        """``clock``: instead of the configuration's; ``real``: this machine's time, for the lease."""
        self.config = config
        self.clock = TurnableClock(clock or clock_from_spec(config.clock))
        self.counters = Counters()
        self.leading: Leading | None = None
        self._check = check
        self._make_link = make_link
        self._say = say
        self._real = real or SystemClock()
        self._rates = Rates()
        self._stopping = False
        self._wake = threading.Event()
        self._store: Store | None = None
        self._leadership: Leadership | None = None
        self._next_status = 0.0
        self._not_before = 0.0
        self._next_search = 0.0
        self._said: dict[str, Any] = {}
        self._writing: Future[int] | None = None
        self._turns: list[Clock] = []

    # ------------------------------------------------------------ from any thread

    def stop(self) -> None:
        """End soon. A plain flag, seen at the next slice: a signal handler must not touch a lock."""
        self._stopping = True

    def command(self, said: dict[str, Any]) -> None:
        """A line from the parent: ``{"command": "clock", "spec": …}`` or ``{"command": "stop"}``."""
        match said.get("command"):
            case "stop":
                self.stop()
            case "clock":
                try:
                    self._turns.append(clock_from_spec(str(said.get("spec") or "")))
                except OperatorError as error:
                    self._say("error", text=str(error))
            case other:
                self._say("error", text=f"{other!r} is not a command of the station")

    # ------------------------------------------------------------ the control thread

    def run(self) -> None:
        """Until stopped. Raises ``OperatorError`` where it cannot even begin."""
        # A message passes from thread to thread; at Python's 5 ms each hand-over could cost that much.
        sys.setswitchinterval(SWITCH_S)
        self.open()
        # The books are many small objects that stay; looking through them all for cycles stops everything for
        # a tenth of a second. Hardly anything that is made later has cycles.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        try:
            while not self._stopping:
                self.step()
                self._wake.wait(TICK_S)
                self._wake.clear()
        finally:
            self.close()

    def open(self) -> None:
        config = self.config
        self._store = Store.open(config.store_url, clock=self.clock)
        self._leadership = Leadership(self._store, config.holder, config.lease_s, self._real)
        log.info("station %s, store %s, broker %s", config.holder, self._store.url, config.broker)
        self._control()
        self._say(
            "ready",
            station=config.station,
            pid=os.getpid(),
            store=self._store.url,
            broker=str(config.broker),
            fleet=config.fleet,
            leader=self.leading is not None,
        )
        self._tell()

    def step(self) -> None:
        """One slice of control, and a word about it."""
        self._control()
        self._tell()

    def _control(self) -> None:
        assert self._store is not None
        assert self._leadership is not None
        while self._turns:
            self.clock.turn(self._turns.pop(0))
            if self.leading is not None:
                self.leading.turn_clock()
        leading, leadership = self.leading, self._leadership
        if leading is not None and leading.batcher.fenced.is_set():
            leadership.lost()
        leads = leadership.tick()
        if leading is not None and not leads:
            log.warning("another station leads now: %s", leadership.other or "it will be known soon")
            self._step_down()
        elif leading is not None and not leading.alive:
            log.error("the ingest thread has ended; everything is begun anew from the store")
            self._step_down()
            self._not_before = self._real.monotonic() + RESTART_S
        elif leading is not None and self._broker_moved(leading):
            self._step_down()
        if self.leading is None and leads and self._real.monotonic() >= self._not_before:
            self._lead()
        if self.leading is not None:
            self.leading.tick()

    def _broker_moved(self, leading: Leading) -> bool:
        """Whether the instance's own broker listens elsewhere now: it was started again on another port."""
        real = self._real.monotonic()
        if not self.config.own_broker or leading.link_status.state is LinkState.ONLINE or real < self._next_search:
            return False
        self._next_search = real + SEARCH_S
        try:
            found = broker_of(self.config.base)
        except OperatorError:
            return False
        if found.address == self.config.broker:
            return False
        log.info("the broker listens on %s now", found.address)
        self.config = replace(self.config, broker=found.address)
        return True

    def _lead(self) -> None:
        assert self._store is not None
        assert self._leadership is not None
        assert self._leadership.term is not None
        leading = Leading(
            self.config,
            self._store,
            self._leadership,
            self.clock,
            self._real,
            self.counters,
            self._check,
            self._make_link,
            self._wake.set,
        )
        try:
            leading.start(self._leadership.term)
        except StoreError as error:
            log.warning("cannot lead yet: %s", error)
            leading.close()
            self._not_before = self._real.monotonic() + RESTART_S
            return
        log.info("leading, term %d", self._leadership.term)
        self.leading = leading

    def _step_down(self) -> None:
        leading, self.leading = self.leading, None
        if leading is not None:
            leading.close()

    def close(self) -> None:
        """In order: what came in is written and acknowledged, then others may lead."""
        store, leadership = self._store, self._leadership
        if store is None or leadership is None:
            return
        self._step_down()
        leadership.release()
        self._status(store, ended=True)
        if self._written():
            store.close()
        else:
            log.warning("the store does not answer; it is left as it is")
        self._store = None
        self._say("stopped", station=self.config.station, reason="asked to")

    def _written(self) -> bool:
        """Whether the store still takes things: closing one that hangs would hang as well."""
        if self._writing is None:
            return True
        done, _ = wait([self._writing], CLOSE_S)
        return bool(done)

    # ------------------------------------------------------------ saying how it goes

    def _tell(self) -> None:
        assert self._store is not None
        leading = self.leading
        link = leading.link_status if leading else None
        said = {
            "leader": leading is not None,
            "link": link.state.value if link else "idle",
            "reason": link.reason if link else "",
            "store": leading.batcher.trouble if leading else "",
        }
        if said != self._said:
            self._said = said
            self._say("state", **said)
        real = self._real.monotonic()
        if real >= self._next_status:
            self._next_status = real + self.config.status_s
            self._status(self._store)

    def _status(self, store: Store, *, ended: bool = False) -> None:
        """A row that the desk reads. One at a time: where the store is slow, looks are left out."""
        if self._writing is not None and not self._writing.done():
            return
        config, leading = self.config, self.leading
        counters = self.counters.snapshot()
        counters.update(self._rates.since_last(counters, self._real.monotonic()))
        if leading is not None:
            counters.update(leading.figures())
        link = leading.link_status if leading else None
        row = StationStatus(
            station=config.station if leading is not None or ended else f"{config.station}~standby",
            at=self.clock.now(),
            leader=leading is not None,
            link=link.state.value if link else "idle",
            link_reason="stopped" if ended else link.reason if link else self._why_idle(),
            broker=str(config.broker),
            counters=counters,
            version=__version__,
            pid=os.getpid(),
        )
        try:
            self._writing = store.submit(lambda connection: status.write(connection, row))
        except StoreError as error:
            log.info("no status: %s", error)

    def _why_idle(self) -> str:
        other = self._leadership.other if self._leadership else ""
        return f"{other} leads" if other else ""
