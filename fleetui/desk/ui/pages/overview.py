"""The fleet at a glance: cards, health and activity over time, what wants attention, events, versions, sites.

Every number is the count of a named filter and opens the list it counts. Counting is ``app/overview.py``'s, the
series come from the store by an operation; this page lays out and draws. Main thread only.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from PySide6.QtCore import Qt, Slot
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFrame, QGridLayout, QLabel, QScrollArea, QStackedWidget, QVBoxLayout, QWidget

from fleetui.common.domain import ages
from fleetui.common.domain.filters import FilterRule
from fleetui.desk.app import overview
from fleetui.desk.app.operations import Operation
from fleetui.desk.ui.context import DeskContext, Page
from fleetui.desk.ui.pages import overview_lines as lines
from fleetui.desk.ui.palette import translate
from fleetui.desk.ui.widgets.basic import Button, Segmented, column, label, row
from fleetui.desk.ui.widgets.card import Dot, FilterCard, Section
from fleetui.desk.ui.widgets.empty import EmptyState
from fleetui.desk.ui.widgets.figures import Figures, FiguresTable, Line
from fleetui.desk.ui.widgets.timechart import Layer, TimeChart
from fleetui.store.records import Changes, Series

if TYPE_CHECKING:
    from collections.abc import Iterable

SPANS = {"1h": 3600.0, "1d": 86400.0, "1w": 7 * 86400.0}
CARDS = ("all", "online", "late", "offline", "errors")
METRICS = (
    "online",
    "late",
    "offline",
    "rows_per_s",
    "messages_per_s",
    "errors_per_s",
    "latency_p50",
    "latency_p99",
)
POINTS = 360
EVENTS_SHOWN = 16
LINES_SHOWN = 8


class OverviewPage(Page):
    """The first page."""

    page_id = "overview"
    icon_name = "overview"

    def __init__(self, context: DeskContext) -> None:
        super().__init__(context)
        self._entered = False
        self._stale = True
        self._loading: Operation[Any] | None = None
        self._loaded_at = -math.inf
        self._span = str(context.settings.recall("overview.span", "1h"))
        if self._span not in SPANS:
            self._span = "1h"
        self._cards: dict[str, FilterCard] = {}
        self._stack = QStackedWidget()
        self._waiting = EmptyState(context.theme, "busy", self.tr("Reading the store"))
        self._empty = self._make_empty()
        self._full = self._make_full()
        for part in (self._waiting, self._empty, self._full):
            self._stack.addWidget(part)
        self.setLayout(column(self._stack))
        context.changed.connect(self._changed)
        context.ticked.connect(self._ticked)

    @property
    def title(self) -> str:
        return self.tr("Overview")

    # ------------------------------------------------------------ building

    def _make_empty(self) -> EmptyState:
        theme = self.context.theme
        demo = Button(theme, self.tr("Copy the demo's command"), "primary", icon="copy")
        demo.clicked.connect(lambda _=False: self._copy("fleetui --demo"))
        agent = Button(theme, self.tr("Copy the agent's command"), icon="copy")
        agent.clicked.connect(lambda _=False: self._copy("fleet-agent --config agent.toml"))
        return EmptyState(
            theme,
            "devices",
            self.tr("No devices yet"),
            self.tr(
                "Devices appear here when they are first heard of. To look around, start the demo in a "
                "terminal with “fleetui --demo”: it brings 200 simulated devices in a folder of its own. To "
                "connect a real device, install “fleetui” on it and start “fleet-agent --config FILE”."
            ),
            (demo, agent),
        )

    def _copy(self, text: str) -> None:
        QGuiApplication.clipboard().setText(text)
        self.context.hint(self.tr("Copied: {0}").format(text))

    def _make_full(self) -> QWidget:
        body = QWidget()
        body.setProperty("clear", True)
        grid = QGridLayout()
        grid.setSpacing(16)
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(1, 1)
        grid.addWidget(self._make_health(), 0, 0)
        grid.addWidget(self._make_activity(), 0, 1)
        left = column(self._make_attention(), self._make_versions(), self._make_sites(), 1, space=16)
        right = column(self._make_events(), 1, space=16)
        grid.addLayout(left, 1, 0)
        grid.addLayout(right, 1, 1)
        self._card_row = row(space=12)
        whole = QVBoxLayout(body)
        whole.setContentsMargins(24, 20, 24, 24)
        whole.setSpacing(16)
        whole.addLayout(self._card_row)
        whole.addLayout(grid)
        whole.addStretch(1)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setWidget(body)
        area.setAccessibleName(self.title)
        for card in overview.cards(self.context.table, self.context.clock.now(), self._rules(CARDS)):
            self._add_card(card)
        return area

    @staticmethod
    def _rules(names: Iterable[str]) -> list[FilterRule]:
        by_name = {rule.name: rule for rule in overview.DEVICE_RULES}
        return [by_name[name] for name in names]

    def _add_card(self, card: overview.Card) -> None:
        rule = card.rule
        made = FilterCard(self.context.theme, card, translate(rule.title), translate(rule.description))
        made.activated.connect(lambda: self._open(made.rule.text))
        self._cards[rule.name] = made
        self._card_row.addWidget(made, 1)

    def _make_health(self) -> Section:
        spans = [("1h", self.tr("1 h")), ("1d", self.tr("1 d")), ("1w", self.tr("1 w"))]
        self.spans = Segmented(self.tr("Time shown"), spans, self._span)
        self.spans.chosen.connect(self._choose_span)
        section = Section(self.tr("Fleet health"), self.spans)
        self.health = TimeChart(
            self.context.theme, self.tr("Devices online, late and offline over time"), stacked=True,
            show=_count, whole=True,
        )  # fmt: skip
        self.health.setFixedHeight(216)
        self._legend = {name: label("", "small") for name in ("online", "late", "offline")}
        legend = row(space=16)
        for name, number in self._legend.items():
            look = self.context.theme.look(name)
            legend.addLayout(
                row(Dot(self.context.theme, look.role), label(look.word, "small", "muted"), number, space=6)
            )
        legend.addStretch(1)
        box = QWidget()
        box.setLayout(legend)
        section.add(box)
        section.add(self.health)
        section.layout().addStretch(1)
        return section

    def _make_activity(self) -> Section:
        theme = self.context.theme
        section = Section(self.tr("Activity"))
        self.activity: dict[str, TimeChart] = {}
        self._figures: dict[str, QLabel] = {}
        rows = (
            ("rows_per_s", self.tr("Inferences"), ages.rate, (("rows_per_s", "series:0"),)),
            ("messages_per_s", self.tr("Messages"), ages.rate, (("messages_per_s", "series:2"),)),
            (
                "latency", self.tr("Latency"), ages.milliseconds,
                (("latency_p50", "series:0"), ("latency_p99", "series:3")),
            ),
        )  # fmt: skip
        inside = column(space=2)
        for at, (key, title, show, drawn) in enumerate(rows):
            chart = TimeChart(theme, title, show=show, times=at == len(rows) - 1)
            chart.setFixedHeight(58 if at < len(rows) - 1 else 74)
            self.activity[key] = chart
            head = row(label(title, "small", "muted"), 1, space=6)
            for name, color in drawn:
                self._figures[name] = label("", "strong")
                if len(drawn) > 1:
                    head.addSpacing(8)
                    head.addWidget(Dot(self.context.theme, color))
                    head.addWidget(label(name.removeprefix("latency_"), "small", "muted"))
                head.addWidget(self._figures[name])
            inside.addLayout(head)
            inside.addWidget(chart, 1)
        charts = (*self.activity.values(), self.health)
        for one in charts:
            for other in charts:
                if other is not one:
                    one.pointed.connect(other.follow)
        box = QWidget()
        box.setLayout(inside)
        section.add(box)
        section.layout().addStretch(1)
        return section

    def _make_attention(self) -> Section:
        section = Section(self.tr("Needs attention"), margins=(12, 14, 12, 12))
        section.layout().itemAt(0).layout().setContentsMargins(8, 0, 4, 0)
        self.attention = FiguresTable(
            self.context.theme, self.tr("What needs attention"),
            (Figures(self.tr("What")), Figures(self.tr("Devices"), 84, right=True)), header=False,
        )  # fmt: skip
        self.attention.chosen.connect(self._open)
        self._calm = _quiet(self.tr("Nothing: no device is slow, hot, short of room or unheard of."))
        section.add(self.attention)
        section.add(self._calm)
        return section

    def _make_events(self) -> Section:
        section = Section(self.tr("Recent events"), margins=(12, 14, 12, 12))
        section.layout().itemAt(0).layout().setContentsMargins(8, 0, 4, 0)
        self.events = FiguresTable(
            self.context.theme, self.tr("Recent events"),
            (Figures(self.tr("What happened")), Figures(self.tr("Ago"), 84, right=True)), header=False,
        )  # fmt: skip
        self.events.chosen.connect(self._open_device)
        self._no_events = _quiet(self.tr("Nothing has happened yet."))
        section.add(self.events)
        section.add(self._no_events)
        return section

    def _make_versions(self) -> Section:
        section = Section(self.tr("Models and versions"), margins=(12, 14, 12, 12))
        section.layout().itemAt(0).layout().setContentsMargins(8, 0, 4, 0)
        self.versions = FiguresTable(
            self.context.theme, self.tr("Models and versions"),
            (
                Figures(self.tr("Version")), Figures(self.tr("Online of all"), 104),
                Figures(self.tr("Devices"), 66, right=True), Figures(self.tr("Online"), 60, right=True),
                Figures(self.tr("Failing"), 62, right=True),
            ),
        )  # fmt: skip
        self.versions.chosen.connect(self._open)
        self._no_versions = _quiet(self.tr("No device has reported a model."))
        section.add(self.versions)
        section.add(self._no_versions)
        return section

    def _make_sites(self) -> Section:
        section = Section(self.tr("Sites"), margins=(12, 14, 12, 12))
        section.layout().itemAt(0).layout().setContentsMargins(8, 0, 4, 0)
        self.sites = FiguresTable(
            self.context.theme, self.tr("Sites, the worst first"),
            (
                Figures(self.tr("Site")), Figures(self.tr("Health"), 104),
                Figures(self.tr("Devices"), 66, right=True), Figures(self.tr("Offline"), 60, right=True),
                Figures(self.tr("Failing"), 62, right=True),
            ),
        )  # fmt: skip
        self.sites.chosen.connect(self._open)
        self._no_sites = _quiet(self.tr("No device has told its site."))
        section.add(self.sites)
        section.add(self._no_sites)
        return section

    # ------------------------------------------------------------ leading on

    @Slot(object)
    def _open(self, text: object) -> None:
        self.context.navigate("devices", filter=str(text))

    @Slot(object)
    def _open_device(self, device: object) -> None:
        if device:
            self.context.navigate("devices", device=str(device))

    @Slot(str)
    def _choose_span(self, span: str) -> None:
        self._span = span
        self.context.settings.remember("overview.span", span)
        self._load()

    def enter(self, **where: Any) -> None:
        self._entered = True
        if self._stale:
            self.refresh()
        self._load()

    def leave(self) -> None:
        self._entered = False

    # ------------------------------------------------------------ bringing up to date

    @Slot(object)
    def _changed(self, changes: Changes) -> None:
        self._stale = True
        # While the first pages of a large fleet arrive, the figures would only run up and cost time.
        if self._entered and not changes.more:
            self.refresh()

    @Slot()
    def _ticked(self) -> None:
        if not self._entered:
            return
        self._ages()
        clock = self.context.clock
        pause = min(max(SPANS[self._span] / POINTS / clock.rate, 2.0), 60.0)
        if clock.monotonic() - self._loaded_at >= pause:
            self._load()

    def refresh(self) -> None:
        """Cards, lists and tables from the device table as it is now."""
        self._stale = False
        context, table, now = self.context, self.context.table, self.context.clock.now()
        if not len(table):
            self._stack.setCurrentWidget(self._empty if context.caught_up else self._waiting)
            return
        self._stack.setCurrentWidget(self._full)
        cards = overview.cards(table, now)
        for card in cards:
            if card.rule.name in self._cards:
                self._cards[card.rule.name].show_card(card)
        for name, number in self._legend.items():
            number.setText(f"{self._cards[name].card.count:,}")
        _fill(self.attention, self._calm, lines.attention(cards, LINES_SHOWN))
        _fill(self.versions, self._no_versions, lines.versions(self.context.table, LINES_SHOWN))
        _fill(self.sites, self._no_sites, lines.sites(self.context.table, LINES_SHOWN))
        self._ages()

    def _ages(self) -> None:
        found = lines.events(self.context, EVENTS_SHOWN)
        _fill(self.events, self._no_events, found)

    # ------------------------------------------------------------ series

    def _load(self) -> None:
        """Reads the series of the chosen span, unless that is under way."""
        if self._loading is not None or not len(self.context.table):
            return
        context = self.context
        end = context.clock.now()
        start = end - SPANS[self._span]
        self._loaded_at = context.clock.monotonic()

        def work() -> dict[str, Series]:
            from fleetui.store import series  # with the database library, which the first frame does without

            with context.store.read() as connection:
                return {m: series.read(connection, "", m, start, end, max_points=POINTS) for m in METRICS}

        span = self._span
        operation = Operation(self.tr("Read the fleet's history"), work, quiet=True)
        operation.on_done(lambda found: self._show_series(found, start, end, span))
        self._loading = operation.on_error(self._load_failed).start(context.operations)

    def _load_failed(self, _error: Exception) -> None:
        # The status bar already says that the store cannot be read; the charts keep what they show.
        self._loading = None

    def _show_series(self, found: dict[str, Series], start: float, end: float, span: str) -> None:
        self._loading = None
        if span != self._span:
            self._load()
            return
        theme = self.context.theme
        at = found["online"].at
        for name in ("late", "offline"):
            at = np.intersect1d(at, found[name].at)
        roles = {name: theme.look(name) for name in ("online", "late", "offline")}
        stacked = {
            name: found[name].mean[np.searchsorted(found[name].at, at)] for name in ("online", "late", "offline")
        }
        # The worst lies at the bottom, where a small number is seen best.
        self.health.show_layers(
            [Layer(roles[n].word, at, stacked[n], roles[n].role) for n in ("offline", "late", "online")], start, end
        )
        for name, title, color in (
            ("rows_per_s", self.tr("inferences"), "series:0"),
            ("messages_per_s", self.tr("messages"), "series:2"),
        ):
            one = found[name]
            self.activity[name].show_layers([Layer(title, one.at, one.mean, color)], start, end)
            self._figures[name].setText(ages.rate(_last(one)))
        p50, p99 = found["latency_p50"], found["latency_p99"]
        self.activity["latency"].show_layers(
            [Layer("p50", p50.at, p50.mean, "series:0"), Layer("p99", p99.at, p99.mean, "series:3", dashed=True)],
            start,
            end,
        )
        self._figures["latency_p50"].setText(ages.milliseconds(_last(p50)))
        self._figures["latency_p99"].setText(ages.milliseconds(_last(p99)))
        total = sum(stacked.values()) if at.size else np.zeros(0)
        trends = {"all": total, **stacked, "errors": found["errors_per_s"].mean}
        for name, values in trends.items():
            self._cards[name].show_trend(np.asarray(values))

    @property
    def loading(self) -> bool:
        return self._loading is not None


def _count(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else ages.UNKNOWN


def _last(one: Series) -> float:
    return float(one.mean[-1]) if one.mean.size else math.nan


def _quiet(text: str) -> QLabel:
    made = label(text, "body", "muted", wrap=True)
    made.setContentsMargins(8, 0, 8, 8)
    return made


def _fill(table: FiguresTable, nothing: QWidget, found: list[Line]) -> None:
    table.show_lines(found)
    table.setVisible(bool(found))
    nothing.setVisible(not found)
