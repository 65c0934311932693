"""Runs in the user's own training code: a fitted scikit-learn estimator becomes a JSON file that is safe to open.

``export(estimator, path)`` takes decision trees, random forests, extra trees, gradient boosting, histogram gradient
boosting, isolation forests, linear and logistic models, scalers, imputers, and pipelines of these. Only numbers are
written. scikit-learn itself is not imported: estimators are told by their class names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.workshop.errors import UnsupportedError
from fleetui.workshop.graph.ir import Array
from fleetui.workshop.trees.archive import dump, pack
from fleetui.workshop.trees.ensemble import Ensemble, Post, Transform, make

FORMAT = "fleetui-classical"
VERSION = 1

FORESTS = frozenset({"RandomForest", "ExtraTrees", "DecisionTree", "ExtraTree"})
LINEAR = frozenset(
    {
        "LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "BayesianRidge",
        "HuberRegressor", "SGDRegressor", "LinearSVR", "TheilSenRegressor",
    }
)  # fmt: skip
LINEAR_CLASSES = frozenset(
    {
        "LogisticRegression", "LogisticRegressionCV", "RidgeClassifier", "RidgeClassifierCV", "SGDClassifier",
        "LinearSVC", "Perceptron", "LinearDiscriminantAnalysis",
    }
)  # fmt: skip
Step = dict[str, Any]


def export(estimator: Any, path: Path | str, name: str = "") -> None:
    """Write a fitted estimator, or a pipeline that ends in one, to ``path``."""
    steps = [_step(part) for part in _parts(estimator)]
    features = int(getattr(estimator, "n_features_in_", 0))
    if features < 1:
        raise UnsupportedError("The estimator is not fitted", "Call fit before exporting it")
    write(path, features, steps, name or type(estimator).__name__)


def export_forest(ensemble: Ensemble, path: Path | str, name: str = "forest", output: str = "score") -> None:
    """Write an ensemble of our own making, such as a random-cut forest."""
    outputs = [output, *(f"{output}{index}" for index in range(1, len(ensemble.posts) + 1))]
    step = {"kind": "trees", "ensemble": dump(ensemble), "outputs": outputs, "dtype": "float32"}
    write(path, ensemble.features, [step], name)


def write(path: Path | str, features: int, steps: Sequence[Step], name: str) -> None:
    document = {"format": FORMAT, "version": VERSION, "name": name, "features": features, "steps": list(steps)}
    Path(path).write_text(json.dumps(document), "utf-8")


def _parts(estimator: Any) -> list[Any]:
    if type(estimator).__name__ != "Pipeline":
        return [estimator]
    parts: list[Any] = []
    for _, part in estimator.steps:
        if part is not None and part != "passthrough":
            parts += _parts(part)
    return parts


def _refuse(estimator: Any, what: str = "") -> UnsupportedError:
    name = type(estimator).__name__
    return UnsupportedError(
        f"{name} {what or 'is not one of the estimators we can export'}",
        "Export it to ONNX with skl2onnx (zipmap off), or use a supported estimator",
        operator=name,
    )


def _step(estimator: Any) -> Step:
    name = type(estimator).__name__
    stem = name.removesuffix("Classifier").removesuffix("Regressor")
    if stem in FORESTS:
        return _forest(estimator)
    if stem == "GradientBoosting":
        return _boosted(estimator)
    if stem == "HistGradientBoosting":
        return _histogram(estimator)
    if name == "IsolationForest":
        return _isolation(estimator)
    if name in LINEAR:
        return _linear(estimator, classes=False)
    if name in LINEAR_CLASSES:
        return _linear(estimator, classes=True)
    if name in SCALERS:
        return SCALERS[name](estimator)
    raise _refuse(estimator)


# ---------------------------------------------------------------- steps before the last


def _affine(subtract: Any = None, divide: Any = None, multiply: Any = None, add: Any = None) -> Step:
    parts = {"subtract": subtract, "divide": divide, "multiply": multiply, "add": add}
    made: Step = {"kind": "affine"}
    made |= {key: pack(np.asarray(value, np.float64)) for key, value in parts.items() if value is not None}
    return made


def _minmax(e: Any) -> Step:
    if e.clip:
        raise _refuse(e, "clips, which we do not export")
    return _affine(multiply=e.scale_, add=e.min_)


def _imputer(e: Any) -> Step:
    if not (isinstance(e.missing_values, float) and np.isnan(e.missing_values)) or e.add_indicator:
        raise _refuse(e, "is only exported for NaN, without indicators")
    fill = np.asarray(e.statistics_)
    if fill.dtype.kind not in "fiu" or not np.isfinite(fill.astype(float)).all():
        raise _refuse(e, "drops a column, or fills in what is not a number")
    return {"kind": "impute", "fill": pack(fill.astype(np.float64))}


SCALERS = {
    "StandardScaler": lambda e: _affine(
        subtract=e.mean_ if e.with_mean else None, divide=e.scale_ if e.with_std else None
    ),
    "MinMaxScaler": _minmax,
    "MaxAbsScaler": lambda e: _affine(divide=e.scale_),
    "RobustScaler": lambda e: _affine(
        subtract=e.center_ if e.with_centering else None, divide=e.scale_ if e.with_scaling else None
    ),
    "SimpleImputer": _imputer,
    "Normalizer": lambda e: {"kind": "normalize", "norm": str(e.norm)},
}


# ---------------------------------------------------------------- trees


def _labels(estimator: Any) -> tuple[tuple[float, ...], str, list[str]]:
    """Classes as numbers, their dtype, and their names where they are not numbers (then the numbers are places)."""
    classes = np.asarray(estimator.classes_)
    if classes.ndim != 1:
        raise _refuse(estimator, "has several outputs of classes, which we do not export")
    if classes.dtype.kind in "iub":
        return tuple(int(c) for c in classes), "int64", []
    if classes.dtype.kind == "f" and np.isfinite(classes).all():
        return tuple(float(c) for c in classes), "float64", []
    return tuple(range(len(classes))), "int64", [str(c) for c in classes]


class _Trees:
    """Nodes of scikit-learn's trees after each other."""

    def __init__(self) -> None:
        self.parts: list[dict[str, Array]] = []
        self.roots: list[int] = []
        self.count = 0

    def add(self, tree: Any, values: Array, features: Array | None = None) -> None:
        """``values``: a row for every node, used at the leaves."""
        left, right = np.asarray(tree.children_left), np.asarray(tree.children_right)
        leaf = left < 0
        feature = np.asarray(tree.feature)
        if features is not None:
            feature = np.where(leaf, 0, np.asarray(features)[np.where(leaf, 0, feature)])
        goes = getattr(tree, "missing_go_to_left", None)
        count = len(left)
        self._append(
            count, feature=np.where(leaf, -1, feature), threshold=np.asarray(tree.threshold, np.float64),
            left=np.where(leaf, 0, left + self.count), right=np.where(leaf, 0, right + self.count),
            default_left=np.zeros(count, bool) if goes is None else np.asarray(goes).astype(bool),
            leaf=np.where(leaf, np.arange(count) + self.count, -1), values=values,
        )  # fmt: skip

    def add_histogram(self, nodes: Any) -> None:
        leaf = nodes["is_leaf"].astype(bool)
        count = len(leaf)
        threshold = np.where(leaf, 0.0, nodes["num_threshold"])
        self._append(
            count, feature=np.where(leaf, -1, nodes["feature_idx"].astype(np.int64)), threshold=threshold,
            left=np.where(leaf, 0, nodes["left"].astype(np.int64) + self.count),
            right=np.where(leaf, 0, nodes["right"].astype(np.int64) + self.count),
            default_left=nodes["missing_go_to_left"].astype(bool),
            leaf=np.where(leaf, np.arange(count) + self.count, -1), values=nodes["value"][:, None],
        )  # fmt: skip

    def _append(self, count: int, **part: Array) -> None:
        self.roots.append(self.count)
        self.parts.append(part)
        self.count += count

    def ensemble(self, features: int, outputs: int, **more: Any) -> Ensemble:
        joined: dict[str, Any] = {
            name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]
        }
        used = joined["leaf"] >= 0
        joined["values"] = np.ascontiguousarray(joined["values"][used], np.float64)
        joined["leaf"] = np.where(used, np.cumsum(used) - 1, -1)
        more.setdefault("column", np.zeros(len(self.roots), int))
        more.setdefault("base", np.zeros(outputs))
        return make(
            features=features, outputs=outputs, roots=np.array(self.roots), strict=np.zeros(self.count, bool),
            missing=np.zeros(self.count, int), compare="float64", base_first=True, **joined, **more,
        )  # fmt: skip


