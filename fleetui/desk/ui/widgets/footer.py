"""The status bar: links with icon and word, what the station counted, and the fleet's clock. Main thread only.

The three links are buttons: they open the panel that explains them (``ConnectionPanel``).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from PySide6.QtCore import QRect, QTimer, Signal, Slot
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QWidget

from fleetui.common.domain.ages import UNKNOWN
from fleetui.common.domain.clock import Clock
from fleetui.desk.ui.theme import Theme
from fleetui.desk.ui.widgets.basic import (
    Clickable,
    IconButton,
    IconLabel,
    column,
    label,
    line,
    named,
    row,
    set_tone,
)
from fleetui.desk.ui.widgets.overlay import Overlay

COUNTERS = ("received", "decoded", "rejected", "dropped", "lost")


def link_titles(tr: QWidget) -> dict[str, tuple[str, str]]:
    """Title and icon of each link, in the order of the data's way."""
    return {
        "broker": (tr.tr("Broker"), "broker"),
        "station": (tr.tr("Station"), "station"),
        "store": (tr.tr("Store"), "store"),
    }


class LinkButton(Clickable):
    """One link: its icon, its name, its state in a word."""

    def __init__(self, theme: Theme, title: str) -> None:
        super().__init__(title)
        self.setProperty("footbutton", True)
        self._theme, self._title = theme, title
        self._status = ""
        self._icon = IconLabel(theme, "unknown", "idle", 14)
        self._word = label("", "small")
        self._name = label(title, "small", "muted")
        self.setLayout(row(self._icon, self._name, self._word, space=5, margins=(6, 2, 6, 2)))
        self.show_status("unknown", "")

    @property
    def status(self) -> str:
        return self._status

    def show_status(self, status: str, detail: str) -> None:
        look = self._theme.look(status)
        self._status = status
        self._icon.show_icon(look.icon, look.role)
        self._word.setText(look.word)
        set_tone(self._word, look.role)
        named(self, f"{self._title}: {look.word}", detail)
        self.setToolTip(detail)


