"""CONNECT: who is it, may it, and with which session does it go on."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetui.broker import access, wire
from fleetui.broker.access import Identity
from fleetui.broker.handshake import Connack, Connect
from fleetui.broker.packets import V3, V5
from fleetui.broker.session import Session
from fleetui.broker.topics import check_topic
from fleetui.broker.wire import PacketError, Properties, Property, Reason

if TYPE_CHECKING:
    from fleetui.broker.connection import Connection
    from fleetui.broker.core import Core

log = logging.getLogger("fleetui.broker")


@dataclass(slots=True)
class PendingWill:
    """What to publish when a client goes without saying so."""

    coded: bytes
    payload: bytes
    qos: int
    retain: bool
    forward: bytes
    expiry: int | None
    delay: int


def admit(core: Core, connection: Connection, packet: Connect) -> None:
    """Answer CONNECT: who is it, and with which session."""
    try:
        identity = _identify(core, connection, packet)
        will = _will(core, identity, packet)
        session, present = _session(core, identity, packet)
    except PacketError as error:
        core.counters.refused += 1
        if core.may_log():
            log.info("Refused %s: %s", packet.client_id[:80] or "a client", error)
        connection.send(Connack(error.reason).encode(packet.version))
        connection.close(linger=True)
        return
    v5 = packet.version == V5
    properties = packet.properties
    limits = core.limits
    connection.identity = identity
    connection.v5 = v5
    connection.write = identity.rights.write
    connection.will = will
    connection.session = session
    connection.token_at = core.now
    unlimited = identity.rights.unlimited or not limits.publishes_per_s
    connection.tokens = float("inf") if unlimited else limits.publish_burst
    keepalive = packet.keepalive
    if limits.max_keepalive_s and v5 and (not keepalive or keepalive > limits.max_keepalive_s):
        keepalive = limits.max_keepalive_s
    connection.patience = keepalive * 1.5 + 1.0 if keepalive else float("inf")
    session.connection = connection
    session.v5 = v5
    session.window = (
        min(properties.get(Property.RECEIVE_MAXIMUM, 65_535), limits.window) if v5 else limits.window_v3
    )
    session.max_packet = min(properties.get(Property.MAXIMUM_PACKET_SIZE, 0xFFFF_FFFF), 0xFFFF_FFFF)
    kept_v3 = 0 if packet.clean else limits.session_expiry_s
    expiry = properties.get(Property.SESSION_EXPIRY, 0) if v5 else kept_v3
    core.set_expiry(session, expiry)
    answer: Properties = {}
    if v5:
        answer = {
            Property.RECEIVE_MAXIMUM: limits.receive_maximum,
            Property.MAXIMUM_PACKET_SIZE: limits.max_packet,
            Property.TOPIC_ALIAS_MAXIMUM: limits.topic_aliases,
        }
        if not packet.client_id:
            answer[Property.ASSIGNED_CLIENT_ID] = session.client_id
        if keepalive != packet.keepalive:
            answer[Property.SERVER_KEEP_ALIVE] = keepalive
        if session.expiry != expiry:
            answer[Property.SESSION_EXPIRY] = session.expiry
    connection.send(Connack(Reason.SUCCESS, present, answer).encode(packet.version))
    session.resume()


def _identify(core: Core, connection: Connection, packet: Connect) -> Identity:
    if Property.AUTHENTICATION_METHOD in packet.properties:
        raise PacketError(Reason.BAD_AUTHENTICATION_METHOD, "no extended authentication here")
    listener = connection.listener
    identity = access.POLICIES[listener.policy](core.directory, packet, listener.certificate(connection))
    if identity.serial and identity.serial in listener.revoked:
        raise PacketError(Reason.BANNED, f"{identity.client_id}'s certificate is revoked")
    if not identity.client_id:
        if packet.version == V3 and not packet.clean:
            raise PacketError(Reason.BAD_CLIENT_ID, "no client id and a session to keep")
        identity = Identity(f"auto-{secrets.token_hex(8)}", "", identity.rights)
    elif len(identity.client_id) > 128:
        raise PacketError(Reason.BAD_CLIENT_ID, "a client id of more than 128 characters")
    return identity


def _will(core: Core, identity: Identity, packet: Connect) -> PendingWill | None:
    will = packet.will
    if will is None:
        return None
    raw = will.topic.encode()
    check_topic(raw, core.limits.topic_length, core.limits.topic_levels)
    if raw.startswith(b"$") or not identity.rights.may_publish(raw):
        core.counters.denied_publish += 1
        raise PacketError(Reason.NOT_AUTHORISED, f"a will for {will.topic[:100]}")
    forwarded = {kind: value for kind, value in will.properties.items() if kind in wire.FORWARDED}
    _, start = wire.decode_varint(encoded := wire.encode_properties(forwarded), 0, len(encoded))
    return PendingWill(
        wire.encode_binary(raw),
        will.payload,
        will.qos,
        will.retain,
        encoded[start:],
        will.properties.get(Property.MESSAGE_EXPIRY),
        will.properties.get(Property.WILL_DELAY, 0),
    )


def _session(core: Core, identity: Identity, packet: Connect) -> tuple[Session, bool]:
    """The session to go on with, and whether it was there before."""
    old = core.sessions.get(identity.client_id)
    if old is not None:
        if old.proven != identity.proven:
            raise PacketError(Reason.NOT_AUTHORISED, f"client id {identity.client_id} is somebody else's")
        if old.connection is not None:
            core.counters.taken_over += 1
            old.connection.cut(Reason.TAKEN_OVER)
            old = core.sessions.get(identity.client_id)
    if old is not None and (packet.clean or not _still_allowed(old, identity)):
        core.end(old)
        old = None
    if old is not None:
        if old.late_will is not None:
            old.late_will[1].cancel()
            old.late_will = None
        old.station = identity.station
        return old, True
    if len(core.sessions) >= core.limits.sessions:
        raise PacketError(Reason.QUOTA, "too many sessions")
    session = Session(core, identity.client_id, identity.proven, station=identity.station)
    core.sessions[identity.client_id] = session
    return session, False


def _still_allowed(session: Session, identity: Identity) -> bool:
    """Rights may have changed while the session lay on disk."""
    return all(identity.rights.may_subscribe(s.group, s.bare) for s in session.subscriptions.values())
