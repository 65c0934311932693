"""The queue on disk: what the agent still has to report survives a power cut.

An append-only file of frames (length, sum, MessagePack); a frame is one change of the queue, whole or not at all.
Reading stops at the first frame that is cut off or damaged, and the file is cut there. When it has grown past
twice what the queue may hold, it is written anew beside and put in place. A disk that is full or broken does not
stop the agent: the queue lives on in memory, ``problem`` says why, and the next change writes the whole queue.

One process at a time: :func:`hold` takes a lock on the data folder. Used from the agent's main thread only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from fleet_sim.agent.events import Persist
from fleet_sim.agent.queue import KINDS, Queued
from fleetui.common.domain.errors import ConfigError, WireError
from fleetui.common.link import codec
from fleetui.common.link.messages import Event, Reply, Window
from fleetui.common.link.topics import Up

MAGIC = b"FLQUEUE1"
_FRAME = struct.Struct("<II")
MAX_FRAME = 8 * 1024 * 1024


class _Record(msgspec.Struct, frozen=True, array_like=True):
    puts: list[tuple[int, str, bytes]]
    deletes: list[int]
    losses: dict[str, int]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Record)


class Saved:
    """What an earlier run left behind."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, Queued]] = []
        self.losses: dict[str, int] = {}
        self.damaged = 0  # bytes at the end that were no frame
        self.unreadable = 0  # reports that this version cannot read


class Journal:
    """Open it with :meth:`open`, which reads what is there."""

    def __init__(self, path: Path, limit_bytes: int, *, sync: bool = True) -> None:
        self._path = path
        self._limit = 2 * limit_bytes + 64 * 1024
        self._sync = sync
        self._fd = -1
        self._size = 0
        self.problem = ""  # why the last change is not on disk

    @property
    def size(self) -> int:
        return self._size

    def open(self, device: str) -> Saved:
        """Read, cut off what is damaged, and append from now on. Raises ``ConfigError`` if that cannot be."""
        saved = Saved()
        try:
            data = self._path.read_bytes() if self._path.exists() else b""
            entries: dict[int, tuple[str, bytes]] = {}
            good = 0
            if data.startswith(MAGIC):
                good = len(MAGIC)
                for end, record in _frames(data):
                    good = end
                    for ident in record.deletes:
                        entries.pop(ident, None)
                    for ident, kind, payload in record.puts:
                        entries[ident] = (kind, payload)
                    saved.losses = record.losses
            saved.damaged = len(data) - good
            for ident, (kind, payload) in sorted(entries.items()):
                try:
                    report = codec.decode_up(Up(kind), payload, device)
                except (WireError, ValueError):
                    saved.unreadable += 1
                    continue
                if isinstance(report, Window | Event | Reply):
                    saved.reports.append((ident, report))
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            os.ftruncate(self._fd, good)
            if not good:
                os.write(self._fd, MAGIC)
                good = len(MAGIC)
            self._size = good
            self._flush()
        except OSError as error:
            self.close()
            raise ConfigError(
                f"The queue file {self._path} cannot be used: {error.strerror or error}",
                "Make its folder writable, or name another one with data = …",
            ) from None
        return saved

    def append(self, change: Persist, whole: Callable[[], Iterable[tuple[int, Queued]]]) -> None:
        """Write a change down. ``whole`` gives the queue after it, for when the file is written anew."""
        try:
            if self.problem or self._size > self._limit:
                self._rewrite(whole(), change.losses)
            else:
                self._write(self._fd, _frame(_Record(list(change.puts), list(change.deletes), change.losses)))
                self._flush()
            self.problem = ""
        except OSError as error:
            self.problem = error.strerror or str(error)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, fd: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        self._size += len(data)

    def _flush(self) -> None:
        if self._sync:
            os.fdatasync(self._fd)

    def _rewrite(self, whole: Iterable[tuple[int, Queued]], losses: dict[str, int]) -> None:
        puts = [(ident, KINDS[type(report)].value, codec.encode(report)) for ident, report in whole]
        fresh = self._path.with_name(self._path.name + ".new")
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        before, self._size = self._size, 0
        try:
            self._write(fd, MAGIC + _frame(_Record(puts, [], losses)))
            if self._sync:
                os.fsync(fd)
            fresh.replace(self._path)
        except OSError:
            self._size = before
            os.close(fd)
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        if self._sync:
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _frame(record: _Record) -> bytes:
    payload = _encoder.encode(record)
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _frames(data: bytes) -> Iterator[tuple[int, _Record]]:
    """(end, record) of each whole frame from the beginning."""
    position = len(MAGIC)
    while len(data) - position >= _FRAME.size:
        length, crc = _FRAME.unpack_from(data, position)
        start = position + _FRAME.size
        payload = data[start : start + length]
        if length > MAX_FRAME or len(payload) < length or zlib.crc32(payload) != crc:
            return
        try:
            record = _decoder.decode(payload)
        except msgspec.MsgspecError:
            return
        position = start + length
        yield position, record


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """The data folder, for this process alone. Raises ``ConfigError`` if another one has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(
            f"The folder {folder} cannot be used: {error.strerror or error}",
            "Make it writable, or name another one with data = …",
        ) from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"Another agent works with the folder {folder}", "Stop it, or name another folder with data = …"
            ) from None
        yield
    finally:
        os.close(fd)
