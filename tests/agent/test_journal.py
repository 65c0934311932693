from __future__ import annotations

import os
import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_sim.agent.events import Persist
from fleet_sim.agent.journal import MAGIC, Journal, hold
from fleetui.common.domain.errors import ConfigError
from fleetui.common.link import codec
from fleetui.common.link.messages import Event, Window
from tests.helpers.sim import T0

BIG = 1 << 20


def event(i: int) -> Event:
    return Event(device="d1", boot="", seq=0, at=T0 + i, kind="k", text=f"event {i}")


def put(*numbers: int, deletes=(), losses=None) -> Persist:
    return Persist(tuple((i, "event", codec.encode(event(i))) for i in numbers), tuple(deletes), losses or {})


def reopen(path, device="d1"):
    journal = Journal(path, BIG, sync=False)
    saved = journal.open(device)
    journal.close()
    return saved


def write(path, *changes, limit=BIG) -> Journal:
    journal = Journal(path, limit, sync=False)
    journal.open("d1")
    for change in changes:
        journal.append(change, list)
    assert not journal.problem
    return journal


def test_what_was_put_and_not_deleted_is_there_again(tmp_path):
    path = tmp_path / "queue"
    write(path, put(1, 2), put(3, deletes=[1], losses={"win": 2, "rows": 7})).close()
    saved = reopen(path)
    assert saved.reports == [(2, event(2)), (3, event(3))]
    assert saved.losses == {"win": 2, "rows": 7}
    assert saved.damaged == saved.unreadable == 0
    window = Window(device="d1", boot="b", seq=4, at=T0, handle="h", variant="", start=T0, length_s=1.0, rows=3)
    write(path, Persist(((9, "win", codec.encode(window)),))).close()
    assert reopen(path).reports[-1] == (9, window)


def test_cut_anywhere_the_file_holds_a_state_that_was(tmp_path):
    path = tmp_path / "queue"
    changes = [put(1), put(2, 3), put(4, deletes=[2]), put(deletes=[1, 3]), put(5)]
    states = [[], [1], [1, 2, 3], [1, 3, 4], [4], [4, 5]]
    write(path, *changes).close()
    data = path.read_bytes()
    seen = set()
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        journal = Journal(path, BIG, sync=False)
        found = [ident for ident, _ in journal.open("d1").reports]
        assert found in states
        seen.add(tuple(found))
        journal.append(put(8), list)  # and it goes on from there
        journal.close()
        assert [ident for ident, _ in reopen(path).reports] == [*found, 8]
    assert len(seen) == len(states)


@given(st.binary(max_size=200), st.integers(0, 200), st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_damage_costs_the_end_at_most(tmp_path_factory, junk, position, flip):
    path = tmp_path_factory.mktemp("j") / "queue"
    write(path, put(1), put(2), put(3)).close()
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= flip
    path.write_bytes(bytes(data) + junk)
    saved = reopen(path)
    assert [ident for ident, _ in saved.reports] in ([], [1], [1, 2], [1, 2, 3])
    assert all(report == event(ident) for ident, report in saved.reports)
    assert reopen(path).damaged == 0  # it was cut off


def test_a_file_of_something_else_is_begun_anew(tmp_path):
    path = tmp_path / "queue"
    path.write_bytes(b"hello, this is not a queue")
    assert reopen(path).damaged == 26
    assert path.read_bytes() == MAGIC


def test_reports_of_another_device_are_not_read(tmp_path):
    path = tmp_path / "queue"
    write(path, put(1)).close()
    saved = reopen(path, "d2")
    assert not saved.reports
    assert saved.unreadable == 1


def test_it_is_written_anew_before_it_grows_without_end(tmp_path):
    path = tmp_path / "queue"
    journal = Journal(path, 4096, sync=False)
    journal.open("d1")
    sizes = []
    for i in range(3000):
        alive = [(k, event(k)) for k in range(max(0, i - 5), i + 1)]
        journal.append(put(i, deletes=[i - 6]), lambda alive=alive: alive)
        sizes.append(path.stat().st_size)
        assert journal.size == sizes[-1]
    journal.close()
    assert max(sizes) < 2 * 4096 + 70_000
    assert [ident for ident, _ in reopen(path).reports] == list(range(2994, 3000))
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_and_made_up_for(tmp_path):
    path = tmp_path / "queue"
    journal = write(path, put(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.size, hard))
        journal.append(put(2), lambda: [(1, event(1)), (2, event(2))])
        assert "too large" in journal.problem.lower()
        journal.append(put(3), lambda: [(1, event(1)), (2, event(2)), (3, event(3))])
        assert journal.problem
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    journal.append(put(4), lambda: [(i, event(i)) for i in (1, 2, 3, 4)])
    assert not journal.problem
    journal.close()
    assert [ident for ident, _ in reopen(path).reports] == [1, 2, 3, 4]


def test_a_folder_is_held_by_one(tmp_path):
    with hold(tmp_path / "data"), pytest.raises(ConfigError, match="Another agent"), hold(tmp_path / "data"):
        pass
    with hold(tmp_path / "data"):
        pass


def test_a_place_that_cannot_be_used(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("x")
    with pytest.raises(ConfigError, match="cannot be used"), hold(blocked / "data"):
        pass
    journal = Journal(tmp_path / "no" / "queue", BIG)
    with pytest.raises(ConfigError, match="queue file"):
        journal.open("d1")


def test_synced_to_the_disk(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: calls.append(fd))
    journal = Journal(tmp_path / "queue", BIG)
    journal.open("d1")
    journal.append(put(1), list)
    journal.close()
    assert len(calls) == 2
