"""The supervisor, with real child processes: killed, failing, hanging, deaf, chatty, with heirs."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fleetui.common.domain.clock import SystemClock
from fleetui.common.domain.errors import ConfigError, ProcessError
from fleetui.common.domain.states import CHILD, ChildState
from fleetui.desk.app.orphans import Pidfile, boot_id, start_mark, sweep
from fleetui.desk.app.outcome import Outcome, sentence
from fleetui.desk.app.single import FolderLock
from fleetui.desk.app.supervise import ChildSpec, Note, Supervisor
from tests.helpers.wait import wait_until

R, S, F, B = ChildState.RUNNING, ChildState.STOPPED, ChildState.FAILED, ChildState.BACKING_OFF

PRELUDE = """
import json, os, signal, subprocess, sys, time
def say(kind, **more):
    sys.stdout.write(json.dumps({"kind": kind, **more}) + "\\n"); sys.stdout.flush()
"""
GOOD = (
    "say('ready', pid=os.getpid())\nfor line in sys.stdin:\n    say('echo', said=json.loads(line))\nsay('stopped')"
)


class Nursery:
    """A supervisor and what it said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[Note] = []
        self.supervisor = Supervisor(folder, SystemClock(), self.notes.append)

    def child(self, script: str, name: str = "child", **more: object) -> ChildSpec:
        given: dict[str, object] = {"first_pause_s": 0.02, "ready_within_s": 10.0, "stop_within_s": 5.0, **more}
        spec = ChildSpec(
            name,
            f"the {name}",
            lambda: [sys.executable, "-I", "-S", "-c", PRELUDE + script],
            **given,  # type: ignore[arg-type]
        )
        self.supervisor.add(spec)
        return spec

    def start(self, script: str, name: str = "child", **more: object) -> None:
        self.child(script, name, **more)
        self.supervisor.start(name)

    def until(self, *states: ChildState, name: str = "child") -> None:
        state = self.supervisor.wait(name, *states, timeout_s=15)
        assert state in states, (state, self.sentences, self.supervisor.tail(name))

    def heard(self, test: Callable[[Note], object], what: str) -> Note:
        return wait_until(lambda: next((n for n in list(self.notes) if test(n)), None), what=what)  # type: ignore[return-value]

    @property
    def sentences(self) -> list[str]:
        return [note.sentence for note in self.notes if note.sentence]


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    made = Nursery(tmp_path)
    yield made
    made.supervisor.close()


def test_a_child_starts_is_ready_takes_commands_and_stops(nursery: Nursery) -> None:
    nursery.start(GOOD)
    nursery.until(R)
    assert nursery.supervisor.ready("child")["pid"] == nursery.supervisor.pid("child")
    nursery.supervisor.send("child", {"do": "sing"})
    assert nursery.heard(lambda n: n.line.get("kind") == "echo", "the echo").line["said"] == {"do": "sing"}
    pidfile = Pidfile(nursery.folder / "child.pid")
    assert pidfile.living() == nursery.supervisor.pid("child")
    nursery.supervisor.stop("child")
    nursery.until(S)
    last = nursery.heard(lambda n: n.outcome is not None, "the end")
    assert last.outcome is not None
    assert (last.outcome.code, last.outcome.asked) == (0, True)
    assert not pidfile.path.exists()
    assert nursery.heard(lambda n: n.line.get("kind") == "stopped", "its last word")


def test_the_sequence_of_states_is_the_tables(nursery: Nursery) -> None:
    nursery.start(GOOD)
    nursery.until(R)
    os.kill(nursery.supervisor.pid("child"), signal.SIGKILL)
    nursery.heard(lambda n: "started again" in n.sentence and n.state is R, "the restart")
    nursery.supervisor.stop("child")
    nursery.until(S)
    nursery.heard(lambda n: n.state is S, "the end")
    states = [note.state for note in nursery.notes]
    steps = [(a, b) for a, b in itertools.pairwise(states) if a is not b]
    allowed = {(a, b) for a in ChildState for b in CHILD.table.get(a, {}).values()}
    assert set(steps) <= allowed