def _forest(e: Any) -> Step:
    members = [m.tree_ for m in e.estimators_] if hasattr(e, "estimators_") else [e.tree_]
    trees = _Trees()
    classes = hasattr(e, "classes_")
    outputs = int(members[0].value.shape[2] if classes else members[0].value.shape[1])
    if classes and members[0].value.shape[1] != 1:
        raise _refuse(e, "has several outputs of classes, which we do not export")
    for tree in members:
        values = np.asarray(tree.value, np.float64)
        values = values[:, 0, :] if classes else values[:, :, 0]
        if classes:  # older versions keep counts
            total = values.sum(1, keepdims=True)
            values = np.where(np.isclose(total, 1), values, values / np.where(total == 0, 1, total))
        trees.add(tree, values)
    made: Step = {"kind": "trees", "dtype": "float32"}
    divisor = float(len(members))
    if classes:
        labels, dtype, names = _labels(e)
        if len(labels) == 1:
            raise _refuse(e, "knows one class only")
        posts: tuple[Post, ...] = (Post(Transform.ARGMAX, dtype, labels=labels),)
        made |= {"outputs": ["probabilities", "label"], "classes": names}
    else:
        posts = ()
        made |= {"outputs": ["prediction"]}
    ensemble = trees.ensemble(int(e.n_features_in_), outputs, divisor=divisor, flat=not classes, posts=posts)
    return made | {"ensemble": dump(ensemble)}


