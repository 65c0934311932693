"""The figures of the overview: cards that are named filters, models and their versions, the fleet over time.

Counting is vectorised over the device table and takes about a millisecond for 10,000 devices; which devices a
card counts is the very filter that its click opens (``FilterRule``). Series are read from the store by an
operation. No Qt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fleetui.common.domain.filters import DEVICE_RULES, FilterRule, Role
from fleetui.common.domain.filters.render import quote
from fleetui.desk.app.columns import DeviceTable
from fleetui.desk.app.order import passing
from fleetui.desk.app.rowsets import distinct


@dataclass(frozen=True, slots=True)
class Card:
    rule: FilterRule
    count: int
    of: int  # the denominator: how many devices belong to the fleet

    @property
    def role(self) -> Role:
        """The rule's colour where it counts anything; nothing to see otherwise."""
        return self.rule.role if self.count else Role.NEUTRAL


def cards(table: DeviceTable, now: float, rules: Iterable[FilterRule] = DEVICE_RULES) -> list[Card]:
    """Every rule with its count."""
    counted = [(rule, int(passing(table, rule.filter, now).sum())) for rule in rules]
    of = next((count for rule, count in counted if rule.name == "all"), len(table))
    return [Card(rule, count, of) for rule, count in counted]


@dataclass(frozen=True, slots=True)
class VersionSpread:
    """One model version, and how many devices it runs on; ``filter`` lists them."""

    model: str
    version: str
    devices: int
    online: int
    failing: int
    filter: str


def versions(table: DeviceTable) -> list[VersionSpread]:
    """By model, newest version first. Devices without a model are not in it."""
    models, versions_, status = (table.text_column(name) for name in ("model", "version", "status"))
    n = table.size
    has = table.alive[:n] & (models.codes[:n] >= 0)
    rows = np.flatnonzero(has)
    if not rows.size:
        return []
    width = len(versions_.texts) + 1
    pair = models.codes[rows].astype(np.int64) * width + (versions_.codes[rows] + 1)
    different, inverse = distinct(pair)
    total = np.bincount(inverse)
    online_code = status.texts.index("online") if "online" in status.texts else -2
    online = np.bincount(inverse, weights=status.codes[rows] == online_code)
    failing = np.bincount(inverse, weights=np.nan_to_num(table.figures("errors_per_s")[rows]) > 0)
    ranks = {text: float(rank) for text, rank in _ranked(versions_.texts)}
    spread = []
    for i, code in enumerate(different.tolist()):
        model_code, version_code = divmod(code, width)
        model = models.texts[model_code]
        version = versions_.texts[version_code - 1] if version_code else ""
        wanted = f"model={quote((model,))} and " + (
            f"model.version={quote((version,))}" if version else "missing:model.version"
        )
        spread.append(VersionSpread(model, version, int(total[i]), int(online[i]), int(failing[i]), wanted))
    spread.sort(key=lambda s: (s.model.casefold(), -ranks.get(s.version, -1.0)))
    return spread


def _ranked(texts: list[str]) -> Iterable[tuple[str, int]]:
    from fleetui.common.domain.values import version_key

    return ((text, place) for place, text in enumerate(sorted(texts, key=version_key)))


@dataclass(frozen=True, slots=True)
class SiteHealth:
    site: str
    devices: int
    offline: int
    late: int
    failing: int
    filter: str


def sites(table: DeviceTable) -> list[SiteHealth]:
    """By site: the worst first, then the largest."""
    site, status = table.text_column("site"), table.text_column("status")
    rows = np.flatnonzero(table.alive[: table.size] & (site.codes[: table.size] >= 0))
    if not rows.size:
        return []
    codes = site.codes[rows]
    width = len(site.texts)

    def count(word: str) -> list[int]:
        code = status.texts.index(word) if word in status.texts else -2
        found: list[int] = (
            np.bincount(codes, weights=status.codes[rows] == code, minlength=width).astype(int).tolist()
        )
        return found

    totals = np.bincount(codes, minlength=width).tolist()
    offline, late = count("offline"), count("late")
    failing = (
        np.bincount(codes, weights=np.nan_to_num(table.figures("errors_per_s")[rows]) > 0, minlength=width)
        .astype(int)
        .tolist()
    )
    found = [
        SiteHealth(name, totals[i], offline[i], late[i], failing[i], f"site={quote((name,))}")
        for i, name in enumerate(site.texts)
        if totals[i]
    ]
    found.sort(key=lambda s: (-(s.offline + s.failing) / s.devices, -s.devices, s.site.casefold()))
    return found
