"""Programs that other processes run against a store, for the tests with several of them. Each prints lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fleetui.common.domain.clock import ManualClock
from fleetui.store import devices, events, ingest, lease, wishes
from fleetui.store.records import METRICS, Batch, DeviceRow, EventRow, Sample
from fleetui.store.store import Store

ROOT = Path(__file__).parents[2]


def start(url: str, program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.store.processes", url, program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def say(*words: object) -> None:
    print(*words, flush=True)


def write_batches(store: Store, name: str, count: str) -> None:
    """Batches of a device, an event and a sample each; says the number of each that is committed."""
    for i in range(int(count)):
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


def remove_and_return(store: Store, name: str, count: str) -> None:
    for i in range(int(count)):
        store.write(lambda c, i=i: ingest.write(c, Batch(devices={name: DeviceRow(name, last_seq=i)})))
        store.write(lambda c: devices.remove(c, name))
        say(i)


def take_lease(store: Store, name: str, count: str) -> None:
    """Fight for a lease in a made-up time that the tries themselves move; says each term that was won."""
    for i in range(int(count)):
        got = store.write(lambda c, i=i: lease.take(c, "lead", name, 3.0, float(i)))
        if got is not None:
            say(got.term, name)
            if i % 5 == 4:
                store.write(lambda c: lease.release(c, "lead", name))


def take_wishes(store: Store, name: str) -> None:
    """Take and finish wishes until there are none; says each."""
    while (taken := store.write(lambda c: wishes.take(c, name, 1.0))) is not None:
        identity = taken.id
        done = store.write(
            lambda c, identity=identity: wishes.finish(
                c, identity, wishes.WishState.DONE, name, now=2.0, holder=name
            )
        )
        say(identity, done)


def add_events(store: Store, name: str, count: str) -> None:
    for i in range(int(count)):
        store.write(lambda c, i=i: events.add(c, EventRow(float(i), "e", 1, f"{name} {i}")))
    say("done")


def only_open(_: Store) -> None:
    say("open")


PROGRAMS = {
    each.__name__: each
    for each in (write_batches, remove_and_return, take_lease, take_wishes, add_events, only_open)
}

if __name__ == "__main__":
    _, url, program, *arguments = sys.argv
    with Store.open(url, clock=ManualClock()) as opened:
        PROGRAMS[program](opened, *arguments)
