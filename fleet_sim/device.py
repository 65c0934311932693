"""One simulated device: the real agent core, and the little that a shell has to do for it.

Everything runs on the thread of the driver that carries the transports. Its disk is the core's queue itself, kept
over restarts.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fleet_sim.agent.core import AgentCore
from fleet_sim.agent.events import (
    Acknowledged,
    AgentEvent,
    Connected,
    Disconnect,
    Disconnected,
    Log,
    Publish,
    Received,
    Refused,
    Subscribe,
)
from fleetui.common.link import codec
from fleetui.common.link.transport import LinkState, LinkStatus, Message, Transport

log = logging.getLogger("fleetui.sim")


@dataclass(slots=True)
class Totals:
    """Of all devices together, since the start."""

    connected: int = 0  # now
    sent: int = 0
    acked: int = 0
    refused: int = 0
    rows: int = 0
    errors: int = 0
    boots: int = 0
    trouble: str = ""  # why the latest connection that failed did so


class Owner(Protocol):
    """The fleet, as its devices see it."""

    totals: Totals

    def device_now(self, position: int) -> float: ...

    def changed(self, device: Device) -> None:
        """Its next deadline may be another one."""

    def finished(self, device: Device) -> None:
        """It has said all it had to say."""


class Device:
    """Position ``position`` of the fleet. A boot brings a core and a transport of its own."""

    __slots__ = ("_owner", "_up", "boots", "core", "position", "transport")

    def __init__(self, owner: Owner, position: int) -> None:
        self._owner = owner
        self.position = position
        self.boots = 0
        self.core: AgentCore | None = None
        self.transport: Transport | None = None
        self._up = False  # the transport says so

    @property
    def on(self) -> bool:
        return self.core is not None

    def boot(self, core: AgentCore, transport: Transport, event: AgentEvent, *, link: bool) -> None:
        self.core = core
        self.transport = transport
        self.boots += 1
        self._owner.totals.boots += 1
        transport.on_status = functools.partial(self._on_status, core)
        transport.on_message = functools.partial(self._on_message, core)
        self.step(event)
        if link:
            transport.start()

    def crash(self) -> AgentCore | None:
        """The power is gone: no goodbye. The core is given back for its queue."""
        core, transport = self.core, self.transport
        self.core = self.transport = None
        if transport is not None:
            transport.stop(say_goodbye=False)
        self._down()
        return core

    def leave(self) -> None:
        """Say goodbye to the broker: for good."""
        if self.transport is not None:
            self.transport.stop(say_goodbye=True)
        self.core = self.transport = None
        self._down()
        self._owner.finished(self)

    def link(self, *, up: bool) -> None:
        """The network comes or goes; the agent notices as it would."""
        if self.transport is None:
            return
        if up:
            self.transport.start()
        else:
            self.transport.stop(say_goodbye=False)

    def step(self, event: AgentEvent, at: float | None = None) -> None:
        """Tell the core, at the device's own time (now, unless given), and do what it wants."""
        core, transport = self.core, self.transport
        if core is None or transport is None:
            return
        owner = self._owner
        now = owner.device_now(self.position) if at is None else at
        refused: list[int] = []
        for effect in core.step(event, now):
            if isinstance(effect, Publish):
                on_done: Callable[[bool], None] | None = None
                if effect.token is not None:
                    on_done = functools.partial(self._on_done, core, effect.token)
                payload = codec.encode(effect.message)
                if transport.publish(effect.topic, payload, qos=effect.qos, on_done=on_done):
                    owner.totals.sent += 1
                elif effect.token is not None:
                    refused.append(effect.token)
            elif isinstance(effect, Subscribe):
                transport.subscribe(effect.pattern)
            elif isinstance(effect, Log):
                log.log(effect.level, "%s: %s", core.config.device, effect.text)
            elif isinstance(effect, Disconnect):
                self.leave()
        for token in refused:
            self.step(Refused(token), now)
        owner.changed(self)

    # ------------------------------------------------------------ from the transport

    def _on_status(self, core: AgentCore, status: LinkStatus) -> None:
        if core is not self.core:
            return  # of an earlier boot
        up = status.state is LinkState.ONLINE
        if status.reason and not up:
            self._owner.totals.trouble = status.reason
        if up and not self._up:
            self._up = True
            self._owner.totals.connected += 1
            self.step(Connected())
        elif not up and self._up:
            self._down()
            self.step(Disconnected())

    def _down(self) -> None:
        if self._up:
            self._up = False
            self._owner.totals.connected -= 1

    def _on_message(self, core: AgentCore, message: Message) -> None:
        if core is self.core:
            self.step(Received(message.topic, message.payload))

    def _on_done(self, core: AgentCore, token: int, ok: bool) -> None:  # noqa: FBT001 - the transport's signature
        if core is not self.core:
            return
        if ok:
            self._owner.totals.acked += 1
            self.step(Acknowledged(token))
        else:
            self._owner.totals.refused += 1
            self.step(Refused(token))
