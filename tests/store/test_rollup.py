"""Roll-ups and retention against a model in plain Python: whatever comes in whatever order, sums are right."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from fleetui.store import counters, devices, events, ingest, progress, retention, rollup, series, tables, windows
from fleetui.store.records import (
    FLEET_METRICS,
    METRICS,
    NAN,
    Batch,
    DeviceRow,
    EventRow,
    FleetSample,
    Sample,
    Series,
    WindowRow,
)
from fleetui.store.retention import Retention
from fleetui.store.store import Store
from tests.helpers.store import emptied

T0 = 1_800_000_000.0 - 1_800_000_000.0 % 86_400
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
KEEP = Retention(raw=1, minute=3, hour=10, windows=2, events=2)
AGES = 400  # more than any retention here has days


def a_sample(device: str, at: float, cpu: float) -> Sample:
    return Sample(device, at, (cpu, *[NAN] * (len(METRICS) - 1)))


def put(store: Store, *samples: Sample) -> None:
    store.write(lambda c: ingest.write(c, Batch(samples=list(samples))))


def read(store: Store, device: str, start: float, end: float, *, metric: str = "cpu", points: int = 2000) -> Series:
    with store.read() as connection:
        return series.read(connection, device, metric, start, end, max_points=points)


def bucketed(pairs: list[tuple[float, float]], width: float) -> dict[float, tuple[float, float, float, int]]:
    """The model: mean, low, high and count of each bucket."""
    found: defaultdict[float, list[float]] = defaultdict(list)
    for at, value in pairs:
        found[math.floor(at / width) * width].append(value)
    return {at: (sum(v) / len(v), min(v), max(v), len(v)) for at, v in sorted(found.items())}


def check(found: Series, pairs: list[tuple[float, float]]) -> None:
    """These points and no others, at the resolution that was chosen."""
    width = found.resolution_s
    pairs = sorted(dict(pairs).items())
    expected = bucketed(pairs, width) if width else {at: (value, value, value, 1) for at, value in pairs}
    compare(np.column_stack([found.at, found.mean, found.low, found.high, found.count]), expected)


def compare(rows: np.ndarray, expected: dict[float, tuple[float, float, float, int]]) -> None:
    assert rows[:, 0].tolist() == list(expected)
    wanted = np.array(list(expected.values()), dtype=float).reshape(-1, 4)
    np.testing.assert_allclose(rows[:, 1], wanted[:, 0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(rows[:, 2:], wanted[:, 1:])


def table(store: Store, name: str, device: str) -> np.ndarray:
    """What is rolled up of a device's cpu, as it lies there."""
    of = tables.METADATA.tables[name]
    columns = [of.c.at, of.c.cpu_mean, of.c.cpu_low, of.c.cpu_high, of.c.cpu_count]
    with store.read() as connection:
        number = devices.number_of(connection, device)
        rows = connection.execute(select(*columns).where(of.c.device == number).order_by(of.c.at)).all()
    return np.array([tuple(row) for row in rows], dtype=float).reshape(-1, 5)


def hours(store: Store, device: str, metric: str = "cpu") -> Series:
    """By the hour, all there is."""
    found = read(store, device, T0 - AGES * DAY, T0 + 20 * DAY, metric=metric, points=20_000)
    assert found.resolution_s == HOUR or len(found.at) == 0
    return found


def stored(store: Store, table_name: str) -> int:
    with store.read() as connection:
        table = tables.METADATA.tables[table_name]
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def some(generator: np.random.Generator, start: float, end: float, step: float) -> list[tuple[float, float]]:
    return [(float(at), float(generator.normal())) for at in np.arange(start, end, step)]


def test_a_day_by_the_minute_and_by_the_hour(store: Store) -> None:
    generator = np.random.default_rng(1)
    of = {name: some(generator, T0 + 7, T0 + 5 * HOUR + 130, 20.0) for name in ("a", "b")}
    for name, pairs in of.items():
        put(store, *(a_sample(name, at, value) for at, value in pairs))
    report = rollup.run(store, T0 + 5 * HOUR + 185)
    assert report.until == T0 + 5 * HOUR + 180
    assert not report.more
    assert report.minutes == 2 * (5 * 60 + 3)
    assert report.hours == 2 * 5
    for name, pairs in of.items():
        compare(table(store, "sample_minute", name), bucketed(pairs, MINUTE))
        compare(
            table(store, "sample_hour", name), bucketed([each for each in pairs if each[0] < T0 + 5 * HOUR], HOUR)
        )
        check(read(store, name, T0, T0 + 5 * HOUR + 300, points=100), pairs)
        check(hours(store, name), pairs)


