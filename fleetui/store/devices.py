"""The table of devices: what is known of each one now.

Two sides write it, and neither touches the other's columns. What devices report belongs to ingest
(``ingest.write``). Name, tags, lifecycle and notes that people give belong to the functions here, which the
station calls when it carries out a wish. A reader sees one row: the given name if there is one, else the
reported one; given tags laid over reported tags.

Runs on whatever thread holds the connection; keeps no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, bindparam, delete, literal_column, select, update

from fleetui.store import coding, sequence
from fleetui.store.compiled import Compiled, insert, upsert
from fleetui.store.compiled import update as compiled_update
from fleetui.store.records import NAN, DeviceRow
from fleetui.store.tables import OPERATOR_COLUMNS, device, removed_device, tombstone

_FIELDS = tuple(f.name for f in fields(DeviceRow))
_JSON = ("tags", "models", "reasons")
_OF_OTHERS = frozenset({"device", "seq", "lifecycle", "notes"})
# What ingest writes as it stands, in one attrgetter, and what has to be encoded first.
REPORTED = tuple(name for name in _FIELDS if name not in _OF_OTHERS and name not in _JSON)
_TEXTS = tuple(name for name in REPORTED if device.c[name].type.python_type is str)
_reported = attrgetter(*REPORTED)
_texts = attrgetter(*_TEXTS)
_TEXT_AT = tuple(REPORTED.index(name) for name in _TEXTS)

_UPDATE: Compiled = compiled_update(device, ("seq", *REPORTED, *_JSON), "number")
_INSERT: Compiled = insert(device, ("number", "device", "lifecycle", "seq", *REPORTED, *_JSON))
_TOMBSTONE: Compiled = upsert(tombstone, ("kind", "name", "seq"), ("kind", "name"))
_COME_BACK = Compiled(
    ("gone",),
    lambda _: delete(tombstone).where(
        tombstone.c.kind == literal_column("'device'"),
        tombstone.c.name == bindparam("gone", type_=tombstone.c.name.type),
    ),
)

_EXTRA = ("given_name", "given_tags")
_SELECT = select(*(device.c[name] for name in (*_FIELDS, *_EXTRA)))
_FIGURE_AT = tuple(i for i, name in enumerate(_FIELDS) if device.c[name].nullable)
_AT = {name: i for i, name in enumerate(_FIELDS)}
_NAME, _TAGS, _MODELS, _REASONS = _AT["name"], _AT["tags"], _AT["models"], _AT["reasons"]
_WIDTH = len(_FIELDS)


def _row(found: Sequence[Any], *, given: bool = True) -> DeviceRow:
    values = list(found)
    given_tags = values.pop()
    given_name = values.pop()
    for i in _FIGURE_AT:
        if values[i] is None:
            values[i] = NAN
    tags = coding.string_map(values[_TAGS])
    if given:
        if given_name:
            values[_NAME] = given_name
        if given_tags != "{}":
            tags = {**tags, **coding.string_map(given_tags)}
    values[_TAGS] = tags
    values[_MODELS] = coding.models(values[_MODELS])
    values[_REASONS] = coding.strings(values[_REASONS])
    return DeviceRow(*values)


# ------------------------------------------------------------------------------------------------ reading


def all(connection: Connection) -> list[DeviceRow]:  # noqa: A001 - reads as devices.all
    """Every device as people see it, oldest number first."""
    return [_row(found) for found in connection.execute(_SELECT.order_by(device.c.number))]


def reported(connection: Connection) -> list[DeviceRow]:
    """Every device as its own reports have it, without what people gave: what a station goes on from.

    Writing such a row back through ``ingest.write`` leaves people's names and tags apart from the device's.
    """
    return [_row(found, given=False) for found in connection.execute(_SELECT.order_by(device.c.number))]


def get(connection: Connection, name: str) -> DeviceRow | None:
    found = connection.execute(_SELECT.where(device.c.device == name)).one_or_none()
    return None if found is None else _row(found)


def changed(connection: Connection, since: int, limit: int) -> list[DeviceRow]:
    """Those written after ``since``, oldest change first."""
    statement = _SELECT.where(device.c.seq > since).order_by(device.c.seq).limit(limit)
    return [_row(found) for found in connection.execute(statement)]


def number_of(connection: Connection, name: str) -> int | None:
    return connection.execute(select(device.c.number).where(device.c.device == name)).scalar_one_or_none()


def numbers(connection: Connection, names: Iterable[str]) -> dict[str, int]:
    """The numbers of those that are known."""
    asked = list(names)
    if not asked:
        return {}
    # One parameter, however many names: no text to build or to parse anew.
    if connection.dialect.name == "sqlite":
        text = "SELECT device, number FROM device WHERE device IN (SELECT value FROM json_each(?))"
        parameters: tuple[Any, ...] = (coding.json_text(asked),)
    else:
        text = "SELECT device, number FROM device WHERE device = ANY(%s)"
        parameters = (asked,)
    return dict(connection.exec_driver_sql(text, parameters).all())


# ------------------------------------------------------------------------------------------------ ingest's side


def _encoded(row: DeviceRow) -> tuple[Any, ...]:
    values = _reported(row)
    if "\0" in "".join(_texts(row)):
        mutable = list(values)
        for i in _TEXT_AT:
            mutable[i] = coding.clean(mutable[i])
        values = tuple(mutable)
    return (
        *values,
        coding.json_text(row.tags) if row.tags else "{}",
        coding.json_text(row.models) if row.models else "[]",
        coding.json_text(row.reasons) if row.reasons else "[]",
    )


def write_reported(connection: Connection, rows: list[DeviceRow], known: Mapping[str, int], seq: int) -> None:
    """Write what is reported, each row under a number of its own from ``seq`` on; all devices must be known."""
    _UPDATE.many(connection, [(seq + i, *_encoded(row), known[row.device]) for i, row in enumerate(rows)])


def write_new(connection: Connection, rows: list[DeviceRow], number: int, seq: int) -> None:
    """Enter devices that were not known, numbered from ``number`` on."""
    _INSERT.many(
        connection,
        [(number + i, row.device, row.lifecycle, seq + i, *_encoded(row)) for i, row in enumerate(rows)],
    )
    # A device that comes back is not gone any more.
    _COME_BACK.many(connection, [(row.device,) for row in rows])


# ------------------------------------------------------------------------------------------------ operators' side


def _give(connection: Connection, name: str, **values: str) -> bool:
    if not values.keys() <= OPERATOR_COLUMNS:
        raise ValueError(f"not for operators to write: {set(values) - OPERATOR_COLUMNS}")
    statement = update(device).where(device.c.device == name)
    return connection.execute(statement.values(seq=sequence.next_seq(connection), **values)).rowcount > 0


def set_name(connection: Connection, name: str, shown: str) -> bool:
    """Call it so; empty: by the name it reports. False where there is no such device, as with all of these."""
    return _give(connection, name, given_name=coding.clean(shown))


def set_tags(connection: Connection, name: str, tags: Mapping[str, str]) -> bool:
    """Lay these over the tags it reports, in place of what was given before."""
    return _give(connection, name, given_tags=coding.json_text(dict(tags)))


def set_lifecycle(connection: Connection, name: str, lifecycle: str) -> bool:
    return _give(connection, name, lifecycle=lifecycle)


def set_notes(connection: Connection, name: str, notes: str) -> bool:
    return _give(connection, name, notes=coding.clean(notes))


def given_tags(connection: Connection, name: str) -> dict[str, str]:
    """The tags that people gave it, without those it reports."""
    text = connection.execute(select(device.c.given_tags).where(device.c.device == name)).scalar_one_or_none()
    return dict(coding.string_map(text)) if text else {}


def remove(connection: Connection, name: str) -> bool:
    """Forget a device: gone for every reader at once; retention sweeps what it left in the large tables."""
    number = number_of(connection, name)
    if number is None:
        return False
    seq = sequence.next_seq(connection)
    connection.execute(delete(device).where(device.c.number == number))
    connection.execute(removed_device.insert().values(number=number))
    _TOMBSTONE.many(connection, [("device", name, seq)])
    return True
