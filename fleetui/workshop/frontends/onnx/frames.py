"""Where a node of a model stands, and its attributes as plain Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleetui.workshop.errors import ModelError, UnsupportedError
from fleetui.workshop.frontends.onnx.tensors import EXPORT

POISON = object()
"""In the place of what a refused node would have made."""


class Poisoned(Exception):  # noqa: N818 - not an error of anybody's: a node downstream of one that was refused
    pass


@dataclass(slots=True)
class Frame:
    """Where a node stands: names known there, the operator sets, and attributes bound by a function's call."""

    names: dict[str, Any]
    opsets: dict[str, int]
    outer: Frame | None = None
    bound: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""
    depth: int = 0

    def find(self, name: str) -> tuple[dict[str, Any], Any] | None:
        frame: Frame | None = self
        while frame is not None:
            if name in frame.names:
                return frame.names, frame.names[name]
            frame = frame.outer
        return None


class Pending:
    """A weight nobody has used yet."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor


def plain(attribute: Any, frame: Frame, label: str) -> Any:
    """Plain Python; tensors and graphs stay messages. ``None`` where a function's caller left it out."""
    if attribute.ref_attr_name:
        return frame.bound.get(attribute.ref_attr_name)
    kind = attribute.type or _guess(attribute)
    if kind == 1:
        return float(attribute.f)
    if kind == 2:
        return int(attribute.i)
    if kind == 3:
        return attribute.s.decode("utf-8", "replace")
    if kind == 4:
        return attribute.t
    if kind == 5:
        return attribute.g
    if kind == 6:
        return [float(f) for f in attribute.floats]
    if kind == 7:
        return [int(i) for i in attribute.ints]
    if kind == 8:
        return [s.decode("utf-8", "replace") for s in attribute.strings]
    if kind == 9:
        return list(attribute.tensors)
    if kind == 10:
        return list(attribute.graphs)
    if kind in {13, 14}:
        return attribute.tp if kind == 13 else list(attribute.type_protos)
    if kind in {11, 12}:
        raise UnsupportedError(f"'{label}' holds a sparse tensor, which we do not read", "Export it dense")
    raise ModelError(f"'{label}' has an attribute '{attribute.name}' of no known kind", EXPORT)


def _guess(attribute: Any) -> int:
    """Old files leave the type out."""
    for field_name, kind in (("f", 1), ("i", 2), ("s", 3), ("t", 4), ("g", 5)):
        if attribute.HasField(field_name):
            return kind
    for field_name, kind in (("floats", 6), ("ints", 7), ("strings", 8), ("tensors", 9), ("graphs", 10)):
        if len(getattr(attribute, field_name)):
            return kind
    return 7
