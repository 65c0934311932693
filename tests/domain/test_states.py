"""Every state table: reachable, absorbing at its ends, without traps; and what single tables promise."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.domain import diagrams
from fleetui.common.domain.errors import BugError, ConfigError
from fleetui.common.domain.machine import StateTable
from fleetui.common.domain.states import (
    DEPLOYMENT,
    DETECTOR,
    LIFECYCLE,
    PRESENCE,
    ROLLOUT,
    TABLES,
    WAVE,
    WISH,
    Deployment,
    DeploymentEvent,
    Detector,
    DetectorEvent,
    Lifecycle,
    LifecycleEvent,
    LinkState,
    Presence,
    PresenceEvent,
    Rollout,
    Wave,
    WishState,
)
from fleetui.common.link import transport
from fleetui.store import records
from tests.helpers.domain import examples

Table = StateTable[Any, Any]
every_table = pytest.mark.parametrize(
    ("table", "events"), [pytest.param(table, events, id=table.name) for table, events in TABLES]
)


def reached(table: Table, start: Iterable[StrEnum]) -> set[StrEnum]:
    found, ahead = set(start), list(start)
    while ahead:
        for target in table.table.get(ahead.pop(), {}).values():
            if target not in found:
                found.add(target)
                ahead.append(target)
    return found


# ---------------------------------------------------------------- all tables


@every_table
def test_every_state_is_reached_from_the_start(table: Table, events: type[StrEnum]) -> None:
    assert reached(table, [table.start]) == set(type(table.start))


@every_table
def test_every_event_means_something_somewhere(table: Table, events: type[StrEnum]) -> None:
    assert {event for row in table.table.values() for event in row} == set(events)
    assert all(isinstance(event, events) for row in table.table.values() for event in row)


@every_table
def test_ends_absorb_every_event(table: Table, events: type[StrEnum]) -> None:
    for end in table.ends:
        assert table.takes(end) == frozenset()
        assert all(table.next(end, event) is None for event in events)


@every_table
def test_no_state_is_a_trap(table: Table, events: type[StrEnum]) -> None:
    """From everywhere an end is in reach; where there are none, the start or every other state is."""
    for state in type(table.start):
        ahead = reached(table, [state])
        assert ahead & table.ends if table.ends else len(ahead) >= len(set(type(table.start))) - 1, state


@every_table
def test_words_are_fit_for_a_column_and_a_wire(table: Table, events: type[StrEnum]) -> None:
    for word in (*type(table.start), *events):
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", word)


@every_table
@examples(30)
@given(data=st.data())
def test_any_walk_stays_in_the_table(table: Table, events: type[StrEnum], data: st.DataObject) -> None:
    state = table.start
    for event in data.draw(st.lists(st.sampled_from(list(events)), max_size=40)):
        after = table.next(state, event)
        assert (after is None) == (event not in table.takes(state))
        if table.is_end(state):
            assert after is None
        state = after or state
        assert state in table.states


def test_a_table_with_an_unreachable_state_is_refused() -> None:
    with pytest.raises(BugError, match="offline"):
        StateTable("x", Presence.UNKNOWN, {Presence.UNKNOWN: {PresenceEvent.HEARD: Presence.ONLINE}})


def test_words_agree_with_those_on_the_wire_and_in_the_store() -> None:
    assert transport.LinkState is LinkState
    assert records.WishState is WishState
    # A row's word may be asked for directly.
    assert WISH.next("asked", "take") is WishState.TAKEN  # type: ignore[arg-type]
    row = records.DeviceRow(device="d")
    assert row.lifecycle in set(Lifecycle)
    assert row.status in set(Presence)


# ---------------------------------------------------------------- single promises


def test_only_people_reopen_the_case_of_a_rejected_device() -> None:
    assert LIFECYCLE.next(Lifecycle.REJECTED, LifecycleEvent.ENROL) is None
    assert LIFECYCLE.next(Lifecycle.DECOMMISSIONED, LifecycleEvent.ACCEPT) is None
    assert LIFECYCLE.next(Lifecycle.DECOMMISSIONED, LifecycleEvent.ENROL) is Lifecycle.PENDING


def test_presence_leaves_silence_only_by_a_birth_or_a_steady_voice() -> None:
    for state in (Presence.LATE, Presence.OFFLINE):
        assert PRESENCE.next(state, PresenceEvent.HEARD) is None
        back = {e for e, s in PRESENCE.table[state].items() if s is Presence.ONLINE}
        assert back == {PresenceEvent.BIRTH, PresenceEvent.STEADY}


def test_silence_never_resolves_a_detector() -> None:
    for state in (Detector.FIRING, Detector.RECOVERING, Detector.WATCHING):
        assert DETECTOR.next(state, DetectorEvent.SILENT) is Detector.NO_DATA
    assert Detector.NORMAL not in {
        target for state in Detector for event, target in DETECTOR.table[state].items() if event == "silent"
    }


_D, _E = Deployment, DeploymentEvent
_PATH = (
    _D.QUEUED,
    _D.ACCEPTED,
    _D.DOWNLOADING,
    _D.VERIFIED,
    _D.STAGED,
    _D.PREFLIGHT,
    _D.SHADOW,
    _D.ACTIVATING,
    _D.PROBATION,
    _D.READY,
)


def test_a_deployment_has_exactly_the_states_of_the_design() -> None:
    ends = (
        "committed rolled_back rollback_failed failed_no_change rejected timed_out cancelled removed "
        "already_installed"
    )
    assert {str(s) for s in DEPLOYMENT.ends} == set(ends.split())
    assert set(Deployment) == set(_PATH) | DEPLOYMENT.ends


def test_a_deployment_commits_with_and_without_the_optional_steps() -> None:
    for shadow in (True, False):
        for hold in (True, False):
            steps = [_E.ACCEPT, _E.DOWNLOAD, _E.VERIFY, _E.STAGE, _E.TEST]
            steps += [_E.SHADOW, _E.ACTIVATE] if shadow else [_E.ACTIVATE]
            steps += [_E.ACTIVE, _E.HOLD, _E.COMMIT] if hold else [_E.ACTIVE, _E.COMMIT]
            state: Deployment = DEPLOYMENT.start
            for step in steps:
                after = DEPLOYMENT.next(state, step)
                assert after is not None, (state, step)
                state = after
            assert state is _D.COMMITTED


def test_what_has_changed_nothing_ends_without_change_and_what_has_is_undone() -> None:
    swap = _PATH.index(_D.ACTIVATING)
    for place, state in enumerate(_PATH):
        ends = set(DEPLOYMENT.table[state].values()) & DEPLOYMENT.ends
        assert _D.TIMED_OUT in ends
        if place < swap:
            assert not ends & {_D.ROLLED_BACK, _D.ROLLBACK_FAILED, _D.COMMITTED}
            assert {_D.FAILED_NO_CHANGE, _D.REJECTED, _D.CANCELLED, _D.REMOVED} <= ends
        else:
            assert {_D.ROLLED_BACK, _D.ROLLBACK_FAILED} <= ends
            assert not ends & {_D.REJECTED, _D.CANCELLED, _D.REMOVED}
        assert (_D.COMMITTED in ends) == (state in {_D.PROBATION, _D.READY})
        assert (_D.FAILED_NO_CHANGE in ends) == (place <= swap)


def test_a_power_cut_never_takes_a_deployment_forward() -> None:
    for place, state in enumerate(_PATH):
        after = DEPLOYMENT.next(state, _E.RESTART)
        assert after in _PATH[: place + 1]
        # Undoing a swap is never forgotten: a device that has swapped does not come back as if it had not.
        if place >= _PATH.index(_D.ACTIVATING):
            assert after is state


@examples(200)
@given(st.lists(st.sampled_from(list(DeploymentEvent)), max_size=60))
def test_a_deployment_never_goes_back_to_an_earlier_step_but_for_the_preflight(
    events: list[DeploymentEvent],
) -> None:
    state: Deployment = DEPLOYMENT.start
    for event in events:
        after = DEPLOYMENT.next(state, event)
        if after in _PATH:
            backwards = _PATH.index(after) < _PATH.index(state)
            assert backwards == (state is _D.PREFLIGHT and event is _E.RESTART)
        state = after or state


def test_a_rollout_starts_nothing_without_a_plan_and_can_always_be_taken_back_while_it_matters() -> None:
    into_running = {s for s, row in ROLLOUT.table.items() if Rollout.RUNNING in row.values()}
    assert into_running == {Rollout.PLANNED, Rollout.PAUSED, Rollout.FINISHED, Rollout.FAILED}
    for state in (
        Rollout.RUNNING,
        Rollout.PAUSED,
        Rollout.STOPPING,
        Rollout.FINISHED,
        Rollout.STOPPED,
        Rollout.FAILED,
    ):
        assert Rollout.ROLLING_BACK in ROLLOUT.table[state].values(), state


def test_a_wave_passes_only_by_its_gate_or_a_person() -> None:
    by = {str(e) for row in WAVE.table.values() for e, target in row.items() if target is Wave.PASSED}
    assert by == {"go_on", "override"}


# ---------------------------------------------------------------- diagrams


def read_mermaid(text: str) -> tuple[str, dict[str, dict[str, str]], set[str]]:
    start, table, ends = "", {}, set()
    for line in text.splitlines()[1:]:
        if match := re.fullmatch(r"    \[\*\] --> (\w+)", line):
            start = match[1]
        elif match := re.fullmatch(r"    (\w+) --> \[\*\]", line):
            ends.add(match[1])
        else:
            match = re.fullmatch(r"    (\w+) --> (\w+): (.+)", line)
            assert match, line
            table.setdefault(match[1], {}).update(dict.fromkeys(match[3].split(", "), match[2]))
    return start, table, ends


@every_table
def test_a_diagram_says_all_that_the_table_says(table: Table, events: type[StrEnum]) -> None:
    start, drawn, ends = read_mermaid(table.mermaid())
    assert start == table.start
    assert drawn == {str(s): {str(e): str(t) for e, t in row.items()} for s, row in table.table.items()}
    assert ends == {str(end) for end in table.ends}


def test_states_with_blanks_in_their_words_are_drawn_too() -> None:
    class Odd(StrEnum):
        BACK_OFF = "backing off"
        DONE = "done"

    class Push(StrEnum):
        GO = "go on"

    drawn = StateTable("odd", Odd.BACK_OFF, {Odd.BACK_OFF: {Push.GO: Odd.DONE}}).mermaid().splitlines()
    assert drawn == [
        "stateDiagram-v2",
        '    state "backing off" as backing_off',
        "    [*] --> backing_off",
        "    backing_off --> done: go on",
        "    done --> [*]",
    ]


def test_architecture_shows_the_tables_as_they_are() -> None:
    path = Path(__file__).parents[2] / "ARCHITECTURE.md"
    text = path.read_text("utf-8")
    assert not diagrams.has_markers(text) or diagrams.updated(text) == text, (
        "run: python -m fleetui.common.domain.diagrams --write ARCHITECTURE.md"
    )


def test_diagrams_are_written_between_the_markers_and_nowhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "A.md"
    path.write_text(f"before\n{diagrams.BEGIN}\nyesterday\n{diagrams.END}\nafter\n", "utf-8")
    assert diagrams.main(["--check", str(path)]) == 1
    assert "out of date" in capsys.readouterr().err
    assert diagrams.main(["--write", str(path)]) == 0
    assert diagrams.main(["--check", str(path)]) == 0
    text = path.read_text("utf-8")
    assert text.startswith(f"before\n{diagrams.BEGIN}\n")
    assert text.endswith(f"{diagrams.END}\nafter\n")
    assert text.count("```mermaid") == len(TABLES)
    assert "yesterday" not in text
    assert diagrams.main([]) == 0
    assert capsys.readouterr().out == diagrams.markdown()


@pytest.mark.parametrize(
    "text",
    ["nothing", diagrams.BEGIN, f"{diagrams.END}{diagrams.BEGIN}", f"{diagrams.BEGIN}{diagrams.END}" * 2],
)
def test_a_file_without_one_pair_of_markers_is_left_alone(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError):
        diagrams.updated(text)
    path = tmp_path / "A.md"
    path.write_text(text, "utf-8")
    assert diagrams.main(["--write", str(path)]) == 1
    assert path.read_text("utf-8") == text
    assert "markers" in capsys.readouterr().err
    assert diagrams.main(["--check", str(tmp_path / "none.md")]) == 1
