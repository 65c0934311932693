"""TreeEnsembleClassifier, TreeEnsembleRegressor and TreeEnsemble (version 5 of ``ai.onnx.ml``) as ensembles.

Scores are float32, or float64 where the thresholds are and the features too. Nodes may compare in seven ways; what
is not "less" becomes one by turning the children round, equality two nodes one below the other, membership a set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fleetui.workshop.errors import LimitError
from fleetui.workshop.frontends.onnx_ml.node import POSTS, MlNode, integer_labels, labelled, pair, transformed
from fleetui.workshop.graph.ir import Array, Value
from fleetui.workshop.trees.ensemble import CATEGORIES, DEPTH, NODES, Aggregate, Category, Ensemble, make

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER")
TURNED = {"BRANCH_GTE": "BRANCH_LT", "BRANCH_GT": "BRANCH_LEQ", "BRANCH_NEQ": "BRANCH_EQ"}
AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")


@dataclass(slots=True)
class Plain:
    """Nodes as the file has them. ``true`` and ``false`` are node numbers, or leaf numbers counted from -1 down."""

    mode: list[str]
    feature: Array
    value: Array
    true: Array
    false: Array
    missing_true: Array
    roots: Array
    sets: dict[int, Array]
    targets: list[list[tuple[int, float]]]
    """What each leaf adds to which output."""


class _Grower:
    """Unfolds plain nodes into those of an ensemble, each root's tree on its own."""

    def __init__(self, n: MlNode, plain: Plain) -> None:
        self.n = n
        self.plain = plain
        self.nodes: list[list[Any]] = []
        """feature, threshold, strict, left, right, default_left, leaf, set, inside_left"""
        self.sets: list[Array] = []

    def node(self) -> int:
        if len(self.nodes) >= NODES >> 4:
            raise LimitError("The trees unfold to too many nodes", "Use a smaller model")
        self.nodes.append([-1, 0.0, False, 0, 0, False, -1, -1, False])
        return len(self.nodes) - 1

    def grow(self, root: int) -> int:
        plain = self.plain
        start = self.node()
        waiting = [(start, root, 0)]
        while waiting:
            at, source, depth = waiting.pop()
            if depth > DEPTH:
                self.n.broken("a tree is a circle, or too deep")
            if source < 0:
                self.nodes[at][6] = -1 - source
                continue
            mode = plain.mode[source]
            true, false, missing = (
                int(plain.true[source]),
                int(plain.false[source]),
                bool(plain.missing_true[source]),
            )
            if mode in TURNED:
                # NaN is unequal to everything; with the other comparisons it goes where missing values go.
                missing = not missing and mode != "BRANCH_NEQ"
                mode, true, false = TURNED[mode], false, true
            feature, value = int(plain.feature[source]), float(plain.value[source])
            left, right = self.node(), self.node()
            if mode == "BRANCH_EQ":
                # x <= v, and below it x < v: the middle is equal.
                self.nodes[at] = [feature, value, False, left, right, missing, -1, -1, False]
                below, equal = self.node(), self.node()
                self.nodes[left] = [feature, value, True, below, equal, False, -1, -1, False]
                waiting += [(right, false, depth + 1), (below, false, depth + 2), (equal, true, depth + 2)]
                continue
            place = -1
            if mode == "BRANCH_MEMBER":
                place = len(self.sets)
                self.sets.append(plain.sets[source])
                value = 0.0
            strict = mode == "BRANCH_LT"
            self.nodes[at] = [feature, value, strict, left, right, missing, -1, place, True]
            waiting += [(left, true, depth + 1), (right, false, depth + 1)]
        return start


