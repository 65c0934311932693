"""Opens zip archives that strangers made: sizes, names and overlaps are checked before anything is unpacked.

Nothing is ever extracted to disk here; members are read into memory, up to a ceiling.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from pathlib import Path, PurePosixPath

from fleetui.workshop.errors import HostileModel, LimitError, ModelError
from fleetui.workshop.inspect.limits import Limits, human

DIRECTORY_BYTES = 64 << 20
ENTRIES = 65_535
RATIO = 300
"""No model's members shrink further than this; those that say so are bombs."""
SMALL = 16 << 20
"""Below this a member may shrink as far as it likes (zeroes do)."""

_END = b"PK\x05\x06"
_DEFLATED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


def open_archive(path: Path, limits: Limits | None = None) -> zipfile.ZipFile:
    """The archive, checked; close it. Raises ``HostileModel`` or ``ModelError``."""
    limits = limits or Limits()
    _check_directory(path)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError, UnicodeError) as error:
        raise ModelError(f"{path.name} is a damaged archive: {error}", "Export or copy it again") from error
    try:
        _check_members(archive, path, limits)
    except BaseException:
        archive.close()
        raise
    return archive


def members(path: Path) -> frozenset[str]:
    """The names in an archive, none if it cannot be read."""
    try:
        with open_archive(path) as archive:
            return frozenset(archive.namelist())
    except (ModelError, LimitError):
        return frozenset()


def read(archive: zipfile.ZipFile, name: str, ceiling: int) -> bytes:
    """One member, of at most ``ceiling`` bytes."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise ModelError(f"The archive lacks {name}", "Export the model again") from None
    if info.file_size > ceiling:
        raise LimitError(f"{name} in the archive has {human(info.file_size)}", f"At most {human(ceiling)} are read")
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, RuntimeError, struct.error) as error:
        raise ModelError(f"{name} in the archive is damaged: {error}", "Export or copy the model again") from error
    except Exception as error:
        if type(error).__module__ == "zlib":
            raise ModelError(f"{name} in the archive is damaged: {error}", "Copy the model again") from error
        raise


def data_offset(archive: zipfile.ZipFile, name: str, path: Path) -> int:
    """Where a stored member's bytes begin in the file, so that they can be mapped."""
    info = archive.getinfo(name)
    with path.open("rb") as file:
        file.seek(info.header_offset)
        head = file.read(30)
    if len(head) < 30 or head[:4] != b"PK\x03\x04" or info.compress_type != zipfile.ZIP_STORED:
        raise ModelError(f"{name} in the archive is damaged", "Export or copy the model again")
    names, extra = struct.unpack_from("<HH", head, 26)
    return info.header_offset + 30 + int(names) + int(extra)


def _check_directory(path: Path) -> None:
    """The directory is read whole by ``zipfile``: its size must be sane first."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        tail_size = min(size, 65_557 + 20 + 56)
        file.seek(size - tail_size)
        tail = file.read(tail_size)
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < 22:
        raise ModelError(f"{path.name} begins like an archive but its end is missing", "Copy the file again")
    entries, _total, directory = struct.unpack_from("<HHI", tail, at + 8)
    wide = tail.rfind(b"PK\x06\x06", 0, at)
    if 0 <= wide <= len(tail) - 56:
        many, long = struct.unpack_from("<QQ", tail, wide + 32)
        entries, directory = max(entries % 0xFFFF, many), max(directory % 0xFFFFFFFF, long)
    if directory > min(size, DIRECTORY_BYTES) or entries > ENTRIES:
        raise HostileModel(
            f"{path.name} is an archive with an absurd directory", "Do not use it, or export the model again"
        )


def _check_members(archive: zipfile.ZipFile, path: Path, limits: Limits) -> None:
    size = path.stat().st_size
    infos = archive.infolist()
    declared = sum(info.file_size for info in infos)
    if sum(info.compress_size for info in infos) > size:
        raise HostileModel(f"The members of {path.name} overlap", "Do not use it, or export the model again")
    if declared > limits.file:
        raise HostileModel(
            f"{path.name} has {human(size)} and would unpack to {human(declared)}",
            f"Models of up to {human(limits.file)} are taken",
        )
    seen: set[str] = set()
    for info in infos:
        name = info.filename
        parts = PurePosixPath(name).parts
        if name.startswith(("/", "\\")) or ".." in parts or "\\" in name or ":" in name.split("/")[0]:
            raise HostileModel(f"{path.name} holds the path {name!r:.120}, which leads outside", "Do not use it")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise HostileModel(f"{path.name} holds the link {name!r:.120}", "Do not use it")
        if info.flag_bits & 1:
            raise ModelError(f"{path.name} is encrypted", "Give it without a password")
        if info.compress_type not in _DEFLATED:
            raise ModelError(f"{name!r:.120} in {path.name} is packed in an unusual way", "Export the model again")
        if info.file_size > SMALL and info.file_size > RATIO * max(1, info.compress_size):
            growth = f"{human(info.compress_size)} to {human(info.file_size)}"
            raise HostileModel(
                f"{name!r:.120} in {path.name} would grow from {growth}",
                "Do not use it, or export the model again",
            )
        if name in seen:
            raise HostileModel(f"{path.name} holds {name!r:.120} twice", "Do not use it, or export the model again")
        seen.add(name)
