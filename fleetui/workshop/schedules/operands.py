"""The parameters of one kernel: which buffers it takes, how they lie in memory, and its key.

A rule asks for a buffer per value, temporary or packed constant, builds its body from them and calls ``kernel``.
Shapes, strides and dtypes enter the key by themselves. Nothing here knows what the kernel computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

from fleetui.workshop.graph.ir import Shape, Value
from fleetui.workshop.kernel import Arg, Kernel, Packed, Temporary, dense_strides
from fleetui.workshop.schedules.emit import Expr, Stmt, buffer, function, integer
from fleetui.workshop.schedules.rules import Context


def unravel(flat: Expr, shape: Sequence[int]) -> list[Expr]:
    """The index along each dimension of a flat index."""
    found: list[Expr] = []
    left = prod(shape)
    for dim in shape:
        left //= dim
        if dim == 1:
            found.append(integer(0))
            continue
        at = flat if left == 1 else flat // integer(left)
        # nothing is left above the first dimension that is not 1
        outer = all(s == 1 for s in shape[: len(found)])
        found.append(at if outer else at % integer(dim))
    return found


def broadcast_to(index: Sequence[Expr], shape: Shape) -> list[Expr]:
    """An index of an output turned into one of an operand that numpy broadcasts."""
    own = list(index)[len(index) - len(shape) :]
    return [integer(0) if dim == 1 else at for dim, at in zip(shape, own, strict=True)]


class Matrix:
    """A value seen as rows of its last dimension, whatever its rank."""

    def __init__(self, source: Any, lead: Shape, flat: bool) -> None:
        self.buffer, self._lead, self._flat = source, lead, flat

    def index(self, row: Expr, column: Expr) -> list[Expr]:
        return [row, column] if self._flat else [*unravel(row, self._lead), column]

    def __call__(self, row: Expr, column: Expr) -> Expr:
        from tvm import tirx

        return tirx.BufferLoad(self.buffer, self.index(row, column))


class Operands:
    """Collects parameters in the order in which they are asked for."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.args: list[Arg] = []
        self.buffers: list[Any] = []
        self.outputs: list[int] = []
        self.strides: dict[int, tuple[int, ...]] = {}
        self._known: dict[int, Any] = {}
        self._words: list[str] = []
        self.moved = 0

    def _add(self, source: Value | Temporary | Packed, shape: Shape, dtype: str, strides: Shape | None) -> Any:
        made = buffer(f"p{len(self.args)}", shape or (1,), dtype)
        if strides is not None and shape and strides != dense_strides(shape):
            self.strides[len(self.args)] = strides
        self._words.append(f"{dtype}{list(shape)}{list(self.strides.get(len(self.args), ()))}")
        self.args.append(Arg(source))
        self.buffers.append(made)
        return made

    def value(self, value: Value, *, output: bool = False) -> Any:
        """A graph value in its own shape; asked for twice, it is one parameter."""
        if id(value) not in self._known:
            strides = self.context.strides(value)
            if output:
                self.outputs.append(len(self.args))
            self._known[id(value)] = self._add(value, value.shape, value.dtype, strides)
            self.moved += value.nbytes
        return self._known[id(value)]

    def rows(self, value: Value) -> Matrix:
        """A value as a matrix of rows; leading dimensions are one where memory allows."""
        lead, strides = value.shape[:-1], self.context.strides(value)
        live = [(d, s) for d, s in zip(lead, strides, strict=False) if d != 1]
        flat = all(outer[1] == inner[1] * inner[0] for outer, inner in pairwise(live))
        if not flat:
            return Matrix(self.value(value), lead, flat=False)
        step = live[-1][1] if live else value.shape[-1]
        self.moved += value.nbytes
        shape = (prod(lead), value.shape[-1])
        return Matrix(self._add(value, shape, value.dtype, (step, strides[-1])), lead, flat=True)

    def packed(self, packed: Packed) -> Any:
        self.moved += packed.data.nbytes
        return self._add(packed, packed.data.shape, packed.dtype or str(packed.data.dtype), None)

    def temporary(self, temporary: Temporary, *, output: bool = False) -> Any:
        if output:
            self.outputs.append(len(self.args))
        if not temporary.per_worker:
            self.moved += prod(temporary.shape) * 4
        return self._add(temporary, temporary.shape, temporary.dtype, None)

    def load(self, value: Value, index: list[Expr]) -> Expr:
        """Reads an epilogue's extra."""
        from tvm import tirx

        source = self.value(value)
        return tirx.BufferLoad(source, index if index or not len(source.ty.shape) else [integer(0)])

    def kernel(self, key: str, body: Stmt, *, extent: int = 1, grain: int = 1, flops: int = 0) -> Kernel:
        return Kernel(
            key="|".join([key, *self._words]),
            func=function(self.buffers, body),
            args=self.args,
            outputs=self.outputs,
            extent=extent,
            grain=grain,
            flops=flops,
            moved=self.moved,
            strides=self.strides,
        )
