"""Sockets: accepting, limits per address, TLS, and revocation without a restart.

The broker accepts by itself rather than through an asyncio server: connections are counted before their TLS
handshake, too many at once wait in the kernel's queue instead of being refused, and each new connection gets
the newest TLS context, so a new revocation list counts from the next handshake on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from asyncio import sslproto
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fleetui.broker.access import LOOPBACK_ONLY, is_loopback
from fleetui.broker.connection import Connection
from fleetui.broker.crl import RevocationList, read_revocations
from fleetui.broker.limits import Bucket
from fleetui.common.domain.errors import ConfigError, OperatorError

if TYPE_CHECKING:
    from fleetui.broker.core import Core

log = logging.getLogger("fleetui.broker")

BACKLOG: Final = 1024
# asyncio gives each TLS connection a buffer of 256 KiB; a TLS record is at most 16 KiB and its header.
TLS_BUFFER: Final = 16_448
# How much unsent data the kernel takes for one client before it says "full": bounds a stalled one there too.
NOT_SENT_LOW: Final = 128 * 1024
CRL_WARNING_S: Final = 3 * 86_400


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files. ``ca`` demands client certificates, ``crl`` refuses the revoked ones."""

    certificate: Path
    key: Path
    ca: Path | None = None
    crl: Path | None = None


@dataclass(frozen=True, slots=True)
class ListenerSpec:
    """A listener as data. ``policy`` names who may connect and how it is proven; see ``access``."""

    name: str
    policy: str
    host: str = "127.0.0.1"
    port: int = 0  # 0: any that is free
    tls: Tls | None = None

    def check(self) -> None:
        if self.policy in LOOPBACK_ONLY and not is_loopback(self.host):
            raise ConfigError(
                f"The listener {self.name!r} takes no certificates and must not leave this machine",
                f"Use 127.0.0.1 instead of {self.host}, or a TLS listener",
            )
        if self.policy == "certificate" and (self.tls is None or self.tls.ca is None):
            raise ConfigError(
                f"The listener {self.name!r} needs a certificate, its key and a CA", "Give --cert, --key and --ca"
            )


