"""The outside of a hand-written kernel: its parameters, how elements of graph values are reached, its key.

Every parameter is a flat buffer, and an element's place is written out from the value's own strides; so a value
that lives inside a concatenation is read and written like any other. ``View`` is an operand seen through
transposes, slices and broadcasts: an offset and a stride for every axis of the loop nest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from fleetui.workshop.graph.ir import BITS, Node, Shape, Value
from fleetui.workshop.kernel import Arg, Group, Kernel, Temporary
from fleetui.workshop.schedules import emit, mathlib
from fleetui.workshop.schedules.epilogue import broadcast_index, immediate, node_key
from fleetui.workshop.schedules.rules import Context
from fleetui.workshop.schedules.scalar import COST

Expr = Any
Stmt = Any

WORTH = 8e-6
"""Seconds of work that pay for waking a thread."""


def stored(dtype: str) -> str:
    """How a buffer is declared: LLVM knows no bfloat16 on most processors, so its bits are moved as integers."""
    return "uint16" if dtype == "bfloat16" else dtype


def lanes_of(context: Context, *dtypes: str) -> int:
    """Elements that go through one vector register, whatever of these they are.

    A microcontroller's vectors of half floats are more than LLVM can translate: one at a time there.
    """
    if "float16" in dtypes and context.target.triple.startswith("thumb"):
        return 1
    return context.target.lanes(max(BITS[dtype] for dtype in dtypes))


def count_of(shape: Iterable[int]) -> int:
    return prod(shape)


def place(index: Sequence[Expr | int], strides: Sequence[int], offset: int = 0) -> Expr:
    """The offset and Σ index · stride, without the terms that are nothing."""
    total: Expr | int = offset
    for at, stride in zip(index, strides, strict=True):
        if stride == 0 or (isinstance(at, int) and at == 0):
            continue
        term = at if stride == 1 else at * stride
        total = term if isinstance(total, int) and total == 0 else total + term
    return emit.integer(total) if isinstance(total, int) else total


@dataclass(frozen=True, slots=True)
class View:
    """Element (i, j, …) of an operand lies at ``offset + i·strides[0] + …`` of ``source``."""

    source: Value
    offset: int
    strides: tuple[int, ...]

    def transposed(self, perm: Sequence[int]) -> View:
        return View(self.source, self.offset, tuple(self.strides[p] for p in perm))

    def sliced(self, starts: Sequence[int], steps: Sequence[int]) -> View:
        offset = self.offset + sum(a * s for a, s in zip(starts, self.strides, strict=True))
        return View(self.source, offset, tuple(a * s for a, s in zip(steps, self.strides, strict=True)))

    def broadcast(self, have: Shape, want: Shape) -> View:
        own = [0 if dim == 1 else stride for dim, stride in zip(have, self.strides, strict=True)]
        return View(self.source, self.offset, (*[0] * (len(want) - len(have)), *own))


def view_through(node: Node, view: View) -> View | None:
    """The output of a node that only reads its input in another way, or None."""
    shape, attrs = node.input(0).shape, node.attrs
    if node.op == "transpose":
        return view.transposed(attrs["perm"])
    if node.op == "slice":
        return view.sliced(attrs["starts"], attrs["steps"])
    if node.op == "broadcast_to":
        return view.broadcast(shape, node.output.shape)
    if node.op == "identity":
        return view
    return None


@dataclass(slots=True)
class Frame:
    """Collects the parameters of one kernel."""

    context: Context
    args: list[Arg] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    known: dict[Any, Any] = field(default_factory=dict)

    def _add(self, source: Value | Temporary, shape: Shape, strides: Sequence[int], *, out: bool) -> Any:
        found = self.known.get((source, out))
        if found is None:
            size = 1 + sum((d - 1) * s for d, s in zip(shape, strides, strict=True))
            found = emit.buffer(f"{'y' if out else 'x'}{len(self.args)}", (max(1, size),), stored(source.dtype))
            self.known[source, out] = found
            if out:
                self.outputs.append(len(self.args))
            self.args.append(Arg(source))
            self.buffers.append(found)
        return found

    def reads(self, value: Value) -> Any:
        """The flat buffer of an input."""
        return self._add(value, value.shape, self.context.strides(value), out=False)

    def writes(self, value: Value) -> Any:
        return self._add(value, value.shape, self.context.strides(value), out=True)

    def scratch(self, temporary: Temporary, *, out: bool) -> Any:
        return self._add(temporary, (count_of(temporary.shape),), (1,), out=out)

    def load(self, value: Value, index: Sequence[Expr | int]) -> Expr:
        """One element; a constant of one element stands in the code."""
        number = immediate(value)
        if number is not None:
            return number
        return self.element(value, place(index, self.context.strides(value)))

    def element(self, value: Value, at: Expr) -> Expr:
        """What lies at a place of a value's buffer."""
        found = emit.load(self.reads(value), at)
        return mathlib.doubled(found) if value.dtype == "bfloat16" else found

    def put(self, value: Value, at: Expr, number: Expr) -> Stmt:
        """Write to a place of a value's buffer."""
        if value.dtype == "bfloat16":
            number = mathlib.halved(mathlib.rounded_to_bfloat16(number))
        return emit.store(self.writes(value), [at], number)

    def load_view(self, view: View, index: Sequence[Expr | int]) -> Expr:
        number = immediate(view.source)
        if number is not None:
            return number
        return self.element(view.source, place(index, view.strides, view.offset))

    def extra(self, value: Value, index: list[Expr]) -> Expr:
        """As ``Epilogue.apply`` asks for it."""
        return self.load(value, index)

    def load_broadcast(self, value: Value, index: Sequence[Expr]) -> Expr:
        return self.load(value, broadcast_index(value.shape, index))

    def store(self, value: Value, index: Sequence[Expr | int], number: Expr) -> Stmt:
        return self.put(value, place(index, self.context.strides(value)), number)

    def kernel(self, key: str, body: Stmt, work: Work | None = None, **detail: Any) -> Kernel:
        work = work or Work()
        strides: dict[int, tuple[int, ...]] = dict.fromkeys(range(len(self.args)), (1,))
        # parameters come in the order in which they were first asked for, which the key must tell
        shown = " ".join(
            f"{'>' if index in self.outputs else ''}{_name(arg.buffer, self.context)}"
            for index, arg in enumerate(self.args)
        )
        moved = sum(_bytes(arg.buffer) for arg in self.args)
        return Kernel(
            key=f"{key} | {shown} | {self.context.target.vector}",
            func=emit.function(self.buffers, body),
            args=self.args,
            outputs=self.outputs,
            extent=work.extent,
            grain=work.grain(self.context, moved),
            flops=work.operations,
            moved=moved,
            strides=strides,
            detail=dict(detail),
        )


