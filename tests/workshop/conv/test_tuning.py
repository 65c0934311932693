"""The schedule database, measuring in a child process, and tuning that keeps only what wins twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from fleetui.workshop.errors import Stopped
from fleetui.workshop.kernel import Kernel
from fleetui.workshop.progress import Progress
from fleetui.workshop.schedules import conv, conv_plan, database, emit, fuse
from fleetui.workshop.schedules.conv_direct import Direct
from fleetui.workshop.schedules.database import Database, Entry
from fleetui.workshop.schedules.measure import LocalMeasurer, Trial
from fleetui.workshop.schedules.rules import Context
from fleetui.workshop.schedules.tune import tune, works
from fleetui.workshop.targets.host import host
from tests.helpers.conv import Case, graph_of
from tests.helpers.kernels import check, random_feeds, using

CASES = [Case(h=12, w=12, c=16, m=32), Case(h=12, w=12, c=16, m=32), Case(kernel=(1, 1), pads=((0, 0), (0, 0)))]


def made() -> tuple[Context, list]:
    graph = graph_of(CASES)
    return Context(host(), graph), fuse.partition(graph, host())


# -------------------------------------------------------------------- database


def test_a_database_is_the_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    entries = [Entry(f"conv {n}", "t", {"kind": "direct", "pixels": n}, n * 1e-5) for n in range(5)]
    first, second = Database(tmp_path / "a"), Database(tmp_path / "b")
    for entry in entries:
        first.put(entry)
    for entry in reversed(entries):
        second.put(entry)
    first.save()
    second.save()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = Database.load(tmp_path / "a", with_shipped=False)
    assert sorted(again.entries) == sorted(entry.key for entry in entries)
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".new"]


def test_what_another_process_has_saved_meanwhile_stays(tmp_path: Path) -> None:
    mine, other = (Database.load(tmp_path / "db", with_shipped=False) for _ in range(2))
    mine.put(Entry("a", "t", {}, 1.0))
    other.put(Entry("b", "t", {}, 1.0))
    mine.save()
    other.save()
    assert len(database.read(tmp_path / "db")) == 2


def test_lines_nobody_understands_are_passed_over(tmp_path: Path) -> None:
    good = {"operator": "o", "target": "t", "plan": {}, "seconds": 1}
    lines = ["", "{", "[]", "7", json.dumps({**good, "plan": 3}), json.dumps({"operator": "x"}), json.dumps(good)]
    (tmp_path / "db").write_bytes("\n".join(lines).encode() + b"\n\xff\xfe")
    assert [entry.operator for entry in database.read(tmp_path / "db")] == ["o"]
    assert database.read(tmp_path / "missing") == []


def test_every_shipped_entry_can_be_read() -> None:
    path = database.shipped()
    assert path is not None
    lines = path.read_text("utf-8")
    entries = database.read(path)
    assert len(entries) == len(lines.splitlines()) > 0
    assert database.text(entries) == lines, "sorted, each once, written as the program writes them"


def test_the_rule_takes_what_the_database_knows() -> None:
    context, groups = made()
    rule = conv.CONVOLUTION
    wanted = Direct(5, 1, 2, 3)
    assert conv.pick(groups[0], context) != wanted
    context.database = Database()
    key = rule.operator(groups[0], context)
    context.database.put(Entry(key, database.features(host()), conv_plan.record(wanted), 1e-6))
    assert conv.pick(groups[0], context) == wanted
    assert rule.plans(groups[0], context)[0] == wanted, "tuning starts from it"
    context.database.put(Entry(key, database.features(host()), {"kind": "direct", "pixels": 10**9}, 1e-6))
    assert conv.pick(groups[0], context) == conv.options(groups[0], context)[0], "nonsense is not believed"


# -------------------------------------------------------------------- measuring


def broken() -> Kernel:
    """Writes where nothing is."""
    place = emit.buffer("p0", (1 << 20,), "float32")
    body = emit.serial("i", 1 << 20, lambda i: emit.store(place, [i + (1 << 28)], emit.number(1.0, "float32")))
    context, groups = made()
    template = conv.lower(groups[0], context, Direct(4, 1, 1, 4))[0]
    return Kernel("broken", emit.function([place], body), template.args[:1], [0])


def endless() -> Kernel:
    """Counts for years."""
    from tvm import tirx

    place = emit.buffer("p0", (4,), "float32")
    step = emit.store(place, [emit.integer(0)], emit.load(place, emit.integer(0)) + emit.number(1.0, "float32"))
    forever = emit.load(place, emit.integer(0)) < emit.number(1e30, "float32")
    context, groups = made()
    template = conv.lower(groups[0], context, Direct(4, 1, 1, 4))[0]
    return Kernel("endless", emit.function([place], tirx.While(forever, step)), template.args[:1], [0])


def test_a_candidate_that_crashes_or_hangs_costs_only_itself() -> None:
    context, groups = made()
    good = [conv.lower(groups[0], context, plan) for plan in (Direct(4, 2, 1, 12), Direct(12, 2, 1, 12))]
    measurer = LocalMeasurer(host(), timeout=4.0)
    trials = [Trial(good[0]), Trial([broken()]), Trial(good[1], cold=True), Trial([endless()])]
    times = measurer.measure(trials, 0.1)
    assert [took is None for took in times] == [False, True, False, True]
    assert measurer.failed == 2


# -------------------------------------------------------------------- tuning


class Told:
    """A measurer that is told what is fast: by the plan's number of pixels."""

    def __init__(self, fast: int, *, honest: bool = True) -> None:
        self.fast, self.honest, self.calls = fast, honest, 0

    def measure(self, trials: Sequence[Trial], seconds: float) -> list[float | None]:
        self.calls += 1
        lucky = self.honest or len(trials) > 2  # a fluke does not come twice
        return [
            0.5 if lucky and getattr(trial.kernels[0].detail["plan"], "pixels", 0) == self.fast else 1.0
            for trial in trials
        ]


def test_what_wins_twice_is_kept_and_used() -> None:
    context, groups = made()
    assert [work.count for work in works(groups, context)] == [2, 1], "equal work is looked at once"
    found = tune(groups, context, 60.0, measurer=Told(6))
    assert found.improved >= 1
    assert found.after < found.before
    graph = context.graph
    compiled = check(graph, random_feeds(graph), lower=lambda g, c: using(conv.CONVOLUTION)(g, known(c, context)))
    plans = [kernel.detail["plan"] for kernel in compiled.kernels]
    assert any(isinstance(plan, Direct) and plan.pixels == 6 for plan in plans)


def known(fresh: Context, tuned: Context) -> Context:
    fresh.database = tuned.database
    return fresh


def test_a_fluke_is_not_kept() -> None:
    context, groups = made()
    found = tune(groups, context, 60.0, measurer=Told(6, honest=False))
    assert found.measured > 0
    assert found.improved == 0
    assert not context.database.entries


def test_tuning_ends_with_its_time_and_when_it_is_stopped() -> None:
    context, groups = made()
    told = Told(6)
    assert tune(groups, context, 0.0, measurer=told).measured == 0
    assert told.calls == 0
    progress = Progress()

    class Stopper(Told):
        def measure(self, trials, seconds):
            progress.stop()
            return super().measure(trials, seconds)

    with pytest.raises(Stopped):
        tune(groups, context, 60.0, progress, Stopper(6))


def test_measured_here_for_real() -> None:
    context, groups = made()
    found = tune(groups, context, 0.5, measurer=LocalMeasurer(host(), least=3, most=10))
    assert found.measured > 0
    assert 0 < found.after <= found.before
