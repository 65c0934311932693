from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
import pytest

from fleet_sim import history
from fleet_sim.options import Options
from fleet_sim.world.population import make
from fleet_sim.world.scenario import Scenario, read
from fleet_sim.world.virtual import VirtualFleet
from fleetui.common.domain.errors import ConfigError
from fleetui.common.link import codec
from fleetui.common.link.messages import Beat, Birth, Event, Gone, Window
from fleetui.common.link.recording import Recording
from fleetui.common.link.topics import Topics
from fleetui.common.sketches.latency import quantile_ms
from tests.helpers.sim import T0

UNTIL = T0
DEVICES = 40


def read_all(path, fleet="plant"):
    topics = Topics(fleet)
    recording = Recording(path)
    found = []
    for at, topic, payload in recording:
        device, kind = topics.parse_up(topic)
        found.append((at, device, codec.decode_up(kind, payload, device)))
    assert recording.complete
    return recording.about, found


@pytest.fixture(scope="module")
def week(tmp_path_factory):
    path = tmp_path_factory.mktemp("history") / "week.rec"
    count = history.record(make(DEVICES, 1, "plant"), path, until=UNTIL, hours=168)
    about, found = read_all(path)
    assert count == len(found)
    return about, found


def test_the_header_says_what_it_is(week):
    about, found = week
    assert (about["fleet"], about["devices"], about["seed"]) == ("plant", DEVICES, 1)
    assert (about["from"], about["until"]) == (UNTIL - 168 * 3600, UNTIL)
    assert found[0][0] >= about["from"]
    assert found[-1][0] <= UNTIL


def test_messages_come_in_order_and_are_numbered_as_an_agent_does(week):
    _, found = week
    assert all(a[0] <= b[0] for a, b in itertools.pairwise(found))
    numbers = defaultdict(list)
    boots = defaultdict(list)
    for _, device, message in found:
        if isinstance(message, Gone):
            continue
        numbers[device, message.boot].append(message.seq)
        if message.boot not in boots[device]:
            boots[device].append(message.boot)
            assert isinstance(message, Birth), "the first word of a boot"
    assert all(seqs == list(range(len(seqs))) for seqs in numbers.values())
    assert len(boots) == DEVICES
    assert max(len(b) for b in boots.values()) > 5  # a start loop, and shifts
    assert sum(len(b) == 1 for b in boots.values()) > DEVICES / 4


def test_windows_cover_the_week_without_overlap(week):
    _, found = week
    by_device = defaultdict(list)
    for at, device, message in found:
        if isinstance(message, Window):
            assert message.start % 1800 == 0 or message.start + message.length_s < UNTIL
            assert (message.start + message.length_s) % 1800 == 0
            assert sum(message.latency) == message.rows == sum(message.outputs)
            assert at >= message.start + message.length_s
            by_device[device].append(message)
    full = 0
    for windows in by_device.values():
        starts = [w.start for w in windows]
        assert len(set(starts)) == len(starts)
        ordered = sorted(windows, key=lambda w: w.start)
        assert all(a.start + a.length_s <= b.start + 1e-6 for a, b in itertools.pairwise(ordered))
        full += len(windows) >= 335
    assert len(by_device) == DEVICES
    assert full > DEVICES / 2
    assert sum(w.errors for ws in by_device.values() for w in ws) > 100  # something went wrong somewhere


def test_beats_carry_sums_that_grow_and_uptimes_that_fit(week):
    _, found = week
    last = {}
    beats = 0
    for at, device, message in found:
        if not isinstance(message, Beat):
            continue
        beats += 1
        before = last.get((device, message.boot))
        if before is not None:
            assert message.rows >= before[1].rows
            assert message.errors >= before[1].errors
            assert message.uptime_s - before[1].uptime_s == pytest.approx(at - before[0], abs=1.0)
        last[device, message.boot] = (at, message)
        for share in (message.cpu, message.memory, message.disk):
            assert 0 <= share <= 1
    assert 0.85 < beats / (DEVICES * 168 * 6) <= 1.0


