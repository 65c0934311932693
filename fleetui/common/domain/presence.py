"""Is a device there? Messages and silence to a status, with hysteresis. No I/O, no clock, no threads.

Theory
======

A device beats once in an *interval*. What is heard of it (any report counts, not only beats) restarts a count of
silence. Silent for ``late_after`` intervals it is late, for ``offline_after`` offline. A last will says that the
connection broke: unless something is heard within ``will_grace`` intervals, the device is offline without waiting
for the silence. A goodbye is taken at its word.

The way back is narrower than the way out, or a device that reports now and then would flap. A late or offline
device is online again

- at once with a birth: it has just connected and introduced itself; or
- after ``return_messages`` messages that are *steady*: none more than ``steady_within`` intervals after the one
  before, and each counted one at least ``apart`` intervals after the last counted one, so that a beat and a window
  sent together are not two signs of life.

Since ``steady_within`` < ``late_after``, a device whose messages come at any spacing between the two stays what it
is. A device never heard of is online with its first message: there is nothing to flap from.

Silence is only evidence while somebody listens. ``listening_since`` is the moment from which the station has had
its link to the broker without a gap: a broker that was down for an hour makes no device offline, and neither does a
station that was. While it is not listening, the station does not ask.

What the caller does: it drops wills of an earlier boot, and keeps the :class:`Watch` of each device (after a
restart, one made from the stored row will do). The result does not depend on how often it asks: passing time is
accounted for at the moments when thresholds were crossed, not when somebody looked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from fleetui.common.domain.errors import ConfigError
from fleetui.common.domain.states import PRESENCE, Presence, PresenceEvent

NEVER = float("-inf")
FOREVER = float("inf")


class Sign(StrEnum):
    """What comes in from outside."""

    HEARD = "heard"  # any report
    BIRTH = "birth"
    WILL = "will"  # the broker says that the connection broke
    GOODBYE = "goodbye"  # the same, announced


@dataclass(frozen=True, slots=True)
class Watch:
    """What is remembered of one device. The first three are worth storing; the rest may be lost in a restart."""

    status: Presence = Presence.UNKNOWN
    since: float = 0.0  # when it got this status
    heard: float = NEVER  # last message
    steady: int = 0  # messages counted on the way back
    counted: float = NEVER  # the last of them
    will: float | None = None  # when the connection broke, if nothing was heard since


@dataclass(frozen=True, slots=True)
class PresenceRule:
    """The thresholds, in beat intervals. Pure: the same questions always get the same answers."""

    interval_s: float
    late_after: float = 2.5
    offline_after: float = 5.0
    will_grace: float = 1.0
    return_messages: int = 2
    steady_within: float = 1.5
    apart: float = 0.5

    def __post_init__(self) -> None:
        if not (
            self.interval_s > 0
            and 0 < self.apart < self.steady_within < self.late_after < self.offline_after
            and 0 <= self.will_grace <= self.offline_after
            and self.return_messages >= 1
        ):
            raise ConfigError(
                "The thresholds of presence contradict each other",
                "Keep apart < steady_within < late_after < offline_after, all above 0",
            )

    def heard(self, watch: Watch, sign: Sign, now: float, *, listening_since: float = NEVER) -> Watch:
        """After ``sign`` came in at ``now``."""
        watch = self.passed(watch, now, listening_since=listening_since)
        if sign is Sign.GOODBYE:
            return _become(replace(watch, will=None, steady=0, counted=NEVER), PresenceEvent.GOODBYE, now)
        if sign is Sign.WILL:
            # A second will does not start a new grace.
            return replace(watch, will=now if watch.will is None else watch.will, steady=0, counted=NEVER)
        if sign is Sign.BIRTH:
            return _become(replace(watch, heard=now, will=None, steady=0, counted=NEVER), PresenceEvent.BIRTH, now)
        if watch.status is Presence.UNKNOWN:
            return _become(replace(watch, heard=now, will=None), PresenceEvent.HEARD, now)
        if watch.status is Presence.ONLINE:
            return replace(watch, heard=now, will=None)
        return self._on_the_way_back(watch, now)

    def _on_the_way_back(self, watch: Watch, now: float) -> Watch:
        steady, counted = watch.steady, watch.counted
        if not 0 <= now - watch.heard <= self.steady_within * self.interval_s:
            steady, counted = 1, now
        elif now - counted >= self.apart * self.interval_s:
            steady, counted = steady + 1, now
        watch = replace(watch, heard=now, will=None, steady=steady, counted=counted)
        if steady < self.return_messages:
            return watch
        return _become(replace(watch, steady=0, counted=NEVER), PresenceEvent.STEADY, now)

    def passed(self, watch: Watch, now: float, *, listening_since: float = NEVER) -> Watch:
        """After nothing but time: ask at ``due``, or now and then."""
        if watch.heard > now:
            # The clock was set back: silence is counted anew from here.
            watch = replace(watch, heard=now, counted=min(watch.counted, now))
        if watch.will is not None and watch.will > now:
            watch = replace(watch, will=now)
        while True:
            at, event = self._next(watch, listening_since)
            if at > now or event is None:
                return watch
            # A will is spent when its grace is over: what is heard later is a return, not a denial.
            watch = _become(replace(watch, will=None) if event is PresenceEvent.WILL else watch, event, at)

    def due(self, watch: Watch, *, listening_since: float = NEVER) -> float:
        """When the status will change if nothing is heard; infinity if it will not."""
        return self._next(watch, listening_since)[0]

    def _next(self, watch: Watch, listening_since: float) -> tuple[float, PresenceEvent | None]:
        """The next change that time alone brings, and when."""
        at, event = FOREVER, None
        if watch.status in {Presence.ONLINE, Presence.LATE}:
            silent_since = max(watch.heard, listening_since)
            late = watch.status is Presence.ONLINE
            at = silent_since + self.interval_s * (self.late_after if late else self.offline_after)
            event = PresenceEvent.OVERDUE if late else PresenceEvent.EXPIRED
        if watch.will is not None and watch.status is not Presence.OFFLINE:
            over = max(watch.will, listening_since) + self.will_grace * self.interval_s
            if over <= at:
                at, event = over, PresenceEvent.WILL
        return at, event


def _become(watch: Watch, event: PresenceEvent, at: float) -> Watch:
    """The table's answer; an event that it does not take (a birth of who is online) changes nothing."""
    status = PRESENCE.next(watch.status, event)
    if status is None or status is watch.status:
        return watch
    return replace(watch, status=status, since=at, steady=0, counted=NEVER)
