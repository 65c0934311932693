"""How fast the store is: ingest, change feed, series, roll-ups, backup; SQLite and PostgreSQL side by side.

    python -m tests.bench.bench_store [--quick] [--json]

CPU is this process's own (``process_time``): on PostgreSQL the server works in another. Nothing here writes
anywhere but into a temporary folder. Exit status: 0 every bar holds, 1 some fall short, 2 it could not run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
import sqlalchemy

from fleetui.common.domain.clock import SystemClock
from fleetui.store import backup, devices, feed, ingest, rollup, series
from fleetui.store.records import METRICS, Batch, DeviceRow, EventRow, FleetSample, Sample, WindowRow
from fleetui.store.store import Store
from tests.helpers.store import MISSING, PostgresServer

T0 = 1_800_000_000.0


REPORTED: dict[str, Any] = {
    "target": "rpi4-64",
    "firmware": "2.1.0",
    "agent": "0.1.0",
    "status": "online",
    "status_since": T0,
    "first_seen": T0,
    "booted": T0,
    "boots": 3,
    "handle": "counter",
    "model": "people",
    "version": "1.2.0",
    "variant": "rpi4-64-int8",
    "digest": "ab" * 32,
    "models": (("counter", "people", "1.2.0", "active"),),
    "cores": 4,
    "memory_bytes": 4 << 30,
    "disk_bytes": 32 << 30,
    "cpu": 0.31,
    "memory": 0.5,
    "disk": 0.2,
    "temperature": 51.5,
    "clock_offset": 0.01,
    "rows_per_s": 20.0,
    "errors_per_s": 0.1,
    "latency_p50": 3.2,
    "latency_p99": 9.1,
    "health": 0.97,
}


class Figures:
    """What was measured, each beside the bar it is held to."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, value: float, unit: str, bar: str = "") -> None:
        holds = True
        if bar:
            limit = float(bar.split()[1])
            holds = value <= limit if bar.startswith("≤") else value >= limit
        self.rows.append({"name": name, "value": round(value, 3), "unit": unit, "bar": bar, "holds": holds})
        print(f"{'  ' if holds else '! '}{name:<62} {value:>12,.2f} {unit:<10} {bar}", file=sys.stderr, flush=True)


def a_row(number: int, i: int) -> DeviceRow:
    """A device as a station writes it: every column filled."""
    return DeviceRow(
        f"dev-{number:05}",
        **REPORTED,
        name=f"Device {number}",
        site=f"site-{number % 20}",
        tags={"rack": str(number % 50), "line": "a"},
        last_seen=T0 + i,
        boot=f"boot-{number}",
        last_seq=i,
        rows=i * 100,
        errors=i,
    )


def batches(count: int, size: int, fleet: int) -> Iterator[Batch]:
    """What a station writes: of ``size`` messages nine in ten are beats, one in ten a window, a few events."""
    histogram = (0, 0, 0, 1, 7, 31, 88, 120, 64, 22, 9, 4, 1) * 4
    for k in range(count):
        batch = Batch()
        for j in range(size):
            n = (k * size + j) % fleet
            i = (k * size + j) // fleet
            row = a_row(n, i)
            batch.devices[row.device] = row
            at = T0 + i * 10 + n / fleet
            if j % 10:
                batch.samples.append(Sample(row.device, at, (0.31, 0.5, 0.2, 51.5, 0.01, 20.0, 0.1, 3.2, 9.1)))
            else:
                batch.windows.append(
                    WindowRow(
                        row.device, "counter", "rpi4-64-int8", "ba5e" * 16, "1.2.0", at, 300.0, 6000, 3,
                        histogram, (10, 20, 30), b"\x01" * 600, boot=row.boot, report_seq=i, received=at,
                    )
                )  # fmt: skip
            if j % 50 == 0:
                batch.events.append(
                    EventRow(at, "state", 1, "online", device=row.device, boot=row.boot, report_seq=k * size + j)
                )
        batch.fleet.append(FleetSample(T0 + k * size / fleet * 10, (float(fleet),) * 9))
        batch.counters.update(received=size, decoded=size)
        yield batch


