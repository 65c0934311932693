"""One desk per folder: a lock that the system releases when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from fleetui.common.domain.errors import ConfigError


class FolderLock:
    """Held from ``take`` to ``release``. The file also names who holds it, for the second one's message."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def take(self) -> None:
        """Raises :class:`ConfigError` where another desk holds it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            who = f" (process {holder})" if holder.isdigit() else ""
            raise ConfigError(
                f"Another desk{who} already uses the folder {self._path.parent.parent}",
                "Switch to its window, or choose another folder with --base-dir",
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
        self._descriptor = descriptor

    @property
    def held(self) -> bool:
        return self._descriptor >= 0

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
