"""How simulated devices fare: processor, memory, disk, temperature, clock, from their load, site and hardware.

A pure function of device and moment (plus what faults do), with a little noise where a generator is given. So the
recorded past and the live present of a device join.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleet_sim.world.conditions import Conditions
from fleet_sim.world.hardware import HARDWARE, SITES
from fleet_sim.world.signals import DAY_S, Signals

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
LOG_ROTATION_DAYS = 28.0
HALL_C = 21.0
THROTTLE_PER_C = 0.04  # how much slower a processor is for each degree above its limit


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """Columns over the devices that were asked for."""

    cpu: F64
    memory: F64
    disk: F64
    temperature: F64
    clock_offset_s: F64
    throttling: F64  # factor on latencies, 1 unless too hot


class Weather:
    """Temperatures of the sites."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 31])
        self._mean = np.array([s.mean_temperature for s in SITES])
        self._swing = np.array([s.swing for s in SITES]) / 2.0
        self._periods = rng.uniform(2.0, 12.0, (len(SITES), 4)) * DAY_S
        self._phases = rng.uniform(0.0, 2 * math.pi, (len(SITES), 4))
        self._longitude_s = np.array([s.longitude for s in SITES]) / 15.0 * 3600.0

    def outside(self, t: float) -> F64:
        """°C at each site."""
        year = -8.0 * math.cos(2 * math.pi * (t / DAY_S - 20.0) / 365.25)
        hour = (t + self._longitude_s) % DAY_S / 3600.0
        day = self._swing * np.sin(2 * math.pi * (hour - 9.0) / 24.0)
        fronts = 1.8 * np.sin(2 * math.pi * t / self._periods + self._phases).sum(axis=1)
        total: F64 = self._mean + year + day + fronts
        return total


class World:
    """The vital figures of one population."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._weather = Weather(signals.population.seed)
        hardware = signals.population.hardware
        self._idle = np.array([h.idle_cpu for h in HARDWARE])[hardware]
        self._cores = np.array([h.cores for h in HARDWARE], dtype=np.float64)[hardware]
        self._warmth = np.array([h.warmth for h in HARDWARE])[hardware]
        self._heat = np.array([h.heat for h in HARDWARE])[hardware]
        self._limit = np.array([h.throttles_at for h in HARDWARE])[hardware]

    def figures(
        self, t: float, devices: I64, conditions: Conditions, rng: np.random.Generator | None = None
    ) -> Figures:
        p = self._signals.population
        n = len(devices)
        phase = p.phase[devices]
        activity = self._signals.activity(t, devices)
        # The inferences themselves, and what the application around them does.
        inference = p.rows_per_s[devices] * activity * self._signals.centre_s(devices) * conditions.slower[devices]
        around = (0.08 + 0.25 * phase[:, 2]) * activity
        slow = 0.03 * np.sin(2 * math.pi * (t / (7.7 * 3600.0) + phase[:, 3]))
        cpu = self._idle[devices] + inference / self._cores[devices] + around + slow
        memory = p.base_memory[devices] + 0.03 * np.sin(2 * math.pi * (t / (2.6 * DAY_S) + phase[:, 1]))
        age_days = (t / DAY_S + phase[:, 2] * LOG_ROTATION_DAYS) % LOG_ROTATION_DAYS
        disk = p.base_disk[devices] + p.disk_per_day[devices] * age_days
        clock = p.clock_error_s[devices] + conditions.clock_s[devices]
        if rng is not None:
            cpu = cpu + 0.02 * rng.standard_normal(n)
            memory = memory + 0.004 * rng.standard_normal(n)
            clock = clock + 0.004 * rng.standard_normal(n)
        cpu = np.clip(cpu, 0.01, 1.0)
        outside = self._weather.outside(t)[p.site[devices]]
        surroundings = HALL_C + (outside - HALL_C) * p.indoors[devices] + 3.0 * (phase[:, 0] - 0.5)
        temperature = surroundings + self._warmth[devices] + self._heat[devices] * cpu
        temperature += conditions.hotter[devices]
        if rng is not None:
            temperature += 0.3 * rng.standard_normal(n)
        return Figures(
            cpu=cpu,
            memory=np.clip(memory, 0.02, 0.99),
            disk=np.clip(np.maximum(disk, conditions.disk[devices]), 0.0, 1.0),
            temperature=temperature,
            clock_offset_s=clock,
            throttling=1.0 + THROTTLE_PER_C * np.maximum(temperature - self._limit[devices], 0.0),
        )
