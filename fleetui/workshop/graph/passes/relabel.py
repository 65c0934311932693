"""How operators behave when their tensors are stored with dimensions in another order.

For a node and a permutation of one of its tensors (``new[i] = old[perm[i]]``) ``propagate`` says how all its other
tensors must then be permuted, and ``rewritten`` what its attributes become. An operator that cannot follow says
``None``. Constants follow everything: they are permuted at compile time.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from fleetui.workshop.graph.ir import Node, Shape, Value
from fleetui.workshop.graph.ops import Kind, kind
from fleetui.workshop.graph.passes.moves import groups, inverse

Perm = tuple[int, ...]
Perms = dict[Value, Perm]
"""For every tensor of a node that is not constant, and of more than one element."""

# ---------------------------------------------------------------- helpers


def _same(node: Node, perm: Perm) -> Perms | None:
    """All tensors in the same order. One of lower rank must be constant, or a single number."""
    perms: Perms = {}
    for value in (*node.inputs, *node.outputs):
        if value is None or value.data is not None:
            continue
        if value.rank != len(perm):
            if value.size == 1:
                continue
            return None
        perms[value] = perm
    return perms


def _pair(node: Node, given: Value, perm: Perm, forward: Callable[[Perm], Perm | None], back: Any) -> Perms | None:
    """One input and one output."""
    x, out = node.input(0), node.output
    if given is x:
        other = forward(perm)
        return None if other is None else {x: perm, out: other}
    other = back(perm)
    return None if other is None else {x: other, out: perm}


def _fixed_tail(perm: Perm, axis: int) -> bool:
    return all(perm[i] == i for i in range(axis, len(perm)))


def _moved(numbers: Any, perm: Perm) -> tuple[Any, ...]:
    return tuple(numbers[p] for p in perm)


# ---------------------------------------------------------------- reshape


def _through_reshape(before: Shape, after: Shape, perm: Perm) -> Perm | None:
    """The order of a reshape's result when its input is stored in the order ``perm``."""
    runs = groups(before, after)
    if runs is None:
        return None
    where = {axis: index for index, (left, _) in enumerate(runs) for axis in left}
    order: list[int] = []
    seen: set[int] = set()
    last: dict[int, int] = {}
    previous: int | None = None
    for axis in perm:
        run = where[axis]
        if before[axis] == 1:
            if run not in seen and prod(before[a] for a in runs[run][0]) == 1:
                seen.add(run)
                order.append(run)
            continue
        if run in seen and (previous != run or last[run] > axis):
            return None  # torn apart, or turned round
        if run not in seen:
            seen.add(run)
            order.append(run)
        last[run] = axis
        previous = run
    order += [run for run in range(len(runs)) if run not in seen]
    return tuple(axis for run in order for axis in runs[run][1])


def _reshape(node: Node, given: Value, perm: Perm) -> Perms | None:
    before, after = node.input(0).shape, node.output.shape
    return _pair(
        node,
        given,
        perm,
        lambda p: _through_reshape(before, after, p),
        lambda p: _through_reshape(after, before, p),
    )


# ---------------------------------------------------------------- reductions without kept dimensions


def _dropping(axes: tuple[int, ...]) -> Callable[[Perm], Perm]:
    def forward(perm: Perm) -> Perm:
        kept = [axis for axis in range(len(perm)) if axis not in axes]
        return tuple(kept.index(axis) for axis in perm if axis not in axes)

    return forward


def _reduce(node: Node, given: Value, perm: Perm) -> Perms | None:
    axes = tuple(node.attrs["axes"]) if "axes" in node.attrs else (node.attrs["axis"],)
    if node.attrs["keepdims"]:
        return {node.input(0): perm, node.output: perm}
    return _pair(node, given, perm, _dropping(axes), lambda _perm: None)


# ---------------------------------------------------------------- gather


