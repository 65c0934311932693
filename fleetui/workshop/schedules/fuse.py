"""Cuts a graph into groups that are computed together.

A group has an anchor and, fused with it, elementwise nodes; all its values but one (or an anchor's several) never
exist in memory. What is fused:

* behind a contraction, a window, a reduction or a moved tensor: elementwise nodes of the anchor's output shape,
  also several that branch and meet again (``x · sigmoid(x)``). A residual sum goes to the later of its producers;
* beside that chain: elementwise producers of its other operands, when nobody else wants them and they are cheap;
* a resized axis before another one, where few enough rows are mixed;
* before a reduction, a softmax or a norm: the elementwise chain that makes its input;
* before a contraction: the expansion of small weights (``dequantize`` or ``cast`` of a constant), and before a
  convolution of few channels the transpose that makes its input channel-last;
* elementwise nodes with each other, with transposes, slices and broadcasts as ways of reading their operands.

Nothing is computed twice, so nothing with a second consumer outside of the group is taken in. Whoever lowers a
group finds the parts with ``epilogue.Epilogue``. Groups come in an executable order.
"""

from __future__ import annotations

from collections.abc import Callable

from fleetui.workshop.graph.ir import Graph, Node, Value
from fleetui.workshop.graph.ops import Kind, kind
from fleetui.workshop.kernel import Group
from fleetui.workshop.schedules.scalar import COST
from fleetui.workshop.target import Target

MOST_NODES = 24
MOST_OPERANDS = 12
"""Pointers a kernel takes beside those of its anchor."""
CHEAP = 8
"""Operations an element may take to be computed beside the chain of a contraction."""

MOST_TAPS = 4
"""Rows that two resized axes in one may mix."""

HEAVY = frozenset({"conv", "dense", "matmul", "conv_transpose"})
MEDIUM = frozenset(
    {"pool", "reduce", "softmax", "log_softmax", "layer_norm", "rms_norm", "lrn", "interp", "gather", "pad", "tile"}
)
"""Anchors that take a chain behind them."""
ROWWISE = frozenset({"reduce", "softmax", "log_softmax", "layer_norm", "rms_norm"})
"""Anchors that take a chain before them: each element of their input is read a known number of times."""
READS = frozenset({"transpose", "slice", "broadcast_to"})
"""Ways of reading an operand, where an elementwise node follows."""
EXPANSIONS = frozenset({"dequantize", "cast"})


def elementwise(node: Node) -> bool:
    """Whether one output element takes one element (or a broadcast one) of each input."""
    return kind(node.op) is Kind.ELEMENTWISE and len(node.outputs) == 1


def is_view(node: Node) -> bool:
    """Whether the output is the input's elements in the same order, or a run of them without gaps."""
    if node.op in {"reshape", "identity"}:
        return True
    shape = node.input(0).shape
    if node.op == "transpose":
        moved = [axis for axis in node.attrs["perm"] if shape[axis] != 1]
        return moved == sorted(moved)
    if node.op == "broadcast_to":
        return node.input(0).size == node.output.size
    if node.op == "cast":
        return node.input(0).dtype == node.output.dtype
    if node.op in {"concat", "tile"}:
        return len(node.inputs) == 1 and node.input(0).size == node.output.size
    if node.op == "slice":
        if any(step != 1 for step in node.attrs["steps"]):
            return False
        cut = [i for i, (have, left) in enumerate(zip(shape, node.output.shape, strict=True)) if have != left]
        return not cut or all(dim == 1 for dim in node.output.shape[: cut[-1]])
    return False


def alias_of(group: Group) -> Value | None:
    """The value of which a group's output is only another view (dense and contiguous), or None.

    The group can still be lowered: the generic rule copies.
    """
    if len(group.nodes) == 1 and len(group.outputs) == 1 and is_view(group.nodes[0]):
        return group.nodes[0].input(0)
    return None


