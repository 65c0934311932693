"""Stores for tests: a fresh one on SQLite and one on a private PostgreSQL, so that one body runs on both.

A conftest that wants them imports the fixtures::

    from tests.helpers.store import empty_url, sqlite_store, store, store_url

The PostgreSQL cluster is made once a session, listens on a socket in a folder of its own, runs as an unprivileged
user when the tests run as root, and is stopped at the end of the session.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection

from fleetui.common.domain.clock import ManualClock
from fleetui.store.store import Store
from fleetui.store.tables import METADATA, change_head
from tests.helpers.guards import SESSION_PIDS
from tests.helpers.wait import wait_until

MISSING = "PostgreSQL's server is not installed (Debian package: postgresql)"
_numbers = itertools.count(1)


def _program(name: str) -> str | None:
    """Debian keeps the servers' programs out of the path; the newest version wins."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True)
    for folder in folders:
        if (folder / name).exists():
            return str(folder / name)
    return shutil.which(name)


def database_of(url: str) -> str:
    return url.split("?", maxsplit=1)[0].rsplit("/", maxsplit=1)[1]


# Stops the server ("fast": it ends its sessions first) when its standard input ends, as it does when the tests are
# killed.
_GUARDED = '"$@" </dev/null & server=$!; cat >/dev/null; kill -INT $server; wait $server'


class PostgresServer:
    """A private cluster; for tests it does not flush: their data need not survive the machine."""

    def __init__(self, *, flush: bool = False) -> None:
        initdb, postgres = _program("initdb"), _program("postgres")
        if initdb is None or postgres is None:
            raise FileNotFoundError(MISSING)
        self.folder = Path(tempfile.mkdtemp(prefix="fleetui-pg-"))
        self._user = self._unprivileged()
        as_user: dict[str, object] = {}
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
            as_user = {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        try:
            self._initdb([initdb, "-D", str(self.folder / "data")], as_user)
            self._log = (self.folder / "log").open("wb")
            self._process = subprocess.Popen(
                ["sh", "-c", _GUARDED, "sh", postgres, *self._arguments(flush)],
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
                **as_user,  # type: ignore[arg-type]  # three keywords, or none
            )
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        SESSION_PIDS.add(self._process.pid)
        try:
            wait_until(self._answers, timeout=30, what="PostgreSQL's first answer")
        except BaseException:
            self.stop()
            raise

    def _arguments(self, flush: bool) -> list[str]:
        place = ["-D", str(self.folder / "data"), "-k", str(self.folder), "-h", ""]
        return place + self._settings(flush)

    @staticmethod
    def _unprivileged() -> pwd.struct_passwd | None:
        if os.geteuid() != 0:
            return None
        for name in ("postgres", "nobody"):
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise LookupError("PostgreSQL does not run as root, and there is no user postgres or nobody")

    def _initdb(self, command: list[str], as_user: dict[str, object]) -> None:
        done = subprocess.run(
            [*command, "-U", "fleetui", "-A", "trust", "-E", "UTF8", "--locale", "C", "--no-sync"],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            **as_user,  # type: ignore[call-overload]  # three keywords, or none
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr[-500:]}")

    @staticmethod
    def _settings(flush: bool) -> list[str]:
        """What is given on the command line; the configuration file stays as initdb wrote it."""
        on = "on" if flush else "off"
        settings = {
            "fsync": on,
            "full_page_writes": on,
            "synchronous_commit": on,
            "max_connections": "60",
            "shared_buffers": "64MB",
            "max_wal_size": "512MB",
            "logging_collector": "off",
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended: {(self.folder / 'log').read_text(errors='replace')[-500:]}")
        try:
            with self.connect():
                return True
        except psycopg.OperationalError:
            return False

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(host=str(self.folder), user="fleetui", dbname=database, autocommit=True)

    def url(self, database: str) -> str:
        return f"postgresql://fleetui@/{database}?host={self.folder}"

    def create(self, template: str = "template0") -> str:
        """The URL of a fresh database."""
        name = f"store_{next(_numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'")
        return self.url(name)

    def drop(self, url: str) -> None:
        with self.connect() as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {database_of(url)} WITH (FORCE)")

    def empty(self, url: str) -> None:
        """Every table as a new store has it."""
        with psycopg.connect(url) as connection:
            for table in METADATA.sorted_tables:
                if table is not change_head:
                    connection.execute(f"DELETE FROM {table.name}")  # noqa: S608 - names of our own tables
            connection.execute("UPDATE change_head SET seq = 0, devices = 0, words = 0, restored = 0")

    def break_connections(self, url: str) -> None:
        """End every other session of this database, as a restarting server does."""
        with self.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %s AND pid <> pg_backend_pid()",
                (database_of(url),),
            )

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        SESSION_PIDS.discard(self._process.pid)
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


