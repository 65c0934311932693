"""Convolutions: which of the ways to compute one is taken, and the kernel for a whole group.

The convolution, its bias and the elementwise chain behind it are one kernel. A transpose in front of a first layer
is taken in too: the kernel then reads the picture as the caller has it. What this cannot do (three dimensions,
weights that are not constant) is left to the generic rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from itertools import pairwise
from typing import Any

import numpy as np

from fleetui.workshop.graph.ir import Array, Node, Value
from fleetui.workshop.kernel import Group, Kernel, Packed, Temporary
from fleetui.workshop.schedules import conv_depthwise, conv_direct, conv_plan, emit, winograd
from fleetui.workshop.schedules.conv_depthwise import Depthwise
from fleetui.workshop.schedules.conv_direct import Direct, Finish, Read
from fleetui.workshop.schedules.conv_plan import Plan, Wish
from fleetui.workshop.schedules.conv_shape import ConvShape, conv_shape, pack, pack_bias
from fleetui.workshop.schedules.cost import Machine, machine
from fleetui.workshop.schedules.emit import Buffer, Expr, Stmt, load
from fleetui.workshop.schedules.epilogue import Epilogue
from fleetui.workshop.schedules.operands import Matrix, Operands, unravel
from fleetui.workshop.schedules.rules import Context, Rule

WORTH = 8e-6
"""Seconds of work that pay for waking a thread."""


class Convolution:
    name = "conv"

    def matches(self, group: Group, context: Context) -> bool:
        return supported(group)

    def lower(self, group: Group, context: Context) -> list[Kernel]:
        shape = conv_shape(group.anchor)
        assert shape is not None
        if group.anchor.output.size == 0:
            return []
        return lower(group, context, pick(group, context))


def supported(group: Group) -> bool:
    node = group.anchor
    if node.op != "conv" or node.input(0).dtype != "float32" or len(group.outputs) != 1:
        return False
    shape, bias = conv_shape(node), node.optional(2)
    if shape is None or node.input(1).data is None or (bias is not None and bias.data is None):
        return False
    if min(shape.n, shape.oh, shape.ow, shape.c, shape.m) < 1:
        return False
    first = Epilogue(group).before
    return not first or (len(first) == 1 and reads_transposed(first[0], node))


def reads_transposed(node: Node, conv: Node) -> bool:
    """Whether a convolution may read its input through this transpose: few channels, each read as a scalar."""
    return (
        node.op == "transpose"
        and conv.op == "conv"
        and conv.input(0) is node.output
        and node.output.rank == 4
        and node.output.shape[-1] <= 4
        and conv.attrs["groups"] == 1
        and conv.input(1).data is not None
        and node.output.dtype == "float32"
    )


# -------------------------------------------------------------------- choosing


def working_shape(group: Group, context: Context) -> ConvShape:
    """The shape that is scheduled: a pointwise convolution is one line of pixels, where memory allows."""
    shape = conv_shape(group.anchor)
    assert shape is not None
    if not shape.pointwise or Epilogue(group).before:
        return shape
    flat = all(_collapses(value, context) for value in (group.anchor.input(0), group.outputs[0]))
    return shape.flat() if flat else shape


def _collapses(value: Value, context: Context) -> bool:
    """Whether all pixels lie at one distance from each other."""
    lead, strides = value.shape[:-1], context.strides(value)
    live = [(d, s) for d, s in zip(lead, strides, strict=False) if d != 1]
    return all(a[1] == b[1] * b[0] for a, b in pairwise(live))


def wish_of(context: Context) -> Wish:
    target = context.target
    weights = sum(value.nbytes for value in context.graph.constants())
    growth = conv_plan.GROWTH
    if target.static or weights * 8 > target.memory:
        growth = 1.0  # there is hardly room for the weights as they are
    elif weights * 16 > target.memory:
        growth = 2.0
    return Wish(
        threads=max(1, context.threads),
        cold=weights > 0.6 * (target.l3 or target.l2),
        growth=context.limits.get("winograd", growth),
    )


def pick(group: Group, context: Context) -> Plan:
    """What the database knows to be best, else what the cost model believes."""
    found = options(group, context)
    return found[0]


def options(group: Group, context: Context) -> list[Plan]:
    """Every plan worth a thought, the one believed to be quickest first."""
    found = conv_plan.candidates(working_shape(group, context), machine(context.target), wish_of(context))
    if Epilogue(group).before:  # what lies channel-first is read element by element, not in vectors
        found = [plan for plan in found if isinstance(plan, Direct)]
    return found


# -------------------------------------------------------------------- the kernel


class _Builder:
    """Parameters and accessors of one group's kernel."""

    def __init__(self, group: Group, context: Context, shape: ConvShape) -> None:
        self.group, self.context, self.shape = group, context, shape
        self.operands = Operands(context)
        self.epilogue = Epilogue(group)
        self.flat = shape != conv_shape(group.anchor)
        self.m: Machine = machine(context.target)

    def read(self) -> Read:
        node = self.group.anchor
        value = node.input(0)
        if self.epilogue.before:
            first = self.epilogue.before[0]
            source, perm = self.operands.value(first.input(0)), first.attrs["perm"]

            def moved(*at: Expr) -> Expr:
                index: list[Any] = [None] * len(at)
                for axis, old in enumerate(perm):
                    index[old] = at[axis]
                return load(source, *index)

            return moved
        if self.flat:
            rows = self.operands.rows(value)
            return lambda _image, _y, x, channel: rows(x, channel)
        source = self.operands.value(value)
        if value.rank == 3:
            return lambda image, _y, x, channel: load(source, image, x, channel)
        return lambda image, y, x, channel: load(source, image, y, x, channel)

    def finish(self) -> Finish:
        """Apply the chain and store; in one line of pixels, operands of the same shape are read as such too."""
        out, operands, epilogue = self.epilogue.out, self.operands, self.epilogue
        lead = out.shape[:-1]
        if not self.flat:
            target = operands.value(out, output=True)
            for value in epilogue.extra:
                operands.value(value)

            def plain(total: Expr, at: tuple[Expr, Expr, Expr, Expr]) -> list[Stmt]:
                place = [at[0], at[2], at[3]] if out.rank == 3 else list(at)
                return [emit.store(target, place, epilogue.apply(total, place, operands.load))]

            return plain
        whole = operands.rows(out)
        operands.outputs.append(len(operands.args) - 1)
        alike: dict[Value, Matrix] = {}
        for value in epilogue.extra:
            if value.shape[:-1] == lead and _collapses(value, self.context):
                alike[value] = operands.rows(value)
            else:
                operands.value(value)

        def lined(total: Expr, at: tuple[Expr, Expr, Expr, Expr]) -> list[Stmt]:
            _, _, row, channel = at

            def read(value: Value, index: list[Expr]) -> Expr:
                return alike[value](row, index[-1]) if value in alike else operands.load(value, index)

            place = [*unravel(row, lead), channel]
            return [emit.store(whole.buffer, whole.index(row, channel), epilogue.apply(total, place, read))]

        return lined

    def constants(self, packed: Array, bias: Array | None) -> tuple[Buffer, Buffer | None]:
        node = self.group.anchor
        name = node.input(1).name
        w = self.operands.packed(Packed(f"{name}.packed", packed))
        if bias is None:
            return w, None
        return w, self.operands.packed(Packed(f"{name}.bias", bias))

    def scratch(self, name: str, size: int) -> Buffer:
        return self.operands.temporary(Temporary(name, (size,), "float32", per_worker=True))

    def kernel(self, plan: Plan, body: Stmt, extent: int) -> Kernel:
        shape = self.shape
        words = ",".join(str(int(v)) for v in astuple(plan))
        key = f"conv {shape.key} {type(plan).__name__.lower()}[{words}] {self.epilogue.signature}"
        if self.epilogue.before:
            key += f" from {self.epilogue.before[0].attrs['perm']}"
        seconds = conv_plan.cost(shape, plan, self.m, Wish()) / (self.context.target.mhz * 1e6)
        grain = max(1, min(extent, int(np.ceil(extent * WORTH / max(seconds, 1e-9)))))
        kernel = self.operands.kernel(key, body, extent=extent, grain=grain, flops=shape.flops)
        kernel.detail["plan"] = plan
        return kernel


