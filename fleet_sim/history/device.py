"""The recorded messages of one device, from its life and the counts of all: in the order of their arrival.

Reports get their boot and number when they arrive, as the agent gives them when it sends.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from fleet_sim.world.applications import APPLICATIONS
from fleet_sim.world.population import Population
from fleetui.common.link import codec
from fleetui.common.link.messages import Beat, Birth, Event, Gone, Running, UpMessage, Window
from fleetui.common.link.topics import Topics, Up

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
WILL_DELAY_S = 2.0


@dataclass(slots=True)
class Life:
    """One device's past: when it started, and when it could not be reached."""

    boots: list[float] = field(default_factory=list)
    off: list[tuple[float, float]] = field(default_factory=list)  # without power
    cut: list[tuple[float, float]] = field(default_factory=list)  # without connection, or off


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The windows of all devices: arrays of (windows, devices, …)."""

    start: float
    until: float
    starts: F64
    ends: F64
    beat_s: float
    rows: I64
    errors: I64
    latency: list[list[list[int]]]
    outputs: I64


# (when it arrives, rank among those of one moment, kind, builder, what the builder is told)
_Plan = tuple[float, int, Up, Callable[[int, str, int], UpMessage], int]


class DeviceHistory:
    """See the module's docstring. ``vitals`` are the device's five figures at each beat."""

    def __init__(self, population: Population, i: int, life: Life, grid: Grid, vitals: list[list[float]]) -> None:
        self._population = population
        self._i = i
        self._life = life
        self._grid = grid
        self._vitals = vitals
        self._id = population.ids[i]
        self._models: list[Running] = [population.running(i)]
        self._config = population.config(i, beat_s=grid.beat_s, window_s=1.0)
        self._boot_ids = [population.boot(i, k, "past") for k in range(len(life.boots))]
        self._cut_from = np.array([since for since, _ in life.cut])
        self._cut_to = np.array([back for _, back in life.cut])
        self._births: list[float] = []
        topics = Topics(population.fleet)
        self._topics = {kind: topics.up(self._id, kind).encode() for kind in Up}
        self._plan_windows()
        self._plan_beats()

    def messages(self) -> list[tuple[float, bytes, bytes]]:
        plans = [*self._introductions(), *self._windows(), *self._beats()]
        plans.sort(key=itemgetter(0, 1))
        seqs = [0] * len(self._boot_ids)
        boots, ids, topics = self._life.boots, self._boot_ids, self._topics
        found = []
        for at, _, kind, build, k in plans:
            boot = bisect.bisect_right(boots, at) - 1
            if boot < 0:
                continue
            found.append((at, topics[kind], codec.encode(build(k, ids[boot], seqs[boot]))))
            seqs[boot] += kind is not Up.GONE  # a will has no number
        return found

    def _delivered(self, moments: F64) -> F64:
        """When what was said at these moments arrived: at once, or when the connection was back."""
        if not len(self._cut_from):
            return moments
        k = np.searchsorted(self._cut_from, moments, side="right") - 1
        back = self._cut_to[np.maximum(k, 0)]
        return np.where((k >= 0) & (moments < back), back, moments)

    # ------------------------------------------------------------ births, starts, wills

    def _introductions(self) -> list[_Plan]:
        start, until = self._grid.start, self._grid.until
        boots = np.array([boot for boot in self._life.boots if boot > start])
        arrived = self._delivered(boots)
        births = {back for _, back in self._life.cut if back < until}
        births.update(boots[arrived <= boots].tolist())
        if float(self._delivered(np.array([start]))[0]) <= start:
            births.add(start)
        self._births = sorted(births)
        plans: list[_Plan] = [(at, 0, Up.BIRTH, self._birth, k) for k, at in enumerate(self._births)]
        first = len(self._life.boots) - len(boots)
        plans += [
            (at, 1, Up.EVENT, self._started, first + k) for k, at in enumerate(arrived.tolist()) if at < until
        ]
        plans += [
            (since + WILL_DELAY_S, 4, Up.GONE, self._gone, k)
            for k, (since, _) in enumerate(self._life.cut)
            if start < since and since + WILL_DELAY_S < until and since >= self._life.boots[0]
        ]
        return plans

    def _birth(self, k: int, boot: str, seq: int) -> Birth:
        config = self._config
        return Birth(
            device=self._id,
            boot=boot,
            seq=seq,
            at=self._births[k],
            agent=config.agent,
            target=config.target,
            site=config.site,
            firmware=config.firmware,
            name=config.name,
            cores=config.cores,
            memory_bytes=config.memory_bytes,
            disk_bytes=config.disk_bytes,
            tags=dict(config.tags),
            models=self._models,
        )

    def _started(self, k: int, boot: str, seq: int) -> Event:
        text = f"Started after power-on, agent {self._config.agent}, firmware {self._config.firmware}."
        at = self._life.boots[k]
        return Event(device=self._id, boot=boot, seq=seq, at=at, kind="boot", codes=["power-on"], text=text)

    def _gone(self, k: int, _boot: str, _seq: int) -> Gone:
        since = self._life.cut[k][0]
        boot = bisect.bisect_right(self._life.boots, since) - 1
        return Gone(device=self._id, boot=self._boot_ids[boot])

    # ------------------------------------------------------------ windows

    def _plan_windows(self) -> None:
        grid = self._grid
        starts, ends = grid.starts, grid.ends
        since = starts.copy()
        whole = np.ones(len(ends), np.bool_)
        for off, back in self._life.off:
            # What the power cut ended is lost with it; what began with the power counts from there.
            whole &= (ends <= off) | (ends > back)
            since = np.where((starts < back) & (back < ends), back, since)
        classes = len(APPLICATIONS[self._population.application[self._i]].classes)
        self._since, self._ends = since.tolist(), ends.tolist()
        self._rows = grid.rows[:, self._i].tolist()
        self._errors = grid.errors[:, self._i].tolist()
        self._outputs = grid.outputs[:, self._i, :classes].tolist()
        self._arrived = self._delivered(ends)
        self._kept = np.flatnonzero(whole & (self._arrived <= grid.until)).tolist()

    def _windows(self) -> list[_Plan]:
        arrived = self._arrived.tolist()
        return [(arrived[k], 2, Up.WIN, self._window, k) for k in self._kept]

    def _window(self, k: int, boot: str, seq: int) -> Window:
        running = self._models[0]
        return Window(
            device=self._id,
            boot=boot,
            seq=seq,
            at=self._ends[k],
            handle=running.handle,
            variant=running.variant,
            version=running.version,
            start=self._since[k],
            length_s=self._ends[k] - self._since[k],
            rows=self._rows[k],
            errors=self._errors[k],
            latency=self._grid.latency[k][self._i],
            outputs=self._outputs[k],
        )

    # ------------------------------------------------------------ beats

    def _plan_beats(self) -> None:
        grid, boots = self._grid, np.array(self._life.boots or [math.inf])
        phase = float(self._population.phase[self._i, 3]) * grid.beat_s
        moments = np.arange(grid.start, grid.until, grid.beat_s) + phase
        boot = np.searchsorted(boots, moments, side="right") - 1
        here = (self._delivered(moments) <= moments) & (moments < grid.until) & (boot >= 0)
        boot = np.maximum(boot, 0)
        edges = np.concatenate([[grid.starts[0]], grid.ends])
        self._beat_rows = self._since_boot(edges, grid.rows[:, self._i], moments, boots, boot)
        self._beat_errors = self._since_boot(edges, grid.errors[:, self._i], moments, boots, boot)
        self._moments = moments.tolist()
        self._uptime = (moments - boots[boot]).tolist()
        self._beats_kept = np.flatnonzero(here).tolist()

    @staticmethod
    def _since_boot(edges: F64, counts: I64, moments: F64, boots: F64, boot: I64) -> list[int]:
        """What had been counted since the start; a start before this past was at the same rate."""
        sums = np.concatenate([[0.0], np.cumsum(counts)])
        per_s = float(sums[-1] / max(edges[-1] - edges[0], 1.0))
        before = np.where(boots < edges[0], (boots - edges[0]) * per_s, np.interp(boots, edges, sums))
        total = np.floor(np.interp(moments, edges, sums) - before[boot])
        found: list[int] = np.maximum(total, 0.0).astype(np.int64).tolist()
        return found

    def _beats(self) -> list[_Plan]:
        moments = self._moments
        return [(moments[k], 3, Up.BEAT, self._beat, k) for k in self._beats_kept]

    def _beat(self, k: int, boot: str, seq: int) -> Beat:
        cpu, memory, disk, temperature, offset = self._vitals[k]
        return Beat(
            device=self._id,
            boot=boot,
            seq=seq,
            at=self._moments[k],
            uptime_s=self._uptime[k],
            cpu=cpu,
            memory=memory,
            disk=disk,
            temperature=temperature,
            clock_offset_s=offset,
            rows=self._beat_rows[k],
            errors=self._beat_errors[k],
            models=self._models,
        )
