"""With a client that others wrote: paho, both versions, every QoS, across a restart."""

from __future__ import annotations

import threading

import paho.mqtt.client as paho
import pytest

from tests.helpers.broker import running_broker
from tests.helpers.wait import wait_until


def collect(client: paho.Client, *filters: tuple[str, int]) -> list[bytes]:
    """Payloads as they come, once the subscription is there."""
    got: list[bytes] = []
    ready = threading.Event()
    client.on_message = lambda *arguments: got.append(arguments[2].payload)
    client.on_subscribe = lambda *_: ready.set()
    client.subscribe(list(filters))
    assert ready.wait(10)
    return got


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_there_and_back(tmp_path, version, qos):
    with running_broker(tmp_path) as broker:
        station = broker.paho("station", version=version)
        got = collect(station, ("fleet/test/up/+/+", qos))
        device = broker.paho("dev1", version=version)
        sent = [b"%d" % i for i in range(100)]
        for payload in sent:
            device.publish("fleet/test/up/dev1/win", payload, qos)
        wait_until(lambda: len(got) >= 100, what="100 messages")
        assert got == sent


def test_large_payloads_arrive_whole(tmp_path):
    with running_broker(tmp_path) as broker:
        got = collect(broker.paho("dev1"), *((f"fleet/test/blob/{i}", 1) for i in range(8)))
        station = broker.paho("station")
        blobs = [bytes([i]) * (256 * 1024) for i in range(8)]
        for i, blob in enumerate(blobs):
            station.publish(f"fleet/test/blob/{i}", blob, 1, retain=True)
        wait_until(lambda: len(got) == 8, what="8 blobs")
        assert sorted(got) == blobs


def test_a_client_goes_on_after_the_broker_was_killed(tmp_path):
    """paho reconnects by itself and finds its session; nothing acknowledged is missing."""
    with running_broker(tmp_path) as broker:
        station = broker.paho("station", session_expiry=600, clean=False)
        station.reconnect_delay_set(0.1, 0.5)
        got = collect(station, ("fleet/test/up/+/+", 1))
        sessions: list[bool] = []
        station.on_connect = lambda *arguments: sessions.append(arguments[2].session_present)
        for turn in range(2):
            with broker.raw("dev1") as device:
                for i in range(20):
                    assert device.publish("fleet/test/up/dev1/win", b"%d.%d" % (turn, i), qos=1) == 0
            broker.kill()
            broker.restart()
        wait_until(lambda: sessions and sessions[-1], what="the session after the restart")
        expected = {b"%d.%d" % (turn, i) for turn in range(2) for i in range(20)}
        wait_until(lambda: set(got) == expected, what="all of it, again where need be")


def test_denied_publish_is_told_to_paho(tmp_path):
    with running_broker(tmp_path) as broker:
        device = broker.paho("dev1")
        reasons: list[object] = []
        device.on_publish = lambda *arguments: reasons.append(arguments[3])
        device.publish("fleet/test/up/dev2/win", b"x", 1)
        wait_until(lambda: reasons, what="an answer")
        assert str(reasons[0]) == "Not authorized"
