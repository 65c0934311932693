"""Right operands of a product: panels of weights, in float, half, 8 or 4 bits, and where they lie.

A packed panel holds ``width`` columns, depth after depth, so a kernel reads memory once from front to back. Small
forms are widened in registers, right where they are multiplied. Nothing here knows graph nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fleetui.workshop.graph.ir import Array
from fleetui.workshop.schedules.emit import Expr, integer, number
from fleetui.workshop.schedules.gemm import Spot, broadcast, load
from fleetui.workshop.target import Target


def pack(matrix: Array, width: int) -> Array:
    """``[…, K, M]`` as ``[…, panels, K, width]``, filled up with zeros."""
    *batch, depth, columns = matrix.shape
    panels = -(-columns // width)
    full = np.zeros((*batch, max(depth, 1), panels * width), matrix.dtype)
    full[..., :depth, :columns] = matrix
    full = full.reshape(*batch, max(depth, 1), panels, width)
    return np.ascontiguousarray(np.moveaxis(full, -2, -3))


def nibbles(codes: Array, width: int) -> Array:
    """4-bit codes ``[K, M]`` as panels of bytes: of two depths the even one in the low half."""
    packed = pack(codes.astype(np.int16) & 15, width).astype(np.uint8)
    panels, depth, _ = packed.shape
    even = np.zeros((panels, depth + depth % 2, width), np.uint8)
    even[:, :depth] = packed
    return even[:, 0::2] | (even[:, 1::2] << 4)


def widen(value: Expr, dtype: str, *, native_half: bool) -> Expr:
    """A vector in the dtype of the sums."""
    from tvm import tirx

    have = str(value.ty.dtype).split("x")[0]
    lanes = value.ty.dtype.lanes if hasattr(value.ty.dtype, "lanes") else 1
    if have == dtype:
        return value
    goal = dtype if lanes == 1 else f"{dtype}x{lanes}"
    if have == "float16" and not native_half:
        return tirx.Cast(goal, _half(value, lanes))
    if have in {"int8", "uint8", "int16", "uint16"} and dtype.startswith("float"):
        # through 32 bits, which is what processors convert
        value = tirx.Cast("int32" if lanes == 1 else f"int32x{lanes}", value)
    return tirx.Cast(goal, value)


def _half(value: Expr, lanes: int) -> Expr:
    """float16 to float32 by integer arithmetic, where no instruction does it; exact for finite numbers."""
    from tvm import tirx

    tail = "" if lanes == 1 else f"x{lanes}"

    def c(x: int) -> Expr:
        return broadcast(integer(x), lanes)

    code = tirx.Cast(f"int32{tail}", tirx.reinterpret(f"uint16{tail}", value))
    size = tirx.reinterpret(f"float32{tail}", (code & c(0x7FFF)) << c(13)) * broadcast(
        number(2.0**112, "float32"), lanes
    )
    sign = (code & c(0x8000)) << c(16)
    return tirx.reinterpret(f"float32{tail}", tirx.reinterpret(f"int32{tail}", size) | sign)


def has_half(target: Target) -> bool:
    """Whether float16 is converted by an instruction."""
    return target.half or target.arch == "aarch64" or (target.arch.startswith("x86") and target.vector >= 32)


@dataclass(frozen=True, slots=True)
class Plain:
    """``[…, panel, K, width]``. ``batched`` gives the leading index of a batch, where there is one."""

    source: Any
    dtype: str
    native_half: bool = True
    batched: Any = None
    step: int = 1
    block: int = 0
    factors: tuple[float, ...] = ()

    @property
    def decoded(self) -> bool:
        return str(self.source.ty.dtype) != self.dtype

    def read(self, at: Spot, k: Expr, part: int, start: int, width: int) -> Expr:
        lead = [] if self.batched is None else self.batched(at.batch)
        where = [*lead, at.panel, k + integer(part), integer(start)]
        return widen(load(self.source, where, width), self.dtype, native_half=self.native_half)

    def scale(self, at: Spot, start: int, width: int) -> Expr:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Rows:
    """A right operand as it lies in memory, ``[…, K, M]``: columns are read from the panel's first one on."""

    source: Any
    dtype: str
    batched: Any
    native_half: bool = True
    step: int = 1
    block: int = 0
    factors: tuple[float, ...] = ()

    @property
    def decoded(self) -> bool:
        return str(self.source.ty.dtype) != self.dtype

    def read(self, at: Spot, k: Expr, part: int, start: int, width: int) -> Expr:
        where = [*self.batched(at.batch), k + integer(part), at.column + integer(start)]
        return widen(load(self.source, where, width), self.dtype, native_half=self.native_half)

    def scale(self, at: Spot, start: int, width: int) -> Expr:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Codes:
    """Integer codes, widened in registers; ``zeros`` and ``scales`` (panels, [panel, block, width]) where given.

    ``bits`` is 8 or 4. Without ``block`` the scales are the finisher's, once for each sum.
    """

    source: Any
    bits: int
    signed: bool
    block: int = 0
    scales: Any = None
    zeros: Any = None

    decoded: bool = True

    @property
    def step(self) -> int:
        return 2 if self.bits == 4 else 1

    @property
    def factors(self) -> tuple[float, ...]:
        """Signed codes of four bits stay in the upper bits, which saves shifting them down."""
        return (2.0**-28, 2.0**-4) if self._upper else ()

    @property
    def _upper(self) -> bool:
        return self.bits == 4 and self.signed and self.zeros is None

    def read(self, at: Spot, k: Expr, part: int, start: int, width: int) -> Expr:
        from tvm import tirx

        tail = "" if width == 1 else f"x{width}"
        row = k if self.step == 1 else k // integer(2)
        codes = load(self.source, [at.panel, row, integer(start)], width)
        if self._upper:
            codes = tirx.reinterpret(f"int8{tail}", codes)
        codes = tirx.Cast(f"int32{tail}", codes)
        if self.bits == 4:
            codes = self._nibble(codes, part, width)
        if self.zeros is not None:
            codes = codes - load(self.zeros, [at.panel, at.block, integer(start)], width)
        return tirx.Cast(f"float32{tail}", codes)

    def _nibble(self, codes: Expr, part: int, width: int) -> Expr:
        """``codes`` are bytes: zero-extended to 32 bits, or sign-extended where they stay in the upper bits."""
        if self._upper:
            return codes << broadcast(integer(28), width) if part == 0 else codes & broadcast(integer(-16), width)
        up = broadcast(integer(28 if part == 0 else 24), width)
        down = broadcast(integer(28), width)
        if self.signed:
            return (codes << up) >> down
        return codes & broadcast(integer(15), width) if part == 0 else codes >> broadcast(integer(4), width)

    def scale(self, at: Spot, start: int, width: int) -> Expr:
        return load(self.scales, [at.panel, at.block, integer(start)], width)
