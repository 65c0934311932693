"""Kill -9 of broker, station, simulator and desk at random moments: what comes back, how fast, and what is lost.

The real desk runs without a screen, with the demo's simulated fleet; honest devices beside it report and remember
what was acknowledged to them. After the last kill everything acknowledged must be in the store. Prints the time
from each kill to full recovery.

    python -m tests.bench.bench_faults [--quick] [--json] [--seed N]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from fleetui import __version__
from fleetui.common.trust.local import load_or_create_secret
from tests.helpers.probe import Probe, stored
from tests.helpers.wait import wait_until

VICTIMS = ("broker", "station", "simulator", "desk")
WORDS = {"broker": ("fleetui.cli", "broker"), "station": ("fleetui.cli", "station"), "simulator": ("fleet_sim",)}
PROBES = 20


class Desk:
    """The desk as a process, and its children as the process table knows them."""

    def __init__(self, base: Path, devices: int) -> None:
        self.base = base
        self.devices = devices
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
        self.process = psutil.Popen(
            [sys.executable, "-m", "fleetui.cli", "--demo", "--devices", str(self.devices), "--base-dir",
             str(self.base)],
            env=environment, stdout=subprocess.DEVNULL, stderr=(self.base.parent / "desk.err").open("a"),
        )  # fmt: skip

    def child(self, name: str) -> psutil.Process | None:
        """The running child that is ``name``; not one that records or replays history."""
        try:
            children = self.process.children(recursive=True)
        except psutil.Error:
            return None
        for child in children:
            try:
                line = child.cmdline()
            except psutil.Error:
                continue
            if all(word in line for word in WORDS[name]) and not {"record", "--replay"} & set(line):
                return child
        return None

    def kill(self, name: str) -> int:
        victim = self.process if name == "desk" else self.child(name)
        if victim is None:
            raise AssertionError(f"there is no {name} to kill")
        victim.send_signal(signal.SIGKILL)
        if name == "desk":
            self.process.wait()
        return int(victim.pid)

    def said(self, words: str) -> int:
        log = self.base / "log" / "desk.log"
        return log.read_text("utf-8").count(words) if log.exists() else 0

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except psutil.TimeoutExpired:
            self.process.kill()
            raise


def simulated_online(base: Path, since: float = 0.0) -> int:
    """How many simulated devices the station believes online, having heard of them after ``since``."""
    if not (base / "fleetui.db").exists():
        return 0
    connection = sqlite3.connect(f"file:{base / 'fleetui.db'}?mode=ro", uri=True, timeout=10)
    try:
        found = connection.execute(
            "SELECT count(*) FROM device WHERE status = 'online' AND device NOT LIKE 'probe-%' AND last_seen > ?",
            (since,),
        ).fetchone()
    except sqlite3.OperationalError:  # the table is not made yet
        return 0
    finally:
        connection.close()
    return int(found[0])


def last_heard(base: Path) -> float:
    """Fleet time at which the station heard of any simulated device last."""
    connection = sqlite3.connect(f"file:{base / 'fleetui.db'}?mode=ro", uri=True, timeout=10)
    try:
        row = connection.execute("SELECT max(last_seen) FROM device WHERE device NOT LIKE 'probe-%'").fetchone()
    finally:
        connection.close()
    return float(row[0] or 0.0)


def run(kills: int, devices: int, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="fleetui-faults-"))
    base = folder / "base"
    base.mkdir()
    desk = Desk(base, devices)
    took: dict[str, list[float]] = {name: [] for name in VICTIMS}
    unsaid = 0
    probe: Probe | None = None
    enough = devices // 2  # the demo's scenario itself takes whole sites away now and then
    try:
        wait_until(lambda: (base / "run/broker.json").exists() and desk.child("station") is not None, 60, "it runs")
        wait_until(lambda: '"done"' in (base / "demo.json").read_text("utf-8"), 120, "the recorded past is read")
        wait_until(lambda: simulated_online(base) >= enough, 90, "the simulated fleet is online")
        wait_until(lambda: all(desk.child(name) for name in WORDS), 60, "every child runs")
        port = json.loads((base / "run/broker.json").read_text())["listeners"][0]["port"]
        probe = Probe("127.0.0.1", port, load_or_create_secret(base / "keys/local.secret"), "demo", count=PROBES)
        probe.start()
        wait_until(lambda: probe.online == PROBES and len(probe.acked) > PROBES, 30, "the probes report")
        order = [name for name in VICTIMS for _ in range(kills)]
        rng.shuffle(order)
        pause = threading.Event()
        for name in order:
            pause.wait(rng.uniform(0.3, 3.0))
            told = desk.said("signal 9")
            began = time.perf_counter()
            pid = desk.kill(name)
            heard = last_heard(base)
            if name == "desk":
                for child in WORDS:
                    wait_until(lambda c=child: not _orphans(base, c), 30, f"the old {child} ended with its desk")
                desk.start()
            wait_until(
                lambda n=name, p=pid: _whole(desk, n, p), 60, f"everything runs again after the {name} was killed"
            )
            wait_until(lambda: probe.online == PROBES, 60, "the probes are connected again")
            mark = probe.published
            wait_until(lambda m=mark: probe.published > m + PROBES, 30, "reports flow again")
            fresh = set(probe.acked)
            wait_until(lambda f=fresh: len(stored(base / "fleetui.db") & f) == len(f), 60, "they are stored")
            wait_until(lambda h=heard: simulated_online(base, h) >= enough, 60, "the simulated fleet reports again")
            took[name].append(time.perf_counter() - began)
            if name != "desk" and desk.said("signal 9") <= told:
                unsaid += 1
        probe.pause()
        wait_until(lambda: probe.waiting == 0, 60, "every report was acknowledged")
        acked = set(probe.acked)
        wait_until(lambda: not acked - stored(base / "fleetui.db") or None, 30, "all acknowledged is stored")
        lost = len(acked - stored(base / "fleetui.db"))
        return {"took": took, "acked": len(acked), "lost": lost, "unsaid": unsaid}
    finally:
        if probe is not None:
            probe.stop()
        desk.close()
        if sys.exc_info()[0] is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"kept for a look: {folder}", file=sys.stderr)


def _orphans(base: Path, name: str) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if str(base) in " ".join(line) and all(word in line for word in WORDS[name]):
            found.append(process.pid)
    return found


def _whole(desk: Desk, name: str, pid: int) -> bool:
    """Every child runs, and the one that was killed is another one now."""
    for child in WORDS:
        process = desk.child(child)
        if process is None or (child == name and process.pid == pid):
            return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two kills of each instead of ten")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    kills = 2 if args.quick else 10
    try:
        found = run(kills, 30, args.seed)
    except AssertionError as error:
        print(f"did not recover: {error}", file=sys.stderr)
        return 1
    figures = [
        {"name": "acknowledged reports lost", "value": found["lost"], "unit": "", "bar": "0",
         "holds": not found["lost"]},
        {"name": "acknowledged reports", "value": found["acked"], "unit": "", "bar": "> 0",
         "holds": found["acked"] > 0},
        {"name": "deaths the desk said nothing of", "value": found["unsaid"], "unit": "", "bar": "0",
         "holds": not found["unsaid"]},
    ]  # fmt: skip
    for name, seconds in found["took"].items():
        figures.append({
            "name": f"{name}: {len(seconds)} kills, median time to full recovery",
            "value": round(statistics.median(seconds), 2), "unit": "s", "bar": "", "holds": True,
            "min": round(min(seconds), 2), "max": round(max(seconds), 2),
        })  # fmt: skip
    report = {
        "bench": "faults",
        "versions": {"fleetui": __version__, "python": platform.python_version()},
        "figures": figures,
    }
    if args.json:
        print(json.dumps(report))
    else:
        for figure in figures:
            spread = f"  ({figure['min']} to {figure['max']})" if "min" in figure else ""
            bar = f"  bar {figure['bar']}" if figure["bar"] else ""
            print(f"{figure['name']:<60} {figure['value']} {figure['unit']}{spread}{bar}")
    return 0 if all(figure["holds"] for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
