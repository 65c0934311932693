"""What ``fleet-sim`` was asked for: plain values, so that a parent of workers needs neither numpy nor a fleet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fleetui.common.domain.clock import Clock, ScaledClock, SystemClock, clock_from_spec


@dataclass(frozen=True, slots=True)
class RunConfig:
    devices: int
    broker: str
    scenario: str = "calm"
    seed: int = 1
    fleet: str = "main"
    secret: Path | None = None
    certificates: Path | None = None
    clock: str | None = None  # shared with others
    rate: float = 1.0
    beat_s: float = 30.0
    window_s: float = 300.0
    part: int = 0  # this process simulates every parts-th device, beginning with this one
    parts: int = 1
    quiet: bool = False
    control: bool = False

    def make_clock(self) -> Clock:
        if self.clock is not None:
            return clock_from_spec(self.clock)
        return SystemClock() if self.rate == 1.0 else ScaledClock.starting_now(self.rate)
