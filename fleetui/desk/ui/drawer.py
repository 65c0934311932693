"""The drawer behind the bell: all notices, newest first. Main thread only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtCore import QRect, Qt, Slot
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QApplication, QFrame, QMenu, QScrollArea, QVBoxLayout, QWidget

from fleetui.common.domain import ages
from fleetui.desk.app.notices import Notice, NoticeAction
from fleetui.desk.app.text import moment
from fleetui.desk.ui.notices import FOREVER, LOOKS, DoNotDisturb, act, words
from fleetui.desk.ui.widgets.basic import Button, IconButton, IconLabel, column, label, line, named, row
from fleetui.desk.ui.widgets.empty import EmptyState
from fleetui.desk.ui.widgets.overlay import Overlay

if TYPE_CHECKING:
    from fleetui.desk.ui.context import DeskContext

DRAWN = 80


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
                button = Button(
                    theme, words(action.label), "link", name=f"{words(action.label)}: {notice.sentence}"
                )
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
