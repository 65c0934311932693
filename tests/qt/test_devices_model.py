"""The devices model: what qtmodeltester asks, and that order, selection and persistent indexes follow devices."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PySide6.QtCore import QModelIndex, QPersistentModelIndex, Qt
from PySide6.QtTest import QAbstractItemModelTester
from PySide6.QtWidgets import QApplication

from fleetui.common.domain.clock import ManualClock
from fleetui.common.domain.filters import parse
from fleetui.desk.app.columns import DeviceTable
from fleetui.desk.ui.models.devices_model import DevicesModel, Role, merged, runs
from fleetui.store.records import Changes, DeviceRow
from tests.helpers.desk import device_rows

NOW = 1_800_000_000.0
Failing = QAbstractItemModelTester.FailureReportingMode.Fatal


def rows(count: int, seed: int = 1) -> list[DeviceRow]:
    chance = random.Random(seed)
    return [
        DeviceRow(
            f"edge-{n:04d}",
            name=f"press {n}",
            site=chance.choice(("berlin", "oslo")),
            status=chance.choice(("online", "offline")),
            last_seen=NOW - chance.random() * 600,
            cpu=chance.random(),
            tags={"line": str(n % 3)},
        )
        for n in range(count)
    ]


class Made:
    def __init__(self, count: int = 0, **more: object) -> None:
        self.clock = ManualClock(NOW)
        self.table = DeviceTable()
        self.model = DevicesModel(self.table, self.clock, lambda s: s.upper(), **more)  # type: ignore[arg-type]
        self.tester = QAbstractItemModelTester(self.model, Failing)
        self.table.observe(lambda applied: self.model.take(applied))
        self.told: list[tuple[int, int, int, int]] = []
        self.model.dataChanged.connect(self._told)
        if count:
            self.put(*rows(count))

    def _told(self, top: QModelIndex, bottom: QModelIndex, _roles: object) -> None:
        self.told.append((top.row(), bottom.row(), top.column(), bottom.column()))

    def put(self, *found: DeviceRow, gone: tuple[str, ...] = ()) -> None:
        self.table.apply(Changes(1, found, gone))

    def shown(self) -> list[str]:
        return [self.model.device_at(n) for n in range(self.model.rowCount())]

    def agrees(self) -> None:
        """The model shows what a view built anew would."""
        from fleetui.desk.app.order import DeviceView

        anew = DeviceView(self.table, self.clock, self.model.view.sort, descending=self.model.view.descending)
        anew.set_filter(self.model.view.filter)
        assert self.shown() == self.table.devices(anew.order)


@pytest.fixture
def made(qapp: QApplication) -> Made:
    return Made(50)


def test_qt_finds_nothing_to_complain_of(made: Made, qtmodeltester: object) -> None:
    qtmodeltester.check(made.model)  # type: ignore[attr-defined]
    qtmodeltester.check(DevicesModel(DeviceTable(), ManualClock(NOW)))  # type: ignore[attr-defined]


def test_suggestions_are_a_proper_list(qapp: QApplication, qtmodeltester: object) -> None:
    from fleetui.common.domain.filters import DEVICES, complete
    from fleetui.desk.ui.pages.devices.filterfield import _Offers

    offers = _Offers()
    offers.show(complete("s", 1, DEVICES).items)
    qtmodeltester.check(offers)  # type: ignore[attr-defined]
    assert offers.index(0, 0).data() == offers.items[0].label
    assert offers.items[0].help in str(offers.index(0, 0).data(Qt.ItemDataRole.AccessibleTextRole))


def test_the_first_devices_are_there_at_once(qapp: QApplication) -> None:
    made = Made()
    assert made.model.rowCount() == 0
    made.put(*rows(5))
    assert made.shown() == [f"edge-{n:04d}" for n in range(5)]


def test_cells(made: Made) -> None:
    names = made.model.column_names
    device = made.table.get("edge-0003")
    assert device is not None
    row = made.model.position_of("edge-0003")

    def cell(name: str, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        return made.model.index(row, names.index(name)).data(role)

    assert cell("id") == "edge-0003"
    assert cell("status") == device.status.upper()
    assert cell("cpu", Role.SORT) == device.cpu
    assert cell("temp", Role.SORT) is None
    assert cell("id", Role.DEVICE) == "edge-0003"
    assert isinstance(cell("id", Role.ROW), DeviceRow)
    assert cell("id", Role.ROW).device == "edge-0003"  # type: ignore[union-attr]
    assert cell("cpu", Qt.ItemDataRole.AccessibleTextRole) == f"CPU: {cell('cpu')}"
    assert cell("model", Qt.ItemDataRole.AccessibleTextRole) == "Model: nothing"
    assert cell("temp", Qt.ItemDataRole.ToolTipRole) == "Not known"
    assert "since" in str(cell("status", Qt.ItemDataRole.ToolTipRole))
    assert Qt.AlignmentFlag.AlignRight & Qt.AlignmentFlag(cell("cpu", Qt.ItemDataRole.TextAlignmentRole))
    assert cell("id", Qt.ItemDataRole.DecorationRole) is None
    assert made.model.data(QModelIndex()) is None
    assert made.model.flags(QModelIndex()) == Qt.ItemFlag.NoItemFlags


def test_headers_say_what_filters_call_them(made: Made) -> None:
    section = made.model.column_names.index("model.version")
    header = made.model.headerData
    assert header(section, Qt.Orientation.Horizontal) == "Version"
    assert "model.version" in str(header(section, Qt.Orientation.Horizontal, Qt.ItemDataRole.ToolTipRole))
    assert header(section, Qt.Orientation.Vertical) is None
    assert header(999, Qt.Orientation.Horizontal) is None


def test_an_update_moves_nothing_and_tells_the_cells_that_changed(made: Made) -> None:
    made.model.set_sort("cpu", descending=False)
    before = made.shown()
    made.told.clear()
    device = made.table.get(before[7])
    assert device is not None
    made.put(replace(device, cpu=0.999, site="elsewhere", rows=5))
    assert made.shown() == before
    names = made.model.column_names
    assert made.told == [(7, 7, names.index("site"), names.index("cpu"))]
    assert made.model.text(7, names.index("site")) == "elsewhere"
    assert made.model.refresh()
    assert made.model.position_of(before[7]) == 49
    made.agrees()


def test_changes_to_hidden_columns_are_not_told(made: Made) -> None:
    made.told.clear()
    device = made.table.get("edge-0001")
    assert device is not None
    made.put(replace(device, boots=7))
    assert made.told == []


def test_persistent_indexes_stay_with_their_devices(made: Made) -> None:
    kept = {
        made.model.device_at(n): QPersistentModelIndex(made.model.index(n, n % made.model.columnCount()))
        for n in range(0, 50, 7)
    }
    columns = {device: index.column() for device, index in kept.items()}

    def check() -> None:
        for device, index in kept.items():
            assert index.isValid(), device
            assert made.model.device_at(index.row()) == device
            assert index.column() == columns[device]

    made.model.set_sort("cpu", descending=True)
    check()
    made.model.set_sort("seen", descending=False)
    check()
    made.put(*(replace(row, cpu=random.random()) for row in rows(50, seed=9)))
    made.model.refresh()
    check()
    made.put(gone=("edge-0001", "edge-0002"))
    check()
    made.model.set_filter(parse("not id:edge-0003"))
    check()
    assert made.model.rowCount() == 47


def test_what_is_removed_leaves_at_once(made: Made) -> None:
    index = QPersistentModelIndex(made.model.index(made.model.position_of("edge-0010"), 0))
    made.put(gone=("edge-0010", "edge-0011", "edge-0020"))
    assert not index.isValid()
    assert made.model.rowCount() == 47
    assert "edge-0010" not in made.shown()
    made.agrees()


def test_new_devices_wait_for_the_next_turn(made: Made) -> None:
    made.put(DeviceRow("aaa-first"))
    assert made.model.rowCount() == 50
    made.model.refresh()
    assert made.shown()[0] == "aaa-first"


def test_filters_and_sorts_agree_with_building_anew(made: Made) -> None:
    for text in ("status:offline", "", "site:oslo and cpu>50%", "nothing-such", "", "tag.line:2"):
        made.model.set_filter(parse(text))
        made.agrees()
        for name in ("cpu", "name", "seen", "tag.line"):
            made.model.set_sort(name, descending=True)
            made.agrees()


def test_sorting_by_qts_own_call(made: Made) -> None:
    made.model.sort(made.model.column_names.index("cpu"), Qt.SortOrder.DescendingOrder)
    assert made.model.sort_name == "cpu"
    assert made.model.view.descending
    made.agrees()
    made.model.sort(-1)
    assert made.model.sort_name == "cpu"


def test_a_column_that_does_not_exist_sorts_by_id(made: Made) -> None:
    made.model.set_sort("nothing", descending=False)
    assert made.model.sort_name == "id"


def test_columns_can_be_chosen(made: Made) -> None:
    made.model.set_columns(("cpu", "tag.line", "id"))
    assert made.model.column_names == ("cpu", "tag.line", "id")
    assert made.model.index(0, 1).data() == made.table.text("tag.line", made.model.row_at(0))
    assert made.model.headerData(1, Qt.Orientation.Horizontal) == "line"
    device = made.table.get(made.model.device_at(0))
    assert device is not None
    made.told.clear()
    made.put(replace(device, tags={"line": "99"}))
    assert made.told == [(0, 0, 1, 1)]
    assert made.model.index(0, 1).data() == "99"


def test_ages_are_told_for_what_is_seen(made: Made) -> None:
    column = made.model.column_names.index("seen")
    before = made.model.text(4, column)
    made.told.clear()
    made.clock.advance(7200)
    made.model.tick((3, 9))
    assert made.told == [(3, 9, column, column)]
    assert made.model.text(4, column) != before
    made.told.clear()
    made.model.tick((0, -1))
    assert made.told == []


def test_many_changes_are_few_words(made: Made) -> None:
    for row in rows(50):
        made.put(replace(row, cpu=0.123))
    made.told.clear()
    made.put(*(replace(row, cpu=0.4) for n, row in enumerate(rows(50)) if n % 2))
    assert len(made.told) <= 25


def test_what_is_watched_is_told_exactly_and_the_rest_as_two() -> None:
    places = np.array([1, 2, 5, 11, 12, 20, 33])
    assert merged(places, (10, 21)) == [(1, 5), (11, 12), (20, 20), (33, 33)]
    assert merged(places, (0, 40)) == [(1, 2), (5, 5), (11, 12), (20, 20), (33, 33)]
    assert merged(places, (13, 19)) == [(1, 12), (20, 33)]
    assert merged(np.arange(0, 200, 2), None) == [(0, 198)]
    assert runs(np.array([], dtype=np.int64)) == []


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.lists(device_rows, max_size=6)),
            st.tuples(st.just("gone"), st.sampled_from([f"edge-{n}" for n in range(14)])),
            st.tuples(
                st.just("filter"), st.sampled_from(["", "status:offline", "site:berlin or cpu>50%", "seen<1h"])
            ),
            st.tuples(
                st.just("sort"), st.sampled_from(["id", "cpu", "status", "seen", "model.version", "tag.line"])
            ),
            st.tuples(st.just("refresh"), st.none()),
            st.tuples(
                st.just("columns"), st.sampled_from([("id",), ("cpu", "id"), ("status", "seen", "tag.line")])
            ),
        ),
        max_size=12,
    )
)
def test_whatever_happens_qt_and_the_naive_reading_agree(
    qapp: QApplication, steps: list[tuple[str, object]]
) -> None:
    """The tester aborts the process on any inconsistency between signals and state."""
    made = Made()
    kept: dict[str, QPersistentModelIndex] = {}
    for what, value in steps:
        if what == "put":
            made.put(*{row.device: row for row in value}.values())  # type: ignore[attr-defined]
        elif what == "gone":
            made.put(gone=(value,))  # type: ignore[arg-type]
        elif what == "filter":
            made.model.set_filter(parse(str(value)))
        elif what == "sort":
            made.model.set_sort(str(value), descending=len(steps) % 2 == 0)
        elif what == "columns":
            made.model.set_columns(value)  # type: ignore[arg-type]
        else:
            made.model.refresh()
            made.agrees()
        for device, index in kept.items():
            if index.isValid():
                assert made.model.device_at(index.row()) == device
        if made.model.rowCount():
            device = made.model.device_at(0)
            kept[device] = QPersistentModelIndex(made.model.index(0, 0))
    made.model.refresh()
    made.agrees()
