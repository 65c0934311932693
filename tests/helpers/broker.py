"""Brokers for tests: ours and mosquitto, each as a real process, behind one shape.

::

    with running_broker(tmp_path, fleet="test") as broker:
        client = broker.paho("dev1")          # knows its password
        broker.kill(); broker.restart()       # same ports, same data

``running_mosquitto`` yields the same kind of object. Both fail a test whose broker died or wrote a traceback.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
import pytest

from fleetui.broker import handshake, packets, wire
from fleetui.broker.export import Export, export
from fleetui.broker.packets import Kind
from fleetui.common.trust.local import load_or_create_secret, local_password
from fleetui.common.trust.pki import Authority
from tests.helpers.wait import wait_until


@dataclass
class Pki:
    """A certificate authority with what a TLS listener needs; clients are issued on demand."""

    folder: Path
    fleet: str = "test"
    revoked: list[int] = field(default_factory=list)
    exported: bool = False  # the folder is one that ``--export-mosquitto`` wrote

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ca = self.folder / "ca.crt"
        self.crl = self.folder / "crl.pem"
        self._serials: dict[str, int] = {}
        if self.exported:
            self.authority = Authority.load(self.folder / "authority")
            self.cert, self.key = self.folder / "server.crt", self.folder / "server.key"
            return
        self.authority = Authority.create(self.fleet)
        self.ca.write_bytes(self.authority.certificate_pem)
        self.cert, self.key = self.authority.issue_server(["localhost", "127.0.0.1"]).save(self.folder, "server")
        self.write_crl()

    def write_crl(self) -> None:
        self.crl.write_bytes(self.authority.crl(self.revoked))

    def client(self, client_id: str) -> tuple[Path, Path]:
        """Paths of certificate and key."""
        if client_id not in self._serials and not (self.exported and client_id == "station"):
            credential = self.authority.issue_client(client_id)
            credential.save(self.folder, client_id)
            self._serials[client_id] = credential.serial
        return self.folder / f"{client_id}.crt", self.folder / f"{client_id}.key"

    def revoke(self, client_id: str) -> None:
        """Into the list; the broker has to be told to read it."""
        self.revoked.append(self._serials[client_id])
        self.write_crl()


class RunningBroker:
    """A broker process: where it listens, how to log in, how to kill it and start it again."""

    def __init__(self, command: list[str], folder: Path, fleet: str, *, ours: bool, tls: Pki | None) -> None:
        self._command = command
        self.folder = folder
        self.fleet = fleet
        self.ours = ours
        self.tls = tls
        self.host = "127.0.0.1"
        self.port = 0
        self.tls_port: int | None = None
        self.secret = b""
        self.anonymous = True
        self.process: subprocess.Popen[bytes] = None  # type: ignore[assignment]  # set by start()
        self.log = folder / "output.log"
        self._clients: list[paho.Client] = []

    # ------------------------------------------------------------ life

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if self.ours else log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        if self.ours:
            ready = self.line("ready")
            for listener in ready["listeners"]:
                if listener["name"] == "tls":
                    self.tls_port = listener["port"]
                else:
                    self.port = listener["port"]
        else:
            port = self.tls_port or self.port
            wait_until(lambda: self._answers(port), what="mosquitto's port")

    def _answers(self, port: int) -> bool:
        assert self.process.poll() is None, self.log_text
        with contextlib.suppress(OSError), socket.create_connection((self.host, port), 1.0):
            return True
        return False

    def line(self, kind: str, timeout: float = 15.0) -> dict[str, Any]:
        """The next JSON line of this kind on the broker's stdout."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout
        buffer = b""
        fd = self.process.stdout.fileno()
        while True:
            readable, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(fd, 65536) if readable else b""
            assert data, f"no {kind!r} from the broker; its log:\n{self.log_text}"
            buffer += data
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                said: dict[str, Any] = json.loads(line)
                if said["kind"] == kind:
                    return said

    def kill(self) -> None:
        """As ``kill -9`` does."""
        self.process.kill()
        self._reap()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, timeout: float = 15.0) -> int:
        """In order: the end of stdin for ours, SIGTERM for mosquitto. The exit status."""
        if self.process.poll() is None:
            if self.ours and self.process.stdin is not None:
                self.process.stdin.close()
            else:
                self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self._reap()
                raise AssertionError(f"the broker did not stop within {timeout:g} s:\n{self.log_text}") from None
        self._reap()
        return self.process.returncode

    def _reap(self) -> None:
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def restart(self) -> None:
        """Again, with the same data and ports (after ``kill`` or ``stop``)."""
        if self.process.poll() is None:
            self.stop()
        if self.ours:
            for option, port in (("--port", self.port), ("--tls-port", self.tls_port)):
                if option in self._command and port:
                    self._command[self._command.index(option) + 1] = str(port)
        self.start()

    @property
    def log_text(self) -> str:
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def end_clients(self) -> None:
        """Those made by ``paho``."""
        while self._clients:
            client = self._clients.pop()
            client.disconnect()
            client.loop_stop()

    def close(self) -> None:
        self.end_clients()
        status = self.stop()
        text = self.log_text
        assert "Traceback" not in text, f"the broker wrote a traceback:\n{text}"
        if self.ours:
            assert status in {0, -signal.SIGKILL}, f"the broker ended with {status}:\n{text}"

    # ------------------------------------------------------------ clients

    def password(self, client_id: str) -> str | None:
        return None if self.anonymous else local_password(self.secret, client_id)

    def paho(
        self,
        client_id: str,
        *,
        version: int = 5,
        as_whom: str | None = None,
        tls: bool = False,
        session_expiry: int = 0,
        clean: bool = True,
        connect: bool = True,
        **options: Any,
    ) -> paho.Client:
        """A connected paho client. ``as_whom``: logs in with another's password or certificate."""
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv5 if version == 5 else paho.MQTTv311,
            clean_session=None if version == 5 else clean,
            **options,
        )
        if tls:
            assert self.tls is not None
            certificate, key = self.tls.client(as_whom or client_id)
            client.tls_set(str(self.tls.ca), str(certificate), str(key))
        elif not self.anonymous:
            client.username_pw_set(client_id, self.password(as_whom or client_id))
        if not connect:
            return client
        connected: list[Any] = []
        client.on_connect = lambda *arguments: connected.append(arguments[3])
        arguments: dict[str, Any] = {}
        if version == 5:
            properties = paho.Properties(paho.PacketTypes.CONNECT)
            properties.SessionExpiryInterval = session_expiry
            arguments = {"clean_start": clean, "properties": properties}
        client.connect(self.host, self.tls_port if tls and self.tls_port else self.port, 60, **arguments)
        client.loop_start()
        self._clients.append(client)
        wait_until(lambda: connected, what=f"the connection of {client_id}")
        assert not connected[0].is_failure, f"{client_id} was refused: {connected[0]}"
        return client

    def raw(
        self,
        client_id: str | None = None,
        *,
        version: int = 5,
        tls: bool = False,
        as_whom: str | None = None,
        **connect: Any,
    ) -> RawClient:
        """A bare socket; with a client id it is connected and logged in. ``tls``: with that one's certificate
        (or ``as_whom``'s)."""
        context = None
        if tls:
            assert self.tls is not None
            who = as_whom or client_id
            context = tls_context(self.tls.ca, *(self.tls.client(who) if who else ()))
        client = RawClient(self.host, self.tls_port if tls and self.tls_port else self.port, version, context)
        if client_id is not None:
            password = None if tls else self.password(client_id)
            if password is not None:
                connect = {"username": client_id, "password": password.encode(), **connect}
            try:
                client.connect(handshake.Connect(client_id, version=version, **connect))
            except BaseException:
                client.close()
                raise
        return client


