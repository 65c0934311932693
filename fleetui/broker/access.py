"""Who is who, and who may what.

A listener names a *policy*: a function that turns a CONNECT, and the certificate behind it where there is one,
into an :class:`Identity`, or refuses. Another listener with other rules is another entry in ``POLICIES``.

=================  =====================================================================================
``local``          loopback; the password proves the client id: ``local_password(secret, client_id)``
``certificate``    mutual TLS; the certificate's common name is the client id
``open``           anonymous, loopback only, asked for explicitly: benchmarks and conformance tests
=================  =====================================================================================

Rights follow from the identity, never from what a client says: a *station* reads and writes everything; a
*device* writes below its own ``up/`` and reads its own ``down/``, ``trust/`` and single blobs by their name.
Topics that begin with ``$`` are the broker's own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleetui.broker.handshake import Connect
from fleetui.broker.topics import is_plain
from fleetui.broker.wire import PacketError, Reason
from fleetui.common.domain.values import is_id
from fleetui.common.trust.local import check_local_password

SYS: Final = "$SYS/"
CONTROL: Final = "$CONTROL/"


@dataclass(frozen=True, slots=True)
class Rights:
    """What an identity may do. ``write`` is a prefix, as bytes, for the hot path looks at bytes."""

    write: bytes
    read: tuple[str, ...]  # prefixes below which any filter is allowed
    read_single: tuple[str, ...] = ()  # prefixes below which exactly one level by its name is allowed
    read_all: bool = False
    control: bool = False
    share: bool = False
    unlimited: bool = False  # publishes as fast as it likes, with the larger queues

    def may_publish(self, topic: bytes) -> bool:
        if topic.startswith(b"$"):
            return self.control and topic.startswith(CONTROL.encode())
        return topic.startswith(self.write)

    def may_subscribe(self, group: str | None, bare: str) -> bool:
        """Whether nothing that ``bare`` can match is forbidden."""
        if group is not None and not self.share:
            return False
        if bare.startswith("$"):
            return self.control and bare.startswith((SYS, CONTROL))
        if self.read_all or bare.startswith(self.read):
            return True
        for prefix in self.read_single:
            if bare.startswith(prefix) and len(bare) > len(prefix):
                return is_plain(bare) and "/" not in bare[len(prefix) :]
        return False


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a connection is. ``proven`` is empty for anonymous ones; sessions belong to what is proven."""

    client_id: str
    proven: str
    rights: Rights
    serial: str = ""  # of the certificate, hexadecimal as in a revocation list

    @property
    def station(self) -> bool:
        return self.rights.unlimited


@dataclass(frozen=True, slots=True)
class Directory:
    """What policies know: the fleet, its stations, the secret of the loopback listener."""

    fleet: str
    stations: frozenset[str]
    secret: bytes = b""

    def rights(self, client_id: str) -> Rights:
        if client_id in self.stations:
            return _STATION
        root = f"fleet/{self.fleet}"
        return Rights(
            write=f"{root}/up/{client_id}/".encode(),
            read=(f"{root}/down/{client_id}/", f"{root}/trust/"),
            read_single=(f"{root}/blob/",),
        )


_STATION: Final = Rights(write=b"", read=(), read_all=True, control=True, share=True, unlimited=True)
_ANYBODY: Final = Rights(write=b"", read=(), read_all=True, share=True, unlimited=True)

Certificate = Mapping[str, Any]
Policy = Callable[[Directory, Connect, Certificate], Identity]


def local(directory: Directory, packet: Connect, _: Certificate) -> Identity:
    client_id = packet.client_id
    if not is_id(client_id):
        raise PacketError(Reason.BAD_CLIENT_ID, f"{client_id[:80]!r} is not an id")
    if packet.username not in {None, "", client_id}:
        raise PacketError(Reason.BAD_CREDENTIALS, f"{client_id} came with another's user name")
    if packet.password is None or not check_local_password(directory.secret, client_id, packet.password):
        raise PacketError(Reason.BAD_CREDENTIALS, f"{client_id} came with a wrong password")
    return Identity(client_id, f"id:{client_id}", directory.rights(client_id))


def certificate(directory: Directory, packet: Connect, certificate: Certificate) -> Identity:
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    if len(names) != 1 or not is_id(names[0]):
        raise PacketError(Reason.NOT_AUTHORISED, "a certificate without one common name that is an id")
    name: str = names[0]
    if packet.client_id != name:
        raise PacketError(
            Reason.BAD_CLIENT_ID, f"{name}'s certificate came with client id {packet.client_id[:80]!r}"
        )
    if packet.username not in {None, "", name}:
        raise PacketError(Reason.BAD_CREDENTIALS, f"{name} came with another's user name")
    return Identity(
        name, f"id:{name}", directory.rights(name), str(certificate.get("serialNumber", "")).lstrip("0")
    )


def anybody(_: Directory, packet: Connect, __: Certificate) -> Identity:
    return Identity(packet.client_id, "", _ANYBODY)


POLICIES: Final[dict[str, Policy]] = {"local": local, "certificate": certificate, "open": anybody}
LOOPBACK_ONLY: Final = frozenset({"local", "open"})


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
