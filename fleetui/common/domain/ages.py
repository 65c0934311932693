"""Figures as people read and write them: ages, durations, sizes, shares, rates, temperatures.

Formatting keeps two or three significant digits and always names the unit; what is not known, or beyond all sense,
is a dash. Reading takes what the filter language allows (``80%``, ``20ms``, ``1h30m``, ``4GiB``). Neither knows Qt
or a locale: the decimal mark is a point. No I/O, no state; callable from any thread.
"""

from __future__ import annotations

import math
import re
from enum import StrEnum

UNKNOWN = "–"
NEVER = "never"

_MINUTE, _HOUR, _DAY, _WEEK, _YEAR = 60.0, 3600.0, 86400.0, 7 * 86400.0, 365 * 86400.0


class Unit(StrEnum):
    """What a number in a column counts; ``parse`` turns what people write into it."""

    NONE = ""
    SHARE = "%"  # the column holds 0..1, people write and read per cent
    MILLISECONDS = "ms"
    SECONDS = "s"
    CELSIUS = "°C"
    BYTES = "B"
    PER_SECOND = "/s"


_DURATIONS: dict[str, float] = {
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "m": _MINUTE,
    "min": _MINUTE,
    "h": _HOUR,
    "d": _DAY,
    "w": _WEEK,
    "y": _YEAR,
}
_MULTIPLES: dict[str, float] = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_SIZES: dict[str, float] = {
    "": 1.0,
    "b": 1.0,
    "k": 1e3,
    "kb": 1e3,
    "m": 1e6,
    "mb": 1e6,
    "g": 1e9,
    "gb": 1e9,
    "t": 1e12,
    "tb": 1e12,
    "kib": 2.0**10,
    "mib": 2.0**20,
    "gib": 2.0**30,
    "tib": 2.0**40,
}
_RATES: dict[str, float] = {
    "": 1.0,
    "/s": 1.0,
    "/sec": 1.0,
    "/m": 1 / _MINUTE,
    "/min": 1 / _MINUTE,
    "/h": 1 / _HOUR,
    "/d": 1 / _DAY,
}
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?", re.ASCII)
_PAIR = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-zµμ]+)\s*")
_EXAMPLES: dict[Unit, str] = {
    Unit.NONE: "42 or 1.5k",
    Unit.SHARE: "80%",
    Unit.MILLISECONDS: "20ms or 1.5s",
    Unit.SECONDS: "30s, 5m, 2h or 1d",
    Unit.CELSIUS: "60 or 60°C",
    Unit.BYTES: "512MB or 4GiB",
    Unit.PER_SECOND: "10, 10/s or 5/min",
}


def example(unit: Unit) -> str:
    """How to write one."""
    return _EXAMPLES[unit]


def parse(text: str, unit: Unit) -> float:
    """The number that ``text`` means in a column of ``unit``. Raises ValueError with a reason for people.

    Without a unit it is taken in the one that people see: per cent, ms, °C, bytes, per second. Seconds are the
    exception: "5" may be minutes in the writer's mind, so a duration needs its unit (nought does not).
    """
    folded = text.strip().casefold()
    if unit is Unit.SECONDS:
        value = _seconds(folded)
    else:
        number = _NUMBER.match(folded)
        if number is None:
            raise ValueError("not a number")
        value = float(number.group())
        suffix = folded[number.end() :].strip()
        if unit is Unit.MILLISECONDS:
            value *= 1000.0 * _factor(suffix or "ms", _DURATIONS)
        elif unit is Unit.SHARE:
            if suffix not in {"", "%"}:
                raise ValueError(f"{suffix!r} is not per cent")
            value /= 100.0
        elif unit is Unit.CELSIUS:
            value = _celsius(value, suffix)
        elif unit is Unit.BYTES:
            value *= _factor(suffix, _SIZES)
        elif unit is Unit.PER_SECOND:
            multiple, mark, per = suffix.partition("/")
            value *= _factor(multiple, _MULTIPLES) * _factor(mark + per, _RATES)
        else:
            value *= _factor(suffix, _MULTIPLES)
    if not math.isfinite(value):
        raise ValueError("too large")
    return value


