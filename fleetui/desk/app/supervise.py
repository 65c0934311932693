"""The supervisor of the desk's child processes: broker, station, simulator.

One thread (``supervisor``) holds all of them: it starts each in a session of its own, reads their JSON lines
(``common/child.py``) and the tail of their log, sees them end, and starts them again after a pause that grows.
Stopping is a ladder: the end of stdin, a wait, SIGTERM to the group, a wait, SIGKILL to the group. Whatever a
child had started itself is ended with it. It does not know what the children do, nor any Qt; ``on_note`` is
called on the supervisor's thread.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetui.common.domain.clock import Clock
from fleetui.common.domain.errors import BugError, OperatorError, ProcessError
from fleetui.common.domain.states import CHILD, ChildEvent, ChildState
from fleetui.desk.app.child_process import ChildProcess
from fleetui.desk.app.orphans import Pidfile
from fleetui.desk.app.outcome import Outcome, sentence

log = logging.getLogger("fleetui.desk.supervise")

TICK_S = 1.0  # at the latest; deadlines and pipes wake it earlier


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What a child is. ``command`` is asked anew at each start, so it can name what only then is known."""

    name: str
    title: str  # "the station"
    command: Callable[[], list[str]]
    comfort: str = ""  # "nothing was lost"
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_within_s: float = 30.0
    stop_within_s: float = 8.0  # after the end of stdin
    term_within_s: float = 4.0  # after SIGTERM
    restart: bool = True
    once: bool = False  # does its work and ends: exit code 0 is success, and it is not started again
    ends_with_input: bool = True  # the end of stdin ends it; somebody else's program may not care
    probe: Callable[[], bool] | None = None  # for one that does not say that it is ready: asked until it is
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    steady_s: float = 30.0  # a run this long forgives the ones before
    give_up_after: int = 6  # runs in a row that were shorter
    log: Path | None = None  # where its stderr is kept too


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened to a child, or that it said (``line``)."""

    name: str
    state: ChildState
    sentence: str = ""
    fix: str = ""
    level: int = 1  # as in EventRow.level
    line: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None


@dataclass(slots=True)
class _Child:
    spec: ChildSpec
    state: ChildState = ChildState.STOPPED
    process: ChildProcess | None = None
    ready: dict[str, Any] = field(default_factory=dict)
    deadline: float = 0.0  # of the state it is in; 0: none
    rung: int = 0  # of the stop ladder
    began: float = 0.0
    short_runs: int = 0
    starts: int = 0
    timed_out: bool = False
    restart_wanted: bool = False
    last: Outcome | None = None
    complaint: str = ""
    tail: tuple[str, ...] = ()


class Supervisor:
    """Starts, watches and stops children. Every method may be called from any thread."""

    def __init__(self, run_folder: Path, clock: Clock, on_note: Callable[[Note], None]) -> None:
        self._folder = run_folder
        self._clock = clock
        self._on_note = on_note
        self._children: dict[str, _Child] = {}
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._notes: list[Note] = []
        self._closing = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ asking

    def add(self, spec: ChildSpec) -> None:
        with self._lock:
            if spec.name in self._children:
                raise BugError(f"two children are called {spec.name}")
            self._children[spec.name] = _Child(spec)

    def start(self, name: str) -> None:
        """Starts it, or starts it again after it was given up; nothing if it is up already."""
        with self._lock:
            child = self._children[name]
            child.restart_wanted = child.state is ChildState.STOPPING
            if child.state in {ChildState.FAILED, ChildState.STOPPED}:
                child.short_runs, child.last = 0, None
            if child.state in {ChildState.STOPPED, ChildState.FAILED, ChildState.BACKING_OFF}:
                self._spawn(child, ChildEvent.START)
        self._wake()

    def stop(self, name: str) -> None:
        """Begins the ladder; ``wait`` for its end."""
        with self._lock:
            child = self._children[name]
            child.restart_wanted = False
            self._begin_stop(child)
        self._wake()

    def restart(self, name: str) -> None:
        with self._lock:
            child = self._children[name]
            if child.process is None:
                self.start(name)
                return
            self._begin_stop(child)
            child.restart_wanted = True
        self._wake()

    def send(self, name: str, command: Mapping[str, Any]) -> None:
        """One JSON line to the child's stdin. Raises :class:`ProcessError` where it cannot take it now."""
        with self._lock:
            child = self._children.get(name)
            if child is None or child.process is None or child.state is not ChildState.RUNNING:
                title = child.spec.title if child is not None else f"the {name}"
                raise ProcessError(f"{_capital(title)} is not running", "Wait until it is up again")
            child.process.send(json.dumps(command, separators=(",", ":")).encode() + b"\n")

    # ------------------------------------------------------------ looking

    def state(self, name: str) -> ChildState:
        with self._lock:
            return self._children[name].state

    def ready(self, name: str) -> dict[str, Any]:
        """What the child said when it became ready (its port, say); empty before."""
        with self._lock:
            return dict(self._children[name].ready)

    def pid(self, name: str) -> int:
        with self._lock:
            process = self._children[name].process
            return process.pid if process else 0

    def tail(self, name: str) -> list[str]:
        """The last lines of its log, of this run or the one before."""
        with self._lock:
            child = self._children[name]
            return list(child.process.tail) if child.process else list(child.tail)

    def sentence(self, name: str) -> str:
        with self._lock:
            child = self._children[name]
            pause = max(0.0, child.deadline - self._clock.monotonic())
            outcome = child.last if child.state in {ChildState.BACKING_OFF, ChildState.FAILED} else None
            return sentence(child.spec.title, child.state, outcome, pause, "")

    @property
    def names(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._children)

    def wait(self, name: str, *states: ChildState, timeout_s: float) -> ChildState:
        """Until the child is in one of ``states``, or the time is over; its state then."""
        deadline = self._clock.monotonic() + timeout_s
        with self._changed:
            while (state := self._children[name].state) not in states:
                rest = deadline - self._clock.monotonic()
                if rest <= 0 or self._closed:
                    break
                self._changed.wait(min(rest, 0.5))
            return state

    def close(self, order: tuple[str, ...] = ()) -> None:
        """Stops ``order`` one after the other, then the rest together, and ends the thread."""
        for name in order:
            if name in self.names:
                self.stop(name)
                self._wait_stopped(name)
        with self._lock:
            self._closing = True
            for child in self._children.values():
                child.restart_wanted = False
                self._begin_stop(child)
        self._wake()
        for name in self.names:
            self._wait_stopped(name)
        with self._lock:
            already, self._closed = self._closed, True
        if already:
            return
        self._wake()
        self._thread.join()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _wait_stopped(self, name: str) -> None:
        spec = self._children[name].spec
        patience = spec.stop_within_s + spec.term_within_s + 5
        self.wait(name, ChildState.STOPPED, ChildState.FAILED, timeout_s=patience)

    # ------------------------------------------------------------ the thread

    def _wake(self) -> None:
        with self._lock:
            if not self._closed or self._thread.is_alive():
                try:
                    os.write(self._wake_write, b"x")
                except (BlockingIOError, OSError):
                    return  # it has plenty to wake up for, or is gone

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._closed:
                    return
                timeout = self._timeout()
            ready = self._selector.select(timeout)
            with self._lock:
                for key, _ in ready:
                    if key.data is None:
                        self._drain_wake()
                    else:
                        name, stream = key.data
                        self._read(self._children[name], stream)
                for child in self._children.values():
                    self._watch(child)
                notes, self._notes = self._notes, []
                self._changed.notify_all()
            for note in notes:
                try:
                    self._on_note(note)
                except Exception:  # a listener's bug must not end the supervision
                    log.exception("a listener failed on %s", note)

    def _drain_wake(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            return

    def _timeout(self) -> float:
        now = self._clock.monotonic()
        timeout = TICK_S
        for child in self._children.values():
            if child.deadline:
                timeout = min(timeout, max(0.0, child.deadline - now))
            if child.process is not None and not child.process.watched:
                timeout = min(timeout, 0.1)  # no pidfd here: look
            if child.state is ChildState.STARTING and child.spec.probe is not None:
                timeout = min(timeout, 0.1)
        return 0.0 if self._notes else timeout

    def _spawn(self, child: _Child, event: ChildEvent) -> None:
        following = CHILD.next(child.state, event)
        if following is None or self._closing:
            return
        spec = child.spec
        child.ready, child.rung, child.timed_out, child.complaint = {}, 0, False, ""
        child.began = self._clock.monotonic()
        self._go(child, following)
        try:
            process = ChildProcess.start(spec.command(), spec.environment, spec.log)
        except (OSError, OperatorError) as error:
            child.complaint = str(error) if isinstance(error, OperatorError) else f"{error.strerror or error}"
            child.last = Outcome(None, 0.0, was_ready=False, asked=False, complaint=child.complaint)
            child.deadline = 0.0
            self._go(child, self._next(child, ChildEvent.GIVE_UP))
            self._note(child, level=3, fix=error.fix if isinstance(error, OperatorError) else "See its log")
            return
        child.process = process
        child.starts += 1
        Pidfile(self._folder / f"{spec.name}.pid").write(process.pid)
        for stream, descriptor in process.streams.items():
            self._selector.register(descriptor, selectors.EVENT_READ, (spec.name, stream))
        # One that works and ends may take what it takes.
        child.deadline = 0.0 if spec.once else child.began + spec.ready_within_s
        self._note(child)

    def _read(self, child: _Child, stream: str) -> None:
        process = child.process
        if process is None:
            return
        lines, ended = process.read(stream)
        if ended and stream in process.streams:
            self._selector.unregister(process.streams.pop(stream))
        for line in lines:
            self._heard(child, line)

    def _heard(self, child: _Child, line: dict[str, Any]) -> None:
        kind = line.get("kind")
        if kind == "ready" and child.state is ChildState.STARTING:
            child.ready = {k: v for k, v in line.items() if k != "kind"}
            child.deadline = 0.0
            again = child.last
            self._go(child, self._next(child, ChildEvent.READY))
            text = sentence(child.spec.title, child.state, again, 0.0, child.spec.comfort)
            self._note(child, text, level=2 if again else 1, line=line)
            child.last = None
            return
        if kind == "error" or (kind == "stopped" and "sentence" in line):
            words = (str(line.get(k, "")).rstrip(".") for k in ("sentence", "fix"))
            child.complaint = ". ".join(w for w in words if w) or str(line.get("text", ""))
        self._note(child, "", line=line)

    def _watch(self, child: _Child) -> None:
        """What time or the end of the process brings."""
        now = self._clock.monotonic()
        if child.process is not None and child.process.ended():
            self._reap(child, now)
            return
        if child.state is ChildState.STARTING and child.spec.probe is not None and child.spec.probe():
            self._heard(child, {"kind": "ready"})
            return
        if not child.deadline or now < child.deadline:
            return
        child.deadline = 0.0
        if child.state is ChildState.BACKING_OFF:
            self._spawn(child, ChildEvent.RETRY)
        elif child.state is ChildState.STARTING:
            child.timed_out = True
            self._climb(child, now)
        elif child.process is not None:
            self._climb(child, now)

    def _climb(self, child: _Child, now: float) -> None:
        """The next rung of the ladder: stdin ended, asked by signal, ended with its group."""
        process, spec = child.process, child.spec
        if process is None:
            return
        child.rung += 1
        if child.rung == 1 and spec.ends_with_input:
            process.end_input()
            child.deadline = now + spec.stop_within_s
        elif child.rung <= 2:
            if child.rung == 2 and spec.ends_with_input:
                log.warning("%s did not stop when its input ended; asking by signal", spec.name)
            child.rung = 2
            process.terminate()
            child.deadline = now + spec.term_within_s
        else:
            log.warning("%s did not stop when asked; killing it", spec.name)
            process.kill()
            child.deadline = now + 1.0

    def _begin_stop(self, child: _Child) -> None:
        following = CHILD.next(child.state, ChildEvent.STOP)
        if following is None:
            return
        child.deadline = 0.0
        self._go(child, following)
        self._note(child)
        if child.process is not None:
            self._climb(child, self._clock.monotonic())

    def _reap(self, child: _Child, now: float) -> None:
        process = child.process
        assert process is not None
        for descriptor in process.streams.values():
            self._selector.unregister(descriptor)
        for line in process.finish():
            self._heard(child, line)
        child.process, child.deadline = None, 0.0
        child.tail = tuple(process.tail)
        Pidfile(self._folder / f"{child.spec.name}.pid").remove()
        asked = child.state is ChildState.STOPPING
        ran = now - child.began
        complaint = child.complaint or (process.tail[-1] if process.tail and process.code else "")
        outcome = Outcome(process.code, ran, child.state is ChildState.RUNNING, asked, complaint, child.timed_out)
        log.info("%s ended after %.1f s (%s)", child.spec.name, ran, outcome.how)
        if asked:
            self._go(child, self._next(child, ChildEvent.EXIT))
            self._note(child, outcome=outcome)
            if child.restart_wanted:
                child.restart_wanted, child.last, child.short_runs = False, None, 0
                self._spawn(child, ChildEvent.START)
            return
        if child.spec.once and outcome.code == 0:
            self._go(child, self._next(child, ChildEvent.STOP))
            self._go(child, self._next(child, ChildEvent.EXIT))
            self._note(child, outcome=outcome)
            return
        child.last = outcome
        child.short_runs = 1 if ran >= child.spec.steady_s else child.short_runs + 1
        # Exit code 2 is "called wrongly": the same call again would end the same way.
        if (
            child.spec.once
            or not child.spec.restart
            or child.short_runs >= child.spec.give_up_after
            or outcome.code == 2
        ):
            self._go(child, self._next(child, ChildEvent.GIVE_UP))
            self._note(child, level=3, fix="Look at its log, then start it again", outcome=outcome)
            return
        pause = min(child.spec.first_pause_s * 2 ** (child.short_runs - 1), child.spec.longest_pause_s)
        child.deadline = now + pause
        self._go(child, self._next(child, ChildEvent.EXIT))
        self._note(child, sentence(child.spec.title, child.state, outcome, pause, ""), level=2, outcome=outcome)

    def _next(self, child: _Child, event: ChildEvent) -> ChildState:
        following = CHILD.next(child.state, event)
        if following is None:
            raise BugError(f"a child that is {child.state} takes no {event}")
        return following

    def _go(self, child: _Child, state: ChildState) -> None:
        child.state = state
        self._changed.notify_all()

    def _note(
        self,
        child: _Child,
        text: str | None = None,
        *,
        level: int = 1,
        fix: str = "",
        line: Mapping[str, Any] | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        words = sentence(child.spec.title, child.state, child.last, 0.0, "") if text is None else text
        self._notes.append(Note(child.spec.name, child.state, words, fix, level, dict(line or {}), outcome))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
