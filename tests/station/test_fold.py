import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.link.messages import Running
from fleetui.common.sketches.latency import quantile_ms
from fleetui.station.ingest.fold import Known, Standing, fold, heard_at, new_device, plausible, quantiles_ms
from fleetui.store.records import METRICS, NAN, DeviceRow
from tests.helpers.station import NOW, Speaker

PRESENT, TURNED, EARLIER = Standing(), Standing(turned=True), Standing(present=False)


def born(speaker: Speaker | None = None, **given) -> tuple[Speaker, Known]:
    speaker = speaker or Speaker()
    known = new_device(speaker.device, NOW, "accepted")
    return speaker, fold(known, speaker.birth(NOW, **given), NOW, TURNED).known


def test_a_birth_says_who_the_device_is():
    _, known = born(firmware="2.1", name="press 4", tags={"line": "3"}, cores=4, memory_bytes=2**31)
    row = known.row
    assert (row.site, row.target, row.firmware, row.agent) == ("berlin", "x86-64-v3", "2.1", "sim/1")
    assert (row.name, row.tags, row.cores, row.memory_bytes) == ("press 4", {"line": "3"}, 4, 2**31)
    assert (row.handle, row.model, row.version, row.variant) == ("main", "tinynet", "1.0", "x86-64-v3")
    assert row.models == (("main", "tinynet", "1.0", "active"),)
    assert (row.boot, row.last_seq, row.boots) == ("boot-a", 0, 1)


def test_the_active_model_is_the_one_shown():
    models = [Running("a", "old", "1", state="staged"), Running("b", "new", "2")]
    _, known = born(models=models)
    assert known.row.handle == "b"
    assert len(known.row.models) == 2


def test_the_newest_birth_counts():
    speaker, known = born(name="old", tags={"line": "3"})
    older, newer = speaker.birth(NOW + 1, name="older"), speaker.birth(NOW + 2, name="new", tags={"hall": "B"})
    known = fold(known, newer, NOW + 2, PRESENT).known
    row = fold(known, older, NOW + 3, PRESENT).known.row
    assert (row.name, row.tags) == ("new", {"hall": "B"})
    assert row.lifecycle == "accepted"


def test_rates_are_differences_of_beats_over_the_devices_own_time():
    speaker, known = born()
    first = fold(known, speaker.beat(NOW, uptime_s=100, rows=500, errors=0), NOW, PRESENT)
    assert first.known.row.rows_per_s == 5.0  # since boot: the birth said that a boot began
    second = fold(first.known, speaker.beat(NOW + 9, uptime_s=110, rows=700, errors=5), NOW + 9, PRESENT)
    assert second.known.row.rows_per_s == 20.0
    assert second.known.row.errors_per_s == 0.5
    assert second.sample.values[METRICS.index("rows_per_s")] == 20.0
    assert (second.known.row.rows, second.known.row.errors) == (700, 5)


def test_after_a_restart_of_the_station_the_first_beat_has_no_rate():
    speaker, known = born()
    again = Known(known.row)  # only the row was stored
    row = fold(again, speaker.beat(NOW, uptime_s=100, rows=500), NOW, PRESENT).known.row
    assert math.isnan(row.rows_per_s)
    assert row.rows == 500


def test_a_reboot_begins_the_counts_anew():
    speaker, known = born()
    known = fold(known, speaker.beat(NOW, rows=10_000, errors=7), NOW, PRESENT).known
    speaker.reboot("boot-b")
    known = fold(known, speaker.birth(NOW + 10), NOW + 10, TURNED).known
    assert (known.row.boots, known.row.boot, known.row.last_seq, known.row.rows) == (2, "boot-b", 0, 0)
    assert math.isnan(known.row.rows_per_s)
    known = fold(known, speaker.beat(NOW + 20, uptime_s=10, rows=30), NOW + 20, PRESENT).known
    assert known.row.rows_per_s == 3.0
    assert known.row.booted == NOW + 10


def test_counts_that_fall_within_a_boot_give_no_rate():
    speaker, known = born()
    known = fold(known, speaker.beat(NOW, uptime_s=100, rows=500), NOW, PRESENT).known
    row = fold(known, speaker.beat(NOW, uptime_s=110, rows=400), NOW, PRESENT).known.row
    assert math.isnan(row.rows_per_s)


def test_an_older_beat_changes_no_figure_but_is_drawn():
    speaker, known = born()
    late, newer = speaker.beat(NOW + 1, cpu=0.9), speaker.beat(NOW + 2, cpu=0.1)
    known = fold(known, newer, NOW + 2, PRESENT).known
    folded = fold(known, late, NOW + 3, PRESENT)
    assert folded.known.row.cpu == 0.1
    assert folded.known.row.last_seq == newer.seq
    assert folded.sample.at == NOW + 1
    assert folded.sample.values[0] == 0.9


