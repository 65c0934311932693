"""What outlives a crash: everything that was acknowledged, whatever happens to the files' tails."""

from __future__ import annotations

import errno
import os
import random
import shutil
import zlib

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleetui.broker import journal, packets
from fleetui.broker.journal import MAGIC, Journal
from fleetui.broker.packets import Kind, Publish, Request
from fleetui.broker.wire import Property
from fleetui.common.domain.clock import ManualClock
from fleetui.common.domain.errors import StoreError
from tests.broker.world import World

UP = "fleet/test/up/dev1/win"
DOWN = "fleet/test/down/dev1/ask"


def frames(folder) -> list[bytes]:
    reader = Journal(folder)
    found = list(reader.read())
    reader.close()
    return found


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("fsync", [False, True])
def test_frames_come_back(tmp_path, fsync):
    first = Journal(tmp_path, fsync=fsync)
    assert list(first.read()) == []
    first.add(b"one", b"two")
    assert first.commit()
    first.add(b"three")
    assert first.commit()
    assert first.commit(), "nothing to do is done"
    assert first.begin_snapshot()
    assert first.write_snapshot(b"all of it")
    first.add(b"four")
    assert first.commit()
    first.finish_snapshot()
    first.add(b"never committed")
    first.close()
    assert frames(tmp_path) == [b"all of it", b"four"]
    assert len(list(tmp_path.iterdir())) == 2


def written(folder) -> bytes:
    writer = Journal(folder)
    list(writer.read())
    for i in range(5):
        writer.add(b"frame %d" % i * (i + 1))
        writer.commit()
    writer.close()
    return (folder / "journal-00000000.log").read_bytes()


@pytest.mark.logs_warnings("is damaged")
def test_a_file_cut_anywhere_gives_what_was_whole(tmp_path):
    data = written(tmp_path)
    whole = frames(tmp_path)
    path = tmp_path / "journal-00000000.log"
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        found = frames(tmp_path)
        assert found == whole[: len(found)]
        ends = len(MAGIC) + sum(8 + len(f) for f in found)
        assert path.stat().st_size == max(ends, len(MAGIC)), "the rest is cut off"
        assert cut < len(data) or found == whole


@pytest.mark.logs_warnings("is damaged")
def test_a_flipped_bit_ends_the_reading_there(tmp_path):
    data = written(tmp_path)
    whole = frames(tmp_path)
    path = tmp_path / "journal-00000000.log"
    for at in range(len(MAGIC), len(data)):
        bent = bytearray(data)
        bent[at] ^= 0x10
        path.write_bytes(bent)
        reader = Journal(tmp_path)
        found = list(reader.read())
        assert found == whole[: len(found)]
        assert len(found) < len(whole)
        assert reader.damaged > 0
        reader.add(b"goes on")
        assert reader.commit()
        reader.close()
        assert frames(tmp_path) == [*found, b"goes on"], "what is written now can be read"


def test_a_newer_format_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "journal-00000000.log"
    path.write_bytes(b"FleetUI broker journal 2\n" + b"something new")
    with pytest.raises(StoreError, match="newer"):
        list(Journal(tmp_path).read())
    assert path.read_bytes().endswith(b"something new")


@pytest.mark.logs_warnings("is damaged")
def test_something_else_entirely_is_left_out(tmp_path):
    (tmp_path / "journal-00000000.log").write_bytes(b"\0" * 5000)
    (tmp_path / "notes.txt").write_text("not ours")
    assert frames(tmp_path) == []
    assert (tmp_path / "notes.txt").read_text() == "not ours"


@pytest.mark.logs_warnings("is damaged")
def test_a_length_that_cannot_be_allocates_nothing(tmp_path):
    path = tmp_path / "journal-00000000.log"
    path.write_bytes(MAGIC + b"\xff\xff\xff\xff" + zlib.crc32(b"").to_bytes(4, "big"))
    reader = Journal(tmp_path)
    assert list(reader.read()) == []
    reader.close()


# ---------------------------------------------------------------- a broker on them


