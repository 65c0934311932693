"""A clock that can be turned to another speed while everything that holds it goes on: for the demo."""

from __future__ import annotations

from fleetui.common.domain.clock import Clock


class TurnableClock:
    """Whatever clock was put in last. ``turn`` from any thread: it is one assignment."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def turn(self, clock: Clock) -> None:
        self._clock = clock

    @property
    def rate(self) -> float:
        return self._clock.rate

    def now(self) -> float:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic()
