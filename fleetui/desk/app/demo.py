"""The demo: an instance of its own with a simulated fleet, a week of history, and fleet time that runs fast.

``demo.json`` in its folder keeps the seed, the number of devices and where fleet time stood, so that the same fleet
goes on when the demo is opened again. The live fleet comes first; on the first start the week before is simulated
in the background meanwhile, then the station makes room for a moment while the recording is read into the store.

Everything here is driven by what the children say, on the supervisor's thread; speed and faults are set from the
main thread.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from fleetui.common.basedir import BaseDir
from fleetui.common.domain.clock import Clock, ScaledClock
from fleetui.common.domain.errors import ConfigError, ProcessError
from fleetui.common.domain.states import ChildState
from fleetui.common.trust.files import write_file
from fleetui.desk.app import commandlines
from fleetui.desk.app.supervise import ChildSpec, Note, Supervisor
from fleetui.station.turnable import TurnableClock

log = logging.getLogger("fleetui.desk.demo")

DEVICES = 200
RATE = 30.0
BEAT_S = 60
WEEK_H = 168
# The past is coarser than the present: a point an hour is what charts of a week can show, and is read in seconds.
PAST_BEAT_S, PAST_WINDOW_S = 1800, 3600
FLEET = "demo"
SLOWEST = 0.01  # what a clock calls standing still
KEEP_S = 2.0  # how often fleet time is noted, for a desk that is killed
RECORDER, REPLAY = "recorder", "replay"


@dataclass(frozen=True, slots=True)
class DemoOptions:
    devices: int | None = None  # as many as the last time, or DEVICES
    scenario: str = "demo"
    rate: float = RATE
    seed: int | None = None
    history: bool = True


class History(StrEnum):
    """How far the week before is."""

    NONE = "none"
    RECORDING = "recording"
    WAITING = "waiting"  # for the station to make room
    READING = "reading"
    DONE = "done"
    FAILED = "failed"
    UNWANTED = "unwanted"


@dataclass(slots=True)
class DemoState:
    """What ``demo.json`` holds."""

    seed: int
    devices: int
    scenario: str
    rate: float
    fleet: float  # fleet time when it was last written
    began: float = 0.0  # fleet time of the first start: where the recorded past ends
    history: str = History.NONE
    clean: bool = False  # the desk was closed; after a kill fleet time had gone on since this was written
    version: int = 1


@dataclass(frozen=True, slots=True)
class DemoStatus:
    """For the window: what the simulation says of itself, and how the history goes."""

    rate: float
    paused: bool
    history: History
    share: float = -1.0  # of the history, 0..1; negative where it is not known
    simulator: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """What is going on with the history, for the status bar; empty where nothing is."""
        match self.history:
            case History.RECORDING:
                done = f": {100 * self.share:.0f} %" if self.share >= 0 else ""
                return f"A week of history is being simulated{done}"
            case History.WAITING | History.READING:
                return "The week of history is being read into the store"
            case History.FAILED:
                return "The week of history could not be made"
        return ""


class Demo:
    """Made by :meth:`open`; the instance tells it what the children say."""

    def __init__(self, base: BaseDir, state: DemoState, *, history: bool) -> None:
        self._base = base
        self._state = state
        self._lock = threading.Lock()
        self._paused = False
        # Fleet time stands still until there is a fleet, and while the station makes room for the history: nothing
        # may happen to devices that nobody can hear.
        self._held = True
        self._share = -1.0
        self._said: dict[str, Any] = {}
        self._history = History(state.history)
        if not history and self._history is History.NONE:
            self._history = History.UNWANTED
        now = ScaledClock.starting_now(SLOWEST)
        self._scaled = ScaledClock(state.fleet or now.fleet, now.real, SLOWEST)
        self._turnable = TurnableClock(self._scaled)
        if not state.began:
            state.began = self._scaled.fleet
        self.clock: Clock = self._turnable
        self._keep()

    @classmethod
    def open(cls, base: BaseDir, options: DemoOptions) -> Demo:
        """The fleet that ``demo.json`` describes, or a new one."""
        path = base.root / "demo.json"
        kept = _kept(path)
        if kept is not None and options.devices is not None:
            # More or fewer devices are another fleet, but its past stays true for those in both.
            kept = replace(kept, devices=options.devices)
        state = kept or DemoState(
            seed=options.seed if options.seed is not None else secrets.randbelow(1_000_000),
            devices=options.devices or DEVICES,
            scenario=options.scenario,
            rate=options.rate,
            fleet=0.0,
        )
        if kept is not None and not kept.clean:
            # Fleet time never goes back: what it may have gained since it was last noted is added.
            state = replace(state, fleet=state.fleet + 2 * KEEP_S * state.rate)
        if state.history in {History.RECORDING, History.WAITING, History.READING, History.FAILED}:
            state = replace(state, history=History.NONE)  # it was interrupted; reading twice changes nothing
        return cls(base, state, history=options.history)

    @property
    def settings(self) -> dict[str, object]:
        """What a demo insists on, whatever the folder's settings say."""
        return {
            "fleet.name": FLEET,
            "fleet.beat_s": BEAT_S,
            "broker.kind": "embedded",
            "broker.port": 0,
            "broker.tls_port": 0,
            "store.url": "",
            "station.own": True,
        }

    @property
    def clock_spec(self) -> str:
        with self._lock:
            return self._scaled.spec

    @property
    def seed(self) -> int:
        return self._state.seed

    @property
    def devices(self) -> int:
        return self._state.devices

    @property
    def status(self) -> DemoStatus:
        with self._lock:
            return DemoStatus(self._state.rate, self._paused, self._history, self._share, dict(self._said))

    # ------------------------------------------------------------ children

    def _fleet_sim(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "fleet_sim", *arguments]

    def _fleet_options(self) -> list[str]:
        state = self._state
        return ["--devices", str(state.devices), "--seed", str(state.seed), "--fleet", FLEET]

    def simulator(self, broker_port: Callable[[], int]) -> ChildSpec:
        """The live fleet; it is started once the broker has said where it listens."""
        return ChildSpec(
            "simulator",
            "the simulated fleet",
            lambda: self._fleet_sim(
                *self._fleet_options(),
                "--scenario", self._state.scenario,
                "--broker", f"mqtt://127.0.0.1:{broker_port()}",
                "--secret", str(self._base.local_secret),
                "--clock", self.clock_spec,
                "--beat", str(BEAT_S),
                "--control", "stdio",
            ),
            comfort="its devices connect again",
            ready_within_s=60.0,
        )  # fmt: skip

    @property
    def _recording(self) -> Path:
        return self._base.root / "history.fleetrec"

    def helpers(self) -> tuple[ChildSpec, ...]:
        """The two that make the history, each once."""
        return (
            ChildSpec(
                RECORDER,
                "the simulation of the past week",
                lambda: self._fleet_sim(
                    "record", *self._fleet_options(),
                    "--beat", str(PAST_BEAT_S), "--window", str(PAST_WINDOW_S),
                    "--until", repr(self._state.began), "--hours", str(WEEK_H), "--out", str(self._recording),
                    "--control", "stdio",
                ),
                once=True,
                ends_with_input=False,
            ),
            ChildSpec(
                REPLAY,
                "the reading of the history",
                lambda: commandlines.fleetui(
                    "station", "--child", "--base-dir", str(self._base.root), "--fleet", FLEET,
                    "--beat", str(BEAT_S), "--clock", self.clock_spec, "--replay", str(self._recording),
                ),
                once=True,
                ends_with_input=False,
            ),
        )  # fmt: skip

    # ------------------------------------------------------------ what the children say (supervisor's thread)

    def ready(self, name: str, supervisor: Supervisor) -> None:
        reading = self._history in {History.WAITING, History.READING}
        up = supervisor.state("simulator") is ChildState.RUNNING
        if name in {"simulator", "station"} and up and self._held and not reading:
            self._hold(supervisor, hold=False)
        if name == "simulator" and self._history is History.NONE:
            self._go(History.RECORDING)
            supervisor.start(RECORDER)

    def heard(self, note: Note, supervisor: Supervisor) -> Note:
        """Goes on with the history; gives the note back as people should see it."""
        if note.name == "simulator" and note.line.get("kind") == "stats":
            with self._lock:
                self._said = {k: v for k, v in note.line.items() if k != "kind"}
            if self.clock.monotonic() - self._kept_at >= KEEP_S:
                self._keep()
        if note.name in {RECORDER, REPLAY} and note.line.get("kind") == "progress":
            with self._lock:
                self._share = float(note.line.get("share", -1.0))
        if note.name == RECORDER:
            return self._recorded(note, supervisor)
        if note.name == REPLAY:
            return self._read(note, supervisor)
        if note.name == "station" and note.state is ChildState.STOPPED and self._history is History.WAITING:
            self._go(History.READING)
            supervisor.start(REPLAY)
        return note

    def _recorded(self, note: Note, supervisor: Supervisor) -> Note:
        if self._history is History.RECORDING and _done(note):
            self._go(History.WAITING)
            self._hold(supervisor, hold=True)
            supervisor.stop("station")
        elif note.state is ChildState.FAILED:
            self._go(History.FAILED)
        return note

    def _read(self, note: Note, supervisor: Supervisor) -> Note:
        done, failed = _done(note), note.state is ChildState.FAILED
        if self._history is not History.READING or not (done or failed):
            return note
        self._go(History.DONE if done else History.FAILED)
        self._recording.unlink(missing_ok=True)
        supervisor.start("station")  # when it is ready, fleet time goes on
        return note

    def _hold(self, supervisor: Supervisor, *, hold: bool) -> None:
        with self._lock:
            self._held = hold
        self._turn(supervisor)

    def _go(self, history: History) -> None:
        with self._lock:
            self._history = history
            self._share = -1.0
        log.info("history: %s", history)
        self._keep()

    # ------------------------------------------------------------ speed and faults (main thread)

    def set_speed(self, rate: float, supervisor: Supervisor) -> None:
        """Fleet time at another speed, here and in every process that shares it."""
        if not 1.0 <= rate <= 10_000.0:
            raise ConfigError(f"A speed of {rate:g} makes no sense", "Choose one between 1 and 10000")
        with self._lock:
            self._state.rate = rate
        self._turn(supervisor)
        self._keep()

    def pause(self, supervisor: Supervisor) -> None:
        """Everything stands still: the devices, and fleet time with them, so that nobody counts as silent."""
        with self._lock:
            self._paused = True
        self._turn(supervisor)

    def play(self, supervisor: Supervisor) -> None:
        with self._lock:
            self._paused = False
        self._turn(supervisor)

    def inject(self, supervisor: Supervisor, fault: str, **parameters: Any) -> None:
        """A fault in the simulated world, now. Raises :class:`ProcessError` where the simulator is not up."""
        supervisor.send("simulator", {"do": "inject", "fault": fault, **parameters})

    def _turn(self, supervisor: Supervisor) -> None:
        """Brings every clock to what is wanted now."""
        with self._lock:
            still = self._paused or self._held
            self._scaled = self._scaled.at_rate(SLOWEST if still else self._state.rate)
            spec = self._scaled.spec
            self._turnable.turn(self._scaled)
        self._tell(supervisor, "station", {"command": "clock", "spec": spec})
        if still:
            self._tell(supervisor, "simulator", {"do": "pause"})
        else:
            self._tell(supervisor, "simulator", {"do": "speed", "clock": spec})
            self._tell(supervisor, "simulator", {"do": "play", "clock": spec})

    @staticmethod
    def _tell(supervisor: Supervisor, name: str, command: dict[str, Any]) -> None:
        try:
            supervisor.send(name, command)
        except ProcessError as error:
            # It is just being started, and is started with the clock as it is then.
            log.info("%s was not told %s: %s", name, command, error)

    # ------------------------------------------------------------ keeping

    def _keep(self, *, clean: bool = False) -> None:
        self._kept_at = self.clock.monotonic()
        with self._lock:
            state = replace(self._state, fleet=self._scaled.now(), history=str(self._history), clean=clean)
            if self._history is History.UNWANTED:
                state.history = History.NONE
            self._state = state
            text = json.dumps(asdict(state), indent=2) + "\n"
        write_file(self._base.root / "demo.json", text.encode(), private=False)

    def close(self) -> None:
        self._keep(clean=True)


def _done(note: Note) -> bool:
    """It did its work and ended, unasked."""
    outcome = note.outcome
    return outcome is not None and outcome.code == 0 and not outcome.asked


def _kept(path: Path) -> DemoState | None:
    try:
        data = json.loads(path.read_text("utf-8"))
        state = DemoState(
            seed=int(data["seed"]),
            devices=int(data["devices"]),
            scenario=str(data["scenario"]),
            rate=float(data["rate"]),
            fleet=float(data["fleet"]),
            began=float(data["began"]),
            history=History(data["history"]),
            clean=bool(data.get("clean", False)),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("%s cannot be used; a new demo begins", path)
        return None
    return state
