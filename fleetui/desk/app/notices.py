"""The notification centre's logic: what happened, in a sentence, grouped so that a storm is one line.

A notice has a key. What happens again under the same key raises its count and moves it to the top instead of
adding a line; what a notice was about can end (``resolve``), and then the line says so and stays. Sources are
events of the feed from warnings up, the supervisor of the child processes, and errors of operations. Bounded:
the oldest read notices go first. Main thread only; the window draws, this decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from fleetui.common.domain.clock import Clock
from fleetui.common.domain.errors import OperatorError
from fleetui.common.domain.filters.render import quote
from fleetui.common.domain.states import ChildState
from fleetui.desk.app.settings import Settings
from fleetui.desk.app.settings_list import NOTIFY_CRITICAL, NOTIFY_ERROR, NOTIFY_INFO, NOTIFY_WARNING
from fleetui.desk.app.supervise import Note
from fleetui.store.records import EventRow, Wish, WishState

KEPT = 500
DEVICES_NAMED = 1000  # of one grouped notice; beyond that only their number grows
LISTED = 100  # devices that the button of a grouped notice lists: a filter stays readable
DAY_S = 86_400.0
LATE_S = 600.0  # how old an event may be that only now arrives
SPEAK_AGAIN_S = 20.0  # real seconds before the same key pops up again


class Level(IntEnum):
    """As in ``EventRow.level``."""

    INFO = 1
    WARNING = 2
    ERROR = 3
    CRITICAL = 4


@dataclass(frozen=True, slots=True)
class NoticeAction:
    """A button: the command it runs, or the page it leads to."""

    label: str
    command: str = ""
    page: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Notice:
    id: int
    key: str
    level: Level
    sentence: str
    at: float  # fleet time, of the last time
    fix: str = ""
    first: float = 0.0
    count: int = 1
    devices: tuple[str, ...] = ()
    actions: tuple[NoticeAction, ...] = ()
    source: str = ""
    read: bool = False
    over: float = 0.0  # when it ended; 0 while it lasts or where it is not a lasting thing

    @property
    def lasting(self) -> bool:
        return not self.over


_SETTING = {
    Level.INFO: NOTIFY_INFO,
    Level.WARNING: NOTIFY_WARNING,
    Level.ERROR: NOTIFY_ERROR,
    Level.CRITICAL: NOTIFY_CRITICAL,
}

# What devices report most, in words; anything else is shown as the device wrote it.
_GROUPED = {
    "overheating": "{n} are overheating",
    "throttled": "{n} are throttled",
    "inference_failed": "Inferences fail on {n}",
    "disk_full": "The disk is full on {n}",
    "clock_wrong": "The clock is wrong on {n}",
    "device.offline": "{n} went offline",
    "device.late": "{n} are late",
}


def _plain(kind: str) -> str:
    """An event's kind as words: ``device.clock_wrong`` is “clock wrong”."""
    return kind.rpartition(".")[2].replace("_", " ")


