"""The command registry: what can be done, as data. Menus, shortcuts, palette and help are views of this list.

A command names its callback by id; who owns the callback binds it. A command is enabled when every one of its
``needs`` holds in the registry's context, a handful of named facts that pages keep up to date; where one does
not hold, the need's sentence is why, and is what a disabled entry shows. Main thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleetui.common.domain.errors import BugError
from fleetui.desk.app.text import QT_TRANSLATE_NOOP


@dataclass(frozen=True, slots=True)
class Need:
    """A fact that must hold, and the sentence for when it does not."""

    fact: str
    reason: str


NEEDS_SELECTION = Need("selection", QT_TRANSLATE_NOOP("Commands", "Select a device first"))
NEEDS_ONE = Need("selection.one", QT_TRANSLATE_NOOP("Commands", "Select exactly one device"))
NEEDS_STORE = Need("store", QT_TRANSLATE_NOOP("Commands", "The store cannot be reached"))
NEEDS_STATION = Need("station", QT_TRANSLATE_NOOP("Commands", "No station is running"))


@dataclass(frozen=True, slots=True)
class Command:
    """One thing that can be done. ``shortcut`` is in Qt's portable notation (``Ctrl+K``)."""

    id: str
    title: str
    callback: str = ""  # the id itself, where empty
    group: str = ""
    shortcut: str = ""
    needs: tuple[Need, ...] = ()
    keywords: tuple[str, ...] = ()
    icon: str = ""
    destructive: bool = False
    in_palette: bool = True


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer of the palette. ``marks`` are the positions of ``title`` that matched."""

    score: float
    id: str
    title: str
    group: str = ""
    marks: tuple[int, ...] = ()
    shortcut: str = ""
    disabled: str = ""  # why it cannot be run now
    run: Callable[[], object] | None = field(default=None, compare=False)


class HitSource(Protocol):
    """Something else the palette finds: devices, pages, saved views."""

    def search(self, text: str, limit: int) -> Iterable[Hit]: ...


Callback = Callable[..., object]


class CommandRegistry:
    """All commands of the desk, what they are bound to, and the facts that enable them."""

    def __init__(self) -> None:
        self._commands: dict[str, Command] = {}
        self._bound: dict[str, Callback] = {}
        self._facts: dict[str, object] = {}
        self._recent: list[str] = []
        self._sources: list[HitSource] = []
        self._watchers: list[Callable[[], None]] = []

    def register(self, *commands: Command) -> None:
        for command in commands:
            if command.id in self._commands:
                raise BugError(f"two commands are called {command.id}")
            if command.shortcut:
                for other in self._commands.values():
                    if other.shortcut == command.shortcut and _same_place(other.id, command.id):
                        raise BugError(f"{command.id} and {other.id} both want {command.shortcut}")
            self._commands[command.id] = command

    def bind(self, callback: str, function: Callback) -> Callable[[], None]:
        """``function`` answers for ``callback`` from now on; returns how to undo that."""
        self._bound[callback] = function

        def unbind() -> None:
            if self._bound.get(callback) is function:
                del self._bound[callback]

        return unbind

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands.values())

    def __contains__(self, command_id: str) -> bool:
        return command_id in self._commands

    def __getitem__(self, command_id: str) -> Command:
        return self._commands[command_id]

    def groups(self) -> dict[str, list[Command]]:
        """By group, in the order of registration: the shortcut sheet and the menus."""
        table: dict[str, list[Command]] = {}
        for command in self._commands.values():
            table.setdefault(command.group, []).append(command)
        return table

    def set_facts(self, **facts: object) -> None:
        """What holds now. Dots in names are written as double underscores: ``selection__one``."""
        new = {name.replace("__", "."): value for name, value in facts.items()}
        if any(self._facts.get(name) != value for name, value in new.items()):
            self._facts.update(new)
            for watcher in list(self._watchers):
                watcher()

    @property
    def facts(self) -> Mapping[str, object]:
        return self._facts

    def on_facts_changed(self, watcher: Callable[[], None]) -> Callable[[], None]:
        self._watchers.append(watcher)

        def stop() -> None:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

        return stop

    def why_not(self, command_id: str) -> str:
        """Why the command cannot be run now; empty where it can."""
        command = self._commands[command_id]
        for need in command.needs:
            if not self._facts.get(need.fact):
                return need.reason
        if (command.callback or command.id) not in self._bound:
            return QT_TRANSLATE_NOOP("Commands", "Not available on this page")
        return ""

    def run(self, command_id: str, **arguments: Any) -> bool:
        """Runs it, unless it is disabled; says whether it ran."""
        if self.why_not(command_id):
            return False
        command = self._commands[command_id]
        if command_id in self._recent:
            self._recent.remove(command_id)
        self._recent.insert(0, command_id)
        del self._recent[8:]
        self._bound[command.callback or command.id](**arguments)
        return True

    def add_source(self, source: HitSource) -> Callable[[], None]:
        self._sources.append(source)

        def remove() -> None:
            if source in self._sources:
                self._sources.remove(source)

        return remove

    def search(self, text: str, limit: int = 30, translate: Callable[[str], str] = str) -> list[Hit]:
        """The palette: best matches first. Without a text: what was used last, then everything in order."""
        hits: list[Hit] = []
        for place, command in enumerate(self._commands.values()):
            if not command.in_palette:
                continue
            title, group = translate(command.title), translate(command.group)
            found = match(text, title, (group, *command.keywords))
            if found is None:
                continue
            score, marks = found
            if command.id in self._recent:
                score += 6 - 0.5 * self._recent.index(command.id)
            why = self.why_not(command.id)
            hits.append(
                Hit(
                    score - (8 if why else 0) - place * 1e-4,
                    command.id,
                    title,
                    group,
                    marks,
                    command.shortcut,
                    translate(why) if why else "",
                    None if why else _runner(self, command.id),
                )
            )
        if text.strip():
            for source in self._sources:
                hits.extend(source.search(text, limit))
        hits.sort(key=lambda hit: -hit.score)
        return hits[:limit]


def _runner(registry: CommandRegistry, command_id: str) -> Callable[[], object]:
    return lambda: registry.run(command_id)


def _same_place(one: str, other: str) -> bool:
    """Commands of two different pages may share a shortcut; one of everywhere shares it with none."""
    here, there = one.partition(".")[0], other.partition(".")[0]
    return here == there or "app" in {here, there}


# ---------------------------------------------------------------- matching


def match(query: str, title: str, others: Iterable[str] = ()) -> tuple[float, tuple[int, ...]] | None:
    """How well ``query`` names ``title``, and where; None where it does not.

    Every word of the query must be found. In the title, the beginning of a word counts most, then the inside of
    one, then the letters scattered in order (``opset`` finds “Open settings”); a keyword or the group counts less.
    """
    words = query.lower().split()
    low = title.lower()
    score, marks = 0.0, set[int]()
    for word in words:
        found = _in_title(word, low)
        if found is None:
            for other in others:
                at = other.lower().find(word)
                if at >= 0:
                    score += 8.0 if at == 0 else 4.0
                    break
            else:
                return None
            continue
        score += found[0]
        marks.update(found[1])
    if words and low.startswith(query.lower().strip()):
        score += 12
    return score - 0.02 * len(title), tuple(sorted(marks))


def _in_title(word: str, title: str) -> tuple[float, range | list[int]] | None:
    at = title.find(word)
    while at > 0 and title[at - 1].isalnum():  # prefer the beginning of a word to the inside of one
        later = title.find(word, at + 1)
        if later < 0:
            break
        at = later
    if at >= 0:
        begins = at == 0 or not title[at - 1].isalnum()
        return (20.0 if begins else 10.0) + len(word), range(at, at + len(word))
    return _scattered(word, title)


def _scattered(word: str, title: str) -> tuple[float, list[int]] | None:
    """The letters in order, each run of them at the beginning of a word or following the last letter."""
    if len(word) < 2:
        return None
    places: list[int] = []
    start = 0
    for letter in word:
        next_letter = title.find(letter, start)
        if next_letter < 0:
            return None
        if places and next_letter != places[-1] + 1:
            # Not adjacent: only the beginning of a later word will do, or anything would match anything.
            while next_letter >= 0 and title[next_letter - 1].isalnum():
                next_letter = title.find(letter, next_letter + 1)
            if next_letter < 0:
                return None
        places.append(next_letter)
        start = next_letter + 1
    begins = places[0] == 0 or not title[places[0] - 1].isalnum()
    return (6.0 if begins else 2.0) + 0.5 * len(word), places
