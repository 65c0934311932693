"""Notifications as they are seen: the drawer behind the bell, toasts, and the desktop's own notifications.

What a notice says, how notices are grouped and which may pop up is decided in ``app/notices.py``; here is decided
where it is shown. While “do not disturb” is on, nothing pops up and everything is still listed. Main thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Slot
from PySide6.QtWidgets import QApplication, QMenu, QSystemTrayIcon, QWidget

from fleetui.desk.app.notices import Level, Notice
from fleetui.desk.ui.drawer import NoticeDrawer
from fleetui.desk.ui.notices import LOOKS, DoNotDisturb, act
from fleetui.desk.ui.toasts import ToastStack

if TYPE_CHECKING:
    from fleetui.desk.ui.context import DeskContext


class Tray(QObject):
    """The desktop's own notifications, where there is a tray: used while the window is not in front."""

    def __init__(self, window: QWidget, context: DeskContext, quit_: Callable[[], None]) -> None:
        super().__init__(window)
        self._window, self._context = window, context
        self._last: Notice | None = None
        self._icon: QSystemTrayIcon | None = None
        if not QSystemTrayIcon.isSystemTrayAvailable():
            return
        self._icon = QSystemTrayIcon(context.theme.icon("logo", "accent", 24), self)
        self._icon.setToolTip("FleetUI")
        menu = QMenu(window)
        menu.addAction(self.tr("Show the window"), self._raise)
        menu.addAction(self.tr("Quit"), quit_)
        self._icon.setContextMenu(menu)
        self._icon.activated.connect(self._activated)
        self._icon.messageClicked.connect(self._clicked)
        self._icon.show()

    @property
    def available(self) -> bool:
        return self._icon is not None and QSystemTrayIcon.supportsMessages()

    def show_notice(self, notice: Notice) -> None:
        if self._icon is None:
            return
        self._last = notice
        kind = {
            Level.INFO: QSystemTrayIcon.MessageIcon.Information,
            Level.WARNING: QSystemTrayIcon.MessageIcon.Warning,
        }.get(notice.level, QSystemTrayIcon.MessageIcon.Critical)
        title = self._context.theme.look(LOOKS[notice.level]).word.capitalize()
        self._icon.showMessage(f"FleetUI: {title}", notice.sentence + ".", kind, 8000)

    @Slot()
    def _raise(self) -> None:
        self._window.showNormal() if self._window.isMinimized() else self._window.show()
        self._window.raise_()
        self._window.activateWindow()

    @Slot(QSystemTrayIcon.ActivationReason)
    def _activated(self, reason: QSystemTrayIcon.ActivationReason) -> None:
        if reason == QSystemTrayIcon.ActivationReason.Trigger:
            self._raise()

    @Slot()
    def _clicked(self) -> None:
        self._raise()
        notice = self._last
        if notice is not None and notice.actions:
            act(self._context, notice, notice.actions[0])

    def hide(self) -> None:
        if self._icon is not None:
            self._icon.hide()


class Notifications(QObject):
    """Drawer, toasts and tray of one window, and who of them speaks when."""

    def __init__(self, window: QWidget, context: DeskContext, quit_: Callable[[], None]) -> None:
        super().__init__(window)
        self._window, self._context = window, context
        self.quiet = DoNotDisturb(context, self)
        self.drawer = NoticeDrawer(window, context, self.quiet)
        self.toasts = ToastStack(window, context)
        self.tray = Tray(window, context, quit_)
        context.notices.on_new(self._new)
        context.notices.on_changed(self._settled)

    def _settled(self) -> None:
        """What is read or gone need not stand in the corner any more."""
        for toast in self.toasts.toasts:
            notice = self._context.notices.get(toast.notice.key)
            if notice is None or notice.read:
                toast.close()

    def _new(self, notice: Notice) -> None:
        if self.quiet.on or self.drawer.is_open:
            return
        if self._window.isActiveWindow() or not self.tray.available:
            self.toasts.show_notice(notice)
        else:
            self.tray.show_notice(notice)
        if notice.level >= Level.ERROR and not self._window.isActiveWindow():
            QApplication.alert(self._window)
