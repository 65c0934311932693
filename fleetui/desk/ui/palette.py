"""The command palette (Ctrl+K) and the shortcut sheet (F1): two views of the command registry.

The palette finds commands, pages, devices and saved views as one types; everything is done from the keyboard.
What cannot be run now is shown with the reason. It searches nothing itself: ``CommandRegistry.search`` does.
Main thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtCore import (
    QAbstractListModel,
    QCoreApplication,
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    QRect,
    QSize,
    Qt,
    Slot,
)
from PySide6.QtGui import QFontMetrics, QKeyEvent, QKeySequence, QPainter, QTextCharFormat, QTextLayout
from PySide6.QtWidgets import (
    QFrame,
    QGridLayout,
    QLineEdit,
    QListView,
    QScrollArea,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from fleetui.desk.app.commands import Command, CommandRegistry, Hit
from fleetui.desk.ui.theme import Theme
from fleetui.desk.ui.widgets.basic import IconButton, IconLabel, column, key_label, label, line, named, row
from fleetui.desk.ui.widgets.overlay import Overlay

if TYPE_CHECKING:
    from collections.abc import Iterable

Index = QModelIndex | QPersistentModelIndex
SHOWN = 40


def translate(text: str) -> str:
    """A word of the Qt-free logic, in the user's language."""
    return QCoreApplication.translate("Commands", text) if text else ""


def keys(shortcut: str) -> str:
    """A portable shortcut as this platform writes it."""
    return QKeySequence(shortcut).toString(QKeySequence.SequenceFormat.NativeText)


class HitModel(QAbstractListModel):
    """What the palette found, best first."""

    HIT = Qt.ItemDataRole.UserRole

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._hits: list[Hit] = []

    def show(self, hits: list[Hit]) -> None:
        self.beginResetModel()
        self._hits = hits
        self.endResetModel()

    def hit(self, line_: int) -> Hit | None:
        return self._hits[line_] if 0 <= line_ < len(self._hits) else None

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008 - Qt's own signature
        return 0 if parent.isValid() else len(self._hits)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        hit = self.hit(index.row()) if index.isValid() else None
        if hit is None:
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return hit.title
        if role == Qt.ItemDataRole.AccessibleTextRole:
            parts = (hit.title, hit.group, keys(hit.shortcut), hit.disabled)
            return ", ".join(part for part in parts if part)
        return hit if role == self.HIT else None