@pytest.mark.faults
def test_a_killed_child_is_started_again_and_it_is_said_so(nursery: Nursery) -> None:
    nursery.start(GOOD, comfort="nothing was lost")
    nursery.until(R)
    first = nursery.supervisor.pid("child")
    os.kill(first, signal.SIGKILL)
    fell = nursery.heard(lambda n: n.state is B, "the fall")
    assert fell.sentence == "The child stopped (killed by signal 9); it is started again at once"
    again = nursery.heard(lambda n: n.state is R and n.level == 2, "the restart")
    assert again.sentence == "The child stopped (killed by signal 9) and was started again; nothing was lost"
    assert nursery.supervisor.pid("child") != first


@pytest.mark.faults
def test_ten_kills_at_odd_moments(nursery: Nursery) -> None:
    nursery.start(GOOD, give_up_after=100, longest_pause_s=0.05)
    for _ in range(10):
        pid = wait_until(lambda: nursery.supervisor.pid("child"), what="a process")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: nursery.supervisor.pid("child") not in {0, pid}, what="another one")
    nursery.until(R)


def test_what_the_child_had_started_ends_with_it(nursery: Nursery) -> None:
    heir = "heir = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    nursery.start(heir + "say('ready', heir=heir.pid)\nfor line in sys.stdin: pass")
    nursery.until(R)
    heir_pid = nursery.supervisor.ready("child")["heir"]
    assert psutil.pid_exists(heir_pid)
    os.kill(nursery.supervisor.pid("child"), signal.SIGKILL)
    wait_until(lambda: not start_mark(heir_pid), what="the heir's end")
    # ... although it held the pipes open all the time.
    nursery.heard(lambda n: n.state is R and n.level == 2, "the restart")


def test_one_that_always_fails_is_given_up_with_its_own_words(nursery: Nursery) -> None:
    script = "sys.stderr.write('nothing in particular\\nThe disk is full. Free some space.\\n'); sys.exit(1)"
    nursery.start(script, give_up_after=3, longest_pause_s=0.05)
    nursery.until(F)
    note = nursery.heard(lambda n: n.state is F, "the verdict")
    assert note.sentence == "The child does not stay up (exit code 1): The disk is full. Free some space"
    assert note.level == 3
    assert note.fix
    assert sum(n.state is ChildState.STARTING and bool(n.sentence) for n in nursery.notes) == 3
    assert "nothing in particular" in nursery.supervisor.tail("child")


def test_its_own_sentence_is_preferred_to_the_log(nursery: Nursery) -> None:
    script = (
        "say('stopped', sentence='The port is taken', fix='Choose another')\nsys.stderr.write('x\\n'); sys.exit(1)"
    )
    nursery.start(script, give_up_after=1)
    nursery.until(F)
    note = nursery.heard(lambda n: n.state is F, "the verdict")
    assert "The port is taken. Choose another" in note.sentence


def test_wrong_usage_is_not_tried_twice(nursery: Nursery) -> None:
    nursery.start("sys.exit(2)")
    nursery.until(F)
    assert sum(n.state is ChildState.STARTING and bool(n.sentence) for n in nursery.notes) == 1


def test_somebody_may_start_a_failed_one_again(nursery: Nursery) -> None:
    flag = nursery.folder / "flag"
    nursery.start(f"if not os.path.exists({str(flag)!r}): sys.exit(1)\n" + GOOD, give_up_after=1)
    nursery.until(F)
    flag.touch()
    nursery.supervisor.start("child")
    nursery.until(R)
    nursery.heard(lambda n: n.sentence == "The child is running", "the good news, without a word of the past")


def test_pauses_grow_up_to_a_limit(nursery: Nursery) -> None:
    nursery.start("sys.exit(1)", first_pause_s=0.01, longest_pause_s=0.04, give_up_after=5)
    nursery.until(F)
    runs = [n.outcome for n in nursery.notes if n.outcome is not None]
    assert len(runs) == 5
    assert all(run is not None and not run.was_ready for run in runs)


