"""What a database's errors mean to an operator: one sentence and what to do. Errors of ours pass unchanged."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from fleetui.common.domain.errors import StoreError
from fleetui.store.engine import shown

_RESTORE = "Restore the last backup with: fleetui store restore FILE --force"


def sqlite_code(error: BaseException | None) -> int | None:
    """SQLite's primary result code: the low byte of what the driver reports."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


def sqlstate(error: BaseException | None) -> str:
    return getattr(error, "sqlstate", None) or ""


def is_retryable(error: BaseException) -> bool:
    """Whether the same transaction may succeed when it is run again: somebody else was in the way."""
    if not isinstance(error, DBAPIError):
        return False
    if sqlite_code(error.orig) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return True
    # serialization failure, deadlock, lock timeout
    return sqlstate(error.orig) in {"40001", "40P01", "55P03"} or is_lost(error)


def is_lost(error: BaseException) -> bool:
    """Whether the connection broke, or could not be made just now."""
    if not isinstance(error, DBAPIError) or isinstance(error.orig, sqlite3.Error):
        return False
    state = sqlstate(error.orig)
    if state[:3] == "57P":  # shut down by an administrator, crashed, or starting up
        return True
    if error.connection_invalidated or state[:2] == "08":
        return True
    # psycopg reports a refused or broken connection as an OperationalError without a state.
    return not state and type(error.orig).__name__ == "OperationalError"


def translate(error: BaseException, url: URL) -> BaseException:
    """The error an operator should see; the same error where it is ours."""
    if isinstance(error, PoolTimeout):
        return StoreError("Too many readers wait for the store at once", "Try again in a moment")
    if not isinstance(error, DBAPIError):
        return error
    driver = error.orig
    return (_of_sqlite(driver, url) if isinstance(driver, sqlite3.Error) else _of_postgres(error, url)) or error


def _of_sqlite(error: sqlite3.Error, url: URL) -> StoreError | None:
    name = shown(url)
    match sqlite_code(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreError(
                f"The store {name} is locked by another program", "Close what else uses it, then try again"
            )
        case sqlite3.SQLITE_FULL:
            return StoreError(f"The disk that holds the store {name} is full", "Free some space; nothing was lost")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreError(f"The store {name} is damaged ({error})", _RESTORE)
        case sqlite3.SQLITE_READONLY:
            return StoreError(
                f"The store {name} cannot be written", "Check the file's and its folder's permissions"
            )
        case sqlite3.SQLITE_CANTOPEN:
            return StoreError(
                f"The store {name} cannot be opened", "Check that its folder exists and may be read and written"
            )
        case sqlite3.SQLITE_IOERR:
            return StoreError(
                f"The disk failed under the store {name} ({error})", "Check the disk and its free space"
            )
        case sqlite3.SQLITE_NOMEM:
            return StoreError("There is not enough memory for the store", "Close other programs")
        case _:
            return None


def _of_postgres(error: DBAPIError, url: URL) -> StoreError | None:
    name = shown(url)
    state = sqlstate(error.orig)
    first = _first_line(error.orig)
    if state in {"28P01", "28000"}:
        return StoreError(f"The database {name} refused the login", "Check user and password")
    if state == "3D000":
        return StoreError(f"The database {name} does not exist", "Create it with: createdb -E UTF8 NAME")
    if state == "42501":
        return StoreError(
            f"The database {name} does not allow this ({first})", "Give the user rights on its schema"
        )
    if state == "25006":
        return StoreError(f"The database {name} is read-only", "Use the primary server, not a standby")
    if state == "53300":
        return StoreError(f"The database {name} has no connection left", "Raise max_connections, or close programs")
    if state[:2] == "53":
        return StoreError(f"The server of {name} is out of disk or memory ({first})", "Free some; nothing was lost")
    if state in {"55P03", "40001", "40P01", "25P03", "57014"}:
        return StoreError(f"The store {name} is locked by another program", "Try again in a moment")
    if state in {"XX001", "XX002"}:
        return StoreError(f"The database {name} is damaged ({first})", _RESTORE)
    if is_lost(error):
        detail = first.lower()
        if "does not exist" in detail and "database" in detail:
            return StoreError(f"The database {name} does not exist", "Create it with: createdb -E UTF8 NAME")
        if "authentication" in detail or "password" in detail or ("role" in detail and "does not exist" in detail):
            return StoreError(f"The database {name} refused the login", "Check user and password")
        return StoreError(f"The database {name} cannot be reached ({first})", "Check that the server runs")
    return None


def _first_line(error: Any) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
