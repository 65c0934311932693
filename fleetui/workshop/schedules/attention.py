"""Attention without the matrix of scores in memory.

A task takes a tile of queries of one head, turned so that queries lie along vectors. Scores of a block of keys come
out as rows of that tile; greatest, exponential and sum then need no step across lanes. A second product with the
values follows. Beyond one block of keys, results are carried on with running maxima and sums, so scratch stays
small whatever the length. Nothing is fused behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleetui.workshop.graph.ir import BITS
from fleetui.workshop.kernel import Group, Kernel, Temporary
from fleetui.workshop.schedules import gemm
from fleetui.workshop.schedules.emit import (
    Expr,
    Stmt,
    choose,
    integer,
    least,
    local,
    number,
    parallel,
    pieces,
    sequence,
    serial,
    store,
    vector,
)
from fleetui.workshop.schedules.gemm import Product, Size, broadcast, lanes_at, load
from fleetui.workshop.schedules.mathlib import cast, exp_negative, infinity, let, select
from fleetui.workshop.schedules.operands import Operands, broadcast_to
from fleetui.workshop.schedules.panels import Rows, has_half, widen
from fleetui.workshop.schedules.rules import Context, Rule
from fleetui.workshop.schedules.scalar import scalar
from fleetui.workshop.schedules.turning import turned_copy
from fleetui.workshop.schedules.weights import sum_dtype

KEYS = 256
"""Most keys in a block: their scores for one tile of queries are 32 KiB with the widest vectors."""
CAUSAL_KEYS = 64
"""Smaller blocks where later keys are hidden: a block in which no query sees anything is left out."""

GREATEST, SUM, FACTOR = range(3)
"""Rows of what is kept of each query: the factor brings what was summed under an older greatest to the new one."""


class Attention:
    name = "attention"

    def matches(self, group: Group, context: Context) -> bool:
        # Buffers of bfloat16 are declared as integers, which the generic rule sees to.
        return group.anchor.op == "attention" and len(group.nodes) == 1 and group.anchor.output.dtype != "bfloat16"

    def lower(self, group: Group, context: Context) -> list[Kernel]:
        if group.anchor.output.size == 0:
            return []
        return [_Lowering(group, context).kernel()]


@dataclass(slots=True)
class _Scratch:
    """Per thread: queries [D, tile], scores [keys, tile], results [tile, E]; greatest, sum and factor [3, tile]."""

    turned: Any
    scores: Any
    carried: Any
    stats: Any


class _Lowering:
    def __init__(self, group: Group, context: Context) -> None:
        self.node, self.target, self.context = group.anchor, context.target, context
        node = self.node
        self.batch, self.heads, self.queries, self.depth = node.input(0).shape
        self.shared = self.heads // max(1, node.input(1).shape[1])
        self.keys, self.wide = node.input(1).shape[2], node.input(2).shape[3]
        self.dtype = sum_dtype(node.input(0).dtype)
        self.bits = BITS[self.dtype]
        self.lanes = self.target.lanes(self.bits)
        self.native = has_half(self.target)
        self.causal = bool(node.attrs["causal"])
        self.tile = self.lanes * (2 if self.queries > self.lanes else 1)
        most = CAUSAL_KEYS if self.causal and self.keys > 2 * CAUSAL_KEYS else KEYS
        self.block = max(1, min(self.keys, most))
        self.once = self.keys <= self.block

    def kernel(self) -> Kernel:
        node, operands = self.node, Operands(self.context)
        self.q, self.k, self.v = (operands.value(node.input(i)) for i in range(3))
        mask = node.optional(3)
        self.mask = operands.value(mask) if mask is not None else None
        self.mask_shape = mask.shape if mask is not None else ()
        self.out = operands.value(node.output, output=True)

        def scratch(name: str, *shape: int) -> Any:
            return operands.temporary(Temporary(name, shape, self.dtype, per_worker=True), output=True)

        self.scratch = _Scratch(
            scratch("turned", max(1, self.depth), self.tile),
            scratch("scores", self.block, self.tile),
            None if self.once else scratch("carried", self.tile, self.wide),
            scratch("stats", 3, self.tile),
        )
        tiles = -(-self.queries // self.tile)
        extent = self.batch * self.heads * tiles
        rest = self.queries % self.tile

        def task(at: Expr) -> Stmt:
            tile, head = at % integer(tiles), (at // integer(tiles)) % integer(self.heads)
            where = [at // integer(tiles * self.heads), head]
            first = tile * integer(self.tile)
            if rest == 0:
                return self.task(where, first, self.tile)
            if tiles == 1:
                return self.task(where, first, rest)
            full = self.task(where, first, self.tile)
            return choose(tile < integer(tiles - 1), full, self.task(where, first, rest))

        flops = 2 * self.batch * self.heads * self.queries * self.keys * (self.depth + self.wide + 4)
        each = flops / extent / (self.target.gflops * 1e9)
        attrs = [self.causal, node.attrs["scale"], node.attrs["softcap"]]
        return operands.kernel(
            f"attention {attrs} {mask is not None} {self.tile} {self.block}",
            parallel(extent, task),
            extent=extent,
            grain=max(1, min(extent, int(gemm.WORTH / max(each, 1e-12)) + 1)),
            flops=flops,
        )

    # ------------------------------------------------------------ one tile of queries

    def task(self, where: list[Expr], first: Expr, count: int) -> Stmt:
        made = [self.turn(where, first, count)]
        if self.once:
            made += self.keys_of(where, first, count, integer(0), self.keys)
            return sequence(made)
        low = number(0, self.dtype) - infinity(self.dtype)
        made.append(
            self.beside(count, lambda t: [self.put(GREATEST, t, low), self.put(SUM, t, number(0, self.dtype))]),
        )
        carried = self.scratch.carried
        made.append(
            serial(
                "t",
                count,
                lambda t: self.across(self.wide, lambda e: [store(carried, [t, e], number(0, self.dtype))]),
            )
        )
        whole, rest = divmod(self.keys, self.block)

        def block(at: Expr) -> Stmt:
            return sequence(self.keys_of(where, first, count, at * integer(self.block), self.block))

        seen: Expr | int = whole
        if self.causal:
            seen = least(integer(whole), (first + integer(count - 1)) // integer(self.block) + integer(1))
        made.append(serial("keys", seen, block))
        if rest:
            last = sequence(self.keys_of(where, first, count, integer(whole * self.block), rest))
            made.append(
                choose(first + integer(count - 1) >= integer(whole * self.block), last) if self.causal else last
            )
        made.append(serial("t", count, lambda t: self.across(self.wide, lambda e: [self.give(where, first, t, e)])))
        return sequence(made)

    def across(self, length: int, body: Callable[[Expr], list[Stmt]]) -> Stmt:
        """``body`` for every element of a row, in vectors."""
        full = length // self.lanes
        made: list[Stmt] = []
        if full:
            made.append(
                serial("v", full, lambda v: vector(self.lanes, lambda lane: body(v * integer(self.lanes) + lane)))
            )
        for at, size in pieces(length - full * self.lanes, self.lanes):
            offset = integer(full * self.lanes + at)
            made.append(vector(size, lambda lane, offset=offset: body(offset + lane)))  # type: ignore[misc]  # bound early
        return sequence(made)

    def beside(self, count: int, body: Callable[[Expr], list[Stmt]]) -> Stmt:
        """``body`` for every query of the tile, written out, so that what it keeps can stay in registers."""
        return sequence(
            vector(size, lambda lane, at=at: body(integer(at) + lane))  # type: ignore[misc]  # bound early
            for at, size in pieces(count, self.lanes)
        )

    def put(self, row: int, t: Expr, value: Expr) -> Stmt:
        return store(self.scratch.stats, [integer(row), t], value)

    def get(self, row: int, t: Expr) -> Expr:
        from tvm import tirx

        return tirx.BufferLoad(self.scratch.stats, [integer(row), t])

    def turn(self, where: list[Expr], first: Expr, count: int) -> Stmt:
        """Queries, scaled, one beside the other."""
        factor = number(self.node.attrs["scale"], self.dtype)

        def read(t: Expr, d: Expr, width: int) -> Expr:
            value = widen(load(self.q, [*where, first + t, d], width), self.dtype, native_half=self.native)
            return value * broadcast(factor, width)

        def write(d: Expr, t: Expr, value: Expr, width: int) -> Stmt:
            return store(self.scratch.turned, [d, lanes_at(t, width)], value)

        return turned_copy(count, self.depth, self.lanes, read, write)

    # ------------------------------------------------------------ one block of keys

    def keys_of(self, where: list[Expr], first: Expr, count: int, start: Expr, length: int) -> list[Stmt]:
        return [
            self.score(where, first, count, start, length),
            *self.softmax(count, length),
            self.weigh(where, first, count, start, length),
        ]

    def shared_head(self, where: list[Expr]) -> list[Expr]:
        return [where[0], where[1] // integer(self.shared) if self.shared > 1 else where[1]]

    def score(self, where: list[Expr], first: Expr, count: int, start: Expr, length: int) -> Stmt:
        from tvm import tirx

        size = Size(length, self.depth, count)
        plan = gemm.choose_plan(size, self.target, self.bits)
        own = self.shared_head(where)

        def left(_batch: Expr, u: Expr, d: Expr) -> Expr:
            return widen(tirx.BufferLoad(self.k, [*own, start + u, d]), self.dtype, native_half=self.native)

        def finish(_batch: Expr, u: Expr, t: Expr, total: Expr) -> Stmt:
            return store(self.scratch.scores, [u, t], self.shown(where, first + t, start + u, total))

        right = Rows(self.scratch.turned, self.dtype, lambda _batch: [])
        heavy = bool(self.node.attrs["softcap"])
        return Product(size, plan, left, right, finish, self.dtype, heavy=heavy).inline(integer(0))

    def shown(self, where: list[Expr], t: Expr, u: Expr, score: Expr) -> Expr:
        """The score with everything that changes or hides it."""
        from tvm import tirx

        cap, low = self.node.attrs["softcap"], number(0, self.dtype) - infinity(self.dtype)
        if cap:
            bent = scalar("tanh", [score / number(cap, self.dtype)], {}, [self.dtype], self.dtype)
            score = bent * number(cap, self.dtype)
        if self.mask is not None:
            given = tirx.BufferLoad(self.mask, broadcast_to([*where, t, u], self.mask_shape) or [integer(0)])
            if str(self.mask.ty.dtype) == "bool":
                score = select(given, score, low)
            else:
                score = score + widen(given, self.dtype, native_half=self.native)
        if self.causal:
            score = select(u <= t, score, low)
        return score

    def softmax(self, count: int, length: int) -> list[Stmt]:
        """Scores become weights. The greatest and the sum stay in registers while the keys pass by."""
        from tvm import tirx

        scores, low = self.scratch.scores, number(0, self.dtype) - infinity(self.dtype)
        zero = number(0, self.dtype)
        best, best_made = local("best", self.tile, self.dtype)
        total, total_made = local("total", self.tile, self.dtype)

        def at(u: Expr, t: Expr) -> Expr:
            return tirx.BufferLoad(scores, [u, t])

        def begin(t: Expr) -> list[Stmt]:
            start = low if self.once else self.get(GREATEST, t)
            return [store(best, [t], start), store(total, [t], zero)]

        def greatest(u: Expr) -> Stmt:
            return self.beside(count, lambda t: [store(best, [t], tirx.max(load(best, [t], 1), at(u, t)))])

        def settle(t: Expr) -> list[Stmt]:
            new = load(best, [t], 1)
            # where nothing is seen, any finite number does
            safe = store(best, [t], let(new, lambda v: select(v == low, zero, v)))
            if self.once:
                return [safe]
            kept = self.put(FACTOR, t, self.get(GREATEST, t))
            factor = self.put(FACTOR, t, exp_negative(self.get(FACTOR, t) - new))
            return [kept, self.put(GREATEST, t, new), safe, factor]

        def weight(u: Expr) -> Stmt:
            def one(t: Expr) -> list[Stmt]:
                return [
                    store(scores, [u, t], exp_negative(at(u, t) - load(best, [t], 1))),
                    store(total, [t], load(total, [t], 1) + at(u, t)),
                ]

            return self.beside(count, one)

        def add_up(t: Expr) -> list[Stmt]:
            own = load(total, [t], 1)
            before = zero if self.once else self.get(SUM, t) * self.get(FACTOR, t)
            return [self.put(SUM, t, own + before)]

        return [
            best_made,
            total_made,
            self.beside(count, begin),
            serial("u", length, greatest),
            self.beside(count, settle),
            serial("u", length, weight),
            self.beside(count, add_up),
        ]

    def weigh(self, where: list[Expr], first: Expr, count: int, start: Expr, length: int) -> Stmt:
        """Weights × values: into the output, or added to what was carried."""
        from tvm import tirx

        size = Size(count, length, self.wide)
        plan = gemm.choose_plan(size, self.target, self.bits)
        own = self.shared_head(where)
        dtype = self.node.output.dtype

        def left(_batch: Expr, t: Expr, u: Expr) -> Expr:
            return tirx.BufferLoad(self.scratch.scores, [u, t])

        def finish(_batch: Expr, t: Expr, e: Expr, total: Expr) -> Stmt:
            if self.once:
                return store(self.out, [*where, first + t, e], cast(self.shared_out(t, total), dtype))
            before = tirx.BufferLoad(self.scratch.carried, [t, e]) * self.get(FACTOR, t)
            return store(self.scratch.carried, [t, e], before + total)

        right = _Values(self.v, self.dtype, own, start, self.native)
        # sums that are carried on must not be added twice, so there panels do not overlap
        product = Product(size, plan, left, right, finish, self.dtype, overlap=self.once, ragged=True)
        return product.inline(integer(0))

    def shared_out(self, t: Expr, total: Expr) -> Expr:
        """Divided by the sum of the weights; nothing where nothing was seen."""
        zero = number(0, self.dtype)
        return let(self.get(SUM, t), lambda s: select(s == zero, zero, total / s))

    def give(self, where: list[Expr], first: Expr, t: Expr, e: Expr) -> Stmt:
        from tvm import tirx

        value = self.shared_out(t, tirx.BufferLoad(self.scratch.carried, [t, e]))
        return store(self.out, [*where, first + t, e], cast(value, self.node.output.dtype))


@dataclass(frozen=True, slots=True)
class _Values:
    """The values of a head from one key on, as a right operand."""

    source: Any
    dtype: str
    head: list[Expr]
    start: Expr
    native_half: bool
    step: int = 1
    block: int = 0
    factors: tuple[float, ...] = ()

    @property
    def decoded(self) -> bool:
        return str(self.source.ty.dtype) != self.dtype

    def read(self, at: gemm.Spot, k: Expr, part: int, start: int, width: int) -> Expr:
        where = [*self.head, self.start + k + integer(part), at.column + integer(start)]
        return widen(load(self.source, where, width), self.dtype, native_half=self.native_half)

    def scale(self, at: gemm.Spot, start: int, width: int) -> Expr:
        raise NotImplementedError


RULES: list[Rule] = [Attention()]
