"""One plain form for every ensemble of decision trees, whatever wrote the file.

Nodes of all trees lie in flat arrays. An inner node compares one feature with a threshold, or asks whether it is in
a set of categories; a leaf names a row of ``values``. The scores of a row are the aggregate of its leaves, in the
order of the trees and in the dtype of ``values``, exactly as the source computes them; ``posts`` are what
the source makes of the scores. ``check`` holds against hostile files; ``reference`` computes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

import numpy as np

from fleetui.workshop.errors import LimitError, ModelError
from fleetui.workshop.graph.ir import Array

NODES = 1 << 26
TREES = 1 << 20
DEPTH = 4096
FEATURES = 1 << 24
OUTPUTS = 1 << 14
CATEGORIES = 1 << 24
VALUES = 1 << 28

ZERO = float(np.float32(1e-35))
"""LightGBM takes numbers this close to zero for zero."""

EXPORT = "Save the model again with the framework that made it"


class Missing(IntEnum):
    """What a node takes for missing; what is missing goes the node's default way. For categories it is NaN."""

    NAN = 0
    ZERO = 1
    """Zero too, and NaN counts as zero."""
    NONE = 2
    """Nothing: NaN counts as zero."""


class Aggregate(StrEnum):
    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"


class Category(StrEnum):
    """Which category a number is; in none are NaN, negative ones and those beyond the set."""

    FLOOR = "floor"
    """0.5 is category 0, -0.5 none"""
    TRUNC = "trunc"
    """0.5 and -0.5 are category 0"""
    EXACT = "exact"
    """0.5 and -0.5 are none"""


class Transform(StrEnum):
    """One more output made of a row's scores s[0..K-1]; ``a`` and ``b`` are the post's numbers.

    Scores are divided by ``divisor`` first.
    """

    SIGMOID = "sigmoid"
    """[K]: 1 / (1 + exp(-a·s))"""
    PAIR = "pair"
    """[2] of K = 1: 1 - p and p, p as sigmoid"""
    COMPLEMENT = "complement"
    """[2] of K = 1: 1 - s and s"""
    SOFTMAX = "softmax"
    """[K]"""
    EXP = "exp"
    """[K]: exp(s)"""
    LOG1P_EXP = "log1p_exp"
    """[K]: log(1 + exp(s))"""
    SIGNED_SQUARE = "signed_square"
    """[K]: sign(s)·s²"""
    HALF_POWER = "half_power"
    """[K]: -2^(-s/a) - b"""
    AFFINE = "affine"
    """[K]: a·s + b"""
    DIVIDE = "divide"
    """[K]: s / sum of all s (all zeros stay)"""
    ARGMAX = "argmax"
    """[]: labels[index of the greatest, the first of equals]"""
    ABOVE = "above"
    """[] of K = 1: labels[1] if s > a else labels[0]"""


WIDE = frozenset({Transform.PAIR, Transform.COMPLEMENT})
SINGLE = WIDE | {Transform.ABOVE}
LABELS = frozenset({Transform.ARGMAX, Transform.ABOVE})


@dataclass(frozen=True, slots=True)
class Post:
    """``labels`` are the classes as numbers, for the transforms that pick one; ``flat`` drops an axis of size 1."""

    transform: Transform
    dtype: str = "float32"
    a: float = 1.0
    b: float = 0.0
    divisor: float = 1.0
    labels: tuple[float, ...] = ()
    flat: bool = False

    def width(self, outputs: int) -> tuple[int, ...]:
        if self.transform in LABELS:
            return ()
        wide = 2 if self.transform in WIDE else outputs
        return () if self.flat and wide == 1 else (wide,)


