"""The broker as a process: data folder, lock, listeners, signals, the line to the parent.

One event loop on the main thread; a second thread reads stdin where a parent watches (``--child``).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Final

from fleetui.broker.access import Directory
from fleetui.broker.admin import Admin
from fleetui.broker.core import Core
from fleetui.broker.counters import SysTopics, snapshot
from fleetui.broker.journal import Journal
from fleetui.broker.limits import Limits
from fleetui.broker.listeners import Listener, ListenerSpec, open_all
from fleetui.broker.state import State
from fleetui.broker.wire import Reason
from fleetui.common.child import ParentWatch, say
from fleetui.common.domain.clock import Clock, SystemClock
from fleetui.common.domain.errors import OperatorError, ProcessError

log = logging.getLogger("fleetui.broker")

DESCRIPTORS: Final = 65_536
RESERVED: Final = 64  # for files, listeners and what Python opens
SWEEP_S: Final = 0.5
SWEEP_RETAINED_S: Final = 30.0
GOODBYE_S: Final = 0.5  # for clients to take our goodbye before their sockets are closed
WARN_S: Final = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a broker is started with."""

    fleet: str
    folder: Path | None  # None: nothing outlives the process
    run: Path | None = None  # where broker.json is written
    secret: bytes = b""
    stations: Sequence[str] = ("station",)
    listeners: Sequence[ListenerSpec] = (ListenerSpec("local", "local"),)
    limits: Limits = field(default_factory=Limits)
    sys_interval_s: float = 10.0
    fsync: bool = False


def raise_descriptors() -> int:
    """As many open sockets as the system lets us have; says how many."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 512
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return soft


def lock(folder: Path) -> IO[bytes]:
    """Two brokers on one folder would ruin it. The lock goes with the process, however that ends."""
    file = (folder / "lock").open("ab")
    try:
        import fcntl
    except ImportError:  # not on Windows; there the open journal is the lock
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ProcessError(
            f"Another broker works in {folder}", "Stop it, or give this one its own --base-dir"
        ) from None
    return file


class Broker:
    """A core with its listeners and timers, on the running loop."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.settings = settings
        self._clock = clock or SystemClock()
        self._lock: IO[bytes] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self.listeners: list[Listener] = []
        self.core: Core | None = None
        self.state = State(None)

    async def start(self) -> None:
        settings = self.settings
        loop = asyncio.get_running_loop()
        if settings.folder is not None:
            self._lock = lock(settings.folder)
        try:
            journal = Journal(settings.folder, fsync=settings.fsync) if settings.folder is not None else None
            self.state = state = State(journal)
            directory = Directory(settings.fleet, frozenset(settings.stations), settings.secret)
            self.core = core = Core(directory, settings.limits, self._clock, loop, state)
            self.listeners = open_all(core, list(settings.listeners))
        except BaseException:
            self.state.close()
            self._unlock()
            raise
        core.admin = Admin(core, self.reload, lambda: snapshot(core))
        topics = SysTopics(core)
        topics.publish()
        self._every(settings.sys_interval_s, topics.publish)
        self._every(SWEEP_S, core.sweep)
        self._every(SWEEP_RETAINED_S, core.sweep_retained)
        self._every(WARN_S, self._warn)
        if settings.run is not None:
            self._write_ports(settings.run)

    def _warn(self) -> None:
        for listener in self.listeners:
            listener.warn_of_expiry()

    def _every(self, seconds: float, act: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        at = len(self._timers)

        def again() -> None:
            self._timers[at] = loop.call_later(seconds, again)
            act()

        self._timers.append(loop.call_later(seconds, again))

    def ports(self) -> list[dict[str, Any]]:
        return [
            {"name": one.name, "policy": one.policy, "host": one.address[0], "port": one.address[1]}
            for one in self.listeners
        ]

    def _write_ports(self, folder: Path) -> None:
        path = folder / "broker.json"
        fresh = path.with_name(f".broker.json.{os.getpid()}")
        fresh.write_text(
            json.dumps({"pid": os.getpid(), "fleet": self.settings.fleet, "listeners": self.ports()}), "utf-8"
        )
        fresh.replace(path)

    def reload(self) -> int:
        """Certificates and revocation lists anew; a file that is bad leaves the old ones in force.

        Says how many connections ended by it.
        """
        total = 0
        for listener in self.listeners:
            try:
                ended = listener.revoke()
            except OperatorError as error:
                log.warning("Not reloaded: %s", error)
            else:
                total += ended
                if listener.spec.tls is not None:
                    log.info("Listener %s: certificates read anew, %d clients ended", listener.name, ended)
        return total

    async def stop(self) -> None:
        """Say goodbye to everybody, write what is left."""
        for timer in self._timers:
            timer.cancel()
        for listener in self.listeners:
            listener.close()
        core = self.core
        if core is not None:
            for connection in list(core.connections):
                connection.will = None  # the broker goes, not the client
                connection.cut(Reason.SHUTTING_DOWN)
            for listener in self.listeners:
                await listener.closed()
            try:
                await asyncio.wait_for(core.emptied(), GOODBYE_S)
            except TimeoutError:
                for connection in list(core.connections):
                    if connection.transport is not None:
                        connection.transport.abort()
                await core.emptied()
            core.commit()
        self.state.close()
        if self.settings.run is not None:
            (self.settings.run / "broker.json").unlink(missing_ok=True)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


async def _main(settings: Settings, *, child: bool) -> None:
    broker = Broker(settings)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    await broker.start()
    # What is here now stays: no need to walk through it at each collection. And few of our objects are cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    with contextlib.suppress(NotImplementedError):  # Windows has none of this
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(signal.SIGHUP, broker.reload)
    if child:

        def tell(act: Callable[[], None]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: we are going anyway
                loop.call_soon_threadsafe(act)

        ParentWatch(lambda: tell(stopping.set)).start()
        if broker.core is not None:
            core = broker.core
            core.on_stalled = lambda: say("state", stalled=core.stalled, reason=core.state.trouble)
        say("ready", listeners=broker.ports(), pid=os.getpid())
    for port in broker.ports():
        log.info("Listening on %s:%s (%s)", port["host"], port["port"], port["name"])
    await stopping.wait()
    await broker.stop()
    if child:
        say("stopped")


def serve(settings: Settings, *, child: bool = False) -> None:
    """Run until told to stop."""
    descriptors = raise_descriptors()
    most = descriptors - RESERVED
    if most < settings.limits.connections:
        log.info("This system allows %d open files: at most %d clients", descriptors, most)
        limits = replace(settings.limits, connections=max(most, 1))
        settings = replace(settings, limits=limits)
    asyncio.run(_main(settings, child=child))