def ms(work: Callable[[], object], rounds: int) -> list[float]:
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        found.append((time.perf_counter() - begun) * 1000)
    return found


def measure(kind: str, url: str, folder: Path, figures: Figures, *, quick: bool) -> None:
    fleet = 10_000
    begun = time.perf_counter()
    store = Store.open(url, clock=SystemClock())
    figures.add(f"{kind}: make a store", (time.perf_counter() - begun) * 1000, "ms")
    with store:
        for batch in batches(1, fleet, fleet):  # every device is there before anything is measured
            store.write(lambda c, batch=batch: ingest.write(c, batch))
        _ingest(kind, store, figures, fleet, quick=quick)
        _import(kind, store, figures, quick=quick)
        _feed(kind, store, figures, fleet, quick=quick)
        _series(kind, store, figures, quick=quick)
        begun = time.perf_counter()
        info = backup.backup(store, folder / f"{kind}.bak")
        spent = time.perf_counter() - begun
        figures.add(f"{kind}: backup, rows", info.rows / spent / 1000, "k rows/s")
        begun = time.perf_counter()
        backup.restore(folder / f"{kind}.bak", f"sqlite:///{folder / f'from-{kind}.db'}", clock=SystemClock())
        figures.add(f"{kind}: restore into SQLite", info.rows / (time.perf_counter() - begun) / 1000, "k rows/s")
    begun = time.perf_counter()
    Store.open(url, clock=SystemClock()).close()
    figures.add(f"{kind}: open and close a store in use", (time.perf_counter() - begun) * 1000, "ms")


def _ingest(kind: str, store: Store, figures: Figures, fleet: int, *, quick: bool) -> None:
    size, count = 200, 30 if quick else 150
    ready = list(batches(count, size, fleet))
    walls = []
    cpu = time.process_time()
    for batch in ready:
        begun = time.perf_counter()
        store.write(lambda c, batch=batch: ingest.write(c, batch))
        walls.append((time.perf_counter() - begun) * 1000)
    cpu = time.process_time() - cpu
    messages = size * count
    figures.add(f"{kind}: ingest, CPU a message (batches of 200)", cpu / messages * 1e6, "µs", "≤ 100")
    rows = sum(len(batch) for batch in ready)
    figures.add(f"{kind}: ingest, rows a second", rows / sum(walls) * 1000, "rows/s", "≥ 5000")
    figures.add(f"{kind}: ingest, one batch of 200, median", median(walls), "ms")
    figures.add(f"{kind}: ingest, one batch of 200, longest", max(walls), "ms")


def _import(kind: str, store: Store, figures: Figures, *, quick: bool) -> None:
    """A day of history of 200 devices in batches of 20,000: what the demo begins with."""
    fleet, step = 200, 60
    points = [
        Sample(f"old-{n:03}", T0 - 86_400 + at, (0.31, 0.5, 0.2, 51.5, 0.01, 20.0, 0.1, 3.2, 9.1))
        for at in range(0, 21_600 if quick else 86_400, step)
        for n in range(fleet)
    ]
    begun = time.perf_counter()
    _put(store, points)
    spent = time.perf_counter() - begun
    figures.add(f"{kind}: import of history, samples a second", len(points) / spent, "samples/s")


