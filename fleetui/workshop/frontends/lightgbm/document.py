"""From LightGBM's text format (``Booster.save_model``) to an ensemble. Versions 2 to 4 of the format.

Numerical nodes go left if x <= threshold, in float64; categorical ones if the category is in the set. Every node
says what it takes for missing. Linear trees are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from fleetui.workshop.errors import ModelError, UnsupportedError
from fleetui.workshop.graph.ir import Array
from fleetui.workshop.trees.ensemble import (
    CATEGORIES,
    OUTPUTS,
    Category,
    Ensemble,
    Missing,
    Post,
    Transform,
    ceiling,
    make,
)

EXPORT = "Save it again with Booster.save_model"
IDENTITY = frozenset(
    {
        "regression_l2", "regression_l1", "l1", "l2", "huber", "fair", "quantile", "mape", "lambdarank",
        "rank_xendcg", "custom", "none",
    }
)  # fmt: skip
EXP = frozenset({"poisson", "gamma", "tweedie"})
# Bits 2 and 3 of a node's decision type.
MISSING = (Missing.NONE, Missing.ZERO, Missing.NAN)


@dataclass(slots=True)
class Model:
    ensemble: Ensemble
    names: list[str]
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def broken(what: str) -> ModelError:
    return ModelError(f"The LightGBM model does not hold together: {what}", EXPORT)


def load(text: str) -> Model:
    sections = _sections(text)
    head = sections[0]
    features = _int(head, "max_feature_idx") + 1
    ceiling("features", features, 1 << 24)
    per = _int(head, "num_tree_per_iteration", _int(head, "num_class", 1))
    if per < 1:
        raise broken("it has no outputs")
    ceiling("outputs", per, OUTPUTS)
    trees = sections[1:]
    if len(trees) % per:
        raise broken(f"{len(trees)} trees are not a multiple of {per} outputs")
    grown = _Grown(features)
    for index, tree in enumerate(trees):
        grown.add(tree, index)
    objective = head.get("objective", "").split()
    average = "average_output" in head and len(trees) > 0
    ensemble = make(
        features=features, outputs=per, roots=np.array(grown.roots, np.int64), **grown.nodes(),
        column=np.arange(len(trees)) % per, base=np.zeros(per), compare="float64", sets=tuple(grown.sets),
        base_first=True, flat=per == 1, category=Category.TRUNC,
        posts=(replace(_post(objective, per), divisor=float(len(trees) // per) if average else 1.0),),
    )  # fmt: skip
    names = head.get("feature_names", "").split()
    found = Model(ensemble, names if len(names) == features else [])
    found.details = {"objective": " ".join(objective), "version": head.get("version", "")}
    if "\npandas_categorical:" in text and not text.rstrip().endswith(("pandas_categorical:null", ":[]")):
        found.warnings.append(
            "It was trained on a pandas table with categories: give it the categories' codes, as in training"
        )
    return found


def _sections(text: str) -> list[dict[str, str]]:
    """The head, then one for each tree."""
    sections: list[dict[str, str]] = [{}]
    ended = False
    for line in text.splitlines():
        if line.startswith("end of trees"):
            ended = True
            break
        key, _, value = line.partition("=")
        if key == "Tree":
            sections.append({})
        elif key:
            sections[-1][key] = value
    if not ended:
        raise broken("it ends before its trees do")
    return sections


def _int(where: dict[str, str], key: str, default: int | None = None) -> int:
    text = where.get(key)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise broken(f"{key} is not a whole number") from None


def _numbers(where: dict[str, str], key: str, kind: type, count: int) -> Array:
    try:
        found: Array = np.array(where.get(key, "").split(), kind)
    except (ValueError, OverflowError):
        raise broken(f"{key} is not a list of numbers") from None
    if len(found) != count:
        raise broken(f"{key} has {len(found)} numbers where there should be {count}")
    return found


def _post(objective: list[str], outputs: int) -> Post:
    name = objective[0] if objective else "none"
    flat = outputs == 1
    settings = dict(part.split(":", 1) for part in objective[1:] if ":" in part)
    sigmoid = _setting(settings, "sigmoid", 1.0)
    if name == "regression":
        square = "sqrt" in objective[1:]
        return Post(Transform.SIGNED_SQUARE if square else Transform.AFFINE, "float64", flat=flat)
    if name in IDENTITY:
        return Post(Transform.AFFINE, "float64", flat=flat)
    if name in {"binary", "multiclassova"}:
        return Post(Transform.SIGMOID, "float64", a=sigmoid, flat=flat)
    if name == "cross_entropy":
        return Post(Transform.SIGMOID, "float64", flat=flat)
    if name == "cross_entropy_lambda":
        return Post(Transform.LOG1P_EXP, "float64", flat=flat)
    if name in EXP:
        return Post(Transform.EXP, "float64", flat=flat)
    if name == "multiclass":
        return Post(Transform.SOFTMAX, "float64")
    raise UnsupportedError(
        f"The objective {name!r} is not one we know how to turn into predictions", "Use a built-in objective",
        operator=name,
    )  # fmt: skip


def _setting(settings: dict[str, str], key: str, default: float) -> float:
    try:
        found = float(settings.get(key, default))
    except ValueError:
        found = np.nan
    if not np.isfinite(found):
        raise broken(f"{key} is not a number")
    return found


class _Grown:
    """Trees after each other in flat arrays: inner nodes first, then leaves."""

    def __init__(self, features: int) -> None:
        self.features = features
        self.roots: list[int] = []
        self.sets: list[Array] = []
        self.parts: list[dict[str, Array]] = []
        self.count = 0
        self.leaves = 0

    def add(self, tree: dict[str, str], index: int) -> None:
        if _int(tree, "is_linear", 0):
            raise UnsupportedError(
                f"Tree {index} has linear models in its leaves, which we do not compute",
                "Train without linear_tree",
                operator="linear_tree",
            )
        leaves = _int(tree, "num_leaves")
        if leaves < 1 or leaves > len(tree.get("leaf_value", "")) + 1:
            raise broken(f"tree {index} says it has {leaves} leaves")
        inner = leaves - 1
        values = _numbers(tree, "leaf_value", np.float64, leaves)
        feature, threshold = _numbers(tree, "split_feature", np.int64, inner), np.zeros(inner)
        kinds = _numbers(tree, "decision_type", np.int64, inner)
        left, right = _numbers(tree, "left_child", np.int64, inner), _numbers(tree, "right_child", np.int64, inner)
        if inner:
            threshold = _numbers(tree, "threshold", np.float64, inner)
        if ((feature < 0) | (feature >= self.features)).any():
            raise broken(f"tree {index} asks for a feature beyond the {self.features} there are")
        missing = (kinds >> 2) & 3
        category = (kinds & 1).astype(bool)
        if (missing[~category] > Missing.NONE).any():
            raise broken(f"tree {index} has an unknown way with missing values")
        members = np.full(leaves + inner, -1)
        if category.any():
            members[:inner][category] = len(self.sets) + self._categories(tree, threshold[category], index)
        pad = np.zeros(leaves, np.int64)
        codes = np.array(MISSING)[np.where(category, 2, missing)]
        self.roots.append(self.count)
        self.parts.append(
            {
                "feature": np.concatenate([feature, pad - 1]), "threshold": np.concatenate([threshold, pad]),
                "strict": np.zeros(inner + leaves, bool), "left": np.concatenate([self._child(left, inner), pad]),
                "right": np.concatenate([self._child(right, inner), pad]),
                "missing": np.concatenate([codes, pad]),
                "default_left": np.concatenate([(kinds & 2 != 0) & ~category, pad != 0]),
                "leaf": np.concatenate([np.full(inner, -1), self.leaves + np.arange(leaves)]), "members": members,
                "inside_left": np.ones(inner + leaves, bool), "values": values[:, None],
            }
        )  # fmt: skip
        self.count += inner + leaves
        self.leaves += leaves

    def _child(self, child: Array, inner: int) -> Array:
        """Negative children are leaves."""
        return self.count + np.where(child < 0, inner + ~child, child)

    def _categories(self, tree: dict[str, str], which: Array, index: int) -> Array:
        """Read the tree's sets; returns the number of each categorical node's set among them."""
        count = _int(tree, "num_cat")
        if count < 1 or count > len(tree.get("cat_boundaries", "")) + 1:
            raise broken(f"tree {index} says it has {count} sets of categories")
        bounds = _numbers(tree, "cat_boundaries", np.int64, count + 1)
        words = np.array(tree.get("cat_threshold", "").split())
        try:
            flat = words.astype(np.int64)
        except (ValueError, OverflowError):
            raise broken("cat_threshold is not a list of numbers") from None
        if ((flat < 0) | (flat >= 1 << 32)).any():
            raise broken("a word of a set does not have 32 bits")
        if bounds[0] != 0 or (np.diff(bounds) < 0).any() or bounds[-1] != len(flat):
            raise broken(f"the sets of categories of tree {index} lie outside of the list")
        ceiling("categories", int(np.diff(bounds).max()) * 32, CATEGORIES)
        if ((which < 0) | (which >= count) | (which != np.floor(which))).any():
            raise broken(f"tree {index} asks for a set of categories that is not there")
        for start, stop in pairwise(bounds.tolist()):
            self.sets.append(flat[start:stop].astype(np.uint32))
        return np.asarray(which.astype(np.int64) + 0)

    def nodes(self) -> dict[str, Array]:
        if not self.parts:
            raise broken("it has no trees")
        return {name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]}
