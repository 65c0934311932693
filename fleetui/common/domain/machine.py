"""State tables: theory first.

A machine is a table ``{state: {event: next state}}`` and nothing else. Whoever uses it keeps the state (in a
row, in a file) and asks the table for the next one. An event that a state does not list is *refused* and
changes nothing; callers decide whether a refusal is worth a word. The tables themselves stand in
``states.py``, and the diagrams in ARCHITECTURE.md are generated from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

from fleetui.common.domain.errors import BugError

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True)
class StateTable(Generic[S, E]):
    """One machine. ``start`` is where it begins; states without a row are its ends."""

    name: str
    start: S
    table: Mapping[S, Mapping[E, S]]
    states: frozenset[S] = field(init=False)
    ends: frozenset[S] = field(init=False)

    def __post_init__(self) -> None:
        known = set(type(self.start))
        reached: set[S] = {self.start}
        for row in self.table.values():
            reached.update(row.values())
        missing = known - reached
        if missing:
            raise BugError(f"{self.name}: nothing leads to {sorted(missing)}")
        object.__setattr__(self, "states", frozenset(known))
        object.__setattr__(self, "ends", frozenset(s for s in known if not self.table.get(s)))

    def next(self, state: S, event: E) -> S | None:
        """The state after ``event``, or None where ``state`` does not take it."""
        return self.table.get(state, {}).get(event)

    def takes(self, state: S) -> frozenset[E]:
        return frozenset(self.table.get(state, {}))

    def is_end(self, state: S) -> bool:
        return state in self.ends

    def mermaid(self) -> str:
        """The table as a diagram for the documents."""
        lines = ["stateDiagram-v2"]
        lines += [f'    state "{s}" as {_node(s)}' for s in type(self.start) if _node(s) != s]
        lines.append(f"    [*] --> {_node(self.start)}")
        for state, row in self.table.items():
            grouped: dict[S, list[str]] = {}
            for event, target in row.items():
                grouped.setdefault(target, []).append(str(event))
            lines += [
                f"    {_node(state)} --> {_node(target)}: {', '.join(events)}" for target, events in grouped.items()
            ]
        lines += [f"    {_node(end)} --> [*]" for end in sorted(self.ends)]
        return "\n".join(lines)


def _node(state: StrEnum) -> str:
    """A state's word as Mermaid takes it for a name."""
    return re.sub(r"\W", "_", str(state))
