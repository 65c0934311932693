"""A tree to a mask: which rows of a table, given as columns, the filter takes.

``compile_tree`` reads every value once and gives back a function of columns; the function does nothing but numpy
over whole columns (and text matching, in ``texts.py``). 50,000 rows take a few milliseconds.

Columns are a mapping from the names in the catalogue to arrays of at least ``n`` rows: numbers as numeric
arrays, texts as :class:`Coded`, or as object or string arrays (slower), tags as an object array of mappings under
the catalogue's ``tags`` name, or as a column each under ``tag.<key>``.

Missing values: NaN, an empty text, a tag that is not there, a moment of 0, and 0 where the field says so.
**A comparison with a missing value is false**, so its ``not`` is true: every filter and its ``not`` share all
rows between them. ``!=`` is the ``not`` of ``:`` and so takes rows without a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from fleetui.common.domain.errors import BugError
from fleetui.common.domain.filters import operands
from fleetui.common.domain.filters.errors import failure
from fleetui.common.domain.filters.fields import Catalogue, Field, Kind
from fleetui.common.domain.filters.operands import Pattern, VersionKey
from fleetui.common.domain.filters.texts import Coded, Mask, Vocabulary
from fleetui.common.domain.filters.tree import All, And, Comparison, Exists, Node, Not, Op, Or, Search
from fleetui.common.domain.values import version_key

Column = npt.NDArray[Any] | Coded
Columns = Mapping[str, Column]


@dataclass(frozen=True, slots=True)
class Rows:
    """The first ``n`` rows of a table, at fleet time ``now``."""

    columns: Columns
    n: int
    now: float


Predicate = Callable[[Rows], Mask]

# Two numbers count as equal when they differ by no more than rounding in the last places does.
EQUAL_WITHIN = 1e-9


def compile_tree(node: Node, catalogue: Catalogue) -> Predicate:
    """The tree as a function. Raises FilterError for a value that its field cannot have."""
    if isinstance(node, All):
        return lambda rows: np.ones(rows.n, dtype=np.bool_)
    if isinstance(node, Search):
        return _search(node, catalogue)
    if isinstance(node, Comparison):
        return _comparison(node, _field(catalogue, node.field))
    if isinstance(node, Exists):
        return _exists(node, tuple(_field(catalogue, name) for name in node.fields))
    if isinstance(node, Not):
        inner = compile_tree(node.item, catalogue)
        return lambda rows: ~inner(rows)
    return _joined(node, tuple(compile_tree(item, catalogue) for item in node.items))


def _field(catalogue: Catalogue, name: str) -> Field:
    field = catalogue.find(name)
    if field is None:
        raise BugError(f"the tree names {name!r}, which is no field of {catalogue.name}")
    return field


def _joined(node: And | Or, predicates: tuple[Predicate, ...]) -> Predicate:
    join = np.logical_and if isinstance(node, And) else np.logical_or
    settled = isinstance(node, Or)

    def predicate(rows: Rows) -> Mask:
        mask = predicates[0](rows)
        for other in predicates[1:]:
            # Nothing can change any more once no row (or every row) is taken.
            if mask.all() if settled else not mask.any():
                return mask
            mask = join(mask, other(rows))
        return mask

    return predicate


# ---------------------------------------------------------------- columns


def _column(field: Field, rows: Rows) -> Column:
    try:
        column = rows.columns[field.column]
    except KeyError:
        raise BugError(f"there is no column {field.column!r} for the field {field.name!r}") from None
    return column[: rows.n]


def _numbers(field: Field, rows: Rows) -> npt.NDArray[np.float64]:
    """The field's numbers, NaN where missing; ages in seconds."""
    column = _column(field, rows)
    if isinstance(column, Coded):
        raise BugError(f"the column {field.column!r} holds texts, the field {field.name!r} wants numbers")
    values = np.asarray(column, dtype=np.float64)
    if field.kind is Kind.AGE:
        # A moment in the future is a clock's error, not a negative age.
        return np.where(values == 0, np.nan, np.maximum(rows.now - values, 0.0))
    if field.zero_is_missing:
        values = np.where(values == 0, np.nan, values)
    return np.abs(values) if field.absolute else values


def _texts(field: Field, rows: Rows) -> Coded | Vocabulary:
    if field.kind is Kind.TAG:
        named = rows.columns.get(field.name)
        if named is None:
            every = rows.columns.get(field.column)
            if every is None:
                return Vocabulary([""] * rows.n)
            return Vocabulary([tags.get(field.key, "") if tags else "" for tags in cast("Any", every[: rows.n])])
        column = named[: rows.n]
    else:
        column = _column(field, rows)
    return column if isinstance(column, Coded) else Vocabulary(column.tolist())


