"""An instance with its real children: order, deaths, a second desk, the demo from nothing to history."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetui.common.basedir import BaseDir
from fleetui.common.domain.clock import ScaledClock
from fleetui.common.domain.errors import ConfigError
from fleetui.common.domain.states import ChildState
from fleetui.desk.app import commandlines
from fleetui.desk.app.demo import BEAT_S, KEEP_S, Demo, DemoOptions, History
from fleetui.desk.app.instance import BROKER, SIMULATOR, STATION, Instance
from fleetui.desk.app.settings import Settings
from fleetui.desk.app.supervise import Note
from fleetui.store import devices, series
from tests.helpers.wait import wait_until

R = ChildState.RUNNING


class Desk:
    def __init__(self, base: Path, demo: DemoOptions | None = None, **overrides: object) -> None:
        self.notes: list[Note] = []
        self.instance = Instance.open(base, demo, {k.replace("__", "."): v for k, v in overrides.items()})
        self.instance.start(self.notes.append)

    def running(self, name: str, timeout: float = 40) -> int:
        state = self.instance.supervisor.wait(name, R, timeout_s=timeout)
        assert state is R, (state, self.instance.supervisor.tail(name), [n.sentence for n in self.notes])
        return self.instance.supervisor.pid(name)

    def count(self) -> int:
        with self.instance.store.read() as connection:
            return len(devices.all(connection))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "base"


@pytest.fixture
def desk(base: Path) -> Iterator[Desk]:
    made = Desk(base)
    yield made
    made.instance.close()


@pytest.mark.faults
def test_broker_then_station_and_each_comes_back_after_a_kill(desk: Desk, base: Path) -> None:
    station = desk.running(STATION)
    begun = [n.name for n in desk.notes if n.sentence.endswith("is starting")]
    assert begun == [BROKER, STATION]
    [listener] = json.loads((base / "run" / "broker.json").read_text())["listeners"]
    broker = desk.instance.supervisor.pid(BROKER)
    os.kill(station, signal.SIGKILL)
    os.kill(broker, signal.SIGKILL)
    wait_until(lambda: desk.instance.supervisor.pid(STATION) not in {0, station}, 40, "another station")
    wait_until(lambda: desk.instance.supervisor.pid(BROKER) not in {0, broker}, 40, "another broker")
    desk.running(BROKER)
    desk.running(STATION)
    [again] = json.loads((base / "run" / "broker.json").read_text())["listeners"]
    assert again["port"] == listener["port"]
    said = [n.sentence for n in desk.notes]
    assert "The station stopped (killed by signal 9) and was started again; nothing was lost" in said
    assert [part.state for part in desk.instance.parts()] == ["running", "running"]
    assert all(part.pid for part in desk.instance.parts())


def test_a_second_desk_on_the_same_folder_says_so(base: Path) -> None:
    first = Instance.open(base)
    with pytest.raises(ConfigError, match="Another desk"):
        Instance.open(base)
    first.close()
    Instance.open(base).close()


def test_a_desk_that_only_looks_starts_nothing(base: Path) -> None:
    desk = Desk(base, station__own=False)
    try:
        assert desk.instance.children == ()
        assert {part.state for part in desk.instance.parts()} == {"elsewhere"}
    finally:
        desk.instance.close()


def test_closing_before_anything_runs_leaves_nothing(base: Path) -> None:
    desk = Desk(base)
    desk.instance.close()
    assert list((base / "run").glob("*.pid")) == []


@pytest.mark.mosquitto
def test_mosquitto_in_its_place(base: Path) -> None:
    if shutil.which("mosquitto") is None and not Path("/usr/sbin/mosquitto").exists():
        said = "mosquitto is not installed (Debian package: mosquitto)"
        pytest.fail(said) if os.environ.get("CI") == "true" else pytest.skip(said)
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    desk = Desk(base, broker__kind="mosquitto", broker__tls_port=port)
    try:
        desk.running(STATION)
        online = lambda: any(  # noqa: E731 - a condition
            n.name == STATION and n.line.get("kind") == "state" and n.line.get("link") == "online"
            for n in desk.notes
        )
        wait_until(online, 30, "the station's link over TLS")
    finally:
        desk.instance.close()


# ---------------------------------------------------------------- command lines


def settings(**values: object) -> Settings:
    made = Settings(None)
    for key, value in values.items():
        made.set(key.replace("__", "."), value)
    return made


def test_the_stations_command_line_by_kind_of_broker(base: Path) -> None:
    folder = BaseDir.at(base)
    embedded = commandlines.station(folder, settings(), "")
    assert "--broker" not in embedded
    assert "--store" not in embedded
    assert embedded[:4] == [sys.executable, "-m", "fleetui.cli", "station"]
    elsewhere = commandlines.station(
        folder,
        settings(broker__kind="url", broker__url="mqtts://b:8883", broker__ca="/ca.crt", fleet__beat_s=7),
        "c",
    )
    assert elsewhere[elsewhere.index("--broker") + 1] == "mqtts://b:8883"
    assert elsewhere[elsewhere.index("--ca") + 1] == "/ca.crt"
    assert elsewhere[elsewhere.index("--beat") + 1] == "7"
    assert elsewhere[elsewhere.index("--clock") + 1] == "c"
    with pytest.raises(ConfigError, match="address"):
        commandlines.station(folder, settings(broker__kind="url"), "")
    shared = commandlines.station(folder, settings(store__url="postgresql://a@b/c"), "")
    assert shared[shared.index("--store") + 1] == "postgresql://a@b/c"


def test_a_broker_for_devices_outside_gets_certificates(base: Path) -> None:
    folder = BaseDir.at(base)
    command = commandlines.broker(folder, settings(broker__tls_port=18883, broker__port=18884), 0)
    assert command[command.index("--port") + 1] == "18884"
    assert command[command.index("--tls-port") + 1] == "18883"
    for option in ("--cert", "--key", "--ca", "--crl"):
        assert Path(command[command.index(option) + 1]).is_file()
    before = (folder.keys / "tls" / "server.key").read_bytes()
    commandlines.broker(folder, settings(broker__tls_port=18883), 0)
    assert (folder.keys / "tls" / "server.key").read_bytes() == before


def test_a_mosquitto_that_is_not_there_is_a_sentence(base: Path) -> None:
    with pytest.raises(ConfigError, match="/nowhere/mosquitto") as caught:
        commandlines.mosquitto(BaseDir.at(base), settings(broker__mosquitto="/nowhere/mosquitto"))
    assert "Debian package" in caught.value.fix


# ---------------------------------------------------------------- the demo


def demo_json(base: Path) -> dict[str, object]:
    return dict(json.loads((base / "demo.json").read_text()))


def test_a_demo_is_the_same_again_and_its_time_stands_still_meanwhile(base: Path) -> None:
    folder = BaseDir.at(base)
    first = Demo.open(folder, DemoOptions(devices=7, seed=42))
    assert isinstance(first._scaled, ScaledClock)
    first.close()
    stood = float(str(demo_json(base)["fleet"]))
    again = Demo.open(folder, DemoOptions())
    assert (again.seed, again.devices) == (42, 7)
    assert 0 <= again.clock.now() - stood < 10, "fleet time stands still until there is a fleet"
    assert again.status.rate == 30
    assert Demo.open(folder, DemoOptions(devices=9)).devices == 9


def test_a_demo_whose_desk_was_killed_never_goes_back_in_time(base: Path) -> None:
    folder = BaseDir.at(base)
    Demo.open(folder, DemoOptions(rate=100.0)).close()
    noted = demo_json(base)
    assert noted["clean"] is True
    (folder.root / "demo.json").write_text(json.dumps(noted | {"clean": False}))
    killed = Demo.open(folder, DemoOptions())
    assert killed.clock.now() >= float(str(noted["fleet"])) + 2 * KEEP_S * 100.0
    killed.close()


@pytest.mark.logs_warnings("cannot be used")
@pytest.mark.parametrize("text", ["", "{}", '{"seed": "x"}'])
def test_a_demo_file_that_makes_no_sense_is_begun_anew(base: Path, text: str) -> None:
    folder = BaseDir.at(base)
    (folder.root / "demo.json").write_text(text)
    assert Demo.open(folder, DemoOptions(devices=3, seed=5)).seed == 5


def test_a_history_that_was_interrupted_is_made_again(base: Path) -> None:
    folder = BaseDir.at(base)
    demo = Demo.open(folder, DemoOptions(seed=1))
    began = demo_json(base)["began"]
    demo._go(History.READING)
    again = Demo.open(folder, DemoOptions())
    assert again.status.history is History.NONE
    assert again._state.began == began
    again._go(History.DONE)
    assert Demo.open(folder, DemoOptions()).status.history is History.DONE


def test_demo_speeds_have_limits(desk: Desk, base: Path) -> None:
    demo = Demo.open(BaseDir.at(base), DemoOptions(seed=1))
    for rate in (0.5, 20_000.0):
        with pytest.raises(ConfigError):
            demo.set_speed(rate, desk.instance.supervisor)
    demo.set_speed(120.0, desk.instance.supervisor)
    assert demo.clock.rate < 1
    demo._hold(desk.instance.supervisor, hold=False)
    assert demo.clock.rate == 120.0
    demo.pause(desk.instance.supervisor)
    stood = demo.clock.now()
    assert demo.clock.rate < 1
    assert demo.clock.now() - stood < 1
    demo.play(desk.instance.supervisor)
    assert demo.clock.rate == 120.0
    assert demo.status.rate == 120.0


@pytest.mark.faults
def test_the_demo_from_nothing_to_a_week_of_history(base: Path) -> None:
    desk = Desk(base, DemoOptions(devices=4, seed=3))
    demo = desk.instance.demo
    assert demo is not None
    try:
        desk.running(SIMULATOR)
        wait_until(lambda: desk.count() > 0, 30, "the first live device")
        assert demo.status.history in {History.RECORDING, History.WAITING, History.READING, History.DONE}
        wait_until(lambda: demo.status.history is History.DONE, 60, "the history")
        desk.running(STATION)
        with desk.instance.store.read() as connection:
            week = series.read(connection, "", "online", demo._state.began - 6.5 * 86400, demo._state.began)
            names = [row.device for row in devices.all(connection)]
            vital = series.read(connection, names[0], "cpu", demo._state.began - 6.5 * 86400, demo._state.began)
        assert len(names) == 4
        assert week.at.size > 24
        assert vital.at.size > 24
        assert not (base / "history.fleetrec").exists()
        # Time goes on, at the demo's pace, in every process that shares it; nobody fell silent meanwhile.
        wait_until(lambda: demo.clock.rate == 30, what="fleet time to go on")
        assert not [n for n in desk.notes if n.level >= 2]
        demo.inject(desk.instance.supervisor, "hot", degrees=5)
        answered = lambda: any(n.line.get("do") == "inject" and n.line.get("kind") == "done" for n in desk.notes)  # noqa: E731 - a condition
        wait_until(answered, what="the simulator's answer")
        seen = lambda: demo.status.simulator.get("faults")  # noqa: E731 - a condition
        wait_until(seen, what="the fault in the simulator's figures")
    finally:
        desk.instance.close()
    assert demo_json(base)["history"] == "done"
    assert BEAT_S == 60
