"""How a device is, from its own vital figures: a score between 0 and 1, never without its reasons.

Each rule is a line of data: a figure, where it begins to be bad, where it is as bad as it gets, how much of the
score it takes then, and the words for it. In between, the penalty grows linearly. The score is 1 minus the
penalties. It says nothing of what the models answer: that is the business of drift detection.

Pure; runs on whichever thread owns the device's books.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fleetui.store.records import NAN, DeviceRow


@dataclass(frozen=True, slots=True)
class Rule:
    """One way of not being well."""

    figure: Callable[[DeviceRow], float]
    begins: float
    worst: float
    penalty: float
    words: Callable[[float], str]

    def judge(self, row: DeviceRow) -> tuple[float, str] | None:
        """Penalty and words, or None where all is well or nothing is known."""
        value = self.figure(row)
        if not value > self.begins:  # NaN too
            return None
        share = 1.0 if value >= self.worst else (value - self.begins) / (self.worst - self.begins)
        return self.penalty * max(share, 0.1), self.words(value)


def _error_share(row: DeviceRow) -> float:
    """Of late, where rates are known; a device that answers nothing has no error share."""
    good, bad = row.rows_per_s, row.errors_per_s
    if math.isnan(good) or math.isnan(bad) or good + bad <= 0:
        return NAN
    return bad / (good + bad)


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if value >= 0.1 else f"{100 * value:.1f} %"


RULES: tuple[Rule, ...] = (
    Rule(_error_share, 0.005, 0.10, 0.6, lambda v: f"{_percent(v)} of inferences fail"),
    Rule(lambda r: r.disk, 0.90, 0.99, 0.4, lambda v: f"disk {_percent(v)} full"),
    Rule(lambda r: r.memory, 0.90, 0.99, 0.4, lambda v: f"memory {_percent(v)} used"),
    Rule(lambda r: r.temperature, 75.0, 95.0, 0.4, lambda v: f"{v:.0f} °C"),
    Rule(lambda r: r.cpu, 0.95, 1.0, 0.2, lambda v: f"processor {_percent(v)} busy"),
    Rule(lambda r: abs(r.clock_offset), 30.0, 600.0, 0.2, lambda v: f"clock {v:.0f} s off"),
    Rule(lambda r: float(r.queued), 500.0, 5000.0, 0.2, lambda v: f"{v:.0f} reports wait on the device"),
)


def judge(row: DeviceRow, rules: tuple[Rule, ...] = RULES) -> tuple[float, tuple[str, ...]]:
    """Score and reasons, the worst first. NaN where no vital figure is known."""
    found: list[tuple[float, str]] = []
    for rule in rules:
        bad = rule.judge(row)
        if bad is not None:
            found.append(bad)
    if not found:
        unknown = math.isnan(row.cpu) and math.isnan(row.memory) and math.isnan(row.disk)
        return (NAN if unknown and math.isnan(row.temperature) else 1.0), ()
    found.sort(key=lambda f: -f[0])
    return max(0.0, 1.0 - sum(f[0] for f in found)), tuple(f[1] for f in found)
