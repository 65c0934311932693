"""Figures for people, and back."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.domain import ages
from fleetui.common.domain.ages import Unit
from tests.helpers.domain import examples

figures = st.one_of(st.floats(-9e14, 9e14), st.floats(-1, 1), st.integers(-(10**12), 10**12).map(float))
units = st.sampled_from(list(Unit))


@examples(500)
@given(figures, units)
def test_what_is_written_is_read_back(value: float, unit: Unit) -> None:
    text = ages.write(value, unit)
    assert not re.search(r"\s", text)
    if unit is Unit.SECONDS:
        # Twenty decimals: a length of time in attoseconds is nought.
        assert ages.parse(text, unit) == pytest.approx(value, rel=1e-12, abs=1e-19)
    else:
        assert ages.parse(text, unit) == pytest.approx(value, rel=1e-15)


@examples(300)
@given(st.text(max_size=12), units)
def test_any_text_is_a_finite_number_or_refused_with_a_reason(text: str, unit: Unit) -> None:
    try:
        value = ages.parse(text, unit)
    except ValueError as error:
        reason = str(error)
    else:
        assert math.isfinite(value)
        return
    assert reason


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("80%", Unit.SHARE, 0.8),
        ("80", Unit.SHARE, 0.8),
        ("0.5 %", Unit.SHARE, 0.005),
        ("20", Unit.MILLISECONDS, 20),
        ("20ms", Unit.MILLISECONDS, 20),
        ("1.5s", Unit.MILLISECONDS, 1500),
        ("250us", Unit.MILLISECONDS, 0.25),
        ("250µs", Unit.MILLISECONDS, 0.25),
        ("5m", Unit.SECONDS, 300),
        ("5 min", Unit.SECONDS, 300),
        ("1h30m", Unit.SECONDS, 5400),
        ("1d 2h", Unit.SECONDS, 93600),
        ("2w", Unit.SECONDS, 1209600),
        ("-3s", Unit.SECONDS, -3),
        ("100ms", Unit.SECONDS, 0.1),
        ("0", Unit.SECONDS, 0),
        ("60", Unit.CELSIUS, 60),
        ("60°C", Unit.CELSIUS, 60),
        ("140F", Unit.CELSIUS, 60),
        ("4GiB", Unit.BYTES, 4 * 2**30),
        ("4GB", Unit.BYTES, 4e9),
        ("512 mb", Unit.BYTES, 512e6),
        ("10", Unit.PER_SECOND, 10),
        ("10/s", Unit.PER_SECOND, 10),
        ("6/min", Unit.PER_SECOND, 0.1),
        ("1.5k", Unit.PER_SECOND, 1500),
        ("1.5k/min", Unit.PER_SECOND, 25),
        ("1e3", Unit.NONE, 1000),
        (".5", Unit.NONE, 0.5),
        ("2k", Unit.NONE, 2000),
    ],
)
def test_reads(text: str, unit: Unit, value: float) -> None:
    assert ages.parse(text, unit) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("5", Unit.SECONDS),
        ("", Unit.SECONDS),
        ("5x", Unit.SECONDS),
        ("m", Unit.SECONDS),
        ("5m x", Unit.SECONDS),
        ("80ms", Unit.SHARE),
        ("8 0", Unit.NONE),
        ("1e999", Unit.NONE),
        ("nan", Unit.NONE),
        ("inf", Unit.NONE),
        ("0x10", Unit.NONE),
        ("1_000", Unit.NONE),
        ("٣", Unit.NONE),
        ("5/fortnight", Unit.PER_SECOND),
        ("60K", Unit.CELSIUS),
    ],
)
def test_does_not_read(text: str, unit: Unit) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        ages.parse(text, unit)


@pytest.mark.parametrize("unit", list(Unit))
def test_the_example_of_a_unit_can_be_read(unit: Unit) -> None:
    for text in re.split(r", | or ", ages.example(unit)):
        assert ages.parse(text, unit) > 0


# ---------------------------------------------------------------- showing

_UNITS = {"now": 1, "s": 1, "min": 60, "h": 3600, "d": 86400, "wk": 604800, "y": 365 * 86400}


@examples(300)
@given(st.floats(0, 1e10))
def test_an_age_is_rounded_down_and_never_off_by_more_than_half(seconds: float) -> None:
    number, _, unit = ages.age(seconds).rpartition(" ")
    told = float(number or 0) * _UNITS[unit]
    assert told <= seconds
    assert seconds - told <= max(told / 2, 1)


@examples(300)
@given(st.floats(0, 1e10), st.floats(0, 1e10))
def test_an_older_thing_is_never_shown_as_younger(one: float, other: float) -> None:
    def told(seconds: float) -> float:
        number, _, unit = ages.age(seconds).rpartition(" ")
        return float(number or 0) * _UNITS[unit]

    assert told(min(one, other)) <= told(max(one, other))


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (ages.age(0), "now"),
        (ages.age(-5), "now"),
        (ages.age(45.9), "45 s"),
        (ages.age(185), "3 min"),
        (ages.age(2.5 * 3600), "2 h"),
        (ages.age(5 * 86400), "5 d"),
        (ages.age(30 * 86400), "4 wk"),
        (ages.age(800 * 86400), "2 y"),
        (ages.age(math.nan), "never"),
        (ages.age_of(0, 100), "never"),
        (ages.age_of(40, 100), "60 s"),
        (ages.duration(0), "0 s"),
        (ages.duration(18e-6), "18 µs"),
        (ages.duration(0.35), "350 ms"),
        (ages.duration(0.9999), "1 s"),
        (ages.duration(12), "12 s"),
        (ages.duration(59.97), "1 min"),
        (ages.duration(65), "1 min 05 s"),
        (ages.duration(3899), "1 h 05 min"),
        (ages.duration(3600), "1 h"),
        (ages.duration(3 * 86400 + 4 * 3600), "3 d 4 h"),
        (ages.duration(-90), "-1 min 30 s"),
        (ages.duration(math.inf), "–"),
        (ages.milliseconds(0.0351), "0.035 ms"),
        (ages.milliseconds(12.44), "12.4 ms"),
        (ages.milliseconds(1234), "1.23 s"),
        (ages.size(512), "512 B"),
        (ages.size(3.7 * 2**30), "3.7 GiB"),
        (ages.size(1023.9), "1 KiB"),
        (ages.size(5 * 2**40), "5 TiB"),
        (ages.percent(0.81), "81 %"),
        (ages.percent(0.004), "0.4 %"),
        (ages.percent(0.9999), "99.9 %"),
        (ages.percent(1), "100 %"),
        (ages.percent(0), "0 %"),
        (ages.percent(0.0000001), "< 0.1 %"),
        (ages.percent(math.nan), "–"),
        (ages.rate(340), "340/s"),
        (ages.rate(0.1), "6/min"),
        (ages.rate(2 / 3600), "2/h"),
        (ages.rate(3 / 86400), "3/d"),
        (ages.rate(0), "0/s"),
        (ages.rate(25_000), "25k/s"),
        (ages.rate(3.2e6), "3.2M/s"),
        (ages.temperature(61.4), "61 °C"),
        (ages.offset(1.2), "+1.2 s"),
        (ages.offset(-180), "-3 min"),
        (ages.count(12345), "12\u202f345"),
        (ages.show(0.5, Unit.SHARE), "50 %"),
        (ages.show(12, Unit.NONE), "12"),
        (ages.show(1.5, Unit.NONE), "1.5"),
    ],
)
def test_shows(shown: str, text: str) -> None:
    assert shown == text


@examples(300)
@given(st.one_of(st.floats(), figures), units)
def test_every_number_can_be_shown_and_keeps_its_unit(value: float, unit: Unit) -> None:
    text = ages.show(value, unit)
    if abs(value) < 1e15:
        assert len(text) < 30
        assert re.match(r"(< )?[-\d]", text)
        assert unit is Unit.NONE or re.search(r"[^\d.\s-]$", text)
    else:
        assert text == ages.UNKNOWN
    assert "e" not in text
