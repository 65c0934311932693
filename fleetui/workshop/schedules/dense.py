"""Dense layers: constant weights, in float, half, 8 or 4 bits, are read in packed panels and widened in registers.

Integer layers go through ``int8`` where the processor has an instruction for it.
"""

from __future__ import annotations

from math import prod
from typing import Any

from fleetui.workshop.graph.ir import BITS
from fleetui.workshop.kernel import Group, Kernel, Packed
from fleetui.workshop.schedules import gemm, int8
from fleetui.workshop.schedules.emit import Expr
from fleetui.workshop.schedules.epilogue import Epilogue
from fleetui.workshop.schedules.gemm import Plan, Product, Size
from fleetui.workshop.schedules.operands import Operands, unravel
from fleetui.workshop.schedules.panels import has_half, widen
from fleetui.workshop.schedules.products import (
    MatMul,
    Tensor,
    chain_fits,
    expand_kernel,
    finisher,
    is_heavy,
    product_kernels,
)
from fleetui.workshop.schedules.rules import Context, Rule
from fleetui.workshop.schedules.weights import NUMBERS, Weights, bare, small_right, sum_dtype, weights_of


class Dense:
    name = "dense"

    def matches(self, group: Group, context: Context) -> bool:
        node = group.anchor
        return node.op == "dense" and node.input(0).dtype in NUMBERS and chain_fits(group)

    def lower(self, group: Group, context: Context) -> list[Kernel]:
        weights = weights_of(group)
        x, out = group.anchor.input(0), group.anchor.output
        if out.size == 0:
            return []
        if weights is None:
            return _runtime_weights(group, context)
        size = Size(prod(x.shape[:-1]), x.shape[-1], out.shape[-1])
        if int8.fits(weights, x, context.target):
            return int8.kernels(group, context, weights, size)
        total = sum_dtype(x.dtype)
        plan = gemm.choose_plan(size, context.target, BITS[total], decode=weights.decode)
        return [dense_kernel(group, context, weights, size, plan)]


def dense_kernel(group: Group, context: Context, weights: Weights, size: Size, plan: Plan) -> Kernel:
    """One kernel with a given plan: what the rule makes, and what tuning tries."""
    node = group.anchor
    x, out = node.input(0), node.output
    operands, epilogue = Operands(context), Epilogue(bare(group))
    total, native = sum_dtype(x.dtype), has_half(context.target)
    matrix = operands.rows(x)
    right = small_right(weights, plan.width, node.input(1).name, operands, context)
    scales = None
    if weights.coded and not weights.block:
        assert weights.scales is not None
        scales = operands.packed(Packed(f"{node.input(1).name}.scales", weights.scales[0].copy()))
    finish = finisher(
        epilogue,
        operands,
        lambda _batch, row, column: [*unravel(row, out.shape[:-1]), column],
        node.optional(2),
        scales,
    )

    def left(_batch: Expr, row: Expr, k: Expr) -> Expr:
        return widen(matrix(row, k), total, native_half=native)

    product = Product(size, plan, left, right, finish, total, heavy=is_heavy(epilogue))
    signs = f"{weights.dtype}/{weights.block}/{scales is not None}/{weights.zeros is not None}"
    return operands.kernel(
        f"dense {size} {plan.label} {signs} bias={node.optional(2) is not None} {epilogue.signature}",
        product.body(),
        extent=plan.tasks(size),
        grain=gemm.grain(size, plan, context.target, operands.moved),
        flops=size.flops,
    )


def _runtime_weights(group: Group, context: Context) -> list[Kernel]:
    """A dense layer whose weights are a tensor: the product of its rows with a matrix."""
    x, w, out = group.anchor.input(0), group.anchor.input(1), group.anchor.output
    maker = [n for n in group.nodes if w in n.outputs]
    before = [expand_kernel(maker[0], context)] if maker else []
    size = Size(prod(x.shape[:-1]), x.shape[-1], out.shape[-1])
    source: Any = before[0].args[-1].buffer if before else w

    def rows(operands: Operands) -> gemm.Left:
        matrix = operands.rows(x)
        return lambda _batch, row, k: matrix(row, k)

    def index(_batch: Expr, row: Expr, column: Expr) -> list[Expr]:
        return [*unravel(row, out.shape[:-1]), column]

    def place(_batch: Expr) -> list[Expr]:
        return []

    right = Tensor(source, w.shape, w.dtype, False, (), place)
    return [*before, *product_kernels(bare(group), context, size, rows, right, index)]


RULES: list[Rule] = [Dense(), MatMul()]
