"""Compile jobs. Nothing is imported that could change later."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    text = [
        *("kind", "title", "request", "operator", "state", "holder"),
        *("progress", "code", "sentence", "fix", "record"),
    ]
    op.create_table(
        "job",
        sa.Column("id", sa.Text(), nullable=False, autoincrement=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in text),
        *(sa.Column(name, sa.Double(), nullable=False) for name in ("asked", "started", "ended", "held_until")),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("arrived", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
    )
    op.create_index(op.f("ix_job_seq"), "job", ["seq"])
    op.create_index("ix_job_state_arrived", "job", ["state", "arrived"])