def ensemble(
    n: MlNode, plain: Plain, features: int, outputs: int, aggregate: str, base: Array, dtype: str, compare: str
) -> Ensemble:
    if aggregate not in AGGREGATES:
        n.refuse(f"aggregates by {aggregate!r}, which we do not know", "Export the model again")
    if aggregate in {"MIN", "MAX"} and outputs > 1:
        n.refuse(f"takes the {aggregate} of several outputs", "Split the model by output")
    grower = _Grower(n, plain)
    roots = [grower.grow(int(root)) for root in plain.roots]
    fields = list(zip(*grower.nodes, strict=True)) if grower.nodes else [()] * 9
    values, column = _values(plain, outputs, grower, roots)
    if base.size not in {0, outputs}:
        n.broken(f"it has {base.size} base values for {outputs} outputs")
    return make(
        features=features, outputs=outputs, roots=np.array(roots, np.int64), feature=np.array(fields[0], np.int64),
        threshold=np.array(fields[1], np.float64), strict=np.array(fields[2], bool),
        left=np.array(fields[3], np.int64), right=np.array(fields[4], np.int64),
        missing=np.zeros(len(grower.nodes), np.int64), default_left=np.array(fields[5], bool),
        leaf=np.array(fields[6], np.int64), members=np.array(fields[7], np.int64),
        inside_left=np.array(fields[8], bool), sets=tuple(grower.sets), values=values.astype(dtype), column=column,
        base=base if base.size else np.zeros(outputs), compare=compare, category=Category.EXACT,
        aggregate=Aggregate.SUM if aggregate in {"SUM", "AVERAGE"} else Aggregate(aggregate.lower()),
        divisor=float(max(1, len(roots))) if aggregate == "AVERAGE" else 1.0,
    )  # fmt: skip


def _values(plain: Plain, outputs: int, grower: _Grower, roots: Sequence[int]) -> tuple[Array, Array]:
    """One number a leaf if each tree serves a single output, else a vector for every leaf."""
    column = np.zeros(len(roots), np.int64)
    if outputs > 1:
        bounds = [*roots[1:], len(grower.nodes)]
        for tree, (start, stop) in enumerate(zip(roots, bounds, strict=True)):
            used = {t for node in grower.nodes[start:stop] if node[6] >= 0 for t, _ in plain.targets[node[6]]}
            if len(used) > 1:
                return _vectors(plain, outputs), np.zeros(len(roots), np.int64)
            column[tree] = next(iter(used), 0)
    total = [sum((np.float64(weight) for _, weight in leaf), 0.0) for leaf in plain.targets]
    return np.array(total, np.float64).reshape(-1, 1), column


def _vectors(plain: Plain, outputs: int) -> Array:
    if len(plain.targets) * outputs > 1 << 28:
        raise LimitError("The leaves of the trees would need too much memory", "Use a smaller model")
    values = np.zeros((len(plain.targets), outputs))
    for leaf, parts in enumerate(plain.targets):
        for target, weight in parts:
            values[leaf, target] += weight
    return values


# ---------------------------------------------------------------- versions 1 to 3


def _keyed(n: MlNode, prefix: str, outputs: int) -> Plain:
    """Nodes named by (tree, node); leaves' weights in lists of their own, ``prefix`` is class or target."""
    trees, ids = n.ints("nodes_treeids"), n.ints("nodes_nodeids")
    count = len(trees)
    raw: Any = n.attrs.get("nodes_modes", [])
    modes = [str(mode) for mode in raw] if isinstance(raw, list) else []
    feature, value = n.ints("nodes_featureids"), n.numbers("nodes_values")
    true, false = n.ints("nodes_truenodeids"), n.ints("nodes_falsenodeids")
    missing = n.ints("nodes_missing_value_tracks_true")
    missing = missing if missing.size else np.zeros(count, np.int64)
    if not count == len(ids) == len(modes) == len(feature) == len(value) == len(true) == len(false) == len(missing):
        n.broken("its lists of nodes have different lengths")
    where = {key: index for index, key in enumerate(zip(trees.tolist(), ids.tolist(), strict=True))}
    if len(where) != count:
        n.broken("two nodes have the same number")
    leaf = {index: place for place, index in enumerate(i for i, mode in enumerate(modes) if mode == "LEAF")}

    def child(index: int, to: int) -> int:
        found = where.get((int(trees[index]), to))
        if found is None:
            n.broken("a node has a child that is not there")
        return -1 - leaf[found] if found in leaf else found

    yes, no = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for index, mode in enumerate(modes):
        if mode == "LEAF":
            continue
        if mode not in MODES[:6]:
            n.refuse(f"compares by {mode!r}, which we do not know", "Export the model again")
        yes[index], no[index] = child(index, int(true[index])), child(index, int(false[index]))
    reached = {(int(trees[i]), int(to[i])) for to in (true, false) for i in range(count) if modes[i] != "LEAF"}
    starts: dict[int, int] = {}
    for key, index in where.items():
        if key not in reached and starts.setdefault(key[0], index) != index:
            n.broken("a tree has two roots")
    if len(starts) != len(set(trees.tolist())):
        n.broken("a tree has no root")
    roots = [-1 - leaf[index] if index in leaf else index for index in starts.values()]
    below, level = len(roots), [root for root in roots if root >= 0]
    while level:
        level = [int(link[node]) for node in level for link in (yes, no)]
        below += len(level)
        level = [node for node in level if node >= 0]
        if below > count:
            break
    if below != count:
        n.broken("some nodes are below no root, or below two")
    targets: list[list[tuple[int, float]]] = [[] for _ in leaf]
    weights = n.numbers(f"{prefix}_weights")
    owners = n.ints(f"{prefix}_treeids"), n.ints(f"{prefix}_nodeids"), n.ints(f"{prefix}_ids")
    if not len(weights) == len(owners[0]) == len(owners[1]) == len(owners[2]):
        n.broken("its lists of weights have different lengths")
    for tree, node, target, weight in zip(*owners, weights, strict=True):
        at = where.get((int(tree), int(node)))
        if at is None or at not in leaf or not 0 <= target < outputs:
            n.broken("a weight belongs to no leaf or no output")
        targets[leaf[at]].append((int(target), float(weight)))
    return Plain(modes, feature, value, yes, no, missing, np.array(roots, np.int64), {}, targets)


