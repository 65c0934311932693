"""What a station counts of itself, and the rates between two looks.

Every report that arrives ends in exactly one of ``stored``, ``duplicates`` or ``rejected`` (by reason), or, for
unconfirmed reports only, in ``dropped``; ``received`` is their sum but for what is still under way. Each counter is
written by one thread only (named beside it) and read by any: reading an int needs no lock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fleetui.common.sketches import latency

RATED = ("received", "stored", "rejected", "duplicates", "lost")


@dataclass(slots=True)
class Counters:
    """Since this station process started."""

    received: int = 0  # link thread: reports that arrived, of any kind
    dropped: int = 0  # link thread: unconfirmed reports there was no room for
    held: int = 0  # link thread: confirmed reports there was no room for; the broker sends them again
    decoded: int = 0  # ingest thread
    rejected: int = 0  # ingest thread: the sum of ``reasons``
    duplicates: int = 0  # ingest thread
    late: int = 0  # ingest thread: new, but after later ones
    lost: int = 0  # ingest thread: gaps in the numbering that have aged
    stored: int = 0  # ingest thread: committed
    acked: int = 0  # ingest thread: confirmed to the broker
    commits: int = 0  # ingest thread
    retries: int = 0  # ingest thread: commits that the store did not take at once
    unstorable: int = 0  # ingest thread: rows the store refused for what is in them
    reasons: Counter[str] = field(default_factory=Counter)  # ingest thread: refusals by reason

    def reject(self, reason: str) -> None:
        self.rejected += 1
        self.reasons[reason] += 1

    def snapshot(self) -> dict[str, float]:
        """Flat, as it is shown: refusals by reason are ``rejected.<reason>``."""
        flat: dict[str, float] = {
            "received": self.received,
            "decoded": self.decoded,
            "rejected": self.rejected,
            "duplicates": self.duplicates,
            "late": self.late,
            "lost": self.lost,
            "dropped": self.dropped,
            "held": self.held,
            "stored": self.stored,
            "acked": self.acked,
            "commits": self.commits,
            "retries": self.retries,
            "unstorable": self.unstorable,
        }
        # A copy in one step: the ingest thread may add a reason while this one reads.
        flat.update({f"rejected.{reason}": n for reason, n in dict(self.reasons).items()})
        return flat


class Rates:
    """Per second between two looks. Belongs to one thread."""

    def __init__(self, names: tuple[str, ...] = RATED) -> None:
        self._names = names
        self._last: dict[str, float] = {}
        self._at: float | None = None

    def since_last(self, snapshot: dict[str, float], now: float) -> dict[str, float]:
        """``<name>_per_s`` for each rated counter; zero at the first look."""
        passed = now - self._at if self._at is not None else 0.0
        rates = {
            f"{name}_per_s": max((snapshot.get(name, 0.0) - self._last.get(name, 0.0)) / passed, 0.0)
            if passed > 0
            else 0.0
            for name in self._names
        }
        self._last, self._at = dict(snapshot), now
        return rates


class Lag:
    """From receipt to commit, as a histogram that is emptied when it is read. One thread adds, one reads."""

    def __init__(self) -> None:
        self._bins: npt.NDArray[np.int64] = np.zeros(latency.BINS, dtype=np.int64)

    def add(self, seconds: list[float]) -> None:
        if seconds:
            bins = self._bins
            bins += latency.count(seconds)  # in place: drain() may have put another array in its place meanwhile

    def drain(self) -> dict[str, float]:
        """Median and 99th percentile in milliseconds, 0 where nothing was committed."""
        bins, self._bins = self._bins, np.zeros(latency.BINS, dtype=np.int64)
        if not bins.any():
            return {"lag_p50_ms": 0.0, "lag_p99_ms": 0.0}
        return {"lag_p50_ms": latency.quantile_ms(bins, 0.5), "lag_p99_ms": latency.quantile_ms(bins, 0.99)}