def _gather(node: Node, given: Value, perm: Perm) -> Perms | None:
    data, indices, axis = node.input(0), node.input(1), node.attrs["axis"]
    extra = indices.rank
    if given is indices or data.data is not None:
        return None

    def forward(p: Perm) -> Perm:
        out: list[int] = []
        for a in p:
            if a == axis:
                out.extend(range(axis, axis + extra))
            else:
                out.append(a if a < axis else a - 1 + extra)
        return tuple(out)

    def back(p: Perm) -> Perm | None:
        run = list(range(axis, axis + extra))
        if not run:
            return None
        at = p.index(run[0])
        if list(p[at : at + extra]) != run:
            return None
        short = [*p[:at], axis, *p[at + extra :]]
        return tuple(a if i == at or a < axis else a + 1 - extra for i, a in enumerate(short))

    return _pair(node, given, perm, forward, back)


# ---------------------------------------------------------------- the table

AXIS = frozenset({"softmax", "log_softmax", "hardmax", "cumsum", "cumprod", "topk", "sort"})
LISTS: dict[str, tuple[str, ...]] = {
    "slice": ("starts", "stops", "steps"),
    "pad": ("before", "after"),
    "tile": ("repeats",),
    "broadcast_to": ("shape",),
}


def propagate(node: Node, given: Value, perm: Perm) -> Perms | None:
    """How all tensors of a node are permuted if ``given`` is permuted by ``perm``."""
    op = node.op
    if op in {"quantize", "dequantize"}:
        plain = not node.attrs.get("block", 0) and all(v is None or v.data is not None for v in node.inputs[1:])
        return {node.input(0): perm, node.output: perm} if plain else None
    if kind(op) is Kind.ELEMENTWISE or op in AXIS or op == "concat":
        return _same(node, perm)
    if op in LISTS:
        return _same(node, perm) if node.input(0).rank == len(node.output.shape) else None
    if op == "interp":
        return {node.input(0): perm, node.output: perm}
    if op in {"reduce", "argmax", "argmin"}:
        return _reduce(node, given, perm)
    if op in {"layer_norm", "rms_norm"}:
        parameters = all(v is None or v.data is not None for v in node.inputs[1:])
        return (
            {node.input(0): perm, node.output: perm}
            if parameters and _fixed_tail(perm, node.attrs["axis"])
            else None
        )
    if op == "lrn" or (op == "dense" and node.input(0).rank > 1):
        weights = all(v is None or v is not given for v in node.inputs[1:])
        return {node.input(0): perm, node.output: perm} if weights and perm[-1] == len(perm) - 1 else None
    if op == "reshape":
        return _reshape(node, given, perm)
    if op == "gather":
        return _gather(node, given, perm)
    if op == "gather_elements":
        return _same(node, perm)
    return None


def rewritten(node: Node, perms: Perms) -> dict[str, Any]:
    """The attributes of a node whose tensors are permuted so."""
    attrs, op = dict(node.attrs), node.op
    out = perms.get(node.outputs[0])
    x = node.inputs[0]
    before = perms.get(x) if x is not None else None
    if op in {"quantize", "dequantize"}:
        if node.input(1).rank and out is not None:
            attrs["axis"] = inverse(out)[attrs["axis"]]
    elif op in AXIS or op in {"concat", "interp", "gather_elements"}:
        assert out is not None
        attrs["axis"] = inverse(out)[attrs["axis"]]
    elif op in LISTS:
        assert out is not None
        for key in LISTS[op]:
            attrs[key] = _moved(attrs[key], out)
    elif op == "reduce":
        assert before is not None
        attrs["axes"] = tuple(sorted(inverse(before)[axis] for axis in attrs["axes"]))
    elif op in {"argmax", "argmin", "gather"}:
        assert before is not None
        attrs["axis"] = inverse(before)[attrs["axis"]]
    elif op == "reshape":
        assert out is not None
        attrs["shape"] = _moved(node.output.shape, out)
    return attrs


def constant_perm(node: Node, index: int, perms: Perms) -> Perm | None:
    """How a constant input is to be permuted: one that is read element by element as the result is."""
    value = node.inputs[index]
    if value is None or value.data is None:
        return None
    if value in perms:
        return perms[value]
    if node.op in {"quantize", "dequantize"}:
        return None
    alike = kind(node.op) is Kind.ELEMENTWISE or node.op in {"concat", "gather_elements"}
    alike = alike or (index == 0 and (node.op in AXIS or node.op in LISTS))
    return perms.get(node.outputs[0]) if alike else None
