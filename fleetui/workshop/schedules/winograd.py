"""Winograd convolution F(m×m, 3×3), stride 1: fewer multiplications, paid for with transforms and bigger weights.

A task is a strip of tiles (and, where there are few strips, a part of the output channels). It transforms the
strip's input into scratch of its own, and then, one panel of output channels after the other, multiplies for each
of the (m+2)² places in the tile and transforms the panel back, so that only one panel's products ever exist and
they stay in the cache. Weights are transformed in float64 at compile time.

The transforms themselves are in ``winograd_transforms``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fleetui.workshop.graph.ir import Array
from fleetui.workshop.schedules import emit
from fleetui.workshop.schedules.conv_direct import Finish, Read
from fleetui.workshop.schedules.conv_shape import ConvShape, panels
from fleetui.workshop.schedules.emit import Buffer, Expr, Stmt, load
from fleetui.workshop.schedules.winograd_transforms import (
    input_matrix,
    transform,
    transform_output,
    weight_matrix,
)

GAP = 16
"""Elements between two places' planes in scratch: without it their rows fall on the same lines of the cache."""


@dataclass(frozen=True, slots=True)
class Winograd:
    """``tile`` is m; ``block`` × ``vectors`` accumulators; ``strip`` tiles a task (a multiple of ``block``)."""

    tile: int
    block: int
    vectors: int
    strip: int
    parts: int = 1
    """Into how many tasks a strip's output channels are split; each transforms the input again."""
    unroll: int = 2
    ahead: bool = False
    """Fetch the next panel of weights while this one is used."""


def suits(shape: ConvShape) -> bool:
    return (
        (shape.kh, shape.kw, shape.sh, shape.sw, shape.dh, shape.dw) == (3, 3, 1, 1, 1, 1)
        and shape.groups == 1
        and shape.dtype == "float32"
    )


def pack(weights: Array, shape: ConvShape, plan: Winograd, lanes: int) -> Array:
    """[3, 3, c, m] → for each panel [(m+2)², c, vectors·lanes], flat; computed in float64, rounded once."""
    g = np.array([[float(v) for v in row] for row in weight_matrix(plan.tile)])
    side = plan.tile + 2
    flat = weights.reshape(9, shape.c * shape.m).astype(np.float64)
    spread = (np.kron(g, g) @ flat).astype(np.float32).reshape(side * side, shape.c, shape.m)
    parts = []
    for first, vectors, size in panels(shape.m, plan.vectors, lanes):
        block = spread[:, :, first : first + size]
        parts.append(np.pad(block, ((0, 0), (0, 0), (0, vectors * lanes - size))).reshape(-1))
    return np.concatenate(parts)


def packed_size(shape: ConvShape, plan: Winograd, lanes: int) -> int:
    vectors = sum(v for _, v, _ in panels(shape.m, plan.vectors, lanes))
    return (plan.tile + 2) ** 2 * shape.c * vectors * lanes


# ---------------------------------------------------------------- the kernel


