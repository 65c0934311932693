"""The fleet's own curves: one point every few seconds of fleet time. Pure; belongs to the ingest thread."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fleetui.common.domain.states import Presence
from fleetui.common.sketches import latency
from fleetui.station.counters import Counters
from fleetui.store.records import NAN, DeviceRow, FleetSample

MERGE_AT = 256
_ONLINE = Presence.ONLINE.value


class Sampler:
    """Points lie on whole multiples of ``every_s``, so that two stations, or a replay, draw the same curve.

    Message rates are per second of ``seconds``: fleet time in a recording, real time in a running station
    (a fleet whose time runs fast still loads this machine in real time).
    """

    def __init__(self, every_s: float) -> None:
        self._every = every_s
        self._slot = -math.inf
        self._pending: list[Sequence[int]] = []
        self._bins: npt.NDArray[np.int64] = np.zeros(latency.BINS, dtype=np.int64)
        self._last: tuple[float, int, int] | None = None  # seconds, received, rejected

    def add(self, histogram: Sequence[int]) -> None:
        """The latencies of one window."""
        if histogram:
            self._pending.append(histogram)
            if len(self._pending) >= MERGE_AT:
                self._merge()

    def _merge(self) -> None:
        self._bins = latency.merge(self._bins, *self._pending)
        self._pending.clear()

    def sample(
        self,
        now: float,
        counts: Mapping[Presence, int],
        rows: Iterable[DeviceRow],
        counters: Counters,
        seconds: float,
    ) -> FleetSample | None:
        """The point that is due at ``now``, if one is. ``rows`` is looked at only then."""
        slot = math.floor(now / self._every)
        if slot <= self._slot:
            return None
        first = self._slot == -math.inf
        self._slot = slot
        last, self._last = self._last, (seconds, counters.received, counters.rejected)
        if first or last is None:
            return None  # rates need two looks
        passed = seconds - last[0]
        self._merge()
        good = bad = 0.0
        known = False
        for row in rows:
            if row.status == _ONLINE and not math.isnan(row.rows_per_s):
                good += row.rows_per_s
                bad += row.errors_per_s
                known = True
        bins, self._bins = self._bins, np.zeros(latency.BINS, dtype=np.int64)
        return FleetSample(
            slot * self._every,
            (
                float(counts.get(Presence.ONLINE, 0)),
                float(counts.get(Presence.LATE, 0)),
                float(counts.get(Presence.OFFLINE, 0)),
                (counters.received - last[1]) / passed if passed > 0 else NAN,
                (counters.rejected - last[2]) / passed if passed > 0 else NAN,
                good if known else NAN,
                bad if known else NAN,
                latency.quantile_ms(bins, 0.5),
                latency.quantile_ms(bins, 0.99),
            ),
        )
