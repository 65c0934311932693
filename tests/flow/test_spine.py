"""The spine end to end: broker and station as the desk starts them, devices on real connections, the command
line beside it, and every process killed in turn.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetui.common.basedir import BaseDir
from fleetui.common.domain.clock import SystemClock
from fleetui.common.domain.states import ChildState
from fleetui.common.trust.local import load_or_create_secret
from fleetui.desk.app.instance import Instance
from fleetui.desk.app.supervise import Note
from fleetui.store import devices, events, wishes
from fleetui.store.records import Wish, WishState
from fleetui.store.store import Store
from tests.helpers.probe import Probe, stored
from tests.helpers.wait import wait_until


class Spine:
    """A running instance without a window, and devices that report to it."""

    def __init__(self, folder: Path) -> None:
        self.base = BaseDir.at(folder)
        self.notes: list[Note] = []
        self._lock = threading.Lock()
        self.instance = Instance.open(folder)
        self.instance.start(self._heard)
        for name in ("broker", "station"):
            wait_until(lambda n=name: self.state(n) is ChildState.RUNNING, 30, f"the {name} is running")
        port = json.loads((self.base.run / "broker.json").read_text())["listeners"][0]["port"]
        secret = load_or_create_secret(self.base.local_secret)
        self.probe = Probe("127.0.0.1", port, secret, "main", count=10)
        self.probe.start()

    def _heard(self, note: Note) -> None:
        with self._lock:
            self.notes.append(note)

    def state(self, name: str) -> ChildState:
        return self.instance.supervisor.state(name)

    def sentences(self) -> list[str]:
        with self._lock:
            return [n.sentence for n in self.notes if n.sentence]

    def settle(self) -> None:
        """Stop reporting and wait until all that was acknowledged is in the store."""
        wait_until(lambda: self.probe.online == 10, 30, "every device is connected again")
        self.probe.pause()
        wait_until(lambda: self.probe.waiting == 0, 30, "every report was acknowledged")
        database = self.base.root / "fleetui.db"
        try:
            wait_until(lambda: not self.probe.acked - stored(database), 30, "all that was acknowledged is stored")
        except AssertionError:
            lost = sorted(self.probe.acked - stored(database))
            pytest.fail(f"{len(lost)} of {len(self.probe.acked)} acknowledged reports are not stored: {lost[:20]}")

    def close(self) -> None:
        self.probe.stop()
        self.instance.close()


@pytest.fixture
def spine(tmp_path: Path) -> Iterator[Spine]:
    running = Spine(tmp_path / "base")
    yield running
    running.close()


def fleetui(spine: Spine, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleetui.cli", *arguments, "--base-dir", str(spine.base.root)],
        capture_output=True, text=True, timeout=60, input=answer, check=False,
    )  # fmt: skip


def said(spine: Spine, *arguments: str) -> Any:
    done = fleetui(spine, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_command_line_sees_and_changes_the_fleet(spine: Spine) -> None:
    wait_until(lambda: said(spine, "devices", "list", "status:online")["count"] == 10, 30, "ten devices online")
    listed = said(spine, "devices", "list", "id:probe-003", "--columns", "id,site,model.version")
    assert listed == {
        "count": 1, "of": 10, "devices": [{"id": "probe-003", "site": "lab", "model.version": "1.0"}],
    }  # fmt: skip
    assert fleetui(spine, "devices", "list", "site:nowhere", "--count").stdout == "0\n"

    renamed = fleetui(spine, "devices", "rename", "probe-003", "press shop 3")
    assert renamed.returncode == 0, renamed.stderr
    assert said(spine, "devices", "show", "probe-003")["name"] == "press shop 3"
    tagged = fleetui(spine, "devices", "tag", "id:(probe-001,probe-002)", "line=3", "--yes")
    assert tagged.returncode == 0, tagged.stderr
    assert said(spine, "devices", "list", "tag.line:3")["count"] == 2
    assert any(row["kind"] == "probe" for row in said(spine, "devices", "events", "probe-004")["events"])

    # Asked before anything is destroyed; "no" changes nothing.
    spine.probe.pause()
    refused = fleetui(spine, "devices", "remove", "tag.line:3", answer="n\n")
    assert refused.returncode == 1
    assert "2 devices in 1 site" in refused.stderr
    assert said(spine, "devices", "list", "tag.line:3")["count"] == 2


def test_the_command_line_says_what_is_wrong(spine: Spine) -> None:
    for arguments, words in (
        (("list", "sit:berlin"), "site"),
        (("list", "--columns", "nme"), "--columns ?"),
        (("show", "no-such-device"), "no device"),
        (("tag", "id:none", "a=b"), "No device passes"),
        (("tag", "site:lab", "novalue"), "KEY=VALUE"),
    ):
        done = fleetui(spine, "devices", *arguments)
        assert done.returncode == 1, arguments
        assert words in done.stderr, done.stderr
        assert done.stdout == ""


def test_a_wish_written_into_the_database_is_refused_and_told(spine: Spine) -> None:
    wait_until(lambda: said(spine, "devices", "list")["count"] == 10, 30, "ten devices")
    clock = SystemClock()
    with Store.open(spine.base.store_url, clock=clock) as store:
        forged = Wish(
            "f" * 32, "device.remove", {"devices": ["probe-001"]}, "nobody", round(clock.now(), 3), b"\0" * 64
        )
        store.write(lambda connection: wishes.ask(connection, forged))

        def ended() -> Wish | None:
            with store.read() as connection:
                found = wishes.get(connection, forged.id)
            return found if found is not None and found.state not in {WishState.ASKED, WishState.TAKEN} else None

        outcome = wait_until(ended, 20, "the station answered the wish")
        assert outcome.state is WishState.REFUSED
        assert outcome.outcome
        with store.read() as connection:
            assert devices.get(connection, "probe-001") is not None
            told = [e for e in events.read(connection, device=None, level=2) if "device.remove" in e.text]
        assert told, "nobody was told of the forged wish"


@pytest.mark.faults
@pytest.mark.logs_warnings("ended after|killed|kill")
@pytest.mark.parametrize("victim", ["broker", "station"])
def test_a_killed_child_comes_back_and_nothing_acknowledged_is_lost(spine: Spine, victim: str) -> None:
    for _ in range(2):
        before = len(spine.probe.acked)
        wait_until(lambda b=before: len(spine.probe.acked) > b + 50, 30, "reports flow")
        told = len(spine.sentences())
        pid = spine.instance.supervisor.pid(victim)
        subprocess.run(["kill", "-9", str(pid)], check=True)
        wait_until(
            lambda p=pid: spine.instance.supervisor.pid(victim) not in {0, p}
            and spine.state(victim) is ChildState.RUNNING,
            30, f"the {victim} is back",
        )  # fmt: skip
        wait_until(
            lambda t=told: any("signal 9" in s for s in spine.sentences()[t:]), 10, "somebody says what happened"
        )
    spine.settle()
    assert len(spine.probe.acked) > 100
