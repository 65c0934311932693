"""What the core does, one thing at a time."""

from __future__ import annotations

import numpy as np
import pytest

from fleet_sim.agent.config import AgentConfig
from fleet_sim.agent.core import AgentCore
from fleet_sim.agent.events import (
    Acknowledged,
    Connected,
    Counted,
    Disconnect,
    Happened,
    Inferred,
    Log,
    Publish,
    Received,
    Refused,
    Started,
    Stopping,
    Subscribe,
    Tick,
    Vitals,
)
from fleet_sim.agent.queue import Limits
from fleet_sim.agent.states import LIFE, Life
from fleetui.common.link import codec
from fleetui.common.link.messages import Ask, Beat, Birth, Event, Gone, Reply, Running, Window
from fleetui.common.link.topics import Down, Up
from fleetui.common.sketches import latency as bins
from tests.helpers.sim import MODEL, T0, TOPICS, Books, counted

ASK = TOPICS.down("d1", Down.ASK)


@pytest.fixture
def books():
    books = Books(window_s=300.0, beat_s=30.0, beat_jitter=0.0, site="Bergen", tags={"rack": "2"})
    books.start()
    return books


def beat_until(books, end, step=1.0):
    while books.now + step <= end:
        books.do(Tick(Vitals(0.1, 0.2, 0.3, 40.0, 0.01, 99.0)), books.now + step)


def test_it_is_born_on_each_connection(books):
    subscribed = AgentCore(books.config, "b").step(Started(), T0)
    assert Subscribe(ASK) in subscribed
    books.connect()
    birth = books.messages(Birth)
    assert len(birth) == 1
    assert (birth[0].site, birth[0].tags, birth[0].models, birth[0].seq) == ("Bergen", {"rack": "2"}, [MODEL], 0)
    books.acknowledge_all()
    books.disconnect()
    books.connect()
    assert len(books.messages(Birth)) == 2
    assert books.connect() == []  # told twice


def test_reports_are_numbered_without_gaps_over_all_kinds(books):
    books.connect()
    books.do(counted(5))
    beat_until(books, T0 + 700)
    books.do(Received(ASK, codec.encode(Ask(id="a", kind="report"))))
    numbers = [effect.message.seq for effect in books.sent]
    assert numbers == list(range(len(numbers)))
    kinds = {type(effect.message) for effect in books.sent}
    assert kinds == {Birth, Beat, Window, Event, Reply}
    assert {effect.message.boot for effect in books.sent} == {"boot0"}


def test_beats_keep_their_interval_and_carry_the_vital_figures(books):
    books.connect()
    beat_until(books, T0 + 3000)
    beats = books.messages(Beat)
    assert 99 <= len(beats) <= 101
    gaps = np.diff([beat.at for beat in beats])
    assert gaps.min() >= 29
    assert gaps.max() <= 31
    last = beats[-1]
    assert (last.cpu, last.memory, last.disk, last.temperature, last.uptime_s) == (0.1, 0.2, 0.3, 40.0, 99.0)
    assert all(effect.qos == 0 for effect in books.sent if isinstance(effect.message, Beat))


def test_devices_do_not_beat_in_step():
    starts = set()
    for seed in range(50):
        core = AgentCore(AgentConfig("plant", "d1", beat_s=30.0), "b", seed=seed)
        core.step(Started(), T0)
        assert T0 <= core.beat_at <= T0 + 30.0
        starts.add(round(core.beat_at - T0))
    assert len(starts) > 15


