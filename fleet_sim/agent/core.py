"""The agent, without I/O: ``step(event, now) -> effects``.

It is born on each connection, beats, closes windows aligned to UTC, reports events, answers questions, numbers
what it reports, and queues what it cannot send. It does not read a clock, open a socket, touch a disk or run a
model: the shell (``shell.py`` on a device, ``fleet_sim/fleet.py`` for thousands) does and tells it.

``now`` is the device's own idea of fleet time; it may jump. Steps come from one thread, one after the other.

What is promised:

- (boot, seq) never stands for two different reports;
- every answered row that was told to a working core is in an acknowledged window, in a queued one, in the open
  one, or among the dropped rows, exactly once;
- what was acknowledged is not sent again; what was not is, with the same number, in its order;
- memory is bounded by ``Limits`` whatever happens.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from fleet_sim.agent import reports
from fleet_sim.agent.config import AgentConfig
from fleet_sim.agent.events import (
    Acknowledged,
    AgentEvent,
    Connected,
    Counted,
    Disconnect,
    Disconnected,
    Effect,
    Happened,
    Inferred,
    Log,
    Publish,
    Received,
    Refused,
    Started,
    Stopping,
    Subscribe,
    Tick,
    Vitals,
)
from fleet_sim.agent.queue import KINDS, ReportQueue
from fleet_sim.agent.states import LIFE, Life, Turn
from fleet_sim.agent.watch import Watch
from fleet_sim.agent.windows import MAX_CLASSES, OpenWindows
from fleetui.common.domain.errors import WireError
from fleetui.common.link import codec
from fleetui.common.link.messages import Ask, Beat, Birth, Event, Gone, Reply, Running
from fleetui.common.link.topics import Down, Topics, Up
from fleetui.common.sketches import latency as bins

BACKWARDS_S = 1.0  # a clock that goes back by less is being slewed, not set
RETRY_S = 1.0  # after a report was refused, or nobody was there to hear it; doubles with each refusal in a row
LONGEST_RETRY_S = 30.0
REMEMBERED_ASKS = 16


def _mix(value: int) -> float:
    """A number in 0..1 that looks random and is the same for the same value (splitmix64)."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return ((value ^ (value >> 31)) >> 11) / (1 << 53)


