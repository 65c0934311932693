"""A filter as a value: made from text or from a tree, gives masks, chips and texts back.

Immutable; may be shared between threads. Whoever evaluates it brings the columns, and on one thread at a time
for the same columns.
"""

from __future__ import annotations

from collections.abc import Iterable

from fleetui.common.domain.filters.chips import Chip, chips_of, items_of
from fleetui.common.domain.filters.evaluate import Columns, Rows, compile_tree
from fleetui.common.domain.filters.fields import Catalogue, Kind
from fleetui.common.domain.filters.parser import parse_tree
from fleetui.common.domain.filters.render import render
from fleetui.common.domain.filters.texts import Mask
from fleetui.common.domain.filters.tree import All, Comparison, Exists, Node, Search, both, walk


class Filter:
    """Two filters are equal when they say the same, however they were typed."""

    __slots__ = ("_predicate", "canonical", "catalogue", "node", "text")

    def __init__(self, node: Node, catalogue: Catalogue, text: str | None = None) -> None:
        self.node = node
        self.catalogue = catalogue
        self.canonical = render(node)
        self.text = self.canonical if text is None else text.strip()  # as typed
        self._predicate = compile_tree(node, catalogue)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and (self.catalogue, self.node) == (other.catalogue, other.node)

    def __hash__(self) -> int:
        return hash((self.catalogue, self.node))

    def __repr__(self) -> str:
        return f"Filter({self.canonical!r}, {self.catalogue.name})"

    def __bool__(self) -> bool:
        """False for the empty filter, which takes everything."""
        return not isinstance(self.node, All)

    def mask(self, columns: Columns, n: int, now: float) -> Mask:
        """Which of the first ``n`` rows it takes at fleet time ``now``."""
        return self._predicate(Rows(columns, n, now))

    @property
    def fields(self) -> frozenset[str]:
        """The fields it asks about: it need not be evaluated again when only others have changed."""
        names: set[str] = set()
        for node in walk(self.node):
            if isinstance(node, Comparison):
                names.add(node.field)
            elif isinstance(node, Exists):
                names.update(node.fields)
            elif isinstance(node, Search):
                names.update(field.name for field in self.catalogue.search_fields)
        return frozenset(names)

    @property
    def columns(self) -> frozenset[str]:
        """The columns behind ``fields``."""
        found = (self.catalogue.find(name) for name in self.fields)
        return frozenset(field.column for field in found if field is not None)

    @property
    def ages(self) -> bool:
        """Whether what it takes changes with time alone."""
        found = (self.catalogue.find(name) for name in self.fields)
        return any(field is not None and field.kind is Kind.AGE for field in found)

    # ---------------------------------------------------------------- chips

    def chips(self) -> tuple[Chip, ...]:
        """One for each part that must hold; removing one leaves the others as they are."""
        return chips_of(self.node, self.catalogue)

    def without(self, index: int) -> Filter:
        """The filter with one chip taken away."""
        items = items_of(self.node)
        return self._of(item for i, item in enumerate(items) if i != index)

    def replacing(self, index: int, part: str | Filter) -> Filter:
        """The filter with one chip exchanged for another part (or parts)."""
        items = list(items_of(self.node))
        items[index] = self._part(part)
        return self._of(items)

    def adding(self, part: str | Filter) -> Filter:
        """The filter with one more part that must hold; one that is there already is not added twice."""
        items = list(items_of(self.node))
        items += [item for item in items_of(self._part(part)) if item not in items]
        return self._of(items)

    def _part(self, part: str | Filter) -> Node:
        return part.node if isinstance(part, Filter) else parse_tree(part, self.catalogue)

    def _of(self, items: Iterable[Node]) -> Filter:
        return Filter(both(items), self.catalogue)


def parse(text: str, catalogue: Catalogue) -> Filter:
    """The filter that ``text`` writes. Raises only :class:`FilterError`, which marks the place."""
    return Filter(parse_tree(text, catalogue), catalogue, text)
