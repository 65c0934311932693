"""Classifiers trained on scikit-learn's digits, as ONNX: real weights on real data, seconds to train.

The convolutional one learns its filters as principal components of image patches (two layers of them) and its
last layer by logistic regression: no deep-learning framework is needed to have convolutions that mean something.
"""

from __future__ import annotations

import functools

import numpy as np

from tests.bench.zoo import Net

TRAIN = 1200


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(3).permutation(len(data.target))
    return (data.data[order] / 16).astype(np.float32), data.target[order].astype(np.int64)


def held_back() -> tuple[np.ndarray, np.ndarray]:
    x, y = digits()
    return x[TRAIN:], y[TRAIN:]


@functools.cache
def mlp() -> tuple[bytes, np.ndarray]:
    """The model, and the rows it was trained on, shaped like its input."""
    import warnings

    from sklearn.neural_network import MLPClassifier

    x, y = digits()
    model = MLPClassifier((128, 64), max_iter=60, learning_rate_init=3e-3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it could have learned longer
        model.fit(x[:TRAIN], y[:TRAIN])
    n = Net("digits_mlp")
    value = n.input("x", (1, 64))
    for i, (w, b) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        value = n.node("Gemm", value, n.weight(w.astype(np.float32)), n.weight(b.astype(np.float32), "b"))
        value = n.node("Relu" if i < len(model.coefs_) - 1 else "Softmax", value)
    n.output(value)
    return n.finish(), x[:TRAIN]


def _patches(images: np.ndarray) -> np.ndarray:
    """Every 3×3 patch of padded images [n, c, h, w] → [n, h, w, c·9]."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    view = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    n, c, h, w = images.shape
    return view.transpose(0, 2, 3, 1, 4, 5).reshape(n, h, w, c * 9)


def _filters(images: np.ndarray, count: int) -> np.ndarray:
    """Principal components of patches and their negatives: [count, c, 3, 3]."""
    rows = _patches(images).reshape(-1, images.shape[1] * 9)
    rows = rows[np.random.default_rng(0).permutation(len(rows))[:20000]]
    _, _, vectors = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    half = vectors[: -(-count // 2)]
    return np.concatenate([half, -half])[:count].reshape(count, images.shape[1], 3, 3).astype(np.float32)


def _layer(images: np.ndarray, filters: np.ndarray) -> np.ndarray:
    made = _patches(images) @ filters.reshape(len(filters), -1).T
    made = np.maximum(made, 0).transpose(0, 3, 1, 2)
    n, c, h, w = made.shape
    return made.reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))


@functools.cache
def cnn() -> tuple[bytes, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    x, y = digits()
    images = x.reshape(-1, 1, 8, 8)
    first = _filters(images[:TRAIN], 16)
    middle = _layer(images, first)
    second = _filters(middle[:TRAIN], 64)
    features = _layer(middle, second).reshape(len(x), -1)
    last = LogisticRegression(C=0.3, max_iter=400).fit(features[:TRAIN], y[:TRAIN])
    n = Net("digits_cnn")
    value = n.input("x", (1, 1, 8, 8))
    for filters in (first, second):
        value = n.node("Conv", value, n.weight(filters), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        value = n.node("MaxPool", n.node("Relu", value), kernel_shape=[2, 2], strides=[2, 2])
    value = n.node("Flatten", value, axis=1)
    w, b = last.coef_.T.astype(np.float32), last.intercept_.astype(np.float32)
    n.output(n.node("Softmax", n.node("Gemm", value, n.weight(w), n.weight(b, "b")), axis=1))
    return n.finish(), images[:TRAIN]
