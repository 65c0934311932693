"""Support for tests that need connections: collectors, a real mosquitto, transports in one line."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from fleetui.common.link.loop import LinkLoop
from fleetui.common.link.mqtt import MqttTransport
from fleetui.common.link.transport import LinkConfig, LinkState, LinkStatus, Message, Transport
from tests.helpers.wait import wait_until


class Address(Protocol):
    """Where a broker listens: mosquitto below, the embedded one in ``tests/helpers/broker.py``."""

    host: str
    port: int


class Collector:
    """What a transport has told. Give ``ack=True`` to acknowledge by hand at once."""

    def __init__(self, transport: Transport, *, ack: bool = False) -> None:
        self.transport = transport
        self.messages: list[Message] = []
        self.statuses: list[LinkStatus] = []
        self.done: list[tuple[str, bool]] = []
        self._ack = ack
        transport.on_message = self._on_message
        transport.on_status = self.statuses.append

    def _on_message(self, message: Message) -> None:
        self.messages.append(message)
        if self._ack:
            self.transport.ack(message)

    def note(self, name: str) -> Callable[[bool], None]:
        """An ``on_done`` that is remembered under ``name``."""
        return lambda ok: self.done.append((name, ok))

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]

    @property
    def states(self) -> list[LinkState]:
        return [status.state for status in self.statuses]

    @property
    def online(self) -> bool:
        return self.transport.status.state is LinkState.ONLINE

    def wait_online(self, timeout: float = 10.0) -> None:
        wait_until(lambda: self.online, timeout, f"online ({self.transport.status})")

    def wait(self, count: int, timeout: float = 10.0) -> list[Message]:
        """The first ``count`` messages."""
        wait_until(lambda: len(self.messages) >= count, timeout, f"{count} messages")
        return self.messages[:count]


def mqtt_transport(
    loop: LinkLoop, broker: Address, client_id: str, *, seed: int = 1, **config: Any
) -> MqttTransport:
    """A transport that comes back quickly, as tests like it. Not started."""
    given = {"host": broker.host, "port": broker.port, "backoff_min_s": 0.05, "backoff_max_s": 0.5} | config
    return MqttTransport(LinkConfig(client_id, **given), loop, rng=random.Random(seed))


@contextlib.contextmanager
def running_loop(**options: Any) -> Iterator[LinkLoop]:
    loop = LinkLoop(**options)
    loop.start_thread()
    try:
        yield loop
    finally:
        loop.stop()
    assert loop.counters.errors == 0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def mosquitto_program() -> str:
    """Where mosquitto is; without it the test fails in CI, and is skipped elsewhere."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        sentence = "mosquitto is not installed: apt-get install mosquitto"
        if os.environ.get("CI") == "true":
            pytest.fail(sentence)
        pytest.skip(sentence)
    return program


class Mosquitto:
    """A real mosquitto of one's own. ``kill`` and ``start`` as often as wanted; its state is kept between them."""

    host = "127.0.0.1"

    def __init__(self, folder: Path, settings: str = "", listener: str = "") -> None:
        self._program = mosquitto_program()
        self._folder = folder
        self._settings = settings
        self._listener = listener
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        config = self._folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} {self.host}\n{self._listener}\n"
            "allow_anonymous true\n"
            "persistence true\n"
            f"persistence_location {self._folder}/\n"
            "autosave_interval 1\nautosave_on_changes true\n"
            "set_tcp_nodelay true\n"
            "max_queued_messages 100000\n"
            "user root\n"  # started by root it would lose the right to write here; else this is ignored
            f"{self._settings}\n",
            "utf-8",
        )
        log = (self._folder / "mosquitto.log").open("ab")
        with log:
            self._process = subprocess.Popen([self._program, "-c", str(config)], stdout=log, stderr=log)
        wait_until(self._accepts, 10.0, f"mosquitto on port {self.port}")

    def _accepts(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError((self._folder / "mosquitto.log").read_text("utf-8", "replace")[-2000:])
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1.0):
            return True
        return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def running_mosquitto(folder: Path, settings: str = "", listener: str = "") -> Iterator[Mosquitto]:
    broker = Mosquitto(folder, settings, listener)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


def pass_time(seconds: float) -> None:
    """For what a real broker counts in whole seconds (message expiry), and nothing else."""
    threading.Event().wait(seconds)
