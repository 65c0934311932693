"""Compile jobs: asked, claimed, reported, stopped, finished, and taken back from workers that are gone."""

from __future__ import annotations

import pytest

from fleetui.common.domain.states import Job, JobEvent
from fleetui.store import feed, jobs
from fleetui.store.records import JobRow
from fleetui.store.store import Store

T0 = 1_700_000_000.0
TTL = 30.0


def ask(store: Store, identity: str = "j", **changes: object) -> bool:
    row = JobRow(identity, "compile", f"model {identity}", {"source": "/m.onnx"}, "op", T0, **changes)  # type: ignore[arg-type]
    return store.write(lambda c: jobs.ask(c, row))


def claim(store: Store, holder: str = "w", now: float = T0) -> JobRow | None:
    return store.write(lambda c: jobs.claim(c, holder, TTL, now))


def job(store: Store, identity: str = "j") -> JobRow:
    with store.read() as connection:
        found = jobs.get(connection, identity)
    assert found is not None
    return found


def test_a_job_is_asked_claimed_reported_and_completed(store: Store) -> None:
    assert ask(store)
    assert not ask(store)  # asking twice is asking once
    taken = claim(store)
    assert taken is not None
    assert (taken.state, taken.holder, taken.attempts, taken.started) == (Job.IN_PROGRESS, "w", 1, T0)
    assert claim(store, "other") is None
    said = store.write(lambda c: jobs.report(c, "j", "w", {"stage": "fuse"}, TTL, T0 + 20))
    assert said is Job.IN_PROGRESS
    assert job(store).progress == {"stage": "fuse"}
    assert job(store).held_until == T0 + 20 + TTL
    assert store.write(lambda c: jobs.finish(c, "j", "w", JobEvent.COMPLETE, now=T0 + 25, record={"model": "m"}))
    done = job(store)
    assert (done.state, done.record, done.ended) == (Job.COMPLETED, {"model": "m"}, T0 + 25)
    assert not store.write(lambda c: jobs.finish(c, "j", "w", JobEvent.FAIL, now=T0 + 26))


def test_jobs_are_claimed_in_the_order_of_asking(store: Store) -> None:
    for name in ("b", "a", "c"):
        ask(store, name)
    claimed = [claim(store) for _ in range(4)]
    assert [None if row is None else row.id for row in claimed] == ["b", "a", "c", None]


def test_whoever_lost_a_job_cannot_end_it(store: Store) -> None:
    ask(store)
    claim(store, "first")
    again = claim(store, "second", T0 + TTL + 1)
    assert again is not None
    assert (again.holder, again.attempts) == ("second", 2)
    assert store.write(lambda c: jobs.report(c, "j", "first", {}, TTL, T0 + TTL + 2)) is None
    assert not store.write(lambda c: jobs.finish(c, "j", "first", JobEvent.COMPLETE, now=T0, record={}))
    assert job(store).state is Job.IN_PROGRESS


def test_a_job_that_kills_its_workers_fails_for_good(store: Store) -> None:
    ask(store)
    now = T0
    for attempt in range(jobs.ATTEMPTS):
        row = claim(store, f"w{attempt}", now)
        assert row is not None
        now += TTL + 1
    assert claim(store, "last", now) is None
    failed = job(store)
    assert failed.state is Job.FAILED
    assert failed.code == "died"
    assert f"{jobs.ATTEMPTS} times" in failed.sentence


def test_stopping_one_that_waits_and_one_that_runs(store: Store) -> None:
    ask(store, "waits")
    assert store.write(lambda c: jobs.stop(c, "waits", now=T0)) is Job.STOPPED
    ask(store, "runs")
    claim(store)
    assert store.write(lambda c: jobs.stop(c, "runs", now=T0)) is Job.STOPPING
    assert store.write(lambda c: jobs.report(c, "runs", "w", {}, TTL, T0)) is Job.STOPPING
    # What came of it after all is not given out.
    assert store.write(lambda c: jobs.finish(c, "runs", "w", JobEvent.COMPLETE, now=T0, record={"model": "m"}))
    assert (job(store, "runs").state, job(store, "runs").record) == (Job.STOPPED, {})
    assert store.write(lambda c: jobs.stop(c, "runs", now=T0)) is Job.STOPPED
    assert store.write(lambda c: jobs.stop(c, "nobody", now=T0)) is None


def test_one_that_was_stopping_when_its_worker_died_is_stopped(store: Store) -> None:
    ask(store)
    claim(store)
    store.write(lambda c: jobs.stop(c, "j", now=T0))
    assert claim(store, "other", T0 + TTL + 1) is None
    assert job(store).state is Job.STOPPED


def test_a_worker_that_is_shut_down_gives_its_job_back(store: Store) -> None:
    ask(store)
    claim(store)
    assert not store.write(lambda c: jobs.release(c, "j", "other"))
    assert store.write(lambda c: jobs.release(c, "j", "w"))
    assert (job(store).state, job(store).attempts) == (Job.STARTING, 0)
    again = claim(store, "other")
    assert again is not None
    assert again.attempts == 1


@pytest.mark.parametrize("event", [JobEvent.FAIL, JobEvent.COMPLETE])
def test_jobs_travel_in_the_change_feed(store: Store, event: JobEvent) -> None:
    with store.read() as connection:
        since = feed.head(connection)
    ask(store)
    claim(store)
    store.write(lambda c: jobs.finish(c, "j", "w", event, now=T0, code="x", sentence="It\0broke", fix="Mend it"))
    with store.read() as connection:
        changes = feed.read(connection, since)
        assert jobs.recent(connection, only_open=True) == []
        assert [row.id for row in jobs.recent(connection)] == ["j"]
    assert [row.id for row in changes.jobs] == ["j"]
    assert changes.jobs[0].sentence == "It\ufffdbroke"