def tiles(shape: ConvShape, tile: int) -> tuple[int, int]:
    return -(-shape.oh // tile), -(-shape.ow // tile)


def extent(shape: ConvShape, plan: Winograd) -> int:
    down, across = tiles(shape, plan.tile)
    return -(-shape.n * down * across // plan.strip) * plan.parts


def scratch(shape: ConvShape, plan: Winograd, lanes: int) -> tuple[int, int]:
    """Elements of the transformed input and of one panel's products, for one worker."""
    places = (plan.tile + 2) ** 2
    channels = -(-shape.c // lanes) * lanes
    return places * (plan.strip * channels + GAP), places * (plan.strip * plan.vectors * lanes + GAP)


class Emitter:
    """Writes one kernel's body. ``v`` and ``p`` are flat scratch: transformed input and products."""

    def __init__(
        self,
        shape: ConvShape,
        plan: Winograd,
        lanes: int,
        x: Read,
        w: Buffer,
        bias: Buffer | None,
        v: Buffer,
        p: Buffer,
        finish: Finish,
    ) -> None:
        self.shape, self.plan, self.lanes = shape, plan, lanes
        self.x, self.w, self.bias, self.v, self.p, self.finish = x, w, bias, v, p, finish
        self.side = plan.tile + 2
        self.cut = panels(shape.m, plan.vectors, lanes)
        self.channels = -(-shape.c // lanes) * lanes
        self.v_plane = plan.strip * self.channels + GAP

    def body(self) -> Stmt:
        shape, plan = self.shape, self.plan
        down, across = tiles(shape, plan.tile)
        total = shape.n * down * across
        share = -(-len(self.cut) // plan.parts)

        def task(number: Expr) -> list[Stmt]:
            strip, part = emit.split(number, plan.parts)
            first = strip * plan.strip
            count: Expr = emit.integer(plan.strip)
            if total % plan.strip:
                count = emit.least(count, total - first)
            statements = [emit.serial("tile", count, lambda t: self.gather(first + t, t))]
            full = len(self.cut) - (self.cut[-1][1:] != self.cut[0][1:])
            begin = part * share
            end = emit.least(begin + share, emit.integer(full)) if plan.parts > 1 else emit.integer(full)
            many = end - begin if plan.parts > 1 else full
            if full:
                statements.append(
                    emit.serial("panel", many, lambda i: self.panel(begin + i, first, count, *self.cut[0][1:]))
                )
            if full < len(self.cut):
                tail = emit.sequence(self.panel(emit.integer(full), first, count, *self.cut[-1][1:]))
                statements.append(tail if plan.parts == 1 else emit.choose(part == full // share, tail))
            return statements

        return emit.parallel(extent(shape, plan), task)

    def where(self, number: Expr) -> tuple[Expr, Expr, Expr]:
        """A tile's image, and the output row and column of its first element."""
        down, across = tiles(self.shape, self.plan.tile)
        image, rest = (emit.integer(0), number) if self.shape.n == 1 else emit.split(number, down * across)
        row, column = emit.split(rest, across)
        return image, row * self.plan.tile, column * self.plan.tile

    # ------------------------------------------------------------ input

    def gather(self, number: Expr, slot: Expr) -> list[Stmt]:
        """Transform one tile's input into ``v[place, slot, channel]``."""
        shape, side, lanes = self.shape, self.side, self.lanes
        image, oy, ox = self.where(number)
        y, made_y = emit.bind("y", oy - shape.top)
        x, made_x = emit.bind("x", ox - shape.left)

        def columns(read: Callable[[Expr | int, Expr, Expr], Expr], size: int, spread: Buffer) -> Stmt:
            """First pass: every column of the tile."""

            def column(j: Expr) -> Stmt:
                def lane(c: Expr) -> list[Stmt]:
                    values = [read(i, j, c) for i in range(side)]
                    return [
                        emit.store(spread, [(i * side + j) * lanes + c], value)
                        for i, value in enumerate(transform(input_matrix(self.plan.tile), values))
                    ]

                return emit.vector(size, lane)

            return emit.serial("j", side, column)

        def rows(start: Expr, size: int, spread: Buffer) -> Stmt:
            """Second pass: every row, out into the planes."""

            def row(i: Expr) -> Stmt:
                def lane(c: Expr) -> list[Stmt]:
                    values = [load(spread, (i * side + j) * lanes + c) for j in range(side)]
                    return [
                        emit.store(
                            self.v, [(i * side + j) * self.v_plane + slot * self.channels + start + c], value
                        )
                        for j, value in enumerate(transform(input_matrix(self.plan.tile), values))
                    ]

                return emit.vector(size, lane)

            return emit.serial("i", side, row)

        def inner(start: Expr, size: int) -> list[Stmt]:
            spread, made = emit.local("spread", side * side * lanes, "float32")
            return [
                made,
                columns(lambda i, j, c: self.x(image, y + i, x + j, start + c), size, spread),
                rows(start, size, spread),
            ]

        def edge(start: Expr, size: int) -> list[Stmt]:
            spread, made = emit.local("spread", side * side * lanes, "float32")
            patch, made_patch = emit.local("patch", side * side * lanes, "float32")
            clear = emit.serial(
                "k", side * side, lambda k: emit.across(patch, k * lanes, size, lambda _: emit.number(0, "float32"))
            )
            low_y, high_y = emit.most(emit.integer(0), -y), emit.least(emit.integer(side), shape.h - y)
            low_x, high_x = emit.most(emit.integer(0), -x), emit.least(emit.integer(side), shape.w - x)
            copy = emit.serial(
                "i",
                high_y - low_y,
                lambda i: emit.serial(
                    "j",
                    high_x - low_x,
                    lambda j: emit.across(
                        patch,
                        (i * side + j) * lanes,
                        size,
                        lambda c: self.x(image, y + i, x + j, start + c),
                    ),
                    low_x,
                ),
                low_y,
            )
            return [
                made,
                made_patch,
                clear,
                copy,
                columns(lambda i, j, c: load(patch, (i * side + j) * lanes + c), size, spread),
                rows(start, size, spread),
            ]

        def all_channels(of: Callable[[Expr, int], list[Stmt]]) -> Stmt:
            whole = shape.c // lanes
            out: list[Stmt] = []
            if whole:
                out.append(emit.serial("c", whole, lambda c: of(c * lanes, lanes)))
            for start, size in emit.pieces(shape.c - whole * lanes, lanes):
                out += of(emit.integer(whole * lanes + start), size)
            return emit.sequence(out)

        from tvm import tirx

        inside = tirx.all(y >= 0, x >= 0, y + side <= shape.h, x + side <= shape.w)
        return [made_y, made_x, emit.choose(inside, all_channels(inner), all_channels(edge))]

    # ------------------------------------------------------------ products and output

    def panel(self, index: Expr, first: Expr, count: Expr, vectors: int, size: int) -> list[Stmt]:
        """All places' products of one panel of output channels, and their way back."""
        shape, plan, lanes = self.shape, self.plan, self.lanes
        places = self.side * self.side
        width = vectors * lanes
        base = index * (places * shape.c * plan.vectors * lanes)
        plane = plan.strip * width + GAP

        def place(k: Expr) -> Stmt:
            return emit.serial(
                "block", emit.quotient(count + (plan.block - 1), plan.block), lambda b: block(k, b * plan.block)
            )

        def block(k: Expr, slot: Expr) -> list[Stmt]:
            sums, made = emit.local("sums", plan.block * width, "float32")

            def each(body: Callable[[Expr, Expr], Stmt]) -> Stmt:
                return emit.unrolled(
                    "t", 0, plan.block, lambda t: emit.unrolled("v", 0, vectors, lambda v: body(t, v))
                )

            def at(t: Expr, v: Expr) -> Expr:
                return t * width + v * lanes

            def step(c: Expr) -> Stmt:
                weights = base + (k * shape.c + c) * width

                def product(t: Expr, v: Expr) -> Stmt:
                    value = load(self.v, k * self.v_plane + (slot + t) * self.channels + c)
                    return emit.across(
                        sums,
                        at(t, v),
                        lanes,
                        lambda lane: load(sums, at(t, v) + lane) + value * load(self.w, weights + v * lanes + lane),
                    )

                return emit.sequence([*fetch(weights), each(product)])

            def fetch(weights: Expr) -> list[Stmt]:
                if not plan.ahead:
                    return []
                passes = max(1, plan.strip // plan.block)
                times = -(-vectors // passes)
                ahead = weights + places * shape.c * width
                number = emit.quotient(slot, plan.block)
                return [
                    emit.prefetch(self.w, ahead + emit.remainder(number * times + i, vectors) * lanes)
                    for i in range(times)
                ]

            unroll = min(plan.unroll, shape.c)
            whole = shape.c // unroll
            return [
                made,
                each(lambda t, v: emit.across(sums, at(t, v), lanes, lambda _: emit.number(0, "float32"))),
                emit.serial("c", whole, lambda c: [step(c * unroll + u) for u in range(unroll)]),
                *(step(emit.integer(c)) for c in range(whole * unroll, shape.c)),
                each(
                    lambda t, v: emit.across(
                        self.p,
                        k * plane + slot * width + at(t, v),
                        lanes,
                        lambda lane: load(sums, at(t, v) + lane),
                    )
                ),
            ]

        return [
            emit.serial("place", places, place),
            emit.serial("tile", count, lambda t: self.scatter(first + t, t, index, vectors, size, plane)),
        ]

    def scatter(self, number: Expr, slot: Expr, index: Expr, vectors: int, size: int, plane: int) -> list[Stmt]:
        """Transform one tile of a panel back, add the bias, finish and store what lies inside the image."""
        shape, plan, lanes, side = self.shape, self.plan, self.lanes, self.side
        tile = plan.tile
        width = vectors * lanes
        image, oy, ox = self.where(number)
        y, made_y = emit.bind("oy", oy)
        x, made_x = emit.bind("ox", ox)
        high_y: Expr | int = tile if shape.oh % tile == 0 else emit.least(emit.integer(tile), shape.oh - y)
        high_x: Expr | int = tile if shape.ow % tile == 0 else emit.least(emit.integer(tile), shape.ow - x)

        def piece(start: Expr, lanes_used: int) -> list[Stmt]:
            half, made_half = emit.local("half", tile * side * lanes, "float32")
            done, made_done = emit.local("done", tile * tile * lanes, "float32")
            channel = index * (plan.vectors * lanes) + start

            def column(j: Expr) -> Stmt:
                def lane(c: Expr) -> list[Stmt]:
                    values = [load(self.p, (i * side + j) * plane + slot * width + start + c) for i in range(side)]
                    return [
                        emit.store(half, [(r * side + j) * lanes + c], value)
                        for r, value in enumerate(transform_output(tile, values))
                    ]

                return emit.vector(lanes_used, lane)

            def row(r: Expr) -> Stmt:
                def lane(c: Expr) -> list[Stmt]:
                    values = [load(half, (r * side + j) * lanes + c) for j in range(side)]
                    out = transform_output(tile, values)
                    if self.bias is not None:
                        out = [value + load(self.bias, channel + c) for value in out]
                    return [emit.store(done, [(r * tile + q) * lanes + c], value) for q, value in enumerate(out)]

                return emit.vector(lanes_used, lane)

            def out(r: Expr, q: Expr) -> Stmt:
                return emit.vector(
                    lanes_used,
                    lambda c: list(
                        self.finish(load(done, (r * tile + q) * lanes + c), (image, y + r, x + q, channel + c))
                    ),
                )

            return [
                made_half,
                made_done,
                emit.serial("j", side, column),
                emit.serial("r", tile, row),
                emit.serial("r", high_y, lambda r: emit.serial("q", high_x, lambda q: out(r, q))),
            ]

        whole = size // lanes
        statements = [made_y, made_x]
        if whole:
            statements.append(emit.serial("v", whole, lambda v: piece(v * lanes, lanes)))
        for start, used in emit.pieces(size - whole * lanes, lanes):
            statements += piece(emit.integer(whole * lanes + start), used)
        return statements
