"""Small parts: configuration, operators, counters, intake, limits, lease, command line."""

import argparse
import json
import os
import subprocess
import sys
import threading

import pytest

from fleetui.common.basedir import BaseDir
from fleetui.common.domain.clock import ManualClock
from fleetui.common.domain.errors import ConfigError
from fleetui.common.link.transport import Message
from fleetui.common.trust.local import load_or_create_secret, local_password
from fleetui.common.trust.wishes import Operator, sign_wish
from fleetui.station import cli
from fleetui.station.config import BrokerAddress, StationConfig, settings_from
from fleetui.station.counters import Counters, Lag, Rates
from fleetui.station.ingest.batcher import FencedError
from fleetui.station.ingest.intake import Arrival, Intake
from fleetui.station.ingest.limits import Bucket, Limit
from fleetui.station.leader import Leadership, is_gone, run_name
from fleetui.station.operators import checker, folder_of, local_operator
from fleetui.store.records import Wish
from fleetui.store.store import Store
from tests.helpers.wait import wait_until

# ------------------------------------------------------------------------------------------------ configuration


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "username", "password"),
    [
        ("mqtt://10.0.0.1:1884", "10.0.0.1", 1884, False, None, None),
        ("mqtts://broker.example", "broker.example", 8883, True, None, None),
        ("mqtt://[::1]", "::1", 1883, False, None, None),
        ("broker", "broker", 1883, False, None, None),
        ("mqtt://me:p%40ss@h", "h", 1883, False, "me", "p@ss"),
    ],
)
def test_addresses_of_brokers(url, host, port, tls, username, password):
    assert BrokerAddress.parse(url) == BrokerAddress(host, port, tls, username, password)


@pytest.mark.parametrize(
    "url", ["http://x", "mqtt://", "mqtt://h:99999", "mqtt://h:0", "mqtt://h/path", "mqtt://["]
)
def test_what_is_no_address_is_refused_with_a_sentence(url):
    with pytest.raises(ConfigError, match="is not the address of a broker"):
        BrokerAddress.parse(url)


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli.configure(parser)
    return parser.parse_args(words)


def write_broker(base: BaseDir, policy: str = "local") -> None:
    listeners = [
        {"name": "tls", "policy": "certificate", "host": "0.0.0.0", "port": 8883},
        {"name": policy, "policy": policy, "host": "127.0.0.1", "port": 4711},
    ]
    (base.run / "broker.json").write_text(json.dumps({"pid": 1, "fleet": "plant", "listeners": listeners}))


def test_the_instances_own_broker_is_found_and_logged_in_to(tmp_path):
    base = BaseDir.at(tmp_path)
    write_broker(base)
    config = settings_from(base, arguments())
    assert (str(config.broker), config.fleet) == ("127.0.0.1:4711", "plant")
    link = config.link()
    assert link.client_id == link.username == "station"
    assert link.password == local_password(load_or_create_secret(base.local_secret), "station")
    assert link.manual_ack
    assert link.receive_maximum >= 4000
    assert link.session_expiry_s >= 3600


def test_an_open_listener_gets_no_password(tmp_path):
    base = BaseDir.at(tmp_path)
    write_broker(base, "open")
    assert settings_from(base, arguments()).link().password is None


def test_the_local_password_is_not_shown_to_other_machines(tmp_path):
    base = BaseDir.at(tmp_path)
    load_or_create_secret(base.local_secret)
    assert settings_from(base, arguments("--broker", "mqtt://broker.example")).link().password is None
    assert settings_from(base, arguments("--broker", "mqtt://127.0.0.1")).link().password is not None


@pytest.mark.parametrize("text", ["{}", "[]", "nonsense", '{"fleet": "x", "listeners": []}'])
def test_a_damaged_note_of_the_broker_is_told(tmp_path, text):
    base = BaseDir.at(tmp_path)
    (base.run / "broker.json").write_text(text)
    with pytest.raises(ConfigError, match="does not say where the broker listens"):
        settings_from(base, arguments())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--broker", "mqtts://h"], "needs the authority's certificate"),
        (["--broker", "mqtt://h", "--ca", "x"], "without TLS"),
        (["--broker", "mqtts://h", "--ca", "nowhere.pem"], "nowhere.pem is not there"),
        (["--broker", "mqtts://h", "--ca", "x", "--cert", "y"], "belong together"),
        (["--broker", "mqtt://h", "--id", "a b"], "not a station id"),
        (["--broker", "mqtt://h", "--fleet", "a/b"], "not a fleet name"),
        (["--broker", "mqtt://h", "--beat", "0"], "makes no sense"),
    ],
)
def test_contradictions_are_told(tmp_path, words, sentence):
    with pytest.raises(ConfigError, match=sentence):
        settings_from(BaseDir.at(tmp_path), arguments(*words))


