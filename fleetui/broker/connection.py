"""One socket: bytes in, packets handled, bytes out.

All connections read into one buffer of the broker's, for what arrives is taken out of it before the next one
reads. What goes out is ``outlet``'s business.

Publishing too fast is answered by reading more slowly, never by dropping.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from fleetui.broker import handshake, packets
from fleetui.broker.admission import PendingWill, admit
from fleetui.broker.message import Message
from fleetui.broker.outlet import Outlet
from fleetui.broker.packets import V3, V5, Kind, decode_publish, encode_ack
from fleetui.broker.topics import check_topic
from fleetui.broker.wire import PacketError, Property, Reason, malformed

if TYPE_CHECKING:
    from fleetui.broker.core import Core
    from fleetui.broker.listeners import Listener

UNREAD_ANSWERS: Final = 1_000

log = logging.getLogger("fleetui.broker")


class Connection(Outlet, asyncio.BufferedProtocol):
    """The broker's end of a client's connection."""

    __slots__ = (
        "aliases",
        "blocked",
        "closed_at",
        "host",
        "last",
        "listener",
        "need",
        "patience",
        "rest",
        "token_at",
        "tokens",
        "will",
        "write",
    )

    def __init__(self, core: Core, listener: Listener, host: str) -> None:
        super().__init__(core)
        self.listener = listener
        self.host = host
        self.will: PendingWill | None = None
        self.write = b"\0"  # no topic begins with this
        self.last = core.now
        self.patience = core.limits.connect_timeout_s
        self.closed_at = 0.0
        self.rest: bytearray | None = None
        self.need = 0
        self.blocked = False
        self.tokens = 0.0
        self.token_at = 0.0
        self.aliases: dict[int, bytes] | None = None

    # ------------------------------------------------------------ asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        # "Paused" is to mean "something is left over", so that at most one frame is.
        transport.set_write_buffer_limits(high=1, low=0)
        self.core.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.listener.left(self)
        self.core.left(self)
        self.out.clear()
        self._let_go()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.core.inbox

    def buffer_updated(self, nbytes: int) -> None:
        core = self.core
        self.last = core.now
        core.counters.bytes_in += nbytes
        if self.closed_at:
            return
        if self.paused and len(self.out) > UNREAD_ANSWERS:
            self.block()  # it asks and does not read the answers
        rest = self.rest
        if rest is None:
            if self.blocked:
                self._keep(bytes(core.inbox[:nbytes]), 0, 0)
            else:
                self._take(bytes(core.inbox[:nbytes]))
            return
        rest += core.inbox[:nbytes]
        core.partial += nbytes
        if len(rest) >= self.need and not self.blocked:
            core.partial -= len(rest)
            self.rest = None
            self._take(bytes(rest))
        elif core.partial > core.limits.partial_bytes:
            core.counters.malformed += 1
            self.cut(Reason.QUOTA)

    def pause_writing(self) -> None:
        self.paused = True
        self.ready = False

    def resume_writing(self) -> None:
        self.paused = False
        if self.out and self.dirty:
            return  # bytes of this turn: they wait for the journal
        self.flush()
        if self.blocked and self.tokens >= 0.0:
            self.unblock()

    # ------------------------------------------------------------ in

    def _take(self, data: bytes) -> None:
        """Handle the whole packets in ``data``; whatever breaks ends this connection and no other."""
        try:
            self._parse(data)
        except PacketError as error:
            self._refuse(error)
        except Exception as error:  # noqa: BLE001 - a bug of ours may end this connection, not the broker
            self.core.broken(self, error)

    def _parse(self, data: bytes) -> None:
        at = 0
        end = len(data)
        limits = self.core.limits
        most = limits.max_packet if self.session is not None else limits.max_connect_packet
        while end - at > 1:
            first = data[at]
            length = data[at + 1]
            start = at + 2
            if length > 127:
                length &= 127
                shift = 7
                while True:
                    if start >= end:
                        self._keep(data, at, 0)
                        return
                    byte = data[start]
                    start += 1
                    length |= (byte & 127) << shift
                    if byte < 128:
                        break
                    shift += 7
                    if shift > 21:
                        raise malformed("a length of more than four bytes")
            stop = start + length
            if stop - at > most:
                raise PacketError(Reason.PACKET_TOO_LARGE, f"{length} bytes")
            if stop > end:
                self._keep(data, at, stop - at)
                return
            if first & 0xF0 == 0x30:
                self._publish(data, start, stop, first & 15)
            elif first == 0x40 and length == 2 and self.session is not None:
                self.session.acknowledged(data[start] << 8 | data[start + 1])
            else:
                self._packet(first, data, start, stop)
                most = limits.max_packet
            at = stop
            if self.blocked or self.closed_at:
                break
        if at < end and not self.closed_at:
            self._keep(data, at, 0)

    def _keep(self, data: bytes, at: int, need: int) -> None:
        """The beginning of a packet, or packets that have to wait: until more comes, or ``unblock``."""
        self.rest = bytearray(data[at:])
        self.need = need
        self.core.partial += len(self.rest)

    def _let_go(self) -> bytes:
        """What was kept."""
        rest, self.rest = self.rest, None
        if rest is None:
            return b""
        self.core.partial -= len(rest)
        return bytes(rest)

    def _packet(self, first: int, data: bytes, start: int, stop: int) -> None:
        """Anything but PUBLISH and the plain PUBACK."""
        kind = first >> 4
        session = self.session
        if session is None:
            if first != Kind.CONNECT << 4:
                raise PacketError(Reason.PROTOCOL_ERROR, "the first packet is not CONNECT")
            admit(self.core, self, handshake.decode_connect(data, start, stop))
            return
        if not kind or first & 15 != packets.FLAGS[kind]:
            raise malformed("reserved bits of a first byte")
        version = V5 if self.v5 else V3
        self.tokens -= 1.0
        if self.tokens < 0.0:
            self._throttle()
        if kind == Kind.PINGREQ:
            if start != stop:
                raise malformed("PINGREQ with a body")
            self.send(packets.PINGRESP)
        elif kind == Kind.PUBACK:
            session.acknowledged(packets.decode_ack(data, start, stop, version)[0])
        elif kind == Kind.PUBREC:
            session.received(*packets.decode_ack(data, start, stop, version))
        elif kind == Kind.PUBREL:
            packet_id, _ = packets.decode_ack(data, start, stop, version)
            known = self.core.release(session, packet_id)
            self.send(encode_ack(Kind.PUBCOMP, packet_id, 0 if known else Reason.PACKET_ID_NOT_FOUND, v5=self.v5))
        elif kind == Kind.PUBCOMP:
            session.completed(packets.decode_ack(data, start, stop, version)[0])
        elif kind == Kind.SUBSCRIBE:
            self.core.subscribe(self, packets.decode_subscribe(data, start, stop, version))
        elif kind == Kind.UNSUBSCRIBE:
            self.core.unsubscribe(self, packets.decode_unsubscribe(data, start, stop, version))
        elif kind == Kind.DISCONNECT:
            self._goodbye(handshake.decode_disconnect(data, start, stop, version))
        else:
            raise PacketError(Reason.PROTOCOL_ERROR, f"a client may not send packet {kind}")

    def _publish(self, data: bytes, start: int, stop: int, flags: int) -> None:
        session = self.session
        if session is None:
            raise PacketError(Reason.PROTOCOL_ERROR, "PUBLISH before CONNECT")
        core = self.core
        core.counters.messages_in += 1
        coded, packet_id, forward, expiry, alias, payload = decode_publish(data, start, stop, flags, self.v5)
        if alias:
            coded = self._alias(alias, coded)
        qos = flags >> 1 & 3
        if qos == 2 and session.unreleased is not None:
            if packet_id in session.unreleased:
                self.send(encode_ack(Kind.PUBREC, packet_id))
                return
            if len(session.unreleased) >= core.limits.receive_maximum:
                raise PacketError(Reason.RECEIVE_MAXIMUM, "too many QoS 2 publications under way")
        reason = 0
        if not coded.startswith(self.write, 2) or coded[2:3] == b"$":
            reason = self._special(coded, qos, forward, payload)
        else:
            route = core.index.routes.get(coded) or core.index.route(coded)
            message = Message(route.coded, payload, qos, forward)
            if expiry is not None:
                message.expires = core.unix + expiry
            reason = core.publish(route, message, flags & 1, session)
        if qos == 1:
            if reason and self.v5:
                self.send(b"\x40\x03" + packet_id.to_bytes(2, "big") + bytes((reason,)))
            else:
                self.send(b"\x40\x02" + packet_id.to_bytes(2, "big"))
        elif qos:
            if reason < 0x80 or not self.v5:
                core.hold_release(session, packet_id)
            self.send(encode_ack(Kind.PUBREC, packet_id, reason, v5=self.v5))
        self.tokens -= 1.0
        if self.tokens < 0.0:
            self._throttle()
        if core.stalled:
            core.block(self)

    def _special(self, coded: bytes, qos: int, forward: bytes, payload: bytes) -> int:
        """A topic outside the identity's own: control, or denied."""
        topic = check_topic(coded[2:])
        assert self.identity is not None
        if self.identity.rights.may_publish(coded[2:]):
            return self.core.control(self, topic, payload, forward)
        self.core.denied(self, "publish to", topic)
        self.core.counters.denied_publish += 1
        return Reason.NOT_AUTHORISED

    def _alias(self, alias: int, coded: bytes) -> bytes:
        if alias > self.core.limits.topic_aliases:
            raise PacketError(Reason.BAD_TOPIC_ALIAS, f"alias {alias}")
        if self.aliases is None:
            self.aliases = {}
        if len(coded) > 2:
            self.aliases[alias] = coded
            return coded
        known = self.aliases.get(alias)
        if known is None:
            raise PacketError(Reason.BAD_TOPIC_ALIAS, f"alias {alias} is not known")
        return known

    def _goodbye(self, packet: handshake.Disconnect) -> None:
        session = self.session
        assert session is not None
        expiry = packet.properties.get(Property.SESSION_EXPIRY)
        if expiry is not None:
            if not session.expiry and expiry:
                raise PacketError(Reason.PROTOCOL_ERROR, "a session that ends with its connection cannot be kept")
            self.core.set_expiry(session, expiry)
        if packet.reason != Reason.DISCONNECT_WITH_WILL:
            self.will = None
        self.close()

    # ------------------------------------------------------------ slowing down

    def _throttle(self) -> None:
        limits = self.core.limits
        now = self.core.loop.time()
        self.tokens = min(limits.publish_burst, self.tokens + (now - self.token_at) * limits.publishes_per_s)
        self.token_at = now
        if self.tokens < 0.0:
            self.core.counters.throttled += 1
            self.block()
            # Until a tenth of a second's worth is there again.
            self.core.loop.call_later(0.1 - self.tokens / limits.publishes_per_s, self.unblock)

    def block(self) -> None:
        """Read nothing until ``unblock``."""
        if not self.blocked and self.transport is not None and not self.closed_at:
            self.blocked = True
            self.transport.pause_reading()

    def unblock(self) -> None:
        if not self.blocked or self.closed_at or self.transport is None or self.transport.is_closing():
            return
        if self.core.stalled:
            self.core.block(self)  # the end of the stall unblocks everybody
            return
        self.blocked = False
        self.last = self.core.now
        rest = self._let_go()
        if rest:
            self._take(rest)
        if not self.blocked and not self.closed_at:
            self.transport.resume_reading()

    # ------------------------------------------------------------ ends

    def _refuse(self, error: PacketError) -> None:
        core = self.core
        if self.session is None:
            core.counters.refused += 1
            if error.reason == Reason.UNSUPPORTED_VERSION:
                self.send(handshake.Connack(error.reason).encode(V3))
        else:
            core.counters.malformed += 1
        log.debug("%s: %s", self.name, error)
        self.cut(error.reason)

    @property
    def name(self) -> str:
        """For logs: client id where it is known, else the address."""
        if self.identity is not None:
            return self.identity.client_id
        peer = self.transport.get_extra_info("peername") if self.transport is not None else None
        return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "a client"

    def cut(self, reason: Reason) -> None:
        """End the connection from our side; the will is published."""
        if self.closed_at:
            return
        if self.session is not None and self.v5:
            self.send(handshake.Disconnect(reason).encode(V5))
        self.close(linger=True)

    def close(self, *, linger: bool = False) -> None:
        """No more of this connection: last words out, session let go, transport closed.

        Lingering closes our half only and takes in what the client still sends: a socket that is closed with
        bytes unread is reset, and the reset overtakes the reason we gave. The sweep ends who does not go.
        """
        if self.closed_at:
            return
        self.closed_at = self.core.loop.time()
        self._let_go()
        transport = self.transport
        if transport is None:
            return
        if self.paused:
            self.core.disconnected(self)
            transport.abort()
            return
        if self.core.commit():
            self.flush()
        self.core.disconnected(self)
        self.finished = True
        if linger and transport.can_write_eof() and not transport.is_closing():
            if self.blocked:
                transport.resume_reading()
            try:
                transport.write_eof()
            except OSError:  # it is gone already
                transport.abort()
        else:
            transport.close()
