"""Claims compile jobs from the store and runs them, one process each: ``fleetui worker``, no desk needed.

The calling thread looks for work; each running job has a thread that follows its process and reports to the store.
Results go under the worker's own folder, whatever the request says: a row in a database must not choose where on
this machine is written. A worker that loses a job (its lease lapsed, say while the machine slept) ends that job's
process; a worker that is told to stop puts its jobs back into the queue by letting go of them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fleetui.common.domain.clock import Clock
from fleetui.common.domain.errors import OperatorError
from fleetui.common.domain.states import Job, JobEvent
from fleetui.store import jobs
from fleetui.store.records import JobRow
from fleetui.store.store import Store
from fleetui.workshop import runner
from fleetui.workshop.errors import ModelError, Stopped, WorkshopError
from fleetui.workshop.job import Request
from fleetui.workshop.progress import Step

log = logging.getLogger("fleetui.workshop.worker")

LOOK_S = 1.0
REPORT_S = 0.5
"""A step is written at once if it ends a stage, else at most this often."""
TTL_S = 30.0


@dataclass(slots=True)
class _Running:
    row: JobRow
    stop: threading.Event = field(default_factory=threading.Event)
    lost: bool = False
    last: dict[str, Any] = field(default_factory=dict)
    thread: threading.Thread | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Worker:
    """``run`` blocks until ``stop`` is called from any thread (or a signal)."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        folder: Path,
        *,
        name: str,
        at_once: int = 1,
        ceilings: runner.Ceilings | None = None,
        say: Callable[..., None] = lambda _kind, **_fields: None,
    ) -> None:
        self._store, self._clock, self._folder, self._name = store, clock, folder, name
        self._at_once, self._ceilings, self._say = max(1, at_once), ceilings or runner.Ceilings(), say
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()

    def run(self, *, drain: bool = False) -> int:
        """Work until told to stop, or with ``drain`` until nothing waits. How many jobs were taken."""
        taken = 0
        self._say("ready", worker=self._name)
        try:
            while not self._stop.is_set():
                with self._lock:
                    room = len(self._running) < self._at_once
                row = self._claim() if room else None
                if row is not None:
                    taken += 1
                    self._begin(row)
                    continue
                with self._lock:
                    idle = not self._running
                if drain and room and idle:
                    break
                self._wake.wait(LOOK_S)
                self._wake.clear()
        finally:
            self._let_go()
        self._say("stopped", worker=self._name, jobs=taken)
        return taken

    def _claim(self) -> JobRow | None:
        try:
            return self._store.write(lambda c: jobs.claim(c, self._name, TTL_S, self._clock.now()))
        except OperatorError as error:
            log.warning("the store cannot be asked for work: %s", error)
            return None

    def _begin(self, row: JobRow) -> None:
        running = _Running(row)
        with self._lock:
            self._running[row.id] = running
        running.thread = threading.Thread(target=self._follow, args=(running,), name=f"job-{row.id[:8]}")
        running.thread.start()

    def _let_go(self) -> None:
        with self._lock:
            left = list(self._running.values())
        for running in left:
            running.lost = True
            running.stop.set()
        for running in left:
            if running.thread is not None:
                running.thread.join()
            with contextlib.suppress(OperatorError):
                self._store.write(lambda c, i=running.row.id: jobs.release(c, i, self._name))  # type: ignore[misc]

    # ------------------------------------------------------------ one job

    def _follow(self, running: _Running) -> None:
        row = running.row
        self._say("job", id=row.id, state=Job.IN_PROGRESS.value, title=row.title)
        holding = threading.Thread(target=self._hold, args=(running,), name=f"hold-{row.id[:8]}")
        holding.start()
        try:
            outcome = runner.run(
                self._request(row), lambda step: self._step(running, step), running.stop, self._ceilings
            )
            record = {**outcome.record, "out": str(self._out(row)), "peak_bytes": outcome.peak_bytes}
            self._end(running, JobEvent.COMPLETE, record=record)
        except Stopped:
            self._end(running, JobEvent.STOPPED)
        except WorkshopError as error:
            self._end(running, JobEvent.FAIL, code=error.code, sentence=error.sentence, fix=error.fix)
        except Exception as error:
            log.exception("job %s failed in a way nobody foresaw", row.id)
            self._end(
                running, JobEvent.FAIL, code="bug", sentence=f"{type(error).__name__}: {error}", fix="Report it"
            )
        finally:
            running.done.set()
            holding.join()
            with self._lock:
                self._running.pop(row.id, None)
            self._wake.set()

    def _out(self, row: JobRow) -> Path:
        name = "".join(ch for ch in row.id if ch.isalnum())
        return self._folder / (name or "job")

    def _request(self, row: JobRow) -> Request:
        try:
            request = Request.from_json({**row.request, "out": str(self._out(row))})
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"The job's request cannot be read ({error})", "Ask for it again") from None
        return replace(request, out=str(self._out(row)), schedules=str(self._folder.parent / "schedules.jsonl"))

    def _step(self, running: _Running, step: Step) -> None:
        """On the job's thread: remember it; ``_hold`` writes it."""
        running.last = {**asdict(step), "stage": step.stage.value}

    def _hold(self, running: _Running) -> None:
        """Renews the lease, writes the last step, and hears of a wish to stop; on a thread of its own."""
        written: dict[str, Any] | None = None
        waited = TTL_S
        while not running.done.wait(REPORT_S):
            waited += REPORT_S
            last = running.last
            if last is written and waited < TTL_S / 3:
                # Nothing new to write: but somebody may have asked for a stop.
                with contextlib.suppress(OperatorError), self._store.read() as connection:
                    found = jobs.get(connection, running.row.id)
                    if found is not None and found.state is Job.STOPPING:
                        running.stop.set()
                continue
            try:
                now = self._clock.now()
                state = self._store.write(
                    lambda c, last=last, now=now: jobs.report(  # type: ignore[misc]
                        c, running.row.id, self._name, last, TTL_S, now
                    )
                )
            except OperatorError as error:
                log.warning("the store cannot be told how far job %s is: %s", running.row.id, error)
                continue
            written, waited = last, 0.0
            if state is None:
                log.warning("job %s is not ours any more; ending its process", running.row.id)
                running.lost = True
            if state in {None, Job.STOPPING}:
                running.stop.set()

    def _end(self, running: _Running, event: JobEvent, **words: Any) -> None:
        if running.lost:
            return
        row, now = running.row, self._clock.now()
        try:
            ours = self._store.write(lambda c: jobs.finish(c, row.id, self._name, event, now=now, **words))
        except OperatorError as error:
            log.warning("the end of job %s cannot be written: %s; another worker will take it", row.id, error)
            return
        state = "not ours any more" if not ours else event.value
        self._say("job", id=row.id, state=state, title=row.title, sentence=words.get("sentence", ""))
