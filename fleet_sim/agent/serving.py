"""Runs a model on a stream of inputs and tells the core what came of it: ``Inferred`` events.

The stream is synthetic until applications are served: correlated noise around a slow wave, from a seed, at a
configured rate. Inference is real, and so are its latencies. Knows no MQTT and no files; used from one thread.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fleet_sim.agent.events import Inferred
from fleet_sim.agent.model import Model, ModelError
from fleetui.common.domain.clock import Clock

F32 = npt.NDArray[np.float32]
CORRELATION = np.float32(0.5)
DAY_S = 86400.0


class SyntheticSource:
    """Rows of ``features`` numbers."""

    def __init__(self, features: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._state = self._rng.standard_normal(features).astype(np.float32)
        self._wave = self._rng.uniform(0.0, 0.5, features).astype(np.float32)

    def rows(self, count: int, now: float) -> F32:
        noise = self._rng.standard_normal((count, len(self._state)), dtype=np.float32)
        rows = np.empty_like(noise)
        fresh = np.sqrt(np.float32(1.0) - CORRELATION * CORRELATION)
        for k in range(count):
            self._state = CORRELATION * self._state + fresh * noise[k]
            rows[k] = self._state
        return rows + self._wave * np.float32(math.sin(2 * math.pi * now / DAY_S))


class Sampler:
    """Feeds one handle. ``due_in`` says when the next batch is."""

    def __init__(
        self, handle: str, model: Model, source: SyntheticSource, clock: Clock, *, rows_per_s: float, batch: int
    ) -> None:
        self._handle = handle
        self._model = model
        self._source = source
        self._clock = clock
        self._batch = batch
        self._interval = batch / rows_per_s if rows_per_s > 0 else math.inf
        self._next = clock.monotonic() + self._interval

    def due_in(self) -> float:
        return max(0.0, self._next - self._clock.monotonic())

    def run(self, now: float) -> Inferred | None:
        """The batch that is due, if one is. What could not be done in time is not made up for."""
        began = self._clock.monotonic()
        if began < self._next:
            return None
        self._next = max(self._next + self._interval, began)
        rows = self._source.rows(self._batch, now)
        began = self._clock.monotonic()
        try:
            answers = self._model.predict(rows)
        except ModelError as error:
            return Inferred(self._handle, np.zeros(0), self._batch, None, str(error))
        took = (self._clock.monotonic() - began) / self._batch
        return Inferred(self._handle, np.full(self._batch, took), 0, answers.argmax(axis=1))
