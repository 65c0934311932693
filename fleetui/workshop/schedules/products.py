"""Products of two tensors, and what dense layers share with them: the chain behind each sum.

The right tensor is read as it lies, or packed first where it is transposed or its rows are far apart; a constant
one is packed beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from fleetui.workshop.graph.ir import BITS, Array, Node, Shape, Value
from fleetui.workshop.kernel import Group, Kernel, Packed, Temporary
from fleetui.workshop.schedules import gemm
from fleetui.workshop.schedules.emit import Expr, Stmt, choose, integer, number, parallel, sequence, serial, store
from fleetui.workshop.schedules.epilogue import Epilogue, compute
from fleetui.workshop.schedules.gemm import Plan, Product, Size
from fleetui.workshop.schedules.mathlib import cast, dtype_of
from fleetui.workshop.schedules.operands import Operands, broadcast_to, unravel
from fleetui.workshop.schedules.panels import Plain, Rows, has_half, pack, widen
from fleetui.workshop.schedules.rules import Context
from fleetui.workshop.schedules.scalar import COST
from fleetui.workshop.schedules.turning import turned_copy
from fleetui.workshop.schedules.weights import NUMBERS, bare, sum_dtype

HEAVY = 8
"""Operations for each element from which on a fused chain is a loop of its own."""


def chain_fits(group: Group) -> bool:
    return len(group.outputs) == 1 and group.outputs[0].shape == group.anchor.output.shape


def is_heavy(epilogue: Epilogue) -> bool:
    return sum(COST.get(node.op, 1) for node in epilogue.nodes) > HEAVY


def finisher(
    epilogue: Epilogue,
    operands: Operands,
    index: Callable[[Expr, Expr, Expr], list[Expr]],
    bias: Value | None,
    scales: Any = None,
    correction: Any = None,
) -> gemm.Finish:
    """Correction, scale, bias, the fused chain; ``index(batch, row, column)`` is where the element goes."""
    from tvm import tirx

    out = operands.value(epilogue.out, output=True)
    addend = operands.value(bias) if bias is not None else None
    for value in epilogue.extra:
        operands.value(value)

    def finish(batch: Expr, row: Expr, column: Expr, total: Expr) -> Stmt:
        dtype = dtype_of(total)
        if correction is not None:
            total = total + tirx.BufferLoad(correction, [column])
        if scales is not None:
            total = total * tirx.BufferLoad(scales, [column])
        if addend is not None:
            total = total + cast(tirx.BufferLoad(addend, [column]), dtype)
        place = index(batch, row, column)
        return store(out, place, epilogue.apply(total, place, operands.load))

    return finish


@dataclass(frozen=True, slots=True)
class Pair:
    """A product's operands: ``a`` [batch…, T, K] and ``b`` [batch…, K, M], either of them perhaps transposed."""

    a: Value
    b: Value
    turned_a: bool
    turned_b: bool
    batch: Shape

    @property
    def size(self) -> Size:
        rows, depth = self.a.shape[-2:]
        columns = self.b.shape[-2 if self.turned_b else -1]
        if self.turned_a:
            rows, depth = depth, rows
        return Size(rows, depth, columns, prod(self.batch))


def expand_kernel(node: Node, context: Context) -> Kernel:
    """Weights in a form that no kernel expands in registers, written out once per run."""
    out = node.output
    operands = Operands(context)
    for value in node.inputs:
        if value is not None:
            operands.value(value)
    target = operands.temporary(Temporary(f"{out.name}.wide", out.shape, out.dtype), output=True)

    def row(at: Expr) -> Stmt:
        lead = unravel(at, out.shape[:-1])

        def element(column: Expr) -> Stmt:
            place = [*lead, column]
            return store(target, place, compute([node], out, {}, place, operands.load))

        return serial("column", out.shape[-1], element)

    count = prod(out.shape[:-1])
    return operands.kernel(f"expand {node.op} {sorted(node.attrs.items())}", parallel(count, row), extent=count)


class MatMul:
    name = "matmul"

    def matches(self, group: Group, context: Context) -> bool:
        node = group.anchor
        return node.op == "matmul" and node.input(0).dtype in NUMBERS and chain_fits(group)

    def lower(self, group: Group, context: Context) -> list[Kernel]:
        node, out = group.anchor, group.anchor.output
        if out.size == 0:
            return []
        pair = Pair(
            node.input(0),
            node.input(1),
            bool(node.attrs.get("transpose_a", False)),
            bool(node.attrs.get("transpose_b", False)),
            out.shape[:-2],
        )
        size, lead_b = pair.size, pair.b.shape[:-2]
        merged = prod(lead_b) == 1 and not pair.turned_a and size.batch > 1
        if merged:
            # one matrix for all: the batch is just more rows
            size = Size(size.rows * size.batch, size.depth, size.columns)

        def lefts(operands: Operands) -> gemm.Left:
            from tvm import tirx

            if merged:
                matrix = operands.rows(pair.a)
                return lambda _batch, row, k: matrix(row, k)
            source = operands.value(pair.a)

            def read(batch: Expr, row: Expr, k: Expr) -> Expr:
                lead = broadcast_to(unravel(batch, pair.batch), pair.a.shape[:-2])
                return tirx.BufferLoad(source, [*lead, *((k, row) if pair.turned_a else (row, k))])

            return read

        def index(batch: Expr, row: Expr, column: Expr) -> list[Expr]:
            if merged:
                return [*unravel(row, out.shape[:-1]), column]
            return [*unravel(batch, pair.batch), row, column]

        def place(batch: Expr) -> list[Expr]:
            if merged:
                return [integer(0) for _ in lead_b]
            return broadcast_to(unravel(batch, pair.batch), lead_b)

        source: Any = pair.b
        before: list[Kernel] = []
        maker = [n for n in group.nodes if pair.b in n.outputs]
        if maker:
            before = [expand_kernel(maker[0], context)]
            source = before[0].args[-1].buffer
        right = Tensor(source, pair.b.shape, pair.b.dtype, pair.turned_b, lead_b, place)
        return [*before, *product_kernels(bare(group), context, size, lefts, right, index)]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A right operand that is no packed constant yet. ``place`` finds a batch's matrix among ``lead``."""

    source: Value | Temporary
    shape: Shape
    dtype: str
    turned: bool
    lead: Shape
    place: Callable[[Expr], list[Expr]]
    first: int = 0
    """The column at which the product's first one lies."""

    @property
    def constant(self) -> Array | None:
        return self.source.data if isinstance(self.source, Value) else None

    def buffer(self, operands: Operands) -> Any:
        if isinstance(self.source, Temporary):
            return operands.temporary(self.source)
        return operands.value(self.source)


