"""Latency histograms: fixed logarithmic bins, so that merging is adding, exactly, in any order.

Bin 0 holds everything below 1 µs, then ten bins per decade up to 100 s, and one for what is slower. The bins
never change; they are part of the wire format.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

PER_DECADE = 10
DECADES = 8  # 1 µs .. 100 s
BINS = PER_DECADE * DECADES + 2
MOST = 1 << 61
EDGES_S: npt.NDArray[np.float64] = np.power(10.0, np.arange(PER_DECADE * DECADES + 1) / PER_DECADE - 6.0)


def count(seconds: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The histogram of durations in seconds."""
    bins = np.searchsorted(EDGES_S, np.asarray(seconds, dtype=np.float64), side="right")
    return np.bincount(bins.ravel(), minlength=BINS).astype(np.int64)


def trim(counts: Sequence[int] | npt.NDArray[np.int64]) -> list[int]:
    """Without the zeros at the end: how it travels."""
    values = np.asarray(counts, dtype=np.int64)
    last = np.flatnonzero(values)
    return values[: last[-1] + 1].tolist() if last.size else []


def expand(counts: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """All bins again. What is longer than the format is added to the last bin."""
    full = np.zeros(BINS, dtype=np.int64)
    values = np.asarray(counts, dtype=np.int64)
    full[: min(len(values), BINS)] = values[:BINS]
    if len(values) > BINS:
        full[-1] += values[BINS:].sum()
    return full


def merge(*histograms: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """One histogram of all that were counted in any of them; exact, whatever the order and grouping.

    A bin stops at ``MOST``: counts that only a liar sends must not turn negative.
    """
    total = np.zeros(BINS, dtype=np.int64)
    for counts in histograms:
        total = np.minimum(total + np.minimum(expand(counts), MOST), MOST)
    return total


def quantile_ms(counts: Sequence[int] | npt.NDArray[np.int64], q: float) -> float:
    """The q-quantile in milliseconds, interpolated inside its bin on the logarithmic scale; NaN when empty.

    Off by no more than the width of a bin: a factor of 10^(1/10), between 1 µs and 100 s.
    """
    values = expand(counts).astype(np.float64)
    total = values.sum()
    if total <= 0:
        return float("nan")
    cumulative = np.cumsum(values)
    # Never an empty bin: with q = 0, or when rounding puts q * total past the last count.
    filled = np.flatnonzero(values)
    i = int(np.clip(np.searchsorted(cumulative, q * total, side="left"), filled[0], filled[-1]))
    low = EDGES_S[i - 1] if i >= 1 else EDGES_S[0] / 10
    high = EDGES_S[i] if i < len(EDGES_S) else EDGES_S[-1] * 10
    before = cumulative[i - 1] if i else 0.0
    share = (q * total - before) / values[i]
    return float(1000.0 * low * (high / low) ** min(max(share, 0.0), 1.0))