def test_it_goes_on_minute_by_minute_as_a_station_calls_it(store: Store) -> None:
    generator = np.random.default_rng(2)
    pairs: list[tuple[float, float]] = []
    start = T0 + HOUR - 300
    for minute in range(12):
        new = some(generator, start + minute * 60, start + minute * 60 + 60, 7.0)
        pairs += new
        put(store, *(a_sample("a", at, value) for at, value in new))
        rollup.run(store, start + minute * 60 + 61)
        # Whatever is rolled up and whatever is not: what is read is the whole.
        check(read(store, "a", start, start + DAY, points=200), pairs)
        check(hours(store, "a"), pairs)
    assert rollup.run(store, start + 12 * 60 + 30).minutes == 1
    assert stored(store, "sample_minute") == 12
    assert stored(store, "sample_hour") == 1


def test_running_it_again_changes_nothing(store: Store) -> None:
    put(store, *(a_sample("a", T0 + i * 10, i) for i in range(1000)))
    rollup.run(store, T0 + 2 * HOUR)
    before = read(store, "a", T0, T0 + DAY, points=500)
    again = rollup.run(store, T0 + 2 * HOUR)
    assert (again.minutes, again.hours, again.late, again.more) == (0, 0, 0, False)
    # Even from the very beginning.
    store.write(lambda c: progress.write(c, rolled=0.0))
    rollup.run(store, T0 + 2 * HOUR)
    after = read(store, "a", T0, T0 + DAY, points=500)
    np.testing.assert_array_equal(before.mean, after.mean)
    np.testing.assert_array_equal(before.count, after.count)


def test_late_samples_open_their_hour_again(store: Store) -> None:
    pairs = [(T0 + i * 30.0, float(i)) for i in range(480)]
    put(store, *(a_sample("a", at, value) for at, value in pairs))
    rollup.run(store, T0 + 4 * HOUR + 60)
    late = [(T0 + 1.0, 1000.0), (T0 + HOUR + 5, -1000.0), (T0 + 3.9 * HOUR + 1, 7.0)]
    put(store, *(a_sample("a", at, value) for at, value in late), a_sample("b", T0 + 2, 5.0))
    report = rollup.run(store, T0 + 4 * HOUR + 60)
    assert report.late == 4
    check(read(store, "a", T0, T0 + DAY, points=300), pairs + late)
    check(hours(store, "a"), pairs + late)
    check(hours(store, "b"), [(T0 + 2, 5.0)])
    assert rollup.run(store, T0 + 4 * HOUR + 60).late == 0


