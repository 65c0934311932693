"""What a filter's writer is told: where it goes wrong, and what was probably meant.

Everything raised here is a :class:`~fleetui.common.domain.errors.FilterError`; no other exception leaves the
package on account of a text. Pure functions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from fleetui.common.domain.errors import FilterError

__all__ = ["FilterError", "closest", "did_you_mean", "failure"]


def failure(sentence: str, fix: str, start: int, end: int) -> FilterError:
    """An error about the text from ``start`` to ``end``; at the end of a text it marks one character."""
    return FilterError(sentence, fix, position=start, length=max(end - start, 1))


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that ``word`` is most likely a slip of the pen for, or None."""
    folded = {c.casefold(): c for c in candidates}
    found = difflib.get_close_matches(word.casefold()[:64], list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def did_you_mean(word: str, candidates: Iterable[str], otherwise: str) -> str:
    """The fix to print for an unknown ``word``."""
    guess = closest(word, candidates)
    return f"Did you mean '{guess}'?" if guess else otherwise
