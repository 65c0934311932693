"""A store that is opened when it is first needed, on the thread that needs it, and again after it failed.

The window must not wait for a database: it is built with this in hand, and the feed's thread, which is the first
to read, opens it. One that cannot be opened (a server that is down) raises its :class:`StoreError` at each try
until it can. Any thread but the main one, where it would block.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from fleetui.common.domain.clock import Clock
from fleetui.common.domain.errors import StoreError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from fleetui.store.store import Store

T = TypeVar("T")


class Reads(Protocol):
    """What is needed of a store to read from it."""

    def read(self) -> AbstractContextManager[Connection]: ...


class ReadsAndWrites(Reads, Protocol):
    def write(self, work: Callable[[Connection], T]) -> T: ...


class LazyStore:
    """Has the methods of :class:`Store` that the desk uses."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._closed = False

    @property
    def url(self) -> str:
        """Without the password, once it is open."""
        return self._store.url if self._store is not None else self._url.rpartition("@")[2]

    @property
    def is_open(self) -> bool:
        return self._store is not None

    def open(self) -> Store:
        """The store itself; opened now if it was not."""
        with self._lock:
            if self._closed:
                raise StoreError("The store is closed", "Open the desk again")
            if self._store is None:
                from fleetui.store.store import Store

                self._store = Store.open(self._url, clock=self._clock)
            return self._store

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self.open().read() as connection:
            yield connection

    def write(self, work: Callable[[Connection], T]) -> T:
        return self.open().write(work)

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        return self.open().submit(work)

    def close(self) -> None:
        """Waits for one that is just being opened."""
        with self._lock:
            self._closed = True
            store, self._store = self._store, None
        if store is not None:
            store.close()
