"""Logging for every process: named topics under ``fleetui.``, to stderr and to a rotated file."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def set_up(name: str, folder: Path | None = None, *, level: str = "INFO", stderr: bool = True) -> None:
    """Log from now on; five files of 2 MB are kept in ``folder``."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    formatter = logging.Formatter(FORMAT)
    if stderr:
        stream = logging.StreamHandler()
        stream.setFormatter(formatter)
        root.addHandler(stream)
    if folder is not None:
        file = logging.handlers.RotatingFileHandler(
            folder / f"{name}.log", maxBytes=2_000_000, backupCount=5, encoding="utf-8", delay=True
        )
        file.setFormatter(formatter)
        root.addHandler(file)
