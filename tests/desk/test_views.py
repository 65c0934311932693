"""Saved views and the overview's figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fleetui.common.domain.clock import SystemClock
from fleetui.common.domain.errors import ConfigError
from fleetui.common.domain.filters import Role, parse
from fleetui.desk.app import overview
from fleetui.desk.app.columns import DeviceTable
from fleetui.desk.app.operations import Operations
from fleetui.desk.app.order import passing
from fleetui.desk.app.shown import FIRST
from fleetui.desk.app.views import Looks, Views, canonical
from fleetui.store import feed
from fleetui.store import views as stored
from fleetui.store.records import Changes, DeviceRow, SavedView
from fleetui.store.store import Store
from tests.helpers.desk import MainThread
from tests.helpers.store import sqlite_store

__all__ = ["sqlite_store"]

NOW = 1_800_000_000.0


def saved(identity: str = "v", name: str = "Hot", **more: object) -> SavedView:
    return replace(SavedView(identity, name, "devices", "temp>70", ("id", "temp"), "temp", True, "ann"), **more)  # type: ignore[arg-type]


@pytest.fixture
def views() -> Views:
    return Views("devices", lambda: "ann")


def test_the_feed_brings_and_takes_views(views: Views) -> None:
    heard: list[int] = []
    views.on_changed(lambda: heard.append(1))
    views.take(Changes(1, views=(saved("b", "beta"), saved("a", "Alpha"), saved("x", "Other", page="models"))))
    assert [v.name for v in views.all()] == ["Alpha", "beta"]
    views.take(Changes(2))
    assert len(heard) == 1
    views.take(Changes(3, views_removed=("a", "nothing")))
    assert [v.name for v in views.all()] == ["beta"]


def test_what_others_keep_to_themselves_is_not_shown(views: Views) -> None:
    views.take(Changes(1, views=(saved("a", shared=False, owner="bob"), saved("b", shared=False, owner="ann"))))
    assert [v.id for v in views.all()] == ["b"]
    views.take(Changes(2, views=(saved("b", shared=False, owner="bob"),)))
    assert views.all() == []


def test_names_are_tidied_and_their_own(views: Views) -> None:
    views.take(Changes(1, views=(saved(),)))
    assert views.check_name("  Very   hot ") == "Very hot"
    assert views.check_name("hot", besides="v") == "hot"
    for bad in ("", "   ", "HOT", "x" * 61):
        with pytest.raises(ConfigError):
            views.check_name(bad)


def test_a_view_applied_looks_like_itself() -> None:
    looks = Looks.of(saved())
    assert looks == Looks("temp>70", ("id", "temp"), "temp", True)
    assert Looks.of(saved(filter="TEMP > 70")) == looks
    assert Looks.of(saved(columns=("nothing",))).columns == FIRST
    assert canonical("status:") == "status:"


class Desk:
    def __init__(self) -> None:
        self.main = MainThread()
        self.unhandled: list[Exception] = []
        self.operations = Operations(self.main.post, SystemClock(), lambda _op, error: self.unhandled.append(error))

    def settle(self) -> None:
        self.main.until(lambda: self.operations.idle, "the end of all operations")


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.operations.close()


def test_saving_shows_at_once_and_is_in_the_store(views: Views, sqlite_store: Store, desk: Desk) -> None:
    view = views.new("Hot ones", Looks("temp>70", ("id",), "temp", descending=True), shared=True)
    views.save(view, sqlite_store).start(desk.operations)
    assert [v.name for v in views.all()] == ["Hot ones"]
    desk.settle()
    with sqlite_store.read() as connection:
        [found] = stored.list(connection)
        changes = feed.read(connection, 0)
    assert (found.name, found.filter, found.owner, found.descending) == ("Hot ones", "temp>70", "ann", True)
    views.take(changes)
    assert len(views.all()) == 1
    views.save(views.renamed(view, "Hotter"), sqlite_store).start(desk.operations)
    views.save(views.updated(view, Looks()), sqlite_store).start(desk.operations)
    desk.settle()
    views.delete(view, sqlite_store).start(desk.operations)
    desk.settle()
    with sqlite_store.read() as connection:
        assert stored.list(connection) == ()
    assert desk.unhandled == []


@pytest.mark.logs_warnings("failed")
def test_a_store_that_refuses_takes_it_back_and_it_is_heard(views: Views, desk: Desk) -> None:
    class Full:
        def write(self, _work: object) -> object:
            raise OSError("full")

    view = views.new("Hot", Looks(), shared=True)
    views.save(view, Full()).start(desk.operations)  # type: ignore[arg-type]
    assert views.all() == [view]
    desk.settle()
    assert views.all() == []
    views.take(Changes(1, views=(view,)))
    views.delete(view, Full()).start(desk.operations)  # type: ignore[arg-type]
    assert views.all() == []
    desk.settle()
    assert views.all() == [view]
    assert len(desk.unhandled) == 2


# ---------------------------------------------------------------- overview


def fleet() -> DeviceTable:
    table = DeviceTable()
    rows = [
        DeviceRow(
            f"d{n:03d}",
            site=("berlin", "oslo", "")[n % 3],
            status=("online", "online", "offline", "late")[n % 4],
            last_seen=NOW - 10,
            model=("vision", "vision", "", "wear")[n % 4],
            version=("1.9", "1.10", "", "2")[n % 4],
            errors_per_s=0.5 if n % 10 == 0 else 0.0,
        )
        for n in range(120)
    ]
    table.apply(Changes(1, tuple(rows)))
    table.apply(Changes(2, (), ("d000", "d001")))
    return table


def test_each_card_counts_what_its_filter_lists() -> None:
    table = fleet()
    cards = {card.rule.name: card for card in overview.cards(table, NOW)}
    for card in cards.values():
        assert card.count == int(passing(table, parse(card.rule.text), NOW).sum()), card.rule.name
        assert card.of == 118
    assert cards["online"].count + cards["offline"].count + cards["late"].count == 118
    assert cards["offline"].role is Role.CRITICAL
    assert cards["hot"].count == 0
    assert cards["hot"].role is Role.NEUTRAL


def test_versions_add_up_and_their_filters_list_them() -> None:
    table = fleet()
    spread = overview.versions(table)
    assert [(s.model, s.version) for s in spread] == [("vision", "1.10"), ("vision", "1.9"), ("wear", "2")]
    for one in spread:
        found = passing(table, parse(one.filter), NOW)
        assert int(found.sum()) == one.devices
        assert int((found & passing(table, parse("status:online"), NOW)).sum()) == one.online
        assert int((found & passing(table, parse("errors>0"), NOW)).sum()) == one.failing


def test_sites_add_up_worst_first() -> None:
    table = fleet()
    sites = overview.sites(table)
    assert {s.site for s in sites} == {"berlin", "oslo"}
    for one in sites:
        assert int(passing(table, parse(one.filter), NOW).sum()) == one.devices
        assert int(passing(table, parse(f"{one.filter} and status:offline"), NOW).sum()) == one.offline
        assert int(passing(table, parse(f"{one.filter} and status:late"), NOW).sum()) == one.late
    shares = [(s.offline + s.failing) / s.devices for s in sites]
    assert shares == sorted(shares, reverse=True)


def test_an_empty_table_has_figures_too() -> None:
    table = DeviceTable()
    assert overview.versions(table) == []
    assert overview.sites(table) == []
    assert all(card.count == 0 for card in overview.cards(table, NOW))
