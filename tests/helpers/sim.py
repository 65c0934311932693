"""Support for the tests of agent and simulator: a core with its books kept, a simulator as a process."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fleet_sim.agent.config import AgentConfig
from fleet_sim.agent.core import AgentCore
from fleet_sim.agent.events import (
    Acknowledged,
    AgentEvent,
    Connected,
    Counted,
    Disconnect,
    Disconnected,
    Effect,
    Persist,
    Publish,
    Refused,
    Started,
    Subscribe,
)
from fleet_sim.agent.queue import Limits, ReportQueue
from fleetui.common.link import codec
from fleetui.common.link.messages import Ask, Running, UpMessage, Window
from fleetui.common.link.topics import Down, Topics, Up
from fleetui.common.sketches import latency as bins
from tests.helpers.broker import RunningBroker
from tests.helpers.wait import wait_until

T0 = 1_800_000_000.0
MODEL = Running("vibration", "bearing", "1.0", "x86-64-v3/fp32", "ab" * 32)
TOPICS = Topics("plant")


def counted(rows: int, errors: int = 0, bin_: int = 30, classes: Sequence[int] = (), handle="vibration") -> Counted:
    histogram = np.zeros(bins.BINS, dtype=np.int64)
    histogram[bin_] = rows
    outputs = np.array(classes, dtype=np.int64) if classes else None
    return Counted(handle, rows, errors, histogram, outputs, "no luck" if errors else "")


class Books:
    """One core over its reboots, with a disk and a wire that remember everything."""

    def __init__(
        self, limits: Limits | None = None, *, device: str = "d1", now: float = T0, models=(MODEL,), **config
    ) -> None:
        self.limits = limits or Limits()
        self.config = AgentConfig("plant", device, agent="0.1", **config)
        self.models = models
        self.boots = itertools.count()
        self.now = now
        self.disk: dict[int, tuple[str, bytes]] = {}
        self.disk_losses: dict[str, int] = {}
        self.flying: dict[int, Publish] = {}  # with the transport
        self.sent: list[Publish] = []
        self.content: dict[tuple[str, int], bytes] = {}  # by boot and number
        self.acknowledged: set[tuple[str, int]] = set()
        self.inferred = self.acked_rows = self.lost_open = 0
        self.closed = False
        self.dropped_before = 0
        self.core = self._boot()

    def _boot(self) -> AgentCore:
        queue = ReportQueue(self.limits)
        queue.restore(
            [
                (ident, codec.decode_up(kind, payload, self.config.device))
                for ident, (kind, payload) in self.disk.items()
            ],
            self.disk_losses,
        )
        return AgentCore(self.config, f"boot{next(self.boots)}", self.models, queue=queue, seed=7)

    # ------------------------------------------------------------ in

    def do(self, event: AgentEvent, now: float | None = None) -> list[Effect]:
        self.now = self.now if now is None else now
        if isinstance(event, Counted) and self.core.state in {"online", "offline"}:
            self.inferred += event.rows
        effects = self.core.step(event, self.now)
        published = False
        for effect in effects:
            if isinstance(effect, Persist):
                assert not published, "written down after it was sent"
                self._write(effect)
            elif isinstance(effect, Publish):
                published = True
                self._take(effect)
            elif isinstance(effect, Disconnect):
                self.closed = True
            elif isinstance(effect, Subscribe):
                assert effect.pattern.startswith(f"fleet/plant/down/{self.config.device}/")
        return effects

    def start(self) -> list[Effect]:
        return self.do(Started())

    def connect(self) -> list[Effect]:
        return self.do(Connected())

    def disconnect(self, *, forget: bool = False) -> None:
        self.do(Disconnected())
        if forget:
            for token in list(self.flying):
                self.refuse(token)

    def acknowledge(self, token: int) -> None:
        publish = self.flying.pop(token)
        message = publish.message
        if isinstance(message, Window) and (message.boot, message.seq) not in self.acknowledged:
            self.acked_rows += message.rows
        if hasattr(message, "seq"):
            self.acknowledged.add((message.boot, message.seq))
        self.do(Acknowledged(token))

    def acknowledge_all(self) -> None:
        while self.flying:
            self.acknowledge(next(iter(self.flying)))

    def refuse(self, token: int) -> None:
        self.flying.pop(token)
        self.do(Refused(token))

    def crash(self) -> None:
        """Power cut: what stands on disk is there, and nothing else."""
        self.lost_open += self.core.open_rows()
        self.dropped_before += self.core.queue.dropped_rows
        self.flying.clear()
        self.closed = False
        self.now += 1.0  # nothing starts in no time
        self.core = self._boot()
        self.start()

    # ------------------------------------------------------------ out

    def _write(self, effect: Persist) -> None:
        for ident in effect.deletes:
            self.disk.pop(ident, None)
        for ident, kind, payload in effect.puts:
            self.disk[ident] = (kind, payload)
        self.disk_losses = dict(effect.losses)

    def _take(self, effect: Publish) -> None:
        device, kind = TOPICS.parse_up(effect.topic)
        assert device == self.config.device
        payload = codec.encode(effect.message)
        decoded = codec.decode_up(kind, payload, device)  # within all limits
        assert codec.encode(decoded) == payload
        self.sent.append(effect)
        if effect.qos:
            assert effect.token is not None
            assert effect.token not in self.flying
            self.flying[effect.token] = effect
        if hasattr(effect.message, "seq"):
            number = effect.message.boot, effect.message.seq
            assert number not in self.acknowledged, "sent again after it was acknowledged"
            assert self.content.setdefault(number, payload) == payload, "a number for two contents"

    # ------------------------------------------------------------ the sums

    def queued_rows(self) -> int:
        return sum(entry.report.rows for entry in self.core.queue if isinstance(entry.report, Window))

    def accounted(self) -> int:
        return (
            self.acked_rows
            + self.queued_rows()
            + self.core.open_rows()
            + self.core.queue.dropped_rows
            + self.dropped_before
            + self.lost_open
        )

    def messages(self, kind: type) -> list:
        return [effect.message for effect in self.sent if isinstance(effect.message, kind)]


class Listener:
    """A station's ear on a real broker: decodes everything, and keeps it."""

    def __init__(self, broker: RunningBroker, *, keep: bool = False, tls: bool = False) -> None:
        self.topics = Topics(broker.fleet)
        self.messages: list[tuple[str, Up, UpMessage]] = []
        self._client = broker.paho("station", session_expiry=3600 if keep else 0, clean=not keep, tls=tls)
        self._client.on_message = self._on_message
        subscribed: list[object] = []
        self._client.on_subscribe = lambda *arguments: subscribed.append(arguments)
        self._client.subscribe(self.topics.all_up, qos=1)
        wait_until(lambda: subscribed, what="the station's subscription")

    def _on_message(self, _client: object, _data: object, message: Any) -> None:
        device, kind = self.topics.parse_up(message.topic)
        self.messages.append((device, kind, codec.decode_up(kind, message.payload, device)))

    def ask(self, device: str, ask: Ask) -> None:
        self._client.publish(self.topics.down(device, Down.ASK), codec.encode(ask), qos=1).wait_for_publish(10)

    def of(self, kind: Up, device: str = "") -> list[Any]:
        return [m for d, k, m in list(self.messages) if k is kind and device in {"", d}]

    def wait(self, kind: Up, count: int = 1, device: str = "", timeout: float = 20.0) -> list[Any]:
        found = wait_until(
            lambda: self.of(kind, device) if len(self.of(kind, device)) >= count else [],
            timeout,
            f"{count} of {kind} from {device or 'anybody'}",
        )
        return list(found)