def lower(group: Group, context: Context, plan: Plan) -> list[Kernel]:
    """One kernel with a given plan: what the rule makes, and what tuning tries."""
    node = group.anchor
    shape = working_shape(group, context)
    builder = _Builder(group, context, shape)
    lanes = builder.m.lanes
    weights, bias = node.input(1).data, node.optional(2)
    assert weights is not None
    added = None if bias is None else bias.data
    read = builder.read()
    if isinstance(plan, Direct):
        w, b = builder.constants(
            pack(weights, shape, plan.vectors, lanes), None if added is None else pack_bias(added, shape, lanes)
        )
        direct = conv_direct.Emitter(shape, plan, lanes, read, w, b, builder.finish())
        return [builder.kernel(plan, direct.body(), conv_direct.extent(shape, plan, lanes))]
    if isinstance(plan, Depthwise):
        flat = np.ascontiguousarray(weights).reshape(shape.kh * shape.kw, -1)
        w, b = builder.constants(flat, added)
        deep = conv_depthwise.Emitter(shape, plan, lanes, read, w, b, builder.finish())
        return [builder.kernel(plan, deep.body(), conv_depthwise.extent(shape, plan))]
    w, b = builder.constants(
        winograd.pack(weights, shape, plan, lanes), None if added is None else pack_bias(added, shape, lanes)
    )
    sizes = winograd.scratch(shape, plan, lanes)
    v, p = builder.scratch("transformed", sizes[0]), builder.scratch("products", sizes[1])
    body = winograd.Emitter(shape, plan, lanes, read, w, b, v, p, builder.finish()).body()
    return [builder.kernel(plan, body, winograd.extent(shape, plan))]


RULES: Sequence[Rule] = [Convolution()]
