"""What a transport is: the one interface behind which MQTT (``mqtt.py``) and memory (``loopback.py``) hide.

Callbacks run on the transport's own thread, one at a time, and must be quick: hand the message to a queue.
They never run while a call into the transport is on the stack of the same thread.

``publish``, ``subscribe``, ``unsubscribe`` and ``ack`` may be called from any thread, connected or not; QoS 1
publications wait (bounded) until the broker has acknowledged them, across reconnects. Subscriptions are
remembered and renewed after a reconnect without a session.

With ``manual_ack`` a QoS 1 message stays unacknowledged until ``ack(message)``: the broker then keeps at most
``receive_maximum`` on their way (flow control), and sends again what was not acknowledged after a reconnect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fleetui.common.domain.states import LinkState as LinkState  # noqa: PLC0414 - part of what a transport says


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """The state, with why and when: what a status bar shows."""

    state: LinkState
    reason: str = ""
    attempt: int = 0
    retry_in_s: float = 0.0
    session_present: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One received message. ``token`` belongs to the transport."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    duplicate: bool = False
    expiry_s: int | None = None
    response_topic: str | None = None
    correlation: bytes | None = None
    token: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Will:
    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    delay_s: int = 0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files. ``certificate`` and ``key`` are the client's own, where it has one."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """Where and as whom to connect."""

    client_id: str
    host: str = "127.0.0.1"
    port: int = 1883
    username: str | None = None
    password: str | None = None
    tls: TlsFiles | None = None
    keepalive_s: int = 60
    session_expiry_s: int = 0  # 0: the session ends with the connection
    receive_maximum: int = 64
    manual_ack: bool = False
    will: Will | None = None
    queue_limit: int = 1000  # QoS 1 publications kept while they cannot be sent
    backoff_min_s: float = 0.5
    backoff_max_s: float = 60.0
    max_packet: int = 1 << 20


@dataclass(slots=True)
class LinkCounters:
    """Of one transport, since it was made."""

    sent: int = 0
    delivered: int = 0  # acknowledged by the broker
    received: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    dropped: int = 0  # refused by publish() because the queue was full
    reconnects: int = 0


class Transport(Protocol):
    """A connection to a broker that keeps itself alive."""

    on_message: Callable[[Message], None]
    on_status: Callable[[LinkStatus], None]
    counters: LinkCounters

    @property
    def status(self) -> LinkStatus: ...

    def start(self) -> None:
        """Begin to connect; returns at once. What happens is told through ``on_status``."""

    def stop(self, *, say_goodbye: bool = True) -> None:
        """Disconnect and forget the queue; returns at once, ``on_status`` tells when it is done.

        With a goodbye, what the broker has room for of what was published before is written first. Without one
        the broker publishes the will.
        """

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        expiry_s: int | None = None,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        on_done: Callable[[bool], None] | None = None,
    ) -> bool:
        """Queue a publication. False (and counted as dropped) if the queue is full, or QoS 0 while offline.

        ``on_done(True)`` is called when the broker has taken it (QoS 0: when it is written), ``on_done(False)``
        when the broker refused it, the transport was stopped first, or the broker says that no session is
        subscribed and the message is not retained: then nobody will ever get it, and the sender had better keep
        it.
        """
        ...

    def subscribe(self, pattern: str, *, qos: int = 1) -> None: ...

    def unsubscribe(self, pattern: str) -> None: ...

    def ack(self, message: Message) -> None: ...
