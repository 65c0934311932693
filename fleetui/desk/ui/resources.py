"""Where the files under ``resources/`` are: beside the sources in a checkout, inside the package when installed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import fleetui
from fleetui.common.domain.errors import ConfigError


@cache
def root() -> Path:
    package = Path(fleetui.__file__).parent
    for folder in (package / "_resources", package.parent / "resources"):
        if (folder / "themes" / "tokens.json").is_file():
            return folder
    raise ConfigError("The program's own files (icons, themes) are missing", "Install FleetUI again")


def path(*parts: str) -> Path:
    return root().joinpath(*parts)


def text(*parts: str) -> str:
    return path(*parts).read_text(encoding="utf-8")
