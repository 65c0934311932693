"""Is this an ONNX file? Decided by the first fields of its protobuf, without the onnx package."""

from __future__ import annotations

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL: dict[int, int] = {
    1: _VARINT, 2: _BYTES, 3: _BYTES, 4: _BYTES, 5: _VARINT, 6: _BYTES, 7: _BYTES, 8: _BYTES, 14: _BYTES,
    20: _BYTES, 25: _BYTES, 26: _BYTES,
}  # fmt: skip
"""``ModelProto``: field → wire type."""
_GRAPH = frozenset({1, 2, 5, 10, 11, 12, 13, 14, 15, 16})
_TEXTS = frozenset({2, 3, 4, 6})


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Number and where it ends; a position of −1 where it is cut off or endless."""
    number = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
    return 0, -1


def _key(data: bytes, at: int) -> tuple[int, int, int]:
    key, at = _varint(data, at)
    return key >> 3, key & 7, at


def is_onnx(head: bytes) -> bool:
    """Walks the leading fields until the graph: every one must be a field of a model, of the right kind."""
    at, version_seen = 0, False
    while at < len(head):
        field, wire, at = _key(head, at)
        if at < 0 or _MODEL.get(field) != wire:
            return False
        number, at = _varint(head, at)
        if at < 0:
            return False
        if field == 1:
            if not 1 <= number < 1000:
                return False
            version_seen = True
        if wire == _VARINT:
            continue
        if field == 7:
            inner, inner_wire, after = _key(head, at)
            return version_seen and (number == 0 or (after > 0 and inner in _GRAPH and inner_wire == _BYTES))
        if field in _TEXTS and not _is_text(head[at : at + min(number, 256)], cut=number > 256):
            return False
        at += number
    return False


def _is_text(data: bytes, *, cut: bool) -> bool:
    try:
        text = data.decode("utf-8", "ignore" if cut else "strict")
    except UnicodeDecodeError:
        return False
    return all(ch.isprintable() or ch in "\n\r\t" for ch in text)
