"""Small values with rules: identifiers that are safe in a topic, a file name and a table."""

from __future__ import annotations

import re
from typing import NewType

from fleetui.common.domain.errors import ConfigError

DeviceId = NewType("DeviceId", str)
FleetName = NewType("FleetName", str)
Handle = NewType("Handle", str)

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DIGITS = 1000  # of a number in a version; Python refuses to read some thousands


def is_id(text: str) -> bool:
    """Fit for a device, fleet or handle: 1–64 letters, digits, ``_ . -``, not beginning with a mark."""
    return _ID.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def device_id(text: str) -> DeviceId:
    if not is_id(text):
        raise ConfigError(f"{text!r} is not a device id", "Use 1 to 64 letters, digits, '_', '.' or '-'")
    return DeviceId(text)


def fleet_name(text: str) -> FleetName:
    if not is_id(text):
        raise ConfigError(f"{text!r} is not a fleet name", "Use 1 to 64 letters, digits, '_', '.' or '-'")
    return FleetName(text)


def version_key(version: str) -> tuple[tuple[int, int | str], ...]:
    """Orders versions as people read them: ``1.9 < 1.10 < 1.10.1``, ``1.0-rc1 < 1.0``, dates by date.

    Numbers compare as numbers, words as words, and a word sorts before the end of the text, so that a
    pre-release comes before its release. Noughts at the end of the numbers do not count (``1.0 = 1``), nor does a
    ``v`` in front or what follows a plus.
    """
    parts = re.findall(r"\d+|[A-Za-z]+", version.split("+", maxsplit=1)[0])
    if len(parts) > 1 and parts[0] in {"v", "V"}:
        del parts[0]
    key: list[tuple[int, int | str]] = []
    for part in (*parts, ""):
        if part.isdigit():
            key.append((2, int(part[:_DIGITS])))
            continue
        while key and key[-1] == (2, 0):
            key.pop()
        key.append((0, part.lower()) if part else (1, ""))
    return tuple(key)
