"""The nodes of a SavedModel's graph, read from the file's own bytes: importing TensorFlow for it takes seconds.

The path to them in the messages: SavedModel.meta_graphs (2) → MetaGraphDef.graph_def (2) → GraphDef.node (1), and
GraphDef.library (2) → FunctionDefLibrary.function (1) → FunctionDef.node_def (3); NodeDef has name (1) and op (2).
"""

from __future__ import annotations

from collections.abc import Iterator

from fleetui.workshop.errors import ModelError

PLACES = ((2, 2, 1), (2, 2, 2, 1, 3))
"""Field numbers from the whole message down to a node."""


def nodes(message: memoryview) -> Iterator[tuple[str, str]]:
    """(name, operator) of every node, in functions too."""
    for place in PLACES:
        for node in _at(message, place):
            found = {number: bytes(part[:400]) for number, part in _parts(node) if number in {1, 2}}
            yield tuple(found.get(n, b"").decode("utf-8", "replace") for n in (1, 2))  # type: ignore[misc]  # two


def _at(message: memoryview, place: tuple[int, ...]) -> Iterator[memoryview]:
    if not place:
        yield message
        return
    for number, part in _parts(message):
        if number == place[0]:
            yield from _at(part, place[1:])


def _parts(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields that hold bytes; the others are stepped over."""
    at, size = 0, len(message)
    while at < size:
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == 2:
            length, at = _varint(message, at)
            if length > size - at:
                raise _damaged()
            yield tag >> 3, message[at : at + length]
            at += length
        elif wire == 0:
            _, at = _varint(message, at)
        elif wire in {1, 5}:
            at += 8 if wire == 1 else 4
        else:
            raise _damaged()


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _damaged()


def _damaged() -> ModelError:
    return ModelError("The graph of the SavedModel is damaged", "Export it again: model.export('folder')")
