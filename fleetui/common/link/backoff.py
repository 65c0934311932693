"""How long to wait before the next try: exponential, with full jitter, so that a fleet does not return as one.

No timers and no threads: it only says how long. The random source is given, so a run can be repeated.
"""

from __future__ import annotations

import random


class Backoff:
    """Delays of one connection. ``attempt`` counts tries that failed since the last lasting success."""

    __slots__ = ("_longest_s", "_rng", "_shortest_s", "attempt")

    def __init__(self, shortest_s: float, longest_s: float, rng: random.Random) -> None:
        self._shortest_s = shortest_s
        self._longest_s = max(shortest_s, longest_s)
        self._rng = rng
        self.attempt = 0

    def reset(self) -> None:
        self.attempt = 0

    def ceiling(self) -> float:
        """The longest that the next delay may be."""
        return min(self._longest_s, self._shortest_s * 2.0 ** min(self.attempt, 32))

    def next(self) -> float:
        """The delay before the next try: anything between nothing and a ceiling that doubles."""
        delay = self._rng.uniform(0.0, self.ceiling())
        self.attempt += 1
        return delay

    def slow(self) -> float:
        """The delay after a refusal, which another try will hardly mend: always long."""
        self.attempt += 1
        return self._rng.uniform(0.5, 1.0) * self._longest_s
