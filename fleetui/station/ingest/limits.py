"""How much one device may send: a bucket that fills with time.

A device that keeps to its pace never notices; one that floods is refused (reason ``rate``, counted) before its
report is decoded, so that it costs others as little as can be. The bucket fills in real time, because what is
protected is this machine. Pure; belongs to the ingest thread.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """``per_second`` in the long run, ``burst`` at once. A device that was offline sends what waited."""

    per_second: float = 50.0
    burst: float = 2000.0


class Bucket:
    """Of one device."""

    __slots__ = ("_at", "_left")

    def __init__(self, limit: Limit, now: float) -> None:
        self._left = limit.burst
        self._at = now

    def take(self, limit: Limit, now: float) -> bool:
        left = min(self._left + (now - self._at) * limit.per_second, limit.burst)
        self._at = now
        if left < 1.0:
            self._left = left
            return False
        self._left = left - 1.0
        return True
