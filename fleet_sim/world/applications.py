"""What the simulated devices are used for: an input stream with a truth in it, and a model that has learnt it.

Each application draws, row by row, a true class from its priors and eight features around that class's mean;
the model is a small perceptron of the agent's own (:class:`~fleet_sim.agent.model.Mlp`) whose last layer is
fitted to such rows by least squares. So accuracy, confidence and drift are real, and everything follows from a
seed. An application's models differ from version to version in how much data they have seen.

The arrays are the same for the whole fleet: thousands of devices share one set of weights.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleet_sim.agent.model import Mlp

FEATURES = 8
HIDDEN = 32
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Application:
    """``base_ms``: how long one row takes on the reference core. ``night``: share of the day's work at night."""

    handle: str
    model: str
    share: float
    classes: tuple[str, ...]
    priors: tuple[float, ...]
    features: tuple[str, ...]
    assets: tuple[str, ...]
    base_ms: float
    rows_per_s: float
    night: float
    weekend: float
    separation: float  # of the class means, in standard deviations of a feature


APPLICATIONS: tuple[Application, ...] = (
    Application(
        "vibration",
        "bearing-wear",
        0.5,
        ("sound", "worn", "loose", "failing"),
        (0.87, 0.08, 0.04, 0.01),
        ("rms", "peak", "crest", "kurtosis", "band-1", "band-2", "band-3", "shaft-speed"),
        ("press", "spindle", "pump", "conveyor"),
        0.42,
        0.9,
        0.35,
        0.3,
        1.5,
    ),
    Application(
        "surface",
        "surface-check",
        0.3,
        ("good", "scratch", "dent", "stain", "edge"),
        (0.82, 0.08, 0.04, 0.04, 0.02),
        ("brightness", "contrast", "sharpness", "texture-1", "texture-2", "hue", "saturation", "edges"),
        ("line camera", "gate camera", "inspection arm"),
        3.1,
        0.5,
        0.25,
        0.15,
        1.7,
    ),
    Application(
        "leak",
        "leak-listener",
        0.2,
        ("quiet", "hiss", "knock"),
        (0.93, 0.05, 0.02),
        ("level", "centroid", "flatness", "mel-1", "mel-2", "mel-3", "mel-4", "pressure"),
        ("valve", "compressor"),
        1.2,
        0.35,
        0.8,
        0.9,
        1.6,
    ),
)

# (version, share, rows it was fitted to)
VERSIONS: tuple[tuple[str, float, int], ...] = (("1.4.0", 0.82, 6000), ("1.3.2", 0.18, 400))
MOST_CLASSES = max(len(a.classes) for a in APPLICATIONS)


def class_means(app: int, seed: int) -> F32:
    """(classes, features): where in feature space each true class lies."""
    application = APPLICATIONS[app]
    rng = np.random.default_rng([seed, 11, app])
    means = rng.standard_normal((len(application.classes), FEATURES)) * application.separation
    means[0] = 0.0
    return means.astype(np.float32)


@functools.lru_cache(maxsize=64)
def fitted(app: int, version: int, seed: int) -> Mlp:
    """The model of one application and version."""
    application = APPLICATIONS[app]
    name, _, rows = VERSIONS[version]
    means = class_means(app, seed)
    classes = len(application.classes)
    rng = np.random.default_rng([seed, 12, app, version])
    truth = rng.choice(classes, rows, p=_trained_on(application))
    x = means[truth] + rng.standard_normal((rows, FEATURES)).astype(np.float32)
    w1 = (rng.standard_normal((FEATURES, HIDDEN)) * 0.6).astype(np.float32)
    b1 = rng.standard_normal(HIDDEN).astype(np.float32)
    hidden = np.tanh(x @ w1 + b1)
    # Ridge regression on one-hot classes; the scale makes the softmax about as sure as it is right.
    design = np.concatenate([hidden, np.ones((rows, 1), np.float32)], axis=1).astype(np.float64)
    target = np.eye(classes)[truth] - 1.0 / classes
    gram = design.T @ design + 3.0 * np.eye(HIDDEN + 1)
    solved = (6.0 * np.linalg.solve(gram, design.T @ target)).astype(np.float32)
    return Mlp(application.model, name, "", (w1, b1, solved[:-1], solved[-1]))


def _trained_on(application: Application) -> npt.NDArray[np.float64]:
    """Rare classes are shown more often in training than they occur."""
    priors: npt.NDArray[np.float64] = np.sqrt(np.asarray(application.priors, dtype=np.float64))
    priors /= priors.sum()
    return priors
