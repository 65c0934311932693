"""The limited process: whatever happens in it ends in a sentence, and nothing is left of it."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fleetui.common.domain.errors import BugError
from fleetui.workshop.errors import HostileModel, LimitError, MissingExtra, ModelError, UnsupportedError
from fleetui.workshop.inspect import sandbox
from fleetui.workshop.inspect.limits import Limits

CODE = """
import ctypes, json, os, subprocess, sys, threading

def echo(**given): return given
def noisy(): print("hello"); os.write(1, b"there"); return "heard"
def crash(): ctypes.string_at(0)
def abort(): os.abort()
def hang(): threading.Event().wait()
def spin():
    while True: pass
def flood(): return "x" * (1 << 22)
def eat():
    kept = []
    while True: kept.append(bytearray(1 << 24))
def fill():
    with open("PATH", "wb") as f:
        for _ in range(64): f.write(bytes(1 << 20)); f.flush()
def deep(n=0): return deep(n + 1)
def child(): return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE).pid
def wrong(): raise KeyError("offset")
def ends(): os._exit(3)
def refuse(kind):
    from fleetui.common.domain.errors import BugError
    from fleetui.workshop import errors
    raise {"hostile": lambda: errors.HostileModel("bad thing", "leave it"),
           "missing": lambda: errors.MissingExtra("A thing", "torch"),
           "unsupported": lambda: errors.UnsupportedError("no", "yes", operator="Op", node="here"),
           "bug": lambda: BugError("ours")}[kind]()
"""  # fmt: skip
LIMITS = Limits(memory=1 << 30, cpu=60, wall=60, written=1 << 20, said=1 << 20)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "acts.py").write_text(CODE.replace("PATH", str(tmp_path / "filled")))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def made(name: str, limits: Limits = LIMITS, **arguments):
        return sandbox.call(f"acts:{name}", arguments, limits, subject="the.file")

    return made


def test_arguments_and_results_pass(call) -> None:
    assert call("echo", a=[1, "é", None]) == {"a": [1, "é", None]}


def test_words_on_stdout_do_not_disturb(call) -> None:
    assert call("noisy") == "heard"


@pytest.mark.parametrize(("act", "signal"), [("crash", "SIGSEGV"), ("abort", "SIGABRT")])
def test_a_crash_is_a_sentence(call, act: str, signal: str) -> None:
    with pytest.raises(ModelError, match=rf"the\.file crashed \({signal}\)"):
        call(act)


def test_an_early_end_is_a_sentence(call) -> None:
    with pytest.raises(ModelError, match="ended with code 3"):
        call("ends")


def test_a_hang_is_stopped(call) -> None:
    with pytest.raises(LimitError, match="took more than 1 seconds"):
        call("hang", replace(LIMITS, wall=1))


def test_computing_without_end_is_stopped(call) -> None:
    with pytest.raises(LimitError, match="seconds of computing"):
        call("spin", replace(LIMITS, cpu=0))


def test_memory_is_bounded(call) -> None:
    with pytest.raises(LimitError, match="more memory"):
        call("eat")


def test_long_reports_are_refused(call) -> None:
    with pytest.raises(LimitError, match=r"exceeds 1\.0 MiB"):
        call("flood")


def test_files_written_are_bounded(call, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        call("fill")
    assert (tmp_path / "filled").stat().st_size <= 1 << 20


def test_recursion_is_a_sentence(call) -> None:
    with pytest.raises(ModelError, match="nested too deeply"):
        call("deep")


def test_a_parser_that_stumbles_is_a_sentence(call) -> None:
    with pytest.raises(ModelError, match="KeyError: 'offset'"):
        call("wrong")


def test_what_it_started_goes_with_it(call) -> None:
    pid = call("child")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if (
            Path(f"/proc/{pid}/stat").exists()
            and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        ):
            return
    pytest.fail("a grandchild lives on")


def test_refusals_keep_their_kind(call) -> None:
    with pytest.raises(HostileModel, match="bad thing") as hostile:
        call("refuse", kind="hostile")
    assert hostile.value.fix == "leave it"
    with pytest.raises(MissingExtra) as missing:
        call("refuse", kind="missing")
    assert missing.value.extra == "torch"
    assert "fleetui[torch]" in str(missing.value)
    with pytest.raises(UnsupportedError) as unsupported:
        call("refuse", kind="unsupported")
    assert (unsupported.value.operator, unsupported.value.node) == ("Op", "here")
    with pytest.raises(BugError, match="ours"):
        call("refuse", kind="bug")
