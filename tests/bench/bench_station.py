"""End to end: devices -> broker -> station -> store. Latency, losses, processor time, memory, ceiling.

::

    python -m tests.bench.bench_station [--quick] [--json] [--broker ours|mosquitto|both] [--clients N]

1,000 clients in a process of their own publish windows of 1 KiB at QoS 1: 1,000 a second for 60 s (``--quick``:
10 s), then 2,000 a second for 10 s, then as fast as the station takes them. The station is a process of its own on
a fresh SQLite store, the broker another. Latency runs from the call of ``publish`` to the end of the commit, over
all messages. Processor time is that of the three processes, from the first message of a run to the last commit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import random
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from fleetui import __version__
from fleetui.common.domain.clock import SystemClock
from fleetui.common.link.codec import encode
from fleetui.common.link.loop import LinkLoop
from fleetui.common.link.messages import Birth, Window
from fleetui.common.link.mqtt import MqttTransport
from fleetui.common.link.topics import Topics, Up
from fleetui.common.link.transport import LinkConfig, LinkState
from fleetui.common.trust.local import local_password
from tests.helpers.broker import RunningBroker, running_broker, running_mosquitto
from tests.helpers.wait import wait_until

CLOCK = SystemClock()
FLEET = "test"
Figure = dict[str, Any]


def figure(name: str, value: float, unit: str, bar: float | None = None) -> Figure:
    return {"name": name, "value": round(value, 3), "unit": unit, "bar": bar, "holds": bar is None or value <= bar}


# ----------------------------------------------------------------------------------------- the station's process


def sent_at(head: bytes) -> float:
    """The time in the first bytes of a report: array, version, device, boot, number, time."""
    at = 1 if head[0] & 0xF0 == 0x90 else 3
    at += 1
    for _ in range(2):  # two short texts
        at += 1 + (head[at] & 0x1F) if head[at] & 0xE0 == 0xA0 else 2 + head[at + 1]
    at += {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}.get(head[at], 1)
    assert head[at] == 0xCB, head
    return float(struct.unpack_from(">d", head, at + 1)[0])


def be_station(args: argparse.Namespace) -> int:
    """The real station, but for an observer that notes when each message was committed. JSON lines out."""
    from fleetui.common.basedir import BaseDir
    from fleetui.station.config import BrokerAddress, StationConfig
    from fleetui.station.process import Station

    base = BaseDir.at(args.folder)
    config = StationConfig(
        base,
        base.store_url,
        BrokerAddress("127.0.0.1", args.port),
        fleet=FLEET,
        secret=bytes.fromhex(args.secret) if args.secret else None,
        gather_s=args.gather,
    )
    notes: deque[tuple[bytes, float, float]] = deque()

    def committed(arrivals: Sequence[Any]) -> None:
        now = CLOCK.now()
        notes.extend((arrival.message.payload[:64], arrival.now, now) for arrival in arrivals)

    def say(kind: str, **fields: Any) -> None:
        print(json.dumps({"kind": kind, **fields}), flush=True)
        if station.leading is not None:
            station.leading.batcher.on_committed = committed

    station = Station(config, lambda _wish: "nobody is known here", say=say)

    def listen() -> None:
        for line in sys.stdin:
            word, *numbers = line.split()
            if word == "report":
                if numbers:  # the store shows a commit a moment before the observer is called
                    wait_until(lambda least=int(numbers[0]): len(notes) >= least, 30, "the last commits")
                taken = [notes.popleft() for _ in range(len(notes))]
                sent = np.array([sent_at(head) for head, _, _ in taken])
                lags = (np.array([at for _, _, at in taken]) - sent) * 1000
                ways = (np.array([came for _, came, _ in taken]) - sent) * 1000
                counters = station.counters.snapshot()
                found = {}
                for q in (50, 99, 100) if len(lags) else ():
                    found |= {f"q{q}": float(np.percentile(lags, q)), f"way{q}": float(np.percentile(ways, q))}
                threads = {
                    thread.name: times.user_time + times.system_time
                    for times in psutil.Process().threads()
                    for thread in threading.enumerate()
                    if thread.native_id == times.id
                }
                told = {"count": len(lags), **found, "counters": counters, "threads": threads}
                print(json.dumps({"kind": "report", **told}), flush=True)
        station.stop()

    threading.Thread(target=listen, daemon=True).start()
    if args.profile:
        import cProfile

        profile = cProfile.Profile()
        thread_run = threading.Thread.run

        def run(self: threading.Thread) -> None:
            if self.name == args.profile:
                profile.runcall(thread_run, self)
            else:
                thread_run(self)

        threading.Thread.run = run  # type: ignore[method-assign]
        station.run()
        profile.dump_stats(os.environ.get("PROFILE_OUT", "station.prof"))
        return 0
    station.run()
    return 0


# ----------------------------------------------------------------------------------------- the clients' process


class Clients:
    """Many devices on one loop, publishing at a pace."""

    def __init__(self, port: int, secret: bytes | None, count: int) -> None:
        self.loop = LinkLoop(CLOCK, connects_per_s=1000.0)
        self.acked = 0
        self.published = 0
        self.refused = 0
        self.topics = Topics(FLEET)
        self.numbers = [0] * count
        self.names = [f"dev{i:05}" for i in range(count)]
        self.links = []
        for i, name in enumerate(self.names):
            config = LinkConfig(
                name,
                "127.0.0.1",
                port,
                username=name if secret else None,
                password=local_password(secret, name) if secret else None,
            )
            self.links.append(MqttTransport(config, self.loop, rng=random.Random(i)))
        self.next = 0
        self.topic = [self.topics.up(name, Up.WIN) for name in self.names]
        self.body = bytes(random.Random(1).randbytes(860))

    def connect(self) -> None:
        for link in self.links:
            link.start()
        self.loop.start_thread()
        wait_until(lambda: all(link.status.state is LinkState.ONLINE for link in self.links), 60, "clients")
        for i, link in enumerate(self.links):
            birth = Birth(
                device=self.names[i], boot="b", seq=self._number(i), at=CLOCK.now(), agent="bench", target="x"
            )
            self.published += 1
            link.publish(self.topics.up(self.names[i], Up.BIRTH), encode(birth), qos=1, on_done=self._done)
        wait_until(lambda: self.acked == self.published, 30, "births")

    def _number(self, i: int) -> int:
        self.numbers[i] += 1
        return self.numbers[i] - 1

    def _done(self, ok: bool) -> None:
        if ok:
            self.acked += 1
        else:
            self.refused += 1

    def _one(self) -> None:
        """The next device in turn publishes a window. On the loop's thread."""
        i = self.next
        self.next = (i + 1) % len(self.links)
        at = CLOCK.now()
        window = Window(
            device=self.names[i],
            boot="b",
            seq=self._number(i),
            at=at,
            handle="main",
            variant="x86-64-v3",
            start=at - 60,
            length_s=60.0,
            rows=120,
            latency=[0] * 30 + [20, 60, 40],
            version="1.0",
            baseline="ab" * 16,
            counts=self.body,
        )
        self.published += 1
        self.links[i].publish(self.topic[i], encode(window), qos=1, on_done=self._done)

    def pace(self, per_s: float, seconds: float) -> None:
        """So many a second, evenly; what the loop was late for is made up for."""
        began = CLOCK.monotonic()
        total = int(per_s * seconds)
        over = threading.Event()
        done = 0

        def tick() -> None:
            nonlocal done
            due = min(int((CLOCK.monotonic() - began) * per_s) + 1, total)
            while done < due:
                self._one()
                done += 1
            if done >= total:
                over.set()
            else:
                self.loop.call_later(0.002, tick)

        self.loop.call_soon_threadsafe(tick)
        assert over.wait(seconds * 5 + 60), "the clients cannot keep the pace"

    def flood(self, total: int, window: int) -> None:
        """As fast as the broker acknowledges, so many on their way."""
        over = threading.Event()
        left = total

        def top_up() -> None:
            nonlocal left
            while left and self.published - self.acked - self.refused < window:
                self._one()
                left -= 1
            if left:
                self.loop.call_later(0.001, top_up)
            else:
                over.set()

        self.loop.call_soon_threadsafe(top_up)
        assert over.wait(300), "the clients hang"

    def settle(self) -> None:
        wait_until(lambda: self.acked + self.refused == self.published, 120, "acknowledgements")