def product_kernels(
    group: Group,
    context: Context,
    size: Size,
    lefts: Callable[[Operands], gemm.Left],
    right: Tensor,
    index: Callable[[Expr, Expr, Expr], list[Expr]],
) -> list[Kernel]:
    node, target = group.anchor, context.target
    total, native = sum_dtype(node.input(0).dtype), has_half(target)
    plan = gemm.choose_plan(size, target, BITS[total])
    operands, epilogue = Operands(context), Epilogue(group)
    read = lefts(operands)
    before: list[Kernel] = []
    panels: Plain | Rows
    overlap = False
    if right.constant is not None:
        matrix = right.constant.swapaxes(-1, -2) if right.turned else right.constant
        source = operands.packed(Packed(f"{node.input(1).name}.panels", pack(matrix, plan.width), right.dtype))
        panels = Plain(source, total, native, right.place)
    elif _worth_packing(right, size, plan):
        temporary, packing = pack_kernel(right, size, plan, context)
        before.append(packing)
        panels = Plain(operands.temporary(temporary), total, native, right.place)
    else:
        panels, overlap = Rows(right.buffer(operands), total, right.place, native), True
    bias = node.optional(2) if node.op == "dense" else None
    finish = finisher(epilogue, operands, index, bias)

    def left(batch: Expr, row: Expr, k: Expr) -> Expr:
        return widen(read(batch, row, k), total, native_half=native)

    product = Product(size, plan, left, panels, finish, total, overlap, heavy=is_heavy(epilogue))
    kernel = operands.kernel(
        f"{node.op} {size} {plan.label} {node.attrs} {overlap} bias={bias is not None} {epilogue.signature}",
        product.body(),
        extent=plan.tasks(size),
        grain=gemm.grain(size, plan, target, operands.moved),
        flops=size.flops,
    )
    return [*before, kernel]


def _worth_packing(right: Tensor, size: Size, plan: Plan) -> bool:
    """Transposed operands cannot be read as vectors; rows far apart cost a page each, which many rows pay back."""
    if right.turned:
        return True
    far = size.columns * BITS[right.dtype] // 8 >= 2048
    return far and size.rows >= 4 * plan.rows


def pack_kernel(right: Tensor, size: Size, plan: Plan, context: Context) -> tuple[Temporary, Kernel]:
    """Copies a tensor into panels, filled up with zeros, in its own dtype."""
    from tvm import tirx

    operands = Operands(context)
    source = right.buffer(operands)
    panels = plan.panels(size)
    shape = (*right.lead, panels, size.depth, plan.width)
    temporary = Temporary("panels", shape, right.dtype)
    made = operands.temporary(temporary, output=True)
    count = prod(right.lead)
    zero = tirx.Cast(right.dtype, number(0, "float32" if "float" in right.dtype else "int32"))

    def task(at: Expr) -> Stmt:
        lead = unravel(at // integer(panels), right.lead)
        panel = at % integer(panels)

        def copy(width: int) -> Stmt:
            def element(k: Expr, column: Expr) -> Stmt:
                far = panel * integer(plan.width) + column + integer(right.first)
                return store(made, [*lead, panel, k, column], tirx.BufferLoad(source, [*lead, k, far]))

            def blank(k: Expr) -> Stmt:
                return serial(
                    "c",
                    plan.width - width,
                    lambda c: store(made, [*lead, panel, k, c + integer(width)], zero),
                )

            if right.turned:
                far = panel * integer(plan.width) + integer(right.first)
                body = turned_copy(
                    width,
                    size.depth,
                    context.target.lanes(BITS[right.dtype]),
                    lambda c, k, lanes: gemm.load(source, [*lead, far + c, k], lanes),
                    lambda k, c, value, lanes: store(made, [*lead, panel, k, gemm.lanes_at(c, lanes)], value),
                )
            else:
                body = serial("k", size.depth, lambda k: serial("c", width, lambda c: element(k, c)))
            statements = [body]
            if width < plan.width:
                statements.append(serial("k", size.depth, blank))
            return sequence(statements)

        rest = size.columns % plan.width
        if rest == 0:
            return copy(plan.width)
        if panels == 1:
            return copy(rest)
        return choose(panel < integer(panels - 1), copy(plan.width), copy(rest))

    kernel = operands.kernel(
        f"pack {right.turned} {right.lead} {right.first} {size.columns} {plan.width}",
        parallel(count * panels, task),
        extent=count * panels,
        grain=max(1, (1 << 15) // (size.depth * plan.width)),
    )
    return temporary, kernel
