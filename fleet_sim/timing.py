"""Fleet time of a simulation, and how fast this machine is.

:class:`FleetTime` is a clock that can be stopped. A clock that others share (``--clock``) is rejoined when play
goes on, as if the devices had slept; one's own goes on from where it stood. :class:`Pace` times real inferences.
"""

from __future__ import annotations

import numpy as np

from fleet_sim.agent.model import Model
from fleetui.common.domain.clock import Clock, ScaledClock
from fleetui.common.domain.errors import ConfigError


class FleetTime:
    """Read from one thread."""

    def __init__(self, clock: Clock, *, shared: bool = False) -> None:
        self._clock = clock
        self._shared = shared
        self._stands_at: float | None = None

    @property
    def paused(self) -> bool:
        return self._stands_at is not None

    @property
    def rate(self) -> float:
        return 0.0 if self.paused else self._clock.rate

    def now(self) -> float:
        return self._clock.now() if self._stands_at is None else self._stands_at

    @property
    def spec(self) -> str:
        """For those who want to share it; empty for this machine's own time."""
        return self._clock.spec if isinstance(self._clock, ScaledClock) else ""

    def pause(self) -> None:
        if self._stands_at is None:
            self._stands_at = self._clock.now()

    def play(self) -> None:
        stood, self._stands_at = self._stands_at, None
        if stood is None or self._shared:
            return
        now = ScaledClock.starting_now(self._clock.rate)
        self._clock = ScaledClock(stood, now.real, now.rate)

    def share(self, clock: Clock) -> None:
        """Follow another clock from now on."""
        self._clock = clock
        self._shared = True

    def run_at(self, rate: float) -> None:
        """Another speed from now on, of one's own."""
        if not 0.01 <= rate <= 100_000:
            raise ConfigError(f"A speed of {rate:g} makes no sense", "Choose one between 0.01 and 100000")
        now = ScaledClock.starting_now(rate)
        self._clock = ScaledClock(self._clock.now(), now.real, rate)
        self._shared = False


class Pace:
    """How long one row takes now, beside how long it took at the start: 1 on a machine that nobody disturbs.

    Simulated latencies are scaled by it: they answer to the load of the machine that they run on, and do not jump
    between machines or between a recorded past and the live fleet.
    """

    ROUNDS = 15

    def __init__(self, model: Model, clock: Clock) -> None:
        self._model = model
        self._clock = clock
        self._row = np.zeros((1, model.features), np.float32)
        self._measure()
        self._start = min(self._measure() for _ in range(5))
        self.value = 1.0

    def _measure(self) -> float:
        """Seconds a row, the middle of a few."""
        times = []
        for _ in range(self.ROUNDS):
            began = self._clock.monotonic()
            self._model.predict(self._row)
            times.append(self._clock.monotonic() - began)
        return sorted(times)[self.ROUNDS // 2]

    def update(self) -> float:
        found = min(max(self._measure() / max(self._start, 1e-9), 0.5), 4.0)
        self.value += 0.3 * (found - self.value)
        return self.value
