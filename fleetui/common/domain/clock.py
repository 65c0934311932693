"""The one place where time is read.

Everything else takes a :class:`Clock`. ``now()`` is *fleet time* in Unix seconds (UTC): what stands in
messages, tables and charts. ``monotonic()`` is real elapsed seconds on this machine: timeouts, backoff and
pacing of real sockets. The demo runs fleet time faster than real time; a real installation runs both alike.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fleetui.common.domain.errors import ConfigError


@runtime_checkable
class Clock(Protocol):
    """Fleet time, and real elapsed time beside it."""

    @property
    def rate(self) -> float:
        """Fleet seconds that pass in one real second."""
        ...

    def now(self) -> float:
        """Fleet time: Unix seconds, UTC."""
        ...

    def monotonic(self) -> float:
        """Real elapsed seconds from an arbitrary start; never goes back."""
        ...


class SystemClock:
    """Fleet time is this machine's time."""

    rate = 1.0

    def now(self) -> float:
        return time.time()  # noqa: TID251 - this is the one place

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class ScaledClock:
    """Fleet time that started at ``fleet`` when this machine's time was ``real``, and runs ``rate`` times as fast.

    Processes that share the three numbers share the clock, so it travels as text: ``fleet@real*rate``.
    """

    fleet: float
    real: float
    rate: float

    def __post_init__(self) -> None:
        if not 0.01 <= self.rate <= 100_000:
            raise ConfigError(f"A clock rate of {self.rate:g} makes no sense", "Choose one between 0.01 and 100000")

    def now(self) -> float:
        return self.fleet + (time.time() - self.real) * self.rate  # noqa: TID251 - this is the one place

    def monotonic(self) -> float:
        return time.monotonic()

    @property
    def spec(self) -> str:
        return f"{self.fleet!r}@{self.real!r}*{self.rate!r}"

    def at_rate(self, rate: float) -> ScaledClock:
        """The same fleet time now, at another speed from now on."""
        real = time.time()  # noqa: TID251 - this is the one place
        return ScaledClock(self.fleet + (real - self.real) * self.rate, real, rate)

    @classmethod
    def starting_now(cls, rate: float) -> ScaledClock:
        real = time.time()  # noqa: TID251 - this is the one place
        return cls(real, real, rate)


def clock_from_spec(spec: str | None) -> Clock:
    """The clock that a ``--clock`` argument names; none means this machine's own."""
    if not spec:
        return SystemClock()
    try:
        fleet, rest = spec.split("@")
        real, rate = rest.split("*")
        return ScaledClock(float(fleet), float(real), float(rate))
    except ValueError:
        raise ConfigError(f"{spec!r} is not a clock", "Write it as FLEET@REAL*RATE, three numbers") from None


class ManualClock:
    """A clock for tests and for the simulator's virtual time: it moves when told to."""

    rate = 1.0

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("time does not run backwards; use jump() for a wrong wall clock")
        with self._lock:
            self._now += seconds
            self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Set fleet time forward or back without letting real time pass: a clock error."""
        with self._lock:
            self._now += seconds