def tls_context(ca: Path, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """A client's."""
    context = ssl.create_default_context(cafile=str(ca))
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


class RawClient:
    """Packets by hand over a blocking socket: what a well-behaved library would not do."""

    def __init__(self, host: str, port: int, version: int = 5, tls: ssl.SSLContext | None = None) -> None:
        self.version = version
        self.socket: socket.socket = socket.create_connection((host, port), 10.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            try:
                self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
            except OSError:
                self.socket.close()
                raise
        self._buffer = b""
        self.connack: handshake.Connack | None = None
        self._next_id = 0
        self._early: list[tuple[int, bytes]] = []  # PUBLISH that came while something else was waited for

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Vanish: no FIN, no DISCONNECT."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, timeout: float = 5.0) -> tuple[int, bytes] | None:
        """First byte and body of the next packet; None if nothing came, b"" bodies included. Raises on EOF."""
        deadline = time.monotonic() + timeout
        while True:
            found = packets.split(self._buffer, 0, 1 << 28)
            if found is not None:
                first, start, stop = found
                body = self._buffer[start:stop]
                self._buffer = self._buffer[stop:]
                return first, body
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 16)
            except TimeoutError:
                return None
            if not data:
                raise EOFError("the broker closed the connection")
            self._buffer += data

    def expect(self, kind: int, timeout: float = 5.0) -> tuple[int, bytes]:
        """The next packet, which has to be this one; messages that come first are kept for ``message``."""
        got = self.receive(timeout)
        while got is not None and got[0] >> 4 == Kind.PUBLISH != kind:
            self._early.append(got)
            got = self.receive(timeout)
        assert got is not None, f"nothing came, {Kind(kind).name} was expected"
        assert got[0] >> 4 == kind, f"{got} came, {Kind(kind).name} was expected"
        return got

    def connect(self, packet: handshake.Connect) -> handshake.Connack:
        self.send(packet.encode())
        _, body = self.expect(Kind.CONNACK)
        self.connack = handshake.decode_connack(body, 0, len(body), self.version)
        return self.connack

    def packet_id(self) -> int:
        self._next_id = self._next_id % 65_535 + 1
        return self._next_id

    def subscribe(self, *requests: packets.Request | str, identifier: int | None = None) -> list[int]:
        """The reason codes."""
        asked = [packets.Request(r, qos=1) if isinstance(r, str) else r for r in requests]
        properties = {} if identifier is None else {wire.Property.SUBSCRIPTION_ID: [identifier]}
        packet_id = self.packet_id()
        self.send(packets.Subscribe(packet_id, asked, properties).encode(self.version))
        _, body = self.expect(Kind.SUBACK)
        answered, codes = packets.decode_suback(body, 0, len(body), self.version)
        assert answered == packet_id
        return codes

    def publish(
        self, topic: str, payload: bytes = b"", *, qos: int = 0, retain: bool = False, **properties: Any
    ) -> int | None:
        """Publishes and, for QoS 1, waits for the acknowledgement: its reason code."""
        packet_id = self.packet_id() if qos else 0
        coded = {wire.Property[name.upper()]: value for name, value in properties.items()}
        packet = packets.Publish(topic, payload, qos, retain, packet_id=packet_id, properties=coded)
        self.send(packet.encode(self.version))
        if qos != 1:
            return None
        _, body = self.expect(Kind.PUBACK)
        answered, reason = packets.decode_ack(body, 0, len(body), self.version)
        assert answered == packet_id
        return reason

    def message(self, timeout: float = 5.0, *, ack: bool = True) -> packets.Publish | None:
        """The next PUBLISH, acknowledged if it is QoS 1; None if none came."""
        got = self._early.pop(0) if self._early else self.receive(timeout)
        if got is None:
            return None
        first, body = got
        assert first >> 4 == Kind.PUBLISH, got
        packet = packets.decode_publish_fully(body, 0, len(body), first & 15, self.version)
        if ack and packet.qos == 1:
            self.send(packets.encode_ack(Kind.PUBACK, packet.packet_id))
        return packet

    def ended(self, timeout: float = 5.0) -> int | None:
        """Waits for the broker to end the connection; the reason code of its DISCONNECT, None without one."""
        reason: int | None = None
        with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
            while (got := self.receive(timeout)) is not None:
                if got[0] >> 4 == Kind.DISCONNECT:
                    reason = got[1][0] if got[1] else 0
            raise AssertionError("the connection is still open")
        return reason


def _options(options: dict[str, Any]) -> list[str]:
    """``max_packet=1024`` -> ``--max-packet 1024``; True is a flag, lists repeat."""
    found: list[str] = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            found.append(flag)
        elif isinstance(value, list | tuple):
            for one in value:
                found += [flag, str(one)]
        elif value is not None and value is not False:
            found += [flag, str(value)]
    return found


@contextlib.contextmanager
def running_broker(
    tmp_path: Path,
    *,
    fleet: str = "test",
    open: bool = False,  # noqa: A002 - what the option is called
    tls: Pki | None = None,
    **options: Any,
) -> Iterator[RunningBroker]:
    """Our broker in a process of its own; ``options`` are those of ``fleetui broker``, with underscores."""
    folder = tmp_path / "broker"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fleetui.broker", "--base-dir", str(folder), "--fleet", fleet]
    options.setdefault("port", 0)
    if open:
        command.append("--open")
    if tls is not None:
        options.setdefault("tls_port", 0)
        options |= {"tls_host": "127.0.0.1", "cert": tls.cert, "key": tls.key, "ca": tls.ca, "crl": tls.crl}
    command += [*_options(options), "--child"]
    broker = RunningBroker(command, folder, fleet, ours=True, tls=tls)
    (folder / "keys").mkdir(mode=0o700, exist_ok=True)
    broker.secret = load_or_create_secret(folder / "keys" / "local.secret")
    broker.anonymous = open
    broker.start()
    try:
        yield broker
    except BaseException:
        broker.end_clients()
        broker.kill()
        raise
    else:
        broker.close()


def find_mosquitto() -> str:
    """Its path; without it, a skip here and a failure in CI."""
    path = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is not None:
        return path
    words = "mosquitto is not installed: apt install mosquitto (the package 'mosquitto')"
    if os.environ.get("CI") == "true":
        pytest.fail(words)
    pytest.skip(words)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def running_mosquitto(
    tmp_path: Path, *, fleet: str = "test", tls: bool = False, config: str = ""
) -> Iterator[RunningBroker]:
    """A real mosquitto: anonymous on loopback, without limits that would drop what ours keeps.

    With ``tls`` it is the configuration that ``fleetui broker --export-mosquitto`` writes, and nothing else.
    """
    mosquitto = find_mosquitto()
    folder = tmp_path / "mosquitto"
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    conf = folder / "mosquitto.conf"
    pki = None
    if tls:
        export(folder, Export(fleet, host="127.0.0.1", port=port))
        pki = Pki(folder, fleet, exported=True)
        config += "user root\n" if os.geteuid() == 0 else ""  # it would become another user and not read the keys
        conf.write_text(conf.read_text() + "log_dest stderr\n" + config)
    else:
        conf.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nmax_queued_messages 100000\nset_tcp_nodelay true\n"
            f"sys_interval 1\nlog_dest stderr\n{config}"
        )
    broker = RunningBroker([mosquitto, "-c", str(conf)], folder, fleet, ours=False, tls=pki)
    broker.port = port
    broker.tls_port = port if tls else None
    broker.start()
    try:
        yield broker
    except BaseException:
        broker.end_clients()
        broker.kill()
        raise
    else:
        broker.close()
