"""A past for a simulated fleet, written into a recording: what its devices would have reported.

The same devices, signals, habits and vital figures as the live simulation, but nothing is run: counts are drawn
from the distributions that running would give, for all devices at once. So a week of 200 devices takes seconds,
and a live fleet of the same seed continues it (its boots are others).

Reports are numbered in the order in which they reach the station. While a connection is lost, windows wait and
arrive afterwards, beats do not; while a device is off, there is nothing.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.resources
import math
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt

import fleetui
from fleet_sim.history.device import DeviceHistory, Grid, Life
from fleet_sim.world.conditions import Conditions
from fleet_sim.world.faults import Faults
from fleet_sim.world.habits import Habits
from fleet_sim.world.population import Population
from fleet_sim.world.scenario import Scenario, Timeline, read
from fleet_sim.world.signals import BASE_ERRORS, Signals, latency_shares
from fleet_sim.world.vitals import World
from fleetui.common.domain.errors import ConfigError
from fleetui.common.link.recording import RecordingWriter

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

HOUR_S = 3600.0
STEP_S = 60.0  # how finely connections and power are looked at
MIX_EVERY_S = 2 * HOUR_S  # how often the mix of answers is estimated anew


def record(
    population: Population,
    path: Path,
    *,
    until: float,
    hours: float,
    window_s: float = 1800.0,
    beat_s: float = 600.0,
    past: Scenario | None = None,
    progress: Callable[[float], None] | None = None,
) -> int:
    """Write the recording, telling ``progress`` what share is done. Returns the number of messages.

    Raises ``ConfigError`` if it cannot be written.
    """
    start = until - hours * HOUR_S
    if hours * HOUR_S < 2 * window_s:
        raise ConfigError(
            f"A past of {hours:g} h has no room for windows of {window_s:g} s",
            "Make it longer, or the windows shorter",
        )
    about = {
        "fleet": population.fleet,
        "devices": population.n,
        "seed": population.seed,
        "from": start,
        "until": until,
        "window_s": window_s,
        "beat_s": beat_s,
        "made_by": f"fleet-sim {fleetui.__version__}",
    }
    with RecordingWriter(path, about) as writer, _without_garbage_collection():
        tell = progress or _nobody
        maker = _Maker(population, start, until, window_s, beat_s, past or _what_happened())
        messages = maker.messages(tell)
        for at, topic, payload in messages:
            writer.add(at, topic, payload)
        tell(1.0)
        return len(messages)


def _nobody(_share: float) -> None:
    """Listens when nobody else does."""


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Hundreds of thousands of tuples and no cycle among them: looking for one takes a third of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _what_happened() -> Scenario:
    """What went wrong in the past; times count from its beginning, so a shorter past has less of it."""
    return read((importlib.resources.files("fleet_sim.history") / "past.toml").read_text("utf-8"), "the past")


class _Maker:
    def __init__(
        self, population: Population, start: float, until: float, window_s: float, beat_s: float, past: Scenario
    ) -> None:
        self._p = population
        self._start = start
        self._until = until
        self._window_s = window_s
        self._beat_s = beat_s
        self._signals = Signals(population)
        self._world = World(self._signals)
        self._everyone = np.arange(population.n)
        self._rng = np.random.default_rng([population.seed, 61])
        self._past = past
        # Windows are aligned to UTC; the last one ends before the past does.
        first = math.floor(start / window_s + 1) * window_s
        self._ends = np.arange(first, until + 1e-6, window_s)
        self._starts = np.concatenate([[start], self._ends[:-1]])

    # ------------------------------------------------------------ lives

    def _lives(self) -> tuple[list[Life], list[Conditions]]:
        """Walk through the past minute by minute: who was on, who was connected, and what went wrong when."""
        p, n = self._p, self._p.n
        habits = Habits(self._signals, self._everyone, self._start, self._rng)
        faults = Faults(p.application)
        timeline = Timeline(self._past, self._start)
        lives = [Life() for _ in range(n)]
        on = habits.powered.copy()
        linked = on.copy()
        on_since = np.where(on, -np.inf, self._start)
        cut_since = np.where(linked, np.inf, self._start)
        for i in np.flatnonzero(on):
            lives[i].boots.append(self._start - float(p.uptime_days[i] * 43200.0 * self._rng.random()))
        conditions: list[Conditions] = []
        before = self._start
        wanted = iter((self._starts + self._ends) / 2)
        middle = next(wanted, math.inf)
        current = faults.conditions(self._start)
        for t in np.arange(self._start + STEP_S, self._until + STEP_S, STEP_S):
            now = float(min(t, self._until))
            faults.expire(now)
            for _, step, turn in timeline.due(now):
                chosen = step.choose(p, turn)
                faults.begin(
                    step.fault, chosen, now, parameters=step.parameters, lasts_s=step.lasts_s, ident=step.name
                )
            if len(faults) or now >= middle:
                current = faults.conditions(now)
            while middle <= now:
                conditions.append(current)
                middle = next(wanted, math.inf)
            restarts = habits.advance(now)
            if len(faults):
                restarts = np.union1d(restarts, faults.reboots(before, now))
            before = now
            turned = np.flatnonzero(habits.powered != on)
            for i in turned:
                if habits.powered[i]:
                    lives[i].off.append((float(on_since[i]), now))
                    lives[i].boots.append(now)
                else:
                    on_since[i] = now
            on[turned] = habits.powered[turned]
            for i in restarts:
                if on[i]:
                    lives[i].boots.append(now)
            reachable = on & habits.link & ~current.link_down
            for i in np.flatnonzero(reachable != linked):
                if reachable[i]:
                    lives[i].cut.append((float(cut_since[i]), now))
                else:
                    cut_since[i] = now
            linked = reachable
        for i in np.flatnonzero(~on):
            lives[i].off.append((float(on_since[i]), self._until + 1.0))
        for i in np.flatnonzero(~linked):
            lives[i].cut.append((float(cut_since[i]), math.inf))
        while len(conditions) < len(self._ends):
            conditions.append(current)
        return lives, conditions

    # ------------------------------------------------------------ counts

    def _counts(self, lives: list[Life], conditions: list[Conditions]) -> Grid:
        p, everyone, rng = self._p, self._everyone, self._rng
        powered = np.ones((len(self._ends), p.n))
        for i, life in enumerate(lives):
            for since, back in life.off:
                overlap = np.minimum(self._ends, back) - np.maximum(self._starts, since)
                powered[:, i] -= np.clip(overlap, 0.0, None) / (self._ends - self._starts)
        classes = self._signals.priors(self._start, everyone).shape[1]
        rows = np.zeros((len(self._ends), p.n), np.int64)
        errors = np.zeros_like(rows)
        outputs = np.zeros((len(self._ends), p.n, classes), np.int64)
        latency: list[list[list[int]]] = []
        mixes: dict[int, F64] = {}
        for k, (since, end) in enumerate(zip(self._starts, self._ends, strict=True)):
            middle = (since + end) / 2
            c = conditions[k]
            work = p.rows_per_s * self._signals.activity(middle, everyone) * (end - since) * powered[k]
            given = rng.poisson(work)
            errors[k] = rng.binomial(given, np.minimum(BASE_ERRORS + c.failing, 1.0))
            rows[k] = given - errors[k]
            figures = self._world.figures(middle, everyone, c)
            centre = self._signals.centre_s(everyone) * c.slower * figures.throttling
            counts = rng.multinomial(rows[k], _shares(latency_shares(centre)))
            latency.append(_trimmed(counts))
            outputs[k] = rng.multinomial(rows[k], self._mix(middle, mixes))
        return Grid(
            self._start, self._until, self._starts, self._ends, self._beat_s, rows, errors, latency, outputs
        )

    def _mix(self, t: float, known: dict[int, F64]) -> F64:
        """Shares of the answers, estimated now and then, in between interpolated."""
        place = t / MIX_EVERY_S
        low = math.floor(place)
        for k in (low, low + 1):
            if k not in known:
                known[k] = self._signals.expected_outputs(k * MIX_EVERY_S, self._everyone, k & 0xFFFFFF)
        return _shares(known[low] + (known[low + 1] - known[low]) * (place - low))

    # ------------------------------------------------------------ messages

    def messages(self, tell: Callable[[float], None]) -> list[tuple[float, bytes, bytes]]:
        """All of them, in the order of their arrival."""
        lives, conditions = self._lives()
        tell(0.1)
        grid = self._counts(lives, conditions)
        tell(0.4)
        vitals = self._vitals(conditions)
        found: list[tuple[float, bytes, bytes]] = []
        for i, life in enumerate(lives):
            found += DeviceHistory(self._p, i, life, grid, vitals[:, i].tolist()).messages()
            if i % 50 == 49:
                tell(0.4 + 0.45 * (i + 1) / self._p.n)
        found.sort(key=itemgetter(0))
        return found

    def _vitals(self, conditions: list[Conditions]) -> npt.NDArray[np.float64]:
        """(beats, devices, figures): at the moments of the common grid; a device's own beats lie beside it."""
        moments = np.arange(self._start, self._until, self._beat_s)
        place = np.clip(np.searchsorted(self._ends, moments), 0, len(conditions) - 1)
        table = np.empty((len(moments), self._p.n, 5))
        for k, t in enumerate(moments):
            f = self._world.figures(float(t), self._everyone, conditions[place[k]], self._rng)
            table[k] = np.stack([f.cpu, f.memory, f.disk, f.temperature, f.clock_offset_s], axis=1)
        return table


def _shares(values: F64) -> F64:
    """Fit for ``multinomial``: not negative, adding up to a little less than one at most."""
    values = np.maximum(values, 0.0)
    total: F64 = values / (values.sum(axis=-1, keepdims=True) * (1.0 + 1e-12))
    return total


def _trimmed(counts: I64) -> list[list[int]]:
    """Each row without the zeros at its end, as it travels."""
    ends = counts.shape[1] - np.argmax(counts[:, ::-1] > 0, axis=1)
    ends[counts.sum(axis=1) == 0] = 0
    return [row[:end] for row, end in zip(counts.tolist(), ends.tolist(), strict=True)]
