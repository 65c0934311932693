"""Constant weights of dense layers: in which form they are kept, and how a kernel reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fleetui.workshop.graph.ir import BITS, Array, Node, Shape
from fleetui.workshop.kernel import Group, Packed
from fleetui.workshop.schedules.operands import Operands
from fleetui.workshop.schedules.panels import Codes, Plain, has_half, nibbles, pack
from fleetui.workshop.schedules.rules import Context

NUMBERS = frozenset(BITS) - {"bool", "int4", "uint4", "bfloat16"}
SMALL = frozenset({"int8", "uint8", "int4", "uint4"})


def sum_dtype(dtype: str) -> str:
    """What products are added up in."""
    if dtype in {"float16", "bfloat16"}:
        return "float32"
    return "int32" if dtype in {"int8", "uint8"} else dtype


def bare(group: Group) -> Group:
    """The group without the node that expands the weights."""
    expanded = group.anchor.input(1)
    return Group([n for n in group.nodes if expanded not in n.outputs], group.anchor, group.inputs, group.outputs)


@dataclass(frozen=True, slots=True)
class Weights:
    """Constant weights [K, M] as they are kept: numbers, or codes with scales [blocks, M] and zero points."""

    data: Array
    dtype: str
    scales: Array | None = None
    zeros: Array | None = None
    block: int = 0

    @property
    def coded(self) -> bool:
        return self.scales is not None

    @property
    def decode(self) -> float:
        """Instructions beside the multiplication, for each vector."""
        if not self.coded:
            return 1.0 if self.dtype in {"float16", "bfloat16"} else 0.0
        return (4.0 if self.dtype.endswith("int4") else 2.0) + (1.0 if self.zeros is not None else 0.0)


def weights_of(group: Group) -> Weights | None:
    """The anchor's second input where it is constant, expanded or not; None if it is made at run time."""
    value = group.anchor.input(1)
    if value.data is not None:
        return Weights(value.data, value.dtype)
    maker = next((n for n in group.nodes if value in n.outputs), None)
    if maker is None or value.dtype != "float32":
        return None
    source = maker.input(0)
    if source.data is None:
        return None
    if maker.op == "cast" and source.dtype in {"float16", "bfloat16"}:
        return Weights(source.data, source.dtype)
    if maker.op == "dequantize" and source.dtype in SMALL and source.rank == 2:
        return _coded(maker, source.data, source.dtype)
    return None


def _coded(maker: Node, codes: Array, dtype: str) -> Weights | None:
    scale, zero = maker.input(1), maker.optional(2)
    axis, block = maker.attrs["axis"], maker.attrs.get("block", 0)
    if scale.data is None or (zero is not None and zero.data is None):
        return None
    depth, columns = codes.shape
    if block:
        if axis != 0 or block % 2:
            return None
        shape: Shape = (-(-depth // block), columns)
    elif scale.rank == 0 or axis == 1:
        shape, block = (1, columns), 0
    else:
        return None

    def spread(parameter: Array) -> Array:
        return np.broadcast_to(parameter, shape)

    scales = spread(scale.data).astype(np.float32)
    zeros = None
    if zero is not None and zero.data is not None and np.any(zero.data.astype(np.int32)):
        zeros = spread(zero.data.astype(np.int32))
    return Weights(codes, dtype, scales, zeros, 0 if block >= depth else block)


def small_right(weights: Weights, width: int, name: str, operands: Operands, context: Context) -> Plain | Codes:
    """Packs the weights, and says how the kernel reads them."""
    data = weights.data
    if not weights.coded:
        source = operands.packed(Packed(f"{name}.panels", pack(data, width), weights.dtype))
        return Plain(source, sum_dtype(weights.dtype), has_half(context.target))
    four = weights.dtype.endswith("int4")
    stored = nibbles(data.astype(np.int16), width) if four else pack(data, width)
    source = operands.packed(Packed(f"{name}.codes", stored))
    scales = zeros = None
    if weights.block:
        assert weights.scales is not None
        scales = operands.packed(Packed(f"{name}.scales", pack(weights.scales, width)))
    if weights.zeros is not None:
        zeros = operands.packed(Packed(f"{name}.zeros", pack(weights.zeros, width)))
    signed = not weights.dtype.startswith("u")
    return Codes(source, 4 if four else 8, signed, weights.block, scales, zeros)
