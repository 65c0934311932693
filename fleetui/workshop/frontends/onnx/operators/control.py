"""Branches and loops: what is known when compiling is inlined or unrolled, what is not is computed both ways.

A condition that is computed picks between two branches that are both computed, which is possible where they give
the same shapes. A loop with a known number of rounds is unrolled; one that may end early carries a flag along and
keeps its state once the flag has fallen.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fleetui.workshop.frontends.onnx.call import Call, Item, NeedsConstant, Result, TensorList, operator
from fleetui.workshop.graph.ir import Value

ROUNDS = 4096


def _known(value: Value | None) -> bool | None:
    """A condition's value where it is known; a missing one holds."""
    if value is None:
        return True
    return bool(np.asarray(value.data).reshape(-1)[0]) if value.data is not None else None


@operator("If")
def if_(c: Call) -> Result:
    branches: list[Any] = [c.attrs.get("then_branch"), c.attrs.get("else_branch")]
    if None in branches:
        c.broken("lacks one of its branches")
    condition = c.value(0)
    known = _known(condition)
    if known is not None:
        return c.importer.graph(branches[0] if known else branches[1], c, [])
    yes, no = (
        c.importer.graph(branch, c, [], f"/{name}") for branch, name in zip(branches, ("then", "else"), strict=True)
    )
    flag = c.reshape(condition, [])
    return [_either(c, flag, a, b) for a, b in zip(yes, no, strict=True)]


def _either(c: Call, flag: Value, yes: Item, no: Item) -> Item:
    if isinstance(yes, Value) and isinstance(no, Value) and (yes.shape, yes.dtype) == (no.shape, no.dtype):
        return c.op("where", flag, yes, no)
    if isinstance(yes, TensorList) and isinstance(no, TensorList) and len(yes.items) == len(no.items):
        pairs = [_either(c, flag, a, b) for a, b in zip(yes.items, no.items, strict=True)]
        return TensorList([p for p in pairs if isinstance(p, Value)], yes.dtype)
    roots = c.importer.roots(flag)
    raise NeedsConstant(
        f"{c.where}: its branches give different shapes, so its condition must be known when compiling",
        "Export the model with the branch already chosen",
        operator=c.op_type,
        node=c.label,
        roots=roots,
    )


@operator("Loop")
def loop(c: Call) -> Result:
    body: Any = c.attrs.get("body")
    if body is None:
        c.broken("lacks its body")
    state: list[Item | None] = list(c.inputs[2:])
    count, condition = c.opt(0), c.opt(1)
    limit = None
    if count is not None:
        if count.data is None and _known(condition) is None:
            c.const(1, "condition")
        limit = c.int_of(0, "number of rounds")
    carried = len(state)
    if len(body.output) < 1 + carried:
        c.broken("has a body that does not give its state back")
    scans: list[list[Value]] = [[] for _ in range(len(body.output) - 1 - carried)]
    flag: Value | None = condition
    rounds = 0
    while limit is None or rounds < limit:
        known = _known(flag)
        if known is False:
            break
        if limit is None and known is None:
            c.const(1, "condition") if rounds == 0 else c.refuse(
                "runs until a condition that is computed, without a bound", "Give it a maximum number of rounds"
            )
        if rounds >= ROUNDS:
            c.refuse(f"runs for more than {ROUNDS:,} rounds", "Use shorter loops")
        if known is None and scans:
            c.refuse("collects the results of a number of rounds known only when the model runs")
        inputs: list[Item | None] = [
            c.constant(np.asarray(rounds, np.int64)),
            flag if flag is not None else c.constant(np.asarray(True)),
            *state,
        ]
        outs = c.importer.graph(body, c, inputs, f"/{rounds}")
        after, gave = outs[1 : 1 + carried], outs[1 + carried :]
        new = outs[0]
        if not isinstance(new, Value):
            c.broken("has a body whose condition is not a tensor")
        if known is None and flag is not None:
            alive = c.reshape(flag, [])
            state = [_either(c, alive, a, b) if b is not None else a for a, b in zip(after, state, strict=True)]
            new = c.op("logical_and", alive, c.reshape(new, []))
        else:
            state = list(after)
        for kept, item in zip(scans, gave, strict=True):
            if not isinstance(item, Value):
                c.broken("collects sequences")
            kept.append(item)
        flag = new
        rounds += 1
    return [*state, *(_stacked(c, kept, body.output[1 + carried + i], 0) for i, kept in enumerate(scans))]


