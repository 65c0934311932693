"""Sequences and optionals, as far as length and presence are known while importing: then they cost nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from fleetui.workshop.frontends.onnx.call import Call, Item, Maybe, Result, TensorList, operator
from fleetui.workshop.frontends.onnx.operators.shapes import pieces
from fleetui.workshop.frontends.onnx.tensors import dtype_name
from fleetui.workshop.graph.ir import Value


def _position(c: Call, index: int, count: int, *, past_end: bool = False) -> int:
    at = c.int_of(index, "position")
    last = count if past_end else count - 1
    if not -count <= at <= last:
        c.misfit(f"takes element {at} of a sequence of {count}")
    return at + count if at < 0 else at


@operator("SequenceEmpty")
def sequence_empty(c: Call) -> Result:
    return TensorList([], dtype_name(c.integer("dtype", 1)))


@operator("SequenceConstruct")
def sequence_construct(c: Call) -> Result:
    values = c.values()
    return TensorList(values, values[0].dtype)


@operator("SequenceInsert")
def sequence_insert(c: Call) -> Result:
    items = list(c.sequence(0).items)
    at = _position(c, 2, len(items), past_end=True) if c.opt(2) is not None else len(items)
    items.insert(at, c.value(1))
    return TensorList(items, c.value(1).dtype)


@operator("SequenceErase")
def sequence_erase(c: Call) -> Result:
    sequence = c.sequence(0)
    items = list(sequence.items)
    del items[_position(c, 1, len(items)) if c.opt(1) is not None else len(items) - 1]
    return TensorList(items, sequence.dtype)


@operator("SequenceAt")
def sequence_at(c: Call) -> Result:
    items = c.sequence(0).items
    return items[_position(c, 1, len(items))]


@operator("SequenceLength")
def sequence_length(c: Call) -> Result:
    return c.constant(np.asarray(len(c.sequence(0).items), np.int64))


@operator("ConcatFromSequence")
def concat_from_sequence(c: Call) -> Result:
    items = c.sequence(0).items
    if not items:
        c.broken("joins an empty sequence")
    if c.flag("new_axis"):
        axis = c.axis(c.integer("axis"), items[0].rank + 1)
        return c.concat([c.unsqueeze(v, [axis]) for v in items], axis)
    return c.concat(items, c.axis(c.integer("axis"), items[0].rank))


@operator("SplitToSequence")
def split_to_sequence(c: Call) -> Result:
    x = c.value(0)
    axis = c.axis(c.integer("axis", 0), x.rank)
    size = x.shape[axis]
    given = c.opt(1)
    if given is None:
        parts = pieces(c, x, axis, [1] * size)
        if not c.flag("keepdims", default=True):
            parts = [c.squeeze(v, [axis]) for v in parts]
        return TensorList(parts, x.dtype)
    if given.rank:
        return TensorList(pieces(c, x, axis, c.ints_of(1, "sizes")), x.dtype)
    each = c.int_of(1, "size")
    if each < 1:
        c.broken(f"splits into parts of {each} elements")
    return TensorList(pieces(c, x, axis, [min(each, size - i) for i in range(0, size, each)]), x.dtype)


@operator("SequenceMap")
def sequence_map(c: Call) -> Result:
    body: Any = c.attrs.get("body")
    if body is None:
        c.broken("lacks its body")
    count = len(c.sequence(0).items)
    results: list[TensorList] = [TensorList([]) for _ in body.output]
    for index in range(count):
        own: list[Item | None] = []
        for item in c.inputs:
            if isinstance(item, TensorList) and len(item.items) != count:
                c.misfit(f"maps sequences of {count} and {len(item.items)} elements together")
            own.append(item.items[index] if isinstance(item, TensorList) else item)
        for kept, out in zip(results, c.importer.graph(body, c, own, f"/{index}"), strict=True):
            if not isinstance(out, Value):
                c.broken("makes something that is not a tensor")
            kept.items.append(out)
            kept.dtype = out.dtype
    return list(results)


@operator("Optional")
def optional(c: Call) -> Result:
    item = c.item(0)
    return Maybe(item.item if isinstance(item, Maybe) else item)


@operator("OptionalHasElement")
def optional_has_element(c: Call) -> Result:
    item = c.item(0)
    there = item is not None and not (isinstance(item, Maybe) and item.item is None)
    return c.constant(np.asarray(there))


@operator("OptionalGetElement")
def optional_get_element(c: Call) -> Result:
    item = c.item(0)
    if isinstance(item, Maybe):
        item = item.item
    if item is None:
        c.broken("takes the element of an optional that is empty")
    return item
