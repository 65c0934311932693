"""The protocol between parent and child, with a real child process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

PROGRAM = """
import sys, threading
from fleetui.common.child import ParentWatch, on_signals, say
gone = threading.Event()
on_signals(gone.set)
def take(command):
    say("answer", to=command.get("do"))
ParentWatch(gone.set, take).start()
say("ready", pid=1)
gone.wait()
say("stopped")
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def hear(child: subprocess.Popen[str]) -> dict[str, object]:
    assert child.stdout is not None
    heard: dict[str, object] = json.loads(child.stdout.readline())
    return heard


def test_commands_are_answered_and_nonsense_is_an_answer_too(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    assert hear(child) == {"kind": "ready", "pid": 1}
    child.stdin.write('{"do": "status"}\nnot json\n[1]\n{"do": "again"}\n')
    child.stdin.flush()
    assert hear(child) == {"kind": "answer", "to": "status"}
    assert hear(child)["kind"] == "error"
    assert hear(child) == {"kind": "answer", "to": "again"}


def test_the_end_of_stdin_ends_it_in_order(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    hear(child)
    child.stdin.close()
    assert hear(child) == {"kind": "stopped"}
    assert child.wait(10) == 0
    child.stdin = None


def test_a_signal_ends_it_in_order(child: subprocess.Popen[str]) -> None:
    hear(child)
    child.terminate()
    assert hear(child) == {"kind": "stopped"}
    assert child.wait(10) == 0
