"""Recordings into the store: fast, idempotent, and polite to what is newer."""

import json
import os
import subprocess
import sys

import pytest

from fleetui.common.basedir import BaseDir
from fleetui.common.domain.clock import ManualClock
from fleetui.common.domain.errors import ConfigError, ProcessError
from fleetui.common.link.recording import RecordingWriter
from fleetui.station.config import BrokerAddress, StationConfig
from fleetui.station.ingest.replay import replay
from fleetui.station.leader import Leadership
from fleetui.store import devices, ingest, series
from fleetui.store.records import Batch, DeviceRow
from fleetui.store.store import Store
from fleetui.store.tables import METADATA
from tests.helpers.station import NOW, Speaker

HOURS = 4
BEAT_S = 600.0


def write(path, *, silent_from: float | None = None) -> int:
    """Three devices over some hours; one falls silent, one reboots, one report is lost."""
    until = NOW + HOURS * 3600
    about = {"fleet": "past", "from": NOW, "until": until, "beat_s": BEAT_S}
    with RecordingWriter(path, about) as writer:
        speakers = [Speaker(f"d{i}", fleet="past") for i in range(3)]
        for speaker in speakers:
            topic, payload = speaker.wire(speaker.birth(NOW))
            writer.add(NOW, topic.encode(), payload)
        at, n = NOW, 0
        while at < until:
            at += BEAT_S
            n += 1
            for i, speaker in enumerate(speakers):
                if i == 0 and silent_from is not None and at > silent_from:
                    continue
                if i == 1 and n == 10:
                    speaker.reboot("boot-b")
                    topic, payload = speaker.wire(speaker.birth(at))
                    writer.add(at, topic.encode(), payload)
                messages = [speaker.beat(at, uptime_s=at - NOW, rows=n * 100), speaker.window(at)]
                if i == 2 and n == 5:
                    messages.pop(0)
                for message in messages:
                    topic, payload = speaker.wire(message)
                    writer.add(at, topic.encode(), payload)
        writer.add(until, b"fleet/past/up/d0/beat", b"\xc1")
        return writer.count + 0


@pytest.fixture
def config(tmp_path):
    base = BaseDir.at(tmp_path)
    return StationConfig(base, base.store_url, BrokerAddress("h", 1), beat_s=10.0)


def opened(config) -> Store:
    return Store.open(config.store_url, clock=ManualClock(NOW))


def content(config) -> dict[str, list]:
    """All that is stored of the past, but for change numbers and counts of what was refused."""
    left_out = {"change_head", "rejected", "rejected_count", "lease", "counter", "tombstone", "progress"}
    found = {}
    with opened(config) as store, store.read() as connection:
        for table in METADATA.sorted_tables:
            if table.name not in left_out:
                columns = [c for c in table.columns if c.name not in {"seq", "rejected"}]
                rows = connection.execute(table.select().with_only_columns(*columns)).all()
                found[table.name] = sorted(map(repr, rows))
    return found


def test_a_recording_becomes_rows_series_windows_and_events(config, tmp_path):
    write(tmp_path / "a.rec", silent_from=NOW + 3600)
    report = replay(config, tmp_path / "a.rec")
    assert (report.devices, report.rejected, report.problem) == (3, 1, "")
    assert report.reasons == {"undecodable": 1}
    assert (report.first, report.last) == (NOW, NOW + HOURS * 3600)
    with opened(config) as store, store.read() as connection:
        rows = {row.device: row for row in devices.all(connection)}
        points = series.read(connection, "d1", "cpu", NOW, NOW + HOURS * 3600 + 1)
    assert {name: row.status for name, row in rows.items()} == {"d0": "offline", "d1": "online", "d2": "online"}
    assert (rows["d1"].boots, rows["d2"].lost, rows["d1"].lost) == (2, 1, 0)
    assert len(points.at) == HOURS * 3600 / BEAT_S


def test_read_again_it_changes_nothing(config, tmp_path):
    write(tmp_path / "a.rec", silent_from=NOW + 3600)
    replay(config, tmp_path / "a.rec")
    first = content(config)
    assert len(first["event"]) == 4  # three joined, one went
    report = replay(config, tmp_path / "a.rec")
    assert report.stored > 0
    assert content(config) == first


def test_what_a_live_device_said_since_is_kept(config, tmp_path):
    write(tmp_path / "a.rec")
    newer = DeviceRow("d1", site="now", status="online", last_seen=NOW + 1e6, boot="live", last_seq=7)
    with opened(config) as store:
        store.write(lambda c: ingest.write(c, Batch(devices={"d1": newer})))
    replay(config, tmp_path / "a.rec")
    with opened(config) as store, store.read() as connection:
        rows = {row.device: row for row in devices.reported(connection)}
    assert (rows["d1"].site, rows["d1"].boot, rows["d1"].last_seq) == ("now", "live", 7)
    assert rows["d2"].site == "berlin"


def test_a_station_that_leads_is_not_disturbed(config, tmp_path):
    write(tmp_path / "a.rec")
    with opened(config) as store:
        from fleetui.common.domain.clock import SystemClock

        assert Leadership(store, "station@elsewhere:1:x", 600.0, SystemClock()).tick()
        with pytest.raises(ProcessError, match=r"A station leads this store \(station@elsewhere"):
            replay(config, tmp_path / "a.rec")


def test_a_recording_that_is_cut_off_is_read_as_far_as_it_goes(config, tmp_path):
    write(tmp_path / "a.rec")
    whole = (tmp_path / "a.rec").read_bytes()
    (tmp_path / "b.rec").write_bytes(whole[:-30])
    report = replay(config, tmp_path / "b.rec")
    assert "cut off" in report.problem
    assert "cut off" in str(report)


def test_what_is_no_recording_is_refused(config, tmp_path):
    (tmp_path / "a.rec").write_bytes(b"hello")
    with pytest.raises(ConfigError, match="is not a recording"):
        replay(config, tmp_path / "a.rec")


def test_as_a_child_it_tells_how_far_it_is(tmp_path):
    write(tmp_path / "a.rec")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fleetui.station", "--base-dir", str(tmp_path / "b"), "--child"),
            *("--replay", str(tmp_path / "a.rec")),
        ],
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["kind"] == "stopped"
    assert lines[-1]["devices"] == 3
