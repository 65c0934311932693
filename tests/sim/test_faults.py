from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_sim.world.applications import APPLICATIONS
from fleet_sim.world.conditions import Conditions
from fleet_sim.world.faults import KINDS, Faults, check
from fleetui.common.domain.errors import ConfigError
from tests.helpers.sim import T0

N = 12
SOME = np.array([2, 5, 9])
OTHERS = np.setdiff1d(np.arange(N), SOME)


@pytest.fixture
def faults():
    return Faults(np.arange(N) % len(APPLICATIONS))


def differs(a: Conditions, b: Conditions, where) -> bool:
    return any(
        not np.array_equal(getattr(a, name)[where], getattr(b, name)[where]) for name in Conditions.__slots__
    )


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "reboot"])
def test_each_kind_does_something_to_its_devices_and_to_no_other(faults, kind):
    faults.begin(kind, SOME, T0)
    changed = False
    for t in np.arange(T0, T0 + 3700, 30):
        now = faults.conditions(float(t))
        assert not differs(now, Conditions.none(N), OTHERS)
        changed = changed or differs(now, Conditions.none(N), SOME)
    assert changed
    faults.end()
    assert not differs(faults.conditions(T0 + 10), Conditions.none(N), np.arange(N))


def test_what_each_kind_comes_to(faults):
    faults.begin("offline", SOME, T0)
    faults.begin("slow", SOME, T0, parameters={"factor": 3})
    faults.begin("slow", SOME[:1], T0, parameters={"factor": "2"})
    faults.begin("errors", SOME, T0, parameters={"failing": "50%"})
    faults.begin("errors", SOME, T0, parameters={"failing": 0.5})
    faults.begin("clock", SOME, T0, parameters={"jump": "-2h"})
    c = faults.conditions(T0 + 1)
    assert c.link_down[SOME].all()
    assert c.slower[SOME].tolist() == [6.0, 3.0, 3.0]
    assert c.failing[SOME].tolist() == [0.75] * 3
    assert c.clock_s[SOME].tolist() == [-7200.0] * 3


def test_what_grows_with_time(faults):
    faults.begin("hot", SOME, T0, parameters={"degrees": 30})
    faults.begin("disk", SOME, T0, parameters={"until": "90%", "within": "1h"})
    faults.begin("drift", SOME, T0, parameters={"sigma": 2, "within": "1h", "features": [3]})
    half = faults.conditions(T0 + 1800)
    full = faults.conditions(T0 + 7200)
    assert half.hotter[2] == full.hotter[2] == 30
    assert faults.conditions(T0 + 150).hotter[2] == 15
    assert (half.disk[2], full.disk[2]) == (0.45, 0.9)
    assert (half.shift[2, 3], full.shift[2, 3]) == (1.0, 2.0)
    assert full.shift[2].sum() == 2.0
    assert faults.restless


def test_features_by_name_are_found_where_they_are(faults):
    faults.begin("stuck", np.arange(N), T0, parameters={"features": "band-2, hue"})
    stuck = faults.conditions(T0).stuck
    for i in range(N):
        features = APPLICATIONS[i % len(APPLICATIONS)].features
        assert [features[f] for f in np.flatnonzero(stuck[i])] == [f for f in ("band-2", "hue") if f in features]


def test_flapping_devices_are_down_for_their_share_and_not_in_step():
    n = 200
    faults = Faults(np.zeros(n, np.int64))
    faults.begin("flapping", np.arange(n), T0, parameters={"period": 100, "down": "30%"})
    down = np.stack([faults.conditions(T0 + t).link_down for t in range(300)])
    assert np.abs(down.mean(axis=0) - 0.3).max() < 0.02
    assert 0.2 < down.mean(axis=1).min() <= down.mean(axis=1).max() < 0.4


@given(st.lists(st.floats(0.1, 40), min_size=1, max_size=60))
def test_every_reboot_of_a_loop_comes_exactly_once(steps):
    faults = Faults(np.zeros(N, np.int64))
    faults.begin("reboot", SOME, T0, parameters={"period": 50})
    counts = np.zeros(N)
    now = T0
    for step in steps:
        counts[faults.reboots(now, now + step)] += 1
        now += step
    passed = (now - T0) / 50
    assert (counts[OTHERS] == 0).all()
    assert (np.abs(counts[SOME] - passed) <= 1).all()


def test_faults_end(faults):
    one = faults.begin("offline", SOME, T0, lasts_s=60)
    faults.begin("slow", SOME, T0, ident="mine")
    assert one.ident == "offline-1"
    assert faults.next_end() == T0 + 60
    assert faults.expire(T0 + 59) == []
    assert [a.ident for a in faults.expire(T0 + 60)] == ["offline-1"]
    assert faults.end("nobody") == []
    assert [a.ident for a in faults.end("mine")] == ["mine"]
    assert len(faults) == 0
    faults.begin("slow", SOME, T0, ident="x")
    faults.begin("hot", SOME, T0, ident="x")
    assert [a.kind for a in faults.active] == ["hot"]


@pytest.mark.parametrize(
    ("kind", "parameters", "sentence"),
    [
        ("sloow", {}, "There is no fault 'sloow'"),
        ("slow", {"facter": 2}, "The fault 'slow' has no parameter 'facter'. Its parameters: factor"),
        ("offline", {"x": 1}, "Its parameters: none"),
        ("slow", {"factor": "much"}, "Factor of the fault 'slow' cannot be 'much'"),
        ("slow", {"factor": True}, "Factor of the fault 'slow' cannot be True"),
        ("slow", {"factor": 0}, "It may be"),
        ("slow", {"factor": float("nan")}, "It may be"),
        ("errors", {"failing": "120%"}, "Failing of the fault 'errors' cannot be 120%"),
        ("hot", {"degrees": [3]}, "cannot be"),
        ("drift", {"features": ["nose"]}, "There is no feature 'nose'"),
        ("stuck", {"features": 8}, "There is no feature '8'"),
    ],
)
def test_faults_that_cannot_be(kind, parameters, sentence):
    with pytest.raises(ConfigError) as caught:
        check(kind, parameters)
    assert sentence in str(caught.value)


def test_parameters_as_people_write_them():
    assert check("clock", {"jump": "-1h30m"}) == {"jump": -5400.0}
    assert check("flapping", {"down": "25%"}) == {"period": 120.0, "down": 0.25}
    assert check("drift", {"features": "rms, 2"})["features"] == "rms,2"
