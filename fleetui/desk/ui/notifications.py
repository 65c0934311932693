"""Notifications as they are seen: the drawer behind the bell, toasts, and the desktop's own notifications.

What a notice says, how notices are grouped and which may pop up is decided in ``app/notices.py``; here they are
drawn. While “do not disturb” is on, nothing pops up and everything is still listed. Main thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PySide6.QtCore import (
    QCoreApplication,
    QEasingCurve,
    QEvent,
    QObject,
    QPoint,
    QPropertyAnimation,
    QRect,
    Qt,
    QTimer,
    Signal,
    Slot,
)
from PySide6.QtGui import QAccessible, QAccessibleAnnouncementEvent, QAction, QCloseEvent, QMouseEvent
from PySide6.QtWidgets import (
    QApplication,
    QFrame,
    QMenu,
    QScrollArea,
    QSizePolicy,
    QSystemTrayIcon,
    QVBoxLayout,
    QWidget,
)

from fleetui.common.domain import ages
from fleetui.common.domain.clock import SystemClock
from fleetui.desk.app.notices import Level, Notice, NoticeAction
from fleetui.desk.app.text import moment
from fleetui.desk.ui.widgets.basic import (
    Button,
    ElidedLabel,
    IconButton,
    IconLabel,
    column,
    label,
    line,
    named,
    row,
)
from fleetui.desk.ui.widgets.empty import EmptyState
from fleetui.desk.ui.widgets.overlay import Overlay

if TYPE_CHECKING:
    from fleetui.desk.ui.context import DeskContext

LOOKS = {Level.INFO: "info", Level.WARNING: "warning", Level.ERROR: "error", Level.CRITICAL: "critical"}
STAYS_MS = {Level.INFO: 5000, Level.WARNING: 8000, Level.ERROR: 12000, Level.CRITICAL: 0}  # 0: until dismissed
DRAWN = 80
TOASTS = 3
FOREVER = float("inf")


def _tr(text: str) -> str:
    return QCoreApplication.translate("Notices", text)


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


class NoticeRow(QFrame):
    """One notice in the drawer."""

    def __init__(self, context: DeskContext, notice: Notice, act: Callable[[Notice, NoticeAction], None]) -> None:
        super().__init__()
        self._context = context
        self.notice = notice
        theme = context.theme
        look = theme.look(LOOKS[notice.level])
        over = bool(notice.over)
        role = "idle" if over else look.role
        self.setAccessibleName(f"{look.word}: {notice.sentence}")
        word = self.tr("over") if over else look.word
        self._age = label("", "caption", "muted")
        count = label(f"× {notice.count:,}", "caption", "muted")
        if notice.count <= 1:
            count.hide()
        unread = label(self.tr("new"), "caption", "accent")
        if notice.read:
            unread.hide()
        dismiss = IconButton(theme, "close", self.tr("Dismiss: {0}").format(notice.sentence), size=12)
        dismiss.setToolTip(self.tr("Dismiss"))
        dismiss.clicked.connect(self._dismiss)
        text = label(notice.sentence + ".", "body", wrap=True)
        if not notice.read:
            text.setProperty("type", "strong")
        head = row(label(word, "caption", role), count, self._age, unread, 1, dismiss, space=8)
        lines = column(head, text, space=3)
        if notice.fix and not over:
            lines.addWidget(label(notice.fix + ".", "small", "muted", wrap=True))
        if notice.actions:
            buttons = row(space=12)
            for action in notice.actions:
                button = Button(theme, _tr(action.label), "link", name=f"{_tr(action.label)}: {notice.sentence}")
                button.clicked.connect(lambda _=False, a=action: act(notice, a))
                buttons.addWidget(button)
            buttons.addStretch(1)
            buttons.setContentsMargins(0, 2, 0, 0)
            lines.addLayout(buttons)
        icon = IconLabel(theme, "check" if over else look.icon, role, 18)
        layout = row(column(icon, 1, margins=(0, 4, 0, 0)), lines, space=12, margins=(20, 10, 16, 14))
        layout.setStretch(1, 1)
        self.setLayout(layout)
        self.refresh_age()

    def refresh_age(self) -> None:
        now = self._context.clock.now()
        at = self.notice.over or self.notice.at
        self._age.setText(ages.age_of(at, now))
        self._age.setToolTip(moment(at))

    @Slot()
    def _dismiss(self) -> None:
        self._context.notices.dismiss(self.notice.key)


class NoticeDrawer(Overlay):
    """All notices, newest first, over the right edge of the window."""

    WIDTH = 420

    def __init__(self, window: QWidget, context: DeskContext, quiet: DoNotDisturb) -> None:
        super().__init__(window, context.theme, "drawer", veil=0.12)
        self._context, self._quiet = context, quiet
        self.setObjectName("notice-drawer")
        self.setAccessibleName(self.tr("Notifications"))
        theme = context.theme
        self._bell = IconButton(theme, "bell", self.tr("Do not disturb"))
        self._bell.setPopupMode(IconButton.ToolButtonPopupMode.InstantPopup)
        self._bell.setMenu(self._quiet_menu())
        self._read_all = IconButton(theme, "check", self.tr("Mark all as read"))
        self._read_all.clicked.connect(self._mark_read)
        self._clear = IconButton(theme, "trash", self.tr("Remove what is read"))
        self._clear.clicked.connect(self._remove_read)
        close = IconButton(theme, "close", self.tr("Close"), shortcut="Esc")
        close.clicked.connect(self.dismiss)
        self._close = close
        head = row(
            label(self.tr("Notifications"), "heading"), 1, self._bell, self._read_all, self._clear, close,
            space=4, margins=(20, 12, 12, 12),
        )  # fmt: skip
        self._quiet_line = label("", "small", "muted")
        self._quiet_line.setContentsMargins(20, 0, 20, 8)
        self._area = QScrollArea()
        self._area.setWidgetResizable(True)
        self._area.setFrameShape(QFrame.Shape.NoFrame)
        self._area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        named(self._area, self.tr("Notifications"))
        self._empty = EmptyState(
            theme, "bell", self.tr("Nothing has happened"),
            self.tr("Warnings and errors of devices, broker and station appear here."), width=320,
        )  # fmt: skip
        layout = column(head, self._quiet_line, line(), self._area, self._empty, space=0)
        layout.setStretch(3, 1)
        layout.setStretch(4, 1)
        self.panel.setLayout(layout)
        self._rows: list[NoticeRow] = []
        self._stale = True
        context.notices.on_changed(self._changed)
        context.ticked.connect(self._ages)
        quiet.changed.connect(self._quiet_changed)
        self._quiet_changed()

    def place(self, room: QRect) -> QRect:
        width = min(self.WIDTH, room.width() - 40)
        return QRect(room.width() - width, 0, width, room.height())

    def first_focus(self) -> QWidget:
        return self._close

    def open(self) -> None:
        self._fill()
        super().open()

    def dismiss(self) -> None:
        if self.isVisible():
            self._context.notices.mark_read()
        super().dismiss()

    def _quiet_menu(self) -> QMenu:
        menu = QMenu(self)
        for text, seconds in (
            (self.tr("Pop-ups are shown"), 0.0),
            (self.tr("None for an hour"), 3600.0),
            (self.tr("None for eight hours"), 8 * 3600.0),
            (self.tr("None until I turn them on"), FOREVER),
        ):
            action = QAction(text, menu)
            action.triggered.connect(lambda _=False, s=seconds: self._quiet.set(s))
            menu.addAction(action)
        return menu

    @Slot()
    def _quiet_changed(self) -> None:
        on = self._quiet.on
        self._bell.set_icon("bell-off" if on else "bell", "accent" if on else "muted")
        until = self._quiet.until
        if on and until != FOREVER:
            text = self.tr("Do not disturb until {0}").format(moment(until)[11:16])
        else:
            text = self.tr("Do not disturb is on")
        self._quiet_line.setText(text)
        self._quiet_line.setVisible(on)

    def _changed(self) -> None:
        self._stale = True
        if self.isVisible():
            self._fill()

    def _fill(self) -> None:
        if not self._stale:
            self._ages()
            return
        self._stale = False
        notices = self._context.notices.all()
        body = QWidget()
        body.setProperty("clear", True)
        layout = QVBoxLayout(body)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        self._rows = []
        for notice in notices[:DRAWN]:
            made = NoticeRow(self._context, notice, self._act)
            self._rows.append(made)
            layout.addWidget(made)
            layout.addWidget(line())
        if len(notices) > DRAWN:
            more = label(self.tr("and {0} older ones").format(len(notices) - DRAWN), "small", "muted")
            more.setAlignment(Qt.AlignmentFlag.AlignCenter)
            more.setContentsMargins(0, 12, 0, 12)
            layout.addWidget(more)
        layout.addStretch(1)
        at = self._area.verticalScrollBar().value()
        had_focus = self._area.isAncestorOf(QApplication.focusWidget() or self)
        self._area.setWidget(body)
        self._area.verticalScrollBar().setValue(at)
        self._area.setVisible(bool(notices))
        self._empty.setVisible(not notices)
        self._clear.setEnabled(bool(notices))
        self._read_all.setEnabled(self._context.notices.unread > 0)
        if had_focus and self.isVisible():
            self._close.setFocus()

    @Slot()
    def _ages(self) -> None:
        if self.isVisible():
            for made in self._rows:
                made.refresh_age()

    @Slot()
    def _mark_read(self) -> None:
        self._context.notices.mark_read()

    @Slot()
    def _remove_read(self) -> None:
        self._context.notices.mark_read()
        self._context.notices.dismiss()

    def _act(self, notice: Notice, action: NoticeAction) -> None:
        self.dismiss()
        act(self._context, notice, action)


def act(context: DeskContext, notice: Notice, action: NoticeAction) -> None:
    """What a notice's button does: the command it names, or the page it leads to."""
    context.notices.mark_read(notice.key)
    if action.command:
        context.commands.run(action.command, **action.arguments)
    elif action.page:
        context.navigate(action.page, **action.arguments)


