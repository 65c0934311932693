"""``fleetui broker --check``: is the broker of this instance there, and does it answer?

Connects like any client, with a plain socket and an id of its own, and pings. Blocking, one thread, at most a
few seconds.
"""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import Any, Final

from fleetui.broker import packets
from fleetui.broker.handshake import Connect, Disconnect, decode_connack
from fleetui.broker.packets import V5, Kind
from fleetui.broker.wire import PacketError, Reason
from fleetui.common.domain.clock import Clock
from fleetui.common.domain.errors import LinkError
from fleetui.common.trust.local import load_or_create_secret, local_password

CLIENT_ID: Final = "broker-check"
TIMEOUT_S: Final = 5.0


def read_ports(run: Path) -> dict[str, Any]:
    """What ``broker.json`` says: pid, fleet and listeners of the running broker."""
    try:
        found: dict[str, Any] = json.loads((run / "broker.json").read_text("utf-8"))
    except FileNotFoundError:
        raise LinkError(
            f"No broker runs in {run.parent}", "Start one with 'fleetui broker', or check --base-dir"
        ) from None
    except (OSError, ValueError):
        raise LinkError(f"{run / 'broker.json'} cannot be read", "Restart the broker") from None
    return found


def check(run: Path, secret: Path, clock: Clock) -> dict[str, Any]:
    """Connect, ping, disconnect: where, and how many milliseconds; :class:`LinkError` with the reason if not.

    ``secret`` is the file from which the loopback listener's passwords come.
    """
    ports = read_ports(run)
    listener = next((one for one in ports["listeners"] if one["policy"] in {"local", "open"}), None)
    if listener is None:
        raise LinkError("The broker has no loopback listener to check", "Start it with one")
    host, port = str(listener["host"]), int(listener["port"])
    local = listener["policy"] == "local"
    password = local_password(load_or_create_secret(secret), CLIENT_ID) if local else None
    began = clock.monotonic()
    try:
        with socket.create_connection((host, port), TIMEOUT_S) as sock:
            sock.settimeout(TIMEOUT_S)
            connect = Connect(CLIENT_ID, keepalive=10, password=None if password is None else password.encode())
            sock.sendall(connect.encode())
            _, body = _receive(sock)
            answer = decode_connack(body, 0, len(body), V5)
            if answer.reason != Reason.SUCCESS:
                raise LinkError(f"The broker at {host}:{port} refused: reason 0x{answer.reason:02x}", "See its log")
            sock.sendall(packets.PINGREQ)
            first, _ = _receive(sock)
            if first >> 4 != Kind.PINGRESP:
                raise LinkError(f"The broker at {host}:{port} answered a ping with something else", "See its log")
            milliseconds = (clock.monotonic() - began) * 1000
            with contextlib.suppress(OSError):
                sock.sendall(Disconnect().encode(V5))
    except (OSError, EOFError, PacketError) as error:
        raise LinkError(
            f"The broker at {host}:{port} does not answer: {error}", "See its log, or restart it"
        ) from None
    return {"host": host, "port": port, "pid": ports.get("pid"), "ms": round(milliseconds, 2)}


def _receive(sock: socket.socket) -> tuple[int, bytes]:
    data = b""
    while (found := packets.split(data, 0, 1 << 20)) is None:
        more = sock.recv(65536)
        if not more:
            raise EOFError("it closed the connection")
        data += more
    first, start, stop = found
    return first, data[start:stop]
