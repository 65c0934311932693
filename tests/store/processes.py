"""Programs that other processes run against a store, for the tests with several of them.

They are forked from one server process that has everything loaded: real processes, each with a store of its own,
that start in milliseconds. Each reports lines through a pipe.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection

import psutil

from fleetui.common.domain.clock import ManualClock
from fleetui.store import devices, events, ingest, lease, schema, wishes
from fleetui.store.records import METRICS, Batch, DeviceRow, EventRow, Sample, WishState
from fleetui.store.store import Store
from tests.helpers.guards import SESSION_PIDS

Say = Callable[..., None]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


class Started:
    """A program that runs in a process of its own."""

    def __init__(self, url: str, program: str, *arguments: object) -> None:
        self._lines, theirs = _context.Pipe(duplex=False)
        self.process = _context.Process(target=_main, args=(theirs, url, program, arguments))
        before = set(psutil.Process().children())
        self.process.start()
        # The first start also starts the server, and a tracker of multiprocessing's own; they stay for the session.
        for child in set(psutil.Process().children()) - before:
            SESSION_PIDS.add(child.pid)
        theirs.close()

    def line(self) -> str:
        """The next line; EOFError where there is none any more."""
        text: str = self._lines.recv()
        return text

    def rest(self) -> list[str]:
        """What it says until it ends, however it ends."""
        lines = []
        try:
            while True:
                lines.append(self.line())
        except (EOFError, OSError):
            return lines
        finally:
            self.process.join(60)
            self._lines.close()

    def finish(self) -> list[str]:
        """What it says until it ends well."""
        lines = self.rest()
        assert self.process.exitcode == 0, self.process.exitcode
        return lines


def _main(pipe: Connection, url: str, program: str, arguments: tuple[object, ...]) -> None:
    def say(*words: object) -> None:
        pipe.send(" ".join(map(str, words)))

    with Store.open(url, clock=ManualClock()) as opened:
        PROGRAMS[program](opened, say, *arguments)


def write_batches(store: Store, say: Say, name: str, count: int) -> None:
    """Batches of a device, an event and a sample each; says the number of each that is committed."""
    for i in range(count):
        batch = Batch(
            devices={
                name: DeviceRow(name, last_seq=i),
                f"{name}-{i % 7}": DeviceRow(f"{name}-{i % 7}", last_seq=i),
            },
            events=[EventRow(float(i), "step", 1, f"{name} {i}", device=name, boot="b", report_seq=i)],
            samples=[Sample(name, float(i), (float(i),) * len(METRICS))],
            counters={name: 1},
        )
        store.write(lambda c, batch=batch: ingest.write(c, batch))
        say(i)


def remove_and_return(store: Store, say: Say, name: str, count: int) -> None:
    for i in range(count):
        store.write(lambda c, i=i: ingest.write(c, Batch(devices={name: DeviceRow(name, last_seq=i)})))
        store.write(lambda c: devices.remove(c, name))
        say(i)


def take_lease(store: Store, say: Say, name: str, count: int) -> None:
    """Fight for a lease in a made-up time that the tries themselves move; says each term that was won."""
    for i in range(count):
        got = store.write(lambda c, i=i: lease.take(c, "lead", name, 3.0, float(i)))
        if got is not None:
            say(got.term, name)
            if i % 5 == 4:
                store.write(lambda c: lease.release(c, "lead", name))


def take_wishes(store: Store, say: Say, name: str) -> None:
    """Take and finish wishes until there are none; says each."""
    while (taken := store.write(lambda c: wishes.take(c, name, 1.0))) is not None:
        identity = taken.id
        done = store.write(
            lambda c, identity=identity: wishes.finish(c, identity, WishState.DONE, name, now=2.0, holder=name)
        )
        say(identity, done)


def add_events(store: Store, say: Say, name: str, count: int) -> None:
    for i in range(count):
        store.write(lambda c, i=i: events.add(c, EventRow(float(i), "e", 1, f"{name} {i}")))
    say("done")


def say_schema(store: Store, say: Say) -> None:
    with store.read() as connection:
        say(schema.current(connection))


PROGRAMS = {
    each.__name__: each
    for each in (write_batches, remove_and_return, take_lease, take_wishes, add_events, say_schema)
}
