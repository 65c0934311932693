import math

from hypothesis import given
from hypothesis import strategies as st

from fleetui.station.health.vital import RULES, judge
from fleetui.store.records import NAN, DeviceRow

FIGURE = st.one_of(st.just(NAN), st.floats(-1e6, 1e6))


def test_nothing_known_is_no_score():
    score, reasons = judge(DeviceRow("d"))
    assert math.isnan(score)
    assert reasons == ()


def test_well_is_one_and_needs_no_reason():
    assert judge(DeviceRow("d", cpu=0.3, memory=0.4, disk=0.5, temperature=50)) == (1.0, ())


def test_the_worst_reason_comes_first():
    row = DeviceRow("d", cpu=0.2, disk=0.91, rows_per_s=50.0, errors_per_s=50.0)
    score, reasons = judge(row)
    assert reasons[0] == "50 % of inferences fail"
    assert reasons[1] == "disk 91 % full"
    assert score < 0.5


def test_an_idle_device_has_no_error_share():
    assert judge(DeviceRow("d", cpu=0.1, rows_per_s=0.0, errors_per_s=0.0)) == (1.0, ())


@given(
    st.builds(
        DeviceRow,
        device=st.just("d"),
        cpu=FIGURE,
        memory=FIGURE,
        disk=FIGURE,
        temperature=FIGURE,
        clock_offset=FIGURE,
        rows_per_s=FIGURE,
        errors_per_s=FIGURE,
        queued=st.integers(0, 10**6),
    )
)
def test_a_score_is_within_bounds_and_below_one_exactly_when_there_is_a_reason(row: DeviceRow):
    score, reasons = judge(row)
    assert math.isnan(score) or 0.0 <= score <= 1.0
    assert (score < 1.0) == bool(reasons)
    assert len(reasons) <= len(RULES)
    if math.isnan(score):
        assert not reasons


@given(st.floats(0.5, 1.0), st.floats(0.0, 0.5))
def test_a_fuller_disk_never_scores_better(disk: float, more: float):
    def score(d: float) -> float:
        return judge(DeviceRow("d", cpu=0.1, disk=d))[0]

    assert score(min(disk + more, 1.0)) <= score(disk)
