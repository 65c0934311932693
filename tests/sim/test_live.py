"""The simulator as a process, over a real broker."""

from __future__ import annotations

import re
import signal
from collections import Counter

import psutil
import pytest

from fleetui.common.domain.clock import ScaledClock, clock_from_spec
from fleetui.common.link.messages import Ask, Gone
from fleetui.common.link.topics import Up
from tests.helpers.broker import Pki, running_broker, running_mosquitto
from tests.helpers.sim import Listener, SimProcess, simulator
from tests.helpers.wait import wait_until

N = 20


@pytest.fixture
def broker(tmp_path):
    with running_broker(tmp_path, fleet="main") as broker:
        yield broker


@pytest.fixture(params=["ours", pytest.param("mosquitto", marks=pytest.mark.mosquitto)])
def either(request, tmp_path):
    start = running_broker if request.param == "ours" else running_mosquitto
    with start(tmp_path, fleet="main") as broker:
        yield broker


def arguments(broker, *more, devices=N):
    secret = ("--secret", str(broker.folder / "keys" / "local.secret")) if broker.ours else ()
    return "--devices", str(devices), "--broker", f"mqtt://127.0.0.1:{broker.port}", *secret, *more


def numbered(station):
    found = {}
    for device, _, message in list(station.messages):
        if not isinstance(message, Gone):
            key = device, message.boot, message.seq
            assert found.setdefault(key, message) == message, "a number for two contents"
    return found


def test_twenty_agents_from_birth_to_goodbye(either):
    station = Listener(either)
    with simulator(*arguments(either, "--beat", "1", "--window", "1", "--quiet-world")) as sim:
        ready = sim.wait("ready")
        assert (ready["devices"], ready["fleet"], ready["seed"]) == (N, "main", 1)
        assert sim.wait("state")["devices"] == N
        stats = sim.wait("stats", lambda s: s["connected"] == N and s["rows"] > 10)
        assert stats["dropped"] == stats["bugs"] == 0
        station.wait(Up.WIN, 3 * N)
        assert len({m.device for m in station.of(Up.BIRTH)}) == N
        station.ask("edge-0003", Ask(id="1", kind="ping"))
        assert station.wait(Up.REPLY, device="edge-0003")[0].text == "pong"
        assert sim.ask("stop")["kind"] == "done"
        assert sim.process.wait(20) == 0
    last = sim.lines[-1]
    assert (last["kind"], last["reason"], last["connected"], last["queued"]) == ("stopped", "asked to", 0, 0)
    wait_until(lambda: len(station.of(Up.GONE)) == N, what="goodbyes")
    assert all(m.clean for m in station.of(Up.GONE))
    found = numbered(station)
    assert sum(m.rows for m in found.values() if hasattr(m, "handle")) == last["rows"]
    seen = Counter((device, boot) for device, boot, _ in found)
    top = {key: max(n for d, b, n in found if (d, b) == key) for key in seen}
    assert all(count == top[key] + 1 for key, count in seen.items())  # no gaps on a good network
    assert last["sent"] == len(found) + N


def test_commands(broker):
    station = Listener(broker)
    with simulator(*arguments(broker, "--rate", "60", "--beat", "30", "--window", "60")) as sim:
        sim.wait("stats", lambda s: s["connected"] >= N - 3)
        status = sim.ask("status")
        assert status["figures"]["devices"] == N
        assert clock_from_spec(status["clock"]).rate == 60

        answer = sim.ask("inject", fault="offline", devices=["edge-0001", "edge-0002"], id="cut")
        assert (answer["kind"], answer["id"], answer["devices"]) == ("done", "cut", 2)
        assert sim.wait("event", lambda e: e["id"] == "cut")["what"] == "fault begins"
        wait_until(lambda: {m.device for m in station.of(Up.GONE)} >= {"edge-0001", "edge-0002"}, what="wills")
        assert [a["id"] for a in sim.ask("status")["active"]] == ["cut"]
        assert sim.ask("clear", id="cut")["ended"] == ["cut"]
        wait_until(lambda: len(station.of(Up.BIRTH, "edge-0001")) == 2, what="a second birth")
        assert (
            sim.ask("inject", fault="slow", select="site:*", share="50%", **{"for": "1m"}, factor=9)["devices"]
            == 10
        )
        sim.wait("event", lambda e: e["what"] == "fault ends" and e["fault"] == "slow")

        before = sim.ask("pause")["at"]
        first = len(station.of(Up.BEAT))
        still = sim.wait("stats", lambda s: s["rate"] == 0)
        assert abs(still["at"] - before) < 0.1
        played = sim.ask("play")
        assert abs(played["at"] - before) < 10  # its own clock goes on from where it stood
        wait_until(lambda: len(station.of(Up.BEAT)) > first + 5, what="beats again")
        assert sim.ask("speed", rate=5)["rate"] == 5
        shared = ScaledClock.starting_now(7.0)
        answer = sim.ask("speed", clock=shared.spec)
        assert (answer["rate"], answer["clock"]) == (7.0, shared.spec)

        for command, sentence in (
            ({"do": "dance"}, "There is no command 'dance'"),
            ({"do": "inject", "fault": "slow", "facter": 2}, "has no parameter 'facter'"),
            ({"do": "inject"}, "There is no fault 'None'"),
            ({"do": "inject", "fault": "slow", "devices": "edge-1"}, "'devices' is not a list"),
            ({"do": "inject", "fault": "slow", "devices": ["nobody"]}, "no simulated device 'nobody'"),
            ({"do": "inject", "fault": "slow", "select": "site:("}, ""),
            ({"do": "clear", "id": "nothing"}, "No fault 'nothing' is going on"),
            ({"do": "speed", "rate": "fast"}, "Rate cannot be 'fast'"),
            ({"do": "speed", "clock": "x"}, "'x' is not a clock"),
        ):
            answer = sim.ask(**command)
            assert answer["kind"] == "error", command
            assert sentence in answer["text"]
            assert answer["text"].endswith(".")
        assert sim.process.stdin is not None
        sim.process.stdin.write(b"not json\n")
        sim.process.stdin.flush()
        sim.wait("error", lambda e: e["text"] == "not a JSON object")
        assert sim.wait("stats")["bugs"] == 0
    assert sim.lines[-1]["reason"] == "the parent is gone"


