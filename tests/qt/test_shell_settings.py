"""The settings page: generated, searchable, validated in words, reset, and marked where a restart is needed."""

from __future__ import annotations

import json

import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QComboBox, QSpinBox

from fleetui.desk.app.settings_list import SETTINGS
from fleetui.desk.ui.context import DeskContext
from fleetui.desk.ui.pages.settings import SettingsPage
from fleetui.desk.ui.widgets.basic import Switch
from fleetui.desk.ui.window import MainWindow
from tests.qt.test_shell_window import press


@pytest.fixture
def page(window: MainWindow, context: DeskContext) -> SettingsPage:
    context.navigate("settings")
    return window.page


def test_every_declared_setting_has_its_row_with_name_and_words(page: SettingsPage) -> None:
    assert [row.setting for row in page.rows()] == list(SETTINGS)
    for row in page.rows():
        assert row.editor.field.accessibleName() == row.setting.label
        assert row.editor.field.accessibleDescription() == row.setting.description


def test_search_looks_into_names_words_and_keys(page: SettingsPage) -> None:
    shown = lambda: {row.setting.key for row in page.rows() if row.isVisibleTo(page)}  # noqa: E731 - asked five times
    QTest.keyClicks(page.search, "postgresql")
    assert shown() == {"store.url"}
    page.search.setText("appearance.theme")
    assert shown() == {"appearance.theme"}
    page.search.setText("dusk dark")
    assert shown() == {"appearance.theme"}
    page.search.setText("no such thing")
    assert shown() == set()
    assert page._nothing.isVisibleTo(page)
    press(page.window(), Qt.Key.Key_Escape)
    page.search.setFocus()
    press(page.window(), Qt.Key.Key_Escape)
    assert len(shown()) == len(SETTINGS)


def test_a_choice_takes_effect_at_once_and_is_written(page: SettingsPage, context: DeskContext) -> None:
    row = page.row_of("appearance.theme")
    box = row.editor.field
    assert isinstance(box, QComboBox)
    box.setFocus()
    press(page.window(), Qt.Key.Key_Down)
    press(page.window(), Qt.Key.Key_Down)
    assert context.settings["appearance.theme"] == "dark"
    assert context.theme.dark
    assert context.settings.path is not None
    assert json.loads(context.settings.path.read_text())["values"]["appearance.theme"] == "dark"


def test_default_is_shown_and_reset_goes_back_to_it(page: SettingsPage, context: DeskContext) -> None:
    row = page.row_of("fleet.beat_s")
    assert not row.reset.isVisibleTo(page)
    assert isinstance(row.editor.field, QSpinBox)
    row.editor.field.setValue(90)
    assert context.settings["fleet.beat_s"] == 90
    assert row.reset.isVisibleTo(page)
    assert row._default.text() == "Default: 30 s"
    QTest.mouseClick(row.reset, Qt.MouseButton.LeftButton)
    assert context.settings["fleet.beat_s"] == 30
    assert row.editor.field.value() == 30
    assert not row.reset.isVisibleTo(page)


def test_what_is_wrong_is_said_and_the_old_value_stays(page: SettingsPage, context: DeskContext) -> None:
    row = page.row_of("broker.url")
    field = row.editor.field
    field.setFocus()
    QTest.keyClicks(field, "http://broker.example")
    press(page.window(), Qt.Key.Key_Return)
    assert "Write mqtt://HOST:PORT" in row._wrong.text()
    assert row._wrong.isVisibleTo(page)
    assert context.settings["broker.url"] == ""
    field.clear()
    QTest.keyClicks(field, "mqtts://broker.example:8883")
    press(page.window(), Qt.Key.Key_Return)
    assert not row._wrong.isVisibleTo(page)
    assert context.settings["broker.url"] == "mqtts://broker.example:8883"


def test_needs_restart_is_marked_while_it_differs_from_what_runs(page: SettingsPage) -> None:
    row = page.row_of("station.own")
    switch = row.editor.field
    assert isinstance(switch, Switch)
    assert not row._restart.isVisibleTo(page)
    switch.setFocus()
    press(page.window(), Qt.Key.Key_Space)
    assert row._restart.isVisibleTo(page)
    press(page.window(), Qt.Key.Key_Return)
    assert not row._restart.isVisibleTo(page), "back to what this run was started with"


def test_a_change_from_elsewhere_is_shown(page: SettingsPage, context: DeskContext) -> None:
    context.settings.set("desk.resort_s", 12.0)
    assert page.row_of("desk.resort_s").editor.field.value() == 12.0


def test_scrolling_past_a_field_changes_nothing(page: SettingsPage, context: DeskContext) -> None:
    row = page.row_of("desk.refresh_hz")
    page.search.setFocus()
    here = QPointF(10, 10)
    wheel = QWheelEvent(
        here, here, QPoint(0, -120), QPoint(0, -120), Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(row.editor.field, wheel)
    assert context.settings["desk.refresh_hz"] == 4.0


def test_groups_lead_to_their_settings(page: SettingsPage) -> None:
    page._jump("Notifications")
    assert QApplication.focusWidget() is page.row_of("notifications.info").editor.field
