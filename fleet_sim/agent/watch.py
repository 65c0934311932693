"""What an agent notices by itself: vital figures past a limit, inferences that fail. With hysteresis, so that a
figure that hovers about its limit is one event and not fifty. Pure; the core turns the answers into reports.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet_sim.agent.events import Happened, Vitals


@dataclass(frozen=True, slots=True)
class Limit:
    figure: str  # field of Vitals
    kind: str
    high: float
    clear: float
    sentence: str  # takes the figure


LIMITS: tuple[Limit, ...] = (
    Limit("temperature", "temperature.high", 85.0, 75.0, "The processor is at {:.0f} °C"),
    Limit("disk", "disk.full", 0.95, 0.90, "The disk is {:.0%} full"),
    Limit("memory", "memory.full", 0.95, 0.88, "Memory is {:.0%} full"),
)
ERRORS_SHARE = 0.05
ERRORS_FEWEST = 5
ERRORS_CLEAR = 0.01


class Watch:
    """Remembers which limits are passed. Handles by name, figures by the kind of their event."""

    __slots__ = ("_over",)

    def __init__(self) -> None:
        self._over: frozenset[str] = frozenset()

    def vitals(self, vitals: Vitals) -> list[Happened]:
        found = []
        for limit in LIMITS:
            value = getattr(vitals, limit.figure)
            if value >= limit.high and limit.kind not in self._over:
                self._over |= {limit.kind}
                found.append(Happened(limit.kind, 2, (limit.figure,), limit.sentence.format(value) + "."))
            elif value < limit.clear and limit.kind in self._over:
                self._over -= {limit.kind}
                found.append(
                    Happened(limit.kind + ".over", 1, (limit.figure,), limit.sentence.format(value) + " again.")
                )
        return found

    def window(self, handle: str, rows: int, errors: int, error: str) -> list[Happened]:
        total = rows + errors
        name = f"handle {handle}"
        if errors >= ERRORS_FEWEST and errors >= ERRORS_SHARE * total and name not in self._over:
            self._over |= {name}
            text = f"{errors} of {total} inferences failed" + (f": {error}" if error else "") + "."
            return [Happened("inference.errors", 3, ("inference",), text[:400], handle[:64])]
        if name in self._over and total and errors <= ERRORS_CLEAR * total:
            self._over -= {name}
            return [Happened("inference.errors.over", 1, ("inference",), "Inferences succeed again.", handle[:64])]
        return []