class HitDelegate(QStyledItemDelegate):
    """One hit: its group, its title with the letters that matched, its shortcut or why it is disabled."""

    HEIGHT = 36

    def __init__(self, theme: Theme, icon_of: Callable[[Hit], str], parent: QWidget) -> None:
        super().__init__(parent)
        self._theme = theme
        self._icon_of = icon_of

    def sizeHint(self, _option: QStyleOptionViewItem, _index: Index) -> QSize:
        return QSize(200, self.HEIGHT)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        hit = index.data(HitModel.HIT)
        if hit is None:
            return
        theme, box = self._theme, option.rect.adjusted(8, 1, -8, -1)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if option.state & QStyle.StateFlag.State_Selected:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(theme.soft("accent", 0.14, "raised"))
            painter.drawRoundedRect(box, theme.radius(), theme.radius())
        off = bool(hit.disabled)
        ratio = painter.device().devicePixelRatioF()
        icon = theme.pixmap(self._icon_of(hit), "faint" if off else "muted", 16, ratio)
        middle = box.center().y() + 1
        painter.drawPixmap(QPoint(box.left() + 10, middle - 8), icon)
        right = self._right_side(painter, box, hit)
        left = box.left() + 38
        room = max(right - left, 40)
        self._title(painter, QRect(left, box.top(), room, box.height()), hit, off=off)
        painter.restore()

    def _right_side(self, painter: QPainter, box: QRect, hit: Hit) -> int:
        """Shortcut, or reason, or group; returns where the title has to end."""
        theme = self._theme
        edge = box.right() - 10
        small = theme.font("small")
        metrics = QFontMetrics(small)
        painter.setFont(small)
        if hit.disabled:
            text, role = hit.disabled, "faint"
        elif hit.shortcut:
            text = keys(hit.shortcut)
            width = metrics.horizontalAdvance(text) + 12
            chip = QRect(edge - width, box.center().y() - 9, width, 19)
            painter.setPen(theme.color("border"))
            painter.setBrush(theme.color("sunken"))
            painter.drawRoundedRect(chip, 4, 4)
            painter.setPen(theme.color("muted"))
            painter.drawText(chip, Qt.AlignmentFlag.AlignCenter, text)
            edge = chip.left() - 8
            text, role = hit.group, "faint"
        else:
            text, role = hit.group, "faint"
        text = metrics.elidedText(text, Qt.TextElideMode.ElideRight, box.width() // 2)
        width = metrics.horizontalAdvance(text)
        painter.setPen(theme.color(role))
        where = QRect(edge - width, box.top(), width + 1, box.height())
        painter.drawText(where, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, text)
        return edge - width - 12

    def _title(self, painter: QPainter, where: QRect, hit: Hit, *, off: bool) -> None:
        theme = self._theme
        font = theme.font("body")
        text = QFontMetrics(font).elidedText(hit.title, Qt.TextElideMode.ElideRight, where.width())
        layout = QTextLayout(text, font)
        strong = QTextCharFormat()
        strong.setFontWeight(600)
        if not off:
            strong.setForeground(theme.color("accent"))
        ranges = []
        for mark in hit.marks:
            if mark < len(text):
                part = QTextLayout.FormatRange()
                part.start, part.length, part.format = mark, 1, strong
                ranges.append(part)
        layout.setFormats(ranges)
        layout.beginLayout()
        made = layout.createLine()
        made.setLineWidth(where.width() + 40)
        layout.endLayout()
        painter.setPen(theme.color("faint" if off else "text"))
        layout.draw(painter, QPoint(where.left(), where.center().y() - round(made.height() / 2) + 1))


class CommandPalette(Overlay):
    """Ctrl+K: type, go up and down, Enter."""

    def __init__(self, window: QWidget, theme: Theme, registry: CommandRegistry) -> None:
        super().__init__(window, theme, "palette")
        self._registry = registry
        self.setObjectName("command-palette")
        self.setAccessibleName(self.tr("Command palette"))
        self.field = QLineEdit()
        self.field.setProperty("kind", "bare")
        self.field.setPlaceholderText(self.tr("Search commands, pages, devices, saved views"))
        named(self.field, self.tr("Search commands, pages, devices and saved views"))
        self.field.textChanged.connect(self._search)
        self.field.installEventFilter(self)
        self.list = QListView()
        self.list.setProperty("bare", True)
        named(self.list, self.tr("Found"))
        self.list.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the field keeps it; arrow keys are handed on
        self.list.setUniformItemSizes(True)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setMouseTracking(True)
        self.model = HitModel(self)
        self.list.setModel(self.model)
        self.list.setItemDelegate(HitDelegate(theme, self._icon_of, self))
        self.list.clicked.connect(self._clicked)
        self._nothing = label("", "body", "muted")
        self._nothing.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._hints = [
            key_label("↑ ↓"), label(self.tr("choose"), "small", "muted"),
            key_label("↵"), label(self.tr("run"), "small", "muted"),
            key_label("Esc"), label(self.tr("close"), "small", "muted"),
        ]  # fmt: skip
        layout = QVBoxLayout(self.panel)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(
            row(IconLabel(theme, "search", "muted", 18), self.field, space=12, margins=(20, 16, 20, 16))
        )
        layout.addWidget(line())
        layout.addSpacing(6)
        layout.addWidget(self.list, 1)
        layout.addWidget(self._nothing, 1)
        layout.addSpacing(6)
        layout.addWidget(line())
        layout.addLayout(row(*self._hints, 1, space=8, margins=(20, 8, 20, 8)))

    def _icon_of(self, hit: Hit) -> str:
        if hit.id in self._registry:
            return self._registry[hit.id].icon or "command"
        return {"device": "devices", "page": "arrow-right", "view": "filter"}.get(
            hit.id.partition(":")[0], "arrow-right"
        )

    def place(self, room: QRect) -> QRect:
        width = min(680, room.width() - 48)
        rows = max(self.model.rowCount(), 3)
        height = min(58 + 6 + rows * HitDelegate.HEIGHT + 6 + 40, int(room.height() * 0.68))
        return QRect((room.width() - width) // 2, int(room.height() * 0.12), width, height)

    def first_focus(self) -> QWidget:
        return self.field

    def open(self) -> None:
        self.field.clear()
        self._search("")
        super().open()

    @Slot(str)
    def _search(self, text: str) -> None:
        hits = self._registry.search(text, SHOWN, translate)
        self.model.show(hits)
        self.list.setVisible(bool(hits))
        self._nothing.setVisible(not hits)
        self._nothing.setText(self.tr("Nothing is called “{0}”").format(text.strip()))
        if hits:
            self.list.setCurrentIndex(self.model.index(0))
        if self.isVisible():
            self._arrange()

    def eventFilter(self, watched: object, event: QKeyEvent) -> bool:
        if watched is self.field and event.type() == event.Type.KeyPress and self._key(event):
            return True
        return super().eventFilter(watched, event)

    def _key(self, event: QKeyEvent) -> bool:
        count = self.model.rowCount()
        now = self.list.currentIndex().row()
        steps = {
            Qt.Key.Key_Down: now + 1,
            Qt.Key.Key_Up: now - 1,
            Qt.Key.Key_PageDown: min(now + 8, count - 1),
            Qt.Key.Key_PageUp: max(now - 8, 0),
        }
        key = Qt.Key(event.key())
        if key in steps and count:
            self.list.setCurrentIndex(self.model.index(steps[key] % count))
            return True
        if key in {Qt.Key.Key_Return, Qt.Key.Key_Enter}:
            self._run(now)
            return True
        return False

    @Slot(QModelIndex)
    def _clicked(self, index: QModelIndex) -> None:
        self._run(index.row())

    def _run(self, at: int) -> None:
        hit = self.model.hit(at)
        if hit is None or hit.run is None:
            return  # disabled: the reason stands in its line
        self.dismiss()
        hit.run()


class ShortcutSheet(Overlay):
    """F1: every command that has a shortcut, by group."""

    def __init__(self, window: QWidget, theme: Theme, registry: CommandRegistry) -> None:
        super().__init__(window, theme, "palette")
        self._registry = registry
        self.setObjectName("shortcut-sheet")
        self.setAccessibleName(self.tr("Keyboard shortcuts"))
        self._close = IconButton(theme, "close", self.tr("Close"), shortcut="Esc")
        self._close.clicked.connect(self.dismiss)
        self._area = QScrollArea()
        self._area.setWidgetResizable(True)
        self._area.setFrameShape(QFrame.Shape.NoFrame)
        named(self._area, self.tr("Keyboard shortcuts"))
        layout = QVBoxLayout(self.panel)
        layout.setContentsMargins(24, 20, 24, 20)
        layout.setSpacing(16)
        layout.addLayout(row(label(self.tr("Keyboard shortcuts"), "title"), 1, self._close))
        layout.addWidget(self._area, 1)
        layout.addWidget(
            label(self.tr("Everything is also in the command palette, with its shortcut."), "small", "muted")
        )

    def place(self, room: QRect) -> QRect:
        width = min(880, room.width() - 48)
        body = self._area.widget()
        wanted = (body.sizeHint().height() if body else 300) + 150
        height = min(wanted, room.height() - 64)
        return QRect((room.width() - width) // 2, (room.height() - height) // 2, width, height)

    def first_focus(self) -> QWidget:
        return self._close

    def open(self) -> None:
        self._area.setWidget(self._sheet())
        super().open()

    def _sheet(self) -> QWidget:
        body = QWidget()
        body.setProperty("clear", True)
        groups = [
            (group, [c for c in commands if c.shortcut])
            for group, commands in self._registry.groups().items()
            if any(c.shortcut for c in commands)
        ]
        groups.sort(key=lambda group: -len(group[1]))  # the largest first, so that both columns end alike
        columns: tuple[list[QWidget], list[QWidget]] = ([], [])
        heights = [0, 0]
        for group, commands in groups:
            shorter = heights.index(min(heights))
            columns[shorter].append(_group(translate(group), commands))
            heights[shorter] += len(commands) + 2
        body_layout = row(*(column(*widgets, 1, space=24) for widgets in columns), space=40, margins=(0, 0, 12, 0))
        body_layout.setStretch(0, 1)
        body_layout.setStretch(1, 1)
        body.setLayout(body_layout)
        return body


def _group(title: str, commands: Iterable[Command]) -> QWidget:
    box = QWidget()
    grid = QGridLayout(box)
    grid.setContentsMargins(0, 0, 0, 0)
    grid.setVerticalSpacing(8)
    grid.setColumnStretch(0, 1)
    grid.addWidget(label(title, "caption", "muted"), 0, 0, 1, 2)
    for line_, command in enumerate(commands, 1):
        grid.addWidget(label(translate(command.title)), line_, 0)
        grid.addWidget(key_label(keys(command.shortcut)), line_, 1, Qt.AlignmentFlag.AlignRight)
    return box
