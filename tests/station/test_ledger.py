import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetui.common.domain.presence import PresenceRule
from fleetui.common.domain.states import Lifecycle, Presence
from fleetui.common.link.codec import encode
from fleetui.station.counters import Counters
from fleetui.station.health.presence import PresenceBook
from fleetui.station.ingest.ledger import EACH_AT_MOST, Ledger, Rules
from fleetui.station.ingest.limits import Limit
from fleetui.station.ingest.sampler import Sampler
from fleetui.store.records import FLEET_METRICS, DeviceRow
from tests.helpers.station import NOW, Speaker


class Books:
    """A ledger with its time: one call each for what the station's threads do."""

    def __init__(self, **rules) -> None:
        self.counters = Counters()
        self.presence = PresenceBook(PresenceRule(10.0))
        self.ledger = Ledger(Rules("test", **rules), self.presence, Sampler(10.0), self.counters, "run1")
        self.now = NOW
        self.presence.listen(NOW)
        self.batches = []

    def hear(self, speaker: Speaker, message, *, retained=False):
        topic, payload = speaker.wire(message)
        self.raw(topic, payload, retained=retained)

    def raw(self, topic: str, payload: bytes, *, retained=False):
        self.ledger.receive(topic, payload, self.now, self.now - NOW, retained=retained)

    def wait(self, seconds: float):
        self.now += seconds
        self.ledger.judge(self.now, self.now - NOW)

    def commit(self):
        batch, stored = self.ledger.collect()
        self.counters.stored += stored
        self.batches.append(batch)
        return batch

    def row(self, device="d1") -> DeviceRow:
        return self.ledger.row(device)


@pytest.fixture
def books() -> Books:
    return Books()


def test_a_birth_makes_a_device(books):
    speaker = Speaker()
    books.hear(speaker, speaker.birth())
    batch = books.commit()
    assert batch.devices["d1"].status == "online"
    assert batch.devices["d1"].lifecycle == "accepted"
    assert batch.counters == {"decoded": 1}
    assert books.counters.stored == 1
    assert books.ledger.to_ask == []


def test_several_reports_of_a_device_are_one_row_in_a_batch(books):
    speaker = Speaker()
    for message in (speaker.birth(), speaker.beat(), speaker.window(), speaker.event(), speaker.beat(NOW + 1)):
        books.hear(speaker, message)
    batch = books.commit()
    assert len(batch.devices) == 1
    assert (len(batch.samples), len(batch.windows), len(batch.events)) == (2, 1, 1)
    assert books.counters.stored == 5
    assert books.commit().devices == {}


def test_a_device_that_never_introduced_itself_is_asked_to(books):
    speaker = Speaker()
    books.hear(speaker, speaker.beat())
    books.hear(speaker, speaker.beat())
    assert books.ledger.to_ask == ["d1"]
    assert books.row().cpu == 0.2


def test_duplicates_are_counted_and_change_nothing_else(books):
    speaker = Speaker()
    beat = speaker.beat(rows=5)
    books.hear(speaker, speaker.birth())
    books.hear(speaker, beat)
    before = books.row()
    books.commit()
    books.hear(speaker, beat)
    batch = books.commit()
    assert books.row() == replace(before, duplicates=1)
    assert (batch.samples, books.counters.duplicates, books.counters.stored) == ([], 1, 2)


def test_gaps_become_losses_with_time_and_late_reports_take_them_back(books):
    speaker = Speaker()
    books.hear(speaker, speaker.birth())
    skipped = speaker.window()
    books.hear(speaker, speaker.beat())
    assert books.row().lost == 0
    books.wait(31)
    books.hear(speaker, speaker.beat(books.now))
    assert books.row().lost == 1
    books.hear(speaker, skipped)
    assert (books.row().lost, books.counters.lost, books.counters.late) == (0, 0, 1)


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("fleet/test/up/d1/nonsense", b"", "topic"),
        ("fleet/other/up/d1/beat", b"", "topic"),
        ("fleet/test/up/d1/capture", b"", "topic"),
        ("", b"", "topic"),
        ("fleet/test/up/d1/beat", b"", "undecodable"),
        ("fleet/test/up/d1/beat", b"\xc1" * 10, "undecodable"),
        ("fleet/test/up/d1/beat", b"x" * 9000, "oversized"),
        ("fleet/test/up/d1/beat", encode(Speaker("d2").beat()), "forged"),
        ("fleet/test/up/d1/beat", encode(Speaker().beat(v=9)), "schema"),
        ("fleet/test/up/d1/beat", encode(Speaker().beat(cpu=math.inf)), "range"),
        ("fleet/test/up/d1/gone", encode(Speaker().gone()), "unknown_device"),
    ],
)
def test_what_is_wrong_is_counted_by_reason_and_kept_as_a_sample(books, topic, payload, reason):
    books.raw(topic, payload)
    batch = books.commit()
    assert books.counters.reasons == {reason: 1}
    assert batch.devices == {}
    [kept] = batch.rejected
    assert (kept.reason, kept.size, kept.payload) == (reason, len(payload), payload[:512])
    assert batch.counters["rejected"] == 1


