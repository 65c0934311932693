"""A tree back to text: the canonical form. ``parse_tree(render(tree)) == tree`` for every tree in normal form."""

from __future__ import annotations

import re

from fleetui.common.domain.filters.lexer import KEYWORDS
from fleetui.common.domain.filters.parser import HAS, MISSING
from fleetui.common.domain.filters.tree import All, And, Comparison, Exists, Node, Not, Or, Search, Value

_PLAIN = re.compile(r"[^\s\"(),:=<>~!\\*]+")


def render(node: Node) -> str:
    if isinstance(node, All):
        return ""
    if isinstance(node, Search):
        return render_value(node.value)
    if isinstance(node, Comparison):
        return f"{_name(node.field)}{node.op}{_list(tuple(render_value(v) for v in node.values))}"
    if isinstance(node, Exists):
        return f"{HAS if node.present else MISSING}:{_list(tuple(_name(f) for f in node.fields))}"
    if isinstance(node, Not):
        return f"not {_grouped(node.item)}"
    if isinstance(node, And):
        return " and ".join(_grouped(item) if isinstance(item, Or) else render(item) for item in node.items)
    return " or ".join(render(item) for item in node.items)


def _grouped(node: Node) -> str:
    text = render(node)
    return f"({text})" if isinstance(node, And | Or) else text


def _list(items: tuple[str, ...]) -> str:
    return items[0] if len(items) == 1 else f"({','.join(items)})"


def _name(field: str) -> str:
    return quote((field,))


def render_value(value: Value) -> str:
    return quote(value.parts)


def quote(parts: tuple[str, ...]) -> str:
    """The parts joined by wildcards, in quotes only where a reader needs them."""
    plain = all(not part or _PLAIN.fullmatch(part) for part in parts) and any(parts)
    if len(parts) > 1 and not any(parts):
        return "*"
    text = "*".join(parts)
    if plain and text.casefold() not in KEYWORDS:
        return text
    return '"' + "*".join(re.sub(r'(["\\*])', r"\\\1", part) for part in parts) + '"'