def _factor(suffix: str, table: dict[str, float]) -> float:
    try:
        return table[suffix]
    except KeyError:
        raise ValueError(f"{suffix!r} is no unit of it") from None


def _celsius(value: float, suffix: str) -> float:
    suffix = suffix.removeprefix("°")
    if suffix in {"", "c"}:
        return value
    if suffix == "f":
        return (value - 32.0) / 1.8
    raise ValueError(f"{suffix!r} is no unit of temperature")


def _seconds(folded: str) -> float:
    sign = 1.0
    if folded[:1] in {"-", "+"}:
        sign, folded = -1.0 if folded[0] == "-" else 1.0, folded[1:]
    total, at = 0.0, 0
    while at < len(folded):
        pair = _PAIR.match(folded, at)
        if pair is None:
            break
        total += float(pair.group(1)) * _factor(pair.group(2), _DURATIONS)
        at = pair.end()
    if at == len(folded) and at:
        return sign * total
    number = _NUMBER.fullmatch(folded)
    if number is None:
        raise ValueError("not a length of time")
    if float(folded) == 0.0:
        return 0.0
    raise ValueError("a length of time needs its unit")


def write(value: float, unit: Unit) -> str:
    """The shortest text that ``parse`` reads back as ``value``: for building filters, not for showing."""
    if unit is Unit.SHARE:
        # Dividing by 100 again need not give the same float; then more digits are tried.
        for digits in range(1, 18):
            text = f"{value * 100:.{digits}g}"
            if float(text) / 100.0 == value:
                return f"{_plain(text)}%"
        return f"{_plain(repr(value * 100))}%"
    if unit is Unit.SECONDS:
        if value == 0:
            return "0s"
        for name, factor in (("d", _DAY), ("h", _HOUR), ("m", _MINUTE)):
            if value % factor == 0:
                return f"{value / factor:.0f}{name}"
        return f"{_plain(_fixed(value))}s"
    return _plain(repr(float(value))) + {Unit.MILLISECONDS: "ms", Unit.BYTES: "B"}.get(unit, "")


def _plain(text: str) -> str:
    return text.removesuffix(".0")


def _fixed(value: float) -> str:
    """Without an exponent: ``e`` and a unit's letters do not mix."""
    text = repr(value)
    return f"{value:.20f}".rstrip("0") if "e" in text else text


# ---------------------------------------------------------------- showing

_SENSE = 1e15


def _sane(value: float) -> bool:
    """Fit to be shown: a number, and not one of 300 digits that a device made up."""
    return abs(value) < _SENSE


def _digits(value: float) -> str:
    """Three significant digits, no exponent: ``0.035``, ``1.2``, ``12``, ``340``."""
    size = abs(value)
    if size >= 99.5:
        return f"{value:.0f}"
    if size >= 9.95:
        return f"{value:.1f}".removesuffix(".0")
    if size >= 0.995:
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{value:.3f}".rstrip("0").rstrip(".") if size >= 0.0005 else "0"


def age(seconds: float) -> str:
    """How long ago, in one unit, rounded down: ``45 s``, ``3 min``, ``2 h``, ``5 d``; never, where not known.

    A unit is left only at twice the next one, so the figure is never off by more than half.
    """
    if not _sane(seconds):
        return NEVER
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return "now"
    for limit, factor, name in (
        (2 * _MINUTE, 1.0, "s"),
        (2 * _HOUR, _MINUTE, "min"),
        (2 * _DAY, _HOUR, "h"),
        (2 * _WEEK, _DAY, "d"),
        (2 * _YEAR, _WEEK, "wk"),
    ):
        if seconds < limit:
            return f"{int(seconds // factor)} {name}"
    return f"{int(seconds // _YEAR)} y"


def age_of(moment: float, now: float) -> str:
    """The age of a moment in Unix seconds; a moment of nought has never been."""
    return NEVER if not moment else age(now - moment)


