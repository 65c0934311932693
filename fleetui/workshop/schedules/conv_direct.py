"""Direct convolution, channel-last, any stride, dilation, padding, group and channel count, without a padded copy.

A task is a strip of output rows (of columns, where there is one row) times one panel of output channels. It walks
blocks of ``pixels`` neighbouring columns and keeps ``pixels × vectors`` accumulators in registers through the
whole reduction. At the top and bottom the range of kernel rows is cut at run time; at the left and right edge the
few blocks that touch it are written out tap by tap, each with just the columns that read inside the image. Output
channels that do not fill a vector are computed in a full one (weights are filled up with zeros) and stored in
pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from fleetui.workshop.schedules import emit
from fleetui.workshop.schedules.conv_shape import ConvShape, panels
from fleetui.workshop.schedules.emit import Buffer, Expr, Stmt, load

Finish = Callable[[Expr, tuple[Expr, Expr, Expr, Expr]], Sequence[Stmt]]
"""The finished sum of one output element and its place (image, y, x, channel) → statements storing it."""


Read = Callable[[Expr, Expr, Expr, Expr], Expr]
"""The input element at (image, y, x, channel), in whatever layout it lies."""


@dataclass(frozen=True, slots=True)
class Direct:
    """Parameters of the schedule. ``strip`` counts output rows, or column blocks where there is one row."""

    pixels: int
    vectors: int
    unroll: int = 1
    strip: int = 1
    panels_outer: bool = False
    ahead: bool = False
    """Fetch the next panel of weights while this one is used: for weights that come from memory on every call."""


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring output columns: ``start`` is None in the loop over interior blocks."""

    start: int
    count: int
    interior: bool


@dataclass(frozen=True, slots=True)
class Row:
    """The blocks of one output row: written out ``before``, a run of interior ones [first, last), and ``after``."""

    before: tuple[Block, ...]
    first: int
    last: int
    after: tuple[Block, ...]


