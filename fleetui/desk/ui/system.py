"""Whether this machine can show a window, found out before Qt aborts the process because it cannot.

Qt loads its platform plugin when the application is made, and a missing system library ends the process with a
message that names no package. So the libraries are tried first, and the answer is one sentence with what to
install. Imports no Qt: it must work where Qt cannot even be imported.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Mapping

from fleetui.common.domain.errors import ConfigError

# What QtCore, QtGui and QtWidgets themselves need, then what the window system plugin needs; library -> package.
ALWAYS: dict[str, str] = {
    "libglib-2.0.so.0": "libglib2.0-0",
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libfontconfig.so.1": "libfontconfig1",
    "libfreetype.so.6": "libfreetype6",
    "libdbus-1.so.3": "libdbus-1-3",
    "libxkbcommon.so.0": "libxkbcommon0",
}
XCB: dict[str, str] = {
    "libX11.so.6": "libx11-6",
    "libX11-xcb.so.1": "libx11-xcb1",
    "libxcb.so.1": "libxcb1",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-render.so.0": "libxcb-render0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-shm.so.0": "libxcb-shm0",
    "libxcb-sync.so.1": "libxcb-sync1",
    "libxcb-xfixes.so.0": "libxcb-xfixes0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
}


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def missing_packages(platform: str, loads: Callable[[str], bool] = _loads) -> list[str]:
    """The Debian packages without which Qt's ``platform`` plugin does not start here."""
    wanted = dict(ALWAYS)
    if platform == "xcb":
        wanted |= XCB
    return sorted({package for library, package in wanted.items() if not loads(library)})


def platform_wanted(environ: Mapping[str, str]) -> str:
    """The plugin that Qt will take: what is asked for, else by what kind of session this is."""
    asked = environ.get("QT_QPA_PLATFORM", "").split(";", 1)[0].split(":", 1)[0]
    if asked:
        return asked
    if environ.get("WAYLAND_DISPLAY") and not environ.get("DISPLAY"):
        return "wayland"
    return "xcb"


def check(environ: Mapping[str, str] | None = None, loads: Callable[[str], bool] = _loads) -> None:
    """Raises :class:`ConfigError` where no window can be shown, saying what to do. Only Linux is looked at."""
    if not sys.platform.startswith("linux"):
        return
    environ = os.environ if environ is None else environ
    platform = platform_wanted(environ)
    missing = missing_packages(platform, loads)
    if missing:
        many = len(missing) > 1
        raise ConfigError(
            f"The window needs {'system libraries that are' if many else 'a system library that is'} not installed",
            f"On Debian or Ubuntu: sudo apt-get install {' '.join(missing)}",
        )
    if platform == "xcb" and not environ.get("DISPLAY"):
        raise ConfigError(
            "There is no screen to show the window on (DISPLAY is not set)",
            "Start it in a desktop session, connect with ssh -X, or set QT_QPA_PLATFORM=offscreen for --screenshot",
        )
