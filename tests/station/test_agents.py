"""The books against real agents on a bad network: what they sent is what stands in the books."""

from collections import defaultdict

import pytest

from fleet_sim.fleet import Options
from fleet_sim.world.population import make
from fleet_sim.world.scenario import load
from fleet_sim.world.virtual import VirtualFleet
from fleetui.common.domain.presence import PresenceRule
from fleetui.common.link import codec
from fleetui.common.link.loopback import Faults
from fleetui.common.link.messages import Gone, Window
from fleetui.common.link.topics import Topics
from fleetui.station.counters import Counters
from fleetui.station.health.presence import PresenceBook
from fleetui.station.ingest.ledger import Ledger, Rules
from fleetui.station.ingest.sampler import Sampler
from tests.helpers.station import NOW


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_is_lost_nothing_twice_and_losses_are_the_truth(seed):
    counters = Counters()
    presence = PresenceBook(PresenceRule(60.0))
    ledger = Ledger(Rules("demo"), presence, Sampler(10.0), counters, "test")
    topics = Topics("demo")
    presence.listen(NOW)
    numbers, first = defaultdict(set), {}
    windows = set()
    heard = wills = 0

    def hear(at, topic, payload):
        nonlocal heard, wills
        heard += 1
        device, kind = topics.parse_up(topic)
        message = codec.decode_up(kind, payload, device)
        if isinstance(message, Gone):
            wills += 1
        else:
            first.setdefault((device, message.boot), message.seq)
            numbers[device, message.boot].add(message.seq)
        if isinstance(message, Window):
            windows.add((device, message.boot, message.seq))
        ledger.receive(topic, payload, at, at - NOW)
        ledger.judge(at, at - NOW)

    fleet = VirtualFleet(
        make(15, seed),
        hear,
        start=NOW,
        options=Options(beat_s=60.0, window_s=120.0),
        scenario=load("storm"),
        network=Faults(delay_s=(0.01, 0.5), loss=0.02, duplicate=0.05, reorder=0.05, reorder_s=2.0),
    )
    fleet.run_for(3600)
    fleet.stop()
    batch, stored = ledger.collect()
    assert counters.duplicates > 0
    assert heard > 500
    assert stored + counters.duplicates + counters.rejected == heard
    # Wills of an earlier boot, and of devices that had not introduced themselves yet.
    assert set(counters.reasons) <= {"stale", "unknown_device"}
    assert counters.rejected <= wills
    assert {(w.device, w.boot, w.report_seq) for w in batch.windows} == windows
    assert len(batch.windows) == len(windows)
    for device, entry in ledger._entries.items():
        # Every number between the first and the highest that was heard of a boot, and that never came.
        missing = sum(
            max(seen) - first[key] + 1 - sum(n >= first[key] for n in seen)
            for key, seen in numbers.items()
            if key[0] == device
        )
        assert ledger.row(device).lost + entry.numbers.settle(1e9, 30.0) == missing
        assert ledger.row(device).boots == len({boot for name, boot in numbers if name == device})
