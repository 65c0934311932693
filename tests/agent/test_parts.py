"""Vital signs, the sampling loop, the state file."""

from __future__ import annotations

import math
import os

import numpy as np

from fleet_sim.agent import state
from fleet_sim.agent.journal import hold
from fleet_sim.agent.model import Mlp, ModelError
from fleet_sim.agent.serving import Sampler, SyntheticSource
from fleet_sim.agent.vitals import VitalSigns
from fleetui.common.domain.clock import ManualClock


def put(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_vital_figures_of_a_machine(tmp_path):
    put(tmp_path, "proc/stat", "cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 2 3\n")
    put(tmp_path, "proc/meminfo", "MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:  250 kB\n")
    put(tmp_path, "proc/uptime", "345.67 100.0\n")
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "47123\n")
    put(tmp_path, "sys/class/thermal/thermal_zone1/temp", "61000\n")
    put(tmp_path, "sys/class/thermal/thermal_zone2/temp", "-273000\n")
    signs = VitalSigns(tmp_path, tmp_path)
    first = signs.read()
    assert math.isnan(first.cpu)  # nothing to compare with yet
    assert (first.memory, first.uptime_s, first.temperature) == (0.75, 345.67, 61.0)
    assert 0.0 < first.disk <= 1.0
    put(tmp_path, "proc/stat", "cpu  150 0 130 780 120 0 0 20 50 0\n")
    assert signs.read().cpu == 0.5
    assert math.isnan(signs.read().cpu)  # no time has passed
    assert signs.machine().memory_bytes == 1_024_000


def test_what_a_machine_does_not_tell_is_not_a_number(tmp_path):
    put(tmp_path, "proc/stat", "nonsense\n")
    put(tmp_path, "proc/meminfo", "MemTotal: lots\n")
    put(tmp_path, "proc/uptime", "inf\n")
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "hot\n")
    vitals = VitalSigns(tmp_path / "gone", tmp_path).read()
    for figure in (vitals.cpu, vitals.memory, vitals.disk, vitals.temperature, vitals.uptime_s):
        assert math.isnan(figure)
    assert VitalSigns(tmp_path / "gone", tmp_path).machine().disk_bytes == 0


def test_temperatures_under_hwmon(tmp_path):
    put(tmp_path, "sys/class/hwmon/hwmon0/temp1_input", "39500")
    assert VitalSigns(tmp_path, tmp_path).read().temperature == 39.5


def test_this_machine_tells_something(tmp_path):
    signs = VitalSigns(tmp_path)
    signs.read()
    vitals = signs.read()
    assert 0 < vitals.memory < 1
    assert 0 < vitals.disk < 1
    assert vitals.uptime_s > 0
    assert signs.machine().cores == os.cpu_count()


def sampler(model, clock, rows_per_s=10.0, batch=5):
    return Sampler("h", model, SyntheticSource(8, 1), clock, rows_per_s=rows_per_s, batch=batch)


def test_sampling_keeps_its_rate_and_does_not_catch_up():
    clock = ManualClock()
    model = Mlp.from_seed("m", "1", "v", seed=1, features=8, hidden=8, classes=3)
    loop = sampler(model, clock)
    assert loop.run(0.0) is None
    assert loop.due_in() == 0.5
    rows = 0
    for _ in range(80):
        clock.advance(0.125)
        batch = loop.run(clock.now())
        if batch is not None:
            rows += len(batch.latencies)
            assert set(batch.outputs.tolist()) <= {0, 1, 2}
            assert batch.errors == 0
    assert rows == 100
    clock.advance(60.0)
    assert loop.run(clock.now()) is not None
    assert loop.run(clock.now()) is not None  # due now
    assert loop.run(clock.now()) is None  # but no minute's worth of them


def test_no_rate_no_samples():
    clock = ManualClock()
    loop = sampler(Mlp.from_seed("m", "1", "v", seed=1, features=8, hidden=8, classes=3), clock, rows_per_s=0.0)
    clock.advance(1e6)
    assert loop.run(clock.now()) is None


def test_a_model_that_fails_is_counted_with_its_words():
    class Broken:
        classes = 3

        def predict(self, batch):
            raise ModelError("no such luck")

    clock = ManualClock()
    loop = sampler(Broken(), clock)
    clock.advance(1.0)
    batch = loop.run(clock.now())
    assert (len(batch.latencies), batch.errors, batch.error) == (0, 5, "no such luck")


def test_the_source_is_correlated_and_repeats_from_its_seed():
    rows = SyntheticSource(4, 7).rows(5000, 0.0)
    assert np.array_equal(rows, SyntheticSource(4, 7).rows(5000, 0.0))
    following = np.array([np.corrcoef(rows[1:, k], rows[:-1, k])[0, 1] for k in range(4)])
    assert np.abs(following - 0.5).max() < 0.06
    assert np.abs(rows.std(axis=0) - 1.0).max() < 0.1


def test_the_state_file_is_whole_or_the_one_before(tmp_path):
    fields = dict.fromkeys(state.AgentState.__dataclass_fields__, 0)
    state.write(tmp_path, state.AgentState(**(fields | {"device": "d1", "cpu": float("nan")})))
    known = state.read(tmp_path)
    assert known["device"] == "d1"
    assert known["cpu"] is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.json"]
    (tmp_path / "state.json").write_text("{")
    assert state.read(tmp_path) is None
    state.write(tmp_path / "none", state.AgentState(**fields))  # no error: the agent has to go on


def test_who_holds_the_folder_runs(tmp_path):
    assert not state.running(tmp_path)
    with hold(tmp_path):
        assert state.running(tmp_path)
    assert not state.running(tmp_path)
