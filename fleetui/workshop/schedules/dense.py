"""Dense layers and matrix products: which panels they read, and what happens to each sum.

``dense`` with constant weights (in float, half, 8 or 4 bits) reads packed panels. ``matmul`` of two tensors reads
the right one as it lies, or packs it first where it is transposed or its rows are far apart. Attention and
recurrent networks have rules of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from fleetui.workshop.graph.ir import BITS, Array, Node, Shape, Value
from fleetui.workshop.kernel import Group, Kernel, Packed, Temporary
from fleetui.workshop.schedules import gemm
from fleetui.workshop.schedules.emit import Expr, Stmt, integer, number, parallel, serial, store
from fleetui.workshop.schedules.epilogue import Epilogue
from fleetui.workshop.schedules.gemm import Plan, Product, Size
from fleetui.workshop.schedules.mathlib import cast, dtype_of
from fleetui.workshop.schedules.operands import Operands, broadcast_to, unravel
from fleetui.workshop.schedules.panels import Codes, Plain, Rows, has_half, nibbles, pack, widen
from fleetui.workshop.schedules.rules import Context, Rule
from fleetui.workshop.schedules.scalar import COST

NUMBERS = frozenset(BITS) - {"bool", "int4", "uint4"}
HEAVY = 8
"""Operations for each element from which on a fused chain is a loop of its own."""
SMALL = frozenset({"int8", "uint8", "int4", "uint4"})


def sum_dtype(dtype: str) -> str:
    """What products are added up in."""
    if dtype in {"float16", "bfloat16"}:
        return "float32"
    return "int32" if dtype in {"int8", "uint8"} else dtype


def bare(group: Group) -> Group:
    """The group without the node that expands the weights."""
    expanded = group.anchor.input(1)
    return Group([n for n in group.nodes if expanded not in n.outputs], group.anchor, group.inputs, group.outputs)


# -------------------------------------------------------------------- weights


@dataclass(frozen=True, slots=True)
class Weights:
    """Constant weights [K, M] as they are kept: numbers, or codes with scales [blocks, M] and zero points."""

    data: Array
    dtype: str
    scales: Array | None = None
    zeros: Array | None = None
    block: int = 0

    @property
    def coded(self) -> bool:
        return self.scales is not None

    @property
    def decode(self) -> float:
        """Instructions beside the multiplication, for each vector."""
        if not self.coded:
            return 1.0 if self.dtype in {"float16", "bfloat16"} else 0.0
        return (4.0 if self.dtype.endswith("int4") else 2.0) + (1.0 if self.zeros is not None else 0.0)


def weights_of(group: Group) -> Weights | None:
    """The anchor's second input where it is constant, expanded or not; None if it is made at run time."""
    value = group.anchor.input(1)
    if value.data is not None:
        return Weights(value.data, value.dtype)
    maker = next((n for n in group.nodes if value in n.outputs), None)
    if maker is None or value.dtype != "float32":
        return None
    source = maker.input(0)
    if source.data is None:
        return None
    if maker.op == "cast" and source.dtype in {"float16", "bfloat16"}:
        return Weights(source.data, source.dtype)
    if maker.op == "dequantize" and source.dtype in SMALL and source.rank == 2:
        return _coded(maker, source.data, source.dtype)
    return None


