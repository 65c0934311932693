"""StableHLO's calls, loops and branches, where what they do is settled when the model is read."""

from __future__ import annotations

from typing import Any

from fleetui.workshop.errors import UnsupportedError
from fleetui.workshop.frontends.stablehlo.importer import TABLE, Importer, on
from fleetui.workshop.graph.ir import Value

ROUNDS = 4096
PASSED = {
    "Sharding",
    "annotate_device_placement",
    "SPMDFullToShardShape",
    "SPMDShardToFullShape",
    "xla.sdy.FuncResultSharding",
}
CHECKS = {"shape_assertion"}
UNARY = {"mhlo.erf": "erf", "mhlo.asin": "asin", "mhlo.acos": "acos", "mhlo.sinh": "sinh", "mhlo.cosh": "cosh",
         "mhlo.atan": "atan", "mhlo.tan": "tan"}  # fmt: skip


@on("func.call")
def _call(c: Importer, op: Any) -> list[Value]:
    return c.call(str(op.attributes["callee"].value), c.args(op))


@on("composite")
def _composite(c: Importer, op: Any) -> Any:
    known = TABLE.get(str(op.attributes["name"].value))
    if known is not None:
        return known(c, op)
    return c.call(str(op.attributes["decomposition"].value), c.args(op))


@on("custom_call")
def _custom_call(c: Importer, op: Any) -> Any:
    target = str(op.attributes["call_target_name"].value)
    if target in CHECKS:
        return None
    if target in PASSED:
        return c.args(op)
    if target in UNARY:
        return c.b.op(UNARY[target], c.arg(op, 0))
    raise UnsupportedError(
        f"The model calls {target} at {c.b.source}, which is code outside of it", "Export it without",
        operator=f"custom_call {target}", node=c.b.source,
    )  # fmt: skip


def _settled(c: Importer, op: Any, value: Value) -> int:
    if value.data is None:
        raise c.unsupported(op, "goes by the data, which is not supported: use a fixed number of rounds")
    return int(value.data.reshape(()))


@on("while")
def _while(c: Importer, op: Any) -> list[Value]:
    state, source = c.args(op), c.b.source
    for _ in range(ROUNDS):
        going = _settled(c, op, c.region(op.regions[0], state)[0])
        if not going:
            return state
        state = c.region(op.regions[1], state)
        c.b.source = source
    raise c.unsupported(op, f"goes round more than {ROUNDS} times, which is not supported")


@on("if")
def _if(c: Importer, op: Any) -> list[Value]:
    return c.region(op.regions[0 if _settled(c, op, c.arg(op, 0)) else 1], [])


@on("case")
def _case(c: Importer, op: Any) -> list[Value]:
    index = _settled(c, op, c.arg(op, 0))
    last = len(op.regions) - 1
    return c.region(op.regions[index if 0 <= index <= last else last], [])
