"""Sets of row numbers, quickly: rows are small whole numbers, so a table of marks beats sorting.

``np.unique`` and ``np.isin`` would do the same, but their first call imports ``numpy.ma``, which takes longer than
a frame may. Pure; any thread.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def union(parts: Iterable[Rows]) -> Rows:
    """Every row of any part, once, in rising order."""
    found = np.concatenate(list(parts))
    if not found.size:
        return found
    marks = np.zeros(int(found.max()) + 1, dtype=np.bool_)
    marks[found] = True
    return np.flatnonzero(marks)


def among(rows: Rows, others: Rows) -> npt.NDArray[np.bool_]:
    """Which of ``rows`` are among ``others``."""
    marks = np.zeros(1 + int(max(rows.max(initial=0), others.max(initial=0))), dtype=np.bool_)
    marks[others] = True
    return marks[rows]


def distinct(values: Rows) -> tuple[Rows, Rows]:
    """The different values in rising order, and for each value which of them it is."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.ones(len(ordered), dtype=np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    which = np.empty(len(values), dtype=np.int64)
    which[order] = np.cumsum(first) - 1
    return ordered[first], which