def _boosted(e: Any) -> Step:
    initial = e._raw_predict_init(np.zeros((1, e.n_features_in_), np.float32))[0]  # noqa: SLF001 - no public way
    if e.init is not None and e.init != "zero":
        raise _refuse(e, "starts from an estimator of your own")
    trees = _Trees()
    stages, outputs = e.estimators_.shape
    for stage in e.estimators_:
        for member in stage:
            trees.add(member.tree_, np.asarray(member.tree_.value[:, 0, :], np.float64) * e.learning_rate)
    column = np.tile(np.arange(outputs), stages)
    base = np.asarray(initial, np.float64)
    scale = 2.0 if e.loss == "exponential" else 1.0
    return _scored(e, trees, outputs, column, base, scale, "float32", edge=_below(0.0))


def _histogram(e: Any) -> Step:
    if getattr(e, "is_categorical_", None) is not None and np.any(e.is_categorical_):
        raise _refuse(e, "with categorical features is not exported")
    trees = _Trees()
    for stage in e._predictors:  # noqa: SLF001 - no public way
        for member in stage:
            trees.add_histogram(member.nodes)
    outputs = int(e.n_trees_per_iteration_)
    column = np.tile(np.arange(outputs), len(e._predictors))  # noqa: SLF001 - no public way
    base = np.asarray(e._baseline_prediction, np.float64).reshape(-1)  # noqa: SLF001 - no public way
    link = type(e._loss.link).__name__  # noqa: SLF001 - no public way
    return _scored(e, trees, outputs, column, base, 1.0, "float64", link)


