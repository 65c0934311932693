"""A recording into the store: the same books and the same batches as live, with the recording's own time.

Fast, because nothing waits: the next batch is folded while the last one is written, and rows of a device that
changed many times in between are written once. Idempotent: the books begin empty, so the same recording makes the
same rows, and the store knows samples, windows and events by their keys. A device whose row in the store is newer
than the recording keeps that row.

No station may lead meanwhile: it has its own books. Runs on the caller's thread.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from fleetui.common.domain.clock import Clock, SystemClock, clock_from_spec
from fleetui.common.domain.errors import ConfigError, ProcessError
from fleetui.common.domain.values import is_id
from fleetui.common.link.recording import Recording
from fleetui.station.config import StationConfig
from fleetui.station.counters import Counters
from fleetui.station.health.presence import PresenceBook
from fleetui.station.ingest.ledger import Ledger, Rules
from fleetui.station.ingest.limits import Limit
from fleetui.station.ingest.sampler import Sampler
from fleetui.station.leader import Leadership
from fleetui.store import devices, ingest, rollup
from fleetui.store.records import Batch
from fleetui.store.store import Store

log = logging.getLogger("fleetui.station")

MESSAGES = 5_000  # folded between two commits
JUDGE_S = 60.0  # recorded time between two looks at who is silent
LONG_S = 86_400.0  # a longer recording has a point of the fleet's curves every half beat, not every ten seconds
DUE_S = 1.0  # real time between two looks at the lease, and two lines of progress

Progress = Callable[..., None]


@dataclass(slots=True)
class ReplayReport:
    """What came of it."""

    messages: int = 0
    stored: int = 0
    rejected: int = 0
    duplicates: int = 0
    devices: int = 0
    first: float = 0.0
    last: float = 0.0
    seconds: float = 0.0
    problem: str = ""  # why the recording was not read to its end
    reasons: dict[str, int] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        text = f"{self.messages} messages of {self.devices} devices in {self.seconds:.1f} s"
        if self.rejected:
            text += f", {self.rejected} rejected"
        return f"{text}; the recording is {self.problem}" if self.problem else text


def replay(config: StationConfig, path: Path, *, progress: Progress | None = None) -> ReplayReport:
    """Read ``path`` into the store. Raises ``OperatorError`` where that cannot be."""
    recording = Recording(path)
    clock: Clock = clock_from_spec(config.clock)
    real = SystemClock()
    with Store.open(config.store_url, clock=clock) as store:
        leadership = Leadership(store, config.holder, config.lease_s, real)
        if not leadership.tick():
            raise ProcessError(
                f"A station leads this store ({leadership.other})",
                "Stop it before a recording is read into its store",
            )
        try:
            return _Replay(config, store, leadership, recording, real, progress).run()
        finally:
            leadership.release()


class _Replay:
    def __init__(
        self,
        config: StationConfig,
        store: Store,
        leadership: Leadership,
        recording: Recording,
        real: Clock,
        progress: Progress | None,
    ) -> None:
        about = recording.about
        fleet = about.get("fleet", config.fleet)
        if not isinstance(fleet, str) or not is_id(fleet):
            raise ConfigError(f"{recording.path} does not say of which fleet it is", "Make it again")
        self._from, self._until = _number(about.get("from")), _number(about.get("until"))
        long = self._until - self._from > LONG_S
        self._store = store
        self._leadership = leadership
        self._recording = recording
        self._real = real
        self._progress = progress
        self._counters = Counters()
        beat_s = _number(about.get("beat_s")) or config.beat_s
        self._presence = PresenceBook(config.thresholds.rule(beat_s, 0.0))
        mark = zlib.crc32(repr(sorted(about.items())).encode())
        self._ledger = Ledger(
            Rules(
                fleet, gap_age_s=config.gap_age_s, limit=Limit(math.inf, math.inf), max_devices=config.max_devices
            ),
            self._presence,
            Sampler(max(math.floor(beat_s / 2), 60.0) if long else config.sample_s),
            self._counters,
            f"replay-{mark:08x}",
        )
        with store.read() as connection:
            self._newer = {row.device: row.last_seen for row in devices.all(connection)}
        self._held: dict[str, Any] = {}
        self._under_way: Future[Any] | None = None
        self._next_look = 0.0

    def run(self) -> ReplayReport:
        with _without_garbage_collection():
            return self._run()

    def _run(self) -> ReplayReport:
        began = self._real.monotonic()
        report = ReplayReport()
        ledger, counters, presence = self._ledger, self._counters, self._presence
        next_judge = now = -math.inf
        for at, topic, payload in self._recording:
            if now < at < 1e11:
                now = at
            if now >= next_judge:
                if not presence.listening:
                    presence.listen(now)
                    report.first = now
                ledger.judge(now, now)
                next_judge = now + JUDGE_S
            counters.received += 1
            ledger.receive(topic, payload, now, now)
            if counters.received % MESSAGES == 0:
                self._commit()
                self._look(now)
        if report.first:
            ledger.judge(now, now, most=1_000_000)
        self._commit(last=True)
        self._wait()
        self._roll_up(now)
        report.messages, report.rejected = counters.received, counters.rejected
        report.duplicates, report.reasons = counters.duplicates, dict(counters.reasons)
        report.stored = counters.stored
        report.devices = len(ledger)
        report.last = now if report.first else 0.0
        report.problem = self._recording.problem
        report.seconds = self._real.monotonic() - began
        return report

    def _commit(self, *, last: bool = False) -> None:
        """Hand the batch over; device rows only once in a while, for the newest is all that stays."""
        batch, stored = self._ledger.collect()
        self._ledger.replies.clear()
        self._ledger.to_ask.clear()
        batch.counters = {}
        self._held.update(batch.devices)
        batch.devices = {}
        if last:
            batch.devices = {
                name: row for name, row in self._held.items() if row.last_seen >= self._newer.get(name, -math.inf)
            }
        self._wait()

        def work(connection: Connection, batch: Batch = batch) -> None:
            self._leadership.check(connection)
            ingest.write(connection, batch)

        self._under_way = self._store.submit(work)
        self._counters.stored += stored

    def _wait(self) -> None:
        if self._under_way is not None:
            self._under_way.result()
            self._under_way = None

    def _look(self, now: float) -> None:
        """Keep the lease; say how far it is."""
        real = self._real.monotonic()
        if real < self._next_look:
            return
        self._next_look = real + DUE_S
        if not self._leadership.tick():
            raise ProcessError("Another station took the lead meanwhile", "Stop it, then read the recording again")
        if self._progress is not None:
            span = self._until - self._from
            share = min(max((now - self._from) / span, 0.0), 1.0) if span > 0 else 0.0
            self._progress("progress", share=round(share, 3), messages=self._counters.received)

    def _roll_up(self, now: float) -> None:
        if now == -math.inf:
            return
        while rollup.run(self._store, now).more:
            self._look(now)


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Many small objects and no cycles among them: looking for some takes a good part of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0
