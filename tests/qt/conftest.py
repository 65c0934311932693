"""Fixtures of the window's tests: a context over a real store, and a main window over that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QCoreApplication, QEvent

from fleetui.desk.ui.context import DeskContext
from fleetui.desk.ui.window import MainWindow
from tests.helpers.qt import desk_context
from tests.helpers.wait import wait_until


@pytest.fixture
def context(tmp_path: Path, qapp: object) -> Iterator[DeskContext]:
    """Sixty devices with a week of history."""
    with desk_context(tmp_path, qapp) as made:
        yield made


@pytest.fixture
def empty_context(tmp_path: Path, qapp: object) -> Iterator[DeskContext]:
    with desk_context(tmp_path, qapp, devices=0) as made:
        yield made


def close(window: MainWindow) -> None:
    """As the program does: what is under way comes back first, then the window goes."""
    app = QCoreApplication.instance()
    wait_until(lambda: app.processEvents() or window.context.operations.idle, what="the end of all operations")
    window.notifications.toasts.clear()
    window.allow_close()
    window.close()
    window.deleteLater()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


@pytest.fixture
def window(context: DeskContext, qtbot: object) -> Iterator[MainWindow]:
    """Shown, on its first page."""
    made = MainWindow(context)
    with qtbot.wait_active(made):  # type: ignore[attr-defined]
        made.show()
        made.activateWindow()
    context.navigate("overview")
    yield made
    close(made)
