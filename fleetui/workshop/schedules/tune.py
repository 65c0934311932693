"""Finds better schedules by measuring, within a given time, and never settles for a slower one.

For every different piece of work among the groups the present plan is timed beside the most promising others, in
turns, in one process. A plan that wins is measured once more against the present one, in a fresh process, and
goes into the database only if it wins again. Work that takes the network's time is looked at first, and again
with further candidates as long as there is time left.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from fleetui.workshop.kernel import Group, Kernel
from fleetui.workshop.progress import Progress, Stage
from fleetui.workshop.schedules import rules
from fleetui.workshop.schedules.database import Database, Entry, features
from fleetui.workshop.schedules.measure import LocalMeasurer, Measurer, Trial
from fleetui.workshop.schedules.rules import Context

GAIN = 0.97
"""A plan has to take at most this share of the present one's time, twice."""
BATCH = 6
"""Candidates measured together, beside the present plan."""
MOST = 40
"""Candidates ever looked at for one piece of work."""


@runtime_checkable
class Tunable(Protocol):
    """A rule whose plans can be measured."""

    name: str

    def matches(self, group: Group, context: Context) -> bool: ...

    def operator(self, group: Group, context: Context) -> str:
        """The key of the work in the database: equal for what the same plan is best for."""
        ...

    def plans(self, group: Group, context: Context) -> Sequence[Any]:
        """Candidates, the present choice first."""
        ...

    def lower_plan(self, group: Group, context: Context, plan: Any) -> list[Kernel]: ...

    def record(self, plan: Any) -> Mapping[str, Any]:
        """The plan as JSON; the rule itself reads it back from the database."""
        ...

    def cold(self, group: Group, context: Context) -> bool:
        """Whether the constants come from memory on every call."""
        ...


@dataclass(slots=True)
class Work:
    """One different piece of work, how often it occurs, and how far the search has come."""

    operator: str
    rule: Tunable
    group: Group
    count: int = 1
    plans: list[Any] = field(default_factory=list)
    tried: int = 1
    present: float = 0.0
    best: Any = None
    improved: float = 1.0

    @property
    def share(self) -> float:
        """Time a call spends here, as far as known; what was never measured comes first."""
        return self.count * self.present if self.present else float("inf")


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of it: pieces of work, how many got better, seconds a call spends in them before and after."""

    works: int
    improved: int
    measured: int
    before: float
    after: float


def works(groups: Sequence[Group], context: Context) -> list[Work]:
    found: dict[str, Work] = {}
    table = rules.rules()
    for group in groups:
        rule: Any = next((rule for rule in table if rule.matches(group, context)), None)
        if not isinstance(rule, Tunable):
            continue
        operator = rule.operator(group, context)
        if operator in found:
            found[operator].count += 1
            continue
        plans = list(rule.plans(group, context))[:MOST]
        if len(plans) > 1:
            found[operator] = Work(operator, rule, group, plans=plans, best=plans[0])
    return list(found.values())


def tune(
    groups: Sequence[Group],
    context: Context,
    seconds: float,
    progress: Progress | None = None,
    measurer: Measurer | None = None,
) -> Tuned:
    """Fill ``context.database`` with what is measured to be better. Returns when time is up or all is looked at.

    Stopping (``progress.stop``) raises ``Stopped``; what was found until then is in the database.
    """
    progress = progress or context.progress
    measurer = measurer or LocalMeasurer(context.target)
    if context.database is None:
        context.database = Database()
    end = time.perf_counter() + seconds
    todo = works(groups, context)
    measured = 0
    with progress.stage(Stage.TUNE):
        while time.perf_counter() < end:
            open_ = [work for work in todo if work.tried < len(work.plans)]
            if not open_:
                break
            work = max(open_, key=lambda work: (work.share / work.tried, work.operator))
            progress.step(sum(w.tried for w in todo), sum(len(w.plans) for w in todo), work.operator)
            measured += _advance(work, context, measurer, end)
    before = sum(work.count * work.present for work in todo)
    after = sum(work.count * work.present * work.improved for work in todo)
    return Tuned(len(todo), sum(work.improved < 1 for work in todo), measured, before, after)


def _advance(work: Work, context: Context, measurer: Measurer, end: float) -> int:
    """Measure the next few candidates beside the best so far."""
    batch = work.plans[work.tried : work.tried + BATCH]
    work.tried += len(batch)
    allowance = max(0.2, min(1.5, (end - time.perf_counter()) / 4))
    times = _measure(work, context, measurer, [work.best, *batch], allowance)
    held = times[0]
    if held is None:
        return len(batch)
    if not work.present:
        work.present = held
    usable = [(took, index) for index, took in enumerate(times[1:]) if took is not None]
    if not usable:
        return len(batch)
    least, index = min(usable)
    if least > GAIN * held:
        return len(batch)
    again = _measure(work, context, measurer, [work.best, batch[index]], allowance)
    first, second = again
    if first is None or second is None or second > GAIN * first:
        return len(batch)
    work.improved *= max(least / held, second / first)
    work.best = batch[index]
    entry = Entry(work.operator, features(context.target), work.rule.record(work.best), second, first)
    context.database.put(entry)
    return len(batch)


def _measure(
    work: Work, context: Context, measurer: Measurer, plans: Sequence[Any], allowance: float
) -> list[float | None]:
    cold = work.rule.cold(work.group, context)
    trials = [Trial(work.rule.lower_plan(work.group, context, plan), cold) for plan in plans]
    return measurer.measure(trials, allowance)
