"""Where the files of one instance lie: every path comes from here, and ``--base-dir`` moves them all.

::

    BASE/
      fleetui.db      the store (SQLite)
      settings.json   the desk's settings
      keys/           operator's key, local secret, CA; 0700
      broker/         the embedded broker's journal
      run/            who runs where: ports, pids
      log/            rotated logs
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from fleetui.common.domain.errors import ConfigError


def default_base() -> Path:
    """The place this system keeps an application's data in."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "FleetUI"
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/FleetUI"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "fleetui"


@dataclass(frozen=True, slots=True)
class BaseDir:
    """The folder of one instance."""

    root: Path

    @classmethod
    def at(cls, path: Path | str | None = None) -> BaseDir:
        """The instance at ``path`` (the default one without), its folders made."""
        base = cls(Path(path).expanduser().absolute() if path else default_base())
        try:
            for folder in (base.root, base.broker, base.run, base.log):
                folder.mkdir(parents=True, exist_ok=True)
            base.keys.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"The folder {base.root} cannot be used: {error.strerror or error}",
                "Choose another with --base-dir, or make it writable",
            ) from None
        return base

    @property
    def store_url(self) -> str:
        return f"sqlite:///{self.root / 'fleetui.db'}"

    @property
    def settings(self) -> Path:
        return self.root / "settings.json"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def local_secret(self) -> Path:
        return self.keys / "local.secret"
