"""Commands of stations to the broker: publications to ``$CONTROL/<command>``.

======================  ============================================================================
``kick``                payload: a client id. Ends its connection (reason 0x98); its will is published
``clear-session``       payload: a client id. Ends connection and session
``reload-crl``          reads certificates and revocation list anew, ends what they no longer allow
``stats``               answers with what ``$SYS`` shows, as one JSON object
======================  ============================================================================

With a response topic each command answers there, in JSON: ``{"ok": true, …}`` or ``{"ok": false, "error": "…"}``,
with the correlation data it came with. A QoS 1 publication is acknowledged when the command is carried out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fleetui.broker import wire
from fleetui.broker.access import CONTROL
from fleetui.broker.message import Message
from fleetui.broker.wire import PacketError, Properties, Property, Reason

if TYPE_CHECKING:
    from fleetui.broker.connection import Connection
    from fleetui.broker.core import Core

log = logging.getLogger("fleetui.broker")

KICK = f"{CONTROL}kick"
CLEAR_SESSION = f"{CONTROL}clear-session"
RELOAD = f"{CONTROL}reload-crl"
STATS = f"{CONTROL}stats"


class Admin:
    """Carries commands out; made once per core."""

    def __init__(self, core: Core, reload: Callable[[], int], stats: Callable[[], dict[str, Any]]) -> None:
        self._core = core
        self._reload = reload
        self._stats = stats
        self._commands: dict[str, Callable[[str], dict[str, Any]]] = {
            KICK: self._kick,
            CLEAR_SESSION: self._clear_session,
            RELOAD: lambda _: {"ok": True, "ended": self._reload()},
            STATS: lambda _: {"ok": True, **self._stats()},
        }

    def __call__(self, connection: Connection, topic: str, payload: bytes, forward: bytes) -> int:
        """The reason code for the publisher."""
        command = self._commands.get(topic)
        if command is None:
            return Reason.BAD_TOPIC
        log.info("%s: %s %s", connection.name, topic, payload[:100].decode("utf-8", "replace"))
        answer = command(payload.decode("utf-8", "replace").strip())
        self._respond(connection, forward, answer)
        return Reason.SUCCESS if answer["ok"] else Reason.IMPLEMENTATION

    def _respond(self, connection: Connection, forward: bytes, answer: dict[str, Any]) -> None:
        properties, _ = _properties(forward)
        topic = properties.get(Property.RESPONSE_TOPIC)
        if topic is None:
            return
        assert connection.identity is not None
        raw = str(topic).encode()
        # An answer must not go where the asker may not write, nor come back as a command.
        if topic.startswith("$") or not connection.identity.rights.may_publish(raw):
            self._core.counters.denied_publish += 1
            return
        correlation = properties.get(Property.CORRELATION)
        block = b"" if correlation is None else wire.encode_value(Property.CORRELATION, correlation)
        try:
            route = self._core.index.route(wire.encode_binary(raw))
        except PacketError:
            return
        message = Message(route.coded, json.dumps(answer).encode(), 1, block)
        self._core.publish(route, message, 0, None)

    def _kick(self, client_id: str) -> dict[str, Any]:
        session = self._core.sessions.get(client_id)
        if session is None or session.connection is None:
            return {"ok": False, "error": f"{client_id[:100]} is not connected"}
        self._core.kick(session.connection)
        return {"ok": True}

    def _clear_session(self, client_id: str) -> dict[str, Any]:
        session = self._core.sessions.get(client_id)
        if session is None:
            return {"ok": False, "error": f"{client_id[:100]} has no session"}
        if session.connection is not None:
            self._core.kick(session.connection)
        session = self._core.sessions.get(client_id)
        if session is not None:
            self._core.end(session)
        return {"ok": True}


def _properties(forward: bytes) -> tuple[Properties, int]:
    block = wire.encode_varint(len(forward)) + forward
    return wire.decode_properties(block, 0, len(block), wire.IN_PUBLISH)
