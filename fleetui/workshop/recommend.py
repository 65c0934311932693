"""Which of the variants to take, given what somebody needs: the cheapest that meets every goal, and why.

"Cheapest" is the smallest packed size for one target, and over targets the one with the least peak arithmetic
(a small board costs less than a big one). Latencies of hardware that is not at hand are estimates, and say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleetui.workshop.errors import WorkshopError

Variant = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Goals:
    """Limits; ``None`` is no limit. ``accuracy`` is compared with the accuracy, else with the agreement."""

    latency_us: float | None = None
    packed_bytes: float | None = None
    workspace_bytes: float | None = None
    accuracy: float | None = None

    @property
    def any(self) -> bool:
        return any(
            limit is not None for limit in (self.latency_us, self.packed_bytes, self.workspace_bytes, self.accuracy)
        )


@dataclass(frozen=True, slots=True)
class Advice:
    """``best`` is a variant's ``dir``, empty where none meets the goals; ``misses`` says of each other one why."""

    best: str
    sentence: str
    misses: Mapping[str, str]


def parse(text: str) -> Goals:
    """``latency=20ms,size=2MB,accuracy=0.95`` as the command line gives it."""
    found: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, value = part.partition("=")
        if name not in _READ:
            raise WorkshopError(
                f"There is no goal {name!r}", f"Goals are {', '.join(_READ)}: latency=20ms,size=2MB"
            )
        field, read = _READ[name]
        try:
            found[field] = read(value)
        except ValueError:
            raise WorkshopError(
                f"{value!r} is no {name}", "Write it like latency=20ms, size=2MB, accuracy=95%"
            ) from None
    return Goals(**found)


def _unit(text: str, units: Mapping[str, float]) -> float:
    for suffix in sorted(units, key=len, reverse=True):
        if suffix and text.lower().endswith(suffix):
            return float(text[: -len(suffix)]) * units[suffix]
    return float(text) * units[""]


def _time(text: str) -> float:
    return _unit(text, {"": 1e3, "ms": 1e3, "us": 1.0, "µs": 1.0, "s": 1e6})


def _size(text: str) -> float:
    return _unit(text, {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "kib": 1024.0, "mib": 1048576.0})


def _share(text: str) -> float:
    return float(text.rstrip("%")) / (100 if text.endswith("%") else 1)


_READ: dict[str, tuple[str, Callable[[str], float]]] = {
    "latency": ("latency_us", _time),
    "size": ("packed_bytes", _size),
    "memory": ("workspace_bytes", _size),
    "accuracy": ("accuracy", _share),
}


def recommend(variants: Sequence[Variant], goals: Goals, power: Mapping[str, float]) -> Advice:
    """``power`` is each target's peak arithmetic, from the catalogue."""
    misses = {str(v["dir"]): _miss(v, goals) for v in variants}
    fit = [v for v in variants if not misses[str(v["dir"])]]
    if not fit:
        near = min(variants, key=lambda v: _distance(v, goals), default=None)
        closest = f" {near['dir']} comes closest: {misses[str(near['dir'])]}." if near is not None else ""
        return Advice("", f"No variant meets these goals.{closest}", misses)
    best = min(fit, key=lambda v: (power.get(str(v["target"]), 0.0), v["packed_bytes"], v["latency_us"]))
    guess = "" if best["latency_from"] == "measured" else " (an estimate until a device has measured it)"
    words = f"{best['dir']} is the cheapest that fits: {best['latency_us'] / 1e3:.3g} ms{guess}"
    return Advice(str(best["dir"]), f"{words}, {best['packed_bytes'] / 1e6:.3g} MB packed", misses)


def _quality(variant: Variant) -> float | None:
    found = variant["accuracy"] if variant["accuracy"] is not None else variant["agreement"]
    return None if found is None else float(found)


def _miss(variant: Variant, goals: Goals) -> str:
    """Why it does not do; empty where it does."""
    if goals.latency_us is not None and variant["latency_us"] > goals.latency_us:
        kind = "about " if variant["latency_from"] != "measured" else ""
        return f"{kind}{variant['latency_us'] / 1e3:.3g} ms, more than {goals.latency_us / 1e3:.3g} ms"
    if goals.packed_bytes is not None and variant["packed_bytes"] > goals.packed_bytes:
        return f"{variant['packed_bytes'] / 1e6:.3g} MB, more than {goals.packed_bytes / 1e6:.3g} MB"
    if goals.workspace_bytes is not None and variant["workspace_bytes"] > goals.workspace_bytes:
        return (
            f"{variant['workspace_bytes'] / 1e6:.3g} MB of memory, more than {goals.workspace_bytes / 1e6:.3g} MB"
        )
    if goals.accuracy is not None:
        quality = _quality(variant)
        if quality is None:
            return "its accuracy was not measured (give --check)"
        if quality < goals.accuracy:
            return f"{quality:.1%} right, less than {goals.accuracy:.1%}"
    return ""


def _distance(variant: Variant, goals: Goals) -> float:
    """How far beyond its limits, as the largest factor."""
    worst = 1.0
    for name in ("latency_us", "packed_bytes", "workspace_bytes"):
        limit = getattr(goals, name)
        if limit:
            worst = max(worst, variant[name] / limit)
    if goals.accuracy is not None:
        worst = max(worst, goals.accuracy / max(_quality(variant) or 0.0, 1e-6))
    return worst