def _on_texts(field: Field, judge: Callable[[Vocabulary], Mask]) -> Predicate:
    """``judge`` on the different texts where they are known, on all of them where not."""

    def predicate(rows: Rows) -> Mask:
        texts = _texts(field, rows)
        if isinstance(texts, Coded):
            return texts.spread(judge(texts.vocabulary()), rows.n)
        return judge(texts)

    return predicate


# ---------------------------------------------------------------- leaves


def _search(node: Search, catalogue: Catalogue) -> Predicate:
    value = node.value
    if not catalogue.search:
        raise failure(
            f"'{value.text}' needs a field before it", "Write it like field:value", value.start, value.end
        )
    if not value.wild and not value.text:
        raise failure("There is nothing to look for", "Write a word between the quotes", value.start, value.end)
    pattern = Pattern.whole(value) if value.wild else Pattern.inside(value)
    inner = [_on_texts(field, lambda v: v.matches(pattern)) for field in catalogue.search_fields]

    def predicate(rows: Rows) -> Mask:
        mask = np.zeros(rows.n, dtype=np.bool_)
        for one in inner:
            mask |= one(rows)
        return mask

    return predicate


def _exists(node: Exists, fields: tuple[Field, ...]) -> Predicate:
    present = tuple(_on_texts(field, Vocabulary.present) if field.textual else _known(field) for field in fields)

    def predicate(rows: Rows) -> Mask:
        mask = np.zeros(rows.n, dtype=np.bool_)
        for one in present:
            found = one(rows)
            mask |= found if node.present else ~found
        return mask

    return predicate


def _known(field: Field) -> Predicate:
    return lambda rows: ~np.isnan(_numbers(field, rows))


def _comparison(node: Comparison, field: Field) -> Predicate:
    if field.kind in {Kind.NUMBER, Kind.AGE}:
        found = _number_comparison(node, field)
    elif field.kind is Kind.ENUM:
        found = _choice_comparison(node, field)
    elif operands.compares_by_key(field, node):
        found = _version_comparison(node, field)
    else:
        made = operands.patterns(node)
        found = _on_texts(field, lambda v: _any_of(tuple(v.matches(pattern) for pattern in made)))
    if node.op is Op.NOT:
        return lambda rows: ~found(rows)
    return found


def _any_of(masks: tuple[Mask, ...]) -> Mask:
    mask = masks[0]
    for other in masks[1:]:
        mask = mask | other
    return mask


def _number_comparison(node: Comparison, field: Field) -> Predicate:
    wanted = tuple(operands.number(field, value) for value in node.values)
    op = node.op

    def predicate(rows: Rows) -> Mask:
        values = _numbers(field, rows)
        if op is Op.LESS:
            return values < wanted[0]
        if op is Op.AT_MOST:
            return values <= wanted[0]
        if op is Op.MORE:
            return values > wanted[0]
        if op is Op.AT_LEAST:
            return values >= wanted[0]
        # An infinite column value must not make inf - inf; NaN compares false by itself.
        with np.errstate(invalid="ignore"):
            return _any_of(tuple(np.abs(values - one) <= EQUAL_WITHIN * max(1.0, abs(one)) for one in wanted))

    return predicate


def _choice_comparison(node: Comparison, field: Field) -> Predicate:
    wanted = tuple(operands.choice(field, value) for value in node.values)
    if node.op in {Op.IS, Op.EQUAL, Op.NOT}:
        taken = frozenset(wanted)
    else:
        rank = {choice: i for i, choice in enumerate(field.choices)}
        taken = frozenset(c for c in field.choices if _ordered(node.op, rank[c], rank[wanted[0]]))
    return _on_texts(field, lambda v: v.holds(lambda text: text in taken))


def _version_comparison(node: Comparison, field: Field) -> Predicate:
    wanted = tuple(operands.version(value) for value in node.values)
    op = Op.EQUAL if node.op in {Op.IS, Op.NOT} else node.op

    def judge(text: str) -> bool:
        key = version_key(text)
        return any(_ordered(op, key, one) for one in wanted)

    return _on_texts(field, lambda v: v.holds(judge))


def _ordered(op: Op, left: int | VersionKey, right: int | VersionKey) -> bool:
    if isinstance(left, int) or isinstance(right, int):
        assert isinstance(left, int)
        assert isinstance(right, int)
        return _ordered(op, ((left, ""),), ((right, ""),))
    if op is Op.LESS:
        return left < right
    if op is Op.AT_MOST:
        return left <= right
    if op is Op.MORE:
        return left > right
    if op is Op.AT_LEAST:
        return left >= right
    return left == right
