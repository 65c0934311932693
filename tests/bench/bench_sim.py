"""The simulator and the agent: memory and CPU an agent, connects, a recorded week, virtual time.

::

    python -m tests.bench.bench_sim [--quick] [--json] [--only connect,tls,agent,record,virtual]

Simulated agents run in ``fleet-sim`` processes against the embedded broker on this machine, so the broker and this
benchmark take part of the same cores. CPU is user and system time of the simulator's processes; memory is their
resident set, less that of a simulator of ten agents. Times of connecting are wall time, from the first boot until
all are connected, with two processes above 2,500.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from fleet_sim import history
from fleet_sim.options import Options
from fleet_sim.world.population import make
from fleet_sim.world.virtual import VirtualFleet
from fleetui import __version__
from tests.helpers.broker import Pki, RunningBroker, running_broker
from tests.helpers.sim import SimProcess, simulator

Figure = dict[str, Any]
MIB = 1 << 20


def figure(name: str, value: float, unit: str, bar: float | None = None, *, below: bool = True) -> Figure:
    holds = bar is None or (value <= bar if below else value >= bar)
    return {"name": name, "value": round(value, 3), "unit": unit, "bar": bar, "holds": holds}


def family(sim: SimProcess) -> list[psutil.Process]:
    parent = psutil.Process(sim.process.pid)
    return [parent, *parent.children()]


def cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(p.cpu_times()[:2]) for p in processes)


def memory(processes: list[psutil.Process]) -> int:
    return sum(p.memory_info().rss for p in processes)


def wait(seconds: float) -> None:
    threading.Event().wait(seconds)


def somebody_listens(broker: RunningBroker) -> None:
    """A station that takes everything and does nothing with it."""
    client = broker.paho("station", tls=broker.tls is not None)
    done = threading.Event()
    client.on_message = lambda *_: None
    client.on_subscribe = lambda *_: done.set()
    client.subscribe(f"fleet/{broker.fleet}/up/+/+", qos=1)
    if not done.wait(10):
        raise RuntimeError("the broker did not answer the station")


def connect(quick: bool) -> list[Figure]:
    """2,000 and 5,000 plain agents at 0.2 messages a second each."""
    found = []
    seconds = 8.0 if quick else 40.0
    base: dict[int, int] = {}
    for devices in (10, 2000) if quick else (10, 2000, 5000):
        with tempfile.TemporaryDirectory() as folder, running_broker(Path(folder), fleet="main") as broker:
            somebody_listens(broker)
            arguments = [
                *("--devices", str(devices), "--broker", f"mqtt://127.0.0.1:{broker.port}", "--beat", "5"),
                *("--secret", str(broker.folder / "keys" / "local.secret"), "--quiet-world"),
            ]
            with simulator(*arguments) as sim:
                connected = sim.wait("state", timeout=120)
                wait(3.0)
                processes = family(sim)
                workers = max(1, len(processes) - 1)
                if devices == 10:
                    wait(2.0)
                    base[1] = memory(processes)
                    continue
                before, sent, began = cpu(processes), sim.lines[-1]["sent"], time.perf_counter()
                wait(seconds)
                used, passed = cpu(processes) - before, time.perf_counter() - began
                messages = sim.lines[-1]["sent"] - sent
                # What a process takes before its first agent is not the agents'.
                resident = memory(processes)
                each = (resident - base[1] * workers) / devices
                last = sim.lines[-1]
            stopped = sim.lines[-1]
        name = f"{devices} agents"
        found += [
            figure(f"{name}, all connected", connected["seconds"], "s", 10.0),
            figure(f"{name}, memory each", each / 1024, "KiB", 200.0),
            figure(f"{name}, agents per GB with all overhead", devices / (resident / 1e9), "agents"),
            figure(f"{name}, CPU at 0.2 messages/s each", used / passed, "cores", 0.5),
            figure(f"{name}, CPU a message", used / messages * 1e6, "µs"),
            figure(f"{name}, agents per core at that pace", devices / (used / passed), "agents"),
            figure(f"{name}, messages a second", messages / passed, "messages/s", 0.19 * devices, below=False),
            figure(f"{name}, rows really inferred a second", last["rows"] / (passed + 5), "rows/s"),
            figure(f"{name}, longest turn of the loop", stopped["longest_turn_s"] * 1000, "ms"),
            figure(f"{name}, reports refused", stopped["refused"], "reports", 0.0),
            figure(f"{name}, reports dropped", stopped["dropped"], "reports", 0.0),
        ]
    return found


def tls(quick: bool) -> list[Figure]:
    """Mutual TLS: all connected within 30 s."""
    base, found = 0, []
    for devices in (10, 200 if quick else 2000):
        with tempfile.TemporaryDirectory() as folder:
            pki = Pki(Path(folder) / "pki", fleet="main")
            for i in range(devices):
                pki.client(f"edge-{i + 1:04d}")
            with running_broker(Path(folder), fleet="main", tls=pki) as broker:
                somebody_listens(broker)
                url = f"mqtts://127.0.0.1:{broker.tls_port}"
                arguments = ["--devices", str(devices), "--broker", url, "--certs", str(pki.folder)]
                with simulator(*arguments, "--quiet-world", "--beat", "5") as sim:
                    connected = sim.wait("state", timeout=180)
                    used = cpu(family(sim))
                    wait(2.0)
                    resident = memory(family(sim))
        if devices == 10:
            base = resident
            continue
        name = f"{devices} agents with mutual TLS"
        found += [
            figure(f"{name}, all connected", connected["seconds"], "s", 30.0),
            figure(f"{name}, CPU a connect", used / devices * 1000, "ms"),
            figure(f"{name}, memory each", (resident - base) / devices / 1024, "KiB", 200.0),
        ]
    return found


def agent(quick: bool) -> list[Figure]:
    """One ``fleet-agent`` as a device runs it."""
    with tempfile.TemporaryDirectory() as name, running_broker(Path(name), fleet="main") as broker:
        folder = Path(name)
        (folder / "agent.toml").write_text(
            f'fleet = "main"\ndevice = "d1"\nbroker = "mqtt://127.0.0.1:{broker.port}"\ndata = "data"\n'
            f'[auth]\nsecret = "{broker.folder / "keys" / "local.secret"}"\n'
            '[report]\nbeat = "5s"\nwindow = "10s"\n[source]\nrows = "50/s"\nbatch = 8\n',
            "utf-8",
        )
        command = [sys.executable, "-m", "fleet_sim.agent", "--config", str(folder / "agent.toml")]
        began = time.perf_counter()
        process = subprocess.Popen([*command, "--log-level", "ERROR"])
        try:
            state = folder / "data" / "state.json"
            while not (state.exists() and json.loads(state.read_text("utf-8"))["link"] == "online"):
                wait(0.02)
                if time.perf_counter() - began > 30:
                    raise RuntimeError("the agent did not connect")
            started = time.perf_counter() - began
            wait(5.0 if quick else 30.0)
            them = [psutil.Process(process.pid)]
            before, since = cpu(them), time.perf_counter()
            wait(5.0 if quick else 30.0)
            share = (cpu(them) - before) / (time.perf_counter() - since)
            resident = memory(them)
        finally:
            process.terminate()
            process.wait(20)
    return [
        figure("fleet-agent, resident memory", resident / MIB, "MiB", 60.0),
        figure("fleet-agent, from start to connected (seen within 3 s)", started, "s"),
        figure("fleet-agent, CPU at 50 rows/s", share * 100, "% of a core"),
    ]


def record(quick: bool) -> list[Figure]:
    """A week of 200 devices."""
    times, size, count = [], 0, 0
    for _ in range(1 if quick else 3):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "week.rec"
            began = time.process_time()
            count = history.record(make(200, 1), path, until=1.8e9, hours=168)
            times.append(time.process_time() - began)
            size = path.stat().st_size
    return [
        figure("a week of 200 devices, CPU time", float(np.median(times)), "s", 3.0),
        figure("a week of 200 devices, messages", count, "messages"),
        figure("a week of 200 devices, file", size / MIB, "MiB"),
    ]


def virtual(quick: bool) -> list[Figure]:
    """50 devices over the loopback in virtual time."""
    hours = 1 if quick else 6
    world = VirtualFleet(make(50, 1), lambda *_: None, start=1.8e9, options=Options(shortest_turn_s=1.0))
    began = time.process_time()
    world.run_for(hours * 3600.0)
    took = time.process_time() - began
    sent = world.fleet.totals.sent
    world.stop()
    return [
        figure("virtual time, device-hours a second", 50 * hours / took, "device-hours/s"),
        figure("virtual time, CPU a message", took / sent * 1e6, "µs"),
    ]


PARTS: dict[str, Callable[[bool], list[Figure]]] = {
    "connect": connect,
    "tls": tls,
    "agent": agent,
    "record": record,
    "virtual": virtual,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller fleets, shorter runs")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    args = parser.parse_args()
    figures: list[Figure] = []
    try:
        for name in args.only.split(","):
            figures += PARTS[name](args.quick)
    except (AssertionError, RuntimeError, OSError, KeyError) as error:
        print(f"bench_sim could not run: {error}", file=sys.stderr)
        return 2
    versions = {
        "fleetui": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
    }
    if args.json:
        print(json.dumps({"bench": "sim", "versions": versions, "figures": figures}))
    else:
        for f in figures:
            bar = "" if f["bar"] is None else f"  (bar {f['bar']:g}: {'holds' if f['holds'] else 'FALLS SHORT'})"
            print(f"{f['name']:<58} {f['value']:>12,.3f} {f['unit']}{bar}")
    return 0 if all(f["holds"] for f in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
