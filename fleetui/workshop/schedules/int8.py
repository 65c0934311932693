"""Dense layers on 8-bit integers, with the instruction that adds up four products at a time.

x86 multiplies unsigned by signed bytes, Arm signed by signed. Inputs of the other kind are shifted by 128, which is
one exclusive-or, and a constant made from the weights' sums takes it back. Elsewhere the general rule widens.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from fleetui.workshop.graph.ir import Array, Value
from fleetui.workshop.kernel import Group, Kernel, Packed, Temporary
from fleetui.workshop.schedules import gemm
from fleetui.workshop.schedules.emit import Expr, Stmt, integer, parallel, sequence, serial, store
from fleetui.workshop.schedules.epilogue import Epilogue
from fleetui.workshop.schedules.gemm import Product, Size, load
from fleetui.workshop.schedules.operands import Operands, unravel
from fleetui.workshop.schedules.products import finisher, is_heavy
from fleetui.workshop.schedules.rules import Context
from fleetui.workshop.schedules.weights import Weights, bare
from fleetui.workshop.target import Target

FOUR = 4
"""Depths that an instruction takes at once."""
FLIP = -0x7F7F7F80
"""0x80808080: the sign bits of four bytes."""
X86 = {64: "llvm.x86.avx512.vpdpbusd.512", 32: "llvm.x86.avx512.vpdpbusd.256", 16: "llvm.x86.avx512.vpdpbusd.128"}
ARM = "llvm.aarch64.neon.sdot.v4i32.v16i8"


def signed_inputs(target: Target) -> bool | None:
    """Whether the instruction takes signed inputs; None where there is none."""
    if target.int8_dot == "vnni" and target.vector in X86:
        return False
    if target.int8_dot in {"dot", "sdot"} and target.arch == "aarch64" and target.vector == 16:
        return True
    return None


def fits(weights: Weights, x: Value, target: Target) -> bool:
    plain = not weights.coded and weights.dtype == "int8" and x.dtype in {"int8", "uint8"}
    return plain and signed_inputs(target) is not None and x.shape[-1] > 0


def pack_fours(matrix: Array, width: int) -> Array:
    """``[K, M]`` as ``[panels, K / 4, width · 4]``: four depths of a column lie together."""
    depth, columns = matrix.shape
    panels, groups = -(-columns // width), -(-depth // FOUR)
    full = np.zeros((groups * FOUR, panels * width), np.int8)
    full[:depth, :columns] = matrix
    turned = full.reshape(groups, FOUR, panels, width).transpose(2, 0, 3, 1)
    return np.ascontiguousarray(turned).reshape(panels, groups, width * FOUR)


class _Fours:
    """Panels of bytes; a vector has the bytes of four depths for each column."""

    step = 1
    block = 0
    decoded = False
    factors = ()

    def __init__(self, source: Any) -> None:
        self.source = source

    def read(self, at: gemm.Spot, k: Expr, part: int, start: int, width: int) -> Expr:
        return load(self.source, [at.panel, k + integer(part), integer(start * FOUR)], width * FOUR)

    def scale(self, at: gemm.Spot, start: int, width: int) -> Expr:
        raise NotImplementedError


def instruction(target: Target) -> Callable[[Expr, Expr, Expr], Expr]:
    from tvm import tirx

    lanes = target.vector // 4
    name = ARM if signed_inputs(target) else X86[target.vector]

    def combine(total: Expr, left: Expr, right: Expr) -> Expr:
        inputs = tirx.reinterpret(f"int8x{lanes * FOUR}", left)
        return tirx.call_llvm_pure_intrin(f"int32x{lanes}", name, total, inputs, right)

    return combine


def kernels(group: Group, context: Context, weights: Weights, size: Size) -> list[Kernel]:
    from tvm import tirx

    node, target = group.anchor, context.target
    x, out = node.input(0), node.output
    flip = (x.dtype == "int8") is not signed_inputs(target)
    groups = -(-size.depth // FOUR)
    small = Size(size.rows, groups, size.columns)
    plan = gemm.choose_plan(small, target)
    before: list[Kernel] = []
    operands, epilogue = Operands(context), Epilogue(bare(group))
    lined = x.rank == 1 or context.strides(x)[-1] == 1
    if size.depth % FOUR or not lined:
        temporary, filling = _fill(x, context)
        before.append(filling)
        whole = operands.temporary(temporary)

        def place(row: Expr, k: Expr) -> tuple[Any, list[Expr]]:
            return whole, [row, k]
    else:
        matrix = operands.rows(x)

        def place(row: Expr, k: Expr) -> tuple[Any, list[Expr]]:
            return matrix.buffer, matrix.index(row, k)

    source = operands.packed(Packed(f"{node.input(1).name}.fours", pack_fours(weights.data, plan.width)))
    correction = None
    if flip:
        sums = weights.data.astype(np.int32).sum(axis=0, dtype=np.int32)
        shift = -128 if not signed_inputs(target) else 128
        correction = operands.packed(Packed(f"{node.input(1).name}.shift", (sums * shift).astype(np.int32)))

    def left(_batch: Expr, row: Expr, k: Expr) -> Expr:
        held, index = place(row, k * integer(FOUR))
        four = tirx.reinterpret("int32", load(held, index, FOUR))
        return four ^ integer(FLIP) if flip else four

    finish = finisher(
        epilogue,
        operands,
        lambda _batch, row, column: [*unravel(row, out.shape[:-1]), column],
        node.optional(2),
        correction=correction,
    )
    product = Product(
        small, plan, left, _Fours(source), finish, "int32", heavy=is_heavy(epilogue), combine=instruction(target)
    )
    kernel = operands.kernel(
        f"dense int8 {size} {plan.label} {flip} bias={node.optional(2) is not None} {epilogue.signature}",
        product.body(),
        extent=plan.tasks(small),
        grain=gemm.grain(small, plan, target, operands.moved),
        flops=size.flops,
    )
    return [*before, kernel]


def _fill(x: Value, context: Context) -> tuple[Temporary, Kernel]:
    """Rows filled up to whole groups of four."""
    from tvm import tirx

    operands = Operands(context)
    matrix = operands.rows(x)
    rows, depth = prod(x.shape[:-1]), x.shape[-1]
    wide = -(-depth // FOUR) * FOUR
    temporary = Temporary("fours", (rows, wide), x.dtype)
    made = operands.temporary(temporary, output=True)
    zero = tirx.const(0, x.dtype)

    def row(at: Expr) -> Stmt:
        return sequence(
            [
                serial("k", depth, lambda k: store(made, [at, k], matrix(at, k))),
                *(store(made, [at, integer(k)], zero) for k in range(depth, wide)),
            ]
        )

    return temporary, operands.kernel("fill up to four", parallel(rows, row), extent=rows, grain=64)
