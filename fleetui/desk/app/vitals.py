"""What the drawer of one device reads from the store: its figures over time, and its events.

Called by operations on a worker thread; the main thread only draws what comes back. No Qt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fleetui.desk.app.lazystore import Reads
from fleetui.store import events, series
from fleetui.store.records import EventRow, Series

SPANS: Mapping[str, float] = {"1h": 3600.0, "1d": 86400.0, "1w": 7 * 86400.0}
METRICS = (
    "latency_p50",
    "latency_p99",
    "rows_per_s",
    "errors_per_s",
    "cpu",
    "memory",
    "disk",
    "temperature",
)
POINTS = 500  # of one line: about the pixels that a chart in the drawer is wide
EVENTS = 100


@dataclass(frozen=True, slots=True)
class Vitals:
    device: str
    start: float
    end: float
    series: Mapping[str, Series]

    @property
    def empty(self) -> bool:
        return not any(one.at.size for one in self.series.values())


def read(store: Reads, device: str, end: float, span_s: float) -> Vitals:
    """All figures of the last ``span_s`` seconds, from one snapshot."""
    start = end - span_s
    with store.read() as connection:
        found = {
            metric: series.read(connection, device, metric, start, end + 1.0, max_points=POINTS)
            for metric in METRICS
        }
    return Vitals(device, start, end, found)


def read_events(store: Reads, device: str) -> tuple[EventRow, ...]:
    """The newest first."""
    with store.read() as connection:
        return tuple(events.read(connection, device=device, limit=EVENTS))


def patience(span_s: float, rate: float) -> float:
    """Real seconds after which a chart of ``span_s`` fleet seconds is worth drawing again: about a pixel's time."""
    return min(60.0, max(1.5, span_s / POINTS / max(rate, 0.01)))
