"""The MQTT transport against brokers that refuse, keep silent, or send anything at all; and over TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetui.common.link import mqtt, resolve
from fleetui.common.link.loop import LinkLoop
from fleetui.common.link.transport import LinkConfig, LinkState, LinkStatus, TlsFiles
from tests.helpers.broker import Pki, free_port, running_broker
from tests.helpers.link import Collector, mqtt_transport, running_loop
from tests.helpers.wait import wait_until

CONNACK = b"\x20\x03\x00\x00\x00"


@pytest.fixture
def loop() -> Iterator[LinkLoop]:
    with running_loop() as loop:
        yield loop


class FakeBroker:
    """Accepts connections and gives each to ``serve``, on a thread of its own."""

    host = "127.0.0.1"

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server((self.host, 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = [threading.Thread(target=self._run)]
        self.accepted = 0
        self._threads[0].start()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            sock.settimeout(10)
            self._open.append(sock)
            thread = threading.Thread(target=self._one, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _one(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            self._serve(sock)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(10)


@contextlib.contextmanager
def fake_broker(serve: Callable[[socket.socket], None]) -> Iterator[FakeBroker]:
    broker = FakeBroker(serve)
    try:
        yield broker
    finally:
        broker.close()


def wait_for(heard: Collector, state: LinkState, timeout: float = 10.0) -> LinkStatus:
    wait_until(lambda: state in heard.states, timeout, f"{state}: {heard.statuses[-3:]}")
    return next(status for status in heard.statuses if status.state is state)


# ---------------------------------------------------------------- refused


def test_wrong_credentials_are_a_refusal_that_is_retried_slowly(tmp_path: Path, loop: LinkLoop) -> None:
    with running_broker(tmp_path) as broker:
        wrong = mqtt_transport(loop, broker, "d1", username="d1", password="wrong", backoff_max_s=100.0)
        right = mqtt_transport(loop, broker, "d2", username="d2", password=broker.password("d2"))
        heard, other = Collector(wrong), Collector(right)
        wrong.start()
        right.start()
        status = wait_for(heard, LinkState.REFUSED)
        other.wait_online()
        assert status.reason.startswith(f"The broker at 127.0.0.1:{broker.port} refuses: ")
        assert 50.0 <= status.retry_in_s <= 100.0
        assert LinkState.ONLINE not in heard.states
        assert not wrong.publish("t", b"", qos=0)
        wrong.stop()
        right.stop()


@pytest.mark.parametrize(
    ("code", "state", "words"),
    [
        (0x84, LinkState.REFUSED, "does not speak MQTT 5"),
        (0x85, LinkState.REFUSED, "client id"),
        (0x86, LinkState.REFUSED, "wrong user name or password"),
        (0x87, LinkState.REFUSED, "not authorised"),
        (0x8A, LinkState.REFUSED, "banned"),
        (0x89, LinkState.WAITING, "busy"),
        (0x97, LinkState.WAITING, "quota"),
        (0x80, LinkState.WAITING, "reason 128"),
    ],
)
def test_each_answer_to_connect_becomes_a_sentence(loop: LinkLoop, code: int, state: LinkState, words: str) -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(b"\x20\x03\x00" + bytes([code]) + b"\x00")
        sock.recv(4096)

    with fake_broker(serve) as broker:
        transport = mqtt_transport(loop, broker, "c")
        heard = Collector(transport)
        transport.start()
        assert words in wait_for(heard, state).reason
        transport.stop()


def test_a_broker_of_the_old_protocol_is_a_refusal(loop: LinkLoop) -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(b"\x20\x02\x00\x01")

    with fake_broker(serve) as broker:
        transport = mqtt_transport(loop, broker, "c")
        heard = Collector(transport)
        transport.start()
        assert "does not speak MQTT 5" in wait_for(heard, LinkState.REFUSED).reason
        transport.stop()


@pytest.mark.parametrize(
    ("code", "state", "words"),
    [
        (0x8E, LinkState.REFUSED, "same name"),
        (0x8B, LinkState.WAITING, "shutting down"),
        (0x98, LinkState.WAITING, "administrator"),
    ],
)
def test_a_goodbye_of_the_broker_says_why(loop: LinkLoop, code: int, state: LinkState, words: str) -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(CONNACK + b"\xe0\x02" + bytes([code]) + b"\x00")
        sock.recv(4096)

    with fake_broker(serve) as broker:
        transport = mqtt_transport(loop, broker, "c", backoff_min_s=30.0, backoff_max_s=60.0)
        heard = Collector(transport)
        transport.start()
        assert words in wait_for(heard, state).reason
        assert LinkState.ONLINE in heard.states
        transport.stop()


@pytest.mark.logs_warnings("refused the subscription")
def test_a_refused_subscription_is_told_and_does_not_end_the_connection(tmp_path: Path, loop: LinkLoop) -> None:
    with running_broker(tmp_path) as broker:
        transport = mqtt_transport(loop, broker, "d1", username="d1", password=broker.password("d1"))
        heard = Collector(transport)
        station = mqtt_transport(loop, broker, "station", username="station", password=broker.password("station"))
        listening = Collector(station)
        station.subscribe("fleet/test/up/+/+")
        station.start()
        listening.wait_online()
        station.publish("fleet/test/up/station/beat", b"", qos=1)
        listening.wait(1)  # its subscription stands
        transport.subscribe("fleet/test/down/d1/+")
        transport.subscribe("fleet/test/down/other/+")
        transport.start()
        wait_until(lambda: "down/other" in transport.status.reason, what="the reason")
        assert transport.status.state is LinkState.ONLINE
        assert "down/d1" not in transport.status.reason
        done: list[bool] = []
        transport.publish("fleet/test/up/other/beat", b"x", qos=1, on_done=done.append)
        transport.publish("fleet/test/up/d1/beat", b"x", qos=1, on_done=done.append)
        wait_until(lambda: done == [False, True], what="one refused, one taken")
        assert transport.counters.delivered == 1
        assert heard.states.count(LinkState.CONNECTING) == 1
        transport.stop()
        station.stop()


# ---------------------------------------------------------------- silent, absent, far


def test_nobody_there(loop: LinkLoop) -> None:
    class Nobody:
        host, port = "127.0.0.1", free_port()

    transport = mqtt_transport(loop, Nobody, "c")
    heard = Collector(transport)
    transport.start()
    wait_until(lambda: heard.states.count(LinkState.WAITING) >= 3, what="three tries")
    assert heard.statuses[1].reason == f"No connection to 127.0.0.1:{Nobody.port}: connection refused"
    transport.stop()


@pytest.mark.parametrize("tls", [False, True])
def test_a_broker_that_says_nothing_holds_up_nobody_else(
    tmp_path: Path, loop: LinkLoop, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    monkeypatch.setattr(mqtt, "CONNECT_TIMEOUT_S", 0.5)
    pki = Pki(tmp_path / "pki")
    with (
        fake_broker(lambda sock: sock.recv(1 << 20) and sock.recv(1)) as silent,
        running_broker(tmp_path, open=True) as broker,
    ):
        files = TlsFiles(pki.ca) if tls else None
        stuck = [
            mqtt_transport(loop, silent, f"s{i}", tls=files, backoff_min_s=30, backoff_max_s=60) for i in range(5)
        ]
        heard = [Collector(transport) for transport in stuck]
        for transport in stuck:
            transport.start()
        fine = mqtt_transport(loop, broker, "fine")
        other = Collector(fine)
        fine.start()
        other.wait_online()
        for one in heard:
            assert "No answer" in wait_for(one, LinkState.WAITING).reason
        for transport in (*stuck, fine):
            transport.stop()


def test_a_name_without_an_address(loop: LinkLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *args: object, flags: int = 0, **kw: object) -> object:
        if host == "nowhere.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, port, *args, flags=flags, **kw)

    monkeypatch.setattr(resolve.socket, "getaddrinfo", look_up)

    class Nowhere:
        host, port = "nowhere.invalid", 1883

    transports = [mqtt_transport(loop, Nowhere, f"c{i}", backoff_min_s=30, backoff_max_s=60) for i in range(3)]
    heard = [Collector(t) for t in transports]
    for transport in transports:
        transport.start()
    for one in heard:
        assert "nowhere.invalid has no address" in wait_for(one, LinkState.WAITING).reason
    for transport in transports:
        transport.stop()


def test_a_name_is_looked_up_once_for_all(tmp_path: Path, loop: LinkLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name has an address where nobody listens, and one where the broker does."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *args: object, flags: int = 0, **kw: object) -> object:
        if host != "broker.example":
            return real(host, port, *args, flags=flags, **kw)
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        asked.append(host)
        stream = socket.SOCK_STREAM
        return [
            (socket.AF_INET, stream, 6, "", ("127.0.0.1", dead)),
            (socket.AF_INET, stream, 6, "", ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(resolve.socket, "getaddrinfo", look_up)
    dead = free_port()
    with running_broker(tmp_path, open=True) as broker:

        class Named:
            host, port = "broker.example", broker.port

        transports = [mqtt_transport(loop, Named, f"c{i}") for i in range(20)]
        heard = [Collector(t) for t in transports]
        for transport in transports:
            transport.start()
        for one in heard:
            one.wait_online()
        assert asked == ["broker.example"]
        for transport in transports:
            transport.stop()


def test_an_answer_that_is_cut_in_pieces_is_put_together(loop: LinkLoop) -> None:
    payload = b"p" * 300
    publish = b"\x30" + b"\xb2\x02" + b"\x00\x03a/b" + b"\x00" + payload
    go = threading.Event()

    def serve(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.recv(4096)
        for byte in CONNACK + publish[:20]:
            sock.sendall(bytes([byte]))
            go.wait(0.002)
        sock.sendall(publish[20:] + publish[:-1])
        go.wait(0.05)
        sock.sendall(publish[-1:])
        sock.recv(4096)

    with fake_broker(serve) as broker:
        transport = mqtt_transport(loop, broker, "c")
        heard = Collector(transport)
        transport.start()
        assert [m.payload for m in heard.wait(2)] == [payload, payload]
        transport.stop()


# ---------------------------------------------------------------- hostile


@pytest.mark.logs_warnings("not understood")
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x20\xff\xff\xff\xff\x7f",
        b"\x20\x00",
        b"\x20\x01\x00",
        b"\x20\x03\x00\x00\x7f",
        b"\x00\x00",
        b"\xf0\x00",
        CONNACK + b"\x30\x00",
        CONNACK + b"\x30\x02\xff\xff",
        CONNACK + b"\x32\x04\x00\x01a\x00",
        CONNACK + b"\x36\x06\x00\x01a\x00\x01\x00",
        CONNACK + b"\x30\x06\x00\x02\xff\xfe\x00x",
        CONNACK + b"\x30\x06\x00\x01a\x02\x01",
        CONNACK + b"\x30\x05\x00\x01a\x01\x99",
        CONNACK + b"\x40\x00",
        CONNACK + b"\x40\x02\x00\x07\x40\x03\x00\x07\x87",
        CONNACK + b"\x90\x03\x00\x63\x00",
        CONNACK + b"\x90\x01\x00",
        CONNACK + b"\xb0\x02\x00\x63",
        CONNACK + b"\xd0\x01\x00",
        CONNACK + b"\x62\x02\x00\x01",
        CONNACK + b"\xe0\x01\x00",
        CONNACK + CONNACK,
        b"",
    ],
)
def test_whatever_a_broker_sends_only_its_own_connection_suffers(loop: LinkLoop, answer: bytes) -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(answer)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(4096)

    with fake_broker(serve) as broker:
        transport = mqtt_transport(loop, broker, "c", manual_ack=True)
        heard = Collector(transport, ack=True)
        transport.subscribe("a")
        transport.start()
        wait_until(lambda: broker.accepted >= 2, what="a second try")
        transport.stop()
        wait_until(lambda: transport.status.state is LinkState.IDLE, what="stopped")
        assert all(status.reason for status in heard.statuses if status.state is LinkState.WAITING)


def test_a_broker_cannot_make_a_client_buffer_without_bound(loop: LinkLoop) -> None:
    sent = 0

    def serve(sock: socket.socket) -> None:
        nonlocal sent
        sock.recv(4096)
        sock.sendall(CONNACK + b"\x30\xff\xff\xff\x7f" + b"\x00\x01a\x00")
        while True:
            sent += sock.send(b"x" * 65536)

    with fake_broker(serve) as broker:
        transport = mqtt_transport(loop, broker, "c", max_packet=100_000, backoff_min_s=30, backoff_max_s=60)
        heard = Collector(transport)
        transport.start()
        wait_until(lambda: heard.states[-1:] == [LinkState.WAITING], what="given up")
        assert "larger than 100000 bytes" in heard.statuses[-1].reason
        assert transport.counters.bytes_in < 1_000_000
        transport.stop()


@pytest.fixture(scope="module")
def endless() -> Iterator[tuple[LinkLoop, FakeBroker, list[bytes]]]:
    """A broker that answers each connection with the next bytes of a list."""
    answers: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(answers[-1])
        sock.shutdown(socket.SHUT_WR)
        sock.recv(4096)

    with running_loop() as loop, fake_broker(serve) as broker:
        yield loop, broker, answers


def _packet(first: int, body: bytes) -> bytes:
    assert len(body) < 128
    return bytes([first, len(body)]) + body


_packets = st.lists(
    st.builds(_packet, st.integers(0, 255), st.binary(max_size=40))
    | st.builds(
        lambda t, r: _packet(0x32, struct.pack("!H", len(t)) + t + r), st.binary(max_size=8), st.binary(max_size=20)
    )
    | st.binary(max_size=20),
    max_size=6,
).map(b"".join)


@pytest.mark.logs_warnings("not understood|refused the subscription")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rubbish=_packets, welcomed=st.booleans())
def test_random_packets_end_in_a_retry(
    endless: tuple[LinkLoop, FakeBroker, list[bytes]], rubbish: bytes, welcomed: bool
) -> None:
    loop, broker, answers = endless
    answers.append((CONNACK if welcomed else b"") + rubbish)
    transport = mqtt_transport(loop, broker, "c", manual_ack=True, backoff_min_s=30, backoff_max_s=60)
    heard = Collector(transport, ack=True)
    transport.subscribe("a")
    transport.publish("a", b"x", qos=1)
    transport.start()
    wait_until(lambda: heard.states[-1:] in ([LinkState.WAITING], [LinkState.REFUSED]), what="given up")
    assert heard.statuses[-1].reason
    transport.stop()
    wait_until(lambda: heard.states[-1] is LinkState.IDLE, what="stopped")
    assert loop.counters.errors == 0


def test_a_packet_id_that_is_still_out_is_not_given_twice(loop: LinkLoop) -> None:
    """Ids go round after 65,535; one may belong to a message that the broker has not acknowledged yet."""
    taken: list[int] = []

    def serve(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(CONNACK)
        data = b""
        while more := sock.recv(4096):
            data += more
            while len(data) >= 8:
                (mid,) = struct.unpack("!H", data[5:7])
                taken.append(mid)
                if mid != 1:
                    sock.sendall(b"\x40\x02" + data[5:7])
                data = data[8:]

    with fake_broker(serve) as broker:
        transport = mqtt_transport(loop, broker, "c")
        heard = Collector(transport)
        transport.start()
        heard.wait_online()
        for round_ in range(3):
            transport.publish("t", b"", qos=1, on_done=heard.note(str(round_)))
            wait_until(lambda r=round_: len(taken) == r + 1, what="arrived")
            assert transport._client is not None
            transport._client._last_mid = 0
        wait_until(lambda: ("2", True) in heard.done, what="acknowledged")
        assert taken[0] == 1
        assert set(taken[1:]) == {2}
        assert len(transport._inflight) == 1
        transport.stop()
        wait_until(lambda: ("0", False) in heard.done, what="answered")


# ---------------------------------------------------------------- keepalive


def test_a_dead_connection_is_noticed_by_keepalive(loop: LinkLoop) -> None:
    pings: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(CONNACK)
        while data := sock.recv(4096):
            pings.append(data)

    with fake_broker(serve) as broker:
        transport = mqtt_transport(loop, broker, "c", keepalive_s=1)
        heard = Collector(transport)
        transport.start()
        wait_for(heard, LinkState.WAITING)
        assert pings[0] == b"\xc0\x00"
        transport.stop()


# ---------------------------------------------------------------- TLS


@pytest.fixture
def tls_broker(tmp_path: Path) -> Iterator[tuple[object, Pki]]:
    pki = Pki(tmp_path / "pki")
    with running_broker(tmp_path, tls=pki) as broker:

        class Address:
            host, port = "localhost", broker.tls_port

        yield Address, pki


def test_a_client_certificate_lets_in_and_large_messages_pass(
    tls_broker: tuple[object, Pki], loop: LinkLoop
) -> None:
    address, pki = tls_broker
    names = ("d1", "d2")
    links = {n: mqtt_transport(loop, address, n, tls=TlsFiles(pki.ca, *pki.client(n))) for n in names}
    heard = {n: Collector(t) for n, t in links.items()}
    for n, t in links.items():
        t.subscribe(f"fleet/test/down/{n}/+")
        t.start()
    station = mqtt_transport(loop, address, "station", tls=TlsFiles(pki.ca, *pki.client("station")))
    listening = Collector(station)
    station.subscribe("fleet/test/up/+/+")
    station.start()
    for one in (*heard.values(), listening):
        one.wait_online()
    station.publish("fleet/test/up/station/beat", b"", qos=1)
    listening.wait(1)  # its subscription stands
    done: list[bool] = []
    for i in range(20):
        links["d1"].publish("fleet/test/up/d1/capture", bytes([i]) * 200_000, qos=1, on_done=done.append)
    wait_until(lambda: len(done) == 20, 20, "all taken")
    assert all(done)
    for t in (*links.values(), station):
        t.stop()


def test_a_client_without_a_certificate_is_refused(tls_broker: tuple[object, Pki], loop: LinkLoop) -> None:
    address, pki = tls_broker
    transport = mqtt_transport(loop, address, "d1", tls=TlsFiles(pki.ca))
    heard = Collector(transport)
    transport.start()
    wait_until(lambda: {LinkState.REFUSED, LinkState.WAITING} & set(heard.states), what="refused")
    assert LinkState.ONLINE not in heard.states
    transport.stop()


def test_a_broker_of_another_authority_is_not_trusted(
    tls_broker: tuple[object, Pki], loop: LinkLoop, tmp_path: Path
) -> None:
    address, pki = tls_broker
    other = Pki(tmp_path / "other")
    transport = mqtt_transport(loop, address, "d1", tls=TlsFiles(other.ca, *pki.client("d1")))
    heard = Collector(transport)
    transport.start()
    assert "is not trusted" in wait_for(heard, LinkState.REFUSED).reason
    transport.stop()


def test_a_broker_under_another_name_is_not_trusted(loop: LinkLoop, tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    certificate, key = pki.authority.issue_server(["elsewhere.example"]).save(tmp_path, "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def serve(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.recv(4096)

    with fake_broker(serve) as broker:
        transport = mqtt_transport(loop, broker, "d1", tls=TlsFiles(pki.ca))
        heard = Collector(transport)
        transport.start()
        assert "is not trusted" in wait_for(heard, LinkState.REFUSED).reason
        transport.stop()


def test_files_that_are_missing_or_wrong_are_told_and_taken_up_once_they_are_there(
    tls_broker: tuple[object, Pki], loop: LinkLoop, tmp_path: Path
) -> None:
    address, pki = tls_broker
    certificate, key = pki.client("d1")
    moved = tmp_path / "d1.crt"
    transport = mqtt_transport(loop, address, "d1", tls=TlsFiles(pki.ca, moved, key), backoff_max_s=0.2)
    heard = Collector(transport)
    transport.start()
    assert "TLS files" in wait_for(heard, LinkState.REFUSED).reason
    moved.write_bytes(b"rubbish")
    tries = len(heard.statuses)
    wait_until(lambda: heard.states[tries:].count(LinkState.REFUSED) >= 2, what="refused again")
    moved.write_bytes(certificate.read_bytes())
    heard.wait_online()
    transport.stop()


def test_plain_speech_to_a_tls_port_and_tls_to_a_plain_one(tmp_path: Path, loop: LinkLoop) -> None:
    pki = Pki(tmp_path / "pki")
    with running_broker(tmp_path, tls=pki) as broker:

        class TlsPort:
            host, port = "127.0.0.1", broker.tls_port

        plain = mqtt_transport(loop, TlsPort, "d1", backoff_min_s=30, backoff_max_s=60)
        tls = mqtt_transport(loop, broker, "d2", tls=TlsFiles(pki.ca), backoff_min_s=30, backoff_max_s=60)
        heard = [Collector(plain), Collector(tls)]
        plain.start()
        tls.start()
        for one in heard:
            wait_until(lambda h=one: any(s.reason for s in h.statuses), what="an end")
            assert LinkState.ONLINE not in one.states
        plain.stop()
        tls.stop()


def test_a_transport_counts_time_as_its_loop_does(loop: LinkLoop) -> None:
    from fleetui.common.domain.clock import ManualClock

    with pytest.raises(ValueError, match="as its loop does"):
        mqtt.MqttTransport(LinkConfig("c"), loop, ManualClock())
    mqtt.MqttTransport(LinkConfig("c"), loop, loop.clock)
