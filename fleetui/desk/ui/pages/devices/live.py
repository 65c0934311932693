"""The drawer's charts: latency, throughput, load and temperature of one device over an hour, a day or a week.

Figures are read by an operation and at most as often as a pixel's time passes; the newest request wins. The
crosshair of one chart moves in all of them. Main thread only.
"""

from __future__ import annotations

import math
from typing import Any

from PySide6.QtCore import Slot
from PySide6.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from fleetui.common.domain.ages import Unit
from fleetui.desk.app import vitals
from fleetui.desk.app.operations import Operation
from fleetui.desk.app.vitals import SPANS, Vitals
from fleetui.desk.ui.charts import Line, TimeChart
from fleetui.desk.ui.context import DeskContext
from fleetui.desk.ui.widgets.basic import Segmented, label, row


class LivePart(QWidget):
    """``show_device`` begins anew; ``touched`` says that the device has reported again."""

    def __init__(self, context: DeskContext) -> None:
        super().__init__()
        self._context = context
        self._device = ""
        self._span = str(context.settings.recall("devices.span", "1h"))
        if self._span not in SPANS:
            self._span = "1h"
        self._loading: Operation[Any] | None = None
        self._loaded_at = -math.inf
        self._stale = False
        self._choice = Segmented(
            self.tr("Time span"),
            (("1h", self.tr("1 hour")), ("1d", self.tr("1 day")), ("1w", self.tr("1 week"))),
            self._span,
        )
        self._choice.chosen.connect(self._choose)
        self._note = label("", "small", "faint")
        theme = context.theme
        self._charts: dict[str, TimeChart] = {
            "latency": TimeChart(
                theme,
                self.tr("Latency"),
                (Line("latency_p50", self.tr("p50"), 0), Line("latency_p99", self.tr("p99"), 1, band=True)),
                Unit.MILLISECONDS,
            ),
            "work": TimeChart(
                theme,
                self.tr("Throughput"),
                (
                    Line("rows_per_s", self.tr("inferences"), 2, fill=True),
                    Line("errors_per_s", self.tr("errors"), role="bad"),
                ),
                Unit.PER_SECOND,
            ),
            "load": TimeChart(
                theme,
                self.tr("Load"),
                (
                    Line("cpu", self.tr("CPU"), 0),
                    Line("memory", self.tr("memory"), 6),
                    Line("disk", self.tr("disk"), 7, dashed=True),
                ),
                Unit.SHARE,
                fixed=(0.0, 1.0),
            ),
            "heat": TimeChart(
                theme,
                self.tr("Temperature"),
                (Line("temperature", self.tr("processor"), 1, band=True),),
                Unit.CELSIUS,
                from_zero=False,
            ),
        }
        inside = QWidget()
        inside.setProperty("clear", True)
        charts = QVBoxLayout(inside)
        charts.setContentsMargins(0, 4, 8, 8)
        charts.setSpacing(14)
        for chart in self._charts.values():
            chart.hovered.connect(self._point)
            charts.addWidget(chart)
        charts.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidget(inside)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setAccessibleName(self.tr("Charts"))
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(8)
        outer.addLayout(row(self._choice, 1, self._note))
        outer.addWidget(scroll, 1)

    @property
    def charts(self) -> dict[str, TimeChart]:
        return self._charts

    def show_device(self, device: str) -> None:
        if device == self._device:
            return
        self._device = device
        self._loaded_at = -math.inf
        for chart in self._charts.values():
            chart.set_empty(self.tr("Reading …"))
            for line in chart.lines:
                chart.set_series(line, (), ())
        self.load()

    def touched(self) -> None:
        self._stale = True
        self.turn()

    @Slot()
    def turn(self) -> None:
        """Loads again if there is something new and enough time has passed to see it."""
        clock = self._context.clock
        due = self._loaded_at + vitals.patience(SPANS[self._span], clock.rate)
        if self._stale and self._device and self.isVisible() and clock.monotonic() >= due:
            self.load()

    @Slot(str)
    def _choose(self, span: str) -> None:
        self._span = span
        self._context.settings.remember("devices.span", span)
        self.load()

    def load(self) -> None:
        """Newest request wins: one that is under way is forgotten."""
        if self._loading is not None:
            self._loading.cancel()
        context, device, span = self._context, self._device, SPANS[self._span]
        now = context.clock.now()
        self._stale = False
        self._loaded_at = context.clock.monotonic()
        self._loading = Operation(
            self.tr("Read figures of {0}").format(device),
            lambda: vitals.read(context.store, device, now, span),
            quiet=True,
        )
        self._loading.on_done(self._show).on_error(self._failed).start(context.operations)

    def _show(self, found: Vitals) -> None:
        self._loading = None
        if found.device != self._device:
            return
        nothing = self.tr("Nothing was reported in this time")
        for chart in self._charts.values():
            chart.set_span(found.start, found.end)
            chart.set_empty(nothing)
            for line in chart.lines:
                one = found.series[line]
                chart.set_series(line, one.at, one.mean, one.low, one.high)
        finest = max((one.resolution_s for one in found.series.values()), default=0.0)
        self._note.setText(self._resolution(finest))

    def _resolution(self, seconds: float) -> str:
        if seconds <= 0:
            return self.tr("every report")
        if seconds < 60:
            return self.tr("means over {0} s").format(round(seconds))
        if seconds < 3600:
            return self.tr("means over {0} min").format(round(seconds / 60))
        return self.tr("means over {0} h").format(round(seconds / 3600))

    def _failed(self, error: Exception) -> None:
        self._loading = None
        for chart in self._charts.values():
            chart.set_empty(str(error))

    @Slot(float)
    def _point(self, when: float) -> None:
        for chart in self._charts.values():
            chart.point_at(when)
