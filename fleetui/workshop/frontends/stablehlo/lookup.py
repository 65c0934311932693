"""StableHLO's gather and scatter, in their generality, and sorting.

Both are brought to one form: the dimensions that are indexed come first, every index is written out in full, the
rest of the tensor is moved in whole rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from fleetui.workshop.frontends.stablehlo.importer import Importer, on, word
from fleetui.workshop.frontends.stablehlo.moving import clamped
from fleetui.workshop.frontends.stablehlo.windows import body
from fleetui.workshop.graph.ir import Value


def _numbers(op: Any, name: str) -> dict[str, list[int]]:
    """``#stablehlo.gather<offset_dims = [1], index_vector_dim = 2>``; what is left out is empty or zero."""
    text = str(op.attributes[name])
    found = {
        key: [int(v) for v in re.findall(r"\d+", inside)]
        for key, inside in re.findall(r"(\w+) = \[([^\]]*)\]", text)
    }
    single = re.search(r"index_vector_dim = (\d+)", text)
    found["index_vector_dim"] = [int(single.group(1)) if single else 0]
    return found


@dataclass(slots=True)
class _Plan:
    """``indexed``: the operand's dimensions that indices reach; ``windows``: those of them that keep a size."""

    indexed: list[int]
    windows: list[int]
    rest: list[int]
    index: Value
    batch: tuple[int, ...]


def _plan(
    c: Importer, x: Value, indices: Value, vector: int, mapped: list[int], batching: list[int], theirs: list[int],
    sizes: list[int], gone: set[int],
) -> _Plan:  # fmt: skip
    """``sizes``: of the window in every dimension; ``gone``: dimensions without a place in the result."""
    if vector == indices.rank:
        indices = c.e.unsqueeze(indices, vector)
    indices = c.e.transpose(indices, [i for i in range(indices.rank) if i != vector] + [vector])
    batch = indices.shape[:-1]
    partial = [d for d in range(x.rank) if d not in {*mapped, *batching} and sizes[d] != x.shape[d]]
    indexed = sorted({*mapped, *batching, *partial})
    windows = [d for d in indexed if d not in gone]
    shape = [*batch, *(sizes[d] for d in windows)]
    columns: list[Value] = []
    for d in indexed:
        if d in mapped:
            at = mapped.index(d)
            column = c.e.slice(indices, indices.rank - 1, at, at + 1)
            column = clamped(c, c.e.reshape(column, batch), x.shape[d] - sizes[d])
        elif d in batching:
            axis = theirs[batching.index(d)]
            lined = [1] * len(batch)
            lined[axis] = batch[axis]
            row = np.arange(batch[axis], dtype=np.int32).reshape(lined)
            column = c.e.expand(c.b.constant(row, "rows"), batch)
        else:
            column = c.e.full(batch, 0, "int32")
        column = c.e.reshape(column, [*batch, *[1] * len(windows)])
        if d in windows:
            lined = [1] * len(shape)
            lined[len(batch) + windows.index(d)] = sizes[d]
            column = c.b.op(
                "add", column, c.b.constant(np.arange(sizes[d], dtype=np.int32).reshape(lined), "steps")
            )
        columns.append(c.e.unsqueeze(c.e.expand(column, shape), len(shape)))
    rest = [d for d in range(x.rank) if d not in indexed]
    return _Plan(indexed, windows, rest, c.e.concat(columns, len(shape)), tuple(batch))


@on("gather")
def _gather(c: Importer, op: Any) -> Value:
    x, indices = c.arg(op, 0), c.arg(op, 1)
    numbers = _numbers(op, "dimension_numbers")
    return gathered(c, x, indices, numbers, [int(v) for v in op.attributes["slice_sizes"]])


@on("dynamic_gather")
def _dynamic_gather(c: Importer, op: Any) -> Value:
    x, indices = c.arg(op, 0), c.arg(op, 1)
    return gathered(c, x, indices, _numbers(op, "dimension_numbers"), [int(v) for v in c.array(op, 2)])


