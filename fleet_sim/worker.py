"""One process of the simulator: a loop, a fleet on it, figures every second, commands from the parent.

Lines on stdout with ``--control stdio``, JSON objects of one ``kind`` each:

==========  ==================================================================================================
``ready``   the fleet begins to connect: ``devices``, ``fleet``, ``seed``, ``scenario``, ``clock``
``state``   once: all that can be are connected, after so many ``seconds``
``stats``   each second: ``devices connected sent acked queued dropped rows errors boots faults messages_per_s
            rate at trouble`` and a few more
``event``   ``what`` (fault begins, fault ends), ``id``, ``fault``, ``devices``, ``at``
``done``    the answer to a command: ``do``, its ``ref``, and what it has to say
``error``   a command that cannot be: ``text``, ``sentence``, ``fix``, ``ref``
``stopped`` the last one: ``reason`` and the last figures; with ``sentence`` and ``fix`` if it could not begin
==========  ==================================================================================================

Commands on stdin, JSON objects with ``do`` and, if wanted, ``ref``: ``status``; ``pause``; ``play`` (``clock``);
``speed`` (``rate``, or the ``clock`` to follow); ``inject`` (``fault`` and its parameters; ``select`` or
``devices``; ``share`` or ``count``; ``for``; ``id``); ``clear`` (``id``, or all); ``stop``. The end of stdin is a
stop, too.

Threads: ``link`` (the loop: everything happens there), ``parent-watch`` (reads commands), and the main thread,
which waits. Without ``--control`` the lines are sentences for people.
"""

from __future__ import annotations

import logging
import random
import resource
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fleet_sim.agent.access import Access
from fleet_sim.fleet import Fleet
from fleet_sim.options import Options
from fleet_sim.run_config import RunConfig
from fleet_sim.timing import FleetTime, Pace
from fleet_sim.world import population as populations
from fleet_sim.world import scenario as scenarios
from fleet_sim.world.applications import fitted
from fleet_sim.world.faults import number
from fleetui.common.child import ParentWatch, on_signals
from fleetui.common.domain import ages
from fleetui.common.domain.clock import clock_from_spec
from fleetui.common.domain.errors import ConfigError, OperatorError
from fleetui.common.link.loop import LinkLoop
from fleetui.common.link.mqtt import MqttTransport
from fleetui.common.link.transport import LinkConfig

log = logging.getLogger("fleetui.sim")
Say = Callable[..., None]

ROWS_PER_REAL_S = 20_000.0  # about 4 % of a core
TURN_S = 0.05
LONGEST_TURN_S = 0.5
LOOK_S = 0.1
DESCRIPTORS_BESIDE = 200
_OWN_KEYS = {"do", "fault", "select", "devices", "share", "count", "for", "id", "ref"}


