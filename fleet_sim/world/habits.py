"""What happens to devices without any fault: connections are lost and found, shifts begin and end, devices restart.

Columns are over the devices that were asked for (``members``), not over the population. Time is told; the random
source is given, so a run in virtual time repeats.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fleet_sim.world.population import Population
from fleet_sim.world.signals import DAY_S, Signals

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
HOUR_S = 3600.0


class Habits:
    """``link`` and ``powered`` say how things stand; :meth:`advance` lets time pass."""

    def __init__(
        self, signals: Signals, members: I64, now: float, rng: np.random.Generator, *, quiet: bool = False
    ) -> None:
        """``quiet``: nothing of the kind happens, for benchmarks and for tests of something else."""
        self._population: Population = signals.population
        self._signals = signals
        self._members = members
        self._rng = rng
        self._quiet = quiet
        p, n = self._population, len(members)
        self.link = np.ones(n, np.bool_)
        self.powered = np.ones(n, np.bool_)
        self._drop_at = now + rng.exponential(1.0, n) * p.drop_every_s[members]
        self._restart_at = now + rng.exponential(1.0, n) * p.uptime_days[members] * DAY_S
        self._power_at = np.full(n, np.inf)
        self._on_shift = np.flatnonzero(~np.isnan(p.starts[members]))
        if quiet:
            self._drop_at[:] = np.inf
            self._restart_at[:] = np.inf
            self._on_shift = self._on_shift[:0]
        self._plan_shifts(self._on_shift, now)

    @property
    def next_at(self) -> float:
        if self._quiet:
            return np.inf
        return float(min(self._drop_at.min(), self._restart_at.min(), self._power_at.min()))

    def advance(self, now: float) -> I64:
        """Bring ``link`` and ``powered`` up to ``now``. Returns the positions of devices that restart."""
        if now < self.next_at:
            return np.zeros(0, np.int64)
        rng, p = self._rng, self._population
        turned = np.flatnonzero(self._drop_at <= now)
        if len(turned):
            self.link[turned] = ~self.link[turned]
            back = self.link[turned]
            members = self._members[turned]
            mean = np.where(back, p.drop_every_s[members], p.drop_for_s[members])
            self._drop_at[turned] = now + rng.exponential(1.0, len(turned)) * mean
        restarts = np.flatnonzero(self._restart_at <= now)
        if len(restarts):
            mean = p.uptime_days[self._members[restarts]] * DAY_S
            self._restart_at[restarts] = now + rng.exponential(1.0, len(restarts)) * mean
        self._plan_shifts(np.flatnonzero(self._power_at <= now), now)
        return restarts[self.powered[restarts]]

    def _plan_shifts(self, positions: I64, now: float) -> None:
        if not len(positions):
            return
        members = self._members[positions]
        hour = self._signals.local_hour(now, members)
        since = (hour - self._population.starts[members]) % 24.0
        runs = self._population.runs_h[members]
        self.powered[positions] = since < runs
        self._power_at[positions] = now + 1.0 + HOUR_S * np.where(since < runs, runs - since, 24.0 - since)