class Footer(QWidget):
    """``details`` when a link is pressed."""

    details = Signal()

    def __init__(self, theme: Theme, clock: Clock) -> None:
        super().__init__()
        self.setObjectName("footer")
        self.setFixedHeight(theme.size("footer"))
        self._theme, self._clock = theme, clock
        self.links: dict[str, LinkButton] = {}
        layout = QHBoxLayout(self)
        layout.setContentsMargins(10, 0, 16, 0)
        layout.setSpacing(2)
        for key, (title, _icon) in link_titles(self).items():
            button = LinkButton(theme, title)
            button.activated.connect(self.details)
            self.links[key] = button
            layout.addWidget(button)
        self._hint = label("", "small", "muted")
        self._hint_timer = QTimer(self)
        self._hint_timer.setSingleShot(True)
        self._hint_timer.timeout.connect(self._hint.clear)
        layout.addSpacing(12)
        layout.addWidget(self._hint)
        self._progress = label("", "small", "muted")
        layout.addWidget(self._progress)
        layout.addStretch(1)
        self._numbers: dict[str, QLabel] = {}
        titles = {
            "received": self.tr("received"),
            "decoded": self.tr("decoded"),
            "rejected": self.tr("rejected"),
            "dropped": self.tr("dropped"),
            "lost": self.tr("lost"),
        }
        tips = {
            "received": self.tr("Messages of devices that reached the station"),
            "decoded": self.tr("Messages that were understood and believed"),
            "rejected": self.tr("Messages that were refused: malformed, oversized, forged"),
            "dropped": self.tr("Reports that devices themselves had to drop while offline"),
            "lost": self.tr("Reports that never came: gaps in a device's numbering"),
        }
        for key in COUNTERS:
            number = label(UNKNOWN, "small")
            name = label(titles[key], "small", "faint")
            number.setToolTip(tips[key])
            name.setToolTip(tips[key])
            self._numbers[key] = number
            layout.addLayout(row(number, name, space=4))
            layout.addSpacing(12)
        self._rate = label("", "small", "muted")
        layout.addWidget(self._rate)
        layout.addSpacing(10)
        layout.addWidget(line(upright=True))
        layout.addSpacing(10)
        self._speed = label("", "small", "accent")
        self._time = label("", "small")
        layout.addWidget(self._speed)
        layout.addSpacing(6)
        layout.addWidget(self._time)
        self.tick()

    def show_link(self, key: str, status: str, detail: str) -> None:
        self.links[key].show_status(status, detail)

    def show_counters(self, counters: Mapping[str, float]) -> None:
        for key, number in self._numbers.items():
            value = counters.get(key)
            number.setText(UNKNOWN if value is None else f"{value:,.0f}")
            bad = key in {"rejected", "dropped", "lost"} and bool(value)
            set_tone(number, "warn" if bad else "")
        rate = counters.get("received_per_s")
        self._rate.setText("" if rate is None else self.tr("{0}/s").format(f"{rate:,.0f}"))
        self._rate.setToolTip(self.tr("Messages received each second"))

    def hint(self, text: str, milliseconds: int = 4000) -> None:
        """A short word that goes by itself: why a shortcut did nothing, that something was copied."""
        self._hint.setText(text)
        self._hint_timer.start(milliseconds)

    def show_progress(self, text: str) -> None:
        """What goes on in the background; empty where nothing does."""
        if self._progress.text() != text:
            self._progress.setText(text)

    @Slot()
    def tick(self) -> None:
        moment = datetime.fromtimestamp(self._clock.now(), UTC).astimezone()
        self._time.setText(f"{moment:%a %d %b %H:%M:%S}")
        self._time.setToolTip(self.tr("Fleet time: {0}").format(f"{moment:%Y-%m-%d %H:%M:%S %Z}"))
        rate = self._clock.rate
        self._speed.setVisible(rate != 1.0)
        self._speed.setText(f"×{rate:g}")
        self._speed.setToolTip(self.tr("Fleet time runs {0} times as fast as yours").format(f"{rate:g}"))


class ConnectionPanel(Overlay):
    """What the links in the status bar mean just now, and what the counters count."""

    def __init__(self, window: QWidget, theme: Theme) -> None:
        super().__init__(window, theme, "palette", veil=0.06)
        self.setObjectName("connection-panel")
        self.setAccessibleName(self.tr("Connections"))
        self._close = IconButton(theme, "close", self.tr("Close"), shortcut="Esc")
        self._close.clicked.connect(self.dismiss)
        grid = QGridLayout()
        grid.setHorizontalSpacing(12)
        grid.setVerticalSpacing(12)
        grid.setColumnStretch(1, 1)
        self._words: dict[str, tuple[IconLabel, QLabel, QLabel]] = {}
        for at, (key, (title, icon)) in enumerate(link_titles(self).items()):
            sign = IconLabel(theme, icon, "muted", 18)
            word, detail = label("", "small"), label("", "small", "muted", wrap=True)
            head = row(label(title, "strong"), word, 1, space=8)
            grid.addLayout(column(sign, 1), at, 0)
            grid.addLayout(column(head, detail, space=2), at, 1)
            self._words[key] = (sign, word, detail)
        self.panel.setLayout(
            column(
                row(label(self.tr("Connections"), "heading"), 1, self._close),
                grid,
                1,
                space=12,
                margins=(20, 14, 14, 18),
            )
        )

    def show_link(self, key: str, status: str, detail: str) -> None:
        _sign, word, text = self._words[key]
        look = self.theme.look(status)
        word.setText(look.word)
        set_tone(word, look.role)
        text.setText(detail)
        text.setVisible(bool(detail))

    def place(self, room: QRect) -> QRect:
        height = max(self.panel.layout().totalHeightForWidth(420), 200)
        return QRect(12, room.height() - height - self.theme.size("footer") - 8, 420, height)

    def first_focus(self) -> QWidget:
        return self._close
