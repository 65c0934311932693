"""Parts of a model that something else than our kernels computes: an accelerator, a library, hand-written C.

A plug-in registers under the entry-point group ``fleetui.accelerators`` an object with a ``name`` and
``take(graph, groups, target) -> list[Offer]``. It is shown the partitioned graph and offers to take runs of it;
what nobody takes stays on the CPU. An offer names the nodes it covers and the functions that compute them. The
generated entry calls those like kernels, over the same planned workspace and in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fleetui.common.domain.errors import BugError
from fleetui.workshop.graph.ir import Graph, Node, Value
from fleetui.workshop.kernel import Group, Kernel
from fleetui.workshop.target import Target

GROUP = "fleetui.accelerators"


@dataclass(frozen=True, slots=True)
class Foreign:
    """Stands in ``Kernel.func`` for a function that is not TIR.

    ``symbol`` has the signature of every kernel, ``(pointers…, int32_t lo, int32_t hi)``, and returns an ``int``
    if it is ``fallible`` (not 0: ``FM_KERNEL_FAILED``). It comes from C ``source``, or an ``object`` file.
    ``libraries`` are linked by name; a variant that needs any is no longer freestanding and says so.
    """

    symbol: str
    source: str = ""
    object: Path | None = None
    libraries: tuple[str, ...] = ()
    fallible: bool = False


@dataclass(slots=True, eq=False)
class Offer:
    """``nodes`` are taken whole; ``lower`` is given their group and makes its kernels, ``Foreign`` or TIR."""

    nodes: list[Node]
    lower: Callable[[Group], list[Kernel]]
    accelerator: str = ""


class Accelerator(Protocol):
    name: str

    def take(self, graph: Graph, groups: Sequence[Group], target: Target) -> list[Offer]: ...


@dataclass(slots=True)
class Split:
    """The groups of a graph in order; ``taken`` has the offer of those that are not the CPU's."""

    groups: list[Group]
    taken: dict[int, Offer] = field(default_factory=dict)


def installed() -> list[Accelerator]:
    """Plug-ins that other packages brought along."""
    from importlib.metadata import entry_points

    return [point.load()() for point in entry_points(group=GROUP)]


def share_out(
    graph: Graph,
    target: Target,
    accelerators: Sequence[Accelerator],
    partition: Callable[[Graph, Target], list[Group]],
) -> Split:
    """Partition, ask every accelerator in turn, and partition again what is left between the parts taken."""
    groups = partition(graph, target)
    offers: list[Offer] = []
    busy: set[int] = set()
    for accelerator in accelerators:
        for offer in accelerator.take(graph, groups, target):
            ids = {id(node) for node in offer.nodes}
            if not ids or ids & busy:
                continue
            _check(graph, offer, accelerator.name)
            busy |= ids
            offer.accelerator = accelerator.name
            offers.append(offer)
    if not offers:
        return Split(groups)
    return _merge(graph, target, offers, partition)


def _check(graph: Graph, offer: Offer, name: str) -> None:
    known = {id(node) for node in graph.nodes}
    if any(id(node) not in known for node in offer.nodes):
        raise BugError(f"{name} offers nodes that are not in the graph")


def _merge(
    graph: Graph, target: Target, offers: list[Offer], partition: Callable[[Graph, Target], list[Group]]
) -> Split:
    """Each part taken becomes one step; the CPU's nodes between two of them are partitioned by themselves."""
    owner = {id(node): offer for offer in offers for node in offer.nodes}
    order = _order(graph, owner)
    split = Split([])
    run: list[Node] = []

    def flush() -> None:
        if run:
            split.groups += partition(_subgraph(graph, run), target)
            run.clear()

    for unit in order:
        if isinstance(unit, Node):
            run.append(unit)
            continue
        flush()
        part = _subgraph(graph, unit.nodes)
        split.taken[len(split.groups)] = unit
        split.groups.append(Group(list(unit.nodes), unit.nodes[-1], list(part.inputs), list(part.outputs)))
    flush()
    return split


def _order(graph: Graph, owner: dict[int, Offer]) -> list[Node | Offer]:
    """Nodes and parts so that everything is made before it is used; a part must not wait for itself."""
    made = graph.producers()
    order: list[Node | Offer] = []
    done: set[int] = set()
    entered: set[int] = set()

    def unit_of(node: Node) -> Node | Offer:
        return owner.get(id(node), node)

    def visit(root: Node | Offer) -> None:
        stack: list[tuple[Node | Offer, bool]] = [(root, False)]
        while stack:
            unit, ready = stack.pop()
            if id(unit) in done:
                continue
            if ready:
                done.add(id(unit))
                order.append(unit)
                continue
            if id(unit) in entered:
                raise BugError(f"{getattr(unit, 'accelerator', '')} offers nodes that wait for one another")
            entered.add(id(unit))
            stack.append((unit, True))
            nodes = unit.nodes if isinstance(unit, Offer) else [unit]
            for node in nodes:
                for value in node.inputs:
                    before = made.get(value) if value is not None else None
                    if before is None or (needed := unit_of(before)) is unit or id(needed) in done:
                        continue
                    stack.append((needed, False))

    for node in graph.nodes:
        visit(unit_of(node))
    return order


def _subgraph(graph: Graph, nodes: Sequence[Node]) -> Graph:
    """The same nodes and values; what comes from outside is an input, what is needed outside an output."""
    inside = {id(node) for node in nodes}
    made = {out for node in nodes for out in node.outputs}
    inputs: dict[Value, None] = {}
    for node in nodes:
        for value in node.inputs:
            if value is not None and value.data is None and value not in made:
                inputs[value] = None
    wanted = {v for node in graph.nodes if id(node) not in inside for v in node.inputs if v is not None}
    wanted |= set(graph.outputs)
    outputs = [out for node in nodes for out in node.outputs if out in wanted]
    return Graph(graph.name, list(inputs), outputs, list(nodes), dict(graph.notes))
