"""The lines of the overview's small tables, made from the device table and the newest events.

What a line counts and the filter it leads to come from ``app/overview.py``; here they become words, icons, bars.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication

from fleetui.common.domain import ages
from fleetui.common.domain.filters import Role
from fleetui.desk.app import overview
from fleetui.desk.app.text import moment
from fleetui.desk.ui.palette import translate
from fleetui.desk.ui.widgets.card import TONES
from fleetui.desk.ui.widgets.figures import Cell, Line

if TYPE_CHECKING:
    from fleetui.desk.app.columns import DeviceTable
    from fleetui.desk.ui.context import DeskContext

# The cards above say these; nobody has to do anything about the last two.
ELSEWHERE = frozenset({"all", "online", "late", "offline", "errors", "rejected", "gone"})
URGENCY = (Role.CRITICAL, Role.WARNING, Role.NOTICE, Role.GOOD, Role.NEUTRAL)
LEVELS = {0: "debug", 1: "info", 2: "warning", 3: "error", 4: "critical"}


def attention(cards: list[overview.Card], most: int) -> list[Line]:
    """Named filters that count anything, the worst first."""
    found = [card for card in cards if card.count and card.rule.name not in ELSEWHERE]
    found.sort(key=lambda card: (URGENCY.index(card.rule.role), -card.count))
    lines = []
    for card in found[:most]:
        tone, icon = TONES[card.rule.role]
        why = translate(card.rule.description)
        what = Cell(translate(card.rule.title), icon=icon, icon_tone=tone, note=why, tip=why)
        lines.append(Line((what, Cell(f"{card.count:,}")), card.rule.text))
    return lines


def versions(table: DeviceTable, most: int) -> list[Line]:
    lines = []
    for spread in overview.versions(table)[:most]:
        share = spread.online / spread.devices
        cells = (
            Cell(spread.model, note=spread.version, tip=f"{spread.model} {spread.version}"),
            Cell(ages.percent(share), parts=((share, "ok"), (1 - share, "control"))),
            Cell(f"{spread.devices:,}"),
            Cell(f"{spread.online:,}"),
            _worry(spread.failing),
        )
        lines.append(Line(cells, spread.filter))
    return lines


def sites(table: DeviceTable, most: int) -> list[Line]:
    lines = []
    words = QCoreApplication.translate("Overview", "{0} online, {1} late, {2} offline")
    for site in overview.sites(table)[:most]:
        n = site.devices
        good = max(n - site.offline - site.late, 0)
        said = words.format(good, site.late, site.offline)
        cells = (
            Cell(site.site),
            Cell(said, parts=((good / n, "ok"), (site.late / n, "warn"), (site.offline / n, "bad")), tip=said),
            Cell(f"{n:,}"),
            _worry(site.offline),
            _worry(site.failing),
        )
        lines.append(Line(cells, site.filter))
    return lines


def events(context: DeskContext, most: int) -> list[Line]:
    """The newest, with the name of the device they are of."""
    now, table = context.clock.now(), context.table
    lines = []
    for event in context.events[:most]:
        look = context.theme.look(LEVELS.get(event.level, "info"))
        name = table.text("name", table.row_of(event.device)) if event.device in table else ""
        who = name or event.device
        text = event.text or event.kind.replace("_", " ")
        note, tip = text if who else "", f"{look.word}: {text}"
        first = Cell(who or text, icon=look.icon, icon_tone=look.role, note=note, tip=tip)
        age = Cell(ages.age_of(event.at, now), "muted", tip=moment(event.at))
        lines.append(Line((first, age), event.device))
    return lines


def _worry(count: int) -> Cell:
    return Cell(f"{count:,}", "bad" if count else "faint")
