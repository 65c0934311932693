"""Where changes wait for the main thread: one slot, newest state wins, nothing counted twice, bounded.

The feed's thread puts in, the main thread takes out in slices small enough for one frame. A device that changes
three times while the window is busy is drawn once. Rows are bounded by the number of devices, events by
``EVENTS``: the oldest beyond that are not shown, are counted, and lie in the store as ever. Any thread.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from fleetui.store.records import Changes, DeviceRow, EventRow, SavedView, StationStatus, Wish

EVENTS = 2000


@dataclass(frozen=True, slots=True)
class Waiting:
    devices: int
    events: int
    events_skipped: int


class Slot:
    """Merges :class:`Changes`. What was removed and came back, or came and was removed, ends as its last state."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seq = 0
        self._filled = False
        self._devices: dict[str, DeviceRow] = {}
        self._removed: dict[str, None] = {}
        self._events: deque[EventRow] = deque()
        self._wishes: dict[str, Wish] = {}
        self._views: dict[str, SavedView] = {}
        self._views_removed: dict[str, None] = {}
        self._stations: dict[str, StationStatus] = {}
        self._events_skipped = 0
        self._more = False

    def put(self, changes: Changes) -> bool:
        """Merges; says whether the slot was empty, so that somebody should be told."""
        with self._lock:
            was_empty = not self._filled
            self._filled = True
            self._seq = max(self._seq, changes.seq)
            self._more = changes.more
            for device in changes.removed:
                self._devices.pop(device, None)
                self._removed[device] = None
            # A row that is in the same delivery as its removal came back after it: the store keeps one of both.
            for row in changes.devices:
                self._devices[row.device] = row
            self._events.extend(changes.events)
            while len(self._events) > EVENTS:
                self._events.popleft()
                self._events_skipped += 1
            for wish in changes.wishes:
                self._wishes[wish.id] = wish
            for identity in changes.views_removed:
                self._views.pop(identity, None)
                self._views_removed[identity] = None
            for view in changes.views:
                self._views_removed.pop(view.id, None)
                self._views[view.id] = view
            for station in changes.stations:
                self._stations[station.station] = station
            return was_empty

    def take(self, rows: int) -> Changes | None:
        """At most ``rows`` devices and, with the last of them, all the rest; None when there is nothing.

        ``more`` says that another slice waits, or that the reader is still behind the store.
        """
        with self._lock:
            if not self._filled:
                return None
            removed, self._removed = tuple(self._removed), {}
            if len(self._devices) > rows:
                names = [name for name, _ in zip(self._devices, range(rows), strict=False)]
                devices = tuple(self._devices.pop(name) for name in names)
                return Changes(seq=self._seq, devices=devices, removed=removed, more=True)
            changes = Changes(
                seq=self._seq,
                devices=tuple(self._devices.values()),
                removed=removed,
                events=tuple(self._events),
                wishes=tuple(self._wishes.values()),
                views=tuple(self._views.values()),
                views_removed=tuple(self._views_removed),
                stations=tuple(self._stations.values()),
                more=self._more,
            )
            self._devices, self._wishes, self._views, self._views_removed, self._stations = {}, {}, {}, {}, {}
            self._events = deque()
            self._filled = False
            return changes

    @property
    def filled(self) -> bool:
        with self._lock:
            return self._filled

    @property
    def waiting(self) -> Waiting:
        with self._lock:
            return Waiting(len(self._devices), len(self._events), self._events_skipped)
