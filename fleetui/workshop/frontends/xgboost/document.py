"""From an XGBoost document (parsed JSON or UBJSON) to an ensemble, or to the weights of a linear model.

Follows the files of versions 1.0 to 3.x. ``base_score`` is in the space of the predictions and may be one number or
one for each output; it is the margin that sums begin with.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fleetui.workshop.errors import ModelError, UnsupportedError
from fleetui.workshop.graph.ir import Array
from fleetui.workshop.trees.ensemble import OUTPUTS, Category, Ensemble, Post, Transform, ceiling, make

EXPORT = "Save it again with Booster.save_model"
IDENTITY = frozenset(
    {
        "reg:squarederror", "reg:linear", "reg:absoluteerror", "reg:quantileerror", "reg:pseudohubererror",
        "reg:squaredlogerror", "reg:expectileerror", "rank:pairwise", "rank:ndcg", "rank:map", "binary:logitraw",
        "binary:hinge", "multi:softmax", "multi:softprob",
    }
)  # fmt: skip
LOGIT = frozenset({"reg:logistic", "binary:logistic"})
LOG = frozenset({"count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft"})
KNOWN = IDENTITY | LOGIT | LOG
FEATURES = 1 << 24


@dataclass(slots=True)
class Linear:
    """gblinear: margin = x·weights + bias, missing features adding nothing."""

    weights: Array
    bias: Array
    posts: tuple[Post, ...]


@dataclass(slots=True)
class Booster:
    features: int
    outputs: int
    objective: str
    kind: str
    model: Ensemble | Linear
    version: str
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def broken(what: str) -> ModelError:
    return ModelError(f"The XGBoost model does not hold together: {what}", EXPORT)


def load(document: Any) -> Booster:
    learner = _get(document, "learner", dict)
    sizes = _get(learner, "learner_model_param", dict)
    features = _int(sizes, "num_feature")
    classes, targets = _int(sizes, "num_class", 0), _int(sizes, "num_target", 1)
    ceiling("features", features, FEATURES)
    outputs = max(1, classes, targets)
    ceiling("outputs", outputs, OUTPUTS)
    objective = str(_get(_get(learner, "objective", dict), "name", str))
    if objective not in KNOWN:
        raise UnsupportedError(
            f"The objective {objective!r} is not one we know how to turn into predictions",
            "Train with a built-in objective, or with one of the same form",
            operator=objective,
        )
    base = margins(sizes.get("base_score", "0.5"), objective, outputs)
    booster = _get(learner, "gradient_booster", dict)
    kind = str(_get(booster, "name", str))
    posts = (_post(objective, outputs),)
    version = ".".join(str(int(part)) for part in document.get("version", [])[:3])
    flat = outputs == 1
    model: Ensemble | Linear
    if kind == "gblinear":
        model = _linear(_get(booster, "model", dict), features, outputs, base, posts)
    elif kind in {"gbtree", "dart"}:
        inner = _get(_get(booster, "gbtree", dict) if kind == "dart" else booster, "model", dict)
        weights = _floats(booster, "weight_drop") if kind == "dart" else None
        model = _forest(inner, weights, features, outputs, base, posts, flat)
    else:
        raise UnsupportedError(f"The booster {kind!r} is not one we know", "Use gbtree, dart or gblinear")
    found = Booster(features, outputs, objective, kind, model, version)
    found.details = {"objective": objective, "booster": kind, "xgboost": version}
    return found


# ---------------------------------------------------------------- pieces of the document


def _get(where: Any, key: str, kind: type) -> Any:
    found = where.get(key) if isinstance(where, Mapping) else None
    if not isinstance(found, kind):
        raise broken(f"it has no {key}")
    return found


def _int(where: Mapping[str, Any], key: str, default: int | None = None) -> int:
    found: Any = where.get(key, default)
    try:
        return int(found)
    except (TypeError, ValueError, OverflowError):
        raise broken(f"{key} is not a whole number") from None


def _array(where: Mapping[str, Any], key: str, kind: Any) -> Array:
    found = where.get(key)
    if not isinstance(found, (list, np.ndarray)):
        raise broken(f"{key} is missing")
    try:
        array = np.asarray(found)
    except (TypeError, ValueError, OverflowError):
        raise broken(f"{key} is not a list of numbers") from None
    if array.size == 0:
        return np.zeros(0, kind)
    allowed = "iub" if np.dtype(kind).kind == "i" else "iufb"
    if array.ndim != 1 or array.dtype.kind not in allowed:
        raise broken(f"{key} is not a list of numbers")
    with np.errstate(over="ignore"):
        return array.astype(kind)


def _ints(where: Mapping[str, Any], key: str) -> Array:
    return _array(where, key, np.int64)


def _floats(where: Mapping[str, Any], key: str) -> Array:
    return _array(where, key, np.float32)


# ---------------------------------------------------------------- base score and objective


def margins(text: Any, objective: str, outputs: int) -> Array:
    """The base score as margins: logarithms in float32, as XGBoost takes them."""
    try:
        given = json.loads(text) if isinstance(text, str) else text
        numbers = [float(v) for v in given] if isinstance(given, (list, np.ndarray)) else [float(given)]
    except (TypeError, ValueError, RecursionError):
        raise broken("base_score is not a number") from None
    if len(numbers) not in {1, outputs}:
        raise broken(f"it has {len(numbers)} base scores for {outputs} outputs")
    found = np.array(numbers, np.float32)
    if not np.isfinite(found).all():
        raise broken("base_score is not a finite number")
    return np.resize(np.array([_margin(score, objective) for score in found], np.float32), outputs)


def _margin(score: np.float32, objective: str) -> float:
    if objective in LOGIT:
        if not 0 < score < 1:
            raise broken("base_score of a logistic objective is not between 0 and 1")
        return -math.log(float(np.float32(1) / score - np.float32(1)))
    if objective in LOG:
        if score <= 0:
            raise broken("base_score of a logarithmic objective is not positive")
        return math.log(float(score))
    return float(score)


def _post(objective: str, outputs: int) -> Post:
    if objective in {"reg:logistic", "binary:logistic"}:
        return Post(Transform.SIGMOID, flat=outputs == 1)
    if objective in LOG:
        return Post(Transform.EXP, flat=outputs == 1)
    if objective == "multi:softprob":
        return Post(Transform.SOFTMAX)
    if objective == "multi:softmax":
        return Post(Transform.ARGMAX, labels=tuple(float(k) for k in range(max(2, outputs))))
    if objective == "binary:hinge" and outputs == 1:
        return Post(Transform.ABOVE, a=0.0, labels=(0.0, 1.0))
    return Post(Transform.AFFINE, flat=outputs == 1)


# ---------------------------------------------------------------- boosters


def _linear(model: Mapping[str, Any], features: int, outputs: int, base: Array, posts: tuple[Post, ...]) -> Linear:
    weights = _floats(model, "weights")
    if weights.size != (features + 1) * outputs:
        raise broken(f"it has {weights.size} weights for {features} features and {outputs} outputs")
    table = weights.reshape(features + 1, outputs)
    # Of several base scores its linear booster takes the first one for all outputs.
    return Linear(np.ascontiguousarray(table[:-1]), table[-1] + base[0], posts)


def _forest(
    model: Mapping[str, Any], weights: Array | None, features: int, outputs: int, base: Array,
    posts: tuple[Post, ...], flat: bool,
) -> Ensemble:  # fmt: skip
    trees: Sequence[Any] = _get(model, "trees", list)
    column = _ints(model, "tree_info")
    if len(column) != len(trees) or (weights is not None and len(weights) != len(trees)):
        raise broken(f"it has {len(trees)} trees, but says it has {len(column)}")
    grown = _Grown(features, outputs)
    for index, tree in enumerate(trees):
        grown.add(tree, None if weights is None else weights[index])
    vectors = grown.vectors
    return make(
        features=features, outputs=outputs, roots=np.array(grown.roots, np.int64), **grown.nodes(),
        column=np.zeros_like(column) if vectors else column, base=base, base_first=True, flat=flat, posts=posts,
        sets=tuple(grown.sets), category=Category.FLOOR,
    )  # fmt: skip


class _Grown:
    """Trees after each other in flat arrays."""

    def __init__(self, features: int, outputs: int) -> None:
        self.features = features
        self.outputs = outputs
        self.roots: list[int] = []
        self.sets: list[Array] = []
        self.parts: list[dict[str, Array]] = []
        self.count = 0
        self.leaves = 0
        self.vectors: bool | None = None

    def add(self, tree: Any, weight: Any) -> None:
        left = _ints(tree, "left_children")
        count = len(left)
        if count == 0 or _int(_get(tree, "tree_param", dict), "num_nodes", count) != count:
            raise broken("a tree has another number of nodes than it says")
        right, feature = _ints(tree, "right_children"), _ints(tree, "split_indices")
        threshold, default = _floats(tree, "split_conditions"), _ints(tree, "default_left")
        if not len(right) == len(feature) == len(threshold) == len(default) == count:
            raise broken("the parts of a tree have different lengths")
        leaf = left < 0
        values, row = self._values(tree, leaf, right, threshold)
        if weight is not None:
            values = values * weight
        members = np.full(count, -1)
        nodes, sets = self._categories(tree, count)
        members[nodes] = len(self.sets) + np.arange(len(nodes))
        self.sets += sets
        self.roots.append(self.count)
        offset = self.count
        self.parts.append(
            {
                "feature": np.where(leaf, -1, feature), "threshold": threshold, "strict": np.ones(count, bool),
                "left": np.where(leaf, 0, left + offset), "right": np.where(leaf, 0, right + offset),
                "missing": np.zeros(count, np.int64), "default_left": default != 0,
                "leaf": np.where(leaf, row + self.leaves, -1), "values": values, "members": members,
                "inside_left": np.zeros(count, bool),
            }
        )  # fmt: skip
        if ((feature[~leaf] < 0) | (feature[~leaf] >= self.features)).any():
            raise broken(f"a node asks for a feature beyond the {self.features} there are")
        self.count += count
        self.leaves += len(values)

    def _values(self, tree: Mapping[str, Any], leaf: Array, right: Array, threshold: Array) -> tuple[Array, Array]:
        """The leaves' values, and for each node which row of them is its own."""
        width = _int(_get(tree, "tree_param", dict), "size_leaf_vector", 1)
        vectors = width > 1
        if self.vectors is not None and self.vectors != vectors:
            raise broken("some of its trees have vectors as leaves and others do not")
        self.vectors = vectors
        if not vectors:
            return threshold[leaf][:, None], np.cumsum(leaf) - 1
        if width != self.outputs:
            raise broken(f"its leaves have {width} numbers for {self.outputs} outputs")
        if "leaf_weights" in tree:
            values = _floats(tree, "leaf_weights")
            row = np.where(leaf, right, 0)
        else:
            values = _floats(tree, "base_weights")
            row = np.arange(len(leaf))
        if values.size % width or (row[leaf] < 0).any() or (row[leaf] >= values.size // width).any():
            raise broken("its leaves' vectors do not match its leaves")
        return values.reshape(-1, width), row

    def _categories(self, tree: Mapping[str, Any], count: int) -> tuple[Array, list[Array]]:
        kinds = _ints(tree, "split_type") if "split_type" in tree else np.zeros(count, np.int64)
        if not kinds.any():
            return np.zeros(0, np.int64), []
        nodes, starts = _ints(tree, "categories_nodes"), _ints(tree, "categories_segments")
        sizes, flat = _ints(tree, "categories_sizes"), _ints(tree, "categories")
        if not len(nodes) == len(starts) == len(sizes) or ((nodes < 0) | (nodes >= count)).any():
            raise broken("its categories do not match its nodes")
        if set(nodes.tolist()) != set(np.flatnonzero(kinds == 1).tolist()):
            raise broken("its categories do not match its nodes")
        if ((starts < 0) | (sizes < 0) | (starts + sizes > len(flat))).any():
            raise broken("a node's categories lie outside of the list")
        return nodes, [bits(flat[s : s + n]) for s, n in zip(starts, sizes, strict=True)]

    def nodes(self) -> dict[str, Array]:
        if not self.parts:
            empty: dict[str, Array] = {
                name: np.zeros(0, np.int64)
                for name in ("feature", "threshold", "strict", "left", "right", "missing", "default_left", "leaf")
            }
            return {**empty, "values": np.zeros((0, 1), np.float32)}
        joined = {name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]}
        joined["values"] = np.ascontiguousarray(joined["values"], np.float32)
        return joined


def bits(categories: Array) -> Array:
    """A set of categories as words of 32 bits."""
    if categories.size == 0:
        return np.zeros(0, np.uint32)
    if categories.min() < 0:
        raise broken("a category is negative")
    ceiling("categories", int(categories.max()) + 1, 1 << 24)
    marks = np.zeros((int(categories.max()) // 32 + 1) * 32, bool)
    marks[categories] = True
    return np.packbits(marks, bitorder="little").view(np.uint32)
