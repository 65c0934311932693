"""``fleetui store check | backup | restore | info | upgrade``: what an operator does to the database itself.

Answers go to stdout (one JSON object with ``--json``), progress and errors to stderr. Exit status 0 done, 1 refused
or failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text

from fleetui.common.basedir import BaseDir
from fleetui.common.domain.clock import SystemClock
from fleetui.common.domain.errors import OperatorError
from fleetui.store import backup, engine, integrity, lease, progress, schema, sequence
from fleetui.store.store import Store
from fleetui.store.tables import METADATA, device, fleet_sample
from fleetui.store.tables import lease as lease_table


def configure(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="store_command", required=True, metavar="COMMAND")
    helps = {
        "check": "look for damage, all through (SQLite's file, and what must hold between tables)",
        "backup": "write everything to one file, while it is in use",
        "restore": "put a backup in place of a store; also from SQLite into PostgreSQL and back",
        "info": "what the store holds",
        "upgrade": "bring the schema up to date (opening a store does it as well)",
    }
    for name, words in helps.items():
        command = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        command.add_argument("--store", metavar="URL", help="sqlite:///PATH or postgresql://USER@HOST/DATABASE")
        command.add_argument("--base-dir", metavar="DIR", help="the instance whose store it is")
        command.add_argument("--json", action="store_true", help="answer with one JSON object")
        if name in {"backup", "restore"}:
            command.add_argument("file", metavar="FILE", type=Path)
        if name == "restore":
            command.add_argument("--force", action="store_true", help="replace what is there")


def run(args: argparse.Namespace) -> int:
    """Do what was asked; the exit status."""
    try:
        answer, fine = _COMMANDS[args.store_command](args)
    except OperatorError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; nothing was changed.", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(answer))
    else:
        for line in _lines(answer):
            print(line)
    return 0 if fine else 1


def _url(args: argparse.Namespace) -> str:
    return args.store or BaseDir.at(args.base_dir).store_url


def _open(args: argparse.Namespace, *, check: bool = True) -> Store:
    return Store.open(_url(args), clock=SystemClock(), create=False, check=check)


def _check(args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    with _open(args, check=False) as store, store.read() as connection:
        problems = integrity.check(connection, _step(args))
        return {"store": store.url, "problems": problems}, not problems


def _backup(args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    with _open(args) as store:
        info = backup.backup(store, args.file.absolute(), progress=_bar(args))
        size = args.file.stat().st_size
        return {"store": store.url, "file": str(args.file), "bytes": size, "rows": info.rows}, True


def _restore(args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    url = _url(args)
    info = backup.restore(args.file, url, clock=SystemClock(), force=args.force, progress=_bar(args))
    return {"store": engine.shown(engine.parse(url)), "file": str(args.file), "rows": info.rows}, True


def _upgrade(args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    parsed = engine.parse(_url(args))
    with _open(args) as store, store.read() as connection:
        return {"store": engine.shown(parsed), "schema": schema.current(connection)}, True


def _info(args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    with _open(args) as store, store.read() as connection:
        answer: dict[str, Any] = {
            "store": store.url,
            "dialect": store.dialect,
            "schema": schema.current(connection),
            "bytes": _size(connection, store.dialect),
            "changes": sequence.head(connection),
            "devices": connection.execute(select(func.count()).select_from(device)).scalar_one(),
            "first_sample": connection.execute(select(func.min(fleet_sample.c.at))).scalar_one(),
            "last_sample": connection.execute(select(func.max(fleet_sample.c.at))).scalar_one(),
            "rolled_up_to": progress.read(connection).rolled,
            "leases": {},
            "rows": {},
        }
        for name in connection.execute(select(lease_table.c.name)).scalars():
            held = lease.get(connection, name)
            if held is not None:
                answer["leases"][name] = {"holder": held.holder, "term": held.term, "expires": held.expires}
        for table in METADATA.sorted_tables:
            answer["rows"][table.name] = connection.execute(select(func.count()).select_from(table)).scalar_one()
        return answer, True


def _size(connection: Any, dialect: str) -> int:
    if dialect == "postgresql":
        size: int = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
        return size
    pages: int = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    return pages * int(connection.exec_driver_sql("PRAGMA page_size").scalar_one())


_COMMANDS: dict[str, Callable[[argparse.Namespace], tuple[dict[str, Any], bool]]] = {
    "check": _check,
    "backup": _backup,
    "restore": _restore,
    "info": _info,
    "upgrade": _upgrade,
}


def _bar(args: argparse.Namespace) -> backup.Progress:
    """Progress on a terminal, in place; nothing where stderr is a file or a pipe."""
    shown = sys.stderr.isatty() and not args.json

    def step(table: str, done: int, total: int) -> None:
        if shown:
            end = "\n" if done >= total else ""
            print(f"\r{done:>12,} of {total:,} rows   {table:<20}", end=end, file=sys.stderr, flush=True)

    return step


def _step(args: argparse.Namespace) -> Callable[[str], None]:
    shown = sys.stderr.isatty() and not args.json
    return lambda what: print(f"checking: {what}", file=sys.stderr) if shown else None


def _lines(answer: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for name, value in answer.items():
        label = name.replace("_", " ")
        if isinstance(value, dict):
            lines.append(f"{label}:")
            lines += [f"  {key:<18} {each}" for key, each in value.items()]
        elif isinstance(value, list):
            lines.append(f"{label}: {'none' if not value else ''}".rstrip())
            lines += [f"  {each}" for each in value]
        else:
            lines.append(f"{label:<14} {value:,}" if isinstance(value, int) else f"{label:<14} {value}")
    return lines
