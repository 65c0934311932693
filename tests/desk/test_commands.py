"""The command registry and the palette's search."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.domain.errors import BugError
from fleetui.desk.app.commands import NEEDS_ONE, NEEDS_SELECTION, Command, CommandRegistry, Hit, match

TITLES = (
    "Filter devices", "Open settings", "Open device", "Export as CSV…", "Export as JSON…", "Dark theme",
    "Light theme", "Remove…", "Ask to report now", "Go to overview", "Keyboard shortcuts",
)  # fmt: skip


def registry(*commands: Command) -> CommandRegistry:
    made = CommandRegistry()
    made.register(*commands)
    for command in commands:
        made.bind(command.id, lambda: None)
    return made


def best(text: str, titles: tuple[str, ...] = TITLES) -> str:
    made = registry(*(Command(f"page.c{n}", title) for n, title in enumerate(titles)))
    return next(iter(hit.title for hit in made.search(text)), "")


def test_a_command_runs_what_is_bound() -> None:
    ran: list[object] = []
    made = CommandRegistry()
    made.register(Command("a.b", "Do it", callback="shared"))
    assert made.why_not("a.b")
    unbind = made.bind("shared", lambda **given: ran.append(given))
    assert made.why_not("a.b") == ""
    assert made.run("a.b", device="x")
    assert ran == [{"device": "x"}]
    unbind()
    assert not made.run("a.b")


def test_unbinding_leaves_a_newer_binding_alone() -> None:
    made = registry(Command("a.b", "Do it"))
    old = made.bind("a.b", lambda: None)
    ran: list[int] = []
    made.bind("a.b", lambda: ran.append(1))
    old()
    assert made.run("a.b")
    assert ran == [1]


def test_a_disabled_command_says_why_and_does_not_run() -> None:
    made = registry(Command("a.b", "Do it", needs=(NEEDS_SELECTION, NEEDS_ONE)))
    assert made.why_not("a.b") == NEEDS_SELECTION.reason
    assert not made.run("a.b")
    made.set_facts(selection=True)
    assert made.why_not("a.b") == NEEDS_ONE.reason
    made.set_facts(selection__one=True)
    assert made.run("a.b")
    [hit] = made.search("do it")
    assert hit.disabled == ""
    made.set_facts(selection=False)
    [hit] = made.search("do it")
    assert hit.disabled == NEEDS_SELECTION.reason
    assert hit.run is None


def test_who_watches_the_facts_hears_of_changes_only() -> None:
    made = registry()
    heard: list[int] = []
    stop = made.on_facts_changed(lambda: heard.append(1))
    made.set_facts(selection=True)
    made.set_facts(selection=True)
    stop()
    made.set_facts(selection=False)
    assert heard == [1]


def test_ids_and_shortcuts_are_unique_where_they_would_clash() -> None:
    made = registry(Command("devices.a", "A", shortcut="Ctrl+E"), Command("models.a", "A", shortcut="Ctrl+E"))
    with pytest.raises(BugError, match="called"):
        made.register(Command("devices.a", "B"))
    with pytest.raises(BugError, match="Ctrl"):
        made.register(Command("devices.b", "B", shortcut="Ctrl+E"))
    with pytest.raises(BugError, match="Ctrl"):
        made.register(Command("app.b", "B", shortcut="Ctrl+E"))


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("filter", "Filter devices"),
        ("dev fil", "Filter devices"),
        ("opset", "Open settings"),
        ("csv", "Export as CSV…"),
        ("theme dark", "Dark theme"),
        ("rep", "Ask to report now"),
        ("ks", "Keyboard shortcuts"),
        ("gto", "Go to overview"),
    ],
)
def test_the_palette_finds_what_is_meant(typed: str, found: str) -> None:
    assert best(typed) == found


def test_words_that_do_not_occur_find_nothing() -> None:
    assert best("zebra") == ""
    assert best("filter zebra") == ""
    assert match("xyz", "Filter devices") is None


def test_the_beginning_of_a_word_beats_its_inside_and_keywords() -> None:
    at_start, _ = match("open", "Open device") or (0, ())
    inside, _ = match("open", "Reopen device") or (0, ())
    keyword, _ = match("open", "Show device", ("open",)) or (0, ())
    assert at_start > inside > keyword > 0


def test_marks_are_the_letters_that_matched() -> None:
    score = match("dev", "Filter devices")
    assert score is not None
    assert score[1] == (7, 8, 9)
    scattered = match("opset", "Open settings")
    assert scattered is not None
    assert "".join("Open settings"[i] for i in scattered[1]) == "Opset"


def test_what_was_used_lately_comes_first() -> None:
    made = registry(Command("a.one", "Theme one"), Command("a.two", "Theme two"), Command("a.three", "Theme ten"))
    made.run("a.three")
    made.run("a.two")
    assert [hit.id for hit in made.search("")] == ["a.two", "a.three", "a.one"]
    assert next(hit.id for hit in made.search("theme")) == "a.two"


def test_other_sources_answer_too_but_not_to_nothing() -> None:
    class Devices:
        def search(self, text: str, limit: int) -> list[Hit]:
            return [Hit(100.0, "device:edge-1", f"edge-1 {text}")]

    made = registry(Command("a.one", "One"))
    remove = made.add_source(Devices())
    assert [hit.id for hit in made.search("one")] == ["device:edge-1", "a.one"]
    assert [hit.id for hit in made.search(" ")] == ["a.one"]
    remove()
    assert [hit.id for hit in made.search("one")] == ["a.one"]


def test_a_hit_runs_its_own_command() -> None:
    ran: list[str] = []
    made = CommandRegistry()
    for name in ("a.one", "a.two"):
        made.register(Command(name, name))
        made.bind(name, lambda name=name: ran.append(name))
    for hit in made.search("a"):
        assert hit.run is not None
        hit.run()
    assert sorted(ran) == ["a.one", "a.two"]


def test_translated_titles_are_searched() -> None:
    made = registry(Command("a.one", "Settings"))
    assert [h.title for h in made.search("einst", translate={"Settings": "Einstellungen"}.get)] == ["Einstellungen"]


@given(query=st.text(alphabet="aeFilter devics.", max_size=8), title=st.sampled_from(TITLES))
def test_every_letter_of_a_match_is_in_the_title(query: str, title: str) -> None:
    found = match(query, title)
    if found is None:
        return
    _, marks = found
    assert all(0 <= mark < len(title) for mark in marks)
    letters = sorted(set("".join(query.lower().split())))
    assert all(letter in title.lower() for letter in letters)
