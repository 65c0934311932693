"""The broker as a process: start, ports, lock, check, order to stop, and what it answers on the command line."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import pytest

from fleetui.broker import packets
from fleetui.broker.packets import V5, Kind, Request
from fleetui.broker.process import raise_descriptors
from fleetui.broker.wire import Reason
from tests.helpers.broker import Pki, free_port, running_broker
from tests.helpers.wait import wait_until


def fleetui(*arguments: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleetui.broker", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_starts_serves_and_stops_in_order(tmp_path):
    with running_broker(tmp_path) as broker:
        run = broker.folder / "run" / "broker.json"
        said = json.loads(run.read_text())
        assert said["fleet"] == "test"
        assert said["pid"] == broker.process.pid
        assert said["listeners"] == [{"name": "local", "policy": "local", "host": "127.0.0.1", "port": broker.port}]
        with broker.raw("station") as station, broker.raw("dev1") as device:
            assert station.subscribe("fleet/test/up/+/+") == [1]
            assert device.publish("fleet/test/up/dev1/beat", b"alive", qos=1) == Reason.SUCCESS
            assert station.message().payload == b"alive"
            broker.process.stdin.close()
            assert station.ended() == Reason.SHUTTING_DOWN
        assert broker.line("stopped")
        assert broker.process.wait(10) == 0
        assert not run.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_it_in_order(tmp_path, number):
    with running_broker(tmp_path) as broker:
        broker.signal(number)
        assert broker.process.wait(10) == 0


def test_no_will_is_published_because_the_broker_goes(tmp_path):
    from fleetui.broker import handshake

    with running_broker(tmp_path) as broker:
        with broker.raw("station", clean=False, properties={17: 600}) as station:
            station.subscribe("fleet/test/up/+/gone")
            with broker.raw("dev1", will=handshake.Will("fleet/test/up/dev1/gone", b"x", 1)):
                assert broker.stop() == 0
        broker.restart()
        with broker.raw("station", clean=False, properties={17: 600}) as station:
            assert station.connack.session_present
            assert station.message(0.3) is None


def test_a_busy_port_is_said_in_a_sentence(tmp_path):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        done = fleetui("--base-dir", str(tmp_path), "--port", str(port))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"127.0.0.1:{port}" in done.stderr
    assert "choose another port" in done.stderr
    assert not (tmp_path / "run" / "broker.json").exists()


def test_two_brokers_on_one_folder_are_refused(tmp_path):
    with running_broker(tmp_path) as broker:
        done = fleetui("--base-dir", str(broker.folder), "--port", "0")
        assert done.returncode == 1
        assert "Another broker works in" in done.stderr
        assert json.loads((broker.folder / "run" / "broker.json").read_text())["pid"] == broker.process.pid
        broker.kill()
        broker.restart()


def test_check(tmp_path):
    with running_broker(tmp_path) as broker:
        done = fleetui("--check", "--base-dir", str(broker.folder))
        assert (done.returncode, done.stderr) == (0, "")
        assert f"127.0.0.1:{broker.port} answered in" in done.stdout
        broker.kill()
        dead = fleetui("--check", "--base-dir", str(broker.folder))
        assert dead.returncode == 1
        assert "does not answer" in dead.stderr
        broker.restart()
        assert broker.stop() == 0
        gone = fleetui("--check", "--base-dir", str(broker.folder))
        assert gone.returncode == 1
        assert "No broker runs in" in gone.stderr


def test_check_over_the_open_listener(tmp_path):
    with running_broker(tmp_path, open=True) as broker:
        assert fleetui("--check", "--base-dir", str(broker.folder)).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "must not leave this machine"),
        (["--open", "--host", "192.0.2.1"], "must not leave this machine"),
        (["--tls-port", "0"], "needs a certificate"),
        (["--fleet", "a/b"], "is not a fleet name"),
        (["--limit", "nonsense=1"], "There is no limit"),
        (["--limit", "window=many"], "is no value for window"),
        (["--limit", "window=0"], "between 1 and 65535"),
        (["--limit", "memory=-1"], "cannot be negative"),
    ],
)
def test_arguments_that_make_no_sense(tmp_path, arguments, words):
    done = fleetui("--base-dir", str(tmp_path), "--port", "0", *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_tls_files_that_cannot_be_used(tmp_path):
    pki = Pki(tmp_path / "pki")
    (tmp_path / "bad.pem").write_text("nonsense")
    files = {"--cert": pki.cert, "--key": pki.key, "--ca": pki.ca, "--crl": pki.crl}
    for option in files:
        chosen = [part for name, path in files.items() for part in (name, str(path))]
        chosen[chosen.index(option) + 1] = str(tmp_path / "bad.pem")
        done = fleetui("--base-dir", str(tmp_path / "b"), "--port", "0", "--tls-port", "0", *chosen)
        assert done.returncode == 1, option
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") <= 3


def test_both_listeners_serve_one_fleet(tmp_path):
    pki = Pki(tmp_path / "pki")
    with (
        running_broker(tmp_path, tls=pki) as broker,
        broker.raw("station") as station,
        broker.raw("dev1", tls=True) as device,
    ):
        station.subscribe("fleet/test/up/+/+")
        device.publish("fleet/test/up/dev1/win", b"x", qos=1)
        assert station.message().payload == b"x"


@pytest.mark.parametrize("slow", [False, True])
def test_large_payloads_over_tls(tmp_path, slow):
    """Through TLS's own buffers, by a client that reads at once and by one that lets it wait."""
    pki = Pki(tmp_path / "pki")
    with (
        running_broker(tmp_path, tls=pki) as broker,
        broker.raw("station") as station,
        broker.raw("dev1", tls=True) as device,
    ):
        blobs = [bytes([i]) * 256 * 1024 for i in range(20)]
        for i, blob in enumerate(blobs):
            station.publish(f"fleet/test/blob/{i}", blob, qos=1, retain=True)
        device.send(packets.Subscribe(1, [Request(f"fleet/test/blob/{i}", 1) for i in range(20)]).encode(V5))
        if slow:
            for _ in range(200):
                station.publish("x", b"", qos=1)
        device.expect(Kind.SUBACK)
        got = [device.message().payload for _ in range(20)]
        assert got == blobs


