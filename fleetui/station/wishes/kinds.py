"""The kinds of wishes a station knows: what their arguments must be, and what they do.

A kind is a function from arguments to a plan: a :class:`Change` of the books and the store, or a
:class:`Question` to devices. Another kind is another function under ``KINDS``. Each change is idempotent: carried
out twice it is carried out once, because a station may be killed between doing and noting that it is done.

===================  =========================================================================
``device.rename``    ``device``, ``name``: what people call it; empty: by the name it reports
``device.tag``       ``devices``, ``tags``: laid over the reported ones; an empty value takes a given tag back
``device.note``      ``device``, ``notes``
``device.accept``    ``devices``; also ``reject``, ``reconsider``, ``decommission``: by the table of lifecycles
``device.remove``    ``devices``: forgotten, with their history; who introduces itself again is new
``device.ask``       ``devices``, ``ask`` ("ping" or "report"): waits for the answers
===================  =========================================================================

``devices`` is a list of device ids; a single ``device`` does as well. No I/O here: plans get a
connection, or books.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from fleetui.common.domain.states import LIFECYCLE, Lifecycle, LifecycleEvent
from fleetui.common.domain.values import is_id
from fleetui.station.ingest.ledger import Ledger
from fleetui.store import devices

MANY = 10_000
ASK_MANY = 1_000
TEXT = 64
NOTES = 4_000
ASKS = frozenset({"ping", "report"})


class RefusedError(Exception):
    """The wish makes no sense as it was asked: a sentence."""


class FailedError(Exception):
    """It makes sense, but the world is not so: a sentence."""


@dataclass(frozen=True, slots=True)
class Change:
    """``store`` runs in the transaction that ends the wish and returns the outcome; then ``books`` follow.

    ``about`` is the device it is about, where it is one.
    """

    store: Callable[[Connection], str]
    books: Callable[[Ledger], None] = lambda _ledger: None
    before: Callable[[Ledger], None] = lambda _ledger: None
    about: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """Asked of devices over the link; over when all have answered, or with time."""

    devices: tuple[str, ...]
    ask: str
    arguments: Mapping[str, str]


Plan = Change | Question
Kind = Callable[[Mapping[str, Any]], Plan]


def plan(kind: str, arguments: Mapping[str, Any]) -> Plan:
    """What is to be done. Raises :class:`RefusedError`."""
    made = KINDS.get(kind)
    if made is None:
        raise RefusedError(f"This station does not know how to carry out {kind[:60]!r}")
    return made(arguments)


# ------------------------------------------------------------------------------------------------ arguments


def _only(arguments: Mapping[str, Any], *names: str) -> None:
    unknown = sorted(set(arguments) - set(names))
    if unknown:
        raise RefusedError(f"{unknown[0]!r} is not something this wish takes")


def _devices(arguments: Mapping[str, Any], most: int = MANY) -> tuple[str, ...]:
    given = arguments.get("devices", arguments.get("device"))
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list | tuple) or not names:
        raise RefusedError("It does not say which devices it is about")
    if len(names) > most:
        raise RefusedError(f"It is about {len(names)} devices, and at most {most} can be done at once")
    for name in names:
        if not isinstance(name, str) or not is_id(name):
            raise RefusedError(f"{str(name)[:80]!r} is not a device id")
    return tuple(dict.fromkeys(names))


def _one(arguments: Mapping[str, Any]) -> str:
    names = _devices(arguments)
    if len(names) != 1:
        raise RefusedError("It is about one device at a time")
    return names[0]


def _text(arguments: Mapping[str, Any], name: str, most: int, *, lines: bool = False) -> str:
    value = arguments.get(name)
    if not isinstance(value, str):
        raise RefusedError(f"It needs a text as {name!r}")
    value = value.strip()
    if len(value) > most:
        raise RefusedError(f"{name!r} is longer than {most} characters")
    if any(not c.isprintable() and not (lines and c in "\n\t") for c in value):
        raise RefusedError(f"{name!r} holds characters that cannot be shown")
    return value


def _plural(count: int) -> str:
    return f"{count} device{'' if count == 1 else 's'}"


# ------------------------------------------------------------------------------------------------ kinds


def _rename(arguments: Mapping[str, Any]) -> Plan:
    _only(arguments, "device", "devices", "name")
    device, name = _one(arguments), _text(arguments, "name", TEXT)

    def store(connection: Connection) -> str:
        if not devices.set_name(connection, device, name):
            raise FailedError(f"There is no device {device}")
        return f"{device} is called {name!r}" if name else f"{device} goes by the name it reports"

    return Change(store, about=device)


def _note(arguments: Mapping[str, Any]) -> Plan:
    _only(arguments, "device", "devices", "notes")
    device, notes = _one(arguments), _text(arguments, "notes", NOTES, lines=True)

    def store(connection: Connection) -> str:
        if not devices.set_notes(connection, device, notes):
            raise FailedError(f"There is no device {device}")
        return f"Noted for {device}"

    return Change(store, about=device)


def _tag(arguments: Mapping[str, Any]) -> Plan:
    _only(arguments, "device", "devices", "tags")
    names = _devices(arguments)
    tags = arguments.get("tags")
    if not isinstance(tags, Mapping) or not tags or len(tags) > 20:
        raise RefusedError("It needs 1 to 20 tags")
    checked = {}
    for key in tags:
        if not isinstance(key, str) or not is_id(key):
            raise RefusedError(f"{str(key)[:80]!r} is not the name of a tag")
        checked[key] = _text(tags, key, TEXT)

    def store(connection: Connection) -> str:
        for name in names:
            merged = {**devices.given_tags(connection, name), **checked}
            if not devices.set_tags(connection, name, {k: v for k, v in merged.items() if v}):
                raise FailedError(f"There is no device {name}")
        return f"{_plural(len(names))} tagged"

    return Change(store, about=names[0] if len(names) == 1 else "")


def _remove(arguments: Mapping[str, Any]) -> Plan:
    _only(arguments, "device", "devices")
    names = _devices(arguments)

    def store(connection: Connection) -> str:
        removed = sum(devices.remove(connection, name) for name in names)
        return f"{_plural(removed)} removed"

    def before(ledger: Ledger) -> None:
        for name in names:
            ledger.forget(name)

    return Change(store, before=before)


def _lifecycle(event: LifecycleEvent, done: str) -> Kind:
    def make(arguments: Mapping[str, Any]) -> Plan:
        _only(arguments, "device", "devices")
        names = _devices(arguments)
        target: dict[str, Lifecycle] = {}

        def store(connection: Connection) -> str:
            target.clear()
            for name in names:
                row = devices.get(connection, name)
                if row is None:
                    raise FailedError(f"There is no device {name}")
                now = Lifecycle(row.lifecycle)
                wanted = LIFECYCLE.next(now, event)
                if wanted is None:
                    if now in _leads_to(event):
                        continue  # done already
                    raise FailedError(f"{name} is {now}, and cannot be {done}")
                devices.set_lifecycle(connection, name, wanted.value)
                target[name] = wanted
            return f"{_plural(len(names))} {done}"

        def books(ledger: Ledger) -> None:
            for name, lifecycle in target.items():
                ledger.set_lifecycle(name, lifecycle)

        return Change(store, books, about=names[0] if len(names) == 1 else "")

    return make


def _leads_to(event: LifecycleEvent) -> frozenset[Lifecycle]:
    return frozenset(row[event] for row in LIFECYCLE.table.values() if event in row)


def _ask(arguments: Mapping[str, Any]) -> Plan:
    _only(arguments, "device", "devices", "ask", "arguments")
    names = _devices(arguments, ASK_MANY)
    ask = _text(arguments, "ask", TEXT)
    if ask not in ASKS:
        raise RefusedError(f"{ask!r} is not something that can be asked of a device")
    more = arguments.get("arguments", {})
    if not isinstance(more, Mapping) or len(more) > 16:
        raise RefusedError("The arguments of a question are at most 16 texts")
    return Question(names, ask, {_checked_key(key): _text(more, key, 400) for key in more})


def _checked_key(key: object) -> str:
    if not isinstance(key, str) or len(key) > TEXT:
        raise RefusedError("The arguments of a question have names of at most 64 characters")
    return key


KINDS: dict[str, Kind] = {
    "device.rename": _rename,
    "device.note": _note,
    "device.tag": _tag,
    "device.remove": _remove,
    "device.accept": _lifecycle(LifecycleEvent.ACCEPT, "accepted"),
    "device.reject": _lifecycle(LifecycleEvent.REJECT, "rejected"),
    "device.reconsider": _lifecycle(LifecycleEvent.RECONSIDER, "put back in the queue"),
    "device.decommission": _lifecycle(LifecycleEvent.DECOMMISSION, "decommissioned"),
    "device.ask": _ask,
}
