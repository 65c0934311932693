"""Words for people: marking them for translation, counting things, and moments in local time.

The logic knows no Qt, but its words are translated by Qt. ``QT_TRANSLATE_NOOP`` is the name that the extractor
looks for in sources; here it only hands the text through, and the window translates when it shows it. Figures
with units are written by ``common.domain.ages``. No state; any thread.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, tzinfo

from fleetui.common.domain.ages import UNKNOWN


def QT_TRANSLATE_NOOP(_context: str, text: str) -> str:  # noqa: N802 - the name that lupdate looks for
    return text


def plural(count: int, one: str, many: str | None = None) -> str:
    """``1 device``, ``2 devices``, ``10,000 devices``."""
    return f"{count:,} {one if count == 1 else (many or one + 's')}"


def moment(then: float, zone: tzinfo | None = None) -> str:
    """The moment itself, in local time (of ``zone``): what an age shows when pointed at."""
    if not math.isfinite(then) or then <= 0:
        return UNKNOWN
    try:
        return datetime.fromtimestamp(then, UTC).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return UNKNOWN
