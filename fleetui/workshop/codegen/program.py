"""A whole model as a straight line of kernel calls over planned memory: what the generated entry says in C.

``assemble`` takes the kernels of every group, in order, and settles where each pointer points: into the caller's
inputs and outputs, the weights, the workspace, or the scratch of one worker. It also makes the copies that
placement could not avoid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from fleetui.common.domain.errors import BugError
from fleetui.workshop.codegen.copying import copy_kernel
from fleetui.workshop.codegen.memory import ALIGN, Block, aligned, lower_bound, plan
from fleetui.workshop.codegen.place import Layout
from fleetui.workshop.graph.ir import BITS, Array, Graph, Value
from fleetui.workshop.kernel import Arg, Group, Kernel, Packed, Placement, Temporary, dense_strides


class Space(StrEnum):
    INPUT = "input"
    OUTPUT = "output"
    WEIGHTS = "weights"
    WORK = "work"
    SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class Ref:
    """``index`` counts inputs or outputs; ``offset`` is in bytes."""

    space: Space
    offset: int
    index: int = 0


@dataclass(slots=True)
class Launch:
    kernel: Kernel
    refs: list[Ref]
    name: str
    """What the step computes, in the words of the source model."""
    op: str
    constants: int = 0
    """How many parameters (elements of weights) it reads."""


@dataclass(slots=True)
class Segment:
    offset: int
    data: Array


@dataclass(slots=True)
class Program:
    graph: Graph
    launches: list[Launch] = field(default_factory=list)
    weights: list[Segment] = field(default_factory=list)
    weights_bytes: int = 0
    work_bytes: int = 0
    scratch_bytes: int = 0
    work_bound: int = 0
    """The least that any plan would need."""

    def kernels(self) -> list[Kernel]:
        """One for each key, in order of first use."""
        return list({launch.kernel.key: launch.kernel for launch in reversed(self.launches)}.values())[::-1]

    def weight_bytes(self) -> Iterator[bytes]:
        """The blob, piece by piece."""
        at = 0
        for segment in self.weights:
            if segment.offset > at:
                yield bytes(segment.offset - at)
            raw = raw_bytes(segment.data)
            yield raw
            at = segment.offset + len(raw)
        if at < self.weights_bytes:
            yield bytes(self.weights_bytes - at)


def raw_bytes(data: Array) -> bytes:
    return np.ascontiguousarray(data).tobytes()


def in_bytes(elements: int, dtype: str) -> int:
    bits = elements * BITS[dtype]
    if bits % 8:
        raise BugError(f"{elements} elements of {dtype} do not end on a byte")
    return bits // 8


def assemble(graph: Graph, lowered: Sequence[tuple[Group, Sequence[Kernel]]], layout: Layout) -> Program:
    """``lowered`` has every group that is not skipped, in order; its kernels empty where only copies are left."""
    return _Assembler(graph, layout).run(lowered)


class _Assembler:
    def __init__(self, graph: Graph, layout: Layout) -> None:
        self.layout = layout
        self.program = Program(graph)
        self.inputs = {value: index for index, value in enumerate(graph.inputs)}
        self.outputs: dict[Value, int] = {}
        for index, value in enumerate(graph.outputs):
            self.outputs.setdefault(value, index)
        self.blocks: dict[object, Block] = {}
        self.pointers: list[list[tuple[object, int] | Ref]] = []
        self.digests: dict[bytes, int] = {}
        self.known: dict[int, tuple[int, Array]] = {}
        self.scratch: dict[int, dict[Temporary, int]] = {}

    def run(self, lowered: Sequence[tuple[Group, Sequence[Kernel]]]) -> Program:
        for group, kernels in lowered:
            name, op = group.anchor.source or group.anchor.outputs[0].name, "+".join(n.op for n in group.nodes)
            for kernel in kernels:
                for step in self._densified(kernel):
                    self._launch(step, name, op)
        self._leftover_outputs()
        program = self.program
        blocks = list(self.blocks.values())
        program.work_bytes = plan(blocks)
        program.work_bound = lower_bound(blocks)
        for launch, pointers in zip(program.launches, self.pointers, strict=True):
            launch.refs = [
                p if isinstance(p, Ref) else Ref(Space.WORK, self.blocks[p[0]].offset + p[1]) for p in pointers
            ]
        program.weights_bytes = aligned(program.weights_bytes)
        return program

    # ------------------------------------------------------------ steps

    def _densified(self, kernel: Kernel) -> list[Kernel]:
        """A rule that did not ask for strides gets dense stand-ins, and copies before and after."""
        before: list[Kernel] = []
        after: list[Kernel] = []
        args: list[Arg] = []
        for index, arg in enumerate(kernel.args):
            value = arg.buffer
            if not isinstance(value, Value) or index in kernel.strides or self.layout.dense(value):
                args.append(arg)
                continue
            view = self.layout.of(value)
            stand_in = Temporary(f"{value.name}.dense", value.shape, value.dtype)
            dense = dense_strides(value.shape)
            if index in kernel.outputs:
                after.append(copy_kernel(Arg(stand_in), dense, Arg(value), view.strides, value.shape, value.dtype))
            if index not in kernel.outputs or kernel.detail.get("reads_outputs"):
                before.append(copy_kernel(Arg(value), view.strides, Arg(stand_in), dense, value.shape, value.dtype))
            args.append(Arg(stand_in, arg.offset))
        if not before and not after:
            return [kernel]
        changed = Kernel(
            kernel.key, kernel.func, args, kernel.outputs, kernel.extent, kernel.grain, kernel.flops, kernel.moved,
            kernel.strides, kernel.detail,
        )  # fmt: skip
        return [*before, changed, *after]

    def _leftover_outputs(self) -> None:
        """Outputs that no kernel writes: inputs and constants handed on, and one tensor under two names."""
        graph = self.program.graph
        for index, value in enumerate(graph.outputs):
            if value.size == 0:
                continue
            place = self.layout.of(value)
            own = value.data is None and value not in self.inputs and self.outputs[value] == index
            if own and place.base is value:
                continue
            dense = dense_strides(value.shape)
            kernel = copy_kernel(
                Arg(value), place.strides, Arg(Value(value.name, value.shape, value.dtype)), dense,
                value.shape, value.dtype,
            )  # fmt: skip
            self._launch(kernel, value.name, "copy", {1: Ref(Space.OUTPUT, 0, index)})

    def _launch(self, kernel: Kernel, name: str, op: str, settled: dict[int, Ref] | None = None) -> None:
        if kernel.detail.get("copy"):
            op = "copy"
        step = len(self.program.launches)
        pointers = [
            settled[index] if settled and index in settled else self._pointer(arg, step)
            for index, arg in enumerate(kernel.args)
        ]
        constants = 0
        for arg in kernel.args:
            data = arg.buffer.data if isinstance(arg.buffer, (Value, Packed)) else None
            constants += 0 if data is None else data.size
        self.program.launches.append(Launch(kernel, [], name, op, constants))
        self.pointers.append(pointers)

    # ------------------------------------------------------------ pointers

    def _pointer(self, arg: Arg, step: int) -> tuple[object, int] | Ref:
        buffer = arg.buffer
        if isinstance(buffer, Packed):
            dtype = buffer.dtype or str(buffer.data.dtype)
            return self._constant(buffer.data, in_bytes(arg.offset, dtype))
        if isinstance(buffer, Temporary):
            size = in_bytes(_product(buffer.shape), buffer.dtype)
            offset = in_bytes(arg.offset, buffer.dtype)
            if buffer.per_worker:
                return self._scratch(buffer, size, offset, step)
            return self._live(buffer, size, offset, step, buffer.name)
        if buffer.data is not None:
            return self._constant(buffer.data, in_bytes(arg.offset, buffer.dtype))
        place: Placement = self.layout.of(buffer)
        offset = in_bytes(place.offset + arg.offset, buffer.dtype)
        base = place.base
        if base in self.inputs:
            return Ref(Space.INPUT, offset, self.inputs[base])
        if base in self.outputs:
            return Ref(Space.OUTPUT, offset, self.outputs[base])
        return self._live(base, base.nbytes, offset, step, base.name)

    def _live(self, key: object, size: int, offset: int, step: int, name: str) -> tuple[object, int]:
        block = self.blocks.get(key)
        if block is None:
            self.blocks[key] = Block(size, step, step, name)
        else:
            block.last = step
        return key, offset

    def _scratch(self, key: Temporary, size: int, offset: int, step: int) -> Ref:
        """Scratch does not outlive its kernel, so every kernel lays its own out from the start."""
        starts = self.scratch.setdefault(step, {})
        if key not in starts:
            starts[key] = sum(aligned(in_bytes(_product(t.shape), t.dtype)) for t in starts)
            self.program.scratch_bytes = max(self.program.scratch_bytes, starts[key] + aligned(size))
        return Ref(Space.SCRATCH, starts[key] + offset)

    def _constant(self, data: Array, offset: int) -> Ref:
        """Equal bytes are kept once."""
        start, _kept = self.known.get(id(data), (None, None))
        if start is None:
            raw = np.ascontiguousarray(data)
            digest = hashlib.sha256(raw.reshape(-1).view(np.uint8).data).digest() if raw.size else b""
            start = self.digests.get(digest)
            if start is None:
                start = aligned(self.program.weights_bytes, ALIGN)
                self.program.weights.append(Segment(start, raw))
                self.program.weights_bytes = start + raw.nbytes
                self.digests[digest] = start
            self.known[id(data)] = (start, data)  # kept, so that its id stays its own
        return Ref(Space.WEIGHTS, start + offset)


def _product(shape: Sequence[int]) -> int:
    size = 1
    for dim in shape:
        size *= dim
    return size


def part_copies(layout: Layout, parts: Sequence[tuple[Value, Placement]]) -> list[Kernel]:
    """The parts of a concatenation that are not written in place, each copied to where it belongs."""
    return [
        copy_kernel(
            Arg(value),
            layout.of(value).strides,
            Arg(view.base, view.offset - layout.of(view.base).offset),
            view.strides,
            value.shape,
            value.dtype,
        )
        for value, view in parts
    ]
