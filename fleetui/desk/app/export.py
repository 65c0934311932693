"""What a table shows, as CSV or JSON: the rows of the current filter, in their order, in the chosen columns.

Values leave as they are, not as they are drawn: seconds since 1970 become ISO times, shares stay 0 to 1, what is
not known is empty (CSV) or null (JSON). The rows are gathered on the main thread, written on a worker's.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from fleetui.common.domain.errors import ConfigError
from fleetui.desk.app.columns import MOMENTS, DeviceTable
from fleetui.desk.app.rowsets import Rows
from fleetui.desk.app.shown import ShownColumn, cell_text, cell_value


class Form(StrEnum):
    CSV = "csv"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Extract:
    """Rows taken out of the table, ready to be written on another thread."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def extract(table: DeviceTable, columns: Sequence[ShownColumn], rows: Rows | Iterable[int]) -> Extract:
    """``rows`` in their order. The device's id is always there: it is what the others are about."""
    wanted = list(columns)
    if all(column.name != "id" for column in wanted):
        from fleetui.desk.app.shown import shown_column

        identity = shown_column("id")
        assert identity is not None
        wanted.insert(0, identity)
    taken = tuple(tuple(_plain(cell_value(table, c, row), c) for c in wanted) for row in (int(r) for r in rows))
    return Extract(tuple(column.name for column in wanted), taken)


def _plain(value: Any, column: ShownColumn) -> Any:
    if isinstance(value, float):
        if column.column in MOMENTS:
            return datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return int(value) if value == math.trunc(value) and abs(value) < 1e15 else value
    return value


def to_csv(extracted: Extract) -> str:
    """RFC 4180. A cell that a spreadsheet would take for a formula is quoted with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(extracted.columns)
    for row in extracted.rows:
        writer.writerow(["" if cell is None else _harmless(cell) for cell in row])
    return out.getvalue()


def _harmless(cell: Any) -> Any:
    # Device names come from devices, and "=HYPERLINK(…)" is a name too.
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in {"=", "+", "-", "@", "\t", "\r"} else cell


def to_json(extracted: Extract) -> str:
    rows = [dict(zip(extracted.columns, row, strict=True)) for row in extracted.rows]
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"


def write(extracted: Extract, path: Path, form: Form) -> int:
    """Writes beside and renames into place; how many rows there are."""
    text = to_csv(extracted) if form is Form.CSV else to_json(extracted)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # csv brings its own line ends
        fresh.write_text(text, encoding="utf-8", newline="")
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}", "Choose another place or free some space"
        ) from None
    return len(extracted.rows)


def as_text(table: DeviceTable, columns: Sequence[ShownColumn], rows: Iterable[int], now: float) -> str:
    """For the clipboard: as it is drawn, separated by tabs, with a heading."""
    lines = ["\t".join(column.title for column in columns)]
    lines += ["\t".join(cell_text(table, column, row, now) for column in columns) for row in rows]
    return "\n".join(lines)
