"""The notification centre: grouping, bounds, what speaks and what is only listed."""

from __future__ import annotations

import pytest

from fleetui.common.domain.clock import ManualClock
from fleetui.common.domain.errors import StoreError
from fleetui.common.domain.states import ChildState
from fleetui.desk.app.notices import KEPT, SPEAK_AGAIN_S, Level, Notice, NoticeCentre
from fleetui.desk.app.outcome import Outcome
from fleetui.desk.app.settings import Settings
from fleetui.desk.app.supervise import Note
from fleetui.store.records import EventRow, Wish, WishState

NOW = 1_800_000_000.0


class Centre:
    def __init__(self) -> None:
        self.clock = ManualClock(NOW)
        self.settings = Settings(None)
        self.notices = NoticeCentre(self.clock, self.settings)
        self.spoken: list[Notice] = []
        self.changes = 0
        self.notices.on_new(self.spoken.append)
        self.notices.on_changed(self._changed)

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
def centre() -> Centre:
    made = Centre()
    made.notices.events([])  # the store was read
    return made


def event(
    kind: str = "overheating", device: str = "edge-1", level: int = 2, at: float = NOW + 1, **more: object
) -> EventRow:
    return EventRow(
        at, kind, level, str(more.get("text", "84 °C.")), device, source=str(more.get("source", "device"))
    )


def test_a_notice_is_listed_counted_and_spoken(centre: Centre) -> None:
    centre.notices.say(Level.ERROR, "The disk is full", "Free some space")
    [notice] = centre.notices
    assert (notice.sentence, notice.fix, notice.count, notice.read) == (
        "The disk is full",
        "Free some space",
        1,
        False,
    )
    assert centre.spoken == [notice]
    assert centre.notices.unread == 1
    assert centre.notices.worst is Level.ERROR
    assert centre.changes == 1


def test_the_same_again_is_one_line_that_counts(centre: Centre) -> None:
    centre.notices.say(Level.WARNING, "Locked", key="store")
    centre.notices.mark_read()
    centre.clock.advance(1)
    again = centre.notices.say(Level.WARNING, "Locked still", key="store")
    assert len(centre.notices) == 1
    assert (again.count, again.sentence, again.read, again.first) == (2, "Locked still", False, NOW)
    assert len(centre.spoken) == 1
    centre.clock.advance(SPEAK_AGAIN_S)
    centre.notices.say(Level.WARNING, "Locked still", key="store")
    assert len(centre.spoken) == 2


def test_levels_that_nobody_wants_to_hear_are_listed_without_a_word(centre: Centre) -> None:
    centre.notices.say(Level.INFO, "Good to know")
    centre.settings.set("notifications.error", False)
    centre.notices.say(Level.ERROR, "Bad")
    assert centre.spoken == []
    assert len(centre.notices) == 2


def test_newest_first_and_bounded_by_dropping_what_was_read(centre: Centre) -> None:
    for n in range(KEPT):
        centre.clock.advance(1)
        centre.notices.say(Level.INFO, f"n{n}")
    centre.notices.mark_read("say:n7")
    centre.notices.say(Level.INFO, "one more")
    assert len(centre.notices) == KEPT
    assert centre.notices.get("say:n7") is None
    assert centre.notices.get("say:n0") is not None
    assert next(iter(centre.notices)).sentence == "one more"


def test_what_is_over_says_so_and_may_begin_again(centre: Centre) -> None:
    centre.notices.say(Level.ERROR, "The store is locked", key="store")
    centre.clock.advance(5)
    centre.notices.resolve("store", "The store can be read again")
    [notice] = centre.notices
    assert (notice.over, notice.read, notice.sentence) == (NOW + 5, True, "The store can be read again")
    assert not notice.lasting
    assert centre.notices.worst is None
    changes = centre.changes
    centre.notices.resolve("store")
    centre.notices.resolve("nothing")
    assert centre.changes == changes
    centre.notices.say(Level.WARNING, "The store is locked", key="store")
    [notice] = centre.notices
    assert notice.lasting
    assert notice.level is Level.WARNING


def test_dismissing_takes_what_is_read_or_named(centre: Centre) -> None:
    centre.notices.say(Level.ERROR, "a")
    centre.notices.say(Level.ERROR, "b")
    centre.notices.mark_read("say:a")
    centre.notices.dismiss()
    assert [n.sentence for n in centre.notices] == ["b"]
    centre.notices.dismiss("say:b")
    assert len(centre.notices) == 0


