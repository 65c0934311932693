import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.domain.presence import PresenceRule, Sign, Watch
from fleetui.common.domain.states import Presence
from fleetui.station.health.presence import PresenceBook
from fleetui.store.records import DeviceRow
from tests.helpers.station import NOW

RULE = PresenceRule(interval_s=10.0)


@pytest.fixture
def book() -> PresenceBook:
    book = PresenceBook(RULE)
    book.listen(NOW)
    for i in range(3):
        book.watch(DeviceRow(f"d{i}", status="online", status_since=NOW, last_seen=NOW))
    return book


def statuses(book: PresenceBook) -> list[Presence]:
    return [w.status for w in book._watches.values()]


def test_silence_makes_late_then_offline(book):
    assert book.judge(NOW + 24.9) == []
    turns = book.judge(NOW + 25)
    assert {(t.after, t.since) for t in turns} == {(Presence.LATE, NOW + 25)}
    turns = book.judge(NOW + 50)
    assert {(t.before, t.after) for t in turns} == {(Presence.LATE, Presence.OFFLINE)}
    assert book.counts[Presence.OFFLINE] == 3
    assert book.judge(NOW + 1e6) == []


def test_a_report_moves_the_deadline_without_touching_the_heap(book):
    before = list(book._heap)
    for t in range(1, 20):
        for i in range(3):
            assert book.heard(f"d{i}", Sign.HEARD, NOW + t) is None
    assert book._heap == before
    assert book.judge(NOW + 30) == []
    assert book.next_due() == NOW + 19 + 25


def test_a_look_is_cut_into_slices(book):
    assert len(book.judge(NOW + 25, most=2)) == 2
    assert len(book.judge(NOW + 25, most=2)) == 1


def test_nobody_is_judged_while_there_is_no_link_and_all_get_a_fresh_grace_after_it(book):
    book.deafen()
    assert book.judge(NOW + 3600) == []
    book.listen(NOW + 3600)
    assert book.judge(NOW + 3600 + 24) == []
    assert book.heard("d0", Sign.HEARD, NOW + 3600 + 20) is None
    assert {t.device for t in book.judge(NOW + 3600 + 26)} == {"d1", "d2"}


def test_a_will_is_believed_after_its_grace(book):
    assert book.heard("d1", Sign.WILL, NOW + 5) is None
    assert book.judge(NOW + 14) == []
    turns = book.judge(NOW + 15)
    assert [(t.device, t.after) for t in turns] == [("d1", Presence.OFFLINE)]


def test_a_will_is_denied_by_the_next_report(book):
    book.heard("d1", Sign.WILL, NOW + 5)
    book.heard("d1", Sign.HEARD, NOW + 6)
    assert book.judge(NOW + 20) == []


def test_a_goodbye_is_taken_at_its_word(book):
    turn = book.heard("d2", Sign.GOODBYE, NOW + 1)
    assert (turn.before, turn.after) == (Presence.ONLINE, Presence.OFFLINE)
    turn = book.heard("d2", Sign.BIRTH, NOW + 2)
    assert turn.after is Presence.ONLINE
    assert {t.after for t in book.judge(NOW + 27)} == {Presence.LATE}


def test_a_forgotten_device_is_not_judged(book):
    book.forget("d0")
    assert {t.device for t in book.judge(NOW + 25)} == {"d1", "d2"}
    assert book.counts.total() == 2
    assert book.heard("d0", Sign.HEARD, NOW + 30) is None


def test_a_report_that_waited_somewhere_is_no_news(book):
    book.heard("d0", Sign.HEARD, NOW + 20)
    assert book.heard("d0", Sign.HEARD, NOW + 5) is None
    assert book.judge(NOW + 44.9)[0].device != "d0"


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["d0", "d1", "d2"]),
        st.one_of(st.sampled_from(list(Sign)), st.just("look"), st.just("deaf"), st.just("listen")),
        st.floats(0.0, 30.0),
    ),
    max_size=60,
)


@given(ACTS)
def test_the_heap_never_misses_what_asking_everybody_would_find(acts):
    """The book against the rule asked for each device at each step."""
    book = PresenceBook(RULE)
    book.listen(NOW)
    plain: dict[str, Watch] = {}
    for name in ("d0", "d1", "d2"):
        book.watch(DeviceRow(name))
        plain[name] = Watch()
    now, since, listening = NOW, NOW, True
    for device, act, passed in acts:
        now += passed
        if act == "deaf":
            book.deafen()
            listening = False
        elif act == "listen":
            book.listen(now)
            since, listening = now, True
        elif act != "look":
            book.heard(device, act, now)
            plain[device] = RULE.heard(plain[device], act, now, listening_since=since)
        book.judge(now)
        if listening:
            plain = {d: RULE.passed(w, now, listening_since=since) for d, w in plain.items()}
        assert statuses(book) == [w.status for w in plain.values()]
        assert +book.counts == +type(book.counts)(w.status for w in plain.values())
        assert len(book._heap) <= 200
