"""What a station is told when it starts.

Plain values; no files are read here but the instance's secret and where its broker listens.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fleetui.common.basedir import BaseDir
from fleetui.common.domain.errors import ConfigError
from fleetui.common.domain.presence import PresenceRule
from fleetui.common.domain.values import fleet_name, is_id
from fleetui.common.link.transport import LinkConfig, TlsFiles
from fleetui.common.trust.local import load_or_create_secret, local_password
from fleetui.station.ingest.limits import Limit
from fleetui.station.leader import run_name

DEFAULT_FLEET = "main"
DEFAULT_ID = "station"
SESSION_EXPIRY_S = 24 * 3600
RECEIVE_MAXIMUM = 4_000


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """``mqtt://[user[:password]@]host[:port]`` or ``mqtts://…``."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> BrokerAddress:
        fix = "Write it as mqtt://HOST:PORT or mqtts://HOST:PORT"
        try:
            parts = urlsplit(url if "://" in url else f"mqtt://{url}")
            port = parts.port
        except ValueError:
            raise ConfigError(f"{url!r} is not the address of a broker", fix) from None
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname or parts.path.strip("/") or port == 0:
            raise ConfigError(f"{url!r} is not the address of a broker", fix)
        tls = parts.scheme == "mqtts"
        return cls(
            parts.hostname,
            port or (8883 if tls else 1883),
            tls,
            unquote(parts.username) if parts.username else None,
            unquote(parts.password) if parts.password else None,
        )


@dataclass(frozen=True, slots=True)
class OwnBroker:
    """The embedded broker of an instance."""

    address: BrokerAddress
    fleet: str
    local: bool  # it wants the local password


