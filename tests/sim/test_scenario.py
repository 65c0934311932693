from __future__ import annotations

import pytest

from fleet_sim.world import scenario
from fleet_sim.world.faults import Faults
from fleet_sim.world.population import make
from fleet_sim.world.scenario import Scenario, Timeline, read
from fleetui.common.domain.errors import ConfigError

STEP = 'title = "x"\n[[step]]\nat = "1m"\nfault = "slow"\n'


@pytest.mark.parametrize("name", scenario.shipped())
def test_scenarios_that_come_along_are_good_and_find_devices(name):
    found = scenario.load(name)
    assert found.title
    fleet = make(200, 1)
    faults = Faults(fleet.application)
    for step in found.steps:
        chosen = step.choose(fleet)
        assert len(chosen) > 0, step.name
        faults.begin(step.fault, chosen, 0.0, parameters=step.parameters)
    faults.conditions(100.0)


def test_the_shipped_ones_are_known_by_name():
    assert {"calm", "demo", "storm"} <= set(scenario.shipped())
    assert not scenario.load("calm").steps
    assert len({step.fault for step in scenario.load("demo").steps}) >= 9


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("title = ", "is not TOML"),
        ("", "has no title"),
        ("title = 5", "has no title"),
        ('title = "x"\nsteps = []', "has a key 'steps'"),
        ('title = "x"\ndescription = 5', "The description"),
        ('title = "x"\nstep = 5', "'step' in"),
        ('title = "x"\n[[step]]\nat = "1m"', "Step 1 of the scenario: it names no fault"),
        ('title = "x"\n[[step]]\nfault = "slow"', "Step 1 of the scenario: it does not say when"),
        (STEP.replace("slow", "slower"), "There is no fault 'slower'"),
        (STEP + "factr = 3", "has no parameter 'factr'"),
        (STEP + 'factor = "9999999"', "Factor of the fault 'slow' cannot be 9999999"),
        (STEP.replace('"1m"', '"soon"'), "At cannot be 'soon'"),
        (STEP.replace('"1m"', '"-1m"'), "At cannot be -1m"),
        (STEP + 'for = "2h"\nevery = "1h"', "begins again before it has ended"),
        (STEP + 'every = "1s"', "Every cannot be 1s"),
        (STEP + "select = 5", "its select is not a text"),
        (STEP + 'select = "sight:berlin"', "Step 1 of the scenario selects badly"),
        (STEP + 'select = "status:offline"', "selects badly"),
        (STEP + 'share = "150%"', "Share cannot be 150%"),
        (STEP + 'share = "10%"\ncount = 2', "both a share and a count"),
        (STEP + "count = 0", "Count cannot be 0"),
        (STEP + "count = 1.5", "Write a whole number"),
        (STEP + 'name = ""', "its name is not a short text"),
        (
            STEP + 'name = "a"\n[[step]]\nname = "a"\nat = 1\nfault = "hot"',
            "Two steps of the scenario are called 'a'",
        ),
    ],
)
def test_faults_are_said_in_sentences(text, sentence):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert sentence in str(caught.value)


def test_a_file_that_is_not_there_names_those_that_are(tmp_path):
    with pytest.raises(ConfigError, match="one of calm, demo, storm"):
        scenario.load(str(tmp_path / "none.toml"))
    (tmp_path / "own.toml").write_text(STEP)
    assert scenario.load(str(tmp_path / "own.toml")).steps[0].at_s == 60.0


def test_a_share_takes_the_same_devices_of_the_same_seed_and_others_at_each_turn():
    fleet = make(300, 1)
    step = read(STEP + 'select = "site:hamburg"\nshare = "20%"').steps[0]
    whole = set(fleet.select("site:hamburg").tolist())
    first = step.choose(fleet)
    assert len(first) == pytest.approx(0.2 * len(whole), abs=1)
    assert set(first.tolist()) <= whole
    assert first.tolist() == step.choose(fleet).tolist()
    assert first.tolist() != step.choose(fleet, 1).tolist()
    assert len(read(STEP + "count = 7").steps[0].choose(fleet)) == 7
    assert len(read(STEP + "count = 7000").steps[0].choose(fleet)) == 300


def test_the_timeline_gives_each_turn_once_in_order():
    text = STEP.replace("1m", "10m") + 'every = "30m"\nfor = "5m"\n[[step]]\nat = 0\nfault = "hot"\nname = "first"'
    line = Timeline(read(text), 1000.0)
    assert line.next_at == 1000.0
    seen = []
    for now in range(1000, 1000 + 4 * 3600, 50):
        seen += [(when, step.fault, turn) for when, step, turn in line.due(float(now))]
    assert seen[0] == (1000.0, "hot", 0)
    assert seen[1:4] == [(1600.0, "slow", 0), (3400.0, "slow", 1), (5200.0, "slow", 2)]
    assert len(seen) == 1 + 8


def test_what_would_be_over_already_is_left_out():
    line = Timeline(read(STEP + 'for = "2m"'), 0.0)
    assert line.due(1000.0) == []
    assert line.next_at == float("inf")
    assert Timeline(Scenario("calm"), 0.0).next_at == float("inf")
