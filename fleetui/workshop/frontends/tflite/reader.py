"""Reads a TFLite flatbuffer into plain data: tensors with their quantisation, operators with their options.

Every index is checked here, so that the importer can rely on them. Weights are views of the mapped file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.workshop.errors import MissingExtra, ModelError, UnsupportedError
from fleetui.workshop.graph.ir import Array

DTYPES: dict[int, str] = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 5: "string", 6: "bool", 7: "int16",
    8: "complex64", 9: "int8", 10: "float64", 11: "complex128", 12: "uint64", 13: "resource", 14: "variant",
    15: "uint32", 16: "uint16", 17: "int4", 18: "bfloat16",
}  # fmt: skip
MANY = 1 << 20


@dataclass(frozen=True, slots=True)
class Quantisation:
    """``real = scale · (code - zero)``; of length 1, or one for each index along ``axis``."""

    scale: Array
    zero: Array
    axis: int

    @property
    def per_tensor(self) -> bool:
        return self.scale.size == 1

    def same(self, other: Quantisation | None) -> bool:
        return (
            other is not None
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero, other.zero)
            and (self.per_tensor or self.axis == other.axis)
        )


@dataclass(slots=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    dtype: str
    data: Array | None
    quantisation: Quantisation | None
    variable: bool = False


@dataclass(slots=True)
class Operator:
    """``options``: the generated class's object, or ``None``. ``inputs`` may hold -1 for one left out."""

    name: str
    inputs: list[int]
    outputs: list[int]
    options: Any
    place: int

    def opt(self, name: str, default: Any = 0) -> Any:
        return default if self.options is None else getattr(self.options, name)()


@dataclass(slots=True)
class Model:
    tensors: list[Tensor]
    operators: list[Operator]
    inputs: list[int]
    outputs: list[int]
    names: dict[int, str] = field(default_factory=dict)
    """Names of the signature for inputs and outputs, where there is one."""
    description: str = ""
    graphs: list[Model] = field(default_factory=list)
    """All of the file's graphs, this one first: loops and branches name others by their place."""

    def name(self, index: int) -> str:
        return self.names.get(index) or self.tensors[index].name or f"tensor_{index}"


def schema() -> Any:
    try:
        import tflite
    except ImportError as error:
        raise MissingExtra("A TFLite model", "tflite") from error
    return tflite


def read(path: Path) -> Model:
    lib = schema()
    raw = np.memmap(path, np.uint8, "r")
    if raw.size < 16:
        raise ModelError(f"{path.name} is too short for a model", "Copy the file again")
    root = lib.Model.GetRootAs(raw, 0)
    if _length(root.SubgraphsLength()) < 1:
        raise ModelError(f"{path.name} holds no graph", "Export the model again")
    buffers = [root.Buffers(i) for i in range(_length(root.BuffersLength()))]
    names = {value: key for key, value in vars(lib.BuiltinOperator).items() if isinstance(value, int)}
    codes = [_code(root.OperatorCodes(i), names) for i in range(_length(root.OperatorCodesLength()))]
    graphs = [_graph(lib, root.Subgraphs(i), buffers, codes, raw) for i in range(root.SubgraphsLength())]
    model = graphs[0]
    model.description = _text(root.Description())
    for graph in graphs:
        graph.graphs = graphs
    for place in range(_length(root.SignatureDefsLength())):
        signature = root.SignatureDefs(place)
        if signature.SubgraphIndex() == 0:
            model.names = dict(_signature(signature, model))
            break
    return model


def _graph(lib: Any, graph: Any, buffers: list[Any], codes: list[str], raw: Array) -> Model:
    tensors = [_tensor(graph.Tensors(i), buffers, raw) for i in range(_length(graph.TensorsLength()))]
    operators = [
        _operator(lib, graph.Operators(i), codes, len(tensors), i) for i in range(_length(graph.OperatorsLength()))
    ]
    made = Model(
        tensors,
        operators,
        _indices(graph.InputsAsNumpy(), len(tensors)),
        _indices(graph.OutputsAsNumpy(), len(tensors)),
    )
    if min([*made.inputs, *made.outputs], default=0) < 0:
        raise ModelError("The file names no tensor for an input or output", "Export the model again")
    return made


def _length(count: int) -> int:
    if not 0 <= count <= MANY:
        raise ModelError("The file holds an absurd number of parts", "It is damaged: copy it again")
    return int(count)


def _text(raw: Any) -> str:
    return bytes(raw).decode("utf-8", "replace") if raw else ""


def _indices(raw: Any, count: int) -> list[int]:
    found = [] if isinstance(raw, int) else [int(i) for i in raw]
    if any(not -1 <= i < count for i in found):
        raise ModelError("An operator uses a tensor that does not exist", "The file is damaged: copy it again")
    return found


