"""A sparkline: the shape of the last hours behind a number, without axes. Decoration: the number says it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QPointF, QSize, Qt, Slot
from PySide6.QtGui import QPainter, QPainterPath, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from fleetui.desk.ui.theme import Theme

POINTS = 32


class Sparkline(QWidget):
    def __init__(self, theme: Theme, role: str = "muted") -> None:
        super().__init__()
        self._theme, self._role = theme, role
        self._values: npt.NDArray[np.float64] = np.zeros(0)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(28)
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        theme.changed.connect(self._redraw)

    def sizeHint(self) -> QSize:
        return QSize(80, 28)

    def show_values(self, values: npt.NDArray[np.float64], role: str) -> None:
        known = values[np.isfinite(values)]
        if known.size > POINTS:  # the shape, not the noise
            edges = np.linspace(0, known.size, POINTS + 1).astype(int)
            known = np.add.reduceat(known, edges[:-1]) / np.diff(edges)
        self._values, self._role = known, role
        self.update()

    @Slot()
    def _redraw(self) -> None:
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:
        values = self._values
        if values.size < 2:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        low, high = float(values.min()), float(values.max())
        room = high - low or max(abs(high), 1.0)
        if high - low < 0.02 * abs(high):  # a line that hardly moves must not look like a mountain
            room = max(0.1 * abs(high), 1.0)
        xs = np.linspace(1, self.width() - 2, values.size)
        ys = self.height() - 4 - (values - low) / room * (self.height() - 8)
        path = QPainterPath(QPointF(xs[0], ys[0]))
        for x, y in zip(xs[1:].tolist(), ys[1:].tolist(), strict=True):
            path.lineTo(x, y)
        area = QPainterPath(path)
        area.lineTo(xs[-1], self.height())
        area.lineTo(xs[0], self.height())
        area.closeSubpath()
        painter.fillPath(area, self._theme.color(self._role, 0.10))
        painter.setPen(QPen(self._theme.color(self._role), 1.4))
        painter.drawPath(path)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self._theme.color(self._role))
        painter.drawEllipse(QPointF(xs[-1], ys[-1]), 2.2, 2.2)
        painter.end()
