"""The store: one database between desk, station and command line; each process opens it for itself.

Reading happens on any thread, in snapshots that never wait for writers. Writing happens on one thread of its own
(writer.py). What is written and read stands in the modules beside this one, as functions of a connection::

    with Store.open(url, clock=clock) as store:
        store.write(lambda c: ingest.write(c, batch))
        with store.read() as connection:
            changes = feed.read(connection, since)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from fleetui.common.domain.clock import Clock
from fleetui.common.domain.errors import BugError, StoreError
from fleetui.store import engine as engines
from fleetui.store import faults, integrity, schema, words
from fleetui.store.writer import Writer

log = logging.getLogger("fleetui.store")
T = TypeVar("T")

_SNAPSHOT = text("SELECT 1 FROM change_head")


class Store:
    """An open store. Make one with :meth:`open`; close it, or use it as a context manager."""

    def __init__(self, url: URL, clock: Clock, writing: Engine, reading: Engine) -> None:
        self._url = url
        self._reading = reading
        self._writing = writing
        self._writer = Writer(writing, url)
        self._open = True
        self.clock = clock
        self.dialect: str = writing.dialect.name  # "sqlite" or "postgresql"

    @classmethod
    def open(cls, url: str, *, clock: Clock, create: bool = True, check: bool = True) -> Store:
        """Open, after making or upgrading the schema and a quick look at the file's integrity.

        StoreError, with a sentence and what to do, where it is locked, full, damaged, newer than this program,
        not reachable or (without ``create``) not there.
        """
        parsed = engines.parse(url)
        file = engines.file_of(parsed)
        if file is not None and not create and not file.exists():
            raise StoreError(f"There is no store at {file}", "Check the address, or start fleetui once to make it")
        writing, reading = engines.make(parsed, writes=True), engines.make(parsed, writes=False)
        words.forget_on_rollback(writing)
        try:
            # Nobody is made to wait for a look, and nothing is touched that is not ours.
            if file is not None and check:
                integrity.at_start(reading, file)
            revision = schema.glance(reading, parsed)
            if file is not None:
                engines.set_up_file(writing)
            if revision != schema.HEAD:
                schema.prepare(writing, parsed, create=create)
            return cls(parsed, clock, writing, reading)
        except BaseException as error:
            writing.dispose()
            reading.dispose()
            found = faults.translate(error, parsed)
            if found is error:
                raise
            raise found from None

    @property
    def url(self) -> str:
        """Without the password: for sentences and logs."""
        return engines.shown(self._url)

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """Have ``work`` run on the writer thread; the future is resolved once it is committed.

        Waits where very much is waiting already. ``work`` may be run more than once and must only write.
        """
        return self._writer.submit(work)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a writing transaction and return what it returns, once that is committed."""
        if self._writer.is_current_thread():
            raise BugError("a work writes through its connection, not through the store")
        return self._writer.submit(work).result()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that only reads, and sees one snapshot as long as it lasts. Keep it short."""
        if not self._open:
            raise StoreError("The store is closed", "Open it again")
        try:
            with self._reading.connect() as connection, connection.begin():
                # Both databases take their snapshot at the first question, not at BEGIN.
                connection.execute(_SNAPSHOT)
                yield connection
        except (DBAPIError, PoolTimeout) as error:
            found = faults.translate(error, self._url)
            if found is error:
                raise
            raise found from None

    def close(self) -> None:
        """Write what waits, then close every connection. Calling it again does nothing."""
        if not self._open:
            return
        self._open = False
        self._writer.close()
        self._reading.dispose()
        self._writing.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
