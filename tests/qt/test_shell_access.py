"""Reachable by keyboard and by a screen reader: every page and overlay is walked by Tab."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QAccessible
from PySide6.QtWidgets import QAbstractSpinBox, QApplication, QComboBox, QPushButton, QWidget

from fleetui.common.domain.errors import BugError
from fleetui.desk.app.notices import Level
from fleetui.desk.ui.context import DeskContext
from fleetui.desk.ui.crash import Crash, CrashDialog
from fleetui.desk.ui.shell import PAGES
from fleetui.desk.ui.widgets.basic import Button, Clickable, IconButton, SearchField, Segmented, Switch
from fleetui.desk.ui.window import MainWindow
from tests.qt.test_shell_window import press

STATES = (*(page.id for page in PAGES), "palette", "shortcuts", "connections", "notifications")
LONGEST = 200


def show(window: MainWindow, state: str) -> None:
    if state in window.page_ids:
        window.context.navigate(state)
    elif state == "notifications":
        window.context.notices.say(Level.ERROR, "The disk is full", "Free some space", key="a")
        window.notifications.drawer.open()
    else:
        {"palette": window.palette_, "shortcuts": window.sheet, "connections": window.connections}[state].open()
    QApplication.processEvents()


def walk(window: QWidget) -> Iterator[QWidget]:
    """What has the focus, Tab by Tab, until it comes round."""
    seen: list[QWidget] = []
    for _ in range(LONGEST):
        press(window, Qt.Key.Key_Tab)
        now = QApplication.focusWidget()
        assert now is not None, f"Tab lost the focus after {seen[-1] if seen else 'nothing'}"
        if now in seen:
            return
        seen.append(now)
        yield now
    pytest.fail(f"Tab does not come round within {LONGEST} steps")


def spoken(widget: QWidget) -> str:
    interface = QAccessible.queryAccessibleInterface(widget)
    return interface.text(QAccessible.Text.Name) if interface is not None else ""


def is_inner(widget: QWidget) -> bool:
    """The field inside a spin or combo box: it speaks as its box."""
    return isinstance(widget.parent(), QAbstractSpinBox | QComboBox)


@pytest.mark.parametrize("state", STATES)
def test_everything_that_takes_the_focus_has_a_name_and_can_be_seen(window: MainWindow, state: str) -> None:
    show(window, state)
    visited = list(walk(window))
    assert visited
    for widget in visited:
        if is_inner(widget):
            widget = widget.parent()  # noqa: PLW2901 - speaks for it
        described = f"{type(widget).__name__} {widget.objectName()!r} in {state}"
        assert spoken(widget).strip(), f"no accessible name: {described}"
        assert widget.isVisible(), described
        assert widget.width() > 0, described
        assert widget.height() > 0, described


@pytest.mark.parametrize("state", STATES)
def test_every_control_that_is_seen_is_reached(window: MainWindow, state: str) -> None:
    """No button, field or table that only a mouse can get at."""
    show(window, state)
    reached = set(walk(window))
    root = window.overlay.panel if window.overlay is not None else window.centralWidget()
    controls = [
        widget
        for widget in root.findChildren(QWidget)
        if widget.isVisible() and widget.isEnabled() and widget.focusPolicy() & Qt.FocusPolicy.TabFocus
    ]
    assert controls
    radio_like = {b for s in root.findChildren(Segmented) for b in s.findChildren(QPushButton)}
    missed = [
        f"{type(w).__name__} {w.accessibleName()!r}"
        for w in controls
        if w not in reached and w not in radio_like and not is_inner(w) and w.focusProxy() is None
    ]
    assert not missed


@pytest.mark.parametrize("state", STATES)
def test_back_tab_goes_the_same_way_back(window: MainWindow, state: str) -> None:
    show(window, state)
    forward = list(walk(window))
    if len(forward) < 2:
        return
    forward[1].setFocus(Qt.FocusReason.TabFocusReason)
    press(window, Qt.Key.Key_Backtab, Qt.KeyboardModifier.ShiftModifier)
    assert QApplication.focusWidget() is forward[0]


@pytest.mark.qt_log_ignore("This plugin does not support propagateSizeHints")
def test_crash_dialog_is_walked_too(context: DeskContext, qtbot: object) -> None:
    dialog = CrashDialog(context.theme, Crash("KeyError", "trace", "log"))
    qtbot.addWidget(dialog)  # type: ignore[attr-defined]
    with qtbot.wait_active(dialog):  # type: ignore[attr-defined]
        dialog.show()
        dialog.activateWindow()
    names = {spoken(widget) for widget in walk(dialog)}
    assert {"Copy report", "Quit", "Continue", "Details for a report"} <= names


def test_a_control_without_a_name_cannot_be_made(context: DeskContext) -> None:
    theme = context.theme
    for make in (
        lambda: IconButton(theme, "close", " "),
        lambda: Button(theme, "", icon="close"),
        lambda: SearchField(theme, ""),
        lambda: Switch(theme, ""),
        lambda: Clickable(""),
    ):
        with pytest.raises(BugError, match="accessible name"):
            make()


def test_status_is_never_colour_alone(context: DeskContext) -> None:
    looks = {name: context.theme.look(name) for name in ("online", "late", "offline", "unknown")}
    assert len({look.icon for look in looks.values()}) == 4
    assert len({look.word for look in looks.values()}) == 4
