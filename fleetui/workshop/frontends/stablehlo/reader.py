"""Parses a StableHLO module: MLIR text, MLIR bytecode, or what ``jax.export`` serialises around the latter.

The parser is MLIR's own (in jaxlib), in C++: one reason why files of strangers are inspected in a limited process.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fleetui.workshop.errors import MissingExtra, ModelError, UnsupportedError
from fleetui.workshop.frontends.base import Port
from fleetui.workshop.graph.ir import Array

MAGIC = b"ML\xefR"
DTYPES: dict[str, str] = {
    "i1": "bool", "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64", "ui8": "uint8", "ui16": "uint16",
    "ui32": "uint32", "ui64": "uint64", "f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64",
}  # fmt: skip


def is_text(head: bytes) -> bool:
    """Text in MLIR's syntax with StableHLO in it."""
    if b"\0" in head[:4096]:
        return False
    start = head.lstrip()
    opens = start.startswith((b"module", b"#", b"//", b"func.func", b"builtin.module", b"!"))
    return opens and (b"stablehlo." in head or b"chlo." in head or b"func.func" in head)


def is_bytecode(head: bytes) -> bool:
    return head.startswith(MAGIC)


def wrapped_at(head: bytes) -> int:
    """Where ``jax.export`` has put the bytecode in its own file, -1 if it is none of those."""
    at = head.find(MAGIC + b"\rStableHLO_v")
    return at if at > 4 else -1


@dataclass(slots=True)
class Module:
    """Keeps the context alive, in which all of the objects live."""

    context: Any
    module: Any
    functions: dict[str, Any]
    content: bytes

    @property
    def main(self) -> Any:
        return self.functions.get("main") or next(iter(self.functions.values()))


def read(path: Path) -> Module:
    try:
        from jax.interpreters.mlir import make_ir_context
        from jaxlib.mlir import ir
        from jaxlib.mlir.dialects import stablehlo
    except ImportError as error:
        raise MissingExtra("A StableHLO model", "stablehlo") from error
    content = path.read_bytes()
    at = wrapped_at(content[: 64 << 10])
    if not is_bytecode(content) and at > 0:
        (size,) = struct.unpack_from("<I", content, at - 4)
        content = content[at : at + size]
    context = make_ir_context()
    with context:
        try:
            module = ir.Module.parse(content)
            first = next(iter(module.body.operations), None)
            if first is not None and first.operation.name.startswith("vhlo."):
                module = stablehlo.deserialize_portable_artifact(context, content)
        except (ir.MLIRError, ValueError) as error:
            words = " ".join(str(error).split())[:240]
            raise ModelError(f"{path.name} is no sound StableHLO: {words}", "Export the model again") from error
        functions = {
            str(op.attributes["sym_name"].value): op.operation
            for op in module.body.operations
            if op.operation.name == "func.func"
        }
    if not functions:
        raise ModelError(f"{path.name} holds no function", "Export the model again")
    return Module(context, module, functions, content)


def type_of(kind: Any) -> tuple[tuple[int, ...], str]:
    """Shape (-1: open) and dtype of a tensor type."""
    from jaxlib.mlir import ir

    if not isinstance(kind, ir.ShapedType):
        raise UnsupportedError(f"The model passes {kind!s:.80} around, which is not supported", "Use tensors alone")
    element = str(kind.element_type)
    if element not in DTYPES:
        raise UnsupportedError(f"The model computes with {element}, which is not supported", "Use float32")
    if not kind.has_rank:
        raise UnsupportedError("The model has tensors of an unknown number of dimensions", "Export with known ones")
    shape = tuple(-1 if kind.is_dynamic_dim(i) else int(kind.get_dim_size(i)) for i in range(kind.rank))
    return shape, DTYPES[element]


def ports(function: Any) -> tuple[list[Port], list[Port]]:
    block = function.regions[0].blocks[0]
    inputs: list[Port] = []
    for at, argument in enumerate(block.arguments):
        found = re.match(r'loc\("([^"]{1,80})"', str(argument.location))
        name = _clean(found.group(1) if found else "", f"arg{at}", [p.name for p in inputs])
        inputs.append(_port(name, argument.type))
    outputs: list[Port] = []
    attributes = function.attributes
    said = list(attributes["res_attrs"]) if "res_attrs" in attributes else []
    ended = block.operations[len(block.operations) - 1]
    for at, value in enumerate(ended.operands):
        text = str(said[at]) if at < len(said) else ""
        found = re.search(r'jax.result_info = "([^"]{1,80})"', text)
        wished = re.sub(r"^result(?=\[['\"])", "", found.group(1)) if found else ""
        outputs.append(_port(_clean(wished, f"output{at}", [p.name for p in [*inputs, *outputs]]), value.type))
    return inputs, outputs


def _clean(wished: str, otherwise: str, taken: list[str]) -> str:
    name = re.sub(r"\W+", "_", wished).strip("_") or otherwise
    while name in taken:
        name += "_again"
    return name


def _port(name: str, kind: Any) -> Port:
    shape, dtype = type_of(kind)
    sizes = tuple(d if d >= 0 else "batch" if at == 0 else f"{name}_{at}" for at, d in enumerate(shape))
    return Port(name, sizes, dtype)


def constant(attribute: Any) -> tuple[Array, str]:
    """The elements of a dense attribute; the bindings do not give out every type."""
    shape, dtype = type_of(attribute.type)
    if dtype == "bfloat16":
        return _bfloat16(str(attribute), shape), dtype
    if getattr(attribute, "is_splat", False) and shape:
        one = np.asarray(attribute.get_splat_value().value).astype(dtype)
        return np.broadcast_to(one, shape), dtype
    return np.array(attribute).astype(dtype, copy=False).reshape(shape), dtype


def _bfloat16(text: str, shape: tuple[int, ...]) -> Array:
    import ml_dtypes

    body = text[text.index("<") + 1 : text.rindex(">")].rpartition(": tensor")[0].strip().removesuffix(">").strip()
    if body.startswith('"0x'):
        flat: Array = np.frombuffer(bytes.fromhex(body.strip('"')[2:]), ml_dtypes.bfloat16)
    else:
        words = re.findall(r"0x[0-9A-Fa-f]+|[-+]?[\d.]+(?:[eE][-+]?\d+)?", body)
        numbers = [
            np.array([int(w, 16)], np.uint16).view(ml_dtypes.bfloat16)[0] if w.startswith("0x") else float(w)
            for w in words
        ]
        flat = np.array(numbers, np.float32).astype(ml_dtypes.bfloat16)
    return flat.reshape(shape) if flat.size > 1 or not shape else np.broadcast_to(flat.reshape(()), shape)
