"""What drawer, toasts and tray have in common: looks of the levels, what a button does, and do-not-disturb.

Main thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication, QObject, Signal, Slot

from fleetui.common.domain.clock import SystemClock
from fleetui.desk.app.notices import Level, Notice, NoticeAction

if TYPE_CHECKING:
    from fleetui.desk.ui.context import DeskContext

LOOKS = {Level.INFO: "info", Level.WARNING: "warning", Level.ERROR: "error", Level.CRITICAL: "critical"}
FOREVER = float("inf")


def words(text: str) -> str:
    """A label of the Qt-free logic, in the user's language."""
    return QCoreApplication.translate("Notices", text)


def act(context: DeskContext, notice: Notice, action: NoticeAction) -> None:
    """What a notice's button does: the command it names, or the page it leads to."""
    context.notices.mark_read(notice.key)
    if action.command:
        context.commands.run(action.command, **action.arguments)
    elif action.page:
        context.navigate(action.page, **action.arguments)


class DoNotDisturb(QObject):
    """Until when nothing pops up. Real time, not fleet time; kept over a restart."""

    changed = Signal()

    def __init__(self, context: DeskContext, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._settings = context.settings
        self._clock = SystemClock()
        until = context.settings.recall("notifications.quiet_until", 0.0)
        self._until = FOREVER if until == "always" else float(until)
        self._was_on = self.on
        context.ticked.connect(self._ended)

    @property
    def on(self) -> bool:
        return self._clock.now() < self._until

    @property
    def until(self) -> float:
        return self._until

    def set(self, seconds: float) -> None:
        """For so long; 0 turns it off."""
        self._until = FOREVER if seconds == FOREVER else self._clock.now() + seconds if seconds else 0.0
        self._settings.remember("notifications.quiet_until", "always" if self._until == FOREVER else self._until)
        self._settings.save()
        self._was_on = self.on
        self.changed.emit()

    @Slot()
    def _ended(self) -> None:
        if self._was_on != self.on:
            self._was_on = self.on
            self.changed.emit()
