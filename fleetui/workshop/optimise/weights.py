"""Which constants of a graph are weights worth making smaller, and along which axis their channels lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fleetui.workshop.graph.ir import Graph, Node, Value

LEAST = 256
"""Elements below which a smaller form saves nothing."""

# Operator → (input that holds the weights, axis of output channels, axis that is summed over).
PLACES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "conv": ((1, -1, -2),),
    "dense": ((1, 1, 0),),
    "lstm": ((1, 1, 2), (2, 1, 2)),
    "gru": ((1, 1, 2), (2, 1, 2)),
    "rnn": ((1, 1, 2), (2, 1, 2)),
}


@dataclass(frozen=True, slots=True)
class Weight:
    """One use of a weight: ``node.inputs[index]``."""

    node: Node
    index: int
    value: Value
    channels: int
    summed: int


def weights(graph: Graph, ops: tuple[str, ...] = ()) -> Iterator[Weight]:
    """Float32 constants that some operator multiplies by, in the graph's order; shared ones come once per use."""
    for node in graph.nodes:
        if ops and node.op not in ops:
            continue
        for index, channels, summed in PLACES.get(node.op, ()):
            if node.op == "conv" and node.attrs["groups"] > 1 and node.output.shape[-1] // node.attrs["groups"] < 4:
                continue  # depthwise: few weights, and each used by one channel alone
            value = node.optional(index)
            if value is None or value.data is None or value.dtype != "float32" or value.size < LEAST:
                continue
            yield Weight(node, index, value, channels % value.rank, summed % value.rank)