def _name(buffer: Any, context: Context) -> str:
    if isinstance(buffer, Value):
        return f"{buffer.dtype}{list(buffer.shape)}{list(context.strides(buffer))}"
    return f"{buffer.dtype}{list(buffer.shape)}"


def _bytes(buffer: Any) -> int:
    return (count_of(buffer.shape) * BITS[buffer.dtype] + 7) // 8


@dataclass(frozen=True, slots=True)
class Work:
    """How much a kernel does in how many iterations of its parallel loop."""

    extent: int = 1
    operations: int = 0

    def grain(self, context: Context, moved: int) -> int:
        target = context.target
        seconds = moved / max(target.bandwidth, 1e8) + self.operations / max(target.gflops * 5e8, 1e8)
        return max(1, min(self.extent, round(WORTH * self.extent / max(seconds, 1e-12))))


def operations(nodes: Iterable[Node]) -> int:
    return sum(COST.get(node.op, 1) * max((out.size for out in node.outputs), default=0) for node in nodes)


def signature(group: Group, inputs: Sequence[Value] | None = None) -> str:
    """What a group computes, in words that are equal for equal code; strides are in the parameters' part."""
    number: dict[Value, int] = {}
    for value in group.inputs if inputs is None else inputs:
        if not (value.data is not None and value.size == 1):
            number[value] = len(number)
    shown = " ".join(f"{at}:{v.dtype}{list(v.shape)}" for v, at in number.items())
    for node in group.nodes:
        for out in node.outputs:
            number[out] = len(number)
    return "; ".join([shown, *(node_key(node, number) for node in group.nodes)])


def span(
    size: int, lanes: int, at: Any, *, again: bool = True, names: Mapping[str, str] | None = None
) -> list[Stmt]:
    """``at(index)`` for every index below ``size``, a vector at a time.

    What does not fill a vector is done by one more that overlaps the last (``again``: doing an element twice does
    no harm), or by narrower ones.
    """
    name = (names or {}).get("vector", "v")
    whole, rest = divmod(size, lanes)
    made: list[Stmt] = []
    if whole:
        made.append(emit.serial(name, whole, lambda v: emit.vector(lanes, lambda lane: at(v * lanes + lane))))
    if rest and whole and again:
        last = size - lanes
        made.append(emit.vector(lanes, lambda lane: at(lane + last)))
    elif rest:
        made += [_piece(whole * lanes + start, width, at) for start, width in emit.pieces(rest, lanes)]
    return made


def _piece(start: int, width: int, at: Any) -> Stmt:
    return emit.vector(width, lambda lane: at(lane + start))


@dataclass(frozen=True, slots=True)
class Piece:
    """Vectors that are computed together: ``times`` of them from ``start`` on in steps of ``step``.

    ``vectors`` are (offset, width), relative to where such a piece begins.
    """

    start: int
    step: int
    times: int
    vectors: tuple[tuple[int, int], ...]


def cut(size: int, lanes: int, most: int) -> list[Piece]:
    """``size`` neighbours in pieces of at most ``most`` vectors: full ones, then what is left.

    The last vector of what is left may overlap the one before it.
    """
    made: list[Piece] = []
    full = size // (lanes * most)
    if full:
        made.append(Piece(0, lanes * most, full, tuple((i * lanes, lanes) for i in range(most))))
    start = full * lanes * most
    rest = size - start
    vectors = [(i * lanes, lanes) for i in range(rest // lanes)]
    if rest % lanes:
        if size >= lanes:
            vectors.append((rest - lanes, lanes))
        else:
            vectors += emit.pieces(rest, lanes)
    if vectors:
        made.append(Piece(start, 0, 1, tuple(vectors)))
    return made


def chunks(size: int, lanes: int, most: int, body: Callable[[Expr, Piece], list[Stmt]]) -> list[Stmt]:
    """``body(start, piece)`` for every piece of ``cut``."""

    def at(piece: Piece) -> Stmt:
        return emit.serial("q", piece.times, lambda q: body(q * piece.step + piece.start, piece))

    return [at(piece) for piece in cut(size, lanes, most)]
