"""Transposes are moved to where they cancel.

Importers of channel-first models put a transpose before and after every convolution. Here whole regions of the
graph change the order in which they store their tensors: starting at a transpose, all operators that can follow
(``relabel``) are collected, and a minimum cut decides which of them do, so that the transposes that are left move
the fewest bytes. Whatever is decided, the sum of bytes moved never rises. Constants are permuted at compile time; a
matrix behind a flattened tensor gets its rows permuted.

A transpose of a graph input directly ahead of a convolution stays there: the schedule reads channel-first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from fleetui.workshop.graph.ir import Graph, Node, Value
from fleetui.workshop.graph.ops import Kind, kind
from fleetui.workshop.graph.passes.absorb import is_weight
from fleetui.workshop.graph.passes.mincut import ENDLESS, Network
from fleetui.workshop.graph.passes.moves import compose, inverse, is_identity, moves_nothing
from fleetui.workshop.graph.passes.relabel import Perm, Perms, constant_perm, propagate, rewritten
from fleetui.workshop.graph.passes.rewrite import Editor, Rules

OVERHEAD = 64
"""Bytes that a transpose costs beside those it moves."""


def cost(value: Value, perm: Perm) -> int:
    if is_identity(perm):
        return 0
    return 1 if moves_nothing(perm, value.shape) else value.nbytes + OVERHEAD


def moved_bytes(graph: Graph) -> int:
    """What all transposes of a graph cost."""
    return sum(cost(node.input(0), tuple(node.attrs["perm"])) for node in graph.nodes if node.op == "transpose")


# ---------------------------------------------------------------- regions


class Region:
    """Nodes that can follow a value into another order, and the orders of all their tensors if they do."""

    def __init__(self, editor: Editor, seed: Value, perm: Perm) -> None:
        self.editor = editor
        self.perms: Perms = {seed: perm}
        self.nodes: dict[Node, None] = {}
        self.flattening: set[Node] = set()
        self._collect(seed)

    def _collect(self, seed: Value) -> None:
        queue, refused = deque([seed]), set[Node]()
        while queue:
            value = queue.popleft()
            perm = self.perms[value]
            if is_identity(perm):
                continue
            maker = self.editor.made.get(value)
            for node in [*([maker] if maker is not None else []), *self.editor.uses.get(value, ())]:
                if node in self.nodes or node in refused or node.op == "transpose":
                    continue
                found = self._follow(node, value, perm)
                if found is None:
                    refused.add(node)
                    continue
                self.nodes[node] = None
                for other, order in found.items():
                    if other not in self.perms:
                        self.perms[other] = order
                        queue.append(other)

    def _follow(self, node: Node, value: Value, perm: Perm) -> Perms | None:
        found = propagate(node, value, perm)
        if found is not None and all(self.perms.get(other, order) == order for other, order in found.items()):
            return found
        if node.op == "reshape" and value is node.input(0) and flattens_into_dense(self.editor, node, perm):
            self.flattening.add(node)
            return {value: perm}
        return None

    # ------------------------------------------------------------ what it is worth

    def choose(self) -> set[Node]:
        """The nodes that had better change; empty if nothing is gained."""
        network = Network()
        number = {node: network.node() for node in self.nodes}
        now = 0
        for value, perm in self.perms.items():
            if value.data is None and not is_identity(perm):
                now += self._terms(network, number, value, perm)
        if not now:
            return set()
        least, changed = network.cut()
        return {node for node in self.nodes if changed[number[node]]} if least < now else set()

    def _terms(self, network: Network, number: dict[Node, int], value: Value, perm: Perm) -> int:
        """Costs around one tensor; returns what of them is paid as things are."""
        editor = self.editor
        maker, users = editor.made.get(value), editor.uses.get(value, {})
        inside = [number[node] for node in users if node in number]
        turns = [node for node in users if node.op == "transpose"]
        fixed = value in editor.outputs or any(node not in number and node.op != "transpose" for node in users)
        there = cost(value, perm)
        shared = any(tuple(turn.attrs["perm"]) == perm for turn in turns)

        def any_changed(to: int, price: int) -> None:
            if inside and price:
                node = network.node()
                for user in inside:
                    network.edge(user, node, ENDLESS)
                network.edge(node, to, price)

        if maker in number:
            made = number[maker]
            any_changed(made, 0 if shared else there)
            if fixed:
                network.edge(made, 1, there)
            elif inside:
                node = network.node()
                network.edge(made, node, there)
                for user in inside:
                    network.edge(node, user, ENDLESS)
            now = 0
            for turn in turns:
                order = tuple(turn.attrs["perm"])
                network.edge(0, made, cost(value, order))
                network.edge(made, 1, cost(value, compose(inverse(perm), order)))
                now += cost(value, order)
            return now
        if maker is not None and maker.op == "transpose":
            source, order = maker.input(0), tuple(maker.attrs["perm"])
            any_changed(1, cost(source, compose(order, perm)))
            if fixed or turns or not inside:
                return 0
            node = network.node()
            network.edge(0, node, cost(source, order))
            for user in inside:
                network.edge(node, user, ENDLESS)
            return cost(source, order)
        any_changed(1, 0 if shared else there)
        return 0

    # ------------------------------------------------------------ doing it

    def change(self, chosen: set[Node]) -> None:
        editor, perms = self.editor, self.perms
        stored: dict[Value, Value] = {}
        attrs = {node: node.attrs if node in self.flattening else rewritten(node, perms) for node in chosen}
        with editor.holding():
            for node in chosen:
                for out in node.outputs if node not in self.flattening else []:
                    perm = perms.get(out)
                    if perm is not None and not is_identity(perm):
                        shape = tuple(out.shape[p] for p in perm)
                        stored[out] = Value(editor.fresh(out.name), shape, out.dtype)
            inputs = {
                node: [self._input(node, index, stored) for index in range(len(node.inputs))]
                for node in self.nodes
                if node in chosen
            }
            before = {node: node.input(0) for node in self.flattening if node in chosen}
            for node, values in inputs.items():
                for index, out in enumerate(node.outputs):
                    if out in stored and node not in self.flattening:
                        editor.rename_output(node, index, stored[out])
                node.attrs = attrs[node]
                editor.set_inputs(node, values)
                if node in self.flattening:
                    self._permute_rows(node, perms[before[node]])
            for value, new in stored.items():
                self._settle_users(value, new, inverse(perms[value]))

    def _input(self, node: Node, index: int, stored: dict[Value, Value]) -> Value | None:
        value = node.inputs[index]
        if value is None:
            return None
        if value.data is not None:
            perm = constant_perm(node, index, self.perms)
            if perm is None or value.size == 1:
                return value
            full = (1,) * (len(perm) - value.rank) + value.shape
            return self.editor.op("transpose", self.editor.op("reshape", value, shape=full), perm=perm)
        perm = self.perms.get(value)
        if perm is None or is_identity(perm):
            return value
        return stored[value] if value in stored else self._turned(value, perm, stored)

    def _turned(self, value: Value, perm: Perm, stored: dict[Value, Value]) -> Value:
        """A tensor from outside in the order that is wanted, by a transpose that is there or a new one."""
        maker = self.editor.maker(value, "transpose")
        source = maker.source if maker is not None else ""
        if maker is not None:
            value, perm = maker.input(0), compose(tuple(maker.attrs["perm"]), perm)
        if value in stored:
            perm, value = compose(inverse(self.perms[value]), perm), stored[value]
        if is_identity(perm):
            return value
        for user in self.editor.uses.get(value, ()):
            if user.op == "transpose" and tuple(user.attrs["perm"]) == perm:
                return user.output
        return self.editor.op("transpose", value, source=source, perm=perm)

    def _settle_users(self, value: Value, new: Value, back: Perm) -> None:
        """Those who still want the former order."""
        editor = self.editor
        for user in editor.users(value):
            if user.op != "transpose":
                continue
            perm = compose(back, tuple(user.attrs["perm"]))
            if is_identity(perm):
                out = user.output
                editor.set_input(user, 0, new)
                user.attrs["perm"] = perm
                editor.replace(out, new)
            else:
                user.attrs["perm"] = perm
                editor.set_input(user, 0, new)
        if editor.uses.get(value) or value in editor.outputs:
            editor.add_node(Node("transpose", [new], [value], {"perm": back}, editor.made[new].source))

    def _permute_rows(self, node: Node, perm: Perm) -> None:
        """The matrices behind a flattened tensor that is now stored in another order."""
        editor, x, out = self.editor, node.input(0), node.output
        kept = out.rank - 1
        former = tuple(x.shape[i] for i in inverse(perm))[kept:]
        for user in editor.users(out):
            w = user.input(1)
            apart = editor.op("reshape", w, source=node.source, shape=(*former, w.shape[1]))
            turned = (*(p - kept for p in perm[kept:]), len(perm) - kept)
            moved = editor.op("transpose", apart, source=node.source, perm=turned)
            editor.set_input(user, 1, editor.op("reshape", moved, source=node.source, shape=w.shape))


def flattens_into_dense(editor: Editor, node: Node, perm: Perm) -> bool:
    """A reshape that joins the last dimensions, and all who take the result multiply it by a constant matrix."""
    x, out = node.input(0), node.output
    kept = out.rank - 1
    if out in editor.outputs or kept < 0 or x.shape[:kept] != out.shape[:kept] or x.rank <= kept:
        return False
    if any(perm[i] != i for i in range(kept)):
        return False
    users = editor.uses.get(out, {})
    return bool(users) and all(
        user.op == "dense" and user.input(0) is out and _row_weights(editor, user.input(1)) for user in users
    )


def _row_weights(editor: Editor, w: Value) -> bool:
    """Weights whose rows can be permuted at compile time."""
    if w.data is not None:
        return True
    maker = editor.maker(w, "dequantize")
    if maker is None or not is_weight(editor, w) or maker.input(0).data is None or not editor.private(w):
        return False
    return not maker.attrs.get("block", 0) and (maker.input(1).rank == 0 or maker.attrs["axis"] == 1)


# ---------------------------------------------------------------- the pass


def _prepare(editor: Editor) -> None:
    """Operands of lower rank are written out in full, so that they have an order that can change."""
    for node in editor.nodes:
        if len(node.inputs) < 2 or kind(node.op) is not Kind.ELEMENTWISE or node.op in {"quantize", "dequantize"}:
            continue
        rank = node.output.rank
        for index, value in enumerate(node.inputs):
            if value is not None and value.data is None and value.size > 1 and value.rank < rank:
                full = (1,) * (rank - value.rank) + value.shape
                editor.set_input(node, index, editor.op("reshape", value, source=node.source, shape=full))


def _spell_out(editor: Editor, node: Node) -> bool:
    """A group norm of a channel-first image, said as a layer norm, is said as reductions: those can follow.

    The image [N, C, *S] was brought into the form [N, G, C/G · S], and is brought back afterwards.
    """
    x, flat, behind = node.input(0), editor.maker(node.input(0), "reshape"), editor.only_user(node.output)
    if flat is None or behind is None or behind.op != "reshape" or any(v is not None for v in node.inputs[1:]):
        return False
    image = flat.input(0)
    form = image.rank >= 3 and x.rank == 3 and node.attrs["axis"] == 2 and x.shape[0] == image.shape[0]
    if not form or behind.output.shape != image.shape or image.shape[1] % x.shape[1]:
        return False
    if not _comes_transposed(editor, image):
        return False
    shape = (image.shape[0], x.shape[1], image.shape[1] // x.shape[1], *image.shape[2:])
    axes = tuple(range(2, len(shape)))

    def op(name: str, *inputs: Value, **attrs: Any) -> Value:
        return editor.op(name, *inputs, source=node.source, **attrs)

    apart = op("reshape", image, shape=shape)
    centred = op("sub", apart, op("reduce", apart, kind="mean", axes=axes, keepdims=True))
    spread = op("reduce", op("mul", centred, centred), kind="mean", axes=axes, keepdims=True)
    factor = op("rsqrt", op("add", spread, editor.scalar(node.attrs["eps"], x)))
    editor.replace(behind.output, op("reshape", op("mul", centred, factor), shape=image.shape))
    return True


def _comes_transposed(editor: Editor, value: Value) -> bool:
    """A transpose made this value, and only elementwise operators of one input have been at it since."""
    maker = editor.maker(value)
    while maker is not None and kind(maker.op) is Kind.ELEMENTWISE:
        varying = [v for v in maker.inputs if v is not None and v.data is None]
        if len(varying) != 1:
            return False
        maker = editor.maker(varying[0])
    return maker is not None and maker.op == "transpose"


def move_transposes(graph: Graph, rules: Rules, check: Callable[[], None] | None = None, widen: bool = True) -> int:
    """Let regions change their order as long as that saves anything. ``rules`` tidy up in between."""
    if not any(node.op == "transpose" for node in graph.nodes):
        return 0
    editor = Editor(graph, widen)
    editor.apply({"layer_norm": [_spell_out]}, check)
    _prepare(editor)
    editor.apply(rules, check)
    start, moving = editor.changes, True
    while moving:
        moving = False
        tried: set[tuple[Value, Perm]] = set()
        for node in [node for node in editor.nodes if node.op == "transpose"]:
            if not editor.alive(node):
                continue
            if check is not None:
                check()
            perm = tuple(node.attrs["perm"])
            for seed, order in ((node.output, inverse(perm)), (node.input(0), perm)):
                if (seed, order) in tried:
                    continue
                region = Region(editor, seed, order)
                chosen = region.choose()
                if chosen:
                    region.change(chosen)
                    editor.apply(rules, check)
                    tried.clear()
                    moving = True
                    break
                tried.update(region.perms.items())
    editor.finish()
    return editor.changes - start