@pytest.mark.logs_warnings("did not stop")
def test_a_deaf_child_is_killed(nursery: Nursery) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay('ready')\nwhile True: time.sleep(60)"
    nursery.start(deaf, stop_within_s=0.2, term_within_s=0.2)
    nursery.until(R)
    nursery.supervisor.stop("child")
    nursery.until(S)
    note = nursery.heard(lambda n: n.outcome is not None, "the end")
    assert note.outcome is not None
    assert note.outcome.code == -signal.SIGKILL


@pytest.mark.logs_warnings("did not stop")
def test_one_that_only_minds_signals_gets_one(nursery: Nursery) -> None:
    polite = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nsay('ready')\nwhile True: time.sleep(60)"
    nursery.start(polite, stop_within_s=0.2)
    nursery.until(R)
    nursery.supervisor.stop("child")
    nursery.until(S)
    note = nursery.heard(lambda n: n.outcome is not None, "the end")
    assert note.outcome is not None
    assert note.outcome.code == 0


@pytest.mark.faults
@pytest.mark.logs_warnings("did not stop")
def test_a_frozen_child_is_ended_too(nursery: Nursery) -> None:
    nursery.start(GOOD, stop_within_s=0.2, term_within_s=0.2)
    nursery.until(R)
    os.kill(nursery.supervisor.pid("child"), signal.SIGSTOP)
    nursery.supervisor.stop("child")
    nursery.until(S)


def test_one_that_never_becomes_ready_is_ended_and_tried_again(nursery: Nursery) -> None:
    nursery.start("for line in sys.stdin: pass", ready_within_s=0.2, give_up_after=2)
    nursery.until(F)
    note = nursery.heard(lambda n: n.state is F, "the verdict")
    assert "did not become ready in time" in note.sentence


def test_a_program_that_is_not_there_is_a_sentence(nursery: Nursery) -> None:
    nursery.supervisor.add(ChildSpec("child", "the child", lambda: ["/nowhere/at/all"]))
    nursery.supervisor.start("child")
    nursery.until(F)
    note = nursery.heard(lambda n: n.state is F, "the verdict")
    assert "could not be started" in note.sentence
    assert "No such file" in note.sentence


def test_a_command_that_cannot_be_made_says_its_own_words(nursery: Nursery) -> None:
    def command() -> list[str]:
        raise ConfigError("mosquitto was not found", "Install it")

    nursery.supervisor.add(ChildSpec("child", "the child", command))
    nursery.supervisor.start("child")
    nursery.until(F)
    note = nursery.heard(lambda n: n.state is F, "the verdict")
    assert "mosquitto was not found" in note.sentence
    assert note.fix == "Install it"


def test_one_that_works_and_ends_is_not_started_again(nursery: Nursery) -> None:
    nursery.start("say('progress', share=0.5)", once=True)
    nursery.until(S)
    note = nursery.heard(lambda n: n.outcome is not None, "the end")
    assert note.outcome is not None
    assert (note.outcome.code, note.outcome.asked) == (0, False)
    assert nursery.heard(lambda n: n.line.get("kind") == "progress", "its progress").line["share"] == 0.5


def test_one_that_works_and_fails_is_failed_at_once(nursery: Nursery) -> None:
    nursery.start("sys.exit(1)", once=True)
    nursery.until(F)
    assert sum(n.state is ChildState.STARTING and bool(n.sentence) for n in nursery.notes) == 1


def test_somebody_elses_program_is_asked_whether_it_is_ready(nursery: Nursery) -> None:
    flag = nursery.folder / "flag"
    script = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nwhile True: time.sleep(60)"
    nursery.start(script, probe=flag.exists, ends_with_input=False)
    nursery.until(ChildState.STARTING)
    flag.touch()
    nursery.until(R)
    nursery.supervisor.stop("child")
    nursery.until(S)


