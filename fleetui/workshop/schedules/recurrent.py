"""LSTM, GRU and the plain recurrent network.

The input's part of all gates, for all steps and directions, is one product. What is left is one kernel in which a
task walks through time for one direction and a few rows of the batch: a product with the state, the gates of whole
vectors, and on to the next step. Time is never shared out among threads. Nothing is fused behind these operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fleetui.workshop.graph.ir import BITS, Node, Value
from fleetui.workshop.graph.primitives.recurrent import FUNCTIONS, GATES
from fleetui.workshop.kernel import Group, Kernel, Packed, Temporary
from fleetui.workshop.schedules import gemm
from fleetui.workshop.schedules.emit import (
    Expr,
    Stmt,
    choose,
    integer,
    number,
    parallel,
    pieces,
    sequence,
    serial,
    store,
    vector,
)
from fleetui.workshop.schedules.gemm import Product, Size
from fleetui.workshop.schedules.mathlib import cast, clamp, let, select
from fleetui.workshop.schedules.operands import Operands
from fleetui.workshop.schedules.panels import Plain, has_half, pack, widen
from fleetui.workshop.schedules.products import Tensor, pack_kernel
from fleetui.workshop.schedules.rules import Context, Rule
from fleetui.workshop.schedules.scalar import scalar
from fleetui.workshop.schedules.weights import sum_dtype

ROWS = 8
"""Rows of the batch that a task takes through time together: they share each reading of the weights."""


def activation(name: str, alpha: float, beta: float, dtype: str) -> Callable[[Expr], Expr]:
    def known(op: str, **attrs: Any) -> Callable[[Expr], Expr]:
        return lambda x: scalar(op, [x], attrs, [dtype], dtype)

    a, b = number(alpha, dtype), number(beta, dtype)
    if name == "affine":
        return lambda x: a * x + b
    if name == "scaled_tanh":
        return lambda x: a * known("tanh")(b * x)
    if name == "thresholded_relu":
        return lambda x: let(x, lambda v: select(v >= a, v, number(0, dtype)))
    if name in {"leaky_relu", "elu"}:
        return known(name, alpha=alpha)
    if name == "hard_sigmoid":
        return known(name, alpha=alpha, beta=beta)
    return known(name)


class Recurrent:
    name = "recurrent"

    def matches(self, group: Group, context: Context) -> bool:
        return group.anchor.op in GATES and len(group.nodes) == 1

    def lower(self, group: Group, context: Context) -> list[Kernel]:
        if any(out.size == 0 for out in group.anchor.outputs[1:]) or group.anchor.input(0).shape[0] == 0:
            return _nothing_to_walk(group.anchor, context)
        return _Lowering(group.anchor, context).run()


def _nothing_to_walk(node: Node, context: Context) -> list[Kernel]:
    """No steps, or no rows: the last state is the first."""
    from tvm import tirx

    kernels = []
    for index, out in enumerate(node.outputs[1:]):
        if out.size == 0:
            continue
        start = node.optional(5 + index)
        operands = Operands(context)
        source = operands.value(start) if start is not None else None
        made = operands.value(out, output=True)
        zero = cast(number(0, "float32"), out.dtype)

        def copy(d: Expr, made: Any = made, source: Any = source, out: Value = out, zero: Expr = zero) -> Stmt:
            def element(b: Expr, j: Expr) -> Stmt:
                return store(made, [d, b, j], zero if source is None else tirx.BufferLoad(source, [d, b, j]))

            return serial("b", out.shape[1], lambda b: serial("j", out.shape[2], lambda j: element(b, j)))

        kernels.append(operands.kernel(f"first state {start is None}", serial("d", out.shape[0], copy)))
    return kernels


@dataclass(slots=True)
class _Buffers:
    """What a task reads and writes. The states and ``pre``, the state's part of the gates, lie in the workspace."""

    fed: Any
    h: Any
    c: Any
    pre: Any
    gated: Any
    bias: Any
    peephole: Any
    lengths: Any
    outs: list[Any]