def _stacked(c: Call, values: list[Value], declared: Any, axis: int) -> Value:
    if not values:
        return _nothing(c, declared, axis)
    if len({v.shape for v in values}) > 1:
        c.refuse("collects results of different shapes")
    return c.concat([c.unsqueeze(v, [axis]) for v in values], axis if axis >= 0 else axis + values[0].rank + 1)


def _nothing(c: Call, declared: Any, axis: int) -> Value:
    """What no rounds at all collect: the body's declaration is all there is to go by."""
    from fleetui.workshop.frontends.onnx.tensors import dtype_name

    kind = declared.type.tensor_type
    dims = [int(d.dim_value) if d.HasField("dim_value") else 1 for d in kind.shape.dim]
    dims.insert(axis if axis >= 0 else axis + len(dims) + 1, 0)
    return c.full(dims, 0, dtype_name(kind.elem_type) or "float32")


@operator("Scan")
def scan(c: Call) -> Result:
    body: Any = c.attrs.get("body")
    if body is None:
        c.broken("lacks its body")
    if c.version < 9:
        return _batched_scan(c, body)
    return _scan(c, body, list(c.inputs))


def _batched_scan(c: Call, body: Any) -> Result:
    """Version 8: a batch in front, and lengths that may cut single samples short."""
    if c.opt(0) is not None:
        lengths = c.const(0, "sequence lengths")
        longest = c.value(len(c.inputs) - 1).shape[1]
        if (lengths != longest).any():
            c.refuse("scans sequences of different lengths")
    batch = c.value(1).shape[0]
    per_sample: list[list[Value]] = []
    for index in range(batch):
        own = [c.squeeze(c.cut(c.value(i), 0, index, index + 1), [0]) for i in range(1, len(c.inputs))]
        outs = _scan(c, body, list(own), step=f"/sample{index}")
        per_sample.append([o for o in outs if isinstance(o, Value)])
    return [c.concat([c.unsqueeze(o, [0]) for o in outs], 0) for outs in zip(*per_sample, strict=True)]


def _scan(c: Call, body: Any, inputs: list[Item | None], step: str = "") -> list[Item]:
    count = c.integer("num_scan_inputs")
    carried = len(inputs) - count
    made = len(body.output) - carried
    if count < 1 or carried < 0 or made < 0:
        c.broken(f"scans {count} of {len(inputs)} inputs with a body of {len(body.output)} outputs")
    if c.version < 9:
        turns, out_turns = c.integers("directions", [0] * count), [0] * made
        axes, out_axes = [0] * count, [0] * made
    else:
        turns, out_turns = (
            c.integers("scan_input_directions", [0] * count),
            c.integers("scan_output_directions", [0] * made),
        )
        axes, out_axes = c.integers("scan_input_axes", [0] * count), c.integers("scan_output_axes", [0] * made)
    if not (len(turns) == len(axes) == count and len(out_turns) == len(out_axes) == made):
        c.broken("has axes or directions that do not fit its inputs and outputs")
    state: list[Item | None] = list(inputs[:carried])
    scanned: list[tuple[Value, int]] = []
    for item, axis in zip(inputs[carried:], axes, strict=True):
        if not isinstance(item, Value):
            c.broken("scans something that is not a tensor")
        scanned.append((item, c.axis(axis, item.rank)))
    lengths = {value.shape[axis] for value, axis in scanned}
    if len(lengths) != 1:
        c.misfit(f"scans sequences of {sorted(lengths)} elements together")
    rounds = lengths.pop()
    if rounds > ROUNDS:
        c.refuse(f"scans {rounds:,} elements; the most we unroll is {ROUNDS:,}")
    gathered: list[list[Value]] = [[] for _ in range(made)]
    for index in range(rounds):
        own: list[Item | None] = []
        for (value, axis), turn in zip(scanned, turns, strict=True):
            at = rounds - 1 - index if turn else index
            own.append(c.squeeze(c.cut(value, axis, at, at + 1), [axis]))
        outs = c.importer.graph(body, c, [*state, *own], f"{step}/{index}")
        state = list(outs[:carried])
        for kept, item in zip(gathered, outs[carried:], strict=True):
            if not isinstance(item, Value):
                c.broken("collects something that is not a tensor")
            kept.append(item)
    results: list[Item] = [item for item in state if item is not None]
    for i, (kept, axis) in enumerate(zip(gathered, out_axes, strict=True)):
        order = kept[::-1] if out_turns[i] else kept
        results.append(_stacked(c, order, body.output[carried + i], axis))
    return results
