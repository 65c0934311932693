"""Messages that were refused: all are counted by reason, the newest few are kept as samples.

What is kept is bounded whatever is sent: ``KEPT`` samples in all, ``KEPT_OF_EACH`` per device and reason, so that
one noisy device does not push out what others got wrong.
"""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Connection, delete, func, select

from fleetui.store import coding
from fleetui.store.compiled import add_up, insert
from fleetui.store.records import Rejected
from fleetui.store.tables import rejected, rejected_count

KEPT = 500
KEPT_OF_EACH = 20
PAYLOAD = 512

_COUNT = add_up(rejected_count, "reason", "total", ("last",))
_INSERT = insert(rejected, ("id", "at", "topic", "reason", "detail", "device", "size", "payload"))


def write(connection: Connection, rows: list[Rejected], seq: int) -> None:
    """Count them, keep the newest of each kind under ids from ``seq`` on, and let the oldest go."""
    if not rows:
        return
    totals: Counter[str] = Counter()
    last: dict[str, float] = {}
    for row in rows:
        totals[row.reason] += 1
        last[row.reason] = max(row.at, last.get(row.reason, row.at))
    _COUNT.many(connection, [(reason, totals[reason], last[reason]) for reason in sorted(totals)])
    seen: Counter[tuple[str, str]] = Counter()
    kept: list[tuple[int, Rejected]] = []
    for i in range(len(rows) - 1, -1, -1):
        row = rows[i]
        seen[row.device, row.reason] += 1
        if seen[row.device, row.reason] <= KEPT_OF_EACH:
            kept.append((seq + i, row))
            if len(kept) == KEPT:
                break
    _INSERT.many(
        connection,
        [
            (
                number,
                row.at,
                coding.clean(row.topic),
                row.reason,
                coding.clean(row.detail),
                coding.clean(row.device),
                row.size,
                bytes(row.payload[:PAYLOAD]),
            )
            for number, row in reversed(kept)
        ],
    )
    ranked = select(
        rejected.c.id,
        func.row_number()
        .over(partition_by=(rejected.c.device, rejected.c.reason), order_by=rejected.c.id.desc())
        .label("rank"),
    ).subquery()
    connection.execute(
        delete(rejected).where(rejected.c.id.in_(select(ranked.c.id).where(ranked.c.rank > KEPT_OF_EACH)))
    )
    newest = select(rejected.c.id).order_by(rejected.c.id.desc()).limit(KEPT).subquery()
    connection.execute(delete(rejected).where(rejected.c.id < select(func.min(newest.c.id)).scalar_subquery()))


def counts(connection: Connection) -> dict[str, int]:
    """How many were refused ever, by reason."""
    found = connection.execute(select(rejected_count.c.reason, rejected_count.c.total))
    return dict(found.all())


def recent(
    connection: Connection, *, device: str | None = None, reason: str | None = None, limit: int = 100
) -> list[Rejected]:
    """The samples that are kept, newest first."""
    statement = select(
        rejected.c.at,
        rejected.c.topic,
        rejected.c.reason,
        rejected.c.detail,
        rejected.c.device,
        rejected.c.size,
        rejected.c.payload,
    )
    if device is not None:
        statement = statement.where(rejected.c.device == device)
    if reason is not None:
        statement = statement.where(rejected.c.reason == reason)
    found = connection.execute(statement.order_by(rejected.c.id.desc()).limit(limit))
    return [
        Rejected(at, topic, why, detail, of, size, bytes(data)) for at, topic, why, detail, of, size, data in found
    ]