def test_thresholds_follow_the_speed_of_fleet_time(tmp_path):
    config = StationConfig(BaseDir.at(tmp_path), "sqlite:///x", BrokerAddress("h", 1))
    assert config.thresholds.rule(10.0, 1.0).interval_s == 10.0
    fast = config.thresholds.rule(10.0, 600.0)
    assert fast.interval_s * fast.late_after / 600.0 == pytest.approx(config.thresholds.floor_s)
    assert config.scaled_limit(1.0).per_second == config.limit.per_second
    assert config.scaled_limit(600.0).per_second == pytest.approx(600.0)


# ------------------------------------------------------------------------------------------------ operators


def wish_of(operator: Operator, /, **changed) -> Wish:
    given = {"id": "w1", "kind": "device.rename", "arguments": {"device": "d1", "name": "x"}, "at": 5.0}
    signature = sign_wish(operator, given["id"], given["kind"], given["arguments"], given["at"])
    return Wish(**{**given, "operator": operator.name, "signature": signature, **changed})


def test_the_local_operator_is_made_once_and_believed(tmp_path):
    base = BaseDir.at(tmp_path)
    operator = local_operator(base)
    assert local_operator(base).public_key == operator.public_key
    assert len(list(folder_of(base).glob("*.pub"))) == 1
    assert checker(base)(wish_of(operator)) is None


@pytest.mark.logs_warnings("a wish is refused")
@pytest.mark.parametrize(
    "changed",
    [
        {"arguments": {"device": "d2", "name": "x"}},
        {"kind": "device.remove"},
        {"id": "w2"},
        {"at": 6.0},
        {"operator": "somebody"},
        {"signature": b""},
        {"signature": b"x" * 64},
    ],
)
def test_whatever_is_changed_in_a_wish_it_is_refused(tmp_path, changed):
    base = BaseDir.at(tmp_path)
    operator = local_operator(base)
    assert checker(base)(wish_of(operator, **changed)) is not None


@pytest.mark.logs_warnings("a wish is refused")
def test_a_key_that_is_taken_away_counts_no_more(tmp_path):
    base = BaseDir.at(tmp_path)
    operator = local_operator(base)
    check = checker(base)
    assert check(wish_of(operator)) is None
    for path in folder_of(base).glob("*.pub"):
        path.unlink()
    assert "no operator" in check(wish_of(operator))


# ------------------------------------------------------------------------------------------------ counters


def test_rates_are_differences():
    rates = Rates(("received",))
    assert rates.since_last({"received": 5.0}, 10.0) == {"received_per_s": 0.0}
    assert rates.since_last({"received": 25.0}, 12.0) == {"received_per_s": 10.0}
    assert rates.since_last({"received": 5.0}, 13.0) == {"received_per_s": 0.0}


def test_the_lag_is_emptied_when_it_is_read():
    lag = Lag()
    lag.add([0.010] * 98 + [0.5] * 2)
    found = lag.drain()
    assert 7 < found["lag_p50_ms"] < 14
    assert 300 < found["lag_p99_ms"] < 700
    assert lag.drain() == {"lag_p50_ms": 0.0, "lag_p99_ms": 0.0}


# ------------------------------------------------------------------------------------------------ intake and limits


def test_messages_and_jobs_keep_their_order_and_the_queue_its_bounds(monkeypatch):
    monkeypatch.setattr("fleetui.station.ingest.intake.MOST", 6)
    counters = Counters()
    intake = Intake(ManualClock(), counters, 3)
    ran = []
    for i in range(3):
        intake.offer(Message(f"t{i}", b"", qos=1))
    intake.post(lambda: ran.append("job"))
    intake.offer(Message("beat", b"", qos=0))
    for i in range(3, 6):
        intake.offer(Message(f"t{i}", b"", qos=1))
    assert (counters.received, counters.dropped, counters.held) == (7, 1, 1)
    items = intake.take(10)
    assert [i.message.topic for i in items if isinstance(i, Arrival)] == ["t0", "t1", "t2", "t3", "t4"]
    items[3]()
    assert ran == ["job"]


def test_unconfirmed_reports_are_bounded_in_bytes_too(monkeypatch):
    monkeypatch.setattr("fleetui.station.ingest.intake.BYTES", 1000)
    counters = Counters()
    intake = Intake(ManualClock(), counters, 1000)
    for _ in range(30):
        intake.offer(Message("t", b"x" * 100, qos=0))
    intake.offer(Message("t", b"x" * 100, qos=1))
    assert (counters.dropped, counters.held, len(intake)) == (19, 0, 12)
    intake.take(100)
    intake.offer(Message("t", b"x" * 100, qos=0))
    assert counters.dropped == 19


