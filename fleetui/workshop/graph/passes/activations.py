"""Activations written out in pieces are recognised by what they compute.

A *cone* is a set of elementwise nodes that depends on one tensor and on numbers, and that nobody looks into from
outside. A cone is a function of one number; it is evaluated at a few hundred places in float64 and compared with
the functions we have an operator for. So it does not matter how the author wrote ``gelu``: a combination of a few
smooth functions that agrees everywhere there is that function. The largest cone that agrees is replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from fleetui.workshop.graph.ir import Array, Graph, Node, Value
from fleetui.workshop.graph.ops import Kind, evaluate, kind
from fleetui.workshop.graph.passes.constants import FLOATS, uniform
from fleetui.workshop.graph.passes.rewrite import Editor

LARGEST = 24
TOLERANCE = 3e-6
CLOSED = frozenset({"cast", "quantize", "dequantize", "isnan", "isinf"})
"""Elementwise operators that are not looked through."""

Match = tuple[str, dict[str, Any]]


@cache
def _places() -> Array:
    """Dense where activations bend, sparse far out; none of them a round number but for nought and its kin."""
    rng = np.random.default_rng(20240229)
    near = rng.uniform(-4, 4, 160)
    middle = rng.uniform(-16, 16, 60)
    far = np.array([-80.3, -41.7, -25.9, -18.2, 18.7, 26.1, 42.3, 79.1])
    return np.concatenate([[0.0, 1.0, -1.0, 3.0, -3.0, 0.5, -0.5, 6.0, -6.0], near, middle, far])


ZERO, ONE, MINUS_ONE = 0, 1, 2


def _at(op: str, **attrs: Any) -> Array:
    with np.errstate(all="ignore"):
        return evaluate(op, [_places()], attrs)[0]


@cache
def _fixed() -> list[tuple[str, dict[str, Any], Array]]:
    plain = (
        "relu", "abs", "neg", "sigmoid", "tanh", "silu", "mish", "softplus", "softsign", "hard_swish", "exp", "erf",
        "expm1",
    )  # fmt: skip
    found: list[tuple[str, dict[str, Any], Array]] = [(op, {}, _at(op)) for op in plain]
    found.extend(("gelu", {"approximate": how}, _at("gelu", approximate=how)) for how in (False, True))
    selu = {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}
    found.append(("selu", selu, _at("selu", **selu)))
    return found


def _agrees(a: Array, b: Array) -> bool:
    if not bool(np.isfinite(a).all()):
        # the author's way may overflow far out, where ours does not
        if int(np.isfinite(a).sum()) < a.size - 8:
            return False
        a = np.where(np.isfinite(a), a, b)
    return bool((np.abs(a - b) <= TOLERANCE * (1e-2 + np.abs(b))).all())


def match(y: Array) -> Match | None:
    """The operator that takes ``_places()`` to ``y``."""
    for op, attrs, numbers in _fixed():
        if _agrees(y, numbers):
            return op, attrs
    if not bool(np.isfinite(y).all()):
        return None
    for guess in _GUESSES:
        found = guess(y)
        if found is not None and _agrees(y, _at(found[0], **found[1])):
            return found
    return None


def _leaky(y: Array) -> Match | None:
    return ("leaky_relu", {"alpha": float(-y[MINUS_ONE])}) if abs(y[ONE] - 1) < 1e-5 else None


def _elu(y: Array) -> Match | None:
    if abs(y[ONE] - 1) > 1e-5 or abs(y[ZERO]) > 1e-6:
        return None
    return "elu", {"alpha": float(-y.min())}


def _celu(y: Array) -> Match | None:
    if abs(y[ONE] - 1) > 1e-5 or abs(y[ZERO]) > 1e-6 or y.min() >= 0:
        return None
    return "celu", {"alpha": float(-y.min())}


def _bounded(y: Array) -> Match | None:
    """A straight line between 0 and 1, or the identity between two bounds."""
    if y.min() == y.max():
        return None
    x = _places()
    if abs(y.min()) < 1e-6 and abs(y.max() - 1) < 1e-6:
        inside = (y > 1e-5) & (y < 1 - 1e-5)
        if int(inside.sum()) >= 4:
            alpha, beta = np.polyfit(x[inside], y[inside], 1)
            return "hard_sigmoid", {"alpha": _round(float(alpha)), "beta": _round(float(beta))}
    low = None if y.min() <= x.min() else float(y.min())
    high = None if y.max() >= x.max() else float(y.max())
    return "clip", {"low": low, "high": high}


def _round(number: float) -> float:
    """The fit's last digits are noise."""
    return float(f"{number:.9g}")


