"""What an empty place shows: what would be here, and what to do so that something is."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from fleetui.desk.ui.theme import Theme
from fleetui.desk.ui.widgets.basic import IconLabel, column, label, row

WIDTH = 460


class EmptyState(QWidget):
    """An icon, a sentence, what to do, and perhaps buttons, in the middle of where things will be."""

    def __init__(
        self,
        theme: Theme,
        icon: str,
        title: str,
        text: str = "",
        actions: Sequence[QWidget] = (),
        width: int = WIDTH,
    ) -> None:
        super().__init__()
        self._title = label(title, "heading")
        self._title.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._title.setWordWrap(True)
        self._text = label(text, "body", "muted", wrap=True)
        self._text.setAlignment(Qt.AlignmentFlag.AlignCenter)
        # A label that wraps has no width of its own to speak of.
        self._text.setFixedWidth(width)
        if not text:
            self._text.hide()
        inside: QVBoxLayout = column(
            row(1, IconLabel(theme, icon, "faint", 36), 1), self._title, row(1, self._text, 1), space=8
        )
        if actions:
            inside.addSpacing(8)
            inside.addLayout(row(1, *actions, 1))
        self.setLayout(column(1, inside, 1, margins=(24, 24, 24, 24)))
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def say(self, title: str, text: str = "") -> None:
        self._title.setText(title)
        self._text.setText(text)
        self._text.setVisible(bool(text))
