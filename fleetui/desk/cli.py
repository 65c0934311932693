"""``fleetui`` without a command, or ``fleetui desk``: looks at the machine, imports Qt, opens the window."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from fleetui.common.domain.errors import ConfigError


def _devices(text: str) -> int:
    count = int(text)
    if not 1 <= count <= 100_000:
        raise argparse.ArgumentTypeError("between 1 and 100000")
    return count


def _rate(text: str) -> float:
    rate = float(text)
    if not 1 <= rate <= 10_000:
        raise argparse.ArgumentTypeError("between 1 and 10000")
    return rate


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--base-dir", type=Path, metavar="DIR", help="where all files of this instance lie")
    add("--demo", action="store_true", help="a demo in a folder of its own, with simulated devices")
    add("--screenshot", type=Path, metavar="DIR", help="write every page as PNG, light and dark; needs no screen")
    add("--store", metavar="URL", help="sqlite:///FILE or postgresql://USER@HOST/DATABASE, for this run")
    add("--broker", metavar="URL", help="mqtt://HOST:PORT or mqtts://HOST:PORT, for this run")
    add("--theme", choices=("system", "light", "dark"), help="for this run")
    add("--language", metavar="CODE", help="of the window, for this run")
    demo = parser.add_argument_group("of the demo")
    demo.add_argument("--devices", type=_devices, metavar="N", help="how many devices are simulated (200)")
    demo.add_argument("--rate", type=_rate, metavar="X", help="how much faster than yours its time runs (30)")
    demo.add_argument("--seed", type=int, metavar="S", help="the same seed makes the same fleet")


def run(args: argparse.Namespace) -> int:
    if not args.demo and any(getattr(args, name) is not None for name in ("devices", "rate", "seed")):
        raise ConfigError("--devices, --rate and --seed belong to the demo", "Add --demo")
    if args.screenshot is not None and sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from fleetui.desk.ui import system

    system.check()
    try:
        from fleetui.desk.ui.main import run as run_desk
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in {"fleetui", "fleet_sim"}:
            raise
        raise ConfigError(
            f"The desk needs {error.name}, which is not installed", "Install it: pip install 'fleetui[desk]'"
        ) from None
    except ImportError as error:
        raise ConfigError(
            f"The window's libraries cannot be loaded ({error})", "Install what is named there"
        ) from None
    return run_desk(args)
