"""The agent as a process of its own, against a real broker."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fleet_sim.agent import state
from fleet_sim.agent.journal import Journal
from fleetui.common.link.messages import Ask
from fleetui.common.link.topics import Up
from tests.helpers.broker import Pki, running_broker, running_mosquitto
from tests.helpers.sim import Listener
from tests.helpers.wait import wait_until

DEVICE = "press-17"
RSS_BUDGET = 60 << 20


class Agent:
    def __init__(self, folder: Path, url: str, auth: str) -> None:
        self.folder = folder
        self.config = folder / "agent.toml"
        self.config.write_text(
            f"""
fleet = "main"
device = "{DEVICE}"
broker = "{url}"
data = "data"
site = "Hamburg"
target = "x86-64-v3"
{auth}
[report]
beat = "1s"
window = "500ms"
[model]
handle = "vibration"
[source]
rows = "200/s"
batch = 10
[tags]
line = "3"
"""
        )
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "fleet_sim.agent", *arguments, "--config", str(self.config)]

    def start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stderr=log)
        return self.process

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=30, check=False)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def saved(self) -> list:
        journal = Journal(self.data / "queue", 1 << 20, sync=False)
        found = journal.open(DEVICE).reports
        journal.close()
        return [report for _, report in found]

    @property
    def log(self) -> str:
        return (self.folder / "agent.log").read_text()


@contextlib.contextmanager
def agent_at(folder, url, auth=""):
    agent = Agent(folder, url, auth)
    try:
        yield agent
    finally:
        if agent.process is not None and agent.process.poll() is None:
            agent.kill()
        if agent.process is not None:
            assert "Traceback" not in agent.log, agent.log


@pytest.fixture
def broker(tmp_path):
    with running_broker(tmp_path, fleet="main") as broker:
        yield broker


@pytest.fixture
def agent(tmp_path, broker):
    secret = broker.folder / "keys" / "local.secret"
    with agent_at(tmp_path, f"mqtt://127.0.0.1:{broker.port}", f'[auth]\nsecret = "{secret}"') as agent:
        yield agent


def test_it_lives_and_dies_in_order(agent, broker):
    station = Listener(broker)
    process = agent.start()
    birth = station.wait(Up.BIRTH, device=DEVICE)[0]
    assert (birth.site, birth.target, birth.tags) == ("Hamburg", "x86-64-v3", {"line": "3"})
    assert birth.cores == psutil.cpu_count()
    assert birth.memory_bytes > 1 << 28
    beat = station.wait(Up.BEAT, 3, DEVICE)[-1]
    assert 0 <= beat.memory <= 1
    windows = station.wait(Up.WIN, 3, DEVICE)
    assert all(w.rows > 10 and sum(w.latency) == w.rows == sum(w.outputs) for w in windows[1:])
    assert all(len(w.latency) > 2 for w in windows[1:])  # real durations
    station.ask(DEVICE, Ask(id="q1", kind="ping"))
    assert station.wait(Up.REPLY)[0].text == "pong"

    status = agent.ask("status")
    assert status.returncode == 0
    assert f"{DEVICE} of main: runs as process {process.pid}" in status.stdout
    assert "online at mqtt://127.0.0.1" in status.stdout
    assert json.loads(agent.ask("status", "--json").stdout)["running"] is True
    second = agent.ask("run")
    assert second.returncode == 1
    assert "Another agent works with the folder" in second.stderr
    doctor = agent.ask("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "The agent runs and is connected" in doctor.stdout

    assert psutil.Process(process.pid).memory_info().rss <= RSS_BUDGET
    assert agent.stop() == 0
    gone = station.wait(Up.GONE, device=DEVICE)[0]
    assert gone.clean
    assert gone.boot == birth.boot
    numbers = [m.seq for d, k, m in station.messages if k is not Up.GONE]
    assert sorted(numbers) == list(range(len(numbers)))  # nothing lost, nothing twice
    rows = sum(w.rows for w in station.of(Up.WIN))
    assert state.read(agent.data)["rows"] == rows
    assert agent.saved() == []
    after = agent.ask("status")
    assert after.returncode == 1
    assert "does not run; last heard of" in after.stdout


@pytest.mark.faults
def test_killed_it_says_so_by_its_will_and_loses_nothing_that_was_counted(agent, broker):
    station = Listener(broker, keep=True)
    agent.start()
    station.wait(Up.WIN, 2, DEVICE)
    broker.kill()  # from here on the agent is offline
    wait_until(lambda: (state.read(agent.data) or {}).get("queued", 0) >= 4, 20.0, "a queue")
    agent.kill()
    kept = agent.saved()
    assert len(kept) >= 4
    broker.restart()  # the station's client comes back by itself
    agent.start()
    births = station.wait(Up.BIRTH, 2, DEVICE)
    starts = {report.start for report in kept if hasattr(report, "rows")}
    wait_until(lambda: starts <= {w.start for w in station.of(Up.WIN)}, 20.0, "the windows from before")
    for report in kept:
        if report.boot:  # was on its way already: the same number again
            assert any(
                (m.boot, m.seq) == (report.boot, report.seq) for _, k, m in station.messages if k is not Up.GONE
            )
    assert births[-1].boot not in {report.boot for report in kept}
    numbers = {}
    for _, kind, message in station.messages:
        if kind is not Up.GONE:
            assert numbers.setdefault((message.boot, message.seq), message) == message
    agent.process.kill()
    agent.process.wait()
    gone = station.wait(Up.GONE, 1, DEVICE, timeout=30)
    assert not gone[-1].clean


@pytest.mark.parametrize("kind", ["ours", pytest.param("mosquitto", marks=pytest.mark.mosquitto)])
def test_certificates(tmp_path, kind):
    """On mosquitto, with the configuration that ``fleetui broker --export-mosquitto`` writes."""
    with contextlib.ExitStack() as stack:
        if kind == "ours":
            broker = stack.enter_context(
                running_broker(tmp_path, fleet="main", tls=Pki(tmp_path / "pki", fleet="main"))
            )
        else:
            broker = stack.enter_context(running_mosquitto(tmp_path, fleet="main", tls=True))
        pki = broker.tls
        certificate, key = pki.client(DEVICE)
        auth = f'[auth]\nca = "{pki.ca}"\ncertificate = "{certificate}"\nkey = "{key}"'
        station = Listener(broker, tls=True)
        agent = stack.enter_context(agent_at(tmp_path, f"mqtts://localhost:{broker.tls_port}", auth))
        agent.start()
        station.wait(Up.BIRTH, device=DEVICE)
        station.wait(Up.WIN, 2, DEVICE)
        station.ask(DEVICE, Ask(id="q1", kind="ping"))
        station.wait(Up.REPLY, device=DEVICE)
        doctor = agent.ask("doctor", "--json")
        texts = [f["text"] for f in json.loads(doctor.stdout)["findings"]]
        assert any("its certificate is trusted" in text for text in texts)
        assert any(re.search("The certificate (is valid for|ends in)", text) for text in texts)
        assert agent.stop() == 0
        gone = station.wait(Up.GONE, device=DEVICE)
        assert gone[0].clean


def test_the_doctor_names_what_is_wrong(tmp_path):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with agent_at(tmp_path, f"mqtt://127.0.0.1:{port}") as agent:
        doctor = agent.ask("doctor")
        assert doctor.returncode == 1
        assert "connection refused" in doctor.stdout
        assert "No agent runs with this configuration" in doctor.stdout
        status = agent.ask("status")
        assert (status.returncode, status.stdout) == (1, "No agent has run with this configuration.\n")


def test_without_a_broker_it_works_on_and_stops_at_once(tmp_path):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with agent_at(tmp_path, f"mqtt://127.0.0.1:{port}") as agent:
        agent.start()
        wait_until(lambda: (state.read(agent.data) or {}).get("queued", 0) >= 3, 20.0, "reports in the queue")
        assert agent.stop() == 0
        saved = agent.saved()
        assert sum(getattr(report, "rows", 0) for report in saved) == state.read(agent.data)["rows"]


def test_a_fault_in_the_configuration_is_one_sentence(tmp_path):
    with agent_at(tmp_path, "http://x") as agent:
        done = agent.ask("run")
        assert done.returncode == 1
        assert done.stderr.startswith("fleet-agent: 'http://x' is not the address of a broker.")
        assert agent.ask("dance").returncode == 2


NOTHING_ELSE = """
import sys
allowed = {"numpy", "msgspec", "paho", "cryptography", "fleetui", "fleet_sim"}
class Gate:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names and not top.startswith("_"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Gate())
from fleet_sim.agent import cli, doctor, settings, shell
import cryptography.x509
print(*sorted(n for n in sys.modules if n.startswith(("fleetui", "fleet_sim"))))
"""


def test_it_imports_nothing_but_what_a_device_has():
    done = subprocess.run(
        [sys.executable, "-c", NOTHING_ELSE], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in done.stdout.split():
        assert name.startswith(("fleetui.common", "fleet_sim.agent")) or name in {
            "fleetui",
            "fleet_sim",
            "fleet_sim.frugal",
        }, name
