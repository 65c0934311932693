"""Convolutions: which of the ways to compute one is taken, and the kernel for a whole group.

The convolution, its bias and the elementwise chain behind it are one kernel. Weights of 16 or 8 bits are widened
in registers (by the direct way only); on 8-bit inputs sums are 32-bit integers. A transpose in front of a first
layer is taken in too: the kernel then reads the picture as the caller has it. What this cannot do (three
dimensions, weights that are not constant) is left to the generic rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise, zip_longest
from typing import Any

import numpy as np

from fleetui.workshop.graph.ir import Array, Node, Value
from fleetui.workshop.kernel import Group, Kernel, Packed, Temporary
from fleetui.workshop.schedules import conv_depthwise, conv_direct, conv_int8, conv_plan, emit, winograd
from fleetui.workshop.schedules.conv_depthwise import Depthwise
from fleetui.workshop.schedules.conv_direct import Direct, Finish, Read
from fleetui.workshop.schedules.conv_plan import Plan, Wish
from fleetui.workshop.schedules.conv_shape import ConvShape, conv_shape, pack, pack_bias
from fleetui.workshop.schedules.cost import Machine, machine
from fleetui.workshop.schedules.emit import Buffer, Expr, Stmt, load
from fleetui.workshop.schedules.epilogue import Epilogue
from fleetui.workshop.schedules.operands import Matrix, Operands, unravel
from fleetui.workshop.schedules.rules import Context, Rule
from fleetui.workshop.schedules.winograd import Winograd

NARROW = 4
"""Output channels of a group below which small weights are not worth a kernel of their own."""
WORTH = 8e-6
"""Seconds of work that pay for waking a thread."""


class Convolution:
    name = "conv"

    def matches(self, group: Group, context: Context) -> bool:
        return supported(group)

    def lower(self, group: Group, context: Context) -> list[Kernel]:
        if group.anchor.output.size == 0:
            return []
        return lower(group, context, pick(group, context))

    # ------------------------------------------------------------ tuning

    def operator(self, group: Group, context: Context) -> str:
        """Shape, what is chained behind, where the weights come from, how many threads; no names of values."""
        epilogue, form = Epilogue(without_expansion(group)), kept(group)
        whole = sum(value.size == group.anchor.output.size for value in epilogue.extra)
        chain = f"+{len(epilogue.nodes)}" + ("r" * whole) if epilogue else ""
        wish = wish_of(context)
        words = [f"conv {working_shape(group, context).key}{chain}"]
        words += [str(form.data.dtype)] if form is not None and form.small else []
        words += ["first"] if epilogue.before else []
        words += ["cold"] if wish.cold else []
        words += [f"t{wish.threads}"] if wish.threads > 1 else []
        return " ".join(words)

    def plans(self, group: Group, context: Context) -> list[Plan]:
        return list(dict.fromkeys([pick(group, context), *variety(options(group, context))]))

    def lower_plan(self, group: Group, context: Context, plan: Plan) -> list[Kernel]:
        return lower(group, context, plan)

    def record(self, plan: Plan) -> dict[str, Any]:
        return conv_plan.record(plan)

    def cold(self, group: Group, context: Context) -> bool:
        return wish_of(context).cold


@dataclass(frozen=True, slots=True)
class Kept:
    """Constant weights as they are kept: numbers, or codes with a scale for each output channel."""

    data: Array
    scale: Array | None = None

    @property
    def small(self) -> bool:
        return self.data.dtype != np.float32


def kept(group: Group) -> Kept | None:
    """The weights of a group, expanded by one of its nodes or not; None where they are not constant."""
    value = group.anchor.input(1)
    if value.data is not None:
        return Kept(value.data) if value.dtype in {"float32", "int8", "uint8"} else None
    maker = next((node for node in group.nodes if value in node.outputs), None)
    source = maker.input(0) if maker is not None else None
    if maker is None or source is None or source.data is None or value.dtype != "float32":
        return None
    if maker.op == "cast" and source.dtype == "float16":
        return Kept(source.data)
    if maker.op != "dequantize" or source.dtype != "int8" or maker.attrs.get("block", 0):
        return None
    scale, zero = maker.input(1).data, maker.optional(2)
    if scale is None or (zero is not None and (zero.data is None or np.any(zero.data))):
        return None
    if scale.ndim and maker.attrs["axis"] != source.rank - 1:
        return None
    return Kept(source.data, np.broadcast_to(scale.astype(np.float32), (source.shape[-1],)))


def without_expansion(group: Group) -> Group:
    """The group as the emitters know it: its weights need no node."""
    expanded = group.anchor.input(1)
    return Group([n for n in group.nodes if expanded not in n.outputs], group.anchor, group.inputs, group.outputs)


def supported(group: Group) -> bool:
    node = group.anchor
    if node.op != "conv" or len(group.outputs) != 1:
        return False
    shape, bias, weights = conv_shape(node), node.optional(2), kept(group)
    if shape is None or weights is None or (bias is not None and bias.data is None):
        return False
    integers = node.input(0).dtype in {"int8", "uint8"}
    if integers != (weights.data.dtype.kind in "iu" and weights.scale is None):
        return False
    if not integers and node.input(0).dtype != "float32":
        return False
    if min(shape.n, shape.oh, shape.ow, shape.c, shape.m) < 1:
        return False
    if (weights.small or integers) and shape.groups > 1 and shape.m < NARROW:
        return False
    first = Epilogue(without_expansion(group)).before
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
    if not shape.pointwise or Epilogue(without_expansion(group)).before:
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
    if context.database is not None:
        known = context.database.find(CONVOLUTION.operator(group, context), context.target)
        if known is not None:
            plan = conv_plan.revive(known.plan, working_shape(group, context), wish_of(context))
            if plan is not None and (isinstance(plan, Direct) or not must_be_direct(group)):
                return plan
    return options(group, context)[0]


def variety(plans: Sequence[Plan]) -> list[Plan]:
    """The promising first, but early on one of every kind and block: the cost model knows only so much."""
    first: dict[tuple[Any, ...], Plan] = {}
    for plan in plans:
        kind: tuple[Any, ...] = (type(plan), plan.vectors)
        if isinstance(plan, Winograd):
            kind = (*kind, plan.tile)
        first.setdefault(kind, plan)
    mixed: list[Plan] = []
    for best, other in zip_longest(plans, first.values()):
        mixed += [plan for plan in (best, other) if plan is not None]
    return list(dict.fromkeys(mixed))


def options(group: Group, context: Context) -> list[Plan]:
    """Every plan worth a thought, the one believed to be quickest first."""
    found = list(conv_plan.candidates(working_shape(group, context), machine(context.target), wish_of(context)))
    if must_be_direct(group):
        found = [plan for plan in found if isinstance(plan, Direct)]
    return found


def must_be_direct(group: Group) -> bool:
    """Small weights are widened by that way only; and what lies channel-first is read element by element."""
    weights = kept(group)
    return (weights is not None and weights.small) or bool(Epilogue(without_expansion(group)).before)


# -------------------------------------------------------------------- the kernel


class _Builder:
    """Parameters and accessors of one group's kernel."""

    def __init__(self, group: Group, context: Context, shape: ConvShape) -> None:
        self.group, self.context, self.shape = group, context, shape
        self.operands = Operands(context)
        self.epilogue = Epilogue(without_expansion(group))
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

    def factors(self, scale: Array | None) -> Buffer | None:
        if scale is None:
            return None
        name = self.group.anchor.input(1).name
        return self.operands.packed(Packed(f"{name}.factors", pack_bias(scale, self.shape, self.m.lanes)))

    def scratch(self, name: str, size: int) -> Buffer:
        return self.operands.temporary(Temporary(name, (size,), "float32", per_worker=True))

    def kernel(self, plan: Plan, body: Stmt, extent: int) -> Kernel:
        shape = self.shape
        words = ",".join(str(int(v)) for v in astuple(plan))
        form = kept(self.group)
        assert form is not None
        small = f" {form.data.dtype}{'' if form.scale is None else '·scale'}" if form.small else ""
        key = f"conv {shape.key}{small} {type(plan).__name__.lower()}[{words}] {self.epilogue.signature}"
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
    held, bias = kept(group), node.optional(2)
    assert held is not None
    weights = held.data
    added = None if bias is None else bias.data
    read = builder.read()
    if isinstance(plan, Direct) and by_words(group, context):
        return [_in_words(builder, plan, weights, added, read)]
    if isinstance(plan, Direct):
        w, b = builder.constants(
            pack(weights, shape, plan.vectors, lanes), None if added is None else pack_bias(added, shape, lanes)
        )
        scale = builder.factors(held.scale)
        direct = conv_direct.Emitter(shape, plan, lanes, read, w, b, builder.finish(), scale)
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


