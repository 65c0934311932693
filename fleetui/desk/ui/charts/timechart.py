"""A chart of figures over time: a heading that names each line with its value, the plot below.

The read-out in the heading follows the pointer and otherwise shows the latest values, so nothing floats over the
lines. Lines are thinned to the pixels there are, gaps in the data are gaps in the line, and an empty chart says why
it is empty. Series are given in Unix seconds; the axis shows local time. Main thread only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyqtgraph as pg
from PySide6.QtCore import QEvent, QPointF, QSize, Qt, Signal, Slot
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QWheelEvent
from PySide6.QtWidgets import QGraphicsGridLayout, QHBoxLayout, QSizePolicy, QStackedLayout, QVBoxLayout, QWidget

from fleetui.common.domain import ages
from fleetui.common.domain.ages import Unit
from fleetui.desk.app.text import moment
from fleetui.desk.ui.charts.axes import FigureAxis, TimeAxis
from fleetui.desk.ui.charts.band import Band
from fleetui.desk.ui.theme import Theme
from fleetui.desk.ui.widgets.basic import label, named

Floats = npt.NDArray[np.float64]
GAP = 3.5  # times the usual distance between two points: longer is a gap
AXIS_WIDTH = 56  # the same for all charts, so that those above each other line up


@dataclass(frozen=True, slots=True)
class Line:
    """One series. ``role`` is a colour role of the theme; without one, ``color`` counts the theme's series."""

    key: str
    label: str
    color: int = 0
    role: str = ""
    band: bool = False  # show lowest and highest of each bucket
    fill: bool = False  # fill down to nought
    dashed: bool = False


class _Plot(pg.GraphicsView):
    """A view box with two axes, put together by hand: a ``PlotItem`` brings menus that cost more than all the rest.

    Leaves the wheel to the page: scrolling must not be caught by every chart on the way.
    """

    def __init__(self, unit: Unit) -> None:
        super().__init__(background=QColor(0, 0, 0, 0))  # no colour: what lies below shines through
        self.box = pg.ViewBox(enableMenu=False, enableMouse=False, defaultPadding=0.0)
        self.times, self.figures = TimeAxis(), FigureAxis(unit)
        inside = pg.GraphicsWidget()
        layout = QGraphicsGridLayout(inside)
        layout.setContentsMargins(0, 4, 8, 0)
        layout.setHorizontalSpacing(0)
        layout.setVerticalSpacing(0)
        layout.addItem(self.figures, 0, 0)
        layout.addItem(self.box, 0, 1)
        layout.addItem(self.times, 1, 1)
        self.figures.linkToView(self.box)
        self.times.linkToView(self.box)
        self.figures.setWidth(AXIS_WIDTH)
        self.times.setHeight(20)
        self.setCentralItem(inside)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setFrameShape(pg.GraphicsView.Shape.NoFrame)
        # A cached background is filled with the window's colour, also where it should be seen through.
        self.setCacheMode(pg.GraphicsView.CacheModeFlag.CacheNone)
        self.viewport().setAutoFillBackground(False)

    def wheelEvent(self, event: QWheelEvent) -> None:
        event.ignore()

    def minimumSizeHint(self) -> QSize:
        return QSize(120, 60)


class _Key(QWidget):
    """One line's mark, name and value in the heading."""

    def __init__(self, line: Line, color: QColor) -> None:
        super().__init__()
        self._color, self._dashed = color, line.dashed
        self.name = label(line.label, "small", "muted")
        self.value = label("", "small")
        self.value.setMinimumWidth(1)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(16, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.name)
        layout.addWidget(self.value)

    def set_color(self, color: QColor) -> None:
        self._color = color
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self._color)
        middle = self.height() / 2
        if self._dashed:
            painter.drawRoundedRect(2, middle - 1.25, 4, 2.5, 1, 1)
            painter.drawRoundedRect(8, middle - 1.25, 4, 2.5, 1, 1)
        else:
            painter.drawRoundedRect(2, middle - 1.5, 10, 3, 1.5, 1.5)
        painter.end()


class _Drawn:
    """A line on the plot, and the data behind it."""

    def __init__(self, line: Line, key: _Key) -> None:
        self.line, self.key = line, key
        self.curve = pg.PlotDataItem(
            connect="finite",
            antialias=True,
            skipFiniteCheck=False,
            autoDownsample=True,
            downsampleMethod="peak",
            clipToView=True,
        )
        self.band: Band | None = None
        self.at: Floats = np.zeros(0)
        self.mean: Floats = np.zeros(0)
        self.low: Floats = np.zeros(0)
        self.high: Floats = np.zeros(0)


