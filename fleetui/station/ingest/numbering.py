"""Duplicates, gaps and reordering of one device's reports, told from their numbers alone.

Reports of one boot are numbered 0, 1, 2, … over all kinds. What has been seen of the last ``WINDOW`` numbers
stands in three bitmaps (bit 0 is the highest number seen), so the usual case, the next number, is a shift.

A skipped number is *missing* first: reordering explains it. It is counted *lost* when it has been missing for
at least ``age_s``, when the device speaks under another boot, or when it leaves the window. Should it arrive
after all, it is taken off the count again. Numbers below the first one that was seen of a boot are *unknown*:
the station may have been away, so they are neither lost nor duplicates.

Which boot is the present one cannot be read off the boot ids, and late reports of an earlier boot do arrive. A
boot becomes the present one with its birth, or with two beats in a row while another one was thought to run
(births and beats are said live; windows and events may have waited on the device).

Does no I/O, reads no clock, runs on whichever thread owns the device's books.
"""

from __future__ import annotations

from enum import Enum, auto

WINDOW = 1024
BOOTS = 4  # how many boots of a device are remembered
JUMP = 1_000_000  # a larger step than this is a fresh numbering, not a million losses
LOST_CEILING = 2**53

_MASK = (1 << WINDOW) - 1


class Verdict(Enum):
    """What a number says about its report."""

    NEXT = auto()  # new, and the highest of its boot so far
    LATE = auto()  # new, but reports after it came first
    DUPLICATE = auto()
    OLD = auto()  # below the window: nothing can be told any more


class BootNumbers:
    """The numbers of one boot."""

    __slots__ = ("_lost", "_mark", "_marked", "_missing", "_seen", "top")

    def __init__(self, first: int) -> None:
        """``first`` counts as seen; what lies below it is unknown."""
        self._begin(first)

    def _begin(self, first: int) -> None:
        self.top = first
        self._seen = 1
        self._missing = 0
        self._lost = 0
        self._mark = first  # gaps at or below this number ...
        self._marked = 0.0  # ... were open at this time

    @property
    def missing(self) -> int:
        """Skipped, and not yet given up."""
        return self._missing.bit_count()

    def take(self, number: int, now: float, age_s: float) -> tuple[Verdict, int]:
        """Enter ``number``. Returns the verdict and by how much the count of losses changes."""
        step = number - self.top
        if step == 1 and not self._missing and not self._lost:
            self.top = number
            self._seen = ((self._seen << 1) | 1) & _MASK
            return Verdict.NEXT, 0
        if step > 0:
            change = self._advance(step, now)
            return Verdict.NEXT, change + self._aged(now, age_s)
        if step <= -WINDOW:
            return Verdict.OLD, 0
        bit = 1 << -step
        if self._seen & bit:
            return Verdict.DUPLICATE, 0
        self._seen |= bit
        change = 0
        if self._lost & bit:
            self._lost ^= bit
            change = -1
        self._missing &= ~bit
        return Verdict.LATE, change + self._aged(now, age_s)

    def _advance(self, step: int, now: float) -> int:
        if step > JUMP:
            change = self.give_up()
            self._begin(self.top + step)
            return change
        if not self._missing and step > 1:
            self._mark, self._marked = self.top + step, now
        missing = self._missing << step
        if step > 1:
            missing |= ((1 << (step - 1)) - 1) << 1
        self._missing = missing & _MASK
        self._seen = ((self._seen << step) | 1) & _MASK
        self._lost = (self._lost << step) & _MASK
        self.top += step
        return (missing >> WINDOW).bit_count()

    def _aged(self, now: float, age_s: float) -> int:
        """Give up the gaps that were already open ``age_s`` ago."""
        if not self._missing or now - self._marked < age_s:
            return 0
        below = max(self.top - self._mark, 0)  # bits from here on lie at or below the mark
        old = (self._missing >> below) << below
        self._missing ^= old
        self._lost |= old
        self._mark, self._marked = self.top, now
        return old.bit_count()

    def settle(self, now: float, age_s: float) -> int:
        """The passing of time alone: returns how many more are lost."""
        return self._aged(now, age_s)

    def give_up(self) -> int:
        """The boot is over: what is missing is lost."""
        count = self._missing.bit_count()
        self._lost |= self._missing
        self._missing = 0
        return count


class Numbers:
    """The numbers of one device, over its last boots."""

    __slots__ = ("_boots", "_other_beats", "boot")

    def __init__(self, boot: str = "", last: int = -1) -> None:
        """As the store remembers it: everything up to ``last`` may have been seen, or not."""
        self.boot = boot
        self._boots: dict[str, BootNumbers] = {}
        self._other_beats = ("", 0)
        if boot and last >= 0:
            self._boots[boot] = BootNumbers(last)

    @property
    def top(self) -> int:
        """The highest number of the present boot, -1 before the first."""
        numbers = self._boots.get(self.boot)
        return numbers.top if numbers else -1

    def take(self, boot: str, number: int, now: float, age_s: float) -> tuple[Verdict, int]:
        """Enter a report's number. Does not decide which boot is the present one: see :meth:`turn`."""
        numbers = self._boots.get(boot)
        if numbers is None:
            self._remember(boot, BootNumbers(number))
            return Verdict.NEXT, 0
        return numbers.take(number, now, age_s)

    def turn(self, boot: str, *, birth: bool, beat: bool) -> tuple[bool, int]:
        """After a new report: has ``boot`` become the present one, and how many of the last one are lost."""
        if boot == self.boot:
            if beat or birth:
                self._other_beats = ("", 0)
            return False, 0
        if not birth and self.boot:
            if not beat:
                return False, 0
            other, count = self._other_beats
            self._other_beats = (boot, count + 1 if other == boot else 1)
            if self._other_beats[1] < 2:
                return False, 0
        last = self._boots.get(self.boot)
        self.boot = boot
        self._other_beats = ("", 0)
        return True, last.give_up() if last else 0

    def settle(self, now: float, age_s: float) -> int:
        return sum(numbers.settle(now, age_s) for numbers in self._boots.values())

    def _remember(self, boot: str, numbers: BootNumbers) -> None:
        while len(self._boots) >= BOOTS:
            oldest = next(name for name in self._boots if name != self.boot)
            del self._boots[oldest]
        self._boots[boot] = numbers
