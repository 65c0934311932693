"""The schedule of ``trees``: one kernel that takes any range of rows.

Rows go through in blocks of eight and more: each tree is descended by eight rows at a time, so that eight loads are
on their way at once, and a tree serves the whole block while it is in the cache. Fewer rows than eight go one by
one, eight trees at a time. A descent has no branches and gathers nothing into vectors; each row's leaves are added
in the order of the trees either way. ``layout`` has the arrays, ``finish`` what is made of the sums.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fleetui.workshop.graph.ir import Array, Value
from fleetui.workshop.kernel import Arg, Group, Kernel, Packed, Temporary
from fleetui.workshop.schedules.emit import function, integer, least, local, number, sequence, serial, store
from fleetui.workshop.schedules.rules import Context, Rule
from fleetui.workshop.trees import finish, keying
from fleetui.workshop.trees.ensemble import Aggregate, Ensemble
from fleetui.workshop.trees.layout import WORDS, Block, Layout, lay_out
from fleetui.workshop.trees.primitive import ensemble_of

Expr = Any
Stmt = Any
Buffer = Any

LANES = 8
"""Descents at a time: their places fit the registers of every target with 16, or nearly."""
BLOCK = 256
"""Most rows that a tree serves while it is in the cache: forests bigger than the cache gain by it."""
STACK = 32 << 10
STACK_STATIC = 2 << 10
"""Keys of a block lie on the stack up to so many bytes, else in the workspace."""
CHECK = 4
"""In linked trees, so many steps between two looks at whether anybody still moves."""
GRAIN = 32


class Trees:
    name = "trees"

    def matches(self, group: Group, _context: Context) -> bool:
        return group.anchor.op == "trees" and len(group.nodes) == 1

    def lower(self, group: Group, context: Context) -> list[Kernel]:
        node = group.anchor
        e = ensemble_of(node.attrs)
        x = node.input(0)
        layout = lay_out(e, x.dtype)
        budget = STACK_STATIC if context.target.static else STACK
        return [_Writer(e, layout, x, node.outputs, budget).kernel()]


@dataclass(slots=True)
class _Writer:
    e: Ensemble
    layout: Layout
    x: Value
    outputs: list[Value]
    budget: int
    args: list[Arg] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    block: int = LANES
    on_stack: bool = True
    keys: Buffer = None
    read: dict[str, Buffer] = field(default_factory=dict)

    def kernel(self) -> Kernel:
        from tvm import tirx

        e, layout = self.e, self.layout
        size = layout.columns * (8 if layout.key == "int64" else 4)
        self.on_stack = LANES * size <= self.budget
        self.block = max(LANES, min(BLOCK, self.budget // size // LANES * LANES)) if self.on_stack else LANES
        self.read["x"] = self._parameter("x", self.x, (1, e.features), self.x.dtype)
        for name in ("column", "edge", "nodes", "roots", "values", "slot", "sets"):
            array: Array | None = getattr(layout, name)
            if array is not None:
                self._constant(name, array)
        if layout.nodes is not None and layout.key == "int64":
            wide = layout.nodes.view(np.int64)
            self._constant("wide", wide)
        self._constant("base", e.base)
        if self._scattered():
            self._constant("target", e.column)
        for index, block in enumerate(layout.blocks):
            if not block.whole:
                self._constant(f"features{index}", block.features)
        finish.constants(e, self._constant)
        first = len(self.args)
        if not self.on_stack:
            keys = Temporary("keys", (LANES * layout.columns,), layout.key, per_worker=True)
            self.keys = self._parameter("keys", keys, keys.shape, layout.key)
        outs = len(self.args)
        for index, value in enumerate(self.outputs):
            self._parameter(f"out{index}", value, (1, *_row_shape(value)), value.dtype)
        lo, hi = tirx.Var("lo", "int32"), tirx.Var("hi", "int32")
        body = self._range(lo, hi)
        func = function([*self.buffers, lo, hi], body)
        rows = self.x.shape[0]
        inner = (e.feature >= 0) & (e.depths >= 0)
        ends = e.depths[(e.feature < 0) & (e.depths >= 0)]
        visits = e.trees * float(ends.mean()) if e.trees else 0.0
        return Kernel(
            key=f"trees-{self._digest()}",
            func=func,
            args=self.args,
            outputs=list(range(first, len(self.args))) if not self.on_stack else list(range(outs, len(self.args))),
            extent=rows,
            grain=GRAIN,
            flops=int(rows * (5 * visits + e.trees * e.width)),
            moved=12 * int(min(rows * visits, float(np.count_nonzero(inner)))) + self.x.nbytes,
            detail={
                "range": True,
                "rows": True,
                "layout": f"complete {layout.steps}" if layout.steps else "linked",
                "block": self.block,
                "columns": layout.columns,
            },
        )

    def _digest(self) -> str:
        """Of everything the code depends on; thresholds, features and leaves are arguments."""
        e, layout = self.e, self.layout
        about = (
            e.features, e.outputs, e.trees, e.width, e.dtype, e.compare, e.aggregate, e.divisor, e.base_first,
            e.base.any(), e.flat, e.posts, e.category, self.x.dtype, layout.key,
            layout.steps, layout.columns, layout.words,
            layout.first_category, [(b.mode, b.start, b.count, b.whole) for b in layout.blocks],
            layout.sets is None, self.block, self.on_stack, [v.dtype for v in self.outputs],
        )  # fmt: skip
        return hashlib.sha256(repr(about).encode()).hexdigest()[:16]

    # ------------------------------------------------------------ parameters

    def _parameter(
        self, name: str, source: Value | Packed | Temporary, shape: tuple[int, ...], dtype: str
    ) -> Buffer:
        from tvm import tirx

        made = tirx.decl_buffer(shape, dtype, name=name)
        self.args.append(Arg(source))
        self.buffers.append(made)
        self.read[name] = made
        return made

    def _constant(self, name: str, array: Array) -> Buffer:
        flat = np.ascontiguousarray(array).reshape(-1)
        return self._parameter(name, Packed(name, flat), flat.shape, str(flat.dtype))

    def _at(self, name: str, *indices: Expr) -> Expr:
        from tvm import tirx

        return tirx.BufferLoad(self.read[name], list(indices))

    def _scattered(self) -> bool:
        """Does a tree's leaf go to one output of several?"""
        return self.e.width == 1 and self.e.outputs > 1

    # ------------------------------------------------------------ rows

    def _range(self, lo: Expr, hi: Expr) -> Stmt:
        from tvm import tirx

        count = hi - lo
        many = tirx.floordiv(count, LANES) * LANES
        statements: list[Stmt] = []
        if self.on_stack:
            self.keys, made = local("keys", self.block * self.layout.columns, self.layout.key)
            statements.append(made)
        statements.append(serial("block", tirx.ceildiv(many, self.block), lambda b: self._block(lo, many, b)))
        statements.append(serial("rest", count - many, lambda r: self._single(lo + many + r)))
        return sequence(statements)

    def _block(self, lo: Expr, many: Expr, number_: Expr) -> Stmt:
        """Some eights of rows."""
        from tvm import tirx

        start = lo + number_ * self.block
        groups = tirx.floordiv(least(integer(self.block), many - number_ * self.block), LANES)
        rows = groups * LANES

        def tree(t: Expr) -> Stmt:
            return serial("group", groups, lambda g: group(t, g))

        def group(t: Expr, g: Expr) -> Stmt:
            spots = [(g * LANES + j) * self.layout.columns for j in range(LANES)]
            places, body = self._descend([t] * LANES, spots)
            adds = [self._add(_wide(start + g * LANES + j), t, place) for j, place in enumerate(places)]
            return sequence([*body, *adds])

        return sequence(
            [
                serial("row", rows, lambda q: self._keys(_wide(start + q), q * self.layout.columns)),
                serial("row", rows, lambda q: self._begin(_wide(start + q))),
                serial("tree", self.e.trees, tree) if self.e.trees else [],
                serial("row", rows, lambda q: self._finish(_wide(start + q))),
            ]
        )

    def _single(self, row: Expr) -> Stmt:
        whole, rest = divmod(self.e.trees, LANES)
        at = _wide(row)

        def group(first: Expr, lanes: int) -> Stmt:
            trees = [first + j for j in range(lanes)]
            places, body = self._descend(trees, [integer(0)] * lanes)
            return sequence([*body, *(self._add(at, t, p) for t, p in zip(trees, places, strict=True))])

        statements = [self._keys(at, integer(0)), self._begin(at)]
        if whole:
            statements.append(serial("group", whole, lambda g: group(g * LANES, LANES)))
        if rest:
            statements.append(group(integer(whole * LANES), rest))
        return sequence([*statements, self._finish(at)])

    # ------------------------------------------------------------ keys

    def _keys(self, row: Expr, spot: Expr) -> Stmt:
        e, layout = self.e, self.layout
        loops: list[Stmt] = []
        for index, block in enumerate(layout.blocks):

            def one(c: Expr, index: int = index, block: Block = block) -> Stmt:
                feature = c if block.whole else self._at(f"features{index}", c)
                return store(
                    self.keys,
                    [spot + block.start + c],
                    keying.key(e, layout, self._at("x", row, feature), block.mode),
                )

            loops.append(serial("column", block.count, one))
        return sequence(loops)

    # ------------------------------------------------------------ descent

    def _right(self, column: Expr, edge: Expr, spot: Expr) -> Expr:
        """1 where the row at ``spot`` goes right, else 0."""
        from tvm import tirx

        key = self.layout.key
        value = tirx.BufferLoad(self.keys, [spot + column])
        right = tirx.Cast("int32", value >= edge)
        if self.layout.sets is None:
            return right
        inside = column >= integer(self.layout.first_category)
        narrow = (lambda v: tirx.Cast("int32", v)) if key == "int64" else (lambda v: v)
        place = narrow(value)
        word = tirx.Select(inside, narrow(edge) + tirx.shift_right(place, integer(5)), integer(0))
        bit = tirx.shift_right(self._at("sets", word), place & integer(31)) & integer(1)
        return tirx.Select(inside, bit, right)

    def _descend(self, trees: list[Expr], spots: list[Expr]) -> tuple[list[Expr], list[Stmt]]:
        """Where each lane ends (an index into leaf slots), and the statements that find it."""
        return self._complete(trees, spots) if self.layout.steps else self._linked(trees, spots)

    def _complete(self, trees: list[Expr], spots: list[Expr]) -> tuple[list[Expr], list[Stmt]]:
        from tvm import tirx

        size = 1 << self.layout.steps
        lanes = len(trees)
        at, made = local("at", lanes, "int32")
        statements: list[Stmt] = [made]

        def here(j: int) -> Expr:
            return tirx.BufferLoad(at, [integer(j)])

        # Places lie in an array, which becomes registers: as variables they would be put in for each other.
        for step in range(self.layout.steps):
            for j, (tree, spot) in enumerate(zip(trees, spots, strict=True)):
                place = here(j) if step else integer(1)
                node = tree * size + place
                right = self._right(self._at("column", node), self._at("edge", node), spot)
                statements.append(store(at, [integer(j)], place * 2 + right))
        return [tree * size + here(j) - size for j, tree in enumerate(trees)], statements

    def _linked(self, trees: list[Expr], spots: list[Expr]) -> tuple[list[Expr], list[Stmt]]:
        from tvm import tirx

        lanes = len(trees)
        at, made = local("at", lanes, "int32")
        moved, told = local("moved", 1, "int32")
        zero = integer(0)

        def here(j: int) -> Expr:
            return tirx.BufferLoad(at, [integer(j)])

        def step(node: Expr, spot: Expr) -> Expr:
            if self.layout.key == "int64":
                edge, column, link = self._at("wide", tirx.shift_right(node, integer(1))), 2, 3
            else:
                edge, column, link = self._at("nodes", node), 1, 2
            right = self._right(self._at("nodes", node + column), edge, spot)
            return self._at("nodes", node + link) + right * WORDS

        statements = [made, told]
        statements += [store(at, [integer(j)], self._at("roots", tree)) for j, tree in enumerate(trees)]
        statements.append(store(moved, [zero], integer(1)))
        body = [store(at, [integer(j)], step(here(j), spots[j])) for _ in range(CHECK - 1) for j in range(lanes)]
        change: Expr = zero
        for j in range(lanes):
            was, now = tirx.Var(f"was{j}", "int32"), tirx.Var(f"now{j}", "int32")
            body += [tirx.Bind(was, here(j)), tirx.Bind(now, step(was, spots[j])), store(at, [integer(j)], now)]
            # Links only lead forward. Added up, not compared one by one: that would become unforeseeable branches.
            change = change + (now - was)
        body.append(store(moved, [zero], change))
        statements.append(tirx.While(tirx.BufferLoad(moved, [zero]) != zero, sequence(body)))
        ends = [tirx.shift_right(here(j), integer(WORDS.bit_length() - 1)) for j in range(lanes)]
        return ends, statements

    # ------------------------------------------------------------ scores

    def _score(self, row: Expr, k: Expr) -> tuple[Buffer, list[Expr]]:
        out = self.read["out0"]
        return (out, [row]) if len(self.outputs[0].shape) == 1 else (out, [row, k])

    def _each(self, count: int, body: Callable[[Expr], Stmt]) -> Stmt:
        return sequence([body(integer(k)) for k in range(count)]) if count <= LANES else serial("k", count, body)

    def _begin(self, row: Expr) -> Stmt:
        e = self.e
        start = {Aggregate.MIN: float("inf"), Aggregate.MAX: -float("inf")}.get(e.aggregate, 0.0)

        def one(k: Expr) -> Stmt:
            value = self._at("base", k) if e.base_first else number(start, e.dtype)
            return store(*self._score(row, k), value)

        return self._each(e.outputs, one)

    def _add(self, row: Expr, tree: Expr, place: Expr) -> Stmt:
        from tvm import tirx

        e = self.e
        join = {Aggregate.MIN: tirx.min, Aggregate.MAX: tirx.max}.get(e.aggregate, lambda a, b: a + b)

        def onto(k: Expr, value: Expr) -> Stmt:
            buffer, indices = self._score(row, k)
            return store(buffer, indices, join(tirx.BufferLoad(buffer, indices), value))

        if e.width == 1:
            k = self._at("target", tree) if self._scattered() else integer(0)
            return onto(k, self._at("values", place))
        first = (self._at("slot", place) if self.layout.slot is not None else place) * e.width
        return self._each(e.width, lambda k: onto(k, self._at("values", first + k)))

    def _finish(self, row: Expr) -> Stmt:
        from tvm import tirx

        e = self.e
        statements: list[Stmt] = []

        def one(k: Expr) -> Stmt:
            buffer, indices = self._score(row, k)
            value = tirx.BufferLoad(buffer, indices)
            if e.divisor != 1.0:
                value = value / number(e.divisor, e.dtype)
            return store(buffer, indices, value if e.base_first else value + self._at("base", k))

        if e.divisor != 1.0 or not (e.base_first or not e.base.any()):
            statements.append(self._each(e.outputs, one))

        def score(k: Expr) -> Expr:
            buffer, indices = self._score(row, k)
            return tirx.BufferLoad(buffer, indices)

        for index, post in enumerate(e.posts):
            statements.append(finish.post(post, index, e, row, score, self.read))
        return sequence(statements) if statements else tirx.Evaluate(integer(0))


def _row_shape(value: Value) -> tuple[int, ...]:
    return value.shape[1:]


def _wide(row: Expr) -> Expr:
    """Rows times features may pass 2^31."""
    from tvm import tirx

    return tirx.Cast("int64", row)


RULES: list[Rule] = [Trees()]