def test_outages_are_seen(week):
    _, found = week
    assert sum(isinstance(m, Gone) for _, _, m in found) > 20
    starts = [m for _, _, m in found if isinstance(m, Event)]
    assert starts
    late = [at - m.start - m.length_s for at, _, m in found if isinstance(m, Window)]
    assert max(late) > 1800  # waited for the connection
    assert np.median(late) < 1


def test_a_named_outage_befalls_its_site(tmp_path):
    population = make(60, 2, "plant")
    cut = read('title = "x"\n[[step]]\nat = "10h"\nfor = "4h"\nselect = "site:hamburg"\nfault = "offline"')
    history.record(population, tmp_path / "a.rec", until=UNTIL, hours=24, past=cut)
    _, found = read_all(tmp_path / "a.rec")
    start = UNTIL - 24 * 3600
    inside = {d for at, d, m in found if start + 10.1 * 3600 < at < start + 13.9 * 3600 and isinstance(m, Beat)}
    hamburg = {population.ids[i] for i in population.select("site:hamburg")}
    assert hamburg
    assert not inside & hamburg
    assert len(inside) > 60 - len(hamburg) - 15


def test_the_same_seed_gives_the_same_file_and_another_does_not(tmp_path):
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        history.record(make(10, seed, "plant"), tmp_path / name, until=UNTIL, hours=30)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_the_live_fleet_continues_it(tmp_path):
    """Figures of the last recorded hours beside those of running from there: levels must not jump."""
    population = make(30, 1, "plant")
    history.record(population, tmp_path / "a.rec", until=UNTIL, hours=12, past=Scenario("nothing"))
    _, past = read_all(tmp_path / "a.rec")
    live = []
    topics = Topics("plant")

    def take(at, topic, payload):
        device, kind = topics.parse_up(topic)
        live.append((at, device, codec.decode_up(kind, payload, device)))

    options = Options(beat_s=600, window_s=1800, quiet=True, shortest_turn_s=5)
    world = VirtualFleet(population, take, start=UNTIL, options=options)
    world.run_for(3 * 3600)
    world.stop()

    def levels(messages, since):
        found = {}
        windows = defaultdict(list)
        beats = defaultdict(list)
        for at, device, m in messages:
            if isinstance(m, Window) and m.start >= since and m.rows:
                windows[device].append(m)
            elif isinstance(m, Beat) and at >= since:
                beats[device].append(m)
        for device in population.ids:
            if windows[device] and beats[device]:
                rows = sum(w.rows for w in windows[device])
                found[device] = (
                    rows / sum(w.length_s for w in windows[device]),
                    np.median([quantile_ms(w.latency, 0.5) for w in windows[device]]),
                    sum(w.outputs[0] for w in windows[device]) / rows,
                    np.mean([b.temperature for b in beats[device]]),
                    np.mean([b.memory for b in beats[device]]),
                    np.mean([b.disk for b in beats[device]]),
                )
        return found

    before, after = levels(past, UNTIL - 3 * 3600), levels(live, UNTIL)
    both = sorted(set(before) & set(after))
    assert len(both) >= 25
    a, b = np.array([before[d] for d in both]), np.array([after[d] for d in both])
    assert np.median(b[:, 0] / a[:, 0]) == pytest.approx(1.0, abs=0.6)  # the time of day goes on
    assert np.abs(np.log(b[:, 1] / a[:, 1])).max() < 0.1
    assert np.abs(b[:, 2] - a[:, 2]).mean() < 0.06
    assert np.abs(b[:, 3] - a[:, 3]).max() < 12
    assert np.abs(b[:, 4] - a[:, 4]).max() < 0.08
    assert np.median(np.abs(b[:, 5] - a[:, 5])) < 0.005  # but for one whose logs were rotated
    boots = {m.boot for _, _, m in past if not isinstance(m, Gone)}
    assert not boots & {m.boot for _, _, m in live}


def test_a_past_that_is_too_short(tmp_path):
    with pytest.raises(ConfigError, match="no room for windows"):
        history.record(make(2, 1), tmp_path / "a.rec", until=UNTIL, hours=0.5)
    assert list(tmp_path.iterdir()) == []
