"""Tensors of a model file as numpy arrays: element types, size checks, and data kept in files beside the model.

Nothing outside the model's own folder is ever opened, and no array is made larger than the bytes that are there.
"""

from __future__ import annotations

from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from fleetui.workshop.errors import HostileModel, LimitError, ModelError
from fleetui.workshop.graph.ir import Array, numpy_dtype

MODEL_BYTES = (1 << 31) - 1
"""Protobuf cannot hold more in one message."""
EXTERNAL_BYTES = 64 << 30
"""All external data of a model together."""
EXPORT = "Export the model again"

_NAMES: dict[int, str] = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16", 21: "uint4", 22: "int4",
}  # fmt: skip
_TITLES: dict[int, str] = {
    0: "undefined", 8: "string", 14: "complex64", 15: "complex128", 17: "float8e4m3fn", 18: "float8e4m3fnuz",
    19: "float8e5m2", 20: "float8e5m2fnuz", 23: "float4e2m1", 24: "float8e8m0", 25: "uint2", 26: "int2",
    27: "float6e2m3", 28: "float6e3m2",
}  # fmt: skip
_RAW: frozenset[str] = frozenset({"uint4", "int4"})


def dtype_name(code: int) -> str:
    """Our name of an element type, empty where we do not compute with it."""
    return _NAMES.get(code, "")


def dtype_title(code: int) -> str:
    """A name for messages, for every type."""
    return _NAMES.get(code) or _TITLES.get(code, f"number {code}")


def dtype_code(name: str) -> int:
    return next(code for code, known in _NAMES.items() if known == name)


def tensor_bytes(tensor: Any) -> int:
    """How many bytes the declared shape needs, or −1 where the element type has no fixed size for us."""
    name = dtype_name(tensor.data_type)
    count = prod(int(d) for d in tensor.dims)
    if not name:
        return -1
    if name in _RAW:
        return (count + 1) // 2
    return count * numpy_dtype(name).itemsize


def to_array(tensor: Any, folder: Path | None, name: str = "") -> Array:
    """``folder``: where external data may lie; ``None`` forbids it."""
    title = name or tensor.name or "a constant"
    kind = dtype_name(tensor.data_type)
    if not kind:
        raise ModelError(f"'{title}' holds {dtype_title(tensor.data_type)}, which we do not compute with")
    shape = tuple(int(d) for d in tensor.dims)
    if any(d < 0 for d in shape):
        raise ModelError(f"'{title}' says it has the shape {list(shape)}", EXPORT)
    need = tensor_bytes(tensor)
    if tensor.HasField("segment"):
        raise ModelError(f"'{title}' is stored in segments, which ONNX never put to use", EXPORT)
    if tensor.data_location == 1:
        return _external(tensor, folder, title, kind, shape, need)
    if tensor.HasField("raw_data"):
        return _raw(tensor.raw_data, kind, shape, need, title)
    return _typed(tensor, kind, shape, title)


def _raw(data: bytes | memoryview, kind: str, shape: tuple[int, ...], need: int, title: str) -> Array:
    if len(data) != need:
        raise ModelError(
            f"'{title}' has the shape {list(shape)} and needs {need:,} bytes, but holds {len(data):,}", EXPORT
        )
    if kind in _RAW:
        return _nibbles(np.frombuffer(data, np.uint8), kind, shape)
    return (
        np.frombuffer(data, numpy_dtype(kind).newbyteorder("<"))
        .astype(numpy_dtype(kind), copy=False)
        .reshape(shape)
    )


def _nibbles(packed: Array, kind: str, shape: tuple[int, ...]) -> Array:
    """Two 4-bit integers in each byte, the first in its low half."""
    pairs = np.stack([packed & 15, packed >> 4], axis=-1).reshape(-1)[: prod(shape)]
    if kind == "int4":
        pairs = ((pairs.astype(np.int8) + 8) & 15) - 8
    return pairs.astype(numpy_dtype(kind)).reshape(shape)


