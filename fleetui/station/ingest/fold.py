"""One report folded into what is known of its device: pure, the heart of the telemetry path.

``fold(known, message, now, standing)`` returns what is known afterwards and what goes into the time series, the
windows and the events. It reads no clock and touches nothing else, so a recorded history, a redelivery after a
crash and a live fleet all take the same path, and folding a report twice gives the same rows.

What it does not do: decode (``link.codec``), tell duplicates (``numbering``), judge presence (``health.presence``).

What a device says of itself follows its newest birth or beat. What operators say of it (its lifecycle, a name or
tags they gave) is not touched here: the store keeps it apart and lays it over what is reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from fleetui.common.link.messages import Beat, Birth, Event, Gone, Running, UpMessage, Window
from fleetui.common.sketches.latency import BINS, EDGES_S, quantile_ms
from fleetui.station.health.vital import judge
from fleetui.store.records import NAN, DeviceRow, EventRow, Sample, WindowRow

LIVE_S = 60.0  # a report whose own time is within this of ours was said just now
FUTURE_S = 60.0  # how far ahead a device's clock may be before its times are not believed
PAST_S = 7 * 86400.0  # how long a report may have waited somewhere


_NAMES = tuple(f.name for f in fields(DeviceRow))
_AT = {name: i for i, name in enumerate(_NAMES)}
_values = attrgetter(*_NAMES)
_EDGES_MS: tuple[float, ...] = tuple(1000.0 * edge for edge in EDGES_S.tolist())
_LOW = (_EDGES_MS[0] / 10, *_EDGES_MS)  # of each bin; the step to its end is the same for all but the outer two
_STEP = tuple(high / low for low, high in zip(_LOW, (*_EDGES_MS, 10 * _EDGES_MS[-1]), strict=True))


def quantiles_ms(counts: Sequence[int], qs: Sequence[float]) -> tuple[float, ...]:
    """``sketches.latency.quantile_ms`` for rising ``qs`` in one pass.

    With one window's few counts, numpy's calls would cost more than all the rest of folding.
    """
    if len(counts) > BINS:
        return tuple(quantile_ms(counts, q) for q in qs)
    total = sum(counts)
    if total <= 0:
        return (NAN,) * len(qs)
    found: list[float] = []
    before = 0
    wanted = qs[0] * total
    for i, count in enumerate(counts):
        if not count:
            continue
        while before + count >= wanted:
            found.append(_LOW[i] * _STEP[i] ** min(max((wanted - before) / count, 0.0), 1.0))
            if len(found) == len(qs):
                return tuple(found)
            wanted = qs[len(found)] * total
        before += count
    last = max(i for i, count in enumerate(counts) if count)  # rounding put the rest past the last count
    return (*found, *(_LOW[last] * _STEP[last] for _ in range(len(qs) - len(found))))


def changed(row: DeviceRow, changes: Mapping[str, Any]) -> DeviceRow:
    """``dataclasses.replace``, at half its cost: this is done for every report."""
    if not changes:
        return row
    values = list(_values(row))
    for name, value in changes.items():
        values[_AT[name]] = value
    return DeviceRow(*values)


@dataclass(frozen=True, slots=True)
class BeatMark:
    """What the next beat is compared with to get rates."""

    seq: int = -1
    uptime_s: float = 0.0
    rows: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """A device's row, and the little beside it that the next report needs. Lost in a restart, harmlessly."""

    row: DeviceRow
    beat: BeatMark | None = None
    birth_seq: int = -1
    window_start: float = -math.inf


@dataclass(frozen=True, slots=True)
class Standing:
    """How a report stands to the boots of its device: said by the present one, or the first of a new one."""

    present: bool = True
    turned: bool = False


@dataclass(slots=True)
class Folded:
    """What came of one report."""

    known: Known
    sample: Sample | None = None
    window: WindowRow | None = None
    event: EventRow | None = None
    heard: float = 0.0  # when the device said it, as far as can be told


def heard_at(row: DeviceRow | None, at: float, now: float) -> float:
    """When a report was said. Reports may have waited at the broker for hours; clocks of devices may be wrong.

    The device's own time counts if it is near ours, or if its clock is known to be right.
    """
    if abs(now - at) <= LIVE_S:
        return now
    if row is not None and now - PAST_S < at < now and abs(row.clock_offset) < LIVE_S / 2:
        return at
    return now


def plausible(at: float, now: float) -> float:
    """The device's own time where it can be right, else the time of receipt: where a point is drawn."""
    return at if now - PAST_S < at < now + FUTURE_S else now


def new_device(device: str, now: float, lifecycle: str) -> Known:
    return Known(DeviceRow(device, lifecycle=lifecycle, first_seen=now, last_seen=now))


