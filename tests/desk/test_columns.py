"""The device table and its views, held against a naive reading of the same rows."""

from __future__ import annotations

import math
from functools import cmp_to_key
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetui.common.domain.clock import ManualClock
from fleetui.common.domain.filters import parse
from fleetui.common.domain.values import version_key
from fleetui.desk.app.coded import SWEEP_ABOVE, TextColumn, natural_key
from fleetui.desk.app.columns import (
    FIGURES,
    LIFECYCLE_ORDER,
    MOMENTS,
    STATUS_ORDER,
    TEXTS,
    VERSIONS,
    ZERO_IS_UNKNOWN,
    DeviceTable,
)
from fleetui.desk.app.order import DeviceView
from fleetui.desk.app.rowsets import among, distinct, union
from fleetui.store.records import Changes, DeviceRow
from tests.helpers.desk import device_rows, same

NOW = 4000.0
SORTS = (
    "device", "name", "site", "status", "version", "cpu", "temperature", "last_seen", "memory_bytes", "tag.line",
    "reasons", "lost", "lifecycle",
)  # fmt: skip
FILTERS = ("", "status:offline", "site:berlin", "cpu>50%", "version<1.10", "seen<30m", "tag.line:2", "press",
           "missing:temp", "not status:online and lost>0")  # fmt: skip


def naive_key(row: DeviceRow, column: str) -> Any:
    """What ``column`` sorts by, or None where it says nothing."""
    if column.startswith("tag."):
        value = row.tags.get(column[4:], "")
        return version_key(value) if value else None
    value = getattr(row, column)
    if column == "reasons":
        return len(value) or None
    if isinstance(value, str):
        if not value:
            return None
        orders = {"status": STATUS_ORDER, "lifecycle": LIFECYCLE_ORDER}
        if column in orders and value in orders[column]:
            return (orders[column].index(value), "")
        if column in VERSIONS:
            return version_key(value)
        return (99, natural_key(value)) if column in orders else natural_key(value)
    if math.isnan(value) or (value == 0 and column in ZERO_IS_UNKNOWN):
        return None
    return -value if column in MOMENTS else value


def naive_order(rows: dict[str, DeviceRow], column: str, *, descending: bool) -> list[str]:
    def compare(one: DeviceRow, other: DeviceRow) -> int:
        a, b = naive_key(one, column), naive_key(other, column)
        if a is None or b is None:
            if (a is None) != (b is None):
                return 1 if a is None else -1
        elif a != b:
            return (1 if a > b else -1) * (-1 if descending else 1)
        x, y = natural_key(one.device), natural_key(other.device)
        return (x > y) - (x < y)

    return [row.device for row in sorted(rows.values(), key=cmp_to_key(compare))]


batches = st.lists(
    st.tuples(
        st.lists(device_rows, max_size=8), st.lists(st.sampled_from([f"edge-{n}" for n in range(14)]), max_size=3)
    ),
    min_size=1,
    max_size=5,
)


def play(table: DeviceTable, batches_: list[tuple[list[DeviceRow], list[str]]]) -> dict[str, DeviceRow]:
    known: dict[str, DeviceRow] = {}
    for rows, removed in batches_:
        table.apply(Changes(1, tuple(rows), tuple(removed)))
        for device in removed:
            known.pop(device, None)
        known.update({row.device: row for row in rows})
    return known


@given(batches_=batches)
def test_the_table_holds_what_was_applied_last(batches_: list[tuple[list[DeviceRow], list[str]]]) -> None:
    table = DeviceTable()
    known = play(table, batches_)
    assert len(table) == len(known)
    assert {table.device(int(row)) for row in np.flatnonzero(table.alive[: table.size])} == set(known)
    for device, row in known.items():
        assert same(table.get(device), row), device


@settings(max_examples=100)
@given(batches_=batches, sort=st.sampled_from(SORTS), descending=st.booleans())
def test_sorting_is_that_of_people_and_stable(
    batches_: list[tuple[list[DeviceRow], list[str]]], sort: str, descending: bool
) -> None:
    table = DeviceTable()
    known = play(table, batches_)
    view = DeviceView(table, ManualClock(NOW), sort, descending=descending)
    assert table.devices(view.order) == naive_order(known, sort, descending=descending)


