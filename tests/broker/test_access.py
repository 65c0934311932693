"""Who may what: the matrix of topics, policies, wills, takeovers, and what retained messages must not do."""

from __future__ import annotations

import pytest

from fleetui.broker import handshake
from fleetui.broker.packets import V3, V5, Request
from fleetui.broker.wire import Property, Reason
from fleetui.common.trust.local import local_password
from tests.broker.world import SECRET, World

pytestmark = pytest.mark.logs_warnings("Denied: ")

ROOT = "fleet/test"


@pytest.fixture
def world():
    return World()


# ---------------------------------------------------------------- topics

DEVICE_MAY_PUBLISH = [f"{ROOT}/up/dev1/beat", f"{ROOT}/up/dev1/a/b/c", f"{ROOT}/up/dev1/"]
DEVICE_MAY_NOT_PUBLISH = [
    f"{ROOT}/up/dev2/beat",
    f"{ROOT}/up/dev1",
    f"{ROOT}/up/dev11/beat",
    f"{ROOT}/up/dev1beat",
    f"{ROOT}/down/dev1/desired",
    f"{ROOT}/down/dev2/desired",
    f"{ROOT}/trust/root.json",
    f"{ROOT}/blob/{'a' * 64}",
    "fleet/other/up/dev1/beat",
    "beat",
    "/fleet/test/up/dev1/beat",
    "$SYS/broker/uptime",
    "$CONTROL/kick",
    "$share/g/fleet/test/up/dev1/beat",
]
DEVICE_MAY_READ = [
    f"{ROOT}/down/dev1/#",
    f"{ROOT}/down/dev1/+",
    f"{ROOT}/down/dev1/desired",
    f"{ROOT}/trust/#",
    f"{ROOT}/trust/root.json",
    f"{ROOT}/blob/{'a' * 64}",
]
DEVICE_MAY_NOT_READ = [
    "#",
    "+",
    "+/+/down/dev1/#",
    f"{ROOT}/#",
    f"{ROOT}/+/dev1/#",
    f"{ROOT}/down/#",
    f"{ROOT}/down/+/desired",
    f"{ROOT}/down/dev2/#",
    f"{ROOT}/down/dev11/#",
    f"{ROOT}/down/dev1",
    f"{ROOT}/up/dev1/beat",
    f"{ROOT}/up/+/gone",
    f"{ROOT}/blob/#",
    f"{ROOT}/blob/+",
    f"{ROOT}/blob/",
    f"{ROOT}/blob/{'a' * 64}/#",
    f"{ROOT}/blob/{'a' * 64}/x",
    "fleet/other/down/dev1/#",
    "$SYS/#",
    "$SYS/broker/uptime",
    "$CONTROL/#",
    f"$share/g/{ROOT}/down/dev1/#",
    f"$share/g/{ROOT}/trust/#",
]


@pytest.mark.parametrize("version", [V3, V5])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("topic", DEVICE_MAY_NOT_PUBLISH)
def test_device_may_not_publish(world, topic, qos, version):
    everything = world.client("all", policy="open")
    everything.subscribe("#")
    device = world.client("dev1", version=version)
    answer = device.publish(topic, b"forged", qos=qos, retain=True)
    if qos:
        assert answer == (Reason.NOT_AUTHORISED if version == V5 else 0)
    assert not device.ended, "3.1.1 has no way to say no: it is acknowledged, dropped and counted"
    assert not everything.messages()
    assert len(world.core.retained) == 0
    assert world.core.counters.denied_publish == 1


@pytest.mark.parametrize("topic", DEVICE_MAY_PUBLISH)
def test_device_may_publish(world, topic):
    station = world.station()
    station.subscribe("#")
    assert world.client("dev1").publish(topic, b"x", qos=1) == 0
    assert [m.topic for m in station.messages()] == [topic]


