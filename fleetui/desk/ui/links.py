"""What the status bar says of broker, station and store, put together from three sources.

The supervisor says how this desk's own children are, the station says in the store how it is connected, and the
feed says whether the store can be read. A station that has not been heard of for a while is said to be silent,
whatever it said last. Main thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal, Slot

from fleetui.common.domain import ages
from fleetui.common.domain.states import ChildState
from fleetui.desk.app.supervise import Note
from fleetui.store.records import Changes, StationStatus

if TYPE_CHECKING:
    from fleetui.desk.app.feed import FeedStatus
    from fleetui.desk.ui.context import DeskContext

SILENT_S = 45.0  # real seconds; a station says something a few times a minute
LINK_LOOKS = {"online": "connected", "connecting": "connecting", "waiting": "waiting", "refused": "refused"}


@dataclass(frozen=True, slots=True)
class Link:
    status: str  # a look of the theme
    detail: str


class Links(QObject):
    """``changed(key, status, detail)`` for each link that is different now."""

    changed = Signal(str, str, str)

    def __init__(self, context: DeskContext, children: tuple[str, ...], parent: QObject | None = None) -> None:
        """``children`` are those that this desk runs itself."""
        super().__init__(parent)
        self._context = context
        self._own = frozenset(children)
        self._notes: dict[str, Note] = {}
        self._feed: FeedStatus | None = None
        self._shown: dict[str, Link] = {}
        context.changed.connect(self._take)
        context.ticked.connect(self.refresh)

    def note(self, note: Note) -> None:
        """From the supervisor."""
        if note.sentence:
            self._notes[note.name] = note
        self.refresh()

    def feed(self, status: FeedStatus) -> None:
        self._feed = status
        self.refresh()

    @Slot(object)
    def _take(self, changes: Changes) -> None:
        if changes.stations:
            self.refresh()

    @Slot()
    def refresh(self) -> None:
        for key, link in (("broker", self._broker()), ("station", self._station()), ("store", self._store())):
            if self._shown.get(key) != link:
                self._shown[key] = link
                self.changed.emit(key, link.status, link.detail)
        self._context.commands.set_facts(
            store=self._feed is not None and self._feed.ok, station=self._shown["station"].status == "running"
        )

    def __getitem__(self, key: str) -> Link:
        return self._shown[key]

    # ------------------------------------------------------------ each of them

    def _child(self, name: str) -> Link | None:
        """Of a child of ours that is not simply running."""
        if name not in self._own:
            return None
        note = self._notes.get(name)
        if note is None:
            return Link("starting", "")
        if note.state is ChildState.RUNNING:
            return None
        fix = f" {note.fix}." if note.fix else ""
        return Link(str(note.state), f"{note.sentence}.{fix}")

    def _heard(self) -> tuple[StationStatus | None, float]:
        """The station's last word, and how many real seconds ago it was."""
        status = self._context.station
        if status is None:
            return None, 0.0
        clock = self._context.clock
        return status, (clock.now() - status.at) / max(clock.rate, 1e-9)

    def _broker(self) -> Link:
        child = self._child("broker")
        if child is not None:
            return child
        status, ago = self._heard()
        if status is None or ago > SILENT_S:
            if "broker" in self._own:
                return Link("running", self.tr("It runs; the station has not said yet whether it is connected."))
            return Link("unknown", self.tr("Only the station is connected to it, and it is not heard of."))
        if status.link in LINK_LOOKS:
            reason = f": {status.link_reason}" if status.link_reason and status.link != "online" else ""
            return Link(LINK_LOOKS[status.link], f"{status.broker}{reason}")
        return Link("idle", status.link_reason)

    def _station(self) -> Link:
        child = self._child("station")
        if child is not None:
            return child
        status, ago = self._heard()
        if status is None:
            if "station" in self._own:
                return Link("starting", self.tr("It has not said anything yet."))
            return Link("none", self.tr("No station has ever written to this store."))
        if ago > SILENT_S:
            silent = ages.age(ago)
            return Link("silent", self.tr("{0} has not been heard of for {1}.").format(status.station, silent))
        words = self.tr("{0} leads.") if status.leader else self.tr("{0} stands by.")
        return Link("running", words.format(status.station))

    def _store(self) -> Link:
        feed = self._feed
        where = getattr(self._context.store, "url", "")
        if feed is None:
            return Link("reading", where)
        if not feed.ok:
            fix = f" {feed.fix}." if feed.fix else ""
            return Link("disconnected", f"{feed.sentence}.{fix}")
        return Link("connected" if feed.caught_up else "reading", where)
