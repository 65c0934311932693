"""Mutated packets for a core: from a seed, as many as wanted.

A corpus of valid packets of every kind and both versions is bent (bits, bytes, lengths, cuts, repetitions,
splices) and fed, in pieces of any size, into connections that have logged in, half of them, and some that
have not. Whatever comes, the broker may refuse; it must not fail, nor keep anything of it once the clients are
gone.
"""

from __future__ import annotations

import random
from typing import Any

from fleetui.broker import handshake, packets, wire
from fleetui.broker.packets import V3, V5, Kind, Publish, Request, Subscribe, Unsubscribe
from fleetui.broker.wire import Property
from fleetui.common.trust.local import local_password
from tests.broker.world import SECRET, Client, World

IDS = ("dev1", "dev2", "dev3", "station")


def corpus(version: int) -> list[bytes]:
    """At least one of everything."""
    five = version == V5
    properties: dict[int, Any] = {}
    if five:
        properties = {
            Property.PAYLOAD_FORMAT: 1,
            Property.MESSAGE_EXPIRY: 60,
            Property.CONTENT_TYPE: "text",
            Property.RESPONSE_TOPIC: "fleet/test/up/dev1/reply",
            Property.CORRELATION: b"\1\2\3",
            Property.USER_PROPERTY: [("a", "b"), ("a", "c")],
            Property.TOPIC_ALIAS: 3,
        }
    found = [packets.PINGREQ, handshake.Disconnect().encode(version)]
    for client_id in IDS:
        up = f"fleet/test/up/{client_id}/win"
        for qos in (0, 1, 2):
            for extra in ({}, properties):
                packet = Publish(up, b"payload" * qos, qos, bool(qos & 1), False, 7 if qos else 0, dict(extra))
                found.append(packet.encode(version))
        found.append(
            Subscribe(
                9,
                [
                    Request(f"fleet/test/down/{client_id}/#", 2, five, five, 1 if five else 0),
                    Request("fleet/test/trust/+", 1),
                    Request("$share/g/fleet/test/up/+/+", 1),
                    Request("#", 0),
                ],
                {Property.SUBSCRIPTION_ID: [5]} if five else {},
            ).encode(version)
        )
        found.append(Unsubscribe(10, [f"fleet/test/down/{client_id}/#", "#"]).encode(version))
    found += [packets.encode_ack(kind, 7, 0x10, v5=five) for kind in (4, 5, 6, 7)]
    found += [packets.encode_ack(kind, 1) for kind in (4, 5, 6, 7)]
    found.append(Publish("$CONTROL/stats", b"", 1, packet_id=3).encode(version))
    if five:
        found.append(handshake.Disconnect(4, {Property.SESSION_EXPIRY: 30}).encode(V5))
        found.append(packets.frame(Kind.AUTH, b"\x18" + wire.encode_properties({21: "x"})))
    found += [login(client_id, version).encode() for client_id in IDS]
    return found


def login(client_id: str, version: int) -> handshake.Connect:
    will = handshake.Will(f"fleet/test/up/{client_id}/gone", b"gone", 1, False)
    properties: dict[int, Any] = {}
    if version == V5:
        will.properties = {Property.WILL_DELAY: 2, Property.USER_PROPERTY: [("k", "v")]}
        properties = {Property.SESSION_EXPIRY: 30, Property.RECEIVE_MAXIMUM: 3, Property.MAXIMUM_PACKET_SIZE: 500}
    return handshake.Connect(
        client_id,
        version=version,
        clean=False,
        keepalive=10,
        username=client_id,
        password=local_password(SECRET, client_id).encode(),
        will=will,
        properties=properties,
    )


class Fuzzer:
    """Feeds one world; the same seed does the same."""

    def __init__(self, seed: int, **limits: Any) -> None:
        self.random = random.Random(seed)
        limits.setdefault("publishes_per_s", 0.0)
        self.world = World(**limits)
        self.corpora = {version: corpus(version) for version in (V3, V5)}
        self.fed = 0
        self.ended = 0
        self._open: list[Client] = []

    def mutate(self, packet: bytes) -> bytes:
        """One to three bends."""
        data = bytearray(packet)
        dice = self.random
        for _ in range(dice.choice((1, 1, 1, 2, 3))):
            how = dice.randrange(9)
            at = dice.randrange(len(data)) if data else 0
            if not data:
                data += bytes((dice.randrange(256),))
            elif how == 0:
                data[at] ^= 1 << dice.randrange(8)
            elif how == 1:
                data[at] = dice.randrange(256)
            elif how == 2:
                data[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF))
            elif how == 3:
                del data[at:]
            elif how == 4:
                del data[at : at + dice.randrange(1, 5)]
            elif how == 5:
                data[at:at] = dice.randbytes(dice.randrange(1, 9))
            elif how == 6:
                data += data[at : at + dice.randrange(1, 40)]
            elif how == 7 and len(data) > 3:
                data[1] = dice.randrange(256)  # the length
            else:
                other = dice.choice(self.corpora[dice.choice((V3, V5))])
                data[at:] = other[dice.randrange(len(other)) :]
        return bytes(data)

    def run(self, count: int) -> None:
        """``count`` mutated packets more."""
        end = self.fed + count
        while self.fed < end:
            self._one_connection(min(end - self.fed, self.random.randrange(1, 12)))
            if self.random.random() < 0.02:
                self.world.advance(self.random.choice((1.0, 5.0, 40.0)), step=5.0)

    def _one_connection(self, count: int) -> None:
        dice = self.random
        version = dice.choice((V3, V5))
        client = self.world.socket(version=version)
        self._open.append(client)
        if dice.random() < 0.9:
            client.feed(login(dice.choice(IDS), version).encode())
        for _ in range(count):
            self.fed += 1
            valid = dice.choice(self.corpora[version])
            data = self.mutate(valid)
            if dice.random() < 0.3:
                data = dice.choice(self.corpora[version]) + data
            if dice.random() < 0.2 and len(data) > 2:
                cut = dice.randrange(1, len(data))
                client.feed(data[:cut])
                client.feed(data[cut:])
            else:
                client.feed(data)
            if dice.random() < 0.5:
                self.world.turn()
            if client.ended:
                break
        self.world.turn()
        client.transport.data.clear()
        if dice.random() < 0.8 or len(self._open) > 20:
            gone = self._open.pop(dice.randrange(len(self._open)))
            gone.vanish()
            self.ended += 1
        if len(self.world.clients) > 100:
            self.world.clients = list(self._open)

    def check(self) -> None:
        """Nothing of ours failed."""
        assert self.world.core.counters.bugs == 0

    def finish(self) -> None:
        """Everybody goes, sessions expire: nothing may be left."""
        core = self.world.core
        while self._open:
            self._open.pop().vanish()
        self.world.advance(core.limits.session_expiry_s + 60.0, step=core.limits.session_expiry_s / 4)
        for topic in core.retained.topics():
            core.retained.remove(topic)
        assert not core.connections
        assert not core.sessions, list(core.sessions)
        assert core.index.count == 0
        assert core.index.empty, "subscriptions are left in the index"
        assert core.memory.held == 0, f"{core.memory.held} bytes are still held"
        assert core.partial == 0