@dataclass(frozen=True, eq=False)
class Ensemble:
    """``compare`` is the dtype both sides of a comparison have; a wider feature is rounded to it first.

    Per node: ``feature`` (-1: a leaf), ``threshold``, ``strict`` (left if x < t, else if x <= t), ``left``,
    ``right``, ``missing``, ``default_left``, ``leaf`` (row of ``values``, -1 at inner nodes), ``members`` (index
    into ``sets``, -1: numerical), ``inside_left``. A set is a row of bits, 32 to a word.
    Per tree: ``roots`` and ``column``, the score its leaf is added to where leaves are single numbers; leaves as
    wide as ``outputs`` go to all of them.
    """

    features: int
    outputs: int
    roots: Array
    feature: Array
    threshold: Array
    strict: Array
    left: Array
    right: Array
    missing: Array
    default_left: Array
    leaf: Array
    values: Array
    column: Array
    base: Array
    compare: str = "float32"
    members: Array | None = None
    inside_left: Array | None = None
    sets: tuple[Array, ...] = ()
    category: Category = Category.FLOOR
    aggregate: Aggregate = Aggregate.SUM
    divisor: float = 1.0
    base_first: bool = False
    """Whether the base is what a sum begins with, or is added to it at the end (after the division of a mean)."""
    flat: bool = False
    """Scores have shape [N] where there is one output."""
    posts: tuple[Post, ...] = ()
    depths: Array = field(default_factory=lambda: np.zeros(0, np.int32))
    """Of every node, filled in by ``check``."""

    @property
    def dtype(self) -> str:
        return str(self.values.dtype)

    @property
    def trees(self) -> int:
        return len(self.roots)

    @property
    def width(self) -> int:
        return int(self.values.shape[1])

    @property
    def parameters(self) -> int:
        return int(np.count_nonzero(self.feature >= 0)) + int(self.values.size)

    def __repr__(self) -> str:
        return f"<{self.trees} trees, {len(self.feature)} nodes, {self.features} → {self.outputs}>"


def make(**fields: Any) -> Ensemble:
    """An ensemble whose arrays have their dtypes and have been checked."""
    ints = ("roots", "feature", "left", "right", "missing", "leaf", "column")
    try:
        for name in ints:
            fields[name] = _whole(fields[name])
        for name in ("strict", "default_left"):
            fields[name] = np.ascontiguousarray(fields[name], np.bool_)
        threshold = np.ascontiguousarray(fields["threshold"], np.float64)
        with np.errstate(over="ignore"):
            rounded = threshold.astype(fields.get("compare", "float32"))
        fields["threshold"] = rounded.astype(np.float64)
        fields["values"] = np.ascontiguousarray(fields["values"])
        fields["base"] = np.ascontiguousarray(fields["base"], fields["values"].dtype)
        if fields.get("members") is not None:
            fields["members"] = _whole(fields["members"])
            fields["inside_left"] = np.ascontiguousarray(fields["inside_left"], np.bool_)
            fields["sets"] = tuple(np.ascontiguousarray(words, np.uint32) for words in fields["sets"])
            if not (fields["members"] >= 0).any():
                fields["members"] = fields["inside_left"] = None
                fields["sets"] = ()
    except (TypeError, ValueError, OverflowError) as error:
        raise _broken(f"its numbers cannot be read ({error})") from None
    made = Ensemble(**fields)
    object.__setattr__(made, "depths", check(made))
    return made


def _whole(values: Any) -> Array:
    array = np.asarray(values)
    if array.size == 0:
        return np.zeros(array.shape, np.int32)
    if array.dtype.kind not in "iub":
        raise ValueError("indices must be whole numbers")
    if array.max() > 2**31 - 1 or array.min() < -(2**31):
        raise ValueError("an index is too big")
    return np.ascontiguousarray(array, np.int32)


def _broken(what: str) -> ModelError:
    return ModelError(f"The trees do not hold together: {what}", EXPORT)


def ceiling(what: str, value: int, most: int) -> None:
    """Counts from a file, before anything of that size is made."""
    if value < 0:
        raise _broken(f"it says {value} {what}")
    if value > most:
        raise LimitError(f"The model says it has {value:,} {what}; {most:,} is the most", "Use a smaller model")


