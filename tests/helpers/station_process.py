"""The station as a real process, and devices that speak to it over a real broker."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleetui.common.link.loop import LinkLoop
from fleetui.common.link.messages import UpMessage
from fleetui.common.link.mqtt import MqttTransport
from fleetui.common.link.transport import LinkConfig, LinkState
from tests.helpers.broker import RunningBroker
from tests.helpers.station import Speaker
from tests.helpers.wait import wait_until


class StationProcess:
    """``python -m fleetui.station --child``, its lines, its end."""

    def __init__(self, base: Path, *options: str) -> None:
        self.base = base
        self._options = options
        self.lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.said: list[dict[str, Any]] = []
        self.log = base / "station.log"
        self.process: subprocess.Popen[bytes] = None  # type: ignore[assignment]  # set by start()
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fleetui.station", "--base-dir", str(self.base), "--child", *self._options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: Any) -> None:
        for line in stream:
            self.lines.put(json.loads(line))

    def wait_for(self, kind: str, timeout: float = 20.0, **fields: Any) -> dict[str, Any]:
        """The next line of this kind with these fields."""

        def found() -> dict[str, Any] | None:
            with contextlib.suppress(queue.Empty):
                while True:
                    said = self.lines.get_nowait()
                    self.said.append(said)
                    if said["kind"] == kind and fields.items() <= said.items():
                        return said
            assert self.process.poll() is None or kind == "stopped", f"the station ended: {self.log_text}"
            return None

        return wait_until(found, timeout, f"a line {kind} {fields} (said {self.said[-3:]}, log {self.log_text})")

    def wait_leading(self, timeout: float = 20.0) -> None:
        self.wait_for("state", timeout, leader=True, link="online")

    def command(self, **said: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(said).encode() + b"\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """As ``kill -9`` does."""
        self.process.kill()
        self._reap()

    def stop(self, timeout: float = 15.0) -> int:
        """In order, as a desk does that goes away."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(timeout)
        self._reap()
        return self.process.returncode

    def _reap(self) -> None:
        self.process.wait(10)
        self._reader.join(5)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    @property
    def log_text(self) -> str:
        return self.log.read_text("utf-8", "replace")[-4000:] if self.log.exists() else ""

    def close(self) -> None:
        if self.process.poll() is None:
            assert self.stop() == 0, self.log_text
        assert "Traceback" not in self.log_text, self.log_text


@contextlib.contextmanager
def running_station(base: Path, *options: str) -> Iterator[StationProcess]:
    station = StationProcess(base, *options)
    try:
        yield station
    except BaseException:
        station.kill()
        raise
    station.close()


class Publishers:
    """Devices on one loop, which remember what of theirs the broker has acknowledged."""

    def __init__(self, broker: RunningBroker, count: int) -> None:
        self.loop = LinkLoop(name="publishers")
        self.speakers = [Speaker(f"dev{i:03}", f"boot{i}", broker.fleet) for i in range(count)]
        self.acked: list[UpMessage] = []
        self.sent = 0
        self.links = []
        for i, speaker in enumerate(self.speakers):
            config = LinkConfig(
                speaker.device,
                broker.host,
                broker.port,
                username=speaker.device,
                password=broker.password(speaker.device),
                backoff_min_s=0.05,
                backoff_max_s=0.5,
                queue_limit=100_000,
            )
            self.links.append(MqttTransport(config, self.loop, rng=random.Random(i)))
        for link in self.links:
            link.start()
        self.loop.start_thread()

    def wait_online(self) -> None:
        wait_until(lambda: all(link.status.state is LinkState.ONLINE for link in self.links), 30, "devices online")

    def say(self, i: int, message: UpMessage) -> None:
        topic, payload = self.speakers[i].wire(message)
        self.sent += 1
        assert self.links[i].publish(
            topic, payload, qos=1, on_done=lambda ok: self.acked.append(message) if ok else None
        )

    def wait_acked(self, timeout: float = 60.0) -> None:
        wait_until(lambda: len(self.acked) == self.sent, timeout, f"{self.sent} acknowledgements")

    def close(self) -> None:
        self.loop.stop()
