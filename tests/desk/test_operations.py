"""Operations: order, errors that nobody swallows, stopping."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from fleetui.common.domain.clock import SystemClock
from fleetui.common.domain.errors import StoreError
from fleetui.desk.app.operations import Operation, Operations, Progress
from tests.helpers.desk import MainThread


class Desk:
    def __init__(self) -> None:
        self.main = MainThread()
        self.unhandled: list[tuple[str, Exception]] = []
        self.operations = Operations(
            self.main.post, SystemClock(), lambda operation, error: self.unhandled.append((operation.title, error))
        )

    def settle(self) -> None:
        self.main.until(lambda: self.operations.idle, "the end of all operations")


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.operations.close()


def test_work_runs_elsewhere_and_its_result_comes_here(desk: Desk) -> None:
    where: list[str] = []
    Operation("Read", lambda: threading.current_thread().name).on_done(
        lambda name: where.extend([name, threading.current_thread().name])
    ).start(desk.operations)
    desk.settle()
    assert where[0].startswith("desk-work")
    assert where[1] == threading.current_thread().name


def test_store_writes_keep_their_order(desk: Desk) -> None:
    gate = threading.Event()
    order: list[int] = []
    Operation("First", lambda: (gate.wait(10), order.append(0))).in_store().start(desk.operations)
    for n in range(1, 20):
        Operation(f"Write {n}", lambda n=n: order.append(n)).in_store().start(desk.operations)
    other = Operation("Elsewhere", lambda: order.append(-1)).start(desk.operations)
    desk.main.until(lambda: other not in desk.operations.running, "the other lane")
    gate.set()
    desk.settle()
    assert order == [-1, *range(20)]


@pytest.mark.logs_warnings("Read failed")
def test_an_error_without_a_handler_is_not_lost(desk: Desk) -> None:
    def fail() -> None:
        raise ValueError("no")

    Operation("Read", fail).start(desk.operations)
    desk.settle()
    assert [(title, str(error)) for title, error in desk.unhandled] == [("Read", "no")]


def test_an_operators_error_goes_to_its_handler(desk: Desk) -> None:
    heard: list[Exception] = []

    def fail() -> None:
        raise StoreError("The disk is full", "Free some space")

    Operation("Write", fail).on_error(heard.append).in_store().start(desk.operations)
    desk.settle()
    assert str(heard[0]) == "The disk is full. Free some space."
    assert desk.unhandled == []


@pytest.mark.logs_warnings("failed")
@pytest.mark.parametrize("stage", ["done", "error"])
def test_an_error_of_a_handler_is_not_lost_either(desk: Desk, stage: str) -> None:
    def broken(_result: object) -> None:
        raise KeyError("handler")

    def work() -> None:
        if stage == "error":
            raise ValueError("work")

    Operation("Read", work).on_done(broken).on_error(broken).start(desk.operations)
    desk.settle()
    [(_, error)] = desk.unhandled
    assert isinstance(error, KeyError)


def test_a_cancelled_operation_stops_and_says_nothing(desk: Desk) -> None:
    begun = threading.Event()
    said: list[object] = []

    def work(progress: Progress) -> str:
        begun.set()
        while True:
            progress.say(0.5, "half")

    operation = Operation("Long", work, takes_progress=True).on_done(said.append).on_error(said.append)
    operation.start(desk.operations)
    assert begun.wait(10)
    operation.cancel()
    desk.settle()
    assert said == []
    assert desk.unhandled == []


def test_one_that_never_began_is_cancelled_too(desk: Desk) -> None:
    gate = threading.Event()
    ran: list[int] = []
    Operation("First", lambda: gate.wait(10)).in_store().start(desk.operations)
    second = Operation("Second", lambda: ran.append(1)).in_store().start(desk.operations)
    second.cancel()
    gate.set()
    desk.settle()
    assert ran == []


def test_progress_is_seen(desk: Desk) -> None:
    gate = threading.Event()
    changed: list[tuple[float, str]] = []

    def work(progress: Progress) -> None:
        progress.say(0.25, "a quarter")
        gate.wait(10)

    operation = Operation("Long", work, takes_progress=True)
    desk.operations.on_changed = lambda: changed.append((operation.share, operation.text))
    operation.start(desk.operations)
    desk.main.until(lambda: (0.25, "a quarter") in changed, "the progress")
    assert desk.operations.running == [operation]
    gate.set()
    desk.settle()
    assert desk.operations.running == []


def test_quiet_operations_are_not_listed(desk: Desk) -> None:
    gate = threading.Event()
    Operation("Poll", lambda: gate.wait(10), quiet=True).start(desk.operations)
    assert desk.operations.running == []
    assert not desk.operations.idle
    gate.set()
    desk.settle()


def test_closing_lets_writes_finish_and_takes_nothing_new() -> None:
    desk = Desk()
    written: list[int] = []
    for n in range(5):
        Operation("Write", lambda n=n: written.append(n)).in_store().start(desk.operations)
    desk.operations.close()
    assert written == list(range(5))
    Operation("Late", lambda: written.append(99)).start(desk.operations)
    desk.operations.close()
    desk.main.run()
    assert written == list(range(5))
