"""Who an agent is and how often it reports: what its core is made with. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Who the agent is and how often it reports; does not change while it runs."""

    fleet: str
    device: str
    agent: str = "0"
    target: str = ""
    site: str = ""
    firmware: str = ""
    name: str = ""
    cores: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    beat_s: float = 30.0
    beat_jitter: float = 0.1  # share of an interval by which beats wander
    window_s: float = 300.0
    # All windows end at the same moment; a fleet that reported them then would come as one. Each device waits a
    # part of this, another one each time, unless it has something else to report.
    spread_s: float = 0.0


def spread(window_s: float) -> float:
    """Over how long a fleet should spread the reports of windows of this length."""
    return min(0.1 * window_s, 30.0)
