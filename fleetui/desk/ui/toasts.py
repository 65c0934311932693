"""Toasts: notices in the corner of the window that go by themselves, unless somebody looks at them.

Main thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QEasingCurve, QEvent, QObject, QPoint, QPropertyAnimation, Qt, QTimer, Signal, Slot
from PySide6.QtGui import QAccessible, QAccessibleAnnouncementEvent, QCloseEvent, QMouseEvent
from PySide6.QtWidgets import QFrame, QSizePolicy, QWidget

from fleetui.desk.app.notices import Level, Notice, NoticeAction
from fleetui.desk.ui.notices import LOOKS, act, words
from fleetui.desk.ui.widgets.basic import Button, ElidedLabel, IconButton, IconLabel, column, label, row

if TYPE_CHECKING:
    from fleetui.desk.ui.context import DeskContext

STAYS_MS = {Level.INFO: 5000, Level.WARNING: 8000, Level.ERROR: 12000, Level.CRITICAL: 0}  # 0: until dismissed
TOASTS = 3


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
                button = Button(
                    theme, words(action.label), "link", name=f"{words(action.label)}: {notice.sentence}"
                )
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
