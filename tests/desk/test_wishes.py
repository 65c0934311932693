"""Wishes of the desk: signed so that a station believes them, followed to their end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetui.common.basedir import BaseDir
from fleetui.common.domain.clock import SystemClock
from fleetui.desk.app.operations import Operations
from fleetui.desk.app.wishes import WishDesk, describe
from fleetui.station.operators import checker
from fleetui.store import feed
from fleetui.store import wishes as stored
from fleetui.store.records import Changes, Wish, WishState
from fleetui.store.store import Store
from tests.helpers.desk import MainThread
from tests.helpers.store import sqlite_store

__all__ = ["sqlite_store"]


class Desk:
    def __init__(self, base: BaseDir, store: Store) -> None:
        self.main = MainThread()
        self.store = store
        self.failed: list[tuple[Wish, str]] = []
        self.unhandled: list[Exception] = []
        self.written = 0
        self.operations = Operations(self.main.post, SystemClock(), lambda _op, error: self.unhandled.append(error))
        self.wishes = WishDesk(
            base,
            store,
            SystemClock(),
            self.operations,
            lambda wish, words: self.failed.append((wish, words)),
            self._wrote,
        )
        self.since = 0

    def _wrote(self) -> None:
        self.written += 1

    def settle(self) -> None:
        self.main.until(lambda: self.operations.idle, "the end of all operations")

    def look(self) -> Changes:
        with self.store.read() as connection:
            changes = feed.read(connection, self.since)
        self.since = changes.seq
        self.wishes.take(changes)
        return changes

    def station(self, state: WishState, outcome: str = "") -> Wish:
        """What a station does with the oldest wish."""
        taken = self.store.write(lambda c: stored.take(c, "station-run", 2000.0))
        assert taken is not None
        self.look()
        self.store.write(lambda c: stored.finish(c, taken.id, state, outcome, now=2001.0))
        self.look()
        return taken


@pytest.fixture
def base(tmp_path: Path) -> BaseDir:
    return BaseDir.at(tmp_path / "base")


@pytest.fixture
def desk(base: BaseDir, sqlite_store: Store) -> Iterator[Desk]:
    made = Desk(base, sqlite_store)
    yield made
    made.operations.close()


def test_the_operator_is_made_at_the_first_wish_and_stays(desk: Desk, base: BaseDir, sqlite_store: Store) -> None:
    assert list(base.keys.iterdir()) == []
    name = desk.wishes.operator
    assert name
    assert WishDesk(base, sqlite_store, SystemClock(), desk.operations).operator == name
    assert (base.keys / "operator.key").stat().st_mode & 0o077 == 0
    assert len(list((base.keys / "operators").glob("*.pub"))) == 1


@pytest.mark.logs_warnings("a wish is refused")
def test_a_station_believes_the_wish_and_no_other(desk: Desk, base: BaseDir) -> None:
    desk.wishes.ask("device.rename", {"device": "edge-1", "name": "Press 3"})
    desk.settle()
    [wish] = desk.look().wishes
    check = checker(base)
    assert check(wish) is None
    from dataclasses import replace

    assert check(replace(wish, arguments={"device": "edge-2", "name": "Press 3"})) is not None
    assert desk.written == 1


def test_it_is_followed_to_its_end(desk: Desk) -> None:
    ended: list[Wish] = []
    changed: list[int] = []
    desk.wishes.on_changed(lambda: changed.append(len(desk.wishes.pending)))
    desk.wishes.ask("device.ask", {"devices": ["a"], "ask": "report"}, "Ask a to report", on_end=ended.append)
    assert [p.words for p in desk.wishes.pending] == ["Ask a to report"]
    desk.settle()
    desk.look()
    taken = desk.station(WishState.DONE, "1 answered")
    assert [w.id for w in ended] == [taken.id]
    assert ended[0].outcome == "1 answered"
    assert desk.wishes.pending == []
    assert desk.failed == []
    assert changed[0] == 1
    assert changed[-1] == 0


@pytest.mark.parametrize("state", [WishState.FAILED, WishState.REFUSED])
def test_one_that_came_to_nothing_is_told(desk: Desk, state: WishState) -> None:
    ended: list[Wish] = []
    desk.wishes.ask("device.remove", {"devices": ["a", "b"]}, on_end=ended.append)
    desk.settle()
    desk.station(state, "Not so")
    assert [(w.state, words) for w, words in desk.failed] == [(state, "Remove 2 devices")]
    assert len(ended) == 1


def test_one_of_before_is_followed_on(desk: Desk, base: BaseDir, sqlite_store: Store) -> None:
    desk.wishes.ask("device.remove", {"device": "a"})
    desk.settle()
    again = Desk(base, sqlite_store)
    assert again.wishes.operator
    again.look()
    assert [p.words for p in again.wishes.pending] == ["Remove a"]
    again.station(WishState.FAILED, "There is no such device")
    assert len(again.failed) == 1
    again.operations.close()


def test_other_peoples_wishes_are_not_ours(desk: Desk) -> None:
    assert desk.wishes.operator
    desk.wishes.take(Changes(1, wishes=(Wish("x", "device.remove", {}, "somebody", 1.0, b""),)))
    assert desk.wishes.pending == []


def test_taking_it_back_before_a_station_has_it(desk: Desk) -> None:
    ended: list[Wish] = []
    identity = desk.wishes.ask("device.remove", {"device": "a"}, on_end=ended.append)
    desk.settle()
    desk.wishes.withdraw(identity)
    desk.settle()
    desk.look()
    assert [w.state for w in ended] == [WishState.WITHDRAWN]
    assert desk.failed == []


@pytest.mark.logs_warnings("failed")
def test_a_store_that_cannot_be_written_is_heard(base: BaseDir) -> None:
    class Full:
        def write(self, _work: object) -> object:
            raise OSError("full")

    desk = Desk(base, Full())  # type: ignore[arg-type]
    desk.wishes.ask("device.remove", {"device": "a"})
    desk.settle()
    assert desk.wishes.pending == []
    assert len(desk.unhandled) == 1
    desk.operations.close()


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        ("device.rename", {"device": "a", "name": "b"}, "Rename a"),
        ("device.remove", {"devices": ["a", "b", "c"]}, "Remove 3 devices"),
        ("device.remove", {"devices": ["a"]}, "Remove a"),
        ("rollout.start_now", {}, "Rollout start now"),
    ],
)
def test_in_a_few_words(kind: str, arguments: dict[str, object], words: str) -> None:
    assert describe(kind, arguments) == words
