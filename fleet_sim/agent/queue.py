"""Reports that wait until the broker has them: bounded, and sparing with what it throws away.

Entries leave in the order in which they came, and only when they are acknowledged. When there are too many:

1. the oldest windows that count the same thing are added up (:func:`windows.merge`): of all neighbouring pairs
   the one that stands for the fewest windows, oldest first, so that a long outage grows coarser evenly;
2. then the oldest event or reply is dropped and counted;
3. then the oldest window is dropped, and counted with its rows.

A report that has a number was sent at least once, so the station may have it: it is never merged or dropped,
only sent again as it was. There are at most ``inflight`` of those.

Numbers (boot and sequence) are given when a report is first sent: what was merged or dropped leaves no gap, and
a gap that a station sees is a loss on the way. Does no I/O: ``take_changes`` says what to write down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import msgspec

from fleet_sim.agent import windows
from fleet_sim.agent.events import Persist
from fleetui.common.link import codec
from fleetui.common.link.messages import Event, Reply, Window
from fleetui.common.link.topics import Up

Queued = Window | Event | Reply
KINDS: dict[type[Queued], Up] = {Window: Up.WIN, Event: Up.EVENT, Reply: Up.REPLY}


@dataclass(frozen=True, slots=True)
class Limits:
    reports: int = 500
    bytes: int = 512 * 1024
    events: int = 100  # of the reports, events and replies
    inflight: int = 16

    def __post_init__(self) -> None:
        if min(self.reports, self.events, self.inflight) < 1 or self.inflight > self.reports:
            raise ValueError(f"not limits: {self}")


class Entry:
    """One report. ``flying``: handed to the transport, not acknowledged."""

    __slots__ = ("flying", "id", "report", "size")

    def __init__(self, ident: int, report: Queued, size: int) -> None:
        self.id = ident
        self.report = report
        self.size = size
        self.flying = False

    @property
    def numbered(self) -> bool:
        return bool(self.report.boot)


class ReportQueue:
    """The reports of one device, oldest first."""

    __slots__ = (
        "_changed",
        "_entries",
        "_gone",
        "_keep",
        "_losses_changed",
        "_next",
        "bytes",
        "dropped",
        "dropped_rows",
        "flying",
        "limits",
        "losses",
        "merged",
        "other",
    )

    def __init__(self, limits: Limits | None = None, *, keep_changes: bool = True) -> None:
        self.limits = limits or Limits()
        self._keep = keep_changes
        self._entries: dict[int, Entry] = {}  # by id; ids rise, so this is the order
        self._next = 1
        self._changed: dict[int, None] = {}
        self._gone: list[int] = []
        self._losses_changed = False
        self.bytes = 0
        self.flying = 0
        self.other = 0  # entries that are not windows
        self.merged = 0  # windows that were added up into another one, ever
        self.dropped = 0  # reports, ever
        self.dropped_rows = 0
        self.losses: dict[str, int] = {}  # what was dropped and not told yet: kind or "rows" -> count

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, ident: int) -> Entry | None:
        return self._entries.get(ident)

    @property
    def has_waiting(self) -> bool:
        return len(self._entries) > self.flying

    def new_id(self) -> int:
        """Tokens of what is not queued (births, goodbyes) come from the same numbers."""
        self._next += 1
        return self._next - 1

    # ------------------------------------------------------------ in and out

    def add(self, report: Queued) -> int:
        """Queue a report without a number, making room if there is none. Its id, if it is still there then."""
        ident = self.new_id()
        self._put(Entry(ident, report, len(codec.encode(report))))
        self._make_room()
        return ident

    def restore(self, saved: Iterable[tuple[int, Queued]], losses: dict[str, int] | None = None) -> None:
        """What an earlier run left behind, in its order."""
        for ident, report in sorted(saved, key=lambda item: item[0]):
            self._put(Entry(ident, report, len(codec.encode(report))), changed=False)
            self._next = max(self._next, ident + 1)
        for kind, count in (losses or {}).items():
            self._count_loss(kind, count)
        self._make_room()

    def waiting(self) -> Iterator[Entry]:
        return (entry for entry in self._entries.values() if not entry.flying)

    def fly(self, number: Callable[[], tuple[str, int]]) -> Entry | None:
        """The next report to be sent, with its number; None when nothing waits or enough is on the way."""
        if self.flying >= self.limits.inflight:
            return None
        entry = next(self.waiting(), None)
        if entry is None:
            return None
        if not entry.numbered:
            boot, seq = number()
            entry.report = msgspec.structs.replace(entry.report, boot=boot, seq=seq)
            self._note(entry.id)
        entry.flying = True
        self.flying += 1
        return entry

    def acknowledge(self, ident: int) -> Queued | None:
        """The broker has it. None for one that is unknown or was never sent: a late or repeated answer."""
        entry = self._entries.get(ident)
        if entry is None or not entry.numbered:
            return None
        self._remove(entry)
        return entry.report

    def refuse(self, ident: int) -> bool:
        """The transport let go of it: it waits again, at its place, with its number."""
        entry = self._entries.get(ident)
        if entry is None or not entry.flying:
            return False
        entry.flying = False
        self.flying -= 1
        return True

    def take_losses(self) -> dict[str, int]:
        """What was dropped since this was last asked: whoever asks reports it."""
        losses, self.losses = self.losses, {}
        self._losses_changed = self._losses_changed or (self._keep and bool(losses))
        return losses

    # ------------------------------------------------------------ on disk

    def take_changes(self) -> Persist | None:
        """What has changed since the last call, as one record; None if nothing."""
        if not (self._changed or self._gone or self._losses_changed):
            return None
        puts = tuple(
            (entry.id, KINDS[type(entry.report)].value, codec.encode(entry.report))
            for ident in self._changed
            if (entry := self._entries.get(ident)) is not None
        )
        record = Persist(puts, tuple(self._gone), dict(self.losses))
        self._changed.clear()
        self._gone.clear()
        self._losses_changed = False
        return record

    def snapshot(self) -> list[tuple[int, Queued]]:
        return [(entry.id, entry.report) for entry in self._entries.values()]

    # ------------------------------------------------------------ inside

    def _note(self, ident: int) -> None:
        if self._keep:
            self._changed[ident] = None

    def _put(self, entry: Entry, *, changed: bool = True) -> None:
        self._entries[entry.id] = entry
        self.bytes += entry.size
        self.other += not isinstance(entry.report, Window)
        if changed:
            self._note(entry.id)

    def _remove(self, entry: Entry) -> None:
        del self._entries[entry.id]
        self.bytes -= entry.size
        self.flying -= entry.flying
        self.other -= not isinstance(entry.report, Window)
        if self._keep:
            self._changed.pop(entry.id, None)
            self._gone.append(entry.id)

    def _make_room(self) -> None:
        limits = self.limits
        while self.other > limits.events and self._drop(windows_too=False):
            pass
        while len(self._entries) > limits.reports or self.bytes > limits.bytes:
            if not (self._merge() or self._drop(windows_too=False) or self._drop(windows_too=True)):
                return  # only reports that were sent already: bounded by inflight

    def _merge(self) -> bool:
        best: tuple[Entry, Entry] | None = None
        fewest = 0
        last: dict[windows.Key, Entry] = {}
        for entry in self._entries.values():
            report = entry.report
            if not isinstance(report, Window) or entry.numbered:
                continue
            key = windows.key(report)
            before = last.get(key)
            last[key] = entry
            if before is None or not isinstance(before.report, Window):
                continue
            together = windows.windows_in(before.report) + windows.windows_in(report)
            if (best is None or together < fewest) and windows.mergeable(before.report, report):
                best, fewest = (before, entry), together
        if best is None:
            return False
        first, second = best
        assert isinstance(first.report, Window)
        assert isinstance(second.report, Window)
        self._remove(second)
        self.bytes -= first.size
        first.report = windows.merge(first.report, second.report)
        first.size = len(codec.encode(first.report))
        self.bytes += first.size
        self._note(first.id)
        self.merged += 1
        return True

    def _drop(self, *, windows_too: bool) -> bool:
        for entry in self._entries.values():
            report = entry.report
            if entry.numbered or (isinstance(report, Window) and not windows_too):
                continue
            self._remove(entry)
            self._count_loss(KINDS[type(report)].value, 1)
            self.dropped += 1
            if isinstance(report, Window):
                self._count_loss("rows", report.rows)
                self.dropped_rows += report.rows
            return True
        return False

    def _count_loss(self, kind: str, count: int) -> None:
        if count:
            self.losses[kind] = self.losses.get(kind, 0) + count
            self._losses_changed = self._keep
