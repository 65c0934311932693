"""Eclipse Paho's conformance suite against the embedded broker.

The suite is not ours and is not here: clone it yourself, then name its folder::

    git clone https://github.com/eclipse/paho.mqtt.testing
    python -m tests.bench.paho_conformance paho.mqtt.testing [--against mosquitto] [--json]

It prints a line for each test, and with ``--json`` one object at the end. Three of the MQTT 5 tests want things
that a server may leave out (a topic alias of the server's own, a filter that nobody may subscribe to, a keep
alive of the server's own, which is switched on here): the bars are 9 of 10 (3.1.1) and 22 of 26 (5). A test
that takes longer than a minute counts as failed.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from types import FrameType
from typing import Any

from fleetui import __version__
from tests.helpers.broker import running_broker, running_mosquitto

BARS = {"3.1.1": 9, "5": 22}
MODULES = {"3.1.1": "client_test", "5": "client_test5"}
LIMIT_S = 60


class _Recorder(unittest.TestResult):
    """Outcome and duration of each test; a hanging one is interrupted."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []
        self._began = 0.0

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name
        super().startTest(test)
        self._began = time.monotonic()
        signal.alarm(LIMIT_S)

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802 - unittest's name
        signal.alarm(0)
        super().stopTest(test)
        bad = next((text for failed, text in [*self.failures, *self.errors] if failed is test), None)
        row = {
            "test": test.id().rsplit(".", 1)[-1],
            "passed": bad is None,
            "seconds": round(time.monotonic() - self._began, 1),
            "why": bad.strip().splitlines()[-1][:200] if bad else "",
        }
        self.rows.append(row)
        print(json.dumps(row), flush=True)


def _too_long(_signum: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"longer than {LIMIT_S} s")


def run_inside(suite: Path, version: str, port: int) -> None:
    """In a process of its own: import the suite's module, give it what its main part would, run it."""
    sys.path.insert(0, str(suite / "interoperability"))
    module = __import__(MODULES[version])
    prefix = "client_test5/" if version == "5" else ""
    module.topic_prefix = prefix
    module.topics = tuple(prefix + t for t in ("TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA"))
    module.wildtopics = tuple(prefix + t for t in ("TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#"))
    module.nosubscribe_topics = ("test/nosubscribe",)
    module.host, module.port = "127.0.0.1", port
    signal.signal(signal.SIGALRM, _too_long)
    unittest.defaultTestLoader.loadTestsFromModule(module).run(_Recorder())
    sys.stdout.flush()
    import os

    os._exit(0)  # its clients leave threads behind


def run_suite(suite: Path, version: str, port: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.bench.paho_conformance", str(suite), "--inside", version]
    with tempfile.TemporaryFile() as noise:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.PIPE, stderr=noise, text=True)
        assert process.stdout is not None
        rows = []
        for line in process.stdout:
            if not line.startswith('{"test"'):
                continue  # the suite prints too
            row = json.loads(line)
            rows.append(row)
            print(
                f"  {version:5} {'pass' if row['passed'] else 'FAIL'} {row['seconds']:5.1f} s  {row['test']}"
                f"{'   ' + row['why'] if row['why'] else ''}",
                file=sys.stderr,
                flush=True,
            )
        process.wait(60)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("suite", type=Path, help="a clone of eclipse/paho.mqtt.testing")
    parser.add_argument("--against", choices=["ours", "mosquitto"], default="ours")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="the same; there is nothing to leave out")
    parser.add_argument("--inside", choices=list(MODULES), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        run_inside(args.suite, args.inside, args.port)
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
