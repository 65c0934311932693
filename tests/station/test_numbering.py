"""Numbering against a plain model: sets of numbers."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fleetui.station.ingest.numbering import JUMP, WINDOW, BootNumbers, Numbers, Verdict

AGE = 30.0


def feed(numbers: BootNumbers, sequence: list[int], now: float = 0.0) -> tuple[list[Verdict], int]:
    lost = 0
    verdicts = []
    for n in sequence:
        verdict, change = numbers.take(n, now, AGE)
        verdicts.append(verdict)
        lost += change
    return verdicts, lost


def test_in_order_is_all_new():
    verdicts, lost = feed(BootNumbers(0), list(range(1, 5000)))
    assert set(verdicts) == {Verdict.NEXT}
    assert lost == 0


def test_a_gap_is_lost_only_once_it_has_aged():
    numbers = BootNumbers(0)
    assert numbers.take(3, 100.0, AGE) == (Verdict.NEXT, 0)
    assert numbers.missing == 2
    assert numbers.settle(129.9, AGE) == 0
    assert numbers.settle(130.0, AGE) == 2
    assert numbers.settle(1000.0, AGE) == 0


def test_a_late_arrival_is_taken_off_the_count():
    numbers = BootNumbers(0)
    numbers.take(3, 0.0, AGE)
    assert numbers.settle(60.0, AGE) == 2
    assert numbers.take(1, 61.0, AGE) == (Verdict.LATE, -1)
    assert numbers.take(1, 61.0, AGE) == (Verdict.DUPLICATE, 0)
    assert numbers.take(2, 61.0, AGE) == (Verdict.LATE, -1)


def test_what_came_before_the_first_number_is_unknown():
    numbers = BootNumbers(10)
    assert numbers.take(4, 0.0, AGE) == (Verdict.LATE, 0)
    assert numbers.take(4, 0.0, AGE) == (Verdict.DUPLICATE, 0)
    assert numbers.settle(1e6, AGE) == 0
    assert numbers.give_up() == 0


def test_far_below_the_window_nothing_is_told():
    numbers = BootNumbers(WINDOW * 3)
    assert numbers.take(WINDOW * 2, 0.0, AGE) == (Verdict.OLD, 0)


def test_an_absurd_jump_is_a_fresh_numbering():
    numbers = BootNumbers(0)
    numbers.take(2, 0.0, AGE)
    verdict, change = numbers.take(JUMP * 5, 0.0, AGE)
    assert (verdict, change) == (Verdict.NEXT, 1)
    assert numbers.top == JUMP * 5
    assert numbers.settle(1e9, AGE) == 0


@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=200),
    st.booleans(),
)
def test_new_and_duplicate_agree_with_a_set(sequence: list[int], mostly_forward: bool):
    if mostly_forward:
        sequence = [n + i * 5 for i, n in enumerate(n % 40 for n in sequence)]
    numbers = BootNumbers(sequence[0])
    seen = {sequence[0]}
    top = sequence[0]
    for n in sequence[1:]:
        verdict, _ = numbers.take(n, 0.0, AGE)
        if n <= top - WINDOW:
            assert verdict is Verdict.OLD
            continue
        assert (verdict is Verdict.DUPLICATE) == (n in seen)
        assert (verdict is Verdict.NEXT) == (n > top)
        seen.add(n)
        top = max(top, n)


@settings(deadline=None)  # a loaded machine is not a defect
@given(st.data())
def test_losses_are_exactly_what_never_came(data: st.DataObject):
    """Any reordering within the window, any duplicates, any ages: in the end the count is the truth."""
    total = data.draw(st.integers(2, 400))
    rng = data.draw(st.randoms(use_true_random=False))
    share, reach = data.draw(st.floats(0, 0.5)), data.draw(st.integers(0, 200))
    gone = {n for n in range(1, total - 1) if rng.random() < share}
    displaced = [
        (n + rng.randint(0, reach), n) for n in range(total) for _ in range(rng.randint(1, 2)) if n not in gone
    ]
    order = [n for _, n in sorted(displaced)]
    first = order[0]
    numbers = BootNumbers(first)
    lost, now = 0, 0.0
    for n in order[1:]:
        now += rng.choice([0.0, 1.0, 40.0])
        lost += numbers.take(n, now, AGE)[1]
        assert lost >= 0
    lost += numbers.give_up()
    top = max(order)
    assert lost == len([n for n in range(first, top) if n in gone])


def test_a_birth_makes_its_boot_the_present_one_and_closes_the_last():
    numbers = Numbers()
    numbers.take("a", 0, 0.0, AGE)
    assert numbers.turn("a", birth=True, beat=False) == (True, 0)
    numbers.take("a", 5, 0.0, AGE)
    numbers.take("b", 0, 1.0, AGE)
    assert numbers.turn("b", birth=True, beat=False) == (True, 4)
    assert numbers.boot == "b"
    # A window of the earlier boot that waited on the device.
    assert numbers.take("a", 3, 2.0, AGE) == (Verdict.LATE, -1)
    assert numbers.turn("a", birth=False, beat=False) == (False, 0)
    assert numbers.boot == "b"


def test_two_beats_in_a_row_turn_the_boot_and_a_single_stray_one_does_not():
    numbers = Numbers("a", 7)
    assert numbers.turn("b", birth=False, beat=True) == (False, 0)
    assert numbers.turn("a", birth=False, beat=True) == (False, 0)
    assert numbers.turn("b", birth=False, beat=True) == (False, 0)
    assert numbers.turn("b", birth=False, beat=True) == (True, 0)
    assert numbers.boot == "b"


def test_after_a_restart_redelivered_reports_are_not_called_duplicates_nor_gaps_losses():
    numbers = Numbers("a", 100)
    assert numbers.take("a", 99, 0.0, AGE) == (Verdict.LATE, 0)
    assert numbers.take("a", 101, 0.0, AGE) == (Verdict.NEXT, 0)
    assert numbers.take("a", 100, 0.0, AGE) == (Verdict.DUPLICATE, 0)
    assert numbers.settle(1e6, AGE) == 0
    assert numbers.top == 101


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 50)), max_size=80))
def test_memory_is_bounded_and_the_present_boot_is_never_forgotten(reports: list[tuple[str, int]]):
    numbers = Numbers()
    for boot, n in reports:
        numbers.take(boot, n, 0.0, AGE)
        numbers.turn(boot, birth=n == 0, beat=False)
        assert len(numbers._boots) <= 4
        if numbers.boot:
            assert numbers.boot in numbers._boots
