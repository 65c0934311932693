"""Unknown and hostile clients, over TLS, on the embedded broker and on a mosquitto with the exported rules.

The same bodies for both. Where the two say no in different words (mosquitto grants a subscription and delivers
nothing), only what counts is asserted: what arrives, and who stays connected.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
from collections.abc import Iterator

import pytest

from fleetui.broker import handshake
from fleetui.broker.packets import Request
from fleetui.broker.wire import Reason
from tests.helpers.broker import Pki, RawClient, RunningBroker, running_broker, running_mosquitto, tls_context
from tests.helpers.wait import wait_until

UP = "fleet/test/up/dev2/win"
DESIRED = "fleet/test/down/dev2/desired"


@pytest.fixture(params=["ours", pytest.param("mosquitto", marks=pytest.mark.mosquitto)])
def broker(request, tmp_path) -> Iterator[RunningBroker]:
    if request.param == "ours":
        running = running_broker(tmp_path, tls=Pki(tmp_path / "pki"), log_level="ERROR")
    else:
        running = running_mosquitto(tmp_path, tls=True)
    with running as one:
        yield one


def refused(connect) -> bool:
    """Whether no session came of it: TLS says no, the socket closes, or CONNACK does."""
    try:
        client: RawClient = connect()
    except (OSError, ssl.SSLError, EOFError):
        return True
    with client:
        return client.connack is None or client.connack.reason != Reason.SUCCESS


def settled(station: RawClient) -> None:
    """Everything sent before has been handled: what the station publishes to itself has come back."""
    station.publish("fence", b"fence")


def received(client: RawClient) -> list[tuple[str, bytes]]:
    """Until the fence."""
    found: list[tuple[str, bytes]] = []
    while (message := client.message(5.0)) is not None:
        if message.topic == "fence":
            return found
        found.append((message.topic, message.payload))
    raise AssertionError(f"no fence, only {found}")


def test_strangers_do_not_get_in(broker, tmp_path):
    rogue = Pki(tmp_path / "rogue")
    tls = broker.tls
    port = broker.tls_port

    def with_context(context: ssl.SSLContext | None):
        client = RawClient(broker.host, port, 5, context)
        try:
            client.connect(handshake.Connect("dev1"))
        except BaseException:
            client.close()
            raise
        return client

    assert refused(lambda: with_context(None)), "plain TCP"
    assert refused(lambda: with_context(tls_context(tls.ca))), "no certificate"
    assert refused(lambda: with_context(tls_context(tls.ca, *rogue.client("dev1")))), "another authority's"
    assert refused(lambda: with_context(tls_context(tls.ca, tls.cert, tls.key))), "a server's certificate"
    with broker.raw("dev1", tls=True) as good:
        assert good.connack.reason == Reason.SUCCESS


def test_nobody_publishes_as_somebody_else(broker):
    with broker.raw("station", tls=True) as station, broker.raw("dev1", tls=True) as device:
        station.subscribe(Request("#", 1))
        for qos in (0, 1):
            for topic in (
                UP,
                DESIRED,
                "fleet/test/trust/root",
                "fleet/test/blob/x",
                "fleet/other/up/dev1/win",
                "x",
            ):
                device.publish(topic, b"forged", qos=qos, retain=True)
        device.publish("fleet/test/up/dev1/win", b"mine", qos=1)
        settled(station)
        assert received(station) == [("fleet/test/up/dev1/win", b"mine")]
        with broker.raw("late", tls=True), broker.raw("dev2", tls=True) as victim:
            victim.subscribe(Request("fleet/test/down/dev2/#", 1), Request("fleet/test/trust/#", 1))
            assert victim.message(0.3) is None, "nothing forged was retained"


def test_nobody_reads_what_is_for_others(broker):
    with (
        broker.raw("station", tls=True) as station,
        broker.raw("dev1", tls=True) as spy,
        broker.raw("dev2", tls=True) as device,
    ):
        station.publish(DESIRED, b"retained secret", qos=1, retain=True)
        for text in (
            "#",
            "+/+/+/+/+",
            "fleet/test/down/#",
            "fleet/test/down/+/desired",
            DESIRED,
            "fleet/test/up/#",
        ):
            spy.subscribe(Request(text, 1))
        spy.subscribe(Request("fleet/test/trust/#", 1))
        station.publish(DESIRED, b"live secret", qos=1)
        device.publish(UP, b"report", qos=1)
        station.publish("fleet/test/trust/root", b"for all", qos=1)
        seen = {(message.topic, message.payload) for message in iter(lambda: spy.message(0.5), None)}
        assert seen == {("fleet/test/trust/root", b"for all")}
        device.subscribe(Request(DESIRED, 1))
        assert device.message().payload == b"retained secret"


def test_nobody_takes_over_another_ones_client_id(broker):
    with broker.raw("station", tls=True) as station, broker.raw("dev2", tls=True) as victim:
        victim.subscribe(Request("fleet/test/down/dev2/#", 1))
        got: list[object] = []
        with (
            contextlib.suppress(OSError, EOFError, AssertionError),
            broker.raw("dev2", tls=True, as_whom="dev1") as thief,
        ):
            thief.subscribe(Request("fleet/test/down/dev2/#", 1))
            station.publish(DESIRED, b"for dev2", qos=1)
            got.append(thief.message(0.3))
        assert not any(got)
        station.publish(DESIRED, b"still for dev2", qos=1)
        seen = []
        while not seen or seen[-1] != b"still for dev2":
            seen.append(victim.message().payload)
        victim.publish(UP, b"alive", qos=1)


def test_nobody_is_a_station_by_saying_so(broker):
    with broker.raw("station", tls=True) as station:
        station.subscribe(Request("fleet/test/up/#", 1))
        with (
            contextlib.suppress(OSError, EOFError, AssertionError),
            broker.raw("station", tls=True, as_whom="dev1", username="station") as thief,
        ):
            thief.publish(DESIRED, b"forged", qos=1, retain=True)
            thief.publish(UP, b"forged", qos=1)
        with broker.raw("dev2", tls=True) as device:
            device.publish(UP, b"true", qos=1)
            assert station.message().payload == b"true"
            device.subscribe(Request(DESIRED, 1))
            assert device.message(0.3) is None


def test_a_will_cannot_forge(broker):
    with broker.raw("station", tls=True) as station:
        station.subscribe(Request("#", 1))
        with contextlib.suppress(OSError, EOFError, AssertionError):
            will = handshake.Will(UP, b"forged", 1, True)
            broker.raw("dev1", tls=True, will=will).reset()
        own = handshake.Will("fleet/test/up/dev1/gone", b"true", 1)
        broker.raw("dev1", tls=True, will=own).reset()
        message = station.message(10.0)
        assert (message.topic, message.payload) == ("fleet/test/up/dev1/gone", b"true")


def test_revocation_without_a_restart(broker):
    tls = broker.tls
    with broker.raw("dev1", tls=True) as stays, broker.raw("dev2", tls=True) as goes:
        tls.revoke("dev2")
        assert not refused(lambda: broker.raw("dev2", tls=True)) or broker.ours, "not read yet"
        broker.signal(signal.SIGHUP)
        wait_until(lambda: refused(lambda: broker.raw("dev2", tls=True)), what="the revocation")
        assert not refused(lambda: broker.raw("dev3", tls=True))
        stays.publish("fleet/test/up/dev1/win", b"x", qos=1)
        if broker.ours:  # mosquitto leaves running connections alone; the export says so
            with contextlib.suppress(ssl.SSLError):
                goes.ended()


@pytest.mark.parametrize("way", ["reload command", "SIGHUP"])
def test_our_broker_ends_revoked_connections(tmp_path, way):
    pki = Pki(tmp_path / "pki")
    with (
        running_broker(tmp_path, tls=pki) as broker,
        broker.raw("station", tls=True) as station,
        broker.raw("dev1", tls=True) as device,
    ):
        pki.revoke("dev1")
        if way == "SIGHUP":
            broker.signal(signal.SIGHUP)
        else:
            assert station.publish("$CONTROL/reload-crl", b"", qos=1) == Reason.SUCCESS
        assert device.ended() == Reason.ADMINISTRATIVE
        assert refused(lambda: broker.raw("dev1", tls=True))
        assert station.publish("x", b"", qos=1) is not None


def test_a_broken_revocation_list_changes_nothing(tmp_path):
    pki = Pki(tmp_path / "pki")
    with running_broker(tmp_path, tls=pki) as broker:
        with broker.raw("dev1", tls=True) as device:
            pki.crl.write_text("nonsense")
            broker.signal(signal.SIGHUP)
            wait_until(lambda: "Not reloaded" in broker.log_text, what="the warning")
            assert device.publish("fleet/test/up/dev1/win", b"x", qos=1) is not None
        assert not refused(lambda: broker.raw("dev2", tls=True))


def test_tls_connections_that_never_speak_are_ended(tmp_path):
    pki = Pki(tmp_path / "pki")
    with running_broker(tmp_path, tls=pki, limit="connect_timeout_s=1") as broker:
        with socket.create_connection((broker.host, broker.tls_port), 10) as mute:
            mute.settimeout(10)
            assert mute.recv(10) == b""
        with broker.raw(None, tls=True, as_whom="dev1") as polite:
            polite.ended(10)
        assert not refused(lambda: broker.raw("dev1", tls=True))