def test_waiting_ends_with_a_message_a_job_or_the_close():
    intake = Intake(ManualClock(), Counters(), 10)
    assert intake.wait(0.01) is False
    for act in (lambda: intake.offer(Message("t", b"")), lambda: intake.post(lambda: None), intake.close):
        waiter = threading.Thread(target=intake.wait, args=(600.0,), daemon=True)
        waiter.start()
        wait_until(lambda: intake._waiting, what="somebody to wait")
        act()
        waiter.join(20.0)
        assert not waiter.is_alive(), "it waits for its time-out"
        intake.take(10)
    intake.offer(Message("t", b"", qos=1))
    assert len(intake) == 0


def test_no_wake_up_is_missed():
    """A producer at full speed, a consumer that waits each time: every message is found without a time-out."""
    intake = Intake(ManualClock(), Counters(), 1_000_000)
    count = 20_000

    def produce():
        for _ in range(count):
            intake.offer(Message("t", b""))

    thread = threading.Thread(target=produce)
    thread.start()
    got = 0
    while got < count:
        assert intake.wait(10.0)
        got += len(intake.take(100))
    thread.join()


def test_a_bucket_fills_with_time():
    limit = Limit(per_second=2.0, burst=3.0)
    bucket = Bucket(limit, 0.0)
    assert [bucket.take(limit, 0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(limit, 1.0) for _ in range(3)] == [True, True, False]
    assert [bucket.take(limit, 1000.0) for _ in range(4)] == [True, True, True, False]


# ------------------------------------------------------------------------------------------------ the lease


@pytest.fixture
def leased(tmp_path):
    clock = ManualClock()
    with Store.open(f"sqlite:///{tmp_path / 'x.db'}", clock=clock) as store:
        yield store, clock


def test_a_lease_is_renewed_lapses_and_is_taken_with_another_term(leased):
    store, clock = leased
    first, second = (Leadership(store, name, 6.0, clock) for name in ("a@h:1:x", "b@h:2:y"))
    assert first.tick()
    assert not second.tick()
    assert second.other == "a@h:1:x"
    for _ in range(10):
        clock.advance(2.0)
        assert first.tick()
        assert not second.tick()
    clock.advance(6.1)
    assert second.tick()
    assert second.term == first.term + 1
    with pytest.raises(FencedError):
        store.write(first.check)
    store.write(second.check)
    clock.advance(2.0)
    assert not first.tick()


def test_a_leader_whose_lease_lapsed_while_nobody_took_it_goes_on(leased):
    store, clock = leased
    leader = Leadership(store, "a@h:1:x", 6.0, clock)
    assert leader.tick()
    term = leader.term
    clock.advance(60.0)
    assert leader.tick()
    assert leader.term == term


def test_a_leader_that_was_away_while_another_led_begins_anew(leased):
    store, clock = leased
    first, second = (Leadership(store, name, 6.0, clock) for name in ("a@h:1:x", "b@h:2:y"))
    first.tick()
    clock.advance(7.0)
    second.tick()
    second.release()
    clock.advance(0.1)
    assert not first.tick(), "what it knows is out of date"
    assert first.tick()
    assert first.term == 3


def test_a_killed_leader_on_this_machine_is_followed_at_once(leased):
    store, clock = leased
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = run_name().split(":", maxsplit=1)[0]
    dead = Leadership(store, f"station@{host}:{gone.pid}:x", 600.0, clock)
    assert dead.tick()
    assert Leadership(store, "station@elsewhere:1:y", 6.0, clock).tick(), "its host and process are looked at"


@pytest.mark.parametrize(
    ("holder", "gone"),
    [
        (f"station@{run_name()}", False),
        (f"station@elsewhere:{2**22 + 1}:x", False),
        ("nonsense", False),
        ("", False),
        (f"station@{run_name().split(':', maxsplit=1)[0]}:{2**22 + 1}:x", True),
        (f"station@{run_name().split(':', maxsplit=1)[0]}:1:x", False),
    ],
)
def test_who_is_gone(holder, gone):
    assert is_gone(holder) is gone


# ------------------------------------------------------------------------------------------------ command line


def test_the_command_line_says_what_is_wrong(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fleetui.station", "--base-dir", str(tmp_path), "--broker", "http://x"],
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip().endswith(
        "'http://x' is not the address of a broker. Write it as mqtt://HOST:PORT or mqtts://HOST:PORT."
    )
    assert done.stdout == ""
