"""Signals, vital figures, habits, time."""

from __future__ import annotations

import numpy as np
import pytest

from fleet_sim.timing import FleetTime, Pace
from fleet_sim.world.applications import APPLICATIONS, fitted
from fleet_sim.world.conditions import Conditions
from fleet_sim.world.habits import Habits
from fleet_sim.world.hardware import HARDWARE, SITES
from fleet_sim.world.population import make
from fleet_sim.world.signals import DAY_S, Signals, latency_shares
from fleet_sim.world.vitals import World
from fleetui.common.domain.clock import ManualClock, ScaledClock
from fleetui.common.domain.errors import ConfigError
from fleetui.common.sketches import latency as bins
from tests.helpers.sim import T0

N = 400


@pytest.fixture(scope="module")
def signals():
    return Signals(make(N, 3))


@pytest.fixture
def rng():
    return np.random.default_rng(1)


EVERYONE = np.arange(N)
NONE = Conditions.none(N)


def test_rows_are_all_accounted_for(signals, rng):
    rows = rng.integers(0, 40, N)
    conditions = Conditions.none(N)
    conditions.failing[:100] = 0.5
    found = signals.infer(T0, EVERYONE, rows, conditions, rng)
    assert (found.rows + found.errors == rows).all()
    assert (found.latency.sum(axis=1) == found.rows).all()
    assert (found.outputs.sum(axis=1) == found.rows).all()
    assert found.errors[:100].sum() / rows[:100].sum() == pytest.approx(0.5, abs=0.05)
    assert found.errors[100:].sum() / rows[100:].sum() < 0.005
    for i in range(N):
        classes = len(APPLICATIONS[signals.population.application[i]].classes)
        assert found.outputs[i, classes:].sum() == 0
    nothing = signals.infer(T0, EVERYONE, np.zeros(N, np.int64), NONE, rng)
    assert nothing.rows.sum() == nothing.latency.sum() == 0


def test_the_same_random_source_gives_the_same_inferences(signals):
    rows = np.full(N, 7)
    a = signals.infer(T0, EVERYONE, rows, NONE, np.random.default_rng(4))
    b = signals.infer(T0, EVERYONE, rows, NONE, np.random.default_rng(4))
    assert (a.latency == b.latency).all()
    assert (a.outputs == b.outputs).all()


def test_drift_and_stuck_sensors_change_the_answers(signals, rng):
    rows = np.full(N, 200)
    before = signals.infer(T0, EVERYONE, rows, NONE, rng).outputs.sum(axis=0)
    again = signals.infer(T0, EVERYONE, rows, NONE, rng).outputs.sum(axis=0)
    scale = before.sum()
    drifted = Conditions.none(N)
    drifted.shift[:, 0:3] = 2.0
    moved = signals.infer(T0, EVERYONE, rows, drifted, rng).outputs.sum(axis=0)
    stuck = Conditions.none(N)
    stuck.stuck[:] = True
    dead = signals.infer(T0, EVERYONE, rows, stuck, rng).outputs
    assert np.abs(before - again).sum() / scale < 0.01
    assert np.abs(before - moved).sum() / scale > 0.05
    assert ((dead > 0).sum(axis=1) == 1).all()  # one value in, one answer out


def test_latencies_follow_hardware_faults_and_pace(signals, rng):
    rows = np.full(N, 300)
    found = signals.infer(T0, EVERYONE, rows, NONE, rng)
    median = np.array([bins.quantile_ms(h, 0.5) for h in found.latency])
    centre = signals.centre_s(EVERYONE) * 1000
    assert np.abs(np.log(median / centre)).max() < 0.15
    p = signals.population
    board = np.array([HARDWARE[h].target == "bbb-armv7" for h in p.hardware])
    assert median[board & (p.application == 0)].min() > 5 * median[(p.slowness < 1.5) & (p.application == 0)].max()
    slow = Conditions.none(N)
    slow.slower[:] = 4.0
    slower = signals.infer(T0, EVERYONE, rows, slow, rng, 2.0)
    assert bins.quantile_ms(slower.latency[0], 0.5) == pytest.approx(8 * median[0], rel=0.2)


def test_expected_figures_are_those_of_running(signals, rng):
    devices = np.arange(40)
    rows = np.full(40, 20_000)
    found = signals.infer(T0, devices, rows, NONE, rng)
    shares = latency_shares(signals.centre_s(devices))
    assert np.abs(shares.sum(axis=1) - 1).max() < 1e-9
    assert np.abs(found.latency / found.rows[:, None] - shares).max() < 0.02
    expected = signals.expected_outputs(T0, devices, 1)
    assert np.abs(expected.sum(axis=1) - 1).max() < 1e-9
    mean_difference = np.abs(found.outputs / found.rows[:, None] - expected).mean(axis=0)
    assert mean_difference.max() < 0.06


