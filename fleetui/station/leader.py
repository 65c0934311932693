"""Which station leads: a lease in the store, in real time.

Only the leader talks to devices, judges presence, carries out wishes and rolls up; the others stand by. The lease
is renewed every third of its length. Who cannot renew because the store is away goes on leading, for without the
store nobody else can take over, and nothing can be written either. Who finds that another has taken it stops.

Being sure is not left to timing: every transaction of the leader first reads the lease and compares holder and term
(:meth:`Leadership.check`). ``term`` rises with each change of holder, so a station that was frozen while another
one led cannot write a row. Runs on the control thread; ``check`` on whichever thread writes.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import uuid

from sqlalchemy import Connection

from fleetui.common.domain.clock import Clock
from fleetui.common.domain.errors import StoreError
from fleetui.station.ingest.batcher import FencedError
from fleetui.store import lease
from fleetui.store.store import Store

log = logging.getLogger("fleetui.station")

LEADER = "station"  # the lease's name
_FENCE = f"SELECT holder, term, expires FROM lease WHERE name = '{LEADER}'"  # noqa: S608 - a constant


def run_name() -> str:
    """Names one run of this program: host, process, and something that no other run has."""
    return f"{_host()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def is_gone(holder: str) -> bool:
    """Whether a holder (``station@host:pid:run``) was a process on this machine that does not exist any more.

    Where in doubt, no: then its lease runs out by itself. Being wrong would be no disaster either, see the fence.
    """
    host, _, rest = holder.rpartition("@")[2].partition(":")
    pid = rest.partition(":")[0]
    if host != _host() or not pid.isdecimal() or sys.platform == "win32":
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _host() -> str:
    return socket.gethostname().replace(":", "-")[:40]


class Leadership:
    """One station's side of the lease."""

    def __init__(self, store: Store, holder: str, ttl_s: float, real: Clock) -> None:
        """``real`` is this machine's time, whatever fleet time does."""
        self._store = store
        self._holder = holder
        self._ttl_s = ttl_s
        self._real = real
        self._next = real.monotonic()
        self.term: int | None = None
        self.other = ""  # who leads instead

    @property
    def leads(self) -> bool:
        return self.term is not None

    def tick(self) -> bool:
        """Take, renew or notice the loss of the lease, when it is time. Whether this station leads."""
        now = self._real.monotonic()
        if now < self._next:
            return self.leads
        self._next = now + self._ttl_s / 3
        try:
            held = self._store.write(self._take)
        except StoreError as error:
            log.warning("the lease cannot be looked at: %s", error)
            return self.leads
        if isinstance(held, int):
            self.other = ""
            # Another term means that somebody else led in between: what was known then is out of date.
            if self.term is not None and held != self.term:
                self.term = None
                self._next = now
                return False
            self.term = held
        else:
            self.other = held
            self.term = None
        return self.leads

    def _take(self, connection: Connection) -> int | str:
        now = self._real.now()
        found = lease.take(connection, LEADER, self._holder, self._ttl_s, now)
        if found is not None:
            return found.term
        other = lease.get(connection, LEADER)
        if other is not None and is_gone(other.holder):
            # Killed, on this machine: no need to wait until its lease runs out.
            lease.release(connection, LEADER, other.holder)
            found = lease.take(connection, LEADER, self._holder, self._ttl_s, now)
            if found is not None:
                return found.term
        return other.holder if other else ""

    def check(self, connection: Connection) -> None:
        """Raise :class:`FencedError` unless this station leads, in the eyes of this transaction."""
        # In each commit of ingest, hence the plain statement: building one costs more than it takes to run.
        found = connection.exec_driver_sql(_FENCE).one_or_none()
        if found is None or found[0] != self._holder or found[1] != self.term or found[2] <= 0:
            raise FencedError(f"{found[0] if found else 'nobody'} leads")

    def lost(self) -> None:
        """The store said so while something was written."""
        self.term = None
        self._next = self._real.monotonic() + self._ttl_s / 3

    def release(self) -> None:
        """Let another take over at once."""
        if self.term is None:
            return
        self.term = None
        try:
            self._store.write(lambda connection: lease.release(connection, LEADER, self._holder))
        except StoreError as error:
            log.warning("the lease could not be released, it runs out by itself: %s", error)
