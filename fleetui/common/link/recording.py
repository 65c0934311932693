"""A recording: reports as they would have come over the wire, in one file that can be played back.

Layout, little endian::

    "FLREC" version:u8 length:u32 crc32:u32 header (JSON: who made it, of which fleet, from when until when)
    blocks: length:u32 count:u32 crc32:u32 body,  body = count x (at:f64 topic:u16 payload:u32, the two texts)
    end:    0:u32 total:u32 crc32(total):u32

A reader yields what is whole: it stops before the first block that is cut off or damaged, and then ``complete``
is False and ``problem`` says why. It checks lengths and sums before it believes either, and never allocates
more than a block. It knows nothing of what is in a payload. No threads.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from fleetui.common.domain.errors import ConfigError

MAGIC = b"FLREC"
VERSION = 1
BLOCK_BYTES = 256 * 1024  # a block is closed once it is larger than this
MAX_BLOCK = 4 * 1024 * 1024
MAX_HEADER = 64 * 1024
MAX_TOPIC = 512
MAX_PAYLOAD = 1024 * 1024

_HEAD = struct.Struct("<5sBII")
_BLOCK = struct.Struct("<III")
_RECORD = struct.Struct("<dHI")
_TOTAL = struct.Struct("<I")


class RecordingWriter:
    """Writes beside the final name and puts the file in place when closed; a failed recording leaves nothing."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        self._parts: list[bytes] = []
        self._size = 0
        self._in_block = 0
        self.count = 0
        header = json.dumps(dict(about), separators=(",", ":"), sort_keys=True).encode()
        if len(header) > MAX_HEADER:
            raise ValueError(f"{len(header)} bytes of header")
        try:
            self._file: BinaryIO = self._partial.open("wb")
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be written: {error.strerror or error}", "Choose another file"
            ) from None
        self._file.write(_HEAD.pack(MAGIC, VERSION, len(header), zlib.crc32(header)) + header)

    def add(self, at: float, topic: bytes, payload: bytes) -> None:
        """One message; ``topic`` as bytes, because a maker encodes each of them once."""
        if len(topic) > MAX_TOPIC or len(payload) > MAX_PAYLOAD:
            raise ValueError(f"a topic of {len(topic)} and a payload of {len(payload)} bytes")
        self._parts += (_RECORD.pack(at, len(topic), len(payload)), topic, payload)
        self._size += _RECORD.size + len(topic) + len(payload)
        self._in_block += 1
        if self._size >= BLOCK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._in_block:
            return
        body = b"".join(self._parts)
        self._file.write(_BLOCK.pack(len(body), self._in_block, zlib.crc32(body)))
        self._file.write(body)
        self.count += self._in_block
        self._parts.clear()
        self._size = self._in_block = 0

    def close(self) -> None:
        self._flush()
        total = _TOTAL.pack(self.count)
        self._file.write(_BLOCK.pack(0, self.count, zlib.crc32(total)))
        self._file.close()
        self._partial.replace(self._path)

    def abandon(self) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


class Recording:
    """A recording opened for reading. Iterating reads it from the beginning, each time anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.complete = False
        self.problem = ""
        self.count = 0  # records yielded by the last iteration
        with self._open() as file:
            self.about, self._start = self._header(file)

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise ConfigError(
                f"The recording {self.path} cannot be read: {error.strerror or error}", "Name another file"
            ) from None

    def _header(self, file: BinaryIO) -> tuple[dict[str, Any], int]:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or not head.startswith(MAGIC):
            raise ConfigError(f"{self.path} is not a recording", "Make one with 'fleet-sim record'")
        _, version, length, crc = _HEAD.unpack(head)
        if version != VERSION:
            raise ConfigError(
                f"{self.path} is a recording of version {version}, this program reads version {VERSION}",
                "Make it again with 'fleet-sim record'",
            )
        header = file.read(length) if length <= MAX_HEADER else b""
        try:
            about = json.loads(header) if zlib.crc32(header) == crc and len(header) == length else None
        except ValueError:
            about = None
        if not isinstance(about, dict):
            raise ConfigError(f"The beginning of {self.path} is damaged", "Make it again with 'fleet-sim record'")
        return about, _HEAD.size + length

    def __iter__(self) -> Iterator[tuple[float, str, bytes]]:
        self.complete, self.problem, self.count = False, "", 0
        with self._open() as file:
            file.seek(self._start)
            while True:
                head = file.read(_BLOCK.size)
                if len(head) < _BLOCK.size:
                    self.problem = f"cut off after {self.count} messages"
                    return
                length, count, crc = _BLOCK.unpack(head)
                if length == 0:
                    self.complete = count == self.count and zlib.crc32(_TOTAL.pack(count)) == crc
                    self.problem = "" if self.complete else f"damaged after {self.count} messages"
                    return
                body = file.read(length) if length <= MAX_BLOCK else b""
                if len(body) < length:
                    self.problem = (
                        f"cut off after {self.count} messages"
                        if length <= MAX_BLOCK
                        else f"damaged after {self.count} messages"
                    )
                    return
                records = _records(body, count) if zlib.crc32(body) == crc else None
                if records is None:
                    self.problem = f"damaged after {self.count} messages"
                    return
                self.count += count
                yield from records


def _records(body: bytes, count: int) -> list[tuple[float, str, bytes]] | None:
    """The records of a block whose sum is right; None if it contradicts itself all the same."""
    records = []
    position, end = 0, len(body)
    for _ in range(count):
        if end - position < _RECORD.size:
            return None
        at, topic_length, payload_length = _RECORD.unpack_from(body, position)
        position += _RECORD.size
        middle = position + topic_length
        position = middle + payload_length
        if position > end:
            return None
        try:
            topic = body[middle - topic_length : middle].decode()
        except UnicodeDecodeError:
            return None
        records.append((at, topic, body[middle:position]))
    return records if position == end else None
