"""What a filter says, as a tree of frozen values. Positions are for error messages and do not count in equality.

In *normal form*, which the parser makes and the functions at the end keep, an ``And`` holds no ``And`` and no
``All``, an ``Or`` no ``Or``, and each at least two members. Equal normal trees are equal filters as written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Op(StrEnum):
    """How a field is compared."""

    IS = ":"  # equal; in texts ``*`` stands for anything
    EQUAL = "="  # equal, letter for letter
    NOT = "!="
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="
    CONTAINS = "~"


ORDERING = frozenset({Op.LESS, Op.AT_MOST, Op.MORE, Op.AT_LEAST})


@dataclass(frozen=True, slots=True)
class Value:
    """A word as written, split at its wildcards: ``ber*`` is ``("ber", "")``; one part has no wildcard."""

    parts: tuple[str, ...]
    start: int = dataclasses.field(default=0, compare=False)
    end: int = dataclasses.field(default=0, compare=False)

    @classmethod
    def of(cls, text: str) -> Value:
        """A text in which a star is a star."""
        return cls((text,))

    @property
    def text(self) -> str:
        return "*".join(self.parts)

    @property
    def wild(self) -> bool:
        return len(self.parts) > 1


@dataclass(frozen=True, slots=True)
class All:
    """The empty filter: everything."""


@dataclass(frozen=True, slots=True)
class Search:
    """A bare word: looked for in the catalogue's search fields."""

    value: Value


@dataclass(frozen=True, slots=True)
class Comparison:
    """``field op value``; of several values any one suffices (``!=``: none may hold)."""

    field: str
    op: Op
    values: tuple[Value, ...]
    start: int = dataclasses.field(default=0, compare=False)
    end: int = dataclasses.field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Exists:
    """``has:field`` and ``missing:field``; of several fields any one suffices."""

    fields: tuple[str, ...]
    present: bool


@dataclass(frozen=True, slots=True)
class Not:
    item: Node


@dataclass(frozen=True, slots=True)
class And:
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    items: tuple[Node, ...]


Node = All | Search | Comparison | Exists | Not | And | Or


def both(items: Iterable[Node]) -> Node:
    """All of ``items``, in normal form."""
    flat: list[Node] = []
    for item in items:
        if isinstance(item, And):
            flat += item.items
        elif not isinstance(item, All):
            flat.append(item)
    if not flat:
        return All()
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def either(items: Iterable[Node]) -> Node:
    """Any of ``items`` (at least one), in normal form."""
    flat: list[Node] = []
    for item in items:
        flat += item.items if isinstance(item, Or) else (item,)
    return flat[0] if len(flat) == 1 else Or(tuple(flat))


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    yield node
    if isinstance(node, And | Or):
        for item in node.items:
            yield from walk(item)
    elif isinstance(node, Not):
        yield from walk(node.item)