def test_connections_in_total_and_the_rest_when_there_is_room_again(tmp_path):
    with running_broker(tmp_path, limit="connections=3") as broker:
        clients = [broker.raw(f"dev{i}") for i in range(3)]
        with pytest.raises((OSError, EOFError)):
            broker.raw("dev9")
        clients.pop().close()

        def again():
            try:
                return broker.raw("dev9")
            except (OSError, EOFError):
                return None

        clients.append(wait_until(again, what="a free place"))
        for client in clients:
            client.close()


def test_connections_of_one_address(tmp_path):
    with (
        running_broker(tmp_path, limit="connections_per_address=2") as broker,
        broker.raw("dev1"),
        broker.raw("dev2"),
        pytest.raises((OSError, EOFError)),
    ):
        broker.raw("dev3")


def test_connecting_faster_than_allowed_waits_and_is_served(tmp_path):
    with running_broker(tmp_path, limit="connects_per_s=20") as broker:
        clients = [broker.raw(f"dev{i}") for i in range(40)]
        assert all(client.connack.reason == 0 for client in clients)
        for client in clients:
            client.close()


def test_descriptors_are_raised():
    import resource

    soft = raise_descriptors()
    assert soft == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert soft >= min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


# ---------------------------------------------------------------- $SYS and $CONTROL