def _coded(maker: Node, codes: Array, dtype: str) -> Weights | None:
    scale, zero = maker.input(1), maker.optional(2)
    axis, block = maker.attrs["axis"], maker.attrs.get("block", 0)
    if scale.data is None or (zero is not None and zero.data is None):
        return None
    depth, columns = codes.shape
    if block:
        if axis != 0 or block % 2:
            return None
        shape: Shape = (-(-depth // block), columns)
    elif scale.rank == 0 or axis == 1:
        shape, block = (1, columns), 0
    else:
        return None

    def spread(parameter: Array) -> Array:
        return np.broadcast_to(parameter, shape)

    scales = spread(scale.data).astype(np.float32)
    zeros = None
    if zero is not None and zero.data is not None and np.any(zero.data.astype(np.int32)):
        zeros = spread(zero.data.astype(np.int32))
    return Weights(codes, dtype, scales, zeros, 0 if block >= depth else block)


def small_right(weights: Weights, width: int, name: str, operands: Operands, context: Context) -> Plain | Codes:
    """Packs the weights, and says how the kernel reads them."""
    data = weights.data
    if not weights.coded:
        source = operands.packed(Packed(f"{name}.panels", pack(data, width), weights.dtype))
        return Plain(source, sum_dtype(weights.dtype), has_half(context.target))
    four = weights.dtype.endswith("int4")
    stored = nibbles(data.astype(np.int16), width) if four else pack(data, width)
    source = operands.packed(Packed(f"{name}.codes", stored))
    scales = zeros = None
    if weights.block:
        assert weights.scales is not None
        scales = operands.packed(Packed(f"{name}.scales", pack(weights.scales, width)))
    if weights.zeros is not None:
        zeros = operands.packed(Packed(f"{name}.zeros", pack(weights.zeros, width)))
    signed = not weights.dtype.startswith("u")
    return Codes(source, 4 if four else 8, signed, weights.block, scales, zeros)


# -------------------------------------------------------------------- what becomes of a sum


def is_heavy(epilogue: Epilogue) -> bool:
    return sum(COST.get(node.op, 1) for node in epilogue.nodes) > HEAVY


def finisher(
    epilogue: Epilogue,
    operands: Operands,
    index: Callable[[Expr, Expr, Expr], list[Expr]],
    bias: Value | None,
    scales: Any,
) -> gemm.Finish:
    """Scale, bias, the fused chain, and where the element goes: ``index(batch, row, column)`` in the output."""
    from tvm import tirx

    out = operands.value(epilogue.out, output=True)
    addend = operands.value(bias) if bias is not None else None
    for value in epilogue.extra:
        operands.value(value)

    def finish(batch: Expr, row: Expr, column: Expr, total: Expr) -> Stmt:
        dtype = dtype_of(total)
        if scales is not None:
            total = total * tirx.BufferLoad(scales, [column])
        if addend is not None:
            total = total + cast(tirx.BufferLoad(addend, [column]), dtype)
        place = index(batch, row, column)
        return store(out, place, epilogue.apply(total, place, operands.load))

    return finish


# -------------------------------------------------------------------- dense


class Dense:
    name = "dense"

    def matches(self, group: Group, context: Context) -> bool:
        node = group.anchor
        return node.op == "dense" and node.input(0).dtype in NUMBERS and _chain_fits(group)

    def lower(self, group: Group, context: Context) -> list[Kernel]:
        weights = weights_of(group)
        x, out = group.anchor.input(0), group.anchor.output
        if out.size == 0:
            return []
        if weights is None:
            return _runtime_weights(group, context)
        size = Size(prod(x.shape[:-1]), x.shape[-1], out.shape[-1])
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


def _chain_fits(group: Group) -> bool:
    return len(group.outputs) == 1 and group.outputs[0].shape == group.anchor.output.shape


# -------------------------------------------------------------------- products of two tensors


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
    return [*before, *_product(bare(group), context, size, rows, right, index)]


def expand_kernel(node: Node, context: Context) -> Kernel:
    """Weights in a form that no kernel expands in registers, written out once per run."""
    from fleetui.workshop.schedules.epilogue import compute

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
        return node.op == "matmul" and node.input(0).dtype in NUMBERS and _chain_fits(group)

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
        return [*before, *_product(bare(group), context, size, lefts, right, index)]


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


def _product(
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
    finish = finisher(epilogue, operands, index, bias, None)

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
                where = [*lead, far, k] if right.turned else [*lead, k, far]
                return store(made, [*lead, panel, k, column], tirx.BufferLoad(source, where))

            def blank(k: Expr) -> Stmt:
                return serial(
                    "c",
                    plan.width - width,
                    lambda c: store(made, [*lead, panel, k, c + integer(width)], zero),
                )

            if right.turned:
                body = serial("c", width, lambda c: serial("k", size.depth, lambda k: element(k, c)))
            else:
                body = serial("k", size.depth, lambda k: serial("c", width, lambda c: element(k, c)))
            statements = [body]
            if width < plan.width:
                statements.append(serial("k", size.depth, blank))
            return tirx.SeqStmt(statements) if len(statements) > 1 else body

        rest = size.columns % plan.width
        if rest == 0:
            return copy(plan.width)
        if panels == 1:
            return copy(rest)
        return tirx.IfThenElse(panel < integer(panels - 1), copy(plan.width), copy(rest))

    kernel = operands.kernel(
        f"pack {right.turned} {right.lead} {right.first} {size.columns} {plan.width}",
        parallel(count * panels, task),
        extent=count * panels,
        grain=max(1, (1 << 15) // (size.depth * plan.width)),
    )
    return temporary, kernel


RULES: list[Rule] = [Dense(), MatMul()]
