"""What leaves the table: CSV and JSON of the shown rows and columns, text for the clipboard, saved views."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.domain.clock import ManualClock
from fleetui.common.domain.errors import ConfigError
from fleetui.common.domain.filters import parse
from fleetui.desk.app import export
from fleetui.desk.app.columns import DeviceTable
from fleetui.desk.app.export import Form
from fleetui.desk.app.order import DeviceView
from fleetui.desk.app.shown import COLUMNS, FIRST, cell_text, offered, shown_column, shown_columns
from fleetui.store.records import Changes, DeviceRow
from tests.helpers.desk import device_rows

NOW = 1_800_000_000.0


def table_of(*rows: DeviceRow) -> DeviceTable:
    table = DeviceTable()
    table.apply(Changes(1, rows))
    return table


ROW = DeviceRow(
    "edge-1", name="=1+1", site='São, "Paulo"', status="offline", last_seen=1000.5, cpu=0.25, rows=1234567,
    latency_p99=12.34, tags={"line": "3"}, clock_offset=-2.0, memory_bytes=4 << 30,
)  # fmt: skip


def test_values_leave_as_they_are() -> None:
    columns = shown_columns(["name", "seen", "cpu", "latency.p99", "temp", "tag.line", "ram"])
    taken = export.extract(table_of(ROW), columns, [0])
    assert taken.columns == ("id", "name", "seen", "cpu", "latency.p99", "temp", "tag.line", "ram")
    assert taken.rows == (("edge-1", "=1+1", "1970-01-01T00:16:40.500Z", 0.25, 12.34, None, "3", 4 << 30),)


def test_csv_reads_back_and_no_cell_is_a_formula() -> None:
    text = export.to_csv(export.extract(table_of(ROW), shown_columns(["id", "name", "site", "temp"]), [0]))
    rows = list(csv.reader(io.StringIO(text)))
    assert rows == [["id", "name", "site", "temp"], ["edge-1", "'=1+1", 'São, "Paulo"', ""]]


def test_json_reads_back() -> None:
    taken = export.extract(table_of(ROW), shown_columns(["id", "cpu", "temp"]), [0])
    assert json.loads(export.to_json(taken)) == [{"id": "edge-1", "cpu": 0.25, "temp": None}]


def test_the_filters_rows_in_their_order_whole(tmp_path: Path) -> None:
    table = table_of(*(DeviceRow(f"d{n}", cpu=n / 100, site="a" if n % 2 else "b") for n in range(50)))
    view = DeviceView(table, ManualClock(NOW), "cpu", descending=True)
    view.set_filter(parse("site:a"))
    path = tmp_path / "out.csv"
    assert export.write(export.extract(table, shown_columns(["id"]), view.order), path, Form.CSV) == 25
    ids = [row[0] for row in csv.reader(io.StringIO(path.read_text("utf-8")))][1:]
    assert ids == [f"d{n}" for n in range(49, 0, -2)]
    assert export.write(export.extract(table, shown_columns(["id"]), view.order), path, Form.JSON) == 25
    assert [row["id"] for row in json.loads(path.read_text())] == ids
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    taken = export.extract(table_of(ROW), shown_columns(["id"]), [0])
    with pytest.raises(ConfigError, match="cannot be written"):
        export.write(taken, tmp_path / "none" / "x.csv", Form.CSV)


def test_text_for_the_clipboard_is_what_is_seen() -> None:
    text = export.as_text(table_of(ROW), shown_columns(["id", "cpu", "seen"]), [0], 1000.5 + 120)
    assert text == "Device\tCPU\tLast seen\nedge-1\t25 %\t2 min"


@given(rows=st.lists(device_rows, min_size=1, max_size=5), form=st.sampled_from(Form))
def test_every_table_can_be_exported_in_every_column(rows: list[DeviceRow], form: Form) -> None:
    table = table_of(*{row.device: row for row in rows}.values())
    columns = offered(table)
    taken = export.extract(table, columns, range(len(table)))
    text = export.to_csv(taken) if form is Form.CSV else export.to_json(taken)
    if form is Form.JSON:
        assert [row["id"] for row in json.loads(text)] == [table.device(n) for n in range(len(table))]
    else:
        back = list(csv.DictReader(io.StringIO(text)))
        assert [row["id"] for row in back] == [table.device(n) for n in range(len(table))]
    for column in columns:
        for row in range(len(table)):
            assert isinstance(cell_text(table, column, row, NOW), str)


# ---------------------------------------------------------------- columns as data


def test_every_filter_field_has_a_column() -> None:
    from fleetui.common.domain.filters import DEVICES

    assert {column.name for column in COLUMNS} == {field.name for field in DEVICES.fields}


def test_columns_by_name() -> None:
    assert shown_column("nothing") is None
    assert shown_column("tag.") is None
    tag = shown_column("tag.line")
    assert tag is not None
    assert (tag.title, tag.column) == ("line", "tag.line")
    assert [c.name for c in shown_columns(["cpu", "nothing", "cpu", "id"])] == ["cpu", "id"]
    assert tuple(c.name for c in shown_columns(["nothing"])) == FIRST


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("id", "edge-1"), ("seen", "2 min"), ("cpu", "25 %"), ("temp", "–"), ("latency.p99", "12.3 ms"),
        ("clock", "-2 s"), ("ram", "4 GiB"), ("storage", "–"), ("tag.line", "3"), ("model", ""), ("known", "–"),
        ("boots", "0"),
    ],
)  # fmt: skip
def test_cells_as_people_read_them(name: str, text: str) -> None:
    column = shown_column(name)
    assert column is not None
    assert cell_text(table_of(ROW), column, 0, 1000.5 + 120) == text


def test_a_device_that_was_never_heard_of_says_never() -> None:
    column = shown_column("seen")
    assert column is not None
    assert cell_text(table_of(DeviceRow("a")), column, 0, NOW) == "never"
