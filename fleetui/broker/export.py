"""A ready mosquitto configuration with the rules of the embedded broker.

``fleetui broker --export-mosquitto DIR`` writes::

    mosquitto.conf    one TLS listener, client certificates required, client id = common name
    acl               what a device may: up/ its own, down/ its own, trust/ and blob/ to read
    ca.crt            who signs devices; its key is kept beside it, in authority/
    server.crt .key   the broker's certificate, for the names given
    station.crt .key  a station's
    crl.pem           revoked certificates (none yet)
    authority/        ca.key and ca.crt: move the folder off the machine once the devices have theirs

Written again into the same folder, keys and certificates stay as they are; configuration and access list are
brought up to date. Tested against mosquitto 2.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fleetui.broker.limits import Limits
from fleetui.common.domain.clock import Clock, SystemClock
from fleetui.common.domain.errors import ConfigError
from fleetui.common.domain.values import fleet_name, is_id
from fleetui.common.trust.pki import Authority

PORT: Final = 8883


@dataclass(frozen=True, slots=True)
class Export:
    """What to write."""

    fleet: str
    names: Sequence[str] = ("localhost", "127.0.0.1")  # under which clients reach the broker
    stations: Sequence[str] = ("station",)
    host: str = ""  # to listen on; empty: everywhere
    port: int = PORT
    limits: Limits = field(default_factory=Limits)


def export(folder: Path, what: Export, clock: Clock | None = None) -> list[Path]:
    """Write the files; says which. Existing keys and certificates are never overwritten."""
    fleet_name(what.fleet)
    for station in what.stations:
        if not is_id(station):
            raise ConfigError(f"{station!r} is not an id", "Use 1 to 64 letters, digits, '_', '.' or '-'")
    try:
        authority_folder = folder / "authority"
        authority_folder.mkdir(parents=True, exist_ok=True)
        authority_folder.chmod(0o700)
        written: list[Path] = []
        authority = _authority(authority_folder, what.fleet, clock or SystemClock(), written)
        ca = folder / "ca.crt"
        if not ca.exists():
            ca.write_bytes(authority.certificate_pem)
            written.append(ca)
        if not (folder / "server.key").exists():
            written += authority.issue_server(list(what.names)).save(folder, "server")
        for station in what.stations:
            if not (folder / f"{station}.key").exists():
                written += authority.issue_client(station).save(folder, station)
        revoked = folder / "crl.pem"
        if not revoked.exists():
            revoked.write_bytes(authority.crl([]))
            written.append(revoked)
        for name, text in (("acl", access_list(what)), ("mosquitto.conf", configuration(folder, what))):
            (folder / name).write_text(text, "utf-8")
            written.append(folder / name)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written: {error.strerror or error}", "Choose another folder"
        ) from None
    return written


def _authority(folder: Path, fleet: str, clock: Clock, written: list[Path]) -> Authority:
    if (folder / "ca.key").exists():
        authority = Authority.load(folder, clock=clock)
        if authority.fleet != fleet:
            raise ConfigError(
                f"{folder} holds the authority of the fleet {authority.fleet!r}",
                f"Choose another folder, or --fleet {authority.fleet}",
            )
        return authority
    authority = Authority.create(fleet, clock)
    authority.save(folder)
    written += [folder / "ca.key", folder / "ca.crt"]
    return authority


def access_list(what: Export) -> str:
    """Mosquitto's ``acl_file``. ``%u`` is the certificate's common name."""
    root = f"fleet/{what.fleet}"
    lines = [
        "# Written by 'fleetui broker --export-mosquitto'; written anew by it, too.",
        "# A device (%u) writes below its own up/ and reads its own down/, trust/ and blobs by their name.",
        f"pattern write {root}/up/%u/#",
        f"pattern read {root}/down/%u/#",
        f"pattern read {root}/trust/#",
        f"pattern read {root}/blob/+",
    ]
    for station in what.stations:
        lines += ["", f"user {station}", "topic readwrite #", "topic read $SYS/#"]
    return "\n".join(lines) + "\n"


def configuration(folder: Path, what: Export) -> str:
    """``mosquitto.conf`` with absolute paths."""
    limits = what.limits
    folder = folder.absolute()
    listener = f"listener {what.port} {what.host}".rstrip()
    return f"""\
# Written by 'fleetui broker --export-mosquitto' for mosquitto 2.0; written anew by it, too.
# Start: mosquitto -c {folder}/mosquitto.conf
# Start it as the user who owns these files; as root, mosquitto becomes the user 'mosquitto' and cannot read them.
# After a change of crl.pem: kill -HUP (running connections stay; new ones are judged by it).
per_listener_settings false
{listener}
cafile {folder}/ca.crt
certfile {folder}/server.crt
keyfile {folder}/server.key
crlfile {folder}/crl.pem
tls_version tlsv1.2
# Who a client is stands in its certificate, and nowhere else: without the last line of these three, any device
# with a valid certificate could take over another one's client id.
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {folder}/acl
persistence true
persistence_location {folder}/
autosave_interval 30
set_tcp_nodelay true
max_inflight_messages {limits.window_v3}
max_queued_messages {limits.station_queue_messages}
max_queued_bytes {limits.station_queue_bytes}
max_packet_size {limits.max_packet}
sys_interval 10
"""
