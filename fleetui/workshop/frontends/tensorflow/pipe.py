"""Named arrays through a pipe: a line of JSON that says what follows, then their bytes. Nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from typing import IO, Any

import numpy as np

from fleetui.workshop.graph.ir import Array

LINE = 1 << 20


def send(stream: IO[bytes], arrays: Mapping[str, Array], **said: Any) -> None:
    solid = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    listed = [[name, str(array.dtype), list(array.shape)] for name, array in solid.items()]
    stream.write(json.dumps({**said, "arrays": listed}).encode() + b"\n")
    for array in solid.values():
        stream.write(array.tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays, and what was said beside them. ``EOFError`` where the other side is gone."""
    line = stream.readline(LINE)
    if not line.endswith(b"\n"):
        raise EOFError
    said = json.loads(line)
    arrays: dict[str, Array] = {}
    for name, dtype, shape in said.pop("arrays"):
        size = prod(shape) * np.dtype(dtype).itemsize
        content = stream.read(size)
        if len(content) != size:
            raise EOFError
        arrays[name] = np.frombuffer(content, dtype).reshape(shape)
    return arrays, said