def test_a_shared_clock_is_followed_and_rejoined(broker):
    station = Listener(broker)
    clock = ScaledClock.starting_now(100.0)
    with simulator(*arguments(broker, "--clock", clock.spec, "--beat", "50", "--quiet-world", devices=3)) as sim:
        beat = station.wait(Up.BEAT, 6)[-1]
        assert abs(beat.at - clock.now()) < 200
        sim.ask("pause")
        wait_until(lambda: sim.wait("stats", lambda s: s["rate"] == 0), what="the pause")
        assert abs(sim.ask("play")["at"] - clock.now()) < 100


@pytest.mark.faults
def test_the_broker_is_killed_and_comes_back(broker):
    few = 6
    station = Listener(broker, keep=True)
    with simulator(*arguments(broker, "--beat", "2", "--window", "1", "--quiet-world", devices=few)) as sim:
        sim.wait("stats", lambda s: s["connected"] == few)
        station.wait(Up.WIN, few)
        broker.kill()
        sim.wait("stats", lambda s: s["connected"] == 0)
        sim.wait("stats", lambda s: s["queued"] > 2 * few)
        back = len(sim.lines)
        broker.restart()
        sim.wait("stats", lambda s: s["connected"] == few and s["queued"] < few, timeout=60, since=back)
        sim.ask("stop")
        assert sim.process.wait(30) == 0
        last = sim.lines[-1]
        wait_until(lambda: sum(m.clean for m in station.of(Up.GONE)) == few, 20.0, "goodbyes")
    windows = [m for m in numbered(station).values() if hasattr(m, "handle")]
    assert sum(w.rows for w in windows) == last["rows"]
    assert last["dropped"] == 0


def test_certificates(tmp_path):
    pki = Pki(tmp_path / "pki", fleet="main")
    for i in range(3):
        pki.client(f"edge-{i + 1:04d}")
    with running_broker(tmp_path, fleet="main", tls=pki) as broker:
        options = ("--devices", "3", "--broker", f"mqtts://localhost:{broker.tls_port}", "--certs", str(pki.folder))
        with simulator(*options) as sim:
            sim.wait("stats", lambda s: s["connected"] == 3)
        missing = SimProcess("--devices", "4", *options[2:])
        assert missing.process.wait(20) == 1
        assert missing.end() == 1
        assert re.search(r"There is no edge-0004\.crt", missing.errors)
        assert missing.lines[-1]["kind"] == "stopped"
        assert "edge-0004.crt" in missing.lines[-1]["sentence"]


def test_two_processes_speak_as_one(broker):
    with simulator(*arguments(broker, "--processes", "2", "--beat", "1", "--quiet-world")) as sim:
        assert sim.wait("ready")["devices"] == N
        assert sim.wait("state")["devices"] == N
        workers = psutil.Process(sim.process.pid).children()
        assert len(workers) == 2
        sim.wait("stats", lambda s: s["connected"] == N and s["devices"] == N)
        answer = sim.ask("inject", fault="offline", select="", count=5)
        assert (answer["id"], answer["devices"]) == ("offline-1", 5)
        sim.wait("stats", lambda s: s["connected"] == N - 5)
        mark = len(sim.lines)
        assert sim.ask("status")["figures"]["devices"] == N
        assert sim.ask("clear")["ended"] == ["offline-1"]
        sim.wait("stats", lambda s: s["connected"] == N, since=mark)
        assert len([line for line in sim.lines if line["kind"] == "event"]) == 2
        assert sim.ask("dance")["kind"] == "error"
        assert sim.ask("stop")["kind"] == "done"
        assert sim.process.wait(20) == 0
    assert sim.lines[-1]["kind"] == "stopped"
    assert sim.lines[-1]["queued"] == 0
    assert not any(worker.is_running() for worker in workers)


@pytest.mark.faults
def test_a_worker_that_dies_takes_the_fleet_with_it_and_says_so(broker):
    sim = SimProcess(*arguments(broker, "--processes", "2"))
    sim.wait("stats")
    workers = psutil.Process(sim.process.pid).children()
    workers[1].send_signal(signal.SIGKILL)
    assert sim.process.wait(30) == 1
    assert sim.end() == 1
    assert "A process of the simulator ended by itself with -9" in sim.errors
    assert "ended by itself" in sim.lines[-1]["sentence"]
    assert not any(worker.is_running() for worker in workers)


@pytest.mark.faults
def test_workers_do_not_outlive_their_parent(broker):
    sim = SimProcess(*arguments(broker, "--processes", "2"))
    sim.wait("stats")
    workers = psutil.Process(sim.process.pid).children()
    sim.process.kill()
    sim.end()
    wait_until(
        lambda: not any(w.is_running() and w.status() != "zombie" for w in workers), 20.0, "the workers' end"
    )
