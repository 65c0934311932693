"""A text column as numbers: one code per row, each different text kept once, with its place in sorting order.

Filters look at each different text once (``domain.filters.texts.Coded``), sorting compares numbers, and a cell
that did not change compares equal without looking at a letter. Texts that nobody has any more (old error
messages) are swept out when they are more than the rows are. Main thread only.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetui.common.domain.filters.texts import Coded
from fleetui.common.domain.values import version_key

Codes = npt.NDArray[np.int32]
SWEEP_ABOVE = 1024

_DIGITS = re.compile(r"\d+")


def natural_key(text: str) -> str:
    """Orders as people do: case does not count, and ``node-9`` comes before ``node-10``."""
    folded = text.casefold()
    return _DIGITS.sub(lambda m: m[0].zfill(18), folded)


def version_order(text: str) -> Any:
    return version_key(text)


class TextColumn:
    """Codes of all rows of one column. ``order`` fixes the first places of the sorting order (states)."""

    def __init__(self, key: Callable[[str], Any] = natural_key, order: Sequence[str] = ()) -> None:
        self._key = key
        self._first = {text: place for place, text in enumerate(order)}
        self.codes: Codes = np.full(0, -1, dtype=np.int32)
        self.texts: list[str] = []
        self._code_of: dict[str, int] = {"": -1}
        self._keys: list[tuple[int, Any]] = []
        self._sorted: list[int] = []
        self._ranks: npt.NDArray[np.float64] | None = None
        self._coded = Coded(self.codes, self.texts)

    def grow(self, capacity: int) -> None:
        codes = np.full(capacity, -1, dtype=np.int32)
        codes[: len(self.codes)] = self.codes
        self.codes = codes
        self._renew()

    def _renew(self) -> None:
        vocabulary = self._coded if self._coded.categories is self.texts else None
        self._coded = Coded(self.codes, self.texts)
        if vocabulary is not None:
            self._coded._vocabulary = vocabulary._vocabulary  # noqa: SLF001 - the same texts: matched once is enough

    def encode(self, texts: Iterable[str]) -> Codes:
        """The codes of ``texts``, new ones entered."""
        known = self._code_of
        codes = []
        for text in texts:
            code = known.get(text)
            if code is None:
                code = known[text] = len(self.texts)
                self.texts.append(text)
                self._ranks = None
            codes.append(code)
        return np.asarray(codes, dtype=np.int32)

    def text(self, row: int) -> str:
        code = self.codes[row]
        return self.texts[code] if code >= 0 else ""

    def coded(self) -> Coded:
        """As filters want it; the same object until the codes move elsewhere."""
        return self._coded

    def rank(self) -> npt.NDArray[np.float64]:
        """Each row's place in sorting order; NaN where there is no text."""
        if self._ranks is None:
            for code in range(len(self._keys), len(self.texts)):
                text = self.texts[code]
                first = self._first.get(text)
                self._keys.append((first, "") if first is not None else (len(self._first), self._key(text)))
                self._sorted.append(code)
            # Sorted before but for what was added: quick for the sort that Python has.
            self._sorted.sort(key=self._keys.__getitem__)
            ranks = np.empty(len(self.texts) + 1, dtype=np.float64)
            keys = [self._keys[code] for code in self._sorted]
            # Texts that read alike ("Berlin", "berlin") share a place; then the device's id decides.
            steps = np.fromiter(
                (a != b for a, b in itertools.pairwise(keys)), dtype=np.int64, count=max(0, len(keys) - 1)
            )
            ranks[self._sorted] = np.concatenate(([0], np.cumsum(steps)))[: len(keys)]
            ranks[-1] = np.nan  # what the code -1 picks
            self._ranks = ranks
        return self._ranks[self.codes]

    def sweep(self, n: int) -> bool:
        """Forgets texts that none of the first ``n`` rows has, if they are many; says whether it did."""
        if len(self.texts) <= 2 * n + SWEEP_ABOVE:
            return False
        present = np.zeros(len(self.texts) + 1, dtype=np.bool_)  # the last is what -1 marks
        present[self.codes[:n]] = True
        used = np.flatnonzero(present[:-1])
        moved = np.full(len(self.texts) + 1, -1, dtype=np.int32)
        moved[used] = np.arange(len(used), dtype=np.int32)
        self.texts = [self.texts[code] for code in used.tolist()]
        self.codes = moved[self.codes]
        self._code_of = {"": -1, **{text: code for code, text in enumerate(self.texts)}}
        self._keys, self._sorted, self._ranks = [], [], None
        self._renew()
        return True
