"""``fleetui devices``: the fleet on the command line, with the desk's own filters, columns and wishes.

Reads the store; what changes anything is a wish, signed with the operator's key and carried out by the station.
No Qt, no threads of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fleetui.common.basedir import BaseDir
from fleetui.common.domain import filters
from fleetui.common.domain.clock import Clock, SystemClock
from fleetui.common.domain.errors import ConfigError, OperatorError
from fleetui.desk.app import export
from fleetui.desk.app.columns import DeviceTable
from fleetui.desk.app.order import DeviceView
from fleetui.desk.app.shown import COLUMNS, FIRST, ShownColumn, cell_text, shown_column
from fleetui.desk.app.text import plural
from fleetui.store import devices, events, feed, status, wishes
from fleetui.store.records import Changes, EventRow, Wish, WishState
from fleetui.store.store import Store

LEVELS = ("debug", "info", "warning", "error", "critical")
ENDED = {WishState.DONE, WishState.FAILED, WishState.REFUSED, WishState.WITHDRAWN}


def configure(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="do", required=True, metavar="WHAT")

    listed = _command(commands, "list", "list devices", _list)
    listed.add_argument("filter", nargs="*", metavar="FILTER", help="e.g. site:berlin and status:offline")
    listed.add_argument("--columns", metavar="NAMES", help="comma-separated; '?' lists them")
    listed.add_argument("--sort", default="id", metavar="NAME", help="by a column")
    listed.add_argument("--descending", action="store_true", help="the other way round")
    listed.add_argument("--count", action="store_true", help="print only how many there are")
    listed.add_argument("--csv", action="store_true", help="comma-separated values with a heading")

    shown = _command(commands, "show", "show all that is known of one device", _show)
    shown.add_argument("device", metavar="ID")

    told = _command(commands, "events", "list what happened, newest first", _events)
    told.add_argument("device", nargs="?", metavar="ID", help="of one device only")
    told.add_argument("--level", choices=LEVELS, default="info", help="at least this grave (default: info)")
    told.add_argument("--limit", type=int, default=50, metavar="N")

    renamed = _command(commands, "rename", "give a device the name that people see", _rename)
    renamed.add_argument("device", metavar="ID")
    renamed.add_argument("name", metavar="NAME", help="an empty one takes it away")

    tagged = _command(commands, "tag", "set tags on devices", _tag)
    tagged.add_argument("filter", metavar="FILTER", help="which devices; id:NAME for one")
    tagged.add_argument("tags", nargs="+", metavar="KEY=VALUE", help="an empty value takes the tag away")
    _bulk(tagged)

    for kind, words in (
        ("accept", "let devices take part"),
        ("reject", "refuse what devices report"),
        ("remove", "forget devices and all they reported"),
    ):
        acted = _command(commands, kind, words, _act)
        acted.add_argument("filter", metavar="FILTER", help="which devices; id:NAME for one")
        _bulk(acted)

    asked = _command(commands, "ask", "have devices report at once", _ask)
    asked.add_argument("filter", metavar="FILTER", help="which devices; id:NAME for one")
    _bulk(asked)


def _command(commands: Any, name: str, words: str, call: Callable[..., int]) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=words, description=words.capitalize() + ".")
    made.add_argument("--base-dir", metavar="DIR", help="the instance's folder")
    made.add_argument("--store", metavar="URL", help="a store elsewhere")
    made.add_argument("--json", action="store_true", help="one JSON object on stdout")
    made.set_defaults(call=call)
    return made


def _bulk(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask, also for more than one device")
    parser.add_argument(
        "--wait", type=float, default=30.0, metavar="SECONDS", help="for the station to carry it out (default: 30)"
    )


def run(args: argparse.Namespace) -> int:
    if getattr(args, "columns", None) == "?":
        print("\n".join(f"{c.name:<16} {c.help or c.title}" for c in COLUMNS))
        return 0
    base = BaseDir.at(args.base_dir)
    clock = SystemClock()
    with Store.open(args.store or base.store_url, clock=clock, create=False, check=False) as store:
        code: int = args.call(args, base, store, clock)
    return code


# ---------------------------------------------------------------- reading


def _load(store: Store, clock: Clock) -> tuple[DeviceTable, float]:
    """Every device, and fleet time: the stations' where it runs ahead of this machine's (the demo's does)."""
    with store.read() as connection:
        rows = tuple(devices.all(connection))
        head = feed.head(connection)
        told = [said.at for said in status.list(connection)]
    table = DeviceTable()
    table.apply(Changes(seq=head, devices=rows))
    return table, max([clock.now(), *told])


def _passing(table: DeviceTable, text: str, now: float, name: str = "id", *, descending: bool = False) -> list[int]:
    column = shown_column(name)
    if column is None:
        raise ConfigError(f"There is no column {name!r}", "'fleetui devices list --columns ?' lists them")
    view = DeviceView(table, _At(now), column.column, descending=descending)
    view.set_filter(filters.parse(text) if text.strip() else None)
    return [view.row_at(i) for i in range(len(view))]


class _At(SystemClock):
    """Fleet time as it was when the rows were read."""

    def __init__(self, now: float) -> None:
        self._now = now

    def now(self) -> float:
        return self._now


def _list(args: argparse.Namespace, _base: BaseDir, store: Store, clock: Clock) -> int:
    table, now = _load(store, clock)
    found = _passing(table, " ".join(args.filter), now, args.sort, descending=args.descending)
    columns = _columns(args.columns)
    if args.json:
        extracted = export.extract(table, columns, found)
        rows = [dict(zip(extracted.columns, row, strict=True)) for row in extracted.rows]
        print(json.dumps({"count": len(found), "of": len(table), "devices": rows}, ensure_ascii=False))
    elif args.count:
        print(len(found))
    elif args.csv:
        print(export.to_csv(export.extract(table, columns, found)), end="")
    elif found:
        _print_table([c.title for c in columns], [[cell_text(table, c, r, now) for c in columns] for r in found],
                     right=[c.right for c in columns])  # fmt: skip
        print(f"{len(found):,} of {plural(len(table), 'device')}", file=sys.stderr)
    else:
        print(f"None of {plural(len(table), 'device')}.", file=sys.stderr)
    return 0


def _columns(names: str | None) -> list[ShownColumn]:
    found = []
    for name in names.split(",") if names else FIRST:
        column = shown_column(name.strip())
        if column is None:
            raise ConfigError(
                f"There is no column {name.strip()!r}", "'fleetui devices list --columns ?' lists them"
            )
        found.append(column)
    return found


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
    widths = [max(len(t), *(len(row[i]) for row in rows)) for i, t in enumerate(titles)]
    for row in (titles, *rows):
        cells = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        print("  ".join(cells).rstrip())


def _show(args: argparse.Namespace, _base: BaseDir, store: Store, clock: Clock) -> int:
    table, now = _load(store, clock)
    if args.device not in table:
        raise _unknown(args.device, table)
    row = table.row_of(args.device)
    if args.json:
        extracted = export.extract(table, COLUMNS, [row])
        print(json.dumps(dict(zip(extracted.columns, extracted.rows[0], strict=True)), ensure_ascii=False))
        return 0
    for column in COLUMNS:
        print(f"{column.title:<16} {cell_text(table, column, row, now)}".rstrip())
    return 0


def _unknown(device: str, table: DeviceTable) -> OperatorError:
    import difflib

    near = difflib.get_close_matches(device, table.devices(range(len(table))), n=1)
    return ConfigError(f"There is no device {device!r}", f"Did you mean {near[0]!r}?" if near else "")


def _events(args: argparse.Namespace, _base: BaseDir, store: Store, _clock: Clock) -> int:
    from datetime import UTC, datetime

    with store.read() as connection:
        found = events.read(
            connection, device=args.device, level=LEVELS.index(args.level), limit=max(1, min(args.limit, 10_000))
        )

    def plain(event: EventRow) -> dict[str, Any]:
        at = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return {
            "at": at, "level": LEVELS[event.level], "device": event.device, "kind": event.kind,
            "text": event.text, "codes": list(event.codes), "source": event.source,
        }  # fmt: skip

    rows = [plain(event) for event in found]
    if args.json:
        print(json.dumps({"events": rows}, ensure_ascii=False))
    for row in () if args.json else rows:
        print(f"{row['at']}  {row['level']:<8}  {row['device'] or row['source']:<20}  {row['text'] or row['kind']}")
    return 0


# ---------------------------------------------------------------- wishes


def _rename(args: argparse.Namespace, base: BaseDir, store: Store, clock: Clock) -> int:
    args.wait, args.yes = 30.0, True
    return _wish(args, base, store, clock, "device.rename", {"device": args.device, "name": args.name})


def _tag(args: argparse.Namespace, base: BaseDir, store: Store, clock: Clock) -> int:
    tags = {}
    for item in args.tags:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"{item!r} is not a tag", "Write KEY=VALUE")
        tags[key] = value
    return _wish(args, base, store, clock, "device.tag", {"devices": _chosen(args, store, clock), "tags": tags})