def test_a_sample_that_comes_while_a_pass_is_under_way(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its device was worked on and before the pass is done: it is late, not lost."""
    put(store, *(a_sample(name, T0 + 10, 1.0) for name in ("a", "b")))
    real = rollup._finish

    def finish(*arguments: object):
        put(store, a_sample("a", T0 + 20, 3.0))
        return real(*arguments)

    monkeypatch.setattr(rollup, "_finish", finish)
    rollup.run(store, T0 + 70)
    assert table(store, "sample_minute", "a")[:, 4].tolist() == [1], "not yet"
    monkeypatch.undo()
    rollup.run(store, T0 + 130)
    compare(table(store, "sample_minute", "a"), {T0: (2.0, 1.0, 3.0, 2)})


def test_a_pass_that_was_killed_is_done_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(T0 + i * 10.0, float(i)) for i in range(720)]
    put(store, *(a_sample("a", at, value) for at, value in pairs))

    def finish(*_: object):
        raise KeyboardInterrupt

    monkeypatch.setattr(rollup, "_finish", finish)
    with pytest.raises(KeyboardInterrupt):
        rollup.run(store, T0 + 3 * HOUR)
    monkeypatch.undo()
    put(store, a_sample("a", T0 + 5, 9.0))
    rollup.run(store, T0 + 3 * HOUR)
    check(hours(store, "a"), [*pairs, (T0 + 5, 9.0)])


def test_history_brought_in_after_the_roll_ups_began(store: Store) -> None:
    put(store, a_sample("live", T0 + 30 * HOUR, 1.0))
    rollup.run(store, T0 + 31 * HOUR)
    pairs = [(T0 + i * 60.0, float(i % 7)) for i in range(24 * 60)]
    put(store, *(a_sample("old", at, value) for at, value in pairs))
    while rollup.run(store, T0 + 31 * HOUR).more:
        pass
    compare(table(store, "sample_minute", "old"), bucketed(pairs, MINUTE))
    compare(table(store, "sample_hour", "old"), bucketed(pairs, HOUR))


def test_a_first_sample_from_a_clock_at_1970_does_not_take_for_ever(store: Store) -> None:
    put(store, a_sample("a", 5.0, 1.0), a_sample("a", T0 + 5, 2.0))
    report = rollup.run(store, T0 + 65)
    assert report.until == T0 + 60
    assert not report.more
    assert stored(store, "sample_minute") == 2
    assert stored(store, "sample_hour") == 1


def test_work_is_bounded_and_goes_on(store: Store) -> None:
    put(store, *(a_sample("a", T0 + i * 600.0, 1.0) for i in range(60)))
    reports = [rollup.run(store, T0 + 11 * HOUR, most=4)]
    while reports[-1].more:
        assert len(reports) < 20
        reports.append(rollup.run(store, T0 + 11 * HOUR, most=4))
    assert len(reports) > 2
    assert sum(report.minutes for report in reports) == 60


def test_the_fleets_own_series(store: Store) -> None:
    pairs = [(T0 + i * 5.0, float(i)) for i in range(1500)]
    rows = [FleetSample(at, (value, *[NAN] * (len(FLEET_METRICS) - 1))) for at, value in pairs]
    store.write(lambda c: ingest.write(c, Batch(fleet=rows)))
    rollup.run(store, T0 + 2 * HOUR)
    late = FleetSample(T0 + 1, (5000.0, *[NAN] * (len(FLEET_METRICS) - 1)))
    store.write(lambda c: ingest.write(c, Batch(fleet=[late])))
    assert rollup.run(store, T0 + 2 * HOUR).late == 1
    pairs.append((T0 + 1, 5000.0))
    check(read(store, "", T0, T0 + 3 * HOUR, metric="online", points=190), sorted(pairs))
    check(hours(store, "", "online"), pairs)


def test_raw_points_where_there_are_few(store: Store) -> None:
    pairs = [(T0 + i * 10.0, float(i)) for i in range(100)]
    put(store, *(a_sample("a", at, value) for at, value in pairs))
    found = read(store, "a", T0 + 5, T0 + 505)
    assert found.resolution_s == 0
    assert list(zip(found.at, found.mean, strict=True)) == pairs[1:51]
    assert found.count.tolist() == [1] * 50


def test_more_raw_points_than_asked_for_are_added_up(store: Store) -> None:
    pairs = [(T0 + i * 1.0, float(i % 13)) for i in range(1200)]
    put(store, *(a_sample("a", at, value) for at, value in pairs))
    found = read(store, "a", T0, T0 + 1200, points=301)
    assert found.resolution_s == 5
    assert len(found.at) <= 301
    check(found, pairs)


@pytest.mark.parametrize("span", [60.0, 3600.0, 86_400.0, 30 * 86_400.0, 1000 * 86_400.0])
@pytest.mark.parametrize("points", [2, 50, 1000])
def test_never_more_points_than_asked_for(sqlite_store: Store, span: float, points: int) -> None:
    put(sqlite_store, *(a_sample("a", T0 + i * 2.5, 1.0) for i in range(4_000)))
    rollup.run(sqlite_store, T0 + 3 * HOUR)
    for start in (T0, T0 + 1234.5, T0 - span / 2):
        found = read(sqlite_store, "a", start, start + span, points=points)
        assert len(found.at) <= points
        assert (np.diff(found.at) > 0).all()


def test_an_unknown_device_and_an_empty_span_have_no_points(store: Store) -> None:
    assert len(read(store, "nobody", T0, T0 + DAY).at) == 0
    put(store, a_sample("a", T0, 1.0))
    assert len(read(store, "a", T0 + 10, T0).at) == 0
    assert len(read(store, "a", T0 + 10, T0 + 20).at) == 0


# -------------------------------------------------------------------------------------------- retention


def everything(store: Store, now: float, keep: Retention = KEEP) -> dict[str, int]:
    """Call until there is nothing more to do; what was deleted."""
    total: dict[str, int] = {}
    for _ in range(500):
        report = rollup.run(store, now, keep=keep, most=6)
        for name, rows in report.deleted.items():
            total[name] = total.get(name, 0) + rows
        if not report.more:
            return total
    raise AssertionError("retention does not come to an end")


def test_what_is_too_old_goes_and_the_coarser_stays(store: Store) -> None:
    pairs = [(T0 + i * 1800.0, float(i)) for i in range(12 * 24 * 2)]
    put(store, *(a_sample("a", at, value) for at, value in pairs))
    now = T0 + 12 * DAY + 30
    everything(store, now)
    with store.read() as connection:
        marks = progress.read(connection)
        assert (marks.raw_floor, marks.minute_floor, marks.hour_floor) == (
            T0 + 11 * DAY,
            T0 + 9 * DAY,
            T0 + 2 * DAY,
        )
        oldest = [
            connection.execute(select(func.min(table.c.at))).scalar_one()
            for table in (tables.sample, tables.sample_minute, tables.sample_hour)
        ]
    assert oldest == [T0 + 11 * DAY, T0 + 9 * DAY, T0 + 2 * DAY]
    kept = [(at, value) for at, value in pairs if at >= T0 + 2 * DAY]
    check(hours(store, "a"), kept)
    compare(table(store, "sample_hour", "a"), bucketed(kept, HOUR))
    compare(
        table(store, "sample_minute", "a"), bucketed([each for each in pairs if each[0] >= T0 + 9 * DAY], MINUTE)
    )
    assert everything(store, now) == {}


def test_a_sample_older_than_the_floor_is_counted_not_taken(store: Store) -> None:
    """It would make an hour again from itself alone."""
    pairs = [(T0 + i * 600.0, float(i)) for i in range(3 * 24 * 6)]
    put(store, *(a_sample("a", at, value) for at, value in pairs))
    everything(store, T0 + 3 * DAY + 30)
    before = read(store, "a", T0, T0 + 4 * DAY)
    put(store, a_sample("a", T0 + HOUR, 1e9))
    store.write(lambda c: ingest.write(c, Batch(fleet=[FleetSample(T0, (0.0,) * len(FLEET_METRICS))])))
    everything(store, T0 + 3 * DAY + 30)
    after = read(store, "a", T0, T0 + 4 * DAY)
    np.testing.assert_array_equal(before.mean, after.mean)
    with store.read() as connection:
        assert counters.all(connection)[ingest.TOO_LATE] == 2


def test_raw_is_kept_while_an_hour_waits_to_be_made_again(store: Store) -> None:
    put(store, *(a_sample("a", T0 + i * 600.0, 1.0) for i in range(3 * 24 * 6)))
    rollup.run(store, T0 + 3 * DAY, most=500)
    put(store, a_sample("a", T0 + 5 * HOUR + 1, 7.0))
    retention.run(store, T0 + 3 * DAY, KEEP, most=500)
    with store.read() as connection:
        assert progress.read(connection).raw_floor == T0 + 5 * HOUR
    everything(store, T0 + 3 * DAY)
    with store.read() as connection:
        assert progress.read(connection).raw_floor == T0 + 2 * DAY
    found = hours(store, "a")
    assert found.high[found.at == T0 + 5 * HOUR].tolist() == [7.0]
    assert found.count.sum() == 3 * 24 * 6 + 1


def test_windows_and_events_go_with_their_time(store: Store) -> None:
    rows = [WindowRow("a", "h", "v", "", "1", T0 + i * HOUR, HOUR, 1, 0) for i in range(96)]
    said = [EventRow(T0 + i * HOUR, "k", 1, "t", device="a", boot="b", report_seq=i) for i in range(96)]
    store.write(lambda c: ingest.write(c, Batch(windows=rows, events=said)))
    deleted = everything(store, T0 + 4 * DAY)
    assert deleted == {"inference_window": 48, "event": 48}
    with store.read() as connection:
        assert windows.read(connection, "a", "h", 0, 2e9)[0].start == T0 + 48 * HOUR
        assert min(event.at for event in events.read(connection)) == T0 + 48 * HOUR


def test_many_rows_of_one_moment_do_not_stop_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_ROWS", 10)
    rows = [WindowRow(f"d{i}", "h", "v", "", "1", T0, HOUR, 1, 0) for i in range(35)]
    store.write(lambda c: ingest.write(c, Batch(windows=rows)))
    assert everything(store, T0 + 4 * DAY) == {"inference_window": 35}


def test_many_devices_are_swept_in_slices(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_DEVICES", 4)
    put(store, *(a_sample(f"d{i}", T0 + k * HOUR, 1.0) for i in range(19) for k in range(30)))
    rollup.run(store, T0 + 3 * DAY, most=500)
    deleted, unfinished = retention.run(store, T0 + 3 * DAY, KEEP, most=2)
    assert unfinished
    assert deleted == {"sample": 2 * 4 * 6}, "two slices of four devices, six hours"
    everything(store, T0 + 3 * DAY)
    assert stored(store, "sample") == 0
    assert stored(store, "sample_hour") == 19 * 30


def test_a_removed_device_leaves_nothing(store: Store) -> None:
    for name in ("goes", "stays"):
        batch = Batch(
            devices={name: DeviceRow(name)},
            samples=[a_sample(name, T0 + i * 60, 1.0) for i in range(100)],
            windows=[WindowRow(name, "h", "v", "", "1", T0, HOUR, 1, 0)],
            events=[EventRow(T0, "k", 1, name, device=name, boot="b")],
        )
        store.write(lambda c, batch=batch: ingest.write(c, batch))
    rollup.run(store, T0 + 2 * HOUR)
    store.write(lambda c: devices.remove(c, "goes"))
    with store.read() as connection:
        assert [event.text for event in events.read(connection)] == ["stays"], "at once"
        assert windows.read(connection, None, None, 0, 2e9)[0].device == "stays"
    everything(store, T0 + 2 * HOUR, Retention())
    with store.read() as connection:
        for name in ("sample", "sample_minute", "sample_hour", "inference_window", "event"):
            numbers = connection.execute(select(tables.METADATA.tables[name].c.device).distinct()).scalars().all()
            assert numbers == [2], name
        assert connection.execute(select(tables.removed_device)).all() == []


def test_a_device_that_returns_has_nothing_of_its_past(store: Store) -> None:
    put(store, a_sample("a", T0, 1.0))
    store.write(lambda c: devices.remove(c, "a"))
    put(store, a_sample("a", T0 + 60, 2.0))
    assert read(store, "a", T0 - 10, T0 + 100).mean.tolist() == [2.0]


def test_sqlite_gives_space_back(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(3):
        put(sqlite_store, *(a_sample("a", T0 + day * DAY + i * 2.0, float(i)) for i in range(30_000)))

    def pages(store: Store) -> int:
        with store.read() as connection:
            return connection.exec_driver_sql("PRAGMA page_count").scalar_one()

    monkeypatch.setattr(retention, "_PAGES", 100)
    full = pages(sqlite_store)
    for _ in range(6):
        everything(sqlite_store, T0 + 30 * DAY)
    assert pages(sqlite_store) < full / 2


# -------------------------------------------------------------------------------------------- any order

ACT = st.one_of(
    st.tuples(
        st.just("samples"),
        st.lists(
            st.tuples(st.integers(0, 2), st.integers(0, 4 * 3600), st.floats(-100, 100, width=32)), max_size=12
        ),
    ),
    st.tuples(st.just("run"), st.integers(0, 4 * 3600 + 200)),
    st.tuples(st.just("bounded"), st.integers(0, 4 * 3600 + 200)),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(ACT, max_size=12))
def test_whatever_the_order_the_sums_are_right(store: Store, acts: list[tuple[str, object]]) -> None:
    emptied(store)
    model: dict[str, dict[float, float]] = {f"d{i}": {} for i in range(3)}
    for word, value in acts:
        if word == "samples":
            put(store, *(a_sample(f"d{i}", T0 + at, cpu) for i, at, cpu in value))
            for i, at, cpu in value:
                model[f"d{i}"][T0 + at] = cpu
        else:
            rollup.run(store, T0 + value, most=1 if word == "bounded" else 48)
        _read_all(store, model)
    while rollup.run(store, T0 + 5 * HOUR + 10).more:
        pass
    _read_all(store, model)
    for name, points in model.items():
        pairs = sorted(points.items())
        compare(table(store, "sample_minute", name), bucketed(pairs, MINUTE))
        compare(table(store, "sample_hour", name), bucketed(pairs, HOUR))


def _read_all(store: Store, model: dict[str, dict[float, float]]) -> None:
    """What is read is the whole at any time, but for hours that wait to be made again."""
    with store.read() as connection:
        waiting = set(connection.execute(select(tables.late_hour.c.device)).scalars())
        numbers = devices.numbers(connection, model)
    for name, points in model.items():
        if numbers.get(name) not in waiting:
            pairs = sorted(points.items())
            check(read(store, name, T0, T0 + 5 * HOUR, points=301), pairs)
            check(read(store, name, T0, T0 + 5 * HOUR, points=20), pairs)
            check(hours(store, name), pairs)
