"""One desk instance put together: folder, lock, settings, clock, store, and the children in their order.

``open`` is quick and touches nothing but small files; ``start`` returns at once, and the rest happens on threads:
orphans of a killed desk are ended, the broker is started, and each following child when the one before it is
ready (broker, station, and in the demo the simulator). No window is needed to run one, and none waits for it.
``on_note`` is called on the supervisor's thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fleetui.common.basedir import BaseDir, default_base
from fleetui.common.domain.clock import Clock, SystemClock
from fleetui.common.domain.states import ChildState
from fleetui.desk.app import commandlines, orphans
from fleetui.desk.app.demo import Demo, DemoOptions
from fleetui.desk.app.lazystore import LazyStore
from fleetui.desk.app.settings import Settings
from fleetui.desk.app.settings_list import BROKER_KIND, STATION_OWN, STORE_URL
from fleetui.desk.app.single import FolderLock
from fleetui.desk.app.supervise import ChildSpec, Note, Supervisor

log = logging.getLogger("fleetui.desk.instance")

OnNote = Callable[[Note], None]
BROKER, STATION, SIMULATOR = "broker", "station", "simulator"


@dataclass(frozen=True, slots=True)
class Part:
    """One of the instance's parts as the status bar shows it."""

    name: str
    state: str  # of a child, or "elsewhere"
    sentence: str
    pid: int = 0


