"""The station as a process, on a real broker: ours and mosquitto."""

import random
import threading

import pytest
from sqlalchemy import select

from fleetui.common.domain.clock import SystemClock
from fleetui.store import devices, events
from fleetui.store.store import Store
from fleetui.store.tables import device as device_table
from fleetui.store.tables import inference_window
from tests.helpers.broker import Pki, running_broker, running_mosquitto
from tests.helpers.station_process import Publishers, running_station
from tests.helpers.wait import wait_until

now = SystemClock().now

BROKERS = [
    pytest.param(running_broker, id="ours"),
    pytest.param(running_mosquitto, id="mosquitto", marks=pytest.mark.mosquitto),
]


def windows_of(base) -> set[tuple[str, str, int]]:
    with (
        Store.open(f"sqlite:///{base / 'fleetui.db'}", clock=SystemClock(), check=False) as store,
        store.read() as c,
    ):
        return {
            tuple(row)
            for row in c.execute(
                select(device_table.c.device, inference_window.c.boot, inference_window.c.report_seq).join_from(
                    inference_window, device_table, device_table.c.number == inference_window.c.device
                )
            )
        }


def rows_of(base):
    with (
        Store.open(f"sqlite:///{base / 'fleetui.db'}", clock=SystemClock(), check=False) as store,
        store.read() as c,
    ):
        return {row.device: row for row in devices.all(c)}


def events_of(base):
    with (
        Store.open(f"sqlite:///{base / 'fleetui.db'}", clock=SystemClock(), check=False) as store,
        store.read() as c,
    ):
        return list(reversed(events.read(c, limit=10_000)))


def options_for(broker) -> list[str]:
    return ["--broker", f"mqtt://{broker.host}:{broker.port}", "--fleet", broker.fleet]


def keys(messages) -> set[tuple[str, str, int]]:
    return {(m.device, m.boot, m.seq) for m in messages if hasattr(m, "length_s")}


@pytest.fixture(params=BROKERS)
def broker(request, tmp_path):
    with request.param(tmp_path) as running:
        yield running


@pytest.fixture
def publishers(broker):
    made = Publishers(broker, 20)
    yield made
    made.close()


def speak(publishers: Publishers, rounds: int) -> None:
    """Windows of all devices, each with a start of its own."""
    at = now()
    for n in range(rounds):
        for i, speaker in enumerate(publishers.speakers):
            publishers.say(i, speaker.window(at, start=at - 3600 + n))


def test_what_a_broker_acknowledged_is_stored(broker, publishers):
    with running_station(broker.folder, *options_for(broker)) as station:
        assert station.wait_for("ready")["fleet"] == "test"
        station.wait_leading()
        publishers.wait_online()
        for i, speaker in enumerate(publishers.speakers):
            publishers.say(i, speaker.birth(now()))
        speak(publishers, 50)
        publishers.wait_acked()
        wanted = keys(publishers.acked)
        wait_until(lambda: wanted <= windows_of(broker.folder), 20, "everything stored")
        assert station.stop() == 0
    assert windows_of(broker.folder) == wanted
    assert len(wanted) == 1000
    rows = rows_of(broker.folder)
    assert {(r.last_seq, r.lost, r.duplicates) for r in rows.values()} == {(50, 0, 0)}


@pytest.mark.faults
def test_a_station_killed_at_random_moments_loses_nothing(broker, publishers):
    rng = random.Random(5)
    with running_station(broker.folder, *options_for(broker)) as station:
        station.wait_leading()
        publishers.wait_online()
        for i, speaker in enumerate(publishers.speakers):
            publishers.say(i, speaker.birth(now()))
        talking = threading.Event()
        talking.set()

        def talk():
            pause = threading.Event()
            start = now() - 86_400
            while talking.is_set():
                for i, speaker in enumerate(publishers.speakers):
                    start += 1.0
                    publishers.say(i, speaker.window(now(), start=start))
                pause.wait(0.02)

        thread = threading.Thread(target=talk)
        thread.start()
        for _ in range(3):
            threading.Event().wait(rng.uniform(0.05, 0.6))
            station.kill()
            station.start()
            station.wait_leading()
        talking.clear()
        thread.join()
        publishers.wait_acked()
        wanted = keys(publishers.acked)
        wait_until(lambda: wanted <= windows_of(broker.folder), 20, "everything stored")
    assert windows_of(broker.folder) == wanted
    rows = rows_of(broker.folder).values()
    assert sum(r.lost for r in rows) == 0
    assert {r.boots for r in rows} == {1}
    assert len(wanted) > 500


