"""The interface of a schedule rule, and the table that picks one.

Rules are asked in the table's order; the first whose ``matches`` says yes lowers the group. The generic rule at
the end takes whatever is left, so a rule may refuse freely.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleetui.common.domain.errors import BugError
from fleetui.workshop.graph.ir import Graph, Value
from fleetui.workshop.kernel import Group, Kernel, Placement, dense_strides
from fleetui.workshop.progress import Progress
from fleetui.workshop.target import Target

TABLE: tuple[str, ...] = (
    "fleetui.workshop.trees.rule",
    "fleetui.workshop.schedules.conv",
    "fleetui.workshop.schedules.dense",
    "fleetui.workshop.schedules.attention",
    "fleetui.workshop.schedules.recurrent",
    "fleetui.workshop.schedules.generic",
)
"""Modules with a ``RULES`` list, most special first. One that does not exist is an error, not skipped."""


@dataclass(slots=True)
class Context:
    """What a rule may know beside its group."""

    target: Target
    graph: Graph
    placements: dict[Value, Placement] = field(default_factory=dict)
    threads: int = 1
    database: Any = None
    """``schedules.database.Database`` or None: chosen parameters by operator, shapes and target."""
    progress: Progress = field(default_factory=Progress)
    limits: dict[str, float] = field(default_factory=dict)
    """``Options.limits``: ``winograd`` is the most a convolution's weights may grow for speed (1: not at all)."""

    def strides(self, value: Value) -> tuple[int, ...]:
        """Element strides of a value: not dense where it lives inside a concatenation."""
        place = self.placements.get(value)
        return place.strides if place is not None else dense_strides(value.shape)


class Rule(Protocol):
    name: str

    def matches(self, group: Group, context: Context) -> bool: ...

    def lower(self, group: Group, context: Context) -> list[Kernel]: ...


def rules() -> list[Rule]:
    found: list[Rule] = []
    for name in TABLE:
        found.extend(importlib.import_module(name).RULES)
    return found


def lower(group: Group, context: Context) -> list[Kernel]:
    for rule in rules():
        if rule.matches(group, context):
            return rule.lower(group, context)
    raise BugError(f"no schedule rule takes {group.anchor.op}")