def by_words(group: Group, context: Context) -> bool:
    """Whether four channels at a time are multiplied by one instruction."""
    held, shape = kept(group), conv_shape(group.anchor)
    assert held is not None
    assert shape is not None
    lined = context.strides(group.anchor.input(0))[-1] == 1
    return held.scale is None and lined and conv_int8.fits(shape, held.data, context.target)


def _in_words(builder: _Builder, plan: Direct, weights: Array, added: Array | None, read: Read) -> Kernel:
    target, shape, lanes = builder.context.target, builder.shape, builder.m.lanes
    flip = conv_int8.shifted(shape, target)
    back = conv_int8.correction(weights, shape, target) if flip else None
    if back is not None and not shape.padded:
        added = back.sum(axis=0, dtype=np.int32) + (0 if added is None else added)
    small = conv_int8.words(shape)
    packed = pack(conv_int8.weight_words(weights, shape), small, plan.vectors, lanes)
    w, b = builder.constants(packed, None if added is None else pack_bias(added, shape, lanes))
    shift = None
    if back is not None and shape.padded:
        rows = np.stack([pack_bias(row, shape, lanes) for row in back]).reshape(-1)
        shift = builder.operands.packed(Packed(f"{builder.group.anchor.input(1).name}.shift", rows))
    emitter = conv_int8.DotEmitter(small, plan, target, read, w, b, builder.finish(), shift, flip=flip)
    return builder.kernel(plan, emitter.body(), conv_direct.extent(small, plan, lanes))


CONVOLUTION = Convolution()
RULES: Sequence[Rule] = [CONVOLUTION]
