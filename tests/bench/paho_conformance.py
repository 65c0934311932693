"""Eclipse Paho's conformance suite against the embedded broker.

The suite is not ours and is not here: clone it yourself, then name its folder::

    git clone https://github.com/eclipse/paho.mqtt.testing
    python -m tests.bench.paho_conformance paho.mqtt.testing [--against mosquitto] [--json]

It prints a line for each test, and with ``--json`` one object at the end. Three of the MQTT 5 tests want things
that a server may leave out (a topic alias of the server's own, a filter that nobody may subscribe to, a keep
alive of the server's own, which is switched on here): the bars are 9 of 10 (3.1.1) and 22 (5). A test that takes
longer than a minute counts as failed.

Recorded in November 2026 with the suite's commit 9d7bb80, which has 27 tests for MQTT 5: 9 of 10 and 25 of 27. What
fails wants a filter that nobody may subscribe to (both versions) and topic aliases of the server's own. mosquitto
2.0.11 with the same settings: 8 of 10 and 22 of 27 (``test_flow_control2`` hangs on it).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any

from fleetui import __version__
from tests.helpers.broker import running_broker, running_mosquitto

BARS = {"3.1.1": 9, "5": 22}
MODULES = {"3.1.1": "client_test", "5": "client_test5"}
LIMIT_S = 60


class _Recorder(unittest.TestResult):
    """Outcome and duration of each test, a line each; who reads the lines ends a test that hangs."""

    def __init__(self) -> None:
        super().__init__()
        self._began = 0.0

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name
        super().startTest(test)
        self._began = time.monotonic()
        print(json.dumps({"begun": test.id().rsplit(".", 1)[-1]}), flush=True)

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name
        super().stopTest(test)
        bad = next((text for failed, text in [*self.failures, *self.errors] if failed is test), None)
        row = {
            "test": test.id().rsplit(".", 1)[-1],
            "passed": bad is None,
            "seconds": round(time.monotonic() - self._began, 1),
            "why": bad.strip().splitlines()[-1][:200] if bad else "",
        }
        print(json.dumps(row), flush=True)


def run_inside(suite: Path, version: str, port: int, done: set[str]) -> None:
    """In a process of its own: import the suite's module, give it what its main part would, run it."""
    sys.path.insert(0, str(suite / "interoperability"))
    module = __import__(MODULES[version])
    prefix = "client_test5/" if version == "5" else ""
    module.topic_prefix = prefix
    module.topics = tuple(prefix + t for t in ("TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA"))
    module.wildtopics = tuple(prefix + t for t in ("TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#"))
    module.nosubscribe_topics = ("test/nosubscribe",)
    module.host, module.port = "127.0.0.1", port
    tests = unittest.TestSuite(
        test
        for group in unittest.defaultTestLoader.loadTestsFromModule(module)
        for test in group  # type: ignore[union-attr]  # a module's suite holds one suite for each class
        if test.id().rsplit(".", 1)[-1] not in done
    )
    tests.run(_Recorder())
    os._exit(0)  # its clients leave threads behind


def run_suite(suite: Path, version: str, port: int) -> list[dict[str, Any]]:
    """All tests of one module; one that hangs is failed, and the others go on in a new process."""
    rows: list[dict[str, Any]] = []
    while True:
        hanging = _run_once(suite, version, port, rows)
        if hanging is None:
            return rows
        rows.append({"test": hanging, "passed": False, "seconds": LIMIT_S, "why": f"longer than {LIMIT_S} s"})
        _tell(version, rows[-1])


def _run_once(suite: Path, version: str, port: int, rows: list[dict[str, Any]]) -> str | None:
    """Adds a row for each test; the name of one that hangs, for then the process is gone."""
    command = [sys.executable, "-m", "tests.bench.paho_conformance", str(suite), "--inside", version]
    command += ["--port", str(port), "--done", ",".join(row["test"] for row in rows)]
    with tempfile.TemporaryFile() as noise:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=noise, text=True)
        assert process.stdout is not None
        begun: str | None = None
        while True:
            timer = threading.Timer(LIMIT_S, process.kill)
            timer.start()
            line = process.stdout.readline()
            timer.cancel()
            if not line:
                process.wait(60)
                process.stdout.close()
                return begun
            if line.startswith('{"begun"'):
                begun = json.loads(line)["begun"]
            elif line.startswith('{"test"'):  # the suite prints, too
                rows.append(json.loads(line))
                begun = None
                _tell(version, rows[-1])


def _tell(version: str, row: dict[str, Any]) -> None:
    print(
        f"  {version:5} {'pass' if row['passed'] else 'FAIL'} {row['seconds']:5.1f} s  {row['test']}"
        f"{'   ' + row['why'] if row['why'] else ''}",
        file=sys.stderr,
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("suite", type=Path, help="a clone of eclipse/paho.mqtt.testing")
    parser.add_argument("--against", choices=["ours", "mosquitto"], default="ours")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="the same; there is nothing to leave out")
    parser.add_argument("--inside", choices=list(MODULES), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--done", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        run_inside(args.suite, args.inside, args.port, set(args.done.split(",")))
    if not (args.suite / "interoperability" / "client_test5.py").is_file():
        print(
            f"{args.suite} is not a clone of the suite. "
            "Get it with: git clone https://github.com/eclipse/paho.mqtt.testing",
            file=sys.stderr,
        )
        return 2
    figures: list[dict[str, Any]] = []
    results: dict[str, list[dict[str, Any]]] = {}
    for version, bar in BARS.items():
        with tempfile.TemporaryDirectory() as folder:
            if args.against == "ours":
                running = running_broker(Path(folder), open=True, limit="max_keepalive_s=60")
            else:
                running = running_mosquitto(Path(folder), config="max_keepalive 60\n")
            with running as broker:
                rows = run_suite(args.suite, version, broker.port)
        results[version] = rows
        passed = sum(row["passed"] for row in rows)
        figures.append(
            {
                "name": f"MQTT {version}, of {len(rows)}",
                "value": passed,
                "unit": "tests passed",
                "bar": bar,
                "holds": passed >= bar,
            }
        )
    if args.json:
        print(
            json.dumps(
                {
                    "bench": "paho_conformance",
                    "versions": {
                        "fleetui": __version__,
                        "python": platform.python_version(),
                        "broker": args.against,
                    },
                    "figures": figures,
                    "results": results,
                }
            )
        )
    else:
        for figure in figures:
            print(f"{figure['name']}: {figure['value']} passed (bar {figure['bar']})")
    return 0 if all(figure["holds"] for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
