"""Fixtures and rules for every test: see ``tests/helpers/guards.py`` for what fails a test besides its asserts."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from tests.helpers.guards import (
    no_leaked_processes,
    no_leaked_qt,
    no_leaked_threads,
    no_unexpected_warnings_logged,
)

__all__ = ["no_leaked_processes", "no_leaked_qt", "no_leaked_threads", "no_unexpected_warnings_logged"]

HERE = Path(__file__).parent
PURE = os.environ.get("FLEETUI_PURE") == "1"
"""The pure run: PySide6 is not installed, and everything that does not need it must pass all the same."""

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("LANG", "en_US.UTF-8")

collect_ignore = ["bench"]
if PURE:
    collect_ignore += ["qt", "workshop"]
    if importlib.util.find_spec("PySide6") is not None:
        raise pytest.UsageError("FLEETUI_PURE=1 asks for an environment without PySide6, but it is installed")


def pytest_addoption(parser: pytest.Parser) -> None:
    if importlib.util.find_spec("pytestqt") is None:
        parser.addini("qt_log_level_fail", "belongs to pytest-qt, which the pure run does without")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if (HERE / "qt") in item.path.parents:
            item.add_marker(pytest.mark.qt)
        if (HERE / "workshop") in item.path.parents:
            item.add_marker(pytest.mark.compile)
    if PURE:
        kept = [i for i in items if not (i.get_closest_marker("qt") or i.get_closest_marker("compile"))]
        if dropped := [i for i in items if i not in set(kept)]:
            config.hook.pytest_deselected(items=dropped)
            items[:] = kept


def pytest_terminal_summary(terminalreporter: object, config: pytest.Config) -> None:
    """How many tests met real mosquitto and real PostgreSQL: the number is part of the proof."""
    reporter = terminalreporter
    passed = reporter.stats.get("passed", [])  # type: ignore[attr-defined]
    for marker, words in (
        ("mosquitto", "passed on a real mosquitto"),
        ("postgres", "passed on a real PostgreSQL"),
        ("faults", "fault tests passed"),
    ):
        count = sum(1 for report in passed if marker in report.keywords)
        reporter.write_line(f"{words}: {count}")  # type: ignore[attr-defined]
