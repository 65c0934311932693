"""What an ensemble gives, in numpy: slow, and what the compiled kernels are tested against."""

from __future__ import annotations

import numpy as np

from fleetui.workshop.graph.ir import Array
from fleetui.workshop.trees.ensemble import ZERO, Aggregate, Category, Ensemble, Missing, Post, Transform


def evaluate(e: Ensemble, x: Array) -> list[Array]:
    """Scores and posts of rows, slowly."""
    rows = len(x)
    x = np.asarray(x)
    if x.dtype == np.float64 and e.compare == "float32":
        x = x.astype(np.float32)
    x = x.astype(np.float64)
    start = {Aggregate.MIN: np.inf, Aggregate.MAX: -np.inf}.get(e.aggregate, 0.0)
    scores = np.full((rows, e.outputs), start, e.values.dtype)
    if e.base_first:
        scores += e.base
    for root, column in zip(e.roots, e.column, strict=True):
        found = e.values[e.leaf[descend(e, x, int(root))]]
        part = scores if e.width == e.outputs and e.width > 1 else scores[:, column : column + 1]
        if e.aggregate is Aggregate.MIN:
            np.minimum(part, found, out=part)
        elif e.aggregate is Aggregate.MAX:
            np.maximum(part, found, out=part)
        else:
            part += found
    if e.divisor != 1.0:
        scores = scores / e.values.dtype.type(e.divisor)
    if not e.base_first:
        scores = scores + e.base
    out = scores[:, 0] if e.flat and e.outputs == 1 else scores
    return [out, *(apply(post, scores) for post in e.posts)]


def descend(e: Ensemble, x: Array, root: int) -> Array:
    """The leaf that each row reaches."""
    at = np.full(len(x), root, np.int32)
    rows = np.arange(len(x))
    while (active := e.feature[at] >= 0).any():
        node, row = at[active], rows[active]
        value = x[row, e.feature[node]]
        missing = e.missing[node]
        if e.members is not None:
            missing = np.where(e.members[node] >= 0, Missing.NAN, missing)
        value = np.where(np.isnan(value) & (missing != Missing.NAN), 0.0, value)
        lost = np.isnan(value) | ((missing == Missing.ZERO) & (np.abs(value) <= ZERO))
        edge = e.threshold[node]
        left = np.where(e.strict[node], value < edge, value <= edge)
        if e.members is not None and e.inside_left is not None:
            sets = e.members[node]
            for index in np.unique(sets[sets >= 0]):
                mine = sets == index
                inside = _inside(e.sets[index], value[mine], e.category)
                left[mine] = inside == e.inside_left[node[mine]]
        left = np.where(lost, e.default_left[node], left)
        at[active] = np.where(left, e.left[node], e.right[node])
    return at


def _inside(words: Array, value: Array, rounding: Category) -> Array:
    category = np.trunc(value) if rounding is Category.TRUNC else np.floor(value)
    known = (category >= 0) & (category < 32 * words.size)
    if rounding is Category.EXACT:
        known &= category == value
    index = np.where(known, category, 0).astype(np.int64)
    if not words.size:
        return np.zeros(len(value), bool)
    found: Array = known & ((words[index >> 5] >> (index & 31).astype(np.uint32)) & 1).astype(bool)
    return found


def apply(post: Post, scores: Array) -> Array:
    """One post in numpy, computed in the dtype of the scores."""
    with np.errstate(all="ignore"):
        made = _applied(post, scores)
    if post.flat and made.ndim == 2 and made.shape[1] == 1:
        made = made[:, 0]
    return made.astype(post.dtype)


def _applied(post: Post, s: Array) -> Array:
    kind = s.dtype.type
    if post.divisor != 1.0:
        s = s / kind(post.divisor)
    a, b = kind(post.a), kind(post.b)
    match post.transform:
        case Transform.SIGMOID:
            return 1 / (1 + np.exp(-a * s))
        case Transform.PAIR:
            p = 1 / (1 + np.exp(-a * s))
            return np.concatenate([1 - p, p], 1)
        case Transform.COMPLEMENT:
            return np.concatenate([1 - s, s], 1)
        case Transform.SOFTMAX:
            grown = np.exp(s - s.max(1, keepdims=True))
            return np.asarray(grown / grown.sum(1, keepdims=True))
        case Transform.EXP:
            return np.asarray(np.exp(s))
        case Transform.LOG1P_EXP:
            return np.asarray(np.log1p(np.exp(s)))
        case Transform.SIGNED_SQUARE:
            return np.sign(s) * s * s
        case Transform.HALF_POWER:
            return np.asarray(-np.exp2(-s / a) - b)
        case Transform.AFFINE:
            return np.asarray(a * s + b)
        case Transform.DIVIDE:
            total = s.sum(1, keepdims=True)
            return np.asarray(np.where(total == 0, s, s / np.where(total == 0, 1, total)))
        case Transform.ARGMAX:
            return np.asarray(post.labels)[s.argmax(1)]
        case Transform.ABOVE:
            return np.asarray(post.labels)[(s[:, 0] > a).astype(int)]
    raise AssertionError(post.transform)
