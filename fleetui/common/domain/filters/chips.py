"""A filter as a row of chips: the parts that must all hold, each with the words to show.

A filter that is no conjunction, or a part with an ``or`` in it, is one chip that holds the part's text; so every
filter can be shown, and any chip removed, edited as text or replaced (see :class:`~.filter.Filter`).
"""

from __future__ import annotations

from dataclasses import dataclass

from fleetui.common.domain.filters.fields import Catalogue, Kind
from fleetui.common.domain.filters.render import render
from fleetui.common.domain.filters.tree import All, And, Comparison, Exists, Node, Not, Op, Search

_WORDS: dict[Op, str] = {
    Op.IS: "is",
    Op.EQUAL: "is exactly",
    Op.NOT: "is not",
    Op.CONTAINS: "contains",
    Op.LESS: "<",
    Op.AT_MOST: "≤",
    Op.MORE: ">",
    Op.AT_LEAST: "≥",
}


@dataclass(frozen=True, slots=True)
class Chip:
    """``text`` is what it says in the language, ``label`` in words.

    ``field`` and ``operator`` are empty for a part that is more than one comparison. ``operator`` is a comparison's
    sign, or ``has``, ``missing`` or ``search``.
    """

    field: str
    operator: str
    values: tuple[str, ...]
    text: str
    label: str
    negated: bool = False

    @property
    def simple(self) -> bool:
        return bool(self.operator)


def items_of(node: Node) -> tuple[Node, ...]:
    """The parts that must all hold."""
    if isinstance(node, All):
        return ()
    return node.items if isinstance(node, And) else (node,)


def chips_of(node: Node, catalogue: Catalogue) -> tuple[Chip, ...]:
    return tuple(_chip(item, catalogue) for item in items_of(node))


def _chip(node: Node, catalogue: Catalogue) -> Chip:
    text = render(node)
    negated = isinstance(node, Not)
    inner = node.item if isinstance(node, Not) else node
    lead = "not: " if negated else ""
    if isinstance(inner, Comparison):
        field = catalogue.find(inner.field)
        assert field is not None
        words = _WORDS[inner.op]
        if field.kind in {Kind.AGE, Kind.NUMBER} and inner.op in {Op.IS, Op.EQUAL, Op.NOT}:
            words = "≠" if inner.op is Op.NOT else "="
        values = tuple(value.text for value in inner.values)
        label = f"{lead}{field.label} {words} {' or '.join(values)}"
        return Chip(field.name, str(inner.op), values, text, label, negated)
    if isinstance(inner, Exists):
        labels = tuple(_label(name, catalogue) for name in inner.fields)
        operator, words = ("has", "known") if inner.present else ("missing", "missing")
        label = f"{lead}{' or '.join(labels)} {words}"
        return Chip(inner.fields[0] if len(inner.fields) == 1 else "", operator, inner.fields, text, label, negated)
    if isinstance(inner, Search):
        return Chip("", "search", (inner.value.text,), text, f"{lead}“{inner.value.text}”", negated)
    return Chip("", "", (), text, text, negated)


def _label(name: str, catalogue: Catalogue) -> str:
    field = catalogue.find(name)
    return field.label if field else name
