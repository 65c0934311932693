"""``fleetui station``: the control process alone, for servers; and how the desk starts its own."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from fleetui.common.domain.errors import OperatorError


def configure(parser: argparse.ArgumentParser) -> None:
    """The options, for ``fleetui station`` and ``python -m fleetui.station`` alike."""
    parser.add_argument("--base-dir", metavar="DIR", help="where the instance's files lie")
    parser.add_argument("--store", metavar="URL", help="sqlite:///PATH or postgresql://… (default: the instance's)")
    parser.add_argument(
        "--broker", metavar="URL", help="mqtt://HOST:PORT or mqtts://HOST:PORT (default: the instance's own)"
    )
    parser.add_argument("--fleet", metavar="NAME", help="name of the fleet (default: the broker's, or main)")
    parser.add_argument(
        "--id", default="station", help="client id; stations that stand in for each other share it (%(default)s)"
    )
    parser.add_argument("--cert", type=Path, metavar="FILE", help="the station's certificate, for mqtts")
    parser.add_argument("--key", type=Path, metavar="FILE", help="its key")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="who signed the broker's certificate")
    parser.add_argument("--clock", metavar="FLEET@REAL*RATE", help="fleet time that differs from this machine's")
    parser.add_argument(
        "--beat", type=float, default=10.0, metavar="S", help="devices beat this often (%(default)s)"
    )
    parser.add_argument(
        "--admit",
        choices=("open", "pending"),
        default="open",
        help="a new device belongs to the fleet at once, or waits for a person (%(default)s)",
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="read a recording into the store, and end")
    parser.add_argument("--child", action="store_true", help="JSON lines on stdout; the end of stdin ends it")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])


def run(args: argparse.Namespace) -> int:
    from fleetui.common.child import say

    try:
        return _run(args)
    except OperatorError as error:
        if args.child:
            say("stopped", reason=str(error), sentence=error.sentence, fix=error.fix)
        print(error, file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    from fleetui.common import logs
    from fleetui.common.basedir import BaseDir
    from fleetui.common.child import ParentWatch, on_signals, say
    from fleetui.station.config import settings_from
    from fleetui.station.operators import checker

    base = BaseDir.at(args.base_dir)
    logs.set_up("station", base.log, level=args.log_level)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # how it loads its plugins is nobody's business
    config = settings_from(base, args)
    if args.replay is not None:
        from fleetui.station.ingest.replay import replay

        report = replay(config, args.replay, progress=say if args.child else None)
        print(report) if not args.child else say("stopped", reason=str(report), **report.fields())
        return 0
    from fleetui.station.process import Station

    station = Station(config, checker(base), say=say if args.child else lambda _kind, **_fields: None)
    on_signals(station.stop)
    if args.child:
        ParentWatch(station.stop, station.command).start()
    station.run()
    return 0
