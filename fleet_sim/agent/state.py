"""What a running agent writes down of itself, for ``fleet-agent status`` and ``doctor``: one small JSON file.

Written beside and put in place, so a reader never sees half of it. Its being there does not mean that the agent
runs: the lock on the data folder does (:func:`running`).
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NAME = "state.json"


@dataclass(frozen=True, slots=True)
class AgentState:
    """Times are fleet time."""

    version: str
    pid: int
    fleet: str
    device: str
    broker: str
    boot: str
    started: float
    at: float
    link: str
    link_reason: str
    link_since: float
    sent: int
    acknowledged: int
    refused: int
    queued: int
    queued_bytes: int
    dropped: int
    merged: int
    rows: int
    errors: int
    model: str
    cpu: float
    memory: float
    disk: float
    temperature: float
    problem: str = ""


def write(folder: Path, state: AgentState) -> None:
    """Best effort: a full disk must not stop the agent."""
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(state).items()}
    fresh = folder / f"{NAME}.new"
    try:
        fresh.write_text(json.dumps(plain, indent=1) + "\n", "utf-8")
        fresh.replace(folder / NAME)
    except OSError:
        return


def read(folder: Path) -> dict[str, Any] | None:
    """The last state, None if there is none that can be read."""
    try:
        found = json.loads((folder / NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def running(folder: Path) -> bool:
    """Whether an agent works with this folder now."""
    try:
        fd = os.open(folder / "lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
