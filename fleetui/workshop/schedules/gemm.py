"""Rows times panels: the one loop nest behind dense layers, matrix products, attention and recurrent networks.

A block of ``rows`` × ``vectors`` accumulators stays in registers while the depth is walked; a panel of the right
operand (``vectors`` wide, the whole depth long) stays in the second-level cache while the rows of a chunk pass by.
Ragged edges get blocks of their own, so the hot loop has no branches. Where the operands come from and where the
results go is the caller's: readers and a finisher make the expressions. Nothing here knows graph nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

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
from fleetui.workshop.target import Target

CHAIN = 8
"""Independent sums that keep two multiply-add units of latency four busy."""
STREAMS = 2
"""A single row walks its panel in two places at once: two streams fill the first-level cache faster than one."""
WIDE = 3
"""From so many vectors on; narrower panels gain nothing by it."""
WORTH = 8e-6
"""Seconds of work that pay for waking a thread."""


@dataclass(frozen=True, slots=True)
class Size:
    """A product of ``rows`` × ``depth`` by ``depth`` × ``columns``, ``batch`` times."""

    rows: int
    depth: int
    columns: int
    batch: int = 1

    @property
    def flops(self) -> int:
        return 2 * self.batch * self.rows * self.depth * self.columns


@dataclass(frozen=True, slots=True)
class Plan:
    """``rows`` × ``vectors`` accumulators of ``lanes``; ``chunk`` is how many such row blocks make a task."""

    rows: int
    vectors: int
    lanes: int
    chunk: int

    @property
    def width(self) -> int:
        return self.vectors * self.lanes

    def panels(self, size: Size) -> int:
        return -(-size.columns // self.width)

    def chunks(self, size: Size) -> int:
        return max(1, -(-(size.rows // self.rows) // self.chunk))

    def tasks(self, size: Size) -> int:
        return size.batch * self.panels(size) * self.chunks(size)

    @property
    def label(self) -> str:
        return f"{self.rows}x{self.vectors}x{self.lanes}c{self.chunk}"


@dataclass(frozen=True, slots=True)
class Spot:
    """Where in the right operand a sum is being made. ``column`` is the panel's first; ``block`` as in Right."""

    batch: Expr
    panel: Expr
    column: Expr
    block: Expr


Left = Callable[[Expr, Expr, Expr], Expr]
"""``left(batch, row, k)``: one element of the left operand, in the dtype of the sums."""


class Right(Protocol):
    """Panels of the right operand. ``step`` depths are read together (two where two share a byte)."""

    @property
    def step(self) -> int: ...

    @property
    def block(self) -> int:
        """Depths that share a scale (0: there are none); a multiple of ``step``."""
        ...

    @property
    def decoded(self) -> bool:
        """Whether reading takes more than a load."""
        ...

    @property
    def factors(self) -> tuple[float, ...]:
        """Powers of two by which ``read`` falls short, for each part of a step; empty: none."""
        ...

    def read(self, at: Spot, k: Expr, part: int, start: int, width: int) -> Expr:
        """A vector of ``width`` columns from ``start`` within the panel, at depth ``k + part``, part < step."""
        ...

    def scale(self, at: Spot, start: int, width: int) -> Expr:
        """What the sum over one block is multiplied with."""
        ...


Finish = Callable[[Expr, Expr, Expr, Expr], Stmt]
"""``finish(batch, row, column, sum)``: store one element; it stands in a vector loop over columns."""


def broadcast(value: Expr, lanes: int) -> Expr:
    from tvm import tirx

    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def lanes_at(start: Expr | int, lanes: int) -> Expr:
    """The index of ``lanes`` neighbours."""
    from tvm import tirx

    base = integer(start) if isinstance(start, int) else start
    return base if lanes == 1 else tirx.Ramp(base, integer(1), lanes)


def load(source: Expr, indices: list[Expr], lanes: int) -> Expr:
    """``lanes`` neighbours along the last dimension."""
    from tvm import tirx

    return tirx.BufferLoad(source, [*indices[:-1], lanes_at(indices[-1], lanes)])


# -------------------------------------------------------------------- choosing a plan


def _block_cost(rows: int, vectors: int, decode: float) -> float:
    """Cycles for one depth of a block: multiply-adds and loads go two at a time."""
    arithmetic = rows * vectors + decode * vectors
    return max(arithmetic, rows + vectors, 1.0) / 2 + 0.3


