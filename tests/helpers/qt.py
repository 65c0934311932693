"""A desk without processes: a real store filled with rows, a real table, and a :class:`DeskContext` over them.

``make_fleet`` writes what a station would have written, from a seed. ``make_context`` reads it as the feed does.
"""

from __future__ import annotations

import atexit
import math
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fleetui.common.basedir import BaseDir
from fleetui.common.domain.clock import ManualClock
from fleetui.store import events, feed, ingest, status
from fleetui.store.records import (
    FLEET_METRICS,
    METRICS,
    Batch,
    Changes,
    DeviceRow,
    EventRow,
    FleetSample,
    Sample,
    StationStatus,
)
from fleetui.store.store import Store

if TYPE_CHECKING:
    from fleetui.desk.ui.context import DeskContext

SITES = ("berlin", "lyon", "porto", "turin", "krakow", "gdansk")
MODELS = (("defect-vision", "2.3.1"), ("defect-vision", "2.4.0"), ("vibration", "1.10.2"), ("vibration", "1.9.0"))
TARGETS = ("rpi4-64", "jetson-orin", "x86-64-v3")
NOW = 1_800_000_000.0


def device_row(number: int, chance: random.Random, now: float = NOW) -> DeviceRow:
    """One device as a station would know it."""
    model, version = chance.choice(MODELS)
    status_ = chance.choices(("online", "late", "offline"), (88, 7, 5))[0]
    online = status_ == "online"
    silent = {"online": chance.uniform(1, 30), "late": chance.uniform(70, 100), "offline": chance.uniform(600, 9e4)}
    failing = online and chance.random() < 0.03
    return DeviceRow(
        device=f"edge-{number:05d}",
        name=f"{chance.choice(('Line', 'Press', 'Gate', 'Oven'))} {number}",
        site=chance.choice(SITES),
        target=chance.choice(TARGETS),
        firmware=chance.choice(("5.1.0", "5.2.0", "5.10.1")),
        agent="0.1.0",
        tags={"line": str(number % 7)},
        status=status_,
        status_since=now - chance.uniform(100, 90_000),
        first_seen=now - 30 * 86400.0,
        last_seen=now - silent[status_],
        boot=f"b{number}",
        last_seq=chance.randrange(10_000),
        booted=now - chance.uniform(3600, 900_000),
        boots=chance.randrange(1, 9),
        handle="camera",
        model=model,
        version=version,
        variant="x86-64-v3/fp32",
        cores=4,
        memory_bytes=4 << 30,
        disk_bytes=32 << 30,
        cpu=chance.uniform(0.1, 0.8),
        memory=chance.uniform(0.2, 0.95),
        disk=chance.uniform(0.2, 0.85),
        temperature=chance.gauss(58, 9),
        clock_offset=chance.gauss(0, 0.2),
        rows=chance.randrange(1_000_000),
        errors=chance.randrange(100) if failing else 0,
        rows_per_s=chance.uniform(5, 60) if online else 0.0,
        errors_per_s=0.4 if failing else 0.0,
        latency_p50=chance.uniform(3, 12),
        latency_p99=chance.uniform(14, 60),
        health=0.6 if failing else 0.98,
        last_error="input tensor has shape [1, 3, 224, 224]" if failing else "",
        lost=chance.choice((0, 0, 0, 0, 2)),
    )