class _Lowering:
    def __init__(self, node: Node, context: Context) -> None:
        self.node, self.context, self.target = node, context, context.target
        self.op, self.attrs = node.op, node.attrs
        x, r = node.input(0), node.input(2)
        self.steps, self.batch, self.width = x.shape
        self.count, self.hidden = r.shape[0], r.shape[2]
        self.gates = GATES[self.op]
        self.dtype = sum_dtype(x.dtype)
        self.lanes = self.target.lanes(BITS[self.dtype])
        self.native = has_half(self.target)
        self.split = self.op == "gru" and not self.attrs["linear_before_reset"]
        self.before: list[Kernel] = []

    def run(self) -> list[Kernel]:
        fed = Temporary("fed", (self.count, self.steps * self.batch, self.gates * self.hidden), self.dtype)
        kernels = [self._feed(fed), self._walk(fed)]
        return [*self.before, *kernels]

    # ------------------------------------------------------------ weights

    def _panels(self, value: Value, size: Size, plan: gemm.Plan, first: int, operands: Operands) -> Plain:
        """Rows ``first`` … of ``value`` [D, rows, K] as columns of panels, packed here or at run time."""
        turned = Tensor(value, value.shape, value.dtype, True, (self.count,), lambda batch: [batch], first)
        if value.data is not None:
            matrix = value.data[:, first : first + size.columns].swapaxes(-1, -2)
            source = operands.packed(Packed(f"{value.name}.panels", pack(matrix, plan.width), value.dtype))
        else:
            temporary, kernel = pack_kernel(turned, size, plan, self.context)
            self.before.append(kernel)
            source = operands.temporary(temporary)
        return Plain(source, self.dtype, self.native, turned.place)

    def _feed(self, fed: Temporary) -> Kernel:
        """Input × W, plus the bias, for every step: ``fed``."""
        from tvm import tirx

        operands = Operands(self.context)
        hidden, all_gates = self.hidden, self.gates * self.hidden
        size = Size(self.steps * self.batch, self.width, all_gates, self.count)
        plan = gemm.choose_plan(size, self.target, BITS[self.dtype])
        matrix = operands.rows(self.node.input(0))
        right = self._panels(self.node.input(1), size, plan, 0, operands)
        bias = self.node.optional(3)
        source = operands.value(bias) if bias is not None else None
        made = operands.temporary(fed, output=True)
        apart = self.op == "gru" and not self.split

        def finish(batch: Expr, row: Expr, column: Expr, total: Expr) -> Stmt:
            if source is not None:
                own = cast(tirx.BufferLoad(source, [batch, column]), self.dtype)
                more = cast(tirx.BufferLoad(source, [batch, column + integer(all_gates)]), self.dtype)
                if apart:  # the last gate's goes inside the product with the reset gate
                    more = select(column < integer(2 * hidden), more, number(0, self.dtype))
                total = total + own + more
            return store(made, [batch, row, column], total)

        def left(_batch: Expr, row: Expr, k: Expr) -> Expr:
            return widen(matrix(row, k), self.dtype, native_half=self.native)

        product = Product(size, plan, left, right, finish, self.dtype)
        return operands.kernel(
            f"recurrent input {size} {plan.label} {source is not None} {apart}",
            product.body(),
            extent=plan.tasks(size),
            grain=gemm.grain(size, plan, self.target, operands.moved),
            flops=size.flops,
        )

    # ------------------------------------------------------------ through time

    def _walk(self, fed: Temporary) -> Kernel:
        operands = Operands(self.context)
        state = (self.count, self.batch, self.hidden)
        wide = (self.count, self.batch, self.gates * self.hidden)

        def scratch(name: str, shape: tuple[int, ...]) -> Any:
            return operands.temporary(Temporary(name, shape, self.dtype), output=True)

        def given(index: int) -> Any:
            value = self.node.optional(index)
            return operands.value(value) if value is not None else None

        source = operands.temporary(fed)
        start = [given(5), given(6) if self.op == "lstm" else None]
        buffers = _Buffers(
            fed=source,
            h=scratch("h", state),
            c=scratch("c", state) if self.op == "lstm" else None,
            pre=scratch("pre", wide),
            gated=scratch("gated", state) if self.split else None,
            bias=given(3) if self.op == "gru" and not self.split else None,
            peephole=given(7) if self.op == "lstm" else None,
            lengths=given(4),
            outs=[operands.value(out, output=True) for out in self.node.outputs],
        )
        phases = [(0, 2), (2, 3)] if self.split else [(0, self.gates)]
        rows = min(self.batch, ROWS)
        sizes = [Size(rows, self.hidden, (b - a) * self.hidden) for a, b in phases]
        plans = [gemm.choose_plan(size, self.target, BITS[self.dtype]) for size in sizes]
        panels = [
            self._panels(self.node.input(2), size, plan, a * self.hidden, operands)
            for size, plan, (a, _) in zip(sizes, plans, phases, strict=True)
        ]
        groups = -(-self.batch // rows)
        states = [s for s in (buffers.h, buffers.c) if s is not None]

        def task(at: Expr) -> Stmt:
            direction, group = at // integer(groups), at % integer(groups)
            first = group * integer(rows)

            def whole(count: int, second: bool) -> Stmt:
                walk = _Steps(self, buffers, direction, first, count, second)
                body = [walk.begin(kept, given) for kept, given in zip(states, start, strict=False)]
                body.append(walk.steps(phases, plans, panels))
                body += [walk.give(kept, out) for kept, out in zip(states, buffers.outs[1:], strict=True)]
                return sequence(body)

            def either(count: int) -> Stmt:
                if self.count == 1:
                    return whole(count, False)
                return choose(direction == integer(0), whole(count, False), whole(count, True))

            rest = self.batch % rows
            if rest == 0:
                return either(rows)
            return choose(group < integer(groups - 1), either(rows), either(rest))

        flops = 2 * self.steps * self.batch * self.count * self.hidden * self.hidden * self.gates
        extent = self.count * groups
        each = flops / extent / (self.target.gflops * 1e9)
        described = [self.attrs[key] for key in sorted(self.attrs)]
        present = [value is not None for value in self.node.inputs]
        return operands.kernel(
            f"{self.op} {described} {present} {[plan.label for plan in plans]}",
            parallel(extent, task),
            extent=extent,
            grain=max(1, min(extent, int(gemm.WORTH / max(each, 1e-12)) + 1)),
            flops=flops,
        )


@dataclass(slots=True)
class _Steps:
    """The walk of one task: ``count`` rows from ``first`` on, in one direction."""

    owner: _Lowering
    buffers: _Buffers
    direction: Expr
    first: Expr
    count: int
    second: bool

    def begin(self, kept: Any, start: Any) -> Stmt:
        from tvm import tirx

        dtype = self.owner.dtype
        if start is None:
            return self.each(lambda row, j: [store(kept, [self.direction, row, j], number(0, dtype))])
        return self.each(
            lambda row, j: [
                store(
                    kept,
                    [self.direction, row, j],
                    cast(tirx.BufferLoad(start, [self.direction, row, j]), dtype),
                )
            ]
        )

    def give(self, kept: Any, out: Any) -> Stmt:
        from tvm import tirx

        goal = self.owner.node.input(0).dtype
        return self.each(
            lambda row, j: [
                store(out, [self.direction, row, j], cast(tirx.BufferLoad(kept, [self.direction, row, j]), goal))
            ]
        )

    def each(self, body: Callable[[Expr, Expr], list[Stmt]]) -> Stmt:
        """``body(row, unit)`` for every row of the task and every hidden unit, in vectors."""
        lanes, hidden = self.owner.lanes, self.owner.hidden

        def row_of(i: Expr) -> Stmt:
            row = self.first + i
            full = hidden // lanes
            made: list[Stmt] = []
            if full:
                made.append(
                    serial("v", full, lambda v: vector(lanes, lambda lane: body(row, v * integer(lanes) + lane)))
                )
            for at, size in pieces(hidden - full * lanes, lanes):
                offset = integer(full * lanes + at)
                made.append(vector(size, lambda lane, offset=offset: body(row, offset + lane)))  # type: ignore[misc]  # bound early
            return sequence(made)

        return serial("row", self.count, row_of)

    # ------------------------------------------------------------ one step after the other

    def steps(self, phases: Sequence[tuple[int, int]], plans: Sequence[gemm.Plan], panels: Sequence[Plain]) -> Stmt:
        owner = self.owner
        backwards = owner.attrs["direction"] == "reverse" or self.second

        def step(t: Expr) -> Stmt:
            at = integer(owner.steps - 1) - t if backwards else t
            made: list[Stmt] = []
            for number_, ((a, b), plan, right) in enumerate(zip(phases, plans, panels, strict=True)):
                source = self.buffers.h if number_ == 0 else self.buffers.gated
                made.append(self.product(source, a, b, plan, right))
                if owner.split and number_ == 0:
                    made.append(self.each(lambda row, j: self.reset(at, row, j)))
            made.append(self.each(lambda row, j: self.update(at, row, j)))
            return sequence(made)

        return serial("t", owner.steps, step)

    def product(self, source: Any, a: int, b: int, plan: gemm.Plan, right: Plain) -> Stmt:
        from tvm import tirx

        hidden = self.owner.hidden
        size = Size(self.count, hidden, (b - a) * hidden)

        def left(_batch: Expr, row: Expr, k: Expr) -> Expr:
            return tirx.BufferLoad(source, [self.direction, self.first + row, k])

        def finish(_batch: Expr, row: Expr, column: Expr, total: Expr) -> Stmt:
            return store(self.buffers.pre, [self.direction, self.first + row, column + integer(a * hidden)], total)

        return Product(size, plan, left, right, finish, self.owner.dtype).inline(self.direction)

    # ------------------------------------------------------------ gates

    def state(self, kept: Any, row: Expr, j: Expr) -> Expr:
        from tvm import tirx

        return tirx.BufferLoad(kept, [self.direction, row, j])

    def fed(self, at: Expr, gate: int, row: Expr, j: Expr) -> Expr:
        from tvm import tirx

        where = [self.direction, at * integer(self.owner.batch) + row, j + integer(gate * self.owner.hidden)]
        return tirx.BufferLoad(self.buffers.fed, where)

    def pre(self, gate: int, row: Expr, j: Expr) -> Expr:
        from tvm import tirx

        return tirx.BufferLoad(self.buffers.pre, [self.direction, row, j + integer(gate * self.owner.hidden)])

    def gate(self, at: Expr, gate: int, row: Expr, j: Expr) -> Expr:
        return self.pre(gate, row, j) + self.fed(at, gate, row, j)

    def clipped(self, x: Expr) -> Expr:
        clip = self.owner.attrs["clip"]
        return x if clip is None else clamp(x, -clip, clip)

    def function(self, index: int) -> Callable[[Expr], Expr]:
        owner, each = self.owner, FUNCTIONS[self.owner.op]
        at = index + (each if self.second else 0)
        attrs = owner.attrs
        return activation(attrs["activations"][at], attrs["alphas"][at], attrs["betas"][at], owner.dtype)

    def alive(self, at: Expr, row: Expr, new: Expr, old: Expr) -> Expr:
        """Rows that have ended keep their state."""
        if self.buffers.lengths is None:
            return new
        return select(self.living(at, row), new, old)

    def living(self, at: Expr, row: Expr) -> Expr:
        from tvm import tirx

        return at < cast(tirx.BufferLoad(self.buffers.lengths, [row]), "int32")

    def reset(self, at: Expr, row: Expr, j: Expr) -> list[Stmt]:
        """The reset gate times the state, which the last gate of a GRU multiplies."""
        gate = self.function(0)(self.clipped(self.gate(at, 1, row, j)))
        return [store(self.buffers.gated, [self.direction, row, j], gate * self.state(self.buffers.h, row, j))]

    def update(self, at: Expr, row: Expr, j: Expr) -> list[Stmt]:
        """The new state, and the step's output."""
        place = [self.direction, row, j]
        h, c = self.buffers.h, self.buffers.c
        made: list[Stmt] = []
        if self.owner.op == "lstm":
            cell, new = self.lstm(at, row, j)
            made.append(store(c, place, self.alive(at, row, cell, self.state(c, row, j))))
        elif self.owner.op == "gru":
            new = self.gru(at, row, j)
        else:
            new = self.function(0)(self.clipped(self.gate(at, 0, row, j)))
        made.append(store(h, place, self.alive(at, row, new, self.state(h, row, j))))
        dtype = self.owner.node.input(0).dtype
        shown = self.alive(at, row, self.state(h, row, j), number(0, self.owner.dtype))
        made.append(store(self.buffers.outs[0], [at, *place], cast(shown, dtype)))
        return made

    def peephole(self, gate: int, row: Expr, j: Expr, total: Expr) -> Expr:
        from tvm import tirx

        if self.buffers.peephole is None:
            return total
        weight = tirx.BufferLoad(self.buffers.peephole, [self.direction, j + integer(gate * self.owner.hidden)])
        return total + cast(weight, self.owner.dtype) * self.state(self.buffers.c, row, j)

    def lstm(self, at: Expr, row: Expr, j: Expr) -> tuple[Expr, Expr]:
        """The new cell; and the new state, which reads the cell after it has been stored."""
        gate, squash, give = (self.function(index) for index in range(3))
        c = self.buffers.c
        enter = gate(self.clipped(self.peephole(0, row, j, self.gate(at, 0, row, j))))

        def cell(i: Expr) -> Expr:
            if self.owner.attrs["input_forget"]:
                keep = number(1, self.owner.dtype) - i
            else:
                keep = gate(self.clipped(self.peephole(2, row, j, self.gate(at, 2, row, j))))
            return keep * self.state(c, row, j) + i * squash(self.clipped(self.gate(at, 3, row, j)))

        leave = gate(self.clipped(self.peephole(1, row, j, self.gate(at, 1, row, j))))
        return let(enter, cell), leave * give(self.state(c, row, j))

    def gru(self, at: Expr, row: Expr, j: Expr) -> Expr:
        from tvm import tirx

        gate, squash = self.function(0), self.function(1)
        inner = self.pre(2, row, j)
        if not self.owner.split:
            if self.buffers.bias is not None:
                where = [self.direction, j + integer(5 * self.owner.hidden)]
                inner = inner + cast(tirx.BufferLoad(self.buffers.bias, where), self.owner.dtype)
            inner = gate(self.clipped(self.gate(at, 1, row, j))) * inner
        new = squash(self.clipped(self.fed(at, 2, row, j) + inner))
        one = number(1, self.owner.dtype)
        return let(
            gate(self.clipped(self.gate(at, 0, row, j))),
            lambda z: (one - z) * new + z * self.state(self.buffers.h, row, j),
        )


RULES: list[Rule] = [Recurrent()]