def cost(size: Size, plan: Plan, target: Target, decode: float = 0.0) -> float:
    """Cycles, for comparing plans of one size. Each row block walks the panels anew, from the cache they are in."""
    full, rest = divmod(size.columns, plan.width)
    widths = [plan.vectors] * full + ([-(-rest // plan.lanes)] if rest else [])
    rows = [plan.rows] * (size.rows // plan.rows) + ([size.rows % plan.rows] if size.rows % plan.rows else [])
    line = target.lanes(32) * 4
    fits = size.depth * plan.vectors * line <= target.l2 // 2
    total = 0.0
    for v in set(widths):
        fetch = v * (1.0 if fits else 4.0) * 0.75
        for r in set(rows):
            once = _block_cost(r, v, decode)
            again = max(once, fetch)
            total += widths.count(v) * (again * rows.count(r) - (again - once if r == rows[0] else 0.0))
    return size.depth * total + len(widths) * len(rows) * plan.rows * plan.vectors * 2.0


def choose_plan(size: Size, target: Target, bits: int = 32, *, decode: float = 0.0, spare: int = 1) -> Plan:
    """The cheapest register block; ``decode`` is the work to make one vector of the right operand."""
    lanes = target.lanes(bits)
    limit = target.registers if target.vector else 8
    best: tuple[float, Plan] | None = None
    most = -(-size.columns // lanes)
    for rows in range(1, min(size.rows, 16) + 1):
        for vectors in range(1, min(most, 8 if rows == 1 else 6) + 1):
            if rows * vectors + vectors + spare > limit:
                break
            plan = Plan(rows, vectors, lanes, 1)
            price = cost(size, plan, target, decode)
            if best is None or price < best[0] * 0.999:
                best = price, plan
    plan = best[1] if best else Plan(1, 1, lanes, 1)
    return replace(plan, chunk=_chunk(size, plan, target, bits))


def _chunk(size: Size, plan: Plan, target: Target, bits: int) -> int:
    """Row blocks per task: the rows of a task fit half the second-level cache, and there are tasks enough."""
    blocks = max(1, size.rows // plan.rows)
    fitting = max(1, (target.l2 // 2) // max(1, plan.rows * size.depth * bits // 8))
    chunk = min(blocks, fitting)
    tasks = size.batch * plan.panels(size)
    seconds = size.flops / (target.gflops * 1e9)
    wanted = min(16, int(seconds / WORTH))
    if tasks * -(-blocks // chunk) < wanted:
        chunk = max(1, blocks * tasks // wanted)
    return -(-blocks // -(-blocks // chunk))


def grain(size: Size, plan: Plan, target: Target, moved: int) -> int:
    """Tasks that are worth a thread."""
    seconds = max(size.flops / (target.gflops * 1e9), moved / target.bandwidth)
    each = seconds / plan.tasks(size)
    return max(1, min(plan.tasks(size), int(WORTH / max(each, 1e-12)) + 1))


# -------------------------------------------------------------------- the loops


def multiply_add(total: Expr, left: Expr, right: Expr) -> Expr:
    return total + left * right


@dataclass(slots=True)
class Product:
    """Everything the loop nest needs to know; ``dtype`` is what the sums are in."""

    size: Size
    plan: Plan
    left: Left
    right: Right
    finish: Finish
    dtype: str = "float32"
    overlap: bool = False
    """The last panel is moved back to end with the last column (right operands that are not padded)."""
    ragged: bool = False
    """Nothing may be read beyond the last column, and panels do not overlap."""
    heavy: bool = False
    """Finishing takes so many instructions that it is not written out for every register."""

    combine: Callable[[Expr, Expr, Expr], Expr] = multiply_add
    """``combine(sum, left, right)``, vectors all three: the new sum."""

    def body(self) -> Stmt:
        """The whole product, its tasks in the parallel loop."""
        size, plan = self.size, self.plan
        panels, chunks = plan.panels(size), plan.chunks(size)

        def task(at: Expr) -> Stmt:
            panel = at % panels if size.batch * chunks > 1 else at
            chunk = (at // panels) % chunks if chunks > 1 else integer(0)
            batch = at // (panels * chunks) if size.batch > 1 else integer(0)
            return self.columns(batch, panel, chunk)

        return parallel(plan.tasks(size), task)

    def inline(self, batch: Expr) -> Stmt:
        """The whole product of one batch, one panel after the other: a part of a bigger kernel."""
        full, rest = divmod(self.size.columns, self.plan.width)
        if self.overlap and full and rest:
            full, rest = full + 1, 0
        everything, made = replace(self, plan=replace(self.plan, chunk=self.size.rows)), []
        if full:
            made.append(serial("panel", full, lambda p: everything.rows(batch, p, integer(0), self.plan.width)))
        if rest:
            made.append(everything.rows(batch, integer(full), integer(0), rest))
        return sequence(made)

    def columns(self, batch: Expr, panel: Expr, chunk: Expr) -> Stmt:
        """One task. The last panel is narrower, unless it overlaps."""
        full, rest = divmod(self.size.columns, self.plan.width)
        if rest == 0 or (self.overlap and full):
            return self.rows(batch, panel, chunk, self.plan.width)
        if full == 0:
            return self.rows(batch, panel, chunk, rest)
        return choose(
            panel < integer(full),
            self.rows(batch, panel, chunk, self.plan.width),
            self.rows(batch, panel, chunk, rest),
        )

    def rows(self, batch: Expr, panel: Expr, chunk: Expr, width: int) -> Stmt:
        size, plan = self.size, self.plan
        blocks, rest = divmod(size.rows, plan.rows)
        chunks = plan.chunks(size)
        made: list[Stmt] = []
        if blocks:
            first = chunk * integer(plan.chunk) if chunks > 1 else integer(0)
            count: Expr | int = blocks
            if chunks > 1:
                count = (
                    plan.chunk if blocks % plan.chunk == 0 else least(integer(plan.chunk), integer(blocks) - first)
                )
            made.append(
                serial(
                    "block",
                    count,
                    lambda at: self.block(batch, panel, (first + at) * integer(plan.rows), plan.rows, width),
                )
            )
        if rest:
            last = self.block(batch, panel, integer(blocks * plan.rows), rest, width)
            made.append(choose(chunk == integer(chunks - 1), last) if chunks > 1 else last)
        return sequence(made)

    def first_column(self, panel: Expr) -> Expr:
        start = panel * integer(self.plan.width)
        if self.overlap and self.size.columns % self.plan.width and self.size.columns > self.plan.width:
            return least(start, integer(self.size.columns - self.plan.width))
        return start

    def block(self, batch: Expr, panel: Expr, row: Expr, rows: int, width: int) -> Stmt:
        """One block of accumulators over the whole depth, and what follows."""
        lanes = self.plan.lanes
        parts = (
            pieces(width, lanes) if self.overlap or self.ragged else [(at, lanes) for at in range(0, width, lanes)]
        )
        step, depth = self.right.step, self.size.depth
        streams = STREAMS if rows == 1 and len(parts) >= WIDE and depth >= 4 * STREAMS * step else 1
        chains = streams * _chains(rows * len(parts) * streams, depth // streams, step)
        slots = len(parts) * lanes
        sums, made = local("sum", chains * rows * slots, self.dtype)
        out: list[Stmt] = [made]
        wide, made = local("wide", slots if self.right.decoded else 1, self.dtype)
        if self.right.decoded:
            out.append(made)
        column = self.first_column(panel)
        spot = Spot(batch, panel, column, integer(0))

        def at(chain: int, i: int, j: int) -> int:
            return (chain * rows + i) * slots + j * lanes

        def clear(target: Expr, count: int) -> list[Stmt]:
            return [
                store(target, [lanes_at(at(c, i, j), w)], broadcast(number(0, self.dtype), w))
                for c in range(count)
                for i in range(rows)
                for j, (_, w) in enumerate(parts)
            ]

        def multiply(
            target: Expr, spot: Spot, k: Expr, depths: int, first: int = 0, among: int = chains
        ) -> list[Stmt]:
            """``depths`` steps from ``k`` on, into the sums ``first`` to ``first + among`` in turn."""
            statements: list[Stmt] = []
            for d in range(depths):
                chain, part = first + (d // step) % among, d % step
                base = k + integer(d - part)
                vectors = [self.right.read(spot, base, part, s, w) for s, w in parts]
                factor = number(self.right.factors[part], self.dtype) if self.right.factors else None
                if rows > 1 and self.right.decoded:
                    # widened once for all rows
                    for j, (_, w) in enumerate(parts):
                        whole = vectors[j] if factor is None else vectors[j] * broadcast(factor, w)
                        statements.append(store(wide, [lanes_at(j * lanes, w)], whole))
                    factor = None
                    vectors = [load(wide, [integer(j * lanes)], w) for j, (_, w) in enumerate(parts)]
                for i in range(rows):
                    one = self.left(batch, row + integer(i), k + integer(d))
                    if factor is not None:
                        one = one * factor
                    for j, (_, w) in enumerate(parts):
                        where = [lanes_at(at(chain, i, j), w)]
                        before = load(target, [integer(at(chain, i, j))], w)
                        total = self.combine(before, broadcast(one, w), vectors[j])
                        statements.append(store(target, where, total))
            return statements

        def walk(target: Expr, spot: Spot, start: Expr, length: int) -> list[Stmt]:
            each = chains // streams
            unroll = step * each * max(1, CHAIN // (rows * len(parts) * each * step))
            far = length // streams // unroll * unroll

            def both(q: Expr) -> Stmt:
                near = start + q * integer(unroll)
                return sequence(
                    part
                    for s in range(streams)
                    for part in multiply(target, spot, near + integer(s * far), unroll, s * each, each)
                )

            statements: list[Stmt] = [serial("k", far // unroll, both)] if far else []
            if length > far * streams:
                statements += multiply(target, spot, start + integer(far * streams), length - far * streams)
            return statements

        def gather(target: Expr) -> list[Stmt]:
            statements: list[Stmt] = []
            for i in range(rows):
                for j, (_, w) in enumerate(parts):
                    terms = [load(target, [integer(at(c, i, j))], w) for c in range(chains)]
                    while len(terms) > 1:
                        terms = [
                            terms[n] + terms[n + 1] if n + 1 < len(terms) else terms[n]
                            for n in range(0, len(terms), 2)
                        ]
                    if chains > 1:
                        statements.append(store(target, [lanes_at(at(0, i, j), w)], terms[0]))
            return statements

        block = self.right.block
        if block:
            inner, declared = local("part", chains * rows * slots, self.dtype)
            out.append(declared)
            out += clear(sums, 1)

            def scaled(b: Expr, length: int) -> Stmt:
                statements = [
                    *clear(inner, chains),
                    *walk(inner, replace(spot, block=b), b * integer(block), length),
                    *gather(inner),
                ]
                for j, (s, w) in enumerate(parts):
                    factor = self.right.scale(replace(spot, block=b), s, w)
                    for i in range(rows):
                        total = (
                            load(sums, [integer(at(0, i, j))], w) + load(inner, [integer(at(0, i, j))], w) * factor
                        )
                        statements.append(store(sums, [lanes_at(at(0, i, j), w)], total))
                return sequence(statements)

            whole, rest = divmod(depth, block)
            if whole:
                out.append(serial("b", whole, lambda b: scaled(b, block)))
            if rest:
                out.append(scaled(integer(whole), rest))
        else:
            out += [*clear(sums, chains), *walk(sums, spot, integer(0), depth), *gather(sums)]
        if self.heavy and rows * len(parts) > 1:
            return sequence([*out, *self._elsewhere(sums, at, batch, row, rows, column, parts, width)])
        for i in range(rows):
            for j, (s, w) in enumerate(parts):
                for begin, count in pieces(min(w, width - s), lanes):
                    place, offset = at(0, i, j) + begin, s + begin

                    def element(lane: Expr, i: int = i, place: int = place, offset: int = offset) -> Stmt:
                        value = load(sums, [integer(place) + lane], 1)
                        return self.finish(batch, row + integer(i), column + integer(offset) + lane, value)

                    out.append(vector(count, element))
        return sequence(out)

    def _elsewhere(
        self,
        sums: Expr,
        at: Callable[[int, int, int], int],
        batch: Expr,
        row: Expr,
        rows: int,
        column: Expr,
        parts: list[tuple[int, int]],
        width: int,
    ) -> list[Stmt]:
        """Sums go to memory first and are finished in a loop: long chains would be repeated for every register."""
        lanes = self.plan.lanes
        done, made = local("done", rows * len(parts) * lanes, self.dtype)
        out: list[Stmt] = [made]
        for i in range(rows):
            for j, (_, w) in enumerate(parts):
                value = load(sums, [integer(at(0, i, j))], w)
                out.append(store(done, [lanes_at(at(0, i, j), w)], value))
        line = len(parts) * lanes
        full = sum(1 for s, w in parts if min(w, width - s) == lanes)

        def finished(i: Expr, slot: Expr, offset: Expr, count: int) -> Stmt:
            def element(lane: Expr) -> Stmt:
                value = load(done, [i * integer(line) + slot + lane], 1)
                return self.finish(batch, row + i, column + offset + lane, value)

            return vector(count, element)

        def line_of(i: Expr) -> Stmt:
            statements: list[Stmt] = []
            if full:
                statements.append(
                    serial("v", full, lambda v: finished(i, v * integer(lanes), v * integer(lanes), lanes))
                )
            for j, (s, w) in enumerate(parts[full:], full):
                for begin, count in pieces(min(w, width - s), lanes):
                    statements.append(finished(i, integer(j * lanes + begin), integer(s + begin), count))
            return sequence(statements)

        return [*out, serial("i", rows, line_of)]


def _chains(accumulators: int, depth: int, step: int) -> int:
    """Sums per accumulator: few accumulators alone would wait for each other."""
    chains = 1
    while accumulators * chains < CHAIN and chains * 2 * step <= depth:
        chains *= 2
    return chains
