"""The desk's side of the change feed: a thread that looks into the store and hands the main thread what is new.

It looks at most ``hz`` times a second and less often when applying takes long, so that the window always has most
of its time for people. What it finds waits in a slot (``slot.py``); ``deliver`` is called on the main thread with
one slice after the other, each small enough for a frame. A store that cannot be read is a status with a sentence;
the thread goes on trying. It never writes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from fleetui.common.domain.clock import Clock
from fleetui.common.domain.errors import OperatorError
from fleetui.desk.app.lazystore import Reads
from fleetui.desk.app.operations import PostToMain
from fleetui.desk.app.slot import Slot
from fleetui.store import devices, events, feed, status, views, wishes
from fleetui.store.records import Changes

log = logging.getLogger("fleetui.desk.feed")

SLICE = 1000  # devices applied in one go: about 5 ms
PAGE = 1000  # devices read in one go
EVENTS_AT_FIRST = 300
SLOWEST_S = 2.0
SHARE = 0.2  # of the main thread's time that applying may take
RETRY_S = (0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """How the feed is doing. ``ok`` False: ``sentence`` and ``fix`` say why nothing new is shown."""

    ok: bool = True
    caught_up: bool = False  # everything that is in the store is shown
    sentence: str = ""
    fix: str = ""
    since: float = 0.0  # fleet time at which it became so
    tries: int = 0


@dataclass(frozen=True, slots=True)
class FeedCounters:
    """Was it dropped, or not drawn? These say."""

    reads: int = 0
    rows_read: int = 0
    rows_drawn: int = 0
    events_read: int = 0
    events_drawn: int = 0
    events_skipped: int = 0
    apply_ms: float = 0.0  # of the last delivery
    interval_s: float = 0.0


class ChangeFeed:
    """Start it with ``start``; ``deliver`` and ``on_status`` are called on the main thread."""

    def __init__(
        self,
        store: Reads,
        clock: Clock,
        post_to_main: PostToMain,
        deliver: Callable[[Changes], None],
        on_status: Callable[[FeedStatus], None],
        hz: float = 4.0,
        next_turn: PostToMain | None = None,
    ) -> None:
        """``next_turn`` runs a function on the main thread *after* the window had a turn for painting and people;
        called there, between two slices.
        """
        self._store = store
        self._clock = clock
        self._post = post_to_main
        self._next_turn = next_turn or post_to_main
        self._deliver = deliver
        self._on_status = on_status
        self._shortest_s = 1.0 / hz
        self._slot = Slot()
        self._wake = threading.Condition()
        self._wanted = False
        self._stopping = False
        self._since = -1  # nothing was read yet
        self._known: set[str] = set()
        self._status = FeedStatus()
        self._counters = FeedCounters()
        self._apply_s = 0.0
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    # ------------------------------------------------------------ main thread

    def start(self) -> None:
        self._thread.start()

    def set_rate(self, hz: float) -> None:
        self._shortest_s = 1.0 / hz

    def look(self) -> None:
        """Look now rather than at the next turn: something was just written here."""
        with self._wake:
            self._wanted = True
            self._wake.notify_all()

    @property
    def status(self) -> FeedStatus:
        return self._status

    @property
    def counters(self) -> FeedCounters:
        return replace(
            self._counters, interval_s=self._interval(), events_skipped=self._slot.waiting.events_skipped
        )

    def stop(self) -> None:
        """No more deliveries; waits for the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join(20.0)
            if self._thread.is_alive():
                log.warning("the feed did not end: the store does not answer")

    def _hand_over(self) -> None:
        """One slice, and the next one after the window has had its turn."""
        if self._stopping:
            return
        changes = self._slot.take(SLICE)
        if changes is None:
            return
        began = self._clock.monotonic()
        try:
            self._deliver(changes)
        finally:
            self._apply_s = 0.7 * self._apply_s + 0.3 * (self._clock.monotonic() - began)
            self._counters = replace(
                self._counters,
                rows_drawn=self._counters.rows_drawn + len(changes.devices),
                events_drawn=self._counters.events_drawn + len(changes.events),
                apply_ms=1000 * (self._clock.monotonic() - began),
            )
            if self._slot.filled:
                self._next_turn(self._hand_over)
            else:
                with self._wake:
                    self._wake.notify_all()

    # ------------------------------------------------------------ the thread

    def _interval(self) -> float:
        return min(SLOWEST_S, max(self._shortest_s, self._apply_s / SHARE))

    def _run(self) -> None:
        tries = 0
        while not self._stopping:
            try:
                more = self._look()
            except Exception as error:  # noqa: BLE001 - a reader that dies would freeze the window's picture without a word
                tries += 1
                self._failed(error, tries)
                self._pause(RETRY_S[min(tries, len(RETRY_S)) - 1])
                continue
            tries = 0
            self._tell(FeedStatus(ok=True, caught_up=not more))
            if not more:
                self._pause(self._interval())
            self._wait_for_room()

    def _look(self) -> bool:
        """Reads once; says whether there is more to read at once."""
        if self._since < 0:
            self._begin()
            return True
        with self._store.read() as connection:
            if feed.head(connection) < self._since:
                # An older store was put in its place (a restored backup): begin again.
                self._since = -1
                return True
            changes = feed.read(connection, self._since, limit=PAGE)
        if changes.seq > self._since or changes.devices or changes.removed:
            self._put(changes)
        self._since = changes.seq
        return changes.more

    def _begin(self) -> None:
        """Everything that is shown, from one snapshot: devices by pages, then the rest."""
        found: set[str] = set()
        with self._store.read() as connection:
            head = feed.head(connection)
            since = 0
            while not self._stopping:
                rows = devices.changed(connection, since, PAGE)
                if not rows:
                    break
                since = rows[-1].seq
                found.update(row.device for row in rows)
                self._put(Changes(seq=since, devices=tuple(rows), more=True))
                self._wait_for_room(
                    0
                )  # reading and drawing take turns: both at once, each would wait for the other
            gone = tuple(self._known - found)
            self._put(
                Changes(
                    seq=head,
                    removed=gone,
                    events=tuple(reversed(events.read(connection, limit=EVENTS_AT_FIRST))),
                    wishes=tuple(reversed(wishes.recent(connection, only_open=True))),
                    views=views.list(connection),
                    stations=status.list(connection),
                )
            )
        self._known -= set(gone)
        self._since = head

    def _put(self, changes: Changes) -> None:
        self._known.update(row.device for row in changes.devices)
        self._known.difference_update(set(changes.removed) - {row.device for row in changes.devices})
        self._counters = replace(
            self._counters,
            reads=self._counters.reads + 1,
            rows_read=self._counters.rows_read + len(changes.devices),
            events_read=self._counters.events_read + len(changes.events),
        )
        if self._slot.put(changes):
            self._post(self._hand_over)

    def _failed(self, error: Exception, tries: int) -> None:
        if isinstance(error, OperatorError):
            sentence, fix = error.sentence, error.fix
            log.warning("cannot read the store: %s", error)
        else:
            sentence, fix = f"The store cannot be read ({type(error).__name__}: {error})", "The log has the details"
            log.error("cannot read the store", exc_info=error)
        # The first miss may be a moment's lock; people hear of the second.
        if tries >= 2 or self._since < 0:
            self._tell(FeedStatus(False, False, sentence, fix, tries=tries))

    def _tell(self, new: FeedStatus) -> None:
        old = self._status
        if replace(old, since=0.0, tries=0) == replace(new, since=0.0, tries=0):
            return
        same = old.ok == new.ok
        self._status = replace(new, since=old.since if same and old.since else self._clock.now())
        said = self._status
        self._post(lambda: self._on_status(said))

    def _pause(self, seconds: float) -> None:
        deadline = self._clock.monotonic() + seconds
        with self._wake:
            while not self._stopping and not self._wanted:
                rest = deadline - self._clock.monotonic()
                if rest <= 0:
                    break
                self._wake.wait(rest)
            self._wanted = False

    def _wait_for_room(self, devices_: int = 4 * PAGE) -> None:
        """Does not read ahead of a window that is busy: what is not read yet lies well in the store."""
        with self._wake:
            while not self._stopping and self._slot.waiting.devices > devices_:
                self._wake.wait(0.5)
