"""Make a fresh checkout run: ``python3 -m fleetui --demo`` on a machine with Python and nothing else.

Standard library only, and written so that an old Python can still parse it and be told what it lacks. From a
checkout (there is a ``uv.lock`` beside the package) it makes ``.venv`` there, puts uv into it, installs what
the lock file pins, and starts the same command again in it. An installed FleetUI never comes here: there pip
has done this.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn, Sequence  # noqa: UP035 - parsed by old Pythons too

UV = "uv>=0.5,<1"
ROOT = Path(__file__).resolve().parent.parent


def ensure(
    module: str, needs: Sequence[str], extras: Sequence[str], groups: Sequence[str] = (), environment: str = ".venv"
) -> None:
    """Return if everything in ``needs`` can be imported here; else prepare ``.venv`` and start again in it."""
    if sys.version_info < (3, 11):  # noqa: UP036 - said by old Pythons
        _give_up(
            f"FleetUI needs Python 3.11 or newer; this is {sys.version.split()[0]}",
            "Install it (Debian 12: apt-get install python3 python3-venv) and run the command with it",
        )
    missing = [name for name in needs if importlib.util.find_spec(name) is None]
    if not (ROOT / "uv.lock").is_file():
        if missing:
            _give_up(
                "This installation lacks " + ", ".join(missing),
                "Install the missing parts: pip install 'fleetui[" + ",".join(extras) + "]'",
            )
        return
    folder = ROOT / environment
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / ".fleetui-stamp"
    inside = Path(sys.prefix).resolve() == folder.resolve()
    if not missing and not (inside and stamp.is_file()):
        return  # somebody's own environment, and it has everything
    wanted = hashlib.sha256((ROOT / "uv.lock").read_bytes()).hexdigest()
    have = stamp.read_text().split() if stamp.is_file() else []
    parts = ["extra:" + e for e in extras] + ["group:" + g for g in groups]
    if have[:1] != [wanted] or not set(parts) <= set(have[1:]) or not python.is_file():
        parts = sorted(set(parts) | set(have[1:]))  # keep what an earlier command installed
        prepare(folder, python, parts)
        stamp.write_text(" ".join([wanted, *parts]))
    if not inside:
        os.environ["VIRTUAL_ENV"] = str(folder)
        command = [str(python), "-m", module, *sys.argv[1:]]
        if os.name == "nt":
            sys.exit(subprocess.call(command))
        os.execv(command[0], command)  # noqa: S606 - the same command, in the environment just made


def prepare(folder: Path, python: Path, parts: Sequence[str]) -> None:
    """Make the virtual environment ``folder`` and install the named parts of the lock file into it."""
    print(f"First start: installing what FleetUI needs into {folder} (a few hundred MB) ...", file=sys.stderr)
    if not python.is_file():
        if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
            _give_up("Python's venv module is missing", "On Debian: apt-get install python3-venv")
        _run([sys.executable, "-m", "venv", str(folder)], "A virtual environment could not be made")
    uv = python.parent / ("uv.exe" if os.name == "nt" else "uv")
    found = shutil.which("uv")
    if not uv.is_file() and found:
        uv = Path(found)
    elif not uv.is_file():
        if subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True, check=False).returncode:
            _run([str(python), "-m", "ensurepip"], "pip could not be put into the environment")
        _run([str(python), "-m", "pip", "install", "--quiet", UV], "uv could not be installed")
    command = [str(uv), "sync", "--frozen", "--quiet", "--inexact", "--python", str(python)]
    for part in parts:
        kind, _, name = part.partition(":")
        command += ["--" + kind, name]
    _run(command, "The pinned packages could not be installed", UV_PROJECT_ENVIRONMENT=str(folder))


def _run(command: Sequence[str], sentence: str, **environment: str) -> None:
    done = subprocess.run(command, cwd=str(ROOT), env={**os.environ, **environment}, check=False)
    if done.returncode:
        _give_up(sentence, "The lines above say why; a network connection to a package index is needed once")


def _give_up(sentence: str, fix: str) -> NoReturn:
    print(f"fleetui: {sentence}. {fix}.", file=sys.stderr)
    sys.exit(1)
