"""The span between lowest and highest of each bucket, behind a line. Main thread only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyqtgraph as pg
from PySide6.QtCore import QPointF, QRectF
from PySide6.QtGui import QColor, QPainter, QPainterPath, QPolygonF
from PySide6.QtWidgets import QStyleOptionGraphicsItem, QWidget

Floats = npt.NDArray[np.float64]
MOST = 1500  # points drawn; more than a wide screen has pixels


class Band(pg.GraphicsObject):
    """A filled area; where a value is missing it is interrupted."""

    def __init__(self, color: QColor) -> None:
        super().__init__()
        self._color = color
        self._path = QPainterPath()
        self._rect = QRectF()
        self.setZValue(-10)

    def set_color(self, color: QColor) -> None:
        self._color = color
        self.update()

    def set_data(self, at: Floats, low: Floats, high: Floats) -> None:
        self.prepareGeometryChange()
        self._path = QPainterPath()
        self._rect = QRectF()
        if at.size >= 2:
            at, low, high = _thinned(at, low, high)
            for run in _runs(np.isfinite(low) & np.isfinite(high)):
                self._path.addPolygon(_outline(at[run], low[run], high[run]))
            self._rect = self._path.boundingRect()
        self.informViewBoundsChanged()
        self.update()

    def boundingRect(self) -> QRectF:
        return self._rect

    def paint(self, painter: QPainter, _option: QStyleOptionGraphicsItem, _widget: QWidget | None = None) -> None:
        painter.setPen(pg.mkPen(None))
        painter.fillPath(self._path, self._color)


def _outline(at: Floats, low: Floats, high: Floats) -> QPolygonF:
    points = [QPointF(x, y) for x, y in zip(at.tolist(), high.tolist(), strict=True)]
    points += [QPointF(x, y) for x, y in zip(at[::-1].tolist(), low[::-1].tolist(), strict=True)]
    return QPolygonF(points)


def _runs(good: npt.NDArray[np.bool_]) -> list[slice]:
    """Where ``good`` holds for at least two in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], good, [False])).astype(np.int8)))
    return [slice(a, b) for a, b in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True) if b - a > 1]


def _thinned(at: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats, Floats]:
    """At most ``MOST`` points that keep every extreme."""
    if at.size <= MOST:
        return at, low, high
    firsts = np.linspace(0, at.size, MOST, endpoint=False).astype(np.int64)
    return at[firsts], np.fmin.reduceat(low, firsts), np.fmax.reduceat(high, firsts)
