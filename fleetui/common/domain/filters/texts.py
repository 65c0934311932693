"""Many texts matched at once.

A list of texts is folded and laid end to end as UTF-8 bytes; equality, prefixes, suffixes and substrings are
then a few passes of numpy over the bytes, whatever the texts hold and however many match. UTF-8 never finds a
character in the middle of another, so bytes may stand for characters.

Not thread-safe to build, safe to read. Nothing here knows fields or columns.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fleetui.common.domain.filters.operands import Pattern

Mask = npt.NDArray[np.bool_]
K = TypeVar("K", bound=Hashable)

_SMALL = 64  # up to this many different texts a loop is quicker than preparing bytes
_SAMPLE = 512
_SAMPLE_BYTES = 8192
_END = "\0"
_INSTEAD = "\uffff"  # takes the place of the separator in the rare text that holds it


class Vocabulary:
    """Texts to be matched, in the order given. ``None`` and anything that is no text counts as empty."""

    def __init__(self, texts: Sequence[Any]) -> None:
        self._texts: list[Any] = list(texts)
        self._bytes: npt.NDArray[np.uint8] | None = None
        self._starts: npt.NDArray[np.intp]
        self._ends: npt.NDArray[np.intp]
        self._distinct: frozenset[Any] | None = None

    def __len__(self) -> int:
        return len(self._texts)

    def present(self) -> Mask:
        """Where there is a text at all."""
        return self.holds(bool)

    def holds(self, test: Callable[[str], bool]) -> Mask:
        """``test`` of each text, called once for each different one; False for empty ones."""
        known = {t: bool(t) and isinstance(t, str) and test(t) for t in self._different()}
        return np.fromiter(map(known.__getitem__, self._texts), dtype=np.bool_, count=len(self._texts))

    def matches(self, pattern: Pattern) -> Mask:
        """Where the folded text is like ``pattern``; False for empty texts."""
        if self._repeats() or any(mark in part for part in pattern.parts for mark in (_END, _INSTEAD)):
            return self.holds(lambda text: pattern.matches(text.casefold()))
        return self._scan(pattern)

    def _different(self) -> frozenset[Any]:
        if self._distinct is None:
            self._distinct = frozenset(self._texts)
        return self._distinct

    def _repeats(self) -> bool:
        """Whether few different texts make up the whole, to judge by a sample."""
        sample = self._texts[:: len(self._texts) // _SAMPLE + 1]
        return len(set(sample)) <= _SMALL

    def _lay_out(self) -> npt.NDArray[np.uint8]:
        if self._bytes is None:
            try:
                joined = _END.join(self._texts)
            except TypeError:
                self._texts = [t if isinstance(t, str) else "" for t in self._texts]
                joined = _END.join(self._texts)
            if joined.count(_END) != len(self._texts) - 1:
                joined = _END.join(t.replace(_END, _INSTEAD) for t in self._texts)
            folded = (joined.casefold() + _END).encode("utf-8", "surrogatepass")
            self._bytes = np.frombuffer(folded, dtype=np.uint8)
            self._ends = np.flatnonzero(self._bytes == 0)
            self._starts = np.concatenate(([0], self._ends[:-1] + 1))
        return self._bytes

    def _scan(self, pattern: Pattern) -> Mask:
        data = self._lay_out()
        parts = [part.encode("utf-8", "surrogatepass") for part in pattern.parts]
        length = self._ends - self._starts
        if len(parts) == 1:
            rows = np.flatnonzero(length == len(parts[0]))
            rows = _narrow(data, self._starts, rows, parts[0])
            return self._mask(rows)
        first, *middle, last = parts
        rows = np.flatnonzero((length >= len(first) + len(last)) & (length > 0))
        rows = _narrow(data, self._starts, rows, first)
        rows = _narrow(data, self._ends - len(last), rows, last)
        if not middle:
            return self._mask(rows)
        if len(middle) == 1 and not first and not last:
            return self._mask(np.searchsorted(self._ends, _find(data, middle[0])))
        for part in middle:
            rows = rows[self._mask(np.searchsorted(self._ends, _find(data, part)))[rows]]
        # They hold all the parts; whether in order and side by side is seen one by one.
        raw = data.tobytes()
        kept = [
            row
            for row, start, end in zip(
                rows.tolist(), self._starts[rows].tolist(), self._ends[rows].tolist(), strict=True
            )
            if _in_order(raw, start + len(first), end - len(last), middle)
        ]
        return self._mask(np.asarray(kept, dtype=np.intp))

    def _mask(self, rows: npt.NDArray[np.intp]) -> Mask:
        mask = np.zeros(len(self._texts), dtype=np.bool_)
        mask[rows] = True
        return mask


def _narrow(
    data: npt.NDArray[np.uint8], origin: npt.NDArray[np.intp], rows: npt.NDArray[np.intp], wanted: bytes
) -> npt.NDArray[np.intp]:
    """The rows whose bytes from ``origin`` on are ``wanted``."""
    for i, byte in enumerate(wanted):
        if not rows.size:
            break
        rows = rows[data[origin[rows] + i] == byte]
    return rows


def _find(data: npt.NDArray[np.uint8], wanted: bytes) -> npt.NDArray[np.intp]:
    """Every place where ``wanted`` (not empty, without the separator) stands."""
    room = data.size - len(wanted) + 1
    if room <= 0:
        return np.zeros(0, dtype=np.intp)
    # The bytes that are rare in a sample first: they leave few places to look at for the others.
    sample = data[:_SAMPLE_BYTES].tobytes()
    first, *others = sorted(range(len(wanted)), key=lambda i: sample.count(wanted[i]))
    at = np.flatnonzero(data[first : first + room] == wanted[first])
    for i in others:
        if not at.size:
            break
        at = at[data[at + i] == wanted[i]]
    return at


def _in_order(raw: bytes, start: int, end: int, middle: list[bytes]) -> bool:
    for part in middle:
        found = raw.find(part, start, end)
        if found < 0:
            return False
        start = found + len(part)
    return True


@dataclass(slots=True)
class Coded:
    """A text column as numbers: ``codes[row]`` indexes ``categories``; -1 is a missing text.

    Whoever keeps a table up to date hands this in instead of an array of texts: a filter then looks at each
    different text once. Codes may change in place between two calls, and categories may be *appended*; one that
    is there must not change.
    """

    codes: npt.NDArray[np.signedinteger[Any]]
    categories: Sequence[str]
    _vocabulary: Vocabulary | None = field(default=None, init=False, repr=False, compare=False)

    def vocabulary(self) -> Vocabulary:
        known = self._vocabulary
        if known is None or len(known) != len(self.categories):
            known = self._vocabulary = Vocabulary(self.categories)
        return known

    def spread(self, of_category: Mask, n: int) -> Mask:
        """A mask over categories as one over the first ``n`` rows."""
        # The extra False at the end is what the code -1 picks.
        padded = np.append(of_category, np.False_)
        mask: Mask = padded[self.codes[:n]]
        return mask

    def with_codes(self, codes: npt.NDArray[np.signedinteger[Any]]) -> Coded:
        """Other rows over the same categories, and over what has been prepared of them."""
        other = Coded(codes, self.categories)
        other._vocabulary = self._vocabulary
        return other

    def __getitem__(self, rows: slice) -> Coded:
        self.vocabulary()  # prepared here, it serves every later cut
        return self.with_codes(self.codes[rows])

    def __len__(self) -> int:
        return len(self.codes)
