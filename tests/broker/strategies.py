"""Hypothesis strategies for packets and their parts."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from fleetui.broker import handshake, packets, wire
from fleetui.broker.packets import V3, V5
from fleetui.broker.wire import Property

versions = st.sampled_from([V3, V5])
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
binaries = st.binary(max_size=40)
packet_ids = st.integers(1, 0xFFFF)
levels = st.text(st.sampled_from("abc$é "), max_size=3)
topics = st.lists(levels, min_size=1, max_size=5).map("/".join).filter(lambda t: t and not t.startswith("$share/"))
filter_levels = st.one_of(levels, st.just("+"))


@st.composite
def filters(draw: Any) -> str:
    parts = draw(st.lists(filter_levels, min_size=1, max_size=5))
    if draw(st.booleans()):
        parts.append("#")
    text = "/".join(parts)
    return text if text and not text.startswith("$share/") else "a"


def _value(kind: int) -> st.SearchStrategy[Any]:
    form = wire.KINDS[kind]
    low = 1 if kind in {Property.SUBSCRIPTION_ID, Property.RECEIVE_MAXIMUM, Property.MAXIMUM_PACKET_SIZE} else 0
    if form == "b":
        return st.integers(0, 1)
    if form == "h":
        return st.integers(1 if kind == Property.TOPIC_ALIAS else low, 0xFFFF)
    if form == "i":
        return st.integers(low, 0xFFFF_FFFF)
    if form == "v":
        return st.integers(1, wire.MAX_VARINT)
    if form == "t":
        return topics.filter(lambda t: "+" not in t) if kind == Property.RESPONSE_TOPIC else texts
    if form == "n":
        return binaries
    return st.tuples(texts, texts)


def properties_for(allowed: frozenset[int]) -> st.SearchStrategy[dict[int, Any]]:
    """Any valid set of properties out of ``allowed``."""
    repeated = {Property.USER_PROPERTY, Property.SUBSCRIPTION_ID}
    one_each = {
        kind: st.lists(_value(kind), min_size=1, max_size=3) if kind in repeated else _value(kind)
        for kind in sorted(allowed)
    }
    return st.fixed_dictionaries({}, optional=one_each)


@st.composite
def connects(draw: Any) -> handshake.Connect:
    version = draw(versions)
    five = version == V5
    will = None
    if draw(st.booleans()):
        will = handshake.Will(
            draw(topics),
            draw(binaries),
            draw(st.integers(0, 2)),
            draw(st.booleans()),
            draw(properties_for(wire.IN_WILL)) if five else {},
        )
    username = draw(st.none() | texts)
    password = draw(st.none() | binaries) if five or username is not None else None
    return handshake.Connect(
        draw(texts),
        version,
        draw(st.booleans()),
        draw(st.integers(0, 0xFFFF)),
        username,
        password,
        will,
        draw(properties_for(wire.IN_CONNECT)) if five else {},
    )


@st.composite
def publishes(draw: Any, version: int) -> packets.Publish:
    qos = draw(st.integers(0, 2))
    allowed = wire.IN_PUBLISH - {Property.SUBSCRIPTION_ID}
    return packets.Publish(
        draw(topics),
        draw(binaries),
        qos,
        draw(st.booleans()),
        draw(st.booleans()) if qos else False,
        draw(packet_ids) if qos else 0,
        draw(properties_for(allowed)) if version == V5 else {},
    )


@st.composite
def subscribes(draw: Any, version: int) -> packets.Subscribe:
    five = version == V5
    requests = draw(
        st.lists(
            st.builds(
                packets.Request,
                filters(),
                st.integers(0, 2),
                st.booleans() if five else st.just(False),
                st.booleans() if five else st.just(False),
                st.integers(0, 2) if five else st.just(0),
            ),
            min_size=1,
            max_size=4,
        )
    )
    properties = draw(properties_for(wire.IN_SUBSCRIBE)) if five else {}
    if Property.SUBSCRIPTION_ID in properties:
        properties[Property.SUBSCRIPTION_ID] = properties[Property.SUBSCRIPTION_ID][:1]
    return packets.Subscribe(draw(packet_ids), requests, properties)


@st.composite
def any_packet(draw: Any) -> tuple[bytes, int]:
    """A valid packet, encoded, and its version."""
    version = draw(versions)
    five = version == V5
    which = draw(st.integers(0, 5))
    if which == 0:
        connect = draw(connects())
        return connect.encode(), connect.version
    if which == 1:
        return draw(publishes(version)).encode(version), version
    if which == 2:
        return draw(subscribes(version)).encode(version), version
    if which == 3:
        unsubscribe = packets.Unsubscribe(
            draw(packet_ids),
            draw(st.lists(filters(), min_size=1, max_size=3)),
            draw(properties_for(wire.IN_UNSUBSCRIBE)) if five else {},
        )
        return unsubscribe.encode(version), version
    if which == 4:
        kind = draw(st.sampled_from([4, 5, 6, 7]))
        return packets.encode_ack(kind, draw(packet_ids), draw(st.integers(0, 255)), v5=five), version
    disconnect = handshake.Disconnect()
    if five:
        disconnect = handshake.Disconnect(draw(st.integers(0, 255)), draw(properties_for(wire.IN_DISCONNECT)))
    return disconnect.encode(version), version