def duration(seconds: float) -> str:
    """A length of time in at most two units: ``18 µs``, ``350 ms``, ``12 s``, ``1 h 05 min``, ``3 d 4 h``."""
    if not _sane(seconds):
        return UNKNOWN
    sign = "-" if seconds < 0 else ""
    seconds = abs(seconds)
    if seconds < 59.95:
        if seconds == 0:
            return "0 s"
        for factor, name in ((1e6, "µs"), (1e3, "ms")):
            if seconds * factor < 999.5:
                return f"{sign}{_digits(seconds * factor)} {name}"
        return f"{sign}{_digits(seconds)} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{sign}{whole // 60} min {whole % 60:02d} s" if whole % 60 else f"{sign}{whole // 60} min"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{sign}{minutes // 60} h {minutes % 60:02d} min" if minutes % 60 else f"{sign}{minutes // 60} h"
    hours = round(seconds / 3600)
    return f"{sign}{hours // 24} d {hours % 24} h" if hours % 24 else f"{sign}{hours // 24} d"


def milliseconds(value: float) -> str:
    """A latency: ``0.035 ms``, ``12.4 ms``, ``1.2 s``."""
    if not _sane(value):
        return UNKNOWN
    return f"{_digits(value)} ms" if abs(value) < 999.5 else f"{_digits(value / 1000)} s"


def size(count: float) -> str:
    """Bytes in binary multiples: ``512 B``, ``3.7 GiB``."""
    if not _sane(count):
        return UNKNOWN
    value = float(count)
    for name in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1023.5:
            return f"{_digits(value)} {name}"
        value /= 1024.0
    return f"{_digits(value)} TiB"


def percent(share: float) -> str:
    """A share of one in per cent: ``81 %``, ``0.4 %``. Never rounded up to a full 100 or down to nothing."""
    if not _sane(share):
        return UNKNOWN
    value = share * 100.0
    if 99.0 < value < 100.0:
        return f"{math.floor(value * 10 + 1e-9) / 10:.1f} %"
    if 0.0 < value < 0.1:
        return "< 0.1 %"
    return f"{value:.1f} %".replace(".0 %", " %") if abs(value) < 9.95 else f"{value:.0f} %"


def rate(per_second: float) -> str:
    """Events in time, in the unit that leaves a readable figure: ``340/s``, ``6/min``, ``2/h``."""
    if not _sane(per_second):
        return UNKNOWN
    if per_second == 0:
        return "0/s"
    for factor, name in ((1.0, "/s"), (_MINUTE, "/min"), (_HOUR, "/h")):
        if abs(per_second) * factor >= 1:
            return f"{_large(per_second * factor)}{name}"
    return f"{_digits(per_second * _DAY)}/d"


def _large(value: float) -> str:
    for factor, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= factor:
            return f"{_digits(value / (1e3 if name == 'k' else factor))}{name}"
    return _digits(value)


def temperature(celsius: float) -> str:
    return f"{celsius:.0f} °C" if _sane(celsius) else UNKNOWN


def offset(seconds: float) -> str:
    """A clock's error with its sign: ``+1.2 s``, ``-3 min``."""
    if not _sane(seconds):
        return UNKNOWN
    return duration(seconds) if seconds < 0 else f"+{duration(seconds)}"


def count(value: float) -> str:
    """A whole number with its thousands set apart: ``12 345``."""
    return f"{value:,.0f}".replace(",", "\u202f") if _sane(value) else UNKNOWN


def show(value: float, unit: Unit) -> str:
    """A column's value in the words of its unit."""
    if unit is Unit.SHARE:
        return percent(value)
    if unit is Unit.MILLISECONDS:
        return milliseconds(value)
    if unit is Unit.SECONDS:
        return duration(value)
    if unit is Unit.CELSIUS:
        return temperature(value)
    if unit is Unit.BYTES:
        return size(value)
    if unit is Unit.PER_SECOND:
        return rate(value)
    if not _sane(value):
        return UNKNOWN
    return count(value) if value == int(value) else _digits(value)
