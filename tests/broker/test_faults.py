"""``kill -9`` at random moments: nothing that was acknowledged is lost, and everybody goes on."""

from __future__ import annotations

import random
import threading

import pytest

from fleetui.broker import handshake, packets
from fleetui.broker.packets import V5, Kind, Publish
from fleetui.broker.wire import Property
from tests.helpers.broker import RawClient, RunningBroker, running_broker
from tests.helpers.wait import wait_until

pytestmark = pytest.mark.faults

KEEP = {Property.SESSION_EXPIRY: 3600, Property.RECEIVE_MAXIMUM: 50}


class Publisher(threading.Thread):
    """Publishes QoS 1 as fast as it is acknowledged, reconnects, and remembers what was."""

    def __init__(self, broker: RunningBroker, name: str) -> None:
        super().__init__(name=f"publisher-{name}")
        self.broker = broker
        self.device = name
        self.acknowledged: set[bytes] = set()
        self.retained = b""
        self.stop = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stop.is_set():
            try:
                with self.broker.raw(self.device) as client:
                    while not self.stop.is_set():
                        number += 1
                        payload = f"{self.device}.{number}".encode()
                        if number % 10 == 0:
                            client.publish(f"fleet/test/up/{self.device}/birth", payload, qos=1, retain=True)
                            self.retained = payload
                        else:
                            client.publish(f"fleet/test/up/{self.device}/win", payload, qos=1)
                        self.acknowledged.add(payload)
            except (OSError, EOFError):
                self.stop.wait(0.02)


def take(client: RawClient, seen: set[bytes], seconds: float) -> None:
    """Receive and acknowledge until nothing comes for a while."""
    while (got := client.receive(seconds)) is not None:
        first, body = got
        if first >> 4 != Kind.PUBLISH:
            continue
        message = packets.decode_publish_fully(body, 0, len(body), first & 15, V5)
        seen.add(message.payload)
        if message.qos:
            client.send(packets.encode_ack(Kind.PUBACK, message.packet_id))


def test_nothing_acknowledged_is_lost(tmp_path):
    """Ten kills under load, the station connected in some of them and away in others."""
    dice = random.Random(11)
    with running_broker(tmp_path, log_level="WARNING") as broker:
        with broker.raw("station", clean=False, properties=KEEP) as station:
            station.subscribe("fleet/test/up/+/+")
        publishers = [Publisher(broker, f"dev{i}") for i in range(3)]
        for publisher in publishers:
            publisher.start()
        seen: set[bytes] = set()
        pause = threading.Event()
        try:
            for _ in range(10):
                if dice.random() < 0.6:
                    try:
                        with broker.raw("station", clean=False, properties=KEEP) as station:
                            assert station.connack.session_present
                            killer = threading.Timer(dice.uniform(0.01, 0.3), broker.process.kill)
                            killer.start()
                            take(station, seen, 5.0)
                    except (OSError, EOFError):
                        pass
                    killer.join()
                else:
                    pause.wait(dice.uniform(0.01, 0.3))
                broker.kill()
                broker.restart()
        finally:
            for publisher in publishers:
                publisher.stop.set()
            for publisher in publishers:
                publisher.join(20)
        with broker.raw("station", clean=False, properties=KEEP) as station:
            assert station.connack.session_present
            take(station, seen, 1.0)
            for publisher in publishers:
                assert len(publisher.acknowledged) > 50
                missing = publisher.acknowledged - seen
                assert not missing, (
                    f"{len(missing)} of {len(publisher.acknowledged)} acknowledged messages are lost"
                )
            station.subscribe("fleet/test/up/+/birth")
            kept: set[bytes] = set()
            take(station, kept, 0.5)
        for publisher in publishers:
            newest = max(
                (int(p.split(b".")[1]) for p in kept if p.startswith(publisher.device.encode())), default=0
            )
            assert newest >= int(publisher.retained.split(b".")[1]), "the retained message is the last one or newer"


def test_orders_wait_for_a_device_through_a_kill(tmp_path):
    with running_broker(tmp_path) as broker:
        with broker.raw("dev1", clean=False, properties=KEEP) as device:
            device.subscribe("fleet/test/down/dev1/+")
            device.send(handshake.Disconnect().encode(V5))
            with pytest.raises(EOFError):
                device.receive()
        for turn in range(3):
            with broker.raw("station") as station:
                assert station.publish("fleet/test/down/dev1/ask", b"%d" % turn, qos=1) == 0
            broker.kill()
            broker.restart()
        with broker.raw("dev1", clean=False, properties=KEEP) as device:
            assert [device.message().payload for _ in range(3)] == [b"0", b"1", b"2"]


def test_a_kill_while_a_snapshot_is_written(tmp_path):
    """Large retained blobs make snapshots long; whenever the kill comes, all of them are there again."""
    dice = random.Random(3)
    blobs: dict[str, bytes] = {}
    with running_broker(tmp_path, log_level="WARNING") as broker:
        for turn in range(5):
            with broker.raw("station") as station:
                for i in range(60):
                    topic = f"fleet/test/blob/{turn}-{i}" if i % 3 else f"fleet/test/blob/{i}"
                    blob = bytes([turn, i]) * 100_000
                    station.send(Publish(topic, blob, 1, True, packet_id=i + 1).encode(V5))
                    blobs[topic] = blob
                for _ in range(60):
                    station.expect(Kind.PUBACK)
                threading.Event().wait(dice.uniform(0, 0.3))
                broker.kill()
            broker.restart()
        with broker.raw("station") as station:
            for topic, blob in blobs.items():
                station.subscribe(topic)
                message = station.message()
                assert (message.topic, message.payload) == (topic, blob)
        folder = broker.folder / "broker"
        wait_until(lambda: list(folder.glob("snapshot-*.log")), what="a snapshot that is complete")
        wait_until(lambda: len(list(folder.glob("journal-*.log"))) == 1, what="the end of the older files")
