"""Many devices in one process: one timer, one driver, inferences for all that are due at once.

A turn brings the world up to now (the scenario, faults, links, power), then attends to the devices whose deadline
has come: what they inferred since they were last attended to is drawn and computed in one go
(:meth:`~fleet_sim.world.signals.Signals.infer`), and each core is told its share and ticked.

The same code runs live on a :class:`~fleetui.common.link.loop.LinkLoop` and in virtual time on a
:class:`~fleetui.common.link.loopback.LoopbackBroker`. Everything runs on the driver's thread.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from fleet_sim.agent.config import spread
from fleet_sim.agent.core import AgentCore
from fleet_sim.agent.events import Counted, Started, Stopping, Tick, Vitals
from fleet_sim.agent.queue import ReportQueue
from fleet_sim.device import Device, Totals
from fleet_sim.options import Options
from fleet_sim.timing import FleetTime
from fleet_sim.world.applications import APPLICATIONS
from fleet_sim.world.conditions import Conditions
from fleet_sim.world.faults import Active, Faults
from fleet_sim.world.habits import Habits
from fleet_sim.world.population import Population
from fleet_sim.world.scenario import Scenario, Timeline
from fleet_sim.world.signals import Signals
from fleet_sim.world.vitals import Figures, World
from fleetui.common.link import codec
from fleetui.common.link.client import Cancellable, Driver
from fleetui.common.link.messages import Gone
from fleetui.common.link.topics import Topics, Up
from fleetui.common.link.transport import LinkConfig, Transport, Will

log = logging.getLogger("fleetui.sim")
I64 = npt.NDArray[np.int64]

Connector = Callable[[int, LinkConfig], Transport]  # of a device's index in the population
Listener = Callable[[str, dict[str, object]], None]  # what happened, in words and figures

BEFORE_END_S = 0.002  # rows of a window are told this long before it ends
ROUNDING_S = 1e-3  # a deadline less than this away is here: device time and fleet time do not add up exactly
MOST_ROWS = 1024  # a device is given in one go
AT_ONCE = 250  # devices that boot or stop in one go, so that thousands do not keep the loop from everything else
CELLS = 1 << 16  # rows that are drawn in one go, over all devices
RESTLESS_S = 1.0  # how often faults that move with time are looked at, in fleet time
WILL_DELAY_S = 2
LONGEST_BACKOFF_S = 15.0  # real seconds; nobody waits a minute for a demo to come back


class Fleet:
    """See the module's docstring. ``members`` are the devices of the population that live here."""

    def __init__(
        self,
        population: Population,
        members: I64,
        *,
        driver: Driver,
        time: FleetTime,
        connector: Connector,
        options: Options | None = None,
        scenario: Scenario | None = None,
        salt: int = 0,
        stream: str = "live",
        on_event: Listener | None = None,
    ) -> None:
        """``salt`` tells runs of one seed apart (0: repeatable); ``stream`` names their boots."""
        self.population = population
        self.members = members
        self.options = options or Options()
        self.totals = Totals()
        self.time = time
        self.pace = 1.0
        self.faults = Faults(population.application)
        self.late_s = 0.0  # by how much the latest turn was late, in fleet time
        self._driver = driver
        self._connector = connector
        self._scenario = scenario
        self._stream = stream
        self._on_event = on_event
        self._rng = np.random.default_rng([population.seed, 51, salt, int(members[0]) if len(members) else 0])
        self._signals = Signals(population)
        self._world = World(self._signals)
        self._topics = Topics(population.fleet)
        self._conditions = Conditions.none(population.n)
        n = len(members)
        self.devices = [Device(self, k) for k in range(n)]
        self._queues: list[ReportQueue | None] = [None] * n  # of devices that are off
        self._lag = (0.5 * spread(self.options.window_s) * population.phase[members, 0]).tolist()
        self._dropped = 0  # by boots that are over
        self._booted = np.zeros(n)
        self._sampled = np.zeros(n)  # up to when rows were inferred
        self._link = np.zeros(n, np.bool_)
        self._registered = np.full(n, math.inf)
        self._deadlines: list[tuple[float, int]] = []
        self._handles = [APPLICATIONS[a].handle for a in population.application[members]]
        self._classes = [len(APPLICATIONS[a].classes) for a in population.application[members]]
        self._timeline: Timeline | None = None
        self._habits: Habits | None = None
        self._world_at = math.inf
        self._looked_at = -math.inf
        self._timer: Cancellable | None = None
        self.booting = False  # not all that should be on are
        self.stopping = False
        self._left = 0
        self._on_stopped: Callable[[], None] | None = None

    # ------------------------------------------------------------ beginning and ending

    def start(self) -> None:
        """Boot every device. On the driver's thread, or before it runs."""
        now = self.time.now()
        self._habits = Habits(self._signals, self.members, now, self._rng, quiet=self.options.quiet)
        self._timeline = Timeline(self._scenario or Scenario("calm"), now)
        self._looked_at = now
        self._look_around(now)
        self._schedule()

    def stop(self, on_stopped: Callable[[], None]) -> None:
        """Every agent reports what it has, says goodbye and disconnects; ``on_stopped`` is called once."""
        if self.stopping:
            return
        self.stopping = True
        self._on_stopped = on_stopped
        if self._timer is not None:
            self._timer.cancel()
        alive = [device for device in self.devices if device.on]
        self._left = len(alive)
        self._timer = self._driver.call_later(self.options.stop_within_s, self._stop_now)
        self._ask_to_stop(alive)
        if not alive:
            self._stopped()

    def _ask_to_stop(self, devices: list[Device]) -> None:
        for device in devices[:AT_ONCE]:
            device.step(Stopping())
        if len(devices) > AT_ONCE:
            self._driver.call_later(0.0, self._ask_to_stop, devices[AT_ONCE:])

    def _stop_now(self) -> None:
        for device in self.devices:
            if device.on:
                device.step(Stopping())
                if device.on:
                    device.leave()

    def finished(self, device: Device) -> None:
        self._left -= 1
        if self._left == 0 and self.stopping:
            self._stopped()

    def _stopped(self) -> None:
        callback, self._on_stopped = self._on_stopped, None
        if self._timer is not None:
            self._timer.cancel()
        if callback is not None:
            callback()

    # ------------------------------------------------------------ what others ask

    def device_now(self, position: int) -> float:
        return self.time.now() + self._clock_error(position)

    def _clock_error(self, position: int) -> float:
        member = self.members[position]
        return float(self.population.clock_error_s[member] + self._conditions.clock_s[member])

    def queued(self) -> int:
        return sum(len(d.core.queue) for d in self.devices if d.core is not None)

    def dropped(self) -> int:
        return self._dropped + sum(d.core.queue.dropped for d in self.devices if d.core is not None)

    def reachable(self) -> int:
        """How many are on and have a network."""
        return sum(device.on for device, up in zip(self.devices, self._link.tolist(), strict=True) if up)

    def wake(self) -> None:
        """Time runs differently from now on (play, speed): look again."""
        if not self.stopping:
            self._turn()

    def inject(
        self,
        kind: str,
        devices: I64,
        *,
        parameters: Mapping[str, object] | None = None,
        lasts_s: float = math.inf,
        ident: str = "",
    ) -> Active:
        """Let a fault begin now. Raises ``ConfigError``. Call ``wake`` afterwards."""
        now = self.time.now()
        active = self.faults.begin(kind, devices, now, parameters=parameters, lasts_s=lasts_s, ident=ident)
        self._tell("fault begins", active)
        self._world_at = -math.inf
        return active

    def clear(self, ident: str | None) -> list[Active]:
        """End one fault, or all. Call ``wake`` afterwards."""
        ended = self.faults.end(ident)
        for active in ended:
            self._tell("fault ends", active)
        self._world_at = -math.inf
        return ended

    def _tell(self, what: str, active: Active) -> None:
        if self._on_event is not None:
            count = len(active.devices)  # in the whole fleet, whichever process they live in
            self._on_event(
                what, {"id": active.ident, "fault": active.kind, "devices": count, "at": self.time.now()}
            )

    # ------------------------------------------------------------ turns

    def changed(self, device: Device) -> None:
        """Note a device's next deadline, if it has become an earlier one."""
        core = device.core
        if core is None:
            return
        due = core.next_at
        if due == core.window_end:  # all end at once; that is noticed now here, now there
            due += self._lag[device.position]
        due += ROUNDING_S - self._clock_error(device.position)
        if due < self._registered[device.position]:
            self._registered[device.position] = due
            if due < math.inf:
                heapq.heappush(self._deadlines, (due, device.position))

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rate = self.time.rate
        if rate <= 0 or self.stopping:
            return
        due = self._world_at
        if self._deadlines:
            due = min(due, self._deadlines[0][0])
        delay = (due - self.time.now()) / rate
        delay = min(max(delay, self.options.shortest_turn_s), self.options.longest_turn_s)
        if delay < math.inf:
            self._timer = self._driver.call_later(max(delay, 0.0), self._turn)

    def _turn(self) -> None:
        now = self.time.now()
        try:
            if now >= self._world_at:
                self._look_around(now)
            due = self._take_due(now)
            if due:
                self._attend(due, now)
        finally:
            self._schedule()  # a bug is logged and counted by the driver; it must not stop the fleet as well

    def _take_due(self, now: float) -> list[int]:
        due = []
        deadlines, registered = self._deadlines, self._registered
        while deadlines and deadlines[0][0] <= now:
            at, position = heapq.heappop(deadlines)
            if registered[position] == at:
                registered[position] = math.inf
                due.append(position)
                self.late_s = now - at
        return due

    # ------------------------------------------------------------ the world

    def _look_around(self, now: float) -> None:
        assert self._timeline is not None
        assert self._habits is not None
        for active in self.faults.expire(now):
            self._tell("fault ends", active)
        for _, step, turn in self._timeline.due(now):
            chosen = step.choose(self.population, turn)
            active = self.faults.begin(
                step.fault, chosen, now, parameters=step.parameters, lasts_s=step.lasts_s, ident=step.name
            )
            self._tell("fault begins", active)
        self._set_conditions(self.faults.conditions(now), now)
        restarts = self._habits.advance(now)
        wanted = self._habits.powered
        turned = np.flatnonzero(wanted != np.array([d.on for d in self.devices]))
        self.booting = len(turned) > AT_ONCE
        for position in turned[:AT_ONCE]:
            if wanted[position]:
                self._boot(int(position), now, "power-on" if self.devices[position].boots else "start")
            else:
                self._power_off(int(position))
        looped = self.faults.reboots(self._looked_at, now)
        for position in restarts:
            if self.devices[position].on:
                self._reboot(int(position), now, "update")
        if len(looped):
            for position in np.flatnonzero(np.isin(self.members, looped) & wanted):
                if self.devices[position].on:
                    self._reboot(int(position), now, "watchdog")
        self._set_links()
        self._looked_at = now
        self._world_at = min(self._timeline.next_at, self._habits.next_at, self.faults.next_end())
        if self.booting:
            self._world_at = now
        if self.faults.restless:
            self._world_at = min(self._world_at, now + RESTLESS_S)

    def _set_conditions(self, conditions: Conditions, now: float) -> None:
        jumped = np.flatnonzero((conditions.clock_s != self._conditions.clock_s)[self.members])
        self._conditions = conditions
        for position in jumped:
            # Deadlines are kept in fleet time: a clock that jumps moves them. Look at the device at once.
            self._registered[position] = now
            heapq.heappush(self._deadlines, (now, int(position)))

    def _set_links(self) -> None:
        assert self._habits is not None
        up = self._habits.link & ~self._conditions.link_down[self.members]
        for position in np.flatnonzero(up != self._link):
            self.devices[position].link(up=bool(up[position]))
        self._link = up

    def _boot(self, position: int, now: float, reason: str) -> None:
        member = int(self.members[position])
        device = self.devices[position]
        config = self.population.config(member, beat_s=self.options.beat_s, window_s=self.options.window_s)
        queue = ReportQueue(self.options.limits, keep_changes=False)
        kept, self._queues[position] = self._queues[position], None
        if kept is not None:
            queue.restore(kept.snapshot(), kept.losses)
        boot = self.population.boot(member, device.boots, self._stream)
        seed = member * 1009 + device.boots
        core = AgentCore(
            config, boot, [self.population.running(member)], queue=queue, seed=seed, topics=self._topics
        )
        will = Will(
            self._topics.up(config.device, Up.GONE),
            codec.encode(Gone(device=config.device, boot=boot)),
            qos=1,
            delay_s=WILL_DELAY_S,
        )
        transport = self._connector(
            member,
            LinkConfig(
                config.device,
                will=will,
                keepalive_s=self.options.keepalive_s,
                session_expiry_s=self.options.session_expiry_s,
                queue_limit=self.options.limits.inflight + 16,
                backoff_max_s=LONGEST_BACKOFF_S,
            ),
        )
        self._booted[position] = self._sampled[position] = now
        self._registered[position] = math.inf
        device.boot(
            core, transport, Started(reason, 0 if reason == "start" else 1), link=bool(self._link[position])
        )

    def _reboot(self, position: int, now: float, reason: str) -> None:
        self._crash(position)
        self._boot(position, now, reason)

    def _crash(self, position: int) -> None:
        core = self.devices[position].crash()
        if core is not None:
            self._queues[position] = core.queue
            self._dropped += core.queue.dropped

    def _power_off(self, position: int) -> None:
        """A shift ends: the plug is pulled, as it is."""
        self._crash(position)
        self._registered[position] = math.inf

    # ------------------------------------------------------------ the devices

    def _attend(self, due: list[int], now: float) -> None:
        positions = np.array([p for p in due if self.devices[p].on], dtype=np.int64)
        if not len(positions):
            return
        members = self.members[positions]
        c = self._conditions
        clock = self.population.clock_error_s[members] + c.clock_s[members]
        # Rows from before the end of a window are told before it ends.
        ends = np.array([core.window_end for p in positions if (core := self.devices[p].core) is not None])
        until = np.minimum(now, ends - clock - BEFORE_END_S)
        figures = self._world.figures(now, members, c, self._rng)
        most = max(1, min(MOST_ROWS, CELLS // len(positions)))
        work = self.population.rows_per_s[members] * self._signals.activity(now, members) * self._share()
        passed = np.maximum(until - self._sampled[positions], 0.0)
        rows = np.minimum(self._rng.poisson(work * passed), most)
        self._sampled[positions] = np.maximum(self._sampled[positions], until)
        found = self._signals.infer(now, members, rows, c, self._rng, self.pace * figures.throttling)
        at, device_now = until + clock, now + clock
        uptime = now - self._booted[positions]
        for k, position in enumerate(positions.tolist()):
            device = self.devices[position]
            self._registered[position] = -math.inf  # its deadline is looked at once, after all it is told
            answered, failed = int(found.rows[k]), int(found.errors[k])
            if answered or failed:
                self.totals.rows += answered
                self.totals.errors += failed
                counted = Counted(
                    self._handles[position],
                    answered,
                    failed,
                    found.latency[k],
                    found.outputs[k, : self._classes[position]],
                    "the input has no valid rows" if failed else "",
                )
                device.step(counted, float(at[k]))
            device.step(Tick(_vitals(figures, k, float(uptime[k]))), float(device_now[k]))
            self._registered[position] = math.inf
            self.changed(device)

    def _share(self) -> float:
        """What part of its work a device is given, so that this machine keeps up at any speed."""
        demand = float(self.population.rows_per_s[self.members].sum()) * self.time.rate
        return min(1.0, self.options.rows_per_real_s / demand) if demand > 0 else 1.0


def _vitals(figures: Figures, k: int, uptime_s: float) -> Vitals:
    return Vitals(
        float(figures.cpu[k]),
        float(figures.memory[k]),
        float(figures.disk[k]),
        float(figures.temperature[k]),
        float(figures.clock_offset_s[k]),
        uptime_s,
    )