def test_everything_kept_is_there_again(tmp_path):
    world = World(tmp_path)
    station = world.station(expiry=1000)
    station.subscribe(Request("fleet/test/up/+/+", 2, retain_as_published=True), identifier=9)
    station.subscribe("$share/g/x")
    station.disconnect()
    device = world.client("dev1")
    device.publish(UP, b"one", qos=1, retain=True, user_property=[("k", "v")], message_expiry=500)
    device.publish(UP, b"two", qos=2)
    device.publish(UP, b"gone", qos=0)
    world.advance(100)
    world = world.crash()
    back = world.station(clean=False, expiry=1000)
    assert back.connack.session_present
    one, two = back.messages()
    assert (one.payload, one.qos, one.retain) == (b"one", 1, True)
    assert one.properties == {
        Property.USER_PROPERTY: [("k", "v")],
        Property.MESSAGE_EXPIRY: 400,
        Property.SUBSCRIPTION_ID: [9],
    }
    assert (two.payload, two.qos) == (b"two", 2)
    assert set(world.core.sessions["station"].subscriptions) == {"fleet/test/up/+/+", "$share/g/x"}
    world.client("dev1").publish(UP, b"live", qos=1)
    assert back.payloads() == [b"live"]
    assert world.core.retained.get(UP.encode()).payload == b"one"
    world = world.crash()
    assert not world.station(clean=False, expiry=1000).messages(), "acknowledged is acknowledged"
    world.state.close()


def test_sessions_that_end_with_their_connection_leave_nothing(tmp_path):
    world = World(tmp_path)
    device = world.client("dev1")
    device.subscribe("fleet/test/down/dev1/+")
    world.station().publish(DOWN, b"x", qos=1)
    size = world.journal.size
    world = world.crash()
    assert size == len(MAGIC)
    assert not world.core.sessions
    world.state.close()


def test_qos2_goes_on_where_it_was(tmp_path):
    world = World(tmp_path)
    device = world.client("dev1", expiry=1000)
    device.subscribe(Request("fleet/test/down/dev1/+", 2))
    station = world.station(expiry=1000)
    for name in (b"sent", b"received"):
        station.publish(DOWN, name, qos=2)
    sent, received = device.messages(ack=False)
    device.send(packets.encode_ack(Kind.PUBREC, received.packet_id))
    station.send(Publish(DOWN, b"inbound", 2, packet_id=77).encode(5))
    device.received()
    world = world.crash()
    device = world.client("dev1", clean=False, expiry=1000)
    got = [*device._early, *device.received()]
    device._early.clear()
    again = [p for p in got if isinstance(p, Publish)]
    assert [(m.payload, m.packet_id, m.duplicate) for m in again] == [
        (b"sent", sent.packet_id, True),
        (b"inbound", again[1].packet_id, True),
    ], "the receiver tells by the packet id that it has it already"
    assert (Kind.PUBREL, received.packet_id.to_bytes(2, "big")) in got
    station = world.station(clean=False, expiry=1000)
    station.send(Publish(DOWN, b"inbound", 2, True, True, 77).encode(5))
    assert not device.messages(), "the publisher's repetition is one"
    world.state.close()


def test_sessions_go_on_expiring(tmp_path):
    world = World(tmp_path)
    world.client("dev1", expiry=50).disconnect()
    world.client("dev2", expiry=50)  # connected when the broker dies: its time begins at the restart
    world.advance(30)
    world = world.crash()
    world.advance(25)
    assert set(world.core.sessions) == {"dev2"}
    world.advance(30)
    assert not world.core.sessions
    world = world.crash()
    assert not world.core.sessions
    world.state.close()


def test_cleared_and_replaced_retained_messages_stay_so(tmp_path):
    world = World(tmp_path)
    station = world.station()
    for topic, payload in (("a", b"1"), ("b", b"1"), ("a", b"2"), ("b", b"")):
        station.publish(topic, payload, retain=True)
    world.core.announce("$SYS/broker/x", b"not kept", retain=True)
    world = world.crash()
    assert {t: world.core.retained.get(t).payload for t in world.core.retained.topics()} == {b"a": b"2"}
    world.state.close()


# ---------------------------------------------------------------- snapshots


def test_snapshots_bound_the_files(tmp_path):
    world = World(tmp_path, floor=200_000)
    station = world.station(expiry=1000)
    station.subscribe("fleet/test/up/+/+")
    device = world.client("dev1")
    for i in range(2000):
        device.publish(UP, b"x" * 1000, qos=1)
        station.messages()
        if i % 50 == 0:
            world.advance(0.1)
    world.advance(5)
    assert world.state.snapshots >= 3
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 1_000_000
    assert len(list(tmp_path.glob("*.log"))) <= 2
    world.state.close()


