"""The MQTT 5 transport: paho-mqtt as the protocol, :class:`~fleetui.common.link.loop.LinkLoop` as the engine.

paho is used in its external-loop mode only and on the loop's thread only; its own threads, its blocking connect,
its queue and its reconnects are not used. What paho does: packets to bytes and back, keepalive, packet ids,
sending again what was not acknowledged. What stands here: the connection (without blocking), what a refusal
means, flow control in both directions, and the way of messages to :class:`~fleetui.common.link.client.LinkClient`.
"""

from __future__ import annotations

import errno
import functools
import logging
import random
import socket
import ssl
from collections.abc import Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fleetui.common.domain.clock import Clock
from fleetui.common.link.client import LinkClient, Publication
from fleetui.common.link.loop import READ, WRITE, LinkLoop, Timer
from fleetui.common.link.resolve import Address
from fleetui.common.link.sockets import Dialer, LinkSocket
from fleetui.common.link.transport import LinkConfig, LinkState, Message, TlsFiles

log = logging.getLogger("fleetui.link")

CONNECT_TIMEOUT_S = 10.0
PACKETS_A_TURN = 100  # then the others have their turn

# Answers that another try will hardly mend: the configuration is wrong, or somebody else uses our name.
_REFUSALS = {
    0x84: "it does not speak MQTT 5",
    0x85: "it does not accept this client id",
    0x86: "wrong user name or password",
    0x87: "this client is not authorised",
    0x8A: "this client is banned",
    0x8C: "it wants another way of authentication",
    0x8E: "another client connected under the same name",
    0x90: "it does not accept the topic of the will",
    0x9A: "it does not keep retained messages",
    0x9B: "it does not support QoS 1",
    0x9D: "it is to be reached elsewhere",
}
_GONE = {
    0x89: "it is busy",
    0x8B: "it is shutting down",
    0x8D: "it heard nothing for too long",
    0x93: "too many messages on the way at once",
    0x95: "a message was too large",
    0x96: "too many messages",
    0x97: "a quota is used up",
    0x98: "an administrator ended it",
}


NO_MATCHING_SUBSCRIBERS = 0x10  # a broker need not say it; ours and mosquitto do


class _Paho(paho.Client):
    """paho with a socket that is connected already."""

    prepared: LinkSocket | None = None

    def _create_socket(self) -> Any:
        sock, self.prepared = self.prepared, None
        if sock is None:
            raise ConnectionError(errno.ENOTCONN, "no socket was prepared")
        return sock

    @property
    def incoming(self) -> int:
        """How long the packet says it is that is being read."""
        return int(self._in_packet["remaining_length"])


