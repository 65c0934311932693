"""An ensemble's arrays as a kernel wants them: keys instead of numbers, nodes where the descent finds them.

**Keys.** A row's features are turned once into *columns* of whole numbers that order as the floats do, so that a
node is one integer comparison: right if ``key[column] >= edge``. NaN becomes the smallest or the greatest key of
its column; a feature whose nodes differ in what is missing, or where it goes, has a column for each. Comparisons in
float64 of float32 inputs become exact comparisons in float32.

**Nodes.** Shallow, bushy trees are padded to *complete* ones: node i has the children 2i and 2i + 1, and leaves
need no look-up. Others are *linked*: ``link`` is the left child, the right one follows it, a leaf links to itself,
and any number of steps too many does no harm. Nodes lie level by level: the tops of the trees share cache lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fleetui.workshop.errors import LimitError
from fleetui.workshop.graph.ir import Array
from fleetui.workshop.trees.ensemble import Ensemble

COMPLETE_DEPTH = 8
COMPLETE_GROWTH = 3.0
"""Padding may make so many times more leaves than there are."""
WORDS = 4
"""Of a linked node."""
SET_BYTES = 1 << 26
CATEGORY = 8
"""The mode of columns that hold positions in sets of categories."""


@dataclass(frozen=True, slots=True)
class Block:
    """Columns of one mode, side by side. ``whole``: all features in order, else ``features`` lists them.

    A mode is ``2 * Missing + (missing goes right)``, or ``CATEGORY``.
    """

    mode: int
    start: int
    features: Array
    whole: bool

    @property
    def count(self) -> int:
        return len(self.features)


@dataclass(frozen=True, slots=True)
class Layout:
    """``steps``: the depth of complete trees, 0 where they are linked.

    A node has a column and an edge: the threshold as a key, or where a node's set begins. Complete trees have
    ``column`` and ``edge``, 2^steps entries each (the first unused). Linked nodes are four words of ``nodes``:
    edge, column and link, or the two halves of a wide edge, column and link; links and ``roots`` count words.
    ``values`` per leaf slot: 2^steps a tree, or one per node; ``slot``, where leaves are vectors in linked trees,
    gives a node's row of ``values``.
    """

    key: str
    columns: int
    blocks: tuple[Block, ...]
    steps: int
    column: Array | None
    edge: Array | None
    nodes: Array | None
    roots: Array | None
    values: Array
    slot: Array | None
    sets: Array | None
    words: int
    first_category: int


def lay_out(e: Ensemble, dtype: str) -> Layout:
    """For input rows of ``dtype``."""
    wide = dtype == "float64" and e.compare == "float64"
    inner = (e.feature >= 0) & (e.depths >= 0)
    category = e.members >= 0 if e.members is not None else np.zeros(len(e.feature), bool)
    modes = np.where(category, CATEGORY, 2 * e.missing + ~e.default_left)
    blocks, column, columns, first = _columns(e, inner, modes)
    edge = _edges(e, "int64" if wide else "int32")
    sets, words = None, 0
    if category[inner].any():
        sets, words, starts = _sets(e, inner & category)
        edge = np.where(category, starts, edge)
    shape = _complete if (steps := _steps(e, inner)) else _linked
    key = "int64" if wide else "int32"
    fields: dict[str, Any] = shape(e, column, edge.astype(key), steps)
    return Layout(key, columns, blocks, steps, **fields, sets=sets, words=words, first_category=first)


def _columns(e: Ensemble, inner: Array, modes: Array) -> tuple[tuple[Block, ...], Array, int, int]:
    column = np.zeros(len(e.feature), np.int32)
    blocks: list[Block] = []
    start = 0
    first = -1
    for mode in np.unique(modes[inner]):
        mine = inner & (modes == mode)
        used = np.unique(e.feature[mine])
        whole = 2 * len(used) >= e.features or e.features <= 16
        features = np.arange(e.features, dtype=np.int32) if whole else used.astype(np.int32)
        if mode == CATEGORY:
            first = start
        column[mine] = start + np.searchsorted(features, e.feature[mine])
        blocks.append(Block(int(mode), start, features, whole))
        start += len(features)
    if not blocks:  # every tree is one leaf
        return (Block(1, 0, np.zeros(1, np.int32), e.features == 1),), column, 1, 1
    return tuple(blocks), column, start, start if first < 0 else first


# ---------------------------------------------------------------- keys


def keys_of(values: Array) -> Array:
    """Floats as whole numbers in the same order. -0 comes just before 0."""
    bits: Array = values.view(np.int32 if values.dtype == np.float32 else np.int64)
    most = np.iinfo(np.int32 if values.dtype == np.float32 else np.int64).max
    found: Array = np.where(np.signbit(values), np.bitwise_xor(bits, most), bits)
    return found


def _edges(e: Ensemble, key: str) -> Array:
    """The smallest key that goes right."""
    t = e.threshold
    nan = np.isnan(t)
    t = np.where(nan, 0.0, t)
    least = np.iinfo(key).min
    if key == "int64":
        near, above = t, np.zeros(len(t), bool)
    else:
        with np.errstate(over="ignore"):
            near = t.astype(np.float32)
        # The greatest float32 not above the threshold; below it in truth: then even "<" lets it go left.
        high = near.astype(np.float64) > t
        near = np.where(high, np.nextafter(near, np.float32(-np.inf)), near)
        above = near.astype(np.float64) < t
    zero = near == 0
    keys = keys_of(np.where(zero, near.dtype.type(0), near)).astype(np.int64)
    strict = e.strict & ~above
    found = np.where(strict, np.where(zero, -1, keys), keys + 1)
    return np.where(nan, least + 1, found).astype(key)


def _sets(e: Ensemble, mine: Array) -> tuple[Array, int, Array]:
    """For each node with categories a row of bits: those that go right.

    Position 0 is NaN, 1 is whatever is in no set, 2 + c is category c.
    """
    assert e.members is not None
    assert e.inside_left is not None
    nodes = np.flatnonzero(mine)
    most = max((words.size for words in e.sets), default=0)
    words = most + 1
    keys = {node: (int(e.members[node]), bool(e.inside_left[node]), bool(e.default_left[node])) for node in nodes}
    rows = {key: index for index, key in enumerate(dict.fromkeys(keys.values()))}
    if len(rows) * words * 4 > SET_BYTES:
        raise LimitError(
            f"The categories of the model need {len(rows) * words * 4 >> 20} MiB of bits",
            "Number the categories from 0 without gaps, or use fewer of them",
        )
    table = np.zeros((len(rows), words), np.uint32)
    for (members, inside_left, default_left), row in rows.items():
        given = e.sets[members]
        bits = np.zeros(32 * words, bool)
        bits[2 : 2 + 32 * given.size] = np.unpackbits(given.view(np.uint8), bitorder="little")
        if inside_left:
            bits = ~bits
        bits[0] = not default_left
        bits[1] = inside_left
        table[row] = np.packbits(bits, bitorder="little").view(np.uint32)
    starts = np.zeros(len(e.feature), np.int64)
    starts[nodes] = [rows[keys[node]] * words for node in nodes]
    return table.reshape(-1).view(np.int32), words, starts


# ---------------------------------------------------------------- nodes


def _steps(e: Ensemble, inner: Array) -> int:
    """The depth of complete trees, or 0 if padding would be waste."""
    deepest = int(e.depths.max(initial=0))
    leaves = int(np.count_nonzero(~inner & (e.depths >= 0)))
    if deepest > COMPLETE_DEPTH or e.trees << deepest > COMPLETE_GROWTH * leaves + 64:
        return 0
    return max(1, deepest)


def _complete(e: Ensemble, column: Array, edge: Array, steps: int) -> dict[str, Array | None]:
    size = 1 << steps
    columns = np.zeros((e.trees, size), np.int32)
    edges = np.full((e.trees, size), np.iinfo(edge.dtype).max, edge.dtype)
    slots = np.zeros((e.trees, size), np.int64)
    level, place, tree = e.roots.astype(np.int64), np.ones(e.trees, np.int64), np.arange(e.trees)
    for depth in range(steps + 1):
        leaf = e.feature[level] < 0
        # A leaf above the bottom is reached by going left all the way.
        slots[tree[leaf], (place[leaf] << (steps - depth)) - size] = e.leaf[level[leaf]]
        level, place, tree = level[~leaf], place[~leaf], tree[~leaf]
        columns[tree, place] = column[level]
        edges[tree, place] = edge[level]
        level = np.concatenate([e.left[level], e.right[level]])
        place = np.concatenate([2 * place, 2 * place + 1])
        tree = np.concatenate([tree, tree])
    values = e.values[slots.reshape(-1)]
    return {"column": columns.reshape(-1), "edge": edges.reshape(-1), "nodes": None, "roots": None,
            "values": values.reshape(-1), "slot": None}  # fmt: skip


def _linked(e: Ensemble, column: Array, edge: Array, _steps: int) -> dict[str, Array | None]:
    """Tree after tree, each level by level; of two children the left one first."""
    roots = np.zeros(e.trees, np.int32)
    count = int(np.count_nonzero(e.depths >= 0))
    columns = np.zeros(count, np.int32)
    edges = np.full(count, np.iinfo(edge.dtype).max, edge.dtype)
    link = np.arange(count, dtype=np.int32)
    leaf = np.zeros(count, np.int32)
    at = 0
    for tree, root in enumerate(e.roots):
        roots[tree] = at
        level = np.array([root], np.int32)
        while level.size:
            here = at + np.arange(level.size, dtype=np.int32)
            at += level.size
            deeper = e.feature[level] >= 0
            leaf[here[~deeper]] = e.leaf[level[~deeper]]
            here, level = here[deeper], level[deeper]
            columns[here], edges[here] = column[level], edge[level]
            link[here] = at + 2 * np.arange(level.size, dtype=np.int32)
            level = np.stack([e.left[level], e.right[level]], 1).reshape(-1)
    wide = e.width > 1
    values = e.values.reshape(-1) if wide else e.values[leaf, 0]
    nodes = np.zeros((count, WORDS), np.int32)
    nodes[:, -2:] = np.stack([columns, link * WORDS], 1)
    if edge.dtype == np.int64:
        nodes[:, :2] = edges.view(np.int32).reshape(-1, 2)
    else:
        nodes[:, :3] = np.stack([edges, columns, link * WORDS], 1)
    return {"column": None, "edge": None, "nodes": nodes.reshape(-1), "roots": roots * WORDS, "values": values,
            "slot": leaf if wide else None}  # fmt: skip
