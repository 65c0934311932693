"""What schedules hand to the code generator: kernels, and the buffers they read and write.

A group of fused nodes becomes one or more kernels. A kernel is one TIR function with **at most one parallel
loop** (annotated ``PARALLEL``), whose range the generated entry splits over threads; what has to wait for a whole
earlier phase is a kernel of its own. A kernel allocates nothing but small fixed local arrays (registers and a few
KiB of stack); anything bigger is a ``Temporary`` that the memory plan places in the workspace.

Kernels of equal ``key`` are compiled once and called many times: so weights are arguments, never constants in
the code, and ``key`` names everything the code depends on (operator, shapes, strides, schedule, fused chain).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fleetui.workshop.graph.ir import Array, Node, Shape, Value

PARALLEL = "fm_parallel"
"""Annotation (value 1) on the outermost loop that may run in any order on several threads."""


@dataclass(slots=True, eq=False)
class Temporary:
    """Workspace between the kernels of one group; ``per_worker`` buffers exist once per thread."""

    name: str
    shape: Shape
    dtype: str
    per_worker: bool = False


@dataclass(slots=True, eq=False)
class Packed:
    """A constant in the form a kernel wants it (packed, transformed, quantised); made at compile time."""

    name: str
    data: Array
    dtype: str = ""


@dataclass(frozen=True, slots=True)
class Arg:
    """One pointer parameter. ``offset`` and ``strides`` are in elements of the buffer; no strides means dense.

    ``shape`` is how the kernel sees the buffer. For a graph value that lives inside a bigger one (a part of a
    concatenation written in place) the plan adds that value's own offset; its strides come from ``Placement``.
    """

    buffer: Value | Temporary | Packed
    offset: int = 0


@dataclass(slots=True, eq=False)
class Kernel:
    """``func`` is a ``tvm.tirx.PrimFunc`` whose parameters are the buffers of ``args`` in order, scheduled.

    ``strides[i]``, where given, are the element strides of parameter i (constant, last one 1 where vectorised);
    the code generator applies them. ``extent`` is the parallel loop's trip count (1: no such loop), ``grain`` the
    least number of iterations worth a thread. ``outputs`` are the indices of ``args`` that are written.
    """

    key: str
    func: Any
    args: list[Arg]
    outputs: list[int]
    extent: int = 1
    grain: int = 1
    flops: int = 0
    moved: int = 0
    strides: dict[int, tuple[int, ...]] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Group:
    """Nodes that are computed together: ``anchor`` does the heavy work, the others are fused before or after it.

    ``outputs`` are the values somebody outside the group needs; everything else never exists in memory.
    """

    nodes: list[Node]
    anchor: Node
    inputs: list[Value]
    outputs: list[Value]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a value lives: in ``base`` (itself, if it stands alone) at ``offset`` with ``strides``, in elements."""

    base: Value
    offset: int
    strides: tuple[int, ...]


def dense_strides(shape: Shape) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for dim in reversed(shape):
        strides.append(step)
        step *= dim
    return tuple(reversed(strides))
