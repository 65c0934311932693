"""The table of frontends: ours by module path, others' by the entry-point group ``fleetui.frontends``.

The modules named here import nothing heavy themselves; frameworks are imported when a file is read. An entry point
names a ``Frontend`` object; one whose kind we have already is passed over, and one that does not load is a warning.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points

from fleetui.workshop.errors import UnsupportedError
from fleetui.workshop.frontends.base import Frontend

log = logging.getLogger(__name__)

GROUP = "fleetui.frontends"
BUILT_IN: dict[str, str] = {
    # In the order in which they are asked: those with an unmistakable beginning first, protobuf last.
    "tflite": "fleetui.workshop.frontends.tflite:FRONTEND",
    "torch": "fleetui.workshop.frontends.torch:FRONTEND",
    "keras": "fleetui.workshop.frontends.tensorflow:KERAS",
    "savedmodel": "fleetui.workshop.frontends.tensorflow:SAVED_MODEL",
    "stablehlo": "fleetui.workshop.frontends.stablehlo:FRONTEND",
    "darknet": "fleetui.workshop.frontends.darknet:FRONTEND",
    "lightgbm": "fleetui.workshop.frontends.lightgbm:FRONTEND",
    "xgboost": "fleetui.workshop.frontends.xgboost:FRONTEND",
    "sklearn": "fleetui.workshop.frontends.sklearn:FRONTEND",
    "onnx": "fleetui.workshop.frontends.onnx:FRONTEND",
}


def _load(path: str) -> Frontend:
    module, _, name = path.partition(":")
    found: Frontend = getattr(importlib.import_module(module), name)
    return found


@cache
def _others() -> tuple[Frontend, ...]:
    found: list[Frontend] = []
    for point in entry_points(group=GROUP):
        try:
            made: Frontend = point.load()
            known = made.kind in BUILT_IN or any(made.kind == f.kind for f in found)
        except Exception as error:  # noqa: BLE001 - a stranger's module may fail in any way; ours go on
            log.warning("the frontend %s (%s) does not load: %s", point.name, point.value, error)
            continue
        if known:
            log.warning("the frontend %s (%s) is passed over: its kind is taken", point.name, point.value)
            continue
        found.append(made)
    return tuple(found)


def frontends() -> Iterator[Frontend]:
    """Others' first: they may know better than we do what a file is."""
    yield from _others()
    for path in BUILT_IN.values():
        yield _load(path)


def frontend(kind: str) -> Frontend:
    if kind in BUILT_IN:
        return _load(BUILT_IN[kind])
    for other in _others():
        if other.kind == kind:
            return other
    raise UnsupportedError(f"There is no frontend {kind!r}", f"There are: {', '.join(kinds())}")


def kinds() -> list[str]:
    return [*BUILT_IN, *(other.kind for other in _others())]
