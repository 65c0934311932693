"""How a simulated fleet runs: intervals, limits, how finely time is cut. Plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fleet_sim.agent.queue import Limits

LIMITS = Limits(reports=200, bytes=96 * 1024, events=40, inflight=8)  # thousands share this memory


@dataclass(frozen=True, slots=True)
class Options:
    """How devices report, and how finely time is cut. Fleet seconds, but for the last two."""

    beat_s: float = 30.0
    window_s: float = 300.0
    limits: Limits = LIMITS
    session_expiry_s: int = 60
    keepalive_s: int = 60
    rows_per_real_s: float = math.inf  # more work than this is not given out, at whatever speed
    shortest_turn_s: float = 0.0  # real seconds: what is due within it is done together
    longest_turn_s: float = math.inf
    quiet: bool = False  # no lost links, no shifts, no restarts of their own
    stop_within_s: float = 5.0