def test_a_known_device_is_told_how_much_of_it_was_refused(books):
    speaker = Speaker()
    books.hear(speaker, speaker.birth())
    books.raw("fleet/test/up/d1/beat", b"junk")
    assert books.row().rejected == 1


def test_a_bug_costs_one_message(books, monkeypatch, caplog):
    speaker = Speaker()
    books.hear(speaker, speaker.birth())
    with monkeypatch.context() as patch, caplog.at_level("CRITICAL", logger="fleetui.station"):
        patch.setattr("fleetui.station.ingest.ledger.fold", lambda *_: 1 / 0)
        books.hear(speaker, speaker.beat())
    books.hear(speaker, speaker.beat())
    assert books.counters.reasons == {"internal": 1}
    assert "ZeroDivisionError" in books.commit().rejected[0].detail
    assert books.counters.stored == 2


def test_what_the_broker_kept_from_before_is_no_news(books):
    speaker = Speaker()
    books.hear(speaker, speaker.birth(), retained=True)
    assert books.counters.reasons == {"stale": 1}
    assert len(books.ledger) == 0


def test_turned_away_and_retired_devices_are_refused_before_decoding(books):
    for i, lifecycle in enumerate((Lifecycle.REJECTED, Lifecycle.DECOMMISSIONED)):
        speaker = Speaker(f"d{i}")
        books.hear(speaker, speaker.birth())
        books.ledger.set_lifecycle(f"d{i}", lifecycle)
        decoded = books.counters.decoded
        books.hear(speaker, speaker.beat())
        assert books.counters.decoded == decoded
        assert books.counters.reasons["unknown_device"] == i + 1
        assert books.row(f"d{i}").status == "unknown"
    books.wait(1000)
    assert books.presence.counts.total() == 0


def test_a_device_that_waits_for_a_person_may_only_introduce_itself():
    books = Books(admit=Lifecycle.PENDING)
    speaker = Speaker()
    books.hear(speaker, speaker.beat())
    assert books.counters.reasons == {"unknown_device": 1}
    books.hear(speaker, speaker.birth())
    books.hear(speaker, speaker.beat(cpu=0.9))
    assert (books.row().lifecycle, books.row().status) == ("pending", "unknown")
    assert math.isnan(books.row().cpu)
    books.ledger.set_lifecycle("d1", Lifecycle.ACCEPTED)
    books.hear(speaker, speaker.beat(cpu=0.9))
    assert (books.row().status, books.row().cpu) == ("online", 0.9)


def test_a_removed_device_comes_back_only_by_introducing_itself(books):
    speaker = Speaker()
    books.hear(speaker, speaker.birth())
    books.ledger.forget("d1")
    books.hear(speaker, speaker.beat())
    assert books.row() is None
    assert "d1" not in books.commit().devices
    books.hear(speaker, speaker.birth())
    assert books.row().first_seen == NOW


def test_a_flood_is_refused_without_decoding_and_the_pace_recovers():
    books = Books(limit=Limit(per_second=1.0, burst=5.0))
    speaker = Speaker()
    for _ in range(20):
        books.hear(speaker, speaker.beat())
    assert books.counters.reasons["rate"] > 10
    assert books.counters.decoded <= 7
    books.wait(10)
    stored = books.counters.decoded
    books.hear(speaker, speaker.beat(books.now))
    assert books.counters.decoded == stored + 1


def test_there_is_a_ceiling_for_devices():
    books = Books(max_devices=3)
    for i in range(5):
        speaker = Speaker(f"d{i}")
        books.hear(speaker, speaker.birth())
    assert len(books.ledger) == 3
    assert books.counters.reasons == {"unknown_device": 2}


def test_silence_a_will_and_a_return_are_told(books):
    speaker = Speaker()
    books.hear(speaker, speaker.birth())
    books.wait(1)
    books.hear(speaker, speaker.gone())
    books.wait(11)
    assert books.row().status == "offline"
    speaker.reboot("boot-b")
    books.hear(speaker, speaker.birth(books.now))
    books.wait(1)
    kinds = [e.kind for e in books.commit().events]
    assert kinds == ["device.joined", "device.offline", "device.online"]


