"""Sockets for the loop: connecting without blocking it, and reading and writing in large pieces.

:class:`Dialer` opens a TCP connection and does the TLS handshake step by step, so a broker that does not answer
delays nobody else. :class:`LinkSocket` stands between the system's socket and paho, which reads byte by byte and
writes packet by packet: here each readiness costs one system call, whatever the number of packets.

Everything runs on the loop's thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable, Sequence

from fleetui.common.link.loop import READ, WRITE, LinkLoop
from fleetui.common.link.resolve import Address
from fleetui.common.link.transport import LinkCounters

OUT_LIMIT = 262_144


class Dialer:
    """One attempt to connect, over all addresses of a host in turn. Ends in exactly one of the two callbacks."""

    __slots__ = (
        "_addresses",
        "_context",
        "_error",
        "_events",
        "_failed",
        "_host",
        "_loop",
        "_opened",
        "_sock",
        "_tls",
    )

    def __init__(
        self,
        loop: LinkLoop,
        addresses: Sequence[Address],
        context: ssl.SSLContext | None,
        host: str,
        opened: Callable[[socket.socket], None],
        failed: Callable[[OSError], None],
    ) -> None:
        self._loop = loop
        self._addresses = list(addresses)
        self._context = context
        self._host = host
        self._opened = opened
        self._failed = failed
        self._error: OSError = OSError(errno.EADDRNOTAVAIL, "the host has no address")
        self._sock: socket.socket | None = None
        self._tls = False
        self._events = 0

    def begin(self) -> None:
        while self._addresses:
            family, address = self._addresses.pop(0)
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                self._error = error
                continue
            self._sock, self._tls = sock, False
            sock.setblocking(False)
            code = sock.connect_ex(address)
            if code in {0, errno.EINPROGRESS, errno.EWOULDBLOCK}:
                self._want(WRITE)
                return
            self._error = OSError(code, os.strerror(code))
            self._sock = None
            sock.close()
        self._failed(self._error)

    def cancel(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            if self._events:
                self._loop.unregister(sock.fileno())
                self._events = 0
            sock.close()

    def on_ready(self, events: int) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            if not self._tls:
                _raise_pending(sock)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._context is not None:
                    self._want(0)
                    sock = self._context.wrap_socket(
                        sock, server_hostname=self._host, do_handshake_on_connect=False
                    )
                    self._sock, self._tls = sock, True
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
        except ssl.SSLWantReadError:
            self._want(READ)
        except ssl.SSLWantWriteError:
            self._want(WRITE)
        except OSError as error:
            self._error = error
            self.cancel()
            self.begin()
        else:
            self._want(0)
            self._sock = None
            self._opened(sock)

    def _want(self, events: int) -> None:
        if self._sock is None or events == self._events:
            return
        if not self._events:
            self._loop.register(self._sock.fileno(), self, events)
        elif not events:
            self._loop.unregister(self._sock.fileno())
        else:
            self._loop.modify(self._sock.fileno(), self, events)
        self._events = events


def _raise_pending(sock: socket.socket) -> None:
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


class LinkSocket:
    """What paho takes for a socket: ``recv`` from a buffer that was filled at once, ``send`` into one."""

    __slots__ = ("_closed", "_counters", "_fresh", "_in", "_loop", "_out", "_pos", "_sock", "_tls", "error")

    def __init__(self, sock: socket.socket, loop: LinkLoop, counters: LinkCounters) -> None:
        self._sock = sock
        self._counters = counters
        self._loop = loop
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._in = b""
        self._pos = 0
        self._out = bytearray()
        self._fresh = False
        self._closed = False
        self.error: OSError | None = None  # why it broke, which paho does not tell

    # What paho calls.

    def recv(self, size: int) -> bytes:
        pos = self._pos
        end = pos + size
        data = self._in
        if end <= len(data):
            self._pos = end
            return data[pos:end]
        if pos < len(data):
            self._pos = len(data)
            return data[pos:]
        if data:
            self._in, self._pos = b"", 0
        if not self._fresh:
            raise BlockingIOError
        # Into a piece of memory that all connections share: a buffer for each recv would fragment the heap.
        scratch = self._loop.scratch
        try:
            count = self._sock.recv_into(scratch)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._fresh = False
            raise BlockingIOError from None
        except OSError as error:
            self.error = error
            raise
        if not count:
            self.error = self.error or ConnectionResetError(errno.ECONNRESET, "the broker closed the connection")
            return b""
        # A short read has emptied the system's buffer; TLS returns a record at a time and says nothing of more.
        self._fresh = self._tls or count == len(scratch)
        self._counters.bytes_in += count
        self._in = bytes(scratch[:count])
        self._pos = min(size, count)
        return self._in[:size]

    def send(self, data: bytes | bytearray) -> int:
        if len(self._out) > OUT_LIMIT:
            raise BlockingIOError
        self._out += data
        return len(data)

    def fileno(self) -> int:
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 - the socket interface
        self._sock.setblocking(flag)

    def pending(self) -> int:
        return len(self._in) - self._pos or self._fresh

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            self.flush()  # a goodbye that was just written
        self._loop.unregister(self._sock.fileno())
        self._sock.close()

    # What the transport calls.

    def readable(self) -> None:
        """The system says that there is something: the next ``recv`` may ask it."""
        self._fresh = True

    def drop(self) -> None:
        """Forget what is not written yet."""
        self._out.clear()

    @property
    def unwritten(self) -> int:
        return len(self._out)

    def flush(self) -> bool:
        """Write what there is; False if some is left. Raises ``OSError`` if the connection is broken."""
        out = self._out
        while out:
            try:
                done = self._sock.send(out)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            except OSError as error:
                self.error = self.error or error
                raise
            self._counters.bytes_out += done
            del out[:done]
        return True
