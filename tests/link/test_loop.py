"""The loop: timers, calls from other threads, pacing of connects, and that one handler's bug stays its own."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from fleetui.common.domain.clock import ManualClock, SystemClock
from fleetui.common.domain.errors import BugError
from fleetui.common.link.loop import READ, WRITE, ConnectGate, LinkLoop
from tests.helpers.link import running_loop
from tests.helpers.wait import wait_until


@pytest.fixture
def loop() -> Iterator[LinkLoop]:
    with running_loop() as loop:
        yield loop


def test_timers_run_in_order_of_time_and_can_be_cancelled(loop: LinkLoop) -> None:
    ran: list[str] = []
    done = threading.Event()

    def plan() -> None:
        loop.call_later(0.03, ran.append, "c")
        loop.call_later(0.01, ran.append, "a")
        loop.call_later(0.01, ran.append, "b")
        loop.call_later(0.02, ran.append, "never").cancel()
        loop.call_later(0.05, done.set)

    loop.call_soon_threadsafe(plan)
    assert done.wait(5)
    assert ran == ["a", "b", "c"]


def test_calls_from_many_threads_all_run_on_the_loop_in_each_threads_order(loop: LinkLoop) -> None:
    seen: list[tuple[int, int]] = []
    idents: set[int] = set()

    def note(who: int, i: int) -> None:
        idents.add(threading.get_ident())
        seen.append((who, i))

    def post(who: int) -> None:
        for i in range(2000):
            loop.call_soon_threadsafe(note, who, i)

    threads = [threading.Thread(target=post, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: len(seen) == 8000, what="all calls")
    assert len(idents) == 1
    assert threading.get_ident() not in idents
    for who in range(4):
        assert [i for w, i in seen if w == who] == list(range(2000))


def test_a_call_wakes_a_loop_that_has_nothing_to_do(loop: LinkLoop) -> None:
    for _ in range(20):
        woken = threading.Event()
        loop.call_soon_threadsafe(woken.set)
        assert woken.wait(5)


class _Pipe:
    def __init__(self, loop: LinkLoop) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.loop = loop
        self.events: list[int] = []
        self.fail = False

    def on_ready(self, events: int) -> None:
        self.events.append(events)
        if events & READ and self.near.fileno() >= 0:  # a second call may have been asked for before the end
            with contextlib.suppress(BlockingIOError):
                self.near.recv(100)
        if self.fail:
            raise RuntimeError("a bug")

    def close(self) -> None:
        self.loop.unregister(self.near.fileno())
        self.near.close()
        self.far.close()


@pytest.mark.logs_warnings("a handler of the loop")
def test_a_handlers_bug_is_counted_and_the_others_go_on() -> None:
    loop = LinkLoop()
    loop.start_thread()
    pipes = [_Pipe(loop) for _ in range(3)]
    pipes[1].fail = True
    for pipe in pipes:
        loop.call_soon_threadsafe(loop.register, pipe.near.fileno(), pipe)
    for _ in range(3):
        for pipe in pipes:
            pipe.far.send(b"x")
        wait_until(lambda: all(p.events for p in pipes), what="all called")
        for pipe in pipes:
            pipe.events.clear()
    assert loop.counters.errors == 3
    for pipe in pipes:
        loop.call_soon_threadsafe(pipe.close)
    loop.stop()


def test_readiness_can_be_changed_and_asked_for_again(loop: LinkLoop) -> None:
    pipe = _Pipe(loop)
    loop.call_soon_threadsafe(loop.register, pipe.near.fileno(), pipe, WRITE)
    wait_until(lambda: WRITE in pipe.events, what="writable")
    loop.call_soon_threadsafe(loop.modify, pipe.near.fileno(), pipe, READ)
    pipe.far.send(b"x")
    wait_until(lambda: READ in pipe.events, what="readable")
    pipe.far.send(b"y")
    loop.call_soon_threadsafe(loop.again, pipe)
    wait_until(lambda: pipe.events.count(READ) >= 2, what="again")
    loop.call_soon_threadsafe(pipe.close)


class _Kept:
    def __init__(self) -> None:
        self.looked = 0
        self.halted: list[bool] = []

    def keepalive(self) -> None:
        self.looked += 1

    def halt(self, goodbye: bool) -> None:
        self.halted.append(goodbye)


def test_every_transport_has_its_keepalive_looked_at_in_slices() -> None:
    clock = ManualClock()
    loop = LinkLoop(clock)
    kept = [_Kept() for _ in range(97)]
    for one in kept:
        loop.add(one)
    most = 0
    for _ in range(25):
        before = sum(one.looked for one in kept)
        loop._run_keepalives(clock.monotonic())
        clock.advance(0.1)
        most = max(most, sum(one.looked for one in kept) - before)
    assert all(1 <= one.looked <= 2 for one in kept)
    assert most <= 5
    loop.remove(kept[0])
    loop.remove(kept[0])
    before = kept[0].looked
    for _ in range(25):
        loop._run_keepalives(clock.monotonic())
    assert kept[0].looked == before
    loop.stop()
    assert [one.halted for one in kept[1:]] == [[True]] * 96
    assert kept[0].halted == []


def test_stop_takes_transports_down_and_carries_out_what_was_posted() -> None:
    loop = LinkLoop()
    kept, ran = _Kept(), []
    loop.add(kept)
    loop.start_thread()
    loop.call_soon_threadsafe(ran.append, 1)
    loop.stop()
    assert (kept.halted, ran) == ([True], [1])
    loop.stop()
    with pytest.raises(BugError):
        loop.start_thread()
    with pytest.raises(BugError):
        loop.run()
    loop.call_soon_threadsafe(ran.append, 2)  # too late is not an error
    assert ran == [1]


def test_a_loop_that_never_ran_can_be_stopped() -> None:
    loop, ran = LinkLoop(), []
    loop.call_soon_threadsafe(ran.append, 1)
    loop.stop()
    assert ran == [1]


def test_stop_from_within() -> None:
    loop = LinkLoop()
    loop.call_later(0.01, loop.stop)
    loop.run()
    with pytest.raises(BugError):
        loop.run()


def test_counters_know_how_long_a_turn_took() -> None:
    clock = ManualClock()
    loop = LinkLoop(clock)
    loop.call_soon_threadsafe(clock.advance, 0.25)
    loop.call_later(0.1, loop.stop)
    loop.run()
    assert loop.counters.longest_s == pytest.approx(0.25)
    assert loop.counters.latest_s == pytest.approx(0.15)
    assert loop.counters.turns >= 2


# ---------------------------------------------------------------- the gate


class _Gate:
    """A gate on a loop in virtual time."""

    def __init__(self, **options: float) -> None:
        self.clock = ManualClock()
        self.loop = LinkLoop(self.clock)
        self.gate = ConnectGate(self.loop, **options)  # type: ignore[arg-type]
        self.begun: list[float] = []

    def enter(self, *, tls: bool = False, wanted: bool = True) -> None:
        def begin() -> bool:
            if wanted:
                self.begun.append(self.clock.monotonic())
            return wanted

        self.gate.enter(begin, tls=tls)

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds * 1000)):
            self.clock.advance(0.001)
            self.loop._run_timers(self.clock.monotonic())


def test_connects_are_paced_by_rate() -> None:
    gate = _Gate(plain_per_s=100, tls_per_s=10, at_once=10_000)
    for _ in range(1000):
        gate.enter()
    gate.run(2.0)
    assert 190 <= len(gate.begun) <= 210
    gate.run(8.5)
    assert len(gate.begun) == 1000
    began = gate.clock.monotonic()
    for _ in range(20):
        gate.enter(tls=True)
    gate.run(1.0)
    assert 8 <= sum(at >= began for at in gate.begun) <= 13
    gate.loop.stop()


def test_only_so_many_at_once_and_first_come_first_served() -> None:
    gate = _Gate(plain_per_s=10_000, tls_per_s=10_000, at_once=3)
    for _ in range(10):
        gate.enter()
    gate.run(0.1)
    assert len(gate.begun) == 3
    gate.gate.leave()
    gate.run(0.1)
    assert len(gate.begun) == 4
    for _ in range(3):
        gate.gate.leave()
    gate.run(0.1)
    assert len(gate.begun) == 7
    gate.loop.stop()


def test_who_gave_up_waiting_takes_no_place() -> None:
    gate = _Gate(plain_per_s=1000, tls_per_s=1000, at_once=1)
    gate.enter()
    for _ in range(50):
        gate.enter(wanted=False)
    gate.enter()
    gate.run(0.1)
    assert len(gate.begun) == 1
    gate.gate.leave()
    gate.run(0.1)
    assert len(gate.begun) == 2
    gate.loop.stop()


def test_system_clock_is_the_default() -> None:
    loop = LinkLoop()
    assert isinstance(loop.clock, SystemClock)
    loop.stop()
