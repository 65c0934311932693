"""The guards themselves: a suite that leaks fails, and says what leaked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFTEST = """
from tests.conftest import pytest_addoption
from tests.helpers.guards import (
    no_leaked_processes, no_leaked_qt, no_leaked_threads, no_unexpected_warnings_logged,
)
"""


def run(tmp_path: Path, body: str) -> tuple[int, str]:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(body)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), f"--rootdir={tmp_path}",
         "-p", "no:cacheprovider", str(tmp_path / "test_it.py")],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


LEAKS = {
    "threads left running": """
import threading
event = threading.Event()
def test_it():
    threading.Thread(target=event.wait, name="forgotten", daemon=True).start()
""",
    "processes left running": """
import subprocess, sys
kept = []
def test_it():
    kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
""",
    "unexpected warnings in the log": """
import logging
def test_it():
    logging.getLogger("fleetui.thing").warning("odd")
""",
    "ResourceWarning": """
import gc, socket
def test_it():
    socket.socket()
    gc.collect()
""",
    "DeprecationWarning": """
import warnings
def test_it():
    warnings.warn("old", DeprecationWarning)
""",
}


@pytest.mark.parametrize("words", LEAKS)
def test_a_leak_fails_the_test(tmp_path: Path, words: str) -> None:
    code, printed = run(tmp_path, LEAKS[words])
    assert code == 1, printed
    assert words in printed


def test_a_clean_test_and_a_provoked_warning_pass(tmp_path: Path) -> None:
    body = """
import logging, pytest, threading
def test_clean():
    thread = threading.Thread(target=lambda: None)
    thread.start()
@pytest.mark.logs_warnings("expected words")
def test_provoked():
    logging.getLogger("fleetui.thing").warning("the expected words came")
"""
    code, printed = run(tmp_path, body)
    assert code == 0, printed
    assert "2 passed" in printed
