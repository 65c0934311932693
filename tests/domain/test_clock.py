"""Clocks: fleet time apart from real time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.domain import clock as module
from fleetui.common.domain.clock import Clock, ManualClock, ScaledClock, SystemClock, clock_from_spec
from fleetui.common.domain.errors import ConfigError
from tests.helpers.domain import examples

moments = st.floats(0, 4e9)
rates = st.floats(0.01, 100_000)


class Time:
    """A stand-in for the time module."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now - 1_600_000_000.0


def test_all_clocks_are_clocks() -> None:
    for clock in (SystemClock(), ManualClock(), ScaledClock.starting_now(10)):
        assert isinstance(clock, Clock)
        first = clock.monotonic()
        assert clock.monotonic() >= first


def test_the_systems_clock_is_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time()
    monkeypatch.setattr(module, "time", time)
    clock = SystemClock()
    assert (clock.now(), clock.monotonic(), clock.rate) == (1_700_000_000.0, 100_000_000.0, 1.0)


def test_a_scaled_clock_runs_as_many_times_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time()
    monkeypatch.setattr(module, "time", time)
    clock = ScaledClock.starting_now(60)
    assert clock.now() == time.now
    time.now += 10
    assert clock.now() == 1_700_000_000.0 + 600
    assert clock.monotonic() == 100_000_010.0
    slower = clock.at_rate(0.5)
    assert slower.now() == clock.now()
    time.now += 10
    assert slower.now() == 1_700_000_000.0 + 600 + 5


@examples(200)
@given(moments, moments, rates)
def test_a_clock_travels_as_text(fleet: float, real: float, rate: float) -> None:
    clock = ScaledClock(fleet, real, rate)
    assert clock_from_spec(clock.spec) == clock


@examples(200)
@given(st.text(max_size=30))
def test_any_other_text_is_an_operators_error(text: str) -> None:
    try:
        made = clock_from_spec(text)
    except ConfigError:
        return
    assert isinstance(made, SystemClock if not text else ScaledClock)


@pytest.mark.parametrize("spec", ["1", "1@2", "a@b*c", "1@2*0", "1@2*-5", "1@2*nan", "1@2*1e9", "1@2*3*4"])
def test_senseless_clocks_are_refused(spec: str) -> None:
    with pytest.raises(ConfigError):
        clock_from_spec(spec)


def test_no_text_is_the_systems_clock() -> None:
    assert isinstance(clock_from_spec(None), SystemClock)
    assert isinstance(clock_from_spec(""), SystemClock)


@examples(100)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1e6)), max_size=20))
def test_a_manual_clock_moves_when_told_and_only_fleet_time_jumps(steps: list[tuple[bool, float]]) -> None:
    clock = ManualClock(1000.0)
    fleet, real = 1000.0, 0.0
    for jump, seconds in steps:
        if jump:
            clock.jump(-seconds)
            fleet -= seconds
        else:
            clock.advance(seconds)
            fleet, real = fleet + seconds, real + seconds
    assert math.isclose(clock.now(), fleet, abs_tol=1e-3)
    assert math.isclose(clock.monotonic(), real, abs_tol=1e-3)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)
