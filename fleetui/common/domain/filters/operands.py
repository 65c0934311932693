"""The written values of a comparison, read as what the field is: numbers with units, choices, versions, patterns.

This is where ``memory>lots`` and ``status:onlin`` fail. Pure; raises only :class:`FilterError`.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleetui.common.domain import ages
from fleetui.common.domain.ages import Unit
from fleetui.common.domain.filters.errors import did_you_mean, failure
from fleetui.common.domain.filters.fields import Field, Kind
from fleetui.common.domain.filters.tree import ORDERING, Comparison, Op, Value
from fleetui.common.domain.values import version_key

VersionKey = tuple[tuple[int, int | str], ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A folded text with wildcards between its parts."""

    parts: tuple[str, ...]

    @classmethod
    def whole(cls, value: Value) -> Pattern:
        """Matches texts that are like ``value`` from end to end."""
        return cls(tuple(part.casefold() for part in value.parts))

    @classmethod
    def inside(cls, value: Value) -> Pattern:
        """Matches texts that hold something like ``value``."""
        parts = ["", *(part.casefold() for part in value.parts), ""]
        inner = [part for part in parts[1:-1] if part]
        return cls(("", *inner, ""))

    def matches(self, folded: str) -> bool:
        """The plain meaning, one text at a time; ``texts.py`` does the same for many at once."""
        if len(self.parts) == 1:
            return folded == self.parts[0]
        first, *middle, last = self.parts
        if len(folded) < len(first) + len(last) or not (folded.startswith(first) and folded.endswith(last)):
            return False
        at, end = len(first), len(folded) - len(last)
        for part in middle:
            found = folded.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True


def patterns(comparison: Comparison) -> tuple[Pattern, ...]:
    """What a textual field is held against, one for each value."""
    made = []
    for value in comparison.values:
        if not value.wild and not value.text:
            raise failure(
                "An empty value matches nothing",
                f"Write missing:{comparison.field} to find what has none",
                value.start,
                value.end,
            )
        made.append(Pattern.inside(value) if comparison.op is Op.CONTAINS else Pattern.whole(value))
    return tuple(made)


def number(field: Field, value: Value) -> float:
    """The value in the field's unit; ages are in seconds."""
    unit = Unit.SECONDS if field.kind is Kind.AGE else field.unit
    try:
        return ages.parse(value.text, unit)
    except ValueError as error:
        raise failure(
            f"'{value.text}' does not fit {field.name}: {error}",
            f"Write it like {ages.example(unit)}",
            value.start,
            value.end,
        ) from None


def choice(field: Field, value: Value) -> str:
    """The choice of that name, whatever its case."""
    folded = value.text.casefold()
    for known in field.choices:
        if known.casefold() == folded:
            return known
    raise failure(
        f"'{field.name}' is never '{value.text}'",
        did_you_mean(value.text, field.choices, f"It is one of {', '.join(field.choices)}"),
        value.start,
        value.end,
    )


def version(value: Value) -> VersionKey:
    if not any(c.isalnum() for c in value.text):
        raise failure(f"'{value.text}' is not a version", "Write it like 1.4 or 2026-11-01", value.start, value.end)
    return version_key(value.text)


def compares_by_key(field: Field, comparison: Comparison) -> bool:
    """Whether versions are compared by their order rather than by their letters."""
    if comparison.op in ORDERING:
        return field.kind in {Kind.VERSION, Kind.TAG}
    return (
        field.kind is Kind.VERSION
        and comparison.op is not Op.CONTAINS
        and not any(value.wild for value in comparison.values)
    )
