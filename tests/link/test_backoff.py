from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.link.backoff import Backoff


@given(st.floats(0.01, 10), st.floats(0.01, 1000), st.integers(0, 2**32))
def test_delays_stay_below_a_ceiling_that_doubles(shortest: float, longest: float, seed: int) -> None:
    backoff = Backoff(shortest, longest, random.Random(seed))
    top = max(shortest, longest)
    for attempt in range(60):
        ceiling = min(top, shortest * 2.0**attempt)
        assert backoff.ceiling() == ceiling
        assert 0.0 <= backoff.next() <= ceiling
    assert backoff.attempt == 60
    backoff.reset()
    assert backoff.ceiling() == min(top, shortest)


def test_a_fleet_spreads_over_the_whole_span() -> None:
    delays = []
    for seed in range(1000):
        backoff = Backoff(1.0, 60.0, random.Random(seed))
        for _ in range(5):
            backoff.next()
        delays.append(backoff.next())
    parts = [sum(lo <= d < lo + 8 for d in delays) for lo in (0, 8, 16, 24)]
    assert all(200 < part < 300 for part in parts)


def test_a_refusal_is_always_answered_slowly() -> None:
    backoff = Backoff(0.1, 60.0, random.Random(1))
    assert all(30.0 <= backoff.slow() <= 60.0 for _ in range(100))
    assert backoff.attempt == 100
