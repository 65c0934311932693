"""What a graph costs: operators, FLOPs, parameters, bytes of weights, and its largest tensors."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fleetui.workshop.graph.ir import Graph, Shape, Value
from fleetui.workshop.graph.ops import flops

LARGEST = 5
NOT_LEARNT = frozenset({"bool", "int32", "int64", "uint32", "uint64"})
"""Constants of these types are indices, shapes and masks."""


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    shape: Shape
    dtype: str
    bytes: int
    source: str = ""


@dataclass(slots=True)
class GraphReport:
    operators: dict[str, int] = field(default_factory=dict)
    """Most frequent first."""
    flops: int = 0
    flops_by_operator: dict[str, int] = field(default_factory=dict)
    parameters: int = 0
    weights_bytes: int = 0
    activations: list[Tensor] = field(default_factory=list)
    """The largest tensors that are not constant, largest first."""
    peak_bytes: int = 0
    """The most that is alive at once when the nodes run in order, each into memory of its own."""


def graph_report(graph: Graph) -> GraphReport:
    report = GraphReport()
    count: Counter[str] = Counter()
    work: Counter[str] = Counter()
    last: dict[Value, int] = {}
    tensors: list[Tensor] = [Tensor(v.name, v.shape, v.dtype, v.nbytes) for v in graph.inputs]
    for index, node in enumerate(graph.nodes):
        count[node.op] += 1
        types = [(out.shape, out.dtype) for out in node.outputs]
        work[node.op] += flops(node.op, node.inputs, types, node.attrs)
        tensors.extend(Tensor(out.name, out.shape, out.dtype, out.nbytes, node.source) for out in node.outputs)
        last.update({value: index for value in node.inputs if value is not None and value.data is None})
    for value in graph.constants():
        report.weights_bytes += value.nbytes
        if value.dtype not in NOT_LEARNT:
            report.parameters += value.size
    report.operators = dict(count.most_common())
    report.flops_by_operator = {op: number for op, number in work.most_common() if number}
    report.flops = sum(work.values())
    report.activations = sorted(tensors, key=lambda tensor: -tensor.bytes)[:LARGEST]
    report.peak_bytes = _peak(graph, last)
    return report


def _peak(graph: Graph, last: dict[Value, int]) -> int:
    end = len(graph.nodes)
    last.update(dict.fromkeys(graph.outputs, end))
    going: dict[int, int] = {}
    for value, index in last.items():
        if value.data is None:
            going[index] = going.get(index, 0) + value.nbytes
    alive = peak = sum(value.nbytes for value in graph.inputs if value in last)
    for index, node in enumerate(graph.nodes):
        made = [out for out in node.outputs if out not in graph.inputs]
        alive += sum(out.nbytes for out in made)
        peak = max(peak, alive)
        alive -= going.get(index, 0) + sum(out.nbytes for out in made if out not in last)
    return peak
