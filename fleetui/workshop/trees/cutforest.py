"""Robust random-cut forests: built from data, scored through the same lowering as every ensemble.

Each tree is grown over a sample of the rows: a box around them is cut at a place drawn evenly along an axis drawn
in proportion to the box's side lengths, until a row is alone (equal rows stay together). That is the tree of Guha
et al., "Robust Random Cut Forest Based Anomaly Detection on Streams" (2016).

**The score** of a row is the collusive displacement of the leaf it falls into: with n(v) the number of sampled rows
below v, the greatest n(sibling of u) / n(u) over the nodes u on the path from the leaf to just below the root, the
row itself taken for one of the leaf's own. It is averaged over the trees. High is anomalous; a row like many others
scores a few units, one that a single cut would part from all others scores near the size of the sample. Trees
are not changed by rows that are scored, so a row outside of a node's box follows the cut's side and is not cut off
on its way: for rows far outside this is the score of the outermost leaf there. The forest does not learn on the
device; build it again from newer data.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fleetui.workshop.errors import ShapeError
from fleetui.workshop.graph.ir import Array
from fleetui.workshop.trees.ensemble import DEPTH, Ensemble, make


@dataclass(slots=True)
class _Growing:
    feature: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    leaf: list[int] = field(default_factory=list)
    score: list[float] = field(default_factory=list)

    def node(self) -> int:
        self.feature.append(-1)
        self.threshold.append(0.0)
        self.left.append(0)
        self.right.append(0)
        self.leaf.append(-1)
        return len(self.feature) - 1


def build(data: Array, trees: int = 100, sample: int = 256, seed: int = 0) -> Ensemble:
    """A forest over rows of float32 features without missing values. The same seed gives the same forest."""
    rows = np.ascontiguousarray(data, np.float32)
    if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] < 1 or not np.isfinite(rows).all():
        raise ShapeError(
            "A random-cut forest is built from a table of at least two rows of finite numbers",
            "Leave out or fill in missing values",
        )
    if trees < 1 or sample < 2:
        raise ShapeError("A random-cut forest has at least one tree, over at least two rows", "Ask for more")
    rng = np.random.default_rng(seed)
    grown = _Growing()
    roots = [
        _grow(grown, rows[rng.choice(len(rows), min(sample, len(rows)), replace=False)], rng) for _ in range(trees)
    ]
    count = len(grown.feature)
    return make(
        features=rows.shape[1], outputs=1, roots=np.array(roots), feature=np.array(grown.feature),
        threshold=np.array(grown.threshold), strict=np.zeros(count, bool), left=np.array(grown.left),
        right=np.array(grown.right), missing=np.zeros(count, int), default_left=np.zeros(count, bool),
        leaf=np.array(grown.leaf), values=np.array(grown.score)[:, None], column=np.zeros(trees, int),
        base=np.zeros(1), base_first=True, divisor=float(trees), flat=True,
    )  # fmt: skip


def _grow(grown: _Growing, rows: Array, rng: np.random.Generator) -> int:
    root = grown.node()
    waiting: list[tuple[int, Array, float, int]] = [(root, rows, 0.0, 0)]
    while waiting:
        at, mine, score, depth = waiting.pop()
        low, high = mine.min(0), mine.max(0)
        sides = (high - low).astype(np.float64)
        total = sides.sum()
        if len(mine) == 1 or not total > 0 or depth >= DEPTH - 1:
            grown.leaf[at] = len(grown.score)
            grown.score.append(score)
            continue
        axis = int(np.searchsorted(np.cumsum(sides), rng.random() * total, side="right"))
        axis = min(axis, len(sides) - 1)
        while sides[axis] == 0:  # rounding at the very end of the sum
            axis -= 1
        cut = np.float32(low[axis] + rng.random() * sides[axis])
        cut = min(max(cut, low[axis]), np.nextafter(high[axis], np.float32(-np.inf)))
        below = mine[:, axis] <= cut
        parts = mine[below], mine[~below]
        children = grown.node(), grown.node()
        grown.feature[at], grown.threshold[at] = axis, float(cut)
        grown.left[at], grown.right[at] = children
        for child, own, other in zip(children, parts, parts[::-1], strict=True):
            waiting.append((child, own, max(score, len(other) / len(own)), depth + 1))
    return root
