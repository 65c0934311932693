"""The stages of a compilation as plain data, and how a running one reports and is asked to stop.

The pipeline calls ``stage`` on the thread it runs on; a stop is asked for from any thread and is honoured at the
next ``check``, which every stage calls between kernels, files and rounds. Nothing here prints or sleeps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from fleetui.workshop.errors import Stopped


class Stage(StrEnum):
    INSPECT = "inspect"
    IMPORT = "import"
    SIMPLIFY = "simplify and fold"
    OPTIMISE = "optimise"
    LAYOUT = "lay out"
    FUSE = "fuse"
    SCHEDULE = "schedule"
    TUNE = "tune"
    PLAN = "plan memory"
    GENERATE = "generate code"
    LINK = "link"
    PROVE = "prove"


@dataclass(frozen=True, slots=True)
class Step:
    """One report: ``done`` of ``total`` within the stage, and a few words about what is being worked on."""

    stage: Stage
    done: int = 0
    total: int = 0
    detail: str = ""
    variant: str = ""
    seconds: float = 0.0
    finished: bool = False


@dataclass(slots=True)
class Progress:
    """``listener`` is called with every step; it must be quick and must not raise."""

    listener: Callable[[Step], None] = lambda _step: None
    variant: str = ""
    seconds: dict[Stage, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _current: Stage | None = None

    def stop(self) -> None:
        self._stop.set()

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def check(self) -> None:
        """Raise ``Stopped`` if somebody asked for it."""
        if self._stop.is_set():
            raise Stopped

    def step(self, done: int, total: int, detail: str = "") -> None:
        """Within a stage: how far, and with what."""
        self.check()
        if self._current is not None:
            self.listener(Step(self._current, done, total, detail, self.variant))

    @contextmanager
    def stage(self, stage: Stage, detail: str = "") -> Iterator[None]:
        self.check()
        outer, self._current = self._current, stage
        self.listener(Step(stage, detail=detail, variant=self.variant))
        begin = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - begin
            self.seconds[stage] = self.seconds.get(stage, 0.0) + took
            self._current = outer
        self.listener(Step(stage, 1, 1, detail, self.variant, took, finished=True))
