"""Reported windows of inference statistics: kept per device, handle, variant, baseline and start.

Does not judge them; that is the station's. Keeps no state; runs on whatever thread holds the connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from fleetui.common.sketches import latency
from fleetui.store import coding, words
from fleetui.store.compiled import upsert
from fleetui.store.records import WindowRow
from fleetui.store.tables import device, inference_window, word

_KEY = ("device", "handle", "start", "variant", "baseline")
_WRITE = upsert(
    inference_window,
    (
        *_KEY,
        *("version", "length_s", "rows", "errors", "latency", "outputs", "counts", "merged"),
        *("boot", "report_seq", "received"),
    ),
    _KEY,
)


def write(connection: Connection, rows: list[WindowRow], devices: Mapping[str, int]) -> None:
    """Enter windows of devices that are known; a window that is there already is replaced."""
    if not rows:
        return
    texts = {text for row in rows for text in (row.handle, row.variant, row.baseline, row.version)}
    cleaned = {text: coding.clean(text) for text in texts}
    of = words.numbers(connection, cleaned.values())
    number = {text: of[good] for text, good in cleaned.items()}
    _WRITE.many(
        connection,
        [
            (
                devices[row.device],
                number[row.handle],
                row.start,
                number[row.variant],
                number[row.baseline],
                number[row.version],
                row.length_s,
                row.rows,
                row.errors,
                coding.pack(row.latency),
                coding.pack(row.outputs),
                row.counts,
                row.merged,
                coding.clean(row.boot),
                row.report_seq,
                row.received,
            )
            for row in rows
        ],
    )


_handle, _variant, _baseline, _version = (word.alias(name) for name in ("handle", "variant", "baseline", "version"))
_SELECT = (
    select(
        device.c.device,
        _handle.c.word,
        _variant.c.word,
        _baseline.c.word,
        _version.c.word,
        *(
            inference_window.c[name]
            for name in (
                *("start", "length_s", "rows", "errors", "latency", "outputs", "counts", "merged"),
                *("boot", "report_seq", "received"),
            )
        ),
    )
    .join_from(inference_window, device, device.c.number == inference_window.c.device)
    .join(_handle, _handle.c.number == inference_window.c.handle)
    .join(_variant, _variant.c.number == inference_window.c.variant)
    .join(_baseline, _baseline.c.number == inference_window.c.baseline)
    .join(_version, _version.c.number == inference_window.c.version)
)


def read(
    connection: Connection, device_name: str | None, handle: str | None, start: float, end: float
) -> list[WindowRow]:
    """Windows that begin in ``[start, end)``, oldest first; of all devices or all handles where that is None."""
    statement = _SELECT.where(inference_window.c.start >= start, inference_window.c.start < end)
    if device_name is not None:
        statement = statement.where(device.c.device == device_name)
    if handle is not None:
        number = words.number_of(connection, handle)
        if number is None:
            return []
        statement = statement.where(inference_window.c.handle == number)
    statement = statement.order_by(inference_window.c.start, inference_window.c.device)
    return [
        WindowRow(
            device=of,
            handle=handle_,
            variant=variant,
            baseline=baseline,
            version=version,
            start=at,
            length_s=length,
            rows=rows,
            errors=errors,
            latency=coding.unpack(latencies),
            outputs=coding.unpack(outputs),
            counts=bytes(counts),
            merged=merged,
            boot=boot,
            report_seq=report,
            received=received,
        )
        for of, handle_, variant, baseline, version, at, length, rows, errors, latencies, outputs, counts, merged,
        boot, report, received in connection.execute(statement)
    ]  # fmt: skip


def sum_latency(rows: Iterable[WindowRow]) -> npt.NDArray[np.int64]:
    """The latency histogram of all these windows together, every bin of it."""
    each = [row.latency for row in rows if row.latency]
    total = np.zeros(latency.BINS, dtype=np.int64)
    if not each:
        return total
    lengths = np.fromiter(map(len, each), dtype=np.int64, count=len(each))
    size = int(lengths.sum())
    counts = np.fromiter(chain.from_iterable(each), dtype=np.int64, count=size)
    ends = np.cumsum(lengths)
    bins = np.arange(size) - np.repeat(ends - lengths, lengths)
    np.add.at(total, np.minimum(bins, latency.BINS - 1), counts)
    return total
