"""Words for people: marking them for translation, and writing numbers, sizes, spans and ages.

The logic knows no Qt, but its words are translated by Qt. ``QT_TRANSLATE_NOOP`` is the name that the extractor
looks for in sources; here it only hands the text through, and the window translates when it shows it. The
``format_*`` functions write English with plain units; they hold no state and run on any thread.
"""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime, tzinfo

DASH = "–"  # what stands where nothing is known


def QT_TRANSLATE_NOOP(_context: str, text: str) -> str:  # noqa: N802 - the name that lupdate looks for
    return text


def plural(count: int, one: str, many: str | None = None) -> str:
    """``1 device``, ``2 devices``, ``10,000 devices``."""
    return f"{count:,} {one if count == 1 else (many or one + 's')}"


def format_number(value: float, digits: int = 1) -> str:
    """Grouped thousands; ``digits`` decimals below 100, none above 1000."""
    if not math.isfinite(value):
        return DASH
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.{min(digits, 1)}f}"
    return f"{value:.{digits}f}"


def format_share(value: float) -> str:
    """A share of one as a percentage."""
    return f"{100 * value:.0f} %" if math.isfinite(value) else DASH


def format_bytes(value: float) -> str:
    """Binary units: KiB, MiB, GiB."""
    if not math.isfinite(value) or value <= 0:
        return DASH
    size, unit = float(value), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"


def format_milliseconds(value: float) -> str:
    """Latency with the unit that keeps it readable: µs, ms or s."""
    if not math.isfinite(value):
        return DASH
    if value < 1:
        return f"{value * 1000:.0f} µs"
    if value < 10:
        return f"{value:.2f} ms"
    if value < 1000:
        return f"{value:.0f} ms"
    return f"{value / 1000:.1f} s"


_STEPS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def format_span(seconds: float) -> str:
    """A length of time in its largest fitting unit, with one more below it: ``42 s``, ``3 min``, ``5 h 20 min``."""
    if not math.isfinite(seconds):
        return DASH
    seconds = abs(seconds)
    if seconds < 60:
        return f"{seconds:.0f} s"
    for (size, unit), (below, unit_below) in itertools.pairwise(_STEPS):
        if seconds >= size:
            whole, rest = divmod(int(seconds), int(size))
            small = rest // int(below)
            return (
                f"{whole} {unit} {small} {unit_below}" if small and whole < 10 and size > 60 else f"{whole} {unit}"
            )
    return f"{seconds:.0f} s"


def format_age(then: float, now: float) -> str:
    """How long ago: ``now``, ``42 s``, ``3 min``, ``2 d 4 h``. A moment that has not come yet reads ``in 5 s``."""
    if not math.isfinite(then) or then <= 0:
        return "never"
    age = now - then
    if age < -1.5:
        return f"in {format_span(-age)}"
    return "now" if age < 1.5 else format_span(age)


def format_moment(then: float, zone: tzinfo | None = None) -> str:
    """The moment itself, in local time: what an age shows when pointed at."""
    if not math.isfinite(then) or then <= 0:
        return DASH
    moment = datetime.fromtimestamp(then, UTC)
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