def test_inputs_move_with_the_time_of_day_and_the_weather_of_a_site(signals):
    hours = np.arange(0, 24 * 40, 3.0)
    shift = np.stack([signals.shift(T0 + h * 3600, EVERYONE) for h in hours])
    by_hour = np.array([shift[(hours % 24) == h].mean(axis=0) for h in range(0, 24, 3)])
    swing = by_hour.max(axis=0) - by_hour.min(axis=0)
    assert swing[:, 0].mean() > 0.4  # follows the day
    assert swing[:, 7].mean() < 0.2  # does not
    weather = np.stack([signals.weather(T0 + h * 3600) for h in hours])
    spread = weather.std(axis=0).mean(axis=1)
    for site, found in zip(SITES, spread, strict=True):
        assert found == pytest.approx(site.climate, rel=0.4)


def test_work_follows_day_and_week(signals):
    monday = np.floor(T0 / DAY_S) * DAY_S
    while int(monday / DAY_S + 3) % 7 != 0:
        monday += DAY_S
    noon = signals.activity(monday + 12 * 3600, EVERYONE)
    night = signals.activity(monday + 2 * 3600, EVERYONE)
    sunday = signals.activity(monday + 6 * DAY_S + 12 * 3600, EVERYONE)
    presses = signals.population.application == 0
    assert noon[presses].mean() > 2 * night[presses].mean()
    assert noon[presses].mean() > 2 * sunday[presses].mean()
    assert night.min() > 0


def test_vital_figures_are_plausible_at_any_time(signals, rng):
    world = World(signals)
    for day in range(0, 360, 30):
        for hour in (2, 8, 14, 20):
            f = world.figures(T0 + day * DAY_S + hour * 3600, EVERYONE, NONE, rng)
            for share in (f.cpu, f.memory, f.disk):
                assert (share >= 0).all()
                assert (share <= 1).all()
            assert f.temperature.min() > 5
            assert f.temperature.max() < 85  # no alarm without a fault
            assert (f.throttling == 1).all()
    hot = Conditions.none(N)
    hot.hotter[:] = 60.0
    hot.disk[:5] = 0.97
    burning = world.figures(T0, EVERYONE, hot)
    calm = world.figures(T0, EVERYONE, NONE)
    assert np.allclose(burning.temperature - calm.temperature, 60)
    assert burning.throttling.max() > 1.2
    assert (burning.disk[:5] == 0.97).all()


def test_habits_lose_and_find_connections(signals, rng):
    habits = Habits(signals, EVERYONE, T0, rng)
    wired = np.isinf(signals.population.drop_every_s)
    down, restarts = np.zeros(N), 0
    for minute in range(0, 7 * 1440, 3):
        restarts += len(habits.advance(T0 + 60.0 * minute))
        down += ~habits.link
    assert (down[wired] == 0).all()
    share = down[~wired].mean() / (7 * 1440 / 3)
    assert 0.005 < share < 0.15
    assert 20 < restarts < 400
    quiet = Habits(signals, EVERYONE, T0, rng, quiet=True)
    assert quiet.next_at == float("inf")
    assert len(quiet.advance(T0 + 1e9)) == 0
    assert quiet.powered.all()


def test_shifts_begin_and_end(signals, rng):
    habits = Habits(signals, EVERYONE, T0, rng)
    on_shift = ~np.isnan(signals.population.starts)
    assert on_shift.any()
    seen = np.zeros(N)
    for minute in range(0, 3 * 1440, 5):
        habits.advance(T0 + 60.0 * minute)
        seen += habits.powered
    share = seen / (3 * 1440 / 5)
    assert (share[~on_shift] == 1).all()
    expected = signals.population.runs_h[on_shift] / 24
    assert np.abs(share[on_shift] - expected).max() < 0.03


def test_fleet_time_stops_and_goes_on():
    clock = ManualClock(T0)
    own = FleetTime(clock)
    own.pause()
    assert (own.rate, own.paused) == (0.0, True)
    clock.advance(100)
    assert own.now() == T0
    own.play()
    assert T0 <= own.now() <= T0 + 1.0  # from where it stood
    shared = FleetTime(clock, shared=True)
    shared.pause()
    clock.advance(100)
    shared.play()
    assert shared.now() == clock.now()  # with the others again
    own.run_at(60)
    assert own.rate == 60
    assert own.spec
    with pytest.raises(ConfigError, match="makes no sense"):
        own.run_at(0)
    other = ScaledClock(5000.0, 0.0, 2.0)
    own.share(other)
    assert own.spec == other.spec


def test_pace_is_one_on_a_machine_that_stays_as_it_is():
    class Steady(ManualClock):
        def monotonic(self):
            self.advance(1e-4)
            return super().monotonic()

    pace = Pace(fitted(0, 0, 1), Steady())
    assert pace.update() == pytest.approx(1.0)

    class Slowing(ManualClock):
        step = 1e-4

        def monotonic(self):
            self.advance(self.step)
            return super().monotonic()

    clock = Slowing()
    pace = Pace(fitted(0, 0, 1), clock)
    clock.step = 3e-4
    values = [pace.update() for _ in range(30)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(3.0, rel=0.01)
    clock.step = 1.0
    assert max(pace.update() for _ in range(50)) <= 4.0
