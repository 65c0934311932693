"""Elementwise groups and moved data: one loop nest over the output, operands read through strides.

Neighbouring axes are merged where every operand allows it, so most groups become one or two loops; the innermost
runs in vectors. An operand whose contiguous axis is another one than the output's is turned in blocks: a square
of vectors is loaded, transposed in registers by shuffles, and left in a small local array for the chain to read.
A concatenation is one such copy for each of its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fleetui.common.domain.errors import BugError
from fleetui.workshop.graph.ir import Node, Shape, Value
from fleetui.workshop.kernel import Arg, Group, Kernel, dense_strides
from fleetui.workshop.schedules import emit, mathlib
from fleetui.workshop.schedules.epilogue import compute, immediate
from fleetui.workshop.schedules.frame import (
    Frame,
    View,
    Work,
    lanes_of,
    operations,
    place,
    signature,
    span,
    stored,
    view_through,
)
from fleetui.workshop.schedules.rules import Context
from fleetui.workshop.schedules.scalar import names

Expr = Any
Stmt = Any

BLOCK = 2048
"""Elements that one iteration of the parallel loop should have, at least."""
SQUARE_MOST = 16
"""Lanes of a transposed square; wider ones need more registers than there are."""

ELEMENTWISE = names()
READS = frozenset({"transpose", "slice", "broadcast_to", "identity"})


def takes(group: Group) -> bool:
    """Elementwise nodes and ways of reading; or one reshape or concatenation."""
    if len(group.nodes) == 1 and group.anchor.op in {"reshape", "concat"}:
        return True
    return all(node.op in ELEMENTWISE or node.op in READS for node in group.nodes)


@dataclass(slots=True)
class Nest:
    """The loop nest: extents of the merged axes, and every operand's strides along them (the output's first)."""

    shape: list[int]
    strides: list[list[int]]

    @property
    def rank(self) -> int:
        return len(self.shape)


def merged(shape: Shape, strides: Sequence[Sequence[int]]) -> Nest:
    """Drop axes of one element, order axes by the output's strides, join neighbours where all operands allow."""
    axes = [(dim, [s[i] for s in strides]) for i, dim in enumerate(shape) if dim != 1]
    axes.sort(key=lambda axis: -abs(axis[1][0]))
    joined: list[tuple[int, list[int]]] = []
    for dim, steps in axes:
        if joined and all(a == dim * b for a, b in zip(joined[-1][1], steps, strict=True)):
            joined[-1] = (joined[-1][0] * dim, steps)
        else:
            joined.append((dim, steps))
    if not joined:
        joined = [(1, [0 for _ in strides])]
    return Nest([dim for dim, _ in joined], [[steps[k] for _, steps in joined] for k in range(len(strides))])


# -------------------------------------------------------------------- groups


def lower(group: Group, context: Context) -> list[Kernel]:
    if group.outputs[0].size == 0:
        return []
    if group.anchor.op == "concat" and len(group.nodes) == 1:
        return _concat(group.anchor, context)
    if group.anchor.op == "reshape" and len(group.nodes) == 1:
        return [_reshape(group.anchor, context)]
    views, nodes = _views(group, context)
    out = group.outputs[0]
    operands = [v.broadcast(value.shape, out.shape) for value, v in views.items()]
    where = {value: index for index, value in enumerate(views)}

    def element(frame: Frame, load: Callable[[int], Expr], index: Sequence[Expr] | None) -> Expr:
        def operand(value: Value, at: list[Expr]) -> Expr:
            return load(where[value]) if value in where else frame.load(value, at)

        return compute(nodes, out, {}, index, operand) if nodes else load(where[out])

    plain = all(node.op not in {"quantize", "dequantize"} for node in nodes)
    made = Strided(context, out, out.shape, context.strides(out), operands, element, keep_axes=not plain)
    return [made.kernel("map " + signature(group), operations(group.nodes))]


def _views(group: Group, context: Context) -> tuple[dict[Value, View], list[Node]]:
    """What the chain reads, as views; and the nodes that compute.

    Parameters of ``quantize`` are read by index, not as operands.
    """
    made = {out for node in group.nodes for out in node.outputs}
    seen: dict[Value, View] = {}
    nodes: list[Node] = []

    def view_of(value: Value) -> View:
        return seen.get(value) or View(value, 0, context.strides(value))

    for node in group.nodes:
        source = node.inputs[0]
        if node.op in READS and source is not None and (source in seen or source not in made):
            view = view_through(node, view_of(source))
            if view is None:
                raise BugError(f"{node.op} is no way of reading")
            seen[node.output] = view
        else:
            nodes.append(node)
    wanted: dict[Value, View] = {}
    own = {node.output for node in nodes}
    for node in nodes:
        for position, value in enumerate(node.inputs):
            if value is None or value in own or (node.op in {"quantize", "dequantize"} and position):
                continue
            if immediate(value) is None:
                wanted.setdefault(value, view_of(value))
    if not nodes:
        out = group.outputs[0]
        wanted[out] = seen[out]
    return wanted, nodes


