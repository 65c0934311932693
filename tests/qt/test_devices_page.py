"""The devices page as people use it: filter, chips, selection, drawer, acts, views, columns, export."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtCore import QCoreApplication, QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QGuiApplication, QHoverEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton, QApplication, QLineEdit, QMenu, QWidget

from fleetui.common.domain.filters import parse
from fleetui.desk.app.export import Form
from fleetui.desk.app.views import Looks
from fleetui.desk.ui.context import DeskContext
from fleetui.desk.ui.pages.devices.dialogs import Ask, Confirm
from fleetui.desk.ui.pages.devices.filterfield import LATER_MS, SOON_MS
from fleetui.desk.ui.pages.devices.page import DevicesPage
from fleetui.desk.ui.window import MainWindow
from fleetui.store import feed, ingest
from fleetui.store import views as stored_views
from fleetui.store import wishes as stored_wishes
from fleetui.store.records import METRICS, Batch, Changes, DeviceRow, EventRow, Sample, Wish, WishState
from tests.helpers.qt import NOW
from tests.helpers.wait import wait_until

# The offscreen platform has no window manager, and says so whenever a popup asks for one.
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support", extend=True)

Key, Mod = Qt.Key, Qt.KeyboardModifier


def pump(condition: Callable[[], object], what: str) -> None:
    app = QCoreApplication.instance()
    assert app is not None
    wait_until(lambda: (app.processEvents(), condition())[1], what=what)


def settle(page: DevicesPage) -> None:
    """Operations come back, timers of nought fire."""
    pump(lambda: page.context.operations.idle, "the end of all operations")
    QCoreApplication.processEvents()


@pytest.fixture
def page(window: MainWindow) -> Iterator[DevicesPage]:
    window.resize(1280, 800)
    window.context.navigate("devices")
    made = window.page
    assert isinstance(made, DevicesPage)
    settle(made)
    yield made
    settle(made)


def shown(page: DevicesPage) -> list[str]:
    return [page.model.device_at(n) for n in range(page.model.rowCount())]


def type_into(widget: QWidget, text: str) -> None:
    QTest.keyClicks(widget, text)


def feed_on(
    page: DevicesPage, *rows: DeviceRow, gone: tuple[str, ...] = (), events: tuple[EventRow, ...] = ()
) -> None:
    page.context.take(Changes(seq=10**9, devices=rows, removed=gone, events=events))
    QCoreApplication.processEvents()


def device(page: DevicesPage, name: str) -> DeviceRow:
    found = page.context.table.get(name)
    assert found is not None
    return found


def overlay(page: DevicesPage, kind: type[Ask | Confirm]) -> Ask | Confirm:
    found = [o for o in page.window().findChildren(kind) if o.isVisible()]
    assert len(found) == 1
    return found[0]


# ---------------------------------------------------------------- the list


def test_it_shows_every_device_and_says_how_many(page: DevicesPage) -> None:
    assert len(shown(page)) == 60
    assert page._count.text() == "60 devices"
    assert page._stack.currentWidget() is page.table


def test_typing_filters_while_one_types(page: DevicesPage) -> None:
    page.filter.setFocus()
    type_into(page.filter, "status:offline")
    pump(lambda: page.filter.filter.canonical == "status:offline", "the filter")
    offline = [d for d in shown(page) if device(page, d).status == "offline"]
    assert offline == shown(page)
    assert page._count.text() == f"{len(offline)} of 60 devices"
    assert [chip.chip.label for chip in page.chips.chips] == ["Status is offline"]


def test_what_is_not_finished_leaves_the_last_filter_and_is_called_wrong_on_enter(page: DevicesPage) -> None:
    page.show_filter("site:berlin")
    before = shown(page)
    page.filter.setFocus()
    page.filter.end(False)
    type_into(page.filter, " and status:onlin")
    page.filter._apply()
    assert shown(page) == before
    QTest.keyClick(page.filter, Key.Key_Escape)  # the suggestions
    QTest.keyClick(page.filter, Key.Key_Return)
    assert page.filter.property("wrong")
    assert "online" in page._wrong.text()
    assert page._wrong.isVisible()
    type_into(page.filter, "e")
    pump(lambda: not page.filter.property("wrong"), "the mended filter")
    assert page._wrong.text() == ""


def test_chips_go_by_mouse_and_by_keyboard_and_can_be_edited(page: DevicesPage) -> None:
    page.show_filter("site:berlin and status:online and cpu>1%")
    site, status, cpu = page.chips.chips
    QTest.mouseClick(site.findChild(QAbstractButton), Qt.MouseButton.LeftButton)
    assert page.filter.text() == "status:online and cpu>1%"
    status, cpu = page.chips.chips
    status.setFocus()
    QTest.keyClick(status, Key.Key_Return)
    assert page.filter.hasFocus()
    assert page.filter.selectedText() == "status:online"
    cpu.setFocus()
    QTest.keyClick(cpu, Key.Key_Delete)
    assert page.filter.text() == "status:online"
    [left] = page.chips.chips
    assert left.hasFocus()
    QTest.keyClick(left, Key.Key_Backspace)
    assert page.filter.text() == ""
    assert page.chips.chips == []


def test_ready_made_filters_count_and_apply(page: DevicesPage) -> None:
    offline = page.chips._presets["offline"]
    count = int(offline._number.text())
    assert count > 0
    assert offline.isVisible()
    QTest.keyClick(offline, Key.Key_Return)
    assert page.model.rowCount() == count
    assert not offline.isVisible()


def test_a_filter_that_passes_nothing_offers_a_way_out(page: DevicesPage) -> None:
    page.show_filter("site:nowhere")
    assert page._stack.currentWidget() is page._no_match
    [clear] = page._no_match.findChildren(QAbstractButton)
    clear.click()
    assert len(shown(page)) == 60


def test_an_empty_store_says_what_to_do(empty_context: DeskContext, qtbot: object) -> None:
    page = DevicesPage(empty_context)
    qtbot.addWidget(page)  # type: ignore[attr-defined]
    page.show()
    page.enter()
    assert page._stack.currentWidget() is page._nothing
    empty_context.caught_up = False
    page._draw_state()
    assert page._stack.currentWidget() is page._reading
    empty_context.take(Changes(1, (DeviceRow("edge-1", last_seen=NOW),)))
    assert page._stack.currentWidget() is page.table
    page.leave()


def test_suggestions_are_taken_by_keyboard(page: DevicesPage) -> None:
    page.filter.setFocus()
    type_into(page.filter, "sta")
    assert next(offer.text for offer in page.filter.offers).startswith("sta")
    QTest.keyClick(page.filter, Key.Key_Tab)
    pump(lambda: page.filter.text() == "status:", "the field")
    pump(lambda: page.filter.offers, "the values")
    values = [offer.text for offer in page.filter.offers]
    assert "offline" in values
    popup = page.filter._completer.popup()
    popup.setCurrentIndex(popup.model().index(values.index("offline"), 0))
    QTest.keyClick(popup, Key.Key_Return)
    pump(lambda: page.filter.filter.canonical == "status:offline", "the filter")
    page.filter.clear_filter()
    type_into(page.filter, "site:")
    pump(lambda: page.filter.offers, "the sites")
    assert {offer.text for offer in page.filter.offers} == {w for w, _ in page.context.table.words("site")}
    QTest.keyClick(page.filter, Key.Key_Escape)
    assert page.filter.offers == ()
    assert page.filter.text() == "site:"
    QTest.keyClick(page.filter, Key.Key_Escape)
    assert page.filter.text() == ""


def test_the_table_waits_while_a_fields_name_is_typed(page: DevicesPage) -> None:
    page.filter.setFocus()
    type_into(page.filter, "stat")
    assert page.filter._soon.interval() == LATER_MS
    type_into(page.filter, "us:onl")
    assert page.filter._soon.interval() == SOON_MS
    assert len(shown(page)) == 60
    page.filter._judge()
    assert not page.filter.property("wrong"), "there are suggestions that would mend it"
    QTest.keyClick(page.filter, Key.Key_Escape)
    page.filter._judge()
    assert page.filter.property("wrong")


def test_enter_means_what_was_typed_and_not_what_is_offered(page: DevicesPage) -> None:
    page.filter.setFocus()
    type_into(page.filter, "hand")
    assert page.filter.offers[0].text == "handle:"
    QTest.keyClick(page.filter._completer.popup(), Key.Key_Return)
    assert page.filter.text() == "hand"
    assert page.filter.offers == ()
    assert page.filter.filter.canonical == "hand"


def test_tags_are_offered_too(page: DevicesPage) -> None:
    assert list(page._words("tag.")) == ["line"]
    assert sorted(page._words("tag.line")) == sorted({str(n % 7) for n in range(60)})
    assert list(page._words("nothing")) == []


# ---------------------------------------------------------------- order, and keeping still


def header_click(page: DevicesPage, name: str) -> None:
    header = page.table.horizontalHeader()
    section = page.model.column_names.index(name)
    x = header.sectionViewportPosition(section) + 10
    QTest.mouseClick(header.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(x, header.height() // 2))


def test_the_header_sorts_and_figures_begin_with_the_largest(page: DevicesPage) -> None:
    header_click(page, "site")
    assert (page.model.sort_name, page.model.view.descending) == ("site", False)
    header_click(page, "site")
    assert page.model.view.descending
    page.table.horizontalScrollBar().setValue(10_000)
    header_click(page, "latency.p99")
    assert (page.model.sort_name, page.model.view.descending) == ("latency.p99", True)
    figures = [device(page, d).latency_p99 for d in shown(page)]
    assert figures == sorted(figures, reverse=True)
    assert page.table.horizontalHeader().sortIndicatorSection() == page.model.column_names.index("latency.p99")


def test_rows_stay_while_one_reads_and_go_when_it_is_calm(page: DevicesPage) -> None:
    clock = page.context.clock
    page.model.set_sort("cpu", descending=True)
    page.sort_now()
    page._touched_at = -100.0  # nobody is at it
    first, last = shown(page)[0], shown(page)[-1]
    feed_on(page, replace(device(page, last), cpu=0.999))
    page._settle()
    assert shown(page)[0] == first
    clock.advance(4.9)  # type: ignore[attr-defined]
    page._settle()
    assert shown(page)[0] == first, "rows were put in order less than five seconds ago"
    clock.advance(0.2)  # type: ignore[attr-defined]
    page._touched()
    page._settle()
    assert shown(page)[0] == first, "somebody is scrolling"
    clock.advance(2.0)  # type: ignore[attr-defined]
    page._settle()
    assert shown(page)[0] == last


def test_with_a_pace_of_nought_rows_wait_to_be_asked(page: DevicesPage) -> None:
    page.context.settings.set("desk.resort_s", 0)
    page.model.set_sort("cpu", descending=True)
    last = shown(page)[-1]
    feed_on(page, replace(device(page, last), cpu=0.999))
    page.context.clock.advance(100.0)  # type: ignore[attr-defined]
    page._settle()
    assert shown(page)[-1] == last
    assert page._sort_now.isVisible()
    page.context.commands.run("devices.sort_now")
    assert shown(page)[0] == last
    assert not page._sort_now.isVisible()


def test_selection_and_place_outlive_a_filter_and_a_sort(page: DevicesPage) -> None:
    page.table.select_devices(["edge-00003", "edge-00005", "edge-00040"], "edge-00005")
    page.model.set_sort("cpu", descending=True)
    assert set(page.table.selected_devices()) == {"edge-00003", "edge-00005", "edge-00040"}
    assert page.table.current_device == "edge-00005"
    page.show_filter("id:(edge-00005,edge-00040,edge-00050)")
    assert set(page.table.selected_devices()) == {"edge-00005", "edge-00040"}
    page.show_filter("")
    assert set(page.table.selected_devices()) == {"edge-00005", "edge-00040"}


def test_ages_grow_without_news(page: DevicesPage) -> None:
    section = page.model.column_names.index("seen")
    before = page.model.text(0, section)
    page.context.clock.advance(7200)  # type: ignore[attr-defined]
    page.context.ticked.emit()
    assert page.model.text(0, section) != before


def test_a_hidden_page_keeps_up_without_sorting(page: DevicesPage, window: MainWindow) -> None:
    page.model.set_sort("cpu", descending=True)
    window.context.navigate("settings")
    last = shown(page)[-1]
    feed_on(page, replace(device(page, last), cpu=0.9999), DeviceRow("edge-new", last_seen=NOW))
    assert shown(page)[-1] == last
    window.context.navigate("devices")
    assert shown(page)[0] == last
    assert "edge-new" in shown(page)


# ---------------------------------------------------------------- keyboard, mouse


def test_the_table_by_keyboard(page: DevicesPage) -> None:
    page.table.setFocus()
    QTest.keyClick(page.table, Key.Key_End)
    assert page.table.current_device == shown(page)[-1]
    QTest.keyClick(page.table, Key.Key_Home)
    assert page.table.current_device == shown(page)[0]
    QTest.keyClick(page.table, Key.Key_Down)
    QTest.keyClick(page.table, Key.Key_Down, Mod.ShiftModifier)
    assert page.table.selected_devices() == shown(page)[1:3]
    pump(lambda: page._count.text() == "60 devices, 2 selected", "the count")
    QTest.keyClick(page.table, Key.Key_A, Mod.ControlModifier)
    assert len(page.table.selected_devices()) == 60


def test_letters_over_the_table_go_to_the_filter(page: DevicesPage) -> None:
    page.table.setFocus()
    QTest.keyClick(page.table, Key.Key_P, delay=0)
    pump(lambda: page.filter.text() == "p", "the letter")
    assert page.filter.hasFocus()


def test_down_and_enter_lead_from_the_filter_to_the_table(page: DevicesPage) -> None:
    page.filter.setFocus()
    type_into(page.filter, "edge")
    QTest.keyClick(page.filter, Key.Key_Escape)
    page.filter.setText("edge")
    QTest.keyClick(page.filter, Key.Key_Return)
    assert page.table.hasFocus()


def test_pointing_marks_the_row(page: DevicesPage) -> None:
    at = page.table.visualRect(page.model.index(2, 1)).center()
    QTest.mouseMove(page.table.viewport(), at)
    pump(lambda: page.table._delegate.hovered == 2, "the marked row")
    QCoreApplication.sendEvent(
        page.table.viewport(), QHoverEvent(QEvent.Type.Leave, QPointF(), QPointF(), QPointF(at))
    )
    assert page.table._delegate.hovered == -1


def test_every_stop_of_the_tab_key_has_a_name(page: DevicesPage, qapp: QApplication) -> None:
    page.open_device("edge-00002")
    settle(page)
    page.filter.setFocus()
    seen: list[QWidget] = []
    for _ in range(80):
        QTest.keyClick(page.window().windowHandle(), Key.Key_Tab)
        widget = qapp.focusWidget()
        if widget is None or widget in seen:
            break
        seen.append(widget)
        assert widget.accessibleName(), widget
    inside = {type(w).__name__ for w in seen if page.isAncestorOf(w)}
    assert {"FilterField", "DevicesTable", "ViewMenu", "Button", "Preset"} <= inside
    for widget in page.findChildren(QWidget):
        if widget.focusPolicy() & Qt.FocusPolicy.TabFocus and isinstance(widget, QAbstractButton | QLineEdit):
            assert widget.accessibleName(), widget


# ---------------------------------------------------------------- the drawer


def add_history(page: DevicesPage, name: str) -> None:
    """An hour of figures, and a few events."""
    samples = []
    for n in range(120):
        values = {"cpu": 0.5, "latency_p50": 5.0, "latency_p99": 20.0 + n / 10, "rows_per_s": 30.0}
        samples.append(Sample(name, NOW - 3600 + 30 * n, tuple(values.get(m, math.nan) for m in METRICS)))
    events = [
        EventRow(NOW - n * 60, "booted", 2, f"Event {n}", name, ("A", "B"), boot="x", report_seq=n)
        for n in range(5)
    ]
    row = device(page, name)
    page.context.store.write(lambda c: ingest.write(c, Batch({name: row}, samples, events=events)))


def test_enter_opens_the_drawer_and_esc_closes_it(page: DevicesPage) -> None:
    page.table.setFocus()
    QTest.keyClick(page.table, Key.Key_Down)
    QTest.keyClick(page.table, Key.Key_Return)
    assert page.drawer.isVisible()
    assert page.drawer.device == page.table.current_device
    QTest.keyClick(page.table, Key.Key_Down)
    pump(lambda: page.drawer.device == page.table.current_device, "the drawer to follow")
    page.drawer._rename.setFocus()
    QTest.keyClick(page.drawer._rename, Key.Key_Escape)
    assert not page.drawer.isVisible()
    assert page.table.hasFocus()


def test_its_header_says_how_the_device_is(page: DevicesPage) -> None:
    name = next(d for d in shown(page) if device(page, d).status == "offline")
    feed_on(page, replace(device(page, name), reasons=("Hot", "Slow"), name="Oven <b>1</b>"))
    page.open_device(name)
    assert page.drawer._title.full_text() == "Oven <b>1</b>"
    assert page.drawer._state.text() == "Offline"
    assert "last heard of" in page.drawer._seen.text()
    assert page.drawer._reasons.count() == 2
    feed_on(page, replace(device(page, name), status="online", reasons=(), last_seen=NOW))
    assert page.drawer._state.text() == "Online"
    assert page.drawer._reasons.count() == 0


def test_charts_are_those_of_the_store_and_move_together(page: DevicesPage) -> None:
    add_history(page, "edge-00002")
    page.open_device("edge-00002")
    settle(page)
    charts = page.drawer.live.charts
    assert not charts["latency"].is_empty
    assert charts["heat"].is_empty
    assert "p99: now 31.9 ms" in charts["latency"].in_words()
    assert charts["latency"].accessibleDescription() == charts["latency"].in_words()
    charts["latency"].hovered.emit(NOW - 1800)
    assert charts["load"]._cross.isVisible()
    charts["latency"].hovered.emit(math.nan)
    assert not charts["load"]._cross.isVisible()
    page.drawer.live._choice._buttons["1w"].click()
    settle(page)
    assert page.context.settings.recall("devices.span") == "1w"
    assert not charts["latency"].is_empty


def test_figures_are_read_again_when_there_is_news_and_time_has_passed(page: DevicesPage) -> None:
    add_history(page, "edge-00002")
    page.open_device("edge-00002")
    settle(page)
    live = page.drawer.live
    live._choice._buttons["1h"].click()
    settle(page)
    loads: list[float] = []
    original = live.load
    live.load = lambda: (loads.append(page.context.clock.monotonic()), original())[1]  # type: ignore[method-assign]
    row = device(page, "edge-00002")
    feed_on(page, replace(row, rows=row.rows + 1))
    assert loads == []
    page.context.clock.advance(30)  # type: ignore[attr-defined]
    page.context.ticked.emit()
    assert len(loads) == 1
    page.context.ticked.emit()
    assert len(loads) == 1
    settle(page)


def test_events_models_and_facts(page: DevicesPage) -> None:
    add_history(page, "edge-00002")
    page.open_device("edge-00002")
    settle(page)
    page.drawer.show_part("events")
    lines = page.drawer.events._table.lines
    assert lines.rowCount() == 5
    assert lines.index(0, 0).data() == "Event 0 A › B"
    fresh = EventRow(NOW + 1, "hot", 3, "Too hot", "edge-00002", id=10**6)
    feed_on(page, events=(fresh, fresh, replace(fresh, device="edge-00003", id=10**6 + 1)))
    assert lines.rowCount() == 6
    assert lines.index(0, 0).data() == "Too hot"
    page.drawer.show_part("models")
    row = device(page, "edge-00002")
    assert page.drawer.models._table.lines.index(0, 1).data() == f"{row.model} {row.version}"
    page.drawer.models._table.chosen.emit(page.drawer.models._table.lines.lines[0].target)
    assert {device(page, d).version for d in shown(page)} == {row.version}
    page.drawer.show_part("facts")
    assert page.drawer.facts._values["device"].text() == "edge-00002"
    assert page.drawer.facts._values["ram"].text() == "4 GiB"


def test_a_device_without_anything_has_empty_parts_that_say_so(page: DevicesPage) -> None:
    feed_on(page, DeviceRow("edge-bare"))
    page.model.refresh()
    page.open_device("edge-bare")
    settle(page)
    assert page.drawer._seen.text() == "never heard of"
    assert page.drawer.models.currentIndex() == 1
    assert page.drawer.events.currentIndex() == 1
    assert all(chart.is_empty for chart in page.drawer.live.charts.values())


def test_a_device_that_is_removed_while_open_says_so(page: DevicesPage) -> None:
    page.open_device("edge-00002")
    feed_on(page, gone=("edge-00002",))
    assert page.drawer._state.text() == "This device was removed"
    assert not page.drawer._rename.isEnabled()
    assert "edge-00002" not in shown(page)
    settle(page)


def test_a_link_to_a_device_opens_it_whatever_the_filter(page: DevicesPage) -> None:
    page.show_filter("site:nowhere")
    page.context.navigate("devices", device="edge-00007")
    assert page.drawer.device == "edge-00007"
    assert page.filter.text() == ""
    page.context.navigate("devices", device="edge-gone")
    assert "edge-gone" in page.context.notices.all()[0].sentence
    page.context.navigate("devices", filter="status:offline")
    assert page.filter.text() == "status:offline"
    page.context.navigate("devices", filter="status:")
    assert page._wrong.text()
    settle(page)


# ---------------------------------------------------------------- acts


def asked(page: DevicesPage) -> list[Wish]:
    settle(page)
    with page.context.store.read() as connection:
        return stored_wishes.recent(connection)


def test_commands_know_when_they_make_sense(page: DevicesPage) -> None:
    commands = page.context.commands
    page.table.clearSelection()
    pump(lambda: commands.why_not("devices.remove"), "the reason")
    page.table.selectRow(0)
    pump(lambda: not commands.why_not("devices.rename"), "one device")
    page.table.selectAll()
    pump(lambda: commands.why_not("devices.rename"), "too many devices")
    assert not commands.why_not("devices.remove")
    menu = page.acting.row_menu(page)
    disabled = {a.text().partition("\t")[0] for a in menu.actions() if not a.isEnabled() and a.text()}
    assert disabled == {"Rename…"}
    assert all(a.toolTip() for a in menu.actions() if not a.isEnabled() and a.text())
    menu.close()
    menu.deleteLater()


def test_renaming_is_a_wish_of_this_operator(page: DevicesPage) -> None:
    page.table.select_devices(["edge-00002"])
    pump(lambda: not page.context.commands.why_not("devices.rename"), "the selection")
    page.context.commands.run("devices.rename")
    dialog = overlay(page, Ask)
    assert isinstance(dialog, Ask)
    dialog.line.setText("x" * 65)
    QTest.keyClick(dialog.line, Key.Key_Return)
    assert "too long" in dialog._wrong.text()
    dialog.line.setText("  Press   3 ")
    QTest.keyClick(dialog.line, Key.Key_Return)
    [wish] = asked(page)
    assert (wish.kind, wish.arguments) == ("device.rename", {"device": "edge-00002", "name": "Press 3"})
    assert wish.operator == page.context.wishes.operator


def test_asking_for_a_report_names_all_that_are_selected(page: DevicesPage) -> None:
    hints: list[str] = []
    page.context.hinted.connect(hints.append)
    page.table.select_devices(["edge-00002", "edge-00004"])
    page.acting.ask_report()
    [wish] = asked(page)
    assert (wish.kind, wish.arguments) == ("device.ask", {"devices": ["edge-00002", "edge-00004"], "ask": "report"})
    taken = page.context.store.write(lambda c: stored_wishes.take(c, "s", 1.0))
    assert taken is not None
    page.context.store.write(lambda c: stored_wishes.finish(c, taken.id, WishState.DONE, "2 answered", now=2.0))
    with page.context.store.read() as connection:
        page.context.wishes.take(feed.read(connection, 0, limit=100_000))
    assert hints[-1].endswith(": done")


def test_removing_names_what_it_touches_and_asks_once(page: DevicesPage) -> None:
    page.table.select_devices(["edge-00002", "edge-00004", "edge-00006"])
    page.acting.remove()
    dialog = overlay(page, Confirm)
    assert isinstance(dialog, Confirm)
    assert dialog.go.text() == "Remove 3 devices"
    assert "3 devices in" in dialog.accessibleName()
    assert dialog.cancel.hasFocus()
    QTest.keyClick(dialog.cancel, Key.Key_Escape)
    assert asked(page) == []
    page.acting.remove()
    dialog = overlay(page, Confirm)
    assert isinstance(dialog, Confirm)
    QTest.keyClick(dialog.go, Key.Key_Return)
    [wish] = asked(page)
    assert wish.arguments == {"devices": ["edge-00002", "edge-00004", "edge-00006"]}
    page.context.settings.set("desk.confirm_destructive", False)
    page.acting.remove()
    assert len(asked(page)) == 2


def test_copying(page: DevicesPage) -> None:
    page.table.select_devices(["edge-00004", "edge-00002"])
    page.acting.copy_ids()
    assert QGuiApplication.clipboard().text() == "edge-00002\nedge-00004"
    page.acting.copy_rows()
    text = QGuiApplication.clipboard().text().splitlines()
    assert text[0].split("\t")[:2] == ["Status", "Device"]
    assert [line.split("\t")[1] for line in text[1:]] == ["edge-00002", "edge-00004"]


def test_what_is_exported_is_what_is_filtered(page: DevicesPage, tmp_path: Path) -> None:
    page.show_filter("status:offline")
    page.model.set_sort("name", descending=True)
    page.acting.export_to(tmp_path / "out.csv", Form.CSV)
    settle(page)
    lines = list(csv.reader(io.StringIO((tmp_path / "out.csv").read_text("utf-8"))))
    assert [row[lines[0].index("id")] for row in lines[1:]] == shown(page)
    assert lines[0] == list(page.table.shown_order())


# ---------------------------------------------------------------- columns and views


def test_columns_are_chosen_ordered_and_remembered(page: DevicesPage) -> None:
    page.looking.open_columns()
    panel = page.looking.panel
    assert panel.ticked() == page.model.column_names
    panel._search.setText("firm")
    visible = [panel.list.item(i) for i in range(panel.list.count()) if not panel.list.item(i).isHidden()]
    assert [item.text() for item in visible] == ["Firmware"]
    visible[0].setCheckState(Qt.CheckState.Checked)
    assert page.model.column_names[-1] == "firmware"
    panel._search.clear()
    panel.list.setCurrentRow(1)
    QTest.keyClick(panel.list, Key.Key_Up, Mod.ControlModifier)
    assert page.model.column_names[:2] == ("id", "status")
    panel.list.setCurrentRow(0)
    at = panel.list.visualItemRect(panel.list.item(2)).center()
    QTest.mouseClick(panel.list.viewport(), Qt.MouseButton.LeftButton, pos=at)
    assert "name" not in page.model.column_names
    assert page.context.settings.recall("devices.looks")["columns"] == list(page.model.column_names)
    panel._reset.click()
    assert page.model.column_names == Looks().columns
    panel.hide()


def test_dragged_columns_and_widths_are_kept(page: DevicesPage) -> None:
    header = page.table.horizontalHeader()
    header.moveSection(0, 2)
    assert page.table.shown_order()[:3] == ("id", "name", "status")
    header.resizeSection(page.model.column_names.index("site"), 222)
    assert page.context.settings.recall("devices.widths") == {"site": 222}
    again = DevicesPage(page.context)
    assert again.model.column_names[:3] == ("id", "name", "status")
    assert again.table.columnWidth(again.model.column_names.index("site")) == 222
    again.deleteLater()


def test_views_are_saved_applied_changed_and_deleted(page: DevicesPage) -> None:
    page.show_filter("status:offline and site:berlin")
    page.model.set_sort("cpu", descending=True)
    page.looking.set_columns(("id", "cpu", "seen"))
    page.looking.save_view()
    dialog = overlay(page, Ask)
    assert isinstance(dialog, Ask)
    dialog.line.setText("Down in Berlin")
    QTest.keyClick(dialog.line, Key.Key_Return)
    settle(page)
    with page.context.store.read() as connection:
        [view] = stored_views.list(connection)
    assert (view.name, view.columns, view.sort, view.descending) == (
        "Down in Berlin",
        ("id", "cpu", "seen"),
        "cpu",
        True,
    )
    assert page.view_menu.text() == "Down in Berlin"
    page.looking.leave_view()
    assert page.view_menu.text() == "Views"
    assert page.model.column_names == Looks().columns
    page.looking.apply_view(view)
    assert page.looking.now() == Looks.of(view)
    page.show_filter("status:offline")
    assert page.view_menu.text() == "Down in Berlin •"
    menu = page.view_menu.build()
    assert "Update “Down in Berlin”" in [a.text() for a in menu.actions()]
    menu.deleteLater()
    page.looking.update_view(view)
    settle(page)
    assert page.view_menu.text() == "Down in Berlin"
    page.looking.rename_view(view)
    dialog = overlay(page, Ask)
    assert isinstance(dialog, Ask)
    dialog.line.setText("Down")
    dialog.go.click()
    settle(page)
    assert [v.name for v in page.views.all()] == ["Down"]
    page.looking.delete_view(page.views.all()[0])
    confirm = overlay(page, Confirm)
    assert isinstance(confirm, Confirm)
    confirm.go.click()
    settle(page)
    with page.context.store.read() as connection:
        assert stored_views.list(connection) == ()
    assert page.view_menu.text() == "Views"


def test_a_view_can_be_linked_to(page: DevicesPage) -> None:
    view = page.views.new("Hot", Looks("temp>70", ("id", "temp"), "temp", descending=True), shared=True)
    page.views.keep(view)
    page.context.navigate("devices", view=view.id)
    assert page.filter.filter == parse("temp>70")
    assert page.model.column_names == ("id", "temp")


def test_menus_hold_every_ready_made_filter(page: DevicesPage) -> None:
    from fleetui.common.domain.filters import DEVICE_RULES

    menu = page.view_menu.build()
    ready = next(m for m in menu.findChildren(QMenu) if len(m.actions()) > 5)
    assert len(ready.actions()) == len(DEVICE_RULES)
    ready.actions()[3].trigger()
    assert page.filter.text() == DEVICE_RULES[3].text
    menu.deleteLater()


# ---------------------------------------------------------------- looks


def test_both_themes_and_both_densities_draw(page: DevicesPage, qapp: QApplication) -> None:
    page.open_device("edge-00002")
    settle(page)
    pictures = []
    for mode in ("light", "dark"):
        page.context.settings.set("appearance.theme", mode)
        qapp.processEvents()
        pictures.append(page.grab().toImage())
    assert pictures[0] != pictures[1]
    before = page.table.rowHeight(0)
    page.context.settings.set("appearance.density", "compact")
    assert page.table.rowHeight(0) < before