@cache
def blocks(shape: ConvShape, pixels: int) -> Row:
    taps = [shape.columns(kx) for kx in range(shape.kw)]
    inside_from, inside_to = max(t[0] for t in taps), min(t[1] for t in taps)
    first, last = -(-inside_from // pixels), inside_to // pixels
    total = -(-shape.ow // pixels)
    if last <= first:
        first = last = total

    def block(index: int) -> Block:
        start = index * pixels
        count = min(pixels, shape.ow - start)
        return Block(start, count, inside_from <= start and start + count <= inside_to)

    return Row(
        tuple(block(i) for i in range(min(first, total))), first, last, tuple(block(i) for i in range(last, total))
    )


def lines(shape: ConvShape) -> bool:
    """Whether there is one row only, so that columns are what tasks share out."""
    return shape.n * shape.oh == 1


def strips(shape: ConvShape, plan: Direct) -> int:
    if lines(shape):
        row = blocks(shape, plan.pixels)
        return max(1, -(-(row.last - row.first) // plan.strip))
    return -(-shape.n * shape.oh // plan.strip)


def extent(shape: ConvShape, plan: Direct, lanes: int) -> int:
    return strips(shape, plan) * shape.groups * len(panels(shape.m, plan.vectors, lanes))


@dataclass(frozen=True, slots=True)
class Panel:
    """Where one panel of output channels has its things."""

    vectors: int
    size: int
    weights: Expr
    bias: Expr
    channel: Expr
    source: Expr
    next: int
    """How far behind its weights those of the next panel lie."""


@dataclass(frozen=True, slots=True)
class Place:
    """A row: of which image, where, which kernel rows see it, and how many rows of the strip came before."""

    image: Expr
    y: Expr
    low: Expr
    high: Expr
    number: Expr


class Emitter:
    """Writes one kernel's body. ``x`` reads the input; ``w`` and ``bias`` are packed, flat buffers."""

    def __init__(
        self,
        shape: ConvShape,
        plan: Direct,
        lanes: int,
        x: Read,
        w: Buffer,
        bias: Buffer | None,
        finish: Finish,
        scale: Buffer | None = None,
    ) -> None:
        """``w`` may be narrower than the sums: it is widened in registers. ``scale`` then belongs to a channel."""
        self.scale = scale
        self.shape, self.plan, self.lanes = shape, plan, lanes
        self.x, self.w, self.bias, self.finish = x, w, bias, finish
        self.sum = "float32" if shape.dtype == "float32" else "int32"
        self.cut = panels(shape.m, plan.vectors, lanes)
        self.columns = blocks(shape, plan.pixels)
        self.taps = [shape.columns(kx) for kx in range(shape.kw)]

    # ------------------------------------------------------------ tasks

    def body(self) -> Stmt:
        shape, plan = self.shape, self.plan
        per_group = len(self.cut)
        count = per_group * shape.groups
        total = extent(shape, plan, self.lanes)

        def task(number: Expr) -> Stmt:
            if plan.panels_outer:
                panel, strip = emit.split(number, strips(shape, plan))
            else:
                strip, panel = emit.split(number, count)
            group, index = emit.split(panel, per_group)
            _, vectors, size = self.cut[-1]
            tail = self.strip(strip, group, index, vectors, size)
            if per_group == 1 or self.cut[0][1:] == (vectors, size):
                return tail
            return emit.choose(index < per_group - 1, self.strip(strip, group, index, *self.cut[0][1:]), tail)

        return emit.parallel(total, task)

    def strip(self, strip: Expr, group: Expr, index: Expr, vectors: int, size: int) -> Stmt:
        shape, lanes = self.shape, self.lanes
        wide = self.plan.vectors * lanes
        per_group = sum(v for _, v, _ in self.cut) * lanes
        taps = shape.kh * shape.kw * shape.c
        panel = Panel(
            vectors=vectors,
            size=size,
            weights=group * (per_group * taps) + index * (wide * taps),
            bias=group * per_group + index * wide,
            channel=group * shape.m + index * wide,
            source=group * shape.c,
            next=shape.kh * shape.kw * shape.c * vectors * lanes,
        )
        if lines(shape):
            return emit.sequence(self.row(emit.integer(0), emit.integer(0), panel, strip, emit.integer(0)))
        rows = shape.n * shape.oh
        first = strip * self.plan.strip
        many: Expr | int = self.plan.strip
        if rows % self.plan.strip:
            many = emit.least(emit.integer(self.plan.strip), rows - first)

        def row(offset: Expr) -> list[Stmt]:
            at = first + offset
            if shape.n == 1:
                return self.row(emit.integer(0), at, panel, None, offset)
            return self.row(*emit.split(at, shape.oh), panel, None, offset)

        return emit.serial("row", many, row)

    def row(self, image: Expr, y: Expr, panel: Panel, strip: Expr | None, number: Expr) -> list[Stmt]:
        """All blocks of one output row, or a strip of them."""
        shape, pixels = self.shape, self.plan.pixels
        statements: list[Stmt] = []
        low: Expr = emit.integer(0)
        high: Expr = emit.integer(shape.kh)
        if shape.top:
            need = emit.most(emit.integer(0), shape.top - y * shape.sh)
            low, made = emit.bind("low", emit.quotient(need + (shape.dh - 1), shape.dh))
            statements.append(made)
        if shape.bottom:
            room = emit.most(emit.integer(0), shape.h + shape.top - y * shape.sh)
            high, made = emit.bind(
                "high", emit.least(emit.integer(shape.kh), emit.quotient(room + (shape.dh - 1), shape.dh))
            )
            statements.append(made)
        place = Place(image, y, low, high, number)
        first, last = self.columns.first, self.columns.last
        edges = [self.block(block, place, emit.integer(block.start), panel) for block in self.columns.before]
        after = [self.block(block, place, emit.integer(block.start), panel) for block in self.columns.after]
        middle: list[Stmt] = []
        if last > first:
            many, begin = self.plan.strip, emit.integer(first)
            times: Expr | int = last - first
            if strip is not None:
                begin = strip * many + first
                times = many if (last - first) % many == 0 else emit.least(emit.integer(many), last - begin)
            inner = Block(0, pixels, True)
            middle = [emit.serial("block", times, lambda b: self.block(inner, place, (begin + b) * pixels, panel))]
        if strip is not None and strips(shape, self.plan) > 1:
            if edges:
                edges = [emit.choose(strip == 0, emit.sequence(edges))]
            if after:
                after = [emit.choose(strip == strips(shape, self.plan) - 1, emit.sequence(after))]
        return [*statements, *edges, *middle, *after]

    # ------------------------------------------------------------ one block of pixels

    def block(self, block: Block, place: Place, column: Expr, panel: Panel) -> Stmt:
        shape, lanes = self.shape, self.lanes
        width = panel.vectors * lanes
        sums, made = emit.local("sums", block.count * width, self.sum)
        statements: list[Stmt] = [made]

        def begin(v: Expr, lane: Expr) -> Expr:
            if self.bias is None or self.scale is not None:
                return emit.number(0, self.sum)
            return load(self.bias, panel.bias + v * lanes + lane)

        statements.append(
            emit.unrolled(
                "pixel",
                0,
                block.count,
                lambda pixel: emit.unrolled(
                    "v",
                    0,
                    panel.vectors,
                    lambda v: emit.across(sums, pixel * width + v * lanes, lanes, lambda lane: begin(v, lane)),
                ),
            )
        )

        def kernel_row(ky: Expr) -> list[Stmt]:
            if block.interior:
                return [
                    emit.serial(
                        "kx", shape.kw, lambda kx: self.tap(sums, place, ky, column, kx, panel, (0, block.count))
                    )
                ]
            out = []
            for kx in range(shape.kw):
                first, last = self.taps[kx]
                low, high = max(0, first - block.start), min(block.count, last - block.start)
                if low < high:
                    out += self.tap(sums, place, ky, column, emit.integer(kx), panel, (low, high))
            return out

        if not any(first < block.start + block.count and last > block.start for first, last in self.taps):
            pass  # these columns see nothing but padding
        elif shape.top or shape.bottom:
            statements.append(emit.serial("ky", place.high - place.low, kernel_row, place.low))
        else:
            statements.append(emit.serial("ky", shape.kh, kernel_row))
        statements += self.write(sums, block, place, column, panel)
        return emit.sequence(statements)

    def tap(
        self,
        sums: Buffer,
        place: Place,
        ky: Expr,
        column: Expr,
        kx: Expr,
        panel: Panel,
        part: tuple[int, int],
    ) -> list[Stmt]:
        """One kernel position for part of a block: the loop over input channels, unrolled by ``plan.unroll``."""
        shape = self.shape
        lanes = self.lanes
        width = panel.vectors * lanes
        low, high = part
        y = place.y * shape.sh + ky * shape.dh - shape.top
        origin = column * shape.sw + kx * shape.dw - shape.left
        start = panel.weights + (ky * shape.kw + kx) * (shape.c * width)

        def step(channel: Expr) -> list[Stmt]:
            weights = start + channel * width

            def product(pixel: Expr, v: Expr) -> Stmt:
                x = origin + pixel * shape.sw
                return self.product(
                    sums,
                    pixel * width + v * lanes,
                    (place.image, y, x, panel.source + channel),
                    weights + v * lanes,
                )

            products = emit.unrolled(
                "pixel",
                low,
                high,
                lambda pixel: emit.unrolled("v", 0, panel.vectors, lambda v: product(pixel, v)),
            )
            return [*self.fetch(place, column, panel, weights), products]

        unroll = min(self.plan.unroll, shape.c)
        whole = shape.c // unroll
        out = [emit.serial("c", whole, lambda c: [s for u in range(unroll) for s in step(c * unroll + u)])]
        for rest in range(whole * unroll, shape.c):
            out += step(emit.integer(rest))
        return out

    def product(self, sums: Buffer, at: Expr, source: tuple[Expr, Expr, Expr, Expr], weights: Expr) -> Stmt:
        """One vector of sums, and the product that is added to it."""
        value = emit.widen(self.x(*source), self.sum)
        return emit.across(
            sums,
            at,
            self.lanes,
            lambda lane: load(sums, at + lane) + value * emit.widen(load(self.w, weights + lane), self.sum),
        )

    def fetch(self, place: Place, column: Expr, panel: Panel, weights: Expr) -> list[Stmt]:
        """Each block of pixels asks for another part of the next panel."""
        if not self.plan.ahead:
            return []
        per_row = -(-self.shape.ow // self.plan.pixels)
        block = emit.quotient(column, self.plan.pixels) + place.number * per_row
        passes = self.plan.strip if lines(self.shape) else self.plan.strip * per_row
        each = -(-panel.vectors // passes)
        return [
            emit.prefetch(
                self.w, weights + panel.next + emit.remainder(block * each + i, panel.vectors) * self.lanes
            )
            for i in range(each)
        ]

    def write(self, sums: Buffer, block: Block, place: Place, column: Expr, panel: Panel) -> list[Stmt]:
        width = panel.vectors * self.lanes

        def total(pixel: Expr, at: Expr) -> Expr:
            found = load(sums, pixel * width + at)
            if self.scale is None:
                return found
            found = found * load(self.scale, panel.bias + at)
            return found if self.bias is None else found + load(self.bias, panel.bias + at)

        def piece(pixel: Expr, start: int, size: int) -> Stmt:
            return emit.vector(
                size,
                lambda lane: list(
                    self.finish(
                        total(pixel, start + lane),
                        (place.image, place.y, column + pixel, panel.channel + start + lane),
                    )
                ),
            )

        return [
            emit.unrolled(
                "pixel",
                0,
                block.count,
                lambda pixel: [piece(pixel, *cut) for cut in emit.pieces(panel.size, self.lanes)],
            )
        ]
