"""The station's connection: one transport on a loop with a thread of its own. Tests bring another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fleetui.common.domain.clock import Clock
from fleetui.common.link.transport import LinkConfig, Transport


class Link(Protocol):
    """A transport, and what turns it."""

    @property
    def transport(self) -> Transport: ...

    def start(self) -> None: ...

    def close(self) -> None:
        """Write what is left (acknowledgements above all), say goodbye, end the thread."""


MakeLink = Callable[[LinkConfig, Clock], Link]


class MqttLink:
    """MQTT over the network."""

    def __init__(self, config: LinkConfig, clock: Clock) -> None:
        from fleetui.common.link.loop import LinkLoop
        from fleetui.common.link.mqtt import MqttTransport

        self._loop = LinkLoop(clock, name="station-link")
        self._transport = MqttTransport(config, self._loop)

    @property
    def transport(self) -> Transport:
        return self._transport

    def start(self) -> None:
        self._transport.start()
        self._loop.start_thread()

    def close(self) -> None:
        self._loop.stop()
