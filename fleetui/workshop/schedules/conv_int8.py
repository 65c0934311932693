"""Direct convolution on 8-bit integers, with the instruction that adds up four products at a time.

Four input channels of a pixel are one word, and so are the weights of four input channels for one output channel:
to everything else it is a convolution of words with a quarter of the channels. Where the instruction wants inputs
of the other sign they are shifted by 128, and what that adds to a sum is taken back: in the bias, or where there is
padding with every kernel position, because at the border not all of them count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from fleetui.workshop.graph.ir import Array
from fleetui.workshop.schedules import emit
from fleetui.workshop.schedules.conv_direct import Direct, Emitter, Finish, Panel, Place, Read
from fleetui.workshop.schedules.conv_shape import ConvShape
from fleetui.workshop.schedules.emit import Buffer, Expr, Stmt, load
from fleetui.workshop.schedules.int8 import FLIP, FOUR, instruction, signed_inputs
from fleetui.workshop.target import Target


def fits(shape: ConvShape, weights: Array, target: Target) -> bool:
    return (
        shape.dtype in {"int8", "uint8"}
        and weights.dtype == np.int8
        and shape.c % FOUR == 0
        and signed_inputs(target) is not None
    )


def shifted(shape: ConvShape, target: Target) -> bool:
    """Whether the inputs have to change their sign."""
    return (shape.dtype == "int8") is not signed_inputs(target)


def words(shape: ConvShape) -> ConvShape:
    return replace(shape, c=shape.c // FOUR)


def weight_words(weights: Array, shape: ConvShape) -> Array:
    """[kh, kw, c, groups·m] bytes → [kh, kw, c/4, groups·m] words, the first channel in the lowest byte."""
    w = weights.reshape(shape.kh, shape.kw, shape.c // FOUR, FOUR, shape.groups * shape.m)
    return np.ascontiguousarray(np.moveaxis(w, 3, 4)).view("<i4")[..., 0]


def correction(weights: Array, shape: ConvShape, target: Target) -> Array:
    """What to add to a sum for each kernel position that counts: [kh·kw, groups·m]."""
    sums = weights.astype(np.int32).reshape(shape.kh * shape.kw, shape.c, -1).sum(axis=1, dtype=np.int32)
    return sums * np.int32(128 if signed_inputs(target) else -128)


class DotEmitter(Emitter):
    """``shape`` and ``w`` are in words; ``x`` reads bytes, also four at once.

    ``shift`` is what ``correction`` makes, packed like a bias for each kernel position; None where nothing has to
    be taken back, or the bias does it.
    """

    def __init__(
        self,
        shape: ConvShape,
        plan: Direct,
        target: Target,
        x: Read,
        w: Buffer,
        bias: Buffer | None,
        finish: Finish,
        shift: Buffer | None,
        *,
        flip: bool,
    ) -> None:
        super().__init__(shape, plan, target.lanes(), x, w, bias, finish)
        self.shift, self.flip = shift, flip
        self.combine: Callable[[Expr, Expr, Expr], Expr] = instruction(target)

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
        found = super().tap(sums, place, ky, column, kx, panel, part)
        shift, lanes = self.shift, self.lanes
        if shift is None:
            return found
        room = sum(v for _, v, _ in self.cut) * lanes * self.shape.groups
        start = (ky * self.shape.kw + kx) * room + panel.bias

        def back(pixel: Expr, v: Expr) -> Stmt:
            at = (pixel * panel.vectors + v) * lanes
            return emit.across(
                sums, at, lanes, lambda lane: load(sums, at + lane) + load(shift, start + v * lanes + lane)
            )

        taken = emit.unrolled(
            "pixel", *part, lambda pixel: emit.unrolled("v", 0, panel.vectors, lambda v: back(pixel, v))
        )
        return [taken, *found]

    def product(self, sums: Buffer, at: Expr, source: tuple[Expr, Expr, Expr, Expr], weights: Expr) -> Stmt:
        from tvm import tirx

        image, y, x, word = source
        lanes = self.lanes

        def line(start: Expr, count: int) -> Expr:
            return tirx.Ramp(start, emit.integer(1), count)

        four = tirx.reinterpret("int32", self.x(image, y, x, line(word * FOUR, FOUR)))
        if self.flip:
            four = four ^ emit.integer(FLIP)
        right = tirx.reinterpret(f"int8x{lanes * FOUR}", load(self.w, line(weights, lanes)))
        total = self.combine(load(sums, line(at, lanes)), tirx.Broadcast(four, lanes), right)
        return emit.store(sums, [line(at, lanes)], total)