def test_sys_topics_tell_what_goes_on(tmp_path):
    with (
        running_broker(tmp_path, sys_interval=0.2) as broker,
        broker.raw("station") as station,
        broker.raw("dev1") as device,
    ):
        device.publish("fleet/test/up/dev1/win", b"x" * 100, qos=1)
        device.publish("fleet/test/up/dev2/win", b"x", qos=1)
        device.publish("fleet/test/up/dev1/birth", b"x", qos=1, retain=True)
        assert station.subscribe(Request("$SYS/broker/#", 0)) == [0]
        seen: dict[str, str] = {}

        def told() -> bool:
            while (message := station.message(0.05)) is not None:
                seen[message.topic.removeprefix("$SYS/broker/")] = message.payload.decode()
            return seen.get("count/denied_publish") == "1" and seen.get("retained/count") == "1"

        wait_until(told, what="the figures")
        assert seen["clients/connected"] == "2"
        assert seen["version"]
        assert int(seen["count/messages_in"]) >= 3
        assert int(seen["count/bytes_in"]) > 100
        assert int(seen["memory/process"]) > 1 << 20
        assert seen["count/bugs"] == "0"
        assert seen["retained/bytes"] == "1"


def test_stats_kick_and_clear_session(tmp_path):
    with running_broker(tmp_path) as broker, broker.raw("station") as station:
        station.subscribe("answers/+")

        def ask(command: str, payload: bytes = b"") -> tuple[int, dict]:
            reason = station.publish(
                f"$CONTROL/{command}", payload, qos=1, response_topic="answers/me", correlation=payload or b"-"
            )
            message = station.message()
            assert message.topic == "answers/me"
            assert message.properties[9] == (payload or b"-")
            return reason, json.loads(message.payload)

        with broker.raw("dev1", clean=False, properties={17: 600}) as device:
            device.subscribe("fleet/test/down/dev1/+")
            reason, stats = ask("stats")
            assert (reason, stats["ok"], stats["clients/connected"]) == (0, True, 2)
            assert ask("kick", b"dev1") == (0, {"ok": True})
            assert device.ended() == Reason.ADMINISTRATIVE
        reason, answer = ask("kick", b"dev1")
        assert reason == Reason.IMPLEMENTATION
        assert "not connected" in answer["error"]
        assert ask("clear-session", b"dev1") == (0, {"ok": True})
        with broker.raw("dev1", clean=False, properties={17: 600}) as device:
            assert not device.connack.session_present
            assert ask("clear-session", b"dev1") == (0, {"ok": True})
            assert device.ended() == Reason.ADMINISTRATIVE
        assert ask("clear-session", b"nobody")[1]["ok"] is False
        assert ask("reload-crl") == (0, {"ok": True, "ended": 0})
        assert station.publish("$CONTROL/stats", b"", qos=1, response_topic="$CONTROL/kick") == 0
        assert station.message(0.2) is None


# ---------------------------------------------------------------- the export


def test_export_never_overwrites_keys(tmp_path):
    folder = tmp_path / "mosquitto"
    first = fleetui("--export-mosquitto", str(folder), "--fleet", "plant", "--name", "broker.example")
    assert first.returncode == 0, first.stderr
    keys = {p: p.read_bytes() for p in folder.rglob("*") if p.suffix in {".key", ".crt", ".pem"}}
    assert len(keys) == 8
    assert all(p.stat().st_mode & 0o077 == 0 for p in keys if p.suffix == ".key")
    (folder / "acl").write_text("spoilt")
    again = fleetui(
        "--export-mosquitto", str(folder), "--fleet", "plant", "--station", "station", "--station", "two"
    )
    assert again.returncode == 0, again.stderr
    assert {p: p.read_bytes() for p in keys} == keys
    assert (folder / "two.key").exists()
    assert "user two" in (folder / "acl").read_text()
    assert "fleet/plant/up/%u/#" in (folder / "acl").read_text()
    other = fleetui("--export-mosquitto", str(folder), "--fleet", "other")
    assert other.returncode == 1
    assert "authority of the fleet 'plant'" in other.stderr


def test_the_local_port_may_be_given(tmp_path):
    port = free_port()
    with running_broker(tmp_path, port=port) as broker:
        assert broker.port == port