def partition(graph: Graph, target: Target) -> list[Group]:  # noqa: ARG001 - what is worth it may depend on it
    return _Partition(graph).run()


def _mixes(first: Node, second: Node) -> bool:
    """Two axes of a channel-last picture, neither the innermost."""
    axes = {first.attrs["axis"], second.attrs["axis"]}
    inner = first.output.rank - 1
    if len(axes) != 2 or max(axes) >= inner or first.output.shape[-1] < CHEAP:
        return False
    return second.input(0) is first.output and first.input(1).shape[1] * second.input(1).shape[1] <= MOST_TAPS


class _Draft:
    """A group that is still growing."""

    def __init__(self, anchor: Node) -> None:
        self.anchor = anchor
        self.nodes: dict[Node, None] = {anchor: None}
        self.out: Value = anchor.outputs[0]

    @property
    def single(self) -> bool:
        return len(self.anchor.outputs) == 1


class _Partition:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.at = {node: index for index, node in enumerate(graph.nodes)}
        self.made = graph.producers()
        self.users = graph.consumers()
        self.given_out = set(graph.outputs)
        self.taken: set[Node] = set()
        self.drafts: list[_Draft] = []

    def run(self) -> list[Group]:
        backward = self.graph.nodes[::-1]
        for node in backward:
            if node.op in HEAVY:
                draft = self._start(node)
                self._behind(draft)
                self._expansions(draft)
                self._reading(draft)
                self._before(draft, self._beside)
        for node in backward:
            if node.op in MEDIUM and node not in self.taken and not is_view(node):
                draft = self._start(node)
                self._behind(draft)
                self._before(draft, self._into)
        for node in backward:
            if node in self.taken:
                continue
            draft = self._start(node)
            if elementwise(node) and not is_view(node):
                self._before(draft, self._along)
        groups = [self._finish(draft) for draft in self.drafts]
        return sorted(groups, key=lambda group: max(self.at[node] for node in group.nodes))

    # ------------------------------------------------------------ growing

    def _start(self, node: Node) -> _Draft:
        draft = _Draft(node)
        self.taken.add(node)
        self.drafts.append(draft)
        return draft

    def _take(self, draft: _Draft, nodes: list[Node]) -> None:
        for node in nodes:
            draft.nodes[node] = None
            self.taken.add(node)

    def _behind(self, draft: _Draft) -> None:
        while draft.single:
            region = self._meeting(draft)
            if region is None:
                return
            self._take(draft, region)
            draft.out = region[-1].output

    def _meeting(self, draft: _Draft) -> list[Node] | None:
        """The fewest elementwise nodes behind the group that swallow all uses of its output and make one value."""
        region: list[Node] = []
        inside = set(draft.nodes)
        front = {draft.out}
        while True:
            if front & self.given_out or len(draft.nodes) + len(region) >= MOST_NODES:
                return None
            users = {user for value in front for user in self.users.get(value, []) if user not in inside}
            if not users:
                return None
            node = min(users, key=self.at.__getitem__)
            if node in self.taken or not self._fits(node, draft):
                return None
            region.append(node)
            inside.add(node)
            front.add(node.output)
            front = {v for v in front if v is node.output or any(u not in inside for u in self.users.get(v, []))}
            if len(front) == 1 and node.output in front:
                return region if self._operands([*draft.nodes, *region], draft) <= MOST_OPERANDS else None

    def _fits(self, node: Node, draft: _Draft) -> bool:
        return elementwise(node) and not is_view(node) and node.output.shape == draft.anchor.output.shape

    def _operands(self, nodes: list[Node], draft: _Draft) -> int:
        made = {out for node in nodes for out in node.outputs}
        rest = [node for node in nodes if node is not draft.anchor]
        return len({v for node in rest for v in node.inputs if v is not None and v not in made and v.size > 1})

    def _before(self, draft: _Draft, wanted: Callable[[Node, _Draft], bool]) -> None:
        """Take in producers, nearest first, as long as nobody outside of the group uses them."""
        changed = True
        while changed and len(draft.nodes) < MOST_NODES:
            changed = False
            for node in sorted(draft.nodes, key=self.at.__getitem__, reverse=True):
                for value in node.inputs:
                    if value is None or value in self.given_out:
                        continue
                    producer = self.made.get(value)
                    if producer is None or producer in self.taken or len(producer.outputs) != 1:
                        continue
                    if any(user not in draft.nodes for user in self.users.get(value, [])):
                        continue
                    if (
                        not wanted(producer, draft)
                        or self._operands([*draft.nodes, producer], draft) > MOST_OPERANDS
                    ):
                        continue
                    self._take(draft, [producer])
                    changed = True

    def _beside(self, producer: Node, draft: _Draft) -> bool:
        """An operand of the chain behind a contraction."""
        if any(user is draft.anchor for user in self.users.get(producer.outputs[0], [])):
            return False
        return self._fits(producer, draft) and COST.get(producer.op, 1) <= CHEAP

    def _into(self, producer: Node, draft: _Draft) -> bool:
        """The chain before a reduction; or an operand of the chain behind any other anchor of this sort."""
        if self._leads_to_anchor(producer, draft):
            if producer.op == "interp" and draft.anchor.op == "interp":
                return _mixes(producer, draft.anchor)
            if draft.anchor.op not in ROWWISE:
                return False
            data = draft.anchor.input(0)
            others = draft.anchor.inputs[1:]
            if any(v is producer.outputs[0] for v in others):
                return False
            return elementwise(producer) and not is_view(producer) and producer.output.shape == data.shape
        return self._fits(producer, draft) and COST.get(producer.op, 1) <= CHEAP

    def _leads_to_anchor(self, producer: Node, draft: _Draft) -> bool:
        ahead = [producer]
        seen: set[Node] = set()
        while ahead:
            node = ahead.pop()
            if node is draft.anchor:
                return True
            for out in node.outputs:
                for user in self.users.get(out, []):
                    if user in draft.nodes and user not in seen:
                        seen.add(user)
                        ahead.append(user)
        return False

    def _along(self, producer: Node, draft: _Draft) -> bool:
        """An operand of an elementwise group: computed alike, or read in another way."""
        if is_view(producer) or producer.output.shape != draft.out.shape:
            return False
        if elementwise(producer):
            # only what lies in memory can be read in another order
            return not any(user.op in READS for user in self.users.get(producer.output, []))
        return producer.op in READS and all(step > 0 for step in producer.attrs.get("steps", ()))

    def _expansions(self, draft: _Draft) -> None:
        for value in draft.anchor.inputs[1:]:
            if value is None or value in self.given_out or self.users.get(value) != [draft.anchor]:
                continue
            producer = self.made.get(value)
            if producer is None or producer in self.taken or producer.op not in EXPANSIONS:
                continue
            if all(v is None or v.data is not None for v in producer.inputs):
                self._take(draft, [producer])

    def _reading(self, draft: _Draft) -> None:
        """A transpose in front of a first convolution: the kernel reads the picture as it comes."""
        from fleetui.workshop.schedules.conv import reads_transposed

        value = draft.anchor.input(0)
        producer = self.made.get(value)
        if producer is None or producer in self.taken or value in self.given_out or is_view(producer):
            return
        if self.users.get(value) == [draft.anchor] and reads_transposed(producer, draft.anchor):
            self._take(draft, [producer])

    # ------------------------------------------------------------ done

    def _finish(self, draft: _Draft) -> Group:
        nodes = sorted(draft.nodes, key=self.at.__getitem__)
        made = {out for node in nodes for out in node.outputs}
        inputs = dict.fromkeys(v for node in nodes for v in node.inputs if v is not None and v not in made)
        outputs = [draft.out] if draft.single else list(draft.anchor.outputs)
        return Group(nodes, draft.anchor, list(inputs), outputs)