def test_a_snapshot_in_the_middle_of_work_misses_nothing(tmp_path):
    """Slices are written between messages that come, are acknowledged, are retained and cleared."""
    dice = random.Random(5)
    world = World(tmp_path, floor=30_000, queue_messages=100_000, queue_bytes=1 << 30)
    station = world.station()
    device = world.client("dev1", expiry=10_000)
    device.subscribe(Request("fleet/test/down/dev1/+", 2))
    waiting: list[bytes] = []
    retained: dict[str, bytes] = {}
    online = True
    for i in range(3000):
        payload = b"%d" % i + b"." * dice.randrange(400)
        if dice.random() < 0.6:
            station.publish(DOWN, payload, qos=dice.choice((1, 2)))
            if not online:
                waiting.append(payload)
        else:
            topic = f"kept/{dice.randrange(40)}"
            payload = payload if dice.random() < 0.7 else b""
            station.publish(topic, payload, qos=1, retain=True)
            retained[topic] = payload
        if dice.random() < 0.02:
            if online:
                device.messages()
                device.vanish()
            else:
                device = world.client("dev1", clean=False, expiry=10_000)
                assert device.payloads() == waiting
                waiting = []
            online = not online
        elif online:
            device.messages()
        if dice.random() < 0.3:
            world.loop.advance(0.005)  # one slice
        if dice.random() < 0.01:
            world = world.crash(floor=30_000, queue_messages=100_000, queue_bytes=1 << 30)
            station = world.station()
            online = False
    assert world.state.snapshots or len(list(tmp_path.glob("snapshot-*.log"))) == 1
    world = world.crash()
    kept = {t.decode(): world.core.retained.get(t).payload for t in world.core.retained.topics()}
    assert kept == {topic: payload for topic, payload in retained.items() if payload}
    assert world.client("dev1", clean=False, expiry=10_000).payloads() == waiting
    world.state.close()


def test_no_slice_is_much_larger_than_its_measure(tmp_path):
    """Hundreds of large blobs: no single turn writes more than one of them beyond a slice."""
    world = World(tmp_path, floor=1_000_000)
    station = world.station()
    sizes: list[int] = []
    write = world.journal.write_snapshot
    world.journal.write_snapshot = lambda records: (sizes.append(len(records)), write(records))[1]
    for i in range(60):
        station.publish(f"fleet/test/blob/{i}", bytes(200_000), retain=True)
        world.turn()
    world.advance(10)
    assert world.state.snapshots >= 1
    assert max(sizes) < 128 * 1024 + 200_000 + 1000
    world = world.crash()
    assert len(world.core.retained) == 60
    world.state.close()


@pytest.mark.parametrize("stage", ["new journal", "half a snapshot", "renamed"])
def test_a_crash_at_any_stage_of_a_snapshot(tmp_path, stage):
    world = World(tmp_path, floor=100_000)
    station = world.station()
    for i in range(30):
        station.publish(f"t/{i}", b"%d" % i * 2000, retain=True)
    world.turn()
    assert world.journal.snapshotting
    if stage == "half a snapshot":
        world.loop.advance(0.005)
        assert world.journal.snapshotting or world.state.snapshots
    elif stage == "renamed":
        world.advance(5)
        assert not world.journal.snapshotting
    station.publish("t/0", b"after", retain=True)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tmp_path.glob("*.*"):
        shutil.copy(path, copy)
    world.state.close()
    again = World(copy)
    assert len(again.core.retained) == 30
    assert again.core.retained.get(b"t/0").payload == b"after"
    assert not list(copy.glob("*.new"))
    again.state.close()


# ---------------------------------------------------------------- a full disk