def test_restart_is_stop_and_start(nursery: Nursery) -> None:
    nursery.start(GOOD)
    nursery.until(R)
    first = nursery.supervisor.pid("child")
    nursery.supervisor.restart("child")
    wait_until(
        lambda: nursery.supervisor.state("child") is R and nursery.supervisor.pid("child") != first,
        what="another process",
    )
    assert not any("stopped (" in s for s in nursery.sentences)


def test_restart_of_one_that_rests_starts_it(nursery: Nursery) -> None:
    nursery.child(GOOD)
    nursery.supervisor.restart("child")
    nursery.until(R)


def test_stop_while_it_waits_to_be_started_again(nursery: Nursery) -> None:
    nursery.start("sys.exit(1)", first_pause_s=60, longest_pause_s=60)
    nursery.until(B)
    assert "waits" in nursery.supervisor.sentence("child") or "started again" in nursery.supervisor.sentence(
        "child"
    )
    nursery.supervisor.stop("child")
    nursery.until(S)


def test_what_is_said_while_it_is_not_running_is_refused(nursery: Nursery) -> None:
    nursery.child(GOOD)
    with pytest.raises(ProcessError, match="not running"):
        nursery.supervisor.send("child", {"do": "x"})


def test_one_that_does_not_listen_cannot_be_told_more_than_fits(nursery: Nursery) -> None:
    nursery.start(
        "say('ready')\nwhile True: time.sleep(60)", stop_within_s=0.1, term_within_s=0.1, ends_with_input=False
    )
    nursery.until(R)

    def talk() -> None:
        for _ in range(100):
            nursery.supervisor.send("child", {"text": "x" * 10_000})

    with pytest.raises(ProcessError, match="does not take"):
        talk()


def test_noise_on_stdout_is_not_taken_for_words(nursery: Nursery) -> None:
    noise = "sys.stdout.buffer.write(b'hello\\n[1,2]\\n\\xff\\xfe\\n{\\n'); sys.stdout.flush()\n"
    nursery.start(noise + "print('x' * 3_000_000)\n" + GOOD)
    nursery.until(R)
    assert all(n.line.get("kind") in {None, "ready"} for n in nursery.notes)


def test_a_long_log_keeps_its_tail_and_the_file(nursery: Nursery) -> None:
    log = nursery.folder / "child.log"
    nursery.start("for n in range(1000): sys.stderr.write(f'line {n}\\n')\nsys.stderr.flush()\n" + GOOD, log=log)
    nursery.until(R)
    wait_until(lambda: nursery.supervisor.tail("child")[-1:] == ["line 999"], what="the last line")
    assert len(nursery.supervisor.tail("child")) == 200
    assert log.read_text().count("\n") == 1000


@pytest.mark.logs_warnings("a listener failed")
def test_a_listener_that_fails_does_not_end_the_supervision(tmp_path: Path) -> None:
    heard: list[Note] = []

    def listener(note: Note) -> None:
        heard.append(note)
        raise RuntimeError("listener")

    supervisor = Supervisor(tmp_path, SystemClock(), listener)
    try:
        supervisor.add(ChildSpec("child", "the child", lambda: [sys.executable, "-I", "-S", "-c", PRELUDE + GOOD]))
        supervisor.start("child")
        assert supervisor.wait("child", R, timeout_s=10) is R
    finally:
        supervisor.close()
    assert len(heard) >= 3


def test_a_listener_may_ask_for_more(tmp_path: Path) -> None:
    """The instance starts one child when another is ready, from the supervisor's own thread."""
    nursery: list[Supervisor] = []

    def listener(note: Note) -> None:
        if note.name == "first" and note.line.get("kind") == "ready":
            nursery[0].start("second")

    supervisor = Supervisor(tmp_path, SystemClock(), listener)
    nursery.append(supervisor)
    try:
        for name in ("first", "second"):
            supervisor.add(ChildSpec(name, name, lambda: [sys.executable, "-I", "-S", "-c", PRELUDE + GOOD]))
        supervisor.start("first")
        assert supervisor.wait("second", R, timeout_s=10) is R
    finally:
        supervisor.close(("second", "first"))