class TimeChart(QWidget):
    """``title`` names it on the page and to a screen reader; ``unit`` is that of all its lines."""

    hovered = Signal(float)  # the moment under the pointer, NaN when it left: charts of one page move together

    def __init__(
        self,
        theme: Theme,
        title: str,
        lines: Sequence[Line],
        unit: Unit = Unit.NONE,
        *,
        fixed: tuple[float, float] | None = None,
        from_zero: bool = True,
        height: int = 132,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._theme, self._title, self._unit = theme, title, unit
        self._fixed, self._from_zero = fixed, from_zero
        self._span: tuple[float, float] | None = None
        self._pointed = math.nan
        named(self, title)
        self._plot = _Plot(unit)
        self._cross = pg.InfiniteLine(angle=90, movable=False)
        self._cross.hide()
        self._plot.box.addItem(self._cross, ignoreBounds=True)
        self._when = label("", "small", "faint")
        heading = QHBoxLayout()
        heading.setContentsMargins(0, 0, 0, 0)
        heading.setSpacing(8)
        heading.addWidget(label(title, "strong"))
        heading.addWidget(self._when)
        heading.addStretch(1)
        self._drawn: dict[str, _Drawn] = {}
        for line in lines:
            key = _Key(line, self._color(line))
            drawn = self._drawn[line.key] = _Drawn(line, key)
            if line.band:
                drawn.band = Band(self._color(line))
                self._plot.box.addItem(drawn.band, ignoreBounds=True)
            self._plot.box.addItem(drawn.curve, ignoreBounds=True)
            heading.addWidget(key)
        self._empty = label("", "small", "faint", wrap=True)
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(heading)
        self._stack = QStackedLayout()
        # Into the layout first: a stack shows its first widget at once, as a window while it has no parent.
        layout.addLayout(self._stack, 1)
        self._stack.addWidget(self._plot)
        self._stack.addWidget(self._empty)
        self.setMinimumHeight(height)
        self._plot.scene().sigMouseMoved.connect(self._moved)
        self._plot.viewport().installEventFilter(self)
        theme.changed.connect(self._dress)
        self._dress()
        self.set_empty(self.tr("No data yet"))

    # ------------------------------------------------------------ data

    def set_span(self, start: float, end: float) -> None:
        """The time that is shown, whether or not there is data in all of it."""
        if end > start and (start, end) != self._span:
            self._span = (start, end)
            self._plot.box.setXRange(start, end, padding=0)

    def set_series(
        self,
        key: str,
        at: npt.ArrayLike,
        mean: npt.ArrayLike,
        low: npt.ArrayLike | None = None,
        high: npt.ArrayLike | None = None,
    ) -> None:
        """Points of one line, oldest first; NaN where a value is missing."""
        drawn = self._drawn[key]
        times, values = np.asarray(at, dtype=np.float64), np.asarray(mean, dtype=np.float64)
        lows = values if low is None else np.asarray(low, dtype=np.float64)
        highs = values if high is None else np.asarray(high, dtype=np.float64)
        drawn.at, drawn.mean, drawn.low, drawn.high = with_gaps(times, values, lows, highs)
        drawn.curve.setData(drawn.at, drawn.mean)
        if drawn.band is not None:
            drawn.band.set_data(drawn.at, drawn.low, drawn.high)
        self._settle()

    def set_empty(self, text: str) -> None:
        """What stands here while no line has a point."""
        self._empty.setText(text)
        self._settle()

    @property
    def lines(self) -> tuple[str, ...]:
        """Keys of its lines."""
        return tuple(self._drawn)

    @property
    def is_empty(self) -> bool:
        return not any(np.isfinite(drawn.mean).any() for drawn in self._drawn.values())

    def _settle(self) -> None:
        """After new data: range, read-out, and the words for a screen reader."""
        self._stack.setCurrentIndex(1 if self.is_empty else 0)
        self._fit()
        self._read_out()
        self.setAccessibleDescription(self.in_words())

    def in_words(self) -> str:
        """What a person who cannot see the lines wants to know of them."""
        parts = []
        for drawn in self._drawn.values():
            good = drawn.mean[np.isfinite(drawn.mean)]
            if good.size:
                last, low, high = (ages.show(float(v), self._unit) for v in (good[-1], good.min(), good.max()))
                words = self.tr("{name}: now {last}, lowest {low}, highest {high}")
                parts.append(words.format(name=drawn.line.label, last=last, low=low, high=high))
        return ". ".join(parts) or self._empty.text()

    def _fit(self) -> None:
        if self._fixed is not None:
            self._plot.box.setYRange(*self._fixed, padding=0)
            return
        lows, highs = [], []
        for drawn in self._drawn.values():
            low, high = (drawn.low, drawn.high) if drawn.band is not None else (drawn.mean, drawn.mean)
            seen = slice(None)
            if self._span is not None:
                seen = slice(*np.searchsorted(drawn.at, self._span))
            if np.isfinite(low[seen]).any():
                lows.append(float(np.nanmin(low[seen])))
                highs.append(float(np.nanmax(high[seen])))
        if not lows:
            return
        low, high = min(lows), max(highs)
        if self._from_zero and low >= 0:
            low = 0.0
        room = (high - low) or abs(high) or 1.0
        self._plot.box.setYRange(low if low == 0 else low - 0.08 * room, high + 0.10 * room, padding=0)

    # ------------------------------------------------------------ reading out

    @Slot(object)
    def _moved(self, position: QPointF) -> None:
        box = self._plot.box
        if not box.sceneBoundingRect().contains(position):
            self.point_at(math.nan)
            self.hovered.emit(math.nan)
            return
        x = box.mapSceneToView(position).x()
        self.point_at(x)
        self.hovered.emit(x)

    def point_at(self, when: float) -> None:
        """Shows the values at a moment; NaN: the latest again."""
        self._pointed = when
        self._read_out()

    def _read_out(self) -> None:
        pointed = math.isfinite(self._pointed)
        times = []
        for drawn in self._drawn.values():
            place = self._place(drawn)
            if place is None:
                drawn.key.value.setText(ages.UNKNOWN)
                continue
            times.append(float(drawn.at[place]))
            text = ages.show(float(drawn.mean[place]), self._unit)
            if (
                pointed
                and len(self._drawn) == 1
                and drawn.band is not None
                and drawn.high[place] > drawn.low[place]
            ):
                text += f" ({ages.show(float(drawn.low[place]), self._unit)}"
                text += f" – {ages.show(float(drawn.high[place]), self._unit)})"
            drawn.key.value.setText(text)
        show = pointed and bool(times)
        self._cross.setVisible(show)
        if show:
            self._cross.setPos(times[0])
        self._when.setText(self._moment(times[0]) if show else "")

    def _moment(self, when: float) -> str:
        """With its date only where the chart spans more than a day."""
        short = self._span is not None and self._span[1] - self._span[0] <= 86400
        return moment(when).partition(" ")[2] if short else moment(when)

    def _place(self, drawn: _Drawn) -> int | None:
        """The point of a line that is read out: the nearest to the pointer, or the last."""
        good = np.flatnonzero(np.isfinite(drawn.mean))
        if not good.size:
            return None
        if not math.isfinite(self._pointed):
            return int(good[-1])
        return int(good[np.argmin(np.abs(drawn.at[good] - self._pointed))])

    def eventFilter(self, watched: object, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Leave and math.isfinite(self._pointed):
            self.point_at(math.nan)
            self.hovered.emit(math.nan)
        return False

    # ------------------------------------------------------------ looks

    def _color(self, line: Line) -> QColor:
        return self._theme.color(line.role) if line.role else self._theme.series(line.color)

    @Slot()
    def _dress(self) -> None:
        theme = self._theme
        font = theme.font("caption")
        for axis in (self._plot.times, self._plot.figures):
            axis.setPen(theme.color("border"))
            axis.setTextPen(theme.color("faint"))
            axis.setTickFont(font)
            axis.setStyle(tickLength=0, tickTextOffset=6, maxTickLevel=0, hideOverlappingLabels=False)
        self._plot.figures.setGrid(96)
        self._plot.figures.setTickPen(pg.mkPen(theme.color("border")))
        self._cross.setPen(pg.mkPen(theme.color("control"), width=1))
        for drawn in self._drawn.values():
            color = self._color(drawn.line)
            style = Qt.PenStyle.DashLine if drawn.line.dashed else Qt.PenStyle.SolidLine
            drawn.curve.setPen(pg.mkPen(color, width=1.5, style=style))
            drawn.key.set_color(color)
            faded = QColor(color)
            faded.setAlphaF(0.16)
            if drawn.line.fill:
                drawn.curve.setFillLevel(0.0)
                drawn.curve.setFillBrush(faded)
            if drawn.band is not None:
                drawn.band.set_color(faded)


def with_gaps(at: Floats, *values: Floats) -> tuple[Floats, ...]:
    """A NaN wherever two points are much further apart than usual, so that the line is interrupted there."""
    if at.size < 3:
        return (at, *values)
    steps = np.diff(at)
    usual = float(np.median(steps))
    breaks = np.flatnonzero(steps > max(GAP * usual, 1e-9)) + 1
    if not breaks.size:
        return (at, *values)
    times = np.insert(at, breaks, at[breaks - 1] + usual)
    return (times, *(np.insert(value, breaks, np.nan) for value in values))
