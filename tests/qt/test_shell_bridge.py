"""Other threads hand work to the main one: in order, on the right thread, without losing any to a bug."""

from __future__ import annotations

import sys
import threading

import pytest
from PySide6.QtWidgets import QApplication

from fleetui.desk.ui.bridge import Bridge
from tests.helpers.wait import wait_until


@pytest.fixture
def bridge(qapp: QApplication) -> Bridge:
    return Bridge()


def test_runs_on_the_main_thread_in_order(bridge: Bridge, qapp: QApplication) -> None:
    ran: list[tuple[int, bool]] = []
    main = threading.current_thread()

    def work() -> None:
        for n in range(1000):
            bridge.post(lambda n=n: ran.append((n, threading.current_thread() is main)))

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: qapp.processEvents() or len(ran) == 1000, what="all of them")
    thread.join()
    assert ran == [(n, True) for n in range(1000)]


def test_many_threads_lose_nothing(bridge: Bridge, qapp: QApplication) -> None:
    ran: list[int] = []
    threads = [
        threading.Thread(target=lambda: [bridge.post(lambda: ran.append(1)) for _ in range(500)]) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: qapp.processEvents() or len(ran) == 3000, what="all of them")
    for thread in threads:
        thread.join()


def test_one_that_fails_costs_the_others_nothing(
    bridge: Bridge, qapp: QApplication, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    bugs: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda _kind, error, _trace: bugs.append(error))

    def fail() -> None:
        raise ValueError("mine")

    for task in (lambda: ran.append("a"), fail, lambda: ran.append("b")):
        bridge.post(task)
    wait_until(lambda: qapp.processEvents() or len(ran) == 2, what="the other two")
    assert ran == ["a", "b"]
    assert [str(bug) for bug in bugs] == ["mine"]


def test_what_is_posted_while_draining_comes_next(bridge: Bridge, qapp: QApplication) -> None:
    ran: list[str] = []
    bridge.post(lambda: (ran.append("a"), bridge.post(lambda: ran.append("c"))))
    bridge.post(lambda: ran.append("b"))
    wait_until(lambda: qapp.processEvents() or len(ran) == 3, what="all three")
    assert ran == ["a", "b", "c"]


def test_after_closing_nothing_runs(bridge: Bridge, qapp: QApplication) -> None:
    ran: list[int] = []
    bridge.post(lambda: ran.append(1))
    bridge.next_turn(lambda: ran.append(2))
    bridge.close()
    bridge.post(lambda: ran.append(3))
    bridge.next_turn(lambda: ran.append(4))
    for _ in range(5):
        qapp.processEvents()
    assert not ran


def test_next_turn_lets_others_go_first(bridge: Bridge, qapp: QApplication) -> None:
    ran: list[str] = []
    bridge.next_turn(lambda: ran.append("later"))
    bridge.post(lambda: ran.append("first"))
    wait_until(lambda: qapp.processEvents() or len(ran) == 2, what="both")
    assert ran == ["first", "later"]
