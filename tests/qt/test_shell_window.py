"""The main window: pages, navigation by keyboard, links, counters, what it remembers."""

from __future__ import annotations

import sys

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLineEdit, QWidget

from fleetui.desk.app.commands import Command, Need
from fleetui.desk.app.notices import Level
from fleetui.desk.app.settings import Settings
from fleetui.desk.ui.context import DeskContext, Page
from fleetui.desk.ui.shell import PAGES, PageSpec
from fleetui.desk.ui.window import MainWindow
from tests.helpers.qt import station_status
from tests.qt.conftest import close


class OnePage(Page):
    page_id = "one"

    def __init__(self, context: DeskContext) -> None:
        super().__init__(context)
        self.field = QLineEdit(self)
        self.field.setAccessibleName("Field")

    @property
    def title(self) -> str:
        return "One"

    def commands(self) -> tuple[Command, ...]:
        return (Command("one.act", "Act", shortcut="Ctrl+E"),)


CTRL = Qt.KeyboardModifier.ControlModifier


def press(window: QWidget, key: Qt.Key, modifiers: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
    """A key as the platform delivers it: to what has the focus, shortcuts first."""
    QTest.keyClick(window.windowHandle(), key, modifiers)


def test_pages_are_made_on_the_first_visit(context: DeskContext, qtbot: object) -> None:
    window = MainWindow(context)
    window.show()
    assert window._pages == {}
    context.navigate("settings")
    assert list(window._pages) == ["settings"]
    first = window.page
    context.navigate("overview")
    context.navigate("settings")
    assert window.page is first
    close(window)


def test_navigation_by_keyboard(window: MainWindow) -> None:
    assert window.page_id == "overview"
    press(window, Qt.Key.Key_Comma, CTRL)
    assert window.page_id == "settings"
    assert window.rail.button("settings").isChecked()
    assert window.title.text() == "Settings"
    assert "Settings" in window.windowTitle()
    press(window, Qt.Key.Key_1, CTRL)
    assert window.page_id == "overview"
    press(window, Qt.Key.Key_Left, Qt.KeyboardModifier.AltModifier)
    assert window.page_id == "settings"
    press(window, Qt.Key.Key_Right, Qt.KeyboardModifier.AltModifier)
    assert window.page_id == "overview"


def test_rail_by_mouse_and_enter(window: MainWindow, qtbot: object) -> None:
    qtbot.mouseClick(window.rail.button("settings"), Qt.MouseButton.LeftButton)  # type: ignore[attr-defined]
    assert window.page_id == "settings"
    window.rail.button("overview").setFocus()
    press(window, Qt.Key.Key_Return)
    assert window.page_id == "overview"


def test_narrow_rail_is_remembered(window: MainWindow, context: DeskContext) -> None:
    wide = window.rail.width()
    press(window, Qt.Key.Key_B, CTRL)
    assert window.rail.is_narrow
    assert window.rail.width() < wide
    second = MainWindow(context)
    assert second.rail.is_narrow
    second.deleteLater()


def test_geometry_and_page_are_remembered_in_the_file(window: MainWindow, context: DeskContext) -> None:
    window.resize(1011, 677)  # the offscreen platform's screen is 800 wide, so only the height comes back whole
    context.navigate("settings")
    window.remember()
    again = Settings.load(context.settings.path)
    context.settings = again
    second = MainWindow(context)
    assert second.height() == 677
    assert second.last_page == "settings"
    second.deleteLater()


def test_damaged_geometry_is_ignored(context: DeskContext) -> None:
    context.settings.remember("window.geometry", "not base64 at all!")
    window = MainWindow(context)
    assert window.width() >= 900
    window.deleteLater()


def test_a_page_that_is_not_there_leads_to_the_first(window: MainWindow, context: DeskContext) -> None:
    context.navigate("settings")
    context.navigate("no-such-page")
    assert window.page_id == "overview"


def test_links_say_icon_word_and_detail(window: MainWindow) -> None:
    window.show_link("broker", "connected", "127.0.0.1:1883")
    window.show_link("station", "failed", "It does not stay up (exit code 1)")
    broker, station = window.footer.links["broker"], window.footer.links["station"]
    assert broker.accessibleName() == "Broker: connected"
    assert station.accessibleName() == "Station: failed"
    assert "exit code 1" in station.toolTip()
    broker.setFocus()
    press(window, Qt.Key.Key_Return)
    assert window.overlay is window.connections
    press(window, Qt.Key.Key_Escape)
    assert window.overlay is None


def test_counters_and_rate_come_from_the_station(window: MainWindow) -> None:
    window.footer.show_counters(station_status(received=1234567.0, lost=3.0, received_per_s=340.4).counters)
    assert window.footer._numbers["received"].text() == "1,234,567"
    assert window.footer._numbers["lost"].text() == "3"
    assert window.footer._numbers["lost"].property("tone") == "warn"
    assert window.footer._numbers["dropped"].property("tone") == ""
    assert window.footer._rate.text() == "340/s"
    window.footer.show_counters({})
    assert window.footer._numbers["received"].text() == "–"


def test_clock_shows_fleet_time_and_its_speed(window: MainWindow, context: DeskContext) -> None:
    before = window.footer._time.text()
    context.clock.advance(65)  # type: ignore[attr-defined]
    context.ticked.emit()
    assert window.footer._time.text() != before
    assert window.footer._speed.isHidden()
    context.clock.rate = 60.0  # type: ignore[misc]
    context.ticked.emit()
    assert not window.footer._speed.isHidden()
    assert window.footer._speed.text() == "×60"


def test_a_shortcut_that_cannot_run_says_why(window: MainWindow, context: DeskContext) -> None:
    ran = []
    command = Command("app.blow", "Blow the horn", shortcut="Ctrl+J", needs=(Need("horn", "There is no horn"),))
    context.commands.register(command)
    context.commands.bind("app.blow", lambda: ran.append(1))
    window._shortcut(command, window, Qt.ShortcutContext.WindowShortcut)
    press(window, Qt.Key.Key_J, CTRL)
    assert window.footer._hint.text() == "Blow the horn: There is no horn"
    assert not ran
    context.commands.set_facts(horn=True)
    press(window, Qt.Key.Key_J, CTRL)
    assert ran


def test_question_mark_opens_the_sheet_but_not_while_typing(window: MainWindow, context: DeskContext) -> None:
    context.navigate("settings")
    window.page.search.setFocus()
    QTest.keyClicks(window.page.search, "?")
    assert window.page.search.text() == "?"
    assert window.overlay is None
    window.rail.button("settings").setFocus()
    press(window, Qt.Key.Key_Question)
    assert window.overlay is window.sheet


def test_nothing_below_an_overlay_runs(window: MainWindow) -> None:
    press(window, Qt.Key.Key_F1)
    assert window.overlay is window.sheet
    press(window, Qt.Key.Key_Q, CTRL)
    assert window.isVisible()
    press(window, Qt.Key.Key_Comma, CTRL)  # going elsewhere closes it
    assert window.overlay is None
    assert window.page_id == "settings"


def test_closing_asks_its_owner_first(window: MainWindow, qtbot: object) -> None:
    with qtbot.wait_signal(window.closing):  # type: ignore[attr-defined]
        window.close()
    assert window.isVisible()
    window.allow_close()
    window.close()
    assert not window.isVisible()


def test_heavy_libraries_wait_until_they_are_needed() -> None:
    """The first page needs neither charts nor the database: they would double the time until it is there."""
    import subprocess

    code = (
        "import sys; import fleetui.desk.ui.main, fleetui.desk.ui.pages.overview, fleetui.desk.ui.pages.settings;"
        "heavy = {'pyqtgraph', 'paho', 'sqlalchemy', 'alembic', 'cryptography', 'psycopg', 'tvm', 'onnx'};"
        "print(sorted({m.split('.')[0] for m in sys.modules} & heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_two_pages_may_share_a_shortcut_and_each_gets_its_own(context: DeskContext, qtbot: object) -> None:
    window = MainWindow(context, (*PAGES[:1], PageSpec("one", "One", "star", __name__, "OnePage")))
    with qtbot.wait_exposed(window):  # type: ignore[attr-defined]
        window.show()
    ran: list[str] = []
    context.commands.bind("one.act", lambda: ran.append("one"))
    context.navigate("one")
    window.page.field.setFocus()
    press(window, Qt.Key.Key_E, CTRL)
    assert ran == ["one"]
    context.navigate("overview")
    window.rail.button("overview").setFocus()
    press(window, Qt.Key.Key_E, CTRL)
    assert ran == ["one"], "a page's shortcut works on that page only"
    close(window)


class Shown(QObject):
    """Notes every top-level window that appears, however short."""

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[str] = []

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        if event.type() == QEvent.Type.Show and isinstance(watched, QWidget) and watched.isWindow():
            self.windows.append(f"{type(watched).__name__} {watched.objectName()}")
        return False


def test_no_window_flashes_up_while_pages_are_made(window: MainWindow, context: DeskContext, qapp: object) -> None:
    """A widget that is shown before it has a parent is a window for a moment, and takes the focus away."""
    shown = Shown()
    qapp.installEventFilter(shown)  # type: ignore[attr-defined]
    for page in window.page_ids:
        context.navigate(page)
    window.palette_.open()
    window.sheet.open()
    context.notices.say(Level.ERROR, "The disk is full", "Free some space")
    window.notifications.drawer.open()
    window.notifications.drawer.dismiss()
    qapp.removeEventFilter(shown)  # type: ignore[attr-defined]
    assert shown.windows == []