def _feed(kind: str, store: Store, figures: Figures, fleet: int, *, quick: bool) -> None:
    def all_devices() -> None:
        with store.read() as connection:
            assert len(devices.all(connection)) >= fleet

    figures.add(f"{kind}: read all of {fleet:,} devices", min(ms(all_devices, 3)), "ms")
    with store.read() as connection:
        since = feed.head(connection)
    rows = {row.device: row for row in (a_row(n * 10, 999) for n in range(1000))}
    store.write(lambda c: ingest.write(c, Batch(devices=rows)))

    def changes() -> None:
        with store.read() as connection:
            assert len(feed.read(connection, since).devices) == 1000

    def nothing() -> None:
        with store.read() as connection:
            assert not feed.read(connection, feed.head(connection)).devices

    rounds = 10 if quick else 40
    figures.add(f"{kind}: feed, 1,000 changes of {fleet:,} devices", median(ms(changes, rounds)), "ms", "≤ 50")
    figures.add(f"{kind}: feed, nothing new", median(ms(nothing, rounds * 5)), "ms", "≤ 5")


def _series(kind: str, store: Store, figures: Figures, *, quick: bool) -> None:
    begun, span = T0 + 100_000, 6 * 3600
    values = (0.31,) * len(METRICS)
    _put(store, [Sample(f"dev-{n:05}", begun + at, values) for at in range(0, span, 10) for n in range(50)])

    def read(end: float, most: int) -> Callable[[], None]:
        def work() -> None:
            with store.read() as connection:
                assert len(series.read(connection, "dev-00007", "cpu", begun, end, max_points=most).at) > 100

        return work

    rounds = 10 if quick else 40
    figures.add(f"{kind}: series, 1 h of raw samples", median(ms(read(begun + 3600, 2000), rounds)), "ms", "≤ 50")
    with store.read() as connection:
        stored = connection.exec_driver_sql("SELECT count(*) FROM sample").scalar_one()
    cpu, wall = time.process_time(), time.perf_counter()
    while rollup.run(store, begun + span + 60).more:
        pass
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    figures.add(f"{kind}: roll-ups, time a sample ({stored:,} samples)", wall / stored * 1e6, "µs", "≤ 50")
    figures.add(f"{kind}: roll-ups, CPU of this process a sample", cpu / stored * 1e6, "µs")
    figures.add(f"{kind}: series, 6 h by the minute", median(ms(read(begun + span, 400), rounds)), "ms", "≤ 50")
    # What a station does every minute for 10,000 devices that beat every 10 s.
    at = T0 + 200_000
    _put(store, [Sample(f"dev-{n:05}", at + s, values) for s in range(0, 60, 10) for n in range(10_000)])
    wall = time.perf_counter()
    report = rollup.run(store, at + 66, most=200)
    wall = time.perf_counter() - wall
    assert report.minutes >= 10_000
    figures.add(f"{kind}: roll-up of one minute of 10,000 devices", wall * 1000, "ms", "≤ 5000")


def _put(store: Store, samples: list[Sample]) -> None:
    for i in range(0, len(samples), 20_000):
        part = samples[i : i + 20_000]
        store.write(lambda c, part=part: ingest.write(c, Batch(samples=part)))


@contextmanager
def places(folder: Path) -> Iterator[dict[str, str]]:
    found = {"sqlite": f"sqlite:///{folder / 'bench.db'}"}
    try:
        server = PostgresServer(flush=True)
    except FileNotFoundError:
        print(f"Without PostgreSQL: {MISSING}.", file=sys.stderr)
        yield found
        return
    try:
        yield found | {"postgresql": server.create()}
    finally:
        server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description="Benchmark of the store.")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = Figures()
    folder = Path(tempfile.mkdtemp(prefix="fleetui-bench-"))
    try:
        with places(folder) as urls:
            for kind, url in urls.items():
                measure(kind, url, folder, figures, quick=args.quick)
    except OSError as error:
        print(f"The benchmark could not run: {error}.", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    versions = {
        "python": sys.version.split()[0],
        "sqlite": sqlite3.sqlite_version,
        "sqlalchemy": sqlalchemy.__version__,
        "psycopg": psycopg.__version__,
    }
    if args.json:
        print(json.dumps({"bench": "store", "versions": versions, "figures": figures.rows}))
    return 0 if all(row["holds"] for row in figures.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
