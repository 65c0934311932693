"""``fleetui worker``: compiles what is asked for in the store, so that no desk needs to be open."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import uuid


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base-dir", metavar="DIR", help="where the instance's files lie")
    parser.add_argument("--store", metavar="URL", help="sqlite:///PATH or postgresql://… (default: the instance's)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="how many at once (%(default)s)")
    parser.add_argument("--memory", type=float, default=0.0, metavar="GIB", help="ceiling of each job")
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="S", help="ceiling of each (%(default)g)")
    parser.add_argument("--drain", action="store_true", help="end when nothing waits any more")
    parser.add_argument("--child", action="store_true", help="JSON lines on stdout; the end of stdin ends it")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])


def run(args: argparse.Namespace) -> int:
    from fleetui.common import logs
    from fleetui.common.basedir import BaseDir
    from fleetui.common.child import ParentWatch, on_signals, say
    from fleetui.common.domain.clock import SystemClock
    from fleetui.store.store import Store
    from fleetui.workshop.runner import Ceilings
    from fleetui.workshop.worker import Worker

    base = BaseDir.at(args.base_dir)
    logs.set_up("worker", base.log, level=args.log_level)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    clock = SystemClock()
    folder = base.root / "variants"
    folder.mkdir(exist_ok=True)
    with Store.open(args.store or base.store_url, clock=clock) as store:
        worker = Worker(
            store,
            clock,
            folder,
            name=f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}",
            at_once=args.jobs,
            ceilings=Ceilings(int(args.memory * (1 << 30)), args.timeout),
            say=say if args.child else lambda _kind, **_fields: None,
        )
        on_signals(worker.stop)
        if args.child:
            ParentWatch(worker.stop).start()
        worker.run(drain=args.drain)
    return 0