def _scored(
    e: Any, trees: _Trees, outputs: int, column: Array, base: Array, scale: float, dtype: str,
    link: str = "IdentityLink", edge: float = 0.0,
) -> Step:  # fmt: skip
    """Raw scores, then what they mean."""
    made: Step = {"kind": "trees", "dtype": dtype}
    posts: tuple[Post, ...]
    if hasattr(e, "classes_"):
        labels, kind, names = _labels(e)
        if outputs == 1:
            posts = (
                Post(Transform.PAIR, "float64", a=scale),
                Post(Transform.ABOVE, kind, a=edge, labels=labels),
            )
        else:
            posts = Post(Transform.SOFTMAX, "float64"), Post(Transform.ARGMAX, kind, labels=labels)
        made |= {"outputs": ["raw", "probabilities", "label"], "classes": names}
    else:
        if link not in {"IdentityLink", "LogLink"}:
            raise _refuse(e, f"has the link {link}, which we do not export")
        posts = (Post(Transform.EXP, "float64", flat=True),) if link == "LogLink" else ()
        made |= {"outputs": ["raw", "prediction"] if posts else ["prediction"]}
    ensemble = trees.ensemble(
        int(e.n_features_in_), outputs, column=column, base=base, flat=outputs == 1, posts=posts
    )
    return made | {"ensemble": dump(ensemble)}


def _below(value: float) -> float:
    """The number just below: to be above it is to be at least ``value``."""
    return float(np.nextafter(value, -np.inf))


def _path(count: Array) -> Array:
    """The mean depth of a row in a random tree over so many rows."""
    n = np.asarray(count, np.float64)
    big = np.where(n > 2, n, 3.0)
    long = 2.0 * (np.log(big - 1.0) + np.euler_gamma) - 2.0 * (big - 1.0) / big
    return np.where(n <= 1, 0.0, np.where(n == 2, 1.0, long))


def _isolation(e: Any) -> Step:
    """Outputs are scikit-learn's: score_samples, decision_function and predict."""
    trees = _Trees()
    for member, features in zip(e.estimators_, e.estimators_features_, strict=True):
        tree = member.tree_
        depth = np.zeros(tree.node_count)
        for node in range(tree.node_count):  # parents come before their children
            if tree.children_left[node] >= 0:
                depth[[tree.children_left[node], tree.children_right[node]]] = depth[node] + 1
        trees.add(tree, (depth + _path(tree.n_node_samples))[:, None], features)
    most = float(len(e.estimators_) * _path(np.array(e.max_samples_)))
    offset = float(e.offset_)
    inlier = -most * float(np.log2(-offset)) if offset < 0 else np.inf
    posts = (
        Post(Transform.HALF_POWER, "float64", a=most, flat=True),
        Post(Transform.HALF_POWER, "float64", a=most, b=offset, flat=True),
        Post(Transform.ABOVE, "int64", a=_below(inlier), labels=(-1, 1)),
    )
    ensemble = trees.ensemble(int(e.n_features_in_), 1, flat=True, posts=posts)
    outputs = ["depth", "score", "decision", "label"]
    return {"kind": "trees", "dtype": "float32", "ensemble": dump(ensemble), "outputs": outputs}


# ---------------------------------------------------------------- linear


def _linear(e: Any, *, classes: bool) -> Step:
    weights = np.atleast_2d(np.asarray(e.coef_, np.float64))
    bias = np.resize(np.asarray(e.intercept_, np.float64).reshape(-1), len(weights))
    made: Step = {"kind": "linear", "weights": pack(weights.T), "bias": pack(bias)}
    if not classes:
        return made | {"link": "flat" if np.ndim(e.coef_) == 1 else "none"}
    labels, dtype, names = _labels(e)
    link = "decision"
    if hasattr(e, "predict_proba"):
        binary = len(weights) == 1
        if getattr(e, "multi_class", "") == "ovr" or type(e).__name__ == "SGDClassifier":
            if not binary:
                raise _refuse(e, "of several classes one against the rest is not exported")
            if getattr(e, "loss", "log_loss") != "log_loss":
                raise _refuse(e, "gives probabilities only with log_loss")
        link = "logistic" if binary else "softmax"
    return made | {"link": link, "labels": list(labels), "label_dtype": dtype, "classes": names}