@given(batches_=batches, text=st.sampled_from(FILTERS))
def test_a_filter_shows_what_it_shows_of_each_row_alone(
    batches_: list[tuple[list[DeviceRow], list[str]]], text: str
) -> None:
    table = DeviceTable()
    known = play(table, batches_)
    wanted = parse(text)
    view = DeviceView(table, ManualClock(NOW))
    view.set_filter(wanted)
    alone = set()
    for device, row in known.items():
        single = DeviceTable()
        single.apply(Changes(1, (row,)))
        if wanted.mask(single.columns, single.size, NOW)[0]:
            alone.add(device)
    assert set(table.devices(view.order)) == alone


@settings(max_examples=70)
@given(batches_=batches, sort=st.sampled_from(SORTS), text=st.sampled_from(FILTERS), descending=st.booleans())
def test_following_changes_ends_where_building_anew_does(
    batches_: list[tuple[list[DeviceRow], list[str]]], sort: str, text: str, descending: bool
) -> None:
    table = DeviceTable()
    view = DeviceView(table, ManualClock(NOW), sort, descending=descending)
    view.set_filter(parse(text))
    for rows, removed in batches_:
        before = table.devices(view.order)
        stale_before = view.stale
        view.take(table.apply(Changes(1, tuple(rows), tuple(removed))))
        # Nothing moved: those that are left stand as they stood, and the removed have gone.
        gone = set(removed)
        now_gone = {d for d in before if d not in table} | (gone & set(before))
        assert table.devices(view.order) == [d for d in before if d not in now_gone]
        anew = DeviceView(table, ManualClock(NOW), sort, descending=descending)
        anew.set_filter(parse(text))
        if not view.stale:
            # What was not stale before and is not now must be what building anew gives.
            assert not stale_before
            assert table.devices(view.order) == table.devices(anew.order)
    view.refresh()
    assert table.devices(view.order) == table.devices(anew.order)
    assert not view.stale
    positions = view.positions()
    assert [int(positions[row]) for row in view.order] == list(range(len(view)))


def test_what_changed_is_told_by_column() -> None:
    table = DeviceTable()
    first = table.apply(Changes(1, (DeviceRow("a", cpu=0.5, site="x"), DeviceRow("b", cpu=0.5))))
    assert len(first.added) == 2
    again = table.apply(Changes(2, (DeviceRow("a", cpu=0.5, site="x"), DeviceRow("b", cpu=0.7, seq=2))))
    assert set(again.columns) == {"cpu", "seq"}
    assert again.columns["cpu"].tolist() == [table.row_of("b")]
    assert again.rows.tolist() == [table.row_of("b")]
    assert not table.apply(Changes(3, (DeviceRow("a", cpu=0.5, site="x"),)))


def test_nan_to_nan_is_no_change() -> None:
    table = DeviceTable()
    table.apply(Changes(1, (DeviceRow("a"),)))
    assert not table.apply(Changes(2, (DeviceRow("a"),)))


def test_a_row_keeps_its_number_and_a_freed_one_waits_a_turn() -> None:
    table = DeviceTable()
    table.apply(Changes(1, tuple(DeviceRow(d) for d in "abc")))
    kept, freed = table.row_of("c"), table.row_of("b")
    applied = table.apply(Changes(2, (DeviceRow("d"),), ("b",)))
    assert applied.removed.tolist() == [freed]
    assert table.row_of("d") not in {freed, kept}
    assert table.row_of("c") == kept
    table.apply(Changes(3, (DeviceRow("e"),)))
    assert table.row_of("e") == freed
    assert table.get("e") is not None
    assert table.text("device", freed) == "e"


def test_observers_hear_and_can_stop() -> None:
    table = DeviceTable()
    heard: list[int] = []
    stop = table.observe(lambda applied: heard.append(len(applied.added)))
    table.apply(Changes(1, (DeviceRow("a"),)))
    table.apply(Changes(2, (DeviceRow("a"),)))
    stop()
    table.apply(Changes(3, (DeviceRow("b"),)))
    assert heard == [1]


def test_words_count_living_devices_most_frequent_first() -> None:
    table = DeviceTable()
    table.apply(Changes(1, tuple(DeviceRow(f"d{n}", site="b" if n < 3 else "a") for n in range(5))))
    table.apply(Changes(2, (), ("d3",)))
    assert table.words("site") == [("b", 3), ("a", 1)]


