"""“Stopping the station…”: what is seen while the desk closes. It cannot be dismissed, and it always ends."""

from __future__ import annotations

from PySide6.QtCore import QRect, Qt, Slot
from PySide6.QtGui import QKeyEvent, QMouseEvent
from PySide6.QtWidgets import QProgressBar, QWidget

from fleetui.desk.ui.theme import Theme
from fleetui.desk.ui.widgets.basic import Button, column, label, row
from fleetui.desk.ui.widgets.overlay import Overlay


class Stopping(Overlay):
    """Says what is being stopped. ``hurry`` is for who does not want to watch: the window goes at once."""

    def __init__(self, window: QWidget, theme: Theme) -> None:
        super().__init__(window, theme, "palette", veil=0.35)
        self.setObjectName("stopping")
        self.setAccessibleName(self.tr("Closing"))
        self._what = label(self.tr("Closing…"), "heading")
        bar = QProgressBar()
        bar.setRange(0, 0)
        bar.setTextVisible(False)
        bar.setAccessibleName(self.tr("Closing"))
        self.hurry = Button(theme, self.tr("Close the window now"))
        self.hurry.setToolTip(self.tr("The rest ends by itself in the background"))
        text = self.tr("What was reported is written, then everything ends in order.")
        self.panel.setLayout(
            column(
                self._what,
                label(text, "body", "muted", wrap=True),
                bar,
                row(1, self.hurry),
                space=12,
                margins=(24, 20, 24, 20),
            )
        )

    @Slot(str)
    def say(self, what: str) -> None:
        self._what.setText(what)

    def place(self, room: QRect) -> QRect:
        return QRect((room.width() - 420) // 2, (room.height() - 180) // 2, 420, 180)

    def first_focus(self) -> QWidget:
        return self.hurry

    def keyPressEvent(self, event: QKeyEvent) -> None:
        event.accept()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        event.accept()

    def dismiss(self) -> None:
        """Closing is not taken back half way."""

    def open(self) -> None:
        super().open()
        self.setCursor(Qt.CursorShape.BusyCursor)
        self.hurry.setCursor(Qt.CursorShape.ArrowCursor)
