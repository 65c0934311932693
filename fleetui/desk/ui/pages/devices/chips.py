"""The filter as a row of chips, and ready-made filters where there is none. Main thread only.

A chip goes with a click on its cross, or with Delete while it has the focus; Enter goes back to its words in the
filter line. Chips that do not fit wrap into a second line.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, QMargins, QPoint, QRect, QSize, Qt, Signal, Slot
from PySide6.QtGui import QKeyEvent, QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLayout, QLayoutItem, QSizePolicy, QWidget

from fleetui.common.domain.filters import Chip
from fleetui.desk.ui.theme import Theme
from fleetui.desk.ui.widgets.basic import IconButton, label, named


class FlowLayout(QLayout):
    """Left to right, then on in the next line."""

    def __init__(self, space: int = 6) -> None:
        super().__init__()
        self._items: list[QLayoutItem] = []
        self._space = space
        self.setContentsMargins(QMargins())

    def addItem(self, item: QLayoutItem) -> None:
        self._items.append(item)

    def count(self) -> int:
        return len(self._items)

    def itemAt(self, index: int) -> QLayoutItem | None:
        return self._items[index] if 0 <= index < len(self._items) else None

    def takeAt(self, index: int) -> QLayoutItem | None:
        return self._items.pop(index) if 0 <= index < len(self._items) else None

    def expandingDirections(self) -> Qt.Orientation:
        return Qt.Orientation(0)

    def hasHeightForWidth(self) -> bool:
        return True

    def heightForWidth(self, width: int) -> int:
        return self._arrange(QRect(0, 0, width, 0), move=False)

    def sizeHint(self) -> QSize:
        return self.minimumSize()

    def minimumSize(self) -> QSize:
        size = QSize()
        for item in self._items:
            size = size.expandedTo(item.minimumSize())
        return size

    def setGeometry(self, rect: QRect) -> None:
        super().setGeometry(rect)
        self._arrange(rect, move=True)

    def _arrange(self, rect: QRect, *, move: bool) -> int:
        x, y, tallest = rect.x(), rect.y(), 0
        for item in self._items:
            if item.isEmpty():
                continue  # hidden
            size = item.sizeHint()
            if x > rect.x() and x + size.width() > rect.right() + 1:
                x, y = rect.x(), y + tallest + self._space
                tallest = 0
            if move:
                width = min(size.width(), rect.width())
                item.setGeometry(QRect(QPoint(x, y), QSize(width, size.height())))
            x += size.width() + self._space
            tallest = max(tallest, size.height())
        return y + tallest - rect.y()


class ChipWidget(QFrame):
    """One part of the filter."""

    removed = Signal()
    edited = Signal()

    def __init__(self, theme: Theme, chip: Chip) -> None:
        super().__init__()
        self._theme = theme
        self.chip = chip
        named(self, chip.label, self.tr("Delete removes this part of the filter, Enter edits it"))
        self.setToolTip(chip.text)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(26)
        cross = IconButton(theme, "close", self.tr("Remove {0}").format(chip.label), size=12)
        cross.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        cross.setFixedSize(20, 20)
        cross.clicked.connect(self.removed)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(10, 0, 3, 0)
        layout.setSpacing(2)
        layout.addWidget(label(chip.label, "small"))
        layout.addWidget(cross)
        theme.changed.connect(self._redraw)

    @Slot()
    def _redraw(self) -> None:
        self.update()

    def event(self, event: QEvent) -> bool:
        # On the page, Delete removes devices; here it is ours.
        if (
            event.type() == QEvent.Type.ShortcutOverride
            and isinstance(event, QKeyEvent)
            and event.key() in {Qt.Key.Key_Delete, Qt.Key.Key_Backspace}
        ):
            event.accept()
            return True
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in {Qt.Key.Key_Delete, Qt.Key.Key_Backspace}:
            self.removed.emit()
        elif event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space}:
            self.edited.emit()
        elif event.key() == Qt.Key.Key_Right:
            self.focusNextChild()
        elif event.key() == Qt.Key.Key_Left:
            self.focusPreviousChild()
        else:
            super().keyPressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton and self.rect().contains(event.position().toPoint()):
            self.edited.emit()

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setBrush(self._theme.soft("accent", 0.12, "window"))
        edge = self._theme.color("accent") if self.hasFocus() else self._theme.soft("accent", 0.35, "window")
        painter.setPen(edge)
        painter.drawRoundedRect(self.rect().toRectF().adjusted(0.5, 0.5, -0.5, -0.5), 13, 13)
        painter.end()


class Preset(QFrame):
    """A ready-made filter with the number of devices it takes; a press applies it."""

    pressed = Signal()

    def __init__(self, theme: Theme, title: str, role: str) -> None:
        super().__init__()
        self._theme, self._role, self._title = theme, role, title
        self._count = -1
        self._inside = False
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(26)
        self._name = label(title, "small", "muted")
        self._number = label("", "small")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(10, 0, 10, 0)
        layout.setSpacing(6)
        layout.addWidget(self._name)
        layout.addWidget(self._number)
        theme.changed.connect(self._redraw)
        self.set_count(0)

    def set_count(self, count: int) -> None:
        if count == self._count:
            return
        self._count = count
        self._number.setText(f"{count:,}")
        named(self, self.tr("{0}: {1}").format(self._title, f"{count:,}"), self.tr("Shows these devices only"))

    @Slot()
    def _redraw(self) -> None:
        self.update()

    def enterEvent(self, _event: object) -> None:
        self._inside = True
        self.update()

    def leaveEvent(self, _event: object) -> None:
        self._inside = False
        self.update()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space}:
            self.pressed.emit()
            return
        super().keyPressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton and self.rect().contains(event.position().toPoint()):
            self.pressed.emit()

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setBrush(self._theme.color("hover" if self._inside else "surface"))
        painter.setPen(self._theme.color("accent" if self.hasFocus() else "border"))
        painter.drawRoundedRect(self.rect().toRectF().adjusted(0.5, 0.5, -0.5, -0.5), 13, 13)
        painter.end()


class ChipRow(QWidget):
    """``removed(index)`` and ``edited(index)`` of a chip; ``preset(name)`` of a ready-made filter."""

    removed = Signal(int)
    edited = Signal(int)
    preset = Signal(str)

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._theme = theme
        self._chips: list[ChipWidget] = []
        self._presets: dict[str, Preset] = {}
        self._layout = FlowLayout()
        self.setLayout(self._layout)
        policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.setMinimumHeight(26)

    def offer(self, presets: Sequence[tuple[str, str, str]]) -> None:
        """Ready-made filters (name, title, colour role), shown while there are no chips."""
        for name, title, role in presets:
            made = self._presets[name] = Preset(self._theme, title, role)
            made.pressed.connect(lambda name=name: self.preset.emit(name))
            self._layout.addWidget(made)

    def count(self, counts: dict[str, int]) -> None:
        """Numbers of the ready-made filters; those that count nothing hide."""
        for name, made in self._presets.items():
            made.set_count(counts.get(name, 0))
            made.setVisible(not self._chips and (made.hasFocus() or counts.get(name, 0) > 0))

    def show_chips(self, chips: Sequence[Chip]) -> None:
        if [widget.chip for widget in self._chips] == list(chips):
            return
        focused = next((i for i, widget in enumerate(self._chips) if widget.hasFocus()), -1)
        for widget in self._chips:
            self._layout.removeWidget(widget)
            widget.hide()
            widget.deleteLater()
        self._chips = []
        for i, chip in enumerate(chips):
            widget = ChipWidget(self._theme, chip)
            widget.removed.connect(lambda i=i: self.removed.emit(i))
            widget.edited.connect(lambda i=i: self.edited.emit(i))
            self._layout.addWidget(widget)
            self._chips.append(widget)
            widget.show()
        for made in self._presets.values():
            made.setVisible(not chips and made._count > 0)  # noqa: SLF001 - its own part
        if focused >= 0 and self._chips:
            self._chips[min(focused, len(self._chips) - 1)].setFocus()
        self._layout.invalidate()
        self.updateGeometry()

    @property
    def chips(self) -> list[ChipWidget]:
        return list(self._chips)