def _types(n: MlNode, x: Value, weights: str) -> tuple[Value, str, str]:
    """The features, the dtype of sums and that of comparisons."""
    if x.dtype not in {"float32", "float64"}:
        return n.floats(x), "float32", "float32"
    wide = x.dtype == "float64"
    exact = n.numbers("nodes_values").dtype == np.float64 or n.numbers(weights).dtype == np.float64
    return x, "float64" if wide or exact else "float32", "float64" if wide else "float32"


def regressor(n: MlNode) -> list[Value]:
    outputs = int(n.number("n_targets", 1))
    if not 0 < outputs < 1 << 14:
        n.broken(f"it says it has {outputs} outputs")
    x, dtype, compare = _types(n, n.table(), "target_weights")
    plain = _keyed(n, "target", outputs)
    e = ensemble(
        n, plain, x.shape[1], outputs, n.text("aggregate_function", "SUM"), n.numbers("base_values"), dtype, compare
    )
    scores = transformed(n, n.ops("trees", x, ensemble=e)[0], n.text("post_transform", "NONE"))
    return [n.floats(scores)]


def classifier(n: MlNode) -> list[Value]:
    labels = integer_labels(n, "classlabels_strings", "classlabels_int64s")
    x, dtype, compare = _types(n, n.table(), "class_weights")
    used = np.unique(n.ints("class_ids"))
    base = n.numbers("base_values")
    post = n.text("post_transform", "NONE")
    if len(labels) == 2 and used.tolist() == [0]:
        return _binary(n, x, labels, base, post, (dtype, compare))
    plain = _keyed(n, "class", len(labels))
    e = ensemble(n, plain, x.shape[1], len(labels), "SUM", base, dtype, compare)
    scores = n.ops("trees", x, ensemble=e)[0]
    if len(labels) == 2 and used.tolist() == [1]:
        second = n.op("slice", scores, starts=(0, 1), stops=(scores.shape[0], 2), steps=(1, 1))
        return [_above(n, second, labels), n.floats(transformed(n, scores, post))]
    return [labelled(n, scores, labels), n.floats(transformed(n, scores, post))]


def _binary(n: MlNode, x: Value, labels: Array, base: Array, post: str, dtypes: tuple[str, str]) -> list[Value]:
    """One score for two classes: the share of the second where no weight is negative, else its margin."""
    if base.size > 1 or post == "PROBIT":
        n.refuse("has one score for two classes, and two base values or a probit", "Export a score for each class")
    plain = _keyed(n, "class", 2)
    e = ensemble(n, plain, x.shape[1], 1, "SUM", base, *dtypes)
    score = n.ops("trees", x, ensemble=e)[0]
    label = _above(n, score, labels)
    both = pair(n, score, negative=not _positive(n))
    if post == "LOGISTIC":
        both = pair(n, n.op("sigmoid", score), negative=False)
    return [label, n.floats(both)]


def _positive(n: MlNode) -> bool:
    return bool((n.numbers("class_weights") >= 0).all())


def _above(n: MlNode, score: Value, labels: Array) -> Value:
    """The label of a single score: a share where no weight is negative, else a margin."""
    above = n.by("greater", score, 0.5 if _positive(n) else 0.0)
    place = n.op("reshape", n.op("cast", above, to="int64"), shape=(score.shape[0],))
    return n.op("gather", n.const(labels, "int64"), place, axis=0)


