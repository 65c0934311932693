"""The broker as a process: it starts, takes clients, ends in order."""

from __future__ import annotations

import json

from fleetui.broker.handshake import Connect
from fleetui.broker.packets import Request
from fleetui.broker.wire import Reason
from tests.helpers.broker import running_broker


def test_starts_serves_and_stops_in_order(tmp_path):
    with running_broker(tmp_path) as broker:
        ports = json.loads((broker.folder / "run" / "broker.json").read_text())
        assert ports["listeners"][0]["port"] == broker.port
        with broker.raw("station") as station, broker.raw("dev1") as device:
            assert station.subscribe("fleet/test/up/+/+") == [1]
            assert device.publish("fleet/test/up/dev1/beat", b"alive", qos=1) == Reason.SUCCESS
            message = station.message()
            assert message is not None
            assert (message.topic, message.payload, message.qos) == ("fleet/test/up/dev1/beat", b"alive", 1)
        assert broker.stop() == 0
    assert not (broker.folder / "run" / "broker.json").exists()


def test_wrong_password_is_refused(tmp_path):
    with running_broker(tmp_path) as broker:
        with broker.raw() as stranger:
            connack = stranger.connect(Connect("dev1", username="dev1", password=b"guess"))
            assert connack.reason == Reason.BAD_CREDENTIALS
        with broker.raw() as thief:
            password = broker.password("dev2").encode()
            connack = thief.connect(Connect("dev1", password=password))
            assert connack.reason == Reason.BAD_CREDENTIALS


def test_retained_message_reaches_a_late_subscriber(tmp_path):
    with running_broker(tmp_path) as broker, broker.raw("station") as station:
        assert (
            station.publish("fleet/test/down/dev1/desired", b"{}", qos=1, retain=True)
            == Reason.NO_MATCHING_SUBSCRIBERS
        )
        with broker.raw("dev1") as device:
            assert device.subscribe(Request("fleet/test/down/dev1/+", qos=1)) == [1]
            message = device.message()
            assert message is not None
            assert message.retain
            assert message.payload == b"{}"
