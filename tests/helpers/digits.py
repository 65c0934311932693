"""A real data set (scikit-learn's digits) and classifiers trained on it, as graphs of ours."""

from __future__ import annotations

import functools

import numpy as np

from fleetui.workshop.graph.build import Builder
from fleetui.workshop.graph.ir import Graph

TRAIN = 1200


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images as 64 floats in 0…1, and their digits; shuffled from a seed."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(3).permutation(len(data.target))
    return (data.data[order] / 16).astype(np.float32), data.target[order].astype(np.int64)


@functools.cache
def trained() -> tuple[list[np.ndarray], list[np.ndarray]]:
    from sklearn.neural_network import MLPClassifier

    x, y = digits()
    model = MLPClassifier(
        (64, 32), max_iter=60, learning_rate_init=5e-3, random_state=0, tol=1e-3, n_iter_no_change=60
    )
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it could have learned longer
        model.fit(x[:TRAIN], y[:TRAIN])
    return [w.astype(np.float32) for w in model.coefs_], [b.astype(np.float32) for b in model.intercepts_]


def classifier(batch: int = 1) -> Graph:
    weights, biases = trained()
    b = Builder("digits")
    value = b.input("x", (batch, 64), "float32")
    for index, (w, c) in enumerate(zip(weights, biases, strict=True)):
        b.source = f"layer {index}"
        value = b.op("dense", value, b.constant(w, "w"), b.constant(c, "b"))
        if index < len(weights) - 1:
            value = b.op("relu", value)
    b.output(b.op("softmax", value, axis=1), "scores")
    return b.finish()


def held_back() -> tuple[np.ndarray, np.ndarray]:
    x, y = digits()
    return x[TRAIN:], y[TRAIN:]


def accuracy(graph: Graph) -> float:
    """Of a graph compiled for batches, by numpy, on rows it has not seen."""
    from fleetui.workshop.graph import ir

    x, y = held_back()
    batch = graph.inputs[0].shape[0]
    rows = len(x) // batch * batch
    found = [ir.run(graph, {"x": x[i : i + batch]})["scores"].argmax(1) for i in range(0, rows, batch)]
    return float(np.mean(np.concatenate(found) == y[:rows]))