class MqttTransport(LinkClient):
    """One connection to a broker. See ``transport.py`` for what is promised."""

    __slots__ = (
        "_answers",
        "_client",
        "_deadline",
        "_dialer",
        "_events",
        "_in_gate",
        "_largest",
        "_loop",
        "_reason",
        "_sock",
    )

    def __init__(
        self,
        config: LinkConfig,
        loop: LinkLoop,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """``clock`` is the loop's; ``rng``, for the jitter of reconnects, too, unless another is given."""
        super().__init__(config, loop, rng or loop.rng)
        if clock is not None and clock is not loop.clock:
            raise ValueError("a transport counts time as its loop does")
        self._loop = loop
        self._client: _Paho | None = None
        self._sock: LinkSocket | None = None
        self._dialer: Dialer | None = None
        self._deadline: Timer | None = None
        self._events = 0
        self._in_gate = False
        self._largest = 0  # the largest packet that the broker takes, 0: any
        self._reason: int | None = None  # why the broker refused or ended the connection
        self._answers: dict[int, list[str]] = {}  # SUBSCRIBE and UNSUBSCRIBE on their way

    # ------------------------------------------------------------ connecting

    def _start(self) -> None:
        if not self._running:
            self._loop.add(self)
        super()._start()

    def halt(self, goodbye: bool) -> None:  # noqa: FBT001 - posted with positional arguments
        super().halt(goodbye)
        if not self._running:
            self._loop.remove(self)

    def _dial(self) -> None:
        self._reason = None
        self._loop.gate.enter(self._admitted, tls=self.config.tls is not None)

    def _admitted(self) -> bool:
        if not self._running or self._status.state is not LinkState.CONNECTING or self._in_gate:
            return False  # stopped meanwhile
        self._in_gate = True
        self._deadline = self._loop.call_later(CONNECT_TIMEOUT_S, self._timed_out)
        self._loop.resolver.resolve(self.config.host, self.config.port, self._resolved)
        return True

    def _resolved(self, answer: list[Address] | str) -> None:
        if not self._in_gate or self._dialer is not None or self._sock is not None:
            return
        if isinstance(answer, str):
            self._fail(answer)
            return
        context: ssl.SSLContext | None = None
        if self.config.tls is not None:
            try:
                context = _context(self.config.tls)
            except (OSError, ValueError) as error:
                self._fail(f"The TLS files cannot be used: {error}", refused=True)
                return
        self._dialer = Dialer(self._loop, answer, context, self.config.host, self._opened, self._unreachable)
        self._dialer.begin()

    def _unreachable(self, error: OSError) -> None:
        self._dialer = None
        where = self._where
        if isinstance(error, ssl.SSLCertVerificationError):
            self._fail(f"The certificate of {where} is not trusted: {error.verify_message}", refused=True)
        elif isinstance(error, ssl.SSLError):
            self._fail(f"No TLS with {where}: {_tls_words(error)}", refused=True)
        else:
            self._fail(f"No connection to {where}: {(error.strerror or str(error)).lower()}")

    def _timed_out(self) -> None:
        self._deadline = None
        self._fail(f"No answer from {self._where} within {CONNECT_TIMEOUT_S:g} s")

    def _opened(self, sock: socket.socket) -> None:
        self._dialer = None
        config = self.config
        if self._client is None:
            self._client = _make_client(self)
        client = self._client
        self._sock = LinkSocket(sock, self._loop, self.counters)
        self._events = READ
        self._loop.register(sock.fileno(), self, READ)
        client.prepared = self._sock
        # Without a session to come back to, one that an earlier run left behind is not wanted either.
        client.connect_async(
            config.host,
            config.port,
            config.keepalive_s,
            clean_start=config.session_expiry_s == 0,
            properties=_connect_properties(config.session_expiry_s, config.receive_maximum, config.max_packet),
        )
        client.reconnect()
        self._push()

    def _fail(self, reason: str, *, refused: bool = False) -> None:
        self._close()
        self._went_down(reason, refused=refused)

    def _close(self) -> None:
        """Whatever there is of a connection ends here."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._dialer is not None:
            self._dialer.cancel()
            self._dialer = None
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.drop()
            sock.close()
        self._answers.clear()
        if self._in_gate:
            self._in_gate = False
            self._loop.gate.leave()

    def _hang_up(self, *, goodbye: bool) -> None:
        client, sock = self._client, self._sock
        if client is not None and sock is not None and goodbye and self._status.state is LinkState.ONLINE:
            client.disconnect()
            client.loop_write()  # writes everything, closes the socket
        self._close()
        self._client = None  # with it goes what was not acknowledged

    @property
    def _where(self) -> str:
        return f"{self.config.host}:{self.config.port}"

    # ------------------------------------------------------------ called by the loop

    def on_ready(self, events: int) -> None:
        client, sock = self._client, self._sock
        if client is None or sock is None:
            return
        if events & WRITE:
            self._push()
            if self._queue and self._clear():
                self._loop.mark(self)
        if events & READ and self._sock is sock:
            sock.readable()
            try:
                self._read(client, sock)
            except Exception:  # paho tripped over it
                log.warning("%s: not understood", self.config.client_id, exc_info=True)
                self._fail(f"The broker at {self._where} sent something that is not MQTT 5")
        self._look()

    def _read(self, client: _Paho, sock: LinkSocket) -> None:
        for _ in range(PACKETS_A_TURN):
            client.loop_read()
            if client.socket() is None or self._sock is not sock:
                return
            if not sock.pending():
                break
        else:
            self._loop.again(self)
        if client.incoming > self.config.max_packet:
            self._fail(f"The broker at {self._where} sent a packet larger than {self.config.max_packet} bytes")

    def keepalive(self) -> None:
        if self._client is not None and self._sock is not None:
            self._client.loop_misc()
            self._look()

    def _look(self) -> None:
        """After paho has had its way: is the connection still there, is there something to write?"""
        client, sock = self._client, self._sock
        if client is None or sock is None:
            return
        if client.socket() is None:
            self._lost(sock)
        elif client.want_write():
            self._push()

    def _lost(self, sock: LinkSocket) -> None:
        where = self._where
        reason, error = self._reason, sock.error
        self._reason = None
        before = self._status.state is not LinkState.ONLINE
        if reason is not None and reason in _REFUSALS:
            self._fail(f"The broker at {where} refuses: {_REFUSALS[reason]}", refused=True)
        elif reason is not None and (before or reason in _GONE):
            self._fail(f"The broker at {where} ended the connection: {_GONE.get(reason, f'reason {reason}')}")
        elif isinstance(error, ssl.SSLError):
            self._fail(f"TLS with {where} failed: {_tls_words(error)}", refused=before)
        elif error is None or error.errno == errno.ECONNRESET:
            self._fail(f"The broker at {where} closed the connection")
        else:
            self._fail(f"The connection to {where} broke: {(error.strerror or str(error)).lower()}")

    # ------------------------------------------------------------ the wire

    def _clear(self) -> bool:
        return self._sock is not None and self._sock.unwritten < 65_536

    def _transmit(self, item: Publication, expiry_s: int | None) -> int:
        client = self._client
        assert client is not None
        if self._largest and len(item.payload) + len(item.topic) * 3 + 64 > self._largest:
            return -1
        properties = None
        if expiry_s is not None or item.response_topic is not None or item.correlation is not None:
            properties = _publish_properties(expiry_s, item.response_topic, item.correlation)
        info = client.publish(item.topic, item.payload, item.qos, item.retain, properties)
        while info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:  # the next packet id belongs to one that is still out
            info = client.publish(item.topic, item.payload, item.qos, item.retain, properties)
        if item.qos:
            return info.mid
        client.loop_write()
        return 0

    def _transmit_ack(self, packet_id: int) -> None:
        assert self._client is not None
        self._client.ack(packet_id, 1)

    def _transmit_subscribe(self, patterns: Sequence[tuple[str, int]]) -> None:
        assert self._client is not None
        for start in range(0, len(patterns), 50):
            part = list(patterns[start : start + 50])
            _, mid = self._client.subscribe(part)
            if mid is not None:
                self._answers[mid] = [pattern for pattern, _ in part]

    def _transmit_unsubscribe(self, patterns: Sequence[str]) -> None:
        assert self._client is not None
        _, mid = self._client.unsubscribe(list(patterns))
        if mid is not None:
            self._answers[mid] = list(patterns)

    def _push(self) -> None:
        client, sock = self._client, self._sock
        if client is None or sock is None:
            return
        try:
            written = True
            while written and client.want_write():
                client.loop_write()
                if client.socket() is None:
                    break
                written = sock.flush()
            else:
                written = sock.flush()
        except OSError:
            self._lost(sock)
            return
        if client.socket() is None:
            self._lost(sock)
            return
        events = READ if written else READ | WRITE
        if events != self._events:
            self._events = events
            self._loop.modify(sock.fileno(), self, events)

    # ------------------------------------------------------------ called by paho

    def connected(self, flags: paho.ConnectFlags, reason: ReasonCode, properties: Properties | None) -> None:
        if reason.is_failure:
            self._reason = reason.value
            return  # paho closes the socket, then on_ready notices
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._in_gate:
            self._in_gate = False
            self._loop.gate.leave()
        self._largest = getattr(properties, "MaximumPacketSize", 0)
        self._came_up(session_present=flags.session_present, window=getattr(properties, "ReceiveMaximum", 65_535))

    def disconnected(self, from_broker: bool, reason: ReasonCode) -> None:  # noqa: FBT001 - paho's order
        if from_broker and self._reason is None:
            self._reason = reason.value

    def message_came(self, message: paho.MQTTMessage) -> None:
        properties = message.properties
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return  # not a topic; the broker should not have let it through
        manual = self.config.manual_ack and message.qos > 0
        self._received(
            Message(
                topic,
                bytes(message.payload),
                message.qos,
                message.retain,
                message.dup,
                getattr(properties, "MessageExpiryInterval", None),
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
                self._token(message.mid) if manual else None,
            )
        )

    def published(self, mid: int, reason: ReasonCode) -> None:
        self._acknowledged(mid, ok=not reason.is_failure, nobody=reason.value == NO_MATCHING_SUBSCRIBERS)

    def subscribed(self, mid: int, reasons: Sequence[ReasonCode]) -> None:
        patterns = self._answers.pop(mid, [])
        answers = [
            (p, r.getName().lower() if r.is_failure else "") for p, r in zip(patterns, reasons, strict=False)
        ]
        self._subscribed(answers)

    def unsubscribed(self, mid: int) -> None:
        self._unsubscribed(self._answers.pop(mid, []))


# paho's callbacks: functions shared by all clients, the transport is the user data.


def _on_connect(
    _client: Any, link: MqttTransport, flags: paho.ConnectFlags, reason: ReasonCode, properties: Properties | None
) -> None:
    link.connected(flags, reason, properties)


def _on_disconnect(
    _client: Any, link: MqttTransport, flags: paho.DisconnectFlags, reason: ReasonCode, _properties: Any
) -> None:
    link.disconnected(flags.is_disconnect_packet_from_server, reason)


def _on_message(_client: Any, link: MqttTransport, message: paho.MQTTMessage) -> None:
    link.message_came(message)


def _on_publish(_client: Any, link: MqttTransport, mid: int, reason: ReasonCode, _properties: Any) -> None:
    link.published(mid, reason)


def _on_subscribe(
    _client: Any, link: MqttTransport, mid: int, reasons: Sequence[ReasonCode], _properties: Any
) -> None:
    link.subscribed(mid, reasons)


def _on_unsubscribe(_client: Any, link: MqttTransport, mid: int, _reasons: Any, _properties: Any) -> None:
    link.unsubscribed(mid)


def _on_register_write(_client: Any, _link: MqttTransport, _sock: Any) -> None:
    """Its being set keeps paho from writing inside ``publish``; the transport looks itself."""


def _make_client(link: MqttTransport) -> _Paho:
    config = link.config
    client = _Paho(
        CallbackAPIVersion.VERSION2,
        client_id=config.client_id,
        userdata=link,
        protocol=paho.MQTTv5,
        reconnect_on_failure=False,
        manual_ack=config.manual_ack,
    )
    client.max_inflight_messages = 0  # LinkClient keeps the window
    if config.username is not None or config.password is not None:
        client.username_pw_set(config.username, config.password)
    will = config.will
    if will is not None:
        properties = None
        if will.delay_s:
            properties = _properties(PacketTypes.WILLMESSAGE)
            properties.WillDelayInterval = will.delay_s
        client.will_set(will.topic, will.payload, will.qos, will.retain, properties)
    client.on_connect = _on_connect
    client.on_disconnect = _on_disconnect
    client.on_message = _on_message
    client.on_publish = _on_publish
    client.on_subscribe = _on_subscribe
    client.on_unsubscribe = _on_unsubscribe
    client.on_socket_register_write = _on_register_write
    return client


@functools.lru_cache(maxsize=64)
def _connect_properties(session_expiry_s: int, receive_maximum: int, max_packet: int) -> Properties:
    """Shared by all clients that ask for the same: each would take 4 KiB. paho only reads it."""
    properties = _properties(PacketTypes.CONNECT)
    if session_expiry_s:
        properties.SessionExpiryInterval = session_expiry_s
    properties.ReceiveMaximum = receive_maximum
    properties.MaximumPacketSize = max_packet
    return properties


def _publish_properties(expiry_s: int | None, response_topic: str | None, correlation: bytes | None) -> Properties:
    properties = _properties(PacketTypes.PUBLISH)
    if expiry_s is not None:
        properties.MessageExpiryInterval = expiry_s
    if response_topic is not None:
        properties.ResponseTopic = response_topic
    if correlation is not None:
        properties.CorrelationData = correlation
    return properties


def _properties(kind: int) -> Properties:
    return Properties(kind)  # type: ignore[no-untyped-call]  # paho has no types here


def _context(files: TlsFiles) -> ssl.SSLContext:
    """Made anew for each connect, so renewed files are taken up."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(files.ca)
    if files.certificate is not None:
        context.load_cert_chain(files.certificate, files.key)
    return context


def _tls_words(error: ssl.SSLError) -> str:
    """``TLSV13_ALERT_CERTIFICATE_REQUIRED`` in words."""
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    words = str(reason).lower().replace("_", " ")
    return words.partition(" alert ")[2] or words