def _typed(tensor: Any, kind: str, shape: tuple[int, ...], title: str) -> Array:
    """Numbers in protobuf's own repeated fields. Small types travel in ``int32_data``, halves as their bits."""
    field = {
        "float32": "float_data",
        "float64": "double_data",
        "int64": "int64_data",
        "uint64": "uint64_data",
        "uint32": "uint64_data",
    }.get(kind, "int32_data")
    numbers = getattr(tensor, field)
    count = prod(shape)
    have = len(numbers) * (2 if kind in _RAW else 1)
    if not (have == count or (kind in _RAW and have == count + 1)):
        raise ModelError(
            f"'{title}' has the shape {list(shape)} and needs {count:,} numbers, but holds {have:,}", EXPORT
        )
    if kind in _RAW:
        return _nibbles(np.asarray(numbers, np.int64).astype(np.uint8), kind, shape)
    if kind in {"float16", "bfloat16"}:
        return np.asarray(numbers, np.int64).astype(np.uint16).view(numpy_dtype(kind)).reshape(shape)
    wide = {"float_data": np.float32, "double_data": np.float64, "uint64_data": np.uint64}.get(field, np.int64)
    return np.asarray(numbers, wide).astype(numpy_dtype(kind)).reshape(shape)


# ---------------------------------------------------------------- external data


def external_place(tensor: Any) -> tuple[str, int, int]:
    """Location, offset, length (−1: to the end) as the file states them."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    title = tensor.name or "a constant"
    try:
        offset, length = int(said.get("offset") or 0), int(said.get("length") or -1)
    except ValueError:
        raise ModelError(f"'{title}' has external data at an offset that is not a number", EXPORT) from None
    if offset < 0 or length < -1:
        raise ModelError(f"'{title}' has external data at a negative offset", EXPORT)
    return said.get("location", ""), offset, length


def external_file(location: str, folder: Path | None, title: str) -> Path:
    """The file beside the model that ``location`` names, or an error: never anything outside the folder."""
    if folder is None:
        raise HostileModel(f"'{title}' is a constant inside the graph and points at a file ('{location}')", EXPORT)
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    if (
        not location
        or "\0" in location
        or posix.is_absolute()
        or windows.is_absolute()
        or windows.drive
        or windows.root
        or ".." in {*posix.parts, *windows.parts}
    ):
        raise HostileModel(
            f"'{title}' keeps its data in '{location}', which is not a file beside the model",
            "Put the data into the model's own folder and name it without a path",
        )
    home = folder.resolve()
    path = (home / location).resolve()
    if not path.is_relative_to(home):
        raise HostileModel(
            f"'{title}' keeps its data in '{location}', a link that leads out of the model's folder",
            "Put the file itself into the model's folder",
        )
    if not path.is_file():
        raise ModelError(
            f"'{title}' keeps its data in '{location}', which is not there", "Copy it into the model's folder"
        )
    return path


def _external(tensor: Any, folder: Path | None, title: str, kind: str, shape: tuple[int, ...], need: int) -> Array:
    location, offset, length = external_place(tensor)
    path = external_file(location, folder, title)
    size = path.stat().st_size
    if length < 0:
        length = need
    if length != need:
        raise ModelError(
            f"'{title}' of shape {list(shape)} needs {need:,} bytes, but claims {length:,} in '{location}'",
            EXPORT,
        )
    if offset + length > size:
        raise ModelError(
            f"'{title}' ends at byte {offset + length:,} of '{location}', which has {size:,}",
            "Copy the file again: it is cut off",
        )
    if need == 0:
        return np.zeros(shape, numpy_dtype(kind))
    if kind in _RAW:
        return _nibbles(np.memmap(path, np.uint8, "r", offset, (need,)), kind, shape)
    # Mapped, not read: weights of any size cost address space only.
    return np.asarray(np.memmap(path, numpy_dtype(kind), "r", offset, shape or (1,))).reshape(shape)


def external_total(tensors: list[Any], folder: Path) -> int:
    """Bytes of all files the model's tensors lie in; raises where they are too many."""
    files: dict[Path, int] = {}
    for tensor in tensors:
        if tensor.data_location == 1:
            location, _, _ = external_place(tensor)
            path = external_file(location, folder, tensor.name or "a constant")
            files[path] = path.stat().st_size
    total = sum(files.values())
    if total > EXTERNAL_BYTES:
        raise LimitError(
            f"The model's external data has {total / 2**30:.0f} GiB; the most is {EXTERNAL_BYTES >> 30} GiB",
            "Compile a smaller model",
        )
    return total