class Instance:
    """Make one with :meth:`open`, :meth:`start` it, :meth:`close` it."""

    def __init__(self, base: BaseDir, settings: Settings, lock: FolderLock, demo: Demo | None) -> None:
        self.base = base
        self.settings = settings
        self.demo = demo
        self.clock: Clock = demo.clock if demo is not None else SystemClock()
        self.store = LazyStore(settings.get(STORE_URL) or base.store_url, self.clock)
        self._lock = lock
        self._on_note: OnNote = lambda _note: None
        self._order = self._children()
        self._begun: set[str] = set()
        self._broker_port = self._last_port()
        self._closing = threading.Event()
        self.supervisor = Supervisor(base.run, SystemClock(), self._heard)
        for name in self._order:
            self.supervisor.add(self._spec(name))
        for helper in demo.helpers() if demo is not None else ():
            self.supervisor.add(helper)
        self._starter = threading.Thread(target=self._begin, name="instance-start", daemon=True)

    @classmethod
    def open(
        cls,
        base_dir: Path | str | None = None,
        demo: DemoOptions | None = None,
        overrides: dict[str, object] | None = None,
    ) -> Instance:
        """Raises :class:`ConfigError` where another desk has the folder, or it cannot be used."""
        if demo is not None and base_dir is None:
            base_dir = default_base().with_name("fleetui-demo")
        base = BaseDir.at(base_dir)
        lock = FolderLock(base.run / "desk.lock")
        lock.take()
        try:
            settings = Settings.load(base.settings)
            for key, value in (overrides or {}).items():
                settings.override(key, value)
            made = Demo.open(base, demo) if demo is not None else None
            if made is not None:
                for key, value in made.settings.items():
                    settings.override(key, value)
            return cls(base, settings, lock, made)
        except BaseException:
            lock.release()
            raise

    # ------------------------------------------------------------ children

    def _children(self) -> tuple[str, ...]:
        """Which there are, in the order in which they are started."""
        names: list[str] = []
        if self.settings.get(BROKER_KIND) != "url" and self.settings.get(STATION_OWN):
            names.append(BROKER)
        if self.settings.get(STATION_OWN):
            names.append(STATION)
        if self.demo is not None:
            names.append(SIMULATOR)
        return tuple(names)

    def _spec(self, name: str) -> ChildSpec:
        base, settings = self.base, self.settings
        if name == STATION:
            return ChildSpec(
                STATION,
                "the station",
                lambda: commandlines.station(base, settings, self._clock_spec()),
                comfort="nothing was lost",
                ready_within_s=60.0,
            )
        if name == SIMULATOR:
            assert self.demo is not None
            return self.demo.simulator(lambda: self._broker_port)
        if settings.get(BROKER_KIND) == "mosquitto":
            port = commandlines.mosquitto_port(settings)
            return ChildSpec(
                BROKER,
                "mosquitto",
                lambda: commandlines.mosquitto(base, settings),
                comfort="devices connect again by themselves",
                ends_with_input=False,
                probe=lambda: commandlines.answers(port),
            )
        return ChildSpec(
            BROKER,
            "the broker",
            # The port it had: whoever was connected comes back to the same place.
            lambda: commandlines.broker(base, settings, self._broker_port),
            comfort="nothing that was acknowledged was lost",
        )

    def _clock_spec(self) -> str:
        return self.demo.clock_spec if self.demo is not None else ""

    def start(self, on_note: OnNote) -> None:
        """Begins; returns at once."""
        self._on_note = on_note
        self._starter.start()

    def _begin(self) -> None:
        for name in orphans.sweep(self.base.run, SystemClock()):
            log.warning("ended a %s that an earlier desk left running", name)
        if self._order:
            self._start_once(self._order[0])

    def _start_once(self, name: str) -> None:
        if name not in self._begun and not self._closing.is_set():
            self._begun.add(name)
            self.supervisor.start(name)

    def _heard(self, note: Note) -> None:
        """On the supervisor's thread."""
        if note.state is ChildState.RUNNING and note.line.get("kind") == "ready":
            if note.name == BROKER:
                self._broker_port = self._port(note) or self._broker_port
                self._keep_port()
            at = self._order.index(note.name) if note.name in self._order else len(self._order)
            for following in self._order[at + 1 : at + 2]:
                self._start_once(following)
            if self.demo is not None:
                self.demo.ready(note.name, self.supervisor)
        if self.demo is not None:
            note = self.demo.heard(note, self.supervisor)
        self._on_note(note)

    @property
    def _port_file(self) -> Path:
        return self.base.run / "broker.port"

    def _last_port(self) -> int:
        """Where the broker listened last, also under an earlier desk; 0 where that is unknown or taken by now."""
        try:
            port = int(self._port_file.read_text("ascii"))
        except (OSError, ValueError):
            return 0
        return port if 0 < port < 65_536 and not commandlines.answers(port) else 0

    def _keep_port(self) -> None:
        try:
            self._port_file.write_text(f"{self._broker_port}\n", "ascii")
        except OSError as error:
            log.warning("the broker's port is not remembered: %s", error)

    @staticmethod
    def _port(note: Note) -> int:
        for listener in note.line.get("listeners", ()):
            if isinstance(listener, dict) and listener.get("policy") in {"local", "open"}:
                return int(listener.get("port", 0))
        return 0

    def parts(self) -> list[Part]:
        """Every child as it is now, and what runs elsewhere."""
        found = [
            Part(name, str(self.supervisor.state(name)), self.supervisor.sentence(name), self.supervisor.pid(name))
            for name in self._order
        ]
        if BROKER not in self._order:
            found.insert(0, Part(BROKER, "elsewhere", "The broker runs elsewhere"))
        if STATION not in self._order:
            found.append(Part(STATION, "elsewhere", "The station runs elsewhere"))
        return found

    @property
    def children(self) -> tuple[str, ...]:
        return self._order

    def restart(self, name: str) -> None:
        """For people: also of one that was given up."""
        self.supervisor.restart(name)

    def set_speed(self, rate: float) -> None:
        """Of the demo: fleet time at another speed, in every process that shares it."""
        if self.demo is not None:
            self.demo.set_speed(rate, self.supervisor)

    # ------------------------------------------------------------ ending

    def close(self) -> None:
        """Children end in the reverse order, so that each can still say its last to the one before."""
        self._closing.set()
        if self._starter.is_alive():
            self._starter.join(15.0)
        if self.demo is not None:
            self.demo.close()
        self.supervisor.close(tuple(reversed(self._order)))
        self.store.close()
        self._lock.release()
