"""Transposed convolution as ordinary ones: every phase of the output is a small convolution of its own.

With stride s the outputs at places p, p + s, p + 2s, … see the same taps of the kernel. So there are s convolutions
of stride 1 for each spatial axis, each written through strides to its places, by whatever rule convolutions have;
nothing is multiplied by the zeros between the inputs, and nothing has to be brought together afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

import numpy as np

from fleetui.workshop.graph.ir import Array, Node, Shape, Value
from fleetui.workshop.kernel import Arg, Group, Kernel, Placement
from fleetui.workshop.schedules.rules import Context

MOST_PHASES = 16


@dataclass(frozen=True, slots=True)
class Phase:
    """Along one axis: outputs ``first + step·q`` for q < ``count``; taps in order; input cropped, then padded."""

    first: int
    count: int
    taps: tuple[int, ...]
    crop: tuple[int, int]
    pads: tuple[int, int]


def phases(size: int, kernel: int, stride: int, before: int, out: int) -> list[Phase] | None:
    """None where some output sees no tap at all."""
    found = []
    for first in range(min(stride, out)):
        taps = tuple(t for t in reversed(range(kernel)) if (first + before - t) % stride == 0)
        if not taps:
            return None
        count = -(-(out - first) // stride)
        head = -((first + before - taps[0]) // stride)
        tail = count - size - head + len(taps) - 1
        found.append(Phase(first, count, taps, (max(0, -head), max(0, -tail)), (max(0, head), max(0, tail))))
    return found


def _all_phases(node: Node) -> list[tuple[Phase, ...]] | None:
    x, w, attrs = node.input(0), node.input(1), node.attrs
    axes = []
    for axis in range(x.rank - 2):
        size, kernel = x.shape[1 + axis], w.shape[axis]
        found = phases(size, kernel, attrs["strides"][axis], attrs["pads"][axis][0], node.output.shape[1 + axis])
        if found is None or any(p.crop[0] + p.crop[1] >= size for p in found):
            return None
        axes.append(found)
    return list(product(*axes))


def takes(group: Group, context: Context) -> bool:
    node = group.anchor
    if node.op != "conv_transpose" or node.input(1).data is None or node.output.size == 0:
        return False
    if any(d != 1 for d in node.attrs["dilations"]) or context.strides(group.outputs[0])[-1] != 1:
        return False
    if any(len(extra.shape) != node.output.rank for extra in _whole(group)):
        return False
    found = _all_phases(node)
    return found is not None and len(found) <= MOST_PHASES


def _whole(group: Group) -> list[Value]:
    """Operands of the chain that have a place for each pixel."""
    anchor = {v for v in group.anchor.inputs if v is not None}
    lead = group.anchor.output.rank - 1
    return [v for v in group.inputs if v not in anchor and v.rank >= 2 and prod(v.shape[-1 - lead : -1]) > 1]


def lower(group: Group, context: Context) -> list[Kernel]:
    made = _all_phases(group.anchor)
    assert made is not None
    kernels: list[Kernel] = []
    for number, phase in enumerate(made):
        kernels += _Part(group, context, phase, number).lower()
    return kernels


def weights_of(node: Node, phase: Sequence[Phase]) -> Array:
    """The taps of one phase, as a convolution has them: [*taps, C / groups, M]."""
    w = node.input(1)
    assert w.data is not None
    data = w.data[np.ix_(*(p.taps for p in phase))]
    groups = node.attrs["groups"]
    if groups > 1:
        *taps, channels, each = data.shape
        data = data.reshape(*taps, groups, channels // groups, each)
        data = np.moveaxis(data, -3, -2).reshape(*taps, channels // groups, groups * each)
    return np.ascontiguousarray(data)


class _Part:
    """One phase: the group's nodes again, on views of its operands."""

    def __init__(self, group: Group, context: Context, phase: tuple[Phase, ...], number: int) -> None:
        self.group = group
        self.context = context
        self.phase = phase
        self.number = number
        self.views: dict[Value, tuple[Value, int]] = {}
        self.placements = dict(context.placements)
        self.fresh: dict[Value, Value] = {}

    def _view(self, value: Value, shape: Shape, starts: Sequence[int], steps: Sequence[int]) -> Value:
        strides = self.context.strides(value)
        offset = sum(a * s for a, s in zip(starts, strides, strict=True))
        view = Value(f"{value.name}.{self.number}", shape, value.dtype)
        self.views[view] = (value, offset)
        base = self.context.placements.get(value)
        origin = base.offset if base is not None else 0
        taken = tuple(a * s for a, s in zip(steps, strides, strict=True))
        self.placements[view] = Placement(base.base if base is not None else value, origin + offset, taken)
        return view

    def _output(self, value: Value) -> Value:
        starts, steps, shape = [0], [1], [value.shape[0]]
        for axis, phase in enumerate(self.phase):
            one = value.shape[1 + axis] == 1
            starts.append(0 if one else phase.first)
            steps.append(1 if one else self.group.anchor.attrs["strides"][axis])
            shape.append(1 if one else phase.count)
        return self._view(value, (*shape, value.shape[-1]), [*starts, 0], [*steps, 1])

    def _input(self, value: Value) -> Value:
        if not any(any(phase.crop) for phase in self.phase):
            return value
        starts = [0, *(phase.crop[0] for phase in self.phase), 0]
        spatial = [d - sum(phase.crop) for d, phase in zip(value.shape[1:-1], self.phase, strict=True)]
        shape = (value.shape[0], *spatial, value.shape[-1])
        return self._view(value, shape, starts, [1] * value.rank)

    def _again(self, value: Value | None) -> Value | None:
        if value is None or value in self.fresh:
            return self.fresh[value] if value is not None else None
        return value

    def lower(self) -> list[Kernel]:
        from fleetui.workshop.schedules import rules

        group, node = self.group, self.group.anchor
        spatial = [phase.count for phase in self.phase]
        shape = (node.output.shape[0], *spatial, node.output.shape[-1])
        data = weights_of(node, self.phase)
        w = Value(f"{node.input(1).name}.{self.number}", tuple(data.shape), node.input(1).dtype, data)
        attrs = {
            "strides": (1,) * len(spatial), "pads": tuple(phase.pads for phase in self.phase),
            "dilations": (1,) * len(spatial), "groups": node.attrs["groups"],
        }  # fmt: skip
        for value in _whole(group):
            self.fresh[value] = self._output(value)
        final = self.fresh[group.outputs[0]] = self._output(group.outputs[0])
        nodes = []
        for old in group.nodes:
            for out in old.outputs:
                if out not in self.fresh:
                    self.fresh[out] = Value(f"{out.name}.{self.number}", shape, out.dtype)
            outputs = [self.fresh[out] for out in old.outputs]
            if old is node:
                inputs: list[Value | None] = [self._input(node.input(0)), w, node.optional(2)]
                nodes.append(Node("conv", inputs, outputs, attrs, old.source))
            else:
                nodes.append(Node(old.op, [self._again(v) for v in old.inputs], outputs, old.attrs, old.source))
        anchor = nodes[group.nodes.index(node)]
        made = {out for one in nodes for out in one.outputs}
        inputs = list(dict.fromkeys(v for one in nodes for v in one.inputs if v is not None and v not in made))
        part = Group(nodes, anchor, [v for v in inputs if v is not None], [final])
        kernels = rules.lower(part, replace(self.context, placements=self.placements))
        for kernel in kernels:
            kernel.args = [self._settled(arg) for arg in kernel.args]
        return kernels

    def _settled(self, arg: Arg) -> Arg:
        if isinstance(arg.buffer, Value) and arg.buffer in self.views:
            value, offset = self.views[arg.buffer]
            return Arg(value, offset + arg.offset)
        return arg
