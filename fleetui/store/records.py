"""What goes into the store and comes out of it: plain frozen values, no SQLAlchemy.

``seq`` is the change sequence: every row that a reader follows carries the number it was last written under,
drawn inside the writing transaction and under a lock held to its commit, so a reader that has seen ``seq`` n
has seen everything up to n.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetui.common.domain.states import Job as Job  # noqa: PLC0414 - part of a row
from fleetui.common.domain.states import WishState as WishState  # noqa: PLC0414 - part of a row

NAN = float("nan")

# The vital figures that are kept as time series per device, in this order, raw -> 1 min -> 1 h.
METRICS: tuple[str, ...] = (
    "cpu",  # share 0..1
    "memory",  # share 0..1
    "disk",  # share 0..1
    "temperature",  # °C
    "clock_offset",  # s
    "rows_per_s",
    "errors_per_s",
    "latency_p50",  # ms
    "latency_p99",  # ms
)
# The same for the fleet as a whole (entity "" in the series).
FLEET_METRICS: tuple[str, ...] = (
    "online",
    "late",
    "offline",
    "messages_per_s",
    "rejected_per_s",
    "rows_per_s",
    "errors_per_s",
    "latency_p50",
    "latency_p99",
)


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """The latest that is known of one device: one row of the desk's table."""

    device: str
    seq: int = 0
    name: str = ""
    site: str = ""
    target: str = ""
    firmware: str = ""
    agent: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    lifecycle: str = "accepted"  # domain.states.Lifecycle
    status: str = "unknown"  # domain.states.Presence
    status_since: float = 0.0
    first_seen: float = 0.0
    last_seen: float = 0.0  # station's receipt, fleet time
    boot: str = ""
    last_seq: int = -1  # highest report number of this boot
    booted: float = 0.0
    boots: int = 0
    handle: str = ""
    model: str = ""
    version: str = ""
    variant: str = ""
    digest: str = ""
    models: tuple[tuple[str, str, str, str], ...] = ()  # all: (handle, model, version, state)
    cores: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    cpu: float = NAN
    memory: float = NAN
    disk: float = NAN
    temperature: float = NAN
    clock_offset: float = NAN
    rows: int = 0
    errors: int = 0
    rows_per_s: float = NAN
    errors_per_s: float = NAN
    latency_p50: float = NAN
    latency_p99: float = NAN
    health: float = NAN  # 0..1, never shown without its reasons
    reasons: tuple[str, ...] = ()
    last_error: str = ""
    lost: int = 0  # reports that never came: gaps in the numbering
    duplicates: int = 0
    dropped: int = 0  # reports the device itself had to drop
    queued: int = 0
    rejected: int = 0  # refused by the station
    notes: str = ""  # people's own words


@dataclass(frozen=True, slots=True)
class Sample:
    """One point of every vital figure of one device (order of ``METRICS``; NaN where unknown)."""

    device: str
    at: float
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class FleetSample:
    at: float
    values: tuple[float, ...]  # order of FLEET_METRICS


@dataclass(frozen=True, slots=True)
class WindowRow:
    """One reported window; unique by (device, handle, variant, baseline, start): written again, it replaces."""

    device: str
    handle: str
    variant: str
    baseline: str
    version: str
    start: float
    length_s: float
    rows: int
    errors: int
    latency: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    counts: bytes = b""
    merged: int = 0
    boot: str = ""
    report_seq: int = 0
    received: float = 0.0


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event of a device or of the control room itself (``device`` empty); unique by (device, boot, number)."""

    at: float
    kind: str
    level: int
    text: str
    device: str = ""
    codes: tuple[str, ...] = ()
    subject: str = ""
    boot: str = ""
    report_seq: int = 0
    source: str = "device"  # device | station | broker | desk | operator
    id: int = 0
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Rejected:
    """A refused message: counted always, kept as a sample while there is room."""

    at: float
    topic: str
    reason: str
    detail: str
    device: str = ""
    size: int = 0
    payload: bytes = b""  # at most the first 512 bytes


@dataclass(slots=True)
class Batch:
    """What one commit of ingest writes: all of it or nothing."""

    devices: dict[str, DeviceRow] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    fleet: list[FleetSample] = field(default_factory=list)
    windows: list[WindowRow] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)  # name -> how much to add

    def __len__(self) -> int:
        return len(self.devices) + len(self.samples) + len(self.windows) + len(self.events) + len(self.rejected)


@dataclass(frozen=True, slots=True)
class Wish:
    """Something a person wants: signed with their own key, carried out by the station, never deleted."""

    id: str  # uuid4 hex, chosen by the asker: asking twice is asking once
    kind: str
    arguments: Mapping[str, Any]
    operator: str
    at: float
    signature: bytes
    state: WishState = WishState.ASKED
    outcome: str = ""
    taken: float = 0.0
    ended: float = 0.0
    seq: int = 0


@dataclass(frozen=True, slots=True)
class JobRow:
    """A compile or packaging job. ``progress`` is the last step's fields, ``record`` what came of it."""

    id: str  # uuid4 hex, chosen by the asker
    kind: str
    title: str
    request: Mapping[str, Any]
    operator: str
    asked: float
    state: Job = Job.STARTING
    started: float = 0.0
    ended: float = 0.0
    holder: str = ""
    held_until: float = 0.0
    attempts: int = 0
    progress: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""
    sentence: str = ""
    fix: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """Who leads. ``term`` rises with each change of leader, so a late write of the last one can be told."""

    holder: str
    term: int
    expires: float
    taken: float


@dataclass(frozen=True, slots=True)
class SavedView:
    id: str
    name: str
    page: str
    filter: str
    columns: tuple[str, ...]
    sort: str = ""
    descending: bool = False
    owner: str = ""
    shared: bool = True
    seq: int = 0


@dataclass(frozen=True, slots=True)
class StationStatus:
    """What a station says of itself, a few times a minute; the desk's status bar reads it."""

    station: str
    at: float
    leader: bool
    link: str  # LinkState
    link_reason: str
    broker: str  # host:port
    counters: Mapping[str, float]  # received decoded rejected duplicates lost dropped stored, and per second
    version: str = ""
    pid: int = 0
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Changes:
    """What is new since a reader last looked. ``seq`` is where to continue."""

    seq: int
    devices: tuple[DeviceRow, ...] = ()
    removed: tuple[str, ...] = ()  # devices that are gone
    events: tuple[EventRow, ...] = ()
    wishes: tuple[Wish, ...] = ()
    views: tuple[SavedView, ...] = ()
    views_removed: tuple[str, ...] = ()
    stations: tuple[StationStatus, ...] = ()
    jobs: tuple[JobRow, ...] = ()
    more: bool = False  # there was more than was asked for: ask again at once


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one metric, oldest first: mean, lowest and highest per bucket, and how many samples it holds."""

    at: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    count: npt.NDArray[np.int64]
    resolution_s: float  # 0 for raw
