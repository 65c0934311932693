"""What an agent runs behind a handle: the interface, and a small perceptron in numpy that implements it.

``predict`` takes rows of float32 features and gives a row of class probabilities for each. It may be called from
one thread at a time, raises ``ModelError`` for input it cannot take, and holds no state between calls.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fleetui.common.link.messages import Running

F32 = npt.NDArray[np.float32]


class ModelError(Exception):
    """An input that was not answered. The text is reported as the device's last error."""


class Model(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def variant(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def features(self) -> int: ...

    @property
    def classes(self) -> int: ...

    def predict(self, batch: F32) -> F32: ...


class Mlp:
    """One hidden layer, tanh, softmax."""

    def __init__(self, name: str, version: str, variant: str, weights: tuple[F32, F32, F32, F32]) -> None:
        w1, b1, w2, b2 = weights
        if w1.shape[1] != b1.shape[0] or w1.shape[1] != w2.shape[0] or w2.shape[1] != b2.shape[0]:
            raise ValueError("the layers do not fit together")
        self.name = name
        self.version = version
        self.variant = variant
        self.weights = weights
        self.digest = hashlib.sha256(b"".join(np.ascontiguousarray(w).tobytes() for w in weights)).hexdigest()

    @classmethod
    def from_seed(
        cls, name: str, version: str, variant: str, *, seed: int, features: int, hidden: int, classes: int
    ) -> Mlp:
        rng = np.random.default_rng(seed)
        w1 = (rng.standard_normal((features, hidden)) / np.sqrt(features)).astype(np.float32)
        b1 = rng.standard_normal(hidden).astype(np.float32)
        w2 = (rng.standard_normal((hidden, classes)) * 2.0 / np.sqrt(hidden)).astype(np.float32)
        b2 = np.zeros(classes, np.float32)
        return cls(name, version, variant, (w1, b1, w2, b2))

    @property
    def features(self) -> int:
        return int(self.weights[0].shape[0])

    @property
    def classes(self) -> int:
        return int(self.weights[2].shape[1])

    def scores(self, batch: F32) -> F32:
        """Before the softmax: enough to know the class."""
        if batch.ndim != 2 or batch.shape[1] != self.features:
            raise ModelError(f"{self.name} takes rows of {self.features} features, not {batch.shape}")
        w1, b1, w2, b2 = self.weights
        hidden: F32 = np.tanh(batch @ w1 + b1)
        scores: F32 = hidden @ w2 + b2
        return scores

    def predict(self, batch: F32) -> F32:
        if not np.isfinite(batch).all():
            raise ModelError(f"{self.name} takes finite numbers only")
        scores = self.scores(batch)
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return scores


def running(model: Model, handle: str) -> Running:
    """How a report names it."""
    return Running(handle, model.name, model.version, model.variant, model.digest)
