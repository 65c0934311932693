"""The link: processor time a message and memory a client of the MQTT transport; the codec; the loopback.

::

    python -m tests.bench.bench_link [--quick] [--json] [--broker mosquitto|own]

Each part runs in a process of its own, so that its memory and processor time are its own; the broker is another
process. Messages have 1 KiB at QoS 1. "Closed loop" keeps the window full; "paced" sends 1,000 messages a second,
evenly over 1,000 clients, as a fleet does, so each costs its own system calls. "Receiving" acknowledges by hand
and leaves the sending to another process. Minimum, median and maximum of the rounds; the bar is for the median.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt
import psutil

from fleetui import __version__
from fleetui.common.domain.clock import ManualClock
from fleetui.common.link.codec import decode_up, encode
from fleetui.common.link.loop import LinkLoop
from fleetui.common.link.loopback import Faults, LoopbackBroker, LoopbackTransport
from fleetui.common.link.mqtt import MqttTransport
from fleetui.common.link.transport import LinkConfig, LinkState, TlsFiles
from tests.helpers.broker import Pki, free_port, running_broker, running_mosquitto
from tests.hostile.corpus_wire import DEVICE, GOOD

PAYLOAD = bytes(range(256)) * 4
TOPIC = "fleet/bench/up/dev-1/win"
Parts = dict[str, Callable[[argparse.Namespace], dict[str, float]]]


def figure(
    name: str, values: list[float], unit: str, bar: float | None = None, *, below: bool = True
) -> dict[str, Any]:
    middle = statistics.median(values)
    holds = bar is None or (middle <= bar if below else middle >= bar)
    return {
        "name": name,
        "value": round(middle, 2),
        "least": round(min(values), 2),
        "most": round(max(values), 2),
        "unit": unit,
        "bar": bar,
        "holds": holds,
    }


def _rss_kib() -> float:
    return psutil.Process().memory_info().rss / 1024


def _link(args: argparse.Namespace, loop: LinkLoop, client_id: str, **config: Any) -> MqttTransport:
    given: dict[str, Any] = {"host": "127.0.0.1", "port": args.port, "queue_limit": 2000} | config
    return MqttTransport(LinkConfig(client_id, **given), loop)


class _Run:
    """A loop that is run here, until ``finish`` is called."""

    def __init__(self) -> None:
        self.loop = LinkLoop()
        self._began = 0.0
        self._cpu = 0.0
        self.wall_s = 0.0
        self.cpu_s = 0.0

    def begin(self) -> None:
        self._cpu, self._began = time.process_time(), time.monotonic()

    def measured(self) -> None:
        self.cpu_s, self.wall_s = time.process_time() - self._cpu, time.monotonic() - self._began

    def finish(self) -> None:
        self.measured()
        self.loop.stop()

    def run(self, at_most_s: float = 240.0) -> None:
        def give_up() -> None:
            raise SystemExit(f"not done after {at_most_s:g} s")

        self.loop.call_later(at_most_s, give_up)
        self.loop.run()
        assert self.loop.counters.errors == 0


def part_publish(args: argparse.Namespace) -> dict[str, float]:
    run, total = _Run(), args.messages
    link = _link(args, run.loop, "publisher")
    done = sent = 0

    def feed() -> None:
        nonlocal sent
        while sent < total and link.publish(TOPIC, PAYLOAD, qos=1, on_done=taken):
            sent += 1

    def taken(ok: bool) -> None:
        nonlocal done
        assert ok
        done += 1
        if done == total:
            run.finish()
        elif sent - done < 1000:
            feed()

    def status(now: Any) -> None:
        if now.state is LinkState.ONLINE:
            run.begin()
            feed()

    link.on_status = status
    link.start()
    run.run()
    return {"us": run.cpu_s / total * 1e6, "per_s": total / run.wall_s}


def part_receive(args: argparse.Namespace) -> dict[str, float]:
    run, total = _Run(), args.messages
    link = _link(args, run.loop, "receiver", manual_ack=True)
    got = 0
    sender: subprocess.Popen[bytes] | None = None

    def message(received: Any) -> None:
        nonlocal got
        got += 1
        if got == 1:
            run.begin()
        link.ack(received)
        if got == total:
            run.finish()

    def status(now: Any) -> None:
        nonlocal sender
        if now.state is LinkState.ONLINE and sender is None:
            sender = subprocess.Popen(_command(args, "publish"), stdout=subprocess.DEVNULL)

    link.on_message, link.on_status = message, status
    link.subscribe("fleet/bench/up/+/+")
    link.start()
    run.run()
    assert sender is not None
    sender.wait(60)
    return {"us": run.cpu_s / total * 1e6, "per_s": total / run.wall_s}


def part_paced(args: argparse.Namespace) -> dict[str, float]:
    """1,000 clients, 1,000 messages a second between them."""
    run, count = _Run(), 1000
    seconds = 4 if args.quick else 15
    total = count * seconds
    links = [_link(args, run.loop, f"c{i}") for i in range(count)]
    online = done = sent = 0

    def tick() -> None:
        nonlocal sent
        if sent == 0:
            run.begin()
        due = min(total, int((time.monotonic() - run._began) * 1000) + 1)
        while sent < due:
            assert links[sent % count].publish(TOPIC, PAYLOAD, qos=1, on_done=taken)
            sent += 1
        if sent < total:
            run.loop.call_later(0.001, tick)

    def taken(ok: bool) -> None:
        nonlocal done
        assert ok
        done += 1
        if done == total:
            run.finish()

    def status(now: Any) -> None:
        nonlocal online
        online += now.state is LinkState.ONLINE
        if online == count and now.state is LinkState.ONLINE:
            run.loop.call_later(0.5, tick)

    for link in links:
        link.on_status = status
        link.start()
    run.run()
    return {"us": run.cpu_s / total * 1e6, "lag_ms": run.loop.counters.longest_s * 1e3}


def part_connect(args: argparse.Namespace) -> dict[str, float]:
    run, count = _Run(), args.clients
    tls = TlsFiles(*(Path(p) for p in args.tls.split(","))) if args.tls else None
    before = _rss_kib()
    more: dict[str, Any] = {"tls": tls, "host": "localhost", "port": args.tls_port} if tls else {}
    links = [_link(args, run.loop, f"c{i}", **more) for i in range(count)]
    online = 0
    figures: dict[str, float] = {}

    def status(now: Any) -> None:
        nonlocal online
        online += now.state is LinkState.ONLINE
        if online == count and not figures:
            run.measured()
            figures.update(per_s=count / run.wall_s, cpu_ms=run.cpu_s / count * 1e3)
            figures["kib"] = (_rss_kib() - before) / count
            run.begin()
            run.loop.call_later(5.0, idle)

    def idle() -> None:
        run.measured()
        figures["idle_percent"] = run.cpu_s / run.wall_s * 100
        run.finish()

    for link in links:
        link.on_status = status
        link.subscribe(f"fleet/bench/down/{link.config.client_id}/+")
        link.start()
    run.begin()
    run.run()
    figures["lag_ms"] = run.loop.counters.longest_s * 1e3
    return figures


def part_codec(args: argparse.Namespace) -> dict[str, float]:
    figures = {}
    for kind, message in GOOD.items():
        payload = encode(message)
        count = 20_000 if args.quick else 100_000
        began = time.process_time()
        for _ in range(count):
            decode_up(kind, payload, DEVICE)
        middle = time.process_time()
        for _ in range(count):
            encode(message)
        figures[f"{kind} decode"] = (middle - began) / count * 1e6
        figures[f"{kind} encode"] = (time.process_time() - middle) / count * 1e6
    return figures


def part_loopback(args: argparse.Namespace) -> dict[str, float]:
    broker = LoopbackBroker(ManualClock(), random.Random(1), Faults(delay_s=(0.001, 0.05)))
    links = [LoopbackTransport(LinkConfig(f"c{i}"), broker) for i in range(100)]
    station = LoopbackTransport(LinkConfig("station", manual_ack=True), broker)
    got = 0

    def message(received: Any) -> None:
        nonlocal got
        got += 1
        station.ack(received)

    station.on_message = message
    station.subscribe("fleet/bench/up/+/+")
    for link in (station, *links):
        link.start()
    broker.run_for(1.0)
    rounds = 50 if args.quick else 200
    began = time.process_time()
    for _ in range(rounds):
        for link in links:
            link.publish(TOPIC, PAYLOAD, qos=1)
        broker.run_for(1.0)
    spent = time.process_time() - began
    assert got == rounds * len(links)
    return {"us": spent / got * 1e6}


PARTS: Parts = {
    "publish": part_publish,
    "receive": part_receive,
    "paced": part_paced,
    "connect": part_connect,
    "codec": part_codec,
    "loopback": part_loopback,
}


def _command(args: argparse.Namespace, part: str, **more: object) -> list[str]:
    given = {"port": args.port, "messages": args.messages, "clients": 0} | more
    options = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    return [sys.executable, "-m", "tests.bench.bench_link", "--part", part, *options, *(["--quick"] * args.quick)]


def _measure(args: argparse.Namespace, rounds: int, part: str, **more: object) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        done = subprocess.run(
            _command(args, part, **more), capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            raise SystemExit(f"{part} ended with {done.returncode}: {done.stderr[-2000:]}")
        for name, value in json.loads(done.stdout).items():
            found.setdefault(name, []).append(value)
    return found


def _figures(args: argparse.Namespace, pki: Pki | None) -> list[dict[str, Any]]:
    rounds = 1 if args.quick else 5
    out = []
    publish = _measure(args, rounds, "publish")
    out += [
        figure("publish, closed loop: CPU", publish["us"], "µs/message", 165),
        figure("publish, closed loop", publish["per_s"], "messages/s"),
    ]
    receive = _measure(args, rounds, "receive")
    out.append(figure("receive and acknowledge: CPU", receive["us"], "µs/message", 140))
    paced = _measure(args, rounds, "paced")
    out += [
        figure("publish, 1,000 clients at 1,000/s in all: CPU", paced["us"], "µs/message", 250),
        figure("the same: longest turn of the loop", paced["lag_ms"], "ms"),
    ]
    for clients in (1000,) if args.quick else (1000, 5000):
        connect = _measure(args, rounds, "connect", clients=clients)
        out += [
            figure(f"{clients} clients: connects", connect["per_s"], "clients/s", 500, below=False),
            figure(f"{clients} clients: CPU a connect and subscription", connect["cpu_ms"], "ms"),
            figure(f"{clients} clients: memory", connect["kib"], "KiB/client", 8),
            figure(f"{clients} clients, idle: CPU", connect["idle_percent"], "% of a core", 5),
            figure(f"{clients} clients: longest turn of the loop", connect["lag_ms"], "ms"),
        ]
    if pki is not None:
        clients = 200 if args.quick else 1000
        files = ",".join(str(p) for p in (pki.ca, *pki.client("bench")))
        secure = _measure(args, rounds, "connect", clients=clients, tls=files, tls_port=args.tls_port)
        out += [
            figure(f"{clients} clients, mutual TLS: connects", secure["per_s"], "clients/s", 67, below=False),
            figure(f"{clients} clients, mutual TLS: CPU a connect and subscription", secure["cpu_ms"], "ms"),
            figure(f"{clients} clients, mutual TLS: memory", secure["kib"], "KiB/client", 64),
        ]
    codec = _measure(args, rounds, "codec")
    out += [figure(f"codec: {name}", values, "µs", 20) for name, values in codec.items()]
    loopback = _measure(args, rounds, "loopback")
    out.append(figure("loopback, virtual time, both ends: CPU", loopback["us"], "µs/message", 200))
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--broker", choices=["mosquitto", "own"], default="mosquitto")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--tls-port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--messages", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--clients", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--tls", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if args.part:
        print(json.dumps(PARTS[args.part](args)))
        return 0
    args.messages = 20_000 if args.quick else 60_000
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = Path(folder)
        pki: Pki | None = Pki(path / "pki")
        try:
            if args.broker == "own":
                broker = stack.enter_context(running_broker(path, open=True))
                pki = (
                    None  # its TLS listener lets each client be itself only; one certificate for all is mosquitto's
                )
            else:
                assert pki is not None
                files = f"cafile {pki.ca}\ncertfile {pki.cert}\nkeyfile {pki.key}\nrequire_certificate true\n"
                config = "user root\npersistence false\n"
                secure = free_port()
                config += f"listener {secure} 127.0.0.1\n{files}"
                args.tls_port = secure
                broker = stack.enter_context(running_mosquitto(path, config=config))
        except (OSError, AssertionError) as error:
            print(f"the broker does not start: {error}", file=sys.stderr)
            return 2
        args.port = broker.port
        figures = _figures(args, pki)
    versions = {
        "fleetui": __version__,
        "python": platform.python_version(),
        "paho-mqtt": paho.mqtt.__version__,
        "broker": args.broker,
    }
    if args.json:
        print(json.dumps({"bench": "link", "versions": versions, "figures": figures}))
    else:
        for one in figures:
            bar = "" if one["bar"] is None else f"  bar {one['bar']:g}{'' if one['holds'] else '  SHORT'}"
            print(
                f"{one['name']:62} {one['value']:10g} {one['unit']:12} ({one['least']:g} to {one['most']:g}){bar}"
            )
    return 0 if all(one["holds"] for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