def _reshape(node: Node, context: Context) -> Kernel:
    """A copy: through the flat order where one side is dense, else element by element."""
    source, out = node.input(0), node.output
    read, write = context.strides(source), context.strides(out)
    key = f"reshape {list(source.shape)} {list(out.shape)}"

    def straight(_frame: Frame, load: Callable[[int], Expr], _index: Sequence[Expr] | None) -> Expr:
        return load(0)

    if read == dense_strides(source.shape):
        view = View(source, 0, dense_strides(out.shape))
        return Strided(context, out, out.shape, write, [view], straight).kernel(key, 0)
    if write == dense_strides(out.shape):
        view = View(source, 0, read)
        return Strided(context, out, source.shape, dense_strides(source.shape), [view], straight).kernel(key, 0)
    frame = Frame(context)

    def element(flat: Expr) -> Stmt:
        value = frame.load(source, unflat(flat, source.shape))
        return frame.store(out, unflat(flat, out.shape), value)

    body = emit.parallel(out.size, element)
    return frame.kernel(key, body, Work(out.size))


def unflat(flat: Expr, shape: Shape) -> list[Expr]:
    """The index of the element that comes at ``flat`` in dense order."""
    from tvm import tirx

    index: list[Expr] = []
    for axis, step in enumerate(dense_strides(shape)):
        at = flat if step == 1 else tirx.floordiv(flat, step)
        if shape[axis] == 1:
            at = emit.integer(0)
        elif axis and any(dim != 1 for dim in shape[:axis]):
            at = tirx.floormod(at, shape[axis])
        index.append(at)
    return index


def _concat(node: Node, context: Context) -> list[Kernel]:
    out, axis = node.output, node.attrs["axis"]
    strides = context.strides(out)
    whole = context.placements.get(out)
    kernels: list[Kernel] = []
    start = 0
    for value in node.inputs:
        if value is None or value.size == 0:
            continue
        offset = start * strides[axis]
        start += value.shape[axis]
        here = context.placements.get(value)
        base, origin = (out, 0) if whole is None else (whole.base, whole.offset)
        if here is not None and here.base is base and here.offset == origin + offset:
            continue

        def straight(_frame: Frame, load: Callable[[int], Expr], _index: Sequence[Expr] | None) -> Expr:
            return load(0)

        view = View(value, 0, context.strides(value))
        part = Strided(context, out, value.shape, strides, [view], straight, offset=offset)
        kernels.append(part.kernel(f"copy {list(value.shape)}", 0))
    return kernels


# -------------------------------------------------------------------- the nest