def broker_of(base: BaseDir) -> OwnBroker:
    """Where this instance's own broker listens: it writes that down when it starts."""
    path = base.run / "broker.json"
    fix = "Start it with 'fleetui broker', or name another broker with --broker mqtt://HOST:PORT"
    try:
        found = json.loads(path.read_text("utf-8"))
        [listener] = [one for one in found["listeners"] if one["policy"] in {"local", "open"}][:1]
        address = BrokerAddress(str(listener["host"]), int(listener["port"]))
        return OwnBroker(address, str(found["fleet"]), local=listener["policy"] == "local")
    except FileNotFoundError:
        raise ConfigError("The broker of this instance is not running", fix) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} does not say where the broker listens ({error})", fix) from None


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Presence, in beats of fleet time.

    ``floor_s`` is real time: where fleet time runs fast, no device is called silent because this machine
    hesitated for less than that.
    """

    late_beats: float = 2.5
    offline_beats: float = 6.0
    floor_s: float = 5.0

    def rule(self, beat_s: float, rate: float) -> PresenceRule:
        """The rule for devices that beat every ``beat_s`` of a fleet time that runs ``rate`` times as fast."""
        interval = max(beat_s, self.floor_s * rate / self.late_beats)
        return PresenceRule(interval, late_after=self.late_beats, offline_after=self.offline_beats)


@dataclass(frozen=True, slots=True)
class StationConfig:
    """Everything a station needs to know."""

    base: BaseDir
    store_url: str
    broker: BrokerAddress
    fleet: str = DEFAULT_FLEET
    station: str = DEFAULT_ID  # client id at the broker: stations that stand in for each other share it
    own_broker: bool = False  # the instance's: where it listens is looked up again when it cannot be reached
    secret: bytes | None = None  # of the local listener; None: the broker's address says how to log in
    tls: TlsFiles | None = None
    clock: str | None = None
    beat_s: float = 10.0  # how often a device says that it is there, fleet time
    thresholds: Thresholds = field(default_factory=Thresholds)
    admit: str = "open"  # open: a birth makes a device; pending: a person accepts it first
    limit: Limit = field(default_factory=Limit)
    max_devices: int = 100_000
    gap_age_s: float = 30.0  # real time until a missing report counts as lost
    gather_s: float = 0.002  # how long the first message of a batch waits for others
    batch_most: int = 2_000
    lease_s: float = 6.0  # real time; a silent leader is followed after this
    sample_s: float = 10.0  # fleet time between two points of the fleet's own curves
    status_s: float = 1.0
    rollup_s: float = 30.0
    retention_s: float = (
        600.0  # real time; the first time so long after taking the lead: a recording may come first
    )
    ask_timeout_s: float = 10.0  # real time
    run: str = field(default_factory=run_name)

    def __post_init__(self) -> None:
        fleet_name(self.fleet)
        if not is_id(self.station):
            raise ConfigError(
                f"{self.station!r} is not a station id", "Use 1 to 64 letters, digits, '_', '.' or '-'"
            )
        if not 0.05 <= self.beat_s <= 86_400:
            raise ConfigError(f"A beat of {self.beat_s:g} s makes no sense", "Choose one between 0.05 and 86400")
        if self.admit not in {"open", "pending"}:
            raise ConfigError(f"{self.admit!r} is not a way to admit devices", "Choose open or pending")

    @property
    def receive_maximum(self) -> int:
        return RECEIVE_MAXIMUM

    def scaled_limit(self, rate: float) -> Limit:
        """Where fleet time runs fast, devices beat fast in real time; five times their pace is allowed."""
        pace = 2.0 * rate / self.beat_s
        return replace(self.limit, per_second=max(self.limit.per_second, 5.0 * pace))

    @property
    def holder(self) -> str:
        """One run of one station, for leases and wishes."""
        return f"{self.station}@{self.run}"

    def link(self) -> LinkConfig:
        """How to connect. The session outlives a killed station; what it had not confirmed is sent again."""
        username, password = self.broker.username, self.broker.password
        if self.secret is not None and username is None:
            username, password = self.station, local_password(self.secret, self.station)
        return LinkConfig(
            client_id=self.station,
            host=self.broker.host,
            port=self.broker.port,
            username=username,
            password=password,
            tls=self.tls,
            keepalive_s=20,
            session_expiry_s=SESSION_EXPIRY_S,
            receive_maximum=RECEIVE_MAXIMUM,
            manual_ack=True,
            queue_limit=10_000,
            backoff_min_s=0.2,
            backoff_max_s=10.0,
        )


def settings_from(base: BaseDir, args: argparse.Namespace) -> StationConfig:
    """What the command line says, completed by what the instance knows."""
    fleet: str | None = args.fleet
    secret, own_broker = None, False
    if args.broker:
        broker = BrokerAddress.parse(args.broker)
        # A broker on this machine may be this instance's own; the password is only good there.
        if not broker.tls and broker.username is None and _is_loopback(broker.host) and base.local_secret.exists():
            secret = load_or_create_secret(base.local_secret)
    elif args.replay is not None:
        broker = BrokerAddress("127.0.0.1", 1883)  # a recording needs none
    else:
        own, own_broker = broker_of(base), True
        broker, fleet = own.address, fleet or own.fleet
        secret = load_or_create_secret(base.local_secret) if own.local else None
    return StationConfig(
        base=base,
        store_url=args.store or base.store_url,
        broker=broker,
        fleet=fleet or DEFAULT_FLEET,
        station=args.id,
        own_broker=own_broker,
        secret=secret,
        tls=tls_files(args.ca, args.cert, args.key, wanted=broker.tls),
        clock=args.clock,
        beat_s=args.beat,
        admit=args.admit,
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def tls_files(ca: Path | None, certificate: Path | None, key: Path | None, *, wanted: bool) -> TlsFiles | None:
    """The files for TLS, where it is wanted; says what is missing."""
    given = [path for path in (ca, certificate, key) if path is not None]
    if not wanted:
        if given:
            raise ConfigError("Certificates were given for a connection without TLS", "Use --broker mqtts://HOST")
        return None
    if ca is None:
        raise ConfigError("TLS needs the authority's certificate", "Add --ca FILE")
    if (certificate is None) != (key is None):
        raise ConfigError("A certificate and its key belong together", "Give both --cert and --key")
    for path in given:
        if not path.is_file():
            raise ConfigError(f"{path} is not there", "Name an existing PEM file")
    return TlsFiles(ca, certificate, key)
