"""Support for the station's tests: reports of a device made in one line, and a world in virtual time."""

from __future__ import annotations

import itertools
import random
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from fleetui.common.basedir import BaseDir
from fleetui.common.domain.clock import ManualClock
from fleetui.common.link.codec import decode_ask, encode
from fleetui.common.link.loopback import Faults, LoopbackBroker, LoopbackTransport
from fleetui.common.link.messages import Ask, Beat, Birth, Event, Gone, Reply, Running, UpMessage, Window
from fleetui.common.link.topics import Topics, Up
from fleetui.common.link.transport import LinkConfig, Transport, Will
from fleetui.common.trust.wishes import sign_wish
from fleetui.station.config import BrokerAddress, StationConfig
from fleetui.station.operators import checker, local_operator
from fleetui.station.process import Station
from fleetui.store import devices as store_devices
from fleetui.store import events as store_events
from fleetui.store import wishes
from fleetui.store.records import DeviceRow, EventRow, Wish
from fleetui.store.store import Store
from fleetui.store.tables import device as device_table
from fleetui.store.tables import inference_window

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


# ------------------------------------------------------------------------------------------------ in virtual time


class LoopbackLink:
    """The station's connection to a broker in memory; whoever steps the broker turns it."""

    def __init__(self, broker: LoopbackBroker, config: LinkConfig) -> None:
        self._broker = broker
        self._transport = LoopbackTransport(config, broker)

    @property
    def transport(self) -> Transport:
        return self._transport

    def start(self) -> None:
        self._transport.start()

    def close(self) -> None:
        self._transport.stop()
        self._broker.run_until_idle()


class Device:
    """A speaker with a connection: what it published at QoS 1, and what of it the broker has acknowledged."""

    def __init__(self, broker: LoopbackBroker, speaker: Speaker) -> None:
        self.speaker = speaker
        topics = Topics(speaker.fleet)
        will = Will(topics.up(speaker.device, Up.GONE), encode(speaker.gone()))
        self.link = LoopbackTransport(LinkConfig(speaker.device, will=will, backoff_max_s=5.0), broker)
        self.asks: list[Ask] = []
        self.link.on_message = lambda message: self.asks.append(decode_ask(message.payload))
        self.link.subscribe(topics.all_down(speaker.device))
        self.link.start()
        self.acked: list[UpMessage] = []

    def say(self, message: UpMessage, *, qos: int = 1) -> None:
        topic, payload = self.speaker.wire(message)

        def done(ok: bool) -> None:
            if ok and qos:
                self.acked.append(message)

        self.link.publish(topic, payload, qos=qos, on_done=done)


class World:
    """A store, a broker in memory, stations and devices in one virtual time."""

    def __init__(
        self, folder: Path, store_url: str | None = None, *, faults: Faults | None = None, **config: Any
    ) -> None:
        self.clock = ManualClock(NOW)
        self.broker = LoopbackBroker(
            self.clock, random.Random(7), faults, queue_limit=100_000, receive_maximum=4_000
        )
        self.base = BaseDir.at(folder)
        self.operator = local_operator(self.base)
        self._config = {"gather_s": 0.0, "rollup_s": 1e9, "fleet": "test"} | config
        self.stations: list[Station] = []
        self.devices: dict[str, Device] = {}
        self.store_url = store_url or self.base.store_url
        self.store = Store.open(self.store_url, clock=self.clock)
        self.said: list[dict[str, Any]] = []

    def station(self, **config: Any) -> Station:
        given = self._config | config
        made = Station(
            StationConfig(self.base, self.store_url, BrokerAddress("memory", 1), **given),
            checker(self.base),
            make_link=lambda link, _clock: LoopbackLink(self.broker, link),
            say=lambda kind, **fields: self.said.append({"kind": kind, **fields}),
            clock=self.clock,
            real=self.clock,
        )
        made.open()
        self.stations.append(made)
        self.run(0.0)
        return made

    def device(self, name: str = "d1", **given: Any) -> Device:
        made = self.devices[name] = Device(self.broker, Speaker(name, **given))
        self.run(0.0)
        return made

    def run(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        """Let virtual time pass, a second at a time, with everybody at work."""
        left = seconds
        while True:
            self.broker.run_for(min(left, 1.0))
            for _ in range(10):
                for station in self.stations:
                    station.step()
                self.settle()
                if self.broker.run_until_idle():
                    self.settle()
                offices = [s.leading.office for s in self.stations if s.leading]
                if not any(o._under_way or o._answers for o in offices):
                    break  # else: what was wished is done or answered, and its end is written in the next step
            left -= 1.0
            if left <= 0:
                return
            each()

    def settle(self) -> None:
        """Until the ingest threads have committed what has arrived."""
        for station in self.stations:
            for _ in range(2):
                leading = station.leading
                if leading is None or not leading.alive:
                    continue
                done = threading.Event()
                leading.intake.post(done.set)
                assert done.wait(10.0) or not leading.alive, "the ingest thread hangs"

    def kill(self, station: Station) -> None:
        """As ``kill -9``: nothing more is written, nothing is acknowledged, nothing is released."""
        self.stations.remove(station)
        leading, station.leading = station.leading, None
        if leading is not None:
            leading.batcher.abandon()
            leading.intake._items.clear()
            leading._thread.join(5.0)
            leading._transport.stop(say_goodbye=False)
            self.broker.run_until_idle()
        assert station._store is not None
        station._store.close()

    def ask(self, kind: str, *, at: float | None = None, sign: bool = True, **arguments: Any) -> str:
        """A wish of the local operator; its id."""
        identity = uuid.uuid4().hex
        asked = self.clock.now() if at is None else at
        signature = sign_wish(self.operator, identity, kind, arguments, asked) if sign else b""
        wish = Wish(identity, kind, arguments, self.operator.name, asked, signature)
        self.store.write(lambda c: wishes.ask(c, wish))
        return identity

    def wish(self, identity: str) -> Wish:
        with self.store.read() as connection:
            found = wishes.get(connection, identity)
        assert found is not None
        return found

    def rows(self) -> dict[str, DeviceRow]:
        with self.store.read() as connection:
            return {row.device: row for row in store_devices.all(connection)}

    def events(self, kind: str = "") -> list[EventRow]:
        with self.store.read() as connection:
            found = store_events.read(connection, limit=10_000)
        return [e for e in reversed(found) if e.kind.startswith(kind)]

    def windows(self) -> set[tuple[str, str, int]]:
        """Device, boot and number of every window that is stored."""
        with self.store.read() as connection:
            found = connection.execute(
                select(device_table.c.device, inference_window.c.boot, inference_window.c.report_seq).join_from(
                    inference_window, device_table, device_table.c.number == inference_window.c.device
                )
            )
            return {tuple(row) for row in found}

    def close(self) -> None:
        for device in self.devices.values():
            device.link.stop()
        for station in self.stations:
            station.close()
        self.broker.run_until_idle()
        self.store.close()
