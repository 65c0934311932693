"""Support for tests that need connections: collectors, transports in one line."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from fleetui.common.link.loop import LinkLoop
from fleetui.common.link.mqtt import MqttTransport
from fleetui.common.link.transport import LinkConfig, LinkState, LinkStatus, Message, Transport
from tests.helpers.wait import wait_until


class Address(Protocol):
    """Where a broker listens; those of ``tests/helpers/broker.py`` do."""

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


def pass_time(seconds: float) -> None:
    """For what a real broker counts in whole seconds (message expiry), and nothing else."""
    threading.Event().wait(seconds)
