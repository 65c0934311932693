"""Append-only files: one frame per turn of the event loop, a snapshot now and then, recovery.

It knows bytes only; ``state`` knows what they mean. A *generation* is a snapshot and the journal that goes on
from it::

    snapshot-00000007.log    everything as it was when journal 7 began, or later
    journal-00000007.log     what happened since
    snapshot-00000008.new    being written; journal 8 is already open

A snapshot is written in slices while the broker works, so its parts are of different moments, all of them after
its journal began. That is right because records set things rather than change them: reading the snapshot and
then the whole journal gives the state at the journal's end. A generation is complete when its snapshot has lost
its ``.new``; then the older ones are deleted.

A frame is a length, a CRC-32, and records. Reading stops at the first frame that is not whole or not right: what
a killed process was writing, or a disk made of it. The rest of that file is left out, said, and cut off.

``commit`` hands a turn's records to the operating system. That outlives the process, whatever kills it; to
outlive the machine as well, ask for ``fsync`` and pay for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fleetui.common.domain.errors import StoreError

log = logging.getLogger("fleetui.broker")

MAGIC: Final = b"FleetUI broker journal 1\n"
_FAMILY: Final = b"FleetUI broker journal "
_FRAME: Final = struct.Struct(">II")
_NAME: Final = re.compile(r"(journal|snapshot)-(\d{8})\.log")


class Journal:
    """The files of one folder. Reading comes first, once; then appending."""

    def __init__(self, folder: Path, *, fsync: bool = False) -> None:
        self.folder = folder
        self.generation = 0
        self.size = 0  # of the journal being written
        self.snapshot_size = 0  # of the last complete snapshot
        self.trouble = ""
        self.unfinished = False  # reading found a snapshot that was never completed
        self.damaged = 0  # bytes that reading had to leave out
        self._fsync = fsync
        self._fd = -1
        self._pending: list[bytes] = []
        self._unwritten = b""  # a frame that could not be written yet
        self._snapshot_fd = -1

    # ------------------------------------------------------------ reading

    def read(self) -> Iterator[bytes]:
        """The records of all frames, oldest first, a frame at a time; then the journal is open for more."""
        for leftover in self.folder.glob("*.new"):
            leftover.unlink()
        files = self._files()
        newest = max((number for kind, number in files if kind == "snapshot"), default=None)
        if newest is not None:
            self.generation = newest
            path = files["snapshot", newest]
            yield from self._read(path)
            self.snapshot_size = path.stat().st_size
        journals = sorted(number for kind, number in files if kind == "journal" and number >= (newest or 0))
        for number in journals:
            yield from self._read(files["journal", number])
        self.generation = journals[-1] if journals else self.generation
        self.unfinished = len(journals) > 1
        for (_, number), path in files.items():
            if newest is not None and number < newest:
                path.unlink()
        self._open()

    def _files(self) -> dict[tuple[str, int], Path]:
        found = {}
        for path in self.folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match:
                found[match[1], int(match[2])] = path
        return found

    def _read(self, path: Path) -> Iterator[bytes]:
        size = path.stat().st_size
        good = 0
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
            if magic == MAGIC:
                good = len(MAGIC)
                while True:
                    head = file.read(_FRAME.size)
                    if len(head) < _FRAME.size:
                        break
                    length, crc = _FRAME.unpack(head)
                    if good + _FRAME.size + length > size:
                        break
                    records = file.read(length)
                    if len(records) != length or zlib.crc32(records) != crc:
                        break
                    good += _FRAME.size + length
                    yield records
            elif len(magic) == len(MAGIC) and magic.startswith(_FAMILY):
                raise StoreError(
                    f"{path} was written by a newer version of the broker",
                    "Use that one, or another --base-dir",
                )
        if good < size:
            self.damaged += size - good
            log.warning("%s is damaged behind byte %d: the last %d bytes are left out", path, good, size - good)
            with path.open("r+b") as file:
                file.truncate(good)

    def _open(self) -> None:
        path = self.folder / f"journal-{self.generation:08d}.log"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600)
            size = os.fstat(fd).st_size
            if not size:
                _write_all(fd, MAGIC)
                self._sync_folder()
                size = len(MAGIC)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be written: {error.strerror or error}", "Make room, or make the folder writable"
            ) from None
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self.size = fd, size

    # ------------------------------------------------------------ appending

    def add(self, *parts: bytes) -> None:
        """Records for this turn; nothing is written yet."""
        self._pending += parts

    def commit(self) -> bool:
        """Write this turn's records as one frame. False if it could not be written; then call it again later."""
        if self._pending:
            records = b"".join(self._pending)
            self._pending.clear()
            self._unwritten += _FRAME.pack(len(records), zlib.crc32(records)) + records
        if not self._unwritten:
            return True
        try:
            _write_all(self._fd, self._unwritten)
            if self._fsync:
                os.fdatasync(self._fd)
        except OSError as error:
            self.trouble = error.strerror or str(error)
            with contextlib.suppress(OSError):  # then the next reader cuts it off
                os.ftruncate(self._fd, self.size)
            return False
        self.size += len(self._unwritten)
        self._unwritten = b""
        return True

    # ------------------------------------------------------------ snapshots

    @property
    def snapshotting(self) -> bool:
        return self._snapshot_fd >= 0

    def begin_snapshot(self) -> bool:
        """From now on commits go to a new journal; ``write_snapshot`` fills the snapshot it goes on from."""
        if not self.commit():
            return False
        self.generation += 1
        try:
            self._open()
            self._snapshot_fd = os.open(
                self._new_snapshot, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o600
            )
            _write_all(self._snapshot_fd, MAGIC)
        except (OSError, StoreError) as error:
            self.abandon_snapshot(str(error))
            return False
        self.snapshot_size = len(MAGIC)
        return True

    @property
    def _new_snapshot(self) -> Path:
        return self.folder / f"snapshot-{self.generation:08d}.new"

    def write_snapshot(self, records: bytes) -> bool:
        """One slice. False if it could not be written; the snapshot is given up then, nothing is lost."""
        frame = _FRAME.pack(len(records), zlib.crc32(records)) + records
        try:
            _write_all(self._snapshot_fd, frame)
        except OSError as error:
            self.abandon_snapshot(error.strerror or str(error))
            return False
        self.snapshot_size += len(frame)
        return True

    def finish_snapshot(self) -> None:
        """The snapshot is complete: it takes the place of everything older."""
        path = self._new_snapshot
        try:
            if self._fsync:
                os.fsync(self._snapshot_fd)
            os.close(self._snapshot_fd)
            self._snapshot_fd = -1
            path.replace(path.with_suffix(".log"))
            self._sync_folder()
            for (_, number), old in self._files().items():
                if number < self.generation:
                    old.unlink()
        except OSError as error:
            self.abandon_snapshot(error.strerror or str(error))

    def _sync_folder(self) -> None:
        """With ``fsync``: new names outlive the machine, too."""
        if self._fsync:
            fd = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def abandon_snapshot(self, why: str) -> None:
        log.warning("The journal could not be shortened: %s; it is tried again later", why)
        if self._snapshot_fd >= 0:
            os.close(self._snapshot_fd)
            self._snapshot_fd = -1
        with contextlib.suppress(OSError):
            self._new_snapshot.unlink(missing_ok=True)

    def close(self) -> None:
        if self._snapshot_fd >= 0:
            os.close(self._snapshot_fd)
            self._snapshot_fd = -1
            self._new_snapshot.unlink(missing_ok=True)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    if written < len(data):
        rest = memoryview(data)
        while written < len(data):
            written += os.write(fd, rest[written:])
