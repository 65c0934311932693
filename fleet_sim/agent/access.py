"""How an agent gets at its broker: the address, and what proves who it is. Reads files, opens no connection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fleetui.common.domain.errors import AccessError, ConfigError
from fleetui.common.link.transport import LinkConfig, TlsFiles
from fleetui.common.trust.local import load_or_create_secret, local_password


@dataclass(frozen=True, slots=True)
class Address:
    """``mqtt://HOST[:PORT]`` or ``mqtts://HOST[:PORT]``."""

    host: str
    port: int
    tls: bool = False

    @classmethod
    def parse(cls, url: str) -> Address:
        try:
            parts = urlsplit(url if "://" in url else f"mqtt://{url}")
            port = parts.port
            good = parts.scheme in {"mqtt", "mqtts"} and bool(parts.hostname) and port != 0
        except ValueError:
            good = False
        if not good or parts.path.strip("/") or parts.username is not None:
            raise ConfigError(
                f"{url!r} is not the address of a broker", "Write mqtt://HOST:PORT or mqtts://HOST:PORT"
            )
        tls = parts.scheme == "mqtts"
        return cls(parts.hostname or "", port or (8883 if tls else 1883), tls)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Access:
    """One of three: certificates, the local secret, or neither (an open broker)."""

    address: Address
    secret: bytes | None = None
    certificates: Path | None = None  # a folder with ca.crt, <device>.crt and <device>.key
    tls: TlsFiles | None = None  # of one device

    @classmethod
    def of(cls, url: str, *, secret: Path | None = None, certificates: Path | None = None) -> Access:
        """From arguments. Raises ``OperatorError`` for what does not fit together or cannot be read."""
        address = Address.parse(url)
        if secret is not None and certificates is not None:
            raise ConfigError("A secret and certificates were both given", "Keep one of them")
        if certificates is not None and not address.tls:
            raise ConfigError("Certificates were given for a connection without TLS", "Use mqtts://HOST:PORT")
        if address.tls and certificates is None:
            raise ConfigError(f"{address} wants certificates", "Name their folder")
        if certificates is not None and not (certificates / "ca.crt").is_file():
            raise AccessError(f"There is no ca.crt in {certificates}", "Name the folder with the certificates")
        return cls(address, read_secret(secret) if secret is not None else None, certificates)

    def config(self, base: LinkConfig) -> LinkConfig:
        """``base`` with address and credentials of the device ``base.client_id``."""
        device = base.client_id
        changes: dict[str, Any] = {"host": self.address.host, "port": self.address.port}
        if self.secret is not None:
            changes.update(username=device, password=local_password(self.secret, device))
        if self.tls is not None:
            changes["tls"] = self.tls
        elif self.certificates is not None:
            folder = self.certificates
            changes["tls"] = TlsFiles(folder / "ca.crt", folder / f"{device}.crt", folder / f"{device}.key")
        return replace(base, **changes)

    def check(self, device: str) -> None:
        """Raises ``AccessError`` if something that ``device`` needs is not there."""
        files = self.config(LinkConfig(device)).tls
        if files is None:
            return
        for path in (files.ca, files.certificate, files.key):
            if path is not None and not path.is_file():
                raise AccessError(
                    f"There is no {path.name} in {path.parent} for the device {device}",
                    "Have it issued, or name it",
                )


def read_secret(path: Path) -> bytes:
    """The instance's secret, which has to be there already: a fresh one would open no broker."""
    if not path.is_file():
        raise AccessError(
            f"There is no secret at {path}", "The broker writes it to keys/local.secret when it starts"
        )
    return load_or_create_secret(path)
