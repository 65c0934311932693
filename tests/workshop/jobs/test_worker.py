"""A worker that takes jobs from the store: real jobs, in processes, and what becomes of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetui.common.domain.clock import SystemClock
from fleetui.common.domain.states import Job
from fleetui.store import jobs
from fleetui.store.records import JobRow
from fleetui.store.store import Store
from fleetui.workshop.job import Request, read_record
from fleetui.workshop.worker import Worker
from tests.bench import zoo
from tests.helpers.wait import wait_until


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path / 'fleet.db'}", clock=SystemClock()) as opened:
        yield opened


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "mlp.onnx"
    path.write_bytes(zoo.mlp((6, 8, 3)))
    return path


def ask(store: Store, identity: str, source: Path, out: str = "/somewhere/else") -> None:
    row = JobRow(identity, "compile", source.name, Request(str(source), out).to_json(), "op", 0.0)
    store.write(lambda c: jobs.ask(c, row))


def job(store: Store, identity: str) -> JobRow:
    with store.read() as connection:
        found = jobs.get(connection, identity)
    assert found is not None
    return found


def test_jobs_are_done_in_turn_and_land_in_the_workers_own_folder(
    store: Store, model: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model.read_bytes()[:40])
    ask(store, "a1", model, out="/etc")
    ask(store, "b2", broken)
    said: list[tuple[str, dict]] = []
    worker = Worker(
        store,
        SystemClock(),
        tmp_path / "variants",
        name="w",
        say=lambda kind, **fields: said.append((kind, fields)),
    )
    (tmp_path / "variants").mkdir()
    assert worker.run(drain=True) == 2
    done = job(store, "a1")
    assert done.state is Job.COMPLETED
    assert Path(done.record["out"]) == tmp_path / "variants" / "a1"
    assert read_record(tmp_path / "variants" / "a1")["variants"]
    assert done.progress["stage"]
    failed = job(store, "b2")
    assert failed.state is Job.FAILED
    assert failed.sentence
    assert failed.fix
    assert [kind for kind, _ in said] == ["ready", "job", "job", "job", "job", "stopped"]


def test_a_stopped_job_stops_and_a_worker_that_is_stopped_gives_its_job_back(
    store: Store, model: Path, tmp_path: Path
) -> None:
    big = tmp_path / "big.onnx"
    big.write_bytes(zoo.mobilenet_v1(128, 10))  # long enough to be caught at it
    folder = tmp_path / "variants"
    folder.mkdir()
    worker = Worker(store, SystemClock(), folder, name="w")
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        ask(store, "stopme", big)
        wait_until(lambda: bool(job(store, "stopme").progress), timeout=60, what="the job's first step")
        store.write(lambda c: jobs.stop(c, "stopme", now=1.0))
        wait_until(lambda: job(store, "stopme").state is Job.STOPPED, timeout=30, what="the job's end")
        ask(store, "again", big)
        wait_until(lambda: job(store, "again").state is Job.IN_PROGRESS, timeout=30, what="its turn")
    finally:
        worker.stop()
        thread.join(60)
    assert not thread.is_alive()
    assert (job(store, "again").state, job(store, "again").attempts) == (Job.STARTING, 0)
    assert list(folder.iterdir()) == []


def test_a_request_nobody_can_read_fails_with_a_sentence(store: Store, tmp_path: Path) -> None:
    store.write(lambda c: jobs.ask(c, JobRow("odd", "compile", "odd", {"colour": "red"}, "op", 0.0)))
    Worker(store, SystemClock(), tmp_path, name="w").run(drain=True)
    assert job(store, "odd").state is Job.FAILED
    assert "cannot be read" in job(store, "odd").sentence
