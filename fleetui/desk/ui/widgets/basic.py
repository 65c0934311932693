"""Factories for the plain widgets. What takes the focus cannot be made without an accessible name.

The style sheet does the looks, by properties: ``type`` and ``tone`` of a label, ``kind`` of a button. Icons are
tinted again when the theme changes. Main thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from PySide6.QtCore import QEvent, QSize, Qt, Signal, Slot
from PySide6.QtGui import QAction, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QResizeEvent
from PySide6.QtWidgets import (
    QAbstractButton,
    QBoxLayout,
    QButtonGroup,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from fleetui.common.domain.errors import BugError
from fleetui.desk.ui.theme import Theme, repolish


def named(widget: QWidget, name: str, description: str = "") -> None:
    """What a screen reader says. Empty names are refused: there is no silent control."""
    if not name.strip():
        raise BugError(f"a {type(widget).__name__} without an accessible name")
    widget.setAccessibleName(name)
    if description:
        widget.setAccessibleDescription(description)


def label(text: str = "", type_: str = "body", tone: str = "", *, wrap: bool = False) -> QLabel:
    made = QLabel(text)
    made.setTextFormat(Qt.TextFormat.PlainText)
    made.setProperty("type", type_)
    if tone:
        made.setProperty("tone", tone)
    if wrap:
        made.setWordWrap(True)
    return made


def set_tone(widget: QWidget, tone: str) -> None:
    if widget.property("tone") != tone:
        widget.setProperty("tone", tone)
        repolish(widget)


def key_label(shortcut: str) -> QLabel:
    """A shortcut as it stands on the keyboard."""
    made = QLabel(shortcut)
    made.setProperty("key", True)
    made.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
    return made


def line(*, upright: bool = False) -> QFrame:
    made = QFrame()
    made.setProperty("line", "upright" if upright else True)
    return made


def row(*items: QWidget | QBoxLayout | int, space: int = 8, margins: Sequence[int] = (0, 0, 0, 0)) -> QHBoxLayout:
    """A horizontal layout; a number among ``items`` is a stretch."""
    layout = QHBoxLayout()
    _fill(layout, items, space, margins)
    return layout


def column(
    *items: QWidget | QBoxLayout | int, space: int = 8, margins: Sequence[int] = (0, 0, 0, 0)
) -> QVBoxLayout:
    layout = QVBoxLayout()
    _fill(layout, items, space, margins)
    return layout


def _fill(
    layout: QBoxLayout, items: Iterable[QWidget | QBoxLayout | int], space: int, margins: Sequence[int]
) -> None:
    layout.setSpacing(space)
    layout.setContentsMargins(*margins)
    for item in items:
        if isinstance(item, QWidget):
            layout.addWidget(item)
        elif isinstance(item, int):
            layout.addStretch(item)
        else:
            layout.addLayout(item)


class IconLabel(QLabel):
    """An icon that says nothing by itself: beside a word, or decoration."""

    def __init__(self, theme: Theme, icon: str, role: str = "muted", size: int = 16) -> None:
        super().__init__()
        self._theme, self._icon, self._role, self._size = theme, icon, role, size
        self.setFixedSize(size, size)
        theme.changed.connect(self._draw)
        self._draw()

    def show_icon(self, icon: str, role: str) -> None:
        if (icon, role) != (self._icon, self._role):
            self._icon, self._role = icon, role
            self._draw()

    @Slot()
    def _draw(self) -> None:
        self.setPixmap(self._theme.pixmap(self._icon, self._role, self._size, self.devicePixelRatioF()))

    def event(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.DevicePixelRatioChange:
            self._draw()
        return super().event(event)


class Button(QPushButton):
    """A push button: ``kind`` is plain, primary, quiet, danger or link."""

    def __init__(
        self, theme: Theme, text: str, kind: str = "plain", icon: str = "", name: str = "", tip: str = ""
    ) -> None:
        super().__init__(text)
        self._theme, self._icon_name, self._kind = theme, icon, kind
        self.setProperty("kind", kind)
        self.setAutoDefault(False)
        named(self, name or text, tip)
        if tip:
            self.setToolTip(tip)
        if icon:
            self.setIconSize(QSize(16, 16))
            theme.changed.connect(self._retint)
            self._retint()

    def set_icon(self, icon: str) -> None:
        self._icon_name = icon
        self._retint()

    @Slot()
    def _retint(self) -> None:
        role = {"primary": "on_accent", "danger": "bad", "link": "accent", "quiet": "muted"}.get(self._kind, "text")
        self.setIcon(self._theme.icon(self._icon_name, role))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        # Qt presses buttons with Space alone; people expect Enter to work as well.
        if event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter} and self.isEnabled():
            self.click()
            return
        super().keyPressEvent(event)


class IconButton(QToolButton):
    """A button that shows an icon only; its name is what it is called and its tool tip."""

    def __init__(
        self, theme: Theme, icon: str, name: str, *, shortcut: str = "", size: int = 16, role: str = "muted"
    ) -> None:
        super().__init__()
        self._theme, self._icon_name, self._size, self._role = theme, icon, size, role
        self.setIconSize(QSize(size, size))
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        named(self, name)
        self.setToolTip(f"{name} ({shortcut})" if shortcut else name)
        theme.changed.connect(self._retint)
        self._retint()

    def set_icon(self, icon: str, role: str = "") -> None:
        self._icon_name, self._role = icon, role or self._role
        self._retint()

    @Slot()
    def _retint(self) -> None:
        self.setIcon(self._theme.icon(self._icon_name, self._role, self._size))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter} and self.isEnabled():
            self.click()
            return
        super().keyPressEvent(event)


class SearchField(QLineEdit):
    """A field to search in: a magnifying glass in front, a cross to clear it, Esc clears too."""

    def __init__(self, theme: Theme, name: str, placeholder: str = "") -> None:
        super().__init__()
        self._theme = theme
        named(self, name)
        self.setPlaceholderText(placeholder or name)
        self._glass = QAction(self)
        self.addAction(self._glass, QLineEdit.ActionPosition.LeadingPosition)
        self._cross = QAction(self)
        self._cross.setText(self.tr("Clear"))
        self._cross.triggered.connect(self.clear)
        self._cross.setVisible(False)
        self.addAction(self._cross, QLineEdit.ActionPosition.TrailingPosition)
        self.textChanged.connect(self._changed)
        theme.changed.connect(self._retint)
        self._retint()
        for button in self.findChildren(QToolButton):
            named(button, self.tr("Clear the search") if button.defaultAction() is self._cross else name)

    @Slot(str)
    def _changed(self, text: str) -> None:
        self._cross.setVisible(bool(text))

    @Slot()
    def _retint(self) -> None:
        self._glass.setIcon(self._theme.icon("search", "faint"))
        self._cross.setIcon(self._theme.icon("close", "muted", 14))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape and self.text():
            self.clear()
            return
        super().keyPressEvent(event)


class Segmented(QFrame):
    """A row of buttons of which one holds: ``chosen(value)`` when another is pressed."""

    chosen = Signal(str)

    def __init__(self, name: str, choices: Sequence[tuple[str, str]], value: str = "") -> None:
        """``choices`` are (value, label)."""
        super().__init__()
        self.setProperty("segmented", True)
        self.setAccessibleName(name)
        self._group = QButtonGroup(self)
        self._buttons: dict[str, QPushButton] = {}
        layout = QHBoxLayout(self)
        layout.setContentsMargins(2, 2, 2, 2)
        layout.setSpacing(2)
        for key, text in choices:
            button = QPushButton(text)
            button.setCheckable(True)
            button.setAutoDefault(False)
            button.setProperty("value", key)
            named(button, f"{name}: {text}")
            self._group.addButton(button)
            self._buttons[key] = button
            layout.addWidget(button)
        self._group.buttonClicked.connect(self._clicked)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.choose(value or choices[0][0])

    @property
    def value(self) -> str:
        return str(self._group.checkedButton().property("value"))

    def choose(self, value: str) -> None:
        """Shows ``value`` as the chosen one, without a signal."""
        if value in self._buttons:
            self._buttons[value].setChecked(True)

    @Slot(QAbstractButton)
    def _clicked(self, button: QAbstractButton) -> None:
        self.chosen.emit(str(button.property("value")))


class ElidedLabel(QLabel):
    """One line that ends in “…” where there is no room; the whole text is its tool tip then."""

    def __init__(self, text: str = "", type_: str = "body", tone: str = "") -> None:
        super().__init__()
        self._full = ""
        self._middle = False
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setProperty("type", type_)
        if tone:
            self.setProperty("tone", tone)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.setMinimumWidth(24)
        self.setText(text)

    def setText(self, text: str) -> None:
        self._full = " ".join(text.split())
        self.setAccessibleName(self._full)
        self._elide()

    def full_text(self) -> str:
        return self._full

    def sizeHint(self) -> QSize:
        hint = super().sizeHint()
        return QSize(self.fontMetrics().horizontalAdvance(self._full) + 2, hint.height())

    def minimumSizeHint(self) -> QSize:
        return QSize(24, super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._elide()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() in {QEvent.Type.FontChange, QEvent.Type.StyleChange}:
            self._elide()

    def _elide(self) -> None:
        shown = self.fontMetrics().elidedText(self._full, Qt.TextElideMode.ElideRight, max(self.width(), 24))
        if shown != super().text():
            super().setText(shown)
        self.setToolTip(self._full if shown != self._full else "")


class Clickable(QFrame):
    """A frame that is pressed like a button, by mouse, Enter and Space: ``activated``."""

    activated = Signal()

    def __init__(self, name: str) -> None:
        super().__init__()
        named(self, name)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self._pressed = False

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self._pressed = event.button() == Qt.MouseButton.LeftButton

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if self._pressed and self.rect().contains(event.position().toPoint()):
            self.activated.emit()
        self._pressed = False

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space}:
            self.activated.emit()
            return
        super().keyPressEvent(event)


class Switch(QAbstractButton):
    """On or off, taking effect at once. The word beside it belongs to whoever shows it."""

    def __init__(self, theme: Theme, name: str) -> None:
        super().__init__()
        self._theme = theme
        named(self, name)
        self.setCheckable(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setFixedSize(36, 20)
        theme.changed.connect(self._redraw)

    @Slot()
    def _redraw(self) -> None:
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(36, 20)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter}:
            self.click()
            return
        super().keyPressEvent(event)

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        on = self.isChecked()
        track = self.rect().adjusted(2, 2, -2, -2)
        painter.setPen(Qt.PenStyle.NoPen)
        enabled = self.isEnabled()
        painter.setBrush(self._theme.color("accent" if on and enabled else "control"))
        painter.drawRoundedRect(track, 8, 8)
        painter.setBrush(self._theme.color("on_accent" if on else "surface"))
        x = track.right() - 13 if on else track.left() + 2
        painter.drawEllipse(x, track.top() + 2, 12, 12)
        if self.hasFocus():
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(self._theme.color("accent"))
            painter.drawRoundedRect(self.rect().adjusted(0, 0, -1, -1), 10, 10)
        painter.end()


def on_click(button: QAbstractButton, function: Callable[[], object]) -> QAbstractButton:
    """Connects and hands back, for building rows of buttons."""
    button.clicked.connect(lambda _checked=False: function())
    return button
