"""Universal Binary JSON, as XGBoost writes it: bytes in, plain Python out, typed arrays as numpy.

Files may be hostile: no count is believed that the bytes left could not hold, nothing nests deeper than ``DEPTH``,
and containers of elements without a size are refused.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from fleetui.workshop.errors import ModelError

DEPTH = 64
EXPORT = "Save it again with Booster.save_model"

# Marker to numpy's name and size; all big-endian.
NUMBERS: dict[int, tuple[str, int]] = {
    ord("i"): (">i1", 1), ord("U"): (">u1", 1), ord("I"): (">i2", 2), ord("l"): (">i4", 4), ord("L"): (">i8", 8),
    ord("d"): (">f4", 4), ord("D"): (">f8", 8),
}  # fmt: skip
PLAIN = {ord("T"): True, ord("F"): False, ord("Z"): None}
WORDS = {name: struct.Struct(f">{letter}") for name, letter in zip("iUIlLdD", "bBhiqfd", strict=True)}


def parse(data: bytes) -> Any:
    reader = _Reader(data)
    found = reader.value(reader.marker(), 0)
    if data[reader.at :].strip(b"N\0"):
        raise _bad("there is more after its end")
    return found


def _bad(what: str) -> ModelError:
    return ModelError(f"The UBJSON file is damaged: {what}", EXPORT)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> int:
        """Where the next ``count`` bytes begin; they are passed."""
        at = self.at
        if count > len(self.data) - at:
            raise _bad("it is cut off, or a count in it is wrong")
        self.at = at + count
        return at

    def marker(self) -> int:
        while (found := self.data[self.take(1)]) == ord("N"):
            pass
        return found

    def count(self) -> int:
        kind = self.marker()
        if chr(kind) not in "iUIlL":
            raise _bad("a length is not a whole number")
        word = WORDS[chr(kind)]
        (found,) = word.unpack_from(self.data, self.take(word.size))
        if found < 0:
            raise _bad("a length is negative")
        return int(found)

    def string(self) -> str:
        size = self.count()
        at = self.take(size)
        try:
            return self.data[at : at + size].decode("utf-8")
        except UnicodeDecodeError:
            raise _bad("a text is not UTF-8") from None

    def value(self, kind: int, depth: int) -> Any:
        if depth > DEPTH:
            raise _bad("it is nested too deeply")
        if kind == ord("{"):
            return self.object(depth + 1)
        if kind == ord("["):
            return self.array(depth + 1)
        if kind == ord("S"):
            return self.string()
        if kind in NUMBERS:
            word = WORDS[chr(kind)]
            return word.unpack_from(self.data, self.take(word.size))[0]
        if kind in PLAIN:
            return PLAIN[kind]
        if kind == ord("C"):
            return chr(self.data[self.take(1)])
        if kind == ord("H"):
            return self.string()
        raise _bad(f"there is no value of kind {chr(kind)!r}")

    def header(self) -> tuple[int | None, int | None]:
        """Type and count of a container, where it says them."""
        kind = count = None
        if self._next() == ord("$"):
            self.take(1)
            kind = self.data[self.take(1)]
            if self._next() != ord("#"):
                raise _bad("a typed container has no count")
        if self._next() == ord("#"):
            self.take(1)
            count = self.count()
            size = NUMBERS[kind][1] if kind in NUMBERS else 1
            if kind in PLAIN or count * size > len(self.data) - self.at:
                raise _bad("it is cut off, or a count in it is wrong")
        return kind, count

    def _next(self) -> int:
        at = self.take(1)
        self.at = at
        return self.data[at]

    def array(self, depth: int) -> Any:
        kind, count = self.header()
        if count is not None:
            if kind in NUMBERS:
                name, size = NUMBERS[kind]
                at = self.take(count * size)
                found = np.frombuffer(self.data, name, count, at)
                return found.astype(found.dtype.newbyteorder("="))
            return [self.value(self.marker() if kind is None else kind, depth) for _ in range(count)]
        items: list[Any] = []
        while (marker := self.marker()) != ord("]"):
            items.append(self.value(marker, depth))
        return items

    def object(self, depth: int) -> dict[str, Any]:
        kind, count = self.header()
        found: dict[str, Any] = {}
        if count is not None:
            for _ in range(count):
                key = self.string()
                found[key] = self.value(self.marker() if kind is None else kind, depth)
            return found
        while True:
            if self._next() == ord("}"):
                self.take(1)
                return found
            if self._next() == ord("N"):
                self.take(1)
                continue
            key = self.string()
            found[key] = self.value(self.marker(), depth)
