"""Charts: round ticks in local time, gaps that stay gaps, extremes that survive thinning, words to be heard."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtCore import QPointF
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QApplication

from fleetui.common.domain.ages import Unit
from fleetui.desk.ui.charts import Line, TimeChart
from fleetui.desk.ui.charts.axes import FigureAxis, local, time_ticks, time_words
from fleetui.desk.ui.charts.band import MOST, Band
from fleetui.desk.ui.charts.timechart import with_gaps
from fleetui.desk.ui.theme import Theme

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support", extend=True)

NOW = 1_800_000_000.0


@given(start=st.floats(0, 4e9), span=st.floats(1, 400 * 86400), room=st.floats(0.05, 0.5))
def test_time_ticks_are_round_in_local_time_and_apart(start: float, span: float, room: float) -> None:
    ticks, step = time_ticks(start, start + span, room)
    assert all(start <= tick <= start + span for tick in ticks)
    assert all(b - a >= step - 3601 for a, b in itertools.pairwise(ticks))
    assert len(ticks) <= 1 / room + 2
    for tick in ticks:
        when = local(tick)
        if step >= 86400:
            assert (when.hour, when.minute, when.second) == (0, 0, 0) or when.fold or when.hour <= 1
        elif step >= 60:
            assert when.second == 0
        assert time_words(tick, step)


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-6, 1e6), size=st.floats(20, 600))
def test_figure_ticks_are_inside_and_not_too_many(low: float, span: float, size: float) -> None:
    axis = FigureAxis.__new__(FigureAxis)
    axis._unit = Unit.MILLISECONDS
    [(step, ticks)] = FigureAxis.tickValues(axis, low, low + span, size) or [(1.0, [])]
    assert len(ticks) <= 7
    assert all(low - step * 1e-6 <= tick <= low + span + step * 1e-6 for tick in ticks)


def test_a_pause_in_what_was_measured_is_a_gap() -> None:
    at = np.array([0.0, 10, 20, 30, 300, 310, 320])
    times, values = with_gaps(at, np.arange(7.0))
    assert times.tolist() == [0, 10, 20, 30, 40, 300, 310, 320]
    assert math.isnan(values[4])
    steady = np.arange(0.0, 100, 10)
    assert with_gaps(steady, steady)[0] is steady
    assert with_gaps(at[:2], at[:2])[0].size == 2


@given(st.integers(2, 9000), st.integers(0, 2**32 - 1))
def test_thinning_a_band_keeps_its_extremes(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.normal(size=size)
    high = low + rng.random(size)
    band = Band(QColor(1, 2, 3))
    band.set_data(np.arange(size, dtype=np.float64), low, high)
    rect = band.boundingRect()
    assert rect.top() == pytest.approx(low.min())
    assert rect.bottom() == pytest.approx(high.max())
    assert band._path.elementCount() <= 2 * MOST + 2


def test_a_band_with_holes_is_drawn_in_parts() -> None:
    at = np.arange(8.0)
    low = np.array([0, 0, np.nan, 0, 0, 0, np.nan, 0])
    band = Band(QColor(1, 2, 3))
    band.set_data(at, low, low + 1)
    assert [polygon.boundingRect().width() for polygon in band._path.toSubpathPolygons()] == [1.0, 2.0]
    band.set_data(at[:1], low[:1], low[:1])
    assert band.boundingRect().isNull()


@pytest.fixture
def theme(qapp: QApplication) -> Theme:
    return Theme(qapp, "light")


def chart(theme: Theme, **more: object) -> TimeChart:
    lines = (Line("p50", "p50", 0, band=True), Line("p99", "p99", 1))
    made = TimeChart(theme, "Latency", lines, Unit.MILLISECONDS, **more)  # type: ignore[arg-type]
    made.resize(480, 200)
    return made


def test_an_empty_chart_says_why(theme: Theme, qtbot: object) -> None:
    made = chart(theme)
    qtbot.addWidget(made)  # type: ignore[attr-defined]
    made.set_empty("Nothing was reported in this time")
    assert made.is_empty
    assert made.in_words() == "Nothing was reported in this time"
    assert made.accessibleDescription() == made.in_words()
    made.set_series("p50", [1.0, 2.0], [math.nan, math.nan])
    assert made.is_empty


def test_it_can_be_heard_as_well_as_seen(theme: Theme, qtbot: object) -> None:
    made = chart(theme)
    qtbot.addWidget(made)  # type: ignore[attr-defined]
    made.set_series("p50", NOW + np.arange(3.0), [2.0, 4.0, 3.0])
    made.set_series("p99", NOW + np.arange(3.0), [9.0, math.nan, math.nan])
    assert made.accessibleName() == "Latency"
    assert made.in_words() == ("p50: now 3 ms, lowest 2 ms, highest 4 ms. p99: now 9 ms, lowest 9 ms, highest 9 ms")


def test_pointing_reads_the_nearest_values_and_leaving_the_latest(theme: Theme, qtbot: object) -> None:
    made = chart(theme)
    qtbot.addWidget(made)  # type: ignore[attr-defined]
    made.show()
    made.set_span(NOW, NOW + 100)
    made.set_series("p50", [NOW, NOW + 50, NOW + 100], [1.0, 2.0, 3.0], [0.5, 1.5, 2.5], [2.0, 3.0, 4.0])
    made.set_series("p99", [NOW, NOW + 50, NOW + 100], [10.0, 20.0, 30.0])
    values = {key: drawn.key.value for key, drawn in made._drawn.items()}
    assert values["p99"].text() == "30 ms"
    heard: list[float] = []
    made.hovered.connect(heard.append)
    made._moved(made._plot.box.mapViewToScene(QPointF(NOW + 45, 15.0)))
    assert values["p50"].text() == "2 ms"
    assert values["p99"].text() == "20 ms"
    assert made._cross.isVisible()
    assert heard[0] == pytest.approx(NOW + 45, abs=1.0)
    made._moved(QPointF(-50, -50))
    assert values["p99"].text() == "30 ms"
    assert not made._cross.isVisible()
    assert math.isnan(heard[-1])


def test_the_scale_holds_what_is_in_the_span_and_begins_at_nought(theme: Theme, qtbot: object) -> None:
    made = chart(theme)
    qtbot.addWidget(made)  # type: ignore[attr-defined]
    made.set_span(NOW, NOW + 100)
    made.set_series("p50", [NOW - 500, NOW, NOW + 50], [900.0, 4.0, 8.0], [900.0, 3.0, 7.0], [900.0, 5.0, 10.0])
    low, high = made._plot.box.viewRange()[1]
    assert low == 0.0
    assert 10.0 < high < 12.0
    fixed = chart(theme, fixed=(0.0, 1.0))
    qtbot.addWidget(fixed)  # type: ignore[attr-defined]
    fixed.set_series("p50", [NOW, NOW + 1], [0.4, 0.5])
    assert fixed._plot.box.viewRange()[1] == pytest.approx([0.0, 1.0])


def test_another_theme_redraws_in_its_colours(theme: Theme, qtbot: object) -> None:
    made = chart(theme)
    qtbot.addWidget(made)  # type: ignore[attr-defined]
    made.set_series("p50", NOW + np.arange(50.0), np.linspace(1, 2, 50))
    before = made._drawn["p50"].curve.opts["pen"].color()
    theme.set_mode("dark")
    after = made._drawn["p50"].curve.opts["pen"].color()
    assert before != after
    assert after == theme.series(0)
