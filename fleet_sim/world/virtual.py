"""A fleet in virtual time: the same agents over a broker in memory, on one thread, from one seed.

Nothing waits and nothing is random but for the seed: the same seed gives the same bytes in the same order. Used by
tests, and by whoever wants days of a fleet in seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from fleet_sim.fleet import Fleet, Listener
from fleet_sim.options import Options
from fleet_sim.timing import FleetTime
from fleet_sim.world.population import Population
from fleet_sim.world.scenario import Scenario
from fleetui.common.domain.clock import ManualClock
from fleetui.common.link.loopback import Faults, LoopbackBroker, LoopbackTransport
from fleetui.common.link.topics import Topics
from fleetui.common.link.transport import LinkConfig, Message

STATION = "virtual-station"
Taker = Callable[[float, str, bytes], None]


class VirtualFleet:
    """``take(at, topic, payload)`` is called with each report as the station would get it."""

    def __init__(
        self,
        population: Population,
        take: Taker,
        *,
        start: float,
        options: Options | None = None,
        scenario: Scenario | None = None,
        network: Faults | None = None,
        salt: int = 0,
        on_event: Listener | None = None,
    ) -> None:
        self.clock = ManualClock(start)
        self.broker = LoopbackBroker(
            self.clock, random.Random(f"{population.seed}/{salt}"), network, queue_limit=1_000_000
        )
        self._take = take
        self.station = LoopbackTransport(
            LinkConfig(STATION, session_expiry_s=86400, receive_maximum=60_000, backoff_max_s=5.0), self.broker
        )
        self.station.on_message = self._on_message
        self.station.subscribe(Topics(population.fleet).all_up)
        self.station.start()
        self.fleet = Fleet(
            population,
            np.arange(population.n),
            driver=self.broker,
            time=FleetTime(self.clock),
            connector=lambda _, config: LoopbackTransport(config, self.broker),
            options=options,
            scenario=scenario,
            salt=salt,
            on_event=on_event,
        )
        self.broker.run_until_idle()
        self.fleet.start()

    def _on_message(self, message: Message) -> None:
        self._take(self.clock.now(), message.topic, message.payload)

    def run_for(self, seconds: float) -> None:
        self.broker.run_for(seconds)

    def stop(self) -> None:
        """All agents say goodbye; what they report on leaving still arrives."""
        stopped: list[bool] = []
        self.fleet.stop(lambda: stopped.append(True))
        self.broker.run_for(self.fleet.options.stop_within_s + 60.0)
        assert stopped
        self.station.stop()
        self.broker.run_until_idle()
