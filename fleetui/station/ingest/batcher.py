"""The ingest thread: messages into the books, the books into the store, and only then the acknowledgement.

One turn: wait for something, wait a moment longer for what comes with it (``gather_s``), fold it all, commit it
in one transaction, acknowledge. While a commit runs the next messages come together, so the busier it is the
larger the batches become, and nothing needs tuning.

A message is acknowledged to the broker after its commit and never before. Where the store is locked, full or gone,
the batch is kept and tried again; the broker meanwhile holds what follows (flow control), and nothing is lost.
Where the store refuses a row for what is in it, that row is found, counted and left out, and the rest is written.

Every transaction first looks whether this station still leads (:class:`Fence`): a station that was frozen and left
behind cannot write over what its successor has written.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection

from fleetui.common.domain.clock import Clock
from fleetui.common.domain.errors import FleetError, StoreError
from fleetui.common.link.transport import Message
from fleetui.station.counters import Counters, Lag
from fleetui.station.ingest.intake import Arrival, Intake
from fleetui.station.ingest.ledger import Ledger
from fleetui.store import ingest
from fleetui.store.records import Batch
from fleetui.store.store import Store

log = logging.getLogger("fleetui.station")
T = TypeVar("T")

RETRY_MIN_S = 0.1
RETRY_MAX_S = 5.0
IDLE_S = 1.0


class FencedError(FleetError):
    """Another station leads now."""


class Fence(Protocol):
    def check(self, connection: Connection) -> None:
        """Raise :class:`FencedError` where this station does not lead any more. Inside the transaction."""


class Batcher:
    """See the module's text. ``run``: ingest thread; ``stop``: any; the rest: ingest thread (or a test)."""

    def __init__(
        self,
        store: Store,
        fence: Fence,
        intake: Intake,
        ledger: Ledger,
        counters: Counters,
        clock: Clock,
        ack: Callable[[Message], None],
        *,
        gather_s: float,
        most: int,
    ) -> None:
        self._store = store
        self._fence = fence
        self._intake = intake
        self._ledger = ledger
        self._counters = counters
        self._clock = clock
        self._ack = ack
        self._gather_s = gather_s
        self._most = most
        self._stop = threading.Event()
        self._abandoned = threading.Event()
        self._arrivals: list[Arrival] = []
        self.lag = Lag()
        self.fenced = threading.Event()  # the store says that another station leads
        self.trouble: str = ""  # why the store does not take what there is, while it does not
        self.on_trouble: Callable[[str], None] = _ignore
        self.on_wake: Callable[[], None] = _nothing  # before each turn, and once in a while without one
        self.on_turn: Callable[[], None] = _nothing  # after each commit: answers and questions can be fetched
        self.on_committed: Callable[[Sequence[Arrival]], None] = _ignore

    def run(self) -> None:
        """Until :meth:`stop`; then what is in the intake is still written. Ends early where it may not go on."""
        try:
            while not self._stop.is_set():
                found = self._intake.wait(IDLE_S)
                self.on_wake()
                if found:
                    if len(self._intake) < self._most:
                        self._stop.wait(self._gather_s)
                    if not self.turn():
                        return
            while len(self._intake) and self.turn():
                pass
        except Exception:  # what nobody thought of: whoever started this thread sees that it has ended
            log.exception("the ingest thread failed")

    def stop(self) -> None:
        """Let nothing more in, write what is in the intake, and end."""
        self._stop.set()
        self._intake.close()

    def abandon(self) -> None:
        """Do not wait for the store any longer: what is not written stays unacknowledged, with the broker."""
        self._abandoned.set()
        self.stop()

    def turn(self) -> bool:
        """Take what there is, and commit it. False where this station may not go on."""
        for item in self._intake.take(self._most):
            if isinstance(item, Arrival):
                message = item.message
                self._arrivals.append(item)
                self._ledger.receive(
                    message.topic, message.payload, item.now, item.monotonic, retained=message.retain
                )
            else:
                item()
            if self.fenced.is_set():
                return False
        return self.commit()

    def commit(self) -> bool:
        """Write what has come together and acknowledge it; False where this station may not go on."""
        batch, stored = self._ledger.collect()
        arrivals, self._arrivals = self._arrivals, []
        if (len(batch) or batch.fleet or batch.counters) and not self._write(batch):
            return False
        self._counters.stored += stored
        if arrivals:
            self._counters.commits += 1
            acked = 0
            for arrival in arrivals:
                if arrival.message.token is not None:
                    self._ack(arrival.message)
                    acked += 1
            self._counters.acked += acked
            now = self._clock.monotonic()
            self.lag.add([now - arrival.monotonic for arrival in arrivals])
            self.on_committed(arrivals)
        self.on_turn()
        return True

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Another transaction of the leader, after what was committed before it. Ingest thread."""

        def checked(connection: Connection) -> T:
            self._fence.check(connection)
            return work(connection)

        return self._store.write(checked)

    def _write(self, batch: Batch) -> bool:
        pause = RETRY_MIN_S
        since = self._clock.monotonic()
        while True:
            try:
                self.transact(lambda connection: ingest.write(connection, batch))
            except FencedError:
                log.info("another station leads: %d rows are left to it", len(batch))
                self.fenced.set()
                return False
            except StoreError as error:
                self._counters.retries += 1
                if self.trouble != str(error):
                    self.trouble = str(error)
                    log.warning("the store does not take what came in, trying again: %s", error)
                    self.on_trouble(self.trouble)
                if self._abandoned.wait(pause):
                    return False
                pause = min(2 * pause, RETRY_MAX_S)
            except Exception as error:  # noqa: BLE001 - what is not a StoreError lies in the rows; told in _salvage
                if not self._salvage(batch, error):
                    return False
                break
            else:
                break
        if self.trouble:
            self._recovered(self._clock.monotonic() - since)
        return True

    def _recovered(self, seconds: float) -> None:
        self._ledger.tell(
            self._clock.now(),
            "store.trouble",
            2,
            f"For {seconds:.0f} s the store took nothing ({self.trouble.split('.')[0]}); nothing was lost",
        )
        self.trouble = ""
        log.warning("the store works again after %.0f s", seconds)
        self.on_trouble("")

    def _salvage(self, batch: Batch, error: Exception) -> bool:
        """Write what can be written: halve until the row that is refused stands alone."""
        pieces = _halves(batch)
        if pieces is not None:
            return all(self._write(piece) for piece in pieces)
        self._counters.unstorable += 1
        log.error("left out, because the store does not take it: %.400r (%s)", batch, error)
        return True


_LISTS = tuple(f.name for f in fields(Batch) if f.name not in {"devices", "counters"})


def _halves(batch: Batch) -> tuple[Batch, Batch] | None:
    """The batch in two; None where it is a single row."""
    rows: list[tuple[str, Any]] = [("devices", row) for row in batch.devices.values()]
    rows += [(name, row) for name in _LISTS for row in getattr(batch, name)]
    if batch.counters and rows:
        return Batch(counters=batch.counters), _of(rows)
    if len(rows) < 2:
        return None
    middle = len(rows) // 2
    return _of(rows[:middle]), _of(rows[middle:])


def _of(rows: list[tuple[str, Any]]) -> Batch:
    batch = Batch()
    for name, row in rows:
        if name == "devices":
            batch.devices[row.device] = row
        else:
            getattr(batch, name).append(row)
    return batch


def _ignore(_: object) -> None:
    """What is called until somebody listens."""


def _nothing() -> None:
    """What is called until somebody listens."""
