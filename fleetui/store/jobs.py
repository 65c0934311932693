"""Compile jobs: asked for by anybody who may, claimed by one worker at a time, never deleted.

States and their events are ``domain.states.JOB``. A worker holds a job by a lease that it renews with every
progress report; ``now`` is real time, as for leases. A job whose worker let the lease run out goes back into the
queue, and fails for good after ``ATTEMPTS``: a model that kills its worker must not do so for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, or_, select, update

from fleetui.common.domain.states import JOB, Job, JobEvent
from fleetui.store import coding, sequence
from fleetui.store.records import JobRow
from fleetui.store.tables import job

ATTEMPTS = 3
OPEN = (Job.STARTING, Job.IN_PROGRESS, Job.STOPPING)
_NAMES = (
    *("id", "kind", "title", "request", "operator", "asked", "state", "started", "ended", "holder", "held_until"),
    *("attempts", "progress", "code", "sentence", "fix", "record", "seq"),
)
_SELECT = select(*(job.c[name] for name in _NAMES))
_JSON = frozenset({"request", "progress", "record"})


def _row(found: Sequence[Any]) -> JobRow:
    fields = dict(zip(_NAMES, found, strict=True))
    for name in _JSON:
        fields[name] = coding.json_object(fields[name])
    fields["state"] = Job(fields["state"])
    return JobRow(**fields)


def ask(connection: Connection, asked: JobRow) -> bool:
    """Enter a job; False where one of its id is there already, which then stays as it is."""
    if get(connection, asked.id) is not None:
        return False
    seq = sequence.next_seq(connection)
    values = {name: getattr(asked, name) for name in _NAMES}
    values |= {name: coding.json_text(dict(values[name])) for name in _JSON}
    values |= {name: coding.clean(values[name]) for name in ("title", "operator", "sentence", "fix")}
    connection.execute(job.insert().values(**values | {"state": Job.STARTING.value, "seq": seq, "arrived": seq}))
    return True


def claim(connection: Connection, holder: str, ttl_s: float, now: float) -> JobRow | None:
    """The oldest job that waits, now ``holder``'s; None where none does. Lapsed ones are put back first."""
    lapse(connection, now)
    oldest = (
        select(job.c.id)
        .where(job.c.state == Job.STARTING.value)
        .order_by(job.c.arrived)
        .limit(1)
        .with_for_update(skip_locked=True)  # SQLite has no row locks and needs none
    )
    identity = connection.execute(oldest).scalar_one_or_none()
    if identity is None:
        return None
    row = get(connection, identity)
    assert row is not None
    _go(
        connection,
        row,
        JobEvent.CLAIM,
        holder=holder,
        held_until=now + ttl_s,
        started=now,
        attempts=row.attempts + 1,
    )
    return get(connection, identity)


def report(
    connection: Connection, identity: str, holder: str, progress: Mapping[str, Any], ttl_s: float, now: float
) -> Job | None:
    """Say how far a job is and keep holding it; its state, or None where it is not ``holder``'s any more.

    ``STOPPING`` tells the worker that somebody asked for a stop.
    """
    mine = (job.c.id == identity, job.c.holder == holder, job.c.state.in_([Job.IN_PROGRESS, Job.STOPPING]))
    values = {"progress": coding.json_text(dict(progress)), "held_until": now + ttl_s}
    if not connection.execute(
        update(job).where(*mine).values(seq=sequence.next_seq(connection), **values)
    ).rowcount:
        return None
    return Job(connection.execute(select(job.c.state).where(job.c.id == identity)).scalar_one())


def finish(
    connection: Connection,
    identity: str,
    holder: str,
    event: JobEvent,
    *,
    now: float,
    record: Mapping[str, Any] | None = None,
    code: str = "",
    sentence: str = "",
    fix: str = "",
) -> bool:
    """End a held job as completed, failed or stopped. False where it is not ``holder``'s any more."""
    row = get(connection, identity)
    if row is None or row.holder != holder or row.state not in {Job.IN_PROGRESS, Job.STOPPING}:
        return False
    if row.state is Job.STOPPING:
        event = JobEvent.STOPPED  # somebody asked first; what came of it after all is not given out
    values: dict[str, Any] = {
        "ended": now,
        "code": code,
        "sentence": coding.clean(sentence),
        "fix": coding.clean(fix),
    }
    if record is not None and event is JobEvent.COMPLETE:
        values["record"] = coding.json_text(dict(record))
    return _go(connection, row, event, **values)


def release(connection: Connection, identity: str, holder: str) -> bool:
    """Give a held job back to the queue: its worker is being shut down. It does not count as an attempt."""
    row = get(connection, identity)
    if row is None or row.holder != holder or row.state not in {Job.IN_PROGRESS, Job.STOPPING}:
        return False
    return _go(connection, row, JobEvent.LOST, holder="", held_until=0.0, attempts=max(0, row.attempts - 1))


def stop(connection: Connection, identity: str, *, now: float) -> Job | None:
    """Ask a job to stop: one that waits is stopped at once. Its state now; None where there is none."""
    row = get(connection, identity)
    if row is None:
        return None
    _go(connection, row, JobEvent.STOP, **({"ended": now} if row.state is Job.STARTING else {}))
    row = get(connection, identity)
    assert row is not None
    return row.state


def lapse(connection: Connection, now: float) -> int:
    """Put back what workers that are gone had claimed; how many there were."""
    late = _SELECT.where(job.c.state.in_([Job.IN_PROGRESS, Job.STOPPING]), job.c.held_until < now)
    count = 0
    for row in [_row(found) for found in connection.execute(late)]:
        if row.state is Job.IN_PROGRESS and row.attempts >= ATTEMPTS:
            words = {
                "code": "died",
                "sentence": f"The job's worker ended without a word, {row.attempts} times",
                "fix": "Look at the worker's log; the model may need more memory than there is",
            }
            _go(connection, row, JobEvent.FAIL, ended=now, **words)
        else:
            ended = {"ended": now} if row.state is Job.STOPPING else {}
            _go(connection, row, JobEvent.LOST, holder="", held_until=0.0, **ended)
        count += 1
    return count


def get(connection: Connection, identity: str) -> JobRow | None:
    found = connection.execute(_SELECT.where(job.c.id == identity)).one_or_none()
    return None if found is None else _row(found)


def recent(connection: Connection, *, limit: int = 100, only_open: bool = False) -> list[JobRow]:
    """The newest first; with ``only_open`` those that are not ended."""
    statement = _SELECT.order_by(job.c.arrived.desc()).limit(limit)
    if only_open:
        statement = statement.where(or_(*(job.c.state == state.value for state in OPEN)))
    return [_row(found) for found in connection.execute(statement)]


def changed(connection: Connection, since: int, limit: int) -> list[JobRow]:
    statement = _SELECT.where(job.c.seq > since).order_by(job.c.seq).limit(limit)
    return [_row(found) for found in connection.execute(statement)]


def _go(connection: Connection, row: JobRow, event: JobEvent, **values: Any) -> bool:
    """Move a job along its table, if the event means anything in its state."""
    following = JOB.next(row.state, event)
    if following is None:
        return False
    statement = update(job).where(job.c.id == row.id, job.c.state == row.state.value)
    moved = statement.values(state=following.value, seq=sequence.next_seq(connection), **values)
    return connection.execute(moved).rowcount > 0
