"""Support for the station's tests: reports of a device, made in one line."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from fleetui.common.link.codec import encode
from fleetui.common.link.messages import Beat, Birth, Event, Gone, Reply, Running, UpMessage, Window
from fleetui.common.link.topics import Topics, Up

NOW = 1_800_000_000.0
MODEL = Running(handle="main", model="tinynet", version="1.0", variant="x86-64-v3", digest="ab" * 32)
KINDS: dict[type, Up] = {
    Birth: Up.BIRTH,
    Beat: Up.BEAT,
    Window: Up.WIN,
    Event: Up.EVENT,
    Gone: Up.GONE,
    Reply: Up.REPLY,
}


@dataclass
class Speaker:
    """One device, numbering its reports."""

    device: str = "d1"
    boot: str = "boot-a"
    fleet: str = "test"
    numbers: itertools.count = field(default_factory=itertools.count)

    def reboot(self, boot: str) -> None:
        self.boot = boot
        self.numbers = itertools.count()

    def _head(self, at: float, given: dict[str, Any]) -> dict[str, Any]:
        seq = given.pop("seq") if "seq" in given else next(self.numbers)
        return {"device": self.device, "boot": self.boot, "seq": seq, "at": at}

    def birth(self, at: float = NOW, **given: Any) -> Birth:
        head = self._head(at, given)
        return Birth(
            **head, **{"agent": "sim/1", "target": "x86-64-v3", "site": "berlin", "models": [MODEL]} | given
        )

    def beat(self, at: float = NOW, **given: Any) -> Beat:
        head = self._head(at, given)
        vital = {
            "uptime_s": 100.0,
            "cpu": 0.2,
            "memory": 0.3,
            "disk": 0.4,
            "temperature": 45.0,
            "clock_offset_s": 0.0,
        }
        return Beat(**head, **vital | given)

    def window(self, at: float = NOW, **given: Any) -> Window:
        head = self._head(at, given)
        span = {"handle": "main", "variant": "x86-64-v3", "start": at - 60.0, "length_s": 60.0, "rows": 100}
        return Window(**head, **span | {"latency": [0] * 30 + [100]} | given)

    def event(self, at: float = NOW, **given: Any) -> Event:
        head = self._head(at, given)
        return Event(**head, **{"kind": "model.loaded", "text": "loaded"} | given)

    def reply(self, ask: str, at: float = NOW, **given: Any) -> Reply:
        head = self._head(at, given)
        return Reply(**head, **{"ask": ask, "ok": True, "text": "pong"} | given)

    def gone(self, *, clean: bool = False) -> Gone:
        return Gone(device=self.device, boot=self.boot, clean=clean)

    def wire(self, message: UpMessage) -> tuple[str, bytes]:
        return Topics(self.fleet).up(self.device, KINDS[type(message)]), encode(message)
