"""Key files: written beside and put into place, readable by their owner only, refused when others can read them.

No cryptography here, and no threads: plain calls from whoever keeps a key.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from fleetui.common.domain.errors import AccessError


def write_file(path: Path, data: bytes, *, private: bool) -> None:
    """Write ``data`` so that a crash leaves the old file or the new one, never a part. Private means mode 0600."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
    except OSError as error:
        raise AccessError(
            f"{path} cannot be written: {error.strerror or error}", "Make the folder writable, or choose another"
        ) from None


def read_file(path: Path, *, private: bool, limit: int = 64 * 1024) -> bytes:
    """The file's bytes. A private file that others may read is refused: it is no secret any more."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(limit + 1)
    except OSError as error:
        raise AccessError(
            f"{path} cannot be read: {error.strerror or error}", "Run as the user who owns it"
        ) from None
    if private and stat.S_IMODE(mode) & 0o077:
        raise AccessError(
            f"{path} holds a private key and can be read by other users", f"Run chmod 600 {path}, or make a new key"
        )
    if len(data) > limit:
        raise AccessError(f"{path} is too large to be a key or certificate", "Point to the right file")
    return data