def test_closing_stops_in_order_and_twice_is_once(tmp_path: Path) -> None:
    nursery = Nursery(tmp_path)
    for name in ("a", "b"):
        nursery.start(GOOD, name)
        nursery.until(R, name=name)
    nursery.supervisor.close(("b", "a"))
    nursery.supervisor.close()
    ended = [n.name for n in nursery.notes if n.outcome is not None]
    assert ended == ["b", "a"]
    assert not any(t.name == "supervisor" for t in threading.enumerate())


# ---------------------------------------------------------------- in words


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome(-9, 1, was_ready=True, asked=False), "killed by signal 9"),
        (Outcome(-11, 1, was_ready=True, asked=False), "killed by signal 11, a crash"),
        (Outcome(1, 1, was_ready=True, asked=False), "exit code 1"),
        (Outcome(0, 1, was_ready=True, asked=False), "it ended by itself"),
        (Outcome(None, 0, was_ready=False, asked=False), "it could not be started"),
        (Outcome(-15, 9, was_ready=False, asked=False, timed_out=True), "it did not become ready in time"),
        (Outcome(-77, 9, was_ready=False, asked=False), "killed by signal 77"),
    ],
)
def test_how_a_run_ended(outcome: Outcome, words: str) -> None:
    assert outcome.how == words


def test_every_state_has_a_sentence() -> None:
    for state in ChildState:
        assert sentence("the station", state, None, 0.0, "").startswith("The station ")
    fell = Outcome(-9, 1, was_ready=True, asked=False)
    assert "in 8 s" in sentence("the station", B, fell, 8.0, "")


# ---------------------------------------------------------------- orphans and the lock


def orphan(folder: Path, name: str, script: str) -> int:
    """A child whose desk is gone: init adopts it, and nobody here waits for it."""
    read, write = os.pipe()
    code = (
        "import os, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-I', '-S', '-c', {PRELUDE + script!r}],"
        " stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)\n"
        f"os.write({write}, str(child.pid).encode())\n"
    )
    import subprocess

    subprocess.run([sys.executable, "-I", "-c", code], pass_fds=[write], check=True)
    os.close(write)
    pid = int(os.read(read, 20))
    os.close(read)
    Pidfile(folder / f"{name}.pid").write(pid)
    return pid


@pytest.mark.faults
@pytest.mark.parametrize("deaf", [False, True])
def test_what_a_killed_desk_left_is_ended(tmp_path: Path, deaf: bool) -> None:
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if deaf else ""
    pid = orphan(tmp_path, "station", ignore + "time.sleep(600)")
    assert start_mark(pid)
    assert sweep(tmp_path, SystemClock(), patience_s=0.05) == ["station"]
    assert not start_mark(pid)
    assert list(tmp_path.glob("*.pid")) == []


def test_somebody_elses_process_of_the_same_number_is_spared(tmp_path: Path) -> None:
    me = {"pid": os.getpid(), "began": "1", "boot": boot_id()}
    (tmp_path / "station.pid").write_text(json.dumps(me))
    other_boot = {"pid": os.getpid(), "began": start_mark(os.getpid()), "boot": "another"}
    (tmp_path / "broker.pid").write_text(json.dumps(other_boot))
    (tmp_path / "simulator.pid").write_text("no json")
    assert sweep(tmp_path, SystemClock(), patience_s=0.05) == []
    assert list(tmp_path.glob("*.pid")) == []


def test_two_desks_on_one_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    first, second = FolderLock(tmp_path / "run" / "desk.lock"), FolderLock(tmp_path / "run" / "desk.lock")
    first.take()
    with pytest.raises(ConfigError) as caught:
        second.take()
    assert f"process {os.getpid()}" in caught.value.sentence
    assert str(tmp_path) in caught.value.sentence
    assert "--base-dir" in caught.value.fix
    first.release()
    second.take()
    assert second.held
    second.release()
    assert not second.held
