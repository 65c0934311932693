"""A small chart over time, drawn with a painter: stacked areas or lines, a crosshair, nothing else.

It is what the overview needs before any chart library is loaded. A gap in what was measured is a gap in the line.
Left and right move the crosshair, so that the figures can be had without a mouse. Main thread only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal, Slot
from PySide6.QtGui import QColor, QFontMetrics, QKeyEvent, QMouseEvent, QPainter, QPainterPath, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from fleetui.desk.ui.theme import Theme
from fleetui.desk.ui.widgets.basic import named

Floats = npt.NDArray[np.float64]
_STEPS_S = (60, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 2 * 86400, 7 * 86400)
GAP = 3.5  # times the distance of the points beside it


@dataclass(frozen=True, slots=True)
class Layer:
    """One line or area. ``color`` is a role of the theme, or ``series:N``."""

    name: str
    at: Floats
    values: Floats
    color: str
    dashed: bool = False

    def value_at(self, moment: float, within: float) -> float:
        """The value of the nearest point, NaN where none is near."""
        if not self.at.size:
            return math.nan
        i = int(np.clip(np.searchsorted(self.at, moment), 1, max(self.at.size - 1, 1)))
        i = i if i < self.at.size and abs(self.at[i] - moment) < abs(self.at[i - 1] - moment) else i - 1
        return float(self.values[i]) if abs(self.at[i] - moment) <= within else math.nan


class TimeChart(QWidget):
    """``pointed(moment)`` when the crosshair moves, NaN when it leaves: other charts may follow."""

    pointed = Signal(float)

    def __init__(
        self,
        theme: Theme,
        name: str,
        *,
        stacked: bool = False,
        show: Callable[[float], str],
        times: bool = True,
        whole: bool = False,
    ) -> None:
        super().__init__()
        self._theme, self._name = theme, name
        self._stacked, self._show, self._times, self._whole = stacked, show, times, whole
        self._layers: tuple[Layer, ...] = ()
        self._start, self._end = 0.0, 1.0
        self._point = math.nan
        named(self, name)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        theme.changed.connect(self._redraw)

    def sizeHint(self) -> QSize:
        return QSize(320, 180)

    def minimumSizeHint(self) -> QSize:
        return QSize(160, 56)

    @Slot()
    def _redraw(self) -> None:
        self.update()

    # ------------------------------------------------------------ what it shows

    def show_layers(self, layers: Sequence[Layer], start: float, end: float) -> None:
        self._layers, self._start, self._end = tuple(layers), start, max(end, start + 1.0)
        last = ", ".join(f"{layer.name} {self._show(layer.values[-1])}" for layer in layers if layer.values.size)
        self.setAccessibleDescription(last)
        self.update()

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self._layers

    @property
    def point(self) -> float:
        return self._point

    @Slot(float)
    def follow(self, moment: float) -> None:
        """Shows the crosshair where another chart has it."""
        if moment != self._point and not (math.isnan(moment) and math.isnan(self._point)):
            self._point = moment
            self.update()

    def _move(self, moment: float) -> None:
        self.follow(moment)
        self.pointed.emit(moment)

    # ------------------------------------------------------------ geometry

    def _axis_width(self) -> int:
        return QFontMetrics(self._theme.font("caption")).horizontalAdvance("000.0k") + 6

    def _plot(self) -> QRectF:
        below = 22 if self._times else 8
        return QRectF(self._axis_width(), 8, self.width() - self._axis_width() - 6, self.height() - below - 8)

    def _x(self, plot: QRectF, at: Floats) -> Floats:
        return plot.left() + (at - self._start) / (self._end - self._start) * plot.width()

    def _top(self) -> float:
        if not self._layers:
            return 1.0
        if self._stacked:
            totals = _stack(self._layers)
            highest = float(np.nanmax(totals[-1])) if totals and totals[-1].size else 0.0
        else:
            highs = [float(np.nanmax(x.values)) for x in self._layers if np.isfinite(x.values).any()]
            highest = max(highs, default=0.0)
        return highest if math.isfinite(highest) and highest > 0 else 1.0

    # ------------------------------------------------------------ painting

    def paintEvent(self, _event: QPaintEvent) -> None:
        theme, painter = self._theme, QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setFont(theme.font("caption"))
        plot = self._plot()
        step, top = nice_axis(self._top(), 4 if plot.height() > 110 else 1, whole=self._whole)
        self._grid(painter, plot, step, top)
        if self._times:
            self._time_axis(painter, plot)
        if any(layer.at.size for layer in self._layers):
            painter.setClipRect(plot.adjusted(0, -2, 1, 1))
            if self._stacked:
                self._areas(painter, plot, top)
            else:
                self._lines(painter, plot, top)
            painter.setClipping(False)
            self._crosshair(painter, plot, top)
        else:
            painter.setPen(theme.color("faint"))
            painter.drawText(plot, Qt.AlignmentFlag.AlignCenter, self.tr("Nothing measured in this time"))
        if self.hasFocus():
            painter.setPen(theme.color("accent"))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), 4, 4)
        painter.end()

    def _grid(self, painter: QPainter, plot: QRectF, step: float, top: float) -> None:
        theme = self._theme
        for i in range(round(top / step) + 1):
            y = round(plot.bottom() - i * step / top * plot.height()) + 0.5
            painter.setPen(theme.color("border", 1.0 if i == 0 else 0.7))
            painter.drawLine(QPointF(plot.left(), y), QPointF(plot.right(), y))
            painter.setPen(theme.color("faint"))
            box = QRectF(0, y - 8, self._axis_width() - 8, 16)
            painter.drawText(box, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, axis_text(i * step))

    def _time_axis(self, painter: QPainter, plot: QRectF) -> None:
        ticks, pattern = time_ticks(self._start, self._end, max(2, int(plot.width() // 84)))
        painter.setPen(self._theme.color("faint"))
        for moment in ticks:
            x = self._x(plot, np.asarray([moment]))[0]
            text = datetime.fromtimestamp(moment, UTC).astimezone().strftime(pattern)
            box = QRectF(x - 40, plot.bottom() + 5, 80, 14)
            if box.left() < 0 or x + 18 > self.width():
                continue
            painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)

    def _areas(self, painter: QPainter, plot: QRectF, top: float) -> None:
        totals = _stack(self._layers)
        at = self._layers[0].at
        below = np.zeros_like(at)
        for at_layer, (layer, total) in enumerate(zip(self._layers, totals, strict=True)):
            color = self._theme.paint(layer.color)
            for part in pieces(at, total):
                xs = self._x(plot, at[part])
                upper = plot.bottom() - total[part] / top * plot.height()
                lower = plot.bottom() - below[part] / top * plot.height()
                path = QPainterPath(QPointF(xs[0], lower[0]))
                for x, y in zip(xs.tolist(), upper.tolist(), strict=True):
                    path.lineTo(x, y)
                for x, y in zip(xs[::-1].tolist(), lower[::-1].tolist(), strict=True):
                    path.lineTo(x, y)
                path.closeSubpath()
                fill = QColor(color)
                # The large area of what is well is the quietest.
                fill.setAlphaF((0.34, 0.34, 0.14)[min(at_layer, 2)])
                painter.fillPath(path, fill)
                if (layer.values[part] > 0).any():
                    painter.setPen(QPen(color, 1.4))
                    painter.drawPath(_polyline(xs, upper))
            below = total

    def _lines(self, painter: QPainter, plot: QRectF, top: float) -> None:
        for layer in self._layers:
            pen = QPen(self._theme.paint(layer.color), 1.6)
            if layer.dashed:
                pen.setDashPattern([4, 3])
            painter.setPen(pen)
            for part in pieces(layer.at, layer.values):
                xs = self._x(plot, layer.at[part])
                ys = plot.bottom() - layer.values[part] / top * plot.height()
                if xs.size == 1:
                    painter.drawEllipse(QPointF(xs[0], ys[0]), 1.2, 1.2)
                else:
                    painter.drawPath(_polyline(xs, ys))

    def _crosshair(self, painter: QPainter, plot: QRectF, top: float) -> None:
        if math.isnan(self._point):
            return
        theme = self._theme
        x = float(self._x(plot, np.asarray([self._point]))[0])
        painter.setPen(theme.color("control"))
        painter.drawLine(QPointF(x, plot.top()), QPointF(x, plot.bottom()))
        near = (self._end - self._start) / 40
        base = 0.0
        lines: list[tuple[QColor | None, str, str]] = []
        for layer in self._layers:
            value = layer.value_at(self._point, near)
            if not math.isnan(value):
                shown = value + base if self._stacked else value
                base = shown if self._stacked else 0.0
                painter.setPen(QPen(theme.color("surface"), 2))
                painter.setBrush(self._theme.paint(layer.color))
                painter.drawEllipse(QPointF(x, plot.bottom() - shown / top * plot.height()), 4, 4)
            lines.append((self._theme.paint(layer.color), layer.name, self._show(value)))
        moment = datetime.fromtimestamp(self._point, UTC).astimezone()
        self._box(painter, plot, x, f"{moment:%a %d %b %H:%M:%S}" if self._times else "", lines)

    def _box(
        self, painter: QPainter, plot: QRectF, x: float, head: str, lines: list[tuple[QColor | None, str, str]]
    ) -> None:
        theme, metrics = self._theme, QFontMetrics(self._theme.font("caption"))
        rows = ([(None, head, "")] if head else []) + lines
        width = max(metrics.horizontalAdvance(f"{name}  {value}") for _, name, value in rows) + 34
        height = 17 * len(rows) + 8
        left = x + 10 if x + 14 + width < plot.right() else x - 10 - width
        box = QRectF(max(left, 0), max(plot.top(), 2), width, height)
        painter.setPen(theme.color("border"))
        painter.setBrush(theme.color("raised", 0.96))
        painter.drawRoundedRect(box, 5, 5)
        for i, (color, name, value) in enumerate(rows):
            line = QRectF(box.left() + 8, box.top() + 4 + 17 * i, width - 16, 17)
            if color is not None:
                painter.setPen(Qt.PenStyle.NoPen)
                painter.setBrush(color)
                painter.drawEllipse(QPointF(line.left() + 4, line.center().y()), 3.5, 3.5)
                line.setLeft(line.left() + 14)
            painter.setPen(theme.color("muted"))
            painter.drawText(line, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, name)
            painter.setPen(theme.color("text"))
            painter.drawText(line, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, value)

    # ------------------------------------------------------------ pointing

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        plot = self._plot()
        share = (event.position().x() - plot.left()) / max(plot.width(), 1.0)
        self._move(self._start + share * (self._end - self._start) if 0 <= share <= 1 else math.nan)

    def leaveEvent(self, event: QEvent) -> None:
        self._move(math.nan)
        super().leaveEvent(event)

    def focusOutEvent(self, event: QEvent) -> None:
        self._move(math.nan)
        super().focusOutEvent(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        way = {Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1}.get(Qt.Key(event.key()))
        if way is None:
            super().keyPressEvent(event)
            return
        now = self._end if math.isnan(self._point) else self._point
        step = (self._end - self._start) / 60
        self._move(min(max(now + way * step, self._start), self._end))


# ---------------------------------------------------------------- arithmetic


def _stack(layers: Sequence[Layer]) -> list[Floats]:
    """Running sums over layers with the same times."""
    totals: list[Floats] = []
    for layer in layers:
        totals.append(layer.values + totals[-1] if totals else layer.values)
    return totals


def _polyline(xs: Floats, ys: Floats) -> QPainterPath:
    path = QPainterPath(QPointF(xs[0], ys[0]))
    for x, y in zip(xs[1:].tolist(), ys[1:].tolist(), strict=True):
        path.lineTo(x, y)
    return path


def pieces(at: Floats, values: Floats) -> list[slice]:
    """Where the line is whole: it ends at a gap in time and at what is not known."""
    if not at.size:
        return []
    steps = np.diff(at)
    known = np.isfinite(values)
    # Measured against the steps beside it: a past with a point every quarter of an hour is whole in itself.
    beside = np.full(steps.size, np.inf)
    if steps.size > 1:
        beside = np.maximum(np.r_[steps[1], steps[:-1]], np.r_[steps[1:], steps[-2]])
    breaks = np.flatnonzero((steps > GAP * beside) | (known[1:] != known[:-1])) + 1
    edges = [0, *breaks.tolist(), at.size]
    return [slice(a, b) for a, b in itertools.pairwise(edges) if b > a and known[a]]


def nice_axis(highest: float, about: int, *, whole: bool = False) -> tuple[float, float]:
    """Step and top of an axis from 0: round figures, about so many of them."""
    rough = highest / max(about, 1)
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= rough * 0.999)
    if whole:
        step = max(1.0, math.ceil(step))
    return step, step * max(1, math.ceil(highest / step - 1e-9))


def axis_text(value: float) -> str:
    """A figure at an axis, short: ``0``, ``0.5``, ``250``, ``1.5k``, ``20M``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def time_ticks(start: float, end: float, most: int) -> tuple[list[float], str]:
    """Round local times within the span, and how to write them."""
    step = next((s for s in _STEPS_S if (end - start) / s <= most), _STEPS_S[-1])
    pattern = "%H:%M" if step < 86400 else "%a %d"
    first = datetime.fromtimestamp(start, UTC).astimezone()
    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
    since = (first - midnight).total_seconds()
    moment = midnight + timedelta(seconds=math.ceil(since / step) * step)
    ticks = []
    while moment.timestamp() <= end and len(ticks) <= most + 1:
        ticks.append(moment.timestamp())
        moment += timedelta(seconds=step)
    return ticks, pattern
