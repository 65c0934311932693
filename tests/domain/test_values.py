"""Identifiers, versions and the tree of errors."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.domain.errors import ConfigError, OperatorError, Refusal, WireError
from fleetui.common.domain.values import device_id, fleet_name, is_digest, is_id, version_key
from tests.helpers.domain import examples

versions = st.one_of(
    st.lists(st.sampled_from(["0", "1", "2", "10", "00", "rc", "a", "v", ".", "-", "+", ""]), max_size=8).map(
        "".join
    ),
    st.text(max_size=20),
)


@examples(200)
@given(versions, versions, versions)
def test_versions_are_totally_ordered(a: str, b: str, c: str) -> None:
    keys = [version_key(v) for v in (a, b, c)]
    for x, y in itertools.product(keys, keys):
        assert (x < y) + (x == y) + (y < x) == 1
    x, y, z = sorted(keys)
    assert x <= y <= z
    assert x <= z


@pytest.mark.parametrize(
    "rising",
    [
        ["0.9", "1", "1.0.1", "1.9", "1.10", "1.10.1", "2"],
        ["1.0-a1", "1.0-a2", "1.0-b1", "1.0-rc1", "1.0-rc2", "1.0", "1.0.1-rc1", "1.0.1"],
        ["2025-12-31", "2026-1-2", "2026-01-10", "2026-11-01"],
        ["v1.9", "1.10", "v2"],
        ["", "0.1"],
    ],
)
def test_versions_rise_as_people_read_them(rising: list[str]) -> None:
    assert sorted(rising, key=version_key) == rising
    assert len({version_key(v) for v in rising}) == len(rising)


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "1.0"), ("1.0.0", "1"), ("1.0-rc1", "1-RC1"), ("v1.2", "1.2"), ("1.2+build7", "1.2"), ("01.2", "1.02")],
)
def test_versions_that_are_the_same(one: str, other: str) -> None:
    assert version_key(one) == version_key(other)


@examples(100)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=5), st.integers(1, 10**6))
def test_raising_any_number_raises_the_version(numbers: list[int], by: int) -> None:
    base = version_key(".".join(map(str, numbers)))
    for i in range(len(numbers)):
        raised = [*numbers[:i], numbers[i] + by, *numbers[i + 1 :]]
        assert version_key(".".join(map(str, raised))) > base
    assert version_key(".".join(map(str, [*numbers, by]))) > base
    assert version_key(".".join(map(str, numbers)) + "-rc1") < base


def test_a_number_that_python_will_not_read_is_no_failure() -> None:
    assert version_key("9" * 100_000) > version_key("1")


@examples(200)
@given(st.text(max_size=70))
def test_an_id_is_safe_in_a_topic_and_a_path(text: str) -> None:
    if is_id(text):
        assert device_id(text) == fleet_name(text) == text
        assert 1 <= len(text) <= 64
        assert text[0].isascii()
        assert text[0].isalnum()
        assert all(c.isascii() and (c.isalnum() or c in "_.-") for c in text)
    else:
        for make in (device_id, fleet_name):
            with pytest.raises(ConfigError):
                make(text)


@pytest.mark.parametrize("text", ["a", "A-1", "edge-0001.lab_2", "x" * 64, "0"])
def test_ids(text: str) -> None:
    assert is_id(text)


@pytest.mark.parametrize("text", ["", "-a", ".", "..", "a/b", "a+b", "#", "a b", "x" * 65, "a\n", "é", "$SYS"])
def test_no_ids(text: str) -> None:
    assert not is_id(text)


def test_digests() -> None:
    assert is_digest("0af9" * 16)
    for text in ("0AF9" * 16, "0af9" * 15, "0af9" * 16 + "\n", ""):
        assert not is_digest(text)


def test_an_operators_error_is_a_sentence_and_what_to_do() -> None:
    assert str(OperatorError("The disk is full.", "Delete something.")) == "The disk is full. Delete something."
    assert str(OperatorError("The disk is full")) == "The disk is full."
    assert str(OperatorError("There is no 'x'", "Did you mean 'y'?")) == "There is no 'x'. Did you mean 'y'?"
    error = WireError(Refusal.FORGED, "says d2")
    assert (error.reason, str(error), str(WireError(Refusal.RATE))) == ("forged", "forged: says d2", "rate")
