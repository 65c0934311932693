"""Short questions over the window: is this meant, and what should it be called. Main thread only.

They are overlays, not windows: they move and scale with the desk, keep Tab inside, and Esc takes them back.
"""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QRect, Slot
from PySide6.QtWidgets import QCheckBox, QLineEdit, QVBoxLayout, QWidget

from fleetui.common.domain.errors import ConfigError
from fleetui.desk.ui.theme import Theme, repolish
from fleetui.desk.ui.widgets.basic import Button, column, label, named, row, set_tone
from fleetui.desk.ui.widgets.overlay import Overlay

WIDTH = 440


class _Dialog(Overlay):
    """A heading, what it is about, buttons below. It goes for good when it closes."""

    def __init__(self, over: QWidget, theme: Theme, title: str) -> None:
        super().__init__(over.window(), theme, "palette")
        self.setAccessibleName(title)
        self.body: QVBoxLayout = column(label(title, "heading", wrap=True), space=10, margins=(24, 20, 24, 20))
        self.panel.setLayout(self.body)
        self.panel.setAccessibleName(title)
        self.closed.connect(self.deleteLater)

    def place(self, room: QRect) -> QRect:
        width = min(WIDTH, room.width() - 32)
        height = self.body.heightForWidth(width) if self.body.hasHeightForWidth() else self.body.sizeHint().height()
        return QRect((room.width() - width) // 2, max(16, room.height() // 4 - 40), width, height)

    def _buttons(self, *buttons: QWidget) -> None:
        self.body.addSpacing(6)
        self.body.addLayout(row(1, *buttons))


class Confirm(_Dialog):
    """What an act will touch, and a button that names the act. ``act`` runs when it is pressed."""

    def __init__(
        self, over: QWidget, theme: Theme, title: str, what: str, verb: str, act: Callable[[], object]
    ) -> None:
        super().__init__(over, theme, title)
        self._act = act
        self.body.addWidget(label(what, "body", "muted", wrap=True))
        self.cancel = Button(theme, self.tr("Cancel"))
        self.go = Button(theme, verb, "danger")
        self.cancel.clicked.connect(self.dismiss)
        self.go.clicked.connect(self._do)
        self._buttons(self.cancel, self.go)

    def first_focus(self) -> QWidget:
        return self.cancel  # Enter by habit does nothing

    @Slot()
    def _do(self) -> None:
        self.dismiss()
        self._act()


class Ask(_Dialog):
    """One line of text. ``check`` answers the tidied text or raises; ``act`` gets it (and whether it is ticked)."""

    def __init__(
        self,
        over: QWidget,
        theme: Theme,
        title: str,
        field: str,
        verb: str,
        check: Callable[[str], str],
        act: Callable[[str, bool], object],
        *,
        text: str = "",
        hint: str = "",
        tick: str = "",
        ticked: bool = True,
    ) -> None:
        super().__init__(over, theme, title)
        self._check, self._act = check, act
        self.line = QLineEdit(text)
        named(self.line, field)
        self.line.setPlaceholderText(hint)
        self.line.selectAll()
        self._wrong = label("", "small", wrap=True)
        set_tone(self._wrong, "bad")
        self._wrong.hide()
        self.body.addWidget(label(field, "small", "muted"))
        self.body.addWidget(self.line)
        self.body.addWidget(self._wrong)
        self.tick = QCheckBox(tick)
        self.tick.setChecked(ticked)
        self.tick.setVisible(bool(tick))
        named(self.tick, tick or field)
        self.body.addWidget(self.tick)
        self.cancel = Button(theme, self.tr("Cancel"))
        self.go = Button(theme, verb, "primary")
        self.cancel.clicked.connect(self.dismiss)
        self.go.clicked.connect(self._do)
        self.line.returnPressed.connect(self._do)
        self.line.textEdited.connect(self._fine)
        self._buttons(self.cancel, self.go)

    def first_focus(self) -> QWidget:
        return self.line

    @Slot()
    def _fine(self) -> None:
        if self._wrong.isVisible():
            self._say("")

    def _say(self, sentence: str) -> None:
        self.line.setProperty("wrong", bool(sentence))
        repolish(self.line)
        self._wrong.setText(sentence)
        self._wrong.setVisible(bool(sentence))
        self._arrange()

    @Slot()
    def _do(self) -> None:
        try:
            text = self._check(self.line.text())
        except ConfigError as error:
            self._say(str(error))
            self.line.setFocus()
            return
        self.dismiss()
        self._act(text, self.tick.isChecked())
