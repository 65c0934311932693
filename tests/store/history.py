"""A small fleet's history, with something in every table: for the tests that carry whole stores about."""

from __future__ import annotations

from sqlalchemy import Connection

from fleetui.store import devices, events, ingest, jobs, lease, status, views, wishes
from fleetui.store.records import (
    FLEET_METRICS,
    METRICS,
    NAN,
    Batch,
    DeviceRow,
    EventRow,
    FleetSample,
    JobRow,
    Rejected,
    Sample,
    SavedView,
    StationStatus,
    WindowRow,
    Wish,
)
from fleetui.store.store import Store

T0 = 1_800_000_000.0 - 1_800_000_000.0 % 3600


def fill(store: Store, *, devices_: int = 5, hours: int = 3) -> None:
    """All of it in one transaction: flushing each would take longer than the tests."""
    store.write(lambda connection: _fill(connection, devices_, hours))


def _fill(connection: Connection, devices_: int, hours: int) -> None:
    names = [f"dev-{i}" for i in range(devices_)]
    for hour in range(hours):
        start = T0 + hour * 3600
        batch = Batch(counters={"received": 100, "decoded": 99})
        for i, name in enumerate(names):
            batch.devices[name] = DeviceRow(name, site="ä", tags={"rack": str(i)}, cpu=NAN if i % 2 else 0.5)
            batch.samples += [
                Sample(name, start + k * 60, (i + k / 100, *[NAN] * (len(METRICS) - 1))) for k in range(60)
            ]
            batch.windows.append(
                WindowRow(name, "counter", f"v{i % 2}", "ba5e" * 16, "1.2", start, 3600, 500, i, (1, 2, 3 << 40))
            )
            batch.events.append(EventRow(T0 + hour, "boot", 1, f"{name} ☃", device=name, boot="b", report_seq=hour))
            batch.rejected.append(Rejected(T0, "t", "range", "d", name, 9, bytes(range(256))))
        batch.fleet.append(FleetSample(T0 + hour * 3600, (float(hour),) * len(FLEET_METRICS)))
        ingest.write(connection, batch)
    devices.set_name(connection, "dev-0", "Front door")
    devices.set_tags(connection, "dev-0", {"rack": "7", "mine": "yes"})
    devices.set_lifecycle(connection, "dev-1", "maintenance")
    devices.set_notes(connection, "dev-1", "ask before touching")
    devices.remove(connection, "dev-2")
    events.add(connection, EventRow(T0, "start", 2, "the station starts", source="station"))
    for i in range(3):
        wish = Wish(f"w{i}", "rename", {"device": "dev-0", "n": i}, "op", T0 + i, b"\0signature")
        wishes.ask(connection, wish)
    wishes.take(connection, "s", T0)
    jobs.ask(connection, JobRow("j", "compile", "a model", {"source": "/m.onnx"}, "op", T0))
    jobs.claim(connection, "w", 30.0, T0)
    wishes.finish(connection, "w0", wishes.WishState.DONE, "renamed", now=T0)
    view = SavedView("v1", "Berlin", "devices", "site:berlin", ("name",), "name", descending=True, owner="me")
    views.save(connection, view)
    views.save(connection, SavedView("v2", "Gone", "devices", "", ()))
    views.delete(connection, "v2")
    said = StationStatus("s", T0, leader=True, link="up", link_reason="", broker="b", counters={"received": 0.5})
    status.write(connection, said)
    lease.take(connection, "lead", "s", 15, T0)
