"""The overview: its numbers are counts of the table, and each opens the list it counts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from PySide6.QtCore import QObject, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QPushButton

from fleetui.common.domain.filters import DEVICE_RULES, parse
from fleetui.desk.app.order import passing
from fleetui.desk.ui.context import DeskContext
from fleetui.desk.ui.pages.overview import CARDS, OverviewPage
from fleetui.desk.ui.widgets.timechart import Layer, TimeChart, axis_text, nice_axis, pieces, time_ticks
from fleetui.desk.ui.window import MainWindow
from fleetui.store.records import Changes, EventRow
from tests.helpers.qt import NOW, device_row
from tests.helpers.wait import wait_until
from tests.qt.conftest import close
from tests.qt.test_shell_window import press


class Asked(QObject):
    def __init__(self, context: DeskContext) -> None:
        super().__init__()
        self.for_: list[tuple[str, object]] = []
        context.navigated.disconnect()
        context.navigated.connect(lambda page, where: self.for_.append((page, where)))


@pytest.fixture
def page(window: MainWindow, qapp: QApplication) -> OverviewPage:
    made = window.page
    wait_until(lambda: qapp.processEvents() or not made.loading, what="the series")
    return made


def count(context: DeskContext, text: str) -> int:
    return int(passing(context.table, parse(text), context.clock.now()).sum())


def test_numbers_on_cards_are_counts_of_the_table(page: OverviewPage, context: DeskContext) -> None:
    assert len(context.table) == 60
    for name in CARDS:
        card = page._cards[name]
        assert card.card.count == count(context, card.rule.text), name
        assert card._number.text() == f"{card.card.count:,}"
        assert f"{card.card.count:,}" in card.accessibleName()
    total = sum(page._cards[name].card.count for name in ("online", "late", "offline"))
    assert total == page._cards["all"].card.count == 60


def test_a_card_opens_the_list_it_counts(page: OverviewPage, context: DeskContext) -> None:
    asked = Asked(context)
    for name, open_ in (("offline", Qt.Key.Key_Return), ("late", Qt.Key.Key_Space)):
        page._cards[name].setFocus()
        press(page.window(), open_)
    QTest.mouseClick(page._cards["online"], Qt.MouseButton.LeftButton)
    wanted = {rule.name: rule.text for rule in DEVICE_RULES}
    assert asked.for_ == [("devices", {"filter": wanted[n]}) for n in ("offline", "late", "online")]


def test_attention_lists_what_counts_anything_worst_first(page: OverviewPage, context: DeskContext) -> None:
    asked = Asked(context)
    lines = page.attention.lines.lines
    assert lines, "in sixty devices something is always hot or full"
    for line in lines:
        assert line.cells[1].text == f"{count(context, str(line.target)):,}"
        assert int(line.cells[1].text) > 0
    page.attention.setFocus()
    press(page.window(), Qt.Key.Key_Return)
    assert asked.for_ == [("devices", {"filter": lines[0].target})]


def test_versions_and_sites_add_up(page: OverviewPage, context: DeskContext) -> None:
    for table in (page.versions, page.sites):
        lines = table.lines.lines
        assert sum(int(line.cells[2].text) for line in lines) == 60
        for line in lines:
            assert count(context, str(line.target)) == int(line.cells[2].text)
            for cell in line.cells:
                assert cell.text, "a bar says its figures in words too"
                assert sum(share for share, _ in cell.parts) == pytest.approx(1 if cell.parts else 0)


def test_numbers_follow_changes(page: OverviewPage, context: DeskContext) -> None:
    import random

    before = page._cards["offline"].card.count
    row = next(device_row(n, random.Random(n)) for n in range(60))
    context.take(Changes(seq=10_000, devices=(replace(row, device="edge-99999", status="offline"),)))
    assert page._cards["offline"].card.count == before + 1
    context.take(Changes(seq=10_001, removed=("edge-99999",)))
    assert page._cards["offline"].card.count == before


def test_a_hidden_page_waits(window: MainWindow, page: OverviewPage, context: DeskContext) -> None:
    before = page._cards["all"].card.count
    context.navigate("settings")
    context.take(Changes(seq=10_000, removed=(context.table.device(0),)))
    assert page._cards["all"].card.count == before, "nobody looks at it"
    context.navigate("overview")
    assert page._cards["all"].card.count == before - 1


def test_health_chart_has_the_stored_series_and_changes_its_span(page: OverviewPage, qapp: QApplication) -> None:
    assert [layer.name for layer in page.health.layers] == ["offline", "late", "online"]
    hour = page.health.layers[0].at
    assert hour.size == 360
    assert NOW - 3600 <= hour[0] < hour[-1] <= NOW
    totals = sum(layer.values for layer in page.health.layers)
    np.testing.assert_allclose(totals, 60)
    week = next(b for b in page.spans.findChildren(QPushButton) if b.property("value") == "1w")
    QTest.mouseClick(week, Qt.MouseButton.LeftButton)
    wait_until(lambda: qapp.processEvents() or not page.loading, what="the week")
    assert page.health.layers[0].at[0] < NOW - 6 * 86400
    assert page.health.layers[0].at.size <= 400
    assert "offline" in page.health.accessibleDescription()


def test_span_is_remembered(window: MainWindow, page: OverviewPage, context: DeskContext) -> None:
    page._choose_span("1d")
    assert context.settings.recall("overview.span") == "1d"


def test_events_newest_first_and_lead_to_the_device(page: OverviewPage, context: DeskContext) -> None:
    event = EventRow(NOW + 1, "overheating", 3, "84 °C", device=context.table.device(5), id=10_001, seq=10_001)
    context.take(Changes(seq=10_001, events=(event,)))
    first = page.events.lines.lines[0]
    assert first.cells[0].icon == "error"
    assert "84 °C" in first.cells[0].note
    asked = Asked(context)
    page.events.setFocus()
    press(page.window(), Qt.Key.Key_Return)
    assert asked.for_ == [("devices", {"device": context.table.device(5)})]


def test_empty_says_how_to_begin(empty_context: DeskContext, qtbot: object, qapp: QApplication) -> None:
    window = MainWindow(empty_context)
    window.show()
    empty_context.navigate("overview")
    page = window.page
    assert page._stack.currentWidget() is page._empty
    assert "fleetui --demo" in page._empty._text.text()
    page._copy("fleetui --demo")
    assert qapp.clipboard().text() == "fleetui --demo"
    assert "Copied" in window.footer._hint.text()
    close(window)


def test_before_the_store_was_read_nothing_is_claimed(empty_context: DeskContext) -> None:
    empty_context.caught_up = False
    window = MainWindow(empty_context)
    empty_context.navigate("overview")
    assert window.page._stack.currentWidget() is window.page._waiting
    empty_context.caught_up = True
    empty_context.changed.emit(Changes(seq=0))
    assert window.page._stack.currentWidget() is window.page._empty
    close(window)


# ---------------------------------------------------------------- the small chart


def test_crosshair_by_keyboard_and_in_step(page: OverviewPage) -> None:
    page.health.setFocus()
    press(page.window(), Qt.Key.Key_Left)
    assert page.health.point == pytest.approx(NOW - 60)
    assert page.activity["latency"].point == page.health.point
    press(page.window(), Qt.Key.Key_Right)
    assert page.health.point == pytest.approx(NOW)
    page._cards["all"].setFocus()
    assert math.isnan(page.health.point)


def test_a_gap_in_what_was_measured_is_a_gap() -> None:
    at = np.array([0.0, 10, 20, 30, 200, 210, 220])
    values = np.array([1.0, 1, math.nan, 1, 1, 1, 1])
    assert pieces(at, values) == [slice(0, 2), slice(3, 4), slice(4, 7)]
    assert pieces(np.zeros(0), np.zeros(0)) == []
    assert pieces(np.array([5.0]), np.ones(1)) == [slice(0, 1)]
    assert pieces(np.array([0.0, 900]), np.ones(2)) == [slice(0, 2)]


def test_a_sparse_past_and_a_dense_present_are_one_line() -> None:
    past, present = np.arange(0, 3600, 900.0), np.arange(3300, 3600, 10.0)
    at = np.r_[past, present]
    assert pieces(at, np.ones(at.size)) == [slice(0, at.size)]
    later = np.r_[at, np.arange(3900, 4000, 10.0)]
    assert pieces(later, np.ones(later.size)) == [slice(0, at.size), slice(at.size, later.size)]


def test_value_near_a_moment() -> None:
    layer = Layer("x", np.array([0.0, 10, 20]), np.array([1.0, 2, 3]), "ok")
    assert layer.value_at(11, 5) == 2
    assert layer.value_at(100, 5) != layer.value_at(100, 5), "nothing is near: NaN"
    assert layer.value_at(-3, 5) == 1
    one = Layer("x", np.array([5.0]), np.array([7.0]), "ok")
    assert one.value_at(6, 5) == 7


@pytest.mark.parametrize("highest", [0.003, 0.9, 1, 3, 7.5, 42, 60, 199.0, 6106, 1e7])
def test_axis_is_round_and_reaches_over_everything(highest: float) -> None:
    step, top = nice_axis(highest, 4)
    assert top >= highest * 0.999
    assert 1 <= round(top / step) <= 6
    assert float(f"{step:.3g}") == pytest.approx(step)


def test_whole_numbers_keep_whole_steps() -> None:
    assert nice_axis(2, 4, whole=True) == (1, 2)
    assert axis_text(1500) == "1.5k"
    assert axis_text(2e7) == "20M"


@pytest.mark.parametrize("span", [3600.0, 86400.0, 604_800.0, 60.0])
def test_time_ticks_are_few_and_inside(span: float) -> None:
    ticks, _ = time_ticks(NOW - span, NOW, 6)
    assert len(ticks) <= 8
    assert all(NOW - span <= tick <= NOW for tick in ticks)


def test_chart_draws_with_one_point_none_and_zeros(context: DeskContext, qtbot: object) -> None:
    chart = TimeChart(context.theme, "Chart", show=str)
    qtbot.addWidget(chart)  # type: ignore[attr-defined]
    chart.resize(300, 100)
    for values in ([], [5.0], [0.0, 0.0], [math.nan, math.nan], [1.0, math.inf]):
        at = np.arange(len(values), dtype=float)
        chart.show_layers([Layer("a", at, np.array(values), "series:0")], 0, 10)
        assert not chart.grab().isNull()