def test_a_will_of_an_earlier_boot_is_stale(books):
    speaker = Speaker()
    will = speaker.gone()
    books.hear(speaker, speaker.birth())
    speaker.reboot("boot-b")
    books.hear(speaker, speaker.birth(NOW + 1))
    books.hear(speaker, will)
    books.wait(15)
    assert books.row().status == "online"
    assert books.counters.reasons == {"stale": 1}


def test_many_changes_at_once_are_one_sentence(books):
    for i in range(EACH_AT_MOST + 5):
        speaker = Speaker(f"d{i}")
        books.hear(speaker, speaker.birth())
    books.wait(1)
    assert [e.text for e in books.commit().events] == ["25 devices joined the fleet"]
    books.wait(100)
    assert [e.text for e in books.commit().events] == ["25 devices went offline"]
    assert books.presence.counts[Presence.OFFLINE] == 25


def test_the_fleets_curve_has_a_point_every_ten_seconds(books):
    speaker = Speaker()
    books.hear(speaker, speaker.birth())
    books.wait(10)
    books.hear(speaker, speaker.beat(books.now, rows=500, uptime_s=100))
    books.hear(speaker, speaker.window(books.now))
    books.raw("x", b"")
    books.counters.received += 4
    books.wait(10)
    points = books.commit().fleet
    assert [p.at % 10 for p in points] == [0.0]
    values = dict(zip(FLEET_METRICS, points[0].values, strict=True))
    assert (values["online"], values["offline"]) == (1, 0)
    assert (values["messages_per_s"], values["rejected_per_s"]) == (0.4, 0.1)
    assert values["rows_per_s"] == 5.0
    assert values["latency_p50"] > 0
    books.wait(1)
    assert books.commit().fleet == []


def test_the_books_go_on_from_the_store(books):
    speaker = Speaker()
    books.hear(speaker, speaker.birth())
    books.hear(speaker, speaker.beat(rows=5))
    row = books.row()
    after = Books()
    after.ledger.load([row], 0.0)
    after.hear(speaker, speaker.beat(rows=6))
    assert (after.row().boots, after.row().last_seq, after.row().rows, after.row().lost) == (1, 2, 6, 0)
    assert after.presence.counts[Presence.ONLINE] == 1


def test_redelivery_after_a_crash_writes_the_same_keys_again(books):
    speaker = Speaker()
    messages = [speaker.birth(), speaker.beat(), speaker.window(), speaker.event()]
    for message in messages:
        books.hear(speaker, message)
    first = books.commit()
    after = Books()
    after.ledger.load([first.devices["d1"]], 0.0)
    after.now += 3
    for message in messages:
        after.hear(speaker, message)
    again = after.commit()
    assert [s.at for s in again.samples] == [s.at for s in first.samples]
    assert [(w.device, w.handle, w.variant, w.baseline, w.start) for w in again.windows] == [
        (w.device, w.handle, w.variant, w.baseline, w.start) for w in first.windows
    ]
    # The last one was certainly written: its number is in the row that was committed with it.
    assert after.counters.duplicates == 1
    assert after.row().boots == 1


HONEST = st.integers(1, 5)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_honest_reports_between_hostile_ones_are_all_stored(data: st.DataObject):
    """Mutated, cut, random and mis-addressed messages: every one ends in exactly one count, none raises."""
    books = Books()
    speaker = Speaker()
    honest = 0
    books.hear(speaker, speaker.birth())
    sent = stored = 1
    for _ in range(data.draw(st.integers(0, 25))):
        message = data.draw(st.sampled_from([speaker.beat, speaker.window, speaker.event]))(NOW)
        topic, payload = speaker.wire(message)
        match data.draw(st.sampled_from(["honest", "bytes", "cut", "flip", "topic", "twice"])):
            case "bytes":
                payload = data.draw(st.binary(max_size=200))
            case "cut":
                payload = payload[: data.draw(st.integers(0, len(payload) - 1))]
            case "flip":
                at = data.draw(st.integers(0, len(payload) - 1))
                payload = payload[:at] + bytes([payload[at] ^ data.draw(st.integers(1, 255))]) + payload[at + 1 :]
            case "topic":
                topic = data.draw(st.text(max_size=60))
            case "twice":
                books.raw(topic, payload)
                sent, honest = sent + 1, honest + 1
            case "honest":
                honest += 1
        books.raw(topic, payload)
        sent += 1
    batch = books.commit()
    counters = books.counters
    assert counters.stored + counters.duplicates + counters.rejected == sent
    assert counters.stored >= stored + honest
    assert counters.rejected == len(batch.rejected) == sum(counters.reasons.values())
    assert "internal" not in counters.reasons
