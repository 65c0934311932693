"""Rules for operators that only move data: reshape, transpose, slices, concat, pad, gather, trivial windows."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from fleetui.workshop.graph.ir import Node, Shape, Value
from fleetui.workshop.graph.passes.rewrite import Editor, Rules

# ---------------------------------------------------------------- permutations


def inverse(perm: tuple[int, ...]) -> tuple[int, ...]:
    back = [0] * len(perm)
    for at, axis in enumerate(perm):
        back[axis] = at
    return tuple(back)


def compose(first: tuple[int, ...], then: tuple[int, ...]) -> tuple[int, ...]:
    """One transpose in place of two."""
    return tuple(first[axis] for axis in then)


def is_identity(perm: tuple[int, ...]) -> bool:
    return all(at == axis for at, axis in enumerate(perm))


def moves_nothing(perm: tuple[int, ...], shape: Shape) -> bool:
    """Only dimensions of one element change places: the memory stays as it is."""
    real = [axis for axis in perm if shape[axis] != 1]
    return real == sorted(real) or 0 in shape


def groups(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]] | None:
    """Runs of dimensions that a reshape turns into runs of dimensions, the finest such division.

    Dimensions of one element are attached to the run ahead of them; leading ones to the first.
    """
    if 0 in before or 0 in after:
        return None
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left: list[int] = []
        right: list[int] = []
        a = b = 1
        while True:
            if a < b or (a == b and not left and i < len(before)):
                if i >= len(before):
                    return None
                a *= before[i]
                left.append(i)
                i += 1
            elif b < a or (not right and j < len(after)):
                if j >= len(after):
                    return None
                b *= after[j]
                right.append(j)
                j += 1
            else:
                break
            if a == b and left and right:
                break
        found.append((left, right))
    return found


# ---------------------------------------------------------------- rules


def _reshape(editor: Editor, node: Node) -> bool:
    x, shape = node.input(0), node.attrs["shape"]
    if x.shape == tuple(shape):
        editor.replace(node.output, x)
        return True
    before = editor.maker(x, "reshape")
    if before is not None:
        editor.set_input(node, 0, before.input(0))
        return True
    turn = editor.maker(x, "transpose")
    if turn is not None and moves_nothing(turn.attrs["perm"], turn.input(0).shape):
        editor.set_input(node, 0, turn.input(0))
        return True
    return turn is not None and _split_first(editor, node, turn)


def _split_first(editor: Editor, node: Node, turn: Node) -> bool:
    """Dimensions that are split behind a transpose and were joined ahead of it need not be joined at all."""
    x, perm = node.input(0), tuple(turn.attrs["perm"])
    runs = groups(x.shape, node.output.shape)
    if editor.maker(turn.input(0), "reshape") is None or not editor.private(x) or runs is None:
        return False
    if any(len(left) > 1 for left, _ in runs):
        return False
    parts: list[list[int]] = []
    for left, right in runs:
        if left or not parts:
            parts.append(list(right))
        else:
            parts[-1].extend(right)
    if len(parts) != x.rank:
        return False
    apart: list[int] = []  # the result's dimensions in the order they have ahead of the transpose
    for axis in range(x.rank):
        apart.extend(parts[perm.index(axis)])
    shape = tuple(node.output.shape[i] for i in apart)
    split = editor.op("reshape", turn.input(0), source=node.source, shape=shape)
    order = tuple(apart.index(i) for i in range(len(apart)))
    editor.replace(node.output, editor.op("transpose", split, source=turn.source, perm=order))
    return True


def _transpose(editor: Editor, node: Node) -> bool:
    x, perm = node.input(0), tuple(node.attrs["perm"])
    if is_identity(perm):
        editor.replace(node.output, x)
        return True
    before = editor.maker(x, "transpose")
    if before is not None:
        joined = compose(tuple(before.attrs["perm"]), perm)
        first = before.input(0)
        made = first if is_identity(joined) else editor.op("transpose", first, source=node.source, perm=joined)
        editor.replace(node.output, made)
        return True
    return _weights_first(editor, node)


def _weights_first(editor: Editor, node: Node) -> bool:
    """What is moved after being expanded from a narrow constant is better moved before."""
    before = editor.maker(node.input(0), "dequantize", "cast")
    if before is None or before.input(0).data is None or not editor.private(node.input(0)):
        return False
    if before.op == "cast":
        moved = editor.op(node.op, before.input(0), source=node.source, **node.attrs)
        made = editor.op("cast", moved, source=before.source, **before.attrs)
        editor.replace(node.output, made)
        return True
    scale, zero = before.input(1), before.optional(2)
    if scale.data is None or (zero is not None and zero.data is None):
        return False
    attrs = dict(before.attrs)
    if node.op == "transpose":
        if before.attrs.get("block", 0):
            scale = editor.op("transpose", scale, perm=node.attrs["perm"])
            zero = None if zero is None else editor.op("transpose", zero, perm=node.attrs["perm"])
        attrs["axis"] = node.attrs["perm"].index(attrs["axis"]) if scale.rank else 0
    elif scale.rank:
        axis = _kept_axis(before.input(0).shape, node.output.shape, attrs["axis"])
        if axis is None or before.attrs.get("block", 0):
            return False
        attrs["axis"] = axis
    moved = editor.op(node.op, before.input(0), source=node.source, **node.attrs)
    editor.replace(node.output, editor.op("dequantize", moved, scale, zero, source=before.source, **attrs))
    return True


def _kept_axis(before: Shape, after: Shape, axis: int) -> int | None:
    """Where a dimension is after a reshape that leaves it alone."""
    ahead = prod(before[:axis])
    for at, length in enumerate(after):
        if length == before[axis] and prod(after[:at]) == ahead:
            return at
    return None


def _broadcast_to(editor: Editor, node: Node) -> bool:
    x = node.input(0)
    if x.shape == node.output.shape:
        editor.replace(node.output, x)
        return True
    if x.size == node.output.size:
        editor.replace(node.output, editor.op("reshape", x, source=node.source, shape=node.output.shape))
        return True
    before = editor.maker(x, "broadcast_to")
    if before is not None:
        editor.set_input(node, 0, before.input(0))
        return True
    return False


def _tile(editor: Editor, node: Node) -> bool:
    x, repeats = node.input(0), node.attrs["repeats"]
    if all(r == 1 or d == 1 for r, d in zip(repeats, x.shape, strict=True)):
        editor.replace(node.output, editor.op("broadcast_to", x, source=node.source, shape=node.output.shape))
        return True
    return False


def _concat(editor: Editor, node: Node) -> bool:
    axis = node.attrs["axis"]
    parts = [value for value in node.inputs if value is not None]
    if len(parts) == 1:
        editor.replace(node.output, parts[0])
        return True
    full = [value for value in parts if value.shape[axis] > 0]
    if len(full) < len(parts) and full:
        editor.set_inputs(node, full)
        return True
    flat: list[Value] = []
    for value in parts:
        before = editor.maker(value, "concat")
        if before is not None and before.attrs["axis"] == axis and editor.only_user(value) is node:
            flat.extend(v for v in before.inputs if v is not None)
        else:
            flat.append(value)
    if len(flat) > len(parts):
        editor.set_inputs(node, flat)
        return True
    return _rejoin(editor, node, parts)


def _rejoin(editor: Editor, node: Node, parts: list[Value]) -> bool:
    """Neighbouring slices of one tensor that are put together again."""
    axis = node.attrs["axis"]
    for index in range(len(parts) - 1):
        a, b = editor.maker(parts[index], "slice"), editor.maker(parts[index + 1], "slice")
        if a is None or b is None or a.input(0) is not b.input(0):
            continue
        alike = all(
            a.attrs[key][i] == b.attrs[key][i]
            for key in ("starts", "stops", "steps")
            for i in range(parts[index].rank)
            if i != axis
        )
        ones = a.attrs["steps"][axis] == b.attrs["steps"][axis] == 1
        if alike and ones and a.attrs["stops"][axis] == b.attrs["starts"][axis]:
            stops = tuple(b.attrs["stops"][i] if i == axis else s for i, s in enumerate(a.attrs["stops"]))
            attrs = {**a.attrs, "stops": stops}
            joined = editor.op("slice", a.input(0), source=node.source, **attrs)
            editor.set_inputs(node, [*parts[:index], joined, *parts[index + 2 :]])
            return True
    return False


def _slice(editor: Editor, node: Node) -> bool:
    x = node.input(0)
    starts, stops, steps = (tuple(node.attrs[key]) for key in ("starts", "stops", "steps"))
    if x.shape == node.output.shape and all(step > 0 or d <= 1 for step, d in zip(steps, x.shape, strict=True)):
        editor.replace(node.output, x)
        return True
    before = editor.maker(x, "slice")
    if before is not None and all(step > 0 for step in (*steps, *before.attrs["steps"])):
        pairs = list(zip(before.attrs["starts"], before.attrs["steps"], strict=True))
        attrs: dict[str, Any] = {
            "starts": tuple(b + s * start for (b, s), start in zip(pairs, starts, strict=True)),
            "stops": tuple(
                min(b + s * stop, d) for (b, s), stop, d in zip(pairs, stops, before.input(0).shape, strict=True)
            ),
            "steps": tuple(s * step for (_, s), step in zip(pairs, steps, strict=True)),
        }
        attrs["stops"] = tuple(max(a, b) for a, b in zip(attrs["starts"], attrs["stops"], strict=True))
        first = before.input(0)
        if all(start <= d for start, d in zip(attrs["starts"], first.shape, strict=True)):
            made = editor.op("slice", first, source=node.source, **attrs)
            if made.shape == node.output.shape:
                editor.replace(node.output, made)
                return True
    return _slice_of_concat(editor, node, starts, stops, steps)


def _slice_of_concat(
    editor: Editor, node: Node, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]
) -> bool:
    before = editor.maker(node.input(0), "concat")
    if before is None:
        return False
    axis, at = before.attrs["axis"], 0
    if steps[axis] < 1:
        return False
    for part in before.inputs:
        assert part is not None
        length = part.shape[axis]
        if at <= starts[axis] and stops[axis] <= at + length and starts[axis] < stops[axis]:
            made = editor.op(
                "slice",
                part,
                source=node.source,
                starts=tuple(s - at if i == axis else s for i, s in enumerate(starts)),
                stops=tuple(s - at if i == axis else s for i, s in enumerate(stops)),
                steps=steps,
            )
            editor.replace(node.output, made)
            return True
        at += length
    return False


def _pad(editor: Editor, node: Node) -> bool:
    x = node.input(0)
    if x.shape == node.output.shape:
        editor.replace(node.output, x)
        return True
    before = editor.maker(x, "pad")
    if before is None or node.attrs["mode"] != "constant" or before.attrs["mode"] != "constant":
        return False
    value = node.attrs.get("value", 0)
    if before.attrs.get("value", 0) != value or not editor.private(x):
        return False
    sums: dict[str, Any] = {
        key: tuple(a + b for a, b in zip(before.attrs[key], node.attrs[key], strict=True))
        for key in ("before", "after")
    }
    made = editor.op("pad", before.input(0), source=node.source, mode="constant", value=value, **sums)
    editor.replace(node.output, made)
    return True


def _gather(editor: Editor, node: Node) -> bool:
    """By constant, evenly spaced indices: a slice."""
    data, indices, axis = node.input(0), node.input(1), node.attrs["axis"]
    if indices.data is None or indices.size == 0:
        return False
    length = data.shape[axis]
    at = indices.data.reshape(-1).astype(np.int64)
    at = np.where(at < 0, at + length, at)
    if at.min() < 0 or at.max() >= length:
        return False
    gaps = np.diff(at)
    step = int(gaps[0]) if gaps.size else 1
    if step < 1 or bool((gaps != step).any()):
        return False
    starts, stops, steps = [0] * data.rank, list(data.shape), [1] * data.rank
    starts[axis], stops[axis], steps[axis] = int(at[0]), int(at[-1]) + 1, step
    made = editor.op(
        "slice", data, source=node.source, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps)
    )
    if made.shape != node.output.shape:
        made = editor.op("reshape", made, source=node.source, shape=node.output.shape)
    editor.replace(node.output, made)
    return True


def _pool(editor: Editor, node: Node) -> bool:
    """One window over everything is a reduction; windows of one element are nothing."""
    x, attrs = node.input(0), node.attrs
    spatial = x.shape[1:-1]
    kernel = tuple(attrs["kernel"])
    if attrs["kind"] not in {"max", "avg"} or any(p for pair in attrs["pads"] for p in pair):
        return False
    if all(k == 1 for k in kernel) and x.shape == node.output.shape:
        editor.replace(node.output, x)
        return True
    whole = kernel == spatial and all(o == 1 for o in attrs["out"]) and all(d == 1 for d in attrs["dilations"])
    if not whole:
        return False
    how = "mean" if attrs["kind"] == "avg" else "max"
    axes = tuple(range(1, x.rank - 1))
    editor.replace(node.output, editor.op("reduce", x, source=node.source, kind=how, axes=axes, keepdims=True))
    return True


def _interp(editor: Editor, node: Node) -> bool:
    index, weight = node.input(1), node.input(2)
    if node.input(0).shape != node.output.shape or index.data is None or weight.data is None:
        return False
    straight = np.arange(index.shape[0])[:, None]
    plain = bool(((index.data == straight) | (weight.data == 0)).all()) and bool((weight.data.sum(1) == 1).all())
    if not plain:
        return False
    editor.replace(node.output, node.input(0))
    return True


MOVES: Rules = {
    "reshape": [_reshape, _weights_first],
    "transpose": [_transpose],
    "broadcast_to": [_broadcast_to],
    "tile": [_tile],
    "concat": [_concat],
    "slice": [_slice],
    "pad": [_pad],
    "gather": [_gather],
    "pool": [_pool],
    "interp": [_interp],
}
