"""Charts: pyqtgraph, dressed in the theme, with time in local hours and units on every axis."""

from fleetui.desk.ui.charts.timechart import Line, TimeChart

__all__ = ["Line", "TimeChart"]
