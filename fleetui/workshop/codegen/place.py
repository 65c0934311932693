"""Decides where every value lives: alone, inside another value, or in the caller's own buffer.

A part of a concatenation is written straight into its place in the whole, as a strided view; a reshape is another
view of the same memory, a slice a smaller one. So most concatenations, reshapes and splits cost nothing. Chains
(a DenseNet block is one long chain of concatenations) end in one buffer. What cannot be a view is computed by its
rule like anything else, and parts of a concatenation that cannot be written in place are copied into it.

Says nothing about bytes or time: that is ``memory``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from fleetui.workshop.graph.ir import Graph, Node, Shape, Value
from fleetui.workshop.kernel import Group, Placement, dense_strides
from fleetui.workshop.schedules.fuse import is_view


@dataclass(slots=True)
class Layout:
    """``views`` has every value that does not stand alone. ``skipped`` groups need no code at all.

    ``parts`` lists, for a concatenation that is only partly in place, the inputs still to be copied, each with
    the view it has to be copied to.
    """

    views: dict[Value, Placement] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)
    parts: dict[int, list[tuple[Value, Placement]]] = field(default_factory=dict)

    def of(self, value: Value) -> Placement:
        return self.views.get(value) or Placement(value, 0, dense_strides(value.shape))

    def dense(self, value: Value) -> bool:
        place = self.views.get(value)
        return place is None or place.strides == dense_strides(value.shape)


def normal(shape: Shape, strides: Sequence[int]) -> tuple[int, ...]:
    """The stride of an axis of one element means nothing: make it what a dense tensor would have."""
    out = list(strides)
    step = 1
    for axis in reversed(range(len(shape))):
        if shape[axis] == 1:
            out[axis] = step
        step = out[axis] * shape[axis]
    return tuple(out)


def reshaped(shape: Shape, strides: Sequence[int], new: Shape) -> tuple[int, ...] | None:
    """Strides under which the same elements, in the same order, have another shape; None if there are none."""
    if prod(shape) != prod(new) or prod(shape) == 0:
        return None
    old = [(d, s) for d, s in zip(shape, strides, strict=True) if d != 1]
    out: list[int] = [0] * len(new)
    at = 0
    axis = 0
    while axis < len(new):
        if new[axis] == 1:
            axis += 1
            continue
        take, size = axis, new[axis]
        have = old[at][0]
        first = at
        while size != have:
            if size < have:
                take += 1
                size *= new[take]
            else:
                at += 1
                have *= old[at][0]
        for index in range(first, at):
            if old[index][1] != old[index + 1][0] * old[index + 1][1]:
                return None
        step = old[at][1]
        for index in range(take, axis - 1, -1):
            out[index] = step
            step *= new[index]
        at += 1
        axis = take + 1
    return normal(new, out)


def place(graph: Graph, groups: Sequence[Group]) -> Layout:
    return _Placer(graph, groups).run()


class _Placer:
    def __init__(self, graph: Graph, groups: Sequence[Group]) -> None:
        self.graph = graph
        self.groups = groups
        self.outputs = set(graph.outputs)
        self.made = {value for group in groups for value in group.outputs}
        self.layout = Layout()

    def run(self) -> Layout:
        for group in reversed(self.groups):
            self._backward(group)
        for index, group in enumerate(self.groups):
            self._forward(index, group)
        return self.layout

    # ------------------------------------------------------------ consumers first: who is written into whom

    def _movable(self, value: Value) -> bool:
        return (
            value.data is None
            and value.size > 0
            and value in self.made
            and value not in self.outputs
            and value not in self.layout.views
        )

    def _backward(self, group: Group) -> None:
        views = self.layout.views
        joined = _concat(group)
        if joined is not None:
            whole = self.layout.of(joined.output)
            axis, start = joined.attrs["axis"], 0
            for value in joined.inputs:
                assert value is not None
                if self._movable(value):
                    offset = whole.offset + start * whole.strides[axis]
                    views[value] = Placement(whole.base, offset, normal(value.shape, whole.strides))
                start += value.shape[axis]
            return
        same = _same_order(group)
        if same is None:
            return
        source, result = same
        if (result in self.outputs or result in views) and self._movable(source):
            target = self.layout.of(result)
            strides = reshaped(result.shape, target.strides, source.shape)
            if strides is not None:
                views[source] = Placement(target.base, target.offset, strides)

    # ------------------------------------------------------------ producers first: who is a view of whom

    def _forward(self, index: int, group: Group) -> None:
        views = self.layout.views
        joined = _concat(group)
        if joined is not None:
            self._join(index, joined)
            return
        same = _same_order(group)
        if same is not None:
            source, result = same
            here = self.layout.of(source)
            strides = reshaped(source.shape, here.strides, result.shape)
            if strides is None or source.data is not None:
                return
            view = Placement(here.base, here.offset, strides)
            if result in views or result in self.outputs:
                if self.layout.of(result) == view:
                    self.layout.skipped.add(index)
                return
            views[result] = view
            self.layout.skipped.add(index)
            return
        cut = _cut(group)
        if cut is not None:
            source, result = cut.input(0), cut.output
            if source.data is not None or result in views or result in self.outputs or result.size == 0:
                return
            here = self.layout.of(source)
            offset = here.offset + sum(s * st for s, st in zip(cut.attrs["starts"], here.strides, strict=True) if s)
            steps = tuple(s * st for s, st in zip(cut.attrs["steps"], here.strides, strict=True))
            views[result] = Placement(here.base, offset, normal(result.shape, steps))
            self.layout.skipped.add(index)

    def _join(self, index: int, joined: Node) -> None:
        whole = self.layout.of(joined.output)
        axis, start = joined.attrs["axis"], 0
        left: list[tuple[Value, Placement]] = []
        total = 0
        for value in joined.inputs:
            assert value is not None
            view = Placement(
                whole.base, whole.offset + start * whole.strides[axis], normal(value.shape, whole.strides)
            )
            start += value.shape[axis]
            if value.size == 0:
                continue
            total += 1
            if self.layout.views.get(value) != view:
                left.append((value, view))
        if not left:
            self.layout.skipped.add(index)
        elif len(left) < total:
            self.layout.parts[index] = left


def _concat(group: Group) -> Node | None:
    """A concatenation that nothing is fused with."""
    node = group.nodes[0]
    return node if len(group.nodes) == 1 and node.op == "concat" else None


def _same_order(group: Group) -> tuple[Value, Value] | None:
    """Source and result of a group that leaves the elements in their order."""
    if len(group.outputs) != 1 or not all(_keeps_order(node) for node in group.nodes):
        return None
    source, result = group.nodes[0].input(0), group.outputs[0]
    if any(b.input(0) is not a.output for a, b in zip(group.nodes, group.nodes[1:], strict=False)):
        return None
    return (source, result) if result is group.nodes[-1].output else None


def _keeps_order(node: Node) -> bool:
    return node.op not in {"slice", "concat"} and is_view(node)


def _cut(group: Group) -> Node | None:
    """A slice that nothing is fused with and that keeps its innermost axis in steps of one."""
    node = group.nodes[0]
    if len(group.nodes) != 1 or node.op != "slice" or not node.output.rank:
        return None
    steps = node.attrs["steps"]
    return node if all(step > 0 for step in steps) and steps[-1] == 1 else None
