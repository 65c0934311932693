"""Presence: silence, wills and the way back; without flapping, whoever asks how often."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.domain.errors import ConfigError
from fleetui.common.domain.presence import FOREVER, PresenceRule, Sign, Watch
from fleetui.common.domain.states import Presence
from tests.helpers.domain import examples

T0 = 1_800_000_000.0
RULE = PresenceRule(interval_s=10.0)


def after(*story: tuple[float, Sign | None], rule: PresenceRule = RULE, start: Watch | None = None) -> Watch:
    """What is known after each sign at its second; None only looks."""
    watch = start or Watch()
    for at, sign in story:
        now = T0 + at
        watch = rule.passed(watch, now) if sign is None else rule.heard(watch, sign, now)
    return watch


H, B, W, G = Sign.HEARD, Sign.BIRTH, Sign.WILL, Sign.GOODBYE


@pytest.mark.parametrize(
    ("story", "status", "since"),
    [
        ([], Presence.UNKNOWN, None),
        ([(1e9, None)], Presence.UNKNOWN, None),
        ([(0, H)], Presence.ONLINE, 0),
        ([(0, B)], Presence.ONLINE, 0),
        ([(0, H), (24.9, None)], Presence.ONLINE, 0),
        ([(0, H), (25, None)], Presence.LATE, 25),
        ([(0, H), (49.9, None)], Presence.LATE, 25),
        ([(0, H), (50, None)], Presence.OFFLINE, 50),
        ([(0, H), (1e6, None)], Presence.OFFLINE, 50),
        # one message does not bring it back, two in good time do
        ([(0, H), (30, H)], Presence.LATE, 25),
        ([(0, H), (30, H), (40, H)], Presence.ONLINE, 40),
        ([(0, H), (100, H)], Presence.OFFLINE, 50),
        ([(0, H), (100, H), (110, H)], Presence.ONLINE, 110),
        ([(0, H), (100, H), (116, H)], Presence.OFFLINE, 50),
        ([(0, H), (100, H), (116, H), (126, H)], Presence.ONLINE, 126),
        # two at the same moment are one
        ([(0, H), (100, H), (100.1, H), (100.2, H)], Presence.OFFLINE, 50),
        ([(0, H), (100, H), (100.1, H), (105, H)], Presence.ONLINE, 105),
        # a birth does at once
        ([(0, H), (100, B)], Presence.ONLINE, 100),
        # will: a grace, then offline; heard within it, nothing
        ([(0, H), (5, W), (14.9, None)], Presence.ONLINE, 0),
        ([(0, H), (5, W), (15, None)], Presence.OFFLINE, 15),
        ([(0, H), (5, W), (9, W), (15, None)], Presence.OFFLINE, 15),
        ([(0, H), (5, W), (9, H), (15, None)], Presence.ONLINE, 0),
        ([(0, H), (5, W), (9, B), (15, None)], Presence.ONLINE, 0),
        ([(0, H), (5, W), (15, H)], Presence.OFFLINE, 15),
        ([(0, H), (5, W), (15, H), (25, H)], Presence.ONLINE, 25),
        ([(0, H), (24, W), (26, None)], Presence.LATE, 25),
        ([(0, H), (24, W), (34, None)], Presence.OFFLINE, 34),
        ([(0, W), (10, None)], Presence.OFFLINE, 10),
        # goodbye: at once
        ([(0, H), (5, G)], Presence.OFFLINE, 5),
        ([(0, H), (5, G), (6, H), (7, H)], Presence.OFFLINE, 5),
        ([(0, H), (5, G), (6, B)], Presence.ONLINE, 6),
        ([(0, H), (5, W), (6, G), (7, B), (20, None)], Presence.ONLINE, 7),
    ],
)
def test_story(story: list[tuple[float, Sign | None]], status: Presence, since: float | None) -> None:
    watch = after(*story)
    assert watch.status is status
    assert watch.since == (0 if since is None else T0 + since)


def test_a_broker_that_was_down_makes_no_device_offline() -> None:
    watch = after((0, H))
    assert RULE.passed(watch, T0 + 3600, listening_since=T0 + 3590).status is Presence.ONLINE
    assert RULE.due(watch, listening_since=T0 + 3590) == T0 + 3590 + 25
    gone = RULE.passed(watch, T0 + 3640, listening_since=T0 + 3590)
    assert gone.status is Presence.OFFLINE
    assert gone.since == T0 + 3640
    willed = after((0, H), (5, W))
    assert RULE.passed(willed, T0 + 3595, listening_since=T0 + 3590).status is Presence.ONLINE
    assert RULE.passed(willed, T0 + 3600, listening_since=T0 + 3590).status is Presence.OFFLINE


def test_a_clock_set_back_does_not_keep_a_device_online() -> None:
    watch = after((1000, H), (0, None))
    assert after((25, None), start=watch).status is Presence.LATE
    assert after((50, None), start=watch).status is Presence.OFFLINE
    willed = after((1000, H), (1000, W), (0, None))
    assert after((10, None), start=willed).status is Presence.OFFLINE


def test_thresholds_that_contradict_each_other_are_refused() -> None:
    for change in (
        {"interval_s": 0.0},
        {"late_after": 5.0},
        {"late_after": 1.5},
        {"steady_within": 0.4},
        {"apart": 0.0},
        {"return_messages": 0},
        {"will_grace": 6.0},
        {"late_after": float("nan")},
    ):
        with pytest.raises(ConfigError):
            replace(RULE, **change)  # type: ignore[arg-type]


# ---------------------------------------------------------------- properties

gaps = st.floats(0, 80, allow_nan=False)
stories = st.lists(st.tuples(gaps, st.sampled_from(list(Sign))), max_size=25)


@examples(300)
@given(stories, st.lists(st.floats(0, 2000), max_size=30))
def test_it_does_not_matter_how_often_somebody_looks(story: list[tuple[float, Sign]], looks: list[float]) -> None:
    times = list(itertools.accumulate(gap for gap, _ in story))
    told: list[tuple[float, Sign | None]] = [(at, sign) for at, (_, sign) in zip(times, story, strict=True)]
    end = times[-1] if times else 0.0
    # A look at the same second as a sign comes before it: afterwards it would see the sign's own effect.
    mixed = sorted([*told, *((at, None) for at in looks if at <= end)], key=lambda s: (s[0], s[1] is not None))
    last = (end, None)
    # Stable order among signs of the same second is kept by sorted().
    assert after(*mixed, last) == after(*told, last)


@examples(300)
@given(stories, st.floats(0, 1000))
def test_due_is_exactly_when_the_next_change_comes(story: list[tuple[float, Sign]], more: float) -> None:
    times = itertools.accumulate(gap for gap, _ in story)
    watch = after(*zip(times, (sign for _, sign in story), strict=True))
    now = max(T0, watch.heard, watch.since)
    watch = RULE.passed(watch, now)
    due = RULE.due(watch)
    later = RULE.passed(watch, now + more)
    assert (later.status is not watch.status) == (now + more >= due)
    if due != FOREVER:
        assert due > now
        assert RULE.passed(watch, due).since == due
    else:
        assert watch.status in {Presence.UNKNOWN, Presence.OFFLINE}


@examples(300)
@given(stories, st.floats(0, 1e7))
def test_who_is_silent_long_enough_is_offline(story: list[tuple[float, Sign]], more: float) -> None:
    times = list(itertools.accumulate(gap for gap, _ in story))
    watch = after(*zip(times, (sign for _, sign in story), strict=True))
    # A moment over five intervals: at 1.8e9 a float counts in fractions of a microsecond.
    end = after((sum(gap for gap, _ in story) + 50.001 + more, None), start=watch)
    assert end.status is (Presence.OFFLINE if story else Presence.UNKNOWN)


@examples(300)
@given(st.floats(0.1, 200), st.integers(1, 3), st.integers(3, 40))
def test_a_steady_rhythm_of_any_speed_settles(period: float, burst: int, beats: int) -> None:
    """At most online, late, offline once each: no rhythm makes a device flap, not even beats in bursts."""
    changes, watch = 0, Watch()
    for beat in range(beats):
        for extra in range(burst):
            before = watch.status
            watch = after((beat * period + extra * 0.01, H), start=watch)
            changes += watch.status is not before
    assert changes <= 2
    expected = Presence.ONLINE if period < 25 else Presence.LATE if period < 50 else Presence.OFFLINE
    assert watch.status is expected or abs(period - 25) < 0.1 or abs(period - 50) < 0.1


@examples(200)
@given(
    st.lists(st.floats(15.1, 24.9), min_size=1, max_size=30),
    st.sampled_from([Presence.ONLINE, Presence.LATE, Presence.OFFLINE]),
)
def test_between_the_two_thresholds_everything_stays_as_it_is(pauses: list[float], status: Presence) -> None:
    watch = Watch(status, since=T0, heard=T0)
    for at in itertools.accumulate(pauses):
        watch = after((at, H), start=watch)
        assert watch.status is status


@examples(200)
@given(stories)
def test_a_healthy_device_is_online_again_within_two_beats(story: list[tuple[float, Sign]]) -> None:
    times = list(itertools.accumulate(gap for gap, _ in story))
    watch = after(*zip(times, (sign for _, sign in story), strict=True))
    end = times[-1] if times else 0.0
    watch = after((end + 10, H), (end + 20, H), (end + 30, H), start=watch)
    assert watch.status is Presence.ONLINE