_SERVER = pytest.StashKey[PostgresServer]()


def postgres_of(config: pytest.Config) -> PostgresServer:
    """The session's cluster, started by whoever asks first."""
    if _SERVER not in config.stash:
        try:
            server = PostgresServer()
        except FileNotFoundError as error:
            if os.environ.get("CI") == "true":
                pytest.fail(str(error))
            pytest.skip(str(error))
        config.stash[_SERVER] = server
        config.add_cleanup(server.stop)
    return config.stash[_SERVER]


_TEMPLATES = pytest.StashKey[dict[str, str]]()


def _template(config: pytest.Config, kind: str) -> str:
    """A migrated, empty store to copy: migrating costs more than most tests."""
    made = config.stash.setdefault(_TEMPLATES, {})
    if kind not in made:
        if kind == "sqlite":
            folder = Path(tempfile.mkdtemp(prefix="fleetui-store-"))
            config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
            made[kind] = str(folder / "template.db")
            url = f"sqlite:///{made[kind]}"
        else:
            url = postgres_of(config).create()
            made[kind] = database_of(url)
        Store.open(url, clock=ManualClock()).close()
    return made[kind]


def fresh_url(config: pytest.Config, kind: str, folder: Path) -> str:
    """A store of its own, with the schema in place."""
    template = _template(config, kind)
    if kind == "sqlite":
        path = folder / f"store-{next(_numbers)}.db"
        shutil.copyfile(template, path)
        return f"sqlite:///{path}"
    return postgres_of(config).create(template)


@contextmanager
def dropped(config: pytest.Config, url: str) -> Iterator[None]:
    """Afterwards the database at ``url`` is gone; a file is left to pytest."""
    try:
        yield
    finally:
        if url.startswith("postgresql"):
            postgres_of(config).drop(url)


BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture
def postgres(request: pytest.FixtureRequest) -> PostgresServer:
    return postgres_of(request.config)


@pytest.fixture(params=BOTH)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


_POOL = pytest.StashKey[list[str]]()


@pytest.fixture
def store_url(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty store with the schema in place; the test runs once on SQLite and once on PostgreSQL.

    PostgreSQL's databases are used again: making one takes longer than most tests. A test that changes the
    schema asks for ``own_url``.
    """
    if kind == "sqlite":
        yield fresh_url(request.config, kind, tmp_path)
        return
    pool = request.config.stash.setdefault(_POOL, [])
    url = pool.pop() if pool else fresh_url(request.config, kind, tmp_path)
    yield url
    postgres_of(request.config).empty(url)
    pool.append(url)


@pytest.fixture
def own_url(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Iterator[str]:
    """As ``store_url``, and nobody uses it afterwards."""
    url = fresh_url(request.config, kind, tmp_path)
    with dropped(request.config, url):
        yield url


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a place where there is no store yet."""
    url = f"sqlite:///{tmp_path / 'empty.db'}" if kind == "sqlite" else postgres_of(request.config).create()
    with dropped(request.config, url):
        yield url


def emptied(store: Store) -> Store:
    """The same store as if new: what a property test begins each example with."""

    def empty(connection: Connection) -> None:
        for table in METADATA.sorted_tables:
            if table is not change_head:
                connection.execute(table.delete())
        connection.execute(
            change_head.update().values(seq=0, devices=0, words=0, restored=change_head.c.restored + 1)
        )

    store.write(empty)
    return store


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(store_url: str, clock: ManualClock) -> Iterator[Store]:
    with Store.open(store_url, clock=clock) as opened:
        yield opened


@pytest.fixture
def sqlite_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A fresh store on SQLite only: for tests of what stands on the store, not of the store."""
    with Store.open(fresh_url(request.config, "sqlite", tmp_path), clock=ManualClock()) as opened:
        yield opened