class Listener:
    """One listening socket and the connections that came through it."""

    def __init__(self, core: Core, spec: ListenerSpec) -> None:
        spec.check()
        self.core = core
        self.spec = spec
        self.policy = spec.policy
        self.revocations = RevocationList()
        self._socket: socket.socket | None = None
        self._context: ssl.SSLContext | None = None
        self._addresses: dict[str, int] = {}
        self._handshakes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._bucket = Bucket(core.limits.connects_per_s, core.limits.connects_per_s, core.loop.time())
        self._paused: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def revoked(self) -> frozenset[str]:
        return self.revocations.serials

    @property
    def address(self) -> tuple[str, int]:
        assert self._socket is not None
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    # ------------------------------------------------------------ opening

    def open(self) -> None:
        if self.spec.tls is not None:
            self.reload()
        family = socket.AF_INET6 if ":" in self.spec.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setblocking(False)
            sock.bind((self.spec.host, self.spec.port))
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            raise ConfigError(
                f"{self.spec.host}:{self.spec.port} cannot be listened on: {error.strerror or error}",
                "Another broker may be running there; stop it or choose another port",
            ) from None
        self._socket = sock
        self._watch()

    def reload(self) -> None:
        """Read certificate, CA and revocation list anew; connections made from now on are judged by them."""
        tls = self.spec.tls
        if tls is None:
            return
        sslproto.SSLProtocol.max_size = TLS_BUFFER
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # No tickets: a resumed session would not have its certificate judged again.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        revocations = RevocationList()
        path: Path = tls.certificate
        try:
            context.load_cert_chain(tls.certificate, tls.key)
            if tls.ca is not None:
                path = tls.ca
                context.load_verify_locations(tls.ca)
                context.verify_mode = ssl.CERT_REQUIRED
            if tls.crl is not None:
                path = tls.crl
                revocations = read_revocations(tls.crl)
                context.load_verify_locations(tls.crl)
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"{path} cannot be used: {error.strerror or error}", "Check the file, or create it anew"
            ) from None
        self._context = context
        self.revocations = revocations
        self.core.revocations_until = revocations.next_update
        self.warn_of_expiry()

    def warn_of_expiry(self) -> None:
        """A revocation list that is too old shuts everybody out."""
        until = self.revocations.next_update
        if until is not None and until - self.core.clock.now() < CRL_WARNING_S:
            assert self.spec.tls is not None
            log.warning(
                "The revocation list %s is good for %d hours only; after that nobody can connect. Write a new one.",
                self.spec.tls.crl,
                max(0, int((until - self.core.clock.now()) / 3600)),
            )

    def close(self) -> None:
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None
        if self._socket is not None:
            self.core.loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        for task in self._tasks:
            task.cancel()

    async def closed(self) -> None:
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    # ------------------------------------------------------------ accepting

    def _watch(self) -> None:
        self._paused = None
        if self._socket is not None:
            self.core.loop.add_reader(self._socket.fileno(), self._accept)

    def _pause(self, seconds: float) -> None:
        """Leave new connections in the kernel's queue for a while."""
        assert self._socket is not None
        if self._paused is None:
            self.core.loop.remove_reader(self._socket.fileno())
            self._paused = self.core.loop.call_later(seconds, self._watch)

    def _accept(self) -> None:
        core = self.core
        limits = core.limits
        for _ in range(100):
            if self._socket is None or self._paused is not None:
                return
            if self._context is not None and self._handshakes >= limits.handshakes:
                self._pause(0.02)
                return
            wait = self._bucket.take(core.loop.time())
            if wait:
                self._pause(max(wait, 0.01))
                return
            try:
                sock, peer = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors, out of memory: they come back
                log.warning("No new connections for a second: %s", error)
                self._pause(1.0)
                return
            host = str(peer[0])
            if (
                len(core.connections) + self._handshakes >= limits.connections
                or self._addresses.get(host, 0) >= limits.connections_per_address
            ):
                core.counters.connections_refused += 1
                sock.close()
                continue
            core.counters.connects += 1
            self._addresses[host] = self._addresses.get(host, 0) + 1
            self._handshakes += 1
            sock.setblocking(False)
            lowat = getattr(socket, "TCP_NOTSENT_LOWAT", None)
            if lowat is not None:
                with contextlib.suppress(OSError):  # not everywhere where the name is known
                    sock.setsockopt(socket.IPPROTO_TCP, lowat, NOT_SENT_LOW)
            task = core.loop.create_task(self._serve(sock, host))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket, host: str) -> None:
        try:
            await self.core.loop.connect_accepted_socket(
                lambda: Connection(self.core, self, host),
                sock,
                ssl=self._context,
                ssl_handshake_timeout=self.core.limits.connect_timeout_s if self._context is not None else None,
            )
        except (OSError, ssl.SSLError, asyncio.CancelledError) as error:
            self.core.counters.handshakes_failed += 1
            log.debug("A handshake with %s failed: %s", host, error)
            sock.close()
            self._leave(host)
        finally:
            self._handshakes -= 1

    def left(self, connection: Connection) -> None:
        self._leave(connection.host)

    def _leave(self, host: str) -> None:
        count = self._addresses.get(host, 0) - 1
        if count > 0:
            self._addresses[host] = count
        else:
            self._addresses.pop(host, None)

    # ------------------------------------------------------------ certificates

    @staticmethod
    def certificate(connection: Connection) -> Mapping[str, Any]:
        """The verified certificate of a connection, as ``SSLSocket.getpeercert`` gives it; empty without one."""
        transport = connection.transport
        tls = transport.get_extra_info("ssl_object") if transport is not None else None
        return (tls.getpeercert() or {}) if tls is not None else {}

    def revoke(self) -> int:
        """Read the files anew and end the connections of revoked certificates. Says how many those were."""
        self.reload()
        ended = 0
        for connection in list(self.core.connections):
            identity = connection.identity
            if connection.listener is self and identity is not None and identity.serial in self.revoked:
                self.core.kick(connection)
                ended += 1
        return ended


def open_all(core: Core, specs: list[ListenerSpec]) -> list[Listener]:
    """All or none."""
    opened: list[Listener] = []
    try:
        for spec in specs:
            listener = Listener(core, spec)
            listener.open()
            opened.append(listener)
    except OperatorError:
        for listener in opened:
            listener.close()
        raise
    return opened
