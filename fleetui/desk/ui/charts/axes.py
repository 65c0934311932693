"""The two axes of a chart: local time below, figures with their unit at the side. Main thread only."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import pyqtgraph as pg
from PySide6.QtCore import QRectF

from fleetui.common.domain import ages
from fleetui.common.domain.ages import Unit

_STEPS = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600,
    86400, 2 * 86400, 7 * 86400, 14 * 86400, 28 * 86400, 91 * 86400, 365 * 86400,
)  # fmt: skip


def local(moment: float) -> datetime:
    """In this machine's zone, with the offset that held at that moment."""
    return datetime.fromtimestamp(moment).astimezone()


def time_ticks(start: float, end: float, room: float) -> tuple[list[float], float]:
    """Round moments of the local clock in a span, at most one per ``room`` of it, and their distance in seconds."""
    least = max(end - start, 1e-6) * room
    step = next((s for s in _STEPS if s >= least), _STEPS[-1])
    first = local(start)
    if step >= 86400:
        # Days begin at local midnight, also across a change of the clocks.
        day = first.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        days = step // 86400
        ticks = []
        while (moment := day.astimezone().timestamp()) <= end and len(ticks) < 500:
            if moment >= start:
                ticks.append(moment)
            day += timedelta(days=days)
        return ticks, float(step)
    offset = first.utcoffset() or timedelta()
    shift = offset.total_seconds()
    at = math.ceil((start + shift) / step) * step - shift
    ticks = []
    while at <= end and len(ticks) < 500:
        ticks.append(at)
        at += step
    return ticks, float(step)


def time_words(moment: float, step: float) -> str:
    """A tick's label: as much as its distance to the next needs."""
    when = local(moment)
    if step >= 86400 or (when.hour == 0 and when.minute == 0 and when.second == 0 and step >= 3600):
        return f"{when.day} {when:%b}"
    return when.strftime("%H:%M:%S" if step < 60 else "%H:%M")


class TimeAxis(pg.AxisItem):
    """Hours and days of the local clock."""

    def __init__(self) -> None:
        super().__init__(orientation="bottom")
        self.enableAutoSIPrefix(False)
        self._step = 60.0

    def tickValues(self, lowest: float, highest: float, size: float) -> list[tuple[float, list[float]]]:
        if not (math.isfinite(lowest) and math.isfinite(highest)) or highest <= lowest or size <= 0:
            return []
        ticks, self._step = time_ticks(lowest, highest, 72.0 / size)
        return [(self._step, ticks)]

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        return [time_words(value, self._step) for value in values]


class FigureAxis(pg.AxisItem):
    """Figures in the words that tables use: ``12 ms``, ``340/s``, ``80 %``."""

    def __init__(self, unit: Unit) -> None:
        super().__init__(orientation="left")
        self.enableAutoSIPrefix(False)
        self._unit = unit

    def tickValues(self, lowest: float, highest: float, size: float) -> list[tuple[float, list[float]]]:
        span = highest - lowest
        if not math.isfinite(span) or span <= 0 or size <= 0:
            return []
        step = _nice(span / max(1.0, min(5.0, size / 26.0)))
        if self._unit is Unit.NONE:
            step = max(step, 1.0)
        first = math.ceil(lowest / step - 1e-9) * step
        count = math.floor((highest - first) / step + 1e-9) + 1
        return [(step, [first + i * step for i in range(max(0, min(count, 50)))])]

    def boundingRect(self) -> QRectF:
        # With a grid, pyqtgraph leaves out labels that reach beyond the plot: those of nought and of the top.
        return super().boundingRect().adjusted(0, -10, 0, 10)

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        return [ages.show(0.0 if abs(value) < spacing * 1e-6 else value, self._unit) for value in values]


def _nice(least: float) -> float:
    """1, 2 or 5 times a power of ten, at least so much."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)