# ---------------------------------------------------------------- version 5


def unified(n: MlNode) -> list[Value]:
    outputs = int(n.number("n_targets", 1))
    if not 0 < outputs < 1 << 14:
        n.broken(f"it says it has {outputs} outputs")
    x = n.table()
    splits, weights = n.tensor("nodes_splits"), n.tensor("leaf_weights")
    if x.dtype not in {"float32", "float64"}:
        x = n.floats(x)
    modes, feature = n.tensor("nodes_modes").astype(np.int64), n.ints("nodes_featureids")
    count = len(splits)
    true, false = n.ints("nodes_truenodeids"), n.ints("nodes_falsenodeids")
    true_leaf, false_leaf = n.ints("nodes_trueleafs"), n.ints("nodes_falseleafs")
    missing = n.ints("nodes_missing_value_tracks_true")
    missing = missing if missing.size else np.zeros(count, np.int64)
    lists = (modes, feature, true, false, true_leaf, false_leaf, missing)
    if any(len(part) != count for part in lists):
        n.broken("its lists of nodes have different lengths")
    if ((modes < 0) | (modes >= len(MODES))).any():
        n.broken("a node compares in an unknown way")
    target = n.ints("leaf_targetids")
    if len(target) != len(weights) or ((target < 0) | (target >= outputs)).any():
        n.broken("its leaves do not fit its outputs")
    links = []
    for to, is_leaf in ((true, true_leaf), (false, false_leaf)):
        most = np.where(is_leaf != 0, len(weights), count)
        if ((to < 0) | (to >= most)).any():
            n.broken("a node has a child that is not there")
        links.append(np.where(is_leaf != 0, -1 - to, to))
    roots = n.ints("tree_roots")
    if ((roots < 0) | (roots >= count)).any():
        n.broken("a tree has no root")
    # A tree that is one leaf is a node both of whose children are that leaf.
    targets = [[(int(t), float(w))] for t, w in zip(target, weights, strict=True)]
    names = [MODES[mode] for mode in modes]
    plain = Plain(names, feature, splits, links[0], links[1], missing, roots, {}, targets)
    _memberships(n, plain)
    wide = x.dtype == "float64"
    dtype = "float64" if wide else "float32"
    aggregate = AGGREGATES[int(n.number("aggregate_function", 1)) % 4]
    e = ensemble(n, plain, x.shape[1], outputs, aggregate, np.zeros(0), dtype, dtype)
    place = int(n.number("post_transform", 0))
    if not 0 <= place < len(POSTS):
        n.broken("its post-transform is unknown")
    return [transformed(n, n.ops("trees", x, ensemble=e)[0], POSTS[place])]


def _memberships(n: MlNode, plain: Plain) -> None:
    """Give each node that asks for membership its set; they lie in order, parted by NaN.

    Sets of small whole numbers become sets of categories; others a chain of nodes that ask for equality.
    """
    nodes = [index for index, mode in enumerate(plain.mode) if mode == "BRANCH_MEMBER"]
    if not nodes:
        return
    flat = n.tensor("membership_values").astype(np.float64)
    ends = np.flatnonzero(np.isnan(flat))
    if len(ends) not in {len(nodes), len(nodes) - 1}:
        n.broken("its sets do not fit its nodes")
    parts = [part[~np.isnan(part)] for part in np.split(flat, ends)]
    for node, part in zip(nodes, parts, strict=False):
        if not part.size:
            n.broken("a set has no members")
        if ((part < 0) | (part >= CATEGORIES) | (part != np.floor(part))).any():
            _chain(plain, node, part)
            continue
        marks = np.zeros((int(part.max()) // 32 + 1) * 32, bool)
        marks[part.astype(np.int64)] = True
        plain.sets[node] = np.packbits(marks, bitorder="little").view(np.uint32)


def _chain(plain: Plain, node: int, members: Array) -> None:
    false = plain.false[node]
    plain.mode[node], plain.value[node] = "BRANCH_EQ", members[0]
    at = node
    for value in members[1:]:
        after = len(plain.mode)
        plain.false[at] = after
        plain.mode.append("BRANCH_EQ")
        plain.feature = np.append(plain.feature, plain.feature[node])
        plain.value = np.append(plain.value, value)
        plain.true = np.append(plain.true, plain.true[node])
        plain.false = np.append(plain.false, false)
        plain.missing_true = np.append(plain.missing_true, 0)
        at = after
