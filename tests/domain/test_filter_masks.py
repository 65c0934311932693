"""Tree to mask: the evaluator against a second, naive reading of the language; texts in bulk; the named rules."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.domain.ages import Unit
from fleetui.common.domain.errors import BugError
from fleetui.common.domain.filters import (
    DEVICE_RULES,
    DEVICES,
    Catalogue,
    Coded,
    Field,
    FilterError,
    Kind,
    device_rule,
    parse,
)
from fleetui.common.domain.filters.operands import Pattern
from fleetui.common.domain.filters.render import render
from fleetui.common.domain.filters.texts import Vocabulary
from fleetui.common.domain.filters.tree import Node, Not, Value
from fleetui.store.records import DeviceRow
from tests.helpers.domain import NOW, Row, columns_of, examples, nodes, tables, texts, truth, values


@examples(400)
@given(nodes, tables(), st.booleans(), st.integers(0, 2))
def test_the_mask_is_what_a_row_by_row_reading_says(node: Node, rows: list[Row], coded: bool, spare: int) -> None:
    columns = columns_of(rows, coded=coded, spare=spare)
    mask = parse(render(node)).mask(columns, len(rows), NOW)
    assert mask.dtype == np.bool_
    assert mask.tolist() == [truth(node, row) for row in rows]


@examples(100)
@given(nodes, tables())
def test_a_filter_and_its_not_share_all_rows_between_them(node: Node, rows: list[Row]) -> None:
    columns = columns_of(rows, coded=True)
    taken = parse(render(node)).mask(columns, len(rows), NOW)
    left = parse(render(Not(node))).mask(columns, len(rows), NOW)
    assert (taken ^ left).all()


# ---------------------------------------------------------------- texts in bulk


def patterns() -> st.SearchStrategy[Pattern]:
    return st.one_of(values().map(Pattern.whole), values().map(Pattern.inside))


@examples(300)
@given(st.lists(st.one_of(texts, st.none()), max_size=12), patterns())
def test_many_texts_at_once_match_as_one_by_one(few: list[str | None], pattern: Pattern) -> None:
    plain = [bool(t) and pattern.matches(t.casefold()) for t in few]
    assert Vocabulary(few).matches(pattern).tolist() == plain
    # The way for many different texts, which a handful would not take by itself.
    if few and not any(mark in part for part in pattern.parts for mark in "\0\uffff"):
        assert Vocabulary(few)._scan(pattern).tolist() == plain
    many = [f"row {i}" for i in range(600)] + few
    assert Vocabulary(many).matches(pattern).tolist()[600:] == plain


def test_pattern_parts_stand_in_order_and_do_not_overlap() -> None:
    pattern = Pattern.whole(Value(("a", "ab", "b")))
    wanted = {"aabb": True, "aab": False, "ab": False, "a-ab-b": True, "abba": False, "aabab": True}
    for prefix in ([], [f"row {i}" for i in range(600)]):
        mask = Vocabulary([*prefix, *wanted]).matches(pattern)
        assert mask.tolist()[len(prefix) :] == list(wanted.values())


def test_coded_texts_may_grow_and_move_between_two_looks() -> None:
    categories = ["berlin", "paris"]
    column = Coded(np.array([0, 1, -1, 1], dtype=np.int32), categories)
    found = parse("site:(paris,rome)")
    assert found.mask({"site": column}, 4, NOW).tolist() == [False, True, False, True]
    categories.append("Rome")
    column.codes[0] = 2
    assert found.mask({"site": column}, 4, NOW).tolist() == [True, True, False, True]
    assert found.mask({"site": column}, 2, NOW).tolist() == [True, True]
    assert (~parse("has:site").mask({"site": column}, 4, NOW)).tolist() == [False, False, True, False]
    other = column.with_codes(np.array([1], dtype=np.int32))
    assert found.mask({"site": other}, 1, NOW).tolist() == [True]


def test_plain_string_arrays_and_tags_as_columns_serve_too() -> None:
    columns = {
        "site": np.array(["Berlin", "Paris"]),
        "tag.line": np.array(["3", "10"], dtype=object),
        "tags": np.array([{"line": "x", "row": "7"}, None], dtype=object),
    }
    assert parse("site:b*").mask(columns, 2, NOW).tolist() == [True, False]
    assert parse("tag.line>=4").mask(columns, 2, NOW).tolist() == [False, True]
    assert parse("tag.row:7").mask(columns, 2, NOW).tolist() == [True, False]
    assert parse("tag.none:7").mask({}, 2, NOW).tolist() == [False, False]


# ---------------------------------------------------------------- single meanings


def one(text: str, **cells: object) -> bool:
    row: Row = {f.column: "" if f.textual else float("nan") for f in DEVICES.fields} | {"tags": {}} | cells
    (result,) = parse(text).mask(columns_of([row], coded=False), 1, NOW)
    return bool(result)


@pytest.mark.parametrize(
    ("text", "cells", "taken"),
    [
        ("site:BERLIN", {"site": "Berlin"}, True),
        ("site:ber", {"site": "Berlin"}, False),
        ("site~ber", {"site": "Berlin"}, True),
        ("site:strasse", {"site": "STRAßE"}, True),
        ("site=ber*", {"site": "Berlin"}, False),
        ("site=ber*", {"site": "ber*"}, True),
        ("site!=berlin", {"site": ""}, True),
        ("site!=(berlin,paris)", {"site": "paris"}, False),
        ("not site:berlin", {"site": ""}, True),
        ("missing:site", {"site": ""}, True),
        ("memory>80%", {"memory": 0.81}, True),
        ("memory>80", {"memory": 0.81}, True),
        ("memory>0.8", {"memory": 0.81}, True),
        ("memory<0.8", {"memory": 0.5}, False),
        ("memory:81%", {"memory": 0.81}, True),
        ("memory:81%", {"memory": 0.8101}, False),
        ("errors=0", {"errors_per_s": 0.001}, False),
        ("memory:33.3%", {"memory": 0.333}, True),
        ("temp>60", {}, False),
        ("not temp>60", {}, True),
        ("not temp>60 has:temp", {}, False),
        ("temp<140f", {"temperature": 59.0}, True),
        ("temp<140f", {"temperature": 61.0}, False),
        ("latency.p99>1.5s", {"latency_p99": 1600.0}, True),
        ("ram>=4GB", {"memory_bytes": 4e9}, True),
        ("ram>=4GiB", {"memory_bytes": 4e9}, False),
        ("ram<1GB", {"memory_bytes": 0.0}, False),
        ("errors>1/min", {"errors_per_s": 0.02}, True),
        ("clock>2s", {"clock_offset": -3.0}, True),
        ("clock>2s", {"clock_offset": 1.0}, False),
        ("seen<5m", {"last_seen": NOW - 299}, True),
        ("seen<5m", {"last_seen": NOW - 301}, False),
        ("seen<5m", {"last_seen": NOW + 50}, True),
        ("seen>=0", {"last_seen": NOW + 50}, True),
        ("seen>5m", {"last_seen": 0.0}, False),
        ("missing:seen", {"last_seen": 0.0}, True),
        ("uptime>1d", {"booted": NOW - 90000}, True),
        ("model.version<1.10", {"version": "1.9"}, True),
        ("model.version:1.0", {"version": "1.0.0"}, True),
        ("model.version:1.0*", {"version": "1.0.0"}, True),
        ("model.version<1.0", {"version": "1.0-rc1"}, True),
        ("model.version<9", {"version": ""}, False),
        ("firmware~rc", {"firmware": "2.0-RC1"}, True),
        ("tag.line:3", {"tags": {"line": "3"}}, True),
        ("tag.line<10", {"tags": {"line": "9"}}, True),
        ("tag.Line:3", {"tags": {"line": "3"}}, False),
        ("missing:tag.line", {"tags": {}}, True),
        ("has:(temp,cpu)", {"cpu": 0.1}, True),
        ("missing:(temp,cpu)", {"cpu": 0.1}, True),
        ("edge-1", {"device": "my-EDGE-12"}, True),
        ("edge-1*", {"device": "my-edge-12"}, False),
        ("edge-1*", {"name": "edge-12"}, True),
        ("*", {}, False),
        ("boots:2", {"boots": 2.0}, True),
        ("status:online", {"status": "online"}, True),
        ("error.text~memory", {"last_error": "Out of Memory"}, True),
    ],
)
def test_means(text: str, cells: dict[str, object], taken: bool) -> None:
    assert one(text, **cells) is taken


def test_other_lists_bring_their_own_fields() -> None:
    alerts = Catalogue(
        "alerts",
        (
            Field(
                "severity",
                "Severity",
                Kind.ENUM,
                "level",
                "How bad.",
                choices=("info", "warning", "critical"),
                ordered=True,
            ),
            Field("impact", "Impact", Kind.NUMBER, "impact", "How much.", unit=Unit.SHARE),
        ),
    )
    columns = {
        "level": np.array(["info", "critical", "warning", ""], dtype=object),
        "impact": np.array([0.1, 0.9, 0.5, 0.2]),
    }
    assert parse("severity>=warning", alerts).mask(columns, 4, NOW).tolist() == [False, True, True, False]
    assert parse("severity<warning", alerts).mask(columns, 4, NOW).tolist() == [True, False, False, False]
    assert parse("impact>40% severity>info", alerts).mask(columns, 4, NOW).tolist() == [False, True, True, False]
    for text in ("word", "tag.x:1", "site:berlin"):
        with pytest.raises(FilterError):
            parse(text, alerts)
    with pytest.raises(ValueError, match="two fields"):
        Catalogue("x", (alerts.fields[0], dataclasses.replace(alerts.fields[1], aliases=("Severity",))))
    with pytest.raises(ValueError, match="not a text"):
        Catalogue("x", alerts.fields, search=("impact",))


def test_a_table_without_the_column_is_our_own_mistake() -> None:
    with pytest.raises(BugError, match="temperature"):
        parse("temp>60").mask({}, 3, NOW)


# ---------------------------------------------------------------- catalogue and rules


def test_every_field_of_devices_reads_a_column_of_the_device_row() -> None:
    known = {f.name: f.type for f in dataclasses.fields(DeviceRow)}
    for field in DEVICES.fields:
        assert field.column in known, field.name
        assert (known[field.column] == "str") == field.textual, field.name
    assert DEVICES.tags in known
    assert all(f.help and f.label and f.examples for f in DEVICES.fields)


def test_examples_in_the_catalogue_are_good_filters() -> None:
    for field in DEVICES.fields:
        for text in field.examples:
            assert field.name in parse(text).fields


def test_fields_that_people_ask_for_are_there() -> None:
    asked = (
        "id name site target firmware agent status lifecycle seen since model model.version handle variant cpu "
        "memory disk temp clock rate errors error.text latency.p50 latency.p99 health lost dropped queued boots "
        "uptime cores ram"
    )
    assert set(asked.split()) <= {f.name for f in DEVICES.fields}


def test_rules_count_what_they_say() -> None:
    base = {f.column: "" if f.textual else float("nan") for f in DEVICES.fields} | {"tags": {}}
    good = base | {
        "lifecycle": "accepted",
        "status": "online",
        "last_seen": NOW - 5,
        "model": "m",
        "errors_per_s": 0.0,
        "temperature": 50.0,
        "clock_offset": 0.1,
        "disk": 0.5,
        "memory": 0.5,
        "latency_p99": 5.0,
        "lost": 0.0,
        "dropped": 0.0,
        "rejected": 0.0,
        "queued": 0.0,
        "boots": 1.0,
        "booted": NOW - 86400,
    }
    changes: dict[str, dict[str, object]] = {
        "late": {"status": "late"},
        "offline": {"status": "offline"},
        "never-seen": {"last_seen": 0.0, "status": "unknown"},
        "errors": {"errors_per_s": 0.1},
        "slow": {"latency_p99": 101.0},
        "hot": {"temperature": 75.0},
        "low-memory": {"memory": 0.95},
        "low-disk": {"disk": 0.95},
        "clock-off": {"clock_offset": -6.0},
        "restarted": {"booted": NOW - 60, "boots": 2.0},
        "lost-reports": {"dropped": 1.0},
        "refused-reports": {"rejected": 1.0},
        "backlog": {"queued": 500.0},
        "no-model": {"model": ""},
        "pending": {"lifecycle": "pending"},
        "rejected": {"lifecycle": "rejected"},
        "gone": {"lifecycle": "decommissioned"},
    }
    assert {r.name for r in DEVICE_RULES} == {*changes, "all", "online"}
    for name, change in {"": {}, **changes}.items():
        columns = columns_of([good | change], coded=True)
        hit = {r.name for r in DEVICE_RULES if r.filter.mask(columns, 1, NOW)[0]}
        out = {"pending", "rejected", "gone"}
        still = set() if name in out else {"all"} if "status" in change else {"all", "online"}
        assert hit == still | {name} - {""}, name


def test_rules_can_be_shown_and_found() -> None:
    for rule in DEVICE_RULES:
        assert device_rule(rule.name) is rule
        assert rule.title
        assert rule.description.endswith(".")
        assert parse(rule.text) == rule.filter
        assert rule.filter.chips()
    with pytest.raises(KeyError):
        device_rule("nothing")