def gathered(c: Importer, x: Value, indices: Value, numbers: dict[str, list[int]], sizes: list[int]) -> Value:
    offset = numbers.get("offset_dims", [])
    collapsed, batching = numbers.get("collapsed_slice_dims", []), numbers.get("operand_batching_dims", [])
    mapped = numbers.get("start_index_map", [])
    theirs = numbers.get("start_indices_batching_dims", [])
    plan = _plan(
        c, x, indices, numbers["index_vector_dim"][0], mapped, batching, theirs, sizes, {*collapsed, *batching},
    )  # fmt: skip
    lead = len(plan.batch)
    if len(plan.indexed) == 1 and not plan.windows:
        # One dimension, one element each: the simple look-up.
        index = c.e.reshape(plan.index, plan.batch)
        axis = plan.indexed[0]
        out = c.b.op("gather", x, index, axis=axis)
        out = c.e.transpose(out, [*range(axis, axis + lead), *range(axis), *range(axis + lead, out.rank)])
        kept = plan.rest
    else:
        front = c.e.transpose(x, [*plan.indexed, *plan.rest])
        out = c.b.op("gather_nd", front, plan.index, batch_dims=0)
        kept = [*plan.windows, *plan.rest]
    # Windows in the operand's order, then everything to the places that the model says.
    out = c.e.transpose(out, [*range(lead), *(lead + kept.index(d) for d in sorted(kept))])
    batch, window = iter(range(lead)), iter(range(lead, out.rank))
    return c.e.transpose(out, [next(window) if place in offset else next(batch) for place in range(out.rank)])


@on("scatter")
def _scatter(c: Importer, op: Any) -> Value:
    values = c.args(op)
    if len(values) != 3:
        raise c.unsupported(op, "of several tensors is not supported")
    x, indices, updates = values
    numbers = _numbers(op, "scatter_dimension_numbers")
    window, inserted = numbers.get("update_window_dims", []), numbers.get("inserted_window_dims", [])
    batching, mapped = numbers.get("input_batching_dims", []), numbers.get("scatter_dims_to_operand_dims", [])
    reduction = _joined(c, op)
    gone = {*inserted, *batching}
    kept = [d for d in range(x.rank) if d not in gone]
    sizes = [1] * x.rank
    for d, place in zip(kept, window, strict=True):
        sizes[d] = updates.shape[place]
    plan = _plan(
        c, x, indices, numbers["index_vector_dim"][0], mapped, batching,
        numbers.get("scatter_indices_batching_dims", []), sizes, gone,
    )  # fmt: skip
    batch = [i for i in range(updates.rank) if i not in window]
    places = dict(zip(kept, window, strict=True))
    updates = c.e.transpose(updates, [*batch, *(places[d] for d in [*plan.windows, *plan.rest])])
    order = [*plan.indexed, *plan.rest]
    out = c.b.op("scatter_nd", c.e.transpose(x, order), plan.index, updates, reduction=reduction)
    return c.e.transpose(out, [order.index(d) for d in range(x.rank)])


def _joined(c: Importer, op: Any) -> str:
    block = op.regions[0].blocks[0]
    found = list(block.operations)
    if len(found) == 1 and found[0].operation.operands[0] == block.arguments[1]:
        return "none"
    kinds = {"add": "add", "multiply": "mul", "maximum": "max", "minimum": "min"}
    name = body(op)
    if name not in kinds:
        raise c.unsupported(op, "with this body is not supported")
    return kinds[name]


# ---------------------------------------------------------------- sorting


@on("sort")
def _sort(c: Importer, op: Any) -> list[Value]:
    """By the first tensor; the others follow it. The direction is that of the comparison that is returned."""
    values = c.args(op)
    axis = int(op.attributes["dimension"].value) if "dimension" in op.attributes else values[0].rank - 1
    axis %= values[0].rank
    block = op.regions[0].blocks[0]
    found = [o.operation for o in block.operations]
    compares = [
        o for o in found if o.name == "stablehlo.compare" and word(o, "comparison_direction") in {"LT", "GT"}
    ]
    if not compares or found[-1].operands[0] != compares[-1].results[0] or not _of_first_two(compares[-1], block):
        raise c.unsupported(op, "by this comparison is not supported")
    descending = word(compares[-1], "comparison_direction") == "GT"
    ordered, index = c.b.ops("sort", values[0], axis=axis, descending=descending)
    return [ordered, *(c.b.op("gather_elements", v, index, axis=axis) for v in values[1:])]


def _of_first_two(compare: Any, block: Any) -> bool:
    """Both sides come from the first tensor's two elements alone, however zeroes and NaNs are told apart."""
    firsts = []
    for side in compare.operands:
        reached, stack = set(), [side]
        while stack:
            value = stack.pop()
            at = next((i for i, a in enumerate(block.arguments) if a == value), None)
            if at is not None:
                reached.add(at)
                continue
            owner = getattr(value.owner, "operation", value.owner)
            stack += list(getattr(owner, "operands", []))
        firsts.append(reached)
    return firsts == [{0}, {1}]


@on("chlo.top_k")
def _top_k(c: Importer, op: Any) -> list[Value]:
    x = c.arg(op, 0)
    source = op.attributes
    if op.name == "stablehlo.composite":
        source = source["composite_attributes"]
    largest = bool(source["largest"].value) if "largest" in source else True
    values, places = c.b.ops("topk", x, k=int(source["k"].value), axis=x.rank - 1, largest=largest, sorted=True)
    return [values, c.e.cast(places, c.dtype(op, 1))]
