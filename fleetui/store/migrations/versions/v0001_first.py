"""The first schema. Like every revision it stands for itself: nothing is imported that could change later."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

METRICS = (
    *("cpu", "memory", "disk", "temperature", "clock_offset"),
    *("rows_per_s", "errors_per_s", "latency_p50", "latency_p99"),
)
FLEET_METRICS = (
    *("online", "late", "offline", "messages_per_s", "rejected_per_s"),
    *("rows_per_s", "errors_per_s", "latency_p50", "latency_p99"),
)


def key() -> sa.types.TypeEngine[Any]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def column(name: str, kind: sa.types.TypeEngine[Any], default: str | None = None) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, server_default=None if default is None else sa.text(default))


def texts(*names: str, default: str | None = None) -> list[sa.Column[Any]]:
    return [column(name, sa.Text(), default) for name in names]


def counts(*names: str, default: str | None = None) -> list[sa.Column[Any]]:
    return [column(name, sa.BigInteger(), default) for name in names]


def doubles(*names: str, default: str | None = None) -> list[sa.Column[Any]]:
    return [column(name, sa.Double(), default) for name in names]


def figures(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Double(), nullable=True) for name in names]


def create(name: str, primary: list[sa.Column[Any]], *others: sa.schema.SchemaItem, rowid: bool = True) -> None:
    for each in primary:
        each.autoincrement = False
    op.create_table(
        name,
        *primary,
        *others,
        sa.PrimaryKeyConstraint(*(each.name for each in primary), name=op.f(f"pk_{name}")),
        sqlite_with_rowid=rowid,
    )


def index(table: str, *columns: str) -> None:
    op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns))


def series(name: str, metrics: tuple[str, ...], *, of_device: bool, rolled: bool) -> None:
    primary = [column("device", sa.Integer())] if of_device else []
    primary += doubles("at")
    values: list[sa.schema.SchemaItem] = []
    for metric in metrics:
        if rolled:
            values += figures(f"{metric}_mean", f"{metric}_low", f"{metric}_high")
            values.append(column(f"{metric}_count", sa.Integer(), "0"))
        else:
            values += figures(metric)
    create(name, primary, *values, rowid=False)


def upgrade() -> None:
    create("change_head", [column("id", key())], *counts("seq", "devices", "words", "restored"))
    op.execute("INSERT INTO change_head (id, seq, devices, words, restored) VALUES (1, 0, 0, 0, 0)")
    create("tombstone", texts("kind", "name"), *counts("seq"))
    index("tombstone", "seq")

    create(
        "device",
        [column("number", key())],
        *texts("device"),
        *counts("seq"),
        *texts("name", "site", "target", "firmware", "agent", default="''"),
        *texts("tags", default="'{}'"),
        *texts("lifecycle", default="'accepted'"),
        *texts("status", default="'unknown'"),
        *doubles("status_since", "first_seen", "last_seen", default="0"),
        *texts("boot", default="''"),
        *counts("last_seq", default="0"),
        *doubles("booted", default="0"),
        *counts("boots", default="0"),
        *texts("handle", "model", "version", "variant", "digest", default="''"),
        *texts("models", default="'[]'"),
        *counts("cores", "memory_bytes", "disk_bytes", default="0"),
        *figures("cpu", "memory", "disk", "temperature", "clock_offset"),
        *counts("rows", "errors", default="0"),
        *figures("rows_per_s", "errors_per_s", "latency_p50", "latency_p99", "health"),
        *texts("reasons", default="'[]'"),
        *texts("last_error", default="''"),
        *counts("lost", "duplicates", "dropped", "queued", "rejected", default="0"),
        *texts("given_name", default="''"),
        *texts("given_tags", default="'{}'"),
        *texts("notes", default="''"),
        sa.UniqueConstraint("device", name=op.f("uq_device_device")),
    )
    index("device", "seq")
    create("removed_device", [column("number", key())])
    create(
        "word", [column("number", key())], *texts("word"), sa.UniqueConstraint("word", name=op.f("uq_word_word"))
    )

    series("sample", METRICS, of_device=True, rolled=False)
    series("sample_minute", METRICS, of_device=True, rolled=True)
    series("sample_hour", METRICS, of_device=True, rolled=True)
    series("fleet_sample", FLEET_METRICS, of_device=False, rolled=False)
    series("fleet_minute", FLEET_METRICS, of_device=False, rolled=True)
    series("fleet_hour", FLEET_METRICS, of_device=False, rolled=True)
    create("late_hour", [column("device", sa.Integer()), *doubles("hour")], rowid=False)
    create("progress", texts("name"), *doubles("value"))

    create(
        "inference_window",
        [
            column("device", sa.Integer()),
            column("handle", sa.Integer()),
            *doubles("start"),
            column("variant", sa.Integer()),
            column("baseline", sa.Integer()),
        ],
        column("version", sa.Integer()),
        *doubles("length_s"),
        *counts("rows", "errors"),
        *(column(name, sa.LargeBinary()) for name in ("latency", "outputs", "counts")),
        column("merged", sa.Integer()),
        *texts("boot"),
        *counts("report_seq"),
        *doubles("received"),
    )
    index("inference_window", "start")

    create(
        "event",
        [column("seq", key())],
        *doubles("at"),
        column("device", sa.Integer()),
        *texts("kind"),
        column("level", sa.SmallInteger()),
        *texts("text", "codes", "subject", "boot"),
        *counts("report_seq"),
        *texts("source"),
    )
    op.create_index("ix_event_at", "event", ["at", "seq"])
    op.create_index("ix_event_device_at", "event", ["device", "at", "seq"])
    op.create_index(
        "uq_event_report",
        "event",
        ["device", "boot", "report_seq"],
        unique=True,
        sqlite_where=sa.text("boot <> ''"),
        postgresql_where=sa.text("boot <> ''"),
    )
    create(
        "rejected",
        [column("id", key())],
        *doubles("at"),
        *texts("topic", "reason", "detail", "device"),
        *counts("size"),
        column("payload", sa.LargeBinary()),
    )
    create("rejected_count", texts("reason"), *counts("total"), *doubles("last"))
    create("counter", texts("name"), *counts("value"))

    create(
        "wish",
        texts("id"),
        *counts("seq"),
        *texts("kind", "arguments", "operator"),
        *doubles("at"),
        column("signature", sa.LargeBinary()),
        *texts("state", "outcome"),
        *doubles("taken", "ended"),
        *texts("holder"),
        *counts("arrived"),
    )
    index("wish", "seq")
    index("wish", "state", "arrived")
    create("lease", texts("name"), *texts("holder"), *counts("term"), *doubles("expires", "taken"))
    create(
        "saved_view",
        texts("id"),
        *counts("seq"),
        *texts("name", "page", "filter", "columns", "sort"),
        column("descending", sa.Boolean()),
        *texts("owner"),
        column("shared", sa.Boolean()),
    )
    index("saved_view", "seq")
    create(
        "station_status",
        texts("station"),
        *counts("seq"),
        *doubles("at"),
        column("leader", sa.Boolean()),
        *texts("link", "link_reason", "broker", "counters", "version"),
        column("pid", sa.Integer()),
    )
    index("station_status", "seq")