class Toast(QFrame):
    """One notice in the corner: a line, unfolding on a click, leaving by itself unless it is pointed at."""

    gone = Signal(object)
    WIDTH = 400

    def __init__(self, parent: QWidget, context: DeskContext, notice: Notice) -> None:
        super().__init__(parent)
        self.setObjectName("toast")
        self._context = context
        self.notice = notice
        theme = context.theme
        look = theme.look(LOOKS[notice.level])
        self.setAccessibleName(f"{look.word}: {notice.sentence}")
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self._short = ElidedLabel(notice.sentence + ".", "strong")
        self._long = label(notice.sentence + ".", "strong", wrap=True)
        self._long.hide()
        self._fix = label(notice.fix + "." if notice.fix else "", "small", "muted", wrap=True)
        self._fix.hide()
        close = IconButton(theme, "close", self.tr("Dismiss: {0}").format(notice.sentence), size=12)
        close.setToolTip(self.tr("Dismiss"))
        close.clicked.connect(self.close)
        texts = column(label(look.word, "caption", look.role), self._short, self._long, self._fix, space=2)
        if notice.actions:
            buttons = row(space=12)
            buttons.setContentsMargins(0, 2, 0, 0)
            for action in notice.actions:
                button = Button(theme, _tr(action.label), "link", name=f"{_tr(action.label)}: {notice.sentence}")
                button.clicked.connect(lambda _=False, a=action: self._act(a))
                buttons.addWidget(button)
            buttons.addStretch(1)
            texts.addLayout(buttons)
        layout = row(
            column(IconLabel(theme, look.icon, look.role, 20), 1), texts, column(close, 1),
            space=12, margins=(16, 12, 10, 12),
        )  # fmt: skip
        layout.setStretch(1, 1)
        self.setLayout(layout)
        self.setFixedWidth(self.WIDTH)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Minimum)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.close)
        self._stays = STAYS_MS[notice.level]
        self._run_timer()

    @property
    def expanded(self) -> bool:
        return self._long.isVisibleTo(self)

    @property
    def leaving(self) -> bool:
        """Whether the time until it goes by itself is running."""
        return self._timer.isActive()

    def _run_timer(self) -> None:
        if self._stays:
            self._timer.start(self._stays)

    def enterEvent(self, event: QEvent) -> None:
        self._timer.stop()
        super().enterEvent(event)

    def leaveEvent(self, event: QEvent) -> None:
        self._run_timer()
        super().leaveEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            self.expand(on=not self.expanded)

    def expand(self, *, on: bool) -> None:
        self._short.setVisible(not on)
        self._long.setVisible(on)
        self._fix.setVisible(on and bool(self.notice.fix))
        self.adjustSize()
        self._rearrange()

    def _rearrange(self) -> None:
        stack = self.parent()
        if isinstance(stack, ToastStack):
            stack.arrange()

    def _act(self, action: NoticeAction) -> None:
        notice, context = self.notice, self._context
        self.close()
        act(context, notice, action)

    def closeEvent(self, event: QCloseEvent) -> None:
        self._timer.stop()
        self.gone.emit(self)
        super().closeEvent(event)