class Worker:
    """Made and run on the main thread. Raises ``OperatorError`` when it cannot begin."""

    def __init__(self, config: RunConfig, say: Say) -> None:
        self._config = config
        self._say = say
        self._clock = config.make_clock()
        self._access = Access.of(config.broker, secret=config.secret, certificates=config.certificates)
        self.population = populations.make(config.devices, config.seed, config.fleet)
        self._scenario = scenarios.load(config.scenario)
        members = np.arange(config.part, config.devices, config.parts)
        for member in members:
            self._access.check(self.population.ids[member])
        _allow_descriptors(len(members) + DESCRIPTORS_BESIDE)
        # A small fleet comes up over two seconds, a large one as fast as it goes.
        self.loop = LinkLoop(self._clock, connects_per_s=min(max(len(members) / 2.0, 100.0), 1000.0))
        self.time = FleetTime(self._clock, shared=config.clock is not None)
        self.fleet = Fleet(
            self.population,
            members,
            driver=self.loop,
            time=self.time,
            connector=self._connect,
            options=Options(
                beat_s=config.beat_s,
                window_s=config.window_s,
                rows_per_real_s=ROWS_PER_REAL_S,
                shortest_turn_s=TURN_S,
                longest_turn_s=LONGEST_TURN_S,
                quiet=config.quiet,
                stop_within_s=5.0 + len(members) / 1000.0,
            ),
            scenario=self._scenario,
            salt=_salt(),
            stream=f"live-{_salt():06x}",
            on_event=self._on_event,
        )
        self._pace = Pace(fitted(0, 0, config.seed), self._clock)
        self._done = threading.Event()
        self._reason = "asked to"
        self._error: Exception | None = None
        self._per_s = 0.0
        self._began = self._clock.monotonic()
        self._last = (self._began, 0)

    def _connect(self, _member: int, config: LinkConfig) -> MqttTransport:
        return MqttTransport(self._access.config(config), self.loop, rng=random.Random())

    # ------------------------------------------------------------ life

    def run(self) -> None:
        """Until asked to stop: by a signal, a command, or the end of stdin."""
        on_signals(lambda: self.stop("a signal"))
        if self._config.control:
            ParentWatch(lambda: self.stop("the parent is gone"), self.command).start()
        self.loop.call_soon_threadsafe(self._begin)
        self.loop.start_thread()
        self._done.wait()
        self.loop.stop()
        if self._error is not None:
            raise self._error
        self._say("stopped", reason=self._reason, **self.figures())

    def stop(self, reason: str) -> None:
        """From any thread."""
        self.loop.call_soon_threadsafe(self._stop, reason)

    def command(self, command: Mapping[str, Any]) -> None:
        """From any thread; the answer is said."""
        self.loop.call_soon_threadsafe(self._command, dict(command))

    # ------------------------------------------------------------ on the loop's thread

    def _begin(self) -> None:
        self._began = self._clock.monotonic()
        try:
            self.fleet.start()
        except Exception as error:  # noqa: BLE001 - the main thread ends the process with it
            self._error = error
            self._done.set()
            return
        self._say(
            "ready",
            devices=len(self.fleet.members),
            of=self.population.n,
            fleet=self._config.fleet,
            seed=self._config.seed,
            scenario=self._scenario.title,
            clock=self.time.spec,
        )
        self._tick()
        self.loop.call_later(LOOK_S, self._look)

    def _stop(self, reason: str) -> None:
        self._reason = reason
        self.fleet.stop(self._done.set)

    def _tick(self) -> None:
        if self._done.is_set():
            return
        self.loop.call_later(1.0, self._tick)
        self.fleet.pace = self._pace.update()
        totals = self.fleet.totals
        now = self._clock.monotonic()
        since, before = self._last
        self._per_s = (totals.sent - before) / max(now - since, 1e-3)
        self._last = (now, totals.sent)
        self._say("stats", **self.figures())

    def _look(self) -> None:
        """Until all are connected for the first time."""
        connected = self.fleet.totals.connected
        if self.fleet.stopping:
            return
        if connected >= self.fleet.reachable() and not self.fleet.booting:
            seconds = round(self._clock.monotonic() - self._began, 2)
            self._say("state", state="connected", devices=connected, seconds=seconds)
        else:
            self.loop.call_later(LOOK_S, self._look)

    def figures(self) -> dict[str, Any]:
        totals = self.fleet.totals
        return {
            "devices": len(self.fleet.members),
            "connected": totals.connected,
            "sent": totals.sent,
            "acked": totals.acked,
            "refused": totals.refused,
            "queued": self.fleet.queued(),
            "dropped": self.fleet.dropped(),
            "rows": totals.rows,
            "errors": totals.errors,
            "boots": totals.boots,
            "faults": len(self.fleet.faults),
            "messages_per_s": round(self._per_s, 1),
            "rate": self.time.rate,
            "at": self.time.now(),
            "late_s": round(self.fleet.late_s, 3),
            "longest_turn_s": round(self.loop.counters.longest_s, 3),
            "bugs": self.loop.counters.errors,
            # Links that faults have cut are not trouble.
            "trouble": totals.trouble if totals.connected < self.fleet.reachable() else "",
        }

    def _on_event(self, what: str, details: dict[str, object]) -> None:
        self._say("event", what=what, **details)

    # ------------------------------------------------------------ commands

    def _command(self, command: dict[str, Any]) -> None:
        ref = command.get("ref")
        try:
            answer = self._carry_out(command)
        except OperatorError as error:
            self._say(
                "error", do=command.get("do"), text=str(error), sentence=error.sentence, fix=error.fix, ref=ref
            )
            return
        self._say("done", do=command["do"], ref=ref, **answer)

    def _carry_out(self, command: dict[str, Any]) -> dict[str, Any]:
        do = command.get("do")
        if do == "status":
            faults = [
                {"id": a.ident, "fault": a.kind, "devices": len(a.devices), "since": a.since, **a.parameters}
                for a in self.fleet.faults.active
            ]
            return {"figures": self.figures(), "active": faults, "clock": self.time.spec}
        if do == "pause":
            self.time.pause()
            self.fleet.wake()
            return {"at": self.time.now()}
        if do == "play":
            if command.get("clock"):
                self.time.share(clock_from_spec(str(command["clock"])))
            self.time.play()
            self.fleet.wake()
            return {"at": self.time.now(), "clock": self.time.spec}
        if do == "speed":
            if command.get("clock"):
                self.time.share(clock_from_spec(str(command["clock"])))
            else:
                rate = number(command.get("rate"), ages.Unit.NONE, "rate", 0.01, 100_000)
                self.time.run_at(rate)
            self.fleet.wake()
            return {"rate": self.time.rate, "clock": self.time.spec}
        if do == "inject":
            return self._inject(command)
        if do == "clear":
            ended = self.fleet.clear(None if command.get("id") is None else str(command["id"]))
            if not ended and command.get("id") is not None:
                raise ConfigError(
                    f"No fault {command['id']!r} is going on", "Ask for 'status' to see those that are"
                )
            self.fleet.wake()
            return {"ended": [a.ident for a in ended]}
        if do == "stop":
            self._stop("asked to")
            return {}
        raise ConfigError(
            f"There is no command {do!r}", "Commands are status, pause, play, speed, inject, clear and stop"
        )

    def _inject(self, command: dict[str, Any]) -> dict[str, Any]:
        devices = command.get("devices", [])
        if not isinstance(devices, list):
            raise ConfigError("'devices' is not a list", "Write a list of device ids, or use 'select'")
        select = str(command.get("select", ""))
        share = number(command.get("share", 1.0), ages.Unit.SHARE, "share", 0.0001, 1.0)
        count = int(number(command.get("count", 0), ages.Unit.NONE, "count", 0, 1e6))
        lasts = command.get("for")
        lasts_s = np.inf if lasts is None else number(lasts, ages.Unit.SECONDS, "for", 1.0, scenarios.YEARS)
        chosen = self.population.select(select, [str(d) for d in devices])
        wanted = count or int(np.ceil(share * len(chosen)))
        if wanted < len(chosen):
            # The same devices in each process of a fleet.
            rng = np.random.default_rng([self._config.seed, 42, len(select), len(chosen)])
            chosen = np.sort(rng.permutation(chosen)[:wanted])
        active = self.fleet.inject(
            str(command.get("fault")),
            chosen,
            parameters={name: value for name, value in command.items() if name not in _OWN_KEYS},
            lasts_s=lasts_s,
            ident=str(command.get("id") or ""),
        )
        self.fleet.wake()
        return {"id": active.ident, "fault": active.kind, "devices": len(chosen)}


def _salt() -> int:
    """Tells two runs of one seed apart: no two boots of a device may have the same id."""
    return random.SystemRandom().getrandbits(24)


def _allow_descriptors(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise ConfigError(
            f"{wanted} connections are more than the {hard} that this process may open",
            "Raise the limit with 'ulimit -n', or simulate fewer devices",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
