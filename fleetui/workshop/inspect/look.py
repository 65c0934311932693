"""Inspects a file: finds its frontend, and has that look at it in a limited process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fleetui.workshop.frontends.base import Report
from fleetui.workshop.inspect import report, sandbox
from fleetui.workshop.inspect.limits import Limits, size_of
from fleetui.workshop.inspect.sniff import sniff
from fleetui.workshop.options import InputSpec


def inspect_file(
    path: Path, inputs: Sequence[InputSpec] = (), limits: Limits | None = None, *, kind: str = ""
) -> Report:
    """Raises an ``OperatorError`` with a sentence for everything that is no sound model of a kind we take."""
    limits = limits or Limits()
    path = Path(path)
    size = size_of(path, limits)
    kind = kind or sniff(path, limits).kind
    arguments = {
        "kind": kind,
        "path": str(path.absolute()),
        "inputs": [[spec.name, list(spec.shape), spec.dtype] for spec in inputs],
    }
    made = sandbox.call("fleetui.workshop.inspect.look:_inside", arguments, limits, size=size, subject=path.name)
    found = report.from_json(made)
    found.bytes = found.bytes or size
    return found


def _inside(kind: str, path: str, inputs: list[Any]) -> dict[str, Any]:
    """What the limited process does."""
    from fleetui.workshop.frontends import table

    specs = [InputSpec(name, tuple(shape), dtype) for name, shape, dtype in inputs]
    return report.to_json(table.frontend(kind).inspect(Path(path), specs))