class FullDisk:
    """Writes fail, some half-way, until there is room again."""

    def __init__(self, monkeypatch) -> None:
        self.full = False
        self._write = os.write
        monkeypatch.setattr(journal.os, "write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        if not self.full:
            return self._write(fd, data)
        if len(data) > 10:
            return self._write(fd, data[:5])
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.logs_warnings("journal")
def test_on_a_full_disk_nothing_is_acknowledged_and_nothing_lost(tmp_path, monkeypatch):
    disk = FullDisk(monkeypatch)
    world = World(tmp_path)
    world.station(expiry=1000).subscribe("fleet/test/up/+/+")
    states: list[bool] = []
    world.core.on_stalled = lambda: states.append(world.core.stalled)
    device = world.client("dev1")
    assert device.publish(UP, b"before", qos=1) == 0
    disk.full = True
    device.send(Publish(UP, b"during", 1, packet_id=5).encode(5))
    assert not device.received(), "no acknowledgement for what is not written"
    assert world.core.stalled
    device.send(Publish(UP, b"more", 1, packet_id=6).encode(5))
    assert not device.transport.reading, "who publishes is not read any further"
    world.advance(5)
    assert not device.received()
    disk.full = False
    world.advance(2)
    assert [kind for kind, _ in device.received()] == [Kind.PUBACK, Kind.PUBACK]
    assert device.transport.reading
    assert states == [True, False]
    world = world.crash()
    assert world.station(clean=False, expiry=1000).payloads() == [b"before", b"during", b"more"]
    world.state.close()


@pytest.mark.logs_warnings("journal")
def test_a_slowed_client_goes_on_after_a_full_disk(tmp_path, monkeypatch):
    """Its turn came while nothing could be written: it must not be forgotten."""
    disk = FullDisk(monkeypatch)
    world = World(tmp_path, publishes_per_s=10, publish_burst=2)
    station = world.station(expiry=1000)
    station.subscribe("fleet/test/up/+/+")
    device = world.client("dev1")
    disk.full = True
    device.feed(b"".join(Publish(UP, b"%d" % i, 1, packet_id=i + 1).encode(5) for i in range(20)))
    world.advance(5)
    assert not device.received()
    disk.full = False
    world.advance(10)
    assert device.transport.reading
    assert len(device.received()) == 20
    assert station.payloads() == [b"%d" % i for i in range(20)]
    world.state.close()


@pytest.mark.logs_warnings("could not be shortened")
def test_a_snapshot_without_room_is_given_up_and_tried_again(tmp_path, monkeypatch):
    world = World(tmp_path, floor=50_000)
    real = journal.os.open
    fail = [True]

    def opening(path, *arguments):
        if fail[0] and str(path).endswith(".new"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *arguments)

    monkeypatch.setattr(journal.os, "open", opening)
    station = world.station()
    for i in range(200):
        station.publish("t", b"%d" % i * 300, retain=True)
    assert world.state.snapshots == 0
    fail[0] = False
    for i in range(200):
        station.publish("t", b"%d" % i * 300, retain=True)
        world.advance(0.01)
    assert world.state.snapshots >= 1
    world = world.crash()
    assert world.core.retained.get(b"t").payload == b"199" * 300
    world.state.close()


# ---------------------------------------------------------------- any history


class Crashing(RuleBasedStateMachine):
    """One kept session and some retained topics through publishing, leaving, returning, snapshots and crashes.

    The model: a list of what has to come next, and a dictionary of what is retained.
    """

    def __init__(self) -> None:
        super().__init__()
        import tempfile
        from pathlib import Path

        self.folder = Path(tempfile.mkdtemp())
        self.clock = ManualClock()
        self.options = {"floor": 2_000}
        self.world = World(self.folder, clock=self.clock, **self.options)
        self.number = 0
        self.waiting: list[bytes] = []
        self.retained: dict[str, bytes] = {}
        self.device = None
        self.come(clean=True)
        self.device.subscribe(Request("fleet/test/down/dev1/+", 2))

    def come(self, *, clean: bool) -> None:
        self.device = self.world.client("dev1", clean=clean, expiry=100_000)

    @property
    def station(self):
        session = self.world.core.sessions.get("station")
        if session is None or not session.online:
            self._station = self.world.station()
        return self._station

    @rule(qos=st.sampled_from([1, 2]), size=st.integers(0, 600))
    def publish(self, qos, size):
        self.number += 1
        payload = b"%d." % self.number + b"x" * size
        assert self.station.publish(DOWN, payload, qos=qos) == 0
        self.waiting.append(payload)

    @rule(topic=st.sampled_from("abc"), size=st.integers(0, 600))
    def retain(self, topic, size):
        payload = b"y" * size
        self.station.publish(topic, payload, qos=1, retain=True)
        if payload:
            self.retained[topic] = payload
        else:
            self.retained.pop(topic, None)

    @precondition(lambda self: self.device is not None)
    @rule()
    def take(self):
        assert self.device.payloads() == self.waiting
        self.waiting = []

    @precondition(lambda self: self.device is not None)
    @rule()
    def leave(self):
        self.device.vanish()
        self.device = None

    @precondition(lambda self: self.device is None)
    @rule()
    def come_back(self):
        self.come(clean=False)
        assert self.device.connack.session_present

    @rule(seconds=st.sampled_from([0.004, 0.05, 1.0]))
    def time_passes(self, seconds):
        self.world.loop.advance(seconds)

    @rule()
    def crash(self):
        self.world = self.world.crash(**self.options)
        self.device = None

    @invariant()
    def retained_is_right(self):
        core = self.world.core
        assert {t.decode(): core.retained.get(t).payload for t in core.retained.topics()} == self.retained

    def teardown(self):
        self.world = self.world.crash()
        self.come(clean=False)
        assert self.device.payloads() == self.waiting
        self.world.state.close()
        shutil.rmtree(self.folder)


TestCrashing = Crashing.TestCase
TestCrashing.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
