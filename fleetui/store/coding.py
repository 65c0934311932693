"""How mappings, tuples and counts lie in columns: JSON text with sorted keys, and MessagePack for counts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

_json = msgspec.json.Encoder(order="deterministic")
_packed = msgspec.msgpack.Encoder()
_strings = msgspec.json.Decoder(tuple[str, ...])
_string_map = msgspec.json.Decoder(dict[str, str])
_models = msgspec.json.Decoder(tuple[tuple[str, str, str, str], ...])
_figures = msgspec.json.Decoder(dict[str, float])
_counts = msgspec.msgpack.Decoder(tuple[int, ...])

NO_COUNTS = _packed.encode([])


def clean(text: str) -> str:
    """Without NUL characters, which PostgreSQL does not store; devices may send anything."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


def json_text(value: Any) -> str:
    text = _json.encode(value).decode()
    return text.replace("\\u0000", "\ufffd") if "\\u0000" in text else text


def json_object(text: str) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    return decoded


def figures(text: str) -> dict[str, float]:
    return _figures.decode(text)


# Thousands of devices share a few values, so decoding them is remembered.


@lru_cache(maxsize=8192)
def strings(text: str) -> tuple[str, ...]:
    return _strings.decode(text)


@lru_cache(maxsize=8192)
def _string_map_once(text: str) -> dict[str, str]:
    return _string_map.decode(text)


def string_map(text: str) -> dict[str, str]:
    return dict(_string_map_once(text))


@lru_cache(maxsize=8192)
def models(text: str) -> tuple[tuple[str, str, str, str], ...]:
    return _models.decode(text)


def pack(counts: Sequence[int]) -> bytes:
    return _packed.encode(counts) if counts else NO_COUNTS


def unpack(data: bytes) -> tuple[int, ...]:
    return () if data == NO_COUNTS else _counts.decode(data)
