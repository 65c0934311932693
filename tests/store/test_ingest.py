"""What one batch writes, and that writing it again changes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sqlalchemy import Connection, func, select

from fleetui.common.sketches import latency
from fleetui.store import counters, devices, events, feed, ingest, rejected, series, tables, windows
from fleetui.store.records import (
    FLEET_METRICS,
    METRICS,
    NAN,
    Batch,
    DeviceRow,
    EventRow,
    FleetSample,
    Rejected,
    Sample,
    WindowRow,
)
from fleetui.store.store import Store

T0 = 1_800_000_000.0


def full_row(name: str = "dev-1") -> DeviceRow:
    return DeviceRow(
        device=name,
        name="Gate 3",
        site="berlin",
        target="rpi4-64",
        firmware="2.1",
        agent="0.1",
        tags={"b": "2", "a": "ä\u0000\u20ac"},
        status="online",
        status_since=T0 - 5,
        first_seen=T0 - 100,
        last_seen=T0,
        boot="b1",
        last_seq=41,
        booted=T0 - 50,
        boots=3,
        handle="counter",
        model="people",
        version="1.2",
        variant="rpi4-64/int8",
        digest="a" * 64,
        models=(("counter", "people", "1.2", "active"), ("x", "y", "1", "staged")),
        cores=4,
        memory_bytes=2**40,
        disk_bytes=2**50,
        cpu=0.25,
        memory=0.5,
        disk=NAN,
        temperature=-12.5,
        rows=2**53,
        errors=7,
        rows_per_s=1.5,
        latency_p50=3.25,
        health=0.9,
        reasons=("hot", "slow"),
        last_error="it broke",
        lost=1,
        duplicates=2,
        dropped=3,
        queued=4,
        rejected=5,
    )


def same(left: DeviceRow, right: DeviceRow, *, but: tuple[str, ...] = ("seq",)) -> None:
    for name in DeviceRow.__slots__:
        a, b = getattr(left, name), getattr(right, name)
        if name in but or (isinstance(a, float) and math.isnan(a) and math.isnan(b)):
            continue
        assert a == b, name


def a_batch() -> Batch:
    return Batch(
        devices={"dev-1": full_row()},
        samples=[Sample("dev-1", T0 + i, (0.1 * i, *[NAN] * (len(METRICS) - 1))) for i in range(5)],
        fleet=[FleetSample(T0, tuple(float(i) for i in range(len(FLEET_METRICS))))],
        windows=[WindowRow("dev-1", "counter", "v", "base", "1.2", T0, 60.0, 100, 1, (1, 2, 300), (5, 6), b"\0\1")],
        events=[EventRow(T0, "boot", 1, "hello", device="dev-1", codes=("a", "b"), boot="b1", report_seq=1)],
        rejected=[Rejected(T0, "fleet/x", "forged", "says it is another", "dev-2", 99, b"\xff\0")],
        counters={"received": 10, "nothing": 0},
    )


def test_every_field_of_a_device_comes_back(store: Store) -> None:
    store.write(lambda c: ingest.write(c, Batch(devices={"dev-1": full_row()})))
    with store.read() as connection:
        (row,) = devices.all(connection)
        assert devices.get(connection, "dev-1") == row or math.isnan(row.disk)
        assert devices.get(connection, "dev-2") is None
    # A NUL cannot be stored by PostgreSQL, so it is stored by neither.
    expected = full_row()
    object.__setattr__(expected, "tags", {"b": "2", "a": "ä\ufffd\u20ac"})
    same(row, expected)
    assert row.seq == 1


def test_a_row_of_defaults_comes_back(store: Store) -> None:
    store.write(lambda c: ingest.write(c, Batch(devices={"d": DeviceRow("d")})))
    with store.read() as connection:
        same(devices.all(connection)[0], DeviceRow("d"))


def test_the_whole_batch_is_there(store: Store) -> None:
    seq = store.write(lambda c: ingest.write(c, a_batch()))
    with store.read() as connection:
        assert feed.head(connection) == seq
        read = series.read(connection, "dev-1", "cpu", T0, T0 + 100)
        np.testing.assert_allclose(read.mean, [0.0, 0.1, 0.2, 0.3, 0.4])
        assert len(series.read(connection, "dev-1", "memory", T0, T0 + 100).at) == 0
        assert series.latest(connection, "dev-1") == (T0 + 4, {"cpu": 0.4})
        assert series.latest(connection) == (T0, {name: float(i) for i, name in enumerate(FLEET_METRICS)})
        assert series.latest(connection, "nobody") is None
        assert windows.read(connection, "dev-1", "counter", T0, T0 + 1) == a_batch().windows
        (event,) = events.read(connection)
        assert (event.device, event.codes, event.text, event.id) == ("dev-1", ("a", "b"), "hello", event.seq)
        assert rejected.recent(connection) == a_batch().rejected
        assert rejected.counts(connection) == {"forged": 1}
        assert counters.all(connection) == {"received": 10}


def test_writing_it_twice_changes_nothing_but_numbers_and_counts(store: Store) -> None:
    first = store.write(lambda c: ingest.write(c, a_batch()))
    second = store.write(lambda c: ingest.write(c, a_batch()))
    assert second > first
    with store.read() as connection:
        for table, rows in (
            (tables.device, 1),
            (tables.sample, 5),
            (tables.fleet_sample, 1),
            (tables.inference_window, 1),
            (tables.event, 1),
            (tables.word, 4),
        ):
            assert connection.execute(select(func.count()).select_from(table)).scalar_one() == rows, table.name
        assert counters.all(connection) == {"received": 20}
        assert events.read(connection)[0].seq <= first, "the event stays as it was first entered"
        assert [row.seq for row in devices.all(connection)] == [first + 1]


def test_a_replaced_window_and_sample_have_the_new_values(store: Store) -> None:
    store.write(lambda c: ingest.write(c, a_batch()))
    again = Batch(
        samples=[Sample("dev-1", T0 + 1, (0.9, *[NAN] * (len(METRICS) - 1)))],
        windows=[WindowRow("dev-1", "counter", "v", "base", "1.2", T0, 60.0, 250, 0, merged=2)],
    )
    store.write(lambda c: ingest.write(c, again))
    with store.read() as connection:
        assert windows.read(connection, "dev-1", "counter", T0, T0 + 1) == again.windows
        assert series.read(connection, "dev-1", "cpu", T0 + 1, T0 + 2).mean.tolist() == [0.9]


def test_a_device_that_only_sends_samples_is_entered(store: Store) -> None:
    batch = Batch(
        samples=[Sample("s", T0, (0.5,) * len(METRICS))],
        windows=[WindowRow("w", "h", "v", "", "1", T0, 60, 1, 0)],
        events=[EventRow(T0, "k", 1, "t", device="e", boot="b")],
    )
    store.write(lambda c: ingest.write(c, batch))
    with store.read() as connection:
        assert {row.device for row in devices.all(connection)} == {"s", "w", "e"}


def test_an_empty_batch_is_fine(store: Store) -> None:
    assert store.write(lambda c: ingest.write(c, Batch())) == 1


def test_texts_with_nul_do_not_stop_a_batch(store: Store) -> None:
    bad = "a\0b"
    batch = Batch(
        devices={"d": DeviceRow("d", name=bad, last_error=bad, reasons=(bad,), models=((bad, bad, bad, bad),))},
        windows=[WindowRow("d", bad, bad, bad, bad, T0, 60, 1, 0, boot=bad)],
        events=[EventRow(T0, bad, 1, bad, device="d", codes=(bad,), subject=bad, boot=bad)],
        rejected=[Rejected(T0, bad, "topic", bad, bad)],
    )
    store.write(lambda c: ingest.write(c, batch))
    good = "a\ufffdb"
    with store.read() as connection:
        (row,) = devices.all(connection)
        assert (row.name, row.last_error, row.reasons, row.models) == (good, good, (good,), ((good,) * 4,))
        assert windows.read(connection, "d", None, 0, 2e9)[0].handle == good
        assert events.read(connection)[0].codes == (good,)
        assert rejected.recent(connection)[0].device == good


def test_rejected_are_all_counted_and_few_are_kept(store: Store) -> None:
    flood = [Rejected(T0 + i, "t", "rate", str(i), "noisy", 1) for i in range(3_000)]
    quiet = [Rejected(T0, "t", "forged", "once", "quiet", 1, b"x" * 600)]
    store.write(lambda c: ingest.write(c, Batch(rejected=quiet)))
    for start in range(0, 3_000, 1_000):
        part = flood[start : start + 1_000]
        store.write(lambda c, part=part: ingest.write(c, Batch(rejected=part)))
    many = [Rejected(T0 + i, "t", "range", str(i), f"d{i}", 1) for i in range(900)]
    with store.read() as connection:
        assert rejected.counts(connection) == {"rate": 3_000, "forged": 1}
        kept = rejected.recent(connection, limit=10_000)
        assert [each.detail for each in kept if each.device == "noisy"] == [str(i) for i in range(2_999, 2_979, -1)]
        assert [len(each.payload) for each in rejected.recent(connection, device="quiet")] == [rejected.PAYLOAD]
        assert [each.detail for each in rejected.recent(connection, reason="forged")] == ["once"]
    store.write(lambda c: ingest.write(c, Batch(rejected=many)))
    with store.read() as connection:
        kept = rejected.recent(connection, limit=10_000)
        assert len(kept) == rejected.KEPT
        assert kept[0].device == "d899"


def test_latencies_add_up_like_one_by_one(store: Store) -> None:
    generator = np.random.default_rng(7)
    each = [generator.integers(0, 10**12, generator.integers(0, 97)).tolist() for _ in range(50)]
    rows = [
        WindowRow("d", "h", "v", "", "1", T0 + i * 60, 60, 1, 0, tuple(counts)) for i, counts in enumerate(each)
    ]
    store.write(lambda c: ingest.write(c, Batch(windows=rows)))
    with store.read() as connection:
        read = windows.read(connection, "d", "h", T0, T0 + 3_000)
    expected = np.sum([latency.expand(counts) for counts in each], axis=0)
    np.testing.assert_array_equal(windows.sum_latency(read), expected)
    assert windows.sum_latency([]).sum() == 0


def test_windows_of_all_devices_in_an_hour(store: Store) -> None:
    rows = [WindowRow(f"d{i}", h, "v", "", "1", T0 + i, 60, 1, 0) for i in range(4) for h in ("a", "b")]
    store.write(lambda c: ingest.write(c, Batch(windows=rows)))
    with store.read() as connection:
        assert len(windows.read(connection, None, "a", T0 + 1, T0 + 3)) == 2
        assert len(windows.read(connection, None, None, T0, T0 + 3)) == 6
        assert windows.read(connection, "d1", "unheard of", T0, T0 + 3) == []
        assert windows.read(connection, "d9", "a", T0, T0 + 3) == []


def test_a_metric_that_does_not_exist_is_our_own_mistake(store: Store) -> None:
    with store.read() as connection, pytest.raises(ValueError, match="not one of"):
        series.read(connection, "d", "colour", 0, 1)


@pytest.mark.parametrize("nested", [False, True])
def test_words_of_a_transaction_that_was_rolled_back_are_not_taken_for_known(store: Store, nested: bool) -> None:
    """A connection remembers the numbers of words: not those that were never committed."""
    batch = Batch(windows=[WindowRow("d", "new handle", "v", "b", "1", T0, 60, 1, 0)])

    def fail(connection: Connection) -> None:
        ingest.write(connection, batch)
        raise LookupError("on purpose")

    def fail_and_go_on(connection: Connection) -> None:
        with pytest.raises(LookupError), connection.begin_nested():
            fail(connection)

    if nested:
        store.write(fail_and_go_on)
    else:
        with pytest.raises(LookupError):
            store.write(fail)
    store.write(lambda c: ingest.write(c, batch))
    with store.read() as connection:
        assert windows.read(connection, "d", "new handle", 0, 2e9) == batch.windows
