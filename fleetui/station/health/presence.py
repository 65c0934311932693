"""Who is there: the shared rule (``common.domain.presence``) applied to a fleet.

The rule decides for one device; here stands when to ask it. Deadlines lie in a heap. A report only moves its
device's deadline later, so it touches the heap not at all: whoever comes to the top too early is put back with the
true deadline. A look therefore costs what is due, not what is known, and is cut into slices.

Silence counts only while this station listens. When the link was down, when the station was stopped, or when this
machine stood still, counting begins anew for everybody (:meth:`PresenceBook.listen`).

Pure: no clock, no I/O; belongs to the thread that owns the books.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass

from fleetui.common.domain.presence import FOREVER, NEVER, PresenceRule, Sign, Watch
from fleetui.common.domain.states import Presence
from fleetui.store.records import DeviceRow


@dataclass(frozen=True, slots=True)
class Turn:
    """A device's status has changed."""

    device: str
    before: Presence
    after: Presence
    since: float


class PresenceBook:
    """The watches of all devices that belong to the fleet, and the statuses they add up to."""

    def __init__(self, rule: PresenceRule) -> None:
        self._rule = rule
        self._watches: dict[str, Watch] = {}
        self._due: dict[str, float] = {}  # what counts in the heap for each device
        self._heap: list[tuple[float, str]] = []
        self.listening = False
        self.listening_since = NEVER
        self.counts: Counter[Presence] = Counter()

    def __len__(self) -> int:
        return len(self._watches)

    def __contains__(self, device: str) -> bool:
        return device in self._watches

    def watch(self, row: DeviceRow) -> None:
        """From now on this one too, from where its row stands."""
        try:
            status = Presence(row.status)
        except ValueError:
            status = Presence.UNKNOWN
        known = Watch(status, row.status_since, row.last_seen or NEVER)
        self.forget(row.device)
        self._watches[row.device] = known
        self.counts[status] += 1
        self._plan(row.device, known)

    def forget(self, device: str) -> None:
        watch = self._watches.pop(device, None)
        if watch is not None:
            self.counts[watch.status] -= 1
            self._due.pop(device, None)  # its entry in the heap is passed over

    def heard(self, device: str, sign: Sign, at: float) -> Turn | None:
        """A report or a last will came in; it was said at ``at``."""
        watch = self._watches.get(device)
        if watch is None or (at < watch.heard and sign is Sign.HEARD):
            return None
        return self._put(device, watch, self._rule.heard(watch, sign, at, listening_since=self.listening_since))

    def listen(self, now: float) -> None:
        """There is a link, and from now on silence counts."""
        self.listening = True
        self.listening_since = max(now, self.listening_since)

    def use(self, rule: PresenceRule) -> None:
        """Other thresholds from now on (fleet time runs at another speed)."""
        self._rule = rule
        self._due.clear()
        self._heap.clear()
        for device, watch in self._watches.items():
            self._plan(device, watch)

    def deafen(self) -> None:
        """There is no link: nobody is judged."""
        self.listening = False

    def judge(self, now: float, most: int = 1000) -> list[Turn]:
        """Whoever is due by ``now``: at most ``most`` are looked at."""
        turns: list[Turn] = []
        if not self.listening:
            return turns
        heap = self._heap
        for _ in range(most):
            if not heap or heap[0][0] > now:
                break
            at, device = heapq.heappop(heap)
            if self._due.get(device) != at:
                continue  # planned anew since, or forgotten
            del self._due[device]
            watch = self._watches[device]
            turn = self._put(device, watch, self._rule.passed(watch, now, listening_since=self.listening_since))
            if turn is not None:
                turns.append(turn)
        return turns

    def next_due(self) -> float:
        """When to look again, at the earliest."""
        return self._heap[0][0] if self._heap and self.listening else FOREVER

    def _put(self, device: str, before: Watch, after: Watch) -> Turn | None:
        self._watches[device] = after
        self._plan(device, after)
        if before.status is after.status:
            return None
        self.counts[before.status] -= 1
        self.counts[after.status] += 1
        return Turn(device, before.status, after.status, after.since)

    def _plan(self, device: str, watch: Watch) -> None:
        planned = self._due.get(device)
        if planned is not None and watch.will is None and watch.status is not Presence.OFFLINE:
            return  # it can only have moved later, and is found out when it comes to the top
        due = self._rule.due(watch, listening_since=self.listening_since)
        if due == FOREVER or (planned is not None and planned <= due):
            return
        self._due[device] = due
        heapq.heappush(self._heap, (due, device))