class ToastStack(QWidget):
    """The corner where toasts appear, at most three; more wait in the drawer."""

    def __init__(self, window: QWidget, context: DeskContext) -> None:
        super().__init__(window)
        self._context = context
        self._window = window
        self._toasts: list[Toast] = []
        self._moves: dict[Toast, QPropertyAnimation] = {}
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setAccessibleName(self.tr("New notifications"))
        self.hide()
        window.installEventFilter(self)

    @property
    def toasts(self) -> tuple[Toast, ...]:
        return tuple(self._toasts)

    def show_notice(self, notice: Notice) -> None:
        for old in [t for t in self._toasts if t.notice.key == notice.key]:
            old.close()
        while len(self._toasts) >= TOASTS:
            self._toasts[0].close()
        toast = Toast(self, self._context, notice)
        toast.gone.connect(self._gone)
        toast.adjustSize()
        self._toasts.append(toast)
        toast.show()
        self.arrange(arriving=toast)
        QAccessible.updateAccessibility(QAccessibleAnnouncementEvent(self, f"{notice.sentence}. {notice.fix}"))

    def clear(self) -> None:
        for toast in self.toasts:
            toast.close()

    @Slot(object)
    def _gone(self, toast: Toast) -> None:
        if toast in self._toasts:
            self._toasts.remove(toast)
            self._moves.pop(toast, None)
            toast.deleteLater()
            self.arrange()

    def arrange(self, arriving: Toast | None = None) -> None:
        if not self._toasts:
            self.hide()
            return
        heights = [max(t.sizeHint().height(), t.minimumSizeHint().height()) for t in self._toasts]
        height = sum(heights) + 8 * (len(heights) - 1)
        room = self._window.rect()
        self.setGeometry(room.width() - Toast.WIDTH - 20, room.height() - height - 52, Toast.WIDTH + 20, height)
        y = 0
        for toast, tall in zip(self._toasts, heights, strict=True):
            toast.resize(Toast.WIDTH, tall)
            if toast is arriving and self._context.theme.motion():
                self._slide(toast, y)
            elif toast not in self._moves or self._moves[toast].state() != QPropertyAnimation.State.Running:
                toast.move(0, y)
            y += tall + 8
        self.show()
        self.raise_()

    def _slide(self, toast: Toast, y: int) -> None:
        move = QPropertyAnimation(toast, b"pos", toast)
        move.setDuration(self._context.theme.motion("slow"))
        move.setStartValue(QPoint(40, y))
        move.setEndValue(QPoint(0, y))
        move.setEasingCurve(QEasingCurve.Type.OutCubic)
        self._moves[toast] = move
        move.start()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self._window and event.type() == QEvent.Type.Resize and self._toasts:
            self.arrange()
        return False


@dataclass(slots=True)
class _Spoken:
    notice: Notice | None = None


class Tray(QObject):
    """The desktop's own notifications, where there is a tray: used while the window is not in front."""

    def __init__(self, window: QWidget, context: DeskContext, quit_: Callable[[], None]) -> None:
        super().__init__(window)
        self._window, self._context = window, context
        self._last = _Spoken()
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
        self._last.notice = notice
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
        notice = self._last.notice
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