def _signature(signature: Any, model: Model) -> Iterator[tuple[int, str]]:
    """Only if every input and output has a name of its own."""
    pairs: list[tuple[int, str]] = []
    for count, get, wanted in (
        (signature.InputsLength(), signature.Inputs, model.inputs),
        (signature.OutputsLength(), signature.Outputs, model.outputs),
    ):
        maps = [get(i) for i in range(_length(count))]
        mine = [(int(m.TensorIndex()), _text(m.Name())) for m in maps]
        if sorted(i for i, _ in mine) != sorted(wanted) or len({n for _, n in mine}) != len(mine):
            return
        pairs += mine
    if len({name for _, name in pairs}) == len(pairs):
        yield from pairs


def _code(code: Any, names: dict[int, str]) -> str:
    number = max(int(code.BuiltinCode()), int(code.DeprecatedBuiltinCode()))
    if names.get(number) == "CUSTOM":
        return f"CUSTOM:{_text(code.CustomCode())}"
    return names.get(number, f"operator {number}")


def _operator(lib: Any, raw: Any, codes: list[str], count: int, place: int) -> Operator:
    code = int(raw.OpcodeIndex())
    if not 0 <= code < len(codes):
        raise ModelError("An operator has no kind", "The file is damaged: copy it again")
    options = None
    table = raw.BuiltinOptions()
    if table is not None:
        kinds = {value: key for key, value in vars(lib.BuiltinOptions).items() if isinstance(value, int)}
        maker = getattr(lib, kinds.get(int(raw.BuiltinOptionsType()), ""), None)
        if maker is not None:
            options = maker()
            options.Init(table.Bytes, table.Pos)
    return Operator(
        codes[code], _indices(raw.InputsAsNumpy(), count), _indices(raw.OutputsAsNumpy(), count), options, place
    )


def _tensor(raw: Any, buffers: list[Any], file: Array) -> Tensor:
    dtype = DTYPES.get(int(raw.Type()), "unknown")
    shape = _sizes(raw.ShapeAsNumpy())
    signature = _sizes(raw.ShapeSignatureAsNumpy())
    name = _text(raw.Name())
    index = int(raw.Buffer())
    if not 0 <= index < max(1, len(buffers)):
        raise ModelError(f"The tensor {name!r:.80} has no buffer", "The file is damaged: copy it again")
    data = None
    if index > 0:
        data = _data(buffers[index], file, shape, dtype, name)
    if raw.Sparsity() is not None and data is not None:
        raise UnsupportedError(f"The tensor {name} is sparse", "Convert the model without sparsity")
    return Tensor(
        name, shape, signature if len(signature) == len(shape) else shape, dtype, data,
        _quantisation(raw.Quantization(), shape), bool(raw.IsVariable()),
    )  # fmt: skip


def _sizes(raw: Any) -> tuple[int, ...]:
    return () if isinstance(raw, int) else tuple(int(d) for d in raw)


def _data(buffer: Any, file: Array, shape: tuple[int, ...], dtype: str, name: str) -> Array | None:
    content: Any = buffer.DataAsNumpy()
    if isinstance(content, int):
        offset, size = int(buffer.Offset()), int(buffer.Size())
        if offset <= 1 or size == 0:
            return None
        content = file[offset : offset + size]
        if content.size != size:
            raise ModelError(f"The tensor {name!r:.80} lies outside of the file", "Copy the file again")
    if dtype == "string":
        return None
    if dtype == "int4":
        packed = content.view(np.int8)
        both = np.stack([np.right_shift(np.left_shift(packed, 4), 4), np.right_shift(packed, 4)], -1).reshape(-1)
        flat: Array = both[: prod(shape)]
    else:
        flat = content.view(_numpy(dtype, name))
    if min(shape, default=1) < 0 or flat.size != prod(shape):
        raise ModelError(
            f"The tensor {name!r:.80} has {flat.size} elements, not {list(shape)}", "Copy the file again"
        )
    return flat.reshape(shape)


def _numpy(dtype: str, name: str) -> np.dtype[Any]:
    if dtype == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    if dtype in {"resource", "variant", "unknown"}:
        raise UnsupportedError(f"The tensor {name} is of the type {dtype}, which is not supported", "Leave it out")
    return np.dtype(dtype)


def _quantisation(raw: Any, shape: tuple[int, ...]) -> Quantisation | None:
    if raw is None or _length(raw.ScaleLength()) == 0:
        return None
    scale = np.array(raw.ScaleAsNumpy(), np.float32)
    zero = np.array(raw.ZeroPointAsNumpy(), np.int64) if _length(raw.ZeroPointLength()) else np.zeros(1, np.int64)
    zero = np.broadcast_to(zero, scale.shape) if zero.size == 1 else zero
    axis = int(raw.QuantizedDimension())
    if zero.shape != scale.shape or not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ModelError("A tensor's quantisation makes no sense", "The file is damaged: export the model again")
    if scale.size > 1 and (not 0 <= axis < len(shape) or shape[axis] != scale.size):
        raise ModelError("A tensor's quantisation does not fit its shape", "Export the model again")
    return Quantisation(scale, zero, axis)