class Strided:
    """``out[i] = element(operands at i)`` over ``shape``; ``offset`` is where in ``out``'s buffer it begins.

    ``element(frame, load, index)`` gets a function that reads an operand by number; ``index`` is meant for those
    who need to know where they are (``keep_axes``), and is None otherwise.
    """

    def __init__(
        self,
        context: Context,
        out: Value,
        shape: Shape,
        strides: Sequence[int],
        operands: Sequence[View],
        element: Callable[[Frame, Callable[[int], Expr], Sequence[Expr] | None], Expr],
        *,
        offset: int = 0,
        keep_axes: bool = False,
    ) -> None:
        self.context = context
        self.out = out
        self.shape = shape
        self.operands = list(operands)
        self.element = element
        self.offset = offset
        self.frame = Frame(context)
        self.keep_axes = keep_axes
        columns = [strides, *(view.strides for view in operands)]
        if keep_axes:
            # the chain wants its index: axes stay apart and in order
            self.nest = Nest(list(shape) or [1], [list(c) or [0] for c in columns])
        else:
            self.nest = merged(shape, columns)
        self.lanes = lanes_of(context, out.dtype, *(view.source.dtype for view in operands))

    def kernel(self, key: str, work: int) -> Kernel:
        for view in self.operands:
            if immediate(view.source) is None:
                self.frame.reads(view.source)
        self.frame.writes(self.out)
        body, extent = self._body()
        made = self.frame.kernel(f"{key} @ {self._where()}", body, Work(extent, work))
        if self.offset:
            at = self.frame.outputs[0]
            made.args[at] = Arg(self.out, self.offset)
        return made

    def _where(self) -> str:
        seen = ",".join(f"{view.offset}{list(view.strides)}" for view in self.operands)
        return f"{self.nest.shape}{self.nest.strides}{seen}"

    # ------------------------------------------------------------ loops

    def _body(self) -> tuple[Stmt, int]:
        turned = self._turned()
        if turned is not None:
            return self._squares(*turned)
        nest = self.nest
        *outer, inner = nest.shape
        if not outer and inner > 2 * BLOCK:
            return self._line(inner)
        # so many leading axes run in parallel that each iteration keeps a block of work
        split = len(outer)
        while split and _product(nest.shape[split:]) < BLOCK:
            split -= 1
        split = max(split, min(1, len(outer)))
        extent = _product(outer[:split])

        def task(at: Expr) -> list[Stmt]:
            lead = unflat(at, tuple(outer[:split]))
            return self._loops(lead, outer[split:], inner)

        return emit.parallel(extent, task), extent

    def _loops(self, lead: list[Expr], rest: list[int], inner: int) -> list[Stmt]:
        if rest:
            return [emit.serial("i", rest[0], lambda i: self._loops([*lead, i], rest[1:], inner))]
        lanes = self.lanes if self._vectorises() else 1
        return span(inner, lanes, lambda j: self._store([*lead, j]))

    def _vectorises(self) -> bool:
        return self.nest.strides[0][-1] in {0, 1}

    def _line(self, size: int) -> tuple[Stmt, int]:
        """One long axis, cut into blocks of whole vectors; the end belongs to the last."""
        lanes = self.lanes if self._vectorises() else 1
        vectors = size // lanes
        each = max(1, BLOCK // lanes)
        extent = -(-vectors // each)

        def task(at: Expr) -> list[Stmt]:
            start, count = at * each, emit.least(emit.integer(each), vectors - at * each)
            return [
                emit.serial(
                    "v", count, lambda v: emit.vector(lanes, lambda k: self._store([(start + v) * lanes + k]))
                )
            ]

        made = [emit.parallel(extent, task)]
        rest = size - vectors * lanes
        if not rest:
            return made[0], extent
        last = emit.vector(lanes, lambda lane: self._store([lane + (size - lanes)]))

        def task_with_end(at: Expr) -> list[Stmt]:
            return [*task(at), emit.choose(at == extent - 1, last)]

        return emit.parallel(extent, task_with_end), extent

    def _store(self, index: Sequence[Expr], tiles: dict[int, Expr] | None = None) -> Stmt:
        def load(number: int) -> Expr:
            if tiles and number in tiles:
                return tiles[number]
            view, strides = self.operands[number], self.nest.strides[1 + number]
            constant = immediate(view.source)
            if constant is not None:
                return constant
            return self.frame.element(view.source, place(index, strides, view.offset))

        value = self.element(self.frame, load, index if self.keep_axes else None)
        return self.frame.put(self.out, place(index, self.nest.strides[0]), value)

    # ------------------------------------------------------------ operands that lie the other way

    def _turned(self) -> tuple[int, list[int]] | None:
        """An axis other than the innermost along which operands are contiguous, and those operands."""
        nest = self.nest
        if self.keep_axes or nest.rank < 2 or nest.strides[0][-1] != 1:
            return None
        found: dict[int, list[int]] = {}
        for number in range(len(self.operands)):
            strides = nest.strides[1 + number]
            if strides[-1] in {0, 1}:
                continue
            for axis in range(nest.rank - 1):
                if strides[axis] == 1:
                    found.setdefault(axis, []).append(number)
        if not found:
            return None
        axis = max(found, key=lambda a: len(found[a]))
        return axis, found[axis]

    def _side(self, numbers: Sequence[int]) -> int:
        """The side of a square: a power of two, at most a register's lanes."""
        return min(SQUARE_MOST, lanes_of(self.context, *(self.operands[n].source.dtype for n in numbers)))

    def _squares(self, axis: int, numbers: list[int]) -> tuple[Stmt, int]:
        """Blocks of side² in the plane of (axis, innermost); what is left at the edges goes one by one."""
        nest, side = self.nest, self._side(numbers)
        inner, across = nest.shape[-1], nest.shape[axis]
        others = [a for a in range(nest.rank - 1) if a != axis]
        rows, columns = across // side, inner // side
        tall = max(1, rows)
        # a task is a strip: `side` steps across, the whole innermost axis, one of the other axes
        strips = tall + (1 if rows and across % side else 0)
        outer = tuple(nest.shape[a] for a in others)
        extent = _product(outer) * strips

        def index(lead: Sequence[Expr], a: Expr, j: Expr) -> list[Expr]:
            full: list[Expr] = [None] * nest.rank
            for at, value in zip(others, lead, strict=True):
                full[at] = value
            full[axis], full[-1] = a, j
            return full

        def plain(lead: Sequence[Expr], first: int, count: int, start: int, size: int) -> Stmt:
            def row(a: Expr) -> list[Stmt]:
                lanes = min(self.lanes, 1 << (max(1, size).bit_length() - 1))
                return span(size, lanes, lambda j: self._store(index(lead, a + first, j + start)))

            return emit.serial("a", count, row)

        def strip(lead: Sequence[Expr], a0: Expr) -> list[Stmt]:
            made: list[Stmt] = []
            if columns:
                made.append(
                    emit.serial("b", columns, lambda b: self._square(index, lead, a0, b * side, side, numbers))
                )
            if inner % side:
                start = columns * side
                made.append(
                    emit.serial(
                        "a",
                        side,
                        lambda a: span(inner - start, 1, lambda j: self._store(index(lead, a0 + a, j + start))),
                    )
                )
            return made

        def task(at: Expr) -> list[Stmt]:
            lead, s = self._apart(at, outer, strips)
            if not rows:
                return [plain(lead, 0, across, 0, inner)]
            full = emit.sequence(strip(lead, s * side))
            if strips == rows:
                return [full]
            edge = plain(lead, rows * side, across - rows * side, 0, inner)
            return [emit.choose(s < rows, full, edge)]

        return emit.parallel(extent, task), extent

    def _apart(self, at: Expr, outer: Shape, strips: int) -> tuple[list[Expr], Expr]:
        from tvm import tirx

        if strips == 1:
            return unflat(at, outer), emit.integer(0)
        return unflat(tirx.floordiv(at, strips), outer), tirx.floormod(at, strips)

    def _from_tile(self, number: int, tile: Any, at: Expr) -> Expr:
        found = emit.load(tile, at)
        return mathlib.doubled(found) if self.operands[number].source.dtype == "bfloat16" else found

    def _square(
        self,
        index: Callable[[Sequence[Expr], Expr, Expr], list[Expr]],
        lead: Sequence[Expr],
        a0: Expr,
        b0: Expr,
        side: int,
        numbers: Sequence[int],
    ) -> list[Stmt]:
        made: list[Stmt] = []
        tiles: dict[int, Any] = {}
        for number in numbers:
            view, strides = self.operands[number], self.nest.strides[1 + number]
            tile, alloc = emit.local(f"tile{number}", side * side, stored(view.source.dtype))
            made.append(alloc)
            source = self.frame.reads(view.source)
            starts = [place(index(lead, a0, b0 + j), strides, view.offset) for j in range(side)]
            made += transposed(source, starts, tile, side)
            tiles[number] = tile

        def row(a: Expr) -> Stmt:
            def lane(j: Expr) -> Stmt:
                read = {n: self._from_tile(n, tile, a * side + j) for n, tile in tiles.items()}
                return self._store(index(lead, a0 + a, b0 + j), read)

            lanes = min(self.lanes, side)
            if lanes == side:
                return emit.vector(side, lane)
            return emit.serial("p", side // lanes, lambda p: emit.vector(lanes, lambda j: lane(p * lanes + j)))

        for a in range(side):
            made.append(row(emit.integer(a)))
        return made


def transposed(source: Any, starts: Sequence[Expr], tile: Any, side: int) -> list[Stmt]:
    """Load ``side`` vectors from ``starts`` and put them into ``tile`` as columns.

    A butterfly: in each of log2(side) rounds, halves of pairs of vectors are exchanged.
    """
    from tvm import tirx

    made: list[Stmt] = []

    def name(value: Expr) -> Expr:
        var = tirx.Var("q", value.ty)
        made.append(tirx.Bind(var, value))
        return var

    if side == 1:
        return [emit.store(tile, [emit.integer(0)], emit.load(source, starts[0]))]
    rows = [name(emit.load(source, tirx.Ramp(start, emit.integer(1), side))) for start in starts]
    step = side // 2
    while step:
        low = [j if not j & step else side + (j ^ step) for j in range(side)]
        high = [j | step if not j & step else side + j for j in range(side)]
        for i in range(side):
            if not i & step:
                pair = [rows[i], rows[i | step]]
                rows[i] = name(tirx.Shuffle(pair, [emit.integer(k) for k in low]))
                rows[i | step] = name(tirx.Shuffle(pair, [emit.integer(k) for k in high]))
        step //= 2
    for i, row in enumerate(rows):
        made.append(emit.store(tile, [tirx.Ramp(emit.integer(i * side), emit.integer(1), side)], row))
    return made


def _product(shape: Sequence[int]) -> int:
    total = 1
    for dim in shape:
        total *= dim
    return total
