"""The embedded broker beside mosquitto: CPU a message, memory a client; stalled subscribers; fuzzing; start.

::

    python -m tests.bench.bench_broker [--quick] [--json] [--only load,tls,stalled,snapshot,fuzz,start] [--rounds N]

Load: N idle clients with three filters each, then 50 publishers in a closed loop and one subscriber, 1 KiB a
message, on loopback, ours and mosquitto in turn in the same run. CPU is user and system time of the broker
process divided by messages; the load comes from this process. "QoS 1, kept" has a subscriber whose session
outlives its connection, so that ours writes each message to its journal before acknowledging it (mosquitto
2.0 saves on a timer instead; it is measured the same way all the same). "Paced" is 1,000 messages a second, so
that there is little to share between the messages of one turn.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import platform
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from fleetui import __version__
from fleetui.broker import packets
from fleetui.broker.handshake import Connect
from fleetui.broker.packets import V5, Kind, Publish, Request, Subscribe
from fleetui.broker.process import raise_descriptors
from fleetui.broker.wire import Property
from tests.broker.fuzzing import Fuzzer
from tests.helpers.broker import (
    Pki,
    RawClient,
    RunningBroker,
    find_mosquitto,
    running_broker,
    running_mosquitto,
)
from tests.helpers.wait import wait_until

PUBLISHERS = 50
PAYLOAD = bytes(range(256)) * 4
Figure = dict[str, Any]


def figure(name: str, value: float, unit: str, bar: float | None = None, *, below: bool = True) -> Figure:
    holds = bar is None or (value <= bar if below else value >= bar)
    return {"name": name, "value": round(value, 3), "unit": unit, "bar": bar, "holds": holds}


class Client:
    """A socket that reads without waiting; as little as possible, so that the broker is what is measured."""

    def __init__(self, broker: RunningBroker, client_id: str, *, keep: bool = False) -> None:
        self.socket = socket.create_connection((broker.host, broker.port), 30.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        properties = {Property.RECEIVE_MAXIMUM: 1000}
        if keep:
            properties[Property.SESSION_EXPIRY] = 3600
        password = broker.password(client_id)
        connect = Connect(
            client_id, clean=True, properties=properties, password=None if password is None else password.encode()
        )
        self.socket.sendall(connect.encode())
        self.rest = b""
        self.wait(Kind.CONNACK)

    def wait(self, kind: int) -> bytes:
        while True:
            for first, body in self.take():
                assert first >> 4 == kind, (first, body)
                return body
            data = self.socket.recv(65536)
            assert data, "the broker closed the connection"
            self.rest += data

    def take(self) -> list[tuple[int, bytes]]:
        """The whole packets that have come."""
        found = []
        at = 0
        while (one := packets.split(self.rest, at, 1 << 28)) is not None:
            first, start, at = one
            found.append((first, self.rest[start:at]))
        self.rest = self.rest[at:]
        return found

    def subscribe(self, *filters: str, qos: int = 1) -> None:
        self.socket.sendall(Subscribe(1, [Request(f, qos) for f in filters]).encode(V5))
        self.wait(Kind.SUBACK)

    def close(self) -> None:
        self.socket.close()


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def resident(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


def measure(broker: RunningBroker, publishers: list[Client], subscriber: Client, qos: int, count: int) -> float:
    """CPU seconds of the broker for ``count`` messages, all of them received. QoS 1: one on its way for each
    publisher; QoS 0: the next goes out when one came in."""
    process = psutil.Process(broker.process.pid)
    selector = selectors.DefaultSelector()
    frames = [
        Publish(f"fleet/test/up/pub{i}/win", PAYLOAD, qos, packet_id=1 if qos else 0).encode(V5)
        for i in range(len(publishers))
    ]
    for i, client in enumerate(publishers):
        client.socket.setblocking(False)
        selector.register(client.socket, selectors.EVENT_READ, i)
    subscriber.socket.setblocking(False)
    selector.register(subscriber.socket, selectors.EVENT_READ, -1)
    sent = received = acknowledged = 0
    before = cpu(process)
    window = len(publishers) if qos else 200
    for i in range(min(window, count)):
        publishers[i % len(publishers)].socket.sendall(frames[i % len(publishers)])
        sent += 1
    turn = sent
    stop = time.monotonic() + 120
    while received < count or (qos and acknowledged < count):
        assert time.monotonic() < stop, f"{received} of {count} received"
        for key, _ in selector.select(1.0):
            if key.data >= 0:
                data = key.fileobj.recv(4096)  # type: ignore[union-attr]
                assert data
                acknowledged += 1  # one on its way at a time: whatever comes is its PUBACK
                if sent < count:
                    key.fileobj.send(frames[key.data])  # type: ignore[union-attr]
                    sent += 1
                continue
            subscriber.rest += subscriber.socket.recv(1 << 20)
            acks = []
            for first, body in subscriber.take():
                received += 1
                if first & 6:
                    at = 2 + (body[0] << 8 | body[1])
                    acks.append(b"\x40\x02" + body[at : at + 2])
                elif sent < count:
                    publishers[turn % len(publishers)].socket.sendall(frames[turn % len(publishers)])
                    turn += 1
                    sent += 1
            if acks:
                subscriber.socket.setblocking(True)
                subscriber.socket.sendall(b"".join(acks))
                subscriber.socket.setblocking(False)
    used = cpu(process) - before
    selector.close()
    for client in [*publishers, subscriber]:
        client.socket.setblocking(True)
    return used


def paced(broker: RunningBroker, publishers: list[Client], subscriber: Client, seconds: float) -> float:
    """CPU seconds of the broker a message at 1,000 QoS 1 messages a second, evenly spaced."""
    process = psutil.Process(broker.process.pid)
    frames = [
        Publish(f"fleet/test/up/pub{i}/win", PAYLOAD, 1, packet_id=1).encode(V5) for i in range(len(publishers))
    ]
    selector = selectors.DefaultSelector()
    for client in [*publishers, subscriber]:
        client.socket.setblocking(False)
        selector.register(client.socket, selectors.EVENT_READ, client)
    count = int(seconds * 1000)
    began = time.perf_counter()
    before = cpu(process)
    sent = acknowledged = received = 0
    while received < count or acknowledged < count:
        now = time.perf_counter() - began
        assert now < seconds + 30, f"{received} of {count} received"
        while sent < count and sent <= now * 1000:
            publishers[sent % len(publishers)].socket.sendall(frames[sent % len(publishers)])
            sent += 1
        for key, _ in selector.select(0.0005):
            client = key.data
            client.rest += client.socket.recv(1 << 16)
            for first, body in client.take():
                if client is not subscriber:
                    acknowledged += 1
                    continue
                received += 1
                at = 2 + (body[0] << 8 | body[1])
                assert first & 6 == 2
                client.socket.sendall(b"\x40\x02" + body[at : at + 2])
    used = cpu(process) - before
    selector.close()
    for client in [*publishers, subscriber]:
        client.socket.setblocking(True)
    return used / count


def load_one(broker: RunningBroker, clients: int, count: int) -> dict[str, float]:
    """One broker, one round."""
    process = psutil.Process(broker.process.pid)
    found: dict[str, float] = {}
    rss = resident(process)
    before = cpu(process)
    idle = []
    for i in range(clients):
        client = Client(broker, f"idle{i}")
        client.subscribe(f"fleet/test/down/idle{i}/+", f"fleet/test/blob/{i:064x}", f"fleet/test/trust/{i}/#")
        idle.append(client)
    found["connect ms"] = (cpu(process) - before) / clients * 1e3
    found["KiB a client"] = (resident(process) - rss) / clients / 1024
    publishers = [Client(broker, f"pub{i}") for i in range(PUBLISHERS)]
    for name, qos, keep in (("QoS 0", 0, False), ("QoS 1", 1, False), ("QoS 1, kept", 1, True)):
        subscriber = Client(broker, "station", keep=keep)
        subscriber.subscribe("fleet/test/up/+/+", qos=qos)
        measure(broker, publishers, subscriber, qos, count // 10)
        found[name] = measure(broker, publishers, subscriber, qos, count) / count * 1e6
        if name == "QoS 1":
            found["QoS 1, paced"] = paced(broker, publishers, subscriber, count / 10_000) * 1e6
        subscriber.close()
    for client in [*idle, *publishers]:
        client.close()
    return found


def load(sizes: list[int], count: int, rounds: int) -> list[Figure]:
    figures = []
    kinds: dict[str, Callable[[Path], contextlib.AbstractContextManager[RunningBroker]]] = {
        "ours": lambda folder: running_broker(folder, open=True, log_level="WARNING"),
        "mosquitto": lambda folder: running_mosquitto(folder, config="max_inflight_messages 1000\n"),
    }
    raise_descriptors()
    for clients in sizes:
        results: dict[tuple[str, str], list[float]] = {}
        for _ in range(rounds):
            for kind, running in kinds.items():
                with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as broker:
                    for name, value in load_one(broker, clients, count).items():
                        results.setdefault((kind, name), []).append(value)
                gc.collect()
        for (kind, name), values in results.items():
            unit = name if name in {"connect ms", "KiB a client"} else "µs CPU a message"
            bar = None
            if kind == "ours":
                if name == "KiB a client":
                    bar = 8.0
                elif name in {"QoS 1", "QoS 1, kept"} and clients == 1000:
                    bar = 60.0
            middle = figure(f"{kind}, {clients} clients, {name}", statistics.median(values), unit, bar)
            middle |= {"min": round(min(values), 3), "max": round(max(values), 3)}
            figures.append(middle)
    return figures


def tls(clients: int) -> list[Figure]:
    """CPU and memory of connections with client certificates."""
    figures = []
    for kind in ("ours", "mosquitto"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if kind == "ours":
                running = running_broker(folder, tls=Pki(folder / "pki"), log_level="WARNING")
            else:
                running = running_mosquitto(folder, tls=True)
            with running as broker:
                assert broker.tls is not None
                for i in range(clients):
                    broker.tls.client(f"dev{i}")
                process = psutil.Process(broker.process.pid)
                broker.raw("dev0", tls=True).close()
                before, rss = cpu(process), resident(process)
                open_ones = [broker.raw(f"dev{i}", tls=True) for i in range(clients)]
                figures += [
                    figure(
                        f"{kind}, mutual TLS, {clients} clients",
                        (cpu(process) - before) / clients * 1e3,
                        "ms CPU each",
                    ),
                    figure(
                        f"{kind}, mutual TLS, {clients} clients",
                        (resident(process) - rss) / clients / 1024,
                        "KiB each",
                    ),
                ]
                for client in open_ones:
                    client.close()
    return figures


def stalled() -> list[Figure]:
    """20 MB for a client that does not read: 80 retained blobs it asked for, then 80 live ones."""
    figures = []
    blobs = 80
    size = 256 * 1024
    for kind in ("ours", "ours over TLS", "mosquitto"):
        bar = None if kind == "mosquitto" else 2.0
        encrypted = kind == "ours over TLS"
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if kind == "mosquitto":
                running = running_mosquitto(folder, config="max_inflight_messages 1000\n")
            else:
                pki = Pki(folder / "pki") if encrypted else None
                running = running_broker(folder, tls=pki, log_level="WARNING")
            with running as broker:
                process = psutil.Process(broker.process.pid)
                station = broker.raw("station")
                for i in range(blobs):
                    station.publish(f"fleet/test/blob/{i}", bytes([i]) * size, qos=1, retain=True)
                reader = broker.raw("dev1", tls=encrypted)
                for i in range(blobs):  # warm: the same download by somebody who reads
                    reader.subscribe(f"fleet/test/blob/{i}")
                    assert reader.message() is not None
                reader.close()
                rss = resident(process)
                device = broker.raw("dev2", tls=encrypted)
                for i in range(blobs):
                    device.send(Subscribe(1, [Request(f"fleet/test/blob/{i}", 1)]).encode(V5))
                settle(station)
                figures.append(
                    figure(
                        f"{kind}, stalled subscriber, 20 MB of retained blobs",
                        (resident(process) - rss) / 1e6,
                        "MB",
                        bar,
                    )
                )
                device.close()
                device = broker.raw("dev3", tls=encrypted)
                device.subscribe("fleet/test/trust/#")
                rss = resident(process)
                for i in range(blobs):
                    station.publish("fleet/test/trust/x", bytes([i]) * size, qos=1)
                settle(station)
                figures.append(
                    figure(
                        f"{kind}, stalled subscriber, 20 MB broadcast",
                        (resident(process) - rss) / 1e6,
                        "MB",
                        bar,
                    )
                )
                device.close()
                station.close()
    return figures


def settle(station: RawClient) -> None:
    """Give it a second of ordinary work."""
    stop = time.monotonic() + 1.0
    while time.monotonic() < stop:
        station.publish("x", b"", qos=1)


def snapshot(blobs: int) -> list[Figure]:
    """Pings while a snapshot of large retained blobs is written, and the start that reads it."""
    with tempfile.TemporaryDirectory() as name, running_broker(Path(name), log_level="WARNING") as broker:
        station = broker.raw("station")
        folder = broker.folder / "broker"
        longest = 0.0
        count = 0
        size = 256 * 1024
        for i in range(blobs):
            station.publish(f"fleet/test/blob/{i}", bytes([i & 255]) * size, qos=1, retain=True)

        def ping() -> None:
            nonlocal longest, count
            began = time.perf_counter()
            station.send(packets.PINGREQ)
            station.expect(Kind.PINGRESP, 10)
            longest = max(longest, time.perf_counter() - began)
            count += 1

        seen: set[str] = set()
        stop = time.monotonic() + 60
        while time.monotonic() < stop:
            ping()
            running = {path.name for path in folder.glob("*.new")}
            seen |= running
            if seen and not running:
                break
            if not seen:
                station.publish("fleet/test/blob/0", bytes(size), qos=1, retain=True)
        wait_until(lambda: not list(folder.glob("*.new")), 30, "the end of the snapshot")
        station.close()
        broker.kill()
        began = time.perf_counter()
        broker.restart()
        again = time.perf_counter() - began
        megabytes = blobs * size / 1e6
        return [
            figure(f"longest of {count} pings while {megabytes:.0f} MB are written", longest * 1e3, "ms", 50.0),
            figure(f"start with {megabytes:.0f} MB of retained messages", again, "s"),
        ]


def fuzz(count: int) -> list[Figure]:
    """Mutated packets for one core: no failure of ours, no growth, nothing left."""
    logging.getLogger("fleetui.broker").setLevel(logging.CRITICAL)
    me = psutil.Process()
    fuzzer = Fuzzer(2026)
    fuzzer.run(count // 10)
    gc.collect()
    rss = resident(me)
    longest = 0.0
    while fuzzer.fed < count:
        began = time.perf_counter()
        fuzzer.run(100)
        longest = max(longest, time.perf_counter() - began)
    gc.collect()
    grown = resident(me) - rss
    bugs = fuzzer.world.core.counters.bugs
    fuzzer.finish()
    return [
        figure("fuzzing, mutated packets", fuzzer.fed, "packets", count, below=False),
        figure("fuzzing, failures of ours", bugs, "failures", 0),
        figure("fuzzing, growth after the first tenth", grown / 1e6, "MB", 8.0),
        figure("fuzzing, longest 100 packets", longest * 1e3, "ms", 1000.0),
    ]


def start(rounds: int) -> list[Figure]:
    """From the command to the first answer."""
    figures = []
    for kind in ("ours", "mosquitto"):
        times = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                running = (
                    running_broker(Path(folder), open=True) if kind == "ours" else running_mosquitto(Path(folder))
                )
                with running as broker:
                    broker.raw("x").close()
                    times.append(time.perf_counter() - began)
        figures.append(figure(f"{kind}, start to first CONNACK", statistics.median(times), "s"))
    return figures


def versions() -> dict[str, str]:
    done = subprocess.run([find_mosquitto(), "-h"], capture_output=True, text=True, check=False)
    return {
        "fleetui": __version__,
        "python": platform.python_version(),
        "mosquitto": (done.stdout or done.stderr).splitlines()[0].removeprefix("mosquitto version "),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer clients, messages and mutated packets")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default="load,tls,stalled,snapshot,fuzz,start")
    parser.add_argument("--rounds", type=int, default=0, help="of the load (default: 3, quick: 1)")
    args = parser.parse_args()
    try:
        find_mosquitto()
    except BaseException as error:  # noqa: BLE001 - pytest's way to skip or fail, which is no Exception
        print(f"could not run: {error}", file=sys.stderr)
        return 2
    quick = args.quick
    rounds = args.rounds or (1 if quick else 3)
    parts: dict[str, Callable[[], list[Figure]]] = {
        "load": lambda: load([200, 1000] if quick else [200, 1000, 5000], 20_000 if quick else 50_000, rounds),
        "tls": lambda: tls(100 if quick else 500),
        "stalled": stalled,
        "snapshot": lambda: snapshot(200 if quick else 400),
        "fuzz": lambda: fuzz(100_000 if quick else 1_000_000),
        "start": lambda: start(3 if quick else 7),
    }
    figures: list[Figure] = []
    try:
        for name in args.only.split(","):
            for one in parts[name]():
                figures.append(one)
                spread = f" ({one['min']:g} to {one['max']:g})" if "min" in one else ""
                bar = "" if one["bar"] is None else f"   bar {one['bar']:g}: {'holds' if one['holds'] else 'SHORT'}"
                print(f"{one['name']:60} {one['value']:10g} {one['unit']}{spread}{bar}", file=sys.stderr)
    except (AssertionError, OSError, KeyError) as error:
        print(f"could not run: {error!r}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps({"bench": "broker", "versions": versions(), "figures": figures}))
    return 0 if all(one["holds"] for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
