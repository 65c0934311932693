"""Certificates for brokers and devices, from a local certificate authority.

One authority per fleet: EC P-256, path length 0, so what it signs can sign nothing further. A device is who its
certificate names: the client id is the common name, and ``spiffe://<fleet>/device/<id>`` the alternative name.
Devices that make their own key send a signing request; only its public key is taken over, every other wish in
it is ignored.

Certificates are judged by TLS in real time, so the clock given here has to be this machine's own, not a fleet
clock that runs fast. Not here: enrolment (who may have a certificate), and keeping the list of revoked serials.
No threads; each call is plain computation (about half a millisecond per certificate) and file access.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetui.common.domain.clock import Clock, SystemClock
from fleetui.common.domain.errors import AccessError, ConfigError
from fleetui.common.domain.values import device_id, fleet_name
from fleetui.common.trust.files import read_file, write_file

AUTHORITY_DAYS = 3650
CREDENTIAL_DAYS = 397
CERTIFICATE_FILE = "ca.crt"
KEY_FILE = "ca.key"

_SKEW = dt.timedelta(hours=1)  # a device whose clock is a little behind can still connect at once
_CSR_LIMIT = 16 * 1024
_DNS = re.compile(r"(?=.{1,253}\Z)(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate, and the key that goes with it (empty where the device keeps its own)."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    serial: int
    not_after: float  # Unix seconds

    def save(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write ``<name>.crt`` and, if there is one, ``<name>.key`` (0600). Returns both paths."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        if self.key_pem:
            write_file(key, self.key_pem, private=True)
        write_file(certificate, self.certificate_pem, private=False)
        return certificate, key


class Authority:
    """A fleet's certificate authority. Whoever holds it decides who is a device."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, clock: Clock) -> None:
        self._key = key
        self._certificate = certificate
        self._clock = clock
        self.fleet = _text(certificate.subject, NameOID.ORGANIZATION_NAME)

    @classmethod
    def create(cls, fleet: str, clock: Clock | None = None) -> Authority:
        fleet_name(fleet)
        clock = clock or SystemClock()
        key = ec.generate_private_key(ec.SECP256R1())
        # The serial keeps two authorities of one fleet apart: OpenSSL finds issuers by name.
        serial = x509.random_serial_number()
        name = _name(fleet, f"FleetUI authority {serial & 0xFFFFFFFF:08x}")
        start, end = _span(clock, AUTHORITY_DAYS)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate, clock)

    def save(self, folder: Path, passphrase: str | None = None) -> None:
        """Write ``ca.crt`` and ``ca.key`` (0600, encrypted where a passphrase is given)."""
        encryption: KeySerializationEncryption = (
            BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
        )
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        write_file(folder / KEY_FILE, pem, private=True)
        write_file(folder / CERTIFICATE_FILE, self.certificate_pem, private=False)

    @classmethod
    def load(cls, folder: Path, passphrase: str | None = None, clock: Clock | None = None) -> Authority:
        """The authority kept in ``folder``; :class:`AccessError` unless key and certificate belong together."""
        clock = clock or SystemClock()
        pem = read_file(folder / KEY_FILE, private=True)
        try:
            certificate = x509.load_pem_x509_certificate(read_file(folder / CERTIFICATE_FILE, private=False))
        except ValueError:
            raise AccessError(
                f"{folder / CERTIFICATE_FILE} is not a certificate", "Restore it from a backup"
            ) from None
        try:
            key = load_pem_private_key(pem, passphrase.encode() if passphrase else None)
        except TypeError:
            raise AccessError(
                f"{folder / KEY_FILE} needs a passphrase"
                if not passphrase
                else f"{folder / KEY_FILE} has no passphrase",
                "Give the passphrase that was used when it was made, or none if there was none",
            ) from None
        except (ValueError, UnsupportedAlgorithm):
            raise AccessError(
                f"{folder / KEY_FILE} cannot be opened", "Check the passphrase, or restore the file from a backup"
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise AccessError(
                f"{KEY_FILE} and {CERTIFICATE_FILE} in {folder} do not belong together",
                "Restore both from the same backup",
            )
        if not _is_authority(certificate):
            raise AccessError(
                f"{folder / CERTIFICATE_FILE} is not an authority's certificate",
                "Point to the folder of the authority",
            )
        if certificate.not_valid_after_utc.timestamp() <= clock.now():
            raise AccessError(
                f"The authority in {folder} expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
                "Create a new one and enrol the devices again",
            )
        return cls(key, certificate, clock)

    @property
    def certificate_pem(self) -> bytes:
        return self._certificate.public_bytes(Encoding.PEM)

    def issue_server(self, names: Sequence[str]) -> Credential:
        """A broker's certificate for ``names``: host names and IP addresses under which clients reach it."""
        if not names:
            raise ConfigError("A broker's certificate needs at least one name", "Give its host name or address")
        alternatives = [_alternative(name) for name in names]
        key = ec.generate_private_key(ec.SECP256R1())
        return self._issue(
            key.public_key(), str(names[0])[:64], alternatives, ExtendedKeyUsageOID.SERVER_AUTH, _pem(key)
        )

    def issue_client(self, client_id: str) -> Credential:
        """A new key and certificate for the device (or station) ``client_id``."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._issue_client(key.public_key(), client_id, _pem(key))

    def sign_csr(self, csr_pem: bytes, client_id: str) -> Credential:
        """A certificate for the public key in a signing request; ``key_pem`` is empty, the device has the key.

        Name, extensions and attributes of the request are ignored: ``client_id`` is what the caller has
        established it to be.
        """
        refusal = AccessError(
            "The certificate request is not valid", "Make a new one with an EC P-256, Ed25519 or RSA key"
        )
        if len(csr_pem) > _CSR_LIMIT:
            raise refusal
        try:
            request = x509.load_pem_x509_csr(csr_pem)
            valid = request.is_signature_valid
            key = request.public_key()
        except (ValueError, UnsupportedAlgorithm, InvalidSignature, TypeError):
            raise refusal from None
        if not valid or not isinstance(key, PublicKey) or not _is_strong(key):
            raise refusal
        if key == self._key.public_key():
            raise refusal
        return self._issue_client(key, client_id, b"")

    def crl(self, revoked: Iterable[int], *, days: int = CREDENTIAL_DAYS) -> bytes:
        """The revoked serial numbers, as PEM. An expired list shuts everybody out: renew it within ``days``."""
        now = dt.datetime.fromtimestamp(int(self._clock.now()), dt.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(now - _SKEW)
            .next_update(now + dt.timedelta(days=days))
            .add_extension(x509.CRLNumber(int(self._clock.now() * 1000)), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        for serial in sorted(set(revoked)):
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _issue_client(self, key: PublicKey, client_id: str, key_pem: bytes) -> Credential:
        device_id(client_id)
        uri = x509.UniformResourceIdentifier(f"spiffe://{self.fleet}/device/{client_id}")
        return self._issue(key, client_id, [uri], ExtendedKeyUsageOID.CLIENT_AUTH, key_pem)

    def _issue(
        self,
        key: PublicKey,
        common_name: str,
        alternatives: list[x509.GeneralName],
        purpose: x509.ObjectIdentifier,
        key_pem: bytes,
    ) -> Credential:
        start, end = _span(self._clock, CREDENTIAL_DAYS)
        end = min(end, self._certificate.not_valid_after_utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(self.fleet, common_name))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        pem = certificate.public_bytes(Encoding.PEM)
        return Credential(pem, key_pem, certificate.serial_number, end.timestamp())


def make_csr() -> tuple[bytes, bytes]:
    """A new key and a signing request for it, both PEM: what a device makes when it enrols."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return _pem(key), request.public_bytes(Encoding.PEM)


def client_id_of(certificate_pem: bytes) -> str:
    """The client id that a certificate speaks for. Raises :class:`AccessError` if it is not a certificate."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
    except ValueError:
        raise AccessError("This is not a certificate", "Give the PEM file of a device's certificate") from None
    return _text(certificate.subject, NameOID.COMMON_NAME)


def _span(clock: Clock, days: int) -> tuple[dt.datetime, dt.datetime]:
    now = dt.datetime.fromtimestamp(int(clock.now()), dt.UTC)
    return now - _SKEW, now + dt.timedelta(days=days)


def _name(organisation: str, common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _text(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    values = name.get_attributes_for_oid(oid)
    if len(values) != 1:
        raise AccessError("The certificate was not made by this program", "Use one made with 'fleetui broker'")
    return str(values[0].value)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if _DNS.fullmatch(name) is None:
        raise ConfigError(f"{name!r} is neither a host name nor an IP address", "Give names as clients use them")
    return x509.DNSName(name)


def _is_strong(key: PublicKey) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return 2048 <= key.key_size <= 4096
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