def _act(args: argparse.Namespace, base: BaseDir, store: Store, clock: Clock) -> int:
    return _wish(args, base, store, clock, f"device.{args.do}", {"devices": _chosen(args, store, clock)})


def _ask(args: argparse.Namespace, base: BaseDir, store: Store, clock: Clock) -> int:
    arguments = {"devices": _chosen(args, store, clock), "ask": "report"}
    return _wish(args, base, store, clock, "device.ask", arguments)


def _chosen(args: argparse.Namespace, store: Store, clock: Clock) -> list[str]:
    table, now = _load(store, clock)
    chosen = table.devices(_passing(table, args.filter, now))
    if not chosen:
        raise ConfigError(f"No device passes {args.filter!r}", "'fleetui devices list' shows which there are")
    if args.yes or (len(chosen) == 1 and args.do != "remove"):
        return chosen
    sites = {table.text("site", table.row_of(device)) for device in chosen}
    print(
        f"{args.do.capitalize()} {plural(len(chosen), 'device')} in {plural(len(sites), 'site')}? [y/N] ",
        end="", file=sys.stderr, flush=True,
    )  # fmt: skip
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise ConfigError("Nothing was done", "Answer y, or give --yes")
    return chosen


def _wish(
    args: argparse.Namespace, base: BaseDir, store: Store, clock: Clock, kind: str, arguments: Mapping[str, Any]
) -> int:
    """Ask, and wait for what becomes of it."""
    from fleetui.common.trust.wishes import sign_wish
    from fleetui.station.operators import local_operator

    operator = local_operator(base)
    identity, at = uuid.uuid4().hex, round(clock.now(), 3)
    signature = sign_wish(operator, identity, kind, arguments, at)
    wished = Wish(identity, kind, arguments, operator.name, at, signature)
    store.write(lambda connection: wishes.ask(connection, wished))
    ended = _await(store, clock, identity, args.wait)
    if ended is None:
        store.write(lambda connection: wishes.withdraw(connection, identity, now=clock.now()))
        with store.read() as connection:
            ended = wishes.get(connection, identity)
    state = ended.state if ended is not None else WishState.WITHDRAWN
    outcome = ended.outcome if ended is not None else ""
    if args.json:
        print(json.dumps({"wish": identity, "state": str(state), "outcome": outcome}, ensure_ascii=False))
    elif state is WishState.DONE:
        print(outcome or "Done.")
    if state is WishState.DONE:
        return 0
    if state is WishState.WITHDRAWN:
        raise ConfigError(
            f"No station took the wish within {args.wait:g} s, so it was taken back",
            "Start one: 'fleetui station', or open the desk",
        )
    if state not in ENDED:
        raise ConfigError(f"The station is still at it after {args.wait:g} s", "Look again with 'fleetui devices'")
    raise ConfigError(outcome or f"The wish was {state}", "")


def _await(store: Store, clock: Clock, identity: str, seconds: float) -> Wish | None:
    deadline = clock.monotonic() + seconds
    pause = threading.Event()
    while clock.monotonic() < deadline:
        with store.read() as connection:
            found = wishes.get(connection, identity)
        if found is not None and found.state in ENDED:
            return found
        pause.wait(0.1)
    return None
