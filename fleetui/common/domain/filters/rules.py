"""Named filters as data: what stands behind the cards of the overview, and offers itself as a saved view.

One rule gives a card its number and the list that opens on a click, so the two cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fleetui.common.domain.filters.devices import DEVICES
from fleetui.common.domain.filters.filter import Filter, parse


class Role(StrEnum):
    """The colour role of what a rule counts. What colours they are, the theme knows."""

    NEUTRAL = "neutral"
    GOOD = "good"
    NOTICE = "notice"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class FilterRule:
    """A filter with a name. ``role`` is for a count above 0; a card that counts nothing is neutral."""

    name: str  # a key for settings and tests; never shown
    title: str
    filter: Filter
    description: str
    role: Role = Role.NEUTRAL

    @property
    def text(self) -> str:
        return self.filter.text


def rule(name: str, title: str, text: str, description: str, role: Role = Role.NEUTRAL) -> FilterRule:
    """A rule over devices."""
    return FilterRule(name, title, parse(text, DEVICES), description, role)


_IN_FLEET = "lifecycle:accepted"

DEVICE_RULES: tuple[FilterRule, ...] = (
    rule("all", "Devices", _IN_FLEET, "All that belong to the fleet."),
    rule("online", "Online", f"{_IN_FLEET} and status:online", "Heard of in time.", Role.GOOD),
    rule("late", "Late", f"{_IN_FLEET} and status:late", "A beat or two are missing.", Role.NOTICE),
    rule("offline", "Offline", f"{_IN_FLEET} and status:offline", "Silent for too long, or gone.", Role.CRITICAL),
    rule(
        "never-seen",
        "Never seen",
        f"{_IN_FLEET} and missing:seen",
        "Belongs to the fleet and was never heard of.",
        Role.NOTICE,
    ),
    rule(
        "errors",
        "With errors",
        f"{_IN_FLEET} and errors>0",
        "Some of its inferences fail just now.",
        Role.CRITICAL,
    ),
    rule(
        "slow",
        "Slow",
        f"{_IN_FLEET} and latency.p99>100ms",
        "One inference in a hundred takes more than 100 ms.",
        Role.WARNING,
    ),
    rule("hot", "Hot", f"{_IN_FLEET} and temp>=75", "At 75 °C or above: near throttling.", Role.WARNING),
    rule(
        "low-memory",
        "Low on memory",
        f"{_IN_FLEET} and memory>90%",
        "More than 90 % of the memory is in use.",
        Role.WARNING,
    ),
    rule(
        "low-disk",
        "Low on disk",
        f"{_IN_FLEET} and disk>90%",
        "More than 90 % of the storage is in use; an update may not fit.",
        Role.WARNING,
    ),
    rule(
        "clock-off",
        "Clock off",
        f"{_IN_FLEET} and clock>5s",
        "The clock is more than 5 s ahead or behind.",
        Role.WARNING,
    ),
    rule(
        "restarted",
        "Just restarted",
        f"{_IN_FLEET} and uptime<10m and boots>1",
        "Started again within the last ten minutes.",
        Role.NOTICE,
    ),
    rule(
        "lost-reports",
        "Lost reports",
        f"{_IN_FLEET} and (lost>0 or dropped>0)",
        "Reports are missing: lost on the way, or dropped on the device.",
        Role.NOTICE,
    ),
    rule(
        "refused-reports",
        "Refused reports",
        "refused>0",
        "It sent what the station would not take.",
        Role.WARNING,
    ),
    rule(
        "backlog",
        "Catching up",
        f"{_IN_FLEET} and queued>100",
        "More than 100 reports wait on the device.",
        Role.NOTICE,
    ),
    rule("no-model", "Without a model", f"{_IN_FLEET} and missing:model", "Runs no model.", Role.NOTICE),
    rule("pending", "Waiting", "lifecycle:pending", "Asked to join and waits for a decision.", Role.NOTICE),
    rule(
        "rejected",
        "Turned away",
        "lifecycle:rejected",
        "Rejected: nothing it sends is taken.",
        Role.NEUTRAL,
    ),
    rule("gone", "Decommissioned", "lifecycle:decommissioned", "Taken out of service.", Role.NEUTRAL),
)


def device_rule(name: str) -> FilterRule:
    """The rule of that name; KeyError for any other."""
    for one in DEVICE_RULES:
        if one.name == name:
            return one
    raise KeyError(name)