_GUESSES: tuple[Callable[[Array], Match | None], ...] = (_bounded, _leaky, _elu, _celu)

# ---------------------------------------------------------------- cones


def _joins(node: Node, dtype: str) -> bool:
    if kind(node.op) is not Kind.ELEMENTWISE or node.op in CLOSED or len(node.outputs) != 1:
        return False
    return node.output.dtype in {dtype, "bool"}


class _Cone:
    """Grows from its root backwards; ``cut`` is the one tensor it depends on, when there is only one."""

    def __init__(self, editor: Editor, root: Node, order: dict[Node, int]) -> None:
        self.editor, self.root, self.order = editor, root, order
        self.nodes: dict[Node, None] = {root: None}
        self.open: dict[Value, None] = {}
        self.sound = self._take(root)

    def _take(self, node: Node) -> bool:
        for value in node.inputs:
            if value is None:
                return False
            if value.data is not None:
                if uniform(value) is None:
                    return False
            else:
                self.open[value] = None
        return True

    def cut(self) -> Value | None:
        if len(self.open) != 1:
            return None
        (value,) = self.open
        return value if value.dtype == self.root.output.dtype and value.shape == self.root.output.shape else None

    def grow(self) -> bool:
        """Take in the latest node the cone depends on; ``False`` where that cannot be."""
        makers = [(self.order.get(m, -1), v, m) for v in self.open if (m := self.editor.maker(v)) is not None]
        if not makers or len(self.nodes) >= LARGEST:
            return False
        _, value, node = max(makers, key=lambda item: item[0])
        dtype = self.root.output.dtype
        if not _joins(node, dtype) or value in self.editor.outputs:
            return False
        if any(user not in self.nodes for user in self.editor.uses.get(value, ())):
            return False
        del self.open[value]
        self.nodes[node] = None
        return self._take(node)

    def numbers(self) -> list[float]:
        """Every constant that occurs."""
        found = {uniform(value) for node in self.nodes for value in node.inputs if value is not None}
        for node in self.nodes:
            found.update(float(attr) for attr in node.attrs.values() if isinstance(attr, int | float))
        return sorted(number for number in found if number is not None)

    def evaluate(self, cut: Value, places: Array) -> Array:
        known: dict[Value, Array] = {cut: places}
        for node in sorted(self.nodes, key=lambda node: self.order.get(node, -1)):
            arrays: list[Array | None] = []
            for value in node.inputs:
                assert value is not None
                if value.data is None:
                    arrays.append(known[value])
                else:
                    number = uniform(value)
                    boolean = value.dtype == "bool"
                    arrays.append(np.asarray(bool(number) if boolean else number))
            known[node.output] = evaluate(node.op, arrays, node.attrs)[0]
        result = known[self.root.output]
        return np.broadcast_to(result, places.shape).astype(np.float64)

    def holds(self, cut: Value, found: Match) -> bool:
        """Also around the constants that occur, where a piecewise function might bend between our places."""
        marks = np.array([number for number in self.numbers() if number != 0] or [1.0])
        if float(np.abs(marks).max()) > 1e4:
            return False
        steps = np.array([0.0, 0.3, 0.5, 0.999, 1.0, 1.001, 1.5, 2.0])
        places = np.concatenate([marks[:, None] * steps, steps / marks[:, None]]).reshape(-1)
        places = np.concatenate([places, -places])
        mine = self.evaluate(cut, places)
        with np.errstate(all="ignore"):
            theirs = evaluate(found[0], [places], found[1])[0]
        far = ~np.isfinite(mine)
        return _agrees(np.where(far, theirs, mine), theirs)


def recognise_activations(graph: Graph) -> int:
    editor = Editor(graph)
    order = {node: index for index, node in enumerate(graph.nodes)}
    for root in list(graph.nodes):
        if not editor.alive(root) or len(root.outputs) != 1 or root.output.dtype not in FLOATS:
            continue
        if _joins(root, root.output.dtype):
            _replace_largest(editor, root, order)
    return editor.finish()


def _replace_largest(editor: Editor, root: Node, order: dict[Node, int]) -> None:
    cone = _Cone(editor, root, order)
    best: tuple[Value, Match] | None = None
    while cone.sound:
        cut = cone.cut()
        if cut is not None and len(cone.nodes) >= 2:
            found = match(cone.evaluate(cut, _places()))
            if found is not None and cone.holds(cut, found):
                best = cut, found
        if not cone.grow():
            break
    if best is None:
        return
    cut, (op, attrs) = best
    made = editor.op(op, cut, source=root.source, **attrs)
    order[editor.made[made]] = order[root]
    editor.replace(root.output, made)
