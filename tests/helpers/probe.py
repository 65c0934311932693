"""Honest devices for fault tests: they send windows and events, and remember what the broker acknowledged.

Whatever was acknowledged must be in the store in the end, whichever process was killed in between. Reports that
were not acknowledged are sent again under the same number, as the agent does.
"""

from __future__ import annotations

import random
import sqlite3
import threading
from dataclasses import dataclass, field
from pathlib import Path

from fleetui.common.domain.clock import SystemClock
from fleetui.common.link.codec import encode
from fleetui.common.link.loop import LinkLoop
from fleetui.common.link.messages import Birth, Event, Running, Window
from fleetui.common.link.mqtt import MqttTransport
from fleetui.common.link.topics import Topics, Up
from fleetui.common.link.transport import LinkConfig, LinkState, LinkStatus, Will
from fleetui.common.trust.local import local_password


@dataclass
class _Device:
    name: str
    link: MqttTransport
    seq: int = 0
    waiting: set[int] = field(default_factory=set)


class Probe:
    """``count`` devices on one loop, each reporting every ``every_s`` until stopped."""

    def __init__(
        self, host: str, port: int, secret: bytes, fleet: str, *, count: int = 20, every_s: float = 0.1
    ) -> None:
        self.topics = Topics(fleet)
        self.clock = SystemClock()
        self.loop = LinkLoop(self.clock, name="probe")
        self.acked: set[tuple[str, str, int]] = set()  # (device, kind, number)
        self.published = 0
        self.online = 0
        self._every_s = every_s
        self._lock = threading.Lock()
        self._paused = False
        self._devices = []
        rng = random.Random(7)
        for i in range(count):
            name = f"probe-{i:03d}"
            config = LinkConfig(
                client_id=name, host=host, port=port, username=name, password=local_password(secret, name),
                session_expiry_s=3600, keepalive_s=10, queue_limit=5000, backoff_max_s=1.0,
                will=Will(self.topics.up(name, Up.GONE), b"", qos=1),
            )  # fmt: skip
            link = MqttTransport(config, self.loop, rng=random.Random(rng.random()))
            device = _Device(name, link)
            link.on_status = lambda status, d=device: self._on_status(d, status)
            self._devices.append(device)

    def start(self) -> None:
        self.loop.start_thread()
        for i, device in enumerate(self._devices):
            device.link.start()
            self.loop.call_soon_threadsafe(self.loop.call_later, self._every_s * (i + 1) / len(self._devices),
                                           self._report, device)  # fmt: skip

    def stop(self) -> None:
        self.loop.stop()

    def pause(self) -> None:
        """Report nothing more; what is under way is still acknowledged."""
        self._paused = True

    @property
    def waiting(self) -> int:
        return sum(len(d.waiting) for d in self._devices)

    def _on_status(self, device: _Device, status: LinkStatus) -> None:
        if status.state is LinkState.ONLINE:
            self._send(device, Up.BIRTH, self._birth)
        self.online = sum(d.link.status.state is LinkState.ONLINE for d in self._devices)

    def _report(self, device: _Device) -> None:
        if self._paused:
            return
        self._send(device, Up.WIN, self._window)
        if device.seq % 5 == 0:
            self._send(device, Up.EVENT, self._event)
        self.loop.call_later(self._every_s, self._report, device)

    def _send(self, device: _Device, kind: Up, make: object) -> None:
        device.seq += 1
        number = device.seq
        payload = encode(make(device.name, number))  # type: ignore[operator]
        device.waiting.add(number)
        taken = device.link.publish(
            self.topics.up(device.name, kind), payload, qos=1,
            on_done=lambda ok: self._done(device, kind, number, ok=ok),
        )  # fmt: skip
        if taken:
            self.published += 1
        else:
            device.waiting.discard(number)

    def _done(self, device: _Device, kind: Up, number: int, *, ok: bool) -> None:
        device.waiting.discard(number)
        if ok and kind in {Up.WIN, Up.EVENT}:
            with self._lock:
                self.acked.add((device.name, str(kind), number))
        elif not ok and kind is Up.BIRTH and device.link.status.state is LinkState.ONLINE:
            # Nobody was there to hear it yet; everything else is simply not counted.
            self.loop.call_later(0.5, self._send, device, Up.BIRTH, self._birth)

    def _birth(self, name: str, number: int) -> Birth:
        return Birth(
            device=name, boot="probe", seq=number, at=self.clock.now(), agent="probe/1", target="x86-64-v3",
            site="lab", models=[Running("main", "probe", "1.0")],
        )  # fmt: skip

    def _window(self, name: str, number: int) -> Window:
        # The start is the number's own, so that no window can stand in for another.
        return Window(
            device=name, boot="probe", seq=number, at=self.clock.now(), handle="main", variant="v",
            start=1_800_000_000.0 + number, length_s=1.0, rows=10, latency=[0] * 30 + [10],
        )  # fmt: skip

    def _event(self, name: str, number: int) -> Event:
        return Event(device=name, boot="probe", seq=number, at=self.clock.now(), kind="probe", text="still here")


def stored(database: Path) -> set[tuple[str, str, int]]:
    """What of the probes is in the store, read from the file itself: (device, kind, number)."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)
    try:
        found = {
            (name, "win", round(start - 1_800_000_000.0))
            for name, start in connection.execute(
                "SELECT d.device, w.start FROM inference_window w JOIN device d ON d.number = w.device "
                "WHERE d.device LIKE 'probe-%'"
            )
        }
        found |= {
            (name, "event", number)
            for name, number in connection.execute(
                "SELECT d.device, e.report_seq FROM event e JOIN device d ON d.number = e.device "
                "WHERE d.device LIKE 'probe-%' AND e.kind = 'probe'"
            )
        }
    finally:
        connection.close()
    return found
