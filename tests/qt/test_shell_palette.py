"""The command palette and the shortcut sheet, by keyboard alone."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLabel, QWidget

from fleetui.desk.app.commands import Command, Hit, Need
from fleetui.desk.ui.context import DeskContext
from fleetui.desk.ui.palette import HitModel
from fleetui.desk.ui.window import MainWindow
from fleetui.store.records import Changes, SavedView
from tests.qt.test_shell_window import CTRL, press


def open_with(window: MainWindow, text: str) -> None:
    press(window, Qt.Key.Key_K, CTRL)
    assert window.overlay is window.palette_
    assert QApplication.focusWidget() is window.palette_.field
    QTest.keyClicks(window.palette_.field, text)


def titles(window: MainWindow) -> list[str]:
    model = window.palette_.model
    return [model.index(line).data() for line in range(model.rowCount())]


def test_runs_a_command_and_gives_the_focus_back(window: MainWindow, context: DeskContext) -> None:
    window.rail.button("overview").setFocus()
    open_with(window, "dark th")
    assert titles(window)[0] == "Dark theme"
    press(window, Qt.Key.Key_Return)
    assert window.overlay is None
    assert context.settings["appearance.theme"] == "dark"
    assert context.theme.dark
    assert QApplication.focusWidget() is window.rail.button("overview")


def test_goes_to_a_page(window: MainWindow) -> None:
    open_with(window, "settings")
    press(window, Qt.Key.Key_Return)
    assert window.page_id == "settings"


def test_up_and_down_go_round(window: MainWindow) -> None:
    open_with(window, "theme")
    count = window.palette_.model.rowCount()
    assert count >= 3
    now = window.palette_.list.currentIndex
    assert now().row() == 0
    press(window, Qt.Key.Key_Down)
    assert now().row() == 1
    press(window, Qt.Key.Key_Up)
    press(window, Qt.Key.Key_Up)
    assert now().row() == count - 1
    press(window, Qt.Key.Key_Down)
    assert now().row() == 0


def test_finds_devices_and_leads_to_them(window: MainWindow, context: DeskContext) -> None:
    asked: list[tuple[str, object]] = []
    context.navigated.disconnect()
    context.navigated.connect(lambda page, where: asked.append((page, where)))
    open_with(window, "edge-00042")
    hits = [window.palette_.model.hit(line) for line in range(window.palette_.model.rowCount())]
    assert [hit.id for hit in hits if hit.id.startswith("device:")] == ["device:edge-00042"]
    press(window, Qt.Key.Key_Return)
    assert asked == [("devices", {"device": "edge-00042"})]


def test_odd_letters_in_the_search_are_just_letters(window: MainWindow) -> None:
    for text in ('"', "\\", "status:", "(((", "a or", "'; drop", "*", "🙂"):
        window.palette_.open()
        window.palette_.field.setText(text)
        assert window.overlay is window.palette_


def test_finds_saved_views(window: MainWindow, context: DeskContext) -> None:
    asked: list[tuple[str, object]] = []
    context.take(Changes(seq=9, views=(SavedView("v1", "Hot in Porto", "devices", "temp>70", ()),)))
    context.navigated.disconnect()
    context.navigated.connect(lambda page, where: asked.append((page, where)))
    open_with(window, "porto hot")
    assert titles(window)[0] == "Hot in Porto"
    press(window, Qt.Key.Key_Return)
    assert asked == [("devices", {"view": "v1"})]
    context.take(Changes(seq=10, views_removed=("v1",)))
    open_with(window, "porto hot")
    assert "Hot in Porto" not in titles(window)


def test_what_is_disabled_says_why_and_does_not_run(window: MainWindow, context: DeskContext) -> None:
    ran: list[int] = []
    context.commands.register(Command("x.blow", "Blow the horn", needs=(Need("horn", "There is no horn"),)))
    context.commands.bind("x.blow", lambda: ran.append(1))
    open_with(window, "horn")
    index = window.palette_.model.index(0)
    assert "There is no horn" in index.data(Qt.ItemDataRole.AccessibleTextRole)
    press(window, Qt.Key.Key_Return)
    assert not ran
    assert window.overlay is window.palette_, "it stays open with the reason in sight"
    press(window, Qt.Key.Key_Escape)
    context.commands.set_facts(horn=True)
    open_with(window, "horn")
    press(window, Qt.Key.Key_Return)
    assert ran == [1]


def test_nothing_found_says_so(window: MainWindow) -> None:
    open_with(window, "zzzzqqq")
    assert window.palette_.model.rowCount() == 0
    assert "zzzzqqq" in window.palette_._nothing.text()
    press(window, Qt.Key.Key_Return)
    assert window.overlay is window.palette_


def test_escape_and_a_click_beside_close_it(window: MainWindow) -> None:
    open_with(window, "a")
    press(window, Qt.Key.Key_Escape)
    assert window.overlay is None
    open_with(window, "b")
    QTest.mouseClick(window.palette_, Qt.MouseButton.LeftButton, pos=window.palette_.rect().bottomRight())
    assert window.overlay is None


def test_tab_stays_inside(window: MainWindow) -> None:
    window.connections.open()
    for _ in range(4):
        press(window, Qt.Key.Key_Tab)
        focused = QApplication.focusWidget()
        assert focused is not None
        assert window.connections.panel.isAncestorOf(focused)


def test_it_fits_into_a_small_window(window: MainWindow) -> None:
    window.resize(900, 560)
    window.palette_.open()
    assert window.rect().contains(window.palette_.panel.geometry())
    assert window.palette_.model.rowCount() > 5


def test_sheet_lists_every_shortcut(window: MainWindow, context: DeskContext) -> None:
    press(window, Qt.Key.Key_F1)
    texts = {made.text() for made in window.sheet.findChildren(QLabel)}
    for command in context.commands:
        if command.shortcut:
            assert command.title in texts
    press(window, Qt.Key.Key_Escape)
    assert window.overlay is None


def test_hit_model(qtmodeltester: object, qtbot: object) -> None:
    parent = QWidget()
    qtbot.addWidget(parent)  # type: ignore[attr-defined]
    model = HitModel(parent)
    qtmodeltester.check(model)  # type: ignore[attr-defined]
    model.show([Hit(1.0, "a", "A", "Group"), Hit(0.5, "b", "B", disabled="No")])
    qtmodeltester.check(model)  # type: ignore[attr-defined]
    assert model.index(1).data(Qt.ItemDataRole.AccessibleTextRole) == "B, No"
