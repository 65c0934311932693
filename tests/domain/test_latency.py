"""Latency histograms: merging is exact in any order, quantiles are off by no more than a bin."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.sketches import latency
from tests.helpers.domain import examples

histograms = st.lists(st.integers(0, 2**53), max_size=96)
seconds = st.lists(st.floats(1e-6, 99.0), min_size=1, max_size=300)
STEP = 10 ** (1 / latency.PER_DECADE)


@examples(200)
@given(st.lists(histograms, max_size=6), st.randoms())
def test_merging_is_associative_commutative_and_exact(many: list[list[int]], random: object) -> None:
    whole = latency.merge(*many)
    shuffled = list(many)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert latency.merge(*shuffled).tolist() == whole.tolist()
    half = len(many) // 2
    parts = latency.merge(latency.merge(*many[:half]), latency.merge(*many[half:]))
    assert parts.tolist() == whole.tolist()
    assert latency.merge(whole).tolist() == whole.tolist()
    assert int(sum(int(x) for x in whole)) == sum(sum(one) for one in many)


def test_bins_beyond_the_format_count_as_the_slowest() -> None:
    assert latency.expand([1] * 96).tolist() == [1] * 81 + [15]
    assert latency.quantile_ms([0] * 95 + [1], 0.5) > 100_000
    assert latency.merge([1] * 96, [1] * 96).sum() == 192


def test_counts_that_only_a_liar_sends_do_not_turn_negative() -> None:
    whole = latency.merge(*[[2**62]] * 10, [2**63 - 1])
    assert whole.min() >= 0
    assert latency.quantile_ms(whole, 0.5) > 0


@examples(100)
@given(seconds, seconds)
def test_the_histogram_of_all_is_the_merged_one_of_the_parts(one: list[float], other: list[float]) -> None:
    merged = latency.merge(latency.count(one), latency.count(other))
    assert merged.tolist() == latency.count(one + other).tolist()
    assert merged.sum() == len(one) + len(other)


@examples(200)
@given(histograms)
def test_trimmed_is_as_good_as_whole(counts: list[int]) -> None:
    whole = latency.expand(counts)
    assert len(whole) == latency.BINS
    assert latency.expand(latency.trim(whole)).tolist() == whole.tolist()
    trimmed = latency.trim(whole)
    assert not trimmed or trimmed[-1] != 0


@examples(300)
@given(seconds, st.floats(0, 1))
def test_a_quantile_is_off_by_no_more_than_a_bin(times: list[float], q: float) -> None:
    counts = latency.count(times)
    told = latency.quantile_ms(counts, q) / 1000
    rank = max(math.ceil(q * len(times) - 1e-9), 1)
    true = sorted(times)[rank - 1]
    assert true / STEP * (1 - 1e-9) <= told <= true * STEP * (1 + 1e-9)
    assert latency.quantile_ms(latency.trim(counts), q) / 1000 == told


@examples(200)
@given(histograms, st.floats(0, 1), st.floats(0, 1))
def test_quantiles_rise_and_never_fail(counts: list[int], one: float, other: float) -> None:
    low = latency.quantile_ms(counts, min(one, other))
    high = latency.quantile_ms(counts, max(one, other))
    if sum(counts) == 0:
        assert math.isnan(low)
        assert math.isnan(high)
    else:
        assert 0 < low <= high * (1 + 1e-12)
        assert high <= 1e6 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("duration", "place"),
    [(0.0, 0), (-1.0, 0), (9.9e-7, 0), (1e-6, 1), (99.9, 80), (100.0, 81), (1e9, 81), (math.inf, 81)],
)
def test_every_duration_has_a_bin(duration: float, place: int) -> None:
    assert np.flatnonzero(latency.count([duration])).tolist() == [place]


def test_nothing_counted_is_nothing() -> None:
    assert latency.count([]).sum() == 0
    assert latency.trim([]) == []
    assert latency.trim([0, 0]) == []
    assert math.isnan(latency.quantile_ms([], 0.5))
