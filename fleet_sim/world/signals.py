"""What devices sense, and what their models make of it.

At any moment t (fleet time, UTC) a row's features are::

    class mean + the device's own offset + gain x time of day + site weather + drift + correlated noise

in standard deviations of the noise. Everything but the noise is a pure function of seed, device and t, so a
recorded past and the live present belong together. Rows are really drawn and really inferred
(:meth:`Signals.infer`); for a recorded past there are the expected figures (:meth:`Signals.expected`).

How long a row takes is the application's base time x the device's slowness x ``pace``, which says how this
machine fares just now (``fleet_sim/pace.py``), x a scatter with a tail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleet_sim.world.applications import APPLICATIONS, FEATURES, MOST_CLASSES, class_means, fitted
from fleet_sim.world.conditions import Conditions
from fleet_sim.world.hardware import SITES
from fleet_sim.world.population import Population
from fleetui.common.sketches import latency as bins

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

DAY_S = 86400.0
SCATTER = 0.16  # σ of the logarithm of a latency
TAIL_SHARE = 0.01
TAIL_FACTOR = 4.0
TAIL_SCATTER = 0.5
BASE_ERRORS = 2e-4
CORRELATION = 0.5  # of a row with the one before
LAGS = 6  # after which CORRELATION is forgotten
DAILY = np.array([0.3, 0.3, 0.2, 0.3, 0.3, 0.2, 0.0, 0.0])  # features that follow the time of day
WEATHER_WAVES = 5
# Parts of the scatter about its centre, a few per feature at once: enough to know the mean answer well.
EXPECTATION_ROWS = 24


@dataclass(frozen=True, slots=True, eq=False)
class Inferences:
    """What devices inferred in one go; row k belongs to the k-th device that was asked for."""

    rows: I64
    errors: I64
    latency: npt.NDArray[np.int64]  # (devices, bins)
    outputs: npt.NDArray[np.int64]  # (devices, MOST_CLASSES)


class Signals:
    """The streams of one population. Not shared between threads: the weights are, the draws are not."""

    def __init__(self, population: Population) -> None:
        self.population = population
        seed = population.seed
        sites = len(SITES)
        rng = np.random.default_rng([seed, 21])
        # Slow waves of a day and a half to nine days, a set of their own for each site and feature.
        self._periods = rng.uniform(1.4, 9.0, (sites, FEATURES, WEATHER_WAVES)) * DAY_S
        self._phases = rng.uniform(0.0, 2 * math.pi, (sites, FEATURES, WEATHER_WAVES))
        amplitude = rng.uniform(0.5, 1.0, (sites, FEATURES, WEATHER_WAVES))
        amplitude *= np.array([s.climate for s in SITES])[:, None, None] * math.sqrt(2 / WEATHER_WAVES) / 0.77
        self._amplitude = amplitude
        self._means = np.zeros((len(APPLICATIONS), MOST_CLASSES, FEATURES), np.float32)
        self._priors = np.zeros((len(APPLICATIONS), MOST_CLASSES))
        for app, application in enumerate(APPLICATIONS):
            k = len(application.classes)
            self._means[app, :k] = class_means(app, seed)
            self._priors[app, :k] = application.priors
        self._longitude_s = np.array([s.longitude for s in SITES]) / 15.0 * 3600.0
        self._night = np.array([a.night for a in APPLICATIONS])
        self._weekend = np.array([a.weekend for a in APPLICATIONS])
        self._base_s = np.array([a.base_ms for a in APPLICATIONS]) / 1000.0
        decay = CORRELATION ** np.arange(LAGS + 1)
        self._kernel = (decay / np.sqrt((decay**2).sum())).astype(np.float32)
        self._stuck_at = np.random.default_rng([seed, 22]).standard_normal((len(APPLICATIONS), FEATURES))

    # ------------------------------------------------------------ pure functions of time

    def weather(self, t: float) -> F64:
        """(sites, features), in σ."""
        waves = np.sin(2 * math.pi * t / self._periods + self._phases)
        total: F64 = (self._amplitude * waves).sum(axis=2)
        return total

    def local_hour(self, t: float, devices: I64) -> F64:
        """Solar time of day, 0..24."""
        seconds: F64 = t + self._longitude_s[self.population.site[devices]]
        return seconds % DAY_S / 3600.0

    def activity(self, t: float, devices: I64) -> F64:
        """Share of its full rate at which a device is given work."""
        p = self.population
        app = p.application[devices]
        hour = self.local_hour(t, devices)
        day = 1.0 / (1.0 + np.exp(-(hour - 6.5) * 2.2)) / (1.0 + np.exp((hour - 20.5) * 1.6))
        share = self._night[app] + (1.0 - self._night[app]) * day
        weekday = math.floor(t / DAY_S + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
        if weekday >= 5:
            share = share * self._weekend[app]
        wander: F64 = 1.0 + 0.15 * np.sin(2 * math.pi * (t / (5.3 * 3600.0) + p.phase[devices, 0]))
        return share * wander

    def shift(self, t: float, devices: I64) -> F32:
        """(devices, features): where the features' centre lies at t, without drift."""
        p = self.population
        swing = np.sin(2 * math.pi * (self.local_hour(t, devices) - 9.0) / 24.0) * p.gain[devices]
        weather = self.weather(t)[p.site[devices]]
        total: F32 = (p.offset[devices] + swing[:, None] * DAILY + weather).astype(np.float32)
        return total

    def priors(self, t: float, devices: I64) -> F64:
        """(devices, classes): how often each true class occurs; wear makes the rare ones rise and fall."""
        p = self.population
        priors = self._priors[p.application[devices]]
        slow = 1.0 + 0.25 * np.sin(2 * math.pi * (t / (11.0 * DAY_S) + p.phase[devices, 1]))
        rare = priors[:, 1:] * (p.wear[devices] * slow)[:, None]
        over = np.maximum(rare.sum(axis=1, keepdims=True) / 0.6, 1.0)
        rare /= over
        return np.concatenate([1.0 - rare.sum(axis=1, keepdims=True), rare], axis=1)

    def centre_s(self, devices: I64) -> F64:
        """How long a row takes on each device, in the middle."""
        p = self.population
        return self._base_s[p.application[devices]] * p.slowness[devices]

    # ------------------------------------------------------------ rows that are really inferred

    def infer(
        self,
        t: float,
        devices: I64,
        rows: I64,
        conditions: Conditions,
        rng: np.random.Generator,
        pace: float | F64 = 1.0,
    ) -> Inferences:
        """Draw ``rows[k]`` rows for each device, run its model on them, and count what came of it."""
        n = len(devices)
        most = int(rows.max(initial=0))
        if most == 0:
            return _nothing(n)
        valid = np.arange(most) < rows[:, None]  # (devices, rows)
        features = self._draw(t, devices, most, valid, conditions, rng)
        owner = np.repeat(np.arange(n), rows)
        answers = self._answers(devices, owner, features)
        error_share = np.minimum(BASE_ERRORS + conditions.failing[devices], 1.0)
        failed = rng.random(len(owner)) < error_share[owner]
        durations = self._durations(devices, owner, conditions, rng, pace)
        good = ~failed
        owner_good = owner[good]
        histogram = np.searchsorted(bins.EDGES_S, durations[good], side="right")
        latency = np.bincount(owner_good * bins.BINS + histogram, minlength=n * bins.BINS)
        outputs = np.bincount(owner_good * MOST_CLASSES + answers[good], minlength=n * MOST_CLASSES)
        errors = np.bincount(owner[failed], minlength=n)
        return Inferences(
            rows - errors,
            errors,
            latency.reshape(n, bins.BINS).astype(np.int64, copy=False),
            outputs.reshape(n, MOST_CLASSES).astype(np.int64, copy=False),
        )

    def _draw(
        self,
        t: float,
        devices: I64,
        most: int,
        valid: npt.NDArray[np.bool_],
        conditions: Conditions,
        rng: np.random.Generator,
    ) -> F32:
        n = len(devices)
        app = self.population.application[devices]
        white = rng.standard_normal((n, most + LAGS, FEATURES), dtype=np.float32)
        noise = self._kernel[0] * white[:, LAGS:]
        for lag in range(1, LAGS + 1):
            noise += self._kernel[lag] * white[:, LAGS - lag : most + LAGS - lag]
        edges = np.cumsum(self.priors(t, devices), axis=1)[:, None, :-1]
        truth = (rng.random((n, most))[:, :, None] > edges).sum(axis=2)
        noise += (self.shift(t, devices) + conditions.shift[devices])[:, None, :]
        noise += self._means[app[:, None], truth]
        stuck = conditions.stuck[devices]
        if stuck.any():
            noise = np.where(stuck[:, None, :], self._stuck_at[app][:, None, :].astype(np.float32), noise)
        drawn: F32 = noise[valid]
        return drawn

    def _answers(self, devices: I64, owner: I64, features: F32) -> I64:
        """One matrix product for all devices that share a model."""
        p = self.population
        answers = np.zeros(len(owner), np.int64)
        model = (p.application * 100 + p.version)[devices][owner]
        for code in np.unique(model):
            chosen = model == code
            scores = fitted(int(code) // 100, int(code) % 100, p.seed).scores(features[chosen])
            answers[chosen] = scores.argmax(axis=1)
        return answers

    def _durations(
        self, devices: I64, owner: I64, conditions: Conditions, rng: np.random.Generator, pace: float | F64
    ) -> F64:
        centre = self.centre_s(devices) * conditions.slower[devices] * pace
        exponent = SCATTER * rng.standard_normal(len(owner))
        tail = rng.random(len(owner)) < TAIL_SHARE
        exponent[tail] = math.log(TAIL_FACTOR) + exponent[tail] / SCATTER * TAIL_SCATTER
        return centre[owner] * np.exp(exponent)

    # ------------------------------------------------------------ what is to be expected

    def expected_outputs(self, t: float, devices: I64, seed: int) -> F64:
        """(devices, classes): shares of the answers at t, estimated with a few rows per device."""
        n = len(devices)
        rng = np.random.default_rng([self.population.seed, 23, seed])
        conditions = Conditions.none(self.population.n)
        valid = np.ones((n, EXPECTATION_ROWS), np.bool_)
        features = self._draw(t, devices, EXPECTATION_ROWS, valid, conditions, rng)
        owner = np.repeat(np.arange(n), EXPECTATION_ROWS)
        answers = self._answers(devices, owner, features)
        found = np.bincount(owner * MOST_CLASSES + answers, minlength=n * MOST_CLASSES)
        # A few rows cannot tell how rare the rare ones are: shrink towards the truth.
        shares = (found.reshape(n, MOST_CLASSES) + 8.0 * self.priors(t, devices)) / (EXPECTATION_ROWS + 8.0)
        total: F64 = shares / shares.sum(axis=1, keepdims=True)
        return total


def latency_shares(centres_s: F64) -> F64:
    """(…, bins): how the latencies of a device with this centre spread over the bins of a histogram."""
    edges = np.log(bins.EDGES_S)
    distance = edges - np.log(centres_s)[..., None]
    body = _normal_cdf(distance / SCATTER)
    tail = _normal_cdf((distance - math.log(TAIL_FACTOR)) / TAIL_SCATTER)
    below = (1 - TAIL_SHARE) * body + TAIL_SHARE * tail
    shape = (*below.shape[:-1], bins.BINS)
    shares = np.empty(shape)
    shares[..., 0] = below[..., 0]
    shares[..., 1:-1] = np.diff(below, axis=-1)
    shares[..., -1] = 1.0 - below[..., -1]
    return shares


def _normal_cdf(x: F64) -> F64:
    """Good to 1e-7 (Abramowitz and Stegun 26.2.17); numpy has no error function."""
    k = 1.0 / (1.0 + 0.2316419 * np.abs(x))
    polynomial = k * (0.319381530 + k * (-0.356563782 + k * (1.781477937 + k * (-1.821255978 + k * 1.330274429))))
    upper = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi) * polynomial
    total: F64 = np.where(x >= 0, 1.0 - upper, upper)
    return total


def _nothing(n: int) -> Inferences:
    zero = np.zeros(n, np.int64)
    return Inferences(zero, zero, np.zeros((n, bins.BINS), np.int64), np.zeros((n, MOST_CLASSES), np.int64))
