"""Which variant to take: goals as people write them, and the cheapest that meets them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.workshop.errors import WorkshopError
from fleetui.workshop.recommend import Goals, parse, recommend

POWER = {"rpi4-64": 48.0, "rpi5-64": 150.0}


def variant(
    target: str, form: str, ms: float, mb: float, accuracy: float | None = 0.9, how: str = "estimate"
) -> dict:
    return {
        "dir": f"{target}/{form}", "target": target, "latency_us": ms * 1e3, "latency_from": how,
        "packed_bytes": mb * 1e6, "workspace_bytes": 1e6, "accuracy": accuracy, "agreement": None,
    }  # fmt: skip


ALL = [
    variant("rpi5-64", "fp32", 8, 20),
    variant("rpi5-64", "int8", 4, 5, 0.88),
    variant("rpi4-64", "fp32", 30, 20),
    variant("rpi4-64", "int8", 12, 5, 0.88, "measured"),
]


@pytest.mark.parametrize(
    ("text", "goals"),
    [
        ("latency=20ms", Goals(latency_us=20_000)),
        ("latency=20, size=2MB", Goals(latency_us=20_000, packed_bytes=2e6)),
        ("latency=800us,memory=512KiB", Goals(latency_us=800, workspace_bytes=524288)),
        ("accuracy=95%", Goals(accuracy=0.95)),
        ("", Goals()),
    ],
)
def test_goals_as_people_write_them(text: str, goals: Goals) -> None:
    assert parse(text) == goals


@pytest.mark.parametrize("text", ["speed=3", "latency=fast", "latency", "size=MB"])
def test_goals_that_are_none_say_how_to_write_them(text: str) -> None:
    with pytest.raises(WorkshopError) as caught:
        parse(text)
    assert "latency=20ms" in caught.value.fix


@pytest.mark.parametrize(
    ("goals", "best"),
    [
        ("latency=15ms", "rpi4-64/int8"),  # the small board will do
        ("latency=15ms,accuracy=0.9", "rpi5-64/fp32"),
        ("accuracy=0.9", "rpi4-64/fp32"),
        ("latency=5ms", "rpi5-64/int8"),
    ],
)
def test_the_cheapest_that_meets_every_goal(goals: str, best: str) -> None:
    advice = recommend(ALL, parse(goals), POWER)
    assert advice.best == best
    assert ("estimate" in advice.sentence) == (best != "rpi4-64/int8")


def test_where_none_does_the_nearest_is_named_with_its_reason() -> None:
    advice = recommend(ALL, parse("latency=3ms"), POWER)
    assert advice.best == ""
    assert "rpi5-64/int8 comes closest" in advice.sentence
    assert "about 4 ms" in advice.sentence
    unknown = recommend([variant("rpi4-64", "fp32", 1, 1, None)], parse("accuracy=0.5"), POWER)
    assert "not measured" in unknown.sentence
    assert recommend([], parse("latency=3ms"), POWER).best == ""


@given(st.floats(0.1, 50), st.floats(0.1, 50), st.floats(0.5, 1))
def test_what_is_recommended_meets_the_goals_and_what_meets_them_is_not_refused(
    ms: float, mb: float, accuracy: float
) -> None:
    goals = Goals(latency_us=ms * 1e3, packed_bytes=mb * 1e6, accuracy=accuracy)
    advice = recommend(ALL, goals, POWER)
    meets = {
        v["dir"]
        for v in ALL
        if v["latency_us"] <= ms * 1e3 and v["packed_bytes"] <= mb * 1e6 and v["accuracy"] >= accuracy
    }
    assert (advice.best in meets) if meets else advice.best == ""
    assert {name for name, why in advice.misses.items() if not why} == meets