def make_fleet(
    store: Store, count: int, *, seed: int = 1, now: float = NOW, history_s: float = 7 * 86400.0
) -> None:
    """Devices, a fleet history, events and a station's word, all in the store."""
    chance = random.Random(seed)
    batch = Batch(devices={row.device: row for row in (device_row(n, chance, now) for n in range(count))})
    online = sum(row.status == "online" for row in batch.devices.values())
    late = sum(row.status == "late" for row in batch.devices.values())
    steps = np.concatenate([np.arange(now - history_s, now - 3600, 600), np.arange(now - 3600, now, 10)])
    for at in steps.tolist():
        day = math.sin(2 * math.pi * at / 86400)
        away = max(0, round(chance.gauss(count * 0.03, count * 0.01)))
        slow = max(0, round(late + chance.gauss(0, count * 0.01)))
        values = {
            "online": float(count - away - slow), "late": float(slow), "offline": float(away),
            "messages_per_s": online * 0.2 + chance.gauss(0, 1), "rejected_per_s": 0.0,
            "rows_per_s": online * (26 + 9 * day) + chance.gauss(0, online * 0.6),
            "errors_per_s": max(0.0, chance.gauss(0.8, 0.5)),
            "latency_p50": 7.5 + day + chance.gauss(0, 0.2), "latency_p99": 38 + 6 * day + chance.gauss(0, 1.5),
        }  # fmt: skip
        batch.fleet.append(FleetSample(at, tuple(values[name] for name in FLEET_METRICS)))
    for row in list(batch.devices.values())[:3]:
        for at in np.arange(now - 3600, now, 30).tolist():
            values = {"cpu": 0.4, "memory": 0.5, "disk": 0.4, "temperature": 55.0, "rows_per_s": 20.0}
            batch.samples.append(Sample(row.device, at, tuple(values.get(m, math.nan) for m in METRICS)))
    names = list(batch.devices)
    kinds = (
        ("overheating", 2, "The processor is at 84 °C"), ("inference_failed", 3, "Input has the wrong shape"),
        ("offline", 2, "Silent for ten minutes"), ("online", 1, "Heard of again"),
        ("model_changed", 1, "defect-vision 2.3.1 → 2.4.0"),
    )  # fmt: skip
    for n in range(min(40, count)):
        kind, level, text = chance.choice(kinds)
        batch.events.append(
            EventRow(now - n * 173.0 - 4, kind, level, text, chance.choice(names), boot="b", report_seq=n)
        )
    store.write(lambda c: ingest.write(c, batch))
    store.write(lambda c: events.add(c, EventRow(now - 7200, "station_started", 1, "The station started",
                                                 source="station")))  # fmt: skip
    store.write(lambda c: status.write(c, station_status(now)))


def station_status(now: float = NOW, **counters: float) -> StationStatus:
    counted = {
        "received": 1_284_031.0, "decoded": 1_284_019.0, "rejected": 12.0, "duplicates": 3.0, "lost": 4.0,
        "dropped": 0.0, "stored": 1_284_016.0, "received_per_s": 41.2, **counters,
    }  # fmt: skip
    return StationStatus("station-1", now, True, "online", "", "127.0.0.1:18830", counted, "0.1.0", 4242)


def read_all(store: Store) -> Changes:
    """What the feed would deliver at the start, in one piece."""
    with store.read() as connection:
        return feed.read(connection, 0, limit=100_000)


@cache
def _filled(devices: int, seed: int, now: float) -> Path:
    """A store's file with such a fleet, made once in a session and copied for each test."""
    folder = Path(tempfile.mkdtemp(prefix="fleetui-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / "fleetui.db"
    with Store.open(f"sqlite:///{file}", clock=ManualClock(now)) as store:
        if devices:
            make_fleet(store, devices, seed=seed, now=now)
    return file


@contextmanager
def desk_context(
    folder: Path, qapp: object, *, devices: int = 60, seed: int = 1, theme: str = "light", now: float = NOW
) -> Iterator[DeskContext]:
    """A context over a store in ``folder`` with that many devices; closes everything afterwards."""
    from fleetui.desk.app.columns import DeviceTable
    from fleetui.desk.app.commands import CommandRegistry
    from fleetui.desk.app.notices import NoticeCentre
    from fleetui.desk.app.operations import Operations
    from fleetui.desk.app.settings import Settings
    from fleetui.desk.app.wishes import WishDesk
    from fleetui.desk.ui.bridge import Bridge
    from fleetui.desk.ui.context import DeskContext
    from fleetui.desk.ui.theme import Theme

    clock = ManualClock(now)
    shutil.copyfile(_filled(devices, seed, now), folder / "fleetui.db")
    store = Store.open(f"sqlite:///{folder / 'fleetui.db'}", clock=clock)
    settings = Settings.load(folder / "settings.json")
    bridge = Bridge()
    failures: list[Exception] = []
    operations = Operations(bridge.post, clock, lambda _op, error: failures.append(error))
    look = Theme(qapp, theme)  # type: ignore[arg-type]
    look.reduced_motion = True
    context = DeskContext(
        settings=settings,
        commands=CommandRegistry(),
        operations=operations,
        table=DeviceTable(),
        store=store,
        clock=clock,
        notices=NoticeCentre(clock, settings),
        wishes=WishDesk(BaseDir.at(folder), store, clock, operations),
        instance=None,
        theme=look,
    )
    stop = settings.observe(lambda _key, value: look.set_mode(value), "appearance.theme")
    context.caught_up = True
    context.take(read_all(store))
    try:
        yield context
    finally:
        stop()
        operations.close()
        bridge.close()
        store.close()
    assert not failures, failures
