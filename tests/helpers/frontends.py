"""Small models of every kind that is read, and the comparison of what we read with the framework it came from."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.workshop.frontends.base import Frontend
from fleetui.workshop.graph import ir
from fleetui.workshop.graph.ir import Array, Graph
from fleetui.workshop.options import InputSpec


@contextmanager
def others_warnings():
    """Frameworks deprecate parts of themselves at their own lines while they write the models we need."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def feeds_for(graph: Graph, seed: int = 1) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for value in graph.inputs:
        if value.dtype.startswith("float"):
            made[value.name] = rng.standard_normal(value.shape).astype(value.dtype)
        elif value.dtype == "bool":
            made[value.name] = rng.random(value.shape) > 0.3
        else:
            low, high = (-100, 100) if value.dtype == "int8" else (0, 3)
            made[value.name] = rng.integers(low, high, value.shape).astype(value.dtype)
    return made


def error(want: Array, have: Array) -> float:
    """The largest difference, in parts of the largest number."""
    assert (want.shape, str(want.dtype)) == (have.shape, str(have.dtype))
    if want.size == 0:
        return 0.0
    difference = np.abs(want.astype(np.float64) - have.astype(np.float64)).max()
    return float(difference / max(1e-9, np.abs(want.astype(np.float64)).max()))


def agree(
    frontend: Frontend,
    path: Path,
    inputs: Sequence[InputSpec] = (),
    *,
    feeds: Mapping[str, Array] | None = None,
    tolerance: float = 2e-5,
    peer: bool = True,
    want: Mapping[str, Array] | None = None,
) -> Graph:
    """Load, check the graph, and run it beside its framework (or beside ``want``)."""
    head = path.read_bytes()[: 64 << 10] if path.is_file() else b""
    assert frontend.sniff(head, path)
    graph = frontend.load(path, inputs)
    graph.verify()
    feeds = dict(feeds) if feeds is not None else feeds_for(graph)
    if peer:
        beside = frontend.peer(path, inputs, 1)
        assert beside is not None
        want = beside.run(feeds)
        getattr(beside, "close", lambda: None)()
    assert want is not None
    have = ir.run(graph, feeds)
    assert list(want) == list(have)
    errors = {name: error(np.asarray(want[name]), have[name]) for name in want}
    assert max(errors.values()) <= tolerance, errors
    return graph


def exported(module: Any, arguments: tuple[Any, ...], path: Path, **options: Any) -> Path:
    """A PyTorch module as ``.pt2``."""
    import torch

    with others_warnings():
        torch.export.save(torch.export.export(module.eval(), arguments, **options), path)
    return path


def jax_exported(
    function: Callable[..., Any], shapes: Sequence[tuple[tuple[Any, ...], str]], path: Path, form: str
) -> Path:
    """A JAX function as StableHLO: ``text``, ``bytecode``, or ``jax``'s own file around it."""
    import jax
    from jax import export

    with others_warnings():
        made = export.export(jax.jit(function))(*(jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes))
    content = {
        "text": lambda: str(made.mlir_module()).encode(),
        "bytecode": lambda: made.mlir_module_serialized,
        "jax": lambda: bytes(made.serialize()),
    }[form]()
    path.write_bytes(content)
    return path


def darknet_weights(path: Path, arrays: Sequence[Array]) -> Path:
    """Numbers in the order given, behind the header of Darknet's later versions."""
    header = struct.pack("<iiiq", 0, 2, 5, 0)
    path.write_bytes(header + b"".join(np.ascontiguousarray(a, np.float32).tobytes() for a in arrays))
    return path


def dense_tflite(path: Path) -> Path:
    """A TFLite model of one dense layer, written by hand: TensorFlow takes seconds to be imported."""
    import flatbuffers
    import tflite as lib

    b = flatbuffers.Builder(1024)

    def vector(start, offsets) -> int:
        start(b, len(offsets))
        for offset in reversed(offsets):
            b.PrependUOffsetTRelative(offset)
        return b.EndVector()

    def buffer(data: bytes) -> int:
        content = b.CreateByteVector(data) if data else None
        lib.BufferStart(b)
        if content is not None:
            lib.BufferAddData(b, content)
        return lib.BufferEnd(b)

    def tensor(name: str, shape: list[int], index: int) -> int:
        text, sizes = b.CreateString(name), b.CreateNumpyVector(np.array(shape, np.int32))
        lib.TensorStart(b)
        lib.TensorAddName(b, text)
        lib.TensorAddShape(b, sizes)
        lib.TensorAddBuffer(b, index)
        return lib.TensorEnd(b)

    rng = np.random.default_rng(0)
    buffers = [
        buffer(d) for d in (b"", rng.random((3, 4), np.float32).tobytes(), rng.random(3, np.float32).tobytes())
    ]
    tensors = [tensor("x", [1, 4], 0), tensor("w", [3, 4], 1), tensor("b", [3], 2), tensor("y", [1, 3], 0)]
    lib.FullyConnectedOptionsStart(b)
    options = lib.FullyConnectedOptionsEnd(b)
    ins, outs = b.CreateNumpyVector(np.array([0, 1, 2], np.int32)), b.CreateNumpyVector(np.array([3], np.int32))
    lib.OperatorStart(b)
    lib.OperatorAddInputs(b, ins)
    lib.OperatorAddOutputs(b, outs)
    lib.OperatorAddBuiltinOptionsType(b, lib.BuiltinOptions.FullyConnectedOptions)
    lib.OperatorAddBuiltinOptions(b, options)
    operators = vector(lib.SubGraphStartOperatorsVector, [lib.OperatorEnd(b)])
    listed = vector(lib.SubGraphStartTensorsVector, tensors)
    given, made = b.CreateNumpyVector(np.array([0], np.int32)), b.CreateNumpyVector(np.array([3], np.int32))
    lib.SubGraphStart(b)
    lib.SubGraphAddTensors(b, listed)
    lib.SubGraphAddInputs(b, given)
    lib.SubGraphAddOutputs(b, made)
    lib.SubGraphAddOperators(b, operators)
    graphs = vector(lib.ModelStartSubgraphsVector, [lib.SubGraphEnd(b)])
    lib.OperatorCodeStart(b)
    lib.OperatorCodeAddDeprecatedBuiltinCode(b, lib.BuiltinOperator.FULLY_CONNECTED)
    lib.OperatorCodeAddBuiltinCode(b, lib.BuiltinOperator.FULLY_CONNECTED)
    codes = vector(lib.ModelStartOperatorCodesVector, [lib.OperatorCodeEnd(b)])
    kept = vector(lib.ModelStartBuffersVector, buffers)
    lib.ModelStart(b)
    lib.ModelAddVersion(b, 3)
    lib.ModelAddOperatorCodes(b, codes)
    lib.ModelAddSubgraphs(b, graphs)
    lib.ModelAddBuffers(b, kept)
    b.Finish(lib.ModelEnd(b), b"TFL3")
    path.write_bytes(bytes(b.Output()))
    return path