def test_tags_become_columns_and_follow() -> None:
    table = DeviceTable()
    table.apply(Changes(1, (DeviceRow("a", tags={"line": "2"}), DeviceRow("b", tags={"line": "10"}))))
    view = DeviceView(table, ManualClock(NOW), "tag.line")
    assert table.devices(view.order) == ["a", "b"]
    table.apply(Changes(2, (DeviceRow("a", tags={"line": "11", "hall": "x"}),)))
    view.rebuild()
    assert table.devices(view.order) == ["b", "a"]
    assert table.tag_keys() == ["hall", "line"]
    assert table.text("tag.hall", table.row_of("a")) == "x"
    assert table.text("tag.none", table.row_of("a")) == ""


def test_texts_that_nobody_has_are_swept() -> None:
    table = DeviceTable()
    for n in range(3 * SWEEP_ABOVE):
        table.apply(Changes(n, (DeviceRow("a", last_error=f"error {n}"), DeviceRow("b", last_error="stays"))))
    column = table.text_column("last_error")
    assert len(column.texts) <= 2 * table.size + SWEEP_ABOVE + 1
    assert table.text("last_error", table.row_of("a")) == f"error {3 * SWEEP_ABOVE - 1}"
    assert table.text("last_error", table.row_of("b")) == "stays"
    view = DeviceView(table, ManualClock(NOW))
    view.set_filter(parse("error.text:stays"))
    assert table.devices(view.order) == ["b"]


@given(st.lists(st.text(max_size=4), max_size=30), st.lists(st.text(max_size=4), max_size=30))
def test_ranks_order_as_their_keys_whenever_texts_come(first: list[str], second: list[str]) -> None:
    column = TextColumn()
    column.grow(len(first) + len(second) + 1)
    column.codes[: len(first)] = column.encode(first)
    column.rank()
    column.codes[len(first) : len(first) + len(second)] = column.encode(second)
    texts = first + second
    ranks = column.rank()[: len(texts)]
    for text, rank in zip(texts, ranks.tolist(), strict=True):
        assert math.isnan(rank) == (text == "")
    present = [(rank, text) for text, rank in zip(texts, ranks.tolist(), strict=True) if text]
    keys = [natural_key(text) for _, text in sorted(present)]
    assert keys == sorted(keys)


def test_a_filter_on_ages_moves_rows_with_time_alone() -> None:
    clock = ManualClock(NOW)
    table = DeviceTable()
    table.apply(Changes(1, (DeviceRow("a", last_seen=NOW - 10), DeviceRow("b", last_seen=NOW - 50))))
    view = DeviceView(table, clock)
    view.set_filter(parse("seen<1m"))
    assert len(view) == 2
    clock.advance(20)
    assert view.refresh()
    assert table.devices(view.order) == ["a"]


def test_changes_to_columns_nobody_asked_about_leave_the_order_fresh() -> None:
    table = DeviceTable()
    view = DeviceView(table, ManualClock(NOW), "cpu")
    view.take(table.apply(Changes(1, tuple(DeviceRow(f"d{n}", cpu=n / 10, rows=n) for n in range(9)))))
    view.refresh()
    view.set_filter(parse("site:berlin or cpu>10%"))
    view.take(table.apply(Changes(2, (DeviceRow("d3", cpu=0.3, rows=99),))))
    assert not view.stale
    view.take(table.apply(Changes(3, (DeviceRow("d3", cpu=0.9, rows=99),))))
    assert view.stale.order
    assert not view.stale.members
    view.take(table.apply(Changes(4, (DeviceRow("d3", cpu=0.05, rows=99),))))
    assert view.stale.members


def test_every_field_of_a_row_is_a_column() -> None:
    assert set(DeviceRow.__slots__) == set(TEXTS) | set(FIGURES) | {"tags", "models", "reasons"}


@pytest.mark.parametrize("name", ["nothing", "tags."])
def test_columns_that_are_none(name: str) -> None:
    with pytest.raises(KeyError):
        DeviceTable().column(name)


rows_strategy = st.lists(st.integers(0, 40), max_size=30).map(lambda found: np.asarray(found, dtype=np.int64))


@given(parts=st.lists(rows_strategy, min_size=1, max_size=4), others=rows_strategy)
def test_sets_of_rows_are_those_of_python(parts: list[Any], others: Any) -> None:
    assert union(parts).tolist() == sorted({row for part in parts for row in part.tolist()})
    assert among(parts[0], others).tolist() == [row in set(others.tolist()) for row in parts[0].tolist()]
    different, which = distinct(parts[0])
    assert different.tolist() == sorted(set(parts[0].tolist()))
    assert different[which].tolist() == parts[0].tolist()
