"""What may come next: suggestions at a place in an unfinished filter.

Reads leniently and never raises on account of the text. Which values occur, the caller knows: it hands in a
function from a field to the texts seen (for tags: ``tag.`` gives the keys).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from fleetui.common.domain import ages
from fleetui.common.domain.ages import Unit
from fleetui.common.domain.errors import FilterError
from fleetui.common.domain.filters.fields import TAG_PREFIX, Catalogue, Field, Kind
from fleetui.common.domain.filters.lexer import T, Token, lex
from fleetui.common.domain.filters.parser import HAS, MISSING
from fleetui.common.domain.filters.render import quote
from fleetui.common.domain.filters.tree import Op

LIMIT = 50
_MEANING: dict[Op, str] = {
    Op.IS: "is (with * as a wildcard)",
    Op.EQUAL: "is exactly",
    Op.NOT: "is not",
    Op.CONTAINS: "contains",
    Op.LESS: "less than",
    Op.AT_MOST: "at most",
    Op.MORE: "more than",
    Op.AT_LEAST: "at least",
}
_AGE_EXAMPLES = ("5m", "1h", "1d", "7d")

Values = Callable[[str], Iterable[str]]


class Suggests(StrEnum):
    """What a suggestion is: for its icon."""

    FIELD = "field"
    OPERATOR = "operator"
    VALUE = "value"
    WORD = "word"  # and, or, not


@dataclass(frozen=True, slots=True)
class Suggestion:
    text: str  # what to put in the place
    label: str
    help: str
    kind: Suggests


@dataclass(frozen=True, slots=True)
class Completion:
    """``items`` may take the place of ``length`` characters from ``start`` on."""

    start: int
    length: int
    items: tuple[Suggestion, ...]

    def apply(self, text: str, item: Suggestion) -> tuple[str, int]:
        """The text with ``item`` put in, and where the cursor then stands."""
        done = text[: self.start] + item.text
        return done + text[self.start + self.length :], len(done)


def complete(text: str, cursor: int, catalogue: Catalogue, values: Values | None = None) -> Completion:
    """Suggestions for ``text`` with the cursor at ``cursor``.

    What stands behind the cursor plays no part, but the rest of a word under it is replaced.
    """
    cursor = min(max(cursor, 0), len(text))
    try:
        before = lex(text[:cursor], lenient=True)[:-1]
        after = lex(text, lenient=True)
    except FilterError:  # too long
        return Completion(cursor, 0, ())
    context, partial = _context(before, cursor)
    start = partial.start if partial else cursor
    end = next((t.end for t in after if t.start == start and t.end > cursor and _wordlike(t)), cursor)
    typed = partial.text if partial else ""
    items = _offers(context, partial, typed, catalogue, values or (lambda _field: ()))
    return Completion(start, end - start, tuple(itertools.islice(items, LIMIT)))


def _wordlike(token: Token) -> bool:
    return token.kind in {T.WORD, T.STRING, T.AND, T.OR, T.NOT}


@dataclass(frozen=True, slots=True)
class _Context:
    """Where the cursor is: in the value of ``field`` after ``op``, or (field empty) where a term may begin."""

    field: str = ""
    op: Op | None = None
    listed: frozenset[str] = frozenset()  # what the list holds already
    joins: bool = False  # a term stands before: and/or may come
    closes: bool = False  # the value of a list is complete: a comma may come


def _context(tokens: list[Token], cursor: int) -> tuple[_Context, Token | None]:
    partial: Token | None = None
    if tokens and _wordlike(tokens[-1]) and (tokens[-1].end == cursor) and _open(tokens[-1]):
        partial = tokens[-1]
        tokens = tokens[:-1]
    if len(tokens) >= 2 and tokens[-1].kind is T.OP and _wordlike(tokens[-2]):
        return _Context(tokens[-2].text, Op(tokens[-1].text)), partial
    opened = _open_list(tokens)
    if opened is not None:
        inside = tokens[opened + 1 :]
        if inside and _wordlike(inside[-1]) and inside[-1].kind is not T.OR:
            return _Context(closes=True), partial
        listed = frozenset(t.text.casefold() for t in inside if _wordlike(t))
        return _Context(tokens[opened - 2].text, Op(tokens[opened - 1].text), listed), partial
    joins = bool(tokens) and (tokens[-1].kind in {T.WORD, T.STRING, T.CLOSE})
    return _Context(joins=joins), partial


def _open(token: Token) -> bool:
    return token.kind is not T.STRING or not token.closed


def _open_list(tokens: list[Token]) -> int | None:
    """The index of the parenthesis of a list of values that the cursor is in."""
    for i in range(len(tokens) - 1, 1, -1):
        kind = tokens[i].kind
        if kind is T.OPEN:
            return i if tokens[i - 1].kind is T.OP and _wordlike(tokens[i - 2]) else None
        if kind not in {T.COMMA, T.OR} and not _wordlike(tokens[i]):
            return None
    return None


# ---------------------------------------------------------------- offers


def _offers(
    context: _Context, partial: Token | None, typed: str, catalogue: Catalogue, values: Values
) -> Iterator[Suggestion]:
    if context.closes:
        if not typed:
            yield Suggestion(",", ",", "one more value", Suggests.OPERATOR)
            yield Suggestion(")", ")", "end of the list", Suggests.OPERATOR)
    elif context.op is None:
        yield from _terms(context, partial, typed, catalogue, values)
    elif context.op is Op.IS and context.field.casefold() in {HAS, MISSING}:
        yield from _fields(typed, catalogue, values, end="", skip=context.listed)
    else:
        field = catalogue.find(context.field)
        if field is not None and field.allows(context.op):
            yield from _values(field, context, typed, values)


def _terms(
    context: _Context, partial: Token | None, typed: str, catalogue: Catalogue, values: Values
) -> Iterator[Suggestion]:
    exact = catalogue.find(typed) if partial and partial.kind is T.WORD else None
    # A key that no device has is a field all the same, but one that is being typed is likelier meant.
    unheard = exact is not None and exact.kind is Kind.TAG and exact.key not in values(TAG_PREFIX)
    folded = typed.casefold()
    if exact is not None and not unheard:
        yield from _operators(exact)
    elif folded in {HAS, MISSING}:
        yield Suggestion(f"{folded}:", f"{folded}:", _WORD_HELP[folded], Suggests.OPERATOR)
    words = ("and", "or", "not") if context.joins else ("not",)
    if not typed and context.joins:
        yield from (Suggestion(word, word, _WORD_HELP[word], Suggests.WORD) for word in words)
    yield from _fields(typed, catalogue, values, end=":", skip=frozenset())
    if exact is not None and unheard:
        yield from _operators(exact)
    if not typed:
        return
    for name in (HAS, MISSING):
        if name.startswith(folded) and name != folded:
            yield Suggestion(f"{name}:", name, _WORD_HELP[name], Suggests.FIELD)
    for word in words:
        if word.startswith(folded) and word != folded:
            yield Suggestion(word, word, _WORD_HELP[word], Suggests.WORD)


def _operators(field: Field) -> Iterator[Suggestion]:
    for op in field.operators:
        yield Suggestion(f"{quote((field.name,))}{op}", f"{field.name}{op}", _MEANING[op], Suggests.OPERATOR)


_WORD_HELP = {
    "and": "both must hold",
    "or": "one must hold",
    "not": "must not hold",
    HAS: "what is known of it",
    MISSING: "what is not known of it",
}


def _fields(
    typed: str, catalogue: Catalogue, values: Values, *, end: str, skip: frozenset[str]
) -> Iterator[Suggestion]:
    """Fields whose name or alias begins with what is typed, then those in whose name or label it occurs."""
    folded = typed.casefold()
    first, second = [], []
    for field in catalogue.fields:
        if field.name in skip or field.name == folded:
            continue
        names = (field.name, *field.aliases)
        if any(name.startswith(folded) for name in names):
            first.append(field)
        elif folded in field.name or folded in field.label.casefold():
            second.append(field)
    for field in (*first, *second):
        # A figure is rarely looked for by its exact value: leave the sign to the writer.
        sign = "" if field.kind in {Kind.NUMBER, Kind.AGE} else end
        yield Suggestion(f"{quote((field.name,))}{sign}", field.name, field.help, Suggests.FIELD)
    if catalogue.tags is not None and (not folded or TAG_PREFIX.startswith(folded[: len(TAG_PREFIX)])):
        for key in _matching(values(TAG_PREFIX), typed[len(TAG_PREFIX) :]):
            name = f"{TAG_PREFIX}{key}"
            if name != typed:
                yield Suggestion(f"{quote((name,))}{end}", name, "a tag", Suggests.FIELD)


def _values(field: Field, context: _Context, typed: str, values: Values) -> Iterator[Suggestion]:
    if field.kind is Kind.ENUM:
        offered: Iterable[str] = field.choices
    elif field.kind is Kind.AGE:
        offered = _AGE_EXAMPLES
    elif field.kind is Kind.NUMBER:
        offered = _units(field, typed)
    else:
        offered = _matching(values(field.name), typed)
    for value in offered if field.kind is Kind.NUMBER else _matching(offered, typed):
        if value.casefold() not in context.listed and value:
            yield Suggestion(quote((value,)), value, field.label, Suggests.VALUE)


_UNITS: dict[Unit, tuple[str, ...]] = {
    Unit.SHARE: ("%",),
    Unit.MILLISECONDS: ("ms", "s"),
    Unit.SECONDS: ("s", "m", "h"),
    Unit.BYTES: ("MB", "GB", "GiB"),
    Unit.PER_SECOND: ("/s", "/min"),
}


def _units(field: Field, typed: str) -> Iterator[str]:
    """A number that was begun, with each unit it may have; an example before that."""
    if not typed:
        for example in field.examples:
            yield example.lstrip(
                "abcdefghijklmnopqrstuvwxyz.0123456789" if "." in field.name else "abcdefghijklmnopqrstuvwxyz"
            ).lstrip(":<>=!~")
        return
    for unit in _UNITS.get(field.unit, ()):
        if typed[-1].isdigit():
            try:
                ages.parse(f"{typed}{unit}", field.unit)
            except ValueError:
                return
            yield f"{typed}{unit}"


def _matching(offered: Iterable[str], typed: str) -> Iterator[str]:
    """What begins with the typed text, then what holds it; in the order given."""
    folded = typed.strip("*").casefold()
    later = []
    for one in offered:
        if one.casefold().startswith(folded):
            yield one
        elif folded in one.casefold():
            later.append(one)
    yield from later
