"""Events of devices and of the control room itself: written once, never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, or_, select

from fleetui.store import coding, devices, sequence
from fleetui.store.compiled import Compiled
from fleetui.store.records import EventRow
from fleetui.store.tables import device, event

_NAMES = (
    *("seq", "at", "device", "kind", "level", "text", "codes", "subject"),
    *("boot", "report_seq", "source"),
)


def _build(dialect: str) -> Any:
    from sqlalchemy import bindparam, text
    from sqlalchemy.dialects import postgresql, sqlite

    module: Any = sqlite if dialect == "sqlite" else postgresql
    values = {name: bindparam(name, type_=event.c[name].type) for name in _NAMES}
    return (
        module.insert(event)
        .values(values)
        .on_conflict_do_nothing(index_elements=["device", "boot", "report_seq"], index_where=text("boot <> ''"))
    )


_WRITE = Compiled(_NAMES, _build)

_SELECT = select(*(event.c[name] for name in _NAMES), device.c.device.label("name")).join_from(
    event, device, device.c.number == event.c.device, isouter=True
)
# Those of a device that was removed go with it.
_KNOWN = or_(event.c.device == 0, device.c.device.is_not(None))


def _row(found: Sequence[Any]) -> EventRow:
    seq, at, _, kind, level, text, codes, subject, boot, report_seq, source, name = found
    return EventRow(
        at=at,
        kind=kind,
        level=level,
        text=text,
        device=name or "",
        codes=coding.strings(codes),
        subject=subject,
        boot=boot,
        report_seq=report_seq,
        source=source,
        id=seq,
        seq=seq,
    )


def write(connection: Connection, rows: list[EventRow], numbers: Mapping[str, int], seq: int) -> None:
    """Enter events under numbers from ``seq`` on; a report that is there already stays as it was."""
    _WRITE.many(
        connection,
        [
            (
                seq + i,
                row.at,
                numbers[row.device] if row.device else 0,
                coding.clean(row.kind),
                row.level,
                coding.clean(row.text),
                coding.json_text(row.codes) if row.codes else "[]",
                coding.clean(row.subject),
                coding.clean(row.boot),
                row.report_seq,
                row.source,
            )
            for i, row in enumerate(rows)
        ],
    )


def add(connection: Connection, row: EventRow) -> int:
    """Enter one event of the control room (or of a device that is known); its id.

    With ``boot`` and ``report_seq`` set it is entered once however often it is added.
    """
    numbers = devices.numbers(connection, [row.device]) if row.device else {}
    if row.device and row.device not in numbers:
        raise LookupError(row.device)
    seq = sequence.next_seq(connection)
    write(connection, [row], numbers, seq)
    return seq


def read(
    connection: Connection,
    *,
    device: str | None = None,  # the word callers use
    level: int = 0,
    before: EventRow | None = None,
    limit: int = 200,
) -> list[EventRow]:
    """The newest events first: of ``device`` ("" the control room's own, None all), at least as grave as
    ``level``, older than ``before`` (the last of the page before this one).
    """
    statement: Select[Any] = _SELECT.where(_KNOWN)
    if device is not None:
        number = devices.number_of(connection, device) if device else 0
        if number is None:
            return []
        statement = statement.where(event.c.device == number)
    if level > 0:
        statement = statement.where(event.c.level >= level)
    if before is not None:
        statement = statement.where(
            or_(event.c.at < before.at, and_(event.c.at == before.at, event.c.seq < before.id))
        )
    statement = statement.order_by(event.c.at.desc(), event.c.seq.desc()).limit(limit)
    return [_row(found) for found in connection.execute(statement)]


def changed(connection: Connection, since: int, limit: int) -> list[EventRow]:
    """Those entered after ``since``, in the order of entering."""
    statement = _SELECT.where(_KNOWN, event.c.seq > since).order_by(event.c.seq).limit(limit)
    return [_row(found) for found in connection.execute(statement)]
