"""``fleetui broker``: the embedded broker alone, its health check, and the mosquitto export."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleetui.common.basedir import BaseDir, default_base
from fleetui.common.domain.errors import OperatorError

if TYPE_CHECKING:
    from fleetui.broker.limits import Limits


def configure(parser: argparse.ArgumentParser) -> None:
    """The options, for ``fleetui broker`` and ``python -m fleetui.broker`` alike."""
    parser.add_argument("--base-dir", metavar="DIR", help="where the instance's files lie")
    parser.add_argument("--fleet", default="main", help="name of the fleet (default: %(default)s)")
    parser.add_argument(
        "--station", action="append", metavar="ID", help="who may read everything (default: station)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="where the local listener listens: loopback only")
    parser.add_argument(
        "--port", type=int, default=1883, help="its port; 0: any that is free (default: %(default)s)"
    )
    parser.add_argument(
        "--open", action="store_true", help="anonymous instead of passwords: benchmarks, conformance"
    )
    parser.add_argument("--tls-host", default="0.0.0.0", help="where the TLS listener listens (default: all)")
    parser.add_argument("--tls-port", type=int, metavar="PORT", help="also listen with client certificates")
    parser.add_argument("--cert", type=Path, metavar="FILE", help="the server's certificate")
    parser.add_argument("--key", type=Path, metavar="FILE", help="its key")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="who signs the clients' certificates")
    parser.add_argument("--crl", type=Path, metavar="FILE", help="revoked certificates; read anew on SIGHUP")
    parser.add_argument("--fsync", action="store_true", help="outlive a power cut too: slower")
    parser.add_argument("--limit", action="append", metavar="NAME=VALUE", help="one of the limits; see 'limits.py'")
    parser.add_argument("--sys-interval", type=float, default=10.0, metavar="S", help="how often $SYS is published")
    parser.add_argument("--check", action="store_true", help="ask the running broker whether it is well")
    parser.add_argument("--export-mosquitto", type=Path, metavar="DIR", help="write a mosquitto configuration")
    parser.add_argument("--name", action="append", metavar="HOST", help="with the export: how clients reach it")
    parser.add_argument("--child", action="store_true", help="JSON lines on stdout; the end of stdin ends it")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])


def run(args: argparse.Namespace) -> int:
    try:
        _run(args)
    except OperatorError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(args: argparse.Namespace) -> None:
    from fleetui.broker.listeners import ListenerSpec, Tls
    from fleetui.broker.process import Settings, serve
    from fleetui.common import logs
    from fleetui.common.domain.errors import ConfigError
    from fleetui.common.domain.values import fleet_name
    from fleetui.common.trust.local import load_or_create_secret

    stations = tuple(args.station or ("station",))
    limits = _limits(args)
    if args.export_mosquitto is not None:
        from fleetui.broker.export import PORT, Export, export

        names = tuple(args.name or ("localhost", "127.0.0.1"))
        host = "" if args.tls_host == "0.0.0.0" else args.tls_host
        what = Export(args.fleet, names, stations, host, PORT if args.tls_port is None else args.tls_port, limits)
        for path in export(args.export_mosquitto, what):
            print(path)
        return
    if args.check:
        from fleetui.broker.check import check
        from fleetui.common.domain.clock import SystemClock

        looked_at = BaseDir(Path(args.base_dir).expanduser() if args.base_dir else default_base())  # makes nothing
        found = check(looked_at.run, looked_at.local_secret, SystemClock())
        print(f"The broker at {found['host']}:{found['port']} answered in {found['ms']:g} ms")
        return
    base = BaseDir.at(args.base_dir)
    secret = load_or_create_secret(base.local_secret)
    logs.set_up("broker", base.log, level=args.log_level)
    policy = "open" if args.open else "local"
    listeners = [ListenerSpec(policy, policy, args.host, args.port)]
    if args.tls_port is not None:
        if not (args.cert and args.key and args.ca):
            raise ConfigError("A TLS listener needs a certificate, its key and a CA", "Give --cert, --key and --ca")
        tls = Tls(args.cert, args.key, args.ca, args.crl)
        listeners.append(ListenerSpec("tls", "certificate", args.tls_host, args.tls_port, tls))
    settings = Settings(
        fleet=fleet_name(args.fleet),
        folder=base.broker,
        run=base.run,
        secret=secret,
        stations=stations,
        listeners=tuple(listeners),
        fsync=args.fsync,
        limits=limits,
        sys_interval_s=args.sys_interval,
    )
    serve(settings, child=args.child)


def _limits(args: argparse.Namespace) -> Limits:
    """``--limit name=value`` for any of them, in the type it has."""
    from fleetui.broker.limits import Limits
    from fleetui.common.domain.errors import ConfigError

    defaults = dataclasses.asdict(Limits())
    chosen: dict[str, Any] = {}
    for text in args.limit or ():
        name, _, value = text.partition("=")
        if name not in defaults:
            raise ConfigError(f"There is no limit {name!r}", f"Known are {', '.join(defaults)}")
        try:
            chosen[name] = type(defaults[name])(value)
        except ValueError:
            raise ConfigError(f"{value!r} is no value for {name}", "Give a number") from None
        if chosen[name] < 0:
            raise ConfigError(f"{name} cannot be negative", "Give a number that is not")
    return Limits(**chosen)
