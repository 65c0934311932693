"""A copy from one strided view to another: what placement could not avoid."""

from __future__ import annotations

from math import prod
from typing import Any

from fleetui.workshop.graph.ir import BITS, Shape
from fleetui.workshop.kernel import PARALLEL, Arg, Kernel

PIECE = 1 << 16
"""Bytes of a copy that are worth a thread's while."""


def copy_kernel(
    source: Arg,
    source_strides: tuple[int, ...],
    target: Arg,
    target_strides: tuple[int, ...],
    shape: Shape,
    dtype: str,
) -> Kernel:
    shape, ours, theirs = _merged(shape, source_strides, target_strides)
    moved = prod(shape) * BITS[dtype] // 8
    rows = shape[0]
    return Kernel(
        key=f"copy {dtype} {shape} {ours} {theirs}",
        func=_copy(shape, dtype),
        args=[source, target],
        outputs=[1],
        extent=rows,
        grain=max(1, PIECE * rows // max(1, moved)),
        moved=2 * moved,
        strides={0: ours, 1: theirs},
        detail={"copy": True},
    )


def _merged(
    shape: Shape, left: tuple[int, ...], right: tuple[int, ...]
) -> tuple[Shape, tuple[int, ...], tuple[int, ...]]:
    """Fewer axes: those of one element go, neighbours that are contiguous on both sides become one. Two remain."""
    axes: list[list[int]] = []
    for dim, a, b in zip(shape, left, right, strict=True):
        if dim == 1:
            continue
        if axes and axes[-1][1] == dim * a and axes[-1][2] == dim * b:
            axes[-1] = [axes[-1][0] * dim, a, b]
        else:
            axes.append([dim, a, b])
    while len(axes) < 2:
        dim, a, b = axes[0] if axes else (1, 1, 1)
        outer = next((k for k in (64, 32, 16, 8, 4, 2) if dim % k == 0 and dim // k >= 16), 1) if axes else 1
        axes = [[outer, a * (dim // outer), b * (dim // outer)], [dim // outer, a, b]]
    return tuple(x[0] for x in axes), tuple(x[1] for x in axes), tuple(x[2] for x in axes)


def _copy(shape: Shape, dtype: str) -> Any:
    from tvm import te
    from tvm.s_tir import Schedule

    source = te.placeholder(shape, dtype, name="source")
    target = te.compute(shape, lambda *at: source[at], name="target")
    schedule = Schedule(te.create_prim_func([source, target]))
    loops = schedule.get_loops(schedule.get_sblock("target"))
    schedule.annotate(loops[0], PARALLEL, 1)
    return schedule.mod["main"]