def test_windows_end_at_whole_multiples_and_are_reported_without_rows(books):
    start = (T0 // 300) * 300
    books.core = AgentCore(books.config, "b", [MODEL], queue=books.core.queue)
    books.do(Started(), start + 100.25)
    books.connect()
    beat_until(books, start + 901)
    windows = books.messages(Window)
    assert [(w.start - start, w.length_s, w.rows) for w in windows] == [
        (100.25, 199.75, 0),
        (300.0, 300.0, 0),
        (600.0, 300.0, 0),
    ]


def test_a_fleet_does_not_report_its_windows_at_one_moment():
    end = (T0 // 300 + 1) * 300
    delays = []
    for k in range(40):
        core = AgentCore(
            AgentConfig("plant", "d1", window_s=300.0, beat_s=1e6, spread_s=30.0), "b", [MODEL], seed=k
        )
        core.step(Started(level=0), T0)
        for effect in core.step(Connected(), T0):
            if isinstance(effect, Publish) and effect.token is not None:
                core.step(Acknowledged(effect.token), T0)
        assert core.next_at == end
        assert not [e for e in core.step(Tick(), end) if isinstance(e, Publish)]
        due = core.next_at
        sent = [e.message for e in core.step(Tick(), due) if isinstance(e, Publish)]
        assert [type(m) for m in sent] == [Window]
        assert (sent[0].start + sent[0].length_s, sent[0].at) == (end, end)
        delays.append(due - end)
    assert min(delays) >= 0
    assert max(delays) <= 30
    assert len({round(d) for d in delays}) > 12


def test_an_event_takes_waiting_windows_along():
    books = Books(window_s=300.0, beat_s=1e6, spread_s=30.0)
    books.start()
    books.connect()
    books.acknowledge_all()
    end = (T0 // 300 + 1) * 300
    books.do(Tick(), end)
    assert not books.messages(Window)
    books.do(Happened("thing"), end + 0.1)
    assert [type(p.message) for p in books.sent[-2:]] == [Window, Event]


def test_a_row_counts_in_the_window_of_its_moment(books):
    end = (T0 // 300 + 1) * 300
    books.connect()
    books.do(counted(3), end - 0.5)
    books.do(counted(4), end + 0.5)  # no tick in between
    books.do(Tick(), end + 300)
    assert [w.rows for w in books.messages(Window)] == [3, 4]


def test_a_long_sleep_does_not_invent_windows(books):
    end = (T0 // 300 + 1) * 300
    books.connect()
    books.do(counted(3), T0 + 1)
    books.do(Tick(), end + 3600 * 5 + 10.5)
    books.do(Tick(), end + 3600 * 5 + 300)
    assert [(w.start, w.rows) for w in books.messages(Window)] == [(T0, 3), (end + 18010.5, 0)]


def test_a_clock_set_back_ends_the_window_and_does_not_silence_the_agent(books):
    books.connect()
    books.do(counted(3), T0 + 20)
    books.do(Tick(), T0 - 86400)
    window = books.messages(Window)[0]
    assert (window.start, window.length_s, window.rows) == (T0, 20.0, 3)
    assert books.messages(Event)[-1].kind == "clock.set-back"
    beat_until(books, T0 - 86400 + 90)
    assert len([b for b in books.messages(Beat) if b.at < T0 - 1000]) >= 2
    books.do(Tick(), books.now - 0.5)  # slewed
    assert [e.kind for e in books.messages(Event)].count("clock.set-back") == 1


def test_latencies_and_outputs_are_counted(books):
    books.connect()
    books.do(Inferred("vibration", np.array([1e-5, 1e-3, 1e-3]), 2, np.array([0, 2, 2]), "bad input"))
    books.do(Inferred("vibration", np.array([np.nan, -1.0]), 0, np.array([500, -3])))
    books.do(Inferred("other", np.array([1e-5])))  # nothing of that name runs
    books.do(Tick(), T0 + 400)
    window = books.messages(Window)[0]
    assert (window.rows, window.errors) == (5, 2)
    assert bins.expand(window.latency).tolist() == bins.count([1e-5, 1e-3, 1e-3, np.nan, -1.0]).tolist()
    assert window.outputs[:3] == [2, 0, 2]
    assert window.outputs[63] == 1
    beat_until(books, T0 + 500)
    beat = books.messages(Beat)[-1]
    assert (beat.rows, beat.errors, beat.last_error) == (5, 2, "bad input")


def test_offline_only_the_newest_beat_waits_and_everything_else_queues(books):
    beat_until(books, T0 + 3000)
    assert books.core.beats_replaced > 90
    assert not books.sent
    books.connect()
    books.acknowledge_all()
    assert len(books.messages(Beat)) == 1
    assert books.messages(Beat)[0].at > T0 + 2960
    assert len(books.messages(Window)) == 10
    assert [type(e.message) for e in books.sent[:2]] == [Birth, Beat]


def test_reports_stay_until_they_are_acknowledged_and_keep_their_numbers(books):
    books.connect()
    beat_until(books, T0 + 400)
    window = books.messages(Window)[0]
    books.disconnect(forget=True)
    beat_until(books, T0 + 700)
    books.connect()
    assert books.messages(Window)[1] == window
    books.acknowledge_all()
    books.disconnect()
    books.connect()
    sent = [(w.boot, w.seq) for w in books.messages(Window)]
    assert sent.count((window.boot, window.seq)) == 2
    assert len(books.core.queue) == 0


def test_what_was_sent_before_a_power_cut_keeps_its_boot_and_number(books):
    books.connect()
    beat_until(books, T0 + 301)
    first = books.messages(Window)
    assert first
    books.crash()
    assert books.core.boot == "boot1"
    books.connect()
    again = [w for w in books.messages(Window) if w.start == first[0].start]
    assert again == [first[0], first[0]]
    birth = books.messages(Birth)[-1]
    assert birth.boot == "boot1"


def test_no_more_than_allowed_is_on_the_way():
    books = Books(Limits(reports=50, inflight=3), window_s=10.0)
    books.start()
    beat_until(books, T0 + 200)
    books.connect()
    assert len([p for p in books.flying.values() if isinstance(p.message, Window | Event)]) == 3
    books.acknowledge(min(t for t, p in books.flying.items() if not isinstance(p.message, Birth)))
    assert len([p for p in books.flying.values() if isinstance(p.message, Window | Event)]) == 3
    books.acknowledge_all()
    starts = [w.start for w in books.messages(Window)]
    assert starts == sorted(starts)


def test_a_transport_that_refuses_is_asked_again_later_not_at_once(books):
    effects = books.connect()
    tokens = [e.token for e in effects if isinstance(e, Publish) and e.token is not None]
    for token in tokens:
        books.flying.pop(token)
        assert not [e for e in books.do(Refused(token)) if isinstance(e, Publish)]
    assert books.core.next_at <= books.now + 1.0
    again = [e for e in books.do(Tick(), books.now + 1.0) if isinstance(e, Publish)]
    assert [e.message for e in again] == [books.messages(Birth)[0]]  # one goes first, as it was
    books.acknowledge_all()
    assert len(books.messages(Birth)) == 2
    assert books.messages(Event)
    assert not len(books.core.queue)


def test_where_nobody_listens_the_reports_wait_and_the_signs_of_life_go_on(books):
    books.connect()
    for _ in range(600):
        for token in list(books.flying):
            books.refuse(token)
        books.do(Tick(), books.now + 1.0)
    # Of the reports one went out now and then: not sixteen of them every time.
    tries = [e for e in books.sent if isinstance(e.message, Birth)]
    assert 600 / 30 <= len(tries) <= 600 / 30 + 8
    assert len({codec.encode(e.message) for e in tries}) == 1
    assert len(books.messages(Event)) == 1
    assert len(books.messages(Beat)) == 20
    assert not books.messages(Window)
    books.acknowledge_all()
    books.do(Tick(), books.now + 31)
    books.acknowledge_all()
    assert len(books.messages(Window)) == 2
    assert not len(books.core.queue)


def test_a_birth_alone_is_tried_again_in_time(books):
    books.connect()
    (event,) = [t for t, p in books.flying.items() if isinstance(p.message, Event)]
    books.acknowledge(event)
    (birth,) = books.flying
    books.refuse(birth)
    assert not len(books.core.queue)
    assert books.core.next_at <= books.now + 1.0
    books.do(Tick(), books.core.next_at)
    assert len(books.messages(Birth)) == 2


def test_stopping_where_nobody_listens_does_not_wait(books):
    books.connect()
    for token in list(books.flying):
        books.refuse(token)
    books.do(Stopping())
    assert books.messages(Gone)
    books.refuse(max(books.flying))
    assert books.closed
    kept = Books(window_s=300.0)
    kept.start()
    kept.connect()
    kept.do(Stopping())
    for token in list(kept.flying):
        kept.refuse(token)
    assert kept.messages(Gone)
    kept.acknowledge_all()
    assert kept.closed
    assert kept.disk  # for the next start


def test_a_broker_that_keeps_refusing_is_asked_less_and_less_often(books):
    books.connect()
    waits = []
    for _ in range(10):
        for token in list(books.flying):
            books.refuse(token)
        waits.append(books.core.next_at - books.now)
        books.do(Tick(), books.core.next_at)
        if not books.flying:  # a beat or a window was due first
            waits.pop()
            books.do(Tick(), books.now + 60)
    assert waits[0] <= 1.0
    assert max(waits) <= 60.0
    assert waits[:4] == sorted(waits[:4])
    books.acknowledge_all()
    books.do(Happened("thing"))
    assert books.flying  # and at once again after a success


def test_losses_are_counted_and_told():
    books = Books(Limits(reports=10, events=3, inflight=4), window_s=10.0)
    books.start()
    for i in range(30):
        books.do(Happened("thing", text=f"{i}"))
    books.connect()
    books.acknowledge_all()
    assert [e.text for e in books.messages(Event)][:2] == ["28", "29"]
    told = books.messages(Event)[2]
    assert (told.kind, told.text) == ("queue.dropped", "Dropped for want of space while offline: 28 event.")
    assert books.messages(Birth)[0].dropped == 29  # the word about it had to be fitted in, too
    books.crash()
    books.connect()
    books.acknowledge_all()
    assert books.messages(Event)[-1].text.endswith("1 event.")


def test_a_long_outage_grows_coarser_evenly():
    books = Books(Limits(reports=16), window_s=60.0)
    start = (T0 // 60) * 60
    books.now = start
    books.start()
    for i in range(200):
        books.do(counted(i + 1), start + 60 * i + 1)
    books.do(Tick(), start + 60 * 200)
    queue = [e.report for e in books.core.queue if isinstance(e.report, Window)]
    assert sum(w.rows for w in queue) == 200 * 201 // 2
    assert books.core.queue.dropped == 0
    assert max(w.merged for w in queue) <= 32
    ends = [w.start + w.length_s for w in queue]
    assert [w.start for w in queue[1:]] == ends[:-1]  # spans join without gap or overlap
    assert books.core.queue.merged == 200 - len(queue)


def test_questions(books):
    books.connect()
    for ident, kind in (("1", "ping"), ("1", "ping"), ("2", "report"), ("3", "format the disk")):
        books.do(Received(ASK, codec.encode(Ask(id=ident, kind=kind))))
    answers = {reply.ask: reply for reply in books.messages(Reply)}
    assert len(books.messages(Reply)) == 3
    assert (answers["1"].ok, answers["1"].text) == (True, "pong")
    assert answers["2"].ok
    assert not answers["3"].ok
    assert len(books.messages(Birth)) == 2
    assert len(books.messages(Beat)) == 1


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (ASK, b"\xc1"),
        (ASK, b""),
        (ASK, b"x" * 20_000),
        ("fleet/plant/down/d2/ask", codec.encode(Ask(id="1", kind="ping"))),
        ("fleet/other/down/d1/ask", codec.encode(Ask(id="1", kind="ping"))),
        ("fleet/plant/down/d1/desired", b""),
        ("nonsense", b""),
    ],
)
def test_what_is_not_a_question_is_counted_and_logged(books, topic, payload):
    books.connect()
    effects = books.do(Received(topic, payload))
    assert [type(e) for e in effects] == [Log]
    assert books.core.refused_messages == 1
    assert not books.messages(Reply)


def test_figures_past_their_limits_are_one_event(books):
    books.connect()
    for temperature in (60, 86, 84, 88, 80, 90, 70, 60, 91):
        books.do(Tick(Vitals(temperature=float(temperature), disk=0.5)), books.now + 1)
    kinds = [e.kind for e in books.messages(Event)]
    assert kinds == ["boot", "temperature.high", "temperature.high.over", "temperature.high"]


def test_failing_inferences_are_one_event_until_they_succeed_again(books):
    books.connect()
    for rows, errors in ((100, 0), (90, 10), (50, 50), (100, 0), (0, 0), (99, 1)):
        books.do(counted(rows, errors), (books.now // 300 + 1) * 300)
    books.do(Tick(), books.now + 300)
    kinds = [e.kind for e in books.messages(Event)]
    assert kinds == ["boot", "inference.errors", "inference.errors.over"]
    assert books.messages(Event)[1].text == "10 of 100 inferences failed: no luck."


def test_it_stops_in_order(books):
    books.connect()
    books.do(counted(7), T0 + 5)
    books.do(Stopping())
    assert books.messages(Window)[-1].rows == 7
    assert not books.messages(Gone)  # first the rest has to be there
    books.acknowledge_all()
    assert books.messages(Gone) == [Gone(device="d1", boot="boot0", clean=True)]
    assert books.closed
    assert books.core.state is Life.STOPPED
    assert books.do(counted(1))
    assert not books.do(Tick(), T0 + 9999)
    assert books.do(Connected()) == []


def test_it_stops_at_once_when_told_twice_or_offline(books):
    books.connect()
    books.do(Stopping())
    assert books.core.state is Life.STOPPING
    books.do(Stopping())
    assert books.messages(Gone)
    offline = Books()
    offline.start()
    assert Disconnect() in offline.do(Stopping())
    assert [type(e.report) for e in offline.core.queue] == [Event]  # kept for the next start


def test_every_state_is_reached_and_left_as_the_table_says():
    assert LIFE.ends == {Life.STOPPED}
    assert "offline --> online: connect" in LIFE.mermaid()


def test_two_handles_count_apart():
    books = Books(models=(MODEL, Running("audio", "siren", "2.1")), window_s=60.0)
    books.start()
    books.connect()
    books.do(counted(3))
    books.do(counted(4, handle="audio"))
    books.do(Tick(), T0 + 60)
    assert {(w.handle, w.version): w.rows for w in books.messages(Window)} == {
        ("vibration", "1.0"): 3,
        ("audio", "2.1"): 4,
    }


def test_bad_limits_are_a_bug():
    with pytest.raises(ValueError, match="not limits"):
        Limits(reports=4, inflight=5)


def test_counted_for_a_stopped_core_changes_nothing(books):
    books.do(Stopping())
    before = books.core.rows
    books.do(Counted("vibration", 5, 0, bins.expand([5])))
    assert books.core.rows == before


def test_texts_from_elsewhere_do_not_spoil_the_report(books):
    """An exception's text may hold anything; the station refuses what holds control characters."""
    books.connect()
    books.do(Happened("thing", text="bell \x07 and \x00" + "x" * 1000))
    event = next(e for e in books.messages(Event) if e.kind == "thing")
    again = codec.decode_up(Up.EVENT, codec.encode(event), event.device)
    assert again.text.startswith("bell   and  x")