class AgentCore:
    """One boot of one agent. ``boot`` must be new for each."""

    __slots__ = (
        "_asks",
        "_beat_waiting",
        "_birth_again",
        "_birth_due",
        "_births",
        "_blocked_until",
        "_draws",
        "_error",
        "_gone",
        "_hold_until",
        "_last",
        "_models",
        "_refusals",
        "_seed",
        "_seq",
        "_uptime",
        "_vitals",
        "_watch",
        "_windows",
        "beat_at",
        "beats_replaced",
        "boot",
        "config",
        "errors",
        "queue",
        "refused_messages",
        "rows",
        "state",
        "topics",
    )

    def __init__(
        self,
        config: AgentConfig,
        boot: str,
        models: Sequence[Running] = (),
        *,
        queue: ReportQueue | None = None,
        seed: int = 0,
        topics: Topics | None = None,
    ) -> None:
        self.config = config
        self.boot = boot
        self.topics = topics or Topics(config.fleet)
        self.queue = ReportQueue() if queue is None else queue
        self.state = Life.NEW
        self.rows = 0  # answered since boot
        self.errors = 0  # failed since boot
        self.beats_replaced = 0
        self.refused_messages = 0  # received, and not what they should be
        self.beat_at = math.inf
        self._models = list(models)
        self._windows = OpenWindows(config.device, config.window_s)
        self._last = -math.inf
        self._uptime = 0.0
        self._vitals = Vitals()
        self._watch = Watch()
        self._error = ""
        self._seq = -1
        self._births: dict[int, Birth] = {}  # on their way, by token
        self._birth_due = False
        self._birth_again: Birth | None = None  # refused: to be sent again as it was
        self._beat_waiting: float | None = None
        self._gone: int | None = None
        self._blocked_until = -math.inf
        self._hold_until = -math.inf
        self._refusals = 0  # in a row
        self._asks: tuple[str, ...] = ()
        self._seed = seed
        self._draws = 0

    # ------------------------------------------------------------ what a shell asks

    @property
    def next_at(self) -> float:
        """When the next ``Tick`` is due, in the device's time."""
        due = min(self.beat_at, self._windows.end)
        wait = max(self._blocked_until, self._hold_until)
        if wait > self._last and (self.queue.has_waiting or self._birth_again is not None):
            due = min(due, wait)
        return due

    @property
    def window_end(self) -> float:
        """When the open windows end: rows from before it must be told with a time before it."""
        return self._windows.end

    @property
    def online(self) -> bool:
        return self.state in {Life.ONLINE, Life.STOPPING}

    def open_rows(self) -> int:
        """Answered rows that no window has reported yet."""
        return self._windows.rows()

    # ------------------------------------------------------------ the one way in

    def step(self, event: AgentEvent, now: float) -> list[Effect]:
        out: list[Effect] = []
        if self.state not in {Life.NEW, Life.STOPPED}:
            self._time_passed(now)
        self._HANDLERS[type(event)](self, event, now, out)
        if self.online:
            self._send(now, out)
        changes = self.queue.take_changes()
        if changes is not None:
            out.insert(0, changes)
        return out

    def _turn(self, turn: Turn) -> bool:
        following = LIFE.next(self.state, turn)
        if following is None:
            return False
        self.state = following
        return True

    # ------------------------------------------------------------ time

    def _time_passed(self, now: float) -> None:
        if now < self._last - BACKWARDS_S:
            self._clock_set_back(now)
        elif now < self._last:
            return
        self._uptime += max(0.0, now - self._last)
        self._last = now
        if now >= self._windows.end and self.state is not Life.STOPPING:
            self._close_windows(self._windows.end, now)
            self._windows.go_on(now)
            if self.config.spread_s > 0:
                self._hold_until = now + self.config.spread_s * self._draw()

    def _clock_set_back(self, now: float) -> None:
        back = self._last - now
        if self.state is not Life.STOPPING:
            self._close_windows(min(self._last, self._windows.end), now)
            self._windows.go_on(now, anew=True)
        self._blocked_until = self._hold_until = -math.inf
        self._last = now
        self.beat_at = now + self.config.beat_s * self._draw()
        self._happened(Happened("clock.set-back", 2, ("clock",), f"The clock went back by {back:.0f} s."), now)

    def _close_windows(self, end: float, now: float) -> None:
        for report in self._windows.close(end, now):
            found = self._watch.window(report.handle, report.rows, report.errors, self._error)
            self.queue.add(report)
            for happened in found:
                self._happened(happened, now)

    def _draw(self) -> float:
        self._draws += 1
        return _mix(self._seed * 0x10001 + self._draws)

    # ------------------------------------------------------------ events

    def _started(self, event: Started, now: float, out: list[Effect]) -> None:
        if not self._turn(Turn.START):
            return
        self._last = now
        self._windows.begin(self._models, now)
        self.beat_at = now + self.config.beat_s * self._draw()
        out.append(Subscribe(self.topics.down(self.config.device, Down.ASK)))
        text = f"Started after {event.reason}, agent {self.config.agent}, firmware {self.config.firmware or '?'}."
        self._happened(Happened("boot", event.level, (event.reason,), text), now)

    def _connected(self, event: Connected, now: float, out: list[Effect]) -> None:
        if not self._turn(Turn.CONNECT):
            return
        self._blocked_until = self._hold_until = -math.inf
        self._birth_due = True
        losses = self.queue.take_losses()
        if losses:
            parts = ", ".join(f"{count} {kind}" for kind, count in sorted(losses.items()))
            text = f"Dropped for want of space while offline: {parts}."
            self._happened(Happened("queue.dropped", 2, tuple(sorted(losses)), text), now)

    def _disconnected(self, event: Disconnected, now: float, out: list[Effect]) -> None:
        stopping = self.state is Life.STOPPING
        if not self._turn(Turn.DISCONNECT):
            return
        self._birth_due = False
        self._birth_again = None
        if stopping:
            out.append(Disconnect())

    def _tick(self, event: Tick, now: float, out: list[Effect]) -> None:
        if self.state not in {Life.OFFLINE, Life.ONLINE}:
            return
        if event.vitals is not None:
            self._vitals = event.vitals
            for happened in self._watch.vitals(event.vitals):
                self._happened(happened, now)
        if self._last >= self.beat_at:
            self._beat_due(now)
            wander = 1.0 + self.config.beat_jitter * (2.0 * self._draw() - 1.0)
            following = self.beat_at + self.config.beat_s * wander
            if following <= now:  # slept, or fell behind: no burst of beats to catch up
                following = now + self.config.beat_s * wander
            self.beat_at = following

    def _beat_due(self, now: float) -> None:
        self.beats_replaced += self._beat_waiting is not None
        self._beat_waiting = now

    def _inferred(self, event: Inferred, now: float, out: list[Effect]) -> None:
        outputs = None
        if event.outputs is not None and len(event.outputs):
            outputs = np.bincount(np.clip(event.outputs, 0, MAX_CLASSES - 1)).astype(np.int64)
        histogram = bins.count(event.latencies)
        rows = len(event.latencies)
        self._counted(Counted(event.handle, rows, event.errors, histogram, outputs, event.error), now, out)

    def _counted(self, event: Counted, now: float, out: list[Effect]) -> None:
        window = self._windows.get(event.handle)
        if window is None or self.state not in {Life.OFFLINE, Life.ONLINE}:
            out.append(Log(logging.DEBUG, f"{event.rows} rows of {event.handle!r} belong to nothing that runs"))
            return
        window.add(event.rows, event.errors, event.latency, event.outputs)
        self.rows += event.rows
        self.errors += event.errors
        if event.error:
            self._error = codec.clean(event.error)  # from elsewhere; a report with control characters is refused

    def _received(self, event: Received, now: float, out: list[Effect]) -> None:
        if self.state not in {Life.OFFLINE, Life.ONLINE}:
            return
        try:
            device, kind = self.topics.parse_down(event.topic)
            ask = codec.decode_ask(event.payload) if device == self.config.device and kind is Down.ASK else None
        except WireError as error:
            self.refused_messages += 1
            out.append(Log(logging.WARNING, f"A message on {event.topic} was refused: {error}"))
            return
        if ask is None:
            self.refused_messages += 1
            out.append(Log(logging.INFO, f"Nothing here answers {event.topic}"))
            return
        if ask.id in self._asks:  # asked over QoS 1: may come twice
            return
        self._asks = (*self._asks, ask.id)[-REMEMBERED_ASKS:]
        self._answer(ask, now)

    def _answer(self, ask: Ask, now: float) -> None:
        text, ok = "", True
        if ask.kind == "report":
            self._birth_due = True
            self._beat_due(now)
        elif ask.kind == "ping":
            text = "pong"
        else:
            ok, text = False, "This agent does not know that question."
        self.queue.add(Reply(device=self.config.device, boot="", seq=0, at=now, ask=ask.id, ok=ok, text=text))

    def _acknowledged(self, event: Acknowledged, now: float, out: list[Effect]) -> None:
        self._blocked_until = -math.inf
        self._refusals = 0
        if event.token == self._gone:
            self._turn(Turn.DONE)
            out.append(Disconnect())
        elif self._births.pop(event.token, None) is None:
            self.queue.acknowledge(event.token)

    def _refused(self, event: Refused, now: float, out: list[Effect]) -> None:
        if event.token == self._gone:
            self._turn(Turn.DONE)
            out.append(Disconnect())
            return
        birth = self._births.pop(event.token, None)
        if birth is not None:
            self._birth_again = birth if self.online else None
        elif not self.queue.refuse(event.token):
            return
        if self.state is Life.STOPPING:
            self._say_goodbye(out)  # what is not wanted now waits for the next start
        if self.online and now >= self._blocked_until:  # several at once are one refusal
            self._blocked_until = now + min(RETRY_S * 2.0 ** min(self._refusals, 10), LONGEST_RETRY_S)
            self._refusals += 1

    def _happened(self, event: Happened, now: float, out: Sequence[Effect] = ()) -> None:
        if self.state not in {Life.OFFLINE, Life.ONLINE}:
            return
        self.queue.add(
            Event(
                device=self.config.device,
                boot="",
                seq=0,
                at=now,
                kind=event.kind,
                level=event.level,
                codes=list(event.codes),
                text=codec.clean(event.text),
                subject=event.subject,
            )
        )

    def _stopping(self, event: Stopping, now: float, out: list[Effect]) -> None:
        before = self.state
        if before is Life.STOPPING:
            self._say_goodbye(out)
            return
        if before in {Life.OFFLINE, Life.ONLINE}:
            self._close_windows(min(self._last, self._windows.end), now)
        if not self._turn(Turn.STOP):
            return
        self.beat_at = self._windows.end = math.inf
        self._hold_until = -math.inf
        self._beat_waiting = None
        if before is not Life.ONLINE:
            out.append(Disconnect())
        elif now < self._blocked_until:
            self._say_goodbye(out)

    # ------------------------------------------------------------ sending

    def _number(self) -> tuple[str, int]:
        self._seq += 1
        return self.boot, self._seq

    def _send(self, now: float, out: list[Effect]) -> None:
        if self._gone is not None:
            return  # goodbye was said
        if now >= self._blocked_until:
            self._send_birth(now, out)
        if self._beat_waiting is not None:  # a sign of life is not held back
            at, self._beat_waiting = self._beat_waiting, None
            out.append(Publish(self._topic(Up.BEAT), self._beat(at), 0))
        if now < self._blocked_until or (now < self._hold_until and not self.queue.other):
            return
        # After a refusal one report goes first, to see whether it is taken: a fleet whose station is away would
        # otherwise send everything again and again.
        most = 1 if self._refusals else math.inf
        while self.queue.flying + len(self._births) < most:
            entry = self.queue.fly(self._number)
            if entry is None:
                break
            out.append(Publish(self._topic(KINDS[type(entry.report)]), entry.report, 1, entry.id))
        if self.state is Life.STOPPING and not len(self.queue):
            self._say_goodbye(out)

    def _send_birth(self, now: float, out: list[Effect]) -> None:
        birth = self._birth(now) if self._birth_due else self._birth_again
        self._birth_due, self._birth_again = False, None
        if birth is not None:
            token = self.queue.new_id()
            self._births[token] = birth
            out.append(Publish(self._topic(Up.BIRTH), birth, 1, token))

    def _say_goodbye(self, out: list[Effect]) -> None:
        if self._gone is not None:
            return
        self._gone = self.queue.new_id()
        gone = Gone(device=self.config.device, boot=self.boot, clean=True)
        out.append(Publish(self._topic(Up.GONE), gone, 1, self._gone))

    def _topic(self, kind: Up) -> str:
        return self.topics.up(self.config.device, kind)

    def _birth(self, now: float) -> Birth:
        boot, seq = self._number()
        return reports.birth(self.config, self._models, self.queue, boot, seq, now)

    def _beat(self, at: float) -> Beat:
        boot, seq = self._number()
        return reports.beat(
            self.config,
            self._models,
            self.queue,
            boot,
            seq,
            at,
            vitals=self._vitals,
            uptime_s=self._uptime,
            rows=self.rows,
            errors=self.errors,
            last_error=self._error,
        )

    _HANDLERS: ClassVar[dict[type[AgentEvent], Callable[[AgentCore, Any, float, list[Effect]], None]]] = {
        Started: _started,
        Connected: _connected,
        Disconnected: _disconnected,
        Tick: _tick,
        Inferred: _inferred,
        Counted: _counted,
        Received: _received,
        Acknowledged: _acknowledged,
        Refused: _refused,
        Happened: _happened,
        Stopping: _stopping,
    }
