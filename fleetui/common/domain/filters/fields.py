"""What can be filtered by: a catalogue of fields as data. One catalogue for each kind of list.

The language itself knows no field; ``devices.py`` has the catalogue of devices, and alerts, models or rollouts
bring theirs. A field names the column it reads as a string: this package knows no store.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from fleetui.common.domain.ages import Unit
from fleetui.common.domain.filters.tree import ORDERING, Op

TAG_PREFIX = "tag."


class Kind(StrEnum):
    """What a field's values are, and so what they compare as."""

    TEXT = "text"  # free text
    WORD = "word"  # a name of something: few different ones, offered while typing
    ENUM = "enum"  # one of ``choices``; anything else is an error
    NUMBER = "number"  # with a unit
    AGE = "age"  # a moment in Unix seconds, compared by how long ago it is
    VERSION = "version"  # as people order versions
    TAG = "tag"  # one key of a device's tags: text, ordered like a version


_TEXT_OPS = (Op.IS, Op.EQUAL, Op.NOT, Op.CONTAINS)
_ORDER_OPS = (Op.LESS, Op.AT_MOST, Op.MORE, Op.AT_LEAST)
_OPS: dict[Kind, tuple[Op, ...]] = {
    Kind.TEXT: _TEXT_OPS,
    Kind.WORD: _TEXT_OPS,
    Kind.ENUM: (Op.IS, Op.EQUAL, Op.NOT),
    Kind.NUMBER: (*_ORDER_OPS, Op.IS, Op.EQUAL, Op.NOT),
    Kind.AGE: (*_ORDER_OPS, Op.IS, Op.EQUAL, Op.NOT),
    Kind.VERSION: (*_TEXT_OPS, *_ORDER_OPS),
    Kind.TAG: (*_TEXT_OPS, *_ORDER_OPS),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One thing to filter by."""

    name: str
    label: str
    kind: Kind
    column: str
    help: str
    examples: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()  # of an ENUM, in their order
    ordered: bool = False  # an ENUM whose choices rise
    unit: Unit = Unit.NONE
    aliases: tuple[str, ...] = ()
    zero_is_missing: bool = False  # 0 stands for "not told"
    absolute: bool = False  # compared without its sign
    key: str = ""  # of a TAG

    @property
    def operators(self) -> tuple[Op, ...]:
        """What may stand after the field's name, the most usual first."""
        ops = _OPS[self.kind]
        return (*ops, *_ORDER_OPS) if self.kind is Kind.ENUM and self.ordered else ops

    @property
    def textual(self) -> bool:
        return self.kind in {Kind.TEXT, Kind.WORD, Kind.ENUM, Kind.VERSION, Kind.TAG}

    def allows(self, op: Op) -> bool:
        return op in self.operators

    @property
    def orders(self) -> bool:
        return any(op in ORDERING for op in self.operators)


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The fields of one kind of thing. ``search`` names those in which a bare word is looked for.

    With a ``tags`` column, ``tag.<key>`` is a field for every key: read from a column of that name if there is
    one, else from the mappings in the ``tags`` column.
    """

    name: str  # what is listed, in the plural: "devices"
    fields: tuple[Field, ...]
    search: tuple[str, ...] = ()
    tags: str | None = None
    _by_name: dict[str, Field] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        by_name: dict[str, Field] = {}
        for one in self.fields:
            for name in (one.name, *one.aliases):
                if by_name.setdefault(name.casefold(), one) is not one:
                    raise ValueError(f"two fields are called {name!r}")
        for name in self.search:
            if not by_name[name.casefold()].textual:
                raise ValueError(f"{name!r} is not a text to search in")
        object.__setattr__(self, "_by_name", by_name)

    def find(self, name: str) -> Field | None:
        """The field of that name or alias, whatever its case; ``tag.<key>`` keeps the key as written."""
        found = self._by_name.get(name.casefold())
        if found is None and self.tags is not None and name.casefold().startswith(TAG_PREFIX):
            key = name[len(TAG_PREFIX) :]
            if key:
                return tag_field(key, self.tags)
        return found

    def names(self) -> Iterator[str]:
        """All names that a writer may have meant."""
        for one in self.fields:
            yield one.name
            yield from one.aliases

    @property
    def search_fields(self) -> tuple[Field, ...]:
        return tuple(self._by_name[name.casefold()] for name in self.search)


_TAG = Field(
    name=TAG_PREFIX,
    label="Tag",
    kind=Kind.TAG,
    column="",
    help="A tag that the device was given. Compares as text; with < and > as versions do.",
    examples=("tag.line:3", "has:tag.line"),
)


def tag_field(key: str, column: str) -> Field:
    return replace(_TAG, name=f"{TAG_PREFIX}{key}", label=f"Tag {key}", column=column, key=key)
