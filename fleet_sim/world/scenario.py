"""Timelines of faults, written as TOML, checked in sentences::

    title = "A hot afternoon"
    description = "What people see and when."

    [[step]]
    at = "20m"                  # fleet time since the start
    for = "2h"                  # without it: until the end
    every = "1d"                # without it: once
    select = "site:turin"       # in the filter language, over what is known before a device runs; without it: all
    share = "10%"               # of those; or count = 3; without either: all of those
    fault = "hot"               # and its parameters (fleet-sim faults)
    degrees = 30

Which devices a share takes follows from the seed. Pure but for reading the file.
"""

from __future__ import annotations

import heapq
import importlib.resources
import math
import tomllib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fleet_sim.world.faults import KINDS, Value, check, number
from fleet_sim.world.population import CATALOGUE, Population
from fleetui.common.domain import ages
from fleetui.common.domain.errors import ConfigError, FilterError
from fleetui.common.domain.filters import parse

I64 = npt.NDArray[np.int64]
YEARS = 100 * 365 * 86400.0
_OWN = {"at", "for", "every", "select", "share", "count", "fault", "name"}


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    at_s: float
    fault: str
    parameters: Mapping[str, Value]
    lasts_s: float = math.inf
    every_s: float = math.inf
    select: str = ""
    share: float = 1.0
    count: int = 0

    def choose(self, population: Population, turn: int = 0) -> I64:
        """The devices it befalls; another part of them at each turn."""
        chosen = population.select(self.select)
        wanted = self.count or math.ceil(self.share * len(chosen))
        if wanted >= len(chosen):
            return chosen
        rng = np.random.default_rng([population.seed, 41, zlib.crc32(self.name.encode()), turn])
        return np.sort(rng.permutation(chosen)[:wanted])


@dataclass(frozen=True, slots=True)
class Scenario:
    title: str
    description: str = ""
    steps: tuple[Step, ...] = ()


def shipped() -> list[str]:
    """The names of the scenarios that come with the program."""
    folder = importlib.resources.files("fleet_sim") / "scenarios"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def load(name: str) -> Scenario:
    """A file, or one of :func:`shipped` by its name. Raises ``ConfigError``."""
    if name in shipped():
        text = (importlib.resources.files("fleet_sim") / "scenarios" / f"{name}.toml").read_text("utf-8")
        return read(text, f"the scenario {name!r}")
    try:
        text = Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(
            f"The scenario {name!r} cannot be read: {reason}", f"Name a TOML file or one of {', '.join(shipped())}"
        ) from None
    return read(text, name)


def read(text: str, where: str = "the scenario") -> Scenario:
    """The scenario that the text writes. Raises ``ConfigError``, one sentence about the first fault found."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not TOML: {error}", "Correct the line it names") from None
    for key in content:
        if key not in {"title", "description", "step"}:
            raise ConfigError(f"{where} has a key {key!r}", "It may have title, description and [[step]]")
    title, description = content.get("title", ""), content.get("description", "")
    if not isinstance(title, str) or not title.strip():
        raise ConfigError(f"{where} has no title", 'Begin it with title = "…"')
    if not isinstance(description, str):
        raise ConfigError(f"The description in {where} is not a text", "Put it in quotes")
    steps = content.get("step", [])
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ConfigError(f"'step' in {where} is not a list of tables", "Write [[step]] before each")
    checked = []
    for i, step in enumerate(steps, start=1):
        try:
            checked.append(_step(step, i))
        except FilterError as error:
            raise ConfigError(f"Step {i} of {where} selects badly: {error.sentence}", error.fix) from None
        except ConfigError as error:
            raise ConfigError(f"Step {i} of {where}: {error.sentence}", error.fix) from None
    names = [step.name for step in checked]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"Two steps of {where} are called {name!r}", "Give each a name of its own")
    return Scenario(title.strip(), description.strip(), tuple(checked))


def _step(table: Mapping[str, Any], number_: int) -> Step:
    fault = table.get("fault")
    if not isinstance(fault, str):
        raise ConfigError("it names no fault", f"Write fault = … with one of {', '.join(KINDS)}")
    parameters = check(fault, {name: value for name, value in table.items() if name not in _OWN})
    if "at" not in table:
        raise ConfigError("it does not say when", 'Write at = "20m", the time since the start')
    lasts_s, every_s = math.inf, math.inf
    at_s = number(table["at"], ages.Unit.SECONDS, "at", 0.0, YEARS)
    if "for" in table:
        lasts_s = number(table["for"], ages.Unit.SECONDS, "for", 1.0, YEARS)
    if "every" in table:
        every_s = number(table["every"], ages.Unit.SECONDS, "every", 60.0, YEARS)
        if lasts_s > every_s:
            raise ConfigError("it begins again before it has ended", "Let 'for' be no longer than 'every'")
    select = table.get("select", "")
    if not isinstance(select, str):
        raise ConfigError("its select is not a text", 'Write a filter in quotes, like "site:turin"')
    parse(select, CATALOGUE)
    if "share" in table and "count" in table:
        raise ConfigError("it has both a share and a count", "Keep one of them")
    share = number(table.get("share", 1.0), ages.Unit.SHARE, "share", 0.0001, 1.0)
    count = number(table.get("count", 0), ages.Unit.NONE, "count", 1 if "count" in table else 0, 1e6)
    if count != int(count):
        raise ConfigError(f"count cannot be {count:g}", "Write a whole number")
    name = table.get("name", f"{fault} {number_}")
    if not isinstance(name, str) or not name.strip() or len(name) > 60:
        raise ConfigError("its name is not a short text", 'Write something like name = "heat in Turin"')
    return Step(name, at_s, fault, parameters, lasts_s, every_s, select, share, int(count))


@dataclass(slots=True)
class Timeline:
    """A scenario in time. ``due`` gives each turn of each step once, in order."""

    scenario: Scenario
    start: float
    _heap: list[tuple[float, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._heap = [(self.start + step.at_s, i, 0) for i, step in enumerate(self.scenario.steps)]
        heapq.heapify(self._heap)

    @property
    def next_at(self) -> float:
        return self._heap[0][0] if self._heap else math.inf

    def due(self, now: float) -> list[tuple[float, Step, int]]:
        """(when, step, turn) of what has become due. What would be over already is left out."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            when, i, turn = heapq.heappop(self._heap)
            step = self.scenario.steps[i]
            if math.isfinite(step.every_s):
                heapq.heappush(self._heap, (when + step.every_s, i, turn + 1))
            if when + step.lasts_s > now:
                found.append((when, step, turn))
        return found
