"""The tables, as SQLAlchemy Core knows them. No queries here; the migrations build the same tables from text.

Three rules hold throughout:

* Numbers that identify rows are drawn from ``change_head`` inside the writing transaction, never from a
  database's own counters: they are the same on SQLite and PostgreSQL, are never used twice, and travel in a
  backup.
* The large tables name devices and words by small numbers and carry no foreign keys: a removed device's
  number is never given again, so its left-over rows are invisible, and retention sweeps them in slices.
* Columns of ``device`` belong either to ingest or to operators (see :data:`OPERATOR_COLUMNS`); neither side
  writes the other's.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)

from fleetui.store.records import FLEET_METRICS, METRICS

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

# SQLite gives a table's only integer key for free, but only under the name INTEGER.
_Key = BigInteger().with_variant(Integer, "sqlite")


def _text(name: str, default: str = "") -> Column[str]:
    return Column(name, Text, nullable=False, server_default=text(f"'{default}'"))


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


def _time(name: str) -> Column[float]:
    return Column(name, Double, nullable=False, server_default=text("0"))


def _figure(name: str) -> Column[float]:
    """A measured figure: NULL where it is not known."""
    return Column(name, Double, nullable=True)


change_head = Table(
    "change_head",
    METADATA,
    Column("id", _Key, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),  # the last change number given
    Column("devices", BigInteger, nullable=False),  # the last device number given
    Column("words", BigInteger, nullable=False),  # the last word number given
    Column("restored", BigInteger, nullable=False),  # how often a backup was put in place of what was here
)

tombstone = Table(
    "tombstone",
    METADATA,
    Column("kind", Text, primary_key=True),  # device | view
    Column("name", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False, index=True),
)

# ------------------------------------------------------------------------------------------------ devices

device = Table(
    "device",
    METADATA,
    Column("number", _Key, primary_key=True, autoincrement=False),
    Column("device", Text, nullable=False, unique=True),
    Column("seq", BigInteger, nullable=False, index=True),
    _text("name"),
    _text("site"),
    _text("target"),
    _text("firmware"),
    _text("agent"),
    _text("tags", "{}"),
    _text("lifecycle", "accepted"),
    _text("status", "unknown"),
    _time("status_since"),
    _time("first_seen"),
    _time("last_seen"),
    _text("boot"),
    _count("last_seq"),
    _time("booted"),
    _count("boots"),
    _text("handle"),
    _text("model"),
    _text("version"),
    _text("variant"),
    _text("digest"),
    _text("models", "[]"),
    _count("cores"),
    _count("memory_bytes"),
    _count("disk_bytes"),
    _figure("cpu"),
    _figure("memory"),
    _figure("disk"),
    _figure("temperature"),
    _figure("clock_offset"),
    _count("rows"),
    _count("errors"),
    _figure("rows_per_s"),
    _figure("errors_per_s"),
    _figure("latency_p50"),
    _figure("latency_p99"),
    _figure("health"),
    _text("reasons", "[]"),
    _text("last_error"),
    _count("lost"),
    _count("duplicates"),
    _count("dropped"),
    _count("queued"),
    _count("rejected"),
    _text("given_name"),  # what an operator calls it; shown instead of the reported name
    _text("given_tags", "{}"),  # laid over the reported tags, key by key
    _text("notes"),
)

# What people decide about a device. Ingest fills ``lifecycle`` when it first hears of a device, never after.
OPERATOR_COLUMNS = frozenset({"lifecycle", "given_name", "given_tags", "notes"})

removed_device = Table(  # numbers whose rows in the large tables are still to be swept
    "removed_device",
    METADATA,
    Column("number", _Key, primary_key=True, autoincrement=False),
)

word = Table(  # handles, variants, baselines and versions, named by number in inference_window; never deleted
    "word",
    METADATA,
    Column("number", _Key, primary_key=True, autoincrement=False),
    Column("word", Text, nullable=False, unique=True),
)

# ------------------------------------------------------------------------------------------------ series


def _series(name: str, metrics: tuple[str, ...], *, of_device: bool, rolled: bool) -> Table:
    key: list[Column[int] | Column[float]] = []
    if of_device:
        key.append(Column("device", Integer, primary_key=True, autoincrement=False))
    key.append(Column("at", Double, primary_key=True, autoincrement=False))
    columns: list[Column[float] | Column[int]] = []
    for metric in metrics:
        if rolled:
            columns += [_figure(f"{metric}_{part}") for part in ("mean", "low", "high")]
            columns.append(Column(f"{metric}_count", Integer, nullable=False, server_default=text("0")))
        else:
            columns.append(_figure(metric))
    # SQLite: the key is the table, so a device's points lie side by side and need no second tree.
    return Table(name, METADATA, *key, *columns, sqlite_with_rowid=False)


sample = _series("sample", METRICS, of_device=True, rolled=False)
sample_minute = _series("sample_minute", METRICS, of_device=True, rolled=True)
sample_hour = _series("sample_hour", METRICS, of_device=True, rolled=True)
fleet_sample = _series("fleet_sample", FLEET_METRICS, of_device=False, rolled=False)
fleet_minute = _series("fleet_minute", FLEET_METRICS, of_device=False, rolled=True)
fleet_hour = _series("fleet_hour", FLEET_METRICS, of_device=False, rolled=True)

late_hour = Table(  # hours that are rolled up and got another sample since; device 0 is the fleet
    "late_hour",
    METADATA,
    Column("device", Integer, primary_key=True, autoincrement=False),
    Column("hour", Double, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

progress = Table(  # how far the roll-ups and retention are: see rollup.py
    "progress",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("value", Double, nullable=False),
)

inference_window = Table(
    "inference_window",
    METADATA,
    Column("device", Integer, primary_key=True, autoincrement=False),
    Column("handle", Integer, primary_key=True, autoincrement=False),
    Column("start", Double, primary_key=True, autoincrement=False),
    Column("variant", Integer, primary_key=True, autoincrement=False),
    Column("baseline", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("length_s", Double, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("latency", LargeBinary, nullable=False),  # MessagePack list of counts
    Column("outputs", LargeBinary, nullable=False),
    Column("counts", LargeBinary, nullable=False),
    Column("merged", Integer, nullable=False),
    Column("boot", Text, nullable=False),
    Column("report_seq", BigInteger, nullable=False),
    Column("received", Double, nullable=False),
    Index("ix_inference_window_start", "start"),
)

# ------------------------------------------------------------------------------------------------ events

event = Table(
    "event",
    METADATA,
    Column("seq", _Key, primary_key=True, autoincrement=False),  # also its id: an event is written once
    Column("at", Double, nullable=False),
    Column("device", Integer, nullable=False),  # 0: the control room itself
    Column("kind", Text, nullable=False),
    Column("level", SmallInteger, nullable=False),
    Column("text", Text, nullable=False),
    Column("codes", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("boot", Text, nullable=False),
    Column("report_seq", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Index("ix_event_at", "at", "seq"),
    Index("ix_event_device_at", "device", "at", "seq"),
    # The same report twice is one event. The control room may leave boot empty: then each is its own.
    Index(
        "uq_event_report",
        "device",
        "boot",
        "report_seq",
        unique=True,
        sqlite_where=text("boot <> ''"),
        postgresql_where=text("boot <> ''"),
    ),
)

rejected = Table(
    "rejected",
    METADATA,
    Column("id", _Key, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("topic", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("device", Text, nullable=False),  # as it calls itself: may well be unknown here
    Column("size", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

rejected_count = Table(
    "rejected_count",
    METADATA,
    Column("reason", Text, primary_key=True),
    Column("total", BigInteger, nullable=False),
    Column("last", Double, nullable=False),
)

counter = Table(
    "counter",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# ------------------------------------------------------------------------------------------------ people and parts

wish = Table(
    "wish",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("arguments", Text, nullable=False),
    Column("operator", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("taken", Double, nullable=False),
    Column("ended", Double, nullable=False),
    Column("holder", Text, nullable=False),
    Column("arrived", BigInteger, nullable=False),  # the change number it came in under: the order of asking
    Index("ix_wish_state_arrived", "state", "arrived"),
)

job = Table(
    "job",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("operator", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("asked", Double, nullable=False),
    Column("started", Double, nullable=False),
    Column("ended", Double, nullable=False),
    Column("holder", Text, nullable=False),
    Column("held_until", Double, nullable=False),  # real time: a worker that does not renew it is gone
    Column("attempts", Integer, nullable=False),
    Column("progress", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("sentence", Text, nullable=False),
    Column("fix", Text, nullable=False),
    Column("record", Text, nullable=False),
    Column("arrived", BigInteger, nullable=False),
    Index("ix_job_state_arrived", "state", "arrived"),
)

lease = Table(
    "lease",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("term", BigInteger, nullable=False),
    Column("expires", Double, nullable=False),
    Column("taken", Double, nullable=False),
)

saved_view = Table(
    "saved_view",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("page", Text, nullable=False),
    Column("filter", Text, nullable=False),
    Column("columns", Text, nullable=False),
    Column("sort", Text, nullable=False),
    Column("descending", Boolean, nullable=False),
    Column("owner", Text, nullable=False),
    Column("shared", Boolean, nullable=False),
)

station_status = Table(
    "station_status",
    METADATA,
    Column("station", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False, index=True),
    Column("at", Double, nullable=False),
    Column("leader", Boolean, nullable=False),
    Column("link", Text, nullable=False),
    Column("link_reason", Text, nullable=False),
    Column("broker", Text, nullable=False),
    Column("counters", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("pid", Integer, nullable=False),
)