def fold(known: Known, message: UpMessage, now: float, standing: Standing) -> Folded:
    """What is known after ``message``. Only news of the present boot changes how the device is shown."""
    row = known.row
    at = NAN if isinstance(message, Gone) else message.at
    heard = heard_at(row, at, now)
    changes: dict[str, Any] = {}
    if heard > row.last_seen:
        changes["last_seen"] = heard
    if isinstance(message, Gone):
        return Folded(known, heard=row.last_seen)
    if standing.turned:
        known = Known(row, BeatMark())
        changes.update(boot=message.boot, boots=row.boots + 1, booted=plausible(at, now), last_seq=message.seq)
        changes.update(rows=0, errors=0, rows_per_s=NAN, errors_per_s=NAN)
    elif standing.present and message.seq > row.last_seq:
        changes["last_seq"] = message.seq
    folded = Folded(known, heard=heard)
    if isinstance(message, Beat):
        _beat(folded, changes, message, now, standing)
    elif isinstance(message, Window):
        _window(folded, changes, message, now, standing)
    elif isinstance(message, Event):
        _event(folded, changes, message, now, standing)
    elif isinstance(message, Birth):
        _birth(folded, changes, message, standing)
    known = folded.known
    folded.known = Known(changed(known.row, changes), known.beat, known.birth_seq, known.window_start)
    return folded


def _birth(folded: Folded, changes: dict[str, Any], m: Birth, standing: Standing) -> None:
    known = folded.known
    if not standing.present or m.seq < known.birth_seq:
        return
    changes.update(
        name=m.name,
        tags=m.tags,
        agent=m.agent,
        target=m.target,
        site=m.site,
        firmware=m.firmware,
        cores=m.cores,
        memory_bytes=m.memory_bytes,
        disk_bytes=m.disk_bytes,
        queued=m.queued,
        dropped=m.dropped,
    )
    _models(changes, known.row, m.models)
    folded.known = Known(known.row, known.beat, m.seq, known.window_start)


def _beat(folded: Folded, changes: dict[str, Any], m: Beat, now: float, standing: Standing) -> None:
    known = folded.known
    row = known.row
    offset = m.at - now if math.isnan(m.clock_offset_s) else m.clock_offset_s
    mark = known.beat
    rows_per_s = errors_per_s = NAN
    newest = standing.present and (mark is None or m.seq > mark.seq)
    if newest and mark is not None:
        passed = m.uptime_s - mark.uptime_s
        if passed > 0 and m.rows >= mark.rows and m.errors >= mark.errors:
            rows_per_s = (m.rows - mark.rows) / passed
            errors_per_s = (m.errors - mark.errors) / passed
    if newest:
        changes.update(
            cpu=m.cpu,
            memory=m.memory,
            disk=m.disk,
            temperature=m.temperature,
            clock_offset=offset,
            rows=m.rows,
            errors=m.errors,
            rows_per_s=rows_per_s,
            errors_per_s=errors_per_s,
            queued=m.queued,
            dropped=m.dropped,
        )
        if m.last_error != row.last_error and (m.last_error or standing.turned):
            changes["last_error"] = m.last_error
        booted = now - m.uptime_s
        if abs(booted - changes.get("booted", row.booted)) > LIVE_S:
            changes["booted"] = booted
        if m.models:
            _models(changes, row, m.models)
        row = changed(row, changes)
        changes.clear()
        health, reasons = judge(row)
        if health != row.health or reasons != row.reasons:
            changes["health"], changes["reasons"] = health, reasons
        mark = BeatMark(m.seq, m.uptime_s, m.rows, m.errors)
        folded.known = Known(row, mark, known.birth_seq, known.window_start)
    folded.sample = Sample(
        row.device,
        plausible(m.at, now),
        (
            m.cpu,
            m.memory,
            m.disk,
            m.temperature,
            offset,
            rows_per_s,
            errors_per_s,
            row.latency_p50 if newest else NAN,
            row.latency_p99 if newest else NAN,
        ),
    )


def _window(folded: Folded, changes: dict[str, Any], m: Window, now: float, standing: Standing) -> None:
    known = folded.known
    if standing.present and m.start >= known.window_start:
        if m.latency:
            changes["latency_p50"], changes["latency_p99"] = quantiles_ms(m.latency, (0.5, 0.99))
        folded.known = Known(known.row, known.beat, known.birth_seq, m.start)
    folded.window = WindowRow(
        device=m.device,
        handle=m.handle,
        variant=m.variant,
        baseline=m.baseline,
        version=m.version,
        start=m.start,
        length_s=m.length_s,
        rows=m.rows,
        errors=m.errors,
        latency=tuple(m.latency),
        outputs=tuple(m.outputs),
        counts=m.counts,
        merged=m.merged,
        boot=m.boot,
        report_seq=m.seq,
        received=now,
    )


def _event(folded: Folded, changes: dict[str, Any], m: Event, now: float, standing: Standing) -> None:
    if standing.present and m.level >= 3 and m.text:
        changes["last_error"] = m.text
    folded.event = EventRow(
        at=plausible(m.at, now),
        kind=m.kind,
        level=m.level,
        text=m.text,
        device=m.device,
        codes=tuple(m.codes),
        subject=m.subject,
        boot=m.boot,
        report_seq=m.seq,
    )


def _models(changes: dict[str, Any], row: DeviceRow, models: Sequence[Running]) -> None:
    every = tuple((m.handle, m.model, m.version, m.state) for m in models)
    first = next((m for m in models if m.state == "active"), models[0] if models else None)
    variant, digest = (first.variant, first.digest) if first else ("", "")
    if every == row.models and variant == row.variant and digest == row.digest:
        return
    changes["models"] = every
    handle, model, version, _ = (first.handle, first.model, first.version, 0) if first else ("", "", "", 0)
    changes.update(handle=handle, model=model, version=version, variant=variant, digest=digest)
