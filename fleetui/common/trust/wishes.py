"""Who wished it: an operator's own key, and the signature on a wish.

A wish is a row in the store; whoever can write to the store can write rows, but not sign them. What is signed are
these bytes, and no others::

    fleetui wish v1<NUL>{"arguments":{...},"at_ms":1800000000000,"id":"...","kind":"...","operator":"..."}

that is, the context (so that a signature for one purpose never fits another), then JSON in one canonical form:
ASCII, keys sorted, no spaces; texts escaped as Python's ``json`` does; whole numbers up to 2**53; other numbers
finite, written as Python's ``repr`` does (the shortest text that reads back as the same number). The time is whole
milliseconds. The key is Ed25519, so signing the same wish twice gives the same bytes.

What an operator may wish is decided elsewhere; here it is only certain who did. No threads, no clock.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fleetui.common.domain.errors import AccessError
from fleetui.common.trust.files import read_file, write_file

KEY_FILE = "operator.key"
PUBLIC_FILE = "operator.pub"

_CONTEXT = b"fleetui wish v1\0"
_MARK = "fleetui-operator-ed25519"
_DEPTH = 16
_LIMIT = 256 * 1024
_WHOLE = 2**53


@dataclass(frozen=True, slots=True)
class Operator:
    """A person who wishes, with the key that proves it."""

    name: str
    key: Ed25519PrivateKey = field(repr=False, compare=False)

    @classmethod
    def create(cls, name: str) -> Operator:
        """A new identity. The name is for people: any text of one line, at most 64 characters."""
        if not _is_name(name):
            raise AccessError(f"{name[:80]!r} is not a name for an operator", "Use 1 to 64 characters of one line")
        return cls(name, Ed25519PrivateKey.generate())

    @property
    def public_key(self) -> bytes:
        """32 bytes: what stations know the operator by."""
        return self.key.public_key().public_bytes_raw()

    def save(self, folder: Path, passphrase: str | None = None) -> None:
        """Write ``operator.key`` (0600) and ``operator.pub``, which may be given to anybody."""
        encryption: KeySerializationEncryption = (
            BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
        )
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        write_file(folder / KEY_FILE, pem, private=True)
        write_file(folder / PUBLIC_FILE, public_line(self.name, self.public_key), private=False)

    @classmethod
    def load(cls, folder: Path, passphrase: str | None = None) -> Operator:
        """The identity kept in ``folder``."""
        path = folder / KEY_FILE
        name, public = read_public(folder / PUBLIC_FILE)
        pem = read_file(path, private=True)
        try:
            key = load_pem_private_key(pem, passphrase.encode() if passphrase else None)
        except TypeError:
            raise AccessError(
                f"{path} has no passphrase" if passphrase else f"{path} needs a passphrase",
                "Give the passphrase that was used when it was made, or none if there was none",
            ) from None
        except (ValueError, UnsupportedAlgorithm):
            raise AccessError(
                f"{path} cannot be opened", "Check the passphrase, or restore the file from a backup"
            ) from None
        if not isinstance(key, Ed25519PrivateKey) or key.public_key().public_bytes_raw() != public:
            raise AccessError(
                f"{KEY_FILE} and {PUBLIC_FILE} in {folder} do not belong together",
                "Restore both from the same backup",
            )
        return cls(name, key)


def public_line(name: str, public_key: bytes) -> bytes:
    """What a public file holds: one line, ``fleetui-operator-ed25519 <base64> <name>``."""
    return f"{_MARK} {base64.b64encode(public_key).decode()} {name}\n".encode()


def read_public(path: Path) -> tuple[str, bytes]:
    """Name and key in a public file."""
    data = read_file(path, private=False)
    try:
        mark, encoded, name = data.decode("utf-8").removesuffix("\n").split(" ", 2)
        key = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        mark, name, key = "", "", b""
    if mark != _MARK or len(key) != 32 or not _is_name(name):
        raise AccessError(f"{path} is not an operator's public key", "Restore it, or copy it again")
    return name, key


def known_operators(folder: Path) -> dict[str, bytes]:
    """Names and keys of all ``*.pub`` in a folder: whom a station believes. Two keys for one name are refused."""
    known: dict[str, bytes] = {}
    for path in sorted(folder.glob("*.pub")):
        name, key = read_public(path)
        if known.setdefault(name, key) != key:
            raise AccessError(
                f"{folder} holds two different keys for {name!r}", "Remove the one that is not theirs"
            )
    return known


def signed_bytes(operator: str, identity: str, kind: str, arguments: Mapping[str, Any], at: float) -> bytes:
    """The bytes that stand under the signature. Raises :class:`AccessError` for what has no canonical form."""
    if not math.isfinite(at) or abs(at) > 1e11:
        raise AccessError("The wish has no sensible time", "Set this machine's clock and ask again")
    wish = {
        "arguments": dict(arguments),
        "at_ms": round(at * 1000),
        "id": identity,
        "kind": kind,
        "operator": operator,
    }
    _check(wish, _DEPTH)
    text = json.dumps(wish, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    if len(text) > _LIMIT:
        raise AccessError("The wish is too large to be signed", "Ask for less at once")
    return _CONTEXT + text.encode("ascii")


def sign_wish(operator: Operator, identity: str, kind: str, arguments: Mapping[str, Any], at: float) -> bytes:
    """64 bytes, to be stored beside the wish."""
    return operator.key.sign(signed_bytes(operator.name, identity, kind, arguments, at))


def verify_wish(
    public_keys: Mapping[str, bytes],
    *,
    operator: str,
    identity: str,
    kind: str,
    arguments: Mapping[str, Any],
    at: float,
    signature: bytes,
) -> None:
    """Return if ``operator`` is known and has signed exactly this; raise :class:`AccessError` if not."""
    key = public_keys.get(operator)
    if key is None:
        raise AccessError(
            f"There is no operator {operator[:80]!r} here",
            "Give the station their public key, or ask as somebody else",
        )
    message = signed_bytes(operator, identity, kind, arguments, at)
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise AccessError(
            f"The wish does not carry {operator[:80]!r}'s signature",
            "If somebody asked for it, let them ask again; if nobody did, find out who writes to the store",
        ) from None


def _is_name(name: str) -> bool:
    return 1 <= len(name) <= 64 and name.isprintable() and name == name.strip()


def _check(value: Any, depth: int) -> None:
    """Only what reads back from JSON as it was written."""
    if depth <= 0:
        raise AccessError("The wish is nested too deeply to be signed", "This is not something FleetUI asks for")
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise AccessError("The wish holds a text that is not one", "This is not something FleetUI asks for")
    elif isinstance(value, int):
        if abs(value) > _WHOLE:
            raise AccessError("The wish holds a number that is too large", "Use numbers up to 2**53")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise AccessError("The wish holds a number that is not finite", "Use a number")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise AccessError(
                    "The wish holds a key that is not a text", "This is not something FleetUI asks for"
                )
            _check(key, depth)
            _check(inner, depth - 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check(inner, depth - 1)
    else:
        raise AccessError(
            f"The wish holds a {type(value).__name__}, which cannot be signed",
            "This is not something FleetUI asks for",
        )
