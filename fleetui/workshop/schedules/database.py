"""Parameters that have been measured to be best: by operator, shape and the features of a target.

Two files of JSON lines, one that is shipped (``resources/schedules``) and one of the user's that grows; the user's
wins. Lines are sorted, so equal contents are equal bytes. A line that cannot be read is passed over: a database
is an aid, never a reason to fail. What a plan's parameters mean is the business of the rule that wrote them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fleetui.workshop.target import Target

NAME = "schedules.jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """``operator`` is a rule's key of the work, ``target`` of the hardware; ``before``: what it took without."""

    operator: str
    target: str
    plan: Mapping[str, Any]
    seconds: float
    before: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        return self.target, self.operator


def features(target: Target) -> str:
    """What of a target decides which schedule is best: targets alike in this share entries."""
    parts = [
        target.arch,
        f"v{target.vector}",
        f"r{target.registers}",
        f"l1.{target.l1 >> 10}",
        f"l2.{target.l2 >> 10}",
    ]
    return "-".join([*parts, *(["fma"] if target.fma else [])])


def shipped() -> Path | None:
    package = Path(__file__).parents[2]
    for folder in (package / "_resources" / "schedules", package.parent / "resources" / "schedules"):
        if (folder / NAME).is_file():
            return folder / NAME
    return None


@dataclass(slots=True)
class Database:
    """``path`` is the user's file, None to keep what is learnt in memory only."""

    path: Path | None = None
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    own: dict[tuple[str, str], Entry] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | None = None, *, with_shipped: bool = True) -> Database:
        made = cls(path)
        source = shipped() if with_shipped else None
        if source is not None:
            made.entries.update((entry.key, entry) for entry in read(source))
        if path is not None and path.is_file():
            made.own.update((entry.key, entry) for entry in read(path))
            made.entries.update(made.own)
        return made

    def find(self, operator: str, target: Target) -> Entry | None:
        return self.entries.get((features(target), operator))

    def put(self, entry: Entry) -> None:
        self.entries[entry.key] = self.own[entry.key] = entry

    def save(self) -> None:
        """Write the user's file, whole or not at all; what others have added meanwhile is kept."""
        if self.path is None or not self.own:
            return
        together = {entry.key: entry for entry in read(self.path)} if self.path.is_file() else {}
        together.update(self.own)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        try:
            fresh.write_text(text(together.values()), "utf-8")
            fresh.replace(self.path)
        finally:
            fresh.unlink(missing_ok=True)


def text(entries: Iterable[Entry]) -> str:
    ordered = sorted(entries, key=lambda entry: entry.key)
    lines = []
    for entry in ordered:
        rounded = {**asdict(entry), "plan": dict(entry.plan)}
        rounded["seconds"], rounded["before"] = _rounded(entry.seconds), _rounded(entry.before)
        lines.append(json.dumps(rounded, sort_keys=True, separators=(",", ":")))
    return "".join(f"{line}\n" for line in lines)


def _rounded(seconds: float) -> float:
    """Nanoseconds are beyond what is measured."""
    return round(seconds, 8)


def read(path: Path) -> list[Entry]:
    found = []
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            raw = json.loads(line)
            found.append(
                Entry(
                    str(raw["operator"]),
                    str(raw["target"]),
                    dict(raw["plan"]),
                    float(raw["seconds"]),
                    float(raw.get("before", 0.0)),
                )
            )
        except (ValueError, KeyError, TypeError):
            continue
    return found
