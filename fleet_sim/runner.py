"""``fleet-sim`` as a whole: one worker in this process, or several in their own, with their figures added up.

A parent of several workers simulates nothing itself: it passes commands on to all of them, adds up what they
count, and lets one of them speak where all would say the same. If a worker dies, the others are stopped and so is
the parent: half a fleet would look like an outage.

Threads of a parent: one reader per worker, ``parent-watch``, and the main thread, which waits.
"""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fleet_sim.run_config import RunConfig
from fleetui.common.child import ParentWatch, on_signals, say
from fleetui.common.domain.errors import ProcessError

log = logging.getLogger("fleetui.sim")

DEVICES_A_PROCESS = 2500
STOP_WITHIN_S = 15.0
KILL_WITHIN_S = 3.0
ADDED = {
    "devices",
    "connected",
    "sent",
    "acked",
    "refused",
    "queued",
    "dropped",
    "rows",
    "errors",
    "boots",
    "messages_per_s",
    "bugs",
}


def processes_for(devices: int) -> int:
    """How many processes a fleet is spread over unless said otherwise: a second one bounds stalls, no more."""
    return 1 if devices <= DEVICES_A_PROCESS else 2


def speak_to_people(kind: str, **fields: Any) -> None:
    """What a person at a terminal sees instead of JSON lines."""
    if kind == "ready":
        text = f"{fields['devices']} devices of the fleet {fields['fleet']!r}: {fields['scenario']}"
    elif kind == "state":
        text = f"all {fields['devices']} are connected after {fields['seconds']} s"
    elif kind == "stats":
        text = (
            f"{fields['connected']}/{fields['devices']} connected, {fields['messages_per_s']:.0f} messages/s, "
            f"{fields['sent']} sent, {fields['queued']} queued, {fields['dropped']} dropped, {fields['rows']} rows"
        )
        if fields["trouble"]:
            text += f". {fields['trouble']}"
    elif kind == "event":
        text = f"{fields['what']}: {fields['id']} ({fields['fault']}, {fields['devices']} devices)"
    elif kind == "stopped":
        text = f"stopped ({fields['reason']}): {fields['sent']} sent, {fields['acked']} acknowledged"
    else:
        text = " ".join([kind, *(f"{name}={value}" for name, value in fields.items())])
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(config: RunConfig, argv: Sequence[str], processes: int) -> int:
    """Simulate until stopped. ``argv`` starts a worker; ``--part`` is added to it."""
    speak = say if config.control else speak_to_people
    if processes == 1:
        from fleet_sim.worker import Worker

        Worker(config, speak).run()
        return 0
    return Parent(config, argv, processes, speak).run()


class Child:
    """One worker process and the latest that it said of itself."""

    def __init__(self, command: Sequence[str], take: Callable[[Child, dict[str, Any]], None]) -> None:
        self.figures: dict[str, Any] = {}
        self.ready = False
        self.connected_after: float | None = None
        self.stopped = False
        self._take = take
        self.process = subprocess.Popen(list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._reader = threading.Thread(target=self._read, name=f"worker-{self.process.pid}")
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if isinstance(said, dict):
                self._take(self, said)
        self._take(self, {"kind": "ended"})

    def tell(self, command: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(command).encode() + b"\n")
            self.process.stdin.flush()
        except (OSError, ValueError):
            log.warning("the worker %s does not listen any more", self.process.pid)

    def end(self) -> int:
        """Ask by closing its stdin, then insist."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        for wait, act in ((STOP_WITHIN_S, self.process.terminate), (KILL_WITHIN_S, self.process.kill)):
            try:
                self.process.wait(wait)
                break
            except subprocess.TimeoutExpired:
                act()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.returncode


class Parent:
    """See the module's docstring."""

    def __init__(self, config: RunConfig, argv: Sequence[str], processes: int, speak: Callable[..., None]) -> None:
        self._config = config
        self._argv = list(argv)
        self._processes = processes
        self._speak = speak
        self._lock = threading.Lock()  # over what the readers say
        self._done = threading.Event()
        self._reason = "asked to"
        self._failed: ProcessError | None = None
        self._children: list[Child] = []
        self._injected = 0
        self._told_ready = self._told_connected = False

    def run(self) -> int:
        base = [sys.executable, "-m", "fleet_sim", *self._argv]
        for part in range(self._processes):
            self._children.append(Child([*base, "--part", f"{part}/{self._processes}"], self._take))
        on_signals(lambda: self._stop("a signal"))
        if self._config.control:
            ParentWatch(lambda: self._stop("the parent is gone"), self._command).start()
        self._done.wait()
        # All are asked at once, then waited for.
        threads = [threading.Thread(target=child.end) for child in self._children]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failed is not None:
            raise self._failed
        self._speak("stopped", reason=self._reason, **self._sum())
        return 0

    def _stop(self, reason: str) -> None:
        self._reason = reason
        self._done.set()

    def _fail(self, sentence: str, fix: str) -> None:
        if self._failed is None:
            self._failed = ProcessError(sentence, fix)
        self._done.set()

    def _command(self, command: Mapping[str, Any]) -> None:
        if command.get("do") == "stop":
            self._speak("done", do="stop", ref=command.get("ref"))
            self._stop("asked to")
            return
        if command.get("do") == "inject" and not command.get("id"):
            self._injected += 1  # one name in all processes
            command = {**command, "id": f"{command.get('fault')}-{self._injected}"}
        for child in self._children:
            child.tell(command)

    def _sum(self) -> dict[str, Any]:
        figures = dict(self._children[0].figures) if self._children else {}
        for name in ADDED:
            figures[name] = round(sum(child.figures.get(name, 0) for child in self._children), 1)
        figures["trouble"] = next((t for c in self._children if (t := c.figures.get("trouble"))), "")
        figures["late_s"] = max((child.figures.get("late_s", 0.0) for child in self._children), default=0.0)
        return figures

    def _take(self, child: Child, said: dict[str, Any]) -> None:
        with self._lock:
            self._took(child, said)

    def _all(self, condition: Callable[[Child], bool]) -> bool:
        return len(self._children) == self._processes and all(condition(c) for c in self._children)

    def _took(self, child: Child, said: dict[str, Any]) -> None:
        kind = said.pop("kind", "")
        first = bool(self._children) and child is self._children[0]
        if kind == "ended":
            if not child.stopped and not self._done.is_set():
                code = child.process.wait()
                self._fail(f"A process of the simulator ended by itself with {code}", "Start it again")
        elif kind == "stopped":
            child.stopped = True
            if "sentence" in said:  # it could not begin
                self._fail(str(said["sentence"]), str(said.get("fix", "")))
                return
            child.figures = {k: v for k, v in said.items() if k != "reason"}
            if not self._done.is_set():
                self._stop(str(said.get("reason")))
        elif kind == "stats":
            child.figures = said
            if first and self._all(lambda c: bool(c.figures)):
                self._speak("stats", **self._sum())
        elif kind == "ready":
            child.ready = True
            if not self._told_ready and self._all(lambda c: c.ready):
                self._told_ready = True
                said["devices"] = said["of"]
                self._speak("ready", **said)
        elif kind == "state" and said.get("state") == "connected":
            child.connected_after = float(said["seconds"])
            times = [c.connected_after for c in self._children if c.connected_after is not None]
            if not self._told_connected and len(times) == self._processes:
                self._told_connected = True
                said.update(devices=self._config.devices, seconds=max(times))
                self._speak("state", **said)
        elif first:  # events and answers: all workers say the same
            if kind == "done" and "figures" in said:
                said["figures"] = self._sum()
            self._speak(kind, **said)
