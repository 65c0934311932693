"""The one thread of this process that writes.

Work is a function of a connection. It runs inside a transaction that is open already and must not commit; it may
be run again from the start when another process was in the way, so it does nothing but write. Works that wait
together share a transaction (a commit costs a disk flush); where one fails, all is rolled back and the others are
run again without it. A work that lives with a database error of its own puts that part into ``begin_nested()``. A
Future is resolved after the commit, never before.

Where the connection to PostgreSQL breaks during a commit, the server is asked afterwards what became of the
transaction: nothing is written twice, and nothing is reported written that was not.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from fleetui.common.domain.errors import BugError, StoreError
from fleetui.store import engine as engines
from fleetui.store import faults

log = logging.getLogger("fleetui.store")
T = TypeVar("T")

QUEUE = 1_000  # works that may wait; who brings more waits himself
TOGETHER = 64  # works in one transaction at most
TRIES = 5
_PAUSES_S = (0.05, 0.2, 0.5, 1.0)
_SUBMIT_S = 30.0
_FATE = text("SELECT pg_xact_status(CAST(:xid AS xid8))")


@dataclass(slots=True, eq=False)
class _Job:
    work: Callable[[Connection], Any]
    future: Future[Any] = field(default_factory=Future)
    value: Any = None


class _RunAgainError(Exception):
    """The transaction is gone; what is left in the list is to be run again."""


class _UnknownFateError(Exception):
    """The connection broke during the commit of this transaction."""

    def __init__(self, xid: str, cause: DBAPIError) -> None:
        super().__init__(xid)
        self.xid = xid
        self.cause = cause


class Writer:
    """Takes works from any thread and runs them on its own."""

    def __init__(self, engine: Engine, url: URL) -> None:
        self._engine = engine
        self._url = url
        self._postgres = engine.dialect.name == "postgresql"
        self._connection: Connection | None = None
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._closed = False
        self._stop = threading.Event()  # cuts pauses between tries short
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True)
        self._thread.start()

    # -------------------------------------------------------------------------------- any thread

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        job = _Job(work)
        with self._changed:
            room = self._changed.wait_for(lambda: self._closed or len(self._waiting) < QUEUE, _SUBMIT_S)
            if self._closed:
                raise StoreError("The store is closed", "Open it again")
            if not room:
                raise StoreError("The store cannot keep up with what is to be written", "Check disk and load")
            self._waiting.append(job)
            self._changed.notify_all()
        return job.future

    def is_current_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """Finish what waits, then stop. Calling it again does nothing."""
        if self.is_current_thread():
            raise BugError("the writer cannot close itself")
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._stop.set()
        self._thread.join()

    # -------------------------------------------------------------------------------- the writer's thread

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
            job = self._next()
            if job is None:
                if self._closed:
                    break
                continue
            self._run([job])
        self._disconnect()

    def _next(self) -> _Job | None:
        """The next work, unless nothing waits; works whose caller gave up are passed over."""
        with self._changed:
            while self._waiting:
                job = self._waiting.popleft()
                self._changed.notify_all()
                if job.future.set_running_or_notify_cancel():
                    return job
            return None

    def _run(self, jobs: list[_Job]) -> None:
        """Run these, and what joins them, to the end: every future is resolved when it returns."""
        tries = 0
        while jobs:
            try:
                self._transaction(jobs)
            except _RunAgainError:
                continue  # one of them failed and is out; the others go on
            except _UnknownFateError as unknown:
                if self._was_committed(unknown, jobs):
                    break
            except DBAPIError as error:
                self._disconnect_if_lost(error)
                tries += 1
                if not faults.is_retryable(error) or tries >= TRIES:
                    for job in jobs:
                        job.future.set_exception(faults.translate(error, self._url))
                    return
                log.debug("writing again after: %s", error.orig)
                self._stop.wait(_PAUSES_S[min(tries, len(_PAUSES_S)) - 1])
            else:
                break
        for job in jobs:
            job.future.set_result(job.value)

    def _transaction(self, jobs: list[_Job]) -> None:
        connection = self._connected()
        transaction = connection.begin()
        xid = ""
        try:
            if self._postgres:
                xid = connection.execute(engines.LOCK).scalar_one()
            done = 0
            while True:
                if done == len(jobs):
                    joining = self._next() if done < TOGETHER else None
                    if joining is None:
                        break
                    jobs.append(joining)
                self._one(connection, jobs, done)
                done += 1
        except BaseException:
            self._roll_back(transaction)
            raise
        try:
            transaction.commit()
        except DBAPIError as error:
            self._roll_back(transaction)
            if self._postgres and faults.is_lost(error):
                raise _UnknownFateError(xid, error) from error
            raise
        except BaseException:
            self._roll_back(transaction)
            raise

    def _one(self, connection: Connection, jobs: list[_Job], i: int) -> None:
        job = jobs[i]
        try:
            job.value = job.work(connection)
        except BaseException as error:
            if faults.is_retryable(error):
                raise
            jobs.pop(i)
            job.future.set_exception(faults.translate(error, self._url))
            if isinstance(error, DBAPIError):
                self._disconnect_if_lost(error)
            # Everything is rolled back and the others are run again: rare, simpler than savepoints, and right
            # even where the database itself has rolled everything back (a full disk does).
            raise _RunAgainError from error

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed or self._connection.invalidated:
            self._disconnect()
            self._connection = self._engine.connect()
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except DBAPIError as error:
                log.debug("closing a broken connection: %s", error.orig)

    def _disconnect_if_lost(self, error: DBAPIError) -> None:
        if faults.is_lost(error):
            connection = self._connection
            if connection is not None and not connection.closed:
                connection.invalidate()
            self._disconnect()

    @staticmethod
    def _roll_back(transaction: Any) -> None:
        try:
            transaction.rollback()
        except DBAPIError as error:  # the connection is gone, and the transaction with it
            log.debug("rolling back a lost transaction: %s", error.orig)

    def _was_committed(self, unknown: _UnknownFateError, jobs: list[_Job]) -> bool:
        """Ask the server for the fate of the transaction. Where it cannot be asked, the works fail."""
        error: DBAPIError = unknown.cause
        self._disconnect_if_lost(error)
        for pause in (*_PAUSES_S, *_PAUSES_S):
            try:
                connection = self._connected()
                with connection.begin():
                    fate = connection.execute(_FATE, {"xid": unknown.xid}).scalar_one()
            except DBAPIError as again:
                error = again
                self._disconnect_if_lost(again)
                fate = None
            if fate == "committed":
                return True
            if fate == "aborted":
                return False
            self._stop.wait(pause)
        for job in jobs:
            job.future.set_exception(faults.translate(error, self._url))
        jobs.clear()
        return True