@pytest.mark.parametrize("version", [V3, V5])
@pytest.mark.parametrize("text", DEVICE_MAY_NOT_READ)
def test_device_may_not_read(world, text, version):
    station = world.station()
    topics = [
        f"{ROOT}/down/dev2/desired",
        f"{ROOT}/up/dev1/beat",
        f"{ROOT}/blob/{'a' * 64}",
        "x",
        f"{ROOT}/down/dev1/a",
    ]
    for topic in topics:
        station.publish(topic, b"retained", retain=True)
    device = world.client("dev1", version=version)
    assert device.subscribe(Request(text, 1)) == [Reason.NOT_AUTHORISED if version == V5 else 0x80]
    for topic in topics:
        station.publish(topic, b"live", qos=1)
    assert not device.messages(), "neither retained nor live"
    assert world.core.counters.denied_subscribe == 1
    assert world.core.index.count == 0


@pytest.mark.parametrize("text", DEVICE_MAY_READ)
def test_device_may_read(world, text):
    assert world.client("dev1").subscribe(text) == [1]


def test_one_denied_filter_does_not_spoil_the_others(world):
    device = world.client("dev1")
    assert device.subscribe(f"{ROOT}/down/dev2/#", f"{ROOT}/down/dev1/#", "a/#/b") == [
        Reason.NOT_AUTHORISED,
        1,
        Reason.BAD_TOPIC_FILTER,
    ]


def test_station_reads_and_writes_everything(world):
    station = world.station()
    assert station.subscribe("#", f"{ROOT}/blob/#", "$SYS/#", "$CONTROL/#", f"$share/g/{ROOT}/up/#") == [1] * 5
    for topic in (f"{ROOT}/down/dev1/desired", f"{ROOT}/trust/root.json", "anything"):
        assert station.publish(topic, b"", qos=1) == 0
    assert station.publish("$SYS/broker/uptime", b"1", qos=1) == Reason.NOT_AUTHORISED
    assert station.publish("$CONTROL/nothing-of-the-kind", b"", qos=1) == Reason.BAD_TOPIC


def test_other_names_are_no_stations(world):
    for name in ("Station", "station2", "station."):
        assert world.client(name).subscribe("#") == [Reason.NOT_AUTHORISED]
    world = World(stations=("station", "ingest-2"))
    assert world.client("ingest-2").subscribe("#") == [1]


# ---------------------------------------------------------------- policies


@pytest.mark.parametrize(
    ("client_id", "username", "password", "reason"),
    [
        ("dev1", None, "dev1", 0),
        ("dev1", "dev1", "dev1", 0),
        ("dev1", "", "dev1", 0),
        ("dev1", "dev2", "dev1", Reason.BAD_CREDENTIALS),
        ("dev1", "dev1", "dev2", Reason.BAD_CREDENTIALS),
        ("dev1", "station", "station", Reason.BAD_CREDENTIALS),
        ("station", "dev1", "dev1", Reason.BAD_CREDENTIALS),
        ("dev1", "dev1", None, Reason.BAD_CREDENTIALS),
        ("", None, "", Reason.BAD_CLIENT_ID),
        ("a/b", None, "a/b", Reason.BAD_CLIENT_ID),
        ("+", None, "+", Reason.BAD_CLIENT_ID),
        ("x" * 65, None, "x" * 65, Reason.BAD_CLIENT_ID),
    ],
)
def test_local_policy(world, client_id, username, password, reason):
    client = world.socket("local")
    secret = None if password is None else local_password(SECRET, password).encode()
    client.connect(handshake.Connect(client_id, username=username, password=secret))
    assert client.connack.reason == reason
    assert client.ended == bool(reason)
    assert bool(world.core.sessions) == (not reason)


@pytest.mark.parametrize(
    ("subject", "client_id", "username", "reason"),
    [
        ("dev1", "dev1", None, 0),
        ("dev1", "dev1", "dev1", 0),
        ("dev1", "dev2", None, Reason.BAD_CLIENT_ID),
        ("dev1", "station", None, Reason.BAD_CLIENT_ID),
        ("dev1", "", None, Reason.BAD_CLIENT_ID),
        ("dev1", "dev1", "station", Reason.BAD_CREDENTIALS),
        ("a/b", "a/b", None, Reason.NOT_AUTHORISED),
        (None, "dev1", None, Reason.NOT_AUTHORISED),
    ],
)
def test_certificate_policy(world, subject, client_id, username, reason):
    client = world.socket("certificate", subject=subject)
    client.connect(handshake.Connect(client_id, username=username))
    assert client.connack.reason == reason


