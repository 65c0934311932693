"""Cards: a named filter with its number, a plain frame with a heading, a dot for a legend. Main thread only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import Qt, Slot
from PySide6.QtGui import QPainter, QPixmap
from PySide6.QtWidgets import QFrame, QLabel, QSizePolicy, QVBoxLayout, QWidget

from fleetui.common.domain import ages
from fleetui.common.domain.filters import Role
from fleetui.desk.app.overview import Card
from fleetui.desk.ui.theme import Theme
from fleetui.desk.ui.widgets.basic import Clickable, IconLabel, column, label, row, set_tone
from fleetui.desk.ui.widgets.spark import Sparkline

# The theme's colour role of a rule's role, and the icon that says the same without colour.
TONES: dict[Role, tuple[str, str]] = {
    Role.NEUTRAL: ("idle", "minus"),
    Role.GOOD: ("ok", "online"),
    Role.NOTICE: ("warn", "late"),
    Role.WARNING: ("warn", "warning"),
    Role.CRITICAL: ("bad", "error"),
}
ICONS = {"all": "devices", "online": "online", "late": "late", "offline": "offline", "errors": "error"}


class FilterCard(Clickable):
    """One named filter: its number, its share, its last hours; pressed, it opens the list it counts."""

    def __init__(self, theme: Theme, card: Card, title: str, description: str) -> None:
        super().__init__(title)
        self.setProperty("filtercard", True)
        self.rule = card.rule
        self._title = title
        self._description = description
        self._icon = IconLabel(theme, ICONS.get(card.rule.name, "filter"), "muted", 16)
        self._number = label("", "display")
        self._share = label("", "small", "muted")
        self.spark = Sparkline(theme)
        self.setToolTip(description)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMinimumWidth(140)
        self.setLayout(
            column(
                row(self._icon, label(title, "body", "muted"), 1, space=8),
                row(self._number, column(1, self._share, margins=(0, 0, 0, 5)), 1, space=8),
                self.spark,
                space=2,
                margins=(16, 14, 16, 12),
            )
        )
        self.show_card(card)

    def show_card(self, card: Card) -> None:
        self.card = card
        tone, _ = TONES[card.role]
        quiet = card.role is Role.NEUTRAL
        self._number.setText(f"{card.count:,}")
        share = ""
        if card.rule.name != "all" and card.of:
            share = ages.percent(card.count / card.of)
        self._share.setText(share)
        set_tone(self._number, "faint" if not card.count and card.rule.name != "all" else "")
        self._icon.show_icon(ICONS.get(card.rule.name, "filter"), "muted" if quiet else tone)
        self.setAccessibleName(f"{self._title}: {card.count:,}" + (f", {share}" if share else ""))
        self.setAccessibleDescription(self._description)

    def show_trend(self, values: npt.NDArray[np.float64]) -> None:
        tone, _ = TONES[self.card.role]
        self.spark.show_values(values, "control" if tone == "idle" else tone)


class Section(QFrame):
    """A card with a heading and room at its right; put things below with ``add``."""

    def __init__(self, title: str, *beside: QWidget, margins: tuple[int, int, int, int] = (20, 14, 16, 16)) -> None:
        super().__init__()
        self.setProperty("card", True)
        self.setAccessibleName(title)
        self._heading = label(title, "heading")
        self._inside: QVBoxLayout = column(row(self._heading, 1, *beside, space=8), space=10, margins=margins)
        self.setLayout(self._inside)

    def add(self, widget: QWidget, stretch: int = 0) -> None:
        self._inside.addWidget(widget, stretch)


class Dot(QLabel):
    """A dot in the colour of an area, beside its word."""

    def __init__(self, theme: Theme, role: str) -> None:
        super().__init__()
        self._theme, self._role = theme, role
        self.setFixedSize(10, 10)
        self._theme.changed.connect(self._draw)
        self._draw()

    @Slot()
    def _draw(self) -> None:
        ratio = self.devicePixelRatioF()
        pixmap = QPixmap(round(10 * ratio), round(10 * ratio))
        pixmap.setDevicePixelRatio(ratio)
        pixmap.fill(Qt.GlobalColor.transparent)
        painter = QPainter(pixmap)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self._theme.paint(self._role))
        painter.drawRoundedRect(1, 1, 8, 8, 2, 2)
        painter.end()
        self.setPixmap(pixmap)
