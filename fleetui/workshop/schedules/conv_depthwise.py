"""Depthwise convolution: vectors over channels, a block of neighbouring columns in registers.

Neighbouring columns share most of the input they need, and as a block is written out, the compiler loads each
input vector once for all the columns and taps that want it. A task is a strip of output rows; within it one chunk
of channels after the other walks all rows, so that the rows two outputs share come from the first-level cache.
Borders are treated as in ``conv_direct``: rows at run time, columns by writing out the blocks at the edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from fleetui.workshop.schedules import emit
from fleetui.workshop.schedules.conv_direct import Block, Finish, Place, Read, blocks
from fleetui.workshop.schedules.conv_shape import ConvShape
from fleetui.workshop.schedules.emit import Buffer, Expr, Stmt, load

STATIC_TAPS = 12
"""Kernels of up to so many taps are written out whole where no border is near."""


@dataclass(frozen=True, slots=True)
class Depthwise:
    """``pixels`` columns × ``vectors`` of channels at a time; ``strip`` rows a task, ``split`` in channels."""

    pixels: int
    vectors: int
    strip: int = 1
    split: int = 1


def channels(shape: ConvShape) -> int:
    return shape.groups * shape.m


def extent(shape: ConvShape, plan: Depthwise) -> int:
    return -(-shape.n * shape.oh // plan.strip) * plan.split


class Emitter:
    """Writes one kernel's body. ``w`` is [kh·kw, channels] and ``bias`` [channels], both as they are."""

    def __init__(
        self, shape: ConvShape, plan: Depthwise, lanes: int, x: Read, w: Buffer, bias: Buffer | None, finish: Finish
    ) -> None:
        self.shape, self.plan, self.lanes = shape, plan, lanes
        self.x, self.w, self.bias, self.finish = x, w, bias, finish
        self.sum = "float32" if shape.dtype == "float32" else "int32"
        self.columns = blocks(shape, plan.pixels)
        self.taps = [shape.columns(kx) for kx in range(shape.kw)]

    def body(self) -> Stmt:
        shape, plan = self.shape, self.plan
        width = plan.vectors * self.lanes
        whole = channels(shape) // width
        rest = channels(shape) - whole * width
        share = -(-whole // plan.split)
        rows = shape.n * shape.oh

        def task(number: Expr) -> list[Stmt]:
            strip, part = emit.split(number, plan.split)
            first = strip * plan.strip
            many: Expr | int = plan.strip
            if rows % plan.strip:
                many = emit.least(emit.integer(plan.strip), rows - first)
            out: list[Stmt] = []
            if whole:
                begin = part * share if plan.split > 1 else emit.integer(0)
                count: Expr | int = whole
                if plan.split > 1:
                    count = emit.most(emit.integer(0), emit.least(emit.integer(share), whole - begin))
                out.append(
                    emit.serial(
                        "chunk",
                        count,
                        lambda c: self.rows(first, many, (begin + c) * width, self.full()),
                    )
                )
            if rest:
                tail = self.rows(first, many, emit.integer(whole * width), emit.pieces(rest, self.lanes))
                out.append(tail if plan.split == 1 else emit.choose(part == plan.split - 1, tail))
            return out

        return emit.parallel(extent(shape, plan), task)

    def full(self) -> list[tuple[int, int]]:
        return [(v * self.lanes, self.lanes) for v in range(self.plan.vectors)]

    def rows(self, first: Expr, many: Expr | int, channel: Expr, cut: Sequence[tuple[int, int]]) -> Stmt:
        shape = self.shape

        def row(offset: Expr) -> list[Stmt]:
            at = first + offset
            image, y = (emit.integer(0), at) if shape.n == 1 else emit.split(at, shape.oh)
            top = y * shape.sh - shape.top
            if not (shape.top or shape.bottom):
                return self.row(image, y, channel, cut, None)
            need = emit.most(emit.integer(0), -top)
            room = emit.most(emit.integer(0), shape.h - top)
            low, made_low = emit.bind("low", emit.quotient(need + (shape.dh - 1), shape.dh))
            high, made_high = emit.bind(
                "high", emit.least(emit.integer(shape.kh), emit.quotient(room + (shape.dh - 1), shape.dh))
            )
            border = emit.sequence(self.row(image, y, channel, cut, (low, high)))
            if shape.kh * shape.kw > STATIC_TAPS:
                return [made_low, made_high, border]
            from tvm import tirx

            inside = tirx.all(low == 0, high == shape.kh)
            return [
                made_low,
                made_high,
                emit.choose(inside, emit.sequence(self.row(image, y, channel, cut, None)), border),
            ]

        return emit.serial("row", many, row)

    def row(
        self,
        image: Expr,
        y: Expr,
        channel: Expr,
        cut: Sequence[tuple[int, int]],
        taps: tuple[Expr, Expr] | None,
    ) -> list[Stmt]:
        first, last = self.columns.first, self.columns.last
        low, high = taps or (emit.integer(0), emit.integer(self.shape.kh))
        place = Place(image, y, low, high, emit.integer(0))
        inner = Block(0, self.plan.pixels, interior=True)

        def block(b: Block, column: Expr) -> Stmt:
            return self.block(b, place, column, channel, cut, dynamic=taps is not None)

        out = [block(b, emit.integer(b.start)) for b in self.columns.before]
        if last > first:
            out.append(emit.serial("block", last - first, lambda b: block(inner, (first + b) * self.plan.pixels)))
        out += [block(b, emit.integer(b.start)) for b in self.columns.after]
        return out

    def block(
        self,
        block: Block,
        place: Place,
        column: Expr,
        channel: Expr,
        cut: Sequence[tuple[int, int]],
        *,
        dynamic: bool,
    ) -> Stmt:
        shape = self.shape
        width = sum(size for _, size in cut)
        sums, made = emit.local("sums", block.count * width, self.sum)
        out: list[Stmt] = [made]

        def begin(start: int, lane: Expr) -> Expr:
            return emit.number(0, self.sum) if self.bias is None else load(self.bias, channel + start + lane)

        out.append(
            emit.unrolled(
                "pixel",
                0,
                block.count,
                lambda pixel: [
                    emit.across(sums, pixel * width + start, size, partial(begin, start)) for start, size in cut
                ],
            )
        )

        def kernel_row(ky: Expr) -> list[Stmt]:
            y = place.y * shape.sh + ky * shape.dh - shape.top

            def taps(kx: int, pixel: Expr) -> list[Stmt]:
                return [self.tap(sums, place, y, ky, kx, column, pixel, channel, width, *c) for c in cut]

            statements = []
            for kx in range(shape.kw):
                low, high = 0, block.count
                if not block.interior:
                    first, last = self.taps[kx]
                    low, high = max(0, first - block.start), min(block.count, last - block.start)
                if low < high:
                    statements.append(emit.unrolled("pixel", low, high, partial(taps, kx)))
            return statements

        if not any(first < block.start + block.count and last > block.start for first, last in self.taps):
            pass  # these columns see nothing but padding
        elif dynamic:
            out.append(emit.serial("ky", place.high - place.low, kernel_row, place.low))
        elif shape.kh * shape.kw <= STATIC_TAPS:
            for ky in range(shape.kh):
                out += kernel_row(emit.integer(ky))
        else:
            out.append(emit.serial("ky", shape.kh, kernel_row))

        def lane(pixel: Expr, start: int, lane: Expr) -> list[Stmt]:
            place_out = (place.image, place.y, column + pixel, channel + start + lane)
            return list(self.finish(load(sums, pixel * width + start + lane), place_out))

        def write(pixel: Expr) -> list[Stmt]:
            return [emit.vector(size, partial(lane, pixel, start)) for start, size in cut]

        out.append(emit.unrolled("pixel", 0, block.count, write))
        return emit.sequence(out)

    def tap(
        self,
        sums: Buffer,
        place: Place,
        y: Expr,
        ky: Expr,
        kx: int,
        column: Expr,
        pixel: Expr,
        channel: Expr,
        width: int,
        start: int,
        size: int,
    ) -> Stmt:
        shape = self.shape
        x = (column + pixel) * shape.sw + (kx * shape.dw - shape.left)
        at = pixel * width + start

        def value(lane: Expr) -> Expr:
            c = channel + start + lane
            source = c if shape.m == 1 else emit.quotient(c, shape.m)
            product = emit.widen(self.x(place.image, y, x, source), self.sum) * emit.widen(
                load(self.w, ky * shape.kw + kx, c), self.sum
            )
            return load(sums, at + lane) + product

        return emit.across(sums, at, size, value)
