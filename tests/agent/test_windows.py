from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fleet_sim.agent.windows import OpenWindow, add_up, merge, mergeable, rounded
from fleetui.common.link import codec
from fleetui.common.link.messages import Window
from fleetui.common.link.topics import Up
from fleetui.common.sketches import latency as bins
from tests.helpers.sim import MODEL, T0

counts = st.lists(st.integers(0, 1_000_000), max_size=bins.BINS)


@st.composite
def some_windows(draw, least=1, most=8):
    windows = []
    start = rounded(T0 + draw(st.floats(0, 1e5)))
    for _ in range(draw(st.integers(least, most))):
        length = rounded(draw(st.floats(0.01, 4000))) or 1.0
        latency = draw(counts)
        windows.append(
            Window(
                device="d1",
                boot="",
                seq=0,
                at=start + length,
                handle="h",
                variant="v",
                start=start,
                length_s=length,
                rows=sum(latency) + draw(st.integers(0, 9)),
                errors=draw(st.integers(0, 9)),
                latency=latency,
                outputs=draw(st.lists(st.integers(0, 1000), max_size=20)),
                cold_starts=draw(st.integers(0, 3)),
                throttled=draw(st.integers(0, 3)),
            )
        )
        start = rounded(start + length + draw(st.sampled_from([0.0, 0.0, 17.3])))
    return windows


def total(lists):
    sum_ = np.zeros(96, dtype=np.int64)
    for values in lists:
        sum_[: len(values)] += np.array(values, dtype=np.int64)
    return sum_.tolist()


@given(some_windows(2, 6), st.randoms(use_true_random=False))
def test_merging_is_adding_in_any_order_and_bracketing(windows, rng: random.Random):
    pile = list(windows)
    while len(pile) > 1:
        rng.shuffle(pile)
        a, b = pile.pop(), pile.pop()
        assert merge(a, b) == merge(b, a)
        pile.append(merge(a, b))
    one = pile[0]
    assert one.rows == sum(w.rows for w in windows)
    assert one.errors == sum(w.errors for w in windows)
    assert one.cold_starts == sum(w.cold_starts for w in windows)
    assert one.throttled == sum(w.throttled for w in windows)
    assert total([one.latency]) == total(w.latency for w in windows)
    assert total([one.outputs]) == total(w.outputs for w in windows)
    assert one.merged == len(windows)
    assert one.start == min(w.start for w in windows)
    assert one.start + one.length_s == max(w.start + w.length_s for w in windows)
    straight = windows[0]
    for window in windows[1:]:
        straight = merge(straight, window)
    assert codec.encode(straight) == codec.encode(one)
    assert codec.decode_up(Up.WIN, codec.encode(one), "d1") == one


def test_what_counts_something_else_stays_apart():
    base = Window(device="d", boot="", seq=0, at=T0, handle="h", variant="v", start=T0, length_s=60.0, rows=1)

    def other(**changes):
        fields = {name: getattr(base, name) for name in base.__struct_fields__}
        return Window(**(fields | {"start": T0 + 60.0} | changes))

    assert mergeable(base, other())
    assert not mergeable(base, other(handle="h2"))
    assert not mergeable(base, other(variant="v2"))
    assert not mergeable(base, other(version="2"))
    assert not mergeable(base, other(baseline="b"))
    assert not mergeable(base, other(counts=b"packed"))
    assert not mergeable(base, other(start=T0 + 31 * 86400.0))


@given(st.lists(st.tuples(counts.filter(bool), st.lists(st.integers(0, 99), max_size=9)), min_size=1, max_size=6))
def test_an_open_window_reports_what_it_was_told(batches):
    window = OpenWindow(MODEL, T0)
    for latency, outputs in batches:
        full = bins.expand(latency)
        window.add(int(full.sum()), 1, full, np.array(outputs, dtype=np.int64))
    report = window.close("d1", T0 + 60, T0 + 61)
    assert total([report.latency]) == total(latency for latency, _ in batches)
    assert total([report.outputs]) == total(outputs for _, outputs in batches)
    assert report.errors == len(batches)
    assert (report.start, report.length_s) == (T0, 60.0)
    again = window.close("d1", T0 + 120, T0 + 120)
    assert (again.start, again.rows, again.errors, again.latency, sum(again.outputs)) == (T0 + 60, 0, 0, [], 0)


def test_add_up_leaves_its_arguments_alone():
    a, b = np.array([1, 2], dtype=np.int64), np.array([1, 1, 1], dtype=np.int64)
    assert add_up(a, b).tolist() == add_up(b, a).tolist() == [2, 3, 1]
    assert (a.tolist(), b.tolist()) == ([1, 2], [1, 1, 1])