class NoticeCentre:
    """All notices, newest first. ``on_new`` hears what should pop up, ``on_changed`` that the list is different."""

    def __init__(self, clock: Clock, settings: Settings) -> None:
        self._clock = clock
        self._settings = settings
        self._notices: dict[str, Notice] = {}
        self._ids = itertools.count(1)
        self._spoke: dict[str, float] = {}
        self._started = clock.now()
        self._read_once = False
        self._on_new: list[Callable[[Notice], None]] = []
        self._on_changed: list[Callable[[], None]] = []

    # ------------------------------------------------------------ reading

    def __iter__(self) -> Iterator[Notice]:
        return iter(self.all())

    def __len__(self) -> int:
        return len(self._notices)

    def all(self) -> list[Notice]:
        """Newest first."""
        return sorted(self._notices.values(), key=lambda n: (-n.at, -n.id))

    @property
    def unread(self) -> int:
        return sum(not n.read for n in self._notices.values())

    @property
    def worst(self) -> Level | None:
        """The highest level among what is unread and lasts: the colour of the badge."""
        return max((n.level for n in self._notices.values() if not n.read and n.lasting), default=None)

    def get(self, key: str) -> Notice | None:
        return self._notices.get(key)

    def on_new(self, listener: Callable[[Notice], None]) -> None:
        self._on_new.append(listener)

    def on_changed(self, listener: Callable[[], None]) -> None:
        self._on_changed.append(listener)

    # ------------------------------------------------------------ saying

    def say(
        self,
        level: Level,
        sentence: str,
        fix: str = "",
        *,
        key: str = "",
        source: str = "desk",
        actions: tuple[NoticeAction, ...] = (),
        devices: tuple[str, ...] = (),
        at: float | None = None,
        quiet: bool = False,
        times: int = 1,
    ) -> Notice:
        """A notice; without a ``key``, the sentence is its key. ``quiet``: listed, but it does not pop up."""
        moment = self._clock.now() if at is None else at
        key = key or f"say:{sentence}"
        old = self._notices.get(key)
        if old is None:
            notice = Notice(
                next(self._ids), key, level, sentence, moment, fix, moment, times, devices, actions, source
            )
        else:
            known = dict.fromkeys(old.devices)
            known.update(dict.fromkeys(devices))
            notice = replace(
                old,
                level=max(level, old.level) if old.lasting else level,
                sentence=sentence,
                fix=fix,
                at=max(moment, old.at),
                count=old.count + times,
                devices=tuple(known)[:DEVICES_NAMED],
                actions=actions,
                read=False,
                over=0.0,
            )
        self._notices[key] = notice
        self._trim()
        if not quiet and self._may_speak(notice):
            for listener in list(self._on_new):
                listener(notice)
        self._changed()
        return notice

    def error(self, error: Exception, title: str = "", *, key: str = "", source: str = "desk") -> Notice:
        """An error in the words of its kind: the operator's with its fix, a bug as one."""
        lead = f"{title}: " if title else ""
        if isinstance(error, OperatorError):
            return self.say(Level.ERROR, f"{lead}{error.sentence}", error.fix, key=key, source=source)
        return self.say(
            Level.CRITICAL,
            f"{lead}something went wrong that should not ({type(error).__name__}: {error})",
            "The log has the details; please report it",
            key=key,
            source=source,
        )

    def events(self, events: Iterable[EventRow], named: Callable[[str], str] = str) -> None:
        """From the feed: warnings and worse, grouped by what happened.

        What the store holds at the start is listed without a word, as far as it is of the last day. What comes in
        later and is older than this desk is history that somebody reads in, and nothing to be told of.
        """
        oldest = self._started - (LATE_S if self._read_once else DAY_S)
        self._read_once = True
        groups: dict[tuple[str, str], list[EventRow]] = {}
        for event in events:
            if event.level >= Level.WARNING and event.source != "desk" and event.at >= oldest:
                groups.setdefault((event.source, event.kind), []).append(event)
        for (source, kind), rows in groups.items():
            self._event_group(source, kind, rows, named)

    def _event_group(self, source: str, kind: str, rows: list[EventRow], named: Callable[[str], str]) -> None:
        key = f"event:{source}:{kind}"
        devices = dict.fromkeys(row.device for row in rows if row.device)
        old = self._notices.get(key)
        everyone = dict.fromkeys(old.devices) if old else {}
        everyone.update(devices)
        last = max(rows, key=lambda row: row.at)
        actions: tuple[NoticeAction, ...] = ()
        if len(everyone) > 1 and not last.device and last.text:
            sentence = last.text  # the control room has put it together itself
        elif len(everyone) > 1:
            number = f"{len(everyone):,} devices"
            sentence = _GROUPED.get(kind, _plain(kind).capitalize() + " on {n}").format(n=number)
            if last.text and last.device:
                sentence += f"; last: {named(last.device)}, {last.text.rstrip('.')}"
        if len(everyone) > 1:
            some = f"id:({','.join(quote((device,)) for device in list(everyone)[:LISTED])})"
            actions = (NoticeAction("Show devices", page="devices", arguments={"filter": some}),)
        elif last.device:
            sentence = f"{named(last.device)}: {last.text or _plain(kind)}"
            actions = (NoticeAction("Show device", page="devices", arguments={"device": last.device}),)
        else:
            sentence = last.text or _plain(kind).capitalize()
        self.say(
            Level(min(max(row.level for row in rows), int(Level.CRITICAL))),
            sentence.rstrip("."),
            key=key,
            source=source,
            actions=actions,
            devices=tuple(devices),
            at=last.at,
            quiet=last.at < self._started,
            times=len(rows),
        )

    def wish_failed(self, wish: Wish, words: str) -> None:
        """A wish of this desk that came to nothing; what is done shows where it was done."""
        verb = "was refused" if wish.state is WishState.REFUSED else "failed"
        self.say(
            Level.ERROR,
            f"{words} {verb}" + (f": {wish.outcome.rstrip('.')}" if wish.outcome else ""),
            key=f"wish:{wish.id}",
            source="station",
            at=wish.ended or wish.at,
        )

    def child(self, note: Note) -> None:
        """What happened to a child process, where people should know: it fell, it is up again, it stays down."""
        key = f"child:{note.name}"
        if note.state is ChildState.FAILED:
            again = NoticeAction("Start again", command="app.restart_child", arguments={"name": note.name})
            self.say(Level.ERROR, note.sentence, note.fix, key=key, source=note.name, actions=(again,))
        elif note.level >= Level.WARNING and note.sentence:
            up = note.state is ChildState.RUNNING
            # The fall is listed at once, but it speaks only when it is known how it ended.
            self.say(Level.WARNING, note.sentence, note.fix, key=key, source=note.name, quiet=not up)
            if up:
                self.resolve(key, read=False)
        elif note.state is ChildState.RUNNING and note.sentence and self.get(key) is not None:
            self.resolve(key)

    def resolve(self, key: str, sentence: str = "", *, read: bool = True) -> None:
        """What the notice was about is over; it stays and says since when, and is unread no more if ``read``."""
        old = self._notices.get(key)
        if old is None or old.over:
            return
        self._notices[key] = replace(
            old, over=self._clock.now(), sentence=sentence or old.sentence, read=old.read or read
        )
        self._changed()

    # ------------------------------------------------------------ keeping

    def mark_read(self, *keys: str) -> None:
        """These, or all."""
        changed = False
        for key in keys or tuple(self._notices):
            notice = self._notices.get(key)
            if notice is not None and not notice.read:
                self._notices[key] = replace(notice, read=True)
                changed = True
        if changed:
            self._changed()

    def dismiss(self, *keys: str) -> None:
        """These, or everything that is read or over."""
        gone = keys or tuple(k for k, n in self._notices.items() if n.read or n.over)
        if any(self._notices.pop(key, None) for key in gone):
            self._changed()

    def _may_speak(self, notice: Notice) -> bool:
        if not self._settings.get(_SETTING[notice.level]):
            return False
        now = self._clock.monotonic()
        last = self._spoke.get(notice.key)
        if last is not None and now - last < SPEAK_AGAIN_S:
            return False
        self._spoke[notice.key] = now
        if len(self._spoke) > 4 * KEPT:
            self._spoke = {k: t for k, t in self._spoke.items() if now - t < SPEAK_AGAIN_S}
        return True

    def _trim(self) -> None:
        while len(self._notices) > KEPT:
            oldest = min(self._notices.values(), key=lambda n: (not n.read, n.at, n.id))
            del self._notices[oldest.key]

    def _changed(self) -> None:
        for listener in list(self._on_changed):
            listener()
