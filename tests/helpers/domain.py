"""Support for the domain's tests: trees of filters and tables of devices from hypothesis, and a second reading of
the filter language, one row at a time and as plainly as can be, to hold the fast one against."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from fleetui.common.domain import ages
from fleetui.common.domain.ages import Unit
from fleetui.common.domain.filters import DEVICES, Coded, Column, Field, Kind
from fleetui.common.domain.filters.tree import (
    All,
    And,
    Comparison,
    Exists,
    Node,
    Not,
    Op,
    Or,
    Search,
    Value,
    both,
    either,
)
from fleetui.common.domain.values import version_key

NOW = 1_800_000_000.0


def examples(count: int) -> Callable[[Any], Any]:
    """So many examples (times ``FLEETUI_EXAMPLES``), however slow the machine is today."""
    return settings(
        max_examples=count * int(os.environ.get("FLEETUI_EXAMPLES", "1")),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


# ---------------------------------------------------------------- trees

SPECIAL = ["and", "OR", "not", "has", "missing", "80 %", "%", "a\\b", 'say "x"', "a*b", "(", ",", "!", "!=", "\0"]
PLACES = ["Berlin", "berlin-2", "Paris", "STRASSE", "straße", "İzmir", "new york", "a", "ab", "aab"]
VERSIONS = ["1", "1.0", "1.9", "1.10", "2.0-rc1", "2.0", "v2.1", "2026-11-01", "3"]
SHARES = ["0%", "10", "50%", "80.5%", "100%", "-1%"]
FIGURES = ["0", "1", "-2", "3.5", "1e3"]

texts = st.one_of(
    st.sampled_from(PLACES + SPECIAL),
    st.text(alphabet='abAB -._*"\\()ßé\0\uffff,', max_size=6),
    st.text(max_size=5),
)
words = texts.filter(bool)


@st.composite
def values(draw: st.DrawFn, *, wild: bool = True) -> Value:
    """A value in normal form: no empty part between two wildcards, something in it."""
    if not wild or draw(st.booleans()):
        return Value((draw(words),))
    first, last = draw(texts), draw(texts)
    middle = draw(st.lists(words, max_size=2))
    return Value((first, *middle, last))


def _operand(draw: st.DrawFn, field: Field, op: Op) -> Value:
    if field.kind is Kind.ENUM:
        return Value.of(draw(st.sampled_from(field.choices)))
    if field.kind is Kind.AGE:
        return Value.of(draw(st.sampled_from(["0", "30s", "5m", "1h30m", "2d"])))
    if field.kind is Kind.NUMBER:
        if field.unit is Unit.SECONDS:
            return Value.of(draw(st.sampled_from(["0", "500ms", "2s", "1m"])))
        if field.unit is Unit.SHARE:
            return Value.of(draw(st.sampled_from(SHARES)))
        counted = field.unit in {Unit.NONE, Unit.BYTES, Unit.PER_SECOND}
        return Value.of(draw(st.sampled_from([*FIGURES, "1k"] if counted else FIGURES)))
    versioned = field.kind in {Kind.VERSION, Kind.TAG}
    if versioned and (op in {Op.LESS, Op.AT_MOST, Op.MORE, Op.AT_LEAST} or draw(st.booleans())):
        return Value.of(draw(st.sampled_from(VERSIONS)))
    if field.kind is Kind.VERSION and op is not Op.CONTAINS:
        return Value(draw(st.sampled_from([("2.", ""), ("", "0"), ("1", "0")])) if op is not Op.EQUAL else ("2.0",))
    return draw(values(wild=op is not Op.EQUAL))


tag_keys = st.sampled_from(["line", "my key", "Line", "and", 'q"'])
fields = st.one_of(
    st.sampled_from(DEVICES.fields), tag_keys.map(lambda key: DEVICES.find(f"tag.{key}")).filter(bool)
)


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    field = draw(fields)
    op = draw(st.sampled_from(field.operators))
    ordering = op in {Op.LESS, Op.AT_MOST, Op.MORE, Op.AT_LEAST}
    count = 1 if ordering else draw(st.integers(1, 3))
    return Comparison(field.name, op, tuple(_operand(draw, field, op) for _ in range(count)))


leaves: st.SearchStrategy[Node] = st.one_of(
    comparisons(),
    st.builds(Exists, st.lists(fields.map(lambda f: f.name), min_size=1, max_size=3).map(tuple), st.booleans()),
    st.builds(Search, values()),
)
nodes: st.SearchStrategy[Node] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=2, max_size=4).map(both),
        st.lists(inner, min_size=2, max_size=4).map(either),
    ),
    max_leaves=8,
)
trees: st.SearchStrategy[Node] = st.one_of(st.just(All()), nodes)

# Text that looks like a filter more often than not.
_SOUP = [
    "site", "status", "memory", "seen", "model.version", "tag.line", "has", "missing", "id", "nonsense", "tag.",
    ":", "=", "!=", "<", "<=", ">", ">=", "~", "(", ")", ",", '"', "*", "\\", " ", " ", "and", "or", "not", "AND",
    "berlin", "online", "80%", "80 %", "5m", "1.0", "-1", "1e999", "nan", "inf", "%", "ber*", "!", "'", "\0", "é",
]  # fmt: skip
soups = st.lists(st.one_of(st.sampled_from(_SOUP), st.text(max_size=3)), max_size=14).map("".join)
any_text = st.one_of(soups, st.text(max_size=60), nodes.map(str).map(lambda t: t[:200]))

# ---------------------------------------------------------------- tables

_TEXT_COLUMNS = sorted({f.column for f in DEVICES.fields if f.textual})
_NUMBER_COLUMNS = sorted({f.column for f in DEVICES.fields if not f.textual})
_figures = st.one_of(
    st.sampled_from([0.0, 0.1, 0.5, 0.805, 1.0, 3.5, -2.0, 1000.0, math.nan, math.inf]),
    st.floats(allow_nan=True, allow_infinity=True, width=32),
)
_moments = st.one_of(
    st.sampled_from([0.0, NOW, NOW - 30, NOW - 300, NOW - 5400, NOW + 100, math.nan]), st.floats(1, 2 * NOW)
)
_MOMENTS = {f.column for f in DEVICES.fields if f.kind is Kind.AGE}
_cells = {
    "status": st.sampled_from(["unknown", "online", "late", "offline", ""]),
    "lifecycle": st.sampled_from(["pending", "accepted", "rejected", "decommissioned", ""]),
    "version": st.sampled_from(["", *VERSIONS]),
    "firmware": st.sampled_from(["", *VERSIONS]),
    "agent": st.sampled_from(["", *VERSIONS]),
}
Row = dict[str, Any]


@st.composite
def tables(draw: st.DrawFn, max_rows: int = 6) -> list[Row]:
    n = draw(st.integers(0, max_rows))
    rows: list[Row] = []
    for _ in range(n):
        row: Row = {name: draw(_cells.get(name, texts)) for name in _TEXT_COLUMNS}
        row |= {name: draw(_moments if name in _MOMENTS else _figures) for name in _NUMBER_COLUMNS}
        row["tags"] = draw(st.dictionaries(tag_keys, texts, max_size=3))
        rows.append(row)
    return rows


def columns_of(rows: Sequence[Row], *, coded: bool, spare: int = 0) -> dict[str, Column]:
    """The rows as columns, ``spare`` rows of anything behind them."""
    n = len(rows)
    made: dict[str, Column] = {}
    for name in _NUMBER_COLUMNS:
        made[name] = np.array([row[name] for row in rows] + [1.0] * spare, dtype=np.float64)
    for name in _TEXT_COLUMNS:
        cells = [row[name] for row in rows] + ["spare"] * spare
        if coded:
            known = [text for text in dict.fromkeys(cells) if text]
            codes = [known.index(text) if text else -1 for text in cells]
            made[name] = Coded(np.array(codes, dtype=np.int32), known)
        else:
            column = np.empty(n + spare, dtype=object)
            column[:] = cells
            made[name] = column
    tags = np.empty(n + spare, dtype=object)
    for i in range(n + spare):
        tags[i] = rows[i]["tags"] if i < n else {}
    made["tags"] = tags
    return made


# ---------------------------------------------------------------- the second reading


def truth(node: Node, row: Mapping[str, Any], now: float = NOW) -> bool:
    """Whether the filter takes the row."""
    if isinstance(node, All):
        return True
    if isinstance(node, Not):
        return not truth(node.item, row, now)
    if isinstance(node, And):
        return all(truth(item, row, now) for item in node.items)
    if isinstance(node, Or):
        return any(truth(item, row, now) for item in node.items)
    if isinstance(node, Search):
        shape = _regex(node.value) if node.value.wild else f".*{_regex(node.value)}.*"
        return any(_like(shape, str(row[column])) for column in ("name", "device", "site"))
    if isinstance(node, Exists):
        return any((_read(_find(name), row, now) is not None) == node.present for name in node.fields)
    found = any(_holds(_find(node.field), node.op, value, node.values, row, now) for value in node.values)
    return not found if node.op is Op.NOT else found


def _find(name: str) -> Field:
    field = DEVICES.find(name)
    assert field is not None
    return field


def _read(field: Field, row: Mapping[str, Any], now: float) -> Any:
    """The value, None where missing."""
    if field.kind is Kind.TAG:
        return row["tags"].get(field.key) or None
    cell = row[field.column]
    if field.textual:
        return cell or None
    if math.isnan(cell):
        return None
    if field.kind is Kind.AGE:
        return None if cell == 0 else max(now - cell, 0.0)
    if field.zero_is_missing and cell == 0:
        return None
    return abs(cell) if field.absolute else cell


def _holds(field: Field, op: Op, value: Value, every: Sequence[Value], row: Mapping[str, Any], now: float) -> bool:
    have = _read(field, row, now)
    if have is None:
        return False
    if field.kind in {Kind.NUMBER, Kind.AGE}:
        want = ages.parse(value.text, Unit.SECONDS if field.kind is Kind.AGE else field.unit)
        if op in {Op.IS, Op.EQUAL, Op.NOT}:
            return bool(abs(have - want) <= 1e-9 * max(1.0, abs(want)))
        return _order(op, have, want)
    if field.kind is Kind.ENUM:
        return bool(have == value.text)
    if op in {Op.LESS, Op.AT_MOST, Op.MORE, Op.AT_LEAST}:
        return _order(op, version_key(have), version_key(value.text))
    if field.kind is Kind.VERSION and op is not Op.CONTAINS and not any(v.wild for v in every):
        return version_key(have) == version_key(value.text)
    return _like(f".*{_regex(value)}.*" if op is Op.CONTAINS else _regex(value), have)


def _order(op: Op, left: Any, right: Any) -> bool:
    if op is Op.LESS:
        return bool(left < right)
    if op is Op.AT_MOST:
        return bool(left < right or left == right)
    if op is Op.MORE:
        return bool(right < left)
    return bool(right < left or left == right)


def _regex(value: Value) -> str:
    return ".*".join(re.escape(part.casefold()) for part in value.parts)


def _like(shape: str, text: str) -> bool:
    return bool(text) and re.fullmatch(shape, text.casefold(), re.DOTALL) is not None
