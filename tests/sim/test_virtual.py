"""A fleet in virtual time: repeatable, and nothing lost on a bad network."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest

from fleet_sim.options import Options
from fleet_sim.world.population import make
from fleet_sim.world.scenario import load, read
from fleet_sim.world.virtual import VirtualFleet
from fleetui.common.link import codec
from fleetui.common.link.loopback import Faults
from fleetui.common.link.messages import Gone
from fleetui.common.link.topics import Topics, Up
from tests.helpers.sim import T0

QUICK = Options(beat_s=60.0, window_s=120.0)


class Heard:
    """Everything that reached the station, decoded."""

    def __init__(self, fleet="demo") -> None:
        self.topics = Topics(fleet)
        self.hash = hashlib.sha256()
        self.messages = []

    def __call__(self, at, topic, payload):
        self.hash.update(f"{at!r} {topic} ".encode() + payload)
        device, kind = self.topics.parse_up(topic)
        self.messages.append((at, device, kind, codec.decode_up(kind, payload, device)))

    def of(self, kind, device=None):
        return [m for _, d, k, m in self.messages if k is kind and device in {None, d}]

    def numbered(self):
        """By (device, boot, number), each once; a number with two contents fails."""
        found = {}
        for _, device, _, message in self.messages:
            if not isinstance(message, Gone):
                key = device, message.boot, message.seq
                assert found.setdefault(key, message) == message
        return found


def run(seconds, devices=12, seed=1, heard=None, stop=True, scenario=None, **options):
    heard = heard or Heard()
    world = VirtualFleet(
        make(devices, seed),
        heard,
        start=T0,
        options=options.pop("options", QUICK),
        scenario=scenario,
        **options,
    )
    world.run_for(seconds)
    if stop:
        world.stop()
        assert world.fleet.totals.connected == 0
    assert world.broker.errors == 0
    return world, heard


def fingerprint(seed: int) -> str:
    _, heard = run(
        3600, devices=15, seed=seed, scenario=load("storm"), network=Faults(delay_s=(0.01, 0.5), loss=0.01)
    )
    return f"{heard.hash.hexdigest()} {len(heard.messages)}"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    first = fingerprint(5)
    assert int(first.split()[1]) > 300
    assert fingerprint(5) == first
    assert fingerprint(6) != first
    other = subprocess.run(
        [sys.executable, "-c", "from tests.sim.test_virtual import fingerprint; print(fingerprint(5))"],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "77"},
    )
    assert other.stdout.strip() == first


def test_on_a_good_network_everything_arrives_once_in_order():
    world, heard = run(1800, options=Options(beat_s=60.0, window_s=120.0, quiet=True))
    for device in world.fleet.population.ids:
        numbers = [m.seq for _, d, k, m in heard.messages if d == device and k is not Up.GONE]
        assert numbers == list(range(len(numbers)))
        assert len(heard.of(Up.BIRTH, device)) == 1
        assert 28 <= len(heard.of(Up.BEAT, device)) <= 32
        windows = heard.of(Up.WIN, device)
        assert len(windows) in {15, 16, 17}
        for before, after in itertools.pairwise(windows):
            assert after.start == before.start + before.length_s
        assert heard.of(Up.GONE, device) == [Gone(device=device, boot=windows[0].boot, clean=True)]
    assert sum(w.rows for w in heard.of(Up.WIN)) == world.fleet.totals.rows > 0
    assert sum(w.errors for w in heard.of(Up.WIN)) == world.fleet.totals.errors


@pytest.mark.parametrize(
    "network",
    [
        Faults(delay_s=(0.0, 2.0), duplicate=0.2, reorder=0.2, reorder_s=5.0),
        Faults(delay_s=(0.1, 0.3), loss=0.03),
        Faults(break_every_s=200.0, refuse=0.2),
        Faults(delay_s=(0.0, 1.0), loss=0.02, duplicate=0.1, reorder=0.1, break_every_s=400.0),
    ],
    ids=["duplicated and reordered", "lossy", "breaking", "all of it"],
)
def test_on_a_bad_network_nothing_that_matters_is_lost(network):
    heard = Heard()
    world, _ = run(
        3600,
        heard=heard,
        stop=False,
        network=network,
        options=Options(beat_s=60.0, window_s=120.0, quiet=True, stop_within_s=600.0),
    )
    world.broker.faults = Faults()  # calm again: what is still on its way gets through
    world.run_for(400)
    world.stop()
    numbered = heard.numbered()
    windows = [m for m in numbered.values() if hasattr(m, "rows") and hasattr(m, "handle")]
    assert sum(w.rows for w in windows) == world.fleet.totals.rows > 0
    assert sum(w.errors for w in windows) == world.fleet.totals.errors
    # Only beats may be missing from the numbers.
    beats = sum(1 for m in numbered.values() if hasattr(m, "uptime_s"))
    missing = 0
    highest = Counter()
    seen = defaultdict(set)
    for device, boot, seq in numbered:
        seen[device, boot].add(seq)
        highest[device, boot] = max(highest[device, boot], seq)
    for key, top in highest.items():
        missing += top + 1 - len(seen[key])
    assert beats + missing == pytest.approx(12 * 66, abs=70)


def test_a_broker_that_is_down_costs_no_rows():
    heard = Heard()
    world, _ = run(600, heard=heard, stop=False, options=Options(beat_s=60.0, window_s=120.0, quiet=True))
    world.broker.down()
    world.run_for(3000)
    assert world.fleet.totals.connected == 0
    assert world.fleet.queued() > 12 * 20
    world.broker.up()
    world.run_for(600)
    assert world.fleet.totals.connected == 12
    world.stop()
    windows = [m for m in heard.numbered().values() if hasattr(m, "handle")]
    assert sum(w.rows for w in windows) == world.fleet.totals.rows


def scenario(fault, **parameters):
    lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items()).replace("'", '"')
    return read(f'title = "x"\n[[step]]\nat = "10m"\nfor = "20m"\ncount = 3\nfault = "{fault}"\n{lines}')


def run_fault(fault, seconds=3600, **parameters):
    heard = Heard()
    found = scenario(fault, **parameters)
    world, _ = run(seconds, heard=heard, scenario=found, options=Options(beat_s=60.0, window_s=120.0, quiet=True))
    ids = {world.fleet.population.ids[i] for i in found.steps[0].choose(world.fleet.population)}
    assert len(ids) == 3
    return world, heard, ids


def during(heard, kind, since=T0 + 660, until=T0 + 1800):
    return [(d, m) for at, d, k, m in heard.messages if k is kind and since <= at < until]


def test_offline_devices_are_silent_and_catch_up():
    world, heard, ids = run_fault("offline")
    assert not ids & {d for d, _ in during(heard, Up.BEAT)}
    assert {d for d, _ in during(heard, Up.GONE, T0 + 590, T0 + 700)} == ids
    for device in ids:
        assert len(heard.of(Up.BIRTH, device)) == 2
        late = [m for at, d, k, m in heard.messages if d == device and k is Up.WIN and 1800 <= at - T0 < 1830]
        assert len(late) >= 9
    windows = [m for m in heard.numbered().values() if hasattr(m, "handle")]
    assert sum(w.rows for w in windows) == world.fleet.totals.rows


def test_rebooting_devices_say_so_and_lose_at_most_the_open_window():
    world, heard, ids = run_fault("reboot", period="2m")
    for device in world.fleet.population.ids:
        boots = {m.boot for m in heard.of(Up.BIRTH, device)}
        starts = [e for e in heard.of(Up.EVENT, device) if e.kind == "boot" and e.codes == ["watchdog"]]
        if device in ids:
            assert 9 <= len(boots) - 1 <= 11
            assert len(starts) == len(boots) - 1
        else:
            assert len(boots) == 1
            assert not starts
    reported = sum(m.rows for m in heard.numbered().values() if hasattr(m, "handle"))
    assert 0.9 * world.fleet.totals.rows < reported < world.fleet.totals.rows


def test_a_clock_that_jumps_shows_in_time_and_offset():
    _, heard, ids = run_fault("clock", jump="-1h")
    for device, beat in during(heard, Up.BEAT):
        if device in ids:
            assert beat.clock_offset_s < -3500
            assert beat.at < T0
        else:
            assert abs(beat.clock_offset_s) < 60
    assert {e.device for e in heard.of(Up.EVENT) if e.kind == "clock.set-back"} == ids
    after = [(d, m) for d, m in during(heard, Up.BEAT, T0 + 1900, T0 + 3600) if d in ids]
    assert len(after) > 20
    assert all(m.clock_offset_s > -60 for _, m in after)


def test_hot_slow_and_failing_devices_show_it():
    _, heard, ids = run_fault("hot", degrees=75)
    assert {e.device for e in heard.of(Up.EVENT) if e.kind == "temperature.high"} == ids
    _, heard, ids = run_fault("errors", failing="40%")
    failing = {d for d, m in during(heard, Up.WIN, T0 + 900, T0 + 1800) if m.errors > 0.2 * m.rows}
    assert failing == ids
    assert {e.device for e in heard.of(Up.EVENT) if e.kind == "inference.errors"} == ids
    _, heard, ids = run_fault("slow", factor=20)
    for device in ids:
        before = [m for _, m in during(heard, Up.WIN, T0 + 240, T0 + 590) if m.device == device]
        slow = [m for _, m in during(heard, Up.WIN, T0 + 900, T0 + 1790) if m.device == device]
        longest = max(len(m.latency) for m in before if m.rows)
        assert np.median([len(m.latency) for m in slow if m.rows]) > longest


def test_flapping_devices_come_and_go():
    world, heard, ids = run_fault("flapping", period="100s", down="50%")
    for device in world.fleet.population.ids:
        assert (len(heard.of(Up.BIRTH, device)) > 8) == (device in ids)
    windows = [m for m in heard.numbered().values() if hasattr(m, "handle")]
    assert sum(w.rows for w in windows) == world.fleet.totals.rows


def test_devices_on_shift_come_back_with_what_they_had_not_sent():
    population = make(60, 1)
    shifts = int((~np.isnan(population.starts)).sum())
    assert shifts
    heard = Heard()
    world = VirtualFleet(
        population, heard, start=T0, options=Options(beat_s=3600, window_s=7200, shortest_turn_s=30)
    )
    world.run_for(26 * 3600)
    on = [d.on for d in world.fleet.devices]
    restarted = [d for d in population.ids if len({m.boot for m in heard.of(Up.BIRTH, d)}) > 1]
    assert len(restarted) >= shifts - sum(not up for up in on)
    heard.numbered()
    world.stop()


def test_faults_by_hand():
    told = []
    heard = Heard()
    world, _ = run(300, heard=heard, stop=False, on_event=lambda what, details: told.append((what, details["id"])))
    world.fleet.inject("offline", np.array([0, 1]), ident="cut", lasts_s=600.0)
    world.fleet.wake()
    world.run_for(60)
    assert world.fleet.totals.connected == world.fleet.reachable()
    assert not {world.fleet.population.ids[i] for i in (0, 1)} & set(world.broker.connected)
    assert [a.ident for a in world.fleet.clear("cut")] == ["cut"]
    world.fleet.wake()
    world.run_for(120)
    assert set(world.fleet.population.ids[:2]) <= set(world.broker.connected)
    world.fleet.inject("slow", np.array([0]), lasts_s=60.0)
    world.fleet.wake()
    world.run_for(120)
    assert told == [
        ("fault begins", "cut"),
        ("fault ends", "cut"),
        ("fault begins", "slow-2"),
        ("fault ends", "slow-2"),
    ]
    world.stop()
