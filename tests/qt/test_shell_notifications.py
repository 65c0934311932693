"""Notices as they are seen: bell, drawer, toasts, do not disturb."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import QEvent, QPointF, Qt
from PySide6.QtGui import QEnterEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLabel, QPushButton, QSystemTrayIcon

from fleetui.desk.app.notices import Level, NoticeAction
from fleetui.desk.app.settings import Settings
from fleetui.desk.ui.context import DeskContext
from fleetui.desk.ui.notices import FOREVER, DoNotDisturb
from fleetui.desk.ui.window import MainWindow
from tests.qt.conftest import close
from tests.qt.test_shell_window import press


def say(
    context: DeskContext, level: Level = Level.ERROR, sentence: str = "The disk is full", **more: object
) -> None:
    context.notices.say(level, sentence, "Free some space", **more)


def texts(widget: object) -> str:
    return " | ".join(made.text() for made in widget.findChildren(QLabel) if made.isVisibleTo(widget))  # type: ignore[attr-defined]


def test_bell_counts_what_is_unread(window: MainWindow, context: DeskContext) -> None:
    assert window.bell.accessibleName() == "Notifications"
    say(context)
    say(context, Level.WARNING, "A fan is slow")
    assert window.bell.accessibleName() == "Notifications, 2 unread"
    context.notices.mark_read()
    assert window.bell.accessibleName() == "Notifications"


def test_drawer_lists_newest_first_and_reads_on_closing(window: MainWindow, context: DeskContext) -> None:
    say(context, Level.WARNING, "First", at=context.clock.now() - 60)
    say(context, Level.ERROR, "Second", at=context.clock.now())
    press(window, Qt.Key.Key_N, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier)
    drawer = window.notifications.drawer
    assert window.overlay is drawer
    assert not window.notifications.toasts.toasts, "what is in the drawer need not stand in the corner"
    assert [made.notice.sentence for made in drawer._rows] == ["Second", "First"]
    assert drawer._rows[0].accessibleName() == "error: Second"
    assert "Free some space." in texts(drawer)
    assert context.notices.unread == 2
    press(window, Qt.Key.Key_Escape)
    assert context.notices.unread == 0


def test_drawer_follows_while_it_is_open(window: MainWindow, context: DeskContext) -> None:
    drawer = window.notifications.drawer
    drawer.open()
    assert not drawer._rows
    assert drawer._empty.isVisibleTo(drawer)
    say(context, key="k")
    assert len(drawer._rows) == 1
    assert not window.notifications.toasts.toasts, "no toast over an open drawer"
    say(context, key="k")
    assert "× 2" in texts(drawer)
    context.notices.dismiss("k")
    assert not drawer._rows


def test_ages_grow(window: MainWindow, context: DeskContext) -> None:
    say(context)
    drawer = window.notifications.drawer
    drawer.open()
    assert "now" in texts(drawer)
    context.clock.advance(180)  # type: ignore[attr-defined]
    context.ticked.emit()
    assert "3 min" in texts(drawer)


def test_an_action_leads_to_its_cause(window: MainWindow, context: DeskContext) -> None:
    action = NoticeAction("Open settings", page="settings", arguments={"key": "broker.kind"})
    context.notices.say(Level.WARNING, "No broker is set", key="b", actions=(action,))
    (toast,) = window.notifications.toasts.toasts
    button = next(b for b in toast.findChildren(QPushButton) if b.text() == "Open settings")
    assert "No broker is set" in button.accessibleName()
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    assert window.page_id == "settings"
    assert QApplication.focusWidget() is window.page.row_of("broker.kind").editor.field
    assert not window.notifications.toasts.toasts
    assert context.notices.unread == 0


def test_toasts_are_three_at_most_and_one_for_each_notice(window: MainWindow, context: DeskContext) -> None:
    for n in range(5):
        say(context, sentence=f"Trouble {n}", key=str(n))
    shown = [t.notice.sentence for t in window.notifications.toasts.toasts]
    assert shown == ["Trouble 2", "Trouble 3", "Trouble 4"]
    assert len(context.notices) == 5
    tops = [t.y() for t in window.notifications.toasts.toasts]
    assert tops == sorted(set(tops)), "they stand below each other"


def test_a_toast_waits_while_it_is_pointed_at(window: MainWindow, context: DeskContext) -> None:
    say(context, Level.WARNING)
    (toast,) = window.notifications.toasts.toasts
    assert toast.leaving
    here = QPointF(5, 5)
    QApplication.sendEvent(toast, QEnterEvent(here, here, here))
    assert not toast.leaving
    QApplication.sendEvent(toast, QEvent(QEvent.Type.Leave))
    assert toast.leaving
    toast._timer.timeout.emit()
    assert window.notifications.toasts.toasts == ()


def test_a_toast_unfolds(window: MainWindow, context: DeskContext) -> None:
    long = "The processor of the third machine at the second line has been far too hot for nearly an hour now"
    say(context, sentence=long)
    (toast,) = window.notifications.toasts.toasts
    assert long not in texts(toast)
    before = toast.height()
    QTest.mouseClick(toast, Qt.MouseButton.LeftButton)
    assert toast.expanded
    assert long in texts(toast)
    assert "Free some space." in texts(toast)
    assert toast.height() > before


def test_critical_ones_stay_until_they_are_dismissed(window: MainWindow, context: DeskContext) -> None:
    say(context, Level.CRITICAL)
    (toast,) = window.notifications.toasts.toasts
    assert not toast.leaving


def test_what_was_read_elsewhere_leaves_the_corner(window: MainWindow, context: DeskContext) -> None:
    say(context, key="a")
    assert window.notifications.toasts.toasts
    context.notices.resolve("a")
    assert not window.notifications.toasts.toasts


def test_do_not_disturb(window: MainWindow, context: DeskContext) -> None:
    quiet = window.notifications.quiet
    quiet.set(3600)
    say(context, key="a")
    assert not window.notifications.toasts.toasts
    assert context.notices.unread == 1, "it is listed all the same"
    window.notifications.drawer.open()
    assert "Do not disturb until" in texts(window.notifications.drawer)
    window.notifications.drawer.dismiss()
    quiet.set(0)
    say(context, key="b")
    assert window.notifications.toasts.toasts


def test_do_not_disturb_is_kept_over_a_restart(context: DeskContext, tmp_path: Path) -> None:
    DoNotDisturb(context).set(FOREVER)
    context.settings = Settings.load(context.settings.path)
    again = DoNotDisturb(context)
    assert again.on
    again.set(0)
    context.settings = Settings.load(context.settings.path)
    assert not DoNotDisturb(context).on


def test_settings_decide_which_levels_pop_up(window: MainWindow, context: DeskContext) -> None:
    say(context, Level.INFO, "Good to know", key="i")
    assert not window.notifications.toasts.toasts
    context.settings.set("notifications.info", True)
    say(context, Level.INFO, "Good to know too", key="j")
    assert window.notifications.toasts.toasts


def test_toasts_stay_inside_a_window_that_shrinks(window: MainWindow, context: DeskContext) -> None:
    say(context)
    window.resize(900, 560)
    stack = window.notifications.toasts
    assert window.rect().contains(stack.geometry())


@pytest.mark.qt_log_ignore("systemTrayWindowChanged", "does not support raise")
def test_tray_speaks_while_the_window_is_not_in_front(
    context: DeskContext, qtbot: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tray that this platform lacks: its two questions are answered, the rest is the real thing."""
    monkeypatch.setattr(QSystemTrayIcon, "isSystemTrayAvailable", staticmethod(lambda: True))
    monkeypatch.setattr(QSystemTrayIcon, "supportsMessages", staticmethod(lambda: True))
    shown: list[tuple[str, str]] = []

    def remember(_icon: object, title: str, text: str, *_rest: object) -> None:
        shown.append((title, text))

    monkeypatch.setattr(QSystemTrayIcon, "showMessage", remember)
    window = MainWindow(context)
    context.navigate("overview")
    action = NoticeAction("Open settings", page="settings")
    context.notices.say(Level.ERROR, "No broker is set", "Set one", key="b", actions=(action,))
    assert shown == [("FleetUI: Error", "No broker is set.")]
    assert not window.notifications.toasts.toasts
    window.notifications.tray._clicked()
    assert window.isVisible(), "a click brings the window to the front"
    assert window.page_id == "settings", "and lands on the cause"
    close(window)