def test_a_certificate_of_two_names_is_nobodys(world):
    client = world.socket("certificate")
    names = {"subject": ((("commonName", "dev1"),), (("commonName", "station"),)), "serialNumber": "01"}
    client.connection.listener.certificate = lambda _: names
    client.connect(handshake.Connect("station"))
    assert client.connack.reason == Reason.NOT_AUTHORISED


def test_a_revoked_certificate_is_refused_even_if_tls_let_it_in(world):
    client = world.socket("certificate", subject="dev1")
    client.connection.listener.revoked = frozenset({"A1B"})
    client.connect(handshake.Connect("dev1"))
    assert client.connack.reason == Reason.BANNED


def test_v3_is_told_in_its_own_codes(world):
    client = world.socket("local", version=V3)
    client.connect(handshake.Connect("dev1", version=V3, username="dev1", password=b"wrong"))
    assert client.connack.reason == 4
    client = world.socket("certificate", version=V3, subject="a")
    client.connect(handshake.Connect("b", version=V3))
    assert client.connack.reason == 2


# ---------------------------------------------------------------- wills and takeovers


@pytest.mark.parametrize(
    "topic", [f"{ROOT}/up/dev2/gone", f"{ROOT}/down/dev1/desired", "$SYS/x", "$CONTROL/kick", "a/#", "x"]
)
def test_a_will_where_one_may_not_write_is_refused(world, topic):
    client = world.client("dev1", will=handshake.Will(topic, b"x", 1, True))
    assert client.connack.reason in {Reason.NOT_AUTHORISED, Reason.BAD_TOPIC}
    assert client.ended
    assert not world.core.sessions


def test_not_even_a_station_may_leave_a_command_as_will(world):
    assert world.station(will=handshake.Will("$CONTROL/kick", b"dev1")).connack.reason == Reason.NOT_AUTHORISED


def test_only_the_same_proven_identity_takes_over(world):
    first = world.client("dev1", expiry=100)
    first.subscribe(f"{ROOT}/down/dev1/+")
    world.station().publish(f"{ROOT}/down/dev1/ask", b"secret", qos=1)
    thief = world.client("dev1", policy="open", clean=False, expiry=100)
    assert thief.connack.reason == Reason.NOT_AUTHORISED
    assert not first.ended
    assert not thief.messages()
    # The same person by another door is the same person.
    certified = world.socket("certificate", subject="dev1")
    certified.connect(handshake.Connect("dev1", clean=False, properties={Property.SESSION_EXPIRY: 100}))
    assert certified.connack.session_present
    assert certified.payloads() == [b"secret"]
    assert first.goodbye == Reason.TAKEN_OVER


def test_nobody_proven_takes_over_from_somebody_anonymous(world):
    world.client("dev1", policy="open", expiry=100).disconnect()
    assert world.client("dev1", clean=False).connack.reason == Reason.NOT_AUTHORISED


def test_a_kept_session_does_not_outlive_its_rights(tmp_path):
    world = World(tmp_path, stations=("station", "spare"))
    spare = world.client("spare", expiry=1000)
    spare.subscribe("#")
    spare.disconnect()
    world.station().publish(f"{ROOT}/down/dev1/ask", b"secret", qos=1)
    world.turn()
    world = world.crash(stations=("station",))
    back = world.client("spare", clean=False, expiry=1000)
    assert not back.connack.session_present
    assert not back.messages()
    world.state.close()


# ---------------------------------------------------------------- what is said about it


def test_denials_are_logged_once_each_and_not_without_end(world, caplog):
    device = world.client("dev1")
    for _ in range(20):
        device.publish(f"{ROOT}/up/dev2/x", b"", qos=0)
    assert sum("may not publish" in r.getMessage() for r in caplog.records) == 1
    for i in range(500):
        device.publish(f"{ROOT}/up/other{i}/x", b"", qos=0)
    assert sum("may not publish" in r.getMessage() for r in caplog.records) <= 60
    assert world.core.counters.denied_publish == 520
