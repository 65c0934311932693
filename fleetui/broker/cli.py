"""``fleetui broker``: the embedded broker alone, its health check, and the mosquitto export."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fleetui.common.basedir import BaseDir
from fleetui.common.domain.errors import OperatorError


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
    parser.add_argument("--max-keepalive", type=int, metavar="S", help="longest; v5 clients are told")
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
    from fleetui.broker.limits import Limits
    from fleetui.broker.listeners import ListenerSpec, Tls
    from fleetui.broker.process import Settings, serve
    from fleetui.common import logs
    from fleetui.common.domain.errors import ConfigError
    from fleetui.common.domain.values import fleet_name
    from fleetui.common.trust.local import load_or_create_secret

    base = BaseDir.at(args.base_dir)
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
        secret=load_or_create_secret(base.local_secret),
        stations=tuple(args.station or ("station",)),
        listeners=tuple(listeners),
        fsync=args.fsync,
        limits=Limits(max_keepalive_s=args.max_keepalive or 0),
    )
    serve(settings, child=args.child)
