"""Windows: counts over a span of time that add up.

Spans are rounded to 1/1024 s, a number that is exact in binary at any date: so joining spans, like adding
counts, gives the same window whichever way a merge is bracketed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fleet_sim.agent.events import Counts
from fleetui.common.link.messages import Running, Window
from fleetui.common.sketches import latency as bins

TICK_S = 1 / 1024
LONGEST_S = 31 * 86400.0
MAX_CLASSES = 64

Key = tuple[str, str, str, str]


def rounded(at: float) -> float:
    return math.floor(at * 1024.0 + 0.5) / 1024.0


def add_up(a: Counts, b: Counts) -> Counts:
    """The sum of two count vectors of different length."""
    if len(a) < len(b):
        a, b = b, a
    total = a.copy()
    total[: len(b)] += b
    return total


class OpenWindow:
    """What one handle has counted since ``start``."""

    __slots__ = ("errors", "handle", "latency", "outputs", "rows", "start", "variant", "version")

    def __init__(self, running: Running, start: float) -> None:
        self.handle = running.handle
        self.variant = running.variant
        self.version = running.version
        self.latency: Counts = np.zeros(bins.BINS, dtype=np.int64)
        self.outputs: Counts = np.zeros(0, dtype=np.int64)
        self.rows = 0
        self.errors = 0
        self.start = start

    def add(self, rows: int, errors: int, latency: Counts, outputs: Counts | None) -> None:
        self.rows += rows
        self.errors += errors
        self.latency += latency
        if outputs is not None and len(outputs):
            if len(outputs) == len(self.outputs):
                self.outputs += outputs
            else:
                self.outputs = add_up(self.outputs, outputs[:MAX_CLASSES])

    def close(self, device: str, end: float, at: float) -> Window:
        """The report up to ``end``, without a number yet; counting begins anew there."""
        window = Window(
            device=device,
            boot="",
            seq=0,
            at=at,
            handle=self.handle,
            variant=self.variant,
            version=self.version,
            start=self.start,
            length_s=max(end - self.start, TICK_S),
            rows=self.rows,
            errors=self.errors,
            latency=bins.trim(self.latency),
            outputs=self.outputs.tolist(),
        )
        self.latency[:] = 0
        self.outputs[:] = 0
        self.rows = self.errors = 0
        self.start = end
        return window


class OpenWindows:
    """The open windows of all handles: they begin and end together, at whole multiples of their length."""

    __slots__ = ("_device", "_length", "_open", "end")

    def __init__(self, device: str, length_s: float) -> None:
        self._device = device
        self._length = length_s
        self._open: dict[str, OpenWindow] = {}
        self.end = math.inf

    def begin(self, models: Sequence[Running], now: float) -> None:
        self._open = {running.handle: OpenWindow(running, rounded(now)) for running in models}
        self.go_on(now)

    def get(self, handle: str) -> OpenWindow | None:
        return self._open.get(handle)

    def rows(self) -> int:
        return sum(window.rows for window in self._open.values())

    def close(self, end: float, at: float) -> list[Window]:
        """The reports up to ``end``; one that began that very moment and holds nothing is left out."""
        return [
            window.close(self._device, rounded(end), at)
            for window in self._open.values()
            if end > window.start or window.rows or window.errors
        ]

    def go_on(self, now: float, *, anew: bool = False) -> None:
        """Choose the next end. After a longer sleep, or a clock that was set, what is open begins ``now``."""
        for window in self._open.values():
            if anew or now - window.start >= self._length:
                window.start = rounded(now)
        self.end = rounded((math.floor(now / self._length) + 1) * self._length)
        if self.end <= now:  # rounded away
            self.end = rounded(now + self._length)


def key(window: Window) -> Key:
    """Windows with the same key count the same thing and may be added up."""
    return window.handle, window.variant, window.version, window.baseline


def windows_in(window: Window) -> int:
    """How many windows this one stands for."""
    return window.merged or 1


def mergeable(a: Window, b: Window) -> bool:
    """A packed sketch (``counts``) is not added up here, so windows that carry one stay apart."""
    if key(a) != key(b) or a.counts or b.counts:
        return False
    return max(a.start + a.length_s, b.start + b.length_s) - min(a.start, b.start) <= LONGEST_S


def merge(a: Window, b: Window) -> Window:
    """Both windows as one, exactly: counts added, spans joined. In any order and bracketing the same."""
    start = min(a.start, b.start)
    end = max(a.start + a.length_s, b.start + b.length_s)
    return Window(
        device=a.device,
        boot="",
        seq=0,
        at=max(a.at, b.at),
        handle=a.handle,
        variant=a.variant,
        version=a.version,
        baseline=a.baseline,
        start=start,
        length_s=end - start,
        rows=a.rows + b.rows,
        errors=a.errors + b.errors,
        latency=_sum(a.latency, b.latency),
        outputs=_sum(a.outputs, b.outputs),
        merged=windows_in(a) + windows_in(b),
        cold_starts=a.cold_starts + b.cold_starts,
        throttled=a.throttled + b.throttled,
    )


def _sum(a: list[int], b: list[int]) -> list[int]:
    if len(a) < len(b):
        a, b = b, a
    return [x + y for x, y in zip(a, b, strict=False)] + a[len(b) :]
