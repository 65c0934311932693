"""Reads which certificates a revocation list names, and until when the list is good.

OpenSSL checks the list at each handshake; this is for the connections that are already there, which it never
asks again. The standard library has no reader for it, so here is as much of DER as a list needs. Signatures
are not checked here: the file is the operator's own.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from fleetui.common.domain.errors import ConfigError

_SEQUENCE, _INTEGER, _UTC_TIME, _TIME = 0x30, 0x02, 0x17, 0x18


@dataclass(frozen=True, slots=True)
class RevocationList:
    """Serial numbers as Python's ``ssl`` writes them (upper-case hexadecimal), without leading zeros."""

    serials: frozenset[str] = frozenset()
    next_update: float | None = None  # Unix seconds


def read_revocations(path: Path) -> RevocationList:
    """All lists of a PEM file. Raises :class:`ConfigError` for anything else."""
    text = path.read_text("ascii", "replace")
    found: list[RevocationList] = []
    for part in text.split("-----BEGIN X509 CRL-----")[1:]:
        body, end, _ = part.partition("-----END X509 CRL-----")
        try:
            found.append(parse_revocations(base64.b64decode("".join(body.split()) if end else "", validate=True)))
        except (ValueError, binascii.Error, IndexError) as error:
            raise ConfigError(f"{path} is not a revocation list: {error}", "Create it anew") from None
    if not found:
        raise ConfigError(f"{path} holds no revocation list", "Create it anew")
    updates = [one.next_update for one in found if one.next_update is not None]
    return RevocationList(frozenset().union(*(one.serials for one in found)), min(updates, default=None))


def parse_revocations(der: bytes) -> RevocationList:
    """RFC 5280, 5.1: version?, algorithm, issuer, this update, next update?, revoked certificates?, extensions?."""
    outer = _children(_expect(der, 0, len(der), _SEQUENCE), der)
    fields = iter(_children(outer[0][1:], der) if outer[0][0] == _SEQUENCE else ())
    item = next(fields, None)
    if item is not None and item[0] == _INTEGER:
        item = next(fields, None)
    for _ in range(2):  # algorithm, issuer
        if item is None or item[0] != _SEQUENCE:
            raise ValueError("not a revocation list")
        item = next(fields, None)
    if item is None or item[0] not in {_UTC_TIME, _TIME}:
        raise ValueError("no time of this update")
    item = next(fields, None)
    next_update: float | None = None
    if item is not None and item[0] in {_UTC_TIME, _TIME}:
        next_update = _time(item[0], der[item[1] : item[2]])
        item = next(fields, None)
    serials: set[str] = set()
    if item is not None and item[0] == _SEQUENCE:
        for entry in _children(item[1:], der):
            parts = _children(entry[1:], der)
            if entry[0] != _SEQUENCE or not parts or parts[0][0] != _INTEGER:
                raise ValueError("an entry without a serial number")
            serials.add(f"{int.from_bytes(der[parts[0][1] : parts[0][2]], 'big'):X}")
    return RevocationList(frozenset(serials), next_update)


def _header(der: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Tag, where the content begins, where it ends."""
    if at + 2 > end:
        raise ValueError("cut short")
    tag, length = der[at], der[at + 1]
    at += 2
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4 or at + size > end:
            raise ValueError("a length that cannot be")
        length = int.from_bytes(der[at : at + size], "big")
        at += size
    if at + length > end:
        raise ValueError("cut short")
    return tag, at, at + length


def _expect(der: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    found, start, stop = _header(der, at, end)
    if found != tag:
        raise ValueError("not what was expected")
    return start, stop


def _children(span: tuple[int, int], der: bytes) -> list[tuple[int, int, int]]:
    at, end = span
    found = []
    while at < end:
        item = _header(der, at, end)
        found.append(item)
        at = item[2]
    if not found:
        raise ValueError("empty")
    return found


def _time(tag: int, raw: bytes) -> float:
    text = raw.decode("ascii", "replace") + "+0000"
    if tag == _UTC_TIME:
        return dt.datetime.strptime(text, "%y%m%d%H%M%SZ%z").timestamp()
    return dt.datetime.strptime(text, "%Y%m%d%H%M%SZ%z").timestamp()