def check(e: Ensemble) -> Array:
    """Raise a sentence unless this is a forest of sound trees. Returns the depth of every node."""
    count = len(e.feature)
    ceiling("nodes", count, NODES)
    ceiling("trees", e.trees, TREES)
    ceiling("features", e.features, FEATURES)
    ceiling("outputs", e.outputs, OUTPUTS)
    ceiling("leaf values", e.values.size, VALUES)
    if e.outputs < 1 or e.features < 1:
        raise _broken("it has no features or no outputs")
    for name in ("threshold", "strict", "left", "right", "missing", "default_left", "leaf"):
        if getattr(e, name).shape != (count,):
            raise _broken(f"{name} has {getattr(e, name).size} entries for {count} nodes")
    if e.column.shape != e.roots.shape or e.base.shape != (e.outputs,):
        raise _broken("trees and outputs do not match")
    if e.values.ndim != 2 or e.values.shape[1] not in {1, e.outputs} or e.values.dtype.kind != "f":
        raise _broken("leaf values do not fit the outputs")
    if not np.isfinite(e.values).all():
        raise _broken("a leaf value is not a finite number")
    if not np.isfinite(e.base).all() or not np.isfinite(e.divisor) or e.divisor == 0:
        raise _broken("the base score is not a finite number")
    if e.compare not in {"float32", "float64"}:
        raise _broken(f"it compares {e.compare}")
    if ((e.column < 0) | (e.column >= e.outputs)).any():
        raise _broken("a tree adds to an output that is not there")
    if e.aggregate in {Aggregate.MIN, Aggregate.MAX} and (e.outputs > 1 or e.trees == 0):
        raise _broken("a minimum or maximum over several outputs")
    inner = e.feature >= 0
    if (e.feature[inner] >= e.features).any():
        raise _broken(f"a node asks for a feature beyond the {e.features} there are")
    leaves = e.leaf[~inner]
    if ((leaves < 0) | (leaves >= len(e.values))).any():
        raise _broken("a leaf has no value")
    if ((e.missing < 0) | (e.missing > max(Missing))).any():
        raise _broken("a node has an unknown way with missing values")
    for name in ("left", "right"):
        children = getattr(e, name)[inner]
        if ((children < 0) | (children >= count)).any():
            raise _broken("a node has a child that is not there")
    _check_sets(e, inner)
    for post in e.posts:
        if post.transform in SINGLE and e.outputs != 1:
            raise _broken(f"{post.transform} of {e.outputs} outputs")
        if post.transform in LABELS and len(post.labels) < max(2, e.outputs):
            raise _broken("there are fewer classes than outputs")
    return _check_shape(e, inner)


def _check_sets(e: Ensemble, inner: Array) -> None:
    if e.members is None or e.inside_left is None:
        return
    if e.members.shape != e.feature.shape or e.inside_left.shape != e.feature.shape:
        raise _broken("categories do not match the nodes")
    if (e.members[inner] >= len(e.sets)).any() or (e.members < -1).any():
        raise _broken("a node asks for a set of categories that is not there")
    for words in e.sets:
        if words.ndim != 1:
            raise _broken("a set of categories is not a row of bits")
        ceiling("categories", 32 * words.size, CATEGORIES)


def _check_shape(e: Ensemble, inner: Array) -> Array:
    """Every node at most once below one root. Level by level, all trees at a time."""
    depths = np.full(len(e.feature), -1, np.int32)
    level = e.roots
    if ((level < 0) | (level >= len(e.feature))).any():
        raise _broken("a tree has no root")
    depth = 0
    while level.size:
        if depth > DEPTH:
            raise LimitError(f"A tree is deeper than {DEPTH}", "Use a smaller model")
        if (depths[level] >= 0).any() or np.unique(level).size != level.size:
            raise _broken("a node is reached in two ways")
        depths[level] = depth
        parents = level[inner[level]]
        level = np.concatenate([e.left[parents], e.right[parents]])
        depth += 1
    return depths