@pytest.mark.faults
def test_a_broker_that_ends_loses_nothing_and_nobody_goes_offline(broker, publishers):
    """Ours is killed in the midst of it. Mosquitto 2.0.11 forgets the sessions of MQTT 5 clients even when it ends
    in order (it answers "no session" afterwards), so there it ends while nothing is under way."""
    with running_station(broker.folder, *options_for(broker)) as station:
        station.wait_leading()
        publishers.wait_online()
        for i, speaker in enumerate(publishers.speakers):
            publishers.say(i, speaker.birth(now()))
        speak(publishers, 5)
        if broker.ours:
            broker.kill()
        else:
            publishers.wait_acked()
            before = keys(publishers.acked)
            wait_until(lambda: before <= windows_of(broker.folder), 20, "everything stored")
            broker.stop()
        station.wait_for("state", link="waiting")
        broker.restart()
        station.wait_leading()
        publishers.wait_online()
        for i, speaker in enumerate(publishers.speakers):
            publishers.say(i, speaker.window(now(), start=now() - 7200))
        publishers.wait_acked()
        wanted = keys(publishers.acked)
        wait_until(lambda: wanted <= windows_of(broker.folder), 20, "everything stored")
    assert {r.status for r in rows_of(broker.folder).values()} == {"online"}
    kinds = [e.kind for e in events_of(broker.folder)]
    assert "link.down" in kinds
    assert "link.up" in kinds
    assert "device.offline" not in kinds


@pytest.mark.faults
@pytest.mark.parametrize("broker", BROKERS[:1], indirect=True)
def test_of_two_stations_one_leads_and_the_other_takes_over(broker, publishers):
    with running_station(broker.folder, *options_for(broker)) as first:
        first.wait_leading()
        with running_station(broker.folder, *options_for(broker)) as second:
            assert second.wait_for("ready")["leader"] is False
            publishers.wait_online()
            speak(publishers, 3)
            first.kill()
            speak(publishers, 3)
            second.wait_leading()
            publishers.wait_acked()
            wanted = keys(publishers.acked)
            wait_until(lambda: wanted <= windows_of(broker.folder), 20, "everything stored")


def test_a_parent_that_is_gone_ends_the_station_and_so_does_a_signal(tmp_path):
    with running_broker(tmp_path) as broker:
        with running_station(broker.folder) as station:
            station.wait_leading()
            assert station.stop(5.0) == 0
            assert station.wait_for("stopped")["station"] == "station"
        with running_station(broker.folder) as station:
            station.wait_leading()
            station.process.terminate()
            station.process.wait(5.0)
            station._reap()
            assert station.process.returncode == 0


def test_a_station_goes_without_a_broker_and_finds_it_later(tmp_path):
    with running_broker(tmp_path) as broker:
        broker.stop()
        with running_station(broker.folder, *options_for(broker)) as station:
            assert station.wait_for("ready")["leader"] is True
            station.wait_for("state", link="waiting")
            broker.restart()
            station.wait_leading()


def test_a_broker_that_comes_back_on_another_port_is_found(tmp_path):
    with running_broker(tmp_path) as broker, running_station(broker.folder) as station:
        station.wait_leading()
        before = broker.port
        broker.kill()
        station.wait_for("state", link="waiting")
        broker._command[broker._command.index("--port") + 1] = "0"
        broker.start()
        station.wait_leading()
        assert broker.port != before


def test_with_a_certificate_over_tls(tmp_path):
    pki = Pki(tmp_path / "pki")
    with running_broker(tmp_path, tls=pki) as broker:
        cert, key = pki.client("station")
        files = ["--ca", str(pki.ca), "--cert", str(cert), "--key", str(key), "--fleet", "test"]
        url = f"mqtts://localhost:{broker.tls_port}"
        with running_station(broker.folder, "--broker", url, *files) as station:
            station.wait_leading()
            publishers = Publishers(broker, 2)
            publishers.wait_online()
            speak(publishers, 3)
            publishers.wait_acked()
            wanted = keys(publishers.acked)
            publishers.close()
            wait_until(lambda: wanted <= windows_of(broker.folder), 20, "everything stored")
        other, other_key = pki.client("dev000")
        files[3], files[5] = str(other), str(other_key)
        with running_station(broker.folder, "--broker", url, *files) as station:
            refused = station.wait_for("state", link="refused")
            assert "client id" in refused["reason"]


def test_without_a_broker_anywhere_it_says_what_to_do(tmp_path):
    with running_station(tmp_path) as station:
        said = station.wait_for("stopped")
        station.process.wait(10)
        assert station.process.returncode == 1
        station._reap()
    assert said["sentence"] == "The broker of this instance is not running"
    assert "--broker" in said["fix"]


def test_the_clock_can_be_turned_while_it_runs(tmp_path):
    with running_broker(tmp_path) as broker, running_station(broker.folder) as station:
        station.wait_leading()
        at = now()
        station.command(command="clock", spec=f"{at!r}@{at!r}*60.0")
        station.command(command="sing")
        assert "sing" in station.wait_for("error")["text"]

        def ahead() -> bool:
            from fleetui.store import status

            url = f"sqlite:///{broker.folder / 'fleetui.db'}"
            with Store.open(url, clock=SystemClock(), check=False) as store, store.read() as connection:
                return any(row.at > now() + 60 for row in status.list(connection))

        wait_until(ahead, 15, "fleet time running ahead")