def test_one_devices_event_names_it_and_leads_there(centre: Centre) -> None:
    centre.notices.events([event()], named={"edge-1": "Press 3"}.get)
    [notice] = centre.notices
    assert notice.sentence == "Press 3: 84 °C"
    assert notice.actions[0].arguments == {"device": "edge-1"}


def test_a_storm_is_one_line_that_names_the_number_and_lists_them(centre: Centre) -> None:
    centre.notices.events([event(device=f"edge-{n}") for n in range(30)])
    centre.notices.events([event(device=f"edge-{n}", text="86 °C.") for n in range(20, 50)])
    [notice] = centre.notices
    assert notice.sentence.startswith("50 devices are overheating; last: edge-")
    assert notice.count == 60
    assert len(notice.devices) == 50
    from fleetui.common.domain.filters import parse

    assert parse(str(notice.actions[0].arguments["filter"]))
    assert len(centre.spoken) == 1


def test_a_summary_of_the_control_room_is_taken_as_it_is(centre: Centre) -> None:
    rows = [event("offline", f"edge-{n}", source="station") for n in range(3)]
    centre.notices.events(
        [*rows, event("offline", "", source="station", text="27 devices went offline", at=NOW + 2)]
    )
    [notice] = centre.notices
    assert notice.sentence == "27 devices went offline"
    assert notice.actions[0].arguments == {"filter": "id:(edge-0,edge-1,edge-2)"}


def test_kinds_and_sources_are_lines_of_their_own(centre: Centre) -> None:
    centre.notices.events([event("a"), event("b"), event("a", source="station", device=""), event("c", level=1)])
    assert len(centre.notices) == 3
    assert {n.source for n in centre.notices} == {"device", "station"}


def test_the_highest_level_of_a_group_counts_and_unknown_ones_are_critical(centre: Centre) -> None:
    centre.notices.events([event(level=2), event(level=9, device="edge-2")])
    [notice] = centre.notices
    assert notice.level is Level.CRITICAL


def test_what_the_store_held_at_the_start_is_listed_quietly_and_history_is_not() -> None:
    centre = Centre()
    centre.notices.events([event(at=NOW - 3600), event("old", at=NOW - 3 * 86400)])
    assert [n.key for n in centre.notices] == ["event:device:overheating"]
    assert centre.spoken == []
    centre.notices.events([event("replayed", at=NOW - 3600)])
    assert len(centre.notices) == 1
    centre.notices.events([event("fresh", at=NOW + 5)])
    assert [n.key for n in centre.spoken] == ["event:device:fresh"]


def test_errors_in_the_words_of_their_kind(centre: Centre) -> None:
    centre.notices.error(StoreError("The disk is full", "Free some"), "Save view")
    centre.notices.error(KeyError("x"), "Read")
    ours, theirs = (centre.notices.all()[n] for n in (0, 1))
    assert ours.level is Level.CRITICAL
    assert "KeyError" in ours.sentence
    assert (theirs.sentence, theirs.fix) == ("Save view: The disk is full", "Free some")


def test_a_childs_fall_speaks_once_it_is_known_how_it_ended(centre: Centre) -> None:
    fell = Outcome(-9, 5.0, was_ready=True, asked=False)
    centre.notices.child(Note("station", ChildState.STARTING, "The station is starting"))
    assert len(centre.notices) == 0
    centre.notices.child(
        Note("station", ChildState.BACKING_OFF, "It stopped; again at once", level=2, outcome=fell)
    )
    assert centre.spoken == []
    centre.notices.child(Note("station", ChildState.RUNNING, "It stopped and was started again", level=2))
    [notice] = centre.notices
    assert [n.sentence for n in centre.spoken] == ["It stopped and was started again"]
    assert not notice.lasting
    assert not notice.read


def test_a_child_that_is_given_up_offers_to_start_it(centre: Centre) -> None:
    centre.notices.child(Note("station", ChildState.FAILED, "It does not stay up", "Look at its log", 3))
    [notice] = centre.notices
    assert notice.level is Level.ERROR
    assert notice.actions[0].command == "app.restart_child"
    assert notice.actions[0].arguments == {"name": "station"}
    centre.notices.child(Note("station", ChildState.RUNNING, "The station is running"))
    assert not centre.notices.all()[0].lasting


def test_a_wish_that_came_to_nothing(centre: Centre) -> None:
    wish = Wish("w", "device.rename", {}, "ann", NOW, b"", WishState.REFUSED, "Not allowed.", ended=NOW + 3)
    centre.notices.wish_failed(wish, "Rename edge-1")
    [notice] = centre.notices
    assert notice.sentence == "Rename edge-1 was refused: Not allowed"
    assert notice.at == NOW + 3
