"""``fleet-agent doctor``: looks at everything an agent needs and says in sentences what is wrong.

Reads files, asks the broker's address for a connection, changes nothing.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fleet_sim.agent import state
from fleet_sim.agent.settings import AgentSettings
from fleet_sim.agent.vitals import VitalSigns
from fleetui.common.domain import ages
from fleetui.common.domain.clock import Clock
from fleetui.common.domain.errors import OperatorError
from fleetui.common.link.transport import LinkConfig, TlsFiles

CONNECT_S = 5.0
EXPIRES_SOON_D = 21
FREE_BYTES = 50 * 1024 * 1024
FIRST_SANE_DAY = 1_735_689_600  # 2025-01-01: no clock that works is older than this program
SILENT_S = 60.0


@dataclass(frozen=True, slots=True)
class Finding:
    good: bool
    text: str


def examine(settings: AgentSettings, clock: Clock) -> Iterator[Finding]:
    """One finding after the other, as they are made."""
    yield _clock(clock)
    yield _folder(settings.data)
    yield _space(settings.data)
    try:
        settings.access.check(settings.device)
    except OperatorError as error:
        yield Finding(False, str(error))
        return
    files = settings.access.config(LinkConfig(settings.device)).tls
    if files is not None:
        yield from _certificate(files, settings.device, clock)
    yield _broker(settings, files)
    yield _temperature(settings)
    yield from _agent(settings, clock)


def _clock(clock: Clock) -> Finding:
    now = clock.now()
    when = dt.datetime.fromtimestamp(now, dt.UTC)
    if now < FIRST_SANE_DAY:
        return Finding(False, f"The clock says {when:%Y-%m-%d}: set it, or let NTP do so.")
    return Finding(True, f"The clock says {when:%Y-%m-%d %H:%M} UTC.")


def _folder(folder: Path) -> Finding:
    if not folder.exists():
        parent = next(p for p in folder.parents if p.exists())
        if os.access(parent, os.W_OK):
            return Finding(True, f"The data folder {folder} will be made.")
        return Finding(False, f"The data folder {folder} is not there, and {parent} is not writable.")
    if not os.access(folder, os.W_OK):
        return Finding(False, f"The data folder {folder} is not writable for this user.")
    return Finding(True, f"The data folder {folder} is writable.")


def _space(folder: Path) -> Finding:
    there = folder if folder.exists() else next(p for p in folder.parents if p.exists())
    free = shutil.disk_usage(there).free
    if free < FREE_BYTES:
        return Finding(False, f"Only {ages.size(free)} are free at {there}: the queue may not fit.")
    return Finding(True, f"{ages.size(free)} are free at {there}.")


def _certificate(files: TlsFiles, device: str, clock: Clock) -> Iterator[Finding]:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    assert files.certificate is not None
    try:
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    except (OSError, ValueError) as error:
        yield Finding(False, f"The certificate {files.certificate} cannot be read: {error}.")
        return
    names = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if device not in names:
        yield Finding(False, f"The certificate is {' '.join(names) or 'nobody'}'s, not {device}'s.")
    left = certificate.not_valid_after_utc.timestamp() - clock.now()
    if certificate.not_valid_before_utc.timestamp() > clock.now():
        yield Finding(False, "The certificate is not valid yet: is the clock right?")
    elif left < 0:
        yield Finding(False, f"The certificate ended {ages.age(-left)} ago: have it renewed.")
    elif left < EXPIRES_SOON_D * 86400:
        yield Finding(False, f"The certificate ends in {ages.duration(left)}: have it renewed.")
    else:
        yield Finding(True, f"The certificate is valid for {ages.duration(left)} more.")


def _broker(settings: AgentSettings, files: TlsFiles | None) -> Finding:
    address = settings.access.address
    try:
        with socket.create_connection((address.host, address.port), CONNECT_S) as sock:
            if files is None:
                return Finding(True, f"The broker at {address} takes connections.")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(files.ca)
            assert files.certificate is not None
            context.load_cert_chain(files.certificate, files.key)
            with context.wrap_socket(sock, server_hostname=address.host):
                return Finding(True, f"The broker at {address} takes connections, and its certificate is trusted.")
    except ssl.SSLCertVerificationError as error:
        return Finding(False, f"The certificate of {address} is not trusted: {error.verify_message}.")
    except OSError as error:
        return Finding(False, f"No connection to {address}: {(error.strerror or str(error)).lower()}.")


def _temperature(settings: AgentSettings) -> Finding:
    vitals = VitalSigns(settings.data).read()
    known = [
        name
        for name, value in (("memory", vitals.memory), ("disk", vitals.disk), ("temperature", vitals.temperature))
        if value == value  # noqa: PLR0124 - not NaN
    ]
    return Finding(True, f"This machine tells its {', '.join(known) or 'nothing'}.")


def _agent(settings: AgentSettings, clock: Clock) -> Iterator[Finding]:
    known = state.read(settings.data)
    if not state.running(settings.data):
        yield Finding(False, "No agent runs with this configuration.")
        return
    if known is None:
        yield Finding(False, "An agent runs, but has not written its state.")
        return
    silent = clock.now() - float(known.get("at") or 0.0)
    if silent > SILENT_S:
        yield Finding(False, f"The agent runs, but wrote its state {ages.age(silent)} ago.")
    if known.get("link") == "online":
        yield Finding(True, f"The agent runs and is connected; {known.get('queued')} reports wait.")
    else:
        yield Finding(
            False, f"The agent runs and is not connected: {known.get('link_reason') or known.get('link')}."
        )
    if known.get("problem"):
        yield Finding(False, f"The agent's queue cannot be saved: {known['problem']}.")
