"""Alembic's entry: runs the revisions on the connection, and inside the transaction, that schema.py hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection


def run() -> None:
    connection: Connection = context.config.attributes["connection"]
    # SQLite can undo DDL as well as PostgreSQL can, given that the transaction was really begun: engine.py does.
    context.configure(connection=connection, transactional_ddl=True, render_as_batch=True)
    context.run_migrations()


run()