def be_clients(args: argparse.Namespace) -> int:
    clients = Clients(args.port, bytes.fromhex(args.secret) if args.secret else None, args.clients)
    clients.connect()
    print(json.dumps({"kind": "ready"}), flush=True)
    for line in sys.stdin:
        word, *numbers = line.split()
        before = clients.acked
        if word == "pace":
            clients.pace(float(numbers[0]), float(numbers[1]))
        elif word == "flood":
            clients.flood(int(numbers[0]), int(numbers[1]))
        clients.settle()
        told = {"kind": "done", "acked": clients.acked - before, "all": clients.acked, "refused": clients.refused}
        print(json.dumps(told), flush=True)
    clients.loop.stop()
    return 0


# ------------------------------------------------------------------------------------------------ the whole


class Child:
    """One of the two processes above."""

    def __init__(self, role: str, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.bench_station", "--role", role, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.ps = psutil.Process(self.process.pid)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def wait(self, kind: str, timeout: float = 300.0, **fields: Any) -> dict[str, Any]:
        while True:
            said = self.lines.get(timeout=timeout)
            if said["kind"] == kind and fields.items() <= said.items():
                return said

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def cpu(processes: dict[str, psutil.Process]) -> dict[str, float]:
    return {name: sum(p.cpu_times()[:2]) for name, p in processes.items()}


def stored(folder: Path, table: str = "inference_window") -> int:
    connection = sqlite3.connect(f"file:{folder / 'fleetui.db'}?mode=ro", uri=True)
    try:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - our own names
    finally:
        connection.close()


def measure(name: str, broker: RunningBroker, folder: Path, args: argparse.Namespace) -> list[Figure]:
    secret = [] if broker.anonymous else ["--secret", broker.secret.hex()]
    profile = ["--profile", args.profile] if args.profile else []
    station = Child(
        "station",
        "--port",
        str(broker.port),
        "--folder",
        str(folder),
        "--gather",
        str(args.gather),
        *secret,
        *profile,
    )
    figures = []
    try:
        station.wait("state", link="online")
        clients = Child("clients", "--port", str(broker.port), "--clients", str(args.clients), *secret)
        clients.wait("ready")
        processes = {"agents": clients.ps, "broker": psutil.Process(broker.process.pid), "station": station.ps}
        steady = 10 if args.quick else 60
        runs = [("steady", f"pace {args.rate} {steady}"), ("burst", f"pace {2 * args.rate} 10")]
        flood = 20_000 if args.quick else 50_000
        runs.append(("flood", f"flood {flood} 3000"))
        wanted = 0
        wait_until(lambda: stored(folder, "device") == args.clients, 60, "births stored")
        last = report_after(station, args.clients)
        for run, order in runs:
            if args.only and run not in args.only:
                continue
            before, began = cpu(processes), CLOCK.monotonic()
            clients.tell(order)
            done = clients.wait("done")
            wanted += done["acked"]
            try:
                wait_until(lambda wanted=wanted: stored(folder) >= wanted, 120, f"{wanted} windows stored")
            except AssertionError as error:
                counters = report_after(station)["counters"]
                raise AssertionError(f"{name}, {run}: {error}; {stored(folder)} are; {counters}") from None
            wall = CLOCK.monotonic() - began
            used = {who: value - before[who] for who, value in cpu(processes).items()}
            count = done["acked"]
            report = report_after(station, count)
            threads = {who: value - last["threads"].get(who, 0.0) for who, value in report["threads"].items()}
            commits = report["counters"]["commits"] - last["counters"]["commits"]
            last = report
            figures += [
                figure(f"{name}, {run}: station's thread {who}, CPU a message", 1e6 * value / count, "us")
                for who, value in threads.items()
                if value
            ]
            figures.append(figure(f"{name}, {run}: messages a commit", count / max(commits, 1), ""))
            told = f"{name}, {run}: "
            lost = count - report["count"]
            if run == "flood":
                figures.append(figure(told + "lost", lost, "messages", 0))
                figures.append(figure(told + "ceiling", count / wall, "messages/s"))
                figures += [
                    figure(told + f"{who}, CPU a message", 1e6 * value / count, "us") for who, value in used.items()
                ]
                continue
            figures.append(figure(told + "lost", lost + done["refused"], "messages", 0))
            figures.append(figure(told + "rate", count / wall, "messages/s"))
            figures.append(figure(told + "latency p50", report["q50"], "ms"))
            figures.append(figure(told + "latency p99", report["q99"], "ms", 20.0 if run == "steady" else 200.0))
            figures.append(figure(told + "latency, longest", report["q100"], "ms"))
            figures.append(figure(told + "of it until the station has it, p50", report["way50"], "ms"))
            figures.append(figure(told + "of it until the station has it, p99", report["way99"], "ms"))
            total = sum(used.values()) / wall
            figures.append(
                figure(told + "CPU of agents, broker and station", total, "cores", 1.0 if run == "steady" else None)
            )
            figures += [figure(told + f"{who}, CPU a message", 1e6 * v / count, "us") for who, v in used.items()]
            figures += [
                figure(told + f"{who}, RSS", p.memory_info().rss / 2**20, "MiB") for who, p in processes.items()
            ]
        clients.close()
    finally:
        station.close()
    return figures


def report_after(station: Child, least: int = 0) -> dict[str, Any]:
    station.tell(f"report {least}")
    return station.wait("report")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--broker", choices=("ours", "mosquitto", "both"), default="both")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--gather", type=float, default=0.002, help="as StationConfig.gather_s")
    parser.add_argument("--only", nargs="*", choices=("steady", "burst", "flood"))
    parser.add_argument("--profile", help="name of the station's thread to profile")
    parser.add_argument("--role", choices=("station", "clients"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--secret", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role == "station":
        return be_station(args)
    if args.role == "clients":
        return be_clients(args)
    figures: list[Figure] = []
    for name, run in (("ours", running_broker), ("mosquitto", running_mosquitto)):
        if args.broker not in {name, "both"}:
            continue
        with (
            tempfile.TemporaryDirectory(prefix="bench-station-") as folder,
            run(Path(folder) / "broker", fleet=FLEET) as broker,
        ):
            figures += measure(name, broker, Path(folder) / "station", args)
    versions = {"fleetui": __version__, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    if args.json:
        print(json.dumps({"bench": "station", "versions": versions, "figures": figures}))
    else:
        for one in figures:
            bar = f"  (bar {one['bar']:g}{'' if one['holds'] else ', MISSED'})" if one["bar"] is not None else ""
            print(f"{one['name']:<50} {one['value']:>12,.3f} {one['unit']}{bar}")
    return 0 if all(one["holds"] for one in figures) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AssertionError as error:
        print(f"could not run: {error}", file=sys.stderr)
        sys.exit(2)