def test_reports_of_an_earlier_boot_are_kept_and_change_nothing_shown():
    _, known = born()
    old = Speaker(boot="before")
    for message in (old.birth(NOW, site="nowhere"), old.beat(NOW, cpu=1.0), old.event(NOW, level=4, text="dead")):
        folded = fold(known, message, NOW, EARLIER)
        assert folded.known.row == known.row
    folded = fold(known, old.window(NOW), NOW, EARLIER)
    assert math.isnan(folded.known.row.latency_p50)
    assert folded.window.boot == "before"
    assert folded.window.rows == 100


def test_the_newest_window_gives_the_latencies():
    speaker, known = born()
    known = fold(known, speaker.window(NOW, start=NOW - 60, latency=[0] * 20 + [10]), NOW, PRESENT).known
    newest = known.row.latency_p50
    assert 0 < newest < known.row.latency_p99
    known = fold(known, speaker.window(NOW, start=NOW - 600, latency=[0] * 60 + [10]), NOW, PRESENT).known
    assert known.row.latency_p50 == newest
    sample = fold(known, speaker.beat(NOW), NOW, PRESENT).sample
    assert sample.values[METRICS.index("latency_p50")] == newest


def test_an_event_keeps_its_codes_and_a_bad_one_is_the_last_error():
    speaker, known = born()
    folded = fold(known, speaker.event(NOW, level=3, codes=["load", "digest"], text="wrong digest"), NOW, PRESENT)
    assert folded.event.codes == ("load", "digest")
    assert folded.event.report_seq == 1
    assert folded.known.row.last_error == "wrong digest"


def test_a_last_will_says_nothing_new_about_figures():
    speaker, known = born()
    assert fold(known, speaker.gone(), NOW + 5, PRESENT).known is known


@pytest.mark.parametrize(
    ("at", "offset", "expected"),
    [
        (NOW - 5, NAN, NOW),  # just said
        (NOW - 1800, 0.0, NOW - 1800),  # waited at the broker; the clock is known to be right
        (NOW - 1800, -1800.0, NOW),  # said now by a device whose clock is behind
        (NOW - 1800, NAN, NOW),  # nothing is known of its clock
        (0.0, 0.0, NOW),  # 1970: a device without a battery
        (NOW + 4000, 0.0, NOW),
    ],
)
def test_when_a_report_was_said(at, offset, expected):
    assert heard_at(DeviceRow("d", clock_offset=offset), at, NOW) == expected


def test_a_clock_that_cannot_be_right_does_not_place_points():
    assert plausible(NOW - 3600, NOW) == NOW - 3600
    assert plausible(0.0, NOW) == NOW
    assert plausible(NOW + 3600, NOW) == NOW


def test_a_beat_without_an_offset_gets_an_estimate():
    speaker, known = born()
    row = fold(known, speaker.beat(NOW - 40, clock_offset_s=NAN), NOW, PRESENT).known.row
    assert row.clock_offset == -40


def test_health_comes_with_its_reasons():
    speaker, known = born()
    row = fold(known, speaker.beat(NOW), NOW, PRESENT).known.row
    assert (row.health, row.reasons) == (1.0, ())
    row = fold(known, speaker.beat(NOW, disk=0.97, temperature=90.0), NOW, PRESENT).known.row
    assert 0 < row.health < 0.7
    assert row.reasons == ("disk 97 % full", "90 °C")


@given(
    st.lists(st.integers(0, 2**40) | st.just(0) | st.integers(0, 9), max_size=96),
    st.lists(st.floats(0, 1), min_size=1, max_size=4).map(sorted),
)
def test_the_quick_quantiles_are_the_sketchs_own(counts, qs):
    for quick, plain in zip(quantiles_ms(counts, qs), [quantile_ms(counts, q) for q in qs], strict=True):
        assert quick == pytest.approx(plain, rel=1e-6, nan_ok=True)


@given(st.permutations(range(6)), st.integers(0, 2))
def test_folding_in_any_order_and_again_ends_in_the_same_state(order, again):
    """Beats, windows and events of one boot, reordered and repeated: the row in the end is the same."""
    speaker, known = born()
    messages = [
        speaker.beat(NOW + 1, cpu=0.1, clock_offset_s=0.0, rows=1),
        speaker.window(NOW + 2, start=NOW, latency=[0, 0, 5]),
        speaker.beat(NOW + 3, cpu=0.2, clock_offset_s=0.0, rows=2),
        speaker.window(NOW + 4, start=NOW + 2, latency=[0, 0, 0, 5]),
        speaker.beat(NOW + 5, cpu=0.3, clock_offset_s=0.0, rows=3),
        speaker.event(NOW + 6, level=1),
    ]
    straight = shuffled = known
    for message in messages:
        straight = fold(straight, message, NOW + 10, PRESENT).known
    for i in [*order, *order[:again]]:
        shuffled = fold(shuffled, messages[i], NOW + 10, PRESENT).known
    # A rate depends on which beats were compared, and with it the score; nothing else does.
    blank = {"rows_per_s": 0.0, "errors_per_s": 0.0}
    assert replace(shuffled.row, **blank) == replace(straight.row, **blank)
