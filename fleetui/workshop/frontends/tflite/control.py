"""TFLite's loops and branches, where what they do is settled when the model is read: loops are written out."""

from __future__ import annotations

from fleetui.workshop.errors import UnsupportedError
from fleetui.workshop.frontends.tflite.importer import Importer, on
from fleetui.workshop.graph.ir import Value

ROUNDS = 4096


def _settled(c: Importer, value: Value) -> bool:
    if value.data is None:
        raise UnsupportedError(
            f"What {c.op.name} at {c.b.source} does depends on the data, which is not supported",
            "Use a fixed number of rounds, and no branches", operator=c.op.name, node=c.b.source,
        )  # fmt: skip
    return bool(value.data.reshape(-1)[0])


@on("WHILE")
def _while(c: Importer) -> list[Value]:
    op, source = c.op, c.b.source
    state = [c.raw(i) for i in range(len(op.inputs))]
    condition, body = int(op.opt("CondSubgraphIndex")), int(op.opt("BodySubgraphIndex"))
    for _ in range(ROUNDS):
        going = _settled(c, c.call(condition, state)[0])
        c.op, c.b.source = op, source
        if not going:
            return state
        state = c.call(body, state)
        c.op, c.b.source = op, source
    raise UnsupportedError(
        f"The loop at {source} goes round more than {ROUNDS} times",
        "Use shorter sequences",
        operator=op.name,
        node=source,
    )


@on("IF")
def _if(c: Importer) -> list[Value]:
    op, source = c.op, c.b.source
    place = "ThenSubgraphIndex" if _settled(c, c.raw(0)) else "ElseSubgraphIndex"
    made = c.call(int(op.opt(place)), [c.raw(i) for i in range(1, len(op.inputs))])
    c.op, c.b.source = op, source
    return made