class SimProcess:
    """``fleet-sim --control stdio`` as its parent sees it."""

    def __init__(self, *arguments: str) -> None:
        self.lines: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fleet_sim", *arguments, "--control", "stdio"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._errors: list[bytes] = []
        self._threads = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self._errors.extend(self.process.stderr)

    @property
    def errors(self) -> str:
        return b"".join(self._errors).decode()

    def tell(self, do: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        self.process.stdin.flush()

    def wait(
        self,
        kind: str,
        condition: Callable[[dict[str, Any]], bool] = lambda _: True,
        timeout: float = 30.0,
        since: int = 0,
    ) -> dict[str, Any]:
        """The latest line of this kind for which the condition holds, of those that came ``since``."""

        def find() -> dict[str, Any] | None:
            found = [line for line in reversed(self.lines[since:]) if line["kind"] == kind and condition(line)]
            assert found or self.process.poll() is None or timeout == 0, f"it ended: {self.errors}"
            return found[0] if found else None

        found = wait_until(find, timeout, f"a line {kind!r} of the simulator ({self.lines[-1:]}, {self.errors})")
        assert found is not None
        return found

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """A command's answer, good or bad."""
        ref = len(self.lines) + 1000
        self.tell(do, ref=ref, **fields)
        answer = wait_until(
            lambda: next((line for line in self.lines if line.get("ref") == ref), None),
            20.0,
            f"an answer to {do!r}",
        )
        assert answer is not None
        return answer

    def end(self, timeout: float = 30.0) -> int:
        """Close its stdin, as a parent that is gone, and wait."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            return self.process.wait(timeout)
        finally:
            self.process.kill()
            self.process.wait()
            for thread in self._threads:
                thread.join()
            for stream in (self.process.stdout, self.process.stderr):
                assert stream is not None
                stream.close()


@contextlib.contextmanager
def simulator(*arguments: str) -> Iterator[SimProcess]:
    process = SimProcess(*arguments)
    try:
        yield process
    finally:
        code = process.end()
    assert code == 0, process.errors
    assert "Traceback" not in process.errors, process.errors
